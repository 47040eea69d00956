/* prune_weights.c - unstructured pruning: weights become zero and stay zero.
 *
 * One shot, or while training along the cubic ramp of Zhu and Gupta (2017):
 *
 *     s(t) = s_end * (1 - (1 - t / t_end)^3)
 *
 * with new masks every `every` steps until t_end = ramp_end * n_steps, then fixed.
 * A masked weight keeps the value that it had, out of sight, and comes back
 * with it when the next mask spares it. Never biases, never normalization. */
#include "lib/passes/prune.h"

#include "lib/base/spill.h"
#include "lib/graph/op.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- which weights ------------------------------------------------------------------ */

/* Input k of a layer that multiplies and adds, as a matrix or a filter bank: not its bias. The recurrence of an
 * LSTM, GRU or RNN is input 2 and has rank 3. */
static bool is_weight_place(const struct mo_graph *g, const struct mo_node *n, uint32_t k)
{
    const struct mo_op *op = n->op;
    if (!op || !op->macs || op->macs == mo_macs_zero || k >= 32 || !(op->params_in >> k & 1))
        return false;
    const struct mo_value *v = mo_in(g, n, k);
    return v && v->shape.rank >= 2 && (k < 2 || (k == 2 && v->shape.rank == 3));
}

static const char *layer_name(const struct mo_graph *g, const struct mo_node *n, mo_value_id v)
{
    return n->name && *n->name ? n->name : g->values[v].name;
}

/* Why this weight cannot be masked; NULL: it can. */
static const char *why_not(const struct mo_graph *g, mo_value_id v)
{
    const struct mo_value *x = &g->values[v];
    if (!mo_dtype_is_float(x->dtype))
        return "its weight is not floating point";
    if (mo_dtype_bits(x->dtype) % 8)
        return "its weight is stored in less than a byte each";
    if (x->is_sparse)
        return "its weight is stored as a sparse tensor";
    return NULL;
}

static bool is_listed(const struct mo_prune_layer *layers, uint32_t n, mo_value_id v)
{
    for (uint32_t i = 0; i < n; i++)
        if (layers[i].value == v)
            return true;
    return false;
}

static enum mopt_status note_layer(struct mo_job *job, bool audit, mo_node_id i, uint32_t k,
                                   struct mo_prune_layer *layers, uint32_t *n_layers, size_t *n_elems)
{
    const struct mo_graph *g = &job->model->graph;
    const struct mo_node *n = &g->nodes[i];
    mo_value_id v = n->in[k];
    const char *name = layer_name(g, n, v);
    if (!g->values[v].data) {
        /* Two activations make no layer; a weight that nodes compute from constants does. */
        return MOPT_OK;
    }
    if (is_listed(layers, *n_layers, v))
        return MOPT_OK;
    const char *reason = why_not(g, v);
    if (!mo_is_selected(job, n->name, g->values[v].name))
        return MOPT_OK;
    if (reason)
        return audit ? mo_audit_skip(job, name, reason) : MOPT_OK;
    size_t n_weights = (size_t)mo_value_elems(&g->values[v]);
    layers[(*n_layers)++] = (struct mo_prune_layer){ v, i, name, *n_elems, n_weights, -1 };
    *n_elems += n_weights;
    return MOPT_OK;
}

enum mopt_status mo_prune_layers(struct mo_job *job, bool audit, struct mo_prune_layer **layers, uint32_t *n_layers,
                                 size_t *n_elems)
{
    const struct mo_graph *g = &job->model->graph;
    uint32_t n_places = 0;
    *n_layers = 0;
    *n_elems = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; k < g->nodes[i].n_in; k++)
            n_places += is_weight_place(g, &g->nodes[i], k);
    *layers = mo_arena_new(job->scratch, n_places + 1, sizeof(**layers));
    if (!*layers)
        return mo_no_memory(job->ctx, n_places * sizeof(**layers), "a list of layers");
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; k < g->nodes[i].n_in; k++)
            if (!g->nodes[i].is_dead && is_weight_place(g, &g->nodes[i], k))
                MO_TRY(note_layer(job, audit, i, k, *layers, n_layers, n_elems));
    return MOPT_OK;
}

/* ---- the job -------------------------------------------------------------------------- */

struct masking {
    struct mo_job *job;
    const struct mo_prune_settings *settings;
    struct mo_prune_rule rule;
    struct mo_prune_layer *layers; uint32_t n_layers;
    size_t n_elems, n_drop;
    uint8_t *keep;              /* flat over the layers */
    float *w;                   /* flat: weights as they would be without a mask */
    /* while training */
    size_t *place;              /* by layer: offset in run->weights; SIZE_MAX: not trained */
    float *all;                 /* host copy of the run's trained weights */
    float *mask;                /* on the device: 0 or 1 for every trained weight */
    struct mo_run *run;         /* the one that place and mask were made for */
};

static enum mopt_status load_weights(struct masking *m)
{
    const struct mo_graph *g = &m->job->model->graph;
    for (uint32_t l = 0; l < m->n_layers; l++) {
        float *x = mo_value_floats(&g->values[m->layers[l].value]);
        if (!x)
            return mo_no_memory(m->job->ctx, m->layers[l].n * sizeof(*x), m->layers[l].name);
        memcpy(m->w + m->layers[l].first, x, m->layers[l].n * sizeof(*x));
        mo_mem_free(x);
    }
    return MOPT_OK;
}

static enum mopt_status choose(struct masking *m, double share_of_goal)
{
    return mo_prune_mask(m->job->ctx, &m->job->model->graph, m->layers, m->n_layers, &m->rule, m->w, m->n_elems,
                         (size_t)llround(share_of_goal * (double)m->n_drop), m->keep);
}

/* Zeros into the constants of the model. */
static enum mopt_status write_zeros(struct masking *m)
{
    struct mo_graph *g = &m->job->model->graph;
    for (uint32_t l = 0; l < m->n_layers; l++) {
        const struct mo_prune_layer *layer = &m->layers[l];
        const struct mo_value *v = &g->values[layer->value];
        size_t elem_bytes = (size_t)mo_dtype_bits(v->dtype) / 8, bytes = mo_value_bytes(v);
        struct mo_shape shape = v->shape;
        char *data = mo_constant_new(m->job->ctx, bytes);
        if (!data)
            return mo_no_memory(m->job->ctx, bytes, layer->name);
        memcpy(data, v->data, bytes);
        for (size_t i = 0; i < layer->n; i++)
            if (!m->keep[layer->first + i])
                memset(data + i * elem_bytes, 0, elem_bytes);
        mo_value_set_data(g, layer->value, v->dtype, &shape, data);
    }
    return MOPT_OK;
}

/* ---- training under masks ----------------------------------------------------------------- */

static void detach(struct masking *m)
{
    if (m->mask)
        m->job->ctx->backend->free(m->job->ctx->device, m->mask);
    m->run = NULL;
    m->mask = NULL;
}

static enum mopt_status attach(struct masking *m, struct mo_run *run)
{
    if (m->run == run)
        return MOPT_OK;
    size_t bytes = run->n_trained * sizeof(float);
    m->place = mo_arena_new(m->job->scratch, m->n_layers + 1, sizeof(*m->place));
    m->all = mo_arena_new(m->job->scratch, run->n_trained + 1, sizeof(*m->all));
    detach(m);
    m->mask = m->job->ctx->backend->alloc(m->job->ctx->device, MO_MAX(bytes, (size_t)4));
    m->run = run;
    if (!m->place || !m->all || !m->mask)
        return mo_no_memory(m->job->ctx, bytes, "masks");
    for (uint32_t l = 0; l < m->n_layers; l++) {
        m->place[l] = SIZE_MAX;
        for (uint32_t p = 0; p < run->n_params; p++)
            if (run->params[p].source == m->layers[l].value && run->params[p].n_elems == m->layers[l].n)
                m->place[l] = run->params[p].offset;
    }
    return MOPT_OK;
}

static void hold(struct masking *m, struct mo_run *run)
{
    const int64_t n = (int64_t)run->n_trained, stride = 1;
    run->be->binary(run->dev, MO_MUL, MO_F32, 1, &n, &stride, &stride, run->weights, m->mask, run->weights);
}

/* Weights in use come from the run, masked ones are remembered. */
static void fetch(struct masking *m, struct mo_run *run)
{
    run->be->download(run->dev, m->all, run->weights, run->n_trained * sizeof(float));
    for (uint32_t l = 0; l < m->n_layers; l++) {
        const struct mo_prune_layer *layer = &m->layers[l];
        for (size_t i = 0; m->place[l] != SIZE_MAX && i < layer->n; i++)
            if (m->keep[layer->first + i])
                m->w[layer->first + i] = m->all[m->place[l] + i];
    }
}

/* What the mask spares goes back into the run, with the values remembered, and the mask onto the device. */
static void put_back(struct masking *m, struct mo_run *run)
{
    size_t bytes = run->n_trained * sizeof(float);
    for (uint32_t l = 0; l < m->n_layers; l++)
        for (size_t i = 0; m->place[l] != SIZE_MAX && i < m->layers[l].n; i++)
            m->all[m->place[l] + i] = m->keep[m->layers[l].first + i] ? m->w[m->layers[l].first + i] : 0;
    run->be->upload(run->dev, run->weights, m->all, bytes);
    for (size_t i = 0; i < run->n_trained; i++)
        m->all[i] = 1;
    for (uint32_t l = 0; l < m->n_layers; l++)
        for (size_t i = 0; m->place[l] != SIZE_MAX && i < m->layers[l].n; i++)
            m->all[m->place[l] + i] = m->keep[m->layers[l].first + i];
    run->be->upload(run->dev, m->mask, m->all, bytes);
}

static enum mopt_status before_step(void *user, struct mo_run *run, uint64_t step, uint64_t n_steps)
{
    struct masking *m = user;
    bool is_first = m->run != run;
    MO_TRY(attach(m, run));
    uint64_t end = 0, every = (uint64_t)m->settings->every;
    if (m->settings->ramp == MO_RAMP_CUBIC)
        end = MO_MAX((uint64_t)1, (uint64_t)(m->settings->ramp_end * (double)n_steps));
    bool is_due = step <= end && (step == end || step % every == 0);
    if (!is_due && !is_first)
        return MOPT_OK;
    fetch(m, run);
    if (is_due) {
        double left = end ? 1 - (double)step / (double)end : 0;
        MO_TRY(choose(m, 1 - left * left * left));
    }
    put_back(m, run);
    return MOPT_OK;
}

static enum mopt_status after_step(void *user, struct mo_run *run, uint64_t step, uint64_t n_steps)
{
    struct masking *m = user;
    (void)step;
    (void)n_steps;
    if (m->run != run) { /* resumed behind the last step: there was none before */
        MO_TRY(attach(m, run));
        fetch(m, run);
        put_back(m, run);
    }
    hold(m, run);
    return MOPT_OK;
}

/* A checkpoint carries the masks and the weights they hide. */
static enum mopt_status save(void *user, struct mo_arena *arena, void **bytes, size_t *n_bytes)
{
    struct masking *m = user;
    *n_bytes = m->n_elems * (sizeof(float) + 1);
    char *out = mo_arena_new(arena, 1, *n_bytes + 1);
    if (!out)
        return mo_no_memory(m->job->ctx, *n_bytes, "masks in the checkpoint");
    memcpy(out, m->w, m->n_elems * sizeof(float));
    memcpy(out + m->n_elems * sizeof(float), m->keep, m->n_elems);
    *bytes = out;
    return MOPT_OK;
}

static enum mopt_status load(void *user, const void *bytes, size_t n_bytes)
{
    struct masking *m = user;
    if (n_bytes != m->n_elems * (sizeof(float) + 1))
        return mo_fail(m->job->ctx, MOPT_DATA, "the checkpoint holds masks of another model or selection");
    memcpy(m->w, bytes, m->n_elems * sizeof(float));
    memcpy(m->keep, (const char *)bytes + m->n_elems * sizeof(float), m->n_elems);
    return MOPT_OK;
}

static enum mopt_status retrain(struct masking *m)
{
    struct mo_train_settings settings = m->settings->train;
    struct mo_train_result result = { 0 };
    struct mo_train_hooks hooks = { .user = m, .before_step = before_step, .after_step = after_step, .save = save,
                                    .load = load, .phase = "retrain", .trained = true,
                                    .held_bytes = m->n_elems * (3 * sizeof(float) + 1) };
    mo_prune_rates(&settings);
    /* The best epoch of a ramp would be one with fewer zeros. */
    if (m->settings->ramp == MO_RAMP_CUBIC)
        settings.keep = 1;
    enum mopt_status status = mo_train(m->job, m->job->model, &settings, &hooks, &result);
    detach(m);
    if (status)
        return status;
    mo_report_set_int(m->job->report, "retrained_steps", (int64_t)result.n_steps);
    return MOPT_OK;
}

/* ---- how many ------------------------------------------------------------------------------- */

static enum mopt_status drop_for_target(struct masking *m, const char *text, size_t *n_drop)
{
    struct mo_prune_target target;
    struct mo_counts counts;
    struct mopt_ctx *ctx = m->job->ctx;
    MO_TRY(mo_prune_target_parse(ctx, text, &target));
    if (target.unit != MO_UNIT_PARAMETERS)
        return mo_fail(ctx, MOPT_USAGE, "target '%s' needs --structured: zeros take as many operations and bytes as "
                       "other weights", text);
    MO_TRY(mo_count(ctx, &m->job->model->graph, &counts));
    double goal = target.is_ratio ? target.value * (double)counts.parameters : target.value;
    double others = (double)counts.parameters - (double)m->n_elems;
    if (goal < others)
        return mo_fail(ctx, MOPT_FAILED, "target '%s' cannot be reached: %.0f parameters are biases, normalization or "
                       "not selected", text, others);
    *n_drop = goal >= (double)counts.parameters ? 0 : (size_t)llround((double)counts.parameters - goal);
    return MOPT_OK;
}

static enum mopt_status parse_pattern(struct mopt_ctx *ctx, const char *text, struct mo_prune_rule *rule)
{
    int n = 0, of = 0, used = 0;
    if (sscanf(text, "%d:%d%n", &n, &of, &used) != 2 || text[used] || n < 1 || of <= n || of > 32)
        return mo_fail(ctx, MOPT_USAGE, "option 'pattern': '%s' is not N:M with 0 < N < M <= 32, such as 2:4", text);
    rule->n_keep = n;
    rule->n_of = of;
    return MOPT_OK;
}

/* The summed axis of each weight, by what the operators say of their weights. */
static enum mopt_status find_summed_axes(struct masking *m)
{
    struct mopt_ctx *ctx = m->job->ctx;
    struct mo_graph *g = &m->job->model->graph;
    struct mo_channels *channels = NULL;
    uint32_t kept = 0;
    size_t first = 0;
    MO_TRY(mo_infer_sample(ctx, g, MO_FREE_DIM));
    MO_TRY(mo_channels_new(ctx, g, &channels));
    MO_TRY(mo_infer(ctx, g, NULL, 0));
    enum mopt_status status = MOPT_OK;
    for (uint32_t l = 0; l < m->n_layers && !status; l++) {
        struct mo_prune_layer layer = m->layers[l];
        for (uint32_t k = 0; k < channels->n_weights; k++)
            if (channels->weights[k].value == layer.value && channels->weights[k].role == MO_ROLE_IN)
                layer.axis_in = channels->axes[channels->weights[k].axis].axis;
        const char *reason = NULL;
        if (layer.axis_in < 0)
            reason = "no axis of its weight is known to be summed over";
        else if (g->values[layer.value].shape.dim[layer.axis_in] < m->rule.n_of)
            reason = "the axis it sums over is shorter than the pattern";
        if (reason) {
            status = mo_audit_skip(m->job, layer.name, reason);
            continue;
        }
        layer.first = first;
        first += layer.n;
        m->layers[kept++] = layer;
    }
    m->n_layers = kept;
    m->n_elems = first;
    mo_channels_free(channels);
    return status;
}

static enum mopt_status settle_goal(struct masking *m)
{
    const struct mo_prune_settings *s = m->settings;
    struct mopt_ctx *ctx = m->job->ctx;
    if (s->pattern) {
        MO_TRY(parse_pattern(ctx, s->pattern, &m->rule));
        MO_TRY(find_summed_axes(m));
    } else if (s->target) {
        MO_TRY(drop_for_target(m, s->target, &m->n_drop));
    } else if (s->amount.kind == MO_AMOUNT_FRACTION) {
        m->n_drop = (size_t)llround(s->amount.value * (double)m->n_elems);
    } else {
        m->n_drop = (size_t)s->amount.value;
    }
    if (m->n_drop > m->n_elems)
        return mo_fail(ctx, MOPT_USAGE, "option 'amount': %zu is more than the %zu weights that may be pruned", m->n_drop,
                       m->n_elems);
    if (!m->n_layers)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "the model has no weight that could be pruned");
    return MOPT_OK;
}

/* ---- report ------------------------------------------------------------------------------------ */

static enum mopt_status report(struct masking *m, const char *action)
{
    struct mo_job *job = m->job;
    const struct mo_graph *g = &job->model->graph;
    size_t n_zero = 0;
    for (uint32_t l = 0; l < m->n_layers; l++) {
        const struct mo_prune_layer *layer = &m->layers[l];
        struct mopt_report *row = NULL;
        size_t zeros = 0;
        char shape[96];
        for (size_t i = layer->first; i < layer->first + layer->n; i++)
            zeros += !m->keep[i];
        n_zero += zeros;
        MO_TRY(mo_audit(job, layer->name, action, NULL, &row));
        mo_report_set_text(row, "weight", g->values[layer->value].name);
        mo_report_set_text(row, "shape", mo_shape_text(&g->values[layer->value].shape, shape, sizeof(shape)));
        mo_report_set_int(row, "weights", (int64_t)layer->n);
        mo_report_set_int(row, "zeros", (int64_t)zeros);
        mo_report_set_number(row, "sparsity", (double)zeros / (double)layer->n);
    }
    struct mopt_report *all = mo_report_object(job->report, "prune");
    mo_report_set_text(all, "kind", "weights");
    mo_report_set_int(all, "weights", (int64_t)m->n_elems);
    mo_report_set_int(all, "zeros", (int64_t)n_zero);
    mo_report_set_number(all, "sparsity", (double)n_zero / (double)m->n_elems);
    mo_report_set_text(all, "ramp", m->settings->ramp == MO_RAMP_CUBIC ? "cubic" : "oneshot");
    return MOPT_OK;
}

static void say_what_zeros_do(struct mopt_ctx *ctx, const struct masking *m)
{
    if (m->rule.n_of)
        mo_warn(ctx, "prune", "%d:%d zeros make the file no smaller and ONNX Runtime no faster; they pay only where "
                "sparse tensor cores are used, such as TensorRT with sparsity enabled", m->rule.n_keep, m->rule.n_of);
    else
        mo_log(ctx, "prune", "zeros pay in compressed size only, not in speed; --structured removes channels instead");
}

/* Weights and masks may be larger than memory: they lie where the system can put them aside. */
static enum mopt_status mask(struct masking *m)
{
    struct mo_job *job = m->job;
    const struct mo_prune_settings *settings = m->settings;
    m->keep = mo_constant_new(job->ctx, m->n_elems + 1);
    m->w = mo_constant_new(job->ctx, (m->n_elems + 1) * sizeof(*m->w));
    if (!m->keep || !m->w)
        return mo_no_memory(job->ctx, m->n_elems * 5, "masks");
    memset(m->keep, 1, m->n_elems);
    MO_TRY(load_weights(m));
    if (job->settings->dry_run) {
        MO_TRY(choose(m, 1));
        MO_TRY(write_zeros(m));
        return report(m, "would be masked");
    }
    bool retrains = job->dataset && settings->train.epochs > 0;
    if (!retrains || settings->ramp != MO_RAMP_CUBIC) {
        MO_TRY(choose(m, 1));
        MO_TRY(write_zeros(m));
    }
    if (retrains) {
        MO_TRY(retrain(m));
        MO_TRY(write_zeros(m));
    }
    say_what_zeros_do(job->ctx, m);
    return report(m, "masked");
}

enum mopt_status mo_prune_weights(struct mo_job *job, const struct mo_prune_settings *settings)
{
    struct masking m = { .job = job, .settings = settings };
    m.rule = (struct mo_prune_rule){ settings->score, settings->scope, settings->max_layer, 0, 0,
                                     (uint64_t)job->settings->seed };
    MO_TRY(mo_prune_layers(job, true, &m.layers, &m.n_layers, &m.n_elems));
    if (settings->keep_first && m.n_layers > 1) {
        MO_TRY(mo_audit_skip(job, m.layers[0].name, "it is the first layer (--keep-first)"));
        m.layers++, m.n_layers--;
        size_t skipped = m.layers[0].first;
        for (uint32_t l = 0; l < m.n_layers; l++)
            m.layers[l].first -= skipped;
        m.n_elems -= skipped;
    }
    enum mopt_status status = settle_goal(&m);
    if (!status)
        status = mask(&m);
    mo_mem_free(m.keep);
    mo_mem_free(m.w);
    return status;
}
