/* binary.cu - y = f(a, b) with broadcasting. A kernel for each element type; the
 * operation is looked up within it, alike for all threads. */
#include "kernels/cuda/device.cuh"

#include <type_traits>

static __device__ __noinline__ int64_t pow_int(int64_t base, int64_t exponent)
{
    if (exponent < 0)
        return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    uint64_t result = 1, b = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1, b *= b)
        if (exponent & 1)
            result *= b;
    return (int64_t)result;
}

static __device__ __noinline__ float pow_of(float u, float v)
{
    return v == 2 ? u * u : v == 0.5f && u >= 0 ? sqrtf(u) : v == 1 ? u : powf(u, v);
}
static __device__ __noinline__ double pow_of(double u, double v)
{
    return v == 2 ? u * u : v == 1 ? u : pow(u, v);
}
static __device__ inline double floor_mod(double u, double v)
{
    double r = fmod(u, v);
    return r != 0 && (r < 0) != (v < 0) ? r + v : r;
}

/* Wrapping is defined, division by zero gives zero, and so does the rest of it; smallest / -1 wraps. */
template <class T> static __device__ T divided(T u, T v)
{
    if (v == 0)
        return 0;
    if (std::is_signed<T>::value && v == (T)-1)
        return (T)(0 - (uint64_t)u);
    return (T)(u / v);
}
template <class T> static __device__ T rest(T u, T v)
{
    return v == 0 || (std::is_signed<T>::value && v == (T)-1) ? (T)0 : (T)(u % v);
}
template <class T> static __device__ T floored_rest(T u, T v)
{
    T r = rest(u, v);
    return std::is_signed<T>::value && r != 0 && (r < 0) != (v < 0) ? (T)(r + v) : r;
}

template <class T> static __device__ T whole(enum mo_binary f, T u, T v)
{
    const uint64_t bits = sizeof(T) * 8;
    switch (f) {
    case MO_ADD: return (T)((uint64_t)u + (uint64_t)v);
    case MO_SUB: return (T)((uint64_t)u - (uint64_t)v);
    case MO_MUL: return (T)((uint64_t)u * (uint64_t)v);
    case MO_DIV: return divided(u, v);
    case MO_POW: return (T)pow_int((int64_t)u, (int64_t)v);
    case MO_MIN_OF: return u < v ? u : v;
    case MO_MAX_OF: return u > v ? u : v;
    case MO_MOD: return floored_rest(u, v);
    case MO_FMOD: return rest(u, v);
    case MO_BIT_AND: return (T)(u & v);
    case MO_BIT_OR: return (T)(u | v);
    case MO_BIT_XOR: return (T)(u ^ v);
    case MO_SHIFT_LEFT: return (T)((uint64_t)(int64_t)v >= bits ? 0 : (uint64_t)u << v);
    case MO_SHIFT_RIGHT: return (T)((uint64_t)(int64_t)v >= bits ? u >> (bits - 1) >> 1 : u >> v);     /* the sign stays */
    default: return 0;
    }
}

template <class C> static __device__ C real(enum mo_binary f, C u, C v)
{
    switch (f) {
    case MO_ADD: return u + v;
    case MO_SUB: return u - v;
    case MO_MUL: return u * v;
    case MO_DIV: return u / v;
    case MO_POW: return pow_of(u, v);
    case MO_MIN_OF: return u < v || u != u ? u : v;
    case MO_MAX_OF: return u > v || u != u ? u : v;
    case MO_MOD: return (C)floor_mod(u, v);
    default: return (C)fmod((double)u, (double)v);
    }
}

template <class C> static __device__ uint8_t compared(enum mo_binary f, C u, C v)
{
    switch (f) {
    case MO_EQUAL: return u == v;
    case MO_LESS: return u < v;
    case MO_LESS_EQUAL: return u <= v;
    case MO_GREATER: return u > v;
    case MO_GREATER_EQUAL: return u >= v;
    case MO_AND: return u != 0 && v != 0;
    case MO_OR: return u != 0 || v != 0;
    default: return (u != 0) != (v != 0);
    }
}

static __device__ inline float result_of(enum mo_binary f, float u, float v) { return real(f, u, v); }
static __device__ inline double result_of(enum mo_binary f, double u, double v) { return real(f, u, v); }
template <class T> static __device__ inline T result_of(enum mo_binary f, T u, T v) { return whole(f, u, v); }

template <class T>
static void binary_of(struct mo_device *dev, enum mo_binary f, const struct mo_walk &walk, const T *a, const T *b, void *y)
{
    struct mo_walk w = walk;
    mo_each(dev, w.n, [=] __device__(int64_t i) {
        int64_t at[2];
        mo_walk_to<2>(w, i, at);
        auto u = mo_load(a[at[0]]), v = mo_load(b[at[1]]);
        if (f >= MO_EQUAL)
            ((uint8_t *)y)[i] = compared(f, u, v);
        else
            ((T *)y)[i] = mo_stored<T>::of(result_of(f, u, v));
    });
}

/* Bits are for integers only, logic for bool only; of arithmetic bool has the smaller and the larger. */
static bool is_defined(enum mo_binary f, int dtype)
{
    bool is_float = dtype == 1 || dtype == 10 || dtype == 11 || dtype == 16;
    if (dtype == 9)
        return f == MO_MIN_OF || f == MO_MAX_OF || (f >= MO_EQUAL && f < MO_N_BINARY);
    return f < MO_BIT_AND || (f >= MO_EQUAL && f < MO_AND) || (!is_float && f < MO_EQUAL);
}

void mo_cuda_binary(struct mo_device *dev, enum mo_binary f, int dtype, int rank, const int64_t *dims,
                    const int64_t *stride_a, const int64_t *stride_b, const void *a, const void *b, void *y)
{
    const int64_t *const strides[] = { stride_a, stride_b };
    struct mo_walk w = mo_walk_of(rank, dims, 2, strides);
    switch (is_defined(f, dtype) ? dtype : 0) {
#define CASE(number, T) case number: binary_of(dev, f, w, (const T *)a, (const T *)b, y); break;
    CASE(1, float)
    CASE(2, uint8_t)
    CASE(3, int8_t)
    CASE(4, uint16_t)
    CASE(5, int16_t)
    CASE(6, int32_t)
    CASE(7, int64_t)
    CASE(9, uint8_t)
    CASE(10, __half)
    CASE(11, double)
    CASE(12, uint32_t)
    CASE(13, uint64_t)
    CASE(16, __nv_bfloat16)
#undef CASE
    default: mo_cuda_latch(dev, "binary: no kernel for this operation and element type");
    }
}
