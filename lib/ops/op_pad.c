/* Pad: constant, edge, reflect, wrap; negative pads cut off. Constants are a fill and a
 * copy; the other modes go axis by axis through a list of source indices, and their
 * gradients back through the same lists. */
#include "lib/ops/tensor.h"

#include <string.h>

enum pad_mode { PAD_CONSTANT, PAD_EDGE, PAD_REFLECT, PAD_WRAP };

struct pad {
    enum pad_mode mode;
    int64_t begin[MO_MAX_RANK], end[MO_MAX_RANK];
    uint64_t value[2];          /* when it is an attribute; an input is read while running */
};

/* ---- infer ---- */

static enum mopt_status read_mode(struct mopt_ctx *ctx, const struct mo_node *n, enum pad_mode *mode)
{
    static const char *const names[] = { "constant", "edge", "reflect", "wrap" };
    const char *text = mo_node_text(n, "mode", "constant");
    for (size_t i = 0; i < MO_COUNT(names); i++)
        if (!strcmp(text, names[i])) {
            *mode = (enum pad_mode)i;
            return MOPT_OK;
        }
    return mo_fail(ctx, MOPT_DATA, "mode '%s', it should be constant, edge, reflect or wrap", text);
}

/* Pads by axis of x; *is_known false when the model computes them. */
static enum mopt_status read_pads(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, int rank,
                                  struct pad *p, bool *is_known)
{
    int64_t given[2 * MO_MAX_RANK];
    int axes[MO_MAX_RANK], n_axes, count;
    MO_TRY(mo_ints_given(ctx, g, n, "pads", 1, given, 2 * MO_MAX_RANK, &count));
    if (count == -1)
        MO_TRY(mo_ints_given(ctx, g, n, "paddings", 1, given, 2 * MO_MAX_RANK, &count));
    MO_TRY(mo_axes_given(ctx, g, n, 3, rank, axes, &n_axes));
    *is_known = count != -2 && n_axes != -2;
    if (!*is_known)
        return MOPT_OK;
    if (n_axes == -1)
        for (n_axes = 0; n_axes < rank; n_axes++)
            axes[n_axes] = n_axes;
    if (count != 2 * n_axes)
        return mo_fail(ctx, MOPT_DATA, "%d pads for %d axes, there should be two for each", count, n_axes);
    for (int k = 0; k < n_axes; k++) {
        p->begin[axes[k]] = given[k];
        p->end[axes[k]] = given[k + n_axes];
    }
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct pad *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    bool is_known = false;
    float value = mo_node_float(n, "value", 0);
    MO_TRY(mo_check_movable(ctx, x->dtype));
    MO_TRY(read_mode(ctx, n, &p->mode));
    if (x->dtype == MO_F32)
        memcpy(p->value, &value, sizeof value);
    if (y.rank != MO_UNKNOWN)
        MO_TRY(read_pads(ctx, g, n, y.rank, p, &is_known));
    for (int axis = 0; axis < y.rank; axis++) {
        int64_t dim = x->shape.dim[axis];
        if (!is_known || dim == MO_UNKNOWN) {
            y.dim[axis] = is_known && !p->begin[axis] && !p->end[axis] ? dim : MO_UNKNOWN;
            continue;
        }
        if (__builtin_add_overflow(dim, p->begin[axis], &y.dim[axis]) ||
            __builtin_add_overflow(y.dim[axis], p->end[axis], &y.dim[axis]) || y.dim[axis] < 0)
            return mo_fail(ctx, MOPT_DATA, "pads %lld and %lld on an axis of %lld", (long long)p->begin[axis],
                           (long long)p->end[axis], (long long)dim);
        if (p->mode != PAD_CONSTANT && dim == 0 && y.dim[axis] > 0)
            return mo_fail(ctx, MOPT_DATA, "there is nothing to pad with on axis %d", axis);
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

/* ---- constant ---- */

/* The part of x that is in y, and where it lies in both. */
static void inner_part(const struct pad *p, const struct mo_shape *x, const struct mo_shape *y, int64_t *dims,
                       int64_t *stride_x, int64_t *stride_y, int64_t *at_x, int64_t *at_y)
{
    mo_dense_strides(x, stride_x);
    mo_dense_strides(y, stride_y);
    *at_x = *at_y = 0;
    for (int axis = 0; axis < x->rank; axis++) {
        int64_t cut_begin = MO_MAX(-p->begin[axis], (int64_t)0), cut_end = MO_MAX(-p->end[axis], (int64_t)0);
        dims[axis] = MO_MAX(x->dim[axis] - cut_begin - cut_end, (int64_t)0);
        *at_x += cut_begin * stride_x[axis];
        *at_y += MO_MAX(p->begin[axis], (int64_t)0) * stride_y[axis];
    }
}

static enum mopt_status forward_constant(struct mo_run *r, const struct mo_node *n)
{
    const struct pad *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    int64_t dims[MO_MAX_RANK], stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], at_x, at_y;
    uint64_t value[2] = { p->value[0], p->value[1] };
    size_t bytes = mo_elem_bytes(x->dtype);
    if (mo_in(r->graph, n, 2))
        r->be->download(r->dev, value, mo_run_in(r, n, 2), bytes);
    r->be->fill(r->dev, bytes, (size_t)mo_value_elems(y), value, mo_run_out(r, n, 0));
    inner_part(p, &x->shape, &y->shape, dims, stride_x, stride_y, &at_x, &at_y);
    r->be->copy_strided(r->dev, bytes, x->shape.rank, dims, stride_x, stride_y,
                        (const char *)mo_run_in(r, n, 0) + (size_t)at_x * bytes,
                        (char *)mo_run_out(r, n, 0) + (size_t)at_y * bytes);
    return MOPT_OK;
}

static enum mopt_status backward_constant(struct mo_run *r, const struct mo_node *n, float *dx)
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    int64_t dims[MO_MAX_RANK], stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], at_x, at_y;
    mo_zero(r, sizeof *dx, mo_shape_elems(x), dx);
    inner_part(n->params, x, y, dims, stride_x, stride_y, &at_x, &at_y);
    r->be->copy_strided(r->dev, sizeof *dx, x->rank, dims, stride_y, stride_x, mo_run_grad_out(r, n, 0) + at_y,
                        dx + at_x);
    return MOPT_OK;
}

/* ---- by index: axis by axis, through two buffers ---- */

struct by_index { size_t index_bytes, buffer_bytes; };

/* The largest tensor on the way: axes done have y's size, the others x's. */
static struct by_index parts(const struct mo_run *r, const struct mo_node *n, size_t elem_bytes)
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    struct mo_shape on_way = *x;
    int64_t longest = 1, most = mo_shape_elems(x);
    for (int axis = 0; axis < x->rank; axis++) {
        on_way.dim[axis] = y->dim[axis];
        most = MO_MAX(most, mo_shape_elems(&on_way));
        longest = MO_MAX(longest, y->dim[axis]);
    }
    return (struct by_index){ mo_part_bytes((size_t)longest * sizeof(int64_t)), mo_part_bytes((size_t)most * elem_bytes) };
}

static int64_t source(enum pad_mode mode, int64_t i, int64_t dim)
{
    if (mode == PAD_EDGE)
        return i < 0 ? 0 : i >= dim ? dim - 1 : i;
    if (mode == PAD_WRAP)
        return (i % dim + dim) % dim;
    if (dim == 1)
        return 0;
    int64_t period = 2 * (dim - 1), at = (i % period + period) % period;
    return at < dim ? at : period - at;
}

enum { CHUNK = 256 };
static void upload_index(struct mo_run *r, const struct pad *p, int axis, int64_t dim_x, int64_t dim_y, int64_t *index)
{
    int64_t chunk[CHUNK];
    for (int64_t at = 0; at < dim_y; at += CHUNK) {
        int64_t count = MO_MIN((int64_t)CHUNK, dim_y - at);
        for (int64_t k = 0; k < count; k++)
            chunk[k] = source(p->mode, at + k - p->begin[axis], dim_x);
        r->be->upload(r->dev, index + at, chunk, (size_t)count * sizeof *chunk);
    }
}

static bool is_padded(const struct pad *p, int axis)
{
    return p->begin[axis] || p->end[axis];
}

static enum mopt_status forward_by_index(struct mo_run *r, const struct mo_node *n)
{
    const struct pad *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    size_t bytes = mo_elem_bytes(x->dtype);
    struct by_index s = parts(r, n, bytes);
    char *scratch = mo_run_scratch(r, n), *buffer[2] = { scratch + s.index_bytes, scratch + s.index_bytes + s.buffer_bytes };
    struct mo_shape now = x->shape;
    const void *from = mo_run_in(r, n, 0);
    int which = 0;
    for (int axis = 0; axis < now.rank; axis++) {
        if (!is_padded(p, axis))
            continue;
        int64_t *index = (int64_t *)scratch, outer = mo_dims_product(&now, 0, axis);
        upload_index(r, p, axis, x->shape.dim[axis], y->shape.dim[axis], index);
        r->be->gather(r->dev, bytes, outer, x->shape.dim[axis], y->shape.dim[axis],
                      mo_dims_product(&now, axis + 1, now.rank), from, index, buffer[which]);
        from = buffer[which];
        which = !which;
        now.dim[axis] = y->shape.dim[axis];
    }
    mo_copy(r, bytes, mo_value_elems(y), from, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_by_index(struct mo_run *r, const struct mo_node *n, float *dx)
{
    const struct pad *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    struct by_index s = parts(r, n, sizeof *dx);
    char *scratch = mo_run_scratch(r, n), *buffer[2] = { scratch + s.index_bytes, scratch + s.index_bytes + s.buffer_bytes };
    struct mo_shape now = mo_out(r->graph, n, 0)->shape;
    const float *from = mo_run_grad_out(r, n, 0);
    int which = 0;
    for (int axis = now.rank - 1; axis >= 0; axis--) {
        if (!is_padded(p, axis))
            continue;
        int64_t *index = (int64_t *)scratch, dim_y = now.dim[axis];
        float *to = (float *)buffer[which];
        upload_index(r, p, axis, x->dim[axis], dim_y, index);
        now.dim[axis] = x->dim[axis];
        mo_zero(r, sizeof *to, mo_shape_elems(&now), to);
        r->be->gather_grad(r->dev, mo_dims_product(&now, 0, axis), x->dim[axis], dim_y,
                           mo_dims_product(&now, axis + 1, now.rank), from, index, to);
        from = to;
        which = !which;
    }
    mo_copy(r, sizeof *dx, mo_shape_elems(x), from, dx);
    return MOPT_OK;
}

/* ---- both ---- */

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct pad *p = n->params;
    if (p->mode == PAD_CONSTANT)
        return 0;
    struct by_index s = parts(r, n, backward ? sizeof(float) : mo_elem_bytes(mo_in(r->graph, n, 0)->dtype));
    return s.index_bytes + 2 * s.buffer_bytes;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct pad *p = n->params;
    return p->mode == PAD_CONSTANT ? forward_constant(r, n) : forward_by_index(r, n);
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct pad *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    return p->mode == PAD_CONSTANT ? backward_constant(r, n, dx) : backward_by_index(r, n, dx);
}

/* Padded axes are walls: what is added is no channel of anything. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct pad *p = n->params;
    for (int axis = 0; axis < mo_in(g, n, 0)->shape.rank; axis++)
        if (is_padded(p, axis))
            mo_couple_wall(c, n->in[0], axis, "padded");
        else
            mo_couple_same(c, n->in[0], axis, n->out[0], axis);
}

/* All pads are written in the new order; named axes are dropped for that. */
static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    const struct pad *p = n->params;
    int64_t pads[2 * MO_MAX_RANK];
    for (int k = 0; k < rank; k++) {
        pads[k] = p->begin[perm[k]];
        pads[k + rank] = p->end[perm[k]];
    }
    if (!mo_in(g, n, 1))
        return mo_node_set_ints(g, (mo_node_id)(n - g->nodes), mo_node_attr(n, "pads") ? "pads" : "paddings", pads,
                                2 * (size_t)rank);
    if (n->n_in > 3)
        n->in[3] = MO_NONE;
    return mo_set_ints_input(g, n, 1, pads, 2 * rank);
}

const struct mo_op mo_op_pad = {
    .type = "Pad",
    .since_opset = 1,
    .min_in = 1, .max_in = 4, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct pad),
    .infer = infer, .forward = forward, .backward = backward,
    .values_in = 1u << 1 | 1u << 3,
    .macs = mo_macs_zero, .couple = couple, .permute = permute,
    .scratch_bytes = scratch_bytes,
};
