/* prune_score.c - what a model would lose with each channel.
 *
 *     l1, l2       norm of the channel's slices of the weights that make it and that read it, each divided by its
 *                  mean over the group, so that layers of different scale compare
 *     activation   mean |a| where the channel is read, over the mean of the group
 *     apoz         share of values above zero there (1 - APoZ, Hu et al. 2016)
 *     taylor       mean over small batches of (sum of g w over the slices that read it)^2, the first-order change of
 *                  the loss when every reader sees zeros (Molchanov et al., ICLR 2017 and CVPR 2019): by Euler's
 *                  rule the sum over weights equals the sum of gradient times activation. Slices that make the
 *                  channel stand in where nothing with weights reads it
 *     random       uniform, by the seed */
#include "lib/graph/op.h"
#include "lib/passes/compare.h"
#include "lib/passes/prune.h"
#include "lib/passes/train_private.h"
#include "lib/run/ranks.h"

#include <math.h>
#include <string.h>

/* Samples in one gradient: few, since over all of them the gradient of a trained model is zero. */
enum { TAYLOR_BATCH = 32, ACTIVATION_BATCH = 64 };

/* sums[i] += sum over slice i of the axis of x, |x| or x^2 (power 0, 1, 2). */
static void sum_slices(const struct mo_shape *s, int axis, const float *x, int power, double *sums)
{
    int64_t outer = 1, inner = 1;
    for (int k = 0; k < axis; k++)
        outer *= s->dim[k];
    for (int k = axis + 1; k < s->rank; k++)
        inner *= s->dim[k];
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t i = 0; i < s->dim[axis]; i++) {
            double sum = 0;
            for (int64_t q = 0; q < inner; q++, x++)
                sum += power == 0 ? *x : power == 1 ? fabs((double)*x) : (double)*x * *x;
            sums[i] += sum;
        }
    }
}

/* Adds sums[index along axis] to the classes of the group. */
static void add_to_classes(const struct mo_channels *ch, const struct mo_channel_group *group, uint32_t axis,
                           const double *sums, double *by_class)
{
    for (uint32_t k = 0; k < group->n_classes; k++) {
        const struct mo_channel_class *class = &ch->classes[group->first + k];
        for (uint32_t i = 0; i < class->n_members; i++)
            if (ch->members[class->first + i].axis == axis)
                by_class[k] += sums[ch->members[class->first + i].index];
    }
}

static void divide_by_mean(double *x, uint32_t n)
{
    double sum = 0;
    for (uint32_t k = 0; k < n; k++)
        sum += x[k];
    for (uint32_t k = 0; k < n && sum > 0; k++)
        x[k] *= n / sum;
}

static uint32_t longest_axis(const struct mo_channels *ch)
{
    uint32_t n = 1;
    for (uint32_t w = 0; w < ch->n_weights; w++)
        n = MO_MAX(n, ch->axes[ch->weights[w].axis].n);
    for (uint32_t k = 0; k < ch->n_groups; k++)
        n = MO_MAX(n, ch->groups[k].n_classes);
    return n;
}

/* ---- from weights alone ------------------------------------------------------------------- */

static enum mopt_status norm_of_group(struct mo_job *job, const struct mo_channels *ch,
                                      const struct mo_channel_group *group, int power, double *sums, double *part,
                                      double *score)
{
    const struct mo_graph *g = &job->model->graph;
    for (uint32_t k = 0; k < group->n_weights; k++) {
        const struct mo_couple_weight_row *row = &ch->weights[group->weights[k]];
        const struct mo_value *v = &g->values[row->value];
        if (row->role == MO_ROLE_PER_CHANNEL || !v->data)
            continue;
        float *x = mo_value_floats(v);
        if (!x)
            return mo_fail(job->ctx, MOPT_UNSUPPORTED, "weight '%s' is not floating point; use --score random or taylor",
                           v->name);
        memset(sums, 0, ch->axes[row->axis].n * sizeof(*sums));
        memset(part, 0, group->n_classes * sizeof(*part));
        sum_slices(&v->shape, ch->axes[row->axis].axis, x, power, sums);
        mo_mem_free(x);
        add_to_classes(ch, group, row->axis, sums, part);
        for (uint32_t i = 0; power == 2 && i < group->n_classes; i++)
            part[i] = sqrt(part[i]);
        divide_by_mean(part, group->n_classes);
        for (uint32_t i = 0; i < group->n_classes; i++)
            score[group->first + i] += part[i];
    }
    divide_by_mean(score + group->first, group->n_classes);
    return MOPT_OK;
}

static enum mopt_status score_norm(struct mo_job *job, const struct mo_channels *ch, int power, double *score)
{
    uint32_t n = longest_axis(ch);
    double *sums = mo_mem_new(n, sizeof(*sums)), *part = mo_mem_new(n, sizeof(*part));
    enum mopt_status status = sums && part ? MOPT_OK : mo_no_memory(job->ctx, n * sizeof(*sums), "scores");
    for (uint32_t k = 0; k < ch->n_groups && !status; k++)
        if (!ch->groups[k].wall)
            status = norm_of_group(job, ch, &ch->groups[k], power, sums, part, score);
    mo_mem_free(sums);
    mo_mem_free(part);
    return status;
}

static void score_random(struct mo_job *job, const struct mo_channels *ch, double *score)
{
    struct mo_rng rng = mo_rng_new((uint64_t)job->settings->seed, MO_RNG_PRUNE, ch->n_classes);
    for (uint32_t k = 0; k < ch->n_classes; k++)
        score[k] = mo_rng_float(&rng);
}

/* ---- streaming over data ----------------------------------------------------------------------- */

/* One pass over samples of the training split: the run, the scores, and what to do with each batch. */
struct stream {
    struct mo_job *job;
    const struct mo_channels *ch;
    const struct mo_prune_settings *settings;
    struct mo_run *run;
    struct mo_loader *loader;
    enum mo_prune_score kind;
    enum mo_loss loss;
    double *sums, *part, *score;        /* score: of the batch at hand, */
    double *total, *all;                /* and of all batches so far; all: of the ranks' batches of a round */
    bool *is_seen;              /* by group: something was measured for it */
    float *grads, *weights, *logits, *dlogits;      /* host copies */
    size_t logits_elems;
    struct mo_shape shapes[MO_MAX_INPUTS];
    uint64_t n_batches, n_samples;
};

/* ---- taylor ---- */

static enum mopt_status need_logits(struct stream *s, size_t n_elems)
{
    if (n_elems <= s->logits_elems)
        return MOPT_OK;
    s->logits = mo_arena_new(s->job->scratch, n_elems, sizeof(float));
    s->dlogits = mo_arena_new(s->job->scratch, n_elems, sizeof(float));
    s->logits_elems = n_elems;
    return s->logits && s->dlogits ? MOPT_OK : mo_no_memory(s->job->ctx, n_elems * 8, "logits");
}

static enum mopt_status gradients(struct stream *s, const struct mo_batch *batch)
{
    struct mo_run *run = s->run;
    const struct mo_value *out = mo_run_output(run, 0);
    size_t n_elems = (size_t)mo_value_elems(out);
    if (n_elems % batch->n || (!batch->labels && !batch->targets))
        return mo_fail(s->job->ctx, MOPT_DATA, "score 'taylor' needs labels for the model's output '%s'", out->name);
    MO_TRY(need_logits(s, n_elems));
    MO_TRY(mo_run_get_output(run, 0, s->logits, n_elems * sizeof(float)));
    struct mo_loss_in in = { .kind = s->loss, .rows = batch->n, .width = n_elems / batch->n, .z = s->logits,
                             .labels = batch->labels, .targets = batch->targets,
                             .delta = s->settings->train.huber_delta };
    double loss;
    MO_TRY(mo_loss(s->job->ctx, &in, s->dlogits, &loss));
    run->be->upload(run->dev, mo_run_output_grad(run, 0), s->dlogits, n_elems * sizeof(float));
    MO_TRY(mo_run_backward(run, false));
    run->be->download(run->dev, s->grads, run->grads, run->n_trained * sizeof(float));
    return MOPT_OK;
}

static const struct mo_param *param_of(const struct mo_run *run, mo_value_id v)
{
    for (uint32_t p = 0; p < run->n_params; p++)
        if (run->params[p].source == v && !run->params[p].is_state)
            return &run->params[p];
    return NULL;
}

/* Sum of g w over the slices of all weights of one role; how many weights there were. */
static uint32_t add_role(struct stream *s, const struct mo_channel_group *group, enum mo_couple_role role)
{
    uint32_t n_found = 0;
    for (uint32_t k = 0; k < group->n_weights; k++) {
        const struct mo_couple_weight_row *row = &s->ch->weights[group->weights[k]];
        const struct mo_param *p = row->role == role ? param_of(s->run, row->value) : NULL;
        if (!p)
            continue;
        const struct mo_couple_axis *axis = &s->ch->axes[row->axis];
        memset(s->sums, 0, axis->n * sizeof(*s->sums));
        sum_slices(&p->shape, axis->axis, s->grads + p->offset, 0, s->sums);
        add_to_classes(s->ch, group, row->axis, s->sums, s->part);
        n_found++;
    }
    return n_found;
}

static enum mopt_status take_taylor(struct stream *s, const struct mo_batch *batch)
{
    MO_TRY(gradients(s, batch));
    for (size_t i = 0; i < s->run->n_trained; i++)
        s->grads[i] *= s->weights[i];
    for (uint32_t g = 0; g < s->ch->n_groups; g++) {
        const struct mo_channel_group *group = &s->ch->groups[g];
        if (group->wall)
            continue;
        memset(s->part, 0, group->n_classes * sizeof(*s->part));
        if (add_role(s, group, MO_ROLE_IN) || add_role(s, group, MO_ROLE_OUT))
            s->is_seen[g] = true;
        for (uint32_t k = 0; k < group->n_classes; k++)
            s->score[group->first + k] += s->part[k] * s->part[k];
    }
    return MOPT_OK;
}

/* ---- activations ---- */

/* The activation through which a weighted node reads this group: an operand of it that has one of the group's axes. */
static mo_value_id read_value(const struct mo_channels *ch, const struct mo_channel_group *group,
                              const struct mo_graph *g, const struct mo_node *n, uint32_t *axis)
{
    for (uint32_t i = 0; i < n->n_in; i++) {
        for (uint32_t k = 0; n->in[i] != MO_NONE && !g->values[n->in[i]].data && k < group->n_axes; k++) {
            *axis = group->axes[k];
            if (ch->axes[*axis].value == n->in[i])
                return n->in[i];
        }
    }
    return MO_NONE;
}

/* Sums over the values of one group's activation: of x[i] > 0, or of |x[i]|. */
static void sum_activation(struct stream *s, const struct mo_channel_group *group, uint32_t axis,
                           const struct mo_shape *shape, float *x, size_t n)
{
    memset(s->sums, 0, s->ch->axes[axis].n * sizeof(*s->sums));
    memset(s->part, 0, group->n_classes * sizeof(*s->part));
    for (size_t e = 0; e < n && s->kind == MO_SCORE_APOZ; e++)
        x[e] = x[e] > 0;
    sum_slices(shape, s->ch->axes[axis].axis, x, s->kind != MO_SCORE_APOZ, s->sums);
    add_to_classes(s->ch, group, axis, s->sums, s->part);
    double slice = (double)n / s->ch->axes[axis].n;
    for (uint32_t c = 0; c < group->n_classes; c++)
        s->score[group->first + c] += s->part[c] / slice;
}

static enum mopt_status take_activation(struct stream *s, const struct mo_batch *batch)
{
    const struct mo_graph *g = &s->job->model->graph;
    (void)batch;
    for (uint32_t i = 0; i < s->ch->n_groups; i++) {
        const struct mo_channel_group *group = &s->ch->groups[i];
        for (uint32_t k = 0; k < group->n_weights && !group->wall; k++) {
            const struct mo_couple_weight_row *row = &s->ch->weights[group->weights[k]];
            uint32_t axis = 0;
            mo_value_id v = row->role != MO_ROLE_IN ? MO_NONE : read_value(s->ch, group, g, &g->nodes[row->node], &axis);
            float *x = NULL;
            size_t n = 0;
            struct mo_shape shape;
            if (v == MO_NONE || s->run->graph->values[v].dtype != MO_F32)
                continue;
            MO_TRY(mo_run_floats(s->run, v, &x, &n, &shape));
            if (!x)
                continue;
            s->is_seen[i] = true;
            sum_activation(s, group, axis, &shape, x, n);
            mo_mem_free(x);
        }
    }
    return MOPT_OK;
}

/* ---- the pass over data ---- */

/* The batch at hand; NULL or empty: this rank has none. */
static enum mopt_status score_batch(struct stream *s, const struct mo_batch *batch)
{
    memset(s->score, 0, s->ch->n_classes * sizeof *s->score);
    if (!batch || !batch->n)
        return MOPT_OK;
    MO_TRY(mo_train_feed(s->run, batch));
    MO_TRY(mo_run_forward(s->run));
    MO_TRY(s->kind == MO_SCORE_TAYLOR ? take_taylor(s, batch) : take_activation(s, batch));
    s->n_batches++;
    s->n_samples += batch->n;
    return MOPT_OK;
}

/* Batches in their order, whoever computed them. */
static enum mopt_status add_round(struct stream *s)
{
    size_t n = s->ch->n_classes;
    MO_TRY(mo_ranks_gather(s->job->ctx, s->score, n * sizeof *s->score, s->all));
    for (int r = 0; r < s->job->ctx->n_ranks; r++)
        for (size_t k = 0; k < n; k++)
            s->total[k] += s->all[(size_t)r * n + k];
    return MOPT_OK;
}

/* What all ranks saw. */
static enum mopt_status join_counts(struct stream *s)
{
    uint32_t n = s->ch->n_groups;
    uint64_t *seen = mo_mem_new(n + 2, sizeof *seen);
    if (!seen)
        return mo_no_memory(s->job->ctx, n * sizeof *seen, "scores");
    for (uint32_t i = 0; i < n; i++)
        seen[i] = s->is_seen[i];
    seen[n] = s->n_batches;
    seen[n + 1] = s->n_samples;
    enum mopt_status status = mo_ranks_count(s->job->ctx, seen, n + 2);
    for (uint32_t i = 0; i < n; i++)
        s->is_seen[i] = seen[i] > 0;
    s->n_batches = seen[n];
    s->n_samples = seen[n + 1];
    mo_mem_free(seen);
    return status;
}

static enum mopt_status stream_batches(struct stream *s)
{
    struct mopt_ctx *ctx = s->job->ctx;
    size_t n_total = mo_loader_n_whole(s->loader), n_mine = mo_loader_n_batches(s->loader), n_ranks = (size_t)ctx->n_ranks;
    MO_TRY(mo_loader_start(s->loader, 0, 0));
    for (size_t i = 0; i * n_ranks < n_total; i++) {
        const struct mo_batch *batch = NULL;
        MO_TRY(mo_stopped(ctx));
        if (i < n_mine)
            MO_TRY(mo_loader_next(s->loader, &batch));
        MO_TRY(score_batch(s, batch));
        MO_TRY(add_round(s));
        mo_progress(ctx, "score", (double)MO_MIN((i + 1) * n_ranks, n_total), (double)n_total, "batch", NULL);
    }
    return join_counts(s);
}

/* A group that nothing was measured for must not look worthless. */
static enum mopt_status finish(struct stream *s)
{
    for (uint32_t i = 0; i < s->ch->n_groups; i++) {
        const struct mo_channel_group *group = &s->ch->groups[i];
        double sum = 0;
        if (group->wall)
            continue;
        for (uint32_t k = 0; k < group->n_classes; k++)
            sum += s->score[group->first + k] /= (double)MO_MAX(s->n_batches, (uint64_t)1);
        for (uint32_t k = 0; k < group->n_classes && !s->is_seen[i]; k++)
            s->score[group->first + k] = NAN;
        if (s->is_seen[i] && !isfinite(sum))
            return mo_fail(s->job->ctx, MOPT_FAILED, "the scores of '%s' are not finite numbers", group->name);
        if (s->kind == MO_SCORE_ACTIVATION)
            divide_by_mean(s->score + group->first, group->n_classes);
    }
    return s->n_batches ? MOPT_OK : mo_fail(s->job->ctx, MOPT_DATA, "no sample to score channels with");
}

static enum mo_loss loss_kind(const struct mo_prune_settings *settings, const struct mopt_dataset *dataset,
                              const char *activation)
{
    if (settings->train.loss != MO_LOSS_AUTO)
        return (enum mo_loss)settings->train.loss;
    if (mo_dataset_source(dataset, MO_SPLIT_TRAIN)->target != MO_TARGET_CLASS)
        return MO_LOSS_MSE;
    return activation && !strcmp(activation, "Sigmoid") ? MO_LOSS_BCE : MO_LOSS_CROSS_ENTROPY;
}

static enum mopt_status open_stream(struct stream *s)
{
    struct mo_job *job = s->job;
    bool is_taylor = s->kind == MO_SCORE_TAYLOR;
    const char *activation = NULL;
    mo_value_id logits = mo_graph_logits(&job->model->graph, &activation);
    struct mo_run_options options = { .train = is_taylor, .keep_names = !is_taylor, .bn = MO_BN_FROZEN };
    if (is_taylor)
        options.outputs = &logits, options.n_outputs = 1;
    s->loss = loss_kind(s->settings, job->dataset, activation);
    MO_TRY(mo_run_new(job->ctx, &job->model->graph, &options, &s->run));
    s->run->is_training = is_taylor;
    struct mo_loader_options loading = { .split = MO_SPLIT_TRAIN, .shuffle = true, .seed = (uint64_t)job->settings->seed,
                                         .batch = is_taylor ? TAYLOR_BATCH : ACTIVATION_BATCH,
                                         .limit = (uint32_t)s->settings->samples };
    if (job->ctx->n_ranks > 1) { /* each takes one batch of a round */
        loading.by = (uint32_t)job->ctx->n_ranks;
        loading.at = (uint32_t)job->ctx->rank;
    }
    MO_TRY(mo_loader_new(job->ctx, job->dataset, &loading, &s->loader));
    uint32_t n = longest_axis(s->ch);
    s->sums = mo_arena_new(job->scratch, n, sizeof(*s->sums));
    s->part = mo_arena_new(job->scratch, n, sizeof(*s->part));
    s->grads = mo_arena_new(job->scratch, s->run->n_trained + 1, sizeof(*s->grads));
    s->weights = mo_arena_new(job->scratch, s->run->n_trained + 1, sizeof(*s->weights));
    s->is_seen = mo_arena_new(job->scratch, s->ch->n_groups + 1, sizeof(*s->is_seen));
    s->score = mo_arena_new(job->scratch, s->ch->n_classes + 1, sizeof(*s->score));
    s->all = mo_arena_new(job->scratch, s->ch->n_classes + 1, (size_t)job->ctx->n_ranks * sizeof(*s->all));
    if (!s->score || !s->all || !s->sums || !s->part || !s->grads || !s->weights || !s->is_seen)
        return mo_no_memory(job->ctx, s->run->n_trained * 8, "scores");
    if (is_taylor)
        s->run->be->download(s->run->dev, s->weights, s->run->weights, s->run->n_trained * sizeof(float));
    return MOPT_OK;
}

static enum mopt_status score_streaming(struct mo_job *job, const struct mo_channels *ch,
                                        const struct mo_prune_settings *settings, double *score)
{
    struct stream s = { .job = job, .ch = ch, .settings = settings, .total = score,
                        .kind = (enum mo_prune_score)settings->score };
    enum mopt_status status = open_stream(&s);
    if (!status)
        status = stream_batches(&s);
    s.score = s.total;
    if (!status)
        status = finish(&s);
    mo_loader_free(s.loader);
    mo_run_free(s.run);
    return status;
}

enum mopt_status mo_prune_scores(struct mo_job *job, const struct mo_channels *channels,
                                 const struct mo_prune_settings *settings, double *score)
{
    memset(score, 0, channels->n_classes * sizeof(*score));
    switch ((enum mo_prune_score)settings->score) {
    case MO_SCORE_L1:
        return score_norm(job, channels, 1, score);
    case MO_SCORE_L2:
        return score_norm(job, channels, 2, score);
    case MO_SCORE_RANDOM:
        score_random(job, channels, score);
        return MOPT_OK;
    case MO_SCORE_ACTIVATION:
    case MO_SCORE_APOZ:
    case MO_SCORE_TAYLOR:
        return score_streaming(job, channels, settings, score);
    default:
        return mo_fail(job->ctx, MOPT_FAILED, "no such score for channels");
    }
}
