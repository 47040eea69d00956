/* mem.c - heap memory and arenas. */
#include "lib/base/io.h"
#include "lib/base/spill.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1          /* clang says it in its own way */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(mem, n) __asan_poison_memory_region(mem, n)
#define UNPOISON(mem, n) __asan_unpoison_memory_region(mem, n)
#define GAP_BYTES 16
#else
#define POISON(mem, n) ((void)(mem), (void)(n))
#define UNPOISON(mem, n) ((void)(mem), (void)(n))
#define GAP_BYTES 0
#endif

bool mo_mul_size(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

/* calloc hands out untouched zero pages, so a large block costs nothing until
 * it is used; the block's own address is kept just below the aligned one. */
void *mo_mem_new(size_t count, size_t elem_bytes)
{
    size_t bytes;
    if (!mo_mul_size(count, elem_bytes, &bytes) || bytes > SIZE_MAX - 2 * MO_ALIGN_BYTES)
        return NULL;
    char *raw = calloc(1, bytes + MO_ALIGN_BYTES + sizeof(void *));
    if (!raw)
        return NULL;
    uintptr_t at = ((uintptr_t)raw + sizeof(void *) + MO_ALIGN_BYTES - 1) & ~(uintptr_t)(MO_ALIGN_BYTES - 1);
    ((void **)at)[-1] = raw;
    POISON((char *)at + bytes, (size_t)(raw + bytes + MO_ALIGN_BYTES + sizeof(void *) - ((char *)at + bytes)));
    return (void *)at;
}

void *mo_mem_grow(void *old, size_t old_bytes, size_t new_bytes)
{
    void *mem = mo_mem_new(new_bytes, 1);
    if (mem && old) {
        memcpy(mem, old, MO_MIN(old_bytes, new_bytes));
        mo_mem_free(old);
    }
    return mem;
}

/* ---- memory in a file: the word below it has its lowest bit set, below that stands the mapping's size ---- */

enum { IS_MAPPING = 1 };

static char *mapping_of(void *mem, size_t *n_bytes)
{
    uintptr_t raw = (uintptr_t)((void **)mem)[-1];
    if (!(raw & IS_MAPPING))
        return NULL;
    *n_bytes = ((size_t *)mem)[-2];
    return (char *)mem - MO_SPILL_HEAD_BYTES;
}

void *mo_mem_adopt(void *mapping, size_t mapping_bytes)
{
    char *mem = (char *)mapping + MO_SPILL_HEAD_BYTES;
    ((void **)mem)[-1] = (void *)((uintptr_t)mapping | IS_MAPPING);
    ((size_t *)mem)[-2] = mapping_bytes;
    return mem;
}

void mo_mem_forget(void *mem)
{
    size_t n_bytes;
    char *mapping = mem ? mapping_of(mem, &n_bytes) : NULL;
    if (mapping)
        (void)madvise(mapping + MO_SPILL_HEAD_BYTES, n_bytes - MO_SPILL_HEAD_BYTES, MADV_DONTNEED);
}

void *mo_constant_new(struct mopt_ctx *ctx, size_t n_bytes)
{
    void *mem = NULL;
    if (n_bytes >= MO_SPILL_LEAST_BYTES && ctx->io && ctx->io->spill)
        mem = ctx->io->spill(n_bytes);
    return mem ? mem : mo_mem_new(n_bytes, 1);
}

void mo_mem_free(void *mem)
{
    size_t n_bytes;
    char *mapping = mem ? mapping_of(mem, &n_bytes) : NULL;
    if (mapping)
        munmap(mapping, n_bytes);
    else if (mem)
        free(((void **)mem)[-1]);
}

/* ---- arena ---------------------------------------------------------------- */

struct mo_arena_block {
    struct mo_arena_block *next;
    size_t used, room;
    char bytes[];
};

enum { ARENA_ALIGN = 16, ARENA_BLOCK_BYTES = 16 << 10 };

static struct mo_arena_block *arena_block(struct mo_arena *arena, size_t at_least)
{
    size_t room = MO_MAX(at_least + ARENA_ALIGN, (size_t)ARENA_BLOCK_BYTES);
    if (arena->first && room == ARENA_BLOCK_BYTES && arena->total_bytes > 8 * ARENA_BLOCK_BYTES)
        room = 16 * ARENA_BLOCK_BYTES;
    struct mo_arena_block *block = mo_mem_new(1, sizeof *block + room);
    if (!block)
        return NULL;
    block->room = room;
    block->next = arena->first;
    arena->first = block;
    POISON(block->bytes, room);
    return block;
}

void *mo_arena_new(struct mo_arena *arena, size_t count, size_t elem_bytes)
{
    size_t bytes;
    if (!mo_mul_size(count, elem_bytes, &bytes) || bytes > SIZE_MAX / 4)
        return NULL;
    if (arena->cap_bytes && (bytes > arena->cap_bytes || arena->total_bytes > arena->cap_bytes - bytes))
        return NULL;
    size_t needed = (bytes + GAP_BYTES + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct mo_arena_block *block = arena->first;
    if (!block || block->room - block->used < needed + ARENA_ALIGN)
        block = arena_block(arena, needed);
    if (!block)
        return NULL;
    uintptr_t start = (uintptr_t)block->bytes + block->used;
    uintptr_t at = (start + ARENA_ALIGN - 1) & ~(uintptr_t)(ARENA_ALIGN - 1);
    block->used += (at - start) + needed;
    arena->total_bytes += needed;
    UNPOISON((void *)at, bytes);
    return (void *)at;
}

char *mo_arena_bytes(struct mo_arena *arena, const void *bytes, size_t n)
{
    char *copy = n < SIZE_MAX ? mo_arena_new(arena, n + 1, 1) : NULL;
    if (copy && n)
        memcpy(copy, bytes, n);
    return copy;
}

char *mo_arena_text(struct mo_arena *arena, const char *text)
{
    return text ? mo_arena_bytes(arena, text, strlen(text)) : NULL;
}

char *mo_arena_printf(struct mo_arena *arena, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    char *text = n < 0 ? NULL : mo_arena_new(arena, (size_t)n + 1, 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(args);
    return text;
}

void mo_arena_release(struct mo_arena *arena)
{
    for (struct mo_arena_block *block = arena->first, *next; block; block = next) {
        next = block->next;
        UNPOISON(block->bytes, block->room);
        mo_mem_free(block);
    }
    arena->first = NULL;
    arena->total_bytes = 0;
}
