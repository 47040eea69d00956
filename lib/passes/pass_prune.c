/* pass_prune.c - prune: weights become zero, or whole channels leave the model.
 *
 * See docs/PRUNING.md, prune_weights.c and prune_channels.c. */
#include "lib/passes/prune.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AT(field) offsetof(struct mo_prune_settings, field)

static const struct mopt_option options[] = {
    { .name = "amount", .kind = MOPT_OPT_AMOUNT, .offset = AT(amount), .word = "AMOUNT",
      .needs = "!sensitivity",
      .help = "weights (or channels) to remove: 0.9 or 90% of them, or a count" },
    { .name = "target", .kind = MOPT_OPT_TEXT, .offset = AT(target), .word = "GOAL",
      .needs = "!sensitivity",
      .help = "instead of an amount: params=0.5x, macs=200M, macs=0.5x, size=5MB" },
    { .name = "structured", .kind = MOPT_OPT_BOOL, .offset = AT(structured),
      .needs = "!sensitivity",
      .help = "remove whole channels and neurons from the file" },
    { .name = "score", .kind = MOPT_OPT_CHOICE, .offset = AT(score), .text_def = "auto",
      .choices = "auto|l1|l2|random|lamp|activation|apoz|taylor",
      .needs = "!sensitivity",
      .help = "what makes a weight (l1, l2, lamp, random) or channel (l1, l2, activation, apoz, taylor, random) worth keeping; "
              "auto: l1; for channels taylor with data, l2 without" },
    { .name = "scope", .kind = MOPT_OPT_CHOICE, .offset = AT(scope), .text_def = "global", .choices = "global|layer",
      .needs = "!sensitivity !pattern !structured,amount",
      .help = "rank all layers together, or take the same share of each" },
    { .name = "ramp", .kind = MOPT_OPT_CHOICE, .offset = AT(ramp), .text_def = "auto", .choices = "auto|oneshot|cubic",
      .needs = "!sensitivity !structured !pattern data epochs,ramp=cubic",
      .help = "weights: mask at once, or along a cubic ramp while training; auto: cubic with data" },
    { .name = "ramp-end", .kind = MOPT_OPT_FLOAT, .offset = AT(ramp_end), .def = 0.6, .min = 0, .max = 1,
      .needs = "!sensitivity !structured !pattern ramp=auto|cubic data epochs",
      .help = "share of the training steps after which masks are fixed" },
    { .name = "every", .kind = MOPT_OPT_INT, .offset = AT(every), .def = 50, .min = 1, .max = 1e9, .word = "STEPS",
      .needs = "!sensitivity !structured !pattern ramp=auto|cubic data epochs",
      .help = "training steps between new masks on the ramp" },
    { .name = "pattern", .kind = MOPT_OPT_TEXT, .offset = AT(pattern), .word = "N:M",
      .needs = "!sensitivity",
      .help = "weights: of every M neighbours along the summed axis keep N, such as 2:4" },
    { .name = "max-layer", .kind = MOPT_OPT_FLOAT, .offset = AT(max_layer), .def = 1, .min = 0, .max = 1,
      .needs = "!sensitivity !structured !pattern scope=global",
      .help = "weights: largest share of one layer that may become zero" },
    { .name = "min-keep", .kind = MOPT_OPT_FLOAT, .offset = AT(min_keep), .def = 0.1, .min = 0, .max = 1,
      .needs = "!sensitivity structured",
      .help = "channels: smallest share of one layer that must stay" },
    { .name = "round", .kind = MOPT_OPT_INT, .offset = AT(round), .def = 0, .min = 0, .max = 4096, .word = "N",
      .needs = "!sensitivity structured",
      .help = "channels kept are a multiple of N; 0: 8 from 32 channels on" },
    { .name = "steps", .kind = MOPT_OPT_INT, .offset = AT(steps), .def = 0, .min = 0, .max = 100,
      .needs = "!sensitivity structured",
      .help = "channels: rounds of scoring and cutting; 0: 10 for taylor, else 5" },
    { .name = "between", .kind = MOPT_OPT_FLOAT, .offset = AT(between), .def = 0, .min = 0, .max = 0.9, .word = "SHARE",
      .needs = "!sensitivity structured data !steps=1 epochs",
      .help = "channels: share of the epochs spent between the rounds; the rest follows the last" },
    { .name = "samples", .kind = MOPT_OPT_INT, .offset = AT(samples), .def = 1024, .min = 1, .max = 1e9, .word = "N",
      .needs = "!sensitivity structured data score=auto|activation|apoz|taylor",
      .help = "training samples that channels are scored with" },
    { .name = "keep-first", .kind = MOPT_OPT_BOOL, .offset = AT(keep_first), .needs = "!sensitivity",
      .help = "leave the first layer as it is" },
    { .name = "sensitivity", .kind = MOPT_OPT_BOOL, .offset = AT(sensitivity),
      .help = "change nothing; report the loss against the sparsity of each layer alone" },
    { .name = "training", .kind = MOPT_OPT_GROUP, .offset = AT(train), .group = mo_train_options,
      .needs = "!sensitivity data epochs" },
    { 0 },
};

static double multiplier(const char *unit)
{
    static const struct { const char *unit; double times; } rows[] = {
        { "", 1 }, { "K", 1e3 }, { "M", 1e6 }, { "G", 1e9 }, { "B", 1 }, { "KB", 1e3 }, { "MB", 1e6 }, { "GB", 1e9 },
        { "KiB", 1024. }, { "MiB", 1048576. }, { "GiB", 1073741824. },
    };
    for (size_t i = 0; i < MO_COUNT(rows); i++)
        if (!strcasecmp(unit, rows[i].unit))
            return rows[i].times;
    return 0;
}

enum mopt_status mo_prune_target_parse(struct mopt_ctx *ctx, const char *text, struct mo_prune_target *target)
{
    static const struct { const char *word; enum mo_prune_unit unit; } words[] = {
        { "params=", MO_UNIT_PARAMETERS }, { "macs=", MO_UNIT_MACS }, { "size=", MO_UNIT_BYTES },
    };
    for (size_t i = 0; i < MO_COUNT(words); i++) {
        size_t n = strlen(words[i].word);
        if (strncmp(text, words[i].word, n))
            continue;
        char *end;
        double value = strtod(text + n, &end);
        bool is_ratio = !strcmp(end, "x");
        if (end == text + n || !isfinite(value) || value <= 0 || (is_ratio ? value > 1 : !multiplier(end)))
            break;
        *target = (struct mo_prune_target){ words[i].unit, is_ratio, is_ratio ? value : value * multiplier(end) };
        return MOPT_OK;
    }
    return mo_fail(ctx, MOPT_USAGE, "option 'target': '%s' is not of the form params=0.5x, params=200K, macs=0.5x, "
                   "macs=200M or size=5MB", text);
}

/* Options that contradict each other, before any work. */
static enum mopt_status check(struct mopt_ctx *ctx, const struct mo_prune_settings *s, bool has_data)
{
    int n_goals = (s->amount.kind != MO_AMOUNT_NONE) + (s->target != NULL) + (s->pattern != NULL);
    bool needs_data = s->score == MO_SCORE_ACTIVATION || s->score == MO_SCORE_APOZ || s->score == MO_SCORE_TAYLOR;
    if (s->sensitivity)
        return has_data ? MOPT_OK : mo_fail(ctx, MOPT_USAGE, "option 'sensitivity' needs data: add --data SPEC");
    if (!n_goals)
        return mo_fail(ctx, MOPT_USAGE, "say how much: --amount 0.5, --target params=0.5x or --pattern 2:4");
    if (n_goals > 1)
        return mo_fail(ctx, MOPT_USAGE, "options 'amount', 'target' and 'pattern' exclude each other");
    if (s->structured && s->pattern)
        return mo_fail(ctx, MOPT_USAGE, "option 'pattern' is for weights, not for --structured");
    if (s->structured && s->score == MO_SCORE_LAMP)
        return mo_fail(ctx, MOPT_USAGE, "score 'lamp' is for weights, not for --structured; use l2 or taylor");
    if (!s->structured && needs_data)
        return mo_fail(ctx, MOPT_USAGE, "this score is for channels: add --structured, or use l1, l2, lamp or random");
    if (needs_data && !has_data)
        return mo_fail(ctx, MOPT_USAGE, "this score needs data: add --data SPEC, or use l2");
    return MOPT_OK;
}

void mo_prune_rates(struct mo_train_settings *train)
{
    if (train->lr == 0)
        train->lr = mo_optim_default_lr((enum mo_optimizer)train->optimizer);
    if (train->schedule == MO_SCHED_AUTO)
        train->schedule = MO_SCHED_ONE_CYCLE;
}

static void settle_defaults(struct mo_prune_settings *s, bool has_data)
{
    bool retrains = has_data && s->train.epochs > 0;
    if (s->score == MO_SCORE_AUTO && s->structured)
        s->score = has_data ? MO_SCORE_TAYLOR : MO_SCORE_L2;
    else if (s->score == MO_SCORE_AUTO)
        s->score = MO_SCORE_L1;
    if (s->ramp == MO_RAMP_AUTO)
        s->ramp = retrains && !s->pattern && !s->structured ? MO_RAMP_CUBIC : MO_RAMP_ONESHOT;
    if (!s->steps)
        s->steps = s->score == MO_SCORE_TAYLOR ? 10 : 5;
}

static enum mopt_status run(struct mo_job *job)
{
    struct mo_prune_settings s = *(const struct mo_prune_settings *)job->options;
    MO_TRY(check(job->ctx, &s, job->dataset != NULL));
    settle_defaults(&s, job->dataset != NULL);
    if (s.sensitivity)
        return mo_prune_sensitivity(job, &s);
    if (s.ramp == MO_RAMP_CUBIC && s.train.epochs <= 0)
        return mo_fail(job->ctx, MOPT_USAGE, "the cubic ramp needs epochs to train in: add --epochs N");
    if (s.ramp == MO_RAMP_CUBIC && s.train.patience > 0)
        return mo_fail(job->ctx, MOPT_USAGE, "option 'patience' could stop before the cubic ramp ends; use --ramp oneshot");
    mo_report_set_text(mo_report_object(job->report, "prune"), "kind", s.structured ? "channels" : "weights");
    return s.structured ? mo_prune_channels(job, &s) : mo_prune_weights(job, &s);
}

/* Beyond what the rows say. */
static const struct mo_need needs[] = {
    {"keep", "structured,pattern,ramp=oneshot,keep=last"}, /* a ramp ends at the last epoch */
    {"subset", "!sensitivity"},
    {"drop-last", "!sensitivity epochs"},
    {0}};

const struct mo_pass mo_pass_prune = {
    .name = "prune",
    .help = "mask weights, or physically remove channels; with data, retrained",
    .options = options,
    .options_bytes = sizeof(struct mo_prune_settings),
    .flags = MO_PASS_DATA | MO_PASS_SELECTS | MO_PASS_SKIPS,
    .needs = needs,
    .run = run,
};
