/* quantize_weight_only.c - weights of Conv, Gemm, MatMul and Gather stored as int8 with a scale a channel and put back to
 * float by DequantizeLinear; everything is computed in float, no data is needed.
 *
 * A weight is left alone where int8 and its scales would not be smaller. */
#include <string.h>

#include "lib/base/spill.h"
#include "lib/passes/quantize.h"

struct job { struct mo_job *job; struct mo_graph *g; const struct mo_quant_form *form; uint32_t n_done; };

/* Which constant of the node is stored as int8, and along which axis; false: none. A table of a Gather has a row a word. */
static bool weight_of(const struct mo_graph *g, const struct mo_node *n, bool per_channel, uint32_t *k, int *axis)
{
    if (mo_node_is(n, "Gather")) {
        const struct mo_value *table = mo_in(g, n, 0);
        *k = 0;
        *axis = per_channel ? 0 : MO_UNKNOWN;
        return table && table->data && table->dtype == MO_F32 && table->shape.rank == 2;
    }
    *k = 1;
    *axis = mo_quant_weight_axis(g, n, per_channel);
    return n->op && n->op->quant.kind == MO_QUANT_WEIGHTED && mo_in(g, n, 1) && mo_in(g, n, 1)->data;
}

static const char *obstacle(const struct mo_graph *g, mo_value_id w, int axis)
{
    const struct mo_value *v = &g->values[w];
    if (v->dtype != MO_F32)
        return "its weight is not float32";
    if (v->is_output)
        return "its weight is an output of the graph";
    int64_t n = mo_value_elems(v), n_scales = axis == MO_UNKNOWN ? 1 : v->shape.dim[axis];
    return n + 5 * n_scales >= 4 * n ? "its weight would not become smaller" : NULL;
}

/* What was `w` becomes the output of a DequantizeLinear that every reader of w goes on reading. */
static enum mopt_status store(struct job *j, mo_value_id w, struct mo_quant_weight *qw)
{
    struct mo_graph *g = j->g;
    struct mo_shape shape = g->values[w].shape, scales = { .rank = qw->axis == MO_UNKNOWN ? 0 : 1 };
    const char *base = g->values[w].name;
    scales.dim[0] = qw->n_scales;
    int8_t *zeros = mo_mem_new((size_t)qw->n_scales, 1);
    mo_value_id in[3], y;
    const char *names[5];
    static const char *const suffix[] = { "quantized", "scale", "zero_point", "dequantized", "DequantizeLinear" };
    bool ok = zeros;
    for (int i = 0; i < 5; i++)
        ok = (names[i] = mo_arena_printf(j->job->scratch, "%s_%s", base, suffix[i])) && ok;
    if (ok) {
        mo_mem_forget(qw->q);
        in[0] = mo_quant_add_const(g, names[0], MO_I8, &shape, qw->q);
        qw->q = NULL;
        in[1] = mo_graph_add_const(g, names[1], MO_F32, &scales, qw->scale);
        in[2] = mo_graph_add_const(g, names[2], MO_I8, &scales, zeros);
        y = mo_graph_add_value(g, names[3], MO_F32, &shape);
        ok = in[0] != MO_NONE && in[1] != MO_NONE && in[2] != MO_NONE && y != MO_NONE;
    }
    mo_mem_free(zeros);
    if (!ok)
        return mo_no_memory(j->job->ctx, (uint64_t)qw->n_elems, "a weight");
    mo_graph_replace_uses(g, w, y);
    mo_node_id dq = mo_graph_add_node(g, "DequantizeLinear", NULL, names[4], in, 3, &y, 1);
    if (dq == MO_NONE || (qw->axis != MO_UNKNOWN && !mo_node_set_int(g, dq, "axis", qw->axis)))
        return mo_no_memory(j->job->ctx, 64, "a node");
    return MOPT_OK;
}

static enum mopt_status take(struct job *j, mo_node_id i, uint32_t k, int axis)
{
    struct mopt_report *row = NULL;
    struct mo_quant_weight qw;
    const struct mo_value *w = mo_in(j->g, &j->g->nodes[i], k);
    const char *name = mo_quant_name(j->g, &j->g->nodes[i]);
    MO_TRY(mo_quant_weight(j->job->ctx, w, axis, j->form->weight_max, NULL, &qw));
    double sqnr_db = qw.sqnr_db;
    mo_quant_forget(j->job, w);
    enum mopt_status status = store(j, j->g->nodes[i].in[k], &qw);
    mo_quant_weight_free(&qw);
    MO_TRY(status);
    j->n_done++;
    MO_TRY(mo_audit(j->job, name, "weights int8", NULL, &row));
    mo_report_set_text(row, "weights", axis == MO_UNKNOWN ? "int8 per tensor" : "int8 per channel");
    mo_report_set_number(row, "weight_sqnr_db", sqnr_db);
    return MOPT_OK;
}

static enum mopt_status visit(struct job *j, mo_node_id i, bool is_selected)
{
    uint32_t k;
    int axis;
    const struct mo_node *n = &j->g->nodes[i];
    if (!weight_of(j->g, n, j->form->per_channel, &k, &axis))
        return MOPT_OK;
    const char *why = obstacle(j->g, n->in[k], axis);
    if (!is_selected)
        return mo_audit(j->job, mo_quant_name(j->g, n), "float", "not selected", NULL);
    if (why && strstr(why, "smaller"))
        return mo_audit(j->job, mo_quant_name(j->g, n), "float", why, NULL);
    return why ? mo_audit_skip(j->job, mo_quant_name(j->g, n), why) : take(j, i, k, axis);
}

enum mopt_status mo_quantize_weight_only(struct mo_job *job, const struct mo_quantize_options *options)
{
    struct mo_quant_form form = mo_quant_form(options);
    struct mo_graph *g = &job->model->graph;
    struct job j = { .job = job, .g = g, .form = &form };
    form.weight_max = 127;
    if (form.per_channel)
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
        return mo_fail(job->ctx, MOPT_UNSUPPORTED, "no weight can be stored as int8");
    MO_TRY(mo_graph_sort(job->ctx, g));
    mo_graph_drop_unused(g);
    return mo_infer(job->ctx, g, NULL, 0);
}
