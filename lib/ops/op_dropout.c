/* Dropout (Srivastava et al. 2014): y = x / (1 - ratio) where kept, else 0. Drops while
 * the run is training, whatever the node says of training_mode, because exports for
 * inference are to be trained as they are; else only where the node says so. The
 * ratio is an attribute until opset 11, then input 1. */
#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct dropout {
    double ratio;
    bool is_ratio_input;        /* known only while running */
    bool has_mode_input, is_training_mode;
    bool has_seed;
    int64_t seed;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct dropout *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *ratio = mo_in(g, n, 1), *mode = mo_in(g, n, 2);
    double flag = 0.0;
    p->ratio = (double)mo_node_float(n, "ratio", 0.5f);
    p->has_seed = mo_node_attr(n, "seed") != NULL;
    p->seed = mo_node_int(n, "seed", 0);
    p->is_ratio_input = ratio && !ratio->data;
    p->has_mode_input = mode && !mode->data;
    if (ratio && ratio->data && !mo_value_scalar(ratio, &p->ratio))
        return mo_fail(ctx, MOPT_DATA, "ratio '%s' is not one number", ratio->name);
    if (mode && mode->data && !mo_value_scalar(mode, &flag))
        return mo_fail(ctx, MOPT_DATA, "training_mode '%s' is not one number", mode->name);
    p->is_training_mode = flag != 0.0;
    if (!(p->ratio >= 0.0 && p->ratio <= 1.0))
        return mo_fail(ctx, MOPT_DATA, "ratio is %g, it must be from 0 to 1", p->ratio);
    MO_TRY(mo_infer_like_input(ctx, g, n));
    struct mo_shape shape = x->shape;
    mo_set_out(g, n, 1, g->opset < 10 ? x->dtype : MO_BOOL, &shape);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    if (dtype != MO_F32)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(dtype));
    return MOPT_OK;
}

/* What is dropped, with the mask in *share and *drops telling whether anything may be. */
static enum mopt_status settings(struct mo_run *r, const struct mo_node *n, float *share, bool *drops)
{
    const struct dropout *p = n->params;
    double ratio = p->ratio, mode = p->is_training_mode;
    if ((p->is_ratio_input && !mo_run_scalar(r, n, 1, &ratio)) || (p->has_mode_input && !mo_run_scalar(r, n, 2, &mode)))
        return mo_fail(r->ctx, MOPT_DATA, "ratio or training_mode is not one number");
    if (!(ratio >= 0.0 && ratio <= 1.0))
        return mo_fail(r->ctx, MOPT_DATA, "ratio is %g, it must be from 0 to 1", ratio);
    *share = (float)ratio;
    *drops = (r->is_training || mode != 0.0) && ratio > 0.0;
    return MOPT_OK;
}

/* Of its own for each node and step; a seed in the node is that of all its steps. */
static void stream_of(const struct mo_run *r, const struct mo_node *n, uint64_t *seed, uint64_t *stream)
{
    const struct dropout *p = n->params;
    uint64_t which = r->step << 16 | (mo_node_id_of(r->graph, n) & 0xffff);
    struct mo_rng rng = mo_rng_new(p->has_seed ? (uint64_t)p->seed : r->options.seed, MO_RNG_DROPOUT, which);
    *seed = rng.seed;
    *stream = rng.stream;
}

/* One byte an element: in the saved memory of training, else beside. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward || r->options.train ? 0 : mo_run_in_elems(r, n, 0);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return r->options.train ? mo_run_in_elems(r, n, 0) : 0;
}

static void give_mask(struct mo_run *r, const struct mo_node *n, const uint8_t *mask)
{
    int dtype = (int)mo_out(r->graph, n, 1)->dtype;
    r->be->cast(r->dev, MO_U8, dtype, mo_run_in_elems(r, n, 0), mask, mo_run_out(r, n, 1));
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const float *x = mo_run_in(r, n, 0);
    float *y = mo_run_out(r, n, 0), share;
    uint8_t *mask = r->options.train ? mo_run_saved(r, n) : mo_run_scratch(r, n);
    size_t n_elems = mo_run_in_elems(r, n, 0);
    const uint8_t kept = 1;
    bool drops;
    MO_TRY(settings(r, n, &share, &drops));
    if (drops) {
        uint64_t seed, stream;
        stream_of(r, n, &seed, &stream);
        r->be->dropout(r->dev, seed, stream, share, n_elems, x, y, mask);
    } else {
        if (x != y)
            r->be->axpy(r->dev, n_elems, 1.0f, x, y, false);
        if (mo_run_out(r, n, 1))
            r->be->fill(r->dev, sizeof kept, n_elems, &kept, mask);
    }
    if (mo_run_out(r, n, 1))
        give_mask(r, n, mask);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, 0), share;
    const float *dy = mo_run_grad_out(r, n, 0);
    size_t n_elems = mo_run_in_elems(r, n, 0);
    bool drops;
    if (!dx)
        return MOPT_OK;
    MO_TRY(settings(r, n, &share, &drops));
    if (drops)
        r->be->dropout_grad(r->dev, share, n_elems, mo_run_saved(r, n), dy, dx, mo_run_adds(r, n, 0));
    else
        r->be->axpy(r->dev, n_elems, 1.0f, dy, dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_dropout = {
    .type = "Dropout",
    .since_opset = 7,
    .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 2,
    .flags = MO_OP_ELEMENTWISE | MO_OP_IN_PLACE | MO_OP_RANDOM | MO_OP_TRAIN_MODE | MO_OP_ADDS_GRAD,
    .params_bytes = sizeof(struct dropout),
    .infer = infer,
    .prepare = prepare,
    .forward = forward,
    .backward = backward,
    .macs = mo_macs_zero,
    .couple = mo_couple_through,
    .scratch_bytes = scratch_bytes,
    .saved_bytes = saved_bytes,
    .backward_reads = 1u << 1 | 1u << 2,
    .quant = {.kind = MO_QUANT_MOVE},
};
