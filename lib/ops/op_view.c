/* View: the same bytes under another shape, put in by lowering where a Transpose
 * would move axes of size 1 only. Attribute shape: the sizes. */
#include "lib/graph/op.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    size_t rank = 0;
    const int64_t *dims = mo_node_ints(n, "shape", &rank);
    struct mo_shape shape = { .rank = (int)rank };
    for (size_t i = 0; i < rank && i < MO_MAX_RANK; i++)
        shape.dim[i] = dims[i];
    const struct mo_value *x = mo_in(g, n, 0);
    if (mo_shape_known(&x->shape) && mo_value_elems(x) != mo_shape_elems(&shape))
        return mo_fail(ctx, MOPT_FAILED, "a view of '%s' has another number of elements", x->name);
    mo_set_out(g, n, 0, x->dtype, &shape);
    return MOPT_OK;
}

const struct mo_op mo_op_view = {
    .type = "View", .domain = "mopt", .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_VIEW | MO_OP_INTERNAL, .bf16_in = 1,
    .infer = infer, .macs = mo_macs_zero,
};
