/* zip.c - the files in a zip archive, as numpy writes .npz: stored or deflated, zip64 where sizes ask for it.
 *
 * Sizes come from the central directory. An entry that announces more than deflate can hold is refused before memory
 * is asked for, and every entry's CRC is checked. */
#include "formats/npy.h"

#include "formats/sources.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum {
    END_BYTES = 22, MAX_COMMENT = 65535, ENTRY_BYTES = 46, LOCAL_BYTES = 30, END64_LOCATOR_BYTES = 20, END64_BYTES = 56,
    STORED = 0, DEFLATED = 8, ENCRYPTED = 1, ZIP64_EXTRA = 1, MAX_RATIO = 1100, MAX_ENTRIES = 4096,
};

static uint64_t le64(const uint8_t *p)
{
    return (uint64_t)mo_le32(p + 4) << 32 | mo_le32(p);
}

static enum mopt_status broken(struct mopt_ctx *ctx, const struct mo_zip *zip, const char *what)
{
    return mo_fail(ctx, MOPT_DATA, "%s: is not a sound zip archive: %s", zip->path, what);
}

/* The end record: behind it only a comment. NULL: there is none. */
static const uint8_t *find_end(const struct mo_blob *blob)
{
    if (blob->n_bytes < END_BYTES)
        return NULL;
    size_t last = blob->n_bytes - END_BYTES, first = last > MAX_COMMENT ? last - MAX_COMMENT : 0;
    for (size_t at = last + 1; at-- > first;)
        if (!memcmp(blob->bytes + at, "PK\5\6", 4))
            return blob->bytes + at;
    return NULL;
}

/* Sizes and place that do not fit 32 bits stand in an extra field, in this order, each only where it is needed. */
static bool read_zip64(const uint8_t *extra, size_t n_extra, uint64_t *values[3])
{
    while (n_extra >= 4) {
        size_t n = mo_le16(extra + 2);
        if (n > n_extra - 4)
            return false;
        const uint8_t *at = extra + 4, *end = at + n;
        for (int i = 0; mo_le16(extra) == ZIP64_EXTRA && i < 3; i++)
            if (*values[i] == UINT32_MAX) {
                if (end - at < 8)
                    return false;
                *values[i] = le64(at);
                at += 8;
            }
        extra += 4 + n;
        n_extra -= 4 + n;
    }
    return true;
}

/* The bytes of an entry lie behind its local header, whose own name and extra field may have other lengths. */
static bool find_bytes(const struct mo_blob *blob, uint64_t local, struct mo_zip_entry *entry)
{
    if (local > blob->n_bytes || blob->n_bytes - local < LOCAL_BYTES || memcmp(blob->bytes + local, "PK\3\4", 4))
        return false;
    const uint8_t *p = blob->bytes + local;
    uint64_t skip = LOCAL_BYTES + (uint64_t)mo_le16(p + 26) + mo_le16(p + 28), left = blob->n_bytes - local;
    if (skip > left || entry->packed_bytes > left - skip)
        return false;
    entry->packed = p + skip;
    return true;
}

static enum mopt_status read_entry(struct mopt_ctx *ctx, const struct mo_zip *zip, const struct mo_blob *blob,
                                   const uint8_t **at, const uint8_t *end, struct mo_zip_entry *entry)
{
    const uint8_t *p = *at;
    if (end - p < ENTRY_BYTES || memcmp(p, "PK\1\2", 4))
        return broken(ctx, zip, "its directory");
    size_t n_name = mo_le16(p + 28), n_extra = mo_le16(p + 30), n_comment = mo_le16(p + 32);
    if (n_name + n_extra + n_comment > (size_t)(end - p) - ENTRY_BYTES)
        return broken(ctx, zip, "its directory");
    int method = mo_le16(p + 10);
    uint64_t local = mo_le32(p + 42), *values[3] = {&entry->n_bytes, &entry->packed_bytes, &local};
    entry->n_bytes = mo_le32(p + 24);
    entry->packed_bytes = mo_le32(p + 20);
    entry->crc = mo_le32(p + 16);
    entry->is_deflated = method == DEFLATED;
    snprintf(entry->name, sizeof entry->name, "%.*s", (int)n_name, (const char *)p + ENTRY_BYTES);
    if (mo_le16(p + 8) & ENCRYPTED || (method != STORED && method != DEFLATED))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: '%s' is encrypted or packed by method %d", zip->path, entry->name,
                       method);
    if (!read_zip64(p + ENTRY_BYTES + n_name, n_extra, values) || !find_bytes(blob, local, entry))
        return broken(ctx, zip, entry->name);
    if (method == STORED && entry->n_bytes != entry->packed_bytes)
        return broken(ctx, zip, entry->name);
    if (entry->n_bytes / MAX_RATIO > entry->packed_bytes)
        return mo_fail(ctx, MOPT_DATA, "%s: '%s' announces %llu bytes, more than its %llu can hold", zip->path,
                       entry->name, (unsigned long long)entry->n_bytes, (unsigned long long)entry->packed_bytes);
    *at = p + ENTRY_BYTES + n_name + n_extra + n_comment;
    return MOPT_OK;
}

/* Number of entries and place of the directory, from the 64-bit end record where there is one. */
static enum mopt_status read_end(struct mopt_ctx *ctx, const struct mo_zip *zip, const struct mo_blob *blob,
                                 uint64_t *n_entries, uint64_t *start)
{
    const uint8_t *end = find_end(blob);
    if (!end)
        return broken(ctx, zip, "it has no end record");
    *n_entries = mo_le16(end + 10);
    *start = mo_le32(end + 16);
    size_t at = (size_t)(end - blob->bytes);
    if (at < END64_LOCATOR_BYTES || memcmp(end - END64_LOCATOR_BYTES, "PK\6\7", 4))
        return MOPT_OK;
    uint64_t end64 = le64(end - END64_LOCATOR_BYTES + 8);
    if (end64 > blob->n_bytes || blob->n_bytes - end64 < END64_BYTES || memcmp(blob->bytes + end64, "PK\6\6", 4))
        return broken(ctx, zip, "its 64-bit end record");
    *n_entries = le64(blob->bytes + end64 + 32);
    *start = le64(blob->bytes + end64 + 48);
    return MOPT_OK;
}

enum mopt_status mo_zip_open(struct mopt_ctx *ctx, const char *path, const struct mo_blob *blob, struct mo_zip *zip)
{
    uint64_t n = 0, start = 0;
    *zip = (struct mo_zip){.path = path};
    MO_TRY(read_end(ctx, zip, blob, &n, &start));
    if (n > MAX_ENTRIES)
        return mo_fail(ctx, MOPT_LIMIT, "%s: has %llu files, more than %d", path, (unsigned long long)n, MAX_ENTRIES);
    if (start > blob->n_bytes)
        return broken(ctx, zip, "its directory");
    zip->entry = mo_mem_new(MO_MAX((size_t)n, (size_t)1), sizeof *zip->entry);
    if (!zip->entry)
        return mo_no_memory(ctx, n * sizeof *zip->entry, path);
    const uint8_t *at = blob->bytes + start, *end = blob->bytes + blob->n_bytes;
    for (; zip->n_entries < n; zip->n_entries++) {
        enum mopt_status s = read_entry(ctx, zip, blob, &at, end, &zip->entry[zip->n_entries]);
        if (s) {
            mo_zip_close(zip);
            return s;
        }
    }
    return MOPT_OK;
}

void mo_zip_close(struct mo_zip *zip)
{
    mo_mem_free(zip->entry);
    zip->entry = NULL;
    zip->n_entries = 0;
}

static uint32_t crc_of(const uint8_t *bytes, size_t n)
{
    uLong crc = crc32(0, NULL, 0);
    for (size_t at = 0; at < n;) {
        size_t piece = MO_MIN(n - at, (size_t)1 << 30);
        crc = crc32(crc, bytes + at, (uInt)piece);
        at += piece;
    }
    return (uint32_t)crc;
}

enum mopt_status mo_zip_read(struct mopt_ctx *ctx, const struct mo_zip *zip, const struct mo_zip_entry *entry,
                             const uint8_t **bytes, void **heap)
{
    *heap = NULL;
    *bytes = entry->packed;
    if (entry->is_deflated) {
        MO_TRY(mo_source_fits(ctx, zip->path, entry->n_bytes));
        *heap = mo_mem_new(MO_MAX((size_t)entry->n_bytes, (size_t)1), 1);
        if (!*heap)
            return mo_no_memory(ctx, entry->n_bytes, entry->name);
        *bytes = *heap;
    }
    bool ok = !entry->is_deflated || mo_inflate_raw(entry->packed, entry->packed_bytes, *heap, entry->n_bytes);
    if (ok && crc_of(*bytes, entry->n_bytes) == entry->crc)
        return MOPT_OK;
    mo_mem_free(*heap);
    *heap = NULL;
    return mo_fail(ctx, MOPT_DATA, "%s: '%s' is damaged", zip->path, entry->name);
}
