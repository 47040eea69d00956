/* LRN (Krizhevsky et al. 2012): y = x t^-beta, t = bias + alpha / size * sum of x^2
 * over `size` neighbouring channels. The sum is a pooling along the channels. */
#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct lrn {
    int64_t size;
    float alpha, beta, bias;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct lrn *p = n->params;
    p->size = mo_node_int(n, "size", 0);
    p->alpha = mo_node_float(n, "alpha", 1e-4f);
    p->beta = mo_node_float(n, "beta", 0.75f);
    p->bias = mo_node_float(n, "bias", 1.0f);
    if (p->size < 1 || p->size > INT32_MAX)
        return mo_fail(ctx, MOPT_DATA, "size is %lld, it must be at least 1", (long long)p->size);
    return mo_infer_like_input(ctx, g, n);
}

/* Channels-last, each place is an image of one channel and as wide as there are channels. */
static struct mo_pool_desc describe(const struct mo_run *r, const struct mo_node *n)
{
    const struct lrn *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    int64_t channels = x->dim[x->rank - 1];
    return (struct mo_pool_desc){
        .kind = MO_POOL_AVERAGE_WITH_PAD,
        .n_spatial = 1,
        .batch = mo_product(x->dim, x->rank - 1),
        .channels = 1,
        .in = {channels, 1, 1},
        .out = {channels, 1, 1},
        .kernel = {p->size, 1, 1},
        .stride = {1, 1, 1},
        .dilation = {1, 1, 1},
        .pad_begin = {(p->size - 1) / 2},
        .pad_end = {p->size - 1 - (p->size - 1) / 2},
    };
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return (backward ? 2 : 1) * mo_run_in_elems(r, n, 0) * sizeof(float);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return r->options.train ? mo_run_in_elems(r, n, 0) * sizeof(float) : 0;
}

/* y = t^-beta */
static void power(struct mo_run *r, const struct lrn *p, size_t n_elems, const float *t, float *y)
{
    r->be->unary(r->dev, MO_LOG, 0.0f, 0.0f, n_elems, t, y);
    r->be->axpy(r->dev, n_elems, -p->beta, y, y, false);
    r->be->unary(r->dev, MO_EXP, 0.0f, 0.0f, n_elems, y, y);
}

static void dense(struct mo_run *r, enum mo_binary f, size_t n_elems, const float *a, const float *b, float *y)
{
    const int64_t dims[1] = {(int64_t)n_elems}, one[1] = {1};
    r->be->binary(r->dev, f, MO_F32, 1, dims, one, one, a, b, y);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct lrn *p = n->params;
    struct mo_pool_desc d = describe(r, n);
    size_t n_elems = mo_run_in_elems(r, n, 0);
    const float *x = mo_run_in(r, n, 0);
    float *y = mo_run_out(r, n, 0), *t = r->options.train ? mo_run_saved(r, n) : mo_run_scratch(r, n);
    r->be->unary(r->dev, MO_SQUARE, 0.0f, 0.0f, n_elems, x, y);
    r->be->pool(r->dev, &d, y, t, NULL);
    r->be->fill(r->dev, sizeof *y, n_elems, &p->bias, y);
    r->be->axpy(r->dev, n_elems, p->alpha, t, y, true);
    r->be->axpy(r->dev, n_elems, 1.0f, y, t, false);
    power(r, p, n_elems, t, y);
    dense(r, MO_MUL, n_elems, y, x, y);
    return MOPT_OK;
}

/* dx = dy t^-beta - 2 alpha beta x * (average over the windows that hold x of dy x t^(-beta - 1)) */
static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct lrn *p = n->params;
    struct mo_pool_desc d = describe(r, n);
    size_t n_elems = mo_run_in_elems(r, n, 0);
    const float *x = mo_run_in(r, n, 0), *dy = mo_run_grad_out(r, n, 0), *t = mo_run_saved(r, n);
    float *dx = mo_run_grad_in(r, n, 0), *a = mo_run_scratch(r, n), *b = a + n_elems;
    if (!dx)
        return MOPT_OK;
    power(r, p, n_elems, t, a);
    dense(r, MO_MUL, n_elems, a, dy, dx);
    dense(r, MO_MUL, n_elems, dx, x, a);
    dense(r, MO_DIV, n_elems, a, t, a);
    r->be->pool_grad(r->dev, &d, a, NULL, b, false);
    dense(r, MO_MUL, n_elems, b, x, b);
    r->be->axpy(r->dev, n_elems, -2.0f * p->alpha * p->beta, b, dx, true);
    return MOPT_OK;
}

/* Channels are one another's neighbours, so none may go. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    for (int axis = 0; axis < mo_in(g, n, 0)->shape.rank; axis++)
        if (axis != 1)
            mo_couple_same(c, n->in[0], axis, n->out[0], axis);
    mo_couple_wall(c, n->in[0], 1, "LRN sums over neighbouring channels");
    mo_couple_wall(c, n->out[0], 1, "LRN sums over neighbouring channels");
}

const struct mo_op mo_op_lrn = {
    .type = "LRN",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_CHANNELS_LAST,
    .params_bytes = sizeof(struct lrn),
    .infer = infer,
    .prepare = mo_prepare_float32,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = couple,
    .scratch_bytes = scratch_bytes,
    .saved_bytes = saved_bytes,
    .backward_reads = 1u << 0,
};
