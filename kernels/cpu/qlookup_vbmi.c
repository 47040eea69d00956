/* qlookup_vbmi.c - tables of 256 bytes in four registers, for processors with AVX512_VBMI. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/qconv.h"

void mo_qlookup_vbmi(int64_t n, const uint8_t *table, const uint8_t *x, uint8_t *y)
{
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (int64_t i = 0; i < n; i += 64) {
        __mmask64 some = n - i >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - i)) - 1;
        __m512i v = _mm512_maskz_loadu_epi8(some, x + i);
        __m512i low = _mm512_permutex2var_epi8(t0, v, t1), high = _mm512_permutex2var_epi8(t2, v, t3);
        _mm512_mask_storeu_epi8(y + i, some, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
    }
}
#endif
