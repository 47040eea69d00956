/* optim.cu - optimizer steps, one launch over all parameters. */
#include "kernels/cuda/device.cuh"

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
