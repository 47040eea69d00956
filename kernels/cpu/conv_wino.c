/* conv_wino.c - see conv_wino.h. Tiles of the input are transformed, multiplied with the transformed weights place by place
 * (a product of matrices each: tiles x input channels x output channels), and transformed back.
 *
 * Tiles are taken in blocks whose transforms stay in the second level of cache; blocks are what threads share. Where there are
 * few blocks, or the weights are large, threads share the panels of output channels of one block instead, and
 * every weight is read once a block. */
#include "kernels/cpu/conv_wino.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "kernels/cpu/team.h"
#include "kernels/cpu/wino.h"

enum { MAX_SLICES = 16, MAX_TILES = 64, KERNEL_2 = 700, KERNEL_4 = 2000 };
/* Bytes of a block's transforms. */
#define BLOCK_BYTES ((int64_t)768 << 10)
/* Multiply-adds of the plain convolution worth a slice. */
#define SLICE_MACS (1 << 20)

struct mo_wino_conv {
    const struct mo_wino_loops *loops;
    struct mo_wino_image image;
    int64_t n_tiles, block;             /* tiles in all, and of a block */
    int64_t k;                          /* input channels, rounded up to vectors */
    int64_t panel, n_panels;            /* output channels that are computed together */
    int64_t in_plane, out_plane;        /* floats from place to place (wino.h) */
    int places, n_slices, n_rooms;      /* rooms: memory of slices that run at a time */
    bool by_panels;
    enum mo_act act;
    float lo, hi;
    int64_t w_out, w_in;                /* as wino.h has them */
    bool is_turned;
    float *packed;                      /* constant weights */
};

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static bool is_for_it(const struct mo_conv_desc *d)
{
    for (int i = 0; i < 2; i++)
        if (d->kernel[i] != 3 || d->stride[i] != 1 || d->dilation[i] != 1 || d->pad_begin[i] > 2 || d->out[i] < 1 ||
            d->in[i] < 1)
            return false;
    return d->n_spatial == 2 && d->groups == 1 && !d->is_bf16 && d->batch > 0 && d->in_channels > 0 && d->out_channels > 0;
}

/* ---- does it pay? ----------------------------------------------------------------------- */

static int64_t tiles_of(const struct mo_wino_image *p, int t)
{
    return ((p->out_h + t - 1) / t) * ((p->out_w + t - 1) / t);
}

/* Costs are in multiply-adds of a plain convolution. Reading a weight takes as long as 4 a byte, or 1 where they stay in the
 * second level of cache. */
static double reading(double weights)
{
    double bytes = weights * sizeof(float);
    return bytes * (bytes > 1 << 20 ? 4 : 1);
}

/* Products of their own are a little slower than those of a plain convolution. The transform of a tile takes as long as some
 * hundred for a channel; that of a kernel, where weights change, likewise. */
static double cost(const struct mo_wino_image *p, int64_t batch, int t, bool is_constant)
{
    double places = (t + 2) * (t + 2), tiles = (double)(batch * tiles_of(p, t));
    double channels = (double)p->in_channels * (double)p->out_channels;
    double transforms = (t == 4 ? 250 : 120) * (double)(p->in_channels + p->out_channels);
    double of_kernels = is_constant ? 0 : (t == 4 ? KERNEL_4 : KERNEL_2) * channels;
    return places * tiles * channels * 1.2 + tiles * transforms + reading(places * channels) + of_kernels;
}

/* 4, 2, or 0: a plain one is the faster. */
static int choose_t(const struct mo_wino_image *p, int64_t batch, bool is_constant)
{
    double channels = (double)p->in_channels * (double)p->out_channels;
    double plain = 9 * channels * (double)(batch * p->out_h * p->out_w) + reading(9 * channels);
    double by_2 = cost(p, batch, 2, is_constant), by_4 = cost(p, batch, 4, is_constant);
    if (p->in_channels < 8 || p->out_channels < 8)
        return 0;
    if (by_4 < by_2)
        return by_4 < 0.9 * plain ? 4 : 0;
    return by_2 < 0.9 * plain ? 2 : 0;
}

/* ---- making and freeing ------------------------------------------------------------------- */

static struct mo_wino_image image_of(const struct mo_conv_desc *d, bool of_input)
{
    if (of_input)
        return (struct mo_wino_image){ .in_h = d->out[0], .in_w = d->out[1], .out_h = d->in[0], .out_w = d->in[1],
                                       .pad_h = 2 - d->pad_begin[0], .pad_w = 2 - d->pad_begin[1],
                                       .in_channels = d->out_channels, .out_channels = d->in_channels };
    return (struct mo_wino_image){ .in_h = d->in[0], .in_w = d->in[1], .out_h = d->out[0], .out_w = d->out[1],
                                   .pad_h = d->pad_begin[0], .pad_w = d->pad_begin[1],
                                   .in_channels = d->in_channels, .out_channels = d->out_channels };
}

/* Blocks, panels and slices, from the sizes alone. */
static void cut(struct mo_wino_conv *c, int64_t batch)
{
    struct mo_wino_image *p = &c->image;
    const int64_t width = c->loops->width, outputs = round_up(p->out_channels, width);
    double macs = 9.0 * (double)(batch * p->out_h * p->out_w) * (double)p->in_channels * (double)p->out_channels;
    double wanted = macs / SLICE_MACS > MAX_SLICES ? MAX_SLICES : macs / SLICE_MACS;
    c->k = round_up(p->in_channels, width);
    c->panel = outputs > width ? 2 * width : width;
    bool is_heavy = (int64_t)sizeof(float) * c->places * c->k * outputs > 1 << 20;
    int64_t most = BLOCK_BYTES / ((int64_t)sizeof(float) * c->places * (c->k + c->panel));
    most = most > MAX_TILES || is_heavy ? MAX_TILES : most < 16 ? 16 : most;
    int64_t n_blocks = (c->n_tiles + most - 1) / most;
    c->by_panels = n_blocks < 4 && (is_heavy || c->n_tiles < 32);
    if (!c->by_panels && n_blocks < wanted && n_blocks < 4)
        n_blocks = wanted < 4 ? (int64_t)wanted : 4;
    c->block = (c->n_tiles + n_blocks - 1) / n_blocks;
    n_blocks = (c->n_tiles + c->block - 1) / c->block;
    if (c->by_panels && outputs == c->panel && wanted >= 2)
        c->panel = width;
    c->n_panels = (p->out_channels + c->panel - 1) / c->panel;
    int64_t units = c->by_panels ? c->n_panels : n_blocks;
    c->n_slices = wanted < 1 ? 1 : units < (int64_t)wanted ? (int)units : (int)wanted;
    c->in_plane = c->block * c->k + 16;
    c->out_plane = c->block * c->panel + 16;
}

static size_t weight_floats(const struct mo_wino_conv *c)
{
    return (size_t)(c->places * c->k * c->n_panels * c->panel);
}

static const struct mo_wino_loops *loops_of(enum mo_isa isa)
{
#if defined(__x86_64__)
    return isa == MO_ISA_C ? NULL : isa == MO_ISA_AVX2 ? &mo_wino_avx2 : &mo_wino_avx512;
#else
    (void)isa;
    return NULL;
#endif
}

struct mo_wino_conv *mo_wino_conv_new(struct mo_device *dev, const struct mo_conv_desc *d, bool of_input)
{
    bool is_simple = of_input || d->act == MO_ACT_NONE || d->act == MO_ACT_RELU || d->act == MO_ACT_CLIP;
    if (!loops_of(dev->isa) || !is_simple || !is_for_it(d))
        return NULL;
    struct mo_wino_image image = image_of(d, of_input);
    image.t = choose_t(&image, d->batch, d->constant_weights);
    struct mo_wino_conv *c = image.t ? malloc(sizeof *c) : NULL;
    if (!c)
        return NULL;
    *c = (struct mo_wino_conv){ .loops = loops_of(dev->isa), .image = image,
                                .places = (image.t + 2) * (image.t + 2), .act = of_input ? MO_ACT_NONE : d->act,
                                .lo = d->act_lo, .hi = d->act_hi, .is_turned = of_input,
                                .w_out = of_input ? 9 : 9 * d->in_channels, .w_in = of_input ? 9 * d->in_channels : 9 };
    c->image.tiles_h = (image.out_h + image.t - 1) / image.t;
    c->image.tiles_w = (image.out_w + image.t - 1) / image.t;
    c->n_tiles = d->batch * c->image.tiles_h * c->image.tiles_w;
    cut(c, d->batch);
    c->n_rooms = c->n_slices < dev->n_threads ? c->n_slices : dev->n_threads > 1 ? dev->n_threads : 1;
    if (!d->constant_weights)
        return c;
    c->packed = mo_cpu_alloc(weight_floats(c) * sizeof *c->packed);
    if (c->packed)
        return c;
    free(c);
    return NULL;
}

void mo_wino_conv_free(struct mo_wino_conv *c)
{
    if (!c)
        return;
    free(c->packed);
    free(c);
}

/* ---- running -------------------------------------------------------------------------------- */

static size_t in_floats(const struct mo_wino_conv *c)
{
    return (size_t)(c->places * c->in_plane);
}

static size_t out_floats(const struct mo_wino_conv *c)
{
    return (size_t)(c->places * c->out_plane);
}

/* Weights that are not constant; then the transforms of one block and rooms for products, or rooms for both. */
size_t mo_wino_conv_scratch_bytes(const struct mo_wino_conv *c)
{
    size_t inputs = c->by_panels ? 1 : (size_t)c->n_rooms;
    size_t floats = (c->packed ? 0 : weight_floats(c)) + inputs * in_floats(c) + (size_t)c->n_rooms * out_floats(c);
    return floats * sizeof(float);
}

struct job {
    const struct mo_wino_conv *c;
    const float *x, *w;                 /* w: as ONNX has it */
    const float *weights;               /* transformed */
    struct mo_wino_end end;
    float *y, *to, *in, *out;           /* to: where weights go */
    int64_t first, last;                /* the block, where slices are panels */
    atomic_uint taken;                  /* rooms, a bit each */
};

/* The first room that is free: a thread comes back to its own, which is still in its cache. What is computed does not
 * depend on it. */
static int take_room(struct job *j)
{
    unsigned taken = atomic_load_explicit(&j->taken, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&j->taken, &taken, taken | (taken + 1), memory_order_acquire,
                                                  memory_order_relaxed))
        ;
    return __builtin_ctz(~taken);
}

static void leave_room(struct job *j, int room)
{
    atomic_fetch_and_explicit(&j->taken, ~(1u << room), memory_order_release);
}

static int64_t share(int64_t n, int i, int of)
{
    return n * i / of;
}

static void weights_slice(void *arg, int i)
{
    const struct job *j = arg;
    const struct mo_wino_conv *c = j->c;
    int64_t each = c->places * c->k * c->panel;
    for (int64_t p = share(c->n_panels, i, c->n_slices); p < share(c->n_panels, i + 1, c->n_slices); p++) {
        int64_t n = c->image.out_channels - p * c->panel;
        c->loops->weights(&c->image, p * c->panel, n < c->panel ? n : c->panel, j->w, c->w_out, c->w_in,
                          c->is_turned, c->panel, j->to + p * each);
    }
}

/* One panel of output channels of the tiles first..last - 1. */
static void panel_of(const struct job *j, int64_t first, int64_t last, int64_t panel, const float *in, float *out)
{
    const struct mo_wino_conv *c = j->c;
    const float *w = j->weights + panel * c->places * c->k * c->panel;
    int64_t n = c->image.out_channels - panel * c->panel;
    for (int i = 0; i < c->places; i++)
        c->loops->product(last - first, c->k, c->panel, in + i * c->in_plane, c->block, w + i * c->k * c->panel,
                          out + i * c->out_plane);
    c->loops->out(&c->image, &j->end, first, last, panel * c->panel, n < c->panel ? n : c->panel, out, c->out_plane,
                  c->panel, j->y);
}

static void blocks_slice(void *arg, int i)
{
    struct job *j = arg;
    const struct mo_wino_conv *c = j->c;
    int room = take_room(j);
    float *in = j->in + (size_t)room * in_floats(c), *out = j->out + (size_t)room * out_floats(c);
    int64_t n_blocks = (c->n_tiles + c->block - 1) / c->block;
    for (int64_t b = share(n_blocks, i, c->n_slices); b < share(n_blocks, i + 1, c->n_slices); b++) {
        int64_t first = b * c->block, last = first + c->block < c->n_tiles ? first + c->block : c->n_tiles;
        c->loops->in(&c->image, first, last, j->x, c->block, 0, c->in_plane, in);
        for (int64_t p = 0; p < c->n_panels; p++)
            panel_of(j, first, last, p, in, out);
    }
    leave_room(j, room);
}

static void in_slice(void *arg, int i)
{
    const struct job *j = arg;
    const struct mo_wino_conv *c = j->c;
    int64_t n = j->last - j->first, first = share(n, i, c->n_slices), last = share(n, i + 1, c->n_slices);
    c->loops->in(&c->image, j->first + first, j->first + last, j->x, c->block, first, c->in_plane, j->in);
}

static void panels_slice(void *arg, int i)
{
    struct job *j = arg;
    const struct mo_wino_conv *c = j->c;
    int room = take_room(j);
    for (int64_t p = share(c->n_panels, i, c->n_slices); p < share(c->n_panels, i + 1, c->n_slices); p++)
        panel_of(j, j->first, j->last, p, j->in, j->out + (size_t)room * out_floats(c));
    leave_room(j, room);
}

void mo_wino_conv_pack(struct mo_device *dev, struct mo_wino_conv *c, const float *w)
{
    struct job j = { .c = c, .w = w, .to = c->packed };
    if (c->packed)
        mo_team_run(dev->team, c->n_slices, weights_slice, &j);
}

void mo_wino_conv(struct mo_device *dev, const struct mo_wino_conv *c, const float *x, const float *w, const float *bias,
                  const float *residual, float *y, void *scratch)
{
    struct job j = { .c = c, .x = x, .w = w, .weights = c->packed, .y = y,
                     .end = { .bias = bias, .residual = residual, .act = c->act, .lo = c->lo, .hi = c->hi } };
    j.in = scratch;
    if (!c->packed) {
        j.weights = j.to = scratch;
        j.in += weight_floats(c);
        mo_team_run(dev->team, c->n_slices, weights_slice, &j);
    }
    j.out = j.in + (c->by_panels ? 1 : (size_t)c->n_rooms) * in_floats(c);
    if (!c->by_panels) {
        mo_team_run(dev->team, c->n_slices, blocks_slice, &j);
        return;
    }
    for (j.first = 0; j.first < c->n_tiles; j.first = j.last) {
        j.last = j.first + c->block < c->n_tiles ? j.first + c->block : c->n_tiles;
        mo_team_run(dev->team, c->n_slices, in_slice, &j);
        mo_team_run(dev->team, c->n_slices, panels_slice, &j);
    }
}
