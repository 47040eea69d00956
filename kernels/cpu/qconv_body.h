/* qconv_body.h - the loops of qconv.h, once for each instruction set: AVX2, AVX-512
 * and AVX-512 with VNNI. Who includes it names the table QLOOPS.
 *
 * dot4(s, x, w) adds to each int32 lane the product of its four bytes of x
 * (unsigned) and of w (signed). Without vpdpbusd the even and the odd bytes are
 * widened to 16 bits and go through vpmaddwd, which cannot overflow there:
 * vpmaddubsw, which is shorter, saturates. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/qconv.h"

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define LANES 16
#define MAX_ROWS 16
typedef __m512i whole;
typedef __m512 real;
#define V(name) _mm512_##name
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define AND(a, b) _mm512_and_si512(a, b)
#define OR(a, b) _mm512_or_si512(a, b)
#else
#define LANES 8
#define MAX_ROWS 4
typedef __m256i whole;
typedef __m256 real;
#define V(name) _mm256_##name
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define AND(a, b) _mm256_and_si256(a, b)
#define OR(a, b) _mm256_or_si256(a, b)
#endif
#define PER_PANEL (MO_QPANEL / LANES)

#if defined(__AVX512VNNI__)
typedef whole bytes_x;
typedef whole bytes_w;
INLINE bytes_x split_x(whole x)
{
    return x;
}
INLINE bytes_w split_w(whole w)
{
    return w;
}
INLINE whole dot4(whole s, bytes_x x, bytes_w w)
{
    return _mm512_dpbusd_epi32(s, x, w);
}
#else
typedef struct { whole even, odd; } bytes_x, bytes_w;
INLINE bytes_x split_x(whole x)
{
    return (bytes_x){ AND(x, V(set1_epi16)(255)), V(srli_epi16)(x, 8) };
}
INLINE bytes_w split_w(whole w)
{
    return (bytes_w){ V(srai_epi16)(V(slli_epi16)(w, 8), 8), V(srai_epi16)(w, 8) };
}
INLINE whole dot4(whole s, bytes_x x, bytes_w w)
{
    return V(add_epi32)(s, V(add_epi32)(V(madd_epi16)(x.even, w.even), V(madd_epi16)(x.odd, w.odd)));
}
#endif

/* ---- products --------------------------------------------------------------------------- */

INLINE whole four_bytes(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return V(set1_epi32)(v);
}

/* Rows and panels are constants where this is inlined, so that all sums stay in registers. */
INLINE void product(const int rows, const int panels, const struct mo_qtile *t)
{
    whole sum[MAX_ROWS][MO_QPANELS * PER_PANEL];
    const int n = panels * PER_PANEL;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < n; v++)
            sum[r][v] = V(set1_epi32)(0);
    const int8_t *b = t->b;
    const int64_t stride = t->a_stride, stride3 = 3 * stride;
    for (int s = 0; s < t->n_segments; s++) {
        const uint8_t *a0 = t->a + t->segment[s], *a4 = a0 + 4 * stride, *a8 = a4 + 4 * stride, *a12 = a8 + 4 * stride;
        for (int g = 0; g < t->n_groups; g++, b += 64) {
            bytes_w w[MO_QPANELS * PER_PANEL];
            for (int v = 0; v < n; v++)
                w[v] = split_w(LOAD(b + v / PER_PANEL * t->b_panel + v % PER_PANEL * (LANES * 4)));
            for (int r = 0; r < rows; r++) {
                const uint8_t *from = (r < 4 ? a0 : r < 8 ? a4 : r < 12 ? a8 : a12) + 4 * g;
                from += r % 4 == 0 ? 0 : r % 4 == 1 ? stride : r % 4 == 2 ? 2 * stride : stride3;
                bytes_x x = split_x(four_bytes(from));
                for (int v = 0; v < n; v++)
                    sum[r][v] = dot4(sum[r][v], x, w[v]);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < n; v++)
            STORE(t->c + r * MO_QTILE_WIDTH + v * LANES, sum[r][v]);
}

#define ROWS(r, p) case r: product(r, p, t); break;

#if LANES == 16
static void product1(const struct mo_qtile *t)
{
    switch (t->rows) {
    ROWS(1, 1) ROWS(2, 1) ROWS(3, 1) ROWS(4, 1) ROWS(5, 1) ROWS(6, 1) ROWS(7, 1) ROWS(8, 1)
    ROWS(9, 1) ROWS(10, 1) ROWS(11, 1) ROWS(12, 1) ROWS(13, 1) ROWS(14, 1) ROWS(15, 1) ROWS(16, 1)
    }
}

static void product2(const struct mo_qtile *t)
{
    switch (t->rows) {
    ROWS(1, 2) ROWS(2, 2) ROWS(3, 2) ROWS(4, 2) ROWS(5, 2) ROWS(6, 2) ROWS(7, 2) ROWS(8, 2)
#if defined(__AVX512VNNI__)
    ROWS(9, 2) ROWS(10, 2) ROWS(11, 2) ROWS(12, 2)
#endif
    }
}

static void product4(const struct mo_qtile *t)
{
    switch (t->rows) {
    ROWS(1, 4) ROWS(2, 4) ROWS(3, 4) ROWS(4, 4) ROWS(5, 4) ROWS(6, 4)
    }
}

static void any_product(const struct mo_qtile *t)
{
    switch (t->panels) {
    case 1: product1(t); break;
    case 2: product2(t); break;
    default: product4(t); break;
    }
}
#else
static void any_product(const struct mo_qtile *t)
{
    switch (t->rows) {
    ROWS(1, 1) ROWS(2, 1) ROWS(3, 1) ROWS(4, 1)
    }
}
#endif

/* ---- from sums to results ----------------------------------------------------------------- */

/* y before rounding: fma((float)(s + bias), factor, offset) */
INLINE real scaled(const struct mo_qfinish *f, whole s, int64_t at)
{
    s = V(add_epi32)(s, LOAD(f->bias + at));
    return V(fmadd_ps)(V(cvtepi32_ps)(s), V(loadu_ps)(f->factor + at), V(loadu_ps)(f->offset + at));
}

/* A NaN becomes the lowest value, as in quantize. */
INLINE whole rounded(const struct mo_qfinish *f, real v)
{
    v = V(min_ps)(V(max_ps)(v, V(set1_ps)(f->low)), V(set1_ps)(f->high));
    return V(add_epi32)(V(cvtps_epi32)(v), V(set1_epi32)(f->zero));
}

/* The low bytes of the lanes. */
INLINE void store_bytes(uint8_t *y, whole v, int n)
{
#if LANES == 16
    _mm512_mask_cvtepi32_storeu_epi8(y, (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1), v);
#else
    __m256i low = AND(v, _mm256_set1_epi32(255));
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    __m128i bytes = _mm_packus_epi16(words, words);
    if (n >= 8) {
        _mm_storel_epi64((__m128i *)y, bytes);
        return;
    }
    uint8_t part[16];
    _mm_storeu_si128((__m128i *)part, bytes);
    memcpy(y, part, (size_t)n);
#endif
}

INLINE void store_words(void *y, whole v, int n)
{
    int32_t part[LANES];
    if (n >= LANES) {
        STORE(y, v);
        return;
    }
    STORE(part, v);
    memcpy(y, part, (size_t)n * sizeof *part);
}

static void finish_words(const struct mo_qfinish *f, const int32_t *c, int rows, int64_t first, int n, void *y, int64_t y_stride)
{
    for (int r = 0; r < rows; r++, c += MO_QTILE_WIDTH)
        for (int v = 0; v < n; v += LANES) {
            whole s = LOAD(c + v);
            int64_t to = r * y_stride + v;
            if (f->y_dtype == 6)
                store_words((int32_t *)y + to, V(add_epi32)(s, LOAD(f->bias + first + v)), n - v);
            else
                store_words((float *)y + to, (whole)scaled(f, s, first + v), n - v);
        }
}

#if LANES == 16
/* Four vectors of sums to bytes: what is too large for 32 bits is caught before it is rounded, the rest saturates while
 * it is packed; a NaN becomes the lowest value. The bytes of vector k are the k-th 16 of the result. */
struct ends {
    __m512 high;
    __m512i zero, low, order;
    bool is_signed;
};

INLINE struct ends ends_of(const struct mo_qfinish *f)
{
    return (struct ends){
        .high = _mm512_set1_ps(f->high), .zero = _mm512_set1_epi16((short)f->zero),
        .low = _mm512_set1_epi8((char)((int32_t)f->low + f->zero)), .is_signed = f->y_dtype == 3,
        .order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0),
    };
}

struct column {
    __m512i bias;
    __m512 factor, offset;
};

INLINE struct column column_of(const struct mo_qfinish *f, int64_t at)
{
    return (struct column){ LOAD(f->bias + at), _mm512_loadu_ps(f->factor + at), _mm512_loadu_ps(f->offset + at) };
}

INLINE __m512i nearest(const struct ends *e, const struct column *k, const int32_t *c)
{
    __m512 v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(LOAD(c), k->bias)), k->factor, k->offset);
    return _mm512_cvtps_epi32(_mm512_min_ps(e->high, v));
}

INLINE __m512i packed(const struct ends *e, __m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), e->zero), high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), e->zero);
    __m512i bytes = e->is_signed ? _mm512_max_epi8(_mm512_packs_epi16(low, high), e->low)
                                 : _mm512_max_epu8(_mm512_packus_epi16(low, high), e->low);
    return _mm512_permutexvar_epi32(e->order, bytes);
}

/* Two rows of 32 channels at a time. */
INLINE void finish_pairs(const struct mo_qfinish *f, const int32_t *c, int rows, int64_t first, int n, uint8_t *y,
                         int64_t y_stride)
{
    const struct ends e = ends_of(f);
    const struct column k0 = column_of(f, first), k1 = column_of(f, first + 16);
    const __mmask32 some = n >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << n) - 1;
    int r = 0;
    for (; r + 1 < rows; r += 2, c += 2 * MO_QTILE_WIDTH, y += 2 * y_stride) {
        const int32_t *next = c + MO_QTILE_WIDTH;
        __m512i v = packed(&e, nearest(&e, &k0, c), nearest(&e, &k1, c + 16), nearest(&e, &k0, next), nearest(&e, &k1, next + 16));
        _mm256_mask_storeu_epi8(y, some, _mm512_castsi512_si256(v));
        _mm256_mask_storeu_epi8(y + y_stride, some, _mm512_extracti64x4_epi64(v, 1));
    }
    if (r < rows) {
        __m512i zero = _mm512_setzero_si512();
        _mm256_mask_storeu_epi8(y, some, _mm512_castsi512_si256(packed(&e, nearest(&e, &k0, c), nearest(&e, &k1, c + 16), zero,
                                                                        zero)));
    }
}

/* Four rows of 16 channels at a time. */
INLINE void finish_fours(const struct mo_qfinish *f, const int32_t *c, int rows, int64_t first, int n, uint8_t *y,
                         int64_t y_stride)
{
    const struct ends e = ends_of(f);
    const struct column k = column_of(f, first);
    const __mmask16 some = (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
    for (int r = 0; r < rows; r += 4, c += 4 * MO_QTILE_WIDTH, y += 4 * y_stride) {
        __m512i v[4];
        int left = rows - r;
        for (int i = 0; i < 4; i++)
            v[i] = i < left ? nearest(&e, &k, c + i * MO_QTILE_WIDTH) : _mm512_setzero_si512();
        __m512i bytes = packed(&e, v[0], v[1], v[2], v[3]);
        _mm_mask_storeu_epi8(y, some, _mm512_castsi512_si128(bytes));
        if (left > 1)
            _mm_mask_storeu_epi8(y + y_stride, some, _mm512_extracti32x4_epi32(bytes, 1));
        if (left > 2)
            _mm_mask_storeu_epi8(y + 2 * y_stride, some, _mm512_extracti32x4_epi32(bytes, 2));
        if (left > 3)
            _mm_mask_storeu_epi8(y + 3 * y_stride, some, _mm512_extracti32x4_epi32(bytes, 3));
    }
}

static void finish_bytes(const struct mo_qfinish *f, const int32_t *c, int rows, int64_t first, int n, uint8_t *y,
                         int64_t y_stride)
{
    for (; n > 16; n -= 32, c += 32, first += 32, y += 32)
        finish_pairs(f, c, rows, first, n, y, y_stride);
    if (n > 0)
        finish_fours(f, c, rows, first, n, y, y_stride);
}
#else
static void finish_bytes(const struct mo_qfinish *f, const int32_t *c, int rows, int64_t first, int n, uint8_t *y,
                         int64_t y_stride)
{
    for (int r = 0; r < rows; r++, c += MO_QTILE_WIDTH)
        for (int v = 0; v < n; v += LANES)
            store_bytes(y + r * y_stride + v, rounded(f, scaled(f, LOAD(c + v), first + v)), n - v);
}
#endif

static void finish(const struct mo_qfinish *f, const int32_t *c, int rows, int64_t first, int n, void *y, int64_t y_stride)
{
    if (f->y_dtype == 1 || f->y_dtype == 6)
        finish_words(f, c, rows, first, n, y, y_stride);
    else
        finish_bytes(f, c, rows, first, n, y, y_stride);
}

/* ---- each channel on its own ------------------------------------------------------------------ */

#define BLOCK (LANES * 4)

INLINE whole load_channels(const uint8_t *p, int n)
{
#if LANES == 16
    return n >= BLOCK ? LOAD(p) : _mm512_maskz_loadu_epi8((__mmask64)((1ull << n) - 1), p);
#else
    uint8_t part[BLOCK];
    if (n >= BLOCK)
        return LOAD(p);
    memset(part, 0, sizeof part);
    memcpy(part, p, (size_t)n);
    return LOAD(part);
#endif
}

INLINE void store_channels(uint8_t *y, whole v, int n)
{
#if LANES == 16
    _mm512_mask_storeu_epi8(y, n >= BLOCK ? ~(__mmask64)0 : (__mmask64)((1ull << n) - 1), v);
#else
    uint8_t part[BLOCK];
    STORE(part, v);
    memcpy(y, part, n >= BLOCK ? BLOCK : (size_t)n);
#endif
}

/* Adds four taps of a block of channels to the sums. */
INLINE void four_taps(const struct mo_qdepth *d, const uint8_t *x, const int64_t *tap, int n, const int8_t *w, whole sum[4])
{
    whole t0 = load_channels(x + tap[0], n), t1 = load_channels(x + tap[1], n);
    whole t2 = load_channels(x + tap[2], n), t3 = load_channels(x + tap[3], n);
    whole low01 = V(unpacklo_epi8)(t0, t1), high01 = V(unpackhi_epi8)(t0, t1);
    whole low23 = V(unpacklo_epi8)(t2, t3), high23 = V(unpackhi_epi8)(t2, t3);
    (void)d;
    sum[0] = dot4(sum[0], split_x(V(unpacklo_epi16)(low01, low23)), split_w(LOAD(w)));
    sum[1] = dot4(sum[1], split_x(V(unpackhi_epi16)(low01, low23)), split_w(LOAD(w + BLOCK)));
    sum[2] = dot4(sum[2], split_x(V(unpacklo_epi16)(high01, high23)), split_w(LOAD(w + 2 * BLOCK)));
    sum[3] = dot4(sum[3], split_x(V(unpackhi_epi16)(high01, high23)), split_w(LOAD(w + 3 * BLOCK)));
}

/* The packs put lanes back into the order of the channels; values fit, so nothing saturates but by the mask to bytes. */
INLINE whole block_bytes(const struct mo_qfinish *f, const whole sum[4], int64_t at)
{
    whole byte[4];
    for (int j = 0; j < 4; j++)
        byte[j] = AND(rounded(f, scaled(f, sum[j], at + j * LANES)), V(set1_epi32)(255));
    return V(packus_epi16)(V(packus_epi32)(byte[0], byte[1]), V(packus_epi32)(byte[2], byte[3]));
}

static void depthwise(const struct mo_qdepth *d)
{
    int64_t w_block = d->n_taps * (int64_t)BLOCK;
    for (int c = 0; c < d->n_channels; c += BLOCK) {
        const int8_t *w = d->w + c / BLOCK * w_block;
        int n = d->n_channels - c < BLOCK ? d->n_channels - c : BLOCK;
        for (int p = 0; p < d->n_pixels; p++) {
            const uint8_t *x = d->x + p * d->pixel + c;
            whole sum[4] = { V(set1_epi32)(0), V(set1_epi32)(0), V(set1_epi32)(0), V(set1_epi32)(0) };
            for (int t = 0; t < d->n_taps; t += 4)
                four_taps(d, x, d->tap + t, n, w + t * BLOCK, sum);
            store_channels(d->y + (int64_t)p * d->n_channels + c, block_bytes(d->finish, sum, c), n);
        }
    }
}

/* ---- element by element: plain loops that the compiler makes vectors of ---------------------------- */

static void max_bytes(const uint8_t *const *x, int n_taps, int64_t channels, bool is_signed, uint8_t *y)
{
    for (int64_t c = 0; c < channels; c += BLOCK) {
        int n = channels - c < BLOCK ? (int)(channels - c) : BLOCK;
        whole m = load_channels(x[0] + c, n);
        for (int t = 1; t < n_taps; t++) {
            whole v = load_channels(x[t] + c, n);
            m = is_signed ? V(max_epi8)(m, v) : V(max_epu8)(m, v);
        }
        store_channels(y + c, m, n);
    }
}

/* Rounded half to even, + zero, held to 0 .. 255 + low. */
INLINE uint8_t to_byte(float v, float low, float high, int32_t zero)
{
    v = v > low ? v : low;
    v = v < high ? v : high;
    return (uint8_t)((int32_t)__builtin_nearbyintf(v) + zero);
}

#define SUMS 64

static void average(const uint8_t *const *x, int n_taps, int64_t channels, bool is_signed, int32_t x_zero, float factor,
                    int32_t y_zero, uint8_t *y)
{
    const uint8_t flip = is_signed ? 128 : 0;
    const int32_t taken = n_taps * (x_zero + flip), lowest = is_signed ? -128 : 0;
    const float low = (float)(lowest - y_zero), high = (float)(lowest + 255 - y_zero);
    for (int64_t c = 0; c < channels; c += SUMS) {
        int32_t sum[SUMS];
        int n = channels - c < SUMS ? (int)(channels - c) : SUMS;
        for (int i = 0; i < SUMS; i++)
            sum[i] = -taken;
        for (int t = 0; t < n_taps; t++) {
            const uint8_t *from = x[t] + c;
            for (int i = 0; i < n; i++)
                sum[i] += from[i] ^ flip;
        }
        for (int i = 0; i < n; i++)
            y[c + i] = to_byte((float)sum[i] * factor, low, high, y_zero);
    }
}

static void binary(const struct mo_qbinary *p, uint8_t a_flip, uint8_t b_flip, int64_t n, const uint8_t *restrict a,
                   const uint8_t *restrict b, uint8_t *restrict y)
{
    const int32_t a_zero = p->a_zero + a_flip, b_zero = p->b_zero + b_flip, y_zero = p->y_zero;
    const float low = (float)(p->y_low - y_zero), high = (float)(p->y_high - y_zero);
    const float a_factor = p->a_factor, b_factor = p->b_factor;
    if (p->f == MO_MUL)
        for (int64_t i = 0; i < n; i++)
            y[i] = to_byte((float)(((a[i] ^ a_flip) - a_zero) * ((b[i] ^ b_flip) - b_zero)) * a_factor, low, high, y_zero);
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = to_byte(__builtin_fmaf((float)((b[i] ^ b_flip) - b_zero), b_factor,
                                          (float)((a[i] ^ a_flip) - a_zero) * a_factor), low, high, y_zero);
}

static void quantize(int64_t n, const float *restrict x, float scale, int32_t zero, int32_t lowest, uint8_t *restrict y)
{
    const float low = (float)(lowest - zero), high = (float)(lowest + 255 - zero);
    for (int64_t i = 0; i < n; i++)
        y[i] = to_byte(x[i] / scale, low, high, zero);
}

/* A shuffle looks up 16 entries and gives 0 where the index has its highest bit: for entries 16 i and up it is
 * x - 16 i, to which a saturating 112 gives that bit unless it is below 16. */
static void lookup(int64_t n, const uint8_t *table, const uint8_t *x, uint8_t *y)
{
    for (int64_t c = 0; c < n; c += BLOCK) {
        int left = n - c < BLOCK ? (int)(n - c) : BLOCK;
        whole v = load_channels(x + c, left), r = V(set1_epi8)(0);
        for (int i = 0; i < 16; i++) {
            __m128i part = _mm_loadu_si128((const __m128i *)(table + 16 * i));
#if LANES == 16
            whole entries = _mm512_broadcast_i32x4(part);
#else
            whole entries = _mm256_broadcastsi128_si256(part);
#endif
            whole index = V(adds_epu8)(V(sub_epi8)(v, V(set1_epi8)((char)(16 * i))), V(set1_epi8)(112));
            r = OR(r, V(shuffle_epi8)(entries, index));
        }
        store_channels(y + c, r, left);
    }
}

/* ---- a first layer: convolution of floats, max pooling, bytes -------------------------------------------- */

/* The largest of n convolutions side by side, two vectors of channels; n is a constant where this is inlined. */
INLINE void windows(const struct mo_qfirst *f, const float *x, const int32_t *window, const int n, const float *w, real most[2])
{
    real sum[4][2];
    const float *from[4];
    for (int p = 0; p < n; p++) {
        from[p] = x + window[p];
        sum[p][0] = sum[p][1] = V(setzero_ps)();
    }
    for (int t = 0; t < f->n_taps; t++, w += f->width) {
        real w0 = V(loadu_ps)(w), w1 = V(loadu_ps)(w + LANES);
        for (int p = 0; p < n; p++) {
            real v = V(set1_ps)(from[p][f->tap[t]]);
            sum[p][0] = V(fmadd_ps)(v, w0, sum[p][0]);
            sum[p][1] = V(fmadd_ps)(v, w1, sum[p][1]);
        }
    }
    for (int p = 0; p < n; p++)
        for (int i = 0; i < 2; i++)
            most[i] = V(max_ps)(most[i], sum[p][i]);
}

static void first(const struct mo_qfirst *f, const float *x, int n_pixels, uint8_t *y)
{
    const real scale = V(set1_ps)(f->scale), low = V(set1_ps)(f->low), high = V(set1_ps)(f->high);
    for (; n_pixels > 0; n_pixels--, x += f->step, y += f->n_channels)
        for (int c = 0; c < f->n_channels; c += 2 * LANES) {
            real most[2] = { V(set1_ps)(-__builtin_inff()), V(set1_ps)(-__builtin_inff()) };
            int i = 0;
            for (; i + 4 <= f->n_windows; i += 4)
                windows(f, x, f->window + i, 4, f->w + c, most);
            for (; i < f->n_windows; i++)
                windows(f, x, f->window + i, 1, f->w + c, most);
            for (int k = 0; k < 2 && c + k * LANES < f->n_channels; k++) {
                real v = V(add_ps)(most[k], V(loadu_ps)(f->w + f->n_taps * f->width + c + k * LANES));
                v = V(min_ps)(V(max_ps)(V(div_ps)(v, scale), low), high);
                store_bytes(y + c + k * LANES, V(add_epi32)(V(cvtps_epi32)(v), V(set1_epi32)(f->zero)), f->n_channels - c - k * LANES);
            }
        }
}

const struct mo_qloops QLOOPS = {
    .product = {
#if LANES == 8
        .rows = { 0, 4, 0, 0, 0 },
#elif defined(__AVX512VNNI__)
        .rows = { 0, 16, 12, 0, 6 },
#else
        .rows = { 0, 10, 8, 0, 0 },
#endif
        .product = any_product,
    },
    .finish = finish, .depth_block = BLOCK, .depthwise = depthwise, .max = max_bytes,
    .average = average, .binary = binary, .quantize = quantize, .lookup = lookup, .first = first,
};
