/* mpi.c - the plug-in libmopt-mpi.so: a group over MPI.
 *
 * The sums are not MPI_Allreduce, which adds in an order of the library's choice: they are made of messages between pairs,
 * so that the order is the tree of comm.h on every network. Up to SMALL bytes the ranks exchange all they have at each
 * level (recursive doubling). Above, each level halves what a rank is responsible for, and the way back puts the parts
 * together again (recursive halving and doubling; Thakur, Rabenseifner and Gropp, IJHPCA 19, 2005): 2 (P - 1) / P of the
 * bytes go out of each rank, which is the least there is.
 *
 * A sum is a list of steps (send, receive, what to do with what came); poll makes what steps it can. A large operator runs
 * for milliseconds in which its caller does not poll, and MPI moves nothing by itself: so while sums are under way a thread
 * looks after them ten thousand times a second. One lock is held around every call of MPI. */
#include <mpi.h>
#include <pthread.h>

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/comm/plugin.h"

enum { SMALL = 16 * 1024, MAX_JOBS = 64, MAX_LEVELS = 32, FIRST_TAG = 64, N_TAGS = 8192 };
#define GRACE_S 0.3             /* after the wish to stop: so long others may still answer */
#define STOP_S 5.0              /* likewise, once this rank has nothing else to do */
#define SPIN_S 0.02             /* how long a wait is awake */

enum stage { FOLD, REDUCE, GATHER, UNFOLD, DONE };

/* One sum under way. */
struct job {
    char *x, *inbox, *outbox;   /* outbox: bfloat16 on the way out; else NULL */
    size_t n, unit;             /* elements; bytes of one */
    enum mo_comm_type type;
    enum stage stage;
    int level;                  /* of REDUCE and GATHER */
    bool is_small, is_waiting;  /* messages are out */
    size_t first[MAX_LEVELS + 1], end[MAX_LEVELS + 1];      /* what this rank is responsible for at each level */
    size_t in_first, in_n;      /* where what comes belongs */
    MPI_Request requests[2];
    int tag;
};

struct mo_group {
    MPI_Comm comm, last;                    /* last: for `part` alone, so that it meets nothing else */
    int rank, size, n_pairs, n_levels;      /* n_pairs: P of comm.h, 2^n_levels */
    bool is_broken, owns_mpi;
    pthread_mutex_t lock;                   /* over MPI and all below */
    pthread_cond_t work;
    pthread_t helper;
    bool has_helper, is_closing;
    mo_comm_stop *stop;
    void *stop_user;
    struct job jobs[MAX_JOBS];              /* the sum with ticket t is at t % MAX_JOBS */
    uint64_t n_started, n_done;
    char name[64], why[256];
};

/* ---- giving up -------------------------------------------------------------------------------- */

static int broken(struct mo_group *g, const char *what)
{
    if (!g->is_broken)
        snprintf(g->why, sizeof g->why, "%s", what);
    g->is_broken = true;
    return -1;
}

static int check(struct mo_group *g, int code)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    if (code == MPI_SUCCESS)
        return 0;
    if (MPI_Error_string(code, text, &n) != MPI_SUCCESS)
        n = snprintf(text, sizeof text, "error %d", code);
    char words[200];
    snprintf(words, sizeof words, "MPI: %.*s", n < 190 ? n : 190, text);
    return broken(g, words);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Since when a call waits, and since when it was asked to stop; 0: not yet. */
struct patience { double waiting, stopping; };

/* Between two looks at messages that have not come. With more ranks than processors the rank that is waited for needs
 * this one's; and one that waits for long (rank 0 writes a file) does so asleep. */
static int idle(struct mo_group *g, struct patience *p)
{
    double t = now();
    p->waiting = p->waiting > 0 ? p->waiting : t;
    if (g->stop && g->stop(g->stop_user)) {
        p->stopping = p->stopping > 0 ? p->stopping : t;
        if (t - p->stopping > GRACE_S)
            return broken(g, "the other ranks do not answer");
    }
    if (t - p->waiting > SPIN_S)
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    else
        sched_yield();
    return 0;
}

/* ---- adding ------------------------------------------------------------------------------------- */

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* x = low + high, where x is one of them: of NaNs the left one is kept, so that all ranks have the same bits. */
#define ADD(T)                                                                  \
    do {                                                                        \
        T *x = (T *)(void *)j->x + first;                                       \
        const T *y = (const T *)(const void *)j->inbox;                         \
        if (is_low)                                                             \
            for (size_t i = 0; i < n; i++)                                      \
                x[i] = x[i] + y[i];                                             \
        else                                                                    \
            for (size_t i = 0; i < n; i++)                                      \
                x[i] = y[i] + x[i];                                             \
    } while (0)

static void add_inbox(struct job *j, size_t first, size_t n, bool is_low)
{
    switch (j->type) {
    case MO_COMM_F32: ADD(float); break;
    case MO_COMM_F64: ADD(double); break;
    case MO_COMM_U64: ADD(uint64_t); break;
    case MO_COMM_F32_AS_BF16: {
        float *x = (float *)(void *)j->x + first;
        const uint16_t *y = (const uint16_t *)(const void *)j->inbox;
        for (size_t i = 0; i < n; i++)
            x[i] += from_bf16(y[i]);
    }
    }
}

/* What goes out over the wire, as all will have it. */
static void round_own(struct job *j, size_t first, size_t n)
{
    float *x = (float *)(void *)j->x + first;
    for (size_t i = 0; j->outbox && i < n; i++)
        x[i] = from_bf16(to_bf16(x[i]));
}

static void expand_inbox(struct job *j, size_t first, size_t n)
{
    float *x = (float *)(void *)j->x + first;
    const uint16_t *y = (const uint16_t *)(const void *)j->inbox;
    for (size_t i = 0; i < n; i++)
        x[i] = from_bf16(y[i]);
}

/* ---- steps ---------------------------------------------------------------------------------------- */

static MPI_Datatype wire_type(const struct job *j)
{
    switch (j->type) {
    case MO_COMM_F32: return MPI_FLOAT;
    case MO_COMM_F64: return MPI_DOUBLE;
    case MO_COMM_U64: return MPI_UINT64_T;
    default: return MPI_UINT16_T;
    }
}

/* Elements [first, first + n) of x go to rank `to`; n 0: nothing does. */
static int send_part(struct mo_group *g, struct job *j, int to, size_t first, size_t n)
{
    const void *from = j->x + first * j->unit;
    if (j->outbox) {
        const float *x = (const float *)(const void *)j->x + first;
        uint16_t *out = (uint16_t *)(void *)j->outbox;
        for (size_t i = 0; i < n; i++)
            out[i] = to_bf16(x[i]);
        from = out;
    }
    return check(g, MPI_Isend(from, (int)n, wire_type(j), to, j->tag, g->comm, &j->requests[0]));
}

/* n elements from rank `from`: into the inbox, or straight to their place where nothing is to be done with them. */
static int receive_part(struct mo_group *g, struct job *j, int from, size_t first, size_t n, bool in_place)
{
    void *to = in_place && !j->outbox ? j->x + first * j->unit : j->inbox;
    j->in_first = first;
    j->in_n = n;
    return check(g, MPI_Irecv(to, (int)n, wire_type(j), from, j->tag, g->comm, &j->requests[1]));
}

/* Ranks beyond the largest power of two give what they have to a partner, and get the sum at the end. */
static int begin_fold(struct mo_group *g, struct job *j)
{
    if (g->rank >= g->n_pairs)
        return send_part(g, j, g->rank - g->n_pairs, 0, j->n);
    if (g->rank + g->n_pairs < g->size)
        return receive_part(g, j, g->rank + g->n_pairs, 0, j->n, false);
    return 0;
}

static void end_fold(struct mo_group *g, struct job *j)
{
    if (g->rank + g->n_pairs < g->size && g->rank < g->n_pairs)
        add_inbox(j, 0, j->n, true);
    j->stage = g->rank >= g->n_pairs ? UNFOLD : REDUCE;
    j->level = 0;
    j->first[0] = 0;
    j->end[0] = j->n;
    if (j->stage == REDUCE && !g->n_levels)
        j->stage = UNFOLD;
}

static int begin_reduce(struct mo_group *g, struct job *j)
{
    int partner = g->rank ^ 1 << j->level, d = j->level;
    bool is_low = g->rank < partner;
    size_t first = j->first[d], end = j->end[d], middle = first + (end - first) / 2;
    if (j->is_small)
        middle = is_low ? end : first;          /* all of it stays, and all of it goes */
    j->first[d + 1] = is_low ? first : middle;
    j->end[d + 1] = is_low ? middle : end;
    size_t mine = j->end[d + 1] - j->first[d + 1], theirs = end - first - mine;
    if (receive_part(g, j, partner, j->first[d + 1], mine, false))
        return -1;
    if (j->is_small)
        return send_part(g, j, partner, first, end - first);
    return send_part(g, j, partner, is_low ? middle : first, theirs);
}

static void end_reduce(struct mo_group *g, struct job *j)
{
    add_inbox(j, j->in_first, j->in_n, !(g->rank >> j->level & 1));
    if (++j->level < g->n_levels)
        return;
    round_own(j, j->first[j->level], j->end[j->level] - j->first[j->level]);
    j->stage = j->is_small ? UNFOLD : GATHER;
}

static int begin_gather(struct mo_group *g, struct job *j)
{
    int d = j->level - 1, partner = g->rank ^ 1 << d;
    bool is_low = g->rank < partner;
    size_t first = j->first[d + 1], n = j->end[d + 1] - first;
    size_t other = is_low ? j->end[d + 1] : j->first[d], n_other = j->end[d] - j->first[d] - n;
    if (receive_part(g, j, partner, other, n_other, true))
        return -1;
    return send_part(g, j, partner, first, n);
}

static void end_gather(struct job *j)
{
    if (j->outbox)
        expand_inbox(j, j->in_first, j->in_n);
    if (--j->level == 0)
        j->stage = UNFOLD;
}

static int begin_unfold(struct mo_group *g, struct job *j)
{
    if (g->rank >= g->n_pairs)
        return receive_part(g, j, g->rank - g->n_pairs, 0, j->n, true);
    if (g->rank + g->n_pairs < g->size)
        return send_part(g, j, g->rank + g->n_pairs, 0, j->n);
    return 0;
}

static int begin_step(struct mo_group *g, struct job *j)
{
    j->requests[0] = j->requests[1] = MPI_REQUEST_NULL;
    j->is_waiting = true;
    switch (j->stage) {
    case FOLD: return begin_fold(g, j);
    case REDUCE: return begin_reduce(g, j);
    case GATHER: return begin_gather(g, j);
    case UNFOLD: return begin_unfold(g, j);
    case DONE: break;
    }
    return 0;
}

static void end_step(struct mo_group *g, struct job *j)
{
    j->is_waiting = false;
    switch (j->stage) {
    case FOLD: end_fold(g, j); break;
    case REDUCE: end_reduce(g, j); break;
    case GATHER: end_gather(j); break;
    case UNFOLD:
        if (j->outbox && g->rank >= g->n_pairs)
            expand_inbox(j, 0, j->n);
        j->stage = DONE;
        break;
    case DONE: break;
    }
}

/* As many steps as can be made without waiting. */
static int advance(struct mo_group *g, struct job *j)
{
    while (j->stage != DONE) {
        int is_there = 0;
        if (!j->is_waiting && begin_step(g, j))
            return -1;
        if (check(g, MPI_Testall(2, j->requests, &is_there, MPI_STATUSES_IGNORE)))
            return -1;
        if (!is_there)
            return 0;
        end_step(g, j);
    }
    return 0;
}

/* ---- the table: sums --------------------------------------------------------------------------------- */

/* With the lock held. */
static uint64_t progress(struct mo_group *g)
{
    for (uint64_t t = g->n_done + 1; t <= g->n_started && !g->is_broken; t++)
        if (advance(g, &g->jobs[t % MAX_JOBS]))
            break;
    while (!g->is_broken && g->n_done < g->n_started && g->jobs[(g->n_done + 1) % MAX_JOBS].stage == DONE) {
        struct job *j = &g->jobs[++g->n_done % MAX_JOBS];
        free(j->inbox);
        free(j->outbox);
        j->inbox = j->outbox = NULL;
    }
    return g->n_done;
}

static uint64_t poll_mpi(struct mo_group *g)
{
    pthread_mutex_lock(&g->lock);
    uint64_t done = progress(g);
    pthread_mutex_unlock(&g->lock);
    return done;
}

static void *help(void *arg)
{
    struct mo_group *g = arg;
    pthread_mutex_lock(&g->lock);
    while (!g->is_closing) {
        if (g->is_broken || progress(g) == g->n_started) {
            pthread_cond_wait(&g->work, &g->lock);
            continue;
        }
        pthread_mutex_unlock(&g->lock);
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
        pthread_mutex_lock(&g->lock);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

/* Whether the sum is done; -1: it never will be. */
static int is_done(struct mo_group *g, uint64_t ticket)
{
    pthread_mutex_lock(&g->lock);
    int done = progress(g) >= ticket || g->jobs[ticket % MAX_JOBS].stage == DONE;
    done = g->is_broken && !done ? -1 : done;
    pthread_mutex_unlock(&g->lock);
    return done;
}

static int wait_mpi(struct mo_group *g, uint64_t ticket)
{
    struct patience patience = { 0 };
    int done;
    if (!ticket || ticket > g->n_started)
        return broken(g, "a sum that was not started");
    while (!(done = is_done(g, ticket)))
        if (idle(g, &patience))
            return -1;
    return done < 0 ? -1 : 0;
}

/* With the lock held and a place free. */
static uint64_t begin(struct mo_group *g, void *x, size_t n, enum mo_comm_type type)
{
    struct job *j = &g->jobs[++g->n_started % MAX_JOBS];
    *j = (struct job){ .x = x, .n = n, .type = type, .stage = g->size > 1 ? FOLD : DONE };
    j->unit = type == MO_COMM_F32 || type == MO_COMM_F32_AS_BF16 ? 4 : 8;
    j->is_small = n * j->unit <= SMALL || n < (size_t)g->n_pairs;
    j->tag = FIRST_TAG + (int)(g->n_started % N_TAGS);
    if (type == MO_COMM_F32_AS_BF16 && j->is_small)
        j->type = MO_COMM_F32;
    bool halves = !j->is_small && g->size == g->n_pairs;        /* else somebody receives all of it */
    size_t wire = j->type == MO_COMM_F32_AS_BF16 ? 2 : j->unit, room = halves ? n / 2 + 1 : n;
    if (n > INT_MAX) {
        broken(g, "a sum of more than 2^31 numbers");
        return 0;
    }
    j->inbox = g->size > 1 ? malloc(room * wire + 64) : NULL;
    j->outbox = j->type == MO_COMM_F32_AS_BF16 && g->size > 1 ? malloc(room * wire + 64) : NULL;
    if (g->size > 1 && (!j->inbox || (j->type == MO_COMM_F32_AS_BF16 && !j->outbox))) {
        broken(g, "out of memory for a sum");
        return 0;
    }
    progress(g);
    if (g->has_helper && g->n_done < g->n_started)
        pthread_cond_signal(&g->work);
    return g->is_broken ? 0 : g->n_started;
}

static uint64_t start_mpi(struct mo_group *g, void *x, size_t n, enum mo_comm_type type)
{
    uint64_t oldest = g->n_started < MAX_JOBS ? 0 : g->n_started + 1 - MAX_JOBS;
    while (oldest && poll_mpi(g) < oldest)
        if (g->is_broken || wait_mpi(g, oldest))
            return 0;
    pthread_mutex_lock(&g->lock);
    uint64_t ticket = g->is_broken ? 0 : begin(g, x, n, type);
    pthread_mutex_unlock(&g->lock);
    return ticket;
}

/* ---- the table: the rest -------------------------------------------------------------------------------- */

static int finish(struct mo_group *g, MPI_Request *request)
{
    struct patience patience = { 0 };
    for (int is_there = 0;;) {
        pthread_mutex_lock(&g->lock);
        int bad = check(g, MPI_Test(request, &is_there, MPI_STATUS_IGNORE));
        pthread_mutex_unlock(&g->lock);
        if (bad)
            return -1;
        if (is_there)
            return 0;
        if (idle(g, &patience))
            return -1;
    }
}

static int broadcast_mpi(struct mo_group *g, void *bytes, size_t n_bytes)
{
    enum { CHUNK = 1 << 30 };
    for (size_t at = 0; at < n_bytes; at += CHUNK) {
        MPI_Request request;
        size_t n = n_bytes - at < CHUNK ? n_bytes - at : CHUNK;
        pthread_mutex_lock(&g->lock);
        int bad = g->is_broken || check(g, MPI_Ibcast((char *)bytes + at, (int)n, MPI_BYTE, 0, g->comm, &request));
        pthread_mutex_unlock(&g->lock);
        if (bad || finish(g, &request))
            return -1;
    }
    return 0;
}

static int all_gather_mpi(struct mo_group *g, const void *mine, size_t n_bytes, void *all)
{
    MPI_Request request;
    if (n_bytes > INT_MAX)
        return broken(g, "more than 2 GiB to be gathered from each rank");
    pthread_mutex_lock(&g->lock);
    int bad = g->is_broken || check(g, MPI_Iallgather(mine, (int)n_bytes, MPI_BYTE, all, (int)n_bytes, MPI_BYTE, g->comm,
                                                      &request));
    pthread_mutex_unlock(&g->lock);
    return bad ? -1 : finish(g, &request);
}

static int barrier_mpi(struct mo_group *g)
{
    MPI_Request request;
    pthread_mutex_lock(&g->lock);
    int bad = g->is_broken || check(g, MPI_Ibarrier(g->comm, &request));
    pthread_mutex_unlock(&g->lock);
    return bad ? -1 : finish(g, &request);
}

static int part_mpi(struct mo_group *g, int word, double patience_s, int *all)
{
    MPI_Request request;
    double since = now(), stopping = 0;
    pthread_mutex_lock(&g->lock);
    bool ok = MPI_Iallgather(&word, 1, MPI_INT, all, 1, MPI_INT, g->last, &request) == MPI_SUCCESS;
    pthread_mutex_unlock(&g->lock);
    for (int is_there = 0; ok;) {
        pthread_mutex_lock(&g->lock);
        ok = MPI_Test(&request, &is_there, MPI_STATUS_IGNORE) == MPI_SUCCESS;
        pthread_mutex_unlock(&g->lock);
        if (ok && is_there)
            return 0;
        double t = now();
        bool is_stopped = g->stop && g->stop(g->stop_user);
        stopping = is_stopped && stopping <= 0 ? t : stopping;
        if (t - since > patience_s || (patience_s > 1e9 && stopping > 0 && t - stopping > STOP_S))
            return -1;
        if (t - since > SPIN_S)
            nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
        else
            sched_yield();
    }
    return -1;
}

static void abort_mpi(struct mo_group *g, int code)
{
    pthread_mutex_lock(&g->lock);
    MPI_Abort(g->comm, code);
    _Exit(code);
}

static int rank_mpi(const struct mo_group *g)
{
    return g->rank;
}

static int size_mpi(const struct mo_group *g)
{
    return g->size;
}

static const char *describe_mpi(const struct mo_group *g)
{
    return g->name;
}

static const char *why_mpi(const struct mo_group *g)
{
    return g->why;
}

static void on_stop_mpi(struct mo_group *g, mo_comm_stop *stop, void *user)
{
    g->stop = stop;
    g->stop_user = user;
}

static void close_mpi(struct mo_group *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->is_closing = true;
    pthread_cond_signal(&g->work);
    pthread_mutex_unlock(&g->lock);
    if (g->has_helper)
        pthread_join(g->helper, NULL);
    pthread_cond_destroy(&g->work);
    pthread_mutex_destroy(&g->lock);
    for (int i = 0; i < MAX_JOBS; i++) {
        free(g->jobs[i].inbox);
        free(g->jobs[i].outbox);
    }
    if (!g->is_broken) {
        MPI_Comm_free(&g->comm);
        MPI_Comm_free(&g->last);
        if (g->owns_mpi)
            MPI_Finalize();
    }
    free(g);
}

static struct mo_group *open_mpi(char *why, size_t why_bytes)
{
    struct mo_group *g = calloc(1, sizeof *g);
    int is_there = 0, level = MPI_THREAD_SINGLE;
    if (!g) {
        snprintf(why, why_bytes, "out of memory");
        return NULL;
    }
    bool ok = MPI_Initialized(&is_there) == MPI_SUCCESS;
    g->owns_mpi = !is_there;
    if (ok && !is_there)
        ok = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) == MPI_SUCCESS;
    ok = ok && MPI_Comm_dup(MPI_COMM_WORLD, &g->comm) == MPI_SUCCESS &&
         MPI_Comm_dup(MPI_COMM_WORLD, &g->last) == MPI_SUCCESS &&
         MPI_Comm_set_errhandler(g->comm, MPI_ERRORS_RETURN) == MPI_SUCCESS &&
         MPI_Comm_rank(g->comm, &g->rank) == MPI_SUCCESS && MPI_Comm_size(g->comm, &g->size) == MPI_SUCCESS;
    if (!ok) {
        snprintf(why, why_bytes, "MPI could not be started");
        free(g);
        return NULL;
    }
    for (g->n_pairs = 1; g->n_pairs * 2 <= g->size; g->n_levels++)
        g->n_pairs *= 2;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->work, NULL);
    g->has_helper = level >= MPI_THREAD_SERIALIZED && g->size > 1 && !pthread_create(&g->helper, NULL, help, g);
    snprintf(g->name, sizeof g->name, "mpi, %d rank%s", g->size, g->size == 1 ? "" : "s");
    return g;
}

static const struct mo_comm table = {
    .name = "mpi",
    .open = open_mpi,
    .close = close_mpi,
    .rank = rank_mpi,
    .size = size_mpi,
    .describe = describe_mpi,
    .on_stop = on_stop_mpi,
    .start = start_mpi,
    .poll = poll_mpi,
    .wait = wait_mpi,
    .broadcast = broadcast_mpi,
    .all_gather = all_gather_mpi,
    .barrier = barrier_mpi,
    .part = part_mpi,
    .end_all = abort_mpi,
    .why = why_mpi,
};

__attribute__((visibility("default"))) const struct mo_comm *mo_mpi_plugin(const char *signature);
const struct mo_comm *mo_mpi_plugin(const char *signature)
{
    return strcmp(signature, MO_MPI_SIGNATURE) ? NULL : &table;
}
