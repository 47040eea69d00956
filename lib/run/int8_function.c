/* int8_function.c - what is computed from one tensor of bytes element by element and rounded to bytes again is a
 * function of one byte: a table of 256 bytes. It may be of any shape, through other Qs and DQs and with the same bytes
 * more than once: a Gelu written as Div, Erf, Add, Mul, Mul with a Q behind each of them is one table. */
#include <stdio.h>

#include "lib/run/int8_private.h"

#define MAX_NODES 32
#define MAX_IN 8
#define BUDGET 256          /* values looked at before the search is given up */

struct function {
    const struct mo_graph *g;
    mo_value_id x;                      /* the bytes; MO_NONE before they are found */
    mo_node_id node[MAX_NODES];         /* in an order in which they can be computed; the last is the Q */
    mo_value_id table[MAX_NODES];       /* the results for all bytes */
    int n, budget;
};

static bool collect(struct function *f, mo_value_id v);

/* One number, the same for every element. */
static bool is_number(const struct mo_graph *g, mo_value_id v)
{
    const struct mo_node *n = mo_int8_producer(g, v);
    if (n && mo_node_is(n, "DequantizeLinear"))
        v = n->in[0];
    return g->values[v].data && mo_value_elems(&g->values[v]) == 1 && g->values[v].shape.rank <= 1;
}

static bool is_elementwise(const struct mo_graph *g, const struct mo_node *n)
{
    struct mo_bytes b;
    if (n->n_in > MAX_IN || n->n_out != 1)
        return false;
    if (mo_node_is(n, "DequantizeLinear"))
        return mo_int8_is_dequantized(g, n->out[0], &b);
    if (mo_node_is(n, "QuantizeLinear"))
        return mo_int8_is_quantizer(g, n, &b);
    return n->op && n->op->flags & MO_OP_ELEMENTWISE && n->op->forward && g->values[n->out[0]].dtype == MO_F32 &&
           !(n->op->flags & (MO_OP_RANDOM | MO_OP_TRAIN_MODE));
}

static bool collect_node(struct function *f, mo_node_id id)
{
    const struct mo_node *n = &f->g->nodes[id];
    for (int i = 0; i < f->n; i++)
        if (f->node[i] == id)
            return true;
    bool has_bytes = false;
    bool has_scale = mo_node_is(n, "DequantizeLinear") || mo_node_is(n, "QuantizeLinear");
    for (uint32_t k = 0; k < (has_scale ? 1 : n->n_in); k++) {
        if (n->in[k] == MO_NONE || is_number(f->g, n->in[k]))
            continue;
        if (!collect(f, n->in[k]))
            return false;
        has_bytes = true;
    }
    if (!has_bytes || f->n == MAX_NODES)
        return false;
    f->node[f->n++] = id;
    return true;
}

/* What v is computed from joins f; bytes that are computed from nothing of the kind are the source. */
static bool collect(struct function *f, mo_value_id v)
{
    const struct mo_node *n = mo_int8_producer(f->g, v);
    const int n_before = f->n;
    const mo_value_id x_before = f->x;
    if (--f->budget < 0)
        return false;
    if (n && is_elementwise(f->g, n) && collect_node(f, f->g->values[v].producer))
        return true;
    f->n = n_before;
    f->x = x_before;
    if (!mo_int8_is_byte(f->g->values[v].dtype) || f->g->values[v].data || f->g->values[v].shape.rank == 0 ||
        (f->x != MO_NONE && f->x != v))
        return false;
    f->x = v;
    return true;
}

/* ---- the table: the same nodes on all 256 bytes; folding computes it -------------------------------------- */

static mo_value_id add_all_bytes(struct mo_int8 *l, mo_value_id x, mo_value_id y)
{
    uint8_t all[256];
    struct mo_shape shape = mo_shape_of(1, (int64_t)256);
    char name[300];
    for (int i = 0; i < 256; i++)
        all[i] = (uint8_t)i;
    snprintf(name, sizeof name, "%.270s:all", l->g->values[y].name);
    return mo_graph_add_const(l->g, name, l->g->values[x].dtype, &shape, all);
}

static mo_value_id mapped(const struct function *f, mo_value_id v, mo_value_id all)
{
    if (v == f->x)
        return all;
    for (int i = 0; v != MO_NONE && i < f->n; i++)
        if (f->g->nodes[f->node[i]].out[0] == v)
            return f->table[i];
    return v;
}

/* Node `like` computed for all bytes, in[0..] in place of its inputs. */
static mo_value_id step(struct mo_int8 *l, const struct mo_node *like, const mo_value_id *in)
{
    const struct mo_node copy = *like;
    struct mo_shape shape = mo_shape_of(1, (int64_t)256);
    char name[300];
    snprintf(name, sizeof name, "%.270s:table", l->g->values[copy.out[0]].name);
    mo_value_id y = mo_graph_add_value(l->g, name, l->g->values[copy.out[0]].dtype, &shape);
    mo_node_id id = y == MO_NONE ? MO_NONE : mo_graph_add_node(l->g, copy.type, copy.domain, "", in, copy.n_in, &y, 1);
    if (id == MO_NONE)
        return MO_NONE;
    l->g->nodes[id].attrs = copy.attrs;
    l->g->nodes[id].n_attrs = copy.n_attrs;
    return y;
}

static enum mopt_status add_lookup(struct mo_int8 *l, struct function *f, mo_value_id y)
{
    mo_value_id all = add_all_bytes(l, f->x, y);
    for (int i = 0; i < f->n; i++) {
        const struct mo_node *n = &l->g->nodes[f->node[i]];
        mo_value_id in[MAX_IN];
        for (uint32_t k = 0; k < n->n_in; k++)
            in[k] = mapped(f, n->in[k], all);
        f->table[i] = all == MO_NONE ? MO_NONE : step(l, n, in);
        if (f->table[i] == MO_NONE)
            return mo_int8_full(l);
    }
    mo_value_id in[2] = { f->x, f->table[f->n - 1] };
    const char *name = l->g->nodes[f->node[f->n - 1]].name;
    if (mo_graph_add_node(l->g, "Int8Lookup", MO_INT8_DOMAIN, name, in, 2, &y, 1) == MO_NONE)
        return mo_int8_full(l);
    return MOPT_OK;
}

enum mopt_status mo_int8_add_rescale(struct mo_int8 *l, const struct mo_bytes *x, mo_node_id dq, mo_node_id q, mo_value_id y)
{
    struct function f = { .g = l->g, .x = x->value, .node = { dq, q }, .n = 2 };
    mo_value_id all = add_all_bytes(l, x->value, y), in[MAX_IN] = { all };
    for (int i = 0; i < 2 && in[0] != MO_NONE; i++) {
        const struct mo_node *n = &l->g->nodes[f.node[i]];
        for (uint32_t k = 1; k < n->n_in; k++)
            in[k] = n->in[k];
        in[0] = step(l, n, in);
    }
    mo_value_id of[2] = { x->value, in[0] };
    if (in[0] == MO_NONE || mo_graph_add_node(l->g, "Int8Lookup", MO_INT8_DOMAIN, "", of, 2, &y, 1) == MO_NONE)
        return mo_int8_full(l);
    return MOPT_OK;
}

enum mopt_status mo_int8_function(struct mo_int8 *l, mo_node_id id)
{
    struct mo_graph *g = l->g;
    struct function f = { .g = g, .x = MO_NONE, .budget = BUDGET };
    struct mo_bytes x, y;
    if (!mo_int8_is_quantizer(g, &g->nodes[id], &y) || g->values[y.value].is_output || !collect_node(&f, id) ||
        f.x == MO_NONE)
        return MOPT_OK;
    const struct mo_node *dq = &g->nodes[f.node[0]];
    if (f.n == 2 && mo_int8_is_dequantized(g, dq->out[0], &x) && mo_int8_same_params(&x, &y))
        mo_graph_replace_uses(g, y.value, x.value);
    else
        MO_TRY(add_lookup(l, &f, y.value));
    mo_int8_kill_unused(g, id);
    return MOPT_OK;
}
