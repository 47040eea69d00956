/* Plain C pooling, channels-last, rank 1 to 3. */
#include <string.h>

#include "kernels/cpu/cpu.h"

struct window {
    int64_t begin[3];           /* may lie in the padding */
    int64_t n_inside;           /* taps inside the picture */
    int64_t n_counted;          /* taps inside the picture or its padding: what AveragePool with count_include_pad counts */
};

static void split3(int64_t flat, const int64_t dims[3], int64_t at[3])
{
    at[2] = flat % dims[2];
    at[1] = flat / dims[2] % dims[1];
    at[0] = flat / dims[2] / dims[1];
}

static struct window window_of(const struct mo_pool_desc *d, int64_t out)
{
    struct window w = { { 0 }, 1, 1 };
    int64_t at[3];
    split3(out, d->out, at);
    for (int i = 0; i < 3; i++) {
        int64_t n_inside = 0, n_counted = 0;
        w.begin[i] = at[i] * d->stride[i] - d->pad_begin[i];
        for (int64_t k = 0; k < d->kernel[i]; k++) {
            int64_t p = w.begin[i] + k * d->dilation[i];
            n_inside += p >= 0 && p < d->in[i];
            n_counted += p < d->in[i] + d->pad_end[i];
        }
        w.n_inside *= n_inside;
        w.n_counted *= n_counted;
    }
    return w;
}

/* The picture's pixel under tap k; false: in the padding. */
static bool tap_pixel(const struct mo_pool_desc *d, const struct window *w, int64_t k, int64_t *pixel)
{
    int64_t at[3], flat = 0;
    split3(k, d->kernel, at);
    for (int i = 0; i < 3; i++) {
        int64_t p = w->begin[i] + at[i] * d->dilation[i];
        if (p < 0 || p >= d->in[i])
            return false;
        flat = flat * d->in[i] + p;
    }
    *pixel = flat;
    return true;
}

static float divisor(const struct mo_pool_desc *d, const struct window *w)
{
    int64_t n = d->kind == MO_POOL_AVERAGE ? w->n_inside : w->n_counted;
    return n > 0 ? 1.0f / (float)n : 0;
}

static void pool_max(const struct mo_pool_desc *d, const struct window *w, const float *x, float *y, uint8_t *where)
{
    int64_t n_taps = d->kernel[0] * d->kernel[1] * d->kernel[2], pixel;
    for (int64_t c = 0; c < d->channels; c++) {
        float best = -__builtin_inff();
        int64_t best_tap = -1;
        for (int64_t k = 0; k < n_taps; k++)
            if (tap_pixel(d, w, k, &pixel)) {
                float v = x[pixel * d->channels + c];
                if (best_tap < 0 || v > best || v != v)
                    best = v, best_tap = k;
                if (v != v)
                    break;
            }
        y[c] = best;
        if (where)
            where[c] = (uint8_t)(best_tap < 0 ? 0 : best_tap);
    }
}

void mo_ref_pool(struct mo_device *dev, const struct mo_pool_desc *d, const float *x, float *y, uint8_t *where)
{
    (void)dev;
    int64_t n_out = d->out[0] * d->out[1] * d->out[2], n_in = d->in[0] * d->in[1] * d->in[2];
    int64_t n_taps = d->kernel[0] * d->kernel[1] * d->kernel[2], pixel;
    for (int64_t p = 0; p < d->batch * n_out; p++) {
        struct window w = window_of(d, p % n_out);
        const float *image = x + p / n_out * n_in * d->channels;
        if (d->kind == MO_POOL_MAX) {
            pool_max(d, &w, image, y + p * d->channels, where ? where + p * d->channels : NULL);
            continue;
        }
        for (int64_t c = 0; c < d->channels; c++) {
            double sum = 0;
            for (int64_t k = 0; k < n_taps; k++)
                if (tap_pixel(d, &w, k, &pixel))
                    sum += image[pixel * d->channels + c];
            y[p * d->channels + c] = (float)(sum * divisor(d, &w));
        }
    }
}

void mo_ref_pool_grad(struct mo_device *dev, const struct mo_pool_desc *d, const float *dy, const uint8_t *where,
                      float *dx, bool add)
{
    (void)dev;
    int64_t n_out = d->out[0] * d->out[1] * d->out[2], n_in = d->in[0] * d->in[1] * d->in[2];
    int64_t n_taps = d->kernel[0] * d->kernel[1] * d->kernel[2], pixel;
    if (!add)
        memset(dx, 0, (size_t)(d->batch * n_in * d->channels) * sizeof *dx);
    for (int64_t p = 0; p < d->batch * n_out; p++) {
        struct window w = window_of(d, p % n_out);
        float *image = dx + p / n_out * n_in * d->channels;
        for (int64_t k = 0; k < n_taps; k++) {
            if (!tap_pixel(d, &w, k, &pixel))
                continue;
            for (int64_t c = 0; c < d->channels; c++) {
                float g = dy[p * d->channels + c];
                if (d->kind != MO_POOL_MAX)
                    image[pixel * d->channels + c] += g * divisor(d, &w);
                else if (where[p * d->channels + c] == k)
                    image[pixel * d->channels + c] += g;
            }
        }
    }
}
