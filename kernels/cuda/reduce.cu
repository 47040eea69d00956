/* reduce.cu - reductions over any set of axes, their gradients, sums of squares,
 * ranges, histograms. Floats are summed in float64 over fixed trees; integers wrap. */
#include "kernels/cuda/device.cuh"

/* The axes of a dense x parted into kept and reduced ones. */
struct parted {
    struct mo_walk kept, reduced;       /* operand 0: x */
    bool side_by_side;                  /* neighbouring results read neighbouring memory */
};

static struct parted part_axes(int rank, const int64_t *dims, const bool *is_reduced)
{
    int64_t d[2][MO_K_MAX_RANK], s[2][MO_K_MAX_RANK], stride = 1;
    int n[2] = { 0, 0 };
    for (int k = 0; k < rank; k++)
        n[is_reduced[k]]++;
    int at[2] = { n[0], n[1] };
    for (int k = rank - 1; k >= 0; k--) {
        int side = is_reduced[k];
        d[side][--at[side]] = dims[k];
        s[side][at[side]] = stride;
        stride *= dims[k];
    }
    const int64_t *const of_kept[] = { s[0] }, *const of_reduced[] = { s[1] };
    struct parted p = { mo_walk_of(n[0], d[0], 1, of_kept), mo_walk_of(n[1], d[1], 1, of_reduced), false };
    p.side_by_side = p.kept.rank && p.kept.stride[0][p.kept.rank - 1] == 1;
    return p;
}

static __device__ int64_t place(const struct mo_walk &w, int64_t i)
{
    int64_t at[1];
    mo_walk_to<1>(w, i, at);
    return at[0];
}

/* ---- floats -------------------------------------------------------------------------------------- */

static double first_of(enum mo_reduce f)
{
    return f == MO_REDUCE_MAX ? -INFINITY : f == MO_REDUCE_MIN ? INFINITY : f == MO_REDUCE_PROD;
}

struct join_real {
    enum mo_reduce f;
    __device__ double operator()(double u, double v) const
    {
        switch (f) {
        case MO_REDUCE_MAX: return v > u || v != v ? v : u;
        case MO_REDUCE_MIN: return v < u || v != v ? v : u;
        case MO_REDUCE_PROD: return u * v;
        default: return u + v;
        }
    }
};

/* What goes into the sum; top is the largest of LOG_SUM_EXP, and an infinite top must not make inf - inf. */
static __device__ double term_of(enum mo_reduce f, double v, double top)
{
    switch (f) {
    case MO_REDUCE_L1: return fabs(v);
    case MO_REDUCE_L2: case MO_REDUCE_SUM_SQUARE: return v * v;
    case MO_REDUCE_LOG_SUM_EXP: return isinf(top) ? (double)(v == top && top > 0) : exp(v - top);
    default: return v;
    }
}

static __device__ double result_of(enum mo_reduce f, double acc, double top, int64_t count)
{
    switch (f) {
    case MO_REDUCE_MEAN: return acc / (double)count;
    case MO_REDUCE_L2: return sqrt(acc);
    case MO_REDUCE_LOG_SUM: return log(acc);
    case MO_REDUCE_LOG_SUM_EXP: return isinf(top) ? top : top + log(acc);
    default: return acc;
    }
}

template <class T>
static void reduce_real(struct mo_device *dev, enum mo_reduce f, const struct parted &parts, const T *x, T *y)
{
    struct parted p = parts;
    bool by_exp = f == MO_REDUCE_LOG_SUM_EXP;
    mo_temp<double> tops(dev, by_exp ? p.kept.n : 0);
    double *top = tops.at;
    if (by_exp && p.kept.n > 0 && !top)
        return;
    if (by_exp)
        mo_fold(dev, p.kept.n, p.reduced.n, p.side_by_side, first_of(MO_REDUCE_MAX),
                [=] __device__(int64_t out, int64_t k) { return (double)x[place(p.kept, out) + place(p.reduced, k)]; },
                join_real{ MO_REDUCE_MAX }, [=] __device__(int64_t out, double v) { top[out] = v; });
    mo_fold(dev, p.kept.n, p.reduced.n, p.side_by_side, first_of(f),
            [=] __device__(int64_t out, int64_t k) {
                return term_of(f, (double)x[place(p.kept, out) + place(p.reduced, k)], by_exp ? top[out] : 0.0);
            },
            join_real{ f },
            [=] __device__(int64_t out, double v) {
                y[out] = (T)result_of(f, v, by_exp ? top[out] : 0.0, p.reduced.n);
            });
}

/* ---- integers ------------------------------------------------------------------------------------- */

struct join_whole {
    enum mo_reduce f;
    __device__ uint64_t operator()(uint64_t u, uint64_t v) const
    {
        switch (f) {
        case MO_REDUCE_MAX: return (int64_t)v > (int64_t)u ? v : u;
        case MO_REDUCE_MIN: return (int64_t)v < (int64_t)u ? v : u;
        case MO_REDUCE_PROD: return u * v;
        default: return u + v;
        }
    }
};

static __device__ uint64_t whole_term(enum mo_reduce f, int64_t v)
{
    uint64_t w = (uint64_t)v;
    switch (f) {
    case MO_REDUCE_L1: return v < 0 ? 0 - w : w;
    case MO_REDUCE_L2: case MO_REDUCE_SUM_SQUARE: return w * w;
    default: return w;
    }
}

static __device__ int64_t whole_result(enum mo_reduce f, uint64_t acc, int64_t count)
{
    switch (f) {
    case MO_REDUCE_MEAN: return count ? (int64_t)acc / count : 0;
    case MO_REDUCE_L2: return (int64_t)sqrt((double)acc);
    case MO_REDUCE_LOG_SUM: return (int64_t)log((double)(int64_t)acc);
    default: return (int64_t)acc;
    }
}

template <class T>
static void reduce_whole(struct mo_device *dev, enum mo_reduce f, const struct parted &parts, const T *x, T *y)
{
    struct parted p = parts;
    if (f == MO_REDUCE_LOG_SUM_EXP) {
        mo_fold(dev, p.kept.n, p.reduced.n, p.side_by_side, 0.0,
                [=] __device__(int64_t out, int64_t k) { return exp((double)x[place(p.kept, out) + place(p.reduced, k)]); },
                mo_sum(), [=] __device__(int64_t out, double v) { y[out] = (T)(int64_t)log(v); });
        return;
    }
    uint64_t first = f == MO_REDUCE_MAX   ? (uint64_t)INT64_MIN
                     : f == MO_REDUCE_MIN ? (uint64_t)INT64_MAX
                                          : f == MO_REDUCE_PROD;
    mo_fold(dev, p.kept.n, p.reduced.n, p.side_by_side, first,
            [=] __device__(int64_t out, int64_t k) {
                return whole_term(f, (int64_t)x[place(p.kept, out) + place(p.reduced, k)]);
            },
            join_whole{ f },
            [=] __device__(int64_t out, uint64_t v) { y[out] = (T)whole_result(f, v, p.reduced.n); });
}

void mo_cuda_reduce(struct mo_device *dev, enum mo_reduce f, int dtype, int rank, const int64_t *dims,
                    const bool *is_reduced, const void *x, void *y)
{
    struct parted p = part_axes(rank, dims, is_reduced);
    switch (dtype) {
    case 1: reduce_real(dev, f, p, (const float *)x, (float *)y); break;
    case 11: reduce_real(dev, f, p, (const double *)x, (double *)y); break;
    case 6: reduce_whole(dev, f, p, (const int32_t *)x, (int32_t *)y); break;
    case 7: reduce_whole(dev, f, p, (const int64_t *)x, (int64_t *)y); break;
    default: mo_cuda_latch(dev, "reduce: no kernel for element type %d", dtype);
    }
}

/* ---- gradient -------------------------------------------------------------------------------------- */

/* d y / d x at one element, times dy. Ties of max and min share alike; `extra` is their number, or for PROD the
 * product of the others where that is not y / x. */
static __device__ float slope_of(enum mo_reduce f, float x, float y, float dy, int64_t count, double extra)
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

/* Ties of the extreme; or product of what is not zero, and the number of zeros. */
struct extra {
    double ties, product, zeros;
};
struct join_extra {
    __device__ struct extra operator()(struct extra u, struct extra v) const
    {
        return { u.ties + v.ties, u.product * v.product, u.zeros + v.zeros };
    }
};

static void find_extra(struct mo_device *dev, enum mo_reduce f, const struct parted &parts, const float *x,
                       const float *y, double *to)
{
    struct parted p = parts;
    mo_fold(dev, p.kept.n, p.reduced.n, p.side_by_side, extra{ 0, 1, 0 },
            [=] __device__(int64_t out, int64_t k) {
                float v = x[place(p.kept, out) + place(p.reduced, k)];
                return extra{ (double)(v == y[out]), v != 0 ? (double)v : 1.0, (double)(v == 0) };
            },
            join_extra(),
            [=] __device__(int64_t out, struct extra e) {
                to[out] = f != MO_REDUCE_PROD ? e.ties : e.zeros == 1 ? e.product : 0;
            });
}

void mo_cuda_reduce_grad(struct mo_device *dev, enum mo_reduce f, int rank, const int64_t *dims, const bool *is_reduced,
                         const float *x, const float *y, const float *dy, float *dx, bool add)
{
    struct parted p = part_axes(rank, dims, is_reduced);
    bool wants_extra = f == MO_REDUCE_MAX || f == MO_REDUCE_MIN || f == MO_REDUCE_PROD;
    mo_temp<double> extras(dev, wants_extra ? p.kept.n : 0);
    double *extra_of = extras.at;
    if (wants_extra && p.kept.n > 0 && !extra_of)
        return;
    if (wants_extra)
        find_extra(dev, f, p, x, y, extra_of);
    int64_t n = p.reduced.n, n_kept = p.kept.n;
    mo_each(dev, n_kept * n, [=] __device__(int64_t u) {
        /* neighbouring threads along the axis that x runs along */
        int64_t out = p.side_by_side ? u % n_kept : u / n, k = p.side_by_side ? u / n_kept : u % n;
        int64_t at = place(p.kept, out) + place(p.reduced, k);
        float d = slope_of(f, x[at], y[out], dy[out], n, wants_extra ? extra_of[out] : 0.0);
        dx[at] = add ? dx[at] + d : d;
    });
}

/* ---- of everything ------------------------------------------------------------------------------------ */

void mo_cuda_sum_squares(struct mo_device *dev, size_t n, const float *x, double *sum)
{
    mo_in_out<double> total(dev, sum, 1);
    double *to = total.at;
    mo_fold(dev, 1, (int64_t)n, false, 0.0,
            [=] __device__(int64_t out, int64_t k) { return (double)x[k] * x[k]; }, mo_sum(),
            [=] __device__(int64_t out, double v) { *to = v; });
}

struct span {
    float low, high;
    unsigned long long n_nan;
};
struct join_span {
    __device__ struct span operator()(struct span u, struct span v) const
    {
        return { v.low < u.low ? v.low : u.low, v.high > u.high ? v.high : u.high, u.n_nan + v.n_nan };
    }
};

/* NaN compares false and so changes neither end; it is counted. */
void mo_cuda_range(struct mo_device *dev, size_t n, const float *x, float *range, uint64_t *n_nan)
{
    mo_in_out<float> ends(dev, range, 2);
    mo_in_out<uint64_t> number(dev, n_nan, 1);
    float *to = ends.at;
    uint64_t *count = number.at;
    mo_fold(dev, 1, (int64_t)n, false, span{ INFINITY, -INFINITY, 0 },
            [=] __device__(int64_t out, int64_t k) {
                float v = x[k];
                return v != v ? span{ INFINITY, -INFINITY, 1 } : span{ v, v, 0 };
            },
            join_span(),
            [=] __device__(int64_t out, struct span s) {
                to[0] = s.low < to[0] ? s.low : to[0];
                to[1] = s.high > to[1] ? s.high : to[1];
                *count += s.n_nan;
            });
}

/* Counts are integers: the order of the additions does not show. */
void mo_cuda_histogram(struct mo_device *dev, size_t n, const float *x, float low, float width, size_t n_bins,
                       uint64_t *counts)
{
    mo_in_out<uint64_t> bins(dev, counts, (int64_t)n_bins);
    unsigned long long *to = (unsigned long long *)bins.at;
    float last = (float)(n_bins - 1);
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float at = floorf((x[i] - low) / width);
        at = at > 0 ? at : 0;       /* NaN counts as low */
        atomicAdd(to + (size_t)(at < last ? at : last), 1ull);
    });
}
