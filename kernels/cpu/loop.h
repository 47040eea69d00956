/* loop.h - walking several strided operands at once.
 *
 * mo_loop_init drops axes of size 1 and merges neighbours that lie behind each
 * other in every operand, so that most calls end as one or two long rows. A row
 * is the last axis; rows are numbered in row-major order. */
#ifndef MO_LOOP_H
#define MO_LOOP_H

#include "kernels/backend.h"

#define MO_LOOP_MAX 4

struct mo_bytes16 { uint64_t part[2]; };        /* an element of 16 bytes, for moving */

struct mo_loop {
    int rank, n_operands;           /* rank >= 1 */
    int64_t dims[MO_K_MAX_RANK], stride[MO_LOOP_MAX][MO_K_MAX_RANK];
    int64_t n_rows, row;            /* row: elements of one */
};

/* strides[k]: rank strides of operand k, in elements. An empty walk has n_rows 0. */
void mo_loop_init(struct mo_loop *l, int rank, const int64_t *dims, int n_operands, const int64_t *const *strides);
/* Offsets of the operands at the start of row i; index gets the position on all axes but the last. */
void mo_loop_seek(const struct mo_loop *l, int64_t i, int64_t *index, int64_t *offset);
/* On to the next row. */
void mo_loop_next(const struct mo_loop *l, int64_t *index, int64_t *offset);

#endif
