/* MaxPool and AveragePool over one to three spatial axes. Training keeps for each
 * maximum which tap of the window it came from; so windows have at most 256 taps there. */
#include <math.h>

#include "lib/ops/ops.h"
#include "lib/ops/window.h"
#include "lib/run/run.h"

#define MAX_TAPS_TRAINED 256

struct pool {
    struct mo_window window;
    enum mo_pool_kind kind;
    bool column_major;          /* storage_order of MaxPool's Indices */
};

static enum mopt_status infer_pool(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum mo_pool_kind kind)
{
    struct pool *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    p->kind = kind;
    p->column_major = mo_node_int(n, "storage_order", 0) == 1;
    if (x->shape.rank != MO_UNKNOWN) {
        MO_TRY(mo_window_read(ctx, n, &x->shape, NULL, &p->window));
        MO_TRY(mo_window_slide(ctx, &p->window));
        y = mo_window_shape(&p->window, x->shape.dim[0], mo_window_channels(&p->window, &x->shape), p->window.out);
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    mo_set_out(g, n, 1, MO_I64, &y);
    return MOPT_OK;
}

static enum mopt_status infer_max(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_pool(ctx, g, n, MO_POOL_MAX);
}

static enum mopt_status infer_average(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    bool counts_pads = mo_node_int(n, "count_include_pad", 0) != 0;
    return infer_pool(ctx, g, n, counts_pads ? MO_POOL_AVERAGE_WITH_PAD : MO_POOL_AVERAGE);
}

static struct mo_pool_desc describe(const struct mo_run *r, const struct mo_node *n)
{
    const struct pool *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    struct mo_pool_desc d = {
        .kind = p->kind,
        .n_spatial = p->window.n_spatial,
        .batch = x->dim[0],
        .channels = mo_window_channels(&p->window, x),
    };
    MO_WINDOW_INTO(d, &p->window);
    return d;
}

static bool is_byte(const struct mo_run *r, const struct mo_node *n)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    return dtype == MO_I8 || dtype == MO_U8;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct pool *p = n->params;
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    if (dtype != MO_F32 && !mo_dtype_is_half(dtype) && !(p->kind == MO_POOL_MAX && is_byte(r, n)))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(dtype));
    if (p->kind == MO_POOL_MAX && mo_run_wants_grad(r, n, 0) && mo_window_taps(&p->window) > MAX_TAPS_TRAINED)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "its window of %lld taps cannot be trained through, at most %d can",
                       (long long)mo_window_taps(&p->window), MAX_TAPS_TRAINED);
    return mo_window_runs(r->ctx, &p->window);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    const struct pool *p = n->params;
    return p->kind == MO_POOL_MAX && r->options.train ? mo_run_out_elems(r, n, 0) : 0;
}

/* Where the largest stand is looked for in floats. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    if (backward || !is_byte(r, n) || !mo_out(r->graph, n, 1))
        return 0;
    return mo_run_in_elems(r, n, 0) * sizeof(float);
}

/* Position of output element `flat` of a channels-last image, split into image, place and channel. */
struct place {
    int64_t image, at[3], channel;
};

static struct place split(const struct mo_pool_desc *d, int64_t flat)
{
    struct place p = {.channel = flat % d->channels};
    flat /= d->channels;
    for (int i = 2; i >= 0; i--) {
        p.at[i] = flat % d->out[i];
        flat /= d->out[i];
    }
    p.image = flat;
    return p;
}

/* Where in the unpermuted N, C, spatial input the maximum of output element `flat` stands; x is channels-last. */
static int64_t index_of_max(const struct mo_pool_desc *d, bool column_major, const float *x, int64_t flat)
{
    struct place p = split(d, flat);
    float best = -INFINITY;
    int64_t found = 0, n_taps = d->kernel[0] * d->kernel[1] * d->kernel[2], at[3];
    bool any = false;
    for (int64_t k = 0; k < n_taps; k++) {
        int64_t tap[3] = {k / d->kernel[2] / d->kernel[1], k / d->kernel[2] % d->kernel[1], k % d->kernel[2]};
        bool is_inside = true;
        for (int i = 0; i < 3; i++) {
            at[i] = p.at[i] * d->stride[i] - d->pad_begin[i] + tap[i] * d->dilation[i];
            is_inside = is_inside && at[i] >= 0 && at[i] < d->in[i];
        }
        if (!is_inside)
            continue;
        int64_t row_major = (at[0] * d->in[1] + at[1]) * d->in[2] + at[2], area = d->in[0] * d->in[1] * d->in[2];
        float v = x[(p.image * area + row_major) * d->channels + p.channel];
        if (any && !(v > best))
            continue;
        any = true;
        best = v;
        /* column-major runs through the last axes backwards; a third axis stays outermost */
        int64_t inside = row_major;
        if (column_major && d->n_spatial == 2)
            inside = at[1] * d->in[0] + at[0];
        else if (column_major && d->n_spatial == 3)
            inside = (at[2] * d->in[1] + at[1]) * d->in[0] + at[0];
        found = (p.image * d->channels + p.channel) * area + inside;
    }
    return found;
}

/* The optional second output. Rare, so it is made on the host from the input. */
static enum mopt_status give_indices(struct mo_run *r, const struct mo_node *n, const struct mo_pool_desc *d,
                                     const float *x)
{
    const struct pool *p = n->params;
    size_t n_in = mo_run_in_elems(r, n, 0), n_out = mo_run_out_elems(r, n, 0);
    float *host = mo_mem_new(n_in + 1, sizeof *host);
    int64_t *indices = mo_mem_new(n_out + 1, sizeof *indices);
    if (host && indices) {
        r->be->download(r->dev, host, x, n_in * sizeof *host);
        for (size_t i = 0; i < n_out; i++)
            indices[i] = index_of_max(d, p->column_major, host, (int64_t)i);
        r->be->upload(r->dev, mo_run_out(r, n, 1), indices, n_out * sizeof *indices);
    }
    bool is_ok = host && indices;
    mo_mem_free(host);
    mo_mem_free(indices);
    return is_ok ? MOPT_OK : mo_no_memory(r->ctx, n_in * sizeof *host, "the indices of MaxPool");
}

static enum mopt_status forward_bytes(struct mo_run *r, const struct mo_node *n, const struct mo_pool_desc *d)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    r->be->qpool(r->dev, d, dtype == MO_I8, 0, 1, 0, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    if (!mo_run_out(r, n, 1))
        return MOPT_OK;
    float *wide = mo_run_scratch(r, n);
    r->be->cast(r->dev, (int)dtype, MO_F32, mo_run_in_elems(r, n, 0), mo_run_in(r, n, 0), wide);
    return give_indices(r, n, d, wide);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_pool_desc d = describe(r, n);
    const float *x = mo_run_in(r, n, 0);
    if (!mo_run_out_elems(r, n, 0))
        return MOPT_OK;
    if (is_byte(r, n))
        return forward_bytes(r, n, &d);
    uint8_t *where = r->is_training && saved_bytes(r, n) ? mo_run_saved(r, n) : NULL;
    if (mo_run_in_half(r, n, 0)) {      /* lowering keeps a pool with indices in float32 */
        r->be->pool_bf16(r->dev, &d, mo_run_in(r, n, 0), mo_run_out(r, n, 0), where);
        return MOPT_OK;
    }
    r->be->pool(r->dev, &d, x, mo_run_out(r, n, 0), where);
    return mo_run_out(r, n, 1) ? give_indices(r, n, &d, x) : MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct pool *p = n->params;
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    struct mo_pool_desc d = describe(r, n);
    const uint8_t *where = p->kind == MO_POOL_MAX ? mo_run_saved(r, n) : NULL;
    if (mo_run_in_half(r, n, 0))
        r->be->pool_grad_bf16(r->dev, &d, (const uint16_t *)mo_run_grad_out(r, n, 0), where, (uint16_t *)dx,
                              mo_run_adds(r, n, 0));
    else
        r->be->pool_grad(r->dev, &d, mo_run_grad_out(r, n, 0), where, dx, mo_run_adds(r, n, 0));
    return MOPT_OK;
}

#define MEMBERS                                                     \
    .since_opset = 1, .min_in = 1, .max_in = 1, .min_out = 1,       \
    .flags = MO_OP_CHANNELS_LAST | MO_OP_ADDS_GRAD,                 \
    .params_bytes = sizeof(struct pool), .prepare = prepare,        \
    .bf16_in = 1u << 0,                                             \
    .forward = forward, .backward = backward, .macs = mo_macs_zero, \
    .couple = mo_couple_image, .saved_bytes = saved_bytes, .scratch_bytes = scratch_bytes

const struct mo_op mo_op_average_pool = {
    .type = "AveragePool", .max_out = 1, MEMBERS, .infer = infer_average, .quant = {.kind = MO_QUANT_ARITH},
};

const struct mo_op mo_op_max_pool = {
    .type = "MaxPool", .max_out = 2, MEMBERS, .infer = infer_max,
    .quant = {.kind = MO_QUANT_MOVE, .since_opset = 12},
};
