/* cublas_v2.h - stands in for cuBLAS: the products that kernels/cuda/ asks for, as three loops. */
#ifndef EMULATED_CUBLAS_V2_H
#define EMULATED_CUBLAS_V2_H

#include "cuda_runtime.h"

typedef enum { CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_INVALID_VALUE = 7 } cublasStatus_t;
typedef enum { CUBLAS_OP_N, CUBLAS_OP_T } cublasOperation_t;
typedef enum { CUBLAS_DEFAULT_MATH, CUBLAS_PEDANTIC_MATH = 2, CUBLAS_TF32_TENSOR_OP_MATH = 3 } cublasMath_t;
typedef struct emulated_blas *cublasHandle_t;

cublasStatus_t cublasCreate(cublasHandle_t *blas);
cublasStatus_t cublasDestroy(cublasHandle_t blas);
cublasStatus_t cublasSetStream(cublasHandle_t blas, cudaStream_t stream);
cublasStatus_t cublasSetMathMode(cublasHandle_t blas, cublasMath_t mode);
cublasStatus_t cublasSetWorkspace(cublasHandle_t blas, void *mem, size_t bytes);
const char *cublasGetStatusString(cublasStatus_t status);
cublasStatus_t cublasSgemm_64(cublasHandle_t blas, cublasOperation_t ta, cublasOperation_t tb, int64_t m, int64_t n,
                              int64_t k, const float *alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                              const float *beta, float *c, int64_t ldc);
cublasStatus_t cublasSgemmBatched_64(cublasHandle_t blas, cublasOperation_t ta, cublasOperation_t tb, int64_t m,
                                     int64_t n, int64_t k, const float *alpha, const float *const a[], int64_t lda,
                                     const float *const b[], int64_t ldb, const float *beta, float *const c[],
                                     int64_t ldc, int64_t n_batch);

#endif
