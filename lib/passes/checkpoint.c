/* checkpoint.c - the container of checkpoint.h: written through ctx->io, checked before anything is believed. */
#include "lib/passes/checkpoint.h"

#include <string.h>

#include "lib/base/io.h"

enum { VERSION = 1, MAX_PARTS = 64, NAME_BYTES = 24, HASHED_FROM = 32 };
static const char magic[8] = {'m', 'o', 'p', 't', '-', 'c', 'k', '1'};
static const uint32_t byte_order = 0x01020304;

struct header { char magic[8]; uint32_t version, byte_order; uint64_t n_bytes, hash, n_parts; };
struct entry { char name[NAME_BYTES]; uint64_t offset, n_bytes; };

struct mo_checkpoint {
    char *bytes;                /* from mo_mem_new, so aligned */
    size_t n_bytes;
    const char *path;           /* behind this struct */
    struct header header;
    struct entry entries[MAX_PARTS];
};

static uint64_t aligned(uint64_t n)
{
    return (n + MO_ALIGN_BYTES - 1) / MO_ALIGN_BYTES * MO_ALIGN_BYTES;
}

enum mopt_status mo_checkpoint_write(struct mopt_ctx *ctx, const char *path, const struct mo_part_bytes *parts,
                                     size_t n_parts)
{
    struct header head = {.version = VERSION, .byte_order = byte_order, .n_parts = n_parts};
    struct entry entries[MAX_PARTS] = {0};
    if (n_parts > MAX_PARTS)
        return mo_fail(ctx, MOPT_FAILED, "a checkpoint of %zu parts", n_parts);
    uint64_t at = aligned(sizeof head + n_parts * sizeof *entries);
    for (size_t i = 0; i < n_parts; i++) {
        size_t length = strlen(parts[i].name);
        if (length >= NAME_BYTES)
            return mo_fail(ctx, MOPT_FAILED, "a checkpoint part named '%s'", parts[i].name);
        memcpy(entries[i].name, parts[i].name, length);
        entries[i].offset = at;
        entries[i].n_bytes = parts[i].n_bytes;
        at = aligned(at + parts[i].n_bytes);
    }
    char *bytes = mo_mem_new(at, 1);
    if (!bytes)
        return mo_no_memory(ctx, at, "a checkpoint");
    memcpy(head.magic, magic, sizeof magic);
    head.n_bytes = at;
    memcpy(bytes + sizeof head, entries, n_parts * sizeof *entries);
    for (size_t i = 0; i < n_parts; i++)
        if (parts[i].n_bytes)
            memcpy(bytes + entries[i].offset, parts[i].bytes, parts[i].n_bytes);
    memcpy(bytes, &head, sizeof head);
    head.hash = mo_hash64(bytes + HASHED_FROM, at - HASHED_FROM, 0);
    memcpy(bytes, &head, sizeof head);
    enum mopt_status status = ctx->io->write_file(ctx, path, bytes, at, true);
    mo_mem_free(bytes);
    return status;
}

/* What is wrong with the file, or NULL; fills header and entries. */
static const char *fault(struct mo_checkpoint *c)
{
    struct header *head = &c->header;
    if (c->n_bytes < sizeof *head || memcmp(c->bytes, magic, sizeof magic))
        return "is not a checkpoint of mopt";
    memcpy(head, c->bytes, sizeof *head);
    if (head->byte_order != byte_order)
        return "was written on a machine of the other byte order";
    if (head->version != VERSION)
        return "was written by another version of mopt";
    if (head->n_bytes != c->n_bytes)
        return "is not complete";
    if (head->hash != mo_hash64(c->bytes + HASHED_FROM, c->n_bytes - HASHED_FROM, 0))
        return "is damaged: its hash does not fit";
    if (head->n_parts > MAX_PARTS || sizeof *head + head->n_parts * sizeof *c->entries > c->n_bytes)
        return "has an impossible table of parts";
    memcpy(c->entries, c->bytes + sizeof *head, head->n_parts * sizeof *c->entries);
    for (uint64_t i = 0; i < head->n_parts; i++) {
        const struct entry *e = &c->entries[i];
        if (!memchr(e->name, 0, NAME_BYTES) || e->offset % MO_ALIGN_BYTES || e->offset > c->n_bytes ||
            e->n_bytes > c->n_bytes - e->offset)
            return "has a part that is not in the file";
    }
    return NULL;
}

enum mopt_status mo_checkpoint_read(struct mopt_ctx *ctx, const char *path, struct mo_checkpoint **checkpoint)
{
    char *bytes;
    size_t n_bytes;
    MO_TRY(ctx->io->read_file(ctx, path, &bytes, &n_bytes));
    struct mo_checkpoint *c = mo_mem_new(1, sizeof *c + strlen(path) + 1);
    if (!c) {
        mo_mem_free(bytes);
        return mo_no_memory(ctx, sizeof *c, "a checkpoint");
    }
    char *copy = (char *)(c + 1);
    memcpy(copy, path, strlen(path) + 1);
    c->bytes = bytes;
    c->n_bytes = n_bytes;
    c->path = copy;
    const char *why = fault(c);
    if (why) {
        mo_checkpoint_free(c);
        return mo_fail(ctx, MOPT_DATA, "'%s' %s", path, why);
    }
    *checkpoint = c;
    return MOPT_OK;
}

void mo_checkpoint_free(struct mo_checkpoint *c)
{
    if (!c)
        return;
    mo_mem_free(c->bytes);
    mo_mem_free(c);
}

const void *mo_checkpoint_part(const struct mo_checkpoint *c, const char *name, uint64_t *n_bytes)
{
    for (uint64_t i = 0; i < c->header.n_parts; i++)
        if (!strcmp(c->entries[i].name, name)) {
            *n_bytes = c->entries[i].n_bytes;
            return c->bytes + c->entries[i].offset;
        }
    return NULL;
}

enum mopt_status mo_checkpoint_need(struct mopt_ctx *ctx, const struct mo_checkpoint *c, const char *name,
                                    uint64_t n_bytes, const void **bytes)
{
    uint64_t there = 0;
    *bytes = mo_checkpoint_part(c, name, &there);
    if (!*bytes)
        return mo_fail(ctx, MOPT_DATA, "checkpoint '%s' has no part '%s': it was made by other settings", c->path,
                       name);
    if (there != n_bytes)
        return mo_fail(ctx, MOPT_DATA,
                       "checkpoint '%s': part '%s' has %llu bytes, not %llu: it belongs to another model", c->path, name, (unsigned long long)there, (unsigned long long)n_bytes);
    return MOPT_OK;
}
