/* large.c - see large.h. */
#include "lib/graph/large.h"

#include <string.h>

#include "lib/base/spill.h"

uint64_t mo_graph_constant_bytes(const struct mo_graph *g)
{
    uint64_t sum = 0;
    for (mo_value_id v = 0; v < g->n_values; v++)
        if (g->values[v].data && g->values[v].dtype != MO_STRING)
            sum += mo_value_bytes(&g->values[v]);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                sum += mo_graph_constant_bytes(g->nodes[i].attrs[a].graphs[k]);
    return sum;
}

static bool is_aligned(const struct mo_value *v)
{
    size_t unit = (size_t)MO_MIN(MO_MAX(mo_dtype_bits(v->dtype) / 8, 1), 8);
    return (uintptr_t)v->data % unit == 0;
}

enum mopt_status mo_graph_align(struct mopt_ctx *ctx, struct mo_graph *g)
{
    for (mo_value_id i = 0; i < g->n_values; i++) {
        struct mo_value *v = &g->values[i];
        if (!v->data || v->dtype == MO_STRING || is_aligned(v))
            continue;
        size_t bytes = mo_value_bytes(v);
        void *copy = mo_constant_new(ctx, bytes);
        if (!copy)
            return mo_no_memory(ctx, bytes, "a constant");
        memcpy(copy, v->data, bytes);
        v->data = copy;
        v->owner = MO_DATA_HEAP;
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                MO_TRY(mo_graph_align(ctx, g->nodes[i].attrs[a].graphs[k]));
    return MOPT_OK;
}
