/* eval.c - metrics of a model on a split of its data.
 *
 * Classes: the class said is the largest of C scores (the first of equal ones), the side of a single score (0 for a
 * logit, 0.5 for a probability), or an index that the model itself gives out. Loss is the mean of -log p(label), p from
 * the scores as they are when the graph ends in Softmax or Sigmoid, else through one. F1 is the plain mean over the
 * classes that were there or were said.
 * Values: MAE and RMSE over all targets; R2 = 1 - SSE / SST per target, then the mean.
 *
 * Every batch is padded to one size, so that one plan serves all. */
#include "lib/passes/eval.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "lib/data/convert.h"
#include "lib/run/loss.h"
#include "lib/run/ranks.h"

enum answer { ANSWER_SCORES, ANSWER_ONE_SCORE, ANSWER_INDEX, ANSWER_VALUES };
enum { MAX_CONFUSION = 1000, TOP = 5 };

struct moments { double mean, sum_square; };    /* Welford, of one target */

struct judge {
    struct mopt_ctx *ctx;
    struct mo_run *run;
    const struct mo_source *source;
    struct mo_evaluation *e;
    bool is_ready;
    uint32_t output;
    enum answer answer;
    bool is_probability, is_log;    /* the graph ends in Softmax or Sigmoid; in LogSoftmax */
    size_t width;                   /* elements a sample */
    void *raw; size_t raw_bytes;    /* the output as the model gives it */
    float *scores;                  /* rows x width */
    size_t n_right, n_top;
    struct mo_tree_sum loss, absolute, square;
    double *square_error;           /* per target */
    struct moments *targets;
};

void mo_wilson(double n_right, double n, double *low, double *high)
{
    const double z = 1.959963984540054;
    if (!(n > 0)) {
        *low = 0;
        *high = 1;
        return;
    }
    double p = n_right / n, centre = p + z * z / (2 * n), half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    *low = MO_MAX(0.0, (centre - half) / (1 + z * z / n));
    *high = MO_MIN(1.0, (centre + half) / (1 + z * z / n));
}

/* ---- what the model answers with -------------------------------------------------- */

/* The type of the node that made a value, behind nodes that only move it. */
static const char *maker(const struct mo_graph *g, mo_value_id v)
{
    static const char *const movers[] = {"Identity", "Reshape", "Flatten",        "Squeeze",         "Unsqueeze",
                                         "Cast",     "Transpose", "QuantizeLinear", "DequantizeLinear"};
    for (uint32_t hops = 0; hops < g->n_nodes; hops++) {
        mo_node_id id = g->values[v].producer;
        if (id == MO_NONE)
            return "";
        const struct mo_node *n = &g->nodes[id];
        bool moves = false;
        for (size_t i = 0; i < MO_COUNT(movers); i++)
            moves |= !strcmp(n->type, movers[i]);
        if (!moves || !n->n_in || n->in[0] == MO_NONE)
            return n->type;
        v = n->in[0];
    }
    return "";
}

/* Elements of output i for one of n_rows samples; 0 where it is not a list of rows. */
static size_t width_of(const struct mo_run *run, uint32_t i, size_t n_rows)
{
    const struct mo_value *v = mo_run_output(run, i);
    int64_t n = mo_value_elems(v);
    return n > 0 && mo_convert_known(v->dtype) && (size_t)n % n_rows == 0 ? (size_t)n / n_rows : 0;
}

/* How well output i suits the targets; 0: not at all. */
static int suits(const struct judge *j, uint32_t i, size_t n_rows)
{
    size_t width = width_of(j->run, i, n_rows);
    bool is_float = mo_dtype_is_float(mo_run_output(j->run, i)->dtype);
    if (!width)
        return 0;
    if (j->source->target == MO_TARGET_VALUES)
        return width == (size_t)j->source->n_targets ? 1 + is_float : 0;
    if (!is_float)
        return width == 1;
    return width == (size_t)j->source->n_classes ? 4 : width > 1 ? 3 : 2;
}

static enum mopt_status no_output(struct judge *j, size_t n_rows)
{
    char shape[96] = "nothing";
    const struct mo_value *v = mo_run_n_outputs(j->run) ? mo_run_output(j->run, 0) : NULL;
    if (v)
        mo_shape_text(&v->shape, shape, sizeof shape);
    if (j->source->target == MO_TARGET_VALUES)
        return mo_fail(j->ctx, MOPT_DATA, "output '%s' is %s for %zu samples; %s has %d target values a sample",
                       v ? v->name : "", shape, n_rows, j->source->path, j->source->n_targets);
    return mo_fail(j->ctx, MOPT_DATA, "output '%s' is %s for %zu samples: no scores to judge classes by",
                   v ? v->name : "", shape, n_rows);
}

static enum mopt_status choose_output(struct judge *j, size_t n_rows)
{
    int best = 0;
    for (uint32_t i = 0; i < mo_run_n_outputs(j->run); i++)
        if (suits(j, i, n_rows) > best) {
            best = suits(j, i, n_rows);
            j->output = i;
        }
    if (!best)
        return no_output(j, n_rows);
    const struct mo_value *v = mo_run_output(j->run, j->output);
    j->width = width_of(j->run, j->output, n_rows);
    const char *type = maker(j->run->graph, j->run->graph->outputs[j->output]);
    j->is_probability = !strcmp(type, "Softmax") || !strcmp(type, "Sigmoid");
    j->is_log = !strcmp(type, "LogSoftmax");
    j->answer = j->source->target == MO_TARGET_VALUES ? ANSWER_VALUES
                : !mo_dtype_is_float(v->dtype)        ? ANSWER_INDEX
                : j->width == 1                       ? ANSWER_ONE_SCORE
                                                      : ANSWER_SCORES;
    return MOPT_OK;
}

static enum mopt_status make_room(struct judge *j, size_t n_rows)
{
    struct mo_evaluation *e = j->e;
    size_t n_classes = j->answer == ANSWER_SCORES ? j->width : (size_t)MO_MAX(j->source->n_classes, 2);
    j->raw_bytes = mo_value_bytes(mo_run_output(j->run, j->output));
    bool ok = (j->raw = mo_mem_new(MO_MAX(j->raw_bytes, (size_t)1), 1));
    ok &= !!(j->scores = mo_mem_new(n_rows * j->width, sizeof *j->scores));
    if (j->answer == ANSWER_VALUES) {
        ok &= !!(j->square_error = mo_mem_new(j->width, sizeof *j->square_error));
        ok &= !!(j->targets = mo_mem_new(j->width, sizeof *j->targets));
    } else {
        e->n_classes = n_classes;
        ok &= !!(e->classes = mo_mem_new(n_classes, sizeof *e->classes));
        if (e->wants_confusion && n_classes <= MAX_CONFUSION)
            ok &= !!(e->confusion = mo_mem_new(n_classes * n_classes, sizeof *e->confusion));
    }
    return ok ? MOPT_OK : mo_no_memory(j->ctx, j->raw_bytes, "the model's answers");
}

/* ---- judging ------------------------------------------------------------------------ */

/* -log p of the label. */
static double surprise(const struct judge *j, const float *z, size_t label)
{
    if (j->is_probability)
        return -log(MO_MAX((double)z[label], DBL_MIN));
    if (j->is_log)
        return -(double)z[label];
    double max = (double)z[0], sum = 0;
    for (size_t k = 1; k < j->width; k++)
        max = MO_MAX(max, (double)z[k]);
    for (size_t k = 0; k < j->width; k++)
        sum += exp((double)z[k] - max);
    return max + log(sum) - (double)z[label];
}

/* -log p of one score that speaks for class 1. */
static double surprise_of_one(const struct judge *j, double z, size_t label)
{
    if (j->is_probability)
        return -log(MO_MAX(label ? z : 1 - z, DBL_MIN));
    double against = label ? -z : z; /* log(1 + exp(against)) without overflow */
    return MO_MAX(against, 0.0) + log1p(exp(-fabs(against)));
}

/* How many scores beat the label's: 0 when it is said. Of equal ones the first wins; NaN never beats, nor says. */
static size_t rank_of(const float *z, size_t width, size_t label)
{
    size_t rank = isnan(z[label]) ? width : 0;
    for (size_t k = 0; k < width; k++)
        rank += z[k] > z[label] || (z[k] == z[label] && k < label);
    return rank;
}

static size_t largest(const float *z, size_t width)
{
    size_t best = 0;
    for (size_t k = 1; k < width; k++)
        if (z[k] > z[best] || (isnan(z[best]) && !isnan(z[k])))
            best = k;
    return best;
}

static void count_said(struct judge *j, size_t label, size_t said, bool is_right)
{
    struct mo_evaluation *e = j->e;
    j->n_right += is_right;
    e->classes[label].n_true++;
    e->classes[label].n_right += is_right;
    if (said < e->n_classes) {
        e->classes[said].n_said++;
        if (e->confusion)
            e->confusion[label * e->n_classes + said]++;
    }
}

static enum mopt_status judge_class(struct judge *j, const float *z, int64_t label64, uint32_t index)
{
    struct mo_evaluation *e = j->e;
    if (label64 < 0 || (uint64_t)label64 >= e->n_classes)
        return mo_fail(j->ctx, MOPT_DATA, "%s: label %lld of sample %u does not fit the model's %zu classes",
                       j->source->path, (long long)label64, index, e->n_classes);
    size_t label = (size_t)label64;
    if (j->answer == ANSWER_SCORES) {
        size_t rank = rank_of(z, j->width, label);
        j->n_top += rank < TOP;
        mo_tree_add(&j->loss, surprise(j, z, label));
        count_said(j, label, largest(z, j->width), rank == 0);
        return MOPT_OK;
    }
    size_t said;
    if (j->answer == ANSWER_INDEX)
        said = z[0] >= 0 ? (size_t)z[0] : SIZE_MAX;
    else {
        said = (double)z[0] > (j->is_probability ? 0.5 : 0.0);
        mo_tree_add(&j->loss, surprise_of_one(j, (double)z[0], label));
    }
    j->n_top += said == label;
    count_said(j, label, said, said == label);
    return MOPT_OK;
}

static void judge_values(struct judge *j, const float *z, const float *t, size_t n_before)
{
    for (size_t k = 0; k < j->width; k++) {
        double error = (double)z[k] - (double)t[k], d = (double)t[k] - j->targets[k].mean;
        mo_tree_add(&j->absolute, fabs(error));
        mo_tree_add(&j->square, error * error);
        j->square_error[k] += error * error;
        j->targets[k].mean += d / (double)(n_before + 1);
        j->targets[k].sum_square += d * ((double)t[k] - j->targets[k].mean);
    }
}

/* What the model said to a batch, and what is right: with this it is judged, by this rank or by all. */
struct answers {
    size_t n;
    const float *scores, *targets;
    const int64_t *labels;
    const uint32_t *index;
};

static enum mopt_status read_scores(struct judge *j, size_t n_rows)
{
    MO_TRY(mo_run_get_output(j->run, j->output, j->raw, j->raw_bytes));
    mo_convert(mo_run_output(j->run, j->output)->dtype, j->raw, MO_F32, j->scores, n_rows * j->width);
    return MOPT_OK;
}

static enum mopt_status judge_answers(struct judge *j, const struct answers *a)
{
    for (size_t i = 0; i < a->n; i++) {
        const float *z = a->scores + i * j->width;
        if (j->answer == ANSWER_VALUES)
            judge_values(j, z, a->targets + i * j->width, j->e->metrics.n);
        else
            MO_TRY(judge_class(j, z, a->labels[i], a->index[i]));
        j->e->metrics.n++;
    }
    return MOPT_OK;
}

/* ---- results -------------------------------------------------------------------------- */

static double mean_f1(const struct mo_evaluation *e)
{
    double sum = 0, n = 0;
    for (size_t c = 0; c < e->n_classes; c++) {
        double both = (double)(e->classes[c].n_true + e->classes[c].n_said);
        if (both > 0) {
            sum += 2 * (double)e->classes[c].n_right / both;
            n++;
        }
    }
    return n > 0 ? sum / n : 0;
}

static double mean_r2(const struct judge *j)
{
    double sum = 0;
    for (size_t k = 0; k < j->width; k++) {
        double total = j->targets[k].sum_square;
        sum += total > 0 ? 1 - j->square_error[k] / total : j->square_error[k] > 0 ? 0 : 1;
    }
    return sum / (double)j->width;
}

static enum mopt_status conclude(struct judge *j)
{
    struct mo_metrics *m = &j->e->metrics;
    double n = (double)m->n;
    if (!m->n)
        return mo_fail(j->ctx, MOPT_DATA, "%s: there is no sample to evaluate on", j->source->path);
    if (j->answer == ANSWER_VALUES) {
        double elems = n * (double)j->width;
        m->has_values = true;
        m->mae = mo_tree_total(&j->absolute) / elems;
        m->rmse = sqrt(mo_tree_total(&j->square) / elems);
        m->r2 = mean_r2(j);
        m->loss = mo_tree_total(&j->square) / elems;
        return MOPT_OK;
    }
    m->has_accuracy = true;
    m->accuracy = (double)j->n_right / n;
    mo_wilson((double)j->n_right, n, &m->accuracy_low, &m->accuracy_high);
    m->top5 = (double)j->n_top / n;
    m->f1 = mean_f1(j->e);
    m->loss = j->answer == ANSWER_INDEX ? NAN : mo_tree_total(&j->loss) / n;
    return MOPT_OK;
}

/* ---- the loop --------------------------------------------------------------------------- */

static enum mopt_status set_inputs(struct mo_run *run, const struct mo_batch *batch)
{
    if (batch->is_sparse)
        return mo_run_set_input_csr(run, 0, batch->row_start, batch->column, batch->value);
    for (uint32_t k = 0; k < batch->n_inputs; k++) {
        size_t bytes = mo_dtype_bytes(batch->dtype[k], mo_shape_elems(&batch->shape[k]));
        MO_TRY(mo_run_set_input(run, k, batch->x[k], bytes));
    }
    return MOPT_OK;
}

static enum mopt_status run_batch(struct judge *j, const struct mo_batch *batch, size_t n_rows)
{
    MO_TRY(mo_run_shape(j->run, batch->shape, batch->n_inputs));
    if (!j->is_ready) {
        MO_TRY(choose_output(j, n_rows));
        MO_TRY(make_room(j, n_rows));
        j->is_ready = true;
    }
    MO_TRY(set_inputs(j->run, batch));
    MO_TRY(mo_run_forward(j->run));
    return read_scores(j, n_rows);
}

static void tell(const struct judge *j, size_t n_total)
{
    if (j->e->tells_progress)
        mo_progress(j->ctx, "eval", (double)j->e->metrics.n, (double)n_total, "sample", NULL);
}

static enum mopt_status run_batches(struct judge *j, struct mo_loader *loader, size_t n_rows, size_t n_total)
{
    const struct mo_batch *batch;
    MO_TRY(mo_loader_start(loader, 0, 0));
    for (;;) {
        MO_TRY(mo_stopped(j->ctx));
        MO_TRY(mo_loader_next(loader, &batch));
        if (!batch->n)
            return conclude(j);
        MO_TRY(run_batch(j, batch, n_rows));
        const struct answers a = {.n = batch->n, .scores = j->scores, .targets = batch->targets, .labels = batch->labels,
                                  .index = batch->index};
        MO_TRY(judge_answers(j, &a));
        tell(j, n_total);
    }
}

/* ---- over ranks: one batch each, then all judge all of them in order, and so find the same ---- */

/* One rank's share of a round, as bytes: n, then room for n_rows of labels, scores, targets and indices. */
struct parcel { size_t labels, scores, targets, index, bytes; };

static struct parcel parcel_of(const struct judge *j, size_t n_rows)
{
    struct parcel p = {.labels = sizeof(uint64_t)};
    p.scores = p.labels + n_rows * sizeof(int64_t);
    p.targets = p.scores + n_rows * j->width * sizeof(float);
    p.index = p.targets + (j->answer == ANSWER_VALUES ? n_rows * j->width : 0) * sizeof(float);
    p.bytes = (p.index + n_rows * sizeof(uint32_t) + 7) / 8 * 8;
    return p;
}

static void pack(const struct judge *j, const struct parcel *p, const struct mo_batch *batch, char *to)
{
    uint64_t n = batch ? batch->n : 0;
    memcpy(to, &n, sizeof n);
    if (!n)
        return;
    if (batch->labels)
        memcpy(to + p->labels, batch->labels, n * sizeof *batch->labels);
    memcpy(to + p->scores, j->scores, n * j->width * sizeof *j->scores);
    if (j->answer == ANSWER_VALUES)
        memcpy(to + p->targets, batch->targets, n * j->width * sizeof *batch->targets);
    memcpy(to + p->index, batch->index, n * sizeof *batch->index);
}

static enum mopt_status judge_round(struct judge *j, const struct parcel *p, const char *all)
{
    for (int r = 0; r < j->ctx->n_ranks; r++, all += p->bytes) {
        uint64_t n;
        memcpy(&n, all, sizeof n);
        const struct answers a = {.n = (size_t)n, .scores = (const float *)(const void *)(all + p->scores),
                                  .targets = (const float *)(const void *)(all + p->targets),
                                  .labels = (const int64_t *)(const void *)(all + p->labels),
                                  .index = (const uint32_t *)(const void *)(all + p->index)};
        MO_TRY(judge_answers(j, &a));
    }
    return MOPT_OK;
}

static enum mopt_status one_round(struct judge *j, struct mo_loader *loader, size_t n_rows, bool has_batch, bool counts,
                                  char **bytes)
{
    const struct mo_batch *batch = NULL;
    if (has_batch)
        MO_TRY(mo_loader_next(loader, &batch));
    if (batch && batch->n)
        MO_TRY(run_batch(j, batch, n_rows));
    if (!j->is_ready)
        return mo_fail(j->ctx, MOPT_DATA, "%s: every sample of a batch is bad", j->source->path);
    struct parcel p = parcel_of(j, n_rows);
    if (!*bytes)
        *bytes = mo_mem_new((size_t)j->ctx->n_ranks + 1, p.bytes);
    if (!*bytes)
        return mo_no_memory(j->ctx, p.bytes, "the answers of all ranks");
    pack(j, &p, counts ? batch : NULL, *bytes);
    MO_TRY(mo_ranks_gather(j->ctx, *bytes, p.bytes, *bytes + p.bytes));
    return judge_round(j, &p, *bytes + p.bytes);
}

static enum mopt_status run_rounds(struct judge *j, struct mo_loader *loader, size_t n_rows, size_t n_total)
{
    size_t n_ranks = (size_t)j->ctx->n_ranks, n_batches = mo_loader_n_whole(loader), rank = (size_t)j->ctx->rank;
    size_t n_rounds = (n_batches + n_ranks - 1) / n_ranks;
    char *bytes = NULL;
    MO_TRY(mo_loader_start(loader, 0, 0));
    enum mopt_status s = MOPT_OK;
    for (size_t i = 0; i < n_rounds && !s; i++) {
        bool counts = i * n_ranks + rank < n_batches;
        s = mo_stopped(j->ctx);
        if (!s)
            s = one_round(j, loader, n_rows, counts || !i, counts, &bytes);
        tell(j, n_total);
    }
    mo_mem_free(bytes);
    return s ? s : conclude(j);
}

static void release_judge(struct judge *j)
{
    mo_mem_free(j->raw);
    mo_mem_free(j->scores);
    mo_mem_free(j->square_error);
    mo_mem_free(j->targets);
}

static enum mopt_status try_batch(struct mo_job *job, struct mo_run *run, struct mo_evaluation *e, size_t batch)
{
    struct mopt_dataset *data = job->dataset;
    size_t n_total = mo_dataset_count(data, e->split), n_rows = MO_MIN(batch, n_total);
    struct judge j = {.ctx = job->ctx, .run = run, .source = mo_dataset_source(data, e->split), .e = e};
    if (!n_total)
        return mo_fail(job->ctx, MOPT_DATA, "the data has no sample to evaluate on: add --eval-data, or --val-split above 0");
    if (j.source->target == MO_TARGET_NONE)
        return mo_fail(job->ctx, MOPT_DATA, "%s: has no labels or values to judge by", j.source->path);
    struct mo_loader *loader = NULL;
    struct mo_loader_options how = {.split = e->split, .batch = n_rows, .pad = true};
    bool is_shared = job->ctx->n_ranks > 1;
    if (is_shared) { /* a rank beyond the last batch looks at the first for its shape */
        how.by = (uint32_t)job->ctx->n_ranks;
        how.at = (size_t)job->ctx->rank * n_rows < n_total ? (uint32_t)job->ctx->rank : 0;
    }
    enum mopt_status s = mo_loader_new(job->ctx, data, &how, &loader);
    if (!s)
        s = (is_shared ? run_rounds : run_batches)(&j, loader, n_rows, n_total);
    mo_loader_free(loader);
    release_judge(&j);
    return s;
}

/* A file may fix the batch, and mean it (a Reshape to 1x256) or not: the wanted size is tried first. */
enum mopt_status mo_evaluation_run(struct mo_job *job, struct mo_run *run, struct mo_evaluation *e)
{
    if (!job->dataset)
        return mo_fail(job->ctx, MOPT_USAGE, "no data to evaluate on: add --data SPEC");
    bool was_training = run->is_training;
    int64_t fixed = mo_dataset_model_batch(job->dataset);
    size_t batch = MO_MAX(e->batch, (size_t)1);
    bool must = fixed > 0 && (size_t)fixed != batch && !mo_dataset_has_batch(job->dataset);
    run->is_training = false;
    enum mopt_status s = try_batch(job, run, e, must ? 1 : batch);
    bool may_retry = s == MOPT_UNSUPPORTED || s == MOPT_FAILED || s == MOPT_DATA;
    if (may_retry && !must && fixed > 0 && (size_t)fixed != batch && !e->metrics.n) {
        mopt_clear(job->ctx);
        mo_evaluation_release(e);
        s = try_batch(job, run, e, (size_t)fixed);
    }
    run->is_training = was_training;
    return s;
}

enum mopt_status mo_evaluation_model(struct mo_job *job, const struct mopt_model *model, struct mo_evaluation *e)
{
    struct mo_run *run = NULL;
    if (!job->dataset)
        return mo_fail(job->ctx, MOPT_USAGE, "no data to evaluate on: add --data SPEC");
    MO_TRY(mo_run_new(job->ctx, &model->graph, &(struct mo_run_options){.free_batch = true, .half = e->half}, &run));
    enum mopt_status s = mo_evaluation_run(job, run, e);
    mo_run_precision(run, &e->n_int8, &e->n_float);
    mo_run_free(run);
    return s;
}

void mo_report_precision(struct mopt_report *report, uint32_t n_int8, uint32_t n_float)
{
    struct mopt_report *row = mo_report_object(report, "operators");
    mo_report_set_int(row, "int8", n_int8);
    mo_report_set_int(row, "float", n_float);
}

void mo_evaluation_release(struct mo_evaluation *e)
{
    mo_mem_free(e->classes);
    mo_mem_free(e->confusion);
    e->classes = NULL;
    e->confusion = NULL;
}

enum mopt_status mo_evaluate(struct mo_job *job, const struct mopt_model *model, enum mo_split split, size_t batch,
                             struct mo_metrics *metrics)
{
    struct mo_evaluation e = {.split = split, .batch = batch, .tells_progress = true};
    enum mopt_status s = mo_evaluation_model(job, model, &e);
    *metrics = e.metrics;
    mo_evaluation_release(&e);
    return s;
}

enum mopt_status mo_evaluate_run(struct mo_job *job, struct mo_run *run, enum mo_split split, size_t batch,
                                 struct mo_metrics *metrics)
{
    struct mo_evaluation e = {.split = split, .batch = batch};
    enum mopt_status s = mo_evaluation_run(job, run, &e);
    *metrics = e.metrics;
    mo_evaluation_release(&e);
    return s;
}

void mo_report_metrics(struct mopt_report *report, const struct mo_metrics *m)
{
    mo_report_set_int(report, "n_samples", (int64_t)m->n);
    if (m->has_accuracy) {
        mo_report_set_number(report, "accuracy", m->accuracy);
        mo_report_set_number(report, "accuracy_low", m->accuracy_low);
        mo_report_set_number(report, "accuracy_high", m->accuracy_high);
        mo_report_set_number(report, "top5", m->top5);
        mo_report_set_number(report, "f1", m->f1);
        mo_report_set_number(report, "loss", m->loss);
    }
    if (m->has_values) {
        mo_report_set_number(report, "mae", m->mae);
        mo_report_set_number(report, "rmse", m->rmse);
        mo_report_set_number(report, "r2", m->r2);
    }
}
