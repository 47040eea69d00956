/* LpPool: y = (sum over the window of |x|^p)^(1/p). The sum is an average over whole
 * windows, padding counted, times their taps. */
#include <math.h>

#include "lib/ops/ops.h"
#include "lib/ops/window.h"
#include "lib/run/run.h"

struct lp_pool {
    struct mo_window window;
    float p;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct lp_pool *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    p->p = (float)mo_node_int(n, "p", 2);
    if (p->p < 1.0f)
        return mo_fail(ctx, MOPT_DATA, "p is %g, it must be at least 1", (double)p->p);
    if (x->shape.rank != MO_UNKNOWN) {
        MO_TRY(mo_window_read(ctx, n, &x->shape, NULL, &p->window));
        MO_TRY(mo_window_slide(ctx, &p->window));
        y = mo_window_shape(&p->window, x->shape.dim[0], mo_window_channels(&p->window, &x->shape), p->window.out);
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct lp_pool *p = n->params;
    MO_TRY(mo_window_runs(r->ctx, &p->window));
    return mo_prepare_float32(r, n);
}

/* The right padding is as wide as the last window needs, so that every window counts all its taps. */
static struct mo_pool_desc describe(const struct mo_run *r, const struct mo_node *n)
{
    const struct lp_pool *p = n->params;
    const struct mo_window *w = &p->window;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    struct mo_pool_desc d = {
        .kind = MO_POOL_AVERAGE_WITH_PAD,
        .n_spatial = w->n_spatial,
        .batch = x->dim[0],
        .channels = mo_window_channels(w, x),
    };
    mo_window_copy3(w, w->in, 1, d.in);
    mo_window_copy3(w, w->out, 1, d.out);
    mo_window_copy3(w, w->kernel, 1, d.kernel);
    mo_window_copy3(w, w->stride, 1, d.stride);
    mo_window_copy3(w, w->dilation, 1, d.dilation);
    mo_window_copy3(w, w->pad_begin, 0, d.pad_begin);
    for (int i = 0; i < w->n_spatial; i++) {
        int64_t pad = (w->out[i] - 1) * w->stride[i] + mo_window_span(w, i) - w->in[i] - w->pad_begin[i];
        d.pad_end[i] = pad > 0 ? pad : 0;
    }
    return d;
}

/* y = |x|^e; y may be x */
static void power(struct mo_run *r, float e, size_t n_elems, const float *x, float *y)
{
    if (e == 2.0f) {
        r->be->unary(r->dev, MO_SQUARE, 0.0f, 0.0f, n_elems, x, y);
        return;
    }
    r->be->unary(r->dev, MO_ABS, 0.0f, 0.0f, n_elems, x, y);
    if (e == 0.5f)
        r->be->unary(r->dev, MO_SQRT, 0.0f, 0.0f, n_elems, y, y);
    if (e == 1.0f || e == 0.5f)
        return;
    r->be->unary(r->dev, MO_LOG, 0.0f, 0.0f, n_elems, y, y);
    r->be->axpy(r->dev, n_elems, e, y, y, false);
    r->be->unary(r->dev, MO_EXP, 0.0f, 0.0f, n_elems, y, y);
}

static void times(struct mo_run *r, size_t n_elems, const float *a, const float *b, float *y)
{
    const int64_t dims[1] = {(int64_t)n_elems}, one[1] = {1};
    r->be->binary(r->dev, MO_MUL, MO_F32, 1, dims, one, one, a, b, y);
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    size_t in = mo_run_in_elems(r, n, 0), out = mo_run_out_elems(r, n, 0);
    return (backward ? in + out : in) * sizeof(float);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct lp_pool *p = n->params;
    struct mo_pool_desc d = describe(r, n);
    size_t n_out = mo_run_out_elems(r, n, 0);
    float *powers = mo_run_scratch(r, n), *y = mo_run_out(r, n, 0);
    if (!n_out)
        return MOPT_OK;
    power(r, p->p, mo_run_in_elems(r, n, 0), mo_run_in(r, n, 0), powers);
    r->be->pool(r->dev, &d, powers, y, NULL);
    r->be->axpy(r->dev, n_out, (float)mo_window_taps(&p->window), y, y, false);
    power(r, 1.0f / p->p, n_out, y, y);
    return MOPT_OK;
}

/* dx = |x|^(p - 1) sign(x) * sum over the windows that hold x of dy y^(1 - p). Where y is 0 all of its x are; a
 * small number in its place keeps 0 times infinity out. */
static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct lp_pool *p = n->params;
    struct mo_pool_desc d = describe(r, n);
    size_t n_in = mo_run_in_elems(r, n, 0), n_out = mo_run_out_elems(r, n, 0);
    const float *x = mo_run_in(r, n, 0);
    float *dx = mo_run_grad_in(r, n, 0), *u = mo_run_scratch(r, n), *v = u + n_out;
    if (!dx)
        return MOPT_OK;
    float least = p->p > 1.0f ? powf(1e-30f, 1.0f / (p->p - 1.0f)) : 0.0f;
    r->be->unary(r->dev, MO_CLIP, least, INFINITY, n_out, mo_run_out(r, n, 0), u);
    if (p->p == 1.0f)
        r->be->axpy(r->dev, n_out, 1.0f, mo_run_grad_out(r, n, 0), u, false);
    else {
        power(r, p->p - 1.0f, n_out, u, u);
        r->be->unary(r->dev, MO_RECIPROCAL, 0.0f, 0.0f, n_out, u, u);
        times(r, n_out, u, mo_run_grad_out(r, n, 0), u);
    }
    r->be->pool_grad(r->dev, &d, u, NULL, dx, false);
    r->be->axpy(r->dev, n_in, (float)mo_window_taps(&p->window), dx, dx, false);
    r->be->unary(r->dev, MO_SIGN, 0.0f, 0.0f, n_in, x, v);
    times(r, n_in, dx, v, dx);
    if (p->p > 1.0f) {
        power(r, p->p - 1.0f, n_in, x, v);
        times(r, n_in, dx, v, dx);
    }
    return MOPT_OK;
}

const struct mo_op mo_op_lp_pool = {
    .type = "LpPool",
    .since_opset = 2,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_CHANNELS_LAST,
    .params_bytes = sizeof(struct lp_pool),
    .infer = infer,
    .prepare = prepare,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = mo_couple_image,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 0 | 1u << 16,
};
