/* simd.h - vectors of floats for texts that are compiled for AVX2 and for AVX-512 (sgemm_body.h, wino_body.h). A part of a
 * vector is what a mask says; memory behind it is not touched. */
#ifndef MO_SIMD_H
#define MO_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define WIDTH 16
typedef __m512 vec;
typedef __mmask16 mask;
#define ZERO() _mm512_setzero_ps()
#define SET1(x) _mm512_set1_ps(x)
#define LOAD(p) _mm512_loadu_ps(p)
#define LOAD_PART(m, p) _mm512_maskz_loadu_ps(m, p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define STORE_PART(p, m, x) _mm512_mask_storeu_ps(p, m, x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define FNMA(a, b, c) _mm512_fnmadd_ps(a, b, c)
#define ADD(a, b) _mm512_add_ps(a, b)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define MUL(a, b) _mm512_mul_ps(a, b)
/* of two numbers; where x is no number, x */
#define MAX(x, lo) _mm512_max_ps(lo, x)
#define MIN(x, hi) _mm512_min_ps(hi, x)

static inline mask mask_of(int64_t n)
{
    return n >= WIDTH ? (mask)0xffff : (mask)((1u << n) - 1);
}

static inline mask both(mask a, mask b)
{
    return a & b;
}
#else
#define WIDTH 8
typedef __m256 vec;
typedef __m256i mask;
#define ZERO() _mm256_setzero_ps()
#define SET1(x) _mm256_set1_ps(x)
#define LOAD(p) _mm256_loadu_ps(p)
#define LOAD_PART(m, p) _mm256_maskload_ps(p, m)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#define STORE_PART(p, m, x) _mm256_maskstore_ps(p, m, x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define FNMA(a, b, c) _mm256_fnmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#define SUB(a, b) _mm256_sub_ps(a, b)
#define MUL(a, b) _mm256_mul_ps(a, b)
#define MAX(x, lo) _mm256_max_ps(lo, x)
#define MIN(x, hi) _mm256_min_ps(hi, x)

static inline mask mask_of(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > WIDTH ? WIDTH : (int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline mask both(mask a, mask b)
{
    return _mm256_and_si256(a, b);
}
#endif
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#endif
