/* nn_math.h - elementary functions in float32 without branches and calls, so that
 * loops over them become vector code. Relative error below 4e-7 where the result
 * is a normal number; infinities, NaN and underflow behave as in libm.
 *
 * The polynomials are minimax fits over the reduced ranges named beside them. */
#ifndef MO_NN_MATH_H
#define MO_NN_MATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A call that is left in a loop keeps it from becoming vector code. */
#define NN_INLINE static inline __attribute__((always_inline))

NN_INLINE float nn_float(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

NN_INLINE int32_t nn_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 2^n for -127 < n < 128; any n, which NaN gives, is no harm */
NN_INLINE float nn_pow2(int32_t n)
{
    return nn_float((int32_t)((uint32_t)(n + 127) << 23));
}

/* x = n ln 2 + r, |r| <= ln 2 / 2, for |x| < 2^20. Adding 1.5 * 2^23 rounds to an integer, which
 * then stands in the low bits; unlike a conversion it is defined for NaN too. */
NN_INLINE float nn_reduce(float x, int32_t *n)
{
    const float magic = 12582912.0f;
    float t = x * 1.44269504f + magic, k = t - magic;
    *n = nn_bits(t) - nn_bits(magic);
    return (x - k * 0.693359375f) + k * 2.12194440e-4f;     /* ln 2 = 355/512 minus the rest, for an exact product */
}

/* exp(r) - 1 for |r| <= ln 2 / 2 */
NN_INLINE float nn_expm1_small(float r)
{
    float p = 1.9908905e-4f;
    p = p * r + 1.3934544e-3f;
    p = p * r + 8.333284e-3f;
    p = p * r + 4.1666456e-2f;
    p = p * r + 0.16666667f;
    p = p * r + 0.5f;
    return p * r * r + r;
}

NN_INLINE float nn_exp(float x)
{
    float c = x > 89.0f ? 89.0f : x;
    c = c < -104.0f ? -104.0f : c;
    int32_t n;
    float r = nn_reduce(c, &n);
    int32_t half = n >> 1;      /* two factors, because 2^128 and 2^-150 are no floats */
    return (1.0f + nn_expm1_small(r)) * nn_pow2(half) * nn_pow2(n - half);
}

/* exp(x) - 1, accurate near 0 too; for x <= 88 */
NN_INLINE float nn_expm1(float x)
{
    float c = x < -60.0f ? -60.0f : x;
    int32_t n;
    float r = nn_reduce(c, &n);
    float two_n = nn_pow2(n);
    return two_n * nn_expm1_small(r) + (two_n - 1.0f);
}

/* log(1 + f) + k ln 2 for sqrt(1/2) <= 1 + f <= sqrt(2) */
NN_INLINE float nn_log_near_1(float f, float k)
{
    float q = 6.917984e-2f;
    q = q * f - 0.11779667f;
    q = q * f + 0.11866035f;
    q = q * f - 0.12385798f;
    q = q * f + 0.14219919f;
    q = q * f - 0.16669197f;
    q = q * f + 0.20002152f;
    q = q * f - 0.24999987f;
    q = q * f + 0.3333331f;
    return ((f * f * f * q - k * 2.12194440e-4f) - 0.5f * f * f) + f + k * 0.693359375f;
}

NN_INLINE float nn_log(float x)
{
    float s = x < 1.17549435e-38f ? x * 33554432.0f : x;                    /* subnormals: times 2^25 */
    uint32_t bits = (uint32_t)nn_bits(s);
    int32_t e = (int32_t)(bits - 0x3f3504f3u) >> 23;                        /* 0x3f3504f3: sqrt(1/2) */
    float k = (float)e - (x < 1.17549435e-38f ? 25.0f : 0.0f);
    float y = nn_log_near_1(nn_float((int32_t)(bits - ((uint32_t)e << 23))) - 1.0f, k);
    y = x == INFINITY ? x : y;
    y = x == 0.0f ? -INFINITY : y;
    return x < 0.0f || x != x ? NAN : y;
}

/* log(1 + u) for 0 <= u <= 1 */
NN_INLINE float nn_log1p_unit(float u)
{
    bool is_large = u > 0.41421356f;
    return nn_log_near_1(is_large ? 0.5f * u - 0.5f : u, is_large ? 1.0f : 0.0f);
}

NN_INLINE float nn_sigmoid(float x)
{
    return 1.0f / (1.0f + nn_exp(-x));
}

/* tanh t = e / (e + 2) with e = exp(2 t) - 1; 1 from 9.02 on */
NN_INLINE float nn_tanh(float x)
{
    float t = fabsf(x);
    t = t > 9.02f ? 9.02f : t;
    float e = nn_expm1(2.0f * t);
    return copysignf(e / (e + 2.0f), x);
}

/* Below 1: x times a polynomial in x^2. From 1 to 4: 1 - exp(-p(x)) with p = -log(erfc). */
NN_INLINE float nn_erf(float x)
{
    float t = fabsf(x), s = t * t;
    float p = 7.889119e-5f;
    p = p * s - 8.020841e-4f;
    p = p * s + 5.189535e-3f;
    p = p * s - 2.6854444e-2f;
    p = p * s + 0.112836f;
    p = p * s - 0.37612626f;
    p = p * s + 1.1283791f;
    float u = t > 4.0f ? 4.0f : t;
    float q = 1.1504241e-3f;
    q = q * u - 1.4778134e-2f;
    q = q * u + 8.8634215e-2f;
    q = q * u + 0.65448886f;
    q = q * u + 1.1174386f;
    q = q * u + 2.6716907e-3f;
    return copysignf(t < 1.0f ? t * p : -nn_expm1(-q), x);
}

NN_INLINE float nn_softplus(float x)
{
    return (x > 0.0f ? x : 0.0f) + nn_log1p_unit(nn_exp(-fabsf(x)));
}

/* tanh(softplus(x)) = n / (n + 2), n = e^x (e^x + 2); 1 from 20 on */
NN_INLINE float nn_tanh_softplus(float x, float *one_minus)
{
    float e = nn_exp(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f);
    *one_minus = 2.0f / (n + 2.0f);
    return n / (n + 2.0f);
}

#endif
