/* layout.c - images channels-last.
 *
 * One walk over the nodes. Every value may have a twin: the same tensor with the
 * channels moved to the end. Operators that want channels-last read and make
 * twins; elementwise operators, and those that can rename their axes, follow
 * when what they read is there as a twin only; all others read the plain form.
 * A Transpose stands exactly where one form is wanted and only the other is
 * there, and is a view where it only moves axes of size 1. */
#include <stdio.h>
#include <string.h>

#include "lib/run/private.h"

struct layout {
    struct mo_run *run;
    struct mo_graph *g;
    uint32_t n;                 /* values that the graph had before */
    mo_value_id *twin;          /* by value id; MO_NONE */
    bool *is_plain;             /* the plain form is made by something */
};

static enum mopt_status no_memory(struct layout *l)
{
    return mo_no_memory(l->run->ctx, l->g->n_values * sizeof(struct mo_value), "changing the layout");
}

/* new axis k is old axis perm[k]: N C spatial... to N spatial... C */
static void to_last(int rank, int64_t *perm)
{
    for (int k = 0; k < rank; k++)
        perm[k] = k == 0 ? 0 : k == rank - 1 ? 1 : k + 1;
}

static void to_first(int rank, int64_t *perm)
{
    for (int k = 0; k < rank; k++)
        perm[k] = k == 0 ? 0 : k == 1 ? rank - 1 : k - 1;
}

static struct mo_shape permuted(const struct mo_shape *shape, const int64_t *perm)
{
    struct mo_shape out = *shape;
    for (int k = 0; k < shape->rank; k++)
        out.dim[k] = shape->dim[perm[k]];
    return out;
}

/* The order of axes larger than 1 stays as it is: the bytes do too. */
static bool only_moves_ones(const struct mo_shape *shape, const int64_t *perm)
{
    int64_t last = -1;
    for (int k = 0; k < shape->rank; k++) {
        if (shape->dim[perm[k]] == 1)
            continue;
        if (perm[k] < last || shape->dim[perm[k]] == MO_UNKNOWN)
            return false;
        last = perm[k];
    }
    return true;
}

/* ---- making nodes ------------------------------------------------------------------------ */

static enum mopt_status add_view(struct layout *l, mo_value_id from, mo_value_id to)
{
    struct mo_graph *g = l->g;
    mo_node_id n = mo_graph_add_node(g, "View", "mopt", "", &from, 1, &to, 1);
    if (n == MO_NONE || !mo_node_set_ints(g, n, "shape", g->values[to].shape.dim, (size_t)g->values[to].shape.rank))
        return no_memory(l);
    return MOPT_OK;
}

static enum mopt_status add_transpose(struct layout *l, mo_value_id from, mo_value_id to, const int64_t *perm)
{
    struct mo_graph *g = l->g;
    const struct mo_shape *shape = &g->values[from].shape;
    if (only_moves_ones(shape, perm))
        return add_view(l, from, to);
    mo_node_id n = mo_graph_add_node(g, "Transpose", "", "", &from, 1, &to, 1);
    if (n == MO_NONE || !mo_node_set_ints(g, n, "perm", perm, (size_t)shape->rank))
        return no_memory(l);
    return MOPT_OK;
}

static mo_value_id new_value(struct layout *l, mo_value_id like, const struct mo_shape *shape)
{
    char name[300];
    snprintf(name, sizeof name, "%.280s:last", l->g->values[like].name);
    return mo_graph_add_value(l->g, name, l->g->values[like].dtype, shape);
}

static enum mopt_status new_twin(struct layout *l, mo_value_id v)
{
    int64_t perm[MO_MAX_RANK];
    to_last(l->g->values[v].shape.rank, perm);
    struct mo_shape shape = permuted(&l->g->values[v].shape, perm);
    l->twin[v] = new_value(l, v, &shape);
    return l->twin[v] == MO_NONE ? no_memory(l) : MOPT_OK;
}

/* The plain form of v must be there: some node reads it. */
static enum mopt_status need_plain(struct layout *l, mo_value_id v)
{
    if (v == MO_NONE || v >= l->n || l->is_plain[v])
        return MOPT_OK;
    int64_t perm[MO_MAX_RANK];
    to_first(l->g->values[v].shape.rank, perm);
    l->is_plain[v] = true;
    return add_transpose(l, l->twin[v], v, perm);
}

/* What a Transpose of the user's file reads, when that is channels-last already. */
static mo_value_id already_last(const struct layout *l, mo_value_id v)
{
    const struct mo_graph *g = l->g;
    if (g->values[v].producer == MO_NONE)
        return MO_NONE;
    const struct mo_node *n = &g->nodes[g->values[v].producer];
    size_t n_perm = 0;
    const int64_t *perm = mo_node_is(n, "Transpose") ? mo_node_ints(n, "perm", &n_perm) : NULL;
    int64_t want[MO_MAX_RANK];
    int rank = g->values[v].shape.rank;
    to_first(rank, want);
    if (!perm || (int)n_perm != rank || memcmp(perm, want, n_perm * sizeof *want) != 0)
        return MO_NONE;
    return n->in[0] < l->n && l->is_plain[n->in[0]] ? n->in[0] : MO_NONE;
}

static enum mopt_status need_twin(struct layout *l, mo_value_id v)
{
    if (l->twin[v] != MO_NONE)
        return MOPT_OK;
    mo_value_id source = already_last(l, v);
    if (source != MO_NONE) {
        l->twin[v] = source;
        return MOPT_OK;
    }
    int64_t perm[MO_MAX_RANK];
    to_last(l->g->values[v].shape.rank, perm);
    MO_TRY(new_twin(l, v));
    return add_transpose(l, v, l->twin[v], perm);
}

static void set_input(struct layout *l, mo_node_id node, uint32_t k, mo_value_id to)
{
    l->g->nodes[node].in[k] = to;
}

static enum mopt_status twin_outputs(struct layout *l, mo_node_id node, int rank)
{
    for (uint32_t k = 0; k < l->g->nodes[node].n_out; k++) {
        mo_value_id v = l->g->nodes[node].out[k];
        if (v == MO_NONE || l->g->values[v].shape.rank != rank)
            continue;
        MO_TRY(new_twin(l, v));
        l->is_plain[v] = false;
        l->g->nodes[node].out[k] = l->twin[v];
    }
    return MOPT_OK;
}

/* ---- the kinds of nodes -------------------------------------------------------------------- */

static const struct mo_shape *shape_in(const struct layout *l, mo_node_id node, uint32_t k)
{
    const struct mo_node *n = &l->g->nodes[node];
    return k < n->n_in && n->in[k] != MO_NONE ? &l->g->values[n->in[k]].shape : NULL;
}

static bool all_shapes_known(const struct layout *l, mo_node_id node)
{
    const struct mo_node *n = &l->g->nodes[node];
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE && !mo_shape_known(&l->g->values[n->in[k]].shape))
            return false;
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && !mo_shape_known(&l->g->values[n->out[k]].shape))
            return false;
    return true;
}

static enum mopt_status wrap(struct layout *l, mo_node_id node)
{
    int rank = shape_in(l, node, 0)->rank;
    mo_value_id x = l->g->nodes[node].in[0];
    MO_TRY(need_twin(l, x));
    for (uint32_t k = 1; k < l->g->nodes[node].n_in; k++)
        MO_TRY(need_plain(l, l->g->nodes[node].in[k]));
    set_input(l, node, 0, l->twin[x]);
    l->g->nodes[node].channels_last = true;
    return twin_outputs(l, node, rank);
}

/* Is there an input that would have to be moved back if this node stayed plain? */
static bool reads_twin_only(const struct layout *l, mo_node_id node, int rank)
{
    const struct mo_node *n = &l->g->nodes[node];
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE && n->in[k] < l->n && !l->is_plain[n->in[k]] &&
            l->g->values[n->in[k]].shape.rank == rank)
            return true;
    return false;
}

/* An operand of lower rank in broadcasting: as a tensor of full rank, channels-last. */
static enum mopt_status broadcast_operand(struct layout *l, mo_value_id v, int rank, mo_value_id *operand)
{
    struct mo_shape old = l->g->values[v].shape, full = { .rank = rank };
    int64_t perm[MO_MAX_RANK];
    *operand = v;
    if (mo_shape_elems(&old) == 1)
        return MOPT_OK;
    for (int k = 0; k < rank; k++)
        full.dim[k] = k < rank - old.rank ? 1 : old.dim[k - (rank - old.rank)];
    to_last(rank, perm);
    struct mo_shape last = permuted(&full, perm);
    mo_value_id last_id = new_value(l, v, &last);
    if (last_id == MO_NONE)
        return no_memory(l);
    *operand = last_id;
    if (only_moves_ones(&full, perm))
        return add_view(l, v, last_id);
    mo_value_id full_id = new_value(l, v, &full);
    if (full_id == MO_NONE)
        return no_memory(l);
    MO_TRY(add_view(l, v, full_id));
    return add_transpose(l, full_id, last_id, perm);
}

static enum mopt_status follow_elementwise(struct layout *l, mo_node_id node, int rank)
{
    for (uint32_t k = 0; k < l->g->nodes[node].n_in; k++) {
        mo_value_id v = l->g->nodes[node].in[k], to;
        if (v == MO_NONE)
            continue;
        if (l->g->values[v].shape.rank == rank) {
            MO_TRY(need_twin(l, v));
            to = l->twin[v];
        } else {
            MO_TRY(need_plain(l, v));
            MO_TRY(broadcast_operand(l, v, rank, &to));
        }
        set_input(l, node, k, to);
    }
    return twin_outputs(l, node, rank);
}

/* Without keepdims a reduction gives what is left in order: right only when that order is the plain one. */
static bool keeps_order(struct layout *l, mo_node_id node, int rank)
{
    const struct mo_node *n = &l->g->nodes[node];
    const struct mo_value *y = mo_out(l->g, n, 0);
    if (y->shape.rank == rank)
        return true;
    int axes[MO_MAX_RANK], n_axes;
    bool is_reduced[MO_MAX_RANK] = { false };
    if (strncmp(n->type, "Reduce", 6) != 0 || mo_axes(l->run->ctx, l->g, n, 1, rank, axes, &n_axes) || n_axes < 0)
        return false;
    for (int i = 0; i < n_axes; i++)
        is_reduced[axes[i]] = true;
    bool channels_stay = !is_reduced[1], spatial_stay = false;
    for (int d = 2; d < rank; d++)
        spatial_stay |= !is_reduced[d];
    return !(channels_stay && spatial_stay);
}

/* Asks the operator to rename its axes; *done false: it cannot. */
static enum mopt_status follow_permuted(struct layout *l, mo_node_id node, int rank, bool *done)
{
    int64_t perm64[MO_MAX_RANK];
    int perm[MO_MAX_RANK];
    *done = false;
    if (!l->g->nodes[node].op->permute || !keeps_order(l, node, rank))
        return MOPT_OK;
    to_last(rank, perm64);
    for (int k = 0; k < rank; k++)
        perm[k] = (int)perm64[k];
    if (!l->g->nodes[node].op->permute(l->g, &l->g->nodes[node], perm, rank))
        return MOPT_OK;
    *done = true;
    for (uint32_t k = 0; k < l->g->nodes[node].n_in; k++) {
        mo_value_id v = l->g->nodes[node].in[k];
        if (v == MO_NONE || v >= l->n)
            continue;
        if (l->g->values[v].shape.rank != rank) {
            MO_TRY(need_plain(l, v));
            continue;
        }
        MO_TRY(need_twin(l, v));
        set_input(l, node, k, l->twin[v]);
    }
    return twin_outputs(l, node, rank);
}

/* A Transpose of the file that undoes ours: its result is the twin. */
static bool undoes(const struct layout *l, mo_node_id node)
{
    const struct mo_node *n = &l->g->nodes[node];
    size_t n_perm = 0;
    const int64_t *perm = mo_node_is(n, "Transpose") ? mo_node_ints(n, "perm", &n_perm) : NULL;
    int64_t want[MO_MAX_RANK];
    int rank = perm ? l->g->values[n->in[0]].shape.rank : 0;
    if (rank < 3 || (int)n_perm != rank || n->in[0] >= l->n || l->is_plain[n->in[0]])
        return false;
    to_last(rank, want);
    return memcmp(perm, want, n_perm * sizeof *want) == 0;
}

static enum mopt_status visit(struct layout *l, mo_node_id node)
{
    const struct mo_op *op = l->g->nodes[node].op;
    const struct mo_shape *x = shape_in(l, node, 0);
    if (op->flags & MO_OP_CHANNELS_LAST && x && x->rank >= 3)
        return wrap(l, node);
    if (undoes(l, node)) {
        mo_value_id from = l->twin[l->g->nodes[node].in[0]], to = l->g->nodes[node].out[0];
        l->g->nodes[node].is_dead = true;
        return add_view(l, from, to);
    }
    const struct mo_value *y = mo_out(l->g, &l->g->nodes[node], 0);
    int rank = op->flags & MO_OP_ELEMENTWISE ? (y ? y->shape.rank : 0) : (x ? x->rank : 0);
    if (rank >= 3 && all_shapes_known(l, node) && reads_twin_only(l, node, rank)) {
        bool done = false;
        if (op->flags & MO_OP_ELEMENTWISE)
            return follow_elementwise(l, node, rank);
        MO_TRY(follow_permuted(l, node, rank, &done));
        if (done)
            return MOPT_OK;
    }
    for (uint32_t k = 0; k < l->g->nodes[node].n_in; k++)
        MO_TRY(need_plain(l, l->g->nodes[node].in[k]));
    for (uint32_t k = 0; k < l->g->nodes[node].n_captures; k++)
        MO_TRY(need_plain(l, l->g->nodes[node].captures[k]));
    return MOPT_OK;
}

/* ---- the walk --------------------------------------------------------------------------------- */

static enum mopt_status note_aliases(struct layout *l, struct mo_plan *plan)
{
    plan->aliases = mo_arena_new(&plan->arena, (size_t)l->n + 1, sizeof *plan->aliases);
    if (!plan->aliases)
        return no_memory(l);
    for (mo_value_id v = 0; v < MO_MIN(l->n, l->run->private_->n_user_values); v++)
        if (l->twin[v] != MO_NONE && l->twin[v] >= l->n)
            plan->aliases[plan->n_aliases++] = (struct mo_alias){ l->twin[v], v };
    return MOPT_OK;
}

enum mopt_status mo_layout(struct mo_run *run, struct mo_plan *plan)
{
    struct mo_graph *g = &plan->graph;
    struct layout l = { .run = run, .g = g, .n = g->n_values };
    l.twin = mo_arena_new(&plan->arena, (size_t)l.n + 1, sizeof *l.twin);
    l.is_plain = mo_arena_new(&plan->arena, (size_t)l.n + 1, sizeof *l.is_plain);
    if (!l.twin || !l.is_plain)
        return no_memory(&l);
    for (mo_value_id v = 0; v < l.n; v++) {
        l.twin[v] = MO_NONE;
        l.is_plain[v] = true;
    }
    uint32_t n_nodes = g->n_nodes;
    for (mo_node_id i = 0; i < n_nodes; i++)
        MO_TRY(visit(&l, i));
    for (uint32_t i = 0; i < g->n_outputs; i++)
        MO_TRY(need_plain(&l, g->outputs[i]));
    MO_TRY(note_aliases(&l, plan));
    MO_TRY(mo_graph_sort(run->ctx, g));
    return mo_infer(run->ctx, g, NULL, 0);
}
