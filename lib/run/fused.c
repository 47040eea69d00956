/* fused.c - activations that lowering drew into the node before them. */
#include "lib/run/fused.h"

#include "lib/graph/op.h"
#include "lib/run/run.h"

struct mo_fused mo_fused_read(const struct mo_node *n)
{
    int64_t act = mo_node_int(n, MO_FUSED_ACT, MO_ACT_NONE), product = mo_node_int(n, MO_FUSED_BF16, MO_PRODUCT_F32);
    return (struct mo_fused){
        .act = act >= 0 && act <= MO_ACT_HARD_SWISH ? (enum mo_act)act : MO_ACT_NONE,
        .lo = mo_node_float(n, MO_FUSED_LO, 0.0f),
        .hi = mo_node_float(n, MO_FUSED_HI, 0.0f),
        .has_residual = mo_node_int(n, MO_FUSED_RESIDUAL, 0) == 1,
        .product = product >= MO_PRODUCT_BF16 && product <= MO_PRODUCT_F16_TO_F16 ? (enum mo_fused_bf16)product
                                                                                  : MO_PRODUCT_F32,
    };
}

bool mo_fused_trains(enum mo_act act)
{
    return act != MO_ACT_HARD_SWISH;
}

unsigned mo_backward_reads(const struct mo_node *n)
{
    return n->op->backward_reads | (mo_fused_read(n).act != MO_ACT_NONE ? 1u << 16 : 0);
}

static enum mo_unary function_of(enum mo_act act)
{
    switch (act) {
    case MO_ACT_CLIP: return MO_CLIP;
    case MO_ACT_SIGMOID: return MO_SIGMOID;
    case MO_ACT_TANH: return MO_TANH;
    case MO_ACT_HARD_SWISH: return MO_HARD_SWISH;
    default: return MO_RELU;
    }
}

void mo_fused_apply(struct mo_run *r, const struct mo_fused *f, enum mo_dtype dtype, size_t n_elems, void *y)
{
    if (f->act == MO_ACT_NONE)
        return;
    if (mo_dtype_is_half(dtype))
        r->be->unary_bf16(r->dev, function_of(f->act), f->lo, f->hi, n_elems, y, y);
    else
        r->be->unary(r->dev, function_of(f->act), f->lo, f->hi, n_elems, y, y);
}

void mo_fused_grad(struct mo_run *r, const struct mo_fused *f, enum mo_dtype dtype, size_t n_elems, const void *y, void *dy)
{
    if (f->act == MO_ACT_NONE || !mo_fused_trains(f->act))
        return;
    if (mo_dtype_is_half(dtype))
        r->be->unary_grad_bf16(r->dev, function_of(f->act), f->lo, f->hi, n_elems, y, y, dy, dy, false);
    else
        r->be->unary_grad(r->dev, function_of(f->act), f->lo, f->hi, n_elems, y, y, dy, dy, false);
}

enum mo_dtype mo_fused_type(const struct mo_fused *f, enum mo_dtype otherwise)
{
    switch (f->product) {
    case MO_PRODUCT_BF16: case MO_PRODUCT_F16: return MO_F32;
    case MO_PRODUCT_BF16_TO_BF16: return MO_BF16;
    case MO_PRODUCT_F16_TO_F16: return MO_F16;
    default: return otherwise;
    }
}

void mo_fused_gemm(struct mo_run *r, const struct mo_fused *f, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                   float alpha, struct mo_matrix a, struct mo_matrix b, float beta, struct mo_matrix c,
                   const struct mo_epilogue *e)
{
    void *to = (void *)(uintptr_t)c.data;
    if (f->product == MO_PRODUCT_F32)
        r->be->gemm(r->dev, ta, tb, m, n, k, alpha, a.data, a.ld, b.data, b.ld, beta, to, c.ld, e);
    else
        r->be->gemm_bf16(r->dev, ta, tb, m, n, k, alpha, (int)a.dtype, a.data, a.ld, (int)b.dtype, b.data, b.ld, beta,
                         (int)c.dtype, to, c.ld, e);
}
