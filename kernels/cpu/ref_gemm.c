/* Plain C matrix products. gemm_csr and the integer ones live beside their operators. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/act.h"

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
