/* spill.h - memory for large constants that a pass makes: pages of a file without a name, which the system writes out and
 * takes back when memory is short. So a job over a model that is larger than memory needs no memory for its result. */
#ifndef MO_SPILL_H
#define MO_SPILL_H

#include "lib/base/base.h"

enum { MO_SPILL_HEAD_BYTES = 4096, MO_SPILL_LEAST_BYTES = 4 << 20 };

/* n_bytes of zeros for mo_mem_free: in such a file where they are many and ctx->io can, else on the heap. NULL: none. */
void *mo_constant_new(struct mopt_ctx *ctx, size_t n_bytes);
/* A shared mapping of a file as memory for mo_mem_free: what is behind its first MO_SPILL_HEAD_BYTES. */
void *mo_mem_adopt(void *mapping, size_t mapping_bytes);
/* The pages of such memory are not needed soon: they leave the process, not the file. Other memory is left alone. */
void mo_mem_forget(void *mem);

#endif
