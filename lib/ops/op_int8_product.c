/* Int8Conv, Int8Product: what lowering makes of a quantized Conv, or of a quantized Gemm or MatMul by a constant.
 * Inputs: x, w (channels or columns first, K last), zero points of w, bias (int32), factor, offset (float32), those of
 * each output channel; the formula is at struct mo_qconv_desc. */
#include "lib/run/int8.h"
#include "lib/ops/ops.h"
#include "lib/ops/window.h"
#include "lib/run/run.h"

enum { IN_X, IN_W, IN_W_ZERO, IN_BIAS, IN_FACTOR, IN_OFFSET };

struct int8_conv {
    struct mo_window window;
    int64_t groups;
};

static enum mo_dtype result_dtype(const struct mo_node *n)
{
    return (enum mo_dtype)mo_node_int(n, MO_INT8_Y_TYPE, MO_F32);
}

static enum mopt_status infer_conv(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct int8_conv *p = n->params;
    const struct mo_shape x = mo_in(g, n, IN_X)->shape, *w = &mo_in(g, n, IN_W)->shape;
    p->groups = mo_node_int(n, "group", 1);
    if (x.rank == MO_UNKNOWN) {
        mo_set_out(g, n, 0, result_dtype(n), &x);
        return MOPT_OK;
    }
    MO_TRY(mo_window_read(ctx, n, &x, w, &p->window));
    MO_TRY(mo_window_slide(ctx, &p->window));
    int64_t channels = mo_window_channels(&p->window, &x), wanted;
    if (p->groups < 1 || w->dim[0] % p->groups || __builtin_mul_overflow(w->dim[1], p->groups, &wanted) ||
        (channels >= 0 && channels != wanted))
        return mo_fail(ctx, MOPT_DATA, "%lld channels in %lld groups, the weights are for %lld to %lld",
                       (long long)channels, (long long)p->groups, (long long)w->dim[1], (long long)w->dim[0]);
    struct mo_shape y = mo_window_shape(&p->window, x.dim[0], w->dim[0], p->window.out);
    mo_set_out(g, n, 0, result_dtype(n), &y);
    return MOPT_OK;
}

static enum mopt_status infer_product(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape y = mo_in(g, n, IN_X)->shape;
    const struct mo_shape *w = &mo_in(g, n, IN_W)->shape;
    if (y.rank > 0) {
        int64_t k = y.dim[y.rank - 1];
        if (k >= 0 && k != w->dim[1])
            return mo_fail(ctx, MOPT_DATA, "%lld columns, the weights are for %lld", (long long)k, (long long)w->dim[1]);
        y.dim[y.rank - 1] = w->dim[0];
    }
    mo_set_out(g, n, 0, result_dtype(n), &y);
    return MOPT_OK;
}

static const void *table(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *v = mo_in(r->graph, n, i);
    return v ? v->data : NULL;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n, const struct mo_conv_desc *shape)
{
    if (!mo_run_out_elems(r, n, 0))
        return MOPT_OK;
    struct mo_qconv_desc d = {
        .shape = *shape,
        .x_signed = mo_in(r->graph, n, IN_X)->dtype == MO_I8,
        .w_signed = mo_in(r->graph, n, IN_W)->dtype == MO_I8,
        .w = table(r, n, IN_W), .w_zero = table(r, n, IN_W_ZERO), .bias = table(r, n, IN_BIAS),
        .factor = table(r, n, IN_FACTOR), .offset = table(r, n, IN_OFFSET),
        .y_dtype = (int)result_dtype(n),
        .y_zero = (int32_t)mo_node_int(n, MO_INT8_Y_ZERO, 0),
        .y_low = (int32_t)mo_node_int(n, MO_INT8_LOW, 0),
        .y_high = (int32_t)mo_node_int(n, MO_INT8_HIGH, 255),
    };
    *mo_run_handle(r, n) = r->be->qconv_new(r->dev, &d);
    return *mo_run_handle(r, n) ? MOPT_OK : mo_no_memory(r->ctx, mo_value_bytes(mo_in(r->graph, n, IN_W)), "packed weights");
}

static enum mopt_status prepare_conv(struct mo_run *r, const struct mo_node *n)
{
    const struct int8_conv *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, IN_X)->shape;
    MO_TRY(mo_window_runs(r->ctx, &p->window));
    struct mo_conv_desc d = {
        .n_spatial = p->window.n_spatial, .batch = x->dim[0], .groups = p->groups,
        .in_channels = mo_window_channels(&p->window, x), .out_channels = mo_in(r->graph, n, IN_W)->shape.dim[0],
    };
    MO_WINDOW_INTO(d, &p->window);
    return prepare(r, n, &d);
}

static enum mopt_status prepare_product(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(r->graph, n, IN_X)->shape, *w = &mo_in(r->graph, n, IN_W)->shape;
    struct mo_conv_desc d = {
        .n_spatial = 1, .batch = mo_product(x->dim, x->rank - 1), .groups = 1, .in_channels = w->dim[1],
        .out_channels = w->dim[0], .in = { 1, 1, 1 }, .out = { 1, 1, 1 }, .kernel = { 1, 1, 1 }, .stride = { 1, 1, 1 },
        .dilation = { 1, 1, 1 },
    };
    return prepare(r, n, &d);
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    if (*mo_run_handle(r, n))
        r->be->qconv_free(r->dev, *mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct mo_qconv *q = *mo_run_handle(r, n);
    return q && !backward ? r->be->qconv_scratch_bytes(q) : 0;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_qconv *q = *mo_run_handle(r, n);
    if (q)
        r->be->qconv(r->dev, q, (int32_t)mo_node_int(n, MO_INT8_X_ZERO, 0), mo_run_in(r, n, IN_X), mo_run_out(r, n, 0),
                     mo_run_scratch(r, n));
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *w = mo_in(g, n, IN_W);
    int64_t y = mo_value_elems(mo_out(g, n, 0)), elems = mo_value_elems(w);
    return y == MO_UNKNOWN || elems == MO_UNKNOWN || w->shape.dim[0] < 1 ? MO_UNKNOWN : y * (elems / w->shape.dim[0]);
}

#define MEMBERS                                                                                      \
    .domain = MO_INT8_DOMAIN, .since_opset = 1, .min_in = 2, .max_in = 6, .min_out = 1, .max_out = 1,  \
    .unprepare = unprepare, .forward = forward, .macs = macs, .scratch_bytes = scratch_bytes

const struct mo_op mo_op_int8_conv = {
    .type = "Int8Conv", MEMBERS, .flags = MO_OP_CHANNELS_LAST | MO_OP_INTERNAL, .params_bytes = sizeof(struct int8_conv),
    .infer = infer_conv, .prepare = prepare_conv,
};

const struct mo_op mo_op_int8_product = {
    .type = "Int8Product", MEMBERS, .flags = MO_OP_INTERNAL, .infer = infer_product, .prepare = prepare_product,
};
