/* quantize_weights.c - integers and scales of weights and biases.
 *
 *     scale[c] = max |w[c]| / q_max          q = round_half_even(w / scale[c]) in [-q_max, q_max]
 *     bias     = round(b / (scale_x scale[c])), an int32
 *
 * The bias may not come near the end of int32, since the products are added to it: where |b| / (scale_x scale[c])
 * exceeds 2^30 the channel's weight scale is raised instead (a channel of nearly dead weights with a large bias). */
#include "lib/base/spill.h"
#include "lib/graph/private.h"
#include "lib/passes/quantize.h"

#include <math.h>
#include <string.h>

#define BIAS_MAX 1073741824.0   /* 2^30 */

int mo_quant_weight_axis(const struct mo_graph *g, const struct mo_node *n, bool per_channel)
{
    const struct mo_value *w = mo_in(g, n, 1);
    if (!per_channel || !w || w->shape.rank < 2)
        return MO_UNKNOWN;
    if (mo_node_is(n, "Conv"))
        return 0;
    if (mo_node_is(n, "ConvTranspose"))
        return mo_node_int(n, "group", 1) == 1 ? 1 : MO_UNKNOWN;
    if (mo_node_is(n, "Gemm"))
        return mo_node_int(n, "transB", 0) ? 0 : 1;
    if (mo_node_is(n, "MatMul"))
        return w->shape.rank == 2 ? 1 : MO_UNKNOWN;
    return MO_UNKNOWN;
}

/* w seen as outer x n_scales x inner */
struct channels { int64_t outer, n, inner; };

static struct channels channels_of(const struct mo_value *w, int axis)
{
    struct channels c = { 1, 1, 1 };
    if (axis == MO_UNKNOWN) {
        c.inner = mo_value_elems(w);
        return c;
    }
    for (int i = 0; i < w->shape.rank; i++)
        *(i < axis ? &c.outer : i == axis ? &c.n : &c.inner) *= w->shape.dim[i];
    return c;
}

/* Largest magnitudes to scales; a channel of zeros takes the scale of the largest channel. */
static void scales_from_max(float *scale, int64_t n, int q_max, const float *least)
{
    float largest = 0;
    for (int64_t c = 0; c < n; c++)
        largest = MO_MAX(largest, scale[c]);
    for (int64_t c = 0; c < n; c++) {
        float max = scale[c] > 0 ? scale[c] : largest > 0 ? largest : 1.0f;
        scale[c] = MO_MAX(max / (float)q_max, 1e-30f);
        if (least)
            scale[c] = MO_MAX(scale[c], least[c]);
    }
}

enum { LANES = 16, SUM_ROWS = 256 };    /* sums in float are short, and go on in double */

/* Adding and taking away 1.5 * 2^23 rounds to nearest even what is smaller than 2^22. */
#define ROUND_MAGIC 12582912.0f

void mo_quant_round(const float *x, int8_t *q, int64_t n, const struct mo_quant_step *step, double *signal, double *noise)
{
    float s[LANES], z[LANES] = { 0 }, good[LANES] = { 0 }, bad[LANES] = { 0 };
    for (int64_t i = 0; i < n; i += LANES) {
        float part[LANES] = { 0 }, r[LANES];
        int64_t m = MO_MIN(n - i, (int64_t)LANES);
        for (int64_t k = 0; k < LANES; k++)
            s[k] = step->scale[step->each ? (k < m ? i + k : i) : 0];
        for (int64_t k = 0; step->zero && k < LANES; k++)
            z[k] = step->zero[step->each ? (k < m ? i + k : i) : 0];
        memcpy(part, x + i, (size_t)m * sizeof *part);
        for (int k = 0; k < LANES; k++) {
            float t = part[k] / s[k], high = step->high - z[k], low = step->low - z[k];
            t = t <= high ? t : high;       /* NaN too, which the caller finds in *signal */
            t = t >= low ? t : low;
            t = (t + ROUND_MAGIC) - ROUND_MAGIC;
            r[k] = t + z[k];
            float e = part[k] - t * s[k];
            good[k] += part[k] * part[k];
            bad[k] += e * e;
        }
        for (int k = 0; k < m; k++)
            q[i + k] = (int8_t)r[k];
        if (i / LANES % SUM_ROWS && i + LANES < n)
            continue;
        for (int k = 0; k < LANES; k++) {
            *signal += good[k];
            *noise += bad[k];
            good[k] = bad[k] = 0;
        }
    }
}

/* The bits of a magnitude, which are ordered as magnitudes are, infinity and NaN last. */
static int32_t magnitude_bits(float x)
{
    union { float f; int32_t bits; } v = { .f = x };
    return v.bits & INT32_MAX;
}

/* Largest magnitude of each channel into scale; false: there is NaN or infinity. */
static bool find_max(const float *x, const struct channels *c, float *scale)
{
    int32_t largest = 0;
    for (int64_t row = 0; row < c->outer * c->n && c->inner > 1; row++) {
        union { int32_t bits; float f; } max = { .bits = 0 };
        for (int64_t i = 0; i < c->inner; i++) {
            int32_t bits = magnitude_bits(x[row * c->inner + i]);
            max.bits = bits > max.bits ? bits : max.bits;
        }
        scale[row % c->n] = MO_MAX(scale[row % c->n], max.f);
        largest = MO_MAX(largest, max.bits);
    }
    for (int64_t o = 0; o < c->outer && c->inner == 1; o++)
        for (int64_t i = 0; i < c->n; i++) {
            float v = x[o * c->n + i], size = fabsf(v);
            int32_t bits = magnitude_bits(v);
            scale[i] = size > scale[i] ? size : scale[i];
            largest = bits > largest ? bits : largest;
        }
    return largest < magnitude_bits(INFINITY);
}

enum mopt_status mo_quant_weight(struct mopt_ctx *ctx, const struct mo_value *w, int axis, int q_max,
                                 const float *least, struct mo_quant_weight *out)
{
    int64_t n_elems = mo_value_elems(w);
    struct channels c = channels_of(w, axis);
    memset(out, 0, sizeof *out);
    float *copy = w->dtype == MO_F32 ? NULL : mo_value_floats(w);
    const float *x = w->dtype == MO_F32 ? w->data : copy;
    out->q = mo_constant_new(ctx, (size_t)MO_MAX(n_elems, 1));
    out->scale = mo_mem_new((size_t)MO_MAX(c.n, 1), sizeof(float));
    if (!x || !out->q || !out->scale) {
        mo_mem_free(copy);
        mo_quant_weight_free(out);
        return mo_no_memory(ctx, (uint64_t)n_elems * 5, "quantized weights");
    }
    out->axis = axis;
    out->n_scales = c.n;
    out->n_elems = n_elems;
    double signal = 0, noise = 0;
    bool is_finite = find_max(x, &c, out->scale);
    scales_from_max(out->scale, c.n, q_max, least);
    struct mo_quant_step step = { .each = c.inner == 1, .low = (float)-q_max, .high = (float)q_max };
    int64_t n_rows = c.inner == 1 ? c.outer : c.outer * c.n, width = c.inner == 1 ? c.n : c.inner;
    for (int64_t row = 0; row < n_rows && is_finite; row++) {
        step.scale = out->scale + (c.inner == 1 ? 0 : row % c.n);
        mo_quant_round(x + row * width, out->q + row * width, width, &step, &signal, &noise);
    }
    out->sqnr_db = 10 * log10(signal / noise);
    mo_mem_free(copy);
    if (is_finite)
        return MOPT_OK;
    mo_quant_weight_free(out);
    return mo_fail(ctx, MOPT_DATA, "weight '%s' holds NaN or infinity", w->name);
}

mo_value_id mo_quant_add_const(struct mo_graph *g, const char *name, enum mo_dtype dtype, const struct mo_shape *shape,
                               void *heap)
{
    mo_value_id id = mo_graph_add_value(g, name, dtype, shape);
    if (id == MO_NONE || !mo_graph_make_initializer(g, id)) {
        mo_mem_free(heap);
        return MO_NONE;
    }
    mo_value_set_data(g, id, dtype, shape, heap);
    return id;
}

void mo_quant_weight_free(struct mo_quant_weight *w)
{
    mo_mem_free(w->q);
    mo_mem_free(w->scale);
    w->q = NULL;
    w->scale = NULL;
}

enum mopt_status mo_quant_bias_least(struct mopt_ctx *ctx, const struct mo_value *b, float scale_x,
                                     const struct mo_quant_weight *w, float **least)
{
    int64_t n = mo_value_elems(b);
    bool is_needed = false;
    *least = NULL;
    float *x = mo_value_floats(b);
    float *out = mo_mem_new((size_t)MO_MAX(w->n_scales, 1), sizeof(float));
    if (!x || !out) {
        mo_mem_free(x);
        mo_mem_free(out);
        return mo_no_memory(ctx, (uint64_t)n * 8, "a bias");
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t c = w->n_scales == 1 ? 0 : i;
        /* a little above, so that rounding the scale to float cannot cross the limit */
        float need = (float)(fabs((double)x[i]) / (scale_x * BIAS_MAX) * 1.0001);
        out[c] = MO_MAX(out[c], need);
        is_needed = is_needed || need > w->scale[c];
    }
    mo_mem_free(x);
    if (is_needed)
        *least = out;
    else
        mo_mem_free(out);
    return MOPT_OK;
}

enum mopt_status mo_quant_bias(struct mopt_ctx *ctx, const struct mo_value *b, float scale_x, const float *scale_w,
                               int64_t n_scales, int32_t **q, float **scale)
{
    int64_t n = mo_value_elems(b);
    float *x = mo_value_floats(b);
    *q = mo_mem_new((size_t)MO_MAX(n, 1), sizeof **q);
    *scale = mo_mem_new((size_t)MO_MAX(n_scales, 1), sizeof **scale);
    if (!x || !*q || !*scale) {
        mo_mem_free(x);
        mo_mem_free(*q);
        mo_mem_free(*scale);
        *q = NULL;
        *scale = NULL;
        return mo_no_memory(ctx, (uint64_t)n * 8, "a bias");
    }
    for (int64_t c = 0; c < n_scales; c++)
        (*scale)[c] = MO_MAX(scale_x * scale_w[c], 1e-38f);
    for (int64_t i = 0; i < n; i++) {
        double r = rint((double)x[i] / (*scale)[n_scales == 1 ? 0 : i]);
        (*q)[i] = (int32_t)MO_MIN(MO_MAX(r, -BIAS_MAX), BIAS_MAX);
    }
    mo_mem_free(x);
    return MOPT_OK;
}
