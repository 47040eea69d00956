/* bench_train.h - one training step on drawn samples, for bench --train. */
#ifndef MO_BENCH_TRAIN_H
#define MO_BENCH_TRAIN_H

#include "lib/passes/pass.h"
#include "lib/run/run.h"

struct mo_bench_train;
/* For a run made with options.train whose shapes are set and whose only output is what is trained on. Labels are
 * drawn from seed. Keeps run. */
MOPT_MUST_CHECK enum mopt_status mo_bench_train_new(struct mo_run *run, uint64_t seed, struct mo_bench_train **step);
void mo_bench_train_free(struct mo_bench_train *step);
/* Forward, loss, backward, update. */
MOPT_MUST_CHECK enum mopt_status mo_bench_train_step(struct mo_bench_train *step);

#endif
