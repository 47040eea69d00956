/* conv_tile.c - a convolution with one spatial axis, a kernel of 1 and constant weights is the product of the pixels' rows
 * with the weights, which are packed once. Few rows are cut by columns as well: the weights are most of what is read then. */
#include "kernels/cpu/conv_tile.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/sgemm.h"
#include "kernels/cpu/team.h"

enum { ROWS = 96, MAX_SLICES = 16 };
/* Worth a slice: multiply-adds, or weights, since with few rows the time goes into reading these. */
#define SLICE_MACS (1 << 20)
#define SLICE_WEIGHTS (1 << 15)

struct mo_tile_conv {
    const struct mo_sgemm_loops *loops;
    int64_t m, n, k, row_blocks, column_blocks;
    enum mo_act act;
    float lo, hi;
    int n_slices;
    float *packed;
};

bool mo_tile_conv_takes(const struct mo_device *dev, const struct mo_conv_desc *d)
{
    bool is_simple = d->act == MO_ACT_NONE || d->act == MO_ACT_RELU || d->act == MO_ACT_CLIP;
    return mo_sgemm_loops(dev->isa) && is_simple && d->n_spatial == 1 && d->kernel[0] == 1 && d->stride[0] == 1 &&
           !d->pad_begin[0] && !d->pad_end[0] && d->groups == 1 && d->constant_weights && !d->is_bf16 &&
           !d->needs_grad_input && !d->needs_grad_weight && d->batch > 0 && d->in[0] > 0 && d->in_channels > 0 &&
           d->out_channels > 0;
}

static void cut(struct mo_tile_conv *c)
{
    int64_t n_panels = mo_sgemm_panels(c->loops, c->n);
    double weights = (double)c->n * (double)c->k;
    double wanted = fmax((double)c->m * weights / SLICE_MACS, weights / SLICE_WEIGHTS);
    c->row_blocks = (c->m + ROWS - 1) / ROWS;
    c->column_blocks = wanted < 2 || c->row_blocks >= 4 ? 1 : n_panels < 8 ? n_panels : 8;
    int64_t units = c->row_blocks * c->column_blocks;
    c->n_slices = wanted < 1 ? 1 : wanted > MAX_SLICES ? MAX_SLICES : (int)wanted;
    if (c->n_slices > units)
        c->n_slices = (int)units;
}

struct mo_tile_conv *mo_tile_conv_new(struct mo_device *dev, const struct mo_conv_desc *d)
{
    const struct mo_sgemm_loops *loops = mo_sgemm_loops(dev->isa);
    struct mo_tile_conv *c = malloc(sizeof *c);
    if (!c)
        return NULL;
    *c = (struct mo_tile_conv){ .loops = loops, .m = d->batch * d->in[0], .n = d->out_channels, .k = d->in_channels,
                                .act = d->act, .lo = d->act_lo, .hi = d->act_hi };
    cut(c);
    c->packed = mo_cpu_alloc(mo_sgemm_packed_floats(loops, c->n, c->k) * sizeof *c->packed);
    if (c->packed)
        return c;
    free(c);
    return NULL;
}

void mo_tile_conv_free(struct mo_tile_conv *c)
{
    if (!c)
        return;
    free(c->packed);
    free(c);
}

void mo_tile_conv_pack(struct mo_tile_conv *c, const float *w)
{
    mo_sgemm_pack(c->loops, true, c->n, c->k, w, c->k, c->packed);
}

struct job {
    const struct mo_tile_conv *c;
    const float *x, *bias, *residual;
    float *y;
};

/* Some rows and some panels, over all of k: in turn the blocks of k as they were packed. */
static void unit(const struct job *j, int64_t u)
{
    const struct mo_tile_conv *c = j->c;
    const int64_t panel = c->loops->panel, n_panels = mo_sgemm_panels(c->loops, c->n);
    int64_t row = u / c->column_blocks * ROWS, column = u % c->column_blocks;
    int64_t first = column * n_panels / c->column_blocks, last = (column + 1) * n_panels / c->column_blocks;
    int64_t at = row * c->n + first * panel;
    struct mo_sgemm_block b = { .m = c->m - row < ROWS ? c->m - row : ROWS, .a_row = c->k, .a_col = 1, .b_row = panel,
                                .c = j->y + at, .ldc = c->n, .alpha = 1 };
    b.n = last * panel < c->n ? (last - first) * panel : c->n - first * panel;
    for (int64_t k0 = 0; k0 < c->k; k0 += b.k) {
        b.k = c->k - k0 < MO_SGEMM_K ? c->k - k0 : MO_SGEMM_K;
        b.a = j->x + row * c->k + k0;
        b.b = c->packed + k0 * n_panels * panel + first * panel * b.k;
        b.b_panel = panel * b.k;
        b.beta = k0 ? 1 : 0;
        if (k0 + b.k == c->k) {
            b.bias = j->bias ? j->bias + first * panel : NULL;
            b.residual = j->residual ? j->residual + at : NULL;
            b.act = c->act;
            b.lo = c->lo;
            b.hi = c->hi;
        }
        c->loops->block(&b);
    }
}

static void slice(void *arg, int i)
{
    const struct job *j = arg;
    int64_t units = j->c->row_blocks * j->c->column_blocks;
    for (int64_t u = i * units / j->c->n_slices; u < (i + 1) * units / j->c->n_slices; u++)
        unit(j, u);
}

void mo_tile_conv(struct mo_device *dev, const struct mo_tile_conv *conv, const float *x, const float *bias,
                  const float *residual, float *y)
{
    struct job j = { conv, x, bias, residual, y };
    mo_team_run(dev->team, conv->n_slices, slice, &j);
}
