/* couple.h - which elements of which axes are the same channel.
 *
 * Every index along every axis of every value is an element. An operator's
 * `couple` states equations between elements of its operands; a union-find turns
 * them into classes. A class is what can be removed together: row i of W1, bias i,
 * BatchNorm i, columns i*H*W.. of the Gemm behind the Flatten. The pruner ranks
 * and cuts whole classes and knows no operator (the idea of DepGraph, Fang et al.
 * CVPR 2023, as equations). A wall makes the classes it touches uncuttable and
 * carries the reason. Shapes must be known (mo_infer_sample).
 *
 * An axis of an operand that `couple` does not mention is a wall: the operator
 * is taken to use that axis as a whole (a kernel's width, what Softmax sums
 * over). So `couple` states what it knows and forgetting is safe. Axes of one
 * element need no mention. */
#ifndef MO_COUPLE_H
#define MO_COUPLE_H

#include "lib/graph/graph.h"

struct mo_couple;       /* the solver's state; operators only pass it on */

/* index i of (a, axis_a) is index i of (b, axis_b), for all i; sizes must be equal. */
void mo_couple_same(struct mo_couple *c, mo_value_id a, int axis_a, mo_value_id b, int axis_b);
/* index i of a is index offset + i of b, for the n first i of a (Concat, Split, Slice, Pad). */
void mo_couple_offset(struct mo_couple *c, mo_value_id a, int axis_a, int64_t offset_a,
                      mo_value_id b, int axis_b, int64_t offset_b, int64_t n);
/* index i of a is the indices i*inner .. i*inner+inner-1 of b (Flatten, Reshape that merges or splits axes). */
void mo_couple_spread(struct mo_couple *c, mo_value_id a, int axis_a, mo_value_id b, int axis_b, int64_t inner);
/* indices i, i+block, i+2*block, ... of (a, axis) belong together (grouped convolution keeps equal groups). */
void mo_couple_fold(struct mo_couple *c, mo_value_id a, int axis, int64_t block);
/* one index of one axis with one of another: the general form. */
void mo_couple_index(struct mo_couple *c, mo_value_id a, int axis_a, int64_t i, mo_value_id b, int axis_b, int64_t j);
/* a and b hold the same elements in the same order under two shapes (Reshape, Flatten, Squeeze, Unsqueeze): finds
 * which axes are equal, merged or split. Where several axes merge into one, the one that carries channels keeps
 * its freedom and the others are walls. Its refit can be mo_refit_reshape. */
void mo_couple_reshape(struct mo_couple *c, mo_value_id a, mo_value_id b);
/* Any element of that axis may go, nothing follows from it for the other operands (Shape). axis -1: all axes. */
void mo_couple_free(struct mo_couple *c, mo_value_id v, int axis);
/* No element of that axis may be cut; reason is a constant text: "graph output", "softmax axis". axis -1: all axes. */
void mo_couple_wall(struct mo_couple *c, mo_value_id v, int axis, const char *reason);
/* This axis of a constant holds the output channels (the ones that make the channel) or the input
 * channels (the ones that read it) of a weighted operator: how scores are summed. */
enum mo_couple_role { MO_ROLE_OUT, MO_ROLE_IN, MO_ROLE_PER_CHANNEL };
void mo_couple_weight(struct mo_couple *c, mo_node_id n, mo_value_id w, int axis, enum mo_couple_role role);

/* Elementwise with broadcasting between inputs and output 0: ready-made for operators. */
void mo_couple_elementwise(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n);

/* A ready-made op->refit: writes the new sizes of output 0 into a constant shape at input 1 (entries 0 and -1 stay);
 * a node without that input needs nothing. Shared constants get a copy of their own. */
enum mopt_status mo_refit_reshape(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n,
                                  const struct mo_shape *was);

#endif
