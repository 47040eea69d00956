/* blob.c - files as bytes. */
#include "formats/blob.h"

#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { GZIP_WINDOW = 16 + MAX_WBITS, RAW_WINDOW = -MAX_WBITS };

static enum mopt_status map(struct mopt_ctx *ctx, const char *path, int fd, struct mo_blob *blob)
{
    struct stat info;
    if (fstat(fd, &info))
        return mo_fail(ctx, MOPT_DATA, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return mo_fail(ctx, MOPT_DATA, "%s: is a folder, not a file", path);
    if (!S_ISREG(info.st_mode))
        return mo_fail(ctx, MOPT_DATA, "%s: is not a regular file", path);
    blob->n_bytes = (size_t)info.st_size;
    blob->bytes = (const uint8_t *)"";
    if (!blob->n_bytes)
        return MOPT_OK;
    void *mem = mmap(NULL, blob->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mem == MAP_FAILED)
        return mo_fail(ctx, MOPT_DATA, "%s: %s", path, strerror(errno));
    blob->mapping = mem;
    blob->bytes = mem;
    return MOPT_OK;
}

enum mopt_status mo_blob_open(struct mopt_ctx *ctx, const char *path, struct mo_blob *blob)
{
    *blob = (struct mo_blob){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mo_fail(ctx, MOPT_DATA, "%s: %s", path, strerror(errno));
    enum mopt_status s = map(ctx, path, fd, blob);
    close(fd);
    return s;
}

void mo_blob_close(struct mo_blob *blob)
{
    if (blob->mapping)
        munmap(blob->mapping, blob->n_bytes);
    mo_mem_free(blob->heap);
    *blob = (struct mo_blob){0};
}

bool mo_blob_is_gzip(const struct mo_blob *blob)
{
    return blob->n_bytes >= 2 && blob->bytes[0] == 0x1f && blob->bytes[1] == 0x8b;
}

/* zlib counts in 32 bits, so both sides are handed over in pieces; those of the input are small enough to forget soon. */
static void feed(z_stream *z, const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out)
{
    const size_t piece = 1u << 30, in_piece = 1u << 20;
    if (!z->avail_in) {
        size_t at = z->next_in ? (size_t)(z->next_in - in) : 0;
        z->next_in = (Bytef *)(uintptr_t)(in + at);
        z->avail_in = (uInt)MO_MIN(n_in - at, in_piece);
    }
    if (!z->avail_out) {
        size_t at = z->next_out ? (size_t)(z->next_out - out) : 0;
        z->next_out = out + at;
        z->avail_out = (uInt)MO_MIN(n_out - at, piece);
    }
}

bool mo_gunzip(const struct mo_blob *blob, void *out, size_t max_bytes, size_t *n_out, bool *is_more)
{
    z_stream z = {0};
    uint8_t spare;
    *n_out = 0;
    *is_more = false;
    if (inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return false;
    int code = Z_OK;
    const uint8_t *end = blob->bytes + blob->n_bytes, *kept = blob->bytes;
    bool spilled = false;
    while (code == Z_OK) {
        if (!z.avail_in && z.next_in) {
            mo_file_forget(blob->mapping, blob->n_bytes, kept, (size_t)(z.next_in - kept));
            kept = z.next_in;
        }
        feed(&z, blob->bytes, blob->n_bytes, out, max_bytes);
        if (!z.avail_out) { /* the buffer is full: does anything come after it? */
            z.next_out = &spare;
            z.avail_out = 1;
            code = inflate(&z, Z_NO_FLUSH);
            spilled = !z.avail_out;
            *n_out = max_bytes;
            if (spilled || code != Z_STREAM_END)
                break;
        } else
            code = inflate(&z, Z_NO_FLUSH);
        if (code == Z_STREAM_END && z.next_in + 2 < end && z.next_in[0] == 0x1f && z.next_in[1] == 0x8b)
            code = inflateReset(&z) == Z_OK ? Z_OK : Z_DATA_ERROR; /* the next member */
    }
    if (!spilled && z.next_out && z.next_out != &spare)
        *n_out = (size_t)(z.next_out - (uint8_t *)out);
    *is_more = spilled;
    inflateEnd(&z);
    return spilled || code == Z_STREAM_END;
}

bool mo_inflate_raw(const void *bytes, size_t n_bytes, void *out, size_t n_out)
{
    z_stream z = {0};
    uint8_t none;
    if (inflateInit2(&z, RAW_WINDOW) != Z_OK)
        return false;
    int code = Z_OK;
    uint8_t *to = n_out ? out : &none;
    while (code == Z_OK) {
        feed(&z, bytes, n_bytes, to, n_out);
        code = inflate(&z, Z_NO_FLUSH);
    }
    bool ok = code == Z_STREAM_END && z.next_out == to + n_out;
    inflateEnd(&z);
    return ok;
}

uint32_t mo_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint32_t mo_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

uint16_t mo_le16(const uint8_t *p)
{
    return (uint16_t)(p[1] << 8 | p[0]);
}
