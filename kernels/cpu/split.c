/* split.c - see split.h. */
#include "kernels/cpu/split.h"

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/team.h"

/* About ten microseconds of streaming work: less is not worth waking a thread. */
#define GRAIN_STEPS 32768
/* Slices are taken in turn, so a few for each thread even out what is unequal. */
#define MAX_SLICES 64

struct job {
    mo_split_fn *fn;
    void *arg;
    int64_t n_units, n_slices;
};

static void slice(void *arg, int i)
{
    const struct job *j = arg;
    int64_t share = j->n_units / j->n_slices, rest = j->n_units % j->n_slices;
    int64_t begin = i * share + (i < rest ? i : rest);
    j->fn(j->arg, begin, begin + share + (i < rest));
}

int64_t mo_split_grain(int64_t steps_per_unit)
{
    return steps_per_unit >= GRAIN_STEPS || steps_per_unit <= 0 ? 1 : (GRAIN_STEPS + steps_per_unit - 1) / steps_per_unit;
}

void mo_split(struct mo_device *dev, int64_t n_units, int64_t grain, mo_split_fn *fn, void *arg)
{
    struct job j = { fn, arg, n_units, n_units / grain };
    if (n_units <= 0)
        return;
    if (j.n_slices > MAX_SLICES)
        j.n_slices = MAX_SLICES;
    if (!dev || !dev->team || j.n_slices < 2)
        fn(arg, 0, n_units);
    else
        mo_team_run(dev->team, (int)j.n_slices, slice, &j);
}
