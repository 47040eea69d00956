/* rewrite_affine.c - what is linear a channel goes into the weights before it.
 *
 *     y = a[c] (W x + b) + d[c]   becomes   W'[c] = a[c] W[c],  b'[c] = a[c] b[c] + d[c]
 *
 * for Conv, ConvTranspose and Gemm followed by BatchNormalization (a = scale / sqrt(var + eps), d = shift - a mean), or by
 * Mul, Div, Add, Sub with a constant; a BatchNormalization before those takes them too, W and b being its scale and shift.
 * Not where someone else reads the value in between, nor where a weight is shared: it would be there twice. */
#include <math.h>
#include <string.h>

#include "lib/graph/op.h"
#include "lib/passes/rewrite.h"

/* Uses its statistics as they are, a number a channel. */
static bool is_fixed_batchnorm(const struct mo_graph *g, const struct mo_node *n)
{
    return mo_node_is(n, "BatchNormalization") && !mo_node_int(n, "training_mode", 0) && mo_only_first_output(g, n) &&
           g->opset >= 7 && mo_node_int(n, "spatial", 1);
}

static bool has_constant_weight(const struct mo_graph *g, const struct mo_node *n)
{
    bool is_norm = is_fixed_batchnorm(g, n);
    if (!is_norm && !mo_node_is(n, "Conv") && !mo_node_is(n, "ConvTranspose") && !mo_node_is(n, "Gemm"))
        return false;
    const struct mo_value *w = mo_in(g, n, 1), *b = mo_in(g, n, 2);
    return w && w->data && w->dtype == MO_F32 && w->shape.rank >= (is_norm ? 1 : 2) &&
           (!b || (b->data && b->dtype == MO_F32)) && (is_norm || w->n_uses == 1) && !w->is_output;
}

/* How many axes its output has; MO_UNKNOWN. */
static int out_rank(const struct mo_graph *g, const struct mo_node *n)
{
    return mo_node_is(n, "BatchNormalization") ? mo_in(g, n, 0)->shape.rank : mo_in(g, n, 1)->shape.rank;
}

/* How many output channels, and where they lie in the weight seen as outer x channels x inner. A grouped
 * ConvTranspose has them in two axes, and is left alone. */
static int64_t out_channels(const struct mo_graph *g, const struct mo_node *n, int64_t *inner)
{
    const struct mo_value *w = mo_in(g, n, 1);
    int axis = mo_node_is(n, "ConvTranspose") ? 1 : mo_node_is(n, "Gemm") && !mo_node_int(n, "transB", 0) ? 1 : 0;
    *inner = 1;
    if (mo_node_is(n, "ConvTranspose") && mo_node_int(n, "group", 1) != 1)
        return MO_UNKNOWN;
    for (int k = axis + 1; k < w->shape.rank; k++)
        *inner *= w->shape.dim[k];
    return w->shape.dim[axis];
}

/* Can node i take a factor and a term a channel? */
static bool takes_channels(const struct mo_graph *g, mo_node_id i)
{
    int64_t inner;
    if (i == MO_NONE || !has_constant_weight(g, &g->nodes[i]))
        return false;
    const struct mo_node *n = &g->nodes[i];
    const struct mo_value *b = mo_in(g, n, 2);
    int64_t channels = out_channels(g, n, &inner);
    return channels > 0 && (!b || (b->shape.rank == 1 && b->shape.dim[0] == channels)) &&
           mo_node_float(n, "alpha", 1) == 1 && mo_node_float(n, "beta", 1) == 1;
}

static enum mopt_status set_bias(struct mo_rewrite *r, mo_node_id i, int64_t channels, const float *bias)
{
    struct mo_graph *g = r->g;
    struct mo_shape shape = { .rank = 1, .dim = { channels } };
    const struct mo_value *old = mo_in(g, &g->nodes[i], 2);
    const char *name = old ? old->name : mo_arena_printf(g->arena, "%s_bias", g->values[g->nodes[i].out[0]].name);
    mo_value_id b = name ? mo_graph_add_const(g, name, MO_F32, &shape, bias) : MO_NONE;
    if (b == MO_NONE)
        return mo_no_memory(r->ctx, (uint64_t)channels * 4, "a bias");
    return mo_rewrite_set_input(r, i, 2, b);
}

/* Takes the memory over; a weight that others read stays as it is for them. */
static enum mopt_status set_weight(struct mo_rewrite *r, mo_node_id i, const struct mo_shape *shape, float *weight)
{
    struct mo_graph *g = r->g;
    mo_value_id old = g->nodes[i].in[1];
    if (g->values[old].n_uses == 1) {
        mo_value_set_data(g, old, MO_F32, shape, weight);
        return MOPT_OK;
    }
    mo_value_id own = mo_graph_add_const(g, g->values[old].name, MO_F32, shape, weight);
    mo_mem_free(weight);
    if (own == MO_NONE)
        return mo_no_memory(r->ctx, (uint64_t)mo_shape_elems(shape) * 4, "folding");
    return mo_rewrite_set_input(r, i, 1, own);
}

/* y = a[c] y + d[c] into the weight and the bias of node i. */
static enum mopt_status scale_channels(struct mo_rewrite *r, mo_node_id i, const float *a, const float *d)
{
    struct mo_graph *g = r->g;
    const struct mo_node *n = &g->nodes[i];
    int64_t inner, channels = out_channels(g, n, &inner);
    mo_value_id w = n->in[1];
    struct mo_shape shape = g->values[w].shape;
    float *weight = mo_value_floats(&g->values[w]);
    float *bias = mo_in(g, n, 2) ? mo_value_floats(mo_in(g, n, 2)) : mo_mem_new((size_t)channels, sizeof *bias);
    enum mopt_status status = MOPT_OK;
    if (!weight || !bias) {
        mo_mem_free(weight);
        status = mo_no_memory(r->ctx, (uint64_t)mo_shape_elems(&shape) * 4, "folding");
    } else {
        for (int64_t k = 0, n_elems = mo_shape_elems(&shape); k < n_elems; k++)
            weight[k] *= a[k / inner % channels];
        for (int64_t c = 0; c < channels; c++)
            bias[c] = a[c] * bias[c] + d[c];
        status = set_weight(r, i, &shape, weight);
        if (!status)
            status = set_bias(r, i, channels, bias);
    }
    mo_mem_free(bias);
    return status;
}

static bool has_statistics(const struct mo_graph *g, const struct mo_node *n, int64_t channels)
{
    for (uint32_t k = 1; k < 5; k++) {
        const struct mo_value *v = mo_in(g, n, k);
        if (!v || !v->data || !mo_dtype_is_float(v->dtype) || mo_value_elems(v) != channels)
            return false;
    }
    return true;
}

enum mopt_status mo_rewrite_batchnorm(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *n = &g->nodes[i];
    if (!is_fixed_batchnorm(g, n))
        return MOPT_OK;
    mo_node_id maker = mo_private_maker(g, n, 0);
    int64_t inner, channels = takes_channels(g, maker) ? out_channels(g, &g->nodes[maker], &inner) : 0;
    if (!channels || !has_statistics(g, n, channels))
        return MOPT_OK;
    float *x[4], eps = mo_node_float(n, "epsilon", 1e-5f);
    bool ok = true;
    for (uint32_t k = 0; k < 4; k++)
        ok = (x[k] = mo_value_floats(mo_in(g, n, k + 1))) && ok;
    enum mopt_status status = ok ? MOPT_OK : mo_no_memory(r->ctx, (uint64_t)channels * 16, "folding");
    for (int64_t c = 0; c < channels && ok; c++) {
        double a = x[0][c] / sqrt((double)x[3][c] + eps);
        x[0][c] = (float)a;
        x[1][c] = (float)(x[1][c] - x[2][c] * a);
        ok = isfinite(x[0][c]) && isfinite(x[1][c]);
    }
    if (!status && ok)
        status = scale_channels(r, maker, x[0], x[1]);
    for (int k = 0; k < 4; k++)
        mo_mem_free(x[k]);
    if (!status && ok)
        mo_rewrite_merge(r, maker, i);
    return status;
}

/* A constant that is one number, or one number a channel along `axis_from_end` (-1 for Gemm, -1 - spatial rank for
 * Conv), as `channels` floats; NULL: neither. */
static float *channel_constant(const struct mo_value *c, int axis_from_end, int64_t channels)
{
    int64_t n = mo_value_elems(c);
    int axis = c->shape.rank + axis_from_end;
    if (c->dtype != MO_F32 || (n != 1 && n != channels) || (n != 1 && (axis < 0 || c->shape.dim[axis] != channels)))
        return NULL;
    float *x = mo_value_floats(c), *out = mo_mem_new((size_t)channels, sizeof *out);
    for (int64_t k = 0; x && out && k < channels; k++)
        out[k] = x[n == 1 ? 0 : k];
    mo_mem_free(x);
    return out;
}

/* Whether an operand is a constant and the other, with at least its rank, is none. */
static bool has_one_constant(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    if (n->n_in != 2 || !a || !b || !a->data == !b->data)
        return false;
    const struct mo_value *x = a->data ? b : a, *c = a->data ? a : b;
    return x->shape.rank != MO_UNKNOWN && c->shape.rank <= x->shape.rank;
}

enum mopt_status mo_rewrite_arithmetic(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *n = &g->nodes[i];
    bool is_mul = mo_node_is(n, "Mul"), is_div = mo_node_is(n, "Div"), is_sub = mo_node_is(n, "Sub");
    if ((!is_mul && !is_div && !is_sub && !mo_node_is(n, "Add")) || g->opset < 7 || !has_one_constant(g, n))
        return MOPT_OK;
    bool is_first = mo_in(g, n, 0)->data;
    mo_node_id maker = mo_private_maker(g, n, is_first ? 1 : 0);
    if ((is_div && is_first) || !takes_channels(g, maker))
        return MOPT_OK;
    int64_t inner, channels = out_channels(g, &g->nodes[maker], &inner);
    int rank = out_rank(g, &g->nodes[maker]);
    bool is_gemm = mo_node_is(&g->nodes[maker], "Gemm");
    float *c = rank < 2 ? NULL : channel_constant(mo_in(g, n, is_first ? 0 : 1), is_gemm ? -1 : 1 - rank, channels);
    float *factor = c ? mo_mem_new((size_t)channels, sizeof *factor) : NULL;
    bool is_usable = factor;
    for (int64_t k = 0; is_usable && k < channels; k++) {
        float x = c[k];
        factor[k] = is_mul ? x : is_div ? 1 / x : is_sub && is_first ? -1.0f : 1.0f;
        c[k] = is_mul || is_div ? 0 : is_sub && !is_first ? -x : x;
        is_usable = isfinite(factor[k]) && isfinite(c[k]);
    }
    enum mopt_status status = is_usable ? scale_channels(r, maker, factor, c) : MOPT_OK;
    mo_mem_free(c);
    mo_mem_free(factor);
    if (!status && is_usable)
        mo_rewrite_merge(r, maker, i);
    return status;
}
