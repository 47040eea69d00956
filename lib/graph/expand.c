/* expand.c - see expand.h. */
#include "lib/graph/expand.h"

#include "lib/graph/op.h"

/* A formula may use another formula, but not without end. */
#define MAX_ROUNDS 8

void mo_expand_node(struct mo_expand *e, const char *type, const mo_value_id *in, uint32_t n_in, mo_value_id out)
{
    while (n_in && in[n_in - 1] == MO_NONE)
        n_in--;
    e->last = e->is_full ? MO_NONE : mo_graph_add_node(e->g, type, "", e->name, in, n_in, &out, 1);
    e->is_full = e->last == MO_NONE;
}

mo_value_id mo_expand_op(struct mo_expand *e, const char *type, mo_value_id a, mo_value_id b, mo_value_id c)
{
    const struct mo_shape unknown = { .rank = MO_UNKNOWN };
    mo_value_id out = e->is_full ? MO_NONE : mo_graph_add_value(e->g, type, MO_UNDEFINED, &unknown);
    e->is_full = out == MO_NONE;
    mo_expand_node(e, type, (mo_value_id[]){ a, b, c }, 3, out);
    return out;
}

void mo_expand_into(struct mo_expand *e, mo_value_id out, const char *type, mo_value_id a, mo_value_id b, mo_value_id c)
{
    mo_expand_node(e, type, (mo_value_id[]){ a, b, c }, 3, out);
}

void mo_expand_int(struct mo_expand *e, const char *name, int64_t value)
{
    e->is_full = e->is_full || !mo_node_set_int(e->g, e->last, name, value);
}

void mo_expand_ints(struct mo_expand *e, const char *name, const int64_t *values, size_t n)
{
    e->is_full = e->is_full || !mo_node_set_ints(e->g, e->last, name, values, n);
}

mo_value_id mo_expand_scalar(struct mo_expand *e, enum mo_dtype dtype, double x)
{
    const struct mo_shape scalar = { .rank = 0 };
    union { float f; double d; int64_t i; int32_t n; } data;
    switch (dtype) {
    case MO_F64: data.d = x; break;
    case MO_I64: case MO_U64: data.i = (int64_t)x; break;
    case MO_I32: case MO_U32: data.n = (int32_t)x; break;
    default:
        dtype = MO_F32;
        data.f = (float)x;
    }
    mo_value_id v = e->is_full ? MO_NONE : mo_graph_add_const(e->g, "number", dtype, &scalar, &data);
    e->is_full = v == MO_NONE;
    return v;
}

mo_value_id mo_expand_list(struct mo_expand *e, const int64_t *values, int64_t n)
{
    const struct mo_shape shape = mo_shape_of(1, n);
    mo_value_id v = e->is_full ? MO_NONE : mo_graph_add_const(e->g, "list", MO_I64, &shape, values);
    e->is_full = v == MO_NONE;
    return v;
}

enum mopt_status mo_expand_check_float(struct mo_expand *e, enum mo_dtype dtype)
{
    if (dtype == MO_F32 || dtype == MO_F64)
        return MOPT_OK;
    return mo_fail(e->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(dtype));
}

static enum mopt_status expand_node(struct mopt_ctx *ctx, struct mo_graph *g, mo_node_id i)
{
    struct mo_node n = g->nodes[i];         /* nodes move when some are added */
    struct mo_expand e = { .ctx = ctx, .g = g, .node = &n, .name = n.name };
    enum mopt_status status = n.op->expand(&e);
    if (!status && e.is_full)
        status = mo_no_memory(ctx, sizeof n, "the nodes of an operator");
    if (status) {
        char label[192];
        mo_blame(ctx, "%s", mo_node_label(g, &g->nodes[i], label, sizeof label));
        return status;
    }
    g->nodes[i].is_dead = true;
    return MOPT_OK;
}

enum mopt_status mo_expand_graph(struct mopt_ctx *ctx, struct mo_graph *g)
{
    for (int round = 0; round < MAX_ROUNDS; round++) {
        bool any = false;
        for (mo_node_id i = 0, end = g->n_nodes; i < end; i++) {
            if (!g->nodes[i].op || !g->nodes[i].op->expand || g->nodes[i].is_dead)
                continue;
            any = true;
            MO_TRY(expand_node(ctx, g, i));
        }
        if (!any)
            return MOPT_OK;
        mo_graph_sweep(g);
        MO_TRY(mo_graph_sort(ctx, g));
        MO_TRY(mo_infer(ctx, g, NULL, 0));
    }
    return mo_fail(ctx, MOPT_FAILED, "formulas of operators that do not end");
}
