/* Hardmax: 1 at the first largest element along an axis, else 0. Before opset 13 the axes from `axis` (default 1) on
 * were one. */
#include "lib/ops/tensor.h"

struct hardmax {
    int begin, end;             /* the axes that are one */
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct hardmax *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    bool is_flat = g->opset < 13;
    int64_t axis = mo_node_int(n, "axis", is_flat ? 1 : -1);
    if (x->shape.rank == MO_UNKNOWN)
        return mo_infer_like_input(ctx, g, n);
    p->begin = p->end = x->shape.rank;
    if (!is_flat || axis != x->shape.rank)
        MO_TRY(mo_axis(ctx, axis, x->shape.rank, &p->begin));
    if (!is_flat)
        p->end = p->begin + 1;
    return mo_infer_like_input(ctx, g, n);
}

/* Scratch: the places, then the two numbers. */
static size_t places_bytes(const struct mo_run *r, const struct mo_node *n)
{
    const struct hardmax *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    return mo_part_bytes((size_t)(mo_dims_product(x, 0, p->begin) * mo_dims_product(x, p->end, x->rank)) * sizeof(int64_t));
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : places_bytes(r, n) + MO_ALIGN_BYTES;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    if (dtype != MO_F32 && dtype != MO_F64)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(dtype));
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct hardmax *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t outer = mo_dims_product(&x->shape, 0, p->begin), axis = mo_dims_product(&x->shape, p->begin, p->end);
    int64_t inner = mo_dims_product(&x->shape, p->end, x->shape.rank), *places = mo_run_scratch(r, n);
    size_t bytes = mo_elem_bytes(x->dtype);
    char *values = (char *)places + places_bytes(r, n);
    const float one = 1;
    const double wide_one = 1;
    if (outer * axis * inner == 0)
        return MOPT_OK;
    r->be->argmax(r->dev, (int)x->dtype, outer, axis, inner, false, false, mo_run_in(r, n, 0), places);
    mo_zero(r, bytes, 1, values);
    r->be->fill(r->dev, bytes, 1, x->dtype == MO_F64 ? (const void *)&wide_one : &one, values + bytes);
    r->be->one_hot(r->dev, bytes, outer, axis, inner, places, values, mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_hardmax = {
    .type = "Hardmax",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct hardmax),
    .infer = infer, .prepare = prepare, .forward = forward,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_bytes,
};
