/* report_html.c - one self-contained HTML page from JSON reports: a before/after table, plots of
 * training, bars of latency, gates and the audit. No script, nothing from elsewhere. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/formats.h"
#include "lib/base/text.h"

static double number(const struct mopt_report *r, const char *path)
{
    return mopt_report_number(mopt_report_at(r, path), NAN);
}

static void put_value(struct mo_text *p, const struct mopt_report *v)
{
    switch (mopt_report_kind(v)) {
    case MOPT_TEXT:
        mo_text_xml(p, mopt_report_text(v, ""));
        break;
    case MOPT_BOOL:
        mo_text_put(p, "%s", mopt_report_int(v, 0) ? "yes" : "no");
        break;
    case MOPT_INT:
        mo_text_put(p, "%lld", (long long)mopt_report_int(v, 0));
        break;
    case MOPT_NUMBER:
        mo_text_put(p, "%.6g", mopt_report_number(v, 0));
        break;
    default:
        mo_text_put(p, "-");
    }
}

static void put_cell(struct mo_text *p, const struct mopt_report *v)
{
    mo_text_put(p, "<td>");
    put_value(p, v);
    mo_text_put(p, "</td>");
}

/* ---- plots --------------------------------------------------------------------------- */

enum { PLOT_W = 460, PLOT_H = 180, PLOT_LEFT = 56, PLOT_BOTTOM = 24 };

struct curve { const struct mopt_report *rows; const char *key; };

static void curve_range(const struct curve *c, double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t i = 0; i < mopt_report_count(c->rows); i++) {
        double y = number(mopt_report_item(c->rows, i), c->key);
        if (!isnan(y)) {
            *low = fmin(*low, y);
            *high = fmax(*high, y);
        }
    }
    if (*high <= *low) {
        *low -= 0.5;
        *high += 0.5;
    }
}

static void plot(struct mo_text *p, const char *title, const struct curve *c)
{
    double low, high;
    size_t n = mopt_report_count(c->rows);
    curve_range(c, &low, &high);
    if (n < 2 || !isfinite(low) || !isfinite(high))
        return;
    mo_text_put(p, "<figure><figcaption>%s</figcaption><svg width=\"%d\" height=\"%d\">", title, PLOT_W, PLOT_H);
    mo_text_put(p, "<path d=\"M%d 8V%dH%d\" class=\"axis\"/>", PLOT_LEFT, PLOT_H - PLOT_BOTTOM, PLOT_W - 8);
    mo_text_put(p, "<text x=\"%d\" y=\"16\" class=\"end\">%.4g</text>", PLOT_LEFT - 6, high);
    mo_text_put(p, "<text x=\"%d\" y=\"%d\" class=\"end\">%.4g</text>", PLOT_LEFT - 6, PLOT_H - PLOT_BOTTOM, low);
    mo_text_put(p, "<text x=\"%d\" y=\"%d\" class=\"end\">epoch %zu</text><polyline points=\"", PLOT_W - 8, PLOT_H - 6, n);
    for (size_t i = 0; i < n; i++) {
        double y = number(mopt_report_item(c->rows, i), c->key);
        if (!isnan(y))
            mo_text_put(p, "%.1f,%.1f ", PLOT_LEFT + (PLOT_W - PLOT_LEFT - 8) * (double)i / (double)(n - 1),
                8 + (PLOT_H - PLOT_BOTTOM - 8) * (high - y) / (high - low));
    }
    mo_text_put(p, "\"/></svg></figure>\n");
}

static void latency_bars(struct mo_text *p, const struct mopt_report *models)
{
    double longest = 0;
    size_t n = mopt_report_count(models);
    for (size_t i = 0; i < n; i++)
        longest = fmax(longest, number(mopt_report_item(models, i), "latency_ms.p99"));
    if (!(longest > 0))
        return;
    mo_text_put(p, "<h3>latency</h3><table>\n<tr><th>model</th><th>median ms</th><th>p99 ms</th><th>ratio</th><th></th></tr>\n");
    for (size_t i = 0; i < n; i++) {
        const struct mopt_report *m = mopt_report_item(models, i);
        double median = number(m, "latency_ms.median"), p99 = number(m, "latency_ms.p99");
        mo_text_put(p, "<tr>");
        put_cell(p, mopt_report_at(m, "name"));
        mo_text_put(p, "<td>%.4g</td><td>%.4g</td><td>%.3g</td><td><svg width=\"260\" height=\"14\">", median, p99, number(m, "ratio"));
        mo_text_put(p, "<rect width=\"%.1f\" height=\"14\" class=\"far\"/><rect width=\"%.1f\" height=\"14\" class=\"near\"/></svg></td></tr>\n",
            260 * p99 / longest, 260 * median / longest);
    }
    mo_text_put(p, "</table>\n");
}

/* ---- tables ----------------------------------------------------------------------------- */

static void before_after(struct mo_text *p, const struct mopt_report *r)
{
    static const char *const rows[] = {"parameters", "nonzero", "macs", "bytes", "metrics.accuracy", "metrics.loss",
                                       "metrics.rmse", "latency_ms.mean"};
    if (!mopt_report_at(r, "before"))
        return;
    mo_text_put(p, "<table>\n<tr><th></th><th>before</th><th>after</th><th>ratio</th></tr>\n");
    for (size_t i = 0; i < MO_COUNT(rows); i++) {
        char path[64];
        snprintf(path, sizeof path, "before.%s", rows[i]);
        const struct mopt_report *before = mopt_report_at(r, path);
        snprintf(path, sizeof path, "after.%s", rows[i]);
        const struct mopt_report *after = mopt_report_at(r, path);
        if (!before && !after)
            continue;
        mo_text_put(p, "<tr><td>%s</td>", rows[i]);
        put_cell(p, before);
        put_cell(p, after);
        double ratio = mopt_report_number(after, NAN) / mopt_report_number(before, NAN);
        mo_text_put(p, isfinite(ratio) ? "<td>%.4g</td></tr>\n" : "<td></td></tr>\n", ratio);
    }
    mo_text_put(p, "</table>\n");
}

/* Whether row i is the first that has this key. */
static bool is_new_key(const struct mopt_report *list, size_t i, const char *key)
{
    for (size_t k = 0; k < i; k++)
        if (mopt_report_at(mopt_report_item(list, k), key))
            return false;
    return true;
}

/* The keys of all rows, in the order in which they come up. */
static size_t columns_of(const struct mopt_report *list, const char **keys, size_t room)
{
    size_t n = 0;
    for (size_t i = 0; i < mopt_report_count(list); i++) {
        const struct mopt_report *row = mopt_report_item(list, i);
        for (size_t k = 0; k < mopt_report_count(row) && n < room; k++)
            if (is_new_key(list, i, mopt_report_key(row, k)))
                keys[n++] = mopt_report_key(row, k);
    }
    return n;
}

/* A list of objects as a table. */
static void rows_table(struct mo_text *p, const char *title, const struct mopt_report *list)
{
    enum { MAX_COLUMNS = 24 };
    const char *keys[MAX_COLUMNS];
    if (mopt_report_kind(mopt_report_item(list, 0)) != MOPT_OBJECT)
        return;
    size_t n = columns_of(list, keys, MAX_COLUMNS);
    mo_text_put(p, "<details><summary>%s (%zu)</summary><table>\n<tr>", title, mopt_report_count(list));
    for (size_t k = 0; k < n; k++) {
        mo_text_put(p, "<th>");
        mo_text_xml(p, keys[k]);
        mo_text_put(p, "</th>");
    }
    mo_text_put(p, "</tr>\n");
    for (size_t i = 0; i < mopt_report_count(list); i++) {
        mo_text_put(p, "<tr>");
        for (size_t k = 0; k < n; k++)
            put_cell(p, mopt_report_at(mopt_report_item(list, i), keys[k]));
        mo_text_put(p, "</tr>\n");
    }
    mo_text_put(p, "</table></details>\n");
}

static void metrics_line(struct mo_text *p, const struct mopt_report *r)
{
    double x = number(r, "metrics.accuracy");
    if (!isnan(x))
        mo_text_put(p, "<p>accuracy %.2f %% (95 %% interval %.2f to %.2f)</p>\n", 100 * x, 100 * number(r, "metrics.accuracy_low"),
            100 * number(r, "metrics.accuracy_high"));
    if (!isnan(number(r, "metrics.rmse")))
        mo_text_put(p, "<p>root mean square error %.5g</p>\n", number(r, "metrics.rmse"));
}

static void section(struct mo_text *p, const struct mopt_report *r)
{
    const struct mopt_report *epochs = mopt_report_at(r, "epochs"), *steps = mopt_report_at(r, "steps");
    before_after(p, r);
    metrics_line(p, r);
    plot(p, "loss", &(struct curve){epochs, "loss"});
    plot(p, "validation accuracy", &(struct curve){epochs, "accuracy"});
    latency_bars(p, mopt_report_at(r, "models"));
    rows_table(p, "gates", mopt_report_at(r, "gates"));
    rows_table(p, "outputs", mopt_report_at(r, "outputs"));
    rows_table(p, "layers", mopt_report_at(r, "layers"));
    rows_table(p, "epochs", epochs);
    rows_table(p, "audit", mopt_report_at(r, "audit"));
    for (size_t i = 0; i < mopt_report_count(steps); i++) {
        mo_text_put(p, "<h3>step %zu: ", i + 1);
        put_value(p, mopt_report_at(mopt_report_item(steps, i), "pass"));
        mo_text_put(p, "</h3>\n");
        section(p, mopt_report_item(steps, i));
    }
}

static void head(struct mo_text *p)
{
    mo_text_put(p, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>mopt report</title>\n<style>"
           "body{font:15px/1.45 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
           "table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .8em;border-bottom:1px solid #ddd;text-align:right}"
           "td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:.5em 1em .5em 0}"
           "svg text{font-size:11px;fill:#555}.end{text-anchor:end}.axis{fill:none;stroke:#999}"
           "polyline{fill:none;stroke:#2563a8;stroke-width:2}.far{fill:#c9d8ea}.near{fill:#2563a8}"
           ".failed{color:#a11}</style></head><body>\n<h1>mopt report</h1>\n");
}

enum mopt_status mopt_report_html(struct mopt_ctx *ctx, const char *const *json, size_t n, char **html)
{
    struct mo_text p = {0};
    *html = NULL;
    head(&p);
    for (size_t i = 0; i < n; i++) {
        struct mopt_report *r = NULL;
        enum mopt_status s = mo_report_parse(ctx, json[i], &r);
        if (s) {
            mo_blame(ctx, "report %zu", i + 1);
            mo_mem_free(p.bytes);
            return s;
        }
        mo_text_put(&p, "<h2>");
        put_value(&p, mopt_report_at(r, "verb"));
        mo_text_put(&p, ": ");
        put_value(&p, mopt_report_at(r, "model"));
        mo_text_put(&p, "</h2>\n<p>status: ");
        put_value(&p, mopt_report_at(r, "status"));
        if (mopt_report_at(r, "error")) {
            mo_text_put(&p, " <span class=\"failed\">");
            put_value(&p, mopt_report_at(r, "error"));
            mo_text_put(&p, "</span>");
        }
        mo_text_put(&p, "; seed ");
        put_value(&p, mopt_report_at(r, "seed"));
        mo_text_put(&p, "; mopt ");
        put_value(&p, mopt_report_at(r, "mopt"));
        mo_text_put(&p, "; ");
        put_value(&p, mopt_report_at(r, "engine"));
        mo_text_put(&p, "; ");
        put_value(&p, mopt_report_at(r, "machine.cpu"));
        mo_text_put(&p, "</p>\n");
        rows_table(&p, "files", mopt_report_at(r, "files"));
        section(&p, r);
        mopt_report_free(r);
    }
    mo_text_put(&p, "</body></html>\n");
    if (p.is_broken) {
        mo_mem_free(p.bytes);
        return mo_no_memory(ctx, p.n, "a page");
    }
    *html = p.bytes;
    return MOPT_OK;
}
