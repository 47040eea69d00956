/* bf16.cu - the kernels over bfloat16: operands are widened, the float32 kernel runs, what
 * it gave is rounded. No run asks for them yet (lib/run/run.c: bfloat16 is the CPU's). */
#include "kernels/cuda/device.cuh"

enum { F32 = 1 };

static __device__ float wide(uint16_t h)
{
    return __uint_as_float((unsigned)h << 16);
}

static __device__ uint16_t narrow(float x)
{
    unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static void widen(struct mo_device *dev, int64_t n, const uint16_t *x, float *y)
{
    if (x && y)
        mo_each(dev, n, [=] __device__(int64_t i) { y[i] = wide(x[i]); });
}

static void round_to(struct mo_device *dev, int64_t n, const float *x, uint16_t *y)
{
    if (x && y)
        mo_each(dev, n, [=] __device__(int64_t i) { y[i] = narrow(x[i]); });
}

/* A float32 copy for the length of one kernel; none of a NULL operand. */
struct widened {
    mo_temp<float> copy;
    float *at;
    widened(struct mo_device *dev, int64_t n, const uint16_t *x) : copy(dev, x ? n : 0), at(copy.at)
    {
        widen(dev, n, x, at);
    }
};

/* ---- element by element ---- */

void mo_cuda_unary_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x, uint16_t *y)
{
    widened v(dev, (int64_t)n, x);
    if (v.at)
        mo_cuda_unary(dev, f, a, b, n, v.at, v.at);
    round_to(dev, (int64_t)n, v.at, y);
}

void mo_cuda_unary_grad_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x,
                             const uint16_t *y, const uint16_t *dy, uint16_t *dx, bool add)
{
    widened wide_x(dev, (int64_t)n, x), wide_y(dev, (int64_t)n, y), g(dev, (int64_t)n, dy), d(dev, (int64_t)n, dx);
    if (g.at && d.at)
        mo_cuda_unary_grad(dev, f, a, b, n, wide_x.at, wide_y.at, g.at, d.at, add);
    round_to(dev, (int64_t)n, d.at, dx);
}

void mo_cuda_axpy_bf16(struct mo_device *dev, size_t n, float a, const uint16_t *x, uint16_t *y, bool add)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float v = a * wide(x[i]);
        y[i] = narrow(add ? wide(y[i]) + v : v);
    });
}

/* ---- matrix products ---- */

/* rows x columns at row length ld, dense, as numbers that bfloat16 can hold */
static void gather_rounded(struct mo_device *dev, int type, const void *x, int64_t rows, int64_t columns, int64_t ld, float *y)
{
    const float *floats = (const float *)x;
    const uint16_t *halves = (const uint16_t *)x;
    bool is_f32 = type == F32;
    if (y)
        mo_each(dev, rows * columns, [=] __device__(int64_t i) {
            int64_t at = i / columns * ld + i % columns;
            y[i] = wide(is_f32 ? narrow(floats[at]) : halves[at]);
        });
}

void mo_cuda_gemm_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, int type_a,
                       const void *a, int64_t lda, int type_b, const void *b, int64_t ldb, float beta, int type_c, void *c,
                       int64_t ldc, const struct mo_epilogue *e)
{
    if (m <= 0 || n <= 0)
        return;
    int64_t columns_a = ta ? m : k, columns_b = tb ? k : n;
    mo_temp<float> wide_a(dev, m * k), wide_b(dev, n * k), wide_c(dev, m * n);
    if ((k > 0 && (!wide_a.at || !wide_b.at)) || !wide_c.at)
        return;
    gather_rounded(dev, type_a, a, ta ? k : m, columns_a, lda, wide_a.at);
    gather_rounded(dev, type_b, b, tb ? n : k, columns_b, ldb, wide_b.at);
    float *to = wide_c.at, *c32 = (float *)c;
    uint16_t *c16 = (uint16_t *)c;
    bool is_f32 = type_c == F32;
    if (beta != 0)
        mo_each(dev, m * n, [=] __device__(int64_t i) {
            int64_t at = i / n * ldc + i % n;
            to[i] = is_f32 ? c32[at] : wide(c16[at]);
        });
    mo_cuda_gemm(dev, ta, tb, m, n, k, alpha, wide_a.at, columns_a, wide_b.at, columns_b, beta, to, n, e);
    mo_each(dev, m * n, [=] __device__(int64_t i) {
        int64_t at = i / n * ldc + i % n;
        if (is_f32)
            c32[at] = to[i];
        else
            c16[at] = narrow(to[i]);
    });
}

static const void *element(int type, const void *x, int64_t i)
{
    return (const char *)x + i * (type == F32 ? 4 : 2);
}

void mo_cuda_gemm_batched_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                               int type_a, const void *a, int64_t lda, const int64_t *offset_a, int type_b, const void *b,
                               int64_t ldb, const int64_t *offset_b, float beta, int type_c, void *c, int64_t ldc,
                               const int64_t *offset_c, int64_t n_batch)
{
    for (int64_t i = 0; i < n_batch; i++)
        mo_cuda_gemm_bf16(dev, ta, tb, m, n, k, alpha, type_a, element(type_a, a, offset_a[i]), lda, type_b,
                          element(type_b, b, offset_b[i]), ldb, beta, type_c, (void *)element(type_c, c, offset_c[i]), ldc,
                          NULL);
}

/* ---- convolution ---- */

struct sizes { int64_t x, y, w; };

static int64_t pixels(const int64_t v[3])
{
    return v[0] * v[1] * v[2];
}

static struct sizes sizes_of(const struct mo_conv *conv)
{
    const struct mo_conv_desc *d = mo_cuda_conv_desc(conv);
    return { d->batch * d->in_channels * pixels(d->in), d->batch * d->out_channels * pixels(d->out),
             d->out_channels * (d->in_channels / d->groups) * pixels(d->kernel) };
}

void mo_cuda_conv_bf16(struct mo_device *dev, struct mo_conv *conv, const uint16_t *x, const float *w, const float *bias,
                       const uint16_t *residual, uint16_t *y, void *scratch)
{
    struct sizes n = sizes_of(conv);
    widened wide_x(dev, n.x, x), more(dev, n.y, residual);
    mo_temp<float> wide_w(dev, n.w), wide_y(dev, n.y);
    if (!wide_x.at || !wide_w.at || !wide_y.at)
        return;
    gather_rounded(dev, F32, w, 1, n.w, 0, wide_w.at);
    mo_cuda_conv(dev, conv, wide_x.at, wide_w.at, bias, more.at, wide_y.at, scratch);
    round_to(dev, n.y, wide_y.at, y);
}

void mo_cuda_conv_grad_input_bf16(struct mo_device *dev, struct mo_conv *conv, const float *w, const uint16_t *dy,
                                  uint16_t *dx, void *scratch)
{
    struct sizes n = sizes_of(conv);
    widened g(dev, n.y, dy);
    mo_temp<float> wide_w(dev, n.w), wide_dx(dev, n.x);
    if (!g.at || !wide_w.at || !wide_dx.at)
        return;
    gather_rounded(dev, F32, w, 1, n.w, 0, wide_w.at);
    mo_cuda_conv_grad_input(dev, conv, wide_w.at, g.at, wide_dx.at, scratch);
    round_to(dev, n.x, wide_dx.at, dx);
}

void mo_cuda_conv_grad_weight_bf16(struct mo_device *dev, struct mo_conv *conv, const uint16_t *x, const uint16_t *dy,
                                   float *dw, float *dbias, void *scratch)
{
    struct sizes n = sizes_of(conv);
    widened wide_x(dev, n.x, x), g(dev, n.y, dy);
    if (wide_x.at && g.at)
        mo_cuda_conv_grad_weight(dev, conv, wide_x.at, g.at, dw, dbias, scratch);
}

/* ---- pooling ---- */

void mo_cuda_pool_bf16(struct mo_device *dev, const struct mo_pool_desc *d, const uint16_t *x, uint16_t *y, uint8_t *where)
{
    int64_t each = d->batch * d->channels, n_y = each * pixels(d->out);
    widened wide_x(dev, each * pixels(d->in), x);
    mo_temp<float> wide_y(dev, n_y);
    if (wide_x.at && wide_y.at)
        mo_cuda_pool(dev, d, wide_x.at, wide_y.at, where);
    round_to(dev, n_y, wide_y.at, y);
}

void mo_cuda_pool_grad_bf16(struct mo_device *dev, const struct mo_pool_desc *d, const uint16_t *dy, const uint8_t *where,
                            uint16_t *dx, bool add)
{
    int64_t each = d->batch * d->channels, n_x = each * pixels(d->in);
    widened g(dev, each * pixels(d->out), dy), wide_dx(dev, n_x, dx);
    if (g.at && wide_dx.at)
        mo_cuda_pool_grad(dev, d, g.at, where, wide_dx.at, add);
    round_to(dev, n_x, wide_dx.at, dx);
}

/* ---- BatchNormalization ---- */

void mo_cuda_batchnorm_stats_bf16(struct mo_device *dev, int64_t rows, int64_t channels, const uint16_t *x, float *mean,
                                  float *var)
{
    widened v(dev, rows * channels, x);
    if (v.at)
        mo_cuda_batchnorm_stats(dev, rows, channels, v.at, mean, var);
}

void mo_cuda_batchnorm_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const uint16_t *x,
                            const float *mean, const float *var, const float *scale, const float *bias,
                            const uint16_t *residual, enum mo_act act, uint16_t *y)
{
    int64_t n = rows * channels;
    widened v(dev, n, x), more(dev, n, residual);
    if (v.at)
        mo_cuda_batchnorm(dev, rows, channels, eps, v.at, mean, var, scale, bias, more.at, act, v.at);
    round_to(dev, n, v.at, y);
}

void mo_cuda_batchnorm_grad_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                                 enum mo_act act, const uint16_t *x, const uint16_t *y, const float *mean,
                                 const float *var, const float *scale, const uint16_t *dy, uint16_t *dx,
                                 uint16_t *dresidual, float *dscale, float *dbias)
{
    int64_t n = rows * channels;
    widened wide_x(dev, n, x), wide_y(dev, n, y), g(dev, n, dy);
    mo_temp<float> wide_dx(dev, n), masked(dev, n);
    if (!wide_x.at || !g.at || !wide_dx.at || !masked.at)
        return;
    mo_cuda_batchnorm_grad(dev, rows, channels, eps, frozen, act, wide_x.at, wide_y.at, mean, var, scale, g.at, wide_dx.at,
                           masked.at, dscale, dbias);
    round_to(dev, n, wide_dx.at, dx);
    round_to(dev, n, masked.at, dresidual);
}
