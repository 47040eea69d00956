/* LpNormalization: y = x / |x|_p along one axis, p 1 or 2; where the norm is 0, y is 0.
 * MeanVarianceNormalization: y = (x - mean) / (sqrt(var) + 1e-9) over axes, by default all but the channels. */
#include <float.h>

#include "lib/graph/expand.h"
#include "lib/ops/tensor.h"

struct lp_normalization {
    int axis, p;
};

static enum mopt_status infer_lp(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct lp_normalization *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    int64_t power = mo_node_int(n, "p", 2);
    if (power != 1 && power != 2)
        return mo_fail(ctx, MOPT_DATA, "a norm with p = %lld, it should be 1 or 2", (long long)power);
    p->p = (int)power;
    if (x->shape.rank != MO_UNKNOWN)
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", -1), x->shape.rank, &p->axis));
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status expand_lp(struct mo_expand *e)
{
    const struct lp_normalization *p = e->node->params;
    mo_value_id x = e->node->in[0], y = e->node->out[0];
    int64_t axis = mo_node_int(e->node, "axis", -1);
    enum mo_dtype dtype = e->g->values[x].dtype;
    MO_TRY(mo_expand_check_float(e, dtype));
    mo_value_id norm = mo_expand_op(e, p->p == 1 ? "ReduceL1" : "ReduceL2", x, MO_NONE, MO_NONE);
    mo_expand_ints(e, "axes", &axis, 1);
    mo_value_id least = mo_expand_scalar(e, dtype, dtype == MO_F64 ? DBL_MIN : (double)FLT_MIN);
    mo_expand_into(e, y, "Div", x, mo_expand_op(e, "Max", norm, least, MO_NONE), MO_NONE);
    return MOPT_OK;
}

const struct mo_op mo_op_lp_normalization = {
    .type = "LpNormalization",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct lp_normalization),
    .infer = infer_lp, .expand = expand_lp,
    .macs = mo_macs_zero,
};

/* ---- MeanVarianceNormalization ---- */

static enum mopt_status infer_mean_variance(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    int axes[MO_MAX_RANK], count = -1;
    if (x->shape.rank != MO_UNKNOWN && mo_node_attr(n, "axes"))
        MO_TRY(mo_axes_given(ctx, g, n, UINT32_MAX, x->shape.rank, axes, &count));
    if (x->shape.rank != MO_UNKNOWN && count < 0 && x->shape.rank < 4)
        return mo_fail(ctx, MOPT_DATA, "a rank of %d, without axes it should be 4", x->shape.rank);
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status expand_mean_variance(struct mo_expand *e)
{
    static const int64_t but_channels[] = { 0, 2, 3 };
    mo_value_id x = e->node->in[0], y = e->node->out[0];
    enum mo_dtype dtype = e->g->values[x].dtype;
    MO_TRY(mo_expand_check_float(e, dtype));
    size_t n_axes;
    const int64_t *axes = mo_node_ints(e->node, "axes", &n_axes);
    if (!axes) {
        axes = but_channels;
        n_axes = MO_COUNT(but_channels);
    }
    mo_value_id mean = mo_expand_op(e, "ReduceMean", x, MO_NONE, MO_NONE);
    mo_expand_ints(e, "axes", axes, n_axes);
    mo_value_id apart = mo_expand_op(e, "Sub", x, mean, MO_NONE);
    mo_value_id var = mo_expand_op(e, "ReduceMean", mo_expand_op(e, "Mul", apart, apart, MO_NONE), MO_NONE, MO_NONE);
    mo_expand_ints(e, "axes", axes, n_axes);
    mo_value_id deviation = mo_expand_op(e, "Sqrt", var, MO_NONE, MO_NONE);
    mo_value_id divisor = mo_expand_op(e, "Add", deviation, mo_expand_scalar(e, dtype, 1e-9), MO_NONE);
    mo_expand_into(e, y, "Div", apart, divisor, MO_NONE);
    return MOPT_OK;
}

const struct mo_op mo_op_mean_variance_normalization = {
    .type = "MeanVarianceNormalization",
    .since_opset = 9,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer_mean_variance, .expand = expand_mean_variance,
    .macs = mo_macs_zero,
};
