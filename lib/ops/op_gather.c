/* Gather: y[outer, i, inner] = x[outer, index[i], inner]. The gradient is added up at the
 * places that were read, in order of i. */
#include "lib/ops/tensor.h"

struct gather {
    int axis;
};

static void infer_known(struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    int64_t *known = mo_known_out(g, n, 0), count = known ? mo_value_elems(mo_out(g, n, 0)) : 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t at = mo_known_in(g, n, 1, k);
        if (at != MO_VALUE_UNKNOWN)
            known[k] = mo_known_in(g, n, 0, at < 0 ? at + x->shape.dim[0] : at);
    }
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct gather *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *index = mo_in(g, n, 1);
    struct mo_shape y;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank == MO_UNKNOWN || index->shape.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 0), x->shape.rank, &p->axis));
    y.rank = x->shape.rank - 1 + index->shape.rank;
    if (y.rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a rank of %d, at most %d is possible", y.rank, MO_MAX_RANK);
    for (int k = 0; k < p->axis; k++)
        y.dim[k] = x->shape.dim[k];
    for (int k = 0; k < index->shape.rank; k++)
        y.dim[p->axis + k] = index->shape.dim[k];
    for (int k = p->axis + 1; k < x->shape.rank; k++)
        y.dim[k - 1 + index->shape.rank] = x->shape.dim[k];
    mo_set_out(g, n, 0, x->dtype, &y);
    if (x->shape.rank == 1 && x->shape.dim[0] != MO_UNKNOWN && (x->known || x->data))
        infer_known(g, n);
    return MOPT_OK;
}

/* outer, axis, inner sizes of x. */
static void sizes(const struct mo_run *r, const struct mo_node *n, int64_t *s)
{
    const struct gather *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    s[0] = mo_dims_product(x, 0, p->axis);
    s[1] = x->dim[p->axis];
    s[2] = mo_dims_product(x, p->axis + 1, x->rank);
}

static const int64_t *index_of(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *index = mo_in(r->graph, n, 1);
    if (index->dtype == MO_I64)
        return mo_run_in(r, n, 1);
    int64_t *wide = mo_run_scratch(r, n);
    mo_widen_index(r, index, mo_run_in(r, n, 1), wide);
    return wide;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)backward;
    const struct mo_value *index = mo_in(r->graph, n, 1);
    return index->dtype == MO_I64 ? 0 : (size_t)mo_value_elems(index) * sizeof(int64_t);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    int64_t s[3];
    sizes(r, n, s);
    r->be->gather(r->dev, mo_elem_bytes(mo_in(r->graph, n, 0)->dtype), s[0], s[1], mo_value_elems(mo_in(r->graph, n, 1)),
                  s[2], mo_run_in(r, n, 0), index_of(r, n), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    int64_t s[3];
    if (!dx)
        return MOPT_OK;
    sizes(r, n, s);
    if (!mo_run_adds(r, n, 0))
        mo_zero(r, sizeof *dx, s[0] * s[1] * s[2], dx);
    r->be->gather_grad(r->dev, s[0], s[1], mo_value_elems(mo_in(r->graph, n, 1)), s[2], mo_run_grad_out(r, n, 0),
                       index_of(r, n), dx);
    return MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct gather *p = n->params;
    int rank = mo_in(g, n, 0)->shape.rank, more = mo_in(g, n, 1)->shape.rank - 1;
    for (int k = 0; k < rank; k++)
        if (k != p->axis)
            mo_couple_same(c, n->in[0], k, n->out[0], k < p->axis ? k : k + more);
    mo_couple_wall(c, n->in[0], p->axis, "read by index");
}

const struct mo_op mo_op_gather = {
    .type = "Gather",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct gather),
    .infer = infer, .forward = forward, .backward = backward,
    .macs = mo_macs_zero, .couple = couple,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 1,
    .params_in = 1,
    .quant = { .kind = MO_QUANT_MOVE },
};
