/* upgrade.c - a model brought to a newer opset, one row a change of the ONNX operator changelog that touches meaning:
 *
 *   7   broadcasting is numpy's, `axis` and `broadcast` go       Upsample: scales instead of height and width
 *       Dropout, BatchNormalization: no `is_test`                RNN, GRU, LSTM: no `output_sequence`
 *   9   Upsample: scales become an input                         BatchNormalization: no `spatial`
 *       Scan: without a batch
 *   10  Slice, TopK: numbers become inputs                       Upsample ends, Resize takes over
 *       Dropout: the mask is boolean
 *   11  Clip, Pad: numbers become inputs                         Resize: roi; its old meaning is asymmetric, floor
 *       Scatter is called ScatterElements
 *   12  Dropout: ratio becomes an input
 *   13  Squeeze, Unsqueeze, ReduceSum, Split: likewise           Resize: no tf_half_pixel_for_nn
 *       Softmax, LogSoftmax, Hardmax: over one axis, no longer over all from `axis` on
 *   14  BatchNormalization: training_mode, other outputs
 *   16  RoiAlign: coordinates are shifted by half unless told not to
 *   18  all other Reduces: axes become an input                  Split: num_outputs
 *   20  GridSample: names of modes                               DFT: axis becomes an input
 *   21  GroupNormalization: scale and bias a channel, not a group
 *
 * What else changed up to 25 are types, defaults that say what went without saying, and new attributes whose defaults
 * are the old meaning. Subgraphs are upgraded with the graph they are in. */
#include "lib/passes/upgrade.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/graph/op.h"

/* Nodes without a form in the new opset, in words. */
struct refused { uint32_t n; size_t n_bytes; char text[700]; };

struct upgrade { struct mopt_ctx *ctx; struct mo_graph *g; mo_node_id i; int from, to; struct refused *refused; };
typedef enum mopt_status upgrade_fn(struct upgrade *u);

static struct mo_node *node(struct upgrade *u)
{
    return &u->g->nodes[u->i];
}

static enum mopt_status full(struct upgrade *u)
{
    return mo_no_memory(u->ctx, 256, "the upgrade of a node");
}

/* The node is noted and left; the others are still looked at. */
static enum mopt_status __attribute__((format(printf, 2, 3))) refuse(struct upgrade *u, const char *fmt, ...)
{
    struct refused *r = u->refused;
    char label[160], why[160], words[340];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    int n = snprintf(words, sizeof words, "%s%s: %s", r->n ? "; " : "", mo_node_label(u->g, node(u), label, sizeof label), why);
    r->n++;
    if (n < 0 || r->n_bytes + (size_t)n >= sizeof r->text)
        return MOPT_OK;
    memcpy(r->text + r->n_bytes, words, (size_t)n + 1);
    r->n_bytes += (size_t)n;
    return MOPT_OK;
}

/* The name of the node, or when it has none that of its first output. */
static const char *name_of(struct upgrade *u)
{
    const struct mo_node *n = node(u);
    return n->name[0] || !n->n_out || n->out[0] == MO_NONE ? n->name : u->g->values[n->out[0]].name;
}

static mo_value_id add_const(struct upgrade *u, const char *what, enum mo_dtype dtype, const struct mo_shape *shape,
                             const void *data)
{
    const char *name = mo_arena_printf(u->g->arena, "%s_%s", name_of(u), what);
    return name ? mo_graph_add_const(u->g, name, dtype, shape, data) : MO_NONE;
}

/* A new node before this one, which makes one value. */
static mo_value_id add_before(struct upgrade *u, const char *type, const mo_value_id *in, uint32_t n_in, const char *what,
                              enum mo_dtype dtype, const struct mo_shape *shape)
{
    const char *name = mo_arena_printf(u->g->arena, "%s_%s", name_of(u), what);
    mo_value_id y = name ? mo_graph_add_value(u->g, name, dtype, shape) : MO_NONE;
    if (y == MO_NONE || mo_graph_add_node(u->g, type, NULL, name, in, n_in, &y, 1) == MO_NONE)
        return MO_NONE;
    return y;
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
    const struct mo_value *data = mo_in(u->g, node(u), 0);
    struct mo_shape scalar = { .rank = 0 };
    enum mo_dtype dtype = data ? data->dtype : MO_UNDEFINED;
    if (!a)
        return MOPT_OK;
    float x = a->f;
    double wide = a->f;
    uint16_t half = dtype == MO_BF16 ? mo_f32_to_bf16(x) : mo_f32_to_f16(x);
    const void *number = dtype == MO_F64 ? (const void *)&wide : dtype == MO_F32 ? (const void *)&x : (const void *)&half;
    if (!mo_dtype_is_float(dtype))
        return refuse(u, "attribute '%s' of a %s operand has no form in opset %d", attr, mo_dtype_name(dtype), u->to);
    mo_value_id v = add_const(u, attr, dtype, &scalar, number);
    mo_node_drop_attr(u->g, u->i, attr);
    return set_input(u, k, v);
}

/* ---- 7 ------------------------------------------------------------------------------------- */

/* Axes of 1 behind the second operand, so that numpy's rule aligns it as `axis` said. */
static enum mopt_status broadcast(struct upgrade *u)
{
    const struct mo_value *a = mo_in(u->g, node(u), 0), *b = mo_in(u->g, node(u), 1);
    bool has_axis = mo_node_attr(node(u), "axis") || mo_node_is(node(u), "PRelu");
    struct mo_shape shape = mo_operand_shape(u->g, node(u)), list = { .rank = 1, .dim = { shape.rank } };
    int n_free = 0;
    if (has_axis && (a->shape.rank == MO_UNKNOWN || b->shape.rank == MO_UNKNOWN))
        return refuse(u, "the ranks of its operands are not known, which opset 7 needs");
    for (int k = 0; k < shape.rank; k++)
        n_free += shape.dim[k] == MO_UNKNOWN;       /* -1, which Reshape reads as what is left */
    if (has_axis && shape.rank != b->shape.rank) {
        if (n_free > 1)
            return refuse(u, "the shape of its second operand is not known, which opset 7 needs");
        enum mo_dtype dtype = b->dtype;
        mo_value_id in[2] = { node(u)->in[1], add_const(u, "shape", MO_I64, &list, shape.dim) };
        mo_value_id y = in[1] == MO_NONE ? MO_NONE : add_before(u, "Reshape", in, 2, "aligned", dtype, &shape);
        MO_TRY(set_input(u, 1, y));
    }
    mo_node_drop_attr(u->g, u->i, "axis");
    mo_node_drop_attr(u->g, u->i, "broadcast");
    return MOPT_OK;
}

static enum mopt_status gemm(struct upgrade *u)
{
    mo_node_drop_attr(u->g, u->i, "broadcast");
    return MOPT_OK;
}

static enum mopt_status is_test(struct upgrade *u)
{
    if (mo_node_is(node(u), "BatchNormalization") && !mo_node_int(node(u), "is_test", 0))
        return refuse(u, "it takes its statistics from the batch (is_test=0)");
    mo_node_drop_attr(u->g, u->i, "is_test");
    return MOPT_OK;
}

static enum mopt_status recurrent(struct upgrade *u)
{
    mo_node_drop_attr(u->g, u->i, "output_sequence");
    return MOPT_OK;
}

static enum mopt_status upsample_sides(struct upgrade *u)
{
    const float scales[4] = { 1, 1, mo_node_float(node(u), "height_scale", 1), mo_node_float(node(u), "width_scale", 1) };
    struct mo_shape four = { .rank = 1, .dim = { 4 } };
    if (!mo_node_attr(node(u), "height_scale") && !mo_node_attr(node(u), "width_scale"))
        return MOPT_OK;
    mo_node_drop_attr(u->g, u->i, "height_scale");
    mo_node_drop_attr(u->g, u->i, "width_scale");
    if (u->to < 9)
        return mo_node_set_floats(u->g, u->i, "scales", scales, 4) ? MOPT_OK : full(u);
    return set_input(u, 1, add_const(u, "scales", MO_F32, &four, scales));
}

/* ---- 9, 10, 11, 12 ---------------------------------------------------------------------------- */

static enum mopt_status batchnorm(struct upgrade *u)
{
    if (!mo_node_int(node(u), "spatial", 1))
        return refuse(u, "spatial=0 has no form in opset %d", u->to);
    mo_node_drop_attr(u->g, u->i, "spatial");
    return MOPT_OK;
}

static enum mopt_status scan(struct upgrade *u)
{
    return refuse(u, "Scan of opset 8 has no form in opset %d", u->to);
}

static enum mopt_status upsample(struct upgrade *u)
{
    const struct mo_attr *a = mo_node_attr(node(u), "scales");
    if (!a)
        return node(u)->n_in > 1 ? MOPT_OK : refuse(u, "it has no scales");
    struct mo_shape shape = { .rank = 1, .dim = { (int64_t)a->n } };
    mo_value_id scales = add_const(u, "scales", MO_F32, &shape, a->floats);
    mo_node_drop_attr(u->g, u->i, "scales");
    return set_input(u, 1, scales);
}

static enum mopt_status rename_to(struct upgrade *u, const char *type)
{
    node(u)->type = mo_arena_text(u->g->arena, type);
    return node(u)->type ? MOPT_OK : full(u);
}

static enum mopt_status upsample_ends(struct upgrade *u)
{
    if (!strcmp(mo_node_text(node(u), "mode", "nearest"), "bilinear") && !mo_node_set_text(u->g, u->i, "mode", "linear"))
        return full(u);
    return rename_to(u, "Resize");
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

static enum mopt_status scatter(struct upgrade *u)
{
    return rename_to(u, "ScatterElements");
}

/* Inputs x, scales: asymmetric, floor. Inputs x, roi, scales; roi may be left out from 13 on, and is empty until then. */
static enum mopt_status resize(struct upgrade *u)
{
    struct mo_shape none = { .rank = 1, .dim = { 0 } };
    mo_value_id scales = node(u)->n_in > 1 ? node(u)->in[1] : MO_NONE;
    mo_value_id roi = u->to < 13 ? add_const(u, "roi", MO_F32, &none, NULL) : MO_NONE;
    if (scales == MO_NONE)
        return refuse(u, "it has no scales");
    MO_TRY(set_input(u, 2, scales));
    node(u)->in[1] = roi;
    if ((u->to < 13 && roi == MO_NONE) ||
        !mo_node_set_text(u->g, u->i, "coordinate_transformation_mode", "asymmetric") ||
        !mo_node_set_text(u->g, u->i, "nearest_mode", "floor"))
        return full(u);
    return MOPT_OK;
}

static enum mopt_status mask(struct upgrade *u)
{
    const struct mo_value *y = mo_out(u->g, node(u), 1);
    if (y && y->n_uses)
        return refuse(u, "its mask is read, which is boolean from opset 10 on");
    return MOPT_OK;
}

/* Outside of training the ratio says nothing; the output is the input. */
static enum mopt_status dropout(struct upgrade *u)
{
    const struct mo_attr *a = mo_node_attr(node(u), "ratio");
    struct mo_shape scalar = { .rank = 0 };
    if (!a)
        return MOPT_OK;
    mo_value_id v = add_const(u, "ratio", MO_F32, &scalar, &a->f);
    mo_node_drop_attr(u->g, u->i, "ratio");
    return set_input(u, 1, v);
}

/* ---- 13 and later -------------------------------------------------------------------------------- */

static enum mopt_status axes_to_input(struct upgrade *u)
{
    size_t n;
    const int64_t *axes = mo_node_ints(node(u), "axes", &n);
    if (axes && !n && strncmp(node(u)->type, "Reduce", 6) == 0) {     /* all of them, as without */
        mo_node_drop_attr(u->g, u->i, "axes");
        return MOPT_OK;
    }
    return ints_to_input(u, "axes", 1);
}

static enum mopt_status split(struct upgrade *u)
{
    return ints_to_input(u, "split", 1);
}

static enum mopt_status split_evenly(struct upgrade *u)
{
    if (mo_in(u->g, node(u), 1))
        return MOPT_OK;
    return mo_node_set_int(u->g, u->i, "num_outputs", node(u)->n_out) ? MOPT_OK : full(u);
}

static enum mopt_status resize_places(struct upgrade *u)
{
    const char *place = mo_node_text(node(u), "coordinate_transformation_mode", "half_pixel");
    if (!strcmp(place, "tf_half_pixel_for_nn"))
        return refuse(u, "coordinate_transformation_mode '%s' ended with opset 12", place);
    return MOPT_OK;
}

/* Integers went with opset 13. */
static enum mopt_status erf_of_floats(struct upgrade *u)
{
    const struct mo_value *x = mo_in(u->g, node(u), 0);
    return mo_dtype_is_float(x->dtype) || x->dtype == MO_UNDEFINED ? MOPT_OK : refuse(u, "Erf of integers ended with opset 12");
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
        return refuse(u, "the rank of its input is not known, which opset 13 needs");
    const char *base = name_of(u);
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

/* Further outputs meant training, and were four until opset 13. */
static enum mopt_status batchnorm_outputs(struct upgrade *u)
{
    for (uint32_t k = 1; k < node(u)->n_out; k++)
        if (node(u)->out[k] != MO_NONE)
            return refuse(u, "it is in its form for training, which has other outputs from opset 14 on");
    node(u)->n_out = 1;
    return MOPT_OK;
}

static enum mopt_status roi_align(struct upgrade *u)
{
    return mo_node_set_text(u->g, u->i, "coordinate_transformation_mode", "output_half_pixel") ? MOPT_OK : full(u);
}

static enum mopt_status grid_sample(struct upgrade *u)
{
    const char *mode = mo_node_text(node(u), "mode", "bilinear");
    const char *name = !strcmp(mode, "bilinear") ? "linear" : !strcmp(mode, "bicubic") ? "cubic" : mode;
    return mo_node_set_text(u->g, u->i, "mode", name) ? MOPT_OK : full(u);
}

static enum mopt_status dft(struct upgrade *u)
{
    int64_t axis = mo_node_int(node(u), "axis", 1);
    struct mo_shape scalar = { .rank = 0 };
    mo_value_id v = add_const(u, "axis", MO_I64, &scalar, &axis);
    mo_node_drop_attr(u->g, u->i, "axis");
    return set_input(u, 2, v);
}

/* Each number of a group repeated for its channels: g becomes g x 1, g x channels, all in a row. */
static mo_value_id repeat(struct upgrade *u, uint32_t k, int64_t n_groups, int64_t each)
{
    const struct mo_shape two = { .rank = 1, .dim = { 2 } }, one = { .rank = 1, .dim = { 1 } };
    const struct mo_shape column = { .rank = 2, .dim = { n_groups, 1 } }, matrix = { .rank = 2, .dim = { n_groups, each } };
    const struct mo_shape row = { .rank = 1, .dim = { n_groups * each } };
    const int64_t all = -1;
    enum mo_dtype dtype = mo_in(u->g, node(u), k)->dtype;
    mo_value_id in[2] = { node(u)->in[k], add_const(u, "column", MO_I64, &two, column.dim) };
    if (in[1] == MO_NONE || (in[0] = add_before(u, "Reshape", in, 2, "of_groups", dtype, &column)) == MO_NONE ||
        (in[1] = add_const(u, "matrix", MO_I64, &two, matrix.dim)) == MO_NONE ||
        (in[0] = add_before(u, "Expand", in, 2, "repeated", dtype, &matrix)) == MO_NONE ||
        (in[1] = add_const(u, "row", MO_I64, &one, &all)) == MO_NONE)
        return MO_NONE;
    return add_before(u, "Reshape", in, 2, "of_channels", dtype, &row);
}

static enum mopt_status groupnorm(struct upgrade *u)
{
    int64_t n_groups = mo_node_int(node(u), "num_groups", 0);
    const struct mo_value *x = mo_in(u->g, node(u), 0);
    int64_t n_channels = x->shape.rank > 1 ? x->shape.dim[1] : MO_UNKNOWN;
    if (n_channels <= 0 || n_groups <= 0 || n_channels % n_groups)
        return refuse(u, "its channels are not known, which opset 21 needs");
    for (uint32_t k = 1; k < 3; k++) {
        mo_value_id v = repeat(u, k, n_groups, n_channels / n_groups);
        MO_TRY(set_input(u, k, v));
    }
    return MOPT_OK;
}

/* In order of opsets: what one row makes of a node the next may go on with. */
static const struct { const char *type; int since; upgrade_fn *fn; } rewrites[] = {
    { "Add", 7, broadcast }, { "Sub", 7, broadcast }, { "Mul", 7, broadcast }, { "Div", 7, broadcast }, { "Pow", 7, broadcast },
    { "And", 7, broadcast }, { "Or", 7, broadcast }, { "Xor", 7, broadcast }, { "Greater", 7, broadcast },
    { "Less", 7, broadcast }, { "Equal", 7, broadcast }, { "PRelu", 7, broadcast }, { "Gemm", 7, gemm },
    { "Dropout", 7, is_test }, { "BatchNormalization", 7, is_test }, { "Upsample", 7, upsample_sides },
    { "RNN", 7, recurrent }, { "GRU", 7, recurrent }, { "LSTM", 7, recurrent },
    { "BatchNormalization", 9, batchnorm }, { "Scan", 9, scan }, { "Upsample", 9, upsample },
    { "Slice", 10, slice }, { "TopK", 10, top_k }, { "Dropout", 10, mask }, { "Upsample", 10, upsample_ends },
    { "Clip", 11, clip }, { "Pad", 11, pad }, { "Resize", 11, resize }, { "Scatter", 11, scatter },
    { "Dropout", 12, dropout },
    { "Squeeze", 13, axes_to_input }, { "Unsqueeze", 13, axes_to_input }, { "ReduceSum", 13, axes_to_input },
    { "Split", 13, split }, { "Resize", 13, resize_places }, { "Erf", 13, erf_of_floats },
    { "Softmax", 13, softmax }, { "LogSoftmax", 13, softmax }, { "Hardmax", 13, softmax },
    { "BatchNormalization", 14, batchnorm_outputs },
    { "RoiAlign", 16, roi_align },
    { "ReduceL1", 18, axes_to_input }, { "ReduceL2", 18, axes_to_input }, { "ReduceLogSum", 18, axes_to_input },
    { "ReduceLogSumExp", 18, axes_to_input }, { "ReduceMax", 18, axes_to_input }, { "ReduceMean", 18, axes_to_input },
    { "ReduceMin", 18, axes_to_input }, { "ReduceProd", 18, axes_to_input }, { "ReduceSumSquare", 18, axes_to_input },
    { "Split", 18, split_evenly },
    { "GridSample", 20, grid_sample }, { "DFT", 20, dft },
    { "GroupNormalization", 21, groupnorm },
};

/* Operators that mopt cannot run, and whose inputs, outputs and attributes no opset changed. */
static bool is_unchanged(const char *type)
{
    static const char *const types[] = { "ConcatFromSequence", "ImageDecoder", "Optional", "OptionalGetElement",
        "OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
        "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence", "StringConcat", "StringNormalizer",
        "StringSplit", "Constant" };
    for (size_t i = 0; i < MO_COUNT(types); i++)
        if (!strcmp(types[i], type))
            return true;
    return false;
}

static enum mopt_status upgrade_graph(struct upgrade *all, struct mo_graph *g)
{
    mo_node_id n_nodes = g->n_nodes;        /* those that rewriting adds are new already */
    for (mo_node_id i = 0; i < n_nodes; i++) {
        struct upgrade u = *all;
        u.g = g;
        u.i = i;
        bool is_default = !node(&u)->domain[0] || !strcmp(node(&u)->domain, "ai.onnx");
        if (is_default && !node(&u)->op && !mo_op_find(node(&u)->type, "", all->to) && !is_unchanged(node(&u)->type))
            MO_TRY(refuse(&u, "an operator that is not known"));
        for (size_t k = 0; k < MO_COUNT(rewrites); k++)
            if (u.from < rewrites[k].since && rewrites[k].since <= u.to && mo_node_is(node(&u), rewrites[k].type))
                MO_TRY(rewrites[k].fn(&u));
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t s = 0; g->nodes[i].attrs[a].graphs && s < g->nodes[i].attrs[a].n; s++)
                MO_TRY(upgrade_graph(all, g->nodes[i].attrs[a].graphs[s]));
    }
    g->opset = all->to;
    return all->refused->n ? MOPT_OK : mo_graph_sort(all->ctx, g);
}

/* The oldest IR that may say this opset (onnx/helper.py, VERSION_TABLE). */
static int64_t ir_of(int opset)
{
    static const struct { int opset, ir; } since[] = { { 25, 13 }, { 24, 12 }, { 23, 11 }, { 21, 10 }, { 19, 9 }, { 15, 8 },
                                                       { 12, 7 }, { 11, 6 }, { 10, 5 }, { 9, 4 } };
    for (size_t i = 0; i < MO_COUNT(since); i++)
        if (opset >= since[i].opset)
            return since[i].ir;
    return 3;
}

enum mopt_status mo_upgrade(struct mopt_ctx *ctx, struct mopt_model *model, int opset)
{
    int from = (int)mo_model_opset(model, "");
    struct refused refused = { 0 };
    uint32_t n_inlined = 0;
    struct upgrade all = { .ctx = ctx, .from = from, .to = opset, .refused = &refused };
    if (from >= opset)
        return MOPT_OK;
    if (opset > MO_OPSET_NEWEST || from < MO_OPSET_OLDEST)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "the model is of opset %d; %d to %d can be brought to opset %d", from,
                       MO_OPSET_OLDEST, MO_OPSET_NEWEST - 1, MO_MIN(opset, (int)MO_OPSET_NEWEST));
    if (model->n_functions)
        MO_TRY(mo_model_inline(ctx, model, &n_inlined));
    MO_TRY(mo_infer(ctx, &model->graph, NULL, 0));
    MO_TRY(upgrade_graph(&all, &model->graph));
    if (refused.n)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "opset %d cannot become %d for %u node%s: %s%s", from, opset, refused.n,
                       refused.n > 1 ? "s" : "", refused.text, refused.n_bytes + 200 > sizeof refused.text ? " ..." : "");
    if (!mo_model_set_opset(model, "", opset))
        return mo_no_memory(ctx, 64, "the opset");
    model->ir_version = MO_MAX(model->ir_version, ir_of(opset));
    mo_log(ctx, "upgrade", "opset %d brought to %d", from, opset);
    return MOPT_OK;
}
