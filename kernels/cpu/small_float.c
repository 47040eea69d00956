/* small_float.c - see small_float.h. */
#include "kernels/cpu/small_float.h"

static const struct mo_small_format f16 = { 10, 15, 16, 0x7bff, 0x7c00, 0x7e00, false };
static const struct mo_small_format bf16 = { 7, 127, 16, 0x7f7f, 0x7f80, 0x7fc0, false };
static const struct mo_small_format e4m3fn = { 3, 7, 8, 0x7e, 0x7f, 0x7f, false };
static const struct mo_small_format e4m3fnuz = { 3, 8, 8, 0x7f, 0x80, 0x80, true };
static const struct mo_small_format e5m2 = { 2, 15, 8, 0x7b, 0x7c, 0x7f, false };
static const struct mo_small_format e5m2fnuz = { 2, 16, 8, 0x7f, 0x80, 0x80, true };
static const struct mo_small_format e2m1 = { 1, 1, 4, 0x7, 0x7, 0x8, false };    /* no infinity; NaN becomes -0 */

const struct mo_small_format *mo_small_format(int dtype)
{
    switch (dtype) {
    case 10: return &f16;
    case 16: return &bf16;
    case 17: return &e4m3fn;
    case 18: return &e4m3fnuz;
    case 19: return &e5m2;
    case 20: return &e5m2fnuz;
    case 23: return &e2m1;
    default: return NULL;
    }
}

uint32_t mo_small_encode(const struct mo_small_format *f, double x, bool saturate)
{
    uint32_t sign = signbit(x) ? 1u << (f->bits - 1) : 0;
    if (isnan(x))
        return f->nan | (f->no_negative_zero ? 0 : sign);
    double a = fabs(x);
    uint32_t code;
    if (a == 0) {
        code = 0;
    } else if (isinf(a)) {
        code = UINT32_MAX;
    } else {
        int exponent;
        frexp(a, &exponent);                            /* a = m 2^exponent, 0.5 <= m < 1 */
        int least = 1 - f->bias;                        /* exponent of the smallest normal number */
        int e = exponent - 1 < least ? least : exponent - 1;
        /* the step between neighbours is 2^(e - mantissa_bits); nearbyint rounds half to even */
        double steps = nearbyint(ldexp(a, f->mantissa_bits - e));
        int64_t wide = (int64_t)steps + ((int64_t)(e - least) << f->mantissa_bits);
        code = wide > (int64_t)f->max ? UINT32_MAX : (uint32_t)wide;
    }
    if (code == UINT32_MAX) {
        if (saturate)
            return f->max | sign;
        return f->inf | (f->no_negative_zero ? 0 : sign);
    }
    return code == 0 && f->no_negative_zero ? 0 : code | sign;
}

double mo_small_decode(const struct mo_small_format *f, uint32_t code)
{
    uint32_t sign_bit = 1u << (f->bits - 1), a = code & (sign_bit - 1);
    double sign = code & sign_bit ? -1 : 1;
    if (f->no_negative_zero ? code == f->nan : a > f->max) {
        bool is_inf = !f->no_negative_zero && f->inf != f->nan && a == f->inf;
        return is_inf ? sign * INFINITY : NAN;
    }
    int e = (int)(a >> f->mantissa_bits);
    uint32_t m = a & ((1u << f->mantissa_bits) - 1);
    int least = 1 - f->bias;
    if (e == 0)
        return sign * ldexp(m, least - f->mantissa_bits);
    return sign * ldexp(m + (1u << f->mantissa_bits), least + e - 1 - f->mantissa_bits);
}
