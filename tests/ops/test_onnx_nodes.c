/* ONNX's own backend tests: a folder a case, model.onnx and test_data_set_N with
 * input_K.pb and output_K.pb. Every case is run; one that is listed in
 * tests/ops/expected_skips.txt must fail there, so that the list can only shrink.
 *
 *     MOPT_ONNX_DATA     folder of groups (Debian: libonnx-testdata)
 *     MOPT_ONNX_ARCHIVE  newer cases in a tar archive; left out where there is none
 *     MOPT_ONNX_PYPI     the data of onnx from PyPI; default: that of build/venv, where it is there
 *     MOPT_ONNX_SHOW=1   print what fails as lines for the list
 *     MOPT_TEST_DEVICE   where they run (cpu)
 *     MOPT_ONNX_CASES    only cases whose name fits this pattern, such as "new/node/test_dft*"
 *
 * Each case runs in a process of its own, so that one crash is one failure. */
#include <check.h>
#include <dirent.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/tensor_pb.h"
#include "kernels/cpu/small_float.h"
#include "lib/ops/sequence.h"
#include "lib/run/run.h"

#define DEFAULT_DATA "/usr/share/libonnx-testdata/data"
#define DEFAULT_ARCHIVE "../shared/data/onnx-node-tests.tar.zst"
#define PYPI_DATA "build/venv/lib/python3*/site-packages/onnx/backend/test/data"
#define SKIPS "tests/ops/expected_skips.txt"

enum { N_SHARDS = 8, MAX_CASES = 8192, MAX_TENSORS = 64, LIMIT_S = 60 };

static const char *const groups[] = { "node", "simple", "pytorch-converted", "pytorch-operator" };

/* name: "1.12/node/test_abs" or "new/node/test_abs" */
struct node_case { char *name, *folder; };
static struct node_case cases[MAX_CASES];
static int n_cases;
static char *skips;                     /* the file, lines ended by 0 */
static size_t n_skip_bytes;
static char unpacked[64];

/* ---- finding cases ---- */

static char *text_of(const char *fmt, const char *a, const char *b, const char *c)
{
    char *text = NULL;
    ck_assert_int_ge(asprintf(&text, fmt, a, b, c), 0);
    return text;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct node_case *)a)->name, ((const struct node_case *)b)->name);
}

static void find_cases(const char *set, const char *root)
{
    for (size_t i = 0; i < MO_COUNT(groups); i++) {
        char *folder = text_of("%s/%s%s", root, groups[i], "");
        DIR *dir = opendir(folder);
        for (struct dirent *e; dir && (e = readdir(dir));) {
            if (e->d_name[0] == '.')
                continue;
            ck_assert_int_lt(n_cases, MAX_CASES);
            cases[n_cases].name = text_of("%s/%s/%s", set, groups[i], e->d_name);
            cases[n_cases++].folder = text_of("%s/%s%s", folder, e->d_name, "");
        }
        if (dir)
            closedir(dir);
        free(folder);
    }
    qsort(cases, (size_t)n_cases, sizeof *cases, by_name);
}

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *bytes = calloc(*n + 1, 1);
    ck_assert(bytes && fread(bytes, 1, *n, f) == *n);
    fclose(f);
    return bytes;
}

static void unpack(const char *archive)
{
    char command[1024];
    snprintf(unpacked, sizeof unpacked, "/tmp/mopt-onnx-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(unpacked));
    snprintf(command, sizeof command, "tar -xf '%s' -C '%s'", archive, unpacked);
    ck_assert_msg(system(command) == 0, "%s could not be unpacked (tar and zstd are needed)", archive);
    snprintf(command, sizeof command, "%s/onnx-node-tests", unpacked);
    find_cases("new", command);
}

/* What of the package is in the archive too fails for the same reasons. */
static void find_pypi_cases(void)
{
    const char *data = getenv("MOPT_ONNX_PYPI");
    glob_t found = { 0 };
    if (data)
        find_cases("pypi", data);
    else if (!glob(PYPI_DATA, 0, NULL, &found) && found.gl_pathc)
        find_cases("pypi", found.gl_pathv[0]);
    globfree(&found);
}

static void set_up(void)
{
    const char *data = getenv("MOPT_ONNX_DATA"), *archive = getenv("MOPT_ONNX_ARCHIVE");
    find_cases("1.12", data ? data : DEFAULT_DATA);
    archive = archive ? archive : DEFAULT_ARCHIVE;
    if (!access(archive, R_OK))
        unpack(archive);
    find_pypi_cases();
    skips = read_file(SKIPS, &n_skip_bytes);
    for (size_t i = 0; skips && i < n_skip_bytes; i++)
        if (skips[i] == '\n')
            skips[i] = 0;
}

static void tear_down(void)
{
    char command[128];
    if (unpacked[0]) {
        snprintf(command, sizeof command, "rm -r '%s'", unpacked);
        ck_assert_int_eq(system(command), 0);
    }
    for (int i = 0; i < n_cases; i++) {
        free(cases[i].name);
        free(cases[i].folder);
    }
    free(skips);
}

/* The reason, or NULL. */
static const char *skip_reason(const char *full_name)
{
    char name[512];
    bool is_pypi = !strncmp(full_name, "pypi/", 5);
    size_t n = (size_t)snprintf(name, sizeof name, "%s%s", is_pypi ? "new/" : "", full_name + (is_pypi ? 5 : 0));
    for (size_t i = 0; skips && i < n_skip_bytes; i += strlen(skips + i) + 1)
        if (!strncmp(skips + i, name, n) && skips[i + n] == '\t')
            return skips + i + n + 1;
    return NULL;
}

/* ---- one case, in its own process ---- */

static char why[512];

#define FAIL(...) return snprintf(why, sizeof why, __VA_ARGS__), false

static bool read_tensor(struct mopt_ctx *ctx, const char *set, const char *kind, uint32_t i, enum mo_dtype dtype,
                        struct mo_host_tensor *t, bool *is_there)
{
    bool is_list = dtype == MO_SEQUENCE || dtype == MO_OPTIONAL;
    char path[1024];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s_%u.pb", set, kind, i);
    char *bytes = read_file(path, &n);
    *is_there = bytes != NULL;
    bool is_ok = !bytes || !(is_list ? mo_list_pb_parse(ctx, dtype, bytes, n, t) : mo_tensor_pb_parse(ctx, bytes, n, t));
    free(bytes);
    if (!is_ok)
        FAIL("%s %u: %s", kind, i, mopt_error(ctx));
    return true;
}

/* Element i as a double and, where it is an integer, as that. */
static double element(enum mo_dtype dtype, const void *data, int64_t i, int64_t *whole)
{
    const struct mo_small_format *small = mo_small_format((int)dtype);
    int bits = mo_dtype_bits(dtype);
    if (bits < 8) {         /* packed, the first in the low bits */
        int per_byte = 8 / bits, top = 1 << (bits - 1);
        int code = ((const uint8_t *)data)[i / per_byte] >> i % per_byte * bits & (2 * top - 1);
        bool is_signed = dtype == MO_I4 || dtype == MO_I2;
        *whole = small ? 0 : is_signed ? (code ^ top) - top : code;
        return small ? mo_small_decode(small, (uint32_t)code) : (double)*whole;
    }
    if (small)
        return mo_small_decode(small, small->bits == 16 ? ((const uint16_t *)data)[i] : ((const uint8_t *)data)[i]);
    switch (dtype) {
    case MO_F32: return (double)((const float *)data)[i];
    case MO_F64: return ((const double *)data)[i];
    case MO_I64: case MO_U64: *whole = ((const int64_t *)data)[i]; break;
    case MO_I32: *whole = ((const int32_t *)data)[i]; break;
    case MO_U32: *whole = ((const uint32_t *)data)[i]; break;
    case MO_I16: *whole = ((const int16_t *)data)[i]; break;
    case MO_U16: *whole = ((const uint16_t *)data)[i]; break;
    case MO_I8: *whole = ((const int8_t *)data)[i]; break;
    default: *whole = ((const uint8_t *)data)[i];
    }
    return (double)*whole;
}

static bool is_equal(double got, double want, int64_t got_int, int64_t want_int)
{
    if (isnan(want))
        return isnan(got);
    if (isinf(want))
        return got == want;
    return got_int == want_int && fabs(got - want) <= 1e-7 + 1e-3 * fabs(want);
}

/* A run computes half precision in float32 and leaves it so; it is rounded here as a Cast would. */
static double as_stored(enum mo_dtype want, enum mo_dtype got, double x)
{
    if (got == MO_F32 && want == MO_F16)
        return (double)mo_float_of_f16(mo_f16_of_float((float)x));
    if (got == MO_F32 && want == MO_BF16)
        return (double)mo_float_of_bf16(mo_bf16_of_float((float)x));
    return x;
}

/* Numbers that are drawn: of another generator than ours, so that only their type and shape can agree. */
static bool is_drawn;

/* ONNX 1.12 keeps bfloat16 in tensors of uint16. */
static bool is_bf16_in_uint16(enum mo_dtype stored, enum mo_dtype meant)
{
    return stored == MO_U16 && (meant == MO_BF16 || meant == MO_F32);
}

static bool compare_item(uint32_t i, const struct mo_item *got, struct mo_item *want);

/* Lists: as long, and item by item. */
static bool compare_list(uint32_t i, const struct mo_item *got, const struct mo_item *want)
{
    struct mopt_ctx ctx = { 0 };
    int64_t n_got = 0, n_want = 0;
    if (mo_sequence_check(&ctx, got->data, (size_t)mo_shape_elems(&got->shape), &n_got) ||
        mo_sequence_check(&ctx, want->data, (size_t)mo_shape_elems(&want->shape), &n_want))
        FAIL("output %u is no list", i);
    if (n_got != n_want)
        FAIL("output %u has %lld items, not %lld", i, (long long)n_got, (long long)n_want);
    for (int64_t k = 0; k < n_got; k++) {
        struct mo_item x = mo_sequence_item(got->data, k), y = mo_sequence_item(want->data, k);
        if (!compare_item(i, &x, &y))
            return false;
    }
    return true;
}

static bool compare_item(uint32_t i, const struct mo_item *got, struct mo_item *want)
{
    char got_text[128], want_text[128];
    if (is_bf16_in_uint16(want->dtype, got->dtype))
        want->dtype = MO_BF16;
    bool is_widened = got->dtype == MO_F32 && (want->dtype == MO_F16 || want->dtype == MO_BF16);
    if (got->dtype != want->dtype && !is_widened)
        FAIL("output %u is %s, not %s", i, mo_dtype_name(got->dtype), mo_dtype_name(want->dtype));
    if (mo_is_list(got->dtype))
        return compare_list(i, got, want);
    if (!mo_shape_equal(&got->shape, &want->shape))
        FAIL("output %u is %s, not %s", i, mo_shape_text(&got->shape, got_text, sizeof got_text),
             mo_shape_text(&want->shape, want_text, sizeof want_text));
    for (int64_t k = 0; !is_drawn && k < mo_shape_elems(&want->shape); k++) {
        int64_t got_int = 0, want_int = 0;
        double x = element(got->dtype, got->data, k, &got_int), y = element(want->dtype, want->data, k, &want_int);
        x = as_stored(want->dtype, got->dtype, x);
        if (!is_equal(x, y, got_int, want_int))
            FAIL("output %u [%lld] is %.9g, not %.9g", i, (long long)k, x, y);
    }
    return true;
}

static bool compare_texts(struct mo_run *run, uint32_t i, const struct mo_host_tensor *want)
{
    char *got = NULL, text_got[128], text_want[128];
    const struct mo_value *v = mo_run_output(run, i);
    size_t n = 0;
    if (want->dtype != MO_STRING || !mo_shape_equal(&v->shape, &want->shape))
        FAIL("output %u is %s, not %s", i, mo_shape_text(&v->shape, text_got, sizeof text_got),
             mo_shape_text(&want->shape, text_want, sizeof text_want));
    if (mo_run_get_texts(run, i, &got, &n))
        FAIL("output %u: %s", i, mopt_error(run->ctx));
    bool is_same = n == want->n_bytes && !memcmp(got, want->data, n);
    if (!is_same)
        snprintf(why, sizeof why, "output %u begins '%.60s', not '%.60s'", i, got, (const char *)want->data);
    mo_mem_free(got);
    return is_same;
}

static bool compare(struct mo_run *run, uint32_t i, const struct mo_host_tensor *want)
{
    const struct mo_value *v = mo_run_output(run, i);
    if (v->dtype == MO_STRING)
        return compare_texts(run, i, want);
    size_t bytes = mo_value_bytes(v);
    void *data = mo_mem_new(bytes + 1, 1);
    if (!data || mo_run_get_output(run, i, data, bytes))
        FAIL("output %u: %s", i, mopt_error(run->ctx));
    struct mo_item got = { v->dtype, v->shape, data }, wanted = { want->dtype, want->shape, want->data };
    bool is_equal_to = compare_item(i, &got, &wanted);
    mo_mem_free(data);
    return is_equal_to;
}

static bool feed(struct mopt_ctx *ctx, struct mo_run *run, const char *set)
{
    struct mo_host_tensor in[MAX_TENSORS];
    struct mo_shape shapes[MAX_TENSORS];
    uint32_t n = mo_run_n_inputs(run);
    bool is_there;
    if (n > MAX_TENSORS)
        FAIL("%u inputs", n);
    for (uint32_t i = 0; i < n; i++) {
        if (!read_tensor(ctx, set, "input", i, mo_run_input(run, i)->dtype, &in[i], &is_there))
            return false;
        if (!is_there)
            FAIL("there is no input %u", i);
        shapes[i] = in[i].shape;
    }
    if (mo_run_shape(run, shapes, n))
        FAIL("%s", mopt_error(ctx));
    for (uint32_t i = 0; i < n; i++) {
        if (mo_run_input(run, i)->dtype != in[i].dtype &&
            !(mo_run_input(run, i)->dtype == MO_BF16 && is_bf16_in_uint16(in[i].dtype, MO_BF16)))
            FAIL("input %u is %s, not %s", i, mo_dtype_name(in[i].dtype), mo_dtype_name(mo_run_input(run, i)->dtype));
        if (in[i].dtype == MO_STRING ? mo_run_set_texts(run, i, in[i].data, in[i].n_bytes)
                                     : mo_run_set_input(run, i, in[i].data, in[i].n_bytes))
            FAIL("%s", mopt_error(ctx));
        mo_host_tensor_release(&in[i]);
    }
    return true;
}

static bool run_set(struct mopt_ctx *ctx, struct mo_run *run, const char *set)
{
    if (!feed(ctx, run, set))
        return false;
    if (mo_run_forward(run))
        FAIL("%s", mopt_error(ctx));
    for (uint32_t i = 0; i < mo_run_n_outputs(run); i++) {
        struct mo_host_tensor want;
        bool is_there;
        if (!read_tensor(ctx, set, "output", i, mo_run_output(run, i)->dtype, &want, &is_there))
            return false;
        if (!is_there)
            FAIL("there is no output %u", i);
        bool is_ok = compare(run, i, &want);
        mo_host_tensor_release(&want);
        if (!is_ok)
            return false;
    }
    return true;
}

static bool run_sets(struct mopt_ctx *ctx, struct mo_run *run, const char *folder)
{
    struct stat st;
    int n = 0;
    for (;; n++) {
        char set[1024];
        snprintf(set, sizeof set, "%s/test_data_set_%d", folder, n);
        if (stat(set, &st))
            break;
        if (!run_set(ctx, run, set))
            return false;
    }
    if (!n)
        FAIL("there is no data");
    return true;
}

static bool run_case(const struct node_case *c)
{
    char path[1024];
    const char *device = getenv("MOPT_TEST_DEVICE");
    struct mopt_ctx *ctx = mopt_open(device && device[0] ? device : "cpu", 1);
    struct mopt_model *model = NULL;
    struct mo_run *run = NULL;
    struct mo_run_options options = { .seed = 1 };
    bool is_ok = false;
    snprintf(path, sizeof path, "%s/model.onnx", c->folder);
    is_drawn = strstr(c->name, "test_bernoulli") || (strstr(c->name, "test_training_dropout") && !strstr(c->name, "zero_ratio"));
    if (!ctx)
        FAIL("no memory");
    if (mopt_model_read(ctx, path, &model) || mo_run_new(ctx, &model->graph, &options, &run))
        snprintf(why, sizeof why, "%s", mopt_error(ctx));
    else
        is_ok = run_sets(ctx, run, c->folder);
    mo_run_free(run);
    mopt_model_free(model);
    mopt_close(ctx);
    return is_ok;
}

/* True when it passes; else `why` is filled. */
static bool run_apart(const struct node_case *c)
{
    int ends[2], status = 0;
    ck_assert_int_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        alarm(LIMIT_S);
        bool is_ok = run_case(c);
        if (!is_ok && write(ends[1], why, strlen(why)) < 0)
            _exit(2);
        _exit(!is_ok);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], why, sizeof why - 1);
    why[n > 0 ? n : 0] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        snprintf(why, sizeof why, "ended by signal %d", WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

START_TEST(cases_pass)
{
    static char report[1 << 16];
    size_t used = 0;
    int n_bad = 0;
    ck_assert_msg(n_cases > 0, "no ONNX test data in %s (Debian: libonnx-testdata)", DEFAULT_DATA);
    const char *only = getenv("MOPT_ONNX_CASES");
    for (int i = _i; i < n_cases; i += N_SHARDS) {
        if (only && !mo_glob(only, cases[i].name))
            continue;
        const char *reason = skip_reason(cases[i].name);
        bool passes = run_apart(&cases[i]);
        if (getenv("MOPT_ONNX_SHOW") && !passes)
            printf("%s\t%s\n", cases[i].name, why);
        if (passes != (reason != NULL))
            continue;
        n_bad++;
        if (used < sizeof report - 1024)
            used += (size_t)snprintf(report + used, 1024, "\n  %s: %.600s", cases[i].name,
                                     passes ? "passes and is listed in " SKIPS ", take it out" : why);
    }
    fflush(stdout);
    ck_assert_msg(!n_bad, "%d cases:%s", n_bad, report);
}
END_TEST

/* The list names nothing that is not there. */
START_TEST(skips_are_cases)
{
    for (size_t i = 0; skips && i < n_skip_bytes; i += strlen(skips + i) + 1) {
        const char *line = skips + i, *tab = strchr(line, '\t');
        if (!*line || *line == '#' || (!unpacked[0] && !strncmp(line, "new/", 4)))
            continue;
        ck_assert_msg(tab && tab[1], "'%s' has no reason", line);
        bool is_found = false;
        for (int k = 0; !is_found && k < n_cases; k++)
            is_found = strlen(cases[k].name) == (size_t)(tab - line) && !strncmp(cases[k].name, line, (size_t)(tab - line));
        ck_assert_msg(is_found, "there is no case '%.*s'", (int)(tab - line), line);
    }
}
END_TEST

Suite *suite_onnx_nodes(void);
Suite *suite_onnx_nodes(void)
{
    Suite *suite = suite_create("onnx_nodes");
    TCase *tcase = tcase_create("cases");
    tcase_add_unchecked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, 600);
    tcase_add_loop_test(tcase, cases_pass, 0, N_SHARDS);
    tcase_add_test(tcase, skips_are_cases);
    suite_add_tcase(suite, tcase);
    return suite;
}
