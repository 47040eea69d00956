/* GatherElements, GatherND, ScatterElements (and its old name Scatter), ScatterND:
 * elements picked and placed by index. */
#include "lib/ops/tensor.h"

#include <string.h>

/* Indices as int64: the input itself, or a copy in scratch. */
static const int64_t *index_of(struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *index = mo_in(r->graph, n, i);
    if (index->dtype == MO_I64)
        return mo_run_in(r, n, i);
    int64_t *wide = mo_run_scratch(r, n);
    mo_widen_index(r, index, mo_run_in(r, n, i), wide);
    return wide;
}

static size_t index_bytes(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *index = mo_in(r->graph, n, i);
    return index->dtype == MO_I64 ? 0 : mo_part_bytes((size_t)mo_value_elems(index) * sizeof(int64_t));
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)backward;
    return index_bytes(r, n, 1);
}

/* ---- GatherElements: y[i, j] = x[index[i, j], j] for axis 0 ---- */

struct elements {
    int axis;
    enum mo_scatter f;
};

static enum mopt_status infer_gather_elements(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct elements *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *index = mo_in(g, n, 1);
    struct mo_shape y = index->shape;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank != MO_UNKNOWN && y.rank != MO_UNKNOWN) {
        if (x->shape.rank != y.rank)
            return mo_fail(ctx, MOPT_DATA, "the input has a rank of %d and the indices %d", x->shape.rank, y.rank);
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 0), y.rank, &p->axis));
        for (int k = 0; k < y.rank; k++)
            if (k != p->axis && x->shape.dim[k] != MO_UNKNOWN && y.dim[k] > x->shape.dim[k])
                return mo_fail(ctx, MOPT_DATA, "indices reach over %lld on axis %d, the input over %lld",
                               (long long)y.dim[k], k, (long long)x->shape.dim[k]);
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status forward_gather_elements(struct mo_run *r, const struct mo_node *n)
{
    const struct elements *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    int64_t stride[MO_MAX_RANK];
    mo_dense_strides(&x->shape, stride);
    r->be->gather_elements(r->dev, mo_elem_bytes(x->dtype), y->shape.rank, y->shape.dim, stride, p->axis,
                           x->shape.dim[p->axis], mo_run_in(r, n, 0), index_of(r, n, 1), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_gather_elements(struct mo_run *r, const struct mo_node *n)
{
    const struct elements *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    float *dx = mo_run_grad_in(r, n, 0);
    int64_t stride[MO_MAX_RANK];
    if (!dx)
        return MOPT_OK;
    if (!mo_run_adds(r, n, 0))
        mo_zero(r, sizeof *dx, mo_shape_elems(x), dx);
    mo_dense_strides(x, stride);
    r->be->scatter_elements(r->dev, MO_F32, MO_SCATTER_ADD, y->rank, y->dim, stride, p->axis, x->dim[p->axis],
                            index_of(r, n, 1), mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

const struct mo_op mo_op_gather_elements = {
    .type = "GatherElements",
    .since_opset = 11,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct elements),
    .infer = infer_gather_elements, .forward = forward_gather_elements, .backward = backward_gather_elements,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 1,
};

/* ---- ScatterElements: y = x, then y[index[i, j], j] f= updates[i, j] ---- */

static enum mopt_status read_reduction(struct mopt_ctx *ctx, const struct mo_node *n, enum mo_scatter *f)
{
    static const char *const names[] = { "none", "add", "mul", "min", "max" };
    const char *text = mo_node_text(n, "reduction", "none");
    for (size_t i = 0; i < MO_COUNT(names); i++)
        if (!strcmp(text, names[i])) {
            *f = (enum mo_scatter)i;
            return MOPT_OK;
        }
    return mo_fail(ctx, MOPT_DATA, "reduction '%s', it should be none, add, mul, min or max", text);
}

static enum mopt_status infer_scatter_elements(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct elements *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *index = mo_in(g, n, 1), *updates = mo_in(g, n, 2);
    char text_a[128], text_b[128];
    MO_TRY(mo_check_movable(ctx, x->dtype));
    MO_TRY(mo_check_same_dtype(ctx, x, updates));
    MO_TRY(read_reduction(ctx, n, &p->f));
    if (x->shape.rank != MO_UNKNOWN)
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 0), x->shape.rank, &p->axis));
    if (mo_shape_known(&index->shape) && mo_shape_known(&updates->shape) && mo_shape_known(&x->shape)) {
        if (!mo_shape_equal(&index->shape, &updates->shape) || index->shape.rank != x->shape.rank)
            return mo_fail(ctx, MOPT_DATA, "indices are %s and updates %s, they should be equal and of x's rank",
                           mo_shape_text(&index->shape, text_a, sizeof text_a),
                           mo_shape_text(&updates->shape, text_b, sizeof text_b));
        for (int k = 0; k < x->shape.rank; k++)
            if (k != p->axis && index->shape.dim[k] > x->shape.dim[k])
                return mo_fail(ctx, MOPT_DATA, "indices reach over %lld on axis %d, the input over %lld",
                               (long long)index->shape.dim[k], k, (long long)x->shape.dim[k]);
    }
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status forward_scatter_elements(struct mo_run *r, const struct mo_node *n)
{
    const struct elements *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    const struct mo_shape *index = &mo_in(r->graph, n, 1)->shape;
    int64_t stride[MO_MAX_RANK];
    mo_dense_strides(&x->shape, stride);
    mo_copy(r, mo_elem_bytes(x->dtype), mo_value_elems(x), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    r->be->scatter_elements(r->dev, (int)x->dtype, p->f, index->rank, index->dim, stride, p->axis,
                            x->shape.dim[p->axis], index_of(r, n, 1), mo_run_in(r, n, 2), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status no_gradient(struct mo_run *r, const struct mo_node *n)
{
    return mo_fail(r->ctx, MOPT_UNSUPPORTED, "%s with reduction '%s' has no gradient, none and add have one", n->type,
                   mo_node_text(n, "reduction", "none"));
}

/* dupdates = dy where it was written; dx = dy, without the places that were overwritten. */
static enum mopt_status backward_scatter_elements(struct mo_run *r, const struct mo_node *n)
{
    const struct elements *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *index = &mo_in(r->graph, n, 1)->shape;
    float *dx = mo_run_grad_in(r, n, 0), *du = mo_run_grad_in(r, n, 2);
    const float *dy = mo_run_grad_out(r, n, 0);
    int64_t stride[MO_MAX_RANK], n_index = mo_shape_elems(index);
    if (p->f != MO_SCATTER_SET && p->f != MO_SCATTER_ADD)
        return no_gradient(r, n);
    mo_dense_strides(x, stride);
    const int64_t *at = index_of(r, n, 1);
    if (du)
        r->be->gather_elements(r->dev, sizeof *du, index->rank, index->dim, stride, p->axis, x->dim[p->axis], dy, at, du);
    if (dx) {
        mo_copy(r, sizeof *dx, mo_shape_elems(x), dy, dx);
        float *zeros = (float *)((char *)mo_run_scratch(r, n) + index_bytes(r, n, 1));
        if (p->f == MO_SCATTER_SET) {
            mo_zero(r, sizeof *zeros, n_index, zeros);
            r->be->scatter_elements(r->dev, MO_F32, MO_SCATTER_SET, index->rank, index->dim, stride, p->axis,
                                    x->dim[p->axis], at, zeros, dx);
        }
    }
    return MOPT_OK;
}

/* Behind the indices, zeros of the size of the updates. */
static size_t scratch_scatter(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    size_t zeros = backward ? (size_t)mo_value_elems(mo_in(r->graph, n, 2)) * sizeof(float) : 0;
    return index_bytes(r, n, 1) + zeros;
}

const struct mo_op mo_op_scatter_elements = {
    .type = "ScatterElements",
    .since_opset = 11,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct elements),
    .infer = infer_scatter_elements, .forward = forward_scatter_elements, .backward = backward_scatter_elements,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_scatter,
    .backward_reads = 1u << 1,
};

const struct mo_op mo_op_scatter = {
    .type = "Scatter",
    .since_opset = 9,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct elements),
    .infer = infer_scatter_elements, .forward = forward_scatter_elements, .backward = backward_scatter_elements,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_scatter,
    .backward_reads = 1u << 1,
};

/* ---- GatherND: the last axis of the indices is a place in x behind its batch axes ---- */

struct coords {
    int64_t batch, n_index, inner, dims[MO_MAX_RANK];
    int n_coords;
    enum mo_scatter f;
};

/* Sizes from x, indices and the number of batch axes; everything known. */
static enum mopt_status read_coords(struct mopt_ctx *ctx, const struct mo_shape *x, const struct mo_shape *index,
                                    int n_batch, struct coords *p)
{
    p->n_coords = (int)index->dim[index->rank - 1];
    p->batch = mo_dims_product(x, 0, n_batch);
    p->n_index = mo_dims_product(index, n_batch, index->rank - 1);
    p->inner = mo_dims_product(x, n_batch + p->n_coords, x->rank);
    for (int k = 0; k < p->n_coords; k++)
        p->dims[k] = x->dim[n_batch + k];
    for (int k = 0; k < n_batch; k++)
        if (x->dim[k] != index->dim[k])
            return mo_fail(ctx, MOPT_DATA, "batch axis %d is %lld in the input and %lld in the indices", k,
                           (long long)x->dim[k], (long long)index->dim[k]);
    return MOPT_OK;
}

static enum mopt_status infer_gather_nd(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0), *index = mo_in(g, n, 1);
    int64_t n_batch = mo_node_int(n, "batch_dims", 0);
    struct mo_shape y;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank == MO_UNKNOWN || index->shape.rank == MO_UNKNOWN ||
        (index->shape.rank > 0 && index->shape.dim[index->shape.rank - 1] == MO_UNKNOWN)) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    int64_t n_coords = index->shape.rank ? index->shape.dim[index->shape.rank - 1] : 0;
    if (index->shape.rank == 0 || n_batch < 0 || n_batch >= index->shape.rank || n_coords < 1 ||
        n_batch + n_coords > x->shape.rank)
        return mo_fail(ctx, MOPT_DATA, "indices of %lld numbers behind %lld batch axes for a rank of %d",
                       (long long)n_coords, (long long)n_batch, x->shape.rank);
    y.rank = index->shape.rank - 1 + x->shape.rank - (int)(n_batch + n_coords);
    if (y.rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a rank of %d, at most %d is possible", y.rank, MO_MAX_RANK);
    for (int k = 0; k < index->shape.rank - 1; k++)
        y.dim[k] = index->shape.dim[k];
    for (int k = (int)(n_batch + n_coords); k < x->shape.rank; k++)
        y.dim[index->shape.rank - 1 + k - (int)(n_batch + n_coords)] = x->shape.dim[k];
    mo_set_out(g, n, 0, x->dtype, &y);
    if (mo_shape_known(&x->shape) && mo_shape_known(&index->shape))
        return read_coords(ctx, &x->shape, &index->shape, (int)n_batch, n->params);
    return MOPT_OK;
}

static enum mopt_status forward_gather_nd(struct mo_run *r, const struct mo_node *n)
{
    const struct coords *p = n->params;
    r->be->gather_nd(r->dev, mo_elem_bytes(mo_in(r->graph, n, 0)->dtype), p->batch, p->n_index, p->n_coords, p->dims,
                     p->inner, mo_run_in(r, n, 0), index_of(r, n, 1), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_gather_nd(struct mo_run *r, const struct mo_node *n)
{
    const struct coords *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    if (!mo_run_adds(r, n, 0))
        mo_zero(r, sizeof *dx, mo_value_elems(mo_in(r->graph, n, 0)), dx);
    r->be->scatter_nd(r->dev, MO_F32, MO_SCATTER_ADD, p->batch, p->n_index, p->n_coords, p->dims, p->inner,
                      index_of(r, n, 1), mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

const struct mo_op mo_op_gather_nd = {
    .type = "GatherND",
    .since_opset = 11,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct coords),
    .infer = infer_gather_nd, .forward = forward_gather_nd, .backward = backward_gather_nd,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 1,
};

/* ---- ScatterND: y = x, then y[indices[i], :] f= updates[i, :] ---- */

static enum mopt_status infer_scatter_nd(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct coords *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *index = mo_in(g, n, 1), *updates = mo_in(g, n, 2);
    MO_TRY(mo_check_movable(ctx, x->dtype));
    MO_TRY(mo_check_same_dtype(ctx, x, updates));
    MO_TRY(read_reduction(ctx, n, &p->f));
    if (mo_shape_known(&x->shape) && mo_shape_known(&index->shape)) {
        int64_t n_coords = index->shape.rank ? index->shape.dim[index->shape.rank - 1] : 0;
        if (n_coords < 1 || n_coords > x->shape.rank)
            return mo_fail(ctx, MOPT_DATA, "indices of %lld numbers for a rank of %d", (long long)n_coords,
                           x->shape.rank);
        MO_TRY(read_coords(ctx, &x->shape, &index->shape, 0, p));
        int64_t wanted = p->n_index * p->inner, given = mo_value_elems(updates);
        if (given != MO_UNKNOWN && given != wanted)
            return mo_fail(ctx, MOPT_DATA, "%lld elements to place, there should be %lld", (long long)given,
                           (long long)wanted);
    }
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status forward_scatter_nd(struct mo_run *r, const struct mo_node *n)
{
    const struct coords *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    mo_copy(r, mo_elem_bytes(x->dtype), mo_value_elems(x), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    r->be->scatter_nd(r->dev, (int)x->dtype, p->f, 1, p->n_index, p->n_coords, p->dims, p->inner, index_of(r, n, 1),
                      mo_run_in(r, n, 2), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_scatter_nd(struct mo_run *r, const struct mo_node *n)
{
    const struct coords *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0), *du = mo_run_grad_in(r, n, 2);
    const float *dy = mo_run_grad_out(r, n, 0);
    if (p->f != MO_SCATTER_SET && p->f != MO_SCATTER_ADD)
        return no_gradient(r, n);
    const int64_t *at = index_of(r, n, 1);
    if (du)
        r->be->gather_nd(r->dev, sizeof *du, 1, p->n_index, p->n_coords, p->dims, p->inner, dy, at, du);
    if (dx) {
        mo_copy(r, sizeof *dx, mo_value_elems(mo_in(r->graph, n, 0)), dy, dx);
        float *zeros = (float *)((char *)mo_run_scratch(r, n) + index_bytes(r, n, 1));
        if (p->f == MO_SCATTER_SET) {
            mo_zero(r, sizeof *zeros, p->n_index * p->inner, zeros);
            r->be->scatter_nd(r->dev, MO_F32, MO_SCATTER_SET, 1, p->n_index, p->n_coords, p->dims, p->inner, at, zeros, dx);
        }
    }
    return MOPT_OK;
}

const struct mo_op mo_op_scatter_nd = {
    .type = "ScatterND",
    .since_opset = 11,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct coords),
    .infer = infer_scatter_nd, .forward = forward_scatter_nd, .backward = backward_scatter_nd,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_scatter,
    .backward_reads = 1u << 1,
};
