/* distill.c - training of a student on labels and on what a teacher answers.
 *
 * The teacher runs in inference. Where the training data is not augmented its answers are the same in every epoch, so
 * they are computed once, in the order of the split, and kept by sample; else it runs beside the student, on the same
 * batch. A teacher whose metadata prepares its input in another way gets the data its own way; that is refused where
 * the data is augmented, since both must see the same picture. */
#include <math.h>
#include <string.h>

#include "lib/passes/distill.h"

enum { TEACHER_BATCH = 128 };

struct distiller {
    struct mo_job *job;
    struct mopt_ctx *ctx;
    const struct mo_distill_how *how;
    const struct mo_train_settings *train;
    const struct mo_train_hooks *outer;  /* of the caller: steps are passed on to it */
    struct mo_run *teacher;
    mo_value_id output;                 /* of the teacher's graph */
    struct mopt_dataset *data;          /* as the teacher wants it */
    bool owns_data;
    size_t width;                       /* of the teacher's answers; 0: not known yet */
    double smoothing;                   /* of labels: none unless asked for, the teacher does better */
    float *answers;                     /* of all samples of the split, when they are kept */
    size_t n_answers;                   /* rows there is room for */
    uint32_t *row_of; size_t n_row_of;  /* by sample index: row in answers + 1, 0: none; NULL: not kept */
};

/* ---- the teacher ---- */

/* The batch in the teacher's own shape, when that has as many elements (784 or 1x28x28). */
static enum mopt_status feed(struct distiller *d, const struct mo_batch *batch)
{
    struct mo_batch as = *batch;
    const struct mo_value *input = mo_run_input(d->teacher, 0);
    struct mo_shape want = input->shape;
    bool is_known = want.rank > 0 && batch->n_inputs == 1 && !batch->is_sparse;
    for (int i = 1; i < want.rank; i++)
        is_known = is_known && want.dim[i] != MO_UNKNOWN;
    if (is_known) {
        want.dim[0] = (int64_t)batch->n;
        if (mo_shape_elems(&want) != mo_shape_elems(&batch->shape[0])) {
            char a[64], b[64];
            return mo_fail(d->ctx, MOPT_USAGE, "the teacher wants input of %s, the data gives %s",
                           mo_shape_text(&want, a, sizeof a), mo_shape_text(&batch->shape[0], b, sizeof b));
        }
        as.shape[0] = want;
    }
    return mo_train_feed(d->teacher, &as);
}

static enum mopt_status answer(struct distiller *d, const struct mo_batch *batch, float *to)
{
    MO_TRY(feed(d, batch));
    MO_TRY(mo_run_forward(d->teacher));
    return mo_run_get_output(d->teacher, 0, to, batch->n * d->width * sizeof *to);
}

/* The width of the teacher's answers, from a first batch of one sample (or of the size its file fixes). */
static enum mopt_status find_width(struct distiller *d, size_t batch)
{
    const struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = batch, .limit = (uint32_t)batch};
    struct mo_loader *loader;
    const struct mo_batch *first;
    MO_TRY(mo_loader_new(d->ctx, d->data, &how, &loader));
    enum mopt_status status = mo_loader_start(loader, 0, 0);
    if (!status)
        status = mo_loader_next(loader, &first);
    if (!status && !first->n)
        status = mo_fail(d->ctx, MOPT_DATA, "the training data has no sample");
    if (!status)
        status = feed(d, first);
    if (!status) {
        const struct mo_value *out = mo_run_output(d->teacher, 0);
        d->width = (size_t)mo_shape_elems(&out->shape) / first->n;
        if (out->dtype != MO_F32 || !d->width)
            status = mo_fail(d->ctx, MOPT_UNSUPPORTED, "the teacher's output '%s' is not a row of float32", out->name);
    }
    mo_loader_free(loader);
    return status;
}

static enum mopt_status open_data(struct distiller *d)
{
    struct mo_job *job = d->job;
    const char *own = mo_model_meta(job->teacher, "mopt.transform");
    const char *ours = mo_dataset_transform(job->dataset, false);
    d->data = job->dataset;
    if (d->how->same_input || !own || (ours && !strcmp(own, ours)))
        return MOPT_OK;
    MO_TRY(mo_dataset_open(d->ctx, &job->settings->data, job->teacher, (uint64_t)job->settings->seed, &d->data));
    d->owns_data = true;
    const char *theirs = mo_dataset_transform(d->data, false);
    if (!strcmp(theirs ? theirs : "", ours ? ours : "")) {
        mo_dataset_close(d->data);
        d->data = job->dataset;
        d->owns_data = false;
    } else if (mo_dataset_is_augmented(job->dataset))
        return mo_fail(d->ctx, MOPT_USAGE,
                       "the teacher prepares its input by '%s', the student by '%s': with augmented data both must be "
                       "the same; give --transform and --eval-transform", theirs ? theirs : "", ours ? ours : "");
    return MOPT_OK;
}

/* ---- answers kept ---- */

static enum mopt_status keep_answers(struct distiller *d, size_t batch)
{
    const struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = batch};
    size_t n = mo_dataset_count(d->data, MO_SPLIT_TRAIN), n_done = 0;
    struct mo_loader *loader;
    MO_TRY(mo_loader_new(d->ctx, d->data, &how, &loader));
    enum mopt_status status = mo_loader_start(loader, 0, 0);
    while (!status && !(status = mo_stopped(d->ctx))) {
        const struct mo_batch *b;
        if ((status = mo_loader_next(loader, &b)) || !b->n)
            break;
        if (n_done + b->n > d->n_answers)
            status = mo_fail(d->ctx, MOPT_FAILED, "the training data has more samples than it said");
        else
            status = answer(d, b, d->answers + n_done * d->width);
        for (size_t i = 0; !status && i < b->n; i++)
            if (b->index[i] < d->n_row_of)
                d->row_of[b->index[i]] = (uint32_t)(++n_done);
        mo_progress(d->ctx, "teacher", (double)n_done, (double)n, "sample", "");
    }
    mo_loader_free(loader);
    return status;
}

static enum mopt_status make_answers(struct distiller *d, size_t batch)
{
    size_t n = mo_dataset_count(d->data, MO_SPLIT_TRAIN), bytes;
    bool fits = mo_mul_size(n, d->width * sizeof *d->answers, &bytes) && bytes <= d->ctx->max_memory_bytes / 4;
    bool keeps = fits && !mo_dataset_is_augmented(d->job->dataset);
    if (!keeps && d->owns_data)
        return mo_fail(d->ctx, MOPT_LIMIT, "the teacher's answers for %zu samples of %zu values are too many to keep; "
                       "a teacher that prepares its input as the student does need not keep them", n, d->width);
    if (!keeps)
        return MOPT_OK;
    d->n_row_of = mo_dataset_source(d->data, MO_SPLIT_TRAIN)->n_samples;
    d->row_of = mo_mem_new(d->n_row_of + 1, sizeof *d->row_of);
    d->answers = mo_mem_new(n + 1, d->width * sizeof *d->answers);
    if (!d->row_of || !d->answers)
        return mo_no_memory(d->ctx, bytes, "the teacher's answers");
    d->n_answers = n;
    return d->job->settings->dry_run ? MOPT_OK : keep_answers(d, batch);
}

static enum mopt_status open_teacher(struct distiller *d)
{
    struct mo_graph *g = &d->job->teacher->graph;
    const char *activation;
    MO_TRY(open_data(d));
    bool has_values = mo_dataset_source(d->data, MO_SPLIT_TRAIN)->target == MO_TARGET_VALUES;
    d->output = has_values ? g->outputs[0] : mo_graph_logits(g, &activation);
    const struct mo_run_options how = {.outputs = &d->output, .n_outputs = 1,
                                       .half = mo_precision_half(d->train->precision)};
    MO_TRY(mo_run_new(d->ctx, g, &how, &d->teacher));
    const struct mo_shape *input = &mo_run_input(d->teacher, 0)->shape;
    int64_t fixed = input->rank > 0 ? input->dim[0] : MO_UNKNOWN;
    size_t batch = TEACHER_BATCH;
    enum mopt_status status = find_width(d, batch);
    if (status && fixed > 0) { /* its file fixes the batch */
        mopt_clear(d->ctx);
        batch = (size_t)fixed;
        status = find_width(d, batch);
    }
    MO_TRY(status);
    return make_answers(d, batch);
}

/* The teacher's answers to a batch, in a buffer of the distiller. */
static enum mopt_status batch_answers(struct distiller *d, const struct mo_batch *batch, float *to)
{
    if (!d->row_of)
        return answer(d, batch, to);
    for (size_t i = 0; i < batch->n; i++) {
        uint32_t row = batch->index[i] < d->n_row_of ? d->row_of[batch->index[i]] : 0;
        if (!row)
            return mo_fail(d->ctx, MOPT_DATA, "sample %u was not among those the teacher answered",
                           (unsigned)batch->index[i]);
        memcpy(to + i * d->width, d->answers + (row - 1) * d->width, d->width * sizeof *to);
    }
    return MOPT_OK;
}

/* ---- the student's loss ---- */

static enum mopt_status hard_loss(struct distiller *d, const struct mo_batch *batch, const float *z, size_t rows,
                                  size_t width, float *dz, double *loss)
{
    const struct mo_train_settings *s = d->train;
    bool has_class = batch->labels != NULL;
    enum mo_loss kind = (enum mo_loss)s->loss;
    *loss = 0;
    memset(dz, 0, rows * width * sizeof *dz);
    if (d->how->alpha == 1)
        return MOPT_OK;
    if (!has_class && !batch->targets)
        return mo_fail(d->ctx, MOPT_DATA, "the data has no labels: with --alpha 1 only the teacher counts");
    if (kind == MO_LOSS_AUTO)
        kind = !has_class ? MO_LOSS_MSE : width == 1 ? MO_LOSS_BCE : MO_LOSS_CROSS_ENTROPY;
    const struct mo_loss_in in = {.kind = kind, .rows = rows, .width = width, .z = z, .labels = batch->labels,
                                  .targets = has_class ? NULL : batch->targets, .smoothing = d->smoothing,
                                  .delta = s->huber_delta};
    return mo_loss(d->ctx, &in, dz, loss);
}

static enum mopt_status loss(void *user, struct mo_run *run, const struct mo_batch *batch, const float *z, size_t rows,
                             size_t width, float *dz, double *result)
{
    struct distiller *d = user;
    (void)run;
    if (width != d->width)
        return mo_fail(d->ctx, MOPT_USAGE, "the teacher answers with %zu values, the student with %zu", d->width,
                       width);
    MO_TRY(hard_loss(d, batch, z, rows, width, dz, result));
    float *teacher = mo_mem_new(rows * width, sizeof *teacher);
    if (!teacher)
        return mo_no_memory(d->ctx, rows * width * sizeof *teacher, "the teacher's answers");
    const struct mo_distill_in in = {.method = (enum mo_distill_method)d->how->method, .rows = rows, .width = width,
                                     .student = z, .teacher = teacher, .labels = batch->labels,
                                     .temperature = d->how->temperature, .alpha = d->how->alpha, .beta = d->how->beta};
    enum mopt_status status = batch_answers(d, batch, teacher);
    if (!status)
        status = mo_distill_loss(d->ctx, &in, dz, result);
    mo_mem_free(teacher);
    return status;
}

/* ---- checkpoints: the same teacher and weights of the losses ---- */

struct identity { uint64_t teacher; double temperature, alpha, beta; uint64_t method; };

static struct identity identify(const struct distiller *d)
{
    struct identity id = {.temperature = d->how->temperature, .alpha = d->how->alpha, .beta = d->how->beta,
                          .method = (uint64_t)d->how->method};
    const struct mo_graph *g = &d->job->teacher->graph;
    for (uint32_t i = 0; i < g->n_values; i++)
        if (g->values[i].data && g->values[i].dtype != MO_STRING)
            id.teacher = mo_hash64(g->values[i].data, mo_value_bytes(&g->values[i]), id.teacher);
    return id;
}

static enum mopt_status save(void *user, struct mo_arena *arena, void **bytes, size_t *n_bytes)
{
    struct distiller *d = user;
    struct identity id = identify(d);
    *n_bytes = sizeof id;
    if (!(*bytes = mo_arena_bytes(arena, (const char *)&id, sizeof id)))
        return mo_no_memory(d->ctx, sizeof id, "a checkpoint");
    return MOPT_OK;
}

static enum mopt_status load(void *user, const void *bytes, size_t n_bytes)
{
    struct distiller *d = user;
    struct identity id = identify(d);
    if (n_bytes != sizeof id || memcmp(bytes, &id, sizeof id))
        return mo_fail(d->ctx, MOPT_USAGE,
                       "the checkpoint was made with another teacher, temperature, alpha, beta or method");
    return MOPT_OK;
}

/* ---- the pass ---- */

/* How good the teacher is on what the student will be judged by. */
static enum mopt_status judge_teacher(struct distiller *d)
{
    struct mo_job as = *d->job;
    as.dataset = d->data;
    bool has_labels = mo_dataset_source(d->data, MO_SPLIT_TRAIN)->target != MO_TARGET_NONE;
    if (!has_labels || !mo_dataset_count(d->data, MO_SPLIT_VALIDATION) || d->job->settings->dry_run)
        return MOPT_OK;
    struct mo_metrics metrics = {0};
    MO_TRY(mo_evaluate(&as, d->job->teacher, MO_SPLIT_VALIDATION, TEACHER_BATCH, &metrics));
    mo_report_metrics(mo_report_object(d->job->report, "teacher_metrics"), &metrics);
    if (metrics.has_accuracy)
        mo_log(d->ctx, "distill", "teacher: %.2f %% on validation", 100 * metrics.accuracy);
    return MOPT_OK;
}

static enum mopt_status before_step(void *user, struct mo_run *run, uint64_t step, uint64_t n_steps)
{
    const struct mo_train_hooks *h = ((struct distiller *)user)->outer;
    return h->before_step ? h->before_step(h->user, run, step, n_steps) : MOPT_OK;
}

static enum mopt_status after_step(void *user, struct mo_run *run, uint64_t step, uint64_t n_steps)
{
    const struct mo_train_hooks *h = ((struct distiller *)user)->outer;
    return h->after_step ? h->after_step(h->user, run, step, n_steps) : MOPT_OK;
}

static enum mopt_status train(struct distiller *d, struct mo_train_result *result)
{
    MO_TRY(open_teacher(d));
    MO_TRY(judge_teacher(d));
    struct mo_train_hooks hooks = *d->outer;
    hooks.user = d;
    hooks.before_step = before_step;
    hooks.after_step = after_step;
    hooks.loss = loss;
    hooks.held_bytes += mo_run_block_bytes(d->teacher) + mo_run_weight_bytes(d->teacher) +
                        d->n_answers * d->width * sizeof *d->answers + d->n_row_of * sizeof *d->row_of;
    hooks.save = save;
    hooks.load = load;
    struct mopt_report *r = mo_report_object(d->job->report, "distillation");
    static const char *const methods[] = {"kd", "dkd", "mse"};
    mo_report_set_text(r, "method", methods[d->how->method]);
    mo_report_set_number(r, "temperature", d->how->temperature);
    mo_report_set_number(r, "alpha", d->how->alpha);
    mo_report_set_bool(r, "answers_kept", d->row_of != NULL);
    return mo_train(d->job, d->job->model, d->train, &hooks, result);
}

enum mopt_status mo_distill(struct mo_job *job, const struct mo_distill_how *how,
                            const struct mo_train_settings *settings, const struct mo_train_hooks *hooks,
                            struct mo_train_result *result)
{
    struct distiller d = {.job = job, .ctx = job->ctx, .how = how, .train = settings, .outer = hooks};
    d.smoothing = isnan(settings->label_smoothing) ? 0 : settings->label_smoothing;
    enum mopt_status status = train(&d, result);
    mo_run_free(d.teacher);
    if (d.owns_data)
        mo_dataset_close(d.data);
    mo_mem_free(d.answers);
    mo_mem_free(d.row_of);
    return status;
}
