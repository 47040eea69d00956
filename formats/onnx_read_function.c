/* onnx_read_function.c - FunctionProto: read as a graph whose inputs and outputs have names alone.
 *
 * A function that cannot be read is no reason to refuse the model: it is kept and written as it came, and calls of it
 * stay nodes that mopt does not know. */
#include "formats/onnx.h"

static enum mopt_status no_room(struct mo_onnx_in *in)
{
    return mo_no_memory(in->ctx, sizeof(struct mo_graph), "a function");
}

/* A list of names as declarations without types. */
static MoOnnx__ValueInfoProto **declarations(struct mo_onnx_in *in, char **names, size_t n)
{
    MoOnnx__ValueInfoProto **list = mo_arena_new(in->arena, n + 1, sizeof *list);
    MoOnnx__ValueInfoProto *infos = mo_arena_new(in->arena, n + 1, sizeof *infos);
    for (size_t k = 0; list && infos && k < n; k++) {
        mo_onnx__value_info_proto__init(&infos[k]);
        infos[k].name = names[k];
        list[k] = &infos[k];
    }
    return infos ? list : NULL;
}

static enum mopt_status read_defaults(struct mo_onnx_in *in, struct mo_function *f, const MoOnnx__FunctionProto *p)
{
    struct mo_onnx_scope scope = { .graph = f->body };
    f->defaults = mo_arena_new(in->arena, p->n_attribute_proto + 1, sizeof *f->defaults);
    if (!f->defaults)
        return no_room(in);
    for (size_t k = 0; k < p->n_attribute_proto; k++)
        MO_TRY(mo_onnx_attr(in, p->attribute_proto[k], &f->defaults[f->n_defaults++], &scope));
    return MOPT_OK;
}

static enum mopt_status read_imports(struct mo_onnx_in *in, struct mo_function *f, const MoOnnx__FunctionProto *p)
{
    struct mo_import *imports = mo_arena_new(in->arena, p->n_opset_import + 1, sizeof *imports);
    if (!imports)
        return no_room(in);
    for (size_t k = 0; k < p->n_opset_import; k++) {
        const char *domain = p->opset_import[k]->domain;
        imports[f->n_imports++] = (struct mo_import){ domain ? domain : "", p->opset_import[k]->version };
    }
    f->imports = imports;
    return MOPT_OK;
}

static enum mopt_status read_function(struct mo_onnx_in *in, struct mo_function *f, MoOnnx__FunctionProto *p, int opset)
{
    MoOnnx__GraphProto graph;
    mo_onnx__graph_proto__init(&graph);
    f->name = p->name ? p->name : "";
    f->domain = p->domain ? p->domain : "";
    f->overload = p->overload ? p->overload : "";
    f->body->arena = in->arena;
    f->body->opset = opset;
    graph.name = p->name;
    graph.n_node = p->n_node;
    graph.node = p->node;
    graph.n_input = p->n_input;
    graph.n_output = p->n_output;
    graph.input = declarations(in, p->input, p->n_input);
    graph.output = declarations(in, p->output, p->n_output);
    if (!graph.input || !graph.output)
        return no_room(in);
    MO_TRY(mo_onnx_graph(in, &graph, f->body, NULL));
    MO_TRY(read_imports(in, f, p));
    return read_defaults(in, f, p);
}

enum mopt_status mo_onnx_functions(struct mo_onnx_in *in, struct mopt_model *m, MoOnnx__ModelProto *p)
{
    m->functions = mo_arena_new(in->arena, p->n_functions + 1, sizeof *m->functions);
    if (!m->functions)
        return no_room(in);
    for (size_t i = 0; i < p->n_functions; i++) {
        struct mo_function *f = &m->functions[m->n_functions];
        *f = (struct mo_function){ .body = mo_arena_new(in->arena, 1, sizeof *f->body) };
        if (!f->body)
            return no_room(in);
        enum mopt_status status = read_function(in, f, p->functions[i], m->graph.opset);
        m->n_functions += !status;
        if (status)
            mo_graph_release(f->body);
        if (status == MOPT_UNSUPPORTED)
            mopt_clear(in->ctx);
        else
            MO_TRY(status);
    }
    m->graph.functions = m->functions;
    m->graph.n_functions = m->n_functions;
    return MOPT_OK;
}
