/* product.cu - matrix products by cuBLASLt, with bias and Relu in the same launch.
 *
 * cuBLASLt counts columns first. A row-major C = A B is there C' = B' A', so the operands
 * change places and nothing is copied; the bias, one number for each column of C, is one for
 * each row of C', which is what its epilogue adds. Which of its kernels to take is asked of
 * its heuristics once for each shape; the answer and the descriptors are kept for the
 * life of the device. */
#include "kernels/cuda/product.cuh"

#include <stdlib.h>
#include <string.h>

enum { N_BUCKETS = 256, MOST_ALIGNMENT = 256 };

struct entry {
    struct entry *next;
    struct mo_product key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
    size_t workspace_bytes;
    bool is_possible;
};

struct mo_products {
    struct entry *bucket[N_BUCKETS];
};

static bool is_done(struct mo_device *dev, cublasStatus_t status)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        mo_cuda_latch(dev, "cuda: matrix product: %s", cublasGetStatusString(status));
    return status == CUBLAS_STATUS_SUCCESS;
}

/* FNV-1a */
static unsigned bucket_of(const struct mo_product *p)
{
    unsigned h = 2166136261u;
    for (size_t i = 0; i < sizeof *p; i++)
        h = (h ^ ((const unsigned char *)p)[i]) * 16777619u;
    return h % N_BUCKETS;
}

static void entry_free(struct entry *e)
{
    if (e->op)
        cublasLtMatmulDescDestroy(e->op);
    if (e->a)
        cublasLtMatrixLayoutDestroy(e->a);
    if (e->b)
        cublasLtMatrixLayoutDestroy(e->b);
    if (e->c)
        cublasLtMatrixLayoutDestroy(e->c);
    free(e);
}

void mo_products_free(struct mo_products *products)
{
    for (int i = 0; products && i < N_BUCKETS; i++)
        while (products->bucket[i]) {
            struct entry *e = products->bucket[i];
            products->bucket[i] = e->next;
            entry_free(e);
        }
    free(products);
}

/* ---- describing a product -------------------------------------------------------------------- */

/* A row-major matrix of rows x columns is one of columns x rows there. */
static cublasStatus_t layout(cublasLtMatrixLayout_t *to, cudaDataType type, int64_t rows, int64_t columns, int64_t ld,
                             int64_t n_batch, int64_t stride)
{
    int32_t count = (int32_t)n_batch;
    cublasStatus_t s = cublasLtMatrixLayoutCreate(to, type, (uint64_t)columns, (uint64_t)rows, ld);
    if (!s && n_batch > 1)
        s = cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
    if (!s && n_batch > 1)
        s = cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
    return s;
}

static cublasStatus_t describe(struct mo_device *dev, struct entry *e)
{
    const struct mo_product *p = &e->key;
    int32_t ta = p->tb ? CUBLAS_OP_T : CUBLAS_OP_N, tb = p->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t end = p->has_relu ? p->has_bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU
                             : p->has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cublasStatus_t s = cublasLtMatmulDescCreate(&e->op, mo_compute_type(dev, p->type_ab), CUDA_R_32F);
    if (!s)
        s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    if (!s)
        s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    if (!s)
        s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &end, sizeof end);
    if (!s)
        s = layout(&e->a, p->type_ab, p->tb ? p->n : p->k, p->tb ? p->k : p->n, p->ldb, p->n_batch, p->stride_b);
    if (!s)
        s = layout(&e->b, p->type_ab, p->ta ? p->k : p->m, p->ta ? p->m : p->k, p->lda, p->n_batch, p->stride_a);
    if (!s)
        s = layout(&e->c, p->type_c, p->m, p->n, p->ldc, p->n_batch, p->stride_c);
    return s;
}

static cublasStatus_t prefer(cublasLtMatmulPreference_t like, const struct mo_device *dev, uint32_t alignment)
{
    static const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
    };
    cublasStatus_t s = cublasLtMatmulPreferenceSetAttribute(like, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                            &dev->workspace_bytes, sizeof dev->workspace_bytes);
    for (size_t i = 0; !s && i < sizeof sides / sizeof *sides; i++)
        s = cublasLtMatmulPreferenceSetAttribute(like, sides[i], &alignment, sizeof alignment);
    return s;
}

/* The kernel that the heuristics like best; none is no error. bias: it looks at where it lies. */
static cublasStatus_t choose(struct mo_device *dev, struct entry *e, const void *bias)
{
    cublasLtMatmulPreference_t like;
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    cublasStatus_t s = cublasLtMatmulPreferenceCreate(&like);
    if (s)
        return s;
    s = prefer(like, dev, (uint32_t)e->key.alignment);
    if (!s && bias)
        s = cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (!s)
        s = cublasLtMatmulAlgoGetHeuristic((cublasLtHandle_t)dev->blas, e->op, e->a, e->b, e->c, e->c, like, 1, &best, &n);
    cublasLtMatmulPreferenceDestroy(like);
    e->is_possible = !s && n > 0 && best.state == CUBLAS_STATUS_SUCCESS;
    if (e->is_possible) {
        e->algo = best.algo;
        e->workspace_bytes = best.workspaceSize;
    }
    return s == CUBLAS_STATUS_NOT_SUPPORTED ? CUBLAS_STATUS_SUCCESS : s;
}

/* NULL: an error was latched. */
static struct entry *find(struct mo_device *dev, const struct mo_product *p, const void *bias)
{
    if (!dev->products)
        dev->products = (struct mo_products *)calloc(1, sizeof *dev->products);
    struct entry **at = dev->products ? &dev->products->bucket[bucket_of(p)] : NULL;
    for (struct entry *e = at ? *at : NULL; e; e = e->next)
        if (!memcmp(&e->key, p, sizeof *p))
            return e;
    struct entry *e = at ? (struct entry *)calloc(1, sizeof *e) : NULL;
    if (!e) {
        mo_cuda_latch(dev, "out of memory on the host: a matrix product");
        return NULL;
    }
    e->key = *p;
    cublasStatus_t s = describe(dev, e);
    if (!s)
        s = choose(dev, e, bias);
    if (!is_done(dev, s)) {
        entry_free(e);
        return NULL;
    }
    e->next = *at;
    return *at = e;
}

/* ---- computing it ---------------------------------------------------------------------------------- */

/* The largest power of two that all addresses are multiples of. */
static int32_t alignment_of(const void *a, const void *b, const void *c, const void *bias)
{
    uintptr_t bits = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)bias | MOST_ALIGNMENT;
    return (int32_t)(bits & (~bits + 1));
}

bool mo_product_run(struct mo_device *dev, struct mo_product p, float alpha, const void *a, const void *b, float beta,
                    void *c, const void *bias)
{
    mo_cuda_use(dev);
    p.alignment = alignment_of(a, b, c, bias);
    struct entry *e = find(dev, &p, bias);
    if (!e || !e->is_possible)
        return !e;
    if (bias && !is_done(dev, cublasLtMatmulDescSetAttribute(e->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias)))
        return true;
    is_done(dev, cublasLtMatmul((cublasLtHandle_t)dev->blas, e->op, &alpha, b, e->a, a, e->b, &beta, c, e->c, c, e->c,
                                &e->algo, dev->workspace, e->workspace_bytes, dev->stream));
    return true;
}
