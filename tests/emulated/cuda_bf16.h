/* cuda_bf16.h - stands in for CUDA's: bfloat16 of the emulated device. */
#ifndef EMULATED_CUDA_BF16_H
#define EMULATED_CUDA_BF16_H

#include <stdint.h>
#include <string.h>

struct __nv_bfloat16 {
    uint16_t bits;
};

static inline float __bfloat162float(__nv_bfloat16 x)
{
    uint32_t wide = (uint32_t)x.bits << 16;
    float y;
    memcpy(&y, &wide, sizeof y);
    return y;
}

/* To nearest, ties to even; a NaN becomes the one that cards make. */
static inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    uint32_t wide;
    memcpy(&wide, &x, sizeof wide);
    if (x != x)
        return { 0x7fff };
    return { (uint16_t)((wide + 0x7fff + (wide >> 16 & 1)) >> 16) };
}

#endif
