/* sequence.h - lists of tensors while running: values of type MO_SEQUENCE, and MO_OPTIONAL, which holds one thing or none.
 *
 * Such a value is one block of bytes and its shape how many: how many items there are, then the type, shape and size of
 * each, then their elements. So whatever moves tensors from here to there - loops, branches, inputs - moves lists as well.
 * What an optional holds may be a sequence in turn. */
#ifndef MO_OPS_SEQUENCE_H
#define MO_OPS_SEQUENCE_H

#include "lib/ops/host.h"

struct mo_item {
    enum mo_dtype dtype;
    struct mo_shape shape;
    const void *data;           /* host memory */
};

/* Bytes of a block of these items; SIZE_MAX: more than there can be. */
size_t mo_sequence_bytes(const struct mo_item *items, int64_t n);
/* Into host memory of that size, 8-byte aligned. */
void mo_sequence_write(const struct mo_item *items, int64_t n, void *to);
/* How many items such a block holds; fails where it is none. */
MOPT_MUST_CHECK enum mopt_status mo_sequence_check(struct mopt_ctx *ctx, const void *block, size_t bytes, int64_t *n);
/* Item i of a block that has been checked; its data lies in the block. */
struct mo_item mo_sequence_item(const void *block, int64_t i);

/* Output k of n has that type of list, and `element` in it; MO_UNDEFINED: not known. */
void mo_set_out_list(struct mo_graph *g, const struct mo_node *n, uint32_t k, enum mo_dtype list, enum mo_dtype element);
/* Output k of the operator becomes a list of these items. */
MOPT_MUST_CHECK enum mopt_status mo_sequence_put(struct mo_host *h, uint32_t k, enum mo_dtype list,
                                                 const struct mo_item *items, int64_t n);
/* Output k becomes this item, which is a tensor or a sequence. */
MOPT_MUST_CHECK enum mopt_status mo_sequence_hand_out(struct mo_host *h, uint32_t k, const struct mo_item *item);
/* The items of input i in new memory (mo_mem_free), which refers to the input's. */
MOPT_MUST_CHECK enum mopt_status mo_sequence_take(struct mo_host *h, uint32_t i, struct mo_item **items, int64_t *n);

#endif
