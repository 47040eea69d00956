/* qconv.cu - 8-bit convolution with its scales, pooling, sums and tables of bytes: a
 * thread makes one result, by the formulas of backend.h and kernels.def. */
#include "kernels/cuda/device.cuh"

#include <stdlib.h>

#include "kernels/cuda/window.cuh"

static __device__ int32_t byte_at(const void *bytes, bool is_signed, int64_t i)
{
    return is_signed ? (int32_t)((const int8_t *)bytes)[i] : (int32_t)((const uint8_t *)bytes)[i];
}

/* Rounded half to even, + zero, held to low..high. */
static __device__ uint8_t to_byte(float v, int32_t zero, int32_t low, int32_t high)
{
    float least = (float)(low - zero), most = (float)(high - zero);
    v = v > least ? v : least;
    v = v < most ? v : most;
    return (uint8_t)((int32_t)rintf(v) + zero);
}

/* ---- convolution ------------------------------------------------------------------------------ */

struct mo_qconv {
    struct mo_qconv_desc d;     /* its pointers are to memory of the device that this owns */
    struct mo_window w;
    bool is_whole;              /* there was memory for all of it */
};

template <class T> static void stage(struct mo_device *dev, struct mo_qconv *q, const T **table, int64_t n)
{
    const T *host = *table;
    if (!host)
        return;
    T *mem = (T *)mo_cuda_alloc(dev, (size_t)n * sizeof(T));
    if (mem)
        mo_cuda_upload(dev, mem, host, (size_t)n * sizeof(T));
    else
        q->is_whole = false;
    *table = mem;
}

void mo_cuda_qconv_free(struct mo_device *dev, struct mo_qconv *q)
{
    if (!q)
        return;
    const void *tables[] = { q->d.w, q->d.w_zero, q->d.bias, q->d.factor, q->d.offset };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (tables[i])
            mo_cuda_free(dev, (void *)tables[i]);
    free(q);
}

struct mo_qconv *mo_cuda_qconv_new(struct mo_device *dev, const struct mo_qconv_desc *desc)
{
    struct mo_qconv *q = (struct mo_qconv *)calloc(1, sizeof *q);
    if (!q)
        return NULL;
    const struct mo_conv_desc *s = &desc->shape;
    q->d = *desc;
    q->w = mo_window_of(s);
    q->is_whole = true;
    stage(dev, q, (const uint8_t **)&q->d.w, s->out_channels * (s->in_channels / s->groups) * q->w.n_taps);
    stage(dev, q, &q->d.w_zero, s->out_channels);
    stage(dev, q, &q->d.bias, s->out_channels);
    stage(dev, q, &q->d.factor, s->out_channels);
    stage(dev, q, &q->d.offset, s->out_channels);
    if (q->is_whole)
        return q;
    mo_cuda_qconv_free(dev, q);
    return NULL;
}

size_t mo_cuda_qconv_scratch_bytes(const struct mo_qconv *q)
{
    (void)q;
    return 0;
}

void mo_cuda_qconv(struct mo_device *dev, struct mo_qconv *q, int32_t x_zero, const void *x, void *y, void *scratch)
{
    (void)scratch;
    struct mo_qconv_desc d = q->d;
    struct mo_window w = q->w;
    int64_t channels = d.shape.out_channels, all_in = d.shape.in_channels;
    int64_t ic = all_in / d.shape.groups, oc = channels / d.shape.groups;
    mo_each(dev, d.shape.batch * w.n_out * channels, [=] __device__(int64_t u) {
        int64_t o = u % channels, p = u / channels;
        int32_t zero = d.w_zero ? d.w_zero[o] : 0;
        uint32_t sum = d.bias ? (uint32_t)d.bias[o] : 0;
        for (int64_t tap = 0; tap < w.n_taps; tap++) {
            int64_t pixel = mo_tap_input(w, p % w.n_out, tap);
            if (pixel < 0)
                continue;
            int64_t from = (p / w.n_out * w.n_in + pixel) * all_in + o / oc * ic;
            for (int64_t k = 0; k < ic; k++)
                sum += (uint32_t)((byte_at(x, d.x_signed, from + k) - x_zero) *
                                  (byte_at(d.w, d.w_signed, (o * ic + k) * w.n_taps + tap) - zero));
        }
        float v = d.factor ? fmaf((float)(int32_t)sum, d.factor[o], d.offset ? d.offset[o] : 0) : 0;
        if (d.y_dtype == 6)
            ((int32_t *)y)[u] = (int32_t)sum;
        else if (d.y_dtype == 1)
            ((float *)y)[u] = v;
        else
            ((uint8_t *)y)[u] = to_byte(v, d.y_zero, d.y_low, d.y_high);
    });
}

/* ---- sums, products, tables ---------------------------------------------------------------------- */

void mo_cuda_qbinary(struct mo_device *dev, const struct mo_qbinary *desc, int rank, const int64_t *dims,
                     const int64_t *stride_a, const int64_t *stride_b, const void *a, const void *b, void *y)
{
    const int64_t *const strides[] = { stride_a, stride_b };
    struct mo_walk w = mo_walk_of(rank, dims, 2, strides);
    struct mo_qbinary p = *desc;
    mo_each(dev, w.n, [=] __device__(int64_t i) {
        int64_t at[2];
        mo_walk_to<2>(w, i, at);
        int32_t u = byte_at(a, p.a_signed, at[0]) - p.a_zero, v = byte_at(b, p.b_signed, at[1]) - p.b_zero;
        float r = p.f == MO_MUL ? (float)(u * v) * p.a_factor : fmaf((float)v, p.b_factor, __fmul_rn((float)u, p.a_factor));
        ((uint8_t *)y)[i] = to_byte(r, p.y_zero, p.y_low, p.y_high);
    });
}

void mo_cuda_lookup(struct mo_device *dev, size_t n, const uint8_t *table, const uint8_t *x, uint8_t *y)
{
    mo_staged<uint8_t> staged(dev, table, 256);
    const uint8_t *at = staged.at;
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = at[x[i]]; });
}

/* ---- a first layer ------------------------------------------------------------------------------------- */

void mo_cuda_qfirst(struct mo_device *dev, const struct mo_qfirst_desc *desc, const float *x, const float *w,
                    const float *bias, uint8_t *y)
{
    struct mo_qfirst_desc d = *desc;
    mo_each(dev, d.conv.batch * d.pooled[0] * d.pooled[1] * d.conv.out_channels, [=] __device__(int64_t u) {
        const struct mo_conv_desc *c = &d.conv;
        int64_t o = u % c->out_channels, p = u / c->out_channels, area = c->kernel[0] * c->kernel[1];
        int64_t image = p / (d.pooled[0] * d.pooled[1]), line = p / d.pooled[1] % d.pooled[0], column = p % d.pooled[1];
        float most = -INFINITY;
        for (int64_t i = 0; i < d.pool[0] * d.pool[1]; i++) {
            int64_t top = (line * d.pool_stride[0] + i / d.pool[1]) * c->stride[0] - c->pad_begin[0];
            int64_t left = (column * d.pool_stride[1] + i % d.pool[1]) * c->stride[1] - c->pad_begin[1];
            float sum = 0;
            for (int64_t t = 0; t < area; t++) {
                int64_t v = top + t / c->kernel[1] * c->dilation[0], h = left + t % c->kernel[1] * c->dilation[1];
                bool is_inside = v >= 0 && v < c->in[0] && h >= 0 && h < c->in[1];
                const float *pixel = x + ((image * c->in[0] + v) * c->in[1] + h) * c->in_channels;
                for (int64_t m = 0; is_inside && m < c->in_channels; m++)
                    sum += pixel[m] * w[(o * c->in_channels + m) * area + t];
            }
            most = fmaxf(most, sum);
        }
        y[u] = to_byte((most + (bias ? bias[o] : 0)) / d.scale, d.y_zero, d.y_low, d.y_high);
    });
}

/* ---- pooling ---------------------------------------------------------------------------------------- */

void mo_cuda_qpool(struct mo_device *dev, const struct mo_pool_desc *desc, bool is_signed, int32_t x_zero, float factor,
                   int32_t y_zero, const void *x, void *y)
{
    struct mo_pool_desc d = *desc;
    struct mo_window w = mo_window_of(desc);
    int32_t low = is_signed ? -128 : 0;
    mo_each(dev, d.batch * w.n_out * d.channels, [=] __device__(int64_t u) {
        int64_t c = u % d.channels, p = u / d.channels, image = p / w.n_out * w.n_in, n_inside = 0, n_counted = 1, o[3];
        int32_t sum = 0, most = low;
        for (int64_t tap = 0; tap < w.n_taps; tap++) {
            int64_t pixel = mo_tap_input(w, p % w.n_out, tap);
            if (pixel < 0)
                continue;
            int32_t v = byte_at(x, is_signed, (image + pixel) * d.channels + c);
            most = v > most ? v : most;
            sum += v - x_zero;
            n_inside++;
        }
        mo_split3(p % w.n_out, w.out, o);
        for (int i = 0; i < 3; i++) {
            int64_t counted = 0;
            for (int64_t k = 0; k < w.kernel[i]; k++)
                counted += o[i] * w.stride[i] - w.pad[i] + k * w.dilation[i] < w.in[i] + d.pad_end[i];
            n_counted *= counted;
        }
        int64_t n = d.kind == MO_POOL_AVERAGE ? n_inside : n_counted;
        float v = n ? (float)sum * (factor / (float)n) : 0;
        ((uint8_t *)y)[u] = d.kind == MO_POOL_MAX ? (uint8_t)most : to_byte(v, y_zero, low, low + 255);
    });
}
