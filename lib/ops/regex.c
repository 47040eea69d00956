/* regex.c - see regex.h. */
#include <string.h>

#include "lib/ops/regex.h"

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

static enum mopt_status compile(struct mopt_ctx *ctx, const struct mo_attr *pattern, pcre2_code **code)
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

enum mopt_status mo_regex_prepare(struct mo_run *r, const struct mo_node *n, const char *attribute)
{
    const struct mo_attr *pattern = mo_node_attr(n, attribute);
    struct mo_regex *x = mo_mem_new(1, sizeof *x);
    if (!x)
        return mo_no_memory(r->ctx, sizeof *x, "a pattern");
    *mo_run_handle(r, n) = x;
    if (!pattern)
        return MOPT_OK;
    MO_TRY(compile(r->ctx, pattern, &x->code));
    x->found = pcre2_match_data_create(1, NULL);
    return x->found ? MOPT_OK : mo_no_memory(r->ctx, 64, "a match");
}

void mo_regex_unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct mo_regex *x = *mo_run_handle(r, n);
    if (!x)
        return;
    pcre2_match_data_free(x->found);
    pcre2_code_free(x->code);
    mo_mem_free(x);
    *mo_run_handle(r, n) = NULL;
}

bool mo_regex_is_no_utf8(int found)
{
    return found <= PCRE2_ERROR_UTF8_ERR1 && found >= PCRE2_ERROR_UTF8_ERR21;
}

enum mopt_status mo_regex_fail(struct mopt_ctx *ctx, int found, const char *text)
{
    char why[160] = "";
    pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
    return mo_fail(ctx, mo_regex_is_no_utf8(found) ? MOPT_DATA : MOPT_LIMIT, "matching '%.40s': %s", text, why);
}
