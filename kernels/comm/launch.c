/* launch.c - was this process started with others, and by whom? From the environment alone, so that a run without a
 * launcher loads nothing. The variables, each pair rank and size:
 *     OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE     mpirun of Open MPI (so an MPIJob of Kubernetes too)
 *     PMI_RANK, PMI_SIZE                             mpiexec of MPICH and Intel MPI, srun --mpi=pmi2
 *     SLURM_PROCID, SLURM_STEP_NUM_TASKS             srun --mpi=pmix, which also sets PMIX_RANK
 * Slurm sets its variables in the shell of a batch job too, where nothing was started with others: they count only
 * beside PMIX_RANK. */
#include <stdlib.h>

#include "kernels/comm/comm.h"

/* A number from 0 to 2^24; -1: there is none. */
static int number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text)
        return -1;
    long x = strtol(text, &end, 10);
    return *end || x < 0 || x > 1 << 24 ? -1 : (int)x;
}

struct mo_launch mo_comm_launch(void)
{
    static const struct { const char *rank, *size, *beside, *by; } known[] = {
        { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", NULL, "mpirun" },
        { "PMI_RANK", "PMI_SIZE", NULL, "pmi" },
        { "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "PMIX_RANK", "srun" },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        int rank = number(known[i].rank), size = number(known[i].size);
        if (rank >= 0 && size > rank && (!known[i].beside || number(known[i].beside) >= 0))
            return (struct mo_launch){ .is_launched = true, .rank = rank, .size = size, .by = known[i].by };
    }
    return (struct mo_launch){ .size = 1, .by = "" };
}
