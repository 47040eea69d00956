/* calibrate.c - samples run through a graph, and the histograms that watch its values. */
#include "lib/passes/calibrate.h"
#include "lib/passes/train.h"

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
    enum mopt_status status;
};

static void watch(struct watcher *w, struct mo_run *run, mo_value_id lowered)
{
    mo_value_id v = lowered == MO_NONE ? MO_NONE : mo_run_user_value(run, lowered);
    if (v == MO_NONE || w->status || w->index[v] < 0 || w->seen[v] == w->pass)
        return;
    const struct mo_value *info = &run->graph->values[lowered];
    if (info->dtype != MO_F32)
        return;
    w->seen[v] = w->pass;
    w->status = mo_histogram_add(w->ctx, run->be, run->dev, &w->scratch, &w->hist[w->index[v]],
                                 run->tensors[lowered].data, (size_t)mo_value_elems(info));
    if (w->status)
        mo_blame(w->ctx, "value '%s'", w->g->values[v].name);
}

static void after_node(void *user, struct mo_run *run, const struct mo_node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++)
        watch(user, run, n->out[i]);
}

static enum mopt_status one_batch(struct watcher *w, struct mo_run *run, const struct mo_batch *batch)
{
    w->pass++;
    MO_TRY(mo_train_feed(run, batch));
    for (uint32_t i = 0; i < run->graph->n_inputs && !batch->is_sparse; i++)
        watch(w, run, run->graph->inputs[i]);
    MO_TRY(mo_run_forward(run));
    return w->status;
}

static enum mopt_status all_batches(struct mo_job *job, struct watcher *w, struct mo_run *run,
                                    const struct mo_calibrate_options *options, size_t *n_samples)
{
    struct mo_loader_options stream = { .split = MO_SPLIT_TRAIN, .batch = mo_batch_for(w->g, options->batch),
                                        .shuffle = true, .seed = options->seed, .limit = (uint32_t)options->samples };
    struct mo_loader *loader = NULL;
    stream.drop_last = mo_batch_for(w->g, 0) > 1;
    MO_TRY(mo_loader_new(job->ctx, job->dataset, &stream, &loader));
    enum mopt_status status = mo_loader_start(loader, 0, 0);
    *n_samples = 0;
    while (!status && !(status = mo_stopped(job->ctx))) {
        const struct mo_batch *batch = NULL;
        status = mo_loader_next(loader, &batch);
        if (status || !batch->n)
            break;
        status = one_batch(w, run, batch);
        *n_samples += batch->n;
        mo_progress(job->ctx, "calibrate", (double)*n_samples, (double)options->samples, "sample", NULL);
    }
    mo_loader_free(loader);
    return status;
}

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
        status = all_batches(job, &w, run, options, n_samples);
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
