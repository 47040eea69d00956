/* RegexFullMatch: does the pattern match all of each text. The specification's patterns are RE2's; PCRE2 reads them, and its
 * second matcher, which follows all alternatives at once as RE2 does, decides. What RE2 does not have, back references and
 * looking around, is refused, so that no model depends on it. */
#include <string.h>

#include "lib/ops/regex.h"
#include "lib/ops/text.h"

struct regex { pcre2_code *code; pcre2_match_data *found; int workspace[4096]; };

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_shape shape = mo_in(g, n, 0)->shape;
    MO_TRY(mo_check_texts(ctx, mo_in(g, n, 0)));
    if (!mo_node_text(n, "pattern", NULL))
        return mo_fail(ctx, MOPT_DATA, "it has no pattern");
    mo_set_out(g, n, 0, MO_BOOL, &shape);
    return MOPT_OK;
}

/* (?=, (?!, (?<=, (?<!, (?> and the like, which RE2 does not know, outside of classes and escapes. */
static bool looks_around(const char *pattern)
{
    bool in_class = false;
    for (const char *at = pattern; *at; at++) {
        if (*at == '\\' && at[1])
            at++;
        else if (*at == '[')
            in_class = true;
        else if (*at == ']')
            in_class = false;
        else if (!in_class && at[0] == '(' && at[1] == '?' && at[2] && strchr("=!>(|&R+-0123456789", at[2]) &&
                 !(at[2] == '-' && at[3] > '9'))
            return true;
        else if (!in_class && !strncmp(at, "(?<", 3) && (at[3] == '=' || at[3] == '!'))
            return true;
    }
    return false;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct regex *x = *mo_run_handle(r, n);
    if (!x)
        return;
    pcre2_match_data_free(x->found);
    pcre2_code_free(x->code);
    mo_mem_free(x);
    *mo_run_handle(r, n) = NULL;
}

enum mopt_status mo_regex_compile(struct mopt_ctx *ctx, const struct mo_attr *pattern, pcre2_code **code)
{
    uint32_t last_reference = 0;
    PCRE2_SIZE at;
    int error;
    *code = pcre2_compile((PCRE2_SPTR)pattern->s, pattern->s_bytes,
                          PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C, &error, &at, NULL);
    if (!*code) {
        char why[160] = "";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof why);
        return mo_fail(ctx, MOPT_DATA, "the pattern '%.80s': %s at character %zu", pattern->s, why, (size_t)at);
    }
    pcre2_pattern_info(*code, PCRE2_INFO_BACKREFMAX, &last_reference);
    if (last_reference || looks_around(pattern->s))
        return mo_fail(ctx, MOPT_DATA, "the pattern '%.80s' refers back or looks around, which RE2 does not", pattern->s);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    struct regex *x = mo_mem_new(1, sizeof *x);
    if (!x)
        return mo_no_memory(r->ctx, sizeof *x, "a pattern");
    *mo_run_handle(r, n) = x;
    MO_TRY(mo_regex_compile(r->ctx, mo_node_attr(n, "pattern"), &x->code));
    x->found = pcre2_match_data_create(1, NULL);
    return x->found ? MOPT_OK : mo_no_memory(r->ctx, 64, "a match");
}

static enum mopt_status match_one(struct mo_host *h, int64_t i, void *to)
{
    struct regex *x = *mo_run_handle(h->run, h->node);
    const char *text;
    size_t n_bytes;
    MO_TRY(mo_text_in(h, 0, i, &text, &n_bytes));
    int found = pcre2_dfa_match(x->code, (PCRE2_SPTR)text, n_bytes, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED, x->found, NULL,
                                x->workspace, MO_COUNT(x->workspace));
    bool is_no_utf8 = found <= PCRE2_ERROR_UTF8_ERR1 && found >= PCRE2_ERROR_UTF8_ERR21;   /* then nothing matches it */
    if (found < 0 && found != PCRE2_ERROR_NOMATCH && !is_no_utf8) {
        char why[160] = "";
        pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
        return mo_fail(h->run->ctx, MOPT_LIMIT, "matching '%.40s': %s", text, why);
    }
    *(uint8_t *)to = found >= 0;
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    return mo_text_each(r, n, match_one);
}

const struct mo_op mo_op_regex_full_match = {
    .type = "RegexFullMatch",
    .since_opset = 20,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward,
    .macs = mo_macs_zero,
};
