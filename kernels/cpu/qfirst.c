/* qfirst.c - the first layer of a quantized network on the loops of qconv.h: a pooled line at a time, its lines of the
 * picture copied with their padding; the result of the convolution is never in memory. */
#include <string.h>

#include "kernels/cpu/fast.h"
#include "kernels/cpu/qconv.h"
#include "kernels/cpu/split.h"

#define MAX_FLOATS 8192         /* of the lines of one pooled line */
#define MAX_TAPS 256

struct work {
    const struct mo_qloops *loops;
    const struct mo_qfirst_desc *d;
    struct mo_qfirst first;
    int64_t pitch, lines;       /* floats of a padded line; lines that a pooled line sees */
    const float *x;
    uint8_t *y;
};

static void copy_line(const struct work *k, const float *picture, int64_t line, float *to)
{
    const struct mo_conv_desc *c = &k->d->conv;
    int64_t left = c->pad_begin[1] * c->in_channels, n = c->in[1] * c->in_channels;
    n = n < k->pitch - left ? n : k->pitch - left;
    memset(to, 0, (size_t)k->pitch * sizeof *to);
    if (line >= 0 && line < c->in[0] && n > 0)
        memcpy(to + left, picture + line * c->in[1] * c->in_channels, (size_t)n * sizeof *to);
}

static void pooled_lines(void *arg, int64_t begin, int64_t end)
{
    const struct work *k = arg;
    const struct mo_qfirst_desc *d = k->d;
    const struct mo_conv_desc *c = &d->conv;
    float lines[MAX_FLOATS];
    for (int64_t u = begin; u < end; u++) {
        const float *picture = k->x + u / d->pooled[0] * c->in[0] * c->in[1] * c->in_channels;
        int64_t top = u % d->pooled[0] * d->pool_stride[0] * c->stride[0] - c->pad_begin[0];
        for (int64_t i = 0; i < k->lines; i++)
            copy_line(k, picture, top + i, lines + i * k->pitch);
        k->loops->first(&k->first, lines, (int)d->pooled[1], k->y + u * d->pooled[1] * c->out_channels);
    }
}

/* Weights by taps, output channels side by side; what follows the last one is 0. */
static void pack(const struct mo_conv_desc *c, const float *w, const float *bias, int64_t width, float *to)
{
    int64_t area = c->kernel[0] * c->kernel[1], taps = area * c->in_channels;
    memset(to, 0, (size_t)((taps + 1) * width) * sizeof *to);
    for (int64_t o = 0; o < c->out_channels; o++) {
        for (int64_t m = 0; m < c->in_channels; m++)
            for (int64_t t = 0; t < area; t++)
                to[(t * c->in_channels + m) * width + o] = w[(o * c->in_channels + m) * area + t];
        to[taps * width + o] = bias ? bias[o] : 0;
    }
}

static void find_taps(const struct work *k, int32_t *tap)
{
    const struct mo_conv_desc *c = &k->d->conv;
    int n = 0;
    for (int64_t i = 0; i < c->kernel[0]; i++)
        for (int64_t j = 0; j < c->kernel[1]; j++)
            for (int64_t m = 0; m < c->in_channels; m++)
                tap[n++] = (int32_t)(i * c->dilation[0] * k->pitch + j * c->dilation[1] * c->in_channels + m);
}

static void find_windows(const struct work *k, int32_t *at)
{
    const struct mo_qfirst_desc *d = k->d;
    int n = 0;
    for (int64_t i = 0; i < d->pool[0]; i++)
        for (int64_t j = 0; j < d->pool[1]; j++)
            at[n++] = (int32_t)(i * d->conv.stride[0] * k->pitch + j * d->conv.stride[1] * d->conv.in_channels);
}

void mo_cpu_qfirst(struct mo_device *dev, const struct mo_qfirst_desc *d, const float *x, const float *w, const float *bias,
                   uint8_t *y)
{
    const struct mo_conv_desc *c = &d->conv;
    int32_t tap[MAX_TAPS], window[MAX_TAPS];
    int64_t taps = c->kernel[0] * c->kernel[1] * c->in_channels, width = (c->out_channels + 31) / 32 * 32;
    struct work k = { .loops = dev->qloops, .d = d, .x = x, .y = y };
    k.lines = ((d->pool[0] - 1) * c->stride[0]) + (c->kernel[0] - 1) * c->dilation[0] + 1;
    k.pitch = (((d->pooled[1] - 1) * d->pool_stride[1] + d->pool[1] - 1) * c->stride[1] +
               (c->kernel[1] - 1) * c->dilation[1] + 1) *
              c->in_channels;
    if (!dev->qloops || c->n_spatial != 2 || taps > MAX_TAPS || d->pool[0] * d->pool[1] > MAX_TAPS ||
        k.lines * k.pitch > MAX_FLOATS || (size_t)((taps + 1) * width) * sizeof(float) > MO_WORKSPACE_BYTES) {
        mo_ref_qfirst(dev, d, x, w, bias, y);
        return;
    }
    float *packed = dev->workspace;
    pack(c, w, bias, width, packed);
    find_taps(&k, tap);
    find_windows(&k, window);
    k.first = (struct mo_qfirst){
        .tap = tap,
        .n_taps = (int)taps,
        .window = window,
        .n_windows = (int)(d->pool[0] * d->pool[1]),
        .step = d->pool_stride[1] * c->stride[1] * c->in_channels,
        .w = packed,
        .width = width,
        .n_channels = (int)c->out_channels,
        .scale = d->scale,
        .low = (float)(d->y_low - d->y_zero),
        .high = (float)(d->y_high - d->y_zero),
        .zero = d->y_zero,
    };
    int64_t steps = d->pooled[1] * k.first.n_windows * taps * width / 16;
    mo_split(dev, c->batch * d->pooled[0], mo_split_grain(steps), pooled_lines, &k);
}
