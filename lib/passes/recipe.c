/* recipe.c - building a recipe step by step; every value is checked when it is set. */
#include "lib/passes/recipe.h"

#include <math.h>
#include <string.h>

#include "lib/passes/upgrade.h"

#define AT(field) offsetof(struct mo_job_settings, field)
const struct mopt_option mo_job_options[] = {
    {"", MOPT_OPT_GROUP, AT(data), .group = mo_data_options},
    {"seed", MOPT_OPT_INT, AT(seed), .def = 0, .min = 0, .max = 0x1p53, .word = "N",
     .help = "seed of every random choice"},
    {"teacher", MOPT_OPT_TEXT, AT(teacher), .word = "FILE", .needs = "@teacher",
     .help = "teacher model; 'original': the input as it came"},
    {"only", MOPT_OPT_LIST, AT(only), .word = "GLOB", .needs = "@selects",
     .help = "only layers whose name matches; repeatable"},
    {"skip", MOPT_OPT_LIST, AT(skip), .word = "GLOB", .needs = "@selects",
     .help = "leave layers whose name matches alone; repeatable"},
    {"set", MOPT_OPT_LIST, AT(set), .word = "GLOB=WORD", .needs = "@sets",
     .help = "a setting for matching layers; repeatable"},
    {"strict", MOPT_OPT_BOOL, AT(strict), .needs = "@data,@skips data,eval-data,@skips",
     .help = "a layer or sample that has to be skipped is an error"},
    {"dry-run", MOPT_OPT_BOOL, AT(dry_run), .needs = "@plans",
     .help = "say what would be done; change and write nothing"},
    {"opset", MOPT_OPT_INT, AT(opset), .def = 0, .min = 0, .max = MO_OPSET_NEWEST, .word = "N",
     .needs = "@changes",
     .help = "bring the model to this opset of ai.onnx first; 0: it stays, unless a pass needs a newer one"},
    {"verify", MOPT_OPT_BOOL, AT(verify), .def = 1, .needs = "@exact",
     .help = "run the model before and after an exact pass and compare"},
    {"evaluate", MOPT_OPT_BOOL, AT(evaluate), .def = 1, .needs = "@changes @data data,eval-data evaluate,!min-accuracy evaluate,!max-drop evaluate,!max-rmse",
     .help = "accuracy before and after, where there is data"},
    {"measure", MOPT_OPT_FLOAT, AT(measure_s), .def = 0.3, .min = 0, .max = 3600, .word = "SECONDS",
     .needs = "@changes",
     .help = "time for each latency of the before/after table; 0: none"},
    {"min-accuracy", MOPT_OPT_FLOAT, AT(min_accuracy), .def = NAN, .min = 0, .max = 1, .word = "X",
     .needs = "@changes,@eval",
     .help = "gate: fail below this accuracy (0.9)"},
    {"max-drop", MOPT_OPT_TEXT, AT(max_drop), .word = "X%", .needs = "@changes,@eval",
     .help = "gate: fail when accuracy fell by more points"},
    {"max-rmse", MOPT_OPT_TEXT, AT(max_rmse), .word = "X", .needs = "@changes,@eval",
     .help = "gate: fail when the root mean square error is above"},
    {"max-size", MOPT_OPT_TEXT, AT(max_size), .word = "SIZE", .needs = "@changes,@inspect,@bench",
     .help = "gate: fail when the model is larger (5MB, 0.3x)"},
    {"max-latency", MOPT_OPT_TEXT, AT(max_latency), .word = "WHICH=TIME",
     .needs = "@changes,@bench",
     .help = "gate: fail when slower (p99=20ms, median=3ms)"},
    {"min-cosine", MOPT_OPT_FLOAT, AT(min_cosine), .def = NAN, .min = -1, .max = 1, .word = "X",
     .needs = "@diff",
     .help = "gate of diff: fail below this cosine"},
    {"baseline", MOPT_OPT_TEXT, AT(baseline), .word = "FILE", .needs = "@changes,@eval max-drop",
     .help = "an older report to measure --max-drop against"},
    {0}};

const struct mopt_option *mopt_job_options(void)
{
    return mo_job_options;
}

enum mopt_status mopt_recipe_new(struct mopt_ctx *ctx, struct mopt_recipe **recipe)
{
    *recipe = mo_mem_new(1, sizeof **recipe);
    if (!*recipe)
        return mo_no_memory(ctx, sizeof **recipe, "a recipe");
    mo_options_default(mo_job_options, &(*recipe)->settings);
    (*recipe)->said_end = &(*recipe)->said;
    return MOPT_OK;
}

void mopt_recipe_free(struct mopt_recipe *recipe)
{
    if (!recipe)
        return;
    mo_arena_release(&recipe->arena);
    mo_mem_free(recipe->steps);
    mo_mem_free(recipe->names);
    mo_mem_free(recipe);
}

static enum mopt_status no_such_pass(struct mopt_ctx *ctx, const char *name)
{
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; n < MO_COUNT(names) && mo_pass_at(i); i++)
        names[n++] = mo_pass_at(i)->name;
    const char *near = mo_nearest(name, names, n);
    return near ? mo_fail(ctx, MOPT_USAGE, "there is no pass '%s'; did you mean '%s'?", name, near)
                : mo_fail(ctx, MOPT_USAGE, "there is no pass '%s'", name);
}

enum mopt_status mopt_recipe_add(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const char *name)
{
    const struct mo_pass *pass = mo_pass_find(name);
    if (!pass)
        return no_such_pass(ctx, name);
    size_t each = sizeof *recipe->steps;
    if (recipe->n_steps == recipe->room) {
        size_t room = recipe->room + 8;
        void *steps = mo_mem_grow(recipe->steps, recipe->n_steps * each, room * each);
        if (!steps)
            return mo_no_memory(ctx, room * each, "a recipe");
        recipe->steps = steps;
        recipe->room = room;
        for (size_t i = 0; i < recipe->n_steps; i++) /* the first link may lie in the array that moved */
            if (!recipe->steps[i].said)
                recipe->steps[i].said_end = &recipe->steps[i].said;
    }
    void *options = mo_arena_new(&recipe->arena, 1, pass->options_bytes);
    if (!options)
        return mo_no_memory(ctx, pass->options_bytes, "a recipe");
    mo_options_default(pass->options, options);
    struct mo_step *step = &recipe->steps[recipe->n_steps++];
    *step = (struct mo_step){.pass = pass, .options = options};
    step->said_end = &step->said;
    return MOPT_OK;
}

static enum mopt_status remember(struct mopt_ctx *ctx, struct mopt_recipe *recipe, struct mo_said ***end,
                                 const struct mopt_option *row, const char *value)
{
    struct mo_said *said = mo_arena_new(&recipe->arena, 1, sizeof *said);
    char *copy = mo_arena_text(&recipe->arena, value);
    if (!said || !copy)
        return mo_no_memory(ctx, sizeof *said, "a recipe");
    *said = (struct mo_said){.key = row->name, .value = copy, .row = row};
    **end = said;
    *end = &said->next;
    return MOPT_OK;
}

static enum mopt_status no_such_option(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const struct mo_step *step,
                                       const char *key)
{
    size_t n_step = 0, n_job = 0;
    const char **own = step ? mo_option_names(&recipe->arena, step->pass->options, &n_step) : NULL;
    const char **job = mo_option_names(&recipe->arena, mo_job_options, &n_job);
    const char *near = own ? mo_nearest(key, own, n_step) : NULL;
    if (!near && job)
        near = mo_nearest(key, job, n_job);
    const char *of = step ? step->pass->name : "recipe";
    return near ? mo_fail(ctx, MOPT_USAGE, "%s has no option '%s'; did you mean '%s'?", of, key, near)
                : mo_fail(ctx, MOPT_USAGE, "%s has no option '%s'", of, key);
}

enum mopt_status mopt_recipe_set(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const char *key, const char *value)
{
    struct mo_step *step = recipe->n_steps ? &recipe->steps[recipe->n_steps - 1] : NULL;
    size_t base;
    const struct mopt_option *row = step ? mo_option_find(step->pass->options, key, &base) : NULL;
    if (row) {
        MO_TRY(mo_option_set(ctx, &recipe->arena, step->pass->options, step->options, key, value));
        return remember(ctx, recipe, &step->said_end, row, value);
    }
    row = *key ? mo_option_find(mo_job_options, key, &base) : NULL;
    if (!row)
        return no_such_option(ctx, recipe, step, key);
    MO_TRY(mo_option_set(ctx, &recipe->arena, mo_job_options, &recipe->settings, key, value));
    return remember(ctx, recipe, &recipe->said_end, row, value);
}

enum mopt_status mopt_recipe_name(struct mopt_ctx *ctx, struct mopt_recipe *recipe, size_t i, const char *name)
{
    if (i >= recipe->n_names) {
        const char **names =
            mo_mem_grow(recipe->names, recipe->n_names * sizeof *names, (i + 1) * sizeof *names);
        if (!names)
            return mo_no_memory(ctx, (i + 1) * sizeof *names, "names");
        recipe->names = names;
        recipe->n_names = i + 1;
    }
    if (!(recipe->names[i] = mo_arena_text(&recipe->arena, name)))
        return mo_no_memory(ctx, strlen(name), "names");
    return MOPT_OK;
}

void mopt_recipe_verb(struct mopt_recipe *recipe, const char *verb)
{
    recipe->verb = verb;
}

enum mopt_status mopt_recipe_override(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const struct mopt_recipe *over)
{
    for (const struct mo_said *said = over->said; said; said = said->next) {
        MO_TRY(mo_option_set(ctx, &recipe->arena, mo_job_options, &recipe->settings, said->key, said->value));
        MO_TRY(remember(ctx, recipe, &recipe->said_end, said->row, said->value));
    }
    return MOPT_OK;
}
