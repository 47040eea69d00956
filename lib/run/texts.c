/* texts.c - see texts.h. Texts lie in an arena and stay where they are; a table of hashes, open addressing, finds it again. */
#include "lib/run/texts.h"

#include <string.h>

enum { FIRST_SLOTS = 64 };

struct text { const char *bytes; size_t n_bytes; uint64_t hash; };

struct mo_texts {
    struct mo_arena arena;
    size_t n_bytes;                                 /* of all texts */
    struct text *items; size_t n, room_items;       /* by number */
    uint32_t *slots; size_t n_slots;                /* number + 1; 0 is free */
};

struct mo_texts *mo_texts_new(void)
{
    return mo_mem_new(1, sizeof(struct mo_texts));
}

void mo_texts_free(struct mo_texts *t)
{
    if (!t)
        return;
    mo_arena_release(&t->arena);
    mo_mem_free(t->items);
    mo_mem_free(t->slots);
    mo_mem_free(t);
}

const char *mo_texts_at(const struct mo_texts *t, int64_t number, size_t *n_bytes)
{
    if (n_bytes)
        *n_bytes = 0;
    if (number == 0)
        return "";
    if (number < 0 || (uint64_t)number >= t->n)
        return NULL;
    if (n_bytes)
        *n_bytes = t->items[number].n_bytes;
    return t->items[number].bytes;
}

/* ---- adding ---- */

static bool grow_items(struct mo_texts *t)
{
    size_t room = MO_MAX(2 * t->room_items, (size_t)FIRST_SLOTS / 2);
    if (t->n < t->room_items)
        return true;
    struct text *items = mo_mem_grow(t->items, t->room_items * sizeof *items, room * sizeof *items);
    if (!items)
        return false;
    t->items = items;
    t->room_items = room;
    return true;
}

static void put_slot(struct mo_texts *t, size_t number)
{
    size_t at = t->items[number].hash & (t->n_slots - 1);
    while (t->slots[at])
        at = (at + 1) & (t->n_slots - 1);
    t->slots[at] = (uint32_t)number + 1;
}

/* At most half of the slots are taken. */
static bool grow_slots(struct mo_texts *t)
{
    if (2 * (t->n + 1) <= t->n_slots)
        return true;
    size_t n_slots = MO_MAX(2 * t->n_slots, (size_t)FIRST_SLOTS);
    uint32_t *slots = mo_mem_new(n_slots, sizeof *slots);
    if (!slots)
        return false;
    mo_mem_free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    for (size_t k = 1; k < t->n; k++)
        put_slot(t, k);
    return true;
}

static int64_t find(const struct mo_texts *t, const char *text, size_t n_bytes, uint64_t hash)
{
    for (size_t at = hash & (t->n_slots - 1); t->n_slots && t->slots[at]; at = (at + 1) & (t->n_slots - 1)) {
        const struct text *item = &t->items[t->slots[at] - 1];
        if (item->hash == hash && item->n_bytes == n_bytes && !memcmp(item->bytes, text, n_bytes))
            return t->slots[at] - 1;
    }
    return 0;
}

enum mopt_status mo_texts_number(struct mopt_ctx *ctx, struct mo_texts *t, const char *text, size_t n_bytes, int64_t *number)
{
    uint64_t hash = mo_hash64(text, n_bytes, 0);
    *number = n_bytes ? find(t, text, n_bytes, hash) : 0;
    if (*number || !n_bytes)
        return MOPT_OK;
    t->n = MO_MAX(t->n, (size_t)1);         /* number 0 is the empty text */
    size_t all = t->n_bytes + n_bytes + t->n * sizeof *t->items;
    if (t->n >= UINT32_MAX - 1 || (ctx->max_memory_bytes && all > ctx->max_memory_bytes))
        return mo_fail(ctx, MOPT_LIMIT, "%zu texts of %zu MiB in all are beyond the limit of memory", t->n, all >> 20);
    const char *copy = mo_arena_bytes(&t->arena, text, n_bytes);
    if (!copy || !grow_items(t) || !grow_slots(t))
        return mo_no_memory(ctx, all, "texts");
    t->items[t->n] = (struct text){ copy, n_bytes, hash };
    t->n_bytes += n_bytes + 1;
    put_slot(t, t->n);
    *number = (int64_t)t->n++;
    return MOPT_OK;
}

/* ---- several ---- */

enum mopt_status mo_texts_numbers(struct mopt_ctx *ctx, struct mo_texts *t, const char *const *texts, size_t n,
                                  int64_t *numbers)
{
    for (size_t i = 0; i < n; i++)
        MO_TRY(mo_texts_number(ctx, t, texts[i], strlen(texts[i]), &numbers[i]));
    return MOPT_OK;
}

enum mopt_status mo_texts_parse(struct mopt_ctx *ctx, struct mo_texts *t, const char *block, size_t n_bytes, size_t n,
                                int64_t *numbers)
{
    for (size_t i = 0; i < n; i++) {
        const char *end = n_bytes ? memchr(block, 0, n_bytes) : NULL;
        if (!end)
            return mo_fail(ctx, MOPT_DATA, "%zu texts where %zu are wanted", i, n);
        MO_TRY(mo_texts_number(ctx, t, block, (size_t)(end - block), &numbers[i]));
        n_bytes -= (size_t)(end + 1 - block);
        block = end + 1;
    }
    return MOPT_OK;
}

enum mopt_status mo_texts_block(struct mopt_ctx *ctx, const struct mo_texts *t, const int64_t *numbers, size_t n,
                                char **block, size_t *n_bytes)
{
    size_t all = 0, one;
    *block = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!mo_texts_at(t, numbers[i], &one))
            return mo_fail(ctx, MOPT_FAILED, "element %zu is no text", i);
        all += one + 1;
    }
    char *at = *block = mo_mem_new(all + 1, 1);
    if (!at)
        return mo_no_memory(ctx, all, "texts");
    *n_bytes = all;
    for (size_t i = 0; i < n; i++) {
        const char *text = mo_texts_at(t, numbers[i], &one);
        memcpy(at, text, one + 1);
        at += one + 1;
    }
    return MOPT_OK;
}
