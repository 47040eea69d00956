/* ref_cast.c - ONNX Cast between all number types, and 2- and 4-bit packing: plain C.
 *
 * Elements go in blocks through float64 (which holds every float type and every
 * integer to 32 bits exactly) or through int64 (between integers, so that 64-bit
 * ones stay exact and narrower ones wrap). The pairs that models use have loops
 * of their own. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/small_float.h"
#include "kernels/cpu/split.h"

enum { BLOCK = 256 };
#define NOT_SATURATING 256
#define ROUND_UP 512
#define ROUND_DOWN 1024
#define FLAGS (NOT_SATURATING | ROUND_UP | ROUND_DOWN)

static bool is_int(int dtype)
{
    return (dtype >= 2 && dtype <= 7) || dtype == 9 || dtype == 12 || dtype == 13 || dtype == 21 || dtype == 22 ||
           dtype == 25 || dtype == 26;
}

#define GET(T, to)                                                                                              \
    for (int64_t i = 0; i < n; i++)                                                                             \
        out[i] = (to)((const T *)x)[i];                                                                         \
    return true

static bool get_int(int dtype, int64_t n, const void *x, int64_t *out)
{
    switch (dtype) {
    case 2: case 9: case 21: case 25: GET(uint8_t, int64_t);
    case 3: case 22: case 26: GET(int8_t, int64_t);
    case 4: GET(uint16_t, int64_t);
    case 5: GET(int16_t, int64_t);
    case 6: GET(int32_t, int64_t);
    case 7: case 13: GET(int64_t, int64_t);
    case 12: GET(uint32_t, int64_t);
    default: return false;
    }
}

/* 2^(code - 127), 255 is NaN */
static double e8m0_to_double(uint8_t code)
{
    return code == 255 ? NAN : ldexp(1, code - 127);
}

/* A power of two by its exponent; what is too small or large is held at the border. */
static uint8_t double_to_e8m0(double x, int flags)
{
    if (isnan(x))
        return 255;
    x = fabs(x);
    if (x <= 0x1p-127)
        return 0;
    if (x >= 0x1p127)
        return 254;
    int exponent;
    double m = frexp(x, &exponent);     /* x = m 2^exponent, 0.5 <= m < 1 */
    bool is_up = flags & ROUND_UP ? m > 0.5 : flags & ROUND_DOWN ? false : m >= 0.75;
    return (uint8_t)(exponent - 1 + 127 + is_up);
}

static bool get_double(int dtype, int64_t n, const void *x, double *out)
{
    switch (dtype) {
    case 1: GET(float, double);
    case 11: GET(double, double);
    case 13: GET(uint64_t, double);
    case 7: GET(int64_t, double);
    case 24:
        for (int64_t i = 0; i < n; i++)
            out[i] = e8m0_to_double(((const uint8_t *)x)[i]);
        return true;
    default:
        break;
    }
    const struct mo_small_format *f = mo_small_format(dtype);
    if (f) {
        for (int64_t i = 0; i < n; i++)
            out[i] = mo_small_decode(f, f->bits == 16 ? ((const uint16_t *)x)[i] : ((const uint8_t *)x)[i]);
        return true;
    }
    int64_t wide[BLOCK];
    if (!get_int(dtype, n, x, wide))
        return false;
    for (int64_t i = 0; i < n; i++)
        out[i] = (double)wide[i];
    return true;
}

#define PUT(T)                                                                                                  \
    for (int64_t i = 0; i < n; i++)                                                                             \
        ((T *)y)[i] = (T)in[i];                                                                                 \
    return true

static bool put_int(int dtype, int64_t n, const int64_t *in, void *y)
{
    switch (dtype) {
    case 2: PUT(uint8_t);
    case 3: PUT(int8_t);
    case 4: PUT(uint16_t);
    case 5: PUT(int16_t);
    case 6: PUT(int32_t);
    case 7: case 13: PUT(int64_t);
    case 12: PUT(uint32_t);
    case 9:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)y)[i] = in[i] != 0;
        return true;
    case 21: case 25:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)y)[i] = (uint8_t)(in[i] & (dtype == 21 ? 15 : 3));
        return true;
    case 22: case 26: {
        int top = dtype == 22 ? 8 : 2;
        for (int64_t i = 0; i < n; i++)
            ((int8_t *)y)[i] = (int8_t)(((in[i] & (2 * top - 1)) ^ top) - top);
        return true;
    }
    default:
        return false;
    }
}

/* Truncation; what does not fit into 64 bits is held at the border, so that nothing is undefined. */
static int64_t truncated(double x)
{
    return x >= 0x1p63 ? INT64_MAX : x >= -0x1p63 ? (int64_t)x : INT64_MIN;
}

static bool put_double(int dtype, int flags, int64_t n, const double *in, void *y)
{
    switch (dtype) {
    case 1: PUT(float);
    case 11: PUT(double);
    case 9:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)y)[i] = in[i] != 0;
        return true;
    case 13:
        for (int64_t i = 0; i < n; i++)
            ((uint64_t *)y)[i] = in[i] >= 0x1p63 && in[i] < 0x1p64 ? (uint64_t)in[i] : (uint64_t)truncated(in[i]);
        return true;
    case 24:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)y)[i] = double_to_e8m0(in[i], flags);
        return true;
    default:
        break;
    }
    const struct mo_small_format *f = mo_small_format(dtype);
    if (f) {
        bool to_max = !(flags & NOT_SATURATING) && f->bits <= 8;
        for (int64_t i = 0; i < n; i++) {
            uint32_t code = mo_small_encode(f, in[i], to_max);
            if (f->bits == 16)
                ((uint16_t *)y)[i] = (uint16_t)code;
            else
                ((uint8_t *)y)[i] = (uint8_t)code;
        }
        return true;
    }
    int64_t wide[BLOCK];
    for (int64_t i = 0; i < n; i++)
        wide[i] = truncated(in[i]);
    return put_int(dtype, n, wide, y);
}

static int64_t elem_bytes(int dtype)
{
    switch (dtype) {
    case 7: case 11: case 13: return 8;
    case 1: case 6: case 12: return 4;
    case 4: case 5: case 10: case 16: return 2;
    default: return 1;
    }
}

/* ---- the common pairs ---- */

#define DIRECT(name, S, D, expr)                                                                                \
    static void name(int64_t n, const void *px, void *py)                                                       \
    {                                                                                                           \
        const S *x = px;                                                                                        \
        D *y = py;                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                       \
            S v = x[i];                                                                                         \
            y[i] = (D)(expr);                                                                                   \
        }                                                                                                       \
    }
DIRECT(f32_to_f16, float, uint16_t, mo_f16_of_float(v))
DIRECT(f16_to_f32, uint16_t, float, mo_float_of_f16(v))
DIRECT(f32_to_bf16, float, uint16_t, mo_bf16_of_float(v))
DIRECT(bf16_to_f32, uint16_t, float, mo_float_of_bf16(v))
DIRECT(f32_to_f64, float, double, v)
DIRECT(f64_to_f32, double, float, v)
DIRECT(u8_to_f32, uint8_t, float, v)
DIRECT(i8_to_f32, int8_t, float, v)
DIRECT(i32_to_f32, int32_t, float, v)
DIRECT(i64_to_f32, int64_t, float, v)
DIRECT(i64_to_i32, int64_t, int32_t, v)
DIRECT(i32_to_i64, int32_t, int64_t, v)
DIRECT(f32_to_bool, float, uint8_t, v != 0)

typedef void direct_fn(int64_t n, const void *x, void *y);
static const struct { int from, to; direct_fn *fn; } direct[] = {
    { 1, 10, f32_to_f16 },  { 10, 1, f16_to_f32 },  { 1, 16, f32_to_bf16 }, { 16, 1, bf16_to_f32 },
    { 1, 11, f32_to_f64 },  { 11, 1, f64_to_f32 },  { 2, 1, u8_to_f32 },    { 9, 1, u8_to_f32 },
    { 3, 1, i8_to_f32 },    { 6, 1, i32_to_f32 },   { 7, 1, i64_to_f32 },   { 7, 6, i64_to_i32 },
    { 6, 7, i32_to_i64 },   { 1, 9, f32_to_bool },
};

struct cast_work {
    struct mo_device *dev;
    int from, to, flags;
    direct_fn *fn;
    const char *x;
    char *y;
};

static bool cast_block(const struct cast_work *w, int64_t n, const void *x, void *y)
{
    union { double d[BLOCK]; int64_t i[BLOCK]; } mid;
    if (is_int(w->from) && is_int(w->to))
        return get_int(w->from, n, x, mid.i) && put_int(w->to, n, mid.i, y);
    return get_double(w->from, n, x, mid.d) && put_double(w->to, w->flags, n, mid.d, y);
}

static void cast_elems(void *arg, int64_t begin, int64_t end)
{
    const struct cast_work *w = arg;
    int64_t from_bytes = elem_bytes(w->from), to_bytes = elem_bytes(w->to);
    if (w->fn) {
        w->fn(end - begin, w->x + begin * from_bytes, w->y + begin * to_bytes);
        return;
    }
    for (int64_t i = begin; i < end; i += BLOCK) {
        int64_t n = end - i < BLOCK ? end - i : BLOCK;
        if (!cast_block(w, n, w->x + i * from_bytes, w->y + i * to_bytes)) {
            mo_device_latch(w->dev, "cast: no kernel from element type %d to %d", w->from, w->to);
            return;
        }
    }
}

void mo_ref_cast(struct mo_device *dev, int from, int to, size_t n, const void *x, void *y)
{
    struct cast_work w = { dev, from, to & ~FLAGS, to & FLAGS, NULL, x, y };
    if (from == w.to && from != 9) {
        memcpy(y, x, n * (size_t)elem_bytes(from));
        return;
    }
    for (size_t i = 0; i < sizeof direct / sizeof direct[0]; i++)
        if (direct[i].from == from && direct[i].to == w.to)
            w.fn = direct[i].fn;
    mo_split(dev, (int64_t)n, mo_split_grain(w.fn ? 1 : 8), cast_elems, &w);
}

/* ---- packing ---- */

static int bits_of(int dtype)
{
    return dtype == 25 || dtype == 26 ? 2 : 4;
}

void mo_ref_unpack_bits(struct mo_device *dev, int dtype, size_t n, const void *x, void *y)
{
    (void)dev;
    const uint8_t *in = x;
    uint8_t *out = y;
    int bits = bits_of(dtype), per_byte = 8 / bits, mask = (1 << bits) - 1, sign = 1 << (bits - 1);
    bool is_signed = dtype == 22 || dtype == 26;
    for (size_t i = 0; i < n; i++) {
        int v = in[i / (size_t)per_byte] >> (int)(i % (size_t)per_byte) * bits & mask;
        out[i] = (uint8_t)(is_signed ? (v ^ sign) - sign : v);
    }
}

void mo_ref_pack_bits(struct mo_device *dev, int dtype, size_t n, const void *x, void *y)
{
    (void)dev;
    const uint8_t *in = x;
    uint8_t *out = y;
    int bits = bits_of(dtype), per_byte = 8 / bits, mask = (1 << bits) - 1;
    for (size_t i = 0; i < n; i++) {
        int shift = (int)(i % (size_t)per_byte) * bits;
        if (shift == 0)
            out[i / (size_t)per_byte] = 0;
        out[i / (size_t)per_byte] |= (uint8_t)((in[i] & mask) << shift);
    }
}
