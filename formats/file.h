/* file.h - files written whole or not at all, and files as mapped bytes. */
#ifndef MO_FILE_H
#define MO_FILE_H

#include "lib/base/base.h"

/* A file being written. It has no name, or a temporary one, until it is committed;
 * a stream ("-", a pipe, a device) is written at once. */
struct mo_file_out {
    struct mopt_ctx *ctx;
    const char *path;       /* as given; lives longer than this */
    int fd;
    bool is_stream, overwrite;
    char *temp;             /* the temporary name, or NULL */
    char *buf;
    size_t n_buf;
    uint64_t n_written;
};
/* "-" is stdout. An existing file is refused here already when overwrite is false. */
MOPT_MUST_CHECK enum mopt_status mo_file_begin(struct mopt_ctx *ctx, struct mo_file_out *out, const char *path,
                                               bool overwrite);
MOPT_MUST_CHECK enum mopt_status mo_file_put(struct mo_file_out *out, const void *bytes, size_t n);
/* Flushes and gives the file its name. Frees what the struct holds, also on failure. */
MOPT_MUST_CHECK enum mopt_status mo_file_commit(struct mo_file_out *out);
/* Leaves no trace. Harmless after commit and on a struct of zeros. */
void mo_file_abandon(struct mo_file_out *out);

bool mo_file_exists(const char *path);
/* XXH64 of a regular file. */
MOPT_MUST_CHECK enum mopt_status mo_file_hash(struct mopt_ctx *ctx, const char *path, uint64_t *hash, uint64_t *n_bytes);

/* A regular file mapped for reading; an empty one gives a non-NULL pointer and 0. The caller puts the name
 * in front of what is said on failure, and closes fd. */
struct mo_file_map { const uint8_t *bytes; size_t n_bytes; };
MOPT_MUST_CHECK enum mopt_status mo_file_map_fd(struct mopt_ctx *ctx, int fd, struct mo_file_map *map);
void mo_file_unmap(struct mo_file_map *map);

/* The rest of a descriptor that cannot be mapped (a pipe), in new memory (mo_mem_free). */
MOPT_MUST_CHECK enum mopt_status mo_file_slurp(struct mopt_ctx *ctx, int fd, const char *path, char **bytes,
                                               size_t *n_bytes);

/* Zeros in a file without a name, in $TMPDIR or /var/tmp, on disk and reserved there; see lib/base/spill.h. */
void *mo_file_spill(size_t n_bytes);
/* The pages of [bytes, bytes + n_bytes) leave the process where they lie in that mapping; they are in the file. */
void mo_file_forget(const void *mapping, size_t mapping_bytes, const void *bytes, size_t n_bytes);

#endif
