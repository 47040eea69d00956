/* eval.h - what eval.c finds out beyond struct mo_metrics. */
#ifndef MO_EVAL_H
#define MO_EVAL_H

#include "lib/passes/pass.h"
#include "lib/run/run.h"

/* Counts per class: how often it was there, was said, and was said rightly. */
struct mo_class_counts { uint64_t n_true, n_said, n_right; };

struct mo_evaluation {
    enum mo_split split;
    size_t batch;
    bool wants_confusion;           /* in */
    bool tells_progress;
    enum mo_dtype half;             /* of mo_evaluation_model's run */
    struct mo_metrics metrics;      /* out */
    size_t n_classes;
    struct mo_class_counts *classes;    /* n_classes of them */
    uint32_t n_int8, n_float;       /* operators that multiply and add: mo_run_precision */
    uint64_t *confusion;            /* n_classes x n_classes, row: true, column: said; or NULL */
};
/* Evaluate with a run that exists; its is_training is put back. Release afterwards, also after a failure. */
MOPT_MUST_CHECK enum mopt_status mo_evaluation_run(struct mo_job *job, struct mo_run *run, struct mo_evaluation *e);
MOPT_MUST_CHECK enum mopt_status mo_evaluation_model(struct mo_job *job, const struct mopt_model *model,
                                                     struct mo_evaluation *e);
void mo_evaluation_release(struct mo_evaluation *e);
/* "operators": how many multiply and add in 8-bit integers, how many in float. */
void mo_report_precision(struct mopt_report *report, uint32_t n_int8, uint32_t n_float);

/* Wilson's score interval for n_right of n at 95 % (E. B. Wilson, JASA 22, 1927). */
void mo_wilson(double n_right, double n, double *low, double *high);

#endif
