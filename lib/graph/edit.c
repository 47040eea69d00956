/* Changing a graph: adding values and nodes, attributes, data, replacing uses,
 * and clearing away what nobody needs. Arrays grow in the model's arena. */
#include "lib/graph/graph.h"
#include "lib/graph/private.h"

#include <stdio.h>
#include <string.h>

/* ---- growing arrays ------------------------------------------------------------ */

void *mo_graph_grow(struct mo_arena *arena, void *items, uint32_t n, uint32_t *cap, size_t item_bytes)
{
    if (n < *cap)
        return items;
    uint32_t new_cap = *cap < 8 ? 16 : *cap * 2;
    if (new_cap <= n)
        return NULL;
    void *grown = mo_arena_new(arena, new_cap, item_bytes);
    if (!grown)
        return NULL;
    if (n)
        memcpy(grown, items, n * item_bytes);
    *cap = new_cap;
    return grown;
}

static bool append_id(struct mo_arena *arena, mo_value_id **ids, uint32_t *n, mo_value_id id)
{
    mo_value_id *grown = mo_arena_new(arena, (size_t)*n + 1, sizeof *grown);
    if (!grown)
        return false;
    if (*n)
        memcpy(grown, *ids, *n * sizeof *grown);
    grown[*n] = id;
    *ids = grown;
    (*n)++;
    return true;
}

static void remove_id(mo_value_id *ids, uint32_t *n, mo_value_id id)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *n; i++)
        if (ids[i] != id)
            ids[kept++] = ids[i];
    *n = kept;
}

/* ---- values ---------------------------------------------------------------------- */

mo_value_id mo_graph_new_value(struct mo_graph *g, const char *name)
{
    struct mo_value *grown = mo_graph_grow(g->arena, g->values, g->n_values, &g->cap_values, sizeof *grown);
    if (!grown)
        return MO_NONE;
    g->values = grown;
    grown[g->n_values] = (struct mo_value){ .name = name, .shape.rank = MO_UNKNOWN, .producer = MO_NONE };
    return g->n_values++;
}

/* Names must differ from those of subgraphs too: an inner value may not hide an outer one. */
static bool is_taken_below(const struct mo_graph *g, const char *name)
{
    if (mo_graph_find(g, name) != MO_NONE)
        return true;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++) {
            const struct mo_attr *attr = &g->nodes[i].attrs[a];
            for (size_t k = 0; attr->graphs && k < attr->n; k++)
                if (is_taken_below(attr->graphs[k], name))
                    return true;
        }
    return false;
}

static bool is_taken(const struct mo_graph *g, const char *name)
{
    for (const struct mo_graph *up = g->parent; up; up = up->parent)
        if (mo_graph_find(up, name) != MO_NONE)
            return true;
    return is_taken_below(g, name);
}

static const char *free_name(struct mo_graph *g, const char *name)
{
    if (!name || !name[0])
        name = "value";
    if (!is_taken(g, name))
        return mo_arena_text(g->arena, name);
    char buf[1024];
    for (uint32_t k = 1; k < UINT32_MAX; k++) {
        snprintf(buf, sizeof buf, "%.1000s_%u", name, k);
        if (!is_taken(g, buf))
            return mo_arena_text(g->arena, buf);
    }
    return NULL;
}

mo_value_id mo_graph_add_value(struct mo_graph *g, const char *name, enum mo_dtype dtype, const struct mo_shape *shape)
{
    const char *unique = free_name(g, name);
    mo_value_id id = unique ? mo_graph_new_value(g, unique) : MO_NONE;
    if (id == MO_NONE)
        return MO_NONE;
    g->values[id].dtype = dtype;
    if (shape)
        g->values[id].shape = *shape;
    return id;
}

bool mo_graph_make_initializer(struct mo_graph *g, mo_value_id id)
{
    mo_value_id *grown = mo_graph_grow(g->arena, g->initializers, g->n_initializers, &g->cap_initializers,
                                       sizeof *grown);
    if (!grown)
        return false;
    g->initializers = grown;
    grown[g->n_initializers++] = id;
    g->values[id].is_initializer = true;
    return true;
}

mo_value_id mo_graph_add_const(struct mo_graph *g, const char *name, enum mo_dtype dtype,
                               const struct mo_shape *shape, const void *data)
{
    size_t bytes = mo_dtype_bytes(dtype, mo_shape_elems(shape));
    if (bytes == SIZE_MAX || mo_dtype_bits(dtype) == 0)
        return MO_NONE;
    void *copy = mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
    if (!copy)
        return MO_NONE;
    if (data && bytes)
        memcpy(copy, data, bytes);
    mo_value_id id = mo_graph_add_value(g, name, dtype, shape);
    if (id == MO_NONE || !mo_graph_make_initializer(g, id)) {
        mo_mem_free(copy);
        return MO_NONE;
    }
    g->values[id].data = copy;
    g->values[id].owner = MO_DATA_HEAP;
    return id;
}

static void drop_data(struct mo_value *v)
{
    if (v->data && v->owner == MO_DATA_HEAP)
        mo_mem_free(v->data);
    v->data = NULL;
    v->strings = NULL;
    v->owner = MO_DATA_BORROWED;
}

void mo_value_set_data(struct mo_graph *g, mo_value_id id, enum mo_dtype dtype, const struct mo_shape *shape,
                       void *heap_data)
{
    struct mo_value *v = &g->values[id];
    if (v->data != heap_data)
        drop_data(v);
    if (v->dim_names && !mo_shape_equal(&v->shape, shape))
        v->dim_names = NULL;
    v->dtype = dtype;
    v->shape = *shape;
    v->known = NULL;
    v->data = heap_data;
    v->owner = MO_DATA_HEAP;
}

bool mo_graph_add_input(struct mo_graph *g, mo_value_id v)
{
    if (!append_id(g->arena, &g->inputs, &g->n_inputs, v))
        return false;
    g->values[v].is_input = g->values[v].has_info = true;
    return true;
}

bool mo_graph_add_output(struct mo_graph *g, mo_value_id v)
{
    if (!append_id(g->arena, &g->outputs, &g->n_outputs, v))
        return false;
    g->values[v].is_output = g->values[v].has_info = true;
    g->values[v].n_uses++;
    return true;
}

/* ---- nodes and attributes ------------------------------------------------------------ */

mo_node_id mo_graph_add_node(struct mo_graph *g, const char *type, const char *domain, const char *name,
                             const mo_value_id *in, uint32_t n_in, const mo_value_id *out, uint32_t n_out)
{
    struct mo_node *grown = mo_graph_grow(g->arena, g->nodes, g->n_nodes, &g->cap_nodes, sizeof *grown);
    if (!grown)
        return MO_NONE;
    g->nodes = grown;
    struct mo_node n = {
        .name = mo_arena_text(g->arena, name ? name : ""), .type = mo_arena_text(g->arena, type),
        .domain = mo_arena_text(g->arena, domain ? domain : ""), .n_in = n_in, .n_out = n_out,
        .in = mo_arena_new(g->arena, MO_MAX(n_in, 1u), sizeof *n.in),
        .out = mo_arena_new(g->arena, MO_MAX(n_out, 1u), sizeof *n.out),
    };
    if (!n.name || !n.type || !n.domain || !n.in || !n.out)
        return MO_NONE;
    if (n_in)
        memcpy(n.in, in, n_in * sizeof *in);
    if (n_out)
        memcpy(n.out, out, n_out * sizeof *out);
    n.op = mo_graph_find_op(g, &n);
    mo_node_id id = g->n_nodes++;
    g->nodes[id] = n;
    for (uint32_t i = 0; i < n_in; i++)
        if (in[i] != MO_NONE)
            g->values[in[i]].n_uses++;
    for (uint32_t i = 0; i < n_out; i++)
        if (out[i] != MO_NONE)
            g->values[out[i]].producer = id;
    return id;
}

/* The attribute of that name, emptied, or a new one; NULL: no memory. */
static struct mo_attr *fresh_attr(struct mo_graph *g, struct mo_node *n, const char *name, enum mo_attr_kind kind)
{
    struct mo_attr *a = (struct mo_attr *)mo_node_attr(n, name);
    if (a) {
        *a = (struct mo_attr){ .name = a->name, .kind = kind };
        return a;
    }
    struct mo_attr *grown = mo_arena_new(g->arena, (size_t)n->n_attrs + 1, sizeof *grown);
    const char *copy = mo_arena_text(g->arena, name);
    if (!grown || !copy)
        return NULL;
    if (n->n_attrs)
        memcpy(grown, n->attrs, n->n_attrs * sizeof *grown);
    n->attrs = grown;
    a = &grown[n->n_attrs++];
    a->name = copy;
    a->kind = kind;
    return a;
}

bool mo_node_set_int(struct mo_graph *g, mo_node_id n, const char *name, int64_t value)
{
    struct mo_attr *a = fresh_attr(g, &g->nodes[n], name, MO_ATTR_INT);
    if (a)
        a->i = value;
    return a;
}

bool mo_node_set_float(struct mo_graph *g, mo_node_id n, const char *name, float value)
{
    struct mo_attr *a = fresh_attr(g, &g->nodes[n], name, MO_ATTR_FLOAT);
    if (a)
        a->f = value;
    return a;
}

bool mo_node_set_text(struct mo_graph *g, mo_node_id n, const char *name, const char *value)
{
    const char *copy = mo_arena_text(g->arena, value);
    struct mo_attr *a = copy ? fresh_attr(g, &g->nodes[n], name, MO_ATTR_STRING) : NULL;
    if (!a)
        return false;
    a->s = copy;
    a->s_bytes = strlen(copy);
    return true;
}

static struct mo_attr *set_list(struct mo_graph *g, mo_node_id n, const char *name, enum mo_attr_kind kind,
                                const void *values, size_t count, size_t each, void **copy)
{
    *copy = mo_arena_new(g->arena, MO_MAX(count, (size_t)1), each);
    if (*copy && count)
        memcpy(*copy, values, count * each);
    struct mo_attr *a = *copy ? fresh_attr(g, &g->nodes[n], name, kind) : NULL;
    if (a)
        a->n = count;
    return a;
}

bool mo_node_set_floats(struct mo_graph *g, mo_node_id n, const char *name, const float *values, size_t count)
{
    void *copy;
    struct mo_attr *a = set_list(g, n, name, MO_ATTR_FLOATS, values, count, sizeof *values, &copy);
    if (a)
        a->floats = copy;
    return a;
}

bool mo_node_set_ints(struct mo_graph *g, mo_node_id n, const char *name, const int64_t *values, size_t count)
{
    void *copy;
    struct mo_attr *a = set_list(g, n, name, MO_ATTR_INTS, values, count, sizeof *values, &copy);
    if (a)
        a->ints = copy;
    return a;
}

void mo_node_drop_attr(struct mo_graph *g, mo_node_id id, const char *name)
{
    struct mo_node *n = &g->nodes[id];
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (!strcmp(n->attrs[i].name, name)) {
            memmove(&n->attrs[i], &n->attrs[i + 1], (n->n_attrs - i - 1) * sizeof *n->attrs);
            n->n_attrs--;
            return;
        }
}

/* ---- replacing --------------------------------------------------------------------------- */

static void replace_ids(mo_value_id *ids, uint32_t n, mo_value_id from, mo_value_id to)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == from)
            ids[i] = to;
}

void mo_graph_rename_capture(struct mo_graph *sub, const char *from, const char *to)
{
    mo_value_id old = mo_graph_find(sub, from), new = mo_graph_find(sub, to);
    if (old == MO_NONE || !sub->values[old].is_captured)
        return;
    if (new != MO_NONE) {
        mo_graph_replace_uses(sub, old, new);
        replace_ids(sub->outputs, sub->n_outputs, old, new);
        return;
    }
    sub->values[old].name = to;
    for (mo_node_id i = 0; i < sub->n_nodes; i++)
        for (uint32_t a = 0; a < sub->nodes[i].n_attrs; a++) {
            const struct mo_attr *attr = &sub->nodes[i].attrs[a];
            for (size_t k = 0; attr->graphs && k < attr->n; k++)
                mo_graph_rename_capture(attr->graphs[k], from, to);
        }
}

static uint32_t count_ids(const mo_value_id *ids, uint32_t n, mo_value_id id)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        count += ids[i] == id;
    return count;
}

/* One node reads `to` instead of `from`, itself and its subgraphs. How many uses of `from` that ends. */
static uint32_t move_in_node(struct mo_graph *g, struct mo_node *n, mo_value_id from, mo_value_id to)
{
    uint32_t n_in = count_ids(n->in, n->n_in, from), n_captured = count_ids(n->captures, n->n_captures, from);
    if (n_in)
        replace_ids(n->in, n->n_in, from, to);
    g->values[to].n_uses += n_in;
    g->values[from].n_uses -= n_in + n_captured;
    if (!n_captured)
        return n_in;
    if (count_ids(n->captures, n->n_captures, to)) {
        remove_id(n->captures, &n->n_captures, from);
    } else {
        replace_ids(n->captures, n->n_captures, from, to);
        g->values[to].n_uses += n_captured;
    }
    for (uint32_t a = 0; a < n->n_attrs; a++)
        for (size_t k = 0; n->attrs[a].graphs && k < n->attrs[a].n; k++)
            mo_graph_rename_capture(n->attrs[a].graphs[k], g->values[from].name, g->values[to].name);
    return n_in + n_captured;
}

void mo_graph_replace_uses(struct mo_graph *g, mo_value_id from, mo_value_id to)
{
    if (from == to)
        return;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        (void)move_in_node(g, &g->nodes[i], from, to);
    mo_graph_recount(g);
}

void mo_graph_move_uses(struct mo_graph *g, mo_value_id from, mo_value_id to, mo_node_id behind)
{
    uint32_t n_left = g->values[from].n_uses - count_ids(g->outputs, g->n_outputs, from);
    mo_node_id first = behind < g->n_nodes ? behind : 0;
    for (mo_node_id i = first; n_left && from != to && i < g->n_nodes; i++)
        if (!g->nodes[i].is_dead)
            n_left -= move_in_node(g, &g->nodes[i], from, to);
    for (mo_node_id i = 0; n_left && from != to && i < first; i++)
        if (!g->nodes[i].is_dead)
            n_left -= move_in_node(g, &g->nodes[i], from, to);
}

void mo_graph_kill(struct mo_graph *g, mo_node_id i)
{
    struct mo_node *n = &g->nodes[i];
    if (n->is_dead)
        return;
    n->is_dead = true;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE)
            g->values[n->in[k]].n_uses--;
    for (uint32_t k = 0; k < n->n_captures; k++)
        g->values[n->captures[k]].n_uses--;
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && g->values[n->out[k]].producer == i)
            g->values[n->out[k]].producer = MO_NONE;
}

/* ---- clearing away -------------------------------------------------------------------------- */

/* Values that have no entry of their own any more. */
static void drop_infos(struct mo_graph *g)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_infos; i++)
        if (g->values[g->infos[i]].has_info)
            g->infos[kept++] = g->infos[i];
    g->n_infos = kept;
}

void mo_graph_sweep(struct mo_graph *g)
{
    mo_node_id kept = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].is_dead)
            g->nodes[kept++] = g->nodes[i];
    bool any_dead = kept < g->n_nodes;
    g->n_nodes = kept;
    bool *had_producer = any_dead ? mo_mem_new(MO_MAX(g->n_values, 1u), sizeof *had_producer) : NULL;
    for (mo_value_id v = 0; had_producer && v < g->n_values; v++)
        had_producer[v] = g->values[v].producer != MO_NONE;
    mo_graph_recount(g);
    for (mo_value_id v = 0; had_producer && v < g->n_values; v++) {
        struct mo_value *value = &g->values[v];
        /* what a swept node made is gone, and so is its entry in value_info */
        if (!had_producer[v] || value->producer != MO_NONE || value->is_initializer || value->is_input)
            continue;
        if (!value->is_output)
            value->has_info = false;
    }
    if (had_producer)
        drop_infos(g);
    mo_mem_free(had_producer);
}

static bool is_needed(const struct mo_graph *g, const struct mo_node *n)
{
    bool is_constant = mo_node_is(n, "Constant");
    if (!n->op && !is_constant)
        return true;
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] != MO_NONE && g->values[n->out[i]].n_uses)
            return true;
    return false;
}

void mo_graph_drop_unused(struct mo_graph *g)
{
    mo_graph_sweep(g);
    for (mo_node_id i = g->n_nodes; i-- > 0;) {
        struct mo_node *n = &g->nodes[i];
        if (is_needed(g, n))
            continue;
        n->is_dead = true;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MO_NONE)
                g->values[n->in[k]].n_uses--;
        for (uint32_t k = 0; k < n->n_captures; k++)
            g->values[n->captures[k]].n_uses--;
        for (uint32_t k = 0; k < n->n_out; k++)
            if (n->out[k] != MO_NONE)
                drop_data(&g->values[n->out[k]]);
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_initializers; i++) {
        mo_value_id id = g->initializers[i];
        struct mo_value *v = &g->values[id];
        if (v->n_uses || v->is_input || v->is_output) {
            g->initializers[kept++] = id;
            continue;
        }
        drop_data(v);
        v->is_initializer = false;
        v->has_info = false;
    }
    g->n_initializers = kept;
    drop_infos(g);
    mo_graph_sweep(g);
}

void mo_graph_release(struct mo_graph *g)
{
    for (mo_value_id v = 0; v < g->n_values; v++)
        drop_data(&g->values[v]);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++) {
            const struct mo_attr *attr = &g->nodes[i].attrs[a];
            for (size_t k = 0; attr->graphs && k < attr->n; k++)
                mo_graph_release(attr->graphs[k]);
        }
    g->n_values = g->n_nodes = 0;
}
