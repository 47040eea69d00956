/* norm.cu - batch and layer normalization, softmax, and their gradients. */
#include "kernels/cuda/device.cuh"

/* ---- batch normalization: rows x channels --------------------------------------------------- */

/* Two passes, because the mean of squares minus the square of the mean loses digits. */
template <class T>
static void stats_of(struct mo_device *dev, int64_t rows, int64_t channels, const T *x, float *mean, float *var)
{
    mo_fold(dev, channels, rows, true, 0.0,
            [=] __device__(int64_t c, int64_t r) { return (double)mo_load(x[r * channels + c]); }, mo_sum(),
            [=] __device__(int64_t c, double sum) { mean[c] = rows ? (float)(sum / (double)rows) : 0; });
    mo_fold(dev, channels, rows, true, 0.0,
            [=] __device__(int64_t c, int64_t r) {
                double d = (double)mo_load(x[r * channels + c]) - mean[c];
                return d * d;
            },
            mo_sum(), [=] __device__(int64_t c, double sum) { var[c] = rows ? (float)(sum / (double)rows) : 0; });
}

void mo_cuda_batchnorm_stats(struct mo_device *dev, int64_t rows, int64_t channels, const float *x, float *mean,
                             float *var)
{
    stats_of(dev, rows, channels, x, mean, var);
}

void mo_cuda_batchnorm_stats_bf16(struct mo_device *dev, int64_t rows, int64_t channels, const uint16_t *x, float *mean,
                                  float *var)
{
    MO_BY_HALF(dev, stats_of(dev, rows, channels, (const H *)x, mean, var););
}

template <class T>
static void normalize(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const T *x, const float *mean,
                      const float *var, const float *scale, const float *bias, const T *residual, enum mo_act act, T *y)
{
    mo_each(dev, rows * channels, [=] __device__(int64_t i) {
        int64_t c = i % channels;
        float v = (mo_load(x[i]) - mean[c]) * (scale[c] / sqrtf(var[c] + eps)) + bias[c];
        y[i] = mo_stored<T>::of(mo_act_of(act, 0, 0, residual ? v + mo_load(residual[i]) : v));
    });
}

void mo_cuda_batchnorm(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const float *x,
                       const float *mean, const float *var, const float *scale, const float *bias,
                       const float *residual, enum mo_act act, float *y)
{
    normalize(dev, rows, channels, eps, x, mean, var, scale, bias, residual, act, y);
}

void mo_cuda_batchnorm_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const uint16_t *x,
                            const float *mean, const float *var, const float *scale, const float *bias,
                            const uint16_t *residual, enum mo_act act, uint16_t *y)
{
    MO_BY_HALF(dev, normalize(dev, rows, channels, eps, (const H *)x, mean, var, scale, bias, (const H *)residual, act,
                              (H *)y););
}

/* What a channel's dx is made of: dx = factor (g - mean_g - (x - mean) slope) */
struct channel_grad {
    double factor, mean_g, slope;
};

/* With xh = (x - mean) / sqrt(var + eps) and dy masked by the activation:
 *     dbias = sum dy, dscale = sum dy * xh,
 *     dx = scale / sqrt(var + eps) * (dy - dbias / rows - xh * dscale / rows)   (frozen: without the sums) */
template <class T>
static void normalize_grad(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen, enum mo_act act,
                           const T *x, const T *y, const float *mean, const float *var, const float *scale, const T *dy,
                           T *dx, T *dresidual, float *dscale, float *dbias)
{
    bool masked = act == MO_ACT_RELU, needs_sums = dscale || dbias || (dx && !frozen);
    mo_temp<struct channel_grad> parts(dev, dx ? channels : 0);
    struct channel_grad *part_of = parts.at;
    if (dx && channels > 0 && !part_of)
        return;
    if (needs_sums)
        mo_fold(dev, channels, rows, true, mo_pair{ 0, 0 },
                [=] __device__(int64_t c, int64_t r) {
                    int64_t i = r * channels + c;
                    double g = masked && !(mo_load(y[i]) > 0) ? 0.0 : (double)mo_load(dy[i]);
                    return mo_pair{ g, g * (mo_load(x[i]) - (double)mean[c]) };
                },
                mo_sum(),
                [=] __device__(int64_t c, mo_pair sum) {
                    double inv = 1 / sqrt((double)var[c] + eps);
                    if (part_of)
                        part_of[c] = frozen ? channel_grad{ scale[c] * inv, 0, 0 }
                                            : channel_grad{ scale[c] * inv, sum.a / (double)rows,
                                                            sum.b * inv * inv / (double)rows };
                    if (dbias)
                        dbias[c] = (float)sum.a;
                    if (dscale)
                        dscale[c] = (float)(sum.b * inv);
                });
    else if (dx)
        mo_each(dev, channels, [=] __device__(int64_t c) {
            part_of[c] = channel_grad{ scale[c] / sqrt((double)var[c] + eps), 0, 0 };
        });
    if (!dx && !dresidual)
        return;
    mo_each(dev, rows * channels, [=] __device__(int64_t i) {
        int64_t c = i % channels;
        float g = masked && !(mo_load(y[i]) > 0) ? 0 : mo_load(dy[i]);
        if (dx) {
            struct channel_grad p = part_of[c];
            dx[i] = mo_stored<T>::of((float)(p.factor * (g - p.mean_g - (mo_load(x[i]) - (double)mean[c]) * p.slope)));
        }
        if (dresidual)
            dresidual[i] = mo_stored<T>::of(g);
    });
}

void mo_cuda_batchnorm_grad(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                            enum mo_act act, const float *x, const float *y, const float *mean, const float *var,
                            const float *scale, const float *dy, float *dx, float *dresidual, float *dscale,
                            float *dbias)
{
    normalize_grad(dev, rows, channels, eps, frozen, act, x, y, mean, var, scale, dy, dx, dresidual, dscale, dbias);
}

void mo_cuda_batchnorm_grad_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                                 enum mo_act act, const uint16_t *x, const uint16_t *y, const float *mean,
                                 const float *var, const float *scale, const uint16_t *dy, uint16_t *dx,
                                 uint16_t *dresidual, float *dscale, float *dbias)
{
    MO_BY_HALF(dev, normalize_grad(dev, rows, channels, eps, frozen, act, (const H *)x, (const H *)y, mean, var, scale,
                                   (const H *)dy, (H *)dx, (H *)dresidual, dscale, dbias););
}

/* ---- layer normalization: one block a row --------------------------------------------------------- */

void mo_cuda_layernorm(struct mo_device *dev, int64_t rows, int64_t n, float eps, const float *x, const float *scale,
                       const float *bias, float *y, float *mean, float *inv_std)
{
    mo_rows(dev, rows, [=] __device__(int64_t r) {
        const float *row = x + r * n;
        float sum = 0, squares = 0;
        for (int64_t i = threadIdx.x; i < n; i += THREADS)
            sum += row[i];
        float m = mo_block_fold(sum, mo_sum()) / (float)n;
        for (int64_t i = threadIdx.x; i < n; i += THREADS)
            squares += (row[i] - m) * (row[i] - m);
        float s = 1 / sqrtf(mo_block_fold(squares, mo_sum()) / (float)n + eps);
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            float hat = (row[i] - m) * s;
            y[r * n + i] = (scale ? hat * scale[i] : hat) + (bias ? bias[i] : 0);
        }
        if (threadIdx.x == 0) {
            mean[r] = m;
            inv_std[r] = s;
        }
    });
}

/* With g = dy scale and h = (x - mean) inv_std: dx = inv_std (g - mean(g) - h mean(g h)). */
static void layernorm_grad_input(struct mo_device *dev, int64_t rows, int64_t n, const float *x, const float *scale,
                                 const float *mean, const float *inv_std, const float *dy, float *dx)
{
    mo_rows(dev, rows, [=] __device__(int64_t r) {
        const float *row = x + r * n, *dy_row = dy + r * n;
        float m = mean[r], s = inv_std[r], sum = 0, dot = 0;
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            float g = scale ? dy_row[i] * scale[i] : dy_row[i];
            sum += g;
            dot += g * (row[i] - m) * s;
        }
        float mean_g = mo_block_fold(sum, mo_sum()) / (float)n, mean_gh = mo_block_fold(dot, mo_sum()) / (float)n;
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            float g = scale ? dy_row[i] * scale[i] : dy_row[i];
            dx[r * n + i] = s * (g - mean_g - (row[i] - m) * s * mean_gh);
        }
    });
}

/* dx may be dy: the columns are summed first. */
void mo_cuda_layernorm_grad(struct mo_device *dev, int64_t rows, int64_t n, const float *x, const float *scale,
                            const float *mean, const float *inv_std, const float *dy, float *dx, float *dscale,
                            float *dbias)
{
    if (dscale || dbias)
        mo_fold(dev, n, rows, true, mo_pair{ 0, 0 },
                [=] __device__(int64_t i, int64_t r) {
                    float g = dy[r * n + i];
                    return mo_pair{ g, (double)(g * (x[r * n + i] - mean[r]) * inv_std[r]) };
                },
                mo_sum(),
                [=] __device__(int64_t i, mo_pair sum) {
                    if (dbias)
                        dbias[i] = (float)sum.a;
                    if (dscale)
                        dscale[i] = (float)sum.b;
                });
    if (dx)
        layernorm_grad_input(dev, rows, n, x, scale, mean, inv_std, dy, dx);
}

/* ---- softmax ----------------------------------------------------------------------------------------- */

struct larger {
    __device__ float operator()(float a, float b) const
    {
        return b > a ? b : a;
    }
};

/* A block a line where lines are contiguous, else a thread a line, whose neighbours read along inner. */
void mo_cuda_softmax(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *x,
                     float *y)
{
    if (inner == 1 && axis >= 32) {
        mo_rows(dev, outer, [=] __device__(int64_t o) {
            const float *from = x + o * axis;
            float *to = y + o * axis, top = -INFINITY, sum = 0;
            for (int64_t k = threadIdx.x; k < axis; k += THREADS)
                top = from[k] > top ? from[k] : top;
            top = mo_block_fold(top, larger());
            for (int64_t k = threadIdx.x; k < axis; k += THREADS)
                sum += expf(from[k] - top);
            sum = mo_block_fold(sum, mo_sum());
            for (int64_t k = threadIdx.x; k < axis; k += THREADS)
                to[k] = log ? from[k] - top - logf(sum) : expf(from[k] - top) / sum;
        });
        return;
    }
    mo_each(dev, outer * inner, [=] __device__(int64_t u) {
        int64_t base = u / inner * axis * inner + u % inner;
        float top = -INFINITY, sum = 0;
        for (int64_t k = 0; k < axis; k++)
            top = x[base + k * inner] > top ? x[base + k * inner] : top;
        for (int64_t k = 0; k < axis; k++)
            sum += expf(x[base + k * inner] - top);
        for (int64_t k = 0; k < axis; k++) {
            float shifted = x[base + k * inner] - top;
            y[base + k * inner] = log ? shifted - logf(sum) : expf(shifted) / sum;
        }
    });
}

/* dx = y (dy - sum(dy y)); of the logarithm: dx = dy - exp(y) sum(dy) */
static __device__ float softmax_slope(bool log, float y, float dy, float sum)
{
    return log ? dy - expf(y) * sum : y * (dy - sum);
}

void mo_cuda_softmax_grad(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *y,
                          const float *dy, float *dx, bool add)
{
    if (inner == 1 && axis >= 32) {
        mo_rows(dev, outer, [=] __device__(int64_t o) {
            float sum = 0;
            for (int64_t i = o * axis + threadIdx.x; i < (o + 1) * axis; i += THREADS)
                sum += log ? dy[i] : dy[i] * y[i];
            sum = mo_block_fold(sum, mo_sum());
            for (int64_t i = o * axis + threadIdx.x; i < (o + 1) * axis; i += THREADS) {
                float d = softmax_slope(log, y[i], dy[i], sum);
                dx[i] = add ? dx[i] + d : d;
            }
        });
        return;
    }
    mo_each(dev, outer * inner, [=] __device__(int64_t u) {
        int64_t base = u / inner * axis * inner + u % inner;
        float sum = 0;
        for (int64_t k = 0; k < axis; k++)
            sum += log ? dy[base + k * inner] : dy[base + k * inner] * y[base + k * inner];
        for (int64_t k = 0; k < axis; k++) {
            int64_t i = base + k * inner;
            float d = softmax_slope(log, y[i], dy[i], sum);
            dx[i] = add ? dx[i] + d : d;
        }
    });
}
