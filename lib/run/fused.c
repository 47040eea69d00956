/* fused.c - activations that lowering drew into the node before them. */
#include "lib/run/fused.h"

#include "lib/graph/op.h"
#include "lib/run/run.h"

struct mo_fused mo_fused_read(const struct mo_node *n)
{
    int64_t act = mo_node_int(n, MO_FUSED_ACT, MO_ACT_NONE);
    return (struct mo_fused){
        .act = act >= 0 && act <= MO_ACT_HARD_SWISH ? (enum mo_act)act : MO_ACT_NONE,
        .lo = mo_node_float(n, MO_FUSED_LO, 0.0f),
        .hi = mo_node_float(n, MO_FUSED_HI, 0.0f),
        .has_residual = mo_node_int(n, MO_FUSED_RESIDUAL, 0) == 1,
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

void mo_fused_apply(struct mo_run *r, const struct mo_fused *f, size_t n_elems, float *y)
{
    if (f->act != MO_ACT_NONE)
        r->be->unary(r->dev, function_of(f->act), f->lo, f->hi, n_elems, y, y);
}

void mo_fused_grad(struct mo_run *r, const struct mo_fused *f, size_t n_elems, const float *y, float *dy)
{
    if (f->act != MO_ACT_NONE && mo_fused_trains(f->act))
        r->be->unary_grad(r->dev, function_of(f->act), f->lo, f->hi, n_elems, y, y, dy, dy, false);
}
