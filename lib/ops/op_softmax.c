/* Softmax and LogSoftmax along one axis (opset 13: default the last). Before, the
 * axes from `axis` on (default 1) were one. */
#include "lib/ops/tensor.h"

struct softmax {
    int axis;
    bool is_log, is_flat;       /* flat: everything behind the axis belongs to it */
};

static enum mopt_status infer_softmax(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, bool is_log)
{
    struct softmax *p = n->params;
    const struct mo_shape *x = &mo_in(g, n, 0)->shape;
    p->is_log = is_log;
    p->is_flat = g->opset < 13;
    int64_t axis = mo_node_int(n, "axis", p->is_flat ? 1 : -1);
    if (x->rank == 0)
        return mo_infer_like_input(ctx, g, n);
    if (p->is_flat && axis == x->rank)      /* rows of one element each */
        p->axis = x->rank;
    else if (x->rank != MO_UNKNOWN)
        MO_TRY(mo_axis(ctx, axis, x->rank, &p->axis));
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status infer_plain(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_softmax(ctx, g, n, false);
}

static enum mopt_status infer_log(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_softmax(ctx, g, n, true);
}

/* outer, axis, inner */
static void sizes_of(const struct mo_run *r, const struct mo_node *n, int64_t size[3])
{
    const struct softmax *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    int end = p->is_flat ? x->rank : p->axis + 1;
    end = end < x->rank ? end : x->rank;
    size[0] = mo_product(x->dim, p->axis);
    size[1] = mo_product(x->dim + p->axis, end - p->axis);
    size[2] = mo_product(x->dim + end, x->rank - end);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    if (mo_in(r->graph, n, 0)->dtype != MO_F64)
        return mo_prepare_float32(r, n);
    if (mo_run_wants_grad(r, n, 0))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "no gradient is known for float64");
    return MOPT_OK;
}

/* Scratch of float64: a number for each row, and where the logarithm is wanted the exponentials. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    int64_t size[3];
    if (backward || mo_in(r->graph, n, 0)->dtype != MO_F64)
        return 0;
    sizes_of(r, n, size);
    return mo_part_bytes((size_t)(size[0] * size[2]) * sizeof(double)) +
           mo_part_bytes((size_t)(size[0] * size[1] * size[2]) * sizeof(double));
}

/* x - top - log sum exp(x - top), or exp(x - top) over its sum */
static void forward_double(struct mo_run *r, const struct mo_node *n, const int64_t *size)
{
    const struct softmax *p = n->params;
    const int64_t of_x[] = { size[1] * size[2], size[2], 1 }, of_row[] = { size[2], 0, 1 };
    const bool is_reduced[] = { false, true, false };
    const size_t n_rows = (size_t)(size[0] * size[2]), n_elems = n_rows * (size_t)size[1];
    double *row = mo_run_scratch(r, n), *y = mo_run_out(r, n, 0);
    double *powers = p->is_log ? row + mo_part_bytes(n_rows * sizeof *row) / sizeof *row : y;
    if (n_elems == 0)
        return;
    r->be->reduce(r->dev, MO_REDUCE_MAX, MO_F64, 3, size, is_reduced, mo_run_in(r, n, 0), row);
    r->be->binary(r->dev, MO_SUB, MO_F64, 3, size, of_x, of_row, mo_run_in(r, n, 0), row, y);
    r->be->unary_typed(r->dev, MO_EXP, MO_F64, 0, 0, n_elems, y, powers);
    r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F64, 3, size, is_reduced, powers, row);
    if (p->is_log)
        r->be->unary_typed(r->dev, MO_LOG, MO_F64, 0, 0, n_rows, row, row);
    r->be->binary(r->dev, p->is_log ? MO_SUB : MO_DIV, MO_F64, 3, size, of_x, of_row, y, row, y);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct softmax *p = n->params;
    int64_t size[3];
    sizes_of(r, n, size);
    if (mo_in(r->graph, n, 0)->dtype == MO_F64) {
        forward_double(r, n, size);
        return MOPT_OK;
    }
    r->be->softmax(r->dev, p->is_log, size[0], size[1], size[2], mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct softmax *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    int64_t size[3];
    sizes_of(r, n, size);
    if (dx)
        r->be->softmax_grad(r->dev, p->is_log, size[0], size[1], size[2], mo_run_out(r, n, 0), mo_run_grad_out(r, n, 0),
                            dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct softmax *p = n->params;
    int rank = mo_in(g, n, 0)->shape.rank;
    for (int axis = 0; axis < rank; axis++) {
        if (p->is_flat ? axis < p->axis : axis != p->axis) {
            mo_couple_same(c, n->in[0], axis, n->out[0], axis);
            continue;
        }
        mo_couple_wall(c, n->in[0], axis, "softmax axis");
        mo_couple_wall(c, n->out[0], axis, "softmax axis");
    }
}

/* The flat form is the other one only on the last axis. */
static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    const struct softmax *p = n->params;
    for (int i = 0; i < rank; i++) {
        if (perm[i] != p->axis)
            continue;
        if (p->is_flat && (p->axis != rank - 1 || i != rank - 1))
            return false;
        return mo_node_set_int(g, mo_node_id_of(g, n), "axis", i);
    }
    return false;
}

#define MEMBERS                                                                             \
    .since_opset = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,                 \
    .flags = MO_OP_IN_PLACE | MO_OP_ADDS_GRAD, .params_bytes = sizeof(struct softmax),      \
    .prepare = prepare, .forward = forward, .backward = backward,                           \
    .scratch_bytes = scratch_bytes,                                                         \
    .macs = mo_macs_zero, .couple = couple, .permute = permute, .backward_reads = 1u << 16

const struct mo_op mo_op_log_softmax = {.type = "LogSoftmax", MEMBERS, .infer = infer_log};

const struct mo_op mo_op_softmax = {
    .type = "Softmax", MEMBERS, .infer = infer_plain, .quant = {.kind = MO_QUANT_ARITH},
};
