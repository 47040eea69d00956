/* Loop: a graph again and again: inputs M, condition, v...; body inputs turn, condition, v...; outputs condition, v...,
 * collected... */
#include <string.h>

#include "lib/ops/body.h"

/* A loop that came this far is taken for one that never ends: by turns, or by what it carries from turn to turn, which may
 * grow to so much, or to so many times what it starts with. */
#define MAX_TURNS ((int64_t)1 << 20)
#define MAX_HELD_BYTES ((size_t)64 << 20)
#define MAX_GROWTH 1024

struct loop {
    struct mo_body body;
    uint32_t n_held, n_collected;
    struct mo_held *held, *mark;           /* mark: what was held after mark_turn turns, a power of two */
    struct mo_collected *collected;
    struct mo_feed *feeds;
    int64_t turn, mark_turn;
    size_t start_bytes;                 /* of all that is held before the first turn */
    uint8_t goes_on;
    bool may_repeat;                    /* a turn depends on what is held, and on nothing else */
    int64_t period;                     /* > 0: what is held is what it was that many turns ago */
};

static bool is_random(const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->op && n->op->flags & MO_OP_RANDOM)
            return true;
        for (uint32_t a = 0; a < n->n_attrs; a++)
            for (size_t k = 0; n->attrs[a].graphs && k < n->attrs[a].n; k++)
                if (is_random(n->attrs[a].graphs[k]))
                    return true;
    }
    return false;
}

static size_t held_bytes(const struct loop *l)
{
    size_t sum = 0;
    for (uint32_t k = 0; k < l->n_held; k++)
        sum += l->held[k].bytes;
    return sum;
}

/* A loop that comes back to where it was goes round for ever (Brent's way of finding cycles: compare with what was held at
 * the last power of two). */
static enum mopt_status look_for_cycle(struct loop *l)
{
    bool is_same = l->mark_turn > 0;
    for (uint32_t k = 0; is_same && k < l->n_held; k++)
        is_same = l->held[k].bytes == l->mark[k].bytes && l->held[k].dtype == l->mark[k].dtype &&
                  mo_shape_equal(&l->held[k].shape, &l->mark[k].shape) &&
                  !memcmp(l->held[k].data, l->mark[k].data, l->held[k].bytes);
    l->period = is_same ? l->turn - l->mark_turn : 0;
    if (l->turn & (l->turn - 1))
        return MOPT_OK;
    for (uint32_t k = 0; k < l->n_held; k++)
        MO_TRY(mo_hold(l->body.outer->ctx, &l->mark[k], l->held[k].data, l->held[k].dtype, &l->held[k].shape));
    l->mark_turn = l->turn;
    return MOPT_OK;
}

static enum mopt_status loop_step(struct loop *l)
{
    struct mopt_ctx *ctx = l->body.outer->ctx;
    struct mo_shape scalar = mo_shape_of(0);
    l->feeds[0] = (struct mo_feed){ &l->turn, MO_I64, scalar };
    l->feeds[1] = (struct mo_feed){ &l->goes_on, MO_BOOL, scalar };
    /* Exporters disagree on whether the two are scalars or lists of one: the body's declaration counts. */
    for (uint32_t i = 0; i < 2; i++)
        if (l->body.is_list[i])
            l->feeds[i].shape = mo_shape_of(1, (int64_t)1);
    for (uint32_t k = 0; k < l->n_held; k++)
        l->feeds[2 + k] = (struct mo_feed){ l->held[k].data, l->held[k].dtype, l->held[k].shape };
    MO_TRY(mo_body_turn(&l->body, l->feeds));
    struct mo_run *run = l->body.run;
    l->goes_on = *(const uint8_t *)mo_run_output_data(run, 0) != 0;
    for (uint32_t k = 0; k < l->n_held; k++) {
        const struct mo_value *v = mo_run_output(run, 1 + k);
        MO_TRY(mo_hold(ctx, &l->held[k], mo_run_output_data(run, 1 + k), v->dtype, &v->shape));
    }
    for (uint32_t k = 0; k < l->n_collected; k++) {
        uint32_t from = 1 + l->n_held + k;
        MO_TRY(mo_collect(ctx, &l->collected[k], mo_run_output_data(run, from), mo_run_output(run, from)));
    }
    l->turn++;
    return l->may_repeat && l->goes_on ? look_for_cycle(l) : MOPT_OK;
}

static enum mopt_status loop_turns(struct loop *l, double most, bool is_counted)
{
    struct mopt_ctx *ctx = l->body.outer->ctx;
    while (l->goes_on && (double)l->turn < most) {
        MO_TRY(loop_step(l));
        if (l->period && !is_counted)
            return mo_fail(ctx, MOPT_LIMIT, "it never ends: after %lld turns everything is as it was %lld turns before",
                           (long long)l->turn, (long long)l->period);
        if (l->period == 1 && !l->n_collected)
            return MOPT_OK;     /* the turns that are left change nothing */
        if (held_bytes(l) > MAX_HELD_BYTES && held_bytes(l) / MAX_GROWTH > l->start_bytes)
            return mo_fail(ctx, MOPT_LIMIT, "what it carries has grown from %zu to %zu bytes in %lld turns",
                           l->start_bytes, held_bytes(l), (long long)l->turn);
        if (l->turn >= MAX_TURNS)
            return mo_fail(ctx, MOPT_LIMIT, "more than %lld turns", (long long)MAX_TURNS);
    }
    return MOPT_OK;
}

static enum mopt_status loop_run(struct loop *l)
{
    struct mo_run *r = l->body.outer;
    const struct mo_node *n = l->body.node;
    double most = 9e18, condition = 1;
    if (mo_in(r->graph, n, 0) && !mo_run_scalar(r, n, 0, &most))
        return mo_fail(r->ctx, MOPT_DATA, "its trip count should be one number");
    if (mo_in(r->graph, n, 1) && !mo_run_scalar(r, n, 1, &condition))
        return mo_fail(r->ctx, MOPT_DATA, "its condition should be one truth value");
    for (uint32_t k = 0; k < l->n_held; k++) {
        const struct mo_value *v = mo_in(r->graph, n, 2 + k);
        if (!v)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "a loop value that is left out");
        MO_TRY(mo_hold(r->ctx, &l->held[k], mo_run_in(r, n, 2 + k), v->dtype, &v->shape));
    }
    l->goes_on = condition != 0;
    l->start_bytes = held_bytes(l);
    l->may_repeat = !l->body.graph.values[l->body.graph.inputs[0]].n_uses && !is_random(&l->body.graph);
    MO_TRY(loop_turns(l, most, mo_in(r->graph, n, 0)));
    MO_TRY(mo_body_give_held(&l->body, l->held, l->n_held));
    for (uint32_t k = 0; k < l->n_collected; k++) {
        const struct mo_graph *body = &l->body.graph;
        MO_TRY(mo_body_stack(&l->body, l->n_held + k, &l->collected[k], &body->values[body->outputs[1 + l->n_held + k]],
                             0, false));
    }
    return MOPT_OK;
}

static enum mopt_status forward_loop(struct mo_run *r, const struct mo_node *n)
{
    struct loop l = { .n_held = n->n_in > 2 ? n->n_in - 2 : 0 };
    MO_TRY(mo_body_open(&l.body, r, n, "body"));
    enum mopt_status status = MOPT_OK;
    if (l.body.n_formal != l.n_held + 2 || l.body.graph.n_outputs < l.n_held + 1)
        status = mo_fail(r->ctx, MOPT_DATA, "its body takes %u values and gives %u, for %u loop values", l.body.n_formal,
                         l.body.graph.n_outputs, l.n_held);
    l.n_collected = status ? 0 : l.body.graph.n_outputs - 1 - l.n_held;
    l.held = mo_mem_new((size_t)l.n_held + 1, sizeof *l.held);
    l.collected = mo_mem_new((size_t)l.n_collected + 1, sizeof *l.collected);
    l.feeds = mo_mem_new((size_t)l.n_held + 3, sizeof *l.feeds);
    l.mark = mo_mem_new((size_t)l.n_held + 1, sizeof *l.mark);
    if (!status && (!l.held || !l.mark || !l.collected || !l.feeds))
        status = mo_no_memory(r->ctx, l.n_held * sizeof *l.held, "a loop");
    if (!status)
        status = loop_run(&l);
    for (uint32_t k = 0; l.held && k < l.n_held; k++)
        mo_mem_free(l.held[k].data);
    for (uint32_t k = 0; l.mark && k < l.n_held; k++)
        mo_mem_free(l.mark[k].data);
    for (uint32_t k = 0; l.collected && k < l.n_collected; k++)
        mo_mem_free(l.collected[k].of.data);
    mo_mem_free(l.held);
    mo_mem_free(l.mark);
    mo_mem_free(l.collected);
    mo_mem_free(l.feeds);
    mo_body_close(&l.body);
    return status;
}

static enum mopt_status infer_loop(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return mo_body_infer(ctx, g, n, "body", 1);
}

const struct mo_op mo_op_loop = {
    .type = "Loop",
    .since_opset = 1,
    .min_in = 0, .max_in = -1, .min_out = 0, .max_out = -1,
    .flags = MO_OP_SHAPES_BY_RUN | MO_OP_UNROLLS,
    .infer = infer_loop, .forward = forward_loop,
};
