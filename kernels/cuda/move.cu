/* move.cu - strided copies and sums, gather and scatter, resampling of one axis.
 *
 * Where several elements go to one place, one thread owns that place (or the line
 * it lies on) and takes them in order: no atomic additions, the same bits every time. */
#include "kernels/cuda/device.cuh"

template <class E> static void copy_of(struct mo_device *dev, const struct mo_walk &walk, const E *x, E *y)
{
    struct mo_walk w = walk;
    mo_each(dev, w.n, [=] __device__(int64_t i) {
        int64_t at[2];
        mo_walk_to<2>(w, i, at);
        y[at[0]] = x[at[1]];
    });
}

/* The axes sorted by y's stride, largest first: neighbouring threads then write neighbouring memory. */
static int order_by_y(int rank, const int64_t *dims, const int64_t *stride_x, const int64_t *stride_y, int64_t *d,
                      int64_t *sx, int64_t *sy)
{
    for (int k = 0; k < rank; k++) {
        int at = k;
        for (; at > 0 && llabs(stride_y[k]) > llabs(sy[at - 1]); at--)
            d[at] = d[at - 1], sx[at] = sx[at - 1], sy[at] = sy[at - 1];
        d[at] = dims[k], sx[at] = stride_x[k], sy[at] = stride_y[k];
    }
    return rank;
}

void mo_cuda_copy_strided(struct mo_device *dev, size_t elem_bytes, int rank, const int64_t *dims,
                          const int64_t *stride_x, const int64_t *stride_y, const void *x, void *y)
{
    int64_t d[MO_K_MAX_RANK], sx[MO_K_MAX_RANK], sy[MO_K_MAX_RANK];
    order_by_y(rank, dims, stride_x, stride_y, d, sx, sy);
    const int64_t *const strides[] = { sy, sx };
    struct mo_walk w = mo_walk_of(rank, d, 2, strides);
    MO_BY_BYTES(elem_bytes, copy_of(dev, w, (const E *)x, (E *)y);)
}

/* Axes along which y does not move are summed over. */
void mo_cuda_add_strided(struct mo_device *dev, int rank, const int64_t *dims, const int64_t *stride_x,
                         const int64_t *stride_y, const float *x, float *y)
{
    int64_t d[2][MO_K_MAX_RANK], sx[2][MO_K_MAX_RANK], sy[2][MO_K_MAX_RANK];
    int n[2] = { 0, 0 };
    for (int k = 0; k < rank; k++) {
        int part = stride_y[k] == 0;
        d[part][n[part]] = dims[k];
        sx[part][n[part]] = stride_x[k];
        sy[part][n[part]++] = stride_y[k];
    }
    const int64_t *const of_kept[] = { sy[0], sx[0] }, *const of_summed[] = { sx[1] };
    struct mo_walk kept = mo_walk_of(n[0], d[0], 2, of_kept), summed = mo_walk_of(n[1], d[1], 1, of_summed);
    if (summed.n == 0)
        return;
    if (summed.n == 1) {
        mo_each(dev, kept.n, [=] __device__(int64_t i) {
            int64_t at[2];
            mo_walk_to<2>(kept, i, at);
            y[at[0]] += x[at[1]];
        });
        return;
    }
    bool side_by_side = kept.rank && kept.stride[1][kept.rank - 1] == 1;
    mo_fold(dev, kept.n, summed.n, side_by_side, 0.0,
            [=] __device__(int64_t out, int64_t k) {
                int64_t at[2], in[1];
                mo_walk_to<2>(kept, out, at);
                mo_walk_to<1>(summed, k, in);
                return (double)x[at[1] + in[0]];
            },
            mo_sum(),
            [=] __device__(int64_t out, double sum) {
                int64_t at[2];
                mo_walk_to<2>(kept, out, at);
                y[at[0]] += (float)sum;
            });
}

/* ---- gather ------------------------------------------------------------------------------------ */

template <class E>
static void gather_of(struct mo_device *dev, int64_t outer, int64_t axis, int64_t n_index, int64_t inner, const E *x,
                      const int64_t *index, E *y)
{
    struct mo_fault *fault = dev->fault;
    mo_each(dev, outer * n_index * inner, [=] __device__(int64_t u) {
        int64_t row = u / inner, at = mo_checked(fault, index[row % n_index], axis);
        y[u] = at < 0 ? E{} : x[(row / n_index * axis + at) * inner + u % inner];
    });
}

void mo_cuda_gather(struct mo_device *dev, size_t elem_bytes, int64_t outer, int64_t axis, int64_t n_index,
                    int64_t inner, const void *x, const int64_t *index, void *y)
{
    mo_staged<int64_t> table(dev, index, n_index);
    MO_BY_BYTES(elem_bytes, gather_of(dev, outer, axis, n_index, inner, (const E *)x, table.at, (E *)y);)
}

/* A thread owns element k of all rows of one outer part. */
void mo_cuda_gather_grad(struct mo_device *dev, int64_t outer, int64_t axis, int64_t n_index, int64_t inner,
                         const float *dy, const int64_t *index, float *dx)
{
    mo_staged<int64_t> table(dev, index, n_index);
    const int64_t *index_of = table.at;
    struct mo_fault *fault = dev->fault;
    mo_each(dev, outer * inner, [=] __device__(int64_t u) {
        int64_t o = u / inner, k = u % inner;
        for (int64_t i = 0; i < n_index; i++) {
            int64_t at = mo_checked(fault, index_of[i], axis);
            if (at >= 0)
                dx[(o * axis + at) * inner + k] += dy[(o * n_index + i) * inner + k];
        }
    });
}

/* ---- by element ----------------------------------------------------------------------------------- */

/* All axes but one, by the strides of the side that is indexed (operand 0) and of the dense side (operand 1). */
struct element_walk {
    struct mo_walk rest;
    int64_t n_along, along, dense_along;
};

static struct element_walk element_walk_of(int rank, const int64_t *dims, const int64_t *stride, int axis)
{
    int64_t d[MO_K_MAX_RANK], s[MO_K_MAX_RANK], dense[MO_K_MAX_RANK], step = 1;
    struct element_walk w = { {}, dims[axis], stride[axis], 1 };
    for (int k = rank - 1; k >= 0; k--) {
        d[k] = k == axis ? 1 : dims[k];
        s[k] = stride[k];
        dense[k] = step;
        if (k == axis)
            w.dense_along = step;
        step *= dims[k];
    }
    const int64_t *const strides[] = { s, dense };
    w.rest = mo_walk_of(rank, d, 2, strides);
    return w;
}

template <class E>
static void gather_elements_of(struct mo_device *dev, const struct element_walk &walk, int64_t axis_dim, const E *x,
                               const int64_t *index, E *y)
{
    struct element_walk w = walk;
    struct mo_fault *fault = dev->fault;
    mo_each(dev, w.rest.n * w.n_along, [=] __device__(int64_t u) {
        int64_t at[2];
        mo_walk_to<2>(w.rest, u % w.rest.n, at);
        int64_t dense = at[1] + u / w.rest.n * w.dense_along, to = mo_checked(fault, index[dense], axis_dim);
        y[dense] = to < 0 ? E{} : x[at[0] + to * w.along];
    });
}

void mo_cuda_gather_elements(struct mo_device *dev, size_t elem_bytes, int rank, const int64_t *dims,
                             const int64_t *stride_x, int axis, int64_t axis_dim, const void *x, const int64_t *index,
                             void *y)
{
    struct element_walk w = element_walk_of(rank, dims, stride_x, axis);
    MO_BY_BYTES(elem_bytes, gather_elements_of(dev, w, axis_dim, (const E *)x, index, (E *)y);)
}

/* ---- scatter ---------------------------------------------------------------------------------------- */

/* Products and sums of integers wrap. */
template <class T> static __device__ inline auto summand(T x) { return mo_load(x); }
static __device__ inline uint32_t summand(int32_t x) { return (uint32_t)x; }
static __device__ inline uint64_t summand(int64_t x) { return (uint64_t)x; }

template <class T> static __device__ void step(enum mo_scatter f, T *at, T v)
{
    switch (f) {
    case MO_SCATTER_ADD: *at = mo_stored<T>::of(summand(*at) + summand(v)); break;
    case MO_SCATTER_MUL: *at = mo_stored<T>::of(summand(*at) * summand(v)); break;
    case MO_SCATTER_MIN: *at = mo_load(v) < mo_load(*at) ? v : *at; break;
    case MO_SCATTER_MAX: *at = mo_load(v) > mo_load(*at) ? v : *at; break;
    default: *at = v;
    }
}

#define SCATTER_TYPES                                                                                            \
    CASE(1, float) CASE(2, uint8_t) CASE(3, int8_t) CASE(4, uint16_t) CASE(5, int16_t) CASE(6, int32_t)          \
    CASE(7, int64_t) CASE(9, uint8_t) CASE(10, __half) CASE(11, double) CASE(12, uint32_t) CASE(13, uint64_t)    \
    CASE(16, __nv_bfloat16)

/* One line along axis a thread: only that line of x goes to that line of y. */
template <class T>
static void scatter_lines(struct mo_device *dev, enum mo_scatter f, const struct element_walk &walk, int64_t axis_dim,
                          const int64_t *index, const T *x, T *y)
{
    struct element_walk w = walk;
    struct mo_fault *fault = dev->fault;
    mo_each(dev, w.rest.n, [=] __device__(int64_t u) {
        int64_t at[2];
        mo_walk_to<2>(w.rest, u, at);
        for (int64_t a = 0; a < w.n_along; a++) {
            int64_t dense = at[1] + a * w.dense_along, to = mo_checked(fault, index[dense], axis_dim);
            if (to >= 0)
                step(f, y + at[0] + to * w.along, x[dense]);
        }
    });
}

void mo_cuda_scatter_elements(struct mo_device *dev, int dtype, enum mo_scatter f, int rank, const int64_t *dims,
                              const int64_t *stride_y, int axis, int64_t axis_dim, const int64_t *index, const void *x,
                              void *y)
{
    struct element_walk w = element_walk_of(rank, dims, stride_y, axis);
    switch (dtype) {
#define CASE(number, T) case number: scatter_lines(dev, f, w, axis_dim, index, (const T *)x, (T *)y); break;
    SCATTER_TYPES
#undef CASE
    default: mo_cuda_latch(dev, "scatter: no kernel for element type %d", dtype);
    }
}

/* ---- by coordinates ------------------------------------------------------------------------------------ */

struct places {
    int n_coords;
    int64_t dims[MO_K_MAX_RANK], rows;
};

static struct places places_of(int n_coords, const int64_t *dims)
{
    struct places p = { n_coords, {}, 1 };
    for (int k = 0; k < n_coords; k++)
        p.rows *= p.dims[k] = dims[k];
    return p;
}

/* The row that the coordinates name; -1 out of range. */
static __device__ int64_t row_of(const struct places &p, struct mo_fault *fault, const int64_t *index)
{
    int64_t row = 0;
    for (int k = 0; k < p.n_coords; k++) {
        int64_t at = mo_checked(fault, index[k], p.dims[k]);
        if (at < 0)
            return -1;
        row = row * p.dims[k] + at;
    }
    return row;
}

template <class E>
static void gather_nd_of(struct mo_device *dev, int64_t batch, int64_t n_index, struct places p, int64_t inner,
                         const E *x, const int64_t *index, E *y)
{
    struct mo_fault *fault = dev->fault;
    mo_each(dev, batch * n_index * inner, [=] __device__(int64_t u) {
        int64_t i = u / inner, row = row_of(p, fault, index + i * p.n_coords);
        y[u] = row < 0 ? E{} : x[(i / n_index * p.rows + row) * inner + u % inner];
    });
}

void mo_cuda_gather_nd(struct mo_device *dev, size_t elem_bytes, int64_t batch, int64_t n_index, int n_coords,
                       const int64_t *dims, int64_t inner, const void *x, const int64_t *index, void *y)
{
    struct places p = places_of(n_coords, dims);
    MO_BY_BYTES(elem_bytes, gather_nd_of(dev, batch, n_index, p, inner, (const E *)x, index, (E *)y);)
}

/* A thread owns element k of all rows of one batch. */
template <class T>
static void scatter_nd_of(struct mo_device *dev, enum mo_scatter f, int64_t batch, int64_t n_index, struct places p,
                          int64_t inner, const int64_t *index, const T *x, T *y)
{
    struct mo_fault *fault = dev->fault;
    mo_each(dev, batch * inner, [=] __device__(int64_t u) {
        int64_t b = u / inner, k = u % inner;
        for (int64_t i = b * n_index; i < (b + 1) * n_index; i++) {
            int64_t row = row_of(p, fault, index + i * p.n_coords);
            if (row >= 0)
                step(f, y + (b * p.rows + row) * inner + k, x[i * inner + k]);
        }
    });
}

void mo_cuda_scatter_nd(struct mo_device *dev, int dtype, enum mo_scatter f, int64_t batch, int64_t n_index,
                        int n_coords, const int64_t *dims, int64_t inner, const int64_t *index, const void *x, void *y)
{
    struct places p = places_of(n_coords, dims);
    switch (dtype) {
#define CASE(number, T) case number: scatter_nd_of(dev, f, batch, n_index, p, inner, index, (const T *)x, (T *)y); break;
    SCATTER_TYPES
#undef CASE
    default: mo_cuda_latch(dev, "scatter: no kernel for element type %d", dtype);
    }
}

/* ---- resampling ------------------------------------------------------------------------------------------- */

void mo_cuda_resample(struct mo_device *dev, int64_t outer, int64_t n_x, int64_t inner, int64_t n_y, int n_taps,
                      const int32_t *from, const float *weight, const float *x, float *y)
{
    mo_staged<int32_t> taps(dev, from, n_y * n_taps);
    mo_staged<float> weights(dev, weight, n_y * n_taps);
    const int32_t *tap = taps.at;
    const float *factor = weights.at;
    mo_each(dev, outer * n_y * inner, [=] __device__(int64_t u) {
        int64_t i = u % inner, j = u / inner % n_y, o = u / inner / n_y;
        float sum = 0;
        for (int t = 0; t < n_taps; t++)
            sum += factor[j * n_taps + t] * x[(o * n_x + tap[j * n_taps + t]) * inner + i];
        y[u] = sum;
    });
}

/* A thread owns the line along the axis, since several y's add to one x. */
void mo_cuda_resample_grad(struct mo_device *dev, int64_t outer, int64_t n_x, int64_t inner, int64_t n_y, int n_taps,
                           const int32_t *from, const float *weight, const float *dy, float *dx)
{
    mo_staged<int32_t> taps(dev, from, n_y * n_taps);
    mo_staged<float> weights(dev, weight, n_y * n_taps);
    const int32_t *tap = taps.at;
    const float *factor = weights.at;
    mo_each(dev, outer * inner, [=] __device__(int64_t u) {
        int64_t o = u / inner, i = u % inner;
        for (int64_t j = 0; j < n_y; j++)
            for (int t = 0; t < n_taps; t++)
                dx[(o * n_x + tap[j * n_taps + t]) * inner + i] +=
                    factor[j * n_taps + t] * dy[(o * n_y + j) * inner + i];
    });
}
