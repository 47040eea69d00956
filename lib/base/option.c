/* option.c - text into an options struct, by its table. */
#include "lib/base/option.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(type, base, offset) (*(type *)((char *)(base) + (offset)))

static int choice_index(const char *choices, const char *word)
{
    size_t n = strlen(word);
    for (int i = 0;; i++) {
        const char *end = strchrnul(choices, '|');
        if ((size_t)(end - choices) == n && !memcmp(choices, word, n))
            return i;
        if (!*end)
            return -1;
        choices = end + 1;
    }
}

#define MAX_COUNT 0x1p53     /* counts are exact up to here */

/* The text of an amount; NULL when it is none. */
static const char *amount_fault(const char *text, struct mo_amount *amount)
{
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    bool is_percent = *end == '%' && !end[1];
    if (end == text || (*end && !is_percent) || errno || !isfinite(x) || x < 0)
        return "is no amount: give a fraction (0.5), a percentage (50%) or a count (1000)";
    if (is_percent && x > 100)
        return "is above 100%";
    bool has_point = strpbrk(text, ".eE") != NULL;
    if (!is_percent && !has_point && x == 1)
        return "is ambiguous: write 100% for all, or 1.0; a count starts at 2";
    if (is_percent || x < 1 || (has_point && x == 1)) {
        *amount = (struct mo_amount){MO_AMOUNT_FRACTION, is_percent ? x / 100 : x};
        return NULL;
    }
    if (x != floor(x))
        return "is neither a fraction (at most 1) nor a whole count";
    if (x > MAX_COUNT)
        return "is more than can be counted";
    *amount = (struct mo_amount){MO_AMOUNT_COUNT, x};
    return NULL;
}

enum mopt_status mo_amount_parse(struct mopt_ctx *ctx, const char *text, struct mo_amount *amount)
{
    const char *fault = amount_fault(text, amount);
    return fault ? mo_fail(ctx, MOPT_USAGE, "amount '%s' %s", text, fault) : MOPT_OK;
}

static void set_default(const struct mopt_option *row, void *options)
{
    switch (row->kind) {
    case MOPT_OPT_BOOL:
        FIELD(bool, options, row->offset) = row->def != 0;
        break;
    case MOPT_OPT_INT:
        FIELD(int64_t, options, row->offset) = (int64_t)row->def;
        break;
    case MOPT_OPT_FLOAT:
        FIELD(double, options, row->offset) = row->def;
        break;
    case MOPT_OPT_TEXT:
        FIELD(const char *, options, row->offset) = row->text_def;
        break;
    case MOPT_OPT_CHOICE:
        FIELD(int, options, row->offset) = row->text_def ? choice_index(row->choices, row->text_def) : (int)row->def;
        break;
    case MOPT_OPT_LIST:
        FIELD(struct mo_list, options, row->offset) = (struct mo_list){0};
        break;
    case MOPT_OPT_AMOUNT:
        FIELD(struct mo_amount, options, row->offset) = (struct mo_amount){0};
        if (row->text_def)
            (void)amount_fault(row->text_def, &FIELD(struct mo_amount, options, row->offset));
        break;
    case MOPT_OPT_GROUP:
        mo_options_default(row->group, (char *)options + row->offset);
        break;
    }
}

void mo_options_default(const struct mopt_option *table, void *options)
{
    for (const struct mopt_option *row = table; row && row->name; row++)
        set_default(row, options);
}

const struct mopt_option *mo_option_find(const struct mopt_option *table, const char *name, size_t *base_offset)
{
    for (const struct mopt_option *row = table; row && row->name; row++) {
        if (row->kind == MOPT_OPT_GROUP) {
            size_t inner = 0;
            const struct mopt_option *found = mo_option_find(row->group, name, &inner);
            if (found) {
                *base_offset = row->offset + inner;
                return found;
            }
        } else if (!strcmp(row->name, name)) {
            *base_offset = 0;
            return row;
        }
    }
    return NULL;
}

static void collect(const struct mopt_option *table, const char **names, size_t *n)
{
    for (const struct mopt_option *row = table; row && row->name; row++) {
        if (row->kind == MOPT_OPT_GROUP)
            collect(row->group, names, n);
        else {
            if (names)
                names[*n] = row->name;
            ++*n;
        }
    }
}

const char **mo_option_names(struct mo_arena *arena, const struct mopt_option *table, size_t *n)
{
    *n = 0;
    collect(table, NULL, n);
    const char **names = mo_arena_new(arena, *n + 1, sizeof *names);
    *n = 0;
    if (names)
        collect(table, names, n);
    return names;
}

static enum mopt_status set_number(struct mopt_ctx *ctx, const struct mopt_option *row, void *field, const char *value)
{
    char *end;
    errno = 0;
    double x = strtod(value, &end);
    if (end == value || *end || errno == ERANGE || isnan(x))
        return mo_fail(ctx, MOPT_USAGE, "option '%s': '%s' is not a number", row->name, value);
    if (row->kind == MOPT_OPT_INT && (x != floor(x) || fabs(x) > 0x1p53))
        return mo_fail(ctx, MOPT_USAGE, "option '%s': %s is not a whole number", row->name, value);
    if (row->min < row->max && x < row->min)
        return mo_fail(ctx, MOPT_USAGE, "option '%s': %s is below %g", row->name, value, row->min);
    if (row->min < row->max && x > row->max)
        return mo_fail(ctx, MOPT_USAGE, "option '%s': %s is above %g", row->name, value, row->max);
    if (row->kind == MOPT_OPT_INT)
        *(int64_t *)field = (int64_t)x;
    else
        *(double *)field = x;
    return MOPT_OK;
}

static enum mopt_status set_bool(struct mopt_ctx *ctx, const struct mopt_option *row, bool *field, const char *value)
{
    bool yes = !*value || !strcmp(value, "true") || !strcmp(value, "yes") || !strcmp(value, "1");
    bool no = !strcmp(value, "false") || !strcmp(value, "no") || !strcmp(value, "0");
    if (!yes && !no)
        return mo_fail(ctx, MOPT_USAGE, "option '%s': '%s' is neither true nor false", row->name, value);
    *field = yes;
    return MOPT_OK;
}

static enum mopt_status append(struct mopt_ctx *ctx, struct mo_arena *arena, struct mo_list *list, const char *value)
{
    const char **items = mo_arena_new(arena, list->n + 1, sizeof *items);
    char *copy = mo_arena_text(arena, value);
    if (!items || !copy)
        return mo_no_memory(ctx, strlen(value), "an option");
    if (list->n)
        memcpy(items, list->items, list->n * sizeof *items);
    items[list->n] = copy;
    *list = (struct mo_list){items, list->n + 1};
    return MOPT_OK;
}

enum { MAX_CHOICES = 32, CHOICES_BYTES = 512 };

static enum mopt_status no_choice(struct mopt_ctx *ctx, const struct mopt_option *row, const char *value)
{
    char text[CHOICES_BYTES];
    const char *words[MAX_CHOICES];
    size_t n = 0;
    snprintf(text, sizeof text, "%s", row->choices);
    for (char *word = text; word && n < MAX_CHOICES; n++) {
        words[n] = word;
        if ((word = strchr(word, '|')))
            *word++ = 0;
    }
    const char *near = mo_nearest(value, words, n);
    if (near)
        return mo_fail(ctx, MOPT_USAGE, "option '%s': '%s' is none of %s; did you mean '%s'?", row->name, value,
                       row->choices, near);
    return mo_fail(ctx, MOPT_USAGE, "option '%s': '%s' is none of %s", row->name, value, row->choices);
}

static enum mopt_status set_row(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mopt_option *row,
                                void *field, const char *value)
{
    const char *fault;
    switch (row->kind) {
    case MOPT_OPT_BOOL:
        return set_bool(ctx, row, field, value);
    case MOPT_OPT_INT:
    case MOPT_OPT_FLOAT:
        return set_number(ctx, row, field, value);
    case MOPT_OPT_TEXT:
        if (!(*(const char **)field = mo_arena_text(arena, value)))
            return mo_no_memory(ctx, strlen(value), "an option");
        return MOPT_OK;
    case MOPT_OPT_CHOICE:
        if ((*(int *)field = choice_index(row->choices, value)) < 0)
            return no_choice(ctx, row, value);
        return MOPT_OK;
    case MOPT_OPT_LIST:
        return append(ctx, arena, field, value);
    case MOPT_OPT_AMOUNT:
        if ((fault = amount_fault(value, field)))
            return mo_fail(ctx, MOPT_USAGE, "option '%s': '%s' %s", row->name, value, fault);
        return MOPT_OK;
    case MOPT_OPT_GROUP:
        break;
    }
    return mo_fail(ctx, MOPT_FAILED, "option '%s' has no kind", row->name);
}

enum mopt_status mo_option_set(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mopt_option *table,
                               void *options, const char *name, const char *value)
{
    size_t base = 0;
    const struct mopt_option *row = mo_option_find(table, name, &base);
    if (row)
        return set_row(ctx, arena, row, (char *)options + base + row->offset, value);
    size_t n;
    const char **names = mo_option_names(arena, table, &n);
    const char *near = names ? mo_nearest(name, names, n) : NULL;
    if (near)
        return mo_fail(ctx, MOPT_USAGE, "there is no option '%s'; did you mean '%s'?", name, near);
    return mo_fail(ctx, MOPT_USAGE, "there is no option '%s'", name);
}
