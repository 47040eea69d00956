/* tensor.h - what the operators on tensors share: strides, sums over broadcast
 * axes, known integers, attributes that became inputs. */
#ifndef MO_OPS_TENSOR_H
#define MO_OPS_TENSOR_H

#include "lib/ops/ops.h"
#include "lib/run/run.h"

/* ---- strides, in elements ---- */

void mo_dense_strides(const struct mo_shape *shape, int64_t *stride);
/* Of a dense operand of shape `from` walked by the axes of `to`: 0 where it repeats. */
void mo_broadcast_strides(const struct mo_shape *from, const struct mo_shape *to, int64_t *stride);
/* Product of dims [begin, end). */
int64_t mo_dims_product(const struct mo_shape *shape, int begin, int end);
/* Bytes of one element; 0 for lists and types of less than a byte. */
size_t mo_elem_bytes(enum mo_dtype dtype);

/* ---- for infer ---- */

/* Fails for types of less than a byte, which lie packed. */
MOPT_MUST_CHECK enum mopt_status mo_check_movable(struct mopt_ctx *ctx, enum mo_dtype dtype);
/* Inputs a and b must have one type; unknown ones fit. */
MOPT_MUST_CHECK enum mopt_status mo_check_same_dtype(struct mopt_ctx *ctx, const struct mo_value *a,
                                                     const struct mo_value *b);
/* Output i has that type, and not even its rank is known. */
void mo_set_out_unknown(struct mo_graph *g, const struct mo_node *n, uint32_t i, enum mo_dtype dtype);
/* Integers of input i (max of them): the count; -1 when it is left out, -2 when they are not known yet. */
int mo_ints_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i, int64_t *out, int max);
/* The same for what was an attribute in old opsets and is an input in new ones. Fails when there are too many. */
MOPT_MUST_CHECK enum mopt_status mo_ints_given(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                               const char *attr, uint32_t i, int64_t *out, int max, int *count);
/* Axes by attribute or input, made positive and checked for being there twice; count as mo_ints_in. */
MOPT_MUST_CHECK enum mopt_status mo_axes_given(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                               uint32_t i, int rank, int *axes, int *count);
/* Known integers of output 0 are those of input 0, in order. */
void mo_known_copy(struct mo_graph *g, const struct mo_node *n);

/* ---- for forward and backward ---- */

/* to (+)= from summed over the axes along which `to_shape` was repeated. */
void mo_sum_to(struct mo_run *r, const struct mo_shape *from_shape, const float *from, const struct mo_shape *to_shape,
               float *to, bool add);
/* A dense copy. */
void mo_copy(struct mo_run *r, size_t elem_bytes, int64_t n_elems, const void *x, void *y);
void mo_zero(struct mo_run *r, size_t elem_bytes, int64_t n_elems, void *y);
/* x holds n numbers of an integer type: as int64 at `to`. */
void mo_widen_index(struct mo_run *r, const struct mo_value *v, const void *x, int64_t *to);
/* Scratch for parts that follow each other: bytes rounded up to whole cache lines. */
size_t mo_part_bytes(size_t bytes);

/* ---- couple ---- */

/* Axes of a and b that are equal in number and place, but for `except` (-1: none), are the same. */
void mo_couple_axes(struct mo_couple *c, const struct mo_graph *g, mo_value_id a, mo_value_id b, int except);

/* ---- refit, permute ---- */

/* Input i becomes a new constant with these integers; false when out of memory. The inputs before i must be there. */
bool mo_set_ints_input(struct mo_graph *g, struct mo_node *n, uint32_t i, const int64_t *values, int64_t count);
/* The same where input i is a constant now; anything else is left alone. */
MOPT_MUST_CHECK enum mopt_status mo_replace_ints(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, uint32_t i,
                                                 const int64_t *values, int64_t count);
/* The place of old axis `axis` after a permutation. */
int mo_permuted_axis(const int *perm, int rank, int axis);

/* CumSum and CumProd: x, axis (input 1) -> like x. */
struct mo_cumulative {
    int axis;
    bool exclusive, reverse;
};
MOPT_MUST_CHECK enum mopt_status mo_infer_cumulative(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n);

#endif
