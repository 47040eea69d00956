/* wino_body.h - the text of wino.h's loops; the including file defines LOOPS as the name of its table.
 *
 * Y = A' [(G g G') (B' d B)] A, the product by elements (Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks", 2015). T = 2 interpolates at 0, 1, -1; T = 4 at 0, a, -a, b, -b with a = 1/sqrt(2) and b = sqrt(2), both and
 * infinity. The usual 0, 1, -1, 2, -2 cost the same and have five times the error: with these a a b b = 1, so the rows
 *     B'  | 1, 0, -5/2, 0, 1, 0 |  0, -+a b b, -b b, +-a, 1, 0 |  0, -+b a a, -a a, +-b, 1, 0 |  0, 1, 0, -5/2, 0, 1
 *     G   | 1, 0, 0 |  -2/3 (1, +-a, a a) |  1/6 (1, +-b, b b) |  0, 0, 1
 *     A'  | 1, 1, 1, 1, 1, 0 |  0, a, -a, b, -b, 0 |  0, a a, a a, b b, b b, 0 |  0, a^3, -a^3, b^3, -b^3, 1
 * stay near 1. */
#include "kernels/cpu/simd.h"
#include "kernels/cpu/wino.h"

#define MOST 6          /* T + 2 */
static const float A = 0.70710678f, B = 1.41421356f;

/* B' times a column: d[0], d[step], ... */
INLINE void before(const int t, const vec *d, const int step, vec to[MOST])
{
    const vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    if (t == 2) {
        to[0] = SUB(d0, d2);
        to[1] = ADD(d1, d2);
        to[2] = SUB(d2, d1);
        to[3] = SUB(d1, d3);
        return;
    }
    const vec d4 = d[4 * step], d5 = d[5 * step], mid = SET1(2.5f), two = SET1(2), half = SET1(0.5f);
    to[0] = FNMA(mid, d2, ADD(d0, d4));
    to[5] = FNMA(mid, d3, ADD(d1, d5));
    vec even = FNMA(two, d2, d4), odd = FNMA(two, d1, d3);
    to[1] = FMA(SET1(A), odd, even);
    to[2] = FNMA(SET1(A), odd, even);
    even = FNMA(half, d2, d4);
    odd = FNMA(half, d1, d3);
    to[3] = FMA(SET1(B), odd, even);
    to[4] = FNMA(SET1(B), odd, even);
}

/* A' times a column. */
INLINE void behind(const int t, const vec *m, const int step, vec to[4])
{
    const vec plus = ADD(m[step], m[2 * step]), minus = SUB(m[step], m[2 * step]);
    if (t == 2) {
        to[0] = ADD(m[0], plus);
        to[1] = SUB(minus, m[3 * step]);
        return;
    }
    const vec far_plus = ADD(m[3 * step], m[4 * step]), far_minus = SUB(m[3 * step], m[4 * step]);
    to[0] = ADD(m[0], ADD(plus, far_plus));
    to[1] = FMA(SET1(A), minus, MUL(SET1(B), far_minus));
    to[2] = FMA(SET1(0.5f), plus, ADD(far_plus, far_plus));
    to[3] = FMA(SET1(0.5f * A), minus, FMA(SET1(2 * B), far_minus, m[5 * step]));
}

/* G times a column of three. */
INLINE void of_kernel(const int t, const vec g0, const vec g1, const vec g2, vec to[MOST])
{
    to[0] = g0;
    to[t + 1] = g2;
    vec even, odd;
    if (t == 2) {
        even = MUL(SET1(0.5f), ADD(g0, g2));
        odd = MUL(SET1(0.5f), g1);
    } else {
        even = MUL(SET1(-2.0f / 3), FMA(SET1(0.5f), g2, g0));
        odd = MUL(SET1(-2.0f / 3 * A), g1);
        vec far_even = MUL(SET1(1.0f / 6), FMA(SET1(2), g2, g0)), far_odd = MUL(SET1(1.0f / 6 * B), g1);
        to[3] = ADD(far_even, far_odd);
        to[4] = SUB(far_even, far_odd);
    }
    to[1] = ADD(even, odd);
    to[2] = SUB(even, odd);
}

/* ---- weights ---------------------------------------------------------------------------- */

INLINE void kernels(const int t, const vec g[9], int64_t plane, float *to)
{
    vec half[MOST][3], row[MOST], column[MOST];
    UNROLL
    for (int j = 0; j < 3; j++) {
        of_kernel(t, g[j], g[3 + j], g[6 + j], column);
        UNROLL
        for (int i = 0; i < t + 2; i++)
            half[i][j] = column[i];
    }
    UNROLL
    for (int i = 0; i < t + 2; i++) {
        of_kernel(t, half[i][0], half[i][1], half[i][2], row);
        UNROLL
        for (int j = 0; j < t + 2; j++)
            STORE(to + (i * (t + 2) + j) * plane, row[j]);
    }
}

static void weights(const struct mo_wino_image *p, int64_t first, int64_t n, const float *w, int64_t w_out, int64_t w_in,
                    bool is_turned, int64_t panel, float *to)
{
    int64_t plane = (p->in_channels + WIDTH - 1) / WIDTH * WIDTH * panel;
    for (int64_t o = 0; o < panel; o += WIDTH) {
        int64_t lanes = n - o > WIDTH ? WIDTH : n - o;
        for (int64_t c = 0; c < plane / panel; c++) {
            float lane[9][WIDTH] = { { 0 } };
            vec g[9];
            for (int64_t l = 0; l < lanes && c < p->in_channels; l++) {
                const float *from = w + (first + o + l) * w_out + c * w_in;
                for (int tap = 0; tap < 9; tap++)
                    lane[tap][l] = from[is_turned ? 8 - tap : tap];
            }
            for (int tap = 0; tap < 9; tap++)
                g[tap] = LOAD(lane[tap]);
            if (p->t == 2)
                kernels(2, g, plane, to + c * panel + o);
            else
                kernels(4, g, plane, to + c * panel + o);
        }
    }
}

/* ---- input ------------------------------------------------------------------------------ */

INLINE void store_before(const int t, const vec *d, int64_t plane, float *to)
{
    vec half[MOST * MOST], out[MOST];
    UNROLL
    for (int j = 0; j < t + 2; j++) {
        before(t, d + j, t + 2, out);
        UNROLL
        for (int i = 0; i < t + 2; i++)
            half[i * (t + 2) + j] = out[i];
    }
    UNROLL
    for (int i = 0; i < t + 2; i++) {
        before(t, half + i * (t + 2), 1, out);
        UNROLL
        for (int j = 0; j < t + 2; j++)
            STORE(to + (i * (t + 2) + j) * plane, out[j]);
    }
}

/* A tile that lies within the picture. */
INLINE void tile_within(const int t, const struct mo_wino_image *p, const float *x, int64_t block, int64_t plane, float *to)
{
    const int64_t channels = p->in_channels, row = p->in_w * channels;
    vec d[MOST * MOST];
    for (int64_t c = 0; c < channels; c += WIDTH) {
        bool is_whole = channels - c >= WIDTH;
        mask last = mask_of(channels - c);
        UNROLL
        for (int i = 0; i < t + 2; i++)
            UNROLL
            for (int j = 0; j < t + 2; j++) {
                const float *at = x + i * row + j * channels + c;
                d[i * (t + 2) + j] = is_whole ? LOAD(at) : LOAD_PART(last, at);
            }
        store_before(t, d, plane, to + c * block);
    }
}

/* One that reaches beyond it. */
INLINE void tile_at_border(const int t, const struct mo_wino_image *p, const float *x, int64_t top, int64_t left,
                           int64_t block, int64_t plane, float *to)
{
    const int64_t channels = p->in_channels;
    const float *at[MOST * MOST];
    mask is_in[MOST * MOST];
    vec d[MOST * MOST];
    for (int i = 0; i < t + 2; i++)
        for (int j = 0; j < t + 2; j++) {
            bool ok = top + i >= 0 && top + i < p->in_h && left + j >= 0 && left + j < p->in_w;
            at[i * (t + 2) + j] = ok ? x + ((top + i) * p->in_w + left + j) * channels : x;
            is_in[i * (t + 2) + j] = mask_of(ok ? WIDTH : 0);
        }
    for (int64_t c = 0; c < channels; c += WIDTH) {
        mask last = mask_of(channels - c);
        UNROLL
        for (int i = 0; i < (t + 2) * (t + 2); i++)
            d[i] = LOAD_PART(both(is_in[i], last), at[i] + c);
        store_before(t, d, plane, to + c * block);
    }
}

INLINE void tiles_in(const int t, const struct mo_wino_image *p, int64_t first, int64_t last, const float *x,
                     int64_t block, int64_t plane, float *to)
{
    const int64_t each = p->tiles_h * p->tiles_w, image = p->in_h * p->in_w * p->in_channels;
    for (int64_t i = first; i < last; i++, to += WIDTH) {
        const float *from = x + i / each * image;
        int64_t top = i % each / p->tiles_w * t - p->pad_h, left = i % each % p->tiles_w * t - p->pad_w;
        if (top >= 0 && left >= 0 && top + t + 2 <= p->in_h && left + t + 2 <= p->in_w)
            tile_within(t, p, from + (top * p->in_w + left) * p->in_channels, block, plane, to);
        else
            tile_at_border(t, p, from, top, left, block, plane, to);
    }
}

static void in(const struct mo_wino_image *p, int64_t first, int64_t last, const float *x, int64_t block, int64_t at,
               int64_t plane, float *to)
{
    if (p->t == 2)
        tiles_in(2, p, first, last, x, block, plane, to + at * WIDTH);
    else
        tiles_in(4, p, first, last, x, block, plane, to + at * WIDTH);
}

/* ---- products --------------------------------------------------------------------------- */

enum { AHEAD = 512 };       /* floats between a weight and what is fetched beside it */

/* Sums of R tiles by V vectors in registers. Values of the plane are one vector apart, so their addresses are known when
 * this is compiled. */
INLINE void sums(const int R, const int V, int64_t k, const float *plane, int64_t step, const float *w, float *to)
{
    vec sum[14][2];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < V; v++)
            sum[r][v] = ZERO();
    for (; k > 0; k -= WIDTH, plane += step)
        for (int l = 0; l < WIDTH; l += 4)
            UNROLL
            for (int u = 0; u < 4; u++, w += V * WIDTH) {
                vec of_w[2];
                UNROLL
                for (int v = 0; v < V; v++) {
                    __builtin_prefetch(w + v * WIDTH + AHEAD);
                    of_w[v] = LOAD(w + v * WIDTH);
                }
                UNROLL
                for (int r = 0; r < R; r++) {
                    vec x = SET1(plane[r * WIDTH + l + u]);
                    UNROLL
                    for (int v = 0; v < V; v++)
                        sum[r][v] = FMA(x, of_w[v], sum[r][v]);
                }
            }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < V; v++)
            STORE(to + (r * V + v) * WIDTH, sum[r][v]);
}

#define CASE(R, V) case R: sums(R, V, k, plane, step, w, to); break;
#define CASES_6(V) CASE(1, V) CASE(2, V) CASE(3, V) CASE(4, V) CASE(5, V) CASE(6, V)
#if WIDTH == 16
#define MOST_ROWS 14
#define CASES(V) CASES_6(V) CASE(7, V) CASE(8, V) CASE(9, V) CASE(10, V) CASE(11, V) CASE(12, V) CASE(13, V) CASE(14, V)
#else
#define MOST_ROWS 6
#define CASES(V) CASES_6(V)
#endif
#define ROWS(name, V)                                                                                               \
    static void name(int64_t rows, int64_t k, const float *plane, int64_t step, const float *w, float *to)          \
    {                                                                                                               \
        switch (rows) {                                                                                             \
            CASES(V)                                                                                                \
        default: break;                                                                                             \
        }                                                                                                           \
    }
ROWS(rows_1, 1)
ROWS(rows_2, 2)

/* As few rounds as registers allow, and those of about the same size. */
static void product(int64_t n_tiles, int64_t k, int64_t panel, const float *plane, int64_t block, const float *w, float *to)
{
    int64_t rounds = (n_tiles + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t i = 0; i < rounds; i++) {
        int64_t first = n_tiles * i / rounds, rows = n_tiles * (i + 1) / rounds - first;
        (panel == WIDTH ? rows_1 : rows_2)(rows, k, plane + first * WIDTH, block * WIDTH, w, to + first * panel);
    }
}

/* ---- output ----------------------------------------------------------------------------- */

INLINE vec finish(const struct mo_wino_end *end, vec x, int64_t at, mask m)
{
    if (end->residual)
        x = ADD(x, LOAD_PART(m, end->residual + at));
    if (end->act == MO_ACT_RELU)
        x = MAX(x, ZERO());
    else if (end->act == MO_ACT_CLIP)
        x = MIN(MAX(x, SET1(end->lo)), SET1(end->hi));
    return x;
}

/* One vector of channels of a tile of rows x columns pixels, the first of them y[at]. */
INLINE void tile_out(const int t, const struct mo_wino_image *p, const struct mo_wino_end *end, const float *from,
                     int64_t plane, vec bias, mask m, int64_t rows, int64_t columns, int64_t at, float *y)
{
    vec half[4 * MOST], sum[MOST * MOST], out[4];
    UNROLL
    for (int i = 0; i < (t + 2) * (t + 2); i++)
        sum[i] = LOAD(from + i * plane);
    UNROLL
    for (int j = 0; j < t + 2; j++) {
        behind(t, sum + j, t + 2, out);
        UNROLL
        for (int i = 0; i < t; i++)
            half[i * (t + 2) + j] = out[i];
    }
    UNROLL
    for (int i = 0; i < t; i++) {
        if (i >= rows)
            break;
        behind(t, half + i * (t + 2), 1, out);
        UNROLL
        for (int j = 0; j < t; j++)
            if (j < columns) {
                int64_t pixel = at + (i * p->out_w + j) * p->out_channels;
                STORE_PART(y + pixel, m, finish(end, ADD(out[j], bias), pixel, m));
            }
    }
}

INLINE void tiles_out(const int t, const struct mo_wino_image *p, const struct mo_wino_end *end, int64_t first,
                      int64_t last, int64_t channel, int64_t n, const float *from, int64_t plane, int64_t panel, float *y)
{
    const int64_t each = p->tiles_h * p->tiles_w, image = p->out_h * p->out_w * p->out_channels;
    for (int64_t i = first; i < last; i++, from += panel) {
        int64_t top = i % each / p->tiles_w * t, left = i % each % p->tiles_w * t;
        int64_t at = i / each * image + (top * p->out_w + left) * p->out_channels + channel;
        for (int64_t c = 0; c < n; c += WIDTH) {
            mask m = mask_of(n - c);
            vec bias = end->bias ? LOAD_PART(m, end->bias + channel + c) : ZERO();
            tile_out(t, p, end, from + c, plane, bias, m, p->out_h - top, p->out_w - left, at + c, y);
        }
    }
}

static void out(const struct mo_wino_image *p, const struct mo_wino_end *end, int64_t first, int64_t last, int64_t channel,
                int64_t n, const float *from, int64_t plane, int64_t panel, float *y)
{
    if (p->t == 2)
        tiles_out(2, p, end, first, last, channel, n, from, plane, panel, y);
    else
        tiles_out(4, p, end, first, last, channel, n, from, plane, panel, y);
}

const struct mo_wino_loops LOOPS = { .width = WIDTH, .weights = weights, .in = in, .product = product, .out = out };
