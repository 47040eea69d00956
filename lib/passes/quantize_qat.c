/* quantize_qat.c - quantization-aware training.
 *
 * The graph gets its Q and DQ from calibration, weights stay float behind a Q and a DQ of their own, and the shared
 * training loop goes on from there: the forward pass rounds, the backward pass lets the gradient through where the
 * value lies in range (straight-through: Bengio et al., arXiv 1308.3432). BatchNormalization was folded before, so what
 * is trained is what will run. Scales stay those of the calibration, and a weight stays within what its scale can say:
 * it is put back to the end of its range after each step, else it would leave for where no gradient comes back from.
 *
 * What rounding took away is what the float model still has, so that one teaches (Mishra and Marr, arXiv 1711.05852):
 * labels alone go on fitting the training data, which the float model did already, and say little about rounding.
 *
 * At the end the weights become the integers that the last forward pass rounded to, so the file computes what was
 * validated. The start, which is what static quantization would write, is kept unless an epoch is surely better. */
#include <math.h>
#include <string.h>

#include "lib/passes/distill.h"
#include "lib/passes/quantize.h"

struct qat {
    struct mo_job *job;
    const struct mo_quant_form *form;
    const struct mo_quant_written *written;
    struct mo_run *run;         /* the one that the bounds were made for */
    float *high, *low;          /* on the device: the ends of each trained weight's range, or infinity */
};

/* ---- weights stay in range ---- */

static void note_bounds(const struct qat *q, const struct mo_param *p, float *bound)
{
    const struct mo_graph *g = &q->job->model->graph;
    for (uint32_t i = 0; i < q->written->n_layers; i++) {
        const struct mo_quant_layer *layer = &q->written->layers[i];
        if (layer->weight != p->source)
            continue;
        const float *scale = g->values[layer->weight_scale].data;
        int64_t n_scales = mo_value_elems(&g->values[layer->weight_scale]), inner = 1;
        for (int k = layer->axis + 1; layer->axis != MO_UNKNOWN && k < p->shape.rank; k++)
            inner *= p->shape.dim[k];
        for (size_t j = 0; j < p->n_elems; j++) {
            float end = scale[(int64_t)j / inner % n_scales] * (float)q->form->weight_max;
            bound[p->offset + j] = MO_MIN(bound[p->offset + j], end);
        }
    }
}

static enum mopt_status attach(struct qat *q, struct mo_run *run)
{
    size_t n = run->n_trained, bytes = MO_MAX(n, (size_t)1) * sizeof(float);
    float *host = mo_mem_new(bytes, 1);
    q->run = run;
    q->high = run->be->alloc(run->dev, bytes);
    q->low = run->be->alloc(run->dev, bytes);
    if (!host || !q->high || !q->low) {
        mo_mem_free(host);
        return mo_no_memory(q->job->ctx, 3 * bytes, "the ranges of weights");
    }
    for (size_t i = 0; i < n; i++)
        host[i] = INFINITY;
    for (uint32_t i = 0; i < run->n_params; i++)
        if (!run->params[i].is_state)
            note_bounds(q, &run->params[i], host);
    run->be->upload(run->dev, q->high, host, n * sizeof *host);
    for (size_t i = 0; i < n; i++)
        host[i] = -host[i];
    run->be->upload(run->dev, q->low, host, n * sizeof *host);
    mo_mem_free(host);
    return MOPT_OK;
}

static void detach(struct qat *q)
{
    if (q->high)
        q->job->ctx->backend->free(q->job->ctx->device, q->high);
    if (q->low)
        q->job->ctx->backend->free(q->job->ctx->device, q->low);
}

static enum mopt_status after_step(void *user, struct mo_run *run, uint64_t step, uint64_t n_steps)
{
    struct qat *q = user;
    const int64_t n = (int64_t)run->n_trained, stride = 1;
    (void)step;
    (void)n_steps;
    if (q->run != run)
        MO_TRY(attach(q, run));
    run->be->binary(run->dev, MO_MIN_OF, MO_F32, 1, &n, &stride, &stride, run->weights, q->high, run->weights);
    run->be->binary(run->dev, MO_MAX_OF, MO_F32, 1, &n, &stride, &stride, run->weights, q->low, run->weights);
    return MOPT_OK;
}

/* ---- training ---- */

/* A model that is trained already, and rounding that only has to be made good for: a tenth of the fine-tuning rate. */
static struct mo_train_settings settle(const struct mo_train_settings *given)
{
    struct mo_train_settings s = *given;
    if (s.lr == 0)
        s.lr = 0.01 * mo_optim_default_lr((enum mo_optimizer)s.optimizer);
    if (isnan(s.weight_decay))
        s.weight_decay = 0;
    return s;
}

/* Classes are compared softened; values, and a logit that stands alone, as they are. */
static struct mo_distill_how teaching(const struct mo_job *job, const struct mo_quantize_options *o)
{
    const struct mo_graph *g = &job->model->graph;
    const char *activation = NULL;
    mo_value_id logits = mo_graph_logits(g, &activation);
    const struct mo_shape *shape = &g->values[logits].shape;
    bool is_one = shape->rank < 2 || shape->dim[shape->rank - 1] == 1;
    bool is_sigmoid = activation && !strcmp(activation, "Sigmoid");
    bool has_values = mo_dataset_source(job->dataset, MO_SPLIT_TRAIN)->target == MO_TARGET_VALUES;
    return (struct mo_distill_how){ .method = has_values || is_one || is_sigmoid ? MO_DISTILL_MSE : MO_DISTILL_KD,
                                    .temperature = MO_DISTILL_TEMPERATURE, .alpha = o->alpha, .same_input = true };
}

static enum mopt_status train(struct mo_job *job, const struct mo_quantize_options *o, struct mopt_model *teacher,
                              struct qat *q)
{
    struct mo_train_settings s = settle(&o->train);
    struct mo_train_hooks hooks = { .user = q, .after_step = after_step, .phase = "qat", .trained = true,
                                    .doubts = true };
    struct mo_train_result result = { 0 };
    struct mo_job with_teacher = *job;
    struct mo_distill_how how = teaching(job, o);
    with_teacher.teacher = teacher;
    if (s.init)
        return mo_fail(job->ctx, MOPT_USAGE, "--qat goes on from a trained model; --init fresh would throw it away");
    MO_TRY(mo_distill(&with_teacher, &how, &s, &hooks, &result));
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
    struct mopt_model *teacher = NULL;
    struct qat q = { .job = job, .form = &form, .written = &written };
    MO_TRY(mo_model_copy(job->ctx, job->model, &teacher));
    enum mopt_status status = mo_quantize_static(job, o, true, &written);
    if (!status)
        status = train(job, o, teacher, &q);
    detach(&q);
    mopt_model_free(teacher);
    MO_TRY(status);
    MO_TRY(mo_quant_finish(job, job->model, &form, &written));
    return mo_infer(job->ctx, &job->model->graph, NULL, 0);
}
