/* MatMulInteger, ConvInteger: products of 8-bit integers in int32. QLinearMatMul,
 * QLinearConv: the same brought back to 8 bits,
 *     y = saturate(round((sum (a - za)(b - zb) + bias) sa sb / sy) + zy).
 * Weights may have a scale and a zero point for each output channel. No gradients. */
#include "lib/ops/tensor.h"
#include "lib/ops/window.h"

/* Where the parts of an operator are among its inputs; -1: it has none. */
struct places {
    int a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, bias;
};
static const struct places of_integer = { 0, -1, 2, 1, -1, 3, -1, -1, -1 };
static const struct places of_qlinear = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };

struct product {
    struct mo_window window;        /* of convolutions */
    int64_t groups;
    int64_t m, n, k;                /* of matrix products */
    struct mo_shape batch;          /* of the result; its axes before the matrix */
    const struct places *at;
};

static const struct mo_value *value(const struct mo_graph *g, const struct mo_node *n, int i)
{
    return i < 0 ? NULL : mo_in(g, n, (uint32_t)i);
}

static enum mopt_status check_types(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                    const struct places *at)
{
    const int both[] = { at->a, at->b };
    for (size_t i = 0; i < MO_COUNT(both); i++) {
        const struct mo_value *v = value(g, n, both[i]);
        if (v->dtype != MO_U8 && v->dtype != MO_I8 && v->dtype != MO_UNDEFINED)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "'%s' is %s, it should be int8 or uint8", v->name,
                           mo_dtype_name(v->dtype));
    }
    return MOPT_OK;
}

static enum mo_dtype result_dtype(const struct mo_graph *g, const struct mo_node *n, const struct places *at)
{
    return at->y_zero < 0 ? MO_I32 : value(g, n, at->y_zero)->dtype;
}

/* ---- shapes ---- */

/* numpy's matmul: a vector is a row on the left and a column on the right, and its axis falls away. */
static enum mopt_status infer_matmul(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const struct places *at)
{
    struct product *p = n->params;
    const struct mo_shape a = value(g, n, at->a)->shape, b = value(g, n, at->b)->shape;
    struct mo_shape batch_a = a, batch_b = b, y;
    char text_a[128], text_b[128];
    p->at = at;
    MO_TRY(check_types(ctx, g, n, at));
    if (a.rank == MO_UNKNOWN || b.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, result_dtype(g, n, at));
        return MOPT_OK;
    }
    if (a.rank == 0 || b.rank == 0)
        return mo_fail(ctx, MOPT_DATA, "a scalar has no rows and columns");
    p->m = a.rank == 1 ? 1 : a.dim[a.rank - 2];
    p->k = a.dim[a.rank - 1];
    p->n = b.rank == 1 ? 1 : b.dim[b.rank - 1];
    int64_t k_b = b.rank == 1 ? b.dim[0] : b.dim[b.rank - 2];
    batch_a.rank = MO_MAX(a.rank - 2, 0);
    batch_b.rank = MO_MAX(b.rank - 2, 0);
    if ((p->k != MO_UNKNOWN && k_b != MO_UNKNOWN && p->k != k_b) ||
        !mo_shape_broadcast(&batch_a, &batch_b, &p->batch) || p->batch.rank + 2 > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_DATA, "A is %s and B is %s, they cannot be multiplied",
                       mo_shape_text(&a, text_a, sizeof text_a), mo_shape_text(&b, text_b, sizeof text_b));
    y = p->batch;
    if (a.rank > 1)
        y.dim[y.rank++] = p->m;
    if (b.rank > 1)
        y.dim[y.rank++] = p->n;
    mo_set_out(g, n, 0, result_dtype(g, n, at), &y);
    return MOPT_OK;
}

static enum mopt_status infer_conv(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const struct places *at)
{
    struct product *p = n->params;
    const struct mo_shape x = value(g, n, at->a)->shape, w = value(g, n, at->b)->shape;
    p->at = at;
    p->groups = mo_node_int(n, "group", 1);
    MO_TRY(check_types(ctx, g, n, at));
    if (x.rank == MO_UNKNOWN || w.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, result_dtype(g, n, at));
        return MOPT_OK;
    }
    MO_TRY(mo_window_read(ctx, n, &x, &w, &p->window));
    MO_TRY(mo_window_slide(ctx, &p->window));
    int64_t channels = mo_window_channels(&p->window, &x);
    if (p->groups < 1 || (channels >= 0 && w.dim[1] >= 0 && (channels % p->groups || channels / p->groups != w.dim[1])) ||
        (w.dim[0] >= 0 && w.dim[0] % p->groups))
        return mo_fail(ctx, MOPT_DATA, "%lld channels in %lld groups, the weights are for %lld to %lld", (long long)channels,
                       (long long)p->groups, (long long)w.dim[1], (long long)w.dim[0]);
    struct mo_shape y = mo_window_shape(&p->window, x.dim[0], w.dim[0], p->window.out);
    mo_set_out(g, n, 0, result_dtype(g, n, at), &y);
    return MOPT_OK;
}

static enum mopt_status infer_matmul_integer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_matmul(ctx, g, n, &of_integer);
}
static enum mopt_status infer_qlinear_matmul(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_matmul(ctx, g, n, &of_qlinear);
}
static enum mopt_status infer_conv_integer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_conv(ctx, g, n, &of_integer);
}
static enum mopt_status infer_qlinear_conv(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_conv(ctx, g, n, &of_qlinear);
}

/* ---- products by constants, prepared: MatMulInteger, ConvInteger ---- */

/* Rows and columns changed: k x n to n x k; NULL without memory. */
static uint8_t *turned(const uint8_t *b, int64_t k, int64_t n)
{
    uint8_t *to = mo_mem_new((size_t)(k * n), 1);
    for (int64_t i = 0; to && i < k; i++)
        for (int64_t j = 0; j < n; j++)
            to[j * k + i] = b[i * n + j];
    return to;
}

static bool is_fixed(const struct mo_value *v)
{
    return !v || v->data;
}

/* Zero points of B, one for each of n channels; NULL: they are 0, or *ok false. */
static int32_t *zeros_given(const struct mo_value *zero, int64_t n, bool *ok)
{
    int64_t count = zero ? mo_value_elems(zero) : 0;
    *ok = !zero || count == 1 || count == n;
    int32_t *list = zero && *ok ? mo_mem_new((size_t)n, sizeof *list) : NULL;
    *ok = *ok && (list || !zero);
    for (int64_t o = 0; list && o < n; o++) {
        int64_t at = count == 1 ? 0 : o;
        list[o] = zero->dtype == MO_I8 ? ((const int8_t *)zero->data)[at] : ((const uint8_t *)zero->data)[at];
    }
    return list;
}

static enum mopt_status prepare_fixed(struct mo_run *r, const struct mo_node *n, const struct mo_conv_desc *shape,
                                      const void *w)
{
    const struct product *p = n->params;
    bool ok;
    int32_t *zeros = zeros_given(value(r->graph, n, p->at->b_zero), shape->out_channels, &ok);
    struct mo_qconv_desc d = {
        .shape = *shape, .x_signed = value(r->graph, n, p->at->a)->dtype == MO_I8,
        .w_signed = value(r->graph, n, p->at->b)->dtype == MO_I8, .w = w, .w_zero = zeros, .y_dtype = MO_I32,
    };
    if (ok)
        *mo_run_handle(r, n) = r->be->qconv_new(r->dev, &d);
    mo_mem_free(zeros);
    return !ok || *mo_run_handle(r, n) ? MOPT_OK : mo_no_memory(r->ctx, sizeof d, "packed weights");
}

static bool can_prepare(const struct mo_run *r, const struct mo_node *n)
{
    const struct product *p = n->params;
    const struct mo_value *zero_a = value(r->graph, n, p->at->a_zero);
    return p->at->y_scale < 0 && is_fixed(value(r->graph, n, p->at->b)) && is_fixed(value(r->graph, n, p->at->b_zero)) &&
           (!zero_a || mo_value_elems(zero_a) == 1) && mo_value_elems(mo_out(r->graph, n, 0)) > 0 &&
           mo_value_elems(value(r->graph, n, p->at->b)) > 0;
}

static enum mopt_status prepare_matmul(struct mo_run *r, const struct mo_node *n)
{
    const struct product *p = n->params;
    const struct mo_value *a = value(r->graph, n, p->at->a), *b = value(r->graph, n, p->at->b);
    if (!can_prepare(r, n) || b->shape.rank != 2)
        return MOPT_OK;
    struct mo_conv_desc d = {
        .n_spatial = 1, .batch = mo_value_elems(a) / p->k, .groups = 1, .in_channels = p->k, .out_channels = p->n,
        .in = { 1, 1, 1 }, .out = { 1, 1, 1 }, .kernel = { 1, 1, 1 }, .stride = { 1, 1, 1 }, .dilation = { 1, 1, 1 },
    };
    uint8_t *w = turned(b->data, p->k, p->n);
    enum mopt_status s = w ? prepare_fixed(r, n, &d, w) : mo_no_memory(r->ctx, (size_t)(p->k * p->n), "turned weights");
    mo_mem_free(w);
    return s;
}

static struct mo_conv_desc conv_desc(const struct mo_run *r, const struct mo_node *n)
{
    const struct product *p = n->params;
    const struct mo_shape *x = &value(r->graph, n, p->at->a)->shape;
    struct mo_conv_desc d = {
        .n_spatial = p->window.n_spatial, .batch = x->dim[0], .groups = p->groups,
        .in_channels = mo_window_channels(&p->window, x), .out_channels = value(r->graph, n, p->at->b)->shape.dim[0],
    };
    MO_WINDOW_INTO(d, &p->window);
    return d;
}

static enum mopt_status prepare_conv(struct mo_run *r, const struct mo_node *n)
{
    const struct product *p = n->params;
    MO_TRY(mo_window_runs(r->ctx, &p->window));
    if (!can_prepare(r, n))
        return MOPT_OK;
    struct mo_conv_desc d = conv_desc(r, n);
    return prepare_fixed(r, n, &d, value(r->graph, n, p->at->b)->data);
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    if (*mo_run_handle(r, n))
        r->be->qconv_free(r->dev, *mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

/* ---- scratch ---- */

struct parts {
    int32_t *zeros_b, *zero_y, *sums;
    float *scales, *product, *wide;     /* sy / (sa sb); sa sb; the sums as floats */
    float *scale_a, *scale_b, *scale_y; /* when they are not float32 */
    size_t bytes;
};

static void *take(char *base, size_t *at, size_t bytes)
{
    void *part = base ? base + *at : NULL;
    *at += mo_part_bytes(bytes);
    return part;
}

static size_t count(const struct mo_run *r, const struct mo_node *n, int i)
{
    const struct mo_value *v = value(r->graph, n, i);
    return v ? (size_t)mo_value_elems(v) : 0;
}

static struct parts parts(const struct mo_run *r, const struct mo_node *n, char *base)
{
    const struct product *p = n->params;
    const struct places *at = p->at;
    size_t n_y = (size_t)mo_value_elems(mo_out(r->graph, n, 0)), used = 0;
    bool is_qlinear = at->y_scale >= 0;
    size_t n_scales = is_qlinear ? MO_MAX(count(r, n, at->a_scale), count(r, n, at->b_scale)) : 0;
    struct parts s = { 0 };
    s.zeros_b = take(base, &used, count(r, n, at->b_zero) * sizeof(int32_t));
    s.zero_y = take(base, &used, n_scales * sizeof(int32_t));
    s.sums = take(base, &used, is_qlinear ? n_y * sizeof(int32_t) : 0);
    s.wide = take(base, &used, is_qlinear ? n_y * sizeof(float) : 0);
    s.scales = take(base, &used, n_scales * sizeof(float));
    s.product = take(base, &used, n_scales * sizeof(float));
    s.scale_a = take(base, &used, is_qlinear ? count(r, n, at->a_scale) * sizeof(float) : 0);
    s.scale_b = take(base, &used, is_qlinear ? count(r, n, at->b_scale) * sizeof(float) : 0);
    s.scale_y = take(base, &used, is_qlinear ? sizeof(float) : 0);
    s.bytes = used;
    return s;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct mo_qconv *q = *mo_run_handle(r, n);
    return backward ? 0 : q ? r->be->qconv_scratch_bytes(q) : parts(r, n, NULL).bytes;
}

/* ---- zero points and scales ---- */

static enum mopt_status zero_of_a(struct mo_run *r, const struct mo_node *n, const struct places *at, int32_t *zero)
{
    double x = 0;
    if (value(r->graph, n, at->a_zero) && !mo_run_scalar(r, n, (uint32_t)at->a_zero, &x))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "a zero point for each row of A, one would do");
    *zero = (int32_t)x;
    return MOPT_OK;
}

/* NULL: there are none, so they are 0. */
static const int32_t *zeros_of_b(struct mo_run *r, const struct mo_node *n, const struct places *at, const struct parts *s)
{
    const struct mo_value *zero = value(r->graph, n, at->b_zero);
    if (!zero)
        return NULL;
    r->be->cast(r->dev, (int)zero->dtype, MO_I32, (size_t)mo_value_elems(zero), mo_run_in(r, n, (uint32_t)at->b_zero),
                s->zeros_b);
    return s->zeros_b;
}

static const float *scale_of(struct mo_run *r, const struct mo_node *n, int i, float *wide)
{
    const struct mo_value *v = value(r->graph, n, i);
    if (v->dtype == MO_F32)
        return mo_run_in(r, n, (uint32_t)i);
    r->be->cast(r->dev, (int)v->dtype, MO_F32, (size_t)mo_value_elems(v), mo_run_in(r, n, (uint32_t)i), wide);
    return wide;
}

/* s->scales = sy / (sa sb), one or one for each channel; s->zero_y repeated likewise. */
static int64_t make_scales(struct mo_run *r, const struct mo_node *n, const struct places *at, const struct parts *s)
{
    const struct mo_value *zero = value(r->graph, n, at->y_zero);
    int64_t n_a = (int64_t)count(r, n, at->a_scale), n_b = (int64_t)count(r, n, at->b_scale), many = MO_MAX(n_a, n_b);
    int64_t one = 1, still = 0, step_a = n_a > 1, step_b = n_b > 1;
    r->be->binary(r->dev, MO_MUL, MO_F32, 1, &many, &step_a, &step_b, scale_of(r, n, at->a_scale, s->scale_a),
                  scale_of(r, n, at->b_scale, s->scale_b), s->product);
    r->be->binary(r->dev, MO_DIV, MO_F32, 1, &many, &still, &one, scale_of(r, n, at->y_scale, s->scale_y), s->product,
                  s->scales);
    r->be->cast(r->dev, (int)zero->dtype, MO_I32, 1, mo_run_in(r, n, (uint32_t)at->y_zero), s->zero_y);
    if (many > 1) {
        many--;
        r->be->copy_strided(r->dev, sizeof(int32_t), 1, &many, &still, &one, s->zero_y, s->zero_y + 1);
        many++;
    }
    return many;
}

/* The sums, whose last axis has `channels`, to 8 bits. */
static enum mopt_status requantize(struct mo_run *r, const struct mo_node *n, const struct parts *s, int64_t channels)
{
    const struct product *p = n->params;
    const struct mo_value *y = mo_out(r->graph, n, 0);
    int64_t n_y = mo_value_elems(y), n_scales = make_scales(r, n, p->at, s);
    if (n_scales != 1 && n_scales != channels)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "%lld scales for %lld channels, one for each would do",
                       (long long)n_scales, (long long)channels);
    if (y->dtype != MO_U8 && y->dtype != MO_I8)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "results in %s, int8 or uint8 would do", mo_dtype_name(y->dtype));
    r->be->cast(r->dev, MO_I32, MO_F32, (size_t)n_y, s->sums, s->wide);
    r->be->quantize(r->dev, (int)y->dtype, n_scales == 1 || channels == 0 ? 1 : n_y / channels, n_scales,
                    n_scales == 1 ? n_y : 1, s->wide, s->scales, s->zero_y, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status forward_fixed(struct mo_run *r, const struct mo_node *n)
{
    const struct product *p = n->params;
    int32_t zero;
    MO_TRY(zero_of_a(r, n, p->at, &zero));
    r->be->qconv(r->dev, *mo_run_handle(r, n), zero, mo_run_in(r, n, (uint32_t)p->at->a), mo_run_out(r, n, 0),
                 mo_run_scratch(r, n));
    return MOPT_OK;
}

/* ---- matrix products ---- */

/* The matrix of v for item i of the batch. */
static int64_t matrix_at(const struct mo_shape *v, const struct mo_shape *batch, int64_t i, int64_t elems)
{
    struct mo_shape own = *v;
    int64_t stride[MO_MAX_RANK], at = 0;
    own.rank = MO_MAX(v->rank - 2, 0);
    mo_broadcast_strides(&own, batch, stride);
    for (int axis = batch->rank - 1; axis >= 0; axis--) {
        at += i % batch->dim[axis] * stride[axis];
        i /= batch->dim[axis];
    }
    return at * elems;
}

static enum mopt_status forward_matmul(struct mo_run *r, const struct mo_node *n)
{
    const struct product *p = n->params;
    const struct mo_value *a = value(r->graph, n, p->at->a), *b = value(r->graph, n, p->at->b);
    if (*mo_run_handle(r, n))
        return forward_fixed(r, n);
    struct parts s = parts(r, n, mo_run_scratch(r, n));
    bool is_qlinear = p->at->y_scale >= 0, by_column = count(r, n, p->at->b_zero) > 1;
    const char *in_a = mo_run_in(r, n, (uint32_t)p->at->a), *in_b = mo_run_in(r, n, (uint32_t)p->at->b);
    int32_t zero_a, *sums = is_qlinear ? s.sums : mo_run_out(r, n, 0);
    MO_TRY(zero_of_a(r, n, p->at, &zero_a));
    const int32_t *zeros = zeros_of_b(r, n, p->at, &s);
    if (by_column && (int64_t)count(r, n, p->at->b_zero) != p->n)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "%zu zero points for %lld columns", count(r, n, p->at->b_zero),
                       (long long)p->n);
    for (int64_t i = 0; i < mo_shape_elems(&p->batch); i++)
        r->be->gemm_int8(r->dev, p->m, p->n, p->k, in_a + matrix_at(&a->shape, &p->batch, i, p->m * p->k),
                         a->dtype == MO_I8, zero_a, in_b + matrix_at(&b->shape, &p->batch, i, p->k * p->n),
                         b->dtype == MO_I8, zeros, by_column, sums + i * p->m * p->n);
    return is_qlinear ? requantize(r, n, &s, p->n) : MOPT_OK;
}

/* ---- convolutions, channels-last ---- */

static enum mopt_status forward_conv(struct mo_run *r, const struct mo_node *n)
{
    const struct product *p = n->params;
    const struct mo_value *x = value(r->graph, n, p->at->a), *w = value(r->graph, n, p->at->b);
    if (*mo_run_handle(r, n))
        return forward_fixed(r, n);
    struct parts s = parts(r, n, mo_run_scratch(r, n));
    bool is_qlinear = p->at->y_scale >= 0, by_channel = count(r, n, p->at->b_zero) > 1;
    int64_t channels = w->shape.dim[0], n_y = mo_value_elems(mo_out(r->graph, n, 0)), one = 1, still = 0;
    int32_t zero_x, *sums = is_qlinear ? s.sums : mo_run_out(r, n, 0);
    struct mo_conv_desc d = conv_desc(r, n);
    MO_TRY(zero_of_a(r, n, p->at, &zero_x));
    const int32_t *zeros = zeros_of_b(r, n, p->at, &s);
    r->be->conv_int8(r->dev, &d, mo_run_in(r, n, (uint32_t)p->at->a), x->dtype == MO_I8, zero_x,
                     mo_run_in(r, n, (uint32_t)p->at->b), w->dtype == MO_I8, zeros, by_channel, sums);
    if (value(r->graph, n, p->at->bias)) {
        const int64_t dims[2] = { channels ? n_y / channels : 0, channels }, dense[2] = { channels, one };
        const int64_t repeated[2] = { still, one };
        r->be->binary(r->dev, MO_ADD, MO_I32, 2, dims, dense, repeated, sums, mo_run_in(r, n, (uint32_t)p->at->bias), sums);
    }
    return is_qlinear ? requantize(r, n, &s, channels) : MOPT_OK;
}

/* ---- multiply-adds ---- */

static int64_t macs_matmul(const struct mo_graph *g, const struct mo_node *n)
{
    const struct product *p = n->params;
    int64_t y = mo_value_elems(mo_out(g, n, 0));
    return y == MO_UNKNOWN || p->k == MO_UNKNOWN ? MO_UNKNOWN : y * p->k;
}

static int64_t macs_conv(const struct mo_graph *g, const struct mo_node *n)
{
    const struct product *p = n->params;
    const struct mo_value *w = value(g, n, p->at->b);
    int64_t y = mo_value_elems(mo_out(g, n, 0)), elems = mo_value_elems(w);
    return y == MO_UNKNOWN || elems == MO_UNKNOWN || w->shape.dim[0] < 1 ? MO_UNKNOWN : y * (elems / w->shape.dim[0]);
}

const struct mo_op mo_op_matmul_integer = {
    .type = "MatMulInteger",
    .since_opset = 10,
    .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct product),
    .infer = infer_matmul_integer, .prepare = prepare_matmul, .unprepare = unprepare, .forward = forward_matmul,
    .macs = macs_matmul,
    .scratch_bytes = scratch_bytes,
};

const struct mo_op mo_op_qlinear_matmul = {
    .type = "QLinearMatMul",
    .since_opset = 10,
    .min_in = 8, .max_in = 8, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct product),
    .infer = infer_qlinear_matmul, .forward = forward_matmul,
    .macs = macs_matmul,
    .scratch_bytes = scratch_bytes,
};

const struct mo_op mo_op_conv_integer = {
    .type = "ConvInteger",
    .since_opset = 10,
    .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1,
    .flags = MO_OP_CHANNELS_LAST,
    .params_bytes = sizeof(struct product),
    .infer = infer_conv_integer, .prepare = prepare_conv, .unprepare = unprepare, .forward = forward_conv,
    .macs = macs_conv,
    .scratch_bytes = scratch_bytes,
};

const struct mo_op mo_op_qlinear_conv = {
    .type = "QLinearConv",
    .since_opset = 10,
    .min_in = 8, .max_in = 9, .min_out = 1, .max_out = 1,
    .flags = MO_OP_CHANNELS_LAST,
    .params_bytes = sizeof(struct product),
    .infer = infer_qlinear_conv, .prepare = prepare_conv, .unprepare = unprepare, .forward = forward_conv,
    .macs = macs_conv,
    .scratch_bytes = scratch_bytes,
};
