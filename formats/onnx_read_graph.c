/* onnx_read_graph.c - GraphProto to mo_graph.
 *
 * First everything that has a name gets a value: inputs, initializers, outputs of
 * nodes. Then nodes look up what they read; a name that is not here but in a graph
 * around it becomes a captured value here, and a capture of the node over there. */
#include "formats/onnx.h"
#include "lib/graph/op.h"

#include <string.h>

static enum mopt_status no_room(struct mo_onnx_in *in)
{
    return mo_no_memory(in->ctx, sizeof(struct mo_value), "the graph");
}

/* A new value under a name that must be free. */
static enum mopt_status declare(struct mo_onnx_in *in, struct mo_onnx_scope *s, const char *name, mo_value_id *id)
{
    if (mo_names_find(&s->names, s->graph, name) != MO_NONE)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "the name '%s' is given to two values", name);
    *id = mo_graph_new_value(s->graph, name);
    if (*id == MO_NONE || !mo_names_add(&s->names, s->graph, *id))
        return no_room(in);
    return MOPT_OK;
}

/* ---- captures --------------------------------------------------------------------------- */

static bool add_capture(struct mo_onnx_scope *s, mo_value_id id)
{
    for (uint32_t i = 0; i < s->n_captures; i++)
        if (s->captures[i] == id)
            return true;
    mo_value_id *grown = mo_graph_grow(s->graph->arena, s->captures, s->n_captures, &s->cap_captures, sizeof *grown);
    if (!grown)
        return false;
    s->captures = grown;
    grown[s->n_captures++] = id;
    return true;
}

/* The value of that name as the graph of s sees it; *id is MO_NONE when no graph around has it either. */
static enum mopt_status resolve(struct mo_onnx_in *in, struct mo_onnx_scope *s, const char *name, mo_value_id *id)
{
    struct mo_onnx_scope *home = s, *path[MO_ONNX_MAX_DEPTH];
    int n = 0;
    while (home && (*id = mo_names_find(&home->names, home->graph, name)) == MO_NONE) {
        path[n++] = home;
        home = home->up;
    }
    if (!home)
        return MOPT_OK;
    while (n--) {       /* from where it is, inwards */
        struct mo_onnx_scope *inner = path[n];
        const struct mo_value outer = inner->up->graph->values[*id];
        if (!add_capture(inner->up, *id))
            return no_room(in);
        MO_TRY(declare(in, inner, outer.name, id));
        struct mo_value *v = &inner->graph->values[*id];
        v->dtype = outer.dtype;
        v->shape = outer.shape;
        v->is_captured = true;
    }
    return MOPT_OK;
}

/* ---- inputs, initializers, outputs ---------------------------------------------------------- */

static enum mopt_status read_inputs(struct mo_onnx_in *in, struct mo_onnx_scope *s, const MoOnnx__GraphProto *p)
{
    struct mo_graph *g = s->graph;
    g->inputs = mo_arena_new(in->arena, p->n_input + 1, sizeof *g->inputs);
    if (!g->inputs)
        return no_room(in);
    for (size_t i = 0; i < p->n_input; i++) {
        const char *name = p->input[i]->name;
        mo_value_id id;
        if (!name || !name[0])
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "input %zu of the graph has no name", i);
        MO_TRY(declare(in, s, name, &id));
        g->inputs[g->n_inputs++] = id;
        g->values[id].is_input = true;
        MO_TRY(mo_onnx_info(in, p->input[i], &g->values[id]));
    }
    return MOPT_OK;
}

static enum mopt_status read_initializer(struct mo_onnx_in *in, struct mo_onnx_scope *s, MoOnnx__TensorProto *t)
{
    struct mo_graph *g = s->graph;
    const char *name = t->name;
    if (!name || !name[0])
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "an initializer has no name");
    mo_value_id id = mo_names_find(&s->names, g, name);
    if (id == MO_NONE)
        MO_TRY(declare(in, s, name, &id));
    else if (!g->values[id].is_input || g->values[id].is_initializer)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "two initializers are called '%s'", name);
    struct mo_tensor_const tensor;
    enum mo_data_owner owner;
    const char *doc = t->doc_string;
    t->doc_string = NULL;
    MO_TRY(mo_onnx_tensor(in, t, true, &tensor, &owner));
    struct mo_value *v = &g->values[id];
    v->data = (void *)tensor.data;
    v->owner = owner;
    if (v->is_input && !v->is_untyped && v->dtype != tensor.dtype)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "input '%s' is %s, but its initializer is %s", name,
                       mo_dtype_name(v->dtype), mo_dtype_name(tensor.dtype));
    if (v->shape.rank != tensor.shape.rank) {
        v->dim_names = NULL;
        v->kept_dims = NULL;
    }
    v->dtype = tensor.dtype;
    v->shape = tensor.shape;
    v->strings = tensor.strings;
    v->kept_tensor = tensor.kept;
    v->string_data_doc = doc;
    return mo_graph_make_initializer(g, id) ? MOPT_OK : no_room(in);
}

/* Sparse initializers stay in the rest of the graph; a value stands for each. */
static enum mopt_status read_sparse(struct mo_onnx_in *in, struct mo_onnx_scope *s, const MoOnnx__GraphProto *p)
{
    for (size_t i = 0; i < p->n_sparse_initializer; i++) {
        const MoOnnx__SparseTensorProto *t = p->sparse_initializer[i];
        const char *name = t->values ? t->values->name : NULL;
        if (!name || !name[0])
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "sparse initializer %zu has no name", i);
        mo_value_id id = mo_names_find(&s->names, s->graph, name);
        if (id == MO_NONE)
            MO_TRY(declare(in, s, name, &id));
        else if (!s->graph->values[id].is_input)
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "two initializers are called '%s'", name);
        struct mo_value *v = &s->graph->values[id];
        v->is_sparse = true;
        if (t->values->data_type > MO_UNDEFINED && t->values->data_type < MO_N_DTYPES)
            v->dtype = (enum mo_dtype)t->values->data_type;
        if (t->n_dims > MO_MAX_RANK)
            continue;
        v->shape.rank = (int)t->n_dims;
        for (size_t k = 0; k < t->n_dims; k++)
            v->shape.dim[k] = t->dims[k] < 0 ? MO_UNKNOWN : t->dims[k];
    }
    return MOPT_OK;
}

/* Whether an entry says just what the first one for its value (an input's or output's) said. The first was
 * emptied when it was read, so this compares what the value would be written as: type and names. */
static bool agrees(const struct mo_value *v, const MoOnnx__ValueInfoProto *info)
{
    const MoOnnx__TypeProto *type = info->type;
    if (v->is_untyped || !type || type->value_case != MO_ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || type->denotation ||
        info->doc_string || info->n_metadata_props || v->kept_info.n_bytes || v->kept_dims || v->kept_type)
        return false;
    const MoOnnx__TypeProto__Tensor *t = type->tensor_type;
    int rank = t->shape ? (int)t->shape->n_dim : MO_UNKNOWN;
    if (t->elem_type != (int)v->dtype || rank != v->shape.rank)
        return false;
    for (int i = 0; i < rank; i++) {
        const MoOnnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
        const char *name = v->dim_names ? v->dim_names[i] : NULL;
        bool has_value = d->value_case == MO_ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        bool has_name = d->value_case == MO_ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        if ((has_value ? d->dim_value : MO_UNKNOWN) != v->shape.dim[i] || has_name != (name != NULL) ||
            (name && strcmp(name, d->dim_param)) || d->denotation)
            return false;
    }
    return true;
}

static enum mopt_status read_outputs(struct mo_onnx_in *in, struct mo_onnx_scope *s, const MoOnnx__GraphProto *p)
{
    struct mo_graph *g = s->graph;
    g->outputs = mo_arena_new(in->arena, p->n_output + 1, sizeof *g->outputs);
    if (!g->outputs)
        return no_room(in);
    for (size_t i = 0; i < p->n_output; i++) {
        const char *name = p->output[i]->name;
        mo_value_id id = MO_NONE;
        if (!name || !name[0])
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "output %zu of the graph has no name", i);
        MO_TRY(resolve(in, s, name, &id));
        if (id == MO_NONE)
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "output '%s' of the graph is made by no node", name);
        struct mo_value *v = &g->values[id];
        if (!v->has_info)
            MO_TRY(mo_onnx_info(in, p->output[i], v));
        else if (!agrees(v, p->output[i]))
            mo_warn(in->ctx, "read", "'%s' is input and output, or output twice: its first type is kept", name);
        v->is_output = true;
        g->outputs[g->n_outputs++] = id;
    }
    return MOPT_OK;
}

/* Entries for values that are inputs or outputs too, and say something else, move to the rest of the graph;
 * the others are taken out of it. */
static enum mopt_status read_infos(struct mo_onnx_in *in, struct mo_onnx_scope *s, MoOnnx__GraphProto *p)
{
    struct mo_graph *g = s->graph;
    size_t n_rest = 0;
    g->infos = mo_arena_new(in->arena, p->n_value_info + 1, sizeof *g->infos);
    if (!g->infos)
        return no_room(in);
    for (size_t i = 0; i < p->n_value_info; i++) {
        MoOnnx__ValueInfoProto *info = p->value_info[i];
        if (!info->name || !info->name[0])
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "entry %zu of value_info has no name", i);
        mo_value_id id = mo_names_find(&s->names, g, info->name);
        if (id == MO_NONE)
            MO_TRY(declare(in, s, info->name, &id));
        struct mo_value *v = &g->values[id];
        if (v->has_info && !agrees(v, info)) {
            p->value_info[n_rest++] = info;
            continue;
        }
        if (!v->has_info)
            MO_TRY(mo_onnx_info(in, info, v));
        g->infos[g->n_infos++] = id;
    }
    p->n_value_info = n_rest;
    return MOPT_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------- */

static enum mopt_status read_head(struct mo_onnx_in *in, struct mo_onnx_scope *s, MoOnnx__NodeProto *p,
                                  struct mo_node *n)
{
    n->name = p->name ? p->name : "";
    n->type = p->op_type ? p->op_type : "";
    n->domain = p->domain ? p->domain : "";
    n->overload = p->overload;
    n->n_in = (uint32_t)p->n_input;
    n->n_out = (uint32_t)p->n_output;
    n->in = mo_arena_new(in->arena, p->n_input + 1, sizeof *n->in);
    n->out = mo_arena_new(in->arena, p->n_output + 1, sizeof *n->out);
    if (!n->in || !n->out)
        return no_room(in);
    for (size_t k = 0; k < p->n_output; k++) {
        n->out[k] = MO_NONE;
        if (p->output[k][0])
            MO_TRY(declare(in, s, p->output[k], &n->out[k]));
    }
    return MOPT_OK;
}

static enum mopt_status read_attrs(struct mo_onnx_in *in, struct mo_onnx_scope *s, MoOnnx__NodeProto *p,
                                   struct mo_node *n)
{
    n->attrs = mo_arena_new(in->arena, p->n_attribute + 1, sizeof *n->attrs);
    if (!n->attrs)
        return no_room(in);
    for (size_t k = 0; k < p->n_attribute; k++) {
        const char *name = p->attribute[k]->name;
        if (name && mo_node_attr(n, name))
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "attribute '%s' is given twice", name);
        /* counted first, so that what a failing subgraph holds is released with the graph */
        struct mo_attr *a = &n->attrs[n->n_attrs++];
        MO_TRY(mo_onnx_attr(in, p->attribute[k], a, s));
    }
    return MOPT_OK;
}

/* Inputs, attributes, and what is kept. Subgraphs may make the array of nodes of *their* graph move, not this one. */
static enum mopt_status read_body(struct mo_onnx_in *in, struct mo_onnx_scope *s, MoOnnx__NodeProto *p, mo_node_id id)
{
    struct mo_node *n = &s->graph->nodes[id];
    for (size_t k = 0; k < p->n_input; k++) {
        n->in[k] = MO_NONE;
        if (!p->input[k][0])
            continue;
        MO_TRY(resolve(in, s, p->input[k], &n->in[k]));
        if (n->in[k] == MO_NONE)
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "reads '%s', which nothing makes", p->input[k]);
    }
    s->captures = NULL;
    s->n_captures = s->cap_captures = 0;
    MO_TRY(read_attrs(in, s, p, n));
    n->captures = s->captures;
    n->n_captures = s->n_captures;
    if (!mo_node_take_constant(s->graph, n))
        return mo_no_memory(in->ctx, 16, "a constant");
    p->name = p->op_type = p->domain = p->overload = NULL;
    p->n_input = p->n_output = p->n_attribute = 0;
    return mo_onnx_keep(in, &p->base, &n->kept);
}

static enum mopt_status read_nodes(struct mo_onnx_in *in, struct mo_onnx_scope *s, const MoOnnx__GraphProto *p)
{
    struct mo_graph *g = s->graph;
    if (p->n_node >= UINT32_MAX / 2)
        return mo_fail(in->ctx, MOPT_LIMIT, "more nodes than mopt can count");
    g->nodes = mo_arena_new(in->arena, p->n_node + 1, sizeof *g->nodes);
    if (!g->nodes)
        return no_room(in);
    g->cap_nodes = (uint32_t)p->n_node + 1;
    for (size_t i = 0; i < p->n_node; i++)
        MO_TRY(read_head(in, s, p->node[i], &g->nodes[g->n_nodes++]));
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        enum mopt_status status = read_body(in, s, p->node[i], i);
        char label[200];
        if (status) {
            mo_blame(in->ctx, "%s", mo_node_label(g, &g->nodes[i], label, sizeof label));
            return status;
        }
    }
    return MOPT_OK;
}

static enum mopt_status read_parts(struct mo_onnx_in *in, struct mo_onnx_scope *s, MoOnnx__GraphProto *p)
{
    struct mo_graph *g = s->graph;
    g->name = p->name ? p->name : "";
    MO_TRY(read_inputs(in, s, p));
    for (size_t i = 0; i < p->n_initializer; i++)
        MO_TRY(read_initializer(in, s, p->initializer[i]));
    MO_TRY(read_sparse(in, s, p));
    MO_TRY(read_nodes(in, s, p));
    MO_TRY(read_outputs(in, s, p));
    MO_TRY(read_infos(in, s, p));
    p->name = NULL;
    p->n_node = p->n_initializer = p->n_input = p->n_output = 0;
    MO_TRY(mo_onnx_keep(in, &p->base, &g->kept));
    MO_TRY(mo_graph_sort(in->ctx, g));
    return MOPT_OK;
}

enum mopt_status mo_onnx_graph(struct mo_onnx_in *in, MoOnnx__GraphProto *p, struct mo_graph *g,
                               struct mo_onnx_scope *up)
{
    struct mo_onnx_scope scope = { .graph = g, .up = up };
    enum mopt_status status = read_parts(in, &scope, p);
    mo_names_release(&scope.names);
    return status;
}
