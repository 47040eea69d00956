/* numpy_source.c - arrays of samples: npy:X.npy,Y.npy, or one .npz with both.
 *
 * X is N x sample. Bytes (uint8) of N x H x W, N x H x W x 1 or 3, or N x 1 or 3 x H x W are images; anything else is a
 * tensor as it stands. Y: whole numbers of N or N x 1 are classes, floats are values. In an archive the names are x and
 * y, or x_train, y_train, x_test, y_test (also with capitals, or "data"/"images" and "labels"), unless given. */
#include "formats/npy.h"
#include "formats/sources.h"

#include "lib/data/convert.h"

#include <stdio.h>
#include <string.h>

enum { MAX_CLASSES = 1 << 20, MAX_SIDE = 1 << 16 };
enum layout { LAYOUT_AUTO, LAYOUT_HWC, LAYOUT_CHW, LAYOUT_TENSOR };
enum target { TARGET_AUTO, TARGET_CLASSES, TARGET_VALUES };

struct array { struct mo_npy npy; struct mo_blob blob; void *heap; };     /* heap: an inflated archive member */

struct numpy {
    struct mo_source base;
    struct array x, y;
    size_t sample_bytes;
    bool is_planar;                 /* images come C H W */
    int64_t *labels;
    float *targets;
    char path[];
};

/* ---- arrays from files ------------------------------------------------------------ */

static enum mopt_status parse_numbers(struct mopt_ctx *ctx, const char *path, const uint8_t *bytes, size_t n_bytes,
                                      struct array *array)
{
    MO_TRY(mo_npy_parse(ctx, path, bytes, n_bytes, &array->npy));
    return array->npy.dtype != MO_STRING ? MOPT_OK
                                         : mo_fail(ctx, MOPT_UNSUPPORTED, "%s: holds texts, samples are numbers", path);
}

static enum mopt_status read_npy(struct mopt_ctx *ctx, const char *path, struct array *array)
{
    MO_TRY(mo_blob_open(ctx, path, &array->blob));
    return parse_numbers(ctx, path, array->blob.bytes, array->blob.n_bytes, array);
}

static const struct mo_zip_entry *find_entry(const struct mo_zip *zip, const char *name)
{
    for (size_t i = 0; i < zip->n_entries; i++) {
        const char *dot = strrchr(zip->entry[i].name, '.');
        size_t n = dot && !strcmp(dot, ".npy") ? (size_t)(dot - zip->entry[i].name) : strlen(zip->entry[i].name);
        if (strlen(name) == n && !memcmp(zip->entry[i].name, name, n))
            return &zip->entry[i];
    }
    return NULL;
}

static const struct mo_zip_entry *find_usual(const struct mo_zip *zip, const char *const *names)
{
    const struct mo_zip_entry *entry = NULL;
    for (; *names && !entry; names++)
        entry = find_entry(zip, *names);
    return entry;
}

static enum mopt_status list_entries(struct mopt_ctx *ctx, const struct mo_zip *zip, const char *what)
{
    char list[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < zip->n_entries && used < sizeof list - 1; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s'%s'", i ? ", " : "", zip->entry[i].name);
        used = MO_MIN(used + (size_t)MO_MAX(n, 0), sizeof list - 1);
    }
    return mo_fail(ctx, MOPT_DATA, "%s: has no array '%s'; it has %s (x=NAME and y=NAME choose)", zip->path, what, list);
}

static enum mopt_status read_member(struct mopt_ctx *ctx, const struct mo_zip *zip, const struct mo_zip_entry *entry,
                                    struct array *array)
{
    const uint8_t *bytes;
    char label[4096];
    MO_TRY(mo_zip_read(ctx, zip, entry, &bytes, &array->heap));
    snprintf(label, sizeof label, "%s: %s", zip->path, entry->name);
    return parse_numbers(ctx, label, bytes, entry->n_bytes, array);
}

/* Chooses the members. *x NULL: the archive has no such part. */
static enum mopt_status choose_members(struct mopt_ctx *ctx, const struct mo_zip *zip, const struct mo_source_spec *spec,
                                       enum mo_part part, const struct mo_zip_entry **x, const struct mo_zip_entry **y)
{
    static const char *const train_x[] = {"x_train", "X_train", "train_x", "train_images", "x", "X", "data", "images", NULL};
    static const char *const train_y[] = {"y_train", "Y_train", "train_y", "train_labels", "y", "Y", "labels", "target",
                                          NULL};
    static const char *const test_x[] = {"x_test", "X_test", "test_x", "test_images", NULL};
    static const char *const test_y[] = {"y_test", "Y_test", "test_y", "test_labels", NULL};
    const char *said_x = mo_spec_value(spec, "x"), *said_y = mo_spec_value(spec, "y");
    bool is_test = part == MO_PART_TEST;
    *x = *y = NULL;
    if (is_test && said_x)
        return MOPT_OK;
    *x = said_x ? find_entry(zip, said_x) : find_usual(zip, is_test ? test_x : train_x);
    *y = said_y ? find_entry(zip, said_y) : find_usual(zip, is_test ? test_y : train_y);
    if (!*x && !is_test)
        return list_entries(ctx, zip, said_x ? said_x : "x");
    if (said_y && !*y)
        return list_entries(ctx, zip, said_y);
    return MOPT_OK;
}

static enum mopt_status read_archive(struct mopt_ctx *ctx, struct numpy *np, const struct mo_source_spec *spec,
                                     enum mo_part part, bool *is_there)
{
    struct mo_zip zip;
    const struct mo_zip_entry *x, *y;
    MO_TRY(mo_blob_open(ctx, spec->path[0], &np->x.blob));
    MO_TRY(mo_zip_open(ctx, spec->path[0], &np->x.blob, &zip));
    enum mopt_status s = choose_members(ctx, &zip, spec, part, &x, &y);
    *is_there = x;
    if (!s && x)
        s = read_member(ctx, &zip, x, &np->x);
    if (!s && x && y)
        s = read_member(ctx, &zip, y, &np->y);
    mo_zip_close(&zip);
    return s;
}

/* ---- samples ------------------------------------------------------------------------ */

static enum mopt_status read_sample(struct mo_source *source, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    const struct numpy *np = (const struct numpy *)source;
    const uint8_t *at = np->x.npy.data + index * np->sample_bytes;
    sample->label = np->labels ? np->labels[index] : 0;
    sample->targets = np->targets ? np->targets + index * (size_t)source->n_targets : NULL;
    bool is_image = source->kind == MO_SAMPLE_IMAGE;
    size_t width = (size_t)mo_dtype_bits(np->x.npy.dtype) / 8;
    if ((is_image && !np->is_planar) || (!is_image && (uintptr_t)at % width == 0)) {
        sample->pixels = at;
        sample->data[0] = at;
    } else {
        uint8_t *copy = mo_buffer_grow(buffer, np->sample_bytes);
        if (!copy) {
            snprintf(why, why_bytes, "out of memory for a sample");
            return MOPT_LIMIT;
        }
        size_t c_n = (size_t)source->channels, plane = is_image ? np->sample_bytes / c_n : 0;
        for (size_t i = 0; i < plane; i++)
            for (size_t c = 0; c < c_n; c++)
                copy[i * c_n + c] = at[c * plane + i];
        if (!is_image)
            memcpy(copy, at, np->sample_bytes);
        sample->pixels = copy;
        sample->data[0] = copy;
    }
    sample->height = source->height;
    sample->width = source->width;
    sample->channels = source->channels;
    return MOPT_OK;
}

static int64_t label_of(struct mo_source *source, size_t index)
{
    return ((const struct numpy *)source)->labels[index];
}

static void release_array(struct array *array)
{
    mo_npy_release(&array->npy);
    mo_blob_close(&array->blob);
    mo_mem_free(array->heap);
}

static void close_numpy(struct mo_source *source)
{
    struct numpy *np = (struct numpy *)source;
    release_array(&np->x);
    release_array(&np->y);
    mo_mem_free(np->labels);
    mo_mem_free(np->targets);
    mo_mem_free(np);
}

/* Whether the array holds images, and how. */
static bool set_image(struct numpy *np, int layout)
{
    const struct mo_shape *s = &np->x.npy.shape;
    struct mo_source *base = &np->base;
    bool last = s->rank == 4 && (s->dim[3] == 1 || s->dim[3] == 3),
         first = s->rank == 4 && (s->dim[1] == 1 || s->dim[1] == 3);
    if (np->x.npy.dtype != MO_U8 || layout == LAYOUT_TENSOR || (s->rank != 3 && !last && !first))
        return false;
    np->is_planar = s->rank == 4 && (layout == LAYOUT_CHW ? first : !last);
    int h = np->is_planar ? 2 : 1;
    if (s->dim[h] < 1 || s->dim[h] > MAX_SIDE || s->dim[h + 1] < 1 || s->dim[h + 1] > MAX_SIDE)
        return false;
    base->kind = MO_SAMPLE_IMAGE;
    base->height = (int)s->dim[h];
    base->width = (int)s->dim[h + 1];
    base->channels = s->rank == 3 ? 1 : (int)s->dim[np->is_planar ? 1 : 3];
    return true;
}

static enum mopt_status set_samples(struct mopt_ctx *ctx, struct numpy *np, const struct mo_source_spec *spec)
{
    const struct mo_npy *x = &np->x.npy;
    struct mo_source *base = &np->base;
    int layout;
    MO_TRY(mo_spec_choice(ctx, spec, "layout", "auto|hwc|chw|tensor", LAYOUT_AUTO, &layout));
    if (x->shape.rank < 1 || x->shape.dim[0] < 1 || !x->n_bytes)
        return mo_fail(ctx, MOPT_DATA, "%s: holds no samples", base->path);
    base->n_samples = (size_t)x->shape.dim[0];
    np->sample_bytes = x->n_bytes / base->n_samples;
    base->held_bytes = x->n_bytes;
    if (set_image(np, layout))
        return MOPT_OK;
    if (layout == LAYOUT_HWC || layout == LAYOUT_CHW)
        return mo_fail(ctx, MOPT_DATA, "%s: layout=%s is for images: uint8 with 1 or 3 channels", base->path,
                       mo_spec_value(spec, "layout"));
    base->kind = MO_SAMPLE_TENSOR;
    base->n_inputs = 1;
    base->dtype[0] = x->dtype;
    base->shape[0] = x->shape;
    base->shape[0].rank--;
    memmove(base->shape[0].dim, base->shape[0].dim + 1, sizeof base->shape[0].dim - sizeof base->shape[0].dim[0]);
    return MOPT_OK;
}

static enum mopt_status set_classes(struct mopt_ctx *ctx, struct numpy *np)
{
    const struct mo_npy *y = &np->y.npy;
    struct mo_source *base = &np->base;
    np->labels = mo_mem_new(base->n_samples, sizeof *np->labels);
    if (!np->labels)
        return mo_no_memory(ctx, base->n_samples * sizeof *np->labels, base->path);
    base->held_bytes += y->n_bytes + base->n_samples * sizeof *np->labels;
    mo_convert(y->dtype, y->data, MO_I64, np->labels, base->n_samples);
    for (size_t i = 0; i < base->n_samples; i++) {
        if (np->labels[i] < 0 || np->labels[i] >= MAX_CLASSES)
            return mo_fail(ctx, MOPT_DATA, "%s: label %lld of sample %zu is not from 0 to %d", base->path,
                           (long long)np->labels[i], i, MAX_CLASSES - 1);
        base->n_classes = MO_MAX(base->n_classes, (int)np->labels[i] + 1);
    }
    base->target = MO_TARGET_CLASS;
    base->label = label_of;
    return MOPT_OK;
}

static enum mopt_status set_targets(struct mopt_ctx *ctx, struct numpy *np, const struct mo_source_spec *spec)
{
    struct mo_npy *y = &np->y.npy;
    struct mo_source *base = &np->base;
    int target;
    MO_TRY(mo_spec_choice(ctx, spec, "target", "auto|classes|regression", TARGET_AUTO, &target));
    if (y->shape.rank < 1 || (size_t)y->shape.dim[0] != base->n_samples)
        return mo_fail(ctx, MOPT_DATA, "%s: %zu samples, but %lld targets", base->path, base->n_samples,
                       y->shape.rank < 1 ? 1 : (long long)y->shape.dim[0]);
    size_t n = (size_t)mo_shape_elems(&y->shape), each = n / base->n_samples;
    size_t width = (size_t)mo_dtype_bits(y->dtype) / 8;
    if ((uintptr_t)y->data % width && n) { /* an archive's member may lie anywhere */
        void *copy = mo_mem_new(y->n_bytes, 1);
        if (!copy)
            return mo_no_memory(ctx, y->n_bytes, base->path);
        memcpy(copy, y->data, y->n_bytes);
        mo_mem_free(y->heap);
        y->data = y->heap = copy;
    }
    bool is_float = mo_dtype_is_float(y->dtype);
    if (target == TARGET_CLASSES || (target == TARGET_AUTO && !is_float && each == 1)) {
        if (each != 1)
            return mo_fail(ctx, MOPT_DATA, "%s: classes are one number a sample, not %zu", base->path, each);
        return set_classes(ctx, np);
    }
    if (!each || each > 1 << 20)
        return mo_fail(ctx, MOPT_DATA, "%s: %zu target values a sample", base->path, each);
    np->targets = mo_mem_new(n, sizeof *np->targets);
    if (!np->targets)
        return mo_no_memory(ctx, n * sizeof *np->targets, base->path);
    base->held_bytes += y->n_bytes + n * sizeof *np->targets;
    mo_convert(y->dtype, y->data, MO_F32, np->targets, n);
    base->target = MO_TARGET_VALUES;
    base->n_targets = (int)each;
    return MOPT_OK;
}

static enum mopt_status read_all(struct mopt_ctx *ctx, struct numpy *np, const struct mo_source_spec *spec,
                                 enum mo_part part, bool *is_there)
{
    const char *dot = strrchr(spec->path[0], '.');
    *is_there = true;
    if (spec->n_paths == 1 && (!dot || strcmp(dot, ".npy"))) {
        MO_TRY(read_archive(ctx, np, spec, part, is_there));
        if (!*is_there)
            return MOPT_OK;
    } else {
        *is_there = part == MO_PART_TRAIN;
        if (!*is_there)
            return MOPT_OK;
        MO_TRY(read_npy(ctx, spec->path[0], &np->x));
        if (spec->n_paths > 1)
            MO_TRY(read_npy(ctx, spec->path[1], &np->y));
    }
    MO_TRY(set_samples(ctx, np, spec));
    return np->y.npy.data ? set_targets(ctx, np, spec) : MOPT_OK;
}

static enum mopt_status open_numpy(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                                   const char *schema, struct mo_source **source)
{
    (void)schema;
    bool is_there;
    size_t n_path = strlen(spec->path[0]) + 1;
    struct numpy *np = mo_mem_new(1, sizeof *np + n_path);
    if (!np)
        return mo_no_memory(ctx, sizeof *np, spec->path[0]);
    memcpy(np->path, spec->path[0], n_path);
    np->base = (struct mo_source){.format = "npy", .path = np->path, .is_cheap = true, .read = read_sample,
                                  .close = close_numpy};
    enum mopt_status s = read_all(ctx, np, spec, part, &is_there);
    if (s || !is_there)
        close_numpy(&np->base);
    else
        *source = &np->base;
    return s;
}

#define NUMPY_KEYS "x|y|target|layout"
const struct mo_source_format mo_format_npy = {
    .name = "npy",
    .grammar = "X.npy[,Y.npy][,target=classes|regression][,layout=hwc|chw|tensor]",
    .help = "numpy arrays of samples and targets",
    .keys = NUMPY_KEYS,
    .max_paths = 2,
    .open = open_numpy,
};
const struct mo_source_format mo_format_npz = {
    .name = "npz",
    .grammar = "FILE.npz[,x=NAME][,y=NAME][,target=classes|regression][,layout=hwc|chw|tensor]",
    .help = "a numpy archive: x and y, or x_train, y_train, x_test, y_test",
    .keys = NUMPY_KEYS,
    .max_paths = 1,
    .open = open_numpy,
};
