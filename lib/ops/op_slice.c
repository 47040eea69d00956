/* Slice: y = x[start : end : step] on some axes; steps may be negative.
 * dx is zero but for the part that y was made of. */
#include "lib/ops/tensor.h"

struct slice {
    int64_t start[MO_MAX_RANK], step[MO_MAX_RANK];      /* by axis of x; first element taken */
};

/* What the node says, one entry for each axis that is cut. */
struct cut {
    int n, axes[MO_MAX_RANK];
    int64_t start[MO_MAX_RANK], end[MO_MAX_RANK], step[MO_MAX_RANK];
    bool has_unknown;           /* some of it is computed by the model */
};

static enum mopt_status read_cut(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, int rank,
                                 struct cut *c)
{
    int n_start, n_end, n_axes, n_step = -1;
    MO_TRY(mo_ints_given(ctx, g, n, "starts", 1, c->start, MO_MAX_RANK, &n_start));
    MO_TRY(mo_ints_given(ctx, g, n, "ends", 2, c->end, MO_MAX_RANK, &n_end));
    MO_TRY(mo_axes_given(ctx, g, n, 3, rank, c->axes, &n_axes));
    MO_TRY(mo_ints_given(ctx, g, n, "steps", 4, c->step, MO_MAX_RANK, &n_step));
    c->has_unknown = n_start == -2 || n_end == -2 || n_axes == -2 || n_step == -2;
    if (c->has_unknown)
        return MOPT_OK;
    if (n_start < 0 || n_end != n_start || (n_axes >= 0 && n_axes != n_start) || (n_step >= 0 && n_step != n_start) ||
        n_start > rank)
        return mo_fail(ctx, MOPT_DATA, "%d starts, %d ends, %d axes and %d steps for a rank of %d", n_start, n_end, n_axes,
                       n_step, rank);
    c->n = n_start;
    for (int k = 0; k < c->n; k++) {
        if (n_axes < 0)
            c->axes[k] = k;
        if (n_step < 0)
            c->step[k] = 1;
        if (c->step[k] == 0)
            return mo_fail(ctx, MOPT_DATA, "a step is 0");
    }
    return MOPT_OK;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* numpy's rule; the count of elements taken. */
static int64_t resolve(int64_t dim, int64_t step, int64_t *start, int64_t end)
{
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;
    *start = clamp(*start < 0 ? *start + dim : *start, step > 0 ? 0 : low, high);
    end = clamp(end < 0 ? end + dim : end, low, high);
    if (step > 0)
        return end > *start ? (end - *start + step - 1) / step : 0;
    return end < *start ? (*start - end - step - 1) / -step : 0;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct slice *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    struct cut c;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (y.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    MO_TRY(read_cut(ctx, g, n, y.rank, &c));
    for (int axis = 0; axis < y.rank; axis++)
        p->step[axis] = 1;
    if (c.has_unknown) {        /* any axis may be cut unless they are named */
        int axes[MO_MAX_RANK], n_axes;
        MO_TRY(mo_axes_given(ctx, g, n, 3, y.rank, axes, &n_axes));
        for (int axis = 0; axis < y.rank; axis++)
            if (n_axes < 0)
                y.dim[axis] = MO_UNKNOWN;
        for (int k = 0; k < n_axes; k++)
            y.dim[axes[k]] = MO_UNKNOWN;
        mo_set_out(g, n, 0, x->dtype, &y);
        return MOPT_OK;
    }
    for (int k = 0; k < c.n; k++) {
        int axis = c.axes[k];
        if (y.dim[axis] == MO_UNKNOWN)
            continue;
        y.dim[axis] = resolve(x->shape.dim[axis], c.step[k], &c.start[k], c.end[k]);
        p->start[axis] = y.dim[axis] ? c.start[k] : 0;
        p->step[axis] = c.step[k];
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    if (y.rank == 1 && y.dim[0] != MO_UNKNOWN && (x->known || x->data)) {
        int64_t *known = mo_known_out(g, n, 0);
        for (int64_t k = 0; known && k < y.dim[0]; k++)
            known[k] = mo_known_in(g, n, 0, p->start[0] + k * p->step[0]);
    }
    return MOPT_OK;
}

/* Strides of x as y walks it, and where it begins. */
static int64_t walk(const struct mo_shape *x, const struct slice *p, int64_t *stride)
{
    int64_t begin = 0;
    mo_dense_strides(x, stride);
    for (int axis = 0; axis < x->rank; axis++) {
        begin += p->start[axis] * stride[axis];
        stride[axis] *= p->step[axis];
    }
    return begin;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    int64_t stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], begin = walk(&x->shape, n->params, stride_x);
    size_t bytes = mo_elem_bytes(x->dtype);
    mo_dense_strides(&y->shape, stride_y);
    r->be->copy_strided(r->dev, bytes, y->shape.rank, y->shape.dim, stride_x, stride_y,
                        (const char *)mo_run_in(r, n, 0) + (size_t)begin * bytes, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    float *dx = mo_run_grad_in(r, n, 0);
    const float *dy = mo_run_grad_out(r, n, 0);
    int64_t stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], begin = walk(x, n->params, stride_x);
    if (!dx)
        return MOPT_OK;
    mo_dense_strides(y, stride_y);
    if (!mo_run_adds(r, n, 0)) {
        mo_zero(r, sizeof *dx, mo_shape_elems(x), dx);
        r->be->copy_strided(r->dev, sizeof *dx, y->rank, y->dim, stride_y, stride_x, dy, dx + begin);
    } else {
        r->be->add_strided(r->dev, y->rank, y->dim, stride_y, stride_x, dy, dx + begin);
    }
    return MOPT_OK;
}

/* A part from the middle cannot be mended from sizes alone, so its channels stay. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct slice *p = n->params;
    const struct mo_shape *x = &mo_in(g, n, 0)->shape, *y = &mo_out(g, n, 0)->shape;
    for (int axis = 0; axis < y->rank; axis++) {
        int64_t start = p->start[axis], count = y->dim[axis];
        if (p->step[axis] != 1 || (start != 0 && start + count != x->dim[axis])) {
            mo_couple_wall(c, n->in[0], axis, "a slice from the middle");
            mo_couple_wall(c, n->out[0], axis, "a slice from the middle");
        } else {
            mo_couple_offset(c, n->in[0], axis, start, n->out[0], axis, 0, count);
        }
    }
}

/* starts or ends of `axis` become v. */
static enum mopt_status set_entry(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const char *attr,
                                  uint32_t input, int k, int64_t v)
{
    int64_t values[MO_MAX_RANK];
    int count;
    MO_TRY(mo_ints_given(ctx, g, n, attr, input, values, MO_MAX_RANK, &count));
    if (k >= count)
        return MOPT_OK;
    values[k] = v;
    if (!mo_in(g, n, input))
        return mo_node_set_ints(g, (mo_node_id)(n - g->nodes), attr, values, (size_t)count)
                   ? MOPT_OK
                   : mo_no_memory(ctx, sizeof values, attr);
    return mo_replace_ints(ctx, g, n, input, values, count);
}

static enum mopt_status refit(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const struct mo_shape *was)
{
    const struct mo_shape x = mo_in(g, n, 0)->shape, y = mo_out(g, n, 0)->shape;
    struct cut c;
    MO_TRY(read_cut(ctx, g, n, x.rank, &c));
    if (c.has_unknown)
        return MOPT_OK;
    for (int k = 0; k < c.n; k++) {
        int axis = c.axes[k];
        int64_t start = c.start[k], count = resolve(was[0].dim[axis], c.step[k], &start, c.end[k]);
        if (was[0].dim[axis] == x.dim[axis] || c.step[k] != 1 || count == was[0].dim[axis])
            continue;
        MO_TRY(set_entry(ctx, g, n, "starts", 1, k, start == 0 ? 0 : x.dim[axis] - y.dim[axis]));
        MO_TRY(set_entry(ctx, g, n, "ends", 2, k, start == 0 ? y.dim[axis] : x.dim[axis]));
    }
    return MOPT_OK;
}

/* Named axes are renamed; unnamed ones get names. */
static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    const struct mo_value *axes = mo_in(g, n, 3), *starts = mo_in(g, n, 1);
    int64_t given[MO_MAX_RANK], count;
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, "axes", &n_ints);
    if (axes) {
        count = mo_value_ints(axes, given, MO_MAX_RANK);
    } else if (mo_node_attr(n, "axes")) {
        count = (int64_t)n_ints;
        for (int64_t k = 0; k < count && k < MO_MAX_RANK; k++)
            given[k] = ints[k];
    } else {
        mo_node_ints(n, "starts", &n_ints);
        count = starts ? mo_value_elems(starts) : (int64_t)n_ints;
        for (int64_t k = 0; k < count && k < MO_MAX_RANK; k++)
            given[k] = k;
    }
    if (count < 0 || count > MO_MAX_RANK)
        return false;
    for (int64_t k = 0; k < count; k++)
        given[k] = mo_permuted_axis(perm, rank, (int)(given[k] < 0 ? given[k] + rank : given[k]));
    if (starts)
        return mo_set_ints_input(g, n, 3, given, count);
    return mo_node_set_ints(g, (mo_node_id)(n - g->nodes), "axes", given, (size_t)count);
}

const struct mo_op mo_op_slice = {
    .type = "Slice",
    .since_opset = 1,
    .min_in = 1, .max_in = 5, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct slice),
    .infer = infer, .forward = forward, .backward = backward,
    .values_in = 0x1e,
    .macs = mo_macs_zero, .couple = couple, .refit = refit, .permute = permute,
    .quant = { .kind = MO_QUANT_MOVE },
};
