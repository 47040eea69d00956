/* sample.cu - reading images between their pixels. */
#include "kernels/cuda/device.cuh"

#define MO_SAMPLE __device__ static inline
#include "kernels/sample.h"

static int64_t pixels_of(const struct mo_sample_desc *d)
{
    int64_t n = 1;
    for (int axis = 0; axis < d->n_axes; axis++)
        n *= d->in[axis];
    return n;
}

void mo_cuda_sample(struct mo_device *dev, const struct mo_sample_desc *desc, const float *x, const float *coordinates,
                    float *y)
{
    struct mo_sample_desc d = *desc;
    int64_t n_pixels = pixels_of(desc);
    mo_each(dev, d.batch * d.channels * d.n_places, [=] __device__(int64_t u) {
        int64_t p = u % d.n_places, image = u / d.n_places;
        struct mo_sample_axis axes[3];
        int n_taps = mo_sample_place(&d, coordinates + (image / d.channels * d.n_places + p) * d.n_axes, axes);
        float sum = 0, weight;
        for (int t = 0; t < n_taps; t++) {
            int64_t at = mo_sample_tap(&d, axes, t, -1, &weight);
            sum += at < 0 ? 0 : weight * x[image * n_pixels + at];
        }
        y[u] = sum;
    });
}

/* A thread owns an image, since several places add to one pixel. */
static void pixels_grad(struct mo_device *dev, struct mo_sample_desc d, int64_t n_pixels, const float *coordinates,
                        const float *dy, float *dx)
{
    mo_each(dev, d.batch * d.channels, [=] __device__(int64_t u) {
        for (int64_t p = 0; p < d.n_places; p++) {
            struct mo_sample_axis axes[3];
            int n_taps = mo_sample_place(&d, coordinates + (u / d.channels * d.n_places + p) * d.n_axes, axes);
            for (int t = 0; t < n_taps; t++) {
                float weight;
                int64_t at = mo_sample_tap(&d, axes, t, -1, &weight);
                if (at >= 0)
                    dx[u * n_pixels + at] += weight * dy[u * d.n_places + p];
            }
        }
    });
}

static void places_grad(struct mo_device *dev, struct mo_sample_desc d, int64_t n_pixels, const float *x,
                        const float *coordinates, const float *dy, float *dcoordinates)
{
    mo_each(dev, d.batch * d.n_places * d.n_axes, [=] __device__(int64_t u) {
        int axis = (int)(d.n_axes - 1 - u % d.n_axes);
        int64_t place = u / d.n_axes, b = place / d.n_places, p = place % d.n_places;
        struct mo_sample_axis axes[3];
        int n_taps = mo_sample_place(&d, coordinates + place * d.n_axes, axes);
        float sum = 0, slope;
        for (int64_t c = b * d.channels; c < (b + 1) * d.channels; c++)
            for (int t = 0; t < n_taps; t++) {
                int64_t at = mo_sample_tap(&d, axes, t, axis, &slope);
                sum += at < 0 ? 0 : slope * x[c * n_pixels + at] * dy[c * d.n_places + p];
            }
        dcoordinates[u] = sum;
    });
}

void mo_cuda_sample_grad(struct mo_device *dev, const struct mo_sample_desc *d, const float *x, const float *coordinates,
                         const float *dy, float *dx, float *dcoordinates)
{
    int64_t n_pixels = pixels_of(d);
    if (dx)
        pixels_grad(dev, *d, n_pixels, coordinates, dy, dx);
    if (dcoordinates)
        places_grad(dev, *d, n_pixels, x, coordinates, dy, dcoordinates);
}
