/* The command line: each script tests/cli/NAME.sh is one test, run in an empty folder of its own. */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SCRIPTS = 128, TIMEOUT_S = 300 };
static char scripts[MAX_SCRIPTS][64];
static int n_scripts;

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void list_scripts(void)
{
    DIR *folder = opendir("tests/cli");
    struct dirent *entry;
    n_scripts = 0;
    while (folder && (entry = readdir(folder)) && n_scripts < MAX_SCRIPTS) {
        size_t n = strlen(entry->d_name);
        if (n > 3 && n < sizeof scripts[0] && !strcmp(entry->d_name + n - 3, ".sh") && strcmp(entry->d_name, "lib.sh"))
            memcpy(scripts[n_scripts++], entry->d_name, n + 1);
    }
    if (folder)
        closedir(folder);
    qsort(scripts, (size_t)n_scripts, sizeof scripts[0], by_name);
}

START_TEST(script)
{
    char root[2048], folder[] = "/tmp/mopt-cli-XXXXXX", command[8192];
    const char *mopt = getenv("MOPT_BIN");
    ck_assert_msg(mopt != NULL, "MOPT_BIN is not set: run through make test");
    ck_assert_ptr_nonnull(getcwd(root, sizeof root));
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(command, sizeof command,
             "cd '%s' && MOPT='%s' ROOT='%s' sh -c '. \"$ROOT/tests/cli/lib.sh\"; . \"$ROOT/tests/cli/%s\"' > log 2>&1; "
             "s=$?; [ $s = 0 ] || tail -20 log >&2; exit $s",
             folder, mopt, root, scripts[_i]);
    int status = system(command);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    int removed = system(command);
    ck_assert_msg(status == 0, "%s failed", scripts[_i]);
    ck_assert_int_eq(removed, 0);
}
END_TEST

Suite *suite_cli(void);
Suite *suite_cli(void)
{
    Suite *s = suite_create("cli");
    TCase *t = tcase_create("cli");
    list_scripts();
    tcase_set_timeout(t, TIMEOUT_S);
    tcase_add_loop_test(t, script, 0, n_scripts);
    suite_add_tcase(s, t);
    return s;
}
