/* MatMul: numpy's matmul. The last two axes are matrices, those before are batches and
 * broadcast; a vector on the left is a row, on the right a column, and that axis goes
 * away again. Where B is one matrix for all batches, all rows of A are one product.
 * float64 and integers have a kernel of their own, and no gradient.
 * Lowering may add a bias for the last axis and an activation (fused.h). */
#include <string.h>

#include "lib/ops/packed.h"
#include "lib/ops/tensor.h"
#include "lib/run/fused.h"

struct matmul {
    struct mo_fused fused;
};

/* Products to be done: product i is at[0][i], at[1][i], at[2][i] in A, B and Y (elements). */
struct products {
    int64_t n;
    int64_t *at[3];
};

/* The handle. For gradients products stand in rounds: within one round no two add to the same matrix. */
struct plan {
    int64_t m, n, k;
    int64_t n_a, n_b, n_y;          /* matrices in A, B, Y */
    bool is_flat;                   /* B is one matrix, and A has as many as Y: one product of n_y * m rows */
    struct products all, rounds_a, rounds_b;
    struct mo_conv *packed;         /* a flat product with a constant B */
};

/* x as batches x rows x columns: batch axes aligned to the right in batch[], missing ones 1. */
struct operand {
    int64_t rows, columns, n_matrices, batch[MO_MAX_RANK];
};

static struct operand operand_of(const struct mo_shape *x, bool is_left)
{
    struct operand o = {.rows = 1, .columns = 1, .n_matrices = 1};
    int n_batch = x->rank - 2;
    if (x->rank == 1)
        *(is_left ? &o.columns : &o.rows) = x->dim[0];
    else {
        o.rows = x->dim[x->rank - 2];
        o.columns = x->dim[x->rank - 1];
    }
    for (int i = 0; i < MO_MAX_RANK; i++) {
        int axis = n_batch - MO_MAX_RANK + i;
        o.batch[i] = axis >= 0 ? x->dim[axis] : 1;
        o.n_matrices *= o.batch[i];
    }
    return o;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct matmul *p = n->params;
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    struct mo_shape y = {.rank = MO_UNKNOWN}, batch_a, batch_b;
    char text_a[128], text_b[128];
    p->fused = mo_fused_read(n);
    if (n->n_in == 3 && !p->fused.has_residual)
        return mo_fail(ctx, MOPT_DATA, "3 inputs, it takes 2");
    if (a->shape.rank == 0 || b->shape.rank == 0)
        return mo_fail(ctx, MOPT_DATA, "an operand is a scalar");
    if (a->shape.rank < 0 || b->shape.rank < 0) {
        mo_set_out(g, n, 0, mo_fused_type(&p->fused, a->dtype), &y);
        return MOPT_OK;
    }
    batch_a = a->shape;
    batch_b = b->shape;
    batch_a.rank = MO_MAX(a->shape.rank - 2, 0);
    batch_b.rank = MO_MAX(b->shape.rank - 2, 0);
    int64_t k_a = a->shape.dim[a->shape.rank - 1], k_b = b->shape.dim[MO_MAX(b->shape.rank - 2, 0)];
    if ((k_a >= 0 && k_b >= 0 && k_a != k_b) || !mo_shape_broadcast(&batch_a, &batch_b, &y))
        return mo_fail(ctx, MOPT_DATA, "A is %s, B is %s: they cannot be multiplied",
                       mo_shape_text(&a->shape, text_a, sizeof text_a),
                       mo_shape_text(&b->shape, text_b, sizeof text_b));
    if (a->shape.rank >= 2)
        y.dim[y.rank++] = a->shape.dim[a->shape.rank - 2];
    if (b->shape.rank >= 2)
        y.dim[y.rank++] = b->shape.dim[b->shape.rank - 1];
    mo_set_out(g, n, 0, mo_fused_type(&p->fused, a->dtype), &y);
    return MOPT_OK;
}

static void free_products(struct products *p)
{
    mo_mem_free(p->at[0]);
    memset(p, 0, sizeof *p);
}

static bool new_products(struct products *p, int64_t n)
{
    p->n = n;
    p->at[0] = mo_mem_new((size_t)n * 3 + 1, sizeof(int64_t));
    if (!p->at[0])
        return false;
    p->at[1] = p->at[0] + n;
    p->at[2] = p->at[1] + n;
    return true;
}

/* Counts through the batch of Y; A and B stand still along axes where they have size 1. */
static void list_products(struct plan *p, const struct operand *a, const struct operand *b)
{
    int64_t at[MO_MAX_RANK] = {0};
    for (int64_t i = 0; i < p->all.n; i++) {
        int64_t in_a = 0, in_b = 0;
        for (int d = 0; d < MO_MAX_RANK; d++) {
            in_a = in_a * a->batch[d] + (a->batch[d] == 1 ? 0 : at[d]);
            in_b = in_b * b->batch[d] + (b->batch[d] == 1 ? 0 : at[d]);
        }
        p->all.at[0][i] = in_a * p->m * p->k;
        p->all.at[1][i] = in_b * p->k * p->n;
        p->all.at[2][i] = i * p->m * p->n;
        for (int d = MO_MAX_RANK - 1; d >= 0 && ++at[d] == MO_MAX(a->batch[d], b->batch[d]); d--)
            at[d] = 0;
    }
}

/* all, sorted so that the j-th use of each matrix of operand `which` stands in round j. */
static bool list_rounds(const struct products *all, int which, int64_t n_matrices, int64_t matrix_elems,
                        struct products *rounds)
{
    int64_t *n_uses = mo_mem_new((size_t)n_matrices + 1, sizeof *n_uses);
    bool is_ok = n_uses && new_products(rounds, all->n);
    for (int64_t i = 0; is_ok && i < all->n; i++) {
        int64_t matrix = all->at[which][i] / matrix_elems, to = n_uses[matrix]++ * n_matrices + matrix;
        for (int o = 0; o < 3; o++)
            rounds->at[o][to] = all->at[o][i];
    }
    mo_mem_free(n_uses);
    return is_ok;
}

static void free_plan(struct plan *p)
{
    free_products(&p->all);
    free_products(&p->rounds_a);
    free_products(&p->rounds_b);
    mo_mem_free(p);
}

static bool is_typed(const struct mo_run *r, const struct mo_node *n)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    return dtype != MO_F32 && !mo_dtype_is_half(dtype);
}

static enum mopt_status check_types(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(r->graph, n, 0), *b = mo_in(r->graph, n, 1);
    bool has_kernel = a->dtype == MO_F64 || a->dtype == MO_I32 || a->dtype == MO_U32 || a->dtype == MO_I64 ||
                      a->dtype == MO_U64;
    if (!has_kernel || n->n_in > 2 || mo_fused_read(n).act != MO_ACT_NONE)
        return mo_prepare_float32(r, n);
    MO_TRY(mo_check_same_dtype(r->ctx, a, b));
    if (mo_run_wants_grad(r, n, 0) || mo_run_wants_grad(r, n, 1))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "no gradient is known for products of %s", mo_dtype_name(a->dtype));
    return MOPT_OK;
}

static bool fill_plan(struct mo_run *r, const struct mo_node *n, struct plan *p)
{
    struct operand a = operand_of(&mo_in(r->graph, n, 0)->shape, true);
    struct operand b = operand_of(&mo_in(r->graph, n, 1)->shape, false);
    p->m = a.rows;
    p->n = b.columns;
    p->k = a.columns;
    p->n_a = a.n_matrices;
    p->n_b = b.n_matrices;
    p->n_y = 1;
    for (int d = 0; d < MO_MAX_RANK; d++)
        p->n_y *= a.batch[d] == 1 ? b.batch[d] : a.batch[d];
    p->is_flat = p->n_b == 1 && p->n_a == p->n_y && !is_typed(r, n);
    if (p->is_flat || !p->n_y || !p->m || !p->n || !p->k)
        return true;
    if (!new_products(&p->all, p->n_y))
        return false;
    list_products(p, &a, &b);
    if (mo_run_wants_grad(r, n, 0) && !list_rounds(&p->all, 0, p->n_a, p->m * p->k, &p->rounds_a))
        return false;
    return !mo_run_wants_grad(r, n, 1) || list_rounds(&p->all, 1, p->n_b, p->k * p->n, &p->rounds_b);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    MO_TRY(check_types(r, n));
    struct plan *p = mo_mem_new(1, sizeof *p);
    if (p && fill_plan(r, n, p)) {
        *mo_run_handle(r, n) = p;
        const struct matmul *f = n->params;
        const struct mo_packed_desc d = {p->n_y * p->m, p->n, p->k, false, n->n_in > 2, f->fused};
        return p->is_flat ? mo_packed_new(r, n, &d, &p->packed) : MOPT_OK;
    }
    if (p)
        free_plan(p);
    return mo_no_memory(r->ctx, sizeof *p, "the plan of a MatMul");
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct plan *p = *mo_run_handle(r, n);
    if (p && p->packed)
        r->be->conv_free(r->dev, p->packed);
    if (p)
        free_plan(p);
    *mo_run_handle(r, n) = NULL;
}

/* What gemm_batched has no place for. */
static void finish(struct mo_run *r, const struct matmul *p, const struct plan *s, const float *bias, struct mo_matrix c)
{
    void *y = (void *)(uintptr_t)c.data;
    if (bias) {     /* lowering leaves such a result float32 */
        const int64_t dims[2] = {s->n_y * s->m, s->n}, of_y[2] = {s->n, 1}, of_bias[2] = {0, 1};
        r->be->binary(r->dev, MO_ADD, MO_F32, 2, dims, of_y, of_bias, y, bias, y);
    }
    mo_fused_apply(r, &p->fused, c.dtype, (size_t)(s->n_y * s->m * s->n), y);
}

static struct mo_matrix input(const struct mo_run *r, const struct mo_node *n, uint32_t i, int64_t ld)
{
    return (struct mo_matrix){mo_run_in(r, n, i), mo_run_in_type(r, n, i), ld};
}

/* gemm_batched in the node's precision. at: which of the products, of a, b and c. */
static void multiply(struct mo_run *r, const struct matmul *p, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                     struct mo_matrix a, const int64_t *at_a, struct mo_matrix b, const int64_t *at_b, float beta,
                     struct mo_matrix c, const int64_t *at_c, int64_t n_batch)
{
    void *to = (void *)(uintptr_t)c.data;
    if (p->fused.product == MO_PRODUCT_F32)
        r->be->gemm_batched(r->dev, ta, tb, m, n, k, 1.0f, a.data, a.ld, at_a, b.data, b.ld, at_b, beta, to, c.ld, at_c,
                            n_batch);
    else
        r->be->gemm_batched_bf16(r->dev, ta, tb, m, n, k, 1.0f, (int)a.dtype, a.data, a.ld, at_a, (int)b.dtype, b.data,
                                 b.ld, at_b, beta, (int)c.dtype, to, c.ld, at_c, n_batch);
}

static void forward_typed(struct mo_run *r, const struct mo_node *n, const struct plan *s)
{
    const struct mo_value *y = mo_out(r->graph, n, 0);
    if (!s->all.n)
        mo_zero(r, mo_elem_bytes(y->dtype), mo_value_elems(y), mo_run_out(r, n, 0));
    else
        r->be->matmul_typed(r->dev, (int)y->dtype, s->m, s->n, s->k, mo_run_in(r, n, 0), s->all.at[0], mo_run_in(r, n, 1),
                            s->all.at[1], mo_run_out(r, n, 0), s->all.at[2], s->all.n);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct matmul *p = n->params;
    const struct plan *s = *mo_run_handle(r, n);
    const float *bias = mo_run_in(r, n, 2);
    struct mo_matrix a = input(r, n, 0, s->k), b = input(r, n, 1, s->n);
    struct mo_matrix y = {mo_run_out(r, n, 0), mo_run_out_type(r, n, 0), s->n};
    if (is_typed(r, n)) {
        forward_typed(r, n, s);
        return MOPT_OK;
    }
    if (s->packed) {
        mo_packed_forward(r, n, s->packed);
        return MOPT_OK;
    }
    if (s->is_flat) {
        struct mo_epilogue e = {bias, p->fused.act, p->fused.lo, p->fused.hi};
        mo_fused_gemm(r, &p->fused, false, false, s->n_y * s->m, s->n, s->k, 1.0f, a, b, 0.0f, y, &e);
        return MOPT_OK;
    }
    if (!s->all.n)
        mo_run_zero_of(r, y.dtype, mo_run_out_elems(r, n, 0), mo_run_out(r, n, 0));
    else
        multiply(r, p, false, false, s->m, s->n, s->k, a, s->all.at[0], b, s->all.at[1], 0.0f, y, s->all.at[2], s->all.n);
    finish(r, p, s, bias, y);
    return MOPT_OK;
}

/* dA = dY B^T */
static void grad_a(struct mo_run *r, const struct mo_node *n, const struct plan *s, const float *dy, float *da)
{
    const struct matmul *how = n->params;
    struct mo_matrix b = input(r, n, 1, s->n), of_y = {dy, mo_run_out_type(r, n, 0), s->n};
    struct mo_matrix of_a = {da, mo_run_in_type(r, n, 0), s->k};
    float beta = mo_run_adds(r, n, 0) ? 1.0f : 0.0f;
    if (s->is_flat) {
        mo_fused_gemm(r, &how->fused, false, true, s->n_y * s->m, s->k, s->n, 1.0f, of_y, b, beta, of_a, NULL);
        return;
    }
    const struct products *p = &s->rounds_a;
    if (!p->n && beta == 0.0f)
        mo_run_zero_of(r, of_a.dtype, mo_run_in_elems(r, n, 0), da);
    for (int64_t at = 0; at < p->n; at += s->n_a, beta = 1.0f)
        multiply(r, how, false, true, s->m, s->k, s->n, of_y, p->at[2] + at, b, p->at[1] + at, beta, of_a, p->at[0] + at,
                 s->n_a);
}

/* dB = A^T dY */
static void grad_b(struct mo_run *r, const struct mo_node *n, const struct plan *s, const float *dy, float *db)
{
    const struct matmul *how = n->params;
    struct mo_matrix a = input(r, n, 0, s->k), of_y = {dy, mo_run_out_type(r, n, 0), s->n};
    struct mo_matrix of_b = {db, mo_run_in_type(r, n, 1), s->n};
    float beta = mo_run_adds(r, n, 1) ? 1.0f : 0.0f;
    if (s->is_flat) {
        mo_fused_gemm(r, &how->fused, true, false, s->k, s->n, s->n_y * s->m, 1.0f, a, of_y, beta, of_b, NULL);
        return;
    }
    const struct products *p = &s->rounds_b;
    if (!p->n && beta == 0.0f)
        mo_run_zero_of(r, of_b.dtype, mo_run_in_elems(r, n, 1), db);
    for (int64_t at = 0; at < p->n; at += s->n_b, beta = 1.0f)
        multiply(r, how, true, false, s->k, s->n, s->m, a, p->at[0] + at, of_y, p->at[2] + at, beta, of_b, p->at[1] + at,
                 s->n_b);
}

static void grad_bias(struct mo_run *r, const struct mo_node *n, const struct plan *s, const float *dy, float *dbias)
{
    const int64_t dims[2] = {s->n_y * s->m, s->n};
    const bool is_reduced[2] = {true, false};
    bool adds = mo_run_adds(r, n, 2);
    float *sum = adds ? mo_run_scratch(r, n) : dbias;
    if (mo_dtype_is_half(mo_run_out_type(r, n, 0))) {      /* as many times the mean as there are rows */
        float *mean = mo_run_scratch(r, n);
        r->be->batchnorm_stats_bf16(r->dev, dims[0], dims[1], (const uint16_t *)dy, mean, mean + s->n);
        r->be->axpy(r->dev, (size_t)s->n, (float)dims[0], mean, dbias, adds);
        return;
    }
    r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 2, dims, is_reduced, dy, sum);
    if (adds)
        r->be->axpy(r->dev, (size_t)s->n, 1.0f, sum, dbias, true);
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 2 * mo_run_in_elems(r, n, 2) * sizeof(float) : 0;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct matmul *p = n->params;
    const struct plan *s = *mo_run_handle(r, n);
    float *dy = mo_run_grad_out(r, n, 0);
    float *da = mo_run_grad_in(r, n, 0), *db = mo_run_grad_in(r, n, 1), *dbias = mo_run_grad_in(r, n, 2);
    mo_fused_grad(r, &p->fused, mo_run_out_type(r, n, 0), mo_run_out_elems(r, n, 0), mo_run_out(r, n, 0), dy);
    if (dbias)
        grad_bias(r, n, s, dy, dbias);
    if (db)
        grad_b(r, n, s, dy, db);
    if (da)
        grad_a(r, n, s, dy, da);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *a = &mo_in(g, n, 0)->shape;
    if (a->rank < 1)
        return MO_UNKNOWN;
    return mo_product((int64_t[]){mo_value_elems(mo_out(g, n, 0)), a->dim[a->rank - 1]}, 2);
}

/* Batch axes of x that are not repeated are those of Y, aligned to the right. */
static void couple_batch(struct mo_couple *c, const struct mo_graph *g, mo_value_id x, mo_value_id y, int y_batch)
{
    const struct mo_shape *from = &g->values[x].shape, *to = &g->values[y].shape;
    int x_batch = from->rank - 2;
    for (int i = 0; i < x_batch; i++)
        if (from->dim[i] == to->dim[y_batch - x_batch + i])
            mo_couple_same(c, x, i, y, y_batch - x_batch + i);
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_value_id a = n->in[0], b = n->in[1], y = n->out[0];
    int rank_a = g->values[a].shape.rank, rank_b = g->values[b].shape.rank, rank_y = g->values[y].shape.rank;
    mo_couple_same(c, a, rank_a - 1, b, rank_b > 1 ? rank_b - 2 : 0);
    if (rank_b > 1)
        mo_couple_same(c, b, rank_b - 1, y, rank_y - 1);
    if (rank_a > 1)
        mo_couple_same(c, a, rank_a - 2, y, rank_y - (rank_b > 1 ? 2 : 1));
    int y_batch = rank_y - (rank_a > 1) - (rank_b > 1);
    couple_batch(c, g, a, y, y_batch);
    couple_batch(c, g, b, y, y_batch);
    if (g->values[b].data && rank_b == 2) {
        mo_couple_weight(c, mo_node_id_of(g, n), b, 1, MO_ROLE_OUT);
        mo_couple_weight(c, mo_node_id_of(g, n), b, 0, MO_ROLE_IN);
    }
}

const struct mo_op mo_op_matmul = {
    .type = "MatMul",
    .since_opset = 1,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct matmul),
    .infer = infer,
    .prepare = prepare,
    .unprepare = unprepare,
    .forward = forward,
    .backward = backward,
    .macs = macs,
    .couple = couple,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 0 | 1u << 1,
    .bf16_in = 1u << 0 | 1u << 1,
    .params_in = 1u << 0 | 1u << 1,
    .quant = {.kind = MO_QUANT_WEIGHTED},
};
