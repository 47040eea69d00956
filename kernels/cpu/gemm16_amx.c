/* gemm16_amx.c - gemm16.h on AMX: two tiles of rows by two of columns. */
#if defined(__x86_64__)
#include "kernels/cpu/amx.h"
#include "kernels/cpu/gemm16.h"

static void begin(void)
{
    mo_amx_begin(16);
}

/* Both flags are constants where this is inlined. */
static inline __attribute__((always_inline)) void multiply(const bool two_rows, const bool two_columns,
                                                           const struct mo_product16 *p)
{
    const uint16_t *a = p->a, *b = p->b, *a1 = a + p->a_step, *b1 = b + p->b_step;
    IN_MEMORY(p);
    MO_AMX_ZERO(two_rows, two_columns);
    for (int64_t k = 0; k < p->n_tiles * MO_TILE16_ELEMS; k += MO_TILE16_ELEMS) {
        _tile_loadd(A0, a + k, 64);
        _tile_loadd(B0, b + k, 64);
        _tile_dpbf16ps(C00, A0, B0);
        if (two_columns) {
            _tile_loadd(B1, b1 + k, 64);
            _tile_dpbf16ps(C01, A0, B1);
        }
        if (two_rows) {
            _tile_loadd(A1, a1 + k, 64);
            _tile_dpbf16ps(C10, A1, B0);
        }
        if (two_rows && two_columns)
            _tile_dpbf16ps(C11, A1, B1);
    }
    _tile_stored(C00, p->c, 128);
    if (two_columns)
        _tile_stored(C01, p->c + 16, 128);
    if (two_rows)
        _tile_stored(C10, p->c + 512, 128);
    if (two_rows && two_columns)
        _tile_stored(C11, p->c + 512 + 16, 128);
    IN_MEMORY(p->c);
}

static void product(const struct mo_product16 *p)
{
    if (p->two_rows && p->two_columns)
        multiply(true, true, p);
    else if (p->two_rows)
        multiply(true, false, p);
    else if (p->two_columns)
        multiply(false, true, p);
    else
        multiply(false, false, p);
}

/* ---- packing: 16 vectors of 16 pairs at a time ---- */

#define INLINE static inline __attribute__((always_inline))

/* 32 numbers of k, those of the mask. */
INLINE __m512i along_k(const bool is_f32, const void *from, int64_t at, uint32_t there)
{
    if (!is_f32)
        return _mm512_maskz_loadu_epi16(there, (const uint16_t *)from + at);
    const float *x = (const float *)from + at;
    __m512 low = _mm512_maskz_loadu_ps((__mmask16)there, x), high = _mm512_maskz_loadu_ps((__mmask16)(there >> 16), x + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* 16 numbers of x, those of the mask, of one k and of the next, side by side. */
INLINE __m512i pair_of_k(const bool is_f32, const void *from, int64_t at, int64_t step, __mmask16 there, __mmask16 next)
{
    if (!is_f32) {
        __m256i low = _mm256_maskz_loadu_epi16(there, (const uint16_t *)from + at);
        __m256i high = _mm256_maskz_loadu_epi16(next, (const uint16_t *)from + at + step);
        return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
    }
    __m512 low = _mm512_maskz_loadu_ps(there, (const float *)from + at);
    __m512 high = _mm512_maskz_loadu_ps(next, (const float *)from + at + step);
    return _mm512_or_si512(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low)),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high)), 16));
}

/* 4 x 4 blocks of 4 x 4 of 32 bits */
INLINE void transpose(__m512i v[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 4) {
        __m512i a = _mm512_unpacklo_epi32(v[i], v[i + 1]), b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
        __m512i c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]), d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c);
        t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d);
        t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; i++) {
        __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
        __m512i c = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd), d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
        v[i] = _mm512_shuffle_i32x4(a, b, 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
        v[i + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
        v[i + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
}

/* The flags are constants where this is inlined. Rows of a tile are x where k runs in memory, else pairs of k. */
INLINE void pack_as(const bool is_f32, const bool k_runs, const bool as_b, const struct mo_pack16 *p)
{
    uint16_t *to = p->to;
    __mmask16 columns = (__mmask16)((1u << p->n_x) - 1);
    for (int64_t k = 0; k < p->n_k; k += MO_TILE16_K, to += MO_TILE16_ELEMS) {
        int64_t left = p->n_k - k;
        uint32_t there = left >= 32 ? ~0u : (1u << left) - 1;
        __m512i v[16];
        for (int i = 0; i < 16; i++)
            if (k_runs)
                v[i] = i < p->n_x ? along_k(is_f32, p->from, i * p->step_x + k, there) : _mm512_setzero_si512();
            else
                v[i] = pair_of_k(is_f32, p->from, 2 * i < left ? (k + 2 * i) * p->step_k : 0, p->step_k,
                                 2 * i < left ? columns : 0, 2 * i + 1 < left ? columns : 0);
        if (k_runs == as_b)
            transpose(v);
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(to + 32 * i, v[i]);
    }
}

static void pack(const struct mo_pack16 *p)
{
    switch (p->is_f32 << 2 | (p->step_k == 1) << 1 | p->as_b) {
    case 0: pack_as(false, false, false, p); break;
    case 1: pack_as(false, false, true, p); break;
    case 2: pack_as(false, true, false, p); break;
    case 3: pack_as(false, true, true, p); break;
    case 4: pack_as(true, false, false, p); break;
    case 5: pack_as(true, false, true, p); break;
    case 6: pack_as(true, true, false, p); break;
    default: pack_as(true, true, true, p); break;
    }
}

/* ---- what follows a product ---- */

/* 16 columns of one row */
INLINE void finish16(const struct mo_finish16 *f, const float *c, int64_t at, int64_t column, __mmask16 there)
{
    float *y32 = (float *)f->y + at + column;
    uint16_t *y16 = (uint16_t *)f->y + at + column;
    __m512 v = _mm512_mul_ps(_mm512_load_ps(c), _mm512_set1_ps(f->alpha));
    if (f->beta != 0) {
        __m512 y = f->to_f32 ? _mm512_maskz_loadu_ps(there, y32)
                             : _mm512_castsi512_ps(_mm512_slli_epi32(
                                   _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, y16)), 16));
        v = _mm512_add_ps(v, _mm512_mul_ps(y, _mm512_set1_ps(f->beta)));
    }
    if (f->bias)
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(there, f->bias + column));
    if (f->act == MO_ACT_RELU)
        v = _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), _mm512_setzero_ps());
    if (f->to_f32)
        _mm512_mask_storeu_ps(y32, there, v);
    else
        _mm256_mask_storeu_epi16(y16, there, (__m256i)_mm512_cvtneps_pbh(v));
}

static void finish(const struct mo_finish16 *f)
{
    if (f->act != MO_ACT_NONE && f->act != MO_ACT_RELU) {
        mo_finish16_c(f);
        return;
    }
    __mmask16 first = (__mmask16)(f->columns >= 16 ? 0xffff : (1 << f->columns) - 1);
    __mmask16 second = (__mmask16)(f->columns >= 32 ? 0xffff : f->columns > 16 ? (1 << (f->columns - 16)) - 1 : 0);
    for (int64_t i = 0; i < f->rows; i++) {
        finish16(f, f->c + i * 32, i * f->ldy, 0, first);
        if (second)
            finish16(f, f->c + i * 32 + 16, i * f->ldy, 16, second);
    }
}

const struct mo_gemm16_loops mo_gemm16_amx = {
    .begin = begin, .end = mo_amx_end, .pack = pack, .product = product, .finish = finish,
};
#endif
