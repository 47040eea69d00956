/* large.c - see large.h. */
#include "lib/graph/large.h"

#include <string.h>

#include "lib/base/io.h"
#include "lib/base/spill.h"

static uint64_t sum_bytes(const struct mo_graph *g, bool heap_only)
{
    uint64_t sum = 0;
    for (mo_value_id v = 0; v < g->n_values; v++)
        if (g->values[v].data && g->values[v].dtype != MO_STRING && (!heap_only || g->values[v].owner == MO_DATA_HEAP))
            sum += mo_value_bytes(&g->values[v]);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                sum += sum_bytes(g->nodes[i].attrs[a].graphs[k], heap_only);
    return sum;
}

uint64_t mo_graph_constant_bytes(const struct mo_graph *g)
{
    return sum_bytes(g, false);
}

uint64_t mo_graph_heap_bytes(const struct mo_graph *g)
{
    return sum_bytes(g, true);
}

static bool is_aligned(const struct mo_value *v)
{
    size_t unit = (size_t)MO_MIN(MO_MAX(mo_dtype_bits(v->dtype) / 8, 1), 8);
    return (uintptr_t)v->data % unit == 0;
}

void mo_constant_forget(const struct mopt_ctx *ctx, const struct mopt_model *model, const struct mo_value *v)
{
    if (v->owner == MO_DATA_HEAP)
        mo_mem_forget(v->data);
    else if (ctx->io && ctx->io->forget)
        ctx->io->forget(model, v->data, mo_value_bytes(v));
}

enum mopt_status mo_graph_align(struct mopt_ctx *ctx, const struct mopt_model *model, struct mo_graph *g)
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
        mo_constant_forget(ctx, model, v);
        v->data = copy;
        v->owner = MO_DATA_HEAP;
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                MO_TRY(mo_graph_align(ctx, model, g->nodes[i].attrs[a].graphs[k]));
    return MOPT_OK;
}
