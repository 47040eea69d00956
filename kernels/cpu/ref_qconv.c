/* ref_qconv.c - convolution of 8-bit numbers in plain C: the integers of
 * conv_int8, then the description's formula for each of them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/split.h"

struct mo_qconv {
    struct mo_qconv_desc d;         /* the pointers are copies that this owns */
    int64_t n_y;
};

static int64_t product3(const int64_t v[3])
{
    return v[0] * v[1] * v[2];
}

static bool copy_table(const void *from, size_t bytes, const void **to)
{
    void *mem = from ? malloc(bytes ? bytes : 1) : NULL;
    if (mem)
        memcpy(mem, from, bytes);
    *to = mem;
    return mem || !from;
}

void mo_ref_qconv_free(struct mo_device *dev, struct mo_qconv *q)
{
    (void)dev;
    if (!q)
        return;
    const void *tables[] = { q->d.w, q->d.w_zero, q->d.bias, q->d.factor, q->d.offset };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        free((void *)(uintptr_t)tables[i]);
    free(q);
}

struct mo_qconv *mo_ref_qconv_new(struct mo_device *dev, const struct mo_qconv_desc *d)
{
    struct mo_qconv *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    const struct mo_conv_desc *s = &d->shape;
    size_t n = (size_t)s->out_channels, n_w = n * (size_t)(s->in_channels / s->groups * product3(s->kernel));
    q->d = *d;
    q->n_y = s->batch * product3(s->out) * s->out_channels;
    bool ok = copy_table(d->w, n_w, &q->d.w);
    ok = copy_table(d->w_zero, n * sizeof(int32_t), (const void **)&q->d.w_zero) && ok;
    ok = copy_table(d->bias, n * sizeof(int32_t), (const void **)&q->d.bias) && ok;
    ok = copy_table(d->factor, n * sizeof(float), (const void **)&q->d.factor) && ok;
    ok = copy_table(d->offset, n * sizeof(float), (const void **)&q->d.offset) && ok;
    if (ok)
        return q;
    mo_ref_qconv_free(dev, q);
    return NULL;
}

size_t mo_ref_qconv_scratch_bytes(const struct mo_qconv *q)
{
    return q->d.y_dtype == 6 ? 0 : (size_t)q->n_y * sizeof(int32_t);
}

struct finish {
    const struct mo_qconv_desc *d;
    const int32_t *sums;
    void *y;
};

static int32_t to_bits(const struct mo_qconv_desc *d, float v)
{
    float low = (float)(d->y_low - d->y_zero), high = (float)(d->y_high - d->y_zero);
    v = v > low ? v : low;
    v = v < high ? v : high;
    return (int32_t)nearbyintf(v) + d->y_zero;
}

static void finish_elems(void *arg, int64_t begin, int64_t end)
{
    const struct finish *f = arg;
    const struct mo_qconv_desc *d = f->d;
    for (int64_t i = begin; i < end; i++) {
        int64_t o = i % d->shape.out_channels;
        int32_t sum = (int32_t)((uint32_t)f->sums[i] + (uint32_t)(d->bias ? d->bias[o] : 0));
        float v = d->factor ? fmaf((float)sum, d->factor[o], d->offset ? d->offset[o] : 0) : 0;
        if (d->y_dtype == 6)
            ((int32_t *)f->y)[i] = sum;
        else if (d->y_dtype == 1)
            ((float *)f->y)[i] = v;
        else
            ((uint8_t *)f->y)[i] = (uint8_t)to_bits(d, v);
    }
}

void mo_ref_qconv(struct mo_device *dev, struct mo_qconv *q, int32_t x_zero, const void *x, void *y, void *scratch)
{
    const struct mo_qconv_desc *d = &q->d;
    int32_t *sums = d->y_dtype == 6 ? y : scratch;
    mo_ref_conv_int8(dev, &d->shape, x, d->x_signed, x_zero, d->w, d->w_signed, d->w_zero, true, sums);
    mo_split(dev, q->n_y, mo_split_grain(4), finish_elems, &(struct finish){ d, sums, y });
}
