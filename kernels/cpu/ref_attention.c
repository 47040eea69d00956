/* Plain C attention, a query at a time: the scores of one query pass by twice, so that none are kept. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* One query of one head, and what it looks at. */
struct looker {
    const struct mo_attention_desc *d;
    const float *q, *k;
    const uint8_t *allowed;
    const float *mask;
    int64_t query;
};

static struct looker looker_of(const struct mo_attention_desc *d, const float *q, const float *k, const uint8_t *allowed,
                               const float *mask, int64_t b, int64_t h, int64_t i)
{
    const int64_t *a = d->of_allowed, *m = d->of_mask;
    return (struct looker){ d, q + mo_heads_at(&d->q, b, h, i), k + mo_heads_at(&d->k, b, h / (d->heads / d->kv_heads), 0),
                            allowed ? allowed + b * a[0] + h * a[1] + i * a[2] : NULL,
                            mask ? mask + b * m[0] + h * m[1] + i * m[2] : NULL, i };
}

/* The score of key j; *capped: before the masks. */
static float score(const struct looker *l, int64_t j, float *capped)
{
    const struct mo_attention_desc *d = l->d;
    const float *k = l->k + j * d->k.row;
    double sum = 0;
    for (int64_t i = 0; i < d->size; i++)
        sum += (double)l->q[i] * (double)k[i];
    float s = (float)(sum * (double)d->scale);
    *capped = s = d->softcap != 0.0f ? d->softcap * tanhf(s / d->softcap) : s;
    if (j - l->query > d->ahead || l->query - j > d->behind || (l->allowed && !l->allowed[j * d->of_allowed[3]]))
        s = -INFINITY;
    return l->mask ? s + l->mask[j * d->of_mask[3]] : s;
}

static float look(const struct looker *l, const float *v, float *y)
{
    const struct mo_attention_desc *d = l->d;
    float most = -INFINITY, sum = 0, capped;
    for (int64_t j = 0; j < d->keys; j++)
        most = fmaxf(most, score(l, j, &capped));
    most = most == -INFINITY ? 0 : most;
    memset(y, 0, (size_t)d->value_size * sizeof *y);
    for (int64_t j = 0; j < d->keys; j++) {
        float p = expf(score(l, j, &capped) - most);
        sum += p;
        for (int64_t c = 0; c < d->value_size; c++)
            y[c] += p * v[j * d->v.row + c];
    }
    for (int64_t c = 0; c < d->value_size; c++)
        y[c] = sum == 0 ? d->empty : y[c] / sum;
    return sum == 0 ? INFINITY : most + logf(sum);
}

void mo_ref_attention(struct mo_device *dev, const struct mo_attention_desc *d, const float *q, const float *k,
                      const float *v, const uint8_t *allowed, const float *mask, float *y, float *log_sum)
{
    (void)dev;
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t h = 0; h < d->heads; h++)
            for (int64_t i = 0; i < d->queries; i++) {
                struct looker l = looker_of(d, q, k, allowed, mask, b, h, i);
                float sum = look(&l, v + mo_heads_at(&d->v, b, h / (d->heads / d->kv_heads), 0),
                                 y + mo_heads_at(&d->y, b, h, i));
                if (log_sum)
                    log_sum[(b * d->heads + h) * d->queries + i] = sum;
            }
}

static void clear(const struct mo_attention_desc *d, const struct mo_heads_step *step, int64_t heads, int64_t rows,
                  int64_t n, float *x)
{
    for (int64_t b = 0; x && b < d->batch; b++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < rows; i++)
                memset(x + mo_heads_at(step, b, h, i), 0, (size_t)n * sizeof *x);
}

static void add(int64_t n, float factor, const float *x, float *to)
{
    for (int64_t i = 0; to && i < n; i++)
        to[i] += factor * x[i];
}

/* dV += p dY; with g = dY V: dC = p (g - dY Y); dS = dC (1 - (c / softcap)^2) scale; dQ += dS K; dK += dS Q */
static void learn(const struct looker *l, const float *v, const float *y, const float *dy, float log_sum, float *dq,
                  float *dk, float *dv)
{
    const struct mo_attention_desc *d = l->d;
    double dot = 0;
    for (int64_t c = 0; c < d->value_size; c++)
        dot += (double)y[c] * (double)dy[c];
    for (int64_t j = 0; j < d->keys && log_sum != INFINITY; j++) {
        float capped, p = expf(score(l, j, &capped) - log_sum);
        double g = 0;
        for (int64_t c = 0; c < d->value_size; c++)
            g += (double)dy[c] * (double)v[j * d->v.row + c];
        double u = d->softcap != 0.0f ? (double)(capped / d->softcap) : 0;
        float ds = (float)(p * (g - dot) * (1 - u * u) * (double)d->scale);
        add(d->value_size, p, dy, dv ? dv + j * d->v.row : NULL);
        add(d->size, ds, l->k + j * d->k.row, dq);
        add(d->size, ds, l->q, dk ? dk + j * d->k.row : NULL);
    }
}

void mo_ref_attention_grad(struct mo_device *dev, const struct mo_attention_desc *d, const float *q, const float *k,
                           const float *v, const uint8_t *allowed, const float *mask, const float *y,
                           const float *log_sum, const float *dy, float *dq, float *dk, float *dv)
{
    (void)dev;
    clear(d, &d->q, d->heads, d->queries, d->size, dq);
    clear(d, &d->k, d->kv_heads, d->keys, d->size, dk);
    clear(d, &d->v, d->kv_heads, d->keys, d->value_size, dv);
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t h = 0; h < d->heads; h++)
            for (int64_t i = 0; i < d->queries; i++) {
                struct looker l = looker_of(d, q, k, allowed, mask, b, h, i);
                int64_t kv = h / (d->heads / d->kv_heads), of_y = mo_heads_at(&d->y, b, h, i),
                        of_v = mo_heads_at(&d->v, b, kv, 0);
                learn(&l, v + of_v, y + of_y, dy + of_y, log_sum[(b * d->heads + h) * d->queries + i],
                      dq ? dq + mo_heads_at(&d->q, b, h, i) : NULL, dk ? dk + mo_heads_at(&d->k, b, kv, 0) : NULL,
                      dv ? dv + of_v : NULL);
            }
}
