/* prune_mask.c - which weights go: scores, and the exact choice of the smallest.
 *
 *     l1, l2   |w|                                        (the same order)
 *     lamp     w_u^2 / sum of w_v^2 over all v of the layer with |w_v| >= |w_u|
 *              (Lee et al., ICLR 2021): comparable between layers
 *     random   uniform, by the seed
 *     N:M      of every M neighbours along the summed axis the N largest stay
 *
 * Scores are non-negative floats, whose bits have the order of their values, so
 * the k smallest are found exactly by counting, in linear time; ties go by position. */
#include "lib/passes/prune.h"

#include "lib/base/spill.h"

#include <math.h>
#include <string.h>

enum { HALF_BITS = 16, N_BINS = 1 << HALF_BITS };

struct span { size_t first, n; };       /* of the flat arrays */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

/* The bin in which the k-th smallest lies (k >= 1); *below: how many lie in lower bins. */
static uint32_t bin_of_rank(const size_t *count, size_t k, size_t *below)
{
    uint32_t bin = 0;
    *below = 0;
    while (*below + count[bin] < k)
        *below += count[bin++];
    return bin;
}

/* keep = 0 for the k smallest scores in the spans. count: N_BINS of scratch. */
static void drop_smallest(const float *score, const struct span *spans, uint32_t n_spans, size_t k, uint8_t *keep,
                          size_t *count)
{
    size_t below_high, below_low;
    if (!k)
        return;
    memset(count, 0, N_BINS * sizeof(*count));
    for (uint32_t s = 0; s < n_spans; s++)
        for (size_t i = spans[s].first; i < spans[s].first + spans[s].n; i++)
            count[bits_of(score[i]) >> HALF_BITS]++;
    uint32_t high = bin_of_rank(count, k, &below_high);
    memset(count, 0, N_BINS * sizeof(*count));
    for (uint32_t s = 0; s < n_spans; s++)
        for (size_t i = spans[s].first; i < spans[s].first + spans[s].n; i++)
            if (bits_of(score[i]) >> HALF_BITS == high)
                count[bits_of(score[i]) & (N_BINS - 1)]++;
    uint32_t limit = high << HALF_BITS | bin_of_rank(count, k - below_high, &below_low);
    size_t n_ties = k - below_high - below_low;
    for (uint32_t s = 0; s < n_spans; s++) {
        for (size_t i = spans[s].first; i < spans[s].first + spans[s].n; i++) {
            uint32_t bits = bits_of(score[i]);
            if (bits < limit || (bits == limit && n_ties)) {
                keep[i] = 0;
                n_ties -= bits == limit;
            }
        }
    }
}

/* A weight by the bits of its magnitude, and its place. */
struct ranked { uint32_t bits, at; };

enum { DIGIT_BITS = 8, N_DIGITS = 1 << DIGIT_BITS };

/* The largest first, equal ones as they came: stable passes over digits, the lowest first (LSD radix sort). They are an even
 * number, so the result is in a again. */
static void rank(struct ranked *a, struct ranked *b, size_t n)
{
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) {
        size_t first[N_DIGITS + 1] = { 0 };
        for (size_t i = 0; i < n; i++)
            first[N_DIGITS - (a[i].bits >> shift) % N_DIGITS]++;
        for (int d = 0; d < N_DIGITS; d++)
            first[d + 1] += first[d];
        for (size_t i = 0; i < n; i++)
            b[first[N_DIGITS - 1 - (a[i].bits >> shift) % N_DIGITS]++] = a[i];
        struct ranked *other = a;
        a = b;
        b = other;
    }
}

/* order: scratch for 2 n weights. */
static void score_lamp(const float *w, size_t n, struct ranked *order, float *score)
{
    for (size_t i = 0; i < n; i++)
        order[i] = (struct ranked){ bits_of(fabsf(w[i])), (uint32_t)i };
    rank(order, order + n, n);
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        size_t i = order[k].at;
        double square = (double)w[i] * w[i];
        sum += square;
        score[i] = sum > 0 ? (float)(square / sum) : 0;
    }
}

static enum mopt_status score_layers(struct mopt_ctx *ctx, const struct mo_prune_layer *layers, uint32_t n_layers,
                                     const struct mo_prune_rule *rule, const float *w, float *score)
{
    size_t largest = 0;
    for (uint32_t l = 0; l < n_layers; l++)
        largest = MO_MAX(largest, layers[l].n);
    bool is_lamp = rule->score == MO_SCORE_LAMP;
    if (is_lamp && largest > UINT32_MAX)
        return mo_fail(ctx, MOPT_LIMIT, "a layer of %zu weights is too large to be ranked by lamp", largest);
    struct ranked *order = is_lamp ? mo_constant_new(ctx, (largest + 1) * 2 * sizeof(*order)) : NULL;
    if (is_lamp && !order)
        return mo_no_memory(ctx, largest * 2 * sizeof(*order), "scores");
    for (uint32_t l = 0; l < n_layers; l++) {
        const float *x = w + layers[l].first;
        float *s = score + layers[l].first;
        struct mo_rng rng = mo_rng_new(rule->seed, MO_RNG_PRUNE, l);
        if (is_lamp) {
            score_lamp(x, layers[l].n, order, s);
            continue;
        }
        for (size_t i = 0; i < layers[l].n; i++)
            s[i] = rule->score == MO_SCORE_RANDOM ? mo_rng_float(&rng) : fabsf(x[i]);
    }
    mo_mem_free(order);
    return MOPT_OK;
}

static size_t count_dropped(const uint8_t *keep, size_t first, size_t n)
{
    size_t dropped = 0;
    for (size_t i = first; i < first + n; i++)
        dropped += !keep[i];
    return dropped;
}

/* All layers ranked together. A layer that would lose more than max_layer gets exactly that much, and the others
 * share the rest; again, until none does. */
static void mask_global(const struct mo_prune_layer *layers, uint32_t n_layers, double max_layer, const float *score,
                        size_t n_drop, uint8_t *keep, struct span *spans, bool *is_full, size_t *count)
{
    for (bool again = true; again;) {
        uint32_t n_spans = 0;
        size_t left = n_drop, room = 0;
        again = false;
        for (uint32_t l = 0; l < n_layers; l++) {
            struct span one = { layers[l].first, layers[l].n };
            size_t cap = (size_t)floor(max_layer * (double)one.n);
            memset(keep + one.first, 1, one.n);
            if (is_full[l]) {
                drop_smallest(score, &one, 1, cap, keep, count);
                left -= MO_MIN(cap, left);
            } else {
                spans[n_spans++] = one;
                room += one.n;
            }
        }
        drop_smallest(score, spans, n_spans, MO_MIN(left, room), keep, count);
        for (uint32_t l = 0; l < n_layers; l++) {
            size_t cap = (size_t)floor(max_layer * (double)layers[l].n);
            if (!is_full[l] && count_dropped(keep, layers[l].first, layers[l].n) > cap)
                is_full[l] = again = true;
        }
    }
}

static void mask_by_layer(const struct mo_prune_layer *layers, uint32_t n_layers, const float *score, double share,
                          uint8_t *keep, size_t *count)
{
    for (uint32_t l = 0; l < n_layers; l++) {
        struct span one = { layers[l].first, layers[l].n };
        memset(keep + one.first, 1, one.n);
        drop_smallest(score, &one, 1, (size_t)llround(share * (double)one.n), keep, count);
    }
}

/* Of every n_of neighbours along axis_in the n_keep with the largest scores stay; ties to the first. What is left at the
 * end of a row stays dense. */
static void mask_pattern(const struct mo_shape *s, const struct mo_prune_layer *layer,
                         const struct mo_prune_rule *rule, const float *score, uint8_t *keep)
{
    int64_t outer = 1, inner = 1, n = s->dim[layer->axis_in];
    for (int k = 0; k < layer->axis_in; k++)
        outer *= s->dim[k];
    for (int k = layer->axis_in + 1; k < s->rank; k++)
        inner *= s->dim[k];
    memset(keep + layer->first, 1, layer->n);
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t i = 0; i + rule->n_of <= n; i += rule->n_of) {
            for (int64_t q = 0; q < inner; q++) {
                size_t at = layer->first + (size_t)((o * n + i) * inner + q);
                for (int gone = rule->n_keep; gone < rule->n_of; gone++) {
                    int low = -1;
                    for (int j = 0; j < rule->n_of; j++) {
                        size_t e = at + (size_t)(j * inner);
                        if (keep[e] && (low < 0 || score[e] <= score[at + (size_t)(low * inner)]))
                            low = j;
                    }
                    keep[at + (size_t)(low * inner)] = 0;
                }
            }
        }
    }
}

enum mopt_status mo_prune_mask(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_prune_layer *layers,
                               uint32_t n_layers, const struct mo_prune_rule *rule, const float *w, size_t n_elems,
                               size_t n_drop, uint8_t *keep)
{
    float *score = mo_constant_new(ctx, (n_elems + 1) * sizeof(*score));
    size_t *count = mo_mem_new(N_BINS, sizeof(*count));
    struct span *spans = mo_mem_new(n_layers + 1, sizeof(*spans));
    bool *is_full = mo_mem_new(n_layers + 1, sizeof(*is_full));
    enum mopt_status status = MOPT_OK;
    if (!score || !count || !spans || !is_full) {
        status = mo_no_memory(ctx, n_elems * sizeof(*score), "scores");
        goto done;
    }
    status = score_layers(ctx, layers, n_layers, rule, w, score);
    if (status)
        goto done;
    if (rule->n_of) {
        for (uint32_t l = 0; l < n_layers; l++)
            mask_pattern(&g->values[layers[l].value].shape, &layers[l], rule, score, keep);
    } else if (rule->scope == MO_SCOPE_LAYER) {
        mask_by_layer(layers, n_layers, score, n_elems ? (double)n_drop / (double)n_elems : 0, keep, count);
    } else {
        mask_global(layers, n_layers, rule->max_layer, score, n_drop, keep, spans, is_full, count);
    }
done:
    mo_mem_free(score);
    mo_mem_free(count);
    mo_mem_free(spans);
    mo_mem_free(is_full);
    return status;
}
