/* conv.cu - convolution and its gradients, channels-last, rank 1 to 3, groups,
 * dilation, asymmetric pads, with weights as ONNX stores them.
 *
 * cuDNN computes what it can (cudnn.cu) where it is there; the rest, and all of it where it is
 * not, is here. Dense ones are matrix products: the inputs under each output pixel are laid out
 * as a row of `columns` (in the order of the weights, O | I/g kD kH kW), some images at a
 * time so that the scratch stays bounded:
 *     y = columns W',   dW = dy' columns,   dcolumns = dy W, gathered back into dx.
 * A 1x1 convolution of stride 1 needs no columns, x is them. Where a group has only
 * few channels (depthwise) a product would be too thin, and one thread makes one
 * result. All sums have a fixed order. */
#include "kernels/cuda/cudnn.cuh"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/window.cuh"

enum { FEW_CHANNELS = 8, F32 = 1, HALF = 16 };
static const int64_t most_column_bytes = (int64_t)64 << 20;

struct mo_conv {
    struct mo_conv_desc d;
    struct mo_window w;
    int64_t ic, oc;             /* channels of a group */
    int64_t row;                /* ic * taps: one row of columns */
    int64_t images;             /* at a time */
    bool is_direct;             /* thin groups: no product */
    bool is_pointwise;          /* x is the columns */
    struct mo_cudnn_conv *dnn;  /* NULL: computed here */
    char engine[120];
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
    char why[96] = "groups of few channels";
    c->dnn = c->is_direct ? NULL : mo_cudnn_conv_new(dev, desc, why, sizeof why);
    if (c->dnn)
        snprintf(c->engine, sizeof c->engine, "cuDNN");
    else
        snprintf(c->engine, sizeof c->engine, "own kernels (%s)", dev->cudnn ? why : dev->no_cudnn);
    return c;
}

void mo_cuda_conv_free(struct mo_device *dev, struct mo_conv *conv)
{
    if (conv)
        mo_cudnn_conv_free(dev, conv->dnn);
    free(conv);
}

const char *mo_cuda_conv_engine(const struct mo_conv *c)
{
    return c->engine;
}

size_t mo_cuda_conv_scratch_bytes(const struct mo_conv *c, bool backward)
{
    if (c->dnn)
        return mo_cudnn_conv_scratch_bytes(c->dnn, backward);
    return c->is_direct || c->is_pointwise ? 0 : (size_t)(c->images * c->w.n_out * c->row) * sizeof(float);
}

/* The products read the weights as ONNX stores them. */
void mo_cuda_conv_pack(struct mo_device *dev, struct mo_conv *conv, const float *w)
{
    if (conv->dnn)
        mo_cudnn_conv_pack(dev, conv->dnn, w);
}

/* The product for images of T: float32, or 16 bits, whose operands in float32 it rounds. */
static void product(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                    const float *b, int64_t ldb, float beta, float *c, int64_t ldc, const struct mo_epilogue *e)
{
    mo_cuda_gemm(dev, ta, tb, m, n, k, 1, a, lda, b, ldb, beta, c, ldc, e);
}

template <class A, class B, class C>
static void product(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const A *a, int64_t lda,
                    const B *b, int64_t ldb, float beta, C *c, int64_t ldc, const struct mo_epilogue *e)
{
    mo_cuda_gemm_bf16(dev, ta, tb, m, n, k, 1, sizeof(A) == 4 ? F32 : HALF, a, lda, sizeof(B) == 4 ? F32 : HALF, b, ldb, beta,
                      sizeof(C) == 4 ? F32 : HALF, c, ldc, e);
}

/* A weight as the kernels below see it: beside images of 16 bits it is rounded. */
template <class T> static __device__ float weight_of(float w)
{
    return mo_load(mo_stored<T>::of(w));
}

/* ---- columns -------------------------------------------------------------------------------------- */

/* columns[pixel, c * taps + k] = x of group g under tap k of each output pixel of n images; 0 in the padding */
template <class T>
static void to_columns(struct mo_device *dev, const struct mo_conv *c, int64_t n, const T *x, T *columns)
{
    struct mo_window w = c->w;
    int64_t row = c->row, channels = c->d.in_channels;
    mo_each(dev, n * w.n_out * row, [=] __device__(int64_t u) {
        int64_t p = u / row, tap = u % row % w.n_taps, channel = u % row / w.n_taps;
        int64_t pixel = mo_tap_input(w, p % w.n_out, tap);
        columns[u] = pixel < 0 ? mo_stored<T>::of(0.0f) : x[(p / w.n_out * w.n_in + pixel) * channels + channel];
    });
}

/* dx[pixel, c] = sum over taps of dcolumns of the output pixel whose tap lies here, in the order of the taps */
template <class T>
static void from_columns(struct mo_device *dev, const struct mo_conv *c, int64_t n, const float *columns, T *dx)
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
        dx[p * channels + channel] = mo_stored<T>::of(sum);
    });
}

/* ---- forward ---------------------------------------------------------------------------------------- */

template <class T>
static void direct(struct mo_device *dev, const struct mo_conv *c, const T *x, const float *weight, const float *bias,
                   const T *residual, T *y)
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
            const T *from = x + (p / w.n_out * w.n_in + pixel) * d.in_channels + o / oc * ic;
            for (int64_t k = 0; k < ic; k++)
                sum += mo_load(from[k]) * weight_of<T>(weight[(o * ic + k) * w.n_taps + tap]);
        }
        float v = sum + (bias ? bias[o] : 0) + (residual ? mo_load(residual[u]) : 0);
        y[u] = mo_stored<T>::of(mo_act_of(d.act, d.act_lo, d.act_hi, v));
    });
}

/* A residual is put into y first, and the product adds to it. */
template <class T>
static void by_products(struct mo_device *dev, const struct mo_conv *c, const T *x, const float *w, const float *bias,
                        const T *residual, T *y, T *columns)
{
    int64_t n_in = c->w.n_in * c->d.in_channels, n_out = c->w.n_out * c->d.out_channels;
    if (residual && residual != y)
        mo_each(dev, c->d.batch * n_out, [=] __device__(int64_t i) { y[i] = residual[i]; });
    for (int64_t i = 0; i < c->d.batch; i += c->images)
        for (int64_t g = 0; g < c->d.groups; g++) {
            int64_t n = c->d.batch - i < c->images ? c->d.batch - i : c->images;
            const T *from = x + i * n_in + g * c->ic;
            struct mo_epilogue end = { bias ? bias + g * c->oc : NULL, c->d.act, c->d.act_lo, c->d.act_hi };
            if (!c->is_pointwise)
                to_columns(dev, c, n, from, columns);
            product(dev, false, true, n * c->w.n_out, c->oc, c->row, c->is_pointwise ? from : (const T *)columns,
                    c->is_pointwise ? c->d.in_channels : c->row, w + g * c->oc * c->row, c->row, residual ? 1 : 0,
                    y + i * n_out + g * c->oc, c->d.out_channels, &end);
        }
}

template <class T>
static void convolve(struct mo_device *dev, struct mo_conv *c, const T *x, const float *w, const float *bias,
                     const T *residual, T *y, void *scratch)
{
    if (c->dnn)
        mo_cudnn_forward(dev, c->dnn, x, w, bias, residual, y, scratch);
    else if (c->is_direct)
        direct(dev, c, x, w, bias, residual, y);
    else
        by_products(dev, c, x, w, bias, residual, y, (T *)scratch);
}

void mo_cuda_conv(struct mo_device *dev, struct mo_conv *c, const float *x, const float *w, const float *bias,
                  const float *residual, float *y, void *scratch)
{
    convolve(dev, c, x, w, bias, residual, y, scratch);
}

void mo_cuda_conv_bf16(struct mo_device *dev, struct mo_conv *c, const uint16_t *x, const float *w, const float *bias,
                       const uint16_t *residual, uint16_t *y, void *scratch)
{
    MO_BY_HALF(dev, convolve(dev, c, (const H *)x, w, bias, (const H *)residual, (H *)y, scratch););
}

/* ---- gradient of the input ------------------------------------------------------------------------------ */

template <class T>
static void direct_grad_input(struct mo_device *dev, const struct mo_conv *c, const float *weight, const T *dy, T *dx)
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
            const T *from = dy + (p / w.n_in * w.n_out + out) * d.out_channels + g * oc;
            for (int64_t o = 0; o < oc; o++)
                sum += mo_load(from[o]) * weight_of<T>(weight[((g * oc + o) * ic + channel % ic) * w.n_taps + tap]);
        }
        dx[u] = mo_stored<T>::of(sum);
    });
}

template <class T>
static void grad_input(struct mo_device *dev, struct mo_conv *c, const float *w, const T *dy, T *dx, void *scratch)
{
    if (c->dnn) {
        mo_cudnn_grad_input(dev, c->dnn, w, dy, dx, scratch);
        return;
    }
    if (c->is_direct) {
        direct_grad_input(dev, c, w, dy, dx);
        return;
    }
    int64_t n_in = c->w.n_in * c->d.in_channels, n_out = c->w.n_out * c->d.out_channels;
    for (int64_t i = 0; i < c->d.batch; i += c->images)
        for (int64_t g = 0; g < c->d.groups; g++) {
            int64_t n = c->d.batch - i < c->images ? c->d.batch - i : c->images;
            T *to = dx + i * n_in + g * c->ic;
            const T *from = dy + i * n_out + g * c->oc;
            const float *weight = w + g * c->oc * c->row;
            if (c->is_pointwise) {
                product(dev, false, false, n * c->w.n_out, c->row, c->oc, from, c->d.out_channels, weight, c->row, 0, to,
                        c->d.in_channels, NULL);
                continue;
            }
            product(dev, false, false, n * c->w.n_out, c->row, c->oc, from, c->d.out_channels, weight, c->row, 0,
                    (float *)scratch, c->row, NULL);
            from_columns(dev, c, n, (const float *)scratch, to);
        }
}

void mo_cuda_conv_grad_input(struct mo_device *dev, struct mo_conv *c, const float *w, const float *dy, float *dx,
                             void *scratch)
{
    grad_input(dev, c, w, dy, dx, scratch);
}

void mo_cuda_conv_grad_input_bf16(struct mo_device *dev, struct mo_conv *c, const float *w, const uint16_t *dy, uint16_t *dx,
                                  void *scratch)
{
    MO_BY_HALF(dev, grad_input(dev, c, w, (const H *)dy, (H *)dx, scratch););
}

/* ---- gradient of the weights ------------------------------------------------------------------------------ */

template <class T>
static void direct_grad_weight(struct mo_device *dev, const struct mo_conv *c, const T *x, const T *dy, float *dw)
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
                return (double)mo_load(dy[p * d.out_channels + o]) *
                       mo_load(x[(p / w.n_out * w.n_in + pixel) * d.in_channels + o / oc * ic + channel]);
            },
            mo_sum(), [=] __device__(int64_t at, double sum) { dw[at] = (float)sum; });
}

template <class T> static void grad_bias(struct mo_device *dev, const struct mo_conv *c, const T *dy, float *dbias)
{
    int64_t channels = c->d.out_channels;
    mo_fold(dev, channels, c->d.batch * c->w.n_out, true, 0.0,
            [=] __device__(int64_t o, int64_t p) { return (double)mo_load(dy[p * channels + o]); }, mo_sum(),
            [=] __device__(int64_t o, double sum) { dbias[o] = (float)sum; });
}

static void zero(struct mo_device *dev, int64_t n, float *x)
{
    mo_each(dev, n, [=] __device__(int64_t i) { x[i] = 0; });
}

template <class T>
static void grad_weight(struct mo_device *dev, struct mo_conv *c, const T *x, const T *dy, float *dw, float *dbias,
                        void *scratch)
{
    if (dbias)
        grad_bias(dev, c, dy, dbias);
    if (c->dnn) {
        mo_cudnn_grad_weight(dev, c->dnn, x, dy, dw, scratch);
        return;
    }
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
            const T *from = x + i * n_in + g * c->ic;
            if (!c->is_pointwise)
                to_columns(dev, c, n, from, (T *)scratch);
            product(dev, true, false, c->oc, c->row, n * c->w.n_out, dy + i * n_out + g * c->oc, c->d.out_channels,
                    c->is_pointwise ? from : (const T *)scratch, c->is_pointwise ? c->d.in_channels : c->row, i ? 1 : 0,
                    dw + g * c->oc * c->row, c->row, NULL);
        }
}

void mo_cuda_conv_grad_weight(struct mo_device *dev, struct mo_conv *c, const float *x, const float *dy, float *dw,
                              float *dbias, void *scratch)
{
    grad_weight(dev, c, x, dy, dw, dbias, scratch);
}

void mo_cuda_conv_grad_weight_bf16(struct mo_device *dev, struct mo_conv *c, const uint16_t *x, const uint16_t *dy,
                                   float *dw, float *dbias, void *scratch)
{
    MO_BY_HALF(dev, grad_weight(dev, c, (const H *)x, (const H *)dy, dw, dbias, scratch););
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
