/* RNN, GRU, LSTM in both directions.
 *
 *   RNN   h = f(W x + R h + b)
 *   GRU   z = f(Wz x + Rz h + bz), r = f(Wr x + Rr h + br)
 *         n = g(Wh x + Rh (r h) + bh), or with linear_before_reset g(Wh x + Wbh + r (Rh h + Rbh))
 *         h = (1 - z) n + z h
 *   LSTM  i = f(Wi x + Ri h + Pi c + bi), f likewise (1 - i with input_forget), n = g(Wc x + Rc h + bc)
 *         c = f c + i n, o = f(Wo x + Ro h + Po c + bo), h = o act(c)
 *
 * One product makes what all steps take from x, one a step what it takes from h, and a kernel does the rest of the
 * step. Sequences shorter than the longest keep their last state, and give 0 behind their end.
 *
 * Backward goes through the steps in reverse order, each leaving the gradients of its gates where the gates were;
 * those of the weights are then one product over all steps. */
#include <math.h>
#include <string.h>

#include "lib/ops/tensor.h"

enum rnn_kind { RNN_PLAIN, RNN_GRU, RNN_LSTM };
enum { IN_X, IN_W, IN_R, IN_B, IN_LENS, IN_H, IN_C, IN_P };

struct rnn {
    enum rnn_kind kind;
    int n_gates, n_dirs;
    bool reversed[2], batch_first, linear_before_reset;
    struct mo_cell cell[2];     /* by direction: activations f, g, h */
    int64_t steps, batch, in, hidden;
};

/* ---- infer ---- */

static const struct {
    const char *name;
    enum mo_cell_act f;
    int n_numbers;              /* of alpha, beta that it takes */
    float alpha, beta;
} acts[] = {
    { "Sigmoid", MO_CELL_SIGMOID, 0, 0, 0 },         { "Tanh", MO_CELL_TANH, 0, 0, 0 },
    { "Relu", MO_CELL_RELU, 0, 0, 0 },               { "LeakyRelu", MO_CELL_LEAKY_RELU, 1, 0.01f, 0 },
    { "ThresholdedRelu", MO_CELL_THRESHOLDED_RELU, 1, 1, 0 }, { "HardSigmoid", MO_CELL_HARD_SIGMOID, 2, 0.2f, 0.5f },
    { "Elu", MO_CELL_ELU, 1, 1, 0 },                 { "Softsign", MO_CELL_SOFTSIGN, 0, 0, 0 },
    { "Softplus", MO_CELL_SOFTPLUS, 0, 0, 0 },       { "Affine", MO_CELL_AFFINE, 2, 1, 0 },
    { "ScaledTanh", MO_CELL_SCALED_TANH, 2, 1, 1 },
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
        struct mo_cell *cell = &p->cell[i / per_dir];
        int at = i % per_dir;
        cell->act[at].f = acts[k].f;
        cell->act[at].a = acts[k].alpha;
        cell->act[at].b = acts[k].beta;
        if (acts[k].n_numbers > 0 && alpha && next_alpha < alpha->n)
            cell->act[at].a = alpha->floats[next_alpha++];
        if (acts[k].n_numbers > 1 && beta && next_beta < beta->n)
            cell->act[at].b = beta->floats[next_beta++];
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
    for (int d = 0; d < 2; d++) {
        p->cell[d].input_forget = p->kind == RNN_LSTM && mo_node_int(n, "input_forget", 0) != 0;
        p->cell[d].clip = mo_node_attr(n, "clip") ? fabsf(mo_node_float(n, "clip", 0)) : INFINITY;
    }
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

/* ---- memory ---- */

/* What a direction keeps, in training from forward to backward. Steps are in order of time; the state before the first
 * step that is done and after each are one list, so that those before and those after all steps lie in one piece each. */
struct kept {
    float *gates;               /* steps x batch x gates x hidden */
    float *extra;               /* GRU with linear_before_reset: its products with h, likewise */
    float *h, *c;               /* steps + 1, batch x hidden each */
    float *reset;               /* GRU without: r h of all steps; of one when nothing is kept */
};

/* The same for both directions. */
struct shared {
    float *x, *dx;              /* steps x batch x in, when the input has the batch first */
    float *y;                   /* steps x batch x hidden: a result or its gradient before it is put in its place */
    float *bias;                /* one of each gate */
    float *dh, *dc, *dreset;    /* batch x hidden */
    float *term;                /* steps x batch x hidden: terms of the gradient of peepholes */
    int32_t *lens, *numbers;    /* how long each sequence is; of the steps */
    uint8_t *mask;              /* steps x batch: has the sequence that step? */
    float *zero;
};

static void *take(char *base, size_t *at, int64_t n, size_t elem_bytes)
{
    void *part = base ? base + *at : NULL;
    *at += mo_part_bytes((size_t)n * elem_bytes);
    return part;
}

static struct kept kept_at(const struct rnn *p, bool train, char *base, size_t *at)
{
    int64_t state = p->batch * p->hidden, wide = p->steps * state * p->n_gates;
    bool is_gru = p->kind == RNN_GRU, has_reset = is_gru && !p->linear_before_reset;
    struct kept k;
    k.gates = take(base, at, wide, sizeof(float));
    k.extra = take(base, at, is_gru && p->linear_before_reset ? wide : 0, sizeof(float));
    k.h = take(base, at, (p->steps + 1) * state, sizeof(float));
    k.c = take(base, at, p->kind == RNN_LSTM ? (p->steps + 1) * state : 0, sizeof(float));
    k.reset = take(base, at, has_reset ? (train ? p->steps : 1) * state : 0, sizeof(float));
    return k;
}

/* Of one sequence both orders are the same. */
static bool is_turned(const struct rnn *p)
{
    return p->batch_first && p->batch > 1;
}

static struct shared shared_at(const struct rnn *p, bool backward, char *base, size_t *at)
{
    int64_t state = p->batch * p->hidden;
    struct shared s;
    int64_t turned = is_turned(p) ? p->steps * p->batch * p->in : 0;
    s.x = take(base, at, turned, sizeof(float));
    s.dx = take(base, at, backward ? turned : 0, sizeof(float));
    s.y = take(base, at, p->steps * state, sizeof(float));
    s.bias = take(base, at, p->n_gates * p->hidden, sizeof(float));
    s.dh = take(base, at, backward ? state : 0, sizeof(float));
    s.dc = take(base, at, backward ? state : 0, sizeof(float));
    s.dreset = take(base, at, backward ? state : 0, sizeof(float));
    s.term = take(base, at, backward && p->kind == RNN_LSTM ? p->steps * state : 0, sizeof(float));
    s.lens = take(base, at, p->batch, sizeof(int32_t));
    s.numbers = take(base, at, p->steps, sizeof(int32_t));
    s.mask = take(base, at, p->steps * p->batch, 1);
    s.zero = take(base, at, 1, sizeof(float));
    return s;
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    const struct rnn *p = n->params;
    size_t bytes = 0;
    for (int d = 0; r->options.train && d < p->n_dirs; d++)
        kept_at(p, true, NULL, &bytes);
    return bytes;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct rnn *p = n->params;
    size_t bytes = 0;
    shared_at(p, backward, NULL, &bytes);
    if (!r->options.train)
        kept_at(p, false, NULL, &bytes);
    return bytes;
}

static struct kept kept_of(const struct mo_run *r, const struct mo_node *n, int d)
{
    const struct rnn *p = n->params;
    size_t at = 0;
    if (!r->options.train) {
        shared_at(p, false, NULL, &at);
        return kept_at(p, false, mo_run_scratch(r, n), &at);
    }
    for (int k = 0; k < d; k++)
        kept_at(p, true, NULL, &at);
    return kept_at(p, true, mo_run_saved(r, n), &at);
}

/* ---- states and sequences in inputs and outputs ---- */

/* Batch x hidden of direction d in a state as ONNX lays it out. */
static int64_t state_at(const struct rnn *p, int d, int64_t stride[2])
{
    stride[0] = p->batch_first ? p->n_dirs * p->hidden : p->hidden;
    stride[1] = 1;
    return p->batch_first ? d * p->hidden : d * p->batch * p->hidden;
}

static void load_state(struct mo_run *r, const struct rnn *p, int d, const float *from, float *to)
{
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 };
    int64_t stride[2], at = state_at(p, d, stride);
    if (from)
        r->be->copy_strided(r->dev, sizeof(float), 2, dims, stride, dense, from + at, to);
    else
        mo_zero(r, sizeof(float), p->batch * p->hidden, to);
}

static void store_state(struct mo_run *r, const struct rnn *p, int d, const float *from, float *to)
{
    const int64_t dims[2] = { p->batch, p->hidden }, dense[2] = { p->hidden, 1 };
    int64_t stride[2], at = state_at(p, d, stride);
    if (to)
        r->be->copy_strided(r->dev, sizeof(float), 2, dims, dense, stride, from, to + at);
}

/* Steps x batch x hidden of direction d in Y. */
static int64_t sequence_at(const struct rnn *p, int d, int64_t stride[3])
{
    int64_t wide = p->n_dirs * p->hidden;
    stride[0] = p->batch_first ? wide : wide * p->batch;
    stride[1] = p->batch_first ? wide * p->steps : p->hidden;
    stride[2] = 1;
    return p->batch_first ? d * p->hidden : d * p->batch * p->hidden;
}

static void turn_x(struct mo_run *r, const struct rnn *p, bool back, const float *x, float *y)
{
    const int64_t dims[3] = { p->steps, p->batch, p->in };
    const int64_t by_batch[3] = { p->in, p->steps * p->in, 1 }, by_step[3] = { p->batch * p->in, p->in, 1 };
    r->be->copy_strided(r->dev, sizeof *x, 3, dims, back ? by_step : by_batch, back ? by_batch : by_step, x, y);
}

/* ---- a direction of forward ---- */

struct weights { const float *w, *r, *b, *peep; };

static struct weights weights_of(const struct mo_run *r, const struct mo_node *n, int d)
{
    const struct rnn *p = n->params;
    int64_t wide = p->n_gates * p->hidden;
    const float *b = mo_run_in(r, n, IN_B), *peep = p->kind == RNN_LSTM ? mo_run_in(r, n, IN_P) : NULL;
    return (struct weights){
        .w = (const float *)mo_run_in(r, n, IN_W) + d * wide * p->in,
        .r = (const float *)mo_run_in(r, n, IN_R) + d * wide * p->hidden,
        .b = b ? b + d * 2 * wide : NULL,
        .peep = peep ? peep + d * 3 * p->hidden : NULL,
    };
}

static struct mo_cell cell_of(const struct mo_run *r, const struct mo_node *n, const struct shared *s, int d)
{
    const struct rnn *p = n->params;
    struct mo_cell cell = p->cell[d];
    cell.kind = p->kind == RNN_PLAIN ? MO_CELL_PLAIN : p->kind == RNN_LSTM ? MO_CELL_LSTM : MO_CELL_GRU;
    cell.batch = p->batch;
    cell.hidden = p->hidden;
    cell.lens = mo_in(r->graph, n, IN_LENS) ? s->lens : NULL;
    return cell;
}

/* All steps' products with x, both biases with them; GRU with linear_before_reset keeps the recurrent one apart. */
static void from_input(struct mo_run *r, const struct rnn *p, const struct shared *s, const struct weights *w, const float *x,
                       float *gates)
{
    int64_t wide = p->n_gates * p->hidden, one = 1;
    bool is_apart = p->kind == RNN_GRU && p->linear_before_reset;
    struct mo_epilogue e = { .bias = w->b, .act = MO_ACT_NONE };
    if (w->b && !is_apart) {
        r->be->binary(r->dev, MO_ADD, MO_F32, 1, &wide, &one, &one, w->b, w->b + wide, s->bias);
        e.bias = s->bias;
    }
    r->be->gemm(r->dev, false, true, p->steps * p->batch, wide, p->in, 1, x, p->in, w->w, p->in, 0, gates, wide, &e);
}

/* c (+)= a R^T for n_gates of the gates from the first on; rows of c are those of all gates. */
static void recur(struct mo_run *r, const struct rnn *p, const struct weights *w, int first, int n_gates, const float *a,
                  float beta, float *c, const float *bias)
{
    const struct mo_epilogue e = { .bias = bias, .act = MO_ACT_NONE };
    int64_t hidden = p->hidden;
    r->be->gemm(r->dev, false, true, p->batch, n_gates * hidden, hidden, 1, a, hidden, w->r + first * hidden * hidden, hidden,
                beta, c + first * hidden, p->n_gates * hidden, &e);
}

/* Where step t of the lists of states begins: before and after it. */
static void states_at(const struct rnn *p, int d, int64_t t, int64_t *before, int64_t *after)
{
    int64_t state = p->batch * p->hidden;
    *before = (p->reversed[d] ? t + 1 : t) * state;
    *after = (p->reversed[d] ? t : t + 1) * state;
}

static void step(struct mo_run *r, const struct rnn *p, struct mo_cell *cell, const struct weights *w, const struct kept *k,
                 int d, int64_t t, bool train)
{
    int64_t state = p->batch * p->hidden, before, after;
    states_at(p, d, t, &before, &after);
    float *gates = k->gates + t * state * p->n_gates, *extra = NULL;
    float *reset = k->reset + (train ? t * state : 0);
    cell->step = (int32_t)t;
    if (p->kind == RNN_GRU && p->linear_before_reset) {
        extra = k->extra + t * state * p->n_gates;
        recur(r, p, w, 0, p->n_gates, k->h + before, 0, extra, w->b ? w->b + p->n_gates * p->hidden : NULL);
    } else if (p->kind == RNN_GRU) {
        recur(r, p, w, 0, 2, k->h + before, 1, gates, NULL);
        cell->kind = MO_CELL_GRU_RESET;
        r->be->cell(r->dev, cell, gates, NULL, NULL, k->h + before, NULL, reset, NULL);
        recur(r, p, w, 2, 1, reset, 1, gates, NULL);
        cell->kind = MO_CELL_GRU_REST;
    } else {
        recur(r, p, w, 0, p->n_gates, k->h + before, 1, gates, NULL);
    }
    bool has_c = p->kind == RNN_LSTM;
    r->be->cell(r->dev, cell, gates, w->peep, extra, k->h + before, has_c ? k->c + before : NULL, k->h + after,
                has_c ? k->c + after : NULL);
}

/* Y of direction d: the states after all steps, 0 where a sequence has ended. */
static void store_sequence(struct mo_run *r, const struct mo_node *n, const struct shared *s, const float *h, int d)
{
    const struct rnn *p = n->params;
    float *y = mo_run_out(r, n, 0);
    const int64_t dims[3] = { p->steps, p->batch, p->hidden }, dense[3] = { p->batch * p->hidden, p->hidden, 1 };
    const int64_t of_lens[2] = { 0, 1 }, of_numbers[2] = { 1, 0 }, of_mask[3] = { p->batch, 1, 0 }, still[3] = { 0 };
    int64_t stride[3], at = sequence_at(p, d, stride);
    if (!y)
        return;
    if (mo_in(r->graph, n, IN_LENS)) {
        r->be->arange(r->dev, MO_I32, 0, 1, (size_t)p->steps, s->numbers);
        mo_zero(r, sizeof(float), 1, s->zero);
        r->be->binary(r->dev, MO_GREATER, MO_I32, 2, dims, of_lens, of_numbers, s->lens, s->numbers, s->mask);
        r->be->where(r->dev, sizeof(float), 3, dims, of_mask, dense, still, s->mask, h, s->zero, s->y);
        h = s->y;
    }
    r->be->copy_strided(r->dev, sizeof(float), 3, dims, dense, stride, h, y + at);
}

static void run_direction(struct mo_run *r, const struct mo_node *n, const struct shared *s, const float *x, int d)
{
    const struct rnn *p = n->params;
    struct kept k = kept_of(r, n, d);
    struct weights w = weights_of(r, n, d);
    struct mo_cell cell = cell_of(r, n, s, d);
    int64_t state = p->batch * p->hidden, first = p->reversed[d] ? p->steps * state : 0, last = p->steps * state - first;
    from_input(r, p, s, &w, x, k.gates);
    load_state(r, p, d, mo_run_in(r, n, IN_H), k.h + first);
    if (p->kind == RNN_LSTM)
        load_state(r, p, d, mo_run_in(r, n, IN_C), k.c + first);
    for (int64_t t = 0; t < p->steps; t++)
        step(r, p, &cell, &w, &k, d, p->reversed[d] ? p->steps - 1 - t : t, r->options.train);
    store_sequence(r, n, s, p->reversed[d] ? k.h : k.h + state, d);
    store_state(r, p, d, k.h + last, mo_run_out(r, n, 1));
    if (p->kind == RNN_LSTM)
        store_state(r, p, d, k.c + last, mo_run_out(r, n, 2));
}

/* x with the steps first, and how long the sequences are. */
static const float *prepare_x(struct mo_run *r, const struct mo_node *n, const struct shared *s)
{
    const struct rnn *p = n->params;
    const struct mo_value *lens = mo_in(r->graph, n, IN_LENS);
    if (lens)
        r->be->cast(r->dev, (int)lens->dtype, MO_I32, (size_t)p->batch, mo_run_in(r, n, IN_LENS), s->lens);
    if (!is_turned(p))
        return mo_run_in(r, n, IN_X);
    turn_x(r, p, false, mo_run_in(r, n, IN_X), s->x);
    return s->x;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct rnn *p = n->params;
    size_t at = 0;
    struct shared s = shared_at(p, false, mo_run_scratch(r, n), &at);
    const float *x = prepare_x(r, n, &s);
    for (int d = 0; d < p->n_dirs; d++)
        run_direction(r, n, &s, x, d);
    return MOPT_OK;
}

/* ---- a direction of backward ---- */

/* dh += a R for n_gates of the gates from the first on. */
static void recur_back(struct mo_run *r, const struct rnn *p, const struct weights *w, int first, int n_gates, const float *a,
                       float beta, float *dh)
{
    int64_t hidden = p->hidden;
    r->be->gemm(r->dev, false, false, p->batch, hidden, n_gates * hidden, 1, a + first * hidden, p->n_gates * hidden,
                w->r + first * hidden * hidden, hidden, beta, dh, hidden, NULL);
}

static void step_back(struct mo_run *r, const struct rnn *p, struct mo_cell *cell, const struct weights *w,
                      const struct kept *k, const struct shared *s, int d, int64_t t, const float *dy)
{
    int64_t state = p->batch * p->hidden, before, after;
    states_at(p, d, t, &before, &after);
    float *gates = k->gates + t * state * p->n_gates;
    bool has_c = p->kind == RNN_LSTM, has_extra = p->kind == RNN_GRU && p->linear_before_reset;
    float *extra = has_extra ? k->extra + t * state * p->n_gates : NULL;
    cell->step = (int32_t)t;
    if (p->kind == RNN_GRU && !has_extra)
        cell->kind = MO_CELL_GRU_REST;
    r->be->cell_grad(r->dev, cell, gates, w->peep, extra, k->h + before, has_c ? k->c + before : NULL,
                     has_c ? k->c + after : NULL, dy, s->dh, s->dc);
    if (cell->kind != MO_CELL_GRU_REST) {
        recur_back(r, p, w, 0, p->n_gates, has_extra ? extra : gates, 1, s->dh);
        return;
    }
    recur_back(r, p, w, 2, 1, gates, 0, s->dreset);
    cell->kind = MO_CELL_GRU_RESET;
    r->be->cell_grad(r->dev, cell, gates, NULL, NULL, k->h + before, NULL, NULL, s->dreset, s->dh, NULL);
    recur_back(r, p, w, 0, 2, gates, 1, s->dh);
}

/* The gradient of Y in direction d, steps first; NULL: none arrived. */
static const float *load_dy(struct mo_run *r, const struct mo_node *n, const struct shared *s, int d)
{
    const struct rnn *p = n->params;
    const float *dy = mo_run_grad_out(r, n, 0);
    const int64_t dims[3] = { p->steps, p->batch, p->hidden }, dense[3] = { p->batch * p->hidden, p->hidden, 1 };
    int64_t stride[3], at = sequence_at(p, d, stride);
    if (dy)
        r->be->copy_strided(r->dev, sizeof *dy, 3, dims, stride, dense, dy + at, s->y);
    return dy ? s->y : NULL;
}

/* y = the sum of the rows of x, rows x n */
static void sum_rows(struct mo_run *r, int64_t rows, int64_t n, const float *x, float *y)
{
    const int64_t dims[2] = { rows, n };
    const bool is_reduced[2] = { true, false };
    r->be->reduce(r->dev, MO_REDUCE_SUM, MO_F32, 2, dims, is_reduced, x, y);
}

static void grad_peepholes(struct mo_run *r, const struct rnn *p, const struct kept *k, const struct shared *s, int d,
                           float *dpeep)
{
    int64_t rows = p->steps * p->batch, before, after;
    const int64_t dims[2] = { rows, p->hidden }, of_gates[2] = { 4 * p->hidden, 1 }, dense[2] = { p->hidden, 1 };
    states_at(p, d, 0, &before, &after);
    for (int gate = 0; gate < 3; gate++) {      /* i, o, f: only the output gate looks at the new state */
        r->be->binary(r->dev, MO_MUL, MO_F32, 2, dims, of_gates, dense, k->gates + gate * p->hidden,
                      k->c + (gate == 1 ? after : before), s->term);
        sum_rows(r, rows, p->hidden, s->term, dpeep + gate * p->hidden);
    }
}

/* Gradients of W, R, B, P: the gates' are there for all steps. */
static void grad_weights(struct mo_run *r, const struct mo_node *n, const struct kept *k, const struct shared *s,
                         const float *x, int d)
{
    const struct rnn *p = n->params;
    int64_t rows = p->steps * p->batch, hidden = p->hidden, wide = p->n_gates * hidden, before, after;
    float *dw = mo_run_grad_in(r, n, IN_W), *dr = mo_run_grad_in(r, n, IN_R), *db = mo_run_grad_in(r, n, IN_B);
    float *dpeep = p->kind == RNN_LSTM ? mo_run_grad_in(r, n, IN_P) : NULL;
    bool has_extra = p->kind == RNN_GRU && p->linear_before_reset, has_reset = p->kind == RNN_GRU && !has_extra;
    const float *of_r = has_extra ? k->extra : k->gates;
    int64_t plain = has_reset ? 2 * hidden : wide;
    states_at(p, d, 0, &before, &after);
    if (dw)
        r->be->gemm(r->dev, true, false, wide, p->in, rows, 1, k->gates, wide, x, p->in, 0, dw + d * wide * p->in,
                    p->in, NULL);
    if (dr)
        r->be->gemm(r->dev, true, false, plain, hidden, rows, 1, of_r, wide, k->h + before, hidden, 0,
                    dr + d * wide * hidden, hidden, NULL);
    if (dr && has_reset)
        r->be->gemm(r->dev, true, false, hidden, hidden, rows, 1, k->gates + 2 * hidden, wide, k->reset, hidden, 0,
                    dr + (d * wide + 2 * hidden) * hidden, hidden, NULL);
    if (db) {
        sum_rows(r, rows, wide, k->gates, db + d * 2 * wide);
        sum_rows(r, rows, wide, of_r, db + (d * 2 + 1) * wide);
    }
    if (dpeep)
        grad_peepholes(r, p, k, s, d, dpeep + d * 3 * hidden);
}

static void back_direction(struct mo_run *r, const struct mo_node *n, const struct shared *s, const float *x, float *dx,
                           int d)
{
    const struct rnn *p = n->params;
    struct kept k = kept_of(r, n, d);
    struct weights w = weights_of(r, n, d);
    struct mo_cell cell = cell_of(r, n, s, d);
    int64_t wide = p->n_gates * p->hidden, state = p->batch * p->hidden;
    const float *dy = load_dy(r, n, s, d);
    load_state(r, p, d, mo_run_grad_out(r, n, 1), s->dh);
    load_state(r, p, d, p->kind == RNN_LSTM ? mo_run_grad_out(r, n, 2) : NULL, s->dc);
    for (int64_t i = 0; i < p->steps; i++) {
        int64_t t = p->reversed[d] ? i : p->steps - 1 - i;
        step_back(r, p, &cell, &w, &k, s, d, t, dy ? dy + t * state : NULL);
    }
    grad_weights(r, n, &k, s, x, d);
    if (dx)
        r->be->gemm(r->dev, false, false, p->steps * p->batch, p->in, wide, 1, k.gates, wide, w.w, p->in, d ? 1 : 0, dx,
                    p->in, NULL);
    store_state(r, p, d, s->dh, mo_run_grad_in(r, n, IN_H));
    if (p->kind == RNN_LSTM)
        store_state(r, p, d, s->dc, mo_run_grad_in(r, n, IN_C));
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct rnn *p = n->params;
    size_t at = 0;
    struct shared s = shared_at(p, true, mo_run_scratch(r, n), &at);
    for (int i = 0; i < 3 * p->n_dirs; i++) {
        enum mo_cell_act f = p->cell[i / 3].act[i % 3].f;
        if ((f == MO_CELL_LEAKY_RELU || f == MO_CELL_ELU) && p->cell[i / 3].act[i % 3].a < 0)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "an activation with alpha %g has no gradient here, 0 or more would do",
                           (double)p->cell[i / 3].act[i % 3].a);
    }
    const float *x = prepare_x(r, n, &s);
    float *dx = mo_run_grad_in(r, n, IN_X), *to = dx && is_turned(p) ? s.dx : dx;
    for (int d = 0; d < p->n_dirs; d++)
        back_direction(r, n, &s, x, to, d);
    if (to != dx)
        turn_x(r, p, true, to, dx);
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
        .since_opset = 1,                                                                                       \
        .min_in = 3, .max_in = most_in, .min_out = 0, .max_out = most_out,                                      \
        .params_bytes = sizeof(struct rnn),                                                                     \
        .infer = fn, .forward = forward, .backward = backward, .macs = macs,                                    \
        .scratch_bytes = scratch_bytes, .saved_bytes = saved_bytes,                                             \
        .backward_reads = 1u << IN_X | 1u << IN_W | 1u << IN_R | 1u << IN_LENS | 1u << IN_P,                    \
        .params_in = 0x8e,                                                                                      \
    };
RECURRENT(rnn, "RNN", infer_rnn, 6, 2)
RECURRENT(gru, "GRU", infer_gru, 6, 2)
RECURRENT(lstm, "LSTM", infer_lstm, 8, 3)
