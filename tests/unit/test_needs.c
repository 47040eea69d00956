/* The `needs` column: every condition names options, choices and passes that are there; every option that has one is
 * refused where it does not hold, by name, and taken where it does. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/passes/needs.h"

enum { MAX_TERMS = 32, WORD_BYTES = 64 };

struct term { bool negated, is_flag; char name[WORD_BYTES], value[WORD_BYTES]; int clause; };

/* Read again here, so that the reader in lib is not its own judge. Of a=x|y only x is kept. */
static size_t read_terms(const char *needs, struct term terms[MAX_TERMS])
{
    size_t n = 0;
    int clause = 0;
    for (const char *p = needs; *p; n++) {
        struct term *t = &terms[n];
        memset(t, 0, sizeof *t);
        ck_assert_uint_lt(n, MAX_TERMS);
        t->clause = clause;
        t->negated = *p == '!';
        t->is_flag = *p == '@';
        p += t->negated || t->is_flag;
        size_t k = strcspn(p, "=, "), all = strcspn(p, ", ");
        ck_assert_uint_lt(k, WORD_BYTES);
        memcpy(t->name, p, k);
        const char *value = p + k + 1;
        if (all > k) {
            size_t n_value = strcspn(value, "|, ");
            if (!strncmp(value, "auto|", 5)) { /* what must be typed to be seen is the next one */
                value += 5;
                n_value = strcspn(value, "|, ");
            }
            memcpy(t->value, value, n_value);
        }
        p += all;
        clause += *p == ' ';
        p += *p == ' ' || *p == ',';
    }
    return n;
}

static const struct mopt_option *find(const struct mo_pass *pass, const char *name)
{
    size_t base;
    const struct mopt_option *row = pass ? mo_option_find(pass->options, name, &base) : NULL;
    return row ? row : mo_option_find(mo_job_options, name, &base);
}

static bool is_flag_word(const char *word)
{
    static const char *const words[] = {"data", "teacher", "selects", "sets", "skips", "exact", "changes", "reads", "plans"};
    for (size_t i = 0; i < MO_COUNT(words); i++)
        if (!strcmp(word, words[i]))
            return true;
    return mo_pass_find(word) != NULL;
}

static bool has_choice(const char *choices, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strcspn(p, "|") == n && !strncmp(p, word, n))
            return true;
    return false;
}

/* All values of a choice, not the first alone. */
static void check_values(const struct mopt_option *row, const char *needs, const char *name)
{
    char text[512], head[WORD_BYTES + 2];
    snprintf(text, sizeof text, "%s", needs);
    snprintf(head, sizeof head, "%s=", name);
    for (char *clause = strtok(text, " ,"); clause; clause = strtok(NULL, " ,")) {
        clause += *clause == '!';
        if (strncmp(clause, head, strlen(head)))
            continue;
        char *p = clause + strlen(head), word[WORD_BYTES];
        for (size_t k; *p; p += k + (p[k] == '|')) {
            k = strcspn(p, "|");
            snprintf(word, sizeof word, "%.*s", (int)k, p);
            ck_assert_msg(row->kind == MOPT_OPT_INT || row->kind == MOPT_OPT_FLOAT || has_choice(row->choices, word),
                          "'%s': '%s' has no choice '%s'", needs, name, word);
        }
    }
}

static void check_names(const struct mo_pass *pass, const char *option, const char *needs)
{
    struct term terms[MAX_TERMS];
    size_t n = read_terms(needs, terms);
    for (size_t i = 0; i < n; i++) {
        const struct mopt_option *row = terms[i].is_flag ? NULL : find(pass, terms[i].name);
        ck_assert_msg(terms[i].is_flag ? is_flag_word(terms[i].name) : row != NULL, "%s, needs of '%s': what is '%s'?",
                      pass ? pass->name : "job", option, terms[i].name);
        if (row && terms[i].value[0])
            check_values(row, needs, terms[i].name);
    }
}

/* ---- recipes --------------------------------------------------------------------------------- */

static const char *some_value(const struct mopt_option *row, char text[WORD_BYTES])
{
    const char *last = row->choices ? strrchr(row->choices, '|') : NULL;
    switch (row->kind) {
    case MOPT_OPT_BOOL:
        return row->def != 0 ? "false" : "true";
    case MOPT_OPT_INT:
        snprintf(text, WORD_BYTES, "%.0f", MO_MAX(row->min, 2));
        return text;
    case MOPT_OPT_FLOAT:
        snprintf(text, WORD_BYTES, "%.17g", row->max > row->min ? row->min + (row->max - row->min) / 4 : 0.5);
        return text;
    case MOPT_OPT_CHOICE:
        return last ? last + 1 : row->choices;
    case MOPT_OPT_AMOUNT:
        return "0.5";
    default:
        return !strcmp(row->name, "set") ? "a=b" : "some";
    }
}

static void set(struct mopt_ctx *ctx, struct mopt_recipe *r, const char *key, const char *value)
{
    if (mopt_recipe_set(ctx, r, key, value))
        ck_abort_msg("%s %s: %s", key, value, mopt_error(ctx));
}

/* What the pass cannot do without. */
static void set_basics(struct mopt_ctx *ctx, struct mopt_recipe *r, const struct mo_pass *pass)
{
    if (pass->flags & MO_PASS_NEEDS_DATA)
        set(ctx, r, "data", "idx:somewhere");
    if (pass->flags & MO_PASS_NEEDS_TEACHER)
        set(ctx, r, "teacher", "original");
}

/* Makes a term hold; what holds by default is left alone. */
static void satisfy(struct mopt_ctx *ctx, struct mopt_recipe *r, const struct mo_pass *pass, const struct term *t)
{
    char text[WORD_BYTES];
    const struct mopt_option *row = t->is_flag ? NULL : find(pass, t->name);
    bool is_on = row && row->kind == MOPT_OPT_BOOL && row->def != 0;
    if (row && !t->negated && !is_on)
        set(ctx, r, t->name, t->value[0] ? t->value : row->kind == MOPT_OPT_BOOL ? "true" : some_value(row, text));
}

static bool names(const char *words, const char *option)
{
    char quoted[WORD_BYTES + 2];
    snprintf(quoted, sizeof quoted, "'%s'", option);
    return strstr(words, quoted) != NULL;
}

static struct mopt_recipe *recipe_of(struct mopt_ctx *ctx, const struct mo_pass *pass)
{
    struct mopt_recipe *r = NULL;
    ck_assert_int_eq(mopt_recipe_new(ctx, &r), MOPT_OK);
    ck_assert_int_eq(mopt_recipe_add(ctx, r, pass->name), MOPT_OK);
    set_basics(ctx, r, pass);
    return r;
}

static void satisfy_all(struct mopt_ctx *ctx, struct mopt_recipe *r, const struct mo_pass *pass, const char *needs)
{
    struct term terms[MAX_TERMS];
    size_t n = read_terms(needs, terms);
    for (size_t i = 0; i < n; i++)
        if (!i || terms[i].clause != terms[i - 1].clause)
            satisfy(ctx, r, pass, &terms[i]);
}

static bool lists(const char *words, const char *option)
{
    size_t n = strlen(option);
    for (const char *p = strstr(words, option); p; p = strstr(p + 1, option))
        if ((p == words || p[-1] == ' ') && (!p[n] || p[n] == ' '))
            return true;
    return false;
}

/* With the first term of each clause made true, the option itself is not what is complained of. */
static void takes_where_met(struct mopt_ctx *ctx, const struct mo_pass *pass, const struct mopt_option *row,
                            const char *const *needs, size_t n_needs)
{
    char value[WORD_BYTES];
    struct mopt_recipe *r = recipe_of(ctx, pass);
    for (size_t k = 0; k < n_needs; k++)
        satisfy_all(ctx, r, pass, needs[k]);
    for (const struct mo_need *need = pass->needs; need && need->options; need++)
        if (need->when && lists(need->options, row->name))
            satisfy_all(ctx, r, pass, need->when);
    const char *text = some_value(row, value);
    if (row->kind == MOPT_OPT_CHOICE && !strcmp(row->name, "target"))
        text = "x86";
    set(ctx, r, row->name, text);
    enum mopt_status s = mopt_recipe_check(ctx, r);
    bool is_of_needs = strstr(mopt_error(ctx), "does nothing") || strstr(mopt_error(ctx), "add that");
    ck_assert_msg(!s || !is_of_needs || !names(mopt_error(ctx), row->name), "%s --%s is refused where its needs are met: %s",
                  pass->name, row->name, mopt_error(ctx));
    mopt_clear(ctx);
    mopt_recipe_free(r);
}

/* Each clause broken: by the defaults where these do not meet it, else by turning on what it forbids. */
static void refuses_where_broken(struct mopt_ctx *ctx, const struct mo_pass *pass, const struct mopt_option *row,
                                 const struct term *t)
{
    char value[WORD_BYTES];
    struct mopt_recipe *r = recipe_of(ctx, pass);
    const struct mopt_option *other = find(pass, t->name);
    if (t->negated)
        set(ctx, r, t->name, t->value[0] ? t->value : some_value(other, value));
    set(ctx, r, row->name, row->kind == MOPT_OPT_CHOICE && !strcmp(row->name, "target") ? "arm" : some_value(row, value));
    enum mopt_status s = mopt_recipe_check(ctx, r);
    ck_assert_msg(s == MOPT_USAGE, "%s --%s beside %s%s is taken and does nothing", pass->name, row->name,
                  t->negated ? "" : "no ", t->name);
    mopt_clear(ctx);
    mopt_recipe_free(r);
}

static size_t check_row(struct mopt_ctx *ctx, const struct mo_pass *pass, const struct mopt_option *row)
{
    const char *needs[MO_NEEDS_DEPTH];
    size_t n_needs = mo_needs_of(pass->options, row->name, needs);
    for (size_t k = 0; k < n_needs; k++) {
        struct term terms[MAX_TERMS];
        size_t n = read_terms(needs[k], terms);
        check_names(pass, row->name, needs[k]);
        for (size_t i = 0; i < n; i++) {
            bool is_alone = (!i || terms[i - 1].clause != terms[i].clause) &&
                            (i + 1 == n || terms[i + 1].clause != terms[i].clause);
            const struct mopt_option *other = find(pass, terms[i].name);
            bool by_default = other && other->kind == MOPT_OPT_BOOL && other->def != 0;
            bool given = other && other->kind == MOPT_OPT_TEXT && !strcmp(other->name, "data") && pass->flags & MO_PASS_NEEDS_DATA;
            bool is_number = other && other->kind == MOPT_OPT_FLOAT && other->def > 0;
            bool is_chosen = terms[i].value[0] && other && other->text_def && strstr(needs[k], other->text_def);
            if (is_alone && (terms[i].negated || !(by_default || given || is_number || is_chosen)))
                refuses_where_broken(ctx, pass, row, &terms[i]);
        }
    }
    takes_where_met(ctx, pass, row, needs, n_needs);
    return n_needs;
}

static size_t check_table(struct mopt_ctx *ctx, const struct mo_pass *pass, const struct mopt_option *table)
{
    size_t n = 0;
    for (const struct mopt_option *row = table; row && row->name; row++)
        n += row->kind == MOPT_OPT_GROUP ? check_table(ctx, pass, row->group) : check_row(ctx, pass, row);
    return n;
}

START_TEST(every_row)
{
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    size_t n = 0;
    for (size_t i = 0; mo_pass_at(i); i++)
        n += check_table(ctx, mo_pass_at(i), mo_pass_at(i)->options);
    ck_assert_uint_gt(n, 60);
    mopt_close(ctx);
}
END_TEST

/* An option of the job is refused by every pass that mopt_pass_takes says no of, and by no other for that reason. */
static void check_job_row(struct mopt_ctx *ctx, const struct mo_pass *pass, const struct mopt_option *row)
{
    char value[WORD_BYTES];
    const char *text = !strcmp(row->name, "max-latency") ? "1ms" : !strncmp(row->name, "max-", 4) ? "1" : some_value(row, value);
    struct mopt_recipe *r = recipe_of(ctx, pass);
    if (mopt_pass_takes(pass->name, "data"))
        set(ctx, r, "data", "idx:somewhere");
    set(ctx, r, row->name, text);
    enum mopt_status s = mopt_recipe_check(ctx, r);
    bool takes = mopt_pass_takes(pass->name, row->name), is_refused = s && strstr(mopt_error(ctx), "does nothing here");
    ck_assert_msg(takes != is_refused, "%s --%s: %s", pass->name, row->name, mopt_error(ctx));
    ck_assert_msg(!is_refused || names(mopt_error(ctx), row->name), "%s --%s: %s", pass->name, row->name, mopt_error(ctx));
    mopt_clear(ctx);
    mopt_recipe_free(r);
}

static void check_job(struct mopt_ctx *ctx, const struct mo_pass *pass, const struct mopt_option *table)
{
    const char *needs[MO_NEEDS_DEPTH];
    for (const struct mopt_option *row = table; row->name; row++) {
        if (row->kind == MOPT_OPT_GROUP) {
            check_job(ctx, pass, row->group);
            continue;
        }
        size_t n = mo_needs_of(mo_job_options, row->name, needs);
        for (size_t k = 0; k < n; k++)
            check_names(NULL, row->name, needs[k]);
        check_job_row(ctx, pass, row);
    }
}

START_TEST(every_option_of_the_job)
{
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    for (size_t i = 0; mo_pass_at(i); i++)
        check_job(ctx, mo_pass_at(i), mo_job_options);
    mopt_close(ctx);
}
END_TEST

START_TEST(needs_of_passes_name_options)
{
    for (size_t i = 0; mo_pass_at(i); i++)
        for (const struct mo_need *need = mo_pass_at(i)->needs; need && need->options; need++) {
            char words[256];
            snprintf(words, sizeof words, "%s", need->options);
            for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
                ck_assert_msg(find(mo_pass_at(i), word) != NULL, "%s: what is '%s'?", mo_pass_at(i)->name, word);
            if (need->when)
                check_names(mo_pass_at(i), need->options, need->when);
        }
}
END_TEST

/* One step of several that uses an option of the job is enough. */
START_TEST(recipes)
{
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    struct mopt_recipe *r = recipe_of(ctx, mo_pass_find("inspect"));
    set(ctx, r, "only", "*");
    ck_assert_int_eq(mopt_recipe_check(ctx, r), MOPT_USAGE);
    mopt_clear(ctx);
    ck_assert_int_eq(mopt_recipe_add(ctx, r, "prune"), MOPT_OK);
    ck_assert_int_eq(mopt_recipe_check(ctx, r), MOPT_OK);
    set(ctx, r, "lr", "0.1");
    ck_assert_int_eq(mopt_recipe_check(ctx, r), MOPT_USAGE);
    ck_assert_msg(names(mopt_error(ctx), "lr") && strstr(mopt_error(ctx), "step 2, prune"), "%s", mopt_error(ctx));
    mopt_clear(ctx);
    set(ctx, r, "data", "idx:somewhere");
    ck_assert_msg(mopt_recipe_check(ctx, r) == MOPT_OK, "%s", mopt_error(ctx));
    mopt_recipe_free(r);
    mopt_close(ctx);
}
END_TEST

START_TEST(nearest_choice)
{
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    struct mopt_recipe *r = recipe_of(ctx, mo_pass_find("train"));
    ck_assert_int_eq(mopt_recipe_set(ctx, r, "schedule", "cosin"), MOPT_USAGE);
    ck_assert_msg(strstr(mopt_error(ctx), "did you mean 'cosine'?") != NULL, "%s", mopt_error(ctx));
    mopt_clear(ctx);
    ck_assert_int_eq(mopt_recipe_set(ctx, r, "schedule", "xyzzyx"), MOPT_USAGE);
    ck_assert_ptr_null(strstr(mopt_error(ctx), "did you mean"));
    mopt_recipe_free(r);
    mopt_close(ctx);
}
END_TEST

Suite *suite_needs(void);
Suite *suite_needs(void)
{
    Suite *s = suite_create("needs");
    TCase *t = tcase_create("needs");
    tcase_add_test(t, every_row);
    tcase_add_test(t, every_option_of_the_job);
    tcase_add_test(t, needs_of_passes_name_options);
    tcase_add_test(t, recipes);
    tcase_add_test(t, nearest_choice);
    suite_add_tcase(s, t);
    return s;
}
