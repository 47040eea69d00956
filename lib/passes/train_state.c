/* train_state.c - a training run into a checkpoint and back, so that going on gives the bits of never having stopped.
 *
 * All randomness is a function of (seed, epoch, sample, step), so counters stand for generators. A checkpoint lies
 * between two optimizer steps; gradients need not be kept. What a file says is checked against the run that the
 * recipe makes: settings, model, sizes, and that counters are within their bounds. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/passes/train_private.h"

struct mo_saved_metrics mo_metrics_pack(const struct mo_metrics *m)
{
    return (struct mo_saved_metrics){m->n,       m->has_accuracy, m->has_values, m->accuracy, m->accuracy_low,
                                     m->accuracy_high, m->top5,   m->f1,         m->loss,     m->mae,
                                     m->rmse,    m->r2};
}

struct mo_metrics mo_metrics_unpack(const struct mo_saved_metrics *m)
{
    return (struct mo_metrics){.n = (size_t)m->n, .has_accuracy = m->has_accuracy != 0, .accuracy = m->accuracy,
                               .accuracy_low = m->low, .accuracy_high = m->high, .top5 = m->top5, .f1 = m->f1,
                               .loss = m->loss, .has_values = m->has_values != 0, .mae = m->mae, .rmse = m->rmse,
                               .r2 = m->r2};
}

uint64_t mo_trainer_hash_model(const struct mopt_model *model)
{
    const struct mo_graph *g = &model->graph;
    uint64_t h = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        h = mo_hash64(g->nodes[i].type, strlen(g->nodes[i].type), h);
    for (uint32_t i = 0; i < g->n_values; i++) {
        const struct mo_value *v = &g->values[i];
        if (!v->data || v->dtype == MO_STRING)
            continue;
        h = mo_hash64(v->name, strlen(v->name), h);
        h = mo_hash64(v->data, mo_value_bytes(v), h);
    }
    return h;
}

/* One line of a setting, appended by making the text anew: there are few. */
static char *add_line(struct mo_arena *arena, char *text, const struct mopt_option *row, const char *base)
{
    const void *field = base + row->offset;
    switch (row->kind) {
    case MOPT_OPT_BOOL:
        return mo_arena_printf(arena, "%s%s=%d\n", text, row->name, *(const bool *)field);
    case MOPT_OPT_INT:
        return mo_arena_printf(arena, "%s%s=%lld\n", text, row->name, (long long)*(const int64_t *)field);
    case MOPT_OPT_FLOAT:
        return mo_arena_printf(arena, "%s%s=%.17g\n", text, row->name, *(const double *)field);
    case MOPT_OPT_CHOICE:
        return mo_arena_printf(arena, "%s%s=%d\n", text, row->name, *(const int *)field);
    case MOPT_OPT_LIST: {
        const struct mo_list *list = field;
        for (size_t i = 0; i < list->n && text; i++)
            text = mo_arena_printf(arena, "%s%s=%s\n", text, row->name, list->items[i]);
        return text;
    }
    case MOPT_OPT_TEXT: /* names of files decide nothing */
    case MOPT_OPT_AMOUNT:
    case MOPT_OPT_GROUP:
        break;
    }
    return text;
}

/* Settings that a resumed run may have otherwise. */
static bool is_beside(const char *name)
{
    static const char *const names[] = {"checkpoint-every", "shards", "bucket", "wire"};
    bool is_one = false;
    for (size_t i = 0; i < MO_COUNT(names); i++)
        is_one |= !strcmp(names[i], name);
    return is_one;
}

char *mo_trainer_settings_text(struct mo_trainer *t, struct mo_arena *arena)
{
    const struct mo_data_settings *d = &t->job->settings->data;
    char *text = mo_arena_printf(arena, "phase=%s\nseed=%lld\ndata=%s\nsamples=%llu\nbatch-run=%zu\nthen=%zu\n",
                                 t->hooks.phase, (long long)t->job->settings->seed, d->data ? d->data : "",
                                 (unsigned long long)t->n_samples, t->batch, t->accumulate);
    const char *transform = mo_dataset_transform(t->job->dataset, true);
    if (text)
        text = mo_arena_printf(arena, "%stransform=%s\n", text, transform ? transform : "");
    for (const struct mopt_option *row = mo_train_options; text && row->name; row++)
        if (!is_beside(row->name))
            text = add_line(arena, text, row, (const char *)&t->s);
    return text;
}

/* ---- saving ---- */

/* A buffer of the device on the host: itself, or a copy in the arena. */
static const float *on_host(struct mo_trainer *t, struct mo_arena *arena, const float *buffer, size_t n)
{
    if (t->run->be->is_host)
        return buffer;
    float *copy = mo_arena_new(arena, n + 1, sizeof *copy);
    if (copy)
        t->run->be->download(t->run->dev, copy, buffer, n * sizeof *copy);
    return copy;
}

static void note_counters(struct mo_trainer *t)
{
    t->at.run_step = t->run->step;
    t->at.optim_step = mo_optim_steps(t->optim);
}

/* A checkpoint of broken weights would be worth nothing, and would replace one that is. */
static bool is_finite(struct mo_trainer *t)
{
    double sum = 0;
    t->run->be->sum_squares(t->run->dev, t->run->n_weights, t->run->weights, &sum);
    return isfinite(sum);
}

enum { MAX_PARTS = 16 };

static size_t tensor_parts(struct mo_trainer *t, struct mo_arena *arena, struct mo_part_bytes *parts)
{
    size_t n = 0, bytes = t->run->n_weights * sizeof(float);
    parts[n++] = (struct mo_part_bytes){"weights", on_host(t, arena, t->run->weights, t->run->n_weights), bytes};
    const char *names[MO_OPTIM_MAX_BUFFERS];
    float *buffers[MO_OPTIM_MAX_BUFFERS];
    size_t n_elems[MO_OPTIM_MAX_BUFFERS];
    int n_buffers = mo_optim_buffers(t->optim, names, buffers, n_elems);
    for (int i = 0; i < n_buffers; i++)
        parts[n++] = (struct mo_part_bytes){names[i], on_host(t, arena, buffers[i], n_elems[i]),
                                            n_elems[i] * sizeof(float)};
    if (t->at.has_best && t->best)
        parts[n++] = (struct mo_part_bytes){"best", t->best, bytes};
    return n;
}

static enum mopt_status save(struct mo_trainer *t, const char *path, struct mo_arena *arena)
{
    struct mo_part_bytes parts[MAX_PARTS];
    note_counters(t);
    char *settings = mo_trainer_settings_text(t, arena);
    if (!settings)
        return mo_no_memory(t->ctx, 0, "a checkpoint");
    size_t n = tensor_parts(t, arena, parts);
    const char *recipe = t->job->recipe ? t->job->recipe : "", *name = t->job->name ? t->job->name : "";
    parts[n++] = (struct mo_part_bytes){"position", &t->at, sizeof t->at};
    parts[n++] = (struct mo_part_bytes){"epochs", t->rows, t->at.n_rows * sizeof *t->rows};
    parts[n++] = (struct mo_part_bytes){"settings", settings, strlen(settings)};
    parts[n++] = (struct mo_part_bytes){"model-hash", &t->model_hash, sizeof t->model_hash};
    parts[n++] = (struct mo_part_bytes){"model", name, strlen(name)};
    parts[n++] = (struct mo_part_bytes){"recipe", recipe, strlen(recipe)};
    parts[n++] = (struct mo_part_bytes){"round", &t->hooks.round, sizeof t->hooks.round};
    uint64_t step = t->job->step, n_shards = t->shards ? t->shards->n_shards : 1;
    parts[n++] = (struct mo_part_bytes){"shards", &n_shards, sizeof n_shards};
    parts[n++] = (struct mo_part_bytes){"step", &step, sizeof step};
    if (t->hooks.save) {
        void *bytes = NULL;
        size_t n_bytes = 0;
        MO_TRY(t->hooks.save(t->hooks.user, arena, &bytes, &n_bytes));
        parts[n++] = (struct mo_part_bytes){"hooks", bytes, n_bytes};
    }
    for (size_t i = 0; i < n; i++)
        if (!parts[i].bytes && parts[i].n_bytes)
            return mo_no_memory(t->ctx, parts[i].n_bytes, "a checkpoint");
    return mo_checkpoint_write(t->ctx, path, parts, n);
}

enum mopt_status mo_trainer_save(struct mo_trainer *t, const char *path)
{
    if (t->ctx->rank) { /* all ranks have the same: rank 0 writes it */
        t->last_checkpoint_s = mo_now_s();
        return MOPT_OK;
    }
    if (!is_finite(t)) {
        mo_warn(t->ctx, t->hooks.phase, "step %llu: weights are not finite; the checkpoint stays as it was",
                (unsigned long long)t->at.step);
        return MOPT_OK;
    }
    struct mo_arena arena = {0};
    enum mopt_status status = save(t, path, &arena);
    mo_arena_release(&arena);
    t->last_checkpoint_s = mo_now_s();
    if (!status)
        snprintf(t->ctx->checkpoint, sizeof t->ctx->checkpoint, "%s", path);
    return status;
}

/* ---- loading ---- */

/* The first line in which two settings texts differ, as "key=value" each. */
static void first_difference(const char *a, const char *b, int *length_a, int *length_b, const char **at_a,
                             const char **at_b)
{
    for (;;) {
        size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");
        if (la != lb || memcmp(a, b, la) || !a[la] || !b[lb]) {
            *at_a = a;
            *at_b = b;
            *length_a = (int)la;
            *length_b = (int)lb;
            return;
        }
        a += la + 1;
        b += lb + 1;
    }
}

static enum mopt_status check_settings(struct mo_trainer *t, const struct mo_checkpoint *c, const char *path,
                                       struct mo_arena *arena)
{
    uint64_t n = 0;
    const char *saved = mo_checkpoint_part(c, "settings", &n);
    char *theirs = saved ? mo_arena_bytes(arena, saved, (size_t)n) : NULL, *ours = mo_trainer_settings_text(t, arena);
    if (!ours || (saved && !theirs))
        return mo_no_memory(t->ctx, n, "a checkpoint");
    if (!theirs)
        return mo_fail(t->ctx, MOPT_DATA, "checkpoint '%s' is not of a training run", path);
    if (strcmp(theirs, ours)) {
        const char *a, *b;
        int la, lb;
        first_difference(theirs, ours, &la, &lb, &a, &b);
        return mo_fail(t->ctx, MOPT_USAGE,
                       "checkpoint '%s' was made with %.*s, this run has %.*s: give the same settings", path, la, a, lb, b);
    }
    const void *hash;
    MO_TRY(mo_checkpoint_need(t->ctx, c, "model-hash", sizeof t->model_hash, &hash));
    if (memcmp(hash, &t->model_hash, sizeof t->model_hash))
        return mo_fail(t->ctx, MOPT_DATA, "checkpoint '%s' belongs to another model than '%s'", path,
                       t->job->name ? t->job->name : "this one");
    return MOPT_OK;
}

/* Counters that a loop may trust. */
static bool is_possible(const struct mo_trainer *t, const struct mo_train_position *p)
{
    uint64_t n_batches = p->epoch + 1 == t->n_epochs ? t->n_batches_last : t->n_batches;
    bool at_end = p->epoch == t->n_epochs && p->batch == 0;
    return p->step <= t->n_steps && (at_end || (p->epoch < t->n_epochs && p->batch <= n_batches)) &&
           p->n_rows <= t->n_epochs && p->n_rows <= p->epoch + 1 && p->n_correct <= p->n_epoch &&
           p->loss.n <= t->n_batches && p->plateau_drops >= 0 && p->plateau_drops <= (int64_t)t->n_epochs &&
           p->plateau_bad >= 0 && p->bad_epochs >= 0 && p->seconds_total >= 0;
}

static enum mopt_status load_tensor(struct mo_trainer *t, const struct mo_checkpoint *c, const char *name, float *to,
                                    size_t n_elems, bool to_device)
{
    const void *bytes;
    MO_TRY(mo_checkpoint_need(t->ctx, c, name, n_elems * sizeof *to, &bytes));
    if (to_device)
        t->run->be->upload(t->run->dev, to, bytes, n_elems * sizeof *to);
    else
        memcpy(to, bytes, n_elems * sizeof *to);
    return MOPT_OK;
}

static enum mopt_status load_tensors(struct mo_trainer *t, const struct mo_checkpoint *c)
{
    MO_TRY(load_tensor(t, c, "weights", t->run->weights, t->run->n_weights, true));
    const char *names[MO_OPTIM_MAX_BUFFERS];
    float *buffers[MO_OPTIM_MAX_BUFFERS];
    size_t n_elems[MO_OPTIM_MAX_BUFFERS];
    int n = mo_optim_buffers(t->optim, names, buffers, n_elems);
    for (int i = 0; i < n; i++)
        MO_TRY(load_tensor(t, c, names[i], buffers[i], n_elems[i], true));
    if (t->at.has_best && t->best)
        MO_TRY(load_tensor(t, c, "best", t->best, t->run->n_weights, false));
    return MOPT_OK;
}

/* Whether the checkpoint is of this round; of a later one: this one runs without a checkpoint; of an earlier one: this
 * one starts at its beginning. */
static enum mopt_status find_round(struct mo_trainer *t, const struct mo_checkpoint *c, bool *is_mine)
{
    const void *bytes;
    uint64_t round;
    MO_TRY(mo_checkpoint_need(t->ctx, c, "round", sizeof round, &bytes));
    memcpy(&round, bytes, sizeof round);
    *is_mine = round == t->hooks.round;
    if (round > t->hooks.round)
        t->s.checkpoint = NULL;
    if (!*is_mine)
        mo_log(t->ctx, t->hooks.phase, "the checkpoint is of round %llu; round %llu starts at its beginning",
               (unsigned long long)round + 1, (unsigned long long)t->hooks.round + 1);
    return MOPT_OK;
}

static enum mopt_status load(struct mo_trainer *t, const struct mo_checkpoint *c, const char *path,
                             struct mo_arena *arena)
{
    bool is_mine;
    MO_TRY(find_round(t, c, &is_mine));
    if (!is_mine)
        return MOPT_OK;
    MO_TRY(check_settings(t, c, path, arena));
    const void *bytes;
    struct mo_train_position p;
    MO_TRY(mo_checkpoint_need(t->ctx, c, "position", sizeof p, &bytes));
    memcpy(&p, bytes, sizeof p);
    if (!is_possible(t, &p))
        return mo_fail(t->ctx, MOPT_DATA, "checkpoint '%s' stands at an impossible place (step %llu of %llu)", path,
                       (unsigned long long)p.step, (unsigned long long)t->n_steps);
    MO_TRY(mo_checkpoint_need(t->ctx, c, "epochs", p.n_rows * sizeof *t->rows, &bytes));
    memcpy(t->rows, bytes, p.n_rows * sizeof *t->rows);
    t->at = p;
    MO_TRY(load_tensors(t, c));
    t->run->step = p.run_step;
    mo_optim_set_steps(t->optim, p.optim_step);
    if (t->hooks.load) {
        uint64_t n = 0;
        const void *own = mo_checkpoint_part(c, "hooks", &n);
        if (!own)
            return mo_fail(t->ctx, MOPT_DATA, "checkpoint '%s' has no part 'hooks'", path);
        MO_TRY(t->hooks.load(t->hooks.user, own, (size_t)n));
    }
    return MOPT_OK;
}

enum mopt_status mo_trainer_load(struct mo_trainer *t, const char *path)
{
    struct mo_checkpoint *c;
    MO_TRY(mo_checkpoint_read(t->ctx, path, &c));
    struct mo_arena arena = {0};
    enum mopt_status status = load(t, c, path, &arena);
    mo_arena_release(&arena);
    mo_checkpoint_free(c);
    return status;
}
