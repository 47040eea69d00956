/* ref_qfirst.c - the first layer of a quantized network in plain C. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/split.h"

struct work {
    const struct mo_qfirst_desc *d;
    const float *x, *w, *bias;
    uint8_t *y;
};

/* Output channel o of the convolution at one pixel. */
static float convolved(const struct work *k, int64_t image, int64_t line, int64_t column, int64_t o)
{
    const struct mo_conv_desc *c = &k->d->conv;
    float sum = 0;
    for (int64_t i = 0; i < c->kernel[0]; i++)
        for (int64_t j = 0; j < c->kernel[1]; j++) {
            int64_t y = line * c->stride[0] - c->pad_begin[0] + i * c->dilation[0];
            int64_t x = column * c->stride[1] - c->pad_begin[1] + j * c->dilation[1];
            if (y < 0 || y >= c->in[0] || x < 0 || x >= c->in[1])
                continue;
            const float *pixel = k->x + ((image * c->in[0] + y) * c->in[1] + x) * c->in_channels;
            const float *w = k->w + o * c->in_channels * c->kernel[0] * c->kernel[1] + i * c->kernel[1] + j;
            for (int64_t m = 0; m < c->in_channels; m++)
                sum += pixel[m] * w[m * c->kernel[0] * c->kernel[1]];
        }
    return sum;
}

static uint8_t rounded(const struct mo_qfirst_desc *d, float v)
{
    float low = (float)(d->y_low - d->y_zero), high = (float)(d->y_high - d->y_zero);
    v = v / d->scale;
    v = v > low ? v : low;
    v = v < high ? v : high;
    return (uint8_t)((int32_t)nearbyintf(v) + d->y_zero);
}

static void pixels(void *arg, int64_t begin, int64_t end)
{
    const struct work *k = arg;
    const struct mo_qfirst_desc *d = k->d;
    for (int64_t p = begin; p < end; p++) {
        int64_t image = p / (d->pooled[0] * d->pooled[1]), line = p / d->pooled[1] % d->pooled[0], column = p % d->pooled[1];
        for (int64_t o = 0; o < d->conv.out_channels; o++) {
            float most = -INFINITY;
            for (int64_t i = 0; i < d->pool[0]; i++)
                for (int64_t j = 0; j < d->pool[1]; j++)
                    most = fmaxf(most, convolved(k, image, line * d->pool_stride[0] + i, column * d->pool_stride[1] + j, o));
            k->y[p * d->conv.out_channels + o] = rounded(d, most + (k->bias ? k->bias[o] : 0));
        }
    }
}

void mo_ref_qfirst(struct mo_device *dev, const struct mo_qfirst_desc *d, const float *x, const float *w, const float *bias,
                   uint8_t *y)
{
    const struct mo_conv_desc *c = &d->conv;
    int64_t steps = c->out_channels * d->pool[0] * d->pool[1] * c->kernel[0] * c->kernel[1] * c->in_channels;
    mo_split(dev, c->batch * d->pooled[0] * d->pooled[1], mo_split_grain(steps), pixels, &(struct work){ d, x, w, bias, y });
}
