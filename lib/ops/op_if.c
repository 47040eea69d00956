/* If: one of two graphs, as a truth value says. */
#include "lib/ops/body.h"

static enum mopt_status infer_if(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(mo_body_infer(ctx, g, n, "else_branch", 0));
    return mo_body_infer(ctx, g, n, "then_branch", 0);
}

static enum mopt_status forward_if(struct mo_run *r, const struct mo_node *n)
{
    struct mo_body b;
    double condition = 0;
    if (!mo_run_scalar(r, n, 0, &condition))
        return mo_fail(r->ctx, MOPT_DATA, "its condition should be one truth value");
    MO_TRY(mo_body_open(&b, r, n, condition != 0 ? "then_branch" : "else_branch"));
    enum mopt_status status = mo_body_turn(&b, NULL);
    for (uint32_t k = 0; !status && k < n->n_out; k++)
        status = mo_body_hand_out(&b, k, k);
    mo_body_close(&b);
    return status;
}

const struct mo_op mo_op_if = {
    .type = "If",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = -1,
    .flags = MO_OP_SHAPES_BY_RUN | MO_OP_UNROLLS,
    .infer = infer_if, .forward = forward_if,
};
