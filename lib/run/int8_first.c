/* int8_first.c - Conv -> [Relu, Clip] -> MaxPool -> [Relu, Clip] -> Q, where the Conv stays in float because it has few
 * products: the float picture, the largest thing of such a network, never lies in memory. Maximum and limits may change
 * places: both keep the order. */
#include <string.h>

#include "lib/run/int8_private.h"

#define MAX_PRODUCTS 256        /* of one output */

static bool all(const struct mo_node *n, const char *name, int64_t wanted)
{
    size_t n_ints;
    const int64_t *ints = mo_node_ints(n, name, &n_ints);
    for (size_t i = 0; i < n_ints; i++)
        if (ints[i] != wanted)
            return false;
    return true;
}

static bool is_first(const struct mo_graph *g, const struct mo_node *n)
{
    struct mo_bytes b;
    if (!mo_node_is(n, "Conv") || mo_node_int(n, "group", 1) != 1 || mo_int8_is_dequantized(g, n->in[0], &b))
        return false;
    const struct mo_value *w = &g->values[n->in[1]], *x = &g->values[n->in[0]];
    const struct mo_value *bias = n->n_in > 2 && n->in[2] != MO_NONE ? &g->values[n->in[2]] : NULL;
    return x->dtype == MO_F32 && w->data && w->dtype == MO_F32 && w->shape.rank == 4 && w->shape.dim[0] > 0 &&
           w->shape.dim[1] <= 4 && mo_value_elems(w) / w->shape.dim[0] <= MAX_PRODUCTS &&
           (!bias || (bias->data && bias->dtype == MO_F32 && mo_value_elems(bias) == w->shape.dim[0]));
}

/* Height, width and steps of a pool without padding. */
static bool is_plain_pool(const struct mo_node *n, int64_t pool[4])
{
    size_t n_kernel, n_strides;
    const int64_t *kernel = mo_node_ints(n, "kernel_shape", &n_kernel), *strides = mo_node_ints(n, "strides", &n_strides);
    const char *auto_pad = mo_node_text(n, "auto_pad", "NOTSET");
    if (!mo_node_is(n, "MaxPool") || (n->n_out > 1 && n->out[1] != MO_NONE) || n_kernel != 2 ||
        (strides && n_strides != 2) || !all(n, "pads", 0) || !all(n, "dilations", 1) || mo_node_int(n, "ceil_mode", 0) ||
        (strcmp(auto_pad, "NOTSET") && strcmp(auto_pad, "VALID")))
        return false;
    for (int i = 0; i < 2; i++) {
        pool[i] = kernel[i];
        pool[i + 2] = strides ? strides[i] : 1;
        if (pool[i] < 1 || pool[i + 2] < 1 || pool[i + 2] < pool[i])    /* windows that overlap would be computed twice */
            return false;
    }
    return true;
}

enum mopt_status mo_int8_first(struct mo_int8 *l, mo_node_id id)
{
    struct mo_graph *g = l->g;
    struct mo_int8_end e, before = { .n_nodes = 0 };
    int64_t pool[4];
    if (!is_first(g, &g->nodes[id]))
        return MOPT_OK;
    mo_value_id v = g->nodes[id].out[0];
    mo_node_id reader;
    while ((reader = mo_int8_sole_reader(g, v)) != MO_NONE && mo_int8_is_limit(g, &g->nodes[reader]) &&
           before.n_nodes < MO_INT8_CHAIN) {
        before.nodes[before.n_nodes++] = reader;
        v = g->nodes[reader].out[0];
    }
    if (reader == MO_NONE || !is_plain_pool(&g->nodes[reader], pool) || !mo_int8_find_end(g, g->nodes[reader].out[0], &e))
        return MOPT_OK;
    for (int i = 0; i < before.n_nodes; i++)
        mo_int8_take_limit(g, &g->nodes[before.nodes[i]], &e);
    const struct mo_node n = g->nodes[id];
    mo_node_id made = mo_graph_add_node(g, "Int8First", MO_INT8_DOMAIN, n.name, n.in, n.n_in, &e.y.value, 1);
    if (made == MO_NONE)
        return mo_int8_full(l);
    g->nodes[made].attrs = n.attrs;
    g->nodes[made].n_attrs = n.n_attrs;
    if (!mo_int8_set_result(l, made, &e) || !mo_node_set_ints(g, made, MO_INT8_POOL, pool, 4) ||
        !mo_node_set_float(g, made, MO_INT8_FACTOR, e.y.scale))
        return mo_int8_full(l);
    mo_int8_kill_end(g, &e);
    mo_int8_kill(g, reader);
    mo_int8_kill_end(g, &before);
    mo_int8_kill(g, id);
    return MOPT_OK;
}
