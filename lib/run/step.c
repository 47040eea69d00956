/* step.c - walking a plan forward and backward. Nothing is allocated here. */
#include <string.h>

#include "lib/run/fused.h"
#include "lib/run/private.h"

static bool is_view(const struct mo_node *n)
{
    return n->op->flags & MO_OP_VIEW;
}

static enum mopt_status blame(struct mo_run *run, const struct mo_node *n, enum mopt_status status)
{
    char label[192];
    mo_blame(run->ctx, "%s", mo_node_label(run->graph, n, label, sizeof label));
    return status;
}

/* On the CPU an error is known at once, and so which node made it. */
static enum mopt_status latched(struct mo_run *run)
{
    char why[192];
    return run->be->sync(run->dev, why, sizeof why) ? mo_fail(run->ctx, MOPT_DATA, "%s", why) : MOPT_OK;
}

/* ---- a sparse first input ------------------------------------------------------------------ */

static bool is_product(const struct mo_run *run, const struct mo_node *n)
{
    const struct mo_graph *g = run->graph;
    const struct mo_value *b = mo_in(g, n, 1), *y = mo_out(g, n, 0);
    if (!b || b->shape.rank != 2 || y->shape.rank != 2 || y->dtype != MO_F32)
        return false;
    if (mo_node_is(n, "MatMul"))
        return true;
    return mo_node_is(n, "Gemm") && !mo_node_int(n, "transA", 0) && mo_node_float(n, "alpha", 1) == 1 &&
           mo_node_float(n, "beta", 1) == 1;
}

/* The one product that reads the input, views between them looked through. */
static mo_node_id find_csr_node(const struct mo_run *run, mo_value_id v)
{
    for (;;) {
        mo_node_id users[2];
        if (mo_value_users(run->graph, v, users, 2) != 1 || run->graph->values[v].is_output)
            return MO_NONE;
        const struct mo_node *n = &run->graph->nodes[users[0]];
        if (is_view(n) && n->in[0] == v) {
            v = n->out[0];
            continue;
        }
        return n->in[0] == v && is_product(run, n) ? users[0] : MO_NONE;
    }
}

enum mopt_status mo_run_set_input_csr(struct mo_run *run, uint32_t i, const int64_t *row_start, const int32_t *column,
                                      const float *value)
{
    struct mo_run_private *p = run->private_;
    if (!run->plan || i >= p->n_inputs || run->plan->is_dynamic)
        return mo_fail(run->ctx, MOPT_FAILED, "input %u is set before its shape", i);
    mo_node_id node = find_csr_node(run, p->inputs[i]);
    if (node == MO_NONE)
        return mo_fail(run->ctx, MOPT_UNSUPPORTED, "input '%s' is sparse, but not read by a matrix product alone",
                       mo_run_input(run, i)->name);
    const struct mo_node *n = &run->graph->nodes[node];
    const struct mo_value *bias = mo_in(run->graph, n, 2);
    if (bias && mo_value_elems(bias) != mo_out(run->graph, n, 0)->shape.dim[1])
        return mo_fail(run->ctx, MOPT_UNSUPPORTED, "a sparse input needs a bias of one row");
    run->plan->csr_node = node;
    p->csr = (struct mo_csr){ row_start, column, value };
    p->has_csr = true;
    p->is_input_set[i] = true;
    return MOPT_OK;
}

static void csr_forward(struct mo_run *run, const struct mo_node *n)
{
    const struct mo_csr *x = &run->private_->csr;
    const struct mo_shape *b = &mo_in(run->graph, n, 1)->shape, *y = &mo_out(run->graph, n, 0)->shape;
    bool tb = mo_node_int(n, "transB", 0);
    struct mo_fused f = mo_fused_read(n);
    run->be->gemm_csr(run->dev, y->dim[0], y->dim[1], b->dim[tb ? 1 : 0], x->row_start, x->column, x->value, tb,
                      mo_run_in(run, n, 1), mo_run_in(run, n, 2), mo_run_out(run, n, 0));
    mo_fused_apply(run, &f, MO_F32, (size_t)(y->dim[0] * y->dim[1]), mo_run_out(run, n, 0));
}

static void csr_backward(struct mo_run *run, const struct mo_node *n)
{
    const struct mo_csr *x = &run->private_->csr;
    const struct mo_shape *b = &mo_in(run->graph, n, 1)->shape, *y = &mo_out(run->graph, n, 0)->shape;
    bool tb = mo_node_int(n, "transB", 0), is_reduced[2] = { true, false };
    float *db = mo_run_grad_in(run, n, 1), *dbias = mo_run_grad_in(run, n, 2);
    float *dy = mo_run_grad_out(run, n, 0);
    struct mo_fused f = mo_fused_read(n);
    mo_fused_grad(run, &f, MO_F32, (size_t)(y->dim[0] * y->dim[1]), mo_run_out(run, n, 0), dy);
    if (db)
        run->be->gemm_csr_grad(run->dev, y->dim[0], y->dim[1], b->dim[tb ? 1 : 0], x->row_start, x->column, x->value,
                               tb, dy, db);
    if (dbias)
        run->be->reduce(run->dev, MO_REDUCE_SUM, MO_F32, 2, y->dim, is_reduced, dy, dbias);
}

/* ---- forward ------------------------------------------------------------------------------------ */

enum mopt_status mo_step_forward(struct mo_run *run, mo_node_id i)
{
    const struct mo_node *n = &run->graph->nodes[i];
    struct mo_run_private *p = run->private_;
    enum mopt_status status = MOPT_OK;
    uint64_t begin = p->is_profiling ? mo_now_ns() : 0;
    if (i == run->plan->csr_node)
        csr_forward(run, n);
    else if (!is_view(n))
        status = n->op->forward(run, n);
    if (!status && run->be->is_host)
        status = latched(run);
    if (p->is_profiling)
        run->plan->nodes[i].forward_ns += mo_now_ns() - begin;
    if (status)
        return blame(run, n, status);
    if (p->after_forward)
        p->after_forward(p->hook_user, run, n);
    return MOPT_OK;
}

enum mopt_status mo_step_begin(struct mo_run *run)
{
    struct mo_run_private *p = run->private_;
    if (!run->plan)
        return mo_fail(run->ctx, MOPT_FAILED, "a forward needs the shapes of inputs first");
    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (!p->is_input_set[i] && run->graph->values[p->inputs[i]].n_uses)
            return mo_fail(run->ctx, MOPT_DATA, "input '%s' is not given", mo_run_input(run, i)->name);
    run->plan->in_backward = false;
    mo_run_choose_half(run);
    if (run->is_training)
        run->step++;
    p->has_forward = true;
    return MOPT_OK;
}

/* ---- recording -------------------------------------------------------------------------------- */

enum { WARM_UP = 2 };

static void drop(struct mo_run *run, struct mo_replay *r)
{
    if (r->what)
        run->be->recording_free(run->dev, r->what);
    r->what = NULL;
    r->n_done = 0;
}

void mo_replays_drop(struct mo_run *run, struct mo_plan *plan)
{
    drop(run, &plan->forward[0]);
    drop(run, &plan->forward[1]);
    drop(run, &plan->backward);
}

/* A recording keeps the numbers that it was made with: a caller that sets bn_momentum may set another one each time. */
static bool is_recordable(const struct mo_run *run, const struct mo_replay *r)
{
    const struct mo_run_private *p = run->private_;
    return run->be->record && !r->is_never && !p->is_profiling && !p->after_forward && !p->after_backward && !p->has_csr &&
           !run->sync && !run->options.reference && run->options.bn_momentum == 0;
}

/* The walk, or what was recorded of it. It is recorded after it was done twice as usual, the second time without an
 * exchange with the host (the first one prepares libraries), and done at once. */
static enum mopt_status walk(struct mo_run *run, struct mo_replay *r, enum mopt_status (*nodes)(struct mo_run *))
{
    bool records = is_recordable(run, r);
    if (!records)
        return nodes(run);
    if (r->what) {
        run->be->replay(run->dev, r->what);
        return MOPT_OK;
    }
    uint64_t before = run->be->n_exchanges(run->dev);
    if (r->n_done < WARM_UP) {
        MO_TRY(nodes(run));
        r->is_never = ++r->n_done == WARM_UP && run->be->n_exchanges(run->dev) != before;
        return MOPT_OK;
    }
    r->is_never = true;         /* until it is there: it is tried once */
    if (!run->be->record(run->dev))
        return nodes(run);
    enum mopt_status status = nodes(run);
    r->what = run->be->recorded(run->dev);
    MO_TRY(status);
    if (!r->what) {
        mo_log(run->ctx, "run", "the device could not record its work, and is told of it step by step");
        return nodes(run);
    }
    r->is_never = false;
    run->be->replay(run->dev, r->what);
    return MOPT_OK;
}

static enum mopt_status forward_nodes(struct mo_run *run)
{
    for (mo_node_id i = 0; i < run->graph->n_nodes; i++)
        MO_TRY(mo_step_forward(run, i));
    return MOPT_OK;
}

enum mopt_status mo_run_forward(struct mo_run *run)
{
    MO_TRY(mo_step_begin(run));
    if (run->plan->is_dynamic)
        return mo_dynamic_forward(run, run->plan);
    MO_TRY(walk(run, &run->plan->forward[run->is_training], forward_nodes));
    return run->be->is_host ? MOPT_OK : latched(run);
}

/* ---- backward ----------------------------------------------------------------------------------- */

static size_t grad_elems(const struct mo_run *run, mo_value_id v)
{
    return (size_t)mo_value_elems(&run->graph->values[v]);
}

/* What input k got beside, to its gradient. */
static void add_gradient(struct mo_run *run, const struct mo_node *n, uint32_t k, const void *more)
{
    if (mo_run_in_half(run, n, k))
        run->be->axpy_bf16(run->dev, grad_elems(run, n->in[k]), 1, more, (uint16_t *)run->tensors[n->in[k]].grad, true);
    else
        run->be->axpy(run->dev, grad_elems(run, n->in[k]), 1, more, run->tensors[n->in[k]].grad, true);
}

enum mopt_status mo_step_backward(struct mo_run *run, mo_node_id i)
{
    const struct mo_node *n = &run->graph->nodes[i];
    struct mo_node_plan *np = &run->plan->nodes[i];
    struct mo_run_private *p = run->private_;
    enum mopt_status status = MOPT_OK;
    uint64_t begin = p->is_profiling ? mo_now_ns() : 0;
    if (i == run->plan->csr_node)
        csr_backward(run, n);
    else
        status = n->op->backward(run, n);
    for (uint32_t k = 0; !status && k < n->n_in; k++)
        if (np->grad_in[k].is_spare)
            add_gradient(run, n, k, run->plan->block + np->grad_in[k].offset);
    if (!status && run->be->is_host)
        status = latched(run);
    if (p->is_profiling)
        np->backward_ns += mo_now_ns() - begin;
    if (status)
        return blame(run, n, status);
    if (p->after_backward)
        p->after_backward(p->hook_user, run, n);
    return MOPT_OK;
}

/* Parameters that no output depends on get a gradient of zero. */
static void zero_unreached(struct mo_run *run, float *grads)
{
    float zero = 0;
    for (uint32_t i = 0; i < run->n_params; i++) {
        const struct mo_param *param = &run->params[i];
        if (!param->is_state && run->plan->values[param->value].grad_where != MO_AT_GRADS)
            run->be->fill(run->dev, sizeof zero, param->n_elems, &zero, grads + param->offset);
    }
}

enum mopt_status mo_step_begin_backward(struct mo_run *run)
{
    if (!run->plan || !run->options.train || !run->private_->has_forward)
        return mo_fail(run->ctx, MOPT_FAILED, "a backward needs a forward of a training run first");
    zero_unreached(run, run->grads);
    mo_run_choose_half(run);
    run->plan->in_backward = true;
    return MOPT_OK;
}

static enum mopt_status backward_nodes(struct mo_run *run)
{
    for (mo_node_id i = run->graph->n_nodes; i-- > 0;)
        if (run->plan->nodes[i].is_backward)
            MO_TRY(mo_step_backward(run, i));
    return MOPT_OK;
}

static enum mopt_status backward_into(struct mo_run *run)
{
    MO_TRY(mo_step_begin_backward(run));
    MO_TRY(walk(run, &run->plan->backward, backward_nodes));
    return run->be->is_host ? MOPT_OK : latched(run);
}

enum mopt_status mo_step_aside(struct mo_run *run)
{
    struct mo_run_private *p = run->private_;
    if (!run->plan)
        return mo_fail(run->ctx, MOPT_FAILED, "a backward needs a forward of a training run first");
    if (!p->accumulate) {
        p->accumulate = run->be->alloc(run->dev, run->n_weights * sizeof(float) + MO_ALIGN_BYTES);
        if (!p->accumulate)
            return mo_device_full(run, run->n_weights * sizeof(float), "accumulated gradients");
        float zero = 0;
        run->be->fill(run->dev, sizeof zero, run->n_weights, &zero, p->accumulate);
    }
    p->total = run->grads;
    run->grads = p->accumulate;
    mo_plan_bind(run, run->plan);
    return MOPT_OK;
}

void mo_step_add(struct mo_run *run, bool is_whole)
{
    struct mo_run_private *p = run->private_;
    run->grads = p->total;
    mo_plan_bind(run, run->plan);
    if (is_whole)
        run->be->axpy(run->dev, run->n_trained, 1, p->accumulate, run->grads, true);
}

enum mopt_status mo_run_backward(struct mo_run *run, bool add)
{
    if (!add)
        return backward_into(run);
    MO_TRY(mo_step_aside(run));
    enum mopt_status status = backward_into(run);
    mo_step_add(run, !status);
    return status;
}

void mo_run_on_node(struct mo_run *run, mo_run_hook *after_forward, mo_run_hook *after_backward, void *user)
{
    run->private_->after_forward = after_forward;
    run->private_->after_backward = after_backward;
    run->private_->hook_user = user;
}

/* ---- profiling ---------------------------------------------------------------------------------------- */

void mo_run_profile(struct mo_run *run, bool on)
{
    run->private_->is_profiling = on;
    for (mo_node_id i = 0; run->plan && i < run->graph->n_nodes; i++)
        run->plan->nodes[i].forward_ns = run->plan->nodes[i].backward_ns = 0;
}

void mo_run_node_ns(const struct mo_run *run, mo_node_id n, uint64_t *forward_ns, uint64_t *backward_ns)
{
    *forward_ns = run->plan->nodes[n].forward_ns;
    *backward_ns = run->plan->nodes[n].backward_ns;
}
