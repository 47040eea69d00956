/* infer.c - walks the nodes once in order and lets each operator say what comes
 * out. Integers that shapes are made of travel along in value.known. */
#include "lib/graph/infer.h"

#include <string.h>
#include <strings.h>

#include "lib/graph/op.h"

/* More than this many integers is data, not a shape. */
#define MAX_KNOWN 64
/* A quarter of a petabyte of floats. */
#define MAX_ELEMS ((int64_t)1 << 46)

static const struct mo_binding *find_binding(const struct mo_binding *bindings, uint32_t n, mo_value_id input)
{
    for (uint32_t i = 0; i < n; i++)
        if (bindings[i].input == input)
            return &bindings[i];
    return NULL;
}

/* A binding must agree with what the file says of the input. */
static enum mopt_status check_binding(struct mopt_ctx *ctx, const struct mo_value *v, const struct mo_shape *declared,
                                      const struct mo_shape *bound)
{
    char want[128], got[128];
    bool fits = declared->rank == MO_UNKNOWN || declared->rank == bound->rank;
    for (int i = 0; fits && declared->rank != MO_UNKNOWN && i < declared->rank; i++)
        fits = declared->dim[i] == MO_UNKNOWN || declared->dim[i] == bound->dim[i];
    if (fits)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "input '%s' is %s, the model says %s", v->name,
                   mo_shape_text(bound, got, sizeof got), mo_shape_text(declared, want, sizeof want));
}

/* Sizes that no memory can hold are refused where they come up, so that no operator has to calculate with them: what is
 * added and multiplied behind this stays within 64 bits. */
static enum mopt_status check_size(struct mopt_ctx *ctx, const struct mo_value *v)
{
    char text[192];
    int64_t n = 1;
    bool is_too_large = false;
    for (int i = 0; i < v->shape.rank; i++) {
        int64_t dim = MO_MAX(v->shape.dim[i], 1);
        is_too_large = is_too_large || dim > MAX_ELEMS || n > MAX_ELEMS / dim;
        n = is_too_large ? 1 : n * dim;
    }
    if (!is_too_large)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_LIMIT, "'%s' is %s: more than any memory holds", v->name,
                   mo_shape_text(&v->shape, text, sizeof text));
}

static enum mopt_status bind_inputs(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_binding *bindings,
                                    uint32_t n_bindings)
{
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        struct mo_value *v = &g->values[g->inputs[i]];
        const struct mo_binding *b = find_binding(bindings, n_bindings, g->inputs[i]);
        if (v->has_declared)
            v->shape = v->declared;
        if (b) {
            MO_TRY(check_binding(ctx, v, &v->shape, &b->shape));
            v->declared = v->shape;
            v->has_declared = true;
            v->shape = b->shape;
        }
        MO_TRY(check_size(ctx, v));
    }
    return MOPT_OK;
}

static enum mopt_status check_arity(struct mopt_ctx *ctx, const struct mo_node *n)
{
    const struct mo_op *op = n->op;
    if ((int)n->n_in < op->min_in || (op->max_in >= 0 && (int)n->n_in > op->max_in))
        return mo_fail(ctx, MOPT_DATA, "%u inputs, it takes %d to %d", n->n_in, op->min_in, op->max_in);
    if ((int)n->n_out < op->min_out || (op->max_out >= 0 && (int)n->n_out > op->max_out))
        return mo_fail(ctx, MOPT_DATA, "%u outputs, it gives %d to %d", n->n_out, op->min_out, op->max_out);
    for (int i = 0; i < op->min_in; i++)
        if (n->in[i] == MO_NONE)
            return mo_fail(ctx, MOPT_DATA, "input %d is left out", i);
    return MOPT_OK;
}

static enum mopt_status infer_node(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_op *op = n->op;
    for (uint32_t k = 0; k < n->n_out; k++) {
        if (n->out[k] == MO_NONE)
            continue;
        struct mo_value *v = &g->values[n->out[k]];
        v->known = NULL;
        if (v->is_output && !v->has_declared)
            v->declared = v->shape;
        if (!v->data)
            v->shape.rank = MO_UNKNOWN;
    }
    if (op->params_bytes && !n->params) {
        n->params = mo_arena_new(g->arena, 1, op->params_bytes);
        if (!n->params)
            return mo_no_memory(ctx, op->params_bytes, "a node's parameters");
    }
    if (n->params)
        memset(n->params, 0, op->params_bytes);
    MO_TRY(check_arity(ctx, n));
    MO_TRY(op->infer(ctx, g, n));
    /* Of an output of the model, what was known before stands where inference finds nothing: a file must say it. */
    for (uint32_t k = 0; k < n->n_out; k++) {
        struct mo_value *v = n->out[k] == MO_NONE ? NULL : &g->values[n->out[k]];
        if (v && v->is_output && v->shape.rank == MO_UNKNOWN)
            v->shape = v->declared;
        if (v)
            MO_TRY(check_size(ctx, v));
    }
    return MOPT_OK;
}

enum mopt_status mo_infer_node(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    /* What an unknown operator gives out is known only as far as the file said. */
    if (n->is_dead || !n->op || !n->op->infer)
        return MOPT_OK;
    enum mopt_status status = infer_node(ctx, g, n);
    char label[192];
    if (status)
        mo_blame(ctx, "%s", mo_node_label(g, n, label, sizeof label));
    return status;
}

enum mopt_status mo_infer(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_binding *bindings,
                          uint32_t n_bindings)
{
    MO_TRY(bind_inputs(ctx, g, bindings, n_bindings));
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        MO_TRY(mo_infer_node(ctx, g, &g->nodes[i]));
    return MOPT_OK;
}

/* A sequence length may be called "N" too, but never stands first; dimension 0 is the batch. */
static bool is_batch_dim(const struct mo_value *v, int dim)
{
    const char *name = v->dim_names ? v->dim_names[dim] : NULL;
    return dim == 0 || (name && strcasestr(name, "batch"));
}

enum mopt_status mo_infer_sample(struct mopt_ctx *ctx, struct mo_graph *g, int64_t free_dim)
{
    struct mo_binding *bindings = mo_mem_new(g->n_inputs + 1, sizeof *bindings);
    uint32_t n = 0;
    if (!bindings)
        return mo_no_memory(ctx, (g->n_inputs + 1) * sizeof *bindings, "shapes of inputs");
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mo_value *v = &g->values[g->inputs[i]];
        struct mo_shape shape = v->has_declared ? v->declared : v->shape;
        if (shape.rank == MO_UNKNOWN || v->data)
            continue;
        for (int d = 0; d < shape.rank; d++)
            if (shape.dim[d] == MO_UNKNOWN)
                shape.dim[d] = is_batch_dim(v, d) ? 1 : free_dim;
        bindings[n++] = (struct mo_binding){ g->inputs[i], shape };
    }
    enum mopt_status status = mo_infer(ctx, g, bindings, n);
    mo_mem_free(bindings);
    return status;
}

/* ---- for operators ---- */

void mo_set_out(struct mo_graph *g, const struct mo_node *n, uint32_t i, enum mo_dtype dtype,
                const struct mo_shape *shape)
{
    if (i >= n->n_out || n->out[i] == MO_NONE)
        return;
    struct mo_value *v = &g->values[n->out[i]];
    if (dtype != MO_UNDEFINED)
        v->dtype = dtype;
    v->shape = *shape;
}

static bool is_integer(enum mo_dtype dtype)
{
    return dtype == MO_I64 || dtype == MO_I32 || dtype == MO_I16 || dtype == MO_I8 || dtype == MO_U8 ||
           dtype == MO_U16 || dtype == MO_U32 || dtype == MO_U64 || dtype == MO_BOOL;
}

int64_t *mo_known_out(struct mo_graph *g, const struct mo_node *n, uint32_t i)
{
    if (i >= n->n_out || n->out[i] == MO_NONE)
        return NULL;
    struct mo_value *v = &g->values[n->out[i]];
    int64_t count = mo_shape_elems(&v->shape);
    if (!is_integer(v->dtype) || count < 0 || count > MAX_KNOWN)
        return NULL;
    int64_t *known = mo_arena_new(g->arena, (size_t)MO_MAX(count, 1), sizeof *known);
    for (int64_t k = 0; known && k < count; k++)
        known[k] = MO_VALUE_UNKNOWN;
    v->known = known;
    return known;
}

static int64_t int_at(const struct mo_value *v, int64_t k)
{
    switch (v->dtype) {
    case MO_I64: case MO_U64: return ((const int64_t *)v->data)[k];
    case MO_I32: return ((const int32_t *)v->data)[k];
    case MO_U32: return ((const uint32_t *)v->data)[k];
    case MO_I16: return ((const int16_t *)v->data)[k];
    case MO_U16: return ((const uint16_t *)v->data)[k];
    case MO_I8: return ((const int8_t *)v->data)[k];
    case MO_U8: case MO_BOOL: return ((const uint8_t *)v->data)[k];
    default: return MO_VALUE_UNKNOWN;
    }
}

int64_t mo_known_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i, int64_t k)
{
    const struct mo_value *v = mo_in(g, n, i);
    if (!v || k < 0)
        return MO_VALUE_UNKNOWN;
    int64_t count = mo_shape_elems(&v->shape);
    if (count < 0 || k >= count)
        return MO_VALUE_UNKNOWN;
    if (v->data)
        return int_at(v, k);
    return v->known ? v->known[k] : MO_VALUE_UNKNOWN;
}

struct mo_shape mo_operand_shape(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *a = &mo_in(g, n, 0)->shape;
    struct mo_shape b = mo_in(g, n, 1)->shape;
    bool is_slope = mo_node_is(n, "PRelu") && b.rank == 1;
    if (g->opset >= 7 || a->rank < 1 || b.rank == MO_UNKNOWN || (!is_slope && !mo_node_attr(n, "axis")))
        return b;
    int64_t axis = mo_node_int(n, "axis", 1);
    axis += axis < 0 ? a->rank : 0;
    while (axis >= 0 && b.rank < a->rank - axis)
        b.dim[b.rank++] = 1;
    return b;
}

enum mopt_status mo_axis(struct mopt_ctx *ctx, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return mo_fail(ctx, MOPT_DATA, "axis %lld is not within a rank of %d", (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return MOPT_OK;
}

enum mopt_status mo_axes(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, uint32_t input_index,
                         int rank, int *axes, int *n_axes)
{
    int64_t given[MO_MAX_RANK];
    const struct mo_value *v = mo_in(g, n, input_index);
    *n_axes = -1;
    int count = -1;
    if (v) {
        count = mo_value_ints(v, given, MO_MAX_RANK);
        if (count < 0)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "axes in '%s' are computed by the model", v->name);
    } else if (mo_node_attr(n, "axes")) {
        size_t n_ints = 0;
        const int64_t *ints = mo_node_ints(n, "axes", &n_ints);
        if (n_ints > MO_MAX_RANK)
            return mo_fail(ctx, MOPT_DATA, "%zu axes, at most %d are possible", n_ints, MO_MAX_RANK);
        count = (int)n_ints;
        if (n_ints)
            memcpy(given, ints, n_ints * sizeof *given);
    }
    for (int i = 0; i < count; i++)
        MO_TRY(mo_axis(ctx, given[i], rank, &axes[i]));
    *n_axes = count;
    return MOPT_OK;
}
