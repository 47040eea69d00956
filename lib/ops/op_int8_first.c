/* Int8First: what lowering makes of Conv, MaxPool and QuantizeLinear behind each other where few channels come in as
 * floats. Inputs: x, w, bias; attributes of the Conv, and those of lib/run/int8.h. */
#include "lib/run/int8.h"
#include "lib/ops/ops.h"
#include "lib/ops/window.h"
#include "lib/run/run.h"

struct int8_first {
    struct mo_window window;
    int64_t pool[4], pooled[2];     /* height, width, their steps */
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct int8_first *p = n->params;
    const struct mo_shape x = mo_in(g, n, 0)->shape, *w = &mo_in(g, n, 1)->shape;
    struct mo_shape y = x;
    size_t n_pool;
    const int64_t *pool = mo_node_ints(n, MO_INT8_POOL, &n_pool);
    for (int i = 0; i < 4; i++)
        p->pool[i] = n_pool == 4 ? pool[i] : 1;
    if (x.rank != MO_UNKNOWN) {
        MO_TRY(mo_window_read(ctx, n, &x, w, &p->window));
        MO_TRY(mo_window_slide(ctx, &p->window));
        for (int i = 0; i < 2; i++) {
            p->pooled[i] = p->window.out[i] == MO_UNKNOWN ? MO_UNKNOWN : (p->window.out[i] - p->pool[i]) / p->pool[i + 2] + 1;
            if (p->window.out[i] != MO_UNKNOWN && p->window.out[i] < p->pool[i])
                return mo_fail(ctx, MOPT_DATA, "a pool of %lld over %lld pixels", (long long)p->pool[i],
                               (long long)p->window.out[i]);
        }
        int64_t channels = mo_window_channels(&p->window, &x);
        if (channels >= 0 && channels != w->dim[1])
            return mo_fail(ctx, MOPT_DATA, "%lld channels, the weights are for %lld", (long long)channels,
                           (long long)w->dim[1]);
        y = mo_window_shape(&p->window, x.dim[0], w->dim[0], p->pooled);
    }
    mo_set_out(g, n, 0, (enum mo_dtype)mo_node_int(n, MO_INT8_Y_TYPE, MO_U8), &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct int8_first *p = n->params;
    return mo_window_runs(r->ctx, &p->window);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct int8_first *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *w = &mo_in(r->graph, n, 1)->shape;
    struct mo_qfirst_desc d = {
        .conv = {.n_spatial = 2, .batch = x->dim[0], .groups = 1, .in_channels = w->dim[1], .out_channels = w->dim[0]},
        .pool = {p->pool[0], p->pool[1]},
        .pool_stride = {p->pool[2], p->pool[3]},
        .pooled = {p->pooled[0], p->pooled[1]},
        .scale = mo_node_float(n, MO_INT8_FACTOR, 1),
        .y_zero = (int32_t)mo_node_int(n, MO_INT8_Y_ZERO, 0),
        .y_low = (int32_t)mo_node_int(n, MO_INT8_LOW, 0),
        .y_high = (int32_t)mo_node_int(n, MO_INT8_HIGH, 255),
    };
    MO_WINDOW_INTO(d.conv, &p->window);
    if (mo_run_out_elems(r, n, 0))
        r->be->qfirst(r->dev, &d, mo_run_in(r, n, 0), mo_run_in(r, n, 1), n->n_in > 2 ? mo_run_in(r, n, 2) : NULL,
                      mo_run_out(r, n, 0));
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct int8_first *p = n->params;
    int64_t pooled = mo_value_elems(mo_out(g, n, 0)), w = mo_value_elems(mo_in(g, n, 1));
    return pooled == MO_UNKNOWN || w == MO_UNKNOWN ? MO_UNKNOWN
                                                   : pooled * (w / mo_in(g, n, 1)->shape.dim[0]) * p->pool[0] * p->pool[1];
}

const struct mo_op mo_op_int8_first = {
    .type = "Int8First", .domain = MO_INT8_DOMAIN, .since_opset = 1,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .flags = MO_OP_CHANNELS_LAST | MO_OP_INTERNAL,
    .params_bytes = sizeof(struct int8_first), .infer = infer, .prepare = prepare, .forward = forward, .macs = macs,
};
