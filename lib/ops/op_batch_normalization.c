/* BatchNormalization (Ioffe and Szegedy 2015), per channel:
 *     y = (x - mean) / sqrt(var + epsilon) scale + bias
 *
 * with the running statistics, or with those of the batch: where the node says
 * training_mode (before opset 14: where it has more outputs), and in training
 * where the run's options say so. Training moves the running statistics towards
 * the batch, variance unbiased; the outputs of training_mode follow ONNX's formula
 * (biased, share `momentum` of the old). Lowering may add a residual and Relu.
 *
 * An epoch's smaller last batch is normalized as the whole ones are. By running
 * statistics, as constants, its gradient would be another and far larger one, since
 * nothing takes out the part along the weights; and its few samples come right before
 * the validation, so they move the statistics by their share of a whole batch. */
#include <math.h>

#include "lib/run/fused.h"
#include "lib/ops/ops.h"
#include "lib/run/run.h"

/* From this batch size on its statistics are good enough to train by. */
#define LEAST_BATCH 16
#define RUN_MOMENTUM 0.1f

struct batchnorm {
    float eps, momentum;
    bool has_batch_form;    /* the node itself asks for batch statistics */
    bool is_per_activation; /* spatial = 0 until opset 8 */
    struct mo_fused fused;
};

static int channel_axis(const struct mo_node *n, const struct mo_shape *x)
{
    return n->channels_last ? x->rank - 1 : 1;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct batchnorm *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    p->eps = mo_node_float(n, "epsilon", 1e-5f);
    p->momentum = mo_node_float(n, "momentum", 0.9f);
    p->is_per_activation = mo_node_int(n, "spatial", 1) == 0;
    p->fused = mo_fused_read(n);
    p->has_batch_form = mo_node_int(n, "training_mode", 0) != 0;
    if (g->opset < 7 && !mo_node_int(n, "is_test", 0))
        p->has_batch_form = true;
    for (uint32_t i = 1; g->opset < 14 && i < n->n_out; i++)
        p->has_batch_form = p->has_batch_form || n->out[i] != MO_NONE;
    if (n->n_in == 6 && !p->fused.has_residual)
        return mo_fail(ctx, MOPT_DATA, "6 inputs, it takes 5");
    int64_t channels = MO_UNKNOWN;
    if (x->shape.rank >= 0)
        channels = x->shape.rank > 1 ? x->shape.dim[channel_axis(n, &x->shape)] : 1;
    for (uint32_t i = 1; i < 5; i++) {
        int64_t elems = mo_value_elems(mo_in(g, n, i));
        if (channels >= 0 && elems >= 0 && elems != channels && !p->is_per_activation)
            return mo_fail(ctx, MOPT_DATA, "input %u has %lld elements for %lld channels", i, (long long)elems,
                           (long long)channels);
    }
    MO_TRY(mo_infer_like_input(ctx, g, n));
    for (uint32_t i = 1; i < n->n_out; i++) {
        struct mo_shape shape = mo_in(g, n, 3)->shape;
        mo_set_out(g, n, i, mo_in(g, n, 3)->dtype, &shape);
    }
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct batchnorm *p = n->params;
    if (p->is_per_activation)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "statistics per activation (spatial = 0) are not computed");
    if (p->fused.act != MO_ACT_NONE && p->fused.act != MO_ACT_RELU)
        return mo_fail(r->ctx, MOPT_FAILED, "only Relu can be fused into it");
    return mo_prepare_float32(r, n);
}

static int64_t channels_of(const struct mo_run *r, const struct mo_node *n)
{
    return (int64_t)mo_run_in_elems(r, n, 1);
}

static int64_t rows_of(const struct mo_run *r, const struct mo_node *n)
{
    int64_t channels = channels_of(r, n);
    return channels ? (int64_t)mo_run_in_elems(r, n, 0) / channels : 0;
}

static int64_t samples_of(const struct mo_run *r, const struct mo_node *n)
{
    return r->sync ? (int64_t)r->sync->batch : mo_in(r->graph, n, 0)->shape.dim[0];
}

static int64_t whole_batch(const struct mo_run *r, const struct mo_node *n)
{
    return r->options.batch ? (int64_t)r->options.batch : samples_of(r, n);
}

static bool uses_batch(const struct mo_run *r, const struct mo_node *n)
{
    const struct batchnorm *p = n->params;
    if (p->has_batch_form)
        return true;
    if (!r->is_training || r->options.bn == MO_BN_FROZEN)
        return false;
    return r->options.bn == MO_BN_BATCH || whole_batch(r, n) >= LEAST_BATCH;
}

/* Sums of shards: of two things a channel, and the rows. */
static size_t sync_elems(const struct mo_run *r, const struct mo_node *n)
{
    return uses_batch(r, n) ? 2 * (size_t)channels_of(r, n) + 1 : 0;
}

/* Mean and variance of the batch. */
static size_t stats_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return 2 * (size_t)channels_of(r, n) * sizeof(float);
}

/* Of a shard's backward: what its gradients of scale and bias add up to when nobody else wants them, what of all shards'
 * goes into dx, and that by element. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    if (backward)
        return r->options.is_shard ? 2 * stats_bytes(r, n) + mo_run_in_elems(r, n, 0) * sizeof(float) : 0;
    return stats_bytes(r, n);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return r->options.train ? stats_bytes(r, n) : 0;
}

/* running = (1 - share) running + share * factor * batch */
static void move_towards(struct mo_run *r, size_t channels, float share, float factor, const float *from,
                         const float *batch, float *running)
{
    r->be->axpy(r->dev, channels, 1.0f - share, from, running, false);
    r->be->axpy(r->dev, channels, share * factor, batch, running, true);
}

/* Is input i a tensor that the run keeps, and not something computed? */
static bool is_kept(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *v = mo_in(r->graph, n, i);
    return v->producer == MO_NONE && (!v->is_input || v->is_initializer);
}

static void give_outputs(struct mo_run *r, const struct mo_node *n, const float *mean, const float *var)
{
    const struct batchnorm *p = n->params;
    size_t channels = (size_t)channels_of(r, n);
    for (uint32_t i = 1; i < n->n_out; i++) {
        float *out = mo_run_out(r, n, i);
        const float *batch = i % 2 ? mean : var;
        if (!out)
            continue;
        if (i < 3)
            move_towards(r, channels, 1.0f - p->momentum, 1.0f, mo_run_in(r, n, i + 2), batch, out);
        else
            r->be->axpy(r->dev, channels, 1.0f, batch, out, false);
    }
}

static void train_state(struct mo_run *r, const struct mo_node *n, const float *mean, const float *var)
{
    float of_whole = fminf(1.0f, (float)samples_of(r, n) / (float)whole_batch(r, n));
    float share = of_whole * (r->options.bn_momentum > 0.0f ? r->options.bn_momentum : RUN_MOMENTUM);
    float rows = r->sync ? (float)r->sync->sums[2 * channels_of(r, n)] : (float)rows_of(r, n);
    float *state[2] = {mo_run_in(r, n, 3), mo_run_in(r, n, 4)};
    if (is_kept(r, n, 3))
        move_towards(r, (size_t)channels_of(r, n), share, 1.0f, state[0], mean, state[0]);
    if (is_kept(r, n, 4))
        move_towards(r, (size_t)channels_of(r, n), share, rows > 1.0f ? rows / (rows - 1.0f) : 1.0f, state[1], var,
                     state[1]);
}

static void own_stats(struct mo_run *r, const struct mo_node *n, float *stats)
{
    int64_t rows = rows_of(r, n), channels = channels_of(r, n);
    if (mo_run_in_half(r, n, 0))
        r->be->batchnorm_stats_bf16(r->dev, rows, channels, mo_run_in(r, n, 0), stats, stats + channels);
    else
        r->be->batchnorm_stats(r->dev, rows, channels, mo_run_in(r, n, 0), stats, stats + channels);
}

/* A shard's own statistics, as sums: of x and of x^2. In float64 their difference has digits to spare. */
static void measure(struct mo_run *r, const struct mo_node *n, float *stats)
{
    int64_t channels = channels_of(r, n);
    double rows = (double)rows_of(r, n), *sums = r->sync->sums;
    const float *own = r->sync->work;
    own_stats(r, n, stats);
    r->be->download(r->dev, r->sync->work, stats, 2 * (size_t)channels * sizeof *stats);
    for (int64_t c = 0; c < channels; c++) {
        sums[c] = rows * own[c];
        sums[channels + c] = rows * (own[channels + c] + (double)own[c] * own[c]);
    }
    sums[2 * channels] = rows;
}

/* Mean and variance over all shards. */
static void take_stats(struct mo_run *r, const struct mo_node *n, float *stats)
{
    int64_t channels = channels_of(r, n);
    const double *sums = r->sync->sums;
    double rows = sums[2 * channels];
    float *all = r->sync->work;
    for (int64_t c = 0; c < channels; c++) {
        double mean = sums[c] / rows, var = sums[channels + c] / rows - mean * mean;
        all[c] = (float)mean;
        all[channels + c] = var > 0 ? (float)var : 0;
    }
    r->be->upload(r->dev, stats, all, 2 * (size_t)channels * sizeof *stats);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct batchnorm *p = n->params;
    int64_t rows = rows_of(r, n), channels = channels_of(r, n);
    const void *x = mo_run_in(r, n, 0);
    const float *mean = mo_run_in(r, n, 3), *var = mo_run_in(r, n, 4);
    bool is_bf16 = mo_run_in_half(r, n, 0);
    float *stats = NULL;
    if (uses_batch(r, n)) {
        stats = r->is_training ? mo_run_saved(r, n) : mo_run_scratch(r, n);
        mean = stats;
        var = stats + channels;
        if (r->sync && r->sync->phase == MO_SYNC_MEASURE) {
            measure(r, n, stats);
            return MOPT_OK;
        }
        if (r->sync)
            take_stats(r, n, stats);
        else
            own_stats(r, n, stats);
        if (r->sync && r->sync->phase == MO_SYNC_STATE) {
            train_state(r, n, mean, var);
            return MOPT_OK;
        }
        give_outputs(r, n, mean, var);
    }
    if (is_bf16)
        r->be->batchnorm_bf16(r->dev, rows, channels, p->eps, x, mean, var, mo_run_in(r, n, 1), mo_run_in(r, n, 2),
                              mo_run_in(r, n, 5), p->fused.act, mo_run_out(r, n, 0));
    else
        r->be->batchnorm(r->dev, rows, channels, p->eps, x, mean, var, mo_run_in(r, n, 1), mo_run_in(r, n, 2),
                         mo_run_in(r, n, 5), p->fused.act, mo_run_out(r, n, 0));
    if (stats && r->is_training && rows && (!r->sync || r->sync->moves_state))
        train_state(r, n, mean, var);
    return MOPT_OK;
}

static void own_grad(struct mo_run *r, const struct mo_node *n, bool is_frozen, const float *mean, const float *var,
                     float *dscale, float *dbias)
{
    const struct batchnorm *p = n->params;
    int64_t rows = rows_of(r, n), channels = channels_of(r, n);
    float *dy = mo_run_grad_out(r, n, 0), *dx = mo_run_grad_in(r, n, 0), *dresidual = mo_run_grad_in(r, n, 5);
    if (mo_run_in_half(r, n, 0))
        r->be->batchnorm_grad_bf16(r->dev, rows, channels, p->eps, is_frozen, p->fused.act, mo_run_in(r, n, 0),
                                   mo_run_out(r, n, 0), mean, var, mo_run_in(r, n, 1), (const uint16_t *)dy,
                                   (uint16_t *)dx, (uint16_t *)dresidual, dscale, dbias);
    else
        r->be->batchnorm_grad(r->dev, rows, channels, p->eps, is_frozen, p->fused.act, mo_run_in(r, n, 0),
                              mo_run_out(r, n, 0), mean, var, mo_run_in(r, n, 1), dy, dx, dresidual, dscale, dbias);
}

/* With the sums over its own rows, and dx as if the statistics were constants. */
static void measure_grad(struct mo_run *r, const struct mo_node *n)
{
    int64_t channels = channels_of(r, n);
    size_t bytes = (size_t)channels * sizeof(float);
    const float *stats = mo_run_saved(r, n);
    float *spare = mo_run_scratch(r, n), *dscale = mo_run_grad_in(r, n, 1), *dbias = mo_run_grad_in(r, n, 2);
    float *own = r->sync->work;
    dscale = dscale ? dscale : spare;
    dbias = dbias ? dbias : spare + channels;
    own_grad(r, n, true, stats, stats + channels, dscale, dbias);
    r->be->download(r->dev, own, dscale, bytes);
    r->be->download(r->dev, own + channels, dbias, bytes);
    for (int64_t c = 0; c < 2 * channels; c++)
        r->sync->sums[c] = own[c];
    r->sync->sums[2 * channels] = (double)rows_of(r, n);
}

/* dx -= scale / std (mean of dy + xh mean of dy xh), means over all shards: BatchNormalization of x with other factors. */
static void finish_grad(struct mo_run *r, const struct mo_node *n)
{
    const struct batchnorm *p = n->params;
    int64_t channels = channels_of(r, n);
    size_t bytes = (size_t)channels * sizeof(float);
    const float *stats = mo_run_saved(r, n);
    const double *sums = r->sync->sums;
    float *factor = (float *)mo_run_scratch(r, n) + 2 * channels, *term = factor + 2 * channels;
    float *dx = mo_run_grad_in(r, n, 0), *host = r->sync->work, *scale = host + 2 * channels, *var = host + 3 * channels;
    if (!dx)
        return;
    r->be->download(r->dev, scale, mo_run_in(r, n, 1), bytes);
    r->be->download(r->dev, var, stats + channels, bytes);
    for (int64_t c = 0; c < channels; c++) {
        double share = -scale[c] / sqrt((double)var[c] + p->eps) / sums[2 * channels];
        host[c] = (float)(share * sums[c]);
        host[channels + c] = (float)(share * sums[channels + c]);
    }
    r->be->upload(r->dev, factor, host, 2 * bytes);
    if (mo_run_in_half(r, n, 0)) {
        r->be->batchnorm_bf16(r->dev, rows_of(r, n), channels, p->eps, mo_run_in(r, n, 0), stats, stats + channels, factor,
                              factor + channels, NULL, MO_ACT_NONE, (uint16_t *)(void *)term);
        r->be->axpy_bf16(r->dev, mo_run_in_elems(r, n, 0), 1.0f, (uint16_t *)(void *)term, (uint16_t *)(void *)dx, true);
        return;
    }
    r->be->batchnorm(r->dev, rows_of(r, n), channels, p->eps, mo_run_in(r, n, 0), stats, stats + channels, factor,
                     factor + channels, NULL, MO_ACT_NONE, term);
    r->be->axpy(r->dev, mo_run_in_elems(r, n, 0), 1.0f, term, dx, true);
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    bool is_frozen = !uses_batch(r, n);
    if (r->sync && !is_frozen) {
        r->sync->phase == MO_SYNC_MEASURE ? measure_grad(r, n) : finish_grad(r, n);
        return MOPT_OK;
    }
    const float *stats = mo_run_saved(r, n);
    own_grad(r, n, is_frozen, is_frozen ? mo_run_in(r, n, 3) : stats,
             is_frozen ? mo_run_in(r, n, 4) : stats + channels_of(r, n), mo_run_grad_in(r, n, 1), mo_run_grad_in(r, n, 2));
    return MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_couple_through(c, g, n);
    for (uint32_t i = 1; i < 5 && mo_in(g, n, 0)->shape.rank > 1; i++) {
        mo_couple_same(c, n->in[i], 0, n->out[0], 1);
        if (mo_in(g, n, i)->data)
            mo_couple_weight(c, mo_node_id_of(g, n), n->in[i], 0, MO_ROLE_PER_CHANNEL);
    }
    for (uint32_t i = 1; i < n->n_out; i++)
        if (n->out[i] != MO_NONE)
            mo_couple_same(c, n->in[1], 0, n->out[i], 0);
}

const struct mo_op mo_op_batch_normalization = {
    .type = "BatchNormalization",
    .since_opset = 1,
    .min_in = 5, .max_in = 6, .min_out = 1, .max_out = 5,
    .flags = MO_OP_CHANNELS_LAST | MO_OP_IN_PLACE | MO_OP_TRAIN_MODE,
    .params_bytes = sizeof(struct batchnorm),
    .infer = infer,
    .prepare = prepare,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = couple,
    .scratch_bytes = scratch_bytes,
    .saved_bytes = saved_bytes,
    .sync_elems = sync_elems,
    .backward_reads = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4,
    .bf16_in = 1u << 0 | 1u << 5,
    .params_in = 1u << 1 | 1u << 2,
    .state_in = 1u << 3 | 1u << 4,
};
