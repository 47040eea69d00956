/* Reshape, Flatten, Squeeze, Unsqueeze: the same elements under another shape.
 * They are views; forward and backward are never called. */
#include "lib/ops/tensor.h"

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    (void)g;
    mo_couple_reshape(c, n->in[0], n->out[0]);
}

/* ---- Reshape ---- */

/* Product of the known dimensions; *n_unknown counts the others. */
static int64_t known_product(const struct mo_shape *s, int *n_unknown)
{
    int64_t product = 1;
    *n_unknown = 0;
    for (int axis = 0; axis < s->rank; axis++)
        if (s->dim[axis] == MO_UNKNOWN)
            ++*n_unknown;
        else if (__builtin_mul_overflow(product, s->dim[axis], &product))
            return MO_UNKNOWN;
    return product;
}

/* The one dimension `rest` from what is left of x. A dimension copied by 0 stands on both sides, so an unknown
 * one may be left out of both. */
static enum mopt_status fill_rest(struct mopt_ctx *ctx, const struct mo_shape *x, struct mo_shape *y, int rest,
                                  const bool *is_copied, bool must_fit)
{
    struct mo_shape in = *x, out = *y;
    int unknown_in, unknown_out;
    if (x->rank == MO_UNKNOWN)
        return MOPT_OK;
    for (int axis = 0; axis < y->rank; axis++)
        if (is_copied[axis])
            in.dim[axis] = out.dim[axis] = 1;
    out.dim[rest] = 1;
    int64_t total = known_product(&in, &unknown_in), others = known_product(&out, &unknown_out);
    if (unknown_in || unknown_out || total == MO_UNKNOWN || others == MO_UNKNOWN)
        return MOPT_OK;
    if (others == 0)
        y->dim[rest] = 0;
    else if (total % others == 0)
        y->dim[rest] = total / others;
    else if (must_fit)
        return mo_fail(ctx, MOPT_DATA, "%lld elements cannot be shared out over %lld", (long long)total,
                       (long long)others);
    return MOPT_OK;
}

/* Entries: 0 copies (unless allowzero), -1 is the rest, unknown ones stay unknown. */
static enum mopt_status resolve(struct mopt_ctx *ctx, const struct mo_shape *x, const int64_t *want, bool allow_zero,
                                struct mo_shape *y)
{
    bool is_copied[MO_MAX_RANK] = { false };
    int rest = -1, not_known = -1, n_unknown = 0;
    for (int axis = 0; axis < y->rank; axis++) {
        int64_t v = want[axis];
        y->dim[axis] = MO_UNKNOWN;
        if (v == -1 && rest >= 0)
            return mo_fail(ctx, MOPT_DATA, "the shape has two entries of -1");
        if (v == -1) {
            rest = axis;
        } else if (v == MO_VALUE_UNKNOWN) {
            not_known = axis;
            n_unknown++;
        } else if (v == 0 && !allow_zero) {
            if (x->rank != MO_UNKNOWN && axis >= x->rank)
                return mo_fail(ctx, MOPT_DATA, "entry %d of the shape copies an axis that is not there", axis);
            is_copied[axis] = true;
            y->dim[axis] = x->rank == MO_UNKNOWN ? MO_UNKNOWN : x->dim[axis];
        } else if (v < -1) {
            return mo_fail(ctx, MOPT_DATA, "entry %d of the shape is %lld", axis, (long long)v);
        } else {
            y->dim[axis] = v;
        }
    }
    if (rest >= 0)
        return n_unknown ? MOPT_OK : fill_rest(ctx, x, y, rest, is_copied, true);
    return n_unknown == 1 ? fill_rest(ctx, x, y, not_known, is_copied, false) : MOPT_OK;
}

static enum mopt_status check_elems(struct mopt_ctx *ctx, const struct mo_shape *x, const struct mo_shape *y)
{
    char from[128], to[128];
    if (!mo_shape_known(x) || !mo_shape_known(y) || mo_shape_elems(x) == mo_shape_elems(y))
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "%s cannot be given the shape %s", mo_shape_text(x, from, sizeof from),
                   mo_shape_text(y, to, sizeof to));
}

static enum mopt_status infer_reshape(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0), *shape = mo_in(g, n, 1);
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, "shape", &n_ints);
    int64_t want[MO_MAX_RANK];
    struct mo_shape y;
    int64_t rank = shape ? mo_value_elems(shape) : (int64_t)n_ints;
    if (!shape && !mo_node_attr(n, "shape"))
        return mo_fail(ctx, MOPT_DATA, "it has no shape");
    if (rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a rank of %lld, at most %d is possible", (long long)rank, MO_MAX_RANK);
    y.rank = (int)rank;
    if (rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    for (int k = 0; k < y.rank; k++)
        want[k] = shape ? mo_known_in(g, n, 1, k) : ints[k];
    MO_TRY(resolve(ctx, &x->shape, want, mo_node_int(n, "allowzero", 0) != 0, &y));
    MO_TRY(check_elems(ctx, &x->shape, &y));
    mo_set_out(g, n, 0, x->dtype, &y);
    mo_known_copy(g, n);
    return MOPT_OK;
}

const struct mo_op mo_op_reshape = {
    .type = "Reshape",
    .since_opset = 1,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_VIEW, .bf16_in = 1,
    .infer = infer_reshape,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple, .refit = mo_refit_reshape,
    .params_in = 1,
    .quant = { .kind = MO_QUANT_MOVE },
};

/* ---- Flatten: axes before `axis` become the first dimension, the others the second ---- */

static enum mopt_status infer_flatten(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = mo_shape_of(2, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN);
    int64_t axis = mo_node_int(n, "axis", 1);
    if (x->shape.rank != MO_UNKNOWN) {
        int rank = x->shape.rank;
        if (axis < -rank || axis > rank)
            return mo_fail(ctx, MOPT_DATA, "axis %lld is not within a rank of %d", (long long)axis, rank);
        axis = axis < 0 ? axis + rank : axis;
        struct mo_shape part = { .rank = (int)axis };
        for (int k = 0; k < rank; k++)
            part.dim[k] = x->shape.dim[k];
        y.dim[0] = mo_shape_elems(&part);
        part.rank = rank - (int)axis;
        for (int k = 0; k < part.rank; k++)
            part.dim[k] = x->shape.dim[axis + k];
        y.dim[1] = mo_shape_elems(&part);
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

const struct mo_op mo_op_flatten = {
    .type = "Flatten",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_VIEW, .bf16_in = 1,
    .infer = infer_flatten,
    .macs = mo_macs_zero, .couple = couple,
    .params_in = 1,
    .quant = { .kind = MO_QUANT_MOVE },
};

/* ---- Squeeze ---- */

static enum mopt_status infer_squeeze(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = { .rank = 0 };
    int axes[MO_MAX_RANK], n_axes = 0;
    bool is_gone[MO_MAX_RANK] = { false };
    if (x->shape.rank != MO_UNKNOWN)
        MO_TRY(mo_axes_given(ctx, g, n, 1, x->shape.rank, axes, &n_axes));
    if (x->shape.rank == MO_UNKNOWN || n_axes == -2 || (n_axes == -1 && !mo_shape_known(&x->shape))) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    for (int k = 0; k < n_axes; k++) {
        int64_t dim = x->shape.dim[axes[k]];
        if (dim != 1 && dim != MO_UNKNOWN)
            return mo_fail(ctx, MOPT_DATA, "axis %d has %lld elements, it should have one", axes[k], (long long)dim);
        is_gone[axes[k]] = true;
    }
    for (int axis = 0; axis < x->shape.rank; axis++)
        if (!(n_axes >= 0 ? is_gone[axis] : x->shape.dim[axis] == 1))
            y.dim[y.rank++] = x->shape.dim[axis];
    mo_set_out(g, n, 0, x->dtype, &y);
    mo_known_copy(g, n);
    return MOPT_OK;
}

const struct mo_op mo_op_squeeze = {
    .type = "Squeeze",
    .since_opset = 1,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_VIEW, .bf16_in = 1,
    .infer = infer_squeeze,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple,
    .params_in = 1,
    .quant = { .kind = MO_QUANT_MOVE },
};

/* ---- Unsqueeze: axes are places in the result ---- */

static enum mopt_status infer_unsqueeze(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y;
    int64_t given[MO_MAX_RANK];
    int axes[MO_MAX_RANK], n_axes;
    bool is_new[MO_MAX_RANK] = { false };
    MO_TRY(mo_ints_given(ctx, g, n, "axes", 1, given, MO_MAX_RANK, &n_axes));
    if (n_axes == -1)
        return mo_fail(ctx, MOPT_DATA, "it has no axes");
    if (n_axes == -2 || x->shape.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    y.rank = x->shape.rank + n_axes;
    if (y.rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a rank of %d, at most %d is possible", y.rank, MO_MAX_RANK);
    for (int k = 0; k < n_axes; k++) {
        MO_TRY(mo_axis(ctx, given[k], y.rank, &axes[k]));
        if (is_new[axes[k]])
            return mo_fail(ctx, MOPT_DATA, "axis %d is given twice", axes[k]);
        is_new[axes[k]] = true;
    }
    for (int axis = 0, from = 0; axis < y.rank; axis++)
        y.dim[axis] = is_new[axis] ? 1 : x->shape.dim[from++];
    mo_set_out(g, n, 0, x->dtype, &y);
    mo_known_copy(g, n);
    return MOPT_OK;
}

const struct mo_op mo_op_unsqueeze = {
    .type = "Unsqueeze",
    .since_opset = 1,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_VIEW, .bf16_in = 1,
    .infer = infer_unsqueeze,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple,
    .params_in = 1,
    .quant = { .kind = MO_QUANT_MOVE },
};
