/* select.h - which patterns of --only, --skip, --set have matched something. */
#ifndef MO_SELECT_H
#define MO_SELECT_H

#include "lib/passes/pass.h"

struct mo_pattern_hits {
    bool *only, *skip, *set; /* an entry per pattern */
};

MOPT_MUST_CHECK enum mopt_status mo_hits_new(struct mopt_ctx *ctx, struct mo_arena *arena,
                                             const struct mo_job_settings *settings, struct mo_pattern_hits **hits);
bool mo_hits_all(const struct mo_job_settings *settings, const struct mo_pattern_hits *hits);
/* A pattern that matched nothing is an error. */
MOPT_MUST_CHECK enum mopt_status mo_hits_check(struct mopt_ctx *ctx, const struct mo_job_settings *settings,
                                               const struct mo_pattern_hits *hits);

#endif
