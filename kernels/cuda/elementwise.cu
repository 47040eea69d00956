/* elementwise.cu - one element at a time: unary, binary, where, fill, dropout. */
#include "kernels/cuda/device.cuh"

#include <string.h>

/* ---- float32 functions ------------------------------------------------------------------------ */

static __device__ inline float sigmoid(float x)
{
    float e = expf(-fabsf(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

static __device__ inline float softplus(float x)
{
    return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

/* sqrt(2/pi) (v + 0.044715 v^3) */
static __device__ inline float gelu_inner(float v)
{
    return 0.79788456f * (v + 0.044715f * v * v * v);
}

/* Not inlined, nor is slope_of: compiled once, not once for each type. */
static __device__ __noinline__ float unary_of(enum mo_unary f, float a, float b, float v)
{
    switch (f) {
    case MO_ABS: return fabsf(v);
    case MO_NEG: return -v;
    case MO_EXP: return expf(v);
    case MO_LOG: return logf(v);
    case MO_SQRT: return sqrtf(v);
    case MO_RECIPROCAL: return 1 / v;
    case MO_SQUARE: return v * v;
    case MO_ERF: return erff(v);
    case MO_TANH: return tanhf(v);
    case MO_SIGMOID: return v != v ? v : sigmoid(v);
    case MO_RELU: return v < 0 ? 0 : v;
    case MO_LEAKY_RELU: return v < 0 ? a * v : v;
    case MO_ELU: return v > 0 ? v : a * expm1f(v);
    case MO_SELU: return b * (v > 0 ? v : a * expm1f(v));
    case MO_CLIP: return v < a ? (a > b ? b : a) : v > b ? b : v;
    case MO_HARD_SIGMOID: return a * v + b < 0 ? 0 : a * v + b > 1 ? 1 : a * v + b;
    case MO_HARD_SWISH: return v <= -3 ? 0 : v >= 3 ? v : v * (v + 3) * (1.0f / 6);
    case MO_SOFTPLUS: return v != v ? v : softplus(v);
    case MO_SOFTSIGN: return v / (1 + fabsf(v));
    case MO_MISH: return v * tanhf(v != v ? v : softplus(v));
    case MO_GELU: return 0.5f * v * (1 + erff(v * 0.70710678f));
    case MO_GELU_TANH: return 0.5f * v * (1 + tanhf(gelu_inner(v)));
    case MO_SWISH: return v * sigmoid(a * v);
    case MO_FLOOR: return floorf(v);
    case MO_CEIL: return ceilf(v);
    case MO_ROUND: return rintf(v);
    case MO_SIGN: return v > 0 ? 1 : v < 0 ? -1 : v;
    case MO_SIN: return sinf(v);
    case MO_COS: return cosf(v);
    case MO_TAN: return tanf(v);
    case MO_ASIN: return asinf(v);
    case MO_ACOS: return acosf(v);
    case MO_ATAN: return atanf(v);
    case MO_SINH: return sinhf(v);
    case MO_COSH: return coshf(v);
    case MO_ASINH: return asinhf(v);
    case MO_ACOSH: return acoshf(v);
    case MO_ATANH: return atanhf(v);
    case MO_CELU: return fmaxf(v, 0) + a * expm1f((v < 0 ? v : 0) / a);
    case MO_THRESHOLDED_RELU: return v > a ? v : 0;
    default: return nanf("");
    }
}

template <class T>
static void unary_over(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const T *x, T *y)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = mo_stored<T>::of(unary_of(f, a, b, mo_load(x[i]))); });
}

void mo_cuda_unary(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x, float *y)
{
    unary_over(dev, f, a, b, n, x, y);
}

void mo_cuda_unary_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x, uint16_t *y)
{
    MO_BY_HALF(dev, unary_over(dev, f, a, b, n, (const H *)x, (H *)y););
}

/* ---- their derivatives ------------------------------------------------------------------------------ */

static bool is_of_result(enum mo_unary f)
{
    return f == MO_EXP || f == MO_SQRT || f == MO_RECIPROCAL || f == MO_TANH || f == MO_SIGMOID || f == MO_RELU ||
           f == MO_CLIP || f == MO_HARD_SIGMOID;
}

static bool is_of_neither(enum mo_unary f)
{
    return f == MO_NEG || f == MO_FLOOR || f == MO_CEIL || f == MO_ROUND || f == MO_SIGN;
}

/* d/dv of 0.5 v (1 + tanh(u)), u = sqrt(2/pi) (v + 0.044715 v^3) */
static __device__ float gelu_tanh_slope(float v)
{
    float t = tanhf(gelu_inner(v));
    return 0.5f * (1 + t) + 0.5f * v * (1 - t * t) * 0.79788456f * (1 + 0.134145f * v * v);
}

/* d/dv of v T, T = tanh(softplus(v)): T + v (1 - T^2) sigmoid(v) */
static __device__ float mish_slope(float v)
{
    float t = tanhf(softplus(v));
    return t + v * (1 - t) * (1 + t) * sigmoid(v);
}

static __device__ float swish_slope(float v, float a)
{
    float s = sigmoid(a * v);
    return s * (1 + a * v * (1 - s));
}

/* v is y for those of is_of_result, else x; g is dy. */
static __device__ __noinline__ float slope_of(enum mo_unary f, float a, float b, float v, float g)
{
    switch (f) {
    case MO_EXP: return g * v;
    case MO_SQRT: return 0.5f * g / v;
    case MO_RECIPROCAL: return -g * v * v;
    case MO_TANH: return g * (1 - v * v);
    case MO_SIGMOID: return g * v * (1 - v);
    case MO_RELU: return v > 0 ? g : 0;
    case MO_CLIP: return v > a && v < b ? g : 0;
    case MO_HARD_SIGMOID: return v > 0 && v < 1 ? a * g : 0;
    case MO_ABS: return v > 0 ? g : v < 0 ? -g : 0;
    case MO_NEG: return -g;
    case MO_LOG: return g / v;
    case MO_SQUARE: return 2 * g * v;
    case MO_ERF: return g * 1.12837917f * expf(-v * v);
    case MO_LEAKY_RELU: return v > 0 ? g : a * g;
    case MO_ELU: return v > 0 ? g : g * a * expf(v);
    case MO_SELU: return g * b * (v > 0 ? 1 : a * expf(v));
    case MO_HARD_SWISH: return v <= -3 ? 0 : v >= 3 ? g : g * (2 * v + 3) * (1.0f / 6);
    case MO_SOFTPLUS: return g * sigmoid(v);
    case MO_SOFTSIGN: return g / ((1 + fabsf(v)) * (1 + fabsf(v)));
    case MO_MISH: return g * mish_slope(v);
    case MO_GELU: return g * (0.5f * (1 + erff(v * 0.70710678f)) + v * 0.39894228f * expf(-0.5f * v * v));
    case MO_GELU_TANH: return g * gelu_tanh_slope(v);
    case MO_SWISH: return g * swish_slope(v, a);
    case MO_SIN: return g * cosf(v);
    case MO_COS: return -g * sinf(v);
    case MO_TAN: return g * (1 + tanf(v) * tanf(v));
    case MO_ASIN: return g / sqrtf((1 - v) * (1 + v));
    case MO_ACOS: return -g / sqrtf((1 - v) * (1 + v));
    case MO_ATAN: return g / (1 + v * v);
    case MO_SINH: return g * coshf(v);
    case MO_COSH: return g * sinhf(v);
    case MO_ASINH: return g / sqrtf(v * v + 1);
    case MO_ACOSH: return g / sqrtf((v - 1) * (v + 1));
    case MO_ATANH: return g / ((1 - v) * (1 + v));
    case MO_CELU: return v > 0 ? g : g * expf(v / a);
    case MO_THRESHOLDED_RELU: return v > a ? g : 0;
    default: return 0;      /* Floor, Ceil, Round, Sign: flat wherever there is a derivative */
    }
}

template <class T>
static void unary_grad_over(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const T *x, const T *y,
                            const T *dy, T *dx, bool add)
{
    const T *from = is_of_neither(f) ? dy : is_of_result(f) ? y : x;
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float d = slope_of(f, a, b, mo_load(from[i]), mo_load(dy[i]));
        dx[i] = mo_stored<T>::of(add ? mo_load(dx[i]) + d : d);
    });
}

void mo_cuda_unary_grad(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x,
                        const float *y, const float *dy, float *dx, bool add)
{
    unary_grad_over(dev, f, a, b, n, x, y, dy, dx, add);
}

void mo_cuda_unary_grad_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x,
                             const uint16_t *y, const uint16_t *dy, uint16_t *dx, bool add)
{
    MO_BY_HALF(dev, unary_grad_over(dev, f, a, b, n, (const H *)x, (const H *)y, (const H *)dy, (H *)dx, add););
}

/* ---- unary of other types -------------------------------------------------------------------------- */

static __device__ double sigmoid_d(double x)
{
    double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

static __device__ double softplus_d(double x)
{
    return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

static __device__ double unary_smooth(enum mo_unary f, double a, double b, double x)
{
    switch (f) {
    case MO_EXP: return exp(x);
    case MO_LOG: return log(x);
    case MO_SQRT: return sqrt(x);
    case MO_RECIPROCAL: return 1 / x;
    case MO_ERF: return erf(x);
    case MO_TANH: return tanh(x);
    case MO_SIGMOID: return sigmoid_d(x);
    case MO_ELU: return x >= 0 ? x : a * expm1(x);
    case MO_CELU: return x >= 0 ? x : a * expm1(x / a);
    case MO_SELU: return b * (x > 0 ? x : a * expm1(x));
    case MO_SOFTPLUS: return softplus_d(x);
    case MO_SOFTSIGN: return x / (1 + fabs(x));
    case MO_MISH: return x * tanh(softplus_d(x));
    case MO_GELU: return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    case MO_GELU_TANH: return 0.5 * x * (1 + tanh(M_2_SQRTPI * M_SQRT1_2 * (x + 0.044715 * x * x * x)));
    case MO_SWISH: return x * sigmoid_d(a * x);
    case MO_SIN: return sin(x);
    case MO_COS: return cos(x);
    case MO_TAN: return tan(x);
    case MO_ASIN: return asin(x);
    case MO_ACOS: return acos(x);
    case MO_ATAN: return atan(x);
    case MO_SINH: return sinh(x);
    case MO_COSH: return cosh(x);
    case MO_ASINH: return asinh(x);
    case MO_ACOSH: return acosh(x);
    case MO_ATANH: return atanh(x);
    default: return nan("");
    }
}

/* Not inlined: the long list of functions is compiled once, not once for each type. */
static __device__ __noinline__ double unary_double(enum mo_unary f, double a, double b, double x)
{
    switch (f) {
    case MO_ABS: return fabs(x);
    case MO_NEG: return -x;
    case MO_SQUARE: return x * x;
    case MO_RELU: return x > 0 || x != x ? x : 0;
    case MO_LEAKY_RELU: return x >= 0 ? x : a * x;
    case MO_CLIP: return x < a ? a : x > b ? b : x;
    case MO_HARD_SIGMOID: return fmax(0.0, fmin(1.0, a * x + b));
    case MO_HARD_SWISH: return x * fmax(0.0, fmin(1.0, x / 6 + 0.5));
    case MO_THRESHOLDED_RELU: return x > a ? x : 0;
    case MO_FLOOR: return floor(x);
    case MO_CEIL: return ceil(x);
    case MO_ROUND: return rint(x);
    case MO_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
    default: return unary_smooth(f, a, b, x);
    }
}

/* Integers beyond 2^53 stay exact where the result is one of the inputs' bits. */
static __device__ int64_t unary_int(enum mo_unary f, double a, double b, int64_t x)
{
    switch (f) {
    case MO_ABS: return x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
    case MO_NEG: return (int64_t)(0 - (uint64_t)x);
    case MO_SIGN: return (x > 0) - (x < 0);
    case MO_SQUARE: return (int64_t)((uint64_t)x * (uint64_t)x);
    case MO_RELU: return x > 0 ? x : 0;
    case MO_CLIP: return (double)x < a ? (int64_t)a : (double)x > b ? (int64_t)b : x;
    case MO_FLOOR: case MO_CEIL: case MO_ROUND: return x;
    default: return (int64_t)unary_double(f, a, b, (double)x);
    }
}

/* uint64 has no sign bit to look at. */
static __device__ uint64_t unary_u64(enum mo_unary f, double a, double b, uint64_t x)
{
    switch (f) {
    case MO_ABS: case MO_RELU: case MO_FLOOR: case MO_CEIL: case MO_ROUND: return x;
    case MO_SIGN: return x > 0;
    case MO_CLIP: return (double)x < a ? (uint64_t)a : (double)x > b ? (uint64_t)b : x;
    default: return (uint64_t)unary_int(f, a, b, (int64_t)x);
    }
}

template <class T> static void unary_float(struct mo_device *dev, enum mo_unary f, double a, double b, size_t n, const T *x, T *y)
{
    mo_each(dev, (int64_t)n,
            [=] __device__(int64_t i) { y[i] = mo_stored<T>::of((float)unary_double(f, a, b, mo_load(x[i]))); });
}

template <class T> static void unary_whole(struct mo_device *dev, enum mo_unary f, double a, double b, size_t n, const T *x, T *y)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = (T)unary_int(f, a, b, (int64_t)x[i]); });
}

void mo_cuda_unary_typed(struct mo_device *dev, enum mo_unary f, int dtype, double a, double b, size_t n, const void *x,
                         void *y)
{
    switch (dtype) {
    case 1: unary_float(dev, f, a, b, n, (const float *)x, (float *)y); break;
    case 2: unary_whole(dev, f, a, b, n, (const uint8_t *)x, (uint8_t *)y); break;
    case 3: unary_whole(dev, f, a, b, n, (const int8_t *)x, (int8_t *)y); break;
    case 4: unary_whole(dev, f, a, b, n, (const uint16_t *)x, (uint16_t *)y); break;
    case 5: unary_whole(dev, f, a, b, n, (const int16_t *)x, (int16_t *)y); break;
    case 6: unary_whole(dev, f, a, b, n, (const int32_t *)x, (int32_t *)y); break;
    case 7: unary_whole(dev, f, a, b, n, (const int64_t *)x, (int64_t *)y); break;
    case 10: unary_float(dev, f, a, b, n, (const __half *)x, (__half *)y); break;
    case 11:
        mo_each(dev, (int64_t)n,
                [=] __device__(int64_t i) { ((double *)y)[i] = unary_double(f, a, b, ((const double *)x)[i]); });
        break;
    case 12: unary_whole(dev, f, a, b, n, (const uint32_t *)x, (uint32_t *)y); break;
    case 13:
        mo_each(dev, (int64_t)n,
                [=] __device__(int64_t i) { ((uint64_t *)y)[i] = unary_u64(f, a, b, ((const uint64_t *)x)[i]); });
        break;
    case 16: unary_float(dev, f, a, b, n, (const __nv_bfloat16 *)x, (__nv_bfloat16 *)y); break;
    default: mo_cuda_latch(dev, "unary_typed: no kernel for this element type");
    }
}

/* ---- bits ------------------------------------------------------------------------------------------------ */

void mo_cuda_not_(struct mo_device *dev, size_t n, const uint8_t *x, uint8_t *y)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = x[i] == 0; });
}

void mo_cuda_bit_not(struct mo_device *dev, size_t n_bytes, const uint8_t *x, uint8_t *y)
{
    mo_each(dev, (int64_t)n_bytes, [=] __device__(int64_t i) { y[i] = (uint8_t)~x[i]; });
}

/* ---- where, fill, axpy -------------------------------------------------------------------------------------- */

template <class E> static void where_of(struct mo_device *dev, struct mo_walk w, const uint8_t *c, const E *a, const E *b, E *y)
{
    mo_each(dev, w.n, [=] __device__(int64_t i) {
        int64_t at[3];
        mo_walk_to<3>(w, i, at);
        y[i] = c[at[0]] ? a[at[1]] : b[at[2]];
    });
}

void mo_cuda_where(struct mo_device *dev, size_t elem_bytes, int rank, const int64_t *dims, const int64_t *stride_c,
                   const int64_t *stride_a, const int64_t *stride_b, const uint8_t *c, const void *a, const void *b,
                   void *y)
{
    const int64_t *const strides[] = { stride_c, stride_a, stride_b };
    struct mo_walk w = mo_walk_of(rank, dims, 3, strides);
    MO_BY_BYTES(elem_bytes, where_of(dev, w, c, (const E *)a, (const E *)b, (E *)y);)
}

template <class E> static void fill_of(struct mo_device *dev, size_t n, const void *value, E *y)
{
    E v;
    memcpy(&v, value, sizeof v);
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) { y[i] = v; });
}

void mo_cuda_fill(struct mo_device *dev, size_t elem_bytes, size_t n, const void *value, void *y)
{
    MO_BY_BYTES(elem_bytes, fill_of(dev, n, value, (E *)y);)
}

template <class T> static void axpy_over(struct mo_device *dev, size_t n, float a, const T *x, T *y, bool add)
{
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float v = a * mo_load(x[i]);
        y[i] = mo_stored<T>::of(add ? v + mo_load(y[i]) : v);
    });
}

void mo_cuda_axpy(struct mo_device *dev, size_t n, float a, const float *x, float *y, bool add)
{
    axpy_over(dev, n, a, x, y, add);
}

void mo_cuda_axpy_bf16(struct mo_device *dev, size_t n, float a, const uint16_t *x, uint16_t *y, bool add)
{
    MO_BY_HALF(dev, axpy_over(dev, n, a, (const H *)x, (H *)y, add););
}

/* ---- dropout ---------------------------------------------------------------------------------------------------- */

/* Philox 4x32-10: word i mod 4 of block i / 4 is draw i of the stream (Salmon, Moraes, Dror, Shaw: Parallel random
 * numbers: as easy as 1, 2, 3; SC'11). The draws are those of the CPU. */
static __device__ uint32_t draw_of(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint64_t block = i / 4;
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
    }
    switch (i & 3) {
    case 0: return c0;
    case 1: return c1;
    case 2: return c2;
    default: return c3;
    }
}

void mo_cuda_dropout(struct mo_device *dev, uint64_t seed, uint64_t stream, float p, size_t n, const float *x, float *y,
                     uint8_t *mask)
{
    dev->n_exchanges++;         /* the stream of random numbers is another one at each step */
    bool drops_all = p >= 1;
    float scale = drops_all ? 0 : 1 / (1 - p);
    uint32_t threshold = drops_all || p <= 0 ? 0 : (uint32_t)((double)p * 4294967296.0);    /* dropped: draw < it */
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        bool keep = !drops_all && draw_of(seed, stream, (uint64_t)i) >= threshold;
        mask[i] = keep;
        y[i] = keep ? x[i] * scale : 0;
    });
}

void mo_cuda_dropout_grad(struct mo_device *dev, float p, size_t n, const uint8_t *mask, const float *dy, float *dx,
                          bool add)
{
    float scale = p < 1 ? 1 / (1 - p) : 0;
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        float d = mask[i] ? dy[i] * scale : 0;
        dx[i] = add ? dx[i] + d : d;
    });
}
