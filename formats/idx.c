/* idx.c - MNIST's format: a big-endian header, then the elements.
 *
 *     0 0 TYPE RANK, RANK x u32 dimensions, elements          TYPE 8: unsigned bytes
 *
 * A folder with the usual names (train-images-idx3-ubyte, t10k-labels-idx1-ubyte, each perhaps with .gz),
 * or IMAGES,LABELS as two files. Images: N x H x W, or N x H x W x 1 or 3. Labels: N. */
#include "formats/blob.h"
#include "formats/sources.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { TYPE_U8 = 8, MAX_RANK = 4, MAX_SIDE = 1 << 16 };

struct idx {
    struct mo_source base;
    struct mo_blob images, labels;
    const uint8_t *pixels, *label;
    size_t sample_bytes;
    char path[];
};

struct idx_array { int rank; uint32_t dim[MAX_RANK]; size_t header_bytes, n_elems; };

static enum mopt_status parse_header(struct mopt_ctx *ctx, const char *path, const uint8_t *bytes, size_t n_bytes,
                                     struct idx_array *array)
{
    if (n_bytes < 4 || bytes[0] || bytes[1])
        return mo_fail(ctx, MOPT_DATA, "%s: is not an idx file (its first two bytes are not 0)", path);
    if (bytes[2] != TYPE_U8)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: element type 0x%02x; only unsigned bytes (0x08) are supported", path,
                       bytes[2]);
    array->rank = bytes[3];
    if (array->rank < 1 || array->rank > MAX_RANK)
        return mo_fail(ctx, MOPT_DATA, "%s: %d dimensions; labels have 1, images 3 or 4", path, array->rank);
    array->header_bytes = 4 + 4 * (size_t)array->rank;
    if (n_bytes < array->header_bytes)
        return mo_fail(ctx, MOPT_DATA, "%s: ends inside its header", path);
    array->n_elems = 1;
    for (int i = 0; i < array->rank; i++) {
        array->dim[i] = mo_be32(bytes + 4 + 4 * i);
        if (!mo_mul_size(array->n_elems, array->dim[i], &array->n_elems) || array->n_elems > SIZE_MAX / 2)
            return mo_fail(ctx, MOPT_DATA, "%s: impossible size", path);
    }
    return MOPT_OK;
}

/* The header says how much to inflate, so a small file cannot ask for more than it announces. */
static enum mopt_status inflate_blob(struct mopt_ctx *ctx, const char *path, struct mo_blob *blob)
{
    uint8_t head[4 + 4 * MAX_RANK];
    size_t n_head, n_got;
    bool is_more;
    struct idx_array array;
    if (!mo_gunzip(blob, head, sizeof head, &n_head, &is_more))
        return mo_fail(ctx, MOPT_DATA, "%s: the gzip stream is broken", path);
    MO_TRY(parse_header(ctx, path, head, n_head, &array));
    size_t wanted = array.header_bytes + array.n_elems;
    MO_TRY(mo_source_fits(ctx, path, wanted));
    if (wanted / 1100 > blob->n_bytes) /* deflate never reaches that ratio */
        return mo_fail(ctx, MOPT_DATA, "%s: announces %zu bytes, more than the file can hold", path, wanted);
    uint8_t *heap = mo_mem_new(wanted, 1);
    if (!heap)
        return mo_no_memory(ctx, wanted, path);
    bool ok = mo_gunzip(blob, heap, wanted, &n_got, &is_more);
    mo_blob_close(blob);
    *blob = (struct mo_blob){.bytes = heap, .n_bytes = n_got, .heap = heap};
    if (!ok)
        return mo_fail(ctx, MOPT_DATA, "%s: the gzip stream is broken after %zu bytes", path, n_got);
    if (is_more)
        return mo_fail(ctx, MOPT_DATA, "%s: holds more bytes than its header announces", path);
    return MOPT_OK;
}

static enum mopt_status read_array(struct mopt_ctx *ctx, const char *path, struct mo_blob *blob,
                                   struct idx_array *array)
{
    MO_TRY(mo_blob_open(ctx, path, blob));
    if (mo_blob_is_gzip(blob))
        MO_TRY(inflate_blob(ctx, path, blob));
    MO_TRY(parse_header(ctx, path, blob->bytes, blob->n_bytes, array));
    size_t there = blob->n_bytes - array->header_bytes;
    if (there != array->n_elems)
        return mo_fail(ctx, MOPT_DATA, "%s: its header announces %zu bytes of elements, %zu are there", path,
                       array->n_elems, there);
    return MOPT_OK;
}

static enum mopt_status read_sample(struct mo_source *source, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    (void)buffer, (void)why, (void)why_bytes;
    const struct idx *idx = (const struct idx *)source;
    sample->height = source->height;
    sample->width = source->width;
    sample->channels = source->channels;
    sample->pixels = idx->pixels + index * idx->sample_bytes;
    sample->label = idx->label ? idx->label[index] : 0;
    return MOPT_OK;
}

static int64_t label_of(struct mo_source *source, size_t index)
{
    return ((const struct idx *)source)->label[index];
}

static void close_idx(struct mo_source *source)
{
    struct idx *idx = (struct idx *)source;
    mo_blob_close(&idx->images);
    mo_blob_close(&idx->labels);
    mo_mem_free(idx);
}

static enum mopt_status fill(struct mopt_ctx *ctx, struct idx *idx, const char *images, const char *labels)
{
    struct idx_array x, y;
    struct mo_source *base = &idx->base;
    MO_TRY(read_array(ctx, images, &idx->images, &x));
    if (x.rank < 3 || (x.rank == 4 && x.dim[3] != 1 && x.dim[3] != 3))
        return mo_fail(ctx, MOPT_DATA, "%s: holds no images: they have 3 dimensions, or 4 with 1 or 3 channels last",
                       images);
    if (!x.n_elems || x.dim[1] > MAX_SIDE || x.dim[2] > MAX_SIDE || x.dim[0] >= UINT32_MAX)
        return mo_fail(ctx, MOPT_DATA, "%s: %u images of %ux%u", images, x.dim[0], x.dim[1], x.dim[2]);
    base->n_samples = x.dim[0];
    base->height = (int)x.dim[1];
    base->width = (int)x.dim[2];
    base->channels = x.rank == 4 ? (int)x.dim[3] : 1;
    idx->pixels = idx->images.bytes + x.header_bytes;
    idx->sample_bytes = x.n_elems / x.dim[0];
    base->held_bytes = idx->images.n_bytes;
    if (!labels)
        return MOPT_OK;
    MO_TRY(read_array(ctx, labels, &idx->labels, &y));
    if (y.rank != 1)
        return mo_fail(ctx, MOPT_DATA, "%s: labels have one dimension, this has %d", labels, y.rank);
    if (y.dim[0] != x.dim[0])
        return mo_fail(ctx, MOPT_DATA, "%s has %u labels, %s has %u images", labels, y.dim[0], images, x.dim[0]);
    idx->label = idx->labels.bytes + y.header_bytes;
    base->held_bytes += idx->labels.n_bytes;
    base->target = MO_TARGET_CLASS;
    base->label = label_of;
    for (size_t i = 0; i < base->n_samples; i++)
        base->n_classes = MO_MAX(base->n_classes, idx->label[i] + 1);
    return MOPT_OK;
}

static enum mopt_status open_pair(struct mopt_ctx *ctx, const char *images, const char *labels,
                                  struct mo_source **source)
{
    size_t n_path = strlen(images) + 1;
    struct idx *idx = mo_mem_new(1, sizeof *idx + n_path);
    if (!idx)
        return mo_no_memory(ctx, sizeof *idx, images);
    memcpy(idx->path, images, n_path);
    idx->base = (struct mo_source){.format = "idx", .path = idx->path, .kind = MO_SAMPLE_IMAGE, .is_cheap = true,
                                   .read = read_sample, .close = close_idx};
    enum mopt_status s = fill(ctx, idx, images, labels);
    if (s)
        close_idx(&idx->base);
    else
        *source = &idx->base;
    return s;
}

/* The first of the names a file may have that is there. */
static bool find_file(const char *folder, const char *const *parts, const char *what, int rank, char *path, size_t room)
{
    static const char *const endings[] = {"", ".gz"};
    struct stat info;
    for (; *parts; parts++)
        for (int f = 0; f < 2; f++)
            for (size_t e = 0; e < MO_COUNT(endings); e++) {
                char tail[64];
                snprintf(tail, sizeof tail, f ? "-%s.idx%d-ubyte" : "-%s-idx%d-ubyte", what, rank);
                int n = snprintf(path, room, "%s/%s%s%s", folder, *parts, tail, endings[e]);
                if (n > 0 && (size_t)n < room && !stat(path, &info))
                    return true;
            }
    return false;
}

static enum mopt_status open_folder(struct mopt_ctx *ctx, const char *folder, enum mo_part part,
                                    struct mo_source **source)
{
    static const char *const names[2][3] = {{"train", NULL}, {"t10k", "test", NULL}};
    char images[4096], labels[4096];
    if (!find_file(folder, names[part], "images", 3, images, sizeof images)) {
        if (find_file(folder, names[!part], "images", 3, images, sizeof images))
            return MOPT_OK; /* it has the other part only */
        return mo_fail(ctx, MOPT_DATA, "%s: has neither train-images-idx3-ubyte nor t10k-images-idx3-ubyte, also not .gz",
                       folder);
    }
    if (!find_file(folder, names[part], "labels", 1, labels, sizeof labels))
        return mo_fail(ctx, MOPT_DATA, "%s: %s-labels-idx1-ubyte is missing", folder, names[part][0]);
    return open_pair(ctx, images, labels, source);
}

static enum mopt_status open_idx(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                                 const char *schema, struct mo_source **source)
{
    (void)schema;
    struct stat info;
    if (spec->n_paths == 1 && !stat(spec->path[0], &info) && S_ISDIR(info.st_mode))
        return open_folder(ctx, spec->path[0], part, source);
    if (part == MO_PART_TEST)
        return MOPT_OK;
    return open_pair(ctx, spec->path[0], spec->n_paths > 1 ? spec->path[1] : NULL, source);
}

const struct mo_source_format mo_format_idx = {
    .name = "idx",
    .grammar = "FOLDER or IMAGES,LABELS",
    .help = "MNIST's files, plain or .gz",
    .max_paths = 2,
    .open = open_idx,
};
