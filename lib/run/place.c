/* place.c - the memory planner: a pure function from lifetimes to offsets.
 *
 * Largest first, lowest free offset. On lifetimes as training has them this lies
 * within a few percent of the peak of live bytes; nothing cleverer is needed. */
#include <stdlib.h>

#include "lib/run/private.h"

static int larger_first(const void *a, const void *b, void *arg)
{
    const struct mo_span *spans = arg;
    const struct mo_span *x = &spans[*(const uint32_t *)a], *y = &spans[*(const uint32_t *)b];
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

static bool overlap_in_time(const struct mo_span *a, const struct mo_span *b)
{
    return a->first_step <= b->last_step && b->first_step <= a->last_step;
}

static size_t aligned(size_t bytes)
{
    return (bytes + MO_ALIGN_BYTES - 1) / MO_ALIGN_BYTES * MO_ALIGN_BYTES;
}

/* placed: indexes of placed spans in order of offset. */
static size_t lowest_offset(const struct mo_span *spans, const uint32_t *placed, uint32_t n_placed,
                            const struct mo_span *span)
{
    size_t at = 0;
    for (uint32_t i = 0; i < n_placed; i++) {
        const struct mo_span *other = &spans[placed[i]];
        if (!overlap_in_time(other, span))
            continue;
        if (other->offset >= at + span->bytes)
            break;
        size_t end = aligned(other->offset + other->bytes);
        at = end > at ? end : at;
    }
    return at;
}

size_t mo_place(struct mo_span *spans, uint32_t n)
{
    uint32_t *order = mo_mem_new((size_t)n * 2 + 1, sizeof *order);
    uint32_t *placed = order ? order + n : NULL, n_placed = 0;
    size_t total = 0;
    if (!order)
        return SIZE_MAX;
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, n, sizeof *order, larger_first, spans);
    for (uint32_t i = 0; i < n; i++) {
        struct mo_span *span = &spans[order[i]];
        span->offset = 0;
        if (span->bytes == 0)
            continue;
        span->offset = lowest_offset(spans, placed, n_placed, span);
        total = MO_MAX(total, aligned(span->offset + span->bytes));
        uint32_t at = n_placed++;
        for (; at > 0 && spans[placed[at - 1]].offset > span->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = order[i];
    }
    mo_mem_free(order);
    return total;
}
