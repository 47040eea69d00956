/* Min, Max, Sum, Mean of any number of inputs, with numpy's broadcasting.
 *
 * Sum and Mean give dy (or dy / n) to each input; Min and Max give dy to the
 * first input that has the value. Gradients are summed over repeated axes. */
#include "lib/ops/tensor.h"

struct variadic {
    enum mo_binary f;
    bool is_mean;
};

static enum mopt_status infer_as(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, struct variadic p)
{
    *(struct variadic *)n->params = p;
    struct mo_shape shape = mo_in(g, n, 0)->shape;
    enum mo_dtype dtype = mo_in(g, n, 0)->dtype;
    char text_a[128], text_b[128];
    for (uint32_t i = 1; i < n->n_in; i++) {
        const struct mo_value *v = mo_in(g, n, i);
        struct mo_shape both;
        if (!v)
            return mo_fail(ctx, MOPT_DATA, "input %u is left out", i);
        MO_TRY(mo_check_same_dtype(ctx, mo_in(g, n, 0), v));
        if (!mo_shape_broadcast(&shape, &v->shape, &both))
            return mo_fail(ctx, MOPT_DATA, "shapes %s and %s do not fit together",
                           mo_shape_text(&shape, text_a, sizeof text_a),
                           mo_shape_text(&v->shape, text_b, sizeof text_b));
        shape = both;
    }
    mo_set_out(g, n, 0, dtype, &shape);
    if ((p.f != MO_MIN_OF && p.f != MO_MAX_OF) || shape.rank > 1)
        return MOPT_OK;
    int64_t *known = mo_known_out(g, n, 0), count = known ? mo_shape_elems(&shape) : 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t best = MO_VALUE_UNKNOWN;
        for (uint32_t i = 0; i < n->n_in; i++) {
            int64_t v = mo_known_in(g, n, i, mo_value_elems(mo_in(g, n, i)) == 1 ? 0 : k);
            if (v == MO_VALUE_UNKNOWN) {
                best = v;
                break;
            }
            best = i == 0 ? v : p.f == MO_MIN_OF ? MO_MIN(best, v) : MO_MAX(best, v);
        }
        known[k] = best;
    }
    return MOPT_OK;
}

static void apply(struct mo_run *r, enum mo_binary f, enum mo_dtype dtype, const struct mo_shape *shape,
                  const struct mo_shape *shape_a, const void *a, const struct mo_shape *shape_b, const void *b, void *y)
{
    int64_t stride_a[MO_MAX_RANK], stride_b[MO_MAX_RANK];
    mo_broadcast_strides(shape_a, shape, stride_a);
    mo_broadcast_strides(shape_b, shape, stride_b);
    r->be->binary(r->dev, f, (int)dtype, shape->rank, shape->dim, stride_a, stride_b, a, b, y);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct variadic *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    void *out = mo_run_out(r, n, 0), *scratch = mo_run_scratch(r, n);
    if (n->n_in == 1)
        mo_copy(r, mo_elem_bytes(x->dtype), mo_value_elems(x), mo_run_in(r, n, 0), out);
    for (uint32_t i = 1; i < n->n_in; i++) {
        const struct mo_value *b = mo_in(r->graph, n, i);
        apply(r, p->f, y->dtype, &y->shape, i == 1 ? &x->shape : &y->shape, i == 1 ? mo_run_in(r, n, 0) : out,
              &b->shape, mo_run_in(r, n, i), out);
    }
    if (p->is_mean) {       /* the number of inputs, as a scalar of y's type */
        const struct mo_shape one = mo_shape_of(0);
        const int64_t count = n->n_in;
        r->be->upload(r->dev, scratch, &count, sizeof count);
        void *divisor = (char *)scratch + MO_ALIGN_BYTES;
        r->be->cast(r->dev, MO_I64, (int)y->dtype, 1, scratch, divisor);
        apply(r, MO_DIV, y->dtype, &y->shape, &y->shape, out, &one, divisor, out);
    }
    return MOPT_OK;
}

static enum mopt_status sum_backward(struct mo_run *r, const struct mo_node *n)
{
    const struct variadic *p = n->params;
    const struct mo_shape *shape = &mo_out(r->graph, n, 0)->shape;
    const float *dy = mo_run_grad_out(r, n, 0);
    for (uint32_t i = 0; i < n->n_in; i++) {
        float *dx = mo_run_grad_in(r, n, i);
        if (!dx)
            continue;
        mo_sum_to(r, shape, dy, &mo_in(r->graph, n, i)->shape, dx, false);
        if (p->is_mean)
            r->be->axpy(r->dev, (size_t)mo_value_elems(mo_in(r->graph, n, i)), 1.0f / (float)n->n_in, dx, dx, false);
    }
    return MOPT_OK;
}

/* Scratch: two masks, a term of y's shape, a zero. */
static enum mopt_status extreme_backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *shape = &mo_out(r->graph, n, 0)->shape, one = mo_shape_of(0);
    size_t n_y = (size_t)mo_shape_elems(shape), mask_bytes = mo_part_bytes(n_y);
    char *scratch = mo_run_scratch(r, n);
    uint8_t *mask = (uint8_t *)scratch, *other = mask + mask_bytes;
    float *term = (float *)(other + mask_bytes), *zero = (float *)((char *)term + mo_part_bytes(n_y * sizeof *term));
    int64_t dense[MO_MAX_RANK], still[MO_MAX_RANK];
    if (n->n_in > 16)       /* backward_reads has room for so many */
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "the gradient of %s of %u inputs, 16 would do", n->type, n->n_in);
    mo_dense_strides(shape, dense);
    mo_broadcast_strides(&one, shape, still);
    mo_zero(r, sizeof *zero, 1, zero);
    for (uint32_t i = 0; i < n->n_in; i++) {
        float *dx = mo_run_grad_in(r, n, i);
        if (!dx)
            continue;
        apply(r, MO_EQUAL, MO_F32, shape, &mo_in(r->graph, n, i)->shape, mo_run_in(r, n, i), shape,
              mo_run_out(r, n, 0), mask);
        for (uint32_t k = 0; k < i; k++) {
            apply(r, MO_EQUAL, MO_F32, shape, &mo_in(r->graph, n, k)->shape, mo_run_in(r, n, k), shape,
                  mo_run_out(r, n, 0), other);
            apply(r, MO_GREATER, MO_BOOL, shape, shape, mask, shape, other, mask);
        }
        r->be->where(r->dev, sizeof *term, shape->rank, shape->dim, dense, dense, still, mask,
                     mo_run_grad_out(r, n, 0), zero, term);
        mo_sum_to(r, shape, term, &mo_in(r->graph, n, i)->shape, dx, false);
    }
    return MOPT_OK;
}

static size_t scratch_mean(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)r, (void)n;
    return backward ? 0 : 2 * MO_ALIGN_BYTES;
}

static size_t scratch_extreme(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    size_t n_y = (size_t)mo_value_elems(mo_out(r->graph, n, 0));
    return backward ? 2 * mo_part_bytes(n_y) + mo_part_bytes(n_y * sizeof(float)) + MO_ALIGN_BYTES : 0;
}

static enum mopt_status infer_min(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, (struct variadic){ MO_MIN_OF, false });
}
static enum mopt_status infer_max(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, (struct variadic){ MO_MAX_OF, false });
}
static enum mopt_status infer_sum(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, (struct variadic){ MO_ADD, false });
}
static enum mopt_status infer_mean(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, (struct variadic){ MO_ADD, true });
}

#define COMMON(Type)                                                                                            \
    .type = Type, .since_opset = 1, .min_in = 1, .max_in = -1, .min_out = 1, .max_out = 1,                       \
    .flags = MO_OP_ELEMENTWISE, .params_bytes = sizeof(struct variadic), .forward = forward,                    \
    .macs = mo_macs_zero, .couple = mo_couple_elementwise

const struct mo_op mo_op_min = {
    COMMON("Min"), .infer = infer_min, .backward = extreme_backward, .scratch_bytes = scratch_extreme,
    .backward_reads = 0xffffu | 1u << 16,
};

const struct mo_op mo_op_max = {
    COMMON("Max"), .infer = infer_max, .backward = extreme_backward, .scratch_bytes = scratch_extreme,
    .backward_reads = 0xffffu | 1u << 16,
};

const struct mo_op mo_op_sum = {
    COMMON("Sum"), .infer = infer_sum, .backward = sum_backward, .params_in = ~0u,
};

const struct mo_op mo_op_mean = {
    COMMON("Mean"), .infer = infer_mean, .backward = sum_backward, .scratch_bytes = scratch_mean,
};
