/* Shape and Size: what inference knows of the input, as integers. Where the shape is
 * known when the graph is planned the nodes are folded away. */
#include "lib/ops/tensor.h"

struct shape {
    int begin, end;
};

static int64_t clamp(int64_t v, int64_t high)
{
    return v < 0 ? 0 : v > high ? high : v;
}

static enum mopt_status infer_shape(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    (void)ctx;
    struct shape *p = n->params;
    const struct mo_shape x = mo_in(g, n, 0)->shape;
    struct mo_shape y = mo_shape_of(1, (int64_t)MO_UNKNOWN);
    if (x.rank == MO_UNKNOWN) {
        mo_set_out(g, n, 0, MO_I64, &y);
        return MOPT_OK;
    }
    int64_t start = mo_node_int(n, "start", 0), end = mo_node_int(n, "end", x.rank);
    p->begin = (int)clamp(start < 0 ? start + x.rank : start, x.rank);
    p->end = (int)clamp(end < 0 ? end + x.rank : end, x.rank);
    y.dim[0] = MO_MAX(p->end - p->begin, 0);
    mo_set_out(g, n, 0, MO_I64, &y);
    int64_t *known = mo_known_out(g, n, 0);
    for (int k = p->begin; known && k < p->end; k++)
        known[k - p->begin] = x.dim[k] == MO_UNKNOWN ? MO_VALUE_UNKNOWN : x.dim[k];
    return MOPT_OK;
}

static enum mopt_status forward_shape(struct mo_run *r, const struct mo_node *n)
{
    const struct shape *p = n->params;
    if (p->end > p->begin)
        r->be->upload(r->dev, mo_run_out(r, n, 0), mo_in(r->graph, n, 0)->shape.dim + p->begin,
                      (size_t)(p->end - p->begin) * sizeof(int64_t));
    return MOPT_OK;
}

static enum mopt_status infer_size(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    (void)ctx;
    struct mo_shape y = mo_shape_of(0);
    int64_t elems = mo_value_elems(mo_in(g, n, 0));
    mo_set_out(g, n, 0, MO_I64, &y);
    int64_t *known = mo_known_out(g, n, 0);
    if (known && elems != MO_UNKNOWN)
        known[0] = elems;
    return MOPT_OK;
}

static enum mopt_status forward_size(struct mo_run *r, const struct mo_node *n)
{
    int64_t elems = mo_value_elems(mo_in(r->graph, n, 0));
    r->be->upload(r->dev, mo_run_out(r, n, 0), &elems, sizeof elems);
    return MOPT_OK;
}

/* Nothing follows from a channel that goes; what is made of the count is told by known values. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    (void)g;
    mo_couple_free(c, n->in[0], -1);
    mo_couple_wall(c, n->out[0], -1, "a shape");
}

const struct mo_op mo_op_shape = {
    .type = "Shape",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct shape),
    .infer = infer_shape, .forward = forward_shape,
    .macs = mo_macs_zero, .couple = couple,
};

const struct mo_op mo_op_size = {
    .type = "Size",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer_size, .forward = forward_size,
    .macs = mo_macs_zero, .couple = couple,
};
