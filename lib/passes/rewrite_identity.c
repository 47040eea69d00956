/* rewrite_identity.c - nodes that give out what they read. */
#include <string.h>

#include "lib/graph/op.h"
#include "lib/passes/rewrite.h"

static bool is_one_of(const struct mo_node *n, const char *const *types, size_t n_types)
{
    for (size_t i = 0; i < n_types; i++)
        if (mo_node_is(n, types[i]))
            return true;
    return false;
}

/* Both have the same dimensions in every run: all known and equal, or one unknown in the same place where the
 * counts of elements are known to agree. */
static bool same_shape(const struct mo_value *x, const struct mo_value *y, bool same_count)
{
    int n_unknown = 0;
    if (x->shape.rank < 0 || x->shape.rank != y->shape.rank)
        return false;
    for (int i = 0; i < x->shape.rank; i++) {
        if (x->shape.dim[i] != y->shape.dim[i] || x->shape.dim[i] == 0)
            return false;
        n_unknown += x->shape.dim[i] < 0;
    }
    return n_unknown == 0 || (n_unknown == 1 && same_count);
}

/* Whether x keeps its shape when c is broadcast onto it. */
static bool fits_into(const struct mo_shape *c, const struct mo_shape *x)
{
    for (int k = 1; k <= c->rank; k++) {
        int64_t dim = c->dim[c->rank - k];
        if (dim != 1 && (k > x->rank || dim != x->dim[x->rank - k]))
            return false;
    }
    return c->rank <= x->rank;
}

/* A constant whose elements are all `neutral`, and that does not widen x. */
static bool is_neutral(const struct mo_value *c, const struct mo_value *x, double neutral)
{
    double value;
    if (!c->data || c->dtype != x->dtype || !fits_into(&c->shape, &x->shape))
        return false;
    if (mo_value_scalar(c, &value))
        return value == neutral;
    float *all = mo_dtype_is_float(c->dtype) ? mo_value_floats(c) : NULL;
    bool is_all = all;
    for (int64_t k = 0, n = mo_value_elems(c); is_all && k < n; k++)
        is_all = all[k] == (float)neutral;
    mo_mem_free(all);
    return is_all;
}

/* x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1, x ^ 1; the input that is x, or -1. */
static int arithmetic_input(const struct mo_graph *g, const struct mo_node *n)
{
    static const struct { const char *type; double neutral; bool either; } rows[] = {
        { "Add", 0, true }, { "Sub", 0, false }, { "Mul", 1, true }, { "Div", 1, false }, { "Pow", 1, false },
    };
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    for (size_t i = 0; i < MO_COUNT(rows) && g->opset >= 7; i++) {
        if (!mo_node_is(n, rows[i].type) || n->n_in != 2 || !a || !b || a->shape.rank < 0 || b->shape.rank < 0)
            continue;
        if (is_neutral(b, a, rows[i].neutral))
            return 0;
        return rows[i].either && is_neutral(a, b, rows[i].neutral) ? 1 : -1;
    }
    return -1;
}

static bool has_unit_steps(const struct mo_graph *g, const struct mo_node *n)
{
    int64_t steps[MO_MAX_RANK];
    const struct mo_value *v = mo_in(g, n, 4);
    int count = v ? mo_value_ints(v, steps, MO_MAX_RANK) : 0;
    for (int i = 0; i < count; i++)
        if (steps[i] != 1)
            return false;
    return count >= 0;
}

static bool has_zero_pads(const struct mo_graph *g, const struct mo_node *n)
{
    int64_t pads[2 * MO_MAX_RANK];
    size_t n_attr;
    const int64_t *attr = mo_node_ints(n, "pads", &n_attr);
    int count = attr ? (int)MO_MIN(n_attr, MO_COUNT(pads)) : mo_in(g, n, 1) ? mo_value_ints(mo_in(g, n, 1), pads,
                                                                                            2 * MO_MAX_RANK) : -1;
    if (attr)
        memcpy(pads, attr, (size_t)count * sizeof *pads);
    for (int i = 0; i < count; i++)
        if (pads[i])
            return false;
    return count > 0;
}

/* Windows of one element, one step apart. */
static bool is_unit_pool(const struct mo_node *n)
{
    static const char *const keys[] = { "kernel_shape", "strides", "pads", "dilations" };
    size_t n_kernel;
    if (!mo_node_ints(n, "kernel_shape", &n_kernel))
        return false;
    for (size_t k = 0; k < MO_COUNT(keys); k++) {
        size_t count;
        const int64_t *x = mo_node_ints(n, keys[k], &count);
        for (size_t i = 0; i < count; i++)
            if (x[i] != (k == 2 ? 0 : 1))
                return false;
    }
    return true;
}

static bool is_straight(const struct mo_node *n)
{
    size_t count;
    const int64_t *perm = mo_node_ints(n, "perm", &count);
    for (size_t i = 0; i < count; i++)
        if (perm[i] != (int64_t)i)
            return false;
    return perm;
}

/* Outside of training. */
static bool is_inert_dropout(const struct mo_graph *g, const struct mo_node *n)
{
    double training = 0;
    const struct mo_value *mode = mo_in(g, n, 2);
    return g->opset >= 7 && (!mode || (mo_value_scalar(mode, &training) && training == 0));
}

static bool is_twice(const struct mo_graph *g, const struct mo_node *n, const struct mo_value *x)
{
    static const char *const types[] = { "Relu", "Abs", "Ceil", "Floor", "Round", "Sign" };
    return is_one_of(n, types, MO_COUNT(types)) && x->producer != MO_NONE && mo_node_is(&g->nodes[x->producer],
                                                                                        n->type);
}

/* Whether output 0 is input 0. */
static bool gives_first_input(const struct mo_graph *g, const struct mo_node *n)
{
    static const char *const movers[] = { "Reshape", "Flatten", "Squeeze", "Unsqueeze" };
    static const char *const singles[] = { "Concat", "Sum", "Max", "Min", "Mean" };
    static const char *const cutters[] = { "Expand", "Tile" };
    const struct mo_value *x = mo_in(g, n, 0), *y = mo_out(g, n, 0);
    if (!x || !y)
        return false;
    if (mo_node_is(n, "Identity"))
        return true;
    if (mo_node_is(n, "Dropout"))
        return is_inert_dropout(g, n);
    if (mo_node_is(n, "Cast"))
        return x->dtype != MO_UNDEFINED && mo_node_int(n, "to", 0) == x->dtype;
    if (is_one_of(n, singles, MO_COUNT(singles)))
        return n->n_in == 1;
    if (is_one_of(n, movers, MO_COUNT(movers)))
        return same_shape(x, y, true);
    if (is_one_of(n, cutters, MO_COUNT(cutters)))
        return same_shape(x, y, false);
    if (mo_node_is(n, "Slice"))
        return same_shape(x, y, false) && has_unit_steps(g, n);
    if (mo_node_is(n, "Pad"))
        return has_zero_pads(g, n);
    if (mo_node_is(n, "MaxPool") || mo_node_is(n, "AveragePool"))
        return is_unit_pool(n);
    if (mo_node_is(n, "Transpose"))
        return is_straight(n) || (mo_moves_only_units(g, n) && same_shape(x, y, true));
    if (mo_node_is(n, "Split"))
        return n->n_out == 1;
    return is_twice(g, n, x);
}

enum mopt_status mo_rewrite_identity(struct mo_rewrite *r, mo_node_id i)
{
    const struct mo_node *n = &r->g->nodes[i];
    int k = gives_first_input(r->g, n) ? 0 : n->n_out == 1 ? arithmetic_input(r->g, n) : -1;
    if (k >= 0)
        (void)mo_rewrite_bypass(r, i, (uint32_t)k);
    return MOPT_OK;
}
