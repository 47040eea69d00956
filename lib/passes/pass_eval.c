/* pass_eval.c - eval: how good a model is on labelled data. */
#include "lib/passes/eval.h"
#include "lib/run/run.h"

#include <math.h>

enum which { WHICH_AUTO, WHICH_TEST, WHICH_VALIDATION, WHICH_TRAIN, WHICH_ALL };

struct eval_options { int64_t batch; int split; bool confusion; int precision; };
#define AT(field) offsetof(struct eval_options, field)
static const struct mopt_option options[] = {
    {"batch", MOPT_OPT_INT, AT(batch), .def = 256, .min = 1, .max = 65536, .word = "N", .help = "samples at a time"},
    {"split", MOPT_OPT_CHOICE, AT(split), .text_def = "auto", .choices = "auto|test|validation|train|all",
     .help = "what to judge on; auto: --eval-data, else the test part, else all of --data"},
    {"precision", MOPT_OPT_CHOICE, AT(precision), .text_def = "fp32", .choices = MO_PRECISION_CHOICES,
     .help = MO_PRECISION_HELP},
    {"confusion", MOPT_OPT_BOOL, AT(confusion), .help = "count every pair of true and said class in the report"},
    {0}};

static enum mopt_status choose_split(struct mo_job *job, int which, enum mo_split *split, const char **name)
{
    static const enum mo_split splits[] = {MO_SPLIT_EVAL, MO_SPLIT_EVAL, MO_SPLIT_VALIDATION, MO_SPLIT_TRAIN,
                                           MO_SPLIT_ALL_TRAIN};
    static const char *const names[] = {"test", "test", "validation", "train", "all"};
    bool has_test = mo_dataset_has_test(job->dataset);
    if (which == WHICH_TEST && !has_test)
        return mo_fail(job->ctx, MOPT_DATA, "the data has no test part: add --eval-data");
    if (which == WHICH_AUTO && !has_test)
        which = WHICH_ALL;
    *split = splits[which];
    *name = names[which];
    return MOPT_OK;
}

static void report_classes(struct mopt_report *report, const struct mo_source *source, const struct mo_evaluation *e)
{
    struct mopt_report *list = mo_report_list(report, "classes");
    for (size_t c = 0; c < e->n_classes; c++) {
        const struct mo_class_counts *k = &e->classes[c];
        struct mopt_report *row = mo_report_object(list, NULL);
        mo_report_set_int(row, "class", (int64_t)c);
        if (source->class_names && c < (size_t)source->n_classes)
            mo_report_set_text(row, "name", source->class_names[c]);
        mo_report_set_int(row, "n", (int64_t)k->n_true);
        mo_report_set_number(row, "recall", k->n_true ? (double)k->n_right / (double)k->n_true : NAN);
        mo_report_set_number(row, "precision", k->n_said ? (double)k->n_right / (double)k->n_said : NAN);
    }
    if (!e->confusion)
        return;
    struct mopt_report *matrix = mo_report_list(report, "confusion");
    for (size_t c = 0; c < e->n_classes; c++) {
        struct mopt_report *row = mo_report_list(matrix, NULL);
        for (size_t k = 0; k < e->n_classes; k++)
            mo_report_set_int(row, NULL, (int64_t)e->confusion[c * e->n_classes + k]);
    }
}

static enum mopt_status run(struct mo_job *job)
{
    const struct eval_options *o = job->options;
    struct mo_evaluation e = {.batch = (size_t)o->batch, .wants_confusion = o->confusion, .tells_progress = true,
                              .half = mo_precision_half(o->precision)};
    const char *name = NULL;
    MO_TRY(choose_split(job, o->split, &e.split, &name));
    mo_report_set_text(job->report, "split", name);
    mo_report_set_text(job->report, "transform", mo_dataset_transform(job->dataset, false));
    if (mo_dataset_is_default(job->dataset))
        mo_warn(job->ctx, "eval", "the model does not say how its input was prepared; '%s' is assumed: --transform says "
                "otherwise ('none' for values as they are)", mo_dataset_transform(job->dataset, false));
    if (job->settings->dry_run)
        return MOPT_OK;
    enum mopt_status s = mo_evaluation_model(job, job->model, &e);
    if (!s) {
        mo_report_metrics(mo_report_object(job->report, "metrics"), &e.metrics);
        mo_report_set_int(job->report, "n_samples", (int64_t)e.metrics.n);
        mo_report_precision(job->report, e.n_int8, e.n_float);
        if (e.metrics.has_accuracy)
            report_classes(job->report, mo_dataset_source(job->dataset, e.split), &e);
    }
    mo_evaluation_release(&e);
    return s;
}

/* Beyond what the rows say. */
static const struct mo_need needs[] = {
    {"subset", "split=train"},
    {"val-split stratify", "split=train|validation"},
    {"drop-last", NULL},
    {0}};

const struct mo_pass mo_pass_eval = {
    .name = "eval",
    .help = "accuracy and loss on labelled data, with their interval",
    .options = options,
    .options_bytes = sizeof(struct eval_options),
    .flags = MO_PASS_READS | MO_PASS_DATA | MO_PASS_NEEDS_DATA | MO_PASS_PLANS,
    .needs = needs,
    .run = run,
};
