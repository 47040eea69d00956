/* team.c - threads that take slices of a job from one counter.
 *
 * The ticket holds the job's number (upper half) and how many of its slices
 * nobody has taken yet (lower half). Who lowers it owns a slice; the caller
 * does not begin another job before every owned slice is done, so the job's
 * fields may be read after a successful exchange and only then. */
#include "kernels/cpu/team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#define relax() __builtin_ia32_pause()
#else
#define relax() __asm__ volatile("" ::: "memory")
#endif

/* Longer than the gap between two kernels of a step, and than waking a thread takes; short enough not to take the core
 * from a neighbour. By the clock: a pause is 10 ns on one processor and 50 on another. */
#define SPIN_NS 100000
#define SPINS_A_LOOK 64

struct mo_team {
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) atomic_int n_done;
    _Alignas(64) atomic_int n_sleeping;
    atomic_bool is_caller_waiting, is_ending;
    mo_team_fn *fn;
    void *arg;
    int n_slices;
    int n_workers;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t workers[];
};

/* Take slices of the current job until none is left. */
static void work_on(struct mo_team *team)
{
    uint64_t ticket = atomic_load(&team->ticket);
    while ((uint32_t)ticket) {
        if (!atomic_compare_exchange_weak(&team->ticket, &ticket, ticket - 1))
            continue;
        int n_slices = team->n_slices;
        team->fn(team->arg, n_slices - (int)(uint32_t)ticket);
        if (atomic_fetch_add(&team->n_done, 1) + 1 == n_slices && atomic_load(&team->is_caller_waiting)) {
            pthread_mutex_lock(&team->lock);
            pthread_cond_signal(&team->done);
            pthread_mutex_unlock(&team->lock);
        }
        ticket = atomic_load(&team->ticket);
    }
}

static bool has_work(struct mo_team *team)
{
    return (uint32_t)atomic_load(&team->ticket) || atomic_load(&team->is_ending);
}

static bool is_done(struct mo_team *team)
{
    return atomic_load(&team->n_done) == team->n_slices;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

/* False: it took too long. */
static bool spin(struct mo_team *team, bool (*is_over)(struct mo_team *))
{
    int64_t end = 0;
    for (;;) {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (is_over(team))
                return true;
            relax();
        }
        int64_t now = now_ns();
        if (!end)
            end = now + SPIN_NS;
        else if (now > end)
            return false;
    }
}

static void *worker_main(void *arg)
{
    struct mo_team *team = arg;
    while (!atomic_load(&team->is_ending)) {
        work_on(team);
        if (spin(team, has_work))
            continue;
        pthread_mutex_lock(&team->lock);
        atomic_fetch_add(&team->n_sleeping, 1);
        while (!has_work(team))
            pthread_cond_wait(&team->work, &team->lock);
        atomic_fetch_sub(&team->n_sleeping, 1);
        pthread_mutex_unlock(&team->lock);
    }
    return NULL;
}

static void wake_all(struct mo_team *team)
{
    if (atomic_load(&team->n_sleeping) == 0)
        return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->work);
    pthread_mutex_unlock(&team->lock);
}

static void wait_done(struct mo_team *team)
{
    if (spin(team, is_done))
        return;
    pthread_mutex_lock(&team->lock);
    atomic_store(&team->is_caller_waiting, true);
    while (!is_done(team))
        pthread_cond_wait(&team->done, &team->lock);
    atomic_store(&team->is_caller_waiting, false);
    pthread_mutex_unlock(&team->lock);
}

void mo_team_run(struct mo_team *team, int n_slices, mo_team_fn *fn, void *arg)
{
    if (!team || n_slices < 2) {
        for (int i = 0; i < n_slices; i++)
            fn(arg, i);
        return;
    }
    team->fn = fn;
    team->arg = arg;
    team->n_slices = n_slices;
    atomic_store(&team->n_done, 0);
    uint64_t job = (atomic_load(&team->ticket) >> 32) + 1;
    atomic_store(&team->ticket, job << 32 | (uint32_t)n_slices);
    wake_all(team);
    work_on(team);
    wait_done(team);
}

struct mo_team *mo_team_new(int n_threads)
{
    int n_workers = n_threads > 1 ? n_threads - 1 : 0;
    size_t bytes = sizeof(struct mo_team) + (size_t)n_workers * sizeof(pthread_t);
    struct mo_team *team = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!team)
        return NULL;
    *team = (struct mo_team){ .n_workers = 0 };
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->work, NULL);
    pthread_cond_init(&team->done, NULL);
    for (int i = 0; i < n_workers; i++) {
        if (pthread_create(&team->workers[i], NULL, worker_main, team)) {
            mo_team_free(team);
            return NULL;
        }
        team->n_workers++;
    }
    return team;
}

void mo_team_free(struct mo_team *team)
{
    if (!team)
        return;
    pthread_mutex_lock(&team->lock);
    atomic_store(&team->is_ending, true);
    pthread_cond_broadcast(&team->work);
    pthread_mutex_unlock(&team->lock);
    for (int i = 0; i < team->n_workers; i++)
        pthread_join(team->workers[i], NULL);
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->work);
    pthread_cond_destroy(&team->done);
    free(team);
}
