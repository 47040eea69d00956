/* SequenceMap: a graph for each item of a sequence. Other inputs are sequences of the same length, which are walked along,
 * or tensors, which stay; each output collects what the graph gives. */
#include "lib/ops/body.h"
#include "lib/ops/sequence.h"

struct map {
    struct mo_body body;
    struct mo_host host;
    struct mo_item *items[MO_HOST_INPUTS];      /* of the sequences among the inputs; NULL: a tensor */
    int64_t n_items, n_made;
    struct mo_item *made;                       /* outputs x items; data from mo_mem_new */
    struct mo_feed *feeds;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_attr *a = mo_node_attr(n, "body");
    if (!a || a->kind != MO_ATTR_GRAPH || !a->graphs)
        return mo_fail(ctx, MOPT_DATA, "it has no graph 'body'");
    const struct mo_graph *body = a->graphs[0];
    if (body->n_outputs < n->n_out || body->n_inputs != n->n_in)
        return mo_fail(ctx, MOPT_DATA, "its body takes %u values and gives %u, for %u inputs and %u outputs", body->n_inputs,
                       body->n_outputs, n->n_in, n->n_out);
    if (n->n_in > MO_HOST_INPUTS)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%u inputs, at most %d are taken", n->n_in, MO_HOST_INPUTS);
    for (uint32_t k = 0; k < n->n_out; k++)
        mo_set_out_list(g, n, k, MO_SEQUENCE, body->values[body->outputs[k]].dtype);
    return MOPT_OK;
}

static enum mopt_status open_items(struct map *m, const struct mo_node *n)
{
    struct mo_run *r = m->host.run;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int64_t count = 0;
        if (!mo_in(r->graph, n, i))
            return mo_fail(r->ctx, MOPT_DATA, "input %u is left out", i);
        if (i > 0 && mo_in(r->graph, n, i)->dtype != MO_SEQUENCE)
            continue;
        MO_TRY(mo_sequence_take(&m->host, i, &m->items[i], &count));
        if (i > 0 && count != m->n_items)
            return mo_fail(r->ctx, MOPT_DATA, "sequences of %lld and %lld items", (long long)m->n_items, (long long)count);
        m->n_items = count;
    }
    m->made = mo_mem_new((size_t)m->n_items * n->n_out + 1, sizeof *m->made);
    m->feeds = mo_mem_new((size_t)n->n_in + 1, sizeof *m->feeds);
    return m->made && m->feeds ? MOPT_OK : mo_no_memory(r->ctx, (size_t)m->n_items * sizeof *m->made, "a sequence");
}

static enum mopt_status step(struct map *m, const struct mo_node *n, int64_t t)
{
    struct mo_run *r = m->host.run;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mo_value *v = mo_in(r->graph, n, i);
        const struct mo_item *item = m->items[i] ? &m->items[i][t] : NULL;
        m->feeds[i] = item ? (struct mo_feed){ item->data, item->dtype, item->shape }
                           : (struct mo_feed){ m->host.in[i], v->dtype, v->shape };
    }
    MO_TRY(mo_body_turn(&m->body, m->feeds));
    for (uint32_t k = 0; k < n->n_out; k++) {
        const struct mo_value *v = mo_run_output(m->body.run, k);
        struct mo_held held = { 0 };
        MO_TRY(mo_hold(r->ctx, &held, mo_run_output_data(m->body.run, k), v->dtype, &v->shape));
        m->made[k * m->n_items + t] = (struct mo_item){ held.dtype, held.shape, held.data };
    }
    return MOPT_OK;
}

static enum mopt_status map_all(struct map *m, const struct mo_node *n)
{
    enum mopt_status status = open_items(m, n);
    for (int64_t t = 0; !status && t < m->n_items; t++)
        status = step(m, n, t);
    for (uint32_t k = 0; !status && k < n->n_out; k++)
        status = mo_sequence_put(&m->host, k, MO_SEQUENCE, m->made + k * m->n_items, m->n_items);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct map m = { 0 };
    MO_TRY(mo_body_open(&m.body, r, n, "body"));
    enum mopt_status status = mo_host_open(&m.host, r, n);
    if (!status)
        status = map_all(&m, n);
    for (int64_t i = 0; m.made && i < m.n_items * n->n_out; i++)
        mo_mem_free((void *)m.made[i].data);
    for (int i = 0; i < MO_HOST_INPUTS; i++)
        mo_mem_free(m.items[i]);
    mo_mem_free(m.made);
    mo_mem_free(m.feeds);
    mo_host_close(&m.host);
    mo_body_close(&m.body);
    return status;
}

const struct mo_op mo_op_sequence_map = {
    .type = "SequenceMap",
    .since_opset = 17,
    .min_in = 1, .max_in = -1, .min_out = 1, .max_out = -1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer, .forward = forward,
};
