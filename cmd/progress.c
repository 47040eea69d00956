/* progress.c - see progress.h. */
#include "cmd/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PLAIN_EVERY_S 3.0
#define BAR_EVERY_S 0.1
#define SHORT_S 1.0
enum { BAR_CELLS = 24 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_init(struct progress *p, enum progress_mode mode, bool quiet, bool verbose)
{
    bool tty = isatty(2);
    const char *no_color = getenv("NO_COLOR");
    *p = (struct progress){.mode = mode, .quiet = quiet, .verbose = verbose};
    if (mode == PROGRESS_AUTO)
        p->mode = quiet ? PROGRESS_NONE : tty ? PROGRESS_BAR : PROGRESS_PLAIN;
    p->color = tty && !(no_color && *no_color);
}

void progress_end(struct progress *p)
{
    if (p->has_bar)
        fputs("\n", stderr);
    p->has_bar = false;
}

static void json_text(const char *text)
{
    fputc('"', stderr);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(stderr, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            fprintf(stderr, "\\u%04x", *text);
        else
            fputc(*text, stderr);
    }
    fputc('"', stderr);
}

static void json_line(const struct mopt_event *e)
{
    static const char *const kinds[] = {"log", "warning", "progress"};
    fprintf(stderr, "{\"event\": \"%s\", \"phase\": ", kinds[e->kind]);
    json_text(e->phase ? e->phase : "");
    fputs(", \"text\": ", stderr);
    json_text(e->text ? e->text : "");
    if (e->kind == MOPT_EVENT_PROGRESS) {
        fprintf(stderr, ", \"done\": %.17g, \"total\": %.17g, \"unit\": ", e->done, e->total);
        json_text(e->unit ? e->unit : "");
    }
    fputs("}\n", stderr);
}

static void duration(char *buf, size_t n, double s)
{
    if (s < 0 || s > 360000)
        snprintf(buf, n, "?");
    else if (s < 60)
        snprintf(buf, n, "%.0fs", s);
    else if (s < 3600)
        snprintf(buf, n, "%dm%02ds", (int)s / 60, (int)s % 60);
    else
        snprintf(buf, n, "%dh%02dm", (int)s / 3600, (int)s / 60 % 60);
}

static void bar_cells(char *cells, double share)
{
    int full = (int)(share * BAR_CELLS + 0.5);
    for (int i = 0; i < BAR_CELLS; i++)
        cells[i] = i < full ? '=' : i == full ? '>' : ' ';
    cells[BAR_CELLS] = 0;
}

static void show(struct progress *p, const struct mopt_event *e)
{
    double now = now_s();
    if (strncmp(p->phase, e->phase, sizeof p->phase - 1)) {
        snprintf(p->phase, sizeof p->phase, "%s", e->phase);
        p->start_s = now;
        p->last_s = p->mode == PROGRESS_BAR ? 0 : now;
    }
    bool is_last = e->total > 0 && e->done >= e->total;
    if (is_last && p->mode == PROGRESS_PLAIN && now - p->start_s < SHORT_S)
        return; /* too short to be worth a line */
    if (!is_last && now - p->last_s < (p->mode == PROGRESS_BAR ? BAR_EVERY_S : PLAIN_EVERY_S))
        return;
    p->last_s = now;
    double elapsed = now - p->start_s, rate = elapsed > 0 ? e->done / elapsed : 0;
    char left[32] = "?", cells[BAR_CELLS + 1];
    if (rate > 0 && e->total > 0)
        duration(left, sizeof left, (e->total - e->done) / rate);
    double share = e->total > 0 ? e->done / e->total : 0;
    if (p->mode == PROGRESS_BAR) {
        bar_cells(cells, share);
        fprintf(stderr, "\r\033[K%s [%s] %3.0f%%  %.4g %s/s  %s left  %s", e->phase, cells, 100 * share, rate, e->unit,
                left, e->text);
        p->has_bar = true;
        if (is_last)
            progress_end(p);
        fflush(stderr);
    } else
        fprintf(stderr, "%s %3.0f%%  %.4g %s/s  %s left  %s\n", e->phase, 100 * share, rate, e->unit, left, e->text);
}

void progress_event(void *user, const struct mopt_event *e)
{
    struct progress *p = user;
    if (p->mode == PROGRESS_JSON) {
        if (e->kind != MOPT_EVENT_LOG || p->verbose)
            json_line(e);
        return;
    }
    if (e->kind == MOPT_EVENT_PROGRESS) {
        if (p->mode != PROGRESS_NONE)
            show(p, e);
        return;
    }
    if (e->kind == MOPT_EVENT_LOG && (p->quiet || !p->verbose))
        return;
    progress_end(p);
    const char *mark = e->kind == MOPT_EVENT_WARNING ? (p->color ? "\033[33mwarning:\033[0m " : "warning: ") : "";
    fprintf(stderr, "%s%s%s%s\n", mark, e->phase ? e->phase : "", e->phase && *e->phase ? ": " : "", e->text);
}
