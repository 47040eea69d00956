/* ranks.h - this process and the others that a launcher started with it.
 *
 * Without a launcher every call is free of cost and true of one rank. All ranks make the same calls in the same order. A
 * rank that fails does not come to the next call; the others then fail too, in words that say so. */
#ifndef MO_RANKS_H
#define MO_RANKS_H

#include "lib/base/base.h"

/* x[i] = the sum over all ranks, over the tree of kernels/comm/comm.h. */
MOPT_MUST_CHECK enum mopt_status mo_ranks_sum(struct mopt_ctx *ctx, double *x, size_t n);
MOPT_MUST_CHECK enum mopt_status mo_ranks_count(struct mopt_ctx *ctx, uint64_t *x, size_t n);
/* all: n_ranks times n_bytes, by rank. */
MOPT_MUST_CHECK enum mopt_status mo_ranks_gather(struct mopt_ctx *ctx, const void *mine, size_t n_bytes, void *all);
/* Fails where not all ranks have the same bytes; what: "weights after epoch 3". */
MOPT_MUST_CHECK enum mopt_status mo_ranks_agree(struct mopt_ctx *ctx, const void *bytes, size_t n_bytes, const char *what);

/* Sums that go on beside other work, as long as somebody polls; a ticket of 0 is done. x is host memory, not to be
 * touched before its wait. bf16: on the wire. */
MOPT_MUST_CHECK enum mopt_status mo_ranks_start(struct mopt_ctx *ctx, float *x, size_t n, bool bf16, uint64_t *ticket);
MOPT_MUST_CHECK enum mopt_status mo_ranks_start_sums(struct mopt_ctx *ctx, double *x, size_t n, uint64_t *ticket);
uint64_t mo_ranks_poll(struct mopt_ctx *ctx);           /* the last ticket up to which all are done */
MOPT_MUST_CHECK enum mopt_status mo_ranks_wait(struct mopt_ctx *ctx, uint64_t ticket);

/* The same where x lies on a GPU (mem: any of its memory), each rank having one of its own. *wire NULL: it cannot be had,
 * why is logged, and gradients go through the host. */
struct mo_ranks_wire;
MOPT_MUST_CHECK enum mopt_status mo_ranks_wire_open(struct mopt_ctx *ctx, const void *mem, struct mo_ranks_wire **wire);
void mo_ranks_wire_close(struct mo_ranks_wire *wire);
MOPT_MUST_CHECK enum mopt_status mo_ranks_wire_start(struct mo_ranks_wire *wire, float *x, size_t n, uint64_t *ticket);
uint64_t mo_ranks_wire_poll(struct mo_ranks_wire *wire);
MOPT_MUST_CHECK enum mopt_status mo_ranks_wire_wait(struct mo_ranks_wire *wire, uint64_t ticket);

#endif
