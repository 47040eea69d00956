/* qelement.c - sums, products and pooling of 8-bit numbers on the loops of qconv.h;
 * plain C where there are none, or where operands repeat within a row. */
#include "kernels/cpu/fast.h"
#include "kernels/cpu/loop.h"
#include "kernels/cpu/qconv.h"
#include "kernels/cpu/split.h"

/* ---- sums and products ------------------------------------------------------------------- */

struct binary_work {
    const struct mo_qloops *loops;
    const struct mo_qbinary *p;
    struct mo_loop loop;
    const uint8_t *a, *b;
    uint8_t *y;
};

static void binary_rows(void *arg, int64_t begin, int64_t end)
{
    const struct binary_work *w = arg;
    const struct mo_loop *l = &w->loop;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX];
    mo_loop_seek(l, begin, index, offset);
    for (int64_t i = begin; i < end; i++, mo_loop_next(l, index, offset))
        w->loops->binary(w->p, w->p->a_signed ? 128 : 0, w->p->b_signed ? 128 : 0, l->row, w->a + offset[0],
                         w->b + offset[1], w->y + i * l->row);
}

/* One long row is cut where no slice gets too short. */
static void binary_span(void *arg, int64_t begin, int64_t end)
{
    const struct binary_work *w = arg;
    w->loops->binary(w->p, w->p->a_signed ? 128 : 0, w->p->b_signed ? 128 : 0, end - begin, w->a + begin, w->b + begin,
                     w->y + begin);
}

void mo_cpu_qbinary(struct mo_device *dev, const struct mo_qbinary *p, int rank, const int64_t *dims,
                    const int64_t *stride_a, const int64_t *stride_b, const void *a, const void *b, void *y)
{
    struct binary_work w = { .loops = dev->qloops, .p = p, .a = a, .b = b, .y = y };
    mo_loop_init(&w.loop, rank, dims, 2, (const int64_t *const[]){ stride_a, stride_b });
    int last = w.loop.rank - 1;
    if (!w.loops || w.loop.stride[0][last] != 1 || w.loop.stride[1][last] != 1)
        mo_ref_qbinary(dev, p, rank, dims, stride_a, stride_b, a, b, y);
    else if (w.loop.n_rows == 1)
        mo_split(dev, w.loop.row, mo_split_grain(1), binary_span, &w);
    else
        mo_split(dev, w.loop.n_rows, mo_split_grain(w.loop.row), binary_rows, &w);
}

/* ---- to bytes ------------------------------------------------------------------------------- */

struct quantize_work {
    const struct mo_qloops *loops;
    const float *x;
    float scale;
    int32_t zero, low;
    uint8_t *y;
};

static void quantize_span(void *arg, int64_t begin, int64_t end)
{
    const struct quantize_work *w = arg;
    w->loops->quantize(end - begin, w->x + begin, w->scale, w->zero, w->low, w->y + begin);
}

void mo_cpu_quantize(struct mo_device *dev, int dtype, int64_t outer, int64_t channels, int64_t inner, const float *x,
                     const float *scale, const int32_t *zero, void *y)
{
    if (!dev->qloops || channels != 1 || (dtype != 2 && dtype != 3)) {
        mo_ref_quantize(dev, dtype, outer, channels, inner, x, scale, zero, y);
        return;
    }
    struct quantize_work w = { dev->qloops, x, scale[0], zero ? zero[0] : 0, dtype == 3 ? -128 : 0, y };
    mo_split(dev, outer * inner, mo_split_grain(1), quantize_span, &w);
}

/* ---- any function of a byte --------------------------------------------------------------------- */

struct lookup_work {
    void (*lookup)(int64_t n, const uint8_t *table, const uint8_t *x, uint8_t *y);
    const uint8_t *table, *x;
    uint8_t *y;
};

static void lookup_span(void *arg, int64_t begin, int64_t end)
{
    const struct lookup_work *w = arg;
    w->lookup(end - begin, w->table, w->x + begin, w->y + begin);
}

void mo_cpu_lookup(struct mo_device *dev, size_t n, const uint8_t *table, const uint8_t *x, uint8_t *y)
{
    if (!dev->qloops) {
        mo_ref_lookup(dev, n, table, x, y);
        return;
    }
    struct lookup_work w = { dev->qloops->lookup, table, x, y };
#if defined(__x86_64__)
    if (dev->isa >= MO_ISA_VNNI && __builtin_cpu_supports("avx512vbmi"))
        w.lookup = mo_qlookup_vbmi;
#endif
    mo_split(dev, (int64_t)n, mo_split_grain(1) * 16, lookup_span, &w);
}

/* ---- pooling ------------------------------------------------------------------------------- */

#define MAX_TAPS 1024

struct pool_work {
    const struct mo_qloops *loops;
    const struct mo_pool_desc *d;
    bool is_signed;
    int32_t x_zero, y_zero;
    float factor;
    const uint8_t *x;
    uint8_t *y;
};

static int64_t product3(const int64_t v[3])
{
    return v[0] * v[1] * v[2];
}

/* First and last tap of one axis inside the picture, and how many lie before the end of its padding. */
struct span {
    int64_t begin, first, end, counted;
};

static struct span span_of(const struct mo_pool_desc *d, int i, int64_t out)
{
    struct span s = { .begin = out * d->stride[i] - d->pad_begin[i] };
    for (int64_t k = 0; k < d->kernel[i]; k++) {
        int64_t p = s.begin + k * d->dilation[i];
        s.first += p < 0;
        s.end += p < d->in[i];
        s.counted += p < d->in[i] + d->pad_end[i];
    }
    return s;
}

static void pool_lines(void *arg, int64_t begin, int64_t end)
{
    const struct pool_work *w = arg;
    const struct mo_pool_desc *d = w->d;
    const uint8_t *taps[MAX_TAPS];
    for (int64_t line = begin; line < end; line++) {
        int64_t image = line / (d->out[0] * d->out[1]);
        struct span z = span_of(d, 0, line / d->out[1] % d->out[0]), y = span_of(d, 1, line % d->out[1]);
        const uint8_t *from = w->x + image * product3(d->in) * d->channels;
        uint8_t *to = w->y + line * d->out[2] * d->channels;
        for (int64_t o = 0; o < d->out[2]; o++, to += d->channels) {
            struct span x = span_of(d, 2, o);
            int n = 0;
            for (int64_t i = z.first; i < z.end; i++)
                for (int64_t j = y.first; j < y.end; j++)
                    for (int64_t k = x.first; k < x.end; k++) {
                        int64_t at = (z.begin + i * d->dilation[0]) * d->in[1] + y.begin + j * d->dilation[1];
                        taps[n++] = from + (at * d->in[2] + x.begin + k * d->dilation[2]) * d->channels;
                    }
            int64_t counted = d->kind == MO_POOL_AVERAGE ? n : z.counted * y.counted * x.counted;
            if (d->kind == MO_POOL_MAX)
                w->loops->max(taps, n, d->channels, w->is_signed, to);
            else
                w->loops->average(taps, n, d->channels, w->is_signed, w->x_zero, w->factor / (float)counted, w->y_zero, to);
        }
    }
}

/* A window that sees only padding has no first tap. */
static bool sees_picture(const struct mo_pool_desc *d)
{
    for (int i = 0; i < 3; i++)
        for (int64_t o = 0; o < d->out[i]; o++) {
            struct span s = span_of(d, i, o);
            if (s.first >= s.end)
                return false;
        }
    return true;
}

void mo_cpu_qpool(struct mo_device *dev, const struct mo_pool_desc *d, bool is_signed, int32_t x_zero, float factor,
                  int32_t y_zero, const void *x, void *y)
{
    struct pool_work w = { dev->qloops, d, is_signed, x_zero, y_zero, factor, x, y };
    int64_t n_taps = product3(d->kernel), lines = d->batch * d->out[0] * d->out[1];
    if (!w.loops || n_taps > MAX_TAPS || !sees_picture(d))
        mo_ref_qpool(dev, d, is_signed, x_zero, factor, y_zero, x, y);
    else
        mo_split(dev, lines, mo_split_grain(d->out[2] * (d->channels / 16 + 8) * n_taps), pool_lines, &w);
}
