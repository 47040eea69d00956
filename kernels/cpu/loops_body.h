/* loops_body.h - the text of loops.h's functions. The including file defines
 * LOOPS as the name of its table.
 *
 * Written for the compiler's vectorizer: constant trip counts of LANES, no
 * aliasing, tails by a last block that overlaps the one before (only where the
 * result of an element does not depend on being computed twice). */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/cpu/loops.h"

#define LANES 16

/* ---- BatchNormalization ------------------------------------------------------------------- */

static void bn_sum(const float *restrict x, int64_t begin, int64_t end, int64_t width, float *restrict sum)
{
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (; begin + width <= end; begin += width)
        for (int64_t w = 0; w < width; w++)
            sum[w] += x[begin + w];
    for (int64_t w = 0; w < end - begin; w++)
        sum[w] += x[begin + w];
}

static void bn_squares(const float *restrict x, int64_t begin, int64_t end, int64_t width, const float *restrict mean,
                       float *restrict sum)
{
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (; begin + width <= end; begin += width)
        for (int64_t w = 0; w < width; w++)
            sum[w] += (x[begin + w] - mean[w]) * (x[begin + w] - mean[w]);
    for (int64_t w = 0; w < end - begin; w++)
        sum[w] += (x[begin + w] - mean[w]) * (x[begin + w] - mean[w]);
}

static inline void bn_apply_row(const float *restrict x, const float *restrict mean, const float *restrict a,
                                const float *restrict b, const float *restrict residual, bool relu, int64_t n,
                                float *restrict y)
{
    if (residual && relu)
        for (int64_t w = 0; w < n; w++) {
            float v = (x[w] - mean[w]) * a[w] + b[w] + residual[w];
            y[w] = v < 0 ? 0 : v;
        }
    else if (residual)
        for (int64_t w = 0; w < n; w++)
            y[w] = (x[w] - mean[w]) * a[w] + b[w] + residual[w];
    else if (relu)
        for (int64_t w = 0; w < n; w++) {
            float v = (x[w] - mean[w]) * a[w] + b[w];
            y[w] = v < 0 ? 0 : v;
        }
    else
        for (int64_t w = 0; w < n; w++)
            y[w] = (x[w] - mean[w]) * a[w] + b[w];
}

static void bn_apply(const struct mo_bn *p, int64_t begin, int64_t end)
{
    for (; begin < end; begin += p->width)
        bn_apply_row(p->x + begin, p->mean, p->a, p->b, p->residual ? p->residual + begin : NULL, p->relu,
                     end - begin < p->width ? end - begin : p->width, p->out + begin);
}

static inline void bn_sums_row(const float *restrict x, const float *restrict y, const float *restrict dy,
                               const float *restrict mean, int64_t n, float *restrict sum_g, float *restrict sum_gx)
{
    if (y)
        for (int64_t w = 0; w < n; w++) {
            float g = y[w] > 0 ? dy[w] : 0;
            sum_g[w] += g;
            sum_gx[w] += g * (x[w] - mean[w]);
        }
    else
        for (int64_t w = 0; w < n; w++) {
            sum_g[w] += dy[w];
            sum_gx[w] += dy[w] * (x[w] - mean[w]);
        }
}

static void bn_grad_sums(const struct mo_bn *p, int64_t begin, int64_t end, float *sum_g, float *sum_gx)
{
    memset(sum_g, 0, (size_t)p->width * sizeof *sum_g);
    memset(sum_gx, 0, (size_t)p->width * sizeof *sum_gx);
    for (; begin < end; begin += p->width)
        bn_sums_row(p->x + begin, p->relu ? p->y + begin : NULL, p->dy + begin, p->mean,
                    end - begin < p->width ? end - begin : p->width, sum_g, sum_gx);
}

static inline void bn_grad_row(const struct mo_bn *p, int64_t at, int64_t n)
{
    const float *restrict x = p->x + at, *restrict y = p->y + at, *restrict dy = p->dy + at;
    const float *restrict mean = p->mean, *restrict a = p->a, *restrict b = p->b, *restrict c = p->c;
    float *restrict dx = p->dx + at;
    if (p->dresidual) {
        float *dresidual = p->dresidual + at;       /* may be dy itself */
        for (int64_t w = 0; w < n; w++) {
            float g = !p->relu || y[w] > 0 ? p->dy[at + w] : 0;
            dresidual[w] = g;
            dx[w] = a[w] * (g - b[w] - (x[w] - mean[w]) * c[w]);
        }
    } else if (p->relu) {
        for (int64_t w = 0; w < n; w++) {
            float g = y[w] > 0 ? dy[w] : 0;
            dx[w] = a[w] * (g - b[w] - (x[w] - mean[w]) * c[w]);
        }
    } else {
        for (int64_t w = 0; w < n; w++)
            dx[w] = a[w] * (dy[w] - b[w] - (x[w] - mean[w]) * c[w]);
    }
}

static void bn_grad_apply(const struct mo_bn *p, int64_t begin, int64_t end)
{
    for (; begin < end; begin += p->width)
        bn_grad_row(p, begin, end - begin < p->width ? end - begin : p->width);
}

/* ---- pooling ---------------------------------------------------------------------------------- */

/* Output position and the taps of its window that lie inside the picture. */
struct range { int64_t first, last; };      /* taps first..last-1 */

static inline struct range taps_of(int64_t begin, int64_t size, int64_t kernel, int64_t dilation)
{
    struct range r = { 0, kernel };
    if (begin < 0)
        r.first = (-begin + dilation - 1) / dilation;
    if (begin + (kernel - 1) * dilation >= size)
        r.last = begin >= size ? 0 : (size - 1 - begin) / dilation + 1;
    if (r.last < r.first)
        r.last = r.first;
    return r;
}

struct pool_window {
    struct range t[3];
    int64_t begin[3];
    int64_t image;              /* elements to the picture */
};

static inline struct pool_window pool_window_of(const struct mo_pool_desc *d, int64_t pixel)
{
    struct pool_window w;
    int64_t o[3];
    o[2] = pixel % d->out[2];
    o[1] = pixel / d->out[2] % d->out[1];
    o[0] = pixel / d->out[2] / d->out[1] % d->out[0];
    w.image = pixel / (d->out[0] * d->out[1] * d->out[2]) * (d->in[0] * d->in[1] * d->in[2]) * d->channels;
    for (int i = 0; i < 3; i++) {
        w.begin[i] = o[i] * d->stride[i] - d->pad_begin[i];
        w.t[i] = taps_of(w.begin[i], d->in[i], d->kernel[i], d->dilation[i]);
    }
    return w;
}

static inline const float *tap_at(const struct mo_pool_desc *d, const struct pool_window *w, const float *x, int64_t a,
                                  int64_t b, int64_t c)
{
    int64_t p0 = w->begin[0] + a * d->dilation[0], p1 = w->begin[1] + b * d->dilation[1];
    int64_t p2 = w->begin[2] + c * d->dilation[2];
    return x + w->image + ((p0 * d->in[1] + p1) * d->in[2] + p2) * d->channels;
}

/* n = LANES, or fewer with few channels. */
static inline void max_block(const struct mo_pool_desc *d, const struct pool_window *w, const float *restrict x,
                             int64_t channel, int n, float *restrict y, uint8_t *restrict where)
{
    float best[LANES];
    int32_t tap[LANES];
    for (int i = 0; i < n; i++) {
        best[i] = -INFINITY;
        tap[i] = 0;
    }
    bool is_first = true;
    for (int64_t a = w->t[0].first; a < w->t[0].last; a++)
        for (int64_t b = w->t[1].first; b < w->t[1].last; b++)
            for (int64_t c = w->t[2].first; c < w->t[2].last; c++) {
                const float *restrict v = tap_at(d, w, x, a, b, c) + channel;
                int32_t k = (int32_t)((a * d->kernel[1] + b) * d->kernel[2] + c);
                for (int i = 0; i < n; i++) {
                    bool more = is_first | (v[i] > best[i]) | (v[i] != v[i]);
                    best[i] = more ? v[i] : best[i];
                    tap[i] = more ? k : tap[i];
                }
                is_first = false;
            }
    for (int i = 0; i < n; i++)
        y[i] = best[i];
    for (int i = 0; where && i < n; i++)
        where[i] = (uint8_t)tap[i];
}

static inline float average_scale(const struct mo_pool_desc *d, const struct pool_window *w)
{
    int64_t n = 1;
    for (int i = 0; i < 3; i++) {
        int64_t counted = w->t[i].last - w->t[i].first;
        if (d->kind == MO_POOL_AVERAGE_WITH_PAD) {
            int64_t room = d->in[i] + d->pad_end[i] - w->begin[i];
            counted = room >= (d->kernel[i] - 1) * d->dilation[i] + 1 ? d->kernel[i] : (room + d->dilation[i] - 1) / d->dilation[i];
        }
        n *= counted;
    }
    return n > 0 ? 1.0f / (float)n : 0.0f;
}

static inline void average_block(const struct mo_pool_desc *d, const struct pool_window *w, const float *restrict x,
                                 int64_t channel, int n, float scale, float *restrict y)
{
    float sum[LANES];
    for (int i = 0; i < n; i++)
        sum[i] = 0;
    for (int64_t a = w->t[0].first; a < w->t[0].last; a++)
        for (int64_t b = w->t[1].first; b < w->t[1].last; b++)
            for (int64_t c = w->t[2].first; c < w->t[2].last; c++) {
                const float *restrict v = tap_at(d, w, x, a, b, c) + channel;
                for (int i = 0; i < n; i++)
                    sum[i] += v[i];
            }
    for (int i = 0; i < n; i++)
        y[i] = sum[i] * scale;
}

/* Blocks of LANES channels; the last one overlaps, or is short when there are fewer channels than LANES. */
#define EACH_BLOCK(channels, call_full, call_short)                                 \
    do {                                                                            \
        int64_t c = 0;                                                              \
        if ((channels) < LANES) {                                                   \
            int n = (int)(channels);                                                \
            call_short;                                                             \
        } else {                                                                    \
            for (; c + LANES <= (channels); c += LANES)                             \
                call_full;                                                          \
            if (c < (channels)) {                                                   \
                c = (channels) - LANES;                                             \
                call_full;                                                          \
            }                                                                       \
        }                                                                           \
    } while (0)

static void pool_pixels(const struct mo_pool_desc *d, const float *x, float *y, uint8_t *where, int64_t begin,
                        int64_t end)
{
    for (int64_t p = begin; p < end; p++) {
        struct pool_window w = pool_window_of(d, p);
        float *to = y + p * d->channels;
        uint8_t *to_where = where ? where + p * d->channels : NULL;
        if (d->kind == MO_POOL_MAX) {
            EACH_BLOCK(d->channels, max_block(d, &w, x, c, LANES, to + c, to_where ? to_where + c : NULL),
                       max_block(d, &w, x, c, n, to + c, to_where ? to_where + c : NULL));
        } else {
            float scale = average_scale(d, &w);
            EACH_BLOCK(d->channels, average_block(d, &w, x, c, LANES, scale, to + c),
                       average_block(d, &w, x, c, n, scale, to + c));
        }
    }
}

/* The windows that cover an input position along one axis: outputs first..last-1, those with a fitting tap. */
static inline struct range outputs_of(int64_t p, int64_t pad, int64_t kernel, int64_t stride, int64_t dilation,
                                      int64_t n_out)
{
    int64_t reach = (kernel - 1) * dilation, low = p + pad - reach;
    struct range r = { low <= 0 ? 0 : (low + stride - 1) / stride, (p + pad) / stride + 1 };
    if (r.last > n_out)
        r.last = n_out;
    if (r.last < r.first)
        r.last = r.first;
    return r;
}

struct grad_pixel {
    struct range o[3];
    int64_t at[3], out_image;
};

static inline struct grad_pixel grad_pixel_of(const struct mo_pool_desc *d, int64_t pixel)
{
    struct grad_pixel g;
    g.at[2] = pixel % d->in[2];
    g.at[1] = pixel / d->in[2] % d->in[1];
    g.at[0] = pixel / d->in[2] / d->in[1] % d->in[0];
    g.out_image = pixel / (d->in[0] * d->in[1] * d->in[2]) * (d->out[0] * d->out[1] * d->out[2]);
    for (int i = 0; i < 3; i++)
        g.o[i] = outputs_of(g.at[i], d->pad_begin[i], d->kernel[i], d->stride[i], d->dilation[i], d->out[i]);
    return g;
}

/* The tap under which output o sees the position, or -1 when dilation steps over it. */
static inline int64_t tap_of(const struct mo_pool_desc *d, int axis, int64_t at, int64_t o)
{
    int64_t distance = at - (o * d->stride[axis] - d->pad_begin[axis]);
    return d->dilation[axis] == 1 ? distance : distance % d->dilation[axis] ? -1 : distance / d->dilation[axis];
}

static inline void max_grad_block(const struct mo_pool_desc *d, const struct grad_pixel *g, const float *restrict dy,
                                  const uint8_t *restrict where, int64_t channel, int n, bool add, float *restrict dx)
{
    float sum[LANES];
    for (int i = 0; i < n; i++)
        sum[i] = add ? dx[i] : 0;
    for (int64_t a = g->o[0].first; a < g->o[0].last; a++)
        for (int64_t b = g->o[1].first; b < g->o[1].last; b++)
            for (int64_t c = g->o[2].first; c < g->o[2].last; c++) {
                int64_t ta = tap_of(d, 0, g->at[0], a), tb = tap_of(d, 1, g->at[1], b), tc = tap_of(d, 2, g->at[2], c);
                if (ta < 0 || tb < 0 || tc < 0)
                    continue;
                int32_t k = (int32_t)((ta * d->kernel[1] + tb) * d->kernel[2] + tc);
                int64_t out = (g->out_image + (a * d->out[1] + b) * d->out[2] + c) * d->channels + channel;
                for (int i = 0; i < n; i++)
                    sum[i] += where[out + i] == k ? dy[out + i] : 0;
            }
    for (int i = 0; i < n; i++)
        dx[i] = sum[i];
}

static inline void average_grad_block(const struct mo_pool_desc *d, const struct grad_pixel *g, const float *restrict dy,
                                      int64_t channel, int n, bool add, float *restrict dx)
{
    float sum[LANES];
    for (int i = 0; i < n; i++)
        sum[i] = add ? dx[i] : 0;
    for (int64_t a = g->o[0].first; a < g->o[0].last; a++)
        for (int64_t b = g->o[1].first; b < g->o[1].last; b++)
            for (int64_t c = g->o[2].first; c < g->o[2].last; c++) {
                if (tap_of(d, 0, g->at[0], a) < 0 || tap_of(d, 1, g->at[1], b) < 0 || tap_of(d, 2, g->at[2], c) < 0)
                    continue;
                int64_t pixel = g->out_image + (a * d->out[1] + b) * d->out[2] + c;
                struct pool_window w = pool_window_of(d, pixel);
                float scale = average_scale(d, &w);
                const float *from = dy + pixel * d->channels + channel;
                for (int i = 0; i < n; i++)
                    sum[i] += from[i] * scale;
            }
    for (int i = 0; i < n; i++)
        dx[i] = sum[i];
}

/* With add the overlapping tail would add twice: the tail is then short. */
static void pool_grad_pixels(const struct mo_pool_desc *d, const float *dy, const uint8_t *where, float *dx, bool add,
                             int64_t begin, int64_t end)
{
    for (int64_t p = begin; p < end; p++) {
        struct grad_pixel g = grad_pixel_of(d, p);
        float *to = dx + p * d->channels;
        for (int64_t c = 0; c < d->channels;) {
            int64_t left = d->channels - c;
            bool full = left >= LANES || (!add && d->channels >= LANES);
            if (full && left < LANES)
                c = d->channels - LANES;
            if (d->kind == MO_POOL_MAX && full)
                max_grad_block(d, &g, dy, where, c, LANES, add, to + c);
            else if (d->kind == MO_POOL_MAX)
                max_grad_block(d, &g, dy, where, c, (int)left, add, to + c);
            else if (full)
                average_grad_block(d, &g, dy, c, LANES, add, to + c);
            else
                average_grad_block(d, &g, dy, c, (int)left, add, to + c);
            c += full ? LANES : left;
        }
    }
}

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

const struct mo_loops LOOPS = {
    .bn_sum = bn_sum, .bn_squares = bn_squares, .bn_apply = bn_apply, .bn_grad_sums = bn_grad_sums,
    .bn_grad_apply = bn_grad_apply, .pool = pool_pixels, .pool_grad = pool_grad_pixels,
    .axpy = axpy, .sgd = sgd, .adam = adam, .rmsprop = rmsprop, .sum_squares = sum_squares,
};
