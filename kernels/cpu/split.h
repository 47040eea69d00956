/* split.h - cutting one kernel's work over the device's threads.
 *
 * fn(arg, begin, end) does the units begin .. end-1; every unit is done by
 * exactly one call and must not depend on the others, so that the result is the
 * same for any cut. `grain`: units that are worth a thread of their own. */
#ifndef MO_SPLIT_H
#define MO_SPLIT_H

#include "kernels/backend.h"

typedef void mo_split_fn(void *arg, int64_t begin, int64_t end);
void mo_split(struct mo_device *dev, int64_t n_units, int64_t grain, mo_split_fn *fn, void *arg);
/* The grain for units of that many elementary steps. */
int64_t mo_split_grain(int64_t steps_per_unit);

#endif
