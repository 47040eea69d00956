/* Ten steps of every optimizer and the rates of every schedule against float64 references; segments: frozen
 * parameters stay, decay skips what it should. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "lib/run/optim.h"
#include "tests/support/kernel_bench.h"
#include "tests/unit/optim_values.h"

enum { GAP = 16, TOTAL = 64 };          /* alignment of parameters; two of them and one of state */

struct fixture {
    struct mopt_ctx *ctx;
    struct mo_run run;
    struct mo_param params[3];
    float weights[TOTAL], grads[TOTAL];
};

static void set_up(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    f->ctx = mopt_open("cpu", 1);
    ck_assert_int_eq(mo_device_need(f->ctx), MOPT_OK);
    f->params[0] = (struct mo_param){.name = "w", .offset = 0, .n_elems = N_DECAY};
    f->params[1] = (struct mo_param){.name = "b", .offset = GAP, .n_elems = N_ELEMS - N_DECAY, .no_decay = true};
    f->params[2] = (struct mo_param){.name = "mean", .offset = 2 * GAP, .n_elems = 3, .is_state = true};
    f->run = (struct mo_run){.ctx = f->ctx, .be = f->ctx->backend, .dev = f->ctx->device, .params = f->params,
                             .n_params = 3, .weights = f->weights, .grads = f->grads, .n_trained = 2 * GAP,
                             .n_weights = 3 * GAP};
    for (int i = 0; i < N_ELEMS; i++)
        f->weights[i < N_DECAY ? i : GAP + i - N_DECAY] = cosf((float)i * 0.7f);
}

static void tear_down(struct fixture *f)
{
    mopt_close(f->ctx);
}

static float *element(float *buffer, int i)
{
    return &buffer[i < N_DECAY ? i : GAP + i - N_DECAY];
}

static void check_case(const struct mo_optim_options *options, double lr, const double *want)
{
    struct fixture f;
    set_up(&f);
    struct mo_optim *optim;
    ck_assert_int_eq(mo_optim_new(&f.run, options, &optim), MOPT_OK);
    for (int t = 1; t <= N_STEPS; t++) {
        for (int i = 0; i < N_ELEMS; i++)
            *element(f.grads, i) = sinf((float)i * 1.3f + (float)t) + 0.5f * *element(f.weights, i);
        mo_optim_step(optim, lr, NULL);
    }
    mo_optim_swap_ema(optim);
    for (int i = 0; i < N_ELEMS; i++)
        ck_assert_msg(fabs(*element(f.weights, i) - want[i]) < 4e-6, "element %d: %.9g, not %.9g", i,
                      (double)*element(f.weights, i), want[i]);
    for (int i = N_DECAY; i < GAP; i++)
        ck_assert_msg(f.weights[i] == 0, "gap element %d became %g", i, (double)f.weights[i]);
    mo_optim_free(optim);
    tear_down(&f);
}

/* The same rules where a device updates all in one launch: beside the kernels of the CPU, with clipping and an average. */
static void check_one_launch(const struct mo_backend *be, const struct mo_optim_options *options, float scale)
{
    struct fixture here, there;
    struct mo_optim *a, *b;
    double norm_a, norm_b;
    float got[TOTAL];
    char why[200];
    set_up(&here);
    set_up(&there);
    struct mo_device *dev = be->open(0, 1, why, sizeof why);
    ck_assert_msg(dev, "%s", why);
    float *weights = be->alloc(dev, sizeof there.weights), *grads = be->alloc(dev, sizeof there.grads);
    be->upload(dev, weights, there.weights, sizeof there.weights);
    there.run.be = be, there.run.dev = dev, there.run.weights = weights, there.run.grads = grads;
    ck_assert_int_eq(mo_optim_new(&here.run, options, &a), MOPT_OK);
    ck_assert_int_eq(mo_optim_new(&there.run, options, &b), MOPT_OK);
    mo_optim_set_scale(b, scale);
    for (int t = 1; t <= N_STEPS; t++) {
        for (int i = 0; i < N_ELEMS; i++)
            *element(here.grads, i) = sinf((float)i * 1.3f + (float)t);
        for (int i = 0; i < TOTAL; i++)
            there.grads[i] = scale * here.grads[i];
        if (scale != 1 && t == 2) {     /* a gradient that is none is not used */
            float bad[TOTAL] = { INFINITY };
            be->upload(dev, grads, bad, sizeof bad);
            ck_assert(!mo_optim_step(b, 0.01, NULL));
        }
        be->upload(dev, grads, there.grads, sizeof there.grads);
        mo_optim_step(a, 0.01, &norm_a);
        ck_assert(mo_optim_step(b, 0.01, &norm_b));
        ck_assert_msg(fabs(norm_a - norm_b) < 1e-5 * norm_a, "norm %g, not %g", norm_b, norm_a);
    }
    mo_optim_swap_ema(a);
    mo_optim_swap_ema(b);
    be->download(dev, got, weights, sizeof got);
    for (int i = 0; i < TOTAL; i++)
        ck_assert_msg(fabsf(got[i] - here.weights[i]) < 2e-6f, "optimizer %d element %d: %.9g, not %.9g", options->kind, i,
                      (double)got[i], (double)here.weights[i]);
    ck_assert_int_eq(be->sync(dev, why, sizeof why), 0);
    mo_optim_free(a);
    mo_optim_free(b);
    be->free(dev, weights);
    be->free(dev, grads);
    be->close(dev);
    tear_down(&here);
    tear_down(&there);
}

static struct mo_optim_options base(enum mo_optimizer kind)
{
    return (struct mo_optim_options){.kind = kind, .momentum = 0.9, .alpha = 0.99, .beta1 = 0.9, .beta2 = 0.999,
                                     .eps = 1e-8, .weight_decay = 0.02};
}

START_TEST(optimizers_follow_their_formulas)
{
    struct mo_optim_options o = base(MO_OPT_GD);
    check_case(&o, 0.1, want_gd);
    o = base(MO_OPT_SGD);
    check_case(&o, 0.1, want_sgd);
    o.decay_all = true;
    check_case(&o, 0.1, want_sgd_decay_all);
    o = base(MO_OPT_MOMENTUM);
    check_case(&o, 0.1, want_momentum);
    o = base(MO_OPT_NESTEROV);
    check_case(&o, 0.1, want_nesterov);
    o.clip = 1;
    check_case(&o, 0.1, want_nesterov_clip);
    o = base(MO_OPT_RMSPROP);
    check_case(&o, 0.01, want_rmsprop_momentum);
    o.momentum = 0;
    check_case(&o, 0.01, want_rmsprop);
    o = base(MO_OPT_ADAM);
    check_case(&o, 0.01, want_adam);
    o.clip = 0.5;
    check_case(&o, 0.01, want_adam_clip);
    o = base(MO_OPT_ADAMW);
    o.weight_decay = 0.5;
    check_case(&o, 0.01, want_adamw);
}
END_TEST

START_TEST(averages_are_kept_and_swapped)
{
    struct mo_optim_options o = base(MO_OPT_SGD);
    o.ema = 0.5;
    check_case(&o, 0.1, want_sgd_ema);
}
END_TEST

START_TEST(frozen_parameters_stay)
{
    struct fixture f;
    set_up(&f);
    f.params[0].is_frozen = true;
    float before[TOTAL];
    memcpy(before, f.weights, sizeof before);
    struct mo_optim_options o = base(MO_OPT_ADAM);
    o.decay_all = true;
    o.clip = 1;
    struct mo_optim *optim;
    ck_assert_int_eq(mo_optim_new(&f.run, &o, &optim), MOPT_OK);
    for (int i = 0; i < N_ELEMS; i++)
        *element(f.grads, i) = 2;
    double norm;
    mo_optim_step(optim, 0.1, &norm);
    ck_assert(fabs(norm - sqrt(3 * 4.0)) < 1e-6);       /* the frozen gradient does not count */
    for (int i = 0; i < N_ELEMS; i++)
        ck_assert_int_eq(*element(f.weights, i) == *element(before, i), i < N_DECAY);
    mo_optim_free(optim);
    tear_down(&f);
}
END_TEST

/* Writing the buffers back and the count of steps gives the same bits as going on. */
START_TEST(state_can_be_saved_and_restored)
{
    struct fixture a, b;
    set_up(&a);
    set_up(&b);
    struct mo_optim_options o = base(MO_OPT_ADAMW);
    o.ema = 0.9;
    struct mo_optim *oa, *ob;
    ck_assert_int_eq(mo_optim_new(&a.run, &o, &oa), MOPT_OK);
    ck_assert_int_eq(mo_optim_new(&b.run, &o, &ob), MOPT_OK);
    for (int t = 0; t < 6; t++) {
        if (t == 3) {
            const char *na[MO_OPTIM_MAX_BUFFERS], *nb[MO_OPTIM_MAX_BUFFERS];
            float *pa[MO_OPTIM_MAX_BUFFERS], *pb[MO_OPTIM_MAX_BUFFERS];
            size_t la[MO_OPTIM_MAX_BUFFERS], lb[MO_OPTIM_MAX_BUFFERS];
            int n = mo_optim_buffers(oa, na, pa, la);
            ck_assert_int_eq(n, 3);
            ck_assert_int_eq(mo_optim_buffers(ob, nb, pb, lb), n);
            for (int i = 0; i < n; i++) {
                ck_assert_str_eq(na[i], nb[i]);
                memcpy(pb[i], pa[i], la[i] * sizeof(float));
            }
            memcpy(b.weights, a.weights, sizeof b.weights);
            mo_optim_set_steps(ob, mo_optim_steps(oa));
        }
        for (int i = 0; i < N_ELEMS; i++)
            *element(a.grads, i) = *element(b.grads, i) = cosf((float)(i * t));
        mo_optim_step(oa, 0.01, NULL);
        if (t >= 3)
            mo_optim_step(ob, 0.01, NULL);
    }
    mo_optim_swap_ema(oa);
    mo_optim_swap_ema(ob);
    ck_assert_mem_eq(a.weights, b.weights, sizeof a.weights);
    mo_optim_free(oa);
    mo_optim_free(ob);
    tear_down(&a);
    tear_down(&b);
}
END_TEST

static void check_schedule(enum mo_schedule kind, double warmup, const double *want)
{
    struct mo_schedule_options s = {.kind = kind, .lr = 0.3, .warmup = warmup, .gamma = 0.5, .step_epochs = 2};
    for (uint64_t k = 0; k < 10; k++) {
        double lr = mo_schedule_lr(&s, k, 10, k / 3, 0);
        ck_assert_msg(fabs(lr - 0.3 * want[k]) < 1e-12, "schedule %d step %d: %g, not %g", kind, (int)k, lr,
                      0.3 * want[k]);
    }
}

START_TEST(schedules_follow_their_formulas)
{
    check_schedule(MO_SCHED_CONSTANT, 0, want_constant);
    check_schedule(MO_SCHED_CONSTANT, 0.3, want_constant_warm);
    check_schedule(MO_SCHED_STEP, 0, want_step);
    check_schedule(MO_SCHED_COSINE, 0, want_cosine);
    check_schedule(MO_SCHED_ONE_CYCLE, 0.2, want_one_cycle);
    check_schedule(MO_SCHED_LINEAR, 0, want_linear);
}
END_TEST

START_TEST(a_ramp_bounds_the_first_steps_of_every_schedule)
{
    struct mo_schedule_options s = {.kind = MO_SCHED_CONSTANT, .lr = 0.4, .ramp = 4};
    const double want[] = {0.1, 0.2, 0.3, 0.4, 0.4};
    for (uint64_t k = 0; k < MO_COUNT(want); k++)
        ck_assert(fabs(mo_schedule_lr(&s, k, 10, 0, 0) - want[k]) < 1e-12);
    s.kind = MO_SCHED_LINEAR;
    ck_assert(fabs(mo_schedule_lr(&s, 3, 5, 0, 0) - 0.4 * 0.4) < 1e-12);
}
END_TEST

START_TEST(plateau_drops_after_patience)
{
    struct mo_schedule_options s = {.kind = MO_SCHED_PLATEAU, .lr = 1, .gamma = 0.1, .step_epochs = 1};
    struct mo_plateau p = {0};
    const double scores[] = {0.5, 0.6, 0.6, 0.6, 0.60001, 0.7, 0.7, 0.7};
    const int64_t drops[] = {0, 0, 0, 1, 1, 1, 1, 2};
    for (size_t i = 0; i < MO_COUNT(scores); i++) {
        mo_plateau_note(&p, &s, scores[i]);
        ck_assert_int_eq(p.drops, drops[i]);
    }
    ck_assert(fabs(mo_schedule_lr(&s, 5, 10, 2, p.drops) - 0.01) < 1e-12);
}
END_TEST

START_TEST(one_launch_follows_the_kernels)
{
    const struct mo_backend *be = emulated_backend(_i % 2);
    for (int kind = MO_OPT_GD; be && kind <= MO_OPT_ADAMW; kind++) {
        struct mo_optim_options o = base((enum mo_optimizer)kind);
        o.clip = 0.7;
        o.ema = _i == 2 ? 0 : 0.9;
        check_one_launch(be, &o, _i == 1 ? 1024 : 1);
    }
}
END_TEST

Suite *suite_optim(void);
Suite *suite_optim(void)
{
    Suite *s = suite_create("optim");
    TCase *c = tcase_create("optim");
    tcase_add_loop_test(c, one_launch_follows_the_kernels, 0, 3);
    tcase_add_test(c, optimizers_follow_their_formulas);
    tcase_add_test(c, averages_are_kept_and_swapped);
    tcase_add_test(c, frozen_parameters_stay);
    tcase_add_test(c, state_can_be_saved_and_restored);
    tcase_add_test(c, schedules_follow_their_formulas);
    tcase_add_test(c, a_ramp_bounds_the_first_steps_of_every_schedule);
    tcase_add_test(c, plateau_drops_after_patience);
    suite_add_tcase(s, c);
    return s;
}
