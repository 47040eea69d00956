/* quantize_qdq.c - a plan written into the graph as QuantizeLinear (Q) and DequantizeLinear (DQ).
 *
 *   value v made by an int8 node     node -> v_raw -> Q -> v_quantized -> DQ -> v        readers stay as they are
 *   value v made in float, or given  v -> Q -> v_quantized -> DQ -> v_dequantized        int8 readers read the last
 *                                    behind a MaxPool in float a Clip stands before the Q, see write_clip
 *   weight w                         w_quantized (int8) -> DQ -> w_dequantized
 *   bias b                           b_quantized (int32, scale s_x s_w[c]) -> DQ -> b_dequantized
 *   constant c of Add, Mul ...       c_quantized (type of the activations) -> DQ -> c_dequantized
 *
 * So every output edge of an int8 node has one Q, which is what runtimes fuse, names of the original values stay
 * where their numbers are, and graph outputs keep theirs. In the training form a weight is w -> Q -> DQ with w in
 * float, and a bias is left alone. */
#include "lib/passes/quantize.h"

#include <math.h>
#include <string.h>

struct writer {
    struct mo_job *job;
    struct mo_graph *g;
    const struct mo_quant_form *form;
    struct mo_quant_plan *plan;
    bool for_training;
    mo_value_id *dq;            /* by value: what int8 nodes read instead of it (constants too), or MO_NONE */
    mo_value_id *weight_dq;     /* by value: the DQ of a weight with no raised scales, to be shared by its readers */
    int *weight_axis;           /* by value: the axis that goes with it */
    uint32_t *weight_layer;     /* by value: the layer that wrote it */
    const char **name;          /* by node: what reports call it */
    mo_value_id *shown;         /* by node: the value that is its result, behind the Relu that vanishes */
    uint32_t n_values;          /* of the graph before writing: length of these */
    struct mo_quant_written *out;
};

static enum mopt_status full(struct writer *w)
{
    return mo_no_memory(w->job->ctx, 256, "a node");
}

/* ---- nodes and constants ------------------------------------------------------------------ */

static mo_value_id named(struct writer *w, const char *base, const char *suffix, enum mo_dtype dtype,
                         const struct mo_shape *shape)
{
    const char *name = mo_arena_printf(w->job->scratch, "%s_%s", base, suffix);
    return name ? mo_graph_add_value(w->g, name, dtype, shape) : MO_NONE;
}

static mo_value_id constant(struct writer *w, const char *base, const char *suffix, enum mo_dtype dtype,
                            const struct mo_shape *shape, const void *data)
{
    const char *name = mo_arena_printf(w->job->scratch, "%s_%s", base, suffix);
    return name ? mo_graph_add_const(w->g, name, dtype, shape, data) : MO_NONE;
}

static bool add_node(struct writer *w, const char *type, const char *base, mo_value_id x, mo_value_id scale,
                     mo_value_id zero, mo_value_id y, int axis)
{
    mo_value_id in[3] = { x, scale, zero };
    const char *name = mo_arena_printf(w->job->scratch, "%s_%s", base, type);
    mo_node_id n = name ? mo_graph_add_node(w->g, type, NULL, name, in, zero == MO_NONE ? 2 : 3, &y, 1) : MO_NONE;
    if (n == MO_NONE || (axis != MO_UNKNOWN && !mo_node_set_int(w->g, n, "axis", axis)))
        return false;
    if (*type == 'Q')
        w->out->n_q++;
    else
        w->out->n_dq++;
    return true;
}

/* Scale and zero point of one tensor: scalars. */
static bool scalar_params(struct writer *w, const char *base, float scale, int32_t zero, mo_value_id *scale_id,
                          mo_value_id *zero_id)
{
    struct mo_shape scalar = { .rank = 0 };
    int8_t byte = (int8_t)zero;         /* u8 and s8 share the bits */
    *scale_id = constant(w, base, "scale", MO_F32, &scalar, &scale);
    *zero_id = constant(w, base, "zero_point", w->form->act, &scalar, &byte);
    return *scale_id != MO_NONE && *zero_id != MO_NONE;
}

/* ---- activations ----------------------------------------------------------------------------- */

static enum mopt_status write_params(struct writer *w)
{
    for (uint32_t i = 0; i < w->plan->n_groups; i++) {
        struct mo_quant_group *group = &w->plan->groups[i];
        if (!scalar_params(w, w->g->values[group->source].name, group->scale, group->zero, &group->scale_id,
                           &group->zero_id))
            return full(w);
    }
    return MOPT_OK;
}

/* from -> Q -> DQ -> to, parameters of v's group, names from v. */
static enum mopt_status write_pair(struct writer *w, mo_value_id v, mo_value_id from, mo_value_id to)
{
    const struct mo_quant_group *group = &w->plan->groups[w->plan->group[v]];
    const char *base = w->g->values[v].name;
    struct mo_shape shape = w->g->values[v].shape;
    mo_value_id q = named(w, base, "quantized", w->form->act, &shape);
    if (q == MO_NONE || !add_node(w, "QuantizeLinear", base, from, group->scale_id, group->zero_id, q, MO_UNKNOWN) ||
        !add_node(w, "DequantizeLinear", base, q, group->scale_id, group->zero_id, to, MO_UNKNOWN))
        return full(w);
    return MOPT_OK;
}

/* The value whose Q it is comes out of node i, slot k; the DQ takes over its name. */
static enum mopt_status write_made(struct writer *w, mo_node_id i, uint32_t k)
{
    mo_value_id v = w->g->nodes[i].out[k], raw;
    struct mo_shape shape = w->g->values[v].shape;
    if (w->plan->role[i] == MO_Q_ABSORBED) {
        raw = w->g->nodes[i].in[0];
        w->g->nodes[i].is_dead = true;
    } else {
        raw = named(w, w->g->values[v].name, "raw", MO_F32, &shape);
        if (raw == MO_NONE)
            return full(w);
        w->g->nodes[i].out[k] = raw;
    }
    w->dq[v] = v;
    return write_pair(w, v, raw, v);
}

/* ONNX Runtime moves a Q to before the MaxPool that feeds it, which then pools bytes in an order that it is slow at
 * (20 times). A Clip between them keeps both in place; it must not be redundant, so it ends one step inside the range. */
static enum mopt_status write_clip(struct writer *w, mo_value_id *v)
{
    mo_node_id producer = w->g->values[*v].producer;
    const struct mo_quant_group *group = &w->plan->groups[w->plan->group[*v]];
    if (producer == MO_NONE || producer >= w->plan->n_nodes || !w->form->float_stem ||
        !mo_node_is(&w->g->nodes[producer], "MaxPool"))
        return MOPT_OK;
    const char *base = w->g->values[*v].name, *name = mo_arena_printf(w->job->scratch, "%s_Clip", base);
    struct mo_shape shape = w->g->values[*v].shape, scalar = { .rank = 0 };
    int lowest = w->form->act == MO_U8 ? 0 : -128;
    float low = (float)(lowest - group->zero) * group->scale, high = (float)(lowest + 254 - group->zero) * group->scale;
    mo_value_id in[3] = { *v, constant(w, base, "lowest", MO_F32, &scalar, &low),
                          constant(w, base, "highest", MO_F32, &scalar, &high) };
    mo_value_id clipped = named(w, base, "clipped", MO_F32, &shape);
    if (in[1] == MO_NONE || in[2] == MO_NONE || clipped == MO_NONE || !name ||
        mo_graph_add_node(w->g, "Clip", NULL, name, in, 3, &clipped, 1) == MO_NONE)
        return full(w);
    *v = clipped;
    return MOPT_OK;
}

static enum mopt_status write_given(struct writer *w, mo_value_id v)
{
    struct mo_shape shape = w->g->values[v].shape;
    mo_value_id to = named(w, w->g->values[v].name, "dequantized", MO_F32, &shape);
    if (to == MO_NONE)
        return full(w);
    w->dq[v] = to;
    mo_value_id from = v;
    MO_TRY(write_clip(w, &from));
    return write_pair(w, v, from, to);
}

static enum mopt_status write_activations(struct writer *w)
{
    for (mo_node_id i = 0; i < w->plan->n_nodes; i++) {
        if (w->plan->role[i] == MO_Q_FLOAT)
            continue;
        for (uint32_t k = 0; k < w->g->nodes[i].n_out; k++) {
            mo_value_id v = w->g->nodes[i].out[k];
            if (v != MO_NONE && w->plan->is_q[v])
                MO_TRY(write_made(w, i, k));
        }
    }
    for (mo_value_id v = 0; v < w->n_values; v++)
        if (w->plan->is_q[v] && w->dq[v] == MO_NONE)
            MO_TRY(write_given(w, v));
    return MOPT_OK;
}

/* ---- constants of Add, Mul and the like ----------------------------------------------------------- */

static enum mopt_status write_constant(struct writer *w, mo_value_id c)
{
    const struct mo_value *value = &w->g->values[c];
    struct mo_shape shape = value->shape;
    int64_t n = mo_value_elems(value);
    struct mo_quant_group group = { .clip_low = -INFINITY, .clip_high = INFINITY };
    float *x = mo_value_floats(value);
    int8_t *q = mo_mem_new((size_t)MO_MAX(n, 1), 1);
    enum mopt_status status = MOPT_OK;
    if (!x || !q) {
        mo_mem_free(x);
        mo_mem_free(q);
        return full(w);
    }
    for (int64_t i = 0; i < n; i++) {
        group.range.low = MO_MIN(group.range.low, x[i]);
        group.range.high = MO_MAX(group.range.high, x[i]);
    }
    mo_quant_params(&group, w->form);
    int low = w->form->act == MO_U8 ? 0 : -128;
    for (int64_t i = 0; i < n; i++) {
        double r = rint((double)x[i] / group.scale) + group.zero;
        q[i] = (int8_t)(int)MO_MIN(MO_MAX(r, low), low + 255);
    }
    mo_value_id scale, zero, qid = constant(w, value->name, "quantized", w->form->act, &shape, q);
    const char *name = w->g->values[c].name;
    if (qid == MO_NONE || !scalar_params(w, name, group.scale, group.zero, &scale, &zero) ||
        (w->dq[c] = named(w, name, "dequantized", MO_F32, &shape)) == MO_NONE ||
        !add_node(w, "DequantizeLinear", name, qid, scale, zero, w->dq[c], MO_UNKNOWN))
        status = full(w);
    mo_mem_free(x);
    mo_mem_free(q);
    return status;
}

/* ---- weights and biases ------------------------------------------------------------------------------ */

static mo_value_id write_weight_params(struct writer *w, const char *base, const struct mo_quant_weight *qw,
                                       mo_value_id *zero_id)
{
    struct mo_shape shape = { .rank = 0 };
    int8_t *zeros = mo_mem_new((size_t)qw->n_scales, 1);
    if (!zeros)
        return MO_NONE;
    if (qw->axis != MO_UNKNOWN) {
        shape.rank = 1;
        shape.dim[0] = qw->n_scales;
    }
    mo_value_id scale = constant(w, base, "scale", MO_F32, &shape, qw->scale);
    *zero_id = constant(w, base, "zero_point", MO_I8, &shape, zeros);
    mo_mem_free(zeros);
    return *zero_id == MO_NONE ? MO_NONE : scale;
}

/* The chain that stands for the weight of a node; *dq is what the node reads. */
static enum mopt_status write_weight(struct writer *w, mo_value_id weight, const struct mo_quant_weight *qw,
                                     struct mo_quant_layer *layer, mo_value_id *dq)
{
    const char *base = w->g->values[weight].name;
    struct mo_shape shape = w->g->values[weight].shape;
    mo_value_id q;
    layer->weight_scale = write_weight_params(w, base, qw, &layer->weight_zero);
    if (layer->weight_scale == MO_NONE)
        return full(w);
    if (w->for_training) {
        q = named(w, base, "quantized", MO_I8, &shape);
        if (q == MO_NONE ||
            !add_node(w, "QuantizeLinear", base, weight, layer->weight_scale, layer->weight_zero, q, qw->axis))
            return full(w);
    } else {
        q = constant(w, base, "quantized", MO_I8, &shape, qw->q);
    }
    *dq = q == MO_NONE ? MO_NONE : named(w, base, "dequantized", MO_F32, &shape);
    if (*dq == MO_NONE ||
        !add_node(w, "DequantizeLinear", base, q, layer->weight_scale, layer->weight_zero, *dq, qw->axis))
        return full(w);
    return MOPT_OK;
}

static enum mopt_status write_bias(struct writer *w, mo_value_id bias, float scale_x, const float *scale_w,
                                   int64_t n_scales, mo_value_id *dq)
{
    const char *base = w->g->values[bias].name;
    struct mo_shape shape = w->g->values[bias].shape, scale_shape = { .rank = n_scales > 1 ? 1 : 0 };
    int32_t *q = NULL;
    float *scale = NULL;
    scale_shape.dim[0] = n_scales;
    MO_TRY(mo_quant_bias(w->job->ctx, &w->g->values[bias], scale_x, scale_w, n_scales, &q, &scale));
    int32_t *zeros = mo_mem_new((size_t)n_scales, sizeof *zeros);
    mo_value_id qid = constant(w, base, "quantized", MO_I32, &shape, q);
    mo_value_id sid = constant(w, base, "scale", MO_F32, &scale_shape, scale);
    mo_value_id zid = zeros ? constant(w, base, "zero_point", MO_I32, &scale_shape, zeros) : MO_NONE;
    mo_mem_free(q);
    mo_mem_free(scale);
    mo_mem_free(zeros);
    *dq = named(w, base, "dequantized", MO_F32, &shape);
    if (qid == MO_NONE || sid == MO_NONE || zid == MO_NONE || *dq == MO_NONE ||
        !add_node(w, "DequantizeLinear", base, qid, sid, zid, *dq, n_scales > 1 ? 0 : MO_UNKNOWN))
        return full(w);
    return MOPT_OK;
}

/* The scale of what node i reads at input 0. */
static const struct mo_quant_group *input_group(const struct writer *w, mo_value_id x)
{
    return &w->plan->groups[w->plan->group[x]];
}

/* Integers for the weight, its scales raised where the bias asks for it. */
static enum mopt_status quantize_layer(struct writer *w, mo_node_id i, mo_value_id x, struct mo_quant_weight *qw,
                                       bool *is_raised)
{
    struct mo_node *n = &w->g->nodes[i];
    const struct mo_value *weight = mo_in(w->g, n, 1), *bias = mo_in(w->g, n, 2);
    int axis = mo_quant_weight_axis(w->g, n, w->form->per_channel);
    float *least = NULL;
    *is_raised = false;
    MO_TRY(mo_quant_weight(w->job->ctx, weight, axis, w->form->weight_max, NULL, qw));
    if (!bias || !w->form->quantize_bias)
        return MOPT_OK;
    enum mopt_status status = mo_quant_bias_least(w->job->ctx, bias, input_group(w, x)->scale, qw, &least);
    if (!status && least) {
        *is_raised = true;
        mo_quant_weight_free(qw);
        status = mo_quant_weight(w->job->ctx, weight, axis, w->form->weight_max, least, qw);
    }
    mo_mem_free(least);
    if (status)
        mo_quant_weight_free(qw);
    return status;
}

/* A weight that another node reads already in this form is written once. */
static bool is_shared(const struct writer *w, mo_value_id weight, const struct mo_quant_weight *qw, bool is_raised)
{
    return !is_raised && weight < w->n_values && w->weight_dq[weight] != MO_NONE && w->weight_axis[weight] == qw->axis;
}

static enum mopt_status write_layer_constants(struct writer *w, mo_node_id i, mo_value_id x, bool is_raised,
                                              const struct mo_quant_weight *qw, struct mo_quant_layer *layer)
{
    mo_value_id weight = layer->weight, weight_dq = MO_NONE, bias_dq;
    if (is_shared(w, weight, qw, is_raised)) {
        const struct mo_quant_layer *other = &w->out->layers[w->weight_layer[weight]];
        weight_dq = w->weight_dq[weight];
        layer->weight_scale = other->weight_scale;
        layer->weight_zero = other->weight_zero;
    } else {
        MO_TRY(write_weight(w, weight, qw, layer, &weight_dq));
        if (!is_raised) {
            w->weight_dq[weight] = weight_dq;
            w->weight_axis[weight] = qw->axis;
            w->weight_layer[weight] = w->out->n_layers;
        }
    }
    w->g->nodes[i].in[1] = weight_dq;
    if (layer->bias == MO_NONE || !w->form->quantize_bias || w->for_training)
        return MOPT_OK;
    MO_TRY(write_bias(w, layer->bias, input_group(w, x)->scale, qw->scale, qw->n_scales, &bias_dq));
    w->g->nodes[i].in[2] = bias_dq;
    return MOPT_OK;
}

static enum mopt_status write_weighted(struct writer *w, mo_node_id i, mo_value_id x)
{
    struct mo_node *n = &w->g->nodes[i];
    struct mo_quant_layer *layer = &w->out->layers[w->out->n_layers];
    struct mo_quant_weight qw;
    bool is_raised;
    *layer = (struct mo_quant_layer){ .name = w->name[i], .type = n->type, .weight = n->in[1],
                                      .bias = n->n_in > 2 ? n->in[2] : MO_NONE, .shown = w->shown[i],
                                      .x_scale = input_group(w, x)->scale_id, .output = n->out[0] };
    MO_TRY(quantize_layer(w, i, x, &qw, &is_raised));
    layer->weight_sqnr_db = qw.sqnr_db;
    layer->axis = qw.axis;
    enum mopt_status status = write_layer_constants(w, i, x, is_raised, &qw, layer);
    mo_quant_weight_free(&qw);
    if (!status)
        w->out->n_layers++;
    return status;
}

/* Lets every int8 node read its DQs. */
static enum mopt_status rewire(struct writer *w)
{
    for (mo_node_id i = 0; i < w->plan->n_nodes; i++) {
        if (w->plan->role[i] != MO_Q_INT8)
            continue;
        bool has_weight = mo_quant_has_weight(w->g, &w->g->nodes[i]);
        mo_value_id x = w->g->nodes[i].in[0];
        for (uint32_t k = 0; k < w->g->nodes[i].n_in; k++) {
            if (!mo_quant_reads_q(w->g, &w->g->nodes[i], k))
                continue;
            mo_value_id v = w->g->nodes[i].in[k];
            if (w->g->values[v].data && w->dq[v] == MO_NONE)
                MO_TRY(write_constant(w, v));
            w->g->nodes[i].in[k] = w->dq[v];
        }
        if (has_weight)
            MO_TRY(write_weighted(w, i, x));
    }
    return MOPT_OK;
}

/* Names as they were before anything is written. */
static enum mopt_status note_names(struct writer *w)
{
    struct mo_graph *g = w->g;
    w->name = mo_arena_new(w->job->scratch, MO_MAX(g->n_nodes, 1u), sizeof *w->name);
    w->shown = mo_arena_new(w->job->scratch, MO_MAX(g->n_nodes, 1u), sizeof *w->shown);
    if (!w->name || !w->shown)
        return full(w);
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        w->name[i] = mo_arena_text(w->job->scratch, mo_quant_name(g, &g->nodes[i]));
        w->shown[i] = mo_quant_shown(g, w->plan, i);
        if (!w->name[i])
            return full(w);
    }
    return MOPT_OK;
}

enum mopt_status mo_quant_write(struct mo_job *job, struct mopt_model *model, const struct mo_quant_form *form,
                                struct mo_quant_plan *plan, bool for_training, struct mo_quant_written *written)
{
    struct mo_graph *g = &model->graph;
    uint32_t n = MO_MAX(g->n_values, 1u);
    struct writer w = { .job = job, .g = g, .form = form, .plan = plan, .for_training = for_training,
                        .n_values = g->n_values, .out = written };
    *written = (struct mo_quant_written){ 0 };
    w.dq = mo_arena_new(job->scratch, n, sizeof *w.dq);
    w.weight_dq = mo_arena_new(job->scratch, n, sizeof *w.weight_dq);
    w.weight_axis = mo_arena_new(job->scratch, n, sizeof *w.weight_axis);
    w.weight_layer = mo_arena_new(job->scratch, n, sizeof *w.weight_layer);
    written->layers = mo_arena_new(job->scratch, MO_MAX(g->n_nodes, 1u), sizeof *written->layers);
    if (!w.dq || !w.weight_dq || !w.weight_axis || !w.weight_layer || !written->layers)
        return mo_no_memory(job->ctx, n * 16, "writing");
    for (uint32_t v = 0; v < n; v++)
        w.dq[v] = w.weight_dq[v] = MO_NONE;
    MO_TRY(note_names(&w));
    MO_TRY(write_params(&w));
    MO_TRY(write_activations(&w));
    MO_TRY(rewire(&w));
    mo_graph_sweep(g);
    MO_TRY(mo_graph_sort(job->ctx, g));
    if (!for_training)
        mo_graph_drop_unused(g);
    return MOPT_OK;
}

/* ---- from the training form to the final one ------------------------------------------------------------ */

static mo_node_id producer_of_type(const struct mo_graph *g, mo_value_id v, const char *type)
{
    mo_node_id n = v == MO_NONE ? MO_NONE : g->values[v].producer;
    return n != MO_NONE && mo_node_is(&g->nodes[n], type) ? n : MO_NONE;
}

/* The integers of the trained weight by the scales it was trained with. */
static enum mopt_status finish_weight(struct writer *w, const struct mo_quant_layer *layer, mo_node_id dq)
{
    struct mo_graph *g = w->g;
    mo_node_id q = producer_of_type(g, g->nodes[dq].in[0], "QuantizeLinear");
    if (q == MO_NONE)
        return MOPT_OK;         /* shared, finished by another layer */
    const struct mo_value *weight = &g->values[layer->weight];
    struct mo_shape shape = weight->shape;
    float *x = mo_value_floats(weight);
    const float *scale = g->values[layer->weight_scale].data;
    int64_t n = mo_value_elems(weight), n_scales = mo_value_elems(&g->values[layer->weight_scale]), inner = 1;
    for (int k = layer->axis + 1; layer->axis != MO_UNKNOWN && k < shape.rank; k++)
        inner *= shape.dim[k];
    int8_t *qs = mo_mem_new((size_t)MO_MAX(n, 1), 1);
    if (!x || !qs) {
        mo_mem_free(x);
        mo_mem_free(qs);
        return full(w);
    }
    float max = (float)w->form->weight_max;
    for (int64_t i = 0; i < n; i++)
        qs[i] = (int8_t)MO_MIN(MO_MAX(rintf(x[i] / scale[i / inner % n_scales]), -max), max);
    mo_value_id id = constant(w, weight->name, "int8", MO_I8, &shape, qs);
    mo_mem_free(x);
    mo_mem_free(qs);
    if (id == MO_NONE)
        return full(w);
    g->nodes[dq].in[0] = id;
    g->nodes[q].is_dead = true;
    return MOPT_OK;
}

static enum mopt_status finish_layer(struct writer *w, const struct mo_quant_layer *layer)
{
    struct mo_graph *g = w->g;
    mo_node_id i = producer_of_type(g, layer->output, layer->type);
    mo_node_id dq = i == MO_NONE ? MO_NONE : producer_of_type(g, g->nodes[i].in[1], "DequantizeLinear");
    if (dq == MO_NONE)
        return mo_fail(w->job->ctx, MOPT_FAILED, "node '%s' is not what it was before training", layer->name);
    MO_TRY(finish_weight(w, layer, dq));
    if (layer->bias == MO_NONE || !w->form->quantize_bias)
        return MOPT_OK;
    const struct mo_value *s = &g->values[layer->weight_scale];
    float scale_x = *(const float *)g->values[layer->x_scale].data;
    mo_value_id bias_dq;
    MO_TRY(write_bias(w, layer->bias, scale_x, s->data, mo_value_elems(s), &bias_dq));
    g->nodes[i].in[2] = bias_dq;
    return MOPT_OK;
}

enum mopt_status mo_quant_finish(struct mo_job *job, struct mopt_model *model, const struct mo_quant_form *form,
                                 const struct mo_quant_written *written)
{
    struct mo_quant_written counts = *written;
    struct writer w = { .job = job, .g = &model->graph, .form = form, .out = &counts };
    for (uint32_t i = 0; i < written->n_layers; i++)
        MO_TRY(finish_layer(&w, &written->layers[i]));
    mo_graph_sweep(w.g);
    MO_TRY(mo_graph_sort(job->ctx, w.g));
    mo_graph_drop_unused(w.g);
    return MOPT_OK;
}
