/* onnx_read_attr.c - AttributeProto. */
#include "formats/onnx.h"

#include <string.h>

enum { TYPE_SPARSE_TENSOR = 11, TYPE_SPARSE_TENSORS = 12, TYPE_TYPE_PROTO = 13, TYPE_TYPE_PROTOS = 14 };

/* Before IR 3 writers left the type out: the field that is there tells it. */
static int kind_of(const MoOnnx__AttributeProto *p)
{
    if (p->ref_attr_name && p->ref_attr_name[0])
        return MO_ATTR_OTHER;
    if (p->has_type && p->type != MO_ATTR_UNDEFINED)
        return p->type > 0 && p->type <= MO_ATTR_GRAPHS ? p->type : MO_ATTR_OTHER;
    return p->t ? MO_ATTR_TENSOR : p->g ? MO_ATTR_GRAPH : p->has_s ? MO_ATTR_STRING
         : p->has_f ? MO_ATTR_FLOAT : p->has_i ? MO_ATTR_INT
         : p->n_floats ? MO_ATTR_FLOATS : p->n_ints ? MO_ATTR_INTS : p->n_strings ? MO_ATTR_STRINGS
         : p->n_tensors ? MO_ATTR_TENSORS : p->n_graphs ? MO_ATTR_GRAPHS : MO_ATTR_OTHER;
}

static enum mopt_status read_text(struct mo_onnx_in *in, const ProtobufCBinaryData *s, const char **text, size_t *n)
{
    *text = mo_arena_bytes(in->arena, s->data, s->len);
    *n = s->len;
    return *text ? MOPT_OK : mo_no_memory(in->ctx, s->len, "an attribute");
}

static enum mopt_status read_texts(struct mo_onnx_in *in, const MoOnnx__AttributeProto *p, struct mo_attr *a)
{
    const char **texts = mo_arena_new(in->arena, p->n_strings + 1, sizeof *texts);
    size_t *lengths = mo_arena_new(in->arena, p->n_strings + 1, sizeof *lengths);
    if (!texts || !lengths)
        return mo_no_memory(in->ctx, p->n_strings * sizeof *texts, "an attribute");
    for (size_t i = 0; i < p->n_strings; i++)
        MO_TRY(read_text(in, &p->strings[i], &texts[i], &lengths[i]));
    a->strings = texts;
    a->strings_bytes = lengths;
    a->n = p->n_strings;
    return MOPT_OK;
}

static enum mopt_status read_tensors(struct mo_onnx_in *in, MoOnnx__TensorProto **p, size_t n, struct mo_attr *a)
{
    enum mo_data_owner owner;
    a->tensors = mo_arena_new(in->arena, n + 1, sizeof *a->tensors);
    if (!a->tensors)
        return mo_no_memory(in->ctx, n * sizeof *a->tensors, "an attribute");
    for (; a->n < n; a->n++)
        MO_TRY(mo_onnx_tensor(in, p[a->n], false, &a->tensors[a->n], &owner));
    return MOPT_OK;
}

static enum mopt_status read_graphs(struct mo_onnx_in *in, MoOnnx__GraphProto **p, size_t n, struct mo_attr *a,
                                    struct mo_onnx_scope *scope)
{
    a->graphs = mo_arena_new(in->arena, n + 1, sizeof *a->graphs);
    if (!a->graphs)
        return mo_no_memory(in->ctx, n * sizeof *a->graphs, "an attribute");
    while (a->n < n) {
        struct mo_graph *g = mo_arena_new(in->arena, 1, sizeof *g);
        if (!g)
            return mo_no_memory(in->ctx, sizeof *g, "a subgraph");
        g->arena = in->arena;
        g->parent = scope->graph;
        g->opset = scope->graph->opset;
        a->graphs[a->n++] = g;
        MO_TRY(mo_onnx_graph(in, p[a->n - 1], g, scope));
    }
    return MOPT_OK;
}

/* Takes out of the message what the graph holds now. */
static void clear_read(MoOnnx__AttributeProto *p, int kind)
{
    p->name = NULL;
    if (kind == MO_ATTR_OTHER)
        return;
    p->has_type = false;
    switch (kind) {
    case MO_ATTR_FLOAT: p->has_f = false; break;
    case MO_ATTR_INT: p->has_i = false; break;
    case MO_ATTR_STRING: p->has_s = false; break;
    case MO_ATTR_TENSOR: p->t = NULL; break;
    case MO_ATTR_GRAPH: p->g = NULL; break;
    case MO_ATTR_FLOATS: p->n_floats = 0; break;
    case MO_ATTR_INTS: p->n_ints = 0; break;
    case MO_ATTR_STRINGS: p->n_strings = 0; break;
    case MO_ATTR_TENSORS: p->n_tensors = 0; break;
    default: p->n_graphs = 0; break;
    }
}

static enum mopt_status read_value(struct mo_onnx_in *in, MoOnnx__AttributeProto *p, struct mo_attr *a,
                                   struct mo_onnx_scope *scope)
{
    switch (a->kind) {
    case MO_ATTR_FLOAT:
        a->f = p->f;
        return MOPT_OK;
    case MO_ATTR_INT:
        a->i = p->i;
        return MOPT_OK;
    case MO_ATTR_STRING:
        return read_text(in, &p->s, &a->s, &a->s_bytes);
    case MO_ATTR_FLOATS:
        a->floats = p->floats;
        a->n = p->n_floats;
        return MOPT_OK;
    case MO_ATTR_INTS:
        a->ints = p->ints;
        a->n = p->n_ints;
        return MOPT_OK;
    case MO_ATTR_STRINGS:
        return read_texts(in, p, a);
    case MO_ATTR_TENSOR:
        return p->t ? read_tensors(in, &p->t, 1, a) : mo_fail(in->ctx, MOPT_UNSUPPORTED, "has no tensor");
    case MO_ATTR_TENSORS:
        return read_tensors(in, p->tensors, p->n_tensors, a);
    case MO_ATTR_GRAPH:
        return p->g ? read_graphs(in, &p->g, 1, a, scope) : mo_fail(in->ctx, MOPT_UNSUPPORTED, "has no graph");
    case MO_ATTR_GRAPHS:
        return read_graphs(in, p->graphs, p->n_graphs, a, scope);
    default:
        return MOPT_OK;
    }
}

enum mopt_status mo_onnx_attr(struct mo_onnx_in *in, MoOnnx__AttributeProto *p, struct mo_attr *a,
                              struct mo_onnx_scope *scope)
{
    int kind = kind_of(p);
    a->name = p->name ? p->name : "";
    a->kind = (enum mo_attr_kind)kind;
    a->ref = p->ref_attr_name && p->ref_attr_name[0] ? p->ref_attr_name : NULL;
    enum mopt_status status = read_value(in, p, a, scope);
    if (!status) {
        clear_read(p, kind);
        /* tensors were left out of the messages, so such a rest cannot be kept as it is */
        bool has_more = p->t || p->g || p->n_tensors || p->n_graphs;
        status = has_more ? mo_fail(in->ctx, MOPT_UNSUPPORTED, "holds tensors or graphs besides what its type says")
                          : mo_onnx_keep(in, &p->base, &a->kept);
    }
    if (status)
        mo_blame(in->ctx, "attribute '%.64s'", a->name);
    return status;
}
