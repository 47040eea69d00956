/* conv_few.c - see conv_few.h. Rows of the output are taken in strips; the rows that a strip reads are copied with
 * their padding, which is little beside what comes out. */
#include "kernels/cpu/conv_few.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/few.h"
#include "kernels/cpu/team.h"

enum { MAX_SLICES = 16, MAX_TAPS = 512, STRIP_FLOATS = 8192, MAX_CHANNELS = 4, SHORT_SUM = 36 };
/* Multiply-adds worth a slice. */
#define SLICE_MACS (1 << 19)

struct mo_few_conv {
    const struct mo_few_loops *loops;
    struct mo_conv_desc d;
    int64_t row;                        /* floats of a padded row */
    int64_t strip, n_strips;            /* output rows taken together; strips of all pictures */
    int n_slices, n_k;
    int at[MAX_TAPS];
    float *packed;
};

static const struct mo_few_loops *loops_of(enum mo_isa isa)
{
#if defined(__x86_64__)
    return isa < MO_ISA_AVX512 ? NULL : &mo_few_avx512;
#else
    (void)isa;
    return NULL;
#endif
}

static int64_t reach(const struct mo_conv_desc *d, int axis)
{
    return (d->kernel[axis] - 1) * d->dilation[axis] + 1;
}

static int64_t row_floats(const struct mo_conv_desc *d)
{
    return ((d->out[1] - 1) * d->stride[1] + reach(d, 1)) * d->in_channels;
}

/* With three or four channels oneDNN is as good unless sums are short (docs/PERFORMANCE.md). */
static bool takes(const struct mo_few_loops *l, const struct mo_conv_desc *d)
{
    bool is_simple = d->act == MO_ACT_NONE || d->act == MO_ACT_RELU || d->act == MO_ACT_CLIP;
    bool pays = d->in_channels <= 2 || (d->stride[1] == 1 && d->kernel[0] * d->kernel[1] * d->in_channels <= SHORT_SUM);
    return pays && is_simple && !d->adds_residual && d->n_spatial == 2 && d->groups == 1 && !d->is_bf16 &&
           d->batch > 0 && d->in_channels > 0 && d->in_channels <= MAX_CHANNELS && d->out_channels >= 8 &&
           d->out[0] > 0 && d->out[1] >= l->least && d->pad_begin[1] < reach(d, 1) &&
           mo_few_takes_step(d->stride[1] * d->in_channels) &&
           d->kernel[0] * d->kernel[1] * d->in_channels <= MAX_TAPS && reach(d, 0) * row_floats(d) <= STRIP_FLOATS;
}

static size_t weight_floats(const struct mo_few_conv *c)
{
    int64_t panel = c->loops->panel;
    return (size_t)((c->d.out_channels + panel - 1) / panel * panel * c->n_k);
}

static void cut(struct mo_few_conv *c)
{
    const struct mo_conv_desc *d = &c->d;
    double wanted = (double)(d->batch * d->out[0] * d->out[1] * d->out_channels) * c->n_k / SLICE_MACS;
    c->row = row_floats(d);
    int64_t most = (STRIP_FLOATS / c->row - reach(d, 0)) / d->stride[0] + 1;
    int64_t strips = (d->out[0] + most - 1) / most;
    if (d->batch == 1 && strips < 4 && wanted >= 2)
        strips = d->out[0] < 4 ? d->out[0] : 4;
    c->strip = (d->out[0] + strips - 1) / strips;
    c->n_strips = (d->out[0] + c->strip - 1) / c->strip * d->batch;
    c->n_slices = wanted < 1 ? 1 : wanted > MAX_SLICES ? MAX_SLICES : (int)wanted;
    if (c->n_slices > c->n_strips)
        c->n_slices = (int)c->n_strips;
}

struct mo_few_conv *mo_few_conv_new(struct mo_device *dev, const struct mo_conv_desc *d)
{
    const struct mo_few_loops *loops = loops_of(dev->isa);
    struct mo_few_conv *c = loops && takes(loops, d) ? calloc(1, sizeof *c) : NULL;
    if (!c)
        return NULL;
    c->loops = loops;
    c->d = *d;
    for (int64_t i = 0; i < d->kernel[0]; i++)
        for (int64_t j = 0; j < d->kernel[1]; j++)
            for (int64_t k = 0; k < d->in_channels; k++)
                c->at[c->n_k++] = (int)(i * d->dilation[0] * row_floats(d) + j * d->dilation[1] * d->in_channels + k);
    cut(c);
    if (d->constant_weights)
        c->packed = mo_cpu_alloc(weight_floats(c) * sizeof *c->packed);
    if (!c->packed && d->constant_weights) {
        mo_few_conv_free(c);
        return NULL;
    }
    return c;
}

void mo_few_conv_free(struct mo_few_conv *c)
{
    if (c)
        free(c->packed);
    free(c);
}

size_t mo_few_conv_scratch_bytes(const struct mo_few_conv *c)
{
    return c->packed ? 0 : weight_floats(c) * sizeof *c->packed;
}

static void pack(const struct mo_few_conv *c, const float *w, float *to)
{
    const struct mo_conv_desc *d = &c->d;
    const int64_t panel = c->loops->panel, taps = d->kernel[0] * d->kernel[1];
    memset(to, 0, weight_floats(c) * sizeof *to);
    for (int64_t o = 0; o < d->out_channels; o++)
        for (int64_t k = 0; k < d->in_channels; k++)
            for (int64_t t = 0; t < taps; t++)
                to[o / panel * panel * c->n_k + (t * d->in_channels + k) * panel + o % panel] = *w++;
}

void mo_few_conv_pack(struct mo_few_conv *c, const float *w)
{
    if (c->packed)
        pack(c, w, c->packed);
}

struct job {
    const struct mo_few_conv *c;
    const float *x, *weights, *bias;
    float *y;
};

/* The rows from `top` on, with their padding. */
static void copy_rows(const struct mo_few_conv *c, const float *image, int64_t top, int64_t n, float *to)
{
    const struct mo_conv_desc *d = &c->d;
    int64_t front = d->pad_begin[1] * d->in_channels, length = d->in[1] * d->in_channels;
    if (length > c->row - front)
        length = c->row - front;
    for (int64_t i = top; i < top + n; i++, to += c->row) {
        if (i < 0 || i >= d->in[0] || length <= 0) {
            memset(to, 0, (size_t)c->row * sizeof *to);
            continue;
        }
        memset(to, 0, (size_t)front * sizeof *to);
        memcpy(to + front, image + i * d->in[1] * d->in_channels, (size_t)length * sizeof *to);
        memset(to + front + length, 0, (size_t)(c->row - front - length) * sizeof *to);
    }
}

static void strip_of(const struct job *j, int64_t s, float *rows)
{
    const struct mo_few_conv *c = j->c;
    const struct mo_conv_desc *d = &c->d;
    int64_t each = (d->out[0] + c->strip - 1) / c->strip, n = s / each, first = s % each * c->strip;
    int64_t last = first + c->strip < d->out[0] ? first + c->strip : d->out[0];
    copy_rows(c, j->x + n * d->in[0] * d->in[1] * d->in_channels, first * d->stride[0] - d->pad_begin[0],
              (last - first - 1) * d->stride[0] + reach(d, 0), rows);
    struct mo_few_row r = { .at = c->at, .n_k = c->n_k, .step = (int)(d->stride[1] * d->in_channels), .w = j->weights,
                            .bias = j->bias, .n_pixels = d->out[1], .n_out = d->out_channels, .act = d->act,
                            .lo = d->act_lo, .hi = d->act_hi };
    for (int64_t i = first; i < last; i++) {
        r.x = rows + (i - first) * d->stride[0] * c->row;
        r.y = j->y + (n * d->out[0] + i) * d->out[1] * d->out_channels;
        c->loops->row(&r);
    }
}

static void slice(void *arg, int i)
{
    const struct job *j = arg;
    float rows[STRIP_FLOATS];
    for (int64_t s = i * j->c->n_strips / j->c->n_slices; s < (i + 1) * j->c->n_strips / j->c->n_slices; s++)
        strip_of(j, s, rows);
}

void mo_few_conv(struct mo_device *dev, const struct mo_few_conv *c, const float *x, const float *w, const float *bias,
                 float *y, void *scratch)
{
    struct job j = { c, x, c->packed, bias, y };
    if (!c->packed) {
        pack(c, w, scratch);
        j.weights = scratch;
    }
    mo_team_run(dev->team, c->n_slices, slice, &j);
}
