/* blob.h - the bytes of a file, mapped; or inflated from gzip into memory. */
#ifndef MO_BLOB_H
#define MO_BLOB_H

#include "lib/base/base.h"

struct mo_blob {
    const uint8_t *bytes;
    size_t n_bytes;
    void *mapping;          /* the mapped file, or NULL */
    void *heap;             /* from mo_mem_new, or NULL */
};

/* A whole regular file. MOPT_DATA names the path and what is wrong. */
MOPT_MUST_CHECK enum mopt_status mo_blob_open(struct mopt_ctx *ctx, const char *path, struct mo_blob *blob);
void mo_blob_close(struct mo_blob *blob);

bool mo_blob_is_gzip(const struct mo_blob *blob);
/* Inflates at most max_bytes of a gzip file (all members) into out, which the caller has; what has been read of the file
 * leaves memory. *n_out: how many came. *is_more: the stream does not end there. False: the stream is broken. */
bool mo_gunzip(const struct mo_blob *blob, void *out, size_t max_bytes, size_t *n_out, bool *is_more);
/* A raw deflate stream (a zip member) of exactly n_out bytes. */
bool mo_inflate_raw(const void *bytes, size_t n_bytes, void *out, size_t n_out);

uint32_t mo_be32(const uint8_t *p);
uint32_t mo_le32(const uint8_t *p);
uint16_t mo_le16(const uint8_t *p);

#endif
