/* FlexAttention of ai.onnx.preview: y = prob(softmax(score(scale Q K^T))) V, where score and prob are graphs inside the
 * node, by default nothing. Where there are more query heads than heads, each head serves several. */
#include <math.h>

#include "lib/graph/expand.h"
#include "lib/ops/tensor.h"

enum { Q, K, V };

static enum mopt_status check_heads(struct mopt_ctx *ctx, const struct mo_shape *q, const struct mo_shape *k,
                                    const struct mo_shape *v)
{
    bool fits = q->dim[0] == k->dim[0] && k->dim[0] == v->dim[0] && q->dim[3] == k->dim[3] && k->dim[1] == v->dim[1] &&
                k->dim[2] == v->dim[2];
    if (!fits || k->dim[1] < 1 || q->dim[1] % k->dim[1])
        return mo_fail(ctx, MOPT_DATA, "query, key and value do not fit together");
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *q = mo_in(g, n, Q), *v = mo_in(g, n, V);
    struct mo_shape y = q->shape;
    bool is_known = true;
    for (uint32_t i = 0; i < 3; i++) {
        const struct mo_shape *shape = &mo_in(g, n, i)->shape;
        if (shape->rank != MO_UNKNOWN && shape->rank != 4)
            return mo_fail(ctx, MOPT_DATA, "input %u has rank %d, it should be batch x heads x steps x size", i, shape->rank);
        is_known = is_known && mo_shape_known(shape);
    }
    if (is_known)
        MO_TRY(check_heads(ctx, &q->shape, &mo_in(g, n, K)->shape, &v->shape));
    if (y.rank == 4)
        y.dim[3] = v->shape.rank == 4 ? v->shape.dim[3] : MO_UNKNOWN;
    mo_set_out(g, n, 0, q->dtype, &y);
    return MOPT_OK;
}

/* x as dims. */
static mo_value_id as(struct mo_expand *e, mo_value_id x, const int64_t *dims, int n)
{
    return mo_expand_op(e, "Reshape", x, mo_expand_list(e, dims, n), MO_NONE);
}

/* x through the graph in attribute `name`; x itself where there is none. */
static enum mopt_status through(struct mo_expand *e, const char *name, mo_value_id *x)
{
    const struct mo_attr *a = mo_node_attr(e->node, name);
    if (!a)
        return MOPT_OK;
    if (a->kind != MO_ATTR_GRAPH || a->n != 1 || a->graphs[0]->n_inputs != 1 || a->graphs[0]->n_outputs != 1)
        return mo_fail(e->ctx, MOPT_DATA, "'%s' should be a graph of one input and one output", name);
    return mo_expand_graph_of(e, a->graphs[0], x, x);
}

static enum mopt_status expand(struct mo_expand *e)
{
    const struct mo_node *n = e->node;
    const mo_value_id y = n->out[0];
    struct mo_shape q = mo_in(e->g, n, Q)->shape, k = mo_in(e->g, n, K)->shape, v = mo_in(e->g, n, V)->shape;
    enum mo_dtype dtype = mo_in(e->g, n, Q)->dtype;
    if (!mo_shape_known(&q) || !mo_shape_known(&k) || !mo_shape_known(&v))
        return mo_fail(e->ctx, MOPT_UNSUPPORTED, "the shapes of its inputs must be known before it runs");
    MO_TRY(mo_expand_check_float(e, dtype));
    int64_t batch = q.dim[0], heads = k.dim[1], share = q.dim[1] / heads, steps = q.dim[2];
    double scale = mo_node_attr(n, "scale") ? (double)mo_node_float(n, "scale", 1) : 1 / sqrt((double)MO_MAX(q.dim[3], 1));
    mo_value_id query = mo_expand_op(e, "Mul", n->in[Q], mo_expand_scalar(e, dtype, scale), MO_NONE);
    mo_value_id key = mo_expand_op(e, "Transpose", n->in[K], MO_NONE, MO_NONE);
    mo_expand_ints(e, "perm", (int64_t[]){ 0, 1, 3, 2 }, 4);
    /* the queries that share a head are rows of one product */
    query = as(e, query, (int64_t[]){ batch, heads, share * steps, q.dim[3] }, 4);
    mo_value_id scores = mo_expand_op(e, "MatMul", query, key, MO_NONE);
    scores = as(e, scores, (int64_t[]){ batch, q.dim[1], steps, k.dim[2] }, 4);
    MO_TRY(through(e, "score_mod", &scores));
    mo_value_id shares = mo_expand_op(e, "Softmax", scores, MO_NONE, MO_NONE);
    mo_expand_int(e, "axis", -1);
    MO_TRY(through(e, "prob_mod", &shares));
    shares = as(e, shares, (int64_t[]){ batch, heads, share * steps, k.dim[2] }, 4);
    mo_value_id read = mo_expand_op(e, "MatMul", shares, n->in[V], MO_NONE);
    mo_value_id dims = mo_expand_list(e, (int64_t[]){ batch, q.dim[1], steps, v.dim[3] }, 4);
    mo_expand_into(e, y, "Reshape", read, dims, MO_NONE);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *q = &mo_in(g, n, Q)->shape, *v = &mo_in(g, n, V)->shape;
    if (!mo_shape_known(q) || !mo_shape_known(v))
        return MO_UNKNOWN;
    return mo_product((int64_t[]){ q->dim[0], q->dim[1], q->dim[2], v->dim[2], q->dim[3] + v->dim[3] }, 5);
}

const struct mo_op mo_op_flex_attention = {
    .type = "FlexAttention",
    .domain = "ai.onnx.preview",
    .since_opset = 1,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .infer = infer, .expand = expand,
    .macs = macs,
};
