/* onnx_write.c - a model as a file.
 *
 * The message is encoded into memory without its large tensors, then streamed with
 * them. A model that came with external data, is asked for it, or would pass the 2 GB
 * that protobuf can hold, gets its large tensors in a second file beside the first. */
#include "formats/formats.h"
#include "formats/onnx_out.h"
#include "lib/base/spill.h"
#include "lib/graph/op.h"

#include <stdio.h>
#include <string.h>

enum { MODEL_IR = 1, MODEL_PRODUCER = 2, MODEL_PRODUCER_VERSION = 3, MODEL_DOMAIN = 4, MODEL_VERSION = 5,
       MODEL_GRAPH = 7, MODEL_IMPORT = 8, MODEL_META = 14 };
enum { IMPORT_DOMAIN = 1, IMPORT_VERSION = 2, PAIR_KEY = 1, PAIR_VALUE = 2 };
enum { EXTERNAL_MIN_BYTES = 1024, EXTERNAL_ALIGN = 64, EXTERNAL_PAGE = 4096, EXTERNAL_BIG = 1 << 20, WRITTEN_BYTES = 64 << 20 };

/* ---- what goes into the second file ------------------------------------------------------ */

static bool add_place(struct mo_onnx_out *o, const struct mo_value *v, uint64_t offset)
{
    if (o->n_places == o->cap_places) {
        size_t cap = MO_MAX(o->cap_places * 2, (size_t)64);
        struct mo_onnx_place *grown = mo_mem_grow(o->places, o->n_places * sizeof *grown, cap * sizeof *grown);
        if (!grown)
            return false;
        o->places = grown;
        o->cap_places = cap;
    }
    o->places[o->n_places++] = (struct mo_onnx_place){ v, offset };
    return true;
}

/* In the order in which the file has them: nodes with their subgraphs, then initializers. Writing goes
 * backwards and takes them from the end. */
static void place_graph(struct mo_onnx_out *o, const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; !g->nodes[i].is_dead && a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                place_graph(o, g->nodes[i].attrs[a].graphs[k]);
    for (uint32_t i = 0; i < g->n_initializers; i++) {
        const struct mo_value *v = &g->values[g->initializers[i]];
        size_t n = v->dtype == MO_STRING ? 0 : mo_value_bytes(v);
        if (n < EXTERNAL_MIN_BYTES)
            continue;
        uint64_t align = n >= EXTERNAL_BIG ? EXTERNAL_PAGE : EXTERNAL_ALIGN;
        uint64_t offset = (o->external_bytes + align - 1) / align * align;
        o->is_full |= !add_place(o, v, offset);
        o->external_bytes = offset + n;
    }
}

/* ---- the message ---------------------------------------------------------------------------- */

/* Before IR 4 every initializer had to be an input as well. */
static int64_t ir_version(const struct mopt_model *m)
{
    const struct mo_graph *g = &m->graph;
    for (uint32_t i = 0; m->ir_version < 4 && i < g->n_initializers; i++)
        if (!g->values[g->initializers[i]].is_input)
            return 4;
    return m->ir_version;
}

static void write_model(struct mo_onnx_out *o, const struct mopt_model *m)
{
    mo_out_kept(o, m->kept);
    for (uint32_t i = m->n_metadata; i-- > 0;) {
        uint64_t start = o->n_total;
        mo_out_text(o, PAIR_VALUE, m->metadata[i].value);
        mo_out_text(o, PAIR_KEY, m->metadata[i].key);
        mo_out_close(o, MODEL_META, start);
    }
    for (uint32_t i = m->n_imports; i-- > 0;) {
        uint64_t start = o->n_total;
        mo_out_int(o, IMPORT_VERSION, m->imports[i].version);
        mo_out_text(o, IMPORT_DOMAIN, m->imports[i].domain);
        mo_out_close(o, MODEL_IMPORT, start);
    }
    uint64_t start = o->n_total;
    mo_onnx_write_graph(o, &m->graph);
    mo_out_close(o, MODEL_GRAPH, start);
    if (m->has_model_version)
        mo_out_int(o, MODEL_VERSION, m->model_version);
    mo_out_text(o, MODEL_DOMAIN, m->domain);
    mo_out_text(o, MODEL_PRODUCER_VERSION, m->producer_version);
    mo_out_text(o, MODEL_PRODUCER, m->producer_name);
    mo_out_int(o, MODEL_IR, ir_version(m));
}

static void release(struct mo_onnx_out *o)
{
    mo_mem_free(o->buf);
    mo_mem_free(o->refs);
    mo_mem_free(o->places);
}

/* Encodes into *o. external_name NULL: everything in one file. */
static enum mopt_status encode(struct mopt_ctx *ctx, struct mo_onnx_out *o, const struct mopt_model *m,
                               const char *external_name)
{
    *o = (struct mo_onnx_out){ .ctx = ctx, .model = m, .external_name = external_name };
    if (external_name)
        place_graph(o, &m->graph);
    size_t n_places = o->n_places;
    write_model(o, m);
    o->n_places = n_places;         /* taken one by one; the list is still there for the data */
    if (o->is_full)
        return mo_no_memory(ctx, o->n_total, "encoding the model");
    return o->status;
}

/* ---- output -------------------------------------------------------------------------------------- */

static enum mopt_status put_message(struct mo_onnx_out *o, struct mo_file_out *file)
{
    const uint8_t *end = o->buf + o->cap_buf;
    size_t left = o->n_buf;
    for (size_t i = o->n_refs; i-- > 0;) {
        const struct mo_onnx_ref *ref = &o->refs[i];
        MO_TRY(mo_file_put(file, end - left, left - ref->at));
        MO_TRY(mo_file_put(file, ref->bytes, ref->n_bytes));
        left = ref->at;
    }
    return mo_file_put(file, end - left, left);
}

static enum mopt_status put_externals(struct mo_onnx_out *o, struct mo_file_out *file)
{
    static const char zeros[EXTERNAL_PAGE];
    uint64_t at = 0;
    for (size_t i = 0; i < o->n_places; i++) {
        const struct mo_onnx_place *p = &o->places[i];
        size_t n = mo_value_bytes(p->value);
        MO_TRY(mo_file_put(file, zeros, (size_t)(p->offset - at)));
        for (size_t done = 0, some; done < n; done += some) {
            const char *bytes = (const char *)p->value->data + done;
            some = MO_MIN(n - done, (size_t)WRITTEN_BYTES);
            MO_TRY(mo_file_put(file, bytes, some));
            mo_onnx_forget(o->model, bytes, some);
        }
        if (p->value->owner == MO_DATA_HEAP)
            mo_mem_forget(p->value->data);
        at = p->offset + n;
    }
    return MOPT_OK;
}

/* Both files complete before either has its name; the data's first, since the model points to it. */
static enum mopt_status write_files(struct mopt_ctx *ctx, struct mo_onnx_out *o, const char *path,
                                    const char *data_path, bool overwrite)
{
    struct mo_file_out model, data = { .fd = -1 };
    MO_TRY(mo_file_begin(ctx, &model, path, overwrite));
    enum mopt_status status = MOPT_OK;
    if (o->n_places) {
        status = mo_file_begin(ctx, &data, data_path, overwrite);
        if (!status)
            status = put_externals(o, &data);
    }
    if (!status)
        status = put_message(o, &model);
    if (!status && o->n_places)
        status = mo_file_commit(&data);
    if (!status)
        return mo_file_commit(&model);
    mo_file_abandon(&data);
    mo_file_abandon(&model);
    return status;
}

static enum mopt_status write_to(struct mopt_ctx *ctx, const struct mopt_model *m, const char *path,
                                 const char *data_path, bool external, bool overwrite)
{
    struct mo_onnx_out out;
    const char *slash = strrchr(data_path, '/');
    const char *name = slash ? slash + 1 : data_path;
    bool is_stdout = !strcmp(path, "-");
    enum mopt_status status = encode(ctx, &out, m, external && !is_stdout ? name : NULL);
    if (!status && out.n_total > INT32_MAX && is_stdout) {
        status = mo_fail(ctx, MOPT_LIMIT, "the model is larger than 2 GB, so its weights need a file of their own; "
                                          "name a file instead of -");
    } else if (!status && out.n_total > INT32_MAX && !out.external_name) {
        mo_log(ctx, "write", "the model is larger than 2 GB: its weights go to '%s'", name);
        release(&out);
        status = encode(ctx, &out, m, name);
    }
    if (!status && out.n_total > INT32_MAX)
        status = mo_fail(ctx, MOPT_LIMIT, "the model is larger than 2 GB even without its initializers");
    if (!status)
        status = write_files(ctx, &out, path, data_path, overwrite);
    release(&out);
    return status;
}

enum mopt_status mopt_model_write(struct mopt_ctx *ctx, const struct mopt_model *model, const char *path,
                                  unsigned flags)
{
    if (ctx->rank) /* rank 0 writes */
        return MOPT_OK;
    size_t n = strlen(path) + sizeof ".data";
    char *data_path = mo_mem_new(n, 1);
    if (!data_path)
        return mo_no_memory(ctx, n, "a file name");
    snprintf(data_path, n, "%s.data", path);
    bool external = flags & MOPT_WRITE_EXTERNAL || model->is_external;
    enum mopt_status status = write_to(ctx, model, path, data_path, external, flags & MOPT_WRITE_OVERWRITE);
    mo_mem_free(data_path);
    return status;
}

enum mopt_status mo_model_bytes(struct mopt_ctx *ctx, const struct mopt_model *model, uint64_t *bytes)
{
    struct mo_onnx_out out;
    enum mopt_status status = encode(ctx, &out, model, model->is_external ? "model.onnx.data" : NULL);
    if (!status)
        *bytes = out.n_total + out.external_bytes;
    release(&out);
    return status;
}
