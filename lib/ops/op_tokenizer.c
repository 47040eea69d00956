/* com.microsoft.Tokenizer, which converters write for scikit-learn's vectorizers: each text cut into tokens, as many columns as
 * the longest list has, pad_value behind the shorter ones.
 *
 *   tokenexp      tokens are what the pattern matches, one match behind the other; "." alone, or one empty separator:
 *                 every character
 *   separators    tokens lie between these texts: the first one cuts, then the next one what is left. Patterns are not
 *                 computed there
 *   mincharnum    shorter tokens are left out
 *
 * The patterns are RE2's (regex.h). Marks of begin and end are not computed. */
#include <string.h>

#include "lib/ops/contrib.h"
#include "lib/ops/regex.h"
#include "lib/ops/text.h"

/* Tokens of all texts, one behind the other. */
struct tokens { int64_t *numbers; size_t n, room; };

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape y = mo_in(g, n, 0)->shape;
    const struct mo_attr *separators = mo_node_attr(n, "separators");
    MO_TRY(mo_check_texts(ctx, mo_in(g, n, 0)));
    if (!mo_node_text(n, "tokenexp", NULL) == !(separators && separators->n))
        return mo_fail(ctx, MOPT_DATA, "it should have either tokenexp or separators");
    if (mo_node_int(n, "mark", 0))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "tokens with marks of begin and end");
    for (size_t k = 0; separators && k < separators->n; k++)
        if (strpbrk(separators->strings[k], ".^$*+?()[]{}|\\"))
            return mo_fail(ctx, MOPT_UNSUPPORTED, "the separator '%.40s', which is a pattern", separators->strings[k]);
    if (y.rank != MO_UNKNOWN && (y.rank < 1 || y.rank > 2))
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be 1 or 2", y.rank);
    if (y.rank != MO_UNKNOWN)
        y.dim[y.rank++] = MO_UNKNOWN;
    mo_set_out(g, n, 0, MO_STRING, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    return mo_regex_prepare(r, n, "tokenexp");
}

static size_t count_letters(const char *text, size_t n_bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < n_bytes; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

static enum mopt_status add(struct mo_host *h, struct tokens *t, const char *text, size_t n_bytes)
{
    int64_t least = mo_node_int(h->node, "mincharnum", 1);
    if (!n_bytes || (int64_t)count_letters(text, n_bytes) < least)
        return MOPT_OK;
    if (t->n == t->room) {
        size_t room = t->room ? 2 * t->room : 256;
        int64_t *grown = mo_mem_new(room, sizeof *grown);
        if (!grown)
            return mo_no_memory(h->run->ctx, room * sizeof *grown, "tokens");
        if (t->n)
            memcpy(grown, t->numbers, t->n * sizeof *grown);
        mo_mem_free(t->numbers);
        t->numbers = grown;
        t->room = room;
    }
    return mo_text_number(h, text, n_bytes, &t->numbers[t->n++]);
}

static enum mopt_status cut_by_pattern(struct mo_host *h, const char *text, size_t n_bytes, struct tokens *t)
{
    const struct mo_regex *x = *mo_run_handle(h->run, h->node);
    for (size_t at = 0; at < n_bytes;) {
        int found = pcre2_match(x->code, (PCRE2_SPTR)text, n_bytes, at, 0, x->found, NULL);
        if (found == PCRE2_ERROR_NOMATCH)
            return MOPT_OK;
        if (found < 0)
            return mo_regex_fail(h->run->ctx, found, text);
        const PCRE2_SIZE *place = pcre2_get_ovector_pointer(x->found);
        MO_TRY(add(h, t, text + place[0], place[1] - place[0]));
        at = place[1];
        if (place[1] == place[0])       /* an empty match: on by one character */
            for (at++; at < n_bytes && ((unsigned char)text[at] & 0xc0) == 0x80; at++)
                ;
    }
    return MOPT_OK;
}

/* Every character is a token. */
static enum mopt_status cut_everywhere(struct mo_host *h, const char *text, size_t n_bytes, struct tokens *t)
{
    for (size_t at = 0, next; at < n_bytes; at = next) {
        for (next = at + 1; next < n_bytes && ((unsigned char)text[next] & 0xc0) == 0x80; next++)
            ;
        MO_TRY(add(h, t, text + at, next - at));
    }
    return MOPT_OK;
}

/* Bytes of separators are marked, of the first one everywhere, then of the next one in what is left; tokens lie between. */
static enum mopt_status cut_by_separators(struct mo_host *h, const char *text, size_t n_bytes, struct tokens *t)
{
    const struct mo_attr *s = mo_node_attr(h->node, "separators");
    if (s->n == 1 && !s->strings_bytes[0])
        return cut_everywhere(h, text, n_bytes, t);
    bool *is_cut = mo_mem_new(n_bytes + 1, sizeof *is_cut);
    if (!is_cut)
        return mo_no_memory(h->run->ctx, n_bytes, "tokens");
    for (size_t k = 0; k < s->n; k++)
        for (size_t at = 0, n = s->strings_bytes[k]; n && at + n <= n_bytes;) {
            bool fits = !memcmp(text + at, s->strings[k], n) && !memchr(is_cut + at, true, n);
            if (fits)
                memset(is_cut + at, true, n);
            at += fits ? n : 1;
        }
    enum mopt_status status = MOPT_OK;
    for (size_t at = 0, end; !status && at < n_bytes; at = end + 1) {
        for (end = at; end < n_bytes && !is_cut[end]; end++)
            ;
        status = add(h, t, text + at, end - at);
    }
    mo_mem_free(is_cut);
    return status;
}

/* Rows of equal width, filled up. */
static enum mopt_status give_out(struct mo_host *h, const struct tokens *t, const size_t *end, size_t n)
{
    const char *pad = mo_node_text(h->node, "pad_value", "");
    struct mo_shape y = mo_in(h->run->graph, h->node, 0)->shape;
    size_t width = 0, all;
    int64_t filler, *rows = NULL;
    for (size_t i = 0; i < n; i++)
        width = MO_MAX(width, end[i] - (i ? end[i - 1] : 0));
    MO_TRY(mo_text_number(h, pad, strlen(pad), &filler));
    if (!mo_mul_size(n, width, &all) || !(rows = mo_mem_new(all + 1, sizeof *rows)))
        return mo_no_memory(h->run->ctx, (uint64_t)n * width * 8, "tokens");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0, begin = i ? end[i - 1] : 0; k < width; k++)
            rows[i * width + k] = begin + k < end[i] ? t->numbers[begin + k] : filler;
    y.dim[y.rank++] = (int64_t)width;
    enum mopt_status status = mo_host_make(h, 0, MO_STRING, &y, rows);
    mo_mem_free(rows);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    struct tokens t = { 0 };
    size_t n_texts = mo_run_in_elems(r, n, 0), *end = mo_mem_new(n_texts + 1, sizeof *end);
    bool has_pattern = mo_node_attr(n, "tokenexp") != NULL;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !end)
        status = mo_no_memory(r->ctx, n_texts * sizeof *end, "tokens");
    for (size_t i = 0; !status && i < n_texts; i++) {
        const char *text;
        size_t n_bytes;
        status = mo_text_in(&h, 0, (int64_t)i, &text, &n_bytes);
        if (!status)
            status = (has_pattern ? cut_by_pattern : cut_by_separators)(&h, text, n_bytes, &t);
        end[i] = t.n;
    }
    if (!status)
        status = give_out(&h, &t, end, n_texts);
    mo_mem_free(t.numbers);
    mo_mem_free(end);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_tokenizer = {
    .type = "Tokenizer", .domain = MO_CONTRIB, .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer, .prepare = prepare, .unprepare = mo_regex_unprepare, .forward = forward,
    .macs = mo_macs_zero,
};
