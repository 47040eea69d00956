/* shards.h - a batch cut into parts that are computed one by one, on one process or on many, to the same bits.
 *
 * Part s of S gets the samples [s n / S, (s + 1) n / S) of a batch of n. A process of R has S / R neighbouring parts, each
 * a run of its own that shares the parameters. What is added up over the batch (gradients, statistics of
 * BatchNormalization, the loss) is added up over one binary tree with the parts as leaves: where R is a power of two and
 * divides S, the parts of a process are a subtree, and the result does not depend on R.
 *
 * The parts walk the graph side by side from one node that they share (op->sync_elems) to the next. Gradients lie in
 * buckets, neighbours in the flat buffer, from its end on, which is written first; the sum of a bucket over the processes
 * begins when its last gradient is there and goes on beside the rest of the backward pass. */
#ifndef MO_SHARDS_H
#define MO_SHARDS_H

#include "lib/run/ranks.h"
#include "lib/run/run.h"

struct mo_shard_options {
    uint32_t n_shards;              /* S: a multiple of the ranks */
    size_t bucket_bytes;            /* a bucket is closed when it has so many; 0: what suits the device */
    bool bf16;                      /* gradients on the wire */
};

/* What the sums over processes have cost. */
struct mo_shard_use {
    uint64_t n_sums, n_bytes;       /* of gradients; what each process had to be summed */
    double seconds;                 /* from the start of each to its end */
    double exposed_s;               /* of them: waited for with nothing else to do */
    double large_s, large_exposed_s;        /* the same of buckets from 1 MB on */
    double busy_s;                  /* moving and adding bytes between other work: the processor's time, not hidden */
    uint64_t n_syncs;
    double sync_s;                  /* waited for statistics of BatchNormalization */
};

struct mo_shards {
    struct mopt_ctx *ctx;
    uint32_t n_shards, first, n;    /* here: parts first .. first + n - 1 */
    struct mo_run **run;            /* n of them; run[0] is the one that owns the parameters */
    bool *has_rows;                 /* set by the caller: whether this part has samples in this batch */
    size_t batch;                   /* set by the caller: samples of the whole batch */
    struct mo_shard_use use;
    struct mo_shards_private *private_;
};

/* owner: made with is_shard; lives longer. options of its run for the others. */
MOPT_MUST_CHECK enum mopt_status mo_shards_new(struct mo_run *owner, const struct mo_graph *g,
                                               const struct mo_run_options *options,
                                               const struct mo_shard_options *how, struct mo_shards **shards);
void mo_shards_free(struct mo_shards *shards);
/* Every run has had its shape once, and those with rows have it and their inputs now. */
MOPT_MUST_CHECK enum mopt_status mo_shards_forward(struct mo_shards *s);
/* The gradient of each part's outputs is there. add: to what there was. is_last: the sum over all parts and processes
 * begins, and is in run[0]->grads after mo_shards_finish. */
MOPT_MUST_CHECK enum mopt_status mo_shards_backward(struct mo_shards *s, bool add, bool is_last);
MOPT_MUST_CHECK enum mopt_status mo_shards_finish(struct mo_shards *s);
/* x: n parts times n_elems; their sum over the tree of this process is then in the first. */
void mo_shards_tree(double *x, uint32_t n, size_t n_elems);

#endif
