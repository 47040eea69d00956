/* Concat: inputs one behind the other along an axis. Each gradient is its part of dy. */
#include "lib/ops/tensor.h"

struct concat {
    int axis;
};

static void infer_known(struct mo_graph *g, const struct mo_node *n)
{
    int64_t *known = mo_known_out(g, n, 0), at = 0;
    for (uint32_t i = 0; known && i < n->n_in; i++)
        for (int64_t k = 0; k < mo_value_elems(mo_in(g, n, i)); k++)
            known[at++] = mo_known_in(g, n, i, k);
}

/* Other axes must agree; what one input does not know another may. */
static enum mopt_status merge(struct mopt_ctx *ctx, const struct mo_value *v, int axis, struct mo_shape *y)
{
    char want[128], got[128];
    if (v->shape.rank != y->rank)
        return mo_fail(ctx, MOPT_DATA, "'%s' has a rank of %d and others %d", v->name, v->shape.rank, y->rank);
    for (int k = 0; k < y->rank; k++) {
        int64_t dim = v->shape.dim[k];
        if (k == axis) {
            y->dim[k] = dim == MO_UNKNOWN || y->dim[k] == MO_UNKNOWN ? MO_UNKNOWN : y->dim[k] + dim;
        } else if (y->dim[k] == MO_UNKNOWN) {
            y->dim[k] = dim;
        } else if (dim != MO_UNKNOWN && dim != y->dim[k]) {
            return mo_fail(ctx, MOPT_DATA, "'%s' is %s, which does not fit behind %s on axis %d", v->name,
                           mo_shape_text(&v->shape, got, sizeof got), mo_shape_text(y, want, sizeof want), axis);
        }
    }
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct concat *p = n->params;
    const struct mo_value *first = mo_in(g, n, 0);
    struct mo_shape y = first->shape;
    bool has_all = y.rank != MO_UNKNOWN;
    MO_TRY(mo_check_movable(ctx, first->dtype));
    if (has_all)
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", g->opset < 4 ? 1 : 0), y.rank, &p->axis));
    for (uint32_t i = 1; i < n->n_in; i++) {
        const struct mo_value *v = mo_in(g, n, i);
        if (!v)
            return mo_fail(ctx, MOPT_DATA, "input %u is left out", i);
        MO_TRY(mo_check_same_dtype(ctx, first, v));
        has_all = has_all && v->shape.rank != MO_UNKNOWN;
        if (has_all)
            MO_TRY(merge(ctx, v, p->axis, &y));
    }
    if (!has_all)
        y.rank = MO_UNKNOWN;
    mo_set_out(g, n, 0, first->dtype, &y);
    if (y.rank == 1 && mo_shape_known(&y))
        infer_known(g, n);
    return MOPT_OK;
}

/* One part of the whole: the dims of input i and where it begins. */
static int64_t part_of(const struct mo_run *r, const struct mo_node *n, uint32_t i, int64_t *whole)
{
    const struct concat *p = n->params;
    int64_t begin = 0;
    mo_dense_strides(&mo_out(r->graph, n, 0)->shape, whole);
    for (uint32_t k = 0; k < i; k++)
        begin += mo_in(r->graph, n, k)->shape.dim[p->axis];
    return begin * whole[p->axis];
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    char *y = mo_run_out(r, n, 0);
    size_t bytes = mo_elem_bytes(mo_out(r->graph, n, 0)->dtype);
    int64_t whole[MO_MAX_RANK], dense[MO_MAX_RANK];
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mo_shape *shape = &mo_in(r->graph, n, i)->shape;
        int64_t begin = part_of(r, n, i, whole);
        mo_dense_strides(shape, dense);
        r->be->copy_strided(r->dev, bytes, shape->rank, shape->dim, dense, whole, mo_run_in(r, n, i),
                            y + (size_t)begin * bytes);
    }
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const float *dy = mo_run_grad_out(r, n, 0);
    int64_t whole[MO_MAX_RANK], dense[MO_MAX_RANK];
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mo_shape *shape = &mo_in(r->graph, n, i)->shape;
        float *dx = mo_run_grad_in(r, n, i);
        if (!dx)
            continue;
        int64_t begin = part_of(r, n, i, whole);
        mo_dense_strides(shape, dense);
        if (mo_run_adds(r, n, i))
            r->be->add_strided(r->dev, shape->rank, shape->dim, whole, dense, dy + begin, dx);
        else
            r->be->copy_strided(r->dev, sizeof *dx, shape->rank, shape->dim, whole, dense, dy + begin, dx);
    }
    return MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct concat *p = n->params;
    int64_t begin = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int64_t dim = mo_in(g, n, i)->shape.dim[p->axis];
        mo_couple_offset(c, n->in[i], p->axis, 0, n->out[0], p->axis, begin, dim);
        mo_couple_axes(c, g, n->in[i], n->out[0], p->axis);
        begin += dim;
    }
}

static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    const struct concat *p = n->params;
    return mo_node_set_int(g, (mo_node_id)(n - g->nodes), "axis", mo_permuted_axis(perm, rank, p->axis));
}

const struct mo_op mo_op_concat = {
    .type = "Concat",
    .since_opset = 1,
    .min_in = 1, .max_in = -1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct concat),
    .infer = infer, .forward = forward, .backward = backward,
    .macs = mo_macs_zero, .couple = couple, .permute = permute,
    .quant = { .kind = MO_QUANT_ARITH },
};
