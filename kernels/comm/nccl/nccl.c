/* nccl.c - the plug-in libmopt-nccl.so: sums between GPUs over NCCL, one rank a GPU.
 *
 * NCCL adds in an order of its own, the same on all ranks, so that they agree; the bits depend on their number. Sums run on
 * a stream of their own, beside the backward pass. */
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/comm/plugin.h"

enum { MAX_SUMS = 64 };

struct mo_wire {
    ncclComm_t comm;
    cudaStream_t stream;
    int device;
    uint64_t n_started, n_done;
    cudaEvent_t ends[MAX_SUMS];         /* of the sum with ticket t: at t % MAX_SUMS */
    char why[256];
};

static bool cuda_ok(struct mo_wire *w, cudaError_t e)
{
    if (e != cudaSuccess)
        snprintf(w->why, sizeof w->why, "CUDA: %s", cudaGetErrorString(e));
    return e == cudaSuccess;
}

static bool nccl_ok(struct mo_wire *w, ncclResult_t e)
{
    if (e != ncclSuccess)
        snprintf(w->why, sizeof w->why, "NCCL: %s", ncclGetErrorString(e));
    return e == ncclSuccess;
}

static void close_wire(struct mo_wire *w)
{
    if (!w)
        return;
    for (int i = 0; i < MAX_SUMS; i++)
        if (w->ends[i])
            cudaEventDestroy(w->ends[i]);
    if (w->comm)
        ncclCommAbort(w->comm);
    if (w->stream)
        cudaStreamDestroy(w->stream);
    free(w);
}

/* All ranks meet by an id that rank 0 makes; that no two of them have the same GPU is checked by NCCL. */
static bool join(struct mo_wire *w, const struct mo_comm *comm, struct mo_group *group, const void *mem)
{
    struct cudaPointerAttributes at;
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    bool ok = cuda_ok(w, cudaPointerGetAttributes(&at, mem));
    if (ok && at.type != cudaMemoryTypeDevice) {
        snprintf(w->why, sizeof w->why, "the gradients do not lie on a GPU");
        ok = false;
    }
    w->device = ok ? at.device : 0;
    ok = ok && cuda_ok(w, cudaSetDevice(w->device)) &&
         cuda_ok(w, cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking));
    for (int i = 0; ok && i < MAX_SUMS; i++)
        ok = cuda_ok(w, cudaEventCreateWithFlags(&w->ends[i], cudaEventDisableTiming));
    if (ok && comm->rank(group) == 0)
        ok = nccl_ok(w, ncclGetUniqueId(&id));
    /* also where something failed: the others are in this call */
    if (comm->broadcast(group, &id, sizeof id))
        return false;
    return ok && nccl_ok(w, ncclCommInitRank(&w->comm, comm->size(group), id, comm->rank(group)));
}

static struct mo_wire *open_wire(const struct mo_comm *comm, struct mo_group *group, const void *mem, char *why,
                                 size_t why_bytes)
{
    struct mo_wire *w = calloc(1, sizeof *w);
    if (w && join(w, comm, group, mem))
        return w;
    snprintf(why, why_bytes, "%s", w ? w->why : "out of memory");
    close_wire(w);
    return NULL;
}

static uint64_t poll_wire(struct mo_wire *w)
{
    while (w->n_done < w->n_started && cudaEventQuery(w->ends[(w->n_done + 1) % MAX_SUMS]) == cudaSuccess)
        w->n_done++;
    return w->n_done;
}

static int wait_wire(struct mo_wire *w, uint64_t ticket)
{
    ncclResult_t state = ncclSuccess;
    if (!ticket || ticket > w->n_started)
        return -1;
    while (poll_wire(w) < ticket) {
        cudaError_t e = cudaPeekAtLastError();
        if ((e != cudaSuccess && e != cudaErrorNotReady && !cuda_ok(w, e)) ||
            !nccl_ok(w, ncclCommGetAsyncError(w->comm, &state)) || !nccl_ok(w, state))
            return -1;
    }
    return 0;
}

static uint64_t start_wire(struct mo_wire *w, float *x, size_t n)
{
    if (w->n_started - w->n_done == MAX_SUMS && wait_wire(w, w->n_done + 1))
        return 0;
    if (!cuda_ok(w, cudaSetDevice(w->device)) ||
        !nccl_ok(w, ncclAllReduce(x, x, n, ncclFloat32, ncclSum, w->comm, w->stream)) ||
        !cuda_ok(w, cudaEventRecord(w->ends[(w->n_started + 1) % MAX_SUMS], w->stream)))
        return 0;
    return ++w->n_started;
}

static const char *why_wire(const struct mo_wire *w)
{
    return w->why;
}

static const struct mo_comm_device table = {
    .name = "nccl", .open = open_wire, .close = close_wire, .start = start_wire, .poll = poll_wire, .wait = wait_wire,
    .why = why_wire,
};

__attribute__((visibility("default"))) const struct mo_comm_device *mo_nccl_plugin(const char *signature);
const struct mo_comm_device *mo_nccl_plugin(const char *signature)
{
    return strcmp(signature, MO_MPI_SIGNATURE) ? NULL : &table;
}
