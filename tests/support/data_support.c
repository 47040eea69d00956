/* data_support.c - see data_support.h. */
#include "tests/support/data_support.h"

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_event(void *user, const struct mopt_event *event)
{
    struct rig *rig = user;
    if (event->kind != MOPT_EVENT_WARNING)
        return;
    rig->n_warnings++;
    snprintf(rig->last_warning, sizeof rig->last_warning, "%s", event->text);
}

void rig_open(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    rig->io.open_source = mo_source_open;
    rig->ctx.io = &rig->io;
    rig->ctx.n_threads = 2;
    rig->ctx.max_memory_bytes = (uint64_t)1 << 32;
    rig->ctx.on_event = on_event;
    rig->ctx.event_user = rig;
    mo_options_default(mo_data_options, &rig->settings);
    strcpy(rig->folder, "/tmp/mopt-data-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(rig->folder));
}

static int remove_one(const char *path, const struct stat *info, int flag, struct FTW *ftw)
{
    (void)info, (void)flag, (void)ftw;
    return remove(path);
}

void rig_close(struct rig *rig)
{
    nftw(rig->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *rig_path(struct rig *rig, const char *name)
{
    static char paths[8][512];
    static int turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", rig->folder, name);
    return path;
}

const char *rig_spec(struct rig *rig, const char *format, const char *rest)
{
    static char specs[8][1024];
    static int turn;
    char *spec = specs[turn++ % 8];
    snprintf(spec, sizeof specs[0], "%s:%s%s%s", format, rig->folder, *rest ? "/" : "", rest);
    return spec;
}

/* Folders on the way are made. */
const char *rig_file(struct rig *rig, const char *name, const void *bytes, size_t n_bytes)
{
    const char *path = rig_path(rig, name);
    char folder[512];
    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = folder + strlen(rig->folder) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        mkdir(folder, 0777);
    }
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n_bytes, f), n_bytes);
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

const char *rig_text(struct rig *rig, const char *name, const char *text)
{
    return rig_file(rig, name, text, strlen(text));
}

struct mopt_model *model_of(enum mo_dtype dtype, int rank, const int64_t *dims)
{
    struct mopt_model *model = mo_model_new();
    ck_assert_ptr_nonnull(model);
    struct mo_shape shape = {.rank = rank};
    memcpy(shape.dim, dims, (size_t)rank * sizeof *dims);
    mo_value_id v = mo_graph_add_value(&model->graph, "x", dtype, &shape);
    ck_assert(mo_graph_add_input(&model->graph, v));
    return model;
}

uint64_t stream_hash(struct rig *rig, struct mopt_dataset *d, const struct mo_loader_options *how, uint64_t epoch,
                     size_t first_batch)
{
    struct mo_loader *l;
    const struct mo_batch *b;
    uint64_t hash = 0;
    ck_assert_msg(!mo_loader_new(&rig->ctx, d, how, &l), "%s", rig->ctx.error);
    ck_assert(!mo_loader_start(l, epoch, first_batch));
    for (;;) {
        ck_assert_msg(!mo_loader_next(l, &b), "%s", rig->ctx.error);
        if (!b->n)
            break;
        for (uint32_t k = 0; k < b->n_inputs && !b->is_sparse; k++)
            hash = mo_hash64(b->x[k], mo_dtype_bytes(b->dtype[k], mo_shape_elems(&b->shape[k])), hash);
        if (b->is_sparse) {
            size_t n = (size_t)b->row_start[b->n];
            hash = mo_hash64(b->row_start, (b->n + 1) * 8, hash);
            hash = mo_hash64(b->column, n * 4, hash);
            hash = mo_hash64(b->value, n * 4, hash);
        }
        hash = mo_hash64(b->index, b->n * 4, hash);
        if (b->labels)
            hash = mo_hash64(b->labels, b->n * 8, hash);
        if (b->targets)
            hash = mo_hash64(b->targets, b->n * 4 * (size_t)mo_dataset_source(d, how->split)->n_targets, hash);
    }
    mo_loader_free(l);
    return hash;
}
