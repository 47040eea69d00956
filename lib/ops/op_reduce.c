/* ReduceSum, Mean, Max, Min, Prod, L1, L2, SumSquare, LogSum, LogSumExp over any axes,
 * which are an attribute in old opsets and an input since 13 (sum) or 18. One row each. */
#include "lib/ops/tensor.h"

struct reduce {
    enum mo_reduce f;
    bool is_reduced[MO_MAX_RANK];
    bool is_copy;               /* no axis is reduced and that means none (noop_with_empty_axes) */
    bool keeps;
};

/* Types that the kernel takes; the others go through one of these. */
static enum mo_dtype work_dtype(enum mo_dtype dtype)
{
    switch (dtype) {
    case MO_F32: case MO_F64: case MO_I32: case MO_I64: return dtype;
    case MO_F16: case MO_BF16: return MO_F32;
    default: return MO_I64;
    }
}

/* The product of a shape is a number of elements. */
static void infer_known(struct mo_graph *g, const struct mo_node *n, enum mo_reduce f)
{
    int64_t *known = mo_known_out(g, n, 0), count = mo_value_elems(mo_in(g, n, 0)), result = f == MO_REDUCE_PROD;
    if (!known || (f != MO_REDUCE_PROD && f != MO_REDUCE_SUM))
        return;
    for (int64_t k = 0; k < count; k++) {
        int64_t v = mo_known_in(g, n, 0, k);
        if (v == MO_VALUE_UNKNOWN || (f == MO_REDUCE_PROD ? __builtin_mul_overflow(result, v, &result)
                                                          : __builtin_add_overflow(result, v, &result)))
            return;
    }
    known[0] = result;
}

static enum mopt_status infer_as(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum mo_reduce f)
{
    struct reduce *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = { .rank = 0 };
    int axes[MO_MAX_RANK], n_axes = 0;
    *p = (struct reduce){ .f = f, .keeps = mo_node_int(n, "keepdims", 1) != 0 };
    if (x->dtype == MO_STRING || x->dtype == MO_C64 || x->dtype == MO_C128)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "reductions of %s", mo_dtype_name(x->dtype));
    if (x->shape.rank != MO_UNKNOWN)
        MO_TRY(mo_axes_given(ctx, g, n, 1, x->shape.rank, axes, &n_axes));
    if (x->shape.rank == MO_UNKNOWN || n_axes == -2) {
        y.rank = p->keeps ? x->shape.rank : MO_UNKNOWN;
        for (int axis = 0; axis < y.rank; axis++)
            y.dim[axis] = MO_UNKNOWN;
        mo_set_out(g, n, 0, x->dtype, &y);
        return MOPT_OK;
    }
    bool is_none = n_axes <= 0;
    p->is_copy = is_none && mo_node_int(n, "noop_with_empty_axes", 0);
    for (int axis = 0; axis < x->shape.rank; axis++)
        p->is_reduced[axis] = is_none && !p->is_copy;
    for (int k = 0; k < n_axes; k++)
        p->is_reduced[axes[k]] = true;
    for (int axis = 0; axis < x->shape.rank; axis++)
        if (!p->is_reduced[axis])
            y.dim[y.rank++] = x->shape.dim[axis];
        else if (p->keeps)
            y.dim[y.rank++] = 1;
    mo_set_out(g, n, 0, x->dtype, &y);
    if (x->shape.rank == 1 && p->is_reduced[0] && (x->known || x->data))
        infer_known(g, n, f);
    return MOPT_OK;
}

/* Scratch: x and y in the kernel's type, when it is not theirs. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype, work = work_dtype(dtype);
    if (backward || work == dtype)
        return 0;
    return mo_part_bytes(mo_dtype_bytes(work, mo_value_elems(mo_in(r->graph, n, 0)))) +
           mo_part_bytes(mo_dtype_bytes(work, mo_value_elems(mo_out(r->graph, n, 0))));
}

/* With no axis reduced every formula still holds for the one element (L1 of x is |x|), so is_copy needs no case. */
static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct reduce *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    enum mo_dtype work = work_dtype(x->dtype);
    const void *in = mo_run_in(r, n, 0);
    void *out = mo_run_out(r, n, 0);
    size_t n_x = (size_t)mo_value_elems(x), n_y = (size_t)mo_value_elems(y);
    if (work != x->dtype) {
        char *wide = mo_run_scratch(r, n);
        r->be->cast(r->dev, (int)x->dtype, (int)work, n_x, in, wide);
        in = wide;
        out = wide + mo_part_bytes(mo_dtype_bytes(work, (int64_t)n_x));
    }
    if (x->dtype == MO_BOOL && n_x == 0 && p->f == MO_REDUCE_MAX) {     /* of nothing: false, not the least integer */
        mo_zero(r, 1, (int64_t)n_y, mo_run_out(r, n, 0));
        return MOPT_OK;
    }
    r->be->reduce(r->dev, p->f, (int)work, x->shape.rank, x->shape.dim, p->is_reduced, in, out);
    if (work != x->dtype)
        r->be->cast(r->dev, (int)work, (int)x->dtype, n_y, out, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct reduce *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        r->be->reduce_grad(r->dev, p->f, x->shape.rank, x->shape.dim, p->is_reduced, mo_run_in(r, n, 0),
                           mo_run_out(r, n, 0), mo_run_grad_out(r, n, 0), dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

/* The axes that stay; a sum over channels reads them all, and those may go. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct reduce *p = n->params;
    int to = 0;
    for (int axis = 0; axis < mo_in(g, n, 0)->shape.rank; axis++) {
        if (!p->is_reduced[axis])
            mo_couple_same(c, n->in[0], axis, n->out[0], to);
        else
            mo_couple_wall(c, n->in[0], axis, "reduced over");
        to += !p->is_reduced[axis] || p->keeps;
    }
}

static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    const struct reduce *p = n->params;
    int64_t axes[MO_MAX_RANK], count = 0;
    if (!p->keeps)
        return false;
    for (int axis = 0; axis < rank; axis++)
        if (p->is_reduced[axis])
            axes[count++] = mo_permuted_axis(perm, rank, axis);
    if (count == 0 || count == rank)
        return true;
    if (mo_in(g, n, 1))
        return mo_set_ints_input(g, n, 1, axes, count);
    return mo_node_set_ints(g, (mo_node_id)(n - g->nodes), "axes", axes, (size_t)count);
}

#define REDUCE(id, Type, f, reads, quant_kind)                                                                  \
    static enum mopt_status infer_##id(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)             \
    {                                                                                                           \
        return infer_as(ctx, g, n, f);                                                                          \
    }                                                                                                           \
    const struct mo_op mo_op_##id = {                                                                           \
        .type = Type,                                                                                           \
        .since_opset = 1,                                                                                       \
        .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1,                                                   \
        .flags = MO_OP_ADDS_GRAD,                                                                               \
        .params_bytes = sizeof(struct reduce),                                                                  \
        .values_in = 1u << 1,                                                                                   \
        .infer = infer_##id, .forward = forward, .backward = backward,                                          \
        .macs = mo_macs_zero, .couple = couple, .permute = permute,                                             \
        .scratch_bytes = scratch_bytes,                                                                         \
        .backward_reads = reads,                                                                                \
        .quant = { .kind = quant_kind },                                                                        \
    };

#define X 1u
#define Y (1u << 16)
REDUCE(reduce_sum, "ReduceSum", MO_REDUCE_SUM, 0, MO_QUANT_FLOAT)
REDUCE(reduce_mean, "ReduceMean", MO_REDUCE_MEAN, 0, MO_QUANT_FLOAT)
REDUCE(reduce_max, "ReduceMax", MO_REDUCE_MAX, X | Y, MO_QUANT_FLOAT)
REDUCE(reduce_min, "ReduceMin", MO_REDUCE_MIN, X | Y, MO_QUANT_FLOAT)
REDUCE(reduce_prod, "ReduceProd", MO_REDUCE_PROD, X | Y, MO_QUANT_FLOAT)
REDUCE(reduce_l1, "ReduceL1", MO_REDUCE_L1, X, MO_QUANT_FLOAT)
REDUCE(reduce_l2, "ReduceL2", MO_REDUCE_L2, X | Y, MO_QUANT_FLOAT)
REDUCE(reduce_sum_square, "ReduceSumSquare", MO_REDUCE_SUM_SQUARE, X, MO_QUANT_FLOAT)
REDUCE(reduce_log_sum, "ReduceLogSum", MO_REDUCE_LOG_SUM, Y, MO_QUANT_FLOAT)
REDUCE(reduce_log_sum_exp, "ReduceLogSumExp", MO_REDUCE_LOG_SUM_EXP, X | Y, MO_QUANT_FLOAT)
