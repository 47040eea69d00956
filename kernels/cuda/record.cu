/* record.cu - a run's work as a CUDA graph: captured from the stream once, launched as one thing from then on.
 *
 * $MOPT_CUDA_GRAPHS=0: nothing is recorded. */
#include "kernels/cuda/device.cuh"

#include <stdlib.h>
#include <string.h>

struct kept_table {
    struct kept_table *next;
    char bytes[];
};

struct mo_recording {
    cudaGraphExec_t exec;
    struct kept_table *tables;      /* of the host, which the graph reads at each launch */
};

bool mo_cuda_record(struct mo_device *dev)
{
    const char *wish = getenv("MOPT_CUDA_GRAPHS");
    if ((wish && !strcmp(wish, "0")) || dev->has_error)
        return false;
    mo_cuda_use(dev);
    dev->recording = (struct mo_recording *)calloc(1, sizeof *dev->recording);
    if (!dev->recording)
        return false;
    /* relaxed: libraries may allocate while they are called first */
    if (cudaStreamBeginCapture(dev->stream, cudaStreamCaptureModeRelaxed) == cudaSuccess)
        return true;
    cudaGetLastError();
    mo_cuda_recording_free(dev, dev->recording);
    dev->recording = NULL;
    return false;
}

struct mo_recording *mo_cuda_recorded(struct mo_device *dev)
{
    struct mo_recording *r = dev->recording;
    cudaGraph_t graph = NULL;
    dev->recording = NULL;
    cudaError_t e = cudaStreamEndCapture(dev->stream, &graph);
    if (!e)
        e = cudaGraphInstantiate(&r->exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (!e)
        return r;
    cudaGetLastError();         /* or the next launch would be blamed for it */
    mo_cuda_recording_free(dev, r);
    return NULL;
}

void mo_cuda_replay(struct mo_device *dev, struct mo_recording *r)
{
    mo_cuda_use(dev);
    mo_cuda_is_ok(dev, cudaGraphLaunch(r->exec, dev->stream), "launch of a graph");
}

void mo_cuda_recording_free(struct mo_device *dev, struct mo_recording *r)
{
    if (!r)
        return;
    mo_cuda_use(dev);
    if (r->exec) {
        cudaStreamSynchronize(dev->stream);     /* it may still be running */
        cudaGraphExecDestroy(r->exec);
    }
    while (r->tables) {
        struct kept_table *t = r->tables;
        r->tables = t->next;
        free(t);
    }
    free(r);
}

uint64_t mo_cuda_n_exchanges(const struct mo_device *dev)
{
    return dev->n_exchanges;
}

const void *mo_cuda_keep_table(struct mo_device *dev, const void *table, size_t bytes)
{
    if (!dev->recording)
        return table;
    struct kept_table *t = (struct kept_table *)malloc(sizeof *t + bytes);
    if (!t) {
        mo_cuda_latch(dev, "out of memory on the host: a recording");
        return NULL;
    }
    memcpy(t->bytes, table, bytes);
    t->next = dev->recording->tables;
    dev->recording->tables = t;
    return t->bytes;
}
