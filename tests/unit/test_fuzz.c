/* Every fuzz target over its seeds (tests/fuzz/corpus), and over these with bytes changed, cut out, doubled and cut off by
 * a fixed seed. `make fuzz` goes farther. */
#include <check.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/base.h"

int fuzz_cifar(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_cifar
#include "tests/fuzz/fuzz_cifar.c"
#undef LLVMFuzzerTestOneInput
int fuzz_checkpoint(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_checkpoint
#include "tests/fuzz/fuzz_checkpoint.c"
#undef LLVMFuzzerTestOneInput
int fuzz_create(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_create
#include "tests/fuzz/fuzz_create.c"
#undef LLVMFuzzerTestOneInput
int fuzz_csv(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_csv
#include "tests/fuzz/fuzz_csv.c"
#undef LLVMFuzzerTestOneInput
int fuzz_external(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_external
#include "tests/fuzz/fuzz_external.c"
#undef LLVMFuzzerTestOneInput
int fuzz_idx(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_idx
#include "tests/fuzz/fuzz_idx.c"
#undef LLVMFuzzerTestOneInput
int fuzz_image(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_image
#include "tests/fuzz/fuzz_image.c"
#undef LLVMFuzzerTestOneInput
int fuzz_npy(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_npy
#include "tests/fuzz/fuzz_npy.c"
#undef LLVMFuzzerTestOneInput
int fuzz_onnx(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_onnx
#include "tests/fuzz/fuzz_onnx.c"
#undef LLVMFuzzerTestOneInput
int fuzz_recipe(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_recipe
#include "tests/fuzz/fuzz_recipe.c"
#undef LLVMFuzzerTestOneInput
int fuzz_report(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_report
#include "tests/fuzz/fuzz_report.c"
#undef LLVMFuzzerTestOneInput
int fuzz_schema(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_schema
#include "tests/fuzz/fuzz_schema.c"
#undef LLVMFuzzerTestOneInput
int fuzz_svmlight(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_svmlight
#include "tests/fuzz/fuzz_svmlight.c"
#undef LLVMFuzzerTestOneInput
int fuzz_tensor(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_tensor
#include "tests/fuzz/fuzz_tensor.c"
#undef LLVMFuzzerTestOneInput
int fuzz_testdata(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_testdata
#include "tests/fuzz/fuzz_testdata.c"
#undef LLVMFuzzerTestOneInput
int fuzz_transform(const uint8_t *data, size_t n);
#define LLVMFuzzerTestOneInput fuzz_transform
#include "tests/fuzz/fuzz_transform.c"
#undef LLVMFuzzerTestOneInput

enum { N_ROUNDS = 60, MAX_BYTES = 8192 };

static const struct { const char *name; int (*target)(const uint8_t *, size_t); } targets[] = {
    {"cifar", fuzz_cifar},
    {"checkpoint", fuzz_checkpoint},
    {"create", fuzz_create},
    {"csv", fuzz_csv},
    {"external", fuzz_external},
    {"idx", fuzz_idx},
    {"image", fuzz_image},
    {"npy", fuzz_npy},
    {"onnx", fuzz_onnx},
    {"recipe", fuzz_recipe},
    {"report", fuzz_report},
    {"schema", fuzz_schema},
    {"svmlight", fuzz_svmlight},
    {"tensor", fuzz_tensor},
    {"testdata", fuzz_testdata},
    {"transform", fuzz_transform},
};

static size_t damage(struct mo_rng *rng, uint8_t *bytes, size_t n)
{
    for (uint32_t k = mo_rng_below(rng, 4) + 1; k && n; k--) {
        size_t at = mo_rng_below(rng, (uint32_t)n), some = mo_rng_below(rng, 16) + 1;
        some = MO_MIN(some, n - at);
        switch (mo_rng_below(rng, 6)) {
        case 0:
            bytes[at] ^= (uint8_t)(1u << mo_rng_below(rng, 8));
            break;
        case 1:
            bytes[at] = (uint8_t)mo_rng_u32(rng);
            break;
        case 2:
            n = at;
            break;
        case 3:
            memmove(bytes + at, bytes + at + some, n - at - some);
            n -= some;
            break;
        case 4:
            some = MO_MIN(some, MAX_BYTES - n);
            memmove(bytes + at + some, bytes + at, n - at);
            n += some;
            break;
        default: /* one byte for another that is there too: keeps texts nearly sound */
            bytes[at] = bytes[mo_rng_below(rng, (uint32_t)n)];
        }
    }
    return n;
}

static size_t read_seed(const char *path, uint8_t *bytes)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s cannot be read", path);
    size_t n = fread(bytes, 1, MAX_BYTES, f);
    ck_assert_msg(feof(f) || fgetc(f) == EOF, "%s is longer than %d bytes", path, MAX_BYTES);
    fclose(f);
    return n;
}

START_TEST(test_damaged)
{
    static uint8_t seed[MAX_BYTES], bytes[MAX_BYTES];
    struct mo_rng rng = mo_rng_new(7, MO_RNG_TEST, (uint64_t)_i);
    char pattern[256];
    glob_t found;
    snprintf(pattern, sizeof pattern, "tests/fuzz/corpus/%s/*", targets[_i].name);
    ck_assert_msg(!glob(pattern, 0, NULL, &found), "target '%s' has no seeds", targets[_i].name);
    targets[_i].target(NULL, 0);
    for (size_t k = 0; k < found.gl_pathc; k++) {
        size_t n = read_seed(found.gl_pathv[k], seed);
        targets[_i].target(seed, n);
        for (int round = 0; round < N_ROUNDS; round++) {
            memcpy(bytes, seed, n);
            targets[_i].target(bytes, damage(&rng, bytes, n));
        }
    }
    globfree(&found);
}
END_TEST

/* A target that is not in the table above is not replayed. */
START_TEST(test_every_target)
{
    glob_t found;
    ck_assert_int_eq(glob("tests/fuzz/fuzz_*.c", 0, NULL, &found), 0);
    ck_assert_uint_eq(found.gl_pathc, MO_COUNT(targets));
    globfree(&found);
}
END_TEST

Suite *suite_fuzz(void);
Suite *suite_fuzz(void)
{
    Suite *s = suite_create("fuzz");
    TCase *c = tcase_create("fuzz");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, test_damaged, 0, (int)MO_COUNT(targets));
    tcase_add_test(c, test_every_target);
    suite_add_tcase(s, c);
    return s;
}
