/* Shrink: y = x + bias where x < -lambd, x - bias where x > lambd, else 0.
 * SwiGLU: y = a sigmoid(alpha a) b. */
#include "lib/graph/expand.h"
#include "lib/ops/tensor.h"

static enum mopt_status expand_shrink(struct mo_expand *e)
{
    mo_value_id x = e->node->in[0], out = e->node->out[0];
    enum mo_dtype dtype = e->g->values[x].dtype;
    double lambd = (double)mo_node_float(e->node, "lambd", 0.5f), bias = (double)mo_node_float(e->node, "bias", 0);
    MO_TRY(mo_expand_check_float(e, dtype));
    mo_value_id shift = mo_expand_scalar(e, dtype, bias);
    mo_value_id is_low = mo_expand_op(e, "Less", x, mo_expand_scalar(e, dtype, -lambd), MO_NONE);
    mo_value_id is_high = mo_expand_op(e, "Greater", x, mo_expand_scalar(e, dtype, lambd), MO_NONE);
    mo_value_id high = mo_expand_op(e, "Where", is_high, mo_expand_op(e, "Sub", x, shift, MO_NONE),
                                    mo_expand_scalar(e, dtype, 0));
    mo_expand_into(e, out, "Where", is_low, mo_expand_op(e, "Add", x, shift, MO_NONE), high);
    return MOPT_OK;
}

const struct mo_op mo_op_shrink = {
    .type = "Shrink",
    .since_opset = 9,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE,
    .infer = mo_infer_like_input, .expand = expand_shrink,
    .macs = mo_macs_zero, .couple = mo_couple_through,
};

static enum mopt_status expand_swiglu(struct mo_expand *e)
{
    mo_value_id a = e->node->in[0], b = e->node->in[1], out = e->node->out[0];
    enum mo_dtype dtype = e->g->values[a].dtype;
    double alpha = (double)mo_node_float(e->node, "alpha", 1);
    MO_TRY(mo_expand_check_float(e, dtype));
    mo_value_id scaled = mo_expand_op(e, "Mul", a, mo_expand_scalar(e, dtype, alpha), MO_NONE);
    mo_value_id gate = mo_expand_op(e, "Mul", a, mo_expand_op(e, "Sigmoid", scaled, MO_NONE, MO_NONE), MO_NONE);
    mo_expand_into(e, out, "Mul", gate, b, MO_NONE);
    return MOPT_OK;
}

const struct mo_op mo_op_swiglu = {
    .type = "SwiGLU",
    .since_opset = 28,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE,
    .infer = mo_infer_broadcast, .expand = expand_swiglu,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
};
