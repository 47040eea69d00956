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

/* Sums of gradients, which go on beside other work. bf16: on the wire. x: host memory. */
MOPT_MUST_CHECK enum mopt_status mo_ranks_start(struct mopt_ctx *ctx, float *x, size_t n, bool bf16, uint64_t *ticket);
void mo_ranks_poll(struct mopt_ctx *ctx);
MOPT_MUST_CHECK enum mopt_status mo_ranks_wait(struct mopt_ctx *ctx, uint64_t ticket);
/* What they have cost: ctx->ranks_use. */

#endif
