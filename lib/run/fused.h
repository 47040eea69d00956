/* fused.h - what lowering may hang on a node so that one kernel does the work of
 * several. Attributes with these names are never in a file that mopt writes:
 *
 *   Conv, Gemm             an activation behind the result; for Conv also input 3, added before it
 *   MatMul                 an activation, and input 2, a bias for the last axis, added before it
 *   BatchNormalization     Relu behind the result, and input 5, added before it */
#ifndef MO_FUSED_H
#define MO_FUSED_H

#include "kernels/backend.h"
#include "lib/graph/graph.h"

#define MO_FUSED_ACT "mopt.act"             /* int: enum mo_act */
#define MO_FUSED_LO "mopt.act_lo"           /* float: limits of MO_ACT_CLIP */
#define MO_FUSED_HI "mopt.act_hi"
#define MO_FUSED_RESIDUAL "mopt.residual"   /* int 1: the additional input is there */

#define MO_FUSED_BF16 "mopt.bf16"           /* int: enum mo_fused_bf16; of Gemm and MatMul */

struct mo_run;

/* A matrix product in float32; of operands rounded to bfloat16, with a float32 result or one of bfloat16; the same of
 * float16. */
enum mo_fused_bf16 {
    MO_PRODUCT_F32, MO_PRODUCT_BF16, MO_PRODUCT_BF16_TO_BF16, MO_PRODUCT_F16, MO_PRODUCT_F16_TO_F16
};

struct mo_fused {
    enum mo_act act;
    float lo, hi;
    bool has_residual;
    enum mo_fused_bf16 product;
};
/* A value that is no enum mo_act counts as none. */
struct mo_fused mo_fused_read(const struct mo_node *n);
/* The activation on its own, in place; dtype float32 or bfloat16. */
void mo_fused_apply(struct mo_run *r, const struct mo_fused *f, enum mo_dtype dtype, size_t n_elems, void *y);
/* Before backward proper: dy becomes the gradient in front of the activation, in place, from y. Only for
 * activations whose derivative the result tells: those for which mo_fused_trains is true. */
void mo_fused_grad(struct mo_run *r, const struct mo_fused *f, enum mo_dtype dtype, size_t n_elems, const void *y, void *dy);
bool mo_fused_trains(enum mo_act act);
/* The type of the product's result; `otherwise` where nothing is said. */
enum mo_dtype mo_fused_type(const struct mo_fused *f, enum mo_dtype otherwise);
/* A matrix and its type: float32, or bfloat16 where the product is computed in that. */
struct mo_matrix { const void *data; enum mo_dtype dtype; int64_t ld; };
/* The kernel gemm of the node's precision; c is written. */
void mo_fused_gemm(struct mo_run *r, const struct mo_fused *f, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                   float alpha, struct mo_matrix a, struct mo_matrix b, float beta, struct mo_matrix c,
                   const struct mo_epilogue *e);
/* op->backward_reads, and output 0 when there is an activation behind it. */
unsigned mo_backward_reads(const struct mo_node *n);

#endif
