/* Gemm: Y = act(alpha op(A) op(B) + beta C), op transposes when transA, transB say
 * so; C is broadcast to M x N. Lowering may add the activation (fused.h). */
#include "lib/ops/ops.h"
#include "lib/ops/packed.h"
#include "lib/run/fused.h"
#include "lib/run/run.h"

struct gemm {
    bool ta, tb;
    float alpha, beta;
    struct mo_fused fused;
};

/* Sizes and C's place in them: stride 0 where C is repeated. */
struct sizes {
    int64_t m, n, k, c_stride[2];
};

static struct sizes sizes_of(const struct mo_graph *g, const struct mo_node *n)
{
    const struct gemm *p = n->params;
    const struct mo_shape *a = &mo_in(g, n, 0)->shape, *b = &mo_in(g, n, 1)->shape;
    const struct mo_value *c = mo_in(g, n, 2);
    struct sizes s = {a->dim[p->ta ? 1 : 0], b->dim[p->tb ? 0 : 1], a->dim[p->ta ? 0 : 1], {0, 0}};
    if (c && c->shape.rank >= 1 && c->shape.dim[c->shape.rank - 1] != 1)
        s.c_stride[1] = 1;
    if (c && c->shape.rank == 2 && c->shape.dim[0] != 1)
        s.c_stride[0] = c->shape.dim[1];
    return s;
}

static enum mopt_status check_c(struct mopt_ctx *ctx, const struct mo_shape *c, const struct mo_shape *y)
{
    char text_c[128], text_y[128];
    struct mo_shape both;
    bool fits = c->rank == MO_UNKNOWN || (c->rank <= 2 && mo_shape_broadcast(c, y, &both));
    for (int i = 0; fits && i < 2 && c->rank != MO_UNKNOWN; i++)
        fits = y->dim[i] == MO_UNKNOWN || both.dim[i] == y->dim[i];
    if (fits)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "C is %s, it must be broadcast to %s", mo_shape_text(c, text_c, sizeof text_c),
                   mo_shape_text(y, text_y, sizeof text_y));
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct gemm *p = n->params;
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1), *c = mo_in(g, n, 2);
    p->ta = mo_node_int(n, "transA", 0) != 0;
    p->tb = mo_node_int(n, "transB", 0) != 0;
    p->alpha = mo_node_float(n, "alpha", 1.0f);
    p->beta = mo_node_float(n, "beta", 1.0f);
    p->fused = mo_fused_read(n);
    struct mo_shape y = {.rank = 2, .dim = {MO_UNKNOWN, MO_UNKNOWN}};
    char text[128];
    for (int i = 0; i < 2; i++) {
        const struct mo_shape *shape = i ? &b->shape : &a->shape;
        if (shape->rank != MO_UNKNOWN && shape->rank != 2)
            return mo_fail(ctx, MOPT_DATA, "%c is %s, it must be a matrix", "AB"[i],
                           mo_shape_text(shape, text, sizeof text));
    }
    if (a->shape.rank == 2)
        y.dim[0] = a->shape.dim[p->ta ? 1 : 0];
    if (b->shape.rank == 2)
        y.dim[1] = b->shape.dim[p->tb ? 0 : 1];
    if (a->shape.rank == 2 && b->shape.rank == 2) {
        int64_t k_a = a->shape.dim[p->ta ? 0 : 1], k_b = b->shape.dim[p->tb ? 1 : 0];
        if (k_a >= 0 && k_b >= 0 && k_a != k_b)
            return mo_fail(ctx, MOPT_DATA, "A has %lld columns, B has %lld rows%s", (long long)k_a, (long long)k_b,
                           p->ta || p->tb ? " (after transposing)" : "");
    }
    if (c)
        MO_TRY(check_c(ctx, &c->shape, &y));
    mo_set_out(g, n, 0, mo_fused_type(&p->fused, a->dtype), &y);
    return MOPT_OK;
}

static struct mo_matrix input(const struct mo_run *r, const struct mo_node *n, uint32_t i, int64_t ld)
{
    return (struct mo_matrix){mo_run_in(r, n, i), mo_run_in_type(r, n, i), ld};
}

/* C, or with the bias beside; beta says how much of it is in y then. */
static float lay_c(struct mo_run *r, const struct mo_node *n, const struct sizes *s, void *y)
{
    const struct gemm *p = n->params;
    const int64_t dims[2] = {s->m, s->n}, of_y[2] = {s->n, 1};
    const float *c = mo_run_in(r, n, 2);
    if (!c || p->beta == 0.0f)
        return 0.0f;
    if (mo_run_out_type(r, n, 0) == MO_F32) {
        r->be->copy_strided(r->dev, sizeof *c, 2, dims, s->c_stride, of_y, c, y);
        return p->beta;
    }
    float *wide = mo_run_scratch(r, n);
    r->be->copy_strided(r->dev, sizeof *c, 2, dims, s->c_stride, of_y, c, wide);
    r->be->cast(r->dev, MO_F32, (int)mo_run_out_type(r, n, 0), (size_t)(s->m * s->n), wide, y);
    return p->beta;
}

/* y = act(a op(b) + c) with c a row, or none, for which kernels have a place. */
static bool has_row_bias(const struct mo_node *n, const struct gemm *p, const struct sizes *s)
{
    bool has_c = n->n_in > 2 && n->in[2] != MO_NONE;
    return has_c && p->beta == 1.0f && s->c_stride[0] == 0 && (s->c_stride[1] == 1 || s->n == 1);
}

/* Constant weights are packed. */
static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct gemm *p = n->params;
    MO_TRY(mo_prepare_float32(r, n));
    struct sizes s = sizes_of(r->graph, n);
    bool has_c = n->n_in > 2 && n->in[2] != MO_NONE;
    if (p->ta || p->alpha != 1.0f || (has_c && !has_row_bias(n, p, &s)))
        return MOPT_OK;
    struct mo_conv *conv;
    MO_TRY(mo_packed_new(r, n, &(struct mo_packed_desc){s.m, s.n, s.k, p->tb, has_c, p->fused}, &conv));
    *mo_run_handle(r, n) = conv;
    return MOPT_OK;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    if (*mo_run_handle(r, n))
        r->be->conv_free(r->dev, *mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct gemm *p = n->params;
    if (*mo_run_handle(r, n)) {
        mo_packed_forward(r, n, *mo_run_handle(r, n));
        return MOPT_OK;
    }
    struct sizes s = sizes_of(r->graph, n);
    const float *c = mo_run_in(r, n, 2);
    void *y = mo_run_out(r, n, 0);
    float beta = 0.0f;
    struct mo_epilogue e = {NULL, p->fused.act, p->fused.lo, p->fused.hi};
    if (has_row_bias(n, p, &s)) {
        e.bias = c;
    } else {
        beta = lay_c(r, n, &s, y);
    }
    mo_fused_gemm(r, &p->fused, p->ta, p->tb, s.m, s.n, s.k, p->alpha, input(r, n, 0, p->ta ? s.m : s.k),
                  input(r, n, 1, p->tb ? s.k : s.n), beta, (struct mo_matrix){y, mo_run_out_type(r, n, 0), s.n}, &e);
    return MOPT_OK;
}

/* dA = alpha dY op(B)^T, or transposed alpha op(B) dY^T */
static void grad_a(struct mo_run *r, const struct mo_node *n, const struct sizes *s, const float *dy, float *da)
{
    const struct gemm *p = n->params;
    struct mo_matrix b = input(r, n, 1, p->tb ? s->k : s->n), of_y = {dy, mo_run_out_type(r, n, 0), s->n};
    struct mo_matrix of_a = {da, mo_run_in_type(r, n, 0), p->ta ? s->m : s->k};
    float beta = mo_run_adds(r, n, 0) ? 1.0f : 0.0f;
    if (p->ta)
        mo_fused_gemm(r, &p->fused, p->tb, true, s->k, s->m, s->n, p->alpha, b, of_y, beta, of_a, NULL);
    else
        mo_fused_gemm(r, &p->fused, false, !p->tb, s->m, s->k, s->n, p->alpha, of_y, b, beta, of_a, NULL);
}

/* dB = alpha op(A)^T dY, or transposed alpha dY^T op(A) */
static void grad_b(struct mo_run *r, const struct mo_node *n, const struct sizes *s, const float *dy, float *db)
{
    const struct gemm *p = n->params;
    struct mo_matrix a = input(r, n, 0, p->ta ? s->m : s->k), of_y = {dy, mo_run_out_type(r, n, 0), s->n};
    struct mo_matrix of_b = {db, mo_run_in_type(r, n, 1), p->tb ? s->k : s->n};
    float beta = mo_run_adds(r, n, 1) ? 1.0f : 0.0f;
    if (p->tb)
        mo_fused_gemm(r, &p->fused, true, p->ta, s->n, s->k, s->m, p->alpha, of_y, a, beta, of_b, NULL);
    else
        mo_fused_gemm(r, &p->fused, !p->ta, false, s->k, s->n, s->m, p->alpha, a, of_y, beta, of_b, NULL);
}

/* dy as float32: itself, or a copy behind the rest of the scratch. */
static const float *widened(struct mo_run *r, const struct mo_node *n, const float *dy)
{
    if (mo_run_out_type(r, n, 0) == MO_F32)
        return dy;
    float *wide = (float *)mo_run_scratch(r, n) + 2 * mo_run_in_elems(r, n, 2);
    r->be->cast(r->dev, (int)mo_run_out_type(r, n, 0), MO_F32, mo_run_out_elems(r, n, 0), dy, wide);
    return wide;
}

/* dC = beta dY, summed over the axes along which C was repeated. */
static void grad_c(struct mo_run *r, const struct mo_node *n, const struct sizes *s, const float *dy, float *dc)
{
    const struct gemm *p = n->params;
    const int64_t dims[2] = {s->m, s->n};
    const bool is_reduced[2] = {s->c_stride[0] == 0 && s->m != 1, s->c_stride[1] == 0 && s->n != 1};
    bool add = mo_run_adds(r, n, 2);
    size_t n_elems = mo_run_in_elems(r, n, 2);
    if (is_reduced[0] && !is_reduced[1] && mo_dtype_is_half(mo_run_out_type(r, n, 0))) {   /* m times the mean of the rows */
        float *mean = mo_run_scratch(r, n);
        r->be->batchnorm_stats_bf16(r->dev, s->m, s->n, (const uint16_t *)(const void *)dy, mean, mean + s->n);
        r->be->axpy(r->dev, n_elems, p->beta * (float)s->m, mean, dc, add);
        return;
    }
    dy = widened(r, n, dy);
    if (!is_reduced[0] && !is_reduced[1]) {
        r->be->axpy(r->dev, n_elems, p->beta, dy, dc, add);
        return;
    }
    bool is_direct = !add && p->beta == 1.0f;
    float *sum = is_direct ? dc : mo_run_scratch(r, n);
    r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 2, dims, is_reduced, dy, sum);
    if (!is_direct)
        r->be->axpy(r->dev, n_elems, p->beta, sum, dc, add);
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    size_t wide = mo_dtype_is_half(mo_run_out_type(r, n, 0)) ? mo_run_out_elems(r, n, 0) * sizeof(float) : 0;
    return wide + (backward ? 2 * mo_run_in_elems(r, n, 2) * sizeof(float) : 0);
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct gemm *p = n->params;
    struct sizes s = sizes_of(r->graph, n);
    float *dy = mo_run_grad_out(r, n, 0);
    float *da = mo_run_grad_in(r, n, 0), *db = mo_run_grad_in(r, n, 1), *dc = mo_run_grad_in(r, n, 2);
    mo_fused_grad(r, &p->fused, mo_run_out_type(r, n, 0), mo_run_out_elems(r, n, 0), mo_run_out(r, n, 0), dy);
    if (dc)
        grad_c(r, n, &s, dy, dc);
    if (db)
        grad_b(r, n, &s, dy, db);
    if (da)
        grad_a(r, n, &s, dy, da);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    if (!n->params || mo_in(g, n, 0)->shape.rank != 2 || mo_in(g, n, 1)->shape.rank != 2)
        return MO_UNKNOWN;
    struct sizes s = sizes_of(g, n);
    return mo_product((int64_t[]){s.m, s.n, s.k}, 3);
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct gemm *p = n->params;
    const struct mo_value *bias = mo_in(g, n, 2), *y = mo_out(g, n, 0);
    mo_node_id id = mo_node_id_of(g, n);
    mo_couple_same(c, n->in[0], p->ta ? 1 : 0, n->out[0], 0);
    mo_couple_same(c, n->in[0], p->ta ? 0 : 1, n->in[1], p->tb ? 1 : 0);
    mo_couple_same(c, n->in[1], p->tb ? 0 : 1, n->out[0], 1);
    if (mo_in(g, n, 1)->data) {
        mo_couple_weight(c, id, n->in[1], p->tb ? 0 : 1, MO_ROLE_OUT);
        mo_couple_weight(c, id, n->in[1], p->tb ? 1 : 0, MO_ROLE_IN);
    }
    if (!bias)
        return;
    int last = bias->shape.rank - 1;
    if (last >= 0 && bias->shape.dim[last] == y->shape.dim[1]) {
        mo_couple_same(c, n->in[2], last, n->out[0], 1);
        if (bias->data)
            mo_couple_weight(c, id, n->in[2], last, MO_ROLE_PER_CHANNEL);
    }
    if (last == 1 && bias->shape.dim[0] == y->shape.dim[0])
        mo_couple_same(c, n->in[2], 0, n->out[0], 0);
}

const struct mo_op mo_op_gemm = {
    .type = "Gemm",
    .since_opset = 1,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct gemm),
    .infer = infer,
    .prepare = prepare,
    .unprepare = unprepare,
    .forward = forward,
    .backward = backward,
    .macs = macs,
    .couple = couple,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 0 | 1u << 1,
    .bf16_in = 1u << 0,
    .params_in = 1u << 0 | 1u << 1 | 1u << 2,
    .quant = {.kind = MO_QUANT_WEIGHTED},
};
