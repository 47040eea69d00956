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

struct mo_run;

struct mo_fused {
    enum mo_act act;
    float lo, hi;
    bool has_residual;
};
/* A value that is no enum mo_act counts as none. */
struct mo_fused mo_fused_read(const struct mo_node *n);
/* The activation on its own, in place. */
void mo_fused_apply(struct mo_run *r, const struct mo_fused *f, size_t n_elems, float *y);
/* Before backward proper: dy becomes the gradient in front of the activation, in place, from y. Only for
 * activations whose derivative the result tells: those for which mo_fused_trains is true. */
void mo_fused_grad(struct mo_run *r, const struct mo_fused *f, size_t n_elems, const float *y, float *dy);
bool mo_fused_trains(enum mo_act act);
/* op->backward_reads, and output 0 when there is an activation behind it. */
unsigned mo_backward_reads(const struct mo_node *n);

#endif
