/* rewrite.h - small changes of a graph that keep what it computes. simplify is made of them, and quantize
 * prepares with some. Each looks at one node and changes the graph, or leaves it. Shapes must have been inferred. */
#ifndef MO_REWRITE_H
#define MO_REWRITE_H

#include "lib/graph/graph.h"

struct mo_rewrite {
    struct mopt_ctx *ctx;
    struct mo_graph *g;
    uint32_t n_changes;
};
typedef enum mopt_status mo_rewrite_fn(struct mo_rewrite *r, mo_node_id i);

/* rewrite_identity.c: nodes that give out what they read: Identity, Dropout outside of training, Cast to the same type,
 * Reshape to the same shape, + 0, * 1 ... */
mo_rewrite_fn mo_rewrite_identity;
/* rewrite_movers.c: Reshape, Squeeze, Unsqueeze, Flatten behind one another: one of them, or none. */
mo_rewrite_fn mo_rewrite_movers;
/* A Transpose whose axes of more than one element stay in order: a Reshape, that is. */
bool mo_moves_only_units(const struct mo_graph *g, const struct mo_node *n);
/* A Reduce or ArgMax and the Squeeze or Unsqueeze of its axes: keepdims says it. */
mo_rewrite_fn mo_rewrite_keepdims;
/* rewrite_state.c: first states of LSTM, GRU, RNN that are zero. */
mo_rewrite_fn mo_rewrite_zero_state;
/* rewrite_compose.c: LayerNormalization, RMSNormalization, Gelu, HardSigmoid, HardSwish written out in parts, where the opset has
 * them. */
mo_rewrite_fn mo_rewrite_compose;
/* rewrite_attention.c: attention written out in parts, from opset 23 on. It may add nodes behind the last. */
mo_rewrite_fn mo_rewrite_attention;
/* rewrite_shape.c: the target of a Reshape that is computed from shapes becomes a constant with 0 and -1. */
mo_rewrite_fn mo_rewrite_reshape;
/* rewrite_affine.c: Conv, ConvTranspose or Gemm, then BatchNormalization: into weight and bias. */
mo_rewrite_fn mo_rewrite_batchnorm;
/* The same for Mul, Div, Add, Sub with a constant a channel. */
mo_rewrite_fn mo_rewrite_arithmetic;
/* rewrite_pad.c: Pad before Conv, AveragePool, MaxPool: into their pads. */
mo_rewrite_fn mo_rewrite_pad;
/* rewrite_gemm.c: MatMul of matrices, then Add of a constant row: Gemm. */
mo_rewrite_fn mo_rewrite_make_gemm;
/* The same where what is added is computed. */
mo_rewrite_fn mo_rewrite_gemm_add;
/* alpha and beta of Gemm into its constants, a bias of one number or one row becomes a vector. */
mo_rewrite_fn mo_rewrite_tidy_gemm;
/* rewrite_transpose.c: Transpose behind Transpose, with what does not mind axes between them. */
mo_rewrite_fn mo_rewrite_transpose;
/* rewrite_equal.c, of the whole graph: constants with the same elements; nodes that compute the same. */
MOPT_MUST_CHECK enum mopt_status mo_rewrite_equal_constants(struct mo_rewrite *r);
MOPT_MUST_CHECK enum mopt_status mo_rewrite_equal_nodes(struct mo_rewrite *r);

/* ---- what they are made of (rewrite.c) -------------------------------------------------- */

/* Read once, no output of the graph, no constant. */
bool mo_is_private(const struct mo_graph *g, mo_value_id v);
/* The node whose first output is input k of n, which n alone reads; MO_NONE. */
mo_node_id mo_private_maker(const struct mo_graph *g, const struct mo_node *n, uint32_t k);
/* Whether outputs 1, 2 ... are read by nobody. */
bool mo_only_first_output(const struct mo_graph *g, const struct mo_node *n);
/* Node i, the only reader of the first output of `maker`, goes; maker makes its first output instead. */
void mo_rewrite_merge(struct mo_rewrite *r, mo_node_id maker, mo_node_id i);
/* Node i goes; its output is input k. False: left, since the value's name belongs to the graph's interface. */
bool mo_rewrite_bypass(struct mo_rewrite *r, mo_node_id i, uint32_t k);
/* The node becomes one of another type with these inputs and no attributes; name and outputs stay. */
MOPT_MUST_CHECK enum mopt_status mo_rewrite_become(struct mo_rewrite *r, mo_node_id i, const char *type,
                                                   const mo_value_id *in, uint32_t n_in);
/* Input k of node i, which may be one beyond the last. */
MOPT_MUST_CHECK enum mopt_status mo_rewrite_set_input(struct mo_rewrite *r, mo_node_id i, uint32_t k, mo_value_id v);

#endif
