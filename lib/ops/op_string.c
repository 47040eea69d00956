/* StringConcat, StringSplit, StringNormalizer.
 *
 *   StringConcat      the text of b behind that of a, broadcast
 *   StringSplit       the pieces of each text between delimiters, or, without one, between runs of white space, as many
 *                     as the longest list has, empty texts behind the shorter ones; and how many there are
 *   StringNormalizer  a row of texts without the stop words, in lower or upper case; an empty text where none is left */
#include <locale.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "lib/ops/text.h"

/* ---- StringConcat ---- */

static enum mopt_status infer_concat(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(mo_check_texts(ctx, mo_in(g, n, 0)));
    MO_TRY(mo_check_texts(ctx, mo_in(g, n, 1)));
    return mo_infer_broadcast(ctx, g, n);
}

/* Where element i of the output lies in input k. */
static int64_t place_in(struct mo_host *h, uint32_t k, int64_t i)
{
    const struct mo_shape *y = &mo_out(h->run->graph, h->node, 0)->shape;
    int64_t stride[MO_MAX_RANK], at = 0;
    mo_broadcast_strides(&mo_in(h->run->graph, h->node, k)->shape, y, stride);
    for (int axis = y->rank - 1; axis >= 0; axis--) {
        at += i % y->dim[axis] * stride[axis];
        i /= y->dim[axis];
    }
    return at;
}

static enum mopt_status concat_one(struct mo_host *h, int64_t i, void *to)
{
    const char *a, *b;
    size_t n_a, n_b;
    MO_TRY(mo_text_in(h, 0, place_in(h, 0, i), &a, &n_a));
    MO_TRY(mo_text_in(h, 1, place_in(h, 1, i), &b, &n_b));
    char *both = mo_mem_new(n_a + n_b + 1, 1);
    if (!both)
        return mo_no_memory(h->run->ctx, n_a + n_b, "a text");
    memcpy(both, a, n_a);
    memcpy(both + n_a, b, n_b);
    enum mopt_status status = mo_text_number(h, both, n_a + n_b, to);
    mo_mem_free(both);
    return status;
}

static enum mopt_status forward_concat(struct mo_run *r, const struct mo_node *n)
{
    return mo_text_each(r, n, concat_one);
}

const struct mo_op mo_op_string_concat = {
    .type = "StringConcat",
    .since_opset = 20,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .infer = infer_concat, .forward = forward_concat,
    .macs = mo_macs_zero,
};

/* ---- StringSplit ---- */

static enum mopt_status infer_split(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape, count = x->shape;
    MO_TRY(mo_check_texts(ctx, x));
    if (y.rank == MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "an input of rank %d", y.rank);
    if (y.rank != MO_UNKNOWN)
        y.dim[y.rank++] = MO_UNKNOWN;
    mo_set_out(g, n, 0, MO_STRING, &y);
    mo_set_out(g, n, 1, MO_I64, &count);
    return MOPT_OK;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The next piece of a text, from *at on; *at is behind it, or NULL where it was the last. most: further pieces that may be
 * cut off. False: white space only was left. */
static bool next_piece(const char **at, const char *delimiter, int64_t most, const char **piece, size_t *n_bytes)
{
    const char *end;
    while (!*delimiter && is_space(**at))
        (*at)++;
    if (!*delimiter && !**at)
        return false;
    *piece = *at;
    if (*delimiter) {
        end = most > 0 ? strstr(*at, delimiter) : NULL;
        *at = end ? end + strlen(delimiter) : NULL;
    } else {
        for (end = *at; most > 0 && *end && !is_space(*end); end++)
            ;
        end = most > 0 && *end ? end : NULL;
        *at = end;
    }
    *n_bytes = end ? (size_t)(end - *piece) : strlen(*piece);
    return true;
}

/* The pieces of element i: how many, and into `to`, which may be NULL, their numbers. */
static enum mopt_status split_one(struct mo_host *h, int64_t i, int64_t *count, int64_t *to)
{
    const char *delimiter = mo_node_text(h->node, "delimiter", ""), *at, *piece;
    int64_t most = mo_node_int(h->node, "maxsplit", INT64_MAX);
    size_t n_bytes;
    MO_TRY(mo_text_in(h, 0, i, &at, NULL));
    *count = 0;
    while (at && next_piece(&at, delimiter, most - *count, &piece, &n_bytes)) {
        if (to)
            MO_TRY(mo_text_number(h, piece, n_bytes, &to[*count]));
        (*count)++;
    }
    return MOPT_OK;
}

static enum mopt_status split_all(struct mo_host *h, int64_t *count, int64_t n, int64_t **pieces)
{
    struct mo_shape y = mo_in(h->run->graph, h->node, 0)->shape, counts = y;
    int64_t width = 0;
    size_t n_all;
    for (int64_t i = 0; i < n; i++) {
        MO_TRY(split_one(h, i, &count[i], NULL));
        width = MO_MAX(width, count[i]);
    }
    if (!mo_mul_size((size_t)n, (size_t)width, &n_all) || !(*pieces = mo_mem_new(n_all + 1, sizeof **pieces)))
        return mo_no_memory(h->run->ctx, (uint64_t)n * (uint64_t)width * 8, "pieces of texts");
    for (int64_t i = 0; i < n; i++)
        MO_TRY(split_one(h, i, &count[i], *pieces + i * width));
    y.dim[y.rank++] = width;
    MO_TRY(mo_host_make(h, 0, MO_STRING, &y, *pieces));
    return mo_host_make(h, 1, MO_I64, &counts, count);
}

static enum mopt_status forward_split(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    int64_t n_texts = (int64_t)mo_run_in_elems(r, n, 0), *pieces = NULL;
    int64_t *count = mo_mem_new((size_t)n_texts + 1, sizeof *count);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !count)
        status = mo_no_memory(r->ctx, (uint64_t)n_texts * 8, "counts of pieces");
    if (!status)
        status = split_all(&h, count, n_texts, &pieces);
    mo_mem_free(pieces);
    mo_mem_free(count);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_string_split = {
    .type = "StringSplit",
    .since_opset = 20,
    .min_in = 1, .max_in = 1, .min_out = 2, .max_out = 2,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_split, .forward = forward_split,
    .macs = mo_macs_zero,
};

/* ---- StringNormalizer ---- */

enum letters { AS_THEY_ARE, LOWER, UPPER };

static enum mopt_status read_letters(struct mopt_ctx *ctx, const struct mo_node *n, enum letters *letters)
{
    static const char *const names[] = { "NONE", "LOWER", "UPPER" };
    const char *text = mo_node_text(n, "case_change_action", "NONE");
    for (int k = 0; k < 3; k++)
        if (!strcmp(text, names[k])) {
            *letters = (enum letters)k;
            return MOPT_OK;
        }
    return mo_fail(ctx, MOPT_DATA, "case_change_action '%.40s', it should be NONE, LOWER or UPPER", text);
}

static enum mopt_status infer_normalizer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape y = mo_in(g, n, 0)->shape;
    enum letters letters;
    MO_TRY(mo_check_texts(ctx, mo_in(g, n, 0)));
    MO_TRY(read_letters(ctx, n, &letters));
    if (y.rank != MO_UNKNOWN && y.rank != 1 && (y.rank != 2 || (y.dim[0] != 1 && y.dim[0] != MO_UNKNOWN)))
        return mo_fail(ctx, MOPT_DATA, "its input should be one row of texts");
    if (y.rank > 0)
        y.dim[y.rank - 1] = MO_UNKNOWN;
    mo_set_out(g, n, 0, MO_STRING, &y);
    return MOPT_OK;
}

/* The number of a text in other letters, of whatever alphabet: characters of UTF-8 one by one. */
static enum mopt_status recase(struct mo_host *h, locale_t locale, const char *text, size_t n_bytes, enum letters letters,
                               int64_t *number)
{
    enum { MOST_BYTES = 8 };
    char *to = mo_mem_new(n_bytes + 1, MOST_BYTES), *at = to;
    mbstate_t from_state = { 0 }, to_state = { 0 };
    if (!to)
        return mo_no_memory(h->run->ctx, n_bytes * MOST_BYTES, "a text");
    locale_t before = uselocale(locale);
    for (size_t i = 0; i < n_bytes;) {
        wchar_t c;
        size_t used = mbrtowc(&c, text + i, n_bytes - i, &from_state);
        size_t wrote = used && used <= n_bytes - i
                           ? wcrtomb(at, (wchar_t)(letters == UPPER ? towupper((wint_t)c) : towlower((wint_t)c)), &to_state)
                           : SIZE_MAX;
        if (wrote > MOST_BYTES) {       /* no character: the byte as it is */
            *at++ = text[i++];
            memset(&from_state, 0, sizeof from_state);
            memset(&to_state, 0, sizeof to_state);
            continue;
        }
        i += used;
        at += wrote;
    }
    uselocale(before);
    enum mopt_status status = mo_text_number(h, to, (size_t)(at - to), number);
    mo_mem_free(to);
    return status;
}

/* Numbers of the same texts in those letters, in place. */
static enum mopt_status recase_all(struct mo_host *h, enum letters letters, int64_t *numbers, size_t n)
{
    locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    enum mopt_status status =
        locale ? MOPT_OK : mo_fail(h->run->ctx, MOPT_UNSUPPORTED, "the system has no locale C.UTF-8 to change case by");
    for (size_t i = 0; !status && i < n; i++) {
        size_t n_bytes;
        const char *text = mo_texts_at(h->run->options.texts, numbers[i], &n_bytes);
        status = text ? recase(h, locale, text, n_bytes, letters, &numbers[i])
                      : mo_fail(h->run->ctx, MOPT_FAILED, "element %zu is no text", i);
    }
    if (locale)
        freelocale(locale);
    return status;
}

struct row {
    int64_t *texts, *compared, *stops;      /* compared: in lower case where case does not count */
    size_t n, n_stops;
};

static bool is_stop(const struct row *row, int64_t number)
{
    for (size_t k = 0; k < row->n_stops; k++)
        if (row->stops[k] == number)
            return true;
    return false;
}

static enum mopt_status normalize(struct mo_host *h, struct row *row)
{
    const struct mo_attr *stops = mo_node_attr(h->node, "stopwords");
    struct mo_shape y = mo_in(h->run->graph, h->node, 0)->shape;
    enum letters letters;
    size_t n_kept = 0;
    MO_TRY(read_letters(h->run->ctx, h->node, &letters));
    if (stops)
        MO_TRY(mo_text_attr(h->run, stops, &row->stops, &row->n_stops));
    memcpy(row->texts, h->in[0], row->n * sizeof *row->texts);
    memcpy(row->compared, h->in[0], row->n * sizeof *row->texts);
    if (row->n_stops && !mo_node_int(h->node, "is_case_sensitive", 0)) {
        MO_TRY(recase_all(h, LOWER, row->stops, row->n_stops));
        MO_TRY(recase_all(h, LOWER, row->compared, row->n));
    }
    for (size_t i = 0; i < row->n; i++)
        if (!is_stop(row, row->compared[i]))
            row->texts[n_kept++] = row->texts[i];
    if (letters != AS_THEY_ARE)
        MO_TRY(recase_all(h, letters, row->texts, n_kept));
    if (!n_kept)
        row->texts[n_kept++] = 0;
    y.dim[y.rank - 1] = (int64_t)n_kept;
    return mo_host_make(h, 0, MO_STRING, &y, row->texts);
}

static enum mopt_status forward_normalizer(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    struct row row = { .n = mo_run_in_elems(r, n, 0) };
    row.texts = mo_mem_new(row.n + 1, sizeof *row.texts);
    row.compared = mo_mem_new(row.n + 1, sizeof *row.compared);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && (!row.texts || !row.compared))
        status = mo_no_memory(r->ctx, row.n * 16, "a row of texts");
    if (!status)
        status = normalize(&h, &row);
    mo_mem_free(row.texts);
    mo_mem_free(row.compared);
    mo_mem_free(row.stops);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_string_normalizer = {
    .type = "StringNormalizer",
    .since_opset = 10,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_normalizer, .forward = forward_normalizer,
    .macs = mo_macs_zero,
};
