/* convert.c - elements from one type to another: floats by rounding, floats to integers by truncation within range. */
#include "lib/data/convert.h"

#include <string.h>

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 1023u, bits;
    if (exponent == 31)
        bits = sign | 0x7f800000u | fraction << 13;
    else if (exponent)
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    else { /* fraction * 2^-24 */
        float x = (float)fraction * 0x1p-24f;
        memcpy(&bits, &x, 4);
        bits |= sign;
    }
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* To nearest, ties to even. */
static uint16_t float_to_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return sign | 0x7e00u;
    if (rest >= 0x477ff000u) /* 65520 and more */
        return sign | 0x7c00u;
    if (rest < 0x38800000u) { /* below 2^-14: a multiple of 2^-24 */
        float scaled;
        memcpy(&scaled, &rest, 4);
        scaled = scaled * 0x1p24f + 0x1p23f; /* the add rounds to even */
        memcpy(&bits, &scaled, 4);
        return (uint16_t)(sign | (bits & 0x7ffu));
    }
    uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

static float bfloat_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint16_t float_to_bfloat(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#define NUMBERS(X)                                                                                     \
    X(MO_F32, float) X(MO_F64, double) X(MO_U8, uint8_t) X(MO_I8, int8_t) X(MO_U16, uint16_t)          \
    X(MO_I16, int16_t) X(MO_I32, int32_t) X(MO_I64, int64_t) X(MO_U32, uint32_t) X(MO_U64, uint64_t)

bool mo_convert_known(enum mo_dtype dtype)
{
    switch (dtype) {
#define X(type, c) case type:
        NUMBERS(X)
#undef X
    case MO_BOOL:
    case MO_F16:
    case MO_BF16:
        return true;
    default:
        return false;
    }
}

static bool is_integer(enum mo_dtype dtype)
{
    return !mo_dtype_is_float(dtype);
}

static double get_number(enum mo_dtype dtype, const void *in, size_t i)
{
    switch (dtype) {
#define X(type, c) \
    case type:     \
        return (double)((const c *)in)[i];
        NUMBERS(X)
#undef X
    case MO_BOOL:
        return ((const uint8_t *)in)[i] != 0;
    case MO_F16:
        return half_to_float(((const uint16_t *)in)[i]);
    case MO_BF16:
        return bfloat_to_float(((const uint16_t *)in)[i]);
    default:
        return 0;
    }
}

static int64_t get_integer(enum mo_dtype dtype, const void *in, size_t i)
{
    switch (dtype) {
#define X(type, c) \
    case type:     \
        return (int64_t)((const c *)in)[i];
        NUMBERS(X)
#undef X
    case MO_BOOL:
        return ((const uint8_t *)in)[i] != 0;
    default:
        return 0;
    }
}

static void put_integer(enum mo_dtype dtype, void *out, size_t i, int64_t x)
{
    switch (dtype) {
#define X(type, c)             \
    case type:                 \
        ((c *)out)[i] = (c)x;  \
        break;
        NUMBERS(X)
#undef X
    case MO_BOOL:
        ((uint8_t *)out)[i] = x != 0;
        break;
    default:
        break;
    }
}

#define MOST_I64 9223372036854774784.0 /* the largest double below 2^63 */

static int64_t clamp_to(double x, double low, double high)
{
    return !(x > low) ? (int64_t)low : x >= high ? (int64_t)high : (int64_t)x;
}

static int64_t float_to_integer(enum mo_dtype dtype, double x)
{
    if (x != x)
        return 0;
    switch (dtype) {
    case MO_U8: return clamp_to(x, 0, 255);
    case MO_I8: return clamp_to(x, -128, 127);
    case MO_U16: return clamp_to(x, 0, 65535);
    case MO_I16: return clamp_to(x, -32768, 32767);
    case MO_I32: return clamp_to(x, -2147483648.0, 2147483647.0);
    case MO_U32: return clamp_to(x, 0, 4294967295.0);
    case MO_U64: return clamp_to(x, 0, MOST_I64);
    case MO_BOOL: return x != 0;
    default: return clamp_to(x, -MOST_I64, MOST_I64);
    }
}

static void put_number(enum mo_dtype dtype, void *out, size_t i, double x)
{
    if (dtype == MO_F32)
        ((float *)out)[i] = (float)x;
    else if (dtype == MO_F64)
        ((double *)out)[i] = x;
    else if (dtype == MO_F16)
        ((uint16_t *)out)[i] = float_to_half((float)x);
    else if (dtype == MO_BF16)
        ((uint16_t *)out)[i] = float_to_bfloat((float)x);
    else
        put_integer(dtype, out, i, float_to_integer(dtype, x));
}

void mo_convert(enum mo_dtype from, const void *in, enum mo_dtype to, void *out, size_t n)
{
    if (from == to)
        memcpy(out, in, mo_dtype_bytes(from, (int64_t)n));
    else if (from == MO_F64 && to == MO_F32)
        for (size_t i = 0; i < n; i++)
            ((float *)out)[i] = (float)((const double *)in)[i];
    else if (from == MO_U8 && to == MO_F32)
        for (size_t i = 0; i < n; i++)
            ((float *)out)[i] = ((const uint8_t *)in)[i];
    else if (is_integer(from) && is_integer(to))
        for (size_t i = 0; i < n; i++)
            put_integer(to, out, i, get_integer(from, in, i));
    else
        for (size_t i = 0; i < n; i++)
            put_number(to, out, i, get_number(from, in, i));
}
