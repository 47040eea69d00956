/* RMSNormalization (Zhang and Sennrich 2019) over the axes from `axis` on:
 *     y = x / sqrt(mean(x^2) + epsilon) scale
 * The scale has as many elements as these axes together. */
#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct rmsnorm {
    int axis;
    float eps;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct rmsnorm *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    p->eps = mo_node_float(n, "epsilon", 1e-5f);
    if (x->shape.rank != MO_UNKNOWN)
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", -1), x->shape.rank, &p->axis));
    return mo_infer_like_input(ctx, g, n);
}

/* x as rows x width. */
static void sizes_of(const struct mo_run *r, const struct mo_node *n, int64_t dims[2])
{
    const struct rmsnorm *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    dims[0] = mo_product(x->dim, p->axis);
    dims[1] = mo_product(x->dim + p->axis, x->rank - p->axis);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    int64_t dims[2];
    sizes_of(r, n, dims);
    if ((int64_t)mo_run_in_elems(r, n, 1) != dims[1])
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "the scale has %zu elements, computed is only one for each of %lld",
                       mo_run_in_elems(r, n, 1), (long long)dims[1]);
    return mo_prepare_float32(r, n);
}

/* Forward: 1 / rms and a spare, per row. Backward: two of x's size, and one per row. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    int64_t dims[2];
    sizes_of(r, n, dims);
    size_t rows = (size_t)dims[0];
    return (backward ? 2 * mo_run_in_elems(r, n, 0) + rows : 2 * rows) * sizeof(float);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    int64_t dims[2];
    sizes_of(r, n, dims);
    return r->options.train ? (size_t)dims[0] * sizeof(float) : 0;
}

/* out = a b, b repeated along rows (by_row: one number a row) or along columns */
static void scale_by(struct mo_run *r, const int64_t dims[2], const float *a, const float *b, bool by_row, float *out)
{
    const int64_t of_a[2] = {dims[1], 1}, of_b[2] = {by_row ? 1 : 0, by_row ? 0 : 1};
    r->be->binary(r->dev, MO_MUL, MO_F32, 2, dims, of_a, of_b, a, b, out);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct rmsnorm *p = n->params;
    const bool is_reduced[2] = {false, true};
    int64_t dims[2];
    sizes_of(r, n, dims);
    size_t rows = (size_t)dims[0];
    float *spare = mo_run_scratch(r, n), *inv = r->options.train ? mo_run_saved(r, n) : spare + rows;
    float *y = mo_run_out(r, n, 0);
    r->be->reduce(r->dev, MO_REDUCE_SUM_SQUARE, MO_F32, 2, dims, is_reduced, mo_run_in(r, n, 0), spare);
    r->be->fill(r->dev, sizeof *inv, rows, &p->eps, inv);
    r->be->axpy(r->dev, rows, 1.0f / (float)dims[1], spare, inv, true);
    r->be->unary(r->dev, MO_SQRT, 0.0f, 0.0f, rows, inv, inv);
    r->be->unary(r->dev, MO_RECIPROCAL, 0.0f, 0.0f, rows, inv, inv);
    scale_by(r, dims, mo_run_in(r, n, 0), inv, true, y);
    scale_by(r, dims, y, mo_run_in(r, n, 1), false, y);
    return MOPT_OK;
}

/* With h = x inv and g = dy scale: dscale = sum over rows of dy h, dx = inv (g - h mean(g h)). */
static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const bool over_rows[2] = {true, false}, over_columns[2] = {false, true};
    int64_t dims[2];
    sizes_of(r, n, dims);
    size_t n_elems = mo_run_in_elems(r, n, 0), rows = (size_t)dims[0];
    const int64_t flat[1] = {(int64_t)n_elems}, one[1] = {1};
    const float *dy = mo_run_grad_out(r, n, 0), *inv = mo_run_saved(r, n);
    float *a = mo_run_scratch(r, n), *h = a + n_elems, *mean = h + n_elems;
    float *dx = mo_run_grad_in(r, n, 0), *dscale = mo_run_grad_in(r, n, 1);
    scale_by(r, dims, mo_run_in(r, n, 0), inv, true, h);
    if (dscale) {
        r->be->binary(r->dev, MO_MUL, MO_F32, 1, flat, one, one, h, dy, a);
        r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 2, dims, over_rows, a, dscale);
    }
    if (!dx)
        return MOPT_OK;
    scale_by(r, dims, dy, mo_run_in(r, n, 1), false, a);
    r->be->binary(r->dev, MO_MUL, MO_F32, 1, flat, one, one, a, h, dx);
    r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 2, dims, over_columns, dx, mean);
    r->be->axpy(r->dev, rows, 1.0f / (float)dims[1], mean, mean, false);
    scale_by(r, dims, h, mean, true, h);
    r->be->axpy(r->dev, n_elems, -1.0f, h, a, true);
    scale_by(r, dims, a, inv, true, dx);
    return MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct rmsnorm *p = n->params;
    int rank = mo_in(g, n, 0)->shape.rank, first = mo_in(g, n, 1)->shape.rank - (rank - p->axis);
    mo_couple_through(c, g, n);
    for (int axis = p->axis; first >= 0 && axis < rank; axis++)
        mo_couple_same(c, n->in[1], first + axis - p->axis, n->out[0], axis);
    if (first >= 0 && mo_in(g, n, 1)->data && p->axis == rank - 1)
        mo_couple_weight(c, mo_node_id_of(g, n), n->in[1], first, MO_ROLE_PER_CHANNEL);
}

const struct mo_op mo_op_rms_normalization = {
    .type = "RMSNormalization",
    .since_opset = 23,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct rmsnorm),
    .infer = infer,
    .prepare = prepare,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = couple,
    .scratch_bytes = scratch_bytes,
    .saved_bytes = saved_bytes,
    .backward_reads = 1u << 0 | 1u << 1,
    .params_in = 1u << 1,
};
