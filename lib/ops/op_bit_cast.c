/* BitCast: the same bytes as another type of as many bits. */
#include "lib/ops/tensor.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    enum mo_dtype to = (enum mo_dtype)mo_node_int(n, "to", 0);
    const struct mo_shape shape = x->shape;
    if (mo_dtype_bits(to) == 0 || to == MO_STRING || x->dtype == MO_STRING)
        return mo_fail(ctx, MOPT_DATA, "element type %d has no bits to cast to", (int)to);
    if (x->dtype != MO_UNDEFINED && mo_dtype_bits(x->dtype) != mo_dtype_bits(to))
        return mo_fail(ctx, MOPT_DATA, "from %s to %s, both should have as many bits", mo_dtype_name(x->dtype),
                       mo_dtype_name(to));
    mo_set_out(g, n, 0, to, &shape);
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    mo_copy(r, 1, (int64_t)mo_value_bytes(mo_in(r->graph, n, 0)), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_bit_cast = {
    .type = "BitCast",
    .since_opset = 26,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer, .forward = forward,
    .macs = mo_macs_zero, .couple = mo_couple_through,
};
