/* device.cu - opens a CUDA device, its memory, its latched error, and the table of its kernels. */
#include "kernels/cuda/cudnn.cuh"
#include "kernels/cuda/product.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/plugin.h"

/* ---- errors ---------------------------------------------------------------------------------- */

void mo_cuda_latch(struct mo_device *dev, const char *fmt, ...)
{
    if (dev->has_error)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(dev->why, sizeof dev->why, fmt, args);
    va_end(args);
    dev->has_error = true;
}

bool mo_cuda_is_ok(struct mo_device *dev, cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return true;
    mo_cuda_latch(dev, "cuda: %s: %s", what, cudaGetErrorString(error));
    cudaGetLastError();         /* or the next launch would be blamed for it */
    return false;
}

void mo_cuda_use(struct mo_device *dev)
{
    mo_cuda_is_ok(dev, cudaSetDevice(dev->index), "the device is gone");
}

void mo_cuda_launched(struct mo_device *dev)
{
    mo_cuda_is_ok(dev, cudaGetLastError(), "launch");
}

bool mo_cuda_is_device_memory(const void *mem)
{
    struct cudaPointerAttributes a;
    if (cudaPointerGetAttributes(&a, mem) != cudaSuccess) {
        cudaGetLastError();
        return false;
    }
    return a.type == cudaMemoryTypeDevice || a.type == cudaMemoryTypeManaged;
}

/* ---- opening ------------------------------------------------------------------------------------- */

static cudaError_t prepare(struct mo_device *dev, struct cudaDeviceProp *p)
{
    cudaError_t e = cudaSetDevice(dev->index);
    if (!e)
        e = cudaGetDeviceProperties(p, dev->index);
    if (!e)
        e = cudaStreamCreateWithFlags(&dev->stream, cudaStreamNonBlocking);
    if (!e)
        e = cudaMalloc((void **)&dev->fault, sizeof *dev->fault);
    if (!e)
        e = cudaMemset(dev->fault, 0, sizeof *dev->fault);
    if (!e)     /* the stream above does not wait for the default one */
        e = cudaDeviceSynchronize();
    /* keep what kernels ask for over and over, instead of giving it back at every sync */
    cudaMemPool_t pool;
    uint64_t all = UINT64_MAX;
    if (!e)
        e = cudaDeviceGetDefaultMemPool(&pool, dev->index);
    if (!e)
        e = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all);
    return e;
}

/* $MOPT_CUDA_TF32=1: products of float32 on tensor cores, of numbers rounded to 10 bits and summed in float32. */
static bool wants_tf32(void)
{
    const char *wish = getenv("MOPT_CUDA_TF32");
    return wish && !strcmp(wish, "1");
}

/* One workspace for all products, for the life of the device: what is recorded and done again later finds it where it
 * was. 32 MiB are what cuBLAS takes for itself on the largest cards; a small device gives 1/64 of its memory. */
static cudaError_t prepare_workspace(struct mo_device *dev, size_t all_bytes)
{
    const size_t most = (size_t)32 << 20;
    dev->workspace_bytes = all_bytes / 64 < most ? all_bytes / 64 / 256 * 256 : most;
    return dev->workspace_bytes ? cudaMalloc(&dev->workspace, dev->workspace_bytes) : cudaSuccess;
}

static cublasStatus_t prepare_products(struct mo_device *dev)
{
    cublasStatus_t s = cublasCreate(&dev->blas);
    if (!s)
        s = cublasSetStream(dev->blas, dev->stream);
    if (!s)
        s = cublasSetWorkspace(dev->blas, dev->workspace, dev->workspace_bytes);
    return s;
}

static struct mo_device *open_at(int index, char *why, size_t why_bytes)
{
    struct mo_device *dev = (struct mo_device *)calloc(1, sizeof *dev);
    if (!dev) {
        snprintf(why, why_bytes, "out of memory");
        return NULL;
    }
    struct cudaDeviceProp p;
    dev->index = index;
    dev->uses_tf32 = wants_tf32();
    cudaError_t e = prepare(dev, &p);
    if (!e)
        e = prepare_workspace(dev, p.totalGlobalMem);
    cublasStatus_t s = e ? CUBLAS_STATUS_SUCCESS : prepare_products(dev);
    if (e || s) {
        snprintf(why, why_bytes, "cuda: device %d: %s", index, e ? cudaGetErrorString(e) : cublasGetStatusString(s));
        cudaGetLastError();
        mo_cuda_close(dev);
        return NULL;
    }
    dev->n_blocks = p.multiProcessorCount * 16;
    mo_cudnn_open(dev);
    const char *dnn = mo_cudnn_version(dev);
    snprintf(dev->text, sizeof dev->text, "cuda:%d, %.200s, sm_%d%d, %zu MB, %s %s%s", index, p.name, p.major, p.minor,
             p.totalGlobalMem >> 20, *dnn ? "cuDNN" : "no", *dnn ? dnn : "cuDNN", dev->uses_tf32 ? ", TF32" : "");
    return dev;
}

struct mo_device *mo_cuda_open(int index, int n_threads, char *why, size_t why_bytes)
{
    (void)n_threads;
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver || e == cudaErrorNoDevice || (!e && n == 0)) {
        snprintf(why, why_bytes, "cuda: %s: %s",
                 e == cudaErrorInsufficientDriver ? "the driver is not there, or is too old" : "there is no device",
                 e ? cudaGetErrorString(e) : "the driver lists none");
    } else if (e) {
        snprintf(why, why_bytes, "cuda: the driver does not answer: %s", cudaGetErrorString(e));
    } else if (index < 0 || index >= n) {
        snprintf(why, why_bytes, "cuda: there is no device %d, there are %d (from 0)", index, n);
    } else {
        return open_at(index, why, why_bytes);
    }
    cudaGetLastError();
    return NULL;
}

void mo_cuda_close(struct mo_device *dev)
{
    if (!dev)
        return;
    cudaSetDevice(dev->index);
    if (dev->stream)
        cudaStreamSynchronize(dev->stream);
    mo_cudnn_close(dev);
    mo_products_free(dev->products);
    if (dev->blas)
        cublasDestroy(dev->blas);
    cudaFree(dev->workspace);
    cudaFree(dev->fault);
    if (dev->stream)
        cudaStreamDestroy(dev->stream);
    cudaGetLastError();
    free(dev);
}

void mo_cuda_use_half(struct mo_device *dev, int dtype)
{
    dev->half_is_f16 = dtype == 10;
}

const char *mo_cuda_describe(struct mo_device *dev)
{
    return dev->text;
}

/* ---- memory ---------------------------------------------------------------------------------------- */

void mo_cuda_full(struct mo_device *dev, size_t bytes)
{
    size_t n_free = 0, n_all = 0;
    cudaGetLastError();         /* or the next launch would be blamed for it */
    cudaMemGetInfo(&n_free, &n_all);
    mo_cuda_latch(dev, "out of memory on the device: %zu MiB are needed, %zu of its %zu MiB are free", (bytes >> 20) + 1,
                  n_free >> 20, n_all >> 20);
}

/* What kernels gave back to the pool is still the pool's: before memory is refused the pool is emptied. */
static void empty_pool(struct mo_device *dev)
{
    cudaMemPool_t pool;
    cudaGetLastError();
    if (!cudaStreamSynchronize(dev->stream) && !cudaDeviceGetDefaultMemPool(&pool, dev->index))
        cudaMemPoolTrimTo(pool, 0);
}

void *mo_cuda_alloc(struct mo_device *dev, size_t bytes)
{
    void *mem = NULL;
    bytes = bytes ? bytes : 64;
    mo_cuda_use(dev);
    if (cudaMalloc(&mem, bytes) == cudaSuccess)
        return mem;
    empty_pool(dev);
    if (cudaMalloc(&mem, bytes) == cudaSuccess)
        return mem;
    mo_cuda_full(dev, bytes);
    return NULL;
}

void mo_cuda_free(struct mo_device *dev, void *mem)
{
    mo_cuda_use(dev);
    mo_cuda_is_ok(dev, cudaFree(mem), "free");
}

/* From pageable memory the copy has left `host` when this returns. */
void mo_cuda_upload(struct mo_device *dev, void *to, const void *host, size_t bytes)
{
    mo_cuda_use(dev);
    dev->n_exchanges++;
    if (bytes)
        mo_cuda_is_ok(dev, cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, dev->stream), "copy to the device");
}

void mo_cuda_download(struct mo_device *dev, void *host, const void *from, size_t bytes)
{
    mo_cuda_use(dev);
    dev->n_exchanges++;
    if (bytes && mo_cuda_is_ok(dev, cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, dev->stream),
                               "copy from the device"))
        mo_cuda_is_ok(dev, cudaStreamSynchronize(dev->stream), "wait for a copy");
}

int mo_cuda_sync(struct mo_device *dev, char *why, size_t why_bytes)
{
    struct mo_fault fault = {};
    mo_cuda_download(dev, &fault, dev->fault, sizeof fault);
    if (fault.is_set) {
        if (fault.dim < 0)
            mo_cuda_latch(dev, "nonzero: more elements than were planned for");
        else
            mo_cuda_latch(dev, "index %lld is outside an axis of %lld", fault.index, fault.dim);
        mo_cuda_is_ok(dev, cudaMemsetAsync(dev->fault, 0, sizeof fault, dev->stream), "clear the fault");
    }
    if (!dev->has_error)
        return 0;
    snprintf(why, why_bytes, "%s", dev->why);
    dev->has_error = false;
    return 1;
}

/* ---- the table ------------------------------------------------------------------------------------------ */

static const struct mo_backend table = {
    .name = "cuda", .open = mo_cuda_open, .close = mo_cuda_close, .describe = mo_cuda_describe, .alloc = mo_cuda_alloc,
    .free = mo_cuda_free, .upload = mo_cuda_upload, .download = mo_cuda_download, .sync = mo_cuda_sync,
    .is_host = false, .use_half = mo_cuda_use_half, .update = mo_cuda_update, .record = mo_cuda_record,
    .recorded = mo_cuda_recorded, .replay = mo_cuda_replay, .recording_free = mo_cuda_recording_free,
    .n_exchanges = mo_cuda_n_exchanges, .conv_new = mo_cuda_conv_new, .conv_free = mo_cuda_conv_free,
    .conv_scratch_bytes = mo_cuda_conv_scratch_bytes, .conv_engine = mo_cuda_conv_engine, .qconv_new = mo_cuda_qconv_new,
    .qconv_free = mo_cuda_qconv_free, .qconv_scratch_bytes = mo_cuda_qconv_scratch_bytes,
#define MO_KERNEL(name, args) .name = mo_cuda_##name,
#include "kernels/kernels.def"
#undef MO_KERNEL
};

extern "C" __attribute__((visibility("default"))) const struct mo_backend *mo_cuda_plugin(const char *signature)
{
    return strcmp(signature, MO_PLUGIN_SIGNATURE) ? NULL : &table;
}
