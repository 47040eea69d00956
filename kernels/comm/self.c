/* self.c - a group of one process: sums are what they were, and everybody has heard everything. */
#include <stdlib.h>
#include <string.h>

#include "kernels/comm/comm.h"

struct mo_group { uint64_t n_sums; };

static struct mo_group *open_self(char *why, size_t why_bytes)
{
    struct mo_group *g = calloc(1, sizeof *g);
    if (!g && why_bytes)
        why[0] = 0;
    return g;
}

static void close_self(struct mo_group *g)
{
    free(g);
}

static int rank(const struct mo_group *g)
{
    (void)g;
    return 0;
}

static int size(const struct mo_group *g)
{
    (void)g;
    return 1;
}

static const char *describe(const struct mo_group *g)
{
    (void)g;
    return "one process";
}

static void on_stop(struct mo_group *g, mo_comm_stop *stop, void *user)
{
    (void)g, (void)stop, (void)user;
}

static uint64_t start(struct mo_group *g, void *x, size_t n, enum mo_comm_type type)
{
    (void)x, (void)n, (void)type;
    return ++g->n_sums;
}

static uint64_t poll(struct mo_group *g)
{
    return g->n_sums;
}

static int wait(struct mo_group *g, uint64_t ticket)
{
    return ticket <= g->n_sums ? 0 : -1;
}

static int broadcast(struct mo_group *g, void *bytes, size_t n_bytes)
{
    (void)g, (void)bytes, (void)n_bytes;
    return 0;
}

static int all_gather(struct mo_group *g, const void *mine, size_t n_bytes, void *all)
{
    (void)g;
    if (n_bytes)
        memcpy(all, mine, n_bytes);
    return 0;
}

static int barrier(struct mo_group *g)
{
    (void)g;
    return 0;
}

static int part(struct mo_group *g, int word, double patience_s, int *all)
{
    (void)g, (void)patience_s;
    all[0] = word;
    return 0;
}

static void abort_self(struct mo_group *g, int code)
{
    (void)g;
    _Exit(code);
}

static const char *why_self(const struct mo_group *g)
{
    (void)g;
    return "";
}

const struct mo_comm mo_comm_self = {
    .name = "self",
    .open = open_self,
    .close = close_self,
    .rank = rank,
    .size = size,
    .describe = describe,
    .on_stop = on_stop,
    .start = start,
    .poll = poll,
    .wait = wait,
    .broadcast = broadcast,
    .all_gather = all_gather,
    .barrier = barrier,
    .part = part,
    .end_all = abort_self,
    .why = why_self,
};
