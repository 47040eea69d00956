/* The kernels over bfloat16 against the plain C form: random shapes, every tier of the machine, 1 and 3 threads. What is
 * stored in bfloat16 may differ by its last bits, sums in float32 hardly. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/reference.h"
#include "kernels/cpu/small_float.h"
#include "tests/support/kernel_bench.h"

#define N_ROUNDS 16
/* Of 1 + |wanted|: two units in the last place of bfloat16, and sums of float32 in another order. */
#define LOOSE 0x1p-6
#define TIGHT 3e-4

enum { F32 = 1, BF16 = 16 };

static uint8_t *is_loose;       /* by place in bench.out */

/* ---- operands and results of 16 bits ---- */

static uint16_t *operand16(struct bench *b, size_t n, float scale, float shift)
{
    uint16_t *halves = malloc((n + 1) * sizeof *halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = mo_bf16_of_float(shift + scale * (2 * mo_rng_float(&b->rng) - 1));
    uint16_t *at = table(b, halves, n * sizeof *halves);
    free(halves);
    return at;
}

static void result16(struct bench *b, const uint16_t *x, size_t n)
{
    uint16_t *halves = malloc((n + 1) * sizeof *halves);
    b->be->download(b->dev, halves, x, n * sizeof *halves);
    for (size_t i = 0; i < n; i++) {
        is_loose[b->n_out] = 1;
        b->out[b->n_out++] = mo_float_of_bf16(halves[i]);
    }
    free(halves);
}

static void result32(struct bench *b, const float *x, size_t n)
{
    memset(is_loose + b->n_out, 0, n);
    result(b, x, n);
}

/* n elements of type 1 or 16 */
static void *operand_of(struct bench *b, int type, size_t n)
{
    return type == F32 ? (void *)operand(b, n, 1, 0) : (void *)operand16(b, n, 1, 0);
}

static void result_of(struct bench *b, int type, const void *x, size_t n)
{
    if (type == F32)
        result32(b, x, n);
    else
        result16(b, x, n);
}

static int type_of(struct bench *b)
{
    return pick(b, 0, 1) ? F32 : BF16;
}

/* ---- cases ---- */

static void case_unary_bf16(struct bench *b)
{
    static const enum mo_unary list[] = { MO_RELU, MO_CLIP, MO_SIGMOID, MO_TANH, MO_GELU, MO_LEAKY_RELU, MO_HARD_SWISH };
    size_t n = (size_t)pick(b, 1, 3000);
    uint16_t *x = operand16(b, n, 4, 0), *y = operand16(b, n, 1, 0);
    enum mo_unary f = list[pick(b, 0, (int)MO_COUNT(list) - 1)];
    b->be->unary_bf16(b->dev, f, -0.5f, 0.75f, n, x, pick(b, 0, 1) ? x : y);
    result16(b, x, n);
    result16(b, y, n);
}

static void case_unary_grad_bf16(struct bench *b)
{
    static const enum mo_unary list[] = { MO_RELU, MO_CLIP, MO_SIGMOID, MO_TANH, MO_GELU, MO_HARD_SWISH };
    size_t n = (size_t)pick(b, 1, 3000);
    uint16_t *x = operand16(b, n, 4, 0), *y = operand16(b, n, 1, 0), *dy = operand16(b, n, 1, 0), *dx = operand16(b, n, 1, 0);
    b->be->unary_grad_bf16(b->dev, list[pick(b, 0, (int)MO_COUNT(list) - 1)], -0.5f, 0.75f, n, x, y, dy, dx, pick(b, 0, 1));
    result16(b, dx, n);
}

static void case_axpy_bf16(struct bench *b)
{
    size_t n = (size_t)pick(b, 0, 70000);
    uint16_t *x = operand16(b, n, 2, 0), *y = operand16(b, n, 2, 0);
    b->be->axpy_bf16(b->dev, n, pick(b, 0, 1) ? 1 : -0.3f, x, y, pick(b, 0, 1));
    result16(b, y, n);
}

static void case_gemm_bf16(struct bench *b)
{
    bool ta = pick(b, 0, 1), tb = pick(b, 0, 1);
    int big = pick(b, 0, 3) == 0 ? 300 : 70, type_a = type_of(b), type_b = type_of(b), type_c = type_of(b);
    int64_t m = pick(b, 1, big), n = pick(b, 1, big), k = pick(b, 0, 9) == 0 ? pick(b, 2040, 2600) : pick(b, 0, big);
    if (k > 2000)
        m = m % 40 + 1, n = n % 40 + 1;
    int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2;
    float alpha = pick(b, 0, 1) ? 1 : 0.5f, beta = pick(b, 0, 1) ? 0 : 0.7f;
    const void *a = operand_of(b, type_a, (size_t)((ta ? k : m) * lda));
    const void *x = operand_of(b, type_b, (size_t)((tb ? n : k) * ldb));
    void *c = operand_of(b, type_c, (size_t)(m * ldc));
    struct mo_epilogue e = { .act = (enum mo_act)pick(b, 0, MO_ACT_HARD_SWISH), .act_lo = -0.3f, .act_hi = 0.4f };
    e.bias = pick(b, 0, 1) ? operand(b, (size_t)n, 1, 0) : NULL;
    b->be->gemm_bf16(b->dev, ta, tb, m, n, k, alpha, type_a, a, lda, type_b, x, ldb, beta, type_c, c, ldc,
                     pick(b, 0, 1) ? &e : NULL);
    result_of(b, type_c, c, (size_t)(m * ldc));
}

static void case_gemm_batched_bf16(struct bench *b)
{
    int64_t big = pick(b, 0, 3) == 0 ? 150 : 50, m = pick(b, 1, (int)big), n = pick(b, 1, (int)big), k = pick(b, 1, (int)big);
    int64_t count = pick(b, 1, 9), at[3][9];
    bool ta = pick(b, 0, 1), tb = pick(b, 0, 1);
    int type_a = type_of(b), type_b = type_of(b), type_c = type_of(b);
    const void *a = operand_of(b, type_a, (size_t)(m * k * count)), *x = operand_of(b, type_b, (size_t)(n * k * count));
    void *c = operand_of(b, type_c, (size_t)(m * n * count));
    for (int64_t i = 0; i < count; i++) {
        at[0][i] = (count - 1 - i) * m * k;
        at[1][i] = i / 2 * n * k;
        at[2][i] = i * m * n;
    }
    b->be->gemm_batched_bf16(b->dev, ta, tb, m, n, k, 0.5f, type_a, a, ta ? m : k, at[0], type_b, x, tb ? k : n, at[1],
                             pick(b, 0, 1) ? 0 : 1, type_c, c, n, at[2], count);
    result_of(b, type_c, c, (size_t)(m * n * count));
}

static struct mo_conv_desc random_conv(struct bench *b)
{
    struct mo_conv_desc d = { .n_spatial = (int)pick(b, 1, 3), .batch = pick(b, 1, 9), .groups = 1, .is_bf16 = true };
    int kind = (int)pick(b, 0, 6);
    d.in_channels = kind == 0 ? 1 : kind == 1 ? 3 : kind == 2 ? 32 : pick(b, 1, 33);
    d.out_channels = kind == 2 ? 32 : pick(b, 1, 40);
    if (kind == 4) {
        d.groups = d.in_channels;
        d.out_channels = d.in_channels * pick(b, 1, 2);
    } else if (kind == 3) {
        d.groups = 2;
        d.in_channels *= 2;
        d.out_channels *= 2;
    }
    bool is_usual = pick(b, 0, 1) && d.n_spatial == 2;       /* 3 x 3, padded by one: what has kernels of its own */
    for (int i = 0; i < 3; i++) {
        bool used = i < d.n_spatial;
        d.kernel[i] = !used ? 1 : is_usual ? 3 : pick(b, 1, d.n_spatial == 3 ? 3 : 5);
        d.stride[i] = used ? pick(b, 1, 2) : 1;
        d.dilation[i] = used && !is_usual && pick(b, 0, 3) == 0 ? 2 : 1;
        d.pad_begin[i] = !used ? 0 : is_usual ? 1 : pick(b, 0, (int)d.kernel[i] - 1);
        d.pad_end[i] = !used ? 0 : is_usual ? 1 : pick(b, 0, (int)d.kernel[i] - 1);
        int64_t reach = (d.kernel[i] - 1) * d.dilation[i] + 1;
        d.in[i] = used ? reach + pick(b, 0, d.n_spatial == 3 ? 4 : 14) : 1;
        d.out[i] = (d.in[i] + d.pad_begin[i] + d.pad_end[i] - reach) / d.stride[i] + 1;
    }
    return d;
}

static size_t pixels(const int64_t v[3])
{
    return (size_t)(v[0] * v[1] * v[2]);
}

struct conv_operands { uint16_t *x, *residual, *y; float *w, *bias; size_t n_x, n_w, n_y; };

static struct conv_operands conv_operands(struct bench *b, const struct mo_conv_desc *d)
{
    struct conv_operands o = { .n_x = (size_t)(d->batch * d->in_channels) * pixels(d->in),
                               .n_y = (size_t)(d->batch * d->out_channels) * pixels(d->out),
                               .n_w = (size_t)(d->out_channels * d->in_channels / d->groups) * pixels(d->kernel) };
    o.x = operand16(b, o.n_x, 1, 0);
    o.w = operand(b, o.n_w, 1, 0);
    o.y = operand16(b, o.n_y, 1, 0);
    o.bias = operand(b, (size_t)d->out_channels, 1, 0);
    o.residual = operand16(b, o.n_y, 1, 0);
    return o;
}

static void *scratch_of(struct bench *b, const struct mo_conv *conv, bool backward)
{
    return b->be->alloc(b->dev, b->be->conv_scratch_bytes(conv, backward) + 64);
}

static void case_conv_bf16(struct bench *b)
{
    struct mo_conv_desc d = random_conv(b);
    d.has_bias = pick(b, 0, 1);
    d.adds_residual = pick(b, 0, 1);
    d.act = (enum mo_act)pick(b, 0, MO_ACT_HARD_SWISH);
    d.act_lo = -0.5f;
    d.act_hi = 1.5f;
    d.constant_weights = pick(b, 0, 1);
    d.needs_grad_weight = !d.constant_weights && pick(b, 0, 1);
    struct conv_operands o = conv_operands(b, &d);
    struct mo_conv *conv = b->be->conv_new(b->dev, &d);
    ck_assert_ptr_nonnull(conv);
    void *scratch = scratch_of(b, conv, false);
    if (d.constant_weights)
        b->be->conv_pack(b->dev, conv, o.w);
    b->be->conv_bf16(b->dev, conv, o.x, o.w, d.has_bias ? o.bias : NULL, d.adds_residual ? o.residual : NULL, o.y, scratch);
    result16(b, o.y, o.n_y);
    b->be->free(b->dev, scratch);
    b->be->conv_free(b->dev, conv);
}

static void conv_gradient(struct bench *b, bool of_input)
{
    struct mo_conv_desc d = random_conv(b);
    d.has_bias = pick(b, 0, 1);
    d.needs_grad_input = of_input;
    d.needs_grad_weight = !of_input;
    struct conv_operands o = conv_operands(b, &d);
    struct mo_conv *conv = b->be->conv_new(b->dev, &d);
    ck_assert_ptr_nonnull(conv);
    void *scratch = scratch_of(b, conv, true);
    if (of_input) {
        b->be->conv_grad_input_bf16(b->dev, conv, o.w, o.y, o.x, scratch);
        result16(b, o.x, o.n_x);
    } else {
        b->be->conv_grad_weight_bf16(b->dev, conv, o.x, o.y, o.w, d.has_bias ? o.bias : NULL, scratch);
        result32(b, o.w, o.n_w);
        result32(b, o.bias, (size_t)d.out_channels);
    }
    b->be->free(b->dev, scratch);
    b->be->conv_free(b->dev, conv);
}

static void case_conv_grad_input_bf16(struct bench *b)
{
    conv_gradient(b, true);
}

static void case_conv_grad_weight_bf16(struct bench *b)
{
    conv_gradient(b, false);
}

static struct mo_pool_desc random_pool(struct bench *b)
{
    struct mo_conv_desc c = random_conv(b);
    struct mo_pool_desc d = { .kind = (enum mo_pool_kind)pick(b, 0, 2), .n_spatial = c.n_spatial, .batch = c.batch,
                              .channels = c.in_channels };
    memcpy(d.in, c.in, sizeof d.in);
    memcpy(d.out, c.out, sizeof d.out);
    memcpy(d.kernel, c.kernel, sizeof d.kernel);
    memcpy(d.stride, c.stride, sizeof d.stride);
    memcpy(d.dilation, c.dilation, sizeof d.dilation);
    memcpy(d.pad_begin, c.pad_begin, sizeof d.pad_begin);
    memcpy(d.pad_end, c.pad_end, sizeof d.pad_end);
    return d;
}

/* A random step of values far apart: equal maxima would be a matter of order. */
static void pool_case(struct bench *b, bool gradient)
{
    struct mo_pool_desc d = random_pool(b);
    size_t n_x = (size_t)(d.batch * d.channels) * pixels(d.in), n_y = (size_t)(d.batch * d.channels) * pixels(d.out);
    uint16_t *x = operand16(b, n_x, 1, 0), *y = operand16(b, n_y, 1, 0), *dy = operand16(b, n_y, 1, 0);
    uint16_t *dx = operand16(b, n_x, 1, 0);
    uint8_t *where = table(b, NULL, n_y + 64);
    b->be->pool_bf16(b->dev, &d, x, y, d.kind == MO_POOL_MAX ? where : NULL);
    result16(b, y, n_y);
    if (!gradient)
        return;
    b->be->pool_grad_bf16(b->dev, &d, dy, d.kind == MO_POOL_MAX ? where : NULL, dx, pick(b, 0, 1));
    result16(b, dx, n_x);
}

static void case_pool_bf16(struct bench *b)
{
    pool_case(b, false);
}

static void case_pool_grad_bf16(struct bench *b)
{
    pool_case(b, true);
}

static void case_batchnorm_stats_bf16(struct bench *b)
{
    int64_t rows = pick(b, 1, 900), channels = pick(b, 1, 70);
    uint16_t *x = operand16(b, (size_t)(rows * channels), 1, 3);
    float *mean = operand(b, (size_t)channels, 1, 0), *var = operand(b, (size_t)channels, 1, 0);
    b->be->batchnorm_stats_bf16(b->dev, rows, channels, x, mean, var);
    result32(b, mean, (size_t)channels);
    result32(b, var, (size_t)channels);
}

static void batchnorm(struct bench *b, bool gradient)
{
    int64_t rows = pick(b, 1, 900), channels = pick(b, 1, 70);
    size_t n = (size_t)(rows * channels), c = (size_t)channels;
    enum mo_act act = pick(b, 0, 1) ? MO_ACT_RELU : MO_ACT_NONE;
    uint16_t *x = operand16(b, n, 1, 0.2f), *residual = operand16(b, n, 1, 0), *y = operand16(b, n, 1, 0);
    float *mean = operand(b, c, 1, 0), *var = operand(b, c, 0.4f, 0.7f), *scale = operand(b, c, 1, 0), *bias = operand(b, c, 1, 0);
    if (!gradient) {
        b->be->batchnorm_bf16(b->dev, rows, channels, 1e-5f, x, mean, var, scale, bias, pick(b, 0, 1) ? residual : NULL, act, y);
        result16(b, y, n);
        return;
    }
    uint16_t *dy = operand16(b, n, 1, 0), *dx = operand16(b, n, 1, 0), *dresidual = operand16(b, n, 1, 0);
    bool has_residual = pick(b, 0, 1), in_place = pick(b, 0, 1);
    float *dscale = operand(b, c, 1, 0);
    b->be->batchnorm_grad_bf16(b->dev, rows, channels, 1e-5f, pick(b, 0, 1), act, x, y, mean, var, scale, dy,
                               pick(b, 0, 3) ? dx : NULL, !has_residual ? NULL : in_place ? dy : dresidual, dscale, bias);
    result16(b, dx, n);
    result16(b, dresidual, n);
    result16(b, dy, n);
    result32(b, dscale, c);
    result32(b, bias, c);
}

static void case_batchnorm_bf16(struct bench *b)
{
    batchnorm(b, false);
}

static void case_batchnorm_grad_bf16(struct bench *b)
{
    batchnorm(b, true);
}

/* ---- the table, and walking it ---- */

#define CASE(name) { #name, case_##name }
static const struct { const char *name; void (*run)(struct bench *); } cases[] = {
    CASE(unary_bf16), CASE(unary_grad_bf16), CASE(axpy_bf16), CASE(gemm_bf16), CASE(gemm_batched_bf16), CASE(conv_bf16),
    CASE(conv_grad_input_bf16), CASE(conv_grad_weight_bf16), CASE(pool_bf16), CASE(pool_grad_bf16),
    CASE(batchnorm_stats_bf16), CASE(batchnorm_bf16), CASE(batchnorm_grad_bf16),
};

static void run_case(struct bench *b, size_t i, uint64_t round)
{
    char why[200];
    b->rng = mo_rng_new(401 + i, MO_RNG_TEST, round);
    b->n_out = b->used = 0;
    cases[i].run(b);
    ck_assert_msg(!b->be->sync(b->dev, why, sizeof why), "%s", why);
}

/* rounds: what is a sum in float32 is rounded to bfloat16 before it is given, as cuDNN does with gradients of weights. */
static void compare(const struct bench *b, const struct bench *plain, size_t i, const char *what, int round, bool rounds)
{
    ck_assert_uint_eq(b->n_out, plain->n_out);
    for (size_t k = 0; k < b->n_out; k++) {
        double want = plain->out[k], got = b->out[k], room = is_loose[k] || rounds ? LOOSE : TIGHT;
        ck_assert_msg(fabs(want - got) <= room * (1 + fabs(want)), "%s (%s) round %d element %zu: %g, plain C %g",
                      cases[i].name, what, round, k, got, want);
    }
}

static void check_tier(const char *isa)
{
    setenv("MOPT_ISA", isa, 1);
    is_loose = malloc(20 * MAX_ELEMS);
    struct bench one = bench_new(mo_backend_find("cpu"), 1), three = bench_new(mo_backend_find("cpu"), 3);
    struct bench plain = bench_new(&mo_backend_reference, 1);
    for (size_t i = 0; i < MO_COUNT(cases); i++)
        for (uint64_t round = 0; round < N_ROUNDS; round++) {
            run_case(&plain, i, round);
            run_case(&one, i, round);
            run_case(&three, i, round);
            ck_assert_msg(!memcmp(one.out, three.out, one.n_out * sizeof *one.out),
                          "%s round %d: 3 threads give other bits", cases[i].name, (int)round);
            compare(&one, &plain, i, isa, (int)round, false);
        }
    bench_free(&one);
    bench_free(&three);
    bench_free(&plain);
    free(is_loose);
}

/* oneDNN takes its tier from the first device of a process: Check forks, so each test has its own. */
START_TEST(tier)
{
    static const char *const names[] = { "", "avx512vnni", "avx512f", "avx2", "c" };
    check_tier(names[_i]);
}
END_TEST

START_TEST(every_kernel_has_a_case)
{
#define MO_KERNEL(kernel, args)                                                                          \
    {                                                                                                    \
        size_t length = strlen(#kernel);                                                                 \
        bool has_case = length < 5 || strcmp(#kernel + length - 5, "_bf16") != 0;                        \
        for (size_t i = 0; i < MO_COUNT(cases); i++)                                                     \
            has_case |= !strcmp(cases[i].name, #kernel);                                                 \
        ck_assert_msg(has_case, "no case for kernel '%s'", #kernel);                                     \
    }
#include "kernels/kernels.def"
#undef MO_KERNEL
}
END_TEST

static void compare_device(const struct mo_backend *be, const char *what)
{
    is_loose = malloc(20 * MAX_ELEMS);
    struct bench once = bench_new(be, 1), plain = bench_new(&mo_backend_reference, 1);
    for (size_t i = 0; i < MO_COUNT(cases); i++)
        for (uint64_t round = 0; round < N_ROUNDS; round++) {
            run_case(&plain, i, round);
            run_case(&once, i, round);
            compare(&once, &plain, i, what, (int)round, cases[i].run == case_conv_grad_weight_bf16);
        }
    bench_free(&once);
    bench_free(&plain);
    free(is_loose);
}

/* Where a CUDA device opens, it goes through the same cases; with its own convolutions too. */
START_TEST(cuda_device)
{
    if (_i)
        setenv("MOPT_CUDNN", "0", 1);
    const struct mo_backend *be = cuda_backend();
    if (be)
        compare_device(be, _i ? "cuda without cuDNN" : "cuda");
}
END_TEST

/* So does the device that is the CPU: with its cuDNN, in reverse without, where cuDNN adds no bias, where nothing of it
 * fits, and where products have no bias. */
START_TEST(emulated_device)
{
    static const char *const settings[][2] = {
        { "MOPT_CUDNN", "" }, { "MOPT_CUDNN", "0" }, { "MOPT_EMULATED_CUDNN", "fused" }, { "MOPT_EMULATED_CUDNN", "none" },
        { "MOPT_EMULATED_NO_EPILOGUE", "1" },
    };
    setenv(settings[_i][0], settings[_i][1], 1);
    const struct mo_backend *be = emulated_backend(_i == 1);
    if (be)
        compare_device(be, settings[_i][0]);
}
END_TEST

Suite *suite_bf16_kernels(void);
Suite *suite_bf16_kernels(void)
{
    Suite *s = suite_create("bf16_kernels");
    TCase *c = tcase_create("bf16_kernels");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, every_kernel_has_a_case);
    tcase_add_loop_test(c, tier, 0, 5);
    tcase_add_loop_test(c, cuda_device, 0, 2);
    tcase_add_loop_test(c, emulated_device, 0, 5);
    suite_add_tcase(s, c);
    return s;
}
