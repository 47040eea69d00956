/* pass_train.c - train: fit a model's parameters to labelled data. */
#include "lib/passes/train.h"

static enum mopt_status run(struct mo_job *job)
{
    const struct mo_train_hooks hooks = {.phase = "train", .selects = true};
    return mo_train(job, job->model, job->options, &hooks, NULL);
}

const struct mo_pass mo_pass_train = {
    .name = "train",
    .help = "fine-tune a model on labelled data, or train it from scratch",
    .options = mo_train_options,
    .options_bytes = sizeof(struct mo_train_settings),
    .flags = MO_PASS_DATA | MO_PASS_NEEDS_DATA | MO_PASS_SELECTS,
    .run = run,
};
