/* CenterCropPad: axes cut or filled with zeros on both sides to given sizes. Of an odd difference the end gets more. */
#include "lib/ops/tensor.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    int64_t sizes[MO_MAX_RANK];
    int axes[MO_MAX_RANK], n_axes = -1;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (y.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    MO_TRY(mo_axes_given(ctx, g, n, UINT32_MAX, y.rank, axes, &n_axes));
    for (int axis = 0; n_axes < 0 && axis < y.rank; axis++)
        axes[axis] = axis;
    n_axes = n_axes < 0 ? y.rank : n_axes;
    int64_t given = mo_value_elems(mo_in(g, n, 1));
    if (given != MO_UNKNOWN && given != n_axes)
        return mo_fail(ctx, MOPT_DATA, "%lld sizes for %d axes", (long long)given, n_axes);
    bool are_known = mo_ints_in(g, n, 1, sizes, MO_MAX_RANK) == n_axes;
    for (int k = 0; k < n_axes; k++) {
        if (are_known && sizes[k] < 0)
            return mo_fail(ctx, MOPT_DATA, "size %d is %lld", k, (long long)sizes[k]);
        y.dim[axes[k]] = are_known ? sizes[k] : MO_UNKNOWN;
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

/* What both have: its sizes, its strides and where it begins, in elements. */
struct common {
    int64_t dims[MO_MAX_RANK], stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], in_x, in_y;
};

static struct common common_of(const struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    struct common c = { .in_x = 0 };
    mo_dense_strides(x, c.stride_x);
    mo_dense_strides(y, c.stride_y);
    for (int k = 0; k < x->rank; k++) {
        c.dims[k] = MO_MIN(x->dim[k], y->dim[k]);
        c.in_x += (x->dim[k] - c.dims[k]) / 2 * c.stride_x[k];
        c.in_y += (y->dim[k] - c.dims[k]) / 2 * c.stride_y[k];
    }
    return c;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *y = mo_out(r->graph, n, 0);
    struct common c = common_of(r, n);
    size_t bytes = mo_elem_bytes(y->dtype);
    const char *from = mo_run_in(r, n, 0);
    char *to = mo_run_out(r, n, 0);
    mo_zero(r, bytes, mo_value_elems(y), to);
    r->be->copy_strided(r->dev, bytes, y->shape.rank, c.dims, c.stride_x, c.stride_y, from + (size_t)c.in_x * bytes,
                        to + (size_t)c.in_y * bytes);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    struct common c = common_of(r, n);
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    mo_run_zero(r, mo_run_in_elems(r, n, 0), dx);
    r->be->copy_strided(r->dev, sizeof *dx, mo_in(r->graph, n, 0)->shape.rank, c.dims, c.stride_y, c.stride_x,
                        mo_run_grad_out(r, n, 0) + c.in_y, dx + c.in_x);
    return MOPT_OK;
}

const struct mo_op mo_op_center_crop_pad = {
    .type = "CenterCropPad",
    .since_opset = 18,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .infer = infer, .forward = forward, .backward = backward,
    .macs = mo_macs_zero,
    .values_in = 1u << 1,
};
