/* regex.h - patterns of RE2 as handles of operators, read by PCRE2. What RE2 does not have, back references and looking
 * around, is refused, so that no model depends on it. */
#ifndef MO_OPS_REGEX_H
#define MO_OPS_REGEX_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "lib/ops/ops.h"
#include "lib/run/run.h"

/* The handle of a node with a pattern: compiled, and room for one match. */
struct mo_regex {
    pcre2_code *code;               /* NULL: the node has no pattern */
    pcre2_match_data *found;
    int workspace[4096];            /* of PCRE2's second matcher */
};

/* The STRING attribute of that name, compiled into the node's handle; where the node has none, an empty handle. */
MOPT_MUST_CHECK enum mopt_status mo_regex_prepare(struct mo_run *r, const struct mo_node *n, const char *attribute);
void mo_regex_unprepare(struct mo_run *r, const struct mo_node *n);

/* PCRE2's negative result for a text that is not UTF-8; and as a failure for any other. */
bool mo_regex_is_no_utf8(int found);
MOPT_MUST_CHECK enum mopt_status mo_regex_fail(struct mopt_ctx *ctx, int found, const char *text);

#endif
