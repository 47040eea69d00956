/* Operators of com.microsoft that ONNX Runtime's optimizer makes of several: FusedConv, FusedGemm, FusedMatMul,
 * BiasGelu, FastGelu, QuickGelu, Gelu, SkipLayerNormalization and its form without a mean. Each is taken apart again. */
#include <string.h>

#include "lib/ops/contrib.h"

#define FUSED(id, Type, least_in, most_in, most_out, fn_infer, fn_expand, fn_macs, params)                  \
    const struct mo_op mo_op_##id = {                                                                       \
        .type = Type, .domain = MO_CONTRIB, .since_opset = 1, .min_in = least_in, .max_in = most_in,        \
        .min_out = 1, .max_out = most_out, .infer = fn_infer, .expand = fn_expand, .macs = fn_macs,         \
        .params_in = params,                                                                                \
    };

/* ---- an activation behind ---- */

/* out = the operator's activation of x, its numbers from the attributes alpha, beta, gamma or a list. */
static enum mopt_status activate(struct mo_expand *e, mo_value_id x, mo_value_id out)
{
    static const char *const possible[] = { "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid", "Elu", "Softplus" };
    const struct mo_node *n = e->node;
    const char *type = mo_node_text(n, "activation", "");
    const struct mo_attr *list = mo_node_attr(n, "activation_params");
    bool is_list = list && list->kind == MO_ATTR_FLOATS && list->n > 0;
    float a = is_list ? list->floats[0] : mo_node_float(n, "activation_alpha", strcmp(type, "Elu") ? 0.01f : 1);
    float b = is_list && list->n > 1 ? list->floats[1] : mo_node_float(n, "activation_beta", 0.5f);
    bool is_one = !*type;
    for (size_t i = 0; i < MO_COUNT(possible); i++)
        is_one = is_one || !strcmp(type, possible[i]);
    if (!is_one)
        return mo_fail(e->ctx, MOPT_UNSUPPORTED, "activation '%s'", type);
    if (!strcmp(type, "Clip") && e->g->opset >= 11) {
        mo_expand_into(e, out, "Clip", x, mo_expand_scalar(e, MO_F32, (double)a), mo_expand_scalar(e, MO_F32, (double)b));
        return MOPT_OK;
    }
    mo_expand_into(e, out, *type ? type : "Identity", x, MO_NONE, MO_NONE);
    if (!strcmp(type, "Clip")) {
        mo_contrib_float(e, "min", a);
        mo_contrib_float(e, "max", b);
    } else if (*type) {
        mo_contrib_float(e, "alpha", a);
        mo_contrib_float(e, "beta", b);
    }
    return MOPT_OK;
}

static enum mopt_status infer_conv(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return mo_infer_with(ctx, g, n, "Conv", n->in, MO_MIN(n->n_in, 3u));
}

/* x, w, bias, what is added */
static enum mopt_status expand_conv(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], more = mo_contrib_in(e, 3);
    mo_value_id y = mo_expand_op(e, "Conv", e->node->in[0], e->node->in[1], mo_contrib_in(e, 2));
    mo_contrib_copy_attrs(e, "activation");
    if (more != MO_NONE)
        y = mo_expand_op(e, "Add", y, more, MO_NONE);
    return activate(e, y, out);
}

static int64_t macs_conv(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *w = mo_in(g, n, 1);
    int64_t y = mo_value_elems(mo_out(g, n, 0)), elems = mo_value_elems(w);
    return y == MO_UNKNOWN || elems == MO_UNKNOWN || w->shape.dim[0] < 1 ? MO_UNKNOWN : y * (elems / w->shape.dim[0]);
}

FUSED(fused_conv, "FusedConv", 2, 4, 1, infer_conv, expand_conv, macs_conv, 0x6)

static enum mopt_status infer_gemm(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return mo_infer_with(ctx, g, n, "Gemm", n->in, n->n_in);
}

static enum mopt_status expand_gemm(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], y = mo_expand_op(e, "Gemm", e->node->in[0], e->node->in[1], mo_contrib_in(e, 2));
    mo_contrib_copy_attrs(e, "activation");
    return activate(e, y, out);
}

static int64_t macs_gemm(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *a = &mo_in(g, n, 0)->shape;
    int64_t y = mo_value_elems(mo_out(g, n, 0));
    int64_t k = a->rank == 2 ? a->dim[mo_node_int(n, "transA", 0) ? 0 : 1] : MO_UNKNOWN;
    return y == MO_UNKNOWN || k == MO_UNKNOWN ? MO_UNKNOWN : y * k;
}

FUSED(fused_gemm, "FusedGemm", 2, 3, 1, infer_gemm, expand_gemm, macs_gemm, 0x6)

/* ---- FusedMatMul: alpha op(a) op(b), op exchanges the last two axes when transA, transB ---- */

static struct mo_shape exchanged(const struct mo_shape *shape, bool is_exchanged)
{
    struct mo_shape y = *shape;
    if (is_exchanged && y.rank >= 2) {
        y.dim[y.rank - 1] = shape->dim[y.rank - 2];
        y.dim[y.rank - 2] = shape->dim[y.rank - 1];
    }
    return y;
}

static enum mopt_status infer_matmul(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    const struct mo_shape shape_a = a->shape, shape_b = b->shape;
    if (mo_node_int(n, "transBatchA", 0) || mo_node_int(n, "transBatchB", 0))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "transBatchA and transBatchB, 0 would do");
    /* MatMul is asked about the exchanged shapes. */
    a->shape = exchanged(&shape_a, mo_node_int(n, "transA", 0));
    b->shape = exchanged(&shape_b, mo_node_int(n, "transB", 0));
    enum mopt_status status = a == b ? MOPT_OK : mo_infer_with(ctx, g, n, "MatMul", n->in, 2);
    a->shape = shape_a;
    b->shape = shape_b;
    if (a == b)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a product of '%s' with itself", a->name);
    return status;
}

static mo_value_id exchange(struct mo_expand *e, mo_value_id x, bool is_wanted)
{
    int64_t perm[MO_MAX_RANK];
    int rank = e->g->values[x].shape.rank;
    if (!is_wanted || rank < 2)
        return x;
    for (int k = 0; k < rank; k++)
        perm[k] = k < rank - 2 ? k : k == rank - 2 ? rank - 1 : rank - 2;
    mo_value_id y = mo_expand_op(e, "Transpose", x, MO_NONE, MO_NONE);
    mo_expand_ints(e, "perm", perm, (size_t)rank);
    return y;
}

static enum mopt_status expand_matmul(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], in[2] = { e->node->in[0], e->node->in[1] };
    float alpha = mo_node_float(e->node, "alpha", 1);
    mo_value_id a = exchange(e, in[0], mo_node_int(e->node, "transA", 0));
    mo_value_id b = exchange(e, in[1], mo_node_int(e->node, "transB", 0));
    mo_value_id y = mo_expand_op(e, "MatMul", a, b, MO_NONE);
    mo_expand_into(e, out, "Mul", y, mo_expand_scalar(e, MO_F32, (double)alpha), MO_NONE);
    return MOPT_OK;
}

static int64_t macs_matmul(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape a = exchanged(&mo_in(g, n, 0)->shape, mo_node_int(n, "transA", 0));
    int64_t y = mo_value_elems(mo_out(g, n, 0)), k = a.rank > 0 ? a.dim[a.rank - 1] : MO_UNKNOWN;
    return y == MO_UNKNOWN || k == MO_UNKNOWN ? MO_UNKNOWN : y * k;
}

FUSED(fused_matmul, "FusedMatMul", 2, 2, 1, infer_matmul, expand_matmul, macs_matmul, 0x3)

/* ---- Gelu in its forms: x + bias first, where there is one ---- */

static void gelu(struct mo_expand *e, mo_value_id x, bool is_tanh, mo_value_id out)
{
    mo_value_id inner = x;
    if (is_tanh) {      /* sqrt(2 / pi) (x + 0.044715 x^3) */
        mo_value_id cube = mo_expand_op(e, "Mul", mo_expand_op(e, "Mul", x, x, MO_NONE), x, MO_NONE);
        cube = mo_expand_op(e, "Mul", cube, mo_expand_scalar(e, MO_F32, 0.044715), MO_NONE);
        inner = mo_expand_op(e, "Add", x, cube, MO_NONE);
    }
    inner = mo_expand_op(e, "Mul", inner, mo_expand_scalar(e, MO_F32, is_tanh ? 0.7978845608028654 : 0.7071067811865476),
                         MO_NONE);
    mo_value_id bent = mo_expand_op(e, is_tanh ? "Tanh" : "Erf", inner, MO_NONE, MO_NONE);
    mo_value_id share = mo_expand_op(e, "Add", bent, mo_expand_scalar(e, MO_F32, 1), MO_NONE);
    mo_value_id half = mo_expand_op(e, "Mul", x, mo_expand_scalar(e, MO_F32, 0.5), MO_NONE);
    mo_expand_into(e, out, "Mul", half, share, MO_NONE);
}

static enum mopt_status expand_gelu(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], x = e->node->in[0], bias = mo_contrib_in(e, 1);
    bool is_tanh = !strcmp(e->node->type, "FastGelu");
    MO_TRY(mo_expand_check_float(e, e->g->values[x].dtype));
    gelu(e, bias == MO_NONE ? x : mo_expand_op(e, "Add", x, bias, MO_NONE), is_tanh, out);
    return MOPT_OK;
}

static enum mopt_status expand_quick_gelu(struct mo_expand *e)
{
    mo_value_id out = e->node->out[0], x = e->node->in[0];
    double alpha = (double)mo_node_float(e->node, "alpha", 1.702f);
    mo_value_id scaled = mo_expand_op(e, "Mul", x, mo_expand_scalar(e, MO_F32, alpha), MO_NONE);
    mo_expand_into(e, out, "Mul", x, mo_expand_op(e, "Sigmoid", scaled, MO_NONE, MO_NONE), MO_NONE);
    return MOPT_OK;
}

FUSED(bias_gelu, "BiasGelu", 2, 2, 1, mo_infer_like_input, expand_gelu, mo_macs_zero, 0x2)
FUSED(fast_gelu, "FastGelu", 1, 2, 1, mo_infer_like_input, expand_gelu, mo_macs_zero, 0x2)
FUSED(gelu_of_microsoft, "Gelu", 1, 1, 1, mo_infer_like_input, expand_gelu, mo_macs_zero, 0)
FUSED(quick_gelu, "QuickGelu", 1, 1, 1, mo_infer_like_input, expand_quick_gelu, mo_macs_zero, 0)

/* ---- SkipLayerNormalization: the sum of input, skip and bias, normalized; output 3 is the sum ---- */

static enum mopt_status infer_skip(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape shape = x->shape, sums;
    MO_TRY(mo_infer_broadcast(ctx, g, n));
    sums = mo_out(g, n, 0)->shape;
    for (uint32_t i = 1; i < 3; i++)
        if (mo_out(g, n, i))
            return mo_fail(ctx, MOPT_UNSUPPORTED, "its mean and deviation as outputs");
    if (shape.rank != MO_UNKNOWN && shape.rank != 2 && shape.rank != 3)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be 2 or 3", shape.rank);
    mo_set_out(g, n, 3, x->dtype, &sums);
    return MOPT_OK;
}

static enum mopt_status expand_skip(struct mo_expand *e)
{
    const struct mo_node *n = e->node;
    static const int64_t last = -1;
    bool has_mean = !strcmp(n->type, "SkipLayerNormalization");
    mo_value_id out = n->out[0], sum_out = n->n_out > 3 ? n->out[3] : MO_NONE, scale = n->in[2];
    mo_value_id beta = has_mean ? mo_contrib_in(e, 3) : MO_NONE, bias = mo_contrib_in(e, has_mean ? 4 : 3);
    double epsilon = (double)mo_node_float(n, "epsilon", 1e-12f);
    mo_value_id sum = mo_expand_op(e, "Add", n->in[0], n->in[1], MO_NONE);
    if (bias != MO_NONE)
        sum = mo_expand_op(e, "Add", sum, bias, MO_NONE);
    if (sum_out != MO_NONE)
        mo_expand_into(e, sum_out, "Identity", sum, MO_NONE, MO_NONE);
    mo_value_id apart = sum;
    if (has_mean) {
        mo_value_id mean = mo_expand_op(e, "ReduceMean", sum, MO_NONE, MO_NONE);
        mo_expand_ints(e, "axes", &last, 1);
        apart = mo_expand_op(e, "Sub", sum, mean, MO_NONE);
    }
    mo_value_id square = mo_expand_op(e, "ReduceMean", mo_expand_op(e, "Mul", apart, apart, MO_NONE), MO_NONE, MO_NONE);
    mo_expand_ints(e, "axes", &last, 1);
    mo_value_id wide = mo_expand_op(e, "Add", square, mo_expand_scalar(e, MO_F32, epsilon), MO_NONE);
    mo_value_id normal = mo_expand_op(e, "Div", apart, mo_expand_op(e, "Sqrt", wide, MO_NONE, MO_NONE), MO_NONE);
    if (beta == MO_NONE)
        mo_expand_into(e, out, "Mul", normal, scale, MO_NONE);
    else
        mo_expand_into(e, out, "Add", mo_expand_op(e, "Mul", normal, scale, MO_NONE), beta, MO_NONE);
    return MOPT_OK;
}

FUSED(skip_layer_normalization, "SkipLayerNormalization", 3, 5, 4, infer_skip, expand_skip, mo_macs_zero, 0x1c)
FUSED(skip_simplified_layer_normalization, "SkipSimplifiedLayerNormalization", 3, 4, 4, infer_skip, expand_skip, mo_macs_zero,
      0xc)
