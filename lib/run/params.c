/* params.c - which constants are parameters, the flat buffers they live in while
 * training, and the value to train on. */
#include <string.h>

#include "lib/graph/private.h"
#include "lib/run/private.h"

/* Parameters may reach their operator through what only moves or fake-quantizes them. */
static bool passes_through(const struct mo_node *n)
{
    static const char *const types[] = { "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
                                         "QuantizeLinear", "DequantizeLinear" };
    for (size_t i = 0; i < MO_COUNT(types); i++)
        if (mo_node_is(n, types[i]))
            return true;
    return false;
}

static mo_value_id source_of(const struct mo_graph *g, mo_value_id v)
{
    while (v != MO_NONE && !g->values[v].data && g->values[v].producer != MO_NONE) {
        const struct mo_node *n = &g->nodes[g->values[v].producer];
        if (!passes_through(n) || n->n_in == 0)
            return MO_NONE;
        v = n->in[0];
    }
    return v;
}

static bool is_parameter(const struct mo_value *v, const struct mo_op *op)
{
    bool is_float = v->dtype == MO_F32 || v->dtype == MO_F16 || v->dtype == MO_BF16;
    int64_t elems = mo_value_elems(v);
    return v->data && is_float && (elems > 1 || (elems == 1 && op->flags & MO_OP_PARAM_SCALAR));
}

typedef void param_fn(void *arg, mo_value_id v, mo_node_id reader);

/* The value of g that body value v is, when it is captured from there; else MO_NONE. */
static mo_value_id captured_from(const struct mo_graph *g, const struct mo_node *n, const struct mo_value *v)
{
    for (uint32_t k = 0; v->is_captured && k < n->n_captures; k++)
        if (!strcmp(g->values[n->captures[k]].name, v->name))
            return n->captures[k];
    return MO_NONE;
}

/* Parameters of g that a graph inside its node n reads (If, Loop, Scan), at any depth: value `outer` is what value v of
 * the inner graph is in g, followed outwards one graph at a time. */
struct inner { const struct mo_graph *g; const struct mo_node *n; const struct inner *around; };

static mo_value_id outermost(const struct inner *at, const struct mo_graph *body, mo_value_id v)
{
    const struct mo_value *value = &body->values[v];
    for (const struct inner *in = at; in; in = in->around) {
        v = captured_from(in->g, in->n, value);
        if (v == MO_NONE)
            return MO_NONE;
        value = &in->g->values[v];
    }
    return v;
}

static void each_inner(const struct inner *at, const struct mo_graph *g, mo_node_id reader, bool state, param_fn *fn,
                       void *arg)
{
    for (uint32_t a = 0; a < at->n->n_attrs; a++)
        for (size_t s = 0; at->n->attrs[a].graphs && s < at->n->attrs[a].n; s++) {
            const struct mo_graph *body = at->n->attrs[a].graphs[s];
            for (mo_node_id i = 0; i < body->n_nodes; i++) {
                const struct mo_node *n = &body->nodes[i];
                const struct mo_op *op = n->is_dead ? NULL : mo_graph_find_op(body, n);
                struct inner deeper = { body, n, at };
                each_inner(&deeper, g, reader, state, fn, arg);
                unsigned bits = !op ? 0 : state ? op->state_in : op->params_in;
                for (uint32_t k = 0; k < n->n_in && k < 32; k++) {
                    mo_value_id v = bits >> k & 1 && n->in[k] != MO_NONE ? source_of(body, n->in[k]) : MO_NONE;
                    v = v == MO_NONE ? MO_NONE : outermost(at, body, v);
                    v = v == MO_NONE ? MO_NONE : source_of(g, v);
                    if (v != MO_NONE && (state ? g->values[v].data && g->values[v].dtype == MO_F32
                                               : is_parameter(&g->values[v], op)))
                        fn(arg, v, reader);
                }
            }
        }
}

static void each_param(const struct mo_graph *g, bool state, param_fn *fn, void *arg)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->is_dead || !n->op)
            continue;
        unsigned bits = state ? n->op->state_in : n->op->params_in;
        each_inner(&(struct inner){ g, n, NULL }, g, i, state, fn, arg);
        for (uint32_t k = 0; k < n->n_in && k < 32; k++) {
            if (!(bits >> k & 1) || n->in[k] == MO_NONE)
                continue;
            mo_value_id v = source_of(g, n->in[k]);
            if (v != MO_NONE && (state ? g->values[v].data && g->values[v].dtype == MO_F32
                                       : is_parameter(&g->values[v], n->op)))
                fn(arg, v, i);
        }
    }
}

struct collected {
    mo_value_id *out;
    uint32_t n, max;
};

static void collect(void *arg, mo_value_id v, mo_node_id reader)
{
    (void)reader;
    struct collected *c = arg;
    for (uint32_t i = 0; i < MO_MIN(c->n, c->max); i++)
        if (c->out[i] == v)
            return;
    if (c->n < c->max)
        c->out[c->n] = v;
    c->n++;
}

uint32_t mo_graph_params(const struct mo_graph *g, mo_value_id *out, uint32_t max)
{
    struct collected c = { out, 0, max };
    each_param(g, false, collect, &c);
    return c.n;
}

mo_value_id mo_graph_logits(const struct mo_graph *g, const char **activation)
{
    if (activation)
        *activation = NULL;
    if (g->n_outputs == 0)
        return MO_NONE;
    mo_value_id v = g->outputs[0];
    while (g->values[v].producer != MO_NONE) {
        const struct mo_node *n = &g->nodes[g->values[v].producer];
        if (mo_node_is(n, "Softmax") || mo_node_is(n, "LogSoftmax") || mo_node_is(n, "Sigmoid")) {
            if (activation)
                *activation = n->type;
            return n->in[0];
        }
        if (!mo_node_is(n, "Reshape") && !mo_node_is(n, "Identity") && !mo_node_is(n, "Flatten"))
            break;
        v = n->in[0];
    }
    return g->outputs[0];
}

/* ---- taking them out of the graph -------------------------------------------------------- */

struct taker {
    struct mo_run *run;
    uint32_t max;
    bool state;
};

static void take(void *arg, mo_value_id v, mo_node_id reader)
{
    struct taker *t = arg;
    struct mo_run *run = t->run;
    struct mo_run_private *p = run->private_;
    if (p->param_of[v] != MO_NONE)
        return;
    const struct mo_value *value = &p->base.values[v];
    struct mo_param *param = &run->params[run->n_params];
    p->param_of[v] = run->n_params++;
    *param = (struct mo_param){ .name = value->name, .source = v, .value = v, .shape = value->shape,
                                .offset = run->n_weights, .n_elems = (size_t)mo_value_elems(value),
                                .is_state = t->state, .no_decay = value->shape.rank <= 1, .reader = reader };
    run->n_weights += (param->n_elems + 15) / 16 * 16;
}

static void leave_graph(struct mo_graph *g, mo_value_id v)
{
    struct mo_value *value = &g->values[v];
    if (value->data && value->owner == MO_DATA_HEAP)
        mo_mem_free(value->data);
    value->data = NULL;
    value->owner = MO_DATA_BORROWED;
    value->is_initializer = value->is_input = false;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_initializers; i++)
        if (g->initializers[i] != v)
            g->initializers[kept++] = g->initializers[i];
    g->n_initializers = kept;
}

static enum mopt_status allocate(struct mo_run *run)
{
    size_t bytes = run->n_weights * sizeof(float);
    const struct mo_run *owner = run->options.weights_of;
    if (owner && owner->n_weights != run->n_weights)
        return mo_fail(run->ctx, MOPT_FAILED, "runs of different graphs share parameters");
    if (bytes > mo_memory_limit(run->ctx) / 2)
        return mo_fail(run->ctx, MOPT_LIMIT, "weights and their gradients need %zu MiB, the limit is %zu MiB",
                       bytes >> 19, mo_memory_limit(run->ctx) >> 20);
    run->weights = owner ? owner->weights : run->be->alloc(run->dev, bytes + MO_ALIGN_BYTES);
    run->grads = run->be->alloc(run->dev, bytes + MO_ALIGN_BYTES);
    if (!run->weights || !run->grads)
        return mo_device_full(run, 2 * bytes, "weights and their gradients");
    float zero = 0;
    if (!owner)
        run->be->fill(run->dev, sizeof(float), run->n_weights, &zero, run->weights);
    run->be->fill(run->dev, sizeof(float), run->n_weights, &zero, run->grads);
    return MOPT_OK;
}

enum mopt_status mo_params_take(struct mo_run *run)
{
    struct mo_run_private *p = run->private_;
    struct mo_graph *g = &p->base;
    p->param_of = mo_arena_new(&p->arena, (size_t)g->n_values + 1, sizeof *p->param_of);
    run->params = mo_arena_new(&p->arena, (size_t)g->n_values + 1, sizeof *run->params);
    if (!p->param_of || !run->params)
        return mo_no_memory(run->ctx, g->n_values * sizeof *run->params, "the list of parameters");
    memset(p->param_of, 0xff, ((size_t)g->n_values + 1) * sizeof *p->param_of);
    struct taker t = { .run = run };
    each_param(g, false, take, &t);
    run->n_trained = run->n_weights;
    t.state = true;
    each_param(g, true, take, &t);
    MO_TRY(allocate(run));
    for (uint32_t i = 0; i < run->n_params; i++) {
        const struct mo_param *param = &run->params[i];
        run->be->upload(run->dev, run->weights + param->offset, g->values[param->value].data,
                        param->n_elems * sizeof(float));
        leave_graph(g, param->value);
    }
    return MOPT_OK;
}

/* Back to the half precision that the user's file keeps. */
static void *narrowed(const float *x, size_t n, enum mo_dtype dtype)
{
    uint16_t *half = mo_mem_new(MO_MAX(n, (size_t)1), sizeof *half);
    for (size_t i = 0; half && i < n; i++)
        half[i] = dtype == MO_F16 ? mo_f32_to_f16(x[i]) : mo_f32_to_bf16(x[i]);
    return half;
}

enum mopt_status mo_run_store(struct mo_run *run, struct mo_graph *g)
{
    for (uint32_t i = 0; i < run->n_params; i++) {
        const struct mo_param *param = &run->params[i];
        enum mo_dtype dtype = g->values[param->source].dtype;
        size_t bytes = param->n_elems * sizeof(float);
        void *data = mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
        if (!data)
            return mo_no_memory(run->ctx, bytes, "a parameter");
        run->be->download(run->dev, data, run->weights + param->offset, bytes);
        if (dtype == MO_F16 || dtype == MO_BF16) {
            void *half = narrowed(data, param->n_elems, dtype);
            mo_mem_free(data);
            if (!half)
                return mo_no_memory(run->ctx, bytes / 2, "a parameter");
            data = half;
        }
        mo_value_set_data(g, param->source, dtype, &param->shape, data);
    }
    return MOPT_OK;
}
