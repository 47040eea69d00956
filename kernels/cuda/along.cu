/* along.cu - making tensors (ranges, one hot, triangles, places) and walking along
 * an axis (largest, running sums, the k best). */
#include "kernels/cuda/device.cuh"

/* ---- making ------------------------------------------------------------------------------------ */

template <class T> static void arange_real(struct mo_device *dev, double start, double delta, size_t n, T *y)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = (T)(start + (double)i * delta); });
}
template <class T> static void arange_half(struct mo_device *dev, double start, double delta, size_t n, T *y)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = mo_stored<T>::of((float)(start + (double)i * delta)); });
}
template <class T> static void arange_whole(struct mo_device *dev, double start, double delta, size_t n, T *y)
{
    uint64_t first = (uint64_t)(int64_t)start, step = (uint64_t)(int64_t)delta;
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = (T)(first + (uint64_t)i * step); });
}

void mo_cuda_arange(struct mo_device *dev, int dtype, double start, double delta, size_t n, void *y)
{
    switch (dtype) {
    case 1: arange_real(dev, start, delta, n, (float *)y); break;
    case 2: case 3: arange_whole(dev, start, delta, n, (uint8_t *)y); break;
    case 4: case 5: arange_whole(dev, start, delta, n, (uint16_t *)y); break;
    case 6: case 12: arange_whole(dev, start, delta, n, (uint32_t *)y); break;
    case 7: case 13: arange_whole(dev, start, delta, n, (uint64_t *)y); break;
    case 10: arange_half(dev, start, delta, n, (__half *)y); break;
    case 11: arange_real(dev, start, delta, n, (double *)y); break;
    case 16: arange_half(dev, start, delta, n, (__nv_bfloat16 *)y); break;
    default: mo_cuda_latch(dev, "arange: no kernel for element type %d", dtype);
    }
}

template <class E>
static void one_hot_of(struct mo_device *dev, int64_t outer, int64_t depth, int64_t inner, const int64_t *index,
                       const E *values, E *y)
{
    mo_staged<E> pair(dev, values, 2);
    const E *of = pair.at;
    mo_each(dev, outer * depth * inner, [=] __device__(int64_t u) {
        int64_t i = u % inner, d = u / inner % depth, o = u / inner / depth, at = index[o * inner + i];
        y[u] = of[(at < 0 ? at + depth : at) == d];
    });
}

void mo_cuda_one_hot(struct mo_device *dev, size_t elem_bytes, int64_t outer, int64_t depth, int64_t inner,
                     const int64_t *index, const void *values, void *y)
{
    MO_BY_BYTES(elem_bytes, one_hot_of(dev, outer, depth, inner, index, (const E *)values, (E *)y);)
}

template <class E>
static void trilu_of(struct mo_device *dev, bool upper, int64_t k, int64_t n, int64_t rows, int64_t columns, const E *x, E *y)
{
    mo_each(dev, n, [=] __device__(int64_t u) {
        int64_t place = u % columns - u / columns % rows;
        y[u] = (upper ? place >= k : place <= k) ? x[u] : E{};
    });
}

void mo_cuda_trilu(struct mo_device *dev, size_t elem_bytes, bool upper, int64_t k, int64_t batch, int64_t rows,
                   int64_t columns, const void *x, void *y)
{
    int64_t n = batch * rows * columns;
    MO_BY_BYTES(elem_bytes, trilu_of(dev, upper, k, n, rows, columns, (const E *)x, (E *)y);)
}

/* By bits: exponent all ones is NaN or infinity. Float8: codes of NaN and infinity by the format. */
static __device__ unsigned class_of(int dtype, const void *x, int64_t i)
{
    const unsigned is_nan = 1, plus = 2, minus = 4;
    uint8_t code = dtype >= 17 ? ((const uint8_t *)x)[i] : 0;
    double v = 0;
    switch (dtype) {
    case 1: v = ((const float *)x)[i]; break;
    case 10: v = __half2float(((const __half *)x)[i]); break;
    case 11: v = ((const double *)x)[i]; break;
    case 16: v = __bfloat162float(((const __nv_bfloat16 *)x)[i]); break;
    case 17: return (code & 0x7f) == 0x7f ? is_nan : 0;
    case 18: case 20: return code == 0x80 ? is_nan : 0;
    default: return (code & 0x7f) > 0x7c ? is_nan : code == 0x7c ? plus : code == 0xfc ? minus : 0;
    }
    return isnan(v) ? is_nan : v == INFINITY ? plus : v == -INFINITY ? minus : 0;
}

void mo_cuda_classify(struct mo_device *dev, int dtype, unsigned which, size_t n, const void *x, uint8_t *y)
{
    if (dtype != 1 && dtype != 10 && dtype != 11 && (dtype < 16 || dtype > 20)) {
        mo_cuda_latch(dev, "classify: no kernel for element type %d", dtype);
        return;
    }
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = (class_of(dtype, x, i) & which) != 0; });
}

/* ---- places of what is not 0 ----------------------------------------------------------------------- */

/* Of a float the sign does not count: -0 is 0. */
static __device__ bool is_set(int dtype, const void *x, int64_t i)
{
    switch (dtype) {
    case 1: return (((const uint32_t *)x)[i] & 0x7fffffffu) != 0;
    case 11: return (((const uint64_t *)x)[i] & 0x7fffffffffffffffull) != 0;
    case 10: case 16: return (((const uint16_t *)x)[i] & 0x7fffu) != 0;
    case 7: case 13: return ((const uint64_t *)x)[i] != 0;
    case 6: case 12: return ((const uint32_t *)x)[i] != 0;
    case 4: case 5: return ((const uint16_t *)x)[i] != 0;
    default: return ((const uint8_t *)x)[i] != 0;
    }
}

struct int_shape {
    int rank;
    int64_t n, dims[MO_K_MAX_RANK];
};

/* One block goes through x in order, so that places come out in order: in each stretch of THREADS elements a
 * thread's place is the number found before it. */
static __global__ void nonzero_kernel(int dtype, struct int_shape s, int64_t n_found, const void *x, int64_t *y,
                                      struct mo_fault *fault)
{
    __shared__ int before[THREADS];
    int t = (int)threadIdx.x;
    int64_t found = 0;
    for (int64_t start = 0; start < s.n; start += THREADS) {
        int64_t i = start + t;
        bool here = i < s.n && is_set(dtype, x, i);
        before[t] = here;
        __syncthreads();
        for (int step = 1; step < THREADS; step *= 2) {
            int more = t >= step ? before[t - step] : 0;
            __syncthreads();
            before[t] += more;
            __syncthreads();
        }
        int64_t at = found + before[t] - 1;
        if (here && at < n_found)
            for (int64_t k = s.rank - 1, rest = i; k >= 0; k--) {
                y[k * n_found + at] = rest % s.dims[k];
                rest /= s.dims[k];
            }
        else if (here && atomicCAS(&fault->is_set, 0, 1) == 0)
            fault->dim = -1;
        found += before[THREADS - 1];
        __syncthreads();
    }
}

void mo_cuda_nonzero(struct mo_device *dev, int dtype, int rank, const int64_t *dims, int64_t n_found, const void *x,
                     int64_t *y)
{
    struct int_shape s = { rank, 1, {} };
    for (int k = 0; k < rank; k++)
        s.n *= s.dims[k] = dims[k];
    if (s.n == 0)
        return;
    mo_cuda_use(dev);
    MO_LAUNCH(dev->stream, 1, THREADS, nonzero_kernel, dtype, s, n_found, x, y, dev->fault);
    mo_cuda_launched(dev);
}

/* ---- along an axis: one line a thread ------------------------------------------------------------------- */

/* NaN counts as the largest and the smallest, as in numpy. */
template <class T>
static void argmax_of(struct mo_device *dev, int64_t outer, int64_t axis, int64_t inner, bool smallest, bool last_index,
                      const T *x, int64_t *y)
{
    mo_each(dev, outer * inner, [=] __device__(int64_t u) {
        const T *in = x + u / inner * axis * inner + u % inner;
        T best = in[0];
        int64_t at = 0;
        for (int64_t a = 1; a < axis; a++) {
            T v = in[a * inner];
            bool better = smallest ? v < best : v > best, same = v == best;
            better = (better || v != v) && best == best;
            if (better || (last_index && same))
                best = v, at = a;
        }
        y[u] = at;
    });
}

#define ORDERED_TYPES                                                                                           \
    CASE(1, float) CASE(2, uint8_t) CASE(3, int8_t) CASE(4, uint16_t) CASE(5, int16_t) CASE(6, int32_t)         \
    CASE(7, int64_t) CASE(11, double) CASE(12, uint32_t) CASE(13, uint64_t)

void mo_cuda_argmax(struct mo_device *dev, int dtype, int64_t outer, int64_t axis, int64_t inner, bool smallest,
                    bool last_index, const void *x, int64_t *y)
{
    switch (dtype == 9 ? 2 : dtype) {
#define CASE(number, T)                                                                                         \
    case number: argmax_of(dev, outer, axis, inner, smallest, last_index, (const T *)x, y); break;
    ORDERED_TYPES
#undef CASE
    default: mo_cuda_latch(dev, "argmax: no kernel for element type %d", dtype);
    }
}

template <class T, class A>
static void cumsum_of(struct mo_device *dev, bool exclusive, bool reverse, int64_t outer, int64_t axis, int64_t inner,
                      const T *x, T *y)
{
    mo_each(dev, outer * inner, [=] __device__(int64_t u) {
        int64_t base = u / inner * axis * inner + u % inner;
        A sum = 0;
        for (int64_t k = 0; k < axis; k++) {
            int64_t at = base + (reverse ? axis - 1 - k : k) * inner;
            A before = sum;
            sum += (A)mo_load(x[at]);
            y[at] = mo_stored<T>::of(exclusive ? before : sum);
        }
    });
}

void mo_cuda_cumsum(struct mo_device *dev, int dtype, bool exclusive, bool reverse, int64_t outer, int64_t axis,
                    int64_t inner, const void *x, void *y)
{
    switch (dtype) {
#define CASE(number, T, A)                                                                                      \
    case number: cumsum_of<T, A>(dev, exclusive, reverse, outer, axis, inner, (const T *)x, (T *)y); break;
    CASE(1, float, double)
    CASE(6, uint32_t, uint32_t)
    CASE(7, uint64_t, uint64_t)
    CASE(10, __half, float)
    CASE(11, double, double)
    CASE(12, uint32_t, uint32_t)
    CASE(13, uint64_t, uint64_t)
    CASE(16, __nv_bfloat16, float)
#undef CASE
    default: mo_cuda_latch(dev, "cumsum: no kernel for element type %d", dtype);
    }
}

/* ---- the k best --------------------------------------------------------------------------------------------- */

/* One line: values a step of inner apart, and a heap of the k best so far with the worst of them on top. */
template <class T> struct top_line {
    const T *in;
    int64_t inner, *heap, n;
    bool largest;
};

/* a is worse than b when its value is, or the value is the same and a lies behind. */
template <class T> static __device__ bool is_worse(const struct top_line<T> &l, int64_t a, int64_t b)
{
    T u = l.in[a * l.inner], v = l.in[b * l.inner];
    return u != v ? (l.largest ? u < v : u > v) : a > b;
}

/* Puts item in the place of the top and lets it sink. */
template <class T> static __device__ void sink(const struct top_line<T> &l, int64_t item)
{
    int64_t at = 0, child;
    for (; (child = 2 * at + 1) < l.n; at = child) {
        if (child + 1 < l.n && is_worse(l, l.heap[child + 1], l.heap[child]))
            child++;
        if (!is_worse(l, l.heap[child], item))
            break;
        l.heap[at] = l.heap[child];
    }
    l.heap[at] = item;
}

template <class T> static __device__ void rise(struct top_line<T> &l, int64_t item)
{
    int64_t at = l.n++;
    for (; at > 0 && is_worse(l, item, l.heap[(at - 1) / 2]); at = (at - 1) / 2)
        l.heap[at] = l.heap[(at - 1) / 2];
    l.heap[at] = item;
}

template <class T>
static void topk_of(struct mo_device *dev, int64_t outer, int64_t axis, int64_t inner, int64_t k, bool largest,
                    const T *x, T *y, int64_t *index)
{
    mo_temp<int64_t> heaps(dev, outer * inner * k);     /* a heap for each line; the caller's work holds only one */
    int64_t *heap = heaps.at;
    if (!heap)
        return;
    mo_each(dev, outer * inner, [=] __device__(int64_t u) {
        int64_t o = u / inner, i = u % inner;
        struct top_line<T> l = { x + o * axis * inner + i, inner, heap + u * k, 0, largest };
        for (int64_t a = 0; a < axis; a++)
            if (l.n < k)
                rise(l, a);
            else if (is_worse(l, l.heap[0], a))
                sink(l, a);
        while (l.n > 0) {
            int64_t worst = l.heap[0];
            if (--l.n > 0)
                sink(l, l.heap[l.n]);
            y[(o * k + l.n) * inner + i] = l.in[worst * inner];
            index[(o * k + l.n) * inner + i] = worst;
        }
    });
}

void mo_cuda_topk(struct mo_device *dev, int dtype, int64_t outer, int64_t axis, int64_t inner, int64_t k, bool largest,
                  const void *x, void *y, int64_t *index, int64_t *work)
{
    (void)work;
    if (k <= 0)
        return;
    switch (dtype) {
#define CASE(number, T) case number: topk_of(dev, outer, axis, inner, k, largest, (const T *)x, (T *)y, index); break;
    ORDERED_TYPES
#undef CASE
    default: mo_cuda_latch(dev, "topk: no kernel for element type %d", dtype);
    }
}
