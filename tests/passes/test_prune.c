/* prune: exact counts, scopes, patterns, masks that hold through training, channels that leave, and what is refused. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/passes/prune.h"

static struct mopt_ctx *ctx;
static struct mopt_model *model;
static struct mopt_report *report;

static void setup(void)
{
    ctx = mopt_open("cpu", 1);
    ck_assert_ptr_nonnull(ctx);
    model = NULL;
    report = NULL;
}

static void teardown(void)
{
    mopt_report_free(report);
    mopt_model_free(model);
    mopt_close(ctx);
}

#define OK(call) ck_assert_msg(!(call), "%s", mopt_error(ctx))

/* ---- masks on bare numbers --------------------------------------------------------- */

enum { N_A = 1000, N_B = 333, N_ALL = N_A + N_B };

static struct mo_prune_layer two_layers[2] = { { .value = 0, .first = 0, .n = N_A, .axis_in = 1 },
                                               { .value = 1, .first = N_A, .n = N_B, .axis_in = 0 } };

static void fill(float *w)
{
    struct mo_rng rng = mo_rng_new(3, MO_RNG_TEST, 0);
    for (int i = 0; i < N_ALL; i++)
        w[i] = mo_rng_normal(&rng) * (i < N_A ? 1.0f : 0.1f);
    w[17] = w[18] = w[19] = 0.25f;
}

static size_t zeros(const uint8_t *keep, size_t first, size_t n)
{
    size_t z = 0;
    for (size_t i = first; i < first + n; i++)
        z += !keep[i];
    return z;
}

static struct mo_prune_rule rule_of(enum mo_prune_score score, enum mo_prune_scope scope)
{
    return (struct mo_prune_rule){ .score = score, .scope = scope, .max_layer = 1, .seed = 4 };
}

static void mask(struct mo_prune_rule rule, const float *w, size_t n_drop, uint8_t *keep)
{
    OK(mo_prune_mask(ctx, NULL, two_layers, 2, &rule, w, N_ALL, n_drop, keep));
}

START_TEST(global_counts_are_exact)
{
    float w[N_ALL];
    uint8_t keep[N_ALL];
    fill(w);
    for (size_t n_drop = 0; n_drop <= N_ALL; n_drop += 31) {
        mask(rule_of(MO_SCORE_L1, MO_SCOPE_GLOBAL), w, n_drop, keep);
        ck_assert_uint_eq(zeros(keep, 0, N_ALL), n_drop);
        float largest_gone = 0, smallest_kept = INFINITY;
        for (int i = 0; i < N_ALL; i++) {
            if (keep[i])
                smallest_kept = fminf(smallest_kept, fabsf(w[i]));
            else
                largest_gone = fmaxf(largest_gone, fabsf(w[i]));
        }
        ck_assert_float_le(largest_gone, smallest_kept);
    }
}
END_TEST

START_TEST(ties_go_by_position)
{
    float w[N_ALL];
    uint8_t keep[N_ALL];
    for (int i = 0; i < N_ALL; i++)
        w[i] = i % 2 ? 1.0f : -1.0f;
    mask(rule_of(MO_SCORE_L1, MO_SCOPE_GLOBAL), w, 100, keep);
    ck_assert_uint_eq(zeros(keep, 0, 100), 100);
    ck_assert_uint_eq(zeros(keep, 0, N_ALL), 100);
}
END_TEST

START_TEST(layers_take_equal_shares)
{
    float w[N_ALL];
    uint8_t keep[N_ALL];
    fill(w);
    mask(rule_of(MO_SCORE_L1, MO_SCOPE_LAYER), w, (size_t)llround(0.3 * N_ALL), keep);
    ck_assert_uint_eq(zeros(keep, 0, N_A), 300);
    ck_assert_uint_eq(zeros(keep, N_A, N_B), 100);
    mask(rule_of(MO_SCORE_L1, MO_SCOPE_GLOBAL), w, (size_t)llround(0.3 * N_ALL), keep);
    ck_assert_uint_gt(zeros(keep, N_A, N_B), 250);      /* ten times smaller weights */
}
END_TEST

START_TEST(no_layer_goes_beyond_its_cap)
{
    float w[N_ALL];
    uint8_t keep[N_ALL];
    struct mo_prune_rule rule = rule_of(MO_SCORE_L1, MO_SCOPE_GLOBAL);
    fill(w);
    rule.max_layer = 0.5;
    mask(rule, w, 400, keep);
    ck_assert_uint_eq(zeros(keep, N_A, N_B), N_B / 2);
    ck_assert_uint_eq(zeros(keep, 0, N_ALL), 400);
}
END_TEST

/* LAMP's formula, by brute force: the share of a weight's square among all that are not smaller. */
START_TEST(lamp_follows_its_formula)
{
    float w[N_ALL], score[N_ALL];
    uint8_t keep[N_ALL];
    fill(w);
    for (int i = 0; i < N_ALL; i++) {
        int first = i < N_A ? 0 : N_A, end = i < N_A ? N_A : N_ALL;
        double sum = 0;
        for (int j = first; j < end; j++)
            if (fabsf(w[j]) > fabsf(w[i]) || (fabsf(w[j]) == fabsf(w[i]) && j <= i))
                sum += (double)w[j] * w[j];
        score[i] = (float)((double)w[i] * w[i] / sum);
    }
    mask(rule_of(MO_SCORE_LAMP, MO_SCOPE_GLOBAL), w, 700, keep);
    ck_assert_uint_eq(zeros(keep, 0, N_ALL), 700);
    float largest_gone = 0, smallest_kept = INFINITY;
    for (int i = 0; i < N_ALL; i++) {
        if (keep[i])
            smallest_kept = fminf(smallest_kept, score[i]);
        else
            largest_gone = fmaxf(largest_gone, score[i]);
    }
    ck_assert_float_le(largest_gone, smallest_kept * 1.0001f);
    /* The scale of a layer does not matter. */
    size_t before = zeros(keep, N_A, N_B);
    for (int i = N_A; i < N_ALL; i++)
        w[i] *= 64;
    mask(rule_of(MO_SCORE_LAMP, MO_SCOPE_GLOBAL), w, 700, keep);
    ck_assert_uint_eq(zeros(keep, N_A, N_B), before);
}
END_TEST

START_TEST(random_follows_the_seed)
{
    float w[N_ALL];
    uint8_t a[N_ALL], b[N_ALL];
    struct mo_prune_rule rule = rule_of(MO_SCORE_RANDOM, MO_SCOPE_GLOBAL);
    fill(w);
    mask(rule, w, 500, a);
    mask(rule, w, 500, b);
    ck_assert_mem_eq(a, b, N_ALL);
    rule.seed++;
    mask(rule, w, 500, b);
    ck_assert_uint_eq(zeros(b, 0, N_ALL), 500);
    ck_assert_mem_ne(a, b, N_ALL);
}
END_TEST

/* ---- models ------------------------------------------------------------------------------- */

static mo_value_id constant(const char *name, struct mo_shape s)
{
    size_t n = (size_t)mo_shape_elems(&s);
    float *x = mo_mem_new(n, sizeof(*x));
    struct mo_rng rng = mo_rng_new(5, MO_RNG_TEST, mo_hash64(name, strlen(name), 0) & 0xffff);
    for (size_t i = 0; i < n; i++)
        x[i] = mo_rng_normal(&rng) * 0.2f + 0.001f;
    mo_value_id v = mo_graph_add_const(&model->graph, name, MO_F32, &s, x);
    mo_mem_free(x);
    return v;
}

static mo_value_id node(const char *type, const char *name, const mo_value_id *in, uint32_t n_in)
{
    struct mo_shape unknown = { .rank = MO_UNKNOWN };
    mo_value_id out = mo_graph_add_value(&model->graph, name, MO_F32, &unknown);
    ck_assert_uint_ne(mo_graph_add_node(&model->graph, type, NULL, name, in, n_in, &out, 1), MO_NONE);
    return out;
}

static mo_value_id linear(const char *name, mo_value_id x, int n_in, int n_out)
{
    char w[32], b[32];
    snprintf(w, sizeof(w), "%s.w", name);
    snprintf(b, sizeof(b), "%s.b", name);
    mo_value_id in[3] = { x, constant(w, mo_shape_of(2, (int64_t)n_out, (int64_t)n_in)),
                          constant(b, mo_shape_of(1, (int64_t)n_out)) };
    mo_value_id y = node("Gemm", name, in, 3);
    ck_assert(mo_node_set_int(&model->graph, model->graph.n_nodes - 1, "transB", 1));
    return y;
}

/* N x 1 x 6 x 6 -> Flatten -> 36-24-16-3 */
static void make_mlp(void)
{
    model = mo_model_new();
    ck_assert_ptr_nonnull(model);
    ck_assert(mo_model_set_opset(model, "", 17));
    struct mo_graph *g = &model->graph;
    struct mo_shape s = mo_shape_of(4, (int64_t)MO_UNKNOWN, (int64_t)1, (int64_t)6, (int64_t)6);
    mo_value_id x = mo_graph_add_value(g, "x", MO_F32, &s);
    ck_assert(mo_graph_add_input(g, x));
    x = node("Flatten", "flat", &x, 1);
    x = linear("fc1", x, 36, 24);
    x = node("Relu", "r1", &x, 1);
    x = linear("fc2", x, 24, 16);
    x = node("Relu", "r2", &x, 1);
    x = linear("fc3", x, 16, 3);
    ck_assert(mo_graph_add_output(g, x));
    OK(mo_graph_index(ctx, g));
    OK(mo_infer(ctx, g, NULL, 0));
}

static enum mopt_status prune(const char *const *options)
{
    struct mopt_recipe *recipe = NULL;
    OK(mopt_recipe_new(ctx, &recipe));
    enum mopt_status status = mopt_recipe_set(ctx, recipe, "measure", "0");
    if (!status)
        status = mopt_recipe_add(ctx, recipe, "prune");
    for (; !status && *options; options += 2)
        status = mopt_recipe_set(ctx, recipe, options[0], options[1]);
    mopt_report_free(report);
    report = NULL;
    if (!status)
        status = mopt_apply(ctx, recipe, model, NULL, 0, &report);
    mopt_recipe_free(recipe);
    return status;
}
#define PRUNE(...) prune((const char *const[]){ __VA_ARGS__, NULL })

static int64_t zeros_of(const char *name)
{
    const struct mo_value *v = &model->graph.values[mo_graph_find(&model->graph, name)];
    int64_t n = 0;
    for (int64_t i = 0; i < mo_value_elems(v); i++)
        n += ((const float *)v->data)[i] == 0;
    return n;
}

static int64_t dim_of(const char *name, int axis)
{
    return model->graph.values[mo_graph_find(&model->graph, name)].shape.dim[axis];
}

enum { W1 = 36 * 24, W2 = 24 * 16, W3 = 16 * 3, W_ALL = W1 + W2 + W3 };

static int64_t all_zeros(void)
{
    return zeros_of("fc1.w") + zeros_of("fc2.w") + zeros_of("fc3.w");
}

START_TEST(amount_as_share_percent_count)
{
    static const struct { const char *text; int64_t zeros; } cases[] = {
        { "0.5", W_ALL / 2 }, { "50%", W_ALL / 2 }, { "1000", 1000 }, { "0", 0 },
    };
    for (size_t i = 0; i < MO_COUNT(cases); i++) {
        make_mlp();
        OK(PRUNE("amount", cases[i].text));
        ck_assert_int_eq(all_zeros(), cases[i].zeros);
        ck_assert_int_eq(zeros_of("fc1.b") + zeros_of("fc2.b") + zeros_of("fc3.b"), 0);
        ck_assert_int_eq(mopt_report_int(mopt_report_at(report, "prune.zeros"), -1), cases[i].zeros);
        mopt_model_free(model);
        model = NULL;
    }
}
END_TEST

START_TEST(scope_and_selection)
{
    make_mlp();
    OK(PRUNE("amount", "0.25", "scope", "layer"));
    ck_assert_int_eq(zeros_of("fc1.w"), W1 / 4);
    ck_assert_int_eq(zeros_of("fc2.w"), W2 / 4);
    ck_assert_int_eq(zeros_of("fc3.w"), W3 / 4);
    OK(PRUNE("amount", "0.5", "only", "fc2"));
    ck_assert_int_eq(zeros_of("fc2.w"), W2 / 2);
    ck_assert_int_eq(zeros_of("fc1.w"), W1 / 4);
    OK(PRUNE("amount", "0.5", "skip", "fc2*", "keep-first", "true"));
    ck_assert_int_eq(zeros_of("fc2.w"), W2 / 2);
    ck_assert_int_eq(zeros_of("fc1.w"), W1 / 4);
    ck_assert_int_eq(zeros_of("fc3.w"), W3 / 2);
}
END_TEST

START_TEST(target_of_parameters)
{
    make_mlp();
    OK(PRUNE("target", "params=0.5x"));
    int64_t n_all = W_ALL + 24 + 16 + 3;
    ck_assert_int_le(llabs(n_all - all_zeros() - n_all / 2), 1);
    ck_assert_int_eq(PRUNE("target", "macs=0.5x"), MOPT_USAGE);
    ck_assert_ptr_nonnull(strstr(mopt_error(ctx), "--structured"));
}
END_TEST

START_TEST(pattern_two_of_four)
{
    make_mlp();
    OK(PRUNE("pattern", "2:4"));
    ck_assert_int_eq(all_zeros(), W_ALL / 2);
    const struct mo_value *v = &model->graph.values[mo_graph_find(&model->graph, "fc2.w")];
    const float *w = v->data;
    for (int i = 0; i < W2; i += 4)
        ck_assert_int_eq((w[i] == 0) + (w[i + 1] == 0) + (w[i + 2] == 0) + (w[i + 3] == 0), 2);
}
END_TEST

START_TEST(channels_leave_the_file)
{
    make_mlp();
    OK(PRUNE("structured", "true", "amount", "0.5", "scope", "layer", "round", "1"));
    ck_assert_int_eq(dim_of("fc1.w", 0), 12);
    ck_assert_int_eq(dim_of("fc2.w", 0), 8);
    ck_assert_int_eq(dim_of("fc2.w", 1), 12);
    ck_assert_int_eq(dim_of("fc2.b", 0), 8);
    ck_assert_int_eq(dim_of("fc3.w", 0), 3);
    ck_assert_int_eq(mopt_report_int(mopt_report_at(report, "after.parameters"), -1), 36 * 12 + 12 + 12 * 8 + 8 + 8 * 3 + 3);
    OK(mo_graph_check(ctx, &model->graph));
}
END_TEST

START_TEST(channels_meet_a_target)
{
    static const char *const targets[] = { "macs=0.5x", "params=0.3x", "params=500", "size=3KB" };
    for (size_t i = 0; i < MO_COUNT(targets); i++) {
        make_mlp();
        OK(PRUNE("structured", "true", "target", targets[i], "round", "1"));
        double macs = mopt_report_number(mopt_report_at(report, "after.macs"), NAN);
        double params = mopt_report_number(mopt_report_at(report, "after.parameters"), NAN);
        double bytes = mopt_report_number(mopt_report_at(report, "after.bytes"), NAN);
        double macs_before = mopt_report_number(mopt_report_at(report, "before.macs"), NAN);
        double params_before = mopt_report_number(mopt_report_at(report, "before.parameters"), NAN);
        if (i == 0)
            ck_assert(macs <= 0.5 * macs_before && macs > 0.4 * macs_before);
        else if (i == 1)
            ck_assert(params <= 0.3 * params_before && params > 0.2 * params_before);
        else if (i == 2)
            ck_assert(params <= 500 && params > 400);
        else
            ck_assert_msg(bytes <= 3000 && bytes > 2500, "%g bytes", bytes);
        mopt_model_free(model);
        model = NULL;
    }
}
END_TEST

START_TEST(dry_run_changes_nothing_and_predicts)
{
    make_mlp();
    OK(PRUNE("structured", "true", "target", "params=0.5x", "dry-run", "true"));
    ck_assert_int_eq(dim_of("fc1.w", 0), 24);
    int64_t predicted = mopt_report_int(mopt_report_at(report, "predicted.parameters"), -1);
    OK(PRUNE("structured", "true", "target", "params=0.5x"));
    ck_assert_int_eq(mopt_report_int(mopt_report_at(report, "after.parameters"), -2), predicted);
}
END_TEST

START_TEST(what_is_refused)
{
    static const struct { const char *const options[7]; enum mopt_status status; const char *words; } cases[] = {
        { { "amount", "1" }, MOPT_USAGE, "ambiguous" },
        { { "score", "l1" }, MOPT_USAGE, "say how much" },
        { { "amount", "0.5", "target", "params=0.5x" }, MOPT_USAGE, "exclude each other" },
        { { "target", "flops=0.5x" }, MOPT_USAGE, "params=0.5x" },
        { { "target", "params=1.5x" }, MOPT_USAGE, "params=0.5x" },
        { { "pattern", "4:2" }, MOPT_USAGE, "2:4" },
        { { "amount", "5000" }, MOPT_USAGE, "more than the 1296 weights" },
        { { "amount", "0.5", "score", "taylor" }, MOPT_USAGE, "--structured" },
        { { "amount", "0.5", "structured", "true", "score", "taylor" }, MOPT_USAGE, "needs data" },
        { { "amount", "0.5", "structured", "true", "score", "lamp" }, MOPT_USAGE, "l2 or taylor" },
        { { "amount", "0.5", "ramp", "cubic" }, MOPT_USAGE, "needs --data" },
        { { "amount", "0.5", "structured", "true", "ramp", "cubic" }, MOPT_USAGE, "--structured" },
        { { "pattern", "2:4", "scope", "layer" }, MOPT_USAGE, "--pattern" },
        { { "structured", "true", "target", "params=10" }, MOPT_FAILED, "cannot be reached" },
        { { "target", "params=10" }, MOPT_FAILED, "cannot be reached" },
        { { "amount", "0.5", "only", "nothing*" }, MOPT_USAGE, "matches no layer" },
    };
    for (size_t i = 0; i < MO_COUNT(cases); i++) {
        make_mlp();
        mopt_clear(ctx);
        ck_assert_msg(prune(cases[i].options) == cases[i].status, "case %zu: %s", i, mopt_error(ctx));
        ck_assert_msg(strstr(mopt_error(ctx), cases[i].words) != NULL, "case %zu: %s", i, mopt_error(ctx));
        mopt_model_free(model);
        model = NULL;
    }
}
END_TEST

/* ---- with data --------------------------------------------------------------------------------- */

static char folder[64];

static void put_u32(FILE *f, uint32_t x)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        fputc((int)(x >> shift & 255), f);
}

/* 300 pictures of 6 x 6 in three classes: which third is bright. */
static void make_data(void)
{
    char path[128];
    strcpy(folder, "/tmp/mopt-prune-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/train-images-idx3-ubyte", folder);
    FILE *x = fopen(path, "wb");
    snprintf(path, sizeof(path), "%s/train-labels-idx1-ubyte", folder);
    FILE *y = fopen(path, "wb");
    ck_assert(x && y);
    put_u32(x, 0x803), put_u32(x, 300), put_u32(x, 6), put_u32(x, 6);
    put_u32(y, 0x801), put_u32(y, 300);
    struct mo_rng rng = mo_rng_new(8, MO_RNG_TEST, 0);
    for (int i = 0; i < 300; i++) {
        fputc(i % 3, y);
        for (int k = 0; k < 36; k++)
            fputc((int)mo_rng_below(&rng, 100) + (k / 12 == i % 3 ? 100 : 0), x);
    }
    fclose(x);
    fclose(y);
}

static void drop_data(void)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/train-images-idx3-ubyte", folder);
    unlink(path);
    snprintf(path, sizeof(path), "%s/train-labels-idx1-ubyte", folder);
    unlink(path);
    rmdir(folder);
}

START_TEST(masks_hold_through_training)
{
    static const char *const ramps[] = { "oneshot", "cubic" };
    char data[80];
    make_data();
    snprintf(data, sizeof(data), "idx:%s", folder);
    for (size_t i = 0; i < MO_COUNT(ramps); i++) {
        make_mlp();
        OK(PRUNE("amount", "0.8", "ramp", ramps[i], "data", data, "epochs", "3", "batch", "16", "score",
                 i ? "lamp" : "l1", i ? "every" : NULL, "3"));
        ck_assert_int_eq(all_zeros(), llround(0.8 * W_ALL));
        ck_assert_int_gt(mopt_report_int(mopt_report_at(report, "retrained_steps"), 0), 30);
        double accuracy = mopt_report_number(mopt_report_at(report, "after.metrics.accuracy"), 0);
        ck_assert_msg(accuracy > 0.9, "%s: accuracy %g", ramps[i], accuracy);
        mopt_model_free(model);
        model = NULL;
    }
    make_mlp();
    OK(PRUNE("pattern", "2:4", "data", data, "epochs", "1", "batch", "16"));
    ck_assert_int_eq(all_zeros(), W_ALL / 2);
    drop_data();
}
END_TEST

START_TEST(channels_by_data)
{
    static const char *const scores[] = { "taylor", "activation", "apoz" };
    char data[80];
    make_data();
    snprintf(data, sizeof(data), "idx:%s", folder);
    for (size_t i = 0; i < MO_COUNT(scores); i++) {
        make_mlp();
        OK(PRUNE("structured", "true", "target", "params=0.4x", "score", scores[i], "round", "1", "data", data, "epochs",
                 "4", "batch", "16", "steps", "2", "min-keep", "0"));
        double before = mopt_report_number(mopt_report_at(report, "before.parameters"), NAN);
        double after = mopt_report_number(mopt_report_at(report, "after.parameters"), NAN);
        double accuracy = mopt_report_number(mopt_report_at(report, "after.metrics.accuracy"), 0);
        ck_assert(after <= 0.4 * before && after > 0.3 * before);
        ck_assert_msg(accuracy > 0.9, "%s: accuracy %g", scores[i], accuracy);
        mopt_model_free(model);
        model = NULL;
    }
    drop_data();
}
END_TEST

START_TEST(taylor_spares_what_matters)
{
    char data[80];
    make_data();
    snprintf(data, sizeof(data), "idx:%s", folder);
    make_mlp();
    /* Half of fc1's neurons are read by nobody: columns of fc2 are zero. They must go first. */
    mo_value_id v = mo_graph_find(&model->graph, "fc2.w");
    struct mo_shape s = model->graph.values[v].shape;
    float *w = mo_mem_new(W2, sizeof(*w));
    memcpy(w, model->graph.values[v].data, W2 * sizeof(*w));
    for (int o = 0; o < 16; o++)
        for (int i = 0; i < 24; i += 2)
            w[o * 24 + i] = 0;
    mo_value_set_data(&model->graph, v, MO_F32, &s, w);
    OK(PRUNE("structured", "true", "amount", "12", "score", "taylor", "round", "1", "data", data, "epochs", "0"));
    ck_assert_int_eq(dim_of("fc1.w", 0), 12);
    ck_assert_int_eq(dim_of("fc2.w", 0), 16);
    ck_assert_int_eq(zeros_of("fc2.w"), 0);
    drop_data();
}
END_TEST

START_TEST(sensitivity_leaves_the_model)
{
    char data[80];
    make_data();
    snprintf(data, sizeof(data), "idx:%s", folder);
    make_mlp();
    OK(PRUNE("sensitivity", "true", "data", data));
    ck_assert_int_eq(all_zeros(), 0);
    ck_assert_uint_eq(mopt_report_count(mopt_report_at(report, "sensitivity.layers")), 3);
    ck_assert_uint_eq(mopt_report_count(mopt_report_at(report, "sensitivity.layers.0.levels")), 9);
    drop_data();
}
END_TEST

Suite *suite_prune(void);
Suite *suite_prune(void)
{
    Suite *s = suite_create("prune");
    TCase *t = tcase_create("masks");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, global_counts_are_exact);
    tcase_add_test(t, ties_go_by_position);
    tcase_add_test(t, layers_take_equal_shares);
    tcase_add_test(t, no_layer_goes_beyond_its_cap);
    tcase_add_test(t, lamp_follows_its_formula);
    tcase_add_test(t, random_follows_the_seed);
    suite_add_tcase(s, t);
    t = tcase_create("models");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, amount_as_share_percent_count);
    tcase_add_test(t, scope_and_selection);
    tcase_add_test(t, target_of_parameters);
    tcase_add_test(t, pattern_two_of_four);
    tcase_add_test(t, channels_leave_the_file);
    tcase_add_test(t, channels_meet_a_target);
    tcase_add_test(t, dry_run_changes_nothing_and_predicts);
    tcase_add_test(t, what_is_refused);
    suite_add_tcase(s, t);
    t = tcase_create("data");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, masks_hold_through_training);
    tcase_add_test(t, channels_by_data);
    tcase_add_test(t, taylor_spares_what_matters);
    tcase_add_test(t, sensitivity_leaves_the_model);
    suite_add_tcase(s, t);
    return s;
}
