/* A whole model: its own, new, copied; metadata and versions. */
#include "lib/graph/graph.h"
#include "lib/graph/private.h"

#include <string.h>

struct mopt_model *mo_model_new(void)
{
    struct mopt_model *m = mo_mem_new(1, sizeof *m);
    if (!m)
        return NULL;
    m->ir_version = 8;
    m->graph.arena = &m->arena;
    m->graph.name = "mopt";
    m->producer_name = "mopt";
    m->producer_version = MOPT_VERSION;
    return m;
}

void mopt_model_free(struct mopt_model *model)
{
    if (!model)
        return;
    mo_graph_release(&model->graph);
    for (uint32_t i = 0; i < model->n_functions; i++)
        mo_graph_release(model->functions[i].body);
    if (model->release_mapping)
        model->release_mapping(model);
    mo_arena_release(&model->arena);
    mo_mem_free(model);
}

const char *mo_model_meta(const struct mopt_model *m, const char *key)
{
    for (uint32_t i = 0; i < m->n_metadata; i++)
        if (!strcmp(m->metadata[i].key, key))
            return m->metadata[i].value;
    return NULL;
}

bool mo_model_set_meta(struct mopt_model *m, const char *key, const char *value)
{
    const char *copy = mo_arena_text(&m->arena, value);
    if (!copy)
        return false;
    for (uint32_t i = 0; i < m->n_metadata; i++)
        if (!strcmp(m->metadata[i].key, key)) {
            m->metadata[i].value = copy;
            return true;
        }
    const char *key_copy = mo_arena_text(&m->arena, key);
    struct mo_meta *grown = mo_arena_new(&m->arena, (size_t)m->n_metadata + 1, sizeof *grown);
    if (!key_copy || !grown)
        return false;
    if (m->n_metadata)
        memcpy(grown, m->metadata, m->n_metadata * sizeof *grown);
    grown[m->n_metadata++] = (struct mo_meta){ key_copy, copy };
    m->metadata = grown;
    return true;
}

static bool is_same_domain(const char *a, const char *b)
{
    a = strcmp(a, "ai.onnx") ? a : "";
    b = strcmp(b, "ai.onnx") ? b : "";
    return !strcmp(a, b);
}

int64_t mo_model_opset(const struct mopt_model *m, const char *domain)
{
    for (uint32_t i = 0; i < m->n_imports; i++)
        if (is_same_domain(m->imports[i].domain, domain))
            return m->imports[i].version;
    return 0;
}

static void set_graph_opset(struct mo_graph *g, int opset)
{
    g->opset = opset;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++) {
            const struct mo_attr *attr = &g->nodes[i].attrs[a];
            for (size_t k = 0; attr->graphs && k < attr->n; k++)
                set_graph_opset(attr->graphs[k], opset);
        }
}

bool mo_model_set_opset(struct mopt_model *m, const char *domain, int64_t version)
{
    uint32_t i = 0;
    while (i < m->n_imports && !is_same_domain(m->imports[i].domain, domain))
        i++;
    if (i == m->n_imports) {
        struct mo_import *grown = mo_arena_new(&m->arena, (size_t)m->n_imports + 1, sizeof *grown);
        const char *copy = mo_arena_text(&m->arena, domain);
        if (!grown || !copy)
            return false;
        if (m->n_imports)
            memcpy(grown, m->imports, m->n_imports * sizeof *grown);
        grown[i].domain = copy;
        m->imports = grown;
        m->n_imports++;
    }
    m->imports[i].version = version;
    if (is_same_domain(domain, ""))
        set_graph_opset(&m->graph, version > INT32_MAX ? INT32_MAX : (int)version);
    return true;
}

/* Texts, lists and kept bytes of the model itself. */
static bool copy_head(struct mopt_model *to, const struct mopt_model *from)
{
    to->ir_version = from->ir_version;
    to->model_version = from->model_version;
    to->has_model_version = from->has_model_version;
    to->file_bytes = from->file_bytes;
    to->is_external = from->is_external;
    to->producer_name = mo_arena_text(&to->arena, from->producer_name);
    to->producer_version = mo_arena_text(&to->arena, from->producer_version);
    to->domain = mo_arena_text(&to->arena, from->domain);
    bool ok = !from->producer_name == !to->producer_name && !from->producer_version == !to->producer_version &&
              !from->domain == !to->domain;
    if (from->kept.n_bytes) {
        to->kept.bytes = (uint8_t *)mo_arena_bytes(&to->arena, from->kept.bytes, from->kept.n_bytes);
        to->kept.n_bytes = from->kept.n_bytes;
        ok = ok && to->kept.bytes;
    }
    to->imports = mo_arena_new(&to->arena, MO_MAX(from->n_imports, 1u), sizeof *to->imports);
    to->metadata = mo_arena_new(&to->arena, MO_MAX(from->n_metadata, 1u), sizeof *to->metadata);
    ok = ok && to->imports && to->metadata;
    for (uint32_t i = 0; ok && i < from->n_imports; i++) {
        to->imports[to->n_imports++] =
            (struct mo_import){ mo_arena_text(&to->arena, from->imports[i].domain), from->imports[i].version };
        ok = to->imports[i].domain;
    }
    for (uint32_t i = 0; ok && i < from->n_metadata; i++) {
        const struct mo_meta *meta = &from->metadata[i];
        to->metadata[to->n_metadata++] =
            (struct mo_meta){ mo_arena_text(&to->arena, meta->key), mo_arena_text(&to->arena, meta->value) };
        ok = to->metadata[i].key && to->metadata[i].value;
    }
    return ok;
}

enum mopt_status mo_model_copy(struct mopt_ctx *ctx, const struct mopt_model *src, struct mopt_model **dst)
{
    *dst = NULL;
    struct mopt_model *m = mo_model_new();
    if (!m)
        return mo_no_memory(ctx, sizeof *m, "a model");
    enum mopt_status status = copy_head(m, src) ? MOPT_OK : mo_no_memory(ctx, 4096, "copying the model");
    m->graph.arena = &m->arena;
    if (!status)
        status = mo_graph_copy(ctx, &m->graph, &src->graph, true);
    if (!status)
        status = mo_functions_copy(ctx, m, src);
    if (status) {
        mopt_model_free(m);
        return status;
    }
    *dst = m;
    return MOPT_OK;
}
