/* Quantization: ranges from histograms against numbers that are known, integers of weights and biases, the structure
 * that the writers leave behind, folding and upgrading, what is refused. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/graph/op.h"
#include "lib/passes/quantize.h"
#include "lib/passes/select.h"
#include "lib/run/run.h"

/* ---- a small net ---------------------------------------------------------------------------- */

struct net { struct mopt_ctx *ctx; struct mopt_model *model; struct mo_graph *g; };

static mo_value_id add_value(struct net *t, const char *name)
{
    mo_value_id v = mo_graph_add_value(t->g, name, MO_F32, NULL);
    ck_assert_uint_ne(v, MO_NONE);
    return v;
}

static mo_value_id constant(struct net *t, const char *name, struct mo_shape shape, uint64_t seed)
{
    int64_t n = mo_shape_elems(&shape);
    float *x = malloc((size_t)n * sizeof *x);
    struct mo_rng rng = mo_rng_new(seed, MO_RNG_TEST, 0);
    for (int64_t i = 0; i < n; i++)
        x[i] = mo_rng_normal(&rng);
    mo_value_id v = mo_graph_add_const(t->g, name, MO_F32, &shape, x);
    free(x);
    ck_assert_uint_ne(v, MO_NONE);
    return v;
}

static mo_value_id node(struct net *t, const char *type, const char *out, uint32_t n_in, const mo_value_id *in)
{
    mo_value_id y = add_value(t, out);
    ck_assert_uint_ne(mo_graph_add_node(t->g, type, NULL, out, in, n_in, &y, 1), MO_NONE);
    return y;
}

#define NODE(t, type, out, ...) \
    node(t, type, out, sizeof((mo_value_id[]){ __VA_ARGS__ }) / sizeof(mo_value_id), (mo_value_id[]){ __VA_ARGS__ })

static mo_node_id last(const struct net *t)
{
    return t->g->n_nodes - 1;
}

static mo_value_id conv(struct net *t, const char *name, mo_value_id x, int64_t c_in, int64_t c_out, uint64_t seed)
{
    char weight[64], bias[64];
    int64_t pads[4] = { 1, 1, 1, 1 }, kernel[2] = { 3, 3 };
    snprintf(weight, sizeof weight, "%s.w", name);
    snprintf(bias, sizeof bias, "%s.b", name);
    mo_value_id w = constant(t, weight, mo_shape_of(4, c_out, c_in, (int64_t)3, (int64_t)3), seed);
    mo_value_id b = constant(t, bias, mo_shape_of(1, c_out), seed + 1);
    mo_value_id y = NODE(t, "Conv", name, x, w, b);
    ck_assert(mo_node_set_ints(t->g, last(t), "pads", pads, 4) && mo_node_set_ints(t->g, last(t), "kernel_shape", kernel, 2));
    return y;
}

static mo_value_id net_new(struct net *t, int opset, struct mo_shape shape)
{
    t->ctx = mopt_open("cpu", 1);
    t->model = mo_model_new();
    ck_assert(t->ctx && t->model);
    t->g = &t->model->graph;
    ck_assert(mo_model_set_opset(t->model, "", opset));
    mo_value_id x = mo_graph_add_value(t->g, "x", MO_F32, &shape);
    ck_assert(mo_graph_add_input(t->g, x));
    return x;
}

static void net_free(struct net *t)
{
    mopt_model_free(t->model);
    mopt_close(t->ctx);
}

static void finish(struct net *t, mo_value_id y)
{
    ck_assert(mo_graph_add_output(t->g, y));
    ck_assert_msg(!mo_graph_sort(t->ctx, t->g), "%s", mopt_error(t->ctx));
    ck_assert_msg(!mo_infer(t->ctx, t->g, NULL, 0), "%s", mopt_error(t->ctx));
}

/* A job around a net, with settings that select everything. */
struct job { struct mo_job job; struct mo_job_settings settings; struct mo_arena scratch; };

static void job_new(struct job *j, struct net *t)
{
    memset(j, 0, sizeof *j);
    j->job = (struct mo_job){ .ctx = t->ctx, .model = t->model, .settings = &j->settings, .scratch = &j->scratch,
                              .report = mo_report_new(), .name = "model" };
    ck_assert(!mo_hits_new(t->ctx, &j->scratch, &j->settings, &j->job.hits));
}

static void job_free(struct job *j)
{
    mopt_report_free(j->job.report);
    mo_arena_release(&j->scratch);
}

/* Plans, gives every group the range, writes. */
static void write_with_range(struct net *t, struct job *j, const struct mo_quant_form *form, float low, float high,
                             bool for_training, struct mo_quant_written *written)
{
    struct mo_quant_plan plan;
    enum mo_quant_wish *wish = mo_arena_new(&j->scratch, t->g->n_nodes + 1, sizeof *wish);
    ck_assert(!mo_quant_selection(&j->job, t->g, wish));
    ck_assert(!mo_quant_plan(&j->job, t->g, form, wish, &plan));
    for (uint32_t i = 0; i < plan.n_groups; i++) {
        plan.groups[i].range = (struct mo_range){ low, high };
        mo_quant_params(&plan.groups[i], form);
    }
    ck_assert_msg(!mo_quant_write(&j->job, t->model, form, &plan, for_training, written), "%s", mopt_error(t->ctx));
    ck_assert_msg(!mo_graph_check(t->ctx, t->g), "%s", mopt_error(t->ctx));
    ck_assert_msg(!mo_infer(t->ctx, t->g, NULL, 0), "%s", mopt_error(t->ctx));
}

static const struct mo_quant_form x86 = { .act = MO_U8, .quantize_bias = true, .weight_max = 127, .per_channel = true,
                                         .float_attention = true };

static uint32_t count(const struct net *t, const char *type)
{
    uint32_t n = 0;
    for (mo_node_id i = 0; i < t->g->n_nodes; i++)
        n += mo_node_is(&t->g->nodes[i], type);
    return n;
}

static const struct mo_node *find(const struct net *t, const char *name)
{
    for (mo_node_id i = 0; i < t->g->n_nodes; i++)
        if (!strcmp(t->g->nodes[i].name, name))
            return &t->g->nodes[i];
    ck_abort_msg("no node '%s'", name);
    return NULL;
}

static const struct mo_node *producer(const struct net *t, mo_value_id v, const char *type)
{
    mo_node_id i = t->g->values[v].producer;
    ck_assert_msg(i != MO_NONE && mo_node_is(&t->g->nodes[i], type), "'%s' does not come from a %s",
                  t->g->values[v].name, type);
    return &t->g->nodes[i];
}

/* The only reader of a value is a Q. */
static const struct mo_node *only_q(const struct net *t, mo_value_id v)
{
    mo_node_id user;
    ck_assert_uint_eq(t->g->values[v].n_uses, 1);
    ck_assert_uint_eq(mo_value_users(t->g, v, &user, 1), 1);
    ck_assert(mo_node_is(&t->g->nodes[user], "QuantizeLinear"));
    return &t->g->nodes[user];
}

static double scalar(const struct net *t, mo_value_id v)
{
    double x = NAN;
    ck_assert(mo_value_scalar(&t->g->values[v], &x));
    return x;
}

/* conv1 - relu - conv2 - add (relu) - relu - maxpool - gap - flatten - gemm */
static void residual_net(struct net *t)
{
    mo_value_id x = net_new(t, 13, mo_shape_of(4, (int64_t)2, (int64_t)3, (int64_t)8, (int64_t)8));
    mo_value_id r1 = NODE(t, "Relu", "relu1", conv(t, "conv1", x, 3, 4, 10));
    mo_value_id c2 = conv(t, "conv2", r1, 4, 4, 20);
    mo_value_id r2 = NODE(t, "Relu", "relu2", NODE(t, "Add", "add", c2, r1));
    mo_value_id p = NODE(t, "MaxPool", "pool", r2);
    ck_assert(mo_node_set_ints(t->g, last(t), "kernel_shape", (int64_t[]){ 2, 2 }, 2));
    ck_assert(mo_node_set_ints(t->g, last(t), "strides", (int64_t[]){ 2, 2 }, 2));
    mo_value_id f = NODE(t, "Flatten", "flatten", NODE(t, "GlobalAveragePool", "gap", p));
    mo_value_id w = constant(t, "fc.w", mo_shape_of(2, (int64_t)4, (int64_t)10), 30);
    mo_value_id b = constant(t, "fc.b", mo_shape_of(1, (int64_t)10), 31);
    finish(t, NODE(t, "Gemm", "fc", f, w, b));
}

/* ---- ranges -------------------------------------------------------------------------------------- */

struct bench { struct mopt_ctx *ctx; struct mo_histogram_scratch scratch; struct mo_histogram *h; };

static void bench_new(struct bench *b)
{
    b->ctx = mopt_open("cpu", 1);
    ck_assert(b->ctx && !mo_device_need(b->ctx));
    ck_assert(mo_histogram_scratch_new(b->ctx->backend, b->ctx->device, &b->scratch));
    b->h = calloc(1, sizeof *b->h);
}

static void bench_free(struct bench *b)
{
    mo_histogram_scratch_free(b->ctx->backend, b->ctx->device, &b->scratch);
    mopt_close(b->ctx);
    free(b->h);
}

static enum mopt_status add(struct bench *b, const float *x, size_t n)
{
    return mo_histogram_add(b->ctx, b->ctx->backend, b->ctx->device, &b->scratch, b->h, x, n);
}

enum { N = 100000 };
static float *draw(bool normal, float scale, uint64_t seed)
{
    float *x = malloc(N * sizeof *x);
    struct mo_rng rng = mo_rng_new(seed, MO_RNG_TEST, 1);
    for (int i = 0; i < N; i++)
        x[i] = scale * (normal ? mo_rng_normal(&rng) : mo_rng_float(&rng));
    return x;
}

static struct mo_range range_of(const struct bench *b, enum mo_calib_method method, double percentile, bool symmetric)
{
    struct mo_range_rule rule = { .method = method, .percentile = percentile, .n_levels = 256, .symmetric = symmetric };
    return mo_histogram_range(b->h, &rule);
}

START_TEST(histogram_grows_and_loses_nothing)
{
    struct bench b;
    bench_new(&b);
    float zeros[7] = { 0 }, *x = draw(true, 1, 1), far[2] = { -1000, 900 };
    ck_assert(!add(&b, zeros, 7) && !add(&b, x, N) && !add(&b, far, 2));
    uint64_t sum = 0;
    for (int i = 0; i < MO_HIST_BINS; i++)
        sum += b.h->counts[i];
    ck_assert_uint_eq(sum, N + 9);
    ck_assert_uint_eq(b.h->n, N + 9);
    ck_assert(b.h->min == -1000 && b.h->max == 900);
    ck_assert(b.h->low <= -1000 && b.h->low + b.h->width * MO_HIST_BINS >= 900);
    /* the elements of the first batches lie where they lay: all but two within 6 of zero */
    uint64_t near = 0;
    for (int i = 0; i < MO_HIST_BINS; i++)
        if (b.h->low + (i + 1) * b.h->width > -6 && b.h->low + i * b.h->width < 6)
            near += b.h->counts[i];
    ck_assert_uint_eq(near, N + 7);
    free(x);
    bench_free(&b);
}
END_TEST

START_TEST(minmax_is_exact_and_holds_zero)
{
    struct bench b;
    bench_new(&b);
    float x[3] = { 2.5f, 3.25f, 7.125f };
    ck_assert(!add(&b, x, 3));
    struct mo_range r = range_of(&b, MO_CALIB_MINMAX, 0, false);
    ck_assert(r.low == 0 && r.high == 7.125f);
    bench_free(&b);
}
END_TEST

START_TEST(percentile_of_uniform)
{
    struct bench b;
    bench_new(&b);
    float *x = draw(false, 1, 2);
    ck_assert(!add(&b, x, N));
    ck_assert_double_eq_tol(range_of(&b, MO_CALIB_PERCENTILE, 99, false).high, 0.99, 0.002);
    ck_assert_double_eq_tol(range_of(&b, MO_CALIB_PERCENTILE, 90, false).high, 0.90, 0.004);
    for (int i = 0; i < N; i++)
        x[i] = x[i] * 2 - 1;
    ck_assert(!add(&b, x, N));
    free(x);
    bench_free(&b);
}
END_TEST

static double mse_of(const float *x, double low, double high)
{
    double scale = (high - low) / 255, zero = rint(-low / scale), sum = 0;
    for (int i = 0; i < N; i++) {
        double q = fmin(fmax(rint(x[i] / scale) + zero, 0), 255);
        sum += (x[i] - (q - zero) * scale) * (x[i] - (q - zero) * scale);
    }
    return sum / N;
}

/* The best symmetric uniform quantizer of a normal variable with 256 steps has steps of 0.0308 sigma (J. Max, 1960,
 * continued in Jayant and Noll, table 4.2): it reaches 3.94 sigma. */
START_TEST(mse_of_normal)
{
    enum { DRAWS = 10 };        /* a million, whose extremes lie near 4.9 sigma */
    struct bench b;
    float *x[DRAWS];
    bench_new(&b);
    for (uint64_t k = 0; k < DRAWS; k++) {
        x[k] = draw(true, 2, 100 + k);
        ck_assert(!add(&b, x[k], N));
    }
    struct mo_range r = range_of(&b, MO_CALIB_MSE, 0, false), s = range_of(&b, MO_CALIB_MSE, 0, true);
    ck_assert_double_eq_tol(r.high, 2 * 3.94, 2 * 0.25);
    ck_assert_double_eq_tol(-r.low, 2 * 3.94, 2 * 0.25);
    ck_assert_double_eq_tol(s.high, 2 * 3.94, 2 * 0.25);
    ck_assert(s.low == -s.high);
    /* what the bins say of the error agrees with the elements, and no range of the grid does better on those */
    double chosen = mo_histogram_mse(b.h, r.low, r.high, 256), here = 0;
    for (int k = 0; k < DRAWS; k++)
        here += mse_of(x[k], r.low, r.high) / DRAWS;
    ck_assert_double_eq_tol(chosen, here, 0.01 * here);
    for (int step = 0; step < 40; step++) {
        double there = 0, f = 1 - 0.8 * step / 99;
        for (int k = 0; k < DRAWS; k++)
            there += mse_of(x[k], b.h->min * f, b.h->max * f) / DRAWS;
        ck_assert_double_le(here, 1.001 * there);
    }
    for (int k = 0; k < DRAWS; k++)
        free(x[k]);
    bench_free(&b);
}
END_TEST

START_TEST(one_outlier_does_not_set_the_range)
{
    struct bench b;
    bench_new(&b);
    float *x = draw(false, 1, 4), far = 40;
    ck_assert(!add(&b, x, N) && !add(&b, &far, 1));
    ck_assert(range_of(&b, MO_CALIB_MINMAX, 0, false).high == 40);
    ck_assert_double_lt(range_of(&b, MO_CALIB_PERCENTILE, 99.99, false).high, 1.05);
    ck_assert_double_lt(range_of(&b, MO_CALIB_ENTROPY, 0, false).high, 12);
    /* N (h / 255)^2 / 12 + (40 - h)^2 is least at h = 40 / (1 + N / 255^2 / 12) */
    ck_assert_double_eq_tol(range_of(&b, MO_CALIB_MSE, 0, false).high, 40 / (1 + N / 255.0 / 255 / 12), 0.5);
    free(x);
    bench_free(&b);
}
END_TEST

START_TEST(entropy_keeps_a_uniform_whole)
{
    struct bench b;
    bench_new(&b);
    float *x = draw(false, 3, 5);
    ck_assert(!add(&b, x, N));
    ck_assert_double_ge(range_of(&b, MO_CALIB_ENTROPY, 0, false).high, 2.7);
    free(x);
    x = draw(true, 1, 6);
    memset(b.h, 0, sizeof *b.h);
    ck_assert(!add(&b, x, N));
    struct mo_range r = range_of(&b, MO_CALIB_ENTROPY, 0, false);
    ck_assert(r.high > 2.5 && r.high <= b.h->max && r.low < -2.5 && r.low >= b.h->min);
    free(x);
    bench_free(&b);
}
END_TEST

START_TEST(nan_among_activations_is_refused)
{
    struct bench b;
    bench_new(&b);
    float x[2] = { 1, NAN }, y[2] = { 1, INFINITY };
    ck_assert_int_eq(add(&b, x, 2), MOPT_DATA);
    mopt_clear(b.ctx);
    ck_assert_int_eq(add(&b, y, 2), MOPT_DATA);
    bench_free(&b);
}
END_TEST

/* ---- parameters, weights, biases ---------------------------------------------------------------------- */

START_TEST(params_by_form)
{
    struct mo_quant_group relu = { .range = { 0, 5.1f }, .clip_low = 0, .clip_high = INFINITY };
    mo_quant_params(&relu, &x86);
    ck_assert_int_eq(relu.zero, 0);
    ck_assert_float_eq_tol(relu.scale, 5.1f / 255, 1e-7f);
    struct mo_quant_group both = { .range = { -1, 3 }, .clip_low = -INFINITY, .clip_high = INFINITY };
    mo_quant_params(&both, &x86);
    ck_assert_int_eq(both.zero, 64);
    struct mo_quant_form arm = x86, trt = x86;
    arm.act = trt.act = MO_I8;
    trt.symmetric = true;
    mo_quant_params(&relu, &arm);
    ck_assert_int_eq(relu.zero, -128);
    mo_quant_params(&both, &trt);
    ck_assert_int_eq(both.zero, 0);
    ck_assert_float_eq_tol(both.scale, 3.0f / 127, 1e-7f);
    struct mo_quant_group clipped = { .range = { -2, 9 }, .clip_low = 0, .clip_high = 6 };
    mo_quant_params(&clipped, &x86);
    ck_assert_int_eq(clipped.zero, 0);
    ck_assert_float_eq_tol(clipped.scale, 6.0f / 255, 1e-7f);
    struct mo_quant_group dead = { .clip_low = -INFINITY, .clip_high = INFINITY };
    mo_quant_params(&dead, &x86);
    ck_assert(dead.zero == 0 && dead.scale == 1);
}
END_TEST

START_TEST(weights_come_back_within_half_a_step)
{
    struct net t;
    net_new(&t, 13, mo_shape_of(1, (int64_t)1));
    mo_value_id w = constant(&t, "w", mo_shape_of(3, (int64_t)5, (int64_t)7, (int64_t)3), 40);
    const float *x = t.g->values[w].data;
    for (int axis = -1; axis < 3; axis++) {
        struct mo_quant_weight q;
        ck_assert(!mo_quant_weight(t.ctx, &t.g->values[w], axis == -1 ? MO_UNKNOWN : axis, 127, NULL, &q));
        ck_assert_int_eq(q.n_scales, axis == -1 ? 1 : t.g->values[w].shape.dim[axis]);
        int most = 0;
        for (int i = 0; i < 105; i++) {
            int c = axis == -1 ? 0 : axis == 0 ? i / 21 : axis == 1 ? i / 3 % 7 : i % 3;
            ck_assert_double_le(fabs(x[i] - q.q[i] * q.scale[c]), q.scale[c] * 0.5001);
            most = MO_MAX(most, abs(q.q[i]));
        }
        ck_assert_int_eq(most, 127);
        ck_assert_double_gt(q.sqnr_db, 35);
        mo_quant_weight_free(&q);
    }
    net_free(&t);
}
END_TEST

START_TEST(large_bias_raises_the_weight_scale)
{
    struct net t;
    float w[4] = { 1e-9f, -1e-9f, 0.5f, 1 }, b[2] = { 100, 1 }, scale_x = 0.01f, *least = NULL, *scale = NULL;
    int32_t *q = NULL;
    net_new(&t, 13, mo_shape_of(1, (int64_t)1));
    mo_value_id wid = mo_graph_add_const(t.g, "w", MO_F32, &(struct mo_shape){ .rank = 2, .dim = { 2, 2 } }, w);
    mo_value_id bid = mo_graph_add_const(t.g, "b", MO_F32, &(struct mo_shape){ .rank = 1, .dim = { 2 } }, b);
    struct mo_quant_weight qw;
    ck_assert(!mo_quant_weight(t.ctx, &t.g->values[wid], 0, 127, NULL, &qw));
    ck_assert(!mo_quant_bias_least(t.ctx, &t.g->values[bid], scale_x, &qw, &least));
    ck_assert_ptr_nonnull(least);
    mo_quant_weight_free(&qw);
    ck_assert(!mo_quant_weight(t.ctx, &t.g->values[wid], 0, 127, least, &qw));
    ck_assert(!mo_quant_bias(t.ctx, &t.g->values[bid], scale_x, qw.scale, 2, &q, &scale));
    for (int c = 0; c < 2; c++) {
        ck_assert_int_lt(abs(q[c]), 1 << 30);
        ck_assert_float_eq_tol(scale[c], scale_x * qw.scale[c], 1e-12f);
        ck_assert_double_eq_tol((double)q[c] * scale[c], b[c], b[c] * 1e-5);
    }
    mo_mem_free(least);
    mo_mem_free(q);
    mo_mem_free(scale);
    mo_quant_weight_free(&qw);
    net_free(&t);
}
END_TEST

/* ---- structure -------------------------------------------------------------------------------------------- */

START_TEST(qdq_structure)
{
    struct net t;
    struct job j;
    struct mo_quant_written written;
    residual_net(&t);
    job_new(&j, &t);
    write_with_range(&t, &j, &x86, -1, 2, false, &written);
    ck_assert_uint_eq(written.n_layers, 3);
    ck_assert_uint_eq(count(&t, "Relu"), 0);
    /* one Q on the output edge of every int8 node but the last, which ends in float */
    const char *const names[] = { "conv1", "conv2", "add", "pool", "gap", "flatten" };
    for (size_t i = 0; i < MO_COUNT(names); i++)
        only_q(&t, find(&t, names[i])->out[0]);
    const struct mo_node *fc = find(&t, "fc");
    ck_assert(t.g->values[fc->out[0]].is_output && t.g->values[fc->out[0]].n_uses == 1);
    /* zero point 0 behind a Relu, not behind the bare convolution */
    ck_assert(scalar(&t, only_q(&t, find(&t, "conv1")->out[0])->in[2]) == 0);
    ck_assert(scalar(&t, only_q(&t, find(&t, "add")->out[0])->in[2]) == 0);
    ck_assert(scalar(&t, only_q(&t, find(&t, "conv2")->out[0])->in[2]) == 85);
    ck_assert_int_eq(t.g->values[only_q(&t, find(&t, "conv1")->out[0])->in[2]].dtype, MO_U8);
    /* movers share the parameters of what they read; the average pool has its own */
    ck_assert_uint_eq(only_q(&t, find(&t, "pool")->out[0])->in[1], only_q(&t, find(&t, "add")->out[0])->in[1]);
    ck_assert_uint_eq(only_q(&t, find(&t, "flatten")->out[0])->in[1], only_q(&t, find(&t, "gap")->out[0])->in[1]);
    ck_assert_uint_ne(only_q(&t, find(&t, "gap")->out[0])->in[1], only_q(&t, find(&t, "pool")->out[0])->in[1]);
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(qdq_constants)
{
    struct net t;
    struct job j;
    struct mo_quant_written written;
    residual_net(&t);
    job_new(&j, &t);
    write_with_range(&t, &j, &x86, -1, 2, false, &written);
    const char *const names[] = { "conv1", "conv2", "fc" };
    const int axes[] = { 0, 0, 1 };
    for (int i = 0; i < 3; i++) {
        const struct mo_node *n = find(&t, names[i]);
        const struct mo_node *x = producer(&t, n->in[0], "DequantizeLinear");
        const struct mo_node *w = producer(&t, n->in[1], "DequantizeLinear");
        const struct mo_node *b = producer(&t, n->in[2], "DequantizeLinear");
        ck_assert_int_eq(t.g->values[w->in[0]].dtype, MO_I8);
        ck_assert_int_eq(t.g->values[b->in[0]].dtype, MO_I32);
        ck_assert_int_eq(mo_node_int(w, "axis", -9), axes[i]);
        ck_assert_int_eq(mo_node_int(b, "axis", -9), 0);
        const float *sw = t.g->values[w->in[1]].data, *sb = t.g->values[b->in[1]].data;
        int64_t n_channels = mo_value_elems(&t.g->values[w->in[1]]);
        ck_assert_int_eq(n_channels, mo_value_elems(&t.g->values[b->in[0]]));
        for (int64_t c = 0; c < n_channels; c++)
            ck_assert_float_eq_tol(sb[c], (float)scalar(&t, x->in[1]) * sw[c], sb[c] * 1e-6f);
    }
    /* float weights are gone from the file */
    for (uint32_t i = 0; i < t.g->n_initializers; i++)
        ck_assert_str_ne(t.g->values[t.g->initializers[i]].name, "conv1.w");
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(symmetric_form_keeps_the_relu)
{
    struct net t;
    struct job j;
    struct mo_quant_written written;
    struct mo_quant_form trt = { .act = MO_I8, .symmetric = true, .weight_max = 127, .per_channel = true };
    residual_net(&t);
    job_new(&j, &t);
    write_with_range(&t, &j, &trt, -1, 2, false, &written);
    ck_assert_uint_eq(count(&t, "Relu"), 2);
    const struct mo_node *conv1 = find(&t, "conv1");
    mo_node_id relu;
    ck_assert_uint_eq(mo_value_users(t.g, conv1->out[0], &relu, 1), 1);
    ck_assert(mo_node_is(&t.g->nodes[relu], "Relu"));
    ck_assert(scalar(&t, only_q(&t, t.g->nodes[relu].out[0])->in[2]) == 0);
    ck_assert_int_eq(t.g->values[conv1->in[2]].dtype, MO_F32);
    ck_assert_ptr_nonnull(t.g->values[conv1->in[2]].data);
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(left_out_layers_stay_float)
{
    struct net t;
    struct job j;
    struct mo_quant_written written;
    const char *set[] = { "conv2=float" };
    residual_net(&t);
    memset(&j, 0, sizeof j);
    job_new(&j, &t);
    j.settings.set = (struct mo_list){ set, 1 };
    ck_assert(!mo_hits_new(t.ctx, &j.scratch, &j.settings, &j.job.hits));
    write_with_range(&t, &j, &x86, -1, 2, false, &written);
    ck_assert_uint_eq(written.n_layers, 2);
    const struct mo_node *conv2 = find(&t, "conv2");
    ck_assert_ptr_nonnull(t.g->values[conv2->in[1]].data);
    ck_assert_int_eq(t.g->values[conv2->in[1]].dtype, MO_F32);
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(attention_and_biases_behind_products_stay_float)
{
    struct net t;
    struct job j;
    struct mo_quant_written written;
    mo_value_id x = net_new(&t, 13, mo_shape_of(3, (int64_t)2, (int64_t)6, (int64_t)8));
    mo_value_id w = constant(&t, "w", mo_shape_of(2, (int64_t)8, (int64_t)8), 70);
    mo_value_id b = constant(&t, "b", mo_shape_of(1, (int64_t)8), 71);
    mo_value_id key = NODE(&t, "Add", "key", NODE(&t, "MatMul", "project", x, w), b);
    mo_value_id turned = NODE(&t, "Transpose", "turned", key);
    ck_assert(mo_node_set_ints(t.g, last(&t), "perm", (int64_t[]){ 0, 2, 1 }, 3));
    mo_value_id weights = NODE(&t, "Softmax", "softmax", NODE(&t, "MatMul", "scores", key, turned));
    mo_value_id v = constant(&t, "v", mo_shape_of(2, (int64_t)8, (int64_t)4), 72);
    finish(&t, NODE(&t, "MatMul", "out", NODE(&t, "MatMul", "mix", weights, key), v));
    job_new(&j, &t);
    write_with_range(&t, &j, &x86, -1, 2, false, &written);
    ck_assert_uint_eq(written.n_layers, 2);
    ck_assert_uint_eq(count(&t, "QuantizeLinear"), 2);      /* in front of each product with a weight, nowhere else */
    (void)producer(&t, find(&t, "project")->in[0], "DequantizeLinear");
    (void)producer(&t, find(&t, "out")->in[0], "DequantizeLinear");
    ck_assert_uint_eq(find(&t, "key")->in[0], find(&t, "project")->out[0]);
    ck_assert_ptr_nonnull(t.g->values[find(&t, "key")->in[1]].data);
    ck_assert_uint_eq(find(&t, "softmax")->in[0], find(&t, "scores")->out[0]);
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(training_form_becomes_the_same_file)
{
    struct net t, u;
    struct job j, k;
    struct mo_quant_written a, b;
    residual_net(&t);
    residual_net(&u);
    job_new(&j, &t);
    job_new(&k, &u);
    write_with_range(&t, &j, &x86, -1, 2, false, &a);
    write_with_range(&u, &k, &x86, -1, 2, true, &b);
    const struct mo_node *w = producer(&u, find(&u, "conv1")->in[1], "DequantizeLinear");
    const struct mo_node *q = producer(&u, w->in[0], "QuantizeLinear");
    ck_assert_int_eq(u.g->values[q->in[0]].dtype, MO_F32);
    ck_assert(!mo_quant_finish(&k.job, u.model, &x86, &b));
    ck_assert(!mo_graph_check(u.ctx, u.g));
    ck_assert_uint_eq(t.g->n_nodes, u.g->n_nodes);
    const char *const names[] = { "conv1", "conv2", "fc" };
    for (int i = 0; i < 3; i++)
        for (uint32_t in = 1; in < 3; in++) {
            const struct mo_value *x = mo_in(t.g, producer(&t, find(&t, names[i])->in[in], "DequantizeLinear"), 0);
            const struct mo_value *y = mo_in(u.g, producer(&u, find(&u, names[i])->in[in], "DequantizeLinear"), 0);
            ck_assert_int_eq(x->dtype, y->dtype);
            ck_assert_mem_eq(x->data, y->data, mo_value_bytes(x));
        }
    job_free(&j);
    job_free(&k);
    net_free(&t);
    net_free(&u);
}
END_TEST

/* ---- preparing ---------------------------------------------------------------------------------------------- */

START_TEST(batchnorm_is_folded)
{
    struct net t;
    struct mo_prepared prepared;
    mo_value_id x = net_new(&t, 13, mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)8, (int64_t)8));
    mo_value_id c = conv(&t, "conv", x, 3, 2, 50);
    float scale[2] = { 2, -1 }, shift[2] = { 0.5f, 1 }, mean[2] = { 0.25f, -3 }, var[2] = { 4 - 1e-5f, 1 - 1e-5f };
    struct mo_shape two = mo_shape_of(1, (int64_t)2);
    mo_value_id s = mo_graph_add_const(t.g, "s", MO_F32, &two, scale), h = mo_graph_add_const(t.g, "h", MO_F32, &two, shift);
    mo_value_id m = mo_graph_add_const(t.g, "m", MO_F32, &two, mean), v = mo_graph_add_const(t.g, "v", MO_F32, &two, var);
    finish(&t, NODE(&t, "BatchNormalization", "bn", c, s, h, m, v));
    float w[54], b[2];
    memcpy(w, t.g->values[mo_graph_find(t.g, "conv.w")].data, sizeof w);
    memcpy(b, t.g->values[mo_graph_find(t.g, "conv.b")].data, sizeof b);
    ck_assert_msg(!mo_quant_prepare(t.ctx, t.model, &prepared), "%s", mopt_error(t.ctx));
    ck_assert_uint_eq(prepared.n_batchnorm, 1);
    ck_assert_uint_eq(t.g->n_nodes, 1);
    const struct mo_node *n = find(&t, "conv");
    ck_assert_str_eq(t.g->values[n->out[0]].name, "bn");
    const float *folded = t.g->values[n->in[1]].data, *bias = t.g->values[n->in[2]].data;
    const double factor[2] = { 1, -1 };
    for (int i = 0; i < 54; i++)
        ck_assert_float_eq_tol(folded[i], (float)(w[i] * factor[i / 27]), 1e-5f);
    for (int k = 0; k < 2; k++)
        ck_assert_float_eq_tol(bias[k], (float)((b[k] - mean[k]) * factor[k] + shift[k]), 1e-5f);
    net_free(&t);
}
END_TEST

START_TEST(matmul_and_add_become_gemm)
{
    struct net t;
    struct mo_prepared prepared;
    mo_value_id x = net_new(&t, 13, mo_shape_of(2, (int64_t)3, (int64_t)4));
    mo_value_id w = constant(&t, "w", mo_shape_of(2, (int64_t)4, (int64_t)5), 60);
    mo_value_id b = constant(&t, "b", mo_shape_of(1, (int64_t)5), 61);
    finish(&t, NODE(&t, "Add", "y", NODE(&t, "MatMul", "product", x, w), b));
    ck_assert_msg(!mo_quant_prepare(t.ctx, t.model, &prepared), "%s", mopt_error(t.ctx));
    ck_assert_uint_eq(t.g->n_nodes, 1);
    ck_assert(mo_node_is(&t.g->nodes[0], "Gemm"));
    ck_assert_str_eq(t.g->values[t.g->nodes[0].out[0]].name, "y");
    net_free(&t);
}
END_TEST

START_TEST(old_opset_is_brought_to_13)
{
    struct net t;
    mo_value_id x = net_new(&t, 9, mo_shape_of(3, (int64_t)1, (int64_t)3, (int64_t)4));
    mo_value_id c = NODE(&t, "Clip", "clip", x);
    ck_assert(mo_node_set_float(t.g, last(&t), "min", 0) && mo_node_set_float(t.g, last(&t), "max", 6));
    mo_value_id s = NODE(&t, "Squeeze", "squeeze", c);
    ck_assert(mo_node_set_ints(t.g, last(&t), "axes", (int64_t[]){ 0 }, 1));
    mo_value_id u = NODE(&t, "Unsqueeze", "unsqueeze", s);
    ck_assert(mo_node_set_ints(t.g, last(&t), "axes", (int64_t[]){ 0 }, 1));
    finish(&t, NODE(&t, "Softmax", "softmax", u));
    ck_assert_msg(!mo_upgrade(t.ctx, t.model, 13), "%s", mopt_error(t.ctx));
    ck_assert_int_eq((int)mo_model_opset(t.model, ""), 13);
    ck_assert_uint_eq(find(&t, "clip")->n_in, 3);
    ck_assert(scalar(&t, find(&t, "clip")->in[2]) == 6);
    ck_assert_uint_eq(find(&t, "squeeze")->n_in, 2);
    ck_assert_ptr_null(mo_node_attr(find(&t, "squeeze"), "axes"));
    /* over both axes from 1 on: flattened, over the last, back */
    ck_assert_int_eq(mo_node_int(find(&t, "softmax"), "axis", 9), -1);
    ck_assert_uint_eq(count(&t, "Flatten"), 1);
    ck_assert_uint_eq(count(&t, "Reshape"), 1);
    ck_assert_str_eq(t.g->values[t.g->outputs[0]].name, "softmax");
    ck_assert_msg(!mo_graph_check(t.ctx, t.g), "%s", mopt_error(t.ctx));
    net_free(&t);
}
END_TEST

START_TEST(changes_add_up)
{
    struct net t;
    mo_value_id x = net_new(&t, 7, mo_shape_of(4, (int64_t)1, (int64_t)2, (int64_t)3, (int64_t)3));
    mo_value_id u = NODE(&t, "Upsample", "up", x);
    ck_assert(mo_node_set_floats(t.g, last(&t), "scales", (float[]){ 1, 1, 2, 2 }, 4));
    mo_value_id m = NODE(&t, "ReduceMax", "max", u);
    ck_assert(mo_node_set_ints(t.g, last(&t), "axes", (int64_t[]){ 2 }, 1));
    finish(&t, m);
    ck_assert_msg(!mo_upgrade(t.ctx, t.model, 25), "%s", mopt_error(t.ctx));
    ck_assert_int_eq(t.g->opset, 25);
    ck_assert_int_eq((int)t.model->ir_version, 13);
    const struct mo_node *up = find(&t, "up");
    ck_assert(mo_node_is(up, "Resize") && up->op && up->n_in == 3 && up->in[1] == MO_NONE);
    ck_assert_str_eq(mo_node_text(up, "nearest_mode", ""), "floor");
    ck_assert_uint_eq(find(&t, "max")->n_in, 2);
    net_free(&t);
    /* a model that is as new stays as it is */
    x = net_new(&t, 13, mo_shape_of(1, (int64_t)2));
    finish(&t, NODE(&t, "Relu", "y", x));
    ck_assert(!mo_upgrade(t.ctx, t.model, 12));
    ck_assert_int_eq((int)mo_model_opset(t.model, ""), 13);
    net_free(&t);
}
END_TEST

START_TEST(what_cannot_be_upgraded_is_named)
{
    struct net t;
    mo_value_id x = net_new(&t, 8, mo_shape_of(4, (int64_t)1, (int64_t)2, (int64_t)3, (int64_t)3));
    struct mo_shape two = mo_shape_of(1, (int64_t)2);
    mo_value_id s = mo_graph_add_const(t.g, "s", MO_F32, &two, NULL);
    mo_value_id odd = NODE(&t, "BatchNormalization", "odd", x, s, s, s, s);
    ck_assert(mo_node_set_int(t.g, last(&t), "spatial", 0));
    finish(&t, NODE(&t, "Mystery", "strange", odd));
    ck_assert_int_eq(mo_upgrade(t.ctx, t.model, 13), MOPT_UNSUPPORTED);
    ck_assert_msg(strstr(mopt_error(t.ctx), "'odd'") && strstr(mopt_error(t.ctx), "spatial") &&
                  strstr(mopt_error(t.ctx), "'strange'") && strstr(mopt_error(t.ctx), "2 nodes"), "%s", mopt_error(t.ctx));
    net_free(&t);
}
END_TEST

/* ---- the other forms --------------------------------------------------------------------------------------------- */

static void run_pass(struct net *t, struct job *j, struct mo_quantize_options *o, enum mopt_status expected)
{
    const struct mo_pass *pass = mo_pass_find("quantize");
    ck_assert_ptr_nonnull(pass);
    j->job.options = o;
    enum mopt_status status = pass->run(&j->job);
    ck_assert_msg(status == expected, "%d: %s", status, mopt_error(t->ctx));
}

static struct mo_quantize_options defaults(void)
{
    struct mo_quantize_options o;
    memset(&o, 0, sizeof o);
    mo_options_default(mo_pass_find("quantize")->options, &o);
    return o;
}

START_TEST(static_without_data_is_refused)
{
    struct net t;
    struct job j;
    residual_net(&t);
    job_new(&j, &t);
    struct mo_quantize_options o = defaults();
    run_pass(&t, &j, &o, MOPT_USAGE);
    ck_assert_ptr_nonnull(strstr(mopt_error(t.ctx), "--data"));
    mopt_clear(t.ctx);
    o.qat = true;
    run_pass(&t, &j, &o, MOPT_USAGE);
    mopt_clear(t.ctx);
    o.dynamic = true;
    run_pass(&t, &j, &o, MOPT_USAGE);
    ck_assert_ptr_nonnull(strstr(mopt_error(t.ctx), "exclude"));
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(weight_only_keeps_the_graph)
{
    struct net t;
    struct job j;
    residual_net(&t);
    job_new(&j, &t);
    struct mo_quantize_options o = defaults();
    o.weight_only = 1;
    uint32_t n_nodes = t.g->n_nodes;
    run_pass(&t, &j, &o, MOPT_OK);
    /* conv1 has 27 weights a channel; the Gemm only 4 and is left alone: 40 + 50 bytes against 160 */
    ck_assert_uint_eq(t.g->n_nodes, n_nodes + count(&t, "DequantizeLinear"));
    ck_assert_uint_eq(count(&t, "QuantizeLinear"), 0);
    const struct mo_node *dq = producer(&t, find(&t, "conv1")->in[1], "DequantizeLinear");
    ck_assert_int_eq(t.g->values[dq->in[0]].dtype, MO_I8);
    ck_assert_int_eq(mo_node_int(dq, "axis", -9), 0);
    ck_assert_int_eq(t.g->values[find(&t, "conv1")->in[2]].dtype, MO_F32);
    ck_assert(!mo_graph_check(t.ctx, t.g));
    job_free(&j);
    net_free(&t);
}
END_TEST

/* Each code and scale of what was written, against the weight. _i: symmetric or not; blocks along the first or last axis. */
START_TEST(weight_only_int4_is_near_in_every_block)
{
    struct net t;
    struct job j;
    bool symmetric = _i % 2, is_gemm = _i / 2;
    const int64_t k = 41, n = 5, block = 16;
    mo_value_id x = net_new(&t, 13, mo_shape_of(2, (int64_t)3, k));
    mo_value_id w = constant(&t, "w", is_gemm ? mo_shape_of(2, n, k) : mo_shape_of(2, k, n), 70);
    mo_value_id y = NODE(&t, is_gemm ? "Gemm" : "MatMul", "y", x, w);
    ck_assert(!is_gemm || mo_node_set_int(t.g, last(&t), "transB", 1));
    finish(&t, y);
    float was[41 * 5];
    memcpy(was, t.g->values[w].data, sizeof was);
    job_new(&j, &t);
    struct mo_quantize_options o = defaults();
    o.weight_only = 2;
    o.block = block;
    o.asymmetric = !symmetric;
    run_pass(&t, &j, &o, MOPT_OK);
    ck_assert_int_eq(t.g->opset, 21);
    const struct mo_node *dq = producer(&t, find(&t, "y")->in[1], "DequantizeLinear");
    ck_assert_uint_eq(dq->n_in, symmetric ? 2 : 3);
    ck_assert_int_eq(mo_node_int(dq, "block_size", 0), block);
    ck_assert_int_eq(mo_node_int(dq, "axis", -9), is_gemm);
    const struct mo_value *scale = &t.g->values[dq->in[1]];
    ck_assert_int_eq(scale->shape.dim[is_gemm], 3);     /* 16, 16 and 9 */
    void *out[1];
    ck_assert_msg(!mo_infer(t.ctx, t.g, NULL, 0) && !mo_run_one(t.ctx, t.g, dq, out), "%s", mopt_error(t.ctx));
    for (int64_t i = 0; i < k * n; i++) {
        int64_t at = is_gemm ? i / k * 3 + i % k / block : i / n / block * n + i % n;
        float step = ((const float *)scale->data)[at];
        ck_assert_float_le(fabsf(((const float *)out[0])[i] - was[i]), 0.501f * step * (symmetric ? 1 : 2));
    }
    mo_mem_free(out[0]);
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(dynamic_form)
{
    struct net t;
    struct job j;
    mo_value_id x = net_new(&t, 13, mo_shape_of(2, (int64_t)3, (int64_t)64));
    mo_value_id w = constant(&t, "w", mo_shape_of(2, (int64_t)10, (int64_t)64), 70);
    mo_value_id b = constant(&t, "b", mo_shape_of(1, (int64_t)10), 71);
    mo_value_id v = constant(&t, "v", mo_shape_of(2, (int64_t)64, (int64_t)10), 72);
    mo_value_id y = NODE(&t, "Gemm", "gemm", x, w, b);
    ck_assert(mo_node_set_int(t.g, last(&t), "transB", 1));
    finish(&t, NODE(&t, "Add", "y", y, NODE(&t, "MatMul", "matmul", x, v)));
    const float *was = t.g->values[w].data;
    float first[3] = { was[0], was[64], was[1] };
    job_new(&j, &t);
    struct mo_quantize_options o = defaults();
    o.dynamic = true;
    run_pass(&t, &j, &o, MOPT_OK);
    ck_assert_uint_eq(count(&t, "DynamicQuantizeLinear"), 1);       /* x is quantized once */
    ck_assert_uint_eq(count(&t, "MatMulInteger"), 2);
    ck_assert_uint_eq(count(&t, "Gemm") + count(&t, "MatMul"), 0);
    const struct mo_node *n = find(&t, "gemm_MatMulInteger");
    const struct mo_value *q = mo_in(t.g, n, 1);
    ck_assert(q->shape.dim[0] == 64 && q->shape.dim[1] == 10);
    const int8_t *qs = q->data;
    const float *scales = t.g->values[mo_graph_find(t.g, "w_scale")].data;
    ck_assert_float_eq_tol(qs[0] * scales[0], first[0], scales[0] * 0.51f);
    ck_assert_float_eq_tol(qs[1] * scales[1], first[1], scales[1] * 0.51f);
    ck_assert_float_eq_tol(qs[10] * scales[0], first[2], scales[0] * 0.51f);
    ck_assert(!mo_graph_check(t.ctx, t.g));
    job_free(&j);
    net_free(&t);
}
END_TEST

START_TEST(fp16_form)
{
    struct net t;
    struct job j;
    static const float values[] = { 1, -2, 65504, 1e6f, 0x1p-24f, 0x1p-26f, 0.1f, -INFINITY };
    static const uint16_t bits[] = { 0x3c00, 0xc000, 0x7bff, 0x7bff, 0x0001, 0x0000, 0x2e66, 0xfc00 };
    mo_value_id x = net_new(&t, 13, mo_shape_of(1, (int64_t)8));
    struct mo_shape eight = mo_shape_of(1, (int64_t)8);
    mo_value_id c = mo_graph_add_const(t.g, "c", MO_F32, &eight, values);
    finish(&t, NODE(&t, "Mul", "y", x, c));
    job_new(&j, &t);
    struct mo_quantize_options o = defaults();
    o.fp16 = true;
    run_pass(&t, &j, &o, MOPT_OK);
    ck_assert_uint_eq(count(&t, "Cast"), 2);
    ck_assert_int_eq(t.g->values[t.g->inputs[0]].dtype, MO_F32);
    ck_assert_int_eq(t.g->values[t.g->outputs[0]].dtype, MO_F32);
    ck_assert_str_eq(t.g->values[t.g->outputs[0]].name, "y");
    const struct mo_value *half = mo_in(t.g, find(&t, "y"), 1);
    ck_assert_int_eq(half->dtype, MO_F16);
    ck_assert_mem_eq(half->data, bits, sizeof bits);
    ck_assert_int_eq((int)mopt_report_int(mopt_report_at(j.job.report, "clipped"), -1), 1);
    ck_assert_int_eq((int)mopt_report_int(mopt_report_at(j.job.report, "flushed_to_zero"), -1), 1);
    job_free(&j);
    net_free(&t);
}
END_TEST

Suite *suite_quantize(void);
Suite *suite_quantize(void)
{
    Suite *s = suite_create("quantize");
    TCase *ranges = tcase_create("ranges"), *numbers = tcase_create("numbers"), *forms = tcase_create("forms");
    tcase_add_test(ranges, histogram_grows_and_loses_nothing);
    tcase_add_test(ranges, minmax_is_exact_and_holds_zero);
    tcase_add_test(ranges, percentile_of_uniform);
    tcase_add_test(ranges, mse_of_normal);
    tcase_add_test(ranges, one_outlier_does_not_set_the_range);
    tcase_add_test(ranges, entropy_keeps_a_uniform_whole);
    tcase_add_test(ranges, nan_among_activations_is_refused);
    tcase_add_test(numbers, params_by_form);
    tcase_add_test(numbers, weights_come_back_within_half_a_step);
    tcase_add_test(numbers, large_bias_raises_the_weight_scale);
    tcase_add_test(forms, qdq_structure);
    tcase_add_test(forms, attention_and_biases_behind_products_stay_float);
    tcase_add_test(forms, qdq_constants);
    tcase_add_test(forms, symmetric_form_keeps_the_relu);
    tcase_add_test(forms, left_out_layers_stay_float);
    tcase_add_test(forms, training_form_becomes_the_same_file);
    tcase_add_test(forms, batchnorm_is_folded);
    tcase_add_test(forms, matmul_and_add_become_gemm);
    tcase_add_test(forms, old_opset_is_brought_to_13);
    tcase_add_test(forms, changes_add_up);
    tcase_add_test(forms, what_cannot_be_upgraded_is_named);
    tcase_add_test(forms, static_without_data_is_refused);
    tcase_add_test(forms, weight_only_keeps_the_graph);
    tcase_add_loop_test(forms, weight_only_int4_is_near_in_every_block, 0, 4);
    tcase_add_test(forms, dynamic_form);
    tcase_add_test(forms, fp16_form);
    suite_add_tcase(s, ranges);
    suite_add_tcase(s, numbers);
    suite_add_tcase(s, forms);
    return s;
}
