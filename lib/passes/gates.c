/* gates.c - thresholds on what a job measured.
 *
 * A gate that is narrower than the data can tell is called noise in words: a drop
 * limit of 0.1 points on 500 samples says nothing, and the user should hear that. */
#include "lib/passes/gates.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit { const char *name; double factor; };

/* A number and a unit from the list ("" allowed where listed). */
static bool parse_unit(const char *text, const struct unit *units, double *x)
{
    char *end;
    *x = strtod(text, &end);
    if (end == text || !isfinite(*x) || *x < 0)
        return false;
    while (isspace((unsigned char)*end))
        end++;
    for (; units->name; units++)
        if (!strcasecmp(end, units->name)) {
            *x *= units->factor;
            return true;
        }
    return false;
}

static const struct unit time_units[] = {{"ms", 1}, {"us", 1e-3}, {"s", 1e3}, {NULL, 0}};
static const struct unit size_units[] = {{"b", 1},        {"kb", 1e3},      {"mb", 1e6},      {"gb", 1e9}, {"kib", 1024},
                                         {"mib", 1 << 20}, {"gib", 1 << 30}, {"", 1}, {NULL, 0}};
static const struct unit drop_units[] = {{"%", 0.01}, {"", 1}, {NULL, 0}};
static const struct unit plain_units[] = {{"", 1}, {NULL, 0}};
static const struct unit ratio_units[] = {{"x", 1}, {NULL, 0}};

/* "p99=20ms" into the report's key and milliseconds. */
static bool parse_latency(const char *text, char key[16], double *ms)
{
    const char *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : 0;
    if (equals && (n == 0 || n >= 16))
        return false;
    snprintf(key, 16, "%.*s", equals ? (int)n : 4, equals ? text : "mean");
    static const char *const known[] = {"mean", "median", "min", "max", "p90", "p95", "p99"};
    for (size_t i = 0; i < MO_COUNT(known); i++)
        if (!strcmp(key, known[i]))
            return parse_unit(equals ? equals + 1 : text, time_units, ms);
    return false;
}

enum mopt_status mo_gates_check(struct mopt_ctx *ctx, const struct mo_job_settings *s)
{
    double x;
    char key[16];
    if (s->max_drop && !parse_unit(s->max_drop, drop_units, &x))
        return mo_fail(ctx, MOPT_USAGE, "option 'max-drop': '%s' is not like 0.5%% or 0.005", s->max_drop);
    if (s->max_size && !parse_unit(s->max_size, size_units, &x) && !parse_unit(s->max_size, ratio_units, &x))
        return mo_fail(ctx, MOPT_USAGE, "option 'max-size': '%s' is not like 5MB, 300kB or 0.3x", s->max_size);
    if (s->max_latency && !parse_latency(s->max_latency, key, &x))
        return mo_fail(ctx, MOPT_USAGE,
                       "option 'max-latency': '%s' is not like p99=20ms (mean, median, min, max, p90, p95, p99)",
                       s->max_latency);
    if (s->max_rmse && !parse_unit(s->max_rmse, plain_units, &x))
        return mo_fail(ctx, MOPT_USAGE, "option 'max-rmse': '%s' is not a number", s->max_rmse);
    return MOPT_OK;
}

static enum mopt_status cannot(struct mopt_ctx *ctx, const char *gate, const char *what)
{
    return mo_fail(ctx, MOPT_USAGE, "option '%s': this job measures no %s to judge", gate, what);
}

enum mopt_status mo_gates_check_job(struct mopt_ctx *ctx, const struct mo_job_settings *s,
                                    const struct mo_measured *job)
{
    MO_TRY(mo_gates_check(ctx, s));
    char key[16] = "";
    double x;
    bool is_mean = s->max_latency && parse_latency(s->max_latency, key, &x) && !strcmp(key, "mean");
    if (s->baseline && !s->max_drop)
        return mo_fail(ctx, MOPT_USAGE, "option 'baseline' is what --max-drop measures against: add --max-drop 0.5%%");
    if (s->baseline) { /* a wrong name is said now, not after hours */
        struct mopt_report *old = NULL;
        MO_TRY(ctx->io->read_report(ctx, s->baseline, &old));
        mopt_report_free(old);
    }
    if (!isnan(s->min_accuracy) && !job->metrics)
        return cannot(ctx, "min-accuracy", "accuracy");
    if (s->max_rmse && !job->metrics)
        return cannot(ctx, "max-rmse", "root mean square error");
    if (s->max_drop && (!job->metrics || (!job->before && !s->baseline)))
        return cannot(ctx, "max-drop", "accuracy before and after");
    if (s->max_size && !(parse_unit(s->max_size, size_units, &x) ? job->size : job->before))
        return cannot(ctx, "max-size", "size");
    if (s->max_latency && !(is_mean ? job->mean_latency : job->latency))
        return cannot(ctx, "max-latency", "such latency (bench does)");
    if (!isnan(s->min_cosine) && !job->cosine)
        return cannot(ctx, "min-cosine", "cosine (diff does)");
    return MOPT_OK;
}

bool mo_gates_need_accuracy(const struct mo_job_settings *s)
{
    return !isnan(s->min_accuracy) || s->max_drop || s->max_rmse;
}

bool mo_gates_need_original(const struct mo_job_settings *s)
{
    return s->max_drop && !s->baseline;
}

struct judge {
    struct mopt_ctx *ctx;
    struct mopt_report *report, *rows;
    unsigned n_failed;
    char first[256];
};

/* The step gave no such number after all: a gate that could not be judged has not been passed. */
static enum mopt_status nothing(struct judge *j, const char *gate, const char *what)
{
    struct mopt_report *row = mo_report_object(j->rows, NULL);
    mo_report_set_text(row, "gate", gate);
    mo_report_set_text(row, "verdict", "failed");
    mo_report_set_text(row, "note", "not measured");
    if (!j->n_failed++)
        snprintf(j->first, sizeof j->first, "gate '%s' failed: this job measured no %s to judge", gate, what);
    return MOPT_OK;
}

static void verdict(struct judge *j, const char *gate, double limit, double value, bool ok, const char *note)
{
    struct mopt_report *row = mo_report_object(j->rows, NULL);
    mo_report_set_text(row, "gate", gate);
    mo_report_set_number(row, "limit", limit);
    mo_report_set_number(row, "value", value);
    mo_report_set_text(row, "verdict", ok ? "passed" : "failed");
    if (note)
        mo_report_set_text(row, "note", note);
    if (!ok && !j->n_failed++)
        snprintf(j->first, sizeof j->first, "gate '%s' failed: %.9g against a limit of %.9g%s%s", gate, value, limit,
                 note ? "; " : "", note ? note : "");
}

/* The first of the paths that holds a number: of the job, else of its last step that has one. */
static double number_at(const struct mopt_report *report, const char *const *paths)
{
    for (const char *const *p = paths; *p; p++) {
        double x = mopt_report_number(mopt_report_at(report, *p), NAN);
        if (!isnan(x))
            return x;
    }
    const struct mopt_report *steps = mopt_report_at(report, "steps");
    for (size_t i = mopt_report_count(steps); i-- > 0;) {
        double x = number_at(mopt_report_item(steps, i), paths);
        if (!isnan(x))
            return x;
    }
    return NAN;
}

static enum mopt_status judge_accuracy(struct judge *j, const struct mo_job_settings *s)
{
    const char *const paths[] = {"after.metrics.accuracy", "metrics.accuracy", NULL};
    const char *const lows[] = {"after.metrics.accuracy_low", "metrics.accuracy_low", NULL};
    double value = number_at(j->report, paths), low = number_at(j->report, lows);
    if (isnan(value))
        return nothing(j, "min-accuracy", "accuracy");
    bool noise = fabs(value - s->min_accuracy) < value - low;
    verdict(j, "min-accuracy", s->min_accuracy, value, value >= s->min_accuracy,
            noise ? "noise: the limit lies within the 95 % interval of the measurement" : NULL);
    return MOPT_OK;
}

static enum mopt_status judge_drop(struct judge *j, const struct mo_job_settings *s)
{
    const char *const after[] = {"after.metrics.accuracy", "metrics.accuracy", NULL};
    const char *const low[] = {"after.metrics.accuracy_low", "metrics.accuracy_low", NULL};
    const char *const before[] = {"before.metrics.accuracy", NULL};
    double now = number_at(j->report, after), was = number_at(j->report, before), limit;
    if (s->baseline) {
        struct mopt_report *old = NULL;
        MO_TRY(j->ctx->io->read_report(j->ctx, s->baseline, &old));
        was = number_at(old, after);
        mopt_report_free(old);
    }
    if (isnan(now) || isnan(was))
        return nothing(j, "max-drop", "accuracy before and after");
    if (!parse_unit(s->max_drop, drop_units, &limit))
        return mo_gates_check(j->ctx, s);
    bool noise = limit < now - number_at(j->report, low);
    verdict(j, "max-drop", limit, was - now, was - now <= limit,
            noise ? "noise: the limit is narrower than the 95 % interval of the measurement" : NULL);
    return MOPT_OK;
}

static enum mopt_status judge_size(struct judge *j, const struct mo_job_settings *s)
{
    const char *const after[] = {"after.bytes", "totals.bytes", "models.0.bytes", NULL};
    const char *const before[] = {"before.bytes", NULL};
    double value = number_at(j->report, after), limit;
    if (isnan(value))
        return nothing(j, "max-size", "size");
    if (!parse_unit(s->max_size, size_units, &limit)) {
        double was = number_at(j->report, before);
        if (!parse_unit(s->max_size, ratio_units, &limit) || isnan(was))
            return nothing(j, "max-size", "size before");
        limit *= was;
    }
    verdict(j, "max-size", limit, value, value <= limit, NULL);
    return MOPT_OK;
}

static enum mopt_status judge_latency(struct judge *j, const struct mo_job_settings *s)
{
    char key[16], path[64];
    double limit;
    if (!parse_latency(s->max_latency, key, &limit))
        return mo_gates_check(j->ctx, s);
    snprintf(path, sizeof path, "models.0.latency_ms.%s", key);
    const char *const paths[] = {path, !strcmp(key, "mean") ? "after.latency_ms.mean" : NULL, NULL};
    double value = number_at(j->report, paths);
    if (isnan(value))
        return nothing(j, "max-latency", "such latency (bench does)");
    verdict(j, "max-latency", limit, value, value <= limit, NULL);
    return MOPT_OK;
}

enum mopt_status mo_gates_judge(struct mopt_ctx *ctx, const struct mo_job_settings *s, struct mopt_report *report)
{
    struct judge j = {.ctx = ctx, .report = report};
    bool any = !isnan(s->min_accuracy) || !isnan(s->min_cosine) || s->max_drop || s->max_size || s->max_latency ||
               s->max_rmse;
    if (!any)
        return MOPT_OK;
    j.rows = mo_report_list(report, "gates");
    if (!isnan(s->min_accuracy))
        MO_TRY(judge_accuracy(&j, s));
    if (s->max_drop)
        MO_TRY(judge_drop(&j, s));
    if (s->max_rmse) {
        const char *const paths[] = {"after.metrics.rmse", "metrics.rmse", NULL};
        double value = number_at(report, paths), limit = strtod(s->max_rmse, NULL);
        if (isnan(value))
            MO_TRY(nothing(&j, "max-rmse", "root mean square error"));
        else
            verdict(&j, "max-rmse", limit, value, value <= limit, NULL);
    }
    if (s->max_size)
        MO_TRY(judge_size(&j, s));
    if (s->max_latency)
        MO_TRY(judge_latency(&j, s));
    if (!isnan(s->min_cosine)) {
        const char *const paths[] = {"min_cosine", NULL};
        double value = number_at(report, paths);
        if (isnan(value))
            MO_TRY(nothing(&j, "min-cosine", "cosine"));
        else
            verdict(&j, "min-cosine", s->min_cosine, value, value >= s->min_cosine, NULL);
    }
    return j.n_failed ? mo_fail(ctx, MOPT_GATE, "%s", j.first) : MOPT_OK;
}
