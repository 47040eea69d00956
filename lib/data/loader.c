/* loader.c - worker threads that fill batches ahead of the reader, in a ring.
 *
 * Batch b of an epoch is the samples order[b * batch ...]; order is a function of (seed, epoch). A worker takes the
 * next batch number and fills the slot b % n_slots alone, so a batch does not depend on who fills it or when. Data
 * that is cheap to read (already in memory; no image steps, or small images) is filled in the reader's own thread: another
 * thread would only take a core away from the engine.
 *
 * A bad sample is left out of its batch, which is then smaller; the other samples stay where they are. */
#include "lib/data/private.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WORKERS = 64, SPARE_SLOTS = 2, MAX_WARNINGS = 10, LIGHT_ELEMS = 64 * 64 };

struct bad { uint32_t index; char why[256]; };

struct slot {
    struct mo_batch batch;
    void *x[MO_MAX_INPUTS];
    int64_t *labels;
    float *targets;
    uint32_t *index, *place;
    int64_t *row_start;
    struct mo_sample_buffer columns, values;    /* CSR, growing */
    struct bad *bad;                            /* samples left out; room for a whole batch is made when the first comes */
    size_t n_bad, room_bad;
    bool is_ready;
    enum mopt_status status;
    char why[512];
};

struct mo_loader {
    struct mopt_ctx *ctx;
    struct mopt_dataset *d;
    struct mo_loader_options options;
    struct mo_filler filler;
    uint32_t *order;
    size_t n_samples, n_batches, n_whole;
    uint64_t epoch;
    struct slot *slots;
    size_t n_slots;
    struct mo_scratch *scratch;                 /* one a worker; one at least */
    pthread_t *threads;
    int n_threads;
    size_t n_warned;
    pthread_mutex_t lock;                       /* over the rest, and over slots[].is_ready */
    pthread_cond_t work, done;
    size_t next_fill, next_give, end;           /* batch numbers; give: the one that comes next */
    int n_busy, n_entered;
    bool is_closing;
};

/* ---- filling ---------------------------------------------------------------------- */

static enum mopt_status note_bad(struct slot *slot, uint32_t index, const char *why)
{
    if (slot->n_bad == slot->room_bad) {
        size_t room = slot->room_bad ? 2 * slot->room_bad : 8;
        struct bad *bad = mo_mem_grow(slot->bad, slot->n_bad * sizeof *bad, room * sizeof *bad);
        if (!bad)
            return MOPT_LIMIT;
        slot->bad = bad;
        slot->room_bad = room;
    }
    slot->bad[slot->n_bad].index = index;
    snprintf(slot->bad[slot->n_bad++].why, sizeof slot->bad->why, "%s", why);
    return MOPT_OK;
}

static bool grow(struct mo_sample_buffer *buffer, size_t used, size_t needed)
{
    if (needed <= buffer->bytes)
        return true;
    size_t bytes = MO_MAX(needed, 2 * buffer->bytes);
    void *mem = mo_mem_grow(buffer->mem, used, bytes);
    if (!mem)
        return false;
    buffer->mem = mem;
    buffer->bytes = bytes;
    return true;
}

/* A sparse row behind those the slot has. */
static enum mopt_status fill_sparse(const struct mo_loader *l, struct slot *slot, size_t row,
                                    const struct mo_sample *sample)
{
    size_t at = (size_t)slot->row_start[row], n = sample->n_values;
    if (!grow(&slot->columns, at * 4, (at + n + 1) * 4) || !grow(&slot->values, at * 4, (at + n + 1) * 4))
        return MOPT_LIMIT;
    float *values = (float *)slot->values.mem + at;
    if (n) {
        memcpy((int32_t *)slot->columns.mem + at, sample->columns, n * 4);
        memcpy(values, sample->values, n * 4);
    }
    mo_pipeline_values(l->filler.steps, values, n, 1, 1);
    slot->row_start[row + 1] = (int64_t)(at + n);
    return MOPT_OK;
}

/* Sample `index` of the source into place `row`. */
static enum mopt_status fill_row(const struct mo_loader *l, struct slot *slot, size_t row, uint32_t index,
                                 struct mo_scratch *scratch, char *why, size_t why_bytes)
{
    struct mo_source *source = l->filler.source;
    struct mo_sample sample = {0};
    struct mo_rng rng = mo_rng_new(l->options.seed, MO_RNG_AUGMENT, l->epoch << 32 | index);
    void *x[MO_MAX_INPUTS];
    MO_TRY(source->read(source, index, &scratch->source, &sample, why, why_bytes));
    if (source->kind == MO_SAMPLE_SPARSE)
        MO_TRY(fill_sparse(l, slot, row, &sample));
    else {
        for (uint32_t k = 0; k < l->d->n_inputs; k++)
            x[k] = (char *)slot->x[k] + row * l->d->input[k].n_bytes;
        MO_TRY(mo_fill_dense(&l->filler, &sample, &rng, scratch, x, why, why_bytes));
    }
    slot->index[row] = index;
    if (slot->labels)
        slot->labels[row] = sample.label;
    if (slot->targets)
        memcpy(slot->targets + row * (size_t)source->n_targets, sample.targets,
               (size_t)source->n_targets * sizeof *slot->targets);
    return MOPT_OK;
}

/* Rows n to the full batch as copies of row n - 1. */
static size_t pad_batch(const struct mo_loader *l, struct slot *slot, size_t n)
{
    for (size_t row = n; n && row < l->options.batch; row++) {
        for (uint32_t k = 0; slot->x[k] && k < l->d->n_inputs; k++) {
            size_t bytes = l->d->input[k].n_bytes;
            memcpy((char *)slot->x[k] + row * bytes, (char *)slot->x[k] + (n - 1) * bytes, bytes);
        }
        if (slot->row_start)
            slot->row_start[row + 1] = slot->row_start[row];
    }
    return n ? l->options.batch : 0;
}

static void describe_batch(const struct mo_loader *l, struct slot *slot, size_t n)
{
    const struct mopt_dataset *d = l->d;
    size_t n_rows = l->options.pad ? pad_batch(l, slot, n) : n;
    struct mo_batch *batch = &slot->batch;
    *batch = (struct mo_batch){.n = n, .n_inputs = d->n_inputs, .labels = slot->labels, .targets = slot->targets,
                               .index = slot->index, .place = slot->place};
    for (uint32_t k = 0; k < d->n_inputs; k++) {
        batch->x[k] = slot->x[k];
        batch->dtype[k] = d->input[k].dtype;
        batch->shape[k] = d->input[k].sample;
        if (d->has_batch) {
            struct mo_shape *s = &batch->shape[k];
            memmove(s->dim + 1, s->dim, sizeof s->dim - sizeof s->dim[0]);
            s->dim[0] = (int64_t)n_rows;
            s->rank++;
        }
    }
    if (l->filler.source->kind == MO_SAMPLE_SPARSE) {
        batch->is_sparse = true;
        batch->row_start = slot->row_start;
        batch->column = slot->columns.mem;
        batch->value = slot->values.mem;
    }
}

static void fill_batch(const struct mo_loader *l, struct slot *slot, size_t b, struct mo_scratch *scratch)
{
    const struct mo_loader_options *o = &l->options;
    size_t whole = (o->at + b * MO_MAX(o->by, 1u)) * o->batch, from = whole, to = MO_MIN(from + o->batch, l->n_samples),
           n = 0;
    if (o->n_parts) {
        size_t size = to - whole;
        to = whole + (size_t)(o->first_part + o->parts) * size / o->n_parts;
        from = whole + (size_t)o->first_part * size / o->n_parts;
    }
    slot->n_bad = 0;
    slot->status = MOPT_OK;
    for (size_t i = from; i < to && !slot->status; i++) {
        char why[512] = "out of memory for a batch";
        enum mopt_status s = fill_row(l, slot, n, l->order[i], scratch, why, sizeof why);
        if (!s)
            slot->place[n++] = (uint32_t)(i - whole);
        else if (s == MOPT_DATA && !l->d->strict)
            slot->status = note_bad(slot, l->order[i], why);
        else {
            slot->status = s == MOPT_FAILED ? MOPT_DATA : s;
            snprintf(slot->why, sizeof slot->why, "%s", why);
        }
    }
    describe_batch(l, slot, n);
}

static void *work(void *argument)
{
    struct mo_loader *l = argument;
    pthread_mutex_lock(&l->lock);
    struct mo_scratch *scratch = &l->scratch[l->n_entered++];
    while (!l->is_closing) {
        if (l->next_fill >= l->end || l->next_fill >= l->next_give + l->n_slots - 1) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        size_t b = l->next_fill++;
        struct slot *slot = &l->slots[b % l->n_slots];
        slot->is_ready = false;
        l->n_busy++;
        pthread_mutex_unlock(&l->lock);
        fill_batch(l, slot, b, scratch);
        pthread_mutex_lock(&l->lock);
        slot->is_ready = true;
        l->n_busy--;
        pthread_cond_broadcast(&l->done);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------- */

static enum mopt_status new_slot(struct mopt_ctx *ctx, const struct mo_loader *l, struct slot *slot)
{
    const struct mo_source *source = l->filler.source;
    size_t batch = l->options.batch, total = batch * sizeof *slot->index;
    bool ok = (slot->index = mo_mem_new(batch, sizeof *slot->index));
    ok &= !!(slot->place = mo_mem_new(batch, sizeof *slot->place));
    if (source->kind == MO_SAMPLE_SPARSE)
        ok &= !!(slot->row_start = mo_mem_new(batch + 1, sizeof *slot->row_start));
    for (uint32_t k = 0; k < l->d->n_inputs && source->kind != MO_SAMPLE_SPARSE; k++) {
        total += batch * l->d->input[k].n_bytes;
        ok &= !!(slot->x[k] = mo_mem_new(MO_MAX(l->d->input[k].n_bytes, (size_t)1), batch));
    }
    if (source->target == MO_TARGET_CLASS)
        ok &= !!(slot->labels = mo_mem_new(batch, sizeof *slot->labels));
    if (source->target == MO_TARGET_VALUES)
        ok &= !!(slot->targets = mo_mem_new(batch, (size_t)source->n_targets * sizeof *slot->targets));
    return ok ? MOPT_OK : mo_no_memory(ctx, total, "a batch");
}

static void free_slot(struct slot *slot)
{
    for (size_t k = 0; k < MO_MAX_INPUTS; k++)
        mo_mem_free(slot->x[k]);
    mo_mem_free(slot->labels);
    mo_mem_free(slot->targets);
    mo_mem_free(slot->index);
    mo_mem_free(slot->place);
    mo_mem_free(slot->row_start);
    mo_mem_free(slot->columns.mem);
    mo_mem_free(slot->values.mem);
    mo_mem_free(slot->bad);
}

/* 0: the reader fills its own batches. */
static int count_workers(const struct mopt_ctx *ctx, const struct mo_loader *l)
{
    if (l->d->workers)
        return (int)MO_MIN(l->d->workers, (int64_t)MAX_WORKERS);
    bool is_light = l->filler.source->is_cheap &&
                    (!mo_pipeline_has_image_steps(l->filler.steps) || l->d->input[0].n_elems <= LIGHT_ELEMS);
    return is_light ? 0 : MO_MIN(MO_MAX(ctx->n_threads, 1), (int)MAX_WORKERS);
}

static enum mopt_status start_threads(struct mopt_ctx *ctx, struct mo_loader *l, int n_wanted)
{
    l->threads = mo_mem_new((size_t)n_wanted + 1, sizeof *l->threads);
    l->scratch = mo_mem_new((size_t)n_wanted + 1, sizeof *l->scratch);
    l->n_slots = n_wanted ? (size_t)n_wanted + SPARE_SLOTS : 1;
    l->slots = mo_mem_new(l->n_slots, sizeof *l->slots);
    if (!l->threads || !l->scratch || !l->slots)
        return mo_no_memory(ctx, l->n_slots * sizeof *l->slots, "a loader");
    for (size_t i = 0; i < l->n_slots; i++)
        MO_TRY(new_slot(ctx, l, &l->slots[i]));
    while (l->n_threads < n_wanted && !pthread_create(&l->threads[l->n_threads], NULL, work, l))
        l->n_threads++;
    return MOPT_OK; /* with fewer threads, or none, the same batches come more slowly */
}

enum mopt_status mo_loader_new(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_loader_options *options,
                               struct mo_loader **loader)
{
    *loader = NULL;
    if (!options->batch)
        return mo_fail(ctx, MOPT_USAGE, "a batch of 0 samples");
    if (!mo_split_source(d, options->split))
        return mo_fail(ctx, MOPT_DATA, "there is no training data: add --data");
    if (!d->has_batch && options->batch > 1)
        return mo_fail(ctx, MOPT_USAGE, "the model's input has no batch dimension: use --batch 1");
    struct mo_loader *l = mo_mem_new(1, sizeof *l);
    if (!l)
        return mo_no_memory(ctx, sizeof *l, "a loader");
    l->ctx = ctx;
    l->d = d;
    l->options = *options;
    l->filler = mo_filler_new(d, options->split, options->augment);
    const struct mo_indexes *part = &d->part[options->split];
    l->n_samples = options->limit ? MO_MIN(part->n, (size_t)options->limit) : part->n;
    l->options.batch = MO_MAX(MO_MIN(options->batch, l->n_samples), (size_t)1);
    l->n_batches = l->n_samples / options->batch + (!options->drop_last && l->n_samples % options->batch);
    l->n_whole = l->n_batches;
    if (options->by)
        l->n_batches = l->n_batches > options->at ? (l->n_batches - options->at + options->by - 1) / options->by : 0;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    l->order = mo_mem_new(MO_MAX(part->n, (size_t)1), sizeof *l->order);
    enum mopt_status s = l->order ? start_threads(ctx, l, count_workers(ctx, l))
                                  : mo_no_memory(ctx, part->n * sizeof *l->order, "the order of samples");
    if (s)
        mo_loader_free(l);
    else
        *loader = l;
    return s;
}

void mo_loader_free(struct mo_loader *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->is_closing = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_threads; i++)
        pthread_join(l->threads[i], NULL);
    for (size_t i = 0; l->slots && i < l->n_slots; i++)
        free_slot(&l->slots[i]);
    for (int i = 0; l->scratch && i < MO_MAX(l->n_threads, 1); i++)
        mo_scratch_release(&l->scratch[i]);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
    mo_mem_free(l->threads);
    mo_mem_free(l->scratch);
    mo_mem_free(l->slots);
    mo_mem_free(l->order);
    mo_mem_free(l);
}

/* The order of an epoch. A limit without shuffling takes samples evenly over the split, since files are often sorted
 * by class. */
static void set_order(struct mo_loader *l, uint64_t epoch)
{
    const struct mo_indexes *part = &l->d->part[l->options.split];
    if (l->options.shuffle) {
        struct mo_rng rng = mo_rng_new(l->options.seed, MO_RNG_SHUFFLE, epoch);
        memcpy(l->order, part->items, part->n * sizeof *l->order);
        mo_rng_shuffle(&rng, l->order, part->n);
    } else
        for (size_t i = 0; i < l->n_samples; i++)
            l->order[i] = part->items[(size_t)((double)i * (double)part->n / (double)l->n_samples)];
}

enum mopt_status mo_loader_start(struct mo_loader *l, uint64_t epoch, size_t first_batch)
{
    if (first_batch > l->n_batches)
        return mo_fail(l->ctx, MOPT_USAGE, "batch %zu of an epoch with %zu", first_batch, l->n_batches);
    pthread_mutex_lock(&l->lock);
    l->end = l->next_fill; /* nothing new is taken up until the order is there */
    while (l->n_busy)
        pthread_cond_wait(&l->done, &l->lock);
    l->epoch = epoch & 0xffff;
    set_order(l, epoch);
    for (size_t i = 0; i < l->n_slots; i++)
        l->slots[i].is_ready = false;
    l->next_fill = l->next_give = first_batch;
    l->end = l->n_batches;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return MOPT_OK;
}

/* The reader's thread: tells of samples that were left out, once each. */
static void tell_bad(struct mo_loader *l, const struct slot *slot)
{
    struct mopt_dataset *d = l->d;
    uint8_t *is_bad = d->is_bad[l->filler.source == d->test];
    for (size_t i = 0; i < slot->n_bad; i++) {
        const struct bad *bad = &slot->bad[i];
        if (is_bad[bad->index])
            continue;
        is_bad[bad->index] = 1;
        d->n_skipped++;
        if (l->n_warned < MAX_WARNINGS)
            mo_warn(l->ctx, "data", "sample left out: %s%s", bad->why,
                    l->n_warned + 1 == MAX_WARNINGS ? " (more of these are only counted)" : "");
        l->n_warned++;
    }
}

static struct slot *wait_for(struct mo_loader *l, size_t b)
{
    struct slot *slot = &l->slots[b % l->n_slots];
    if (!l->n_threads) {
        fill_batch(l, slot, b, &l->scratch[0]);
        return slot;
    }
    pthread_mutex_lock(&l->lock);
    while (!slot->is_ready)
        pthread_cond_wait(&l->done, &l->lock);
    pthread_mutex_unlock(&l->lock);
    return slot;
}

enum mopt_status mo_loader_next(struct mo_loader *l, const struct mo_batch **batch)
{
    static const struct mo_batch over = {0};
    while (l->next_give < l->end) {
        struct slot *slot = wait_for(l, l->next_give);
        pthread_mutex_lock(&l->lock);
        l->next_give++; /* the slot given before this one is free now; this one stays until the next call */
        slot->is_ready = false;
        pthread_cond_broadcast(&l->work);
        pthread_mutex_unlock(&l->lock);
        tell_bad(l, slot);
        if (slot->status)
            return mo_fail(l->ctx, slot->status, "%s", slot->why);
        if (slot->batch.n || l->options.n_parts || l->options.by) { /* else every sample of it was bad */
            *batch = &slot->batch;
            return MOPT_OK;
        }
    }
    *batch = &over;
    return MOPT_OK;
}

size_t mo_loader_bytes(const struct mo_loader *l)
{
    size_t sample = sizeof *l->order;
    for (uint32_t k = 0; k < l->d->n_inputs && l->filler.source->kind != MO_SAMPLE_SPARSE; k++)
        sample += l->d->input[k].n_bytes;
    return l->n_slots * l->options.batch * sample + l->n_samples * sizeof *l->order;
}

size_t mo_loader_n_whole(const struct mo_loader *l)
{
    return l->n_whole;
}

size_t mo_loader_n_batches(const struct mo_loader *l)
{
    return l->n_batches;
}
