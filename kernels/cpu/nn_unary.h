/* nn_unary.h - loops of unary and unary_grad over a range; included once for each
 * instruction set with NN(name) giving the names. */

/* x and y are the same memory or do not overlap, so no element waits for another. */
#define EACH(expression)                    \
    do {                                    \
        _Pragma("GCC ivdep")                \
        for (size_t i = 0; i < n; i++) {    \
            float v = x[i];                 \
            y[i] = (expression);            \
        }                                   \
    } while (0)

static void NN(unary_rare)(enum mo_unary f, float a, float b, size_t n, const float *x, float *y)
{
    switch (f) {
    case MO_SIN: EACH(sinf(v)); break;
    case MO_COS: EACH(cosf(v)); break;
    case MO_TAN: EACH(tanf(v)); break;
    case MO_ASIN: EACH(asinf(v)); break;
    case MO_ACOS: EACH(acosf(v)); break;
    case MO_ATAN: EACH(atanf(v)); break;
    case MO_SINH: EACH(sinhf(v)); break;
    case MO_COSH: EACH(coshf(v)); break;
    case MO_ASINH: EACH(asinhf(v)); break;
    case MO_ACOSH: EACH(acoshf(v)); break;
    case MO_ATANH: EACH(atanhf(v)); break;
    case MO_FLOOR: EACH(floorf(v)); break;
    case MO_CEIL: EACH(ceilf(v)); break;
    case MO_ROUND: EACH(rintf(v)); break;
    case MO_SIGN: EACH(v > 0.0f ? 1.0f : v < 0.0f ? -1.0f : v); break;
    case MO_CELU: EACH((v > 0.0f ? v : 0.0f) + a * nn_expm1((v < 0.0f ? v : 0.0f) / a)); break;
    case MO_THRESHOLDED_RELU: EACH(v > a ? v : 0.0f); break;
    case MO_SELU: EACH(b * (v > 0.0f ? v : a * nn_expm1(v > 0.0f ? 0.0f : v))); break;
    default: break;
    }
}

static void NN(unary_range)(enum mo_unary f, float a, float b, size_t n, const float *x, float *y)
{
    float rest;
    switch (f) {
    case MO_ABS: EACH(fabsf(v)); break;
    case MO_NEG: EACH(-v); break;
    case MO_EXP: EACH(nn_exp(v)); break;
    case MO_LOG: EACH(nn_log(v)); break;
    case MO_SQRT: EACH(sqrtf(v)); break;
    case MO_RECIPROCAL: EACH(1.0f / v); break;
    case MO_SQUARE: EACH(v * v); break;
    case MO_ERF: EACH(nn_erf(v)); break;
    case MO_TANH: EACH(nn_tanh(v)); break;
    case MO_SIGMOID: EACH(nn_sigmoid(v)); break;
    case MO_RELU: EACH(v < 0.0f ? 0.0f : v); break;
    case MO_LEAKY_RELU: EACH(v < 0.0f ? a * v : v); break;
    case MO_ELU: EACH(v > 0.0f ? v : a * nn_expm1(v > 0.0f ? 0.0f : v)); break;
    case MO_CLIP: EACH(v < a ? (a > b ? b : a) : v > b ? b : v); break;
    case MO_HARD_SIGMOID: EACH(a * v + b < 0.0f ? 0.0f : a * v + b > 1.0f ? 1.0f : a * v + b); break;
    case MO_HARD_SWISH: EACH(v <= -3.0f ? 0.0f : v >= 3.0f ? v : v * (v + 3.0f) * (1.0f / 6.0f)); break;
    case MO_SOFTPLUS: EACH(nn_softplus(v)); break;
    case MO_SOFTSIGN: EACH(v / (1.0f + fabsf(v))); break;
    case MO_MISH: EACH(v * nn_tanh_softplus(v, &rest)); break;
    case MO_GELU: EACH(0.5f * v * (1.0f + nn_erf(v * 0.70710678f))); break;
    case MO_GELU_TANH: EACH(0.5f * v * (1.0f + nn_tanh(0.79788456f * (v + 0.044715f * v * v * v)))); break;
    case MO_SWISH: EACH(v * nn_sigmoid(a * v)); break;
    default: NN(unary_rare)(f, a, b, n, x, y); break;
    }
}
#undef EACH

/* v: x, w: y, g: dy. */
#define EACH(expression)                                    \
    do {                                                    \
        if (add) {                                          \
            _Pragma("GCC ivdep")                            \
            for (size_t i = 0; i < n; i++) {                \
                float v = VALUE[i], g = dy[i];              \
                (void)v, (void)g;                           \
                dx[i] += (expression);                      \
            }                                               \
        } else {                                            \
            _Pragma("GCC ivdep")                            \
            for (size_t i = 0; i < n; i++) {                \
                float v = VALUE[i], g = dy[i];              \
                (void)v, (void)g;                           \
                dx[i] = (expression);                       \
            }                                               \
        }                                                   \
    } while (0)

/* Derivatives that are written in the result; the input may be gone. */
#define VALUE y
static bool NN(unary_grad_of_y)(enum mo_unary f, float a, float b, size_t n, const float *y, const float *dy, float *dx,
                                bool add)
{
    switch (f) {
    case MO_EXP: EACH(g * v); return true;
    case MO_SQRT: EACH(0.5f * g / v); return true;
    case MO_RECIPROCAL: EACH(-g * v * v); return true;
    case MO_TANH: EACH(g * (1.0f - v * v)); return true;
    case MO_SIGMOID: EACH(g * v * (1.0f - v)); return true;
    case MO_RELU: EACH(v > 0.0f ? g : 0.0f); return true;
    case MO_CLIP: EACH(v > a && v < b ? g : 0.0f); return true;
    case MO_HARD_SIGMOID: EACH(v > 0.0f && v < 1.0f ? a * g : 0.0f); return true;
    default: return false;
    }
}
#undef VALUE

#define VALUE x
static void NN(unary_grad_rare)(enum mo_unary f, float a, float b, size_t n, const float *x, const float *dy, float *dx,
                                bool add)
{
    switch (f) {
    case MO_SIN: EACH(g * cosf(v)); break;
    case MO_COS: EACH(-g * sinf(v)); break;
    case MO_TAN: EACH(g * (1.0f + tanf(v) * tanf(v))); break;
    case MO_ASIN: EACH(g / sqrtf((1.0f - v) * (1.0f + v))); break;
    case MO_ACOS: EACH(-g / sqrtf((1.0f - v) * (1.0f + v))); break;
    case MO_ATAN: EACH(g / (1.0f + v * v)); break;
    case MO_SINH: EACH(g * coshf(v)); break;
    case MO_COSH: EACH(g * sinhf(v)); break;
    case MO_ASINH: EACH(g / sqrtf(v * v + 1.0f)); break;
    case MO_ACOSH: EACH(g / sqrtf((v - 1.0f) * (v + 1.0f))); break;
    case MO_ATANH: EACH(g / ((1.0f - v) * (1.0f + v))); break;
    case MO_CELU: EACH(v > 0.0f ? g : g * nn_exp((v > 0.0f ? 0.0f : v) / a)); break;
    case MO_THRESHOLDED_RELU: EACH(v > a ? g : 0.0f); break;
    case MO_SELU: EACH(g * b * (v > 0.0f ? 1.0f : a * nn_exp(v > 0.0f ? 0.0f : v))); break;
    default: EACH(0.0f); break;     /* Floor, Ceil, Round, Sign: flat wherever there is a derivative */
    }
}

/* d/dv of 0.5 v (1 + tanh(u)), u = sqrt(2/pi) (v + 0.044715 v^3) */
static inline float NN(gelu_tanh_slope)(float v)
{
    float t = nn_tanh(0.79788456f * (v + 0.044715f * v * v * v));
    return 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * v * v);
}

/* d/dv of v tanh(softplus(v)) = T + v (1 - T)(1 + T) sigmoid(v) */
static inline float NN(mish_slope)(float v)
{
    float rest, t = nn_tanh_softplus(v, &rest);
    return t + v * rest * (1.0f + t) * nn_sigmoid(v);
}

/* d/dv of v s, s = sigmoid(a v) */
static inline float NN(swish_slope)(float v, float a)
{
    float s = nn_sigmoid(a * v);
    return s * (1.0f + a * v * (1.0f - s));
}

static void NN(unary_grad_range)(enum mo_unary f, float a, float b, size_t n, const float *x, const float *y,
                                 const float *dy, float *dx, bool add)
{
    if (NN(unary_grad_of_y)(f, a, b, n, y, dy, dx, add))
        return;
    if (f == MO_NEG || f == MO_FLOOR || f == MO_CEIL || f == MO_ROUND || f == MO_SIGN)
        x = dy;         /* constant slopes: x need not be there */
    switch (f) {
    case MO_ABS: EACH(v > 0.0f ? g : v < 0.0f ? -g : 0.0f); break;
    case MO_NEG: EACH(-g); break;
    case MO_LOG: EACH(g / v); break;
    case MO_SQUARE: EACH(2.0f * g * v); break;
    case MO_ERF: EACH(g * 1.12837917f * nn_exp(-v * v)); break;
    case MO_LEAKY_RELU: EACH(v > 0.0f ? g : a * g); break;
    case MO_ELU: EACH(v > 0.0f ? g : g * a * nn_exp(v > 0.0f ? 0.0f : v)); break;
    case MO_HARD_SWISH: EACH(v <= -3.0f ? 0.0f : v >= 3.0f ? g : g * (2.0f * v + 3.0f) * (1.0f / 6.0f)); break;
    case MO_SOFTPLUS: EACH(g * nn_sigmoid(v)); break;
    case MO_SOFTSIGN: EACH(g / ((1.0f + fabsf(v)) * (1.0f + fabsf(v)))); break;
    case MO_MISH: EACH(g * NN(mish_slope)(v)); break;
    case MO_GELU:
        EACH(g * (0.5f * (1.0f + nn_erf(v * 0.70710678f)) + v * 0.39894228f * nn_exp(-0.5f * v * v)));
        break;
    case MO_GELU_TANH: EACH(g * NN(gelu_tanh_slope)(v)); break;
    case MO_SWISH: EACH(g * NN(swish_slope)(v, a)); break;
    default: NN(unary_grad_rare)(f, a, b, n, x, dy, dx, add); break;
    }
}
#undef VALUE
#undef EACH
