/* Shapes that only the data tells: the same graph with its shape as a constant and as
 * an input must give the same numbers. */
#include <check.h>

#include "lib/run/run.h"

enum { N_X = 2 * 5 * 4, N_Y = 3 * 5 * 4 };

/* x -> Reshape to 1x2x5x4 -> Conv 3x3 -> MaxPool 1x1 -> y */
static struct mopt_model *make(struct mopt_ctx *ctx, bool shape_is_input)
{
    static const int64_t sizes[4] = { 1, 2, 5, 4 };
    struct mopt_model *model = mo_model_new();
    struct mo_graph *g = &model->graph;
    struct mo_shape flat = mo_shape_of(1, (int64_t)N_X), four = mo_shape_of(1, (int64_t)4), unknown = { .rank = MO_UNKNOWN };
    struct mo_shape weight = mo_shape_of(4, (int64_t)3, (int64_t)2, (int64_t)3, (int64_t)3);
    struct mo_rng rng = mo_rng_new(3, MO_RNG_TEST, 1);
    float w[54];
    for (int i = 0; i < 54; i++)
        w[i] = mo_rng_normal(&rng);
    ck_assert(mo_model_set_opset(model, "", 13));
    mo_value_id x = mo_graph_add_value(g, "x", MO_F32, &flat), image = mo_graph_add_value(g, "image", MO_F32, &unknown);
    mo_value_id conv = mo_graph_add_value(g, "conv", MO_F32, &unknown), y = mo_graph_add_value(g, "y", MO_F32, &unknown);
    mo_value_id shape = shape_is_input ? mo_graph_add_value(g, "shape", MO_I64, &four)
                                       : mo_graph_add_const(g, "shape", MO_I64, &four, sizes);
    mo_value_id weights = mo_graph_add_const(g, "w", MO_F32, &weight, w);
    ck_assert(mo_graph_add_input(g, x) && (!shape_is_input || mo_graph_add_input(g, shape)));
    mo_graph_add_node(g, "Reshape", NULL, "reshape", (mo_value_id[]){ x, shape }, 2, &image, 1);
    mo_node_id n = mo_graph_add_node(g, "Conv", NULL, "conv", (mo_value_id[]){ image, weights }, 2, &conv, 1);
    mo_node_id pool = mo_graph_add_node(g, "MaxPool", NULL, "pool", &conv, 1, &y, 1);
    ck_assert(mo_node_set_ints(g, n, "pads", (int64_t[]){ 1, 1, 1, 1 }, 4));
    ck_assert(mo_node_set_ints(g, pool, "kernel_shape", (int64_t[]){ 1, 1 }, 2));
    ck_assert(mo_graph_add_output(g, y));
    ck_assert_msg(!mo_graph_sort(ctx, g), "%s", mopt_error(ctx));
    return model;
}

static void run(struct mopt_ctx *ctx, bool shape_is_input, const float *x, float *y)
{
    static const int64_t sizes[4] = { 1, 2, 5, 4 };
    struct mopt_model *model = make(ctx, shape_is_input);
    struct mo_run *r;
    struct mo_shape shapes[2] = { mo_shape_of(1, (int64_t)N_X), mo_shape_of(1, (int64_t)4) };
    struct mo_shape want = mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)5, (int64_t)4);
    ck_assert_msg(!mo_run_new(ctx, &model->graph, NULL, &r), "%s", mopt_error(ctx));
    ck_assert_msg(!mo_run_shape(r, shapes, shape_is_input ? 2 : 1), "%s", mopt_error(ctx));
    ck_assert(!mo_run_set_input(r, 0, x, N_X * sizeof *x));
    ck_assert(!shape_is_input || !mo_run_set_input(r, 1, sizes, sizeof sizes));
    ck_assert_msg(!mo_run_forward(r), "%s", mopt_error(ctx));
    ck_assert(mo_shape_equal(&mo_run_output(r, 0)->shape, &want));
    ck_assert(!mo_run_get_output(r, 0, y, N_Y * sizeof *y));
    mo_run_free(r);
    mopt_model_free(model);
}

START_TEST(images_of_unknown_rank)
{
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    struct mo_rng rng = mo_rng_new(3, MO_RNG_TEST, 2);
    float x[N_X], y[N_Y], z[N_Y];
    for (int i = 0; i < N_X; i++)
        x[i] = mo_rng_normal(&rng);
    run(ctx, false, x, y);
    run(ctx, true, x, z);
    for (int i = 0; i < N_Y; i++)
        ck_assert_float_eq_tol(z[i], y[i], 1e-5f);
    mopt_close(ctx);
}
END_TEST

Suite *suite_dynamic(void);
Suite *suite_dynamic(void)
{
    Suite *suite = suite_create("dynamic");
    TCase *tcase = tcase_create("shapes");
    tcase_add_test(tcase, images_of_unknown_rank);
    suite_add_tcase(suite, tcase);
    return suite;
}
