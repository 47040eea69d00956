/* Split: one input cut along an axis into outputs one behind the other. Sizes come from
 * an attribute (before opset 13) or an input, or are equal shares; since opset 18 with
 * num_outputs the last share may be smaller. dx is the dy's one behind the other. */
#include "lib/ops/tensor.h"

#include <string.h>

enum { MAX_PARTS = 1024 };

struct split {
    int axis;
    const int64_t *size;        /* of each output, those left out too; NULL: not known */
};

/* Sizes of all outputs; false when they are not known. */
static enum mopt_status read_sizes(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, int64_t dim,
                                   int64_t *size, bool *is_known)
{
    int count;
    int64_t sum = 0, n_out = n->n_out;
    *is_known = false;
    MO_TRY(mo_ints_given(ctx, g, n, "split", 1, size, MAX_PARTS, &count));
    if (count == -2)
        return MOPT_OK;
    if (count == -1) {
        if (dim == MO_UNKNOWN)
            return MOPT_OK;
        int64_t parts = mo_node_int(n, "num_outputs", n_out), share = (dim + parts - 1) / MO_MAX(parts, 1);
        if (parts != n_out)
            return mo_fail(ctx, MOPT_DATA, "num_outputs is %lld, there are %lld outputs", (long long)parts, (long long)n_out);
        if (dim % parts && g->opset < 18)
            return mo_fail(ctx, MOPT_DATA, "%lld elements cannot be shared by %lld outputs", (long long)dim,
                           (long long)n_out);
        for (int64_t k = 0; k < n_out; k++)
            size[k] = MO_MIN(share, MO_MAX(dim - k * share, (int64_t)0));
    } else if (count != (int)n_out) {
        return mo_fail(ctx, MOPT_DATA, "%d sizes for %lld outputs", count, (long long)n_out);
    }
    for (int64_t k = 0; k < n_out; k++) {
        if (size[k] < 0)
            return mo_fail(ctx, MOPT_DATA, "size %lld of an output", (long long)size[k]);
        sum += size[k];
    }
    if (dim != MO_UNKNOWN && sum != dim)
        return mo_fail(ctx, MOPT_DATA, "the sizes add up to %lld, the axis has %lld", (long long)sum, (long long)dim);
    *is_known = true;
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct split *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    int64_t size[MAX_PARTS], at = 0, *kept;
    bool is_known = false;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (n->n_out > MAX_PARTS)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%u outputs, at most %d are possible", n->n_out, MAX_PARTS);
    if (y.rank != MO_UNKNOWN) {
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 0), y.rank, &p->axis));
        MO_TRY(read_sizes(ctx, g, n, y.dim[p->axis], size, &is_known));
    }
    if (is_known) {
        p->size = kept = mo_arena_new(g->arena, n->n_out, sizeof *kept);
        if (!kept)
            return mo_no_memory(ctx, n->n_out * sizeof *kept, "sizes");
        memcpy(kept, size, n->n_out * sizeof *kept);
    }
    for (uint32_t k = 0; k < n->n_out; k++) {
        if (y.rank != MO_UNKNOWN)
            y.dim[p->axis] = is_known ? size[k] : MO_UNKNOWN;
        mo_set_out(g, n, k, x->dtype, &y);
        if (y.rank == 1 && is_known && n->out[k] != MO_NONE && (x->known || x->data)) {
            int64_t *known = mo_known_out(g, n, k);
            for (int64_t i = 0; known && i < size[k]; i++)
                known[i] = mo_known_in(g, n, 0, at + i);
        }
        at += is_known ? size[k] : 0;
    }
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct split *p = n->params;
    const char *x = mo_run_in(r, n, 0);
    size_t bytes = mo_elem_bytes(mo_in(r->graph, n, 0)->dtype);
    int64_t stride[MO_MAX_RANK], dense[MO_MAX_RANK], at = 0;
    mo_dense_strides(&mo_in(r->graph, n, 0)->shape, stride);
    for (uint32_t k = 0; k < n->n_out; k++) {
        if (n->out[k] != MO_NONE) {
            const struct mo_shape *y = &mo_out(r->graph, n, k)->shape;
            mo_dense_strides(y, dense);
            r->be->copy_strided(r->dev, bytes, y->rank, y->dim, stride, dense,
                                x + (size_t)(at * stride[p->axis]) * bytes, mo_run_out(r, n, k));
        }
        at += p->size[k];
    }
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct split *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    bool add = mo_run_adds(r, n, 0);
    int64_t stride[MO_MAX_RANK], dense[MO_MAX_RANK], at = 0;
    if (!dx)
        return MOPT_OK;
    mo_dense_strides(&mo_in(r->graph, n, 0)->shape, stride);
    if (!add)
        mo_zero(r, sizeof *dx, mo_value_elems(mo_in(r->graph, n, 0)), dx);
    for (uint32_t k = 0; k < n->n_out; k++) {
        const float *dy = mo_run_grad_out(r, n, k);
        float *to = dx + at * stride[p->axis];
        at += p->size[k];
        if (!dy)
            continue;
        const struct mo_shape *y = &mo_out(r->graph, n, k)->shape;
        mo_dense_strides(y, dense);
        if (add)
            r->be->add_strided(r->dev, y->rank, y->dim, dense, stride, dy, to);
        else
            r->be->copy_strided(r->dev, sizeof *dx, y->rank, y->dim, dense, stride, dy, to);
    }
    return MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct split *p = n->params;
    int64_t at = 0;
    for (uint32_t k = 0; k < n->n_out; k++) {
        if (n->out[k] == MO_NONE) {     /* its size is not kept anywhere */
            mo_couple_wall(c, n->in[0], p->axis, "a split with an output left out");
            return;
        }
        int64_t size = mo_out(g, n, k)->shape.dim[p->axis];
        mo_couple_offset(c, n->in[0], p->axis, at, n->out[k], p->axis, 0, size);
        mo_couple_axes(c, g, n->in[0], n->out[k], p->axis);
        at += size;
    }
}

static enum mopt_status refit(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const struct mo_shape *was)
{
    const struct split *p = n->params;
    mo_node_id id = (mo_node_id)(n - g->nodes);
    int64_t size[MAX_PARTS], first = 0;
    bool is_equal = true, is_ok;
    if (was[0].dim[p->axis] == mo_in(g, n, 0)->shape.dim[p->axis] || n->n_out > MAX_PARTS)
        return MOPT_OK;
    for (uint32_t k = 0; k < n->n_out; k++) {
        const struct mo_value *y = mo_out(g, n, k);
        size[k] = y ? y->shape.dim[p->axis] : 0;
        first = k == 0 ? size[0] : first;
        is_equal = is_equal && size[k] == first;
    }
    if (mo_in(g, n, 1))
        return mo_replace_ints(ctx, g, n, 1, size, n->n_out);
    if (is_equal && !mo_node_attr(n, "split"))
        return MOPT_OK;
    if (g->opset < 13) {
        is_ok = mo_node_set_ints(g, id, "split", size, n->n_out);
    } else {
        mo_node_drop_attr(g, id, "num_outputs");
        is_ok = mo_set_ints_input(g, n, 1, size, n->n_out);
    }
    return is_ok ? MOPT_OK : mo_no_memory(ctx, sizeof size, "sizes");
}

static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    const struct split *p = n->params;
    return mo_node_set_int(g, (mo_node_id)(n - g->nodes), "axis", mo_permuted_axis(perm, rank, p->axis));
}

const struct mo_op mo_op_split = {
    .type = "Split",
    .since_opset = 1,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = -1,
    .flags = MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct split),
    .infer = infer, .forward = forward, .backward = backward,
    .values_in = 1u << 1,
    .macs = mo_macs_zero, .couple = couple, .refit = refit, .permute = permute,
    .quant = { .kind = MO_QUANT_MOVE },
};
