/* distill_loss.c - the teacher's part of a student's loss; formulas in distill.h. */
#include <math.h>
#include <string.h>

#include "lib/passes/distill.h"

/* softmax(z / T) with its logarithms; `skip` (a class, or width for none) is left out and gets 0. */
struct soft { float *p; double log_sum, max; };

static struct soft soften(const struct mo_distill_in *in, const float *z, size_t skip, float *work, float *p)
{
    size_t n = 0;
    for (size_t k = 0; k < in->width; k++)
        if (k != skip)
            work[n++] = z[k];
    float max;
    struct soft s = {.p = p};
    s.log_sum = mo_softmax_row(n, work, (float)in->temperature, p, &max);
    s.max = max;
    if (skip < in->width) {
        memmove(p + skip + 1, p + skip, (in->width - 1 - skip) * sizeof *p);
        p[skip] = 0;
    }
    return s;
}

static double log_p(const struct mo_distill_in *in, const struct soft *s, float z)
{
    return ((double)z - s->max) / in->temperature - s->log_sum;
}

/* KL(teacher || student) without class `skip`. */
static double divergence(const struct mo_distill_in *in, const struct soft *teacher, const struct soft *student,
                         const float *zt, const float *zs, size_t skip)
{
    double sum = 0;
    for (size_t k = 0; k < in->width; k++)
        if (k != skip && teacher->p[k] > 0)
            sum += (double)teacher->p[k] * (log_p(in, teacher, zt[k]) - log_p(in, student, zs[k]));
    return sum;
}

/* d/dz_s of T^2 KL = T (p_s - p_t). */
static double kd_row(const struct mo_distill_in *in, const float *zs, const float *zt, float scale, float *work,
                     float *dz)
{
    size_t w = in->width;
    struct soft s = soften(in, zs, w, work, work + w), t = soften(in, zt, w, work, work + 2 * w);
    float factor = scale * (float)in->temperature;
    for (size_t k = 0; k < w; k++)
        dz[k] += factor * (s.p[k] - t.p[k]);
    return in->temperature * in->temperature * divergence(in, &t, &s, zt, zs, w);
}

/* log(1 - p_y): the others' sum against all. */
static double log_rest(const struct mo_distill_in *in, const struct soft *all, const struct soft *rest)
{
    return (rest->max - all->max) / in->temperature + rest->log_sum - all->log_sum;
}

/* d TCKD/dz_y = (b_s - b_t) / T, d TCKD/dz_k = -(b_s - b_t) q_k / T with q = p over the others and b = p_y;
 * d NCKD/dz_k = (q_s - q_t) / T, 0 at y. */
static double dkd_row(const struct mo_distill_in *in, size_t y, const float *zs, const float *zt, float scale,
                      float *work, float *dz)
{
    size_t w = in->width;
    struct soft s = soften(in, zs, w, work, work + w), t = soften(in, zt, w, work, work + w);
    struct soft qs = soften(in, zs, y, work, work + 2 * w), qt = soften(in, zt, y, work, work + 3 * w);
    double log_bs = log_p(in, &s, zs[y]), log_bt = log_p(in, &t, zt[y]);
    double log_rs = log_rest(in, &s, &qs), log_rt = log_rest(in, &t, &qt);
    double bs = exp(log_bs), bt = exp(log_bt), rt = exp(log_rt);
    double target = bt * (log_bt - log_bs) + rt * (log_rt - log_rs);
    double others = divergence(in, &qt, &qs, zt, zs, y);
    float factor = scale * (float)in->temperature, db = (float)(bs - bt), beta = (float)in->beta;
    for (size_t k = 0; k < w; k++)
        dz[k] += factor * (k == y ? db : beta * (qs.p[k] - qt.p[k]) - db * qs.p[k]);
    return in->temperature * in->temperature * (target + in->beta * others);
}

static double mse_row(const struct mo_distill_in *in, const float *zs, const float *zt, float scale, float *dz)
{
    double sum = 0;
    float factor = 2 * scale / (float)in->width;
    for (size_t k = 0; k < in->width; k++) {
        float d = zs[k] - zt[k];
        sum += (double)d * d;
        dz[k] += factor * d;
    }
    return sum / (double)in->width;
}

enum mopt_status mo_distill_loss(struct mopt_ctx *ctx, const struct mo_distill_in *in, float *dz, double *loss)
{
    size_t w = in->width;
    if (w < 2 && in->method != MO_DISTILL_MSE)
        return mo_fail(ctx, MOPT_USAGE, "a model with one output has no classes to compare: use --method mse");
    if (in->method == MO_DISTILL_DKD && !in->labels)
        return mo_fail(ctx, MOPT_DATA, "--method dkd needs labels");
    float *work = mo_mem_new(4 * w, sizeof *work);
    if (!work)
        return mo_no_memory(ctx, 4 * w * sizeof *work, "distillation");
    float scale = (float)(in->alpha / (double)in->rows), keep = (float)(1 - in->alpha);
    for (size_t i = 0; i < in->rows * w; i++)
        dz[i] *= keep;
    struct mo_tree_sum sum = {.n = 0};
    for (size_t r = 0; r < in->rows; r++) {
        const float *zs = in->student + r * w, *zt = in->teacher + r * w;
        if (in->method == MO_DISTILL_KD)
            mo_tree_add(&sum, kd_row(in, zs, zt, scale, work, dz + r * w));
        else if (in->method == MO_DISTILL_DKD)
            mo_tree_add(&sum, dkd_row(in, (size_t)in->labels[r], zs, zt, scale, work, dz + r * w));
        else
            mo_tree_add(&sum, mse_row(in, zs, zt, scale, dz + r * w));
    }
    *loss = (1 - in->alpha) * *loss + in->alpha * mo_tree_total(&sum) / (double)in->rows;
    mo_mem_free(work);
    return MOPT_OK;
}
