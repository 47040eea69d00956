/* inspect_layers.c - layer by layer: size, cost, how its weights are distributed, and what can be done with it.
 *
 *   trainable    its operator and every one between it and the output has a backward
 *   prunable     its output channels may be cut: the group they belong to touches no wall (couple.h)
 *   quantizable  the static pass has an 8-bit form for it */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/graph/couple_solve.h"
#include "lib/graph/op.h"
#include "lib/passes/inspect.h"
#include "lib/run/run.h"

struct layers {
    struct mo_job *job;
    struct mo_graph *g;
    bool has_shapes, reads;
    const char **blocked;               /* by node: why no gradient arrives at what it makes; NULL: one does */
    struct mo_channels *channels;       /* NULL: could not be solved */
    const mo_value_id *params; uint32_t n_params;
};

const char *mo_inspect_shape(const struct mo_value *v, char *buf, size_t buf_bytes)
{
    const struct mo_shape *shape = v->has_declared ? &v->declared : &v->shape;
    size_t at = 0;
    mo_shape_text(shape, buf, buf_bytes);
    for (int i = 0; i < shape->rank && at < buf_bytes; i++) {
        const char *name = v->dim_names ? v->dim_names[i] : NULL, *x = i ? "x" : "";
        int n = shape->dim[i] >= 0 ? snprintf(buf + at, buf_bytes - at, "%s%lld", x, (long long)shape->dim[i])
                                   : snprintf(buf + at, buf_bytes - at, "%s%s", x, name && *name ? name : "?");
        at += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

/* ---- gradients ------------------------------------------------------------------------- */

/* Backwards over the nodes: a gradient arrives where an output is read by the loss, or some reader passes one on. */
static enum mopt_status find_blocked(struct layers *l)
{
    static const char unread[] = "it does not reach the output";
    struct mo_graph *g = l->g;
    const char **at_value = mo_arena_new(l->job->scratch, g->n_values + 1, sizeof *at_value);
    l->blocked = mo_arena_new(l->job->scratch, g->n_nodes + 1, sizeof *l->blocked);
    if (!at_value || !l->blocked)
        return mo_no_memory(l->job->ctx, g->n_values * sizeof *at_value, "the report");
    for (mo_value_id v = 0; v < g->n_values; v++)
        at_value[v] = unread;
    mo_value_id logits = mo_graph_logits(g, NULL);
    if (logits != MO_NONE)
        at_value[logits] = NULL;
    for (mo_node_id i = g->n_nodes; i-- > 0;) {
        const struct mo_node *n = &g->nodes[i];
        const char *why = unread;
        for (uint32_t k = 0; k < n->n_out && why; k++)
            if (n->out[k] != MO_NONE && at_value[n->out[k]] != unread)
                why = at_value[n->out[k]];
        bool is_ready = n->op && mo_op_has_gradient(n->op);
        if (!why && !is_ready)
            why = mo_arena_printf(l->job->scratch, n->op ? "%s has no gradient" : "%s is not known", n->type);
        l->blocked[i] = why;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MO_NONE && at_value[n->in[k]] && why != unread)
                at_value[n->in[k]] = why;
    }
    return MOPT_OK;
}

/* ---- weights ------------------------------------------------------------------------------- */

struct weights { int64_t n, n_zero; uint64_t bytes; double low, high, sum, squares; bool has_values; };

static bool is_param(const struct layers *l, mo_value_id v)
{
    for (uint32_t i = 0; i < l->n_params; i++)
        if (l->params[i] == v)
            return true;
    return false;
}

static void add_values(struct weights *w, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double v = x[i];
        w->n_zero += v == 0;
        w->low = fmin(w->low, v);
        w->high = fmax(w->high, v);
        w->sum += v;
        w->squares += v * v;
    }
    w->has_values |= n > 0;
}

/* The parameters a node reads itself, or through what only moves or dequantizes them. */
static enum mopt_status collect(struct layers *l, const struct mo_node *n, struct weights *w)
{
    *w = (struct weights){ .low = INFINITY, .high = -INFINITY };
    for (uint32_t k = 0; k < n->n_in && k < 32; k++) {
        if (!n->op || !(n->op->params_in >> k & 1))
            continue;
        mo_value_id v = mo_count_source(l->g, n->in[k]);
        const struct mo_value *c = v == MO_NONE ? NULL : &l->g->values[v];
        if (!c || !(is_param(l, v) || v != n->in[k]))
            continue;
        w->n += mo_value_elems(c);
        w->bytes += mo_value_bytes(c);
        if (!mo_dtype_is_float(c->dtype) || !l->reads)
            continue;
        float *copy = c->dtype == MO_F32 ? NULL : mo_value_floats(c);
        if (!copy && c->dtype != MO_F32)
            return mo_no_memory(l->job->ctx, mo_value_bytes(c), "the report");
        add_values(w, copy ? copy : c->data, mo_value_elems(c));
        mo_mem_free(copy);
    }
    return MOPT_OK;
}

static void report_weights(struct mopt_report *row, const struct weights *w)
{
    if (!w->n)
        return;
    mo_report_set_int(row, "parameters", w->n);
    mo_report_set_int(row, "weight_bytes", (int64_t)w->bytes);
    if (!w->has_values)
        return;
    double mean = w->sum / (double)w->n, variance = w->squares / (double)w->n - mean * mean;
    mo_report_set_number(row, "sparsity", (double)w->n_zero / (double)w->n);
    mo_report_set_number(row, "min", w->low);
    mo_report_set_number(row, "max", w->high);
    mo_report_set_number(row, "mean", mean);
    mo_report_set_number(row, "sd", sqrt(fmax(variance, 0)));
}

/* ---- what can be done ------------------------------------------------------------------------ */

static bool is_weighted(const struct mo_node *n)
{
    return n->op && n->op->quant.kind == MO_QUANT_WEIGHTED;
}

static const char *why_not_trainable(const struct layers *l, mo_node_id i)
{
    const struct mo_node *n = &l->g->nodes[i];
    for (uint32_t k = 0; k < n->n_in; k++)
        if (mo_in(l->g, n, k) && mo_in(l->g, n, k)->data && mo_in(l->g, n, k)->dtype == MO_F64)
            return "float64 weights are not trained";
    return l->blocked[i];
}

/* The group that the node's output channels belong to. */
static const struct mo_channel_group *group_of(const struct layers *l, mo_node_id i)
{
    for (uint32_t k = 0; l->channels && k < l->channels->n_groups; k++) {
        const struct mo_channel_group *group = &l->channels->groups[k];
        for (uint32_t w = 0; w < group->n_weights; w++) {
            const struct mo_couple_weight_row *row = &l->channels->weights[group->weights[w]];
            if (row->node == i && row->role == MO_ROLE_OUT)
                return group;
        }
    }
    return NULL;
}

static const char *why_not_prunable(const struct layers *l, const struct mo_channel_group *group)
{
    if (!l->channels)
        return "shapes are not known";
    if (!group)
        return "its channels are tied to nothing that can be cut";
    return group->wall ? (group->why ? group->why : group->wall) : NULL;
}

/* The other nodes whose weights lose the same channels, each once. */
static void report_coupled(const struct layers *l, const struct mo_channel_group *group, mo_node_id i,
                           struct mopt_report *row)
{
    struct mopt_report *list = NULL;
    for (uint32_t w = 0; w < group->n_weights; w++) {
        mo_node_id other = l->channels->weights[group->weights[w]].node;
        bool is_new = other != i;
        for (uint32_t k = 0; k < w && is_new; k++)
            is_new = l->channels->weights[group->weights[k]].node != other;
        if (!is_new)
            continue;
        char label[192];
        const struct mo_node *n = &l->g->nodes[other];
        list = list ? list : mo_report_list(row, "coupled");
        mo_report_set_text(list, NULL, n->name[0] ? n->name : mo_node_label(l->g, n, label, sizeof label));
    }
}

static const char *why_not_quantizable(const struct layers *l, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(l->g, n, 0), *w = mo_in(l->g, n, 1);
    if (!w || !w->data)
        return "its weight is no constant";
    if (w->dtype != MO_F32 || (x && x->dtype != MO_F32))
        return "it is not float32";
    if (n->op->quant.since_opset > l->g->opset)
        return "the opset is too old";
    return NULL;
}

static void report_can(struct mopt_report *row, const char *key, const char *key_why, const char *why)
{
    mo_report_set_bool(row, key, !why);
    if (why)
        mo_report_set_text(row, key_why, why);
}

/* ---- rows ---------------------------------------------------------------------------------------- */

static enum mopt_status report_node(struct layers *l, mo_node_id i, bool all, struct mopt_report *list)
{
    const struct mo_node *n = &l->g->nodes[i];
    struct weights w;
    MO_TRY(collect(l, n, &w));
    int64_t macs = l->has_shapes ? mo_node_macs(l->g, n) : MO_UNKNOWN;
    if (!all && !w.n && macs <= 0 && !is_weighted(n))
        return MOPT_OK;
    char shape[160], label[32];
    const struct mo_value *out = mo_out(l->g, n, 0);
    struct mopt_report *row = mo_report_object(list, NULL);
    snprintf(label, sizeof label, "node %u", i);
    mo_report_set_text(row, "name", n->name[0] ? n->name : label);
    mo_report_set_text(row, "type", n->type);
    if (n->domain[0])
        mo_report_set_text(row, "domain", n->domain);
    mo_report_set_text(row, "output", out ? mo_shape_text(&out->shape, shape, sizeof shape) : "none");
    if (macs >= 0)
        mo_report_set_int(row, "macs", macs);
    if (out && l->has_shapes && mo_shape_known(&out->shape))
        mo_report_set_int(row, "output_bytes", (int64_t)mo_value_bytes(out));
    report_weights(row, &w);
    if (!n->op)
        mo_report_set_text(row, "note", "not known: kept as it is, cannot be run");
    if (w.n)
        report_can(row, "trainable", "not_trainable", why_not_trainable(l, i));
    if (is_weighted(n)) {
        const struct mo_channel_group *group = group_of(l, i);
        const char *why = why_not_prunable(l, group);
        report_can(row, "prunable", "not_prunable", why);
        if (!why)
            report_coupled(l, group, i, row);
        report_can(row, "quantizable", "not_quantizable", why_not_quantizable(l, n));
    }
    return MOPT_OK;
}

enum mopt_status mo_inspect_layers(struct mo_job *job, struct mo_graph *g, bool all, bool has_shapes, bool reads,
                                   struct mopt_report *report)
{
    struct layers l = { .job = job, .g = g, .has_shapes = has_shapes, .reads = reads };
    mo_value_id *params = mo_arena_new(job->scratch, g->n_values + 1, sizeof *params);
    if (!params)
        return mo_no_memory(job->ctx, g->n_values * sizeof *params, "the report");
    l.n_params = MO_MIN(mo_graph_params(g, params, g->n_values), g->n_values);
    l.params = params;
    MO_TRY(find_blocked(&l));
    if (has_shapes && mo_channels_new(job->ctx, g, &l.channels)) {
        mo_log(job->ctx, "inspect", "channels are not known: %s", mopt_error(job->ctx));
        mopt_clear(job->ctx);
    }
    struct mopt_report *list = mo_report_list(report, "layers");
    enum mopt_status status = MOPT_OK;
    for (mo_node_id i = 0; i < g->n_nodes && !status; i++)
        status = report_node(&l, i, all, list);
    mo_channels_free(l.channels);
    return status;
}
