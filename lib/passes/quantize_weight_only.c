/* quantize_weight_only.c - weights of Conv, Gemm, MatMul and Gather stored as int8 with a scale a channel, or as int4 with a
 * scale for each block of inputs, and put back to float by DequantizeLinear; everything is computed in float, no data is
 * needed. ONNX Runtime makes one MatMulNBits of MatMul and the DequantizeLinear of its int4 weight.
 *
 * A weight is left alone where its integers and scales would not be smaller, or hardly fill a block. */
#include <string.h>

#include "lib/base/spill.h"
#include "lib/graph/large.h"
#include "lib/passes/quantize.h"

struct job {
    struct mo_job *job;
    struct mo_graph *g;
    const struct mo_quant_form *form;
    int64_t block;              /* of int4; 0: int8 */
    bool symmetric;
    uint32_t n_done;
};

/* A weight as it is stored; what points is taken over. */
struct stored {
    enum mo_dtype dtype;
    struct mo_shape scales;
    void *codes, *scale, *zeros;        /* zeros NULL: all 0 */
    int axis;                           /* MO_UNKNOWN: one scale */
    int64_t block;
    double sqnr_db;
};

/* The axis that products are summed over, of the same weights that have an axis of output channels: Gemm 0 or 1, MatMul and
 * the input channels of Conv. */
static int sum_axis(const struct mo_graph *g, const struct mo_node *n)
{
    int axis = mo_quant_weight_axis(g, n, true);
    return mo_node_is(n, "ConvTranspose") ? MO_UNKNOWN : axis == MO_UNKNOWN ? axis : 1 - axis;
}

/* Which constant of the node is stored as integers, and along which axis the scales differ; false: none. A table of a
 * Gather has a row a word. */
static bool weight_of(const struct job *j, const struct mo_node *n, uint32_t *k, int *axis)
{
    const struct mo_graph *g = j->g;
    if (mo_node_is(n, "Gather")) {
        const struct mo_value *table = mo_in(g, n, 0);
        *k = 0;
        *axis = j->block ? 1 : j->form->per_channel ? 0 : MO_UNKNOWN;
        return table && table->data && table->dtype == MO_F32 && table->shape.rank == 2;
    }
    *k = 1;
    *axis = j->block ? sum_axis(g, n) : mo_quant_weight_axis(g, n, j->form->per_channel);
    return n->op && n->op->quant.kind == MO_QUANT_WEIGHTED && mo_in(g, n, 1) && mo_in(g, n, 1)->data;
}

static const char smaller[] = "its weight would not become smaller", few[] = "too few inputs to fill half a block";

static const char *obstacle(const struct job *j, mo_value_id w, int axis)
{
    const struct mo_value *v = &j->g->values[w];
    if (v->dtype != MO_F32)
        return "its weight is not float32";
    if (v->is_output)
        return "its weight is an output of the graph";
    if (j->block && axis == MO_UNKNOWN)
        return "its weight has no axis to make blocks along";
    if (j->block)
        return 2 * v->shape.dim[axis] < j->block ? few : NULL;
    int64_t n = mo_value_elems(v), n_scales = axis == MO_UNKNOWN ? 1 : v->shape.dim[axis];
    return n + 5 * n_scales >= 4 * n ? smaller : NULL;
}

static mo_value_id add_part(struct job *j, const char *base, const char *suffix, enum mo_dtype dtype,
                            const struct mo_shape *shape, void **data)
{
    const char *name = mo_arena_printf(j->job->scratch, "%s_%s", base, suffix);
    mo_value_id v = MO_NONE;
    if (name) {
        mo_mem_forget(*data);
        v = mo_quant_add_const(j->g, name, dtype, shape, *data);
        *data = NULL;
    }
    return v;
}

/* What was `w` becomes the output of a DequantizeLinear that every reader of w goes on reading. */
static enum mopt_status store(struct job *j, mo_value_id w, struct stored *s)
{
    struct mo_graph *g = j->g;
    struct mo_shape shape = g->values[w].shape;
    const char *base = g->values[w].name;
    const char *names[] = { mo_arena_printf(j->job->scratch, "%s_dequantized", base),
                            mo_arena_printf(j->job->scratch, "%s_DequantizeLinear", base) };
    uint32_t n_in = s->zeros ? 3 : 2;
    mo_value_id in[3], y = MO_NONE;
    if (names[0] && names[1] && (in[0] = add_part(j, base, "quantized", s->dtype, &shape, &s->codes)) != MO_NONE &&
        (in[1] = add_part(j, base, "scale", MO_F32, &s->scales, &s->scale)) != MO_NONE &&
        (n_in == 2 || (in[2] = add_part(j, base, "zero_point", s->dtype, &s->scales, &s->zeros)) != MO_NONE))
        y = mo_graph_add_value(g, names[0], MO_F32, &shape);
    if (y == MO_NONE)
        return mo_no_memory(j->job->ctx, 1 << 10, "a weight");
    mo_graph_replace_uses(g, w, y);
    mo_node_id dq = mo_graph_add_node(g, "DequantizeLinear", NULL, names[1], in, n_in, &y, 1);
    if (dq == MO_NONE || (s->axis != MO_UNKNOWN && !mo_node_set_int(g, dq, "axis", s->axis)) ||
        (s->block && !mo_node_set_int(g, dq, "block_size", s->block)))
        return mo_no_memory(j->job->ctx, 64, "a node");
    return MOPT_OK;
}

static enum mopt_status to_int8(struct job *j, const struct mo_value *w, int axis, struct stored *s)
{
    struct mo_quant_weight qw;
    MO_TRY(mo_quant_weight(j->job->ctx, w, axis, j->form->weight_max, NULL, &qw));
    *s = (struct stored){ .dtype = MO_I8, .scales = { .rank = axis == MO_UNKNOWN ? 0 : 1, .dim = { qw.n_scales } },
                          .codes = qw.q, .scale = qw.scale, .zeros = mo_mem_new((size_t)qw.n_scales, 1), .axis = axis,
                          .sqnr_db = qw.sqnr_db };
    return s->zeros ? MOPT_OK : mo_no_memory(j->job->ctx, (uint64_t)qw.n_scales, "zero points");
}

static enum mopt_status to_int4(struct job *j, const struct mo_value *w, int axis, struct stored *s)
{
    struct mo_quant_blocks b;
    MO_TRY(mo_quant_in_blocks(j->job->ctx, w, axis, j->block, j->symmetric, &b));
    *s = (struct stored){ .dtype = b.dtype, .scales = b.scales, .codes = b.codes, .scale = b.scale, .zeros = b.zeros,
                          .axis = axis, .block = b.block, .sqnr_db = b.sqnr_db };
    return MOPT_OK;
}

static enum mopt_status take(struct job *j, mo_node_id i, uint32_t k, int axis)
{
    struct mopt_report *row = NULL;
    struct stored s = { 0 };
    const struct mo_value *w = mo_in(j->g, &j->g->nodes[i], k);
    const char *name = mo_quant_name(j->g, &j->g->nodes[i]),
               *form = axis == MO_UNKNOWN ? "int8 per tensor" : "int8 per channel";
    enum mopt_status status = j->block ? to_int4(j, w, axis, &s) : to_int8(j, w, axis, &s);
    mo_constant_forget(j->job->ctx, j->job->model, w);
    if (!status)
        status = store(j, j->g->nodes[i].in[k], &s);
    mo_mem_free(s.codes);
    mo_mem_free(s.scale);
    mo_mem_free(s.zeros);
    MO_TRY(status);
    if (j->block)
        form = mo_arena_printf(j->job->scratch, "%s in blocks of %lld", mo_dtype_name(s.dtype), (long long)j->block);
    j->n_done++;
    MO_TRY(mo_audit(j->job, name, j->block ? "weights int4" : "weights int8", NULL, &row));
    mo_report_set_text(row, "weights", form ? form : "");
    mo_report_set_number(row, "weight_sqnr_db", s.sqnr_db);
    return MOPT_OK;
}

static enum mopt_status visit(struct job *j, mo_node_id i, bool is_selected)
{
    uint32_t k;
    int axis;
    const struct mo_node *n = &j->g->nodes[i];
    if (!weight_of(j, n, &k, &axis))
        return MOPT_OK;
    const char *why = obstacle(j, n->in[k], axis);
    if (!is_selected)
        return mo_audit(j->job, mo_quant_name(j->g, n), "float", "not selected", NULL);
    if (why == smaller || why == few)
        return mo_audit(j->job, mo_quant_name(j->g, n), "float", why, NULL);
    return why ? mo_audit_skip(j->job, mo_quant_name(j->g, n), why) : take(j, i, k, axis);
}

enum mopt_status mo_quantize_weight_only(struct mo_job *job, const struct mo_quantize_options *options)
{
    struct mo_quant_form form = mo_quant_form(options);
    struct mo_graph *g = &job->model->graph;
    struct job j = { .job = job, .g = g, .form = &form, .symmetric = !options->asymmetric };
    form.weight_max = 127;
    j.block = options->weight_only == 2 ? options->block : 0;
    if (j.block)
        MO_TRY(mo_upgrade(job->ctx, job->model, 21));
    else if (form.per_channel)
        MO_TRY(mo_upgrade(job->ctx, job->model, 13));
    else if (mo_model_opset(job->model, "") < 10)
        MO_TRY(mo_upgrade(job->ctx, job->model, 13));
    mo_quant_free_initializers(job->model);
    MO_TRY(mo_infer(job->ctx, g, NULL, 0));
    MO_TRY(mo_fold_constants(job->ctx, g, MO_QUANT_FOLD_BYTES, NULL));
    mo_graph_sweep(g);
    uint32_t n_nodes = g->n_nodes;
    enum mo_quant_wish *wish = mo_arena_new(job->scratch, MO_MAX(n_nodes, 1u), sizeof *wish);
    if (!wish)
        return mo_no_memory(job->ctx, n_nodes, "the plan");
    MO_TRY(mo_quant_selection(job, g, wish));
    for (mo_node_id i = 0; i < n_nodes; i++)
        MO_TRY(visit(&j, i, wish[i]));
    mo_report_set_int(job->report, "layers", j.n_done);
    if (!j.n_done)
        return mo_fail(job->ctx, MOPT_UNSUPPORTED, "no weight can be stored as %s", j.block ? "int4" : "int8");
    MO_TRY(mo_graph_sort(job->ctx, g));
    mo_graph_drop_unused(g);
    return mo_infer(job->ctx, g, NULL, 0);
}
