/* mopt.Attention, which lowering makes of MatMul, scale, mask, Softmax, MatMul (lib/run/fuse_attention.c):
 *     Y = softmax(scale Q K^T + mask) V
 * Inputs Q, K, V of rank 3 or 4 and the mask, if any. The attributes mopt.q, mopt.k, mopt.v and mopt.y say which axis of
 * each is the image, the head (of rank 4), the row, and the element, in this order: the Transposes that exporters write
 * around it are steps. The element is the last one. */
#include <math.h>
#include <string.h>

#include "lib/ops/ops.h"
#include "lib/run/run.h"

enum input { Q, K, V, MASK, N_IN };

struct fused_attention { struct mo_attention_desc d; };

/* Sizes and steps of axes image, head, row, element in a value of this shape. */
struct laid { int64_t dim[4], step[4]; };

static struct laid laid_out(const struct mo_shape *x, const int64_t *axes)
{
    struct laid l = { { 1, 1, 1, 1 }, { 0, 0, 0, 0 } };
    int64_t steps[4] = { 1, 1, 1, 1 };
    for (int i = x->rank - 2; i >= 0; i--)
        steps[i] = steps[i + 1] * x->dim[i + 1];
    for (int i = 0; i < x->rank; i++) {
        int to = x->rank == 4 || i == 0 ? i : i + 1;
        l.dim[to] = x->dim[axes[i]];
        l.step[to] = steps[axes[i]];
    }
    return l;
}

static const int64_t *axes_of(const struct mo_node *n, const char *name, int rank)
{
    size_t count;
    const int64_t *axes = mo_node_ints(n, name, &count);
    return axes && count == (size_t)rank ? axes : NULL;
}

static struct mo_heads_step step_of(const struct laid *l)
{
    return (struct mo_heads_step){ l->step[0], l->step[1], l->step[2] };
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct fused_attention *p = n->params;
    const struct mo_shape *q = &mo_in(g, n, Q)->shape, *k = &mo_in(g, n, K)->shape, *v = &mo_in(g, n, V)->shape;
    const int64_t *of_q = axes_of(n, "mopt.q", q->rank), *of_k = axes_of(n, "mopt.k", k->rank);
    const int64_t *of_v = axes_of(n, "mopt.v", v->rank), *of_y = axes_of(n, "mopt.y", q->rank);
    bool is_known = mo_shape_known(q) && mo_shape_known(k) && mo_shape_known(v);
    if (!is_known || !of_q || !of_k || !of_v || !of_y)
        return mo_fail(ctx, MOPT_DATA, "attention that was put together wrongly");
    struct laid lq = laid_out(q, of_q), lk = laid_out(k, of_k), lv = laid_out(v, of_v);
    struct mo_shape y = { .rank = q->rank };
    for (int i = 0; i < y.rank; i++)
        y.dim[of_y[i]] = i == y.rank - 1 ? lv.dim[3] : q->dim[of_q[i]];
    struct laid ly = laid_out(&y, of_y);
    p->d = (struct mo_attention_desc){
        .batch = lq.dim[0], .heads = lq.dim[1], .kv_heads = lk.dim[1], .queries = lq.dim[2], .keys = lk.dim[2],
        .size = lq.dim[3], .value_size = lv.dim[3], .q = step_of(&lq), .k = step_of(&lk), .v = step_of(&lv),
        .y = step_of(&ly), .scale = mo_node_float(n, "mopt.scale", 1.0f), .ahead = MO_ATTENTION_FAR,
        .behind = MO_ATTENTION_FAR, .empty = NAN,
    };
    const struct mo_value *mask = mo_in(g, n, MASK);
    int64_t step = 1;
    for (int i = 3, axis = mask ? mask->shape.rank - 1 : -1; axis >= 0; i--, axis--) {
        i -= q->rank == 3 && i == 1;        /* there is no axis of heads */
        p->d.of_mask[i] = mask->shape.dim[axis] == 1 ? 0 : step;
        step *= mask->shape.dim[axis];
    }
    mo_set_out(g, n, 0, mo_in(g, n, Q)->dtype, &y);
    return MOPT_OK;
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    const struct fused_attention *p = n->params;
    return r->options.train ? (size_t)(p->d.batch * p->d.heads * p->d.queries) * sizeof(float) : 0;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct fused_attention *p = n->params;
    r->be->attention(r->dev, &p->d, mo_run_in(r, n, Q), mo_run_in(r, n, K), mo_run_in(r, n, V), NULL,
                     n->n_in == N_IN ? mo_run_in(r, n, MASK) : NULL, mo_run_out(r, n, 0),
                     r->options.train ? mo_run_saved(r, n) : NULL);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct fused_attention *p = n->params;
    r->be->attention_grad(r->dev, &p->d, mo_run_in(r, n, Q), mo_run_in(r, n, K), mo_run_in(r, n, V), NULL,
                          n->n_in == N_IN ? mo_run_in(r, n, MASK) : NULL, mo_run_out(r, n, 0), mo_run_saved(r, n),
                          mo_run_grad_out(r, n, 0), mo_run_grad_in(r, n, Q), mo_run_grad_in(r, n, K),
                          mo_run_grad_in(r, n, V));
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct fused_attention *p = n->params;
    (void)g;
    if (!p)
        return MO_UNKNOWN;
    return mo_product((int64_t[]){ p->d.batch, p->d.heads, p->d.queries, p->d.keys, p->d.size + p->d.value_size }, 5);
}

const struct mo_op mo_op_fused_attention = {
    .type = "Attention", .domain = "mopt", .since_opset = 1, .min_in = 3, .max_in = N_IN, .min_out = 1, .max_out = 1,
    .flags = MO_OP_INTERNAL, .params_bytes = sizeof(struct fused_attention), .infer = infer, .forward = forward,
    .backward = backward, .macs = macs, .saved_bytes = saved_bytes,
    .backward_reads = 1u << Q | 1u << K | 1u << V | 1u << MASK | 1u << 16,
};
