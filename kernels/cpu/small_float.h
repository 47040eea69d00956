/* small_float.h - float16, bfloat16 and the 8-bit floats, by bits.
 *
 * All fit exactly into float32. Encoding rounds to nearest, ties to even, from
 * float64, so that nothing is rounded twice. Formats: IEEE 754-2008 (binary16),
 * OCP 8-bit floating point 1.0 (E4M3, E5M2), ONNX's FNUZ forms, OCP MX 1.0 (E2M1). */
#ifndef MO_SMALL_FLOAT_H
#define MO_SMALL_FLOAT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct mo_small_format {
    int mantissa_bits, bias;
    int bits;                   /* all of it, with the sign */
    uint32_t max;               /* code of the largest finite number */
    uint32_t inf, nan;          /* codes; inf is nan's where there is none */
    bool no_negative_zero;      /* FNUZ: that code is the NaN */
};

static inline uint32_t mo_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline float mo_f32_of_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float mo_float_of_bf16(uint16_t h)
{
    return mo_f32_of_bits((uint32_t)h << 16);
}
static inline uint16_t mo_bf16_of_float(float x)
{
    uint32_t u = mo_f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* A half's exponent and mantissa moved into a float's place are the value times 2^-112. */
static inline float mo_float_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = (uint32_t)(h & 0x7fffu) << 13;
    if (magnitude >= 0x0f800000u)
        return mo_f32_of_bits(sign | 0x7f800000u | (magnitude & 0x007fffffu));
    return mo_f32_of_bits(mo_f32_bits(mo_f32_of_bits(magnitude) * 0x1p112f) | sign);
}
static inline uint16_t mo_f16_of_float(float x)
{
    uint32_t u = mo_f32_bits(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u)       /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u)        /* below 2^-14: adding 0.5 leaves the rounded mantissa in the low bits */
        return (uint16_t)(sign | (mo_f32_bits(mo_f32_of_bits(a) + 0.5f) - 0x3f000000u));
    a += 0xc8000fffu + (a >> 13 & 1u);      /* exponent bias 127 to 15, round half to even */
    return (uint16_t)(sign | a >> 13);
}

/* Any of the formats; saturate: what is too large becomes the largest finite number. */
uint32_t mo_small_encode(const struct mo_small_format *f, double x, bool saturate);
double mo_small_decode(const struct mo_small_format *f, uint32_t code);
/* By ONNX element type; NULL: not one of these. */
const struct mo_small_format *mo_small_format(int dtype);

#endif
