/* quantize: a model with 8-bit weights and, by default, 8-bit activations.
 *
 *   (default)            static: ranges from data, QuantizeLinear and DequantizeLinear in the graph
 *   --qat                the same, trained with the rounding in place
 *   --dynamic            products of matrices in 8 bits, ranges taken while running; no data needed
 *   --weight-only TYPE   weights stored as int8 or int4, everything computed in float; no data needed
 *   --fp16               everything in half precision; no data needed */
#include <math.h>
#include <string.h>

#include "lib/passes/compare.h"
#include "lib/passes/quantize.h"
#include "lib/passes/train.h"

#define DEFAULT_PERCENTILE 99.99
#define AT(field) offsetof(struct mo_quantize_options, field)
static const struct mopt_option options[] = {
    { "weight-only", MOPT_OPT_CHOICE, AT(weight_only), .text_def = "no", .choices = "no|int8|int4",
      .help = "store the weights in this type, compute in float; needs no data" },
    { "block", MOPT_OPT_INT, AT(block), .def = 32, .min = 16, .max = 1024, .word = "N", .needs = "weight-only=int4",
      .help = "with --weight-only int4: elements that share a scale, a power of two" },
    { "asymmetric", MOPT_OPT_BOOL, AT(asymmetric), .needs = "weight-only=int4",
      .help = "with --weight-only int4: a zero point for each block too, as uint4" },
    { "dynamic", MOPT_OPT_BOOL, AT(dynamic), .help = "8-bit matrix products with ranges taken while running; no data" },
    { "fp16", MOPT_OPT_BOOL, AT(fp16), .help = "half precision; needs no data" },
    { "keep-io", MOPT_OPT_BOOL, AT(keep_io), .def = 1, .needs = "fp16",
      .help = "inputs and outputs stay float32 (with --fp16)" },
    { "qat", MOPT_OPT_BOOL, AT(qat), .help = "train with the rounding in place (needs labels)" },
    { "alpha", MOPT_OPT_FLOAT, AT(alpha), .def = 0.9, .min = 0, .max = 1, .word = "X", .needs = "qat",
      .help = "with --qat: weight of the float model's answers; the labels have the rest" },
    { "method", MOPT_OPT_CHOICE, AT(method), .text_def = "mse", .choices = MO_CALIB_METHODS,
      .needs = "!dynamic !fp16 !weight-only",
      .help = "how the range of an activation is chosen" },
    { "percentile", MOPT_OPT_FLOAT, AT(percentile), .def = DEFAULT_PERCENTILE, .min = 50, .max = 100, .word = "P",
      .needs = "!dynamic !fp16 !weight-only method=percentile",
      .help = "with --method percentile: per cent of the values inside the range" },
    { "samples", MOPT_OPT_INT, AT(samples), .def = 512, .min = 1, .max = 1e9, .word = "N",
      .needs = "!dynamic !fp16 !weight-only",
      .help = "samples of the training split to calibrate on" },
    { "target", MOPT_OPT_CHOICE, AT(target), .text_def = "x86", .choices = "x86|arm|trt|generic",
      .needs = "!fp16 !weight-only !dynamic,target=generic",
      .help = "x86: u8 activations; arm: s8; trt: symmetric s8; generic: u8 and 7-bit weights, the same on any CPU" },
    { "per-tensor", MOPT_OPT_BOOL, AT(per_tensor), .needs = "!fp16 !weight-only=int4",
      .help = "one scale a weight instead of one a channel" },
    { "layer-error", MOPT_OPT_BOOL, AT(measure), .def = 1, .needs = "!dynamic !fp16 !weight-only !qat",
      .help = "measure the error of each layer for the report" },
    { "", MOPT_OPT_GROUP, AT(train), .group = mo_train_options, .needs = "qat" },
    { 0 }
};

struct mo_quant_form mo_quant_form(const struct mo_quantize_options *o)
{
    struct mo_quant_form form = { .act = MO_U8, .quantize_bias = true, .weight_max = 127, .per_channel = !o->per_tensor,
                                  .float_stem = o->target == MO_TARGET_X86, .float_attention = o->target == MO_TARGET_X86 };
    if (o->target == MO_TARGET_ARM)
        form.act = MO_I8;
    if (o->target == MO_TARGET_TRT) {
        form.act = MO_I8;
        form.symmetric = true;
        form.quantize_bias = false;
    }
    /* 255 * 64 * 2 < 2^15: what CPUs without a dot product instruction add up in 16 bits */
    if (o->target == MO_TARGET_GENERIC)
        form.weight_max = 64;
    return form;
}

/* ---- the audit ----------------------------------------------------------------------------- */

static enum mopt_status audit_float(struct mo_job *job, const struct mo_quant_plan *plan, const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (!n->op || n->op->quant.kind != MO_QUANT_WEIGHTED || plan->role[i] != MO_Q_FLOAT)
            continue;
        const char *why = plan->why[i] ? plan->why[i] : "not known how";
        if (why == mo_quant_not_selected || why == mo_quant_stem || !mo_quant_has_weight(g, n))
            MO_TRY(mo_audit(job, mo_quant_name(g, n), "float", why, NULL));
        else
            MO_TRY(mo_audit_skip(job, mo_quant_name(g, n), why));
    }
    return MOPT_OK;
}

static enum mopt_status audit_layers(struct mo_job *job, const struct mo_quant_written *written,
                                     const struct mo_error *errors)
{
    for (uint32_t i = 0; i < written->n_layers; i++) {
        const struct mo_quant_layer *layer = &written->layers[i];
        struct mopt_report *row = NULL;
        MO_TRY(mo_audit(job, layer->name, "int8", NULL, &row));
        mo_report_set_text(row, "operator", layer->type);
        mo_report_set_text(row, "weights", layer->axis == MO_UNKNOWN ? "int8 per tensor" : "int8 per channel");
        mo_report_set_number(row, "weight_sqnr_db", layer->weight_sqnr_db);
        if (errors && errors[i].n)
            mo_report_set_number(row, "output_sqnr_db", mo_error_sqnr_db(&errors[i]));
    }
    return MOPT_OK;
}

/* ---- error of each layer ------------------------------------------------------------------------ */

/* Results of the float layers on one batch, kept until the quantized ones are there to be compared. */
struct snapshot {
    struct mo_job *job;
    const struct mo_loader_options *stream;
    mo_value_id *values; uint32_t n;
    float **x; size_t *n_elems;
    struct mo_error *errors;
};

static enum mopt_status one_forward(struct snapshot *s, const struct mo_graph *g, struct mo_run **run)
{
    struct mo_run_options run_options = { .keep_names = true };
    struct mo_loader *loader = NULL;
    const struct mo_batch *batch = NULL;
    MO_TRY(mo_loader_new(s->job->ctx, s->job->dataset, s->stream, &loader));
    enum mopt_status status = mo_loader_start(loader, 0, 0);
    if (!status)
        status = mo_loader_next(loader, &batch);
    if (!status)
        status = mo_run_new(s->job->ctx, g, &run_options, run);
    if (!status)
        status = mo_train_feed(*run, batch);
    if (!status)
        status = mo_run_forward(*run);
    mo_loader_free(loader);
    return status;
}

static enum mopt_status take(struct snapshot *s, const struct mo_graph *g, bool is_reference)
{
    struct mo_run *run = NULL;
    enum mopt_status status = one_forward(s, g, &run);
    for (uint32_t i = 0; i < s->n && !status; i++) {
        struct mo_shape shape;
        float *x = NULL;
        size_t n = 0;
        status = mo_run_floats(run, s->values[i], &x, &n, &shape);
        if (is_reference) {
            s->x[i] = x;
            s->n_elems[i] = n;
            continue;
        }
        if (!status && x && s->x[i] && n == s->n_elems[i])
            mo_error_add(&s->errors[i], s->x[i], x, n, 0);
        mo_mem_free(x);
    }
    if (run)
        mo_run_free(run);
    return status;
}

static enum mopt_status snapshot_new(struct snapshot *s, const struct mo_graph *g, const struct mo_quant_plan *plan)
{
    uint32_t room = MO_MAX(g->n_nodes, 1u);
    s->values = mo_arena_new(s->job->scratch, room, sizeof *s->values);
    s->x = mo_arena_new(s->job->scratch, room, sizeof *s->x);
    s->n_elems = mo_arena_new(s->job->scratch, room, sizeof *s->n_elems);
    s->errors = mo_arena_new(s->job->scratch, room, sizeof *s->errors);
    if (!s->values || !s->x || !s->n_elems || !s->errors)
        return mo_no_memory(s->job->ctx, room * 64, "layer errors");
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (plan->role[i] == MO_Q_INT8 && mo_quant_has_weight(g, &g->nodes[i]))
            s->values[s->n++] = mo_quant_shown(g, plan, i);
    return take(s, g, true);
}

static void snapshot_release(struct snapshot *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        mo_mem_free(s->x[i]);
}

/* ---- static ----------------------------------------------------------------------------------------- */

static enum mopt_status calibrate(struct mo_job *job, const struct mo_quantize_options *o,
                                  const struct mo_quant_form *form, struct mo_quant_plan *plan)
{
    const struct mo_graph *g = &job->model->graph;
    struct mo_range_rule rule = { .method = (enum mo_calib_method)o->method, .percentile = o->percentile, .n_levels = 256,
                                  .symmetric = form->symmetric };
    struct mo_calibrate_options stream = { .samples = job->settings->dry_run ? 1 : (size_t)o->samples, .batch = 32,
                                           .seed = (uint64_t)job->settings->seed };
    size_t n_samples = 0;
    double start = mo_now_s();
    struct mo_histogram *hist = mo_mem_new(MO_MAX(plan->n_groups, 1u), sizeof *hist);
    mo_value_id *values = mo_arena_new(job->scratch, MO_MAX(plan->n_groups, 1u), sizeof *values);
    if (!hist || !values) {
        mo_mem_free(hist);
        return mo_no_memory(job->ctx, plan->n_groups * sizeof *hist, "histograms");
    }
    for (uint32_t i = 0; i < plan->n_groups; i++)
        values[i] = plan->groups[i].source;
    enum mopt_status status = mo_calibrate(job, g, values, plan->n_groups, &stream, hist, &n_samples);
    for (uint32_t i = 0; i < plan->n_groups && !status; i++) {
        plan->groups[i].range = mo_histogram_range(&hist[i], &rule);
        mo_quant_params(&plan->groups[i], form);
    }
    mo_mem_free(hist);
    mo_report_set_int(job->report, "calibration_samples", (int64_t)n_samples);
    mo_report_set_number(job->report, "calibration_seconds", mo_now_s() - start);
    return status;
}

static enum mopt_status report_plan(struct mo_job *job, const struct mo_graph *g, const struct mo_quant_plan *plan)
{
    uint32_t n_weighted = 0, n_int8 = 0;
    const char *why = "it has no Conv, Gemm or MatMul with constant weights";
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (plan->role[i] == MO_Q_INT8) {
            n_int8++;
            n_weighted += mo_quant_has_weight(g, n);
        } else if (n->op && n->op->quant.kind == MO_QUANT_WEIGHTED && plan->why[i]) {
            why = plan->why[i];
        }
    }
    mo_report_set_int(job->report, "layers", n_weighted);
    mo_report_set_int(job->report, "int8_nodes", n_int8);
    mo_report_set_int(job->report, "quantized_values", plan->n_groups);
    if (!n_weighted)
        return mo_fail(job->ctx, MOPT_UNSUPPORTED, "no layer can be quantized: %s", why);
    return MOPT_OK;
}

/* The plan is made on the prepared graph, so the graph is prepared in a dry run too; nothing is written then. */
static enum mopt_status plan_static(struct mo_job *job, const struct mo_quant_form *form, struct mo_quant_plan *plan)
{
    struct mo_graph *g = &job->model->graph;
    struct mo_prepared prepared;
    MO_TRY(mo_quant_prepare(job->ctx, job->model, &prepared));
    MO_TRY(mo_upgrade(job->ctx, job->model, 13));
    MO_TRY(mo_infer(job->ctx, g, NULL, 0));
    enum mo_quant_wish *wish = mo_arena_new(job->scratch, MO_MAX(g->n_nodes, 1u), sizeof *wish);
    if (!wish)
        return mo_no_memory(job->ctx, g->n_nodes, "the plan");
    MO_TRY(mo_quant_selection(job, g, wish));
    MO_TRY(mo_quant_plan(job, g, form, wish, plan));
    mo_report_set_int(job->report, "folded_batchnorm", prepared.n_batchnorm);
    MO_TRY(report_plan(job, g, plan));
    return audit_float(job, plan, g);
}

enum mopt_status mo_quantize_static(struct mo_job *job, const struct mo_quantize_options *o, bool for_training,
                                    struct mo_quant_written *written)
{
    struct mo_quant_form form = mo_quant_form(o);
    struct mo_quant_plan plan;
    struct mo_graph *g = &job->model->graph;
    struct mo_loader_options stream = { .split = MO_SPLIT_TRAIN, .shuffle = true,
                                        .seed = (uint64_t)job->settings->seed, .limit = 16 };
    struct snapshot s = { .job = job, .stream = &stream };
    MO_TRY(plan_static(job, &form, &plan));
    MO_TRY(calibrate(job, o, &form, &plan));
    stream.batch = mo_batch_for(g, 16);
    stream.limit = (uint32_t)MO_MAX(stream.batch, stream.limit);
    bool measures = o->measure && !for_training && !job->settings->dry_run;
    enum mopt_status status = measures ? snapshot_new(&s, g, &plan) : MOPT_OK;
    if (!status)
        status = mo_quant_write(job, job->model, &form, &plan, for_training, written);
    if (!status)
        status = mo_infer(job->ctx, g, NULL, 0);
    if (!status && measures)
        status = take(&s, g, false);
    if (!status)
        status = audit_layers(job, written, measures ? s.errors : NULL);
    snapshot_release(&s);
    mo_report_set_int(job->report, "quantize_nodes", written->n_q);
    mo_report_set_int(job->report, "dequantize_nodes", written->n_dq);
    return status;
}

/* ---- the pass -------------------------------------------------------------------------------------------- */

static enum mopt_status check(struct mo_job *job, const struct mo_quantize_options *o)
{
    if ((o->weight_only != 0) + o->dynamic + o->fp16 + o->qat > 1)
        return mo_fail(job->ctx, MOPT_USAGE, "--weight-only, --dynamic, --fp16 and --qat exclude one another");
    if (o->block & (o->block - 1))
        return mo_fail(job->ctx, MOPT_USAGE, "--block %lld is no power of two: 16, 32, 64 ... 1024 would do", (long long)o->block);
    bool is_measured = !o->weight_only && !o->dynamic && !o->fp16;
    if (!is_measured || job->dataset)
        return MOPT_OK;
    return mo_fail(job->ctx, MOPT_USAGE,
                   "%s needs data to measure ranges on: add --data SPEC, e.g. --data idx:DIR, or choose --dynamic, "
                   "--weight-only int8, --weight-only int4 or --fp16, which need none", o->qat ? "--qat" : "static quantization");
}

static enum mopt_status run(struct mo_job *job)
{
    const struct mo_quantize_options *o = job->options;
    struct mo_quant_written written;
    static const char *const targets[] = { "x86", "arm", "trt", "generic" };
    const char *mode = o->weight_only ? "weight-only" : o->dynamic ? "dynamic" : o->fp16 ? "fp16" : o->qat ? "qat" : "static";
    MO_TRY(check(job, o));
    mo_report_set_text(job->report, "mode", mode);
    if (o->weight_only)
        return mo_quantize_weight_only(job, o);
    if (o->dynamic)
        return mo_quantize_dynamic(job, o);
    if (o->fp16)
        return mo_quantize_fp16(job, o);
    mo_report_set_text(job->report, "target", targets[o->target]);
    if (o->qat)
        return mo_quantize_qat(job, o);
    return mo_quantize_static(job, o, false, &written);
}

/* Beyond what the rows say. Forms that are not measured on data may still be judged on it. */
#define JUDGED ",evaluate,min-accuracy,max-drop,max-rmse"
static const struct mo_need needs[] = {
    { "data", "!dynamic" JUDGED " !fp16" JUDGED " !weight-only" JUDGED },
    { "subset", "!dynamic !fp16 !weight-only" },
    { "drop-last", "qat" },
    { "decay-all", "weight-decay" },   /* which is 0 in QAT unless it is asked for */
    { 0 }
};

const struct mo_pass mo_pass_quantize = {
    .name = "quantize", .help = "8-bit weights and activations (static, QAT, dynamic, weight-only), or half precision",
    .options = options, .options_bytes = sizeof(struct mo_quantize_options), .flags = MO_PASS_DATA | MO_PASS_SELECTS | MO_PASS_SETS | MO_PASS_SKIPS,
    .needs = needs, .run = run,
};
