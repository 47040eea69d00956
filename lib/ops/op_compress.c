/* Compress: the slices of an axis, or the elements of the flattened input, whose condition is true. The condition may
 * be shorter than the axis. */
#include "lib/ops/tensor.h"

struct compress {
    int64_t outer, axis, inner;
    int64_t n_asked;            /* entries of the condition that count */
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct compress *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *condition = mo_in(g, n, 1);
    const struct mo_attr *given = mo_node_attr(n, "axis");
    struct mo_shape y = given ? x->shape : mo_shape_of(1, (int64_t)MO_UNKNOWN);
    int axis = 0;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (condition->dtype != MO_BOOL && condition->dtype != MO_UNDEFINED)
        return mo_fail(ctx, MOPT_DATA, "the condition is %s, it should be bool", mo_dtype_name(condition->dtype));
    if (y.rank != MO_UNKNOWN && given)
        MO_TRY(mo_axis(ctx, given->i, y.rank, &axis));
    if (y.rank == MO_UNKNOWN || !mo_shape_known(&x->shape) || !mo_shape_known(&condition->shape)) {
        if (y.rank != MO_UNKNOWN)
            y.dim[axis] = MO_UNKNOWN;
        mo_set_out(g, n, 0, x->dtype, &y);
        return MOPT_OK;
    }
    p->outer = given ? mo_dims_product(&x->shape, 0, axis) : 1;
    p->axis = given ? x->shape.dim[axis] : mo_value_elems(x);
    p->inner = given ? mo_dims_product(&x->shape, axis + 1, x->shape.rank) : 1;
    p->n_asked = MO_MIN(mo_value_elems(condition), p->axis);
    y.dim[axis] = condition->data ? 0 : MO_UNKNOWN;
    for (int64_t k = 0; condition->data && k < p->n_asked; k++)
        y.dim[axis] += ((const uint8_t *)condition->data)[k] != 0;
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static int64_t n_kept(const struct mo_run *r, const struct mo_node *n)
{
    const struct compress *p = n->params;
    int64_t rest = p->outer * p->inner;
    return rest ? mo_value_elems(mo_out(r->graph, n, 0)) / rest : 0;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)backward;
    return (size_t)n_kept(r, n) * sizeof(int64_t);
}

/* The places that stay, in order. */
static const int64_t *places(struct mo_run *r, const struct mo_node *n)
{
    const struct compress *p = n->params;
    int64_t *index = mo_run_scratch(r, n);
    r->be->nonzero(r->dev, MO_BOOL, 1, &p->n_asked, n_kept(r, n), mo_run_in(r, n, 1), index);
    return index;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct compress *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    if (mo_value_elems(mo_out(r->graph, n, 0)))
        r->be->gather(r->dev, mo_elem_bytes(x->dtype), p->outer, p->axis, n_kept(r, n), p->inner, mo_run_in(r, n, 0),
                      places(r, n), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct compress *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    mo_run_zero(r, mo_run_in_elems(r, n, 0), dx);
    if (mo_value_elems(mo_out(r->graph, n, 0)))
        r->be->gather_grad(r->dev, p->outer, p->axis, n_kept(r, n), p->inner, mo_run_grad_out(r, n, 0), places(r, n), dx);
    return MOPT_OK;
}

const struct mo_op mo_op_compress = {
    .type = "Compress",
    .since_opset = 9,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct compress),
    .infer = infer, .forward = forward, .backward = backward,
    .scratch_bytes = scratch_bytes,
    .macs = mo_macs_zero,
    .values_in = 1u << 1,
    .backward_reads = 1u << 1,
};
