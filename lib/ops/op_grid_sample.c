/* GridSample: an image read at the places of a grid, coordinates in -1 .. 1, the last axis first: from the centre of the
 * first pixel to that of the last (align_corners), or from edge to edge. */
#include <string.h>

#include "lib/ops/tensor.h"

struct grid_sample {
    enum mo_sample_mode mode;
    enum mo_sample_padding padding;
    bool align_corners;
};

static enum mopt_status read_attrs(struct mopt_ctx *ctx, const struct mo_node *n, struct grid_sample *p)
{
    static const char *const modes[] = { "nearest", "linear", "cubic", "bilinear", "bicubic" };     /* opset 16: bi- */
    static const char *const paddings[] = { "zeros", "border", "reflection" };
    const char *mode = mo_node_text(n, "mode", "linear"), *padding = mo_node_text(n, "padding_mode", "zeros");
    size_t m = 0, k = 0;
    while (m < MO_COUNT(modes) && strcmp(mode, modes[m]))
        m++;
    while (k < MO_COUNT(paddings) && strcmp(padding, paddings[k]))
        k++;
    if (m == MO_COUNT(modes) || k == MO_COUNT(paddings))
        return mo_fail(ctx, MOPT_DATA, "mode '%s' with padding '%s' is not known", mode, padding);
    p->mode = m == 0 ? MO_SAMPLE_NEAREST : m == 1 || m == 3 ? MO_SAMPLE_LINEAR : MO_SAMPLE_CUBIC;
    p->padding = k == 0 ? MO_SAMPLE_ZEROS : k == 1 ? MO_SAMPLE_BORDER : MO_SAMPLE_REFLECT;
    p->align_corners = mo_node_int(n, "align_corners", 0) != 0;
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0), *grid = mo_in(g, n, 1);
    struct mo_shape y = x->shape;
    char text_x[128], text_grid[128];
    MO_TRY(read_attrs(ctx, n, n->params));
    if (x->shape.rank == MO_UNKNOWN || grid->shape.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    int rank = x->shape.rank;
    int64_t last = grid->shape.rank > 0 ? grid->shape.dim[grid->shape.rank - 1] : 0;
    bool fits = rank >= 3 && grid->shape.rank == rank && (last == MO_UNKNOWN || last == rank - 2);
    if (fits && x->shape.dim[0] != MO_UNKNOWN && grid->shape.dim[0] != MO_UNKNOWN)
        fits = x->shape.dim[0] == grid->shape.dim[0];
    if (!fits)
        return mo_fail(ctx, MOPT_DATA, "an image of %s and a grid of %s do not fit",
                       mo_shape_text(&x->shape, text_x, sizeof text_x),
                       mo_shape_text(&grid->shape, text_grid, sizeof text_grid));
    for (int k = 2; k < rank; k++)
        y.dim[k] = grid->shape.dim[k - 1];
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    if (x->rank > 5)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "%d spatial axes, at most 3 are computed", x->rank - 2);
    if (mo_shape_elems(y) && mo_dims_product(x, 2, x->rank) == 0)
        return mo_fail(r->ctx, MOPT_DATA, "an image without pixels is read");
    return mo_prepare_float32(r, n);
}

static struct mo_sample_desc describe(const struct mo_run *r, const struct mo_node *n)
{
    const struct grid_sample *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    struct mo_sample_desc d = { .mode = p->mode, .padding = p->padding, .n_axes = x->rank - 2, .batch = x->dim[0],
                                .channels = x->dim[1], .n_places = mo_dims_product(y, 2, y->rank) };
    for (int k = 0; k < d.n_axes; k++) {
        float size = (float)x->dim[2 + k];
        d.in[k] = x->dim[2 + k];
        d.shift[k] = (size - 1) / 2;
        d.scale[k] = p->align_corners ? (size - 1) / 2 : size / 2;
        d.low[k] = p->align_corners ? 0.0f : -0.5f;
        d.high[k] = size - 1 - d.low[k];
    }
    return d;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_sample_desc d = describe(r, n);
    r->be->sample(r->dev, &d, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_sample_desc d = describe(r, n);
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        mo_run_zero(r, mo_run_in_elems(r, n, 0), dx);
    r->be->sample_grad(r->dev, &d, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_grad_out(r, n, 0), dx,
                       mo_run_grad_in(r, n, 1));
    return MOPT_OK;
}

/* A multiply-add for each tap. */
static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct grid_sample *p = n->params;
    const struct mo_shape *y = &mo_out(g, n, 0)->shape;
    int64_t taps = 1;
    for (int k = 2; k < y->rank; k++)
        taps *= p->mode == MO_SAMPLE_NEAREST ? 1 : p->mode == MO_SAMPLE_LINEAR ? 2 : 4;
    return mo_product((int64_t[]){ mo_shape_elems(y), taps }, 2);
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_couple_image(c, g, n);
    mo_couple_wall(c, n->in[1], -1, "a grid");
}

const struct mo_op mo_op_grid_sample = {
    .type = "GridSample",
    .since_opset = 16,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct grid_sample),
    .infer = infer, .prepare = prepare, .forward = forward, .backward = backward,
    .macs = macs, .couple = couple,
    .backward_reads = 3,
};
