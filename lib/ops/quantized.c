/* quantized.c - see quantized.h. */
#include "lib/ops/quantized.h"

bool mo_quantized_is_packed(enum mo_dtype type)
{
    return mo_dtype_bits(type) > 0 && mo_dtype_bits(type) < 8;
}

bool mo_quantized_is_float(enum mo_dtype type)
{
    return (type >= MO_F8E4M3FN && type <= MO_F8E5M2FNUZ) || type == MO_F4E2M1;
}

enum mopt_status mo_check_quantized(struct mopt_ctx *ctx, enum mo_dtype type)
{
    switch (type) {
    case MO_U8: case MO_I8: case MO_U16: case MO_I16: case MO_U4: case MO_I4: case MO_U2: case MO_I2:
        return MOPT_OK;
    default:
        return mo_quantized_is_float(type)
                   ? MOPT_OK
                   : mo_fail(ctx, MOPT_UNSUPPORTED, "%s is no type to quantize to", mo_dtype_name(type));
    }
}

enum mopt_status mo_quantized_layout(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                     struct mo_quantized *p)
{
    const struct mo_shape *x = &mo_in(g, n, 0)->shape, *scale = &mo_in(g, n, 1)->shape;
    const struct mo_value *zero = mo_in(g, n, 2);
    int64_t n_scales = mo_shape_elems(scale), n_zeros = zero ? mo_value_elems(zero) : MO_UNKNOWN;
    p->layout = MO_QUANTIZED_WHOLE;
    p->block = mo_node_int(n, "block_size", 0);
    if (p->block < 0 || p->block > INT32_MAX)
        return mo_fail(ctx, MOPT_DATA, "block_size is %lld", (long long)p->block);
    if (n_zeros != MO_UNKNOWN && n_scales != MO_UNKNOWN && n_zeros != n_scales)
        return mo_fail(ctx, MOPT_DATA, "%lld scales and %lld zero points", (long long)n_scales, (long long)n_zeros);
    if (!mo_shape_known(scale) || scale->rank == 0 || (scale->rank == 1 && n_scales == 1) || x->rank == MO_UNKNOWN)
        return MOPT_OK;
    MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 1), x->rank, &p->axis));
    int64_t dim = x->dim[p->axis];
    if (scale->rank == 1 && p->block == 0) {
        p->layout = MO_QUANTIZED_BY_AXIS;
        if (dim != MO_UNKNOWN && n_scales != dim)
            return mo_fail(ctx, MOPT_DATA, "%lld scales for an axis of %lld", (long long)n_scales, (long long)dim);
        return MOPT_OK;
    }
    p->layout = MO_QUANTIZED_BLOCKED;
    if (scale->rank != x->rank || scale->dim[p->axis] < 1)
        return mo_fail(ctx, MOPT_DATA, "blocks of scales have a rank of %d, x has %d", scale->rank, x->rank);
    if (p->block == 0 && dim != MO_UNKNOWN)
        p->block = (dim + scale->dim[p->axis] - 1) / scale->dim[p->axis];
    for (int axis = 0; axis < x->rank; axis++) {
        int64_t want = x->dim[axis];
        if (want == MO_UNKNOWN || p->block < 1)
            continue;
        want = axis == p->axis ? (want + p->block - 1) / p->block : want;
        if (scale->dim[axis] != want)
            return mo_fail(ctx, MOPT_DATA, "%lld scales on axis %d, blocks of %lld make %lld", (long long)scale->dim[axis],
                           axis, (long long)p->block, (long long)want);
    }
    return MOPT_OK;
}

static void *take(char *base, size_t *at, size_t bytes)
{
    void *part = base ? base + *at : NULL;
    *at += mo_part_bytes(bytes);
    return part;
}

/* The same walk makes the pointers and the sum of bytes; base NULL: only the sum counts. */
static struct mo_quantized_scratch layout(const struct mo_run *r, const struct mo_node *n, bool backward, char *base)
{
    const struct mo_quantized *p = n->params;
    const struct mo_value *scale = mo_in(r->graph, n, 1), *zero = mo_in(r->graph, n, 2);
    size_t n_x = (size_t)mo_value_elems(mo_in(r->graph, n, 0)), n_scales = (size_t)mo_value_elems(scale), at = 0;
    bool is_blocked = p->layout == MO_QUANTIZED_BLOCKED;
    bool wants_data = !backward && (mo_quantized_is_float(p->type) || mo_in(r->graph, n, 0)->dtype != MO_F32 ||
                                    mo_out(r->graph, n, 0)->dtype != MO_F32);
    bool is_packed = mo_quantized_is_packed(p->type);
    struct mo_quantized_scratch s = { 0 };
    s.data = take(base, &at, wants_data ? n_x * sizeof(float) : 0);
    s.bytes_at = take(base, &at, is_packed ? n_x : 0);
    s.scale_at = take(base, &at, scale->dtype != MO_F32 ? n_scales * sizeof(float) : 0);
    s.wide_scale = take(base, &at, is_blocked ? n_x * sizeof(float) : 0);
    s.zero_at = take(base, &at, zero ? n_scales * sizeof(int32_t) : 0);
    s.wide_zero = take(base, &at, zero && is_blocked ? n_x * sizeof(int32_t) : 0);
    s.zero_bytes = take(base, &at, zero && is_packed ? n_scales : 0);
    s.bytes = at;
    return s;
}

size_t mo_quantized_scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return layout(r, n, backward, NULL).bytes;
}

struct mo_quantized_scratch mo_quantized_scratch(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return layout(r, n, backward, mo_run_scratch(r, n));
}

const float *mo_quantized_float(struct mo_run *r, const struct mo_value *v, const void *x, float *wide)
{
    if (v->dtype == MO_F32)
        return x;
    r->be->cast(r->dev, (int)v->dtype, MO_F32, (size_t)mo_value_elems(v), x, wide);
    return wide;
}

/* One entry for each element of x: block k of the axis repeated; the last block may be short. */
static void repeat(struct mo_run *r, const struct mo_quantized *p, const struct mo_shape *x, const struct mo_shape *blocks,
                   const void *from, void *to)
{
    int64_t inner = mo_dims_product(x, p->axis + 1, x->rank), outer = mo_dims_product(x, 0, p->axis);
    int64_t dim = x->dim[p->axis], n_blocks = blocks->dim[p->axis];
    for (int64_t b = 0; b < n_blocks; b++) {
        const int64_t dims[3] = { outer, MO_MIN(p->block, dim - b * p->block), inner };
        const int64_t stride_from[3] = { n_blocks * inner, 0, 1 }, stride_to[3] = { dim * inner, inner, 1 };
        r->be->copy_strided(r->dev, 4, 3, dims, stride_from, stride_to, (const char *)from + b * inner * 4,
                            (char *)to + b * p->block * inner * 4);
    }
}

void mo_quantized_scales(struct mo_run *r, const struct mo_node *n, struct mo_quantized_scratch *s)
{
    const struct mo_quantized *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    const struct mo_value *scale = mo_in(r->graph, n, 1), *zero = mo_in(r->graph, n, 2);
    size_t n_scales = (size_t)mo_value_elems(scale);
    s->scale = mo_quantized_float(r, scale, mo_run_in(r, n, 1), s->scale_at);
    s->zero = NULL;
    if (zero && !mo_quantized_is_float(p->type)) {
        const void *zeros = mo_run_in(r, n, 2);
        if (mo_quantized_is_packed(zero->dtype)) {
            r->be->unpack_bits(r->dev, (int)zero->dtype, n_scales, zeros, s->zero_bytes);
            zeros = s->zero_bytes;
        }
        r->be->cast(r->dev, (int)zero->dtype, MO_I32, n_scales, zeros, s->zero_at);
        s->zero = s->zero_at;
    }
    s->outer = s->channels = 1;
    s->inner = mo_shape_elems(x);
    if (p->layout == MO_QUANTIZED_BY_AXIS) {
        s->outer = mo_dims_product(x, 0, p->axis);
        s->channels = x->dim[p->axis];
        s->inner = mo_dims_product(x, p->axis + 1, x->rank);
    } else if (p->layout == MO_QUANTIZED_BLOCKED) {
        repeat(r, p, x, &scale->shape, s->scale, s->wide_scale);
        s->scale = s->wide_scale;
        if (s->zero)
            repeat(r, p, x, &scale->shape, s->zero, s->wide_zero);
        s->zero = s->zero ? s->wide_zero : NULL;
        s->channels = s->inner;
        s->inner = 1;
    }
}

void mo_quantized_by_scale(struct mo_run *r, enum mo_binary f,
                           const struct mo_quantized_scratch *s, const float *x, float *y)
{
    const int64_t dims[3] = { s->outer, s->channels, s->inner };
    const int64_t dense[3] = { s->channels * s->inner, s->inner, 1 }, by_channel[3] = { 0, s->channels == 1 ? 0 : 1, 0 };
    r->be->binary(r->dev, f, MO_F32, 3, dims, dense, by_channel, x, s->scale, y);
}
