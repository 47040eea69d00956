/* The teacher's part of the loss: values against formulas in double, gradients against central differences. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "lib/passes/distill.h"

enum { ROWS = 5, MAX_WIDTH = 12, MAX = ROWS * MAX_WIDTH };

/* log softmax(z / T) of class k, class `skip` left out. */
static double log_soft(const double *z, size_t width, double temperature, size_t k, size_t skip)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < width; i++)
        max = i == skip ? max : fmax(max, z[i]);
    for (size_t i = 0; i < width; i++)
        sum += i == skip ? 0 : exp((z[i] - max) / temperature);
    return (z[k] - max) / temperature - log(sum);
}

static double plain_row(const struct mo_distill_in *in, const double *zs, const double *zt, size_t y)
{
    double t = in->temperature, sum = 0;
    size_t w = in->width;
    if (in->method == MO_DISTILL_MSE) {
        for (size_t k = 0; k < w; k++)
            sum += (zs[k] - zt[k]) * (zs[k] - zt[k]) / (double)w;
        return sum;
    }
    bool is_dkd = in->method == MO_DISTILL_DKD;
    size_t skip = is_dkd ? y : w;
    for (size_t k = 0; k < w; k++)
        if (k != skip) {
            double lt = log_soft(zt, w, t, k, skip), ls = log_soft(zs, w, t, k, skip);
            sum += exp(lt) * (lt - ls) * (is_dkd ? in->beta : 1);
        }
    if (is_dkd) {
        double lt = log_soft(zt, w, t, y, w), ls = log_soft(zs, w, t, y, w);
        sum += exp(lt) * (lt - ls) + (1 - exp(lt)) * (log(1 - exp(lt)) - log(1 - exp(ls)));
    }
    return t * t * sum;
}

static double plain(const struct mo_distill_in *in, const double *zs, const double *zt)
{
    double sum = 0;
    for (size_t r = 0; r < in->rows; r++)
        sum += plain_row(in, zs + r * in->width, zt + r * in->width, (size_t)in->labels[r]);
    return in->alpha * sum / (double)in->rows;
}

static void check_one(enum mo_distill_method method, size_t width, double temperature)
{
    float zs[MAX], zt[MAX], dz[MAX];
    double s[MAX], t[MAX], loss = 2;
    int64_t labels[ROWS];
    struct mo_rng rng = mo_rng_new(3, MO_RNG_TEST, width);
    size_t n = ROWS * width;
    for (size_t i = 0; i < n; i++) {
        s[i] = zs[i] = 2 * mo_rng_normal(&rng);
        t[i] = zt[i] = 2 * mo_rng_normal(&rng);
        dz[i] = (float)i;
    }
    for (int r = 0; r < ROWS; r++)
        labels[r] = r % (int64_t)width;
    const struct mo_distill_in in = {.method = method, .rows = ROWS, .width = width, .student = zs, .teacher = zt,
                                     .labels = labels, .temperature = temperature, .alpha = 0.3, .beta = 5};
    ck_assert_int_eq(mo_distill_loss(NULL, &in, dz, &loss), MOPT_OK);
    double want = 0.7 * 2 + plain(&in, s, t);
    ck_assert_msg(fabs(loss - want) < 1e-5 * fabs(want), "method %d width %zu: loss %.9g, not %.9g", method, width,
                  loss, want);
    for (size_t i = 0; i < n; i++) {
        const double h = 1e-5, was = s[i];
        s[i] = was + h;
        double up = plain(&in, s, t);
        s[i] = was - h;
        double slope = 0.7 * (double)i + (up - plain(&in, s, t)) / (2 * h);
        s[i] = was;
        ck_assert_msg(fabs(dz[i] - slope) < 1e-5 * fmax(1, fabs(slope)), "method %d width %zu: dz[%zu] %.9g, not %.9g",
                      method, width, i, (double)dz[i], slope);
    }
}

START_TEST(losses_follow_their_formulas)
{
    const size_t widths[] = {2, 3, 10, 12};
    for (size_t w = 0; w < MO_COUNT(widths); w++)
        for (int method = MO_DISTILL_KD; method <= MO_DISTILL_MSE; method++) {
            check_one(method, widths[w], 4);
            check_one(method, widths[w], 1);
        }
    check_one(MO_DISTILL_MSE, 1, 1);
}
END_TEST

START_TEST(the_same_answers_leave_the_labels_alone)
{
    const float z[4] = {1, -2, 30, 0.5f};
    const int64_t labels[2] = {0, 1};
    for (int method = MO_DISTILL_KD; method <= MO_DISTILL_MSE; method++) {
        float dz[4] = {0};
        double loss = 0;
        const struct mo_distill_in in = {.method = method, .rows = 2, .width = 2, .student = z, .teacher = z,
                                         .labels = labels, .temperature = 4, .alpha = 1, .beta = 8};
        ck_assert_int_eq(mo_distill_loss(NULL, &in, dz, &loss), MOPT_OK);
        ck_assert(fabs(loss) < 1e-6);
        for (int i = 0; i < 4; i++)
            ck_assert(dz[i] == 0);
    }
}
END_TEST

START_TEST(sure_answers_stay_finite)
{
    const float zs[3] = {500, -500, 0}, zt[3] = {-500, 500, 100};
    const int64_t labels[1] = {0};
    for (int method = MO_DISTILL_KD; method <= MO_DISTILL_MSE; method++) {
        float dz[3] = {0};
        double loss = 0;
        const struct mo_distill_in in = {.method = method, .rows = 1, .width = 3, .student = zs, .teacher = zt,
                                         .labels = labels, .temperature = 1, .alpha = 1, .beta = 8};
        ck_assert_int_eq(mo_distill_loss(NULL, &in, dz, &loss), MOPT_OK);
        ck_assert(isfinite(loss) && loss > 100);
        for (int i = 0; i < 3; i++)
            ck_assert(isfinite(dz[i]));
    }
}
END_TEST

START_TEST(what_cannot_be_compared_is_refused)
{
    struct mopt_ctx ctx = {.n_threads = 1};
    float z[2] = {0}, dz[2] = {0};
    double loss = 0;
    struct mo_distill_in in = {.method = MO_DISTILL_KD, .rows = 2, .width = 1, .student = z, .teacher = z,
                               .temperature = 1, .alpha = 1};
    ck_assert_int_eq(mo_distill_loss(&ctx, &in, dz, &loss), MOPT_USAGE);
    mopt_clear(&ctx);
    in.method = MO_DISTILL_DKD;
    in.rows = 1;
    in.width = 2;
    ck_assert_int_eq(mo_distill_loss(&ctx, &in, dz, &loss), MOPT_DATA);
}
END_TEST

Suite *suite_distill_loss(void);
Suite *suite_distill_loss(void)
{
    Suite *s = suite_create("distill_loss");
    TCase *c = tcase_create("distill_loss");
    tcase_add_test(c, losses_follow_their_formulas);
    tcase_add_test(c, the_same_answers_leave_the_labels_alone);
    tcase_add_test(c, sure_answers_stay_finite);
    tcase_add_test(c, what_cannot_be_compared_is_refused);
    suite_add_tcase(s, c);
    return s;
}
