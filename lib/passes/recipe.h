/* recipe.h - a recipe: the job's settings and the steps, each a pass with its options.
 * The texts are kept beside the parsed values, so that a recipe can be written as it was said. */
#ifndef MO_RECIPE_H
#define MO_RECIPE_H

#include "lib/passes/pass.h"

struct mo_said {                /* one key and value, as given */
    struct mo_said *next;
    const char *key, *value;
    const struct mopt_option *row;
};

struct mo_step {
    const struct mo_pass *pass;
    void *options;
    struct mo_said *said, **said_end;
};

struct mopt_recipe {
    struct mo_arena arena;
    struct mo_job_settings settings;
    struct mo_said *said, **said_end;
    struct mo_step *steps;
    size_t n_steps, room;
    const char **names;         /* of the model and those beside it */
    size_t n_names;
    const char *verb;           /* in the report; NULL: the one pass, or run */
};

extern const struct mopt_option mo_job_options[];

#endif
