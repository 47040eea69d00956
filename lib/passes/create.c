/* create.c - a new model: its input, its layers, its output, fresh weights. Opset 17, IR 8, a free
 * batch dimension N; what other tools of 2022 and later read. */
#include <string.h>

#include "lib/graph/infer.h"
#include "lib/passes/create.h"
#include "lib/passes/train.h"

enum { OPSET = 17, IR_VERSION = 8 };

static const struct mo_family *find_family(struct mopt_ctx *ctx, const char *name)
{
    enum { MAX_FAMILIES = 16 };
    const char *names[MAX_FAMILIES];
    size_t n = 0;
    for (const struct mo_family *f; n < MAX_FAMILIES && (f = mo_family_at(n)); names[n++] = f->name)
        if (!strcmp(f->name, name))
            return f;
    const char *nearest = mo_nearest(name, names, n);
    mo_fail(ctx, MOPT_USAGE, "there is no family '%s'; %s%s%s", name, nearest ? "'" : "mlp, lenet5, cnn, resnet20, "
            "resnet18, mobilenetv2 and transformer are known", nearest ? nearest : "", nearest ? "' is near" : "");
    return NULL;
}

/* The graph's input: N, then the sample. */
static void start(struct mo_build *b)
{
    struct mo_shape shape = { .rank = b->shape.rank + 1, .dim[0] = MO_UNKNOWN };
    for (int i = 0; i < b->shape.rank; i++)
        shape.dim[i + 1] = b->shape.dim[i];
    b->x = mo_graph_add_value(b->g, "input", MO_F32, &shape);
    const char **names = mo_arena_new(&b->model->arena, MO_MAX_RANK, sizeof *names);
    if (b->x == MO_NONE || !names || !mo_graph_add_input(b->g, b->x)) {
        b->status = mo_no_memory(b->ctx, sizeof shape, "the input");
        return;
    }
    names[0] = "N";
    b->g->values[b->x].dim_names = names;
}

/* The output carries the input's name for the batch. */
static void finish(struct mo_build *b)
{
    if (b->status)
        return;
    if (!b->g->n_nodes) {
        b->status = mo_fail(b->ctx, MOPT_USAGE, "a model needs at least one layer");
        return;
    }
    b->g->values[b->x].dim_names = b->g->values[b->g->inputs[0]].dim_names;
    b->g->values[b->x].name = "output";
    if (!mo_graph_add_output(b->g, b->x))
        b->status = mo_no_memory(b->ctx, 64, "the output");
}

static enum mopt_status check_input(struct mopt_ctx *ctx, const struct mo_shape *input)
{
    enum { MAX_SAMPLE_RANK = 4 };
    if (input->rank < 1 || input->rank > MAX_SAMPLE_RANK)
        return mo_fail(ctx, MOPT_USAGE, "the input of one sample has 1 to %d axes, like 1x28x28", MAX_SAMPLE_RANK);
    for (int i = 0; i < input->rank; i++)
        if (input->dim[i] <= 0 || input->dim[i] > INT32_MAX)
            return mo_fail(ctx, MOPT_USAGE, "the input's size %lld makes no sense", (long long)input->dim[i]);
    return mo_shape_elems(input) < 0 ? mo_fail(ctx, MOPT_USAGE, "the input is too large") : MOPT_OK;
}

static enum mopt_status build(struct mopt_ctx *ctx, const struct mo_create_spec *spec, const struct mo_family *family,
                              struct mopt_model *model)
{
    struct mo_build b = { .ctx = ctx, .model = model, .g = &model->graph, .shape = spec->input,
                          .width = spec->width > 0 ? spec->width : 1 };
    bool is_mlp = family && !strcmp(family->name, "mlp");
    if (b.shape.rank == MO_UNKNOWN && is_mlp && spec->n_widths)
        b.shape = mo_shape_of(1, spec->widths[0]);
    else if (b.shape.rank == MO_UNKNOWN && family)
        b.shape = family->input;
    else if (b.shape.rank == MO_UNKNOWN)
        return mo_fail(ctx, MOPT_USAGE, "a chain of layers needs an input, like [1, 28, 28]");
    if (family && !is_mlp && spec->n_widths)
        return mo_fail(ctx, MOPT_USAGE, "layers are for an mlp; '%s' takes width", family->name);
    MO_TRY(check_input(ctx, &b.shape));
    if (spec->classes < 0 || spec->classes > INT32_MAX || b.width > 1000)
        return mo_fail(ctx, MOPT_USAGE, "classes or width make no sense");
    start(&b);
    if (family)
        family->build(&b, spec, spec->classes ? spec->classes : family->classes);
    else
        mo_create_chain(&b, spec->layers, spec->n_layers);
    finish(&b);
    return b.status;
}

enum mopt_status mo_create(struct mopt_ctx *ctx, const struct mo_create_spec *spec, uint64_t seed,
                           struct mopt_model **model)
{
    *model = NULL;
    const struct mo_family *family = spec->family ? find_family(ctx, spec->family) : NULL;
    if (spec->family && !family)
        return ctx->status;
    struct mopt_model *m = mo_model_new();
    if (!m)
        return mo_no_memory(ctx, sizeof *m, "a model");
    m->ir_version = IR_VERSION;
    m->graph.name = mo_arena_text(&m->arena, spec->name ? spec->name : spec->family ? spec->family : "chain");
    bool ok = m->graph.name && mo_model_set_opset(m, "", OPSET) && mo_model_set_meta(m, "mopt.trained", "0");
    enum mopt_status status = ok ? build(ctx, spec, family, m) : mo_no_memory(ctx, 256, "a model");
    if (!status)
        status = mo_graph_sort(ctx, &m->graph);
    if (!status)
        status = mo_infer(ctx, &m->graph, NULL, 0);
    if (!status)
        status = mo_init_params(ctx, m, seed);
    if (status)
        mopt_model_free(m);
    else
        *model = m;
    return status;
}
