/* train_support.c - see train_support.h. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/train_support.h"

/* ---- data ---- */

struct trial_data trial_data;

void make_trial_data(void)
{
    struct mo_rng rng = mo_rng_new(5, MO_RNG_TEST, 0);
    memset(&trial_data, 0, sizeof trial_data);
    trial_data.target = MO_TARGET_CLASS;
    trial_data.n_classes = N_CLASSES;
    for (int i = 0; i < N_SAMPLES; i++) {
        trial_data.label[i] = i % N_CLASSES;
        for (int k = 0; k < N_FEATURES; k++) {
            trial_data.x[i][k] = mo_rng_normal(&rng) + (k == trial_data.label[i] ? 3.0f : 0.0f);
            trial_data.value[i] += trial_data.x[i][k] * (float)k;
        }
    }
}

static enum mopt_status read_sample(struct mo_source *s, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    (void)s;
    (void)buffer;
    (void)why;
    (void)why_bytes;
    *sample = (struct mo_sample){.data = {trial_data.x[index]}, .label = trial_data.label[index],
                                 .targets = &trial_data.value[index]};
    return MOPT_OK;
}

static int64_t read_label(struct mo_source *s, size_t index)
{
    (void)s;
    return trial_data.label[index];
}

static void close_source(struct mo_source *s)
{
    mo_mem_free(s);
}

static enum mopt_status open_source(struct mopt_ctx *ctx, const char *spec, enum mo_part part, const char *schema,
                                    struct mo_source **source)
{
    (void)ctx;
    (void)spec;
    (void)schema;
    *source = NULL;
    if (part == MO_PART_TEST)
        return MOPT_OK;
    struct mo_source *s = mo_mem_new(1, sizeof *s);
    *s = (struct mo_source){.format = "memory", .path = "memory", .kind = MO_SAMPLE_TENSOR, .n_samples = N_SAMPLES,
                            .n_inputs = 1, .target = trial_data.target, .n_classes = trial_data.n_classes,
                            .n_targets = 1, .is_cheap = true, .read = read_sample, .close = close_source};
    s->label = trial_data.target == MO_TARGET_CLASS ? read_label : NULL;
    s->shape[0] = mo_shape_of(1, (int64_t)N_FEATURES);
    s->dtype[0] = MO_F32;
    *source = s;
    return MOPT_OK;
}

/* ---- a file system of one checkpoint ---- */

struct trial_disk trial_disk;

static enum mopt_status write_file(struct mopt_ctx *ctx, const char *path, const void *bytes, size_t n, bool overwrite)
{
    (void)ctx;
    (void)path;
    (void)overwrite;
    free(trial_disk.bytes);
    trial_disk.bytes = malloc(n);
    memcpy(trial_disk.bytes, bytes, n);
    trial_disk.n = n;
    trial_disk.n_writes++;
    return MOPT_OK;
}

enum mopt_status read_trial_file(struct mopt_ctx *ctx, const char *path, char **bytes, size_t *n)
{
    if (!trial_disk.bytes)
        return mo_fail(ctx, MOPT_DATA, "'%s' is not there", path);
    *bytes = mo_mem_new(trial_disk.n + 1, 1);
    memcpy(*bytes, trial_disk.bytes, trial_disk.n);
    *n = trial_disk.n;
    return MOPT_OK;
}

/* ---- a model: Gemm, BatchNormalization, Relu, Gemm (, Softmax) ---- */

static mo_value_id constant(struct mo_graph *g, const char *name, int rank, int64_t a, int64_t b, float value)
{
    struct mo_shape shape = rank == 1 ? mo_shape_of(1, a) : mo_shape_of(2, a, b);
    float w[N_HIDDEN * N_HIDDEN];
    struct mo_rng rng = mo_rng_new(9, MO_RNG_TEST, (uint64_t)(a * 100 + b));
    for (int64_t i = 0; i < mo_shape_elems(&shape); i++)
        w[i] = rank == 1 ? value : 0.5f * mo_rng_normal(&rng);
    return mo_graph_add_const(g, name, MO_F32, &shape, w);
}

static mo_value_id node(struct mo_graph *g, const char *type, const char *out, const mo_value_id *in, uint32_t n_in)
{
    struct mo_shape unknown = {.rank = MO_UNKNOWN};
    mo_value_id y = mo_graph_add_value(g, out, MO_F32, &unknown);
    mo_graph_add_node(g, type, NULL, out, in, n_in, &y, 1);
    return y;
}

struct mopt_model *make_trial_model(struct mopt_ctx *ctx, int n_out, bool has_norm)
{
    struct mopt_model *m = mo_model_new();
    struct mo_graph *g = &m->graph;
    ck_assert(mo_model_set_opset(m, "", 13));
    struct mo_shape in = mo_shape_of(2, (int64_t)MO_UNKNOWN, (int64_t)N_FEATURES);
    mo_value_id x = mo_graph_add_value(g, "x", MO_F32, &in);
    ck_assert(mo_graph_add_input(g, x));
    mo_value_id w1 = constant(g, "w1", 2, N_FEATURES, N_HIDDEN, 0), b1 = constant(g, "b1", 1, N_HIDDEN, 0, 0);
    mo_value_id h = node(g, "Gemm", "h", (mo_value_id[]){x, w1, b1}, 3);
    if (has_norm)
        h = node(g, "BatchNormalization", "n",
                 (mo_value_id[]){h, constant(g, "scale", 1, N_HIDDEN, 0, 1), constant(g, "shift", 1, N_HIDDEN, 0, 0),
                                 constant(g, "mean", 1, N_HIDDEN, 0, 0), constant(g, "var", 1, N_HIDDEN, 0, 1)}, 5);
    h = node(g, "Relu", "a", &h, 1);
    mo_value_id w2 = constant(g, "w2", 2, N_HIDDEN, n_out, 0), b2 = constant(g, "b2", 1, n_out, 0, 0);
    mo_value_id y = node(g, "Gemm", "y", (mo_value_id[]){h, w2, b2}, 3);
    if (n_out > 1)
        y = node(g, "Softmax", "p", &y, 1);
    ck_assert(mo_graph_add_output(g, y));
    ck_assert_int_eq(mo_graph_index(ctx, g), MOPT_OK);
    return m;
}

/* ---- one run ---- */

static const struct trial *teacher;

static void put_weights(struct mopt_model *m, const struct trial *from)
{
    size_t at = 0;
    for (uint32_t i = 0; i < m->graph.n_values; i++) {
        const struct mo_value *v = &m->graph.values[i];
        size_t n = v->data ? (size_t)mo_value_elems(v) : 0;
        if (!n)
            continue;
        float *w = mo_mem_new(n, sizeof *w);
        memcpy(w, from->weights + at, n * sizeof *w);
        struct mo_shape shape = v->shape;
        mo_value_set_data(&m->graph, i, MO_F32, &shape, w);
        at += n;
    }
}

static enum mopt_status read_teacher(struct mopt_ctx *ctx, const char *path, struct mopt_model **model)
{
    (void)path;
    *model = make_trial_model(ctx, teacher->n_out ? teacher->n_out : N_CLASSES, !teacher->no_norm);
    put_weights(*model, teacher);
    if (*teacher->smoothing)
        ck_assert(mo_model_set_meta(*model, "mopt.label-smoothing", teacher->smoothing));
    return MOPT_OK;
}

static void on_event(void *user, const struct mopt_event *event)
{
    struct trial *t = user;
    t->n_warnings += event->kind == MOPT_EVENT_WARNING;
    bool counts = event->kind == MOPT_EVENT_PROGRESS && !strcmp(event->phase, t->pass ? t->pass : "train");
    if (counts && ++t->n_events == t->stop_after)
        mopt_stop(t->ctx);
}

static float element(const struct mo_value *v, size_t i)
{
    switch (v->dtype) {
    case MO_F32: return ((const float *)v->data)[i];
    case MO_I32: return (float)((const int32_t *)v->data)[i];
    case MO_I8: return ((const int8_t *)v->data)[i];
    case MO_U8: return ((const uint8_t *)v->data)[i];
    default: ck_abort_msg("constant '%s' is of type %d", v->name, (int)v->dtype);
    }
    return 0;
}

void keep_weights(struct trial *t, const struct mopt_model *m)
{
    for (uint32_t i = 0; i < m->graph.n_values; i++) {
        const struct mo_value *v = &m->graph.values[i];
        size_t n = v->data ? (size_t)mo_value_elems(v) : 0;
        ck_assert(t->n_weights + n <= MO_COUNT(t->weights));
        for (size_t k = 0; k < n; k++)
            t->weights[t->n_weights++] = element(v, k);
    }
}

void run_trial(struct trial *t)
{
    struct mopt_ctx *ctx = t->ctx = mopt_open("cpu", t->threads ? t->threads : 1);
    struct mo_io io = *ctx->io;
    io.open_source = open_source;
    io.write_file = write_file;
    io.read_file = read_trial_file;
    io.read_model = read_teacher;
    teacher = t->teacher;
    ctx->io = &io;
    mopt_on_event(ctx, on_event, t);
    struct mopt_model *m = make_trial_model(ctx, t->n_out ? t->n_out : N_CLASSES, !t->no_norm);
    if (t->start)
        put_weights(m, t->start);
    struct mopt_recipe *recipe;
    struct mopt_report *report = NULL;
    ck_assert_int_eq(mopt_recipe_new(ctx, &recipe), MOPT_OK);
    ck_assert_int_eq(mopt_recipe_add(ctx, recipe, t->pass ? t->pass : "train"), MOPT_OK);
    const char *const always[] = {"data",      "memory", "measure", "0", "evaluate", "false",
                                  "val-split", "0.1",    "batch",   "16"};
    for (size_t i = 0; i < MO_COUNT(always) - (t->trains_nothing ? 2 : 0); i += 2)
        ck_assert_int_eq(mopt_recipe_set(ctx, recipe, always[i], always[i + 1]), MOPT_OK);
    for (size_t i = 0; t->options[i]; i += 2)
        ck_assert_int_eq(mopt_recipe_set(ctx, recipe, t->options[i], t->options[i + 1]), MOPT_OK);
    t->status = mopt_apply(ctx, recipe, m, NULL, 0, &report);
    snprintf(t->error, sizeof t->error, "%s", mopt_error(ctx));
    if (!t->status) {
        t->n_weights = 0;
        keep_weights(t, m);
        if (!t->trains_nothing)
            ck_assert_str_eq(mo_model_meta(m, "mopt.trained"), "1");
        const char *smoothing = mo_model_meta(m, "mopt.label-smoothing");
        snprintf(t->smoothing, sizeof t->smoothing, "%s", smoothing ? smoothing : "");
    }
    t->loss_first = mopt_report_number(mopt_report_at(report, "training_result.loss_first"), NAN);
    t->loss_last = mopt_report_number(mopt_report_at(report, "training_result.loss_last"), NAN);
    t->accuracy = mopt_report_number(mopt_report_at(report, "metrics.accuracy"), NAN);
    t->rmse = mopt_report_number(mopt_report_at(report, "metrics.rmse"), NAN);
    t->lr = mopt_report_number(mopt_report_at(report, "training.lr"), NAN);
    t->loss_kept = mopt_report_number(mopt_report_at(report, "metrics.loss"), NAN);
    t->loss_of_file = mopt_report_number(mopt_report_at(report, "after.metrics.loss"), NAN);
    t->start_accuracy = mopt_report_number(mopt_report_at(report, "training_result.start.accuracy"), NAN);
    snprintf(t->kept, sizeof t->kept, "%s", mopt_report_text(mopt_report_at(report, "training_result.kept"), ""));
    mopt_report_free(report);
    mopt_recipe_free(recipe);
    mopt_model_free(m);
    mopt_close(ctx);
}

void expect_ok(struct trial *t)
{
    run_trial(t);
    ck_assert_msg(t->status == MOPT_OK, "%s", t->error);
}

void expect_same(const struct trial *a, const struct trial *b, const char *what, int which)
{
    ck_assert_uint_eq(a->n_weights, b->n_weights);
    for (size_t i = 0; i < a->n_weights; i++)
        ck_assert_msg(!memcmp(&a->weights[i], &b->weights[i], sizeof(float)), "%s %d: weight %zu is %.9g, not %.9g",
                      what, which, i, (double)b->weights[i], (double)a->weights[i]);
}

void reset_trial_disk(void)
{
    free(trial_disk.bytes);
    memset(&trial_disk, 0, sizeof trial_disk);
}

void check_resume(const char *pass, const struct trial *of, const char *const *options)
{
    struct trial whole = {.pass = pass, .teacher = of};
    memcpy(whole.options, options, sizeof whole.options);
    expect_ok(&whole);
    ck_assert_int_gt(whole.n_events, 5);
    for (int k = 1; k < whole.n_events; k++) {
        reset_trial_disk();
        struct trial cut = {.pass = pass, .teacher = of, .stop_after = k, .threads = 2};
        struct trial rest = {.pass = pass, .teacher = of};
        memcpy(cut.options, options, sizeof cut.options);
        memcpy(rest.options, options, sizeof rest.options);
        size_t n = 0;
        while (options[n])
            n++;
        cut.options[n] = "checkpoint";
        cut.options[n + 1] = rest.options[n + 1] = "run.ckpt";
        rest.options[n] = "resume";
        run_trial(&cut);
        ck_assert_msg(cut.status == MOPT_INTERRUPTED, "stop at %d: %s", k, cut.error);
        expect_ok(&rest);
        expect_same(&whole, &rest, "stopped at event", k);
        ck_assert(whole.loss_last == rest.loss_last && whole.accuracy == rest.accuracy);
    }
    reset_trial_disk();
}
