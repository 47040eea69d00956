/* Training on generated data through the public interface: it learns; stopping at any step and going on gives the
 * same bits; so do 1, 2 and 3 threads; what goes wrong is said and nothing good is lost. Files live in memory. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/dataset.h"
#include "lib/graph/graph.h"
#include "lib/passes/checkpoint.h"
#include "lib/passes/train.h"

enum { N_SAMPLES = 80, N_FEATURES = 6, N_CLASSES = 3, N_HIDDEN = 10 };

/* ---- data: three clusters, or the sum of squares ---- */

static struct {
    float x[N_SAMPLES][N_FEATURES], value[N_SAMPLES];
    int64_t label[N_SAMPLES];
    enum mo_target_kind target;
    int n_classes;
} data;

static void make_data(void)
{
    struct mo_rng rng = mo_rng_new(5, MO_RNG_TEST, 0);
    memset(&data, 0, sizeof data);
    data.target = MO_TARGET_CLASS;
    data.n_classes = N_CLASSES;
    for (int i = 0; i < N_SAMPLES; i++) {
        data.label[i] = i % N_CLASSES;
        for (int k = 0; k < N_FEATURES; k++) {
            data.x[i][k] = mo_rng_normal(&rng) + (k == data.label[i] ? 3.0f : 0.0f);
            data.value[i] += data.x[i][k] * (float)k;
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
    *sample = (struct mo_sample){.data = {data.x[index]}, .label = data.label[index], .targets = &data.value[index]};
    return MOPT_OK;
}

static int64_t read_label(struct mo_source *s, size_t index)
{
    (void)s;
    return data.label[index];
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
                            .n_inputs = 1, .target = data.target, .n_classes = data.n_classes, .n_targets = 1,
                            .is_cheap = true, .read = read_sample, .close = close_source};
    s->label = data.target == MO_TARGET_CLASS ? read_label : NULL;
    s->shape[0] = mo_shape_of(1, (int64_t)N_FEATURES);
    s->dtype[0] = MO_F32;
    *source = s;
    return MOPT_OK;
}

/* ---- a file system of one checkpoint ---- */

static struct { char *bytes; size_t n; int n_writes; } disk;

static enum mopt_status write_file(struct mopt_ctx *ctx, const char *path, const void *bytes, size_t n, bool overwrite)
{
    (void)ctx;
    (void)path;
    (void)overwrite;
    free(disk.bytes);
    disk.bytes = malloc(n);
    memcpy(disk.bytes, bytes, n);
    disk.n = n;
    disk.n_writes++;
    return MOPT_OK;
}

static enum mopt_status read_file(struct mopt_ctx *ctx, const char *path, char **bytes, size_t *n)
{
    if (!disk.bytes)
        return mo_fail(ctx, MOPT_DATA, "'%s' is not there", path);
    *bytes = mo_mem_new(disk.n + 1, 1);
    memcpy(*bytes, disk.bytes, disk.n);
    *n = disk.n;
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

static struct mopt_model *make_model(struct mopt_ctx *ctx, int n_out, bool has_norm)
{
    struct mopt_model *m = mo_model_new();
    struct mo_graph *g = &m->graph;
    ck_assert(mo_model_set_opset(m, "", 13));
    struct mo_shape in = mo_shape_of(2, (int64_t)MO_UNKNOWN, (int64_t)N_FEATURES);
    mo_value_id x = mo_graph_add_value(g, "x", MO_F32, &in);
    ck_assert(mo_graph_add_input(g, x));
    mo_value_id h = node(g, "Gemm", "h",
                         (mo_value_id[]){x, constant(g, "w1", 2, N_FEATURES, N_HIDDEN, 0), constant(g, "b1", 1, N_HIDDEN, 0, 0)},
                         3);
    if (has_norm)
        h = node(g, "BatchNormalization", "n",
                 (mo_value_id[]){h, constant(g, "scale", 1, N_HIDDEN, 0, 1), constant(g, "shift", 1, N_HIDDEN, 0, 0),
                                 constant(g, "mean", 1, N_HIDDEN, 0, 0), constant(g, "var", 1, N_HIDDEN, 0, 1)}, 5);
    h = node(g, "Relu", "a", &h, 1);
    mo_value_id y = node(g, "Gemm", "y",
                         (mo_value_id[]){h, constant(g, "w2", 2, N_HIDDEN, n_out, 0), constant(g, "b2", 1, n_out, 0, 0)}, 3);
    if (n_out > 1)
        y = node(g, "Softmax", "p", &y, 1);
    ck_assert(mo_graph_add_output(g, y));
    ck_assert_int_eq(mo_graph_index(ctx, g), MOPT_OK);
    return m;
}

/* ---- one run ---- */

struct trial {
    int threads;
    const char *options[24];        /* key, value, ... */
    int stop_after;                 /* progress events of training; 0: never */
    int n_out;
    bool no_norm;
    /* results */
    enum mopt_status status;
    char error[512];
    float weights[512];
    size_t n_weights;
    double loss_first, loss_last, accuracy, rmse;
    int n_events;
    struct mopt_ctx *ctx;
};

static void on_event(void *user, const struct mopt_event *event)
{
    struct trial *t = user;
    if (event->kind == MOPT_EVENT_PROGRESS && !strcmp(event->phase, "train") && ++t->n_events == t->stop_after)
        mopt_stop(t->ctx);
}

static void keep_weights(struct trial *t, const struct mopt_model *m)
{
    for (uint32_t i = 0; i < m->graph.n_values; i++) {
        const struct mo_value *v = &m->graph.values[i];
        size_t n = v->data ? (size_t)mo_value_elems(v) : 0;
        ck_assert(t->n_weights + n <= MO_COUNT(t->weights));
        if (n)
            memcpy(t->weights + t->n_weights, v->data, n * sizeof(float));
        t->n_weights += n;
    }
}

static void run_trial(struct trial *t)
{
    struct mopt_ctx *ctx = t->ctx = mopt_open("cpu", t->threads ? t->threads : 1);
    struct mo_io io = *ctx->io;
    io.open_source = open_source;
    io.write_file = write_file;
    io.read_file = read_file;
    ctx->io = &io;
    mopt_on_event(ctx, on_event, t);
    struct mopt_model *m = make_model(ctx, t->n_out ? t->n_out : N_CLASSES, !t->no_norm);
    struct mopt_recipe *recipe;
    struct mopt_report *report = NULL;
    ck_assert_int_eq(mopt_recipe_new(ctx, &recipe), MOPT_OK);
    ck_assert_int_eq(mopt_recipe_add(ctx, recipe, "train"), MOPT_OK);
    const char *const always[] = {"data", "memory", "measure", "0", "evaluate", "false", "batch", "16", "val-split", "0.1"};
    for (size_t i = 0; i < MO_COUNT(always); i += 2)
        ck_assert_int_eq(mopt_recipe_set(ctx, recipe, always[i], always[i + 1]), MOPT_OK);
    for (size_t i = 0; t->options[i]; i += 2)
        ck_assert_int_eq(mopt_recipe_set(ctx, recipe, t->options[i], t->options[i + 1]), MOPT_OK);
    t->status = mopt_apply(ctx, recipe, m, NULL, 0, &report);
    snprintf(t->error, sizeof t->error, "%s", mopt_error(ctx));
    if (!t->status) {
        t->n_weights = 0;
        keep_weights(t, m);
        ck_assert_str_eq(mo_model_meta(m, "mopt.trained"), "1");
    }
    t->loss_first = mopt_report_number(mopt_report_at(report, "training_result.loss_first"), NAN);
    t->loss_last = mopt_report_number(mopt_report_at(report, "training_result.loss_last"), NAN);
    t->accuracy = mopt_report_number(mopt_report_at(report, "metrics.accuracy"), NAN);
    t->rmse = mopt_report_number(mopt_report_at(report, "metrics.rmse"), NAN);
    mopt_report_free(report);
    mopt_recipe_free(recipe);
    mopt_model_free(m);
    mopt_close(ctx);
}

static void expect_ok(struct trial *t)
{
    run_trial(t);
    ck_assert_msg(t->status == MOPT_OK, "%s", t->error);
}

static void expect_same(const struct trial *a, const struct trial *b, const char *what, int which)
{
    ck_assert_uint_eq(a->n_weights, b->n_weights);
    for (size_t i = 0; i < a->n_weights; i++)
        ck_assert_msg(!memcmp(&a->weights[i], &b->weights[i], sizeof(float)), "%s %d: weight %zu is %.9g, not %.9g", what,
                      which, i, (double)b->weights[i], (double)a->weights[i]);
}

static void reset_disk(void)
{
    free(disk.bytes);
    memset(&disk, 0, sizeof disk);
}

/* ---- tests ---- */

START_TEST(every_optimizer_learns)
{
    const char *const names[] = {"gd", "sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"};
    for (size_t i = 0; i < MO_COUNT(names); i++) {
        bool is_gd = i == 0;
        struct trial t = {.options = {"optimizer", names[i], "epochs", is_gd ? "60" : "15", "init", "fresh", "lr",
                                      i < 2 ? "0.3" : i < 4 ? "0.05" : "0.01"}};
        expect_ok(&t);
        ck_assert_msg(t.loss_last < 0.6 * t.loss_first, "%s: loss %g to %g", names[i], t.loss_first, t.loss_last);
        ck_assert_msg(t.accuracy > 0.7, "%s: accuracy %g", names[i], t.accuracy);
    }
}
END_TEST

START_TEST(every_schedule_learns)
{
    const char *const names[] = {"constant", "step", "cosine", "one-cycle", "plateau", "linear"};
    for (size_t i = 0; i < MO_COUNT(names); i++) {
        struct trial t = {.options = {"schedule", names[i], "epochs", "8", "init", "fresh", "step-epochs", "3"}};
        expect_ok(&t);
        ck_assert_msg(t.loss_last < 0.7 * t.loss_first, "%s: loss %g to %g", names[i], t.loss_first, t.loss_last);
    }
}
END_TEST

START_TEST(values_are_learned)
{
    data.target = MO_TARGET_VALUES;
    const char *const losses[] = {"auto", "l1", "huber"};
    for (size_t i = 0; i < MO_COUNT(losses); i++) {
        struct trial t = {.n_out = 1, .options = {"loss", losses[i], "optimizer", "adam", "lr", "0.02", "epochs", "40",
                                                  "init", "fresh"}};
        expect_ok(&t);
        ck_assert_msg(t.loss_last < 0.5 * t.loss_first, "%s: loss %g to %g", losses[i], t.loss_first, t.loss_last);
        ck_assert(isfinite(t.rmse));
    }
}
END_TEST

START_TEST(one_logit_takes_two_classes)
{
    for (int i = 0; i < N_SAMPLES; i++)
        data.label[i] = data.label[i] > 0;
    data.n_classes = 2;
    struct trial t = {.n_out = 1, .options = {"epochs", "15", "init", "fresh"}};
    expect_ok(&t);
    ck_assert_msg(t.loss_last < 0.6 * t.loss_first, "loss %g to %g", t.loss_first, t.loss_last);
    ck_assert(t.accuracy > 0.7);
}
END_TEST

/* Stopped after each step in turn and resumed: the weights of the run that was never stopped. */
static void check_resume(const char *const *options)
{
    struct trial whole = {0};
    memcpy(whole.options, options, sizeof whole.options);
    expect_ok(&whole);
    ck_assert_int_gt(whole.n_events, 5);
    for (int k = 1; k < whole.n_events; k++) {
        reset_disk();
        struct trial cut = {.stop_after = k, .threads = 2}, rest = {0};
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
    reset_disk();
}

START_TEST(going_on_gives_the_same_bits)
{
    check_resume((const char *[24]){"epochs", "2.5", "init", "fresh"});
    check_resume((const char *[24]){"epochs", "2.5", "optimizer", "adamw", "ema", "0.9", "clip", "1", "accumulate", "2"});
    check_resume((const char *[24]){"epochs", "8", "schedule", "plateau", "step-epochs", "1", "keep", "last", "patience",
                                    "3", "batch", "40"});
    check_resume((const char *[24]){"epochs", "6", "optimizer", "gd", "lr", "0.3"});
}
END_TEST

START_TEST(threads_do_not_matter)
{
    struct trial one = {.threads = 1, .options = {"epochs", "3", "init", "fresh"}};
    expect_ok(&one);
    for (int threads = 2; threads <= 3; threads++) {
        struct trial more = {.threads = threads, .options = {"epochs", "3", "init", "fresh"}};
        expect_ok(&more);
        expect_same(&one, &more, "threads", threads);
    }
}
END_TEST

/* The gradient of the mean over all samples, whichever way they are cut. */
START_TEST(accumulated_steps_are_steps_of_large_batches)
{
    struct trial large = {.no_norm = true, .options = {"epochs", "2", "batch", "32", "lr", "0.1", "keep", "last"}};
    struct trial small = {.no_norm = true,
                          .options = {"epochs", "2", "batch", "8", "accumulate", "4", "lr", "0.1", "keep", "last"}};
    expect_ok(&large);
    expect_ok(&small);
    struct trial full = {.no_norm = true, .options = {"epochs", "3", "batch", "80", "optimizer", "sgd", "keep", "last"}};
    struct trial gd = {.no_norm = true, .options = {"epochs", "3", "batch", "11", "optimizer", "gd", "keep", "last"}};
    expect_ok(&full);
    expect_ok(&gd);
    for (size_t i = 0; i < large.n_weights; i++) {
        ck_assert_msg(fabsf(large.weights[i] - small.weights[i]) < 1e-5f, "weight %zu: %g, %g", i, (double)large.weights[i],
                      (double)small.weights[i]);
        ck_assert_msg(fabsf(full.weights[i] - gd.weights[i]) < 1e-5f, "weight %zu: %g, %g", i, (double)full.weights[i],
                      (double)gd.weights[i]);
    }
}
END_TEST

START_TEST(frozen_parameters_stay)
{
    struct trial t = {.no_norm = true, .options = {"epochs", "2", "freeze", "w1", "freeze", "b?"}};
    expect_ok(&t);
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    struct mopt_model *m = make_model(ctx, N_CLASSES, false);
    struct trial was = {0};
    keep_weights(&was, m);
    ck_assert(!memcmp(t.weights, was.weights, (N_FEATURES + 1) * N_HIDDEN * sizeof(float)));
    size_t w2 = (N_FEATURES + 1) * N_HIDDEN, b2 = w2 + N_HIDDEN * N_CLASSES;
    ck_assert(memcmp(t.weights + w2, was.weights + w2, (b2 - w2) * sizeof(float)));
    ck_assert(!memcmp(t.weights + b2, was.weights + b2, N_CLASSES * sizeof(float)));
    mopt_model_free(m);
    mopt_close(ctx);
    struct trial none = {.options = {"freeze", "nothing*"}};
    run_trial(&none);
    ck_assert_int_eq(none.status, MOPT_USAGE);
    struct trial all = {.options = {"freeze", "*"}};
    run_trial(&all);
    ck_assert_int_eq(all.status, MOPT_UNSUPPORTED);
}
END_TEST

START_TEST(a_broken_loss_stops_and_keeps_the_checkpoint)
{
    reset_disk();
    struct trial t = {.no_norm = true, .options = {"epochs", "9", "lr", "3000", "optimizer", "sgd", "schedule", "constant",
                                                   "checkpoint", "run.ckpt", "checkpoint-every", "0"}};
    run_trial(&t);
    ck_assert_msg(t.status == MOPT_FAILED, "%d: %s", t.status, t.error);
    ck_assert_msg(strstr(t.error, "step") && strstr(t.error, "run.ckpt"), "%s", t.error);
    ck_assert_int_gt(disk.n_writes, 0);
    struct mopt_ctx ctx = {.n_threads = 1};
    struct mo_io io = {.read_file = read_file};
    ctx.io = &io;
    struct mo_checkpoint *c;
    ck_assert_int_eq(mo_checkpoint_read(&ctx, "run.ckpt", &c), MOPT_OK);
    uint64_t n;
    const float *w = mo_checkpoint_part(c, "weights", &n);
    ck_assert_ptr_nonnull(w);
    for (uint64_t i = 0; i < n / sizeof *w; i++)
        ck_assert(isfinite(w[i]));
    mo_checkpoint_free(c);
    reset_disk();
}
END_TEST

START_TEST(labels_without_a_class_are_refused)
{
    data.n_classes = 5;
    struct trial many = {.options = {"epochs", "1"}};
    run_trial(&many);
    ck_assert_int_eq(many.status, MOPT_DATA);
    data.n_classes = N_CLASSES;
    data.label[17] = 7;
    struct trial one = {.options = {"epochs", "1", "val-split", "0"}};
    run_trial(&one);
    ck_assert_int_eq(one.status, MOPT_DATA);
    ck_assert_msg(strstr(one.error, "17") && strstr(one.error, "7"), "%s", one.error);
}
END_TEST

START_TEST(a_checkpoint_of_something_else_is_refused)
{
    reset_disk();
    struct trial first = {.options = {"epochs", "2", "checkpoint", "run.ckpt"}};
    expect_ok(&first);
    struct trial other = {.options = {"epochs", "3", "resume", "run.ckpt"}};
    run_trial(&other);
    ck_assert_int_eq(other.status, MOPT_USAGE);
    ck_assert_msg(strstr(other.error, "epochs=2") && strstr(other.error, "epochs=3"), "%s", other.error);
    struct trial model = {.no_norm = true, .options = {"epochs", "2", "resume", "run.ckpt"}};
    run_trial(&model);
    ck_assert_msg(model.status == MOPT_DATA, "%s", model.error);
    struct trial again = {.options = {"epochs", "2", "resume", "run.ckpt"}};
    expect_ok(&again);
    expect_same(&first, &again, "resumed at the end", 0);
    reset_disk();
    struct trial absent = {.options = {"epochs", "2", "resume", "run.ckpt"}};
    run_trial(&absent);
    ck_assert_int_eq(absent.status, MOPT_DATA);
}
END_TEST

Suite *suite_train(void);
Suite *suite_train(void)
{
    Suite *s = suite_create("train");
    TCase *c = tcase_create("train");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, make_data, NULL);
    tcase_add_test(c, every_optimizer_learns);
    tcase_add_test(c, every_schedule_learns);
    tcase_add_test(c, values_are_learned);
    tcase_add_test(c, one_logit_takes_two_classes);
    tcase_add_test(c, going_on_gives_the_same_bits);
    tcase_add_test(c, threads_do_not_matter);
    tcase_add_test(c, accumulated_steps_are_steps_of_large_batches);
    tcase_add_test(c, frozen_parameters_stay);
    tcase_add_test(c, a_broken_loss_stops_and_keeps_the_checkpoint);
    tcase_add_test(c, labels_without_a_class_are_refused);
    tcase_add_test(c, a_checkpoint_of_something_else_is_refused);
    suite_add_tcase(s, c);
    return s;
}
