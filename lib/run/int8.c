/* int8.c - a quantized file computed in integers.
 *
 * A file in QDQ form says with DequantizeLinear (DQ) and QuantizeLinear (Q) around operators on floats what a runtime
 * may compute in 8 bits. Here it does, for inference:
 *
 *   DQ, DQ of a constant, [DQ of an int32 constant] -> Conv, Gemm, MatMul -> [Relu, Clip] -> Q    one product
 *   the same without a Q                                      one product with a result in float
 *   MatMul -> Add of one number a column                      the same, with that bias
 *   DQ, DQ -> Add, Mul -> [Relu, Clip] -> Q                   one sum or product of bytes
 *   DQ -> AveragePool, GlobalAveragePool -> Q                 sums of bytes
 *   DQ -> MaxPool, Reshape, Transpose ...                     the operator on bytes, and the DQ behind it
 *   DQ ... -> Concat -> Q                                     Concat of bytes, those with other scales by a table first
 *   Conv of few channels in float -> MaxPool -> Q             one kernel (int8_first.c)
 *   DQ -> functions of one element -> Q                       a table of 256 bytes (int8_function.c); nothing where both are
 *                                                             the same
 *
 * A Relu or Clip in front of a Q is a limit of the bytes: rounding is monotone, so Q(clip(x)) is Q(x) held to Q of the
 * limits. QLinearConv and QLinearMatMul with constant weights become the same products. All else stays as it is. */
#include "lib/run/int8_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum mopt_status mo_int8_full(struct mo_int8 *l)
{
    return mo_no_memory(l->ctx, sizeof(struct mo_node), "lowering to 8 bits");
}

bool mo_int8_is_byte(enum mo_dtype type)
{
    return type == MO_U8 || type == MO_I8;
}

static int32_t lowest(enum mo_dtype type)
{
    return type == MO_I8 ? -128 : 0;
}

/* ---- scales and zero points --------------------------------------------------------------- */

static bool read_params(const struct mo_graph *g, mo_value_id scale, mo_value_id zero, enum mo_dtype type, struct mo_bytes *b)
{
    double s, z = 0;
    if (scale == MO_NONE || g->values[scale].dtype != MO_F32 || !mo_value_scalar(&g->values[scale], &s) || !(s > 0) ||
        !mo_int8_is_byte(type) || (zero != MO_NONE && !mo_value_scalar(&g->values[zero], &z)))
        return false;
    *b = (struct mo_bytes){ .value = MO_NONE, .scale_id = scale, .zero_id = zero, .type = type, .scale = (float)s,
                         .zero = (int32_t)z };
    return true;
}

static mo_value_id input(const struct mo_node *n, uint32_t i)
{
    return i < n->n_in ? n->in[i] : MO_NONE;
}

struct mo_node *mo_int8_producer(const struct mo_graph *g, mo_value_id v)
{
    if (v == MO_NONE || g->values[v].producer == MO_NONE || g->nodes[g->values[v].producer].is_dead)
        return NULL;
    return &g->nodes[g->values[v].producer];
}

bool mo_int8_is_dequantized(const struct mo_graph *g, mo_value_id v, struct mo_bytes *b)
{
    const struct mo_node *n = mo_int8_producer(g, v);
    if (!n || !mo_node_is(n, "DequantizeLinear") || g->values[v].dtype != MO_F32 ||
        !read_params(g, input(n, 1), input(n, 2), g->values[n->in[0]].dtype, b))
        return false;
    b->value = n->in[0];
    return true;
}

bool mo_int8_is_quantizer(const struct mo_graph *g, const struct mo_node *n, struct mo_bytes *b)
{
    if (!mo_node_is(n, "QuantizeLinear") || n->is_dead || g->values[n->in[0]].dtype != MO_F32 ||
        !read_params(g, input(n, 1), input(n, 2), g->values[n->out[0]].dtype, b))
        return false;
    b->value = n->out[0];
    return true;
}

bool mo_int8_same_params(const struct mo_bytes *a, const struct mo_bytes *b)
{
    return a->type == b->type && a->scale == b->scale && a->zero == b->zero;
}

/* ---- removing ------------------------------------------------------------------------------------ */

void mo_int8_kill(struct mo_graph *g, mo_node_id id)
{
    struct mo_node *n = &g->nodes[id];
    n->is_dead = true;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE)
            g->values[n->in[k]].n_uses--;
}

void mo_int8_kill_unused(struct mo_graph *g, mo_node_id id)
{
    mo_int8_kill(g, id);
    for (uint32_t k = 0; k < g->nodes[id].n_in; k++) {
        mo_value_id v = g->nodes[id].in[k];
        const struct mo_node *n = mo_int8_producer(g, v);
        bool is_used = !n;
        for (uint32_t o = 0; !is_used && o < n->n_out; o++)
            is_used = n->out[o] != MO_NONE && (g->values[n->out[o]].n_uses || g->values[n->out[o]].is_output);
        if (!is_used)
            mo_int8_kill_unused(g, g->values[v].producer);
    }
}

/* The one node that reads v and nobody else does; MO_NONE. */
mo_node_id mo_int8_sole_reader(const struct mo_graph *g, mo_value_id v)
{
    if (g->values[v].n_uses != 1 || g->values[v].is_output)
        return MO_NONE;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; !g->nodes[i].is_dead && k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v)
                return k == 0 ? i : MO_NONE;
    return MO_NONE;
}

/* ---- the end of an operator: limits, then a Q ------------------------------------------------------ */

static int32_t quantized(const struct mo_bytes *y, float x)
{
    double q = nearbyint((double)x / y->scale) + y->zero;
    return (int32_t)MO_MIN(MO_MAX(q, lowest(y->type)), lowest(y->type) + 255);
}

static bool limits_of(const struct mo_graph *g, const struct mo_node *n, float *low, float *high)
{
    *low = 0;
    *high = INFINITY;
    if (mo_node_is(n, "Relu"))
        return true;
    return mo_node_is(n, "Clip") && mo_clip_limits(g, n, low, high);
}

bool mo_int8_is_limit(const struct mo_graph *g, const struct mo_node *n)
{
    float low, high;
    return limits_of(g, n, &low, &high);
}

void mo_int8_take_limit(const struct mo_graph *g, const struct mo_node *n, struct mo_int8_end *e)
{
    float low, high;
    if (!limits_of(g, n, &low, &high))
        return;
    int32_t from = quantized(&e->y, low), to = quantized(&e->y, high);
    e->low = MO_MIN(MO_MAX(e->low, from), to);
    e->high = MO_MIN(MO_MAX(e->high, from), to);
}

bool mo_int8_find_end(const struct mo_graph *g, mo_value_id v, struct mo_int8_end *e)
{
    e->n_nodes = 0;
    for (;;) {
        mo_node_id reader = mo_int8_sole_reader(g, v);
        if (reader == MO_NONE || e->n_nodes == MO_INT8_CHAIN)
            return false;
        e->nodes[e->n_nodes++] = reader;
        const struct mo_node *n = &g->nodes[reader];
        if (mo_int8_is_quantizer(g, n, &e->y))
            break;
        if (!mo_int8_is_limit(g, n))
            return false;
        v = n->out[0];
    }
    e->low = lowest(e->y.type);
    e->high = e->low + 255;
    for (int i = 0; i < e->n_nodes - 1; i++)
        mo_int8_take_limit(g, &g->nodes[e->nodes[i]], e);
    return true;
}

static bool is_unlimited(const struct mo_int8_end *e)
{
    return e->low == lowest(e->y.type) && e->high == e->low + 255;
}

void mo_int8_kill_end(struct mo_graph *g, const struct mo_int8_end *e)
{
    for (int i = 0; i < e->n_nodes; i++)
        mo_int8_kill(g, e->nodes[i]);
}

/* ---- making ------------------------------------------------------------------------------------------- */

static mo_node_id add(struct mo_int8 *l, const char *type, const struct mo_node *like, const mo_value_id *in, uint32_t n_in,
                      mo_value_id out)
{
    const struct mo_node copy = *like;
    mo_node_id id = mo_graph_add_node(l->g, type, MO_INT8_DOMAIN, copy.name, in, n_in, &out, 1);
    if (id == MO_NONE)
        return id;
    l->g->nodes[id].attrs = copy.attrs;
    l->g->nodes[id].n_attrs = copy.n_attrs;
    return id;
}

/* A table of n numbers of 4 bytes that belongs to value v. */
static mo_value_id add_table(struct mo_int8 *l, mo_value_id v, const char *what, enum mo_dtype type, int64_t n,
                             const void *data)
{
    char name[300];
    struct mo_shape shape = mo_shape_of(1, n);
    snprintf(name, sizeof name, "%.270s:%s", l->g->values[v].name, what);
    return mo_graph_add_const(l->g, name, type, &shape, data);
}

static mo_value_id add_bytes(struct mo_int8 *l, mo_value_id like, enum mo_dtype type)
{
    char name[300];
    struct mo_shape shape = l->g->values[like].shape;
    snprintf(name, sizeof name, "%.270s:bytes", l->g->values[like].name);
    return mo_graph_add_value(l->g, name, type, &shape);
}

bool mo_int8_set_result(struct mo_int8 *l, mo_node_id id, const struct mo_int8_end *e)
{
    return mo_node_set_int(l->g, id, MO_INT8_Y_TYPE, e->y.type) && mo_node_set_int(l->g, id, MO_INT8_Y_ZERO, e->y.zero) &&
           mo_node_set_int(l->g, id, MO_INT8_LOW, e->low) && mo_node_set_int(l->g, id, MO_INT8_HIGH, e->high);
}

/* ---- products ------------------------------------------------------------------------------------------------ */

/* Constant weights in 8 bits, and what they are a part of. */
struct product {
    struct mo_bytes x;
    mo_value_id w, bias;        /* bias: int32 in steps of x.scale * scale[o], or MO_NONE */
    const float *scale; int64_t n_scales;
    const void *zero; int64_t n_zeros;
    enum mo_dtype w_type;
    const float *offset;        /* float bias, or NULL */
    float *own_offset;          /* memory of it */
    int64_t channels;
    bool by_rows;               /* w is K x channels */
    mo_value_id y;              /* its result, behind the Add of a bias if there is one */
    mo_node_id bias_add;        /* that Add, or MO_NONE */
};

static const void *constant(const struct mo_graph *g, mo_value_id v, enum mo_dtype type, int64_t *n)
{
    if (v == MO_NONE || !g->values[v].data || g->values[v].dtype != type)
        return NULL;
    *n = mo_value_elems(&g->values[v]);
    return g->values[v].data;
}

/* Scales and zero points of weights, one or one a channel. */
static bool read_weight(const struct mo_graph *g, mo_value_id w, mo_value_id scale, mo_value_id zero, struct product *p)
{
    if (w == MO_NONE || !g->values[w].data || !mo_int8_is_byte(g->values[w].dtype) || g->values[w].shape.rank < 2)
        return false;
    p->w = w;
    p->w_type = g->values[w].dtype;
    p->channels = g->values[w].shape.dim[p->by_rows ? 1 : 0];
    p->scale = constant(g, scale, MO_F32, &p->n_scales);
    p->zero = zero == MO_NONE ? NULL : constant(g, zero, p->w_type, &p->n_zeros);
    return mo_value_elems(&g->values[w]) > 0 && p->scale && (p->n_scales == 1 || p->n_scales == p->channels) &&
           (zero == MO_NONE || (p->zero && (p->n_zeros == 1 || p->n_zeros == p->channels)));
}

static bool is_weight(const struct mo_graph *g, mo_value_id v, struct product *p)
{
    const struct mo_node *n = mo_int8_producer(g, v);
    if (!n || !mo_node_is(n, "DequantizeLinear") || g->values[v].dtype != MO_F32 || mo_node_int(n, "block_size", 0) ||
        !read_weight(g, n->in[0], input(n, 1), input(n, 2), p))
        return false;
    int64_t axis = mo_node_int(n, "axis", 1), rank = g->values[p->w].shape.rank;
    return (p->n_scales == 1 && p->n_zeros <= 1) || (axis < 0 ? axis + rank : axis) == (p->by_rows ? 1 : 0);
}

/* Runtimes take an int32 bias for steps of the products; a file may say so only about. */
static bool are_steps(const struct product *p, const float *scale, int64_t n)
{
    for (int64_t o = 0; o < p->channels; o++) {
        float step_of = p->x.scale * p->scale[p->n_scales == 1 ? 0 : o], given = scale[n == 1 ? 0 : o];
        if (!(fabsf(given - step_of) <= 1e-4f * step_of))
            return false;
    }
    return true;
}

static bool read_bias(struct mo_int8 *l, mo_value_id v, struct product *p)
{
    const struct mo_graph *g = l->g;
    int64_t n = 0, n_scales = 0, n_zeros = 0;
    p->bias = MO_NONE;
    p->offset = NULL;
    if (v == MO_NONE)
        return true;
    p->offset = constant(g, v, MO_F32, &n);
    if (p->offset)
        return n == p->channels;
    const struct mo_node *dq = mo_int8_producer(g, v);
    if (!dq || !mo_node_is(dq, "DequantizeLinear") || g->values[v].dtype != MO_F32)
        return false;
    const int32_t *bias = constant(g, dq->in[0], MO_I32, &n), *zero = constant(g, input(dq, 2), MO_I32, &n_zeros);
    const float *scale = constant(g, input(dq, 1), MO_F32, &n_scales);
    if (!bias || n != p->channels || !scale || (n_scales != 1 && n_scales != n) || (input(dq, 2) != MO_NONE && !zero))
        return false;
    for (int64_t i = 0; i < n_zeros; i++)
        if (zero[i] != 0)
            return false;
    if (are_steps(p, scale, n_scales)) {
        p->bias = dq->in[0];
        return true;
    }
    p->offset = p->own_offset = mo_arena_new(g->arena, (size_t)n, sizeof *p->own_offset);
    for (int64_t o = 0; p->own_offset && o < n; o++)
        p->own_offset[o] = (float)bias[o] * scale[n_scales == 1 ? 0 : o];
    return p->own_offset != NULL;
}

/* Channels first. */
static mo_value_id by_columns(struct mo_int8 *l, const struct product *p, mo_value_id y)
{
    char name[300];
    if (!p->by_rows)
        return p->w;
    int64_t k = l->g->values[p->w].shape.dim[0], n = p->channels;
    struct mo_shape shape = mo_shape_of(2, n, k);
    snprintf(name, sizeof name, "%.270s:w", l->g->values[y].name);
    mo_value_id id = mo_graph_add_const(l->g, name, p->w_type, &shape, NULL);
    const uint8_t *from = l->g->values[p->w].data;
    uint8_t *to = id == MO_NONE ? NULL : l->g->values[id].data;
    for (int64_t i = 0; to && i < k; i++)
        for (int64_t o = 0; o < n; o++)
            to[o * k + i] = from[i * n + o];
    return id;
}

/* The tables of the formula at struct mo_qconv_desc, computed in float32 as ONNX Runtime does. */
static enum mopt_status add_tables(struct mo_int8 *l, const struct product *p, const struct mo_int8_end *e, mo_value_id y,
                                   mo_value_id in[6])
{
    float *factor = mo_mem_new((size_t)p->channels, sizeof *factor),
          *offset = mo_mem_new((size_t)p->channels, sizeof *offset);
    int32_t *zero = mo_mem_new((size_t)p->channels, sizeof *zero);
    bool ok = factor && offset && zero, has_zero = false;
    for (int64_t o = 0; ok && o < p->channels; o++) {
        float each = p->x.scale * p->scale[p->n_scales == 1 ? 0 : o];
        int64_t at = p->n_zeros == 1 ? 0 : o;
        factor[o] = e ? each / e->y.scale : each;
        offset[o] = !p->offset ? 0 : e ? p->offset[o] / e->y.scale : p->offset[o];
        zero[o] = !p->zero ? 0 : p->w_type == MO_I8 ? ((const int8_t *)p->zero)[at] : ((const uint8_t *)p->zero)[at];
        has_zero |= zero[o] != 0;
    }
    in[0] = p->x.value;
    in[1] = ok ? by_columns(l, p, y) : MO_NONE;
    in[2] = ok && has_zero ? add_table(l, y, "zeros", MO_I32, p->channels, zero) : MO_NONE;
    in[3] = p->bias;
    in[4] = ok ? add_table(l, y, "factor", MO_F32, p->channels, factor) : MO_NONE;
    in[5] = ok && p->offset ? add_table(l, y, "offset", MO_F32, p->channels, offset) : MO_NONE;
    ok = ok && in[1] != MO_NONE && in[4] != MO_NONE && (in[2] != MO_NONE || !has_zero) && (in[5] != MO_NONE || !p->offset);
    mo_mem_free(factor);
    mo_mem_free(offset);
    mo_mem_free(zero);
    return ok ? MOPT_OK : mo_int8_full(l);
}

/* e NULL: the result stays float. */
static enum mopt_status replace_product(struct mo_int8 *l, mo_node_id id, const struct product *p,
                                        const struct mo_int8_end *e)
{
    mo_value_id in[6], y = e ? e->y.value : p->y;
    bool is_conv = mo_node_is(&l->g->nodes[id], "Conv") || mo_node_is(&l->g->nodes[id], "QLinearConv");
    MO_TRY(add_tables(l, p, e, y, in));
    mo_node_id made = add(l, is_conv ? "Int8Conv" : "Int8Product", &l->g->nodes[id], in, 6, y);
    if (made == MO_NONE || !mo_node_set_int(l->g, made, MO_INT8_X_ZERO, p->x.zero) || (e && !mo_int8_set_result(l, made, e)))
        return mo_int8_full(l);
    if (e)
        mo_int8_kill_end(l->g, e);
    if (p->bias_add != MO_NONE)
        mo_int8_kill(l->g, p->bias_add);
    mo_int8_kill(l->g, id);
    return MOPT_OK;
}

/* MatMul has no bias: exporters write an Add of one number a column behind it, before the Q. */
static void take_bias_add(struct mo_int8 *l, const struct mo_node *n, struct product *p)
{
    const struct mo_graph *g = l->g;
    mo_node_id id;
    if (g->values[p->y].is_output || g->values[p->y].n_uses != 1 || mo_value_users(g, p->y, &id, 1) != 1)
        return;
    const struct mo_node *add = &g->nodes[id];
    if (!mo_node_is(add, "Add") || add->is_dead || add->n_in != 2 || add->in[0] == add->in[1])
        return;
    mo_value_id bias = add->in[add->in[0] == p->y ? 1 : 0];
    const struct mo_shape *shape = &g->values[bias].shape;
    if (shape->rank < 1 || shape->rank > g->values[n->in[0]].shape.rank || shape->dim[shape->rank - 1] != p->channels ||
        !read_bias(l, bias, p))
        return;
    p->bias_add = id;
    p->y = add->out[0];
}

static bool reads_product(struct mo_int8 *l, const struct mo_node *n, struct product *p)
{
    const struct mo_graph *g = l->g;
    bool is_gemm = mo_node_is(n, "Gemm"), is_matmul = mo_node_is(n, "MatMul");
    *p = (struct product){
        .by_rows = is_matmul || (is_gemm && !mo_node_int(n, "transB", 0)), .y = n->out[0], .bias_add = MO_NONE};
    if (!(is_gemm || is_matmul || mo_node_is(n, "Conv")) || !mo_int8_is_dequantized(g, input(n, 0), &p->x) ||
        g->values[p->x.value].data || !is_weight(g, input(n, 1), p))
        return false;
    if ((is_gemm || is_matmul) && g->values[p->w].shape.rank != 2)
        return false;
    if (is_matmul && g->values[p->x.value].shape.rank < 2)
        return false;
    if (is_gemm && (mo_node_int(n, "transA", 0) || mo_node_float(n, "alpha", 1) != 1 ||
                    (input(n, 2) != MO_NONE && mo_node_float(n, "beta", 1) != 1)))
        return false;
    if (!read_bias(l, is_matmul ? MO_NONE : input(n, 2), p))
        return false;
    if (is_matmul)
        take_bias_add(l, n, p);
    return true;
}

static enum mopt_status lower_product(struct mo_int8 *l, mo_node_id id)
{
    struct product p;
    struct mo_int8_end e;
    if (!reads_product(l, &l->g->nodes[id], &p))
        return MOPT_OK;
    bool has_end = mo_int8_find_end(l->g, p.y, &e);
    return replace_product(l, id, &p, has_end ? &e : NULL);
}

/* QLinearConv, QLinearMatMul: x, scale, zero, w, scale, zero, scale of y, zero, bias. */
static enum mopt_status lower_qlinear(struct mo_int8 *l, mo_node_id id)
{
    struct mo_graph *g = l->g;
    const struct mo_node *n = &g->nodes[id];
    bool is_conv = mo_node_is(n, "QLinearConv");
    struct product p = { .by_rows = !is_conv, .bias = MO_NONE, .bias_add = MO_NONE };
    struct mo_int8_end e = { 0 };
    int64_t n_bias = 0;
    if ((!is_conv && !mo_node_is(n, "QLinearMatMul")) || n->n_in < 8 ||
        !read_params(g, n->in[1], n->in[2], g->values[n->in[0]].dtype, &p.x) ||
        !read_weight(g, n->in[3], n->in[4], n->in[5], &p) ||
        !read_params(g, n->in[6], n->in[7], g->values[n->out[0]].dtype, &e.y))
        return MOPT_OK;
    if (is_conv ? g->values[p.w].shape.rank < 3 : g->values[p.w].shape.rank != 2 || g->values[n->in[0]].shape.rank < 2)
        return MOPT_OK;
    if (input(n, 8) != MO_NONE && (!constant(g, n->in[8], MO_I32, &n_bias) || n_bias != p.channels))
        return MOPT_OK;
    p.bias = input(n, 8);
    p.x.value = n->in[0];
    e.y.value = p.y = n->out[0];
    e.low = lowest(e.y.type);
    e.high = e.low + 255;
    return g->values[p.x.value].data ? MOPT_OK : replace_product(l, id, &p, &e);
}

/* ---- sums and products of bytes ----------------------------------------------------------------------------------- */

static enum mopt_status lower_binary(struct mo_int8 *l, mo_node_id id)
{
    struct mo_graph *g = l->g;
    const struct mo_node *n = &g->nodes[id];
    bool is_mul = mo_node_is(n, "Mul");
    struct mo_bytes a, b;
    struct mo_int8_end e;
    if ((!is_mul && !mo_node_is(n, "Add")) || !mo_int8_is_dequantized(g, n->in[0], &a) ||
        !mo_int8_is_dequantized(g, n->in[1], &b) || (g->values[a.value].data && g->values[b.value].data) ||
        !mo_int8_find_end(g, n->out[0], &e))
        return MOPT_OK;
    mo_value_id in[2] = { a.value, b.value };
    mo_node_id made = mo_graph_add_node(g, "Int8Binary", MO_INT8_DOMAIN, n->name, in, 2, &e.y.value, 1);
    if (made == MO_NONE || !mo_int8_set_result(l, made, &e) ||
        !mo_node_set_int(g, made, MO_INT8_F, is_mul ? MO_MUL : MO_ADD) ||
        !mo_node_set_int(g, made, MO_INT8_X_ZERO, a.zero) || !mo_node_set_int(g, made, MO_INT8_B_ZERO, b.zero) ||
        !mo_node_set_float(g, made, MO_INT8_FACTOR, is_mul ? a.scale * b.scale / e.y.scale : a.scale / e.y.scale) ||
        !mo_node_set_float(g, made, MO_INT8_B_FACTOR, b.scale / e.y.scale))
        return mo_int8_full(l);
    mo_int8_kill_end(g, &e);
    mo_int8_kill(g, id);
    return MOPT_OK;
}

static enum mopt_status lower_average(struct mo_int8 *l, mo_node_id id)
{
    struct mo_graph *g = l->g;
    const struct mo_node *n = &g->nodes[id];
    bool is_global = mo_node_is(n, "GlobalAveragePool");
    struct mo_bytes x;
    struct mo_int8_end e;
    if ((!is_global && !mo_node_is(n, "AveragePool")) || !mo_int8_is_dequantized(g, n->in[0], &x) ||
        g->values[x.value].data || !mo_int8_find_end(g, n->out[0], &e) || !is_unlimited(&e) || e.y.type != x.type)
        return MOPT_OK;
    mo_node_id made = add(l, "Int8Average", n, &x.value, 1, e.y.value);
    if (made == MO_NONE || !mo_node_set_int(g, made, MO_INT8_X_ZERO, x.zero) ||
        !mo_node_set_int(g, made, MO_INT8_Y_ZERO, e.y.zero) || !mo_node_set_int(g, made, MO_INT8_GLOBAL, is_global) ||
        !mo_node_set_float(g, made, MO_INT8_FACTOR, x.scale / e.y.scale))
        return mo_int8_full(l);
    mo_int8_kill_end(g, &e);
    mo_int8_kill(g, id);
    return MOPT_OK;
}

/* ---- bytes moved -------------------------------------------------------------------------------------------------------- */

static bool moves(const struct mo_node *n)
{
    static const char *const types[] = {"Reshape",      "Flatten",      "Squeeze", "Unsqueeze", "Transpose",
                                        "Identity",     "Slice",        "Gather",  "Tile",      "Expand",
                                        "DepthToSpace", "SpaceToDepth", "Split",   "MaxPool"};
    for (size_t i = 0; i < MO_COUNT(types); i++)
        if (mo_node_is(n, types[i]))
            return !mo_node_is(n, "MaxPool") || n->n_out == 1 || n->out[1] == MO_NONE;
    return false;
}

/* y = DQ(bytes) */
static enum mopt_status add_dequantize(struct mo_int8 *l, const struct mo_bytes *b, mo_value_id bytes, mo_value_id y)
{
    mo_value_id in[3] = { bytes, b->scale_id, b->zero_id };
    uint32_t n_in = b->zero_id == MO_NONE ? 2 : 3;
    return mo_graph_add_node(l->g, "DequantizeLinear", "", "", in, n_in, &y, 1) == MO_NONE ? mo_int8_full(l) : MOPT_OK;
}

static enum mopt_status lower_move(struct mo_int8 *l, mo_node_id id)
{
    struct mo_graph *g = l->g;
    struct mo_bytes x;
    if (!moves(&g->nodes[id]) || !mo_int8_is_dequantized(g, g->nodes[id].in[0], &x) || g->values[x.value].data)
        return MOPT_OK;
    mo_value_id *in = g->nodes[id].in;
    g->values[in[0]].n_uses--;
    g->values[x.value].n_uses++;
    in[0] = x.value;
    for (uint32_t k = 0; k < g->nodes[id].n_out; k++) {
        mo_value_id y = g->nodes[id].out[k];
        if (y == MO_NONE)
            continue;
        mo_value_id bytes = add_bytes(l, y, x.type);
        if (bytes == MO_NONE)
            return mo_int8_full(l);
        g->nodes[id].out[k] = bytes;
        g->values[bytes].producer = id;
        MO_TRY(add_dequantize(l, &x, bytes, y));
    }
    return MOPT_OK;
}

static enum mopt_status lower_concat(struct mo_int8 *l, mo_node_id id)
{
    struct mo_graph *g = l->g;
    struct mo_bytes x;
    struct mo_int8_end e;
    if (!mo_node_is(&g->nodes[id], "Concat") || !mo_int8_find_end(g, g->nodes[id].out[0], &e) || e.n_nodes != 1)
        return MOPT_OK;
    for (uint32_t k = 0; k < g->nodes[id].n_in; k++)
        if (!mo_int8_is_dequantized(g, g->nodes[id].in[k], &x) || x.type != e.y.type)
            return MOPT_OK;
    for (uint32_t k = 0; k < g->nodes[id].n_in; k++) {
        mo_value_id from = g->nodes[id].in[k];
        (void)mo_int8_is_dequantized(g, from, &x);
        mo_value_id to = x.value;
        if (!mo_int8_same_params(&x, &e.y)) {
            to = add_bytes(l, from, e.y.type);
            if (to == MO_NONE)
                return mo_int8_full(l);
            MO_TRY(mo_int8_add_rescale(l, &x, g->values[from].producer, e.nodes[0], to));
        }
        g->values[from].n_uses--;
        g->values[to].n_uses++;
        g->nodes[id].in[k] = to;
    }
    mo_int8_kill_end(g, &e);
    g->nodes[id].out[0] = e.y.value;
    g->values[e.y.value].producer = id;
    return MOPT_OK;
}

/* ---- the walk ----------------------------------------------------------------------------------------------------------- */

static bool has_bytes(const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (mo_node_is(&g->nodes[i], "DequantizeLinear") || mo_node_is(&g->nodes[i], "QLinearConv") ||
            mo_node_is(&g->nodes[i], "QLinearMatMul"))
            return true;
    return false;
}

enum mopt_status mo_int8_base(struct mopt_ctx *ctx, struct mo_graph *g)
{
    struct mo_int8 l = { ctx, g };
    static enum mopt_status (*const steps[])(struct mo_int8 *, mo_node_id) = {
        lower_product, lower_qlinear, lower_binary, lower_average, lower_move, lower_concat, mo_int8_first, mo_int8_function,
    };
    if (!has_bytes(g))
        return MOPT_OK;
    mo_node_id n_nodes = g->n_nodes;
    for (mo_node_id i = n_nodes; i-- > 0;)      /* the last Q first: its function is the longest */
        if (!g->nodes[i].is_dead)
            MO_TRY(mo_int8_function(&l, i));
    for (mo_node_id i = 0; i < n_nodes; i++)
        for (size_t k = 0; k < MO_COUNT(steps) && !g->nodes[i].is_dead; k++)
            MO_TRY(steps[k](&l, i));
    mo_graph_sweep(g);
    mo_graph_drop_unused(g);
    MO_TRY(mo_graph_sort(ctx, g));
    return mo_infer(ctx, g, NULL, 0);
}
