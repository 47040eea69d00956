/* DeformConv (Zhu et al. 2019): a convolution of images whose taps are read beside their places in the grid, by an
 * offset (rows, columns) for each tap and place of y, and weighed by a mask:
 *
 *     y[o, p] = b[o] + sum over c, t of w[o, c, t] mask[t, p] x(c, place of tap t in window p + offset[t, p])
 *
 * x between pixels is interpolated from the four around, pixels outside count as 0. Channels of x in `offset_group`
 * groups have offsets and masks of their own. What is read becomes the columns of a matrix, then it is a product. */
#include <math.h>

#include "lib/ops/host.h"
#include "lib/ops/window.h"

enum { IN_X, IN_W, IN_OFFSET, IN_B, IN_MASK };

struct deform_conv {
    struct mo_window window;
    int64_t groups, offset_groups;
};

static bool agrees(int64_t a, int64_t b)
{
    return a == MO_UNKNOWN || b == MO_UNKNOWN || a == b;
}

/* Offsets (2 to a tap) or masks (1): batch x offset_groups taps parts x places of y. */
static enum mopt_status check_field(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, uint32_t i,
                                    int64_t parts, const struct mo_shape *y)
{
    const struct deform_conv *p = n->params;
    const struct mo_value *v = mo_in(g, n, i);
    char text[128];
    if (!v || v->shape.rank == MO_UNKNOWN)
        return MOPT_OK;
    int64_t taps = mo_window_taps(&p->window);
    bool fits = v->shape.rank == 4 && agrees(v->shape.dim[0], y->dim[0]) && agrees(v->shape.dim[2], y->dim[2]) &&
                agrees(v->shape.dim[3], y->dim[3]);
    if (fits && taps != MO_UNKNOWN)
        fits = agrees(v->shape.dim[1], mo_product((int64_t[]){ p->offset_groups, taps, parts }, 3));
    if (fits)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "input %u is %s, it should have %lld numbers for each tap of %lld groups and each place",
                   i, mo_shape_text(&v->shape, text, sizeof text), (long long)parts, (long long)p->offset_groups);
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct deform_conv *p = n->params;
    const struct mo_value *x = mo_in(g, n, IN_X), *w = mo_in(g, n, IN_W), *b = mo_in(g, n, IN_B);
    if (x->shape.rank == MO_UNKNOWN || w->shape.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    if (x->shape.rank != 4 || w->shape.rank != 4)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "an input of rank %d and a weight of rank %d, both should be 4", x->shape.rank,
                       w->shape.rank);
    p->groups = mo_node_int(n, "group", 1);
    p->offset_groups = mo_node_int(n, "offset_group", 1);
    int64_t channels = x->shape.dim[1], filters = w->shape.dim[0];
    if (p->groups < 1 || p->offset_groups < 1 || p->groups > INT32_MAX || p->offset_groups > INT32_MAX ||
        (channels != MO_UNKNOWN && (channels % p->groups || channels % p->offset_groups)) ||
        (channels != MO_UNKNOWN && w->shape.dim[1] != MO_UNKNOWN && channels != w->shape.dim[1] * p->groups) ||
        (filters != MO_UNKNOWN && filters % p->groups) || (b && !agrees(mo_value_elems(b), filters)))
        return mo_fail(ctx, MOPT_DATA, "%lld channels in %lld groups and %lld of offsets do not fit the weight or bias",
                       (long long)channels, (long long)p->groups, (long long)p->offset_groups);
    MO_TRY(mo_window_read(ctx, n, &x->shape, &w->shape, &p->window));
    MO_TRY(mo_window_slide(ctx, &p->window));
    struct mo_shape y = mo_window_shape(&p->window, x->shape.dim[0], filters, p->window.out);
    MO_TRY(check_field(ctx, g, n, IN_OFFSET, 2, &y));
    MO_TRY(check_field(ctx, g, n, IN_MASK, 1, &y));
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    for (uint32_t i = IN_X; i <= IN_MASK; i++)
        if (mo_in(r->graph, n, i) && mo_in(r->graph, n, i)->dtype != MO_F32)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", i,
                           mo_dtype_name(mo_in(r->graph, n, i)->dtype));
    return MOPT_OK;
}

/* ---- the columns of one group of one image: (channels of the group x taps) x places ---- */

static float pixel(const float *x, int64_t height, int64_t width, float row, float column)
{
    if (!(row > -1 && column > -1 && row < (float)height && column < (float)width))
        return 0;
    int64_t top = (int64_t)floorf(row), left = (int64_t)floorf(column);
    float down = row - (float)top, right = column - (float)left, sum = 0;
    for (int k = 0; k < 4; k++) {
        int64_t i = top + k / 2, j = left + k % 2;
        if (i >= 0 && j >= 0 && i < height && j < width)
            sum += x[i * width + j] * (k / 2 ? down : 1 - down) * (k % 2 ? right : 1 - right);
    }
    return sum;
}

struct columns {
    const struct deform_conv *p;
    int64_t channels, height, width, group_channels, taps, places;
    const float *x, *offset, *mask;         /* of one image; mask may be NULL */
    float *to;
};

static void fill_row(const struct columns *c, int64_t channel, int64_t tap, float *to)
{
    const struct mo_window *w = &c->p->window;
    int64_t field = channel / (c->channels / c->p->offset_groups) * c->taps + tap;
    const float *down = c->offset + 2 * field * c->places, *right = down + c->places;
    const float *mask = c->mask ? c->mask + field * c->places : NULL;
    int64_t row = tap / w->kernel[1] * w->dilation[0] - w->pad_begin[0];
    int64_t column = tap % w->kernel[1] * w->dilation[1] - w->pad_begin[1];
    for (int64_t p = 0; p < c->places; p++) {
        float i = (float)(p / w->out[1] * w->stride[0] + row) + down[p];
        float j = (float)(p % w->out[1] * w->stride[1] + column) + right[p];
        float v = pixel(c->x + channel * c->height * c->width, c->height, c->width, i, j);
        to[p] = mask ? v * mask[p] : v;
    }
}

static void fill_columns(const struct columns *c, int64_t group)
{
    for (int64_t k = 0; k < c->group_channels; k++)
        for (int64_t t = 0; t < c->taps; t++)
            fill_row(c, group * c->group_channels + k, t, c->to + (k * c->taps + t) * c->places);
}

static struct columns describe(const struct mo_run *r, const struct mo_node *n)
{
    const struct deform_conv *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, IN_X)->shape;
    return (struct columns){ .p = p, .channels = x->dim[1], .height = x->dim[2], .width = x->dim[3],
                             .group_channels = x->dim[1] / p->groups, .taps = mo_window_taps(&p->window),
                             .places = p->window.out[0] * p->window.out[1] };
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    struct columns c = describe(r, n);
    int64_t elems = mo_product((int64_t[]){ c.group_channels, c.taps, c.places }, 3);
    return backward ? 0 : elems == MO_UNKNOWN ? SIZE_MAX / 2 : (size_t)elems * sizeof(float);
}

/* y begins as the bias. */
static enum mopt_status put_bias(struct mo_run *r, const struct mo_node *n, struct mo_host *h)
{
    const struct mo_shape *y = &mo_out(r->graph, n, 0)->shape;
    size_t n_y = mo_run_out_elems(r, n, 0), places = (size_t)(y->dim[2] * y->dim[3]);
    float *all = mo_mem_new(n_y + 1, sizeof *all);
    if (!all)
        return mo_no_memory(r->ctx, n_y * sizeof *all, "a result");
    for (size_t i = 0; h->in[IN_B] && i < n_y; i++)
        all[i] = ((const float *)h->in[IN_B])[i / places % (size_t)y->dim[1]];
    mo_host_put(h, 0, all);
    mo_mem_free(all);
    return MOPT_OK;
}

static enum mopt_status convolve(struct mo_run *r, const struct mo_node *n, struct mo_host *h, float *mem)
{
    const struct deform_conv *p = n->params;
    struct columns c = describe(r, n);
    int64_t filters = mo_in(r->graph, n, IN_W)->shape.dim[0] / p->groups, depth = c.group_channels * c.taps;
    float *y = mo_run_out(r, n, 0), *at = mo_run_scratch(r, n);
    const float *w = mo_run_in(r, n, IN_W), *x = h->in[IN_X], *offset = h->in[IN_OFFSET], *mask = h->in[IN_MASK];
    c.to = r->be->is_host ? at : mem;
    for (int64_t image = 0; image < mo_out(r->graph, n, 0)->shape.dim[0]; image++) {
        MO_TRY(mo_stopped(r->ctx));
        c.x = x + image * c.channels * c.height * c.width;
        c.offset = offset + image * p->offset_groups * c.taps * 2 * c.places;
        c.mask = mask ? mask + image * p->offset_groups * c.taps * c.places : NULL;
        for (int64_t group = 0; group < p->groups; group++) {
            fill_columns(&c, group);
            if (!r->be->is_host)
                r->be->upload(r->dev, at, mem, (size_t)(depth * c.places) * sizeof(float));
            r->be->gemm(r->dev, false, false, filters, c.places, depth, 1, w + group * filters * depth, depth, at,
                        c.places, 1, y + (image * p->groups + group) * filters * c.places, c.places, NULL);
        }
    }
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    size_t bytes = scratch_bytes(r, n, false);
    float *mem = r->be->is_host ? NULL : mo_mem_new(bytes + 1, 1);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !r->be->is_host && !mem)
        status = mo_no_memory(r->ctx, bytes, "the columns of a convolution");
    if (!status)
        status = put_bias(r, n, &h);
    if (!status && bytes && mo_run_out_elems(r, n, 0))
        status = convolve(r, n, &h, mem);
    mo_mem_free(mem);
    mo_host_close(&h);
    return status;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *w = &mo_in(g, n, IN_W)->shape;
    if (w->rank != 4)
        return MO_UNKNOWN;
    return mo_product((int64_t[]){ mo_shape_elems(&mo_out(g, n, 0)->shape), w->dim[1], w->dim[2], w->dim[3] }, 4);
}

const struct mo_op mo_op_deform_conv = {
    .type = "DeformConv",
    .since_opset = 19,
    .min_in = 3, .max_in = 5, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct deform_conv),
    .infer = infer, .prepare = prepare, .forward = forward, .scratch_bytes = scratch_bytes,
    .macs = macs, .params_in = 1u << IN_W | 1u << IN_B,
};
