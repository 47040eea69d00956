/* gates.h - thresholds that a job must hold, judged after its steps. */
#ifndef MO_GATES_H
#define MO_GATES_H

#include "lib/passes/pass.h"

/* Parses every gate's text, before any work: a wrong one is MOPT_USAGE. */
MOPT_MUST_CHECK enum mopt_status mo_gates_check(struct mopt_ctx *ctx, const struct mo_job_settings *settings);
/* What a job is going to measure. */
struct mo_measured { bool metrics, before, size, latency, mean_latency, cosine; };
/* The same, and that each gate will have something to judge and the baseline can be read: what would fail after hours
 * of work is said before it. */
MOPT_MUST_CHECK enum mopt_status mo_gates_check_job(struct mopt_ctx *ctx, const struct mo_job_settings *settings,
                                                    const struct mo_measured *job);
/* True when a gate needs the accuracy of the result (and of the original). */
bool mo_gates_need_accuracy(const struct mo_job_settings *settings);
bool mo_gates_need_original(const struct mo_job_settings *settings);
/* Judges the report: rows {gate, limit, value, verdict: passed|failed, note} into "gates". MOPT_GATE when one
 * failed or could not be judged. */
MOPT_MUST_CHECK enum mopt_status mo_gates_judge(struct mopt_ctx *ctx, const struct mo_job_settings *settings,
                                                struct mopt_report *report);

#endif
