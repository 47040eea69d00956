/* gemm.cu - matrix products: cuBLASLt (product.cu) for float32 and 16 bits, own kernels for int8 and sparse ones. */
#include "kernels/cuda/product.cuh"

#include <stdlib.h>

/* c = beta * c over rows of ldc: the product of no terms. */
template <class T>
static void scale(struct mo_device *dev, int64_t m, int64_t n, float beta, T *c, int64_t ldc)
{
    mo_each(dev, m * n, [=] __device__(int64_t i) {
        T *at = c + i / n * ldc + i % n;
        *at = mo_stored<T>::of(beta == 0 ? 0 : beta * mo_load(*at));
    });
}

template <class T>
static void finish(struct mo_device *dev, int64_t m, int64_t n, struct mo_epilogue e, T *c, int64_t ldc)
{
    mo_each(dev, m * n, [=] __device__(int64_t i) {
        int64_t j = i % n;
        T *at = c + i / n * ldc + j;
        *at = mo_stored<T>::of(mo_act_of(e.act, e.act_lo, e.act_hi, mo_load(*at) + (e.bias ? e.bias[j] : 0)));
    });
}

/* rows x columns at row length ld, of float32 or of H, dense as H */
template <class H>
static void gather_rounded(struct mo_device *dev, int type, const void *x, int64_t rows, int64_t columns, int64_t ld, H *y)
{
    const float *floats = (const float *)x;
    const H *halves = (const H *)x;
    bool is_f32 = type == MO_TYPE_F32;
    mo_each(dev, rows * columns, [=] __device__(int64_t i) {
        int64_t at = i / columns * ld + i % columns;
        y[i] = is_f32 ? mo_stored<H>::of(floats[at]) : halves[at];
    });
}

/* A C of a 16-bit type has its bias rounded to that type, because cuBLASLt adds no other. */
template <class T>
static void product_of(struct mo_device *dev, struct mo_product p, float alpha, const void *a, const void *b, float beta,
                       T *c, const struct mo_epilogue *e)
{
    struct mo_epilogue end = {};
    if (e)
        end = *e;
    if (p.k <= 0) {
        scale(dev, p.m, p.n, beta, c, p.ldc);
    } else {
        bool rounds = end.bias && sizeof(T) == 2;
        mo_temp<T> rounded(dev, rounds ? p.n : 0);
        if (rounds && !rounded.at)
            return;
        if (rounds)
            gather_rounded(dev, MO_TYPE_F32, end.bias, 1, p.n, 0, rounded.at);
        const void *bias = rounds ? (const void *)rounded.at : end.bias;
        p.has_bias = bias != NULL;
        p.has_relu = end.act == MO_ACT_RELU;
        if (mo_product_run(dev, p, alpha, a, b, beta, c, bias)) {
            end.bias = NULL;
            end.act = p.has_relu ? MO_ACT_NONE : end.act;
        } else {
            p.has_bias = p.has_relu = 0;
            if (!mo_product_run(dev, p, alpha, a, b, beta, c, NULL))
                mo_cuda_latch(dev, "cuda: matrix product: cuBLASLt has no kernel for %lld x %lld x %lld", (long long)p.m,
                              (long long)p.n, (long long)p.k);
        }
    }
    if (end.bias || end.act != MO_ACT_NONE)
        finish(dev, p.m, p.n, end, c, p.ldc);
}

void mo_cuda_gemm(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                  int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc,
                  const struct mo_epilogue *e)
{
    struct mo_product p = {};
    p.m = m, p.n = n, p.k = k, p.lda = lda, p.ldb = ldb, p.ldc = ldc, p.n_batch = 1, p.ta = ta, p.tb = tb;
    p.type_ab = p.type_c = CUDA_R_32F;
    if (m > 0 && n > 0)
        product_of(dev, p, alpha, a, b, beta, c, e);
}

/* An operand as the device's 16-bit type: itself, or a dense copy. */
template <class H> struct narrowed {
    mo_temp<H> copy;
    const void *at;
    int64_t ld;
    narrowed(struct mo_device *dev, int type, const void *x, int64_t rows, int64_t columns, int64_t row_length)
        : copy(dev, type == MO_TYPE_F32 ? rows * columns : 0), at(x), ld(row_length)
    {
        if (type != MO_TYPE_F32)
            return;
        at = copy.at;
        ld = columns;
        if (copy.at)
            gather_rounded(dev, type, x, rows, columns, row_length, copy.at);
    }
};

template <class H>
static void product_of_halves(struct mo_device *dev, struct mo_product p, float alpha, int type_a, const void *a, int type_b,
                              const void *b, float beta, int type_c, void *c, const struct mo_epilogue *e)
{
    narrowed<H> x(dev, type_a, a, p.ta ? p.k : p.m, p.ta ? p.m : p.k, p.lda);
    narrowed<H> w(dev, type_b, b, p.tb ? p.n : p.k, p.tb ? p.k : p.n, p.ldb);
    if (p.k > 0 && (!x.at || !w.at))
        return;
    p.lda = x.ld, p.ldb = w.ld;
    p.type_ab = mo_cuda_type(dev, 16), p.type_c = mo_cuda_type(dev, type_c);
    if (type_c == MO_TYPE_F32)
        product_of(dev, p, alpha, x.at, w.at, beta, (float *)c, e);
    else
        product_of(dev, p, alpha, x.at, w.at, beta, (H *)c, e);
}

void mo_cuda_gemm_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, int type_a,
                       const void *a, int64_t lda, int type_b, const void *b, int64_t ldb, float beta, int type_c, void *c,
                       int64_t ldc, const struct mo_epilogue *e)
{
    struct mo_product p = {};
    p.m = m, p.n = n, p.k = k, p.lda = lda, p.ldb = ldb, p.ldc = ldc, p.n_batch = 1, p.ta = ta, p.tb = tb;
    if (m > 0 && n > 0)
        MO_BY_HALF(dev, product_of_halves<H>(dev, p, alpha, type_a, a, type_b, b, beta, type_c, c, e););
}

/* ---- batches ------------------------------------------------------------------------------------ */

/* The distance from each offset to the next where it is always the same and the offsets can be read here. */
static bool is_strided(const int64_t *offset, int64_t n, int64_t *stride)
{
    *stride = n > 1 ? offset[1] - offset[0] : 0;
    for (int64_t i = 2; i < n; i++)
        if (offset[i] - offset[i - 1] != *stride)
            return false;
    return *stride >= 0;
}

static void failed(struct mo_device *dev, cublasStatus_t status)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        mo_cuda_latch(dev, "cuda: matrix products: %s", cublasGetStatusString(status));
}

static int64_t bytes_of(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

/* Anywhere: by lists of addresses. */
static void scattered(struct mo_device *dev, const struct mo_product *p, float alpha, const void *a, const int64_t *offset_a,
                      const void *b, const int64_t *offset_b, float beta, void *c, const int64_t *offset_c)
{
    int64_t n = p->n_batch, size_ab = bytes_of(p->type_ab), size_c = bytes_of(p->type_c);
    mo_staged<int64_t> at_a(dev, offset_a, n), at_b(dev, offset_b, n), at_c(dev, offset_c, n);
    const int64_t *in_a = at_a.at, *in_b = at_b.at, *in_c = at_c.at;
    mo_temp<const void *> of_a(dev, n), of_b(dev, n);
    mo_temp<void *> of_c(dev, n);
    if (!of_a.at || !of_b.at || !of_c.at || !in_a || !in_b || !in_c)
        return;
    const void **all_a = of_a.at, **all_b = of_b.at;
    void **all_c = of_c.at;
    mo_each(dev, n, [=] __device__(int64_t i) {
        all_a[i] = (const char *)a + in_a[i] * size_ab;
        all_b[i] = (const char *)b + in_b[i] * size_ab;
        all_c[i] = (char *)c + in_c[i] * size_c;
    });
    failed(dev, cublasGemmBatchedEx_64(dev->blas, p->tb ? CUBLAS_OP_T : CUBLAS_OP_N, p->ta ? CUBLAS_OP_T : CUBLAS_OP_N, p->n,
                                       p->m, p->k, &alpha, all_b, p->type_ab, p->ldb, all_a, p->type_ab, p->lda, &beta,
                                       all_c, p->type_c, p->ldc, n, mo_compute_type(dev, p->type_ab), CUBLAS_GEMM_DEFAULT));
}

static const void *behind(const void *x, cudaDataType type, int64_t i)
{
    return (const char *)x + i * bytes_of(type);
}

static void batched(struct mo_device *dev, struct mo_product p, float alpha, const void *a, const int64_t *offset_a,
                    const void *b, const int64_t *offset_b, float beta, void *c, const int64_t *offset_c)
{
    bool is_here = !mo_cuda_is_device_memory(offset_a) && !mo_cuda_is_device_memory(offset_b) &&
                   !mo_cuda_is_device_memory(offset_c);
    bool strided = is_here && is_strided(offset_a, p.n_batch, &p.stride_a) && is_strided(offset_b, p.n_batch, &p.stride_b) &&
                   is_strided(offset_c, p.n_batch, &p.stride_c) && p.n_batch <= INT32_MAX;
    if (strided && mo_product_run(dev, p, alpha, behind(a, p.type_ab, offset_a[0]), behind(b, p.type_ab, offset_b[0]), beta,
                                  (void *)behind(c, p.type_c, offset_c[0]), NULL))
        return;
    scattered(dev, &p, alpha, a, offset_a, b, offset_b, beta, c, offset_c);
}

/* Products of no terms. */
template <class T>
static void scale_batch(struct mo_device *dev, const struct mo_product &p, float beta, T *c, const int64_t *offset_c)
{
    mo_staged<int64_t> at_c(dev, offset_c, p.n_batch);
    const int64_t *in_c = at_c.at;
    int64_t m = p.m, n = p.n, ldc = p.ldc;
    mo_each(dev, in_c ? p.n_batch * m * n : 0, [=] __device__(int64_t i) {
        T *at = c + in_c[i / (m * n)] + i / n % m * ldc + i % n;
        *at = mo_stored<T>::of(beta == 0 ? 0 : beta * mo_load(*at));
    });
}

void mo_cuda_gemm_batched(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                          const float *a, int64_t lda, const int64_t *offset_a, const float *b, int64_t ldb,
                          const int64_t *offset_b, float beta, float *c, int64_t ldc, const int64_t *offset_c,
                          int64_t n_batch)
{
    struct mo_product p = {};
    p.m = m, p.n = n, p.k = k, p.lda = lda, p.ldb = ldb, p.ldc = ldc, p.n_batch = n_batch, p.ta = ta, p.tb = tb;
    p.type_ab = p.type_c = CUDA_R_32F;
    if (m <= 0 || n <= 0 || n_batch <= 0)
        return;
    if (k <= 0)
        scale_batch(dev, p, beta, c, offset_c);
    else
        batched(dev, p, alpha, a, offset_a, b, offset_b, beta, c, offset_c);
}

/* n matrices at offsets of x, dense and side by side */
template <class H>
static void gather_batch(struct mo_device *dev, const float *x, int64_t rows, int64_t columns, int64_t ld,
                         const int64_t *offset, int64_t n, H *y)
{
    mo_staged<int64_t> from(dev, offset, n);
    const int64_t *in = from.at;
    int64_t each = rows * columns;
    mo_each(dev, in ? n * each : 0, [=] __device__(int64_t i) {
        int64_t u = i % each;
        y[i] = mo_stored<H>::of(x[in[i / each] + u / columns * ld + u % columns]);
    });
}

/* Batches of an operand in float32 are rounded into dense ones. */
template <class H> struct narrowed_batch {
    mo_temp<H> copy;
    int64_t *places;
    const void *at;
    const int64_t *offset;
    int64_t ld;
    narrowed_batch(struct mo_device *dev, int type, const void *x, int64_t rows, int64_t columns, int64_t row_length,
                   const int64_t *offset_x, int64_t n)
        : copy(dev, type == MO_TYPE_F32 ? n * rows * columns : 0), places(NULL), at(x), offset(offset_x), ld(row_length)
    {
        if (type != MO_TYPE_F32)
            return;
        at = copy.at;
        offset = places = (int64_t *)malloc((size_t)n * sizeof *places);
        ld = columns;
        if (!places)
            mo_cuda_latch(dev, "out of memory on the host: products of matrices");
        if (!copy.at || !places)
            return;
        gather_batch(dev, (const float *)x, rows, columns, row_length, offset_x, n, copy.at);
        for (int64_t i = 0; i < n; i++)
            places[i] = i * rows * columns;
    }
    ~narrowed_batch()
    {
        free(places);
    }
    narrowed_batch(const narrowed_batch &) = delete;
    narrowed_batch &operator=(const narrowed_batch &) = delete;
};

template <class H>
static void batched_halves(struct mo_device *dev, struct mo_product p, float alpha, int type_a, const void *a,
                           const int64_t *offset_a, int type_b, const void *b, const int64_t *offset_b, float beta,
                           int type_c, void *c, const int64_t *offset_c)
{
    if (p.k <= 0) {
        if (type_c == MO_TYPE_F32)
            scale_batch(dev, p, beta, (float *)c, offset_c);
        else
            scale_batch(dev, p, beta, (H *)c, offset_c);
        return;
    }
    narrowed_batch<H> x(dev, type_a, a, p.ta ? p.k : p.m, p.ta ? p.m : p.k, p.lda, offset_a, p.n_batch);
    narrowed_batch<H> w(dev, type_b, b, p.tb ? p.n : p.k, p.tb ? p.k : p.n, p.ldb, offset_b, p.n_batch);
    if (!x.at || !w.at || !x.offset || !w.offset)
        return;
    p.lda = x.ld, p.ldb = w.ld;
    p.type_ab = mo_cuda_type(dev, 16), p.type_c = mo_cuda_type(dev, type_c);
    batched(dev, p, alpha, x.at, x.offset, w.at, w.offset, beta, c, offset_c);
}

void mo_cuda_gemm_batched_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                               int type_a, const void *a, int64_t lda, const int64_t *offset_a, int type_b, const void *b,
                               int64_t ldb, const int64_t *offset_b, float beta, int type_c, void *c, int64_t ldc,
                               const int64_t *offset_c, int64_t n_batch)
{
    struct mo_product p = {};
    p.m = m, p.n = n, p.k = k, p.lda = lda, p.ldb = ldb, p.ldc = ldc, p.n_batch = n_batch, p.ta = ta, p.tb = tb;
    if (m > 0 && n > 0 && n_batch > 0)
        MO_BY_HALF(dev, batched_halves<H>(dev, p, alpha, type_a, a, offset_a, type_b, b, offset_b, beta, type_c, c,
                                          offset_c););
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
