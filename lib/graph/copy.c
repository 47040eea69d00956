/* Copying graphs. A shallow copy borrows texts and constants from its source;
 * a deep one stands alone. Ids stay what they were. */
#include "lib/graph/graph.h"
#include "lib/graph/op.h"
#include "lib/graph/private.h"

#include <string.h>

struct copier {
    struct mopt_ctx *ctx;
    struct mo_arena *arena;
    bool deep;
    bool failed;            /* memory ended; noted once and looked at once */
};

static void *keep(struct copier *c, void *mem)
{
    c->failed |= !mem;
    return mem;
}

static const char *copy_text(struct copier *c, const char *text)
{
    return c->deep && text ? keep(c, mo_arena_text(c->arena, text)) : text;
}

static void *copy_array(struct copier *c, const void *items, size_t n, size_t item_bytes)
{
    if (!items)
        return NULL;
    void *copy = keep(c, mo_arena_new(c->arena, MO_MAX(n, (size_t)1), item_bytes));
    if (copy && n)
        memcpy(copy, items, n * item_bytes);
    return copy;
}

static const char **copy_texts(struct copier *c, const char **texts, size_t n)
{
    if (!c->deep || !texts)
        return texts;
    const char **copy = copy_array(c, texts, n, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++)
        copy[i] = copy_text(c, texts[i]);
    return copy;
}

static struct mo_kept copy_kept(struct copier *c, struct mo_kept kept)
{
    if (c->deep && kept.bytes)
        kept.bytes = keep(c, mo_arena_bytes(c->arena, kept.bytes, kept.n_bytes));
    return kept;
}

static const struct mo_kept *copy_rests(struct copier *c, const struct mo_kept *rests, size_t n)
{
    if (!c->deep || !rests)
        return rests;
    struct mo_kept *copy = copy_array(c, rests, n, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++)
        copy[i] = copy_kept(c, copy[i]);
    return copy;
}

static void copy_value(struct copier *c, struct mo_value *v)
{
    int64_t n = mo_value_elems(v);
    if (v->data && c->deep && v->dtype == MO_STRING) {
        v->strings = copy_texts(c, v->strings, n > 0 ? (size_t)n : 0);
        v->data = (void *)v->strings;
    } else if (v->data && c->deep) {
        size_t bytes = mo_value_bytes(v);
        void *copy = keep(c, mo_mem_new(MO_MAX(bytes, (size_t)1), 1));
        if (copy && bytes)
            memcpy(copy, v->data, bytes);
        v->data = copy;
    }
    v->owner = v->data && c->deep && v->dtype != MO_STRING ? MO_DATA_HEAP : MO_DATA_BORROWED;
    v->name = copy_text(c, v->name);
    v->dim_names = copy_texts(c, v->dim_names, MO_MAX_RANK);
    v->string_data_doc = copy_text(c, v->string_data_doc);
    v->kept_info = copy_kept(c, v->kept_info);
    v->kept_tensor = copy_kept(c, v->kept_tensor);
    v->kept_dims = copy_rests(c, v->kept_dims, MO_MAX_RANK);
    v->kept_type = copy_rests(c, v->kept_type, MO_KEPT_TYPES);
    if (c->deep && v->known)
        v->known = n >= 0 ? copy_array(c, v->known, (size_t)n, sizeof *v->known) : NULL;
}

static void copy_tensor(struct copier *c, struct mo_tensor_const *t)
{
    int64_t n = mo_shape_elems(&t->shape);
    t->name = copy_text(c, t->name);
    if (c->deep && t->strings) {
        t->strings = copy_texts(c, t->strings, n > 0 ? (size_t)n : 0);
        t->data = t->strings;
    } else if (c->deep && t->data && n >= 0) {
        t->data = keep(c, mo_arena_bytes(c->arena, t->data, mo_dtype_bytes(t->dtype, n)));
    }
    t->kept = copy_kept(c, t->kept);
}

static enum mopt_status copy_into(struct copier *c, struct mo_graph *dst, const struct mo_graph *src);

static enum mopt_status copy_attr(struct copier *c, struct mo_graph *owner, struct mo_attr *a)
{
    a->name = copy_text(c, a->name);
    a->ref = copy_text(c, a->ref);
    if (c->deep) {
        a->s = a->s ? keep(c, mo_arena_bytes(c->arena, a->s, a->s_bytes)) : NULL;
        a->floats = copy_array(c, a->floats, a->n, sizeof *a->floats);
        a->ints = copy_array(c, a->ints, a->n, sizeof *a->ints);
        const char **strings = copy_array(c, a->strings, a->n, sizeof *strings);
        for (size_t i = 0; strings && i < a->n; i++)
            strings[i] = keep(c, mo_arena_bytes(c->arena, strings[i], a->strings_bytes[i]));
        a->strings = strings;
        a->strings_bytes = copy_array(c, a->strings_bytes, a->n, sizeof *a->strings_bytes);
        a->kept = copy_kept(c, a->kept);
        a->tensors = copy_array(c, a->tensors, a->n, sizeof *a->tensors);
        for (size_t i = 0; a->tensors && i < a->n; i++)
            copy_tensor(c, &a->tensors[i]);
    }
    /* a->n counts the graphs that are the copy's own, so that releasing a half copy is safe */
    struct mo_graph **from = a->graphs;
    size_t n = a->n;
    if (!from)
        return MOPT_OK;
    a->n = 0;
    a->graphs = copy_array(c, from, n, sizeof *from);
    while (a->graphs && a->n < n) {
        struct mo_graph *sub = keep(c, mo_arena_new(c->arena, 1, sizeof *sub));
        if (!sub)
            break;
        sub->arena = c->arena;
        a->graphs[a->n++] = sub;
        MO_TRY(copy_into(c, sub, from[a->n - 1]));
        sub->parent = owner;
    }
    return MOPT_OK;
}

static enum mopt_status copy_node(struct copier *c, struct mo_graph *owner, struct mo_node *n)
{
    n->name = copy_text(c, n->name);
    n->type = copy_text(c, n->type);
    n->domain = copy_text(c, n->domain);
    n->overload = copy_text(c, n->overload);
    n->kept = copy_kept(c, n->kept);
    n->in = copy_array(c, n->in, n->n_in, sizeof *n->in);
    n->out = copy_array(c, n->out, n->n_out, sizeof *n->out);
    n->captures = copy_array(c, n->captures, n->n_captures, sizeof *n->captures);
    /* params may point into the source's arena: a deep copy has to infer again */
    n->params = c->deep || !n->op ? NULL : copy_array(c, n->params, n->op->params_bytes, 1);
    const struct mo_attr *from = n->attrs;
    uint32_t n_attrs = n->n_attrs;
    n->n_attrs = 0;
    n->attrs = from ? keep(c, mo_arena_new(c->arena, MO_MAX(n_attrs, 1u), sizeof *from)) : NULL;
    while (n->attrs && n->n_attrs < n_attrs) {
        struct mo_attr *a = &n->attrs[n->n_attrs];
        *a = from[n->n_attrs++];
        MO_TRY(copy_attr(c, owner, a));
    }
    return MOPT_OK;
}

static enum mopt_status copy_into(struct copier *c, struct mo_graph *dst, const struct mo_graph *src)
{
    *dst = *src;
    dst->arena = c->arena;
    dst->parent = NULL;
    dst->name = copy_text(c, src->name);
    dst->kept = copy_kept(c, src->kept);
    dst->n_values = dst->n_nodes = 0;
    dst->values = copy_array(c, src->values, src->n_values, sizeof *src->values);
    dst->nodes = copy_array(c, src->nodes, src->n_nodes, sizeof *src->nodes);
    dst->cap_values = src->n_values;
    dst->cap_nodes = src->n_nodes;
    dst->inputs = copy_array(c, src->inputs, src->n_inputs, sizeof *src->inputs);
    dst->outputs = copy_array(c, src->outputs, src->n_outputs, sizeof *src->outputs);
    dst->infos = copy_array(c, src->infos, src->n_infos, sizeof *src->infos);
    dst->initializers = copy_array(c, src->initializers, src->n_initializers, sizeof *src->initializers);
    dst->cap_initializers = src->n_initializers;
    if (c->failed)
        return mo_no_memory(c->ctx, src->n_values * sizeof *src->values, "copying the graph");
    /* n_values counts only values whose data is the copy's own, so that release frees nothing of the source */
    for (; dst->n_values < src->n_values && !c->failed; dst->n_values++)
        copy_value(c, &dst->values[dst->n_values]);
    while (dst->n_nodes < src->n_nodes && !c->failed)
        MO_TRY(copy_node(c, dst, &dst->nodes[dst->n_nodes++]));
    return c->failed ? mo_no_memory(c->ctx, src->n_values * sizeof *src->values, "copying the graph") : MOPT_OK;
}

enum mopt_status mo_graph_copy(struct mopt_ctx *ctx, struct mo_graph *dst, const struct mo_graph *src, bool copy_data)
{
    struct copier c = { .ctx = ctx, .arena = dst->arena, .deep = copy_data };
    return copy_into(&c, dst, src);
}

static enum mopt_status copy_function(struct copier *c, struct mo_function *f)
{
    const struct mo_graph *body = f->body;
    const struct mo_attr *defaults = f->defaults;
    uint32_t n_defaults = f->n_defaults;
    f->name = copy_text(c, f->name);
    f->domain = copy_text(c, f->domain);
    f->overload = copy_text(c, f->overload);
    struct mo_import *imports = copy_array(c, f->imports, f->n_imports, sizeof *imports);
    for (uint32_t k = 0; imports && k < f->n_imports; k++)
        imports[k].domain = copy_text(c, imports[k].domain);
    f->imports = imports;
    f->n_defaults = 0;
    f->defaults = copy_array(c, defaults, n_defaults, sizeof *defaults);
    f->body = keep(c, mo_arena_new(c->arena, 1, sizeof *f->body));
    if (c->failed)
        return mo_no_memory(c->ctx, sizeof *body, "copying a function");
    for (; f->n_defaults < n_defaults; f->n_defaults++)
        MO_TRY(copy_attr(c, f->body, &f->defaults[f->n_defaults]));
    return copy_into(c, f->body, body);
}

enum mopt_status mo_functions_copy(struct mopt_ctx *ctx, struct mopt_model *dst, const struct mopt_model *src)
{
    struct copier c = { .ctx = ctx, .arena = &dst->arena, .deep = true };
    dst->functions = mo_arena_new(c.arena, src->n_functions + 1u, sizeof *dst->functions);
    if (!dst->functions)
        return mo_no_memory(ctx, src->n_functions * sizeof *dst->functions, "copying functions");
    while (dst->n_functions < src->n_functions) {
        struct mo_function *f = &dst->functions[dst->n_functions];
        *f = src->functions[dst->n_functions];
        enum mopt_status status = copy_function(&c, f);
        dst->n_functions += f->body && f->body != src->functions[dst->n_functions].body;
        MO_TRY(status);
    }
    dst->graph.functions = dst->functions;
    dst->graph.n_functions = dst->n_functions;
    return MOPT_OK;
}
