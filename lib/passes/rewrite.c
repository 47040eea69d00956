/* rewrite.c - what rewrites are made of. Producers and uses are right again when one of these returns. */
#include "lib/passes/rewrite.h"

#include <string.h>

#include "lib/graph/op.h"
#include "lib/graph/private.h"

bool mo_is_private(const struct mo_graph *g, mo_value_id v)
{
    return v != MO_NONE && !g->values[v].is_output && g->values[v].n_uses == 1 && !g->values[v].data;
}

mo_node_id mo_private_maker(const struct mo_graph *g, const struct mo_node *n, uint32_t k)
{
    if (k >= n->n_in || !mo_is_private(g, n->in[k]))
        return MO_NONE;
    mo_node_id p = g->values[n->in[k]].producer;
    return p != MO_NONE && g->nodes[p].out[0] == n->in[k] ? p : MO_NONE;
}

bool mo_only_first_output(const struct mo_graph *g, const struct mo_node *n)
{
    for (uint32_t k = 1; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && g->values[n->out[k]].n_uses)
            return false;
    return true;
}

void mo_rewrite_merge(struct mo_rewrite *r, mo_node_id maker, mo_node_id i)
{
    struct mo_graph *g = r->g;
    g->values[g->nodes[maker].out[0]].producer = MO_NONE;
    mo_graph_kill(g, i);
    g->nodes[maker].out[0] = g->nodes[i].out[0];
    g->values[g->nodes[maker].out[0]].producer = maker;
    r->n_changes++;
}

bool mo_rewrite_bypass(struct mo_rewrite *r, mo_node_id i, uint32_t k)
{
    struct mo_graph *g = r->g;
    struct mo_node *n = &g->nodes[i];
    mo_value_id x = n->in[k], y = n->out[0];
    if (x == MO_NONE || y == MO_NONE || !mo_only_first_output(g, n))
        return false;
    if (g->values[y].is_output) {
        /* the maker of x makes y, under y's name; whoever read x reads y */
        mo_node_id maker = g->values[x].producer;
        const struct mo_value *v = &g->values[x];
        if (v->is_output || v->is_input || v->is_captured || v->data || maker == MO_NONE)
            return false;
        for (uint32_t o = 0; o < g->nodes[maker].n_out; o++)
            if (g->nodes[maker].out[o] == x)
                g->nodes[maker].out[o] = y;
        mo_graph_kill(g, i);
        g->values[x].producer = MO_NONE;
        g->values[y].producer = maker;
        mo_graph_move_uses(g, x, y, maker);
    } else {
        mo_graph_kill(g, i);
        mo_graph_move_uses(g, y, x, i);
    }
    r->n_changes++;
    return true;
}

enum mopt_status mo_rewrite_become(struct mo_rewrite *r, mo_node_id i, const char *type, const mo_value_id *in,
                                   uint32_t n_in)
{
    struct mo_node *n = &r->g->nodes[i];
    mo_value_id *copy = mo_arena_new(r->g->arena, n_in + 1, sizeof *copy);
    const char *name = mo_arena_text(r->g->arena, type);
    if (!copy || !name)
        return mo_no_memory(r->ctx, n_in * sizeof *copy, "a node");
    memcpy(copy, in, n_in * sizeof *copy);
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE)
            r->g->values[n->in[k]].n_uses--;
    for (uint32_t k = 0; k < n_in; k++)
        if (in[k] != MO_NONE)
            r->g->values[in[k]].n_uses++;
    n->in = copy;
    n->n_in = n_in;
    n->type = name;
    n->domain = "";
    n->n_attrs = 0;
    n->params = NULL;
    n->op = mo_graph_find_op(r->g, n);
    return MOPT_OK;
}

enum mopt_status mo_rewrite_set_input(struct mo_rewrite *r, mo_node_id i, uint32_t k, mo_value_id v)
{
    struct mo_node *n = &r->g->nodes[i];
    if (k >= n->n_in) {
        mo_value_id *grown = mo_arena_new(r->g->arena, k + 1, sizeof *grown);
        if (!grown)
            return mo_no_memory(r->ctx, (k + 1) * sizeof *grown, "a node");
        memcpy(grown, n->in, n->n_in * sizeof *grown);
        for (uint32_t j = n->n_in; j <= k; j++)
            grown[j] = MO_NONE;
        n->in = grown;
        n->n_in = k + 1;
    }
    if (n->in[k] != MO_NONE)
        r->g->values[n->in[k]].n_uses--;
    if (v != MO_NONE)
        r->g->values[v].n_uses++;
    n->in[k] = v;
    return MOPT_OK;
}
