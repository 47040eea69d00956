/* Files that mopt wrote, in ONNX's checker and in ONNX Runtime: each script tests/ort/check_NAME.py is one test.
 * They need the Python packages of tests/venv.sh; without them the suite fails and says so. */
#include <check.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TIMEOUT_S = 600 };
static glob_t scripts;

START_TEST(script)
{
    char command[4096], folder[] = "/tmp/mopt-ort-XXXXXX", root[2048];
    const char *mopt = getenv("MOPT_BIN"), *python = getenv("MOPT_PYTHON");
    ck_assert_msg(mopt && python, "MOPT_BIN and MOPT_PYTHON are not set: run through make test");
    ck_assert_msg(!access(python, X_OK), "%s is not there: run make check once, or tests/venv.sh", python);
    ck_assert_ptr_nonnull(getcwd(root, sizeof root));
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(command, sizeof command, "cd '%s' && MOPT='%s' PYTHONDONTWRITEBYTECODE=1 '%s' '%s/%s' > log 2>&1; "
             "s=$?; [ $s = 0 ] || tail -20 log >&2; exit $s", folder, mopt, python, root, scripts.gl_pathv[_i]);
    int status = system(command);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    int removed = system(command);
    ck_assert_msg(status == 0, "%s failed", scripts.gl_pathv[_i]);
    ck_assert_int_eq(removed, 0);
}
END_TEST

Suite *suite_ort(void);
Suite *suite_ort(void)
{
    Suite *s = suite_create("ort");
    TCase *t = tcase_create("ort");
    glob("tests/ort/check_*.py", 0, NULL, &scripts);
    tcase_set_timeout(t, TIMEOUT_S);
    tcase_add_loop_test(t, script, 0, (int)scripts.gl_pathc);
    suite_add_tcase(s, t);
    return s;
}
