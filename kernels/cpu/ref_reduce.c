/* ref_reduce.c - reductions over any set of axes, their gradients, arg max: plain C.
 *
 * The axes are parted into kept and reduced ones. Where x runs along a reduced
 * axis, one result is made at a time from whole rows; where it runs along a kept
 * axis, a block of COLUMNS results is made at a time, so that x is read in its
 * own order either way. Floats are summed in float64, integers wrap. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loop.h"
#include "kernels/cpu/split.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 64, LANES = 8 };

struct reduce_work {
    enum mo_reduce f;
    int dtype;
    struct mo_loop kept, reduced;   /* operand 0: x */
    int64_t count;                  /* elements behind one result */
    const void *x;
    void *y;
};

/* ---- floats ---- */

static double first(enum mo_reduce f)
{
    return f == MO_REDUCE_MAX ? -INFINITY : f == MO_REDUCE_MIN ? INFINITY : f == MO_REDUCE_PROD;
}

static double join(enum mo_reduce f, double u, double v)
{
    switch (f) {
    case MO_REDUCE_MAX: return v > u || v != v ? v : u;
    case MO_REDUCE_MIN: return v < u || v != v ? v : u;
    case MO_REDUCE_PROD: return u * v;
    default: return u + v;
    }
}

/* log(sum exp x) is taken as top + log(sum exp(x - top)); an infinite top must not make inf - inf. */
static double shifted_exp(double v, double top)
{
    return isinf(top) ? (v == top && top > 0) : exp(v - top);
}

static double finish(enum mo_reduce f, double acc, double top, int64_t count)
{
    switch (f) {
    case MO_REDUCE_MEAN: return acc / (double)count;
    case MO_REDUCE_L2: return sqrt(acc);
    case MO_REDUCE_LOG_SUM: return log(acc);
    case MO_REDUCE_LOG_SUM_EXP: return isinf(top) ? top : top + log(acc);
    default: return acc;
    }
}

/* The step of each reduction: u is the accumulator, v the element, `t` the largest element. */
#define STEPS(LOOP)                                                                                             \
    switch (f) {                                                                                                \
    case MO_REDUCE_MAX: LOOP(v > u || v != v ? v : u) break;                                                    \
    case MO_REDUCE_MIN: LOOP(v < u || v != v ? v : u) break;                                                    \
    case MO_REDUCE_PROD: LOOP(u * v) break;                                                                     \
    case MO_REDUCE_L1: LOOP(u + fabs(v)) break;                                                                 \
    case MO_REDUCE_L2: case MO_REDUCE_SUM_SQUARE: LOOP(u + v * v) break;                                        \
    case MO_REDUCE_LOG_SUM_EXP: LOOP(u + shifted_exp(v, t)) break;                                              \
    default: LOOP(u + v) break;                                                                                 \
    }

#define ACROSS_LOOP(expr)                                                                                       \
    if (sx == 1)                                                                                                \
        for (int64_t j = 0; j < n; j++) {                                                                       \
            double v = x[j], u = acc[j], t = top[j];                                                            \
            (void)t;                                                                                            \
            acc[j] = (expr);                                                                                    \
        }                                                                                                       \
    else                                                                                                        \
        for (int64_t j = 0; j < n; j++) {                                                                       \
            double v = x[j * sx], u = acc[j], t = top[j];                                                       \
            (void)t;                                                                                            \
            acc[j] = (expr);                                                                                    \
        }

#define ALONG_LOOP(expr)                                                                                        \
    for (; i + LANES <= n; i += LANES)                                                                          \
        for (int k = 0; k < LANES; k++) {                                                                       \
            double v = x[i + k], u = acc[k];                                                                    \
            acc[k] = (expr);                                                                                    \
        }                                                                                                       \
    for (; i < n; i++) {                                                                                        \
        double v = x[i], u = acc[i & (LANES - 1)];                                                              \
        acc[i & (LANES - 1)] = (expr);                                                                          \
    }

#define FLOAT_REDUCE(tag, T)                                                                                    \
    /* n neighbouring elements into n accumulators */                                                           \
    static void across_##tag(enum mo_reduce f, int64_t n, const T *x, int64_t sx, const double *top, double *acc)\
    {                                                                                                           \
        STEPS(ACROSS_LOOP)                                                                                      \
    }                                                                                                           \
    /* n elements of a row into one, over LANES running results joined as a tree */                             \
    static double along_##tag(enum mo_reduce f, int64_t n, const T *x, double t)                                \
    {                                                                                                           \
        double acc[LANES];                                                                                      \
        int64_t i = 0;                                                                                          \
        for (int k = 0; k < LANES; k++)                                                                         \
            acc[k] = first(f);                                                                                  \
        STEPS(ALONG_LOOP)                                                                                       \
        for (int half = LANES / 2; half > 0; half /= 2)                                                         \
            for (int k = 0; k < half; k++)                                                                      \
                acc[k] = join(f, acc[k], acc[k + half]);                                                        \
        return acc[0];                                                                                          \
    }                                                                                                           \
    /* acc[j] of the n results whose elements begin at x + j * sx */                                            \
    static void fold_##tag(enum mo_reduce f, const struct mo_loop *r, int64_t n, const T *x, int64_t sx,        \
                           const double *top, double *acc)                                                      \
    {                                                                                                           \
        int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], step = r->stride[0][r->rank - 1];                    \
        for (int64_t j = 0; j < n; j++)                                                                         \
            acc[j] = first(f);                                                                                  \
        mo_loop_seek(r, 0, index, offset);                                                                      \
        for (int64_t i = 0; i < r->n_rows; i++, mo_loop_next(r, index, offset))                                 \
            if (step == 1)                                                                                      \
                for (int64_t j = 0; j < n; j++)                                                                 \
                    acc[j] = join(f, acc[j], along_##tag(f, r->row, x + offset[0] + j * sx, top[j]));           \
            else                                                                                                \
                for (int64_t k = 0; k < r->row; k++)                                                            \
                    across_##tag(f, n, x + offset[0] + k * step, sx, top, acc);                                 \
    }                                                                                                           \
    static void block_##tag(const struct reduce_work *w, int64_t n, const T *x, int64_t sx, T *y)               \
    {                                                                                                           \
        double top[COLUMNS] = { 0 }, acc[COLUMNS];                                                              \
        if (w->f == MO_REDUCE_LOG_SUM_EXP)                                                                      \
            fold_##tag(MO_REDUCE_MAX, &w->reduced, n, x, sx, top, top);                                         \
        fold_##tag(w->f, &w->reduced, n, x, sx, top, acc);                                                      \
        for (int64_t j = 0; j < n; j++)                                                                         \
            y[j] = (T)finish(w->f, acc[j], top[j], w->count);                                                   \
    }
FLOAT_REDUCE(f32, float)
FLOAT_REDUCE(f64, double)

/* ---- integers: one result after the other ---- */

static int64_t load(int dtype, const void *x, int64_t i)
{
    return dtype == 6 ? ((const int32_t *)x)[i] : ((const int64_t *)x)[i];
}

static uint64_t int_step(enum mo_reduce f, uint64_t u, int64_t v)
{
    uint64_t w = (uint64_t)v;
    switch (f) {
    case MO_REDUCE_MAX: return v > (int64_t)u ? w : u;
    case MO_REDUCE_MIN: return v < (int64_t)u ? w : u;
    case MO_REDUCE_PROD: return u * w;
    case MO_REDUCE_L1: return u + (v < 0 ? 0 - w : w);
    case MO_REDUCE_L2: case MO_REDUCE_SUM_SQUARE: return u + w * w;
    default: return u + w;
    }
}

static int64_t int_result(const struct reduce_work *w, int64_t at)
{
    const struct mo_loop *r = &w->reduced;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], step = r->stride[0][r->rank - 1];
    bool is_max = w->f == MO_REDUCE_MAX, is_min = w->f == MO_REDUCE_MIN, by_exp = w->f == MO_REDUCE_LOG_SUM_EXP;
    uint64_t acc = is_max ? (uint64_t)INT64_MIN : is_min ? (uint64_t)INT64_MAX : w->f == MO_REDUCE_PROD;
    double sum_exp = 0;
    mo_loop_seek(r, 0, index, offset);
    for (int64_t i = 0; i < r->n_rows; i++, mo_loop_next(r, index, offset))
        for (int64_t k = 0; k < r->row; k++) {
            int64_t v = load(w->dtype, w->x, at + offset[0] + k * step);
            if (by_exp)
                sum_exp += exp((double)v);
            else
                acc = int_step(w->f, acc, v);
        }
    switch (w->f) {
    case MO_REDUCE_MEAN: return w->count ? (int64_t)acc / w->count : 0;
    case MO_REDUCE_L2: return (int64_t)sqrt((double)acc);
    case MO_REDUCE_LOG_SUM: return (int64_t)log((double)(int64_t)acc);
    case MO_REDUCE_LOG_SUM_EXP: return (int64_t)log(sum_exp);
    default: return (int64_t)acc;
    }
}

/* ---- both ---- */

/* Units: blocks of COLUMNS results of each kept row. */
static void reduce_blocks(void *arg, int64_t begin, int64_t end)
{
    const struct reduce_work *w = arg;
    const struct mo_loop *k = &w->kept;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], per_row = (k->row + COLUMNS - 1) / COLUMNS;
    int64_t sx = k->stride[0][k->rank - 1];
    for (int64_t u = begin; u < end; u++) {
        int64_t start = u % per_row * COLUMNS, n = k->row - start < COLUMNS ? k->row - start : COLUMNS;
        mo_loop_seek(k, u / per_row, index, offset);
        int64_t from = offset[0] + start * sx, to = u / per_row * k->row + start;
        switch (w->dtype) {
        case 1: block_f32(w, n, (const float *)w->x + from, sx, (float *)w->y + to); break;
        case 11: block_f64(w, n, (const double *)w->x + from, sx, (double *)w->y + to); break;
        case 6:
            for (int64_t j = 0; j < n; j++)
                ((int32_t *)w->y)[to + j] = (int32_t)int_result(w, from + j * sx);
            break;
        default:
            for (int64_t j = 0; j < n; j++)
                ((int64_t *)w->y)[to + j] = int_result(w, from + j * sx);
        }
    }
}

/* Parts the axes of a dense x. Empty reduced parts have n_rows 0, and then the walk is empty. */
static void part_axes(struct reduce_work *w, int rank, const int64_t *dims, const bool *is_reduced)
{
    int64_t d[2][MO_K_MAX_RANK] = { 0 }, s[2][MO_K_MAX_RANK], stride = 1;
    int n[2] = { 0, 0 }, sides[MO_K_MAX_RANK];
    w->count = 1;
    for (int axis = rank - 1; axis >= 0; axis--) {
        sides[axis] = is_reduced[axis];
        n[sides[axis]]++;
    }
    int at[2] = { n[0], n[1] };
    for (int axis = rank - 1; axis >= 0; axis--) {
        int side = sides[axis];
        d[side][--at[side]] = dims[axis];
        s[side][at[side]] = stride;
        stride *= dims[axis];
        if (side)
            w->count *= dims[axis];
    }
    const int64_t *const kept[] = { s[0] }, *const reduced[] = { s[1] };
    mo_loop_init(&w->kept, n[0], d[0], 1, kept);
    mo_loop_init(&w->reduced, n[1], d[1], 1, reduced);
}

void mo_ref_reduce(struct mo_device *dev, enum mo_reduce f, int dtype, int rank, const int64_t *dims,
                   const bool *is_reduced, const void *x, void *y)
{
    struct reduce_work w = { .f = f, .dtype = dtype, .x = x, .y = y };
    if (dtype != 1 && dtype != 11 && dtype != 6 && dtype != 7) {
        mo_device_latch(dev, "reduce: no kernel for element type %d", dtype);
        return;
    }
    part_axes(&w, rank, dims, is_reduced);
    int64_t per_row = (w.kept.row + COLUMNS - 1) / COLUMNS;
    int64_t columns = w.kept.row < COLUMNS ? w.kept.row : COLUMNS;
    mo_split(dev, w.kept.n_rows * per_row, mo_split_grain(w.count * columns), reduce_blocks, &w);
}

/* ---- gradient ---- */

struct grad_work {
    struct reduce_work r;
    const float *x, *y, *dy;
    float *dx;
    bool add;
};

/* d y / d x at one element, times dy. Ties of max and min share alike; `extra` is their number, or for PROD the
 * product of the others where that is not y / x. */
static float slope(enum mo_reduce f, float x, float y, float dy, int64_t count, double extra)
{
    switch (f) {
    case MO_REDUCE_MEAN: return dy / (float)count;
    case MO_REDUCE_MAX: case MO_REDUCE_MIN: return x == y ? dy / (float)extra : 0;
    case MO_REDUCE_PROD: return x == 0 ? dy * (float)extra : dy * y / x;
    case MO_REDUCE_L1: return x > 0 ? dy : x < 0 ? -dy : 0;
    case MO_REDUCE_L2: return y > 0 ? dy * x / y : 0;
    case MO_REDUCE_SUM_SQUARE: return 2 * x * dy;
    case MO_REDUCE_LOG_SUM: return dy / expf(y);
    case MO_REDUCE_LOG_SUM_EXP: return dy * expf(x - y);
    default: return dy;
    }
}

/* The number of elements equal to y, or the product of the elements with one zero left out (0: two zeros). */
static double extra_of(const struct grad_work *w, int64_t at, float y)
{
    const struct mo_loop *r = &w->r.reduced;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], step = r->stride[0][r->rank - 1];
    double ties = 0, product = 1;
    int zeros = 0;
    mo_loop_seek(r, 0, index, offset);
    for (int64_t i = 0; i < r->n_rows; i++, mo_loop_next(r, index, offset))
        for (int64_t k = 0; k < r->row; k++) {
            float v = w->x[at + offset[0] + k * step];
            ties += v == y;
            if (v != 0)
                product *= v;
            else
                zeros++;
        }
    return w->r.f == MO_REDUCE_PROD ? (zeros == 1 ? product : 0) : ties;
}

static void grad_of_one(const struct grad_work *w, int64_t at, float y, float dy)
{
    const struct mo_loop *r = &w->r.reduced;
    enum mo_reduce f = w->r.f;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], step = r->stride[0][r->rank - 1];
    bool wants_extra = f == MO_REDUCE_MAX || f == MO_REDUCE_MIN || (f == MO_REDUCE_PROD && y == 0);
    double extra = wants_extra ? extra_of(w, at, y) : 0;
    mo_loop_seek(r, 0, index, offset);
    for (int64_t i = 0; i < r->n_rows; i++, mo_loop_next(r, index, offset)) {
        const float *x = w->x + at + offset[0];
        float *dx = w->dx + at + offset[0];
        for (int64_t k = 0; k < r->row; k++) {
            float d = slope(f, x[k * step], y, dy, w->r.count, extra);
            dx[k * step] = w->add ? dx[k * step] + d : d;
        }
    }
}

/* Units: kept rows. */
static void grad_rows(void *arg, int64_t begin, int64_t end)
{
    const struct grad_work *w = arg;
    const struct mo_loop *k = &w->r.kept;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], sx = k->stride[0][k->rank - 1];
    mo_loop_seek(k, begin, index, offset);
    for (int64_t i = begin; i < end; i++, mo_loop_next(k, index, offset))
        for (int64_t j = 0; j < k->row; j++)
            grad_of_one(w, offset[0] + j * sx, w->y[i * k->row + j], w->dy[i * k->row + j]);
}

void mo_ref_reduce_grad(struct mo_device *dev, enum mo_reduce f, int rank, const int64_t *dims, const bool *is_reduced,
                        const float *x, const float *y, const float *dy, float *dx, bool add)
{
    struct grad_work w = { .r = { .f = f }, .x = x, .y = y, .dy = dy, .dx = dx, .add = add };
    part_axes(&w.r, rank, dims, is_reduced);
    mo_split(dev, w.r.kept.n_rows, mo_split_grain(w.r.kept.row * w.r.count), grad_rows, &w);
}

/* ---- arg max ---- */

/* NaN counts as the largest and the smallest, as in numpy. */
#define ARGMAX(T)                                                                                               \
    {                                                                                                           \
        const T *in = (const T *)x + o * axis * inner + i;                                                      \
        T best = in[0];                                                                                         \
        for (int64_t a = 1; a < axis; a++) {                                                                    \
            T v = in[a * inner];                                                                                \
            bool better = smallest ? v < best : v > best, same = v == best;                                     \
            better = (better || v != v) && best == best;                                                        \
            if (better || (last_index && same))                                                                 \
                best = v, at = a;                                                                               \
        }                                                                                                       \
        break;                                                                                                  \
    }

void mo_ref_argmax(struct mo_device *dev, int dtype, int64_t outer, int64_t axis, int64_t inner, bool smallest,
                   bool last_index, const void *x, int64_t *y)
{
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t at = 0;
            switch (dtype) {
            case 1: ARGMAX(float)
            case 2: case 9: ARGMAX(uint8_t)
            case 3: ARGMAX(int8_t)
            case 4: ARGMAX(uint16_t)
            case 5: ARGMAX(int16_t)
            case 6: ARGMAX(int32_t)
            case 7: ARGMAX(int64_t)
            case 11: ARGMAX(double)
            case 12: ARGMAX(uint32_t)
            case 13: ARGMAX(uint64_t)
            default:
                mo_device_latch(dev, "argmax: no kernel for element type %d", dtype);
                return;
            }
            y[o * inner + i] = at;
        }
}
