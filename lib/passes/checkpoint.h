/* checkpoint.h - a file of named parts: what a training run needs to go on after a kill.
 *
 *     0  "mopt-ck1"           8 bytes
 *     8  version              u32, 1
 *    12  byte order           u32, 0x01020304 as the writing machine stores it
 *    16  n_bytes of the file  u64
 *    24  hash                 u64, mo_hash64 of everything from byte 32 on, seed 0
 *    32  n_parts              u64
 *    40  table                n_parts times { name, 24 bytes with a 0 at the end; offset u64; n_bytes u64 }
 *        parts                each at a multiple of 64
 *
 * A file is never trusted: size, hash, table and names are checked here, the meaning of each part by who reads it. */
#ifndef MO_CHECKPOINT_H
#define MO_CHECKPOINT_H

#include "lib/base/base.h"

struct mo_part_bytes { const char *name; const void *bytes; uint64_t n_bytes; };

/* Whole or not at all: an older file of that name stays until the new one is complete. */
MOPT_MUST_CHECK enum mopt_status mo_checkpoint_write(struct mopt_ctx *ctx, const char *path,
                                                     const struct mo_part_bytes *parts, size_t n_parts);

struct mo_checkpoint;
MOPT_MUST_CHECK enum mopt_status mo_checkpoint_read(struct mopt_ctx *ctx, const char *path,
                                                    struct mo_checkpoint **checkpoint);
void mo_checkpoint_free(struct mo_checkpoint *checkpoint);
/* The bytes of a part, 64-byte aligned, until mo_checkpoint_free; NULL: there is none of that name. */
const void *mo_checkpoint_part(const struct mo_checkpoint *checkpoint, const char *name, uint64_t *n_bytes);
/* The same where it must be there with that size. */
MOPT_MUST_CHECK enum mopt_status mo_checkpoint_need(struct mopt_ctx *ctx, const struct mo_checkpoint *checkpoint,
                                                    const char *name, uint64_t n_bytes, const void **bytes);

#endif
