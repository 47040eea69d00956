/* GroupNormalization (Wu and He 2018) and InstanceNormalization, which has a group
 * for each channel. Per image and group:
 *     y = (x - mean) / sqrt(var + epsilon) scale + bias
 * In N, C, spatial order a group is one stretch of memory; so it is layernorm
 * without scale, and the scale and bias of each channel (of each group, in opset
 * 18 to 20) come after. */
#include "lib/ops/ops.h"
#include "lib/run/run.h"

struct groupnorm {
    int64_t groups;         /* MO_UNKNOWN: the channels */
    float eps;
};

static enum mopt_status infer_groups(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct groupnorm *p = n->params;
    const struct mo_shape *x = &mo_in(g, n, 0)->shape;
    p->eps = mo_node_float(n, "epsilon", 1e-5f);
    if (x->rank != MO_UNKNOWN && x->rank < 2)
        return mo_fail(ctx, MOPT_DATA, "input 0 has rank %d, it must have channels", x->rank);
    int64_t channels = x->rank == MO_UNKNOWN ? MO_UNKNOWN : x->dim[1];
    if (p->groups == MO_UNKNOWN)
        p->groups = channels;
    if (channels >= 0 && (p->groups < 1 ? channels != 0 : channels % p->groups != 0))
        return mo_fail(ctx, MOPT_DATA, "%lld channels in %lld groups", (long long)channels, (long long)p->groups);
    for (uint32_t i = 1; i < 3; i++) {
        int64_t elems = mo_value_elems(mo_in(g, n, i));
        if (channels >= 0 && elems >= 0 && elems != channels && elems != p->groups)
            return mo_fail(ctx, MOPT_DATA, "input %u has %lld elements for %lld channels", i, (long long)elems,
                           (long long)channels);
    }
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status infer_group(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    ((struct groupnorm *)n->params)->groups = mo_node_int(n, "num_groups", 0);
    return infer_groups(ctx, g, n);
}

static enum mopt_status infer_instance(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    ((struct groupnorm *)n->params)->groups = MO_UNKNOWN;
    return infer_groups(ctx, g, n);
}

/* rows x n for layernorm; batch x n_scales x inner for the scale and bias. */
struct sizes {
    int64_t rows, n, scaled[3];
};

static struct sizes sizes_of(const struct mo_run *r, const struct mo_node *n)
{
    const struct groupnorm *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    int64_t elems = mo_shape_elems(x), n_scales = (int64_t)mo_run_in_elems(r, n, 1);
    struct sizes s = {.rows = x->dim[0] * p->groups};
    s.n = s.rows ? elems / s.rows : 0;
    s.scaled[0] = x->dim[0];
    s.scaled[1] = n_scales;
    s.scaled[2] = x->dim[0] && n_scales ? elems / x->dim[0] / n_scales : 0;
    return s;
}

/* out = a f (scale or bias, repeated) */
static void with_scale(struct mo_run *r, const struct sizes *s, enum mo_binary f, const float *a, const float *scale,
                       float *out)
{
    const int64_t dense[3] = {s->scaled[1] * s->scaled[2], s->scaled[2], 1}, repeated[3] = {0, 1, 0};
    r->be->binary(r->dev, f, MO_F32, 3, s->scaled, dense, repeated, a, scale, out);
}

static size_t stats_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return 2 * (size_t)sizes_of(r, n).rows * sizeof(float);
}

/* Backward makes (x - mean) / std again, and dy scale. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 2 * mo_run_in_elems(r, n, 0) * sizeof(float) : stats_bytes(r, n);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return r->options.train ? stats_bytes(r, n) : 0;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct groupnorm *p = n->params;
    struct sizes s = sizes_of(r, n);
    float *mean = r->options.train ? mo_run_saved(r, n) : mo_run_scratch(r, n), *y = mo_run_out(r, n, 0);
    r->be->layernorm(r->dev, s.rows, s.n, p->eps, mo_run_in(r, n, 0), NULL, NULL, y, mean, mean + s.rows);
    with_scale(r, &s, MO_MUL, y, mo_run_in(r, n, 1), y);
    with_scale(r, &s, MO_ADD, y, mo_run_in(r, n, 2), y);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct groupnorm *p = n->params;
    struct sizes s = sizes_of(r, n);
    size_t n_elems = mo_run_in_elems(r, n, 0);
    const bool is_reduced[3] = {true, false, true};
    const float *x = mo_run_in(r, n, 0), *dy = mo_run_grad_out(r, n, 0);
    float *mean = mo_run_saved(r, n), *hat = mo_run_scratch(r, n), *dhat = hat + n_elems;
    float *dx = mo_run_grad_in(r, n, 0), *dscale = mo_run_grad_in(r, n, 1), *dbias = mo_run_grad_in(r, n, 2);
    if (dscale) {
        const int64_t dims[1] = {(int64_t)n_elems}, one[1] = {1};
        r->be->layernorm(r->dev, s.rows, s.n, p->eps, x, NULL, NULL, hat, mean, mean + s.rows);
        r->be->binary(r->dev, MO_MUL, MO_F32, 1, dims, one, one, hat, dy, hat);
        r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 3, s.scaled, is_reduced, hat, dscale);
    }
    if (dbias)
        r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 3, s.scaled, is_reduced, dy, dbias);
    if (dx) {
        with_scale(r, &s, MO_MUL, dy, mo_run_in(r, n, 1), dhat);
        r->be->layernorm_grad(r->dev, s.rows, s.n, x, NULL, mean, mean + s.rows, dhat, dx, NULL, NULL);
    }
    return MOPT_OK;
}

/* Groups keep equal sizes; a scale for each group is not touched. */
static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    const struct groupnorm *p = n->params;
    int64_t channels = mo_in(g, n, 0)->shape.dim[1];
    mo_couple_image(c, g, n);
    if (p->groups != channels)
        mo_couple_fold(c, n->in[0], 1, channels / p->groups);
    for (uint32_t i = 1; i < 3; i++) {
        const struct mo_value *v = mo_in(g, n, i);
        if (mo_value_elems(v) != channels)
            continue;
        mo_couple_same(c, n->in[i], 0, n->out[0], 1);
        if (v->data)
            mo_couple_weight(c, mo_node_id_of(g, n), n->in[i], 0, MO_ROLE_PER_CHANNEL);
    }
}

#define MEMBERS                                                                         \
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,                               \
    .params_bytes = sizeof(struct groupnorm), .prepare = mo_prepare_float32,            \
    .forward = forward, .backward = backward, .macs = mo_macs_zero, .couple = couple,   \
    .scratch_bytes = scratch_bytes, .saved_bytes = saved_bytes,                         \
    .backward_reads = 1u << 0 | 1u << 1, .params_in = 1u << 1 | 1u << 2

const struct mo_op mo_op_group_normalization = {
    .type = "GroupNormalization", .since_opset = 18, MEMBERS, .infer = infer_group,
};

const struct mo_op mo_op_instance_normalization = {
    .type = "InstanceNormalization", .since_opset = 6, MEMBERS, .infer = infer_instance,
};
