/* rewrite_transpose.c - Transposes that undo one another.
 *
 *   Transpose(Transpose(x))                     one Transpose, or none
 *   Transpose(f(... Transpose(x)))              f(x) with its axes renamed, when the two undo one another and each f works
 *                                               element by element or can rename its axes (op->permute) */
#include <string.h>

#include "lib/graph/infer.h"
#include "lib/graph/op.h"
#include "lib/passes/rewrite.h"

enum { MAX_CHAIN = 16 };

/* Output axis k is input axis perm[k]; without the attribute they are reversed. */
static bool get_perm(const struct mo_graph *g, const struct mo_node *n, int *perm, int *rank)
{
    size_t count;
    const int64_t *attr = mo_node_ints(n, "perm", &count);
    const struct mo_value *x = mo_in(g, n, 0);
    if (!mo_node_is(n, "Transpose") || !x || (attr && count > MO_MAX_RANK) || (!attr && x->shape.rank < 0))
        return false;
    *rank = attr ? (int)count : x->shape.rank;
    unsigned seen = 0;
    for (int i = 0; i < *rank; i++) {
        perm[i] = attr ? (int)attr[i] : *rank - 1 - i;
        if (perm[i] < 0 || perm[i] >= *rank)
            return false;
        seen |= 1u << perm[i];
    }
    return seen == (1u << *rank) - 1;
}

static bool undo(const int *first, const int *second, int rank)
{
    for (int i = 0; i < rank; i++)
        if (first[second[i]] != i)
            return false;
    return true;
}

/* Its axes can be renamed in the file too: Resize has a list of axes from opset 18 on, Upsample never. */
static bool can_name_axes(const struct mo_graph *g, const struct mo_node *n)
{
    return n->op && n->op->permute && n->n_out == 1 && !mo_node_is(n, "Upsample") &&
           (!mo_node_is(n, "Resize") || g->opset >= 18);
}

/* Works on each element alone, and its other inputs have one element. */
static bool minds_no_axes(const struct mo_graph *g, const struct mo_node *n)
{
    if (!n->op || !(n->op->flags & MO_OP_ELEMENTWISE) || n->n_out != 1)
        return false;
    for (uint32_t k = 1; k < n->n_in; k++)
        if (n->in[k] != MO_NONE && mo_value_elems(mo_in(g, n, k)) != 1)
            return false;
    return true;
}

/* The chain of nodes from the one before i back to the Transpose that i undoes. */
static int find_chain(const struct mo_graph *g, mo_node_id i, const int *second, int rank, mo_node_id *chain)
{
    int n = 0;
    mo_node_id at = mo_private_maker(g, &g->nodes[i], 0);
    while (at != MO_NONE && n < MAX_CHAIN) {
        int first[MO_MAX_RANK], first_rank;
        const struct mo_node *node = &g->nodes[at];
        chain[n] = at;
        if (get_perm(g, node, first, &first_rank))
            return first_rank == rank && undo(first, second, rank) ? n : -1;
        const struct mo_value *out = mo_out(g, node, 0);
        bool may = minds_no_axes(g, node) || can_name_axes(g, node);
        if (!may || !out || out->shape.rank != rank)
            return -1;
        n++;
        at = mo_private_maker(g, node, 0);
    }
    return -1;
}

/* Renaming axes may fail halfway, so it is tried on copies of the attributes' list. */
static bool permute_all(struct mo_graph *g, const mo_node_id *chain, int n, const int *perm, int rank)
{
    for (int k = 0; k < n; k++) {
        struct mo_node *node = &g->nodes[chain[k]];
        if (!minds_no_axes(g, node) && !node->op->permute(g, node, perm, rank))
            return false;
    }
    return true;
}

/* What Transposes stood around is described anew by inference; names of its dimensions are gone. */
static void forget_shape(struct mo_graph *g, const struct mo_node *n)
{
    struct mo_value *v = mo_out(g, n, 0);
    v->dim_names = NULL;
    v->kept_dims = NULL;
    v->shape.rank = MO_UNKNOWN;
}

static enum mopt_status cancel(struct mo_rewrite *r, mo_node_id i, const mo_node_id *chain, int n, const int *second,
                               int rank)
{
    struct mo_graph *g = r->g;
    mo_node_id transpose = chain[n];
    struct mo_attr *attrs[MAX_CHAIN];
    uint32_t n_attrs[MAX_CHAIN];
    for (int k = 0; k < n; k++) {
        const struct mo_node *node = &g->nodes[chain[k]];
        n_attrs[k] = node->n_attrs;
        attrs[k] = mo_arena_new(g->arena, node->n_attrs + 1u, sizeof **attrs);
        if (!attrs[k])
            return mo_no_memory(r->ctx, node->n_attrs * sizeof **attrs, "a node");
        if (node->n_attrs)
            memcpy(attrs[k], node->attrs, node->n_attrs * sizeof **attrs);
    }
    if (!permute_all(g, chain, n, second, rank)) {
        for (int k = 0; k < n; k++) {
            g->nodes[chain[k]].attrs = attrs[k];
            g->nodes[chain[k]].n_attrs = n_attrs[k];
        }
        return MOPT_OK;
    }
    uint32_t before = r->n_changes;
    if (!mo_rewrite_bypass(r, i, 0))
        return mo_fail(r->ctx, MOPT_FAILED, "a Transpose could not be taken out");
    mo_graph_kill(g, transpose);
    for (int k = 0; k < n; k++)
        forget_shape(g, &g->nodes[chain[k]]);
    r->n_changes = before + 1;
    MO_TRY(mo_rewrite_set_input(r, chain[n - 1], 0, g->nodes[transpose].in[0]));
    for (int k = n; k-- > 0;)
        MO_TRY(mo_infer_node(r->ctx, g, &g->nodes[chain[k]]));
    return MOPT_OK;
}

/* Two in a row become one; rewrite_identity takes it out when nothing is left of it. */
static enum mopt_status join(struct mo_rewrite *r, mo_node_id i, mo_node_id before, const int *second, int rank)
{
    struct mo_graph *g = r->g;
    int first[MO_MAX_RANK], first_rank;
    int64_t joined[MO_MAX_RANK];
    if (!get_perm(g, &g->nodes[before], first, &first_rank) || first_rank != rank)
        return MOPT_OK;
    for (int k = 0; k < rank; k++)
        joined[k] = first[second[k]];
    if (!mo_node_set_ints(g, i, "perm", joined, (size_t)rank))
        return mo_no_memory(r->ctx, sizeof joined, "an attribute");
    r->n_changes++;
    return mo_rewrite_set_input(r, i, 0, g->nodes[before].in[0]);
}

enum mopt_status mo_rewrite_transpose(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *n = &g->nodes[i];
    int second[MO_MAX_RANK], rank;
    mo_node_id chain[MAX_CHAIN + 1];
    if (!get_perm(g, n, second, &rank) || mo_in(g, n, 0)->data)
        return MOPT_OK;
    mo_node_id before = mo_in(g, n, 0)->producer;
    if (before != MO_NONE && mo_node_is(&g->nodes[before], "Transpose"))
        return join(r, i, before, second, rank);
    int length = find_chain(g, i, second, rank, chain);
    return length > 0 ? cancel(r, i, chain, length, second, rank) : MOPT_OK;
}
