/* IsNaN, IsInf, NonZero: questions about elements. The shape of NonZero's answer depends
 * on the data, so it is known only when its input is. */
#include "lib/ops/tensor.h"

struct test {
    unsigned which;             /* as of the kernel */
    int64_t n_found;
};

static enum mopt_status infer_as(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, unsigned which)
{
    struct mo_shape shape = mo_in(g, n, 0)->shape;
    (void)ctx;
    ((struct test *)n->params)->which = which;
    mo_set_out(g, n, 0, MO_BOOL, &shape);
    return MOPT_OK;
}

static enum mopt_status infer_is_nan(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, 1);
}
static enum mopt_status infer_is_inf(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    unsigned up = mo_node_int(n, "detect_positive", 1) ? 2 : 0, down = mo_node_int(n, "detect_negative", 1) ? 4 : 0;
    return infer_as(ctx, g, n, up | down);
}

static enum mopt_status forward_classify(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    const struct test *p = n->params;
    r->be->classify(r->dev, (int)x->dtype, p->which, (size_t)mo_value_elems(x), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

#define CLASSIFY(id, Type, since, fn)                                                                           \
    const struct mo_op mo_op_##id = {                                                                           \
        .type = Type, .since_opset = since, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,                \
        .flags = MO_OP_ELEMENTWISE, .params_bytes = sizeof(struct test), .infer = fn,                           \
        .forward = forward_classify, .macs = mo_macs_zero, .couple = mo_couple_through,                         \
    };
CLASSIFY(is_nan, "IsNaN", 9, infer_is_nan)
CLASSIFY(is_inf, "IsInf", 10, infer_is_inf)

/* ---- NonZero ---- */

static int64_t count_nonzero(const struct mo_value *x)
{
    const uint8_t *data = x->data;
    size_t bytes = mo_elem_bytes(x->dtype);
    int64_t found = 0, n = mo_value_elems(x);
    bool is_float = mo_dtype_is_float(x->dtype);
    for (int64_t i = 0; i < n; i++) {
        uint8_t any = 0;
        for (size_t k = 0; k < bytes; k++)      /* -0 is 0: the sign bit does not count */
            any |= (uint8_t)(data[(size_t)i * bytes + k] & (is_float && k == bytes - 1 ? 0x7f : 0xff));
        found += any != 0;
    }
    return found;
}

static enum mopt_status infer_nonzero(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct test *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = mo_shape_of(2, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN);
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank != MO_UNKNOWN)
        y.dim[0] = x->shape.rank;
    if (x->data && mo_shape_known(&x->shape))
        p->n_found = y.dim[1] = count_nonzero(x);
    mo_set_out(g, n, 0, MO_I64, &y);
    return MOPT_OK;
}

static enum mopt_status forward_nonzero(struct mo_run *r, const struct mo_node *n)
{
    const struct test *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    r->be->nonzero(r->dev, (int)x->dtype, x->shape.rank, x->shape.dim, p->n_found, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_non_zero = {
    .type = "NonZero",
    .since_opset = 9,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct test),
    .infer = infer_nonzero, .forward = forward_nonzero,
    .values_in = 1,
    .macs = mo_macs_zero,
};
