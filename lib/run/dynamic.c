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

/* What is lent of a device's memory is a copy, and only of inputs that inference looks at or that are small. */
#define MOST_LENT_BYTES 4096

static enum mopt_status lend_one(struct dynamic *d, const struct mo_node *n, uint32_t k)
{
    struct mo_run *run = d->run;
    mo_value_id id = n->in[k];
    struct mo_value *v = &d->plan->graph.values[id];
    size_t bytes = mo_value_bytes(v);
    if (run->be->is_host) {
        v->data = d->plan->tensors[id].data;
    } else if (k < 32 && (n->op->values_in >> k & 1 || bytes <= MOST_LENT_BYTES)) {
        v->data = mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
        if (!v->data)
            return mo_no_memory(run->ctx, bytes, "an input in host memory");
        run->be->download(run->dev, v->data, d->plan->tensors[id].data, bytes);
    }
    d->is_lent[id] = v->data;
    return MOPT_OK;
}

/* While a node is inferred its small inputs are constants, so that shapes follow from their elements. */
static enum mopt_status lend(struct dynamic *d, const struct mo_node *n)
{
    struct mo_graph *g = &d->plan->graph;
    for (uint32_t k = 0; k < n->n_in; k++) {
        mo_value_id v = n->in[k];
        if (v != MO_NONE && !g->values[v].data && mo_shape_known(&g->values[v].shape))
            MO_TRY(lend_one(d, n, k));
    }
    return MOPT_OK;
}

static void take_back(struct dynamic *d, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_in; k++) {
        mo_value_id v = n->in[k];
        if (v == MO_NONE || !d->is_lent[v])
            continue;
        if (!d->run->be->is_host)
            mo_mem_free(d->plan->graph.values[v].data);
        d->plan->graph.values[v].data = NULL;
        d->is_lent[v] = false;
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
        return mo_device_full(run, bytes, "an activation");
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
        const int64_t bytes = (int64_t)mo_value_bytes(&plan->graph.values[n->out[0]]), step = 1;
        if (bytes)
            run->be->copy_strided(run->dev, 1, 1, &bytes, &step, &step, plan->tensors[n->in[0]].data,
                                  plan->tensors[n->out[0]].data);
        return MOPT_OK;
    }
    enum mopt_status status = n->op->prepare ? n->op->prepare(run, n) : MOPT_OK;
    np->scratch_bytes = !status && n->op->scratch_bytes ? n->op->scratch_bytes(run, n, false) : 0;
    np->scratch_at = 0;
    plan->block = np->scratch_bytes ? run->be->alloc(run->dev, np->scratch_bytes) : NULL;
    if (np->scratch_bytes && !plan->block)
        status = mo_device_full(run, np->scratch_bytes, "scratch");
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

/* ---- operators that want images channels-last ------------------------------------------------ */

/* Rank axes of x: batch, channels, sizes to batch, sizes, channels, or back; into y, its shape into *shape. */
static void move_channels(struct mo_run *run, enum mo_dtype dtype, bool to_last, const void *x, struct mo_shape *shape,
                          void *y)
{
    int64_t dense[MO_MAX_RANK], stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], step = 1;
    struct mo_shape from = *shape;
    int rank = from.rank;
    for (int k = rank - 1; k >= 0; k--) {
        dense[k] = step;
        step *= from.dim[k];
    }
    for (int k = 0; k < rank; k++) {
        int axis = k == 0 ? 0 : to_last ? (k == rank - 1 ? 1 : k + 1) : (k == 1 ? rank - 1 : k - 1);
        shape->dim[k] = from.dim[axis];
        stride_x[k] = dense[axis];
    }
    step = 1;
    for (int k = rank - 1; k >= 0; k--) {
        stride_y[k] = step;
        step *= shape->dim[k];
    }
    run->be->copy_strided(run->dev, (size_t)mo_dtype_bits(dtype) / 8, rank, shape->dim, stride_x, stride_y, x, y);
}

/* Output id is channels-last: it gets other memory with the axes moved back. */
static enum mopt_status move_output(struct mo_run *run, mo_value_id id)
{
    struct mo_plan *plan = run->plan;
    struct mo_value *v = &plan->graph.values[id];
    void *last = plan->tensors[id].data;
    struct mo_shape shape = v->shape;
    plan->values[id].const_mem = NULL;      /* give_value must not free it yet */
    enum mopt_status status = give_value(run, id);
    if (!status)
        move_channels(run, v->dtype, false, last, &shape, plan->tensors[id].data);
    v->shape = shape;
    run->be->free(run->dev, last);
    return status;
}

/* Layout could not prepare this node because it did not know the rank of its input: the axes are moved around it. */
static enum mopt_status compute_image(struct dynamic *d, mo_node_id i)
{
    struct mo_run *run = d->run;
    struct mo_graph *g = &d->plan->graph;
    struct mo_node *n = &g->nodes[i];
    mo_value_id id = n->in[0];
    const struct mo_shape plain = g->values[id].shape;
    void *data = d->plan->tensors[id].data;
    void *last = run->be->alloc(run->dev, MO_MAX(mo_value_bytes(&g->values[id]), (size_t)1));
    if (!last)
        return mo_no_memory(run->ctx, mo_value_bytes(&g->values[id]), "an image channels-last");
    move_channels(run, g->values[id].dtype, true, data, &g->values[id].shape, last);
    d->plan->tensors[id].data = last;
    n->channels_last = true;
    enum mopt_status status = mo_infer_node(run->ctx, g, n);
    if (!status)
        status = give_memory(d, n);
    if (!status)
        status = compute(d, i);
    for (uint32_t k = 0; !status && k < n->n_out; k++)
        if (n->out[k] != MO_NONE && g->values[n->out[k]].shape.rank == plain.rank)
            status = move_output(run, n->out[k]);
    n->channels_last = false;
    g->values[id].shape = plain;
    d->plan->tensors[id].data = data;
    run->be->free(run->dev, last);
    return status;
}

static bool wants_channels_last(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    return n->op->flags & MO_OP_CHANNELS_LAST && !n->channels_last && x && x->shape.rank >= 3;
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
    enum mopt_status status = lend(d, n);
    bool named = false;
    if (!status) {
        status = mo_infer_node(run->ctx, &d->plan->graph, n);
        named = status;         /* inference names the node itself */
    }
    take_back(d, n);
    bool is_image = !status && wants_channels_last(&d->plan->graph, n);
    if (!status && is_image)
        status = compute_image(d, i);
    if (!status && !is_image)
        status = give_memory(d, n);
    if (!status && !is_image)
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
