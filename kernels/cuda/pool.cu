/* pool.cu - pooling and its gradient, channels-last: a thread makes one result, and in
 * the gradient gathers for one input what the windows over it give, in their order. */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/window.cuh"

struct pooling {
    struct mo_window w;
    int64_t pad_end[3], batch, channels;
    enum mo_pool_kind kind;
};

static struct pooling pooling_of(const struct mo_pool_desc *d)
{
    struct pooling p = { mo_window_of(d), { d->pad_end[0], d->pad_end[1], d->pad_end[2] }, d->batch, d->channels, d->kind };
    return p;
}

/* One over the number of taps inside the picture, or inside it and its padding. */
static __device__ float share_of(const struct pooling &p, int64_t out)
{
    int64_t o[3], n = 1;
    mo_split3(out, p.w.out, o);
    for (int i = 0; i < 3; i++) {
        int64_t n_inside = 0, n_counted = 0;
        for (int64_t k = 0; k < p.w.kernel[i]; k++) {
            int64_t at = o[i] * p.w.stride[i] - p.w.pad[i] + k * p.w.dilation[i];
            n_inside += at >= 0 && at < p.w.in[i];
            n_counted += at < p.w.in[i] + p.pad_end[i];
        }
        n *= p.kind == MO_POOL_AVERAGE ? n_inside : n_counted;
    }
    return n > 0 ? 1.0f / (float)n : 0;
}

/* The first of the largest; NaN is larger than all. */
template <class T>
static __device__ float largest(const struct pooling &p, const T *image, int64_t out, int64_t c, int64_t *where)
{
    float best = -INFINITY;
    int64_t best_tap = -1;
    for (int64_t k = 0; k < p.w.n_taps; k++) {
        int64_t pixel = mo_tap_input(p.w, out, k);
        if (pixel < 0)
            continue;
        float v = mo_load(image[pixel * p.channels + c]);
        if (best_tap < 0 || v > best || v != v)
            best = v, best_tap = k;
        if (v != v)
            break;
    }
    *where = best_tap < 0 ? 0 : best_tap;
    return best;
}

template <class T>
static void pool_over(struct mo_device *dev, const struct mo_pool_desc *desc, const T *x, T *y, uint8_t *where)
{
    struct pooling p = pooling_of(desc);
    mo_each(dev, p.batch * p.w.n_out * p.channels, [=] __device__(int64_t u) {
        int64_t c = u % p.channels, at = u / p.channels, out = at % p.w.n_out, tap;
        const T *image = x + at / p.w.n_out * p.w.n_in * p.channels;
        if (p.kind == MO_POOL_MAX) {
            y[u] = mo_stored<T>::of(largest(p, image, out, c, &tap));
            if (where)
                where[u] = (uint8_t)tap;
            return;
        }
        double sum = 0;
        for (int64_t k = 0; k < p.w.n_taps; k++) {
            int64_t pixel = mo_tap_input(p.w, out, k);
            if (pixel >= 0)
                sum += mo_load(image[pixel * p.channels + c]);
        }
        y[u] = mo_stored<T>::of((float)(sum * share_of(p, out)));
    });
}

void mo_cuda_pool(struct mo_device *dev, const struct mo_pool_desc *desc, const float *x, float *y, uint8_t *where)
{
    pool_over(dev, desc, x, y, where);
}

void mo_cuda_pool_bf16(struct mo_device *dev, const struct mo_pool_desc *desc, const uint16_t *x, uint16_t *y, uint8_t *where)
{
    MO_BY_HALF(dev, pool_over(dev, desc, (const H *)x, (H *)y, where););
}

template <class T>
static void pool_grad_over(struct mo_device *dev, const struct mo_pool_desc *desc, const T *dy, const uint8_t *where, T *dx,
                           bool add)
{
    struct pooling p = pooling_of(desc);
    mo_each(dev, p.batch * p.w.n_in * p.channels, [=] __device__(int64_t u) {
        int64_t c = u % p.channels, at = u / p.channels, image = at / p.w.n_in * p.w.n_out;
        float sum = add ? mo_load(dx[u]) : 0;
        /* the last tap belongs to the first window */
        for (int64_t k = p.w.n_taps - 1; k >= 0; k--) {
            int64_t out = mo_tap_output(p.w, at % p.w.n_in, k);
            if (out < 0)
                continue;
            int64_t from = (image + out) * p.channels + c;
            if (p.kind != MO_POOL_MAX)
                sum += mo_load(dy[from]) * share_of(p, out);
            else if (where[from] == k)
                sum += mo_load(dy[from]);
        }
        dx[u] = mo_stored<T>::of(sum);
    });
}

void mo_cuda_pool_grad(struct mo_device *dev, const struct mo_pool_desc *desc, const float *dy, const uint8_t *where,
                       float *dx, bool add)
{
    pool_grad_over(dev, desc, dy, where, dx, add);
}

void mo_cuda_pool_grad_bf16(struct mo_device *dev, const struct mo_pool_desc *desc, const uint16_t *dy, const uint8_t *where,
                            uint16_t *dx, bool add)
{
    MO_BY_HALF(dev, pool_grad_over(dev, desc, (const H *)dy, where, (H *)dx, add););
}
