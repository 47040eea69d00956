/* histogram.c - streaming histograms of activations, and the ranges read from them.
 *
 * Elements e with counts p(e), a range [low, high] cut into n_levels - 1 steps s:
 *   minmax      the smallest and the largest element
 *   percentile  drop the outermost 1 - p of the elements (half on each side when both signs occur)
 *   mse         argmin sum p(e) (e - Q(e))^2 over 100 shrinks of the min-max range from 1.0 to 0.2, both ends
 *               together, then each end alone
 *   entropy     argmin KL(P || Q): P the elements clipped to the range, Q the same merged into n_levels
 *               (Migacz, "8-bit inference with TensorRT", GTC 2017) */
#include "lib/passes/calibrate.h"
#include "lib/run/ranks.h"

#include <math.h>
#include <string.h>

/* ---- filling ------------------------------------------------------------------- */

bool mo_histogram_scratch_new(const struct mo_backend *be, struct mo_device *dev, struct mo_histogram_scratch *scratch)
{
    scratch->range = be->alloc(dev, 2 * sizeof(float));
    scratch->n_nan = be->alloc(dev, sizeof(uint64_t));
    scratch->counts = be->alloc(dev, MO_HIST_BINS * sizeof(uint64_t));
    if (scratch->range && scratch->n_nan && scratch->counts)
        return true;
    mo_histogram_scratch_free(be, dev, scratch);
    return false;
}

void mo_histogram_scratch_free(const struct mo_backend *be, struct mo_device *dev, struct mo_histogram_scratch *scratch)
{
    if (scratch->range)
        be->free(dev, scratch->range);
    if (scratch->n_nan)
        be->free(dev, scratch->n_nan);
    if (scratch->counts)
        be->free(dev, scratch->counts);
    memset(scratch, 0, sizeof *scratch);
}

/* Twice the width; the old bins fill the lower half, or the upper one. */
static void grow(struct mo_histogram *h, bool downwards)
{
    const size_t half = MO_HIST_BINS / 2;
    uint64_t merged[MO_HIST_BINS / 2];
    for (size_t i = 0; i < half; i++)
        merged[i] = h->counts[2 * i] + h->counts[2 * i + 1];
    memset(h->counts, 0, sizeof h->counts);
    memcpy(h->counts + (downwards ? half : 0), merged, sizeof merged);
    if (downwards)
        h->low -= h->width * MO_HIST_BINS;
    h->width *= 2;
}

/* Make the bins cover [min, max]. The first range gets an eighth of room on the sides where
 * elements were, since later batches nearly always reach a little further. */
static void cover(struct mo_histogram *h, float min, float max)
{
    if (!h->is_open) {
        double low = MO_MIN(min, 0.0f) * 1.125, high = MO_MAX(max, 0.0f) * 1.125;
        if (low == high)
            return;
        h->low = low;
        h->width = (high - low) / MO_HIST_BINS;
        h->is_open = true;
        size_t zero_bin = (size_t)MO_MIN(-low / h->width, MO_HIST_BINS - 1.0);
        h->counts[zero_bin] += h->n_flat;
        return;
    }
    while (max > h->low + h->width * MO_HIST_BINS)
        grow(h, false);
    while (min < h->low)
        grow(h, true);
}

/* Of the elements that are added. */
struct extent { float low, high; uint64_t n, n_nan; };

static enum mopt_status measure(struct mopt_ctx *ctx, const struct mo_backend *be, struct mo_device *dev,
                                struct mo_histogram_scratch *scratch, const float *x, size_t n, struct extent *e)
{
    float range[2] = { INFINITY, -INFINITY };
    char why[256];
    *e = (struct extent){ 0, 0, n, 0 };
    if (!n)
        return MOPT_OK;
    be->upload(dev, scratch->range, range, sizeof range);
    be->upload(dev, scratch->n_nan, &e->n_nan, sizeof e->n_nan);
    be->range(dev, n, x, scratch->range, scratch->n_nan);
    if (be->sync(dev, why, sizeof why))
        return mo_fail(ctx, MOPT_FAILED, "%s", why);
    be->download(dev, range, scratch->range, sizeof range);
    be->download(dev, &e->n_nan, scratch->n_nan, sizeof e->n_nan);
    e->low = range[0];
    e->high = range[1];
    return MOPT_OK;
}

/* Make room for them, as if they came one after the other. */
static enum mopt_status make_room(struct mopt_ctx *ctx, struct mo_histogram *h, const struct extent *e)
{
    if (!e->n)
        return MOPT_OK;
    if (e->n_nan || !isfinite(e->low) || !isfinite(e->high))
        return mo_fail(ctx, MOPT_DATA, "%s among the activations; a model must give finite numbers to be calibrated",
                       e->n_nan ? "NaN" : "infinity");
    h->min = h->n ? MO_MIN(h->min, e->low) : e->low;
    h->max = h->n ? MO_MAX(h->max, e->high) : e->high;
    cover(h, e->low, e->high);
    h->n += e->n;
    return MOPT_OK;
}

static enum mopt_status count(struct mopt_ctx *ctx, const struct mo_backend *be, struct mo_device *dev,
                              struct mo_histogram_scratch *scratch, struct mo_histogram *h, const float *x, size_t n)
{
    char why[256];
    if (!h->is_open) {
        h->n_flat += n;
        return MOPT_OK;
    }
    if (!n)
        return MOPT_OK;
    be->upload(dev, scratch->counts, h->counts, sizeof h->counts);
    be->histogram(dev, n, x, (float)h->low, (float)h->width, MO_HIST_BINS, scratch->counts);
    if (be->sync(dev, why, sizeof why))
        return mo_fail(ctx, MOPT_FAILED, "%s", why);
    be->download(dev, h->counts, scratch->counts, sizeof h->counts);
    return MOPT_OK;
}

enum mopt_status mo_histogram_add(struct mopt_ctx *ctx, const struct mo_backend *be, struct mo_device *dev,
                                  struct mo_histogram_scratch *scratch, struct mo_histogram *h, const float *x,
                                  size_t n)
{
    struct extent mine, *all = &mine;
    int n_ranks = scratch->is_shared ? ctx->n_ranks : 1;
    MO_TRY(measure(ctx, be, dev, scratch, x, n, &mine));
    if (n_ranks > 1 && !(all = mo_mem_new((size_t)n_ranks, sizeof *all)))
        return mo_no_memory(ctx, (size_t)n_ranks * sizeof *all, "ranges of all ranks");
    enum mopt_status s = n_ranks > 1 ? mo_ranks_gather(ctx, &mine, sizeof mine, all) : MOPT_OK;
    for (int r = 0; r < n_ranks && !s; r++) {
        s = make_room(ctx, h, &all[r]);
        if (!s && (n_ranks == 1 || r == ctx->rank))
            s = count(ctx, be, dev, scratch, h, x, n);
    }
    if (n_ranks > 1)
        mo_mem_free(all);
    return s;
}

enum mopt_status mo_histogram_join(struct mopt_ctx *ctx, struct mo_histogram *h)
{
    return mo_ranks_count(ctx, h->counts, MO_HIST_BINS);
}

/* ---- choosing ------------------------------------------------------------------- */

/* What stands for the elements of bin i. The bin that holds zero stands for zero itself: after a Relu nearly
 * all of its elements are exactly that. Zero is always a step, so they have no error. */
static double centre(const struct mo_histogram *h, int i)
{
    double a = h->low + i * h->width, b = a + h->width;
    return a <= 0 && b > 0 ? 0 : (a + b) / 2;
}

/* The integral of (t - Q(t))^2 from -infinity's side to x, up to a constant: within a step of width s the error runs
 * from -s/2 to s/2, beyond the outermost steps it grows on. Steps are counted from the lowest. */
static double squared_error_until(double x, double lowest, double s, int n_levels)
{
    double cell = s * s * s / 12, at = (x - lowest) / s, step = MO_MIN(MO_MAX(rint(at), 0), n_levels - 1.0);
    double e = x - (lowest + step * s);
    return step * cell + e * e * e / 3;
}

double mo_histogram_mse(const struct mo_histogram *h, double low, double high, int n_levels)
{
    if (!h->n || !h->is_open)
        return 0;
    double s = MO_MAX((high - low) / (n_levels - 1), 1e-30), lowest = -rint(-low / s) * s, sum = 0, before = 0;
    bool has_before = false;
    for (int i = 0; i < MO_HIST_BINS; i++) {
        double a = h->low + i * h->width, b = a + h->width;
        if (!h->counts[i] || (a <= 0 && b > 0)) {
            has_before = false;
            continue;
        }
        if (!has_before)
            before = squared_error_until(a, lowest, s, n_levels);
        double until = squared_error_until(b, lowest, s, n_levels);
        sum += (double)h->counts[i] * (until - before) / h->width;
        before = until;
        has_before = true;
    }
    return sum / (double)h->n;
}

#define N_SHRINKS 100
static double shrink(int step)
{
    return 1.0 - 0.8 * step / (N_SHRINKS - 1);
}

static struct mo_range range_by_mse(const struct mo_histogram *h, struct mo_range all, const struct mo_range_rule *rule)
{
    struct mo_range best = all;
    double best_mse = INFINITY;
    for (int end = 0; end < (rule->symmetric || all.low == 0 || all.high == 0 ? 1 : 3); end++) {
        struct mo_range from = best;
        for (int step = 0; step < N_SHRINKS; step++) {
            struct mo_range r = from;
            if (end != 2)
                r.low = (end ? all.low : from.low) * (float)shrink(step);
            if (end != 1)
                r.high = (end ? all.high : from.high) * (float)shrink(step);
            double mse = mo_histogram_mse(h, r.low, r.high, rule->n_levels);
            if (mse < best_mse) {
                best_mse = mse;
                best = r;
            }
        }
    }
    return best;
}

static struct mo_range range_by_percentile(const struct mo_histogram *h, struct mo_range all,
                                           const struct mo_range_rule *rule)
{
    double cut = (1 - rule->percentile / 100) * (double)h->n;
    bool two_sided = all.low < 0 && all.high > 0;
    double below = two_sided ? cut / 2 : all.high > 0 ? 0 : cut;
    double above = two_sided ? cut / 2 : all.high > 0 ? cut : 0;
    double low = all.low, high = all.high, sum = 0;
    for (int i = 0; i < MO_HIST_BINS && below > 0; i++) {
        double share = (double)h->counts[i];
        if (sum + share > below) {
            low = h->low + h->width * (i + (below - sum) / share);
            break;
        }
        sum += share;
    }
    sum = 0;
    for (int i = MO_HIST_BINS - 1; i >= 0 && above > 0; i--) {
        double share = (double)h->counts[i];
        if (sum + share > above) {
            high = h->low + h->width * (i + 1 - (above - sum) / share);
            break;
        }
        sum += share;
    }
    low = MO_MAX(low, all.low);
    high = MO_MIN(high, all.high);
    return (struct mo_range){ MO_MIN((float)low, 0), MO_MAX((float)high, 0) };
}

/* KL(P || Q) for bins [first, last): outliers go to the outermost bins of P; Q spreads the count of each level
 * evenly over its bins that are not empty. */
static double divergence(const struct mo_histogram *h, int first, int last, int n_levels)
{
    double below = 0, above = 0, total = (double)h->n, kl = 0;
    for (int i = 0; i < first; i++)
        below += (double)h->counts[i];
    for (int i = last; i < MO_HIST_BINS; i++)
        above += (double)h->counts[i];
    double inside = total - below - above;
    if (inside <= 0)
        return INFINITY;
    int n = last - first;
    for (int level = 0; level < n_levels; level++) {
        int a = first + (int)((int64_t)n * level / n_levels), b = first + (int)((int64_t)n * (level + 1) / n_levels);
        double sum = 0;
        int n_filled = 0;
        for (int i = a; i < b; i++) {
            sum += (double)h->counts[i];
            n_filled += h->counts[i] != 0;
        }
        for (int i = a; i < b; i++) {
            double p = (double)h->counts[i] + (i == first ? below : 0) + (i == last - 1 ? above : 0);
            if (p <= 0)
                continue;
            double q = h->counts[i] ? sum / n_filled / inside : 1e-12;
            kl += p / total * log(p / total / q);
        }
    }
    return kl;
}

static struct mo_range range_by_entropy(const struct mo_histogram *h, struct mo_range all,
                                        const struct mo_range_rule *rule)
{
    int zero = (int)MO_MIN(MO_MAX(-h->low / h->width, 0), MO_HIST_BINS - 1.0);
    int reach_low = (int)ceil((zero - (all.low - h->low) / h->width));
    int reach_high = (int)ceil((all.high - h->low) / h->width) - zero;
    int reach = MO_MAX(reach_low, reach_high), start = MO_MIN(rule->n_levels / 2, reach);
    struct mo_range best = all;
    double best_kl = INFINITY;
    for (int keep = start; keep <= reach; keep++) {
        int first = zero - (int)((int64_t)reach_low * keep / reach);
        int last = zero + (int)((int64_t)reach_high * keep / reach);
        first = MO_MAX(first, 0);
        last = MO_MIN(MO_MAX(last, first + 1), MO_HIST_BINS);
        double kl = divergence(h, first, last, rule->n_levels);
        if (kl < best_kl) {
            best_kl = kl;
            best.low = MO_MAX(all.low, (float)(h->low + first * h->width));
            best.high = MO_MIN(all.high, (float)(h->low + last * h->width));
        }
    }
    return (struct mo_range){ MO_MIN(best.low, 0), MO_MAX(best.high, 0) };
}

/* The histogram of |x|, for symmetric ranges. */
static void fold(const struct mo_histogram *h, struct mo_histogram *folded)
{
    double high = MO_MAX(-h->low, h->low + h->width * MO_HIST_BINS);
    *folded = (struct mo_histogram){ .width = high / MO_HIST_BINS, .n = h->n, .is_open = true,
                                     .max = MO_MAX(fabsf(h->min), fabsf(h->max)) };
    for (int i = 0; i < MO_HIST_BINS; i++) {
        int bin = (int)(fabs(centre(h, i)) / folded->width);
        folded->counts[MO_MIN(bin, MO_HIST_BINS - 1)] += h->counts[i];
    }
}

struct mo_range mo_histogram_range(const struct mo_histogram *h, const struct mo_range_rule *rule)
{
    struct mo_range all = { MO_MIN(h->min, 0.0f), MO_MAX(h->max, 0.0f) };
    if (!h->n || !h->is_open)
        return (struct mo_range){ 0, 0 };
    if (rule->symmetric) {
        struct mo_histogram folded;
        fold(h, &folded);
        struct mo_range_rule half = *rule;
        half.symmetric = false;
        half.n_levels = (rule->n_levels + 1) / 2;
        struct mo_range r = mo_histogram_range(&folded, &half);
        return (struct mo_range){ -r.high, r.high };
    }
    switch (rule->method) {
    case MO_CALIB_MSE: return range_by_mse(h, all, rule);
    case MO_CALIB_PERCENTILE: return range_by_percentile(h, all, rule);
    case MO_CALIB_ENTROPY: return range_by_entropy(h, all, rule);
    default: return all;
    }
}
