/* Plain C kernels over bfloat16: what the float32 kernel gives for the widened operands, rounded. Each call makes
 * float32 copies of its tensors. */
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/small_float.h"

enum { F32 = 1 };

static float *room(struct mo_device *dev, size_t n)
{
    float *y = n < SIZE_MAX / 8 ? calloc(n + 1, sizeof *y) : NULL;
    if (!y)
        mo_device_latch(dev, "out of memory: %zu numbers in float32", n);
    return y;
}

/* NULL where x is, or without memory: the error is latched then, and the caller computes nothing. */
static float *widened(struct mo_device *dev, size_t n, const uint16_t *x)
{
    float *y = x ? room(dev, n) : NULL;
    for (size_t i = 0; y && i < n; i++)
        y[i] = mo_float_of_bf16(x[i]);
    return y;
}

static void give(size_t n, const float *from, uint16_t *to)
{
    for (size_t i = 0; to && i < n; i++)
        to[i] = mo_bf16_of_float(from[i]);
}

/* ---- element by element ---- */

void mo_ref_unary_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x, uint16_t *y)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        float v = mo_float_of_bf16(x[i]);
        mo_ref_unary(dev, f, a, b, 1, &v, &v);
        y[i] = mo_bf16_of_float(v);
    }
}

void mo_ref_unary_grad_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x,
                            const uint16_t *y, const uint16_t *dy, uint16_t *dx, bool add)
{
    for (size_t i = 0; i < n; i++) {
        float vx = x ? mo_float_of_bf16(x[i]) : 0, vy = y ? mo_float_of_bf16(y[i]) : 0, g = mo_float_of_bf16(dy[i]);
        float d = add ? mo_float_of_bf16(dx[i]) : 0;
        mo_ref_unary_grad(dev, f, a, b, 1, &vx, &vy, &g, &d, add);
        dx[i] = mo_bf16_of_float(d);
    }
}

void mo_ref_axpy_bf16(struct mo_device *dev, size_t n, float a, const uint16_t *x, uint16_t *y, bool add)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        float v = a * mo_float_of_bf16(x[i]);
        y[i] = mo_bf16_of_float(add ? mo_float_of_bf16(y[i]) + v : v);
    }
}

/* ---- matrix products ---- */

/* One operand as float32 numbers that bfloat16 can hold. */
static float *rounded(struct mo_device *dev, int type, const void *x, int64_t rows, int64_t columns, int64_t ld)
{
    float *y = room(dev, (size_t)(rows * columns));
    for (int64_t i = 0; y && i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            int64_t at = i * ld + j;
            uint16_t h = type == F32 ? mo_bf16_of_float(((const float *)x)[at]) : ((const uint16_t *)x)[at];
            y[i * columns + j] = mo_float_of_bf16(h);
        }
    return y;
}

static void load_c(int type, const void *c, int64_t m, int64_t n, int64_t ld, float *to)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            to[i * n + j] =
                type == F32 ? ((const float *)c)[i * ld + j] : mo_float_of_bf16(((const uint16_t *)c)[i * ld + j]);
}

static void store_c(int type, const float *from, int64_t m, int64_t n, int64_t ld, void *c)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            if (type == F32)
                ((float *)c)[i * ld + j] = from[i * n + j];
            else
                ((uint16_t *)c)[i * ld + j] = mo_bf16_of_float(from[i * n + j]);
        }
}

void mo_ref_gemm_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, int type_a,
                      const void *a, int64_t lda, int type_b, const void *b, int64_t ldb, float beta, int type_c, void *c,
                      int64_t ldc, const struct mo_epilogue *e)
{
    if (m <= 0 || n <= 0)
        return;
    float *wide_a = rounded(dev, type_a, a, ta ? k : m, ta ? m : k, lda);
    float *wide_b = rounded(dev, type_b, b, tb ? n : k, tb ? k : n, ldb), *wide_c = room(dev, (size_t)(m * n));
    if (wide_a && wide_b && wide_c) {
        if (beta != 0)
            load_c(type_c, c, m, n, ldc, wide_c);
        mo_ref_gemm(dev, ta, tb, m, n, k, alpha, wide_a, ta ? m : k, wide_b, tb ? k : n, beta, wide_c, n, e);
        store_c(type_c, wide_c, m, n, ldc, c);
    }
    free(wide_a);
    free(wide_b);
    free(wide_c);
}

static const void *element(int type, const void *x, int64_t i)
{
    return (const char *)x + i * (type == F32 ? 4 : 2);
}

void mo_ref_gemm_batched_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                              int type_a, const void *a, int64_t lda, const int64_t *offset_a, int type_b, const void *b,
                              int64_t ldb, const int64_t *offset_b, float beta, int type_c, void *c, int64_t ldc,
                              const int64_t *offset_c, int64_t n_batch)
{
    for (int64_t i = 0; i < n_batch; i++)
        mo_ref_gemm_bf16(dev, ta, tb, m, n, k, alpha, type_a, element(type_a, a, offset_a[i]), lda, type_b,
                         element(type_b, b, offset_b[i]), ldb, beta, type_c,
                         (void *)(uintptr_t)element(type_c, c, offset_c[i]), ldc, NULL);
}

/* ---- pooling ---- */

static size_t pixels(const int64_t size[3])
{
    return (size_t)(size[0] * size[1] * size[2]);
}

void mo_ref_pool_bf16(struct mo_device *dev, const struct mo_pool_desc *d, const uint16_t *x, uint16_t *y, uint8_t *where)
{
    size_t each = (size_t)(d->batch * d->channels), n_x = each * pixels(d->in), n_y = each * pixels(d->out);
    float *wide_x = widened(dev, n_x, x), *wide_y = room(dev, n_y);
    if (wide_x && wide_y) {
        mo_ref_pool(dev, d, wide_x, wide_y, where);
        give(n_y, wide_y, y);
    }
    free(wide_x);
    free(wide_y);
}

void mo_ref_pool_grad_bf16(struct mo_device *dev, const struct mo_pool_desc *d, const uint16_t *dy, const uint8_t *where,
                           uint16_t *dx, bool add)
{
    size_t each = (size_t)(d->batch * d->channels), n_x = each * pixels(d->in), n_y = each * pixels(d->out);
    float *wide_dy = widened(dev, n_y, dy), *wide_dx = add ? widened(dev, n_x, dx) : room(dev, n_x);
    if (wide_dy && wide_dx) {
        mo_ref_pool_grad(dev, d, wide_dy, where, wide_dx, add);
        give(n_x, wide_dx, dx);
    }
    free(wide_dy);
    free(wide_dx);
}

/* ---- convolution ---- */

struct conv_sizes { size_t x, y, w; };

static struct conv_sizes sizes_of(const struct mo_conv *conv)
{
    const struct mo_conv_desc *d = mo_ref_conv_desc(conv);
    return (struct conv_sizes){ (size_t)(d->batch * d->in_channels) * pixels(d->in),
                                (size_t)(d->batch * d->out_channels) * pixels(d->out),
                                (size_t)(d->out_channels * (d->in_channels / d->groups)) * pixels(d->kernel) };
}

void mo_ref_conv_bf16(struct mo_device *dev, struct mo_conv *conv, const uint16_t *x, const float *w, const float *bias,
                      const uint16_t *residual, uint16_t *y, void *scratch)
{
    struct conv_sizes n = sizes_of(conv);
    float *wide_x = widened(dev, n.x, x), *wide_w = rounded(dev, F32, w, 1, (int64_t)n.w, 0);
    float *more = widened(dev, n.y, residual), *wide_y = room(dev, n.y);
    if (wide_x && wide_w && wide_y && (more || !residual)) {
        mo_ref_conv(dev, conv, wide_x, wide_w, bias, more, wide_y, scratch);
        give(n.y, wide_y, y);
    }
    free(wide_x);
    free(wide_w);
    free(more);
    free(wide_y);
}

void mo_ref_conv_grad_input_bf16(struct mo_device *dev, struct mo_conv *conv, const float *w, const uint16_t *dy,
                                 uint16_t *dx, void *scratch)
{
    struct conv_sizes n = sizes_of(conv);
    float *wide_w = rounded(dev, F32, w, 1, (int64_t)n.w, 0), *wide_dy = widened(dev, n.y, dy), *wide_dx = room(dev, n.x);
    if (wide_w && wide_dy && wide_dx) {
        mo_ref_conv_grad_input(dev, conv, wide_w, wide_dy, wide_dx, scratch);
        give(n.x, wide_dx, dx);
    }
    free(wide_w);
    free(wide_dy);
    free(wide_dx);
}

void mo_ref_conv_grad_weight_bf16(struct mo_device *dev, struct mo_conv *conv, const uint16_t *x, const uint16_t *dy,
                                  float *dw, float *dbias, void *scratch)
{
    struct conv_sizes n = sizes_of(conv);
    float *wide_x = widened(dev, n.x, x), *wide_dy = widened(dev, n.y, dy);
    if (wide_x && wide_dy)
        mo_ref_conv_grad_weight(dev, conv, wide_x, wide_dy, dw, dbias, scratch);
    free(wide_x);
    free(wide_dy);
}

/* ---- BatchNormalization ---- */

void mo_ref_batchnorm_stats_bf16(struct mo_device *dev, int64_t rows, int64_t channels, const uint16_t *x, float *mean,
                                 float *var)
{
    float *wide = widened(dev, (size_t)(rows * channels), x);
    if (wide)
        mo_ref_batchnorm_stats(dev, rows, channels, wide, mean, var);
    free(wide);
}

void mo_ref_batchnorm_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const uint16_t *x,
                           const float *mean, const float *var, const float *scale, const float *bias,
                           const uint16_t *residual, enum mo_act act, uint16_t *y)
{
    size_t n = (size_t)(rows * channels);
    float *wide = widened(dev, n, x), *more = widened(dev, n, residual);
    if (wide && (more || !residual)) {
        mo_ref_batchnorm(dev, rows, channels, eps, wide, mean, var, scale, bias, more, act, wide);
        give(n, wide, y);
    }
    free(wide);
    free(more);
}

void mo_ref_batchnorm_grad_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                                enum mo_act act, const uint16_t *x, const uint16_t *y, const float *mean,
                                const float *var, const float *scale, const uint16_t *dy, uint16_t *dx,
                                uint16_t *dresidual, float *dscale, float *dbias)
{
    size_t n = (size_t)(rows * channels);
    float *wide_x = widened(dev, n, x), *wide_y = widened(dev, n, act == MO_ACT_RELU ? y : NULL);
    float *g = widened(dev, n, dy), *wide_dx = room(dev, n);
    if (wide_x && g && wide_dx && (wide_y || act != MO_ACT_RELU)) {
        mo_ref_batchnorm_grad(dev, rows, channels, eps, frozen, act, wide_x, wide_y, mean, var, scale, g, wide_dx, g,
                              dscale, dbias);
        give(n, wide_dx, dx);
        give(n, g, dresidual);
    }
    free(wide_x);
    free(wide_y);
    free(g);
    free(wide_dx);
}
