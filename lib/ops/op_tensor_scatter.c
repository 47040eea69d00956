/* TensorScatter: past, a cache, with `update` written into it along `axis` from write_indices[batch] on (0 without
 * them); mode circular goes on at the front behind the end.
 *
 *     dpast = dy without what was overwritten         dupdate = dy at what was written */
#include <string.h>

#include "lib/ops/host.h"

enum { IN_PAST, IN_UPDATE, IN_AT };

struct scatter {
    int axis;
    bool is_circular;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct scatter *p = n->params;
    const struct mo_value *past = mo_in(g, n, IN_PAST), *update = mo_in(g, n, IN_UPDATE);
    const char *mode = mo_node_text(n, "mode", "linear");
    char text_p[128], text_u[128];
    p->is_circular = !strcmp(mode, "circular");
    if (!p->is_circular && strcmp(mode, "linear"))
        return mo_fail(ctx, MOPT_DATA, "mode '%s', it should be linear or circular", mode);
    MO_TRY(mo_check_movable(ctx, past->dtype));
    MO_TRY(mo_check_same_dtype(ctx, past, update));
    if (past->shape.rank != MO_UNKNOWN) {
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", -2), past->shape.rank, &p->axis));
        if (p->axis == 0)
            return mo_fail(ctx, MOPT_DATA, "axis 0 is the batch, it should be another");
    }
    bool fits = past->shape.rank == MO_UNKNOWN || update->shape.rank == MO_UNKNOWN || past->shape.rank == update->shape.rank;
    for (int k = 0; fits && update->shape.rank != MO_UNKNOWN && k < past->shape.rank; k++) {
        int64_t have = past->shape.dim[k], want = update->shape.dim[k];
        fits = have == MO_UNKNOWN || want == MO_UNKNOWN || have == want || (k == p->axis && want < have);
    }
    if (!fits)
        return mo_fail(ctx, MOPT_DATA, "an update of %s does not fit into a cache of %s",
                       mo_shape_text(&update->shape, text_u, sizeof text_u),
                       mo_shape_text(&past->shape, text_p, sizeof text_p));
    return mo_infer_like_input(ctx, g, n);
}

/* What is done with the places of the update: y[place] = update, update = y[place], y[place] = 0. */
enum act { WRITE, READ, CLEAR };

/* count steps of batch entry b from step `from` of the update, at step `at` of the cache. */
static void span(struct mo_run *r, const struct mo_node *n, enum act act, int64_t b, int64_t from, int64_t at, int64_t count,
                 void *update, void *y)
{
    const struct scatter *p = n->params;
    const struct mo_shape *past = &mo_in(r->graph, n, IN_PAST)->shape, *new = &mo_in(r->graph, n, IN_UPDATE)->shape;
    size_t bytes = mo_elem_bytes(mo_in(r->graph, n, IN_PAST)->dtype);
    int64_t outer = mo_dims_product(past, 1, p->axis), inner = mo_dims_product(past, p->axis + 1, past->rank);
    const int64_t dims[2] = { outer, count * inner }, zero[2] = { 0, 0 };
    const int64_t of_update[2] = { new->dim[p->axis] * inner, 1 }, of_y[2] = { past->dim[p->axis] * inner, 1 };
    char *u = (char *)update + (act == CLEAR ? 0 : (size_t)(b * outer * of_update[0] + from * inner) * bytes);
    char *z = (char *)y + (size_t)(b * outer * of_y[0] + at * inner) * bytes;
    if (act == WRITE)
        r->be->copy_strided(r->dev, bytes, 2, dims, of_update, of_y, u, z);
    else if (act == READ)
        r->be->copy_strided(r->dev, bytes, 2, dims, of_y, of_update, z, u);
    else
        r->be->copy_strided(r->dev, bytes, 2, dims, zero, of_y, u, z);
}

static enum mopt_status each_batch(struct mo_run *r, const struct mo_node *n, enum act act, void *update, void *y)
{
    const struct scatter *p = n->params;
    const struct mo_value *past = mo_in(r->graph, n, IN_PAST), *indices = mo_in(r->graph, n, IN_AT);
    int64_t length = past->shape.dim[p->axis], count = mo_in(r->graph, n, IN_UPDATE)->shape.dim[p->axis];
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && indices && mo_value_elems(indices) != past->shape.dim[0])
        status = mo_fail(r->ctx, MOPT_DATA, "%lld write_indices for a batch of %lld", (long long)mo_value_elems(indices),
                         (long long)past->shape.dim[0]);
    for (int64_t b = 0; !status && count > 0 && b < past->shape.dim[0]; b++) {
        int64_t at = indices ? mo_host_int(indices->dtype, h.in[IN_AT], b) : 0;
        if (at < 0 || (p->is_circular ? at >= length : at > length - count)) {
            status = mo_fail(r->ctx, MOPT_DATA, "write_indices[%lld] is %lld, %lld steps go into %lld", (long long)b,
                             (long long)at, (long long)count, (long long)length);
            continue;
        }
        int64_t first = MO_MIN(count, length - at);
        span(r, n, act, b, 0, at, first, update, y);
        if (first < count)
            span(r, n, act, b, first, 0, count - first, update, y);
    }
    mo_host_close(&h);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *past = mo_in(r->graph, n, IN_PAST);
    mo_copy(r, mo_elem_bytes(past->dtype), mo_value_elems(past), mo_run_in(r, n, IN_PAST), mo_run_out(r, n, 0));
    return each_batch(r, n, WRITE, mo_run_in(r, n, IN_UPDATE), mo_run_out(r, n, 0));
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)r, (void)n;
    return backward ? sizeof(float) : 0;        /* a zero */
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    float *dpast = mo_run_grad_in(r, n, IN_PAST), *dupdate = mo_run_grad_in(r, n, IN_UPDATE), *dy = mo_run_grad_out(r, n, 0);
    if (dupdate)
        MO_TRY(each_batch(r, n, READ, dupdate, dy));
    if (!dpast)
        return MOPT_OK;
    mo_copy(r, sizeof *dy, mo_value_elems(mo_in(r->graph, n, IN_PAST)), dy, dpast);
    mo_zero(r, sizeof(float), 1, mo_run_scratch(r, n));
    return each_batch(r, n, CLEAR, mo_run_scratch(r, n), dpast);
}

const struct mo_op mo_op_tensor_scatter = {
    .type = "TensorScatter",
    .since_opset = 24,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct scatter),
    .infer = infer, .forward = forward, .backward = backward,
    .macs = mo_macs_zero,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << IN_AT,
};
