/* NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. x is N x C x D.., the target N x D.. holds classes:
 *
 *     w = weight[t] (1 without weights), 0 where t = ignore_index
 *     none  y[n, d] = -w x[n, t, d]        sum  the sum of these        mean  the sum / sum of w
 *
 * SoftmaxCrossEntropyLoss does this to log_prob = LogSoftmax(x) over C, which it can give out too.
 *
 *     dx[n, t, d] = -w dy (/ sum of w)     and through LogSoftmax's gradient where there is one */
#include "lib/ops/tensor.h"

#include <string.h>

enum reduction { REDUCTION_NONE, REDUCTION_SUM, REDUCTION_MEAN };

struct loss {
    enum reduction reduction;
    bool has_softmax, has_ignored;
    int64_t ignored;
};

/* ---- infer ---- */

static enum mopt_status check_target(struct mopt_ctx *ctx, const struct mo_shape *x, const struct mo_shape *target)
{
    char text_x[128], text_t[128];
    bool fits = x->rank >= 2 && target->rank == x->rank - 1;
    for (int k = 0; fits && k < target->rank; k++) {
        int64_t want = x->dim[k ? k + 1 : 0];
        fits = want == MO_UNKNOWN || target->dim[k] == MO_UNKNOWN || want == target->dim[k];
    }
    if (fits)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "scores are %s and classes %s, they should be NxCx.. and Nx..",
                   mo_shape_text(x, text_x, sizeof text_x), mo_shape_text(target, text_t, sizeof text_t));
}

static enum mopt_status read_reduction(struct mopt_ctx *ctx, const struct mo_node *n, enum reduction *reduction)
{
    static const char *const names[] = { "none", "sum", "mean" };
    const char *text = mo_node_text(n, "reduction", "mean");
    for (size_t i = 0; i < MO_COUNT(names); i++)
        if (!strcmp(text, names[i])) {
            *reduction = (enum reduction)i;
            return MOPT_OK;
        }
    return mo_fail(ctx, MOPT_DATA, "reduction '%s', it should be none, sum or mean", text);
}

static enum mopt_status infer_as(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, bool has_softmax)
{
    struct loss *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *target = mo_in(g, n, 1), *weight = mo_in(g, n, 2);
    struct mo_shape scalar = mo_shape_of(0), x_shape = x->shape, y = target->shape;
    enum mo_dtype dtype = x->dtype;
    p->has_softmax = has_softmax;
    p->has_ignored = mo_node_attr(n, "ignore_index") != NULL;
    p->ignored = mo_node_int(n, "ignore_index", 0);
    MO_TRY(read_reduction(ctx, n, &p->reduction));
    if (target->dtype != MO_I64 && target->dtype != MO_I32 && target->dtype != MO_UNDEFINED)
        return mo_fail(ctx, MOPT_DATA, "classes are %s, they should be int32 or int64", mo_dtype_name(target->dtype));
    if (x_shape.rank != MO_UNKNOWN && y.rank != MO_UNKNOWN)
        MO_TRY(check_target(ctx, &x_shape, &y));
    int64_t n_weights = weight ? mo_value_elems(weight) : MO_UNKNOWN;
    if (x_shape.rank >= 2 && n_weights >= 0 && x_shape.dim[1] >= 0 && n_weights != x_shape.dim[1])
        return mo_fail(ctx, MOPT_DATA, "%lld weights for %lld classes", (long long)n_weights, (long long)x_shape.dim[1]);
    if (y.rank == MO_UNKNOWN && x_shape.rank >= 2) {
        y = x_shape;
        memmove(y.dim + 1, y.dim + 2, (size_t)(y.rank-- - 2) * sizeof *y.dim);
    }
    mo_set_out(g, n, 0, dtype, p->reduction == REDUCTION_NONE ? &y : &scalar);
    mo_set_out(g, n, 1, dtype, &x_shape);
    return MOPT_OK;
}

static enum mopt_status infer_nll(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, false);
}
static enum mopt_status infer_sce(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, true);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0), *weight = mo_in(r->graph, n, 2);
    if (x->dtype != MO_F32 || (weight && weight->dtype != MO_F32))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s",
                       mo_dtype_name(x->dtype != MO_F32 ? x->dtype : weight->dtype));
    return MOPT_OK;
}

/* ---- memory: kept from forward to backward in training, else scratch ---- */

struct parts {
    int64_t *classes;           /* N x D, those to be ignored replaced by 0 */
    float *w;                   /* N x D */
    float *log_prob;            /* N x C x D, unless output 1 holds it */
    float *sum_w;               /* one number */
    void *zero;                 /* one of either type */
    int64_t *ignored;
    float *each;                /* N x D: losses */
    uint8_t *is_ignored;
    size_t bytes;
    int64_t batch, n_classes, inner, count;     /* N, C, D, N D */
};

static void *take(char *base, size_t *at, int64_t n, size_t elem_bytes)
{
    void *part = base ? base + *at : NULL;
    *at += mo_part_bytes((size_t)n * elem_bytes);
    return part;
}

static struct parts parts(const struct mo_run *r, const struct mo_node *n, char *base)
{
    const struct loss *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    struct parts s = { .batch = x->dim[0], .n_classes = x->dim[1], .inner = mo_dims_product(x, 2, x->rank) };
    s.count = s.batch * s.inner;
    bool has_own = p->has_softmax && !mo_out(r->graph, n, 1);
    s.classes = take(base, &s.bytes, s.count, sizeof *s.classes);
    s.w = take(base, &s.bytes, s.count, sizeof *s.w);
    s.log_prob = take(base, &s.bytes, has_own ? s.count * s.n_classes : 0, sizeof *s.log_prob);
    s.sum_w = take(base, &s.bytes, 1, sizeof *s.sum_w);
    s.zero = take(base, &s.bytes, 1, sizeof(int64_t));
    s.ignored = take(base, &s.bytes, 1, sizeof *s.ignored);
    s.each = take(base, &s.bytes, s.count, sizeof *s.each);
    s.is_ignored = take(base, &s.bytes, s.count, 1);
    if (p->has_softmax && !has_own)
        s.log_prob = base ? mo_run_out(r, n, 1) : NULL;
    return s;
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return r->options.train ? parts(r, n, NULL).bytes : 0;
}

/* Backward: the gradient of log_prob. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    if (backward)
        return mo_run_in_elems(r, n, 0) * sizeof(float);
    return r->options.train ? 0 : parts(r, n, NULL).bytes;
}

/* ---- forward ---- */

/* Classes as int64 with 0 for those that do not count, and the weight of each. */
static void weigh(struct mo_run *r, const struct mo_node *n, const struct parts *s)
{
    const struct loss *p = n->params;
    const struct mo_value *target = mo_in(r->graph, n, 1);
    const float *weight = mo_run_in(r, n, 2), one = 1;
    const int64_t dense = 1, still = 0;
    mo_widen_index(r, target, mo_run_in(r, n, 1), s->classes);
    mo_zero(r, sizeof(int64_t), 1, s->zero);
    if (p->has_ignored) {
        r->be->upload(r->dev, s->ignored, &p->ignored, sizeof p->ignored);
        r->be->binary(r->dev, MO_EQUAL, MO_I64, 1, &s->count, &dense, &still, s->classes, s->ignored, s->is_ignored);
        r->be->where(r->dev, sizeof *s->classes, 1, &s->count, &dense, &still, &dense, s->is_ignored, s->zero, s->classes,
                     s->classes);
    }
    if (weight)
        r->be->gather(r->dev, sizeof *weight, 1, s->n_classes, s->count, 1, weight, s->classes, s->w);
    else
        r->be->fill(r->dev, sizeof one, (size_t)s->count, &one, s->w);
    if (p->has_ignored)
        r->be->where(r->dev, sizeof *s->w, 1, &s->count, &dense, &still, &dense, s->is_ignored, s->zero, s->w, s->w);
}

static void reduce_sum(struct mo_run *r, int64_t count, const float *x, float *y)
{
    const bool all = true;
    r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 1, &count, &all, x, y);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct loss *p = n->params;
    struct parts s = parts(r, n, r->options.train ? mo_run_saved(r, n) : mo_run_scratch(r, n));
    const float *x = mo_run_in(r, n, 0);
    float *y = mo_run_out(r, n, 0), *each = p->reduction == REDUCTION_NONE ? y : s.each;
    const int64_t dims[3] = { s.batch, 1, s.inner }, stride[3] = { s.n_classes * s.inner, s.inner, 1 };
    const int64_t dense = 1, still = 0;
    if (p->has_softmax) {
        r->be->softmax(r->dev, true, s.batch, s.n_classes, s.inner, x, s.log_prob);
        x = s.log_prob;
    }
    weigh(r, n, &s);
    r->be->gather_elements(r->dev, sizeof *x, 3, dims, stride, 1, s.n_classes, x, s.classes, each);
    r->be->binary(r->dev, MO_MUL, MO_F32, 1, &s.count, &dense, &dense, each, s.w, each);
    r->be->unary(r->dev, MO_NEG, 0, 0, (size_t)s.count, each, each);
    if (p->has_ignored)         /* whatever its score is */
        r->be->where(r->dev, sizeof *each, 1, &s.count, &dense, &still, &dense, s.is_ignored, s.zero, each, each);
    if (p->reduction == REDUCTION_NONE)
        return MOPT_OK;
    reduce_sum(r, s.count, each, y);
    if (p->reduction == REDUCTION_MEAN) {
        reduce_sum(r, s.count, s.w, s.sum_w);
        r->be->binary(r->dev, MO_DIV, MO_F32, 1, &dense, &dense, &dense, y, s.sum_w, y);
    }
    return MOPT_OK;
}

/* ---- backward ---- */

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct loss *p = n->params;
    struct parts s = parts(r, n, mo_run_saved(r, n));
    const float *dy = mo_run_grad_out(r, n, 0), *dlog_prob = mo_run_grad_out(r, n, 1);
    float *dx = mo_run_grad_in(r, n, 0), *d = p->has_softmax ? mo_run_scratch(r, n) : dx;
    const int64_t dims[3] = { s.batch, 1, s.inner }, stride[3] = { s.n_classes * s.inner, s.inner, 1 };
    const int64_t dense = 1, still = 0, elems = s.count * s.n_classes;
    if (!dx)
        return MOPT_OK;
    mo_zero(r, sizeof *d, elems, d);
    if (dy) {
        const int64_t *by = p->reduction == REDUCTION_NONE ? &dense : &still;
        r->be->binary(r->dev, MO_MUL, MO_F32, 1, &s.count, &dense, by, s.w, dy, s.each);
        r->be->unary(r->dev, MO_NEG, 0, 0, (size_t)s.count, s.each, s.each);
        if (p->reduction == REDUCTION_MEAN)
            r->be->binary(r->dev, MO_DIV, MO_F32, 1, &s.count, &dense, &still, s.each, s.sum_w, s.each);
        r->be->scatter_elements(r->dev, MO_F32, MO_SCATTER_SET, 3, dims, stride, 1, s.n_classes, s.classes, s.each, d);
    }
    if (dlog_prob && p->has_softmax)
        r->be->axpy(r->dev, (size_t)elems, 1, dlog_prob, d, true);
    if (p->has_softmax)
        r->be->softmax_grad(r->dev, true, s.batch, s.n_classes, s.inner, s.log_prob, d, dx, false);
    return MOPT_OK;
}

#define MEMBERS                                                                                             \
    .since_opset = 12, .min_in = 2, .max_in = 3, .min_out = 1, .params_bytes = sizeof(struct loss),           \
    .prepare = prepare, .forward = forward, .backward = backward, .macs = mo_macs_zero,                       \
    .scratch_bytes = scratch_bytes, .saved_bytes = saved_bytes

const struct mo_op mo_op_negative_log_likelihood_loss = {
    .type = "NegativeLogLikelihoodLoss", MEMBERS, .max_out = 1, .infer = infer_nll,
};

const struct mo_op mo_op_softmax_cross_entropy_loss = {
    .type = "SoftmaxCrossEntropyLoss", MEMBERS, .max_out = 2, .infer = infer_sce, .backward_reads = 1u << 17,
};
