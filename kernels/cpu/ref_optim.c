/* Plain C optimizer steps over flat parameters, and what goes with them. */
#include <math.h>

#include "kernels/cpu/cpu.h"

void mo_ref_axpy(struct mo_device *dev, size_t n, float a, const float *x, float *y, bool add)
{
    (void)dev;
    for (size_t i = 0; i < n; i++)
        y[i] = a * x[i] + (add ? y[i] : 0);
}

/* g' = g + l2 w;  v = momentum v + g';  w -= lr (nesterov ? g' + momentum v : v).
 * velocity may be NULL when momentum is 0. */
void mo_ref_sgd_step(struct mo_device *dev, size_t n, float lr, float momentum, bool nesterov, float l2, float *w,
                     const float *g, float *velocity)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + l2 * w[i];
        if (velocity) {
            float v = momentum * velocity[i] + d;
            velocity[i] = v;
            d = nesterov ? d + momentum * v : v;
        }
        w[i] -= lr * d;
    }
}

/* g' = g + l2 w;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2;
 * w -= lr decoupled w;  w -= lr (m / correction1) / (sqrt(v / correction2) + eps)     (Kingma 2015; Loshchilov 2019) */
void mo_ref_adam_step(struct mo_device *dev, size_t n, float lr, float beta1, float beta2, float eps, float l2,
                      float decoupled, float correction1, float correction2, float *w, const float *g, float *m,
                      float *v)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + l2 * w[i];
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        w[i] -= lr * decoupled * w[i];
        w[i] -= lr * (m[i] / correction1) / (sqrtf(v[i] / correction2) + eps);
    }
}

/* s = alpha s + (1 - alpha) g'^2;  d = g' / (sqrt(s) + eps);  v = momentum v + d;  w -= lr v */
void mo_ref_rmsprop_step(struct mo_device *dev, size_t n, float lr, float alpha, float eps, float momentum, float l2,
                         float *w, const float *g, float *square, float *velocity)
{
    (void)dev;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + l2 * w[i];
        square[i] = alpha * square[i] + (1 - alpha) * d * d;
        d /= sqrtf(square[i]) + eps;
        if (velocity)
            d = velocity[i] = momentum * velocity[i] + d;
        w[i] -= lr * d;
    }
}

/* Pairwise over blocks of 1024, so that the rounding grows with the logarithm of n. */
static double sum_tree(size_t n, const float *x)
{
    double sum = 0;
    if (n > 1024) {
        size_t half = (n / 2 + 1023) / 1024 * 1024;
        return sum_tree(half, x) + sum_tree(n - half, x + half);
    }
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

void mo_ref_sum_squares(struct mo_device *dev, size_t n, const float *x, double *sum)
{
    (void)dev;
    *sum = sum_tree(n, x);
}
