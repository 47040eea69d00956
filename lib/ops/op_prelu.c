/* PRelu (He et al. 2015): y = x where x > 0, else slope x; the slope is broadcast to x
 * and trained. Composed of y = max(x, 0) + slope min(x, 0). */
#include <math.h>

#include "lib/ops/ops.h"
#include "lib/run/run.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(g, n, 0)->shape, aligned = mo_operand_shape(g, n), *slope = &aligned;
    struct mo_shape both;
    char text_x[128], text_s[128];
    bool fits = mo_shape_broadcast(x, slope, &both);
    if (!fits || (x->rank >= 0 && slope->rank > x->rank) ||
        (mo_shape_known(x) && mo_shape_known(slope) && !mo_shape_equal(x, &both)))
        return mo_fail(ctx, MOPT_DATA, "the slope is %s, it must be broadcast to %s",
                       mo_shape_text(slope, text_s, sizeof text_s), mo_shape_text(x, text_x, sizeof text_x));
    return mo_infer_like_input(ctx, g, n);
}

/* Strides of x and, with 0 where it is repeated, of the slope. */
static void strides_of(const struct mo_run *r, const struct mo_node *n, int64_t *of_x, int64_t *of_slope)
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, aligned = mo_operand_shape(r->graph, n), *slope = &aligned;
    int64_t step_x = 1, step_slope = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        int k = i - (x->rank - slope->rank);
        int64_t size = k >= 0 ? slope->dim[k] : 1;
        of_x[i] = step_x;
        of_slope[i] = size == 1 ? 0 : step_slope;
        step_x *= x->dim[i];
        step_slope *= size;
    }
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return (backward ? 2 : 1) * mo_run_in_elems(r, n, 0) * sizeof(float);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *shape = &mo_in(r->graph, n, 0)->shape;
    size_t n_elems = mo_run_in_elems(r, n, 0);
    const float *x = mo_run_in(r, n, 0), *slope = mo_run_in(r, n, 1);
    float *low = mo_run_scratch(r, n), *y = mo_run_out(r, n, 0);
    int64_t of_x[MO_MAX_RANK], of_slope[MO_MAX_RANK];
    strides_of(r, n, of_x, of_slope);
    r->be->unary(r->dev, MO_CLIP, -INFINITY, 0.0f, n_elems, x, low);
    r->be->binary(r->dev, MO_MUL, MO_F32, shape->rank, shape->dim, of_x, of_slope, low, slope, low);
    r->be->unary(r->dev, MO_RELU, 0.0f, 0.0f, n_elems, x, y);
    r->be->axpy(r->dev, n_elems, 1.0f, low, y, true);
    return MOPT_OK;
}

/* dx = dy (x > 0) + slope dy (x <= 0), dslope = sum of dy min(x, 0). */
static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *shape = &mo_in(r->graph, n, 0)->shape;
    size_t n_elems = mo_run_in_elems(r, n, 0);
    const float *x = mo_run_in(r, n, 0), *slope = mo_run_in(r, n, 1), *dy = mo_run_grad_out(r, n, 0);
    float *dx = mo_run_grad_in(r, n, 0), *dslope = mo_run_grad_in(r, n, 1);
    float *a = mo_run_scratch(r, n), *b = a + n_elems;
    int64_t of_x[MO_MAX_RANK], of_slope[MO_MAX_RANK];
    strides_of(r, n, of_x, of_slope);
    if (dslope) {
        r->be->unary(r->dev, MO_CLIP, -INFINITY, 0.0f, n_elems, x, a);
        r->be->binary(r->dev, MO_MUL, MO_F32, shape->rank, shape->dim, of_x, of_x, a, dy, a);
        mo_run_zero(r, mo_run_in_elems(r, n, 1), dslope);
        r->be->add_strided(r->dev, shape->rank, shape->dim, of_x, of_slope, a, dslope);
    }
    if (dx) {
        r->be->unary_grad(r->dev, MO_LEAKY_RELU, 0.0f, 0.0f, n_elems, x, x, dy, a, false);
        r->be->axpy(r->dev, n_elems, 1.0f, dy, b, false);
        r->be->axpy(r->dev, n_elems, -1.0f, a, b, true);
        r->be->binary(r->dev, MO_MUL, MO_F32, shape->rank, shape->dim, of_x, of_slope, b, slope, b);
        r->be->axpy(r->dev, n_elems, 1.0f, a, dx, false);
        r->be->axpy(r->dev, n_elems, 1.0f, b, dx, true);
    }
    return MOPT_OK;
}

const struct mo_op mo_op_prelu = {
    .type = "PRelu",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_PARAM_SCALAR,
    .infer = infer,
    .prepare = mo_prepare_float32,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = mo_couple_elementwise,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << 0 | 1u << 1,
    .params_in = 1u << 1,
};
