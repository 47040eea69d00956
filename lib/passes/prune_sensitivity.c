/* prune_sensitivity.c - how much of each layer can go: the loss with 10 % to 90 %
 * of one layer's smallest weights zero, all others as they are. */
#include "lib/passes/prune.h"

#include <math.h>
#include <string.h>

enum { N_LEVELS = 9, EVAL_BATCH = 128 };

struct scan {
    struct mo_job *job;
    struct mo_run *run;
    struct mo_prune_layer *layers; uint32_t n_layers;
    float *w, *masked;          /* of one layer */
    uint8_t *keep;
};

/* Accuracy and loss of the run as it stands. */
static enum mopt_status measure(struct scan *s, struct mopt_report *row)
{
    struct mo_metrics metrics = { 0 };
    MO_TRY(mo_evaluate_run(s->job, s->run, MO_SPLIT_VALIDATION, EVAL_BATCH, &metrics));
    mo_report_metrics(row, &metrics);
    return MOPT_OK;
}

static enum mopt_status scan_layer(struct scan *s, const struct mo_prune_layer *layer, const struct mo_param *p,
                                   struct mopt_report *levels)
{
    struct mo_run *run = s->run;
    struct mo_prune_layer alone = *layer;
    struct mo_prune_rule rule = { .score = MO_SCORE_L1, .scope = MO_SCOPE_GLOBAL, .max_layer = 1 };
    size_t bytes = layer->n * sizeof(float);
    enum mopt_status status = MOPT_OK;
    alone.first = 0;
    run->be->download(run->dev, s->w, run->weights + p->offset, bytes);
    for (int k = 1; k <= N_LEVELS && !status; k++) {
        double share = (double)k / (N_LEVELS + 1);
        status = mo_prune_mask(s->job->ctx, &s->job->model->graph, &alone, 1, &rule, s->w, layer->n,
                               (size_t)llround(share * (double)layer->n), s->keep);
        if (status)
            break;
        for (size_t i = 0; i < layer->n; i++)
            s->masked[i] = s->keep[i] ? s->w[i] : 0;
        run->be->upload(run->dev, run->weights + p->offset, s->masked, bytes);
        struct mopt_report *row = mo_report_object(levels, NULL);
        mo_report_set_number(row, "sparsity", share);
        status = measure(s, row);
    }
    run->be->upload(run->dev, run->weights + p->offset, s->w, bytes);
    return status;
}

static enum mopt_status scan_all(struct scan *s)
{
    struct mopt_report *report = mo_report_object(s->job->report, "sensitivity");
    MO_TRY(measure(s, mo_report_object(report, "dense")));
    struct mopt_report *list = mo_report_list(report, "layers");
    for (uint32_t l = 0; l < s->n_layers; l++) {
        const struct mo_prune_layer *layer = &s->layers[l];
        const struct mo_param *p = NULL;
        for (uint32_t k = 0; k < s->run->n_params; k++)
            if (s->run->params[k].source == layer->value && s->run->params[k].n_elems == layer->n)
                p = &s->run->params[k];
        if (!p) {
            MO_TRY(mo_audit_skip(s->job, layer->name, "the output does not depend on it"));
            continue;
        }
        struct mopt_report *row = mo_report_object(list, NULL);
        mo_report_set_text(row, "name", layer->name);
        mo_report_set_int(row, "weights", (int64_t)layer->n);
        MO_TRY(scan_layer(s, layer, p, mo_report_list(row, "levels")));
        mo_progress(s->job->ctx, "sensitivity", l + 1, s->n_layers, "layer", layer->name);
    }
    return MOPT_OK;
}

enum mopt_status mo_prune_sensitivity(struct mo_job *job, const struct mo_prune_settings *settings)
{
    struct scan s = { .job = job };
    size_t n_elems = 0, largest = 0;
    (void)settings;
    MO_TRY(mo_prune_layers(job, true, &s.layers, &s.n_layers, &n_elems));
    for (uint32_t l = 0; l < s.n_layers; l++)
        largest = MO_MAX(largest, s.layers[l].n);
    s.w = mo_arena_new(job->scratch, largest + 1, sizeof(*s.w));
    s.masked = mo_arena_new(job->scratch, largest + 1, sizeof(*s.masked));
    s.keep = mo_arena_new(job->scratch, largest + 1, 1);
    if (!s.w || !s.masked || !s.keep)
        return mo_no_memory(job->ctx, largest * 9, "a scan of layers");
    mo_value_id logits = mo_graph_logits(&job->model->graph, NULL);
    struct mo_run_options options = { .train = true, .bn = MO_BN_FROZEN, .outputs = &logits, .n_outputs = 1 };
    enum mopt_status status = mo_run_new(job->ctx, &job->model->graph, &options, &s.run);
    if (!status)
        status = scan_all(&s);
    mo_run_free(s.run);
    return status;
}
