/* dynamic.c - forward of a graph in which some shape is known only from data:
 * NonZero, a Reshape by a computed tensor. Each node is inferred when its inputs
 * are there, its outputs get memory of their own, and memory goes back after the
 * last reader. Correct, not fast; only nodes on such a graph run this way. */
#include <string.h>

#include "lib/run/private.h"

struct dynamic {
    struct mo_run *run;
    struct mo_plan *plan;
    uint32_t *uses;             /* readers still to come, by value */
    bool *is_lent;              /* constant data is lent to inference */
};

/* While a node is inferred its small inputs are constants, so that shapes follow from their elements. */
static void lend(struct dynamic *d, const struct mo_node *n, bool on)
{
    struct mo_graph *g = &d->plan->graph;
    for (uint32_t k = 0; k < n->n_in; k++) {
        mo_value_id v = n->in[k];
        if (v == MO_NONE)
            continue;
        if (on && !g->values[v].data && mo_shape_known(&g->values[v].shape)) {
            g->values[v].data = d->plan->tensors[v].data;
            d->is_lent[v] = true;
        } else if (!on && d->is_lent[v]) {
            g->values[v].data = NULL;
            d->is_lent[v] = false;
        }
    }
}

/* Memory for value id, whose shape is set. */
static enum mopt_status give_value(struct mo_run *run, mo_value_id id)
{
    struct mo_plan *plan = run->plan;
    const struct mo_value *v = &plan->graph.values[id];
    if (!mo_shape_known(&v->shape))
        return mo_fail(run->ctx, MOPT_UNSUPPORTED, "the shape of its output '%s' cannot be told", v->name);
    size_t bytes = mo_value_bytes(v);
    if (bytes > mo_memory_limit(run->ctx))
        return mo_fail(run->ctx, MOPT_LIMIT, "'%s' needs %zu MiB, the limit is %zu MiB", v->name, bytes >> 20,
                       mo_memory_limit(run->ctx) >> 20);
    void *mem = run->be->alloc(run->dev, MO_MAX(bytes, (size_t)1));
    if (!mem)
        return mo_no_memory(run->ctx, bytes, "an activation");
    if (plan->values[id].const_mem)
        run->be->free(run->dev, plan->values[id].const_mem);
    plan->values[id].const_mem = mem;
    plan->tensors[id].data = mem;
    return MOPT_OK;
}

static enum mopt_status give_memory(struct dynamic *d, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_out && !(n->op->flags & MO_OP_SHAPES_BY_RUN); k++)
        if (n->out[k] != MO_NONE)
            MO_TRY(give_value(d->run, n->out[k]));
    return MOPT_OK;
}

void *mo_run_make_out(struct mo_run *r, const struct mo_node *n, uint32_t k, enum mo_dtype dtype,
                      const struct mo_shape *shape)
{
    mo_set_out(&r->plan->graph, n, k, dtype, shape);
    return give_value(r, n->out[k]) ? NULL : r->tensors[n->out[k]].data;
}

static enum mopt_status compute(struct dynamic *d, mo_node_id i)
{
    struct mo_run *run = d->run;
    struct mo_plan *plan = d->plan;
    const struct mo_node *n = &plan->graph.nodes[i];
    struct mo_node_plan *np = &plan->nodes[i];
    if (n->op->flags & MO_OP_VIEW) {
        size_t bytes = mo_value_bytes(&plan->graph.values[n->out[0]]);
        if (bytes)
            memcpy(plan->tensors[n->out[0]].data, plan->tensors[n->in[0]].data, bytes);
        return MOPT_OK;
    }
    enum mopt_status status = n->op->prepare ? n->op->prepare(run, n) : MOPT_OK;
    np->scratch_bytes = !status && n->op->scratch_bytes ? n->op->scratch_bytes(run, n, false) : 0;
    np->scratch_at = 0;
    plan->block = np->scratch_bytes ? run->be->alloc(run->dev, np->scratch_bytes) : NULL;
    if (np->scratch_bytes && !plan->block)
        status = mo_no_memory(run->ctx, np->scratch_bytes, "scratch");
    if (!status)
        status = n->op->forward(run, n);
    char why[192];
    if (!status && run->be->sync(run->dev, why, sizeof why))
        status = mo_fail(run->ctx, MOPT_DATA, "%s", why);
    if (plan->block)
        run->be->free(run->dev, plan->block);
    plan->block = NULL;
    if (n->op->unprepare)
        n->op->unprepare(run, n);
    np->handle = NULL;
    return status;
}

static void drop_read(struct dynamic *d, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_in; k++) {
        mo_value_id v = n->in[k];
        if (v == MO_NONE || --d->uses[v] || d->plan->graph.values[v].is_output || d->run->options.keep_names)
            continue;
        struct mo_value_plan *vp = &d->plan->values[v];
        if (vp->store != MO_STORE_BLOCK || !vp->const_mem)
            continue;
        d->run->be->free(d->run->dev, vp->const_mem);
        vp->const_mem = NULL;
        d->plan->tensors[v].data = NULL;
    }
}

static enum mopt_status run_node(struct dynamic *d, mo_node_id i)
{
    struct mo_run *run = d->run;
    struct mo_run_private *p = run->private_;
    struct mo_node *n = &d->plan->graph.nodes[i];
    lend(d, n, run->be->is_host);
    enum mopt_status status = mo_infer_node(run->ctx, &d->plan->graph, n);
    lend(d, n, false);
    bool named = status;        /* inference names the node itself */
    if (!status)
        status = give_memory(d, n);
    if (!status)
        status = compute(d, i);
    if (status) {
        char label[192];
        if (!named)
            mo_blame(run->ctx, "%s", mo_node_label(&d->plan->graph, n, label, sizeof label));
        return status;
    }
    if (p->after_forward)
        p->after_forward(p->hook_user, run, n);
    drop_read(d, n);
    return MOPT_OK;
}

enum mopt_status mo_dynamic_forward(struct mo_run *run, struct mo_plan *plan)
{
    struct mo_graph *g = &plan->graph;
    struct dynamic d = { .run = run, .plan = plan };
    d.uses = mo_mem_new((size_t)g->n_values + 1, sizeof *d.uses);
    d.is_lent = mo_mem_new((size_t)g->n_values + 1, sizeof *d.is_lent);
    enum mopt_status status = d.uses && d.is_lent ? MOPT_OK : mo_no_memory(run->ctx, g->n_values * 5ull, "a forward");
    for (mo_value_id v = 0; !status && v < g->n_values; v++)
        d.uses[v] = g->values[v].n_uses;
    for (mo_node_id i = 0; !status && i < g->n_nodes; i++)
        status = run_node(&d, i);
    mo_mem_free(d.uses);
    mo_mem_free(d.is_lent);
    run->private_->has_forward = !status;
    return status;
}
