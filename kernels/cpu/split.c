/* split.c - see split.h. */
#include "kernels/cpu/split.h"

/* About 16 microseconds of streaming work: less is not worth waking a thread. */
#define GRAIN_STEPS 32768

int64_t mo_split_grain(int64_t steps_per_unit)
{
    return steps_per_unit >= GRAIN_STEPS ? 1 : (GRAIN_STEPS + steps_per_unit - 1) / (steps_per_unit > 0 ? steps_per_unit : 1);
}

void mo_split(struct mo_device *dev, int64_t n_units, int64_t grain, mo_split_fn *fn, void *arg)
{
    (void)dev, (void)grain;
    if (n_units > 0)
        fn(arg, 0, n_units);
}
