/* optim.cu - optimizer steps: over one part of the weights, and over all of them in one launch. */
#include "kernels/cuda/device.cuh"

#include <math.h>

/* g' = g + l2 w;  v = momentum v + g';  w -= lr (nesterov ? g' + momentum v : v) */
void mo_cuda_sgd_step(struct mo_device *dev, size_t n, float lr, float momentum, bool nesterov, float l2, float *w,
                      const float *g, float *velocity)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float d = g[i] + l2 * w[i];
        if (velocity) {
            float v = momentum * velocity[i] + d;
            velocity[i] = v;
            d = nesterov ? d + momentum * v : v;
        }
        w[i] -= lr * d;
    });
}

/* g' = g + l2 w;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2;
 * w -= lr decoupled w;  w -= lr (m / correction1) / (sqrt(v / correction2) + eps)     (Kingma 2015; Loshchilov 2019) */
void mo_cuda_adam_step(struct mo_device *dev, size_t n, float lr, float beta1, float beta2, float eps, float l2,
                       float decoupled, float correction1, float correction2, float *w, const float *g, float *m,
                       float *v)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float d = g[i] + l2 * w[i];
        float first = m[i] = beta1 * m[i] + (1 - beta1) * d;
        float second = v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        float kept = w[i] - lr * decoupled * w[i];
        w[i] = kept - lr * (first / correction1) / (sqrtf(second / correction2) + eps);
    });
}

/* s = alpha s + (1 - alpha) g'^2;  d = g' / (sqrt(s) + eps);  v = momentum v + d;  w -= lr v */
void mo_cuda_rmsprop_step(struct mo_device *dev, size_t n, float lr, float alpha, float eps, float momentum, float l2,
                          float *w, const float *g, float *square, float *velocity)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float d = g[i] + l2 * w[i];
        float s = square[i] = alpha * square[i] + (1 - alpha) * d * d;
        d /= sqrtf(s) + eps;
        if (velocity)
            d = velocity[i] = momentum * velocity[i] + d;
        w[i] -= lr * d;
    });
}

/* ---- all of it in one launch ---------------------------------------------------------------- */

/* What is taken off w for gradient d; the formulas are those above. */
static __device__ float step_of(const struct mo_update &u, int64_t i, float d)
{
    if (u.kind == MO_UPDATE_ADAM) {
        float first = u.first[i] = u.beta1 * u.first[i] + (1 - u.beta1) * d;
        float second = u.second[i] = u.beta2 * u.second[i] + (1 - u.beta2) * d * d;
        return u.lr * (first / u.correction1) / (sqrtf(second / u.correction2) + u.eps);
    }
    if (u.kind == MO_UPDATE_RMSPROP) {
        float s = u.second[i] = u.alpha * u.second[i] + (1 - u.alpha) * d * d;
        d /= sqrtf(s) + u.eps;
        if (u.first)
            d = u.first[i] = u.momentum * u.first[i] + d;
        return u.lr * d;
    }
    if (u.first) {
        float v = u.first[i] = u.momentum * u.first[i] + d;
        d = u.nesterov ? d + u.momentum * v : v;
    }
    return u.lr * d;
}

/* *sum = sum of squares of the gradients of what is updated, as they come */
static void sum_of_squares(struct mo_device *dev, const struct mo_update &u, double *sum)
{
    const float *g = u.g;
    const uint8_t *group = u.group;
    mo_fold(dev, 1, (int64_t)u.n_trained, false, 0.0,
            [=] __device__(int64_t, int64_t i) {
                return group[i / MO_UPDATE_GROUP] == MO_UPDATE_NOT ? 0.0 : (double)g[i] * g[i];
            },
            mo_sum(), [=] __device__(int64_t, double total) { *sum = total; });
}

void mo_cuda_update(struct mo_device *dev, const struct mo_update *update, double *norm)
{
    struct mo_update u = *update;
    bool needs_norm = norm || u.clip > 0 || u.skips_bad;
    mo_temp<double> squares(dev, needs_norm ? 1 : 0);
    double *sum = squares.at, total = 0;
    if (needs_norm && !sum)
        return;
    if (needs_norm)
        sum_of_squares(dev, u, sum);
    mo_each(dev, (int64_t)u.n_weights, [=] __device__(int64_t i) {
        double length = sum ? sqrt(*sum) / u.scale : 0, factor = u.clip > 0 ? u.clip / (length + 1e-6) : 1;
        int group = i < (int64_t)u.n_trained ? u.group[i / MO_UPDATE_GROUP] : (int)MO_UPDATE_NOT;
        if (u.skips_bad && !isfinite(length))
            return;
        float w = u.w[i];
        if (group != MO_UPDATE_NOT) {
            float g = u.g[i] / u.scale;
            g = factor < 1 ? (float)factor * g : g;
            bool decays = group == MO_UPDATE_DECAYS;
            float kept = decays ? w - u.lr * u.decoupled * w : w;
            u.w[i] = kept - step_of(u, i, decays ? g + u.l2 * w : g);
        }
        if (u.average)
            u.average[i] = u.ema * u.average[i] + (1 - u.ema) * u.w[i];
    });
    if (norm) {
        mo_cuda_download(dev, &total, sum, sizeof total);
        *norm = sqrt(total) / u.scale;
    }
}
