/* Order in a graph: producers and uses, names, topological sort, invariants. */
#include "lib/graph/graph.h"
#include "lib/graph/op.h"
#include "lib/graph/private.h"

#include <stdio.h>
#include <string.h>

/* ---- names ------------------------------------------------------------------------ */

mo_value_id mo_names_find(const struct mo_names *names, const struct mo_graph *g, const char *name)
{
    if (!names->n_slots)
        return MO_NONE;
    uint32_t mask = names->n_slots - 1;
    for (uint32_t at = (uint32_t)mo_hash64(name, strlen(name), 0) & mask;; at = (at + 1) & mask) {
        mo_value_id id = names->slots[at];
        if (!id)
            return MO_NONE;
        if (!strcmp(g->values[id - 1].name, name))
            return id - 1;
    }
}

static void put(struct mo_names *names, const struct mo_graph *g, mo_value_id id)
{
    const char *name = g->values[id].name;
    uint32_t mask = names->n_slots - 1, at = (uint32_t)mo_hash64(name, strlen(name), 0) & mask;
    while (names->slots[at])
        at = (at + 1) & mask;
    names->slots[at] = id + 1;
    names->n_used++;
}

bool mo_names_add(struct mo_names *names, const struct mo_graph *g, mo_value_id id)
{
    if ((uint64_t)names->n_used * 2 >= names->n_slots) {
        struct mo_names grown = { .n_slots = MO_MAX(64u, names->n_slots * 2) };
        grown.slots = grown.n_slots > names->n_slots ? mo_mem_new(grown.n_slots, sizeof *grown.slots) : NULL;
        if (!grown.slots)
            return false;
        for (uint32_t i = 0; i < names->n_slots; i++)
            if (names->slots[i])
                put(&grown, g, names->slots[i] - 1);
        mo_mem_free(names->slots);
        *names = grown;
    }
    put(names, g, id);
    return true;
}

void mo_names_release(struct mo_names *names)
{
    mo_mem_free(names->slots);
    *names = (struct mo_names){ 0 };
}

/* ---- producers and uses -------------------------------------------------------------- */

const struct mo_op *mo_graph_find_op(const struct mo_graph *g, const struct mo_node *n)
{
    bool is_default = !n->domain[0] || !strcmp(n->domain, "ai.onnx");
    /* versions of other domains are not kept by graph: 1 is the only one of com.microsoft */
    return mo_op_find(n->type, is_default ? "" : n->domain, is_default ? g->opset : 1);
}

bool mo_op_takes(const struct mo_op *op, const struct mo_node *n)
{
    if ((int)n->n_in < op->min_in || (op->max_in >= 0 && n->n_in > (uint32_t)op->max_in) ||
        (int)n->n_out < op->min_out || (op->max_out >= 0 && n->n_out > (uint32_t)op->max_out))
        return false;
    for (int i = 0; i < op->min_in; i++)
        if (n->in[i] == MO_NONE)
            return false;
    return true;
}

mo_value_id mo_graph_recount(struct mo_graph *g)
{
    mo_value_id twice = MO_NONE;
    for (mo_value_id v = 0; v < g->n_values; v++) {
        g->values[v].producer = MO_NONE;
        g->values[v].n_uses = 0;
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->is_dead)
            continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MO_NONE)
                g->values[n->in[k]].n_uses++;
        for (uint32_t k = 0; k < n->n_captures; k++)
            g->values[n->captures[k]].n_uses++;
        for (uint32_t k = 0; k < n->n_out; k++) {
            if (n->out[k] == MO_NONE)
                continue;
            struct mo_value *v = &g->values[n->out[k]];
            if ((v->producer != MO_NONE || v->is_input || v->is_captured || v->is_initializer) && twice == MO_NONE)
                twice = n->out[k];
            v->producer = i;
        }
    }
    for (uint32_t i = 0; i < g->n_outputs; i++)
        g->values[g->outputs[i]].n_uses++;
    for (mo_value_id id = 0; id < g->n_values; id++) {
        const struct mo_value *v = &g->values[id];
        if (v->data && v->producer == MO_NONE && !v->is_initializer && !v->is_captured && !v->is_sparse)
            mo_graph_make_initializer(g, id);
    }
    return twice;
}

enum mopt_status mo_graph_index(struct mopt_ctx *ctx, struct mo_graph *g)
{
    mo_value_id twice = mo_graph_recount(g);
    if (twice != MO_NONE)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "value '%s' is made twice; each name may be given once",
                       g->values[twice].name);
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_op *op = mo_graph_find_op(g, &g->nodes[i]);
        g->nodes[i].op = op && mo_op_takes(op, &g->nodes[i]) ? op : NULL;
    }
    return MOPT_OK;
}

/* ---- topological order ------------------------------------------------------------------ */

/* A heap of node ids, smallest first: of the nodes that may come next the one that
 * stood first in the file does, which makes the sort stable. */
struct heap { mo_node_id *items; uint32_t n; };

static void heap_push(struct heap *h, mo_node_id id)
{
    uint32_t at = h->n++;
    for (; at && h->items[(at - 1) / 2] > id; at = (at - 1) / 2)
        h->items[at] = h->items[(at - 1) / 2];
    h->items[at] = id;
}

static mo_node_id heap_pop(struct heap *h)
{
    mo_node_id first = h->items[0], last = h->items[--h->n];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < h->n; at = child) {
        if (child + 1 < h->n && h->items[child + 1] < h->items[child])
            child++;
        if (h->items[child] >= last)
            break;
        h->items[at] = h->items[child];
    }
    h->items[at] = last;
    return first;
}

static mo_value_id nth_read(const struct mo_node *n, uint32_t k)
{
    return k < n->n_in ? n->in[k] : n->captures[k - n->n_in];
}

static mo_node_id source_of(const struct mo_graph *g, mo_value_id v)
{
    return v == MO_NONE ? MO_NONE : g->values[v].producer;
}

/* Names a cycle: from a node that waits, go back along what it waits for until a node comes again. */
static enum mopt_status say_cycle(struct mopt_ctx *ctx, const struct mo_graph *g, uint32_t *n_waits)
{
    mo_node_id at = 0;
    while (!n_waits[at])
        at++;
    char text[600] = "", label[160];
    size_t used = 0;
    for (int lap = 0; lap < 2; lap++) {     /* first lap: reach the cycle; second: write it down */
        uint32_t mark = UINT32_MAX - (uint32_t)lap;
        while (n_waits[at] != mark) {
            n_waits[at] = mark;
            if (lap && used + sizeof label + 8 < sizeof text)
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? " <- " : "",
                                         mo_node_label(g, &g->nodes[at], label, sizeof label));
            const struct mo_node *n = &g->nodes[at];
            for (uint32_t k = 0; k < n->n_in + n->n_captures; k++) {
                mo_node_id from = source_of(g, nth_read(n, k));
                if (from != MO_NONE && n_waits[from]) {
                    at = from;
                    break;
                }
            }
        }
    }
    return mo_fail(ctx, MOPT_UNSUPPORTED, "the graph has a cycle: %s", text);
}

struct sort { uint32_t *n_waits, *first, *readers; struct heap ready; struct mo_node *sorted; };

static bool sort_new(struct sort *s, uint32_t n_nodes, size_t n_edges)
{
    s->n_waits = mo_mem_new((size_t)n_nodes + 1, sizeof *s->n_waits);
    s->first = mo_mem_new((size_t)n_nodes + 2, sizeof *s->first);
    s->readers = mo_mem_new(n_edges + 1, sizeof *s->readers);
    s->ready.items = mo_mem_new((size_t)n_nodes + 1, sizeof *s->ready.items);
    s->sorted = mo_mem_new((size_t)n_nodes + 1, sizeof *s->sorted);
    return s->n_waits && s->first && s->readers && s->ready.items && s->sorted;
}

static void sort_release(struct sort *s)
{
    mo_mem_free(s->n_waits);
    mo_mem_free(s->first);
    mo_mem_free(s->readers);
    mo_mem_free(s->ready.items);
    mo_mem_free(s->sorted);
}

/* Lists, for each node, those that read what it makes; counts what each node waits for. */
static void collect_edges(struct sort *s, const struct mo_graph *g)
{
    for (int fill = 0; fill < 2; fill++) {
        for (mo_node_id i = 0; i < g->n_nodes; i++)
            for (uint32_t k = 0; k < g->nodes[i].n_in + g->nodes[i].n_captures; k++) {
                mo_node_id from = source_of(g, nth_read(&g->nodes[i], k));
                if (from == MO_NONE)
                    continue;
                if (fill) {
                    s->readers[s->first[from]++] = i;
                } else {
                    s->first[from + 2]++;
                    s->n_waits[i]++;
                }
            }
        /* counts to places, shifted by one so that filling leaves first[i + 1] at the end of i */
        for (mo_node_id i = 0; !fill && i < g->n_nodes; i++)
            s->first[i + 2] += s->first[i + 1];
        if (!fill)
            memmove(s->first, s->first + 1, ((size_t)g->n_nodes + 1) * sizeof *s->first);
    }
}

static enum mopt_status sort_nodes(struct mopt_ctx *ctx, struct mo_graph *g, struct sort *s)
{
    collect_edges(s, g);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (!s->n_waits[i])
            heap_push(&s->ready, i);
    uint32_t n_sorted = 0;
    while (s->ready.n) {
        mo_node_id i = heap_pop(&s->ready);
        s->sorted[n_sorted++] = g->nodes[i];
        for (uint32_t e = i ? s->first[i - 1] : 0; e < s->first[i]; e++)
            if (!--s->n_waits[s->readers[e]])
                heap_push(&s->ready, s->readers[e]);
    }
    if (n_sorted < g->n_nodes)
        return say_cycle(ctx, g, s->n_waits);
    if (g->n_nodes)
        memcpy(g->nodes, s->sorted, g->n_nodes * sizeof *s->sorted);
    return MOPT_OK;
}

static bool is_sorted(const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; k < g->nodes[i].n_in + g->nodes[i].n_captures; k++) {
            mo_node_id from = source_of(g, nth_read(&g->nodes[i], k));
            if (from != MO_NONE && from >= i)
                return false;
        }
    return true;
}

enum mopt_status mo_graph_sort(struct mopt_ctx *ctx, struct mo_graph *g)
{
    mo_graph_sweep(g);
    MO_TRY(mo_graph_index(ctx, g));
    if (is_sorted(g))
        return MOPT_OK;
    size_t n_edges = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        n_edges += g->nodes[i].n_in + g->nodes[i].n_captures;
    struct sort s = { 0 };
    enum mopt_status status = sort_new(&s, g->n_nodes, n_edges)
                                  ? sort_nodes(ctx, g, &s)
                                  : mo_no_memory(ctx, n_edges * sizeof(uint32_t), "sorting the nodes");
    sort_release(&s);
    return status ? status : mo_graph_index(ctx, g);
}

/* ---- invariants ------------------------------------------------------------------------------ */

static enum mopt_status check_ids(struct mopt_ctx *ctx, const struct mo_graph *g, const mo_value_id *ids, uint32_t n,
                                  bool optional, const char *what)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= g->n_values && !(optional && ids[i] == MO_NONE))
            return mo_fail(ctx, MOPT_FAILED, "%s %u names no value", what, i);
    return MOPT_OK;
}

static enum mopt_status check_node(struct mopt_ctx *ctx, const struct mo_graph *g, mo_node_id id)
{
    const struct mo_node *n = &g->nodes[id];
    MO_TRY(check_ids(ctx, g, n->in, n->n_in, true, "input"));
    MO_TRY(check_ids(ctx, g, n->out, n->n_out, true, "output"));
    MO_TRY(check_ids(ctx, g, n->captures, n->n_captures, false, "capture"));
    for (uint32_t k = 0; k < n->n_in + n->n_captures; k++) {
        mo_node_id from = source_of(g, nth_read(n, k));
        if (from != MO_NONE && from >= id)
            return mo_fail(ctx, MOPT_FAILED, "reads '%s' before it is made", g->values[nth_read(n, k)].name);
    }
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && g->values[n->out[k]].producer != id)
            return mo_fail(ctx, MOPT_FAILED, "value '%s' has another producer", g->values[n->out[k]].name);
    for (uint32_t a = 0; a < n->n_attrs; a++)
        for (size_t k = 0; n->attrs[a].graphs && k < n->attrs[a].n; k++)
            MO_TRY(mo_graph_check(ctx, n->attrs[a].graphs[k]));
    return MOPT_OK;
}

static enum mopt_status check_value(struct mopt_ctx *ctx, const struct mo_value *v)
{
    if (!v->name || !v->name[0])
        return mo_fail(ctx, MOPT_FAILED, "a value has no name");
    if (v->shape.rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_FAILED, "value '%s' has rank %d, above %d", v->name, v->shape.rank, MO_MAX_RANK);
    if (v->data && !mo_shape_known(&v->shape))
        return mo_fail(ctx, MOPT_FAILED, "constant '%s' has no shape", v->name);
    if (v->is_initializer && !v->data)
        return mo_fail(ctx, MOPT_FAILED, "initializer '%s' has no data", v->name);
    return MOPT_OK;
}

enum mopt_status mo_graph_check(struct mopt_ctx *ctx, const struct mo_graph *g)
{
    struct mo_names names = { 0 };
    enum mopt_status status = MOPT_OK;
    for (mo_value_id v = 0; !status && v < g->n_values; v++) {
        status = check_value(ctx, &g->values[v]);
        /* a value that nothing makes, reads or lists is only the trace of a removed one */
        bool is_trace = g->values[v].producer == MO_NONE && !g->values[v].n_uses && !g->values[v].is_input;
        if (status || is_trace)
            continue;
        if (mo_names_find(&names, g, g->values[v].name) != MO_NONE)
            status = mo_fail(ctx, MOPT_FAILED, "two values are called '%s'", g->values[v].name);
        else if (!mo_names_add(&names, g, v))
            status = mo_no_memory(ctx, g->n_values * 8ull, "checking names");
    }
    mo_names_release(&names);
    for (mo_node_id i = 0; !status && i < g->n_nodes; i++) {
        status = g->nodes[i].is_dead ? mo_fail(ctx, MOPT_FAILED, "dead, but not swept") : check_node(ctx, g, i);
        char label[200];
        if (status)
            mo_blame(ctx, "%s", mo_node_label(g, &g->nodes[i], label, sizeof label));
    }
    if (!status)
        status = check_ids(ctx, g, g->outputs, g->n_outputs, false, "graph output");
    if (!status)
        status = check_ids(ctx, g, g->inputs, g->n_inputs, false, "graph input");
    return status;
}
