/* needs.c - see needs.h. */
#include "lib/passes/needs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 64, TEXT_BYTES = 256 };

struct scope {
    const struct mopt_recipe *recipe;
    const struct mo_step *step; /* NULL: of the job */
    const char *option;         /* the one that is asked about */
};

struct term { bool negated, is_flag; char name[WORD_BYTES], values[TEXT_BYTES]; };

/* ---- flags of passes ------------------------------------------------------------------- */

/* A step that lacks the flag "does not ...". */
static const struct flag { const char *word; unsigned any, none; const char *does; } flags[] = {
    {"data", MO_PASS_DATA | MO_PASS_NEEDS_DATA, 0, "use data"},
    {"teacher", MO_PASS_NEEDS_TEACHER, 0, "use a teacher (distill does)"},
    {"selects", MO_PASS_SELECTS, 0, "choose layers by name"},
    {"sets", MO_PASS_SETS, 0, "take settings for single layers (quantize does)"},
    {"skips", MO_PASS_SKIPS, 0, "skip anything here"},
    {"exact", MO_PASS_EXACT, 0, "compare the model before and after (simplify does)"},
    {"changes", 0, MO_PASS_READS, "change the model"},
    {"reads", MO_PASS_READS, 0, "read only"},
    {"plans", MO_PASS_PLANS, MO_PASS_READS, "change or write anything that could be tried dry"},
    {NULL, 0, 0, NULL}};

static const struct flag *find_flag(const char *word)
{
    const struct flag *f = flags;
    while (f->word && strcmp(f->word, word))
        f++;
    return f->word ? f : NULL;
}

/* The word is a flag, or the name of a pass. */
static bool pass_has(const struct mo_pass *pass, const char *word)
{
    const struct flag *f = find_flag(word);
    if (!f)
        return !strcmp(pass->name, word);
    return pass->flags & f->any || (f->none && !(pass->flags & f->none));
}

static bool has_flag(const struct mopt_recipe *recipe, const char *word)
{
    for (size_t i = 0; i < recipe->n_steps; i++)
        if (pass_has(recipe->steps[i].pass, word))
            return true;
    return false;
}

/* ---- terms --------------------------------------------------------------------------------- */

/* Reads the term at *at and moves behind it. */
static struct term next_term(const char **at)
{
    struct term t = {0};
    const char *p = *at;
    t.negated = *p == '!';
    t.is_flag = *p == '@';
    p += t.negated || t.is_flag;
    size_t n_name = strcspn(p, "=, "), n_all = strcspn(p, ", ");
    snprintf(t.name, sizeof t.name, "%.*s", (int)n_name, p);
    if (n_all > n_name)
        snprintf(t.values, sizeof t.values, "%.*s", (int)(n_all - n_name - 1), p + n_name + 1);
    *at = p + n_all;
    return t;
}

static const struct mopt_option *find_option(const struct scope *s, const char *name, const void **field)
{
    size_t base = 0;
    const struct mopt_option *row = s->step ? mo_option_find(s->step->pass->options, name, &base) : NULL;
    const char *options = s->step ? s->step->options : NULL;
    if (!row) {
        row = mo_option_find(mo_job_options, name, &base);
        options = (const char *)&s->recipe->settings;
    }
    *field = row ? options + base + row->offset : NULL;
    return row;
}

/* The option's value as a word, "" for one that is off. */
static void value_text(const struct mopt_option *row, const void *field, char text[TEXT_BYTES])
{
    const char *choice = row->choices;
    double x = 0;
    text[0] = 0;
    switch (row->kind) {
    case MOPT_OPT_BOOL:
        snprintf(text, TEXT_BYTES, "%s", *(const bool *)field ? "yes" : "");
        break;
    case MOPT_OPT_INT:
    case MOPT_OPT_FLOAT:
        x = row->kind == MOPT_OPT_INT ? (double)*(const int64_t *)field : *(const double *)field;
        if (x != 0 && !isnan(x))
            snprintf(text, TEXT_BYTES, "%.17g", x);
        break;
    case MOPT_OPT_TEXT:
        snprintf(text, TEXT_BYTES, "%s", *(const char *const *)field ? "given" : "");
        break;
    case MOPT_OPT_CHOICE:
        for (int i = *(const int *)field; i > 0 && choice; i--)
            choice = strchr(choice, '|') ? strchr(choice, '|') + 1 : NULL;
        snprintf(text, TEXT_BYTES, "%.*s", choice ? (int)strcspn(choice, "|") : 0, choice ? choice : "");
        if (!strcmp(text, "no"))
            text[0] = 0;
        break;
    case MOPT_OPT_LIST:
        snprintf(text, TEXT_BYTES, "%s", ((const struct mo_list *)field)->n ? "given" : "");
        break;
    case MOPT_OPT_AMOUNT:
        snprintf(text, TEXT_BYTES, "%s", ((const struct mo_amount *)field)->kind != MO_AMOUNT_NONE ? "given" : "");
        break;
    case MOPT_OPT_GROUP:
        break;
    }
}

static bool is_among(const char *word, const char *values)
{
    size_t n = strlen(word);
    for (const char *p = values;; p++) {
        size_t k = strcspn(p, "|");
        if (k == n && !memcmp(p, word, n))
            return true;
        p += k;
        if (!*p)
            return false;
    }
}

static bool holds(const struct scope *s, const struct term *t)
{
    const void *field;
    char text[TEXT_BYTES];
    if (t->is_flag)
        return has_flag(s->recipe, t->name);
    bool is_itself = !t->values[0] && !t->negated && !strcmp(t->name, s->option);
    const struct mopt_option *row = find_option(s, t->name, &field);
    /* "evaluate,..." of the row 'evaluate' asks for its value; the row of a number or text that asks for itself was given */
    if (is_itself && row && row->kind != MOPT_OPT_BOOL)
        return true;
    if (!row)
        return t->negated;
    value_text(row, field, text);
    return (t->values[0] ? is_among(text, t->values) : text[0] != 0) != t->negated;
}

/* ---- words ----------------------------------------------------------------------------------- */

struct words { char text[TEXT_BYTES]; size_t n; };

static void add(struct words *w, const char *before, const char *text)
{
    int n = snprintf(w->text + w->n, sizeof w->text - w->n, "%s%s", w->n ? before : "", text);
    w->n = MO_MIN(w->n + (size_t)MO_MAX(n, 0), sizeof w->text - 1);
}

/* "--method percentile", "--epochs above 0", "--qat". */
static void add_flag(struct words *w, const char *before, const char *name, const char *value)
{
    char text[TEXT_BYTES + WORD_BYTES];
    snprintf(text, sizeof text, "--%s%s%s", name, *value ? " " : "", value);
    add(w, before, text);
}

/* What is wanted by a term that does not hold. */
static void add_wanted(const struct scope *s, const struct term *t, struct words *w)
{
    const void *field;
    const struct mopt_option *row = find_option(s, t->name, &field);
    bool is_number = row && (row->kind == MOPT_OPT_INT || row->kind == MOPT_OPT_FLOAT);
    if (!t->values[0]) {
        add_flag(w, " or ", t->name, is_number ? "above 0" : "");
        return;
    }
    for (const char *p = t->values, *first = p;; p++) {
        char value[WORD_BYTES];
        size_t n = strcspn(p, "|");
        snprintf(value, sizeof value, "%.*s", (int)n, p);
        if (strcmp(value, "auto")) { /* what is there without being asked for need not be asked for */
            if (p == first || !strncmp(first, "auto|", 5))
                add_flag(w, " or ", t->name, value);
            else
                add(w, " or ", value);
            first = strncmp(first, "auto|", 5) ? first : p;
        }
        p += n;
        if (!*p)
            return;
    }
}

/* What stands in the way by a negated term that does not hold. */
static void add_obstacle(const struct scope *s, const struct term *t, struct words *w)
{
    const void *field;
    const struct mopt_option *row = find_option(s, t->name, &field);
    char value[TEXT_BYTES] = "";
    if (row && (t->values[0] || row->kind == MOPT_OPT_CHOICE))
        value_text(row, field, value);
    add_flag(w, " and ", t->name, value);
}

/* Of a clause that asks for steps only: what they lack. */
static enum mopt_status fail_flag(struct mopt_ctx *ctx, const struct scope *s, const char *word)
{
    const struct mopt_recipe *r = s->recipe;
    const struct flag *flag = find_flag(word);
    const char *who = r->n_steps == 1 ? r->steps[0].pass->name : "the recipe";
    return flag ? mo_fail(ctx, MOPT_USAGE, "option '%s' does nothing here: %s does not %s", s->option, who, flag->does)
                : mo_fail(ctx, MOPT_USAGE, "option '%s' does nothing here: %s measures no such thing (%s does)", s->option,
                          who, word);
}

/* The sentence for a clause of which no term holds. */
static enum mopt_status fail_clause(struct mopt_ctx *ctx, const struct scope *s, const char *clause)
{
    struct words wanted = {.n = 0}, obstacles = {.n = 0};
    struct term flag = {0};
    for (const char *p = clause; *p && *p != ' ';) {
        struct term t = next_term(&p);
        if (t.is_flag)
            flag = t;
        else if (t.negated)
            add_obstacle(s, &t, &obstacles);
        else if (t.values[0] || strcmp(t.name, s->option))
            add_wanted(s, &t, &wanted);
        p += *p == ',';
    }
    if (obstacles.n)
        return mo_fail(ctx, MOPT_USAGE, "option '%s' does nothing with %s%s%s: leave one of them out", s->option,
                       obstacles.text, wanted.n ? " unless there is " : "", wanted.text);
    if (wanted.n)
        return mo_fail(ctx, MOPT_USAGE, "option '%s' needs %s: add that, or leave it out", s->option, wanted.text);
    return fail_flag(ctx, s, flag.name);
}

/* The first clause of `needs` that does not hold; NULL: all do. */
static const char *first_unmet(const struct scope *s, const char *needs)
{
    for (const char *p = needs; *p;) {
        const char *clause = p;
        bool ok = false;
        while (*p && *p != ' ') {
            struct term t = next_term(&p);
            ok = holds(s, &t) || ok;
            p += *p == ',';
        }
        if (!ok)
            return clause;
        p += *p == ' ';
    }
    return NULL;
}

/* ---- options that were given --------------------------------------------------------------------- */

size_t mo_needs_of(const struct mopt_option *table, const char *name, const char *needs[MO_NEEDS_DEPTH])
{
    for (const struct mopt_option *row = table; row && row->name; row++) {
        size_t base, n = row->needs ? 1 : 0;
        bool is_group = row->kind == MOPT_OPT_GROUP;
        if (is_group ? !mo_option_find(row->group, name, &base) : strcmp(row->name, name) != 0)
            continue;
        if (row->needs)
            needs[0] = row->needs;
        return is_group ? n + mo_needs_of(row->group, name, needs + n) : n;
    }
    return 0;
}

static enum mopt_status check_rows(struct mopt_ctx *ctx, const struct scope *s, const struct mopt_option *table)
{
    const char *needs[MO_NEEDS_DEPTH], *clause;
    size_t n = mo_needs_of(table, s->option, needs);
    for (size_t i = 0; i < n; i++)
        if ((clause = first_unmet(s, needs[i])))
            return fail_clause(ctx, s, clause);
    return MOPT_OK;
}

static bool has_word(const char *words, const char *word)
{
    for (size_t n = strlen(word); *words; words += *words == ' ') {
        size_t k = strcspn(words, " ");
        if (k == n && !memcmp(words, word, n))
            return true;
        words += k;
    }
    return false;
}

/* What the step's pass asks of an option that it shares. *is_met: nothing, or it holds. */
static enum mopt_status check_pass(struct mopt_ctx *ctx, const struct scope *s, bool tells, bool *is_met)
{
    const char *clause;
    *is_met = true;
    for (const struct mo_need *need = s->step->pass->needs; need && need->options; need++) {
        if (!has_word(need->options, s->option) || (need->when && !(clause = first_unmet(s, need->when))))
            continue;
        *is_met = false;
        if (!tells)
            return MOPT_OK;
        if (need->when)
            return fail_clause(ctx, s, clause);
        return mo_fail(ctx, MOPT_USAGE, "option '%s' does nothing here: %s does not use it", s->option,
                       s->step->pass->name);
    }
    return MOPT_OK;
}

/* An option of the job must have an effect in one of the steps. */
static enum mopt_status check_job_option(struct mopt_ctx *ctx, struct scope *s)
{
    bool is_met = false;
    MO_TRY(check_rows(ctx, s, mo_job_options));
    for (size_t i = 0; i < s->recipe->n_steps && !is_met; i++) {
        s->step = &s->recipe->steps[i];
        MO_TRY(check_pass(ctx, s, false, &is_met));
    }
    return is_met ? MOPT_OK : check_pass(ctx, s, true, &is_met);
}

static enum mopt_status check_step(struct mopt_ctx *ctx, const struct mopt_recipe *recipe, const struct mo_step *step)
{
    bool is_met;
    for (const struct mo_said *said = step->said; said; said = said->next) {
        const struct scope s = {.recipe = recipe, .step = step, .option = said->key};
        MO_TRY(check_rows(ctx, &s, step->pass->options));
        MO_TRY(check_pass(ctx, &s, true, &is_met));
    }
    return MOPT_OK;
}

enum mopt_status mo_needs_check(struct mopt_ctx *ctx, const struct mopt_recipe *recipe)
{
    for (const struct mo_said *said = recipe->said; said; said = said->next) {
        struct scope s = {.recipe = recipe, .option = said->key};
        MO_TRY(check_job_option(ctx, &s));
    }
    for (size_t i = 0; i < recipe->n_steps; i++) {
        enum mopt_status status = check_step(ctx, recipe, &recipe->steps[i]);
        if (status && recipe->n_steps > 1)
            mo_blame(ctx, "step %zu, %s", i + 1, recipe->steps[i].pass->name);
        MO_TRY(status);
    }
    return MOPT_OK;
}

/* A clause of flags alone that the pass does not meet makes an option of the job useless to it whatever else is given. */
static bool clause_excludes(const struct mo_pass *pass, const char **at)
{
    bool excludes = true;
    while (**at && **at != ' ') {
        struct term t = next_term(at);
        excludes = excludes && t.is_flag && !pass_has(pass, t.name);
        *at += **at == ',';
    }
    *at += **at == ' ';
    return excludes;
}

bool mopt_pass_takes(const char *pass_name, const char *option)
{
    const struct mo_pass *pass = mo_pass_find(pass_name);
    const char *needs[MO_NEEDS_DEPTH];
    size_t n = mo_needs_of(mo_job_options, option, needs);
    for (size_t i = 0; pass && i < n; i++)
        for (const char *p = needs[i]; *p;)
            if (clause_excludes(pass, &p))
                return false;
    for (const struct mo_need *need = pass ? pass->needs : NULL; need && need->options; need++)
        if (!need->when && has_word(need->options, option))
            return false;
    return pass != NULL;
}
