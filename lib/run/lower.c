/* lower.c - from the user's graph to one that runs.
 *
 * Once for a run (the base): a private copy, cut at the wanted outputs, half
 * precision widened to float32, constants folded, and for inference quantized
 * operators computed in integers (int8.c), BatchNormalization and activations
 * drawn into the convolutions. Once for each
 * set of input shapes: a copy of that with shapes, shape arithmetic folded away,
 * images channels-last. Ids of values stay those of the user's graph; new values
 * come behind them. */
#include <stdio.h>
#include <string.h>

#include "lib/graph/expand.h"
#include "lib/graph/private.h"
#include "lib/run/private.h"

/* Beyond this, constants are only made while running: folding Expand or
 * ConstantOfShape must not fill the memory. */
#define FOLD_CAP_BYTES ((size_t)1 << 30)

bool mo_is_real_input(const struct mo_graph *g, mo_value_id v)
{
    return g->values[v].is_input && !g->values[v].is_initializer && !g->values[v].data;
}

/* ---- outputs ------------------------------------------------------------------------ */

static enum mopt_status cut_outputs(struct mo_run *run, struct mo_graph *g)
{
    const struct mo_run_options *o = &run->options;
    if (!o->outputs)
        return MOPT_OK;
    for (uint32_t i = 0; i < g->n_outputs; i++)
        g->values[g->outputs[i]].is_output = false;
    g->n_outputs = 0;
    for (uint32_t i = 0; i < o->n_outputs; i++)
        if (!mo_graph_add_output(g, o->outputs[i]))
            return mo_no_memory(run->ctx, sizeof(mo_value_id), "outputs");
    return mo_graph_index(run->ctx, g);
}

/* ---- half precision ------------------------------------------------------------------- */

static bool is_half(enum mo_dtype dtype)
{
    return dtype == MO_F16 || dtype == MO_BF16;
}

static enum mopt_status widen_constant(struct mo_run *run, struct mo_graph *g, mo_value_id v)
{
    float *wide = mo_value_floats(&g->values[v]);
    struct mo_shape shape = g->values[v].shape;
    if (!wide)
        return mo_no_memory(run->ctx, mo_value_bytes(&g->values[v]) * 2, "a constant in float32");
    mo_value_set_data(g, v, MO_F32, &shape, wide);
    return MOPT_OK;
}

/* Input v arrives in half precision: its readers get a widened copy. */
static enum mopt_status widen_input(struct mo_run *run, struct mo_graph *g, mo_value_id v)
{
    mo_value_id wide = mo_graph_add_value(g, g->values[v].name, MO_F32, &g->values[v].shape);
    if (wide == MO_NONE)
        return mo_no_memory(run->ctx, sizeof(struct mo_value), "an input in float32");
    mo_graph_replace_uses(g, v, wide);
    mo_node_id cast = mo_graph_add_node(g, "Cast", "", "", &v, 1, &wide, 1);
    if (cast == MO_NONE || !mo_node_set_int(g, cast, "to", MO_F32))
        return mo_no_memory(run->ctx, sizeof(struct mo_node), "an input in float32");
    return MOPT_OK;
}

/* Arithmetic is float32: what the file keeps or casts to half precision is widened. Outputs of the
 * run are then float32 as well. */
static enum mopt_status widen(struct mo_run *run, struct mo_graph *g, bool with_inputs)
{
    uint32_t n_values = g->n_values;
    bool any = false;
    for (mo_value_id v = 0; v < n_values; v++) {
        if (!is_half(g->values[v].dtype))
            continue;
        any = true;
        if (g->values[v].data)
            MO_TRY(widen_constant(run, g, v));
        else if (!mo_is_real_input(g, v))
            g->values[v].dtype = MO_F32;
        else if (with_inputs)
            MO_TRY(widen_input(run, g, v));
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (mo_node_is(&g->nodes[i], "Cast") && is_half((enum mo_dtype)mo_node_int(&g->nodes[i], "to", 0))) {
            any = true;
            if (!mo_node_set_int(g, i, "to", MO_F32))
                return mo_no_memory(run->ctx, sizeof(struct mo_attr), "a Cast");
        }
    return any ? mo_graph_sort(run->ctx, g) : MOPT_OK;
}

/* ---- broadcasting as before opset 7 -------------------------------------------------------- */

/* Input 1 of node i with the trailing axes that its attribute `axis` stands for. */
static enum mopt_status align_operand(struct mo_run *run, struct mo_graph *g, mo_node_id i)
{
    struct mo_shape shape = mo_operand_shape(g, &g->nodes[i]);
    mo_value_id from = g->nodes[i].in[1], to = mo_graph_add_value(g, g->values[from].name, g->values[from].dtype, &shape);
    int64_t axes[MO_MAX_RANK];
    int rank = g->values[from].shape.rank, n_axes = shape.rank - rank;
    for (int k = 0; k < n_axes; k++)
        axes[k] = rank + k;
    mo_node_id node = to == MO_NONE ? MO_NONE : mo_graph_add_node(g, "Unsqueeze", "", "", &from, 1, &to, 1);
    if (node == MO_NONE || !mo_node_set_ints(g, node, "axes", axes, (size_t)n_axes))
        return mo_no_memory(run->ctx, sizeof(struct mo_node), "an operand's axes");
    g->nodes[i].in[1] = to;
    return MOPT_OK;
}

/* From here on numpy's rule holds for them too. Shapes have been inferred. */
static enum mopt_status align_operands(struct mo_run *run, struct mo_graph *g)
{
    static const char *const types[] = { "Add", "Sub", "Mul", "Div", "Pow", "PRelu", "And", "Or", "Xor", "Equal", "Less",
                                         "Greater" };
    bool any = false;
    for (mo_node_id i = 0; g->opset < 7 && i < g->n_nodes; i++) {
        bool is_one = false;
        for (size_t k = 0; !is_one && k < MO_COUNT(types); k++)
            is_one = mo_node_is(&g->nodes[i], types[k]);
        if (!is_one || mo_operand_shape(g, &g->nodes[i]).rank == mo_in(g, &g->nodes[i], 1)->shape.rank)
            continue;
        any = true;
        MO_TRY(align_operand(run, g, i));
    }
    if (!any)
        return MOPT_OK;
    MO_TRY(mo_graph_sort(run->ctx, g));
    return mo_infer(run->ctx, g, NULL, 0);
}

/* ---- nodes that need not run ------------------------------------------------------------ */

static void drop_constant_nodes(struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        struct mo_node *n = &g->nodes[i];
        if (mo_node_is(n, "Constant") && n->n_out == 1 && g->values[n->out[0]].data)
            n->is_dead = true;
    }
    mo_graph_sweep(g);
}

static void forget_params(struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        g->nodes[i].params = NULL;
}

static enum mopt_status fold(struct mo_run *run, struct mo_graph *g)
{
    size_t left = FOLD_CAP_BYTES;
    MO_TRY(mo_fold(run->ctx, g, FOLD_CAP_BYTES, &left, true));
    if (!run->options.keep_names)       /* an observer looks at constants too that only folded nodes read */
        mo_graph_drop_unused(g);
    return MOPT_OK;
}

/* ---- what cannot run ---------------------------------------------------------------------- */

static bool cannot_run(const struct mo_node *n)
{
    return !n->op || !mo_op_runs(n->op);
}

/* All of them at once, each type once: who has to replace one wants to know the others. */
static enum mopt_status refuse_unrunnable(struct mopt_ctx *ctx, const struct mo_graph *g)
{
    char list[640] = "";
    size_t used = 0;
    int n_types = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        bool is_first = cannot_run(n);
        for (mo_node_id k = 0; is_first && k < i; k++)
            is_first = !(cannot_run(&g->nodes[k]) && !strcmp(g->nodes[k].type, n->type));
        if (!is_first)
            continue;
        char label[192];
        const struct mo_op *op = mo_graph_find_op(g, n);
        int wrote = snprintf(list + used, sizeof list - used, "%s%s%s%s%s", n_types++ ? ", " : "",
                             n->domain[0] ? n->domain : "", n->domain[0] ? "." : "",
                             mo_node_label(g, n, label, sizeof label),
                             op && !mo_op_takes(op, n) ? " with another number of inputs or outputs than it has" : "");
        if (wrote > 0 && used + (size_t)wrote < sizeof list)
            used += (size_t)wrote;
    }
    return n_types ? mo_fail(ctx, MOPT_UNSUPPORTED, "mopt cannot run: %s", list) : MOPT_OK;
}

/* ---- the two steps -------------------------------------------------------------------------- */

static enum mopt_status collect_ends(struct mo_run *run, const struct mo_graph *g)
{
    struct mo_run_private *p = run->private_;
    p->inputs = mo_arena_new(&p->arena, g->n_inputs + 1, sizeof *p->inputs);
    p->outputs = mo_arena_new(&p->arena, g->n_outputs + 1, sizeof *p->outputs);
    if (!p->inputs || !p->outputs)
        return mo_no_memory(run->ctx, g->n_inputs + g->n_outputs, "inputs and outputs");
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (mo_is_real_input(g, g->inputs[i]))
            p->inputs[p->n_inputs++] = g->inputs[i];
    for (uint32_t i = 0; i < g->n_outputs; i++)
        p->outputs[p->n_outputs++] = g->outputs[i];
    return MOPT_OK;
}

/* Many exports say 1x3x224x224 and work for any number of samples; those that do not (a Reshape to 1x256) fail when
 * their shapes are inferred. */
static void free_batch(struct mo_run *run, struct mo_graph *base)
{
    const struct mo_run_private *p = run->private_;
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        struct mo_value *v = &base->values[p->inputs[i]];
        if (v->shape.rank > 0)
            v->shape.dim[0] = MO_UNKNOWN;
        if (v->has_declared && v->declared.rank > 0)
            v->declared.dim[0] = MO_UNKNOWN;
    }
}

enum mopt_status mo_lower_base(struct mo_run *run, const struct mo_graph *g)
{
    struct mo_run_private *p = run->private_;
    struct mo_graph *base = &p->base;
    base->arena = &p->arena;
    MO_TRY(mo_graph_copy(run->ctx, base, g, false));
    p->n_user_values = g->n_values;
    forget_params(base);
    MO_TRY(mo_graph_inline(run->ctx, base, g->functions, g->n_functions, NULL));
    MO_TRY(mo_graph_sort(run->ctx, base));
    MO_TRY(cut_outputs(run, base));
    MO_TRY(collect_ends(run, base));
    if (run->options.free_batch)
        free_batch(run, base);
    mo_graph_drop_unused(base);
    drop_constant_nodes(base);
    MO_TRY(widen(run, base, true));
    if (run->options.train)
        MO_TRY(mo_params_take(run));
    MO_TRY(mo_infer(run->ctx, base, NULL, 0));
    MO_TRY(align_operands(run, base));
    if (!run->options.train && !run->options.keep_names) {
        MO_TRY(mo_fold(run->ctx, base, FOLD_CAP_BYTES, NULL, false));
        MO_TRY(mo_int8_base(run->ctx, base));
    }
    MO_TRY(fold(run, base));
    if (!run->options.train && !run->options.keep_names)
        MO_TRY(mo_fuse_base(run->ctx, base));
    return MOPT_OK;
}

enum mopt_status mo_lower_shapes(struct mo_run *run, struct mo_plan *plan, const struct mo_shape *shapes)
{
    struct mo_run_private *p = run->private_;
    struct mo_graph *g = &plan->graph;
    g->arena = &plan->arena;
    MO_TRY(mo_graph_copy(run->ctx, g, &p->base, false));
    forget_params(g);
    struct mo_binding *bindings = mo_arena_new(&plan->arena, p->n_inputs + 1, sizeof *bindings);
    if (!bindings)
        return mo_no_memory(run->ctx, sizeof *bindings, "shapes of inputs");
    for (uint32_t i = 0; i < p->n_inputs; i++)
        bindings[i] = (struct mo_binding){ p->inputs[i], shapes[i] };
    MO_TRY(mo_infer(run->ctx, g, bindings, p->n_inputs));
    for (uint32_t i = 0; i < p->n_inputs; i++)
        g->values[p->inputs[i]].has_declared = false;       /* from here on these are the shapes */
    if (run->options.train) {
        MO_TRY(mo_unroll(run->ctx, g));
        MO_TRY(widen(run, g, false));       /* what came out of graphs */
        MO_TRY(mo_infer(run->ctx, g, NULL, 0));
    }
    MO_TRY(mo_expand_graph(run->ctx, g));
    MO_TRY(fold(run, g));
    MO_TRY(refuse_unrunnable(run->ctx, g));
    MO_TRY(mo_layout(run, plan));
    MO_TRY(fold(run, g));
    if (!run->options.keep_names)
        MO_TRY(mo_fuse_plan(run, g));
    if (run->options.half && !run->options.keep_names)
        MO_TRY(mo_bf16_plan(run, g));
    return mo_infer(run->ctx, g, NULL, 0);
}
