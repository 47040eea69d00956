/* ref_index.c - gather and scatter by element and by coordinates, one hot, triangles,
 * running sums, the k best, resampling of one axis: plain C. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loop.h"
#include "kernels/cpu/small_float.h"
#include "kernels/cpu/split.h"

#include <math.h>
#include <string.h>

static size_t bytes_of(int dtype)
{
    switch (dtype) {
    case 7: case 11: case 13: return 8;
    case 1: case 6: case 12: return 4;
    case 4: case 5: case 10: case 16: return 2;
    default: return 1;
    }
}

/* From the end when negative; -1 and an error when out of range. */
static int64_t checked(struct mo_device *dev, int64_t i, int64_t dim)
{
    int64_t at = i < 0 ? i + dim : i;
    if (at >= 0 && at < dim)
        return at;
    mo_device_latch(dev, "index %lld is outside an axis of %lld", (long long)i, (long long)dim);
    return -1;
}

/* ---- scatter's step ---- */

/* LOAD: what sums and products are taken of, unsigned so that they wrap; VALUE: what is compared. */
#define STEP(T, LOAD, STORE, VALUE)                                                                             \
    {                                                                                                           \
        T *at = (T *)y + to;                                                                                    \
        T v = ((const T *)x)[from];                                                                             \
        switch (f) {                                                                                            \
        case MO_SCATTER_ADD: *at = STORE(LOAD(*at) + LOAD(v)); break;                                           \
        case MO_SCATTER_MUL: *at = STORE(LOAD(*at) * LOAD(v)); break;                                           \
        case MO_SCATTER_MIN: *at = VALUE(v) < VALUE(*at) ? v : *at; break;                                      \
        case MO_SCATTER_MAX: *at = VALUE(v) > VALUE(*at) ? v : *at; break;                                      \
        default: *at = v;                                                                                       \
        }                                                                                                       \
        break;                                                                                                  \
    }
#define SAME(x) (x)

static void scatter_one(struct mo_device *dev, int dtype, enum mo_scatter f, const void *x, int64_t from, void *y, int64_t to)
{
    switch (dtype) {
    case 1: STEP(float, SAME, SAME, SAME)
    case 2: case 9: STEP(uint8_t, SAME, (uint8_t), SAME)
    case 3: STEP(int8_t, SAME, (int8_t), SAME)
    case 4: STEP(uint16_t, SAME, (uint16_t), SAME)
    case 5: STEP(int16_t, SAME, (int16_t), SAME)
    case 6: STEP(int32_t, (uint32_t), (int32_t), SAME)
    case 7: STEP(int64_t, (uint64_t), (int64_t), SAME)
    case 10: STEP(uint16_t, mo_float_of_f16, mo_f16_of_float, mo_float_of_f16)
    case 11: STEP(double, SAME, SAME, SAME)
    case 12: STEP(uint32_t, SAME, SAME, SAME)
    case 13: STEP(uint64_t, SAME, SAME, SAME)
    case 16: STEP(uint16_t, mo_float_of_bf16, mo_bf16_of_float, mo_float_of_bf16)
    default: mo_device_latch(dev, "scatter: no kernel for element type %d", dtype);
    }
}

/* ---- by element ---- */

/* The walk over index without its axis; along the axis x moves by `index`, not by the place. */
struct element_walk {
    int64_t dims[MO_K_MAX_RANK], stride[MO_K_MAX_RANK], along, n;
};

static void start_walk(struct element_walk *w, int rank, const int64_t *dims, const int64_t *stride, int axis)
{
    w->n = 1;
    w->along = stride[axis];
    for (int k = 0; k < rank; k++) {
        w->dims[k] = dims[k];
        w->stride[k] = k == axis ? 0 : stride[k];
        w->n *= dims[k];
    }
}

static int64_t place(const struct element_walk *w, int rank, int64_t i)
{
    int64_t at = 0;
    for (int k = rank - 1; k >= 0; k--) {
        at += i % w->dims[k] * w->stride[k];
        i /= w->dims[k];
    }
    return at;
}

void mo_ref_gather_elements(struct mo_device *dev, size_t elem_bytes, int rank, const int64_t *dims,
                            const int64_t *stride_x, int axis, int64_t axis_dim, const void *x, const int64_t *index, void *y)
{
    struct element_walk w;
    start_walk(&w, rank, dims, stride_x, axis);
    for (int64_t i = 0; i < w.n; i++) {
        int64_t at = checked(dev, index[i], axis_dim);
        char *to = (char *)y + (size_t)i * elem_bytes;
        if (at < 0)
            memset(to, 0, elem_bytes);
        else
            memcpy(to, (const char *)x + (size_t)(place(&w, rank, i) + at * w.along) * elem_bytes, elem_bytes);
    }
}

void mo_ref_scatter_elements(struct mo_device *dev, int dtype, enum mo_scatter f, int rank, const int64_t *dims,
                             const int64_t *stride_y, int axis, int64_t axis_dim, const int64_t *index, const void *x,
                             void *y)
{
    struct element_walk w;
    start_walk(&w, rank, dims, stride_y, axis);
    for (int64_t i = 0; i < w.n; i++) {
        int64_t at = checked(dev, index[i], axis_dim);
        if (at >= 0)
            scatter_one(dev, dtype, f, x, i, y, place(&w, rank, i) + at * w.along);
    }
}

/* ---- by coordinates ---- */

/* The row that the coordinates name; -1 out of range. */
static int64_t row_of(struct mo_device *dev, const int64_t *index, int n_coords, const int64_t *dims)
{
    int64_t row = 0;
    for (int k = 0; k < n_coords; k++) {
        int64_t at = checked(dev, index[k], dims[k]);
        if (at < 0)
            return -1;
        row = row * dims[k] + at;
    }
    return row;
}

static int64_t rows_of(int n_coords, const int64_t *dims)
{
    int64_t rows = 1;
    for (int k = 0; k < n_coords; k++)
        rows *= dims[k];
    return rows;
}

void mo_ref_gather_nd(struct mo_device *dev, size_t elem_bytes, int64_t batch, int64_t n_index, int n_coords,
                      const int64_t *dims, int64_t inner, const void *x, const int64_t *index, void *y)
{
    int64_t rows = rows_of(n_coords, dims);
    size_t bytes = (size_t)inner * elem_bytes;
    for (int64_t i = 0; i < batch * n_index; i++) {
        int64_t row = row_of(dev, index + i * n_coords, n_coords, dims);
        if (row < 0)
            memset((char *)y + (size_t)i * bytes, 0, bytes);
        else
            memcpy((char *)y + (size_t)i * bytes, (const char *)x + (size_t)(i / n_index * rows + row) * bytes, bytes);
    }
}

void mo_ref_scatter_nd(struct mo_device *dev, int dtype, enum mo_scatter f, int64_t batch, int64_t n_index, int n_coords,
                       const int64_t *dims, int64_t inner, const int64_t *index, const void *x, void *y)
{
    int64_t rows = rows_of(n_coords, dims);
    for (int64_t i = 0; i < batch * n_index; i++) {
        int64_t row = row_of(dev, index + i * n_coords, n_coords, dims);
        for (int64_t k = 0; row >= 0 && k < inner; k++)
            scatter_one(dev, dtype, f, x, i * inner + k, y, (i / n_index * rows + row) * inner + k);
    }
}

/* ---- resampling ---- */

struct resample_work {
    int64_t n_x, inner, n_y;
    int n_taps;
    const int32_t *from;
    const float *weight, *x;
    float *y;
};

static void resample_rows(void *arg, int64_t begin, int64_t end)
{
    const struct resample_work *w = arg;
    for (int64_t u = begin; u < end; u++) {
        int64_t o = u / w->n_y, j = u % w->n_y;
        float *y = w->y + u * w->inner;
        for (int t = 0; t < w->n_taps; t++) {
            float weight = w->weight[j * w->n_taps + t];
            const float *x = w->x + (o * w->n_x + w->from[j * w->n_taps + t]) * w->inner;
            if (t == 0)
                for (int64_t i = 0; i < w->inner; i++)
                    y[i] = weight * x[i];
            else
                for (int64_t i = 0; i < w->inner; i++)
                    y[i] += weight * x[i];
        }
    }
}

void mo_ref_resample(struct mo_device *dev, int64_t outer, int64_t n_x, int64_t inner, int64_t n_y, int n_taps,
                     const int32_t *from, const float *weight, const float *x, float *y)
{
    struct resample_work w = { n_x, inner, n_y, n_taps, from, weight, x, y };
    mo_split(dev, outer * n_y, mo_split_grain(inner * n_taps), resample_rows, &w);
}

/* Units are whole images, since several y's add to one x. */
static void resample_grads(void *arg, int64_t begin, int64_t end)
{
    const struct resample_work *w = arg;
    for (int64_t o = begin; o < end; o++)
        for (int64_t j = 0; j < w->n_y; j++)
            for (int t = 0; t < w->n_taps; t++) {
                float weight = w->weight[j * w->n_taps + t];
                float *dx = w->y + (o * w->n_x + w->from[j * w->n_taps + t]) * w->inner;
                const float *dy = w->x + (o * w->n_y + j) * w->inner;
                for (int64_t i = 0; i < w->inner; i++)
                    dx[i] += weight * dy[i];
            }
}

void mo_ref_resample_grad(struct mo_device *dev, int64_t outer, int64_t n_x, int64_t inner, int64_t n_y, int n_taps,
                          const int32_t *from, const float *weight, const float *dy, float *dx)
{
    struct resample_work w = { n_x, inner, n_y, n_taps, from, weight, dy, dx };
    mo_split(dev, outer, mo_split_grain(n_y * inner * n_taps), resample_grads, &w);
}

/* ---- making ---- */

static uint16_t half_of(double x)
{
    return mo_f16_of_float((float)x);
}
static uint16_t bfloat_of(double x)
{
    return mo_bf16_of_float((float)x);
}

#define ARANGE(T, STORE)                                                                                        \
    for (size_t i = 0; i < n; i++)                                                                              \
        ((T *)y)[i] = STORE(start + (double)i * delta);                                                         \
    break
#define ARANGE_INT(T)                                                                                           \
    for (size_t i = 0; i < n; i++)                                                                              \
        ((T *)y)[i] = (T)((uint64_t)(int64_t)start + (uint64_t)i * (uint64_t)(int64_t)delta);                    \
    break

void mo_ref_arange(struct mo_device *dev, int dtype, double start, double delta, size_t n, void *y)
{
    switch (dtype) {
    case 1: ARANGE(float, (float));
    case 2: ARANGE_INT(uint8_t);
    case 3: ARANGE_INT(int8_t);
    case 4: ARANGE_INT(uint16_t);
    case 5: ARANGE_INT(int16_t);
    case 6: ARANGE_INT(int32_t);
    case 7: ARANGE_INT(int64_t);
    case 10: ARANGE(uint16_t, half_of);
    case 11: ARANGE(double, SAME);
    case 12: ARANGE_INT(uint32_t);
    case 13: ARANGE_INT(uint64_t);
    case 16: ARANGE(uint16_t, bfloat_of);
    default: mo_device_latch(dev, "arange: no kernel for element type %d", dtype);
    }
}

void mo_ref_one_hot(struct mo_device *dev, size_t elem_bytes, int64_t outer, int64_t depth, int64_t inner,
                    const int64_t *index, const void *values, void *y)
{
    const char *off = values, *on = off + elem_bytes;
    mo_ref_fill(dev, elem_bytes, (size_t)(outer * depth * inner), off, y);
    for (int64_t u = 0; u < outer * inner; u++) {
        int64_t o = u / inner, i = u % inner, d = index[u] < 0 ? index[u] + depth : index[u];
        if (d >= 0 && d < depth)
            memcpy((char *)y + (size_t)((o * depth + d) * inner + i) * elem_bytes, on, elem_bytes);
    }
}

void mo_ref_trilu(struct mo_device *dev, size_t elem_bytes, bool upper, int64_t k, int64_t batch, int64_t rows,
                  int64_t columns, const void *x, void *y)
{
    (void)dev;
    for (int64_t u = 0; u < batch * rows; u++) {
        const char *in = (const char *)x + (size_t)(u * columns) * elem_bytes;
        char *out = (char *)y + (size_t)(u * columns) * elem_bytes;
        int64_t edge = u % rows + k + (upper ? 0 : 1);      /* first column of the right part */
        edge = edge < 0 ? 0 : edge > columns ? columns : edge;
        size_t left = (size_t)edge * elem_bytes, right = (size_t)(columns - edge) * elem_bytes;
        if (upper) {
            memset(out, 0, left);
            memcpy(out + left, in + left, right);
        } else {
            memcpy(out, in, left);
            memset(out + left, 0, right);
        }
    }
}

#define CLASSIFY(T, LOAD)                                                                                       \
    for (size_t i = 0; i < n; i++) {                                                                            \
        double v = LOAD(((const T *)x)[i]);                                                                     \
        y[i] = (which & 1 && isnan(v)) || (which & 2 && v == INFINITY) || (which & 4 && v == -INFINITY);        \
    }                                                                                                           \
    break

void mo_ref_classify(struct mo_device *dev, int dtype, unsigned which, size_t n, const void *x, uint8_t *y)
{
    const struct mo_small_format *small = mo_small_format(dtype);
    switch (dtype) {
    case 1: CLASSIFY(float, SAME);
    case 11: CLASSIFY(double, SAME);
    case 10: CLASSIFY(uint16_t, mo_float_of_f16);
    case 16: CLASSIFY(uint16_t, mo_float_of_bf16);
#define DECODE(code) mo_small_decode(small, code)
    case 17: case 18: case 19: case 20: CLASSIFY(uint8_t, DECODE);
    default: mo_device_latch(dev, "classify: no kernel for element type %d", dtype);
    }
}

static bool is_zero(int dtype, const char *x, size_t bytes)
{
    static const char zero[8];
    bool is_float = dtype == 1 || dtype == 10 || dtype == 11 || dtype == 16;
    if (!is_float)
        return !memcmp(x, zero, bytes);
    /* the sign is the highest bit of the last byte: -0 is 0 */
    return !memcmp(x, zero, bytes - 1) && !(x[bytes - 1] & 0x7f);
}

void mo_ref_nonzero(struct mo_device *dev, int dtype, int rank, const int64_t *dims, int64_t n_found, const void *x,
                    int64_t *y)
{
    int64_t n = 1, found = 0;
    size_t bytes = bytes_of(dtype);
    for (int k = 0; k < rank; k++)
        n *= dims[k];
    for (int64_t i = 0; i < n; i++) {
        if (is_zero(dtype, (const char *)x + (size_t)i * bytes, bytes))
            continue;
        if (found == n_found) {
            mo_device_latch(dev, "nonzero: more elements than were planned for");
            return;
        }
        for (int64_t k = rank - 1, rest = i; k >= 0; k--) {
            y[k * n_found + found] = rest % dims[k];
            rest /= dims[k];
        }
        found++;
    }
}

/* ---- along an axis ---- */

#define CUMSUM(T, A, LOAD, STORE)                                                                               \
    for (int64_t u = 0; u < outer * inner; u++) {                                                               \
        int64_t base = u / inner * axis * inner + u % inner;                                                    \
        A sum = 0;                                                                                              \
        for (int64_t k = 0; k < axis; k++) {                                                                    \
            int64_t at = base + (reverse ? axis - 1 - k : k) * inner;                                           \
            A before = sum;                                                                                     \
            sum += LOAD(((const T *)x)[at]);                                                                    \
            ((T *)y)[at] = STORE(exclusive ? before : sum);                                                     \
        }                                                                                                       \
    }                                                                                                           \
    break

void mo_ref_cumsum(struct mo_device *dev, int dtype, bool exclusive, bool reverse, int64_t outer, int64_t axis,
                   int64_t inner, const void *x, void *y)
{
    switch (dtype) {
    case 1: CUMSUM(float, double, SAME, (float));
    case 6: CUMSUM(int32_t, uint32_t, (uint32_t), (int32_t));
    case 7: CUMSUM(int64_t, uint64_t, (uint64_t), (int64_t));
    case 10: CUMSUM(uint16_t, float, mo_float_of_f16, mo_f16_of_float);
    case 11: CUMSUM(double, double, SAME, SAME);
    case 12: CUMSUM(uint32_t, uint32_t, SAME, SAME);
    case 13: CUMSUM(uint64_t, uint64_t, SAME, SAME);
    case 16: CUMSUM(uint16_t, float, mo_float_of_bf16, mo_bf16_of_float);
    default: mo_device_latch(dev, "cumsum: no kernel for element type %d", dtype);
    }
}

/* Heap of the k best so far in work[], the worst of them on top, which a better one displaces; then the heap is
 * taken apart from the worst. a is worse than b when its value is, or the value is the same and a lies behind. */
#define TOPK(T)                                                                                                 \
    {                                                                                                           \
        const T *in = (const T *)x + o * axis * inner + i;                                                      \
        T *out = (T *)y + o * k * inner + i;                                                                    \
        for (int64_t a = 0; a < axis; a++) {                                                                    \
            if (n_heap < k) {                                                                                   \
                int64_t at = n_heap++;                                                                          \
                for (; at > 0 && WORSE(a, work[(at - 1) / 2]); at = (at - 1) / 2)                               \
                    work[at] = work[(at - 1) / 2];                                                              \
                work[at] = a;                                                                                   \
            } else if (k > 0 && WORSE(work[0], a)) {                                                            \
                SINK(a, n_heap);                                                                                \
            }                                                                                                   \
        }                                                                                                       \
        while (n_heap > 0) {                                                                                    \
            int64_t worst = work[0];                                                                            \
            n_heap--;                                                                                           \
            if (n_heap > 0)                                                                                     \
                SINK(work[n_heap], n_heap);                                                                     \
            out[n_heap * inner] = in[worst * inner];                                                            \
            index[(o * k + n_heap) * inner + i] = worst;                                                        \
        }                                                                                                       \
        break;                                                                                                  \
    }
#define WORSE(a, b)                                                                                             \
    (in[(a) * inner] != in[(b) * inner]                                                                         \
         ? (largest ? in[(a) * inner] < in[(b) * inner] : in[(a) * inner] > in[(b) * inner])                    \
         : (a) > (b))
#define SINK(item, n_items)                                                                                     \
    {                                                                                                           \
        int64_t moved = (item), at = 0, child;                                                                  \
        for (; (child = 2 * at + 1) < (n_items); at = child) {                                                  \
            child += child + 1 < (n_items) && WORSE(work[child + 1], work[child]);                              \
            if (!WORSE(work[child], moved))                                                                     \
                break;                                                                                          \
            work[at] = work[child];                                                                             \
        }                                                                                                       \
        work[at] = moved;                                                                                       \
    }

void mo_ref_topk(struct mo_device *dev, int dtype, int64_t outer, int64_t axis, int64_t inner, int64_t k, bool largest,
                 const void *x, void *y, int64_t *index, int64_t *work)
{
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t n_heap = 0;
            switch (dtype) {
            case 1: TOPK(float)
            case 2: TOPK(uint8_t)
            case 3: TOPK(int8_t)
            case 4: TOPK(uint16_t)
            case 5: TOPK(int16_t)
            case 6: TOPK(int32_t)
            case 7: TOPK(int64_t)
            case 11: TOPK(double)
            case 12: TOPK(uint32_t)
            case 13: TOPK(uint64_t)
            default:
                mo_device_latch(dev, "topk: no kernel for element type %d", dtype);
                return;
            }
        }
}
