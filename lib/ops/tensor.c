/* tensor.c - see tensor.h. */
#include "lib/ops/tensor.h"

#include <string.h>

void mo_dense_strides(const struct mo_shape *shape, int64_t *stride)
{
    int64_t step = 1;
    for (int axis = shape->rank - 1; axis >= 0; axis--) {
        stride[axis] = step;
        step *= shape->dim[axis];
    }
}

void mo_broadcast_strides(const struct mo_shape *from, const struct mo_shape *to, int64_t *stride)
{
    int64_t dense[MO_MAX_RANK];
    mo_dense_strides(from, dense);
    int shift = to->rank - from->rank;
    for (int axis = 0; axis < to->rank; axis++)
        stride[axis] = axis < shift || from->dim[axis - shift] == 1 ? 0 : dense[axis - shift];
}

int64_t mo_dims_product(const struct mo_shape *shape, int begin, int end)
{
    int64_t product = 1;
    for (int axis = begin; axis < end; axis++)
        product *= shape->dim[axis];
    return product;
}

size_t mo_elem_bytes(enum mo_dtype dtype)
{
    return dtype < MO_N_DTYPES ? (size_t)mo_dtype_bits(dtype) / 8 : 0;
}

/* ---- infer ---- */

enum mopt_status mo_check_movable(struct mopt_ctx *ctx, enum mo_dtype dtype)
{
    if (dtype == MO_UNDEFINED || mo_elem_bytes(dtype))
        return MOPT_OK;
    return mo_fail(ctx, MOPT_UNSUPPORTED, "elements of type %s cannot be moved one by one", mo_dtype_name(dtype));
}

enum mopt_status mo_check_same_dtype(struct mopt_ctx *ctx, const struct mo_value *a, const struct mo_value *b)
{
    if (a->dtype == b->dtype || a->dtype == MO_UNDEFINED || b->dtype == MO_UNDEFINED)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "'%s' is %s and '%s' is %s, they should be of one type", a->name,
                   mo_dtype_name(a->dtype), b->name, mo_dtype_name(b->dtype));
}

void mo_set_out_unknown(struct mo_graph *g, const struct mo_node *n, uint32_t i, enum mo_dtype dtype)
{
    struct mo_shape unknown = { .rank = MO_UNKNOWN };
    mo_set_out(g, n, i, dtype, &unknown);
}

int mo_ints_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i, int64_t *out, int max)
{
    const struct mo_value *v = mo_in(g, n, i);
    if (!v)
        return -1;
    int count = mo_value_ints(v, out, max);
    return count < 0 ? -2 : count;
}

enum mopt_status mo_ints_given(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                               const char *attr, uint32_t i, int64_t *out, int max, int *count)
{
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, attr, &n_ints);
    const struct mo_value *v = mo_in(g, n, i);
    int64_t elems = v ? mo_value_elems(v) : (int64_t)n_ints;
    if (elems > max)
        return mo_fail(ctx, MOPT_DATA, "%lld values of '%s', at most %d are possible", (long long)elems, attr, max);
    *count = mo_ints_in(g, n, i, out, max);
    if (*count == -1 && mo_node_attr(n, attr)) {
        if (n_ints)
            memcpy(out, ints, n_ints * sizeof *out);
        *count = (int)n_ints;
    }
    return MOPT_OK;
}

enum mopt_status mo_axes_given(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, uint32_t i,
                               int rank, int *axes, int *count)
{
    int64_t given[MO_MAX_RANK];
    MO_TRY(mo_ints_given(ctx, g, n, "axes", i, given, MO_MAX_RANK, count));
    for (int k = 0; k < *count; k++) {
        MO_TRY(mo_axis(ctx, given[k], rank, &axes[k]));
        for (int j = 0; j < k; j++)
            if (axes[j] == axes[k])
                return mo_fail(ctx, MOPT_DATA, "axis %d is given twice", axes[k]);
    }
    return MOPT_OK;
}

void mo_known_copy(struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    if (!x || (!x->known && !x->data))
        return;
    int64_t *known = mo_known_out(g, n, 0);
    int64_t count = known ? mo_value_elems(mo_out(g, n, 0)) : 0;
    for (int64_t k = 0; k < count; k++)
        known[k] = mo_known_in(g, n, 0, k);
}

/* ---- run ---- */

void mo_copy(struct mo_run *r, size_t elem_bytes, int64_t n_elems, const void *x, void *y)
{
    int64_t one = 1;
    r->be->copy_strided(r->dev, elem_bytes, 1, &n_elems, &one, &one, x, y);
}

void mo_zero(struct mo_run *r, size_t elem_bytes, int64_t n_elems, void *y)
{
    static const uint64_t zero[2];
    r->be->fill(r->dev, elem_bytes, (size_t)n_elems, zero, y);
}

void mo_sum_to(struct mo_run *r, const struct mo_shape *from_shape, const float *from, const struct mo_shape *to_shape,
               float *to, bool add)
{
    int64_t stride_from[MO_MAX_RANK], stride_to[MO_MAX_RANK];
    int64_t n_from = mo_shape_elems(from_shape), n_to = mo_shape_elems(to_shape);
    if (!add && n_from == n_to) {
        mo_copy(r, sizeof(float), n_from, from, to);
        return;
    }
    if (!add)
        mo_zero(r, sizeof(float), n_to, to);
    mo_dense_strides(from_shape, stride_from);
    mo_broadcast_strides(to_shape, from_shape, stride_to);
    r->be->add_strided(r->dev, from_shape->rank, from_shape->dim, stride_from, stride_to, from, to);
}

void mo_widen_index(struct mo_run *r, const struct mo_value *v, const void *x, int64_t *to)
{
    r->be->cast(r->dev, (int)v->dtype, MO_I64, (size_t)mo_value_elems(v), x, to);
}

size_t mo_part_bytes(size_t bytes)
{
    return (bytes + MO_ALIGN_BYTES - 1) / MO_ALIGN_BYTES * MO_ALIGN_BYTES;
}

/* ---- couple ---- */

void mo_couple_axes(struct mo_couple *c, const struct mo_graph *g, mo_value_id a, mo_value_id b, int except)
{
    const struct mo_shape *x = &g->values[a].shape, *y = &g->values[b].shape;
    for (int axis = 0; axis < x->rank && axis < y->rank; axis++)
        if (axis != except && x->dim[axis] == y->dim[axis])
            mo_couple_same(c, a, axis, b, axis);
}

/* ---- refit, permute ---- */

bool mo_set_ints_input(struct mo_graph *g, struct mo_node *n, uint32_t i, const int64_t *values, int64_t count)
{
    const struct mo_value *old = mo_in(g, n, i);
    enum mo_dtype dtype = old && old->dtype == MO_I32 ? MO_I32 : MO_I64;
    struct mo_shape shape = mo_shape_of(1, count);
    mo_value_id fresh = mo_graph_add_const(g, old ? old->name : "axes", dtype, &shape, NULL);
    if (fresh == MO_NONE)
        return false;
    void *data = g->values[fresh].data;     /* nobody else knows it yet */
    for (int64_t k = 0; k < count; k++)
        if (dtype == MO_I32)
            ((int32_t *)data)[k] = (int32_t)values[k];
        else
            ((int64_t *)data)[k] = values[k];
    if (i >= n->n_in) {
        mo_value_id *in = mo_arena_new(g->arena, i + 1, sizeof *in);
        if (!in)
            return false;
        for (uint32_t k = 0; k <= i; k++)
            in[k] = k < n->n_in ? n->in[k] : MO_NONE;
        n->in = in;
        n->n_in = i + 1;
    }
    n->in[i] = fresh;
    return true;
}

enum mopt_status mo_replace_ints(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, uint32_t i,
                                 const int64_t *values, int64_t count)
{
    const struct mo_value *old = mo_in(g, n, i);
    if (!old || !old->data)
        return MOPT_OK;
    return mo_set_ints_input(g, n, i, values, count) ? MOPT_OK : mo_no_memory(ctx, (uint64_t)count * 8, "a constant");
}

int mo_permuted_axis(const int *perm, int rank, int axis)
{
    for (int k = 0; k < rank; k++)
        if (perm[k] == axis)
            return k;
    return axis;
}

enum mopt_status mo_infer_cumulative(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_cumulative *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    int64_t axis = mo_known_in(g, n, 1, 0);
    p->exclusive = mo_node_int(n, "exclusive", 0) != 0;
    p->reverse = mo_node_int(n, "reverse", 0) != 0;
    if (x->shape.rank == MO_UNKNOWN || axis == MO_VALUE_UNKNOWN) {      /* not to be run before the axis is known */
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    MO_TRY(mo_axis(ctx, axis, x->shape.rank, &p->axis));
    return mo_infer_like_input(ctx, g, n);
}
