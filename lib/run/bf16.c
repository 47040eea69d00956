/* bf16.c - which values of a plan are bfloat16, or, where the run wants that, float16.
 *
 * One walk over the nodes in order. Convolutions are computed in bfloat16, and what
 * follows them stays in it as long as operators take it (op->bf16_in): normalization,
 * activations, sums of equal shapes, pooling. Matrix products round their operands
 * whatever these are kept in, and give bfloat16 where all readers take it. Everything
 * else - losses, softmax, statistics, parameters and their gradients, the outputs of
 * the run - is float32, and a Cast stands exactly where one form is wanted and only
 * the other is there. Ids of values stay those of the float32 form. */
#include <stdio.h>

#include "lib/run/fused.h"
#include "lib/run/private.h"

struct halves {
    struct mo_run *run;
    struct mo_graph *g;
    uint32_t n;                 /* values that the graph had before */
    mo_value_id *half;          /* by value id: the same in bfloat16; MO_NONE */
    bool *is_wide;              /* the float32 form is made by something */
};

static enum mopt_status no_memory(struct halves *h)
{
    return mo_no_memory(h->run->ctx, h->g->n_values * sizeof(struct mo_value), "choosing bfloat16");
}

static enum mopt_status new_half(struct halves *h, mo_value_id v)
{
    char name[300];
    snprintf(name, sizeof name, "%.280s:half", h->g->values[v].name);
    h->half[v] = mo_graph_add_value(h->g, name, h->run->options.half, &h->g->values[v].shape);
    return h->half[v] == MO_NONE ? no_memory(h) : MOPT_OK;
}

static enum mopt_status add_cast(struct halves *h, mo_value_id from, mo_value_id to, enum mo_dtype dtype)
{
    mo_node_id n = mo_graph_add_node(h->g, "Cast", "", "", &from, 1, &to, 1);
    if (n == MO_NONE || !mo_node_set_int(h->g, n, "to", dtype))
        return no_memory(h);
    return MOPT_OK;
}

static enum mopt_status need_wide(struct halves *h, mo_value_id v)
{
    if (v == MO_NONE || v >= h->n || h->is_wide[v])
        return MOPT_OK;
    h->is_wide[v] = true;
    return add_cast(h, h->half[v], v, MO_F32);
}

static enum mopt_status need_half(struct halves *h, mo_value_id v)
{
    if (h->half[v] != MO_NONE)
        return MOPT_OK;
    MO_TRY(new_half(h, v));
    return add_cast(h, v, h->half[v], h->run->options.half);
}

/* ---- what a node can do -------------------------------------------------------------------- */

static bool is_product(const struct mo_node *n)
{
    return mo_node_is(n, "Gemm") || mo_node_is(n, "MatMul");
}

static bool takes_half(const struct mo_node *n, uint32_t k)
{
    return k < 32 && n->op->bf16_in >> k & 1;
}

/* Sums go element by element, and MaxPool finds its indices in float32. */
static bool is_plain(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    if (mo_node_is(n, "Add"))
        return a && b && mo_shape_equal(&a->shape, &b->shape);
    return n->n_out == 1 || n->out[1] == MO_NONE || !mo_node_is(n, "MaxPool");
}

static bool can_be_half(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0), *y = mo_out(g, n, 0);
    if (!n->op->bf16_in || !x || !y || x->dtype != MO_F32 || !is_plain(g, n))
        return false;
    for (uint32_t k = 0; k < n->n_in; k++) {
        const struct mo_value *v = mo_in(g, n, k);
        if (v && (!mo_shape_known(&v->shape) || (takes_half(n, k) && mo_value_elems(v) == 0)))
            return false;
        if (v && (is_product(n) || mo_node_is(n, "Conv")) && v->dtype != MO_F32)
            return false;
    }
    return mo_shape_known(&y->shape) && mo_value_elems(y) != 0;
}

/* Is everything that it would take in bfloat16 there in that? A convolution has its inputs made so. */
static bool follows(const struct halves *h, const struct mo_node *n)
{
    if (!can_be_half(h->g, n))
        return false;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (takes_half(n, k) && n->in[k] != MO_NONE && h->half[n->in[k]] == MO_NONE && !mo_node_is(n, "Conv"))
            return false;
    return true;
}

/* Would all readers of v take it in bfloat16? */
static bool readers_take_half(const struct halves *h, mo_value_id v)
{
    const struct mo_graph *g = h->g;
    if (g->values[v].is_output || g->values[v].n_uses == 0)
        return false;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        for (uint32_t k = 0; !n->is_dead && k < n->n_in; k++)
            if (n->in[k] == v && (!takes_half(n, k) || !can_be_half(g, n)))
                return false;
        for (uint32_t k = 0; !n->is_dead && k < n->n_captures; k++)
            if (n->captures[k] == v)
                return false;
        /* what looks at it under another shape is asked in its place */
        if (!n->is_dead && n->op->flags & MO_OP_VIEW && n->n_in && n->in[0] == v && !readers_take_half(h, n->out[0]))
            return false;
    }
    return true;
}

/* ---- the nodes ---------------------------------------------------------------------------------- */

static void read_halves(struct halves *h, mo_node_id i)
{
    struct mo_node *n = &h->g->nodes[i];
    for (uint32_t k = 0; k < n->n_in; k++)
        if (takes_half(n, k) && n->in[k] != MO_NONE && h->half[n->in[k]] != MO_NONE)
            n->in[k] = h->half[n->in[k]];
}

static enum mopt_status give_half(struct halves *h, mo_node_id i)
{
    mo_value_id y = h->g->nodes[i].out[0];
    MO_TRY(new_half(h, y));
    h->is_wide[y] = false;
    h->g->nodes[i].out[0] = h->half[y];
    return MOPT_OK;
}

/* An input of the run, under whatever shape: it may come sparse, and is multiplied in float32 then. */
static bool is_input(const struct mo_graph *g, mo_value_id v)
{
    while (g->values[v].producer != MO_NONE && g->nodes[g->values[v].producer].op->flags & MO_OP_VIEW)
        v = g->nodes[g->values[v].producer].in[0];
    return mo_is_real_input(g, v);
}

static int64_t kind_of(const struct halves *h, bool gives_half)
{
    if (h->run->options.half == MO_F16)
        return gives_half ? MO_PRODUCT_F16_TO_F16 : MO_PRODUCT_F16;
    return gives_half ? MO_PRODUCT_BF16_TO_BF16 : MO_PRODUCT_BF16;
}

/* Of the operands those that are there in bfloat16 are read in it; the others are rounded by the product itself. */
static enum mopt_status make_product(struct halves *h, mo_node_id i)
{
    const struct mo_node *n = &h->g->nodes[i];
    bool is_simple = !mo_node_is(n, "MatMul") || n->n_in < 3 || mo_in(h->g, n, 1)->shape.rank == 2;
    bool gives_half = is_simple && !is_input(h->g, n->in[0]) && readers_take_half(h, n->out[0]);
    read_halves(h, i);
    if (!mo_node_set_int(h->g, i, MO_FUSED_BF16, kind_of(h, gives_half)))
        return no_memory(h);
    return gives_half ? give_half(h, i) : MOPT_OK;
}

static enum mopt_status make_half(struct halves *h, mo_node_id i)
{
    for (uint32_t k = 0; k < h->g->nodes[i].n_in; k++)
        if (takes_half(&h->g->nodes[i], k) && h->g->nodes[i].in[k] != MO_NONE)
            MO_TRY(need_half(h, h->g->nodes[i].in[k]));
    read_halves(h, i);
    return give_half(h, i);
}

static enum mopt_status visit(struct halves *h, mo_node_id i)
{
    const struct mo_node *n = &h->g->nodes[i];
    bool is_half = is_product(n) ? can_be_half(h->g, n) : follows(h, n);
    for (uint32_t k = 0; k < h->g->nodes[i].n_in; k++)
        if (!is_half || !takes_half(&h->g->nodes[i], k))
            MO_TRY(need_wide(h, h->g->nodes[i].in[k]));
    for (uint32_t k = 0; k < h->g->nodes[i].n_captures; k++)
        MO_TRY(need_wide(h, h->g->nodes[i].captures[k]));
    if (!is_half)
        return MOPT_OK;
    return is_product(&h->g->nodes[i]) ? make_product(h, i) : make_half(h, i);
}

enum mopt_status mo_bf16_plan(struct mo_run *run, struct mo_graph *g)
{
    struct halves h = { .run = run, .g = g, .n = g->n_values };
    h.half = mo_arena_new(g->arena, (size_t)h.n + 1, sizeof *h.half);
    h.is_wide = mo_arena_new(g->arena, (size_t)h.n + 1, sizeof *h.is_wide);
    if (!h.half || !h.is_wide)
        return no_memory(&h);
    for (mo_value_id v = 0; v < h.n; v++) {
        h.half[v] = MO_NONE;
        h.is_wide[v] = true;
    }
    uint32_t n_nodes = g->n_nodes;
    for (mo_node_id i = 0; i < n_nodes; i++)
        if (!g->nodes[i].is_dead)
            MO_TRY(visit(&h, i));
    for (uint32_t i = 0; i < g->n_outputs; i++)
        MO_TRY(need_wide(&h, g->outputs[i]));
    return mo_graph_sort(run->ctx, g);
}
