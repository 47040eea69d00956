/* The one test program: every suite of build/gen/suites.c, or those whose name
 * contains $MOPT_T, in one Check runner, so that its closing line counts all. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

extern const struct mo_suite {
    const char *name;
    Suite *(*make)(void);
} mo_suites[];

int main(void)
{
    const char *only = getenv("MOPT_T");
    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; mo_suites[i].name; i++)
        if (!only || strstr(mo_suites[i].name, only))
            srunner_add_suite(runner, mo_suites[i].make());
    srunner_run_all(runner, CK_ENV);
    int n_failed = srunner_ntests_failed(runner), n_run = srunner_ntests_run(runner);
    srunner_free(runner);
    return n_failed || !n_run;
}
