/* pass_distill.c - distill: train a student on labels and on what a teacher answers. */
#include <stdlib.h>

#include "lib/passes/distill.h"

struct distill_options {
    struct mo_train_settings train;
    double temperature, alpha, beta;
    int method;                         /* enum mo_distill_method */
};

#define AT(field) offsetof(struct distill_options, field)
static const struct mopt_option options[] = {
    {"temperature", MOPT_OPT_FLOAT, AT(temperature), .def = MO_DISTILL_TEMPERATURE, .min = 0.01, .max = 1000, .word = "T",
     .needs = "method=kd|dkd", .help = "softens both models' answers"},
    {"alpha", MOPT_OPT_FLOAT, AT(alpha), .def = 0.5, .min = 0, .max = 1, .word = "X",
     .help = "weight of the teacher; the labels have the rest"},
    {"method", MOPT_OPT_CHOICE, AT(method), .text_def = "kd", .choices = "kd|dkd|mse",
     .help = "kd: softened classes; dkd: decoupled; mse: logits"},
    {"beta", MOPT_OPT_FLOAT, AT(beta), .def = 8, .min = 0, .max = 1000, .word = "X",
     .needs = "method=dkd",
     .help = "dkd: weight of the classes that are not the label"},
    {"", MOPT_OPT_GROUP, AT(train), .group = mo_train_options},
    {0}};

/* A teacher that learned from smoothed labels answers alike to all samples of a class; that a sample resembles another
 * class is what a student learns from (Mueller, Kornblith and Hinton 2019, section 4). */
static void warn_of_smoothing(struct mo_job *job)
{
    const char *smoothing = mo_model_meta(job->teacher, "mopt.label-smoothing");
    if (smoothing && strtod(smoothing, NULL) > 0)
        mo_warn(job->ctx, "distill", "the teacher was trained with --label-smoothing %s, which makes it a poorer teacher: "
                "train it with --label-smoothing 0", smoothing);
}

static enum mopt_status run(struct mo_job *job)
{
    const struct distill_options *o = job->options;
    if (!job->teacher)
        return mo_fail(job->ctx, MOPT_USAGE, "distill needs a teacher: add --teacher FILE, or --teacher original");
    if (!job->dataset)
        return mo_fail(job->ctx, MOPT_USAGE, "distill needs data: add --data SPEC, e.g. --data idx:DIR");
    warn_of_smoothing(job);
    const struct mo_distill_how how = {.method = (enum mo_distill_method)o->method, .temperature = o->temperature,
                                       .alpha = o->alpha, .beta = o->beta};
    const struct mo_train_hooks hooks = {.phase = "distill", .selects = true};
    return mo_distill(job, &how, &o->train, &hooks, NULL);
}

/* Beyond what the rows say. */
static const struct mo_need needs[] = {
    {"loss label-smoothing huber-delta", "!alpha=1"},
    {0}};

const struct mo_pass mo_pass_distill = {
    .name = "distill",
    .help = "train a student model on labels and on a teacher's answers",
    .options = options,
    .options_bytes = sizeof(struct distill_options),
    .flags = MO_PASS_DATA | MO_PASS_NEEDS_DATA | MO_PASS_NEEDS_TEACHER | MO_PASS_SELECTS,
    .needs = needs,
    .run = run,
};
