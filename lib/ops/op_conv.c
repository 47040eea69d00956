/* Conv: y[n, o, p] = sum over c, k of w[o, c, k] x[n, g(o) C/groups + c, p stride + k dilation - pad] + b[o].
 * One to three spatial axes. Lowering may add an activation and a residual (fused.h). */
#include "lib/run/fused.h"
#include "lib/ops/ops.h"
#include "lib/ops/window.h"
#include "lib/run/run.h"

struct conv {
    struct mo_window window;
    struct mo_fused fused;
    int64_t groups;
};

static enum mopt_status check_channels(struct mopt_ctx *ctx, const struct conv *p, int64_t channels,
                                       const struct mo_shape *w, const struct mo_value *bias)
{
    if (p->groups < 1)
        return mo_fail(ctx, MOPT_DATA, "group is %lld", (long long)p->groups);
    if (w->rank == MO_UNKNOWN)
        return MOPT_OK;
    int64_t wanted;
    if (w->dim[1] >= 0 && channels >= 0 &&
        (__builtin_mul_overflow(w->dim[1], p->groups, &wanted) || wanted != channels))
        return mo_fail(ctx, MOPT_DATA, "the input has %lld channels, the weight reads %lld in each of %lld groups",
                       (long long)channels, (long long)w->dim[1], (long long)p->groups);
    if (w->dim[0] >= 0 && w->dim[0] % p->groups)
        return mo_fail(ctx, MOPT_DATA, "%lld output channels in %lld groups", (long long)w->dim[0],
                       (long long)p->groups);
    if (bias && w->dim[0] >= 0 && mo_value_elems(bias) >= 0 && mo_value_elems(bias) != w->dim[0])
        return mo_fail(ctx, MOPT_DATA, "%lld biases for %lld output channels", (long long)mo_value_elems(bias),
                       (long long)w->dim[0]);
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct conv *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *w = mo_in(g, n, 1);
    p->groups = mo_node_int(n, "group", 1);
    p->fused = mo_fused_read(n);
    if (n->n_in == 4 && !p->fused.has_residual)
        return mo_fail(ctx, MOPT_DATA, "4 inputs, it takes 2 or 3");
    if (x->shape.rank == MO_UNKNOWN) {
        mo_set_out(g, n, 0, x->dtype, &x->shape);
        return MOPT_OK;
    }
    MO_TRY(mo_window_read(ctx, n, &x->shape, &w->shape, &p->window));
    MO_TRY(check_channels(ctx, p, mo_window_channels(&p->window, &x->shape), &w->shape, mo_in(g, n, 2)));
    MO_TRY(mo_window_slide(ctx, &p->window));
    int64_t channels = w->shape.rank == MO_UNKNOWN ? MO_UNKNOWN : w->shape.dim[0];
    struct mo_shape y = mo_window_shape(&p->window, x->shape.dim[0], channels, p->window.out);
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static bool is_empty(const struct mo_run *r, const struct mo_node *n)
{
    return !mo_run_in_elems(r, n, 0) || !mo_run_in_elems(r, n, 1) || !mo_run_out_elems(r, n, 0);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct conv *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    MO_TRY(mo_prepare_float32(r, n));
    MO_TRY(mo_window_runs(r->ctx, &p->window));
    if (is_empty(r, n))
        return MOPT_OK;
    struct mo_conv_desc d = {
        .n_spatial = p->window.n_spatial,
        .batch = x->dim[0],
        .groups = p->groups,
        .in_channels = mo_window_channels(&p->window, x),
        .out_channels = mo_in(r->graph, n, 1)->shape.dim[0],
        .has_bias = mo_in(r->graph, n, 2) != NULL,
        .adds_residual = p->fused.has_residual,
        .act = p->fused.act,
        .act_lo = p->fused.lo,
        .act_hi = p->fused.hi,
        .needs_grad_input = mo_run_wants_grad(r, n, 0),
        .needs_grad_weight = mo_run_wants_grad(r, n, 1),
        .constant_weights = mo_run_is_const(r, n, 1),
        .is_bf16 = mo_run_in_half(r, n, 0),
    };
    MO_WINDOW_INTO(d, &p->window);
    struct mo_conv *conv = r->be->conv_new(r->dev, &d);
    if (!conv)
        return mo_no_memory(r->ctx, sizeof d, "a convolution");
    *mo_run_handle(r, n) = conv;
    if (d.constant_weights)
        r->be->conv_pack(r->dev, conv, mo_run_in(r, n, 1));
    return MOPT_OK;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct mo_conv *conv = *mo_run_handle(r, n);
    if (conv)
        r->be->conv_free(r->dev, conv);
    *mo_run_handle(r, n) = NULL;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct mo_conv *conv = *mo_run_handle(r, n);
    size_t of_kernel = conv ? r->be->conv_scratch_bytes(conv, backward) : 0, wide = 0;
    if (conv && backward && mo_run_in_half(r, n, 0) && !mo_run_wants_grad(r, n, 1) && mo_run_wants_grad(r, n, 2))
        wide = mo_run_out_elems(r, n, 0) * sizeof(float);
    return MO_MAX(of_kernel, wide);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_conv *conv = *mo_run_handle(r, n);
    if (!conv) {        /* no element to compute, or sums over nothing */
        mo_run_zero_of(r, mo_run_out_type(r, n, 0), mo_run_out_elems(r, n, 0), mo_run_out(r, n, 0));
        return MOPT_OK;
    }
    if (mo_run_in_half(r, n, 0))
        r->be->conv_bf16(r->dev, conv, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_in(r, n, 2), mo_run_in(r, n, 3),
                         mo_run_out(r, n, 0), mo_run_scratch(r, n));
    else
        r->be->conv(r->dev, conv, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_in(r, n, 2), mo_run_in(r, n, 3),
                    mo_run_out(r, n, 0), mo_run_scratch(r, n));
    return MOPT_OK;
}

/* The sum of dy over everything but channels, for a bias whose weight is not trained. */
static void grad_bias(struct mo_run *r, const struct mo_node *n, const float *dy, float *dbias)
{
    int64_t channels = mo_value_elems(mo_in(r->graph, n, 2));
    int64_t dims[2] = {(int64_t)mo_run_out_elems(r, n, 0) / channels, channels};
    const bool is_reduced[2] = {true, false};
    r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 2, dims, is_reduced, dy, dbias);
}

static void backward_bf16(struct mo_run *r, const struct mo_node *n, struct mo_conv *conv, const uint16_t *dy)
{
    uint16_t *dx = (uint16_t *)mo_run_grad_in(r, n, 0), *dresidual = (uint16_t *)mo_run_grad_in(r, n, 3);
    float *dw = mo_run_grad_in(r, n, 1), *dbias = mo_run_grad_in(r, n, 2);
    size_t n_elems = mo_run_out_elems(r, n, 0);
    if (dresidual)
        r->be->axpy_bf16(r->dev, n_elems, 1.0f, dy, dresidual, false);
    if (dw) {
        r->be->conv_grad_weight_bf16(r->dev, conv, mo_run_in(r, n, 0), dy, dw, dbias, mo_run_scratch(r, n));
    } else if (dbias) {
        float *wide = mo_run_scratch(r, n);
        r->be->cast(r->dev, (int)mo_run_in_type(r, n, 0), MO_F32, n_elems, dy, wide);
        grad_bias(r, n, wide, dbias);
    }
    if (dx)
        r->be->conv_grad_input_bf16(r->dev, conv, mo_run_in(r, n, 1), dy, dx, mo_run_scratch(r, n));
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct conv *p = n->params;
    struct mo_conv *conv = *mo_run_handle(r, n);
    float *dy = mo_run_grad_out(r, n, 0), *dx = mo_run_grad_in(r, n, 0), *dw = mo_run_grad_in(r, n, 1);
    float *dbias = mo_run_grad_in(r, n, 2), *dresidual = mo_run_grad_in(r, n, 3);
    if (!conv) {
        for (uint32_t i = 0; i < n->n_in; i++)
            if (mo_run_grad_in(r, n, i))
                mo_run_zero_of(r, mo_run_in_type(r, n, i), mo_run_in_elems(r, n, i), mo_run_grad_in(r, n, i));
        return MOPT_OK;
    }
    mo_fused_grad(r, &p->fused, mo_run_out_type(r, n, 0), mo_run_out_elems(r, n, 0), mo_run_out(r, n, 0), dy);
    if (mo_run_in_half(r, n, 0)) {
        backward_bf16(r, n, conv, (const uint16_t *)dy);
        return MOPT_OK;
    }
    if (dresidual)
        r->be->axpy(r->dev, mo_run_out_elems(r, n, 0), 1.0f, dy, dresidual, false);
    if (dw)
        r->be->conv_grad_weight(r->dev, conv, mo_run_in(r, n, 0), dy, dw, dbias, mo_run_scratch(r, n));
    else if (dbias)
        grad_bias(r, n, dy, dbias);
    if (dx)
        r->be->conv_grad_input(r->dev, conv, mo_run_in(r, n, 1), dy, dx, mo_run_scratch(r, n));
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct conv *p = n->params;
    const struct mo_shape *w = &mo_in(g, n, 1)->shape;
    if (!p || w->rank == MO_UNKNOWN)
        return MO_UNKNOWN;
    return mo_product((int64_t[]){mo_value_elems(mo_out(g, n, 0)), w->dim[1], mo_window_taps(&p->window)}, 3);
}

/* W is O x I/groups x kernel. With one group, inputs are columns of W. Depthwise, each input makes
 * O/I outputs. In between, the same inputs and outputs of each group go together, so that groups stay equal. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct conv *p = n->params;
    const struct mo_shape *w = &mo_in(g, n, 1)->shape;
    mo_value_id x = n->in[0], y = n->out[0];
    mo_node_id id = mo_node_id_of(g, n);
    mo_couple_same(c, x, 0, y, 0);
    mo_couple_same(c, n->in[1], 0, y, 1);
    mo_couple_weight(c, id, n->in[1], 0, MO_ROLE_OUT);
    if (mo_in(g, n, 2)) {
        mo_couple_same(c, n->in[2], 0, y, 1);
        mo_couple_weight(c, id, n->in[2], 0, MO_ROLE_PER_CHANNEL);
    }
    if (p->groups == 1) {
        mo_couple_same(c, x, 1, n->in[1], 1);
        mo_couple_weight(c, id, n->in[1], 1, MO_ROLE_IN);
    } else if (w->dim[1] == 1) {
        mo_couple_spread(c, x, 1, n->in[1], 0, w->dim[0] / p->groups);
    } else {
        mo_couple_fold(c, x, 1, w->dim[1]);
        mo_couple_offset(c, n->in[1], 1, 0, x, 1, 0, w->dim[1]);
        mo_couple_fold(c, y, 1, w->dim[0] / p->groups);
        mo_couple_weight(c, id, n->in[1], 1, MO_ROLE_IN);
    }
}

/* A depthwise convolution has as many groups as it has channels left. */
static enum mopt_status refit(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const struct mo_shape *was)
{
    int64_t groups = mo_node_int(n, "group", 1), outputs = mo_in(g, n, 1)->shape.dim[0];
    if (groups == 1 || was[1].dim[1] != 1 || was[1].dim[0] == outputs)
        return MOPT_OK;
    if (!mo_node_set_int(g, mo_node_id_of(g, n), "group", outputs / (was[1].dim[0] / groups)))
        return mo_no_memory(ctx, sizeof(struct mo_attr), "an attribute");
    return MOPT_OK;
}

const struct mo_op mo_op_conv = {
    .type = "Conv",
    .since_opset = 1,
    .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1,
    .flags = MO_OP_CHANNELS_LAST,
    .params_bytes = sizeof(struct conv),
    .infer = infer,
    .prepare = prepare,
    .unprepare = unprepare,
    .forward = forward,
    .backward = backward,
    .macs = macs,
    .couple = couple,
    .refit = refit,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 0 | 1u << 1,
    .bf16_in = 1u << 0 | 1u << 3,
    .params_in = 1u << 1 | 1u << 2,
    .quant = {.kind = MO_QUANT_WEIGHTED},
};
