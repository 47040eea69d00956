/* emulated_numbers.h - numbers of the types that the libraries of the emulated device take. */
#ifndef EMULATED_NUMBERS_H
#define EMULATED_NUMBERS_H

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

static inline size_t emulated_bytes_of(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static inline float emulated_read(cudaDataType type, const void *x, int64_t i)
{
    return type == CUDA_R_32F ? ((const float *)x)[i] : type == CUDA_R_16F ? __half2float(((const __half *)x)[i])
                                                                            : __bfloat162float(((const __nv_bfloat16 *)x)[i]);
}

static inline void emulated_write(cudaDataType type, void *x, int64_t i, float value)
{
    if (type == CUDA_R_32F)
        ((float *)x)[i] = value;
    else if (type == CUDA_R_16F)
        ((__half *)x)[i] = __float2half_rn(value);
    else
        ((__nv_bfloat16 *)x)[i] = __float2bfloat16_rn(value);
}

#endif
