/* RoiAlign where rounding decides: a region from 0.8 to 14.8 in 7 bins has bins of 2 pixels in float32, though the
 * two numbers as they are stored lie a little more than 14 apart. Two points a bin then, not three. */
#include <check.h>

#include "lib/run/run.h"

enum { SIZE = 16, BINS = 7 };

START_TEST(points_of_a_bin_are_counted_in_float32)
{
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    struct mopt_model *model = mo_model_new();
    struct mo_graph *g = &model->graph;
    struct mo_shape image = mo_shape_of(4, (int64_t)1, (int64_t)1, (int64_t)SIZE, (int64_t)SIZE);
    struct mo_shape regions = mo_shape_of(2, (int64_t)1, (int64_t)4), one = mo_shape_of(1, (int64_t)1);
    struct mo_shape unknown = { .rank = MO_UNKNOWN };
    const float region[4] = { 0, 0.8f, 7, 14.8f };      /* x1, y1, x2, y2 */
    float x[SIZE * SIZE] = { 0 }, y[BINS * BINS];
    struct mo_run *r;
    x[2 * SIZE + 3] = 1;                                /* row 2 */
    ck_assert(mo_model_set_opset(model, "", 16));
    mo_value_id in[3] = { mo_graph_add_value(g, "x", MO_F32, &image), mo_graph_add_const(g, "rois", MO_F32, &regions, region),
                          mo_graph_add_const(g, "batch", MO_I64, &one, (const int64_t[]){ 0 }) };
    mo_value_id out = mo_graph_add_value(g, "y", MO_F32, &unknown);
    mo_node_id n = mo_graph_add_node(g, "RoiAlign", NULL, "align", in, 3, &out, 1);
    ck_assert(mo_node_set_int(g, n, "output_height", BINS) && mo_node_set_int(g, n, "output_width", BINS));
    ck_assert(mo_graph_add_input(g, in[0]) && mo_graph_add_output(g, out));
    ck_assert_msg(!mo_run_new(ctx, g, NULL, &r), "%s", mopt_error(ctx));
    ck_assert_msg(!mo_run_shape(r, &image, 1), "%s", mopt_error(ctx));
    ck_assert(!mo_run_set_input(r, 0, x, sizeof x) && !mo_run_forward(r) && !mo_run_get_output(r, 0, y, sizeof y));
    /* The first bin's points are in rows 0.8 and 1.8, half a pixel up from their corners: (0 + 0.8) / 2; its fourth
     * column is column 3 exactly. */
    ck_assert_float_eq_tol(y[3], 0.4f, 1e-5f);
    mo_run_free(r);
    mopt_model_free(model);
    mopt_close(ctx);
}
END_TEST

Suite *suite_roi_align(void);
Suite *suite_roi_align(void)
{
    Suite *suite = suite_create("roi_align");
    TCase *tcase = tcase_create("rounding");
    tcase_add_test(tcase, points_of_a_bin_are_counted_in_float32);
    suite_add_tcase(suite, tcase);
    return suite;
}
