/* image_folder.c - FOLDER/CLASS/FILE.jpg, .jpeg or .png; classes are the sub-folders in the order of their names.
 *
 * FOLDER may have train/ and one of test/, val/ or validation/ with the classes in them. Files are decoded when they
 * are asked for; decoded pictures are kept while they fit a cache. Pictures are grey when the first of every class is,
 * else RGB; channels= says otherwise. EXIF turns are not applied. A folder of pictures without sub-folders has no labels:
 * enough for calibration. */
#include "formats/image_decode.h"
#include "formats/sources.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PATH = 4096, MAX_CLASSES = 100000, GREY = 1, RGB = 3 };
#define MAX_FILE_BYTES ((off_t)1 << 30)
#define MAX_PIXELS ((uint64_t)1 << 27)
/* Small pictures are read again faster than a step is made, large ones would be too many: so few are kept. */
#define CACHE_BYTES ((size_t)32 << 20)

struct names { char **item; size_t n, room; };

struct entry { const char *name; int label; };  /* name: below the class folder's */
struct kept { int height, width; uint8_t pixels[]; };

struct folder {
    struct mo_source base;
    struct mo_arena arena;
    const char *root;
    struct names class_names;           /* in the order of their labels */
    bool is_flat;                       /* no sub-folders: pictures without labels */
    struct entry *entry;
    size_t n_entries, room;
    uint64_t max_pixels;
    _Atomic(struct kept *) *cache;      /* a decoded picture a sample; NULL: not kept */
    atomic_size_t cache_left;
};

/* ---- listing ------------------------------------------------------------------------ */

static enum mopt_status add_name(struct mopt_ctx *ctx, struct mo_arena *arena, struct names *names, const char *name)
{
    if (names->n == names->room) {
        size_t room = names->room ? 2 * names->room : 64, each = sizeof *names->item;
        char **item = mo_mem_grow(names->item, names->n * each, room * each);
        if (!item)
            return mo_no_memory(ctx, room * each, "file names");
        names->item = item;
        names->room = room;
    }
    names->item[names->n] = mo_arena_text(arena, name);
    return names->item[names->n++] ? MOPT_OK : mo_no_memory(ctx, strlen(name), "file names");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_folder(const char *parent, const char *name)
{
    char path[MAX_PATH];
    struct stat info;
    int n = snprintf(path, sizeof path, "%s%s%s", parent, *name ? "/" : "", name);
    return n > 0 && (size_t)n < sizeof path && !stat(path, &info) && S_ISDIR(info.st_mode);
}

static bool is_picture(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".png"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < MO_COUNT(endings); i++)
        if (!strcasecmp(dot, endings[i]))
            return true;
    return false;
}

/* Sub-folders, or pictures, of a folder, sorted. Hidden ones do not count. */
static enum mopt_status list(struct mopt_ctx *ctx, struct mo_arena *arena, const char *path, bool folders,
                             struct names *names)
{
    DIR *dir = opendir(path);
    if (!dir)
        return mo_fail(ctx, MOPT_DATA, "%s: %s", path, strerror(errno));
    enum mopt_status s = MOPT_OK;
    for (struct dirent *e; !s && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        bool wanted = folders ? e->d_type == DT_DIR || (e->d_type != DT_REG && is_folder(path, e->d_name))
                              : e->d_type != DT_DIR && is_picture(e->d_name);
        if (wanted)
            s = add_name(ctx, arena, names, e->d_name);
    }
    closedir(dir);
    if (names->n > 1)
        qsort(names->item, names->n, sizeof *names->item, by_text);
    return s;
}

static enum mopt_status add_entry(struct mopt_ctx *ctx, struct folder *f, const char *name, int label)
{
    if (f->n_entries == f->room) {
        size_t room = f->room ? 2 * f->room : 1024, each = sizeof *f->entry;
        struct entry *entry = mo_mem_grow(f->entry, f->n_entries * each, room * each);
        if (!entry)
            return mo_no_memory(ctx, room * each, "file names");
        f->entry = entry;
        f->room = room;
    }
    f->entry[f->n_entries++] = (struct entry){.name = name, .label = label};
    return MOPT_OK;
}

static enum mopt_status list_class(struct mopt_ctx *ctx, struct folder *f, const char *name, int label)
{
    char path[MAX_PATH];
    struct names files = {0};
    int n = snprintf(path, sizeof path, "%s/%s", f->root, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return mo_fail(ctx, MOPT_DATA, "%s: its path is too long", name);
    enum mopt_status s = list(ctx, &f->arena, path, false, &files);
    if (!s && !files.n)
        s = mo_fail(ctx, MOPT_DATA, "%s: the class folder has no image (.jpg, .jpeg or .png)", path);
    for (size_t i = 0; !s && i < files.n; i++)
        s = add_entry(ctx, f, files.item[i], label);
    mo_mem_free(files.item);
    return s;
}

static int find_class(const struct names *names, const char *name)
{
    char *const *found = bsearch(&name, names->item, names->n, sizeof *names->item, by_text);
    return found ? (int)(found - names->item) : -1;
}

/* The classes of the training data, from its schema. */
static enum mopt_status read_schema(struct mopt_ctx *ctx, struct folder *f, const char *schema)
{
    cJSON *root = cJSON_Parse(schema), *item;
    cJSON *format = cJSON_GetObjectItemCaseSensitive(root, "format");
    cJSON *classes = cJSON_GetObjectItemCaseSensitive(root, "classes");
    enum mopt_status s = MOPT_OK;
    if (!cJSON_IsString(format) || strcmp(format->valuestring, "imagefolder") || !cJSON_IsArray(classes))
        s = mo_fail(ctx, MOPT_DATA, "the model was trained on data of another format; --schema data numbers classes anew");
    cJSON_ArrayForEach(item, classes)
    {
        if (!s && !cJSON_IsString(item))
            s = mo_fail(ctx, MOPT_DATA, "the schema of the training data is broken: classes must be texts");
        if (!s)
            s = add_name(ctx, &f->arena, &f->class_names, item->valuestring);
    }
    cJSON_Delete(root);
    for (size_t i = 1; !s && i < f->class_names.n; i++)
        if (strcmp(f->class_names.item[i - 1], f->class_names.item[i]) >= 0)
            s = mo_fail(ctx, MOPT_DATA, "the schema of the training data is broken: classes must be sorted");
    return s;
}

static enum mopt_status write_schema(struct mopt_ctx *ctx, struct folder *f)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root && cJSON_AddStringToObject(root, "format", "imagefolder");
    cJSON *classes = ok ? cJSON_CreateStringArray((const char *const *)f->class_names.item, (int)f->class_names.n) : NULL;
    ok = classes && cJSON_AddItemToObject(root, "classes", classes);
    char *text = ok ? cJSON_PrintUnformatted(root) : NULL;
    f->base.schema = mo_arena_text(&f->arena, text);
    cJSON_free(text);
    cJSON_Delete(root);
    return f->base.schema ? MOPT_OK : mo_no_memory(ctx, 0, "a schema");
}

static enum mopt_status list_classes(struct mopt_ctx *ctx, struct folder *f, const struct names *there)
{
    for (size_t i = 0; i < there->n; i++) {
        int label = find_class(&f->class_names, there->item[i]);
        if (label < 0)
            return mo_fail(ctx, MOPT_DATA, "%s: class folder '%s' is none of the %zu classes the model was trained on "
                           "(--schema data numbers classes anew)", f->root, there->item[i], f->class_names.n);
        MO_TRY(list_class(ctx, f, there->item[i], label));
        MO_TRY(mo_stopped(ctx));
    }
    return MOPT_OK;
}

/* Pictures without classes, for calibration. */
static enum mopt_status list_flat(struct mopt_ctx *ctx, struct folder *f)
{
    f->is_flat = true;
    MO_TRY(add_name(ctx, &f->arena, &f->class_names, "."));
    enum mopt_status s = list_class(ctx, f, ".", 0);
    if (s == MOPT_DATA && !f->n_entries) {
        mopt_clear(ctx);
        return mo_fail(ctx, MOPT_DATA, "%s: has neither sub-folders, each a class, nor images", f->root);
    }
    return s;
}

static enum mopt_status list_all(struct mopt_ctx *ctx, struct folder *f, const char *schema)
{
    struct names there = {0};
    enum mopt_status s = list(ctx, &f->arena, f->root, true, &there);
    if (!s && !there.n)
        return list_flat(ctx, f);
    if (!s && there.n > MAX_CLASSES)
        s = mo_fail(ctx, MOPT_LIMIT, "%s: has more than %d sub-folders", f->root, MAX_CLASSES);
    if (!s && schema)
        s = read_schema(ctx, f, schema);
    for (size_t i = 0; !s && !schema && i < there.n; i++)
        s = add_name(ctx, &f->arena, &f->class_names, there.item[i]);
    if (!s)
        s = list_classes(ctx, f, &there);
    mo_mem_free(there.item);
    return s;
}

/* ---- reading a file -------------------------------------------------------------------- */

static bool path_of(const struct folder *f, size_t index, char *path, size_t room)
{
    const struct entry *e = &f->entry[index];
    int n = snprintf(path, room, "%s/%s/%s", f->root, f->class_names.item[e->label], e->name);
    return n > 0 && (size_t)n < room;
}

static bool read_whole(int fd, uint8_t *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = read(fd, bytes + at, n - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

/* The file's bytes; heap. NULL and words. */
static uint8_t *read_bytes(const char *path, size_t *n_bytes, char *why, size_t why_bytes)
{
    struct stat info;
    uint8_t *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info))
        snprintf(why, why_bytes, "%s", strerror(errno));
    else if (!S_ISREG(info.st_mode) || info.st_size > MAX_FILE_BYTES || info.st_size < 1)
        snprintf(why, why_bytes, "%s", info.st_size < 1 ? "the file is empty" : "is no regular file below 1 GiB");
    else if (!(bytes = mo_mem_new((size_t)info.st_size, 1)))
        snprintf(why, why_bytes, "out of memory for a file");
    else if (!read_whole(fd, bytes, *n_bytes = (size_t)info.st_size)) {
        snprintf(why, why_bytes, "cannot be read: %s", errno ? strerror(errno) : "it ends too early");
        mo_mem_free(bytes);
        bytes = NULL;
    }
    if (fd >= 0)
        close(fd);
    return bytes;
}

static void keep(struct folder *f, size_t index, const struct mo_sample *sample)
{
    size_t n = (size_t)sample->height * (size_t)sample->width * (size_t)sample->channels + sizeof(struct kept);
    size_t left = atomic_load(&f->cache_left);
    do {
        if (left < n)
            return;
    } while (!atomic_compare_exchange_weak(&f->cache_left, &left, left - n));
    struct kept *kept = mo_mem_new(n, 1), *none = NULL;
    if (!kept)
        return;
    kept->height = sample->height;
    kept->width = sample->width;
    memcpy(kept->pixels, sample->pixels, n - sizeof *kept);
    if (!atomic_compare_exchange_strong(&f->cache[index], &none, kept))
        mo_mem_free(kept);
}

static enum mopt_status read_sample(struct mo_source *source, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    struct folder *f = (struct folder *)source;
    char path[MAX_PATH], words[300];
    sample->label = f->entry[index].label;
    sample->channels = source->channels;
    const struct kept *kept = atomic_load(&f->cache[index]);
    if (kept) {
        sample->height = kept->height;
        sample->width = kept->width;
        sample->pixels = kept->pixels;
        return MOPT_OK;
    }
    size_t n = 0;
    if (!path_of(f, index, path, sizeof path)) {
        snprintf(why, why_bytes, "%s: its path is too long", f->entry[index].name);
        return MOPT_DATA;
    }
    uint8_t *bytes = read_bytes(path, &n, words, sizeof words);
    enum mopt_status s = MOPT_DATA;
    if (bytes)
        s = mo_image_decode(bytes, n, source->channels, f->max_pixels, buffer, &sample->height, &sample->width, words,
                            sizeof words);
    mo_mem_free(bytes);
    if (s) {
        snprintf(why, why_bytes, "%s: %s", path, words);
        return s;
    }
    sample->pixels = buffer->mem;
    keep(f, index, sample);
    return MOPT_OK;
}

static int64_t label_of(struct mo_source *source, size_t index)
{
    return ((const struct folder *)source)->entry[index].label;
}

static void close_folder(struct mo_source *source)
{
    struct folder *f = (struct folder *)source;
    for (size_t i = 0; f->cache && i < f->n_entries; i++)
        mo_mem_free(atomic_load(&f->cache[i]));
    mo_mem_free(f->cache);
    mo_mem_free(f->entry);
    mo_mem_free(f->class_names.item);
    mo_arena_release(&f->arena);
    mo_mem_free(f);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Whether the first picture of each class that can be read is grey. */
static bool is_grey(struct folder *f)
{
    int last = -1;
    for (size_t i = 0; i < f->n_entries; i++) {
        char path[MAX_PATH], why[300];
        struct mo_image_info info;
        size_t n = 0;
        if (f->entry[i].label == last || !path_of(f, i, path, sizeof path))
            continue;
        uint8_t *bytes = read_bytes(path, &n, why, sizeof why);
        if (bytes && mo_image_info(bytes, n, &info, why, sizeof why)) {
            last = f->entry[i].label;
            if (!info.is_grey) {
                mo_mem_free(bytes);
                return false;
            }
        }
        mo_mem_free(bytes);
    }
    return last >= 0;
}

/* What is kept when every picture is like the first. */
static size_t picture_bytes(struct folder *f)
{
    char path[MAX_PATH], why[300];
    struct mo_image_info info = { 0 };
    size_t n = 0;
    uint8_t *bytes = f->n_entries && path_of(f, 0, path, sizeof path) ? read_bytes(path, &n, why, sizeof why) : NULL;
    bool is_known = bytes && mo_image_info(bytes, n, &info, why, sizeof why);
    mo_mem_free(bytes);
    return is_known ? (size_t)info.height * (size_t)info.width * (size_t)f->base.channels + sizeof(struct kept) : 0;
}

static enum mopt_status describe(struct mopt_ctx *ctx, struct folder *f, const struct mo_source_spec *spec)
{
    struct mo_source *base = &f->base;
    int channels;
    MO_TRY(mo_spec_choice(ctx, spec, "channels", "auto|1|3", 0, &channels));
    base->channels = channels == 1 || (!channels && is_grey(f)) ? GREY : RGB;
    base->n_samples = f->n_entries;
    if (!f->is_flat) {
        base->target = MO_TARGET_CLASS;
        base->n_classes = (int)f->class_names.n;
        base->class_names = (const char **)f->class_names.item;
        base->label = label_of;
    }
    f->cache = mo_mem_new(MO_MAX(f->n_entries, (size_t)1), sizeof *f->cache);
    if (!f->cache)
        return mo_no_memory(ctx, f->n_entries * sizeof *f->cache, "pictures");
    uint64_t limit = ctx->max_memory_bytes ? ctx->max_memory_bytes : UINT64_MAX;
    f->max_pixels = MO_MIN(limit / 16, MAX_PIXELS);
    size_t most = (size_t)MO_MIN(limit / 8, (uint64_t)CACHE_BYTES), all;
    atomic_store(&f->cache_left, most);
    if (!mo_mul_size(f->n_entries, picture_bytes(f), &all))
        all = most;
    base->held_bytes = MO_MIN(all, most) + f->arena.total_bytes + f->room * sizeof *f->entry +
                       f->n_entries * sizeof *f->cache;
    return f->is_flat ? MOPT_OK : write_schema(ctx, f);
}

/* The folder with the classes of that part; NULL where there is no such part. */
static const char *part_folder(struct mo_arena *arena, const char *path, enum mo_part part)
{
    static const char *const tests[] = {"test", "val", "validation"};
    const char *test = NULL;
    for (size_t i = 0; !test && i < MO_COUNT(tests); i++)
        if (is_folder(path, tests[i]))
            test = tests[i];
    bool has_train = is_folder(path, "train");
    if (part == MO_PART_TRAIN)
        return has_train ? mo_arena_printf(arena, "%s/train", path) : mo_arena_text(arena, path);
    return has_train && test ? mo_arena_printf(arena, "%s/%s", path, test) : NULL;
}

static enum mopt_status open_folder(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                                    const char *schema, struct mo_source **source)
{
    struct folder *f = mo_mem_new(1, sizeof *f);
    if (!f)
        return mo_no_memory(ctx, sizeof *f, spec->path[0]);
    f->base = (struct mo_source){.format = "imagefolder", .kind = MO_SAMPLE_IMAGE, .read = read_sample,
                                 .close = close_folder};
    f->base.path = f->root = part_folder(&f->arena, spec->path[0], part);
    if (!f->root && part == MO_PART_TEST) {
        close_folder(&f->base);
        return MOPT_OK;
    }
    enum mopt_status s = f->root ? list_all(ctx, f, schema) : mo_no_memory(ctx, 0, "a path");
    if (!s)
        s = describe(ctx, f, spec);
    if (s)
        close_folder(&f->base);
    else
        *source = &f->base;
    return s;
}

const struct mo_source_format mo_format_imagefolder = {
    .name = "imagefolder",
    .grammar = "FOLDER[,channels=1|3]",
    .help = "FOLDER/CLASS/FILE.jpg or .png, perhaps below train/ and test/ or val/",
    .keys = "channels",
    .max_paths = 1,
    .open = open_folder,
};
