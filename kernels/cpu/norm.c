/* norm.c - BatchNormalization over the team.
 *
 * Statistics: each block of rows gives its mean and the sum of squared deviations
 * from it; blocks are joined pairwise over one fixed tree by
 *     d = mean_b - mean_a,  M = M_a + M_b + d^2 n_a n_b / (n_a + n_b)     (Chan, Golub, LeVeque 1979)
 * so no large sums of squares cancel. Rows narrower than a few vectors are
 * treated as rows of `width` = several rows side by side. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/fast.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/team.h"

#define MAX_BLOCKS 64
#define BLOCK_ELEMS 16384           /* worth a thread */
#define PART_ELEMS 8192             /* within a block: fits the first-level cache, summed in float */
#define MIN_WIDTH 64
#define MAX_WIDTH 2048              /* channels at once; more are done in turn */

struct shape {
    int64_t rows, channels, width, n_blocks, block_rows, part_rows;
};

static struct shape shape_of(int64_t rows, int64_t channels)
{
    struct shape s = { .rows = rows, .channels = channels };
    int64_t repeat = channels < MIN_WIDTH ? (MIN_WIDTH + channels - 1) / channels : 1;
    s.width = channels * repeat;
    int64_t wanted = rows * channels / BLOCK_ELEMS;
    s.n_blocks = wanted > MAX_BLOCKS ? MAX_BLOCKS : wanted < 1 ? 1 : wanted;
    s.block_rows = (rows + s.n_blocks - 1) / s.n_blocks;
    s.block_rows = (s.block_rows + repeat - 1) / repeat * repeat;
    s.part_rows = (PART_ELEMS / channels + repeat - 1) / repeat * repeat;
    if (s.part_rows < repeat)
        s.part_rows = repeat;
    s.n_blocks = s.block_rows ? (rows + s.block_rows - 1) / s.block_rows : 0;
    return s;
}

static bool is_fast(const struct mo_loops *loops, int64_t rows, int64_t channels)
{
    return loops && rows > 0 && channels > 0 && channels <= MAX_WIDTH;
}

/* The columns of a row of width folded onto the channels. */
static void fold(const float *wide, int64_t width, int64_t channels, double *out)
{
    for (int64_t c = 0; c < channels; c++)
        out[c] = wide[c];
    for (int64_t w = channels; w < width; w++)
        out[w % channels] += wide[w];
}

static void repeat(const float *narrow, int64_t channels, int64_t width, float *wide)
{
    for (int64_t w = 0; w < width; w += channels)
        memcpy(wide + w, narrow, (size_t)channels * sizeof *wide);
}

/* ---- statistics ------------------------------------------------------------------------------- */

struct stats {
    const struct mo_loops *loops;
    struct shape s;
    const void *x;
    double *partial;            /* n_blocks of: channels means, channels sums of squares */
};

static int64_t rows_in(const struct shape *s, int64_t block)
{
    int64_t left = s->rows - block * s->block_rows;
    return left < s->block_rows ? left : s->block_rows;
}

static void join(double *a, const double *b, int64_t channels, double n_a, double n_b)
{
    double n = n_a + n_b;
    for (int64_t c = 0; c < channels; c++) {
        double d = b[c] - a[c];
        a[c] += d * n_b / n;
        a[channels + c] += b[channels + c] + d * d * n_a * n_b / n;
    }
}

/* Mean and squared deviations of some rows; they fit the first-level cache, so x is fetched once. */
static void stats_rows(const struct stats *t, int64_t first, int64_t n, double *mean)
{
    const struct shape *s = &t->s;
    int64_t begin = first * s->channels, end = begin + n * s->channels;
    float sum[MAX_WIDTH], means[MAX_WIDTH], wide[MAX_WIDTH];
    t->loops->bn_sum(t->x, begin, end, s->width, sum);
    fold(sum, s->width, s->channels, mean);
    for (int64_t c = 0; c < s->channels; c++) {
        means[c] = (float)(mean[c] / (double)n);
        mean[c] = means[c];
    }
    repeat(means, s->channels, s->width, wide);
    t->loops->bn_squares(t->x, begin, end, s->width, wide, sum);
    fold(sum, s->width, s->channels, mean + s->channels);
}

static void stats_block(void *arg, int i)
{
    const struct stats *t = arg;
    const struct shape *s = &t->s;
    int64_t first = i * s->block_rows, n = rows_in(s, i);
    double *total = t->partial + (int64_t)i * 2 * s->channels, part[2 * MAX_WIDTH];
    for (int64_t done = 0; done < n; done += s->part_rows) {
        int64_t rows = n - done < s->part_rows ? n - done : s->part_rows;
        stats_rows(t, first + done, rows, done ? part : total);
        if (done)
            join(total, part, s->channels, (double)done, (double)rows);
    }
}

static void stats(struct mo_device *dev, const struct mo_loops *loops, int64_t rows, int64_t channels, const void *x,
                  float *mean, float *var)
{
    struct stats t = { loops, shape_of(rows, channels), x, dev->workspace };
    mo_team_run(dev->team, (int)t.s.n_blocks, stats_block, &t);
    for (int64_t step = 1; step < t.s.n_blocks; step *= 2)
        for (int64_t i = 0; i + step < t.s.n_blocks; i += 2 * step) {
            int64_t end = i + 2 * step < t.s.n_blocks ? i + 2 * step : t.s.n_blocks;
            int64_t last = end * t.s.block_rows < rows ? end * t.s.block_rows : rows;
            double n_a = (double)(step * t.s.block_rows), n_b = (double)(last - (i + step) * t.s.block_rows);
            join(t.partial + i * 2 * channels, t.partial + (i + step) * 2 * channels, channels, n_a, n_b);
        }
    for (int64_t c = 0; c < channels; c++) {
        mean[c] = (float)t.partial[c];
        var[c] = (float)(t.partial[channels + c] / (double)rows);
    }
}

void mo_cpu_batchnorm_stats(struct mo_device *dev, int64_t rows, int64_t channels, const float *x, float *mean,
                            float *var)
{
    if (is_fast(dev->loops, rows, channels))
        stats(dev, dev->loops, rows, channels, x, mean, var);
    else
        mo_ref_batchnorm_stats(dev, rows, channels, x, mean, var);
}

void mo_cpu_batchnorm_stats_bf16(struct mo_device *dev, int64_t rows, int64_t channels, const uint16_t *x, float *mean,
                                 float *var)
{
    if (is_fast(dev->loops16, rows, channels))
        stats(dev, dev->loops16, rows, channels, x, mean, var);
    else
        mo_ref_batchnorm_stats_bf16(dev, rows, channels, x, mean, var);
}

/* ---- applying ------------------------------------------------------------------------------------ */

struct apply {
    const struct mo_loops *loops;
    struct shape s;
    struct mo_bn p;
    double *partial;
    bool backward;
};

static void apply_block(void *arg, int i)
{
    const struct apply *a = arg;
    int64_t begin = i * a->s.block_rows * a->s.channels, end = begin + rows_in(&a->s, i) * a->s.channels;
    if (a->backward)
        a->loops->bn_grad_apply(&a->p, begin, end);
    else
        a->loops->bn_apply(&a->p, begin, end);
}

/* p has the images and relu; the rest is set here. */
static void apply(struct mo_device *dev, const struct mo_loops *loops, int64_t rows, int64_t channels, float eps,
                  const float *mean, const float *var, const float *scale, const float *bias, struct mo_bn p)
{
    float means[MAX_WIDTH], a[MAX_WIDTH], b[MAX_WIDTH], narrow[MAX_WIDTH];
    struct apply t = { .loops = loops, .s = shape_of(rows, channels), .p = p };
    for (int64_t c = 0; c < channels; c++)
        narrow[c] = scale[c] / sqrtf(var[c] + eps);
    repeat(narrow, channels, t.s.width, a);
    repeat(mean, channels, t.s.width, means);
    repeat(bias, channels, t.s.width, b);
    t.p.channels = channels;
    t.p.width = t.s.width;
    t.p.mean = means;
    t.p.a = a;
    t.p.b = b;
    mo_team_run(dev->team, (int)t.s.n_blocks, apply_block, &t);
}

void mo_cpu_batchnorm(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const float *x,
                      const float *mean, const float *var, const float *scale, const float *bias,
                      const float *residual, enum mo_act act, float *y)
{
    const struct mo_bn p = { .x = x, .residual = residual, .out = y, .relu = act == MO_ACT_RELU };
    if (is_fast(dev->loops, rows, channels) && (act == MO_ACT_NONE || act == MO_ACT_RELU))
        apply(dev, dev->loops, rows, channels, eps, mean, var, scale, bias, p);
    else
        mo_ref_batchnorm(dev, rows, channels, eps, x, mean, var, scale, bias, residual, act, y);
}

void mo_cpu_batchnorm_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, const uint16_t *x,
                           const float *mean, const float *var, const float *scale, const float *bias,
                           const uint16_t *residual, enum mo_act act, uint16_t *y)
{
    const struct mo_bn p = { .x = x, .residual = residual, .out = y, .relu = act == MO_ACT_RELU };
    if (is_fast(dev->loops16, rows, channels) && (act == MO_ACT_NONE || act == MO_ACT_RELU))
        apply(dev, dev->loops16, rows, channels, eps, mean, var, scale, bias, p);
    else
        mo_ref_batchnorm_bf16(dev, rows, channels, eps, x, mean, var, scale, bias, residual, act, y);
}

/* ---- gradient --------------------------------------------------------------------------------------- */

static void grad_sums_block(void *arg, int i)
{
    const struct apply *t = arg;
    const struct shape *s = &t->s;
    int64_t begin = i * s->block_rows * s->channels, end = begin + rows_in(s, i) * s->channels;
    int64_t part = s->part_rows * s->channels;
    double *sum = t->partial + (int64_t)i * 2 * s->channels, more[2 * MAX_WIDTH];
    float sum_g[MAX_WIDTH], sum_gx[MAX_WIDTH];
    for (int64_t at = begin; at < end; at += part) {
        double *to = at > begin ? more : sum;
        t->loops->bn_grad_sums(&t->p, at, at + part < end ? at + part : end, sum_g, sum_gx);
        fold(sum_g, s->width, s->channels, to);
        fold(sum_gx, s->width, s->channels, to + s->channels);
        for (int64_t c = 0; at > begin && c < 2 * s->channels; c++)
            sum[c] += more[c];
    }
}

static void sum_tree(double *partial, int64_t n, int64_t each)
{
    for (int64_t step = 1; step < n; step *= 2)
        for (int64_t i = 0; i + step < n; i += 2 * step)
            for (int64_t k = 0; k < each; k++)
                partial[i * each + k] += partial[(i + step) * each + k];
}

/* p has the images and relu; dscale and dbias may be NULL. */
static void grad(struct mo_device *dev, const struct mo_loops *loops, int64_t rows, int64_t channels, float eps,
                 bool frozen, const float *mean, const float *var, const float *scale, struct mo_bn p, float *dscale,
                 float *dbias)
{
    float means[MAX_WIDTH], a[MAX_WIDTH], b[MAX_WIDTH] = { 0 }, c[MAX_WIDTH] = { 0 }, narrow[3][MAX_WIDTH] = { { 0 } };
    struct apply t = { .loops = loops, .s = shape_of(rows, channels), .p = p, .partial = dev->workspace,
                       .backward = true };
    t.p.channels = channels;
    t.p.width = t.s.width;
    t.p.mean = means;
    t.p.a = a;
    t.p.b = b;
    t.p.c = c;
    repeat(mean, channels, t.s.width, means);
    mo_team_run(dev->team, (int)t.s.n_blocks, grad_sums_block, &t);
    sum_tree(t.partial, t.s.n_blocks, 2 * channels);
    for (int64_t k = 0; k < channels; k++) {
        double inv = 1 / sqrt((double)var[k] + eps), sum_g = t.partial[k], sum_xh = t.partial[channels + k] * inv;
        if (dbias)
            dbias[k] = (float)sum_g;
        if (dscale)
            dscale[k] = (float)sum_xh;
        narrow[0][k] = (float)(scale[k] * inv);
        narrow[1][k] = frozen ? 0 : (float)(sum_g / (double)rows);
        narrow[2][k] = frozen ? 0 : (float)(sum_xh / (double)rows * inv);
    }
    repeat(narrow[0], channels, t.s.width, a);
    repeat(narrow[1], channels, t.s.width, b);
    repeat(narrow[2], channels, t.s.width, c);
    mo_team_run(dev->team, (int)t.s.n_blocks, apply_block, &t);
}

void mo_cpu_batchnorm_grad(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                           enum mo_act act, const float *x, const float *y, const float *mean, const float *var,
                           const float *scale, const float *dy, float *dx, float *dresidual, float *dscale,
                           float *dbias)
{
    const struct mo_bn p = { .x = x, .y = y, .dy = dy, .dx = dx, .dresidual = dresidual, .relu = act == MO_ACT_RELU };
    if (is_fast(dev->loops, rows, channels) && dx && (act == MO_ACT_NONE || act == MO_ACT_RELU))
        grad(dev, dev->loops, rows, channels, eps, frozen, mean, var, scale, p, dscale, dbias);
    else
        mo_ref_batchnorm_grad(dev, rows, channels, eps, frozen, act, x, y, mean, var, scale, dy, dx, dresidual, dscale,
                              dbias);
}

void mo_cpu_batchnorm_grad_bf16(struct mo_device *dev, int64_t rows, int64_t channels, float eps, bool frozen,
                                enum mo_act act, const uint16_t *x, const uint16_t *y, const float *mean,
                                const float *var, const float *scale, const uint16_t *dy, uint16_t *dx,
                                uint16_t *dresidual, float *dscale, float *dbias)
{
    const struct mo_bn p = { .x = x, .y = y, .dy = dy, .dx = dx, .dresidual = dresidual, .relu = act == MO_ACT_RELU };
    if (is_fast(dev->loops16, rows, channels) && dx && (act == MO_ACT_NONE || act == MO_ACT_RELU))
        grad(dev, dev->loops16, rows, channels, eps, frozen, mean, var, scale, p, dscale, dbias);
    else
        mo_ref_batchnorm_grad_bf16(dev, rows, channels, eps, frozen, act, x, y, mean, var, scale, dy, dx, dresidual,
                                   dscale, dbias);
}
