/* rewrite_pad.c - Pad before what can pad by itself.
 *
 *   by zero, before Conv                 its pads
 *   by zero, before AveragePool          its pads, which then count as elements of the mean
 *   by minus infinity, before MaxPool    its pads */
#include <math.h>
#include <string.h>

#include "lib/passes/rewrite.h"

/* The pads of a Pad node by `value` as 2 * rank numbers, none of them for batch or channels; false: another kind of Pad. */
static bool spatial_pads(const struct mo_graph *g, const struct mo_node *n, int rank, double value, int64_t *pads)
{
    double by = mo_node_float(n, "value", 0);
    size_t count;
    const int64_t *old = mo_node_ints(n, "pads", &count);
    if (strcmp(mo_node_text(n, "mode", "constant"), "constant") || mo_in(g, n, 3) ||
        (mo_in(g, n, 2) && !mo_value_scalar(mo_in(g, n, 2), &by)) || by != value)
        return false;
    if (old && count == (size_t)rank * 2)
        memcpy(pads, old, count * sizeof *pads);
    else if (!mo_in(g, n, 1) || mo_value_ints(mo_in(g, n, 1), pads, 2 * MO_MAX_RANK) != 2 * rank)
        return false;
    for (int k = 0; k < 2 * rank; k++)
        if (pads[k] < 0 || (k % rank < 2 && pads[k]))
            return false;
    return true;
}

/* The pads that a window operator has itself: n_spatial at the front, n_spatial behind. False: they depend on the size. */
static bool own_pads(const struct mo_node *n, int n_spatial, int64_t *pads)
{
    size_t count;
    const int64_t *own = mo_node_ints(n, "pads", &count);
    const char *automatic = mo_node_text(n, "auto_pad", "NOTSET");
    memset(pads, 0, 2 * (size_t)n_spatial * sizeof *pads);
    if (!strcmp(automatic, "VALID"))
        return true;
    if (own && count == 2 * (size_t)n_spatial)
        memcpy(pads, own, count * sizeof *pads);
    return !strcmp(automatic, "NOTSET");
}

/* A pool may not start a window outside of its input, nor round up over what is not there. */
static bool pool_takes(const struct mo_node *n, int n_spatial, const int64_t *pads)
{
    size_t count;
    const int64_t *kernel = mo_node_ints(n, "kernel_shape", &count);
    if (!kernel || count != (size_t)n_spatial || mo_node_int(n, "ceil_mode", 0) || n->n_out != 1)
        return false;
    for (int k = 0; k < 2 * n_spatial; k++)
        if (pads[k] >= kernel[k % n_spatial])
            return false;
    return true;
}

static bool has_any(const int64_t *x, int n)
{
    for (int k = 0; k < n; k++)
        if (x[k])
            return true;
    return false;
}

/* Whether the pads were added to the node's own in sum. */
static bool may_join(const struct mo_graph *g, const struct mo_node *n, const struct mo_node *pad, int64_t *sum)
{
    int64_t pads[2 * MO_MAX_RANK];
    bool is_conv = mo_node_is(n, "Conv"), is_mean = mo_node_is(n, "AveragePool");
    const struct mo_value *x = mo_in(g, pad, 0);
    int rank = x ? x->shape.rank : MO_UNKNOWN, n_spatial = rank - 2;
    if (rank < 3 || (is_conv && !mo_in(g, n, 1)) || (is_mean && g->opset < 7) || !own_pads(n, n_spatial, sum) ||
        !spatial_pads(g, pad, rank, is_conv || is_mean ? 0 : -HUGE_VAL, pads))
        return false;
    if (is_mean && has_any(sum, 2 * n_spatial) && !mo_node_int(n, "count_include_pad", 0))
        return false;
    for (int k = 0; k < n_spatial; k++) {
        sum[k] += pads[2 + k];
        sum[n_spatial + k] += pads[rank + 2 + k];
    }
    return is_conv || pool_takes(n, n_spatial, sum);
}

enum mopt_status mo_rewrite_pad(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    int64_t sum[2 * MO_MAX_RANK];
    bool is_mean = mo_node_is(&g->nodes[i], "AveragePool");
    if (!is_mean && !mo_node_is(&g->nodes[i], "Conv") && !mo_node_is(&g->nodes[i], "MaxPool"))
        return MOPT_OK;
    mo_node_id pad = mo_private_maker(g, &g->nodes[i], 0);
    if (pad == MO_NONE || !mo_node_is(&g->nodes[pad], "Pad") || !may_join(g, &g->nodes[i], &g->nodes[pad], sum))
        return MOPT_OK;
    size_t count = 2 * (size_t)(mo_in(g, &g->nodes[pad], 0)->shape.rank - 2);
    mo_node_drop_attr(g, i, "auto_pad");
    if (!mo_node_set_ints(g, i, "pads", sum, count) || (is_mean && !mo_node_set_int(g, i, "count_include_pad", 1)))
        return mo_no_memory(r->ctx, 64, "an attribute");
    mo_graph_kill(g, pad);
    r->n_changes++;
    return mo_rewrite_set_input(r, i, 0, g->nodes[pad].in[0]);
}
