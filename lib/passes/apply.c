/* apply.c - the driver: what is done around every pass, so that no pass has to.
 *
 * Reads the teacher, opens the data once, counts and measures before and after,
 * runs each step, sweeps and checks the graph, verifies exact passes by running
 * both models, judges the gates. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/backend.h"
#include "lib/graph/large.h"
#include "lib/passes/gates.h"
#include "lib/passes/measure.h"
#include "lib/passes/needs.h"
#include "lib/passes/recipe.h"
#include "lib/passes/select.h"
#include "lib/passes/upgrade.h"
#include "lib/run/run.h"

enum { EVAL_BATCH = 128 };
/* A model with more weights is not run for the before/after table: that may take more memory than the job itself. */
#define MEASURED_BYTES ((uint64_t)1 << 30)
/* A run may hold weights mapped, as float32, and packed for its products. */
enum { RUN_COPIES = 3 };
#define EXACT_TOLERANCE 1e-5

static unsigned all_flags(const struct mopt_recipe *recipe)
{
    unsigned flags = 0;
    for (size_t i = 0; i < recipe->n_steps; i++)
        flags |= recipe->steps[i].pass->flags;
    return flags;
}

static bool only_reads(const struct mopt_recipe *recipe)
{
    for (size_t i = 0; i < recipe->n_steps; i++)
        if (!(recipe->steps[i].pass->flags & MO_PASS_READS))
            return false;
    return true;
}

static bool has_step(const struct mopt_recipe *recipe, const char *pass)
{
    for (size_t i = 0; i < recipe->n_steps; i++)
        if (!strcmp(recipe->steps[i].pass->name, pass))
            return true;
    return false;
}

enum mopt_status mopt_recipe_check(struct mopt_ctx *ctx, const struct mopt_recipe *recipe)
{
    const struct mo_job_settings *s = &recipe->settings;
    if (!recipe->n_steps)
        return mo_fail(ctx, MOPT_USAGE, "the recipe has no step");
    for (size_t i = 0; i < recipe->n_steps; i++) {
        const struct mo_pass *pass = recipe->steps[i].pass;
        if (pass->flags & MO_PASS_NEEDS_DATA && !s->data.data && !s->data.eval_data)
            return mo_fail(ctx, MOPT_USAGE, "%s needs data: add --data SPEC, e.g. --data idx:DIR", pass->name);
        if (pass->flags & MO_PASS_NEEDS_TEACHER && !s->teacher)
            return mo_fail(ctx, MOPT_USAGE, "%s needs a teacher: add --teacher FILE, or --teacher original", pass->name);
    }
    bool changes = !only_reads(recipe), benches = has_step(recipe, "bench");
    const struct mo_measured measured = {
        .before = changes,
        .metrics = (s->data.data || s->data.eval_data) && (changes || has_step(recipe, "eval")),
        .size = changes || benches || has_step(recipe, "inspect"),
        .latency = benches,
        .mean_latency = benches || (changes && s->measure_s > 0),
        .cosine = has_step(recipe, "diff"),
    };
    MO_TRY(mo_needs_check(ctx, recipe));
    return mo_gates_check_job(ctx, s, &measured);
}

/* Bytes of the model's constants in a run, where what is smaller may become float32. */
static uint64_t bytes_in_run(const struct mopt_model *model)
{
    uint64_t bytes = 0;
    for (mo_value_id v = 0; v < model->graph.n_values; v++)
        if (model->graph.values[v].data)
            bytes += (uint64_t)mo_value_elems(&model->graph.values[v]) * sizeof(float);
    return MO_MAX(bytes, mo_graph_constant_bytes(&model->graph));
}

/* Whether runs of models with so many bytes of constants, which the job makes unasked, could break --max-memory. */
static bool breaks_limit(const struct mopt_ctx *ctx, uint64_t bytes)
{
    return ctx->max_memory_bytes && bytes > ctx->max_memory_bytes / RUN_COPIES;
}

/* One side of the before/after table. */
static enum mopt_status measure_side(struct mo_job *job, const struct mopt_model *model, bool accuracy,
                                     struct mopt_report *side)
{
    MO_TRY(mo_report_counts(job->ctx, model, side));
    if (accuracy && job->dataset) {
        struct mo_metrics metrics = {0};
        MO_TRY(mo_evaluate(job, model, MO_SPLIT_EVAL, EVAL_BATCH, &metrics));
        mo_report_metrics(mo_report_object(side, "metrics"), &metrics);
    }
    bool is_large = mo_graph_constant_bytes(&model->graph) > MEASURED_BYTES || breaks_limit(job->ctx, bytes_in_run(model));
    is_large = is_large && !job->settings->max_latency;
    if (is_large)
        mo_log(job->ctx, "measure", "no latency of a model this large within the memory allowed; bench measures it");
    if (job->settings->measure_s > 0 && !job->settings->dry_run && !is_large) {
        struct mo_latency latency;
        enum mopt_status s = mo_measure_latency(job->ctx, model, job->settings->measure_s, &latency);
        if (s == MOPT_UNSUPPORTED || s == MOPT_LIMIT) { /* a model that cannot be run here can still be changed */
            mo_log(job->ctx, "measure", "no latency: %s", mopt_error(job->ctx));
            mopt_clear(job->ctx);
            return MOPT_OK;
        }
        MO_TRY(s);
        struct mopt_report *row = mo_report_object(side, "latency_ms");
        mo_report_set_number(row, "mean", latency.mean_ms);
        mo_report_set_number(row, "sd", latency.sd_ms);
        mo_report_set_int(row, "n", latency.n);
    }
    return MOPT_OK;
}

/* An exact pass must not change what the model computes. was: NULL where its was_bytes were too many to be kept. */
static enum mopt_status verify(struct mo_job *job, const struct mopt_model *was, uint64_t was_bytes)
{
    double difference = 0;
    uint64_t bytes = was_bytes + bytes_in_run(job->model);
    enum mopt_status s = MOPT_OK;
    if (!was || breaks_limit(job->ctx, bytes))
        s = mo_fail(job->ctx, MOPT_LIMIT, "both models, with %llu MiB of weights, may not run beside each other within "
                    "the %llu MiB that --max-memory allows", (unsigned long long)(bytes >> 20),
                    (unsigned long long)(job->ctx->max_memory_bytes >> 20));
    else
        s = mo_measure_difference(job->ctx, was, job->model, (uint64_t)job->settings->seed, &difference);
    if (s == MOPT_UNSUPPORTED || s == MOPT_LIMIT) {
        mo_warn(job->ctx, "verify", "not verified: %s", mopt_error(job->ctx));
        mopt_clear(job->ctx);
        mo_report_set_null(job->report, "verified_difference");
        return MOPT_OK;
    }
    MO_TRY(s);
    mo_report_set_number(job->report, "verified_difference", difference);
    if (!(difference <= EXACT_TOLERANCE))
        return mo_fail(job->ctx, MOPT_FAILED, "the outputs changed by %g of their scale, more than %g: nothing is written",
                       difference, EXACT_TOLERANCE);
    return MOPT_OK;
}

/* --opset: before the steps, and as exact as they have to be. */
static enum mopt_status raise_opset(struct mo_job *job)
{
    struct mopt_ctx *ctx = job->ctx;
    int64_t opset = job->settings->opset, now = mo_model_opset(job->model, "");
    struct mopt_model *was = NULL;
    if (!opset || opset == now)
        return MOPT_OK;
    if (opset < now)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "the model is of opset %lld; --opset %lld would lower it, and an opset is only ever "
                       "raised", (long long)now, (long long)opset);
    bool verifies = job->settings->verify && !job->settings->dry_run &&
                    mo_graph_constant_bytes(&job->model->graph) <= MEASURED_BYTES;
    uint64_t was_bytes = verifies ? bytes_in_run(job->model) : 0;
    if (verifies && !breaks_limit(ctx, was_bytes))
        MO_TRY(mo_model_copy(ctx, job->model, &was));
    enum mopt_status s = mo_upgrade(ctx, job->model, (int)opset);
    if (!s)
        s = mo_graph_check(ctx, &job->model->graph);
    if (!s && verifies)
        s = verify(job, was, was_bytes);
    mopt_model_free(was);
    mo_report_set_int(job->report, "opset_before", now);
    mo_report_set_int(job->report, "opset", opset);
    return s;
}

static enum mopt_status run_step(struct mo_job *job, const struct mo_step *step)
{
    struct mopt_ctx *ctx = job->ctx;
    bool changes = !(step->pass->flags & MO_PASS_READS);
    bool verifies = changes && !job->settings->dry_run && step->pass->flags & MO_PASS_EXACT && job->settings->verify;
    struct mopt_model *was = NULL;
    uint64_t was_bytes = verifies ? bytes_in_run(job->model) : 0;
    if (verifies && !breaks_limit(ctx, was_bytes))
        MO_TRY(mo_model_copy(ctx, job->model, &was));
    struct mo_arena scratch = {0};
    job->scratch = &scratch;
    job->options = step->options;
    double start = mo_now_s();
    enum mopt_status s = mo_hits_new(ctx, &scratch, job->settings, &job->hits);
    if (!s)
        s = step->pass->run(job);
    /* a pass that found nothing to do says so; that a pattern matched nothing is the better reason */
    if (s == MOPT_UNSUPPORTED && !mo_hits_all(job->settings, job->hits)) {
        mopt_clear(ctx);
        s = MOPT_OK;
    }
    if (!s)
        s = mo_hits_check(ctx, job->settings, job->hits);
    if (!s && changes) {
        mo_graph_sweep(&job->model->graph);
        s = mo_graph_check(ctx, &job->model->graph);
    }
    if (!s && verifies)
        s = verify(job, was, was_bytes);
    mo_report_set_number(job->report, "seconds", mo_now_s() - start);
    mo_arena_release(&scratch);
    mopt_model_free(was);
    return s;
}

static void describe_file(struct mopt_report *list, const char *role, const char *name, uint64_t n_bytes, uint64_t hash)
{
    char hex[17];
    /* a large file is not read as a whole for its hash */
    bool is_hashed = hash != 0;
    snprintf(hex, sizeof hex, "%016" PRIx64, hash);
    struct mopt_report *row = mo_report_object(list, NULL);
    mo_report_set_text(row, "role", role);
    mo_report_set_text(row, "name", name);
    mo_report_set_int(row, "bytes", (int64_t)n_bytes);
    if (is_hashed)
        mo_report_set_text(row, "xxh64", hex);
    else
        mo_report_set_null(row, "xxh64");
}

/* The models that came from files; a model made in memory has no hash. */
static void describe_files(const struct mo_job *job, struct mopt_report *root)
{
    struct mopt_report *list = mo_report_list(root, "files");
    if (job->model && job->model->file_bytes)
        describe_file(list, "input", job->name, job->model->file_bytes, job->model->file_hash);
    for (size_t i = 0; i < job->n_others; i++)
        describe_file(list, "beside", job->other_names && job->other_names[i] ? job->other_names[i] : "model",
                      job->others[i]->file_bytes, job->others[i]->file_hash);
}

enum mopt_status mopt_report_output(struct mopt_ctx *ctx, struct mopt_report *report, const char *path)
{
    uint64_t hash, n_bytes;
    const struct mopt_report *list = mopt_report_at(report, "files");
    if (!list || !strcmp(path, "-"))
        return MOPT_OK;
    MO_TRY(ctx->io->hash_file(ctx, path, &hash, &n_bytes));
    describe_file((struct mopt_report *)(uintptr_t)list, "output", path, n_bytes, hash);
    return mo_report_ok(report) ? MOPT_OK : mo_no_memory(ctx, 0, "a report");
}

static void describe_machine(struct mopt_ctx *ctx, struct mopt_report *root)
{
    char cpu[128];
    struct mopt_report *row = mo_report_object(root, "machine");
    int n_cores = ctx->io->machine(cpu, sizeof cpu);
    mo_report_set_text(row, "cpu", cpu);
    mo_report_set_int(row, "cores", n_cores);
    mo_report_set_int(row, "memory_limit_bytes", (int64_t)ctx->max_memory_bytes);
}

static void describe_program(const char *verb, struct mopt_report *root)
{
    mo_report_set_text(root, "mopt", MOPT_VERSION);
    mo_report_set_int(root, "schema", 1);
    mo_report_set_text(root, "verb", verb);
    mo_report_set_text(root, "status", "running");
}

static void describe_end(enum mopt_status status, const char *words, struct mopt_report *root)
{
    mo_report_set_text(root, "status", mopt_status_text(status));
    mo_report_set_int(root, "exit_code", status);
    if (status)
        mo_report_set_text(root, "error", words);
}

enum mopt_status mopt_report_failure(struct mopt_ctx *ctx, const char *verb, enum mopt_status status,
                                     const char *words, struct mopt_report **report)
{
    *report = mo_report_new();
    if (!*report)
        return mo_no_memory(ctx, 0, "a report");
    describe_program(verb, *report);
    describe_machine(ctx, *report);
    describe_end(status, words, *report);
    return mo_report_ok(*report) ? MOPT_OK : mo_no_memory(ctx, 0, "a report");
}

static void describe(struct mopt_ctx *ctx, const struct mopt_recipe *recipe, struct mopt_report *root)
{
    const char *one = recipe->n_steps == 1 ? recipe->steps[0].pass->name : "run";
    describe_program(recipe->verb ? recipe->verb : one, root);
    mo_report_set_int(root, "seed", recipe->settings.seed);
    mo_report_set_int(root, "threads", ctx->n_threads);
    mo_report_set_text(root, "device", ctx->device_name);
    mo_report_set_text(root, "model", recipe->n_names ? recipe->names[0] : "model");
    describe_machine(ctx, root);
}

static void describe_data(const struct mopt_dataset *dataset, const struct mo_data_settings *settings,
                          struct mopt_report *root)
{
    struct mopt_report *row = mo_report_object(root, "data");
    mo_report_set_text(row, "spec", settings->data ? settings->data : settings->eval_data);
    mo_report_set_int(row, "n_train", (int64_t)mo_dataset_count(dataset, MO_SPLIT_TRAIN));
    mo_report_set_int(row, "n_validation", (int64_t)mo_dataset_count(dataset, MO_SPLIT_VALIDATION));
    mo_report_set_int(row, "n_eval", (int64_t)mo_dataset_count(dataset, MO_SPLIT_EVAL));
    mo_report_set_bool(row, "eval_is_test", mo_dataset_has_test(dataset));
    mo_report_set_int(row, "n_skipped", (int64_t)mo_dataset_n_skipped(dataset));
}

/* The steps in order; a recipe of one step reports into the root itself. */
static enum mopt_status run_steps(struct mo_job *job, const struct mopt_recipe *recipe, struct mopt_report *root)
{
    struct mopt_report *list = recipe->n_steps > 1 ? mo_report_list(root, "steps") : NULL;
    for (size_t i = 0; i < recipe->n_steps; i++) {
        job->report = list ? mo_report_object(list, NULL) : root;
        mo_report_set_text(job->report, "pass", recipe->steps[i].pass->name);
        job->step = i;
        MO_TRY(mo_stopped(job->ctx));
        enum mopt_status s = run_step(job, &recipe->steps[i]);
        if (s && recipe->n_steps > 1)
            mo_blame(job->ctx, "step %zu, %s", i + 1, recipe->steps[i].pass->name);
        MO_TRY(s);
    }
    job->report = root;
    return MOPT_OK;
}

static enum mopt_status open_beside(struct mo_job *job, const struct mopt_recipe *recipe,
                                    struct mopt_model **original)
{
    struct mopt_ctx *ctx = job->ctx;
    const struct mo_job_settings *s = &recipe->settings;
    if (s->teacher && !strcmp(s->teacher, "original")) {
        MO_TRY(mo_model_copy(ctx, job->model, original));
        job->original = job->teacher = *original;
    } else if (s->teacher)
        MO_TRY(ctx->io->read_model(ctx, s->teacher, &job->teacher));
    if (job->teacher)
        MO_TRY(mo_graph_align(ctx, job->teacher, &job->teacher->graph));
    bool wants = all_flags(recipe) & (MO_PASS_DATA | MO_PASS_NEEDS_DATA);
    struct mo_data_settings data = s->data;
    data.strict = s->strict;
    if (wants && (data.data || data.eval_data))
        MO_TRY(mo_dataset_open(ctx, &data, job->model, (uint64_t)s->seed, &job->dataset));
    return MOPT_OK;
}

/* What a dry run leaves: the model as it would be but for training, and what a forward pass of it takes. */
static enum mopt_status predict(struct mo_job *job, struct mopt_report *side)
{
    MO_TRY(mo_report_counts(job->ctx, job->model, side));
    enum mopt_status s = mo_measure_memory(job->ctx, job->model, side);
    if (s == MOPT_UNSUPPORTED || s == MOPT_LIMIT) {
        mo_log(job->ctx, "measure", "no memory need: %s", mopt_error(job->ctx));
        mopt_clear(job->ctx);
        return MOPT_OK;
    }
    return s;
}

/* Passes that only read judge on the test part where there is one; how the training part is split is then of no use. */
static enum mopt_status check_split(const struct mo_job *job, const struct mopt_recipe *recipe)
{
    if (!job->dataset || !only_reads(recipe) || has_step(recipe, "eval") || !mo_dataset_has_test(job->dataset))
        return MOPT_OK;
    for (const struct mo_said *said = recipe->said; said; said = said->next)
        if (!strcmp(said->key, "val-split") || !strcmp(said->key, "stratify"))
            return mo_fail(job->ctx, MOPT_USAGE, "option '%s' does nothing here: the data has a test part, and nothing is "
                           "trained", said->key);
    return MOPT_OK;
}

/* Weights lie where their types want them, before anything reads them; inspect sees to it itself. */
static enum mopt_status align_models(struct mo_job *job, const struct mopt_recipe *recipe)
{
    bool reads = false;
    for (size_t i = 0; i < recipe->n_steps; i++)
        reads |= strcmp(recipe->steps[i].pass->name, "inspect") != 0;
    if (!reads)
        return MOPT_OK;
    MO_TRY(mo_graph_align(job->ctx, job->model, &job->model->graph));
    for (size_t i = 0; i < job->n_others; i++)
        MO_TRY(mo_graph_align(job->ctx, job->others[i], &job->others[i]->graph));
    return MOPT_OK;
}

static enum mopt_status run_job(struct mo_job *job, const struct mopt_recipe *recipe, struct mopt_report *root,
                                struct mopt_model **original)
{
    const struct mo_job_settings *s = &recipe->settings;
    MO_TRY(mopt_recipe_check(job->ctx, recipe));
    MO_TRY(align_models(job, recipe));
    MO_TRY(open_beside(job, recipe, original));
    MO_TRY(check_split(job, recipe));
    job->report = root;
    if (job->dataset)
        describe_data(job->dataset, &s->data, root);
    bool changes = !only_reads(recipe);
    bool accuracy = (s->evaluate || mo_gates_need_accuracy(s)) && !s->dry_run;
    if (changes)
        MO_TRY(measure_side(job, job->model, accuracy, mo_report_object(root, "before")));
    if (changes)
        MO_TRY(raise_opset(job));
    MO_TRY(run_steps(job, recipe, root));
    if (changes && s->dry_run)
        MO_TRY(predict(job, mo_report_object(root, "predicted")));
    else if (changes)
        MO_TRY(measure_side(job, job->model, accuracy, mo_report_object(root, "after")));
    if (job->dataset)
        describe_data(job->dataset, &s->data, root);
    return s->dry_run ? MOPT_OK : mo_gates_judge(job->ctx, s, root);
}

/* Without a model: why it is not there. */
static enum mopt_status failed_before(struct mopt_ctx *ctx)
{
    return ctx->status ? ctx->status : mo_fail(ctx, MOPT_USAGE, "there is no model");
}

enum mopt_status mopt_apply(struct mopt_ctx *ctx, const struct mopt_recipe *recipe, struct mopt_model *model,
                            struct mopt_model *const *others, size_t n_others, struct mopt_report **report)
{
    struct mopt_report *root = mo_report_new();
    struct mopt_model *original = NULL;
    if (report)
        *report = root;
    if (!root)
        return mo_no_memory(ctx, 0, "a report");
    describe(ctx, recipe, root);
    struct mo_job job = {.ctx = ctx,
                         .model = model,
                         .others = others,
                         .n_others = n_others,
                         .settings = &recipe->settings,
                         .name = recipe->n_names ? recipe->names[0] : "model",
                         .other_names = recipe->n_names > 1 ? recipe->names + 1 : NULL};
    char *text = NULL;
    describe_files(&job, root);
    enum mopt_status s = model ? mopt_recipe_text(ctx, recipe, &text) : failed_before(ctx);
    job.recipe = text;
    struct mopt_model *dry = NULL; /* a dry run works on a copy, all but the training */
    if (!s && recipe->settings.dry_run && !only_reads(recipe) && !(s = mo_model_copy(ctx, model, &dry)))
        job.model = dry;
    if (!s)
        s = run_job(&job, recipe, root, &original);
    mopt_model_free(dry);
    describe_end(s, mopt_error(ctx), root);
    if (ctx->device)
        mo_report_set_text(root, "engine", ctx->backend->describe(ctx->device));
    mopt_text_free(text);
    if (job.teacher != original)
        mopt_model_free(job.teacher);
    mopt_model_free(original);
    mo_dataset_close(job.dataset);
    if (!s && !mo_report_ok(root))
        s = mo_no_memory(ctx, 0, "a report");
    if (!report)
        mopt_report_free(root);
    return s;
}
