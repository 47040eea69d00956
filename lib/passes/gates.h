/* gates.h - thresholds that a job must hold, judged after its steps. */
#ifndef MO_GATES_H
#define MO_GATES_H

#include "lib/passes/pass.h"

/* Parses every gate's text, before any work: a wrong one is MOPT_USAGE. */
MOPT_MUST_CHECK enum mopt_status mo_gates_check(struct mopt_ctx *ctx, const struct mo_job_settings *settings);
/* True when a gate needs the accuracy of the result (and of the original). */
bool mo_gates_need_accuracy(const struct mo_job_settings *settings);
bool mo_gates_need_original(const struct mo_job_settings *settings);
/* Judges the report: rows {gate, limit, value, verdict: passed|failed|noise, note} into "gates". MOPT_GATE when one
 * failed, MOPT_USAGE when the job measured nothing that the gate could judge. */
MOPT_MUST_CHECK enum mopt_status mo_gates_judge(struct mopt_ctx *ctx, const struct mo_job_settings *settings,
                                                struct mopt_report *report);

#endif
