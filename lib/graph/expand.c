/* expand.c - see expand.h. */
#include "lib/graph/expand.h"

#include <string.h>

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

/* ---- a graph inside the operator ---- */

static bool is_half(enum mo_dtype dtype)
{
    return dtype == MO_F16 || dtype == MO_BF16;
}

/* What stands in the graph around for value `from` of a body: a constant, a value captured by name, or a new one. */
static enum mopt_status take_value(struct mo_expand *e, const struct mo_value *from, mo_value_id *to)
{
    if (from->is_captured) {
        for (uint32_t k = 0; k < e->node->n_captures; k++)
            if (!strcmp(e->g->values[e->node->captures[k]].name, from->name))
                *to = e->node->captures[k];
        return *to != MO_NONE ? MOPT_OK : mo_fail(e->ctx, MOPT_DATA, "its graph reads '%s', which is not there", from->name);
    }
    enum mo_dtype dtype = is_half(from->dtype) ? MO_F32 : from->dtype;
    float *wide = from->data && dtype != from->dtype ? mo_value_floats(from) : NULL;
    if (from->data && dtype != from->dtype && !wide)
        return mo_no_memory(e->ctx, mo_value_bytes(from) * 2, "a constant in float32");
    *to = from->data ? mo_graph_add_const(e->g, from->name, dtype, &from->shape, wide ? wide : from->data)
                     : mo_graph_add_value(e->g, from->name, dtype, &from->shape);
    mo_mem_free(wide);
    return *to != MO_NONE ? MOPT_OK : mo_no_memory(e->ctx, sizeof *from, "the values of a graph");
}

static enum mopt_status take_node(struct mo_expand *e, const struct mo_node *from, const mo_value_id *to)
{
    mo_value_id *in = mo_arena_new(e->g->arena, from->n_in + from->n_out + 1, sizeof *in), *out = in + from->n_in;
    if (from->n_captures)
        return mo_fail(e->ctx, MOPT_UNSUPPORTED, "a graph inside its graph (%s)", from->type);
    for (uint32_t k = 0; in && k < from->n_in; k++)
        in[k] = from->in[k] == MO_NONE ? MO_NONE : to[from->in[k]];
    for (uint32_t k = 0; in && k < from->n_out; k++)
        out[k] = from->out[k] == MO_NONE ? MO_NONE : to[from->out[k]];
    mo_node_id id = in ? mo_graph_add_node(e->g, from->type, from->domain, e->name, in, from->n_in, out, from->n_out)
                       : MO_NONE;
    if (id == MO_NONE)
        return mo_no_memory(e->ctx, sizeof *from, "the nodes of a graph");
    struct mo_attr *attrs = mo_arena_new(e->g->arena, from->n_attrs + 1, sizeof *attrs);
    if (!attrs)
        return mo_no_memory(e->ctx, from->n_attrs * sizeof *attrs, "the nodes of a graph");
    if (from->n_attrs)
        memcpy(attrs, from->attrs, from->n_attrs * sizeof *attrs);
    e->g->nodes[id].attrs = attrs;
    e->g->nodes[id].n_attrs = from->n_attrs;
    if (mo_node_is(from, "Cast") && is_half((enum mo_dtype)mo_node_int(from, "to", 0)) &&
        !mo_node_set_int(e->g, id, "to", MO_F32))
        return mo_no_memory(e->ctx, sizeof *attrs, "a Cast");
    return MOPT_OK;
}

enum mopt_status mo_expand_graph_of(struct mo_expand *e, const struct mo_graph *body, const mo_value_id *in, mo_value_id *out)
{
    mo_value_id *to = mo_mem_new((size_t)body->n_values + 1, sizeof *to);
    enum mopt_status status = to ? MOPT_OK : mo_no_memory(e->ctx, body->n_values * sizeof *to, "a graph");
    for (mo_value_id v = 0; to && v < body->n_values; v++)
        to[v] = MO_NONE;
    for (uint32_t k = 0; to && k < body->n_inputs; k++)
        to[body->inputs[k]] = in[k];
    for (mo_value_id v = 0; !status && v < body->n_values; v++)
        if (to[v] == MO_NONE)
            status = take_value(e, &body->values[v], &to[v]);
    for (mo_node_id i = 0; !status && i < body->n_nodes; i++)
        if (!body->nodes[i].is_dead && !mo_node_is(&body->nodes[i], "Constant"))
            status = take_node(e, &body->nodes[i], to);
    for (uint32_t k = 0; !status && k < body->n_outputs; k++)
        out[k] = to[body->outputs[k]];
    mo_mem_free(to);
    return status;
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
