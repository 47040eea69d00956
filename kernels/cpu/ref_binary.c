/* ref_binary.c - y = f(a, b) with broadcasting, where, and the element-wise
 * kernels of types other than float32: plain C.
 *
 * A function for each (operation, type) does one row; strides within a row are
 * 0 or 1 in all cases that matter, so those have loops of their own. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loop.h"
#include "kernels/cpu/small_float.h"
#include "kernels/cpu/split.h"

#include <math.h>

typedef void row_fn(int64_t n, const void *a, int64_t sa, const void *b, int64_t sb, void *y);

#define SAME(x) (x)

/* y may be a or b: the loops carry nothing from one turn to the next. */
#define ROW(name, T, R, LOAD, STORE, C, expr)                                                                   \
    static void name(int64_t n, const void *pa, int64_t sa, const void *pb, int64_t sb, void *py)               \
    {                                                                                                           \
        const T *a = pa, *b = pb;                                                                               \
        R *y = py;                                                                                              \
        if (sa == 1 && sb == 1) {                                                                               \
            _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) {                                              \
                C u = LOAD(a[i]), v = LOAD(b[i]);                                                               \
                y[i] = STORE(expr);                                                                             \
            }                                                                                                   \
        } else if (sa == 1 && sb == 0) {                                                                        \
            C v = LOAD(b[0]);                                                                                   \
            _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) {                                              \
                C u = LOAD(a[i]);                                                                               \
                y[i] = STORE(expr);                                                                             \
            }                                                                                                   \
        } else if (sa == 0 && sb == 1) {                                                                        \
            C u = LOAD(a[0]);                                                                                   \
            _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) {                                              \
                C v = LOAD(b[i]);                                                                               \
                y[i] = STORE(expr);                                                                             \
            }                                                                                                   \
        } else {                                                                                                \
            for (int64_t i = 0; i < n; i++) {                                                                   \
                C u = LOAD(a[i * sa]), v = LOAD(b[i * sb]);                                                     \
                y[i] = STORE(expr);                                                                             \
            }                                                                                                   \
        }                                                                                                       \
    }

/* ---- integers: wrapping is defined, division by zero gives zero ---- */

static int64_t pow_int(int64_t base, int64_t exponent)
{
    if (exponent < 0)
        return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    uint64_t result = 1, b = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1, b *= b)
        if (exponent & 1)
            result *= b;
    return (int64_t)result;
}

/* The quotient that does not fit (smallest / -1) wraps. */
#define DIV_S(T) (T)(v == 0 ? 0 : v == -1 ? (T)(0 - (uint64_t)u) : u / v)
#define DIV_U(T) (T)(v == 0 ? 0 : u / v)
#define REM_S(T) (T)(v == 0 || v == -1 ? 0 : u % v)
#define MOD_S(T) (T)(v == 0 || v == -1 ? 0 : u % v != 0 && ((u % v < 0) != (v < 0)) ? u % v + v : u % v)
#define REM_U(T) (T)(v == 0 ? 0 : u % v)
#define BITS(T) (sizeof(T) * 8)
#define SHL(T) (T)((uint64_t)(int64_t)v >= BITS(T) ? 0 : (uint64_t)u << v)
#define SHR(T) (T)((uint64_t)(int64_t)v >= BITS(T) ? u >> (BITS(T) - 1) >> 1 : u >> v)     /* the sign stays */

#define ROWS_INT(t, T, DIV, REM, MOD)                                                                           \
    ROW(add_##t, T, T, SAME, (T), T, ((uint64_t)u + (uint64_t)v))                                               \
    ROW(sub_##t, T, T, SAME, (T), T, ((uint64_t)u - (uint64_t)v))                                               \
    ROW(mul_##t, T, T, SAME, (T), T, ((uint64_t)u * (uint64_t)v))                                               \
    ROW(div_##t, T, T, SAME, (T), T, DIV(T))                                                                    \
    ROW(pow_##t, T, T, SAME, (T), T, pow_int((int64_t)u, (int64_t)v))                                           \
    ROW(min_##t, T, T, SAME, (T), T, (u < v ? u : v))                                                           \
    ROW(max_##t, T, T, SAME, (T), T, (u > v ? u : v))                                                           \
    ROW(mod_##t, T, T, SAME, (T), T, MOD(T))                                                                    \
    ROW(fmod_##t, T, T, SAME, (T), T, REM(T))                                                                   \
    ROW(bit_and_##t, T, T, SAME, (T), T, (u & v))                                                               \
    ROW(bit_or_##t, T, T, SAME, (T), T, (u | v))                                                                \
    ROW(bit_xor_##t, T, T, SAME, (T), T, (u ^ v))                                                               \
    ROW(shl_##t, T, T, SAME, (T), T, SHL(T))                                                                    \
    ROW(shr_##t, T, T, SAME, (T), T, SHR(T))                                                                    \
    ROWS_COMPARE(t, T, SAME, T)

#define ROWS_COMPARE(t, T, LOAD, C)                                                                             \
    ROW(equal_##t, T, uint8_t, LOAD, (uint8_t), C, (u == v))                                                    \
    ROW(less_##t, T, uint8_t, LOAD, (uint8_t), C, (u < v))                                                      \
    ROW(less_equal_##t, T, uint8_t, LOAD, (uint8_t), C, (u <= v))                                               \
    ROW(greater_##t, T, uint8_t, LOAD, (uint8_t), C, (u > v))                                                   \
    ROW(greater_equal_##t, T, uint8_t, LOAD, (uint8_t), C, (u >= v))

ROWS_INT(u8, uint8_t, DIV_U, REM_U, REM_U)
ROWS_INT(u16, uint16_t, DIV_U, REM_U, REM_U)
ROWS_INT(u32, uint32_t, DIV_U, REM_U, REM_U)
ROWS_INT(u64, uint64_t, DIV_U, REM_U, REM_U)
ROWS_INT(i8, int8_t, DIV_S, REM_S, MOD_S)
ROWS_INT(i16, int16_t, DIV_S, REM_S, MOD_S)
ROWS_INT(i32, int32_t, DIV_S, REM_S, MOD_S)
ROWS_INT(i64, int64_t, DIV_S, REM_S, MOD_S)

ROW(and_bool, uint8_t, uint8_t, SAME, (uint8_t), uint8_t, ((u != 0) & (v != 0)))
ROW(or_bool, uint8_t, uint8_t, SAME, (uint8_t), uint8_t, ((u != 0) | (v != 0)))
ROW(xor_bool, uint8_t, uint8_t, SAME, (uint8_t), uint8_t, ((u != 0) ^ (v != 0)))

/* ---- floats ---- */

/* Squares and roots are most of what models raise to. */
static inline float pow_f(float u, float v)
{
    return v == 2 ? u * u : v == 0.5f && u >= 0 ? sqrtf(u) : v == 1 ? u : powf(u, v);
}
static inline double pow_d(double u, double v)
{
    return v == 2 ? u * u : v == 1 ? u : pow(u, v);
}
static inline double floor_mod(double u, double v)
{
    double r = fmod(u, v);
    return r != 0 && (r < 0) != (v < 0) ? r + v : r;
}

#define ROWS_FLOAT(t, T, LOAD, STORE, C, POW)                                                                   \
    ROW(add_##t, T, T, LOAD, STORE, C, (u + v))                                                                 \
    ROW(sub_##t, T, T, LOAD, STORE, C, (u - v))                                                                 \
    ROW(mul_##t, T, T, LOAD, STORE, C, (u * v))                                                                 \
    ROW(div_##t, T, T, LOAD, STORE, C, (u / v))                                                                 \
    ROW(pow_##t, T, T, LOAD, STORE, C, (POW(u, v)))                                                             \
    ROW(min_##t, T, T, LOAD, STORE, C, (u < v || u != u ? u : v))                                               \
    ROW(max_##t, T, T, LOAD, STORE, C, (u > v || u != u ? u : v))                                               \
    ROW(mod_##t, T, T, LOAD, STORE, C, ((C)floor_mod(u, v)))                                                    \
    ROW(fmod_##t, T, T, LOAD, STORE, C, ((C)fmod(u, v)))                                                        \
    ROWS_COMPARE(t, T, LOAD, C)

ROWS_FLOAT(f32, float, SAME, SAME, float, pow_f)
ROWS_FLOAT(f64, double, SAME, SAME, double, pow_d)
ROWS_FLOAT(f16, uint16_t, mo_float_of_f16, mo_f16_of_float, float, pow_f)
ROWS_FLOAT(bf16, uint16_t, mo_float_of_bf16, mo_bf16_of_float, float, pow_f)

#define ARITHMETIC(t)                                                                                           \
    [MO_ADD] = add_##t, [MO_SUB] = sub_##t, [MO_MUL] = mul_##t, [MO_DIV] = div_##t, [MO_POW] = pow_##t,         \
    [MO_MIN_OF] = min_##t, [MO_MAX_OF] = max_##t, [MO_MOD] = mod_##t, [MO_FMOD] = fmod_##t,                     \
    [MO_EQUAL] = equal_##t, [MO_LESS] = less_##t, [MO_LESS_EQUAL] = less_equal_##t, [MO_GREATER] = greater_##t, \
    [MO_GREATER_EQUAL] = greater_equal_##t
#define BITWISE(t)                                                                                              \
    [MO_BIT_AND] = bit_and_##t, [MO_BIT_OR] = bit_or_##t, [MO_BIT_XOR] = bit_xor_##t,                           \
    [MO_SHIFT_LEFT] = shl_##t, [MO_SHIFT_RIGHT] = shr_##t

/* By ONNX element type. */
static row_fn *const rows[17][MO_N_BINARY] = {
    [1] = { ARITHMETIC(f32) },
    [2] = { ARITHMETIC(u8), BITWISE(u8) },
    [3] = { ARITHMETIC(i8), BITWISE(i8) },
    [4] = { ARITHMETIC(u16), BITWISE(u16) },
    [5] = { ARITHMETIC(i16), BITWISE(i16) },
    [6] = { ARITHMETIC(i32), BITWISE(i32) },
    [7] = { ARITHMETIC(i64), BITWISE(i64) },
    [9] = { [MO_AND] = and_bool, [MO_OR] = or_bool, [MO_XOR] = xor_bool, [MO_EQUAL] = equal_u8, [MO_LESS] = less_u8,
            [MO_LESS_EQUAL] = less_equal_u8, [MO_GREATER] = greater_u8, [MO_GREATER_EQUAL] = greater_equal_u8,
            [MO_MIN_OF] = min_u8, [MO_MAX_OF] = max_u8 },
    [10] = { ARITHMETIC(f16) },
    [11] = { ARITHMETIC(f64) },
    [12] = { ARITHMETIC(u32), BITWISE(u32) },
    [13] = { ARITHMETIC(u64), BITWISE(u64) },
    [16] = { ARITHMETIC(bf16) },
};
static const uint8_t dtype_bytes[17] = { [1] = 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 0, 0, 2 };

struct binary_work {
    struct mo_loop loop;
    row_fn *fn;
    size_t a_bytes, y_bytes;
    const char *a, *b;
    char *y;
};

static void binary_rows(void *arg, int64_t begin, int64_t end)
{
    const struct binary_work *w = arg;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], n = w->loop.row;
    int last = w->loop.rank - 1;
    mo_loop_seek(&w->loop, begin, index, offset);
    for (int64_t i = begin; i < end; i++, mo_loop_next(&w->loop, index, offset))
        w->fn(n, w->a + offset[0] * (int64_t)w->a_bytes, w->loop.stride[0][last],
              w->b + offset[1] * (int64_t)w->a_bytes, w->loop.stride[1][last], w->y + i * n * (int64_t)w->y_bytes);
}

/* One long row: cut within it. */
static void binary_elems(void *arg, int64_t begin, int64_t end)
{
    const struct binary_work *w = arg;
    int64_t sa = w->loop.stride[0][0], sb = w->loop.stride[1][0];
    w->fn(end - begin, w->a + begin * sa * (int64_t)w->a_bytes, sa, w->b + begin * sb * (int64_t)w->a_bytes, sb,
          w->y + begin * (int64_t)w->y_bytes);
}

void mo_ref_binary(struct mo_device *dev, enum mo_binary f, int dtype, int rank, const int64_t *dims,
                   const int64_t *stride_a, const int64_t *stride_b, const void *a, const void *b, void *y)
{
    struct binary_work w = { .a = a, .b = b, .y = y };
    w.fn = dtype > 0 && dtype < 17 ? rows[dtype][f] : NULL;
    if (!w.fn) {
        mo_device_latch(dev, "binary: no kernel for this operation and element type");
        return;
    }
    w.a_bytes = dtype_bytes[dtype];
    w.y_bytes = f >= MO_EQUAL ? 1 : w.a_bytes;
    const int64_t *const strides[] = { stride_a, stride_b };
    mo_loop_init(&w.loop, rank, dims, 2, strides);
    if (w.loop.n_rows == 1)
        mo_split(dev, w.loop.row, mo_split_grain(1), binary_elems, &w);
    else
        mo_split(dev, w.loop.n_rows, mo_split_grain(w.loop.row), binary_rows, &w);
}

/* ---- where ---- */

struct where_work {
    struct mo_loop loop;
    size_t elem_bytes;
    const uint8_t *c;
    const char *a, *b;
    char *y;
};

#define WHERE_ROW(T)                                                                                            \
    {                                                                                                           \
        const T *a = pa, *b = pb;                                                                               \
        T *y = py;                                                                                              \
        for (int64_t i = 0; i < n; i++)                                                                         \
            y[i] = c[i * sc] ? a[i * sa] : b[i * sb];                                                           \
    }

static void where_row(size_t elem_bytes, int64_t n, const uint8_t *c, int64_t sc, const void *pa, int64_t sa,
                      const void *pb, int64_t sb, void *py)
{
    switch (elem_bytes) {
    case 1: WHERE_ROW(uint8_t) break;
    case 2: WHERE_ROW(uint16_t) break;
    case 4: WHERE_ROW(uint32_t) break;
    case 8: WHERE_ROW(uint64_t) break;
    default: WHERE_ROW(struct mo_bytes16) break;
    }
}

static void where_rows(void *arg, int64_t begin, int64_t end)
{
    const struct where_work *w = arg;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], n = w->loop.row, bytes = (int64_t)w->elem_bytes;
    int last = w->loop.rank - 1;
    mo_loop_seek(&w->loop, begin, index, offset);
    for (int64_t i = begin; i < end; i++, mo_loop_next(&w->loop, index, offset))
        where_row(w->elem_bytes, n, w->c + offset[0], w->loop.stride[0][last], w->a + offset[1] * bytes,
                  w->loop.stride[1][last], w->b + offset[2] * bytes, w->loop.stride[2][last], w->y + i * n * bytes);
}

void mo_ref_where(struct mo_device *dev, size_t elem_bytes, int rank, const int64_t *dims, const int64_t *stride_c,
                  const int64_t *stride_a, const int64_t *stride_b, const uint8_t *c, const void *a, const void *b,
                  void *y)
{
    struct where_work w = { .elem_bytes = elem_bytes, .c = c, .a = a, .b = b, .y = y };
    const int64_t *const strides[] = { stride_c, stride_a, stride_b };
    mo_loop_init(&w.loop, rank, dims, 3, strides);
    mo_split(dev, w.loop.n_rows, mo_split_grain(w.loop.row), where_rows, &w);
}

void mo_ref_not_(struct mo_device *dev, size_t n, const uint8_t *x, uint8_t *y)
{
    (void)dev;
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] == 0;
}

void mo_ref_bit_not(struct mo_device *dev, size_t n_bytes, const uint8_t *x, uint8_t *y)
{
    (void)dev;
    for (size_t i = 0; i < n_bytes; i++)
        y[i] = (uint8_t)~x[i];
}

/* ---- unary of other types ---- */

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

/* The smooth ones, and those with an exponential. */
static double unary_smooth(enum mo_unary f, double a, double b, double x)
{
    switch (f) {
    case MO_EXP: return exp(x);
    case MO_LOG: return log(x);
    case MO_SQRT: return sqrt(x);
    case MO_RECIPROCAL: return 1 / x;
    case MO_ERF: return erf(x);
    case MO_TANH: return tanh(x);
    case MO_SIGMOID: return sigmoid(x);
    case MO_ELU: return x >= 0 ? x : a * expm1(x);
    case MO_CELU: return x >= 0 ? x : a * expm1(x / a);
    case MO_SELU: return b * (x > 0 ? x : a * expm1(x));
    case MO_SOFTPLUS: return softplus(x);
    case MO_SOFTSIGN: return x / (1 + fabs(x));
    case MO_MISH: return x * tanh(softplus(x));
    case MO_GELU: return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    case MO_GELU_TANH: return 0.5 * x * (1 + tanh(M_2_SQRTPI * M_SQRT1_2 * (x + 0.044715 * x * x * x)));
    case MO_SWISH: return x * sigmoid(a * x);
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
    default: return NAN;
    }
}

static double unary_double(enum mo_unary f, double a, double b, double x)
{
    switch (f) {
    case MO_ABS: return fabs(x);
    case MO_NEG: return -x;
    case MO_SQUARE: return x * x;
    case MO_RELU: return x > 0 || x != x ? x : 0;
    case MO_LEAKY_RELU: return x >= 0 ? x : a * x;
    case MO_CLIP: return x < a ? a : x > b ? b : x;
    case MO_HARD_SIGMOID: return fmax(0, fmin(1, a * x + b));
    case MO_HARD_SWISH: return x * fmax(0, fmin(1, x / 6 + 0.5));
    case MO_THRESHOLDED_RELU: return x > a ? x : 0;
    case MO_FLOOR: return floor(x);
    case MO_CEIL: return ceil(x);
    case MO_ROUND: return nearbyint(x);
    case MO_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
    default: return unary_smooth(f, a, b, x);
    }
}

/* Integers beyond 2^53 stay exact where the result is one of the inputs' bits. */
static int64_t unary_int(enum mo_unary f, double a, double b, int64_t x)
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
static uint64_t unary_u64(enum mo_unary f, double a, double b, uint64_t x)
{
    switch (f) {
    case MO_ABS: case MO_RELU: case MO_FLOOR: case MO_CEIL: case MO_ROUND: return x;
    case MO_SIGN: return x > 0;
    case MO_CLIP: return (double)x < a ? (uint64_t)a : (double)x > b ? (uint64_t)b : x;
    default: return (uint64_t)unary_int(f, a, b, (int64_t)x);
    }
}

#define EACH(T, LOAD, STORE, call)                                                                              \
    {                                                                                                           \
        const T *in = x;                                                                                        \
        T *out = y;                                                                                             \
        for (size_t i = 0; i < n; i++)                                                                          \
            out[i] = STORE(call(f, a, b, LOAD(in[i])));                                                         \
        break;                                                                                                  \
    }

void mo_ref_unary_typed(struct mo_device *dev, enum mo_unary f, int dtype, double a, double b, size_t n,
                        const void *x, void *y)
{
    switch (dtype) {
    case 1: EACH(float, SAME, (float), unary_double)
    case 2: EACH(uint8_t, SAME, (uint8_t), unary_int)
    case 3: EACH(int8_t, SAME, (int8_t), unary_int)
    case 4: EACH(uint16_t, SAME, (uint16_t), unary_int)
    case 5: EACH(int16_t, SAME, (int16_t), unary_int)
    case 6: EACH(int32_t, SAME, (int32_t), unary_int)
    case 7: EACH(int64_t, SAME, (int64_t), unary_int)
    case 10: EACH(uint16_t, mo_float_of_f16, mo_f16_of_float, (float)unary_double)
    case 11: EACH(double, SAME, SAME, unary_double)
    case 12: EACH(uint32_t, SAME, (uint32_t), unary_int)
    case 13: EACH(uint64_t, SAME, (uint64_t), unary_u64)
    case 16: EACH(uint16_t, mo_float_of_bf16, mo_bf16_of_float, (float)unary_double)
    default: mo_device_latch(dev, "unary_typed: no kernel for this element type");
    }
}
