/* gemm.cu - matrix products: cuBLAS for float32, own kernels for int8 and sparse ones.
 *
 * cuBLAS counts columns first. A row-major C = A B is there C' = B' A', so the
 * operands change places and nothing is copied. */
#include "kernels/cuda/device.cuh"

static void product_failed(struct mo_device *dev, cublasStatus_t status)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        mo_cuda_latch(dev, "cuda: matrix product: %s", cublasGetStatusString(status));
}

/* c = beta * c over rows of ldc: the product of no terms. */
static void scale(struct mo_device *dev, int64_t m, int64_t n, float beta, float *c, int64_t ldc)
{
    mo_each(dev, m * n, [=] __device__(int64_t i) {
        float *at = c + i / n * ldc + i % n;
        *at = beta == 0 ? 0 : beta * *at;
    });
}

void mo_cuda_gemm(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                  int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc,
                  const struct mo_epilogue *e)
{
    if (m <= 0 || n <= 0)
        return;
    mo_cuda_use(dev);
    if (k <= 0)
        scale(dev, m, n, beta, c, ldc);
    else
        product_failed(dev, cublasSgemm_64(dev->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N, n,
                                           m, k, &alpha, b, ldb, a, lda, &beta, c, ldc));
    if (!e || (!e->bias && e->act == MO_ACT_NONE))
        return;
    struct mo_epilogue end = *e;
    mo_each(dev, m * n, [=] __device__(int64_t i) {
        int64_t j = i % n;
        float *at = c + i / n * ldc + j;
        *at = mo_act_of(end.act, end.act_lo, end.act_hi, *at + (end.bias ? end.bias[j] : 0));
    });
}

void mo_cuda_gemm_batched(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                          const float *a, int64_t lda, const int64_t *offset_a, const float *b, int64_t ldb,
                          const int64_t *offset_b, float beta, float *c, int64_t ldc, const int64_t *offset_c,
                          int64_t n_batch)
{
    if (m <= 0 || n <= 0 || n_batch <= 0)
        return;
    mo_staged<int64_t> at_a(dev, offset_a, n_batch), at_b(dev, offset_b, n_batch), at_c(dev, offset_c, n_batch);
    const int64_t *in_a = at_a.at, *in_b = at_b.at, *in_c = at_c.at;
    if (k <= 0) {
        mo_each(dev, n_batch * m * n, [=] __device__(int64_t i) {
            float *at = c + in_c[i / (m * n)] + i / n % m * ldc + i % n;
            *at = beta == 0 ? 0 : beta * *at;
        });
        return;
    }
    mo_temp<const float *> of_a(dev, n_batch), of_b(dev, n_batch);
    mo_temp<float *> of_c(dev, n_batch);
    if (!of_a.at || !of_b.at || !of_c.at)
        return;
    const float **all_a = of_a.at, **all_b = of_b.at;
    float **all_c = of_c.at;
    mo_each(dev, n_batch, [=] __device__(int64_t i) {
        all_a[i] = a + in_a[i];
        all_b[i] = b + in_b[i];
        all_c[i] = c + in_c[i];
    });
    product_failed(dev, cublasSgemmBatched_64(dev->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N,
                                              n, m, k, &alpha, all_b, ldb, all_a, lda, &beta, all_c, ldc, n_batch));
}

/* ---- int8 ------------------------------------------------------------------------------------ */

static __device__ int32_t byte_at(const void *bytes, bool is_signed, int64_t i)
{
    return is_signed ? (int32_t)((const int8_t *)bytes)[i] : (int32_t)((const uint8_t *)bytes)[i];
}

void mo_cuda_gemm_int8(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const void *a, bool a_signed, int32_t za,
                       const void *b, bool b_signed, const int32_t *zb, bool zb_per_column, int32_t *c)
{
    mo_staged<int32_t> zeros(dev, zb, zb_per_column ? n : 1);
    const int32_t *zero_of = zeros.at;
    mo_each(dev, m * n, [=] __device__(int64_t u) {
        int64_t i = u / n, j = u % n;
        int32_t zero = zero_of ? zero_of[zb_per_column ? j : 0] : 0;
        uint32_t sum = 0;
        for (int64_t p = 0; p < k; p++)
            sum += (uint32_t)((byte_at(a, a_signed, i * k + p) - za) * (byte_at(b, b_signed, p * n + j) - zero));
        c[u] = (int32_t)sum;
    });
}

/* ---- sparse rows ------------------------------------------------------------------------------ */

/* The rows may lie on either side: batches of sparse samples come as the host's. */
struct sparse_rows {
    mo_staged<int64_t> start;
    mo_staged<int32_t> column;
    mo_staged<float> value;
    sparse_rows(struct mo_device *dev, int64_t m, const int64_t *row_start, const int32_t *columns, const float *values)
        : start(dev, row_start, m + 1), column(dev, columns, n_entries(row_start, m)),
          value(dev, values, n_entries(row_start, m))
    {
    }
    static int64_t n_entries(const int64_t *row_start, int64_t m)
    {
        return mo_cuda_is_device_memory(row_start) ? 0 : row_start[m];
    }
};

void mo_cuda_gemm_csr(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                      const int32_t *columns, const float *values, bool tb, const float *b, const float *bias, float *y)
{
    sparse_rows x(dev, m, row_start, columns, values);
    const int64_t *start = x.start.at;
    const int32_t *column = x.column.at;
    const float *value = x.value.at;
    mo_each(dev, m * n, [=] __device__(int64_t u) {
        int64_t r = u / n, j = u % n;
        float sum = bias ? bias[j] : 0;
        for (int64_t e = start[r]; e < start[r + 1]; e++)
            sum += value[e] * b[tb ? j * k + column[e] : column[e] * n + j];
        y[u] = sum;
    });
}

/* A thread owns one column of dY, and so of dB: it adds in the order of the rows, and nobody else adds there. */
void mo_cuda_gemm_csr_grad(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                           const int32_t *columns, const float *values, bool tb, const float *dy, float *db)
{
    sparse_rows x(dev, m, row_start, columns, values);
    const int64_t *start = x.start.at;
    const int32_t *column = x.column.at;
    const float *value = x.value.at;
    mo_each(dev, k * n, [=] __device__(int64_t i) { db[i] = 0; });
    mo_each(dev, n, [=] __device__(int64_t j) {
        for (int64_t r = 0; r < m; r++) {
            float g = dy[r * n + j];
            for (int64_t e = start[r]; e < start[r + 1]; e++)
                db[tb ? j * k + column[e] : column[e] * n + j] += value[e] * g;
        }
    });
}

/* ---- other types ------------------------------------------------------------------------------ */

template <class T>
static void matmul_of(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const T *a, const int64_t *at_a, const T *b,
                      const int64_t *at_b, T *c, const int64_t *at_c, int64_t n_batch)
{
    mo_each(dev, n_batch * m * n, [=] __device__(int64_t u) {
        int64_t j = u % n, row = u / n % m, i = u / n / m;
        T sum = 0;
        for (int64_t p = 0; p < k; p++)
            sum += a[at_a[i] + row * k + p] * b[at_b[i] + p * n + j];
        c[at_c[i] + row * n + j] = sum;
    });
}

void mo_cuda_matmul_typed(struct mo_device *dev, int dtype, int64_t m, int64_t n, int64_t k, const void *a,
                          const int64_t *offset_a, const void *b, const int64_t *offset_b, void *c,
                          const int64_t *offset_c, int64_t n_batch)
{
    mo_staged<int64_t> of_a(dev, offset_a, n_batch), of_b(dev, offset_b, n_batch), of_c(dev, offset_c, n_batch);
#define PRODUCT(T) matmul_of(dev, m, n, k, (const T *)a, of_a.at, (const T *)b, of_b.at, (T *)c, of_c.at, n_batch)
    switch (dtype) {
    case 11: PRODUCT(double); break;
    case 6: case 12: PRODUCT(uint32_t); break;
    case 7: case 13: PRODUCT(uint64_t); break;
    default: mo_cuda_latch(dev, "matmul_typed: no kernel for element type %d", dtype);
    }
#undef PRODUCT
}

/* A thread owns a column of one head's state: columns know nothing of each other. */
void mo_cuda_linear_attention(struct mo_device *dev, const struct mo_linear_attention_desc *desc, const float *q,
                              const float *k, const float *v, const float *decay, const float *beta, float *state,
                              float *y)
{
    struct mo_linear_attention_desc d = *desc;
    mo_each(dev, d.batch * d.heads * d.d_v, [=] __device__(int64_t thread) {
        int64_t j = thread % d.d_v, unit = thread / d.d_v, h = unit % d.heads, share = d.q_heads / d.heads;
        float *s = state + unit * d.d_k * d.d_v + j;
        for (int64_t t = 0; t < d.steps; t++) {
            int64_t token = unit / d.heads * d.steps + t, at = token * d.heads + h;
            const float *key = k + at * d.d_k;
            float u = v[at * d.d_v + j], factor = beta ? beta[token * d.beta_heads + (d.beta_heads == 1 ? 0 : h)] : 1;
            for (int64_t i = 0; i < d.d_k; i++) {
                if (decay)
                    s[i * d.d_v] *= expf(decay[d.decays_by_key ? at * d.d_k + i : at]);
                if (d.is_delta)
                    u -= s[i * d.d_v] * key[i];
            }
            for (int64_t i = 0; i < d.d_k; i++)
                s[i * d.d_v] += key[i] * (factor * u);
            for (int64_t of = token * d.q_heads + h * share, end = of + share; of < end; of++) {
                float sum = 0;
                for (int64_t i = 0; i < d.d_k; i++)
                    sum += d.scale * q[of * d.d_k + i] * s[i * d.d_v];
                y[of * d.d_v + j] = sum;
            }
        }
    });
}
