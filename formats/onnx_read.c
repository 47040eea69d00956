/* onnx_read.c - a file or bytes as a model: the head of ModelProto, and who owns the bytes. */
#include "formats/formats.h"
#include "formats/onnx.h"
#include "lib/graph/op.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { IR_OLDEST = 3, IR_NEWEST = 14 };

static enum mopt_status read_imports(struct mo_onnx_in *in, struct mopt_model *m, const MoOnnx__ModelProto *p)
{
    m->imports = mo_arena_new(in->arena, p->n_opset_import + 1, sizeof *m->imports);
    if (!m->imports)
        return mo_no_memory(in->ctx, p->n_opset_import * sizeof *m->imports, "versions");
    for (size_t i = 0; i < p->n_opset_import; i++) {
        const char *domain = p->opset_import[i]->domain;
        if (p->opset_import[i]->version < 0)
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "the version of domain '%s' is negative", domain ? domain : "");
        m->imports[m->n_imports++] = (struct mo_import){ domain ? domain : "", p->opset_import[i]->version };
    }
    int64_t opset = mo_model_opset(m, "");
    m->graph.opset = opset > INT32_MAX ? INT32_MAX : (int)opset;
    return MOPT_OK;
}

static enum mopt_status read_metadata(struct mo_onnx_in *in, struct mopt_model *m, const MoOnnx__ModelProto *p)
{
    m->metadata = mo_arena_new(in->arena, p->n_metadata_props + 1, sizeof *m->metadata);
    if (!m->metadata)
        return mo_no_memory(in->ctx, p->n_metadata_props * sizeof *m->metadata, "metadata");
    for (size_t i = 0; i < p->n_metadata_props; i++) {
        const MoOnnx__StringStringEntryProto *pair = p->metadata_props[i];
        m->metadata[m->n_metadata++] =
            (struct mo_meta){ pair->key ? pair->key : "", pair->value ? pair->value : "" };
    }
    return MOPT_OK;
}

static enum mopt_status read_head(struct mo_onnx_in *in, struct mopt_model *m, const MoOnnx__ModelProto *p)
{
    if (!p->has_ir_version || !p->graph)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "not an ONNX model: it has no %s",
                       p->graph ? "ir_version" : "graph");
    if (p->ir_version < IR_OLDEST || p->ir_version > IR_NEWEST)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "IR version %lld is not known; %d to %d are",
                       (long long)p->ir_version, IR_OLDEST, IR_NEWEST);
    m->ir_version = p->ir_version;
    m->has_model_version = p->has_model_version;
    m->model_version = p->model_version;
    m->producer_name = p->producer_name;
    m->producer_version = p->producer_version;
    m->domain = p->domain;
    MO_TRY(read_imports(in, m, p));
    return read_metadata(in, m, p);
}

/* Operators that only lowering may make are none in a file. */
static enum mopt_status refuse_internal(struct mopt_ctx *ctx, const struct mo_graph *g)
{
    char label[200];
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->op && n->op->flags & MO_OP_INTERNAL)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: this operator is for mopt's own use only",
                           mo_node_label(g, n, label, sizeof label));
        for (uint32_t a = 0; a < n->n_attrs; a++)
            for (size_t k = 0; n->attrs[a].graphs && k < n->attrs[a].n; k++)
                MO_TRY(refuse_internal(ctx, n->attrs[a].graphs[k]));
    }
    return MOPT_OK;
}

static enum mopt_status read_model(struct mo_onnx_in *in, struct mopt_model *m)
{
    ProtobufCMessage *message;
    MO_TRY(mo_onnx_unpack(in, &mo_onnx__model_proto__descriptor, &message));
    MoOnnx__ModelProto *p = (MoOnnx__ModelProto *)message;
    MO_TRY(read_head(in, m, p));
    MO_TRY(mo_onnx_graph(in, p->graph, &m->graph, NULL));
    MO_TRY(refuse_internal(in->ctx, &m->graph));
    p->has_ir_version = p->has_model_version = false;
    p->producer_name = p->producer_version = p->domain = NULL;
    p->graph = NULL;
    p->n_opset_import = p->n_metadata_props = 0;
    MO_TRY(mo_onnx_keep(in, &p->base, &m->kept));
    return mo_onnx_functions(in, m, p);
}

static void release_mapping(struct mopt_model *m)
{
    struct mo_file_map map = { m->mapping, m->mapping_bytes };
    mo_file_unmap(&map);
    mo_onnx_external_release(m->mappings);
    m->mapping = m->mappings = NULL;
}

void mo_onnx_forget(const struct mopt_model *m, const void *bytes, size_t n_bytes)
{
    mo_file_forget(m->mapping, m->mapping_bytes, bytes, n_bytes);
    mo_onnx_external_forget(m->mappings, bytes, n_bytes);
}

/* A file larger than this is not read as a whole only to have its hash. */
#define HASHED_BYTES ((size_t)256 << 20)

/* Reads what `in` describes; the model owns the mapping from then on, also when it failed. */
static enum mopt_status read_into(struct mo_onnx_in *in, struct mopt_model **model)
{
    struct mopt_model *m = mo_model_new();
    struct mo_file_map map = { in->is_mapped ? in->bytes : NULL, in->is_mapped ? in->n_bytes : 0 };
    if (!m) {
        mo_file_unmap(&map);
        return mo_no_memory(in->ctx, sizeof *m, "a model");
    }
    m->mapping = (void *)map.bytes;
    m->mapping_bytes = map.n_bytes;
    m->release_mapping = release_mapping;
    m->producer_name = m->producer_version = NULL;
    in->arena = &m->arena;
    enum mopt_status status = read_model(in, m);
    m->mappings = in->externals;
    m->is_external = in->externals;
    m->file_bytes = in->n_bytes + in->external_bytes;
    m->file_hash = in->n_bytes <= HASHED_BYTES ? mo_xxh64(in->bytes, in->n_bytes) : 0;
    mo_onnx_forget(m, m->mapping, m->mapping_bytes);    /* what was copied is not read again, the rest comes back by itself */
    if (status)
        mopt_model_free(m);
    else
        *model = m;
    return status;
}

enum mopt_status mopt_model_parse(struct mopt_ctx *ctx, const void *bytes, size_t n_bytes, struct mopt_model **model)
{
    *model = NULL;
    struct mo_onnx_in in = { .ctx = ctx, .bytes = bytes, .n_bytes = n_bytes };
    return read_into(&in, model);
}

/* The folder of a path, in new memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 1;
    char *folder = mo_mem_new(n + 1, 1);
    if (folder)
        memcpy(folder, slash ? path : ".", n);
    return folder;
}

static enum mopt_status read_file(struct mopt_ctx *ctx, const char *path, struct mopt_model **model)
{
    struct mo_file_map map;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mo_fail(ctx, MOPT_FAILED, "%s", strerror(errno));
    enum mopt_status status = mo_file_map_fd(ctx, fd, &map);
    close(fd);
    if (status)
        return status;
    char *folder = folder_of(path);
    if (!folder) {
        mo_file_unmap(&map);
        return mo_no_memory(ctx, strlen(path), "a file name");
    }
    struct mo_onnx_in in = { .ctx = ctx, .bytes = map.bytes, .n_bytes = map.n_bytes, .is_mapped = true,
                             .folder = folder };
    status = read_into(&in, model);
    mo_mem_free(folder);
    return status;
}

static enum mopt_status read_stdin(struct mopt_ctx *ctx, struct mopt_model **model)
{
    char *bytes;
    size_t n;
    MO_TRY(mo_file_slurp(ctx, STDIN_FILENO, "stdin", &bytes, &n));
    enum mopt_status status = mopt_model_parse(ctx, bytes, n, model);
    mo_mem_free(bytes);
    return status;
}

enum mopt_status mopt_model_read(struct mopt_ctx *ctx, const char *path, struct mopt_model **model)
{
    *model = NULL;
    bool is_stdin = !strcmp(path, "-");
    enum mopt_status status = is_stdin ? read_stdin(ctx, model) : read_file(ctx, path, model);
    if (status)
        mo_blame(ctx, "%s", is_stdin ? "stdin" : path);
    return status;
}
