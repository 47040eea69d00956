/* Add, Sub, Mul, Div, Pow, Mod: y = f(a, b) with numpy's broadcasting.
 *
 *   Add  da = dy               db = dy
 *   Sub  da = dy               db = -dy
 *   Mul  da = dy b             db = dy a
 *   Div  da = dy / b           db = -dy y / b
 *   Pow  da = dy b a^(b-1)     db = dy y log a
 * each summed over the axes along which a or b was repeated. */
#include "lib/ops/tensor.h"

#include <float.h>
#include <math.h>

struct binary {
    enum mo_binary f;
};

/* ---- infer ---- */

static int64_t known_result(enum mo_binary f, int64_t a, int64_t b)
{
    int64_t y;
    bool overflows = false;
    switch (f) {
    case MO_ADD: overflows = __builtin_add_overflow(a, b, &y); break;
    case MO_SUB: overflows = __builtin_sub_overflow(a, b, &y); break;
    case MO_MUL: overflows = __builtin_mul_overflow(a, b, &y); break;
    case MO_DIV:
        overflows = b == 0 || (b == -1 && a == INT64_MIN);
        y = overflows ? 0 : a / b;
        break;
    case MO_MOD:
        overflows = b <= 0;
        y = overflows ? 0 : (a % b + b) % b;
        break;
    default:
        return MO_VALUE_UNKNOWN;
    }
    return overflows ? MO_VALUE_UNKNOWN : y;
}

static void infer_known(struct mo_graph *g, const struct mo_node *n, enum mo_binary f)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1), *y = mo_out(g, n, 0);
    if (!y || !mo_shape_known(&a->shape) || !mo_shape_known(&b->shape) || y->shape.rank > 1)
        return;
    int64_t *known = mo_known_out(g, n, 0);
    int64_t count = known ? mo_value_elems(y) : 0, n_a = mo_value_elems(a), n_b = mo_value_elems(b);
    for (int64_t k = 0; k < count; k++) {
        int64_t u = mo_known_in(g, n, 0, n_a == 1 ? 0 : k), v = mo_known_in(g, n, 1, n_b == 1 ? 0 : k);
        if (u != MO_VALUE_UNKNOWN && v != MO_VALUE_UNKNOWN)
            known[k] = known_result(f, u, v);
    }
}

static enum mopt_status infer_as(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum mo_binary f)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    ((struct binary *)n->params)->f = f;
    if (f != MO_POW)
        MO_TRY(mo_check_same_dtype(ctx, a, b));
    MO_TRY(mo_infer_broadcast(ctx, g, n));
    infer_known(g, n, f);
    return MOPT_OK;
}

/* ---- forward ---- */

static void broadcast(struct mo_run *r, enum mo_binary f, enum mo_dtype dtype, const struct mo_shape *shape,
                      const struct mo_shape *shape_a, const void *a, const struct mo_shape *shape_b, const void *b, void *y)
{
    int64_t stride_a[MO_MAX_RANK], stride_b[MO_MAX_RANK];
    mo_broadcast_strides(shape_a, shape, stride_a);
    mo_broadcast_strides(shape_b, shape, stride_b);
    r->be->binary(r->dev, f, (int)dtype, shape->rank, shape->dim, stride_a, stride_b, a, b, y);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct binary *p = n->params;
    const struct mo_value *a = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    const struct mo_shape shape_b = mo_operand_shape(r->graph, n);
    broadcast(r, p->f, a->dtype, &y->shape, &a->shape, mo_run_in(r, n, 0), &shape_b, mo_run_in(r, n, 1),
              mo_run_out(r, n, 0));
    return MOPT_OK;
}

/* ---- backward ---- */

/* Of two tensors of one shape: lowering leaves all others in float32. */
static void add_backward_bf16(struct mo_run *r, const struct mo_node *n)
{
    const uint16_t *dy = (const uint16_t *)mo_run_grad_out(r, n, 0);
    for (uint32_t i = 0; i < 2; i++) {
        uint16_t *dx = (uint16_t *)mo_run_grad_in(r, n, i);
        if (dx)
            r->be->axpy_bf16(r->dev, (size_t)mo_value_elems(mo_in(r->graph, n, i)), 1, dy, dx, mo_run_adds(r, n, i));
    }
}

static enum mopt_status add_backward(struct mo_run *r, const struct mo_node *n)
{
    const struct binary *p = n->params;
    const struct mo_shape *shape = &mo_out(r->graph, n, 0)->shape;
    const float *dy = mo_run_grad_out(r, n, 0);
    float *da = mo_run_grad_in(r, n, 0), *db = mo_run_grad_in(r, n, 1);
    if (mo_run_in_half(r, n, 0)) {
        add_backward_bf16(r, n);
        return MOPT_OK;
    }
    if (da)
        mo_sum_to(r, shape, dy, &mo_in(r->graph, n, 0)->shape, da, mo_run_adds(r, n, 0));
    if (!db)
        return MOPT_OK;
    const struct mo_shape *shape_b = &mo_in(r->graph, n, 1)->shape;
    size_t n_b = (size_t)mo_shape_elems(shape_b);
    bool add = mo_run_adds(r, n, 1);
    if (p->f == MO_ADD) {
        mo_sum_to(r, shape, dy, shape_b, db, add);
    } else if (!add) {
        mo_sum_to(r, shape, dy, shape_b, db, false);
        r->be->axpy(r->dev, n_b, -1, db, db, false);
    } else {
        float *sum = mo_run_scratch(r, n);
        mo_sum_to(r, shape, dy, shape_b, sum, false);
        r->be->axpy(r->dev, n_b, -1, sum, db, true);
    }
    return MOPT_OK;
}

static size_t scratch_sub(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? (size_t)mo_value_elems(mo_in(r->graph, n, 1)) * sizeof(float) : 0;
}

static size_t scratch_one(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? (size_t)mo_value_elems(mo_out(r->graph, n, 0)) * sizeof(float) : 0;
}

/* Where a term of y's shape is made: in the gradient itself when nothing has to be summed. */
static float *term_for(struct mo_run *r, const struct mo_node *n, uint32_t i, float *dx)
{
    return mo_value_elems(mo_in(r->graph, n, i)) == mo_value_elems(mo_out(r->graph, n, 0)) ? dx : mo_run_scratch(r, n);
}

static void sum_term(struct mo_run *r, const struct mo_node *n, uint32_t i, const float *term, float *dx)
{
    if (term != dx)
        mo_sum_to(r, &mo_out(r->graph, n, 0)->shape, term, &mo_in(r->graph, n, i)->shape, dx, false);
}

static enum mopt_status mul_backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *shape = &mo_out(r->graph, n, 0)->shape;
    for (uint32_t i = 0; i < 2; i++) {
        float *dx = mo_run_grad_in(r, n, i);
        if (!dx)
            continue;
        float *term = term_for(r, n, i, dx);
        broadcast(r, MO_MUL, MO_F32, shape, shape, mo_run_grad_out(r, n, 0), &mo_in(r->graph, n, 1 - i)->shape,
                  mo_run_in(r, n, 1 - i), term);
        sum_term(r, n, i, term, dx);
    }
    return MOPT_OK;
}

static enum mopt_status div_backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *shape = &mo_out(r->graph, n, 0)->shape, *shape_b = &mo_in(r->graph, n, 1)->shape;
    const float *dy = mo_run_grad_out(r, n, 0), *b = mo_run_in(r, n, 1);
    float *da = mo_run_grad_in(r, n, 0), *db = mo_run_grad_in(r, n, 1);
    if (da) {
        float *term = term_for(r, n, 0, da);
        broadcast(r, MO_DIV, MO_F32, shape, shape, dy, shape_b, b, term);
        sum_term(r, n, 0, term, da);
    }
    if (db) {
        float *term = term_for(r, n, 1, db);
        broadcast(r, MO_MUL, MO_F32, shape, shape, dy, shape, mo_run_out(r, n, 0), term);
        broadcast(r, MO_DIV, MO_F32, shape, shape, term, shape_b, b, term);
        sum_term(r, n, 1, term, db);
        r->be->axpy(r->dev, (size_t)mo_shape_elems(shape_b), -1, db, db, false);
    }
    return MOPT_OK;
}

/* Scratch: a term of y's shape, b as float32, and b - 1 or log a. */
struct pow_scratch { size_t b_at, other_at, bytes; };

static struct pow_scratch pow_parts(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct mo_value *a = mo_in(r->graph, n, 0), *b = mo_in(r->graph, n, 1), *y = mo_out(r->graph, n, 0);
    size_t of_b = mo_part_bytes((size_t)mo_value_elems(b) * 8), of_a = mo_part_bytes((size_t)mo_value_elems(a) * 8);
    struct pow_scratch s;
    s.b_at = backward ? mo_part_bytes((size_t)mo_value_elems(y) * sizeof(float))
                      : mo_part_bytes((size_t)mo_value_elems(y) * 8);
    s.other_at = s.b_at + of_b;
    s.bytes = s.other_at + MO_MAX(of_a, of_b);
    return s;
}

/* When the types of a and b differ, the power is taken in float64 and cast to a's type. */
static enum mopt_status pow_forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(r->graph, n, 0), *b = mo_in(r->graph, n, 1), *y = mo_out(r->graph, n, 0);
    if (a->dtype == b->dtype)
        return forward(r, n);
    struct pow_scratch s = pow_parts(r, n, false);
    char *scratch = mo_run_scratch(r, n);
    void *wide_b = scratch + s.b_at, *wide_a = scratch + s.other_at;
    if (a->dtype == MO_F32) {
        r->be->cast(r->dev, (int)b->dtype, MO_F32, (size_t)mo_value_elems(b), mo_run_in(r, n, 1), wide_b);
        broadcast(r, MO_POW, MO_F32, &y->shape, &a->shape, mo_run_in(r, n, 0), &b->shape, wide_b, mo_run_out(r, n, 0));
        return MOPT_OK;
    }
    r->be->cast(r->dev, (int)a->dtype, MO_F64, (size_t)mo_value_elems(a), mo_run_in(r, n, 0), wide_a);
    r->be->cast(r->dev, (int)b->dtype, MO_F64, (size_t)mo_value_elems(b), mo_run_in(r, n, 1), wide_b);
    broadcast(r, MO_POW, MO_F64, &y->shape, &a->shape, wide_a, &b->shape, wide_b, scratch);
    r->be->cast(r->dev, MO_F64, (int)y->dtype, (size_t)mo_value_elems(y), scratch, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status pow_backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(r->graph, n, 0), *b = mo_in(r->graph, n, 1);
    const struct mo_shape *shape = &mo_out(r->graph, n, 0)->shape;
    const float *dy = mo_run_grad_out(r, n, 0), one = 1;
    float *da = mo_run_grad_in(r, n, 0), *db = mo_run_grad_in(r, n, 1);
    struct pow_scratch s = pow_parts(r, n, true);
    char *scratch = mo_run_scratch(r, n);
    float *term = (float *)scratch, *wide_b = (float *)(scratch + s.b_at), *other = (float *)(scratch + s.other_at);
    size_t n_a = (size_t)mo_value_elems(a), n_b = (size_t)mo_value_elems(b);
    if (da) {
        r->be->cast(r->dev, (int)b->dtype, MO_F32, n_b, mo_run_in(r, n, 1), wide_b);
        r->be->fill(r->dev, sizeof one, n_b, &one, other);
        broadcast(r, MO_SUB, MO_F32, &b->shape, &b->shape, wide_b, &b->shape, other, other);
        broadcast(r, MO_POW, MO_F32, shape, &a->shape, mo_run_in(r, n, 0), &b->shape, other, term);
        broadcast(r, MO_MUL, MO_F32, shape, shape, term, &b->shape, wide_b, term);
        broadcast(r, MO_MUL, MO_F32, shape, shape, term, shape, dy, term);
        mo_sum_to(r, shape, term, &a->shape, da, false);
    }
    if (db) {   /* 0^b has the slope 0; log of a tiny number times 0 is that */
        r->be->unary(r->dev, MO_CLIP, FLT_MIN, FLT_MAX, n_a, mo_run_in(r, n, 0), other);
        r->be->unary(r->dev, MO_LOG, 0, 0, n_a, other, other);
        broadcast(r, MO_MUL, MO_F32, shape, shape, dy, shape, mo_run_out(r, n, 0), term);
        broadcast(r, MO_MUL, MO_F32, shape, shape, term, &a->shape, other, term);
        mo_sum_to(r, shape, term, &b->shape, db, false);
    }
    return MOPT_OK;
}

static size_t scratch_pow(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    bool one_type = mo_in(r->graph, n, 0)->dtype == mo_in(r->graph, n, 1)->dtype;
    return backward || !one_type ? pow_parts(r, n, backward).bytes : 0;
}

/* ---- the operators ---- */

static enum mopt_status infer_add(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, MO_ADD);
}
static enum mopt_status infer_sub(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, MO_SUB);
}
static enum mopt_status infer_mul(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, MO_MUL);
}
static enum mopt_status infer_div(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, MO_DIV);
}
static enum mopt_status infer_pow(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, MO_POW);
}
static enum mopt_status infer_mod(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, mo_node_int(n, "fmod", 0) ? MO_FMOD : MO_MOD);
}

const struct mo_op mo_op_add = {
    .type = "Add",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE | MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct binary),
    .infer = infer_add, .forward = forward, .backward = add_backward,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
    .params_in = 3, .bf16_in = 3,
    .quant = { .kind = MO_QUANT_ARITH },
};

const struct mo_op mo_op_sub = {
    .type = "Sub",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE | MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct binary),
    .infer = infer_sub, .forward = forward, .backward = add_backward,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
    .scratch_bytes = scratch_sub,
    .params_in = 3,
};

const struct mo_op mo_op_mul = {
    .type = "Mul",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE,
    .params_bytes = sizeof(struct binary),
    .infer = infer_mul, .forward = forward, .backward = mul_backward,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
    .scratch_bytes = scratch_one,
    .backward_reads = 3,
    .params_in = 3,
    .quant = { .kind = MO_QUANT_ARITH },
};

/* A constant that is divided by belongs to the formula (a standard deviation, the root of a width). */
const struct mo_op mo_op_div = {
    .type = "Div",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE,
    .params_bytes = sizeof(struct binary),
    .infer = infer_div, .forward = forward, .backward = div_backward,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
    .scratch_bytes = scratch_one,
    .backward_reads = 1u << 1 | 1u << 16,
    .params_in = 1,
};

const struct mo_op mo_op_pow = {
    .type = "Pow",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE,
    .params_bytes = sizeof(struct binary),
    .infer = infer_pow, .forward = pow_forward, .backward = pow_backward,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
    .scratch_bytes = scratch_pow,
    .backward_reads = 3u | 1u << 16,
};

const struct mo_op mo_op_mod = {
    .type = "Mod",
    .since_opset = 10,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE,
    .params_bytes = sizeof(struct binary),
    .infer = infer_mod, .forward = forward,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
};
