/* npy_texts.c - arrays of texts in numpy's files: '<U7' is seven letters of UTF-32 each, filled up with 0. Here texts are
 * UTF-8. */
#include <string.h>

#include "formats/npy.h"
#include "formats/sources.h"

enum { MAX_HEADER_BYTES = 1024, LETTER_BYTES = 4 };

/* One letter in UTF-8; its bytes, 0: it is none. */
static size_t put_letter(uint32_t c, char *to)
{
    static const struct { uint32_t end, mark; } forms[] = { { 0x80, 0 }, { 0x800, 0xc0 }, { 0x10000, 0xe0 }, { 0x110000, 0xf0 } };
    size_t n = 0;
    if (!c || (c >= 0xd800 && c < 0xe000))
        return 0;
    while (n < MO_COUNT(forms) && c >= forms[n].end)
        n++;
    if (n == MO_COUNT(forms))
        return 0;
    for (size_t k = n; k > 0; k--, c >>= 6)
        to[k] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)(forms[n].mark | c);
    return n + 1;
}

/* The letter at *at, which moves on; 0: the text is over, or is no UTF-8 there. */
static uint32_t take_letter(const char **at)
{
    const unsigned char *s = (const unsigned char *)*at;
    char again[LETTER_BYTES];
    int more = s[0] < 0x80 ? 0 : s[0] < 0xe0 ? 1 : s[0] < 0xf0 ? 2 : 3;
    uint32_t c = more ? s[0] & (0x3fu >> more) : s[0];
    for (int k = 1; k <= more; k++) {
        if ((s[k] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[k] & 0x3f);
    }
    size_t n = put_letter(c, again);        /* there is one way to write a letter */
    if (n != (size_t)more + 1 || memcmp(again, s, n))
        return 0;
    *at += n;
    return c;
}

enum mopt_status mo_npy_read_texts(struct mopt_ctx *ctx, const char *path, const struct mo_npy *array,
                                   struct mo_host_tensor *tensor)
{
    int64_t elems = mo_shape_elems(&array->shape);
    size_t room;
    *tensor = (struct mo_host_tensor){ .dtype = MO_STRING, .shape = array->shape };
    if (__builtin_add_overflow(array->n_bytes, (size_t)elems + 1, &room))   /* UTF-8 is no longer than UTF-32 */
        return mo_no_memory(ctx, SIZE_MAX, path);
    MO_TRY(mo_source_fits(ctx, path, room));
    char *to = tensor->data = mo_mem_new(room, 1);
    if (!to)
        return mo_no_memory(ctx, room, path);
    for (int64_t i = 0; i < elems; i++) {
        const uint8_t *letter = array->data + (size_t)i * array->letters * LETTER_BYTES;
        size_t n = array->letters;
        while (n && !mo_le32(letter + (n - 1) * LETTER_BYTES))
            n--;
        for (size_t k = 0; k < n; k++) {
            size_t put = put_letter(mo_le32(letter + k * LETTER_BYTES), to);
            if (!put) {
                mo_host_tensor_release(tensor);
                return mo_fail(ctx, MOPT_DATA, "%s: text %lld holds what is no letter", path, (long long)i);
            }
            to += put;
        }
        *to++ = 0;
    }
    tensor->n_bytes = (size_t)(to - (char *)tensor->data);
    return MOPT_OK;
}

/* Letters of the longest text. */
static enum mopt_status longest(struct mopt_ctx *ctx, const char *path, const struct mo_host_tensor *t, int64_t elems,
                                size_t *letters)
{
    const char *at = t->data;
    *letters = 1;
    for (int64_t i = 0; i < elems; i++, at++) {
        size_t n = 0;
        while (take_letter(&at))
            n++;
        if (*at)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: text %lld is no UTF-8, which numpy cannot hold; a .pb file can", path,
                           (long long)i);
        *letters = MO_MAX(*letters, n);
    }
    return MOPT_OK;
}

enum mopt_status mo_npy_write_texts(struct mopt_ctx *ctx, const char *path, const struct mo_host_tensor *tensor,
                                    uint8_t **bytes, size_t *n_bytes)
{
    char header[MAX_HEADER_BYTES];
    int64_t elems = mo_shape_elems(&tensor->shape);
    const char *at = tensor->data;
    size_t letters, all;
    MO_TRY(longest(ctx, path, tensor, elems, &letters));
    size_t n = mo_npy_text_header(letters, &tensor->shape, header, sizeof header), width = letters * LETTER_BYTES;
    if (!n || __builtin_mul_overflow(width, (size_t)elems, &all) || __builtin_add_overflow(all, n, n_bytes))
        return mo_fail(ctx, MOPT_LIMIT, "%s: texts of %zu letters are too many", path, letters);
    MO_TRY(mo_source_fits(ctx, path, *n_bytes));
    uint8_t *to = *bytes = mo_mem_new(*n_bytes, 1);
    if (!to)
        return mo_no_memory(ctx, *n_bytes, path);
    memcpy(to, header, n);
    memset(to + n, 0, all);
    for (int64_t i = 0; i < elems; i++, at++) {
        uint8_t *letter = to + n + (size_t)i * width;
        for (uint32_t c; (c = take_letter(&at)); letter += LETTER_BYTES)
            for (int k = 0; k < LETTER_BYTES; k++)
                letter[k] = (uint8_t)(c >> (8 * k));
    }
    return MOPT_OK;
}
