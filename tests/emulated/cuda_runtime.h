/* cuda_runtime.h - stands in for CUDA's: a device made of one thread of the CPU, so that the kernels of
 * kernels/cuda/ run, as they are written, where there is no card.
 *
 * What is alike: blocks, threads and barriers (fibers); streams whose work is done late, at a wait and not
 * before; memory that the host cannot read. What goes wrong on a card is an error here too: memory of the
 * host among a kernel's arguments, copies beyond an allocation, writes just behind one, a barrier that not
 * all threads reach. Fresh memory is full of NaN. What is not alike: speed, caches, and two blocks at once. */
#ifndef EMULATED_CUDA_RUNTIME_H
#define EMULATED_CUDA_RUNTIME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local
#define __align__(n) __attribute__((aligned(n)))
#define __noinline__ __attribute__((noinline))

struct dim3 {
    unsigned x, y, z;
};
extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

typedef enum {
    cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100, cudaErrorIllegalAddress = 700, cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900, cudaErrorStreamCaptureInvalidated = 901
} cudaError_t;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };

struct cudaPointerAttributes {
    enum cudaMemoryType type;
};
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
};
typedef enum { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14 } cudaDataType;
typedef struct emulated_stream *cudaStream_t;
typedef struct emulated_event *cudaEvent_t;
typedef struct emulated_pool *cudaMemPool_t;
typedef struct emulated_graph *cudaGraph_t;
typedef struct emulated_graph *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };

cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int index);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int index);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int index);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attr, void *value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);

cudaError_t cudaMalloc(void **mem, size_t bytes);
cudaError_t cudaFree(void *mem);
cudaError_t cudaMallocAsync(void **mem, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void *mem, cudaStream_t stream);
cudaError_t cudaMallocHost(void **mem, size_t bytes);
cudaError_t cudaFreeHost(void *mem);
cudaError_t cudaMemset(void *mem, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *mem, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *mem);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

void __syncthreads(void);

static inline int atomicCAS(int *at, int compare, int value)
{
    int old = *at;
    *at = old == compare ? value : old;
    return old;
}
template <class T> static inline T atomicAdd(T *at, T value)
{
    T old = *at;
    *at = old + value;
    return old;
}
static inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

/* ---- for the stand-ins themselves -------------------------------------------------------------- */

/* Work for a stream, done when somebody waits for it. */
void emulated_enqueue(cudaStream_t stream, std::function<void()> work);
/* Are these bytes the device's, and all of one allocation? */
bool emulated_has(const void *mem, size_t bytes);
/* A call's own mistake, as a card would find it while running. */
void emulated_fault(const char *what);
/* Looks for memory of the host in an argument of a kernel. */
void emulated_check_argument(const void *argument, size_t bytes);
void emulated_run_grid(unsigned grid, unsigned block, const std::function<void()> &thread);
cudaError_t emulated_check_launch(unsigned grid, unsigned block);

template <class K, class... A> static void emulated_launch(cudaStream_t stream, unsigned grid, unsigned block, K kernel, A... args)
{
    if (emulated_check_launch(grid, block) != cudaSuccess)
        return;
    /* what is left over between members may look like an address */
    (__builtin_clear_padding(&args), ...);
    (emulated_check_argument(&args, sizeof args), ...);
    emulated_enqueue(stream, [=] {
        std::tuple<A...> all(args...);
        emulated_run_grid(grid, block, [&] { std::apply(kernel, all); });
    });
}

#define MO_LAUNCH(stream, grid, block, kernel, ...) \
    emulated_launch(stream, grid, block, [](auto... a) { kernel(a...); }, __VA_ARGS__)

#endif
