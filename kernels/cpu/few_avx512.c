/* few_avx512.c - the loops of few.h.
 *
 * Sums of R pixels by one or two vectors of output channels stay in registers. The last pixels of a row are computed with some
 * before them once more, to the same bits. */
#if defined(__AVX512F__)
#include "kernels/cpu/few.h"
#include "kernels/cpu/simd.h"

enum { LONG = 14, SHORT = 8 };

INLINE void pixels(const int R, const int V, const int step, const struct mo_few_row *p, const float *w, int64_t first,
                   int64_t channel)
{
    vec sum[LONG][2];
    mask last = mask_of(p->n_out - channel - (V - 1) * WIDTH), all = mask_of(WIDTH);
    const float *x = p->x + first * step;
    UNROLL
    for (int v = 0; v < V; v++) {
        vec bias = p->bias ? LOAD_PART(v == V - 1 ? last : all, p->bias + channel + v * WIDTH) : ZERO();
        UNROLL
        for (int r = 0; r < R; r++)
            sum[r][v] = bias;
    }
    for (int k = 0; k < p->n_k; k++, w += 2 * WIDTH) {
        const float *at = x + p->at[k];
        vec of_w[2];
        UNROLL
        for (int v = 0; v < V; v++)
            of_w[v] = LOAD(w + v * WIDTH);
        UNROLL
        for (int r = 0; r < R; r++) {
            vec of_x = SET1(at[r * step]);
            UNROLL
            for (int v = 0; v < V; v++)
                sum[r][v] = FMA(of_x, of_w[v], sum[r][v]);
        }
    }
    float *y = p->y + first * p->n_out + channel;
    UNROLL
    for (int r = 0; r < R; r++, y += p->n_out)
        UNROLL
        for (int v = 0; v < V; v++) {
            vec s = sum[r][v];
            if (p->act == MO_ACT_RELU)
                s = MAX(s, ZERO());
            else if (p->act == MO_ACT_CLIP)
                s = MIN(MAX(s, SET1(p->lo)), SET1(p->hi));
            STORE_PART(y + v * WIDTH, v == V - 1 ? last : all, s);
        }
}

/* All channels of R pixels. */
#define GROUP(R, STEP)                                                                                              \
    for (int64_t o = 0; o < p->n_out; o += 2 * WIDTH) {                                                             \
        if (p->n_out - o > WIDTH)                                                                                   \
            pixels(R, 2, STEP, p, p->w + o * p->n_k, first, o);                                                     \
        else                                                                                                        \
            pixels(R, 1, STEP, p, p->w + o * p->n_k, first, o);                                                     \
    }
#define ROW(STEP)                                                                                                   \
    static void row_##STEP(const struct mo_few_row *p)                                                              \
    {                                                                                                               \
        int64_t n = p->n_pixels, by_long = (n + LONG - 1) / LONG * LONG, by_short = (n + SHORT - 1) / SHORT * SHORT; \
        int64_t each = n >= LONG && by_long <= by_short ? LONG : SHORT;                                             \
        for (int64_t i = 0; i < n; i += each) {                                                                     \
            int64_t first = i + each <= n ? i : n - each;                                                           \
            if (each == LONG)                                                                                       \
                GROUP(LONG, STEP)                                                                                   \
            else                                                                                                    \
                GROUP(SHORT, STEP)                                                                                  \
        }                                                                                                           \
    }
ROW(1)
ROW(2)
ROW(3)
ROW(4)

static void row(const struct mo_few_row *p)
{
    switch (p->step) {
    case 1: row_1(p); break;
    case 2: row_2(p); break;
    case 3: row_3(p); break;
    case 4: row_4(p); break;
    default: break;
    }
}

const struct mo_few_loops mo_few_avx512 = { .panel = 2 * WIDTH, .least = SHORT, .row = row };
#else
typedef int mo_few_avx512_is_not_built;
#endif
