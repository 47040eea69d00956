/* fold.c - what depends on constants alone is computed once: one node on host
 * memory with the plain kernels, and all of them in a graph. */
#include <string.h>

#include "kernels/cpu/reference.h"
#include "lib/run/private.h"

/* A run just large enough for one node. */
struct folder {
    struct mo_run run;
    struct mo_plan plan;
    struct mo_node_plan node;
    char *scratch;
};

static enum mopt_status folder_open(struct folder *f, struct mopt_ctx *ctx, struct mo_graph *g)
{
    char why[160];
    *f = (struct folder){ 0 };
    f->run = (struct mo_run){ .ctx = ctx, .be = &mo_backend_reference, .graph = g };
    f->run.plan = &f->plan;
    f->plan.nodes = &f->node;
    f->plan.csr_node = MO_NONE;
    f->run.tensors = f->plan.tensors = mo_mem_new((size_t)g->n_values + 1, sizeof *f->run.tensors);
    if (!f->run.tensors)
        return mo_no_memory(ctx, g->n_values * sizeof *f->run.tensors, "folding constants");
    f->run.dev = f->run.be->open(0, 1, why, sizeof why);
    return f->run.dev ? MOPT_OK : mo_fail(ctx, MOPT_LIMIT, "folding constants: %s", why);
}

static void folder_close(struct folder *f)
{
    if (f->run.dev)
        f->run.be->close(f->run.dev);
    mo_mem_free(f->run.tensors);
}

static enum mopt_status forward_with_scratch(struct folder *f, const struct mo_node *n)
{
    struct mo_run *r = &f->run;
    size_t bytes = n->op->scratch_bytes ? n->op->scratch_bytes(r, n, false) : 0;
    char why[192];
    if (bytes) {
        f->scratch = mo_mem_new(bytes, 1);
        if (!f->scratch)
            return mo_no_memory(r->ctx, bytes, "folding constants");
    }
    f->plan.block = f->scratch;
    f->node.scratch_bytes = bytes;
    f->node.scratch_at = 0;
    enum mopt_status status = n->op->forward(r, n);
    if (!status && r->be->sync(r->dev, why, sizeof why))
        status = mo_fail(r->ctx, MOPT_DATA, "%s", why);
    mo_mem_free(f->scratch);
    f->scratch = NULL;
    return status;
}

static enum mopt_status run_node(struct folder *f, const struct mo_node *n)
{
    struct mo_run *r = &f->run;
    f->plan.first_node = (mo_node_id)(n - r->graph->nodes);
    f->node = (struct mo_node_plan){ 0 };
    enum mopt_status status = n->op->prepare ? n->op->prepare(r, n) : MOPT_OK;
    if (!status)
        status = forward_with_scratch(f, n);
    if (n->op->unprepare)
        n->op->unprepare(r, n);
    return status;
}

/* Memory for each output, the node run, the memory given out. A view is a copy here: both may be changed later. */
static enum mopt_status run_one(struct folder *f, const struct mo_node *n, void **out_data)
{
    struct mo_graph *g = f->run.graph;
    struct mopt_ctx *ctx = f->run.ctx;
    enum mopt_status status = MOPT_OK;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE)
            f->run.tensors[n->in[k]].data = g->values[n->in[k]].data;
    for (uint32_t k = 0; k < n->n_out; k++)
        out_data[k] = NULL;
    for (uint32_t k = 0; !status && k < n->n_out; k++) {
        if (n->out[k] == MO_NONE)
            continue;
        size_t bytes = mo_value_bytes(&g->values[n->out[k]]);
        out_data[k] = bytes == SIZE_MAX ? NULL : mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
        if (!out_data[k])
            status = mo_no_memory(ctx, bytes, "folding constants");
        f->run.tensors[n->out[k]].data = out_data[k];
    }
    if (!status && n->op->flags & MO_OP_VIEW)
        memcpy(out_data[0], g->values[n->in[0]].data, mo_value_bytes(&g->values[n->in[0]]));
    else if (!status)
        status = run_node(f, n);
    for (uint32_t k = 0; status && k < n->n_out; k++) {
        mo_mem_free(out_data[k]);
        out_data[k] = NULL;
    }
    return status;
}

static bool can_run(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_op *op = n->op;
    if (!op || n->is_dead || n->n_captures || op->flags & (MO_OP_RANDOM | MO_OP_TRAIN_MODE | MO_OP_SHAPES_BY_RUN))
        return false;
    if (!op->forward && !(op->flags & MO_OP_VIEW))
        return false;
    const struct mo_value *x = mo_in(g, n, 0);
    if (op->flags & MO_OP_CHANNELS_LAST && !n->channels_last && x && x->shape.rank >= 3)
        return false;           /* its kernels want another layout; lowering gives it */
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != MO_NONE && (!g->values[n->in[k]].data || g->values[n->in[k]].dtype == MO_STRING))
            return false;
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE && (!mo_shape_known(&g->values[n->out[k]].shape) || g->values[n->out[k]].dtype == MO_STRING))
            return false;
    return true;
}

enum mopt_status mo_run_one(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_node *n, void **out_data)
{
    char label[192];
    if (!can_run(g, n))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s cannot be computed from constants",
                       mo_node_label(g, n, label, sizeof label));
    struct folder f;
    enum mopt_status status = folder_open(&f, ctx, g);
    if (!status)
        status = run_one(&f, n, out_data);
    folder_close(&f);
    return status;
}

/* Shape arithmetic whose result inference knows already, also where the input is no constant. */
static bool known_outputs(const struct mo_graph *g, const struct mo_node *n)
{
    if (!n->op || n->is_dead || n->n_out == 0)
        return false;
    for (uint32_t k = 0; k < n->n_out; k++) {
        const struct mo_value *v = mo_out(g, n, k);
        int64_t elems = v ? mo_value_elems(v) : 0;
        if (!v || !v->known || elems < 0)
            return false;
        for (int64_t i = 0; i < elems; i++)
            if (v->known[i] == MO_VALUE_UNKNOWN)
                return false;
    }
    return true;
}

static void *known_data(const struct mo_value *v)
{
    int64_t n = mo_value_elems(v);
    char *data = mo_mem_new(MO_MAX(mo_value_bytes(v), (size_t)1), 1);
    for (int64_t i = 0; data && i < n; i++)
        switch (mo_dtype_bits(v->dtype)) {
        case 64: ((int64_t *)data)[i] = v->known[i]; break;
        case 32: ((int32_t *)data)[i] = (int32_t)v->known[i]; break;
        case 16: ((int16_t *)data)[i] = (int16_t)v->known[i]; break;
        default: ((int8_t *)data)[i] = (int8_t)v->known[i]; break;
        }
    return data;
}

/* Bytes that folding the node makes; SIZE_MAX: more than can be counted. */
static size_t made_bytes(const struct mo_graph *g, const struct mo_node *n)
{
    size_t sum = 0;
    for (uint32_t k = 0; k < n->n_out; k++) {
        size_t bytes = n->out[k] == MO_NONE ? 0 : mo_value_bytes(&g->values[n->out[k]]);
        if (bytes > SIZE_MAX - sum)
            return SIZE_MAX;
        sum += bytes;
    }
    return sum;
}

/* Of constants that nobody else reads, and which go with the node. */
static size_t freed_bytes(const struct mo_graph *g, const struct mo_node *n)
{
    size_t sum = 0;
    for (uint32_t k = 0; k < n->n_in; k++) {
        const struct mo_value *v = mo_in(g, n, k);
        if (v && v->data && v->n_uses == 1 && !v->is_input && !v->is_output && !v->is_captured && v->dtype != MO_STRING)
            sum += mo_value_bytes(v);
    }
    return sum;
}

static enum mopt_status fold_node(struct folder *f, struct mo_node *n, bool from_known)
{
    struct mo_graph *g = f->run.graph;
    void *data[8] = { NULL };
    if (n->n_out > MO_COUNT(data))
        return MOPT_OK;
    if (from_known) {
        for (uint32_t k = 0; k < n->n_out; k++)
            if (!(data[k] = known_data(mo_out(g, n, k))))
                return mo_no_memory(f->run.ctx, 512, "folding constants");
    } else {
        enum mopt_status status = run_one(f, n, data);
        char label[192];
        if (status) {
            mo_blame(f->run.ctx, "%s", mo_node_label(g, n, label, sizeof label));
            return status;
        }
    }
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != MO_NONE) {
            struct mo_value *v = &g->values[n->out[k]];
            struct mo_shape shape = v->shape;
            mo_value_set_data(g, n->out[k], v->dtype, &shape, data[k]);
        }
    n->is_dead = true;
    return MOPT_OK;
}

enum mopt_status mo_fold(struct mopt_ctx *ctx, struct mo_graph *g, size_t cap_bytes, size_t *left_bytes,
                         bool with_quantized)
{
    struct folder f;
    enum mopt_status status = folder_open(&f, ctx, g);
    for (mo_node_id i = 0; !status && i < g->n_nodes; i++) {
        struct mo_node *n = &g->nodes[i];
        if (n->is_dead || !n->op || mo_node_is(n, "Constant"))
            continue;
        status = mo_infer_node(ctx, g, n);      /* what became constant before it may tell more now */
        if (status || (!with_quantized && mo_node_is(n, "DequantizeLinear")))
            continue;
        bool from_known = known_outputs(g, n);
        size_t bytes = made_bytes(g, n);
        if ((!from_known && !can_run(g, n)) || bytes > cap_bytes || (left_bytes && bytes > *left_bytes))
            continue;
        if (left_bytes)
            *left_bytes = *left_bytes - bytes + freed_bytes(g, n);
        status = fold_node(&f, n, from_known);
    }
    folder_close(&f);
    if (!status)
        mo_graph_sweep(g);
    return status;
}

enum mopt_status mo_fold_constants(struct mopt_ctx *ctx, struct mo_graph *g, size_t cap_bytes, size_t *left_bytes)
{
    return mo_fold(ctx, g, cap_bytes, left_bytes, false);
}
