/* rewrite_movers.c - operators that only give a tensor another shape: Reshape, Flatten, Squeeze, Unsqueeze, and
 * Transposes that move nothing but axes of one element. Two in a row are one; two that undo one another are none. Behind a
 * Reduce, its attribute keepdims does the same. */
#include <string.h>

#include "lib/graph/infer.h"
#include "lib/passes/rewrite.h"

/* The output axes k in which a Transpose puts input axis perm[k]; without the attribute they are reversed. */
static bool transposed_axes(const struct mo_graph *g, const struct mo_node *n, int *perm)
{
    size_t count;
    const int64_t *attr = mo_node_ints(n, "perm", &count);
    const struct mo_value *x = mo_in(g, n, 0);
    if (!mo_node_is(n, "Transpose") || !x || x->shape.rank < 0 || (attr && count != (size_t)x->shape.rank))
        return false;
    for (int k = 0; k < x->shape.rank; k++) {
        perm[k] = attr ? (int)attr[k] : x->shape.rank - 1 - k;
        if (perm[k] < 0 || perm[k] >= x->shape.rank)
            return false;
    }
    return true;
}

bool mo_moves_only_units(const struct mo_graph *g, const struct mo_node *n)
{
    int perm[MO_MAX_RANK], last = -1;
    if (!transposed_axes(g, n, perm))
        return false;
    const struct mo_shape *shape = &mo_in(g, n, 0)->shape;
    for (int k = 0; k < shape->rank; k++) {
        if (shape->dim[perm[k]] == 1)
            continue;
        if (perm[k] < last)
            return false;
        last = perm[k];
    }
    return true;
}

static bool is_mover(const struct mo_graph *g, const struct mo_node *n)
{
    static const char *const types[] = { "Reshape", "Flatten", "Squeeze", "Unsqueeze" };
    if (n->n_out != 1 || !n->n_in || n->in[0] == MO_NONE)
        return false;
    for (size_t k = 0; k < MO_COUNT(types); k++)
        if (mo_node_is(n, types[k]))
            return true;
    return mo_moves_only_units(g, n);
}

/* A shape with at most one unknown dimension as what Reshape takes; false: it cannot be said by numbers alone. */
static bool as_target(const struct mo_shape *shape, int64_t *target)
{
    int n_unknown = 0;
    for (int k = 0; k < shape->rank; k++) {
        target[k] = shape->dim[k];
        n_unknown += shape->dim[k] < 0;
        if (shape->dim[k] == 0)
            return false;
    }
    return shape->rank >= 0 && n_unknown <= 1;
}

static bool same_axes(const struct mo_graph *g, const struct mo_node *a, const struct mo_node *b)
{
    int64_t x[MO_MAX_RANK], y[MO_MAX_RANK];
    size_t n_x = 0, n_y = 0;
    const int64_t *ax = mo_node_ints(a, "axes", &n_x), *ay = mo_node_ints(b, "axes", &n_y);
    if (!ax && mo_in(g, a, 1))
        n_x = (size_t)MO_MAX(mo_value_ints(mo_in(g, a, 1), x, MO_MAX_RANK), 0);
    if (!ay && mo_in(g, b, 1))
        n_y = (size_t)MO_MAX(mo_value_ints(mo_in(g, b, 1), y, MO_MAX_RANK), 0);
    return n_x && n_x == n_y && n_x <= MO_MAX_RANK && !memcmp(ax ? ax : x, ay ? ay : y, n_x * sizeof *x);
}

/* Squeeze behind Unsqueeze of the same axes, or the other way round, whatever the sizes. */
static bool undoes(const struct mo_graph *g, const struct mo_node *first, const struct mo_node *second)
{
    bool is_pair = (mo_node_is(first, "Unsqueeze") && mo_node_is(second, "Squeeze")) ||
                   (mo_node_is(first, "Squeeze") && mo_node_is(second, "Unsqueeze"));
    return is_pair && same_axes(g, first, second);
}

enum mopt_status mo_rewrite_movers(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    int64_t target[MO_MAX_RANK];
    if (g->opset < 5 || !is_mover(g, &g->nodes[i]) || mo_in(g, &g->nodes[i], 0)->data)
        return MOPT_OK;
    mo_node_id before = mo_in(g, &g->nodes[i], 0)->producer;
    if (before == MO_NONE || !is_mover(g, &g->nodes[before]))
        return MOPT_OK;
    mo_value_id x = g->nodes[before].in[0];
    const struct mo_value *y = mo_out(g, &g->nodes[i], 0);
    bool is_undone = undoes(g, &g->nodes[before], &g->nodes[i]);
    if (is_undone && !y->is_output) {
        mo_graph_kill(g, i);
        mo_graph_move_uses(g, g->nodes[i].out[0], x, i);
        r->n_changes++;
        return MOPT_OK;
    }
    bool is_back = mo_shape_equal(&g->values[x].shape, &y->shape) || is_undone;
    if (!as_target(&y->shape, target) || (!is_back && mo_private_maker(g, &g->nodes[i], 0) == MO_NONE))
        return MOPT_OK;
    struct mo_shape vector = { .rank = 1, .dim = { y->shape.rank } };
    const char *name = mo_arena_printf(g->arena, "%s_shape", y->name);
    mo_value_id in[2] = { x, name ? mo_graph_add_const(g, name, MO_I64, &vector, target) : MO_NONE };
    if (in[1] == MO_NONE)
        return mo_no_memory(r->ctx, sizeof target, "a shape");
    r->n_changes++;
    return mo_rewrite_become(r, i, "Reshape", in, 2);
}

/* ---- keepdims ----------------------------------------------------------------------------------- */

/* The axes as a set; 0: not known, or none given. An attribute or input 1. */
static unsigned axes_of(const struct mo_graph *g, const struct mo_node *n, const char *key, int rank)
{
    int64_t found[MO_MAX_RANK];
    size_t count = 0;
    const struct mo_attr *one = mo_node_attr(n, key);
    const int64_t *axes = mo_node_ints(n, key, &count);
    if (one && one->kind == MO_ATTR_INT) {
        found[0] = one->i;
        axes = found;
        count = 1;
    } else if (!axes && mo_in(g, n, 1)) {
        int n_found = mo_value_ints(mo_in(g, n, 1), found, MO_MAX_RANK);
        axes = found;
        count = (size_t)MO_MAX(n_found, 0);
    }
    unsigned set = 0;
    for (size_t k = 0; k < count; k++) {
        int64_t axis = axes[k] < 0 ? axes[k] + rank : axes[k];
        if (axis < 0 || axis >= rank)
            return 0;
        set |= 1u << axis;
    }
    return set;
}

enum mopt_status mo_rewrite_keepdims(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *n = &g->nodes[i];
    bool keeps = mo_node_is(n, "Unsqueeze");
    if ((!keeps && !mo_node_is(n, "Squeeze")) || !n->n_in)
        return MOPT_OK;
    mo_node_id maker = mo_private_maker(g, n, 0);
    if (maker == MO_NONE)
        return MOPT_OK;
    const struct mo_node *reduce = &g->nodes[maker];
    bool is_arg = mo_node_is(reduce, "ArgMax") || mo_node_is(reduce, "ArgMin");
    bool is_reduce = !strncmp(reduce->type, "Reduce", 6) && !reduce->domain[0];
    const struct mo_value *x = mo_in(g, reduce, 0);
    if ((!is_arg && !is_reduce) || !x || x->shape.rank < 0 || (mo_node_int(reduce, "keepdims", 1) != 0) == keeps)
        return MOPT_OK;
    unsigned reduced = axes_of(g, reduce, is_arg ? "axis" : "axes", x->shape.rank);
    if (is_arg && !mo_node_attr(reduce, "axis"))
        reduced = 1;
    if (!reduced || reduced != axes_of(g, n, "axes", x->shape.rank))
        return MOPT_OK;
    if (!mo_node_set_int(g, maker, "keepdims", keeps))
        return mo_no_memory(r->ctx, 8, "an attribute");
    mo_rewrite_merge(r, maker, i);
    return mo_infer_node(r->ctx, g, &g->nodes[maker]);
}
