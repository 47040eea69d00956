/* DepthToSpace and SpaceToDepth: channels to pixels of a finer grid and back, as one
 * copy over six axes. Trilu: a triangle of each matrix. */
#include "lib/ops/tensor.h"

#include <string.h>

/* ---- DepthToSpace, SpaceToDepth ---- */

/* The walk of the finer image (N, C, H b, W b) and of the deeper one (N, C b b, H, W): axes n, c, by, bx, h, w. */
struct depth {
    int64_t block;
    bool is_crd;                /* channel index is c b b + by b + bx; else (by b + bx) C + c */
    int64_t dims[6], fine[6], deep[6];
};

static void make_walk(struct depth *p, int64_t n, int64_t channels, int64_t h, int64_t w)
{
    int64_t b = p->block, plane = h * w;
    const int64_t dims[6] = { n, channels, b, b, h, w };
    const int64_t fine[6] = { channels * b * b * plane, b * b * plane, w * b, 1, w * b * b, b };
    const int64_t deep[6] = { channels * b * b * plane, p->is_crd ? b * b * plane : plane,
                              p->is_crd ? b * plane : b * channels * plane, p->is_crd ? plane : channels * plane, w, 1 };
    memcpy(p->dims, dims, sizeof dims);
    memcpy(p->fine, fine, sizeof fine);
    memcpy(p->deep, deep, sizeof deep);
}

static enum mopt_status infer_depth(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, bool to_space)
{
    struct depth *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    const char *mode = mo_node_text(n, "mode", "DCR");
    struct mo_shape y = x->shape;
    int64_t b = p->block = mo_node_int(n, "blocksize", 0);
    p->is_crd = !strcmp(mode, "CRD");
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (b < 1 || b > 32768)
        return mo_fail(ctx, MOPT_DATA, "a block size of %lld", (long long)b);
    if (!p->is_crd && strcmp(mode, "DCR"))
        return mo_fail(ctx, MOPT_DATA, "mode '%s', it should be DCR or CRD", mode);
    if (y.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    if (y.rank != 4)
        return mo_fail(ctx, MOPT_DATA, "a rank of %d, it should be 4", y.rank);
    for (int axis = 1; axis < 4; axis++) {
        bool shrinks = to_space == (axis == 1);
        int64_t by = axis == 1 ? b * b : b, dim = y.dim[axis];
        if (dim == MO_UNKNOWN)
            continue;
        if (shrinks && dim % by)
            return mo_fail(ctx, MOPT_DATA, "axis %d has %lld elements, which %lld does not divide", axis, (long long)dim,
                           (long long)by);
        y.dim[axis] = shrinks ? dim / by : dim * by;
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    const struct mo_shape *fine = to_space ? &y : &x->shape, *deep = to_space ? &x->shape : &y;
    if (mo_shape_known(&y))
        make_walk(p, y.dim[0], fine->dim[1], deep->dim[2], deep->dim[3]);
    return MOPT_OK;
}

static enum mopt_status infer_to_space(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_depth(ctx, g, n, true);
}
static enum mopt_status infer_to_depth(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_depth(ctx, g, n, false);
}

static void move(struct mo_run *r, const struct depth *p, size_t bytes, bool to_space, const void *x, void *y)
{
    r->be->copy_strided(r->dev, bytes, 6, p->dims, to_space ? p->deep : p->fine, to_space ? p->fine : p->deep, x, y);
}

static enum mopt_status forward_to_space(struct mo_run *r, const struct mo_node *n)
{
    move(r, n->params, mo_elem_bytes(mo_in(r->graph, n, 0)->dtype), true, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}
static enum mopt_status forward_to_depth(struct mo_run *r, const struct mo_node *n)
{
    move(r, n->params, mo_elem_bytes(mo_in(r->graph, n, 0)->dtype), false, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_to_space(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        move(r, n->params, sizeof *dx, false, mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}
static enum mopt_status backward_to_depth(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        move(r, n->params, sizeof *dx, true, mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

/* A channel of the finer image is b b channels of the deeper one. */
static void couple_depth(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct depth *p = n->params;
    bool to_space = !strcmp(n->type, "DepthToSpace");
    mo_value_id fine = to_space ? n->out[0] : n->in[0], deep = to_space ? n->in[0] : n->out[0];
    int64_t channels = g->values[fine].shape.dim[1], b2 = p->block * p->block;
    mo_couple_same(c, n->in[0], 0, n->out[0], 0);
    for (int64_t i = 0; i < channels; i++)
        for (int64_t k = 0; k < b2; k++)
            mo_couple_index(c, fine, 1, i, deep, 1, p->is_crd ? i * b2 + k : k * channels + i);
}

#define DEPTH(id, Type)                                                                                         \
    const struct mo_op mo_op_##id = {                                                                           \
        .type = Type, .since_opset = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,                    \
        .params_bytes = sizeof(struct depth), .macs = mo_macs_zero, .couple = couple_depth,
DEPTH(depth_to_space, "DepthToSpace")
    .infer = infer_to_space, .forward = forward_to_space, .backward = backward_to_space,
};
DEPTH(space_to_depth, "SpaceToDepth")
    .infer = infer_to_depth, .forward = forward_to_depth, .backward = backward_to_depth,
};

/* ---- Trilu ---- */

struct trilu {
    bool upper;
    int64_t k;
};

static enum mopt_status infer_trilu(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct trilu *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    p->upper = mo_node_int(n, "upper", 1) != 0;
    p->k = mo_in(g, n, 1) ? mo_known_in(g, n, 1, 0) : 0;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank != MO_UNKNOWN && x->shape.rank < 2)
        return mo_fail(ctx, MOPT_DATA, "a rank of %d, it should be at least 2", x->shape.rank);
    if (p->k == MO_VALUE_UNKNOWN) {     /* not to be run before it is known */
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    return mo_infer_like_input(ctx, g, n);
}

static void triangle(struct mo_run *r, const struct mo_node *n, size_t bytes, const void *x, void *y)
{
    const struct trilu *p = n->params;
    const struct mo_shape *s = &mo_in(r->graph, n, 0)->shape;
    r->be->trilu(r->dev, bytes, p->upper, p->k, mo_dims_product(s, 0, s->rank - 2), s->dim[s->rank - 2],
                 s->dim[s->rank - 1], x, y);
}

static enum mopt_status forward_trilu(struct mo_run *r, const struct mo_node *n)
{
    triangle(r, n, mo_elem_bytes(mo_in(r->graph, n, 0)->dtype), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward_trilu(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx)
        triangle(r, n, sizeof *dx, mo_run_grad_out(r, n, 0), dx);
    return MOPT_OK;
}

static void couple_trilu(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    for (int axis = 0; axis < mo_in(g, n, 0)->shape.rank - 2; axis++)
        mo_couple_same(c, n->in[0], axis, n->out[0], axis);
}

const struct mo_op mo_op_trilu = {
    .type = "Trilu",
    .since_opset = 14,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct trilu),
    .infer = infer_trilu, .forward = forward_trilu, .backward = backward_trilu,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple_trilu,
};
