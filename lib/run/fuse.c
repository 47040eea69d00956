/* fuse.c - fewer passes over memory, the same result.
 *
 * For inference, once: BatchNormalization behind a convolution is folded into
 * its weights. With s = scale / sqrt(var + eps), per output channel:
 *     weight' = weight s        bias' = (bias - mean) s + shift
 *
 * For every plan, also in training: an activation, and before it the addition of
 * a tensor of the same shape, are drawn into the Conv, Gemm, MatMul or
 * BatchNormalization in front of them (lib/run/fused.h). */
#include <math.h>
#include <string.h>

#include "lib/run/fused.h"
#include "lib/run/private.h"

/* The node that makes v when it makes v for one reader only. */
static struct mo_node *sole_producer(struct mo_graph *g, mo_value_id v)
{
    if (v == MO_NONE || g->values[v].n_uses != 1 || g->values[v].is_output || g->values[v].producer == MO_NONE)
        return NULL;
    struct mo_node *n = &g->nodes[g->values[v].producer];
    return n->is_dead ? NULL : n;
}

static enum mopt_status no_memory(struct mopt_ctx *ctx, size_t bytes)
{
    return mo_no_memory(ctx, bytes, "fusing nodes");
}

/* ---- BatchNormalization into Conv ----------------------------------------------------------- */

static bool is_const_f32(const struct mo_graph *g, const struct mo_node *n, uint32_t k, int64_t elems)
{
    const struct mo_value *v = mo_in(g, n, k);
    return v && v->data && v->dtype == MO_F32 && mo_value_elems(v) == elems;
}

static bool can_fold(const struct mo_graph *g, const struct mo_node *conv, const struct mo_node *bn)
{
    if (!mo_node_is(conv, "Conv") || conv->n_out != 1 || mo_node_int(bn, "training_mode", 0))
        return false;
    const struct mo_value *w = mo_in(g, conv, 1);
    if (!w || !w->data || w->dtype != MO_F32 || w->shape.rank < 3)
        return false;
    int64_t channels = w->shape.dim[0];
    for (uint32_t k = 1; k < 5; k++)
        if (!is_const_f32(g, bn, k, channels))
            return false;
    for (uint32_t k = 1; k < bn->n_out; k++)
        if (bn->out[k] != MO_NONE && g->values[bn->out[k]].n_uses)
            return false;
    return !mo_in(g, conv, 2) || is_const_f32(g, conv, 2, channels);
}

static const float *constant(const struct mo_graph *g, const struct mo_node *n, uint32_t k)
{
    const struct mo_value *v = mo_in(g, n, k);
    return v ? v->data : NULL;
}

static void fold_numbers(const struct mo_graph *g, const struct mo_node *conv, const struct mo_node *bn, float *w, float *b)
{
    const struct mo_value *weight = mo_in(g, conv, 1);
    const float *scale = constant(g, bn, 1), *shift = constant(g, bn, 2), *mean = constant(g, bn, 3);
    const float *var = constant(g, bn, 4), *old_w = weight->data, *old_b = constant(g, conv, 2);
    double eps = mo_node_float(bn, "epsilon", 1e-5f);
    int64_t channels = weight->shape.dim[0], each = mo_value_elems(weight) / MO_MAX(channels, 1);
    for (int64_t c = 0; c < channels; c++) {
        double s = scale[c] / sqrt((double)var[c] + eps);
        for (int64_t i = 0; i < each; i++)
            w[c * each + i] = (float)(old_w[c * each + i] * s);
        b[c] = (float)(((old_b ? old_b[c] : 0.0) - mean[c]) * s + shift[c]);
    }
}

static enum mopt_status fold_batchnorm(struct mopt_ctx *ctx, struct mo_graph *g, mo_node_id conv_id, mo_node_id bn_id)
{
    const struct mo_value *weight = mo_in(g, &g->nodes[conv_id], 1);
    struct mo_shape w_shape = weight->shape, b_shape = { .rank = 1, .dim = { weight->shape.dim[0] } };
    mo_value_id w = mo_graph_add_const(g, weight->name, MO_F32, &w_shape, NULL);
    mo_value_id b = w == MO_NONE ? MO_NONE : mo_graph_add_const(g, "bias", MO_F32, &b_shape, NULL);
    mo_value_id *in = mo_arena_new(g->arena, 3, sizeof *in);
    if (b == MO_NONE || !in)
        return no_memory(ctx, (size_t)mo_shape_elems(&w_shape) * sizeof(float));
    struct mo_node *conv = &g->nodes[conv_id], *bn = &g->nodes[bn_id];
    fold_numbers(g, conv, bn, g->values[w].data, g->values[b].data);
    in[0] = conv->in[0];
    in[1] = w;
    in[2] = b;
    conv->in = in;
    conv->n_in = 3;
    conv->out[0] = bn->out[0];
    bn->is_dead = true;
    g->values[bn->out[0]].producer = conv_id;
    g->values[w].n_uses = g->values[b].n_uses = 1;
    return MOPT_OK;
}

enum mopt_status mo_fuse_base(struct mopt_ctx *ctx, struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *bn = &g->nodes[i];
        if (bn->is_dead || !mo_node_is(bn, "BatchNormalization"))
            continue;
        struct mo_node *conv = sole_producer(g, bn->in[0]);
        if (conv && can_fold(g, conv, bn))
            MO_TRY(fold_batchnorm(ctx, g, (mo_node_id)(conv - g->nodes), i));
    }
    mo_graph_drop_unused(g);
    return MOPT_OK;
}

/* ---- activations ---------------------------------------------------------------------------------- */

static bool limit(const struct mo_graph *g, const struct mo_node *clip, uint32_t input, const char *attr, float otherwise,
                  float *x)
{
    const struct mo_value *v = mo_in(g, clip, input);
    double scalar;
    *x = mo_node_float(clip, attr, otherwise);
    if (!v)
        return true;
    if (!mo_value_scalar(v, &scalar))
        return false;
    *x = (float)scalar;
    return true;
}

bool mo_clip_limits(const struct mo_graph *g, const struct mo_node *clip, float *low, float *high)
{
    return limit(g, clip, 1, "min", -INFINITY, low) && limit(g, clip, 2, "max", INFINITY, high);
}

/* The activation that a node is, or false. */
static bool activation_of(const struct mo_graph *g, const struct mo_node *n, struct mo_fused *f)
{
    static const struct { const char *type; enum mo_act act; } list[] = {
        { "Relu", MO_ACT_RELU }, { "Sigmoid", MO_ACT_SIGMOID }, { "Tanh", MO_ACT_TANH }, { "HardSwish", MO_ACT_HARD_SWISH },
    };
    *f = (struct mo_fused){ 0 };
    for (size_t i = 0; i < MO_COUNT(list); i++)
        if (mo_node_is(n, list[i].type)) {
            f->act = list[i].act;
            return true;
        }
    if (!mo_node_is(n, "Clip"))
        return false;
    f->act = MO_ACT_CLIP;
    return mo_clip_limits(g, n, &f->lo, &f->hi);
}

/* Only what a kernel ends with anyhow is drawn in. */
static bool takes_activation(const struct mo_node *n, enum mo_act act, bool train)
{
    if (train && !mo_fused_trains(act))
        return false;
    if (mo_node_is(n, "BatchNormalization"))
        return act == MO_ACT_RELU;
    return mo_node_is(n, "Conv") || mo_node_is(n, "Gemm") || mo_node_is(n, "MatMul");
}

static bool is_fused(const struct mo_node *n)
{
    struct mo_fused f = mo_fused_read(n);
    return f.act != MO_ACT_NONE;
}

static enum mopt_status draw_activation(struct mo_run *run, struct mo_graph *g, mo_node_id i)
{
    struct mo_fused f;
    struct mo_node *act = &g->nodes[i], *n = sole_producer(g, act->in[0]);
    if (!n || n->out[0] != act->in[0] || is_fused(n) || !activation_of(g, act, &f) ||
        !takes_activation(n, f.act, run->options.train))
        return MOPT_OK;
    mo_node_id id = (mo_node_id)(n - g->nodes);
    if (!mo_node_set_int(g, id, MO_FUSED_ACT, f.act) || !mo_node_set_float(g, id, MO_FUSED_LO, f.lo) ||
        !mo_node_set_float(g, id, MO_FUSED_HI, f.hi))
        return no_memory(run->ctx, 3 * sizeof(struct mo_attr));
    n->out[0] = act->out[0];
    g->values[act->out[0]].producer = id;
    act->is_dead = true;
    return MOPT_OK;
}

/* ---- residuals --------------------------------------------------------------------------------------- */

/* Which of Add's operands comes from a node that can add the other one itself; -1. */
static int addend(struct mo_graph *g, const struct mo_node *add)
{
    const struct mo_value *a = mo_in(g, add, 0), *b = mo_in(g, add, 1);
    if (!mo_node_is(add, "Add") || a->dtype != MO_F32 || !mo_shape_known(&a->shape) ||
        !mo_shape_equal(&a->shape, &b->shape) || add->in[0] == add->in[1])
        return -1;
    for (int k = 1; k >= 0; k--) {
        const struct mo_node *n = sole_producer(g, add->in[k]);
        if (n && n->out[0] == add->in[k] && n->channels_last && !is_fused(n) && !mo_fused_read(n).has_residual &&
            (mo_node_is(n, "BatchNormalization") || mo_node_is(n, "Conv")))
            return k;
    }
    return -1;
}

/* Is the value that would become an input made before, or at least not from, the node? A value with one reader,
 * the Add itself, cannot lead there. */
static enum mopt_status draw_residual(struct mo_run *run, struct mo_graph *g, mo_node_id i)
{
    int k = addend(g, &g->nodes[i]);
    if (k < 0)
        return MOPT_OK;
    mo_node_id id = g->values[g->nodes[i].in[k]].producer;
    struct mo_node *add = &g->nodes[i], *n = &g->nodes[id];
    uint32_t place = mo_node_is(n, "Conv") ? 3 : 5;
    mo_value_id *in = mo_arena_new(g->arena, place + 1, sizeof *in);
    if (!in || !mo_node_set_int(g, id, MO_FUSED_RESIDUAL, 1))
        return no_memory(run->ctx, 6 * sizeof *in);
    for (uint32_t p = 0; p < place; p++)
        in[p] = p < n->n_in ? n->in[p] : MO_NONE;
    in[place] = add->in[1 - k];
    n->in = in;
    n->n_in = place + 1;
    n->out[0] = add->out[0];
    g->values[add->out[0]].producer = id;
    add->is_dead = true;
    return MOPT_OK;
}

enum mopt_status mo_fuse_plan(struct mo_run *run, struct mo_graph *g)
{
    MO_TRY(mo_fuse_compose(run, g));
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].is_dead)
            MO_TRY(draw_residual(run, g, i));
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].is_dead)
            MO_TRY(draw_activation(run, g, i));
    return mo_graph_sort(run->ctx, g);
}
