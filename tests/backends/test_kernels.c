/* Every kernel that the CPU has of its own, against the plain C form over random
 * shapes, on every tier of the machine, and with the same bits for 1 and 3 threads.
 * A kernel of its own without a case here fails the suite. Where a CUDA device opens,
 * it goes through the same cases; the other kernels' are in test_cuda_kernels.c. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/reference.h"
#include "tests/support/kernel_bench.h"

#define N_ROUNDS 16

/* ---- cases -------------------------------------------------------------------------------- */

static void random_epilogue(struct bench *b, struct mo_epilogue *e, int64_t n)
{
    *e = (struct mo_epilogue){ .act = (enum mo_act)pick(b, 0, MO_ACT_HARD_SWISH), .act_lo = -0.3f, .act_hi = 0.4f };
    e->bias = pick(b, 0, 1) ? operand(b, (size_t)n, 1, 0) : NULL;
}

static void case_gemm(struct bench *b)
{
    bool ta = pick(b, 0, 1), tb = pick(b, 0, 1);
    int big = pick(b, 0, 3) == 0 ? 300 : 40;
    int64_t m = pick(b, 0, big), n = pick(b, 1, big), k = pick(b, 0, big), lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1;
    float alpha = pick(b, 0, 1) ? 1 : 0.5f, beta = pick(b, 0, 1) ? 0 : 0.7f;
    const float *a = operand(b, (size_t)((ta ? k : m) * lda), 1, 0), *x = operand(b, (size_t)((tb ? n : k) * ldb), 1, 0);
    float *c = operand(b, (size_t)(m * (n + 2)), 1, 0);
    struct mo_epilogue e;
    random_epilogue(b, &e, n);
    b->be->gemm(b->dev, ta, tb, m, n, k, alpha, a, lda, x, ldb, beta, c, n + 2, pick(b, 0, 1) ? &e : NULL);
    result(b, c, (size_t)(m * (n + 2)));
}

/* Sums of several blocks, and B in several panels. */
static void case_gemm_long(struct bench *b)
{
    bool ta = pick(b, 0, 1), tb = pick(b, 0, 1);
    int64_t m = pick(b, 10, 60), n = pick(b, 1, 150), k = pick(b, 400, 1100);
    const float *a = operand(b, (size_t)(m * k), 1, 0), *x = operand(b, (size_t)(n * k), 1, 0);
    float *c = operand(b, (size_t)(m * n), 1, 0);
    struct mo_epilogue e;
    random_epilogue(b, &e, n);
    b->be->gemm(b->dev, ta, tb, m, n, k, 0.25f, a, ta ? m : k, x, tb ? k : n, 0.5f, c, n, &e);
    result(b, c, (size_t)(m * n));
}

static void case_gemm_batched(struct bench *b)
{
    int64_t m = pick(b, 1, 50), n = pick(b, 1, 50), k = pick(b, 1, 50), count = pick(b, 1, 9), at[3][9];
    bool ta = pick(b, 0, 1), tb = pick(b, 0, 1);
    const float *a = operand(b, (size_t)(m * k * count), 1, 0), *x = operand(b, (size_t)(n * k * count), 1, 0);
    float *c = operand(b, (size_t)(m * n * count), 1, 0);
    for (int64_t i = 0; i < count; i++) {
        at[0][i] = (count - 1 - i) * m * k;
        at[1][i] = i / 2 * n * k;
        at[2][i] = i * m * n;
    }
    b->be->gemm_batched(b->dev, ta, tb, m, n, k, 0.5f, a, ta ? m : k, at[0], x, tb ? k : n, at[1], pick(b, 0, 1) ? 0 : 1,
                        c, n, at[2], count);
    result(b, c, (size_t)(m * n * count));
}

static struct mo_conv_desc random_conv(struct bench *b)
{
    struct mo_conv_desc d = { .n_spatial = (int)pick(b, 1, 3), .batch = pick(b, 1, 9), .groups = 1 };
    int kind = (int)pick(b, 0, 5);
    bool is_large = kind == 5;      /* few pictures, enough work to be cut */
    d.in_channels = kind == 0 ? 1 : kind == 1 ? 3 : is_large ? 24 : pick(b, 1, 33);
    d.out_channels = is_large ? 48 : pick(b, 1, 40);
    if (is_large) {
        d.n_spatial = 2;
        d.batch = pick(b, 1, 3);
    }
    if (kind == 4) {
        d.groups = d.in_channels;
        d.out_channels = d.in_channels * pick(b, 1, 2);
    } else if (kind == 3) {
        d.groups = 2;
        d.in_channels *= 2;
        d.out_channels *= 2;
    }
    for (int i = 0; i < 3; i++) {
        bool used = i < d.n_spatial;
        d.kernel[i] = used ? pick(b, 1, d.n_spatial == 3 ? 3 : 5) : 1;
        d.stride[i] = used ? pick(b, 1, 2) : 1;
        d.dilation[i] = used && pick(b, 0, 3) == 0 ? 2 : 1;
        d.pad_begin[i] = used ? pick(b, 0, (int)d.kernel[i] - 1) : 0;
        d.pad_end[i] = used ? pick(b, 0, (int)d.kernel[i] - 1) : 0;
        int64_t reach = (d.kernel[i] - 1) * d.dilation[i] + 1;
        d.in[i] = used ? reach + (is_large ? pick(b, 15, 40) : pick(b, 0, d.n_spatial == 3 ? 4 : 12)) : 1;
        d.out[i] = (d.in[i] + d.pad_begin[i] + d.pad_end[i] - reach) / d.stride[i] + 1;
    }
    return d;
}

static size_t pixels(const int64_t v[3])
{
    return (size_t)(v[0] * v[1] * v[2]);
}

struct conv_operands { float *x, *w, *bias, *residual, *y; size_t n_x, n_w, n_y; };

static struct conv_operands conv_operands(struct bench *b, const struct mo_conv_desc *d)
{
    struct conv_operands o = { .n_x = (size_t)(d->batch * d->in_channels) * pixels(d->in),
                               .n_y = (size_t)(d->batch * d->out_channels) * pixels(d->out),
                               .n_w = (size_t)(d->out_channels * d->in_channels / d->groups) * pixels(d->kernel) };
    o.x = operand(b, o.n_x, 1, 0);
    o.w = operand(b, o.n_w, 1, 0);
    o.y = operand(b, o.n_y, 1, 0);
    o.bias = operand(b, (size_t)d->out_channels, 1, 0);
    o.residual = operand(b, o.n_y, 1, 0);
    return o;
}

static void *scratch_of(struct bench *b, const struct mo_conv *conv, bool backward)
{
    size_t bytes = b->be->conv_scratch_bytes(conv, backward);
    return b->be->alloc(b->dev, bytes + 64);
}

static void conv_of(struct bench *b, struct mo_conv_desc d);

static void case_conv(struct bench *b)
{
    struct mo_conv_desc d = random_conv(b);
    conv_of(b, d);
}

/* A product of rows with weights: long sums and wide rows too, which are packed in several blocks. */
static void case_conv_product(struct bench *b)
{
    int size = (int)pick(b, 0, 3);
    struct mo_conv_desc d = { .n_spatial = 1, .batch = 1, .groups = 1, .in = { 1, 1, 1 }, .out = { 1, 1, 1 },
                              .kernel = { 1, 1, 1 }, .stride = { 1, 1, 1 }, .dilation = { 1, 1, 1 } };
    d.in[0] = d.out[0] = size == 3 ? pick(b, 90, 210) : pick(b, 1, 30);
    d.in_channels = size == 2 ? pick(b, 500, 1100) : pick(b, 1, 200);
    d.out_channels = size == 1 ? pick(b, 60, 700) : pick(b, 1, 70);
    conv_of(b, d);
}

/* Kernels of 3 x 3 with channels enough for Winograd's algorithm: many tiles, or few and heavy weights. */
static struct mo_conv_desc random_conv_3x3(struct bench *b)
{
    bool is_heavy = pick(b, 0, 4) == 0;
    struct mo_conv_desc d = { .n_spatial = 2, .batch = is_heavy ? 1 : pick(b, 1, 5), .groups = 1, .in = { 1, 1, 1 },
                              .out = { 1, 1, 1 }, .kernel = { 3, 3, 1 }, .stride = { 1, 1, 1 }, .dilation = { 1, 1, 1 } };
    d.in_channels = is_heavy ? pick(b, 130, 190) : pick(b, 8, 70);
    d.out_channels = is_heavy ? pick(b, 130, 190) : pick(b, 8, 70);
    for (int i = 0; i < 2; i++) {
        d.in[i] = is_heavy ? pick(b, 7, 10) : pick(b, 3, 20);
        d.pad_begin[i] = pick(b, 0, 2);
        d.pad_end[i] = pick(b, 0, 2);
        d.out[i] = d.in[i] + d.pad_begin[i] + d.pad_end[i] - 2;
    }
    return d;
}

/* First layers: one to four input channels. */
static void case_conv_few(struct bench *b)
{
    struct mo_conv_desc d = { .n_spatial = 2, .batch = pick(b, 1, 4), .groups = 1, .in_channels = pick(b, 1, 4),
                              .out_channels = pick(b, 8, 50), .in = { 1, 1, 1 }, .out = { 1, 1, 1 }, .kernel = { 1, 1, 1 },
                              .stride = { 1, 1, 1 }, .dilation = { 1, 1, 1 } };
    for (int i = 0; i < 2; i++) {
        d.kernel[i] = pick(b, 1, d.in_channels < 3 ? 7 : 3);
        d.stride[i] = pick(b, 0, 2) ? 1 : 2;
        d.dilation[i] = pick(b, 0, 4) ? 1 : 2;
        int64_t reach = (d.kernel[i] - 1) * d.dilation[i] + 1;
        d.pad_begin[i] = pick(b, 0, (int)reach / 2);
        d.pad_end[i] = pick(b, 0, (int)reach / 2);
        d.in[i] = reach + pick(b, 5, 40);
        d.out[i] = (d.in[i] + d.pad_begin[i] + d.pad_end[i] - reach) / d.stride[i] + 1;
    }
    conv_of(b, d);
}

static void case_conv_3x3(struct bench *b)
{
    struct mo_conv_desc d = random_conv_3x3(b);
    conv_of(b, d);
}

static void conv_of(struct bench *b, struct mo_conv_desc d)
{
    d.has_bias = pick(b, 0, 1);
    d.adds_residual = pick(b, 0, 1);
    if (pick(b, 0, 7) == 0)             /* depthwise on one pixel, as behind the last stride of a small picture */
        d = (struct mo_conv_desc){ .n_spatial = 2, .batch = 1, .in_channels = 48, .out_channels = 48, .groups = 48,
                                   .in = { 1, 1, 1 }, .out = { 1, 1, 1 }, .kernel = { 3, 3, 1 }, .stride = { 1, 1, 1 },
                                   .dilation = { 1, 1, 1 }, .pad_begin = { 1, 1, 0 }, .pad_end = { 1, 1, 0 },
                                   .adds_residual = true };
    d.act = (enum mo_act)pick(b, 0, MO_ACT_HARD_SWISH);
    d.act_lo = -0.5f;
    d.act_hi = 1.5f;
    d.constant_weights = pick(b, 0, 1);
    struct conv_operands o = conv_operands(b, &d);
    struct mo_conv *conv = b->be->conv_new(b->dev, &d);
    ck_assert_ptr_nonnull(conv);
    void *scratch = scratch_of(b, conv, false);
    if (d.constant_weights)
        b->be->conv_pack(b->dev, conv, o.w);
    b->be->conv(b->dev, conv, o.x, o.w, d.has_bias ? o.bias : NULL, d.adds_residual ? o.residual : NULL, o.y, scratch);
    result(b, o.y, o.n_y);
    b->be->free(b->dev, scratch);
    b->be->conv_free(b->dev, conv);
}

/* Bytes over all of their range. */
static uint8_t *random_bytes(struct bench *b, size_t n)
{
    uint8_t *list = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        list[i] = (uint8_t)mo_rng_below(&b->rng, 256);
    return list;
}

static void random_qconv(struct bench *b, struct mo_qconv_desc *q)
{
    static const int types[] = { 1, 2, 3, 6 };
    q->shape = random_conv(b);
    if (pick(b, 0, 3) == 0)         /* a matrix product */
        q->shape = (struct mo_conv_desc){ .n_spatial = 1, .batch = pick(b, 1, 90), .groups = 1, .in_channels = pick(b, 1, 300),
                                          .out_channels = pick(b, 1, 150), .in = { 1, 1, 1 }, .out = { 1, 1, 1 },
                                          .kernel = { 1, 1, 1 }, .stride = { 1, 1, 1 }, .dilation = { 1, 1, 1 } };
    else if (pick(b, 0, 3) == 0 && q->shape.groups == q->shape.in_channels)
        q->shape.out_channels = q->shape.in_channels;
    q->x_signed = pick(b, 0, 1);
    q->w_signed = pick(b, 0, 2);
    q->y_dtype = types[pick(b, 0, 3)];
    q->y_zero = (int32_t)pick(b, 0, 255) - (q->y_dtype == 3 ? 128 : 0);
    q->y_low = pick(b, 0, 1) ? q->y_zero : q->y_dtype == 3 ? -128 : 0;
    q->y_high = q->y_dtype == 3 ? 127 : 255;
}

static void case_qconv(struct bench *b)
{
    struct mo_qconv_desc q = { 0 };
    random_qconv(b, &q);
    const struct mo_conv_desc *d = &q.shape;
    size_t n_o = (size_t)d->out_channels, n_w = n_o * (size_t)(d->in_channels / d->groups) * pixels(d->kernel);
    size_t n_x = (size_t)(d->batch * d->in_channels) * pixels(d->in), n_y = (size_t)d->batch * n_o * pixels(d->out);
    uint8_t *w = random_bytes(b, n_w), *x = random_bytes(b, n_x);
    int32_t *zero = malloc(n_o * sizeof *zero), *bias = malloc(n_o * sizeof *bias);
    float *factor = malloc(n_o * sizeof *factor), *offset = malloc(n_o * sizeof *offset);
    bool is_shifted = pick(b, 0, 4) == 0;       /* zero points of weights that packing cannot take away */
    for (size_t o = 0; o < n_o; o++) {
        zero[o] = (q.w_signed ? 0 : 128) + (is_shifted ? (int32_t)(o % 5) : 0);
        bias[o] = (int32_t)pick(b, -9999, 9999);
        factor[o] = 0.02f / (float)(1 + d->in_channels) * (1 + mo_rng_float(&b->rng));
        offset[o] = 9 * mo_rng_float(&b->rng);
    }
    q.w = w;
    q.w_zero = q.w_signed && !is_shifted ? NULL : zero;
    q.bias = pick(b, 0, 1) ? bias : NULL;
    q.factor = factor;
    q.offset = pick(b, 0, 1) ? offset : NULL;
    const void *x_at = table(b, x, n_x);
    uint8_t *y = table(b, NULL, n_y * 4);
    struct mo_qconv *conv = b->be->qconv_new(b->dev, &q);
    ck_assert_ptr_nonnull(conv);
    void *scratch = b->be->alloc(b->dev, b->be->qconv_scratch_bytes(conv) + 64);
    int32_t low = q.x_signed ? -128 : 0;
    if (pick(b, 0, 1))      /* another zero point before leaves nothing behind */
        b->be->qconv(b->dev, conv, low + 7, x_at, y, scratch);
    b->be->qconv(b->dev, conv, low + (int32_t)pick(b, 0, 255), x_at, y, scratch);
    if (q.y_dtype == 1)
        result(b, (const float *)y, n_y);
    else
        result_bytes(b, y, n_y * (q.y_dtype == 6 ? 4 : 1));
    b->be->free(b->dev, scratch);
    b->be->qconv_free(b->dev, conv);
    free(w), free(x), free(zero), free(bias), free(factor), free(offset);
}

static void case_qpool(struct bench *b)
{
    struct mo_conv_desc c = random_conv(b);
    struct mo_pool_desc d = { .kind = (enum mo_pool_kind)pick(b, 0, 2), .n_spatial = c.n_spatial, .batch = c.batch,
                              .channels = pick(b, 0, 3) ? c.in_channels : 200 };
    memcpy(d.in, c.in, sizeof d.in);
    memcpy(d.out, c.out, sizeof d.out);
    memcpy(d.kernel, c.kernel, sizeof d.kernel);
    memcpy(d.stride, c.stride, sizeof d.stride);
    memcpy(d.dilation, c.dilation, sizeof d.dilation);
    memcpy(d.pad_begin, c.pad_begin, sizeof d.pad_begin);
    memcpy(d.pad_end, c.pad_end, sizeof d.pad_end);
    size_t n_x = (size_t)(d.batch * d.channels) * pixels(d.in), n_y = (size_t)(d.batch * d.channels) * pixels(d.out);
    uint8_t *x = random_bytes(b, n_x);
    const void *x_at = table(b, x, n_x);
    uint8_t *y = table(b, NULL, n_y);
    bool is_signed = pick(b, 0, 1);
    int32_t low = is_signed ? -128 : 0;
    b->be->qpool(b->dev, &d, is_signed, low + (int32_t)pick(b, 0, 255), 0.3f + mo_rng_float(&b->rng),
                 low + (int32_t)pick(b, 0, 255), x_at, y);
    result_bytes(b, y, n_y);
    free(x);
}

static void case_quantize(struct bench *b)
{
    int64_t outer = pick(b, 1, 9), channels = pick(b, 0, 1) ? 1 : 3, inner = pick(b, 1, 700);
    size_t n = (size_t)(outer * channels * inner);
    float *x = operand(b, n, 4, 0), *scale = operand(b, (size_t)channels, 0.02f, 0.05f);
    int32_t zeros[3] = { (int32_t)pick(b, 0, 100), 1, 2 }, *zero = table(b, zeros, sizeof zeros);
    uint8_t *y = table(b, NULL, n);
    b->be->quantize(b->dev, pick(b, 0, 1) ? 2 : 3, outer, channels, inner, x, scale, pick(b, 0, 1) ? zero : NULL, y);
    result_bytes(b, y, n);
}

/* Whole numbers, so that sums in any order are the same. */
static void case_qfirst(struct bench *b)
{
    struct mo_qfirst_desc d = { .conv = { .n_spatial = 2, .batch = pick(b, 1, 3), .groups = 1, .in_channels = pick(b, 1, 4),
                                          .out_channels = pick(b, 1, 70) },
                                .scale = 4, .y_zero = (int32_t)pick(b, 0, 100), .y_low = (int32_t)pick(b, 0, 20), .y_high = 240 };
    struct mo_conv_desc *c = &d.conv;
    for (int i = 0; i < 3; i++)
        c->in[i] = c->out[i] = c->kernel[i] = c->stride[i] = c->dilation[i] = 1;
    for (int i = 0; i < 2; i++) {
        c->kernel[i] = pick(b, 1, 5);
        c->stride[i] = pick(b, 1, 2);
        c->dilation[i] = pick(b, 1, 2);
        c->pad_begin[i] = pick(b, 0, c->kernel[i] - 1);
        d.pool[i] = pick(b, 1, 3);
        d.pool_stride[i] = d.pool[i] + pick(b, 0, 1);
        d.pooled[i] = pick(b, 1, 9);
        c->out[i] = (d.pooled[i] - 1) * d.pool_stride[i] + d.pool[i];
        c->in[i] = (c->out[i] - 1) * c->stride[i] + (c->kernel[i] - 1) * c->dilation[i] + 1 - c->pad_begin[i];
        if (c->in[i] < 1) {
            c->pad_begin[i] = 0;
            c->in[i] = (c->out[i] - 1) * c->stride[i] + (c->kernel[i] - 1) * c->dilation[i] + 1;
        }
    }
    size_t n_x = (size_t)(c->batch * c->in[0] * c->in[1] * c->in_channels);
    size_t n_w = (size_t)(c->out_channels * c->in_channels * c->kernel[0] * c->kernel[1]);
    size_t n_y = (size_t)(c->batch * d.pooled[0] * d.pooled[1] * c->out_channels);
    float *x = mo_mem_new(n_x, sizeof *x), *w = mo_mem_new(n_w, sizeof *w), *bias = mo_mem_new((size_t)c->out_channels, sizeof *bias);
    for (size_t i = 0; i < n_x; i++)
        x[i] = (float)pick(b, -9, 9);
    for (size_t i = 0; i < n_w; i++)
        w[i] = (float)pick(b, -9, 9);
    for (int64_t i = 0; i < c->out_channels; i++)
        bias[i] = (float)pick(b, -99, 99);
    const float *x_at = table(b, x, n_x * sizeof *x), *w_at = table(b, w, n_w * sizeof *w);
    const float *bias_at = table(b, bias, (size_t)c->out_channels * sizeof *bias);
    uint8_t *y = table(b, NULL, n_y);
    b->be->qfirst(b->dev, &d, x_at, w_at, pick(b, 0, 2) ? bias_at : NULL, y);
    result_bytes(b, y, n_y);
    mo_mem_free(x), mo_mem_free(w), mo_mem_free(bias);
}

static void case_lookup(struct bench *b)
{
    size_t n = (size_t)pick(b, 1, 40000);
    uint8_t *list = random_bytes(b, 256), *x = random_bytes(b, n), *y = table(b, NULL, n);
    const void *x_at = table(b, x, n);
    b->be->lookup(b->dev, n, list, x_at, y);
    result_bytes(b, y, n);
    free(list), free(x);
}

/* Dense, a number for each channel, one number, and whole rows repeated. */
static void case_qbinary(struct bench *b)
{
    int64_t dims[2] = { pick(b, 1, 60), pick(b, 1, 200) }, strides[2][2];
    for (int k = 0; k < 2; k++) {
        int kind = (int)pick(b, 0, 4);
        strides[k][0] = kind == 1 || kind == 2 ? 0 : kind == 3 ? 1 : dims[1];
        strides[k][1] = kind == 2 || kind == 3 ? 0 : 1;
    }
    size_t n = (size_t)(dims[0] * dims[1]);
    uint8_t *a = random_bytes(b, n), *c = random_bytes(b, n), *y = table(b, NULL, n);
    struct mo_qbinary p = { .f = pick(b, 0, 1) ? MO_ADD : MO_MUL, .a_signed = pick(b, 0, 1), .b_signed = pick(b, 0, 1),
                            .y_zero = (int32_t)pick(b, 0, 255), .y_low = (int32_t)pick(b, 0, 100),
                            .y_high = (int32_t)pick(b, 150, 255) };
    p.a_zero = (int32_t)pick(b, 0, 255) - (p.a_signed ? 128 : 0);
    p.b_zero = (int32_t)pick(b, 0, 255) - (p.b_signed ? 128 : 0);
    p.a_factor = (p.f == MO_ADD ? 0.5f : 0.01f) * mo_rng_float(&b->rng);
    p.b_factor = mo_rng_float(&b->rng);
    const void *a_at = table(b, a, n), *c_at = table(b, c, n);
    b->be->qbinary(b->dev, &p, 2, dims, strides[0], strides[1], a_at, c_at, y);
    result_bytes(b, y, n);
    free(a), free(c);
}

static void conv_gradient(struct bench *b, struct mo_conv_desc d, bool of_input)
{
    d.has_bias = pick(b, 0, 1);
    d.needs_grad_input = of_input;
    d.needs_grad_weight = !of_input;
    struct conv_operands o = conv_operands(b, &d);
    struct mo_conv *conv = b->be->conv_new(b->dev, &d);
    ck_assert_ptr_nonnull(conv);
    void *scratch = scratch_of(b, conv, true);
    if (of_input) {
        b->be->conv_grad_input(b->dev, conv, o.w, o.y, o.x, scratch);
        result(b, o.x, o.n_x);
    } else {
        b->be->conv_grad_weight(b->dev, conv, o.x, o.y, o.w, d.has_bias ? o.bias : NULL, scratch);
        result(b, o.w, o.n_w);
        result(b, o.bias, (size_t)d.out_channels);
    }
    b->be->free(b->dev, scratch);
    b->be->conv_free(b->dev, conv);
}

static void case_conv_grad_input(struct bench *b)
{
    struct mo_conv_desc d = random_conv(b);
    conv_gradient(b, d, true);
}

static void case_conv_3x3_grad_input(struct bench *b)
{
    struct mo_conv_desc d = random_conv_3x3(b);
    conv_gradient(b, d, true);
}

static void case_conv_grad_weight(struct bench *b)
{
    struct mo_conv_desc d = random_conv(b);
    conv_gradient(b, d, false);
}

static void pooling(struct bench *b, bool gradient)
{
    struct mo_pool_desc d = { .kind = (enum mo_pool_kind)pick(b, 0, 2), .n_spatial = (int)pick(b, 1, 3),
                              .batch = pick(b, 1, 5), .channels = pick(b, 1, 70) };
    for (int i = 0; i < 3; i++) {
        bool used = i < d.n_spatial;
        d.kernel[i] = used ? pick(b, 1, 4) : 1;
        d.stride[i] = used ? pick(b, 1, 3) : 1;
        d.dilation[i] = used && pick(b, 0, 4) == 0 ? 2 : 1;
        int64_t reach = (d.kernel[i] - 1) * d.dilation[i] + 1;
        d.in[i] = used ? reach + pick(b, 0, 7) : 1;
        d.pad_begin[i] = used ? pick(b, 0, (int)d.kernel[i] - 1) : 0;
        d.pad_end[i] = used ? pick(b, 0, (int)d.kernel[i] - 1) : 0;
        int64_t room = d.in[i] + d.pad_begin[i] + d.pad_end[i] - reach;
        d.out[i] = (pick(b, 0, 1) ? room : room + d.stride[i] - 1) / d.stride[i] + 1;
        if ((d.out[i] - 1) * d.stride[i] >= d.in[i] + d.pad_begin[i])
            d.out[i]--;
    }
    size_t n_x = (size_t)(d.batch * d.channels) * pixels(d.in), n_y = (size_t)(d.batch * d.channels) * pixels(d.out);
    float *x = operand(b, n_x, 1, 0), *y = operand(b, n_y, 1, 0), *dy = operand(b, n_y, 1, 0);
    uint8_t *where = table(b, NULL, n_y);
    bool is_max = d.kind == MO_POOL_MAX, adds = pick(b, 0, 1);
    b->be->pool(b->dev, &d, x, y, is_max ? where : NULL);
    if (gradient) {
        b->be->pool_grad(b->dev, &d, dy, is_max ? where : NULL, x, adds);
        result(b, x, n_x);
    } else {
        result(b, y, n_y);
        if (is_max)
            result_bytes(b, where, n_y);
    }
}

static void case_pool(struct bench *b)
{
    pooling(b, false);
}

static void case_pool_grad(struct bench *b)
{
    pooling(b, true);
}

static void rows_of(struct bench *b, int64_t *rows, int64_t *channels)
{
    static const int64_t widths[] = { 1, 3, 16, 20, 32, 50, 64, 130, 600, 2500 };
    *channels = widths[pick(b, 0, 9)];
    *rows = pick(b, 1, (int)(60000 / *channels));
}

static void case_batchnorm_stats(struct bench *b)
{
    int64_t rows, channels;
    rows_of(b, &rows, &channels);
    const float *x = operand(b, (size_t)(rows * channels), 1, 10);
    float *mean = operand(b, (size_t)channels, 0, 0), *var = operand(b, (size_t)channels, 0, 0);
    b->be->batchnorm_stats(b->dev, rows, channels, x, mean, var);
    result(b, mean, (size_t)channels);
    result(b, var, (size_t)channels);
}

static void case_batchnorm(struct bench *b)
{
    int64_t rows, channels;
    rows_of(b, &rows, &channels);
    size_t n = (size_t)(rows * channels), c = (size_t)channels;
    const float *x = operand(b, n, 1, 1), *residual = operand(b, n, 1, 0), *mean = operand(b, c, 1, 1);
    const float *var = operand(b, c, 0.5f, 1), *scale = operand(b, c, 1, 0), *bias = operand(b, c, 1, 0);
    float *y = operand(b, n, 0, 0);
    b->be->batchnorm(b->dev, rows, channels, 1e-3f, x, mean, var, scale, bias, pick(b, 0, 1) ? residual : NULL,
                     pick(b, 0, 1) ? MO_ACT_RELU : MO_ACT_NONE, y);
    result(b, y, n);
}

static void case_batchnorm_grad(struct bench *b)
{
    int64_t rows, channels;
    rows_of(b, &rows, &channels);
    size_t n = (size_t)(rows * channels), c = (size_t)channels;
    const float *x = operand(b, n, 1, 1), *y = operand(b, n, 1, 0.2f), *mean = operand(b, c, 1, 1);
    const float *var = operand(b, c, 0.5f, 1), *scale = operand(b, c, 1, 0), *dy = operand(b, n, 1, 0);
    float *dx = operand(b, n, 0, 0), *dr = operand(b, n, 0, 0), *ds = operand(b, c, 0, 0), *db = operand(b, c, 0, 0);
    bool frozen = pick(b, 0, 2) == 0, relu = pick(b, 0, 1), no_dx = pick(b, 0, 5) == 0, no_r = pick(b, 0, 1);
    b->be->batchnorm_grad(b->dev, rows, channels, 1e-3f, frozen, relu ? MO_ACT_RELU : MO_ACT_NONE, x, y, mean, var,
                          scale, dy, no_dx ? NULL : dx, no_r ? NULL : dr, ds, db);
    result(b, dx, n);
    result(b, dr, n);
    result(b, ds, c);
    result(b, db, c);
}

static size_t any_n(struct bench *b)
{
    return (size_t)pick(b, 0, pick(b, 0, 2) ? 100 : 100000);
}

static void case_axpy(struct bench *b)
{
    size_t n = any_n(b);
    float *x = operand(b, n, 1, 0), *y = operand(b, n, 1, 0);
    b->be->axpy(b->dev, n, 0.3f, x, y, pick(b, 0, 1));
    result(b, y, n);
}

static void case_sgd_step(struct bench *b)
{
    size_t n = any_n(b);
    float *w = operand(b, n, 1, 0), *g = operand(b, n, 1, 0), *v = operand(b, n, 1, 0);
    bool momentum = pick(b, 0, 1);
    b->be->sgd_step(b->dev, n, 0.1f, momentum ? 0.9f : 0, pick(b, 0, 1), 0.01f, w, g, momentum ? v : NULL);
    result(b, w, n);
    result(b, v, n);
}

static void case_adam_step(struct bench *b)
{
    size_t n = any_n(b);
    float *w = operand(b, n, 1, 0), *g = operand(b, n, 1, 0), *m = operand(b, n, 1, 0), *v = operand(b, n, 1, 1.1f);
    b->be->adam_step(b->dev, n, 0.1f, 0.9f, 0.99f, 1e-8f, 0.01f, 0.02f, 0.5f, 0.7f, w, g, m, v);
    result(b, w, n);
    result(b, m, n);
    result(b, v, n);
}

static void case_rmsprop_step(struct bench *b)
{
    size_t n = any_n(b);
    float *w = operand(b, n, 1, 0), *g = operand(b, n, 1, 0), *s = operand(b, n, 1, 1.1f), *v = operand(b, n, 1, 0);
    bool momentum = pick(b, 0, 1);
    b->be->rmsprop_step(b->dev, n, 0.1f, 0.9f, 1e-8f, 0.9f, 0.01f, w, g, s, momentum ? v : NULL);
    result(b, w, n);
    result(b, s, n);
    result(b, v, n);
}

static void case_sum_squares(struct bench *b)
{
    size_t n = any_n(b);
    double sum;
    b->be->sum_squares(b->dev, n, operand(b, n, 1, 0), &sum);
    b->out[b->n_out++] = (float)sum;
}

/* Enough numbers for more than one slice, of them now and then none. */
static float *observed(struct bench *b, size_t *n)
{
    *n = any_n(b) * (size_t)pick(b, 1, 4);
    float *x = operand(b, *n, 1, 0);
    for (size_t i = 0; i < *n; i += 977)
        b->draft[i] = pick(b, 0, 3) ? 4 * b->draft[i] : NAN;
    b->be->upload(b->dev, x, b->draft, *n * sizeof *x);
    return x;
}

static void case_range(struct bench *b)
{
    size_t n;
    uint64_t three = 3, n_nan;
    float *x = observed(b, &n), *range = table(b, (float[]){ 0.2f, -0.1f }, 2 * sizeof *range);
    void *count = table(b, &three, sizeof three);
    b->be->range(b->dev, n, x, range, count);
    result(b, range, 2);
    b->be->download(b->dev, &n_nan, count, sizeof n_nan);
    b->out[b->n_out++] = (float)n_nan;
}

static void case_histogram(struct bench *b)
{
    enum { MOST = 5000 };
    size_t n, n_bins = (size_t)pick(b, 1, MOST);
    float *x = observed(b, &n);
    uint64_t counts[MOST];
    for (size_t i = 0; i < n_bins; i++)
        counts[i] = i;
    uint64_t *there = table(b, counts, n_bins * sizeof *counts);
    b->be->histogram(b->dev, n, x, -2, 4.1f / (float)n_bins, n_bins, there);
    b->be->download(b->dev, counts, there, n_bins * sizeof *counts);
    for (size_t i = 0; i < n_bins; i++)
        b->out[b->n_out++] = (float)counts[i];
}

static void case_unary(struct bench *b)
{
    size_t n = any_n(b);
    enum mo_unary f = (enum mo_unary)pick(b, 0, MO_N_UNARY - 1);
    float *x = operand(b, n, 0.9f, 1.0f), *y = operand(b, n, 0, 0);
    b->be->unary(b->dev, f, 0.4f, 1.2f, n, x, y);
    float *kept = result(b, y, n);
    for (size_t i = 0; i < n; i++)
        kept[i] = isfinite(kept[i]) ? kept[i] : 0;
}

static void case_unary_grad(struct bench *b)
{
    size_t n = any_n(b);
    enum mo_unary f = (enum mo_unary)pick(b, 0, MO_N_UNARY - 1);
    float *x = operand(b, n, 0.4f, 0.5f), *y = operand(b, n, 0, 0), *dy = operand(b, n, 1, 0), *dx = operand(b, n, 1, 0);
    b->be->unary(b->dev, f, 0.4f, 1.2f, n, x, y);
    b->be->unary_grad(b->dev, f, 0.4f, 1.2f, n, x, y, dy, dx, pick(b, 0, 1));
    float *kept = result(b, dx, n);
    for (size_t i = 0; i < n; i++)
        kept[i] = isfinite(kept[i]) && fabsf(kept[i]) < 1e3f ? kept[i] : 0;
}

static void case_softmax(struct bench *b)
{
    int64_t outer = pick(b, 1, 200), axis = pick(b, 1, 40), inner = pick(b, 0, 1) ? 1 : pick(b, 1, 20);
    size_t n = (size_t)(outer * axis * inner);
    float *x = operand(b, n, 5, 0), *y = operand(b, n, 0, 0);
    b->be->softmax(b->dev, pick(b, 0, 1), outer, axis, inner, x, y);
    result(b, y, n);
}

static void case_softmax_grad(struct bench *b)
{
    int64_t outer = pick(b, 1, 200), axis = pick(b, 1, 40), inner = pick(b, 0, 1) ? 1 : pick(b, 1, 20);
    size_t n = (size_t)(outer * axis * inner);
    float *x = operand(b, n, 5, 0), *y = operand(b, n, 0, 0), *dy = operand(b, n, 1, 0), *dx = operand(b, n, 1, 0);
    bool log = pick(b, 0, 1);
    b->be->softmax(b->dev, log, outer, axis, inner, x, y);
    b->be->softmax_grad(b->dev, log, outer, axis, inner, y, dy, dx, pick(b, 0, 1));
    result(b, dx, n);
}

static void layernorm(struct bench *b, bool gradient)
{
    int64_t rows = pick(b, 1, 300), n = pick(b, 1, 300);
    size_t all = (size_t)(rows * n), r = (size_t)rows, c = (size_t)n;
    float *x = operand(b, all, 1, 1), *scale = operand(b, c, 1, 0), *bias = operand(b, c, 1, 0), *dy = operand(b, all, 1, 0);
    float *y = operand(b, all, 0, 0), *mean = operand(b, r, 0, 0), *inv = operand(b, r, 0, 0);
    float *ds = operand(b, c, 0, 0), *db = operand(b, c, 0, 0);
    b->be->layernorm(b->dev, rows, n, 1e-2f, x, scale, bias, y, mean, inv);
    if (gradient) {
        b->be->layernorm_grad(b->dev, rows, n, x, scale, mean, inv, dy, y, ds, db);
        result(b, ds, c);
        result(b, db, c);
    } else {
        result(b, mean, r);
        result(b, inv, r);
    }
    result(b, y, all);
}

static void case_layernorm(struct bench *b)
{
    layernorm(b, false);
}

static void case_layernorm_grad(struct bench *b)
{
    layernorm(b, true);
}

/* Heads within the rows, or one after the other; several query heads to one of k and v; any of the masks. */
static void attention(struct bench *b, bool gradient)
{
    struct mo_attention_desc d = { .batch = pick(b, 1, 2), .kv_heads = pick(b, 1, 2), .queries = pick(b, 1, 80),
                                   .keys = pick(b, 1, 150), .size = pick(b, 1, 40), .value_size = pick(b, 1, 40),
                                   .scale = 0.3f, .ahead = MO_ATTENTION_FAR, .behind = MO_ATTENTION_FAR };
    int64_t share = pick(b, 1, 2), n_q, n_k;
    d.heads = d.kv_heads * share;
    bool is_flat = pick(b, 0, 1);
    struct mo_heads_step *steps[] = { &d.q, &d.k, &d.v, &d.y };
    const int64_t heads[] = { d.heads, d.kv_heads, d.kv_heads, d.heads }, rows[] = { d.queries, d.keys, d.keys, d.queries };
    const int64_t sizes[] = { d.size, d.size, d.value_size, d.value_size };
    for (int i = 0; i < 4; i++)
        *steps[i] = (struct mo_heads_step){ heads[i] * rows[i] * sizes[i], is_flat ? sizes[i] : rows[i] * sizes[i],
                                            is_flat ? heads[i] * sizes[i] : sizes[i] };
    if (pick(b, 0, 1))
        d.softcap = 1.5f;
    if (pick(b, 0, 1))
        d.ahead = pick(b, 0, 20);
    if (pick(b, 0, 1))
        d.behind = pick(b, 0, 60);
    d.of_mask[2] = d.of_allowed[0] = d.keys;
    d.of_mask[3] = d.of_allowed[3] = 1;
    n_q = d.batch * d.heads * d.queries;
    n_k = d.batch * d.kv_heads * d.keys;
    size_t all_q = (size_t)(n_q * d.size), all_k = (size_t)(n_k * d.size), all_v = (size_t)(n_k * d.value_size);
    size_t all_y = (size_t)(n_q * d.value_size);
    float *q = operand(b, all_q, 1, 0), *k = operand(b, all_k, 1, 0), *v = operand(b, all_v, 1, 0);
    float *mask = operand(b, (size_t)(d.queries * d.keys), 1, 0), *y = operand(b, all_y, 0, 0), *dy = operand(b, all_y, 1, 0);
    float *dq = operand(b, all_q, 0, 0), *dk = operand(b, all_k, 0, 0), *dv = operand(b, all_v, 0, 0);
    float *log_sum = operand(b, (size_t)n_q, 0, 0);
    uint8_t bytes[2 * 150];
    for (int64_t i = 0; i < d.batch * d.keys; i++)
        bytes[i] = pick(b, 0, 4) > 0;
    uint8_t *allowed = table(b, bytes, (size_t)(d.batch * d.keys));
    allowed = pick(b, 0, 1) ? allowed : NULL;
    mask = pick(b, 0, 1) ? mask : NULL;
    b->be->attention(b->dev, &d, q, k, v, allowed, mask, y, log_sum);
    if (gradient) {
        b->be->attention_grad(b->dev, &d, q, k, v, allowed, mask, y, log_sum, dy, dq, dk, dv);
        result(b, dq, all_q);
        result(b, dk, all_k);
        result(b, dv, all_v);
        return;
    }
    result(b, y, all_y);
    float *kept = result(b, log_sum, (size_t)n_q);
    for (int64_t i = 0; i < n_q; i++)
        kept[i] = isinf(kept[i]) ? -1000 : kept[i];
}

static void case_attention(struct bench *b)
{
    attention(b, false);
}

static void case_attention_grad(struct bench *b)
{
    attention(b, true);
}

static void dropout(struct bench *b, bool gradient)
{
    size_t n = any_n(b);
    float *x = operand(b, n, 1, 0), *y = operand(b, n, 1, 0);
    uint8_t *mask = table(b, NULL, n);
    b->be->dropout(b->dev, 5, 9, 0.3f, n, x, y, mask);
    if (gradient)
        b->be->dropout_grad(b->dev, 0.3f, n, mask, x, y, pick(b, 0, 1));
    result(b, y, n);
    result_bytes(b, mask, n);
}

static void case_dropout(struct bench *b)
{
    dropout(b, false);
}

static void case_dropout_grad(struct bench *b)
{
    dropout(b, true);
}

static void sparse(struct bench *b, bool gradient)
{
    int64_t m = pick(b, 1, 80), n = pick(b, 1, 60), k = pick(b, 1, 200), row_start[81] = { 0 }, count = 0;
    int32_t *column = malloc(sizeof *column * (size_t)(m * k));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t p = 0; p < k; p++)
            if (mo_rng_below(&b->rng, 10) == 0)
                column[count++] = (int32_t)p;
        row_start[i + 1] = count;
    }
    const int64_t *start_at = table(b, row_start, sizeof *row_start * (size_t)(m + 1));
    const int32_t *column_at = table(b, column, sizeof *column * (size_t)count);
    bool tb = pick(b, 0, 1);
    float *value = operand(b, (size_t)(count + 1), 1, 0), *w = operand(b, (size_t)(n * k), 1, 0);
    float *bias = operand(b, (size_t)n, 1, 0), *y = operand(b, (size_t)(m * n), 1, 0), *dw = operand(b, (size_t)(n * k), 1, 0);
    if (gradient)
        b->be->gemm_csr_grad(b->dev, m, n, k, start_at, column_at, value, tb, y, dw);
    else
        b->be->gemm_csr(b->dev, m, n, k, start_at, column_at, value, tb, w, pick(b, 0, 1) ? bias : NULL, y);
    result(b, y, (size_t)(m * n));
    result(b, dw, (size_t)(n * k));
    free(column);
}

static void case_gemm_csr(struct bench *b)
{
    sparse(b, false);
}

static void case_gemm_csr_grad(struct bench *b)
{
    sparse(b, true);
}

static struct mo_cell random_cell(struct bench *b)
{
    struct mo_cell d = { .kind = (enum mo_cell_kind)pick(b, 0, MO_CELL_LSTM), .batch = pick(b, 1, 40), .hidden = pick(b, 1, 90),
                         .clip = INFINITY, .step = 3 };
    bool is_usual = pick(b, 0, 1);
    for (int k = 0; k < 3; k++) {
        d.act[k].f = is_usual ? k == 0 && d.kind != MO_CELL_PLAIN ? MO_CELL_SIGMOID : MO_CELL_TANH
                              : (enum mo_cell_act)pick(b, 0, MO_CELL_SCALED_TANH);
        d.act[k].a = 0.3f;
        d.act[k].b = 0.5f;
    }
    d.input_forget = !is_usual && pick(b, 0, 1);
    if (pick(b, 0, 1)) {
        int32_t lens[40];
        for (int i = 0; i < 40; i++)
            lens[i] = (int32_t)pick(b, 2, 6);
        d.lens = table(b, lens, sizeof lens);
    }
    return d;
}

static void cell(struct bench *b, bool gradient)
{
    struct mo_cell d = random_cell(b);
    size_t n = (size_t)(d.batch * d.hidden), wide = (d.kind == MO_CELL_PLAIN ? 1 : d.kind == MO_CELL_LSTM ? 4 : 3) * n;
    float *gates = operand(b, wide, 1, 0), *extra = operand(b, wide, 1, 0), *dy = operand(b, n, 1, 0);
    float *before_h = operand(b, n, 1, 0), *before_c = operand(b, n, 1, 0), *h = operand(b, n, 1, 0), *c = operand(b, n, 1, 0);
    const float *peep = operand(b, 3 * (size_t)d.hidden, 1, 0);
    peep = pick(b, 0, 1) ? peep : NULL;
    b->be->cell(b->dev, &d, gates, peep, extra, before_h, before_c, h, c);
    if (gradient)
        b->be->cell_grad(b->dev, &d, gates, peep, extra, before_h, before_c, c, pick(b, 0, 1) ? dy : NULL, h, before_c);
    result(b, gates, wide);
    result(b, extra, wide);
    result(b, before_c, n);
    result(b, h, n);
    result(b, c, n);
}

static void case_cell(struct bench *b)
{
    cell(b, false);
}

static void case_cell_grad(struct bench *b)
{
    cell(b, true);
}

/* ---- the table, and walking it ----------------------------------------------------------------- */

#define CASE(name) { #name, case_##name }
static const struct { const char *name; void (*run)(struct bench *); } cases[] = {
    CASE(gemm), CASE(gemm_batched), CASE(conv), CASE(conv_grad_input), CASE(conv_grad_weight), CASE(pool), CASE(pool_grad),
    CASE(batchnorm_stats), CASE(batchnorm), CASE(batchnorm_grad), CASE(axpy), CASE(sgd_step), CASE(adam_step),
    CASE(rmsprop_step), CASE(sum_squares), CASE(range), CASE(histogram), CASE(unary), CASE(unary_grad), CASE(softmax), CASE(softmax_grad),
    CASE(layernorm), CASE(layernorm_grad), CASE(dropout), CASE(dropout_grad), CASE(gemm_csr), CASE(gemm_csr_grad),
    { "conv_pack", case_conv }, { "conv (product)", case_conv_product }, { "conv (3 x 3)", case_conv_3x3 },
    { "conv (few channels)", case_conv_few }, { "conv_grad_input (3 x 3)", case_conv_3x3_grad_input },
    { "gemm (long)", case_gemm_long }, CASE(quantize), CASE(qpool), CASE(qbinary), CASE(lookup), CASE(qconv), { "qconv (more)", case_qconv },
    CASE(qfirst),
    { "qconv (and more)", case_qconv }, CASE(cell), CASE(cell_grad), CASE(attention), CASE(attention_grad),
};

/* Slopes are taken from what an activation gives out: they agree with its difference quotient. */
START_TEST(slopes_of_cells)
{
    static const float places[] = { -2.3f, -0.7f, -0.2f, 0.2f, 0.6f, 1.9f };
    enum { N = MO_COUNT(places) };
    char why[64];
    struct mo_device *dev = mo_backend_reference.open(0, 1, why, sizeof why);
    for (int f = 0; f <= MO_CELL_SCALED_TANH; f++)
        for (int is_clipped = 0; is_clipped < 2; is_clipped++) {
            struct mo_cell d = { .kind = MO_CELL_PLAIN, .batch = 1, .hidden = N, .clip = is_clipped ? 1 : INFINITY };
            float x[3][N], h[3][N], dh[N];
            d.act[0].f = (enum mo_cell_act)f;
            d.act[0].a = 0.3f;
            d.act[0].b = 0.6f;
            for (int i = 0; i < N; i++) {
                x[0][i] = places[i];
                x[1][i] = places[i] - 0.01f;
                x[2][i] = places[i] + 0.01f;
                dh[i] = 1;
            }
            for (int k = 0; k < 3; k++)
                mo_backend_reference.cell(dev, &d, x[k], NULL, NULL, h[k], NULL, h[k], NULL);
            mo_backend_reference.cell_grad(dev, &d, x[0], NULL, NULL, h[0], NULL, NULL, NULL, dh, NULL);
            for (int i = 0; i < N; i++)
                ck_assert_msg(fabsf(x[0][i] - (h[2][i] - h[1][i]) / 0.02f) < 2e-3f, "activation %d at %g: %g, not %g", f,
                              (double)places[i], (double)x[0][i], (double)((h[2][i] - h[1][i]) / 0.02f));
        }
    mo_backend_reference.close(dev);
}
END_TEST

START_TEST(every_kernel_has_a_case)
{
    const struct mo_backend *be = mo_backend_find("cpu");
#define MO_KERNEL(kernel, args)                                                                     \
    {                                                                                               \
        bool is_own = (void (*)(void))be->kernel != (void (*)(void))mo_backend_reference.kernel;    \
        size_t length = strlen(#kernel);        /* those over bfloat16: test_bf16_kernels.c */      \
        bool has_case = !is_own || (length > 5 && !strcmp(#kernel + length - 5, "_bf16"));                                                                   \
        for (size_t i = 0; i < MO_COUNT(cases); i++)                                                \
            has_case |= !strcmp(cases[i].name, #kernel);                                            \
        ck_assert_msg(has_case, "no case for kernel '%s'", #kernel);                                \
        ck_assert_msg(be->kernel && mo_backend_reference.kernel, "kernel '%s' is missing", #kernel); \
    }
#include "kernels/kernels.def"
#undef MO_KERNEL
}
END_TEST

static void run_case(struct bench *b, size_t i, uint64_t round)
{
    char why[200];
    b->rng = mo_rng_new(11 + i, MO_RNG_TEST, round);
    b->n_out = b->used = 0;
    cases[i].run(b);
    ck_assert_msg(!b->be->sync(b->dev, why, sizeof why), "%s", why);
}

static void compare(const struct bench *b, const struct bench *plain, size_t i, const char *what, int round)
{
    ck_assert_uint_eq(b->n_out, plain->n_out);
    for (size_t k = 0; k < b->n_out; k++) {
        double want = plain->out[k], got = b->out[k];
        ck_assert_msg(fabs(want - got) <= 2e-4 * (1 + fabs(want)), "%s (%s) round %d element %zu: %g, plain C %g",
                      cases[i].name, what, round, k, got, want);
    }
}

static void check_tier(const char *isa)
{
    setenv("MOPT_ISA", isa, 1);
    struct bench one = bench_new(mo_backend_find("cpu"), 1), three = bench_new(mo_backend_find("cpu"), 3);
    struct bench plain = bench_new(&mo_backend_reference, 1);
    for (size_t i = 0; i < MO_COUNT(cases); i++)
        for (uint64_t round = 0; round < N_ROUNDS; round++) {
            run_case(&plain, i, round);
            run_case(&one, i, round);
            run_case(&three, i, round);
            ck_assert_msg(!memcmp(one.out, three.out, one.n_out * sizeof *one.out),
                          "%s round %d: 3 threads give other bits", cases[i].name, (int)round);
            compare(&one, &plain, i, isa, (int)round);
        }
    bench_free(&one);
    bench_free(&three);
    bench_free(&plain);
}

/* oneDNN takes its tier from the first device of a process: Check forks, so each test has its own. */
START_TEST(best_tier)
{
    check_tier("");
}
END_TEST

START_TEST(vnni_tier)
{
    check_tier("avx512vnni");
}
END_TEST

START_TEST(avx512_tier)
{
    check_tier("avx512f");
}
END_TEST

START_TEST(avx2_tier)
{
    check_tier("avx2");
}
END_TEST

/* Through the same cases, twice: the bits of a device are its own, but always the same. Where none opens, a reason. */
static void compare_twice(const struct mo_backend *be)
{
    struct bench once = bench_new(be, 1), again = bench_new(be, 1), plain = bench_new(&mo_backend_reference, 1);
    for (size_t i = 0; i < MO_COUNT(cases); i++)
        for (uint64_t round = 0; round < N_ROUNDS; round++) {
            run_case(&plain, i, round);
            run_case(&once, i, round);
            run_case(&again, i, round);
            ck_assert_msg(!memcmp(once.out, again.out, once.n_out * sizeof *once.out),
                          "%s round %d: other bits the second time", cases[i].name, (int)round);
            compare(&once, &plain, i, "cuda", (int)round);
        }
    bench_free(&once);
    bench_free(&again);
    bench_free(&plain);
}

START_TEST(cuda_device)
{
    const struct mo_backend *be = cuda_backend();
    if (be)
        compare_twice(be);
}
END_TEST

START_TEST(emulated_device)
{
    const struct mo_backend *be = emulated_backend(_i);
    if (be)
        compare_twice(be);
}
END_TEST

START_TEST(unknown_tier_is_refused)
{
    char why[160] = "";
    setenv("MOPT_ISA", "sse9", 1);
    ck_assert_ptr_null(mo_backend_find("cpu")->open(0, 1, why, sizeof why));
    ck_assert_ptr_nonnull(strstr(why, "MOPT_ISA"));
}
END_TEST

START_TEST(cuda_says_why_not)
{
    char why[160] = "";
    struct mo_device *dev = mo_backend_find("cuda")->open(99, 1, why, sizeof why);
    ck_assert_ptr_null(dev);
    ck_assert_uint_gt(strlen(why), 10);
}
END_TEST

Suite *suite_kernels(void);
Suite *suite_kernels(void)
{
    Suite *s = suite_create("kernels");
    TCase *c = tcase_create("kernels");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, every_kernel_has_a_case);
    tcase_add_test(c, slopes_of_cells);
    tcase_add_test(c, best_tier);
    tcase_add_test(c, vnni_tier);
    tcase_add_test(c, avx512_tier);
    tcase_add_test(c, avx2_tier);
    tcase_add_test(c, cuda_device);
    tcase_add_loop_test(c, emulated_device, 0, 2);
    tcase_add_test(c, unknown_tier_is_refused);
    tcase_add_test(c, cuda_says_why_not);
    suite_add_tcase(s, c);
    return s;
}
