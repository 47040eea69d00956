/* product.cuh - matrix products by cuBLASLt. */
#ifndef MO_PRODUCT_CUH
#define MO_PRODUCT_CUH

#include "kernels/cuda/device.cuh"

/* C = act(alpha op(A) op(B) + beta C + bias) of row-major matrices, n_batch of them at strides (elements). A and B are of
 * one type. All of it is the key under which the way to compute it is kept. */
struct mo_product {
    int64_t m, n, k, lda, ldb, ldc, n_batch, stride_a, stride_b, stride_c;
    cudaDataType type_ab, type_c;
    int32_t ta, tb;
    int32_t has_bias, has_relu; /* bias: n numbers of the type of C */
    int32_t alignment;          /* of the three, in bytes; mo_product_run sets it */
    int32_t unused;             /* no gap: keys are compared byte by byte */
};

/* false: cuBLASLt has no way to do this in one step; nothing was computed. Errors are latched. */
bool mo_product_run(struct mo_device *dev, struct mo_product p, float alpha, const void *a, const void *b, float beta,
                    void *c, const void *bias);
void mo_products_free(struct mo_products *products);

/* Of float32, or of the device's 16-bit type (any other number: 10, 16). */
enum { MO_TYPE_F32 = 1 };
static inline cudaDataType mo_cuda_type(const struct mo_device *dev, int type)
{
    return type == MO_TYPE_F32 ? CUDA_R_32F : dev->half_is_f16 ? CUDA_R_16F : CUDA_R_16BF;
}
static inline cublasComputeType_t mo_compute_type(const struct mo_device *dev, cudaDataType type_ab)
{
    return type_ab == CUDA_R_32F && dev->uses_tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

#endif
