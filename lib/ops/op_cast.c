/* Cast, CastLike: another element type. Gradients are float32 whatever the type (but
 * bfloat16 of that), so they go straight through. 2- and 4-bit types lie packed and are unpacked on the way. To and
 * from strings each number is written or read on the host. */
#include "lib/ops/text.h"

#include <string.h>

struct cast {
    int to;             /* as the kernel takes it: with how to round */
};

static bool is_packed(enum mo_dtype dtype)
{
    return mo_dtype_bits(dtype) > 0 && mo_dtype_bits(dtype) < 8;
}

static enum mopt_status infer_to(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum mo_dtype to)
{
    struct cast *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    const char *round = mo_node_text(n, "round_mode", "up");
    if (mo_dtype_bits(to) == 0)
        return mo_fail(ctx, MOPT_DATA, "cast to element type %d", (int)to);
    p->to = (int)to + (mo_node_int(n, "saturate", 1) ? 0 : 256);
    if (to == MO_F8E8M0)
        p->to += !strcmp(round, "up") ? 512 : !strcmp(round, "down") ? 1024 : 0;
    struct mo_shape shape = x->shape;
    mo_set_out(g, n, 0, to, &shape);
    if (shape.rank < 0 || shape.rank > 1 || (!x->known && !x->data) || mo_dtype_is_float(x->dtype) ||
        to == MO_STRING)
        return MOPT_OK;
    int64_t *known = mo_known_out(g, n, 0), count = known ? mo_shape_elems(&shape) : 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t v = mo_known_in(g, n, 0, k);
        known[k] = v == MO_VALUE_UNKNOWN || to != MO_BOOL ? v : v != 0;
    }
    return MOPT_OK;
}

static enum mopt_status infer_cast(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_to(ctx, g, n, (enum mo_dtype)mo_node_int(n, "to", 0));
}

static enum mopt_status infer_cast_like(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_shape shape = mo_in(g, n, 0)->shape;
    if (mo_in(g, n, 1)->dtype != MO_UNDEFINED)
        return infer_to(ctx, g, n, mo_in(g, n, 1)->dtype);
    mo_set_out(g, n, 0, MO_UNDEFINED, &shape);
    return MOPT_OK;
}

/* Scratch: the input unpacked, then the output before it is packed. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    size_t part = mo_part_bytes((size_t)mo_value_elems(x));
    if (backward && (mo_dtype_is_half(x->dtype) || mo_dtype_is_half(y->dtype)) && mo_run_adds(r, n, 0))
        return (size_t)mo_value_elems(x) * sizeof(float);
    return backward ? 0 : part * (is_packed(x->dtype) + is_packed(y->dtype));
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct cast *p = n->params;
    enum mo_dtype from = mo_in(r->graph, n, 0)->dtype, to = mo_out(r->graph, n, 0)->dtype;
    size_t n_elems = (size_t)mo_value_elems(mo_in(r->graph, n, 0));
    char *scratch = mo_run_scratch(r, n);
    const void *x = mo_run_in(r, n, 0);
    void *y = mo_run_out(r, n, 0);
    if (from == MO_STRING || to == MO_STRING)
        return mo_text_cast(r, n);
    if (is_packed(from)) {
        r->be->unpack_bits(r->dev, (int)from, n_elems, x, scratch);
        x = scratch;
        scratch += mo_part_bytes(n_elems);
    }
    r->be->cast(r->dev, (int)from, p->to, n_elems, x, is_packed(to) ? scratch : y);
    if (is_packed(to))
        r->be->pack_bits(r->dev, (int)to, n_elems, scratch, y);
    return MOPT_OK;
}

/* The gradients have the types of their values. */
static void backward_half(struct mo_run *r, const struct mo_node *n, void *dx)
{
    size_t n_elems = (size_t)mo_value_elems(mo_in(r->graph, n, 0));
    bool add = mo_run_adds(r, n, 0), from_half = mo_run_in_half(r, n, 0);
    void *to = add ? mo_run_scratch(r, n) : dx;
    r->be->cast(r->dev, (int)mo_out(r->graph, n, 0)->dtype, (int)mo_in(r->graph, n, 0)->dtype, n_elems,
                mo_run_grad_out(r, n, 0), to);
    if (add && from_half)
        r->be->axpy_bf16(r->dev, n_elems, 1, to, dx, true);
    else if (add)
        r->be->axpy(r->dev, n_elems, 1, to, dx, true);
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    if (dx && (mo_run_in_half(r, n, 0) || mo_dtype_is_half(mo_out(r->graph, n, 0)->dtype)))
        backward_half(r, n, dx);
    else if (dx)
        r->be->axpy(r->dev, (size_t)mo_value_elems(mo_in(r->graph, n, 0)), 1, mo_run_grad_out(r, n, 0), dx,
                    mo_run_adds(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_cast = {
    .type = "Cast",
    .since_opset = 6,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE | MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct cast),
    .infer = infer_cast, .forward = forward, .backward = backward,
    .macs = mo_macs_zero, .couple = mo_couple_through,
    .scratch_bytes = scratch_bytes,
};

const struct mo_op mo_op_cast_like = {
    .type = "CastLike",
    .since_opset = 15,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct cast),
    .infer = infer_cast_like, .forward = forward, .backward = backward,
    .macs = mo_macs_zero, .couple = mo_couple_through,
    .scratch_bytes = scratch_bytes,
};
