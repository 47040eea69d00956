/* npy.c - one numpy array:
 *
 *     0x93 NUMPY MAJOR MINOR, length of the text (u16, from version 2 on u32), the text, the elements
 *     {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
 *
 * The text is a Python literal; of that only what numpy writes is taken: three keys with a string, True or False, and a
 * tuple of numbers. */
#include "formats/npy.h"

#include "formats/sources.h"

#include <stdio.h>
#include <string.h>

enum { MAGIC_BYTES = 8, MAX_HEADER_BYTES = 1 << 20, MAX_LETTERS = 100000000 };

static const struct { char kind; int bytes; enum mo_dtype dtype; } types[] = {
    {'f', 4, MO_F32}, {'f', 8, MO_F64}, {'f', 2, MO_F16}, {'u', 1, MO_U8},  {'u', 2, MO_U16}, {'u', 4, MO_U32},
    {'u', 8, MO_U64}, {'i', 1, MO_I8},  {'i', 2, MO_I16}, {'i', 4, MO_I32}, {'i', 8, MO_I64}, {'b', 1, MO_BOOL},
};

struct header {
    const char *path, *at, *end;
    enum mo_dtype dtype;
    size_t letters;             /* of MO_STRING */
    bool is_swapped, is_fortran;
    struct mo_shape shape;
};

static void skip_spaces(struct header *h)
{
    while (h->at < h->end && (*h->at == ' ' || *h->at == '\n' || *h->at == '\t'))
        h->at++;
}

/* The next character, when it is that one. */
static bool take(struct header *h, char c)
{
    skip_spaces(h);
    if (h->at == h->end || *h->at != c)
        return false;
    h->at++;
    return true;
}

static bool take_string(struct header *h, char *text, size_t room)
{
    skip_spaces(h);
    if (h->at == h->end || (*h->at != '\'' && *h->at != '"'))
        return false;
    char quote = *h->at++;
    size_t n = 0;
    while (h->at < h->end && *h->at != quote && n + 1 < room)
        text[n++] = *h->at++;
    text[n] = 0;
    return take(h, quote);
}

static bool take_word(struct header *h, const char *word)
{
    skip_spaces(h);
    size_t n = strlen(word);
    if ((size_t)(h->end - h->at) < n || memcmp(h->at, word, n))
        return false;
    h->at += n;
    return true;
}

static bool take_shape(struct header *h)
{
    if (!take(h, '('))
        return false;
    h->shape.rank = 0;
    while (!take(h, ')')) {
        int64_t n = 0;
        int digits = 0;
        skip_spaces(h);
        for (; h->at < h->end && *h->at >= '0' && *h->at <= '9'; h->at++, digits++)
            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *h->at - '0', &n))
                return false;
        if (!digits || h->shape.rank == MO_MAX_RANK)
            return false;
        h->shape.dim[h->shape.rank++] = n;
        if (!take(h, ',') && (h->at == h->end || *h->at != ')'))
            return false;
    }
    return true;
}

static enum mopt_status set_type(struct mopt_ctx *ctx, struct header *h, const char *descr)
{
    char order = descr[0], kind = order ? descr[1] : 0;
    int bytes = 0;
    if (kind == 'O' || order == 'O')
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: holds pickled objects, which are never loaded", h->path);
    for (const char *c = descr + 2; kind && *c >= '0' && *c <= '9' && bytes < MAX_LETTERS; c++)
        bytes = 10 * bytes + (*c - '0');
    if (kind == 'U' && order == '<' && bytes > 0 && bytes < MAX_LETTERS) {
        h->dtype = MO_STRING;
        h->letters = (size_t)bytes;
        return MOPT_OK;
    }
    for (size_t i = 0; i < MO_COUNT(types); i++)
        if (types[i].kind == kind && types[i].bytes == bytes)
            h->dtype = types[i].dtype;
    if (h->dtype == MO_UNDEFINED || !strchr("<>|=", order))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: elements of type '%s' are not supported", h->path, descr);
    h->is_swapped = order == '>' && bytes > 1;
    return MOPT_OK;
}

static enum mopt_status parse_text(struct mopt_ctx *ctx, struct header *h)
{
    bool has_type = false, has_order = false, has_shape = false, ok = take(h, '{');
    while (ok && !take(h, '}')) {
        char key[32], descr[32];
        ok = take_string(h, key, sizeof key) && take(h, ':');
        if (ok && !strcmp(key, "descr")) {
            skip_spaces(h);
            if (h->at < h->end && *h->at == '[')
                return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: elements are structures, which are not supported", h->path);
            if ((ok = take_string(h, descr, sizeof descr)))
                MO_TRY(set_type(ctx, h, descr));
            has_type = ok;
        } else if (ok && !strcmp(key, "fortran_order")) {
            h->is_fortran = take_word(h, "True");
            ok = has_order = h->is_fortran || take_word(h, "False");
        } else if (ok && !strcmp(key, "shape"))
            ok = has_shape = take_shape(h);
        else
            ok = false;
        if (ok && !take(h, ',')) {
            skip_spaces(h);
            ok = h->at < h->end && *h->at == '}';
        }
    }
    if (!ok || !has_type || !has_order || !has_shape)
        return mo_fail(ctx, MOPT_DATA, "%s: its header is not one that numpy writes", h->path);
    return MOPT_OK;
}

/* Elements in C order and this machine's byte order, into new memory. */
static void reorder(const struct header *h, const uint8_t *in, size_t n, size_t width, uint8_t *out)
{
    int64_t index[MO_MAX_RANK] = {0};
    size_t step[MO_MAX_RANK], rank = (size_t)h->shape.rank, total = 1;
    for (size_t k = 0; k < rank; k++) { /* Fortran: the first index runs fastest */
        size_t axis = h->is_fortran ? k : rank - 1 - k;
        step[axis] = total;
        total *= (size_t)h->shape.dim[axis];
    }
    for (size_t i = 0; i < n; i++, out += width) {
        size_t from = 0;
        for (size_t k = 0; k < rank; k++)
            from += (size_t)index[k] * step[k];
        for (size_t b = 0; b < width; b++)
            out[b] = in[from * width + (h->is_swapped ? width - 1 - b : b)];
        for (size_t k = rank; k-- > 0 && ++index[k] == h->shape.dim[k];)
            index[k] = 0;
    }
}

static enum mopt_status find_header(struct mopt_ctx *ctx, const char *path, const uint8_t *bytes, size_t n_bytes,
                                    struct header *h)
{
    if (n_bytes < MAGIC_BYTES + 4 || memcmp(bytes, "\x93NUMPY", 6))
        return mo_fail(ctx, MOPT_DATA, "%s: is not a .npy file", path);
    int version = bytes[6];
    if (version < 1 || version > 3)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: version %d of the .npy format", path, version);
    size_t at = version == 1 ? MAGIC_BYTES + 2 : MAGIC_BYTES + 4;
    size_t n = version == 1 ? mo_le16(bytes + MAGIC_BYTES) : mo_le32(bytes + MAGIC_BYTES);
    if (n > MAX_HEADER_BYTES || n > n_bytes - at)
        return mo_fail(ctx, MOPT_DATA, "%s: ends inside its header", path);
    *h = (struct header){.path = path, .at = (const char *)bytes + at, .end = (const char *)bytes + at + n};
    return MOPT_OK;
}

enum mopt_status mo_npy_parse(struct mopt_ctx *ctx, const char *path, const uint8_t *bytes, size_t n_bytes,
                              struct mo_npy *array)
{
    struct header h;
    *array = (struct mo_npy){0};
    MO_TRY(find_header(ctx, path, bytes, n_bytes, &h));
    const uint8_t *data = (const uint8_t *)h.end;
    MO_TRY(parse_text(ctx, &h));
    int64_t elems = mo_shape_elems(&h.shape);
    size_t width = h.dtype == MO_STRING ? h.letters * 4 : (size_t)mo_dtype_bits(h.dtype) / 8;
    size_t there = n_bytes - (size_t)(data - bytes), wanted;
    if (elems < 0 || __builtin_mul_overflow((size_t)elems, width, &wanted))
        wanted = SIZE_MAX;
    if (wanted != there)
        return mo_fail(ctx, MOPT_DATA, "%s: its header announces %zu bytes of elements, %zu are there", path, wanted,
                       there);
    *array = (struct mo_npy){.dtype = h.dtype, .shape = h.shape, .data = data, .n_bytes = wanted,
                              .letters = h.letters};
    bool is_plain = !h.is_swapped && (!h.is_fortran || h.shape.rank <= 1);
    if (is_plain || !wanted)
        return MOPT_OK;
    MO_TRY(mo_source_fits(ctx, path, wanted));
    array->heap = mo_mem_new(wanted, 1);
    if (!array->heap)
        return mo_no_memory(ctx, wanted, path);
    reorder(&h, data, (size_t)elems, width, array->heap);
    array->data = array->heap;
    return MOPT_OK;
}

void mo_npy_release(struct mo_npy *array)
{
    mo_mem_free(array->heap);
    *array = (struct mo_npy){0};
}

/* descr: as numpy writes a type. */
static size_t put_header(const char *descr, const struct mo_shape *shape, char *text, size_t room)
{
    char dims[MO_MAX_RANK * 24] = "";
    size_t used = 0;
    for (int i = 0; i < shape->rank; i++)
        used += (size_t)snprintf(dims + used, sizeof dims - used, "%s%lld", i ? ", " : "", (long long)shape->dim[i]);
    int n = snprintf(text + MAGIC_BYTES + 2, room - MAGIC_BYTES - 2,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", descr, dims,
                     shape->rank == 1 ? "," : "");
    if (n < 0 || MAGIC_BYTES + 2 + (size_t)n + 65 > room)
        return 0;
    size_t end = MAGIC_BYTES + 2 + (size_t)n, whole = (end + 1 + 63) / 64 * 64;
    memset(text + end, ' ', whole - end);
    text[whole - 1] = '\n';
    memcpy(text, "\x93NUMPY\x01\x00", MAGIC_BYTES);
    text[MAGIC_BYTES] = (char)(whole - MAGIC_BYTES - 2);
    text[MAGIC_BYTES + 1] = (char)((whole - MAGIC_BYTES - 2) >> 8);
    return whole;
}

size_t mo_npy_header(enum mo_dtype dtype, const struct mo_shape *shape, char *text, size_t room)
{
    char descr[16];
    size_t which = 0;
    while (which < MO_COUNT(types) && types[which].dtype != dtype)
        which++;
    if (which == MO_COUNT(types))
        return 0;
    snprintf(descr, sizeof descr, "%c%c%d", types[which].bytes > 1 ? '<' : '|', types[which].kind, types[which].bytes);
    return put_header(descr, shape, text, room);
}

size_t mo_npy_text_header(size_t letters, const struct mo_shape *shape, char *text, size_t room)
{
    char descr[32];
    snprintf(descr, sizeof descr, "<U%zu", letters);
    return put_header(descr, shape, text, room);
}
