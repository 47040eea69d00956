/* select.c - --only, --skip and --set: which layers a pass is meant for; and the audit rows. */
#include "lib/passes/select.h"

#include <string.h>

static bool matches(const char *pattern, const char *node_name, const char *value_name)
{
    return (node_name && mo_glob(pattern, node_name)) || (value_name && mo_glob(pattern, value_name));
}

/* Every pattern is tried, so that each learns whether it ever matched. */
static bool any(const struct mo_list *list, bool *hits, const char *node_name, const char *value_name)
{
    bool found = false;
    for (size_t i = 0; i < list->n; i++)
        if (matches(list->items[i], node_name, value_name))
            found = hits[i] = true;
    return found;
}

bool mo_is_selected(struct mo_job *job, const char *node_name, const char *value_name)
{
    const struct mo_job_settings *s = job->settings;
    bool only = any(&s->only, job->hits->only, node_name, value_name);
    bool skip = any(&s->skip, job->hits->skip, node_name, value_name);
    return (only || !s->only.n) && !skip;
}

const char *mo_set_word(struct mo_job *job, const char *node_name, const char *value_name)
{
    const struct mo_list *list = &job->settings->set;
    const char *word = NULL;
    for (size_t i = 0; i < list->n; i++) {
        const char *equals = strrchr(list->items[i], '=');
        char *glob = equals ? mo_arena_bytes(job->scratch, list->items[i], (size_t)(equals - list->items[i])) : NULL;
        if (glob && matches(glob, node_name, value_name)) {
            job->hits->set[i] = true;
            word = equals + 1;
        }
    }
    return word;
}

enum mopt_status mo_hits_new(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_job_settings *s,
                             struct mo_pattern_hits **hits)
{
    *hits = mo_arena_new(arena, 1, sizeof **hits);
    bool *all = mo_arena_new(arena, s->only.n + s->skip.n + s->set.n + 1, 1);
    if (!*hits || !all)
        return mo_no_memory(ctx, sizeof **hits, "patterns");
    (*hits)->only = all;
    (*hits)->skip = all + s->only.n;
    (*hits)->set = all + s->only.n + s->skip.n;
    for (size_t i = 0; i < s->set.n; i++)
        if (!strchr(s->set.items[i], '='))
            return mo_fail(ctx, MOPT_USAGE, "option 'set': '%s' is not of the form GLOB=WORD", s->set.items[i]);
    return MOPT_OK;
}

/* The first pattern that never matched, or n. */
static size_t first_miss(const struct mo_list *list, const bool *hits)
{
    size_t i = 0;
    while (i < list->n && hits[i])
        i++;
    return i;
}

bool mo_hits_all(const struct mo_job_settings *s, const struct mo_pattern_hits *hits)
{
    return first_miss(&s->only, hits->only) == s->only.n && first_miss(&s->skip, hits->skip) == s->skip.n &&
           first_miss(&s->set, hits->set) == s->set.n;
}

static enum mopt_status all_hit(struct mopt_ctx *ctx, const char *option, const struct mo_list *list, const bool *hits)
{
    size_t miss = first_miss(list, hits);
    if (miss < list->n)
        return mo_fail(ctx, MOPT_USAGE, "option '%s': '%s' matches no layer", option, list->items[miss]);
    return MOPT_OK;
}

enum mopt_status mo_hits_check(struct mopt_ctx *ctx, const struct mo_job_settings *s,
                               const struct mo_pattern_hits *hits)
{
    MO_TRY(all_hit(ctx, "only", &s->only, hits->only));
    MO_TRY(all_hit(ctx, "skip", &s->skip, hits->skip));
    return all_hit(ctx, "set", &s->set, hits->set);
}

/* ---- audit ------------------------------------------------------------------------ */

enum mopt_status mo_audit(struct mo_job *job, const char *name, const char *action, const char *reason_or_null,
                          struct mopt_report **row)
{
    const struct mopt_report *there = mopt_report_at(job->report, "audit");
    struct mopt_report *list = there ? (struct mopt_report *)(uintptr_t)there : mo_report_list(job->report, "audit");
    struct mopt_report *item = mo_report_object(list, NULL);
    mo_report_set_text(item, "name", name);
    mo_report_set_text(item, "action", action);
    if (reason_or_null)
        mo_report_set_text(item, "reason", reason_or_null);
    if (row)
        *row = item;
    return MOPT_OK;
}

enum mopt_status mo_audit_skip(struct mo_job *job, const char *name, const char *reason)
{
    MO_TRY(mo_audit(job, name, "skipped", reason, NULL));
    if (job->settings->strict)
        return mo_fail(job->ctx, MOPT_UNSUPPORTED, "'%s' would be skipped: %s (--strict)", name, reason);
    return MOPT_OK;
}
