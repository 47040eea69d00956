/* blas.cpp - cuBLAS and cuBLASLt of the emulated device: three loops, columns first, sums in double. What a
 * description gets wrong is an error, also what a card would only find while running: memory that is not the
 * device's or ends too early, addresses less aligned than was promised. */
#include <math.h>
#include <stdlib.h>

#include <vector>

#include "cublasLt.h"
#include "emulated_numbers.h"

struct emulated_blas {
    cudaStream_t stream;
    void *workspace;
    size_t workspace_bytes;
};
struct emulated_matmul {
    int32_t ta, tb;
    cublasLtEpilogue_t end;
    const void *bias;
};
struct emulated_layout {
    cudaDataType type;
    int64_t rows, columns, ld, stride;
    int32_t n_batch;
};
struct emulated_preference {
    size_t workspace_bytes;
    uint32_t alignment;
};

/* ---- cuBLAS ------------------------------------------------------------------------------------- */

cublasStatus_t cublasCreate(cublasHandle_t *blas)
{
    *blas = new emulated_blas();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t blas)
{
    delete blas;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t blas, cudaStream_t stream)
{
    blas->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t blas, void *mem, size_t bytes)
{
    if (!emulated_has(mem, bytes))
        return CUBLAS_STATUS_INVALID_VALUE;
    blas->workspace = mem;
    blas->workspace_bytes = bytes;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_INVALID_VALUE";
}

struct product {
    bool ta, tb;
    int64_t m, n, k, lda, ldb, ldc;
    cudaDataType type_ab, type_c;
    float alpha, beta;
    bool has_relu;
};

static bool is_valid(const product &p)
{
    return p.m > 0 && p.n > 0 && p.k > 0 && p.lda >= (p.ta ? p.k : p.m) && p.ldb >= (p.tb ? p.n : p.k) && p.ldc >= p.m;
}

static bool has_matrix(const void *x, cudaDataType type, int64_t rows, int64_t columns, int64_t ld)
{
    return emulated_has(x, (size_t)((columns - 1) * ld + rows) * emulated_bytes_of(type));
}

static bool has_all(const product &p, const void *a, const void *b, const void *c, const void *bias)
{
    bool is_there = has_matrix(a, p.type_ab, p.ta ? p.k : p.m, p.ta ? p.m : p.k, p.lda) &&
                    has_matrix(b, p.type_ab, p.tb ? p.n : p.k, p.tb ? p.k : p.n, p.ldb) &&
                    has_matrix(c, p.type_c, p.m, p.n, p.ldc) &&
                    (!bias || emulated_has(bias, (size_t)p.m * emulated_bytes_of(p.type_c)));
    if (!is_there)
        emulated_fault("a product reaches beyond an allocation, or into memory of the host");
    return is_there;
}

static void multiply(const product &p, const void *a, const void *b, void *c, const void *bias)
{
    std::vector<double> column((size_t)p.m);
    if (!has_all(p, a, b, c, bias))
        return;
    for (int64_t j = 0; j < p.n; j++) {
        std::fill(column.begin(), column.end(), 0.0);
        for (int64_t l = 0; l < p.k; l++) {
            double factor = emulated_read(p.type_ab, b, p.tb ? j + l * p.ldb : l + j * p.ldb);
            for (int64_t i = 0; i < p.m; i++)
                column[(size_t)i] += factor * emulated_read(p.type_ab, a, p.ta ? l + i * p.lda : i + l * p.lda);
        }
        for (int64_t i = 0; i < p.m; i++) {
            int64_t at = i + j * p.ldc;
            double v = p.alpha * column[(size_t)i] + (p.beta == 0 ? 0 : p.beta * emulated_read(p.type_c, c, at)) +
                       (bias ? emulated_read(p.type_c, bias, i) : 0);
            emulated_write(p.type_c, c, at, p.has_relu && v < 0 ? 0 : (float)v);
        }
    }
}

cublasStatus_t cublasGemmBatchedEx_64(cublasHandle_t blas, cublasOperation_t ta, cublasOperation_t tb, int64_t m, int64_t n,
                                      int64_t k, const void *alpha, const void *const a[], cudaDataType type_a, int64_t lda,
                                      const void *const b[], cudaDataType type_b, int64_t ldb, const void *beta,
                                      void *const c[], cudaDataType type_c, int64_t ldc, int64_t n_batch,
                                      cublasComputeType_t, cublasGemmAlgo_t)
{
    product p = { ta == CUBLAS_OP_T, tb == CUBLAS_OP_T, m, n, k, lda, ldb, ldc, type_a, type_c,
                  *(const float *)alpha, *(const float *)beta, false };
    if (!is_valid(p) || type_a != type_b || n_batch < 1 || (type_c != type_a && type_c != CUDA_R_32F))
        return CUBLAS_STATUS_INVALID_VALUE;
    emulated_enqueue(blas->stream, [=] {
        for (int64_t i = 0; i < n_batch; i++)
            multiply(p, a[i], b[i], c[i], NULL);
    });
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- cuBLASLt: descriptions ---------------------------------------------------------------------------- */

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *op, cublasComputeType_t, cudaDataType scale)
{
    *op = new emulated_matmul{ CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL };
    return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

template <class T> static cublasStatus_t set(T *to, const void *value, size_t bytes)
{
    if (bytes != sizeof *to)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t which, const void *value,
                                              size_t bytes)
{
    switch (which) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&op->ta, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&op->tb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&op->end, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&op->bias, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op)
{
    delete op;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows, uint64_t columns,
                                          int64_t ld)
{
    *layout = new emulated_layout{ type, (int64_t)rows, (int64_t)columns, ld, 0, 1 };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t which,
                                                const void *value, size_t bytes)
{
    return which == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT ? set(&layout->n_batch, value, bytes) : set(&layout->stride, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *like)
{
    *like = new emulated_preference{ 0, 256 };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t like,
                                                    cublasLtMatmulPreferenceAttributes_t which, const void *value,
                                                    size_t bytes)
{
    return which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? set(&like->workspace_bytes, value, bytes)
                                                             : set(&like->alignment, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t like)
{
    delete like;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- cuBLASLt: products --------------------------------------------------------------------------------- */

static product product_of(cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                          cublasLtMatrixLayout_t c)
{
    bool ta = op->ta == CUBLAS_OP_T, tb = op->tb == CUBLAS_OP_T;
    return { ta, tb, c->rows, c->columns, ta ? a->rows : a->columns, a->ld, b->ld, c->ld, a->type, c->type, 1, 0,
             (op->end & CUBLASLT_EPILOGUE_RELU) != 0 };
}

/* Sizes that fit each other, types that exist together. */
static bool fits(const product &p, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c)
{
    return is_valid(p) && (p.ta ? a->columns : a->rows) == p.m && (p.tb ? b->columns : b->rows) == p.k &&
           (p.tb ? b->rows : b->columns) == p.n && a->type == b->type && (c->type == a->type || c->type == CUDA_R_32F) &&
           a->n_batch == c->n_batch && b->n_batch == c->n_batch;
}

/* The algorithm carries what it was chosen for: the alignment. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t like, int, cublasLtMatmulHeuristicResult_t *list,
                                              int *n)
{
    if (c != d || !fits(product_of(op, a, b, c), a, b, c))
        return CUBLAS_STATUS_INVALID_VALUE;
    *n = op->end == CUBLASLT_EPILOGUE_DEFAULT || !getenv("MOPT_EMULATED_NO_EPILOGUE");
    list[0] = {};
    list[0].algo.data[0] = like->alignment;
    list[0].workspaceSize = like->workspace_bytes / 2;
    return *n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t layout_a, const void *b, cublasLtMatrixLayout_t layout_b,
                              const void *beta, const void *c, cublasLtMatrixLayout_t layout_c, void *d,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    product p = product_of(op, layout_a, layout_b, layout_c);
    const void *bias = op->end & CUBLASLT_EPILOGUE_BIAS ? op->bias : NULL;
    uintptr_t addresses = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)bias;
    p.alpha = *(const float *)alpha;
    p.beta = *(const float *)beta;
    if (c != d || !fits(p, layout_a, layout_b, layout_c) || (op->end & CUBLASLT_EPILOGUE_BIAS && !bias) ||
        !algo->data[0] || addresses % algo->data[0] || (workspace_bytes && !emulated_has(workspace, workspace_bytes)))
        return CUBLAS_STATUS_INVALID_VALUE;
    int64_t size_ab = (int64_t)emulated_bytes_of(p.type_ab), size_c = (int64_t)emulated_bytes_of(p.type_c);
    int64_t step_a = layout_a->stride * size_ab, step_b = layout_b->stride * size_ab, step_c = layout_c->stride * size_c;
    int64_t n = layout_c->n_batch;
    emulated_enqueue(stream, [=] {
        for (int64_t i = 0; i < n; i++)
            multiply(p, (const char *)a + i * step_a, (const char *)b + i * step_b, (char *)d + i * step_c, bias);
    });
    return CUBLAS_STATUS_SUCCESS;
}
