/* Where: y = condition ? a : b, with broadcasting. da = condition ? dy : 0, db the rest,
 * summed over repeated axes. */
#include "lib/ops/tensor.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *c = mo_in(g, n, 0), *a = mo_in(g, n, 1), *b = mo_in(g, n, 2);
    struct mo_shape ab, shape;
    char text[3][128];
    MO_TRY(mo_check_same_dtype(ctx, a, b));
    MO_TRY(mo_check_movable(ctx, a->dtype));
    if (!mo_shape_broadcast(&a->shape, &b->shape, &ab) || !mo_shape_broadcast(&ab, &c->shape, &shape))
        return mo_fail(ctx, MOPT_DATA, "shapes %s, %s and %s do not fit together",
                       mo_shape_text(&c->shape, text[0], sizeof text[0]),
                       mo_shape_text(&a->shape, text[1], sizeof text[1]),
                       mo_shape_text(&b->shape, text[2], sizeof text[2]));
    mo_set_out(g, n, 0, a->dtype != MO_UNDEFINED ? a->dtype : b->dtype, &shape);
    if (shape.rank < 0 || shape.rank > 1)
        return MOPT_OK;
    int64_t *known = mo_known_out(g, n, 0), count = known ? mo_shape_elems(&shape) : 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t which = mo_known_in(g, n, 0, mo_value_elems(c) == 1 ? 0 : k);
        int64_t u = mo_known_in(g, n, 1, mo_value_elems(a) == 1 ? 0 : k);
        int64_t v = mo_known_in(g, n, 2, mo_value_elems(b) == 1 ? 0 : k);
        known[k] = which == MO_VALUE_UNKNOWN ? (u == v ? u : MO_VALUE_UNKNOWN) : which ? u : v;
    }
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *y = mo_out(r->graph, n, 0);
    int64_t stride[3][MO_MAX_RANK];
    for (uint32_t i = 0; i < 3; i++)
        mo_broadcast_strides(&mo_in(r->graph, n, i)->shape, &y->shape, stride[i]);
    r->be->where(r->dev, mo_elem_bytes(y->dtype), y->shape.rank, y->shape.dim, stride[0], stride[1], stride[2],
                 mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_in(r, n, 2), mo_run_out(r, n, 0));
    return MOPT_OK;
}

/* Scratch: a term of y's shape, a zero. */
static size_t term_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return mo_part_bytes((size_t)mo_value_elems(mo_out(r->graph, n, 0)) * sizeof(float));
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? term_bytes(r, n) + MO_ALIGN_BYTES : 0;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *shape = &mo_out(r->graph, n, 0)->shape, one = mo_shape_of(0);
    const float *dy = mo_run_grad_out(r, n, 0);
    float *term = mo_run_scratch(r, n), *zero = (float *)((char *)term + term_bytes(r, n));
    int64_t dense[MO_MAX_RANK], still[MO_MAX_RANK], stride_c[MO_MAX_RANK];
    mo_dense_strides(shape, dense);
    mo_broadcast_strides(&one, shape, still);
    mo_broadcast_strides(&mo_in(r->graph, n, 0)->shape, shape, stride_c);
    mo_zero(r, sizeof *zero, 1, zero);
    for (uint32_t i = 1; i < 3; i++) {
        float *dx = mo_run_grad_in(r, n, i);
        if (!dx)
            continue;
        bool is_a = i == 1;
        r->be->where(r->dev, sizeof *term, shape->rank, shape->dim, stride_c, is_a ? dense : still,
                     is_a ? still : dense, mo_run_in(r, n, 0), is_a ? dy : zero, is_a ? zero : dy, term);
        mo_sum_to(r, shape, term, &mo_in(r->graph, n, i)->shape, dx, false);
    }
    return MOPT_OK;
}

const struct mo_op mo_op_where = {
    .type = "Where",
    .since_opset = 9,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE,
    .infer = infer, .forward = forward, .backward = backward,
    .macs = mo_macs_zero, .couple = mo_couple_elementwise,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1,
};
