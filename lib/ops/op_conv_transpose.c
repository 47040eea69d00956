/* ConvTranspose: what the gradient of a convolution with respect to its input is.
 * Its kernels are therefore those of a Conv from y (M channels) to x (C channels)
 * whose weight is C x M/groups x kernel:
 *     y = conv_grad_input(w, x) + b, dx = conv(dy, w), dw = conv_grad_weight(dy, x) */
#include "lib/ops/ops.h"
#include "lib/ops/window.h"
#include "lib/run/run.h"

struct conv_transpose {
    struct mo_window window;            /* in: of x, out: of y */
    int64_t groups;
    int64_t output_padding[MO_MAX_SPATIAL];
    int64_t output_shape[MO_MAX_SPATIAL];
    bool has_output_shape;
};

/* `name` with an entry for each spatial axis; longer lists hold batch and channels in front. */
static enum mopt_status read_sizes(struct mopt_ctx *ctx, const struct mo_node *n, const char *name, int n_spatial,
                                   int64_t *into, bool *is_given)
{
    size_t n_ints;
    const int64_t *ints = mo_node_ints(n, name, &n_ints);
    *is_given = n_ints > 0;
    if (!n_ints)
        return MOPT_OK;
    if (n_ints != (size_t)n_spatial && n_ints != (size_t)n_spatial + 2)
        return mo_fail(ctx, MOPT_DATA, "%s has %zu entries, not %d", name, n_ints, n_spatial);
    for (int i = 0; i < n_spatial; i++) {
        into[i] = ints[n_ints - (size_t)n_spatial + (size_t)i];
        if (into[i] < 0 || into[i] > INT32_MAX)
            return mo_fail(ctx, MOPT_DATA, "%s has the entry %lld", name, (long long)into[i]);
    }
    return MOPT_OK;
}

/* Without padding an axis grows to (in - 1) stride + span + output_padding; padding takes away from both ends. */
static enum mopt_status size_axis(struct mopt_ctx *ctx, struct conv_transpose *p, int i)
{
    struct mo_window *w = &p->window;
    w->out[i] = MO_UNKNOWN;
    if (p->has_output_shape)
        w->out[i] = p->output_shape[i];
    if (w->in[i] == MO_UNKNOWN || w->kernel[i] == MO_UNKNOWN)
        return MOPT_OK;
    int64_t full = (w->in[i] - 1) * w->stride[i] + mo_window_span(w, i) + p->output_padding[i];
    bool is_same = w->auto_pad == MO_PAD_SAME_UPPER || w->auto_pad == MO_PAD_SAME_LOWER;
    if (p->has_output_shape || is_same) {
        if (!p->has_output_shape)
            w->out[i] = w->in[i] * w->stride[i];
        int64_t pad = full > w->out[i] ? full - w->out[i] : 0;
        w->pad_begin[i] = w->auto_pad == MO_PAD_SAME_UPPER ? pad / 2 : pad - pad / 2;
        w->pad_end[i] = pad - w->pad_begin[i];
    } else {
        w->out[i] = full - w->pad_begin[i] - w->pad_end[i];
    }
    if (w->out[i] < 0)
        return mo_fail(ctx, MOPT_DATA, "the pads take away more than the %lld there are", (long long)full);
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct conv_transpose *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *w = mo_in(g, n, 1);
    bool is_given;
    p->groups = mo_node_int(n, "group", 1);
    if (p->groups < 1)
        return mo_fail(ctx, MOPT_DATA, "group is %lld", (long long)p->groups);
    if (x->shape.rank == MO_UNKNOWN) {
        mo_set_out(g, n, 0, x->dtype, &x->shape);
        return MOPT_OK;
    }
    MO_TRY(mo_window_read(ctx, n, &x->shape, &w->shape, &p->window));
    MO_TRY(read_sizes(ctx, n, "output_padding", p->window.n_spatial, p->output_padding, &is_given));
    MO_TRY(read_sizes(ctx, n, "output_shape", p->window.n_spatial, p->output_shape, &p->has_output_shape));
    for (int i = 0; i < p->window.n_spatial; i++)
        MO_TRY(size_axis(ctx, p, i));
    int64_t in = mo_window_channels(&p->window, &x->shape), channels = MO_UNKNOWN;
    if (w->shape.rank != MO_UNKNOWN) {
        if (in >= 0 && w->shape.dim[0] >= 0 && (in != w->shape.dim[0] || in % p->groups))
            return mo_fail(ctx, MOPT_DATA, "the input has %lld channels in %lld groups, the weight reads %lld",
                           (long long)in, (long long)p->groups, (long long)w->shape.dim[0]);
        channels = mo_product((int64_t[]){w->shape.dim[1], p->groups}, 2);
    }
    const struct mo_value *bias = mo_in(g, n, 2);
    if (bias && channels >= 0 && mo_value_elems(bias) >= 0 && mo_value_elems(bias) != channels)
        return mo_fail(ctx, MOPT_DATA, "%lld biases for %lld output channels", (long long)mo_value_elems(bias),
                       (long long)channels);
    struct mo_shape y = mo_window_shape(&p->window, x->shape.dim[0], channels, p->window.out);
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

/* The right padding with which the convolution of y gives exactly x; what it leaves over at the end of y, less
 * than a stride, is output_padding. */
static enum mopt_status fit_pads(struct mopt_ctx *ctx, const struct mo_window *w, int64_t pad_end[3])
{
    for (int i = 0; i < 3; i++) {
        pad_end[i] = 0;
        if (i >= w->n_spatial)
            continue;
        int64_t pad = (w->in[i] - 1) * w->stride[i] + mo_window_span(w, i) - w->pad_begin[i] - w->out[i];
        if (pad <= -w->stride[i])
            return mo_fail(ctx, MOPT_UNSUPPORTED, "output padding of %lld is not less than the stride %lld",
                           (long long)-pad, (long long)w->stride[i]);
        pad_end[i] = pad > 0 ? pad : 0;
    }
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct conv_transpose *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    MO_TRY(mo_prepare_float32(r, n));
    MO_TRY(mo_window_runs(r->ctx, &p->window));
    if (!mo_run_in_elems(r, n, 0) || !mo_run_in_elems(r, n, 1) || !mo_run_out_elems(r, n, 0))
        return MOPT_OK;
    struct mo_conv_desc d = {
        .n_spatial = p->window.n_spatial,
        .batch = x->dim[0],
        .groups = p->groups,
        .in_channels = mo_window_channels(&p->window, &mo_out(r->graph, n, 0)->shape),
        .out_channels = mo_window_channels(&p->window, x),
        .needs_grad_input = true,
        .needs_grad_weight = mo_run_wants_grad(r, n, 1),
    };
    mo_window_copy3(&p->window, p->window.out, 1, d.in);
    mo_window_copy3(&p->window, p->window.in, 1, d.out);
    mo_window_copy3(&p->window, p->window.kernel, 1, d.kernel);
    mo_window_copy3(&p->window, p->window.stride, 1, d.stride);
    mo_window_copy3(&p->window, p->window.dilation, 1, d.dilation);
    mo_window_copy3(&p->window, p->window.pad_begin, 0, d.pad_begin);
    MO_TRY(fit_pads(r->ctx, &p->window, d.pad_end));
    struct mo_conv *conv = r->be->conv_new(r->dev, &d);
    if (!conv)
        return mo_no_memory(r->ctx, sizeof d, "a convolution");
    *mo_run_handle(r, n) = conv;
    return MOPT_OK;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct mo_conv *conv = *mo_run_handle(r, n);
    if (conv)
        r->be->conv_free(r->dev, conv);
    *mo_run_handle(r, n) = NULL;
}

/* Forward is a backward of the convolution, and backward its forward too. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)backward;
    const struct mo_conv *conv = *mo_run_handle(r, n);
    if (!conv)
        return 0;
    size_t one = r->be->conv_scratch_bytes(conv, false), other = r->be->conv_scratch_bytes(conv, true);
    return one > other ? one : other;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_conv *conv = *mo_run_handle(r, n);
    float *y = mo_run_out(r, n, 0);
    const float *bias = mo_run_in(r, n, 2);
    size_t n_elems = mo_run_out_elems(r, n, 0);
    if (conv)
        r->be->conv_grad_input(r->dev, conv, mo_run_in(r, n, 1), mo_run_in(r, n, 0), y, mo_run_scratch(r, n));
    else
        mo_run_zero(r, n_elems, y);
    if (bias && n_elems) {
        int64_t channels = mo_value_elems(mo_in(r->graph, n, 2));
        const int64_t dims[2] = {(int64_t)n_elems / channels, channels}, of_y[2] = {channels, 1}, of_bias[2] = {0, 1};
        r->be->binary(r->dev, MO_ADD, MO_F32, 2, dims, of_y, of_bias, y, bias, y);
    }
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_conv *conv = *mo_run_handle(r, n);
    const float *dy = mo_run_grad_out(r, n, 0), *w = mo_run_in(r, n, 1);
    float *dx = mo_run_grad_in(r, n, 0), *dw = mo_run_grad_in(r, n, 1), *dbias = mo_run_grad_in(r, n, 2);
    if (dbias) {
        int64_t channels = mo_value_elems(mo_in(r->graph, n, 2));
        const int64_t dims[2] = {channels ? (int64_t)mo_run_out_elems(r, n, 0) / channels : 0, channels};
        const bool is_reduced[2] = {true, false};
        r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 2, dims, is_reduced, dy, dbias);
    }
    if (!conv) {
        if (dx)
            mo_run_zero(r, mo_run_in_elems(r, n, 0), dx);
        if (dw)
            mo_run_zero(r, mo_run_in_elems(r, n, 1), dw);
        return MOPT_OK;
    }
    if (dw)
        r->be->conv_grad_weight(r->dev, conv, dy, mo_run_in(r, n, 0), dw, NULL, mo_run_scratch(r, n));
    if (dx)
        r->be->conv(r->dev, conv, dy, w, NULL, NULL, dx, mo_run_scratch(r, n));
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct conv_transpose *p = n->params;
    const struct mo_shape *w = &mo_in(g, n, 1)->shape;
    if (!p || w->rank == MO_UNKNOWN)
        return MO_UNKNOWN;
    return mo_product((int64_t[]){mo_value_elems(mo_in(g, n, 0)), w->dim[1], mo_window_taps(&p->window)}, 3);
}

/* W is C x M/groups x kernel: as in Conv with its first two axes changed over. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct conv_transpose *p = n->params;
    const struct mo_shape *w = &mo_in(g, n, 1)->shape;
    mo_value_id x = n->in[0], y = n->out[0];
    mo_node_id id = mo_node_id_of(g, n);
    mo_couple_same(c, x, 0, y, 0);
    mo_couple_same(c, x, 1, n->in[1], 0);
    if (mo_in(g, n, 2)) {
        mo_couple_same(c, n->in[2], 0, y, 1);
        mo_couple_weight(c, id, n->in[2], 0, MO_ROLE_PER_CHANNEL);
    }
    mo_couple_weight(c, id, n->in[1], 0, MO_ROLE_IN);
    if (p->groups == 1) {
        mo_couple_same(c, n->in[1], 1, y, 1);
        mo_couple_weight(c, id, n->in[1], 1, MO_ROLE_OUT);
    } else if (p->groups == w->dim[0]) {
        mo_couple_spread(c, x, 1, y, 1, w->dim[1]);
    } else {
        mo_couple_fold(c, x, 1, w->dim[0] / p->groups);
        mo_couple_fold(c, y, 1, w->dim[1]);
        mo_couple_offset(c, n->in[1], 1, 0, y, 1, 0, w->dim[1]);
        mo_couple_weight(c, id, n->in[1], 1, MO_ROLE_OUT);
    }
}

/* A depthwise one has as many groups as it has channels left. */
static enum mopt_status refit(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const struct mo_shape *was)
{
    int64_t groups = mo_node_int(n, "group", 1), channels = mo_in(g, n, 1)->shape.dim[0];
    if (groups == 1 || groups != was[1].dim[0] || channels == groups)
        return MOPT_OK;
    if (!mo_node_set_int(g, mo_node_id_of(g, n), "group", channels))
        return mo_no_memory(ctx, sizeof(struct mo_attr), "an attribute");
    return MOPT_OK;
}

const struct mo_op mo_op_conv_transpose = {
    .type = "ConvTranspose",
    .since_opset = 1,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .flags = MO_OP_CHANNELS_LAST,
    .params_bytes = sizeof(struct conv_transpose),
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
    .params_in = 1u << 1 | 1u << 2,
};
