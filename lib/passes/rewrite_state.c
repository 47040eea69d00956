/* rewrite_state.c - first states of LSTM, GRU and RNN that are zero: what these operators begin with when none is given.
 * Exporters compute them from the batch, by Shape, ConstantOfShape, Slice, Expand. */
#include "lib/graph/private.h"
#include "lib/passes/rewrite.h"

enum { MAX_STEPS = 16, FIRST_STATE = 5, LAST_STATE = 6 };

static bool has_only_zeros(enum mo_dtype dtype, const void *data, int64_t elems)
{
    const unsigned char *bytes = data;
    size_t n = mo_dtype_bytes(dtype, elems);
    for (size_t k = 0; k < n; k++)
        if (bytes[k])
            return false;
    return dtype != MO_STRING && elems >= 0;
}

/* Whether every element is zero, whatever the inputs of the graph. */
static bool is_zero(const struct mo_graph *g, mo_value_id v)
{
    static const char *const movers[] = { "Slice", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity",
                                          "Tile", "Gather", "Cast", "Flatten" };
    for (int step = 0; step < MAX_STEPS && v != MO_NONE; step++) {
        const struct mo_value *value = &g->values[v];
        if (value->data)
            return has_only_zeros(value->dtype, value->data, mo_value_elems(value));
        if (value->producer == MO_NONE)
            return false;
        const struct mo_node *n = &g->nodes[value->producer];
        if (mo_node_is(n, "ConstantOfShape")) {
            const struct mo_attr *fill = mo_node_attr(n, "value");
            return !fill || (fill->kind == MO_ATTR_TENSOR && fill->tensors[0].data &&
                             has_only_zeros(fill->tensors[0].dtype, fill->tensors[0].data, 1));
        }
        bool may_pass = false;
        for (size_t k = 0; k < MO_COUNT(movers); k++)
            may_pass = may_pass || mo_node_is(n, movers[k]);
        v = may_pass && n->n_in ? n->in[0] : MO_NONE;
    }
    return false;
}

enum mopt_status mo_rewrite_zero_state(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    struct mo_node *n = &g->nodes[i];
    if (!mo_node_is(n, "LSTM") && !mo_node_is(n, "GRU") && !mo_node_is(n, "RNN"))
        return MOPT_OK;
    uint32_t n_dropped = 0;
    for (uint32_t k = FIRST_STATE; k <= LAST_STATE && k < n->n_in; k++)
        if (n->in[k] != MO_NONE && is_zero(g, n->in[k])) {
            n->in[k] = MO_NONE;
            n_dropped++;
        }
    while (n->n_in && n->in[n->n_in - 1] == MO_NONE)
        n->n_in--;
    r->n_changes += n_dropped;
    if (n_dropped)
        mo_graph_recount(g);
    return MOPT_OK;
}
