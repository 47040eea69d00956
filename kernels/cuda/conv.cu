/* conv.cu - convolution and its gradients, channels-last, rank 1 to 3, groups,
 * dilation, asymmetric pads, with weights as ONNX stores them.
 *
 * Dense ones are matrix products: the inputs under each output pixel are laid out as a
 * row of `columns` (in the order of the weights, O | I/g kD kH kW), some images at a
 * time so that the scratch stays bounded:
 *     y = columns W',   dW = dy' columns,   dcolumns = dy W, gathered back into dx.
 * A 1x1 convolution of stride 1 needs no columns, x is them. Where a group has only
 * few channels (depthwise) a product would be too thin, and one thread makes one
 * result. All sums have a fixed order. */
#include "kernels/cuda/device.cuh"

#include <stdlib.h>

#include "kernels/cuda/window.cuh"

enum { FEW_CHANNELS = 8 };
static const int64_t most_column_bytes = (int64_t)64 << 20;

struct mo_conv {
    struct mo_conv_desc d;
    struct mo_window w;
    int64_t ic, oc;             /* channels of a group */
    int64_t row;                /* ic * taps: one row of columns */
    int64_t images;             /* at a time */
    bool is_direct;             /* thin groups: no product */
    bool is_pointwise;          /* x is the columns */
};

static bool is_pointwise(const struct mo_conv_desc *d)
{
    for (int i = 0; i < 3; i++)
        if (d->kernel[i] != 1 || d->stride[i] != 1 || d->pad_begin[i] != 0 || d->pad_end[i] != 0)
            return false;
    return true;
}

struct mo_conv *mo_cuda_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc)
{
    (void)dev;
    struct mo_conv *c = (struct mo_conv *)calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->d = *desc;
    c->w = mo_window_of(desc);
    c->ic = desc->in_channels / desc->groups;
    c->oc = desc->out_channels / desc->groups;
    c->row = c->ic * c->w.n_taps;
    c->is_direct = desc->groups > 1 && (c->ic < FEW_CHANNELS || c->oc < FEW_CHANNELS);
    c->is_pointwise = is_pointwise(desc);
    int64_t bytes = c->w.n_out * c->row * (int64_t)sizeof(float);
    c->images = bytes > 0 ? most_column_bytes / bytes : 1;
    c->images = c->images < 1 ? 1 : c->images > desc->batch ? desc->batch : c->images;
    return c;
}

void mo_cuda_conv_free(struct mo_device *dev, struct mo_conv *conv)
{
    (void)dev;
    free(conv);
}

const struct mo_conv_desc *mo_cuda_conv_desc(const struct mo_conv *c)
{
    return &c->d;
}

size_t mo_cuda_conv_scratch_bytes(const struct mo_conv *c, bool backward)
{
    (void)backward;
    return c->is_direct || c->is_pointwise ? 0 : (size_t)(c->images * c->w.n_out * c->row) * sizeof(float);
}

/* The products read the weights as ONNX stores them. */
void mo_cuda_conv_pack(struct mo_device *dev, struct mo_conv *conv, const float *w)
{
    (void)dev, (void)conv, (void)w;
}

/* ---- columns -------------------------------------------------------------------------------------- */

/* columns[pixel, c * taps + k] = x of group g under tap k of each output pixel of n images; 0 in the padding */
static void to_columns(struct mo_device *dev, const struct mo_conv *c, int64_t n, const float *x, float *columns)
{
    struct mo_window w = c->w;
    int64_t row = c->row, channels = c->d.in_channels;
    mo_each(dev, n * w.n_out * row, [=] __device__(int64_t u) {
        int64_t p = u / row, tap = u % row % w.n_taps, channel = u % row / w.n_taps;
        int64_t pixel = mo_tap_input(w, p % w.n_out, tap);
        columns[u] = pixel < 0 ? 0 : x[(p / w.n_out * w.n_in + pixel) * channels + channel];
    });
}

/* dx[pixel, c] = sum over taps of dcolumns of the output pixel whose tap lies here, in the order of the taps */
static void from_columns(struct mo_device *dev, const struct mo_conv *c, int64_t n, const float *columns, float *dx)
{
    struct mo_window w = c->w;
    int64_t row = c->row, channels = c->d.in_channels, ic = c->ic;
    mo_each(dev, n * w.n_in * ic, [=] __device__(int64_t u) {
        int64_t channel = u % ic, p = u / ic;
        float sum = 0;
        for (int64_t tap = 0; tap < w.n_taps; tap++) {
            int64_t out = mo_tap_output(w, p % w.n_in, tap);
            if (out >= 0)
                sum += columns[(p / w.n_in * w.n_out + out) * row + channel * w.n_taps + tap];
        }
        dx[p * channels + channel] = sum;
    });
}

/* ---- forward ---------------------------------------------------------------------------------------- */

static void finish(struct mo_device *dev, const struct mo_conv *c, const float *bias, const float *residual, float *y)
{
    struct mo_conv_desc d = c->d;
    if (!bias && !residual && d.act == MO_ACT_NONE)
        return;
    mo_each(dev, d.batch * c->w.n_out * d.out_channels, [=] __device__(int64_t i) {
        float v = y[i] + (bias ? bias[i % d.out_channels] : 0) + (residual ? residual[i] : 0);
        y[i] = mo_act_of(d.act, d.act_lo, d.act_hi, v);
    });
}

static void direct(struct mo_device *dev, const struct mo_conv *c, const float *x, const float *weight,
                   const float *bias, const float *residual, float *y)
{
    struct mo_conv_desc d = c->d;
    struct mo_window w = c->w;
    int64_t ic = c->ic, oc = c->oc;
    mo_each(dev, d.batch * w.n_out * d.out_channels, [=] __device__(int64_t u) {
        int64_t o = u % d.out_channels, p = u / d.out_channels;
        float sum = 0;
        for (int64_t tap = 0; tap < w.n_taps; tap++) {
            int64_t pixel = mo_tap_input(w, p % w.n_out, tap);
            if (pixel < 0)
                continue;
            const float *from = x + (p / w.n_out * w.n_in + pixel) * d.in_channels + o / oc * ic;
            for (int64_t k = 0; k < ic; k++)
                sum += from[k] * weight[(o * ic + k) * w.n_taps + tap];
        }
        float v = sum + (bias ? bias[o] : 0) + (residual ? residual[u] : 0);
        y[u] = mo_act_of(d.act, d.act_lo, d.act_hi, v);
    });
}

void mo_cuda_conv(struct mo_device *dev, struct mo_conv *c, const float *x, const float *w, const float *bias,
                  const float *residual, float *y, void *scratch)
{
    if (c->is_direct) {
        direct(dev, c, x, w, bias, residual, y);
        return;
    }
    int64_t n_in = c->w.n_in * c->d.in_channels, n_out = c->w.n_out * c->d.out_channels;
    bool is_in_place = residual == y;       /* then the product adds to it */
    for (int64_t i = 0; i < c->d.batch; i += c->images)
        for (int64_t g = 0; g < c->d.groups; g++) {
            int64_t n = c->d.batch - i < c->images ? c->d.batch - i : c->images;
            const float *from = x + i * n_in + g * c->ic;
            if (!c->is_pointwise)
                to_columns(dev, c, n, from, (float *)scratch);
            mo_cuda_gemm(dev, false, true, n * c->w.n_out, c->oc, c->row, 1,
                         c->is_pointwise ? from : (const float *)scratch, c->is_pointwise ? c->d.in_channels : c->row,
                         w + g * c->oc * c->row, c->row, is_in_place ? 1 : 0, y + i * n_out + g * c->oc,
                         c->d.out_channels, NULL);
        }
    finish(dev, c, bias, is_in_place ? NULL : residual, y);
}

/* ---- gradient of the input ------------------------------------------------------------------------------ */

static void direct_grad_input(struct mo_device *dev, const struct mo_conv *c, const float *weight, const float *dy,
                              float *dx)
{
    struct mo_conv_desc d = c->d;
    struct mo_window w = c->w;
    int64_t ic = c->ic, oc = c->oc;
    mo_each(dev, d.batch * w.n_in * d.in_channels, [=] __device__(int64_t u) {
        int64_t channel = u % d.in_channels, p = u / d.in_channels, g = channel / ic;
        float sum = 0;
        for (int64_t tap = 0; tap < w.n_taps; tap++) {
            int64_t out = mo_tap_output(w, p % w.n_in, tap);
            if (out < 0)
                continue;
            const float *from = dy + (p / w.n_in * w.n_out + out) * d.out_channels + g * oc;
            for (int64_t o = 0; o < oc; o++)
                sum += from[o] * weight[((g * oc + o) * ic + channel % ic) * w.n_taps + tap];
        }
        dx[u] = sum;
    });
}

void mo_cuda_conv_grad_input(struct mo_device *dev, struct mo_conv *c, const float *w, const float *dy, float *dx,
                             void *scratch)
{
    if (c->is_direct) {
        direct_grad_input(dev, c, w, dy, dx);
        return;
    }
    int64_t n_in = c->w.n_in * c->d.in_channels, n_out = c->w.n_out * c->d.out_channels;
    for (int64_t i = 0; i < c->d.batch; i += c->images)
        for (int64_t g = 0; g < c->d.groups; g++) {
            int64_t n = c->d.batch - i < c->images ? c->d.batch - i : c->images;
            float *to = dx + i * n_in + g * c->ic, *columns = c->is_pointwise ? to : (float *)scratch;
            mo_cuda_gemm(dev, false, false, n * c->w.n_out, c->row, c->oc, 1, dy + i * n_out + g * c->oc,
                         c->d.out_channels, w + g * c->oc * c->row, c->row, 0, columns,
                         c->is_pointwise ? c->d.in_channels : c->row, NULL);
            if (!c->is_pointwise)
                from_columns(dev, c, n, columns, to);
        }
}

/* ---- gradient of the weights ------------------------------------------------------------------------------ */

static void direct_grad_weight(struct mo_device *dev, const struct mo_conv *c, const float *x, const float *dy, float *dw)
{
    struct mo_conv_desc d = c->d;
    struct mo_window w = c->w;
    int64_t ic = c->ic, oc = c->oc;
    mo_fold(dev, d.out_channels * ic * w.n_taps, d.batch * w.n_out, false, 0.0,
            [=] __device__(int64_t at, int64_t p) {
                int64_t tap = at % w.n_taps, channel = at / w.n_taps % ic, o = at / w.n_taps / ic;
                int64_t pixel = mo_tap_input(w, p % w.n_out, tap);
                if (pixel < 0)
                    return 0.0;
                return (double)dy[p * d.out_channels + o] *
                       x[(p / w.n_out * w.n_in + pixel) * d.in_channels + o / oc * ic + channel];
            },
            mo_sum(), [=] __device__(int64_t at, double sum) { dw[at] = (float)sum; });
}

static void grad_bias(struct mo_device *dev, const struct mo_conv *c, const float *dy, float *dbias)
{
    int64_t channels = c->d.out_channels;
    mo_fold(dev, channels, c->d.batch * c->w.n_out, true, 0.0,
            [=] __device__(int64_t o, int64_t p) { return (double)dy[p * channels + o]; }, mo_sum(),
            [=] __device__(int64_t o, double sum) { dbias[o] = (float)sum; });
}

static void zero(struct mo_device *dev, int64_t n, float *x)
{
    mo_each(dev, n, [=] __device__(int64_t i) { x[i] = 0; });
}

void mo_cuda_conv_grad_weight(struct mo_device *dev, struct mo_conv *c, const float *x, const float *dy, float *dw,
                              float *dbias, void *scratch)
{
    if (dbias)
        grad_bias(dev, c, dy, dbias);
    if (c->is_direct) {
        direct_grad_weight(dev, c, x, dy, dw);
        return;
    }
    if (c->d.batch == 0)
        zero(dev, c->d.out_channels * c->row, dw);
    int64_t n_in = c->w.n_in * c->d.in_channels, n_out = c->w.n_out * c->d.out_channels;
    for (int64_t i = 0; i < c->d.batch; i += c->images)
        for (int64_t g = 0; g < c->d.groups; g++) {
            int64_t n = c->d.batch - i < c->images ? c->d.batch - i : c->images;
            const float *from = x + i * n_in + g * c->ic;
            if (!c->is_pointwise)
                to_columns(dev, c, n, from, (float *)scratch);
            mo_cuda_gemm(dev, true, false, c->oc, c->row, n * c->w.n_out, 1, dy + i * n_out + g * c->oc,
                         c->d.out_channels, c->is_pointwise ? from : (const float *)scratch,
                         c->is_pointwise ? c->d.in_channels : c->row, i ? 1 : 0, dw + g * c->oc * c->row, c->row, NULL);
        }
}

/* ---- integers ------------------------------------------------------------------------------------------------ */

static __device__ int32_t byte_at(const void *bytes, bool is_signed, int64_t i)
{
    return is_signed ? (int32_t)((const int8_t *)bytes)[i] : (int32_t)((const uint8_t *)bytes)[i];
}

/* Padding has the value zx, so taps outside add nothing. */
void mo_cuda_conv_int8(struct mo_device *dev, const struct mo_conv_desc *desc, const void *x, bool x_signed, int32_t zx,
                       const void *weight, bool w_signed, const int32_t *zw, bool zw_per_channel, int32_t *y)
{
    struct mo_conv_desc d = *desc;
    struct mo_window w = mo_window_of(desc);
    mo_staged<int32_t> zeros(dev, zw, zw_per_channel ? d.out_channels : 1);
    const int32_t *zero_of = zeros.at;
    int64_t ic = d.in_channels / d.groups, oc = d.out_channels / d.groups;
    mo_each(dev, d.batch * w.n_out * d.out_channels, [=] __device__(int64_t u) {
        int64_t o = u % d.out_channels, p = u / d.out_channels;
        int32_t zero_w = zero_of ? zero_of[zw_per_channel ? o : 0] : 0;
        uint32_t sum = 0;
        for (int64_t tap = 0; tap < w.n_taps; tap++) {
            int64_t pixel = mo_tap_input(w, p % w.n_out, tap);
            if (pixel < 0)
                continue;
            int64_t from = (p / w.n_out * w.n_in + pixel) * d.in_channels + o / oc * ic;
            for (int64_t k = 0; k < ic; k++)
                sum += (uint32_t)((byte_at(x, x_signed, from + k) - zx) *
                                  (byte_at(weight, w_signed, (o * ic + k) * w.n_taps + tap) - zero_w));
        }
        y[u] = (int32_t)sum;
    });
}
