/* contrib.c - see contrib.h. */
#include "lib/ops/contrib.h"

#include <string.h>

enum { MAX_INPUTS = 4 };

enum mopt_status mo_infer_with(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_node *n, const char *type,
                               const mo_value_id *in, uint32_t n_in)
{
    mo_value_id list[MAX_INPUTS];
    struct mo_node as = *n;
    as.op = mo_op_find(type, "", g->opset);
    as.type = type;
    as.domain = "";
    as.n_in = MO_MIN(n_in, (uint32_t)MAX_INPUTS);
    as.in = list;
    memcpy(list, in, as.n_in * sizeof *list);
    if (!as.op)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "it is computed by %s, which opset %d does not have", type, g->opset);
    as.params = mo_mem_new(as.op->params_bytes + 1, 1);
    if (!as.params)
        return mo_no_memory(ctx, as.op->params_bytes, "a node's parameters");
    enum mopt_status status = as.op->infer(ctx, g, &as);
    mo_mem_free(as.params);
    return status;
}

mo_value_id mo_contrib_in(const struct mo_expand *e, uint32_t i)
{
    return i < e->node->n_in ? e->node->in[i] : MO_NONE;
}

void mo_contrib_node(struct mo_expand *e, const char *type, const char *domain, const mo_value_id *in, uint32_t n_in,
                     const mo_value_id *out, uint32_t n_out)
{
    e->last = e->is_full ? MO_NONE : mo_graph_add_node(e->g, type, domain, e->name, in, n_in, out, n_out);
    e->is_full = e->last == MO_NONE;
}

mo_value_id mo_contrib_value(struct mo_expand *e)
{
    const struct mo_shape unknown = { .rank = MO_UNKNOWN };
    mo_value_id v = e->is_full ? MO_NONE : mo_graph_add_value(e->g, "part", MO_UNDEFINED, &unknown);
    e->is_full = v == MO_NONE;
    return v;
}

void mo_contrib_float(struct mo_expand *e, const char *name, float value)
{
    e->is_full = e->is_full || !mo_node_set_float(e->g, e->last, name, value);
}

void mo_contrib_copy_attrs(struct mo_expand *e, const char *except)
{
    for (uint32_t i = 0; !e->is_full && i < e->node->n_attrs; i++) {
        const struct mo_attr *a = &e->node->attrs[i];
        bool is_ok = true;
        if (!strncmp(a->name, except, strlen(except)))
            continue;
        if (a->kind == MO_ATTR_INT)
            is_ok = mo_node_set_int(e->g, e->last, a->name, a->i);
        else if (a->kind == MO_ATTR_INTS)
            is_ok = mo_node_set_ints(e->g, e->last, a->name, a->ints, a->n);
        else if (a->kind == MO_ATTR_FLOAT)
            is_ok = mo_node_set_float(e->g, e->last, a->name, a->f);
        else if (a->kind == MO_ATTR_STRING)
            is_ok = mo_node_set_text(e->g, e->last, a->name, a->s);
        e->is_full = !is_ok;
    }
}

mo_value_id mo_contrib_dequantize(struct mo_expand *e, mo_value_id x, mo_value_id scale, mo_value_id zero, int64_t axis)
{
    mo_value_id y = mo_expand_op(e, "DequantizeLinear", x, scale, zero);
    mo_expand_int(e, "axis", axis);
    return y;
}

void mo_contrib_quantize(struct mo_expand *e, mo_value_id x, mo_value_id scale, mo_value_id zero, mo_value_id out)
{
    static const int8_t nothing;
    const struct mo_shape scalar = { .rank = 0 };
    if (zero == MO_NONE && !e->is_full) {       /* without one QuantizeLinear gives uint8 */
        enum mo_dtype dtype = e->g->values[out].dtype;
        zero = mo_graph_add_const(e->g, "zero", dtype == MO_I8 ? MO_I8 : MO_U8, &scalar, &nothing);
        e->is_full = zero == MO_NONE;
    }
    mo_expand_into(e, out, "QuantizeLinear", x, scale, zero);
}
