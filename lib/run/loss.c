/* loss.c - losses and their gradients on host memory; formulas in loss.h.
 *
 * The logits of one step are few (rows x classes), so one thread does it, eight elements at a time. The gradient
 * uses no function of the C library: the same bits everywhere. */
#include "lib/run/loss.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LANES = 8, BLOCK = 256 };        /* elements side by side; elements added up before the tree */

void mo_tree_add(struct mo_tree_sum *sum, double x)
{
    int level = 0;
    for (uint64_t n = sum->n; n & 1; n >>= 1)
        x = sum->level[level++] + x;
    sum->level[level] = x;
    sum->n++;
}

double mo_tree_total(const struct mo_tree_sum *sum)
{
    double total = 0;
    int level = 0;
    for (uint64_t n = sum->n; n; n >>= 1, level++)
        if (n & 1)
            total = sum->level[level] + total;
    return total;
}

/* y = exp(x) for x <= 0, relative error below 2e-7; 0 below the smallest normal number. exp(x) = 2^n exp(r) with
 * n = round(x / ln 2), ln 2 in two parts (Cody and Waite), exp(r) by its series, |r| <= ln(2) / 2. NaN stays NaN. */
static inline void exp_lanes(const float x[LANES], float y[LANES])
{
    const float log2_e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const float shift = 12582912.0f;            /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const float lowest = -87.336544f;           /* log(FLT_MIN) */
    float t[LANES], p[LANES], scale[LANES];
    uint32_t bits[LANES];
    for (int i = 0; i < LANES; i++) {
        float c = x[i] < lowest ? lowest : x[i];
        t[i] = c * log2_e + shift;
        float n = t[i] - shift;
        float r = (c - n * ln2_high) - n * ln2_low;
        float s = 1.0f / 5040;
        s = s * r + 1.0f / 720;
        s = s * r + 1.0f / 120;
        s = s * r + 1.0f / 24;
        s = s * r + 1.0f / 6;
        s = s * r + 0.5f;
        s = s * r + 1.0f;
        p[i] = s * r + 1.0f;
    }
    memcpy(bits, t, sizeof bits);
    for (int i = 0; i < LANES; i++)
        bits[i] = (bits[i] - 0x4B400000u + 127u) << 23;     /* 2^n; 0x4B400000 are the bits of shift */
    memcpy(scale, bits, sizeof scale);
    for (int i = 0; i < LANES; i++)
        y[i] = x[i] < lowest ? 0.0f : p[i] * scale[i];
}

static float lanes_sum(const float s[LANES])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static double lanes_sum_double(const double s[LANES])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* e = exp((z - max) / t), NULL: not kept; returns their sum. */
static float exp_row(size_t width, const float *z, float t, float *e, float *max)
{
    float m = z[0], scale = 1 / t;
    for (size_t k = 1; k < width; k++)
        m = z[k] > m ? z[k] : m;
    *max = m;
    float sum[LANES] = {0};
    for (size_t k = 0; k < width; k += LANES) {
        size_t n = MO_MIN(width - k, (size_t)LANES);
        float x[LANES], y[LANES];
        for (size_t i = 0; i < LANES; i++)
            x[i] = i < n ? (z[k + i] - m) * scale : -FLT_MAX;   /* exp gives exactly 0 */
        exp_lanes(x, y);
        for (int i = 0; i < LANES; i++)
            sum[i] += y[i];
        if (e)
            memcpy(e + k, y, n * sizeof *y);
    }
    return lanes_sum(sum);
}

float mo_softmax_row(size_t width, const float *z, float t, float *p, float *max)
{
    float sum = exp_row(width, z, t, p, max), inverse = 1 / sum;
    for (size_t k = 0; k < width; k++)
        p[k] *= inverse;
    return (float)log(sum);
}

static enum mopt_status check_labels(struct mopt_ctx *ctx, const struct mo_loss_in *in)
{
    int64_t n_classes = in->width == 1 && in->kind == MO_LOSS_BCE ? 2 : (int64_t)in->width;
    bool is_value = in->width == 1 && in->kind != MO_LOSS_BCE && in->kind != MO_LOSS_CROSS_ENTROPY;
    for (size_t r = 0; r < in->rows && !is_value; r++)
        if (in->labels[r] < 0 || in->labels[r] >= n_classes)
            return mo_fail(ctx, MOPT_DATA, "row %zu: label %lld is not among the model's %lld classes, 0 to %lld", r,
                           (long long)in->labels[r], (long long)n_classes, (long long)(n_classes - 1));
    return MOPT_OK;
}

/* Cross-entropy of one row with its label. sum t_k (log s - d_k) with d_k = z_k - max. */
static double label_row(const struct mo_loss_in *in, size_t r, float *dz)
{
    size_t width = in->width, label = (size_t)in->labels[r];
    const float *z = in->z + r * width;
    float max, sum = exp_row(width, z, 1, dz, &max);
    double smoothing = in->kind == MO_LOSS_KL ? 0 : in->smoothing;
    double off = smoothing / (double)width, on = 1 - smoothing + off, mixed = 0;
    if (smoothing > 0)
        for (size_t k = 0; k < width; k++)
            mixed += (double)z[k] - max;
    if (dz) {
        float scale = 1 / (float)in->rows, inverse = 1 / sum;
        for (size_t k = 0; k < width; k++)
            dz[k] = (dz[k] * inverse - (float)off) * scale;
        dz[label] -= (float)(on - off) * scale;
    }
    return log(sum) - (on - off) * ((double)z[label] - max) - off * mixed;
}

/* Cross-entropy or KL of one row with soft targets, which need not add up to 1. */
static double soft_row(const struct mo_loss_in *in, size_t r, float *dz)
{
    size_t width = in->width;
    const float *z = in->z + r * width, *t = in->targets + r * width;
    float max, sum = exp_row(width, z, 1, dz, &max);
    bool is_kl = in->kind == MO_LOSS_KL;
    double smoothing = is_kl ? 0 : in->smoothing, keep = 1 - smoothing, add = smoothing / (double)width;
    double total = 0, loss = 0, log_sum = log(sum);
    for (size_t k = 0; k < width; k++) {
        double target = keep * t[k] + add;
        total += target;
        loss += target * (log_sum - ((double)z[k] - max));
        if (is_kl && target > 0)
            loss += target * log(target);
    }
    if (dz) {
        float scale = 1 / (float)in->rows, ratio = (float)total / sum;
        for (size_t k = 0; k < width; k++)
            dz[k] = (dz[k] * ratio - (float)(keep * t[k] + add)) * scale;
    }
    return loss;
}

static double over_rows(const struct mo_loss_in *in, float *dz)
{
    struct mo_tree_sum sum = {.n = 0};
    for (size_t r = 0; r < in->rows; r++) {
        float *row = dz ? dz + r * in->width : NULL;
        mo_tree_add(&sum, in->targets ? soft_row(in, r, row) : label_row(in, r, row));
    }
    return mo_tree_total(&sum) / (double)in->rows;
}

static inline float target_at(const struct mo_loss_in *in, size_t i)
{
    if (in->targets)
        return in->targets[i];
    if (in->width == 1)
        return (float)in->labels[i];
    return in->labels[i / in->width] == (int64_t)(i % in->width) ? 1.0f : 0.0f;
}

/* Losses and derivatives of up to LANES elements. */
static void bce_lanes(const struct mo_loss_in *in, const float *z, const float *t, double *loss, float *d)
{
    float x[LANES], e[LANES];
    for (int i = 0; i < LANES; i++)
        x[i] = z[i] > 0 ? -z[i] : z[i];
    exp_lanes(x, e);
    for (int i = 0; i < LANES; i++) {
        float target = (float)((1 - in->smoothing) * t[i] + in->smoothing / 2);
        loss[i] = (z[i] > 0 ? (double)z[i] : 0.0) - (double)z[i] * target + log1p(e[i]);
        d[i] = (z[i] > 0 ? 1 / (1 + e[i]) : e[i] / (1 + e[i])) - target;
    }
}

static void value_lanes(const struct mo_loss_in *in, const float *z, const float *t, double *loss, float *d)
{
    float delta = (float)in->delta;
    for (int i = 0; i < LANES; i++) {
        float x = z[i] - t[i], size = fabsf(x), sign = (float)((x > 0) - (x < 0));
        if (in->kind == MO_LOSS_MSE) {
            loss[i] = (double)x * x;
            d[i] = 2 * x;
        } else if (in->kind == MO_LOSS_L1) {
            loss[i] = size;
            d[i] = sign;
        } else {
            bool is_near = size <= delta;
            loss[i] = is_near ? 0.5 * x * x : in->delta * (size - 0.5 * in->delta);
            d[i] = is_near ? x : delta * sign;
        }
    }
}

static double over_elements(const struct mo_loss_in *in, float *dz)
{
    size_t n = in->rows * in->width;
    float scale = 1 / (float)n;
    struct mo_tree_sum sum = {.n = 0};
    for (size_t start = 0; start < n; start += BLOCK) {
        double lanes[LANES] = {0};
        for (size_t i = start; i < MO_MIN(n, start + BLOCK); i += LANES) {
            size_t count = MO_MIN(n - i, (size_t)LANES);
            float z[LANES] = {0}, t[LANES] = {0}, d[LANES];
            double loss[LANES];
            for (size_t k = 0; k < count; k++) {
                z[k] = in->z[i + k];
                t[k] = target_at(in, i + k);
            }
            (in->kind == MO_LOSS_BCE ? bce_lanes : value_lanes)(in, z, t, loss, d);
            for (size_t k = 0; k < count; k++)
                lanes[k] += loss[k];
            for (size_t k = 0; dz && k < count; k++)
                dz[i + k] = d[k] * scale;
        }
        mo_tree_add(&sum, lanes_sum_double(lanes));
    }
    return mo_tree_total(&sum) / (double)n;
}

enum mopt_status mo_loss(struct mopt_ctx *ctx, const struct mo_loss_in *in, float *dz, double *loss)
{
    size_t n;
    if (!in->rows || !in->width || !mo_mul_size(in->rows, in->width, &n))
        return mo_fail(ctx, MOPT_FAILED, "a loss of %zu rows of %zu values", in->rows, in->width);
    if (!in->targets) {
        if (!in->labels)
            return mo_fail(ctx, MOPT_DATA, "the data has neither labels nor target values to learn from");
        MO_TRY(check_labels(ctx, in));
    }
    if (in->kind == MO_LOSS_AUTO)
        return mo_fail(ctx, MOPT_FAILED, "the loss was not chosen");
    bool by_row = in->kind == MO_LOSS_CROSS_ENTROPY || in->kind == MO_LOSS_KL;
    double mean = by_row ? over_rows(in, dz) : over_elements(in, dz);
    if (loss)
        *loss = mean;
    return MOPT_OK;
}
