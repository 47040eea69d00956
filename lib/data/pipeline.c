/* pipeline.c - a list of transforms: parsed, settled with numbers, written as text, applied. */
#include "lib/data/transform.h"

#include <stdio.h>
#include <string.h>

#define TRANSFORM(name) extern const struct mo_transform mo_transform_##name;
#include "lib/data/transforms.def"
#undef TRANSFORM

static const struct mo_transform *const transforms[] = {
#define TRANSFORM(name) &mo_transform_##name,
#include "lib/data/transforms.def"
#undef TRANSFORM
};

enum { MAX_STEPS = 64 };

const struct mo_transform *mo_transform_at(size_t i)
{
    return i < MO_COUNT(transforms) ? transforms[i] : NULL;
}

static enum mopt_status no_such_transform(struct mopt_ctx *ctx, const char *name)
{
    const char *names[MO_COUNT(transforms)];
    for (size_t i = 0; i < MO_COUNT(transforms); i++)
        names[i] = transforms[i]->name;
    const char *near = mo_nearest(name, names, MO_COUNT(names));
    return near ? mo_fail(ctx, MOPT_USAGE, "there is no transform '%s'; did you mean '%s'?", name, near)
                : mo_fail(ctx, MOPT_USAGE, "there is no transform '%s'", name);
}

static enum mopt_status parse_step(struct mopt_ctx *ctx, struct mo_arena *arena, char *item, struct mo_step *step)
{
    char *equals = strchr(item, '=');
    if (equals)
        *equals = 0;
    for (size_t i = 0; i < MO_COUNT(transforms) && !step->transform; i++)
        if (!strcmp(transforms[i]->name, item))
            step->transform = transforms[i];
    if (!step->transform)
        return no_such_transform(ctx, item);
    step->args = equals ? equals + 1 : NULL;
    enum mopt_status s = step->transform->parse(ctx, arena, step->args, step);
    if (s == MOPT_USAGE)
        mo_blame(ctx, "transform '%s' (%s)", item, step->transform->grammar);
    return s;
}

/* Image steps want bytes, so none may come behind a value step. */
static enum mopt_status check_order(struct mopt_ctx *ctx, const struct mo_pipeline *pipeline)
{
    const char *value = NULL;
    for (uint32_t i = 0; i < pipeline->n_steps; i++) {
        const struct mo_transform *t = pipeline->steps[i].transform;
        if (t->flags & MO_TRANSFORM_VALUES)
            value = t->name;
        else if (value)
            return mo_fail(ctx, MOPT_USAGE, "transform '%s' works on images in bytes: put it before '%s'", t->name, value);
    }
    return MOPT_OK;
}

enum mopt_status mo_pipeline_parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *text,
                                   struct mo_pipeline *pipeline)
{
    *pipeline = (struct mo_pipeline){0};
    uint32_t n = 1;
    for (const char *c = text; *c; c++)
        n += *c == ',';
    if (n > MAX_STEPS)
        return mo_fail(ctx, MOPT_USAGE, "a list of %u transforms is longer than %d", n, MAX_STEPS);
    char *copy = mo_arena_text(arena, text);
    pipeline->steps = mo_arena_new(arena, n, sizeof *pipeline->steps);
    if (!copy || !pipeline->steps)
        return mo_no_memory(ctx, n * sizeof *pipeline->steps, "transforms");
    for (char *item = copy; item; pipeline->n_steps++) {
        char *comma = strchr(item, ',');
        if (comma)
            *comma = 0;
        MO_TRY(parse_step(ctx, arena, item, &pipeline->steps[pipeline->n_steps]));
        item = comma ? comma + 1 : NULL;
    }
    return check_order(ctx, pipeline);
}

bool mo_pipeline_has(const struct mo_pipeline *pipeline, unsigned flag)
{
    for (uint32_t i = 0; i < pipeline->n_steps; i++)
        if (pipeline->steps[i].transform->flags & flag)
            return true;
    return false;
}

bool mo_pipeline_has_image_steps(const struct mo_pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->n_steps; i++)
        if (pipeline->steps[i].transform->apply)
            return true;
    return false;
}

bool mo_pipeline_is_settled(const struct mo_pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->n_steps; i++) {
        const struct mo_step *step = &pipeline->steps[i];
        if (step->transform->flags & MO_TRANSFORM_VALUES && !step->is_settled)
            return false;
    }
    return true;
}

/* ---- statistics ------------------------------------------------------------------ */

/* What the statistics are behind a step: x becomes (x - sub) / div. */
static void move_stats(const struct mo_step *step, struct mo_stats *stats)
{
    for (uint32_t i = 0; step->n && i < stats->n; i++) {
        uint32_t k = step->n == 1 ? 0 : i % step->n;
        double sub = step->sub[k], div = step->div[k];
        stats->mean[i] = (stats->mean[i] - sub) / div;
        stats->deviation[i] /= div < 0 ? -div : div;
        double low = (stats->low[i] - sub) / div, high = (stats->high[i] - sub) / div;
        stats->low[i] = MO_MIN(low, high);
        stats->high[i] = MO_MAX(low, high);
    }
}

static enum mopt_status copy_stats(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_stats *from,
                                   struct mo_stats *to)
{
    double *mem = mo_arena_new(arena, 4 * (size_t)from->n, sizeof *mem);
    if (!mem)
        return mo_no_memory(ctx, 4 * (uint64_t)from->n * sizeof *mem, "statistics");
    *to = *from;
    double **column[] = {&to->mean, &to->deviation, &to->low, &to->high};
    for (size_t k = 0; k < MO_COUNT(column); k++, mem += from->n) {
        memcpy(mem, *column[k], from->n * sizeof *mem);
        *column[k] = mem;
    }
    return MOPT_OK;
}

/* All entries taken together as one, weighed alike. */
static void merge_stats(struct mo_stats *stats)
{
    double mean = 0, square = 0, low = stats->low[0], high = stats->high[0];
    for (uint32_t i = 0; i < stats->n; i++)
        mean += stats->mean[i] / stats->n;
    for (uint32_t i = 0; i < stats->n; i++) {
        double d = stats->mean[i] - mean;
        square += (stats->deviation[i] * stats->deviation[i] + d * d) / stats->n;
        low = MO_MIN(low, stats->low[i]);
        high = MO_MAX(high, stats->high[i]);
    }
    stats->n = 1;
    stats->mean[0] = mean;
    stats->deviation[0] = __builtin_sqrt(square);
    stats->low[0] = low;
    stats->high[0] = high;
    stats->fixed = NULL;
}

enum mopt_status mo_pipeline_fit(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_stats *raw,
                                 struct mo_pipeline *pipeline)
{
    struct mo_stats stats;
    MO_TRY(copy_stats(ctx, arena, raw, &stats));
    for (uint32_t i = 0; i < pipeline->n_steps; i++) {
        struct mo_step *step = &pipeline->steps[i];
        if (!(step->transform->flags & MO_TRANSFORM_VALUES))
            continue;
        if (!step->is_settled) {
            struct mo_stats own;
            MO_TRY(copy_stats(ctx, arena, &stats, &own));
            if (step->has_axis && step->axis == MO_AXIS_ALL)
                merge_stats(&own);
            MO_TRY(step->transform->fit(ctx, arena, &own, step));
            step->is_settled = true;
        }
        move_stats(step, &stats);
    }
    return MOPT_OK;
}

/* ---- as text ----------------------------------------------------------------------- */

struct text { char *bytes; size_t used, room; };      /* bytes NULL: only counts */

static void add(struct text *t, const char *words)
{
    size_t n = strlen(words);
    if (t->bytes && t->used + n < t->room)
        memcpy(t->bytes + t->used, words, n + 1);
    t->used += n;
}

static void add_numbers(struct text *t, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        char number[48];
        snprintf(number, sizeof number, "%s%.9g", i ? ":" : "", (double)x[i]);
        add(t, number);
    }
}

static void add_values(struct text *t, const struct mo_step *step)
{
    static const char *const axis_names[] = {"all/", "channel/", "feature/"};
    add(t, "=");
    add(t, step->n > 1 ? axis_names[step->axis] : "");
    add_numbers(t, step->sub, step->n);
    add(t, "/");
    add_numbers(t, step->div, step->n);
}

static void add_steps(struct text *t, const struct mo_pipeline *pipeline, bool eval)
{
    for (uint32_t i = 0; i < pipeline->n_steps; i++) {
        const struct mo_step *step = &pipeline->steps[i];
        const struct mo_transform *transform = step->transform;
        if (eval && transform->flags & MO_TRANSFORM_RANDOM) {
            char form[128] = "";
            if (transform->eval_form)
                transform->eval_form(step, form, sizeof form);
            add(t, form[0] && t->used ? "," : "");
            add(t, form);
            continue;
        }
        add(t, t->used ? "," : "");
        add(t, transform->name);
        if (transform->flags & MO_TRANSFORM_FITS && step->is_settled)
            add_values(t, step);
        else if (step->args) {
            add(t, "=");
            add(t, step->args);
        }
    }
    if (!t->used)
        add(t, "none");
}

char *mo_pipeline_text(struct mo_arena *arena, const struct mo_pipeline *pipeline, bool eval)
{
    struct text t = {0};
    add_steps(&t, pipeline, eval);
    t.room = t.used + 1;
    t.used = 0;
    t.bytes = mo_arena_new(arena, t.room, 1);
    if (t.bytes)
        add_steps(&t, pipeline, eval);
    return t.bytes;
}

/* ---- at work --------------------------------------------------------------------------- */

bool mo_pipeline_apply(const struct mo_pipeline *pipeline, struct mo_rng *rng, struct mo_scratch *scratch,
                       struct mo_image *image)
{
    for (uint32_t i = 0; i < pipeline->n_steps; i++) {
        const struct mo_step *step = &pipeline->steps[i];
        if (step->transform->apply && !step->transform->apply(step, rng, scratch, image))
            return false;
    }
    return true;
}

void mo_pipeline_size(const struct mo_pipeline *pipeline, struct mo_image *image)
{
    for (uint32_t i = 0; i < pipeline->n_steps; i++) {
        const struct mo_step *step = &pipeline->steps[i];
        if (step->transform->size)
            step->transform->size(step, image);
    }
}

void mo_pipeline_values(const struct mo_pipeline *pipeline, float *x, size_t n, size_t first, size_t last)
{
    for (uint32_t i = 0; i < pipeline->n_steps; i++) {
        const struct mo_step *step = &pipeline->steps[i];
        if (!step->n)
            continue;
        if (step->n == 1) {
            for (size_t k = 0; k < n; k++)
                x[k] = (x[k] - step->sub[0]) / step->div[0];
        } else if (step->axis == MO_AXIS_CHANNEL) {
            size_t inner = n / first;
            for (size_t c = 0; c < first; c++)
                for (size_t k = c * inner; k < (c + 1) * inner; k++)
                    x[k] = (x[k] - step->sub[c]) / step->div[c];
        } else
            for (size_t k = 0; k < n; k++)
                x[k] = (x[k] - step->sub[k % last]) / step->div[k % last];
    }
}
