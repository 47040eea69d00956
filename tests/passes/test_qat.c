/* Training with the rounding in place: it wins back what static quantization lost, writes what static writes where
 * there is nothing to win, and the file computes what was validated. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "tests/support/train_support.h"

static struct trial good;

static void make_good(void)
{
    make_trial_data();
    good = (struct trial){.no_norm = true, .options = {"epochs", "30", "init", "fresh", "seed", "3"}};
    expect_ok(&good);
    ck_assert(good.accuracy > 0.7);
}

/* The same function with hidden units of very different size, so that one scale for all of them is coarse. */
static struct trial skewed(void)
{
    struct trial t = good;
    float *w1 = t.weights, *b1 = w1 + N_FEATURES * N_HIDDEN, *w2 = b1 + N_HIDDEN;
    for (int j = 0; j < N_HIDDEN; j++) {
        float s = exp2f((float)(j % 5) * 2 - 4);
        for (int i = 0; i < N_FEATURES; i++)
            w1[i * N_HIDDEN + j] *= s;
        b1[j] *= s;
        for (int k = 0; k < N_CLASSES; k++)
            w2[j * N_CLASSES + k] /= s;
    }
    return t;
}

START_TEST(what_rounding_took_is_won_back)
{
    struct trial start = skewed();
    struct trial t = {.pass = "quantize", .no_norm = true, .start = &start,
                      .options = {"qat", "true", "per-tensor", "true", "epochs", "30", "val-split", "0.5", "optimizer",
                                  "adam", "lr", "0.01"}};
    expect_ok(&t);
    ck_assert_str_eq(t.kept, "best");
    ck_assert_msg(t.accuracy > t.start_accuracy + 0.05, "from %g to %g", t.start_accuracy, t.accuracy);
}
END_TEST

START_TEST(nothing_to_win_is_what_static_writes)
{
    struct trial fixed = {.pass = "quantize", .no_norm = true, .start = &good, .trains_nothing = true};
    expect_ok(&fixed);
    struct trial t = {.pass = "quantize", .no_norm = true, .start = &good,
                      .options = {"qat", "true", "epochs", "3", "lr", "1e-30"}};
    expect_ok(&t);
    ck_assert_str_eq(t.kept, "start");
    /* constants lie in another order: as many, of the same sum */
    ck_assert_uint_eq(t.n_weights, fixed.n_weights);
    double sums[2] = {0, 0};
    for (size_t i = 0; i < t.n_weights; i++) {
        sums[0] += fabs((double)fixed.weights[i]);
        sums[1] += fabs((double)t.weights[i]);
    }
    ck_assert_msg(fabs(sums[0] - sums[1]) <= 1e-9 * sums[0], "%.17g, %.17g", sums[0], sums[1]);
}
END_TEST

/* Weights that a high rate would carry far beyond their scales. */
START_TEST(the_file_is_what_was_validated)
{
    const char *const targets[] = {"x86", "arm", "trt", "generic"};
    for (size_t i = 0; i < MO_COUNT(targets); i++) {
        struct trial t = {.pass = "quantize", .no_norm = true, .start = &good,
                          .options = {"qat", "true", "target", targets[i], "epochs", "6", "val-split", "0.5", "lr", "0.3",
                                      "keep", "last", "evaluate", "true"}};
        expect_ok(&t);
        ck_assert_str_eq(t.kept, "last");
        ck_assert_msg(fabs(t.loss_of_file - t.loss_kept) < 2e-3, "%s: validated %g, the file has %g", targets[i],
                      t.loss_kept, t.loss_of_file);
    }
}
END_TEST

/* The float model alone teaches: no labels are needed. */
START_TEST(labels_are_not_needed)
{
    trial_data.target = MO_TARGET_NONE;
    struct trial start = skewed();
    struct trial t = {.pass = "quantize", .no_norm = true, .start = &start,
                      .options = {"qat", "true", "per-tensor", "true", "epochs", "20", "val-split", "0", "alpha", "1",
                                  "optimizer", "adam", "lr", "0.01"}};
    expect_ok(&t);
    ck_assert_msg(t.loss_last < 0.5 * t.loss_first, "%g to %g", t.loss_first, t.loss_last);
    struct trial none = t;
    none.options[12] = NULL;
    none.options[9] = "0.5";
    run_trial(&none);
    ck_assert_msg(none.status == MOPT_DATA && strstr(none.error, "label"), "%s", none.error);
}
END_TEST

Suite *suite_qat(void);
Suite *suite_qat(void)
{
    Suite *s = suite_create("qat");
    TCase *c = tcase_create("qat");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, make_good, NULL);
    tcase_add_test(c, what_rounding_took_is_won_back);
    tcase_add_test(c, nothing_to_win_is_what_static_writes);
    tcase_add_test(c, the_file_is_what_was_validated);
    tcase_add_test(c, labels_are_not_needed);
    suite_add_tcase(s, c);
    return s;
}
