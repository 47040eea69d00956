/* sgemm_body.h - the text of sgemm.h's loops; the including file defines LOOPS as the name of its table.
 *
 * A tile is R rows by V vectors of sums in registers: 6 x 64, 8 x 48, 12 x 32, 12 x 16 floats with 32 registers of 16,
 * 6 x 16 and 8 x 8 with 16 registers of 8. Each step of k loads V vectors of B and R single values of A. */
#include "kernels/cpu/sgemm.h"
#include "kernels/cpu/simd.h"

#define MAX_V (WIDTH == 16 ? 4 : 2)
#define PANEL (MAX_V * WIDTH)

/* What is done to a sum on its way to memory. */
INLINE vec finish(const struct mo_sgemm_block *p, vec x, const float *c, const float *bias, const float *residual,
                  mask m)
{
    if (p->alpha != 1)
        x = MUL(x, SET1(p->alpha));
    if (p->beta != 0)
        x = FMA(SET1(p->beta), LOAD_PART(m, c), x);
    if (bias)
        x = ADD(x, LOAD_PART(m, bias));
    if (residual)
        x = ADD(x, LOAD_PART(m, residual));
    if (p->act == MO_ACT_RELU)
        x = MAX(x, ZERO());
    else if (p->act == MO_ACT_CLIP)
        x = MIN(MAX(x, SET1(p->lo)), SET1(p->hi));
    return x;
}

/* Rows i.. of the columns that begin at j; `last` is the mask of the last vector. */
INLINE void tile(const struct mo_sgemm_block *p, const int R, const int V, const float *b, int64_t i, int64_t j, mask last)
{
    vec sum[12][MAX_V];
    const float *a = p->a + (p->a_panel ? i / MO_SGEMM_ROWS * p->a_panel : i * p->a_row);
    const int64_t a_row = p->a_row, a_col = p->a_col, b_row = p->b_row;
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < V; v++)
            sum[r][v] = ZERO();
    for (int64_t k = 0; k < p->k; k++, a += a_col, b += b_row) {
        vec of_b[MAX_V];
        UNROLL
        for (int v = 0; v < V; v++)
            of_b[v] = v == V - 1 ? LOAD_PART(last, b + v * WIDTH) : LOAD(b + v * WIDTH);
        UNROLL
        for (int r = 0; r < R; r++) {
            vec of_a = SET1(a[r * a_row]);
            UNROLL
            for (int v = 0; v < V; v++)
                sum[r][v] = FMA(of_a, of_b[v], sum[r][v]);
        }
    }
    mask all = mask_of(WIDTH);
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < V; v++) {
            int64_t at = (i + r) * p->ldc + j + v * WIDTH;
            mask m = v == V - 1 ? last : all;
            vec x = finish(p, sum[r][v], p->c + at, p->bias ? p->bias + j + v * WIDTH : NULL,
                           p->residual ? p->residual + at : NULL, m);
            if (v == V - 1)
                STORE_PART(p->c + at, m, x);
            else
                STORE(p->c + at, x);
        }
}

/* All rows of one panel: as many at a time as there are registers for, what is left in one go. */
#define ROWS(name, V, MOST)                                                                                    \
    static void name(const struct mo_sgemm_block *p, const float *b, int64_t j, mask last)                     \
    {                                                                                                          \
        int64_t i = 0;                                                                                         \
        for (; i + MOST <= p->m; i += MOST)                                                                    \
            tile(p, MOST, V, b, i, j, last);                                                                   \
        switch (p->m - i) {                                                                                    \
            CASES_##MOST(V)                                                                                    \
        default:                                                                                               \
            break;                                                                                             \
        }                                                                                                      \
    }
#define CASE(R, V) case R: tile(p, R, V, b, i, j, last); break;
#define CASES_6(V) CASE(1, V) CASE(2, V) CASE(3, V) CASE(4, V) CASE(5, V)
#define CASES_8(V) CASES_6(V) CASE(6, V) CASE(7, V)
#define CASES_12(V) CASES_8(V) CASE(8, V) CASE(9, V) CASE(10, V) CASE(11, V)

#if defined(__AVX512F__)
ROWS(rows_4, 4, 6)
ROWS(rows_3, 3, 8)
ROWS(rows_2, 2, 12)
ROWS(rows_1, 1, 12)
ROWS(packed_3, 3, 6)
ROWS(packed_2, 2, 6)
#else
ROWS(rows_2, 2, 6)
ROWS(rows_1, 1, 8)
#endif
ROWS(packed_1, 1, 6)

static void block(const struct mo_sgemm_block *p)
{
    const float *b = p->b;
    for (int64_t j = 0; j < p->n; j += PANEL, b += p->b_panel) {
        int64_t n = p->n - j < PANEL ? p->n - j : PANEL;
        int v = (int)((n + WIDTH - 1) / WIDTH);
        mask last = mask_of(n - (v - 1) * WIDTH);
        switch (v) {
        case 1: (p->a_panel ? packed_1 : rows_1)(p, b, j, last); break;
#if defined(__AVX512F__)
        case 2: (p->a_panel ? packed_2 : rows_2)(p, b, j, last); break;
        case 3: (p->a_panel ? packed_3 : rows_3)(p, b, j, last); break;
        case 4: rows_4(p, b, j, last); break;
#else
        case 2: rows_2(p, b, j, last); break;
#endif
        default: break;
        }
    }
}

/* ---- packing ------------------------------------------------------------------------------ */

/* WIDTH rows of WIDTH floats, `ld` apart, to columns: to[k * PANEL + r] = from[r * ld + k]. */
static void turn(const float *from, int64_t ld, float *to)
{
#if defined(__AVX512F__)
    __m512 r[16], t[16];
    UNROLL
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(from + i * ld);
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) {       /* r[i + q]: columns q, q + 4, q + 8, q + 12 of rows i to i + 3 */
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    UNROLL
    for (int q = 0; q < 4; q++) {
        __m512 low_a = _mm512_shuffle_f32x4(r[q], r[4 + q], 0x88), high_a = _mm512_shuffle_f32x4(r[q], r[4 + q], 0xdd);
        __m512 low_b = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0x88);
        __m512 high_b = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0xdd);
        _mm512_storeu_ps(to + q * PANEL, _mm512_shuffle_f32x4(low_a, low_b, 0x88));
        _mm512_storeu_ps(to + (q + 8) * PANEL, _mm512_shuffle_f32x4(low_a, low_b, 0xdd));
        _mm512_storeu_ps(to + (q + 4) * PANEL, _mm512_shuffle_f32x4(high_a, high_b, 0x88));
        _mm512_storeu_ps(to + (q + 12) * PANEL, _mm512_shuffle_f32x4(high_a, high_b, 0xdd));
    }
#else
    for (int k = 0; k < WIDTH; k++)
        for (int r = 0; r < WIDTH; r++)
            to[k * PANEL + r] = from[r * ld + k];
#endif
}

static void pack_panel_turned(int64_t k, int64_t n, const float *b, int64_t ldb, float *to)
{
    int64_t whole = n / WIDTH * WIDTH, turned = k / WIDTH * WIDTH;
    for (int64_t j = 0; j < whole; j += WIDTH)
        for (int64_t i = 0; i < turned; i += WIDTH)
            turn(b + j * ldb + i, ldb, to + i * PANEL + j);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = i < turned ? whole : 0; j < PANEL; j++)
            to[i * PANEL + j] = j < n ? b[j * ldb + i] : 0;
}

static void pack_panel(int64_t k, int64_t n, const float *b, int64_t ldb, float *to)
{
    for (int64_t i = 0; i < k; i++, b += ldb, to += PANEL)
        for (int64_t j = 0; j < PANEL; j += WIDTH) {
            mask m = mask_of(n - j > 0 ? n - j : 0);
            STORE(to + j, LOAD_PART(m, b + (n > j ? j : 0)));
        }
}

static void pack(bool tb, int64_t k, int64_t n, const float *b, int64_t ldb, int64_t n_panels, float *to)
{
    for (int64_t i = 0; i < n_panels; i++, to += k * PANEL, b += tb ? PANEL * ldb : PANEL, n -= PANEL) {
        if (tb)
            pack_panel_turned(k, n < PANEL ? n : PANEL, b, ldb, to);
        else
            pack_panel(k, n < PANEL ? n : PANEL, b, ldb, to);
    }
}

/* Rows of the transpose are columns: some of each row of `a`, which is read once. */
static void pack_a(int64_t m, int64_t k, const float *a, int64_t lda, float *to)
{
    for (int64_t c = 0; c < k; c++, a += lda, to += MO_SGEMM_ROWS)
        for (int64_t i = 0; i < m; i += MO_SGEMM_ROWS) {
            mask part = mask_of(m - i < MO_SGEMM_ROWS ? m - i : MO_SGEMM_ROWS);
            STORE_PART(to + i * k, part, LOAD_PART(part, a + i));
        }
}

const struct mo_sgemm_loops LOOPS = { .panel = PANEL, .block = block, .pack = pack, .pack_a = pack_a };
