/* cast.cu - ONNX Cast between all number types, and 2- and 4-bit packing.
 *
 * As on the CPU: between integers through int64, all else through float64. */
#include "kernels/cuda/device.cuh"

#define NOT_SATURATING 256
#define ROUND_UP 512
#define ROUND_DOWN 1024
#define FLAGS (NOT_SATURATING | ROUND_UP | ROUND_DOWN)

static bool is_int(int dtype)
{
    return (dtype >= 2 && dtype <= 7) || dtype == 9 || dtype == 12 || dtype == 13 || dtype == 21 || dtype == 22 ||
           dtype == 25 || dtype == 26;
}

static bool is_number(int dtype)
{
    return is_int(dtype) || dtype == 1 || dtype == 10 || dtype == 11 || (dtype >= 16 && dtype <= 20) || dtype == 23 ||
           dtype == 24;
}

/* ---- small floats, by bits: IEEE 754-2008, OCP 8-bit floating point 1.0, OCP MX 1.0 ---- */

struct small_format {
    int mantissa_bits, bias, bits;
    uint32_t max, inf, nan;     /* codes; inf is nan's where there is none */
    bool no_negative_zero;      /* FNUZ: that code is the NaN */
};

static struct small_format format_of(int dtype)
{
    switch (dtype) {
    case 10: return { 10, 15, 16, 0x7bff, 0x7c00, 0x7e00, false };
    case 16: return { 7, 127, 16, 0x7f7f, 0x7f80, 0x7fc0, false };
    case 17: return { 3, 7, 8, 0x7e, 0x7f, 0x7f, false };
    case 18: return { 3, 8, 8, 0x7f, 0x80, 0x80, true };
    case 19: return { 2, 15, 8, 0x7b, 0x7c, 0x7f, false };
    case 20: return { 2, 16, 8, 0x7f, 0x80, 0x80, true };
    case 23: return { 1, 1, 4, 0x7, 0x7, 0x8, false };      /* no infinity; NaN becomes -0 */
    default: return {};
    }
}

/* To nearest, ties to even, from float64, so that nothing is rounded twice. */
static __device__ uint32_t encode(const struct small_format &f, double x, bool saturate)
{
    uint32_t sign = signbit(x) ? 1u << (f.bits - 1) : 0, code;
    if (isnan(x))
        return f.nan | (f.no_negative_zero ? 0 : sign);
    double a = fabs(x);
    if (a == 0) {
        code = 0;
    } else if (isinf(a)) {
        code = UINT32_MAX;
    } else {
        int exponent;
        frexp(a, &exponent);                            /* a = m 2^exponent, 0.5 <= m < 1 */
        int least = 1 - f.bias, e = exponent - 1 < least ? least : exponent - 1;
        double steps = rint(ldexp(a, f.mantissa_bits - e));
        int64_t wide = (int64_t)steps + ((int64_t)(e - least) << f.mantissa_bits);
        code = wide > (int64_t)f.max ? UINT32_MAX : (uint32_t)wide;
    }
    if (code == UINT32_MAX)
        return saturate ? f.max | sign : f.inf | (f.no_negative_zero ? 0 : sign);
    return code == 0 && f.no_negative_zero ? 0 : code | sign;
}

static __device__ double decode(const struct small_format &f, uint32_t code)
{
    uint32_t sign_bit = 1u << (f.bits - 1), a = code & (sign_bit - 1);
    double sign = code & sign_bit ? -1 : 1;
    if (f.no_negative_zero ? code == f.nan : a > f.max) {
        bool is_inf = !f.no_negative_zero && f.inf != f.nan && a == f.inf;
        return is_inf ? sign * INFINITY : nan("");
    }
    int e = (int)(a >> f.mantissa_bits), least = 1 - f.bias;
    uint32_t m = a & ((1u << f.mantissa_bits) - 1);
    if (e == 0)
        return sign * ldexp((double)m, least - f.mantissa_bits);
    return sign * ldexp((double)(m + (1u << f.mantissa_bits)), least + e - 1 - f.mantissa_bits);
}

/* float8e8m0: a power of two by its exponent; what is too small or large is held at the border. */
static __device__ uint8_t encode_e8m0(double x, int flags)
{
    if (isnan(x))
        return 255;
    x = fabs(x);
    if (x <= 0x1p-127)
        return 0;
    if (x >= 0x1p127)
        return 254;
    int exponent;
    double m = frexp(x, &exponent);
    bool is_up = flags & ROUND_UP ? m > 0.5 : flags & ROUND_DOWN ? false : m >= 0.75;
    return (uint8_t)(exponent - 1 + 127 + is_up);
}

/* ---- one element ---- */

static __device__ int64_t get_int(int dtype, const void *x, int64_t i)
{
    switch (dtype) {
    case 3: case 22: case 26: return ((const int8_t *)x)[i];
    case 4: return ((const uint16_t *)x)[i];
    case 5: return ((const int16_t *)x)[i];
    case 6: return ((const int32_t *)x)[i];
    case 7: case 13: return ((const int64_t *)x)[i];
    case 12: return ((const uint32_t *)x)[i];
    default: return ((const uint8_t *)x)[i];
    }
}

static __device__ void put_int(int dtype, int64_t v, void *y, int64_t i)
{
    switch (dtype) {
    case 2: case 3: ((uint8_t *)y)[i] = (uint8_t)v; break;
    case 4: case 5: ((uint16_t *)y)[i] = (uint16_t)v; break;
    case 6: case 12: ((uint32_t *)y)[i] = (uint32_t)v; break;
    case 7: case 13: ((int64_t *)y)[i] = v; break;
    case 9: ((uint8_t *)y)[i] = v != 0; break;
    case 21: ((uint8_t *)y)[i] = (uint8_t)(v & 15); break;
    case 25: ((uint8_t *)y)[i] = (uint8_t)(v & 3); break;
    case 22: ((int8_t *)y)[i] = (int8_t)(((v & 15) ^ 8) - 8); break;
    case 26: ((int8_t *)y)[i] = (int8_t)(((v & 3) ^ 2) - 2); break;
    }
}

static __device__ double get_double(int dtype, const struct small_format &f, const void *x, int64_t i)
{
    switch (dtype) {
    case 1: return ((const float *)x)[i];
    case 11: return ((const double *)x)[i];
    case 13: return (double)((const uint64_t *)x)[i];
    case 24: {
        uint8_t code = ((const uint8_t *)x)[i];
        return code == 255 ? nan("") : ldexp(1.0, code - 127);
    }
    default: break;
    }
    if (f.bits)
        return decode(f, f.bits == 16 ? ((const uint16_t *)x)[i] : ((const uint8_t *)x)[i]);
    return (double)get_int(dtype, x, i);
}

static __device__ int64_t truncated(double x)
{
    return x >= 0x1p63 ? INT64_MAX : x >= -0x1p63 ? (int64_t)x : INT64_MIN;
}

static __device__ void put_double(int dtype, int flags, const struct small_format &f, double v, void *y, int64_t i)
{
    if (dtype == 1) {
        ((float *)y)[i] = (float)v;
    } else if (dtype == 11) {
        ((double *)y)[i] = v;
    } else if (dtype == 9) {
        ((uint8_t *)y)[i] = v != 0;
    } else if (dtype == 13) {
        ((uint64_t *)y)[i] = v >= 0x1p63 && v < 0x1p64 ? (uint64_t)v : (uint64_t)truncated(v);
    } else if (dtype == 24) {
        ((uint8_t *)y)[i] = encode_e8m0(v, flags);
    } else if (f.bits) {
        uint32_t code = encode(f, v, !(flags & NOT_SATURATING) && f.bits <= 8);
        if (f.bits == 16)
            ((uint16_t *)y)[i] = (uint16_t)code;
        else
            ((uint8_t *)y)[i] = (uint8_t)code;
    } else {
        put_int(dtype, truncated(v), y, i);
    }
}

static size_t elem_bytes(int dtype)
{
    switch (dtype) {
    case 7: case 11: case 13: return 8;
    case 1: case 6: case 12: return 4;
    case 4: case 5: case 10: case 16: return 2;
    default: return 1;
    }
}

/* The pairs that models use pass through nothing. */
template <class S, class D> static void cast_direct(struct mo_device *dev, size_t n, const void *x, void *y)
{
    mo_each(dev, (int64_t)n,
            [=] __device__(int64_t i) { ((D *)y)[i] = mo_stored<D>::of(mo_load(((const S *)x)[i])); });
}

static bool is_direct(struct mo_device *dev, int from, int to, size_t n, const void *x, void *y)
{
    switch (from * 32 + to) {
    case 1 * 32 + 10: cast_direct<float, __half>(dev, n, x, y); return true;
    case 10 * 32 + 1: cast_direct<__half, float>(dev, n, x, y); return true;
    case 1 * 32 + 16: cast_direct<float, __nv_bfloat16>(dev, n, x, y); return true;
    case 16 * 32 + 1: cast_direct<__nv_bfloat16, float>(dev, n, x, y); return true;
    case 2 * 32 + 1: case 9 * 32 + 1: cast_direct<uint8_t, float>(dev, n, x, y); return true;
    case 3 * 32 + 1: cast_direct<int8_t, float>(dev, n, x, y); return true;
    case 6 * 32 + 1: cast_direct<int32_t, float>(dev, n, x, y); return true;
    case 7 * 32 + 1: cast_direct<int64_t, float>(dev, n, x, y); return true;
    default: return false;
    }
}

void mo_cuda_cast(struct mo_device *dev, int from, int to_and_flags, size_t n, const void *x, void *y)
{
    int to = to_and_flags & ~FLAGS, flags = to_and_flags & FLAGS;
    if (!is_number(from) || !is_number(to)) {
        mo_cuda_latch(dev, "cast: no kernel from element type %d to %d", from, to);
        return;
    }
    if (from == to && from != 9) {
        mo_cuda_use(dev);
        if (n && x != y)
            mo_cuda_is_ok(dev, cudaMemcpyAsync(y, x, n * elem_bytes(from), cudaMemcpyDeviceToDevice, dev->stream),
                          "copy");
        return;
    }
    if (is_direct(dev, from, to, n, x, y))
        return;
    bool by_int = is_int(from) && is_int(to);
    struct small_format f = format_of(from), t = format_of(to);
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        if (by_int)
            put_int(to, get_int(from, x, i), y, i);
        else
            put_double(to, flags, t, get_double(from, f, x, i), y, i);
    });
}

/* ---- packing ---- */

void mo_cuda_unpack_bits(struct mo_device *dev, int dtype, size_t n, const void *x, void *y)
{
    int bits = dtype == 25 || dtype == 26 ? 2 : 4, per_byte = 8 / bits, mask = (1 << bits) - 1, sign = 1 << (bits - 1);
    bool is_signed = dtype == 22 || dtype == 26;
    mo_each(dev, (int64_t)n, [=] __device__(int64_t i) {
        int v = ((const uint8_t *)x)[i / per_byte] >> (int)(i % per_byte) * bits & mask;
        ((uint8_t *)y)[i] = (uint8_t)(is_signed ? (v ^ sign) - sign : v);
    });
}

void mo_cuda_pack_bits(struct mo_device *dev, int dtype, size_t n, const void *x, void *y)
{
    int bits = dtype == 25 || dtype == 26 ? 2 : 4, per_byte = 8 / bits, mask = (1 << bits) - 1;
    int64_t count = (int64_t)n;
    mo_each(dev, (count + per_byte - 1) / per_byte, [=] __device__(int64_t i) {
        int v = 0;
        for (int k = 0; k < per_byte && i * per_byte + k < count; k++)
            v |= (((const uint8_t *)x)[i * per_byte + k] & mask) << k * bits;
        ((uint8_t *)y)[i] = (uint8_t)v;
    });
}
