/* Comparisons, logic and bit operations of two inputs with broadcasting, and
 * their negations. None has a gradient. One row each. */
#include "lib/ops/tensor.h"

#include <string.h>

struct compare {
    enum mo_binary f;
};

/* ---- infer ---- */

static bool known_result(enum mo_binary f, int64_t a, int64_t b)
{
    switch (f) {
    case MO_EQUAL: return a == b;
    case MO_LESS: return a < b;
    case MO_LESS_EQUAL: return a <= b;
    case MO_GREATER: return a > b;
    case MO_GREATER_EQUAL: return a >= b;
    case MO_AND: return a && b;
    case MO_OR: return a || b;
    default: return !a != !b;
    }
}

static enum mopt_status infer_as(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum mo_binary f)
{
    struct compare *p = n->params;
    p->f = f;
    if (f != MO_SHIFT_LEFT && f != MO_SHIFT_RIGHT)
        MO_TRY(mo_check_same_dtype(ctx, mo_in(g, n, 0), mo_in(g, n, 1)));
    MO_TRY(mo_infer_broadcast(ctx, g, n));
    struct mo_value *y = mo_out(g, n, 0);
    if (f < MO_EQUAL || !y)
        return MOPT_OK;
    y->dtype = MO_BOOL;
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    if (y->shape.rank > 1 || !mo_shape_known(&a->shape) || !mo_shape_known(&b->shape))
        return MOPT_OK;
    int64_t *known = mo_known_out(g, n, 0), count = known ? mo_value_elems(y) : 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t u = mo_known_in(g, n, 0, mo_value_elems(a) == 1 ? 0 : k);
        int64_t v = mo_known_in(g, n, 1, mo_value_elems(b) == 1 ? 0 : k);
        if (u != MO_VALUE_UNKNOWN && v != MO_VALUE_UNKNOWN)
            known[k] = known_result(f, u, v);
    }
    return MOPT_OK;
}

static enum mopt_status infer_shift(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const char *direction = mo_node_text(n, "direction", "");
    if (!strcmp(direction, "LEFT"))
        return infer_as(ctx, g, n, MO_SHIFT_LEFT);
    if (!strcmp(direction, "RIGHT"))
        return infer_as(ctx, g, n, MO_SHIFT_RIGHT);
    return mo_fail(ctx, MOPT_DATA, "direction is '%s', it should be LEFT or RIGHT", direction);
}

static enum mopt_status infer_not(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(mo_infer_like_input(ctx, g, n));
    const struct mo_value *y = mo_out(g, n, 0);
    if (!y || y->shape.rank > 1 || y->dtype != MO_BOOL)
        return MOPT_OK;
    int64_t *known = mo_known_out(g, n, 0), count = known ? mo_value_elems(y) : 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t v = mo_known_in(g, n, 0, k);
        known[k] = v == MO_VALUE_UNKNOWN ? v : !v;
    }
    return MOPT_OK;
}

/* ---- forward ---- */

/* Texts are equal where their numbers are; the kernel refuses their type for anything else. */
static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct compare *p = n->params;
    const struct mo_value *a = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    const struct mo_shape shape_b = mo_operand_shape(r->graph, n);
    int64_t stride_a[MO_MAX_RANK], stride_b[MO_MAX_RANK];
    mo_broadcast_strides(&a->shape, &y->shape, stride_a);
    mo_broadcast_strides(&shape_b, &y->shape, stride_b);
    enum mo_dtype dtype = a->dtype == MO_STRING && p->f == MO_EQUAL ? MO_I64 : a->dtype;
    r->be->binary(r->dev, p->f, (int)dtype, y->shape.rank, y->shape.dim, stride_a, stride_b, mo_run_in(r, n, 0),
                  mo_run_in(r, n, 1), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status forward_not(struct mo_run *r, const struct mo_node *n)
{
    r->be->not_(r->dev, (size_t)mo_value_elems(mo_in(r->graph, n, 0)), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status forward_bit_not(struct mo_run *r, const struct mo_node *n)
{
    r->be->bit_not(r->dev, mo_value_bytes(mo_in(r->graph, n, 0)), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

/* ---- the operators ---- */

#define COMMON(Type, since)                                                                                     \
    .type = Type, .since_opset = since, .min_out = 1, .max_out = 1, .flags = MO_OP_ELEMENTWISE,                  \
    .macs = mo_macs_zero, .couple = mo_couple_elementwise

#define COMPARE(id, Type, since, f)                                                                             \
    static enum mopt_status infer_##id(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)             \
    {                                                                                                           \
        return infer_as(ctx, g, n, f);                                                                          \
    }                                                                                                           \
    const struct mo_op mo_op_##id = {                                                                           \
        COMMON(Type, since), .min_in = 2, .max_in = 2, .params_bytes = sizeof(struct compare),                  \
        .infer = infer_##id, .forward = forward,                                                                \
    };

COMPARE(equal, "Equal", 1, MO_EQUAL)
COMPARE(less, "Less", 1, MO_LESS)
COMPARE(less_or_equal, "LessOrEqual", 12, MO_LESS_EQUAL)
COMPARE(greater, "Greater", 1, MO_GREATER)
COMPARE(greater_or_equal, "GreaterOrEqual", 12, MO_GREATER_EQUAL)
COMPARE(and, "And", 1, MO_AND)
COMPARE(or, "Or", 1, MO_OR)
COMPARE(xor, "Xor", 1, MO_XOR)
COMPARE(bitwise_and, "BitwiseAnd", 18, MO_BIT_AND)
COMPARE(bitwise_or, "BitwiseOr", 18, MO_BIT_OR)
COMPARE(bitwise_xor, "BitwiseXor", 18, MO_BIT_XOR)

const struct mo_op mo_op_bit_shift = {
    COMMON("BitShift", 11), .min_in = 2, .max_in = 2, .params_bytes = sizeof(struct compare),
    .infer = infer_shift, .forward = forward,
};

const struct mo_op mo_op_not = {
    COMMON("Not", 1), .min_in = 1, .max_in = 1, .infer = infer_not, .forward = forward_not,
};

const struct mo_op mo_op_bitwise_not = {
    COMMON("BitwiseNot", 18), .min_in = 1, .max_in = 1, .infer = mo_infer_like_input, .forward = forward_bit_not,
};
