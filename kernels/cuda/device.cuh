/* device.cuh - the CUDA device as its kernels see it, and the few forms that
 * all kernels are made of: a loop over elements, a fold over a fixed tree, a walk
 * over strides, memory for the length of one kernel. */
#ifndef MO_DEVICE_CUH
#define MO_DEVICE_CUH

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>

extern "C" {
#include "kernels/backend.h"
#define MO_KERNEL(name, args) void mo_cuda_##name args;
#include "kernels/kernels.def"
#undef MO_KERNEL
struct mo_conv *mo_cuda_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc);
void mo_cuda_conv_free(struct mo_device *dev, struct mo_conv *conv);
size_t mo_cuda_conv_scratch_bytes(const struct mo_conv *conv, bool backward);
const char *mo_cuda_conv_engine(const struct mo_conv *conv);
bool mo_cuda_record(struct mo_device *dev);
struct mo_recording *mo_cuda_recorded(struct mo_device *dev);
void mo_cuda_replay(struct mo_device *dev, struct mo_recording *r);
void mo_cuda_recording_free(struct mo_device *dev, struct mo_recording *r);
uint64_t mo_cuda_n_exchanges(const struct mo_device *dev);
void mo_cuda_update(struct mo_device *dev, const struct mo_update *u, double *norm);
void mo_cuda_use_half(struct mo_device *dev, int dtype);
struct mo_qconv *mo_cuda_qconv_new(struct mo_device *dev, const struct mo_qconv_desc *desc);
void mo_cuda_qconv_free(struct mo_device *dev, struct mo_qconv *q);
size_t mo_cuda_qconv_scratch_bytes(const struct mo_qconv *q);
struct mo_device *mo_cuda_open(int index, int n_threads, char *why, size_t why_bytes);
void mo_cuda_close(struct mo_device *dev);
const char *mo_cuda_describe(struct mo_device *dev);
void *mo_cuda_alloc(struct mo_device *dev, size_t bytes);
void mo_cuda_free(struct mo_device *dev, void *mem);
void mo_cuda_upload(struct mo_device *dev, void *to, const void *host, size_t bytes);
void mo_cuda_download(struct mo_device *dev, void *host, const void *from, size_t bytes);
int mo_cuda_sync(struct mo_device *dev, char *why, size_t why_bytes);
}

/* What a kernel found wrong: the first index out of range since the last sync. Lives on the device. */
struct mo_fault {
    int is_set;
    long long index, dim;       /* dim -1: not an index, nonzero found more than planned */
};

struct mo_products;             /* product.cu: matrix products that were asked for, and how cuBLASLt makes them */
struct mo_cudnn;                /* cudnn.cu: the library, where it is there */

struct mo_device {
    int index, n_blocks;        /* n_blocks: as many as fill the device a few times over */
    cudaStream_t stream;
    cublasHandle_t blas;
    bool uses_tf32, half_is_f16;        /* half_is_f16: what *_bf16 kernels are given is float16 */
    struct mo_products *products;
    void *workspace;            /* of cuBLAS and cuBLASLt */
    size_t workspace_bytes;
    struct mo_cudnn *cudnn;     /* NULL: convolutions by own kernels, and no_cudnn says why */
    char no_cudnn[96];
    struct mo_recording *recording;     /* record.cu: while one is made */
    uint64_t n_exchanges;               /* mo_backend.n_exchanges */
    struct mo_fault *fault;
    char text[320];
    bool has_error;
    char why[192];              /* the first error since the last sync; valid when has_error */
};

enum { THREADS = 256, MAX_CHUNKS = 256 };

void mo_cuda_latch(struct mo_device *dev, const char *fmt, ...);
/* Latches what went wrong, if anything did; true: all is well. */
bool mo_cuda_is_ok(struct mo_device *dev, cudaError_t error, const char *what);
/* Latches that there is no room for that many bytes, and what room there is. */
void mo_cuda_full(struct mo_device *dev, size_t bytes);
/* Makes the device that of this thread. */
void mo_cuda_use(struct mo_device *dev);
/* After every launch. */
void mo_cuda_launched(struct mo_device *dev);
bool mo_cuda_is_device_memory(const void *mem);
/* A copy of the host's table that lives as long as the recording being made; the table itself where none is. NULL: an error
 * was latched. */
const void *mo_cuda_keep_table(struct mo_device *dev, const void *table, size_t bytes);

/* Launches are written MO_LAUNCH(stream, blocks, threads, kernel, arguments...): tests/emulated/ has its own. */
#ifndef MO_LAUNCH
#define MO_LAUNCH(stream, grid, block, kernel, ...) kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__)
#endif

/* As many blocks as there is work for, but no more than fill the device. */
static inline unsigned mo_blocks(const struct mo_device *dev, int64_t wanted)
{
    return (unsigned)(wanted < dev->n_blocks ? wanted : dev->n_blocks);
}

/* ---- memory for one kernel ---------------------------------------------------------------- */

/* n elements of the device until the end of the scope; freed in the order of the stream, so kernels already
 * launched may still use them. NULL (and an error) when there is no more. */
template <class T> struct mo_temp {
    struct mo_device *dev;
    T *at;
    mo_temp(struct mo_device *device, int64_t n) : dev(device), at(NULL)
    {
        mo_cuda_use(dev);
        if (n > 0 && cudaMallocAsync((void **)&at, (size_t)n * sizeof(T), dev->stream) != cudaSuccess) {
            mo_cuda_full(dev, (size_t)n * sizeof(T));
            at = NULL;
        }
    }
    ~mo_temp()
    {
        if (at)
            cudaFreeAsync(at, dev->stream);
    }
    mo_temp(const mo_temp &) = delete;
    mo_temp &operator=(const mo_temp &) = delete;
};

/* A small table that an operator may keep on either side (indices, taps, scales): on the device, copied there
 * when it is the host's. A NULL table stays NULL. */
template <class T> struct mo_staged {
    mo_temp<T> copy;
    const T *at;
    mo_staged(struct mo_device *dev, const T *table, int64_t n)
        : copy(dev, table && !mo_cuda_is_device_memory(table) ? n : 0), at(table)
    {
        if (!copy.at)
            return;
        table = (const T *)mo_cuda_keep_table(dev, table, (size_t)n * sizeof(T));
        if (table)
            mo_cuda_is_ok(dev, cudaMemcpyAsync(copy.at, table, (size_t)n * sizeof(T), cudaMemcpyHostToDevice, dev->stream),
                          "copy to the device");
        at = copy.at;
    }
};

/* A small result that may be wanted on either side: read, changed on the device, and put back. */
template <class T> struct mo_in_out {
    mo_temp<T> copy;
    T *at, *home;
    int64_t n;
    mo_in_out(struct mo_device *dev, T *result, int64_t count)
        : copy(dev, mo_cuda_is_device_memory(result) ? 0 : count), at(result), home(result), n(count)
    {
        if (copy.at)
            mo_cuda_upload(dev, at = copy.at, result, (size_t)n * sizeof(T));
    }
    ~mo_in_out()
    {
        if (copy.at)
            mo_cuda_download(copy.dev, home, copy.at, (size_t)n * sizeof(T));
    }
};

/* ---- one element after the other ------------------------------------------------------------- */

template <class F> __global__ void mo_each_kernel(int64_t n, F f)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        f(i);
}

/* f(i) for all i < n, in no order. */
template <class F> static void mo_each(struct mo_device *dev, int64_t n, F f)
{
    if (n <= 0)
        return;
    mo_cuda_use(dev);
    MO_LAUNCH(dev->stream, mo_blocks(dev, (n + THREADS - 1) / THREADS), THREADS, mo_each_kernel, n, f);
    mo_cuda_launched(dev);
}

template <class F> __global__ void mo_rows_kernel(int64_t n, F f)
{
    for (int64_t r = blockIdx.x; r < n; r += gridDim.x)
        f(r);
}

/* f(r) for all r < n, each by a whole block of THREADS threads, which may fold among themselves. */
template <class F> static void mo_rows(struct mo_device *dev, int64_t n, F f)
{
    if (n <= 0)
        return;
    mo_cuda_use(dev);
    MO_LAUNCH(dev->stream, mo_blocks(dev, n), THREADS, mo_rows_kernel, n, f);
    mo_cuda_launched(dev);
}

/* ---- folding ------------------------------------------------------------------------------------ */

/* The v of a block's THREADS threads as a binary tree; all threads get the result. */
template <class V, class J> static __device__ V mo_block_fold(V v, J join)
{
    __shared__ __align__(16) unsigned char bytes[THREADS * sizeof(V)];
    V *lane = (V *)bytes;
    int t = (int)threadIdx.x;
    lane[t] = v;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half)
            lane[t] = join(lane[t], lane[t + half]);
        __syncthreads();
    }
    V all = lane[0];
    __syncthreads();
    return all;
}

struct mo_sum {
    template <class V> __device__ V operator()(V a, V b) const
    {
        return a + b;
    }
};

/* Two sums at once. */
struct mo_pair {
    double a, b;
};
static __device__ inline mo_pair operator+(mo_pair u, mo_pair v)
{
    return mo_pair{ u.a + v.a, u.b + v.b };
}

/* Elements [first, end) of result `out` along k, one block: partial[out * chunks + chunk]. */
template <class V, class L, class J>
__global__ void mo_fold_rows_kernel(int64_t n_out, int64_t count, int64_t chunks, V zero, L load, J join, V *partial)
{
    int64_t each = (count + chunks - 1) / chunks;
    for (int64_t u = blockIdx.x; u < n_out * chunks; u += gridDim.x) {
        int64_t out = u / chunks, first = u % chunks * each, end = first + each < count ? first + each : count;
        V v = zero;
        for (int64_t k = first + threadIdx.x; k < end; k += THREADS)
            v = join(v, load(out, k));
        v = mo_block_fold(v, join);
        if (threadIdx.x == 0)
            partial[u] = v;
    }
}

/* The same where neighbouring results lie side by side: 32 results by 8 lanes. */
template <class V, class L, class J>
__global__ void mo_fold_columns_kernel(int64_t n_out, int64_t count, int64_t chunks, V zero, L load, J join, V *partial)
{
    __shared__ __align__(16) unsigned char bytes[THREADS * sizeof(V)];
    V *lane = (V *)bytes;
    int64_t each = (count + chunks - 1) / chunks, strips = (n_out + 31) / 32;
    int column = threadIdx.x % 32, row = threadIdx.x / 32;
    for (int64_t u = blockIdx.x; u < strips * chunks; u += gridDim.x) {
        int64_t out = u / chunks * 32 + column, first = u % chunks * each;
        int64_t end = first + each < count ? first + each : count;
        V v = zero;
        for (int64_t k = first + row; out < n_out && k < end; k += THREADS / 32)
            v = join(v, load(out, k));
        lane[threadIdx.x] = v;
        __syncthreads();
        for (int half = THREADS / 64; half > 0; half /= 2) {
            if (row < half)
                lane[threadIdx.x] = join(lane[threadIdx.x], lane[threadIdx.x + 32 * half]);
            __syncthreads();
        }
        if (row == 0 && out < n_out)
            partial[out * chunks + u % chunks] = lane[column];
        __syncthreads();
    }
}

/* put(out, join of load(out, k) over k < count). The tree depends on the sizes alone. side_by_side: neighbouring
 * results read neighbouring memory. */
template <class V, class L, class J, class P>
static void mo_fold(struct mo_device *dev, int64_t n_out, int64_t count, bool side_by_side, V zero, L load, J join, P put)
{
    if (n_out <= 0)
        return;
    if (count <= 32) {
        mo_each(dev, n_out, [=] __device__(int64_t out) {
            V v = zero;
            for (int64_t k = 0; k < count; k++)
                v = join(v, load(out, k));
            put(out, v);
        });
        return;
    }
    int64_t lanes = side_by_side ? (n_out + 31) / 32 : n_out, wanted = 1024 / lanes;
    int64_t most = count / (side_by_side ? 64 : 2048) + 1;
    int64_t chunks = wanted < 1 ? 1 : wanted < most ? wanted : most;
    chunks = chunks < MAX_CHUNKS ? chunks : MAX_CHUNKS;
    mo_temp<V> partial(dev, n_out * chunks);
    if (!partial.at)
        return;
    unsigned grid = mo_blocks(dev, lanes * chunks);
    if (side_by_side)
        MO_LAUNCH(dev->stream, grid, THREADS, mo_fold_columns_kernel, n_out, count, chunks, zero, load, join, partial.at);
    else
        MO_LAUNCH(dev->stream, grid, THREADS, mo_fold_rows_kernel, n_out, count, chunks, zero, load, join, partial.at);
    mo_cuda_launched(dev);
    const V *parts = partial.at;
    mo_each(dev, n_out, [=] __device__(int64_t out) {
        V v = parts[out * chunks];
        for (int64_t k = 1; k < chunks; k++)
            v = join(v, parts[out * chunks + k]);
        put(out, v);
    });
}

/* ---- strides --------------------------------------------------------------------------------------- */

enum { MAX_OPERANDS = 3 };

struct mo_walk {
    int rank;
    int64_t n, dims[MO_K_MAX_RANK], stride[MAX_OPERANDS][MO_K_MAX_RANK];
};

/* Leaves out axes of 1 and joins neighbours that all operands pass through in one stride. */
static inline struct mo_walk mo_walk_of(int rank, const int64_t *dims, int n_operands, const int64_t *const *strides)
{
    struct mo_walk w = {};
    w.n = 1;
    for (int k = 0; k < rank; k++) {
        w.n *= dims[k];
        if (dims[k] == 1)
            continue;
        bool joins = w.rank > 0;
        for (int o = 0; o < n_operands && joins; o++)
            joins = w.stride[o][w.rank - 1] == strides[o][k] * dims[k];
        if (!joins)
            w.rank++;
        w.dims[w.rank - 1] = joins ? w.dims[w.rank - 1] * dims[k] : dims[k];
        for (int o = 0; o < n_operands; o++)
            w.stride[o][w.rank - 1] = strides[o][k];
    }
    return w;
}

/* Where element i lies in each operand. */
template <int N> static __device__ inline void mo_walk_to(const struct mo_walk &w, int64_t i, int64_t *at)
{
    for (int o = 0; o < N; o++)
        at[o] = 0;
    for (int k = w.rank - 1; k >= 0; k--) {
        int64_t rest = k ? i / w.dims[k] : 0, here = i - rest * w.dims[k];
        for (int o = 0; o < N; o++)
            at[o] += (k ? here : i) * w.stride[o][k];
        i = rest;
    }
}

/* ---- indices ----------------------------------------------------------------------------------------- */

/* From the end when negative; -1 and a fault when out of range. */
static __device__ inline int64_t mo_checked(struct mo_fault *fault, int64_t i, int64_t dim)
{
    int64_t at = i < 0 ? i + dim : i;
    if (at >= 0 && at < dim)
        return at;
    if (atomicCAS(&fault->is_set, 0, 1) == 0) {
        fault->index = i;
        fault->dim = dim;
    }
    return -1;
}

/* ---- elements ------------------------------------------------------------------------------------------ */

struct __align__(8) mo_bytes16 {
    uint64_t low, high;
};

static __device__ inline float mo_load(__half x) { return __half2float(x); }
static __device__ inline float mo_load(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> static __device__ inline T mo_load(T x) { return x; }

template <class T> struct mo_stored {
    template <class C> static __device__ T of(C x) { return (T)x; }
};
template <> struct mo_stored<__half> {
    static __device__ __half of(float x) { return __float2half_rn(x); }
};
template <> struct mo_stored<__nv_bfloat16> {
    static __device__ __nv_bfloat16 of(float x) { return __float2bfloat16_rn(x); }
};

/* Calls body with H standing for the 16-bit type that the device is set to. */
#define MO_BY_HALF(dev, body)                                               \
    do {                                                                    \
        if ((dev)->half_is_f16) {                                           \
            typedef __half H;                                               \
            body                                                            \
        } else {                                                            \
            typedef __nv_bfloat16 H;                                        \
            body                                                            \
        }                                                                   \
    } while (0)

/* An activation that a kernel may end with. */
static __device__ inline float mo_act_of(enum mo_act act, float lo, float hi, float x)
{
    switch (act) {
    case MO_ACT_RELU: return x > 0 ? x : x != x ? x : 0;
    case MO_ACT_CLIP: return x < lo ? lo : x > hi ? hi : x;
    case MO_ACT_SIGMOID: return 1 / (1 + expf(-x));
    case MO_ACT_TANH: return tanhf(x);
    case MO_ACT_HARD_SWISH: {
        float t = x / 6 + 0.5f;
        return x * (t < 0 ? 0 : t > 1 ? 1 : t);
    }
    default: return x;
    }
}

/* Calls body with E standing for the C type of an element of elem_bytes. */
#define MO_BY_BYTES(elem_bytes, body)                                       \
    switch (elem_bytes) {                                                   \
    case 1: { typedef uint8_t E; body } break;                              \
    case 2: { typedef uint16_t E; body } break;                             \
    case 4: { typedef uint32_t E; body } break;                             \
    case 8: { typedef uint64_t E; body } break;                             \
    default: { typedef struct mo_bytes16 E; body } break;                   \
    }

#endif
