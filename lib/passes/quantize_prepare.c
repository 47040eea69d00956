/* quantize_prepare.c - the graph brought into the form that quantization wants. Every rewrite keeps the function;
 * those marked * are shared with simplify (rewrite.h):
 *
 *   initializers are no longer graph inputs (a runtime may not fold what a caller may override)
 *   constants folded, Identity and Dropout dropped *
 *   Conv, ConvTranspose, Gemm followed by BatchNormalization, or by Mul, Div, Add, Sub with a constant:
 *       y = a[c] (W x + b) + d[c]   becomes   W'[c] = a[c] W[c], b'[c] = a[c] b[c] + d[c] *
 *   MatMul and a constant Add become Gemm where both operands are matrices *
 *   alpha and beta of Gemm go into its constants, a bias of one row becomes a vector *
 *   Relu behind MaxPool goes before it; zero Pad goes into the Conv behind it *
 *   Sum of two becomes Add
 *   ReduceMean over height and width becomes GlobalAveragePool
 *
 * A rewrite needs that nobody else reads the value in between. */
#include "lib/passes/quantize.h"
#include "lib/passes/rewrite.h"

#include <math.h>
#include <string.h>

struct prep { struct mopt_ctx *ctx; struct mo_graph *g; struct mo_prepared *done; bool changed; };

/* ---- moving nodes --------------------------------------------------------------------------------- */

/* max(relu(x)) = relu(max(x)), and the Relu is free when it follows the Conv. */
static enum mopt_status swap_relu(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    mo_node_id pool = mo_private_maker(g, &g->nodes[i], 0);
    if (pool == MO_NONE || !mo_node_is(&g->nodes[pool], "MaxPool") ||
        (g->nodes[pool].n_out > 1 && g->nodes[pool].out[1] != MO_NONE))
        return MOPT_OK;
    mo_node_id maker = mo_private_maker(g, &g->nodes[pool], 0);
    if (maker == MO_NONE || !g->nodes[maker].op || g->nodes[maker].op->quant.kind != MO_QUANT_WEIGHTED)
        return MOPT_OK;
    mo_value_id x = g->nodes[pool].in[0], y = g->nodes[i].out[0];
    struct mo_shape shape = g->values[x].shape;
    const char *name = mo_arena_printf(g->arena, "%s_relu", g->values[x].name);
    mo_value_id middle = name ? mo_graph_add_value(g, name, MO_F32, &shape) : MO_NONE;
    if (middle == MO_NONE)
        return mo_no_memory(p->ctx, 64, "a value");
    g->nodes[i].in[0] = x;
    g->nodes[i].out[0] = middle;
    g->nodes[pool].in[0] = middle;
    g->nodes[pool].out[0] = y;
    p->changed = true;
    return mo_graph_sort(p->ctx, g);
}

/* ReduceMean of an image over height and width. Without keepdims a Flatten follows. */
static enum mopt_status make_pool(struct prep *p, mo_node_id i)
{
    struct mo_graph *g = p->g;
    const struct mo_node *n = &g->nodes[i];
    const struct mo_value *x = mo_in(g, n, 0);
    int axes[MO_MAX_RANK], n_axes;
    if (!x || x->dtype != MO_F32 || x->shape.rank != 4 ||
        mo_axes(p->ctx, g, n, 1, 4, axes, &n_axes) || n_axes != 2 || axes[0] + axes[1] != 5 || axes[0] * axes[1] != 6) {
        mopt_clear(p->ctx);
        return MOPT_OK;
    }
    bool keeps = mo_node_int(n, "keepdims", 1);
    mo_value_id in = n->in[0], y = n->out[0], pooled = y;
    const char *name = n->name;
    if (!keeps) {
        struct mo_shape shape = { .rank = 4, .dim = { x->shape.dim[0], x->shape.dim[1], 1, 1 } };
        const char *value = mo_arena_printf(g->arena, "%s_pooled", g->values[y].name);
        pooled = value ? mo_graph_add_value(g, value, MO_F32, &shape) : MO_NONE;
    }
    g->nodes[i].is_dead = true;
    if (pooled == MO_NONE || mo_graph_add_node(g, "GlobalAveragePool", NULL, name, &in, 1, &pooled, 1) == MO_NONE ||
        (!keeps && mo_graph_add_node(g, "Flatten", NULL, NULL, &pooled, 1, &y, 1) == MO_NONE))
        return mo_no_memory(p->ctx, 64, "a node");
    p->done->n_pool++;
    p->changed = true;
    return mo_graph_sort(p->ctx, g);
}

/* ---- all of them ---------------------------------------------------------------------------------- */

/* One of the shared rewrites; how often it changed something goes into *count. */
static enum mopt_status shared(struct prep *p, mo_rewrite_fn *fn, mo_node_id i, uint32_t *count)
{
    struct mo_rewrite r = { .ctx = p->ctx, .g = p->g };
    MO_TRY(fn(&r, i));
    *count += r.n_changes;
    p->changed |= r.n_changes > 0;
    return MOPT_OK;
}

static enum mopt_status rewrite(struct prep *p, mo_node_id i)
{
    const struct mo_node *n = &p->g->nodes[i];
    uint32_t others = 0;
    if (mo_node_is(n, "Identity") || mo_node_is(n, "Dropout"))
        return shared(p, mo_rewrite_identity, i, &p->done->n_identity);
    if (mo_node_is(n, "BatchNormalization"))
        return shared(p, mo_rewrite_batchnorm, i, &p->done->n_batchnorm);
    if (mo_node_is(n, "Add") || mo_node_is(n, "Sub") || mo_node_is(n, "Mul") || mo_node_is(n, "Div")) {
        MO_TRY(shared(p, mo_rewrite_arithmetic, i, &p->done->n_bias));
        return p->g->nodes[i].is_dead ? MOPT_OK : shared(p, mo_rewrite_make_gemm, i, &p->done->n_gemm);
    }
    if (mo_node_is(n, "Gemm"))
        return shared(p, mo_rewrite_tidy_gemm, i, &others);
    if (mo_node_is(n, "Relu"))
        return swap_relu(p, i);
    if (mo_node_is(n, "Conv"))
        return shared(p, mo_rewrite_pad, i, &others);
    if (mo_node_is(n, "ReduceMean"))
        return make_pool(p, i);
    if (mo_node_is(n, "Sum") && n->n_in == 2 && p->g->opset >= 8) {
        p->g->nodes[i].type = "Add";
        return mo_graph_index(p->ctx, p->g);
    }
    return MOPT_OK;
}

/* Initializers that are inputs too are what old files have; nobody can mean to override a weight that is quantized.
 * From IR 4 on they need not be inputs. */
void mo_quant_free_initializers(struct mopt_model *model)
{
    struct mo_graph *g = &model->graph;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        struct mo_value *v = &g->values[g->inputs[i]];
        if (v->is_initializer)
            v->is_input = false;
        else
            g->inputs[kept++] = g->inputs[i];
    }
    g->n_inputs = kept;
    model->ir_version = MO_MAX(model->ir_version, 4);
}

enum mopt_status mo_quant_prepare(struct mopt_ctx *ctx, struct mopt_model *model, struct mo_prepared *prepared)
{
    struct prep p = { .ctx = ctx, .g = &model->graph, .done = prepared, .changed = true };
    *prepared = (struct mo_prepared){ 0 };
    mo_quant_free_initializers(model);
    MO_TRY(mo_graph_index(ctx, p.g));
    MO_TRY(mo_infer(ctx, p.g, NULL, 0));
    MO_TRY(mo_fold_constants(ctx, p.g, MO_QUANT_FOLD_BYTES, NULL));
    mo_graph_sweep(p.g);
    while (p.changed) {
        p.changed = false;
        MO_TRY(mo_infer(ctx, p.g, NULL, 0));
        for (mo_node_id i = 0; i < p.g->n_nodes; i++)
            if (!p.g->nodes[i].is_dead)
                MO_TRY(rewrite(&p, i));
        mo_graph_sweep(p.g);
    }
    mo_graph_drop_unused(p.g);
    return mo_infer(ctx, p.g, NULL, 0);
}
