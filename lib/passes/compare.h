/* compare.h - how far two models are apart, value by value, on the same inputs. */
#ifndef MO_COMPARE_H
#define MO_COMPARE_H

#include "lib/base/report.h"
#include "lib/run/run.h"

/* Sums over everything added; a is the reference. */
struct mo_error {
    uint64_t n, n_rows, n_same_top;     /* rows: of rank-2 outputs of two columns or more */
    uint64_t n_odd;                     /* elements where exactly one is NaN or infinite, or which differ in it */
    double dot, aa, bb, ee, sum_abs, max_abs;
};
/* `columns` 0: no rows to compare the largest of. */
void mo_error_add(struct mo_error *e, const float *a, const float *b, size_t n, int64_t columns);
double mo_error_cosine(const struct mo_error *e);       /* 1 when both are zero */
double mo_error_sqnr_db(const struct mo_error *e);      /* 10 log10(sum a^2 / sum (a - b)^2); infinite: equal */
/* cosine, sqnr_db (null: equal), max_abs, mean_abs, n, top1_agreement (where there are rows). */
void mo_error_report(const struct mo_error *e, struct mopt_report *report);

/* A value after a forward, in the user's layout, as floats in host memory (mo_mem_free); NULL with MOPT_OK when it is
 * not there any more or no number. */
MOPT_MUST_CHECK enum mopt_status mo_run_floats(struct mo_run *run, mo_value_id user_value, float **x, size_t *n,
                                               struct mo_shape *shape);

#endif
