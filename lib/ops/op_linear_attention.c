/* LinearAttention: attention by a state that every token is written into and that is read by its query, in place of
 * scores of all pairs of tokens. Rules: linear, gated (the state decays), delta (what it holds of the key is taken off
 * first), gated_delta; the formula is the kernel's. Heads lie beside each other in the last axis. */
#include <math.h>
#include <string.h>

#include "lib/ops/tensor.h"

enum { QUERY, KEY, VALUE, PAST, DECAY, BETA };

struct linear_attention {
    bool is_gated, is_delta;
    int64_t q_heads, heads;
};

static enum mopt_status read_attrs(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                   struct linear_attention *p)
{
    const char *rule = mo_node_text(n, "update_rule", "gated_delta");
    p->is_gated = !strncmp(rule, "gated", 5);
    p->is_delta = !strcmp(rule, "delta") || !strcmp(rule, "gated_delta");
    p->q_heads = mo_node_int(n, "q_num_heads", 0);
    p->heads = mo_node_int(n, "kv_num_heads", 0);
    if (strcmp(rule, "linear") && strcmp(rule, "gated") && !p->is_delta)
        return mo_fail(ctx, MOPT_DATA, "update_rule '%s' is not known", rule);
    if (p->heads < 1 || p->q_heads < p->heads || p->q_heads % p->heads)
        return mo_fail(ctx, MOPT_DATA, "%lld query heads for %lld heads, it should be a multiple", (long long)p->q_heads,
                       (long long)p->heads);
    if ((p->is_gated && !mo_in(g, n, DECAY)) || (p->is_delta && !mo_in(g, n, BETA)))
        return mo_fail(ctx, MOPT_DATA, "rule '%s' needs %s", rule, p->is_gated && !mo_in(g, n, DECAY) ? "decay" : "beta");
    return MOPT_OK;
}

/* What one head has of the last axis; fails when it cannot be cut evenly. */
static enum mopt_status head_size(struct mopt_ctx *ctx, const struct mo_value *v, int64_t heads, int64_t *size)
{
    char text[128];
    *size = MO_UNKNOWN;
    if (v->shape.rank == MO_UNKNOWN)
        return MOPT_OK;
    if (v->shape.rank != 3 || (v->shape.dim[2] != MO_UNKNOWN && v->shape.dim[2] % heads))
        return mo_fail(ctx, MOPT_DATA, "'%s' is %s, it should be batch x steps x %lld heads", v->name,
                       mo_shape_text(&v->shape, text, sizeof text), (long long)heads);
    if (v->shape.dim[2] != MO_UNKNOWN)
        *size = v->shape.dim[2] / heads;
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct linear_attention *p = n->params;
    const struct mo_value *q = mo_in(g, n, QUERY), *past = mo_in(g, n, PAST);
    int64_t q_size, k_size, v_size;
    MO_TRY(read_attrs(ctx, g, n, p));
    MO_TRY(head_size(ctx, q, p->q_heads, &q_size));
    MO_TRY(head_size(ctx, mo_in(g, n, KEY), p->heads, &k_size));
    MO_TRY(head_size(ctx, mo_in(g, n, VALUE), p->heads, &v_size));
    if (q_size != MO_UNKNOWN && k_size != MO_UNKNOWN && q_size != k_size)
        return mo_fail(ctx, MOPT_DATA, "queries of %lld, keys of %lld", (long long)q_size, (long long)k_size);
    bool is_known = q->shape.rank == 3;
    struct mo_shape y = mo_shape_of(3, is_known ? q->shape.dim[0] : (int64_t)MO_UNKNOWN,
                                    is_known ? q->shape.dim[1] : (int64_t)MO_UNKNOWN,
                                    mo_product((int64_t[]){ p->q_heads, v_size }, 2));
    struct mo_shape state = mo_shape_of(4, y.dim[0], p->heads, k_size, v_size);
    if (past && mo_shape_known(&past->shape) && mo_shape_known(&state) && !mo_shape_equal(&past->shape, &state))
        return mo_fail(ctx, MOPT_DATA, "past_state should be batch x heads x key x value");
    mo_set_out(g, n, 0, q->dtype, &y);
    mo_set_out(g, n, 1, past ? past->dtype : q->dtype, &state);
    return MOPT_OK;
}

static bool is_tokens(const struct mo_value *v, const struct mo_shape *q, int64_t width)
{
    return v->shape.rank == 3 && v->shape.dim[0] == q->dim[0] && v->shape.dim[1] == q->dim[1] && v->shape.dim[2] == width;
}

static struct mo_linear_attention_desc describe(const struct mo_run *r, const struct mo_node *n)
{
    const struct linear_attention *p = n->params;
    const struct mo_shape *q = &mo_in(r->graph, n, QUERY)->shape, *v = &mo_in(r->graph, n, VALUE)->shape;
    const struct mo_value *decay = mo_in(r->graph, n, DECAY), *beta = mo_in(r->graph, n, BETA);
    float scale = mo_node_float(n, "scale", 0);
    struct mo_linear_attention_desc d = { .is_delta = p->is_delta, .batch = q->dim[0], .steps = q->dim[1],
                                          .q_heads = p->q_heads, .heads = p->heads, .d_k = q->dim[2] / p->q_heads,
                                          .d_v = v->dim[2] / p->heads, .beta_heads = p->heads };
    d.decays_by_key = p->is_gated && decay->shape.dim[2] != p->heads;
    if (p->is_delta && beta->shape.dim[2] == 1)
        d.beta_heads = 1;
    d.scale = scale != 0 ? scale : (float)(1 / sqrt((double)MO_MAX(d.d_k, 1)));
    return d;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct linear_attention *p = n->params;
    const struct mo_value *k = mo_in(r->graph, n, KEY), *v = mo_in(r->graph, n, VALUE);
    const struct mo_value *decay = mo_in(r->graph, n, DECAY), *beta = mo_in(r->graph, n, BETA);
    const struct mo_shape *q = &mo_in(r->graph, n, QUERY)->shape;
    MO_TRY(mo_prepare_float32(r, n));
    if (!is_tokens(k, q, k->shape.dim[2]) || !is_tokens(v, q, v->shape.dim[2]))
        return mo_fail(r->ctx, MOPT_DATA, "query, key and value have different batches or steps");
    if (p->is_gated && !is_tokens(decay, q, p->heads) && !is_tokens(decay, q, k->shape.dim[2]))
        return mo_fail(r->ctx, MOPT_DATA, "decay should be batch x steps x heads, or one for each key");
    if (p->is_delta && !is_tokens(beta, q, p->heads) && !is_tokens(beta, q, 1))
        return mo_fail(r->ctx, MOPT_DATA, "beta should be batch x steps x heads, or one for all");
    return MOPT_OK;
}

/* Scratch: the state, when nobody wants it. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    struct mo_linear_attention_desc d = describe(r, n);
    return backward || mo_run_out(r, n, 1) ? 0 : (size_t)(d.batch * d.heads * d.d_k * d.d_v) * sizeof(float);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct linear_attention *p = n->params;
    struct mo_linear_attention_desc d = describe(r, n);
    const float *past = mo_run_in(r, n, PAST);
    float *state = mo_run_out(r, n, 1) ? mo_run_out(r, n, 1) : mo_run_scratch(r, n);
    int64_t n_state = d.batch * d.heads * d.d_k * d.d_v;
    if (past)
        mo_copy(r, sizeof(float), n_state, past, state);
    else
        mo_zero(r, sizeof(float), n_state, state);
    r->be->linear_attention(r->dev, &d, mo_run_in(r, n, QUERY), mo_run_in(r, n, KEY), mo_run_in(r, n, VALUE),
                            p->is_gated ? mo_run_in(r, n, DECAY) : NULL, p->is_delta ? mo_run_in(r, n, BETA) : NULL, state,
                            mo_run_out(r, n, 0));
    return MOPT_OK;
}

/* The state is written and read once a token, and by delta rules read once more. */
static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct linear_attention *p = n->params;
    const struct mo_shape *y = &mo_out(g, n, 0)->shape, *state = &mo_out(g, n, 1)->shape;
    if (y->rank != 3 || state->rank != 4)
        return MO_UNKNOWN;
    return mo_product((int64_t[]){ y->dim[0], y->dim[1], state->dim[2], state->dim[3],
                                   p->q_heads + p->heads * (p->is_delta ? 2 : 1) }, 5);
}

const struct mo_op mo_op_linear_attention = {
    .type = "LinearAttention",
    .since_opset = 27,
    .min_in = 3, .max_in = 6, .min_out = 1, .max_out = 2,
    .params_bytes = sizeof(struct linear_attention),
    .infer = infer, .prepare = prepare, .forward = forward,
    .scratch_bytes = scratch_bytes,
    .macs = macs,
};
