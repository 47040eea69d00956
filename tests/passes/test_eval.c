/* eval: metrics of models whose answers are known, against numbers worked out by hand; infer through files. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/formats.h"
#include "lib/data/host_tensor.h"
#include "lib/passes/eval.h"
#include "tests/support/data_support.h"

static struct rig rig;
static struct mopt_ctx *ctx;
static struct mo_job job;
static struct mo_evaluation e;

static void setup(void)
{
    rig_open(&rig);
    ctx = mopt_open("cpu", 1);
    ck_assert_ptr_nonnull(ctx);
    memset(&job, 0, sizeof job);
    memset(&e, 0, sizeof e);
    rig.settings.transform = "none";
    job.ctx = ctx;
}

static void teardown(void)
{
    mo_evaluation_release(&e);
    mo_dataset_close(job.dataset);
    mopt_model_free(job.model);
    mopt_close(ctx);
    rig_close(&rig);
}

/* x of width n goes through one node, or NULL: Identity. */
static void new_model(int64_t width, const char *type, int64_t out_width, enum mo_dtype out_type)
{
    job.model = model_of(MO_F32, 2, (int64_t[]){MO_UNKNOWN, width});
    struct mo_graph *g = &job.model->graph;
    ck_assert(mo_model_set_opset(job.model, "", 13));
    struct mo_shape shape = {.rank = 2, .dim = {MO_UNKNOWN, out_width}};
    mo_value_id y = mo_graph_add_value(g, "y", out_type, &shape);
    mo_node_id n = mo_graph_add_node(g, type, NULL, "answer", &g->inputs[0], 1, &y, 1);
    if (!strcmp(type, "ArgMax"))
        ck_assert(mo_node_set_int(g, n, "axis", 1));
    ck_assert(mo_graph_add_output(g, y));
    ck_assert_msg(!mo_graph_sort(ctx, g), "%s", mopt_error(ctx));
}

static enum mopt_status evaluate(const char *csv)
{
    rig_text(&rig, "t.csv", csv);
    rig.settings.data = rig_spec(&rig, "csv", "t.csv");
    if (mo_dataset_open(ctx, &rig.settings, job.model, 1, &job.dataset))
        ck_abort_msg("%s", mopt_error(ctx));
    e.split = MO_SPLIT_ALL_TRAIN;
    e.batch = 2; /* the last batch is padded */
    e.wants_confusion = true;
    return mo_evaluation_model(&job, job.model, &e);
}

static const char scores[] = "3,1,0,0\n0,2,1,1\n0,1,2,1\n5,1,1,2\n1,1,0,0\n";

START_TEST(test_scores)
{
    new_model(3, "Identity", 3, MO_F32);
    ck_assert_msg(!evaluate(scores), "%s", mopt_error(ctx));
    /* said: 0 1 2 0 0 for 0 1 1 2 0: three right; of the two equal ones the first wins */
    ck_assert_uint_eq(e.metrics.n, 5);
    ck_assert_double_eq_tol(e.metrics.accuracy, 0.6, 1e-12);
    ck_assert_double_eq_tol(e.metrics.top5, 1, 1e-12);
    /* F1: class 0: 2*2/(2+3), class 1: 2*1/(2+1), class 2: 0 */
    ck_assert_double_eq_tol(e.metrics.f1, (0.8 + 2.0 / 3) / 3, 1e-12);
    double loss = 0;
    const double z[5][3] = {{3, 1, 0}, {0, 2, 1}, {0, 1, 2}, {5, 1, 1}, {1, 1, 0}};
    const int label[5] = {0, 1, 1, 2, 0};
    for (int i = 0; i < 5; i++)
        loss += (log(exp(z[i][0]) + exp(z[i][1]) + exp(z[i][2])) - z[i][label[i]]) / 5;
    ck_assert_double_eq_tol(e.metrics.loss, loss, 1e-9);
    ck_assert_double_eq_tol(e.metrics.accuracy_low, 0.230724, 1e-5); /* Wilson, 3 of 5 */
    ck_assert_double_eq_tol(e.metrics.accuracy_high, 0.882379, 1e-5);
    static const uint64_t confusion[9] = {2, 0, 0, 0, 1, 1, 1, 0, 0};
    ck_assert_mem_eq(e.confusion, confusion, sizeof confusion);
}
END_TEST

START_TEST(test_softmax)
{
    new_model(3, "Softmax", 3, MO_F32);
    ck_assert_msg(!evaluate(scores), "%s", mopt_error(ctx));
    ck_assert_double_eq_tol(e.metrics.accuracy, 0.6, 1e-12);
    ck_assert_double_eq_tol(e.metrics.loss, 1.376606, 1e-5); /* the same loss as of the logits */
}
END_TEST

START_TEST(test_one_score)
{
    static const char text[] = "2,1\n-1,0\n0.5,0\n-3,1\n";
    new_model(1, "Identity", 1, MO_F32);
    ck_assert_msg(!evaluate(text), "%s", mopt_error(ctx));
    ck_assert_double_eq_tol(e.metrics.accuracy, 0.5, 1e-12);
    double loss = (log1p(exp(-2)) + log1p(exp(-1)) + log1p(exp(0.5)) + log1p(exp(3))) / 4;
    ck_assert_double_eq_tol(e.metrics.loss, loss, 1e-6);
}
END_TEST

START_TEST(test_index)
{
    new_model(3, "ArgMax", 1, MO_I64);
    ck_assert_msg(!evaluate(scores), "%s", mopt_error(ctx));
    ck_assert_double_eq_tol(e.metrics.accuracy, 0.6, 1e-12);
    ck_assert(isnan(e.metrics.loss));
}
END_TEST

START_TEST(test_values)
{
    new_model(1, "Identity", 1, MO_F32);
    ck_assert_msg(!evaluate("1,1.5\n2,2.5\n4,3.5\n"), "%s", mopt_error(ctx));
    ck_assert(e.metrics.has_values && !e.metrics.has_accuracy);
    ck_assert_double_eq_tol(e.metrics.mae, 0.5, 1e-7);
    ck_assert_double_eq_tol(e.metrics.rmse, 0.5, 1e-7);
    ck_assert_double_eq_tol(e.metrics.r2, 1 - 0.75 / 2, 1e-7);
}
END_TEST

START_TEST(test_wrong)
{
    new_model(3, "Identity", 3, MO_F32);
    ck_assert_int_eq(evaluate("3,1,0,0\n0,2,1,7\n"), MOPT_DATA);
    ck_assert_ptr_nonnull(strstr(mopt_error(ctx), "label 7 of sample 1 does not fit the model's 3 classes"));
}
END_TEST

START_TEST(test_wilson)
{
    double low, high;
    mo_wilson(0, 10, &low, &high);
    ck_assert_double_eq_tol(low, 0, 1e-12);
    ck_assert_double_eq_tol(high, 0.277533, 1e-6);
    mo_wilson(9000, 10000, &low, &high);
    ck_assert_double_eq_tol(low, 0.893966, 1e-6);
    ck_assert_double_eq_tol(high, 0.905727, 1e-6);
}
END_TEST

/* infer on a real file and back, by the public interface. */
START_TEST(test_infer)
{
    float in[6] = {1, -2, 3, -4, 5, -6};
    const struct mo_host_tensor x = {.dtype = MO_F32, .shape = {.rank = 2, .dim = {2, 3}}, .data = in, .n_bytes = sizeof in};
    struct mopt_recipe *recipe;
    struct mo_host_tensor y;
    char input[600], output[600];
    new_model(3, "Relu", 3, MO_F32);
    ck_assert(!mo_tensor_file_write(ctx, rig_path(&rig, "x.npy"), &x, false));
    snprintf(input, sizeof input, "x=%s", rig_path(&rig, "x.npy"));
    snprintf(output, sizeof output, "y=%s", rig_path(&rig, "y.pb"));
    for (int round = 0; round < 2; round++) {
        ck_assert(!mopt_recipe_new(ctx, &recipe));
        ck_assert(!mopt_recipe_add(ctx, recipe, "infer"));
        ck_assert(!mopt_recipe_set(ctx, recipe, "input", input));
        ck_assert(!mopt_recipe_set(ctx, recipe, "output", output));
        enum mopt_status s = mopt_apply(ctx, recipe, job.model, NULL, 0, NULL);
        mopt_recipe_free(recipe);
        if (round) { /* never overwritten without being told to */
            ck_assert_int_eq(s, MOPT_USAGE);
            ck_assert_ptr_nonnull(strstr(mopt_error(ctx), "exists already"));
            mopt_clear(ctx);
            return;
        }
        ck_assert_msg(!s, "%s", mopt_error(ctx));
        ck_assert(!mo_tensor_file_read(ctx, rig_path(&rig, "y.pb"), &y));
        for (int i = 0; i < 6; i++)
            ck_assert_float_eq(((const float *)y.data)[i], in[i] > 0 ? in[i] : 0);
        ck_assert_str_eq(y.name, "y");
        mo_host_tensor_release(&y);
    }
}
END_TEST

Suite *suite_eval(void);
Suite *suite_eval(void)
{
    Suite *s = suite_create("eval");
    TCase *c = tcase_create("eval");
    tcase_set_timeout(c, 20);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, test_scores);
    tcase_add_test(c, test_softmax);
    tcase_add_test(c, test_one_score);
    tcase_add_test(c, test_index);
    tcase_add_test(c, test_values);
    tcase_add_test(c, test_wrong);
    tcase_add_test(c, test_wilson);
    tcase_add_test(c, test_infer);
    suite_add_tcase(s, c);
    return s;
}
