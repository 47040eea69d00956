/* quantize_blocks.c - weights in 4 bits, each run of `block` elements along an axis with a scale of its own (and, when asked
 * for, a zero point), as DequantizeLinear of opset 21 reads them:
 *
 *     symmetric     s = max |w| / 7.5                 q = clamp(round(w / s), -8, 7)            int4
 *     asymmetric    s = (max - min) / 15              z = round(-min / s)                       uint4
 *                                                     q = clamp(round(w / s) + z, 0, 15)
 *
 * With 7.5 the largest magnitude rounds to -8 or 7, half a step away as any other at worst, and every step is smaller by
 * 7 % than with 7. A range always has 0 in it, which stays exact. Codes lie two to a byte, the first in the low bits. */
#include <math.h>
#include <string.h>

#include "lib/base/spill.h"
#include "lib/passes/quantize.h"

/* The weight seen as outer x dim x inner, blocks along dim. */
struct view { int64_t outer, dim, inner, block, n_blocks; };

static struct view view_of(const struct mo_shape *shape, int axis, int64_t block)
{
    struct view v = { 1, shape->dim[axis], 1, block, 0 };
    for (int i = 0; i < axis; i++)
        v.outer *= shape->dim[i];
    for (int i = axis + 1; i < shape->rank; i++)
        v.inner *= shape->dim[i];
    v.n_blocks = (v.dim + block - 1) / block;
    return v;
}

enum { LANES = 16 };

/* Smallest and largest of n elements and 0. */
static void range_of_run(const float *x, int64_t n, float *low, float *high)
{
    float lo[LANES] = { 0 }, hi[LANES] = { 0 };
    for (int64_t i = 0; i < n; i += LANES) {
        float part[LANES] = { 0 };
        memcpy(part, x + i, (size_t)MO_MIN(n - i, (int64_t)LANES) * sizeof *part);
        for (int k = 0; k < LANES; k++) {
            lo[k] = part[k] < lo[k] ? part[k] : lo[k];
            hi[k] = part[k] > hi[k] ? part[k] : hi[k];
        }
    }
    *low = *high = 0;
    for (int k = 0; k < LANES; k++) {
        *low = MO_MIN(*low, lo[k]);
        *high = MO_MAX(*high, hi[k]);
    }
}

/* The same for each of `inner` columns over n rows. */
static void range_of_rows(const float *x, int64_t n, int64_t inner, float *low, float *high)
{
    if (inner == 1) {
        range_of_run(x, n, low, high);
        return;
    }
    memset(low, 0, (size_t)inner * sizeof *low);
    memset(high, 0, (size_t)inner * sizeof *high);
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < inner; i++) {
            float w = x[r * inner + i];
            low[i] = w < low[i] ? w : low[i];
            high[i] = w > high[i] ? w : high[i];
        }
}

/* low becomes the zero points, high is used up. */
static void choose_steps(float *low, const float *high, int64_t n, bool symmetric, float *scale)
{
    for (int64_t i = 0; i < n; i++) {
        float width = symmetric ? MO_MAX(-low[i], high[i]) / 7.5f : (high[i] - low[i]) / 15;
        scale[i] = width > 1e-30f ? width : 1;
        low[i] = symmetric ? 0 : rintf(MO_MIN(-low[i] / scale[i], 15.0f));
    }
}

/* n codes from place `at` on. */
static void pack(const int8_t *q, int64_t n, int64_t at, uint8_t *out)
{
    int64_t i = 0;
    if (at % 2 && n)
        out[at / 2] |= (uint8_t)((q[i++] & 15) << 4);
    for (uint8_t *to = out + (at + i) / 2; i + 1 < n; i += 2)
        *to++ = (uint8_t)((q[i] & 15) | (q[i + 1] & 15) << 4);
    if (i < n)
        out[(at + i) / 2] |= (uint8_t)(q[i] & 15);
}

/* What one block needs: a code a byte, and two numbers a column. */
struct room { int8_t *codes, *zero_codes; float *low, *high; };

static void quantize_block(const struct view *v, const float *x, int64_t o, int64_t b, struct room *room, bool symmetric,
                           struct mo_quant_blocks *out, double *signal, double *noise)
{
    int64_t first = (o * v->dim + b * v->block) * v->inner, n = MO_MIN(v->block, v->dim - b * v->block);
    int64_t at = (o * v->n_blocks + b) * v->inner;
    struct mo_quant_step step = { .scale = out->scale + at, .zero = symmetric ? NULL : room->low, .each = v->inner > 1,
                                  .low = symmetric ? -8 : 0, .high = symmetric ? 7 : 15 };
    range_of_rows(x + first, n, v->inner, room->low, room->high);
    choose_steps(room->low, room->high, v->inner, symmetric, out->scale + at);
    int64_t n_rows = v->inner > 1 ? n : 1, width = v->inner > 1 ? v->inner : n;
    for (int64_t r = 0; r < n_rows; r++)
        mo_quant_round(x + first + r * width, room->codes + r * width, width, &step, signal, noise);
    pack(room->codes, n * v->inner, first, out->codes);
    if (symmetric)
        return;
    for (int64_t i = 0; i < v->inner; i++)
        room->zero_codes[i] = (int8_t)room->low[i];
    pack(room->zero_codes, v->inner, at, out->zeros);
}

enum mopt_status mo_quant_in_blocks(struct mopt_ctx *ctx, const struct mo_value *w, int axis, int64_t block, bool symmetric,
                                    struct mo_quant_blocks *out)
{
    struct view v = view_of(&w->shape, axis, block);
    int64_t n_elems = mo_value_elems(w), n_scales = v.outer * v.n_blocks * v.inner;
    struct room room = { 0 };
    double signal = 0, noise = 0;
    *out = (struct mo_quant_blocks){ .dtype = symmetric ? MO_I4 : MO_U4, .scales = w->shape, .axis = axis, .block = block };
    out->scales.dim[axis] = v.n_blocks;
    out->codes = mo_constant_new(ctx, (size_t)(n_elems + 1) / 2);
    out->scale = mo_constant_new(ctx, (size_t)n_scales * sizeof *out->scale);
    out->zeros = symmetric ? NULL : mo_constant_new(ctx, (size_t)(n_scales + 1) / 2);
    room.codes = mo_mem_new((size_t)(block * v.inner), 1);
    room.zero_codes = mo_mem_new((size_t)v.inner, 1);
    room.low = mo_mem_new((size_t)v.inner, sizeof *room.low);
    room.high = mo_mem_new((size_t)v.inner, sizeof *room.high);
    bool ok = out->codes && out->scale && (symmetric || out->zeros) && room.codes && room.zero_codes && room.low && room.high;
    for (int64_t k = 0; ok && k < v.outer * v.n_blocks; k++)
        quantize_block(&v, w->data, k / v.n_blocks, k % v.n_blocks, &room, symmetric, out, &signal, &noise);
    mo_mem_free(room.codes);
    mo_mem_free(room.zero_codes);
    mo_mem_free(room.low);
    mo_mem_free(room.high);
    out->sqnr_db = 10 * log10(signal / noise);
    if (ok && isfinite(signal))
        return MOPT_OK;
    mo_quant_blocks_free(out);
    return ok ? mo_fail(ctx, MOPT_DATA, "weight '%s' holds NaN, infinity or numbers beyond 1e18", w->name)
              : mo_no_memory(ctx, (uint64_t)n_elems, "quantized weights");
}

void mo_quant_blocks_free(struct mo_quant_blocks *b)
{
    mo_mem_free(b->codes);
    mo_mem_free(b->scale);
    mo_mem_free(b->zeros);
    b->codes = b->zeros = NULL;
    b->scale = NULL;
}
