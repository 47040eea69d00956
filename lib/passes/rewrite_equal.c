/* rewrite_equal.c - what is there twice: constants with the same elements, and nodes of the same type with the
 * same inputs and attributes, where constants are the same that have the same elements. Both are found by a hash and
 * then compared.
 *
 * Weights whose elements are all alike (fresh biases, scales of 1) are not merged: that they are equal says nothing
 * yet, and tied weights would be trained as one. */
#include <string.h>

#include "lib/graph/op.h"
#include "lib/passes/rewrite.h"
#include "lib/run/run.h"

/* A set of ids by hash: open addressing, id + 1, 0 is free. */
struct table { uint32_t *slots; uint64_t *hashes; uint32_t n; };

static bool table_new(struct table *t, uint32_t n_items)
{
    t->n = 64;
    while (t->n < n_items * 2 && t->n < 1u << 30)
        t->n *= 2;
    t->slots = mo_mem_new(t->n, sizeof *t->slots);
    t->hashes = mo_mem_new(t->n, sizeof *t->hashes);
    return t->slots && t->hashes;
}

static void table_release(struct table *t)
{
    mo_mem_free(t->slots);
    mo_mem_free(t->hashes);
}

/* first[v]: the first constant with the elements of v, else v. */
typedef bool same_fn(const struct mo_graph *g, const mo_value_id *first, uint32_t a, uint32_t b);

/* The first item equal to id, or id itself, which is then put in. */
static uint32_t table_find(struct table *t, const struct mo_graph *g, const mo_value_id *first, uint32_t id, uint64_t hash,
                           same_fn *same)
{
    uint32_t mask = t->n - 1, at = (uint32_t)hash & mask;
    for (; t->slots[at]; at = (at + 1) & mask)
        if (t->hashes[at] == hash && same(g, first, t->slots[at] - 1, id))
            return t->slots[at] - 1;
    t->slots[at] = id + 1;
    t->hashes[at] = hash;
    return id;
}

/* ---- constants --------------------------------------------------------------------------- */

static bool same_constant(const struct mo_graph *g, const mo_value_id *first, uint32_t a, uint32_t b)
{
    (void)first;
    const struct mo_value *x = &g->values[a], *y = &g->values[b];
    return x->dtype == y->dtype && mo_shape_equal(&x->shape, &y->shape) &&
           (x->data == y->data || !memcmp(x->data, y->data, mo_value_bytes(x)));
}

static bool is_uniform(const struct mo_value *v)
{
    size_t width = (size_t)MO_MAX(mo_dtype_bits(v->dtype) / 8, 1), bytes = mo_value_bytes(v);
    return bytes > width && !memcmp(v->data, (const char *)v->data + width, bytes - width);
}

static bool is_plain_constant(const struct mo_value *v)
{
    return v->data && v->n_uses && !v->is_input && !v->is_output && v->dtype != MO_STRING;
}

static bool may_merge(const struct mo_value *v, bool is_param)
{
    return is_plain_constant(v) && !(is_param && (is_uniform(v) || mo_value_elems(v) <= 1));
}

static uint32_t find_constant(struct table *t, const struct mo_graph *g, mo_value_id v)
{
    const struct mo_value *value = &g->values[v];
    uint64_t hash = mo_hash64(value->data, mo_value_bytes(value), (uint64_t)value->dtype);
    return table_find(t, g, NULL, v, hash, same_constant);
}

enum mopt_status mo_rewrite_equal_constants(struct mo_rewrite *r)
{
    struct mo_graph *g = r->g;
    struct table t = { 0 };
    mo_value_id *params = mo_mem_new((size_t)g->n_values + 1, sizeof *params);
    bool *is_param = mo_mem_new((size_t)g->n_values + 1, sizeof *is_param);
    bool ok = table_new(&t, g->n_values) && params && is_param;
    uint32_t n_params = ok ? mo_graph_params(g, params, g->n_values) : 0;
    for (uint32_t i = 0; i < n_params; i++)
        is_param[params[i]] = true;
    for (mo_value_id v = 0; ok && v < g->n_values; v++) {
        const struct mo_value *value = &g->values[v];
        if (!may_merge(value, is_param[v]))
            continue;
        mo_value_id first = find_constant(&t, g, v);
        if (first == v)
            continue;
        mo_graph_move_uses(g, v, first, 0);
        r->n_changes++;
    }
    table_release(&t);
    mo_mem_free(params);
    mo_mem_free(is_param);
    return ok ? MOPT_OK : mo_no_memory(r->ctx, g->n_values * 16ull, "comparing constants");
}

/* ---- nodes --------------------------------------------------------------------------------- */

static bool same_tensor(const struct mo_tensor_const *a, const struct mo_tensor_const *b)
{
    return a->dtype == b->dtype && a->dtype != MO_STRING && mo_shape_equal(&a->shape, &b->shape) &&
           !memcmp(a->data, b->data, mo_dtype_bytes(a->dtype, mo_shape_elems(&a->shape)));
}

static bool same_attr(const struct mo_attr *a, const struct mo_attr *b)
{
    if (a->kind != b->kind || a->n != b->n || a->kept.n_bytes || b->kept.n_bytes)
        return false;
    switch (a->kind) {
    case MO_ATTR_FLOAT:
        return !memcmp(&a->f, &b->f, sizeof a->f);
    case MO_ATTR_INT:
        return a->i == b->i;
    case MO_ATTR_STRING:
        return a->s_bytes == b->s_bytes && !memcmp(a->s, b->s, a->s_bytes);
    case MO_ATTR_FLOATS:
        return !a->n || !memcmp(a->floats, b->floats, a->n * sizeof *a->floats);
    case MO_ATTR_INTS:
        return !a->n || !memcmp(a->ints, b->ints, a->n * sizeof *a->ints);
    case MO_ATTR_TENSOR:
        return same_tensor(a->tensors, b->tensors);
    default:
        return false;
    }
}

static mo_value_id first_of(const mo_value_id *first, mo_value_id v)
{
    return v == MO_NONE ? v : first[v];
}

static bool same_node(const struct mo_graph *g, const mo_value_id *first, uint32_t ia, uint32_t ib)
{
    const struct mo_node *a = &g->nodes[ia], *b = &g->nodes[ib];
    if (strcmp(a->type, b->type) || strcmp(a->domain, b->domain) || a->n_in != b->n_in || a->n_out != b->n_out ||
        a->n_attrs != b->n_attrs)
        return false;
    for (uint32_t k = 0; k < a->n_in; k++)
        if (first_of(first, a->in[k]) != first_of(first, b->in[k]))
            return false;
    for (uint32_t k = 0; k < a->n_out; k++)
        if (a->out[k] == MO_NONE && b->out[k] != MO_NONE)
            return false;
    for (uint32_t k = 0; k < a->n_attrs; k++) {
        const struct mo_attr *other = mo_node_attr(b, a->attrs[k].name);
        if (!other || !same_attr(&a->attrs[k], other))
            return false;
    }
    return true;
}

/* Known, a function of its inputs alone, and nothing of it is the graph's interface. */
static bool may_replace(const struct mo_graph *g, const struct mo_node *n)
{
    if (n->is_dead || !n->op || n->op->flags & (MO_OP_RANDOM | MO_OP_TRAIN_MODE) || n->n_captures || !n->n_in)
        return false;
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && g->values[n->out[k]].is_output)
            return false;
    return true;
}

static uint64_t hash_node(const struct mo_node *n, const mo_value_id *first)
{
    uint64_t hash = mo_hash64(n->type, strlen(n->type), n->n_out);
    for (uint32_t k = 0; k < n->n_in; k++) {
        mo_value_id v = first_of(first, n->in[k]);
        hash = mo_hash64(&v, sizeof v, hash);
    }
    return hash;
}

/* first[v] for every value; NULL: no memory. */
static mo_value_id *first_constants(const struct mo_graph *g)
{
    struct table t = { 0 };
    mo_value_id *first = mo_mem_new((size_t)g->n_values + 1, sizeof *first);
    bool ok = table_new(&t, g->n_values) && first;
    for (mo_value_id v = 0; ok && v < g->n_values; v++)
        first[v] = is_plain_constant(&g->values[v]) ? find_constant(&t, g, v) : v;
    table_release(&t);
    if (!ok)
        mo_mem_free(first);
    return ok ? first : NULL;
}

enum mopt_status mo_rewrite_equal_nodes(struct mo_rewrite *r)
{
    struct mo_graph *g = r->g;
    struct table t = { 0 };
    mo_value_id *firsts = first_constants(g);
    bool ok = table_new(&t, g->n_nodes) && firsts;
    for (mo_node_id i = 0; ok && i < g->n_nodes; i++) {
        struct mo_node *n = &g->nodes[i];
        bool is_fixed = n->is_dead || !n->op || n->op->flags & (MO_OP_RANDOM | MO_OP_TRAIN_MODE) || n->n_captures || !n->n_in;
        if (is_fixed)
            continue;
        mo_node_id first = table_find(&t, g, firsts, i, hash_node(n, firsts), same_node);
        if (first == i || !may_replace(g, n))
            continue;
        mo_graph_kill(g, i);
        for (uint32_t k = 0; k < n->n_out; k++)
            if (n->out[k] != MO_NONE)
                mo_graph_move_uses(g, n->out[k], g->nodes[first].out[k], i);
        r->n_changes++;
    }
    table_release(&t);
    mo_mem_free(firsts);
    return ok ? MOPT_OK : mo_no_memory(r->ctx, g->n_nodes * 12ull, "comparing nodes");
}
