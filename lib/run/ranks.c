/* ranks.c - joining and leaving the group of ranks, and what is done together. */
#include "lib/run/ranks.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/comm/comm.h"

/* ---- joining ---------------------------------------------------------------------------- */

static bool wants_stop(void *user)
{
    const struct mopt_ctx *ctx = user;
    return atomic_load_explicit(&ctx->is_stopped, memory_order_relaxed);
}

/* Where a rank runs: ranks of one host whose processors overlap share them. */
struct place { uint64_t host; cpu_set_t processors; };

static enum mopt_status share_threads(struct mopt_ctx *ctx)
{
    struct place mine = {0}, *all = mo_mem_new((size_t)ctx->n_ranks, sizeof *all);
    char name[256] = "";
    int n_beside = 0;
    if (!all)
        return mo_no_memory(ctx, (size_t)ctx->n_ranks * sizeof *all, "the places of ranks");
    if (gethostname(name, sizeof name - 1))
        name[0] = 0;
    mine.host = mo_hash64(name, strlen(name), 0);
    if (sched_getaffinity(0, sizeof mine.processors, &mine.processors))
        CPU_ZERO(&mine.processors);
    enum mopt_status status = mo_ranks_gather(ctx, &mine, sizeof mine, all);
    for (int r = 0; !status && r < ctx->n_ranks; r++) {
        cpu_set_t both;
        CPU_AND(&both, &mine.processors, &all[r].processors);
        n_beside += all[r].host == mine.host && (r == ctx->rank || CPU_COUNT(&both) > 0);
        ctx->local_rank += all[r].host == mine.host && r < ctx->rank;
    }
    if (!status && !ctx->has_own_threads)
        ctx->n_threads = MO_MAX(ctx->n_threads / MO_MAX(n_beside, 1), 1);
    mo_mem_free(all);
    return status;
}

int mopt_launched_rank(void)
{
    return mo_comm_launch().rank;
}

enum mopt_status mopt_join(struct mopt_ctx *ctx)
{
    struct mo_launch launch = mo_comm_launch();
    char why[512] = "";
    if (ctx->comm || !launch.is_launched)
        return MOPT_OK;
    const struct mo_comm *comm = mo_comm_find(why, sizeof why);
    struct mo_group *group = comm ? comm->open(why, sizeof why) : NULL;
    if (!group)
        return mo_fail(ctx, MOPT_FAILED, "%s started %d ranks, and they cannot talk: %s", launch.by, launch.size, why);
    ctx->comm = comm;
    ctx->group = group;
    ctx->rank = comm->rank(group);
    ctx->n_ranks = comm->size(group);
    comm->on_stop(group, wants_stop, ctx);
    return ctx->n_ranks > 1 ? share_threads(ctx) : MOPT_OK;
}

int mopt_rank(const struct mopt_ctx *ctx)
{
    return ctx->rank;
}

int mopt_n_ranks(const struct mopt_ctx *ctx)
{
    return ctx->n_ranks;
}

/* How long the others may take to come to the same end: one that failed may be the only one, one that was interrupted
 * waits for rank 0's checkpoint. */
static double patience(enum mopt_status status)
{
    bool is_well = status == MOPT_OK || status == MOPT_GATE;
    return is_well ? INFINITY : status == MOPT_INTERRUPTED ? 10 : 2;
}

enum mopt_status mopt_leave(struct mopt_ctx *ctx, enum mopt_status status, void (*say)(void *user), void *user)
{
    if (!ctx->comm)
        return status;
    int *all = mo_mem_new((size_t)ctx->n_ranks, sizeof *all);
    bool is_gate = status == MOPT_GATE && ctx->rank;            /* which is rank 0's to judge */
    status = is_gate ? MOPT_OK : status;
    bool failed = status && status != MOPT_GATE,
         together = all && !ctx->comm->part(ctx->group, status, patience(status), all);
    if (failed && !(together && all[0] == (int)status))
        say(user);
    if (!together)
        ctx->comm->end_all(ctx->group, status ? (int)status : MOPT_FAILED);
    for (int r = 0; r < ctx->n_ranks && !failed; r++)
        if (all[r] && all[r] != MOPT_GATE) {
            status = (enum mopt_status)all[r];
            failed = true;
        }
    mo_mem_free(all);
    ctx->comm->close(ctx->group);
    ctx->comm = NULL;
    ctx->group = NULL;
    return status;
}

/* ---- together ------------------------------------------------------------------------------ */

static enum mopt_status gone(struct mopt_ctx *ctx)
{
    const char *why = ctx->comm->why(ctx->group);
    if (atomic_load(&ctx->is_stopped))
        return mo_fail(ctx, MOPT_INTERRUPTED, "interrupted while other ranks were waited for");
    return mo_fail(ctx, MOPT_FAILED, "a rank is gone: %s", why);
}

static enum mopt_status sum(struct mopt_ctx *ctx, void *x, size_t n, enum mo_comm_type type)
{
    if (ctx->n_ranks < 2 || !n)
        return MOPT_OK;
    uint64_t ticket = ctx->comm->start(ctx->group, x, n, type);
    return ticket && !ctx->comm->wait(ctx->group, ticket) ? MOPT_OK : gone(ctx);
}

enum mopt_status mo_ranks_sum(struct mopt_ctx *ctx, double *x, size_t n)
{
    return sum(ctx, x, n, MO_COMM_F64);
}

enum mopt_status mo_ranks_count(struct mopt_ctx *ctx, uint64_t *x, size_t n)
{
    return sum(ctx, x, n, MO_COMM_U64);
}

enum mopt_status mo_ranks_gather(struct mopt_ctx *ctx, const void *mine, size_t n_bytes, void *all)
{
    if (ctx->n_ranks < 2) {
        memcpy(all, mine, n_bytes);
        return MOPT_OK;
    }
    return ctx->comm->all_gather(ctx->group, mine, n_bytes, all) ? gone(ctx) : MOPT_OK;
}

enum mopt_status mo_ranks_agree(struct mopt_ctx *ctx, const void *bytes, size_t n_bytes, const char *what)
{
    if (ctx->n_ranks < 2)
        return MOPT_OK;
    uint64_t mine = mo_xxh64(bytes, n_bytes), *all = mo_mem_new((size_t)ctx->n_ranks, sizeof *all);
    if (!all)
        return mo_no_memory(ctx, (size_t)ctx->n_ranks * sizeof *all, "comparing ranks");
    enum mopt_status status = mo_ranks_gather(ctx, &mine, sizeof mine, all);
    for (int r = 1; !status && r < ctx->n_ranks; r++)
        if (all[r] != all[0])
            status = mo_fail(ctx, MOPT_FAILED, "ranks 0 and %d differ in the %s: their machines do not compute the same "
                             "bits (another processor, another library?), or memory is faulty", r, what);
    mo_mem_free(all);
    return status;
}

/* ---- sums beside other work -------------------------------------------------------------------- */

static enum mopt_status start(struct mopt_ctx *ctx, void *x, size_t n, enum mo_comm_type type, uint64_t *ticket)
{
    *ticket = 0;
    if (ctx->n_ranks < 2 || !n)
        return MOPT_OK;
    *ticket = ctx->comm->start(ctx->group, x, n, type);
    return *ticket ? MOPT_OK : gone(ctx);
}

enum mopt_status mo_ranks_start(struct mopt_ctx *ctx, float *x, size_t n, bool bf16, uint64_t *ticket)
{
    return start(ctx, x, n, bf16 ? MO_COMM_F32_AS_BF16 : MO_COMM_F32, ticket);
}

enum mopt_status mo_ranks_start_sums(struct mopt_ctx *ctx, double *x, size_t n, uint64_t *ticket)
{
    return start(ctx, x, n, MO_COMM_F64, ticket);
}

uint64_t mo_ranks_poll(struct mopt_ctx *ctx)
{
    return ctx->n_ranks < 2 ? UINT64_MAX : ctx->comm->poll(ctx->group);
}

enum mopt_status mo_ranks_wait(struct mopt_ctx *ctx, uint64_t ticket)
{
    return ticket && ctx->comm->wait(ctx->group, ticket) ? gone(ctx) : MOPT_OK;
}

/* ---- between GPUs ---------------------------------------------------------------------------------- */

struct mo_ranks_wire {
    struct mopt_ctx *ctx;
    const struct mo_comm_device *table;
    struct mo_wire *wire;
};

/* Whether every rank can. */
static enum mopt_status all_can(struct mopt_ctx *ctx, bool can, bool *all)
{
    uint64_t n = can;
    MO_TRY(mo_ranks_count(ctx, &n, 1));
    *all = n == (uint64_t)ctx->n_ranks;
    return MOPT_OK;
}

enum mopt_status mo_ranks_wire_open(struct mopt_ctx *ctx, const void *mem, struct mo_ranks_wire **out)
{
    char why[512] = "another rank has no NCCL";
    const struct mo_comm_device *table = mo_comm_device_find(why, sizeof why);
    bool can = table, all = false;
    *out = NULL;
    MO_TRY(all_can(ctx, can, &all));
    struct mo_wire *wire = all ? table->open(ctx->comm, ctx->group, mem, why, sizeof why) : NULL;
    can = wire;
    if (all)
        MO_TRY(all_can(ctx, can, &all));
    struct mo_ranks_wire *w = all ? mo_mem_new(1, sizeof *w) : NULL;
    if (w) {
        *w = (struct mo_ranks_wire){ ctx, table, wire };
        *out = w;
        return MOPT_OK;
    }
    if (wire)
        table->close(wire);
    if (all)
        return mo_no_memory(ctx, sizeof *w, "a wire between GPUs");
    mo_log(ctx, "comm", "gradients go through the host, not over NCCL: %s", why);
    return MOPT_OK;
}

void mo_ranks_wire_close(struct mo_ranks_wire *w)
{
    if (w)
        w->table->close(w->wire);
    mo_mem_free(w);
}

static enum mopt_status cut(struct mo_ranks_wire *w)
{
    return mo_fail(w->ctx, MOPT_FAILED, "the sum between GPUs failed: %s", w->table->why(w->wire));
}

enum mopt_status mo_ranks_wire_start(struct mo_ranks_wire *w, float *x, size_t n, uint64_t *ticket)
{
    *ticket = w->table->start(w->wire, x, n);
    return *ticket ? MOPT_OK : cut(w);
}

uint64_t mo_ranks_wire_poll(struct mo_ranks_wire *w)
{
    return w->table->poll(w->wire);
}

enum mopt_status mo_ranks_wire_wait(struct mo_ranks_wire *w, uint64_t ticket)
{
    return w->table->wait(w->wire, ticket) ? cut(w) : MOPT_OK;
}
