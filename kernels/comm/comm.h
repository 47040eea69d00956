/* comm.h - what a way of talking between processes must offer: one table, as a backend is one.
 *
 * A process that a launcher started with others is a rank of a group. Rows: self (a group of one, always there), mpi
 * (a plug-in, libmopt-mpi.so, loaded only in a process that a launcher started), nccl (gradients between GPUs; the rest
 * goes through the row that it stands on).
 *
 * Sums run over one fixed binary tree. With P the largest power of two up to the number of ranks, rank r >= P first adds
 * its numbers to those of rank r - P; then, for d = 1, 2, 4 .. P / 2, the ranks whose numbers differ in bit d add theirs,
 * that of the lower rank on the left:
 *     4 ranks: (x0 + x1) + (x2 + x3)
 * so ranks 2k and 2k + 1 of a group of 2n have the sum that rank k of a group of n has when it adds the same two parts
 * itself. All ranks get the same bits.
 *
 * A sum that was started goes on while start, poll or wait run; between them only where a row says so. All ranks
 * start the same sums in the same order; several may be under way, and any of them be waited for.
 *
 * Calls return 0, or -1 when a rank is gone or the caller's `stop` asked to give up: the group is then of no use, and
 * `why` of the group says what happened. */
#ifndef MO_COMM_H
#define MO_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Elements of a sum. MO_COMM_F32_AS_BF16: float32 in memory, every part sent rounded to bfloat16 and added in float32. */
enum mo_comm_type { MO_COMM_F32, MO_COMM_F32_AS_BF16, MO_COMM_F64, MO_COMM_U64 };

struct mo_group;                /* one process's side of a group */

/* Asked while a call waits for others: true gives up. */
typedef bool mo_comm_stop(void *user);

struct mo_comm {
    const char *name;
    /* Joins the group that the launcher made. NULL, and why. */
    struct mo_group *(*open)(char *why, size_t why_bytes);
    /* Leaves it; all ranks must. */
    void (*close)(struct mo_group *);
    int (*rank)(const struct mo_group *);
    int (*size)(const struct mo_group *);
    /* "mpi, 4 ranks" */
    const char *(*describe)(const struct mo_group *);
    void (*on_stop)(struct mo_group *, mo_comm_stop *stop, void *user);
    /* x[i] = the sum of x[i] over all ranks, in place; x is not to be touched until it is done. The ticket counts sums
     * from 1; 0: it failed. */
    uint64_t (*start)(struct mo_group *, void *x, size_t n, enum mo_comm_type type);
    /* Moves what is under way; returns the last ticket up to which all are done. */
    uint64_t (*poll)(struct mo_group *);
    int (*wait)(struct mo_group *, uint64_t ticket);
    /* Rank 0's bytes to all. */
    int (*broadcast)(struct mo_group *, void *bytes, size_t n_bytes);
    /* all: size times n_bytes, in the order of ranks */
    int (*all_gather)(struct mo_group *, const void *mine, size_t n_bytes, void *all);
    int (*barrier)(struct mo_group *);
    /* The last word of each rank, in the order of ranks, when all have come to say it; calls that others never came to do
     * not matter. -1: not all came within so many seconds (or, with INFINITY, not after this process was to stop). */
    int (*part)(struct mo_group *, int word, double patience_s, int *all);
    /* Ends every rank's process with this exit code; does not return. */
    void (*end_all)(struct mo_group *, int code);
    const char *(*why)(const struct mo_group *);
};

/* A group of one process: every call is done at once. */
extern const struct mo_comm mo_comm_self;

/* Sums of gradients where they lie, between GPUs; one rank a GPU. A plug-in, libmopt-nccl.so, stands on a group that gets
 * the ranks together. The same ranks get the same bits. */
struct mo_wire;
struct mo_comm_device {
    const char *name;
    /* mem: memory of this rank's GPU, by which it is known. All ranks call it. NULL, and why. */
    struct mo_wire *(*open)(const struct mo_comm *, struct mo_group *, const void *mem, char *why, size_t why_bytes);
    void (*close)(struct mo_wire *);
    /* What writes x is done. The rest as in struct mo_comm. */
    uint64_t (*start)(struct mo_wire *, float *x, size_t n);
    uint64_t (*poll)(struct mo_wire *);
    int (*wait)(struct mo_wire *, uint64_t ticket);
    const char *(*why)(const struct mo_wire *);
};
/* NULL, and why. */
const struct mo_comm_device *mo_comm_device_find(char *why, size_t why_bytes);

/* What the environment of the process says, before anything is loaded. is_launched: a launcher started it (also as the
 * only rank). Known: Open MPI's mpirun, PMIx and PMI (srun, MPICH, Intel MPI), Slurm's own. */
struct mo_launch { bool is_launched; int rank, size; const char *by; };
struct mo_launch mo_comm_launch(void);

/* mpi in a process that a launcher started, else self. NULL, and why: it was started with others, and no plug-in loads. */
const struct mo_comm *mo_comm_find(char *why, size_t why_bytes);

#endif
