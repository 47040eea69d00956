/* train_setup.c - the options of training, what is chosen where they leave it open, and mo_train itself.
 *
 * A model is fresh when --init fresh was asked for or its metadata says mopt.trained=0 (create writes that); then the
 * rate is the optimizer's own, the schedule the one-cycle triangle, and labels are smoothed. Else it is fine-tuned: a
 * tenth of that rate, falling linearly. Rates of 0.1 are what generalizes best, and more than a net without normalization
 * bears at its start: so the gradient is clipped, at a length that is only exceeded then. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "lib/graph/large.h"
#include "lib/passes/train_private.h"

#define AT(field) offsetof(struct mo_train_settings, field)
const struct mopt_option mo_train_options[] = {
    {"epochs", MOPT_OPT_FLOAT, AT(epochs), .def = 10, .min = 0, .max = 1e6, .word = "N",
     .help = "passes over the training data; 0.5 is half of one"},
    {"batch", MOPT_OPT_INT, AT(batch), .def = 128, .min = 1, .max = 1 << 20, .word = "N", .help = "samples of a batch"},
    {"accumulate", MOPT_OPT_INT, AT(accumulate), .def = 1, .min = 1, .max = 1 << 20, .word = "N",
     .needs = "!optimizer=gd",
     .help = "batches whose gradients make one step"},
    {"lr", MOPT_OPT_FLOAT, AT(lr), .def = 0, .min = 0, .max = 1e30, .word = "X",
     .help = "highest learning rate; 0: what suits the optimizer and the model"},
    {"optimizer", MOPT_OPT_CHOICE, AT(optimizer), .text_def = "nesterov",
     .choices = "gd|sgd|momentum|nesterov|rmsprop|adam|adamw", .help = "rule of the update; gd: one step an epoch"},
    {"schedule", MOPT_OPT_CHOICE, AT(schedule), .text_def = "auto",
     .choices = "auto|constant|step|cosine|one-cycle|plateau|linear",
     .help = "course of the rate; auto: one-cycle for fresh models, else linear"},
    {"loss", MOPT_OPT_CHOICE, AT(loss), .text_def = "auto", .choices = "auto|cross-entropy|bce|mse|l1|huber|kl",
     .help = "auto: cross-entropy for classes, bce for one logit, mse for values"},
    {"momentum", MOPT_OPT_FLOAT, AT(momentum), .def = NAN, .min = 0, .max = 0.9999, .word = "X",
     .needs = "optimizer=momentum|nesterov|rmsprop",
     .help = "of momentum and nesterov (0.9) and rmsprop (0)"},
    {"weight-decay", MOPT_OPT_FLOAT, AT(weight_decay), .def = NAN, .min = 0, .max = 10, .word = "X",
     .help = "0.0005 for gd to nesterov, 0.05 for adamw, else 0.0001"},
    {"decay-all", MOPT_OPT_BOOL, AT(decay_all), .help = "weight decay on biases and normalization too"},
    {"warmup", MOPT_OPT_FLOAT, AT(warmup), .def = NAN, .min = 0, .max = 1, .word = "SHARE",
     .help = "share of the steps in which the rate rises (in one-cycle 0.2, of adam and adamw 0.4; else 0)"},
    {"step-epochs", MOPT_OPT_INT, AT(step_epochs), .def = 10, .min = 1, .max = 1 << 20, .word = "N",
     .needs = "schedule=step|plateau",
     .help = "step: epochs between drops; plateau: epochs without gain before one"},
    {"step-gamma", MOPT_OPT_FLOAT, AT(step_gamma), .def = 0.1, .min = 0, .max = 1, .word = "X",
     .needs = "schedule=step|plateau",
     .help = "factor of a drop"},
    {"label-smoothing", MOPT_OPT_FLOAT, AT(label_smoothing), .def = NAN, .min = 0, .max = 0.99,
     .word = "X", .needs = "loss=auto|cross-entropy|bce",
     .help = "share of each label spread over all classes (0.1 for fresh models and cross-entropy, else 0)"},
    {"huber-delta", MOPT_OPT_FLOAT, AT(huber_delta), .def = 1, .min = 1e-6, .max = 1e6, .word = "X",
     .needs = "loss=huber",
     .help = "where huber turns from squared to absolute"},
    {"clip", MOPT_OPT_FLOAT, AT(clip), .def = NAN, .min = 0, .max = 1e6, .word = "X",
     .help = "longest gradient, all parameters together; 0: any (2 for gd to nesterov, else 0)"},
    {"ema", MOPT_OPT_FLOAT, AT(ema), .def = 0, .min = 0, .max = 0.99999, .word = "X",
     .help = "keep a moving average of the weights instead (0.999); 0: none"},
    {"beta1", MOPT_OPT_FLOAT, AT(beta1), .def = 0.9, .min = 0, .max = 0.9999, .word = "X", .needs = "optimizer=adam|adamw",
     .help = "of adam and adamw"},
    {"beta2", MOPT_OPT_FLOAT, AT(beta2), .def = 0.999, .min = 0, .max = 0.999999, .word = "X",
     .needs = "optimizer=adam|adamw",
     .help = "of adam and adamw"},
    {"rms-alpha", MOPT_OPT_FLOAT, AT(rms_alpha), .def = 0.99, .min = 0, .max = 0.999999, .word = "X",
     .needs = "optimizer=rmsprop",
     .help = "of rmsprop: share of the old mean square"},
    {"eps", MOPT_OPT_FLOAT, AT(eps), .def = 1e-8, .min = 1e-12, .max = 1, .word = "X",
     .needs = "optimizer=rmsprop|adam|adamw",
     .help = "of rmsprop, adam and adamw"},
    {"freeze", MOPT_OPT_LIST, AT(freeze), .word = "GLOB", .help = "parameters that stay as they are; repeatable"},
    {"patience", MOPT_OPT_INT, AT(patience), .def = 0, .min = 0, .max = 1 << 20, .word = "N",
     .needs = "val-split",
     .help = "stop after so many epochs without gain; 0: never"},
    {"bn", MOPT_OPT_CHOICE, AT(bn), .text_def = "auto", .choices = "auto|batch|frozen",
     .help = "BatchNormalization; auto: statistics of the batch where --batch is 16 or more"},
    {"init", MOPT_OPT_CHOICE, AT(init), .text_def = "keep", .choices = "keep|fresh",
     .help = "fresh: start over with random weights"},
    {"keep", MOPT_OPT_CHOICE, AT(keep), .text_def = "best", .choices = "best|last",
     .needs = "val-split,keep=last", /* without validation it is what happens: saying so is no mistake */
     .help = "weights of the epoch that validated best, or of the last one"},
    {"precision", MOPT_OPT_CHOICE, AT(precision), .text_def = "fp32", .choices = MO_PRECISION_CHOICES,
     .help = MO_PRECISION_HELP},
    {"shards", MOPT_OPT_INT, AT(shards), .def = 0, .min = 0, .max = 1 << 16, .word = "N",
     .help = "parts of a batch that are computed one by one and added up over a tree, so that ranks that divide them give "
             "the same bits; 0: 4 under mpirun or srun (or the ranks, where they do not divide 4), else 1"},
    {"bucket", MOPT_OPT_FLOAT, AT(bucket_mb), .def = 0, .min = 0, .max = 4096, .word = "MB",
     .help = "gradients that ranks exchange at once; 0: a quarter of all, up to 4 MB, on a GPU 25"},
    {"wire", MOPT_OPT_CHOICE, AT(wire), .text_def = "fp32", .choices = "fp32|bf16",
     .help = "gradients between ranks; bf16 halves the bytes, and other bits come out"},
    {"checkpoint", MOPT_OPT_TEXT, AT(checkpoint), .word = "FILE", .help = "where to keep what --resume needs"},
    {"checkpoint-every", MOPT_OPT_FLOAT, AT(checkpoint_every_s), .def = 60, .min = 0, .max = 1e9, .word = "SECONDS",
     .needs = "checkpoint,resume",
     .help = "time between checkpoints, besides one after each epoch"},
    {"resume", MOPT_OPT_TEXT, AT(resume), .word = "FILE", .help = "go on from a checkpoint, to the same bits"},
    {0}};

/* ---- what is left open ---- */

/* Steps in which a rate of our own choice may rise to its height at the earliest. A fresh model's first gradients are
 * steep and momentum multiplies them by ten: a run of thirty steps with a ramp of six ended in NaN. */
#define FRESH_RAMP 100
/* Shares of a fresh model's rate for one that is trained: converged; and at most. */
#define TRAINED_SHARE 0.1
#define MOST_SHARE 0.3

static void settle_rate(struct mo_trainer *t)
{
    struct mo_train_settings *s = &t->s;
    enum mo_optimizer kind = (enum mo_optimizer)s->optimizer;
    bool is_adam = kind == MO_OPT_ADAM || kind == MO_OPT_ADAMW;
    bool is_ours = s->lr == 0;
    if (is_ours)
        s->lr = mo_optim_default_lr(kind) * (t->is_fresh ? 1 : TRAINED_SHARE);
    if (isnan(s->momentum))
        s->momentum = kind == MO_OPT_MOMENTUM || kind == MO_OPT_NESTEROV ? 0.9 : 0;
    if (isnan(s->weight_decay))
        s->weight_decay = mo_optim_default_decay(kind);
    if (s->schedule == MO_SCHED_AUTO)
        s->schedule = t->is_fresh ? MO_SCHED_ONE_CYCLE : MO_SCHED_LINEAR;
    if (isnan(s->clip))
        s->clip = is_adam || kind == MO_OPT_RMSPROP ? 0 : 2;
    if (isnan(s->warmup))
        s->warmup = s->schedule != MO_SCHED_ONE_CYCLE ? 0 : is_adam ? 0.4 : 0.2;
    t->schedule = (struct mo_schedule_options){.kind = (enum mo_schedule)s->schedule, .lr = s->lr, .warmup = s->warmup,
                                               .gamma = s->step_gamma, .step_epochs = s->step_epochs};
    t->finds_rate = is_ours && !t->is_fresh;
    t->schedule.ramp = is_ours && t->is_fresh && kind != MO_OPT_GD ? FRESH_RAMP : 0;
}

/* How far a trained model still has to go: its loss as a share of that of a guess among all classes, ln K. An early
 * export wants more than the tenth of the fresh rate that is right for a converged model. Not more than three tenths,
 * since a high loss may also mean that only its last layer is new. One batch may be out of luck, so it is over some. */
enum { RATE_SAMPLES = 1024 };
static enum mopt_status find_rate(struct mo_trainer *t, int64_t width)
{
    bool is_class = t->loss == MO_LOSS_CROSS_ENTROPY || t->loss == MO_LOSS_BCE;
    double loss = 0, guess = log(t->loss == MO_LOSS_CROSS_ENTROPY ? (double)width : 2);
    if (!t->finds_rate || t->hooks.loss || !is_class || t->job->settings->dry_run)
        return MOPT_OK;
    MO_TRY(mo_trainer_start_loss(t, RATE_SAMPLES, &loss));
    double share = isfinite(loss) ? fmin(fmax(loss / guess, TRAINED_SHARE), MOST_SHARE) : TRAINED_SHARE;
    t->s.lr = t->schedule.lr = mo_optim_default_lr((enum mo_optimizer)t->s.optimizer) * share;
    if (share > TRAINED_SHARE && t->s.optimizer != MO_OPT_GD)
        t->schedule.ramp = FRESH_RAMP;
    return MOPT_OK;
}

static enum mopt_status settle_loss(struct mo_trainer *t, int64_t width, const char *activation)
{
    const struct mo_source *source = mo_dataset_source(t->job->dataset, MO_SPLIT_TRAIN);
    bool is_sigmoid = activation && !strcmp(activation, "Sigmoid");
    t->loss = (enum mo_loss)t->s.loss;
    if (t->loss == MO_LOSS_AUTO && source->target == MO_TARGET_CLASS)
        t->loss = width == 1 || is_sigmoid ? MO_LOSS_BCE : MO_LOSS_CROSS_ENTROPY;
    else if (t->loss == MO_LOSS_AUTO)
        t->loss = MO_LOSS_MSE;
    t->s.loss = (int)t->loss;
    if (isnan(t->s.label_smoothing))
        t->s.label_smoothing = t->is_fresh && t->loss == MO_LOSS_CROSS_ENTROPY && !t->hooks.loss ? 0.1 : 0;
    if (source->target == MO_TARGET_NONE && !t->hooks.loss)
        return mo_fail(t->ctx, MOPT_DATA, "the data has neither labels nor target values to learn from");
    if (source->target == MO_TARGET_CLASS && width == 1 && source->n_classes > 2)
        return mo_fail(t->ctx, MOPT_DATA, "the data has %d classes, the model one output; where the label is a number to "
                       "be predicted, say so in the data (csv:FILE,target=regression)", source->n_classes);
    if (source->target == MO_TARGET_CLASS && width > 1 && source->n_classes > width)
        return mo_fail(t->ctx, MOPT_DATA, "%s: %d classes, but the model has only %lld", source->path,
                       source->n_classes, (long long)width);
    return MOPT_OK;
}

/* Losses with a softmax or sigmoid of their own read what the model's last one reads; others read the output itself. */
static mo_value_id value_to_train(const struct mo_trainer *t, const char **activation)
{
    mo_value_id logits = mo_graph_logits(&t->model->graph, activation);
    const struct mo_source *source = mo_dataset_source(t->job->dataset, MO_SPLIT_TRAIN);
    int loss = t->s.loss;
    bool is_open = t->hooks.loss || loss == MO_LOSS_AUTO;
    bool wants_logits = loss == MO_LOSS_CROSS_ENTROPY || loss == MO_LOSS_BCE || loss == MO_LOSS_KL ||
                        (is_open && source->target != MO_TARGET_VALUES);
    if (wants_logits)
        return logits;
    *activation = NULL;
    return t->model->graph.outputs[0];
}

/* ---- the run ---- */

static enum mopt_status freeze(struct mo_trainer *t)
{
    struct mo_run *run = t->run;
    const struct mo_graph *g = &t->model->graph;
    const struct mo_list *list = &t->s.freeze;
    bool *hit = mo_arena_new(t->job->scratch, list->n + 1, sizeof *hit);
    if (!hit)
        return mo_no_memory(t->ctx, list->n, "patterns");
    size_t n_trained = 0;
    for (uint32_t i = 0; i < run->n_params; i++) {
        struct mo_param *p = &run->params[i];
        mo_node_id reader = MO_NONE;
        mo_value_users(g, p->source, &reader, 1);
        const char *node = reader == MO_NONE ? NULL : g->nodes[reader].name;
        for (size_t k = 0; k < list->n; k++)
            if (mo_glob(list->items[k], p->name) || (node && mo_glob(list->items[k], node)))
                hit[k] = p->is_frozen = true;
        if (t->hooks.selects && !mo_is_selected(t->job, node, p->name))
            p->is_frozen = true;
        n_trained += !p->is_state && !p->is_frozen;
    }
    for (size_t k = 0; k < list->n; k++)
        if (!hit[k])
            return mo_fail(t->ctx, MOPT_USAGE, "option 'freeze': '%s' matches no parameter", list->items[k]);
    if (!n_trained)
        return mo_fail(t->ctx, MOPT_UNSUPPORTED, list->n || run->n_params ? "every parameter is frozen"
                                                                          : "the model has no parameters to train");
    return MOPT_OK;
}

static enum mopt_status open_run(struct mo_trainer *t, const char **activation)
{
    uint32_t n_shards = mo_trainer_count_shards(t);
    t->output = value_to_train(t, activation);
    const struct mo_run_options options = {.train = true,
                                           .free_batch = true,
                                           .bn = (enum mo_bn_mode)t->s.bn,
                                           .half = mo_precision_half(t->s.precision),
                                           .seed = (uint64_t)t->job->settings->seed,
                                           .outputs = &t->output,
                                           .n_outputs = 1,
                                           .is_shard = n_shards > 1};
    const struct mo_shard_options how = {.n_shards = n_shards, .bf16 = t->s.wire == 1,
                                         .bucket_bytes = (size_t)(t->s.bucket_mb * 1e6)};
    MO_TRY(mo_run_new(t->ctx, &t->model->graph, &options, &t->run));
    t->run->is_training = true;
    MO_TRY(freeze(t));
    return n_shards > 1 ? mo_shards_new(t->run, &t->model->graph, &options, &how, &t->shards) : MOPT_OK;
}

/* The shapes of a batch, from the first one of the training data. */
static enum mopt_status try_batch(struct mo_trainer *t, size_t batch, int64_t *width)
{
    const struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = batch, .limit = (uint32_t)batch};
    struct mo_loader *loader;
    const struct mo_batch *first;
    t->run->options.batch = batch;
    for (uint32_t k = 0; t->shards && k < t->shards->n; k++)
        t->shards->run[k]->options.batch = batch;
    MO_TRY(mo_loader_new(t->ctx, t->job->dataset, &how, &loader));
    enum mopt_status status = mo_loader_start(loader, 0, 0);
    if (!status)
        status = mo_loader_next(loader, &first);
    if (!status && !first->n)
        status = mo_fail(t->ctx, MOPT_DATA, "the training data has no sample");
    if (!status)
        status = mo_train_feed(t->run, first);
    const struct mo_value *out = status ? NULL : mo_run_output(t->run, 0);
    if (!status && first->n > 1 && (out->shape.rank < 1 || out->shape.dim[0] != (int64_t)first->n))
        status = mo_fail(t->ctx, MOPT_UNSUPPORTED, "output '%s' has no row for each of %zu samples", out->name,
                         first->n);
    if (!status)
        *width = mo_shape_elems(&out->shape) / (int64_t)first->n;
    if (!status)
        status = mo_trainer_part_shapes(t, first);
    mo_loader_free(loader);
    return status;
}

/* A model whose file fixes its batch, and that cannot be run with another one, takes its own and accumulates. */
static enum mopt_status settle_batch(struct mo_trainer *t, int64_t *width)
{
    t->batch = MO_MIN((size_t)t->s.batch, mo_dataset_count(t->job->dataset, MO_SPLIT_TRAIN));
    t->accumulate = (size_t)t->s.accumulate;
    if (!t->batch)
        return mo_fail(t->ctx, MOPT_DATA, "the training data has no sample");
    enum mopt_status status = try_batch(t, t->batch, width);
    int64_t fixed = mo_dataset_model_batch(t->job->dataset);
    bool is_of_shapes = status == MOPT_FAILED || status == MOPT_UNSUPPORTED || status == MOPT_DATA;
    if (!is_of_shapes || fixed <= 0 || (size_t)fixed == t->batch)
        return status;
    if (t->shards)
        return mo_fail(t->ctx, MOPT_UNSUPPORTED, "the model takes batches of %lld only, which cannot be cut into %u parts: "
                       "make its batch free, or give --shards 1 without mpirun", (long long)fixed, t->shards->n_shards);
    mopt_clear(t->ctx);
    t->accumulate *= MO_MAX(t->batch / (size_t)fixed, (size_t)1);
    t->batch = (size_t)fixed;
    mo_log(t->ctx, t->hooks.phase, "the model takes batches of %lld only: %zu of them make a step", (long long)fixed,
           t->accumulate);
    return try_batch(t, t->batch, width);
}

static enum mopt_status count_steps(struct mo_trainer *t)
{
    bool drop_last = t->job->settings->data.drop_last ||
                     (int64_t)t->batch == mo_dataset_model_batch(t->job->dataset);
    const struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = t->batch, .shuffle = true,
                                          .drop_last = drop_last, .augment = true,
                                          .seed = (uint64_t)t->job->settings->seed};
    MO_TRY(mo_trainer_loader(t, &how));
    t->n_batches = mo_loader_n_batches(t->loader);
    t->n_samples = mo_dataset_count(t->job->dataset, MO_SPLIT_TRAIN);
    if (drop_last)
        t->n_samples = MO_MIN(t->n_samples, t->n_batches * t->batch);
    if (!t->n_batches)
        return mo_fail(t->ctx, MOPT_DATA, "the training data has fewer samples than one batch of %zu", t->batch);
    if (t->s.optimizer == MO_OPT_GD)
        t->accumulate = (size_t)t->n_batches;
    double total = ceil(t->s.epochs * (double)t->n_batches - 1e-9);
    if (!(total >= 1))
        return mo_fail(t->ctx, MOPT_USAGE, "option 'epochs': %g is no training at all", t->s.epochs);
    uint64_t n_total = (uint64_t)total, a = t->accumulate;
    t->n_epochs = (n_total + t->n_batches - 1) / t->n_batches;
    t->n_batches_last = n_total - (t->n_epochs - 1) * t->n_batches;
    t->n_steps = (t->n_epochs - 1) * ((t->n_batches + a - 1) / a) + (t->n_batches_last + a - 1) / a;
    return MOPT_OK;
}

static enum mopt_status make_state(struct mo_trainer *t)
{
    const struct mo_train_settings *s = &t->s;
    const struct mo_optim_options options = {
        .kind = (enum mo_optimizer)s->optimizer, .momentum = s->momentum, .alpha = s->rms_alpha, .beta1 = s->beta1,
        .beta2 = s->beta2, .eps = s->eps, .weight_decay = s->weight_decay, .decay_all = s->decay_all, .clip = s->clip,
        .ema = s->ema};
    MO_TRY(mo_optim_new(t->run, &options, &t->optim));
    t->loss_scale = t->s.precision == MO_PRECISION_F16 ? 0x1p16f : 1;
    mo_optim_set_scale(t->optim, t->loss_scale);
    t->validates = mo_dataset_count(t->job->dataset, MO_SPLIT_VALIDATION) > 0;
    t->keeps_best = t->validates && s->keep == 0;
    t->judges_start = t->keeps_best && !t->is_fresh;
    t->rows = mo_mem_new(t->n_epochs, sizeof *t->rows);
    if (!t->rows || (t->keeps_best && !(t->best = mo_mem_new(t->run->n_weights, sizeof *t->best))))
        return mo_no_memory(t->ctx, t->run->n_weights * sizeof *t->best, "the best weights");
    if (s->patience > 0 && !t->validates)
        return mo_fail(t->ctx, MOPT_USAGE, "option 'patience': there is no validation data to judge by");
    return MOPT_OK;
}

static bool is_fresh(const struct mo_trainer *t)
{
    const char *trained = mo_model_meta(t->model, "mopt.trained");
    return t->s.init == 1 || (!t->hooks.trained && trained && !strcmp(trained, "0"));
}

/* The run has its own copy of the weights: those of the file need not stay in memory until they are replaced. */
static void forget_weights(const struct mo_trainer *t)
{
    for (uint32_t i = 0; i < t->run->n_params; i++)
        mo_constant_forget(t->ctx, t->model, &t->model->graph.values[t->run->params[i].source]);
}

static enum mopt_status set_up(struct mo_trainer *t)
{
    const char *activation = NULL;
    int64_t width = 0;
    t->is_fresh = is_fresh(t);
    t->model_hash = mo_trainer_hash_model(t->model);
    settle_rate(t);
    if (t->s.init == 1)
        MO_TRY(mo_init_params(t->ctx, t->model, (uint64_t)t->job->settings->seed));
    MO_TRY(open_run(t, &activation));
    forget_weights(t);
    MO_TRY(settle_batch(t, &width));
    MO_TRY(settle_loss(t, width, activation));
    MO_TRY(count_steps(t));
    MO_TRY(find_rate(t, width));
    return make_state(t);
}

/* ---- telling ---- */

static const char *choice_text(const char *name, int index, char buf[32])
{
    size_t base;
    const char *at = mo_option_find(mo_train_options, name, &base)->choices;
    for (; index > 0 && (at = strchr(at, '|')); index--)
        at++;
    snprintf(buf, 32, "%.*s", at ? (int)strcspn(at, "|") : 0, at ? at : "");
    return buf;
}

/* What the training will hold, each part and their sum, which --max-memory limits; at the end, beside it, the most that
 * the whole process has held, its program and libraries included. */
static enum mopt_status report_memory(struct mo_trainer *t)
{
    const char *names[MO_OPTIM_MAX_BUFFERS];
    float *buffers[MO_OPTIM_MAX_BUFFERS];
    size_t n_elems[MO_OPTIM_MAX_BUFFERS], n = 0, planned = 0;
    int n_buffers = mo_optim_buffers(t->optim, names, buffers, n_elems);
    for (int i = 0; i < n_buffers; i++)
        n += n_elems[i];
    const struct { const char *name; size_t bytes; } parts[] = {
        {"model", (size_t)mo_graph_heap_bytes(&t->model->graph)},
        {"block", mo_trainer_block_bytes(t)}, {"weights", t->run->n_weights * sizeof(float)},
        {"gradients", t->run->n_trained * sizeof(float)}, {"optimizer", n * sizeof(float)},
        {"best", t->best ? t->run->n_weights * sizeof(float) : 0},
        {"data", mo_dataset_bytes(t->job->dataset)}, {"batches", mo_loader_bytes(t->loader)},
        {"scratch", t->run->be->scratch_bytes}, {"beside", t->hooks.held_bytes}};
    struct mopt_report *r = mo_report_object(t->job->report, "memory_bytes");
    for (size_t i = 0; i < MO_COUNT(parts); i++) {
        mo_report_set_int(r, parts[i].name, (int64_t)parts[i].bytes);
        planned += parts[i].bytes;
    }
    mo_report_set_int(r, "planned", (int64_t)planned);
    if (t->ctx->max_memory_bytes && planned > t->ctx->max_memory_bytes)
        return mo_fail(t->ctx, MOPT_LIMIT,
                       "training takes %zu bytes (%zu for a batch of %zu, %zu of data), more than the %llu that "
                       "--max-memory allows: try a smaller --batch", planned, parts[1].bytes, t->batch, parts[6].bytes,
                       (unsigned long long)t->ctx->max_memory_bytes);
    return MOPT_OK;
}

static void report_peak(struct mo_trainer *t)
{
    struct rusage use;
    const struct mopt_report *there = mopt_report_at(t->job->report, "memory_bytes");
    if (!there || getrusage(RUSAGE_SELF, &use))
        return;
    struct mopt_report *r = (struct mopt_report *)(uintptr_t)there;
    double planned = mopt_report_number(mopt_report_at(there, "planned"), NAN), peak = (double)use.ru_maxrss * 1024;
    mo_report_set_int(r, "peak_rss", (int64_t)peak);
    mo_report_set_number(r, "peak_over_planned", peak / planned);
}

static enum mopt_status report_plan(struct mo_trainer *t)
{
    const struct mo_train_settings *s = &t->s;
    struct mopt_report *r = mo_report_object(t->job->report, "training");
    char optimizer[32], schedule[32], loss[32];
    choice_text("optimizer", s->optimizer, optimizer);
    choice_text("schedule", s->schedule, schedule);
    choice_text("loss", s->loss, loss);
    mo_report_set_bool(r, "fresh", t->is_fresh);
    mo_report_set_text(r, "optimizer", optimizer);
    mo_report_set_text(r, "schedule", schedule);
    if (!t->hooks.loss)
        mo_report_set_text(r, "loss", loss);
    mo_report_set_number(r, "lr", s->lr);
    mo_report_set_number(r, "weight_decay", s->weight_decay);
    mo_report_set_number(r, "label_smoothing", s->label_smoothing);
    mo_report_set_number(r, "clip", s->clip);
    mo_report_set_int(r, "batch", (int64_t)t->batch);
    mo_report_set_int(r, "accumulate", (int64_t)t->accumulate);
    mo_report_set_int(r, "shards", t->shards ? t->shards->n_shards : 1);
    mo_report_set_int(r, "n_samples", (int64_t)t->n_samples);
    mo_report_set_int(r, "n_steps", (int64_t)t->n_steps);
    mo_report_set_int(r, "n_trained", (int64_t)t->run->n_trained);
    mo_report_set_int(r, "block_bytes", (int64_t)mo_run_block_bytes(t->run));
    mo_report_set_int(r, "weight_bytes", (int64_t)mo_run_weight_bytes(t->run));
    MO_TRY(report_memory(t));
    mo_log(t->ctx, t->hooks.phase, "%s model, %s, rate %g %s, %llu samples, batch %zu, %llu steps",
           t->is_fresh ? "fresh" : "trained", optimizer, s->lr, schedule, (unsigned long long)t->n_samples, t->batch,
           (unsigned long long)t->n_steps);
    return MOPT_OK;
}

static void report_end(struct mo_trainer *t, struct mo_train_result *result)
{
    const struct mo_train_position *p = &t->at;
    *result = (struct mo_train_result){
        .n_steps = p->step, .epochs_done = p->n_rows ? t->rows[p->n_rows - 1].epoch : 0, .seconds = p->seconds_total,
        .samples_per_second = (double)p->n_total / fmax(p->seconds_total, 1e-9), .loss_first = p->loss_first,
        .loss_last = p->loss_last, .best = mo_metrics_unpack(&p->best), .last = mo_metrics_unpack(&p->last),
        .best_epoch = p->best_epoch};
    result->has_start = t->judges_start;
    result->kept_start = t->judges_start && p->best_epoch <= 0;
    result->start = mo_metrics_unpack(&p->start);
    report_peak(t);
    struct mopt_report *r = mo_report_object(t->job->report, "training_result");
    mo_report_set_int(r, "n_steps", (int64_t)p->step);
    mo_report_set_number(r, "epochs_done", result->epochs_done);
    mo_report_set_number(r, "seconds", result->seconds);
    mo_report_set_number(r, "samples_per_second", result->samples_per_second);
    mo_report_set_number(r, "loss_first", p->loss_first);
    mo_report_set_number(r, "loss_last", p->loss_last);
    mo_report_set_bool(r, "stopped_early", p->step < t->n_steps);
    if (!t->validates)
        return;
    mo_report_set_number(r, "best_epoch", p->best_epoch);
    mo_report_set_text(r, "kept", result->kept_start ? "start" : t->keeps_best ? "best" : "last");
    if (result->has_start)
        mo_report_metrics(mo_report_object(r, "start"), &result->start);
    mo_report_metrics(mo_report_object(t->job->report, "metrics"), t->keeps_best ? &result->best : &result->last);
}

/* Going on from a trained model may make it worse: who asked for training should hear when it did no good. */
static void tell_kept(struct mo_trainer *t, const struct mo_train_result *result)
{
    char judged[96];
    mo_trainer_judged_text(&t->at.start, judged, sizeof judged);
    if (result->kept_start)
        mo_warn(t->ctx, t->hooks.phase,
                "no epoch was better than the model as it came (%s), so its weights are kept: try a lower --lr (it was "
                "%g) or more --epochs", judged, t->s.lr);
    else if (!t->validates && !t->is_fresh)
        mo_log(t->ctx, t->hooks.phase, "no validation data: the last weights are kept, better or not");
}

/* ---- the end ---- */

/* The weights that are kept go into the model, with what they were trained on. */
static enum mopt_status store(struct mo_trainer *t)
{
    struct mo_run *run = t->run;
    if (t->keeps_best && t->at.has_best)
        run->be->upload(run->dev, run->weights, t->best, run->n_weights * sizeof *t->best);
    else
        mo_optim_swap_ema(t->optim);
    if (t->hooks.after_step) /* masks hold for averages and earlier weights too */
        MO_TRY(t->hooks.after_step(t->hooks.user, run, t->n_steps ? t->n_steps - 1 : 0, t->n_steps));
    mo_mem_free(t->best);   /* room for the model's own copy */
    t->best = NULL;
    MO_TRY(mo_run_store(run, &t->model->graph));
    char smoothing[32];
    snprintf(smoothing, sizeof smoothing, "%g", t->s.label_smoothing);
    if (!mo_model_set_meta(t->model, "mopt.trained", "1") ||
        !mo_model_set_meta(t->model, "mopt.label-smoothing", smoothing))
        return mo_no_memory(t->ctx, 0, "metadata");
    return mo_dataset_note(t->ctx, t->job->dataset, t->model);
}

static enum mopt_status run_trainer(struct mo_trainer *t, struct mo_train_result *result)
{
    MO_TRY(set_up(t));
    MO_TRY(report_plan(t));
    if (t->job->settings->dry_run)
        return MOPT_OK;
    if (t->s.resume) {
        if (!t->s.checkpoint)
            t->s.checkpoint = t->s.resume;
        MO_TRY(mo_trainer_load(t, t->s.resume));
        mo_log(t->ctx, t->hooks.phase, "going on at step %llu of %llu", (unsigned long long)t->at.step,
               (unsigned long long)t->n_steps);
    }
    enum mopt_status status = mo_trainer_loop(t);
    if (status && t->ctx->n_ranks > 1)
        mo_trainer_rescue(t);
    MO_TRY(status);
    mo_trainer_report_ranks(t);
    MO_TRY(store(t));
    report_end(t, result);
    tell_kept(t, result);
    return MOPT_OK;
}

enum mopt_status mo_train(struct mo_job *job, struct mopt_model *model, const struct mo_train_settings *settings,
                          const struct mo_train_hooks *hooks, struct mo_train_result *result)
{
    struct mo_train_result unused;
    if (!job->dataset)
        return mo_fail(job->ctx, MOPT_USAGE, "training needs data: add --data SPEC, e.g. --data idx:DIR");
    struct mo_trainer *t = mo_mem_new(1, sizeof *t);
    if (!t)
        return mo_no_memory(job->ctx, sizeof *t, "training");
    t->job = job;
    t->ctx = job->ctx;
    t->model = model;
    t->loss_scale = 1;
    if (hooks)
        t->hooks = *hooks;
    if (!t->hooks.phase)
        t->hooks.phase = "train";
    t->s = *settings;
    t->last_checkpoint_s = -INFINITY;
    enum mopt_status status = run_trainer(t, result ? result : &unused);
    mo_loader_free(t->loader);
    mo_optim_free(t->optim);
    mo_trainer_free_shards(t);
    mo_run_free(t->run);
    mo_mem_free(t->rows);
    mo_mem_free(t->best);
    mo_mem_free(t->logits);
    mo_mem_free(t->dlogits);
    mo_mem_free(t);
    return status;
}
