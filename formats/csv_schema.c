/* csv_schema.c - the meaning of columns as JSON, for the model's metadata:
 *
 *     {"format": "csv", "label": 2, "target": "classes", "classes": ["no", "yes"], "plain": false,
 *      "columns": [{"name": "age", "mean": 38.6}, {"name": "job", "words": ["", "clerk"]}, {"name": "id", "drop": true}]}
 *
 * The label's own column has a name only. "plain": labels are 0, 1, ... as they stand, and "classes" says how many. */
#include "formats/csv.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

static bool add_words(cJSON *object, const char *key, const char **words, int n)
{
    cJSON *list = cJSON_AddArrayToObject(object, key);
    for (int i = 0; list && i < n; i++) {
        cJSON *word = cJSON_CreateString(words[i]);
        if (!word || !cJSON_AddItemToArray(list, word)) {
            cJSON_Delete(word);
            return false;
        }
    }
    return list != NULL;
}

static bool add_column(cJSON *list, const struct csv_column *c)
{
    cJSON *row = cJSON_CreateObject();
    if (!row || !cJSON_AddItemToArray(list, row)) {
        cJSON_Delete(row);
        return false;
    }
    if (!cJSON_AddStringToObject(row, "name", c->name))
        return false;
    switch (c->kind) {
    case CSV_NUMBER:
        return cJSON_AddNumberToObject(row, "mean", c->mean);
    case CSV_WORDS:
        return add_words(row, "words", c->words, c->n_words);
    case CSV_DROP:
        return cJSON_AddTrueToObject(row, "drop");
    default:
        return true;
    }
}

static bool fill(cJSON *root, const struct csv_schema *s)
{
    bool ok = cJSON_AddStringToObject(root, "format", "csv") && cJSON_AddNumberToObject(root, "label", s->label) &&
              cJSON_AddStringToObject(root, "target", s->is_regression ? "values" : "classes") &&
              cJSON_AddBoolToObject(root, "plain", s->is_plain);
    if (ok && s->is_plain)
        ok = cJSON_AddNumberToObject(root, "classes", s->n_classes);
    else if (ok && !s->is_regression)
        ok = add_words(root, "classes", s->classes, s->n_classes);
    cJSON *list = ok ? cJSON_AddArrayToObject(root, "columns") : NULL;
    for (int i = 0; list && ok && i < s->n_columns; i++)
        ok = add_column(list, &s->column[i]);
    return ok && list;
}

const char *csv_schema_write(struct mo_arena *arena, const struct csv_schema *schema)
{
    cJSON *root = cJSON_CreateObject();
    char *text = root && fill(root, schema) ? cJSON_PrintUnformatted(root) : NULL;
    const char *copy = mo_arena_text(arena, text);
    cJSON_free(text);
    cJSON_Delete(root);
    return copy;
}

/* ---- reading ---------------------------------------------------------------------- */

static enum mopt_status bad(struct mopt_ctx *ctx, const char *what)
{
    return mo_fail(ctx, MOPT_DATA, "the schema of the training data is broken: %s", what);
}

/* A sorted list of different texts. */
static enum mopt_status read_words(struct mopt_ctx *ctx, struct mo_arena *arena, const cJSON *list, int max,
                                   const char ***words, int *n)
{
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > max)
        return bad(ctx, "a list of words");
    *n = 0;
    *words = mo_arena_new(arena, (size_t)cJSON_GetArraySize(list) + 1, sizeof **words);
    if (!*words)
        return mo_no_memory(ctx, 0, "a schema");
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item) || (*n && strcmp((*words)[*n - 1], item->valuestring) >= 0))
            return bad(ctx, "words must be sorted texts");
        if (!((*words)[(*n)++] = mo_arena_text(arena, item->valuestring)))
            return mo_no_memory(ctx, 0, "a schema");
    }
    return MOPT_OK;
}

static enum mopt_status read_column(struct mopt_ctx *ctx, struct mo_arena *arena, const cJSON *row,
                                    struct csv_column *c)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(row, "name");
    const cJSON *mean = cJSON_GetObjectItemCaseSensitive(row, "mean");
    const cJSON *words = cJSON_GetObjectItemCaseSensitive(row, "words");
    const cJSON *drop = cJSON_GetObjectItemCaseSensitive(row, "drop");
    if (!cJSON_IsString(name))
        return bad(ctx, "a column without a name");
    c->name = mo_arena_text(arena, name->valuestring);
    if (!c->name)
        return mo_no_memory(ctx, 0, "a schema");
    c->kind = drop ? CSV_DROP : words ? CSV_WORDS : mean ? CSV_NUMBER : CSV_LABEL;
    if (c->kind == CSV_NUMBER) {
        if (!cJSON_IsNumber(mean) || !isfinite(mean->valuedouble))
            return bad(ctx, "a mean that is no number");
        c->mean = mean->valuedouble;
    }
    return c->kind == CSV_WORDS ? read_words(ctx, arena, words, CSV_MAX_WORDS, &c->words, &c->n_words) : MOPT_OK;
}

static enum mopt_status read_root(struct mopt_ctx *ctx, struct mo_arena *arena, const cJSON *root,
                                  struct csv_schema *s)
{
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(root, "format");
    const cJSON *label = cJSON_GetObjectItemCaseSensitive(root, "label");
    const cJSON *target = cJSON_GetObjectItemCaseSensitive(root, "target");
    const cJSON *columns = cJSON_GetObjectItemCaseSensitive(root, "columns"), *row;
    if (!cJSON_IsString(format) || strcmp(format->valuestring, "csv"))
        return mo_fail(ctx, MOPT_DATA, "the model was trained on data of another format; --schema data numbers classes anew");
    int n = cJSON_IsArray(columns) ? cJSON_GetArraySize(columns) : 0;
    if (n < 1 || n > CSV_MAX_COLUMNS || !cJSON_IsString(target) || !cJSON_IsNumber(label))
        return bad(ctx, "columns, target or label");
    s->label = label->valueint;
    s->is_regression = !strcmp(target->valuestring, "values");
    s->is_plain = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "plain"));
    s->column = mo_arena_new(arena, (size_t)n, sizeof *s->column);
    if (!s->column)
        return mo_no_memory(ctx, 0, "a schema");
    cJSON_ArrayForEach(row, columns)
    {
        struct csv_column *c = &s->column[s->n_columns];
        MO_TRY(read_column(ctx, arena, row, c));
        if ((c->kind == CSV_LABEL) != (s->n_columns++ == s->label))
            return bad(ctx, "label and columns disagree");
    }
    if (s->label < -1 || s->label >= n)
        return bad(ctx, "label is no column");
    if (s->is_regression || s->label < 0)
        return MOPT_OK;
    const cJSON *classes = cJSON_GetObjectItemCaseSensitive(root, "classes");
    if (!s->is_plain)
        return read_words(ctx, arena, classes, CSV_MAX_CLASSES, &s->classes, &s->n_classes);
    if (!cJSON_IsNumber(classes) || classes->valueint < 1 || classes->valueint > CSV_MAX_CLASSES)
        return bad(ctx, "number of classes");
    s->n_classes = classes->valueint;
    return MOPT_OK;
}

enum mopt_status csv_schema_read(struct mopt_ctx *ctx, struct mo_arena *arena, const char *text,
                                 struct csv_schema *schema)
{
    *schema = (struct csv_schema){.label = -1};
    cJSON *root = cJSON_Parse(text);
    enum mopt_status s = root ? read_root(ctx, arena, root, schema) : bad(ctx, "it is not JSON");
    cJSON_Delete(root);
    return s;
}

int csv_find(const char *const *words, int n_words, const char *word)
{
    int low = 0, high = n_words;
    while (low < high) {
        int mid = low + (high - low) / 2, order = strcmp(words[mid], word);
        if (!order)
            return mid;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return -1;
}
