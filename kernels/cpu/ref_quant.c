/* ref_quant.c - quantization and integer products: plain C.
 *
 * Rounding is to nearest, ties to even. A float of magnitude below 2^22 is
 * rounded so by adding and taking away 1.5 * 2^23, which vectorizes everywhere;
 * values are held to the type's range (and a little more) first. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/split.h"

#include <math.h>
#include <string.h>

#define ROUNDER 12582912.0f     /* 1.5 * 2^23 */

/* ---- integer product ---- */

struct product_work {
    int64_t n, k;
    const void *a, *b;
    bool a_signed, b_signed, per_column;
    int32_t za;
    const int32_t *zb;
    int32_t *c;
};

#define ADD_ROW(T)                                                                                              \
    {                                                                                                           \
        const T *b = (const T *)w->b + p * w->n;                                                                \
        if (w->per_column)                                                                                      \
            for (int64_t j = 0; j < w->n; j++)                                                                  \
                c[j] += a * (b[j] - w->zb[j]);                                                                  \
        else                                                                                                    \
            for (int64_t j = 0; j < w->n; j++)                                                                  \
                c[j] += a * (b[j] - zb);                                                                        \
    }

static void product_rows(void *arg, int64_t begin, int64_t end)
{
    const struct product_work *w = arg;
    int32_t zb = w->zb ? w->zb[0] : 0;
    for (int64_t i = begin; i < end; i++) {
        int32_t *c = w->c + i * w->n;
        memset(c, 0, (size_t)w->n * sizeof *c);
        for (int64_t p = 0; p < w->k; p++) {
            int32_t a = w->a_signed ? ((const int8_t *)w->a)[i * w->k + p] : ((const uint8_t *)w->a)[i * w->k + p];
            a -= w->za;
            if (a == 0)
                continue;
            if (w->b_signed)
                ADD_ROW(int8_t)
            else
                ADD_ROW(uint8_t)
        }
    }
}

void mo_ref_gemm_int8(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const void *a, bool a_signed, int32_t za,
                      const void *b, bool b_signed, const int32_t *zb, bool zb_per_column, int32_t *c)
{
    struct product_work w = { n, k, a, b, a_signed, b_signed, zb_per_column, za, zb, c };
    mo_split(dev, m, mo_split_grain(n * k), product_rows, &w);
}

/* ---- integer convolution ---- */

struct conv_work {
    const struct mo_conv_desc *d;
    const void *x, *w;
    bool x_signed, w_signed, per_channel;
    int32_t zx;
    const int32_t *zw;
    int32_t *y;
};

static int32_t byte_at(const void *bytes, bool is_signed, int64_t i)
{
    return is_signed ? ((const int8_t *)bytes)[i] : ((const uint8_t *)bytes)[i];
}

static int64_t product3(const int64_t *v)
{
    return v[0] * v[1] * v[2];
}

/* Adds one tap of the kernel to all output channels of a pixel. */
static void add_tap(const struct conv_work *w, int64_t x_at, int64_t tap, int32_t *y)
{
    const struct mo_conv_desc *d = w->d;
    int64_t in = d->in_channels / d->groups, out = d->out_channels / d->groups, n_taps = product3(d->kernel);
    for (int64_t o = 0; o < d->out_channels; o++) {
        int32_t zw = w->zw ? w->zw[w->per_channel ? o : 0] : 0, sum = 0;
        for (int64_t c = 0; c < in; c++)
            sum += (byte_at(w->x, w->x_signed, x_at + o / out * in + c) - w->zx) *
                   (byte_at(w->w, w->w_signed, (o * in + c) * n_taps + tap) - zw);
        y[o] += sum;
    }
}

/* Units: output pixels. Padding has the value zx, so taps outside add nothing. */
static void conv_pixels(void *arg, int64_t begin, int64_t end)
{
    const struct conv_work *w = arg;
    const struct mo_conv_desc *d = w->d;
    int64_t n_out = product3(d->out), n_in = product3(d->in), n_taps = product3(d->kernel);
    for (int64_t u = begin; u < end; u++) {
        int32_t *y = w->y + u * d->out_channels;
        memset(y, 0, (size_t)d->out_channels * sizeof *y);
        for (int64_t tap = 0; tap < n_taps; tap++) {
            int64_t at = 0, o = u % n_out, k = tap;
            int64_t o_at[3] = { o / d->out[2] / d->out[1], o / d->out[2] % d->out[1], o % d->out[2] };
            int64_t k_at[3] = { k / d->kernel[2] / d->kernel[1], k / d->kernel[2] % d->kernel[1], k % d->kernel[2] };
            bool is_inside = true;
            for (int i = 0; i < 3; i++) {
                int64_t p = o_at[i] * d->stride[i] - d->pad_begin[i] + k_at[i] * d->dilation[i];
                is_inside = is_inside && p >= 0 && p < d->in[i];
                at = at * d->in[i] + p;
            }
            if (is_inside)
                add_tap(w, (u / n_out * n_in + at) * d->in_channels, tap, y);
        }
    }
}

void mo_ref_conv_int8(struct mo_device *dev, const struct mo_conv_desc *desc, const void *x, bool x_signed, int32_t zx,
                      const void *w, bool w_signed, const int32_t *zw, bool zw_per_channel, int32_t *y)
{
    struct conv_work work = { desc, x, w, x_signed, w_signed, zw_per_channel, zx, zw, y };
    int64_t steps = product3(desc->kernel) * desc->out_channels * (desc->in_channels / desc->groups);
    mo_split(dev, desc->batch * product3(desc->out), mo_split_grain(steps), conv_pixels, &work);
}

/* ---- quantize, dequantize ---- */

static bool range_of(int dtype, float *low, float *high)
{
    switch (dtype) {
    case 2: *low = 0, *high = 255; return true;
    case 3: *low = -128, *high = 127; return true;
    case 4: *low = 0, *high = 65535; return true;
    case 5: *low = -32768, *high = 32767; return true;
    case 21: *low = 0, *high = 15; return true;
    case 22: *low = -8, *high = 7; return true;
    case 25: *low = 0, *high = 3; return true;
    case 26: *low = -2, *high = 1; return true;
    default: return false;
    }
}

struct quant_work {
    int dtype;
    int64_t channels, inner;
    float low, high;
    const float *scale;
    const int32_t *zero;
    const float *x;         /* of quantize */
    const void *q;          /* of dequantize */
    void *y;
    const float *dy;
    float *dx;
    bool add;
};

#define QUANTIZE(T)                                                                                             \
    {                                                                                                           \
        T *y = (T *)w->y + at;                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                       \
            float v = x[i] / scale;                                                                             \
            v = v > floor_ ? v : floor_;                                                                        \
            v = v < ceil_ ? v : ceil_;                                                                          \
            y[i] = (T)(int32_t)((v + ROUNDER) - ROUNDER + zero);                                                \
        }                                                                                                       \
        break;                                                                                                  \
    }

/* One channel's run of n elements. (round(v) + zero held to low..high) is (round(v held to low - zero .. high - zero) +
 * zero), all of it exact. NaN becomes the lowest value. */
static void quantize_run(const struct quant_work *w, int64_t channel, int64_t at, int64_t n)
{
    float scale = w->scale[channel], zero = w->zero ? (float)w->zero[channel] : 0;
    float floor_ = w->low - zero, ceil_ = w->high - zero;
    const float *x = w->x + at;
    switch (w->dtype) {
    case 3: case 22: case 26: QUANTIZE(int8_t)
    case 4: QUANTIZE(uint16_t)
    case 5: QUANTIZE(int16_t)
    default: QUANTIZE(uint8_t)
    }
}

#define DEQUANTIZE(T)                                                                                           \
    {                                                                                                           \
        const T *q = (const T *)w->q + at;                                                                      \
        for (int64_t i = 0; i < n; i++)                                                                         \
            y[i] = (float)((int32_t)q[i] - zero) * scale;                                                       \
        break;                                                                                                  \
    }

static void dequantize_run(const struct quant_work *w, int64_t channel, int64_t at, int64_t n)
{
    float scale = w->scale[channel], *y = (float *)w->y + at;
    int32_t zero = w->zero ? w->zero[channel] : 0;
    switch (w->dtype) {
    case 2: case 21: case 25: DEQUANTIZE(uint8_t)
    case 4: DEQUANTIZE(uint16_t)
    case 5: DEQUANTIZE(int16_t)
    case 6:     /* the difference may leave 32 bits */
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)((int64_t)((const int32_t *)w->q)[at + i] - zero) * scale;
        break;
    default: DEQUANTIZE(int8_t)
    }
}

static void gradient_run(const struct quant_work *w, int64_t channel, int64_t at, int64_t n)
{
    float scale = w->scale[channel], zero = w->zero ? (float)w->zero[channel] : 0;
    float low = (w->low - zero) * scale, high = (w->high - zero) * scale;
    const float *x = w->x + at, *dy = w->dy + at;
    float *dx = w->dx + at;
    if (w->add)
        for (int64_t i = 0; i < n; i++)
            dx[i] += x[i] >= low && x[i] <= high ? dy[i] : 0;
    else
        for (int64_t i = 0; i < n; i++)
            dx[i] = x[i] >= low && x[i] <= high ? dy[i] : 0;
}

/* Runs of one channel are `inner` long, one after the other; short ones are taken many at a time. */
typedef void run_fn(const struct quant_work *w, int64_t channel, int64_t at, int64_t n);
static inline void each_run(const struct quant_work *w, run_fn *fn, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end;) {
        int64_t run = i / w->inner, stop = (run + 1) * w->inner;
        stop = stop < end ? stop : end;
        fn(w, run % w->channels, i, stop - i);
        i = stop;
    }
}

static void quantize_elems(void *arg, int64_t begin, int64_t end)
{
    each_run(arg, quantize_run, begin, end);
}
static void dequantize_elems(void *arg, int64_t begin, int64_t end)
{
    each_run(arg, dequantize_run, begin, end);
}
static void gradient_elems(void *arg, int64_t begin, int64_t end)
{
    each_run(arg, gradient_run, begin, end);
}

/* Per tensor everything is one run. */
static void split_runs(struct mo_device *dev, struct quant_work *w, int64_t outer, int64_t channels, int64_t inner,
                       mo_split_fn *fn)
{
    int64_t n = outer * channels * inner;
    w->channels = channels;
    w->inner = channels == 1 ? n : inner;
    if (n > 0)
        mo_split(dev, n, mo_split_grain(w->inner < 8 ? 4 : 1), fn, w);
}

void mo_ref_quantize(struct mo_device *dev, int dtype, int64_t outer, int64_t channels, int64_t inner, const float *x,
                     const float *scale, const int32_t *zero, void *y)
{
    struct quant_work w = { .dtype = dtype, .scale = scale, .zero = zero, .x = x, .y = y };
    if (range_of(dtype, &w.low, &w.high))
        split_runs(dev, &w, outer, channels, inner, quantize_elems);
    else
        mo_device_latch(dev, "quantize: no kernel for element type %d", dtype);
}

void mo_ref_dequantize(struct mo_device *dev, int dtype, int64_t outer, int64_t channels, int64_t inner, const void *x,
                       const float *scale, const int32_t *zero, float *y)
{
    struct quant_work w = { .dtype = dtype, .scale = scale, .zero = zero, .q = x, .y = y };
    if (dtype == 6 || range_of(dtype, &w.low, &w.high))
        split_runs(dev, &w, outer, channels, inner, dequantize_elems);
    else
        mo_device_latch(dev, "dequantize: no kernel for element type %d", dtype);
}

void mo_ref_quantize_grad(struct mo_device *dev, int dtype, int64_t outer, int64_t channels, int64_t inner,
                          const float *x, const float *scale, const int32_t *zero, const float *dy, float *dx, bool add)
{
    struct quant_work w = { .dtype = dtype, .scale = scale, .zero = zero, .x = x, .dy = dy, .dx = dx, .add = add };
    if (range_of(dtype, &w.low, &w.high))
        split_runs(dev, &w, outer, channels, inner, gradient_elems);
    else
        mo_device_latch(dev, "quantize_grad: no kernel for element type %d", dtype);
}

/* ---- observers ---- */

void mo_ref_range(struct mo_device *dev, size_t n, const float *x, float *range, uint64_t *n_nan)
{
    (void)dev;
    float low = range[0], high = range[1];
    uint64_t nan = 0;
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        low = v < low ? v : low;
        high = v > high ? v : high;
        nan += v != v;
    }
    range[0] = low, range[1] = high;
    *n_nan += nan;
}

void mo_ref_histogram(struct mo_device *dev, size_t n, const float *x, float low, float width, size_t n_bins,
                      uint64_t *counts)
{
    (void)dev;
    float last = (float)(n_bins - 1);
    for (size_t i = 0; i < n; i++) {
        float at = floorf((x[i] - low) / width);
        at = at > 0 ? at : 0;       /* NaN counts as low */
        counts[(size_t)(at < last ? at : last)]++;
    }
}
