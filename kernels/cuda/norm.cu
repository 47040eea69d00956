/* norm.cu - batch and layer normalization, softmax, and their gradients. */
#include "kernels/cuda/device.cuh"

/* ---- batch normalization: rows x channels --------------------------------------------------- */

/* Two passes, because the mean of squares minus the square of the mean loses digits. */
void mo_cuda_batchnorm_stats(struct mo_device *dev, int64_t rows, int64_t channels, const float *x, float *mean,
                             float *var)
{
    mo_fold(dev, channels, rows, true, 0.0,
            [=] __device__(int64_t c, int64_t r) { return (double)x[r * channels + c]; }, mo_sum(),
            [=] __device__(int64_t c, double sum) { mean[c] = rows ? (float)(sum / (double)rows) : 0; });
    mo_fold(dev, channels, rows, true, 0.0,
            [=] __device__(int64_t c, int64_t r) {
                double d = (double)x[r * channels + c] - mean[c];
                return d * d;
            },
            mo_sum(), [=] __device__(int64_t c, double sum) { var[c] = rows ? (float)(sum / (double)rows) : 0; });
}

void mo_cuda_batchnorm(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const float *x,
                       const float *mean, const float *var, const float *scale, const float *bias,
                       const float *residual, enum mo_act act, float *y)
{
    mo_each(dev, rows * channels, [=] __device__(int64_t i) {
        int64_t c = i % channels;
        float v = (x[i] - mean[c]) * (scale[c] / sqrtf(var[c] + eps)) + bias[c];
        y[i] = mo_act_of(act, 0, 0, residual ? v + residual[i] : v);
    });
}

/* With xh = (x - mean) / sqrt(var + eps) and dy masked by the activation:
 *     dbias = sum dy, dscale = sum dy * xh,
 *     dx = scale / sqrt(var + eps) * (dy - dbias / rows - xh * dscale / rows)   (frozen: without the sums) */
void mo_cuda_batchnorm_grad(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                            enum mo_act act, const float *x, const float *y, const float *mean, const float *var,
                            const float *scale, const float *dy, float *dx, float *dresidual, float *dscale,
                            float *dbias)
{
    bool masked = act == MO_ACT_RELU, needs_sums = dscale || dbias || (dx && !frozen);
    mo_temp<mo_pair> sums(dev, needs_sums ? channels : 0);
    mo_pair *sum_of = sums.at;
    if (needs_sums && channels > 0 && !sum_of)
        return;
    if (needs_sums)
        mo_fold(dev, channels, rows, true, mo_pair{ 0, 0 },
                [=] __device__(int64_t c, int64_t r) {
                    int64_t i = r * channels + c;
                    double g = masked && !(y[i] > 0) ? 0.0 : (double)dy[i];
                    return mo_pair{ g, g * (x[i] - (double)mean[c]) };
                },
                mo_sum(),
                [=] __device__(int64_t c, mo_pair sum) {
                    sum.b /= sqrt((double)var[c] + eps);
                    sum_of[c] = sum;
                    if (dbias)
                        dbias[c] = (float)sum.a;
                    if (dscale)
                        dscale[c] = (float)sum.b;
                });
    if (!dx && !dresidual)
        return;
    mo_each(dev, rows * channels, [=] __device__(int64_t i) {
        int64_t c = i % channels;
        float g = masked && !(y[i] > 0) ? 0 : dy[i];
        if (dx) {
            double inv = 1 / sqrt((double)var[c] + eps), xh = (x[i] - (double)mean[c]) * inv;
            double mean_g = frozen ? 0 : sum_of[c].a / (double)rows, mean_xh = frozen ? 0 : sum_of[c].b / (double)rows;
            dx[i] = (float)(scale[c] * inv * (g - mean_g - xh * mean_xh));
        }
        if (dresidual)
            dresidual[i] = g;
    });
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
