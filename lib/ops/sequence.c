/* sequence.c - see sequence.h. */
#include "lib/ops/sequence.h"

#include <string.h>

/* What stands before the elements: the count, and an entry for each item. */
struct entry { int64_t dtype, rank, dim[MO_MAX_RANK], at, bytes; };     /* at: from the start of the block */

enum { MAGIC = 0x6d6f7365 };
struct head { int64_t magic, n; };

static size_t item_bytes(const struct mo_item *item)
{
    return mo_dtype_bytes(item->dtype, mo_shape_elems(&item->shape));
}

size_t mo_sequence_bytes(const struct mo_item *items, int64_t n)
{
    size_t sum = sizeof(struct head), entries;
    if (n < 0 || !mo_mul_size((size_t)n, sizeof(struct entry), &entries) || entries > SIZE_MAX / 4)
        return SIZE_MAX;
    sum = mo_part_bytes(sum + entries);
    for (int64_t i = 0; i < n; i++) {
        size_t bytes = item_bytes(&items[i]);
        if (bytes > SIZE_MAX / 4 || sum > SIZE_MAX / 4)
            return SIZE_MAX;
        sum += mo_part_bytes(bytes);
    }
    return sum;
}

void mo_sequence_write(const struct mo_item *items, int64_t n, void *to)
{
    struct head *head = to;
    struct entry *entries = (struct entry *)(head + 1);
    size_t at = mo_part_bytes(sizeof *head + (size_t)n * sizeof *entries);
    *head = (struct head){ MAGIC, n };
    for (int64_t i = 0; i < n; i++) {
        const struct mo_item *item = &items[i];
        size_t bytes = item_bytes(item);
        entries[i] = (struct entry){ .dtype = item->dtype, .rank = item->shape.rank, .at = (int64_t)at,
                                     .bytes = (int64_t)bytes };
        for (int k = 0; k < item->shape.rank; k++)
            entries[i].dim[k] = item->shape.dim[k];
        if (bytes)
            memcpy((char *)to + at, item->data, bytes);
        at += mo_part_bytes(bytes);
    }
}

static bool is_sound(const struct entry *e, size_t bytes)
{
    struct mo_shape shape = { .rank = (int)e->rank };
    enum mo_dtype dtype = (enum mo_dtype)e->dtype;
    if (e->rank < 0 || e->rank > MO_MAX_RANK || e->dtype < 0 || e->dtype > MO_OPTIONAL || !mo_dtype_bits(dtype))
        return false;
    memcpy(shape.dim, e->dim, sizeof shape.dim);
    for (int k = 0; k < shape.rank; k++)
        if (shape.dim[k] < 0)
            return false;
    return e->bytes >= 0 && e->at >= 0 && (uint64_t)e->at <= bytes && (uint64_t)e->bytes <= bytes - (uint64_t)e->at &&
           mo_dtype_bytes(dtype, mo_shape_elems(&shape)) == (size_t)e->bytes;
}

enum mopt_status mo_sequence_check(struct mopt_ctx *ctx, const void *block, size_t bytes, int64_t *n)
{
    const struct head *head = block;
    const struct entry *entries = (const struct entry *)(head + 1);
    bool fits = block && bytes >= sizeof *head && head->magic == MAGIC && head->n >= 0 &&
                (uint64_t)head->n <= (bytes - sizeof *head) / sizeof *entries;
    for (int64_t i = 0; fits && i < head->n; i++)
        fits = is_sound(&entries[i], bytes);
    if (!fits)
        return mo_fail(ctx, MOPT_DATA, "what is given as a sequence or optional is none");
    *n = head->n;
    return MOPT_OK;
}

struct mo_item mo_sequence_item(const void *block, int64_t i)
{
    const struct entry *e = (const struct entry *)((const struct head *)block + 1) + i;
    struct mo_item item = { .dtype = (enum mo_dtype)e->dtype, .shape.rank = (int)e->rank,
                            .data = (const char *)block + e->at };
    memcpy(item.shape.dim, e->dim, sizeof e->dim);
    return item;
}

/* ---- for operators ---- */

void mo_set_out_list(struct mo_graph *g, const struct mo_node *n, uint32_t k, enum mo_dtype list, enum mo_dtype element)
{
    struct mo_shape bytes = mo_shape_of(1, (int64_t)MO_UNKNOWN);
    if (k >= n->n_out || n->out[k] == MO_NONE)
        return;
    mo_set_out(g, n, k, list, &bytes);
    g->values[n->out[k]].element = element;
}

enum mopt_status mo_sequence_put(struct mo_host *h, uint32_t k, enum mo_dtype list, const struct mo_item *items, int64_t n)
{
    size_t bytes = mo_sequence_bytes(items, n);
    struct mo_shape shape = mo_shape_of(1, (int64_t)bytes);
    if (k >= h->node->n_out || h->node->out[k] == MO_NONE)
        return MOPT_OK;
    if (bytes == SIZE_MAX)
        return mo_no_memory(h->run->ctx, bytes, "a sequence");
    void *to = mo_run_make_out(h->run, h->node, k, list, &shape);
    if (!to)
        return h->run->ctx->status;
    if (h->run->be->is_host) {
        mo_sequence_write(items, n, to);
        return MOPT_OK;
    }
    void *block = mo_mem_new(bytes, 1);
    if (!block)
        return mo_no_memory(h->run->ctx, bytes, "a sequence");
    mo_sequence_write(items, n, block);
    mo_host_put(h, k, block);
    mo_mem_free(block);
    return MOPT_OK;
}

enum mopt_status mo_sequence_hand_out(struct mo_host *h, uint32_t k, const struct mo_item *item)
{
    return mo_host_make(h, k, item->dtype, &item->shape, item->data);
}

enum mopt_status mo_sequence_take(struct mo_host *h, uint32_t i, struct mo_item **items, int64_t *n)
{
    const struct mo_value *v = mo_in(h->run->graph, h->node, i);
    *items = NULL;
    if (v->dtype != MO_SEQUENCE && v->dtype != MO_OPTIONAL)
        return mo_fail(h->run->ctx, MOPT_DATA, "'%s' is %s, it should be a sequence", v->name, mo_dtype_name(v->dtype));
    MO_TRY(mo_sequence_check(h->run->ctx, h->in[i], mo_value_bytes(v), n));
    *items = mo_mem_new((size_t)*n + 1, sizeof **items);
    if (!*items)
        return mo_no_memory(h->run->ctx, (size_t)*n * sizeof **items, "a sequence");
    for (int64_t k = 0; k < *n; k++)
        (*items)[k] = mo_sequence_item(h->in[i], k);
    return MOPT_OK;
}
