/* The engine: small networks against central differences and against the plain C
 * kernels, the same bits for any number of threads, sparse input, dynamic shapes. */
#include <check.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "lib/run/private.h"

struct net {
    struct mopt_ctx *ctx;
    struct mopt_model *model;
    struct mo_graph *g;
    struct mo_rng rng;
    mo_value_id last;
};

static void net_open(struct net *t, int n_threads, int rank, ...)
{
    struct mo_shape shape = { .rank = rank };
    va_list args;
    va_start(args, rank);
    for (int i = 0; i < rank; i++)
        shape.dim[i] = va_arg(args, int);
    va_end(args);
    t->ctx = mopt_open("cpu", n_threads);
    t->model = mo_model_new();
    ck_assert(t->ctx && t->model);
    mo_model_set_opset(t->model, "", 17);
    t->g = &t->model->graph;
    t->rng = mo_rng_new(7, MO_RNG_TEST, 0);
    shape.dim[0] = MO_UNKNOWN;
    t->last = mo_graph_add_value(t->g, "x", MO_F32, &shape);
    ck_assert(mo_graph_add_input(t->g, t->last));
}

static void net_close(struct net *t)
{
    mopt_model_free(t->model);
    mopt_close(t->ctx);
}

static mo_value_id constant(struct net *t, const char *name, float scale, float shift, int rank, ...)
{
    struct mo_shape shape = { .rank = rank };
    va_list args;
    va_start(args, rank);
    for (int i = 0; i < rank; i++)
        shape.dim[i] = va_arg(args, int);
    va_end(args);
    mo_value_id v = mo_graph_add_const(t->g, name, MO_F32, &shape, NULL);
    float *data = t->g->values[v].data;
    for (int64_t i = 0; i < mo_shape_elems(&shape); i++)
        data[i] = shift + scale * mo_rng_normal(&t->rng);
    return v;
}

static mo_node_id add(struct net *t, const char *type, uint32_t n_in, const mo_value_id *in)
{
    mo_value_id out = mo_graph_add_value(t->g, "y", MO_F32, NULL);
    mo_node_id n = mo_graph_add_node(t->g, type, "", "", in, n_in, &out, 1);
    ck_assert(n != MO_NONE);
    t->last = out;
    return n;
}

static void add1(struct net *t, const char *type)
{
    add(t, type, 1, &t->last);
}

static void conv(struct net *t, int in, int out, int k, int pad, int stride, int groups, bool bias)
{
    int64_t pads[] = { pad, pad, pad, pad }, strides[] = { stride, stride };
    float scale = 1 / sqrtf((float)(in / groups * k * k));
    mo_value_id ids[] = { t->last, constant(t, "w", scale, 0, 4, out, in / groups, k, k), MO_NONE };
    if (bias)
        ids[2] = constant(t, "b", 0.1f, 0, 1, out);
    mo_node_id n = add(t, "Conv", bias ? 3 : 2, ids);
    mo_node_set_ints(t->g, n, "pads", pads, 4);
    mo_node_set_ints(t->g, n, "strides", strides, 2);
    mo_node_set_int(t->g, n, "group", groups);
}

static void max_pool(struct net *t)
{
    int64_t two[] = { 2, 2 };
    mo_node_id n = add(t, "MaxPool", 1, &t->last);
    mo_node_set_ints(t->g, n, "kernel_shape", two, 2);
    mo_node_set_ints(t->g, n, "strides", two, 2);
}

static void batch_norm(struct net *t, int channels)
{
    mo_value_id ids[] = { t->last, constant(t, "scale", 0.1f, 1, 1, channels), constant(t, "shift", 0.1f, 0, 1, channels),
                          constant(t, "mean", 0.1f, 0, 1, channels), constant(t, "var", 0, 1, 1, channels) };
    add(t, "BatchNormalization", 5, ids);
}

static void gemm(struct net *t, int in, int out)
{
    mo_value_id ids[] = { t->last, constant(t, "w", 1 / sqrtf((float)in), 0, 2, out, in), constant(t, "b", 0.1f, 0, 1, out) };
    mo_node_id n = add(t, "Gemm", 3, ids);
    mo_node_set_int(t->g, n, "transB", 1);
}

static void finish(struct net *t)
{
    ck_assert(mo_graph_add_output(t->g, t->last));
    ck_assert_msg(!mo_graph_sort(t->ctx, t->g), "%s", mopt_error(t->ctx));
}

static void lenet(struct net *t, int n_threads)
{
    net_open(t, n_threads, 4, 0, 1, 16, 16);
    conv(t, 1, 4, 5, 0, 1, 1, true);
    add1(t, "Relu");
    max_pool(t);
    conv(t, 4, 8, 3, 1, 1, 1, true);
    add1(t, "Relu");
    max_pool(t);
    add1(t, "Flatten");
    gemm(t, 8 * 3 * 3, 20);
    add1(t, "Relu");
    gemm(t, 20, 5);
    finish(t);
}

static void resnet(struct net *t, int n_threads)
{
    net_open(t, n_threads, 4, 0, 3, 8, 8);
    conv(t, 3, 16, 3, 1, 1, 1, false);
    batch_norm(t, 16);
    add1(t, "Relu");
    mo_value_id shortcut = t->last;
    conv(t, 16, 16, 3, 1, 1, 16, false);
    batch_norm(t, 16);
    add1(t, "Relu");
    conv(t, 16, 16, 3, 1, 1, 1, false);
    batch_norm(t, 16);
    add(t, "Add", 2, (mo_value_id[]){ t->last, shortcut });
    add1(t, "Relu");
    mo_value_id second = t->last;
    conv(t, 16, 32, 3, 1, 2, 1, false);
    batch_norm(t, 32);
    mo_value_id main_path = t->last;
    t->last = second;
    conv(t, 16, 32, 1, 0, 2, 1, false);
    batch_norm(t, 32);
    add(t, "Add", 2, (mo_value_id[]){ main_path, t->last });
    add1(t, "Relu");
    add1(t, "GlobalAveragePool");
    add1(t, "Flatten");
    gemm(t, 32, 5);
    finish(t);
}

/* ---- running ------------------------------------------------------------------------------- */

static struct mo_run *start(struct net *t, const struct mo_run_options *options, int batch)
{
    struct mo_run *run;
    struct mo_shape shape = t->g->values[t->g->inputs[0]].shape;
    ck_assert_msg(!mo_run_new(t->ctx, t->g, options, &run), "%s", mopt_error(t->ctx));
    shape.dim[0] = batch;
    ck_assert_msg(!mo_run_shape(run, &shape, 1), "%s", mopt_error(t->ctx));
    size_t n = (size_t)mo_shape_elems(&shape);
    float *x = mo_mem_new(n, sizeof *x);
    struct mo_rng rng = mo_rng_new(3, MO_RNG_TEST, 1);
    for (size_t i = 0; i < n; i++)
        x[i] = mo_rng_normal(&rng);
    ck_assert(!mo_run_set_input(run, 0, x, n * sizeof *x));
    mo_mem_free(x);
    return run;
}

/* A loss whose gradient is simple: the sum of outputs times fixed numbers. */
static double loss(struct mo_run *run)
{
    ck_assert_msg(!mo_run_forward(run), "%s", mopt_error(run->ctx));
    size_t n = (size_t)mo_value_elems(mo_run_output(run, 0));
    const float *y = mo_run_output_data(run, 0);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += y[i] * cos((double)i);
    return sum;
}

static void backward(struct mo_run *run, bool adds)
{
    size_t n = (size_t)mo_value_elems(mo_run_output(run, 0));
    float *dy = mo_run_output_grad(run, 0);
    for (size_t i = 0; i < n; i++)
        dy[i] = (float)cos((double)i);
    ck_assert_msg(!mo_run_backward(run, adds), "%s", mopt_error(run->ctx));
}

static void check_gradients(struct net *t, int batch)
{
    struct mo_run *run = start(t, &(struct mo_run_options){ .train = true, .bn = MO_BN_BATCH }, batch);
    loss(run);
    backward(run, false);
    ck_assert_uint_gt(run->n_params, 0);
    for (uint32_t p = 0; p < run->n_params; p++) {
        const struct mo_param *param = &run->params[p];
        if (param->is_state)
            continue;
        for (size_t k = 0; k < param->n_elems; k += 1 + param->n_elems / 5) {
            float *w = &run->weights[param->offset + k], was = *w, h = 2e-3f;
            *w = was + h;
            double up = loss(run);
            *w = was - h;
            double down = loss(run);
            *w = was;
            double want = (up - down) / (2 * h), got = run->grads[param->offset + k];
            ck_assert_msg(fabs(want - got) < 0.03 * (1 + fabs(want)), "%s[%zu]: %g, differences say %g", param->name, k,
                          got, want);
        }
    }
    /* adding the same step once more doubles it */
    loss(run);
    backward(run, false);
    float once = run->grads[run->params[0].offset];
    loss(run);
    backward(run, true);
    ck_assert_float_eq_tol(run->grads[run->params[0].offset], 2 * once, 1e-4f * (1 + fabsf(once)));
    mo_run_free(run);
}

START_TEST(gradients_of_lenet)
{
    struct net t;
    lenet(&t, 2);
    check_gradients(&t, 6);
    net_close(&t);
}
END_TEST

START_TEST(gradients_of_resnet)
{
    struct net t;
    resnet(&t, 2);
    check_gradients(&t, 6);
    net_close(&t);
}
END_TEST

/* Outputs and gradients after a forward and a backward, for one number of threads. */
static float *bits(void (*make)(struct net *, int), int n_threads, int batch, bool bf16, size_t *n)
{
    struct net t;
    make(&t, n_threads);
    struct mo_run *run = start(&t, &(struct mo_run_options){ .train = true, .bn = MO_BN_BATCH, .half = bf16 ? MO_BF16 : MO_UNDEFINED }, batch);
    loss(run);
    backward(run, false);
    size_t n_out = (size_t)mo_value_elems(mo_run_output(run, 0));
    *n = n_out + run->n_weights;
    float *all = mo_mem_new(*n, sizeof *all);
    memcpy(all, mo_run_output_data(run, 0), n_out * sizeof *all);
    memcpy(all + n_out, run->grads, run->n_weights * sizeof *all);
    mo_run_free(run);
    net_close(&t);
    return all;
}

static void check_bits(void (*make)(struct net *, int), int batch, bool bf16)
{
    size_t n1, n;
    float *one = bits(make, 1, batch, bf16, &n1);
    for (int n_threads = 2; n_threads <= 3; n_threads++) {
        float *many = bits(make, n_threads, batch, bf16, &n);
        ck_assert_uint_eq(n, n1);
        ck_assert_msg(!memcmp(one, many, n * sizeof *one), "%d threads give other bits", n_threads);
        mo_mem_free(many);
    }
    mo_mem_free(one);
}

START_TEST(threads_do_not_change_bits)
{
    check_bits(lenet, 100, false);
    check_bits(resnet, 70, false);
}
END_TEST

/* ---- an epoch's last batch ------------------------------------------------------------------ */

enum { LAST_CHANNELS = 3, LAST_ROWS = 4, LAST_WHOLE = 32 };

/* A batch of LAST_ROWS through one normalization. What its outputs have for a mean (0: normalized by its own statistics),
 * and how far the running means went towards it, as a share. */
static void last_batch(const struct mo_run_options *how, double *mean_out, double *moved)
{
    struct net t;
    net_open(&t, 1, 2, 0, LAST_CHANNELS);
    batch_norm(&t, LAST_CHANNELS);
    ck_assert(mo_graph_add_output(t.g, t.last));
    struct mo_run *run = start(&t, how, LAST_ROWS);
    struct mo_param *mean = NULL;
    for (uint32_t p = 0; p < run->n_params; p++)
        if (run->params[p].is_state && !mean)
            mean = &run->params[p];
    ck_assert_ptr_nonnull(mean);
    const float *x = run->tensors[run->graph->inputs[0]].data, *y = mo_run_output_data(run, 0);
    double first = 0, was = run->weights[mean->offset];
    *mean_out = 0;
    for (int i = 0; i < LAST_ROWS; i++)
        first += x[i * LAST_CHANNELS] / LAST_ROWS;
    run->is_training = true;
    loss(run);
    for (int i = 0; i < LAST_ROWS; i++)
        *mean_out += y[i * LAST_CHANNELS] / LAST_ROWS;
    *moved = (run->weights[mean->offset] - was) / (first - was);
    mo_run_free(run);
    net_close(&t);
}

START_TEST(last_batch_is_normalized_as_whole_ones)
{
    double mean, own, moved;
    last_batch(&(struct mo_run_options){ .train = true, .bn = MO_BN_BATCH }, &own, &moved);
    ck_assert_double_eq_tol(moved, 0.1, 1e-5);
    last_batch(&(struct mo_run_options){ .train = true, .batch = LAST_WHOLE }, &mean, &moved);
    ck_assert_double_eq_tol(mean, own, 1e-6);
    ck_assert_double_eq_tol(moved, 0.1 * LAST_ROWS / LAST_WHOLE, 1e-5);
    /* whole batches that are too small for statistics */
    last_batch(&(struct mo_run_options){ .train = true, .batch = 2 * LAST_ROWS }, &mean, &moved);
    ck_assert(fabs(mean - own) > 1e-3);
    ck_assert_double_eq(moved, 0);
}
END_TEST

/* Means over batches as running statistics: batch i counts 1 / (i + 1), so that share is another one in every forward, also on
 * a device that records its work. */
static void average_batches(const char *device)
{
    enum { N_BATCHES = 5 };
    struct net t;
    net_open(&t, 1, 2, 0, LAST_CHANNELS);
    batch_norm(&t, LAST_CHANNELS);
    ck_assert(mo_graph_add_output(t.g, t.last));
    mopt_close(t.ctx);
    t.ctx = mopt_open(device, 1);
    ck_assert_ptr_nonnull(t.ctx);
    struct mo_run *run = start(&t, &(struct mo_run_options){ .train = true, .bn = MO_BN_BATCH }, 2);
    mo_value_id mean = MO_NONE;
    for (uint32_t p = 0; p < run->n_params; p++)
        if (run->params[p].is_state && mean == MO_NONE)
            mean = run->params[p].source;
    run->is_training = true;
    for (int i = 0; i < N_BATCHES; i++) {
        float x[2 * LAST_CHANNELS];
        for (int k = 0; k < 2 * LAST_CHANNELS; k++)
            x[k] = (float)(i * i);
        run->options.bn_momentum = 1.0f / (float)(i + 1);
        ck_assert(!mo_run_set_input(run, 0, x, sizeof x));
        ck_assert_msg(!mo_run_forward(run), "%s", mopt_error(t.ctx));
    }
    ck_assert(!mo_run_store(run, t.g));
    ck_assert_float_eq_tol(*(const float *)t.g->values[mean].data, (0 + 1 + 4 + 9 + 16) / 5.0f, 1e-5f);
    mo_run_free(run);
    net_close(&t);
}

START_TEST(statistics_are_averaged_over_batches)
{
    average_batches("cpu");
}
END_TEST

START_TEST(emulated_statistics_are_averaged_over_batches)
{
    const char *plugin = getenv("MOPT_EMULATED");
    if (!plugin || !plugin[0])
        return;
    setenv("MOPT_CUDA_PLUGIN", plugin, 1);
    average_batches("cuda");
}
END_TEST

/* ---- bfloat16 ------------------------------------------------------------------------------ */

static void number(struct net *t, const char *type, mo_value_id x, float value)
{
    mo_value_id ids[] = { x, mo_graph_add_const(t->g, "number", MO_F32, &(struct mo_shape){ 0 }, NULL) };
    *(float *)t->g->values[ids[1]].data = value;
    add(t, type, 2, ids);
}

static void linear(struct net *t, int in, int out)
{
    mo_value_id w = constant(t, "w", 1 / sqrtf((float)in), 0, 2, in, out), b = constant(t, "b", 0.1f, 0, 1, out);
    add(t, "MatMul", 2, (mo_value_id[]){ t->last, w });
    add(t, "Add", 2, (mo_value_id[]){ b, t->last });
}

/* Attention of one head and two layers with Gelu written out, the half at either place. */
static void transformer(struct net *t, int n_threads)
{
    net_open(t, n_threads, 3, 0, 6, 8);
    mo_value_id x = t->last, q, k;
    linear(t, 8, 8);
    q = t->last;
    t->last = x;
    linear(t, 8, 8);
    mo_node_set_ints(t->g, add(t, "Transpose", 1, &t->last), "perm", (int64_t[]){ 0, 2, 1 }, 3);
    k = t->last;
    add(t, "MatMul", 2, (mo_value_id[]){ q, k });
    add1(t, "Softmax");
    add(t, "MatMul", 2, (mo_value_id[]){ t->last, x });
    add(t, "Add", 2, (mo_value_id[]){ t->last, x });
    for (int i = 0; i < 2; i++) {
        linear(t, 8, 8);
        mo_value_id h = t->last, half;
        number(t, i ? "Mul" : "Div", h, i ? 0.70710678f : 1.41421356f);
        add1(t, "Erf");
        number(t, "Add", t->last, 1);
        mo_value_id gate = t->last;
        if (i) {
            number(t, "Mul", h, 0.5f);
            half = t->last;
            add(t, "Mul", 2, (mo_value_id[]){ half, gate });
        } else {
            add(t, "Mul", 2, (mo_value_id[]){ h, gate });
            number(t, "Mul", t->last, 0.5f);
        }
    }
    add1(t, "Flatten");
    gemm(t, 48, 5);
    finish(t);
}

static uint32_t count_nodes(const struct mo_graph *g, const char *type)
{
    uint32_t n = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        n += !strcmp(g->nodes[i].type, type);
    return n;
}

START_TEST(gradients_of_a_transformer)
{
    struct net t;
    transformer(&t, 2);
    struct mo_run *run = start(&t, &(struct mo_run_options){ .train = true }, 4);
    ck_assert_uint_eq(count_nodes(run->graph, "Gelu"), 2);
    ck_assert_uint_eq(count_nodes(run->graph, "Erf"), 0);
    ck_assert_uint_eq(count_nodes(run->graph, "Add"), 1);       /* the biases are in their products */
    mo_run_free(run);
    check_gradients(&t, 6);
    net_close(&t);
}
END_TEST

/* |a - b| / |b|; what is less than a hundredth of everything counts as that. */
static double distance(const float *a, const float *b, size_t n, double of_all)
{
    double d = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(d) / MO_MAX(sqrt(norm), of_all / 100);
}

static double norm(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* Outputs and the gradient of every parameter: beside float32 (what rounding moves across a kink counts fully in nets as
 * small as these), and beside plain C in bfloat16. */
static void check_bf16(void (*make)(struct net *, int), int batch)
{
    struct net t;
    make(&t, 2);
    struct mo_run_options how = { .train = true, .bn = MO_BN_BATCH };
    struct mo_run *wide = start(&t, &how, batch), *half, *plain;
    how.half = MO_BF16;
    half = start(&t, &how, batch);
    how.reference = true;
    plain = start(&t, &how, batch);
    struct mo_run *all[] = { wide, half, plain };
    for (int i = 0; i < 3; i++) {
        loss(all[i]);
        backward(all[i], false);
    }
    uint32_t n_half = 0;
    for (mo_value_id v = 0; v < half->graph->n_values; v++)
        n_half += half->graph->values[v].dtype == MO_BF16;
    ck_assert_uint_gt(n_half, 2);
    size_t n_out = (size_t)mo_value_elems(mo_run_output(wide, 0));
    const float *y = mo_run_output_data(half, 0), *y32 = mo_run_output_data(wide, 0);
    double off = distance(y, y32, n_out, 0), total = norm(wide->grads, wide->n_trained);
    ck_assert_msg(off > 0 && off < 0.03, "outputs are %g from those of float32", off);
    for (uint32_t p = 0; p < wide->n_params; p++) {
        const struct mo_param *param = &wide->params[p];
        const float *g = half->grads + param->offset;
        if (param->is_state)
            continue;
        double to_wide = distance(g, wide->grads + param->offset, param->n_elems, total);
        double to_plain = distance(g, plain->grads + param->offset, param->n_elems, total);
        ck_assert_msg(to_wide < 0.2, "gradient of %s (%u) is %g from that of float32", param->name, p, to_wide);
        ck_assert_msg(to_plain < 0.05, "gradient of %s (%u) is %g from that of plain C", param->name, p, to_plain);
    }
    for (int i = 0; i < 3; i++)
        mo_run_free(all[i]);
    net_close(&t);
}

START_TEST(bf16_is_near_float32)
{
    check_bf16(lenet, 40);
    check_bf16(resnet, 40);
    check_bf16(transformer, 40);
}
END_TEST

/* Below AVX-512 convolutions go through float32 copies of rounded numbers. */
START_TEST(bf16_on_lower_tiers)
{
    setenv("MOPT_ISA", _i ? "avx2" : "c", 1);
    check_bf16(lenet, 20);
    check_bf16(transformer, 20);
}
END_TEST

START_TEST(bf16_bits_do_not_depend_on_threads)
{
    check_bits(lenet, 100, true);
    check_bits(resnet, 70, true);
    check_bits(transformer, 90, true);
}
END_TEST

START_TEST(bf16_inference)
{
    struct net t;
    resnet(&t, 2);
    struct mo_run *wide = start(&t, NULL, 30), *half = start(&t, &(struct mo_run_options){ .half = MO_BF16 }, 30);
    double a = loss(wide), b = loss(half);
    ck_assert_msg(a != b && fabs(a - b) < 0.02 * (1 + fabs(a)), "%g, in float32 %g", b, a);
    ck_assert_int_eq(mo_run_output(half, 0)->dtype, MO_F32);
    mo_run_free(wide);
    mo_run_free(half);
    net_close(&t);
}
END_TEST

/* Inference, fused and folded, against training kernels off and against plain C. */
static void check_inference(struct net *t, int batch)
{
    struct mo_run *fast = start(t, NULL, batch);
    struct mo_run *plain = start(t, &(struct mo_run_options){ .reference = true, .keep_names = true }, batch);
    struct mo_run *train = start(t, &(struct mo_run_options){ .train = true, .bn = MO_BN_FROZEN }, batch);
    train->is_training = false;
    double a = loss(fast), b = loss(plain), c = loss(train);
    ck_assert_double_eq_tol(a, b, 1e-3 * (1 + fabs(b)));
    ck_assert_double_eq_tol(c, b, 1e-3 * (1 + fabs(b)));
    const struct mo_value *info;
    for (mo_value_id v = 0; v < t->g->n_values; v++)
        ck_assert_msg(mo_run_value(plain, v, &info), "%s is gone", t->g->values[v].name);
    mo_run_free(fast);
    mo_run_free(plain);
    mo_run_free(train);
}

static mo_value_id heads(struct net *t, mo_value_id x, const int64_t *perm)
{
    mo_value_id shape = mo_graph_add_const(t->g, "shape", MO_I64, &(struct mo_shape){ 1, { 4 } }, (int64_t[]){ 0, 6, 2, 4 });
    t->last = x;
    linear(t, 8, 8);
    add(t, "Reshape", 2, (mo_value_id[]){ t->last, shape });
    mo_node_set_ints(t->g, add(t, "Transpose", 1, &t->last), "perm", perm, 4);
    return t->last;
}

/* Two heads as exporters write them; the mask, if any, hides what comes later. */
static void attention(struct net *t, bool is_masked)
{
    net_open(t, 2, 3, 0, 6, 8);
    mo_value_id x = t->last, q = heads(t, x, (int64_t[]){ 0, 2, 1, 3 }), k = heads(t, x, (int64_t[]){ 0, 2, 3, 1 });
    number(t, "Mul", k, 0.8f);
    k = t->last;
    mo_value_id v = heads(t, x, (int64_t[]){ 0, 2, 1, 3 });
    add(t, "MatMul", 2, (mo_value_id[]){ q, k });
    number(t, "Div", t->last, 1.5f);
    if (is_masked) {
        mo_value_id mask = constant(t, "mask", 0, 0, 2, 6, 6);
        for (int i = 0; i < 36; i++)
            ((float *)t->g->values[mask].data)[i] = i % 6 > i / 6 ? -INFINITY : 0.1f * (float)(i % 5);
        add(t, "Add", 2, (mo_value_id[]){ t->last, mask });
    }
    mo_node_set_int(t->g, add(t, "Softmax", 1, &t->last), "axis", -1);
    add(t, "MatMul", 2, (mo_value_id[]){ t->last, v });
    mo_node_set_ints(t->g, add(t, "Transpose", 1, &t->last), "perm", (int64_t[]){ 0, 2, 1, 3 }, 4);
    add1(t, "Flatten");
    gemm(t, 48, 5);
    finish(t);
}

START_TEST(attention_is_one_kernel)
{
    for (int is_masked = 0; is_masked < 2; is_masked++) {
        struct net t;
        attention(&t, is_masked);
        struct mo_run *run = start(&t, NULL, 3);
        ck_assert_uint_eq(count_nodes(run->graph, "Attention"), run->be->fuses_attention);
        ck_assert_uint_eq(count_nodes(run->graph, "Softmax"), !run->be->fuses_attention);
        mo_run_free(run);
        check_inference(&t, 3);
        if (!is_masked)         /* a constant mask is a parameter like others, which only the plain operators teach */
            check_gradients(&t, 4);
        net_close(&t);
    }
}
END_TEST

START_TEST(inference_agrees_with_plain_c)
{
    struct net t;
    lenet(&t, 2);
    check_inference(&t, 5);
    net_close(&t);
    resnet(&t, 2);
    check_inference(&t, 3);
    net_close(&t);
}
END_TEST

START_TEST(batches_of_other_sizes_share_one_run)
{
    struct net t;
    lenet(&t, 2);
    struct mo_run *run = start(&t, NULL, 4);
    double first = loss(run);
    for (int batch = 1; batch < 12; batch++) {
        struct mo_shape shape = { .rank = 4, .dim = { batch, 1, 16, 16 } };
        ck_assert(!mo_run_shape(run, &shape, 1));
        float *x = mo_mem_new((size_t)batch * 256, sizeof *x);
        struct mo_rng rng = mo_rng_new(3, MO_RNG_TEST, 1);
        for (int i = 0; i < batch * 256; i++)
            x[i] = mo_rng_normal(&rng);
        ck_assert(!mo_run_set_input(run, 0, x, (size_t)batch * 1024));
        mo_mem_free(x);
        double again = loss(run);
        if (batch == 4)
            ck_assert_double_eq(first, again);
    }
    mo_run_free(run);
    net_close(&t);
}
END_TEST

START_TEST(sparse_input)
{
    struct net t;
    net_open(&t, 2, 2, 0, 30);
    gemm(&t, 30, 7);
    add1(&t, "Tanh");
    gemm(&t, 7, 3);
    finish(&t);
    bool bf16 = _i;
    struct mo_run *dense = start(&t, &(struct mo_run_options){ .train = true, .half = bf16 ? MO_BF16 : MO_UNDEFINED }, 9);
    struct mo_run *sparse = start(&t, &(struct mo_run_options){ .train = true, .half = bf16 ? MO_BF16 : MO_UNDEFINED }, 9);
    float x[9 * 30] = { 0 }, value[90];
    int64_t row_start[10] = { 0 };
    int32_t column[90], n = 0;
    for (int r = 0; r < 9; r++) {
        for (int c = r % 4; c < 30; c += 3 + r) {
            x[r * 30 + c] = value[n] = mo_rng_normal(&t.rng);
            column[n++] = c;
        }
        row_start[r + 1] = n;
    }
    ck_assert(!mo_run_set_input(dense, 0, x, sizeof x));
    ck_assert_msg(!mo_run_set_input_csr(sparse, 0, row_start, column, value), "%s", mopt_error(t.ctx));
    ck_assert_double_eq_tol(loss(dense), loss(sparse), bf16 ? 0.05 : 1e-5);
    backward(dense, false);
    backward(sparse, false);
    for (size_t i = 0; i < dense->n_weights; i++)
        ck_assert_float_eq_tol(dense->grads[i], sparse->grads[i], bf16 ? 0.05f : 1e-4f);
    mo_run_free(dense);
    mo_run_free(sparse);
    net_close(&t);
}
END_TEST

START_TEST(unknown_operators_are_named)
{
    struct net t;
    net_open(&t, 1, 2, 0, 4);
    mo_value_id y = mo_graph_add_value(t.g, "y", MO_F32, NULL);
    mo_graph_add_node(t.g, "Frobnicate", "com.example", "strange", &t.last, 1, &y, 1);
    t.last = y;
    finish(&t);
    struct mo_run *run;
    struct mo_shape shape = { .rank = 2, .dim = { 1, 4 } };
    ck_assert(!mo_run_new(t.ctx, t.g, NULL, &run));
    ck_assert_int_eq(mo_run_shape(run, &shape, 1), MOPT_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(mopt_error(t.ctx), "strange"));
    ck_assert_ptr_nonnull(strstr(mopt_error(t.ctx), "Frobnicate"));
    mo_run_free(run);
    net_close(&t);
}
END_TEST

START_TEST(memory_limit_is_said)
{
    struct net t;
    lenet(&t, 1);
    ck_assert(!mopt_configure(t.ctx, NULL, 0, 1 << 20));
    struct mo_run *run;
    struct mo_shape shape = { .rank = 4, .dim = { 4096, 1, 16, 16 } };
    ck_assert(!mo_run_new(t.ctx, t.g, NULL, &run));
    ck_assert_int_eq(mo_run_shape(run, &shape, 1), MOPT_LIMIT);
    mopt_clear(t.ctx);
    shape.dim[0] = 1;
    ck_assert_msg(!mo_run_shape(run, &shape, 1), "%s", mopt_error(t.ctx));
    mo_run_free(run);
    net_close(&t);
}
END_TEST

Suite *suite_run(void);
Suite *suite_run(void)
{
    Suite *s = suite_create("run");
    TCase *c = tcase_create("run");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, gradients_of_lenet);
    tcase_add_test(c, gradients_of_resnet);
    tcase_add_test(c, gradients_of_a_transformer);
    tcase_add_test(c, bf16_is_near_float32);
    tcase_add_loop_test(c, bf16_on_lower_tiers, 0, 2);
    tcase_add_test(c, bf16_bits_do_not_depend_on_threads);
    tcase_add_test(c, bf16_inference);
    tcase_add_test(c, threads_do_not_change_bits);
    tcase_add_test(c, last_batch_is_normalized_as_whole_ones);
    tcase_add_test(c, statistics_are_averaged_over_batches);
    tcase_add_test(c, emulated_statistics_are_averaged_over_batches);
    tcase_add_test(c, inference_agrees_with_plain_c);
    tcase_add_test(c, attention_is_one_kernel);
    tcase_add_test(c, batches_of_other_sizes_share_one_run);
    tcase_add_loop_test(c, sparse_input, 0, 2);
    tcase_add_test(c, unknown_operators_are_named);
    tcase_add_test(c, memory_limit_is_said);
    suite_add_tcase(s, c);
    return s;
}
