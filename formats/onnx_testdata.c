/* onnx_testdata.c - the test data that ONNX models come with: FOLDER/test_data_set_N/input_K.pb and output_K.pb, or one
 * such folder. Inputs go to the model as they are; output_0 is the target.
 *
 * Where all inputs and the output of a set have the same first dimension, that is the batch and each row is a sample. */
#include "formats/blob.h"
#include "formats/sources.h"
#include "formats/tensor_pb.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/data/convert.h"

enum { MAX_PATH = 4096, MAX_SETS = 10000 };

struct set {
    struct mo_host_tensor input[MO_MAX_INPUTS], output;
    float *targets;                 /* rows x n_targets */
    size_t n_rows, n_before;
};

struct testdata {
    struct mo_source base;
    struct mo_arena arena;
    struct set *sets;
    size_t n_sets;
    bool has_outputs;
    size_t row_bytes[MO_MAX_INPUTS];
};

/* ---- listing ------------------------------------------------------------------------- */

static bool is_set(const char *name, long *number)
{
    static const char prefix[] = "test_data_set_";
    char *end;
    if (strncmp(name, prefix, sizeof prefix - 1))
        return false;
    *number = strtol(name + sizeof prefix - 1, &end, 10);
    return !*end && *number >= 0;
}

static int by_number(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* The numbers of the sets, sorted; n 0: the folder is one set itself. */
static enum mopt_status list_sets(struct mopt_ctx *ctx, struct mo_arena *arena, const char *path, long **numbers,
                                  size_t *n)
{
    DIR *dir = opendir(path);
    if (!dir)
        return mo_fail(ctx, MOPT_DATA, "%s: %s", path, strerror(errno));
    *n = 0;
    *numbers = mo_arena_new(arena, MAX_SETS, sizeof **numbers);
    for (struct dirent *e; *numbers && *n < MAX_SETS && (e = readdir(dir));)
        if (is_set(e->d_name, &(*numbers)[*n]))
            ++*n;
    closedir(dir);
    if (!*numbers)
        return mo_no_memory(ctx, MAX_SETS * sizeof **numbers, path);
    qsort(*numbers, *n, sizeof **numbers, by_number);
    return MOPT_OK;
}

/* ---- a set ----------------------------------------------------------------------------- */

static bool is_there(const char *path)
{
    struct stat info;
    return !stat(path, &info);
}

static enum mopt_status read_tensor(struct mopt_ctx *ctx, const char *path, struct mo_host_tensor *tensor)
{
    MO_TRY(mo_tensor_file_read(ctx, path, tensor));
    if (mo_convert_known(tensor->dtype))
        return MOPT_OK;
    return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: elements of type %s cannot be fed", path, mo_dtype_name(tensor->dtype));
}

static enum mopt_status read_set(struct mopt_ctx *ctx, struct testdata *t, const char *folder, struct set *set)
{
    char path[MAX_PATH + 64];
    uint32_t n = 0;
    for (; n < MO_MAX_INPUTS; n++) {
        snprintf(path, sizeof path, "%s/input_%u.pb", folder, n);
        if (!is_there(path))
            break;
        MO_TRY(read_tensor(ctx, path, &set->input[n]));
    }
    if (!n)
        return mo_fail(ctx, MOPT_DATA, "%s: has neither test_data_set_0 nor input_0.pb", folder);
    if (t->base.n_inputs && t->base.n_inputs != n)
        return mo_fail(ctx, MOPT_DATA, "%s: has %u inputs, the set before it %u", folder, n, t->base.n_inputs);
    t->base.n_inputs = n;
    snprintf(path, sizeof path, "%s/output_0.pb", folder);
    if (is_there(path))
        MO_TRY(read_tensor(ctx, path, &set->output));
    return MOPT_OK;
}

/* The first dimension that all tensors of the set share; 0: there is none. */
static size_t shared_rows(const struct testdata *t, const struct set *set)
{
    int64_t n = set->input[0].shape.rank ? set->input[0].shape.dim[0] : 0;
    for (uint32_t k = 0; k < t->base.n_inputs; k++)
        if (!set->input[k].shape.rank || set->input[k].shape.dim[0] != n)
            return 0;
    if (set->output.data && (!set->output.shape.rank || set->output.shape.dim[0] != n))
        return 0;
    return n > 0 ? (size_t)n : 0;
}

static struct mo_shape row_shape(const struct mo_shape *shape, bool by_rows)
{
    struct mo_shape row = *shape;
    if (by_rows) {
        row.rank--;
        memmove(row.dim, row.dim + 1, sizeof row.dim - sizeof row.dim[0]);
    }
    return row;
}

static enum mopt_status set_targets(struct mopt_ctx *ctx, struct testdata *t, struct set *set)
{
    size_t n = (size_t)mo_shape_elems(&set->output.shape);
    set->targets = mo_mem_new(MO_MAX(n, (size_t)1), sizeof *set->targets);
    if (!set->targets)
        return mo_no_memory(ctx, n * sizeof *set->targets, t->base.path);
    mo_convert(set->output.dtype, set->output.data, MO_F32, set->targets, n);
    size_t each = n / set->n_rows;
    if (t->base.n_targets && (size_t)t->base.n_targets != each)
        return mo_fail(ctx, MOPT_DATA, "%s: outputs of its sets have different sizes", t->base.path);
    if (!each || each > INT32_MAX)
        return mo_fail(ctx, MOPT_DATA, "%s: an output of %zu elements", t->base.path, each);
    t->base.n_targets = (int)each;
    return MOPT_OK;
}

/* Every set in the same way: by rows when all can be, else whole. */
static enum mopt_status settle(struct mopt_ctx *ctx, struct testdata *t)
{
    bool by_rows = true;
    struct mo_source *base = &t->base;
    t->has_outputs = true;
    for (size_t i = 0; i < t->n_sets; i++) {
        by_rows &= shared_rows(t, &t->sets[i]) > 0;
        t->has_outputs &= t->sets[i].output.data != NULL;
    }
    for (size_t i = 0; i < t->n_sets; i++) {
        struct set *set = &t->sets[i];
        set->n_rows = by_rows ? shared_rows(t, set) : 1;
        set->n_before = base->n_samples;
        base->n_samples += set->n_rows;
        for (uint32_t k = 0; k < base->n_inputs; k++) {
            struct mo_shape shape = row_shape(&set->input[k].shape, by_rows);
            if (i && (!mo_shape_equal(&shape, &base->shape[k]) || set->input[k].dtype != base->dtype[k]))
                return mo_fail(ctx, MOPT_DATA, "%s: input %u differs in shape or type between its sets", base->path, k);
            base->shape[k] = shape;
            base->dtype[k] = set->input[k].dtype;
            t->row_bytes[k] = set->input[k].n_bytes / set->n_rows;
        }
        if (t->has_outputs)
            MO_TRY(set_targets(ctx, t, set));
    }
    base->target = t->has_outputs ? MO_TARGET_VALUES : MO_TARGET_NONE;
    return MOPT_OK;
}

/* ---- as a source ----------------------------------------------------------------------------- */

static enum mopt_status read_sample(struct mo_source *source, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    (void)buffer, (void)why, (void)why_bytes;
    const struct testdata *t = (const struct testdata *)source;
    size_t i = t->n_sets - 1;
    while (t->sets[i].n_before > index)
        i--;
    const struct set *set = &t->sets[i];
    size_t row = index - set->n_before;
    for (uint32_t k = 0; k < source->n_inputs; k++)
        sample->data[k] = (const char *)set->input[k].data + row * t->row_bytes[k];
    sample->targets = set->targets ? set->targets + row * (size_t)source->n_targets : NULL;
    return MOPT_OK;
}

static void close_testdata(struct mo_source *source)
{
    struct testdata *t = (struct testdata *)source;
    for (size_t i = 0; i < t->n_sets; i++) {
        for (size_t k = 0; k < MO_MAX_INPUTS; k++)
            mo_host_tensor_release(&t->sets[i].input[k]);
        mo_host_tensor_release(&t->sets[i].output);
        mo_mem_free(t->sets[i].targets);
    }
    mo_mem_free(t->sets);
    mo_arena_release(&t->arena);
    mo_mem_free(t);
}

static enum mopt_status read_all(struct mopt_ctx *ctx, struct testdata *t)
{
    long *numbers;
    size_t n;
    MO_TRY(list_sets(ctx, &t->arena, t->base.path, &numbers, &n));
    t->n_sets = MO_MAX(n, (size_t)1);
    t->sets = mo_mem_new(t->n_sets, sizeof *t->sets);
    if (!t->sets) {
        t->n_sets = 0;
        return mo_no_memory(ctx, n * sizeof *t->sets, t->base.path);
    }
    for (size_t i = 0; i < t->n_sets; i++) {
        char folder[MAX_PATH];
        int used = n ? snprintf(folder, sizeof folder, "%s/test_data_set_%ld", t->base.path, numbers[i])
                     : snprintf(folder, sizeof folder, "%s", t->base.path);
        if (used < 0 || (size_t)used >= sizeof folder)
            return mo_fail(ctx, MOPT_DATA, "%s: its path is too long", t->base.path);
        MO_TRY(read_set(ctx, t, folder, &t->sets[i]));
    }
    return settle(ctx, t);
}

static enum mopt_status open_testdata(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                                      const char *schema, struct mo_source **source)
{
    (void)schema;
    if (part == MO_PART_TEST)
        return MOPT_OK;
    struct testdata *t = mo_mem_new(1, sizeof *t);
    if (!t)
        return mo_no_memory(ctx, sizeof *t, spec->path[0]);
    t->base = (struct mo_source){.format = "onnx-testdata", .path = mo_arena_text(&t->arena, spec->path[0]),
                                 .kind = MO_SAMPLE_TENSOR, .is_prepared = true, .is_cheap = true, .read = read_sample,
                                 .close = close_testdata};
    enum mopt_status s = t->base.path ? read_all(ctx, t) : mo_no_memory(ctx, 0, "a path");
    if (s)
        close_testdata(&t->base);
    else
        *source = &t->base;
    return s;
}

const struct mo_source_format mo_format_onnx_testdata = {
    .name = "onnx-testdata",
    .grammar = "FOLDER",
    .help = "test_data_set_N/input_K.pb and output_K.pb, as ONNX models come with",
    .max_paths = 1,
    .open = open_testdata,
};
