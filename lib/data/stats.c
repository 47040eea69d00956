/* stats.c - mean, deviation, smallest and largest value of the training split.
 *
 * Images: a histogram of bytes per channel, exact whatever the number of threads. Tensors: Welford's update (B. P.
 * Welford, Technometrics 4(3), 1962), in the order of the samples. */
#include "lib/data/private.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CHANNELS = 4, CHUNK = 64, MAX_THREADS = 64 };

struct count {
    const struct mopt_dataset *d;
    struct mo_filler filler;
    atomic_size_t next;
    atomic_bool is_over;
    pthread_mutex_t lock;                   /* over the rest */
    uint64_t histogram[MAX_CHANNELS][256];
    enum mopt_status status;
    char why[512];
};

static void count_image(const struct mo_image *image, uint64_t (*histogram)[256])
{
    size_t c_n = (size_t)image->channels;
    for (int y = 0; y < image->height; y++) {
        const uint8_t *in = image->pixels + (size_t)y * image->stride;
        for (size_t x = 0; x < (size_t)image->width; x++)
            for (size_t c = 0; c < c_n; c++)
                histogram[c][in[x * c_n + c]]++;
    }
}

static void count_sample(struct count *count, struct mo_scratch *scratch, uint32_t index, uint64_t (*histogram)[256])
{
    char why[512] = "";
    struct mo_sample sample = {0};
    struct mo_image image;
    struct mo_source *source = count->filler.source;
    enum mopt_status s = source->read(source, index, &scratch->source, &sample, why, sizeof why);
    if (s == MOPT_DATA && !count->d->strict)
        return; /* the loader passes over it too, and counts it */
    if (!s)
        s = mo_fill_image(&count->filler, &sample, NULL, scratch, &image, why, sizeof why);
    if (!s) {
        count_image(&image, histogram);
        return;
    }
    atomic_store(&count->is_over, true);
    pthread_mutex_lock(&count->lock);
    if (!count->status) {
        count->status = s == MOPT_FAILED ? MOPT_DATA : s;
        snprintf(count->why, sizeof count->why, "%s", why);
    }
    pthread_mutex_unlock(&count->lock);
}

/* One thread's share; tell: the thread that may speak to the context. */
static void count_chunks(struct count *count, struct mopt_ctx *tell)
{
    uint64_t (*histogram)[256] = mo_mem_new(MAX_CHANNELS, sizeof *histogram);
    struct mo_scratch scratch = {0};
    const struct mo_indexes *part = &count->d->part[MO_SPLIT_TRAIN];
    while (histogram && !atomic_load(&count->is_over)) {
        size_t at = atomic_fetch_add(&count->next, CHUNK);
        if (at >= part->n)
            break;
        for (size_t i = at; i < MO_MIN(at + CHUNK, part->n); i++)
            count_sample(count, &scratch, part->items[i], histogram);
        if (tell)
            mo_progress(tell, "statistics", (double)MO_MIN(at + CHUNK, part->n), (double)part->n, "sample", NULL);
        if (tell && atomic_load(&tell->is_stopped))
            atomic_store(&count->is_over, true);
    }
    pthread_mutex_lock(&count->lock);
    if (!histogram && !count->status)
        count->status = MOPT_LIMIT;
    for (int c = 0; histogram && c < MAX_CHANNELS; c++)
        for (int b = 0; b < 256; b++)
            count->histogram[c][b] += histogram[c][b];
    pthread_mutex_unlock(&count->lock);
    mo_scratch_release(&scratch);
    mo_mem_free(histogram);
}

static void *count_thread(void *count)
{
    count_chunks(count, NULL);
    return NULL;
}

static void summarize(const uint64_t histogram[256], struct mo_stats *stats, uint32_t c)
{
    double n = 0, sum = 0, square = 0;
    int low = 256, high = -1;
    for (int b = 0; b < 256; b++) {
        n += (double)histogram[b];
        sum += (double)b * (double)histogram[b];
        if (histogram[b]) {
            low = MO_MIN(low, b);
            high = b;
        }
    }
    double mean = n > 0 ? sum / n : 0;
    for (int b = 0; b < 256; b++)
        square += (b - mean) * (b - mean) * (double)histogram[b];
    stats->mean[c] = mean;
    stats->deviation[c] = n > 0 ? sqrt(square / n) : 0;
    stats->low[c] = high < 0 ? 0 : low;
    stats->high[c] = MO_MAX(high, 0);
}

static enum mopt_status count_all(struct mopt_ctx *ctx, struct count *count, int n_threads)
{
    pthread_t threads[MAX_THREADS];
    int n_started = 0;
    while (n_started < n_threads - 1 && !pthread_create(&threads[n_started], NULL, count_thread, count))
        n_started++; /* fewer threads do the same work */
    count_chunks(count, ctx);
    for (int i = 0; i < n_started; i++)
        pthread_join(threads[i], NULL);
    MO_TRY(mo_stopped(ctx));
    if (count->status)
        return mo_fail(ctx, count->status, "%s", count->why[0] ? count->why : "out of memory for statistics");
    return MOPT_OK;
}

static enum mopt_status image_stats(struct mopt_ctx *ctx, struct mopt_dataset *d, struct mo_stats *stats)
{
    if (d->channels > MAX_CHANNELS)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "images have %d channels", d->channels);
    struct count *count = mo_mem_new(1, sizeof *count);
    if (!count)
        return mo_no_memory(ctx, sizeof *count, "statistics");
    count->d = d;
    count->filler = mo_filler_new(d, MO_SPLIT_TRAIN, false);
    pthread_mutex_init(&count->lock, NULL);
    int64_t n_threads = d->workers ? d->workers : ctx->n_threads;
    enum mopt_status s = count_all(ctx, count, (int)MO_MIN(MO_MAX(n_threads, 1), MAX_THREADS));
    for (uint32_t c = 0; !s && c < stats->n; c++)
        summarize(count->histogram[c], stats, c);
    pthread_mutex_destroy(&count->lock);
    mo_mem_free(count);
    return s;
}

/* ---- tensors ------------------------------------------------------------------------ */

struct moments { struct mo_stats *stats; uint64_t *n_seen; size_t inner, last; enum mo_value_axis axis; };

static bool add_sample(struct moments *m, const float *x, size_t n)
{
    struct mo_stats *s = m->stats;
    for (size_t k = 0; k < n; k++) {
        size_t e = m->axis == MO_AXIS_CHANNEL ? k / m->inner : m->axis == MO_AXIS_FEATURE ? k % m->last : 0;
        double v = (double)x[k], d = v - s->mean[e];
        if (!isfinite(v))
            return false;
        s->mean[e] += d / (double)++m->n_seen[e];
        s->deviation[e] += d * (v - s->mean[e]);
        s->low[e] = MO_MIN(s->low[e], v);
        s->high[e] = MO_MAX(s->high[e], v);
    }
    return true;
}

static enum mopt_status add_samples(struct mopt_ctx *ctx, struct mopt_dataset *d, struct moments *m,
                                    struct mo_scratch *scratch)
{
    struct mo_source *source = d->train;
    const struct mo_indexes *part = &d->part[MO_SPLIT_TRAIN];
    size_t n = d->input[0].n_elems;
    float *x = mo_buffer_grow(&scratch->floats, n * sizeof *x);
    if (!x)
        return mo_no_memory(ctx, n * sizeof *x, "statistics");
    for (size_t i = 0; i < part->n; i++) {
        char why[512] = "";
        struct mo_sample sample = {0};
        enum mopt_status s = source->read(source, part->items[i], &scratch->source, &sample, why, sizeof why);
        if (s == MOPT_DATA && !d->strict)
            continue;
        if (s)
            return mo_fail(ctx, s, "%s", why);
        mo_convert(source->dtype[0], sample.data[0], MO_F32, x, n);
        if (!add_sample(m, x, n))
            return mo_fail(ctx, MOPT_DATA, "%s: sample %u has a value that is not finite", source->path, part->items[i]);
        if (i % 4096 == 0)
            MO_TRY(mo_stopped(ctx));
    }
    return MOPT_OK;
}

static enum mopt_status tensor_stats(struct mopt_ctx *ctx, struct mopt_dataset *d, struct moments *m)
{
    struct mo_scratch scratch = {0};
    for (uint32_t e = 0; e < m->stats->n; e++) {
        m->stats->low[e] = INFINITY;
        m->stats->high[e] = -INFINITY;
    }
    enum mopt_status s = add_samples(ctx, d, m, &scratch);
    mo_scratch_release(&scratch);
    for (uint32_t e = 0; e < m->stats->n; e++) {
        m->stats->deviation[e] = m->n_seen[e] ? sqrt(m->stats->deviation[e] / (double)m->n_seen[e]) : 0;
        if (!m->n_seen[e])
            m->stats->low[e] = m->stats->high[e] = 0;
    }
    return s;
}

enum mopt_status mo_measure_stats(struct mopt_ctx *ctx, struct mopt_dataset *d, enum mo_value_axis axis,
                                  struct mo_stats *stats)
{
    const struct mo_source *source = d->train;
    const struct mo_shape *shape = &source->shape[0];
    size_t first = 1, last = 1, n = d->input[0].n_elems;
    bool is_image = source->kind == MO_SAMPLE_IMAGE;
    if (is_image)
        first = (size_t)d->channels;
    else if (shape->rank > 0) {
        first = (size_t)shape->dim[0];
        last = (size_t)shape->dim[shape->rank - 1];
    }
    size_t n_entries = is_image || axis == MO_AXIS_CHANNEL ? first : axis == MO_AXIS_FEATURE ? last : 1;
    if (!n_entries || n_entries > 1u << 24)
        return mo_fail(ctx, MOPT_LIMIT, "%s: statistics of %zu features", source->path, n_entries);
    double *mem = mo_arena_new(&d->arena, 4 * n_entries, sizeof *mem);
    if (!mem)
        return mo_no_memory(ctx, 4 * n_entries * sizeof *mem, "statistics");
    *stats = (struct mo_stats){.n = (uint32_t)n_entries, .mean = mem, .deviation = mem + n_entries,
                               .low = mem + 2 * n_entries, .high = mem + 3 * n_entries};
    if (is_image)
        return image_stats(ctx, d, stats);
    if (source->is_categorical && axis == MO_AXIS_FEATURE && shape->rank == 1)
        stats->fixed = source->is_categorical;
    struct moments m = {.stats = stats, .axis = axis, .inner = MO_MAX(n / MO_MAX(first, (size_t)1), (size_t)1),
                        .last = MO_MAX(last, (size_t)1)};
    m.n_seen = mo_mem_new(n_entries, sizeof *m.n_seen);
    if (!m.n_seen)
        return mo_no_memory(ctx, n_entries * sizeof *m.n_seen, "statistics");
    enum mopt_status s = tensor_stats(ctx, d, &m);
    mo_mem_free(m.n_seen);
    return s;
}
