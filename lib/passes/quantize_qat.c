/* quantize_qat.c - quantization-aware training.
 *
 * The graph gets its Q and DQ from calibration, weights stay float behind a Q and a DQ of their own, and the shared
 * training loop goes on from there: the forward pass rounds, the backward pass lets the gradient through where the
 * value lies in range (straight-through: Bengio et al., arXiv 1308.3432). BatchNormalization was folded before, so what
 * is trained is what will run. Scales stay those of the calibration. At the end the weights become the integers that
 * the last forward pass rounded to, so the file computes what was validated.
 *
 * Where no epoch validated better than the start, the start is kept. */
#include <math.h>
#include <string.h>

#include "lib/passes/quantize.h"

/* Float constants as they were before training. */
struct kept { mo_value_id v; float *x; };
struct keep { struct kept *items; uint32_t n; };

static void keep_release(struct keep *k)
{
    for (uint32_t i = 0; i < k->n; i++)
        mo_mem_free(k->items[i].x);
    k->n = 0;
}

static enum mopt_status keep_params(struct mo_job *job, const struct mo_graph *g, struct keep *k)
{
    uint32_t n = mo_graph_params(g, NULL, 0);
    mo_value_id *ids = mo_arena_new(job->scratch, MO_MAX(n, 1u), sizeof *ids);
    k->items = mo_arena_new(job->scratch, MO_MAX(n, 1u), sizeof *k->items);
    if (!ids || !k->items)
        return mo_no_memory(job->ctx, n * sizeof *k->items, "weights");
    n = MO_MIN(n, mo_graph_params(g, ids, n));
    for (uint32_t i = 0; i < n; i++) {
        float *x = mo_value_floats(&g->values[ids[i]]);
        if (!x)
            return mo_no_memory(job->ctx, mo_value_bytes(&g->values[ids[i]]), "weights");
        k->items[k->n++] = (struct kept){ ids[i], x };
    }
    return MOPT_OK;
}

static void put_back(struct mo_graph *g, struct keep *k)
{
    for (uint32_t i = 0; i < k->n; i++) {
        struct mo_shape shape = g->values[k->items[i].v].shape;
        mo_value_set_data(g, k->items[i].v, MO_F32, &shape, k->items[i].x);
        k->items[i].x = NULL;
    }
}

static bool is_better(const struct mo_metrics *a, const struct mo_metrics *b)
{
    if (a->has_accuracy && a->accuracy != b->accuracy)
        return a->accuracy > b->accuracy;
    if (a->has_values && !a->has_accuracy)
        return a->rmse < b->rmse;
    return a->loss < b->loss;
}

/* A model that is trained already, and rounding that only has to be made good for: a tenth of the fine-tuning rate. */
static struct mo_train_settings settle(const struct mo_train_settings *given)
{
    struct mo_train_settings s = *given;
    bool is_adam = s.optimizer == MO_OPT_ADAM || s.optimizer == MO_OPT_ADAMW;
    if (s.lr == 0)
        s.lr = mo_optim_default_lr((enum mo_optimizer)s.optimizer) * (is_adam ? 0.02 : 0.01);
    if (isnan(s.weight_decay))
        s.weight_decay = 0;
    return s;
}

static enum mopt_status train(struct mo_job *job, const struct mo_quantize_options *o, struct keep *keep)
{
    struct mo_train_settings s = settle(&o->train);
    struct mo_train_hooks hooks = { .phase = "qat", .trained = true };
    struct mo_train_result result = { 0 };
    struct mo_metrics before = { 0 };
    bool validates = mo_dataset_count(job->dataset, MO_SPLIT_VALIDATION) > 0 && !job->settings->dry_run;
    if (s.init)
        return mo_fail(job->ctx, MOPT_USAGE, "--qat goes on from a trained model; --init fresh would throw it away");
    if (validates)
        MO_TRY(mo_evaluate(job, job->model, MO_SPLIT_VALIDATION, (size_t)s.batch, &before));
    MO_TRY(keep_params(job, &job->model->graph, keep));
    MO_TRY(mo_train(job, job->model, &s, &hooks, &result));
    if (!validates)
        return MOPT_OK;
    struct mopt_report *row = mo_report_object(job->report, "qat");
    mo_report_metrics(mo_report_object(row, "validation_before"), &before);
    mo_report_metrics(mo_report_object(row, "validation_after"), &result.best);
    bool kept = s.keep == 0 && !is_better(&result.best, &before);
    mo_report_set_bool(row, "kept_start", kept);
    if (kept) {
        mo_log(job->ctx, "qat", "no epoch validated better than the start, which is kept");
        put_back(&job->model->graph, keep);
    }
    return MOPT_OK;
}

enum mopt_status mo_quantize_qat(struct mo_job *job, const struct mo_quantize_options *o)
{
    struct mo_quant_form form = mo_quant_form(o);
    struct mo_quant_written written = { 0 };
    struct keep keep = { 0 };
    MO_TRY(mo_quantize_static(job, o, true, &written));
    enum mopt_status status = train(job, o, &keep);
    keep_release(&keep);
    if (!status)
        status = mo_quant_finish(job, job->model, &form, &written);
    return status ? status : mo_infer(job->ctx, &job->model->graph, NULL, 0);
}
