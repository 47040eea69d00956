/* LayerNormalization (Ba, Kiros, Hinton 2016) over the axes from `axis` on:
 *     y = (x - mean) / sqrt(var + epsilon) scale + bias
 * The scale and bias have as many elements as these axes together. */
#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct layernorm {
    int axis;
    float eps;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct layernorm *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape stats = x->shape;
    p->eps = mo_node_float(n, "epsilon", 1e-5f);
    if (x->shape.rank != MO_UNKNOWN)
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", -1), x->shape.rank, &p->axis));
    for (int i = p->axis; i < stats.rank; i++)
        stats.dim[i] = 1;
    MO_TRY(mo_infer_like_input(ctx, g, n));
    mo_set_out(g, n, 1, MO_F32, &stats);
    mo_set_out(g, n, 2, MO_F32, &stats);
    return MOPT_OK;
}

/* x as rows x n. */
static void sizes_of(const struct mo_run *r, const struct mo_node *n, int64_t *rows, int64_t *width)
{
    const struct layernorm *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    *rows = mo_product(x->dim, p->axis);
    *width = mo_product(x->dim + p->axis, x->rank - p->axis);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    int64_t rows, width;
    sizes_of(r, n, &rows, &width);
    for (uint32_t i = 1; i < 3; i++)
        if (mo_in(r->graph, n, i) && (int64_t)mo_run_in_elems(r, n, i) != width)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u has %zu elements, computed is only one for each of %lld",
                           i, mo_run_in_elems(r, n, i), (long long)width);
    return mo_prepare_float32(r, n);
}

static size_t stats_bytes(const struct mo_run *r, const struct mo_node *n)
{
    int64_t rows, width;
    sizes_of(r, n, &rows, &width);
    return 2 * (size_t)rows * sizeof(float);
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward || r->options.train ? 0 : stats_bytes(r, n);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return r->options.train ? stats_bytes(r, n) : 0;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct layernorm *p = n->params;
    int64_t rows, width;
    sizes_of(r, n, &rows, &width);
    float *mean = r->options.train ? mo_run_saved(r, n) : mo_run_scratch(r, n), *inv_std = mean + rows;
    r->be->layernorm(r->dev, rows, width, p->eps, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_in(r, n, 2),
                     mo_run_out(r, n, 0), mean, inv_std);
    if (mo_run_out(r, n, 1))
        r->be->axpy(r->dev, (size_t)rows, 1.0f, mean, mo_run_out(r, n, 1), false);
    if (mo_run_out(r, n, 2))
        r->be->axpy(r->dev, (size_t)rows, 1.0f, inv_std, mo_run_out(r, n, 2), false);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    int64_t rows, width;
    sizes_of(r, n, &rows, &width);
    const float *mean = mo_run_saved(r, n);
    r->be->layernorm_grad(r->dev, rows, width, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mean, mean + rows,
                          mo_run_grad_out(r, n, 0), mo_run_grad_in(r, n, 0), mo_run_grad_in(r, n, 1),
                          mo_run_grad_in(r, n, 2));
    return MOPT_OK;
}

/* A normalized axis may lose elements when the scale and bias lose them too. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct layernorm *p = n->params;
    int rank = mo_in(g, n, 0)->shape.rank;
    mo_couple_through(c, g, n);
    for (uint32_t i = 1; i < 3; i++) {
        const struct mo_value *v = mo_in(g, n, i);
        int first = v ? v->shape.rank - (rank - p->axis) : -1;
        for (int axis = p->axis; first >= 0 && axis < rank; axis++)
            mo_couple_same(c, n->in[i], first + axis - p->axis, n->out[0], axis);
        if (first >= 0 && v->data && p->axis == rank - 1)
            mo_couple_weight(c, mo_node_id_of(g, n), n->in[i], first, MO_ROLE_PER_CHANNEL);
    }
    for (uint32_t i = 1; i < n->n_out; i++)
        for (int axis = 0; n->out[i] != MO_NONE && axis < p->axis; axis++)
            mo_couple_same(c, n->in[0], axis, n->out[i], axis);
}

const struct mo_op mo_op_layer_normalization = {
    .type = "LayerNormalization",
    .since_opset = 1,           /* ONNX has it since 17; ONNX Runtime writes it into older files */
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 3,
    .params_bytes = sizeof(struct layernorm),
    .infer = infer,
    .prepare = prepare,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = couple,
    .scratch_bytes = scratch_bytes,
    .saved_bytes = saved_bytes,
    .backward_reads = 1u << 0 | 1u << 1,
    .params_in = 1u << 1 | 1u << 2,
};
