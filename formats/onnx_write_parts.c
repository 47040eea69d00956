/* onnx_write_parts.c - attributes, nodes and graphs, backwards as onnx_out.h says. */
#include "formats/onnx_out.h"
#include "lib/graph/op.h"

#include <string.h>

enum { ATTR_NAME = 1, ATTR_F = 2, ATTR_I = 3, ATTR_S = 4, ATTR_T = 5, ATTR_G = 6, ATTR_FLOATS = 7, ATTR_INTS = 8,
       ATTR_STRINGS = 9, ATTR_TENSORS = 10, ATTR_GRAPHS = 11, ATTR_TYPE = 20 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_NAME = 3, NODE_TYPE = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7,
       NODE_OVERLOAD = 8 };
enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12,
       GRAPH_VALUE_INFO = 13 };

/* ---- attributes ------------------------------------------------------------------ */

static void write_tensors(struct mo_onnx_out *o, uint32_t field, const struct mo_attr *a)
{
    for (size_t i = a->n; i-- > 0;) {
        uint64_t start = o->n_total;
        mo_onnx_write_tensor(o, &a->tensors[i], NULL, NULL);
        mo_out_close(o, field, start);
    }
}

static void write_graphs(struct mo_onnx_out *o, uint32_t field, const struct mo_attr *a)
{
    for (size_t i = a->n; i-- > 0;) {
        uint64_t start = o->n_total;
        mo_onnx_write_graph(o, a->graphs[i]);
        mo_out_close(o, field, start);
    }
}

static void write_attr_value(struct mo_onnx_out *o, const struct mo_attr *a)
{
    switch (a->kind) {
    case MO_ATTR_FLOAT: mo_out_float(o, ATTR_F, a->f); break;
    case MO_ATTR_INT: mo_out_int(o, ATTR_I, a->i); break;
    case MO_ATTR_STRING: mo_out_blob(o, ATTR_S, a->s, a->s_bytes); break;
    case MO_ATTR_TENSOR: write_tensors(o, ATTR_T, a); break;
    case MO_ATTR_GRAPH: write_graphs(o, ATTR_G, a); break;
    case MO_ATTR_FLOATS:
        for (size_t i = a->n; i-- > 0;)
            mo_out_float(o, ATTR_FLOATS, a->floats[i]);
        break;
    case MO_ATTR_INTS:
        for (size_t i = a->n; i-- > 0;)
            mo_out_int(o, ATTR_INTS, a->ints[i]);
        break;
    case MO_ATTR_STRINGS:
        for (size_t i = a->n; i-- > 0;)
            mo_out_blob(o, ATTR_STRINGS, a->strings[i], a->strings_bytes[i]);
        break;
    case MO_ATTR_TENSORS: write_tensors(o, ATTR_TENSORS, a); break;
    case MO_ATTR_GRAPHS: write_graphs(o, ATTR_GRAPHS, a); break;
    default: break;
    }
}

static void write_attr(struct mo_onnx_out *o, const struct mo_attr *a)
{
    uint64_t start = o->n_total;
    mo_out_kept(o, a->kept);
    if (a->kind != MO_ATTR_OTHER)
        mo_out_int(o, ATTR_TYPE, a->kind);
    write_attr_value(o, a);
    mo_out_text(o, ATTR_NAME, a->name);
    mo_out_close(o, NODE_ATTRIBUTE, start);
}

/* A Constant's elements: in the form the file had while they fit it, else as a tensor. `a` may be NULL. */
static void write_constant(struct mo_onnx_out *o, const struct mo_value *v, const struct mo_attr *a)
{
    enum mo_attr_kind kind = a ? a->kind : MO_ATTR_TENSOR;
    struct mo_attr out = a ? *a : (struct mo_attr){ .name = "value" };
    struct mo_tensor_const t = { .name = "" };
    bool is_float = v->dtype == MO_F32, is_int = v->dtype == MO_I64;
    if (v->dtype == MO_STRING && kind != MO_ATTR_TENSOR) {
        write_attr(o, a);
        return;
    }
    if (kind == MO_ATTR_FLOAT && is_float && v->shape.rank == 0) {
        out.f = *(const float *)v->data;
    } else if (kind == MO_ATTR_INT && is_int && v->shape.rank == 0) {
        out.i = *(const int64_t *)v->data;
    } else if (kind == MO_ATTR_FLOATS && is_float && v->shape.rank == 1) {
        out.floats = v->data;
        out.n = (size_t)v->shape.dim[0];
    } else if (kind == MO_ATTR_INTS && is_int && v->shape.rank == 1) {
        out.ints = v->data;
        out.n = (size_t)v->shape.dim[0];
    } else {
        if (a && a->kind == MO_ATTR_TENSOR)
            t = a->tensors[0];
        t.dtype = v->dtype;
        t.shape = v->shape;
        t.data = v->data;
        t.strings = v->strings;
        out.name = "value";
        out.kind = MO_ATTR_TENSOR;
        out.tensors = &t;
        out.n = 1;
    }
    write_attr(o, &out);
}

static const struct mo_value *constant_of(const struct mo_graph *g, const struct mo_node *n)
{
    if (!mo_node_is(n, "Constant") || n->n_out != 1 || n->out[0] == MO_NONE || !g->values[n->out[0]].data)
        return NULL;
    return &g->values[n->out[0]];
}

/* ---- nodes --------------------------------------------------------------------------- */

static void write_names(struct mo_onnx_out *o, uint32_t field, const struct mo_graph *g, const mo_value_id *ids,
                        uint32_t n)
{
    for (uint32_t i = n; i-- > 0;)
        mo_out_text(o, field, ids[i] == MO_NONE ? "" : g->values[ids[i]].name);
}

static void write_node(struct mo_onnx_out *o, const struct mo_graph *g, const struct mo_node *n)
{
    uint64_t start = o->n_total;
    const struct mo_value *constant = constant_of(g, n);
    bool has_data = false;
    mo_out_kept(o, n->kept);
    mo_out_text(o, NODE_OVERLOAD, n->overload);
    if (n->domain[0])
        mo_out_text(o, NODE_DOMAIN, n->domain);
    for (uint32_t i = n->n_attrs; i-- > 0;) {
        const struct mo_attr *a = &n->attrs[i];
        if (a->is_value_data && constant)
            write_constant(o, constant, a);
        else
            write_attr(o, a);
        has_data |= a->is_value_data;
    }
    if (constant && !has_data)
        write_constant(o, constant, NULL);
    mo_out_text(o, NODE_TYPE, n->type);
    if (n->name[0])
        mo_out_text(o, NODE_NAME, n->name);
    write_names(o, NODE_OUTPUT, g, n->out, n->n_out);
    write_names(o, NODE_INPUT, g, n->in, n->n_in);
    mo_out_close(o, GRAPH_NODE, start);
    char label[200];
    if (n->op && n->op->flags & MO_OP_INTERNAL && !o->status)
        o->status = mo_fail(o->ctx, MOPT_FAILED, "%s is for running only and cannot be written",
                            mo_node_label(g, n, label, sizeof label));
}

/* ---- graphs ------------------------------------------------------------------------------ */

static void write_infos(struct mo_onnx_out *o, uint32_t field, const struct mo_graph *g, const mo_value_id *ids,
                        uint32_t n)
{
    for (uint32_t i = n; i-- > 0;)
        mo_onnx_write_info(o, field, &g->values[ids[i]]);
}

void mo_onnx_write_graph(struct mo_onnx_out *o, const struct mo_graph *g)
{
    mo_out_kept(o, g->kept);
    write_infos(o, GRAPH_VALUE_INFO, g, g->infos, g->n_infos);
    write_infos(o, GRAPH_OUTPUT, g, g->outputs, g->n_outputs);
    write_infos(o, GRAPH_INPUT, g, g->inputs, g->n_inputs);
    for (uint32_t i = g->n_initializers; i-- > 0;) {
        uint64_t start = o->n_total;
        mo_onnx_write_initializer(o, &g->values[g->initializers[i]]);
        mo_out_close(o, GRAPH_INITIALIZER, start);
    }
    if (g->name && g->name[0])
        mo_out_text(o, GRAPH_NAME, g->name);
    for (mo_node_id i = g->n_nodes; i-- > 0;)
        if (!g->nodes[i].is_dead)
            write_node(o, g, &g->nodes[i]);
}
