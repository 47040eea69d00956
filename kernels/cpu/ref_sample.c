/* ref_sample.c - reading images between their pixels: plain C. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/split.h"

#define MO_SAMPLE static inline
#include "kernels/sample.h"

enum { MAX_TAPS = 64 };

struct sample_work {
    const struct mo_sample_desc *d;
    const float *x, *coordinates, *dy;
    float *y, *dx, *dcoordinates;
    int64_t n_pixels;
};

static int64_t pixels_of(const struct mo_sample_desc *d)
{
    int64_t n = 1;
    for (int axis = 0; axis < d->n_axes; axis++)
        n *= d->in[axis];
    return n;
}

/* A unit is a place of one sample. */
static void sample_places(void *arg, int64_t begin, int64_t end)
{
    const struct sample_work *w = arg;
    const struct mo_sample_desc *d = w->d;
    for (int64_t u = begin; u < end; u++) {
        int64_t b = u / d->n_places, at[MAX_TAPS];
        float weight[MAX_TAPS];
        struct mo_sample_axis axes[3];
        int n_taps = mo_sample_place(d, w->coordinates + u * d->n_axes, axes);
        for (int t = 0; t < n_taps; t++)
            at[t] = mo_sample_tap(d, axes, t, -1, &weight[t]);
        for (int64_t c = 0; c < d->channels; c++) {
            const float *x = w->x + (b * d->channels + c) * w->n_pixels;
            float sum = 0;
            for (int t = 0; t < n_taps; t++)
                sum += at[t] < 0 ? 0 : weight[t] * x[at[t]];
            w->y[(b * d->channels + c) * d->n_places + u % d->n_places] = sum;
        }
    }
}

void mo_ref_sample(struct mo_device *dev, const struct mo_sample_desc *d, const float *x, const float *coordinates, float *y)
{
    struct sample_work w = { .d = d, .x = x, .coordinates = coordinates, .y = y, .n_pixels = pixels_of(d) };
    mo_split(dev, d->batch * d->n_places, mo_split_grain(d->channels * 8 + 32), sample_places, &w);
}

/* A unit is a channel of one sample: several places add to one pixel. */
static void sample_pixels_grad(void *arg, int64_t begin, int64_t end)
{
    const struct sample_work *w = arg;
    const struct mo_sample_desc *d = w->d;
    for (int64_t u = begin; u < end; u++)
        for (int64_t p = 0; p < d->n_places; p++) {
            struct mo_sample_axis axes[3];
            int n_taps = mo_sample_place(d, w->coordinates + (u / d->channels * d->n_places + p) * d->n_axes, axes);
            for (int t = 0; t < n_taps; t++) {
                float weight;
                int64_t at = mo_sample_tap(d, axes, t, -1, &weight);
                if (at >= 0)
                    w->dx[u * w->n_pixels + at] += weight * w->dy[u * d->n_places + p];
            }
        }
}

static void sample_places_grad(void *arg, int64_t begin, int64_t end)
{
    const struct sample_work *w = arg;
    const struct mo_sample_desc *d = w->d;
    for (int64_t u = begin; u < end; u++) {
        int64_t b = u / d->n_places, p = u % d->n_places;
        struct mo_sample_axis axes[3];
        int n_taps = mo_sample_place(d, w->coordinates + u * d->n_axes, axes);
        for (int axis = 0; axis < d->n_axes; axis++) {
            float sum = 0;
            for (int64_t c = b * d->channels; c < (b + 1) * d->channels; c++)
                for (int t = 0; t < n_taps; t++) {
                    float slope;
                    int64_t at = mo_sample_tap(d, axes, t, axis, &slope);
                    sum += at < 0 ? 0 : slope * w->x[c * w->n_pixels + at] * w->dy[c * d->n_places + p];
                }
            w->dcoordinates[u * d->n_axes + d->n_axes - 1 - axis] = sum;
        }
    }
}

void mo_ref_sample_grad(struct mo_device *dev, const struct mo_sample_desc *d, const float *x, const float *coordinates,
                        const float *dy, float *dx, float *dcoordinates)
{
    struct sample_work w = { .d = d, .x = x, .coordinates = coordinates, .dy = dy, .dx = dx, .dcoordinates = dcoordinates,
                             .n_pixels = pixels_of(d) };
    if (dx)
        mo_split(dev, d->batch * d->channels, mo_split_grain(d->n_places * 32), sample_pixels_grad, &w);
    if (dcoordinates)
        mo_split(dev, d->batch * d->n_places, mo_split_grain(d->channels * 32), sample_places_grad, &w);
}
