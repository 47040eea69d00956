/* split.c - which samples belong to which split. All choices are functions of the seed. */
#include "lib/data/private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum mopt_status new_list(struct mopt_ctx *ctx, size_t n, struct mo_indexes *list)
{
    list->items = mo_mem_new(MO_MAX(n, (size_t)1), sizeof *list->items);
    list->n = n;
    return list->items ? MOPT_OK : mo_no_memory(ctx, n * sizeof *list->items, "a list of samples");
}

static enum mopt_status all_of(struct mopt_ctx *ctx, const struct mo_source *source, struct mo_indexes *list)
{
    size_t n = source ? source->n_samples : 0;
    if (n >= UINT32_MAX)
        return mo_fail(ctx, MOPT_LIMIT, "%s: %zu samples are more than %u", source->path, n, UINT32_MAX - 1);
    MO_TRY(new_list(ctx, n, list));
    for (size_t i = 0; i < n; i++)
        list->items[i] = (uint32_t)i;
    return MOPT_OK;
}

static int by_index(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* A sample without a label counts with class 0 until reading it fails. */
static size_t class_of(struct mo_source *source, uint32_t index)
{
    int64_t label = source->label(source, index);
    return label >= 0 && label < source->n_classes ? (size_t)label : 0;
}

/* Sorts the shuffled list by class, keeping the random order within each: a counting sort. */
static enum mopt_status group_by_class(struct mopt_ctx *ctx, struct mo_source *source, struct mo_indexes *list,
                                       size_t *class_start, size_t n_classes)
{
    struct mo_indexes grouped;
    MO_TRY(new_list(ctx, list->n, &grouped));
    for (size_t i = 0; i < list->n; i++)
        class_start[class_of(source, list->items[i]) + 1]++;
    for (size_t c = 0; c < n_classes; c++)
        class_start[c + 1] += class_start[c];
    for (size_t i = 0; i < list->n; i++)
        grouped.items[class_start[class_of(source, list->items[i])]++] = list->items[i];
    memmove(class_start + 1, class_start, n_classes * sizeof *class_start);
    class_start[0] = 0;
    mo_mem_free(list->items);
    list->items = grouped.items;
    return MOPT_OK;
}

/* How many of each class make n_take in the same proportions: largest remainders. quota[c] is filled. */
static void share_out(const size_t *class_start, size_t n_classes, size_t n_take, size_t *quota)
{
    size_t total = class_start[n_classes], given = 0;
    for (size_t c = 0; c < n_classes; c++) {
        quota[c] = (size_t)((double)(class_start[c + 1] - class_start[c]) * (double)n_take / (double)total);
        given += quota[c];
    }
    while (given < n_take) {
        size_t best = n_classes;
        double most = -1;
        for (size_t c = 0; c < n_classes; c++) {
            size_t n = class_start[c + 1] - class_start[c];
            double missing = (double)n * (double)n_take / (double)total - (double)quota[c];
            if (quota[c] < n && missing > most) {
                most = missing;
                best = c;
            }
        }
        if (best == n_classes)
            return;
        quota[best]++;
        given++;
    }
}

/* Moves n_take of each class to the front of the list. */
static enum mopt_status stratify(struct mopt_ctx *ctx, struct mo_source *source, struct mo_indexes *list, size_t n_take)
{
    size_t n_classes = (size_t)source->n_classes, n_front = 0, n_back = n_take;
    size_t *class_start = mo_mem_new(2 * n_classes + 1, sizeof *class_start), *quota = class_start + n_classes + 1;
    struct mo_indexes sorted = {0};
    if (!class_start)
        return mo_no_memory(ctx, (2 * n_classes + 1) * sizeof *class_start, "classes");
    enum mopt_status s = group_by_class(ctx, source, list, class_start, n_classes);
    if (!s)
        s = new_list(ctx, list->n, &sorted);
    if (!s) {
        share_out(class_start, n_classes, n_take, quota);
        for (size_t c = 0; c < n_classes; c++)
            for (size_t i = class_start[c]; i < class_start[c + 1]; i++)
                sorted.items[i - class_start[c] < quota[c] ? n_front++ : n_back++] = list->items[i];
        mo_mem_free(list->items);
        list->items = sorted.items;
    }
    mo_mem_free(class_start);
    return s;
}

/* Takes n_take random samples out of `from` into `taken`; both end in ascending order. */
static enum mopt_status take(struct mopt_ctx *ctx, struct mo_source *source, struct mo_rng rng, size_t n_take,
                             bool stratified, struct mo_indexes *from, struct mo_indexes *taken)
{
    mo_rng_shuffle(&rng, from->items, from->n);
    if (stratified && n_take > 0 && n_take < from->n)
        MO_TRY(stratify(ctx, source, from, n_take));
    MO_TRY(new_list(ctx, n_take, taken));
    memcpy(taken->items, from->items, n_take * sizeof *taken->items);
    memmove(from->items, from->items + n_take, (from->n - n_take) * sizeof *from->items);
    from->n -= n_take;
    qsort(taken->items, taken->n, sizeof *taken->items, by_index);
    qsort(from->items, from->n, sizeof *from->items, by_index);
    return MOPT_OK;
}

static enum mopt_status take_subset(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_amount *subset,
                                    bool stratified)
{
    struct mo_indexes *train = &d->part[MO_SPLIT_TRAIN], chosen = {0};
    if (subset->kind == MO_AMOUNT_NONE || !train->n)
        return MOPT_OK;
    double wanted = subset->kind == MO_AMOUNT_COUNT ? subset->value : round(subset->value * (double)train->n);
    if (!(wanted >= 1))
        return mo_fail(ctx, MOPT_USAGE, "option 'subset': %g of %zu samples leaves none", subset->value, train->n);
    if (wanted >= (double)train->n) {
        if (subset->kind == MO_AMOUNT_COUNT && wanted > (double)train->n)
            mo_warn(ctx, "data", "--subset %g: there are only %zu training samples", wanted, train->n);
        return MOPT_OK;
    }
    struct mo_rng rng = mo_rng_new(d->seed, MO_RNG_SUBSET, 0);
    enum mopt_status s = take(ctx, d->train, rng, (size_t)wanted, stratified, train, &chosen);
    if (s)
        mo_mem_free(chosen.items);
    else {
        mo_mem_free(train->items);
        *train = chosen;
    }
    return s;
}

enum mopt_status mo_split_all(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_data_settings *settings)
{
    struct mo_indexes *train = &d->part[MO_SPLIT_TRAIN], *validation = &d->part[MO_SPLIT_VALIDATION];
    struct mo_indexes *eval = &d->part[MO_SPLIT_EVAL];
    bool can_stratify = d->train && d->train->target == MO_TARGET_CLASS && d->train->label;
    if (settings->stratify && d->train && !can_stratify)
        return mo_fail(ctx, MOPT_USAGE, "--stratify needs class labels; %s has none", d->train->path);
    MO_TRY(all_of(ctx, d->train, train));
    MO_TRY(all_of(ctx, d->train, &d->part[MO_SPLIT_ALL_TRAIN]));
    size_t n_held = (size_t)round(settings->val_split * (double)train->n);
    if (settings->val_split > 0 && train->n > 1)
        n_held = MO_MIN(MO_MAX(n_held, (size_t)1), train->n - 1);
    else
        n_held = 0;
    MO_TRY(take(ctx, d->train, mo_rng_new(d->seed, MO_RNG_SPLIT, 0), n_held, settings->stratify, train, validation));
    MO_TRY(take_subset(ctx, d, &settings->subset, settings->stratify));
    if (d->test)
        return all_of(ctx, d->test, eval);
    MO_TRY(new_list(ctx, validation->n, eval));
    memcpy(eval->items, validation->items, validation->n * sizeof *eval->items);
    return MOPT_OK;
}
