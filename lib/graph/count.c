/* Counting: parameters and how many of them are not zero, multiply-adds, bytes. */
#include "lib/graph/large.h"
#include "lib/graph/op.h"

#include <string.h>

/* Elements that are not zero, by the bytes of each; -0.0 counts as zero. */
static int64_t count_nonzero(const struct mo_value *v)
{
    int64_t n = mo_value_elems(v), count = 0;
    int bits = mo_dtype_bits(v->dtype);
    const uint8_t *p = v->data;
    if (v->dtype == MO_F32) {
        for (int64_t i = 0; i < n; i++)
            count += ((const float *)v->data)[i] != 0;
    } else if (v->dtype == MO_F16 || v->dtype == MO_BF16) {
        for (int64_t i = 0; i < n; i++)
            count += (((const uint16_t *)v->data)[i] & 0x7fff) != 0;
    } else if (v->dtype == MO_F64) {
        for (int64_t i = 0; i < n; i++)
            count += ((const double *)v->data)[i] != 0;
    } else if (bits >= 8) {
        size_t width = (size_t)bits / 8;
        for (int64_t i = 0; i < n; i++) {
            bool any = false;
            for (size_t b = 0; b < width; b++)
                any |= p[(size_t)i * width + b];
            count += any;
        }
    } else if (bits) {
        int per_byte = 8 / bits;
        for (int64_t i = 0; i < n; i++)
            count += (p[i / per_byte] >> (int)(i % per_byte) * bits & ((1 << bits) - 1)) != 0;
    }
    return count;
}

/* Operators that hand a constant's elements on, so that weights may stand behind them. */
static bool hands_on(const struct mo_node *n)
{
    static const char *const types[] = { "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten",
                                         "Cast", "QuantizeLinear", "DequantizeLinear" };
    for (size_t i = 0; i < MO_COUNT(types); i++)
        if (mo_node_is(n, types[i]))
            return n->n_in > 0;
    return false;
}

mo_value_id mo_count_source(const struct mo_graph *g, mo_value_id v)
{
    for (uint32_t steps = 0; v != MO_NONE && steps <= g->n_nodes; steps++) {
        if (g->values[v].data)
            return v;
        mo_node_id from = g->values[v].producer;
        if (from == MO_NONE || !hands_on(&g->nodes[from]))
            return MO_NONE;
        v = g->nodes[from].in[0];
    }
    return MO_NONE;
}

/* Weights that ConstantOfShape makes, as in models that are shipped without them: all have one value. */
static bool is_filled(const struct mo_graph *g, mo_value_id v)
{
    mo_node_id from = g->values[v].producer;
    return from != MO_NONE && mo_node_is(&g->nodes[from], "ConstantOfShape") && mo_value_elems(&g->values[v]) > 0;
}

static int64_t count_filled_nonzero(const struct mo_graph *g, mo_value_id v)
{
    const struct mo_attr *a = mo_node_attr(&g->nodes[g->values[v].producer], "value");
    bool is_zero = !a || a->kind != MO_ATTR_TENSOR || a->tensors[0].dtype != MO_F32 ||
                   mo_shape_elems(&a->tensors[0].shape) != 1 || *(const float *)a->tensors[0].data == 0;
    return is_zero ? 0 : mo_value_elems(&g->values[v]);
}

/* Inputs of products of integers that take weights as they are stored, and the bias of QLinearConv. */
static bool takes_integers(const struct mo_node *n, uint32_t i)
{
    if (mo_node_is(n, "MatMulInteger") || mo_node_is(n, "ConvInteger"))
        return i < 2;
    if (mo_node_is(n, "QLinearMatMul"))
        return i == 0 || i == 3;
    return mo_node_is(n, "QLinearConv") && (i == 3 || i == 8);
}

static bool is_parameter(const struct mo_graph *g, const struct mo_node *n, uint32_t i, mo_value_id *v)
{
    if (n->op && takes_integers(n, i)) {
        *v = mo_count_source(g, n->in[i]);
        return *v != MO_NONE && mo_value_elems(&g->values[*v]) > 1;
    }
    if (!n->op || i >= 32 || !(n->op->params_in >> i & 1))
        return false;
    *v = mo_count_source(g, n->in[i]);
    if (*v == MO_NONE && is_filled(g, n->in[i])) {
        *v = n->in[i];
        return mo_value_elems(&g->values[*v]) > 1;
    }
    if (*v == MO_NONE)
        return false;
    const struct mo_value *value = &g->values[*v];
    /* quantized weights are integers: those count where they were made float again */
    bool counts = mo_dtype_is_float(value->dtype) || *v != n->in[i];
    return counts && (mo_value_elems(value) > 1 || n->op->flags & MO_OP_PARAM_SCALAR);
}

static void count_bytes(const struct mo_graph *g, struct mo_counts *counts)
{
    for (mo_value_id v = 0; v < g->n_values; v++)
        if (g->values[v].data)
            counts->bytes += mo_value_bytes(&g->values[v]);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                count_bytes(g->nodes[i].attrs[a].graphs[k], counts);
}

/* A node behind one whose shapes could not be inferred has no params, which macs reads. */
int64_t mo_node_macs(const struct mo_graph *g, const struct mo_node *n)
{
    if (!n->op || !n->op->macs)
        return mo_node_is(n, "Constant") ? 0 : MO_UNKNOWN;
    return n->op->params_bytes && !n->params ? MO_UNKNOWN : n->op->macs(g, n);
}

static enum mopt_status count(struct mopt_ctx *ctx, const struct mo_graph *g, bool reads, struct mo_counts *counts)
{
    *counts = (struct mo_counts){ 0 };
    bool *seen = mo_mem_new(MO_MAX(g->n_values, 1u), sizeof *seen);
    if (!seen)
        return mo_no_memory(ctx, g->n_values, "counting");
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->is_dead)
            continue;
        int64_t macs = mo_node_macs(g, n);
        if (macs == MO_UNKNOWN || __builtin_add_overflow(counts->macs, macs, &macs))
            counts->macs = MO_UNKNOWN;
        else if (counts->macs != MO_UNKNOWN)
            counts->macs = macs;
        for (uint32_t k = 0; k < n->n_in; k++) {
            mo_value_id v;
            if (n->in[k] == MO_NONE || !is_parameter(g, n, k, &v) || seen[v])
                continue;
            seen[v] = true;
            counts->parameters += mo_value_elems(&g->values[v]);
            if (reads)
                counts->nonzero += g->values[v].data ? count_nonzero(&g->values[v]) : count_filled_nonzero(g, v);
        }
    }
    mo_mem_free(seen);
    count_bytes(g, counts);
    if (!reads)
        counts->nonzero = MO_UNKNOWN;
    return MOPT_OK;
}

enum mopt_status mo_count(struct mopt_ctx *ctx, const struct mo_graph *g, struct mo_counts *counts)
{
    return count(ctx, g, true, counts);
}

enum mopt_status mo_count_unread(struct mopt_ctx *ctx, const struct mo_graph *g, struct mo_counts *counts)
{
    return count(ctx, g, false, counts);
}
