/* Distillation on generated data: the student comes to answer as its teacher does, each method; resumed runs; what
 * does not fit is refused. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "tests/support/train_support.h"

static struct trial teach(bool no_norm)
{
    struct trial t = {.no_norm = no_norm, .options = {"epochs", "20", "init", "fresh", "seed", "3"}};
    expect_ok(&t);
    ck_assert(t.accuracy > 0.7);
    return t;
}

START_TEST(every_method_learns)
{
    struct trial teacher = teach(false);
    const char *const methods[] = {"kd", "dkd", "mse"};
    for (size_t i = 0; i < MO_COUNT(methods); i++) {
        struct trial t = {.pass = "distill", .teacher = &teacher,
                          .options = {"teacher", "t.onnx", "method", methods[i], "epochs", "15", "init", "fresh", "lr",
                                      "0.02"}};
        expect_ok(&t);
        ck_assert_msg(t.loss_last < 0.7 * t.loss_first, "%s: loss %g to %g", methods[i], t.loss_first, t.loss_last);
        ck_assert_msg(t.accuracy > 0.7, "%s: accuracy %g", methods[i], t.accuracy);
    }
}
END_TEST

/* With alpha 1 a student that starts as its teacher has nothing to learn: no loss, and its weights stay. */
START_TEST(a_student_that_is_its_teacher_stays)
{
    struct trial none = {.no_norm = true,
                         .options = {"epochs", "1", "lr", "1e-30", "weight-decay", "0", "keep", "last"}};
    expect_ok(&none); /* the weights that every model here starts with */
    struct trial t = {.pass = "distill", .teacher = &none, .no_norm = true,
                      .options = {"teacher", "t.onnx", "alpha", "1", "epochs", "3", "weight-decay", "0", "keep",
                                  "last"}};
    expect_ok(&t);
    ck_assert_msg(fabs(t.loss_last) < 1e-6, "loss %g", t.loss_last);
    for (size_t i = 0; i < t.n_weights; i++)
        ck_assert_msg(fabsf(t.weights[i] - none.weights[i]) < 1e-5f, "weight %zu moved by %g", i,
                      (double)(t.weights[i] - none.weights[i]));
}
END_TEST

/* Smoothed labels leave a note in the model, and who makes it a teacher hears of it. */
START_TEST(a_teacher_of_smoothed_labels_is_warned_of)
{
    const char *const smoothing[] = {"0.1", "0"};
    for (int i = 0; i < 2; i++) {
        struct trial teacher = {.no_norm = true,
                                .options = {"epochs", "1", "init", "fresh", "label-smoothing", smoothing[i]}};
        expect_ok(&teacher);
        ck_assert_str_eq(teacher.smoothing, smoothing[i]);
        struct trial t = {.pass = "distill", .teacher = &teacher, .no_norm = true,
                          .options = {"teacher", "t.onnx", "epochs", "1", "init", "fresh"}};
        expect_ok(&t);
        ck_assert_int_eq(t.n_warnings, 1 - i);
        ck_assert_str_eq(t.smoothing, "0");
    }
}
END_TEST

START_TEST(going_on_gives_the_same_bits)
{
    struct trial teacher = teach(true);
    check_resume("distill", &teacher, (const char *[24]){"teacher", "t.onnx", "epochs", "2.5", "init", "fresh"});
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct trial teacher = teach(true);
    struct trial none = {.pass = "distill", .options = {"epochs", "1"}};
    run_trial(&none);
    ck_assert_int_eq(none.status, MOPT_USAGE);
    struct trial narrow = {.pass = "distill", .teacher = &teacher, .n_out = 4, .options = {"teacher", "t.onnx"}};
    run_trial(&narrow);
    ck_assert_msg(narrow.status == MOPT_USAGE && strstr(narrow.error, "3") && strstr(narrow.error, "4"), "%d: %s",
                  narrow.status, narrow.error);
    reset_trial_disk();
    struct trial first = {.pass = "distill", .teacher = &teacher,
                          .options = {"teacher", "t.onnx", "epochs", "1", "checkpoint", "run.ckpt"}};
    expect_ok(&first);
    struct trial other = {.pass = "distill", .teacher = &teacher,
                          .options = {"teacher", "t.onnx", "epochs", "1", "resume", "run.ckpt", "alpha", "0.7"}};
    run_trial(&other);
    ck_assert_msg(other.status == MOPT_USAGE, "%d: %s", other.status, other.error);
    reset_trial_disk();
}
END_TEST

Suite *suite_distill(void);
Suite *suite_distill(void)
{
    Suite *s = suite_create("distill");
    TCase *c = tcase_create("distill");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, make_trial_data, NULL);
    tcase_add_test(c, every_method_learns);
    tcase_add_test(c, a_student_that_is_its_teacher_stays);
    tcase_add_test(c, a_teacher_of_smoothed_labels_is_warned_of);
    tcase_add_test(c, going_on_gives_the_same_bits);
    tcase_add_test(c, what_does_not_fit_is_refused);
    suite_add_tcase(s, c);
    return s;
}
