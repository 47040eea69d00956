/* plan.c - one set of input shapes: the graph for it, prepared kernels, and the
 * place of every activation, gradient, saved and scratch buffer in one block.
 *
 * Steps: node i runs forward in step i and backward in step 2n - 1 - i. A buffer
 * lives from its first writer to its last reader; op->backward_reads says which
 * activations a backward still needs. */
#include <string.h>

#include "lib/run/fused.h"
#include "lib/run/private.h"

static bool is_view(const struct mo_node *n)
{
    return n->op->flags & MO_OP_VIEW;
}

/* ---- who shares memory with whom ---------------------------------------------------------- */

static void find_stores(struct mo_run *run, struct mo_plan *plan)
{
    struct mo_graph *g = &plan->graph;
    struct mo_run_private *p = run->private_;
    for (mo_value_id v = 0; v < g->n_values; v++) {
        struct mo_value_plan *vp = &plan->values[v];
        vp->root = vp->grad_root = v;
        vp->store = g->values[v].data ? MO_STORE_CONST : g->values[v].producer != MO_NONE ? MO_STORE_BLOCK : MO_STORE_NONE;
    }
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        plan->values[p->inputs[i]].store = MO_STORE_INPUT;
        plan->values[p->inputs[i]].offset = i;
    }
    for (uint32_t i = 0; i < run->n_params; i++) {
        plan->values[run->params[i].value].store = MO_STORE_WEIGHTS;
        plan->values[run->params[i].value].offset = run->params[i].offset;
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (!is_view(n))
            continue;
        plan->values[n->out[0]].root = plan->values[n->in[0]].root;
        plan->values[n->out[0]].grad_root = plan->values[n->in[0]].grad_root;
    }
}

/* ---- lifetimes --------------------------------------------------------------------------------- */

struct life { uint32_t first, last; bool is_used; };

static void extend(struct life *life, uint32_t step)
{
    life->first = life->is_used ? MO_MIN(life->first, step) : step;
    life->last = life->is_used ? MO_MAX(life->last, step) : step;
    life->is_used = true;
}

static void read_in_backward(const struct mo_plan *plan, mo_node_id i, struct life *lives)
{
    const struct mo_node *n = &plan->graph.nodes[i];
    uint32_t step = 2 * plan->graph.n_nodes - 1 - i;
    if (!plan->nodes[i].is_backward)
        return;
    unsigned reads = mo_backward_reads(n);
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE && reads >> MO_MIN(k, 15u) & 1)
            extend(&lives[plan->values[n->in[k]].root], step);
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && reads >> (16 + MO_MIN(k, 15u)) & 1)
            extend(&lives[plan->values[n->out[k]].root], step);
}

/* Lives of data by root. */
static void find_lives(const struct mo_run *run, const struct mo_plan *plan, struct life *lives)
{
    const struct mo_graph *g = &plan->graph;
    uint32_t n = g->n_nodes, end = run->options.train ? 2 * n : n;
    for (mo_node_id i = 0; i < n; i++) {
        const struct mo_node *node = &g->nodes[i];
        for (uint32_t k = 0; k < node->n_out; k++)
            if (node->out[k] != MO_NONE)
                extend(&lives[plan->values[node->out[k]].root], i);
        for (uint32_t k = 0; k < node->n_in; k++)
            if (node->in[k] != MO_NONE)
                extend(&lives[plan->values[node->in[k]].root], i);
        read_in_backward(plan, i, lives);
    }
    for (uint32_t i = 0; i < g->n_outputs; i++)
        extend(&lives[plan->values[g->outputs[i]].root], end);
    for (mo_value_id v = 0; run->options.keep_names && v < g->n_values; v++)
        if (g->values[v].producer != MO_NONE)
            extend(&lives[plan->values[v].root], end);
}

/* Output 0 may lie on input 0 when that is read here for the last time and nowhere else afterwards. */
static void share_in_place(struct mo_plan *plan, struct life *lives)
{
    struct mo_graph *g = &plan->graph;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (!(n->op->flags & MO_OP_IN_PLACE) || is_view(n) || n->in[0] == MO_NONE || n->out[0] == MO_NONE)
            continue;
        mo_value_id from = plan->values[n->in[0]].root, to = plan->values[n->out[0]].root;
        bool is_twice = false;
        for (uint32_t k = 1; k < n->n_in; k++)
            is_twice |= n->in[k] != MO_NONE && plan->values[n->in[k]].root == from;
        if (plan->values[from].store != MO_STORE_BLOCK || lives[from].last != i || is_twice || from == to ||
            mo_value_bytes(&g->values[n->in[0]]) != mo_value_bytes(&g->values[n->out[0]]) ||
            mo_value_bytes(&g->values[from]) != mo_value_bytes(&g->values[n->out[0]]))
            continue;
        extend(&lives[from], lives[to].last);
        for (mo_value_id v = 0; v < g->n_values; v++)
            if (plan->values[v].root == to)
                plan->values[v].root = from;
    }
}

/* ---- collecting spans, placing, noting where --------------------------------------------------------- */

struct spans {
    struct mo_span *items;
    size_t **where;             /* gets items[i].offset */
    uint32_t n, cap;
    bool failed, is_too_large;
};

static void add_span(struct spans *s, size_t bytes, uint32_t first, uint32_t last, size_t *where)
{
    if (bytes == 0)
        return;
    s->is_too_large |= bytes > SIZE_MAX / 4;
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 64;
        void *items = mo_mem_grow(s->items, s->cap * sizeof *s->items, cap * sizeof *s->items);
        s->items = items ? items : s->items;
        void *places = items ? mo_mem_grow(s->where, s->cap * sizeof *s->where, cap * sizeof *s->where) : NULL;
        s->where = places ? places : s->where;
        if (!items || !places) {
            s->failed = true;
            return;
        }
        s->cap = cap;
    }
    s->items[s->n] = (struct mo_span){ .bytes = bytes, .first_step = first, .last_step = last };
    s->where[s->n++] = where;
}

static size_t data_bytes(const struct mo_value *v)
{
    size_t bytes = mo_value_bytes(v);
    return bytes == 0 ? 1 : bytes;      /* an empty tensor still has an address */
}

static size_t grad_bytes(const struct mo_value *v)
{
    int64_t n = mo_value_elems(v);
    size_t each = mo_dtype_is_half(v->dtype) ? sizeof(uint16_t) : sizeof(float);
    return n < 0 || (uint64_t)n > SIZE_MAX / 8 ? SIZE_MAX : (size_t)MO_MAX(n, 1) * each;
}

static void add_node_spans(struct mo_run *run, struct mo_plan *plan, mo_node_id i, struct spans *s)
{
    struct mo_graph *g = &plan->graph;
    const struct mo_node *n = &g->nodes[i];
    struct mo_node_plan *np = &plan->nodes[i];
    uint32_t back = 2 * g->n_nodes - 1 - i;
    if (is_view(n))
        return;
    np->scratch_bytes = n->op->scratch_bytes ? n->op->scratch_bytes(run, n, false) : 0;
    add_span(s, np->scratch_bytes, i, i, &np->scratch_at);
    np->saved_bytes = n->op->saved_bytes && run->options.train ? n->op->saved_bytes(run, n) : 0;
    add_span(s, np->saved_bytes, i, np->is_backward ? back : i, &np->saved_at);
    if (!np->is_backward)
        return;
    np->backward_scratch_bytes = n->op->scratch_bytes ? n->op->scratch_bytes(run, n, true) : 0;
    add_span(s, np->backward_scratch_bytes, back, back, &np->backward_scratch_at);
    for (uint32_t k = 0; k < n->n_in; k++)
        if (np->grad_in[k].is_spare)
            add_span(s, grad_bytes(&g->values[n->in[k]]), back, back, &np->grad_in[k].offset);
}

/* A gradient lives until the node that made the value has run backward. */
static uint32_t grad_last(const struct mo_plan *plan, mo_value_id v)
{
    mo_node_id producer = plan->graph.values[v].producer;
    return 2 * plan->graph.n_nodes - 1 - (producer == MO_NONE ? 0 : producer);
}

static void add_value_spans(struct mo_plan *plan, const struct life *lives, struct spans *s)
{
    struct mo_graph *g = &plan->graph;
    for (mo_value_id v = 0; v < g->n_values; v++) {
        struct mo_value_plan *vp = &plan->values[v];
        if (vp->root == v && vp->store == MO_STORE_BLOCK && lives[v].is_used)
            add_span(s, data_bytes(&g->values[v]), lives[v].first, lives[v].last, &vp->offset);
        if (vp->grad_root == v && vp->grad_where == MO_AT_BLOCK)
            add_span(s, grad_bytes(&g->values[v]), vp->grad_first, MO_MAX(grad_last(plan, v), vp->grad_first),
                     &vp->grad_offset);
    }
}

static enum mopt_status place(struct mo_run *run, struct mo_plan *plan, struct spans *s)
{
    struct mopt_ctx *ctx = run->ctx;
    if (s->failed)
        return mo_no_memory(ctx, s->n * sizeof *s->items, "planning memory");
    size_t total = s->is_too_large ? SIZE_MAX : mo_place(s->items, s->n);
    size_t weights = mo_run_weight_bytes(run);
    size_t limit = mo_memory_limit(ctx);
    if (total > limit || weights > limit - total || s->is_too_large) {
        if (s->is_too_large || total == SIZE_MAX)
            return mo_fail(ctx, MOPT_LIMIT, "a tensor is larger than any memory");
        return mo_fail(ctx, MOPT_LIMIT, "running it needs %zu MiB for activations and %zu MiB for weights; "
                       "the limit is %zu MiB", total >> 20, weights >> 20, limit >> 20);
    }
    for (uint32_t i = 0; i < s->n; i++)
        *s->where[i] = s->items[i].offset;
    plan->block_bytes = total;
    return MOPT_OK;
}

static enum mopt_status plan_memory(struct mo_run *run, struct mo_plan *plan)
{
    struct mo_graph *g = &plan->graph;
    struct life *lives = mo_mem_new((size_t)g->n_values + 1, sizeof *lives);
    struct spans s = { 0 };
    if (!lives)
        return mo_no_memory(run->ctx, g->n_values * sizeof *lives, "planning memory");
    find_lives(run, plan, lives);
    if (!run->options.keep_names)
        share_in_place(plan, lives);
    add_value_spans(plan, lives, &s);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        add_node_spans(run, plan, i, &s);
    enum mopt_status status = place(run, plan, &s);
    mo_mem_free(s.items);
    mo_mem_free(s.where);
    mo_mem_free(lives);
    return status;
}

/* ---- constants, preparing ---------------------------------------------------------------------------- */

static bool is_aligned(const struct mo_value *v)
{
    int bits = mo_dtype_bits(v->dtype);
    size_t unit = bits >= 64 ? 8 : bits >= 32 ? 4 : bits >= 16 ? 2 : 1;
    return (uintptr_t)v->data % unit == 0;
}

/* A constant of strings lies there as numbers of texts. */
static enum mopt_status set_texts(struct mo_run *run, struct mo_plan *plan, mo_value_id id)
{
    const struct mo_value *v = &plan->graph.values[id];
    size_t n = (size_t)mo_value_elems(v), bytes = n * sizeof(int64_t);
    int64_t *numbers = mo_mem_new(n + 1, sizeof *numbers);
    void *mem = numbers ? run->be->alloc(run->dev, bytes + 1) : NULL;
    enum mopt_status status = mem ? mo_texts_numbers(run->ctx, run->options.texts, v->strings, n, numbers)
                                  : mo_no_memory(run->ctx, bytes, "texts");
    if (!status && bytes)
        run->be->upload(run->dev, mem, numbers, bytes);
    mo_mem_free(numbers);
    plan->values[id].const_mem = mem;
    plan->tensors[id].data = mem;
    return status;
}

void *mo_plan_const(struct mo_run *run, struct mo_plan *plan, mo_value_id id)
{
    const struct mo_value *v = &plan->graph.values[id];
    struct mo_value_plan *vp = &plan->values[id];
    if (run->be->is_host && is_aligned(v))
        return v->data;
    size_t bytes = mo_value_bytes(v);
    if (!vp->const_mem) {
        vp->const_mem = run->be->alloc(run->dev, MO_MAX(bytes, (size_t)1));
        if (vp->const_mem)
            run->be->upload(run->dev, vp->const_mem, v->data, bytes);
        plan->const_bytes += bytes;
    }
    return vp->const_mem;
}

static enum mopt_status set_constants(struct mo_run *run, struct mo_plan *plan)
{
    for (mo_value_id v = 0; v < plan->graph.n_values; v++) {
        const struct mo_value *value = &plan->graph.values[v];
        if (plan->values[v].store == MO_STORE_CONST && value->n_uses && value->strings) {
            MO_TRY(set_texts(run, plan, v));
        } else if (plan->values[v].store == MO_STORE_CONST && value->n_uses) {
            plan->tensors[v].data = mo_plan_const(run, plan, v);
            if (!plan->tensors[v].data)
                return mo_device_full(run, mo_value_bytes(value), "constants");
        } else if (plan->values[v].store == MO_STORE_WEIGHTS) {
            plan->tensors[v].data = run->weights + plan->values[v].offset;
        }
    }
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *run, struct mo_plan *plan)
{
    for (mo_node_id i = 0; i < plan->graph.n_nodes; i++) {
        const struct mo_node *n = &plan->graph.nodes[i];
        if (!n->op->prepare)
            continue;
        plan->nodes[i].is_prepared = true;
        enum mopt_status status = n->op->prepare(run, n);
        if (status) {
            char label[192];
            mo_blame(run->ctx, "%s", mo_node_label(&plan->graph, n, label, sizeof label));
            return status;
        }
    }
    return MOPT_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static bool waits_for_data(const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op->flags & MO_OP_SHAPES_BY_RUN)
            return true;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].op->values_in >> k & 1 && g->nodes[i].in[k] != MO_NONE &&
                !g->values[g->nodes[i].in[k]].data)
                return true;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] != MO_NONE && !mo_shape_known(&g->values[g->nodes[i].out[k]].shape))
                return true;
    return false;
}

static enum mopt_status make(struct mo_run *run, struct mo_plan *plan, const struct mo_shape *shapes)
{
    struct mopt_ctx *ctx = run->ctx;
    MO_TRY(mo_lower_shapes(run, plan, shapes));
    struct mo_graph *g = &plan->graph;
    plan->tensors = mo_arena_new(&plan->arena, (size_t)g->n_values + 1, sizeof *plan->tensors);
    plan->values = mo_arena_new(&plan->arena, (size_t)g->n_values + 1, sizeof *plan->values);
    plan->nodes = mo_arena_new(&plan->arena, (size_t)g->n_nodes + 1, sizeof *plan->nodes);
    if (!plan->tensors || !plan->values || !plan->nodes)
        return mo_no_memory(ctx, g->n_values * sizeof *plan->values, "planning memory");
    run->graph = g;
    run->plan = plan;
    run->tensors = plan->tensors;
    find_stores(run, plan);
    MO_TRY(set_constants(run, plan));
    plan->is_dynamic = waits_for_data(g);
    if (plan->is_dynamic)
        return run->options.train ? mo_fail(ctx, MOPT_UNSUPPORTED, "shapes that depend on data cannot be trained through")
                                  : MOPT_OK;
    if (run->options.train)
        MO_TRY(mo_plan_gradients(run, plan));
    MO_TRY(prepare(run, plan));
    return plan_memory(run, plan);
}

enum mopt_status mo_plan_new(struct mo_run *run, const struct mo_shape *shapes, struct mo_plan **out)
{
    struct mo_run_private *p = run->private_;
    struct mo_plan *plan = mo_mem_new(1, sizeof *plan);
    *out = NULL;
    if (!plan)
        return mo_no_memory(run->ctx, sizeof *plan, "a plan");
    plan->csr_node = MO_NONE;
    plan->shapes = mo_arena_new(&plan->arena, p->n_inputs + 1, sizeof *plan->shapes);
    enum mopt_status status = plan->shapes ? MOPT_OK : mo_no_memory(run->ctx, sizeof *shapes, "a plan");
    for (uint32_t i = 0; !status && i < p->n_inputs; i++)
        plan->shapes[i] = shapes[i];
    if (!status)
        status = make(run, plan, shapes);
    if (status) {
        mo_plan_free(run, plan);
        return status;
    }
    *out = plan;
    return MOPT_OK;
}

void mo_plan_free(struct mo_run *run, struct mo_plan *plan)
{
    if (!plan)
        return;
    run->graph = &plan->graph;
    run->plan = plan;
    run->tensors = plan->tensors;
    mo_replays_drop(run, plan);
    for (mo_node_id i = 0; plan->nodes && i < plan->graph.n_nodes; i++)
        if (plan->nodes[i].is_prepared && plan->graph.nodes[i].op->unprepare)
            plan->graph.nodes[i].op->unprepare(run, &plan->graph.nodes[i]);
    for (mo_value_id v = 0; plan->values && v < plan->graph.n_values; v++)
        if (plan->values[v].const_mem)
            run->be->free(run->dev, plan->values[v].const_mem);
    mo_graph_release(&plan->graph);
    mo_arena_release(&plan->arena);
    mo_mem_free(plan);
    run->graph = NULL;
    run->plan = NULL;
    run->tensors = NULL;
}

void mo_plan_bind_input(struct mo_run *run, struct mo_plan *plan, uint32_t i)
{
    for (mo_value_id v = 0; v < plan->graph.n_values; v++) {
        const struct mo_value_plan *root = &plan->values[plan->values[v].root];
        if (root->store != MO_STORE_INPUT || root->offset != i)
            continue;
        if (plan->tensors[v].data != run->private_->input_mem[i])
            mo_replays_drop(run, plan);
        plan->tensors[v].data = run->private_->input_mem[i];
    }
}

void mo_plan_bind(struct mo_run *run, struct mo_plan *plan)
{
    if (plan->block != run->private_->block || plan->grads != run->grads)
        mo_replays_drop(run, plan);
    plan->block = run->private_->block;
    plan->grads = run->grads;
    for (mo_value_id v = 0; v < plan->graph.n_values; v++) {
        const struct mo_value_plan *root = &plan->values[plan->values[v].root];
        const struct mo_value_plan *grad = &plan->values[plan->values[v].grad_root];
        struct mo_tensor *t = &plan->tensors[v];
        if (root->store == MO_STORE_BLOCK)
            t->data = plan->block + root->offset;
        else if (root->store == MO_STORE_WEIGHTS)
            t->data = run->weights + root->offset;
        else if (root->store == MO_STORE_CONST)
            t->data = plan->tensors[plan->values[v].root].data;
        t->grad = grad->grad_where == MO_AT_BLOCK   ? (float *)(plan->block + grad->grad_offset)
                  : grad->grad_where == MO_AT_GRADS ? run->grads + grad->grad_offset
                                                    : NULL;
    }
    for (uint32_t i = 0; i < run->private_->n_inputs; i++)
        mo_plan_bind_input(run, plan, i);
}
