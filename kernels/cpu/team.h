/* team.h - one team of threads, owned by a device.
 *
 * A job is n slices; n depends on the work alone, never on the number of
 * threads, so that what a slice computes does not either. Threads take slices
 * in turn; the caller works too. Waiting spins shortly, then sleeps. */
#ifndef MO_TEAM_H
#define MO_TEAM_H

struct mo_team;

typedef void mo_team_fn(void *arg, int slice);

/* NULL when out of memory or threads. n_threads counts the caller. */
struct mo_team *mo_team_new(int n_threads);
void mo_team_free(struct mo_team *team);
/* Runs fn(arg, 0..n_slices-1) and returns when all are done. team may be NULL. Not to be called from inside a slice. */
void mo_team_run(struct mo_team *team, int n_slices, mo_team_fn *fn, void *arg);

#endif
