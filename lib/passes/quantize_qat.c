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

#include "lib/passes/quantize.h"

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

static enum mopt_status train(struct mo_job *job, const struct mo_quantize_options *o)
{
    struct mo_train_settings s = settle(&o->train);
    struct mo_train_hooks hooks = { .phase = "qat", .trained = true };
    struct mo_train_result result = { 0 };
    if (s.init)
        return mo_fail(job->ctx, MOPT_USAGE, "--qat goes on from a trained model; --init fresh would throw it away");
    MO_TRY(mo_train(job, job->model, &s, &hooks, &result));
    if (!result.has_start)
        return MOPT_OK;
    struct mopt_report *row = mo_report_object(job->report, "qat");
    mo_report_metrics(mo_report_object(row, "validation_before"), &result.start);
    mo_report_metrics(mo_report_object(row, "validation_after"), &result.best);
    mo_report_set_bool(row, "kept_start", result.kept_start);
    return MOPT_OK;
}

enum mopt_status mo_quantize_qat(struct mo_job *job, const struct mo_quantize_options *o)
{
    struct mo_quant_form form = mo_quant_form(o);
    struct mo_quant_written written = { 0 };
    MO_TRY(mo_quantize_static(job, o, true, &written));
    MO_TRY(train(job, o));
    MO_TRY(mo_quant_finish(job, job->model, &form, &written));
    return mo_infer(job->ctx, &job->model->graph, NULL, 0);
}
