/* flat.c - pooling, optimizers and sums over the team: loops.h on slices. */
#include <string.h>

#include "kernels/cpu/fast.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/team.h"

/* ---- pooling ------------------------------------------------------------------------------ */

struct pooling {
    const struct mo_loops *loops;
    const struct mo_pool_desc *d;
    const void *x, *dy;
    void *y, *dx;
    uint8_t *where;
    const uint8_t *from_where;
    bool add;
};

static void pool_range(void *arg, int64_t begin, int64_t end)
{
    const struct pooling *p = arg;
    p->loops->pool(p->d, p->x, p->y, p->where, begin, end);
}

static void pool_grad_range(void *arg, int64_t begin, int64_t end)
{
    const struct pooling *p = arg;
    p->loops->pool_grad(p->d, p->dy, p->from_where, p->dx, p->add, begin, end);
}

static void pool(struct mo_device *dev, const struct mo_loops *loops, const struct mo_pool_desc *d, const void *x, void *y,
                 uint8_t *where)
{
    struct pooling p = { .loops = loops, .d = d, .x = x, .y = y, .where = where };
    int64_t steps = d->out[2] * d->channels * d->kernel[0] * d->kernel[1] * d->kernel[2];
    mo_split(dev, d->batch * d->out[0] * d->out[1], mo_split_grain(steps), pool_range, &p);
}

static void pool_grad(struct mo_device *dev, const struct mo_loops *loops, const struct mo_pool_desc *d, const void *dy,
                      const uint8_t *where, void *dx, bool add)
{
    struct pooling p = { .loops = loops, .d = d, .dy = dy, .dx = dx, .from_where = where, .add = add };
    mo_split(dev, d->batch * d->in[0] * d->in[1], mo_split_grain(d->in[2] * d->channels * 2), pool_grad_range, &p);
}

void mo_cpu_pool(struct mo_device *dev, const struct mo_pool_desc *d, const float *x, float *y, uint8_t *where)
{
    if (dev->loops)
        pool(dev, dev->loops, d, x, y, where);
    else
        mo_ref_pool(dev, d, x, y, where);
}

void mo_cpu_pool_bf16(struct mo_device *dev, const struct mo_pool_desc *d, const uint16_t *x, uint16_t *y, uint8_t *where)
{
    if (dev->loops16)
        pool(dev, dev->loops16, d, x, y, where);
    else
        mo_ref_pool_bf16(dev, d, x, y, where);
}

void mo_cpu_pool_grad(struct mo_device *dev, const struct mo_pool_desc *d, const float *dy, const uint8_t *where,
                      float *dx, bool add)
{
    if (dev->loops)
        pool_grad(dev, dev->loops, d, dy, where, dx, add);
    else
        mo_ref_pool_grad(dev, d, dy, where, dx, add);
}

/* With more windows over a pixel than are added at once (MAX_COVERS of loops_body.h) sums would be rounded between. */
void mo_cpu_pool_grad_bf16(struct mo_device *dev, const struct mo_pool_desc *d, const uint16_t *dy, const uint8_t *where,
                           uint16_t *dx, bool add)
{
    if (dev->loops16)
        pool_grad(dev, dev->loops16, d, dy, where, dx, add);
    else
        mo_ref_pool_grad_bf16(dev, d, dy, where, dx, add);
}

/* ---- optimizers ------------------------------------------------------------------------------- */

struct update {
    const struct mo_loops *loops;
    float lr, a, b, c, l2, d, e, f;
    bool flag;
    float *w, *s1, *s2;
    const float *g;
};

static float *at(float *p, int64_t i)
{
    return p ? p + i : NULL;
}

static void sgd_range(void *arg, int64_t begin, int64_t end)
{
    const struct update *u = arg;
    u->loops->sgd((size_t)(end - begin), u->lr, u->a, u->flag, u->l2, u->w + begin, u->g + begin, at(u->s1, begin));
}

void mo_cpu_sgd_step(struct mo_device *dev, size_t n, float lr, float momentum, bool nesterov, float l2, float *w,
                     const float *g, float *velocity)
{
    if (!dev->loops) {
        mo_ref_sgd_step(dev, n, lr, momentum, nesterov, l2, w, g, velocity);
        return;
    }
    struct update u = { .loops = dev->loops, .lr = lr, .a = momentum, .flag = nesterov, .l2 = l2, .w = w, .g = g,
                        .s1 = velocity };
    mo_split(dev, (int64_t)n, mo_split_grain(1), sgd_range, &u);
}

static void adam_range(void *arg, int64_t begin, int64_t end)
{
    const struct update *u = arg;
    u->loops->adam((size_t)(end - begin), u->lr, u->a, u->b, u->c, u->l2, u->d, u->e, u->f, u->w + begin, u->g + begin,
                   u->s1 + begin, u->s2 + begin);
}

void mo_cpu_adam_step(struct mo_device *dev, size_t n, float lr, float beta1, float beta2, float eps, float l2,
                      float decoupled, float correction1, float correction2, float *w, const float *g, float *m,
                      float *v)
{
    if (!dev->loops) {
        mo_ref_adam_step(dev, n, lr, beta1, beta2, eps, l2, decoupled, correction1, correction2, w, g, m, v);
        return;
    }
    struct update u = { .loops = dev->loops, .lr = lr, .a = beta1, .b = beta2, .c = eps, .l2 = l2, .d = decoupled,
                        .e = correction1, .f = correction2, .w = w, .g = g, .s1 = m, .s2 = v };
    mo_split(dev, (int64_t)n, mo_split_grain(2), adam_range, &u);
}

static void rmsprop_range(void *arg, int64_t begin, int64_t end)
{
    const struct update *u = arg;
    u->loops->rmsprop((size_t)(end - begin), u->lr, u->a, u->b, u->c, u->l2, u->w + begin, u->g + begin, u->s1 + begin,
                      at(u->s2, begin));
}

void mo_cpu_rmsprop_step(struct mo_device *dev, size_t n, float lr, float alpha, float eps, float momentum, float l2,
                         float *w, const float *g, float *square, float *velocity)
{
    if (!dev->loops) {
        mo_ref_rmsprop_step(dev, n, lr, alpha, eps, momentum, l2, w, g, square, velocity);
        return;
    }
    struct update u = { .loops = dev->loops, .lr = lr, .a = alpha, .b = eps, .c = momentum, .l2 = l2, .w = w, .g = g,
                        .s1 = square, .s2 = velocity };
    mo_split(dev, (int64_t)n, mo_split_grain(2), rmsprop_range, &u);
}

static void axpy_range(void *arg, int64_t begin, int64_t end)
{
    const struct update *u = arg;
    u->loops->axpy((size_t)(end - begin), u->a, u->g + begin, u->w + begin, u->flag);
}

void mo_cpu_axpy(struct mo_device *dev, size_t n, float a, const float *x, float *y, bool add)
{
    if (!dev->loops || x == y) {
        mo_ref_axpy(dev, n, a, x, y, add);
        return;
    }
    struct update u = { .loops = dev->loops, .a = a, .flag = add, .w = y, .g = x };
    mo_split(dev, (int64_t)n, mo_split_grain(1), axpy_range, &u);
}

/* ---- sums over a fixed tree --------------------------------------------------------------------- */

#define SUM_BLOCK 16384
#define MAX_SUM_BLOCKS 4096

struct sum {
    const struct mo_loops *loops;
    const float *x;
    size_t n, block;
    double *partial;
};

static void sum_block(void *arg, int i)
{
    const struct sum *s = arg;
    size_t begin = (size_t)i * s->block, end = begin + s->block < s->n ? begin + s->block : s->n;
    s->partial[i] = s->loops->sum_squares(end - begin, s->x + begin);
}

void mo_cpu_sum_squares(struct mo_device *dev, size_t n, const float *x, double *sum)
{
    if (!dev->loops || n == 0) {
        mo_ref_sum_squares(dev, n, x, sum);
        return;
    }
    struct sum s = { dev->loops, x, n, SUM_BLOCK, dev->workspace };
    if ((n + s.block - 1) / s.block > MAX_SUM_BLOCKS)
        s.block = ((n + MAX_SUM_BLOCKS - 1) / MAX_SUM_BLOCKS + 15) / 16 * 16;
    int n_blocks = (int)((n + s.block - 1) / s.block);
    mo_team_run(dev->team, n_blocks, sum_block, &s);
    for (int step = 1; step < n_blocks; step *= 2)
        for (int i = 0; i + step < n_blocks; i += 2 * step)
            s.partial[i] += s.partial[i + step];
    *sum = s.partial[0];
}

/* ---- observers: smallest and largest, and whole counts, are the same in any order ------------------------------------ */

enum { OBSERVER_SLICES = 16, OBSERVER_ELEMS = 1 << 16, OBSERVER_TABLES = 4 };

struct observed {
    const struct mo_loops *loops;
    const float *x;
    size_t n, n_bins;
    int n_slices;
    float low, width;
    float range[OBSERVER_SLICES][2];
    uint64_t n_nan[OBSERVER_SLICES];
    uint32_t *counts;                   /* OBSERVER_TABLES x n_bins a slice */
};

static struct observed observe(const struct mo_device *dev, size_t n, const float *x)
{
    size_t slices = n / OBSERVER_ELEMS;
    return (struct observed){ .loops = dev->loops, .x = x, .n = n,
                              .n_slices = slices < 1 ? 1 : slices > OBSERVER_SLICES ? OBSERVER_SLICES : (int)slices };
}

static const float *observer_part(const struct observed *o, int i, size_t *n)
{
    size_t n_slices = (size_t)o->n_slices, begin = (size_t)i * o->n / n_slices;
    *n = ((size_t)i + 1) * o->n / n_slices - begin;
    return o->x + begin;
}

static void range_slice(void *arg, int i)
{
    struct observed *o = arg;
    size_t n;
    const float *x = observer_part(o, i, &n);
    o->loops->range(n, x, o->range[i], &o->n_nan[i]);
}

void mo_cpu_range(struct mo_device *dev, size_t n, const float *x, float *range, uint64_t *n_nan)
{
    if (!dev->loops) {
        mo_ref_range(dev, n, x, range, n_nan);
        return;
    }
    struct observed o = observe(dev, n, x);
    for (int i = 0; i < o.n_slices; i++)
        memcpy(o.range[i], range, sizeof o.range[i]);
    mo_team_run(dev->team, o.n_slices, range_slice, &o);
    for (int i = 0; i < o.n_slices; i++) {
        range[0] = o.range[i][0] < range[0] ? o.range[i][0] : range[0];
        range[1] = o.range[i][1] > range[1] ? o.range[i][1] : range[1];
        *n_nan += o.n_nan[i];
    }
}

static void histogram_slice(void *arg, int i)
{
    struct observed *o = arg;
    size_t n, table = OBSERVER_TABLES * o->n_bins;
    const float *x = observer_part(o, i, &n);
    memset(o->counts + (size_t)i * table, 0, table * sizeof *o->counts);
    o->loops->histogram(n, x, o->low, o->width, o->n_bins, o->counts + (size_t)i * table);
}

void mo_cpu_histogram(struct mo_device *dev, size_t n, const float *x, float low, float width, size_t n_bins,
                      uint64_t *counts)
{
    struct observed o = observe(dev, n, x);
    size_t n_tables = (size_t)o.n_slices * OBSERVER_TABLES;
    if (!dev->loops || n_bins > MO_WORKSPACE_BYTES / sizeof *o.counts / n_tables || n / n_tables > UINT32_MAX / 2) {
        mo_ref_histogram(dev, n, x, low, width, n_bins, counts);
        return;
    }
    o.n_bins = n_bins;
    o.low = low;
    o.width = width;
    o.counts = dev->workspace;
    mo_team_run(dev->team, o.n_slices, histogram_slice, &o);
    for (size_t t = 0; t < n_tables; t++)
        for (size_t b = 0; b < n_bins; b++)
            counts[b] += o.counts[t * n_bins + b];
}
