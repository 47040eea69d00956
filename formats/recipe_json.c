/* recipe_json.c - a recipe as JSON, whose keys are the flags:
 *
 *     { "mopt": 1, "seed": 7, "data": "idx:DIR",
 *       "passes": [ { "pass": "prune", "amount": 0.5, "epochs": 4 },
 *                   { "pass": "quantize", "weight-only": "int8" } ] }
 *
 * "steps" and "verb" are taken for "passes" and "pass". All of it is checked
 * before the first step runs; an unknown key names the nearest known one. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/formats.h"
#include "lib/passes/checkpoint.h"
#include "lib/passes/recipe.h"

static enum mopt_status set_value(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const cJSON *item)
{
    char number[40];
    if (cJSON_IsString(item))
        return mopt_recipe_set(ctx, recipe, item->string, item->valuestring);
    if (cJSON_IsBool(item))
        return mopt_recipe_set(ctx, recipe, item->string, cJSON_IsTrue(item) ? "true" : "false");
    if (cJSON_IsNumber(item)) {
        /* 0.5 is said as 0.5; a whole number without a point, so that 1.0 and 1 mean the same 1 as in JSON */
        snprintf(number, sizeof number, "%.15g", item->valuedouble);
        if (strtod(number, NULL) != item->valuedouble)
            snprintf(number, sizeof number, "%.17g", item->valuedouble);
        return mopt_recipe_set(ctx, recipe, item->string, number);
    }
    if (cJSON_IsArray(item)) {
        for (const cJSON *each = item->child; each; each = each->next) {
            if (!cJSON_IsString(each))
                return mo_fail(ctx, MOPT_USAGE, "key '%s': a list must hold texts (the list of steps is \"passes\")",
                               item->string);
            MO_TRY(mopt_recipe_set(ctx, recipe, item->string, each->valuestring));
        }
        return MOPT_OK;
    }
    return mo_fail(ctx, MOPT_USAGE, "key '%s': a text, a number, true, false or a list of texts is wanted", item->string);
}

static bool is_key(const cJSON *item, const char *a, const char *b)
{
    return item->string && (!strcmp(item->string, a) || !strcmp(item->string, b));
}

static enum mopt_status read_step(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const cJSON *json)
{
    const cJSON *name = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "pass") : NULL;
    if (!name && cJSON_IsObject(json))
        name = cJSON_GetObjectItemCaseSensitive(json, "verb");
    if (!cJSON_IsString(name))
        return mo_fail(ctx, MOPT_USAGE, "a step must be an object with \"pass\": \"NAME\"");
    MO_TRY(mopt_recipe_add(ctx, recipe, name->valuestring));
    for (const cJSON *item = json->child; item; item = item->next)
        if (item != name)
            MO_TRY(set_value(ctx, recipe, item));
    return MOPT_OK;
}

static enum mopt_status read_recipe(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const cJSON *json)
{
    const cJSON *steps = cJSON_IsArray(json) ? json : NULL;
    for (const cJSON *item = cJSON_IsObject(json) ? json->child : NULL; item; item = item->next) {
        if (is_key(item, "passes", "steps"))
            steps = item;
        else if (is_key(item, "mopt", "mopt")) {
            if (!cJSON_IsNumber(item) || item->valuedouble != 1)
                return mo_fail(ctx, MOPT_USAGE, "\"mopt\" is the version of the recipe's form; this program knows 1");
        } else
            MO_TRY(set_value(ctx, recipe, item));
    }
    if (!cJSON_IsArray(steps) || !steps->child)
        return mo_fail(ctx, MOPT_USAGE, "a recipe needs \"passes\": [ { \"pass\": ... }, ... ]");
    for (const cJSON *item = steps->child; item; item = item->next)
        MO_TRY(read_step(ctx, recipe, item));
    return MOPT_OK;
}

enum mopt_status mo_recipe_parse(struct mopt_ctx *ctx, const char *text, struct mopt_recipe **recipe)
{
    MO_TRY(mopt_recipe_new(ctx, recipe));
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithOpts(text, &end, 1);
    enum mopt_status s = MOPT_OK;
    if (!json) {
        int line = 1;
        for (const char *p = text; end && p < end; p++)
            line += *p == '\n';
        s = mo_fail(ctx, MOPT_USAGE, "line %d is no JSON", line);
    }
    if (!s)
        s = read_recipe(ctx, *recipe, json);
    cJSON_Delete(json);
    if (s) {
        mopt_recipe_free(*recipe);
        *recipe = NULL;
    }
    return s;
}

enum mopt_status mopt_recipe_read(struct mopt_ctx *ctx, const char *path, struct mopt_recipe **recipe)
{
    char *text;
    size_t n;
    *recipe = NULL;
    MO_TRY(mopt_file_read(ctx, path, &text, &n));
    enum mopt_status s = mo_recipe_parse(ctx, text, recipe);
    mo_mem_free(text);
    if (s)
        mo_blame(ctx, "recipe '%s'", path);
    return s;
}

/* A part of a checkpoint as text of its own. */
static char *part_text(const struct mo_checkpoint *c, const char *name)
{
    uint64_t n = 0;
    const void *bytes = mo_checkpoint_part(c, name, &n);
    char *text = bytes && n ? mo_mem_new(n + 1, 1) : NULL;
    if (text)
        memcpy(text, bytes, n);
    return text;
}

static enum mopt_status resume_step(struct mopt_ctx *ctx, const struct mo_checkpoint *c, const char *path,
                                    struct mopt_recipe *recipe)
{
    const void *bytes;
    uint64_t step;
    MO_TRY(mo_checkpoint_need(ctx, c, "step", sizeof step, &bytes));
    memcpy(&step, bytes, sizeof step);
    if (step >= recipe->n_steps)
        return mo_fail(ctx, MOPT_DATA, "the checkpoint belongs to step %llu of a recipe of %zu",
                       (unsigned long long)step, recipe->n_steps);
    struct mo_step *s = &recipe->steps[step];
    return mo_option_set(ctx, &recipe->arena, s->pass->options, s->options, "resume", path);
}

enum mopt_status mopt_recipe_resume(struct mopt_ctx *ctx, const char *path, struct mopt_recipe **recipe,
                                    char **model_path)
{
    struct mo_checkpoint *c;
    *recipe = NULL;
    *model_path = NULL;
    MO_TRY(mo_checkpoint_read(ctx, path, &c));
    char *text = part_text(c, "recipe"), *model = part_text(c, "model");
    enum mopt_status s = text && model ? mo_recipe_parse(ctx, text, recipe)
                                       : mo_fail(ctx, MOPT_DATA, "the checkpoint does not say what it belongs to");
    if (!s)
        s = resume_step(ctx, c, path, *recipe);
    if (!s)
        *model_path = model;
    else {
        mo_blame(ctx, "'%s'", path);
        mo_mem_free(model);
        mopt_recipe_free(*recipe);
        *recipe = NULL;
    }
    mo_mem_free(text);
    mo_checkpoint_free(c);
    return s;
}

/* ---- writing --------------------------------------------------------------------- */

static cJSON *said_value(const struct mo_said *said)
{
    char *end;
    double x = strtod(said->value, &end);
    bool is_number = said->row->kind == MOPT_OPT_INT || said->row->kind == MOPT_OPT_FLOAT;
    if (is_number && end != said->value && !*end && isfinite(x))
        return cJSON_CreateNumber(x);
    if (said->row->kind == MOPT_OPT_BOOL)
        return cJSON_CreateBool(strcmp(said->value, "false") && strcmp(said->value, "no") && strcmp(said->value, "0"));
    return cJSON_CreateString(said->value);
}

/* What was said last holds; a list collects. */
static bool add_said(cJSON *object, const struct mo_said *said)
{
    for (; said; said = said->next) {
        cJSON *value = said_value(said), *list = cJSON_GetObjectItemCaseSensitive(object, said->key);
        if (said->row->kind == MOPT_OPT_LIST && !list)
            cJSON_AddItemToObject(object, said->key, list = cJSON_CreateArray());
        if (said->row->kind == MOPT_OPT_LIST) {
            if (!value || !cJSON_AddItemToArray(list, value))
                return false;
            continue;
        }
        cJSON_DeleteItemFromObjectCaseSensitive(object, said->key);
        if (!value || !cJSON_AddItemToObject(object, said->key, value))
            return false;
    }
    return true;
}

enum mopt_status mopt_recipe_text(struct mopt_ctx *ctx, const struct mopt_recipe *recipe, char **text)
{
    cJSON *json = cJSON_CreateObject();
    bool ok = json && cJSON_AddNumberToObject(json, "mopt", 1) && add_said(json, recipe->said);
    if (ok && !cJSON_GetObjectItemCaseSensitive(json, "seed"))
        ok = cJSON_AddNumberToObject(json, "seed", (double)recipe->settings.seed) != NULL;
    cJSON *steps = ok ? cJSON_AddArrayToObject(json, "passes") : NULL;
    ok = steps != NULL;
    for (size_t i = 0; ok && i < recipe->n_steps; i++) {
        cJSON *step = cJSON_CreateObject();
        ok = step && cJSON_AddItemToArray(steps, step) &&
             cJSON_AddStringToObject(step, "pass", recipe->steps[i].pass->name) && add_said(step, recipe->steps[i].said);
    }
    char *printed = ok ? cJSON_Print(json) : NULL;
    cJSON_Delete(json);
    size_t n = printed ? strlen(printed) : 0;
    *text = printed ? mo_mem_new(n + 2, 1) : NULL;
    if (*text) {
        memcpy(*text, printed, n);
        (*text)[n] = '\n';
    }
    cJSON_free(printed);
    return *text ? MOPT_OK : mo_no_memory(ctx, n, "a recipe");
}
