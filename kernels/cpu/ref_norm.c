/* Plain C BatchNormalization over rows x channels (Ioffe and Szegedy 2015):
 *     y = act(scale * (x - mean) / sqrt(var + eps) + bias (+ residual)) */
#include <math.h>

#include "kernels/cpu/act.h"
#include "kernels/cpu/cpu.h"

void mo_ref_batchnorm_stats(struct mo_device *dev, int64_t rows, int64_t channels, const float *x, float *mean,
                            float *var)
{
    (void)dev;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (int64_t r = 0; r < rows; r++)
            sum += x[r * channels + c];
        double m = rows ? sum / (double)rows : 0;
        for (int64_t r = 0; r < rows; r++)
            squares += (x[r * channels + c] - m) * (x[r * channels + c] - m);
        mean[c] = (float)m;
        var[c] = rows ? (float)(squares / (double)rows) : 0;
    }
}

void mo_ref_batchnorm(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const float *x,
                      const float *mean, const float *var, const float *scale, const float *bias,
                      const float *residual, enum mo_act act, float *y)
{
    (void)dev;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t i = r * channels + c;
            float v = (x[i] - mean[c]) * (scale[c] / sqrtf(var[c] + eps)) + bias[c];
            y[i] = mo_act(act, 0, 0, residual ? v + residual[i] : v);
        }
}

/* With xh = (x - mean) / sqrt(var + eps) and dy masked by the activation:
 *     dbias = sum dy, dscale = sum dy * xh,
 *     dx = scale / sqrt(var + eps) * (dy - dbias / rows - xh * dscale / rows)   (frozen: without the sums) */
void mo_ref_batchnorm_grad(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                           enum mo_act act, const float *x, const float *y, const float *mean, const float *var,
                           const float *scale, const float *dy, float *dx, float *dresidual, float *dscale,
                           float *dbias)
{
    (void)dev;
    for (int64_t c = 0; c < channels; c++) {
        double inv = 1 / sqrt((double)var[c] + eps), sum = 0, sum_xh = 0;
        for (int64_t r = 0; r < rows; r++) {
            int64_t i = r * channels + c;
            float g = act == MO_ACT_RELU && !(y[i] > 0) ? 0 : dy[i];
            sum += g;
            sum_xh += g * (x[i] - (double)mean[c]) * inv;
        }
        if (dbias)
            dbias[c] = (float)sum;
        if (dscale)
            dscale[c] = (float)sum_xh;
        double mean_g = frozen ? 0 : sum / (double)rows, mean_xh = frozen ? 0 : sum_xh / (double)rows;
        for (int64_t r = 0; r < rows; r++) {
            int64_t i = r * channels + c;
            float g = act == MO_ACT_RELU && !(y[i] > 0) ? 0 : dy[i];
            double xh = (x[i] - (double)mean[c]) * inv;
            if (dresidual)
                dresidual[i] = g;
            if (dx)
                dx[i] = (float)(scale[c] * inv * (g - mean_g - xh * mean_xh));
        }
    }
}
