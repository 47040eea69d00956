/* memory_files.c - files in memory under the names "memory-file-0", "memory-file-1": fuzz programs are linked with
 * --wrap=mo_blob_open, since opening and mapping a real file takes longer than reading a small one. */
#include "tests/fuzz/memory_files.h"

#include <stdio.h>
#include <string.h>

enum { N_FILES = 2 };
static struct { const uint8_t *bytes; size_t n; } files[N_FILES];

void fuzz_memory_file(int k, const uint8_t *bytes, size_t n)
{
    files[k].bytes = bytes;
    files[k].n = n;
}

enum mopt_status __real_mo_blob_open(struct mopt_ctx *ctx, const char *path, struct mo_blob *blob);
enum mopt_status __wrap_mo_blob_open(struct mopt_ctx *ctx, const char *path, struct mo_blob *blob);

/* A block of exactly n bytes, so that reading past its end is seen. */
enum mopt_status __wrap_mo_blob_open(struct mopt_ctx *ctx, const char *path, struct mo_blob *blob)
{
    unsigned k;
    char rest;
    if (sscanf(path, FUZZ_MEMORY_FILE "%u%c", &k, &rest) != 1 || k >= N_FILES)
        return __real_mo_blob_open(ctx, path, blob);
    *blob = (struct mo_blob){.bytes = (const uint8_t *)"", .n_bytes = files[k].n};
    if (!files[k].n)
        return MOPT_OK;
    blob->heap = mo_mem_new(files[k].n, 1);
    if (!blob->heap)
        return mo_no_memory(ctx, files[k].n, path);
    memcpy(blob->heap, files[k].bytes, files[k].n);
    blob->bytes = blob->heap;
    return MOPT_OK;
}
