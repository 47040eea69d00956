/* Adagrad, Adam, Momentum of ai.onnx.preview.training: one step of an optimizer as a node. Inputs are the rate R, the
 * count T of steps before, then n tensors X, n gradients G, and n of each state; outputs the new X and the new states.
 * With g = G + norm_coefficient X:
 *
 *     Adagrad   H' = H + g^2                            X' = X - R / (1 + T decay) g / (sqrt H' + epsilon)
 *     Adam      V' = alpha V + (1 - alpha) g            X' = (X - r V' / (sqrt H' + epsilon)) (1 - post)
 *               H' = beta H + (1 - beta) g^2            r = R sqrt(1 - beta^T) / (1 - alpha^T), R at T = 0
 *     Momentum  V' = alpha V + b g, b = 1 at T = 0      X' = X - R V', nesterov: X - R (g + alpha V') */
#include <math.h>
#include <string.h>

#include "lib/ops/tensor.h"

enum rule { ADAGRAD, ADAM, MOMENTUM };

struct training {
    enum rule rule;
    uint32_t n;                 /* tensors */
    bool is_nesterov;
    float alpha, beta, epsilon, decay, norm, post;
};

static uint32_t n_states(enum rule rule)
{
    return rule == ADAM ? 2 : 1;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum rule rule)
{
    struct training *p = n->params;
    uint32_t kinds_in = 2 + n_states(rule), kinds_out = 1 + n_states(rule);
    *p = (struct training){
        .rule = rule, .n = (n->n_in - 2) / kinds_in,
        .is_nesterov = !strcmp(mo_node_text(n, "mode", "standard"), "nesterov"),
        .alpha = mo_node_float(n, "alpha", 0.9f), .beta = mo_node_float(n, "beta", 0.999f),
        .epsilon = mo_node_float(n, "epsilon", 1e-6f), .decay = mo_node_float(n, "decay_factor", 0),
        .norm = mo_node_float(n, "norm_coefficient", 0), .post = mo_node_float(n, "norm_coefficient_post", 0),
    };
    if (n->n_in != 2 + p->n * kinds_in || n->n_out != p->n * kinds_out || !p->n)
        return mo_fail(ctx, MOPT_DATA, "%u inputs and %u outputs, it should be 2 and %u, and %u, of each tensor", n->n_in,
                       n->n_out, kinds_in, kinds_out);
    for (uint32_t i = 2; i < n->n_in; i++) {
        const struct mo_value *v = mo_in(g, n, i), *x = mo_in(g, n, 2 + (i - 2) % p->n);
        if (!v || !x)
            return mo_fail(ctx, MOPT_DATA, "input %u is left out", i);
        if (mo_shape_known(&v->shape) && mo_shape_known(&x->shape) && !mo_shape_equal(&v->shape, &x->shape))
            return mo_fail(ctx, MOPT_DATA, "'%s' and '%s' have different shapes", v->name, x->name);
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        const struct mo_value *x = mo_in(g, n, 2 + i % p->n);
        struct mo_shape shape = x->shape;
        if (n->out[i] == MO_NONE)
            return mo_fail(ctx, MOPT_DATA, "output %u is left out", i);
        mo_set_out(g, n, i, x->dtype, &shape);
    }
    return MOPT_OK;
}

static enum mopt_status infer_adagrad(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer(ctx, g, n, ADAGRAD);
}
static enum mopt_status infer_adam(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer(ctx, g, n, ADAM);
}
static enum mopt_status infer_momentum(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer(ctx, g, n, MOMENTUM);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    for (uint32_t i = 2; i < n->n_in; i++)
        if (mo_in(r->graph, n, i)->dtype != MO_F32)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", i,
                           mo_dtype_name(mo_in(r->graph, n, i)->dtype));
    return MOPT_OK;
}

/* Scratch: g and a term of the largest tensor, then epsilon. */
static size_t largest_bytes(const struct mo_run *r, const struct mo_node *n)
{
    size_t most = 0;
    for (uint32_t i = 2; i < n->n_in; i++)
        most = MO_MAX(most, mo_run_in_elems(r, n, i));
    return mo_part_bytes(most * sizeof(float));
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : 2 * largest_bytes(r, n) + MO_ALIGN_BYTES;
}

struct step {
    struct mo_run *r;
    const struct training *p;
    double rate, t;
    size_t n_elems;
    float *g, *term, *epsilon;
};

/* y = a x + b y0 */
static void mix(const struct step *s, float a, const float *x, float b, const float *y0, float *y)
{
    s->r->be->axpy(s->r->dev, s->n_elems, b, y0, y, false);
    s->r->be->axpy(s->r->dev, s->n_elems, a, x, y, true);
}

/* term = v / (sqrt h + epsilon) */
static void divide(const struct step *s, const float *v, const float *h)
{
    const int64_t n = (int64_t)s->n_elems, one = 1, still = 0;
    s->r->be->unary(s->r->dev, MO_SQRT, 0, 0, s->n_elems, h, s->term);
    s->r->be->binary(s->r->dev, MO_ADD, MO_F32, 1, &n, &one, &still, s->term, s->epsilon, s->term);
    s->r->be->binary(s->r->dev, MO_DIV, MO_F32, 1, &n, &one, &one, v, s->term, s->term);
}

static void square(const struct step *s)
{
    s->r->be->unary(s->r->dev, MO_SQUARE, 0, 0, s->n_elems, s->g, s->term);
}

static void adagrad(const struct step *s, const float *x, const float *h, float *new_x, float *new_h)
{
    square(s);
    mix(s, 1, s->term, 1, h, new_h);
    divide(s, s->g, new_h);
    mix(s, -(float)(s->rate / (1 + s->t * (double)s->p->decay)), s->term, 1, x, new_x);
}

static void adam(const struct step *s, const float *x, const float *v, const float *h, float *new_x, float *new_v,
                 float *new_h)
{
    const struct training *p = s->p;
    double rate = s->rate;
    if (s->t > 0)
        rate *= sqrt(1 - pow((double)p->beta, s->t)) / (1 - pow((double)p->alpha, s->t));
    mix(s, 1 - p->alpha, s->g, p->alpha, v, new_v);
    square(s);
    mix(s, 1 - p->beta, s->term, p->beta, h, new_h);
    divide(s, new_v, new_h);
    mix(s, -(float)rate * (1 - p->post), s->term, 1 - p->post, x, new_x);
}

static void momentum(const struct step *s, const float *x, const float *v, float *new_x, float *new_v)
{
    const struct training *p = s->p;
    mix(s, s->t > 0 ? p->beta : 1, s->g, p->alpha, v, new_v);
    if (p->is_nesterov)
        mix(s, p->alpha, new_v, 1, s->g, s->term);
    mix(s, -(float)s->rate, p->is_nesterov ? s->term : new_v, 1, x, new_x);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct training *p = n->params;
    struct step s = { .r = r, .p = p, .g = mo_run_scratch(r, n) };
    s.term = s.g + largest_bytes(r, n) / sizeof(float);
    s.epsilon = s.term + largest_bytes(r, n) / sizeof(float);
    if (!mo_run_scalar(r, n, 0, &s.rate) || !mo_run_scalar(r, n, 1, &s.t))
        return mo_fail(r->ctx, MOPT_DATA, "the rate and the count of steps should be one number each");
    r->be->fill(r->dev, sizeof(float), 1, &p->epsilon, s.epsilon);
    for (uint32_t i = 0; i < p->n; i++) {
        const float *x = mo_run_in(r, n, 2 + i), *state = mo_run_in(r, n, 2 + 2 * p->n + i);
        float *new_x = mo_run_out(r, n, i), *new_state = mo_run_out(r, n, p->n + i);
        s.n_elems = mo_run_in_elems(r, n, 2 + i);
        mix(&s, p->norm, x, 1, mo_run_in(r, n, 2 + p->n + i), s.g);
        if (p->rule == ADAGRAD)
            adagrad(&s, x, state, new_x, new_state);
        else if (p->rule == MOMENTUM)
            momentum(&s, x, state, new_x, new_state);
        else
            adam(&s, x, state, mo_run_in(r, n, 2 + 3 * p->n + i), new_x, new_state, mo_run_out(r, n, 2 * p->n + i));
    }
    return MOPT_OK;
}

#define TRAINING(id, Type, least_in, least_out)                                                                          \
    const struct mo_op mo_op_##id = {                                                                                    \
        .type = Type, .domain = "ai.onnx.preview.training", .since_opset = 1, .min_in = least_in, .max_in = -1,          \
        .min_out = least_out, .max_out = -1, .params_bytes = sizeof(struct training), .infer = infer_##id,               \
        .prepare = prepare, .forward = forward, .scratch_bytes = scratch_bytes, .macs = mo_macs_zero,                    \
    };
TRAINING(adagrad, "Adagrad", 5, 2)
TRAINING(adam, "Adam", 6, 3)
TRAINING(momentum, "Momentum", 5, 2)
