/* BatchNormalization (Ioffe and Szegedy 2015), per channel:
 *     y = (x - mean) / sqrt(var + epsilon) scale + bias
 *
 * with the running statistics, or with those of the batch: where the node says
 * training_mode (before opset 14: where it has more outputs), and in training
 * where the run's options say so. Training moves the running statistics towards
 * the batch, variance unbiased; the outputs of training_mode follow ONNX's formula
 * (biased, share `momentum` of the old). Lowering may add a residual and Relu. */
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

static bool uses_batch(const struct mo_run *r, const struct mo_node *n)
{
    const struct batchnorm *p = n->params;
    if (p->has_batch_form)
        return true;
    if (!r->is_training || r->options.bn == MO_BN_FROZEN)
        return false;
    return r->options.bn == MO_BN_BATCH || mo_in(r->graph, n, 0)->shape.dim[0] >= LEAST_BATCH;
}

/* Mean and variance of the batch. */
static size_t stats_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return 2 * (size_t)channels_of(r, n) * sizeof(float);
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : stats_bytes(r, n);
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
    float share = r->options.bn_momentum > 0.0f ? r->options.bn_momentum : RUN_MOMENTUM;
    float rows = (float)rows_of(r, n), *state[2] = {mo_run_in(r, n, 3), mo_run_in(r, n, 4)};
    if (is_kept(r, n, 3))
        move_towards(r, (size_t)channels_of(r, n), share, 1.0f, state[0], mean, state[0]);
    if (is_kept(r, n, 4))
        move_towards(r, (size_t)channels_of(r, n), share, rows > 1.0f ? rows / (rows - 1.0f) : 1.0f, state[1], var,
                     state[1]);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct batchnorm *p = n->params;
    int64_t rows = rows_of(r, n), channels = channels_of(r, n);
    const void *x = mo_run_in(r, n, 0);
    const float *mean = mo_run_in(r, n, 3), *var = mo_run_in(r, n, 4);
    bool is_bf16 = mo_run_in_bf16(r, n, 0);
    float *stats = NULL;
    if (uses_batch(r, n)) {
        stats = r->is_training ? mo_run_saved(r, n) : mo_run_scratch(r, n);
        mean = stats;
        var = stats + channels;
        if (is_bf16)
            r->be->batchnorm_stats_bf16(r->dev, rows, channels, x, stats, stats + channels);
        else
            r->be->batchnorm_stats(r->dev, rows, channels, x, stats, stats + channels);
        give_outputs(r, n, mean, var);
    }
    if (is_bf16)
        r->be->batchnorm_bf16(r->dev, rows, channels, p->eps, x, mean, var, mo_run_in(r, n, 1), mo_run_in(r, n, 2),
                              mo_run_in(r, n, 5), p->fused.act, mo_run_out(r, n, 0));
    else
        r->be->batchnorm(r->dev, rows, channels, p->eps, x, mean, var, mo_run_in(r, n, 1), mo_run_in(r, n, 2),
                         mo_run_in(r, n, 5), p->fused.act, mo_run_out(r, n, 0));
    if (stats && r->is_training && rows)
        train_state(r, n, mean, var);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct batchnorm *p = n->params;
    bool is_frozen = !uses_batch(r, n);
    int64_t channels = channels_of(r, n);
    const float *stats = mo_run_saved(r, n);
    const float *mean = is_frozen ? mo_run_in(r, n, 3) : stats, *var = is_frozen ? mo_run_in(r, n, 4) : stats + channels;
    float *dy = mo_run_grad_out(r, n, 0), *dx = mo_run_grad_in(r, n, 0), *dresidual = mo_run_grad_in(r, n, 5);
    float *dscale = mo_run_grad_in(r, n, 1), *dbias = mo_run_grad_in(r, n, 2);
    if (mo_run_in_bf16(r, n, 0))
        r->be->batchnorm_grad_bf16(r->dev, rows_of(r, n), channels, p->eps, is_frozen, p->fused.act, mo_run_in(r, n, 0),
                                   mo_run_out(r, n, 0), mean, var, mo_run_in(r, n, 1), (const uint16_t *)dy,
                                   (uint16_t *)dx, (uint16_t *)dresidual, dscale, dbias);
    else
        r->be->batchnorm_grad(r->dev, rows_of(r, n), channels, p->eps, is_frozen, p->fused.act, mo_run_in(r, n, 0),
                              mo_run_out(r, n, 0), mean, var, mo_run_in(r, n, 1), dy, dx, dresidual, dscale, dbias);
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
    .backward_reads = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4,
    .bf16_in = 1u << 0 | 1u << 5,
    .params_in = 1u << 1 | 1u << 2,
    .state_in = 1u << 3 | 1u << 4,
};
