/* Expand: x repeated to the broadcast of its shape and a given one. Tile: x repeated
 * repeats[k] times along axis k. Gradients are summed over the repetitions. */
#include "lib/ops/tensor.h"

/* ---- Expand ---- */

static enum mopt_status infer_expand(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0), *shape = mo_in(g, n, 1);
    struct mo_shape want, y;
    char from[128], to[128];
    int64_t rank = mo_value_elems(shape);
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a rank of %lld, at most %d is possible", (long long)rank, MO_MAX_RANK);
    if (x->shape.rank == MO_UNKNOWN || rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    want.rank = (int)rank;
    for (int k = 0; k < want.rank; k++) {
        want.dim[k] = mo_known_in(g, n, 1, k);
        if (want.dim[k] == MO_VALUE_UNKNOWN)
            want.dim[k] = MO_UNKNOWN;
        else if (want.dim[k] < 0)
            return mo_fail(ctx, MOPT_DATA, "entry %d of the shape is %lld", k, (long long)want.dim[k]);
    }
    if (!mo_shape_broadcast(&x->shape, &want, &y))
        return mo_fail(ctx, MOPT_DATA, "%s cannot be repeated to %s", mo_shape_text(&x->shape, from, sizeof from),
                       mo_shape_text(&want, to, sizeof to));
    mo_set_out(g, n, 0, x->dtype, &y);
    if (y.rank <= 1 && mo_shape_known(&y) && (x->known || x->data)) {
        int64_t *known = mo_known_out(g, n, 0), count = known ? mo_shape_elems(&y) : 0;
        for (int64_t k = 0; k < count; k++)
            known[k] = mo_known_in(g, n, 0, mo_value_elems(x) == 1 ? 0 : k);
    }
    return MOPT_OK;
}

static enum mopt_status forward_expand(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    int64_t stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK];
    mo_broadcast_strides(&x->shape, &y->shape, stride_x);
    mo_dense_strides(&y->shape, stride_y);
    r->be->copy_strided(r->dev, mo_elem_bytes(x->dtype), y->shape.rank, y->shape.dim, stride_x, stride_y,
                        mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_expand(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        mo_sum_to(r, &mo_out(r->graph, n, 0)->shape, mo_run_grad_out(r, n, 0), &mo_in(r->graph, n, 0)->shape, dx,
                  mo_run_adds(r, n, 0));
    return MOPT_OK;
}

static void couple_expand(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(g, n, 0)->shape, *y = &mo_out(g, n, 0)->shape;
    int shift = y->rank - x->rank;
    for (int axis = 0; axis < y->rank; axis++)
        if (axis >= shift && x->dim[axis - shift] == y->dim[axis])
            mo_couple_same(c, n->in[0], axis - shift, n->out[0], axis);
        else
            mo_couple_free(c, n->out[0], axis);     /* repeated: any may go, refit writes the new size */
}

const struct mo_op mo_op_expand = {
    .type = "Expand",
    .since_opset = 8,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .infer = infer_expand, .forward = forward_expand, .backward = backward_expand,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple_expand, .refit = mo_refit_reshape,
    .params_in = 1,
    .quant = { .kind = MO_QUANT_MOVE },
};

/* ---- Tile ---- */

struct tile {
    int rank;                                                       /* of the walk: repetitions have axes of their own */
    int64_t dims[2 * MO_MAX_RANK], stride_x[2 * MO_MAX_RANK], stride_y[2 * MO_MAX_RANK];
};

static enum mopt_status make_walk(struct mopt_ctx *ctx, const struct mo_shape *x, const struct mo_shape *y, struct tile *p)
{
    int64_t dense_x[MO_MAX_RANK], dense_y[MO_MAX_RANK];
    mo_dense_strides(x, dense_x);
    mo_dense_strides(y, dense_y);
    p->rank = 0;
    for (int axis = 0; axis < x->rank; axis++) {
        int64_t dim = x->dim[axis], times = dim ? y->dim[axis] / dim : 0;
        if (times != 1) {
            p->dims[p->rank] = times;
            p->stride_x[p->rank] = 0;
            p->stride_y[p->rank++] = dim * dense_y[axis];
        }
        p->dims[p->rank] = dim;
        p->stride_x[p->rank] = dense_x[axis];
        p->stride_y[p->rank++] = dense_y[axis];
    }
    if (p->rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "too many repeated axes");
    return MOPT_OK;
}

static enum mopt_status infer_tile(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    int64_t n_repeats = mo_value_elems(mo_in(g, n, 1));
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (y.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    if (n_repeats != MO_UNKNOWN && n_repeats != y.rank)
        return mo_fail(ctx, MOPT_DATA, "%lld repeats for a rank of %d", (long long)n_repeats, y.rank);
    for (int k = 0; k < y.rank; k++) {
        int64_t times = mo_known_in(g, n, 1, k);
        if (times != MO_VALUE_UNKNOWN && times < 0)
            return mo_fail(ctx, MOPT_DATA, "%lld repeats of axis %d", (long long)times, k);
        bool is_known = times != MO_VALUE_UNKNOWN && y.dim[k] != MO_UNKNOWN;
        if (!is_known || __builtin_mul_overflow(y.dim[k], times, &y.dim[k]))
            y.dim[k] = MO_UNKNOWN;
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return mo_shape_known(&y) ? make_walk(ctx, &x->shape, &y, n->params) : MOPT_OK;
}

static enum mopt_status forward_tile(struct mo_run *r, const struct mo_node *n)
{
    const struct tile *p = n->params;
    r->be->copy_strided(r->dev, mo_elem_bytes(mo_in(r->graph, n, 0)->dtype), p->rank, p->dims, p->stride_x, p->stride_y,
                        mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_tile(struct mo_run *r, const struct mo_node *n)
{
    const struct tile *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    if (!mo_run_adds(r, n, 0))
        mo_zero(r, sizeof *dx, mo_value_elems(mo_in(r->graph, n, 0)), dx);
    r->be->add_strided(r->dev, p->rank, p->dims, p->stride_y, p->stride_x, mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

static void couple_tile(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_couple_axes(c, g, n->in[0], n->out[0], -1);      /* repeated axes are walls */
}

const struct mo_op mo_op_tile = {
    .type = "Tile",
    .since_opset = 6,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct tile),
    .infer = infer_tile, .forward = forward_tile, .backward = backward_tile,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple_tile,
    .quant = { .kind = MO_QUANT_MOVE },
};
