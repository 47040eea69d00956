/* gradients.c - decides before anything runs which values have a gradient and
 * where every node writes those of its inputs.
 *
 * A value needs a gradient when a trained parameter lies before it, and has one
 * when besides an output lies behind it. The first writer of a gradient (in
 * backward order) overwrites; later ones write beside and the engine adds, or
 * add themselves where the operator can. Views share the gradient of what they
 * look at. */
#include <stdio.h>
#include <string.h>

#include "lib/run/private.h"

static bool is_view(const struct mo_node *n)
{
    return n->op->flags & MO_OP_VIEW;
}

/* Fake quantization passes gradients through its integers, straight. */
static bool carries_gradient(const struct mo_node *n, const struct mo_value *y)
{
    return y->dtype == MO_F32 || mo_dtype_is_half(y->dtype) || mo_node_is(n, "QuantizeLinear");
}

static void find_needs(struct mo_run *run, struct mo_plan *plan)
{
    const struct mo_graph *g = &plan->graph;
    for (uint32_t i = 0; i < run->n_params; i++)
        plan->values[run->params[i].value].needs_grad = !run->params[i].is_state;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        bool needs = false;
        for (uint32_t k = 0; k < n->n_in; k++)
            needs |= n->in[k] != MO_NONE && plan->values[n->in[k]].needs_grad;
        for (uint32_t k = 0; needs && k < n->n_out; k++)
            if (n->out[k] != MO_NONE && carries_gradient(n, &g->values[n->out[k]]))
                plan->values[n->out[k]].needs_grad = true;
    }
}

static bool arrives(const struct mo_plan *plan, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && plan->values[plan->values[n->out[k]].grad_root].has_grad)
            return true;
    return false;
}

static void find_reached(struct mo_plan *plan)
{
    const struct mo_graph *g = &plan->graph;
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->values[g->outputs[i]].dtype == MO_F32)
            plan->values[plan->values[g->outputs[i]].grad_root].has_grad = true;
    for (mo_node_id i = g->n_nodes; i-- > 0;) {
        const struct mo_node *n = &g->nodes[i];
        if (is_view(n) || !arrives(plan, n))
            continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MO_NONE && plan->values[n->in[k]].needs_grad) {
                plan->values[plan->values[n->in[k]].grad_root].has_grad = true;
                plan->nodes[i].is_backward = true;
            }
    }
}

static enum mopt_status refuse_no_backward(struct mo_run *run, const struct mo_plan *plan)
{
    const struct mo_graph *g = &plan->graph;
    char list[640] = "", label[192];
    size_t used = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        if (!plan->nodes[i].is_backward || g->nodes[i].op->backward)
            continue;
        int wrote = snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                             mo_node_label(g, &g->nodes[i], label, sizeof label));
        if (wrote > 0 && used + (size_t)wrote < sizeof list)
            used += (size_t)wrote;
    }
    return used ? mo_fail(run->ctx, MOPT_UNSUPPORTED, "no gradient is known for %s", list) : MOPT_OK;
}

/* Twice in one node: the second is always written beside, since the operator would overwrite or read it. */
static bool read_before(const struct mo_plan *plan, const struct mo_node *n, uint32_t k)
{
    for (uint32_t i = 0; i < k; i++)
        if (n->in[i] != MO_NONE && plan->values[n->in[i]].needs_grad &&
            plan->values[n->in[i]].grad_root == plan->values[n->in[k]].grad_root)
            return true;
    return false;
}

static void send(struct mo_plan *plan, mo_node_id i, uint32_t k, bool *is_written)
{
    const struct mo_node *n = &plan->graph.nodes[i];
    struct mo_grad_to *to = &plan->nodes[i].grad_in[k];
    if (n->in[k] == MO_NONE || !plan->values[n->in[k]].needs_grad)
        return;
    mo_value_id root = plan->values[n->in[k]].grad_root;
    uint32_t step = 2 * plan->graph.n_nodes - 1 - i;
    to->where = plan->values[root].grad_where;
    if (!is_written[root]) {
        is_written[root] = true;
        plan->values[root].grad_first = step;
    } else if (n->op->flags & MO_OP_ADDS_GRAD && !read_before(plan, n, k)) {
        to->adds = true;
    } else {
        to->where = MO_AT_BLOCK;
        to->is_spare = true;
    }
}

static enum mopt_status send_all(struct mo_run *run, struct mo_plan *plan)
{
    struct mo_graph *g = &plan->graph;
    bool *is_written = mo_mem_new((size_t)g->n_values + 1, sizeof *is_written);
    if (!is_written)
        return mo_no_memory(run->ctx, g->n_values, "gradients");
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        mo_value_id root = plan->values[g->outputs[i]].grad_root;
        is_written[root] = plan->values[root].has_grad;
        plan->values[root].grad_first = g->n_nodes;
    }
    for (mo_node_id i = g->n_nodes; i-- > 0;) {
        if (!plan->nodes[i].is_backward)
            continue;
        plan->nodes[i].grad_in = mo_arena_new(&plan->arena, g->nodes[i].n_in + 1, sizeof *plan->nodes[i].grad_in);
        if (!plan->nodes[i].grad_in) {
            mo_mem_free(is_written);
            return mo_no_memory(run->ctx, g->nodes[i].n_in, "gradients");
        }
        for (uint32_t k = 0; k < g->nodes[i].n_in; k++)
            send(plan, i, k, is_written);
    }
    mo_mem_free(is_written);
    return MOPT_OK;
}

enum mopt_status mo_plan_gradients(struct mo_run *run, struct mo_plan *plan)
{
    struct mo_graph *g = &plan->graph;
    find_needs(run, plan);
    find_reached(plan);
    for (mo_value_id v = 0; v < g->n_values; v++) {
        struct mo_value_plan *p = &plan->values[v];
        p->grad_where = p->grad_root != v || !p->has_grad ? MO_AT_NONE
                        : p->store == MO_STORE_WEIGHTS    ? MO_AT_GRADS
                                                          : MO_AT_BLOCK;
        if (p->grad_where == MO_AT_GRADS)
            p->grad_offset = p->offset;
    }
    MO_TRY(refuse_no_backward(run, plan));
    return send_all(run, plan);
}

/* ---- for operators -------------------------------------------------------------------- */

static const struct mo_grad_to *grad_to(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_plan *plan = r->plan;
    if (!plan || i >= n->n_in || n->in[i] == MO_NONE)
        return NULL;
    const struct mo_node_plan *np = &plan->nodes[(mo_node_id)(n - r->graph->nodes) - plan->first_node];
    return np->grad_in && np->grad_in[i].where != MO_AT_NONE ? &np->grad_in[i] : NULL;
}

float *mo_run_grad_in(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_grad_to *to = grad_to(r, n, i);
    if (!to)
        return NULL;
    if (to->is_spare)
        return (float *)(r->plan->block + to->offset);
    return r->tensors[r->plan->values[n->in[i]].grad_root].grad;
}

bool mo_run_adds(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_grad_to *to = grad_to(r, n, i);
    return to && to->adds;
}

bool mo_run_wants_grad(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    return grad_to(r, n, i) != NULL;
}
