/* inspect: totals, rows and reasons on models made here. */
#include <check.h>
#include <string.h>

#include "lib/passes/pass.h"

static struct mopt_ctx *ctx;
static struct mopt_model *m;
static struct mopt_report *report;

static void setup(void)
{
    ctx = mopt_open("cpu", 1);
    ck_assert_ptr_nonnull(ctx);
}

static void teardown(void)
{
    mopt_report_free(report);
    mopt_model_free(m);
    mopt_close(ctx);
}

static void inspect(const char *spec, const char *all)
{
    struct mopt_recipe *recipe;
    ck_assert_msg(!mopt_model_create(ctx, spec, 0, &m), "%s", mopt_error(ctx));
    ck_assert(!mopt_recipe_new(ctx, &recipe) && !mopt_recipe_add(ctx, recipe, "inspect"));
    ck_assert(!mopt_recipe_set(ctx, recipe, "all", all));
    ck_assert_msg(!mopt_apply(ctx, recipe, m, NULL, 0, &report), "%s", mopt_error(ctx));
    mopt_recipe_free(recipe);
}

static int64_t number(const char *path)
{
    return mopt_report_int(mopt_report_at(report, path), -1);
}

static const char *text(const char *path)
{
    return mopt_report_text(mopt_report_at(report, path), "");
}

START_TEST(totals_and_rows)
{
    inspect("{\"family\": \"lenet5\"}", "false");
    ck_assert_int_eq(number("totals.parameters"), 431080);
    ck_assert_int_eq(number("totals.nonzero"), 431080 - 20 - 50 - 500 - 10);
    ck_assert_int_eq(number("totals.macs"), 2293000);
    ck_assert_int_gt(number("totals.bytes"), 4 * 431080);
    ck_assert_int_eq(number("totals.nodes"), 10);
    ck_assert_str_eq(text("inputs.0.name"), "input");
    ck_assert_str_eq(text("inputs.0.shape"), "Nx1x28x28");
    ck_assert_int_eq(number("inputs.0.dynamic"), 1);
    ck_assert_str_eq(text("operators.0.type"), "Relu");
    ck_assert_int_eq(number("operators.0.count"), 3);
    ck_assert_uint_eq(mopt_report_count(mopt_report_at(report, "layers")), 4);
    ck_assert_str_eq(text("layers.0.name"), "conv1");
    ck_assert_str_eq(text("layers.0.output"), "1x20x24x24");
    ck_assert_int_eq(number("layers.0.parameters"), 520);
    ck_assert_int_eq(number("layers.0.macs"), 288000);
    ck_assert_int_eq(number("layers.0.trainable"), 1);
    ck_assert_int_eq(number("layers.0.prunable"), 1);
    ck_assert_int_eq(number("layers.0.quantizable"), 1);
    ck_assert_double_eq_tol(mopt_report_number(mopt_report_at(report, "layers.0.sparsity"), -1), 20. / 520, 1e-12);
    ck_assert_int_eq(number("layers.3.prunable"), 0);
    ck_assert_ptr_nonnull(strstr(text("layers.3.not_prunable"), "output of the model"));
}
END_TEST

START_TEST(every_node_has_a_row_when_asked)
{
    inspect("{\"family\": \"lenet5\"}", "true");
    ck_assert_uint_eq(mopt_report_count(mopt_report_at(report, "layers")), 10);
}
END_TEST

/* Behind an operator without a gradient nothing before it can be trained; the unknown one is named. */
/* An LSTM behind a Concat that does not fit: inspect tells of the model, but of no sizes. */
START_TEST(what_cannot_be_inferred_is_told)
{
    const struct mo_shape shapes[] = { mo_shape_of(1, (int64_t)3), mo_shape_of(3, (int64_t)4, (int64_t)2, (int64_t)3) };
    mo_value_id x[2], y[2];
    ck_assert_ptr_nonnull(m = mo_model_new());
    ck_assert(mo_model_set_opset(m, "", 17));
    struct mo_graph *g = &m->graph;
    for (int k = 0; k < 2; k++) {
        x[k] = mo_graph_add_value(g, k ? "b" : "a", MO_F32, &shapes[k]);
        y[k] = mo_graph_add_value(g, k ? "z" : "y", MO_F32, &(struct mo_shape){ .rank = MO_UNKNOWN });
        ck_assert(mo_graph_add_input(g, x[k]));
    }
    mo_value_id in[3] = { y[0] };
    for (int k = 1; k < 3; k++) {
        const struct mo_shape w = mo_shape_of(3, (int64_t)1, (int64_t)8, (int64_t)(4 - k));
        ck_assert_uint_ne(in[k] = mo_graph_add_const(g, "w", MO_F32, &w, NULL), MO_NONE);
    }
    mo_node_id n = mo_graph_add_node(g, "Concat", NULL, "c", x, 2, &y[0], 1);
    ck_assert(mo_node_set_int(g, n, "axis", 0));
    n = mo_graph_add_node(g, "LSTM", NULL, "l", in, 3, &y[1], 1);
    ck_assert(mo_node_set_int(g, n, "hidden_size", 2) && mo_graph_add_output(g, y[1]));
    struct mopt_recipe *recipe;
    ck_assert(!mopt_recipe_new(ctx, &recipe) && !mopt_recipe_add(ctx, recipe, "inspect"));
    ck_assert_msg(!mopt_apply(ctx, recipe, m, NULL, 0, &report), "%s", mopt_error(ctx));
    mopt_recipe_free(recipe);
    ck_assert_int_eq(mo_node_macs(g, &g->nodes[n]), MO_UNKNOWN);
}
END_TEST

START_TEST(reasons_are_given)
{
    struct mopt_recipe *recipe;
    m = mo_model_new();
    struct mo_graph *g = &m->graph;
    struct mo_shape shape = mo_shape_of(2, (int64_t)2, (int64_t)4), square = mo_shape_of(2, (int64_t)4, (int64_t)4);
    ck_assert(mo_model_set_opset(m, "", 17));
    mo_value_id x = mo_graph_add_value(g, "x", MO_F32, &shape), w = mo_graph_add_const(g, "w", MO_F32, &square, NULL);
    mo_value_id h = mo_graph_add_value(g, "h", MO_F32, &shape), y = mo_graph_add_value(g, "y", MO_F32, &shape);
    ck_assert(mo_graph_add_input(g, x));
    mo_graph_add_node(g, "MatMul", NULL, "product", (mo_value_id[]){ x, w }, 2, &h, 1);
    mo_graph_add_node(g, "Mystery", "far.away", "riddle", &h, 1, &y, 1);
    ck_assert(mo_graph_add_output(g, y));
    ck_assert(!mo_graph_sort(ctx, g));
    ck_assert(!mopt_recipe_new(ctx, &recipe) && !mopt_recipe_add(ctx, recipe, "inspect"));
    ck_assert_msg(!mopt_apply(ctx, recipe, m, NULL, 0, &report), "%s", mopt_error(ctx));
    ck_assert_int_eq(number("layers.0.trainable"), 0);
    ck_assert_ptr_nonnull(strstr(text("layers.0.not_trainable"), "Mystery is not known"));
    ck_assert_int_eq(mopt_report_kind(mopt_report_at(report, "totals.macs")), MOPT_NULL);
    ck_assert_ptr_nonnull(strstr(text("operators.1.note"), "not known"));
    mopt_recipe_free(recipe);
}
END_TEST

Suite *suite_inspect(void);
Suite *suite_inspect(void)
{
    Suite *s = suite_create("inspect");
    TCase *t = tcase_create("inspect");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, totals_and_rows);
    tcase_add_test(t, every_node_has_a_row_when_asked);
    tcase_add_test(t, reasons_are_given);
    tcase_add_test(t, what_cannot_be_inferred_is_told);
    suite_add_tcase(s, t);
    return s;
}
