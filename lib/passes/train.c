/* train.c - the loop: batches through the run, loss, gradient, step; validation, best weights, checkpoints.
 *
 * A step takes `accumulate` batches (gd: all of an epoch) and has the gradient of the mean over all their samples:
 * each batch's gradient of its mean is scaled by its share. The run, the optimizer's state and the loader are set up
 * in train_setup.c; what a checkpoint holds is in train_state.c. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/passes/train_private.h"

/* ---- one batch ---- */

enum mopt_status mo_train_feed(struct mo_run *run, const struct mo_batch *batch)
{
    uint32_t n = mo_run_n_inputs(run);
    if (n != batch->n_inputs)
        return mo_fail(run->ctx, MOPT_DATA, "the model has %u inputs, the data gives %u", (unsigned)n,
                       (unsigned)batch->n_inputs);
    MO_TRY(mo_run_shape(run, batch->shape, n));
    if (batch->is_sparse)
        return mo_run_set_input_csr(run, 0, batch->row_start, batch->column, batch->value);
    for (uint32_t i = 0; i < n; i++) {
        size_t bytes = mo_dtype_bytes(batch->dtype[i], mo_shape_elems(&batch->shape[i]));
        MO_TRY(mo_run_set_input(run, i, batch->x[i], bytes));
    }
    return MOPT_OK;
}

static enum mopt_status grow_logits(struct mo_trainer *t, size_t n)
{
    if (t->n_logits >= n)
        return MOPT_OK;
    mo_mem_free(t->logits);
    mo_mem_free(t->dlogits);
    t->n_logits = 0;
    t->logits = mo_mem_new(n, sizeof *t->logits);
    t->dlogits = mo_mem_new(n, sizeof *t->dlogits);
    if (!t->logits || !t->dlogits)
        return mo_no_memory(t->ctx, 2 * n * sizeof *t->logits, "logits");
    t->n_logits = n;
    return MOPT_OK;
}

/* Which sample a label that the model cannot have belongs to. */
static enum mopt_status check_labels(struct mo_trainer *t, const struct mo_batch *batch, size_t width)
{
    int64_t n_classes = width == 1 ? 2 : (int64_t)width;
    for (size_t i = 0; batch->labels && i < batch->n; i++)
        if (batch->labels[i] < 0 || batch->labels[i] >= n_classes)
            return mo_fail(t->ctx, MOPT_DATA, "sample %u: label %lld, but the model has %lld classes, 0 to %lld",
                           (unsigned)batch->index[i], (long long)batch->labels[i], (long long)n_classes,
                           (long long)(n_classes - 1));
    return MOPT_OK;
}

static enum mopt_status compute_loss(struct mo_trainer *t, const struct mo_batch *batch, const float *z, size_t rows,
                                     size_t width, float *dz, double *loss)
{
    const struct mo_train_hooks *h = &t->hooks;
    MO_TRY(check_labels(t, batch, width));
    if (h->loss)
        return h->loss(h->user, t->run, batch, z, rows, width, dz, loss);
    size_t n_targets = (size_t)mo_dataset_source(t->job->dataset, MO_SPLIT_TRAIN)->n_targets;
    if (!batch->labels && batch->targets && n_targets != width)
        return mo_fail(t->ctx, MOPT_DATA, "the data has %zu target values a sample, the model gives %zu", n_targets,
                       width);
    const struct mo_loss_in in = {.kind = t->loss, .rows = rows, .width = width, .z = z, .labels = batch->labels,
                                  .targets = batch->labels ? NULL : batch->targets,
                                  .smoothing = t->s.label_smoothing, .delta = t->s.huber_delta};
    return mo_loss(t->ctx, &in, dz, loss);
}

/* Mean loss of the model as it came over the first n_batches, in inference. */
static enum mopt_status loss_of_start(struct mo_trainer *t, struct mo_loader *loader, uint64_t n_batches, double *mean)
{
    struct mo_tree_sum sum = {.n = 0};
    uint64_t n = 0;
    MO_TRY(mo_loader_start(loader, 0, 0));
    for (uint64_t i = 0; i < n_batches; i++) {
        const struct mo_batch *batch;
        double loss;
        MO_TRY(mo_stopped(t->ctx));
        MO_TRY(mo_loader_next(loader, &batch));
        if (!batch->n)
            continue;
        MO_TRY(mo_train_feed(t->run, batch));
        MO_TRY(mo_run_forward(t->run));
        size_t elems = (size_t)mo_value_elems(mo_run_output(t->run, 0));
        MO_TRY(grow_logits(t, elems));
        MO_TRY(mo_run_get_output(t->run, 0, t->logits, elems * sizeof *t->logits));
        MO_TRY(compute_loss(t, batch, t->logits, batch->n, elems / batch->n, t->dlogits, &loss));
        mo_tree_add(&sum, loss * (double)batch->n);
        n += batch->n;
    }
    *mean = n ? mo_tree_total(&sum) / (double)n : 0;
    return MOPT_OK;
}

enum mopt_status mo_trainer_start_loss(struct mo_trainer *t, uint64_t n_samples, double *mean)
{
    bool was = t->run->is_training;
    uint64_t n_batches = MO_MIN((n_samples + t->batch - 1) / t->batch, t->n_batches);
    struct mo_loader *loader = t->loader;
    if (t->shards) /* whole batches, by every rank */
        MO_TRY(mo_loader_new(t->ctx, t->job->dataset, &t->loader_how, &loader));
    t->run->is_training = false;
    enum mopt_status status = loss_of_start(t, loader, n_batches, mean);
    t->run->is_training = was;
    if (t->shards)
        mo_loader_free(loader);
    return status;
}

static uint64_t count_correct(const struct mo_batch *batch, const float *z, size_t width)
{
    uint64_t n = 0;
    for (size_t r = 0; batch->labels && r < batch->n; r++) {
        const float *row = z + r * width;
        size_t best = width == 1 && row[0] > 0;
        for (size_t k = 1; k < width; k++)
            best = row[k] > row[best] ? k : best;
        n += (int64_t)best == batch->labels[r];
    }
    return n;
}

enum mopt_status mo_trainer_bad_loss(struct mo_trainer *t, double loss)
{
    const char *kept = t->s.checkpoint;
    return mo_fail(t->ctx, MOPT_FAILED,
                   "the loss became %s at step %llu (epoch %llu): try a smaller --lr (now %g), or --clip 1%s%s%s",
                   isnan(loss) ? "not a number" : "infinite", (unsigned long long)t->at.step + 1,
                   (unsigned long long)t->at.epoch + 1, t->s.lr, kept ? "; the last good checkpoint is kept in '" : "",
                   kept ? kept : "", kept ? "'" : "");
}

/* The loss of a batch that the run has gone forward with, and the gradient of scale times it into the run's output. */
enum mopt_status mo_trainer_loss(struct mo_trainer *t, struct mo_run *run, const struct mo_batch *batch, double *loss,
                                 double scale, uint64_t *n_correct)
{
    const struct mo_value *out = mo_run_output(run, 0);
    size_t n = (size_t)mo_shape_elems(&out->shape), width = n / batch->n;
    if (out->dtype != MO_F32 || width * batch->n != n)
        return mo_fail(t->ctx, MOPT_UNSUPPORTED, "output '%s' is not a row of float32 for each sample", out->name);
    const float *z = mo_run_output_data(run, 0);
    float *dz = mo_run_output_grad(run, 0);
    if (!run->be->is_host) {
        MO_TRY(grow_logits(t, n));
        MO_TRY(mo_run_get_output(run, 0, t->logits, n * sizeof *t->logits));
        z = t->logits;
        dz = t->dlogits;
    }
    MO_TRY(compute_loss(t, batch, z, batch->n, width, dz, loss));
    *n_correct = count_correct(batch, z, width);
    scale *= (double)t->loss_scale;
    for (size_t i = 0; scale != 1 && i < n; i++)
        dz[i] *= (float)scale;
    if (!run->be->is_host)
        run->be->upload(run->dev, mo_run_output_grad(run, 0), dz, n * sizeof *dz);
    return MOPT_OK;
}

/* Forward, loss, backward; the gradient is scaled by share and added to what is there unless it is the first. */
static enum mopt_status one_batch(struct mo_trainer *t, const struct mo_batch *batch, double share, bool add)
{
    double loss;
    uint64_t n_correct;
    MO_TRY(mo_train_feed(t->run, batch));
    MO_TRY(mo_run_forward(t->run));
    MO_TRY(mo_trainer_loss(t, t->run, batch, &loss, share, &n_correct));
    if (!isfinite(loss))
        return mo_trainer_bad_loss(t, loss);
    mo_tree_add(&t->at.loss, loss * (double)batch->n);
    t->at.n_correct += n_correct;
    t->at.n_epoch += batch->n;
    t->at.loss_last = loss;
    if (!t->at.step && !add)
        t->at.loss_first = loss;
    return mo_run_backward(t->run, add);
}

/* ---- one step ---- */

static uint64_t batches_in_epoch(const struct mo_trainer *t)
{
    return t->at.epoch + 1 == t->n_epochs ? t->n_batches_last : t->n_batches;
}

static double current_lr(const struct mo_trainer *t)
{
    return mo_schedule_lr(&t->schedule, t->at.step, t->n_steps, t->at.epoch, t->at.plateau_drops);
}

static void tell(struct mo_trainer *t)
{
    char text[128];
    snprintf(text, sizeof text, "epoch %llu/%llu, loss %.4f, rate %.4g", (unsigned long long)t->at.epoch + 1,
             (unsigned long long)t->n_epochs, mo_tree_total(&t->at.loss) / (double)MO_MAX(t->at.n_epoch, 1),
             current_lr(t));
    double total = (double)((t->n_epochs - 1) * t->n_samples + MO_MIN(t->n_batches_last * t->batch, t->n_samples));
    mo_progress(t->ctx, t->hooks.phase, (double)(t->at.n_total + t->at.n_epoch), total, "sample", text);
}

/* `accumulate` batches, or what is left of the epoch; bad samples that were skipped may leave fewer. */
static enum mopt_status gather_gradient(struct mo_trainer *t, uint64_t n_group, uint64_t *n_samples)
{
    uint64_t first = t->at.batch * t->batch, most = t->n_samples - MO_MIN(first, t->n_samples);
    uint64_t n_expected = MO_MIN(n_group * t->batch, most);
    *n_samples = 0;
    for (uint64_t b = 0; b < n_group; b++) {
        const struct mo_batch *batch;
        MO_TRY(mo_loader_next(t->loader, &batch));
        uint64_t n_batch = MO_MIN(t->batch, t->n_samples - MO_MIN(t->at.batch * t->batch, t->n_samples)), n_here;
        t->at.batch++;
        if (t->shards) {
            MO_TRY(mo_trainer_parts(t, batch, n_batch, n_expected, b > 0, b + 1 == n_group, &n_here));
            *n_samples += n_here;
        }
        if (t->shards || !batch->n)
            continue;
        double share = n_group == 1 ? 1 : (double)batch->n / (double)n_expected;
        MO_TRY(one_batch(t, batch, share, *n_samples > 0));
        *n_samples += batch->n;
        if (n_group > 16) /* full-batch descent: a step is long */
            tell(t);
    }
    struct mo_run *run = t->run;
    if (t->shards)
        MO_TRY(mo_trainer_finish_parts(t));
    double mend = (double)n_expected / (double)MO_MAX(*n_samples, (uint64_t)1);
    if ((n_group > 1 || t->shards) && *n_samples && *n_samples != n_expected)
        run->be->axpy(run->dev, run->n_trained, (float)mend, run->grads, run->grads, false);
    return MOPT_OK;
}

/* As PyTorch's GradScaler: factors 2 and 1/2, after 2000 good steps. */
static void follow_scale(struct mo_trainer *t, bool is_finite)
{
    enum { GOOD_STEPS = 2000 };
    if (t->loss_scale == 1)
        return;
    t->n_scaled = is_finite ? t->n_scaled + 1 : 0;
    if (!is_finite) {
        t->loss_scale = fmaxf(t->loss_scale / 2, 2);
        mo_log(t->ctx, t->hooks.phase, "step %llu: the gradient left the range of fp16 and is not used; the loss's scale is %g",
               (unsigned long long)t->at.step + 1, (double)t->loss_scale);
    } else if (t->n_scaled == GOOD_STEPS) {
        t->loss_scale = fminf(2 * t->loss_scale, 0x1p24f);
        t->n_scaled = 0;
    }
    mo_optim_set_scale(t->optim, t->loss_scale);
}

static enum mopt_status one_step(struct mo_trainer *t)
{
    const struct mo_train_hooks *h = &t->hooks;
    uint64_t n_group = MO_MIN(t->accumulate, batches_in_epoch(t) - t->at.batch), n_samples;
    mo_trainer_begin_step(t);
    if (h->before_step)
        MO_TRY(h->before_step(h->user, t->run, t->at.step, t->n_steps));
    MO_TRY(gather_gradient(t, n_group, &n_samples));
    if (n_samples)
        follow_scale(t, mo_optim_step(t->optim, current_lr(t), NULL));
    if (h->after_step)
        MO_TRY(h->after_step(h->user, t->run, t->at.step, t->n_steps));
    t->at.step++;
    tell(t);
    char why[192];
    if (t->run->be->sync(t->run->dev, why, sizeof why))
        return mo_fail(t->ctx, MOPT_FAILED, "device: %s", why);
    return MOPT_OK;
}

/* ---- after an epoch ---- */

/* More is better; a loss counts negative. Anything is better than what is not a number. */
static double score_of(const struct mo_metrics *m)
{
    double score = m->has_accuracy ? m->accuracy : m->has_values ? -m->rmse : -m->loss;
    return isnan(score) ? -INFINITY : score;
}

/* A gain of half a standard deviation of the accuracy (that of a difference on the same samples is smaller than the
 * accuracy's own), or half of that where the loss, which is less of a lottery, agrees. */
static bool is_sure(const struct mo_trainer *t, const struct mo_metrics *m)
{
    const struct mo_saved_metrics *start = &t->at.start;
    double deviation = sqrt(start->accuracy * (1 - start->accuracy) / (double)MO_MAX(start->n, (uint64_t)1));
    if (!m->has_accuracy)
        return true;
    return m->accuracy > start->accuracy + (m->loss < start->loss ? 0.25 : 0.5) * deviation;
}

static void keep_best(struct mo_trainer *t, const struct mo_metrics *m, double epoch)
{
    struct mo_train_position *p = &t->at;
    double score = score_of(m);
    bool is_better = !p->has_best || score > p->best_score || (score == p->best_score && m->loss < p->best_loss);
    if (t->hooks.doubts && t->judges_start && p->has_best && p->best_epoch <= 0)
        is_better = is_better && is_sure(t, m);
    p->bad_epochs = is_better ? 0 : p->bad_epochs + 1;
    if (!is_better)
        return;
    p->has_best = true;
    p->best_score = score;
    p->best_loss = m->loss;
    p->best_epoch = epoch;
    p->best = mo_metrics_pack(m);
    if (t->best)
        t->run->be->download(t->run->dev, t->best, t->run->weights, t->run->n_weights * sizeof *t->best);
}

static enum mopt_status validate(struct mo_trainer *t, double epoch, struct mo_metrics *m)
{
    mo_optim_swap_ema(t->optim);
    bool was = t->run->is_training;
    t->run->is_training = false;
    enum mopt_status status = mo_evaluate_run(t->job, t->run, MO_SPLIT_VALIDATION, t->batch, m);
    t->run->is_training = was;
    if (!status) {
        t->at.last = mo_metrics_pack(m);
        keep_best(t, m, epoch);
    }
    mo_optim_swap_ema(t->optim);
    return status;
}

static void report_row(struct mo_trainer *t, const struct mo_epoch_row *row)
{
    const struct mopt_report *there = mopt_report_at(t->job->report, "epochs");
    struct mopt_report *list = there ? (struct mopt_report *)(uintptr_t)there
                                     : mo_report_list(t->job->report, "epochs");
    struct mopt_report *item = mo_report_object(list, NULL);
    mo_report_set_number(item, "epoch", row->epoch);
    mo_report_set_number(item, "loss", row->loss);
    mo_report_set_number(item, "lr", row->lr);
    mo_report_set_number(item, "seconds", row->seconds);
    mo_report_set_number(item, "samples_per_second", row->rate);
    if (row->train_accuracy >= 0)
        mo_report_set_number(item, "train_accuracy", row->train_accuracy);
    if (!row->has_metrics)
        return;
    const struct mo_saved_metrics *m = &row->metrics;
    mo_report_set_number(item, "validation_loss", m->loss);
    if (m->has_accuracy)
        mo_report_set_number(item, "accuracy", m->accuracy);
    if (m->has_values) {
        mo_report_set_number(item, "rmse", m->rmse);
        mo_report_set_number(item, "r2", m->r2);
    }
}

void mo_trainer_judged_text(const struct mo_saved_metrics *m, char *text, size_t n)
{
    if (m->has_accuracy)
        snprintf(text, n, "validation accuracy %.2f %%", 100 * m->accuracy);
    else if (m->has_values)
        snprintf(text, n, "validation RMSE %.5g", m->rmse);
    else
        snprintf(text, n, "validation loss %.5g", m->loss);
}

static void log_row(struct mo_trainer *t, const struct mo_epoch_row *row)
{
    char judged[96] = "";
    if (row->has_metrics)
        mo_trainer_judged_text(&row->metrics, judged, sizeof judged);
    mo_log(t->ctx, t->hooks.phase, "epoch %g of %g: loss %.4f%s%s, %.0f samples/s", row->epoch, t->s.epochs, row->loss,
           *judged ? ", " : "", judged, row->rate);
}

/* Epoch 0: the weights that came in, which training has to beat. */
static enum mopt_status judge_start(struct mo_trainer *t)
{
    struct mo_metrics m = {0};
    char judged[96];
    if (!t->judges_start || t->at.step || t->at.has_best)
        return MOPT_OK;
    MO_TRY(validate(t, 0, &m));
    t->at.start = mo_metrics_pack(&m);      /* is_sure compares with it from now on */
    mo_trainer_judged_text(&t->at.start, judged, sizeof judged);
    mo_log(t->ctx, t->hooks.phase, "epoch 0 of %g, the model as it came: %s", t->s.epochs, judged);
    return MOPT_OK;
}

static void note_plateau(struct mo_trainer *t, const struct mo_epoch_row *row)
{
    struct mo_train_position *p = &t->at;
    struct mo_plateau plateau = {p->plateau_best, p->plateau_bad, p->plateau_drops, p->plateau_has_best != 0};
    double score = -(row->has_metrics ? row->metrics.loss : row->loss);
    if (row->has_metrics && row->metrics.has_accuracy)
        score = row->metrics.accuracy;
    mo_plateau_note(&plateau, &t->schedule, score);
    p->plateau_best = plateau.best;
    p->plateau_bad = plateau.bad_epochs;
    p->plateau_drops = plateau.drops;
    p->plateau_has_best = plateau.has_best;
}

static enum mopt_status save_if_asked(struct mo_trainer *t)
{
    return t->s.checkpoint ? mo_trainer_save(t, t->s.checkpoint) : MOPT_OK;
}

/* Between two steps: a wish to stop, or time for a checkpoint. */
static enum mopt_status safe_point(struct mo_trainer *t)
{
    bool is_due = t->s.checkpoint && mo_now_s() - t->last_checkpoint_s >= t->s.checkpoint_every_s;
    if (!mo_trainer_is_stopped(t))
        return is_due ? mo_trainer_save(t, t->s.checkpoint) : MOPT_OK;
    if (!t->s.checkpoint && t->at.step)
        t->s.checkpoint = t->ctx->rescue;
    MO_TRY(save_if_asked(t));
    if (t->s.checkpoint)
        return mo_fail(t->ctx, MOPT_INTERRUPTED, "interrupted at step %llu of %llu; go on with --resume '%s'",
                       (unsigned long long)t->at.step, (unsigned long long)t->n_steps, t->s.checkpoint);
    return mo_fail(t->ctx, MOPT_INTERRUPTED,
                   "interrupted at step %llu of %llu; without --checkpoint FILE nothing is kept",
                   (unsigned long long)t->at.step, (unsigned long long)t->n_steps);
}

static enum mopt_status end_epoch(struct mo_trainer *t, double lr)
{
    struct mo_train_position *p = &t->at;
    MO_TRY(mo_trainer_agree(t));
    struct mo_epoch_row row = {.epoch = (double)p->epoch + (double)p->batch / (double)t->n_batches,
                               .loss = mo_tree_total(&p->loss) / (double)MO_MAX(p->n_epoch, 1), .lr = lr,
                               .seconds = p->seconds_epoch, .rate = (double)p->n_epoch / fmax(p->seconds_epoch, 1e-9),
                               .train_accuracy = -1};
    bool is_classifier = mo_dataset_source(t->job->dataset, MO_SPLIT_TRAIN)->target == MO_TARGET_CLASS;
    if (is_classifier && p->n_epoch)
        row.train_accuracy = (double)p->n_correct / (double)p->n_epoch;
    if (t->validates) {
        struct mo_metrics m = {0};
        enum mopt_status status = validate(t, row.epoch, &m);
        if (status == MOPT_INTERRUPTED) { /* all steps of the epoch are done: a resumed run begins with this validation */
            mopt_clear(t->ctx);
            MO_TRY(safe_point(t));
        }
        MO_TRY(status);
        if (isnan(m.loss))
            return mo_trainer_bad_loss(t, m.loss);
        row.has_metrics = true;
        row.metrics = mo_metrics_pack(&m);
    }
    t->rows[p->n_rows++] = row;
    report_row(t, &row);
    log_row(t, &row);
    note_plateau(t, &row);
    p->n_total += p->n_epoch;
    p->seconds_total += p->seconds_epoch;
    p->seconds_epoch = 0;
    p->n_epoch = p->n_correct = 0;
    p->loss = (struct mo_tree_sum){.n = 0};
    p->epoch++;
    p->batch = 0;
    p->is_done = p->epoch == t->n_epochs || (t->s.patience > 0 && p->bad_epochs >= t->s.patience);
    return MOPT_OK;
}

/* ---- the loop ---- */

static enum mopt_status one_epoch(struct mo_trainer *t)
{
    MO_TRY(mo_loader_start(t->loader, t->at.epoch, (size_t)t->at.batch));
    double lr = current_lr(t);
    while (t->at.batch < batches_in_epoch(t)) {
        double start = mo_now_s();
        lr = current_lr(t);
        MO_TRY(one_step(t));
        t->at.seconds_epoch += mo_now_s() - start;
        if (t->at.batch < batches_in_epoch(t))
            MO_TRY(safe_point(t));
    }
    return end_epoch(t, lr);
}

enum mopt_status mo_trainer_loop(struct mo_trainer *t)
{
    for (uint64_t i = 0; i < t->at.n_rows; i++)
        report_row(t, &t->rows[i]);
    t->run->is_training = true;
    MO_TRY(judge_start(t));
    MO_TRY(safe_point(t));
    while (!t->at.is_done) {
        MO_TRY(one_epoch(t));
        MO_TRY(save_if_asked(t));
        if (!t->at.is_done)
            MO_TRY(safe_point(t));
    }
    return MOPT_OK;
}
