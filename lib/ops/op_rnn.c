/* RNN, GRU, LSTM in both directions, made of the kernels for products and for work element by element.
 *
 *   RNN   h = f(W x + R h + b)
 *   GRU   z = f(Wz x + Rz h + bz), r = f(Wr x + Rr h + br)
 *         n = g(Wh x + Rh (r h) + bh), or with linear_before_reset g(Wh x + Wbh + r (Rh h + Rbh))
 *         h = (1 - z) n + z h
 *   LSTM  i = f(Wi x + Ri h + Pi c + bi), f likewise (1 - i with input_forget), n = g(Wc x + Rc h + bc)
 *         c = f c + i n, o = f(Wo x + Ro h + Po c + bo), h = o act(c)
 *
 * The products with x are made for all steps at once. Sequences shorter than the longest keep
 * their last state, and give 0 behind their end. Gradients are not offered. */
#include "lib/ops/tensor.h"

#include <string.h>

enum rnn_kind { RNN_PLAIN, RNN_GRU, RNN_LSTM };
enum { IN_X, IN_W, IN_R, IN_B, IN_LENS, IN_H, IN_C, IN_P };
/* Gates in the order of ONNX's weights. */
enum { GRU_Z, GRU_R, GRU_N, LSTM_I = 0, LSTM_O, LSTM_F, LSTM_N };

struct act {
    enum mo_unary f;
    float alpha, beta;
};

struct rnn {
    enum rnn_kind kind;
    int n_gates, n_dirs;
    bool reversed[2], batch_first, linear_before_reset, input_forget, has_clip;
    float clip;
    struct act act[2][3];       /* by direction: f, g, h */
    int64_t steps, batch, in, hidden;
};

/* ---- infer ---- */

static const struct {
    const char *name;
    enum mo_unary f;
    int n_numbers;              /* of alpha, beta that it takes */
    float alpha, beta;
} acts[] = {
    { "Sigmoid", MO_SIGMOID, 0, 0, 0 },          { "Tanh", MO_TANH, 0, 0, 0 },
    { "Relu", MO_RELU, 0, 0, 0 },                { "LeakyRelu", MO_LEAKY_RELU, 1, 0.01f, 0 },
    { "ThresholdedRelu", MO_THRESHOLDED_RELU, 1, 1, 0 }, { "HardSigmoid", MO_HARD_SIGMOID, 2, 0.2f, 0.5f },
    { "Elu", MO_ELU, 1, 1, 0 },                  { "Softsign", MO_SOFTSIGN, 0, 0, 0 },
    { "Softplus", MO_SOFTPLUS, 0, 0, 0 },
};

/* Names are by direction; alphas and betas are taken by those activations that have one, in order. */
static enum mopt_status read_acts(struct mopt_ctx *ctx, const struct mo_node *n, struct rnn *p)
{
    static const char *const usual[][3] = { { "Tanh" }, { "Sigmoid", "Tanh" }, { "Sigmoid", "Tanh", "Tanh" } };
    const struct mo_attr *names = mo_node_attr(n, "activations"), *alpha = mo_node_attr(n, "activation_alpha");
    const struct mo_attr *beta = mo_node_attr(n, "activation_beta");
    int per_dir = (int[]){ 1, 2, 3 }[p->kind];
    size_t next_alpha = 0, next_beta = 0;
    if (names && names->n && names->n != (size_t)(per_dir * p->n_dirs))
        return mo_fail(ctx, MOPT_DATA, "%zu activations, there should be %d", names->n, per_dir * p->n_dirs);
    for (int i = 0; i < per_dir * p->n_dirs; i++) {
        const char *name = names && names->n ? names->strings[i] : usual[p->kind][i % per_dir];
        size_t k = 0;
        while (k < MO_COUNT(acts) && strcmp(acts[k].name, name))
            k++;
        if (k == MO_COUNT(acts))
            return mo_fail(ctx, MOPT_UNSUPPORTED, "activation '%s'", name);
        struct act *a = &p->act[i / per_dir][i % per_dir];
        *a = (struct act){ acts[k].f, acts[k].alpha, acts[k].beta };
        if (acts[k].n_numbers > 0 && alpha && next_alpha < alpha->n)
            a->alpha = alpha->floats[next_alpha++];
        if (acts[k].n_numbers > 1 && beta && next_beta < beta->n)
            a->beta = beta->floats[next_beta++];
    }
    return MOPT_OK;
}

static enum mopt_status read_attrs(struct mopt_ctx *ctx, const struct mo_node *n, struct rnn *p)
{
    const char *direction = mo_node_text(n, "direction", "forward");
    bool is_both = !strcmp(direction, "bidirectional"), is_reverse = !strcmp(direction, "reverse");
    if (!is_both && !is_reverse && strcmp(direction, "forward"))
        return mo_fail(ctx, MOPT_DATA, "direction '%s', it should be forward, reverse or bidirectional", direction);
    p->n_gates = (int[]){ 1, 3, 4 }[p->kind];
    p->n_dirs = is_both ? 2 : 1;
    p->reversed[0] = is_reverse;
    p->reversed[1] = true;
    p->batch_first = mo_node_int(n, "layout", 0) != 0;
    p->linear_before_reset = mo_node_int(n, "linear_before_reset", 0) != 0;
    p->input_forget = mo_node_int(n, "input_forget", 0) != 0;
    p->has_clip = mo_node_attr(n, "clip") != NULL;
    p->clip = mo_node_float(n, "clip", 0);
    return read_acts(ctx, n, p);
}

/* An input that is there must have these sizes where they are known. */
static enum mopt_status check_input(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, uint32_t i,
                                    const struct mo_shape *want)
{
    const struct mo_value *v = mo_in(g, n, i);
    char text[2][128];
    bool fits = !v || v->shape.rank == MO_UNKNOWN || v->shape.rank == want->rank;
    for (int k = 0; v && fits && k < v->shape.rank; k++)
        fits = v->shape.dim[k] == MO_UNKNOWN || want->dim[k] == MO_UNKNOWN || v->shape.dim[k] == want->dim[k];
    if (fits)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "'%s' is %s, it should be %s", v->name,
                   mo_shape_text(&v->shape, text[0], sizeof text[0]), mo_shape_text(want, text[1], sizeof text[1]));
}

static enum mopt_status check_inputs(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                     const struct rnn *p)
{
    int64_t dirs = p->n_dirs, wide = p->hidden == MO_UNKNOWN ? MO_UNKNOWN : p->n_gates * p->hidden;
    int64_t twice = wide == MO_UNKNOWN ? MO_UNKNOWN : 2 * wide, thrice = p->hidden == MO_UNKNOWN ? MO_UNKNOWN : 3 * p->hidden;
    struct mo_shape w = mo_shape_of(3, dirs, wide, p->in), r = mo_shape_of(3, dirs, wide, p->hidden);
    struct mo_shape b = mo_shape_of(2, dirs, twice), lens = mo_shape_of(1, p->batch), peep = mo_shape_of(2, dirs, thrice);
    struct mo_shape h = mo_shape_of(3, p->batch_first ? p->batch : dirs, p->batch_first ? dirs : p->batch, p->hidden);
    MO_TRY(check_input(ctx, g, n, IN_W, &w));
    MO_TRY(check_input(ctx, g, n, IN_R, &r));
    MO_TRY(check_input(ctx, g, n, IN_B, &b));
    MO_TRY(check_input(ctx, g, n, IN_LENS, &lens));
    MO_TRY(check_input(ctx, g, n, IN_H, &h));
    if (p->kind != RNN_LSTM)
        return MOPT_OK;
    MO_TRY(check_input(ctx, g, n, IN_C, &h));
    return check_input(ctx, g, n, IN_P, &peep);
}

static enum mopt_status infer_as(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, enum rnn_kind kind)
{
    struct rnn *p = n->params;
    const struct mo_value *x = mo_in(g, n, IN_X), *r = mo_in(g, n, IN_R);
    p->kind = kind;
    MO_TRY(read_attrs(ctx, n, p));
    /* half precision is widened before it runs */
    if (x->dtype != MO_F32 && x->dtype != MO_F16 && x->dtype != MO_BF16 && x->dtype != MO_UNDEFINED)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "an input of %s, float32 would do", mo_dtype_name(x->dtype));
    bool is_known = x->shape.rank == 3;
    if (x->shape.rank != MO_UNKNOWN && !is_known)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be 3", x->shape.rank);
    p->steps = is_known ? x->shape.dim[p->batch_first] : MO_UNKNOWN;
    p->batch = is_known ? x->shape.dim[!p->batch_first] : MO_UNKNOWN;
    p->in = is_known ? x->shape.dim[2] : MO_UNKNOWN;
    p->hidden = mo_node_int(n, "hidden_size", r->shape.rank == 3 ? r->shape.dim[2] : MO_UNKNOWN);
    MO_TRY(check_inputs(ctx, g, n, p));
    int64_t dirs = p->n_dirs;
    struct mo_shape y = mo_shape_of(4, p->batch_first ? p->batch : p->steps, p->batch_first ? p->steps : dirs,
                                    p->batch_first ? dirs : p->batch, p->hidden);
    struct mo_shape h = mo_shape_of(3, p->batch_first ? p->batch : dirs, p->batch_first ? dirs : p->batch, p->hidden);
    mo_set_out(g, n, 0, x->dtype, &y);
    mo_set_out(g, n, 1, x->dtype, &h);
    if (kind == RNN_LSTM)
        mo_set_out(g, n, 2, x->dtype, &h);
    return MOPT_OK;
}

static enum mopt_status infer_rnn(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, RNN_PLAIN);
}
static enum mopt_status infer_gru(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, RNN_GRU);
}
static enum mopt_status infer_lstm(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_as(ctx, g, n, RNN_LSTM);
}

/* ---- scratch ---- */

struct parts {
    float *x;                   /* steps x batch x in, when the input has the batch first */
    float *gate[4];             /* steps x batch x hidden each */
    float *bias[5];             /* hidden each: both biases together; the fifth is GRU's recurrent one alone */
    float *h, *c, *new_h, *new_c, *t, *zero;        /* batch x hidden */
    int32_t *lens, *step;       /* how long each sequence is; the number of this step */
    uint8_t *mask;              /* batch: has it a step here? */
    size_t bytes;
};

static void *take(char *base, size_t *at, int64_t n, size_t elem_bytes)
{
    void *part = base ? base + *at : NULL;
    *at += mo_part_bytes((size_t)n * elem_bytes);
    return part;
}

static struct parts parts(const struct mo_run *r, const struct mo_node *n, char *base)
{
    const struct rnn *p = n->params;
    struct parts s = { 0 };
    size_t at = 0;
    int64_t state = p->batch * p->hidden;
    s.x = take(base, &at, p->batch_first ? p->steps * p->batch * p->in : 0, sizeof(float));
    for (int k = 0; k < p->n_gates; k++)
        s.gate[k] = take(base, &at, p->steps * state, sizeof(float));
    for (int k = 0; k < 5; k++)
        s.bias[k] = take(base, &at, p->hidden, sizeof(float));
    float **states[] = { &s.h, &s.c, &s.new_h, &s.new_c, &s.t, &s.zero };
    for (size_t k = 0; k < MO_COUNT(states); k++)
        *states[k] = take(base, &at, state, sizeof(float));
    s.lens = take(base, &at, p->batch, sizeof(int32_t));
    s.step = take(base, &at, 1, sizeof(int32_t));
    s.mask = take(base, &at, p->batch, 1);
    s.bytes = at;
    (void)r;
    return s;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : parts(r, n, NULL).bytes;
}

/* ---- small steps on batch x hidden ---- */

static void combine(struct mo_run *r, enum mo_binary f, int64_t count, const float *a, const float *b, float *y)
{
    int64_t one = 1;
    r->be->binary(r->dev, f, MO_F32, 1, &count, &one, &one, a, b, y);
}

static void activate(struct mo_run *r, const struct rnn *p, const struct act *a, float *x)
{
    r->be->unary(r->dev, a->f, a->alpha, a->beta, (size_t)(p->batch * p->hidden), x, x);
}

static void clip(struct mo_run *r, const struct rnn *p, float *x)
{
    if (p->has_clip)
        r->be->unary(r->dev, MO_CLIP, -p->clip, p->clip, (size_t)(p->batch * p->hidden), x, x);
}

/* gate += h R^T for one gate's part of R */
static void recur(struct mo_run *r, const struct rnn *p, const float *weights, int gate, const float *h, float beta, float *y)
{
    r->be->gemm(r->dev, false, true, p->batch, p->hidden, p->hidden, 1, h, p->hidden,
                weights + gate * p->hidden * p->hidden, p->hidden, beta, y, p->hidden, NULL);
}

/* y += x * row, the row repeated over the batch; t is room for the product */
static void add_scaled(struct mo_run *r, const struct rnn *p, const float *x, const float *row, float *t, float *y)
{
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 }, repeated[2] = { 0, 1 };
    r->be->binary(r->dev, MO_MUL, MO_F32, 2, dims, dense, repeated, x, row, t);
    combine(r, MO_ADD, p->batch * p->hidden, y, t, y);
}

static void add_row(struct mo_run *r, const struct rnn *p, const float *row, float *y)
{
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 }, repeated[2] = { 0, 1 };
    r->be->binary(r->dev, MO_ADD, MO_F32, 2, dims, dense, repeated, y, row, y);
}

/* y = 1 - x */
static void complement(struct mo_run *r, const struct rnn *p, const float *x, float *y)
{
    const float one = 1;
    int64_t count = p->batch * p->hidden;
    r->be->fill(r->dev, sizeof one, (size_t)count, &one, y);
    r->be->axpy(r->dev, (size_t)count, -1, x, y, true);
}

/* ---- one step: s->new_h (and s->new_c) from s->h, s->c and the gates' products with x ---- */

static void step_plain(struct mo_run *r, const struct rnn *p, const struct parts *s, const struct act *act,
                       const float *weights, float *const *gate)
{
    recur(r, p, weights, 0, s->h, 1, gate[0]);
    clip(r, p, gate[0]);
    activate(r, p, &act[0], gate[0]);
    mo_copy(r, sizeof(float), p->batch * p->hidden, gate[0], s->new_h);
}

static void step_gru(struct mo_run *r, const struct rnn *p, const struct parts *s, const struct act *act,
                     const float *weights, float *const *gate)
{
    int64_t count = p->batch * p->hidden;
    for (int k = GRU_Z; k <= GRU_R; k++) {
        recur(r, p, weights, k, s->h, 1, gate[k]);
        clip(r, p, gate[k]);
        activate(r, p, &act[0], gate[k]);
    }
    if (p->linear_before_reset) {
        recur(r, p, weights, GRU_N, s->h, 0, s->t);
        add_row(r, p, s->bias[4], s->t);
        combine(r, MO_MUL, count, s->t, gate[GRU_R], s->t);
        combine(r, MO_ADD, count, gate[GRU_N], s->t, gate[GRU_N]);
    } else {
        combine(r, MO_MUL, count, gate[GRU_R], s->h, s->t);
        recur(r, p, weights, GRU_N, s->t, 1, gate[GRU_N]);
    }
    clip(r, p, gate[GRU_N]);
    activate(r, p, &act[1], gate[GRU_N]);
    complement(r, p, gate[GRU_Z], s->t);
    combine(r, MO_MUL, count, s->t, gate[GRU_N], s->t);
    combine(r, MO_MUL, count, gate[GRU_Z], s->h, s->new_h);
    combine(r, MO_ADD, count, s->new_h, s->t, s->new_h);
}

static void step_lstm(struct mo_run *r, const struct rnn *p, const struct parts *s, const struct act *act,
                      const float *weights, const float *peep, float *const *gate)
{
    int64_t count = p->batch * p->hidden;
    for (int k = LSTM_I; k <= LSTM_N; k++)
        recur(r, p, weights, k, s->h, 1, gate[k]);
    if (peep) {
        add_scaled(r, p, s->c, peep, s->t, gate[LSTM_I]);
        add_scaled(r, p, s->c, peep + 2 * p->hidden, s->t, gate[LSTM_F]);
    }
    const int early[] = { LSTM_I, LSTM_F };
    for (int k = 0; k < 2; k++) {
        clip(r, p, gate[early[k]]);
        activate(r, p, &act[0], gate[early[k]]);
    }
    if (p->input_forget)
        complement(r, p, gate[LSTM_I], gate[LSTM_F]);
    clip(r, p, gate[LSTM_N]);
    activate(r, p, &act[1], gate[LSTM_N]);
    combine(r, MO_MUL, count, gate[LSTM_F], s->c, s->new_c);
    combine(r, MO_MUL, count, gate[LSTM_I], gate[LSTM_N], s->t);
    combine(r, MO_ADD, count, s->new_c, s->t, s->new_c);
    if (peep)
        add_scaled(r, p, s->new_c, peep + p->hidden, s->t, gate[LSTM_O]);
    clip(r, p, gate[LSTM_O]);
    activate(r, p, &act[0], gate[LSTM_O]);
    mo_copy(r, sizeof(float), count, s->new_c, s->new_h);
    activate(r, p, &act[2], s->new_h);
    combine(r, MO_MUL, count, s->new_h, gate[LSTM_O], s->new_h);
}

/* ---- a direction ---- */

/* Both biases of a gate together; GRU with linear_before_reset keeps the recurrent one of its last gate apart. */
static void add_biases(struct mo_run *r, const struct rnn *p, const struct parts *s, const float *b)
{
    int64_t hidden = p->hidden;
    for (int k = 0; k < p->n_gates; k++) {
        const float *of_w = b + k * hidden, *of_r = b + (p->n_gates + k) * hidden;
        bool is_apart = p->kind == RNN_GRU && k == GRU_N && p->linear_before_reset;
        if (!b) {
            mo_zero(r, sizeof(float), hidden, s->bias[k]);
            mo_zero(r, sizeof(float), hidden, s->bias[4]);
        } else if (is_apart) {
            mo_copy(r, sizeof(float), hidden, of_w, s->bias[k]);
            mo_copy(r, sizeof(float), hidden, of_r, s->bias[4]);
        } else {
            combine(r, MO_ADD, hidden, of_w, of_r, s->bias[k]);
        }
    }
}

/* The state of direction d in an input or output: its first element and the stride of the batch. */
static int64_t state_at(const struct rnn *p, int d, int64_t *stride)
{
    *stride = p->batch_first ? p->n_dirs * p->hidden : p->hidden;
    return p->batch_first ? d * p->hidden : d * p->batch * p->hidden;
}

static void load_state(struct mo_run *r, const struct mo_node *n, int d, uint32_t i, float *to)
{
    const struct rnn *p = n->params;
    const float *from = mo_run_in(r, n, i);
    int64_t stride_from[2] = { 0, 1 };
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 };
    int64_t at = state_at(p, d, &stride_from[0]);
    if (from)
        r->be->copy_strided(r->dev, sizeof(float), 2, dims, stride_from, dense, from + at, to);
    else
        mo_zero(r, sizeof(float), p->batch * p->hidden, to);
}

static void store_state(struct mo_run *r, const struct mo_node *n, int d, uint32_t i, const float *from)
{
    const struct rnn *p = n->params;
    float *to = mo_run_out(r, n, i);
    int64_t stride_to[2] = { 0, 1 };
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 };
    int64_t at = state_at(p, d, &stride_to[0]);
    if (to)
        r->be->copy_strided(r->dev, sizeof(float), 2, dims, dense, stride_to, from, to + at);
}

static void store_step(struct mo_run *r, const struct mo_node *n, int d, int64_t step, const float *h)
{
    const struct rnn *p = n->params;
    float *y = mo_run_out(r, n, 0);
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 };
    int64_t stride[2] = { p->batch_first ? p->steps * p->n_dirs * p->hidden : p->hidden, 1 };
    int64_t at = p->batch_first ? (step * p->n_dirs + d) * p->hidden : (step * p->n_dirs + d) * p->batch * p->hidden;
    if (y)
        r->be->copy_strided(r->dev, sizeof(float), 2, dims, dense, stride, h, y + at);
}

/* Sequences that have ended keep their state. */
static void keep_ended(struct mo_run *r, const struct rnn *p, const struct parts *s, float *state, const float *fresh)
{
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 }, by_batch[2] = { 1, 0 };
    r->be->where(r->dev, sizeof(float), 2, dims, by_batch, dense, dense, s->mask, fresh, state, state);
}

static void finish_step(struct mo_run *r, const struct mo_node *n, const struct parts *s, int d, int64_t step)
{
    const struct rnn *p = n->params;
    int64_t count = p->batch * p->hidden, one = 1, still = 0;
    if (!mo_in(r->graph, n, IN_LENS)) {
        mo_copy(r, sizeof(float), count, s->new_h, s->h);
        if (p->kind == RNN_LSTM)
            mo_copy(r, sizeof(float), count, s->new_c, s->c);
        store_step(r, n, d, step, s->h);
        return;
    }
    int32_t number = (int32_t)step;
    r->be->upload(r->dev, s->step, &number, sizeof number);
    r->be->binary(r->dev, MO_GREATER, MO_I32, 1, &p->batch, &one, &still, s->lens, s->step, s->mask);
    keep_ended(r, p, s, s->h, s->new_h);
    if (p->kind == RNN_LSTM)
        keep_ended(r, p, s, s->c, s->new_c);
    mo_copy(r, sizeof(float), count, s->zero, s->t);
    keep_ended(r, p, s, s->t, s->new_h);
    store_step(r, n, d, step, s->t);
}

static void run_direction(struct mo_run *r, const struct mo_node *n, const struct parts *s, const float *x, int d)
{
    const struct rnn *p = n->params;
    const float *w = mo_run_in(r, n, IN_W), *recurrent = mo_run_in(r, n, IN_R), *b = mo_run_in(r, n, IN_B);
    const float *peep = p->kind == RNN_LSTM ? mo_run_in(r, n, IN_P) : NULL;
    int64_t rows = p->steps * p->batch, state = p->batch * p->hidden;
    w += d * p->n_gates * p->hidden * p->in;
    recurrent += d * p->n_gates * p->hidden * p->hidden;
    add_biases(r, p, s, b ? b + d * 2 * p->n_gates * p->hidden : NULL);
    for (int k = 0; k < p->n_gates; k++) {
        const struct mo_epilogue e = { .bias = s->bias[k], .act = MO_ACT_NONE };
        r->be->gemm(r->dev, false, true, rows, p->hidden, p->in, 1, x, p->in, w + k * p->hidden * p->in, p->in, 0,
                    s->gate[k], p->hidden, &e);
    }
    load_state(r, n, d, IN_H, s->h);
    if (p->kind == RNN_LSTM)
        load_state(r, n, d, IN_C, s->c);
    for (int64_t t = 0; t < p->steps; t++) {
        int64_t step = p->reversed[d] ? p->steps - 1 - t : t;
        float *gate[4];
        for (int k = 0; k < p->n_gates; k++)
            gate[k] = s->gate[k] + step * state;
        if (p->kind == RNN_PLAIN)
            step_plain(r, p, s, p->act[d], recurrent, gate);
        else if (p->kind == RNN_GRU)
            step_gru(r, p, s, p->act[d], recurrent, gate);
        else
            step_lstm(r, p, s, p->act[d], recurrent, peep ? peep + d * 3 * p->hidden : NULL, gate);
        finish_step(r, n, s, d, step);
    }
    store_state(r, n, d, 1, s->h);
    if (p->kind == RNN_LSTM)
        store_state(r, n, d, 2, s->c);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct rnn *p = n->params;
    struct parts s = parts(r, n, mo_run_scratch(r, n));
    const float *x = mo_run_in(r, n, IN_X);
    const struct mo_value *lens = mo_in(r->graph, n, IN_LENS);
    if (p->batch_first) {
        const int64_t dims[3] = { p->steps, p->batch, p->in }, from[3] = { p->in, p->steps * p->in, 1 };
        const int64_t to[3] = { p->batch * p->in, p->in, 1 };
        r->be->copy_strided(r->dev, sizeof *x, 3, dims, from, to, x, s.x);
        x = s.x;
    }
    if (lens) {
        r->be->cast(r->dev, (int)lens->dtype, MO_I32, (size_t)p->batch, mo_run_in(r, n, IN_LENS), s.lens);
        mo_zero(r, sizeof(float), p->batch * p->hidden, s.zero);
    }
    for (int d = 0; d < p->n_dirs; d++)
        run_direction(r, n, &s, x, d);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct rnn *p = n->params;
    (void)g;
    const int64_t both[] = { p->in, p->hidden };
    int64_t sum = 0;
    for (size_t i = 0; i < MO_COUNT(both); i++) {
        const int64_t factors[] = { p->n_dirs, p->n_gates, p->steps, p->batch, p->hidden, both[i] };
        int64_t part = mo_product(factors, (int)MO_COUNT(factors));
        if (part == MO_UNKNOWN || __builtin_add_overflow(sum, part, &sum))
            return MO_UNKNOWN;
    }
    return sum;
}

#define RECURRENT(id, Type, fn, most_in, most_out)                                                              \
    const struct mo_op mo_op_##id = {                                                                           \
        .type = Type,                                                                                           \
        .since_opset = 7,                                                                                       \
        .min_in = 3, .max_in = most_in, .min_out = 0, .max_out = most_out,                                      \
        .params_bytes = sizeof(struct rnn),                                                                     \
        .infer = fn, .forward = forward, .macs = macs,                                                          \
        .scratch_bytes = scratch_bytes,                                                                         \
        .params_in = 0x8e,                                                                                      \
    };
RECURRENT(rnn, "RNN", infer_rnn, 6, 2)
RECURRENT(gru, "GRU", infer_gru, 6, 2)
RECURRENT(lstm, "LSTM", infer_lstm, 8, 3)
