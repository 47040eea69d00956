/* upgrade.c - a model of opset 7 to 12 brought to opset 13, which per-channel QuantizeLinear and
 * DequantizeLinear need (ONNX operator changelog).
 *
 *   9   Upsample: scales become an input             BatchNormalization: no `spatial`
 *   10  Slice, TopK: numbers become inputs           Upsample ends, Resize takes over
 *   11  Clip, Pad: likewise                          Resize: roi; its old meaning is asymmetric, floor
 *       Scatter is called ScatterElements
 *   12  Dropout: ratio becomes an input
 *   13  Squeeze, Unsqueeze, ReduceSum, Split: likewise
 *       Softmax, LogSoftmax, Hardmax: over one axis, no longer over all from `axis` on
 *
 * Subgraphs are upgraded with the graph they are in. A node whose meaning cannot be kept is refused by name. */
#include <string.h>

#include "lib/passes/quantize.h"

#define NEWEST 13
#define OLDEST 7

struct upgrade { struct mopt_ctx *ctx; struct mo_graph *g; mo_node_id i; };
typedef enum mopt_status upgrade_fn(struct upgrade *u);

static struct mo_node *node(struct upgrade *u)
{
    return &u->g->nodes[u->i];
}

static enum mopt_status full(struct upgrade *u)
{
    return mo_no_memory(u->ctx, 256, "the upgrade of a node");
}

static mo_value_id add_const(struct upgrade *u, const char *what, enum mo_dtype dtype, const struct mo_shape *shape,
                             const void *data)
{
    const char *name = mo_arena_printf(u->g->arena, "%s_%s", mo_quant_name(u->g, node(u)), what);
    return name ? mo_graph_add_const(u->g, name, dtype, shape, data) : MO_NONE;
}

/* Input k of the node becomes v; left-out inputs fill the gap. */
static enum mopt_status set_input(struct upgrade *u, uint32_t k, mo_value_id v)
{
    struct mo_node *n = node(u);
    uint32_t n_in = MO_MAX(n->n_in, k + 1);
    mo_value_id *in = mo_arena_new(u->g->arena, n_in, sizeof *in);
    if (!in || v == MO_NONE)
        return full(u);
    for (uint32_t i = 0; i < n_in; i++)
        in[i] = i < n->n_in ? n->in[i] : MO_NONE;
    in[k] = v;
    n->in = in;
    n->n_in = n_in;
    return MOPT_OK;
}

static enum mopt_status ints_to_input(struct upgrade *u, const char *attr, uint32_t k)
{
    size_t n;
    const int64_t *ints = mo_node_ints(node(u), attr, &n);
    struct mo_shape shape = { .rank = 1, .dim = { (int64_t)n } };
    if (!mo_node_attr(node(u), attr))
        return MOPT_OK;
    mo_value_id v = add_const(u, attr, MO_I64, &shape, ints);
    mo_node_drop_attr(u->g, u->i, attr);
    return set_input(u, k, v);
}

/* A number in the type of input 0. */
static enum mopt_status float_to_input(struct upgrade *u, const char *attr, uint32_t k)
{
    const struct mo_attr *a = mo_node_attr(node(u), attr);
    struct mo_shape scalar = { .rank = 0 };
    if (!a)
        return MOPT_OK;
    float x = a->f;
    double wide = a->f;
    const struct mo_value *data = mo_in(u->g, node(u), 0);
    enum mo_dtype dtype = data ? data->dtype : MO_F32;
    if (dtype == MO_UNDEFINED)
        dtype = MO_F32;
    if (dtype != MO_F32 && dtype != MO_F64)
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "attribute '%s' of a %s operand cannot be brought to opset %d", attr,
                       mo_dtype_name(dtype), NEWEST);
    mo_value_id v = add_const(u, attr, dtype, &scalar, dtype == MO_F64 ? (const void *)&wide : (const void *)&x);
    mo_node_drop_attr(u->g, u->i, attr);
    return set_input(u, k, v);
}

static enum mopt_status axes_to_input(struct upgrade *u)
{
    return ints_to_input(u, "axes", 1);
}

static enum mopt_status split(struct upgrade *u)
{
    return ints_to_input(u, "split", 1);
}

static enum mopt_status slice(struct upgrade *u)
{
    MO_TRY(ints_to_input(u, "starts", 1));
    MO_TRY(ints_to_input(u, "ends", 2));
    return ints_to_input(u, "axes", 3);
}

static enum mopt_status top_k(struct upgrade *u)
{
    int64_t k = mo_node_int(node(u), "k", 1);
    struct mo_shape shape = { .rank = 1, .dim = { 1 } };
    mo_value_id v = add_const(u, "k", MO_I64, &shape, &k);
    mo_node_drop_attr(u->g, u->i, "k");
    return set_input(u, 1, v);
}

static enum mopt_status clip(struct upgrade *u)
{
    MO_TRY(float_to_input(u, "min", 1));
    return float_to_input(u, "max", 2);
}

static enum mopt_status pad(struct upgrade *u)
{
    MO_TRY(ints_to_input(u, "pads", 1));
    return float_to_input(u, "value", 2);
}

/* Outside of training the ratio says nothing; the output is the input. */
static enum mopt_status dropout(struct upgrade *u)
{
    mo_node_drop_attr(u->g, u->i, "is_test");
    return float_to_input(u, "ratio", 1);
}

static enum mopt_status batchnorm(struct upgrade *u)
{
    if (!mo_node_int(node(u), "spatial", 1))
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "spatial=0 has no form in opset %d", NEWEST);
    mo_node_drop_attr(u->g, u->i, "spatial");
    return MOPT_OK;
}

static enum mopt_status scatter(struct upgrade *u)
{
    node(u)->type = mo_arena_text(u->g->arena, "ScatterElements");
    return node(u)->type ? MOPT_OK : full(u);
}

static enum mopt_status scan(struct upgrade *u)
{
    return mo_fail(u->ctx, MOPT_UNSUPPORTED, "Scan of opset 8 has no form in opset %d", NEWEST);
}

/* Resize-10 and Upsample: asymmetric, floor; inputs x, roi (left out), scales. */
static enum mopt_status resize(struct upgrade *u)
{
    struct mo_node *n = node(u);
    const struct mo_attr *a = mo_node_attr(n, "scales");
    mo_value_id scales = n->n_in > 1 ? n->in[1] : MO_NONE;
    if (a) {
        struct mo_shape shape = { .rank = 1, .dim = { (int64_t)a->n } };
        scales = add_const(u, "scales", MO_F32, &shape, a->floats);
        mo_node_drop_attr(u->g, u->i, "scales");
    }
    if (scales == MO_NONE)
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "it has no scales");
    MO_TRY(set_input(u, 1, scales));
    node(u)->in[1] = MO_NONE;
    MO_TRY(set_input(u, 2, scales));
    node(u)->type = mo_arena_text(u->g->arena, "Resize");
    const char *mode = mo_node_text(node(u), "mode", "nearest");
    if (!node(u)->type || (!strcmp(mode, "bilinear") && !mo_node_set_text(u->g, u->i, "mode", "linear")) ||
        !mo_node_set_text(u->g, u->i, "coordinate_transformation_mode", "asymmetric") ||
        !mo_node_set_text(u->g, u->i, "nearest_mode", "floor"))
        return full(u);
    return MOPT_OK;
}

/* Over all axes from `axis` on: Flatten, over the last, Reshape back. Where `axis` is the last one both say the same. */
static enum mopt_status softmax(struct upgrade *u)
{
    int64_t axis = mo_node_int(node(u), "axis", 1);
    mo_value_id x = node(u)->in[0], y = node(u)->out[0];
    struct mo_shape shape = u->g->values[x].shape, matrix = { .rank = 2, .dim = { MO_UNKNOWN, MO_UNKNOWN } };
    struct mo_shape dims = { .rank = 1, .dim = { shape.rank } };
    enum mo_dtype dtype = u->g->values[x].dtype;
    if (axis == -1 || (shape.rank != MO_UNKNOWN && axis == shape.rank - 1))
        return mo_node_set_int(u->g, u->i, "axis", -1) ? MOPT_OK : full(u);
    if (shape.rank == MO_UNKNOWN)
        return mo_fail(u->ctx, MOPT_UNSUPPORTED, "the rank of its input is not known, which opset %d needs", NEWEST);
    const char *base = mo_quant_name(u->g, node(u));
    const char *names[3] = { mo_arena_printf(u->g->arena, "%s_flat", base), mo_arena_printf(u->g->arena, "%s_over", base),
                             mo_arena_printf(u->g->arena, "%s_shape", base) };
    if (!names[0] || !names[1] || !names[2])
        return full(u);
    mo_value_id flat = mo_graph_add_value(u->g, names[0], dtype, &matrix);
    mo_value_id over = mo_graph_add_value(u->g, names[1], dtype, &matrix);
    mo_value_id size = mo_graph_add_value(u->g, names[2], MO_I64, &dims), back[2] = { over, size };
    if (flat == MO_NONE || over == MO_NONE || size == MO_NONE || !mo_node_set_int(u->g, u->i, "axis", -1))
        return full(u);
    node(u)->in[0] = flat;
    node(u)->out[0] = over;
    mo_node_id f = mo_graph_add_node(u->g, "Flatten", NULL, names[0], &x, 1, &flat, 1);
    if (f == MO_NONE || !mo_node_set_int(u->g, f, "axis", axis) ||
        mo_graph_add_node(u->g, "Shape", NULL, names[2], &x, 1, &size, 1) == MO_NONE ||
        mo_graph_add_node(u->g, "Reshape", NULL, names[1], back, 2, &y, 1) == MO_NONE)
        return full(u);
    return MOPT_OK;
}

static const struct { const char *type; int since; upgrade_fn *fn; } rewrites[] = {
    { "BatchNormalization", 9, batchnorm }, { "Scan", 9, scan }, { "Slice", 10, slice }, { "TopK", 10, top_k },
    { "Clip", 11, clip }, { "Pad", 11, pad }, { "Resize", 11, resize }, { "Upsample", 11, resize },
    { "Scatter", 11, scatter }, { "Dropout", 12, dropout }, { "Squeeze", 13, axes_to_input },
    { "Unsqueeze", 13, axes_to_input }, { "ReduceSum", 13, axes_to_input }, { "Split", 13, split },
    { "Softmax", 13, softmax }, { "LogSoftmax", 13, softmax }, { "Hardmax", 13, softmax },
};

static enum mopt_status upgrade_graph(struct mopt_ctx *ctx, struct mo_graph *g, int from)
{
    mo_node_id n_nodes = g->n_nodes;        /* those that rewriting adds are new already */
    for (mo_node_id i = 0; i < n_nodes; i++) {
        struct upgrade u = { ctx, g, i };
        char label[200];
        enum mopt_status status = MOPT_OK;
        for (size_t k = 0; k < MO_COUNT(rewrites) && !status; k++)
            if (from < rewrites[k].since && mo_node_is(node(&u), rewrites[k].type)) {
                status = rewrites[k].fn(&u);
                break;
            }
        for (uint32_t a = 0; a < g->nodes[i].n_attrs && !status; a++)
            for (size_t s = 0; g->nodes[i].attrs[a].graphs && s < g->nodes[i].attrs[a].n && !status; s++)
                status = upgrade_graph(ctx, g->nodes[i].attrs[a].graphs[s], from);
        if (status) {
            mo_blame(ctx, "%s", mo_node_label(g, &g->nodes[i], label, sizeof label));
            return status;
        }
    }
    g->opset = NEWEST;
    return mo_graph_sort(ctx, g);
}

enum mopt_status mo_upgrade(struct mopt_ctx *ctx, struct mopt_model *model, int opset)
{
    int from = (int)mo_model_opset(model, "");
    if (from >= opset)
        return MOPT_OK;
    if (opset > NEWEST || from < OLDEST)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "the model is of opset %d; %d to %d can be brought to opset %d", from, OLDEST,
                       NEWEST - 1, NEWEST);
    MO_TRY(mo_infer(ctx, &model->graph, NULL, 0));
    MO_TRY(upgrade_graph(ctx, &model->graph, from));
    if (!mo_model_set_opset(model, "", NEWEST))
        return mo_no_memory(ctx, 64, "the opset");
    model->ir_version = MO_MAX(model->ir_version, 7);
    mo_log(ctx, "quantize", "opset %d brought to %d, which per-channel scales need", from, NEWEST);
    return MOPT_OK;
}
