/* regex.h - patterns of RE2, read by PCRE2 (op_regex_full_match.c). */
#ifndef MO_OPS_REGEX_H
#define MO_OPS_REGEX_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "lib/graph/graph.h"

/* A STRING attribute compiled; what RE2 does not have is refused. *code is to be freed whatever this returns; it may be NULL. */
MOPT_MUST_CHECK enum mopt_status mo_regex_compile(struct mopt_ctx *ctx, const struct mo_attr *pattern, pcre2_code **code);

#endif
