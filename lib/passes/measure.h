/* measure.h - what the driver measures around the steps: sizes, latency, equality. */
#ifndef MO_MEASURE_H
#define MO_MEASURE_H

#include "lib/passes/pass.h"

/* Shapes of the real inputs of a graph for a given batch: a free first dimension becomes `batch`, other
 * free ones `free_dim`. shapes[max]; *n how many there are. */
MOPT_MUST_CHECK enum mopt_status mo_sample_shapes(struct mopt_ctx *ctx, const struct mo_graph *g, int64_t batch,
                                                  int64_t free_dim, struct mo_shape *shapes, uint32_t max, uint32_t *n);
/* Seeded input for input i of a planned run: normal floats, small integers. */
struct mo_run;
MOPT_MUST_CHECK enum mopt_status mo_sample_input(struct mo_run *run, uint32_t i, uint64_t seed);

struct mo_latency { double mean_ms, sd_ms; uint32_t n; };
/* One sample at a time for about budget_s seconds, after a warm-up. */
MOPT_MUST_CHECK enum mopt_status mo_measure_latency(struct mopt_ctx *ctx, const struct mopt_model *model,
                                                    double budget_s, struct mo_latency *latency);

/* What one forward pass of one sample takes, as memory_bytes {activations, weights}. */
MOPT_MUST_CHECK enum mopt_status mo_measure_memory(struct mopt_ctx *ctx, const struct mopt_model *model,
                                                   struct mopt_report *report);

/* Largest difference of any output, relative to that output's largest magnitude, on seeded input; infinite when the
 * interfaces differ. */
MOPT_MUST_CHECK enum mopt_status mo_measure_difference(struct mopt_ctx *ctx, const struct mopt_model *a,
                                                       const struct mopt_model *b, uint64_t seed, double *difference);

/* parameters, nonzero, macs, bytes of a model into a report object. */
MOPT_MUST_CHECK enum mopt_status mo_report_counts(struct mopt_ctx *ctx, const struct mopt_model *model,
                                                  struct mopt_report *report);

#endif
