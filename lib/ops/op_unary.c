/* Operators of one input that work element by element, y = f(x). One row each. */
#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct unary {
    enum mo_unary f;
    float a, b;
};

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct unary *p = n->params;
    size_t n_elems = (size_t)mo_value_elems(mo_in(r->graph, n, 0));
    r->be->unary(r->dev, p->f, p->a, p->b, n_elems, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct unary *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    size_t n_elems = (size_t)mo_value_elems(mo_in(r->graph, n, 0));
    if (dx)
        r->be->unary_grad(r->dev, p->f, p->a, p->b, n_elems, mo_run_in(r, n, 0), mo_run_out(r, n, 0),
                          mo_run_grad_out(r, n, 0), dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status infer_relu(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    *(struct unary *)n->params = (struct unary){.f = MO_RELU};
    return mo_infer_like_input(ctx, g, n);
}

const struct mo_op mo_op_relu = {
    .type = "Relu",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE | MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct unary),
    .infer = infer_relu,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = mo_couple_through,
    .backward_reads = 1u << 16,
    .quant = {.kind = MO_QUANT_CLIP},
};
