/* CausalConvWithState: a depthwise convolution along time that looks back only. What came before is `past`, zeros where it
 * is left out; the last k - 1 steps are given out for the next call. As a formula:
 * all = concat(past, x), y = act(conv(all) + bias), present = the end of all. */
#include <string.h>

#include "lib/graph/expand.h"
#include "lib/ops/tensor.h"

enum { INPUT, WEIGHT, BIAS, PAST };

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, INPUT), *w = mo_in(g, n, WEIGHT), *past = mo_in(g, n, PAST);
    const char *act = mo_node_text(n, "activation", "none");
    struct mo_shape state = mo_shape_of(3, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN);
    if (strcmp(act, "none") && strcmp(act, "silu") && strcmp(act, "swish"))
        return mo_fail(ctx, MOPT_DATA, "activation '%s' is not known", act);
    if ((x->shape.rank != MO_UNKNOWN && x->shape.rank != 3) || (w->shape.rank != MO_UNKNOWN && w->shape.rank != 3))
        return mo_fail(ctx, MOPT_DATA, "input and weight should have rank 3");
    for (int k = 0; x->shape.rank == 3 && k < 2; k++)
        state.dim[k] = x->shape.dim[k];
    if (w->shape.rank == 3 && w->shape.dim[2] != MO_UNKNOWN)
        state.dim[2] = w->shape.dim[2] - 1;
    if (state.dim[2] < 0 && state.dim[2] != MO_UNKNOWN)
        return mo_fail(ctx, MOPT_DATA, "a kernel without taps");
    if (past && mo_shape_known(&past->shape) && mo_shape_known(&state) && !mo_shape_equal(&past->shape, &state))
        return mo_fail(ctx, MOPT_DATA, "past_state should hold the %lld steps before", (long long)state.dim[2]);
    MO_TRY(mo_infer_like_input(ctx, g, n));
    mo_set_out(g, n, 1, x->dtype, &state);
    return MOPT_OK;
}

/* Input and what lies before it. */
static mo_value_id with_past(struct mo_expand *e, mo_value_id x, mo_value_id past, int64_t n_before)
{
    if (past != MO_NONE) {
        mo_value_id all = mo_expand_op(e, "Concat", past, x, MO_NONE);
        mo_expand_int(e, "axis", 2);
        return all;
    }
    return mo_expand_op(e, "Pad", x, mo_expand_list(e, (int64_t[]){ 0, 0, n_before, 0, 0, 0 }, 6), MO_NONE);
}

static enum mopt_status expand(struct mo_expand *e)
{
    const struct mo_node *n = e->node;
    const struct mo_value *x = mo_in(e->g, n, INPUT), *w = mo_in(e->g, n, WEIGHT);
    mo_value_id y = n->out[0], present = n->n_out > 1 ? n->out[1] : MO_NONE, bias = n->n_in > BIAS ? n->in[BIAS] : MO_NONE;
    bool has_act = strcmp(mo_node_text(n, "activation", "none"), "none") != 0;
    if (x->shape.rank != 3 || x->shape.dim[1] == MO_UNKNOWN || w->shape.rank != 3 || w->shape.dim[2] == MO_UNKNOWN)
        return mo_fail(e->ctx, MOPT_UNSUPPORTED, "its channels and its kernel must be known before it runs");
    int64_t channels = x->shape.dim[1], n_before = w->shape.dim[2] - 1;
    mo_value_id all = with_past(e, n->in[INPUT], n->n_in > PAST ? n->in[PAST] : MO_NONE, n_before);
    mo_value_id sum = y;
    if (has_act)
        sum = mo_expand_op(e, "Conv", all, n->in[WEIGHT], bias);
    else
        mo_expand_into(e, y, "Conv", all, n->in[WEIGHT], bias);
    mo_expand_int(e, "group", channels);
    if (has_act)
        mo_expand_into(e, y, "Mul", sum, mo_expand_op(e, "Sigmoid", sum, MO_NONE, MO_NONE), MO_NONE);
    if (present == MO_NONE)
        return MOPT_OK;
    /* of a length that may be unknown the last n_before steps; none is what lies behind the end */
    const int64_t far = INT32_MAX;
    mo_value_id from = mo_expand_list(e, n_before ? &(int64_t){ -n_before } : &far, 1);
    mo_value_id in[] = { all, from, mo_expand_list(e, &far, 1), mo_expand_list(e, &(int64_t){ 2 }, 1) };
    mo_expand_node(e, "Slice", in, 4, present);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *w = &mo_in(g, n, WEIGHT)->shape;
    return w->rank != 3 ? MO_UNKNOWN : mo_product((int64_t[]){ mo_value_elems(mo_out(g, n, 0)), w->dim[2] }, 2);
}

const struct mo_op mo_op_causal_conv_with_state = {
    .type = "CausalConvWithState",
    .since_opset = 27,
    .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 2,
    .infer = infer, .expand = expand,
    .macs = macs,
    .params_in = 1u << WEIGHT | 1u << BIAS,
};
