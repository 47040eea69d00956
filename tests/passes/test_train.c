/* Training on generated data: it learns; stopping at any step and going on gives the same bits; so do 1, 2 and 3
 * threads; what goes wrong is said and nothing good is lost. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "lib/base/io.h"
#include "lib/passes/checkpoint.h"
#include "tests/support/train_support.h"

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
        struct trial t = {.options = {"schedule", names[i], "epochs", "8", "init", "fresh",
                                      i == 1 || i == 4 ? "step-epochs" : NULL, "3"}};
        expect_ok(&t);
        ck_assert_msg(t.loss_last < 0.7 * t.loss_first, "%s: loss %g to %g", names[i], t.loss_first, t.loss_last);
    }
}
END_TEST

START_TEST(values_are_learned)
{
    trial_data.target = MO_TARGET_VALUES;
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
        trial_data.label[i] = trial_data.label[i] > 0;
    trial_data.n_classes = 2;
    struct trial t = {.n_out = 1, .options = {"epochs", "15", "init", "fresh"}};
    expect_ok(&t);
    ck_assert_msg(t.loss_last < 0.6 * t.loss_first, "loss %g to %g", t.loss_first, t.loss_last);
    ck_assert(t.accuracy > 0.7);
}
END_TEST

START_TEST(going_on_gives_the_same_bits)
{
    check_resume("train", NULL, (const char *[24]){"epochs", "2.5", "init", "fresh"});
    check_resume("train", NULL, (const char *[24]){"epochs", "2.5", "optimizer", "adamw", "ema", "0.9", "clip", "1",
                                                   "accumulate", "2"});
    check_resume("train", NULL, (const char *[24]){"epochs", "8", "schedule", "plateau", "step-epochs", "1", "keep",
                                                   "last", "patience", "3", "batch", "40"});
    check_resume("train", NULL, (const char *[24]){"epochs", "6", "optimizer", "gd", "lr", "0.3"});
    check_resume("train", NULL, (const char *[24]){"epochs", "2", "optimizer", "sgd", "lr", "1e-30"});
}
END_TEST

/* As near to the loss of float32 as another order of the samples would bring it, resumed to the same bits. */
START_TEST(bf16_learns_as_well)
{
    const char *const seeds[] = {"1", "2", "3"};
    for (size_t i = 0; i < MO_COUNT(seeds); i++) {
        struct trial wide = {.options = {"epochs", "15", "init", "fresh", "seed", seeds[i]}}, half = wide;
        half.options[6] = "precision";
        half.options[7] = "bf16";
        expect_ok(&wide);
        expect_ok(&half);
        ck_assert_msg(memcmp(wide.weights, half.weights, sizeof wide.weights) != 0, "it was not used");
        ck_assert_msg(fabs(half.loss_last - wide.loss_last) < 0.05 * wide.loss_first, "loss %g, in float32 %g",
                      half.loss_last, wide.loss_last);
        ck_assert_msg(fabs(half.accuracy - wide.accuracy) < 0.05, "accuracy %g, in float32 %g", half.accuracy,
                      wide.accuracy);
    }
    check_resume("train", NULL, (const char *[24]){"epochs", "2.5", "init", "fresh", "precision", "bf16"});
    struct trial one = {.threads = 1, .options = {"epochs", "3", "init", "fresh", "precision", "bf16"}}, three = one;
    three.threads = 3;
    expect_ok(&one);
    expect_ok(&three);
    expect_same(&one, &three, "threads", 3);
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
    struct trial full = {.no_norm = true,
                         .options = {"epochs", "3", "batch", "80", "optimizer", "sgd", "lr", "0.01", "keep",
                                     "last"}};
    struct trial gd = {.no_norm = true, .options = {"epochs", "3", "batch", "11", "optimizer", "gd", "lr", "0.01", "keep",
                                   "last"}};
    expect_ok(&full);
    expect_ok(&gd);
    for (size_t i = 0; i < large.n_weights; i++) {
        ck_assert_msg(fabsf(large.weights[i] - small.weights[i]) < 1e-5f, "weight %zu: %g, %g", i,
                      (double)large.weights[i], (double)small.weights[i]);
        ck_assert_msg(fabsf(full.weights[i] - gd.weights[i]) < 1e-5f, "weight %zu: %g, %g", i, (double)full.weights[i],
                      (double)gd.weights[i]);
    }
}
END_TEST

/* Rates so high that every epoch is worse than what came in, and one that helps. */
START_TEST(fine_tuning_never_makes_it_worse)
{
    struct trial rough = {.options = {"epochs", "1", "init", "fresh", "lr", "0.01"}};
    struct trial good = {.options = {"epochs", "15", "init", "fresh"}};
    expect_ok(&rough);
    expect_ok(&good);
    ck_assert_msg(isnan(good.start_accuracy) && !strcmp(good.kept, "best"), "random weights were judged");
    struct trial harm = {.start = &good, .options = {"epochs", "3", "lr", "30", "clip", "0", "optimizer", "sgd",
                                                     "schedule", "constant"}};
    expect_ok(&harm);
    ck_assert_str_eq(harm.kept, "start");
    ck_assert_int_eq(harm.n_warnings, 1);
    ck_assert(harm.start_accuracy == harm.accuracy && harm.accuracy == good.accuracy);
    expect_same(&good, &harm, "kept", 0);
    struct trial last = harm;
    last.options[8] = "keep";
    last.options[9] = "last";
    last.n_warnings = 0;
    expect_ok(&last);
    ck_assert_str_eq(last.kept, "last");
    ck_assert_msg(isnan(last.start_accuracy) && last.accuracy < good.accuracy && !last.n_warnings,
                  "the last weights were asked for, %g", last.accuracy);
    struct trial help = {.start = &rough, .options = {"epochs", "8", "lr", "0.05"}};
    expect_ok(&help);
    ck_assert_str_eq(help.kept, "best");
    ck_assert_msg(help.accuracy > help.start_accuracy && !help.n_warnings, "%g to %g", help.start_accuracy,
                  help.accuracy);
    struct trial harmed_average = harm;
    harmed_average.options[8] = "ema";
    harmed_average.options[9] = "0.5";
    expect_ok(&harmed_average);
    expect_same(&good, &harmed_average, "kept, with an average", 0);
}
END_TEST

/* The further a trained model has to go, the higher its rate, within bounds; never of a rate that was given. */
START_TEST(the_rate_goes_by_how_good_the_model_is)
{
    const char *const epochs[] = {"1", "40"};
    double lr[2];
    for (int i = 0; i < 2; i++) {
        struct trial was = {.options = {"epochs", epochs[i], "init", "fresh", "lr", i ? "0.1" : "0.001",
                                        "label-smoothing", "0"}};
        expect_ok(&was);
        struct trial t = {.start = &was, .options = {"epochs", "1"}};
        expect_ok(&t);
        lr[i] = t.lr;
        struct trial given = {.start = &was, .options = {"epochs", "1", "lr", "0.02"}};
        expect_ok(&given);
        ck_assert(fabs(given.lr - 0.02) < 1e-12);
        struct trial values = {.start = &was, .options = {"epochs", "1", "loss", "mse", "optimizer", "adam"}};
        expect_ok(&values);
        ck_assert_msg(fabs(values.lr - 0.0003) < 1e-12, "%g", values.lr);
    }
    ck_assert_msg(fabs(lr[0] - 0.03) < 1e-12, "untrained: %g", lr[0]);
    ck_assert_msg(lr[1] >= 0.01 && lr[1] < 0.02, "trained: %g", lr[1]);
}
END_TEST

START_TEST(frozen_parameters_stay)
{
    struct trial t = {.no_norm = true, .options = {"epochs", "2", "freeze", "w1", "freeze", "b?"}};
    expect_ok(&t);
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    struct mopt_model *m = make_trial_model(ctx, N_CLASSES, false);
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
    reset_trial_disk();
    struct trial t = {.no_norm = true,
                      .options = {"epochs", "9", "lr", "3000", "optimizer", "sgd", "schedule", "constant", "checkpoint",
                                  "run.ckpt", "checkpoint-every", "0", "clip", "0"}};
    run_trial(&t);
    ck_assert_msg(t.status == MOPT_FAILED, "%d: %s", t.status, t.error);
    ck_assert_msg(strstr(t.error, "step") && strstr(t.error, "run.ckpt"), "%s", t.error);
    ck_assert_int_gt(trial_disk.n_writes, 0);
    struct mopt_ctx ctx = {.n_threads = 1};
    struct mo_io io = {.read_file = read_trial_file};
    ctx.io = &io;
    struct mo_checkpoint *c;
    ck_assert_int_eq(mo_checkpoint_read(&ctx, "run.ckpt", &c), MOPT_OK);
    uint64_t n;
    const float *w = mo_checkpoint_part(c, "weights", &n);
    ck_assert_ptr_nonnull(w);
    for (uint64_t i = 0; i < n / sizeof *w; i++)
        ck_assert(isfinite(w[i]));
    mo_checkpoint_free(c);
    reset_trial_disk();
}
END_TEST

START_TEST(labels_without_a_class_are_refused)
{
    trial_data.n_classes = 5;
    struct trial many = {.options = {"epochs", "1"}};
    run_trial(&many);
    ck_assert_int_eq(many.status, MOPT_DATA);
    trial_data.n_classes = N_CLASSES;
    trial_data.label[17] = 7;
    struct trial one = {.options = {"epochs", "1", "val-split", "0"}};
    run_trial(&one);
    ck_assert_int_eq(one.status, MOPT_DATA);
    ck_assert_msg(strstr(one.error, "17") && strstr(one.error, "7"), "%s", one.error);
}
END_TEST

START_TEST(a_checkpoint_of_something_else_is_refused)
{
    reset_trial_disk();
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
    reset_trial_disk();
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
    tcase_add_checked_fixture(c, make_trial_data, NULL);
    tcase_add_test(c, every_optimizer_learns);
    tcase_add_test(c, every_schedule_learns);
    tcase_add_test(c, values_are_learned);
    tcase_add_test(c, one_logit_takes_two_classes);
    tcase_add_test(c, going_on_gives_the_same_bits);
    tcase_add_test(c, threads_do_not_matter);
    tcase_add_test(c, bf16_learns_as_well);
    tcase_add_test(c, accumulated_steps_are_steps_of_large_batches);
    tcase_add_test(c, fine_tuning_never_makes_it_worse);
    tcase_add_test(c, the_rate_goes_by_how_good_the_model_is);
    tcase_add_test(c, frozen_parameters_stay);
    tcase_add_test(c, a_broken_loss_stops_and_keeps_the_checkpoint);
    tcase_add_test(c, labels_without_a_class_are_refused);
    tcase_add_test(c, a_checkpoint_of_something_else_is_refused);
    suite_add_tcase(s, c);
    return s;
}
