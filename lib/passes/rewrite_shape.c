/* rewrite_shape.c - targets of Reshape that exporters compute from Shape, Gather, Concat.
 *
 * An entry that is known becomes that number. One that is found to be dimension k of the very tensor that is
 * reshaped, in place k, becomes 0, which means "as it was". One more that is not known becomes -1, which means "what is
 * left". Anything else stays as it is. */
#include <string.h>

#include "lib/graph/infer.h"
#include "lib/passes/rewrite.h"

enum { MAX_STEPS = 64 };

/* Follows element `k` of an integer value to the dimension of a tensor that it was taken from. */
struct trace { mo_value_id value; int64_t k; };

/* Which input of a Concat of vectors has element k; k becomes its place there. */
static bool step_concat(const struct mo_graph *g, const struct mo_node *n, struct trace *t)
{
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mo_value *v = mo_in(g, n, i);
        int64_t elems = v && v->shape.rank == 1 ? mo_value_elems(v) : MO_UNKNOWN;
        if (elems < 0)
            return false;
        if (t->k < elems) {
            t->value = n->in[i];
            return true;
        }
        t->k -= elems;
    }
    return false;
}

static bool step_gather(const struct mo_graph *g, const struct mo_node *n, struct trace *t)
{
    int64_t indices[MO_MAX_RANK];
    const struct mo_value *data = mo_in(g, n, 0), *index = mo_in(g, n, 1);
    int count = index ? mo_value_ints(index, indices, MO_MAX_RANK) : -1;
    if (!data || data->shape.rank != 1 || count <= t->k)
        return false;
    int64_t elems = mo_value_elems(data), k = indices[t->k];
    if (elems < 0 || k >= elems || k < -elems)
        return false;
    *t = (struct trace){ n->in[0], k < 0 ? k + elems : k };
    return true;
}

static bool step_slice(const struct mo_graph *g, const struct mo_node *n, struct trace *t)
{
    int64_t start, step = 1;
    size_t count;
    const int64_t *starts = mo_node_ints(n, "starts", &count);
    const struct mo_value *data = mo_in(g, n, 0);
    int64_t elems = data && data->shape.rank == 1 ? mo_value_elems(data) : MO_UNKNOWN;
    if (starts && count == 1)
        start = starts[0];
    else if (!mo_in(g, n, 1) || mo_value_ints(mo_in(g, n, 1), &start, 1) != 1)
        return false;
    if ((mo_in(g, n, 4) && mo_value_ints(mo_in(g, n, 4), &step, 1) != 1) || step != 1 || elems < 0)
        return false;
    start = start < 0 ? MO_MAX(start + elems, 0) : start;
    *t = (struct trace){ n->in[0], start + t->k };
    return t->k < elems;
}

/* True when element k of `value` is dimension *axis of *tensor. */
static bool trace_dim(const struct mo_graph *g, mo_value_id value, int64_t k, mo_value_id *tensor, int64_t *axis)
{
    struct trace t = { value, k };
    for (int steps = 0; steps < MAX_STEPS; steps++) {
        mo_node_id from = t.value == MO_NONE ? MO_NONE : g->values[t.value].producer;
        if (from == MO_NONE)
            return false;
        const struct mo_node *n = &g->nodes[from];
        bool is_wrapping = mo_node_is(n, "Unsqueeze") || mo_node_is(n, "Squeeze") || mo_node_is(n, "Cast") ||
                           mo_node_is(n, "Identity");
        if (mo_node_is(n, "Shape")) {
            *tensor = n->in[0];
            *axis = t.k;
            return mo_node_int(n, "start", 0) == 0;
        }
        if (is_wrapping)
            t.value = n->in[0];
        else if (mo_node_is(n, "Concat") ? !step_concat(g, n, &t)
                 : mo_node_is(n, "Gather") ? !step_gather(g, n, &t)
                 : mo_node_is(n, "Slice") ? !step_slice(g, n, &t) : true)
            return false;
    }
    return false;
}

/* The constant target; false: there is none. */
static bool constant_target(const struct mo_graph *g, const struct mo_node *n, int rank, int64_t *target)
{
    const struct mo_value *x = mo_in(g, n, 0);
    int n_free = 0, n_zero = 0;
    for (int i = 0; i < rank; i++) {
        mo_value_id tensor;
        int64_t axis;
        target[i] = mo_known_in(g, n, 1, i);
        if (target[i] == 0)
            return false;           /* copies a dimension, or makes an empty tensor: left to who wrote it */
        if (target[i] == -1)
            n_free++;
        if (target[i] != MO_VALUE_UNKNOWN)
            continue;
        bool is_same = trace_dim(g, n->in[1], i, &tensor, &axis) && tensor == n->in[0] && axis == i &&
                       x->shape.rank > i;
        target[i] = is_same ? 0 : -1;
        n_free += !is_same;
        n_zero += is_same;
    }
    return n_free <= 1 && (n_zero == 0 || mo_node_int(n, "allowzero", 0) == 0);
}

enum mopt_status mo_rewrite_reshape(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *n = &g->nodes[i];
    const struct mo_value *shape = mo_in(g, n, 1);
    int64_t target[MO_MAX_RANK];
    if (!mo_node_is(n, "Reshape") || !shape || shape->data || shape->shape.rank != 1 || !mo_in(g, n, 0))
        return MOPT_OK;
    int64_t rank = shape->shape.dim[0];
    if (rank < 1 || rank > MO_MAX_RANK || !constant_target(g, n, (int)rank, target))
        return MOPT_OK;
    struct mo_shape vector = { .rank = 1, .dim = { rank } };
    const char *name = mo_arena_printf(g->arena, "%s_shape", g->values[n->out[0]].name);
    mo_value_id id = name ? mo_graph_add_const(g, name, MO_I64, &vector, target) : MO_NONE;
    if (id == MO_NONE)
        return mo_no_memory(r->ctx, sizeof target, "a shape");
    r->n_changes++;
    return mo_rewrite_set_input(r, i, 1, id);
}
