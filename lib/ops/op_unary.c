/* Operators of one input that work element by element, y = f(x; a, b). One row each,
 * at the end; a and b are float attributes. Clip takes its limits from inputs since
 * opset 11, so it has functions of its own. */
#include <math.h>
#include <string.h>

#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct unary {
    enum mo_unary f;
    double a, b;
    bool is_a_input, is_b_input;    /* Clip: the limit is known only while running */
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum mo_unary f,
                              const char *name_a, float a, const char *name_b, float b)
{
    struct unary *p = n->params;
    p->f = f;
    p->a = (double)(name_a ? mo_node_float(n, name_a, a) : a);
    p->b = (double)(name_b ? mo_node_float(n, name_b, b) : b);
    if (f == MO_CELU && p->a == 0.0)
        return mo_fail(ctx, MOPT_DATA, "alpha is 0, it is divided by");
    if (f == MO_GELU && !strcmp(mo_node_text(n, "approximate", "none"), "tanh"))
        p->f = MO_GELU_TANH;
    return mo_infer_like_input(ctx, g, n);
}

/* Types beside float32 go through unary_typed, and only where f means something for them. */
static bool is_computed(enum mo_dtype dtype, enum mo_unary f)
{
    switch (dtype) {
    case MO_F32: case MO_F64: case MO_BF16: case MO_F16:
        return true;
    case MO_I8: case MO_I16: case MO_I32: case MO_I64: case MO_U8: case MO_U16: case MO_U32: case MO_U64:
        return f == MO_ABS || f == MO_NEG || f == MO_SIGN || f == MO_RELU || f == MO_CLIP;
    default:
        return false;
    }
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct unary *p = n->params;
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    if (!is_computed(dtype, p->f))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(dtype));
    for (uint32_t i = 1; i < n->n_in; i++)
        if (mo_run_wants_grad(r, n, i))
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "its limits cannot be trained");
    return MOPT_OK;
}

static enum mopt_status limits(struct mo_run *r, const struct mo_node *n, double *a, double *b)
{
    const struct unary *p = n->params;
    *a = p->a;
    *b = p->b;
    if ((p->is_a_input && !mo_run_scalar(r, n, 1, a)) || (p->is_b_input && !mo_run_scalar(r, n, 2, b)))
        return mo_fail(r->ctx, MOPT_DATA, "a limit is not one number");
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct unary *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    size_t n_elems = (size_t)mo_value_elems(x);
    double a, b;
    MO_TRY(limits(r, n, &a, &b));
    if (mo_dtype_is_half(x->dtype))
        r->be->unary_bf16(r->dev, p->f, (float)a, (float)b, n_elems, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    else if (x->dtype == MO_F32)
        r->be->unary(r->dev, p->f, (float)a, (float)b, n_elems, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    else
        r->be->unary_typed(r->dev, p->f, (int)x->dtype, a, b, n_elems, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct unary *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    double a, b;
    if (!dx)
        return MOPT_OK;
    MO_TRY(limits(r, n, &a, &b));
    if (mo_run_in_half(r, n, 0))
        r->be->unary_grad_bf16(r->dev, p->f, (float)a, (float)b, mo_run_in_elems(r, n, 0), mo_run_in(r, n, 0),
                               mo_run_out(r, n, 0), (const uint16_t *)mo_run_grad_out(r, n, 0), (uint16_t *)dx,
                               mo_run_adds(r, n, 0));
    else
        r->be->unary_grad(r->dev, p->f, (float)a, (float)b, mo_run_in_elems(r, n, 0), mo_run_in(r, n, 0),
                          mo_run_out(r, n, 0), mo_run_grad_out(r, n, 0), dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

/* Attributes until opset 10, inputs after; either way a limit that is left out is none. */
static enum mopt_status infer_clip(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct unary *p = n->params;
    *p = (struct unary){.f = MO_CLIP, .a = -INFINITY, .b = INFINITY};
    const struct mo_attr *low = mo_node_attr(n, "min"), *high = mo_node_attr(n, "max");
    if (low)
        p->a = (double)low->f;
    if (high)
        p->b = (double)high->f;
    for (uint32_t i = 1; i < 3; i++) {
        const struct mo_value *v = mo_in(g, n, i);
        if (!v)
            continue;
        if (v->data && !mo_value_scalar(v, i == 1 ? &p->a : &p->b))
            return mo_fail(ctx, MOPT_DATA, "limit '%s' is not one number", v->name);
        *(i == 1 ? &p->is_a_input : &p->is_b_input) = !v->data;
    }
    return mo_infer_like_input(ctx, g, n);
}

#define READS_X 1u
#define READS_Y (1u << 16)

#define MEMBERS(onnx, since, inputs, reads, quantized, half)                                        \
    .type = onnx, .since_opset = since, .min_in = 1, .max_in = inputs, .min_out = 1, .max_out = 1,  \
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE | MO_OP_ADDS_GRAD,                                  \
    .params_bytes = sizeof(struct unary), .prepare = prepare, .forward = forward,                   \
    .backward = backward, .macs = mo_macs_zero, .couple = mo_couple_through,                        \
    .backward_reads = reads, .bf16_in = half, .quant = {.kind = quantized}

/* C name, ONNX type, since opset, function, name and default of a and of b, what backward reads, quantization,
 * whether it may be computed on bfloat16: activations, not functions */
#define UNARY(id, onnx, since, f, name_a, a, name_b, b, reads, quantized, half)                     \
    static enum mopt_status infer_##id(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n) \
    {                                                                                               \
        return infer(ctx, g, n, f, name_a, a, name_b, b);                                           \
    }                                                                                               \
    const struct mo_op mo_op_##id = {MEMBERS(onnx, since, 1, reads, quantized, half), .infer = infer_##id};

UNARY(abs, "Abs", 1, MO_ABS, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(acos, "Acos", 7, MO_ACOS, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(acosh, "Acosh", 9, MO_ACOSH, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(asin, "Asin", 7, MO_ASIN, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(asinh, "Asinh", 9, MO_ASINH, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(atan, "Atan", 7, MO_ATAN, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(atanh, "Atanh", 9, MO_ATANH, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(ceil, "Ceil", 1, MO_CEIL, NULL, 0, NULL, 0, 0, MO_QUANT_FLOAT, 0)
UNARY(celu, "Celu", 12, MO_CELU, "alpha", 1.0f, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(cos, "Cos", 7, MO_COS, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(cosh, "Cosh", 9, MO_COSH, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(elu, "Elu", 1, MO_ELU, "alpha", 1.0f, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(erf, "Erf", 9, MO_ERF, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(exp, "Exp", 1, MO_EXP, NULL, 0, NULL, 0, READS_Y, MO_QUANT_FLOAT, 0)
UNARY(floor, "Floor", 1, MO_FLOOR, NULL, 0, NULL, 0, 0, MO_QUANT_FLOAT, 0)
UNARY(gelu, "Gelu", 20, MO_GELU, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(hard_sigmoid, "HardSigmoid", 1, MO_HARD_SIGMOID, "alpha", 0.2f, "beta", 0.5f, READS_Y, MO_QUANT_FLOAT, 1)
UNARY(hard_swish, "HardSwish", 14, MO_HARD_SWISH, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(leaky_relu, "LeakyRelu", 1, MO_LEAKY_RELU, "alpha", 0.01f, NULL, 0, READS_X, MO_QUANT_ARITH, 1)
UNARY(log, "Log", 1, MO_LOG, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(mish, "Mish", 18, MO_MISH, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(neg, "Neg", 1, MO_NEG, NULL, 0, NULL, 0, 0, MO_QUANT_FLOAT, 0)
UNARY(reciprocal, "Reciprocal", 1, MO_RECIPROCAL, NULL, 0, NULL, 0, READS_Y, MO_QUANT_FLOAT, 0)
UNARY(relu, "Relu", 1, MO_RELU, NULL, 0, NULL, 0, READS_Y, MO_QUANT_CLIP, 1)
UNARY(round, "Round", 11, MO_ROUND, NULL, 0, NULL, 0, 0, MO_QUANT_FLOAT, 0)
UNARY(selu, "Selu", 1, MO_SELU, "alpha", 1.67326324f, "gamma", 1.05070099f, READS_X, MO_QUANT_FLOAT, 1)
UNARY(sigmoid, "Sigmoid", 1, MO_SIGMOID, NULL, 0, NULL, 0, READS_Y, MO_QUANT_ARITH, 1)
UNARY(sign, "Sign", 9, MO_SIGN, NULL, 0, NULL, 0, 0, MO_QUANT_FLOAT, 0)
UNARY(sin, "Sin", 7, MO_SIN, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(sinh, "Sinh", 9, MO_SINH, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(softplus, "Softplus", 1, MO_SOFTPLUS, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(softsign, "Softsign", 1, MO_SOFTSIGN, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(sqrt, "Sqrt", 1, MO_SQRT, NULL, 0, NULL, 0, READS_Y, MO_QUANT_FLOAT, 0)
UNARY(swish, "Swish", 24, MO_SWISH, "alpha", 1.0f, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)
UNARY(tan, "Tan", 7, MO_TAN, NULL, 0, NULL, 0, READS_X, MO_QUANT_FLOAT, 0)
UNARY(tanh, "Tanh", 1, MO_TANH, NULL, 0, NULL, 0, READS_Y, MO_QUANT_FLOAT, 1)
UNARY(thresholded_relu, "ThresholdedRelu", 10, MO_THRESHOLDED_RELU, "alpha", 1.0f, NULL, 0, READS_X, MO_QUANT_FLOAT, 1)

/* What lowering makes of its formula, in files of any opset. */
const struct mo_op mo_op_gelu_of_mopt = {
    .type = "Gelu", .domain = "mopt", .since_opset = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE | MO_OP_ADDS_GRAD | MO_OP_INTERNAL,
    .params_bytes = sizeof(struct unary), .infer = infer_gelu, .prepare = prepare, .forward = forward,
    .backward = backward, .macs = mo_macs_zero, .backward_reads = READS_X, .bf16_in = 1,
};

const struct mo_op mo_op_clip = {MEMBERS("Clip", 6, 3, READS_Y, MO_QUANT_CLIP, 1), .infer = infer_clip};
