/* measure.c - counts, latency and equality of models, as the driver reports them. */
#include "lib/passes/measure.h"

#include <math.h>
#include <string.h>

#include "lib/graph/large.h"
#include "lib/ops/sequence.h"
#include "lib/run/run.h"

enum { MAX_INPUTS = 32, WARM_UP_RUNS = 3, MAX_LATENCY_RUNS = 1000 };
#define SMALL_SCALE 0.1

enum mopt_status mo_sample_shapes(struct mopt_ctx *ctx, const struct mo_graph *g, int64_t batch, int64_t free_dim,
                                  struct mo_shape *shapes, uint32_t max, uint32_t *n)
{
    *n = 0;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mo_value *v = &g->values[g->inputs[i]];
        if (v->is_initializer)
            continue;
        if (*n == max)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "the model has more than %u inputs", max);
        struct mo_shape s = v->shape;
        if (s.rank < 0)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "input '%s' has no shape", v->name);
        for (int k = 0; k < s.rank; k++)
            if (s.dim[k] < 0)
                s.dim[k] = k == 0 ? batch : free_dim;
        shapes[(*n)++] = s;
    }
    return MOPT_OK;
}

enum mopt_status mo_sample_input(struct mo_run *run, uint32_t i, uint64_t seed)
{
    const struct mo_value *v = mo_run_input(run, i);
    int64_t n = mo_value_elems(v);
    size_t bytes = mo_value_bytes(v);
    char *data = mo_mem_new(MO_MAX(bytes, (size_t)8), 1);
    if (!data)
        return mo_no_memory(run->ctx, bytes, "a sample input");
    struct mo_rng rng = mo_rng_new(seed, MO_RNG_INPUT, i);
    for (int64_t k = 0; k < n; k++) {
        if (v->dtype == MO_F32)
            ((float *)data)[k] = mo_rng_normal(&rng);
        else if (v->dtype == MO_F64)
            ((double *)data)[k] = mo_rng_normal(&rng);
        else if (v->dtype == MO_I64)
            ((int64_t *)data)[k] = mo_rng_below(&rng, 2);
        else if (v->dtype == MO_I32)
            ((int32_t *)data)[k] = (int32_t)mo_rng_below(&rng, 2);
        else if (v->dtype == MO_U8 || v->dtype == MO_I8)
            data[k] = (char)mo_rng_below(&rng, 100);
        /* other types stay zero, which every type can be */
    }
    enum mopt_status s = mo_run_set_input(run, i, data, bytes);
    mo_mem_free(data);
    return s;
}

/* A run of the model, planned for one sample, inputs filled. texts: of the run that it is compared with, or NULL. */
static enum mopt_status sample_run(struct mopt_ctx *ctx, const struct mopt_model *model, uint64_t seed, int64_t free_dim,
                                   struct mo_texts *texts, struct mo_run **run)
{
    struct mo_shape shapes[MAX_INPUTS];
    uint32_t n = 0;
    MO_TRY(mo_sample_shapes(ctx, &model->graph, 1, free_dim, shapes, MAX_INPUTS, &n));
    MO_TRY(mo_run_new(ctx, &model->graph, &(struct mo_run_options){.texts = texts}, run));
    enum mopt_status s = mo_run_shape(*run, shapes, n);
    for (uint32_t i = 0; !s && i < n; i++)
        s = mo_sample_input(*run, i, seed);
    if (s) {
        mo_run_free(*run);
        *run = NULL;
    }
    return s;
}

/* Free dimensions that suit the model: of an image, a single step, or a longer signal; the first that fits. */
static enum mopt_status first_run(struct mopt_ctx *ctx, const struct mopt_model *model, uint64_t seed, int64_t *free_dim,
                                  struct mo_run **run)
{
    static const int64_t dims[] = {MO_FREE_DIM, 1, 1024};
    char words[sizeof ctx->error] = "";
    for (size_t i = 0; i < MO_COUNT(dims); i++) {
        *free_dim = dims[i];
        enum mopt_status s = sample_run(ctx, model, seed, dims[i], NULL, run);
        if (s != MOPT_DATA)
            return s;
        if (i == 0)
            memcpy(words, ctx->error, sizeof words);
        mopt_clear(ctx);
    }
    return mo_fail(ctx, MOPT_UNSUPPORTED, "%s", words);
}

enum mopt_status mo_measure_latency(struct mopt_ctx *ctx, const struct mopt_model *model, double budget_s,
                                    struct mo_latency *latency)
{
    *latency = (struct mo_latency){0};
    struct mo_run *run = NULL;
    int64_t free_dim;
    MO_TRY(first_run(ctx, model, 0, &free_dim, &run));
    enum mopt_status s = MOPT_OK;
    for (int i = 0; !s && i < WARM_UP_RUNS; i++)
        s = mo_run_forward(run);
    double start = mo_now_s(), mean = 0, m2 = 0;
    while (!s && latency->n < MAX_LATENCY_RUNS && (latency->n < 3 || mo_now_s() - start < budget_s)) {
        double t = mo_now_s();
        s = mo_run_forward(run);
        double ms = 1e3 * (mo_now_s() - t), delta = ms - mean;
        mean += delta / ++latency->n;
        m2 += delta * (ms - mean);
    }
    latency->mean_ms = mean;
    latency->sd_ms = latency->n > 1 ? sqrt(m2 / (latency->n - 1)) : 0;
    mo_run_free(run);
    return s;
}

enum mopt_status mo_measure_memory(struct mopt_ctx *ctx, const struct mopt_model *model, struct mopt_report *report)
{
    struct mo_run *run = NULL;
    int64_t free_dim;
    MO_TRY(first_run(ctx, model, 0, &free_dim, &run));
    struct mopt_report *row = mo_report_object(report, "memory_bytes");
    mo_report_set_int(row, "activations", (int64_t)mo_run_block_bytes(run));
    mo_report_set_int(row, "weights", (int64_t)mo_run_weight_bytes(run));
    mo_run_free(run);
    return MOPT_OK;
}

static double list_difference(struct mo_item a, struct mo_item b);

/* The largest |a - b| over the largest |a|, or over SMALL_SCALE where that is less: what was rounded at a scale near 1
 * inside cannot be better at the output. Other types than float32 are compared bit by bit, lists item by item. */
static double difference_of(const struct mo_item *a, const struct mo_item *b)
{
    if (a->dtype != b->dtype || (!mo_is_list(a->dtype) && !mo_shape_equal(&a->shape, &b->shape)))
        return INFINITY;
    if (mo_is_list(a->dtype))
        return list_difference(*a, *b);
    if (a->dtype != MO_F32)
        return memcmp(a->data, b->data, mo_dtype_bytes(a->dtype, mo_shape_elems(&a->shape))) ? INFINITY : 0;
    const float *x = a->data, *y = b->data;
    double scale = SMALL_SCALE, worst = 0;
    for (int64_t k = 0; k < mo_shape_elems(&a->shape); k++) {
        if (isnan(x[k]) && isnan(y[k]))
            continue;
        scale = fmax(scale, fabs(x[k]));
        double d = x[k] == y[k] ? 0 : fabs((double)x[k] - (double)y[k]);
        worst = isnan(d) ? INFINITY : fmax(worst, d);
    }
    return worst / scale;
}

static double list_difference(struct mo_item a, struct mo_item b)
{
    struct mopt_ctx quiet = {0};
    int64_t n_a, n_b;
    double worst = 0;
    if (mo_sequence_check(&quiet, a.data, (size_t)mo_shape_elems(&a.shape), &n_a) ||
        mo_sequence_check(&quiet, b.data, (size_t)mo_shape_elems(&b.shape), &n_b) || n_a != n_b)
        return INFINITY;
    for (int64_t k = 0; k < n_a; k++) {
        const struct mo_item x = mo_sequence_item(a.data, k), y = mo_sequence_item(b.data, k);
        worst = fmax(worst, difference_of(&x, &y));
    }
    return worst;
}

static enum mopt_status compare_outputs(struct mo_run *a, struct mo_run *b, double *difference)
{
    for (uint32_t i = 0; i < mo_run_n_outputs(a); i++) {
        const struct mo_value *v = mo_run_output(a, i), *w = mo_run_output(b, i);
        size_t n_a = mo_dtype_bytes(v->dtype, mo_value_elems(v)), n_b = mo_dtype_bytes(w->dtype, mo_value_elems(w));
        char *x = mo_mem_new(n_a + 1, 1), *y = mo_mem_new(n_b + 1, 1);
        struct mo_item got = {v->dtype, v->shape, x}, other = {w->dtype, w->shape, y};
        enum mopt_status s = x && y ? MOPT_OK : mo_no_memory(a->ctx, n_a + n_b, "comparing outputs");
        if (!s)
            s = mo_run_get_output(a, i, x, n_a);
        if (!s)
            s = mo_run_get_output(b, i, y, n_b);
        if (!s)
            *difference = fmax(*difference, difference_of(&got, &other));
        mo_mem_free(x);
        mo_mem_free(y);
        MO_TRY(s);
    }
    return MOPT_OK;
}

enum mopt_status mo_measure_difference(struct mopt_ctx *ctx, const struct mopt_model *a, const struct mopt_model *b,
                                       uint64_t seed, double *difference)
{
    *difference = 0;
    struct mo_run *run_a = NULL, *run_b = NULL;
    int64_t free_dim;
    enum mopt_status s = first_run(ctx, a, seed, &free_dim, &run_a);
    if (!s)
        s = mo_run_forward(run_a);
    if (s == MOPT_DATA) { /* made-up input need not suit the first model; what suits it must suit the second */
        char words[sizeof ctx->error];
        memcpy(words, ctx->error, sizeof words);
        mopt_clear(ctx);
        s = mo_fail(ctx, MOPT_UNSUPPORTED, "%s", words);
    }
    if (!s)
        s = sample_run(ctx, b, seed, free_dim, run_a->options.texts, &run_b);
    if (!s)
        s = mo_run_forward(run_b);
    if (!s && mo_run_n_outputs(run_a) != mo_run_n_outputs(run_b))
        *difference = INFINITY;
    else if (!s)
        s = compare_outputs(run_a, run_b, difference);
    mo_run_free(run_b);     /* it may use the texts of the other */
    mo_run_free(run_a);
    return s;
}

enum mopt_status mo_report_counts(struct mopt_ctx *ctx, const struct mopt_model *model, struct mopt_report *report)
{
    struct mo_counts counts;
    struct mo_arena arena = {0};
    struct mo_graph g = {.arena = &arena};
    enum mopt_status s = mo_graph_copy(ctx, &g, &model->graph, false);
    /* A model whose shapes cannot be inferred still has parameters and bytes. */
    bool has_shapes = !s && !mo_infer_sample(ctx, &g, MO_FREE_DIM);
    if (!s && !has_shapes)
        mopt_clear(ctx);
    if (!s)
        s = mo_graph_constant_bytes(&g) > MO_LARGE_BYTES ? mo_count_unread(ctx, &g, &counts) : mo_count(ctx, &g, &counts);
    mo_graph_release(&g);
    mo_arena_release(&arena);
    MO_TRY(s);
    uint64_t bytes = 0;
    MO_TRY(ctx->io->model_bytes(ctx, model, &bytes));
    mo_report_set_int(report, "parameters", counts.parameters);
    if (counts.nonzero == MO_UNKNOWN)
        mo_report_set_null(report, "nonzero");
    else
        mo_report_set_int(report, "nonzero", counts.nonzero);
    if (counts.macs < 0 || !has_shapes)
        mo_report_set_null(report, "macs");
    else
        mo_report_set_int(report, "macs", counts.macs);
    mo_report_set_int(report, "bytes", (int64_t)bytes);
    return MOPT_OK;
}
