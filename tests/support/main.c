/* The one test program: every suite of build/gen/suites.c, or those whose name
 * contains $MOPT_T, run by one Check runner so that its closing line counts all. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

extern Suite *(*const mo_suites[])(void);

int main(void)
{
    const char *only = getenv("MOPT_T");
    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; mo_suites[i]; i++) {
        Suite *s = mo_suites[i]();
        if (only && *only && !suite_tcase(s, only)) {
            /* Check offers no way to read a suite's name; suites name a test case after themselves. */
            continue;
        }
        srunner_add_suite(runner, s);
    }
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    int run = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed || !run;
}
