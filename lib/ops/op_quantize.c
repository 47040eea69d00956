/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
 *
 *   Q   y = saturate(round(x / scale) + zero)       DQ   y = (x - zero) scale
 * with one scale, one for each index of an axis, or one for each block of an axis.
 * Gradients go straight through both (Bengio et al. 2013): Q passes dy where x lies
 * inside the range, DQ passes it everywhere; the factors 1 / scale and scale cancel. */
#include <math.h>
#include "lib/ops/quantized.h"

#include <math.h>

/* ---- QuantizeLinear ---- */

static enum mopt_status infer_quantize(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_quantized *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *zero = mo_in(g, n, 2);
    enum mo_dtype dtype = zero ? zero->dtype : (enum mo_dtype)mo_node_int(n, "output_dtype", MO_U8);
    struct mo_shape shape = x->shape;
    p->type = dtype == MO_UNDEFINED ? MO_U8 : dtype;
    p->saturate = mo_node_int(n, "saturate", 1) != 0;
    MO_TRY(mo_check_quantized(ctx, p->type));
    MO_TRY(mo_quantized_layout(ctx, g, n, p));
    mo_set_out(g, n, 0, p->type, &shape);
    return MOPT_OK;
}

static enum mopt_status forward_quantize(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_quantized *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    struct mo_quantized_scratch s = mo_quantized_scratch(r, n, false);
    int64_t n_x = mo_value_elems(x);
    const float *in = mo_quantized_float(r, x, mo_run_in(r, n, 0), s.data);
    mo_quantized_scales(r, n, &s);
    void *y = mo_quantized_is_packed(p->type) ? s.bytes_at : mo_run_out(r, n, 0);
    if (mo_quantized_is_float(p->type)) {       /* the zero point of a float type is 0 */
        mo_quantized_by_scale(r, MO_DIV, &s, in, s.data);
        r->be->cast(r->dev, MO_F32, (int)p->type | (p->saturate ? 0 : 256), (size_t)n_x, s.data, y);
    } else {
        r->be->quantize(r->dev, (int)p->type, s.outer, s.channels, s.inner, in, s.scale, s.zero, y);
    }
    if (y == s.bytes_at)
        r->be->pack_bits(r->dev, (int)p->type, (size_t)n_x, y, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_quantize(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_quantized *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    struct mo_quantized_scratch s = mo_quantized_scratch(r, n, true);
    if (!dx)
        return MOPT_OK;
    if (mo_quantized_is_float(p->type)) {
        r->be->axpy(r->dev, (size_t)mo_value_elems(mo_in(r->graph, n, 0)), 1, mo_run_grad_out(r, n, 0), dx,
                    mo_run_adds(r, n, 0));
        return MOPT_OK;
    }
    mo_quantized_scales(r, n, &s);
    r->be->quantize_grad(r->dev, (int)p->type, s.outer, s.channels, s.inner, mo_run_in(r, n, 0), s.scale, s.zero,
                         mo_run_grad_out(r, n, 0), dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return mo_quantized_scratch_bytes(r, n, backward);
}

/* A scale for each index of the axis goes with it; blocks do not. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_quantized *p = n->params;
    bool is_blocked = p->layout == MO_QUANTIZED_BLOCKED;
    for (int axis = 0; axis < mo_in(g, n, 0)->shape.rank; axis++)
        if (is_blocked && axis == p->axis)
            mo_couple_wall(c, n->in[0], axis, "quantized in blocks");
        else
            mo_couple_same(c, n->in[0], axis, n->out[0], axis);
    for (uint32_t i = 1; i < n->n_in; i++) {
        if (!mo_in(g, n, i))
            continue;
        if (p->layout == MO_QUANTIZED_BY_AXIS && mo_in(g, n, i)->shape.rank == 1)
            mo_couple_same(c, n->in[i], 0, n->in[0], p->axis);
        for (int axis = 0; is_blocked && axis < mo_in(g, n, i)->shape.rank; axis++)
            if (axis != p->axis)
                mo_couple_same(c, n->in[i], axis, n->in[0], axis);
    }
}

static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    const struct mo_quantized *p = n->params;
    if (p->layout == MO_QUANTIZED_BLOCKED)
        return false;
    if (p->layout == MO_QUANTIZED_WHOLE)
        return true;
    return mo_node_set_int(g, (mo_node_id)(n - g->nodes), "axis", mo_permuted_axis(perm, rank, p->axis));
}

const struct mo_op mo_op_quantize_linear = {
    .type = "QuantizeLinear",
    .since_opset = 10,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct mo_quantized),
    .infer = infer_quantize, .forward = forward_quantize, .backward = backward_quantize,
    .macs = mo_macs_zero, .couple = couple, .permute = permute,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 7,
    .params_in = 1u << 0,       /* a weight that is trained with its rounding in place */
};

/* ---- DequantizeLinear ---- */

static enum mopt_status infer_dequantize(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_quantized *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *scale = mo_in(g, n, 1), *zero = mo_in(g, n, 2);
    struct mo_shape shape = x->shape;
    enum mo_dtype to = (enum mo_dtype)mo_node_int(n, "output_dtype", scale->dtype);
    p->type = x->dtype;
    if (x->dtype != MO_I32 && x->dtype != MO_UNDEFINED)
        MO_TRY(mo_check_quantized(ctx, x->dtype));
    if (zero)
        MO_TRY(mo_check_same_dtype(ctx, x, zero));
    MO_TRY(mo_quantized_layout(ctx, g, n, p));
    mo_set_out(g, n, 0, to == MO_UNDEFINED ? scale->dtype : to, &shape);
    return MOPT_OK;
}

static enum mopt_status forward_dequantize(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_quantized *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    struct mo_quantized_scratch s = mo_quantized_scratch(r, n, false);
    size_t n_x = (size_t)mo_value_elems(x);
    const void *in = mo_run_in(r, n, 0);
    float *out = y->dtype == MO_F32 ? mo_run_out(r, n, 0) : s.data;
    mo_quantized_scales(r, n, &s);
    if (mo_quantized_is_packed(p->type)) {
        r->be->unpack_bits(r->dev, (int)p->type, n_x, in, s.bytes_at);
        in = s.bytes_at;
    }
    if (mo_quantized_is_float(p->type)) {
        r->be->cast(r->dev, (int)p->type, MO_F32, n_x, in, out);
        mo_quantized_by_scale(r, MO_MUL, &s, out, out);
    } else {
        r->be->dequantize(r->dev, (int)p->type, s.outer, s.channels, s.inner, in, s.scale, s.zero, out);
    }
    if (y->dtype != MO_F32)
        r->be->cast(r->dev, MO_F32, (int)y->dtype, n_x, out, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_dequantize(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        r->be->axpy(r->dev, (size_t)mo_value_elems(mo_in(r->graph, n, 0)), 1, mo_run_grad_out(r, n, 0), dx,
                    mo_run_adds(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_dequantize_linear = {
    .type = "DequantizeLinear",
    .since_opset = 10,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct mo_quantized),
    .infer = infer_dequantize, .forward = forward_dequantize, .backward = backward_dequantize,
    .macs = mo_macs_zero, .couple = couple, .permute = permute,
    .scratch_bytes = scratch_bytes,
    .params_in = 1,
};

/* ---- DynamicQuantizeLinear: the range of x, widened to hold 0, onto 0 .. 255 ---- */

static enum mopt_status infer_dynamic(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape shape = mo_in(g, n, 0)->shape, one = mo_shape_of(0);
    (void)ctx;
    mo_set_out(g, n, 0, MO_U8, &shape);
    mo_set_out(g, n, 1, MO_F32, &one);
    mo_set_out(g, n, 2, MO_U8, &one);
    return MOPT_OK;
}

/* Scratch: range, count of NaNs, scale, zero point. */
static size_t scratch_dynamic(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)r, (void)n;
    return backward ? 0 : 4 * MO_ALIGN_BYTES;
}

static enum mopt_status forward_dynamic(struct mo_run *r, const struct mo_node *n)
{
    char *scratch = mo_run_scratch(r, n);
    float *range = (float *)scratch, *scale_at = (float *)(scratch + 2 * MO_ALIGN_BYTES);
    uint64_t *n_nan = (uint64_t *)(scratch + MO_ALIGN_BYTES);
    int32_t *zero_at = (int32_t *)(scratch + 3 * MO_ALIGN_BYTES);
    int64_t n_x = mo_value_elems(mo_in(r->graph, n, 0));
    float found[2] = { 0, 0 };      /* so that 0 is in the range */
    uint64_t none = 0;
    r->be->upload(r->dev, range, found, sizeof found);
    r->be->upload(r->dev, n_nan, &none, sizeof none);
    r->be->range(r->dev, (size_t)n_x, mo_run_in(r, n, 0), range, n_nan);
    r->be->download(r->dev, found, range, sizeof found);
    float scale = (found[1] - found[0]) / 255;
    float zero = scale > 0 ? nearbyintf(-found[0] / scale) : 0;
    int32_t zero_int = (int32_t)MO_MIN(MO_MAX(zero, 0), 255);
    uint8_t zero_byte = (uint8_t)zero_int;
    float divisor = scale > 0 ? scale : 1;
    r->be->upload(r->dev, scale_at, &divisor, sizeof divisor);
    r->be->upload(r->dev, zero_at, &zero_int, sizeof zero_int);
    r->be->quantize(r->dev, MO_U8, 1, 1, n_x, mo_run_in(r, n, 0), scale_at, zero_at, mo_run_out(r, n, 0));
    r->be->upload(r->dev, mo_run_out(r, n, 1), &scale, sizeof scale);
    r->be->upload(r->dev, mo_run_out(r, n, 2), &zero_byte, sizeof zero_byte);
    return MOPT_OK;
}

const struct mo_op mo_op_dynamic_quantize_linear = {
    .type = "DynamicQuantizeLinear",
    .since_opset = 11,
    .min_in = 1, .max_in = 1, .min_out = 3, .max_out = 3,
    .infer = infer_dynamic, .prepare = mo_prepare_float32, .forward = forward_dynamic,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_dynamic,
};
