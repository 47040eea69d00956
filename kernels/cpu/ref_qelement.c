/* ref_qelement.c - sums, products, pooling and tables of 8-bit numbers: plain C. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loop.h"
#include "kernels/cpu/split.h"

static int32_t byte_at(const void *bytes, bool is_signed, int64_t i)
{
    return is_signed ? ((const int8_t *)bytes)[i] : ((const uint8_t *)bytes)[i];
}

/* Rounded half to even, + zero, held to low..high. */
static uint8_t to_byte(float v, int32_t zero, int32_t low, int32_t high)
{
    float floor_ = (float)(low - zero), ceil_ = (float)(high - zero);
    v = v > floor_ ? v : floor_;
    v = v < ceil_ ? v : ceil_;
    return (uint8_t)((int32_t)nearbyintf(v) + zero);
}

/* ---- sums and products ---- */

struct binary_work {
    const struct mo_qbinary *p;
    struct mo_loop loop;
    const void *a, *b;
    uint8_t *y;
};

static uint8_t binary_of(const struct mo_qbinary *p, int32_t a, int32_t b)
{
    a -= p->a_zero;
    b -= p->b_zero;
    float v = p->f == MO_MUL ? (float)(a * b) * p->a_factor : fmaf((float)b, p->b_factor, (float)a * p->a_factor);
    return to_byte(v, p->y_zero, p->y_low, p->y_high);
}

static void binary_rows(void *arg, int64_t begin, int64_t end)
{
    const struct binary_work *w = arg;
    const struct mo_loop *l = &w->loop;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX];
    mo_loop_seek(l, begin, index, offset);
    for (int64_t i = begin; i < end; i++, mo_loop_next(l, index, offset))
        for (int64_t k = 0; k < l->row; k++)
            w->y[i * l->row + k] =
                binary_of(w->p, byte_at(w->a, w->p->a_signed, offset[0] + k * l->stride[0][l->rank - 1]),
                          byte_at(w->b, w->p->b_signed, offset[1] + k * l->stride[1][l->rank - 1]));
}

void mo_ref_qbinary(struct mo_device *dev, const struct mo_qbinary *p, int rank, const int64_t *dims,
                    const int64_t *stride_a, const int64_t *stride_b, const void *a, const void *b, void *y)
{
    struct binary_work w = { .p = p, .a = a, .b = b, .y = y };
    mo_loop_init(&w.loop, rank, dims, 2, (const int64_t *const[]){ stride_a, stride_b });
    mo_split(dev, w.loop.n_rows, mo_split_grain(w.loop.row * 8), binary_rows, &w);
}

/* ---- tables ---- */

struct lookup_work {
    const uint8_t *table, *x;
    uint8_t *y;
};

static void lookup_elems(void *arg, int64_t begin, int64_t end)
{
    const struct lookup_work *w = arg;
    for (int64_t i = begin; i < end; i++)
        w->y[i] = w->table[w->x[i]];
}

void mo_ref_lookup(struct mo_device *dev, size_t n, const uint8_t *table, const uint8_t *x, uint8_t *y)
{
    mo_split(dev, (int64_t)n, mo_split_grain(1), lookup_elems, &(struct lookup_work){ table, x, y });
}

/* ---- pooling (channels-last) ---- */

struct pool_work {
    const struct mo_pool_desc *d;
    bool is_signed;
    int32_t x_zero, y_zero;
    float factor;
    const void *x;
    uint8_t *y;
};

static int64_t product3(const int64_t v[3])
{
    return v[0] * v[1] * v[2];
}

/* What channel c of an output pixel's window holds. */
struct seen {
    int64_t n_inside, n_counted;        /* taps in the picture; in it or its padding */
    int32_t sum, max;
};

static struct seen look(const struct pool_work *w, int64_t pixel, int64_t c)
{
    const struct mo_pool_desc *d = w->d;
    struct seen s = { .max = -128 };
    int64_t o = pixel % product3(d->out), image = pixel / product3(d->out) * product3(d->in);
    int64_t o_at[3] = { o / d->out[2] / d->out[1], o / d->out[2] % d->out[1], o % d->out[2] };
    for (int64_t k = 0; k < product3(d->kernel); k++) {
        int64_t k_at[3] = { k / d->kernel[2] / d->kernel[1], k / d->kernel[2] % d->kernel[1], k % d->kernel[2] }, at = 0;
        bool is_inside = true, is_counted = true;
        for (int i = 0; i < 3; i++) {
            int64_t p = o_at[i] * d->stride[i] - d->pad_begin[i] + k_at[i] * d->dilation[i];
            is_inside = is_inside && p >= 0 && p < d->in[i];
            is_counted = is_counted && p < d->in[i] + d->pad_end[i];
            at = at * d->in[i] + p;
        }
        s.n_counted += is_counted;
        if (!is_inside)
            continue;
        int32_t v = byte_at(w->x, w->is_signed, (image + at) * d->channels + c);
        s.max = v > s.max ? v : s.max;
        s.sum += v - w->x_zero;
        s.n_inside++;
    }
    return s;
}

static void pool_pixels(void *arg, int64_t begin, int64_t end)
{
    const struct pool_work *w = arg;
    int32_t low = w->is_signed ? -128 : 0;
    for (int64_t p = begin; p < end; p++)
        for (int64_t c = 0; c < w->d->channels; c++) {
            struct seen s = look(w, p, c);
            int64_t n = w->d->kind == MO_POOL_AVERAGE ? s.n_inside : s.n_counted;
            float v = n ? (float)s.sum * (w->factor / (float)n) : 0;
            if (w->d->kind == MO_POOL_MAX)
                w->y[p * w->d->channels + c] = (uint8_t)(s.max > low ? s.max : low);
            else
                w->y[p * w->d->channels + c] = to_byte(v, w->y_zero, low, low + 255);
        }
}

void mo_ref_qpool(struct mo_device *dev, const struct mo_pool_desc *d, bool is_signed, int32_t x_zero, float factor,
                  int32_t y_zero, const void *x, void *y)
{
    struct pool_work w = { d, is_signed, x_zero, y_zero, factor, x, y };
    mo_split(dev, d->batch * product3(d->out), mo_split_grain(d->channels * product3(d->kernel) * 8), pool_pixels, &w);
}
