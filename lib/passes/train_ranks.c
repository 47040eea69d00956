/* train_ranks.c - batches in parts (lib/run/shards.h), on this process or on several ranks.
 *
 * Each rank loads and computes its own parts of every batch. What is decided from is added up over all of them: losses,
 * correct answers, samples, the wish to stop. All ranks then make the same step. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/passes/train_private.h"

/* Parts by default where a launcher says that there may be ranks. */
enum { USUAL_SHARDS = 4, MAX_SHARDS = 1 << 16 };

/* Of one batch, over all parts. */
enum { SUM_LOSS, SUM_RIGHT, SUM_SAMPLES, SUM_STOP, N_SUMS };

struct mo_train_ranks {
    double (*sums)[N_SUMS];             /* by part; added up into the first */
    bool is_stopped;                    /* some rank was asked to stop: known by all after the same batch */
    struct mo_train_position before;    /* where the run stood before the step that is under way, */
    float *state;                       /* with these running statistics, */
    uint64_t run_step;
    bool in_step;                       /* and its weights are still those */
};

/* What the run that is gone on with had; 0: nothing is gone on with, or it cannot be told. Loading the checkpoint says why. */
static uint64_t shards_before(const struct mo_trainer *t)
{
    struct mo_checkpoint *c = NULL;
    uint64_t n = 0, n_bytes = 0;
    if (!t->s.resume)
        return 0;
    if (mo_checkpoint_read(t->ctx, t->s.resume, &c)) {
        mopt_clear(t->ctx);
        return 0;
    }
    const void *bytes = mo_checkpoint_part(c, "shards", &n_bytes);
    if (bytes && n_bytes == sizeof n)
        memcpy(&n, bytes, sizeof n);
    mo_checkpoint_free(c);
    return n <= MAX_SHARDS ? n : 0;
}

uint32_t mo_trainer_count_shards(const struct mo_trainer *t)
{
    uint32_t n_ranks = (uint32_t)t->ctx->n_ranks;
    if (t->s.shards)
        return (uint32_t)t->s.shards;
    uint64_t before = shards_before(t);
    if (before && before % n_ranks == 0)
        return (uint32_t)before;
    if (!t->ctx->comm || USUAL_SHARDS % n_ranks)
        return n_ranks;
    return USUAL_SHARDS;
}

static enum mopt_status make_ranks(struct mo_trainer *t)
{
    size_t n_state = t->run->n_weights - t->run->n_trained;
    t->ranks = mo_mem_new(1, sizeof *t->ranks);
    if (!t->ranks)
        return mo_no_memory(t->ctx, sizeof *t->ranks, "training");
    t->ranks->sums = mo_mem_new(t->shards->n, sizeof *t->ranks->sums);
    t->ranks->state = mo_mem_new(n_state + 1, sizeof(float));
    return t->ranks->sums && t->ranks->state ? MOPT_OK : mo_no_memory(t->ctx, n_state * sizeof(float), "training");
}

enum mopt_status mo_trainer_loader(struct mo_trainer *t, const struct mo_loader_options *how)
{
    struct mo_loader_options mine = *how;
    t->loader_how = *how;
    if (t->shards) {
        mine.first_part = t->shards->first;
        mine.parts = t->shards->n;
        mine.n_parts = t->shards->n_shards;
        if (how->batch < t->shards->n_shards)
            return mo_fail(t->ctx, MOPT_USAGE, "a batch of %zu samples cannot be cut into %u parts: give a larger --batch, "
                           "or fewer ranks", how->batch, t->shards->n_shards);
        MO_TRY(make_ranks(t));
    }
    return mo_loader_new(t->ctx, t->job->dataset, &mine, &t->loader);
}

/* Each part's run has the shapes of a whole batch's part once, also where the first batches leave it empty. */
enum mopt_status mo_trainer_part_shapes(struct mo_trainer *t, const struct mo_batch *first)
{
    const struct mo_shards *s = t->shards;
    for (uint32_t k = 0; s && k < s->n; k++) {
        struct mo_shape shapes[MO_MAX_INPUTS];
        uint64_t part = s->first + k;
        for (uint32_t i = 0; i < first->n_inputs; i++) {
            shapes[i] = first->shape[i];
            if (shapes[i].rank < 1 || shapes[i].dim[0] != (int64_t)first->n)
                return mo_fail(t->ctx, MOPT_UNSUPPORTED, "input %u has no dimension of samples: a batch of it cannot be cut "
                               "into parts", i);
            shapes[i].dim[0] = (int64_t)((part + 1) * first->n / s->n_shards - part * first->n / s->n_shards);
        }
        MO_TRY(mo_run_shape(s->run[k], shapes, first->n_inputs));
    }
    return MOPT_OK;
}

size_t mo_trainer_block_bytes(const struct mo_trainer *t)
{
    size_t bytes = mo_run_block_bytes(t->run);
    for (uint32_t k = 1; t->shards && k < t->shards->n; k++)
        bytes += mo_run_block_bytes(t->shards->run[k]) + t->run->n_weights * sizeof(float);
    return bytes;
}

/* ---- a batch -------------------------------------------------------------------------------- */

/* The samples of part k among those that came; *n of them. */
static struct mo_batch part_of(const struct mo_shards *s, uint32_t k, const struct mo_batch *batch, uint64_t n_batch)
{
    uint64_t part = s->first + k, from = part * n_batch / s->n_shards, to = (part + 1) * n_batch / s->n_shards;
    size_t first = 0, end;
    while (first < batch->n && batch->place[first] < from)
        first++;
    for (end = first; end < batch->n && batch->place[end] < to;)
        end++;
    struct mo_batch mine = *batch;
    mine.n = end - first;
    for (uint32_t i = 0; i < batch->n_inputs; i++) {
        struct mo_shape one = batch->shape[i];
        one.dim[0] = 1;
        mine.shape[i].dim[0] = (int64_t)mine.n;
        if (!batch->is_sparse)
            mine.x[i] = (char *)batch->x[i] + first * mo_dtype_bytes(batch->dtype[i], mo_shape_elems(&one));
    }
    mine.row_start = batch->row_start ? batch->row_start + first : NULL;
    mine.labels = batch->labels ? batch->labels + first : NULL;
    mine.index += first;
    mine.place += first;
    return mine;
}

static enum mopt_status feed_parts(struct mo_trainer *t, const struct mo_batch *batch, uint64_t n_batch)
{
    struct mo_shards *s = t->shards;
    s->batch = (size_t)n_batch;
    for (uint32_t k = 0; k < s->n; k++) {
        struct mo_batch mine = part_of(s, k, batch, n_batch);
        s->has_rows[k] = mine.n > 0;
        if (mine.n)
            MO_TRY(mo_train_feed(s->run[k], &mine));
    }
    return MOPT_OK;
}

static enum mopt_status part_losses(struct mo_trainer *t, const struct mo_batch *batch, uint64_t n_batch,
                                    uint64_t n_expected)
{
    struct mo_shards *s = t->shards;
    size_t n_targets = (size_t)mo_dataset_source(t->job->dataset, MO_SPLIT_TRAIN)->n_targets;
    for (uint32_t k = 0; k < s->n; k++) {
        struct mo_batch mine = part_of(s, k, batch, n_batch);
        double loss = 0, *sums = t->ranks->sums[k], n = (double)mine.n;
        uint64_t n_correct = 0;
        mine.targets = batch->targets ? batch->targets + (size_t)(mine.index - batch->index) * n_targets : NULL;
        if (mine.n)
            MO_TRY(mo_trainer_loss(t, s->run[k], &mine, &loss, n / (double)n_expected, &n_correct));
        sums[SUM_LOSS] = loss * n;
        sums[SUM_RIGHT] = (double)n_correct;
        sums[SUM_SAMPLES] = n;
        sums[SUM_STOP] = !k && atomic_load(&t->ctx->is_stopped);
    }
    mo_shards_tree(t->ranks->sums[0], s->n, N_SUMS);
    return MOPT_OK;
}

static enum mopt_status take_sums(struct mo_trainer *t, bool add)
{
    const double *sums = t->ranks->sums[0];
    double n = sums[SUM_SAMPLES], loss = sums[SUM_LOSS] / (n > 0 ? n : 1);
    t->ranks->is_stopped |= sums[SUM_STOP] > 0;
    if (!isfinite(loss))
        return mo_trainer_bad_loss(t, loss);
    if (!(n > 0))
        return MOPT_OK;
    mo_tree_add(&t->at.loss, sums[SUM_LOSS]);
    t->at.n_correct += (uint64_t)sums[SUM_RIGHT];
    t->at.n_epoch += (uint64_t)n;
    t->at.loss_last = loss;
    if (!t->at.step && !add)
        t->at.loss_first = loss;
    return MOPT_OK;
}

enum mopt_status mo_trainer_parts(struct mo_trainer *t, const struct mo_batch *batch, uint64_t n_batch,
                                  uint64_t n_expected, bool add, bool is_last, uint64_t *n_samples)
{
    uint64_t ticket;
    MO_TRY(feed_parts(t, batch, n_batch));
    MO_TRY(mo_shards_forward(t->shards));
    MO_TRY(part_losses(t, batch, n_batch, n_expected));
    MO_TRY(mo_ranks_start_sums(t->ctx, t->ranks->sums[0], N_SUMS, &ticket));
    MO_TRY(mo_shards_backward(t->shards, add, is_last));
    MO_TRY(mo_ranks_wait(t->ctx, ticket));
    *n_samples = (uint64_t)t->ranks->sums[0][SUM_SAMPLES];
    return take_sums(t, add);
}

enum mopt_status mo_trainer_finish_parts(struct mo_trainer *t)
{
    MO_TRY(mo_shards_finish(t->shards));
    t->ranks->in_step = false;
    return MOPT_OK;
}

/* ---- together ---------------------------------------------------------------------------------- */

bool mo_trainer_is_stopped(const struct mo_trainer *t)
{
    return t->ctx->n_ranks > 1 ? t->ranks->is_stopped : atomic_load(&t->ctx->is_stopped);
}

/* All ranks hold the same bits: looked at once an epoch. */
enum mopt_status mo_trainer_agree(struct mo_trainer *t)
{
    struct mo_run *run = t->run;
    size_t bytes = run->n_weights * sizeof(float);
    char what[64];
    if (t->ctx->n_ranks < 2)
        return MOPT_OK;
    snprintf(what, sizeof what, "weights after epoch %llu", (unsigned long long)t->at.epoch + 1);
    if (run->be->is_host)
        return mo_ranks_agree(t->ctx, run->weights, bytes, what);
    float *copy = mo_mem_new(run->n_weights, sizeof *copy);
    if (!copy)
        return mo_no_memory(t->ctx, bytes, "comparing ranks");
    run->be->download(run->dev, copy, run->weights, bytes);
    enum mopt_status status = mo_ranks_agree(t->ctx, copy, bytes, what);
    mo_mem_free(copy);
    return status;
}

void mo_trainer_begin_step(struct mo_trainer *t)
{
    struct mo_run *run = t->run;
    struct mo_train_ranks *r = t->ranks;
    if (t->ctx->n_ranks < 2 || t->ctx->rank)
        return;
    r->before = t->at;
    r->run_step = run->step;
    run->be->download(run->dev, r->state, run->weights + run->n_trained, (run->n_weights - run->n_trained) * sizeof(float));
    r->in_step = true;
}

/* Another rank is gone in the middle of a step. The weights are still those from before it: with the rest of that
 * moment they are a checkpoint. */
void mo_trainer_rescue(struct mo_trainer *t)
{
    struct mo_run *run = t->run;
    struct mo_train_ranks *r = t->ranks;
    const char *path = t->s.checkpoint ? t->s.checkpoint : t->ctx->rescue;
    if (t->ctx->rank || !r || !r->in_step || !path || !r->before.step)
        return;
    t->at = r->before;
    run->step = r->run_step;
    run->be->upload(run->dev, run->weights + run->n_trained, r->state, (run->n_weights - run->n_trained) * sizeof(float));
    r->in_step = false;
    struct mopt_ctx quiet = {.status = MOPT_OK};        /* the words of the failure stay */
    memcpy(quiet.error, t->ctx->error, sizeof quiet.error);
    enum mopt_status was = t->ctx->status;
    mopt_clear(t->ctx);
    enum mopt_status status = mo_trainer_save(t, path);
    memcpy(t->ctx->error, quiet.error, sizeof quiet.error);
    t->ctx->status = was;
    if (!status)
        mo_blame(t->ctx, "stopped in step %llu of %llu, what was before is in '%s' for --resume",
                 (unsigned long long)r->before.step + 1, (unsigned long long)t->n_steps, path);
}

void mo_trainer_report_ranks(struct mo_trainer *t)
{
    if (!t->shards || t->ctx->n_ranks < 2)
        return;
    const struct mo_shard_use *use = &t->shards->use;
    struct mopt_report *r = mo_report_object(t->job->report, "comm");
    mo_report_set_int(r, "n_ranks", t->ctx->n_ranks);
    mo_report_set_int(r, "shards", t->shards->n_shards);
    mo_report_set_text(r, "wire", t->s.wire ? "bf16" : "fp32");
    mo_report_set_int(r, "sums", (int64_t)use->n_sums);
    mo_report_set_int(r, "bytes", (int64_t)use->n_bytes);
    mo_report_set_number(r, "seconds", use->seconds);
    mo_report_set_number(r, "exposed_seconds", use->exposed_s);
    mo_report_set_number(r, "hidden", use->seconds > 0 ? 1 - use->exposed_s / use->seconds : 1);
    mo_report_set_number(r, "large_seconds", use->large_s);
    mo_report_set_number(r, "large_exposed_seconds", use->large_exposed_s);
    mo_report_set_number(r, "busy_seconds", use->busy_s);
    mo_report_set_int(r, "batchnorm_sums", (int64_t)use->n_syncs);
    mo_report_set_number(r, "batchnorm_seconds", use->sync_s);
}

void mo_trainer_free_shards(struct mo_trainer *t)
{
    if (t->ranks) {
        mo_mem_free(t->ranks->sums);
        mo_mem_free(t->ranks->state);
    }
    mo_mem_free(t->ranks);
    mo_shards_free(t->shards);
}
