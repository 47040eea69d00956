/* GlobalAveragePool, GlobalMaxPool, GlobalLpPool (p 1 and 2): a reduction over all
 * spatial axes, which stay with size 1. */
#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct global_pool {
    enum mo_reduce f;
    int64_t p;              /* GlobalLpPool: 1 or 2 are computed */
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    if (y.rank != MO_UNKNOWN && y.rank < 3)
        return mo_fail(ctx, MOPT_DATA, "input 0 has rank %d, it must have spatial axes", y.rank);
    for (int i = 0; i < y.rank - 2; i++)
        y.dim[(n->channels_last ? 1 : 2) + i] = 1;
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status infer_average(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    *(struct global_pool *)n->params = (struct global_pool){MO_REDUCE_MEAN, 1};
    return infer(ctx, g, n);
}

static enum mopt_status infer_max(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    *(struct global_pool *)n->params = (struct global_pool){MO_REDUCE_MAX, 1};
    return infer(ctx, g, n);
}

static enum mopt_status infer_lp(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    int64_t p = mo_node_int(n, "p", 2);
    *(struct global_pool *)n->params = (struct global_pool){p == 1 ? MO_REDUCE_L1 : MO_REDUCE_L2, p};
    return infer(ctx, g, n);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct global_pool *p = n->params;
    if (p->p != 1 && p->p != 2)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "p is %lld, only 1 and 2 are computed", (long long)p->p);
    return mo_prepare_float32(r, n);
}

/* Channels-last: batch x places x channels, and places go away. */
static const bool is_reduced[3] = {false, true, false};

static void dims_of(const struct mo_run *r, const struct mo_node *n, int64_t dims[3])
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    dims[0] = x->dim[0];
    dims[1] = mo_product(x->dim + 1, x->rank - 2);
    dims[2] = x->dim[x->rank - 1];
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct global_pool *p = n->params;
    int64_t dims[3];
    dims_of(r, n, dims);
    r->be->reduce(r->dev, p->f, MO_F32, 3, dims, is_reduced, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct global_pool *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    int64_t dims[3];
    dims_of(r, n, dims);
    if (dx)
        r->be->reduce_grad(r->dev, p->f, 3, dims, is_reduced, mo_run_in(r, n, 0), mo_run_out(r, n, 0),
                           mo_run_grad_out(r, n, 0), dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

#define MEMBERS(since)                                                                \
    .since_opset = since, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,         \
    .flags = MO_OP_CHANNELS_LAST | MO_OP_ADDS_GRAD,                                 \
    .params_bytes = sizeof(struct global_pool), .prepare = prepare,                 \
    .forward = forward, .backward = backward, .macs = mo_macs_zero, .couple = mo_couple_image

const struct mo_op mo_op_global_average_pool = {
    .type = "GlobalAveragePool", MEMBERS(1), .infer = infer_average, .quant = {.kind = MO_QUANT_ARITH},
};

const struct mo_op mo_op_global_lp_pool = {
    .type = "GlobalLpPool", MEMBERS(2), .infer = infer_lp, .backward_reads = 1u << 0 | 1u << 16,
};

const struct mo_op mo_op_global_max_pool = {
    .type = "GlobalMaxPool", MEMBERS(1), .infer = infer_max, .backward_reads = 1u << 0 | 1u << 16,
};
