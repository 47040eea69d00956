/* cifar.c - the binary files of CIFAR-10 (label, 3072 bytes) and CIFAR-100 (coarse label, fine label, 3072 bytes): images
 * of 32x32, the red plane first. A folder with data_batch_*.bin and test_batch.bin, or train.bin and test.bin; or one
 * file, which is CIFAR-10 unless its size fits CIFAR-100 alone. */
#include "formats/blob.h"
#include "formats/sources.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXEL_BYTES = 3 * PLANE, MAX_FILES = 5 };

struct cifar {
    struct mo_source base;
    struct mo_blob file[MAX_FILES];
    size_t n_files, n_before[MAX_FILES + 1];    /* samples in the files before each */
    size_t label_bytes, label_at;
    char path[];
};

static const uint8_t *record(const struct cifar *c, size_t index)
{
    size_t f = 0;
    while (index >= c->n_before[f + 1])
        f++;
    return c->file[f].bytes + (index - c->n_before[f]) * (c->label_bytes + PIXEL_BYTES);
}

static enum mopt_status read_sample(struct mo_source *source, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    const struct cifar *c = (const struct cifar *)source;
    const uint8_t *in = record(c, index);
    uint8_t *pixels = mo_buffer_grow(buffer, PIXEL_BYTES);
    if (!pixels) {
        snprintf(why, why_bytes, "out of memory for a sample");
        return MOPT_LIMIT;
    }
    sample->label = in[c->label_at];
    in += c->label_bytes;
    for (size_t i = 0; i < PLANE; i++) {
        pixels[3 * i] = in[i];
        pixels[3 * i + 1] = in[PLANE + i];
        pixels[3 * i + 2] = in[2 * PLANE + i];
    }
    sample->height = sample->width = SIDE;
    sample->channels = 3;
    sample->pixels = pixels;
    return MOPT_OK;
}

static int64_t label_of(struct mo_source *source, size_t index)
{
    const struct cifar *c = (const struct cifar *)source;
    return record(c, index)[c->label_at];
}

static void close_cifar(struct mo_source *source)
{
    struct cifar *c = (struct cifar *)source;
    for (size_t i = 0; i < c->n_files; i++)
        mo_blob_close(&c->file[i]);
    mo_mem_free(c);
}

static enum mopt_status add_file(struct mopt_ctx *ctx, struct cifar *c, const char *path)
{
    size_t each = c->label_bytes + PIXEL_BYTES, k = c->n_files;
    MO_TRY(mo_blob_open(ctx, path, &c->file[k]));
    c->n_files++;
    size_t n = c->file[k].n_bytes / each;
    if (!n || c->file[k].n_bytes % each)
        return mo_fail(ctx, MOPT_DATA, "%s: %zu bytes are no whole number of records of %zu", path, c->file[k].n_bytes,
                       each);
    c->n_before[k + 1] = c->n_before[k] + n;
    for (size_t i = 0; i < n; i++) {
        int label = c->file[k].bytes[i * each + c->label_at];
        if (label >= c->base.n_classes)
            return mo_fail(ctx, MOPT_DATA, "%s: record %zu has label %d, more than %d", path, i, label,
                           c->base.n_classes - 1);
    }
    return MOPT_OK;
}

static void set_kind(struct cifar *c, bool is_100, bool wants_coarse)
{
    c->label_bytes = is_100 ? 2 : 1;
    c->label_at = is_100 && !wants_coarse;
    c->base.n_classes = !is_100 ? 10 : wants_coarse ? 20 : 100;
}

static bool is_there(const char *folder, const char *name, char *path, size_t room)
{
    struct stat info;
    int n = snprintf(path, room, "%s/%s", folder, name);
    return n > 0 && (size_t)n < room && !stat(path, &info);
}

static enum mopt_status add_folder(struct mopt_ctx *ctx, struct cifar *c, const char *folder, enum mo_part part,
                                   bool wants_coarse)
{
    char path[4096];
    bool is_test = part == MO_PART_TEST;
    if (is_there(folder, "train.bin", path, sizeof path) || is_there(folder, "test.bin", path, sizeof path)) {
        set_kind(c, true, wants_coarse);
        return is_there(folder, is_test ? "test.bin" : "train.bin", path, sizeof path) ? add_file(ctx, c, path) : MOPT_OK;
    }
    set_kind(c, false, false);
    if (is_test)
        return is_there(folder, "test_batch.bin", path, sizeof path) ? add_file(ctx, c, path) : MOPT_OK;
    for (int i = 1; i <= MAX_FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        if (is_there(folder, name, path, sizeof path))
            MO_TRY(add_file(ctx, c, path));
    }
    if (!c->n_files && !is_there(folder, "test_batch.bin", path, sizeof path))
        return mo_fail(ctx, MOPT_DATA, "%s: has neither data_batch_1.bin nor train.bin", folder);
    return MOPT_OK;
}

static enum mopt_status add_all(struct mopt_ctx *ctx, struct cifar *c, const struct mo_source_spec *spec,
                                enum mo_part part)
{
    struct stat info;
    int label;
    MO_TRY(mo_spec_choice(ctx, spec, "label", "fine|coarse", 0, &label));
    if (!stat(c->path, &info) && S_ISDIR(info.st_mode))
        return add_folder(ctx, c, c->path, part, label == 1);
    if (part == MO_PART_TEST)
        return MOPT_OK;
    size_t n = stat(c->path, &info) ? 0 : (size_t)info.st_size;
    set_kind(c, n % (1 + PIXEL_BYTES) && n % (2 + PIXEL_BYTES) == 0, label == 1);
    return add_file(ctx, c, c->path);
}

static enum mopt_status open_cifar(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                                   const char *schema, struct mo_source **source)
{
    (void)schema;
    size_t n_path = strlen(spec->path[0]) + 1;
    struct cifar *c = mo_mem_new(1, sizeof *c + n_path);
    if (!c)
        return mo_no_memory(ctx, sizeof *c, spec->path[0]);
    memcpy(c->path, spec->path[0], n_path);
    c->base = (struct mo_source){.format = "cifar", .path = c->path, .kind = MO_SAMPLE_IMAGE, .height = SIDE,
                                 .width = SIDE, .channels = 3, .target = MO_TARGET_CLASS, .is_cheap = true,
                                 .read = read_sample, .label = label_of, .close = close_cifar};
    enum mopt_status s = add_all(ctx, c, spec, part);
    c->base.n_samples = c->n_before[c->n_files];
    c->base.held_bytes = c->base.n_samples * (c->label_bytes + PIXEL_BYTES);
    if (s || !c->n_files)
        close_cifar(&c->base);
    else
        *source = &c->base;
    return s;
}

const struct mo_source_format mo_format_cifar = {
    .name = "cifar",
    .grammar = "FOLDER or FILE.bin[,label=fine|coarse]",
    .help = "the binary files of CIFAR-10 and CIFAR-100",
    .keys = "label",
    .max_paths = 1,
    .open = open_cifar,
};
