/* infer.h - shapes of every value, and constants where they can be known. */
#ifndef MO_INFER_H
#define MO_INFER_H

#include "lib/graph/graph.h"

/* What stands for a free dimension of an input, other than the batch, where shapes are needed to count or to find
 * channels: large enough for the strides of images, and a multiple of 32. */
enum { MO_FREE_DIM = 224 };

struct mo_binding { mo_value_id input; struct mo_shape shape; };

/* Bind graph inputs to shapes (NULL, 0: as the file says, free dimensions unknown), then
 * walk the nodes and call op->infer. Small integer values (shape arithmetic) are carried in
 * value.known. Unknown operators leave their outputs unknown. Never touches value.data.
 * A contradiction (A has 8 columns, B has 9 rows) fails with the node named. */
MOPT_MUST_CHECK enum mopt_status mo_infer(struct mopt_ctx *ctx, struct mo_graph *g,
                                          const struct mo_binding *bindings, uint32_t n_bindings);
/* The same for one node, whose inputs are inferred. */
MOPT_MUST_CHECK enum mopt_status mo_infer_node(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n);
/* mo_infer with every free input dimension set to 1 when its name or place says batch (dim 0), else to
 * `free_dim`; restores nothing: call on a copy, or mo_infer again afterwards. For counts and coupling. */
MOPT_MUST_CHECK enum mopt_status mo_infer_sample(struct mopt_ctx *ctx, struct mo_graph *g, int64_t free_dim);

/* ---- for operators' infer functions ---- */

/* Set output i. */
void mo_set_out(struct mo_graph *g, const struct mo_node *n, uint32_t i, enum mo_dtype dtype, const struct mo_shape *shape);
/* Space in the graph's arena for `known` of output i, filled with MO_VALUE_UNKNOWN; NULL when the
 * output is not a small (<= 64 elements) integer tensor of known shape. */
int64_t *mo_known_out(struct mo_graph *g, const struct mo_node *n, uint32_t i);
/* known or constant integers of input i without copying rules of mo_value_ints: entry k, or MO_VALUE_UNKNOWN. */
int64_t mo_known_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i, int64_t k);
/* The shape of input 1 of a broadcasting operator as it is aligned with input 0. Before opset 7 its axes may begin at
 * attribute `axis` of input 0's (PRelu: a list of slopes at axis 1): it is then given trailing axes of 1. */
struct mo_shape mo_operand_shape(const struct mo_graph *g, const struct mo_node *n);
/* axis in [-rank, rank) to [0, rank); fails naming the axis. */
MOPT_MUST_CHECK enum mopt_status mo_axis(struct mopt_ctx *ctx, int64_t axis, int rank, int *out);
/* The axes of a reduce-like node: attribute `axes` (old opsets) or input `input_index` (new); n -1: not given. */
MOPT_MUST_CHECK enum mopt_status mo_axes(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                         uint32_t input_index, int rank, int *axes, int *n_axes);

#endif
