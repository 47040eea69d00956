/* Losses: values against formulas written out in double, gradients against central differences of them, extremes. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "lib/run/loss.h"

enum { MAX = 512 };

/* The definitions of loss.h, as plainly as they can be said. */
static double plain_target(const struct mo_loss_in *in, size_t r, size_t k)
{
    double t = in->targets ? in->targets[r * in->width + k]
               : in->width == 1 ? (double)in->labels[r]
                                : in->labels[r] == (int64_t)k;
    if (in->kind == MO_LOSS_CROSS_ENTROPY)
        return (1 - in->smoothing) * t + in->smoothing / (double)in->width;
    return in->kind == MO_LOSS_BCE ? (1 - in->smoothing) * t + in->smoothing / 2 : t;
}

static double plain(const struct mo_loss_in *in, const double *z)
{
    double sum = 0;
    bool by_row = in->kind == MO_LOSS_CROSS_ENTROPY || in->kind == MO_LOSS_KL;
    for (size_t r = 0; r < in->rows; r++) {
        double max = -INFINITY, s = 0;
        for (size_t k = 0; k < in->width; k++)
            max = fmax(max, z[r * in->width + k]);
        for (size_t k = 0; k < in->width; k++)
            s += exp(z[r * in->width + k] - max);
        for (size_t k = 0; k < in->width; k++) {
            double x = z[r * in->width + k], t = plain_target(in, r, k), d = x - t, log_p = x - max - log(s);
            if (by_row)
                sum += -t * log_p + (in->kind == MO_LOSS_KL && t > 0 ? t * log(t) : 0);
            else if (in->kind == MO_LOSS_BCE)
                sum += -t * log(1 / (1 + exp(-x))) - (1 - t) * log(1 / (1 + exp(x)));
            else if (in->kind == MO_LOSS_MSE)
                sum += d * d;
            else if (in->kind == MO_LOSS_L1)
                sum += fabs(d);
            else
                sum += fabs(d) <= in->delta ? d * d / 2 : in->delta * (fabs(d) - in->delta / 2);
        }
    }
    return sum / (double)(by_row ? in->rows : in->rows * in->width);
}

static void check_against_plain(struct mo_loss_in *in)
{
    float dz[MAX];
    double z[MAX], loss;
    size_t n = in->rows * in->width;
    for (size_t i = 0; i < n; i++)
        z[i] = in->z[i];
    ck_assert_int_eq(mo_loss(NULL, in, dz, &loss), MOPT_OK);
    double want = plain(in, z);
    ck_assert_msg(fabs(loss - want) < 1e-5 * fmax(1, fabs(want)), "kind %d width %zu: loss %.9g, not %.9g", in->kind,
                  in->width, loss, want);
    for (size_t i = 0; i < n; i++) {
        const double h = 1e-5;
        double was = z[i];
        z[i] = was + h;
        double up = plain(in, z);
        z[i] = was - h;
        double slope = (up - plain(in, z)) / (2 * h);
        z[i] = was;
        ck_assert_msg(fabs(dz[i] - slope) < 1e-6, "kind %d width %zu: dz[%zu] %.9g, not %.9g", in->kind, in->width, i,
                      (double)dz[i], slope);
    }
}

static void fill(float *z, float *t, int64_t *labels, size_t rows, size_t width)
{
    struct mo_rng rng = mo_rng_new(1, MO_RNG_TEST, rows * 1000 + width);
    for (size_t r = 0; r < rows; r++) {
        float sum = 0;
        labels[r] = mo_rng_below(&rng, (uint32_t)width);
        for (size_t k = 0; k < width; k++) {
            z[r * width + k] = 3 * mo_rng_normal(&rng);
            sum += t[r * width + k] = mo_rng_float(&rng);
        }
        for (size_t k = 0; k < width && width > 1; k++)
            t[r * width + k] /= sum;
    }
}

START_TEST(values_and_gradients_are_those_of_the_formulas)
{
    float z[MAX], t[MAX];
    int64_t labels[MAX];
    const size_t widths[] = {1, 2, 7, 8, 10, 37};
    for (size_t w = 0; w < MO_COUNT(widths); w++)
        for (int kind = MO_LOSS_CROSS_ENTROPY; kind <= MO_LOSS_KL; kind++)
            for (int variant = 0; variant < 4; variant++) {
                struct mo_loss_in in = {.kind = kind, .rows = 9, .width = widths[w], .z = z, .delta = 1.5};
                fill(z, t, labels, in.rows, in.width);
                in.smoothing = variant & 1 ? 0.1 : 0;
                if (variant & 2)
                    in.targets = t;
                else
                    in.labels = labels;
                check_against_plain(&in);
            }
}
END_TEST

START_TEST(labels_out_of_range_name_the_row)
{
    struct mopt_ctx plain_ctx = {.n_threads = 1}, *ctx = &plain_ctx;
    float z[6] = {0}, dz[6];
    int64_t labels[2] = {1, 3};
    double loss;
    struct mo_loss_in in = {.kind = MO_LOSS_CROSS_ENTROPY, .rows = 2, .width = 3, .z = z, .labels = labels};
    ck_assert_int_eq(mo_loss(ctx, &in, dz, &loss), MOPT_DATA);
    ck_assert_ptr_nonnull(strstr(mopt_error(ctx), "row 1"));
    ck_assert_ptr_nonnull(strstr(mopt_error(ctx), "label 3"));
    mopt_clear(ctx);
    labels[1] = -1;
    ck_assert_int_eq(mo_loss(ctx, &in, dz, &loss), MOPT_DATA);
    mopt_clear(ctx);
    in.labels = NULL;
    ck_assert_int_eq(mo_loss(ctx, &in, dz, &loss), MOPT_DATA);
}
END_TEST

START_TEST(extreme_logits_stay_finite)
{
    const float z[6] = {1e4f, -1e4f, 0, -3e38f, 3e38f, 0};
    float dz[6];
    int64_t labels[2] = {1, 0};
    double loss;
    struct mo_loss_in in = {.kind = MO_LOSS_CROSS_ENTROPY, .rows = 2, .width = 3, .z = z, .labels = labels};
    ck_assert_int_eq(mo_loss(NULL, &in, dz, &loss), MOPT_OK);
    ck_assert(isfinite(loss) && loss > 1e4);
    for (int i = 0; i < 6; i++)
        ck_assert(isfinite(dz[i]));
    ck_assert(dz[0] == 0.5f && dz[1] == -0.5f);
    in.kind = MO_LOSS_BCE;
    in.width = 1;
    labels[0] = 0;
    ck_assert_int_eq(mo_loss(NULL, &in, dz, &loss), MOPT_OK);
    ck_assert(isfinite(loss) && fabs(loss - 5000) < 1e-3);
}
END_TEST

START_TEST(nan_reaches_the_loss)
{
    float z[10] = {0}, dz[10], t[10] = {0};
    int64_t labels[1] = {2};
    for (int kind = MO_LOSS_CROSS_ENTROPY; kind <= MO_LOSS_KL; kind++)
        for (int soft = 0; soft < 2; soft++) {
            double loss;
            struct mo_loss_in in = {.kind = kind, .rows = 1, .width = 10, .z = z, .delta = 1};
            in.labels = soft ? NULL : labels;
            in.targets = soft ? t : NULL;
            t[2] = 1;
            for (int at = 0; at < 10; at += 9) {
                memset(z, 0, sizeof z);
                z[at] = NAN;
                ck_assert_int_eq(mo_loss(NULL, &in, dz, &loss), MOPT_OK);
                ck_assert_msg(isnan(loss), "kind %d soft %d at %d: %g", kind, soft, at, loss);
            }
        }
}
END_TEST

START_TEST(softmax_row_has_temperature)
{
    const float z[3] = {1, 2, 4};
    float p[3], max;
    float log_sum = mo_softmax_row(3, z, 4, p, &max);
    double s = exp(0.25) + exp(0.5) + exp(1);
    for (int k = 0; k < 3; k++) {
        ck_assert(fabs(p[k] - exp(z[k] / 4.0) / s) < 1e-6);
        ck_assert(fabs((z[k] - max) / 4 - log_sum - log(exp(z[k] / 4.0) / s)) < 1e-6);
    }
}
END_TEST

/* 1 then many tiny ones: a running float sum would lose all of them. */
START_TEST(tree_sum_is_exact_enough)
{
    struct mo_tree_sum sum = {.n = 0};
    ck_assert(mo_tree_total(&sum) == 0);
    for (int i = 1; i <= 1000003; i++)
        mo_tree_add(&sum, 0.1);
    ck_assert(fabs(mo_tree_total(&sum) - 100000.3) < 1e-9);
    ck_assert_uint_eq(sum.n, 1000003);
}
END_TEST

Suite *suite_loss(void);
Suite *suite_loss(void)
{
    Suite *s = suite_create("loss");
    TCase *c = tcase_create("loss");
    tcase_add_test(c, values_and_gradients_are_those_of_the_formulas);
    tcase_add_test(c, labels_out_of_range_name_the_row);
    tcase_add_test(c, extreme_logits_stay_finite);
    tcase_add_test(c, nan_reaches_the_loss);
    tcase_add_test(c, softmax_row_has_temperature);
    tcase_add_test(c, tree_sum_is_exact_enough);
    suite_add_tcase(s, c);
    return s;
}
