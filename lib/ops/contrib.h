/* contrib.h - what the operators of com.microsoft share, most of which are formulas of
 * ONNX's own operators: ONNX Runtime writes them when it optimizes or quantizes a model. */
#ifndef MO_OPS_CONTRIB_H
#define MO_OPS_CONTRIB_H

#include "lib/graph/expand.h"
#include "lib/ops/tensor.h"

#define MO_CONTRIB "com.microsoft"

/* Outputs of n as operator `type` of the default domain gives them for these inputs and n's attributes. */
MOPT_MUST_CHECK enum mopt_status mo_infer_with(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_node *n,
                                               const char *type, const mo_value_id *in, uint32_t n_in);
/* Input i of the operator that is expanded; MO_NONE: left out. */
mo_value_id mo_contrib_in(const struct mo_expand *e, uint32_t i);
/* A node of any domain and any number of inputs and outputs. */
void mo_contrib_node(struct mo_expand *e, const char *type, const char *domain, const mo_value_id *in, uint32_t n_in,
                     const mo_value_id *out, uint32_t n_out);
/* A new value for such a node. */
mo_value_id mo_contrib_value(struct mo_expand *e);
/* The attributes of the operator go to the node made last, but for those whose names begin with `except`. */
void mo_contrib_copy_attrs(struct mo_expand *e, const char *except);
void mo_contrib_float(struct mo_expand *e, const char *name, float value);
/* x in whole numbers to float by scale and zero (MO_NONE: 0) along `axis`, and the way back into `out`, of that type. */
mo_value_id mo_contrib_dequantize(struct mo_expand *e, mo_value_id x, mo_value_id scale, mo_value_id zero, int64_t axis);
void mo_contrib_quantize(struct mo_expand *e, mo_value_id x, mo_value_id scale, mo_value_id zero, mo_value_id out);

#endif
