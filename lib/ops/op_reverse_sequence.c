/* ReverseSequence: of each entry along batch_axis the first sequence_lens[b] steps along time_axis in reverse
 * order, the others as they are. Its gradient is itself. */
#include "lib/ops/host.h"

struct reverse {
    int batch_axis, time_axis;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct reverse *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *lens = mo_in(g, n, 1);
    int64_t batch = mo_node_int(n, "batch_axis", 1), time = mo_node_int(n, "time_axis", 0);
    if (!((batch == 0 && time == 1) || (batch == 1 && time == 0)))
        return mo_fail(ctx, MOPT_DATA, "batch_axis %lld and time_axis %lld, they should be 0 and 1 or 1 and 0",
                       (long long)batch, (long long)time);
    p->batch_axis = (int)batch;
    p->time_axis = (int)time;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank != MO_UNKNOWN && x->shape.rank < 2)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be 2 or more", x->shape.rank);
    int64_t n_lens = mo_value_elems(lens), n_batch = x->shape.rank >= 2 ? x->shape.dim[batch] : MO_UNKNOWN;
    if (n_lens >= 0 && n_batch >= 0 && n_lens != n_batch)
        return mo_fail(ctx, MOPT_DATA, "%lld sequence_lens for a batch of %lld", (long long)n_lens, (long long)n_batch);
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status reverse(struct mo_run *r, const struct mo_node *n, const void *x, void *y)
{
    const struct reverse *p = n->params;
    const struct mo_value *v = mo_in(r->graph, n, 0), *lens = mo_in(r->graph, n, 1);
    int64_t stride[MO_MAX_RANK], n_batch = v->shape.dim[p->batch_axis], n_steps = v->shape.dim[p->time_axis];
    int64_t inner = mo_dims_product(&v->shape, 2, v->shape.rank);
    size_t bytes = mo_elem_bytes(v->dtype);
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    mo_dense_strides(&v->shape, stride);
    const int64_t of_x[2] = { stride[p->time_axis], 1 }, of_y[2] = { -stride[p->time_axis], 1 };
    mo_copy(r, bytes, mo_value_elems(v), x, y);
    for (int64_t b = 0; !status && b < n_batch; b++) {
        int64_t len = mo_host_int(lens->dtype, h.in[1], b);
        const int64_t dims[2] = { len, inner };
        if (len < 0 || len > n_steps)
            status = mo_fail(r->ctx, MOPT_DATA, "sequence_lens[%lld] is %lld, there are %lld steps", (long long)b,
                             (long long)len, (long long)n_steps);
        else if (len > 1)
            r->be->copy_strided(r->dev, bytes, 2, dims, of_x, of_y,
                                (const char *)x + (size_t)(b * stride[p->batch_axis]) * bytes,
                                (char *)y + (size_t)(b * stride[p->batch_axis] + (len - 1) * of_x[0]) * bytes);
    }
    mo_host_close(&h);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    return reverse(r, n, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0);
    return dx ? reverse(r, n, mo_run_grad_out(r, n, 0), dx) : MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    int rank = mo_in(g, n, 0)->shape.rank;
    for (int axis = 2; axis < rank; axis++)
        mo_couple_same(c, n->in[0], axis, n->out[0], axis);
}

const struct mo_op mo_op_reverse_sequence = {
    .type = "ReverseSequence",
    .since_opset = 10,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct reverse),
    .infer = infer, .forward = forward, .backward = backward,
    .macs = mo_macs_zero, .couple = couple,
    .backward_reads = 1u << 1,
};
