/* progress.h - long work on stderr: a bar on a terminal, a line now and then elsewhere, JSON for machines. */
#ifndef MOPT_PROGRESS_H
#define MOPT_PROGRESS_H

#include "mopt.h"

enum progress_mode { PROGRESS_AUTO, PROGRESS_BAR, PROGRESS_PLAIN, PROGRESS_JSON, PROGRESS_NONE };

struct progress {
    enum progress_mode mode;
    bool quiet, verbose, color;
    bool has_bar;           /* a bar stands on the current line */
    double start_s, last_s;
    char phase[32];
};

void progress_init(struct progress *p, enum progress_mode mode, bool quiet, bool verbose);
/* A mopt_event_fn; user is the struct progress. */
void progress_event(void *user, const struct mopt_event *event);
/* Ends the bar's line. */
void progress_end(struct progress *p);

#endif
