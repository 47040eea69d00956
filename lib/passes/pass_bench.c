/* bench: latency, throughput and memory of one or several models on this machine.
 *
 * Models take turns, so that a machine that drifts slows all of them alike; the ratio to the first model is
 * taken round by round (speed: above 1 is faster than the first) and carries the standard error of its mean.
 * Warm-up, mean and deviation, percentiles, outliers with advice: as hyperfine has it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/passes/bench_train.h"
#include "lib/passes/eval.h"
#include "lib/passes/measure.h"
#include "lib/run/run.h"

struct bench_options { int64_t batch, runs, free_dim; double seconds, warmup; bool profile, train; int precision; };
#define AT(field) offsetof(struct bench_options, field)
static const struct mopt_option options[] = {
    {"batch", MOPT_OPT_INT, AT(batch), .def = 1, .min = 1, .max = 65536, .word = "N", .help = "samples a run"},
    {"seconds", MOPT_OPT_FLOAT, AT(seconds), .def = 1, .min = 0.01, .max = 86400, .word = "S",
     .needs = "!runs",
     .help = "time to measure each model for"},
    {"runs", MOPT_OPT_INT, AT(runs), .def = 0, .min = 0, .max = 1e7, .word = "N",
     .help = "exactly so many runs of each model; 0: as many as --seconds allows"},
    {"warmup", MOPT_OPT_FLOAT, AT(warmup), .def = 0.1, .min = 0, .max = 3600, .word = "S",
     .help = "time to run each model before measuring"},
    {"free-dim", MOPT_OPT_INT, AT(free_dim), .def = 1, .min = 1, .max = 1 << 20, .word = "N",
     .help = "size of free dimensions other than the first"},
    {"precision", MOPT_OPT_CHOICE, AT(precision), .text_def = "fp32", .choices = MO_PRECISION_CHOICES,
     .help = MO_PRECISION_HELP},
    {"profile", MOPT_OPT_BOOL, AT(profile), .help = "time of each operator too"},
    {"train", MOPT_OPT_BOOL, AT(train), .help = "training steps (forward, loss, backward, update) instead of inference"},
    {0}};

enum { MAX_INPUTS = 32, MAX_RUNS = 1000000, MIN_RUNS = 5, N_PROFILE = 20 };

struct racer {
    const char *name;
    const struct mopt_model *model;
    struct mo_run *run;
    struct mo_bench_train *step; /* with --train */
    double *ms; /* of every round */
};
struct race {
    struct mo_job *job;
    const struct bench_options *o;
    struct racer *racers;
    size_t n, n_rounds, room;
};

static enum mopt_status run_once(struct racer *m)
{
    return m->step ? mo_bench_train_step(m->step) : mo_run_forward(m->run);
}

static enum mopt_status prepare(struct race *r, struct racer *m)
{
    struct mopt_ctx *ctx = r->job->ctx;
    struct mo_shape shapes[MAX_INPUTS];
    uint32_t n = 0;
    MO_TRY(mo_sample_shapes(ctx, &m->model->graph, r->o->batch, r->o->free_dim, shapes, MAX_INPUTS, &n));
    const char *activation;
    mo_value_id logits = r->o->train ? mo_graph_logits(&m->model->graph, &activation) : MO_NONE;
    struct mo_run_options how = {.train = r->o->train, .outputs = r->o->train ? &logits : NULL, .n_outputs = r->o->train,
                                  .half = mo_precision_half(r->o->precision)};
    MO_TRY(mo_run_new(ctx, &m->model->graph, &how, &m->run));
    if (r->o->train && !m->run->n_trained)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "there is nothing to train");
    MO_TRY(mo_run_shape(m->run, shapes, n));
    for (uint32_t i = 0; i < n; i++)
        MO_TRY(mo_sample_input(m->run, i, (uint64_t)r->job->settings->seed));
    if (r->o->train)
        MO_TRY(mo_bench_train_new(m->run, (uint64_t)r->job->settings->seed, &m->step));
    double start = mo_now_s();
    do
        MO_TRY(run_once(m));
    while (mo_now_s() - start < r->o->warmup);
    return MOPT_OK;
}

static enum mopt_status more_room(struct race *r)
{
    if (r->n_rounds < r->room)
        return MOPT_OK;
    size_t room = 2 * r->room + 256;
    for (size_t i = 0; i < r->n; i++) {
        double *ms = mo_mem_grow(r->racers[i].ms, r->room * sizeof *ms, room * sizeof *ms);
        if (!ms)
            return mo_no_memory(r->job->ctx, room * sizeof *ms, "timings");
        r->racers[i].ms = ms;
    }
    r->room = room;
    return MOPT_OK;
}

/* A quick model is run once before its turn counts: the one before it took the caches, as nobody does who runs one model. */
#define QUICK_MS 10

static enum mopt_status run_timed(struct race *r, struct racer *m)
{
    bool is_cold = r->n > 1 && r->n_rounds && m->ms[r->n_rounds - 1] < QUICK_MS;
    if (is_cold)
        MO_TRY(run_once(m));
    double t = mo_now_s();
    MO_TRY(run_once(m));
    m->ms[r->n_rounds] = 1e3 * (mo_now_s() - t);
    return MOPT_OK;
}

/* Each round times every model once; the order turns, so that no model always follows the same one. */
static enum mopt_status run_rounds(struct race *r)
{
    double start = mo_now_s(), budget = r->o->seconds * (double)r->n;
    for (;;) {
        double spent = mo_now_s() - start;
        bool enough = r->o->runs ? r->n_rounds >= (size_t)r->o->runs
                                 : r->n_rounds >= MIN_RUNS && (spent >= budget || r->n_rounds >= MAX_RUNS);
        if (enough)
            return MOPT_OK;
        MO_TRY(mo_stopped(r->job->ctx));
        MO_TRY(more_room(r));
        for (size_t k = 0; k < r->n; k++)
            MO_TRY(run_timed(r, &r->racers[(k + r->n_rounds) % r->n]));
        r->n_rounds++;
        double done = r->o->runs ? (double)r->n_rounds : spent, total = r->o->runs ? (double)r->o->runs : budget;
        mo_progress(r->job->ctx, "bench", fmin(done, total), total, r->o->runs ? "run" : "second", "");
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between the two nearest ranks. */
static double percentile(const double *sorted, size_t n, double share)
{
    double at = share * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* Modified z-score above 14.8 (hyperfine's bound): 0.6745 (x - median) / MAD. */
static size_t count_outliers(const double *sorted, size_t n, double *room)
{
    double median = percentile(sorted, n, 0.5);
    for (size_t i = 0; i < n; i++)
        room[i] = fabs(sorted[i] - median);
    qsort(room, n, sizeof *room, by_value);
    double mad = percentile(room, n, 0.5);
    size_t count = 0;
    for (size_t i = 0; mad > 0 && i < n; i++)
        count += 0.6745 * fabs(sorted[i] - median) / mad > 14.8;
    return count;
}

static void report_ratio(const struct race *r, const struct racer *m, struct mopt_report *row)
{
    double mean = 0, m2 = 0;
    for (size_t i = 0; i < r->n_rounds; i++) {
        double x = log(r->racers[0].ms[i] / m->ms[i]), delta = x - mean;
        mean += delta / (double)(i + 1);
        m2 += delta * (x - mean);
    }
    double n = (double)r->n_rounds, error = n > 1 ? sqrt(m2 / (n - 1) / n) : 0;
    mo_report_set_number(row, "ratio", exp(mean));
    mo_report_set_number(row, "ratio_error", exp(mean) * error);
}

static enum mopt_status report_times(const struct race *r, const struct racer *m, struct mopt_report *row,
                                     struct mopt_report *advice)
{
    size_t n = r->n_rounds;
    double *sorted = mo_mem_new(2 * n, sizeof *sorted), mean = 0, m2 = 0;
    if (!sorted)
        return mo_no_memory(r->job->ctx, 2 * n * sizeof *sorted, "timings");
    memcpy(sorted, m->ms, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_value);
    for (size_t i = 0; i < n; i++) {
        double delta = m->ms[i] - mean;
        mean += delta / (double)(i + 1);
        m2 += delta * (m->ms[i] - mean);
    }
    struct mopt_report *ms = mo_report_object(row, "latency_ms");
    mo_report_set_number(ms, "mean", mean);
    mo_report_set_number(ms, "sd", n > 1 ? sqrt(m2 / (double)(n - 1)) : 0);
    mo_report_set_number(ms, "min", sorted[0]);
    mo_report_set_number(ms, "median", percentile(sorted, n, 0.5));
    mo_report_set_number(ms, "p90", percentile(sorted, n, 0.9));
    mo_report_set_number(ms, "p95", percentile(sorted, n, 0.95));
    mo_report_set_number(ms, "p99", percentile(sorted, n, 0.99));
    mo_report_set_number(ms, "max", sorted[n - 1]);
    mo_report_set_number(row, "samples_per_second", 1e3 * (double)r->o->batch / percentile(sorted, n, 0.5));
    size_t n_outliers = count_outliers(sorted, n, sorted + n);
    mo_report_set_int(row, "n_outliers", (int64_t)n_outliers);
    mo_mem_free(sorted);
    if (n_outliers * 20 > n) {
        char text[512];
        snprintf(text, sizeof text, "%s: %zu of %zu runs are outliers; another process is probably busy: close it, or "
                 "measure longer with --seconds", m->name, n_outliers, n);
        mo_report_set_text(advice, NULL, text);
    }
    return MOPT_OK;
}

struct cost { mo_node_id node; uint64_t ns; };

static int by_cost(const void *a, const void *b)
{
    uint64_t x = ((const struct cost *)a)->ns, y = ((const struct cost *)b)->ns;
    return (x < y) - (x > y);
}

/* One run with a clock around each node of the lowered graph; the dearest first. */
static enum mopt_status report_profile(struct race *r, struct racer *m, struct mopt_report *row)
{
    struct mo_run *run = m->run;
    mo_run_profile(run, true);
    MO_TRY(run_once(m));
    uint32_t n = run->graph->n_nodes;
    struct cost *costs = mo_arena_new(r->job->scratch, n + 1, sizeof *costs);
    if (!costs)
        return mo_no_memory(r->job->ctx, n * sizeof *costs, "a profile");
    uint64_t total = 0;
    for (mo_node_id i = 0; i < n; i++) {
        uint64_t backward;
        costs[i].node = i;
        mo_run_node_ns(run, i, &costs[i].ns, &backward);
        costs[i].ns += backward;
        total += costs[i].ns;
    }
    qsort(costs, n, sizeof *costs, by_cost);
    struct mopt_report *list = mo_report_list(row, "profile");
    for (uint32_t i = 0; i < n && i < N_PROFILE && costs[i].ns; i++) {
        const struct mo_node *node = &run->graph->nodes[costs[i].node];
        char label[128], shape[96];
        struct mopt_report *line = mo_report_object(list, NULL);
        mo_report_set_text(line, "node", mo_node_label(run->graph, node, label, sizeof label));
        if (node->n_out && node->out[0] != MO_NONE)
            mo_report_set_text(line, "shape", mo_shape_text(&run->graph->values[node->out[0]].shape, shape, sizeof shape));
        mo_report_set_number(line, "us", 1e-3 * (double)costs[i].ns);
        mo_report_set_number(line, "share", total ? (double)costs[i].ns / (double)total : 0);
    }
    mo_run_profile(run, false);
    return MOPT_OK;
}

static enum mopt_status report_model(struct race *r, struct racer *m, struct mopt_report *row, struct mopt_report *advice)
{
    mo_report_set_text(row, "name", m->name);
    MO_TRY(mo_report_counts(r->job->ctx, m->model, row));
    MO_TRY(report_times(r, m, row, advice));
    report_ratio(r, m, row);
    uint32_t n_int8, n_float;
    mo_run_precision(m->run, &n_int8, &n_float);
    mo_report_precision(row, n_int8, n_float);
    struct mopt_report *memory = mo_report_object(row, "memory_bytes");
    mo_report_set_int(memory, "activations", (int64_t)mo_run_block_bytes(m->run));
    mo_report_set_int(memory, "weights", (int64_t)mo_run_weight_bytes(m->run));
    return r->o->profile ? report_profile(r, m, row) : MOPT_OK;
}

/* With data: each model is judged by the preparation that its own file holds. */
static enum mopt_status report_accuracy(struct race *r, const struct racer *m, struct mopt_report *row)
{
    struct mo_job job = *r->job;
    struct mo_metrics metrics = {0};
    job.dataset = NULL;
    MO_TRY(mo_dataset_open(job.ctx, &job.settings->data, m->model, (uint64_t)job.settings->seed, &job.dataset));
    enum mopt_status s = mo_evaluate(&job, m->model, MO_SPLIT_EVAL, 128, &metrics);
    if (!s)
        mo_report_metrics(mo_report_object(row, "metrics"), &metrics);
    mo_dataset_close(job.dataset);
    return s;
}

static enum mopt_status race(struct race *r)
{
    struct mo_job *job = r->job;
    for (size_t i = 0; i < r->n; i++) {
        struct racer *m = &r->racers[i];
        m->model = i ? job->others[i - 1] : job->model;
        m->name = i ? (job->other_names ? job->other_names[i - 1] : "model") : job->name;
        enum mopt_status s = prepare(r, m);
        if (s) {
            mo_blame(job->ctx, "'%s'", m->name);
            return s;
        }
    }
    MO_TRY(run_rounds(r));
    mo_report_set_int(job->report, "batch", r->o->batch);
    mo_report_set_int(job->report, "n_runs", (int64_t)r->n_rounds);
    struct mopt_report *list = mo_report_list(job->report, "models"), *advice = mo_report_list(job->report, "advice");
    for (size_t i = 0; i < r->n; i++) {
        struct mopt_report *row = mo_report_object(list, NULL);
        MO_TRY(report_model(r, &r->racers[i], row, advice));
        if (job->dataset)
            MO_TRY(report_accuracy(r, &r->racers[i], row));
    }
    return MOPT_OK;
}

static enum mopt_status run(struct mo_job *job)
{
    struct race r = {.job = job, .o = job->options, .n = 1 + job->n_others};
    r.racers = mo_arena_new(job->scratch, r.n, sizeof *r.racers);
    if (!r.racers)
        return mo_no_memory(job->ctx, r.n * sizeof *r.racers, "models");
    enum mopt_status s = race(&r);
    for (size_t i = 0; i < r.n; i++) {
        mo_bench_train_free(r.racers[i].step);
        mo_run_free(r.racers[i].run);
        mo_mem_free(r.racers[i].ms);
    }
    return s;
}

/* Beyond what the rows say. */
static const struct mo_need needs[] = {
    {"subset drop-last", NULL},
    {0}};

const struct mo_pass mo_pass_bench = {
    .name = "bench",
    .help = "latency, throughput and memory, models interleaved",
    .options = options,
    .options_bytes = sizeof(struct bench_options),
    .flags = MO_PASS_READS | MO_PASS_DATA,
    .needs = needs,
    .run = run,
};
