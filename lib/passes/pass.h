/* pass.h - a pass: something that is done to a model, or measured of it.
 * One const struct, last in lib/passes/pass_NAME.c, one line in passes.def. */
#ifndef MO_PASS_H
#define MO_PASS_H

#include "lib/base/option.h"
#include "lib/base/report.h"
#include "lib/data/dataset.h"
#include "lib/graph/graph.h"
#include "lib/graph/infer.h"

enum mo_pass_flags {
    MO_PASS_EXACT = 1,          /* outputs stay as they are: the driver verifies by running both */
    MO_PASS_READS = 2,          /* changes nothing: eval, inspect, bench, diff */
    MO_PASS_DATA = 4,           /* can use data */
    MO_PASS_NEEDS_DATA = 8,
    MO_PASS_NEEDS_TEACHER = 16,
    MO_PASS_SELECTS = 32,       /* asks mo_is_selected: --only, --skip */
    MO_PASS_SETS = 64,          /* asks mo_set_word: --set */
    MO_PASS_SKIPS = 128,        /* may leave a layer alone: --strict */
    MO_PASS_PLANS = 256,        /* reads only, and yet has a dry run */
};

/* Options of the job: rows in mo_job_options, same words in every verb and recipe. */
struct mo_job_settings {
    struct mo_data_settings data;
    int64_t seed;
    double measure_s;           /* seconds spent on each latency in the before/after table; 0: none */
    bool evaluate;              /* accuracy before and after, where there is data */
    const char *teacher;        /* a path, or "original" */
    struct mo_list only, skip, set;     /* GLOBs on names of nodes or values; set: GLOB=word */
    bool strict;                /* a skip is an error */
    bool dry_run;
    int64_t opset;              /* 0: as it is */
    bool verify;                /* exact passes run both graphs and compare */
    /* gates */
    const char *baseline;       /* an older report */
    double min_accuracy, min_cosine;    /* NaN: not set */
    const char *max_drop, *max_size, *max_latency, *max_rmse;
};

struct mo_job {
    struct mopt_ctx *ctx;
    struct mopt_model *model;           /* the subject */
    struct mopt_model *const *others; size_t n_others;      /* bench, diff */
    const struct mopt_model *original;  /* the model as it came, before any step; constants copied only when a teacher needs them */
    struct mopt_model *teacher;         /* when the pass flags say so and one was named */
    struct mopt_dataset *dataset;       /* NULL: no data was given */
    const struct mo_job_settings *settings;
    const void *options;                /* this pass's struct, filled from its table */
    struct mo_arena *scratch;           /* emptied after the pass */
    struct mopt_report *report;         /* this step's object */
    struct mo_pattern_hits *hits;       /* which --only, --skip, --set patterns matched something */
    const char *name;                   /* of the model: the path it came from, or "model" */
    const char *recipe;                 /* the whole recipe as JSON, for checkpoints; NULL: not known */
    size_t step;                        /* which of its steps this is */
    const char *const *other_names;     /* of the others */
};

/* What this pass asks for options that it shares with others (of the training group, of the job), beyond their rows'
 * own needs. `when` NULL: they never have an effect here. */
struct mo_need { const char *options, *when; };         /* options: words with a space between */

struct mo_pass {
    const char *name, *help;
    const struct mopt_option *options;
    size_t options_bytes;
    unsigned flags;
    const struct mo_need *needs;        /* ends with a row of zeros; NULL: none */
    enum mopt_status (*run)(struct mo_job *job);
};
const struct mo_pass *mo_pass_find(const char *name);
const struct mo_pass *mo_pass_at(size_t i);

/* One line of the audit: what was done to a tensor or layer, or why not. With --strict a skip fails. */
MOPT_MUST_CHECK enum mopt_status mo_audit(struct mo_job *job, const char *name, const char *action,
                                          const char *reason_or_null, struct mopt_report **row);
MOPT_MUST_CHECK enum mopt_status mo_audit_skip(struct mo_job *job, const char *name, const char *reason);
/* The word that a --set 'GLOB=word' gives to this node or value, the last match wins; NULL: none. */
const char *mo_set_word(struct mo_job *job, const char *node_name, const char *value_name);
/* --only / --skip on a node and its weight. A pattern that matches nothing is an error: said by the driver at the end
 * of the pass for patterns never matched through this function. */
bool mo_is_selected(struct mo_job *job, const char *node_name, const char *value_name);

/* ---- what passes share ---- */

/* eval.c: metrics of a model on a split. */
struct mo_metrics {
    size_t n;
    bool has_accuracy; double accuracy, accuracy_low, accuracy_high, top5, f1, loss;   /* Wilson 95 % interval */
    bool has_values; double mae, rmse, r2;
};
struct mo_run;
MOPT_MUST_CHECK enum mopt_status mo_evaluate(struct mo_job *job, const struct mopt_model *model, enum mo_split split,
                                             size_t batch, struct mo_metrics *metrics);
/* The same with a run that exists (in training: is_training is put back afterwards). */
MOPT_MUST_CHECK enum mopt_status mo_evaluate_run(struct mo_job *job, struct mo_run *run, enum mo_split split,
                                                 size_t batch, struct mo_metrics *metrics);
void mo_report_metrics(struct mopt_report *report, const struct mo_metrics *metrics);

/* train.c: the loop that train, distill, prune with retraining and QAT share. */
struct mo_train_settings;               /* lib/passes/train.h */

#endif
