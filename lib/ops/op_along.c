/* Operators that work along one axis: ArgMax, ArgMin, CumSum, TopK, OneHot. */
#include "lib/ops/tensor.h"

/* outer, axis and inner sizes. */
static void sizes_of(const struct mo_shape *x, int axis, int64_t *s)
{
    s[0] = mo_dims_product(x, 0, axis);
    s[1] = x->dim[axis];
    s[2] = mo_dims_product(x, axis + 1, x->rank);
}

/* Half precision goes through float32. */
static bool is_half(enum mo_dtype dtype)
{
    return dtype == MO_F16 || dtype == MO_BF16;
}

/* ---- ArgMax, ArgMin ---- */

struct arg {
    int axis;
};

static enum mopt_status infer_arg(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct arg *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    bool keeps = mo_node_int(n, "keepdims", 1) != 0;
    struct mo_shape y = { .rank = 0 };
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, MO_I64);
        return MOPT_OK;
    }
    MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 0), x->shape.rank, &p->axis));
    if (x->shape.dim[p->axis] == 0)
        return mo_fail(ctx, MOPT_DATA, "axis %d has no elements to choose from", p->axis);
    for (int axis = 0; axis < x->shape.rank; axis++)
        if (axis != p->axis)
            y.dim[y.rank++] = x->shape.dim[axis];
        else if (keeps)
            y.dim[y.rank++] = 1;
    mo_set_out(g, n, 0, MO_I64, &y);
    return MOPT_OK;
}

static size_t scratch_arg(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    return !backward && is_half(x->dtype) ? (size_t)mo_value_elems(x) * sizeof(float) : 0;
}

static enum mopt_status arg(struct mo_run *r, const struct mo_node *n, bool smallest)
{
    const struct arg *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    const void *in = mo_run_in(r, n, 0);
    enum mo_dtype dtype = x->dtype;
    int64_t s[3];
    sizes_of(&x->shape, p->axis, s);
    if (is_half(dtype)) {
        r->be->cast(r->dev, (int)dtype, MO_F32, (size_t)mo_value_elems(x), in, mo_run_scratch(r, n));
        in = mo_run_scratch(r, n);
        dtype = MO_F32;
    }
    r->be->argmax(r->dev, (int)dtype, s[0], s[1], s[2], smallest, mo_node_int(n, "select_last_index", 0) != 0, in,
                  mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status forward_arg_max(struct mo_run *r, const struct mo_node *n)
{
    return arg(r, n, false);
}
static enum mopt_status forward_arg_min(struct mo_run *r, const struct mo_node *n)
{
    return arg(r, n, true);
}

#define ARG(id, Type, fn)                                                                                       \
    const struct mo_op mo_op_##id = {                                                                           \
        .type = Type, .since_opset = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,                    \
        .params_bytes = sizeof(struct arg), .infer = infer_arg, .forward = fn, .macs = mo_macs_zero,            \
        .scratch_bytes = scratch_arg,                                                                           \
    };
ARG(arg_max, "ArgMax", forward_arg_max)
ARG(arg_min, "ArgMin", forward_arg_min)

/* ---- CumSum: dx is the running sum of dy from the other end ---- */

static enum mopt_status forward_cumsum(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_cumulative *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t s[3];
    sizes_of(&x->shape, p->axis, s);
    r->be->cumsum(r->dev, (int)x->dtype, p->exclusive, p->reverse, s[0], s[1], s[2], mo_run_in(r, n, 0),
                  mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_cumsum(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_cumulative *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    int64_t s[3];
    sizes_of(&mo_in(r->graph, n, 0)->shape, p->axis, s);
    if (dx)
        r->be->cumsum(r->dev, MO_F32, p->exclusive, !p->reverse, s[0], s[1], s[2], mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

static void couple_cumsum(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_cumulative *p = n->params;
    mo_couple_axes(c, g, n->in[0], n->out[0], p->axis);
}

const struct mo_op mo_op_cum_sum = {
    .type = "CumSum",
    .since_opset = 11,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct mo_cumulative),
    .infer = mo_infer_cumulative, .forward = forward_cumsum, .backward = backward_cumsum,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple_cumsum,
};

/* ---- TopK: values and their indices; dy goes back to where the values came from ---- */

struct topk {
    int axis;
    int64_t k;
    bool largest;
};

static enum mopt_status infer_topk(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct topk *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    p->largest = mo_node_int(n, "largest", 1) != 0;
    p->k = mo_in(g, n, 1) ? mo_known_in(g, n, 1, 0) : mo_node_int(n, "k", MO_VALUE_UNKNOWN);
    if (y.rank != MO_UNKNOWN) {
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", -1), y.rank, &p->axis));
        int64_t dim = y.dim[p->axis];
        if (p->k != MO_VALUE_UNKNOWN && (p->k < 0 || (dim != MO_UNKNOWN && p->k > dim)))
            return mo_fail(ctx, MOPT_DATA, "the best %lld of %lld", (long long)p->k, (long long)dim);
        y.dim[p->axis] = p->k == MO_VALUE_UNKNOWN ? MO_UNKNOWN : p->k;
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    mo_set_out(g, n, 1, MO_I64, &y);
    return MOPT_OK;
}

/* Scratch: one axis of numbers, then x and y as float32 for half precision, then what outputs are left out. */
struct topk_parts { size_t wide_x, wide_y, values, index, bytes; };

static struct topk_parts topk_parts(const struct mo_run *r, const struct mo_node *n)
{
    const struct topk *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    size_t n_x = (size_t)mo_value_elems(x), axis = (size_t)x->shape.dim[p->axis];
    size_t n_y = axis ? n_x / axis * (size_t)p->k : 0;
    struct topk_parts s;
    s.wide_x = mo_part_bytes(axis * sizeof(int64_t));
    s.wide_y = s.wide_x + (is_half(x->dtype) ? mo_part_bytes(n_x * sizeof(float)) : 0);
    s.values = s.wide_y + (is_half(x->dtype) ? mo_part_bytes(n_y * sizeof(float)) : 0);
    s.index = s.values + (mo_out(r->graph, n, 0) ? 0 : mo_part_bytes(n_y * mo_elem_bytes(x->dtype)));
    s.bytes = s.index + (mo_out(r->graph, n, 1) ? 0 : mo_part_bytes(n_y * sizeof(int64_t)));
    return s;
}

static size_t scratch_topk(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : topk_parts(r, n).bytes;
}

static enum mopt_status forward_topk(struct mo_run *r, const struct mo_node *n)
{
    const struct topk *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    struct topk_parts parts = topk_parts(r, n);
    char *scratch = mo_run_scratch(r, n);
    void *values = mo_out(r->graph, n, 0) ? mo_run_out(r, n, 0) : scratch + parts.values;
    int64_t *index = mo_out(r->graph, n, 1) ? mo_run_out(r, n, 1) : (void *)(scratch + parts.index), s[3];
    sizes_of(&x->shape, p->axis, s);
    if (!is_half(x->dtype)) {
        r->be->topk(r->dev, (int)x->dtype, s[0], s[1], s[2], p->k, p->largest, mo_run_in(r, n, 0), values, index,
                    (int64_t *)scratch);
        return MOPT_OK;
    }
    r->be->cast(r->dev, (int)x->dtype, MO_F32, (size_t)mo_value_elems(x), mo_run_in(r, n, 0), scratch + parts.wide_x);
    r->be->topk(r->dev, MO_F32, s[0], s[1], s[2], p->k, p->largest, scratch + parts.wide_x, scratch + parts.wide_y, index,
                (int64_t *)scratch);
    r->be->cast(r->dev, MO_F32, (int)x->dtype, (size_t)(s[0] * p->k * s[2]), scratch + parts.wide_y, values);
    return MOPT_OK;
}

static enum mopt_status backward_topk(struct mo_run *r, const struct mo_node *n)
{
    const struct topk *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    float *dx = mo_run_grad_in(r, n, 0);
    int64_t stride[MO_MAX_RANK];
    if (!dx)
        return MOPT_OK;
    if (!mo_out(r->graph, n, 1))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "the gradient of TopK needs its indices, which are left out");
    mo_dense_strides(x, stride);
    mo_zero(r, sizeof *dx, mo_shape_elems(x), dx);
    r->be->scatter_elements(r->dev, MO_F32, MO_SCATTER_ADD, y->rank, y->dim, stride, p->axis, x->dim[p->axis],
                            mo_run_out(r, n, 1), mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

const struct mo_op mo_op_topk = {
    .type = "TopK",
    .since_opset = 1,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 2,
    .params_bytes = sizeof(struct topk),
    .infer = infer_topk, .forward = forward_topk, .backward = backward_topk,
    .values_in = 1u << 1,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_topk,
    .backward_reads = 1u << 17,
};

/* ---- OneHot ---- */

struct one_hot {
    int axis;
    int64_t depth;
};

static enum mopt_status infer_one_hot(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct one_hot *p = n->params;
    const struct mo_value *index = mo_in(g, n, 0), *depth = mo_in(g, n, 1), *values = mo_in(g, n, 2);
    struct mo_shape y;
    double x;
    MO_TRY(mo_check_movable(ctx, values->dtype));
    p->depth = mo_known_in(g, n, 1, 0);
    if (p->depth == MO_VALUE_UNKNOWN && mo_value_scalar(depth, &x))     /* a float may be given */
        p->depth = (int64_t)x;
    if (index->shape.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, values->dtype);
        return MOPT_OK;
    }
    y.rank = index->shape.rank + 1;
    if (y.rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a rank of %d, at most %d is possible", y.rank, MO_MAX_RANK);
    MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", -1), y.rank, &p->axis));
    if (p->depth != MO_VALUE_UNKNOWN && p->depth < 0)
        return mo_fail(ctx, MOPT_DATA, "a depth of %lld", (long long)p->depth);
    for (int k = 0, from = 0; k < y.rank; k++)
        y.dim[k] = k != p->axis ? index->shape.dim[from++] : p->depth == MO_VALUE_UNKNOWN ? MO_UNKNOWN : p->depth;
    mo_set_out(g, n, 0, values->dtype, &y);
    return MOPT_OK;
}

static size_t scratch_one_hot(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct mo_value *index = mo_in(r->graph, n, 0);
    return backward || index->dtype == MO_I64 ? 0 : (size_t)mo_value_elems(index) * sizeof(int64_t);
}

static enum mopt_status forward_one_hot(struct mo_run *r, const struct mo_node *n)
{
    const struct one_hot *p = n->params;
    const struct mo_value *index = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    const void *at = mo_run_in(r, n, 0);
    int64_t s[3];
    sizes_of(&y->shape, p->axis, s);
    if (index->dtype != MO_I64) {
        mo_widen_index(r, index, at, mo_run_scratch(r, n));
        at = mo_run_scratch(r, n);
    }
    r->be->one_hot(r->dev, mo_elem_bytes(y->dtype), s[0], s[1], s[2], at, mo_run_in(r, n, 2), mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_one_hot = {
    .type = "OneHot",
    .since_opset = 9,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct one_hot),
    .infer = infer_one_hot, .forward = forward_one_hot,
    .values_in = 1u << 1,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_one_hot,
};
