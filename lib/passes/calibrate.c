/* calibrate.c - samples run through a graph, and the histograms that watch its values. */
#include "lib/passes/calibrate.h"
#include "lib/passes/train.h"
#include "lib/run/ranks.h"

size_t mo_batch_for(const struct mo_graph *g, size_t wanted)
{
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mo_value *v = &g->values[g->inputs[i]];
        if (!v->is_initializer && v->shape.rank > 0)
            return v->shape.dim[0] > 0 ? (size_t)v->shape.dim[0] : wanted;
    }
    return wanted;
}

struct watcher {
    struct mopt_ctx *ctx;
    const struct mo_graph *g;
    struct mo_histogram_scratch scratch;
    struct mo_histogram *hist;
    int32_t *index;             /* by value id of the user's graph: which histogram, or -1 */
    uint32_t *seen;             /* by the same: the pass in which it was last looked at */
    uint32_t pass;
    bool is_idle;               /* this rank has no batch in this round: it takes part with nothing */
    enum mopt_status status;
};

/* Where the elements of v come from unchanged: views and transpositions may vanish when the graph is lowered. */
static mo_value_id origin(const struct mo_graph *g, mo_value_id v)
{
    while (g->values[v].producer != MO_NONE) {
        const struct mo_node *n = &g->nodes[g->values[v].producer];
        if (!n->op || !(n->op->flags & MO_OP_VIEW || mo_node_is(n, "Transpose")) || n->in[0] == MO_NONE)
            break;
        v = n->in[0];
    }
    return v;
}

/* The elements of a value of the run's graph as those of v, a value of the user's. */
static void watch_as(struct watcher *w, struct mo_run *run, mo_value_id lowered, mo_value_id v)
{
    const struct mo_value *info = &run->graph->values[lowered];
    const void *data = run->tensors[lowered].data || !run->be->is_host ? run->tensors[lowered].data : info->data;
    if (w->status || w->index[v] < 0 || w->seen[v] == w->pass || info->dtype != MO_F32 || !data)
        return;
    w->seen[v] = w->pass;
    w->status = mo_histogram_add(w->ctx, run->be, run->dev, &w->scratch, &w->hist[w->index[v]], data,
                                 w->is_idle ? 0 : (size_t)mo_value_elems(info));
    if (w->status)
        mo_blame(w->ctx, "value '%s'", w->g->values[v].name);
}

static void watch(struct watcher *w, struct mo_run *run, mo_value_id lowered)
{
    mo_value_id v = lowered == MO_NONE ? MO_NONE : mo_run_user_value(run, lowered);
    if (v != MO_NONE)
        watch_as(w, run, lowered, v);
}

/* What the shapes of the inputs made constants is given by no node; of a chain of moves the end is left. */
static void watch_constants(struct watcher *w, struct mo_run *run)
{
    for (mo_value_id lowered = 0; lowered < run->graph->n_values; lowered++) {
        mo_value_id v = run->graph->values[lowered].data ? mo_run_user_value(run, lowered) : MO_NONE;
        if (v != MO_NONE && !w->g->values[v].data)
            watch_as(w, run, lowered, origin(w->g, v));
    }
}

static void after_node(void *user, struct mo_run *run, const struct mo_node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++)
        watch(user, run, n->out[i]);
}

/* batch NULL: the inputs are those of the batch before. */
static enum mopt_status one_batch(struct watcher *w, struct mo_run *run, const struct mo_batch *batch, bool is_sparse)
{
    w->pass++;
    if (batch)
        MO_TRY(mo_train_feed(run, batch));
    for (uint32_t i = 0; i < run->graph->n_inputs && !is_sparse; i++)
        watch(w, run, run->graph->inputs[i]);
    watch_constants(w, run);
    MO_TRY(mo_run_forward(run));
    return w->status;
}

static enum mopt_status all_batches(struct mo_job *job, struct watcher *w, struct mo_run *run,
                                    const struct mo_calibrate_options *options, size_t *n_samples)
{
    struct mo_loader_options stream = { .split = MO_SPLIT_TRAIN, .batch = mo_batch_for(w->g, options->batch),
                                        .shuffle = true, .seed = options->seed, .limit = (uint32_t)options->samples };
    struct mo_loader *loader = NULL;
    size_t n_ranks = (size_t)job->ctx->n_ranks, rank = (size_t)job->ctx->rank;
    stream.drop_last = mo_batch_for(w->g, 0) > 1;
    if (n_ranks > 1) { /* each takes one batch of a round */
        size_t n = MO_MIN(mo_dataset_count(job->dataset, stream.split), options->samples);
        size_t n_whole = stream.drop_last ? n / stream.batch : (n + stream.batch - 1) / stream.batch;
        stream.by = (uint32_t)n_ranks;
        stream.at = rank < n_whole ? (uint32_t)rank : 0;
    }
    MO_TRY(mo_loader_new(job->ctx, job->dataset, &stream, &loader));
    enum mopt_status status = mo_loader_start(loader, 0, 0);
    size_t n_batches = mo_loader_n_whole(loader), n_given = mo_loader_n_batches(loader);
    bool is_sparse = false, is_fed = false;
    *n_samples = 0;
    for (size_t i = 0; i * n_ranks < n_batches && !status && !(status = mo_stopped(job->ctx)); i++) {
        const struct mo_batch *batch = NULL;
        if (i < n_given)
            status = mo_loader_next(loader, &batch);
        if (status || (n_ranks == 1 && !batch->n))
            break;
        w->is_idle = !batch || !batch->n || i * n_ranks + rank >= n_batches;
        batch = batch && batch->n ? batch : NULL;
        is_sparse = batch ? batch->is_sparse : is_sparse;
        is_fed |= batch != NULL;
        if (!is_fed) {
            status = mo_fail(job->ctx, MOPT_DATA, "every sample of a batch is bad");
            break;
        }
        status = one_batch(w, run, batch, is_sparse);
        *n_samples += w->is_idle ? 0 : batch->n;
        mo_progress(job->ctx, "calibrate", (double)*n_samples, (double)options->samples, "sample", NULL);
    }
    mo_loader_free(loader);
    return status;
}

/* Histogram i watches values[i], or is to be copied from an earlier one with the same origin. */
static void assign(struct watcher *w, const mo_value_id *values, uint32_t n_values)
{
    for (uint32_t v = 0; v < w->g->n_values; v++)
        w->index[v] = -1;
    for (uint32_t i = 0; i < n_values; i++) {
        mo_value_id from = origin(w->g, values[i]);
        if (w->index[from] < 0)
            w->index[from] = (int32_t)i;
    }
}

enum mopt_status mo_calibrate(struct mo_job *job, const struct mo_graph *g, const mo_value_id *values,
                              uint32_t n_values, const struct mo_calibrate_options *options,
                              struct mo_histogram *hist, size_t *n_samples)
{
    struct mo_run_options run_options = { .keep_names = true, .seed = options->seed };
    struct mo_run *run = NULL;
    struct watcher w = { .ctx = job->ctx, .g = g, .hist = hist };
    w.index = mo_arena_new(job->scratch, MO_MAX(g->n_values, 1u), sizeof *w.index);
    w.seen = mo_arena_new(job->scratch, MO_MAX(g->n_values, 1u), sizeof *w.seen);
    if (!w.index || !w.seen)
        return mo_no_memory(job->ctx, g->n_values * sizeof *w.index, "calibration");
    assign(&w, values, n_values);
    MO_TRY(mo_run_new(job->ctx, g, &run_options, &run));
    enum mopt_status status = mo_histogram_scratch_new(run->be, run->dev, &w.scratch)
                                  ? MOPT_OK : mo_no_memory(job->ctx, sizeof *hist, "a histogram");
    if (!status) {
        mo_run_on_node(run, after_node, NULL, &w);
        w.scratch.is_shared = true;
        status = all_batches(job, &w, run, options, n_samples);
        uint64_t n = *n_samples;
        if (!status)
            status = mo_ranks_count(job->ctx, &n, 1);
        *n_samples = (size_t)n;
        for (uint32_t i = 0; i < n_values && !status; i++)
            if (w.index[origin(g, values[i])] == (int32_t)i)
                status = mo_histogram_join(job->ctx, &hist[i]);
        mo_histogram_scratch_free(run->be, run->dev, &w.scratch);
    }
    mo_run_free(run);
    if (!status && !*n_samples)
        status = mo_fail(job->ctx, MOPT_DATA, "the data has no sample to calibrate with");
    for (uint32_t i = 0; i < n_values && !status; i++) {
        uint32_t first = (uint32_t)w.index[origin(g, values[i])];
        if (first != i)
            hist[i] = hist[first];
        if (!hist[i].n)
            status = mo_fail(job->ctx, MOPT_FAILED, "value '%s' was not seen in calibration", g->values[values[i]].name);
    }
    return status;
}
