/* Operators of com.microsoft on 8-bit values: what ONNX Runtime's quantizer writes with QOperator. Each is the
 * operator on real numbers between a DequantizeLinear of every input and a QuantizeLinear. */
#include <string.h>

#include "lib/ops/contrib.h"

/* ---- one tensor: x, scale, zero, y_scale, y_zero ---- */

static const struct { const char *type, *plain; } of_one[] = {
    { "QLinearAveragePool", "AveragePool" }, { "QLinearGlobalAveragePool", "GlobalAveragePool" },
    { "QLinearLeakyRelu", "LeakyRelu" },     { "QLinearReduceMean", "ReduceMean" },
    { "QLinearSigmoid", "Sigmoid" },         { "QLinearSoftmax", "Softmax" },
};

static const char *plain_of(const struct mo_node *n)
{
    for (size_t i = 0; i < MO_COUNT(of_one); i++)
        if (!strcmp(of_one[i].type, n->type))
            return of_one[i].plain;
    return "";
}

static enum mopt_status infer_one(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    if (mo_node_int(n, "channels_last", 0))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "channels_last, channels at axis 1 would do");
    return mo_infer_with(ctx, g, n, plain_of(n), n->in, 1);
}

static enum mopt_status expand_one(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], y_scale = mo_contrib_in(e, 3), y_zero = mo_contrib_in(e, 4);
    mo_value_id x = mo_contrib_dequantize(e, e->node->in[0], e->node->in[1], mo_contrib_in(e, 2), 0);
    mo_value_id y = mo_expand_op(e, plain_of(e->node), x, MO_NONE, MO_NONE);
    mo_contrib_copy_attrs(e, "channels_last");
    mo_contrib_quantize(e, y, y_scale, y_zero, out);
    return MOPT_OK;
}

#define OF_ONE(id, Type)                                                                                    \
    const struct mo_op mo_op_##id = {                                                                       \
        .type = Type, .domain = MO_CONTRIB, .since_opset = 1, .min_in = 4, .max_in = 5, .min_out = 1, .max_out = 1, \
        .infer = infer_one, .expand = expand_one, .macs = mo_macs_zero,                                     \
    };
OF_ONE(qlinear_average_pool, "QLinearAveragePool")
OF_ONE(qlinear_global_average_pool, "QLinearGlobalAveragePool")
OF_ONE(qlinear_leaky_relu, "QLinearLeakyRelu")
OF_ONE(qlinear_reduce_mean, "QLinearReduceMean")
OF_ONE(qlinear_sigmoid, "QLinearSigmoid")
OF_ONE(qlinear_softmax, "QLinearSoftmax")

/* ---- two tensors: a, scale, zero, b, scale, zero, y_scale, y_zero ---- */

static enum mopt_status infer_two(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const mo_value_id in[2] = { n->in[0], n->in[3] };
    return mo_infer_with(ctx, g, n, n->type + strlen("QLinear"), in, 2);
}

static enum mopt_status expand_two(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], y_scale = mo_contrib_in(e, 6), y_zero = mo_contrib_in(e, 7);
    mo_value_id a = mo_contrib_dequantize(e, e->node->in[0], e->node->in[1], mo_contrib_in(e, 2), 0);
    mo_value_id b = mo_contrib_dequantize(e, e->node->in[3], e->node->in[4], mo_contrib_in(e, 5), 0);
    mo_value_id y = mo_expand_op(e, e->node->type + strlen("QLinear"), a, b, MO_NONE);
    mo_contrib_quantize(e, y, y_scale, y_zero, out);
    return MOPT_OK;
}

#define OF_TWO(id, Type)                                                                                    \
    const struct mo_op mo_op_##id = {                                                                       \
        .type = Type, .domain = MO_CONTRIB, .since_opset = 1, .min_in = 7, .max_in = 8, .min_out = 1, .max_out = 1, \
        .infer = infer_two, .expand = expand_two, .macs = mo_macs_zero,                                     \
    };
OF_TWO(qlinear_add, "QLinearAdd")
OF_TWO(qlinear_mul, "QLinearMul")

/* ---- QLinearConcat: y_scale, y_zero, then tensor, scale, zero of each ---- */

static enum mopt_status infer_concat(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape y = { .rank = MO_UNKNOWN };
    enum mo_dtype dtype = MO_UNDEFINED;
    int axis = 0;
    if (n->n_in < 5 || (n->n_in - 2) % 3)
        return mo_fail(ctx, MOPT_DATA, "%u inputs, it takes 2 and 3 for each tensor", n->n_in);
    for (uint32_t i = 2; i < n->n_in; i += 3) {
        const struct mo_value *v = mo_in(g, n, i);
        if (!v || !mo_in(g, n, i + 1))
            return mo_fail(ctx, MOPT_DATA, "input %u is left out", v ? i + 1 : i);
        dtype = v->dtype;
        if (v->shape.rank == MO_UNKNOWN || (i > 2 && y.rank != v->shape.rank)) {
            y.rank = MO_UNKNOWN;
            break;
        }
        if (i == 2) {
            y = v->shape;
            MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 1), y.rank, &axis));
            continue;
        }
        bool is_known = y.dim[axis] != MO_UNKNOWN && v->shape.dim[axis] != MO_UNKNOWN;
        y.dim[axis] = is_known ? y.dim[axis] + v->shape.dim[axis] : MO_UNKNOWN;
    }
    mo_set_out(g, n, 0, dtype, &y);
    return MOPT_OK;
}

static enum mopt_status expand_concat(struct mo_expand *e)
{
    uint32_t n = (e->node->n_in - 2) / 3;
    mo_value_id *parts = mo_arena_new(e->g->arena, n, sizeof *parts), out = e->node->out[0], y = mo_contrib_value(e);
    mo_value_id scale = e->node->in[0], zero = e->node->in[1];
    if (!parts)
        return mo_no_memory(e->ctx, n * sizeof *parts, "inputs");
    for (uint32_t i = 0; i < n; i++)
        parts[i] = mo_contrib_dequantize(e, e->node->in[2 + 3 * i], e->node->in[3 + 3 * i], e->node->in[4 + 3 * i], 0);
    mo_contrib_node(e, "Concat", "", parts, n, &y, 1);
    mo_expand_int(e, "axis", mo_node_int(e->node, "axis", 1));
    mo_contrib_quantize(e, y, scale, zero, out);
    return MOPT_OK;
}

const struct mo_op mo_op_qlinear_concat = {
    .type = "QLinearConcat", .domain = MO_CONTRIB, .since_opset = 1,
    .min_in = 2, .max_in = -1, .min_out = 1, .max_out = 1,
    .infer = infer_concat, .expand = expand_concat, .macs = mo_macs_zero,
};

/* ---- QGemm: a, scale, zero, b, scale, zero, c, y_scale, y_zero; c in int32 by a_scale b_scale alpha. Without
 * y_scale the result is float32. ---- */

static enum mopt_status infer_gemm(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const mo_value_id in[2] = { n->in[0], n->in[3] };
    MO_TRY(mo_infer_with(ctx, g, n, "Gemm", in, 2));
    if (!mo_in(g, n, 7))
        mo_out(g, n, 0)->dtype = MO_F32;
    return MOPT_OK;
}

static enum mopt_status expand_gemm(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], c = mo_contrib_in(e, 6), y_scale = mo_contrib_in(e, 7), y_zero = mo_contrib_in(e, 8);
    mo_value_id a_scale = e->node->in[1], b_scale = e->node->in[4];
    int64_t tb = mo_node_int(e->node, "transB", 0), ta = mo_node_int(e->node, "transA", 0);
    float alpha = mo_node_float(e->node, "alpha", 1);
    mo_value_id a = mo_contrib_dequantize(e, e->node->in[0], a_scale, mo_contrib_in(e, 2), 0);
    mo_value_id b = mo_contrib_dequantize(e, e->node->in[3], b_scale, mo_contrib_in(e, 5), tb ? 0 : 1);
    mo_value_id y = mo_expand_op(e, "Gemm", a, b, MO_NONE);
    mo_expand_int(e, "transA", ta);
    mo_expand_int(e, "transB", tb);
    mo_contrib_float(e, "alpha", alpha);
    if (c != MO_NONE) {
        mo_value_id unit = mo_expand_op(e, "Mul", mo_expand_op(e, "Mul", a_scale, b_scale, MO_NONE),
                                        mo_expand_scalar(e, MO_F32, (double)alpha), MO_NONE);
        mo_value_id wide = mo_expand_op(e, "Cast", c, MO_NONE, MO_NONE);
        mo_expand_int(e, "to", MO_F32);
        y = mo_expand_op(e, "Add", y, mo_expand_op(e, "Mul", wide, unit, MO_NONE), MO_NONE);
    }
    if (y_scale == MO_NONE)
        mo_expand_into(e, out, "Identity", y, MO_NONE, MO_NONE);
    else
        mo_contrib_quantize(e, y, y_scale, y_zero, out);
    return MOPT_OK;
}

static int64_t macs_gemm(const struct mo_graph *g, const struct mo_node *n)
{
    int64_t y = mo_value_elems(mo_out(g, n, 0));
    const struct mo_shape *a = &mo_in(g, n, 0)->shape;
    int64_t k = a->rank == 2 ? a->dim[mo_node_int(n, "transA", 0) ? 0 : 1] : MO_UNKNOWN;
    return y == MO_UNKNOWN || k == MO_UNKNOWN ? MO_UNKNOWN : y * k;
}

const struct mo_op mo_op_qgemm = {
    .type = "QGemm", .domain = MO_CONTRIB, .since_opset = 1,
    .min_in = 6, .max_in = 9, .min_out = 1, .max_out = 1,
    .infer = infer_gemm, .expand = expand_gemm, .macs = macs_gemm,
};

/* ---- float in, whole numbers between ---- */

/* out = (a b in whole numbers) scale (+ bias) */
static void whole_product(struct mo_expand *e, mo_value_id a, mo_value_id a_zero, mo_value_id b, mo_value_id b_zero,
                          mo_value_id scale, mo_value_id bias, mo_value_id out)
{
    const mo_value_id in[4] = { a, b, a_zero, b_zero };
    mo_value_id sums = mo_contrib_value(e);
    mo_contrib_node(e, "MatMulInteger", "", in, b_zero != MO_NONE ? 4 : a_zero != MO_NONE ? 3 : 2, &sums, 1);
    mo_value_id wide = mo_expand_op(e, "Cast", sums, MO_NONE, MO_NONE);
    mo_expand_int(e, "to", MO_F32);
    if (bias == MO_NONE)
        mo_expand_into(e, out, "Mul", wide, scale, MO_NONE);
    else
        mo_expand_into(e, out, "Add", mo_expand_op(e, "Mul", wide, scale, MO_NONE), bias, MO_NONE);
}

static enum mopt_status infer_product(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(mo_infer_with(ctx, g, n, "MatMul", n->in, 2));
    mo_out(g, n, 0)->dtype = MO_F32;
    return MOPT_OK;
}

static int64_t macs_product(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *a = &mo_in(g, n, 0)->shape;
    int64_t y = mo_value_elems(mo_out(g, n, 0)), k = a->rank > 0 ? a->dim[a->rank - 1] : MO_UNKNOWN;
    return y == MO_UNKNOWN || k == MO_UNKNOWN ? MO_UNKNOWN : y * k;
}

/* a, b, b_scale, b_zero, bias: a is quantized here, by its own range. */
static enum mopt_status expand_dynamic(struct mo_expand *e)
{
    mo_value_id a = e->node->in[0], b = e->node->in[1], b_scale = e->node->in[2], out = e->node->out[0];
    mo_value_id b_zero = mo_contrib_in(e, 3), bias = mo_contrib_in(e, 4);
    const mo_value_id made[3] = { mo_contrib_value(e), mo_contrib_value(e), mo_contrib_value(e) };
    mo_contrib_node(e, "DynamicQuantizeLinear", "", &a, 1, made, 3);
    mo_value_id scale = mo_expand_op(e, "Mul", made[1], b_scale, MO_NONE);
    whole_product(e, made[0], made[2], b, b_zero, scale, bias, out);
    return MOPT_OK;
}

const struct mo_op mo_op_dynamic_quantize_matmul = {
    .type = "DynamicQuantizeMatMul", .domain = MO_CONTRIB, .since_opset = 1,
    .min_in = 3, .max_in = 5, .min_out = 1, .max_out = 1,
    .infer = infer_product, .expand = expand_dynamic, .macs = macs_product,
};

/* a, b, a_scale, b_scale, a_zero, b_zero, bias */
static enum mopt_status expand_to_float(struct mo_expand *e)
{
    mo_value_id a = e->node->in[0], b = e->node->in[1], out = e->node->out[0];
    mo_value_id a_zero = mo_contrib_in(e, 4), b_zero = mo_contrib_in(e, 5), bias = mo_contrib_in(e, 6);
    mo_value_id scale = mo_expand_op(e, "Mul", e->node->in[2], e->node->in[3], MO_NONE);
    whole_product(e, a, a_zero, b, b_zero, scale, bias, out);
    return MOPT_OK;
}

const struct mo_op mo_op_matmul_integer_to_float = {
    .type = "MatMulIntegerToFloat", .domain = MO_CONTRIB, .since_opset = 1,
    .min_in = 4, .max_in = 7, .min_out = 1, .max_out = 1,
    .infer = infer_product, .expand = expand_to_float, .macs = macs_product,
};
