/* Col2Im: patches back to where they were cut from, summed where they overlap; the opposite of a convolution's
 * unfolding. x is N x (C * taps) x positions, y is N x C x image; tap t of position l lies at
 * l * stride + t * dilation - pad along each axis. */
#include "lib/ops/tensor.h"

enum { MAX_AXES = MO_MAX_RANK - 2 };

struct col2im {
    int n_axes;
    int64_t image[MAX_AXES], block[MAX_AXES], stride[MAX_AXES], dilation[MAX_AXES], pad[MAX_AXES], n_positions[MAX_AXES];
    int64_t n_taps;
};

static enum mopt_status read_list(struct mopt_ctx *ctx, const struct mo_node *n, const char *name, int count, bool is_size,
                                  int64_t otherwise, int64_t *out)
{
    size_t given;
    const int64_t *list = mo_node_ints(n, name, &given);
    if (list && given != (size_t)count)
        return mo_fail(ctx, MOPT_DATA, "%zu entries of '%s', it should be %d", given, name, count);
    for (int k = 0; k < count; k++) {
        out[k] = list ? list[k] : otherwise;
        if (out[k] < is_size || out[k] > INT32_MAX)
            return mo_fail(ctx, MOPT_DATA, "entry %d of '%s' is %lld", k, name, (long long)out[k]);
    }
    return MOPT_OK;
}

static enum mopt_status read_attrs(struct mopt_ctx *ctx, const struct mo_node *n, struct col2im *p)
{
    int64_t pads[2 * MAX_AXES];
    MO_TRY(read_list(ctx, n, "strides", p->n_axes, true, 1, p->stride));
    MO_TRY(read_list(ctx, n, "dilations", p->n_axes, true, 1, p->dilation));
    MO_TRY(read_list(ctx, n, "pads", 2 * p->n_axes, false, 0, pads));
    p->n_taps = mo_product(p->block, p->n_axes);
    for (int k = 0; k < p->n_axes; k++) {
        int64_t end = pads[p->n_axes + k];
        if (p->image[k] < 0 || p->image[k] > INT32_MAX || p->block[k] < 1 || p->block[k] > INT32_MAX)
            return mo_fail(ctx, MOPT_DATA, "axis %d has size %lld and blocks of %lld", k, (long long)p->image[k],
                           (long long)p->block[k]);
        p->pad[k] = pads[k];
        int64_t room = p->image[k] + p->pad[k] + end - p->dilation[k] * (p->block[k] - 1) - 1;
        p->n_positions[k] = room < 0 ? 0 : room / p->stride[k] + 1;
    }
    return MOPT_OK;
}

static enum mopt_status check_sizes(struct mopt_ctx *ctx, const struct col2im *p, const struct mo_shape *x)
{
    int64_t positions = mo_product(p->n_positions, p->n_axes);
    if (p->n_taps < 1 || (x->dim[1] != MO_UNKNOWN && x->dim[1] % p->n_taps))
        return mo_fail(ctx, MOPT_DATA, "%lld columns, blocks have %lld elements", (long long)x->dim[1],
                       (long long)p->n_taps);
    if (x->dim[2] != MO_UNKNOWN && x->dim[2] != positions)
        return mo_fail(ctx, MOPT_DATA, "%lld patches, the image has %lld", (long long)x->dim[2], (long long)positions);
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct col2im *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    if (mo_value_elems(mo_in(g, n, 1)) > MAX_AXES)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "an image of %lld axes", (long long)mo_value_elems(mo_in(g, n, 1)));
    p->n_axes = mo_ints_in(g, n, 1, p->image, MAX_AXES);
    int n_block = mo_ints_in(g, n, 2, p->block, MAX_AXES);
    if (x->shape.rank == MO_UNKNOWN || p->n_axes < 0 || n_block < 0) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    if (x->shape.rank != 3 || p->n_axes != n_block || n_block < 1)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, an image of %d axes and blocks of %d do not fit", x->shape.rank,
                       p->n_axes, n_block);
    MO_TRY(read_attrs(ctx, n, p));
    MO_TRY(check_sizes(ctx, p, &x->shape));
    struct mo_shape y = { .rank = 2 + n_block };
    y.dim[0] = x->shape.dim[0];
    y.dim[1] = x->shape.dim[1] == MO_UNKNOWN ? MO_UNKNOWN : x->shape.dim[1] / p->n_taps;
    for (int k = 0; k < n_block; k++)
        y.dim[2 + k] = p->image[k];
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

/* One tap of all patches: the sizes of what lies inside the image, where it begins, how it steps. */
struct tap {
    int64_t dims[MO_MAX_RANK], stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], in_x, in_y;
};

static struct tap tap_of(const struct mo_run *r, const struct mo_node *n, int64_t t)
{
    const struct col2im *p = n->params;
    const struct mo_shape *y = &mo_out(r->graph, n, 0)->shape;
    struct tap tap = { .dims = { y->dim[0], y->dim[1] } };
    int64_t dense[MO_MAX_RANK], step = 1, rest = t;
    mo_dense_strides(y, dense);
    for (int k = p->n_axes - 1; k >= 0; k--) {
        int64_t shift = rest % p->block[k] * p->dilation[k] - p->pad[k];        /* of position 0 */
        rest /= p->block[k];
        int64_t first = shift < 0 ? (-shift + p->stride[k] - 1) / p->stride[k] : 0;
        int64_t end = p->image[k] > shift ? (p->image[k] - shift - 1) / p->stride[k] + 1 : 0;
        end = MO_MIN(end, p->n_positions[k]);
        tap.dims[2 + k] = MO_MAX(end - first, 0);
        tap.stride_x[2 + k] = step;
        tap.stride_y[2 + k] = p->stride[k] * dense[2 + k];
        tap.in_x += first * step;
        tap.in_y += (first * p->stride[k] + shift) * dense[2 + k];
        step *= p->n_positions[k];
    }
    tap.in_x += t * step;
    tap.stride_x[1] = p->n_taps * step;
    tap.stride_x[0] = y->dim[1] * tap.stride_x[1];
    tap.stride_y[0] = dense[0];
    tap.stride_y[1] = dense[1];
    return tap;
}

static bool is_empty(const struct tap *tap, int rank)
{
    return mo_product(tap->dims, rank) == 0;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct col2im *p = n->params;
    const float *x = mo_run_in(r, n, 0);
    float *y = mo_run_out(r, n, 0);
    mo_run_zero(r, mo_run_out_elems(r, n, 0), y);
    for (int64_t t = 0; t < p->n_taps; t++) {
        struct tap tap = tap_of(r, n, t);
        if (!is_empty(&tap, p->n_axes + 2))
            r->be->add_strided(r->dev, p->n_axes + 2, tap.dims, tap.stride_x, tap.stride_y, x + tap.in_x, y + tap.in_y);
    }
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct col2im *p = n->params;
    const float *dy = mo_run_grad_out(r, n, 0);
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    mo_run_zero(r, mo_run_in_elems(r, n, 0), dx);
    for (int64_t t = 0; t < p->n_taps; t++) {
        struct tap tap = tap_of(r, n, t);
        if (!is_empty(&tap, p->n_axes + 2))
            r->be->copy_strided(r->dev, sizeof *dx, p->n_axes + 2, tap.dims, tap.stride_y, tap.stride_x, dy + tap.in_y,
                                dx + tap.in_x);
    }
    return MOPT_OK;
}

const struct mo_op mo_op_col2im = {
    .type = "Col2Im",
    .since_opset = 18,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct col2im),
    .infer = infer, .prepare = mo_prepare_float32_x, .forward = forward, .backward = backward,
    .macs = mo_macs_zero,
    .values_in = 6,
};
