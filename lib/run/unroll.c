/* unroll.c - If, Loop and Scan for training: what a graph inside a node does is
 * written out, turn by turn, into the graph around it. So every turn has its own
 * activations, the plan knows all sizes, and gradients come from the operators
 * inside.
 *
 *   Scan   as many turns as its sequences are long
 *   Loop   as many turns as its trip count and condition say, where they follow from
 *          constants and shapes; a loop that data ends has no gradient here
 *   If     the branch that a constant condition takes; else both, and Where between
 *          them: a branch that is not taken is computed, and gets a gradient of 0 */
#include <stdio.h>
#include <string.h>

#include "lib/graph/private.h"
#include "lib/run/private.h"

enum { MAX_ROUNDS = 8, MAX_TURNS = 1 << 13, MAX_NODES = 1 << 17, MAX_DEPTH = 32 };

struct unroller {
    struct mopt_ctx *ctx;
    struct mo_graph *g;
    struct mo_names names;
};

static enum mopt_status no_room(const struct unroller *u)
{
    return mo_no_memory(u->ctx, sizeof(struct mo_node), "the turns of a graph");
}

/* ---- new nodes ---- */

static mo_value_id new_value(struct unroller *u, const char *prefix, const char *what)
{
    char name[64];
    mo_value_id v = MO_NONE;
    const char *text = NULL;
    for (unsigned k = u->g->n_values; !text || mo_names_find(&u->names, u->g, text) != MO_NONE; k++) {
        snprintf(name, sizeof name, "%s_%u", what, k);
        text = mo_arena_printf(u->g->arena, "%s/%s", prefix, name);
        if (!text)
            return MO_NONE;
    }
    v = mo_graph_new_value(u->g, text);
    return v != MO_NONE && mo_names_add(&u->names, u->g, v) ? v : MO_NONE;
}

static mo_value_id new_const(struct unroller *u, const char *prefix, enum mo_dtype dtype, const struct mo_shape *shape,
                             const void *data)
{
    mo_value_id v = new_value(u, prefix, "number");
    size_t bytes = mo_dtype_bytes(dtype, mo_shape_elems(shape));
    void *heap = v == MO_NONE ? NULL : mo_mem_new(bytes + 1, 1);
    if (!heap)
        return MO_NONE;
    memcpy(heap, data, bytes);
    mo_value_set_data(u->g, v, dtype, shape, heap);
    return v;
}

static mo_value_id ints_const(struct unroller *u, const char *prefix, const int64_t *values, int64_t n)
{
    struct mo_shape shape = mo_shape_of(1, n);
    return new_const(u, prefix, MO_I64, &shape, values);
}

static enum mopt_status identity(const struct unroller *u, mo_value_id from, mo_value_id to)
{
    if (to == MO_NONE)
        return MOPT_OK;
    return mo_graph_add_node(u->g, "Identity", "", "", &from, 1, &to, 1) == MO_NONE ? no_room(u) : MOPT_OK;
}

/* Unsqueeze and Squeeze of one axis: an input since opset 13, an attribute before. MO_NONE: no memory. */
static mo_value_id move_axis(struct unroller *u, const char *prefix, const char *type, mo_value_id from, int64_t axis)
{
    mo_value_id to = new_value(u, prefix, type), in[2] = { from, MO_NONE };
    bool is_input = u->g->opset >= 13;
    if (is_input)
        in[1] = ints_const(u, prefix, &axis, 1);
    if (to == MO_NONE || (is_input && in[1] == MO_NONE))
        return MO_NONE;
    mo_node_id n = mo_graph_add_node(u->g, type, "", "", in, is_input ? 2 : 1, &to, 1);
    if (n == MO_NONE || (!is_input && !mo_node_set_ints(u->g, n, "axes", &axis, 1)))
        return MO_NONE;
    return to;
}

/* x cut along `axis` into parts of one, which lose that axis. */
static enum mopt_status cut(struct unroller *u, const char *prefix, mo_value_id x, int64_t axis, int64_t n,
                            mo_value_id *parts)
{
    mo_value_id in[2] = { x, MO_NONE };
    bool is_input = u->g->opset >= 13;
    int64_t *ones = mo_arena_new(u->g->arena, (size_t)n, sizeof *ones);
    if (!ones)
        return no_room(u);
    for (int64_t t = 0; t < n; t++) {
        ones[t] = 1;
        parts[t] = new_value(u, prefix, "slice");
        if (parts[t] == MO_NONE)
            return no_room(u);
    }
    if (is_input)
        in[1] = ints_const(u, prefix, ones, n);
    mo_node_id node = is_input && in[1] == MO_NONE ? MO_NONE
                      : mo_graph_add_node(u->g, "Split", "", "", in, is_input ? 2 : 1, parts, (uint32_t)n);
    if (node == MO_NONE || !mo_node_set_int(u->g, node, "axis", axis) ||
        (!is_input && !mo_node_set_ints(u->g, node, "split", ones, (size_t)n)))
        return no_room(u);
    for (int64_t t = 0; t < n; t++) {
        parts[t] = move_axis(u, prefix, "Squeeze", parts[t], axis);
        if (parts[t] == MO_NONE)
            return no_room(u);
    }
    return MOPT_OK;
}

/* The parts stacked along a new axis, into `to`. */
static enum mopt_status stack(struct unroller *u, const char *prefix, mo_value_id *parts, int64_t n, int64_t axis,
                              bool reversed, mo_value_id to)
{
    if (to == MO_NONE)
        return MOPT_OK;
    for (int64_t t = 0; t < n; t++) {
        parts[t] = move_axis(u, prefix, "Unsqueeze", parts[t], axis);
        if (parts[t] == MO_NONE)
            return no_room(u);
    }
    for (int64_t t = 0; reversed && t < n / 2; t++) {
        mo_value_id swap = parts[t];
        parts[t] = parts[n - 1 - t];
        parts[n - 1 - t] = swap;
    }
    mo_node_id node = mo_graph_add_node(u->g, "Concat", "", "", parts, (uint32_t)n, &to, 1);
    return node == MO_NONE || !mo_node_set_int(u->g, node, "axis", axis) ? no_room(u) : MOPT_OK;
}

/* ---- what is a constant behind a few nodes ---- */

/* Computes value v from constants, where it is made of nothing else. False: it is not, or could not be. */
static bool make_constant(struct unroller *u, mo_value_id v, int depth)
{
    struct mo_graph *g = u->g;
    if (g->values[v].data)
        return true;
    if (g->values[v].producer == MO_NONE || depth == MAX_DEPTH)
        return false;
    struct mo_node *n = &g->nodes[g->values[v].producer];
    void *data[8] = { NULL };
    if (n->n_out > MO_COUNT(data) || !n->op)
        return false;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE && !make_constant(u, n->in[k], depth + 1))
            return false;
    bool is_made = !mo_infer_node(u->ctx, g, n) && !mo_run_one(u->ctx, g, n, data);
    if (!is_made) {
        mopt_clear(u->ctx);
        return false;
    }
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE) {
            struct mo_shape shape = g->values[n->out[k]].shape;
            mo_value_set_data(g, n->out[k], g->values[n->out[k]].dtype, &shape, data[k]);
            g->values[n->out[k]].producer = MO_NONE;
        }
    n->is_dead = true;
    return true;
}

/* A truth value that does not depend on data. */
static bool known_truth(struct unroller *u, mo_value_id v, bool *truth)
{
    const struct mo_value *value = &u->g->values[v];
    if (value->known && mo_value_elems(value) == 1 && value->known[0] != MO_VALUE_UNKNOWN) {
        *truth = value->known[0] != 0;
        return true;
    }
    if (!make_constant(u, v, 0))
        return false;
    value = &u->g->values[v];
    if (value->dtype != MO_BOOL || mo_value_elems(value) != 1)
        return false;
    *truth = *(const uint8_t *)value->data != 0;
    return true;
}

/* ---- the three ---- */

static const struct mo_graph *graph_of(const struct mo_node *n, const char *attr)
{
    const struct mo_attr *a = mo_node_attr(n, attr);
    return a && a->kind == MO_ATTR_GRAPH && a->graphs ? a->graphs[0] : NULL;
}

static enum mopt_status check_nodes(const struct unroller *u)
{
    if (u->g->n_nodes <= MAX_NODES)
        return MOPT_OK;
    return mo_fail(u->ctx, MOPT_LIMIT, "written out for training it has more than %d nodes", MAX_NODES);
}

static enum mopt_status unroll_if(struct unroller *u, const struct mo_node *n, const char *prefix)
{
    const struct mo_graph *branch[2] = { graph_of(n, "else_branch"), graph_of(n, "then_branch") };
    mo_value_id *out[2];
    bool truth, is_known = known_truth(u, n->in[0], &truth);
    for (int b = 0; b < 2; b++) {
        if (!branch[b] || branch[b]->n_outputs < n->n_out)
            return mo_fail(u->ctx, MOPT_DATA, "a branch that does not give its %u outputs", n->n_out);
        out[b] = mo_arena_new(u->g->arena, branch[b]->n_outputs + 1, sizeof *out[b]);
        if (!out[b])
            return no_room(u);
        if (!is_known || truth == b)
            MO_TRY(mo_graph_splice(u->ctx, u->g, &u->names, branch[b], prefix, NULL, out[b]));
    }
    for (uint32_t k = 0; k < n->n_out; k++) {
        if (is_known) {
            MO_TRY(identity(u, out[truth][k], n->out[k]));
            continue;
        }
        mo_value_id in[3] = { n->in[0], out[1][k], out[0][k] };
        if (n->out[k] != MO_NONE && mo_graph_add_node(u->g, "Where", "", "", in, 3, &n->out[k], 1) == MO_NONE)
            return no_room(u);
    }
    return MOPT_OK;
}

/* A loop as it is written out. */
struct turns {
    const struct mo_graph *body;
    uint32_t n_held, n_collected;
    mo_value_id *in, *out;              /* of the body */
    mo_value_id **collected;            /* n_collected lists of most */
    int64_t n, most;
};

static enum mopt_status open_turns(struct unroller *u, struct turns *t, int64_t most)
{
    struct mo_arena *arena = u->g->arena;
    t->most = most;
    t->in = mo_arena_new(arena, t->body->n_inputs + 1, sizeof *t->in);
    t->out = mo_arena_new(arena, t->body->n_outputs + 1, sizeof *t->out);
    t->collected = mo_arena_new(arena, t->n_collected + 1, sizeof *t->collected);
    if (!t->in || !t->out || !t->collected)
        return no_room(u);
    for (uint32_t k = 0; k < t->n_collected; k++) {
        t->collected[k] = mo_arena_new(arena, (size_t)most + 1, sizeof **t->collected);
        if (!t->collected[k])
            return no_room(u);
    }
    return MOPT_OK;
}

/* One turn of a body whose inputs are in t->in; the body's outputs from `first` on are states, then what is collected. */
static enum mopt_status write_turn(struct unroller *u, struct turns *t, const char *prefix, uint32_t first)
{
    MO_TRY(mo_graph_splice(u->ctx, u->g, &u->names, t->body, prefix, t->in, t->out));
    for (uint32_t k = 0; k < t->n_collected; k++)
        t->collected[k][t->n] = t->out[first + t->n_held + k];
    t->n++;
    MO_TRY(mo_stopped(u->ctx));
    return check_nodes(u);
}

static enum mopt_status data_ends_it(const struct unroller *u)
{
    return mo_fail(u->ctx, MOPT_UNSUPPORTED, "a loop that ends when data says so has no gradient");
}

static enum mopt_status loop_turns(struct unroller *u, const struct mo_node *n, struct turns *t, const char *prefix,
                                   int64_t most, bool goes_on)
{
    const struct mo_value *number = &t->body->values[t->body->inputs[0]];
    struct mo_shape shape = number->shape.rank == 1 ? mo_shape_of(1, (int64_t)1) : mo_shape_of(0);
    for (uint32_t k = 0; k < t->n_held; k++)
        t->in[2 + k] = n->in[2 + k];
    while (goes_on && (most < 0 || t->n < most)) {
        uint8_t yes = 1;
        if (t->n == t->most)
            return mo_fail(u->ctx, MOPT_LIMIT, "more than %lld turns", (long long)t->most);
        t->in[0] = new_const(u, prefix, MO_I64, &shape, &t->n);
        t->in[1] = new_const(u, prefix, MO_BOOL, &shape, &yes);
        if (t->in[0] == MO_NONE || t->in[1] == MO_NONE)
            return no_room(u);
        MO_TRY(write_turn(u, t, prefix, 1));
        for (uint32_t k = 0; k < t->n_held; k++)
            t->in[2 + k] = t->out[1 + k];
        if (!known_truth(u, t->out[0], &goes_on))
            return data_ends_it(u);
    }
    return MOPT_OK;
}

static enum mopt_status unroll_loop(struct unroller *u, const struct mo_node *n, const char *prefix)
{
    struct turns t = { .body = graph_of(n, "body"), .n_held = n->n_in > 2 ? n->n_in - 2 : 0 };
    int64_t most = -1;
    bool goes_on = true;
    if (!t.body || t.body->n_inputs != t.n_held + 2 || t.body->n_outputs < t.n_held + 1)
        return mo_fail(u->ctx, MOPT_DATA, "its body does not fit its %u loop values", t.n_held);
    t.n_collected = t.body->n_outputs - 1 - t.n_held;
    if (n->n_in > 0 && n->in[0] != MO_NONE) {
        most = mo_known_in(u->g, n, 0, 0);
        if (most == MO_VALUE_UNKNOWN && make_constant(u, n->in[0], 0))
            most = mo_known_in(u->g, n, 0, 0);
        if (most == MO_VALUE_UNKNOWN)
            return data_ends_it(u);
        most = MO_MAX(most, 0);
    }
    if (n->n_in > 1 && n->in[1] != MO_NONE && !known_truth(u, n->in[1], &goes_on))
        return data_ends_it(u);
    MO_TRY(open_turns(u, &t, most < 0 || most > MAX_TURNS ? MAX_TURNS : most));
    MO_TRY(loop_turns(u, n, &t, prefix, most, goes_on));
    if (t.n == 0 && n->n_out > t.n_held)
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "a loop without a turn gives nothing to train through");
    for (uint32_t k = 0; k < t.n_held && k < n->n_out; k++)
        MO_TRY(identity(u, t.n ? t.in[2 + k] : n->in[2 + k], n->out[k]));
    for (uint32_t k = 0; k < t.n_collected && t.n_held + k < n->n_out; k++)
        MO_TRY(stack(u, prefix, t.collected[k], t.n, 0, false, n->out[t.n_held + k]));
    return MOPT_OK;
}

static int64_t entry(const struct mo_node *n, const char *attr, uint32_t i)
{
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, attr, &n_ints);
    return i < n_ints ? ints[i] : 0;
}

/* Sequence i as its slices, in the order in which they are read. */
static enum mopt_status cut_sequence(struct unroller *u, const struct mo_node *n, const struct turns *t, uint32_t i,
                                     const char *prefix, mo_value_id *slices)
{
    const struct mo_value *x = mo_in(u->g, n, t->n_held + i);
    int axis;
    if (!x || x->shape.rank == MO_UNKNOWN)
        return data_ends_it(u);
    MO_TRY(mo_axis(u->ctx, entry(n, "scan_input_axes", i), x->shape.rank, &axis));
    if (x->shape.dim[axis] != t->most)
        return mo_fail(u->ctx, MOPT_DATA, "sequences of %lld and %lld", (long long)t->most, (long long)x->shape.dim[axis]);
    MO_TRY(cut(u, prefix, n->in[t->n_held + i], axis, t->most, slices));
    for (int64_t k = 0; entry(n, "scan_input_directions", i) && k < t->most / 2; k++) {
        mo_value_id swap = slices[k];
        slices[k] = slices[t->most - 1 - k];
        slices[t->most - 1 - k] = swap;
    }
    return MOPT_OK;
}

static enum mopt_status unroll_scan(struct unroller *u, const struct mo_node *n, const char *prefix)
{
    uint32_t n_sequences = (uint32_t)mo_node_int(n, "num_scan_inputs", 0);
    struct turns t = { .body = graph_of(n, "body"), .n_held = n->n_in - n_sequences };
    const struct mo_value *first = mo_in(u->g, n, t.n_held);
    int axis;
    if (u->g->opset < 9)
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "Scan as it was in opset 8 has no gradient");
    if (!t.body || t.body->n_inputs != n->n_in || t.body->n_outputs < t.n_held)
        return mo_fail(u->ctx, MOPT_DATA, "its body does not fit its %u inputs", n->n_in);
    if (!first || first->shape.rank == MO_UNKNOWN)
        return data_ends_it(u);
    MO_TRY(mo_axis(u->ctx, entry(n, "scan_input_axes", 0), first->shape.rank, &axis));
    int64_t most = first->shape.dim[axis];
    if (most < 1 || most > MAX_TURNS)
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "a sequence of %lld, 1 to %d can be trained through", (long long)most,
                       MAX_TURNS);
    t.n_collected = t.body->n_outputs - t.n_held;
    MO_TRY(open_turns(u, &t, most));
    mo_value_id *slices = mo_arena_new(u->g->arena, (size_t)n_sequences * (size_t)most + 1, sizeof *slices);
    if (!slices)
        return no_room(u);
    for (uint32_t i = 0; i < n_sequences; i++)
        MO_TRY(cut_sequence(u, n, &t, i, prefix, slices + i * most));
    for (uint32_t k = 0; k < t.n_held; k++)
        t.in[k] = n->in[k];
    while (t.n < most) {
        for (uint32_t i = 0; i < n_sequences; i++)
            t.in[t.n_held + i] = slices[i * most + t.n];
        MO_TRY(write_turn(u, &t, prefix, 0));
        for (uint32_t k = 0; k < t.n_held; k++)
            t.in[k] = t.out[k];
    }
    for (uint32_t k = 0; k < t.n_held && k < n->n_out; k++)
        MO_TRY(identity(u, t.in[k], n->out[k]));
    for (uint32_t k = 0; k < t.n_collected && t.n_held + k < n->n_out; k++)
        MO_TRY(stack(u, prefix, t.collected[k], most, entry(n, "scan_output_axes", k),
                     entry(n, "scan_output_directions", k) != 0, n->out[t.n_held + k]));
    return MOPT_OK;
}

/* OptionalGetElement of what is no optional is that itself. */
static enum mopt_status pass_element(const struct unroller *u, const struct mo_node *n)
{
    enum mo_dtype dtype = u->g->values[n->in[0]].dtype;
    if (dtype == MO_OPTIONAL || dtype == MO_SEQUENCE)
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "sequences and optionals have no gradient");
    return identity(u, n->in[0], n->out[0]);
}

/* ---- all of them ---- */

static enum mopt_status unroll_node(struct unroller *u, mo_node_id i)
{
    const struct mo_node n = u->g->nodes[i];        /* nodes move when some are added */
    const char *prefix = n.name[0] ? n.name : n.type;
    u->g->nodes[i].is_dead = true;
    enum mopt_status status = mo_node_is(&n, "If")     ? unroll_if(u, &n, prefix)
                              : mo_node_is(&n, "Loop") ? unroll_loop(u, &n, prefix)
                              : mo_node_is(&n, "Scan") ? unroll_scan(u, &n, prefix)
                                                       : pass_element(u, &n);
    char label[192];
    if (status)
        mo_blame(u->ctx, "%s", mo_node_label(u->g, &n, label, sizeof label));
    return status;
}

static enum mopt_status unroll_round(struct unroller *u, bool *any)
{
    *any = false;
    for (mo_node_id i = 0, end = u->g->n_nodes; i < end; i++) {
        const struct mo_node *n = &u->g->nodes[i];
        if (n->is_dead || !n->op || !(n->op->flags & MO_OP_UNROLLS))
            continue;
        *any = true;
        MO_TRY(unroll_node(u, i));
    }
    return MOPT_OK;
}

enum mopt_status mo_unroll(struct mopt_ctx *ctx, struct mo_graph *g)
{
    for (int round = 0; round < MAX_ROUNDS; round++) {
        struct unroller u = { .ctx = ctx, .g = g };
        enum mopt_status status = MOPT_OK;
        bool any = false;
        for (mo_value_id v = 0; !status && v < g->n_values; v++)
            if (!mo_names_add(&u.names, g, v))
                status = no_room(&u);
        if (!status)
            status = unroll_round(&u, &any);
        mo_names_release(&u.names);
        if (status || !any)
            return status;
        mo_graph_sweep(g);
        MO_TRY(mo_graph_sort(ctx, g));
        MO_TRY(mo_infer(ctx, g, NULL, 0));
    }
    return mo_fail(ctx, MOPT_UNSUPPORTED, "graphs in graphs, more than %d deep", MAX_ROUNDS);
}
