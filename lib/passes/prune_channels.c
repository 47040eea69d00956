/* prune_channels.c - structured pruning: whole channels leave the model, with
 * everything that hangs on them.
 *
 * In `steps` rounds: solve which channels there are (couple_solve.h), score them,
 * choose the least until the round's share of the goal is met, cut, estimate
 * BatchNormalization anew, retrain. What a choice costs is not estimated: a
 * copy of the graph is cut, inferred and counted, and the level is bisected. */
#include "lib/passes/prune.h"
#include "lib/graph/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BN_BATCH = 128, BN_BATCHES = 20 };

/* Constants that nodes compute from constants are folded up to this size, so that there are weights to cut. */
#define FOLD_CAP_BYTES ((size_t)1 << 30)

struct ranked { double score; uint32_t class; };

/* A group as the first round found it, for the audit. */
struct origin {
    mo_value_id weight;         /* that its first layer makes it with: ids of values survive a cut */
    int axis;
    const char *name, *why;
    uint32_t n_before, n_after;
    bool is_taken;              /* while groups of a later round are matched with it */
};

struct cutting {
    struct mo_job *job;
    const struct mo_prune_settings *settings;
    struct mo_channels *ch;
    double *score;                  /* by class */
    struct ranked *order;           /* free classes, least score first */
    struct ranked *in_group;        /* by class number, sorted within each group */
    uint32_t n_free;
    uint32_t *n_cut;                /* by group: how many of its least go */
    uint32_t *origin_of;            /* by group: into origins, MO_NONE */
    bool *is_cut;                   /* by class */
    struct origin *origins; uint32_t n_origins;
    struct mo_counts counts;        /* of the model now; bytes are those of the file */
    uint64_t other_bytes;           /* of the file besides constants */
};

/* Fewer of a unit, or (without a target) fewer channels. */
struct goal { bool is_target; struct mo_prune_target target; double start, end; };

/* ---- counting ------------------------------------------------------------------------- */

/* Parameters, operations and bytes by shapes alone: large constants of a virtual cut have only those. */
static void count_shapes(const struct mo_graph *g, struct mo_counts *counts, mo_value_id *params)
{
    *counts = (struct mo_counts){ 0 };
    uint32_t n = mo_graph_params(g, params, g->n_values);
    for (uint32_t i = 0; i < n; i++)
        counts->parameters += mo_value_elems(&g->values[params[i]]);
    for (mo_value_id v = 0; v < g->n_values; v++)
        if (g->values[v].data && g->values[v].n_uses)
            counts->bytes += mo_value_bytes(&g->values[v]);
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *node = &g->nodes[i];
        if (node->is_dead)
            continue;
        int64_t macs = mo_node_macs(g, node);
        if (macs >= 0)
            counts->macs += macs;
    }
}

static double measure_of(const struct mo_counts *counts, enum mo_prune_unit unit)
{
    return unit == MO_UNIT_MACS ? (double)counts->macs
           : unit == MO_UNIT_BYTES ? (double)counts->bytes : (double)counts->parameters;
}

static enum mopt_status count_cut(struct cutting *c, struct mo_counts *counts)
{
    struct mopt_ctx *ctx = c->job->ctx;
    struct mo_arena arena = { 0 };
    struct mo_graph copy = { .arena = &arena };
    enum mopt_status status = mo_graph_copy(ctx, &copy, &c->job->model->graph, false);
    if (!status)
        status = mo_channels_cut(ctx, c->ch, c->is_cut, &copy, MO_FREE_DIM, MO_CUT_SHAPES);
    mo_value_id *params = status ? NULL : mo_arena_new(&arena, copy.n_values + 1, sizeof(*params));
    if (!status && !params)
        status = mo_no_memory(ctx, copy.n_values * sizeof(*params), "a count");
    if (!status)
        count_shapes(&copy, counts, params);
    counts->bytes += c->other_bytes;
    mo_graph_release(&copy);
    mo_arena_release(&arena);
    return status;
}

static enum mopt_status count_now(struct cutting *c)
{
    uint64_t file_bytes = 0;
    memset(c->is_cut, 0, c->ch->n_classes * sizeof(*c->is_cut));
    MO_TRY(c->job->ctx->io->model_bytes(c->job->ctx, c->job->model, &file_bytes));
    c->other_bytes = 0;
    MO_TRY(count_cut(c, &c->counts));
    c->other_bytes = file_bytes - MO_MIN(file_bytes, c->counts.bytes);
    c->counts.bytes += c->other_bytes;
    return MOPT_OK;
}

/* ---- choosing -------------------------------------------------------------------------- */

/* Channels kept are a multiple of this, so that vector units are full. */
static uint32_t round_of(const struct cutting *c, uint32_t n)
{
    if (c->settings->round)
        return (uint32_t)c->settings->round;
    return n >= 32 ? 8 : 1;
}

/* How many channels the group had at first. */
static uint32_t n_at_first(const struct cutting *c, const struct mo_channel_group *group)
{
    uint32_t origin = c->origin_of[group - c->ch->groups];
    return origin == MO_NONE ? group->n_classes : c->origins[origin].n_before;
}

static uint32_t most_cut(const struct cutting *c, const struct mo_channel_group *group)
{
    double least = ceil(c->settings->min_keep * n_at_first(c, group));
    uint32_t keep = MO_MAX(1u, (uint32_t)least);
    return group->wall || keep >= group->n_classes ? 0 : group->n_classes - keep;
}

/* The nearest number of channels to keep that is a multiple; all, where the group is smaller than one. */
static uint32_t rounded_cut(const struct cutting *c, const struct mo_channel_group *group, uint32_t n_cut)
{
    uint32_t n = group->n_classes, r = round_of(c, n_at_first(c, group));
    if (!n_cut || r <= 1)
        return n_cut;
    uint32_t keep = (n - n_cut + r / 2) / r * r;
    if (n - MO_MAX(keep, r) > most_cut(c, group))
        keep += r;
    keep = MO_MAX(keep, r);
    return keep >= n ? 0 : n - keep;
}

/* n_cut, rounded, into is_cut. */
static void settle_choice(struct cutting *c)
{
    memset(c->is_cut, 0, c->ch->n_classes * sizeof(*c->is_cut));
    for (uint32_t g = 0; g < c->ch->n_groups; g++) {
        const struct mo_channel_group *group = &c->ch->groups[g];
        c->n_cut[g] = rounded_cut(c, group, MO_MIN(c->n_cut[g], most_cut(c, group)));
        for (uint32_t k = 0; k < c->n_cut[g]; k++)
            c->is_cut[c->in_group[group->first + k].class] = true;
    }
}

/* The same share of what each group had at first. */
static void choose_share(struct cutting *c, double share)
{
    for (uint32_t g = 0; g < c->ch->n_groups; g++) {
        const struct mo_channel_group *group = &c->ch->groups[g];
        uint32_t keep = n_at_first(c, group) - (uint32_t)llround(share * n_at_first(c, group));
        c->n_cut[g] = keep < group->n_classes ? group->n_classes - keep : 0;
    }
    settle_choice(c);
}

/* The least `level` of all free classes; MO_SCOPE_LAYER: that share of each group. */
static void choose(struct cutting *c, uint32_t level)
{
    const struct mo_channels *ch = c->ch;
    memset(c->n_cut, 0, ch->n_groups * sizeof(*c->n_cut));
    for (uint32_t i = 0; i < level && c->settings->scope == MO_SCOPE_GLOBAL; i++) {
        uint32_t g = ch->classes[c->order[i].class].group;
        c->n_cut[g] += c->n_cut[g] < most_cut(c, &ch->groups[g]);
    }
    for (uint32_t g = 0; g < ch->n_groups && c->settings->scope == MO_SCOPE_LAYER && c->n_free; g++)
        c->n_cut[g] = (uint32_t)llround((double)level / c->n_free * ch->groups[g].n_classes);
    settle_choice(c);
}

static uint32_t n_chosen(const struct cutting *c)
{
    uint32_t n = 0;
    for (uint32_t g = 0; g < c->ch->n_groups; g++)
        n += c->n_cut[g];
    return n;
}

/* The lowest level whose cut is within the goal. */
static enum mopt_status choose_for(struct cutting *c, enum mo_prune_unit unit, double goal, const char *text)
{
    struct mo_counts counts;
    uint32_t low = 0, high = c->n_free;
    if (measure_of(&c->counts, unit) <= goal) {
        choose(c, 0);
        return MOPT_OK;
    }
    choose(c, high);
    MO_TRY(count_cut(c, &counts));
    if (measure_of(&counts, unit) > goal)
        return mo_fail(c->job->ctx, MOPT_FAILED, "target '%s' cannot be reached: %.0f are left when every channel that "
                       "may go is gone, the goal is %.0f; see the report's audit for what may not", text,
                       measure_of(&counts, unit), goal);
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        MO_TRY(mo_stopped(c->job->ctx));
        choose(c, middle);
        MO_TRY(count_cut(c, &counts));
        if (measure_of(&counts, unit) > goal)
            low = middle;
        else
            high = middle;
    }
    choose(c, high);
    return MOPT_OK;
}

/* ---- one round ------------------------------------------------------------------------------ */

static int by_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->class < y->class ? -1 : x->class > y->class;
}

/* Taylor scores are changes of the loss: what counts is how much of the goal each buys, so they are divided by what
 * the goal gains by one channel of the group. Scores relative to their layer have the price in them already. */
static enum mopt_status price(struct cutting *c, enum mo_prune_unit unit)
{
    for (uint32_t i = 0; i < c->ch->n_groups; i++) {
        const struct mo_channel_group *group = &c->ch->groups[i];
        struct mo_counts counts;
        if (group->wall)
            continue;
        memset(c->is_cut, 0, c->ch->n_classes * sizeof(*c->is_cut));
        c->is_cut[group->first] = true;
        MO_TRY(count_cut(c, &counts));
        double gain = measure_of(&c->counts, unit) - measure_of(&counts, unit);
        for (uint32_t k = 0; k < group->n_classes; k++)
            c->score[group->first + k] /= fmax(gain, 1);
    }
    return MOPT_OK;
}

static void rank(struct cutting *c)
{
    const struct mo_channels *ch = c->ch;
    c->n_free = 0;
    for (uint32_t g = 0; g < ch->n_groups; g++) {
        const struct mo_channel_group *group = &ch->groups[g];
        for (uint32_t k = group->first; k < group->first + group->n_classes; k++) {
            c->in_group[k] = (struct ranked){ c->score[k], k };
            if (!group->wall)
                c->order[c->n_free++] = c->in_group[k];
        }
        qsort(c->in_group + group->first, group->n_classes, sizeof(*c->in_group), by_score);
    }
    qsort(c->order, c->n_free, sizeof(*c->order), by_score);
}

/* Groups that the user left out, or that could not be measured, become walls. */
static void wall_unselected(struct cutting *c, mo_node_id first_layer)
{
    const struct mo_graph *g = &c->job->model->graph;
    for (uint32_t i = 0; i < c->ch->n_groups; i++) {
        struct mo_channel_group *group = &c->ch->groups[i];
        for (uint32_t k = 0; k < group->n_weights; k++) {
            const struct mo_couple_weight_row *row = &c->ch->weights[group->weights[k]];
            if (row->role != MO_ROLE_OUT)
                continue;
            bool is_selected = mo_is_selected(c->job, g->nodes[row->node].name, g->values[row->value].name);
            if (!is_selected && !group->wall)
                group->wall = "not selected";
            if (c->settings->keep_first && row->node == first_layer && !group->wall)
                group->wall = "it is the first layer (--keep-first)";
        }
        if (group->wall && !group->why)
            group->why = mo_arena_text(&c->ch->arena, group->wall);
    }
}

static void wall_unmeasured(struct cutting *c)
{
    for (uint32_t i = 0; i < c->ch->n_groups; i++) {
        struct mo_channel_group *group = &c->ch->groups[i];
        if (group->wall || !isnan(c->score[group->first]))
            continue;
        group->wall = "its score cannot be measured on this data";
        group->why = mo_arena_text(&c->ch->arena, group->wall);
    }
}

static mo_node_id first_layer(const struct mo_channels *ch)
{
    mo_node_id first = MO_NONE;
    for (uint32_t w = 0; w < ch->n_weights; w++)
        if (ch->weights[w].role == MO_ROLE_OUT)
            first = MO_MIN(first, ch->weights[w].node);
    return first;
}

static enum mopt_status solve(struct cutting *c)
{
    struct mopt_ctx *ctx = c->job->ctx;
    struct mo_graph *g = &c->job->model->graph;
    mo_channels_free(c->ch);
    c->ch = NULL;
    MO_TRY(mo_infer_sample(ctx, g, MO_FREE_DIM));
    MO_TRY(mo_channels_new(ctx, g, &c->ch));
    MO_TRY(mo_channels_verify(ctx, c->ch, g, MO_FREE_DIM));
    size_t n = c->ch->n_classes + 1;
    c->score = mo_arena_new(&c->ch->arena, n, sizeof(*c->score));
    c->order = mo_arena_new(&c->ch->arena, n, sizeof(*c->order));
    c->in_group = mo_arena_new(&c->ch->arena, n, sizeof(*c->in_group));
    c->is_cut = mo_arena_new(&c->ch->arena, n, sizeof(*c->is_cut));
    c->n_cut = mo_arena_new(&c->ch->arena, c->ch->n_groups + 1, sizeof(*c->n_cut));
    c->origin_of = mo_arena_new(&c->ch->arena, c->ch->n_groups + 1, sizeof(*c->origin_of));
    if (!c->score || !c->order || !c->in_group || !c->is_cut || !c->n_cut || !c->origin_of)
        return mo_no_memory(ctx, n * 40, "channels");
    wall_unselected(c, first_layer(c->ch));
    return count_now(c);
}

static enum mopt_status score_and_rank(struct cutting *c, const struct goal *goal)
{
    MO_TRY(mo_infer(c->job->ctx, &c->job->model->graph, NULL, 0));
    MO_TRY(mo_prune_scores(c->job, c->ch, c->settings, c->score));
    wall_unmeasured(c);
    MO_TRY(mo_infer_sample(c->job->ctx, &c->job->model->graph, MO_FREE_DIM));
    if (goal->is_target && c->settings->score == MO_SCORE_TAYLOR)
        MO_TRY(price(c, goal->target.unit));
    rank(c);
    return MOPT_OK;
}

static enum mopt_status cut_chosen(struct cutting *c)
{
    struct mo_graph *g = &c->job->model->graph;
    if (!n_chosen(c))
        return mo_infer(c->job->ctx, g, NULL, 0);
    MO_TRY(mo_channels_cut(c->job->ctx, c->ch, c->is_cut, g, MO_FREE_DIM, MO_CUT_DATA));
    MO_TRY(mo_infer(c->job->ctx, g, NULL, 0));
    MO_TRY(mo_graph_index(c->job->ctx, g));
    mo_graph_drop_unused(g);
    return MOPT_OK;
}

/* ---- the audit -------------------------------------------------------------------------------- */

static const struct mo_couple_weight_row *maker(const struct mo_channels *ch, const struct mo_channel_group *group)
{
    for (uint32_t k = 0; k < group->n_weights; k++) {
        const struct mo_couple_weight_row *row = &ch->weights[group->weights[k]];
        if (row->role == MO_ROLE_OUT && row->node == group->node)
            return row;
    }
    return &ch->weights[group->weights[0]];
}

static enum mopt_status note_origins(struct cutting *c)
{
    const struct mo_channels *ch = c->ch;
    c->origins = mo_arena_new(c->job->scratch, ch->n_groups + 1, sizeof(*c->origins));
    if (!c->origins)
        return mo_no_memory(c->job->ctx, ch->n_groups * sizeof(*c->origins), "an audit");
    for (uint32_t i = 0; i < ch->n_groups; i++) {
        const struct mo_channel_group *group = &ch->groups[i];
        const struct mo_couple_weight_row *row = maker(ch, group);
        c->origins[c->n_origins++] = (struct origin){
            .weight = row->value, .axis = ch->axes[row->axis].axis, .n_before = group->n_classes,
            .n_after = group->n_classes, .name = mo_arena_text(c->job->scratch, group->name),
            .why = mo_arena_text(c->job->scratch, group->why)
        };
    }
    return MOPT_OK;
}

/* Which group of the first round each group is. Several may share one weight (a grouped or concatenated layer):
 * they come in the same order. */
static void match_origins(struct cutting *c)
{
    for (uint32_t k = 0; k < c->n_origins; k++)
        c->origins[k].is_taken = false;
    for (uint32_t i = 0; i < c->ch->n_groups; i++) {
        const struct mo_couple_weight_row *row = maker(c->ch, &c->ch->groups[i]);
        c->origin_of[i] = MO_NONE;
        for (uint32_t k = 0; k < c->n_origins && c->origin_of[i] == MO_NONE; k++) {
            struct origin *o = &c->origins[k];
            if (o->is_taken || o->weight != row->value || o->axis != c->ch->axes[row->axis].axis ||
                o->n_after != c->ch->groups[i].n_classes)
                continue;
            o->is_taken = true;
            c->origin_of[i] = k;
        }
    }
}

/* What the choice about to be cut leaves of each. */
static void note_cut(struct cutting *c)
{
    for (uint32_t i = 0; i < c->ch->n_groups; i++)
        if (c->origin_of[i] != MO_NONE)
            c->origins[c->origin_of[i]].n_after -= c->n_cut[i];
}

static enum mopt_status audit(struct cutting *c, const char *action)
{
    uint32_t n_before = 0, n_after = 0;
    for (uint32_t k = 0; k < c->n_origins; k++) {
        const struct origin *o = &c->origins[k];
        struct mopt_report *row = NULL;
        n_before += o->n_before;
        n_after += o->n_after;
        if (o->why && strcmp(o->why, "not selected")) {
            MO_TRY(mo_audit_skip(c->job, o->name, o->why));
            continue;
        }
        MO_TRY(mo_audit(c->job, o->name, o->n_after < o->n_before ? action : "kept", o->why, &row));
        mo_report_set_int(row, "channels_before", o->n_before);
        mo_report_set_int(row, "channels_after", o->n_after);
    }
    struct mopt_report *all = mo_report_object(c->job->report, "prune");
    mo_report_set_text(all, "kind", "channels");
    mo_report_set_int(all, "channels_before", n_before);
    mo_report_set_int(all, "channels_after", n_after);
    mo_report_set_int(all, "groups", c->n_origins);
    return MOPT_OK;
}

/* ---- the rounds --------------------------------------------------------------------------------- */

/* Round i of n of the way from `start` to `goal`: equal ratios, so that each round takes an equal share of what
 * is left. */
static double goal_of_round(double start, double goal, int64_t i, int64_t n)
{
    return start <= goal || start <= 0 ? goal : start * pow(goal / start, (double)(i + 1) / (double)n);
}

/* `between` is the share of the epochs that the rounds before the last have together. */
static enum mopt_status retrain(struct cutting *c, int64_t i, int64_t n)
{
    struct mo_job *job = c->job;
    if (!job->dataset)
        return MOPT_OK;
    MO_TRY(mo_reestimate_bn(job, job->model, BN_BATCH, BN_BATCHES));
    struct mo_train_settings train = c->settings->train;
    if (train.epochs <= 0)
        return MOPT_OK;
    double between = n > 1 ? c->settings->between : 0;
    train.epochs *= i + 1 < n ? between / (double)(n - 1) : 1 - between;
    if (train.epochs <= 0)
        return MOPT_OK;
    mo_prune_rates(&train);
    struct mo_train_hooks hooks = { .phase = "retrain", .trained = true, .round = (uint64_t)i };
    struct mo_train_result result;
    struct mopt_report *report = job->report;
    struct mopt_report *rounds = i ? (struct mopt_report *)(uintptr_t)mopt_report_at(report, "rounds")
                                   : mo_report_list(report, "rounds");
    job->report = mo_report_object(rounds, NULL);
    mo_report_set_int(job->report, "parameters", c->counts.parameters);
    mo_report_set_int(job->report, "macs", c->counts.macs);
    enum mopt_status status = mo_train(job, job->model, &train, &hooks, &result);
    job->report = report;
    return status;
}

static enum mopt_status settle_goal(struct cutting *c, struct goal *goal)
{
    const struct mo_prune_settings *s = c->settings;
    uint32_t n_free = 0;
    for (uint32_t i = 0; i < c->ch->n_groups; i++)
        n_free += c->ch->groups[i].wall ? 0 : c->ch->groups[i].n_classes;
    if (!n_free)
        return mo_fail(c->job->ctx, MOPT_UNSUPPORTED, "the model has no channel that could be removed; the report's audit "
                       "says why");
    if (s->target) {
        goal->is_target = true;
        MO_TRY(mo_prune_target_parse(c->job->ctx, s->target, &goal->target));
        goal->start = measure_of(&c->counts, goal->target.unit);
        goal->end = goal->target.is_ratio ? goal->target.value * goal->start : goal->target.value;
        return MOPT_OK;
    }
    goal->start = n_free;
    double n_cut = s->amount.kind == MO_AMOUNT_FRACTION ? s->amount.value * n_free : s->amount.value;
    if (n_cut > n_free)
        return mo_fail(c->job->ctx, MOPT_USAGE, "option 'amount': %.0f is more than the %u channels that may be removed",
                       n_cut, n_free);
    goal->end = n_free - n_cut;
    return MOPT_OK;
}

static enum mopt_status choose_round(struct cutting *c, const struct goal *goal, int64_t i, int64_t n)
{
    if (goal->is_target)
        return choose_for(c, goal->target.unit, goal_of_round(goal->start, goal->end, i, n), c->settings->target);
    double keep = goal->start + (goal->end - goal->start) * (double)(i + 1) / (double)n;
    if (c->settings->scope == MO_SCOPE_LAYER)
        choose_share(c, 1 - keep / goal->start);
    else
        choose(c, keep < c->n_free ? c->n_free - (uint32_t)llround(keep) : 0);
    return MOPT_OK;
}

static enum mopt_status first_round(struct cutting *c, struct goal *goal)
{
    MO_TRY(note_origins(c));
    enum mopt_status status = settle_goal(c, goal);
    if (status)
        MO_TRY(audit(c, "cut"));
    return status;
}

static enum mopt_status run_rounds(struct cutting *c)
{
    int64_t n_rounds = c->settings->steps;
    bool is_dry = c->job->settings->dry_run;
    struct goal goal = { 0 };
    struct mo_counts counts;
    for (int64_t i = 0; i < n_rounds; i++) {
        MO_TRY(mo_stopped(c->job->ctx));
        MO_TRY(solve(c));
        if (!i)
            MO_TRY(first_round(c, &goal));
        match_origins(c);
        MO_TRY(score_and_rank(c, &goal));
        MO_TRY(choose_round(c, &goal, i, n_rounds));
        MO_TRY(count_cut(c, &counts));
        note_cut(c);
        MO_TRY(cut_chosen(c));
        c->counts = counts;
        if (!is_dry)
            MO_TRY(retrain(c, i, n_rounds));
    }
    return audit(c, is_dry ? "would be cut" : "cut");
}

/* Made from constants, but by an operator that nothing can be cut through (ConstantOfShape): not a Reshape of a weight. */
static bool is_made_up(const struct mo_graph *g, const struct mo_node *n)
{
    bool has_float = false;
    for (uint32_t k = 0; k < n->n_in; k++) {
        const struct mo_value *v = mo_in(g, n, k);
        if (v && !v->data)
            return false;
        has_float = has_float || (v && mo_dtype_is_float(v->dtype));
    }
    return !has_float || !n->op || !n->op->couple;
}

/* Whether some weighted node takes a weight that is there only once nodes have computed it. */
static bool has_computed_weights(const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        for (uint32_t k = 0; n->op && k < n->n_in && k < 32; k++) {
            const struct mo_value *v = n->op->params_in >> k & 1 ? mo_in(g, n, k) : NULL;
            if (v && !v->data && v->producer != MO_NONE && is_made_up(g, &g->nodes[v->producer]))
                return true;
        }
    }
    return false;
}

enum mopt_status mo_prune_channels(struct mo_job *job, const struct mo_prune_settings *settings)
{
    struct cutting c = { .job = job, .settings = settings };
    if (has_computed_weights(&job->model->graph)) {
        mo_log(job->ctx, "prune", "constants are folded first: some weights are computed by nodes");
        MO_TRY(mo_fold_constants(job->ctx, &job->model->graph, FOLD_CAP_BYTES, NULL));
        mo_graph_sweep(&job->model->graph);
    }
    enum mopt_status status = run_rounds(&c);
    mo_channels_free(c.ch);
    return status;
}
