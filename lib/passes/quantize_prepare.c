/* quantize_prepare.c - the graph brought into the form that quantization wants. Every rewrite keeps the function:
 *
 *   initializers are no longer graph inputs (a runtime may not fold what a caller may override)
 *   constants folded, Identity and Dropout dropped
 *   Conv, ConvTranspose, Gemm followed by BatchNormalization, or by Mul, Div, Add, Sub with a constant:
 *       y = a[c] (W x + b) + d[c]   becomes   W'[c] = a[c] W[c], b'[c] = a[c] b[c] + d[c]
 *   MatMul and a constant Add become Gemm where both operands are matrices
 *   alpha and beta of Gemm go into its constants, a bias of one row becomes a vector
 *   Relu behind MaxPool goes before it; zero Pad goes into the Conv behind it
 *   ReduceMean over height and width becomes GlobalAveragePool
 *
 * A rewrite needs that nobody else reads the value in between. */
#include "lib/passes/quantize.h"

#include <math.h>
#include <string.h>

#define FOLD_CAP_BYTES ((size_t)256 << 20)

struct prep { struct mopt_ctx *ctx; struct mo_graph *g; struct mo_prepared *done; bool changed; };

/* ---- helpers -------------------------------------------------------------------------- */

static bool is_private(const struct mo_graph *g, mo_value_id v)
{
    return v != MO_NONE && !g->values[v].is_output && g->values[v].n_uses == 1 && !g->values[v].data;
}

/* The node that makes input k of n and whose result n alone reads; MO_NONE. */
static mo_node_id before(const struct mo_graph *g, const struct mo_node *n, uint32_t k)
{
    if (k >= n->n_in || !is_private(g, n->in[k]))
        return MO_NONE;
    mo_node_id p = g->values[n->in[k]].producer;
    return p != MO_NONE && g->nodes[p].out[0] == n->in[k] ? p : MO_NONE;
}

/* Node i goes; `producer` makes its output instead. */
static enum mopt_status merge(struct prep *p, mo_node_id producer, mo_node_id i)
{
    p->g->nodes[producer].out[0] = p->g->nodes[i].out[0];
    p->g->nodes[i].is_dead = true;
    p->changed = true;
    return mo_graph_index(p->ctx, p->g);
}

static bool has_channel_weight(const struct mo_graph *g, const struct mo_node *n)
{
    if (!mo_node_is(n, "Conv") && !mo_node_is(n, "ConvTranspose") && !mo_node_is(n, "Gemm"))
        return false;
    const struct mo_value *w = mo_in(g, n, 1), *b = mo_in(g, n, 2);
    return w && w->data && w->dtype == MO_F32 && w->shape.rank >= 2 && (!b || (b->data && b->dtype == MO_F32)) &&
           g->values[n->in[1]].n_uses == 1;
}

/* How many output channels, and where they lie in the weight seen as outer x channels x inner. A grouped
 * ConvTranspose has them in two axes, and is left alone. */
static int64_t out_channels(const struct mo_graph *g, const struct mo_node *n, int64_t *inner)
{
    const struct mo_value *w = mo_in(g, n, 1);
    int axis = mo_quant_weight_axis(g, n, true);
    *inner = 1;
    if (axis == MO_UNKNOWN)
        return MO_UNKNOWN;
    for (int k = axis + 1; k < w->shape.rank; k++)
        *inner *= w->shape.dim[k];
    return w->shape.dim[axis];
}

/* The bias of a Conv or Gemm as n floats (zeros when it has none); NULL: out of memory or another form. */
static float *bias_vector(const struct mo_graph *g, const struct mo_node *n, int64_t channels)
{
    const struct mo_value *b = mo_in(g, n, 2);
    if (!b)
        return mo_mem_new((size_t)channels, sizeof(float));
    if (b->shape.rank != 1 || b->shape.dim[0] != channels)
        return NULL;
    return mo_value_floats(b);
}

static enum mopt_status set_bias(struct prep *p, mo_node_id i, int64_t channels, float *heap)
{
    struct mo_node *n = &p->g->nodes[i];
    struct mo_shape shape = { .rank = 1, .dim = { channels } };
    const char *name = mo_arena_printf(p->g->arena, "%s_bias", p->g->values[n->out[0]].name);
    mo_value_id b = name ? mo_graph_add_const(p->g, name, MO_F32, &shape, heap) : MO_NONE;
    mo_mem_free(heap);
    n = &p->g->nodes[i];
    mo_value_id *in = mo_arena_new(p->g->arena, MO_MAX(n->n_in, 3u), sizeof *in);
    if (b == MO_NONE || !in)
        return mo_no_memory(p->ctx, (uint64_t)channels * 4, "a bias");
    memcpy(in, n->in, n->n_in * sizeof *in);
    in[2] = b;
    n->in = in;
    n->n_in = MO_MAX(n->n_in, 3u);
    return MOPT_OK;
}

/* y = a[c] y + d[c] into the weight and the bias of node i. */
static enum mopt_status scale_channels(struct prep *p, mo_node_id i, const float *a, const float *d)
{
    struct mo_node *n = &p->g->nodes[i];
    int64_t inner, channels = out_channels(p->g, n, &inner);
    mo_value_id w = n->in[1];
    struct mo_shape shape = p->g->values[w].shape;
    float *weight = mo_value_floats(&p->g->values[w]), *bias = bias_vector(p->g, n, channels);
    if (!weight || !bias) {
        mo_mem_free(weight);
        mo_mem_free(bias);
        return mo_no_memory(p->ctx, (uint64_t)mo_shape_elems(&shape) * 4, "folding");
    }
    for (int64_t k = 0, n_elems = mo_shape_elems(&shape); k < n_elems; k++)
        weight[k] *= a[k / inner % channels];
    for (int64_t c = 0; c < channels; c++)
        bias[c] = a[c] * bias[c] + d[c];
    mo_value_set_data(p->g, w, MO_F32, &shape, weight);
    return set_bias(p, i, channels, bias);
}

/* Can node i take a factor and a term a channel? */
static bool takes_channels(const struct mo_graph *g, mo_node_id i)
{
    int64_t inner, channels;
    if (i == MO_NONE || !has_channel_weight(g, &g->nodes[i]))
        return false;
    const struct mo_node *n = &g->nodes[i];
    const struct mo_value *b = mo_in(g, n, 2);
    channels = out_channels(g, n, &inner);
    return channels > 0 && (!b || (b->shape.rank == 1 && b->shape.dim[0] == channels)) &&
           mo_node_float(n, "alpha", 1) == 1 && mo_node_float(n, "beta", 1) == 1;
}

/* ---- folding into weights ------------------------------------------------------------------ */

static enum mopt_status fold_batchnorm(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    const struct mo_node *n = &g->nodes[i];
    mo_node_id conv = before(g, n, 0);
    int64_t inner, channels;
    if (!takes_channels(g, conv) || mo_node_int(n, "training_mode", 0))
        return MOPT_OK;
    channels = out_channels(g, &g->nodes[conv], &inner);
    for (uint32_t k = 1; k < 5; k++)
        if (!mo_in(g, n, k) || !mo_in(g, n, k)->data || mo_value_elems(mo_in(g, n, k)) != channels)
            return MOPT_OK;
    for (uint32_t k = 1; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && g->values[n->out[k]].n_uses)
            return MOPT_OK;
    float *x[4], eps = mo_node_float(n, "epsilon", 1e-5f);
    bool ok = true;
    for (int k = 0; k < 4; k++)
        ok = (x[k] = mo_value_floats(mo_in(g, n, (uint32_t)k + 1))) && ok;
    enum mopt_status status = ok ? MOPT_OK : mo_no_memory(p->ctx, (uint64_t)channels * 16, "folding");
    for (int64_t c = 0; c < channels && ok; c++) {
        x[0][c] = (float)(x[0][c] / sqrt((double)x[3][c] + eps));       /* factor */
        x[1][c] = (float)(x[1][c] - (double)x[2][c] * x[0][c]);         /* term */
    }
    if (!status)
        status = scale_channels(p, conv, x[0], x[1]);
    for (int k = 0; k < 4; k++)
        mo_mem_free(x[k]);
    if (status)
        return status;
    p->done->n_batchnorm++;
    return merge(p, conv, i);
}

/* A constant that is one number, or one number a channel along `axis` (from the end: -1 for Gemm, -1 - spatial rank
 * for Conv), as `channels` floats; NULL: neither. */
static float *channel_constant(const struct mo_value *c, int axis_from_end, int64_t channels)
{
    int64_t n = mo_value_elems(c);
    if (c->dtype != MO_F32 || (n != 1 && n != channels))
        return NULL;
    int axis = c->shape.rank + axis_from_end;
    if (n != 1 && (axis < 0 || c->shape.dim[axis] != channels))
        return NULL;
    float *x = mo_value_floats(c), *out = mo_mem_new((size_t)channels, sizeof *out);
    for (int64_t k = 0; x && out && k < channels; k++)
        out[k] = x[n == 1 ? 0 : k];
    mo_mem_free(x);
    return out;
}

/* Broadcasting a constant of higher rank would change the shape of the result. */
static bool keeps_shape(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    const struct mo_value *x = a->data ? b : a, *c = a->data ? a : b;
    return x->shape.rank != MO_UNKNOWN && c->shape.rank <= x->shape.rank;
}

static enum mopt_status fold_arithmetic(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    const struct mo_node *n = &g->nodes[i];
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    if (n->n_in != 2 || !a || !b || !a->data == !b->data || !keeps_shape(g, n))
        return MOPT_OK;
    bool is_mul = mo_node_is(n, "Mul"), is_div = mo_node_is(n, "Div"), is_sub = mo_node_is(n, "Sub");
    mo_node_id conv = before(g, n, a->data ? 1 : 0);
    if ((is_div && a->data) || !takes_channels(g, conv))
        return MOPT_OK;
    int64_t inner, channels = out_channels(g, &g->nodes[conv], &inner);
    int rank = g->values[g->nodes[conv].in[1]].shape.rank;
    float *c = channel_constant(a->data ? a : b, mo_node_is(&g->nodes[conv], "Gemm") ? -1 : 1 - rank, channels);
    float *factor = c ? mo_mem_new((size_t)channels, sizeof *factor) : NULL;
    bool is_usable = factor;
    for (int64_t k = 0; is_usable && k < channels; k++) {
        float x = c[k];
        factor[k] = is_mul ? x : is_div ? 1 / x : is_sub && a->data ? -1.0f : 1.0f;
        c[k] = is_mul || is_div ? 0 : is_sub && !a->data ? -x : x;
        is_usable = isfinite(factor[k]);
    }
    enum mopt_status status = is_usable ? scale_channels(p, conv, factor, c) : MOPT_OK;
    mo_mem_free(c);
    mo_mem_free(factor);
    if (status || !is_usable)
        return status;
    p->done->n_bias++;
    return merge(p, conv, i);
}

/* ---- Gemm --------------------------------------------------------------------------------------- */

/* MatMul (matrix by constant matrix), then Add of a constant row: Gemm. */
static enum mopt_status make_gemm(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    const struct mo_node *add = &g->nodes[i];
    const struct mo_value *a = mo_in(g, add, 0), *b = mo_in(g, add, 1);
    if (add->n_in != 2 || !a || !b || !a->data == !b->data)
        return MOPT_OK;
    const struct mo_value *c = a->data ? a : b;
    mo_node_id i_mul = before(g, add, a->data ? 1 : 0);
    if (i_mul == MO_NONE || !mo_node_is(&g->nodes[i_mul], "MatMul") || g->opset < 7)
        return MOPT_OK;
    const struct mo_node *mul = &g->nodes[i_mul];
    const struct mo_value *x = mo_in(g, mul, 0), *w = mo_in(g, mul, 1);
    if (!w->data || x->data || w->shape.rank != 2 || x->shape.rank != 2 || c->dtype != MO_F32 || w->dtype != MO_F32 ||
        c->shape.rank > 2 || c->shape.rank < 1 || c->shape.dim[c->shape.rank - 1] != w->shape.dim[1] ||
        (c->shape.rank == 2 && c->shape.dim[0] != 1))
        return MOPT_OK;
    int64_t columns = w->shape.dim[1];
    float *bias = mo_value_floats(c);
    mo_value_id in[2] = { mul->in[0], mul->in[1] }, y = add->out[0];
    const char *name = mul->name;
    g->nodes[i].is_dead = g->nodes[i_mul].is_dead = true;
    mo_node_id gemm = bias ? mo_graph_add_node(g, "Gemm", NULL, name, in, 2, &y, 1) : MO_NONE;
    if (gemm == MO_NONE) {
        mo_mem_free(bias);
        return mo_no_memory(p->ctx, (uint64_t)columns * 4, "a node");
    }
    MO_TRY(set_bias(p, gemm, columns, bias));
    p->done->n_gemm++;
    p->changed = true;
    return mo_graph_sort(p->ctx, g);
}

static enum mopt_status scale_constant(struct prep *p, mo_node_id i, uint32_t k, float factor)
{
    mo_value_id v = p->g->nodes[i].in[k];
    struct mo_shape shape = p->g->values[v].shape;
    float *x = mo_value_floats(&p->g->values[v]);
    if (!x)
        return mo_no_memory(p->ctx, (uint64_t)mo_shape_elems(&shape) * 4, "folding");
    for (int64_t e = 0, n = mo_shape_elems(&shape); e < n; e++)
        x[e] *= factor;
    if (p->g->values[v].n_uses == 1) {
        mo_value_set_data(p->g, v, MO_F32, &shape, x);
        return MOPT_OK;
    }
    mo_value_id own = mo_graph_add_const(p->g, p->g->values[v].name, MO_F32, &shape, x);
    mo_mem_free(x);
    if (own == MO_NONE)
        return mo_no_memory(p->ctx, (uint64_t)mo_shape_elems(&shape) * 4, "folding");
    p->g->nodes[i].in[k] = own;
    return mo_graph_index(p->ctx, p->g);
}

/* alpha, beta into the constants; a bias of one number or one row becomes a vector. */
static enum mopt_status tidy_gemm(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    const struct mo_value *w = mo_in(g, &g->nodes[i], 1), *b = mo_in(g, &g->nodes[i], 2);
    float alpha = mo_node_float(&g->nodes[i], "alpha", 1), beta = mo_node_float(&g->nodes[i], "beta", 1);
    if (!w || !w->data || w->dtype != MO_F32 || w->shape.rank != 2 || (b && (!b->data || b->dtype != MO_F32)))
        return MOPT_OK;
    int64_t columns = w->shape.dim[mo_node_int(&g->nodes[i], "transB", 0) ? 0 : 1];
    if (alpha != 1) {
        MO_TRY(scale_constant(p, i, 1, alpha));
        mo_node_drop_attr(g, i, "alpha");
        p->changed = true;
    }
    if (b && beta != 1) {
        MO_TRY(scale_constant(p, i, 2, beta));
        mo_node_drop_attr(g, i, "beta");
        p->changed = true;
    }
    b = mo_in(g, &g->nodes[i], 2);
    if (!b || (b->shape.rank == 1 && b->shape.dim[0] == columns))
        return MOPT_OK;
    float *row = b->shape.rank <= 2 && (b->shape.rank < 2 || b->shape.dim[0] == 1)
                     ? channel_constant(b, -1, columns) : NULL;
    if (!row)
        return MOPT_OK;
    p->changed = true;
    MO_TRY(set_bias(p, i, columns, row));
    return mo_graph_index(p->ctx, g);
}

/* ---- moving nodes --------------------------------------------------------------------------------- */

/* Identity, and Dropout outside of training. */
static enum mopt_status bypass(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    struct mo_node *n = &g->nodes[i];
    mo_value_id x = n->in[0], y = n->out[0];
    double training = 0;
    if (x == MO_NONE || y == MO_NONE || g->values[x].data)
        return MOPT_OK;
    for (uint32_t k = 1; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && g->values[n->out[k]].n_uses)
            return MOPT_OK;
    if (mo_in(g, n, 2) && (!mo_value_scalar(mo_in(g, n, 2), &training) || training != 0))
        return MOPT_OK;
    mo_node_id producer = before(g, n, 0);
    if (g->values[y].is_output && producer == MO_NONE)
        return MOPT_OK;
    p->done->n_identity++;
    if (g->values[y].is_output)
        return merge(p, producer, i);
    n->is_dead = true;
    p->changed = true;
    mo_graph_replace_uses(g, y, x);
    return mo_graph_index(p->ctx, g);
}

/* max(relu(x)) = relu(max(x)), and the Relu is free when it follows the Conv. */
static enum mopt_status swap_relu(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    mo_node_id pool = before(g, &g->nodes[i], 0);
    if (pool == MO_NONE || !mo_node_is(&g->nodes[pool], "MaxPool") ||
        (g->nodes[pool].n_out > 1 && g->nodes[pool].out[1] != MO_NONE))
        return MOPT_OK;
    mo_node_id maker = before(g, &g->nodes[pool], 0);
    if (maker == MO_NONE || !g->nodes[maker].op || g->nodes[maker].op->quant.kind != MO_QUANT_WEIGHTED)
        return MOPT_OK;
    mo_value_id x = g->nodes[pool].in[0], y = g->nodes[i].out[0];
    struct mo_shape shape = g->values[x].shape;
    const char *name = mo_arena_printf(g->arena, "%s_relu", g->values[x].name);
    mo_value_id middle = name ? mo_graph_add_value(g, name, MO_F32, &shape) : MO_NONE;
    if (middle == MO_NONE)
        return mo_no_memory(p->ctx, 64, "a value");
    g->nodes[i].in[0] = x;
    g->nodes[i].out[0] = middle;
    g->nodes[pool].in[0] = middle;
    g->nodes[pool].out[0] = y;
    p->changed = true;
    return mo_graph_sort(p->ctx, g);
}

/* The pads of a Pad node by zero as 2 * rank numbers; false: another kind of Pad. */
static bool zero_pads(const struct mo_graph *g, const struct mo_node *n, int rank, int64_t *pads)
{
    double value = 0;
    size_t count;
    const int64_t *old = mo_node_ints(n, "pads", &count);
    if (strcmp(mo_node_text(n, "mode", "constant"), "constant") || mo_node_float(n, "value", 0) != 0 || mo_in(g, n, 3) ||
        (mo_in(g, n, 2) && (!mo_value_scalar(mo_in(g, n, 2), &value) || value != 0)))
        return false;
    if (old && count == (size_t)rank * 2)
        memcpy(pads, old, count * sizeof *pads);
    else if (!mo_in(g, n, 1) || mo_value_ints(mo_in(g, n, 1), pads, 2 * MO_MAX_RANK) != 2 * rank)
        return false;
    for (int k = 0; k < 2 * rank; k++)
        if (pads[k] < 0 || (k % rank < 2 && pads[k]))
            return false;
    return true;
}

static enum mopt_status fold_pad(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    mo_node_id pad = before(g, &g->nodes[i], 0);
    int64_t pads[2 * MO_MAX_RANK], sum[2 * MO_MAX_RANK] = { 0 };
    size_t count;
    if (pad == MO_NONE || !mo_node_is(&g->nodes[pad], "Pad") || !mo_in(g, &g->nodes[i], 1))
        return MOPT_OK;
    int rank = mo_in(g, &g->nodes[i], 1)->shape.rank;
    const char *automatic = mo_node_text(&g->nodes[i], "auto_pad", "NOTSET");
    if (rank < 3 || (strcmp(automatic, "NOTSET") && strcmp(automatic, "VALID")) ||
        !zero_pads(g, &g->nodes[pad], rank, pads))
        return MOPT_OK;
    const int64_t *own = mo_node_ints(&g->nodes[i], "pads", &count);
    int n_spatial = rank - 2;
    for (int k = 0; k < n_spatial; k++) {
        sum[k] = pads[2 + k] + (count == 2 * (size_t)n_spatial ? own[k] : 0);
        sum[n_spatial + k] = pads[rank + 2 + k] + (count == 2 * (size_t)n_spatial ? own[n_spatial + k] : 0);
    }
    mo_node_drop_attr(g, i, "auto_pad");
    if (!mo_node_set_ints(g, i, "pads", sum, 2 * (size_t)n_spatial))
        return mo_no_memory(p->ctx, 64, "an attribute");
    g->nodes[i].in[0] = g->nodes[pad].in[0];
    g->nodes[pad].is_dead = true;
    p->changed = true;
    return mo_graph_index(p->ctx, g);
}

/* ReduceMean of an image over height and width. Without keepdims a Flatten follows. */
static enum mopt_status make_pool(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    const struct mo_node *n = &g->nodes[i];
    const struct mo_value *x = mo_in(g, n, 0);
    int axes[MO_MAX_RANK], n_axes;
    if (!x || x->dtype != MO_F32 || x->shape.rank != 4 ||
        mo_axes(p->ctx, g, n, 1, 4, axes, &n_axes) || n_axes != 2 || axes[0] + axes[1] != 5 || axes[0] * axes[1] != 6) {
        mopt_clear(p->ctx);
        return MOPT_OK;
    }
    bool keeps = mo_node_int(n, "keepdims", 1);
    mo_value_id in = n->in[0], y = n->out[0], pooled = y;
    const char *name = n->name;
    if (!keeps) {
        struct mo_shape shape = { .rank = 4, .dim = { x->shape.dim[0], x->shape.dim[1], 1, 1 } };
        const char *value = mo_arena_printf(g->arena, "%s_pooled", g->values[y].name);
        pooled = value ? mo_graph_add_value(g, value, MO_F32, &shape) : MO_NONE;
    }
    g->nodes[i].is_dead = true;
    if (pooled == MO_NONE || mo_graph_add_node(g, "GlobalAveragePool", NULL, name, &in, 1, &pooled, 1) == MO_NONE ||
        (!keeps && mo_graph_add_node(g, "Flatten", NULL, NULL, &pooled, 1, &y, 1) == MO_NONE))
        return mo_no_memory(p->ctx, 64, "a node");
    p->done->n_pool++;
    p->changed = true;
    return mo_graph_sort(p->ctx, g);
}

/* ---- all of them ---------------------------------------------------------------------------------- */

static enum mopt_status rewrite(struct prep *p, mo_node_id i)
{
    const struct mo_node *n = &p->g->nodes[i];
    if (mo_node_is(n, "Identity") || mo_node_is(n, "Dropout"))
        return bypass(p, i);
    if (mo_node_is(n, "BatchNormalization"))
        return fold_batchnorm(p, i);
    if (mo_node_is(n, "Add") || mo_node_is(n, "Sub") || mo_node_is(n, "Mul") || mo_node_is(n, "Div")) {
        MO_TRY(fold_arithmetic(p, i));
        n = &p->g->nodes[i];
        return mo_node_is(n, "Add") && !n->is_dead ? make_gemm(p, i) : MOPT_OK;
    }
    if (mo_node_is(n, "Gemm"))
        return tidy_gemm(p, i);
    if (mo_node_is(n, "Relu"))
        return swap_relu(p, i);
    if (mo_node_is(n, "Conv"))
        return fold_pad(p, i);
    if (mo_node_is(n, "ReduceMean"))
        return make_pool(p, i);
    return MOPT_OK;
}

/* Initializers that are inputs too are what old files have; nobody can mean to override a weight that is quantized.
 * From IR 4 on they need not be inputs. */
void mo_quant_free_initializers(struct mopt_model *model)
{
    struct mo_graph *g = &model->graph;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        struct mo_value *v = &g->values[g->inputs[i]];
        if (v->is_initializer)
            v->is_input = false;
        else
            g->inputs[kept++] = g->inputs[i];
    }
    g->n_inputs = kept;
    model->ir_version = MO_MAX(model->ir_version, 4);
}

enum mopt_status mo_quant_prepare(struct mopt_ctx *ctx, struct mopt_model *model, struct mo_prepared *prepared)
{
    struct prep p = { .ctx = ctx, .g = &model->graph, .done = prepared, .changed = true };
    *prepared = (struct mo_prepared){ 0 };
    mo_quant_free_initializers(model);
    MO_TRY(mo_graph_index(ctx, p.g));
    MO_TRY(mo_infer(ctx, p.g, NULL, 0));
    MO_TRY(mo_fold_constants(ctx, p.g, FOLD_CAP_BYTES));
    mo_graph_sweep(p.g);
    while (p.changed) {
        p.changed = false;
        MO_TRY(mo_infer(ctx, p.g, NULL, 0));
        for (mo_node_id i = 0; i < p.g->n_nodes; i++)
            if (!p.g->nodes[i].is_dead)
                MO_TRY(rewrite(&p, i));
        mo_graph_sweep(p.g);
    }
    mo_graph_drop_unused(p.g);
    return mo_infer(ctx, p.g, NULL, 0);
}
