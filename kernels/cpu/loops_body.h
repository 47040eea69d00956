/* loops_body.h - the text of loops.h's functions. The including file defines
 * LOOPS as the name of its table, and BFLOAT16 where images are of that type;
 * what is computed is float either way.
 *
 * Written for the compiler's vectorizer: constant trip counts of LANES, no
 * aliasing, tails by a last block that overlaps the one before (only where the
 * result of an element does not depend on being computed twice). */
#ifdef __AVX2__
#include <immintrin.h>
#endif
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/cpu/loops.h"
#ifdef BFLOAT16
#include "kernels/cpu/small_float.h"
#endif

#define LANES 16
#define ROW 2048        /* the widest row of BatchNormalization: norm.c's MAX_WIDTH */

/* ---- one element of an image -------------------------------------------------------------- */

#ifdef BFLOAT16
typedef uint16_t elem;

static inline float get(elem e)
{
    return mo_float_of_bf16(e);
}

static inline elem put(float f)
{
    return mo_bf16_of_float(f);
}
#ifdef __AVX512F__
static inline __m512 load16(__mmask16 lanes, const elem *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void store16(elem *p, __mmask16 lanes, __m512 v)
{
    __m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i near = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __m512i nan = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    __m512i h = _mm512_mask_mov_epi32(near, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), nan);
    _mm256_mask_storeu_epi16(p, lanes, _mm512_cvtepi32_epi16(h));
}
#endif
#else
typedef float elem;

static inline float get(elem e)
{
    return e;
}

static inline elem put(float f)
{
    return f;
}
#ifdef __AVX512F__
static inline __m512 load16(__mmask16 lanes, const elem *p)
{
    return _mm512_maskz_loadu_ps(lanes, p);
}

static inline void store16(elem *p, __mmask16 lanes, __m512 v)
{
    _mm512_mask_storeu_ps(p, lanes, v);
}
#endif
#endif

/* ---- BatchNormalization ------------------------------------------------------------------- */

static void bn_sum(const void *image, int64_t begin, int64_t end, int64_t width, float *restrict sum)
{
    const elem *restrict x = image;
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (; begin + width <= end; begin += width)
        for (int64_t w = 0; w < width; w++)
            sum[w] += get(x[begin + w]);
    for (int64_t w = 0; w < end - begin; w++)
        sum[w] += get(x[begin + w]);
}

static void bn_squares(const void *image, int64_t begin, int64_t end, int64_t width, const float *restrict mean,
                       float *restrict sum)
{
    const elem *restrict x = image;
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (; begin + width <= end; begin += width)
        for (int64_t w = 0; w < width; w++)
            sum[w] += (get(x[begin + w]) - mean[w]) * (get(x[begin + w]) - mean[w]);
    for (int64_t w = 0; w < end - begin; w++)
        sum[w] += (get(x[begin + w]) - mean[w]) * (get(x[begin + w]) - mean[w]);
}

static inline void bn_apply_row(const elem *restrict x, const float *restrict mean, const float *restrict a,
                                const float *restrict b, const elem *restrict residual, bool relu, int64_t n,
                                elem *restrict y)
{
    if (residual && relu)
        for (int64_t w = 0; w < n; w++) {
            float v = (get(x[w]) - mean[w]) * a[w] + b[w] + get(residual[w]);
            y[w] = put(v < 0 ? 0 : v);
        }
    else if (residual)
        for (int64_t w = 0; w < n; w++)
            y[w] = put((get(x[w]) - mean[w]) * a[w] + b[w] + get(residual[w]));
    else if (relu)
        for (int64_t w = 0; w < n; w++) {
            float v = (get(x[w]) - mean[w]) * a[w] + b[w];
            y[w] = put(v < 0 ? 0 : v);
        }
    else
        for (int64_t w = 0; w < n; w++)
            y[w] = put((get(x[w]) - mean[w]) * a[w] + b[w]);
}

static void bn_apply(const struct mo_bn *p, int64_t begin, int64_t end)
{
    const elem *x = p->x, *residual = p->residual;
    elem *out = p->out;
    for (; begin < end; begin += p->width)
        bn_apply_row(x + begin, p->mean, p->a, p->b, residual ? residual + begin : NULL, p->relu,
                     end - begin < p->width ? end - begin : p->width, out + begin);
}

static inline void bn_sums_row(const elem *restrict x, const elem *restrict y, const elem *restrict dy,
                               const float *restrict mean, int64_t n, float *restrict sum_g, float *restrict sum_gx)
{
    if (y)
        for (int64_t w = 0; w < n; w++) {
            float g = get(y[w]) > 0 ? get(dy[w]) : 0;
            sum_g[w] += g;
            sum_gx[w] += g * (get(x[w]) - mean[w]);
        }
    else
        for (int64_t w = 0; w < n; w++) {
            sum_g[w] += get(dy[w]);
            sum_gx[w] += get(dy[w]) * (get(x[w]) - mean[w]);
        }
}

static void bn_grad_sums(const struct mo_bn *p, int64_t begin, int64_t end, float *sum_g, float *sum_gx)
{
    memset(sum_g, 0, (size_t)p->width * sizeof *sum_g);
    memset(sum_gx, 0, (size_t)p->width * sizeof *sum_gx);
    const elem *x = p->x, *y = p->y, *dy = p->dy;
    for (; begin < end; begin += p->width)
        bn_sums_row(x + begin, p->relu ? y + begin : NULL, dy + begin, p->mean,
                    end - begin < p->width ? end - begin : p->width, sum_g, sum_gx);
}

/* dresidual may be dy itself, so each of its elements is written after it is read; no other operands overlap. */
static inline void bn_grad_row(const struct mo_bn *p, int64_t at, int64_t n)
{
    const elem *restrict x = (const elem *)p->x + at, *restrict y = p->relu ? (const elem *)p->y + at : NULL;
    const float *restrict mean = p->mean, *restrict a = p->a, *restrict b = p->b, *restrict c = p->c;
    elem *restrict dx = (elem *)p->dx + at;
    const elem *restrict dy = (const elem *)p->dy + at;
    if (p->dresidual) {
        elem g[ROW];
        for (int64_t w = 0; w < n; w++)
            g[w] = !y || get(y[w]) > 0 ? dy[w] : 0;
        memcpy((elem *)p->dresidual + at, g, (size_t)n * sizeof *g);
        for (int64_t w = 0; w < n; w++)
            dx[w] = put(a[w] * (get(g[w]) - b[w] - (get(x[w]) - mean[w]) * c[w]));
    } else if (y) {
        for (int64_t w = 0; w < n; w++) {
            float g = get(y[w]) > 0 ? get(dy[w]) : 0;
            dx[w] = put(a[w] * (g - b[w] - (get(x[w]) - mean[w]) * c[w]));
        }
    } else {
        for (int64_t w = 0; w < n; w++)
            dx[w] = put(a[w] * (get(dy[w]) - b[w] - (get(x[w]) - mean[w]) * c[w]));
    }
}

static void bn_grad_apply(const struct mo_bn *p, int64_t begin, int64_t end)
{
    for (; begin < end; begin += p->width)
        bn_grad_row(p, begin, end - begin < p->width ? end - begin : p->width);
}

/* ---- pooling ---------------------------------------------------------------------------------- */

struct span { int first, last; };           /* first..last-1 */

/* Taps of a window that begins at `begin` and lie inside the picture. */
static inline struct span taps_of(int64_t begin, int64_t size, int64_t kernel, int64_t dilation)
{
    struct span r = { 0, (int)kernel };
    if (begin < 0)
        r.first = (int)((-begin + dilation - 1) / dilation);
    if (begin + (kernel - 1) * dilation >= size)
        r.last = begin >= size ? 0 : (int)((size - 1 - begin) / dilation + 1);
    if (r.last < r.first)
        r.last = r.first;
    return r;
}

/* A window: where it begins on each axis, its taps inside, and the row's picture. */
struct window {
    int64_t begin[3];
    struct span t[3];
    const elem *image;
};

static inline void set_axis(const struct mo_pool_desc *d, struct window *w, int axis, int64_t out)
{
    w->begin[axis] = out * d->stride[axis] - d->pad_begin[axis];
    w->t[axis] = taps_of(w->begin[axis], d->in[axis], d->kernel[axis], d->dilation[axis]);
}

/* Pixels of tap row (a, b), beginning at tap 0 of the last axis. */
static inline const elem *tap_row(const struct mo_pool_desc *d, const struct window *w, int a, int b)
{
    int64_t p0 = w->begin[0] + a * d->dilation[0], p1 = w->begin[1] + b * d->dilation[1];
    return w->image + ((p0 * d->in[1] + p1) * d->in[2] + w->begin[2]) * d->channels;
}

/* Of n channels, LANES or fewer, here and below. */
#ifdef __AVX512F__
static inline void max_lanes(const struct mo_pool_desc *d, const struct window *w, int64_t channel, int n, elem *y,
                             uint8_t *where)
{
    __mmask16 lanes = (__mmask16)((1u << n) - 1);
    __m512 best = _mm512_set1_ps(-INFINITY);
    __m128i tap = _mm_setzero_si128();
    __mmask16 fresh = 0xffff;
    int64_t step = d->dilation[2] * d->channels;
    for (int a = w->t[0].first; a < w->t[0].last; a++)
        for (int b = w->t[1].first; b < w->t[1].last; b++) {
            const elem *row = tap_row(d, w, a, b) + channel;
            int k = (int)((a * d->kernel[1] + b) * d->kernel[2]);
            for (int c = w->t[2].first; c < w->t[2].last; c++) {
                __m512 v = load16(lanes, row + c * step);
                __mmask16 more = _mm512_cmp_ps_mask(v, best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q) | fresh;
                best = _mm512_mask_mov_ps(best, more, v);
                tap = _mm_mask_mov_epi8(tap, more, _mm_set1_epi8((char)(k + c)));
                fresh = 0;
            }
        }
    store16(y, lanes, best);
    if (where)
        _mm_mask_storeu_epi8(where, lanes, tap);
}
#else
/* Kept apart: where it sees that n is LANES, the compiler unrolls the loops and no longer makes vectors of them. */
__attribute__((noinline, noclone))
static void max_lanes(const struct mo_pool_desc *d, const struct window *w, int64_t channel, int n, elem *restrict y,
                      uint8_t *restrict where)
{
    float best[LANES];
    int32_t tap[LANES], fresh = 1;
    int64_t step = d->dilation[2] * d->channels;
    for (int i = 0; i < n; i++) {
        best[i] = -INFINITY;
        tap[i] = 0;
    }
    for (int a = w->t[0].first; a < w->t[0].last; a++)
        for (int b = w->t[1].first; b < w->t[1].last; b++) {
            const elem *row = tap_row(d, w, a, b) + channel;
            for (int c = w->t[2].first; c < w->t[2].last; c++) {
                const elem *restrict v = row + c * step;
                int32_t k = (int32_t)((a * d->kernel[1] + b) * d->kernel[2] + c);
                for (int i = 0; i < n; i++) {
                    float f = get(v[i]);
                    int32_t more = (f > best[i]) | (f != f) | fresh;
                    best[i] = more ? f : best[i];
                    tap[i] = more ? k : tap[i];
                }
                fresh = 0;
            }
        }
    for (int i = 0; i < n; i++)
        y[i] = put(best[i]);
    for (int i = 0; where && i < n; i++)
        where[i] = (uint8_t)tap[i];
}
#endif

static inline float average_scale(const struct mo_pool_desc *d, const struct window *w)
{
    int64_t n = 1;
    for (int i = 0; i < 3; i++) {
        int64_t counted = w->t[i].last - w->t[i].first;
        if (d->kind == MO_POOL_AVERAGE_WITH_PAD) {
            int64_t room = d->in[i] + d->pad_end[i] - w->begin[i];
            counted = room > (d->kernel[i] - 1) * d->dilation[i] ? d->kernel[i]
                                                                   : (room + d->dilation[i] - 1) / d->dilation[i];
        }
        n *= counted;
    }
    return n > 0 ? 1.0f / (float)n : 0.0f;
}

static inline void average_lanes(const struct mo_pool_desc *d, const struct window *w, int64_t channel, int n, float scale,
                                 elem *restrict y)
{
    float sum[LANES];
    for (int i = 0; i < n; i++)
        sum[i] = 0;
    for (int a = w->t[0].first; a < w->t[0].last; a++)
        for (int b = w->t[1].first; b < w->t[1].last; b++) {
            const elem *row = tap_row(d, w, a, b) + channel;
            for (int c = w->t[2].first; c < w->t[2].last; c++) {
                const elem *restrict v = row + c * d->dilation[2] * d->channels;
                for (int i = 0; i < n; i++)
                    sum[i] += get(v[i]);
            }
        }
    for (int i = 0; i < n; i++)
        y[i] = put(sum[i] * scale);
}

/* One output pixel. The last lanes overlap those before them. */
static inline void pool_pixel(const struct mo_pool_desc *d, const struct window *w, elem *y, uint8_t *where)
{
    int64_t channels = d->channels;
    bool is_max = d->kind == MO_POOL_MAX;
    float scale = is_max ? 0 : average_scale(d, w);
    if (channels < LANES) {
        if (is_max)
            max_lanes(d, w, 0, (int)channels, y, where);
        else
            average_lanes(d, w, 0, (int)channels, scale, y);
        return;
    }
    for (int64_t c = 0; c < channels; c += LANES) {
        int64_t from = c + LANES <= channels ? c : channels - LANES;
        if (is_max)
            max_lanes(d, w, from, LANES, y + from, where ? where + from : NULL);
        else
            average_lanes(d, w, from, LANES, scale, y + from);
    }
}

/* Rows of output pixels: pictures x out[0] x out[1]. */
static void pool_rows(const struct mo_pool_desc *d, const void *x, void *to, uint8_t *where, int64_t begin, int64_t end)
{
    elem *y = to;
    int64_t image = d->in[0] * d->in[1] * d->in[2] * d->channels, row = d->out[2] * d->channels;
    for (int64_t r = begin; r < end; r++) {
        struct window w = { .image = (const elem *)x + r / (d->out[0] * d->out[1]) * image };
        set_axis(d, &w, 0, r / d->out[1] % d->out[0]);
        set_axis(d, &w, 1, r % d->out[1]);
        for (int64_t o = 0; o < d->out[2]; o++) {
            set_axis(d, &w, 2, o);
            pool_pixel(d, &w, y + r * row + o * d->channels, where ? where + r * row + o * d->channels : NULL);
        }
    }
}

/* ---- gradients of pooling: each input pixel gathers from the windows that cover it ---- */

/* Outputs along one axis whose window covers position p. */
static inline struct span outputs_of(const struct mo_pool_desc *d, int axis, int64_t p)
{
    int padded = (int)(p + d->pad_begin[axis]), stride = (int)d->stride[axis];
    int low = padded - (int)((d->kernel[axis] - 1) * d->dilation[axis]);
    struct span r = { low <= 0 ? 0 : (low + stride - 1) / stride, padded / stride + 1 };
    if (r.last > d->out[axis])
        r.last = (int)d->out[axis];
    if (r.last < r.first)
        r.last = r.first;
    return r;
}

/* The tap under which output o sees position p, or -1 when dilation steps over it. */
static inline int tap_of(const struct mo_pool_desc *d, int axis, int64_t p, int o)
{
    int distance = (int)(p - (o * d->stride[axis] - d->pad_begin[axis])), dilation = (int)d->dilation[axis];
    return dilation == 1 ? distance : distance % dilation ? -1 : distance / dilation;
}

/* One window over the pixel. */
struct cover { int64_t out; int tap; float scale; };
#define MAX_COVERS 64

#ifdef __AVX512F__
static inline void max_grad_lanes(const struct cover *v, int n_covers, int n, const elem *dy, const uint8_t *where,
                                  bool add, elem *dx)
{
    __mmask16 lanes = (__mmask16)((1u << n) - 1);
    __m512 sum = add ? load16(lanes, dx) : _mm512_setzero_ps();
    for (int i = 0; i < n_covers; i++) {
        __m128i tap = _mm_maskz_loadu_epi8(lanes, where + v[i].out);
        __mmask16 mine = _mm_cmpeq_epi8_mask(tap, _mm_set1_epi8((char)v[i].tap));
        sum = _mm512_mask_add_ps(sum, mine, sum, load16(lanes, dy + v[i].out));
    }
    store16(dx, lanes, sum);
}
#else
static inline void max_grad_lanes(const struct cover *v, int n_covers, int n, const elem *restrict dy,
                                  const uint8_t *restrict where, bool add, elem *restrict dx)
{
    float sum[LANES];
    for (int i = 0; i < n; i++)
        sum[i] = add ? get(dx[i]) : 0;
    for (int k = 0; k < n_covers; k++) {
        const elem *restrict g = dy + v[k].out;
        const uint8_t *restrict tap = where + v[k].out;
        for (int i = 0; i < n; i++)
            sum[i] += tap[i] == v[k].tap ? get(g[i]) : 0;
    }
    for (int i = 0; i < n; i++)
        dx[i] = put(sum[i]);
}
#endif

static inline void average_grad_lanes(const struct cover *v, int n_covers, int n, const elem *restrict dy, bool add,
                                      elem *restrict dx)
{
    float sum[LANES];
    for (int i = 0; i < n; i++)
        sum[i] = add ? get(dx[i]) : 0;
    for (int k = 0; k < n_covers; k++)
        for (int i = 0; i < n; i++)
            sum[i] += get(dy[v[k].out + i]) * v[k].scale;
    for (int i = 0; i < n; i++)
        dx[i] = put(sum[i]);
}

/* With add, lanes must not overlap: what is left is done with fewer. */
static inline void pool_grad_pixel(const struct mo_pool_desc *d, struct cover *v, int n_covers, const elem *dy,
                                   const uint8_t *where, bool add, elem *dx)
{
    int64_t channels = d->channels, moved = 0;
    for (int64_t c = 0; c < channels;) {
        int64_t left = channels - c, at = c;
        bool full = left >= LANES || (!add && channels >= LANES);
        if (full && left < LANES)
            at = channels - LANES;
        for (int k = 0; k < n_covers; k++)
            v[k].out += at - moved;
        moved = at;
        int n = full ? LANES : (int)left;
        if (d->kind == MO_POOL_MAX)
            max_grad_lanes(v, n_covers, n, dy, where, add, dx + at);
        else
            average_grad_lanes(v, n_covers, n, dy, add, dx + at);
        c = full ? at + LANES : channels;
    }
}

struct grad_row {
    const struct mo_pool_desc *d;
    int64_t n, at[3];
    struct span o[3];
};

static inline float scale_of(const struct mo_pool_desc *d, int a, int b, int c)
{
    struct window w = { .image = NULL };
    set_axis(d, &w, 0, a);
    set_axis(d, &w, 1, b);
    set_axis(d, &w, 2, c);
    return average_scale(d, &w);
}

/* The windows over a pixel, some at a time: with more than MAX_COVERS the rest is added. */
static void pool_grad_at(const struct grad_row *r, const elem *dy, const uint8_t *where, bool add, elem *dx)
{
    const struct mo_pool_desc *d = r->d;
    struct cover covers[MAX_COVERS];
    int n = 0;
    for (int a = r->o[0].first; a < r->o[0].last; a++)
        for (int b = r->o[1].first; b < r->o[1].last; b++)
            for (int c = r->o[2].first; c < r->o[2].last; c++) {
                int ta = tap_of(d, 0, r->at[0], a), tb = tap_of(d, 1, r->at[1], b), tc = tap_of(d, 2, r->at[2], c);
                if ((ta | tb | tc) < 0)
                    continue;
                if (n == MAX_COVERS) {
                    pool_grad_pixel(d, covers, n, dy, where, add, dx);
                    add = true;
                    n = 0;
                }
                covers[n].out = (((r->n * d->out[0] + a) * d->out[1] + b) * d->out[2] + c) * d->channels;
                covers[n].tap = (int)((ta * d->kernel[1] + tb) * d->kernel[2]) + tc;
                covers[n++].scale = d->kind == MO_POOL_MAX ? 0 : scale_of(d, a, b, c);
            }
    pool_grad_pixel(d, covers, n, dy, where, add, dx);
}

/* Windows that tile the picture (stride = kernel, no padding, all pixels covered): the one window over a row of
 * input pixels at tap row `first_tap` is known, so dy is read once for each of its taps along the row. */
static bool tiles(const struct mo_pool_desc *d)
{
    for (int i = 0; i < 3; i++)
        if (d->stride[i] != d->kernel[i] || d->dilation[i] != 1 || d->pad_begin[i] || d->out[i] * d->kernel[i] != d->in[i])
            return false;
    return d->kind == MO_POOL_MAX;
}

static void tile_row(const struct mo_pool_desc *d, const elem *restrict dy, const uint8_t *restrict where, int first_tap,
                     elem *restrict dx)
{
    int64_t channels = d->channels;
    int n = channels < LANES ? (int)channels : LANES;
    for (int64_t o = 0; o < d->out[2]; o++, dy += channels, where += channels)
        for (int t = 0; t < d->kernel[2]; t++, dx += channels)
            for (int64_t c = 0; c < channels; c += LANES) {
                int64_t at = c + n <= channels ? c : channels - n;
#ifdef __AVX512F__
                __mmask16 lanes = (__mmask16)((1u << n) - 1);
                __mmask16 mine = _mm_cmpeq_epi8_mask(_mm_maskz_loadu_epi8(lanes, where + at),
                                                     _mm_set1_epi8((char)(first_tap + t)));
                store16(dx + at, lanes, _mm512_maskz_mov_ps(mine, load16(lanes, dy + at)));
#else
                for (int i = 0; i < n; i++)
                    dx[at + i] = where[at + i] == first_tap + t ? dy[at + i] : 0;
#endif
            }
}

/* Rows of input pixels: pictures x in[0] x in[1]. */
static void pool_grad_rows(const struct mo_pool_desc *d, const void *from_dy, const uint8_t *where, void *to, bool add,
                           int64_t begin, int64_t end)
{
    const elem *dy = from_dy;
    elem *dx = to;
    bool is_tiled = !add && tiles(d);
    for (int64_t i = begin; i < end; i++) {
        struct grad_row r = { .d = d, .n = i / (d->in[0] * d->in[1]), .at = { i / d->in[1] % d->in[0], i % d->in[1], 0 } };
        if (is_tiled) {
            int64_t o0 = r.at[0] / d->kernel[0], o1 = r.at[1] / d->kernel[1];
            int64_t from = ((r.n * d->out[0] + o0) * d->out[1] + o1) * d->out[2] * d->channels;
            int64_t tap = (r.at[0] % d->kernel[0] * d->kernel[1] + r.at[1] % d->kernel[1]) * d->kernel[2];
            tile_row(d, dy + from, where + from, (int)tap, dx + i * d->in[2] * d->channels);
            continue;
        }
        r.o[0] = outputs_of(d, 0, r.at[0]);
        r.o[1] = outputs_of(d, 1, r.at[1]);
        for (r.at[2] = 0; r.at[2] < d->in[2]; r.at[2]++) {
            r.o[2] = outputs_of(d, 2, r.at[2]);
            pool_grad_at(&r, dy, where, add, dx + (i * d->in[2] + r.at[2]) * d->channels);
        }
    }
}

#ifdef BFLOAT16

/* ---- between the types ---------------------------------------------------------------------------- */

static void widen(size_t n, const uint16_t *restrict x, float *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = get(x[i]);
}

static void narrow(size_t n, const float *restrict x, uint16_t *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = put(x[i]);
}

/* What is larger than 0, as an integer, is so as a number too, but for NaN: its gradient goes on. dx may be dy. */
static void relu_grad(size_t n, const uint16_t *y, const uint16_t *dy, uint16_t *dx)
{
    for (size_t i = 0; i < n; i++) {
        int16_t is = (int16_t)y[i];
        dx[i] = is > 0 ? dy[i] : 0;
    }
}

static void axpy16(size_t n, float a, const uint16_t *restrict x, uint16_t *restrict y, bool add)
{
    if (add)
        for (size_t i = 0; i < n; i++)
            y[i] = put(get(y[i]) + a * get(x[i]));
    else
        for (size_t i = 0; i < n; i++)
            y[i] = put(a * get(x[i]));
}

const struct mo_loops LOOPS = {
    .bn_sum = bn_sum, .bn_squares = bn_squares, .bn_apply = bn_apply, .bn_grad_sums = bn_grad_sums,
    .bn_grad_apply = bn_grad_apply, .pool = pool_rows, .pool_grad = pool_grad_rows, .widen = widen, .narrow = narrow,
    .relu_grad = relu_grad, .axpy16 = axpy16,
};

#else

/* ---- optimizers ----------------------------------------------------------------------------------- */

static void axpy(size_t n, float a, const float *restrict x, float *restrict y, bool add)
{
    if (add)
        for (size_t i = 0; i < n; i++)
            y[i] += a * x[i];
    else
        for (size_t i = 0; i < n; i++)
            y[i] = a * x[i];
}

static void sgd(size_t n, float lr, float momentum, bool nesterov, float l2, float *restrict w, const float *restrict g,
                float *restrict velocity)
{
    if (!velocity)
        for (size_t i = 0; i < n; i++)
            w[i] -= lr * (g[i] + l2 * w[i]);
    else if (nesterov)
        for (size_t i = 0; i < n; i++) {
            float d = g[i] + l2 * w[i], v = momentum * velocity[i] + d;
            velocity[i] = v;
            w[i] -= lr * (d + momentum * v);
        }
    else
        for (size_t i = 0; i < n; i++) {
            float v = momentum * velocity[i] + (g[i] + l2 * w[i]);
            velocity[i] = v;
            w[i] -= lr * v;
        }
}

static void adam(size_t n, float lr, float beta1, float beta2, float eps, float l2, float decoupled, float correction1,
                 float correction2, float *restrict w, const float *restrict g, float *restrict m, float *restrict v)
{
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + l2 * w[i];
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        w[i] -= lr * decoupled * w[i];
        w[i] -= lr * (m[i] / correction1) / (sqrtf(v[i] / correction2) + eps);
    }
}

static void rmsprop(size_t n, float lr, float alpha, float eps, float momentum, float l2, float *restrict w,
                    const float *restrict g, float *restrict square, float *restrict velocity)
{
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + l2 * w[i];
        square[i] = alpha * square[i] + (1 - alpha) * d * d;
        d /= sqrtf(square[i]) + eps;
        if (velocity)
            d = velocity[i] = momentum * velocity[i] + d;
        w[i] -= lr * d;
    }
}

static double sum_squares(size_t n, const float *restrict x)
{
    double lane[LANES] = { 0 };
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += (double)x[i + (size_t)k] * x[i + (size_t)k];
    for (int k = 0; i < n; i++, k++)
        lane[k] += (double)x[i] * x[i];
    for (int step = 1; step < LANES; step *= 2)
        for (int k = 0; k + step < LANES; k += 2 * step)
            lane[k] += lane[k + step];
    return lane[0];
}

/* More lanes than registers have: fewer, the compiler unrolls and then leaves as they are. */
static void range(size_t n, const float *restrict x, float *restrict range, uint64_t *restrict n_nan)
{
    enum { WIDE = 8 * LANES };
    float low[WIDE], high[WIDE];
    uint32_t nan[WIDE] = { 0 };
    size_t i = 0;
    for (int k = 0; k < WIDE; k++)
        low[k] = range[0], high[k] = range[1];
    for (; i < n; i += WIDE) {
        int m = n - i < WIDE ? (int)(n - i) : WIDE;
        for (int k = 0; k < m; k++)
            low[k] = x[i + (size_t)k] < low[k] ? x[i + (size_t)k] : low[k];
        for (int k = 0; k < m; k++)
            high[k] = x[i + (size_t)k] > high[k] ? x[i + (size_t)k] : high[k];
        for (int k = 0; k < m; k++)
            nan[k] += x[i + (size_t)k] != x[i + (size_t)k];
    }
    for (int k = 0; k < WIDE; k++) {
        range[0] = low[k] < range[0] ? low[k] : range[0];
        range[1] = high[k] > range[1] ? high[k] : range[1];
        *n_nan += nan[k];
    }
}

/* Where some values belong is found first, in vectors. Neighbours are often alike: four tables, so that a count does not
 * wait for the one before it. */
static void histogram(size_t n, const float *restrict x, float low, float width, size_t n_bins, uint32_t *restrict counts)
{
    enum { SOME = 512 };
    int32_t at[SOME];
    float last = (float)(n_bins - 1);
    for (size_t i = 0; i < n; i += SOME) {
        size_t m = n - i < SOME ? n - i : SOME;
        for (size_t k = 0; k < m; k++) {
            float bin = floorf((x[i + k] - low) / width);
            bin = bin > 0 ? bin : 0;            /* NaN counts as low */
            at[k] = (int32_t)(bin < last ? bin : last);
        }
        for (size_t k = 0; k < m; k++)
            counts[(k & 3) * n_bins + (size_t)at[k]]++;
    }
}

const struct mo_loops LOOPS = {
    .bn_sum = bn_sum, .bn_squares = bn_squares, .bn_apply = bn_apply, .bn_grad_sums = bn_grad_sums,
    .bn_grad_apply = bn_grad_apply, .pool = pool_rows, .pool_grad = pool_grad_rows,
    .axpy = axpy, .sgd = sgd, .adam = adam, .rmsprop = rmsprop, .sum_squares = sum_squares, .range = range,
    .histogram = histogram,
};
#endif
