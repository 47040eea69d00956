/* Element types: names, sizes, and the two half precisions as numbers.
 * The table's order is ONNX's TensorProto.DataType. */
#include "lib/graph/graph.h"

#include <string.h>

static const struct { const char *name; int bits; } types[MO_N_DTYPES] = {
    [MO_UNDEFINED] = { "undefined", 0 },
    [MO_F32] = { "float32", 32 },
    [MO_U8] = { "uint8", 8 },
    [MO_I8] = { "int8", 8 },
    [MO_U16] = { "uint16", 16 },
    [MO_I16] = { "int16", 16 },
    [MO_I32] = { "int32", 32 },
    [MO_I64] = { "int64", 64 },
    [MO_STRING] = { "string", 64 },
    [MO_BOOL] = { "bool", 8 },
    [MO_F16] = { "float16", 16 },
    [MO_F64] = { "float64", 64 },
    [MO_U32] = { "uint32", 32 },
    [MO_U64] = { "uint64", 64 },
    [MO_C64] = { "complex64", 64 },
    [MO_C128] = { "complex128", 128 },
    [MO_BF16] = { "bfloat16", 16 },
    [MO_F8E4M3FN] = { "float8e4m3fn", 8 },
    [MO_F8E4M3FNUZ] = { "float8e4m3fnuz", 8 },
    [MO_F8E5M2] = { "float8e5m2", 8 },
    [MO_F8E5M2FNUZ] = { "float8e5m2fnuz", 8 },
    [MO_U4] = { "uint4", 4 },
    [MO_I4] = { "int4", 4 },
    [MO_F4E2M1] = { "float4e2m1", 4 },
    [MO_F8E8M0] = { "float8e8m0", 8 },
    [MO_U2] = { "uint2", 2 },
    [MO_I2] = { "int2", 2 },
};

const char *mo_dtype_name(enum mo_dtype dtype)
{
    if (dtype == MO_SEQUENCE || dtype == MO_OPTIONAL)
        return dtype == MO_SEQUENCE ? "sequence" : "optional";
    return (unsigned)dtype < MO_N_DTYPES ? types[dtype].name : "unknown type";
}

int mo_dtype_bits(enum mo_dtype dtype)
{
    if (dtype == MO_SEQUENCE || dtype == MO_OPTIONAL)
        return 8;
    return (unsigned)dtype < MO_N_DTYPES ? types[dtype].bits : 0;
}

bool mo_dtype_is_float(enum mo_dtype dtype)
{
    return dtype == MO_F32 || dtype == MO_F16 || dtype == MO_BF16 || dtype == MO_F64;
}

size_t mo_dtype_bytes(enum mo_dtype dtype, int64_t n_elems)
{
    int bits = mo_dtype_bits(dtype);
    if (n_elems < 0)
        return SIZE_MAX;
    if (bits >= 8) {
        size_t bytes;
        return mo_mul_size((size_t)n_elems, (size_t)bits / 8, &bytes) ? bytes : SIZE_MAX;
    }
    if (bits == 0)
        return 0;
    size_t per_byte = 8 / (size_t)bits;
    return (size_t)n_elems / per_byte + ((size_t)n_elems % per_byte != 0);
}

float mo_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | fraction << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else if (fraction) {
        /* subnormal: shift the leading one to its place */
        int shift = __builtin_clz(fraction) - 21;
        bits = sign | (uint32_t)(113 - shift) << 23 | (fraction << shift & 1023) << 13;
    } else {
        bits = sign;
    }
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Rounds to nearest, ties to even; what is too large becomes infinity, as IEEE 754 says. */
uint16_t mo_f32_to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 1023));
    if (magnitude >= 0x477ff000)            /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x33000000)             /* less than half the smallest subnormal */
        return sign;
    int shift = 13;
    uint32_t fraction = magnitude;
    uint32_t base = 112u << 23;
    if (magnitude < 0x38800000) {           /* subnormal in f16 */
        shift = 126 - (int)(magnitude >> 23);
        fraction = (magnitude & 0x7fffff) | 0x800000;
        base = 0;
    }
    fraction -= base;
    uint32_t half = 1u << (shift - 1), rest = fraction & ((1u << shift) - 1), h = fraction >> shift;
    if (rest > half || (rest == half && h & 1))
        h++;
    return (uint16_t)(sign | h);
}

float mo_bf16_to_f32(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

uint16_t mo_f32_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
