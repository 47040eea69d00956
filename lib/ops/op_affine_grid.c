/* AffineGrid: where each place of an output image lies in the input image under the map theta,
 * grid[n] = base theta[n]^T with base = (x, y[, z], 1) of every place, coordinates in -1 .. 1: at the centres of pixels,
 * or with align_corners from the first centre to the last. */
#include "lib/ops/tensor.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *theta = mo_in(g, n, 0);
    struct mo_shape y = { .rank = MO_UNKNOWN };
    int64_t size[5], given = mo_value_elems(mo_in(g, n, 1));
    bool is_known = mo_ints_in(g, n, 1, size, 5) == given;
    if (given != MO_UNKNOWN && given != 4 && given != 5)
        return mo_fail(ctx, MOPT_DATA, "%lld sizes, it should be 4 or 5", (long long)given);
    if (given == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, theta->dtype);
        return MOPT_OK;
    }
    const struct mo_shape want = mo_shape_of(3, (int64_t)MO_UNKNOWN, given - 2, given - 1);
    for (int k = 0; k < 3 && theta->shape.rank != MO_UNKNOWN; k++)
        if (theta->shape.rank != 3 || (want.dim[k] != MO_UNKNOWN && theta->shape.dim[k] != MO_UNKNOWN &&
                                       want.dim[k] != theta->shape.dim[k]))
            return mo_fail(ctx, MOPT_DATA, "theta should be N x %lld x %lld", (long long)want.dim[1], (long long)want.dim[2]);
    y.rank = (int)given;
    y.dim[0] = is_known ? size[0] : MO_UNKNOWN;
    y.dim[given - 1] = given - 2;
    for (int64_t k = 2; k < given; k++) {
        y.dim[k - 1] = is_known ? size[k] : MO_UNKNOWN;
        if (is_known && size[k] < 0)
            return mo_fail(ctx, MOPT_DATA, "size %lld is %lld", (long long)k, (long long)size[k]);
    }
    if (is_known && theta->shape.rank == 3 && theta->shape.dim[0] != MO_UNKNOWN && theta->shape.dim[0] != size[0])
        return mo_fail(ctx, MOPT_DATA, "%lld maps for a batch of %lld", (long long)theta->shape.dim[0], (long long)size[0]);
    mo_set_out(g, n, 0, theta->dtype, &y);
    return MOPT_OK;
}

static int64_t n_places(const struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *y = &mo_out(r->graph, n, 0)->shape;
    return mo_dims_product(y, 1, y->rank - 1);
}

static float coordinate(int64_t k, int64_t size, bool align_corners)
{
    if (align_corners)
        return size > 1 ? (float)(2.0 * (double)k / (double)(size - 1) - 1) : -1;
    return (float)((2.0 * (double)k + 1) / (double)size - 1);
}

/* Of each place in the order of the grid: the last axis first, then the 1. */
static void fill_base(const struct mo_shape *y, bool align_corners, int64_t n, float *base)
{
    int n_axes = y->rank - 2;
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i;
        for (int k = 0; k < n_axes; k++) {
            int64_t size = y->dim[n_axes - k];
            *base++ = coordinate(rest % size, size, align_corners);
            rest /= size;
        }
        *base++ = 1;
    }
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)backward;
    return (size_t)(n_places(r, n) * (mo_out(r->graph, n, 0)->shape.rank - 1)) * sizeof(float);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    MO_TRY(mo_prepare_float32_x(r, n));
    size_t bytes = scratch_bytes(r, n, false);
    float *base = mo_mem_new(bytes + 1, 1);
    if (!base)
        return mo_no_memory(r->ctx, bytes, "a grid");
    fill_base(&mo_out(r->graph, n, 0)->shape, mo_node_int(n, "align_corners", 0) != 0, n_places(r, n), base);
    *mo_run_handle(r, n) = base;
    return MOPT_OK;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    mo_mem_free(*mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

static const float *base_of(struct mo_run *r, const struct mo_node *n)
{
    r->be->upload(r->dev, mo_run_scratch(r, n), *mo_run_handle(r, n), scratch_bytes(r, n, false));
    return mo_run_scratch(r, n);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *y = &mo_out(r->graph, n, 0)->shape;
    int64_t places = n_places(r, n), d = y->rank - 2;
    const float *theta = mo_run_in(r, n, 0), *base = base_of(r, n);
    float *grid = mo_run_out(r, n, 0);
    for (int64_t i = 0; places && i < y->dim[0]; i++)
        r->be->gemm(r->dev, false, true, places, d, d + 1, 1, base, d + 1, theta + i * d * (d + 1), d + 1, 0,
                    grid + i * places * d, d, NULL);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *y = &mo_out(r->graph, n, 0)->shape;
    int64_t places = n_places(r, n), d = y->rank - 2;
    const float *base = base_of(r, n), *dy = mo_run_grad_out(r, n, 0);
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        mo_run_zero(r, mo_run_in_elems(r, n, 0), dx);
    for (int64_t i = 0; dx && places && i < y->dim[0]; i++)
        r->be->gemm(r->dev, true, false, d, d + 1, places, 1, dy + i * places * d, d, base, d + 1, 0,
                    dx + i * d * (d + 1), d + 1, NULL);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *y = &mo_out(g, n, 0)->shape;
    return y->rank < 2 ? MO_UNKNOWN : mo_product((int64_t[]){ mo_shape_elems(y), y->rank - 1 }, 2);
}

const struct mo_op mo_op_affine_grid = {
    .type = "AffineGrid",
    .since_opset = 20,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward, .backward = backward,
    .scratch_bytes = scratch_bytes,
    .macs = macs,
    .values_in = 1u << 1,
};
