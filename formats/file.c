/* file.c - files written whole or not at all.
 *
 * Where the system can (O_TMPFILE) a file has no name until it is complete, so that
 * not even kill -9 leaves a trace; elsewhere it has a temporary one in the same
 * folder. Committing flushes it to disk, then links or renames. */
#include "formats/file.h"
#include "lib/base/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUF_BYTES = 256 << 10, TEMP_TRIES = 100 };

static enum mopt_status fail_errno(struct mopt_ctx *ctx, const char *path, const char *doing)
{
    enum mopt_status status = errno == ENOMEM ? MOPT_LIMIT : MOPT_FAILED;
    return mo_fail(ctx, status, "%s: cannot %s: %s", path, doing, strerror(errno));
}

bool mo_file_exists(const char *path)
{
    struct stat info;
    return !stat(path, &info);
}

/* The folder of a path, ended by 0, in new memory; NULL: none. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    char *folder = mo_mem_new(n + 3, 1);
    if (!folder)
        return NULL;
    if (!n)
        folder[0] = slash ? '/' : '.';
    else
        memcpy(folder, path, n);
    return folder;
}

/* ---- writing -------------------------------------------------------------------- */

/* Sets out->temp to the k-th name to try. */
static bool name_temp(struct mo_file_out *out, int k)
{
    size_t n = strlen(out->path) + 40;
    mo_mem_free(out->temp);
    out->temp = mo_mem_new(n, 1);
    if (out->temp)
        snprintf(out->temp, n, "%s.%ld-%d.tmp", out->path, (long)getpid(), k);
    return out->temp;
}

static enum mopt_status open_named(struct mo_file_out *out)
{
    for (int k = 0; k < TEMP_TRIES; k++) {
        if (!name_temp(out, k))
            return mo_no_memory(out->ctx, strlen(out->path), "a file name");
        out->fd = open(out->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (out->fd >= 0)
            return MOPT_OK;
        if (errno != EEXIST)
            break;
    }
    enum mopt_status status = fail_errno(out->ctx, out->path, "write");
    mo_mem_free(out->temp);
    out->temp = NULL;
    return status;
}

static enum mopt_status open_file(struct mo_file_out *out)
{
    char *folder = folder_of(out->path);
    if (!folder)
        return mo_no_memory(out->ctx, strlen(out->path), "a file name");
    out->fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    mo_mem_free(folder);
    if (out->fd >= 0 && access("/proc/self/fd", X_OK)) {
        close(out->fd);
        out->fd = -1;
    }
    return out->fd >= 0 ? MOPT_OK : open_named(out);
}

enum mopt_status mo_file_begin(struct mopt_ctx *ctx, struct mo_file_out *out, const char *path, bool overwrite)
{
    *out = (struct mo_file_out){ .ctx = ctx, .path = path, .fd = -1, .overwrite = overwrite };
    struct stat info;
    if (!strcmp(path, "-")) {
        out->path = "stdout";
        out->is_stream = true;
        out->fd = dup(STDOUT_FILENO);
        if (out->fd < 0)
            return fail_errno(ctx, "stdout", "write");
    } else if (!stat(path, &info)) {
        if (S_ISDIR(info.st_mode))
            return mo_fail(ctx, MOPT_USAGE, "%s: is a folder; name a file", path);
        out->is_stream = !S_ISREG(info.st_mode);
        if (!out->is_stream && !overwrite)
            return mo_fail(ctx, MOPT_USAGE, "%s: is there already; -f overwrites it", path);
        if (out->is_stream && (out->fd = open(path, O_WRONLY | O_CLOEXEC)) < 0)
            return fail_errno(ctx, path, "write");
    }
    if (!out->is_stream)
        MO_TRY(open_file(out));
    out->buf = mo_mem_new(BUF_BYTES, 1);
    if (out->buf)
        return MOPT_OK;
    mo_file_abandon(out);
    return mo_no_memory(ctx, BUF_BYTES, "a file's buffer");
}

static enum mopt_status put_now(struct mo_file_out *out, const char *bytes, size_t n)
{
    enum { PIECE = 1 << 30 };
    while (n) {
        ssize_t done = write(out->fd, bytes, MO_MIN(n, (size_t)PIECE));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return fail_errno(out->ctx, out->path, "write");
        bytes += done;
        n -= (size_t)done;
        out->n_written += (uint64_t)done;
    }
    return MOPT_OK;
}

static enum mopt_status drain(struct mo_file_out *out)
{
    size_t n = out->n_buf;
    out->n_buf = 0;
    return put_now(out, out->buf, n);
}

enum mopt_status mo_file_put(struct mo_file_out *out, const void *bytes, size_t n)
{
    if (n > BUF_BYTES - out->n_buf) {
        MO_TRY(drain(out));
        if (n >= BUF_BYTES)
            return put_now(out, bytes, n);
    }
    if (n)
        memcpy(out->buf + out->n_buf, bytes, n);
    out->n_buf += n;
    return MOPT_OK;
}

/* Gives a file without a name the one asked for, or a temporary one when that must be replaced. */
static enum mopt_status link_name(struct mo_file_out *out)
{
    char from[64];
    snprintf(from, sizeof from, "/proc/self/fd/%d", out->fd);
    if (!linkat(AT_FDCWD, from, AT_FDCWD, out->path, AT_SYMLINK_FOLLOW))
        return MOPT_OK;
    if (errno != EEXIST || !out->overwrite)
        return fail_errno(out->ctx, out->path, "write");
    for (int k = 0; k < TEMP_TRIES; k++) {
        if (!name_temp(out, k))
            return mo_no_memory(out->ctx, strlen(out->path), "a file name");
        if (!linkat(AT_FDCWD, from, AT_FDCWD, out->temp, AT_SYMLINK_FOLLOW))
            return MOPT_OK;
        if (errno != EEXIST)
            break;
    }
    enum mopt_status status = fail_errno(out->ctx, out->path, "write");
    mo_mem_free(out->temp);
    out->temp = NULL;
    return status;
}

static enum mopt_status rename_temp(struct mo_file_out *out)
{
    /* without overwrite a link, since it does not replace what came into being meanwhile */
    bool linked = !out->overwrite && !link(out->temp, out->path);
    if (!linked && !out->overwrite && errno == EEXIST)
        return fail_errno(out->ctx, out->path, "write");
    if (linked)
        unlink(out->temp);
    else if (rename(out->temp, out->path))
        return fail_errno(out->ctx, out->path, "rename to it");
    mo_mem_free(out->temp);
    out->temp = NULL;
    return MOPT_OK;
}

/* The name lies in the folder: without this a power cut may lose it. Not every file system can. */
static void flush_folder(const char *path)
{
    char *folder = folder_of(path);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)!fsync(fd);
        close(fd);
    }
    mo_mem_free(folder);
}

static enum mopt_status commit(struct mo_file_out *out)
{
    MO_TRY(drain(out));
    if (out->is_stream)
        return MOPT_OK;
    if (fsync(out->fd))
        return fail_errno(out->ctx, out->path, "write");
    if (!out->temp)
        MO_TRY(link_name(out));
    if (out->temp)
        MO_TRY(rename_temp(out));
    flush_folder(out->path);
    return MOPT_OK;
}

enum mopt_status mo_file_commit(struct mo_file_out *out)
{
    enum mopt_status status = commit(out);
    int fd = out->fd;
    out->fd = -1;
    if (fd >= 0 && close(fd) && !status)
        status = fail_errno(out->ctx, out->path, "write");
    mo_file_abandon(out);
    return status;
}

void mo_file_abandon(struct mo_file_out *out)
{
    if (!out->buf && !out->temp && out->fd <= 0)
        return;
    if (out->fd >= 0)
        close(out->fd);
    if (out->temp)
        unlink(out->temp);
    mo_mem_free(out->temp);
    mo_mem_free(out->buf);
    *out = (struct mo_file_out){ .fd = -1 };
}

enum mopt_status mopt_file_write(struct mopt_ctx *ctx, const char *path, const void *bytes, size_t n_bytes,
                                 bool overwrite)
{
    if (ctx->rank) /* rank 0 writes */
        return MOPT_OK;
    struct mo_file_out out;
    MO_TRY(mo_file_begin(ctx, &out, path, overwrite));
    enum mopt_status status = mo_file_put(&out, bytes, n_bytes);
    if (!status)
        return mo_file_commit(&out);
    mo_file_abandon(&out);
    return status;
}

/* ---- reading ------------------------------------------------------------------------ */

enum mopt_status mo_file_map_fd(struct mopt_ctx *ctx, int fd, struct mo_file_map *map)
{
    struct stat info;
    *map = (struct mo_file_map){ (const uint8_t *)"", 0 };
    if (fstat(fd, &info))
        return mo_fail(ctx, MOPT_FAILED, "cannot read: %s", strerror(errno));
    if (!S_ISREG(info.st_mode))
        return mo_fail(ctx, MOPT_FAILED, "is %s", S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    if (!info.st_size)
        return MOPT_OK;
    void *mem = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mem == MAP_FAILED)
        return mo_fail(ctx, errno == ENOMEM ? MOPT_LIMIT : MOPT_FAILED, "cannot read: %s", strerror(errno));
    *map = (struct mo_file_map){ mem, (size_t)info.st_size };
    return MOPT_OK;
}

void mo_file_unmap(struct mo_file_map *map)
{
    if (map->n_bytes)
        munmap((void *)map->bytes, map->n_bytes);
    *map = (struct mo_file_map){ 0 };
}

enum mopt_status mo_file_hash(struct mopt_ctx *ctx, const char *path, uint64_t *hash, uint64_t *n_bytes)
{
    struct mo_file_map map;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(ctx, path, "read");
    enum mopt_status status = mo_file_map_fd(ctx, fd, &map);
    close(fd);
    if (status) {
        mo_blame(ctx, "%s", path);
        return status;
    }
    *hash = mo_xxh64(map.bytes, map.n_bytes);
    *n_bytes = map.n_bytes;
    mo_file_unmap(&map);
    return MOPT_OK;
}

enum mopt_status mo_file_slurp(struct mopt_ctx *ctx, int fd, const char *path, char **bytes, size_t *n_bytes)
{
    size_t room = 0, n = 0;
    char *mem = NULL;
    for (;;) {
        if (room - n < 2) {         /* one byte is for the 0 at the end */
            size_t new_room = room ? room * 2 : 64 << 10;
            char *grown = ctx->max_memory_bytes && new_room > ctx->max_memory_bytes
                              ? NULL : mo_mem_grow(mem, n, new_room);
            if (!grown) {
                mo_mem_free(mem);
                return mo_no_memory(ctx, new_room, path);
            }
            mem = grown;
            room = new_room;
        }
        ssize_t got = read(fd, mem + n, room - n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            mo_mem_free(mem);
            return mo_fail(ctx, MOPT_FAILED, "%s: cannot read: %s", path, strerror(errno));
        }
        if (got == 0)
            break;
        n += (size_t)got;
    }
    mem[n] = 0;
    *bytes = mem;
    *n_bytes = n;
    return MOPT_OK;
}

enum mopt_status mopt_file_read(struct mopt_ctx *ctx, const char *path, char **bytes, size_t *n_bytes)
{
    bool is_stdin = !strcmp(path, "-");
    int fd = is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mo_fail(ctx, MOPT_FAILED, "%s: cannot read: %s", is_stdin ? "stdin" : path, strerror(errno));
    enum mopt_status status = mo_file_slurp(ctx, fd, is_stdin ? "stdin" : path, bytes, n_bytes);
    close(fd);
    return status;
}

/* ---- constants that live in a file ------------------------------------------------------ */

void *mo_file_spill(size_t n_bytes)
{
    const char *folder = getenv("TMPDIR");
    size_t whole;
    if (__builtin_add_overflow(n_bytes, (size_t)MO_SPILL_HEAD_BYTES, &whole) || whole > INT64_MAX)
        return NULL;
    int fd = open(folder && *folder ? folder : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    /* reserved, since a full disk would otherwise be a signal on writing */
    void *mapping = fd < 0 || posix_fallocate(fd, 0, (off_t)whole)
                        ? MAP_FAILED : mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    return mapping == MAP_FAILED ? NULL : mo_mem_adopt(mapping, whole);
}

void mo_file_forget(const void *mapping, size_t mapping_bytes, const void *bytes, size_t n_bytes)
{
    const uintptr_t page = 4096, start = (uintptr_t)mapping, end = start + mapping_bytes;
    uintptr_t from = (uintptr_t)bytes, to = from + n_bytes;
    if (!mapping || from < start || to > end)
        return;
    from = (from + page - 1) / page * page;
    to = to == end ? to : to / page * page;
    if (from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}
