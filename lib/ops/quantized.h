/* quantized.h - scales and zero points: where they lie and how the kernels want them. */
#ifndef MO_OPS_QUANTIZED_H
#define MO_OPS_QUANTIZED_H

#include "lib/ops/tensor.h"

enum mo_quantized_kind { MO_QUANTIZED_WHOLE, MO_QUANTIZED_BY_AXIS, MO_QUANTIZED_BLOCKED };

/* node->params of QuantizeLinear and DequantizeLinear: x at input 0, scale at 1, zero point at 2. */
struct mo_quantized {
    enum mo_dtype type;         /* of the quantized side */
    enum mo_quantized_kind layout;
    int axis;
    int64_t block;              /* elements of the axis that share a scale */
    bool saturate;
};

/* Scratch of a call, and what the kernels get: x as outer x channels x inner, channels scales and zeros. */
struct mo_quantized_scratch {
    float *data;                /* x's elements in float32, when the call needs that */
    void *bytes_at;             /* x's elements unpacked to a byte each */
    float *scale_at, *wide_scale;
    int32_t *zero_at, *wide_zero;
    void *zero_bytes;
    size_t bytes;
    int64_t outer, channels, inner;
    const float *scale;
    const int32_t *zero;        /* NULL: 0 */
};

bool mo_quantized_is_packed(enum mo_dtype type);        /* several elements in a byte */
bool mo_quantized_is_float(enum mo_dtype type);         /* 8- and 4-bit floats */
MOPT_MUST_CHECK enum mopt_status mo_check_quantized(struct mopt_ctx *ctx, enum mo_dtype type);
MOPT_MUST_CHECK enum mopt_status mo_quantized_layout(struct mopt_ctx *ctx, const struct mo_graph *g,
                                                     const struct mo_node *n, struct mo_quantized *p);
size_t mo_quantized_scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward);
struct mo_quantized_scratch mo_quantized_scratch(const struct mo_run *r, const struct mo_node *n, bool backward);
/* Fills scale, zero and the three sizes: casts, unpacks, repeats by blocks. */
void mo_quantized_scales(struct mo_run *r, const struct mo_node *n, struct mo_quantized_scratch *s);
/* x in float32: itself, or cast into wide. */
const float *mo_quantized_float(struct mo_run *r, const struct mo_value *v, const void *x, float *wide);
/* y = f(x, scale) by the sizes of s. */
void mo_quantized_by_scale(struct mo_run *r, enum mo_binary f,
                           const struct mo_quantized_scratch *s, const float *x, float *y);

#endif
