/* Constant, ConstantOfShape, EyeLike, Range: values that come from nowhere. */
#include "lib/ops/tensor.h"

#include <math.h>
#include <string.h>

/* ---- Constant: the elements are in the value itself (graph.h) ---- */

static enum mopt_status infer_constant(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    (void)ctx, (void)g, (void)n;
    return MOPT_OK;
}

const struct mo_op mo_op_constant = {
    .type = "Constant",
    .since_opset = 1,
    .min_in = 0, .max_in = 0, .min_out = 1, .max_out = 1,
    .infer = infer_constant,
    .macs = mo_macs_zero,
};

/* ---- ConstantOfShape ---- */

struct fill {
    uint64_t value[2];          /* one element, its bytes first */
};

static enum mopt_status infer_fill(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct fill *p = n->params;
    const struct mo_value *shape = mo_in(g, n, 0);
    const struct mo_attr *value = mo_node_attr(n, "value");
    enum mo_dtype dtype = MO_F32;
    struct mo_shape y;
    int64_t rank = mo_value_elems(shape);
    if (value) {
        if (value->kind != MO_ATTR_TENSOR || !value->tensors || !value->tensors[0].data ||
            mo_shape_elems(&value->tensors[0].shape) != 1)
            return mo_fail(ctx, MOPT_DATA, "value should be a tensor of one element");
        dtype = value->tensors[0].dtype;
        MO_TRY(mo_check_movable(ctx, dtype));
        if (dtype == MO_STRING)
            return mo_fail(ctx, MOPT_DATA, "it fills with numbers, value holds a text");
        memcpy(p->value, value->tensors[0].data, mo_elem_bytes(dtype));
    }
    if (rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a rank of %lld, at most %d is possible", (long long)rank, MO_MAX_RANK);
    y.rank = (int)rank;
    for (int k = 0; k < y.rank; k++) {
        int64_t dim = mo_known_in(g, n, 0, k);
        if (dim < 0 && dim != MO_VALUE_UNKNOWN)
            return mo_fail(ctx, MOPT_DATA, "entry %d of the shape is %lld", k, (long long)dim);
        y.dim[k] = dim == MO_VALUE_UNKNOWN ? MO_UNKNOWN : dim;
    }
    mo_set_out(g, n, 0, dtype, &y);
    int64_t *known = y.rank >= 0 && y.rank <= 1 ? mo_known_out(g, n, 0) : NULL, count = known ? mo_shape_elems(&y) : 0;
    for (int64_t k = 0; k < count; k++)
        known[k] = dtype == MO_I64 ? (int64_t)p->value[0] : dtype == MO_I32 ? (int32_t)p->value[0] :
                   dtype == MO_BOOL || dtype == MO_U8 ? (uint8_t)p->value[0] : MO_VALUE_UNKNOWN;
    return MOPT_OK;
}

static enum mopt_status forward_fill(struct mo_run *r, const struct mo_node *n)
{
    const struct fill *p = n->params;
    const struct mo_value *y = mo_out(r->graph, n, 0);
    r->be->fill(r->dev, mo_elem_bytes(y->dtype), (size_t)mo_value_elems(y), p->value, mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_constant_of_shape = {
    .type = "ConstantOfShape",
    .since_opset = 9,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct fill),
    .infer = infer_fill, .forward = forward_fill,
    .values_in = 1,
    .macs = mo_macs_zero,
};

/* ---- EyeLike: ones on diagonal k of a matrix of x's shape ---- */

static enum mopt_status infer_eye(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    enum mo_dtype dtype = (enum mo_dtype)mo_node_int(n, "dtype", x->dtype);
    struct mo_shape shape = x->shape;
    if (shape.rank != MO_UNKNOWN && shape.rank != 2)
        return mo_fail(ctx, MOPT_DATA, "a rank of %d, it should be 2", shape.rank);
    MO_TRY(mo_check_movable(ctx, dtype));
    mo_set_out(g, n, 0, dtype, &shape);
    return MOPT_OK;
}

static size_t scratch_eye(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)r, (void)n;
    return backward ? 0 : 2 * MO_ALIGN_BYTES;
}

static enum mopt_status forward_eye(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *y = mo_out(r->graph, n, 0);
    int64_t rows = y->shape.dim[0], columns = y->shape.dim[1], k = mo_node_int(n, "k", 0);
    int64_t row = k < 0 ? -k : 0, column = k > 0 ? k : 0;
    int64_t count = MO_MIN(rows - row, columns - column), still = 0, down = columns + 1, one = 1;
    size_t bytes = mo_elem_bytes(y->dtype);
    char *out = mo_run_out(r, n, 0), *scratch = mo_run_scratch(r, n), *unit = scratch + MO_ALIGN_BYTES;
    mo_zero(r, bytes, rows * columns, out);
    if (count <= 0)
        return MOPT_OK;
    r->be->upload(r->dev, scratch, &one, sizeof one);
    r->be->cast(r->dev, MO_I64, (int)y->dtype, 1, scratch, unit);
    r->be->copy_strided(r->dev, bytes, 1, &count, &still, &down, unit, out + (size_t)(row * columns + column) * bytes);
    return MOPT_OK;
}

const struct mo_op mo_op_eye_like = {
    .type = "EyeLike",
    .since_opset = 9,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer_eye, .forward = forward_eye,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_eye,
};

/* ---- Range: start, start + delta, ... before limit ---- */

struct range {
    double start, delta;
};

/* Integers may be known without being constants. */
static bool scalar(const struct mo_graph *g, const struct mo_node *n, uint32_t i, double *x)
{
    int64_t v = mo_known_in(g, n, i, 0);
    if (v != MO_VALUE_UNKNOWN)
        *x = (double)v;
    return v != MO_VALUE_UNKNOWN || mo_value_scalar(mo_in(g, n, i), x);
}

static enum mopt_status infer_range(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct range *p = n->params;
    double limit = 0, count;
    enum mo_dtype dtype = mo_in(g, n, 0)->dtype;
    struct mo_shape y = mo_shape_of(1, (int64_t)MO_UNKNOWN);
    if (!scalar(g, n, 0, &p->start) || !scalar(g, n, 1, &limit) || !scalar(g, n, 2, &p->delta)) {
        mo_set_out(g, n, 0, dtype, &y);
        return MOPT_OK;
    }
    if (p->delta == 0 || isnan(p->delta))
        return mo_fail(ctx, MOPT_DATA, "a step of %g", p->delta);
    count = ceil((limit - p->start) / p->delta);
    if (!(count < 9e18))
        return mo_fail(ctx, MOPT_DATA, "from %g to %g by %g is without end", p->start, limit, p->delta);
    y.dim[0] = count > 0 ? (int64_t)count : 0;
    mo_set_out(g, n, 0, dtype, &y);
    int64_t *known = mo_known_out(g, n, 0);
    for (int64_t k = 0; known && k < y.dim[0]; k++)
        known[k] = (int64_t)(p->start + (double)k * p->delta);
    return MOPT_OK;
}

static enum mopt_status forward_range(struct mo_run *r, const struct mo_node *n)
{
    const struct range *p = n->params;
    const struct mo_value *y = mo_out(r->graph, n, 0);
    r->be->arange(r->dev, (int)y->dtype, p->start, p->delta, (size_t)mo_value_elems(y), mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_range = {
    .type = "Range",
    .since_opset = 11,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct range),
    .infer = infer_range, .forward = forward_range,
    .values_in = 7,
    .macs = mo_macs_zero,
};
