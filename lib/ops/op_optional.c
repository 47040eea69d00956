/* OptionalHasElement, OptionalGetElement where what is optional is a tensor: an input that is there has an element,
 * and one that is left out has none. Values of an optional type are not offered. */
#include "lib/ops/tensor.h"

static enum mopt_status infer_has(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape scalar = mo_shape_of(0);
    (void)ctx;
    mo_set_out(g, n, 0, MO_BOOL, &scalar);
    int64_t *known = mo_known_out(g, n, 0);
    if (known)
        known[0] = mo_in(g, n, 0) != NULL;
    return MOPT_OK;
}

static enum mopt_status forward_has(struct mo_run *r, const struct mo_node *n)
{
    uint8_t is_there = mo_in(r->graph, n, 0) != NULL;
    r->be->fill(r->dev, 1, 1, &is_there, mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_optional_has_element = {
    .type = "OptionalHasElement",
    .since_opset = 15,
    .min_in = 0, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer_has, .forward = forward_has,
    .macs = mo_macs_zero,
};

const struct mo_op mo_op_optional_get_element = {
    .type = "OptionalGetElement",
    .since_opset = 15,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_VIEW,
    .infer = mo_infer_like_input,
    .macs = mo_macs_zero, .couple = mo_couple_through,
};
