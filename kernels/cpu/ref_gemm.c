/* Plain C matrix products. gemm_csr and the integer ones live beside their operators. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/act.h"
#include "kernels/cpu/split.h"

#include <math.h>

void mo_ref_gemm(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                 int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc,
                 const struct mo_epilogue *e)
{
    (void)dev;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++)
                sum += (double)(ta ? a[p * lda + i] : a[i * lda + p]) * (tb ? b[j * ldb + p] : b[p * ldb + j]);
            float y = (float)(alpha * sum);
            if (beta != 0)
                y += beta * c[i * ldc + j];
            if (e)
                y = mo_act(e->act, e->act_lo, e->act_hi, y + (e->bias ? e->bias[j] : 0));
            c[i * ldc + j] = y;
        }
}

void mo_ref_gemm_batched(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                         const float *a, int64_t lda, const int64_t *offset_a, const float *b, int64_t ldb,
                         const int64_t *offset_b, float beta, float *c, int64_t ldc, const int64_t *offset_c,
                         int64_t n_batch)
{
    for (int64_t i = 0; i < n_batch; i++)
        mo_ref_gemm(dev, ta, tb, m, n, k, alpha, a + offset_a[i], lda, b + offset_b[i], ldb, beta, c + offset_c[i],
                    ldc, NULL);
}

/* ---- other types ---- */

struct typed_work {
    int dtype;
    int64_t m, n, k;
    const char *a, *b;
    char *c;
    const int64_t *offset_a, *offset_b, *offset_c;
};

#define ROW(T)                                                                                          \
    {                                                                                                   \
        const T *a = (const T *)w->a + w->offset_a[i] + row * w->k, *b = (const T *)w->b + w->offset_b[i];  \
        T *c = (T *)w->c + w->offset_c[i] + row * w->n;                                                 \
        for (int64_t j = 0; j < w->n; j++)                                                              \
            c[j] = 0;                                                                                   \
        for (int64_t p = 0; p < w->k; p++)                                                              \
            for (int64_t j = 0; j < w->n; j++)                                                          \
                c[j] += a[p] * b[p * w->n + j];                                                         \
        break;                                                                                          \
    }

static void typed_rows(void *arg, int64_t begin, int64_t end)
{
    const struct typed_work *w = arg;
    for (int64_t u = begin; u < end; u++) {
        int64_t i = u / w->m, row = u % w->m;
        switch (w->dtype) {
        case 11: ROW(double)
        case 6: case 12: ROW(uint32_t)
        default: ROW(uint64_t)
        }
    }
}

void mo_ref_matmul_typed(struct mo_device *dev, int dtype, int64_t m, int64_t n, int64_t k, const void *a,
                         const int64_t *offset_a, const void *b, const int64_t *offset_b, void *c,
                         const int64_t *offset_c, int64_t n_batch)
{
    struct typed_work w = { dtype, m, n, k, a, b, c, offset_a, offset_b, offset_c };
    if (dtype != 6 && dtype != 7 && dtype != 11 && dtype != 12 && dtype != 13)
        mo_device_latch(dev, "matmul_typed: no kernel for element type %d", dtype);
    else
        mo_split(dev, n_batch * m, mo_split_grain(n * k), typed_rows, &w);
}

/* ---- linear attention ---- */

struct linear_work {
    const struct mo_linear_attention_desc *d;
    const float *q, *k, *v, *decay, *beta;
    float *state, *y;
};

/* u = beta (v - S^T k), S += k u^T; u is built where the output will be. */
static void linear_step(const struct linear_work *w, int64_t token, int64_t h, float *s, float *u)
{
    const struct mo_linear_attention_desc *d = w->d;
    int64_t at = token * d->heads + h;
    const float *k = w->k + at * d->d_k, *v = w->v + at * d->d_v;
    float beta = w->beta ? w->beta[token * d->beta_heads + (d->beta_heads == 1 ? 0 : h)] : 1;
    for (int64_t i = 0; w->decay && i < d->d_k; i++) {
        float factor = expf(w->decay[d->decays_by_key ? at * d->d_k + i : at]);
        for (int64_t j = 0; j < d->d_v; j++)
            s[i * d->d_v + j] *= factor;
    }
    for (int64_t j = 0; j < d->d_v; j++)
        u[j] = v[j];
    for (int64_t i = 0; d->is_delta && i < d->d_k; i++)
        for (int64_t j = 0; j < d->d_v; j++)
            u[j] -= s[i * d->d_v + j] * k[i];
    for (int64_t i = 0; i < d->d_k; i++)
        for (int64_t j = 0; j < d->d_v; j++)
            s[i * d->d_v + j] += k[i] * (beta * u[j]);
}

static void linear_heads(void *arg, int64_t begin, int64_t end)
{
    const struct linear_work *w = arg;
    const struct mo_linear_attention_desc *d = w->d;
    int64_t share = d->q_heads / d->heads;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t h = unit % d->heads;
        float *s = w->state + unit * d->d_k * d->d_v;
        for (int64_t t = 0; t < d->steps; t++) {
            int64_t token = unit / d->heads * d->steps + t, first = token * d->q_heads + h * share;
            linear_step(w, token, h, s, w->y + first * d->d_v);
            for (int64_t at = first; at < first + share; at++) {
                float *y = w->y + at * d->d_v;
                for (int64_t j = 0; j < d->d_v; j++)
                    y[j] = 0;
                for (int64_t i = 0; i < d->d_k; i++)
                    for (int64_t j = 0; j < d->d_v; j++)
                        y[j] += d->scale * w->q[at * d->d_k + i] * s[i * d->d_v + j];
            }
        }
    }
}

void mo_ref_linear_attention(struct mo_device *dev, const struct mo_linear_attention_desc *d, const float *q, const float *k,
                             const float *v, const float *decay, const float *beta, float *state, float *y)
{
    struct linear_work w = { d, q, k, v, decay, beta, state, y };
    mo_split(dev, d->batch * d->heads, mo_split_grain(d->steps * d->d_k * d->d_v), linear_heads, &w);
}
