/* RegexFullMatch: does the pattern match all of each text. PCRE2's second matcher, which follows all alternatives at once as
 * RE2 does, decides (regex.h). */
#include <string.h>

#include "lib/ops/regex.h"
#include "lib/ops/text.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_shape shape = mo_in(g, n, 0)->shape;
    MO_TRY(mo_check_texts(ctx, mo_in(g, n, 0)));
    if (!mo_node_text(n, "pattern", NULL))
        return mo_fail(ctx, MOPT_DATA, "it has no pattern");
    mo_set_out(g, n, 0, MO_BOOL, &shape);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    return mo_regex_prepare(r, n, "pattern");
}

static enum mopt_status match_one(struct mo_host *h, int64_t i, void *to)
{
    struct mo_regex *x = *mo_run_handle(h->run, h->node);
    const char *text;
    size_t n_bytes;
    MO_TRY(mo_text_in(h, 0, i, &text, &n_bytes));
    int found = pcre2_dfa_match(x->code, (PCRE2_SPTR)text, n_bytes, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED, x->found, NULL,
                                x->workspace, MO_COUNT(x->workspace));
    if (found < 0 && found != PCRE2_ERROR_NOMATCH && !mo_regex_is_no_utf8(found)) /* what is not UTF-8 matches nothing */
        return mo_regex_fail(h->run->ctx, found, text);
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
    .infer = infer, .prepare = prepare, .unprepare = mo_regex_unprepare, .forward = forward,
    .macs = mo_macs_zero,
};
