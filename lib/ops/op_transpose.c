/* Transpose: axis k of y is axis perm[k] of x; without perm the axes are reversed. */
#include "lib/ops/tensor.h"

struct transpose {
    int perm[MO_MAX_RANK];
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct transpose *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    size_t n_perm = 0;
    const int64_t *perm = mo_node_ints(n, "perm", &n_perm);
    bool has_perm = mo_node_attr(n, "perm") != NULL, is_taken[MO_MAX_RANK] = { false };
    struct mo_shape y = { .rank = x->shape.rank };
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (y.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    if (has_perm && n_perm != (size_t)y.rank)
        return mo_fail(ctx, MOPT_DATA, "perm has %zu entries, the input has a rank of %d", n_perm, y.rank);
    for (int k = 0; k < y.rank; k++) {
        MO_TRY(mo_axis(ctx, has_perm ? perm[k] : y.rank - 1 - k, y.rank, &p->perm[k]));
        if (is_taken[p->perm[k]])
            return mo_fail(ctx, MOPT_DATA, "perm has %d twice", p->perm[k]);
        is_taken[p->perm[k]] = true;
        y.dim[k] = x->shape.dim[p->perm[k]];
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    if (y.rank <= 1)
        mo_known_copy(g, n);
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct transpose *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    int64_t dense[MO_MAX_RANK], stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK];
    mo_dense_strides(&x->shape, dense);
    mo_dense_strides(&y->shape, stride_y);
    for (int k = 0; k < y->shape.rank; k++)
        stride_x[k] = dense[p->perm[k]];
    r->be->copy_strided(r->dev, mo_elem_bytes(x->dtype), y->shape.rank, y->shape.dim, stride_x, stride_y,
                        mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

/* The same walk with the roles exchanged; by x's axes, so that dx is written in order. */
static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct transpose *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    float *dx = mo_run_grad_in(r, n, 0);
    int64_t dense[MO_MAX_RANK], stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK];
    if (!dx)
        return MOPT_OK;
    mo_dense_strides(y, dense);
    mo_dense_strides(x, stride_x);
    for (int k = 0; k < y->rank; k++)
        stride_y[p->perm[k]] = dense[k];
    bool is_half = mo_run_in_half(r, n, 0), adds = mo_run_adds(r, n, 0);
    if (is_half) {
        void *to = adds ? mo_run_scratch(r, n) : dx;
        r->be->copy_strided(r->dev, sizeof(uint16_t), x->rank, x->dim, stride_y, stride_x, mo_run_grad_out(r, n, 0), to);
        if (adds)
            r->be->axpy_bf16(r->dev, (size_t)mo_shape_elems(x), 1, to, (uint16_t *)dx, true);
    } else if (adds)
        r->be->add_strided(r->dev, x->rank, x->dim, stride_y, stride_x, mo_run_grad_out(r, n, 0), dx);
    else
        r->be->copy_strided(r->dev, sizeof *dx, x->rank, x->dim, stride_y, stride_x, mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    bool needs = backward && mo_run_in_half(r, n, 0) && mo_run_adds(r, n, 0);
    return needs ? mo_run_in_elems(r, n, 0) * sizeof(uint16_t) : 0;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct transpose *p = n->params;
    for (int k = 0; k < mo_out(g, n, 0)->shape.rank; k++)
        mo_couple_same(c, n->in[0], p->perm[k], n->out[0], k);
}

const struct mo_op mo_op_transpose = {
    .type = "Transpose",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct transpose),
    .infer = infer, .forward = forward, .backward = backward,
    .macs = mo_macs_zero, .couple = couple,
    .scratch_bytes = scratch_bytes,
    .params_in = 1, .bf16_in = 1,
    .quant = { .kind = MO_QUANT_MOVE },
};
