/* emulated.cpp - the device that cuda_runtime.h beside this file describes.
 *
 * $MOPT_EMULATED_BYTES    memory of the device (1 GiB)
 * $MOPT_EMULATED_REVERSE  blocks and threads run from the last to the first: results must not tell */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

/* last: the qualifiers of CUDA are words that the library uses */
#include "cuda_runtime.h"

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

/* ---- state: one device ----------------------------------------------------------------------- */

static const size_t GUARD = 256;        /* bytes behind each allocation that nobody may write */
static const int GUARD_BYTE = 0xa5;
static const size_t MOST_QUEUED = 4096;

struct emulated_event {
    cudaStream_t stream;
    uint64_t at;                        /* that many pieces of work of the stream lie before it */
};
/* What a stream was asked for while it was captured, and the memory that belongs to that. */
struct emulated_graph {
    std::vector<std::function<void()>> work;
    std::vector<char *> blocks;
    bool is_broken;                     /* somebody waited for the stream meanwhile */
};
struct emulated_stream {
    std::deque<std::function<void()>> queue;
    uint64_t n_queued, n_done;
    emulated_graph *captured;
};

static std::recursive_mutex mutex;
static cudaError_t last_error;
static char *arena;
static size_t arena_bytes, used_bytes;
static int n_open;                      /* > 0: the arena can be read, the device runs */
static std::map<char *, size_t> blocks; /* of the arena, by address: bytes asked for */
static std::set<char *> pinned;
static std::set<cudaStream_t> streams;

typedef std::lock_guard<std::recursive_mutex> locked;

static cudaError_t failed(cudaError_t error)
{
    return last_error = error;
}

void emulated_fault(const char *what)
{
    fprintf(stderr, "emulated device: %s\n", what);
    last_error = cudaErrorIllegalAddress;
}

static void make_arena(void)
{
    if (arena)
        return;
    const char *wanted = getenv("MOPT_EMULATED_BYTES");
    arena_bytes = wanted ? strtoull(wanted, NULL, 10) & ~(size_t)4095 : (size_t)1 << 30;
    arena = (char *)mmap(NULL, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* The host cannot read the device's memory, nor write it: it lies open only while this lives. */
struct opened {
    opened()
    {
        if (n_open++ == 0)
            mprotect(arena, arena_bytes, PROT_READ | PROT_WRITE);
    }
    ~opened()
    {
        if (--n_open == 0)
            mprotect(arena, arena_bytes, PROT_NONE);
    }
};

static bool in_arena(const void *mem)
{
    return arena && (const char *)mem >= arena && (const char *)mem < arena + arena_bytes;
}

/* Does mem..mem + bytes lie within one allocation? */
static bool is_allocated(const void *mem, size_t bytes)
{
    auto it = blocks.upper_bound((char *)mem);
    if (it == blocks.begin())
        return false;
    --it;
    return (char *)mem + bytes <= it->first + it->second;
}

bool emulated_has(const void *mem, size_t bytes)
{
    locked lock(mutex);
    return in_arena(mem) && is_allocated(mem, bytes);
}

/* ---- memory ------------------------------------------------------------------------------------- */

static size_t with_guard(size_t bytes)
{
    return (bytes + GUARD - 1) / GUARD * GUARD + GUARD;
}

/* First fit. */
static char *find_room(size_t bytes)
{
    char *at = arena;
    for (const auto &block : blocks) {
        if ((size_t)(block.first - at) >= bytes)
            return at;
        at = block.first + with_guard(block.second);
    }
    return (size_t)(arena + arena_bytes - at) >= bytes ? at : NULL;
}

static void drain_all(void);

static cudaError_t allocate(void **mem, size_t bytes)
{
    make_arena();
    *mem = NULL;
    if (bytes == 0)
        return cudaSuccess;
    char *at = bytes < arena_bytes ? find_room(with_guard(bytes)) : NULL;
    if (!at) {
        drain_all();    /* what was freed in a stream is free now */
        at = bytes < arena_bytes ? find_room(with_guard(bytes)) : NULL;
    }
    if (!at)
        return failed(cudaErrorMemoryAllocation);
    opened device;
    memset(at, 0xff, bytes);
    memset(at + bytes, GUARD_BYTE, with_guard(bytes) - bytes);
    blocks[at] = bytes;
    used_bytes += with_guard(bytes);
    *mem = at;
    return cudaSuccess;
}

static void release(char *mem)
{
    auto it = blocks.find(mem);
    if (it == blocks.end()) {
        emulated_fault("what is freed was not allocated");
        return;
    }
    opened device;
    for (size_t i = it->second; i < with_guard(it->second); i++)
        if ((unsigned char)mem[i] != GUARD_BYTE) {
            emulated_fault("a kernel wrote behind an allocation");
            break;
        }
    memset(mem, 0xff, it->second);
    used_bytes -= with_guard(it->second);
    blocks.erase(it);
}

cudaError_t cudaMalloc(void **mem, size_t bytes)
{
    locked lock(mutex);
    return allocate(mem, bytes);
}

cudaError_t cudaFree(void *mem)
{
    locked lock(mutex);
    drain_all();
    if (mem)
        release((char *)mem);
    return last_error;
}

/* Of a graph: there as long as it is, and as if fresh whenever it runs. */
cudaError_t cudaMallocAsync(void **mem, size_t bytes, cudaStream_t stream)
{
    locked lock(mutex);
    cudaError_t e = allocate(mem, bytes);
    if (!e && bytes && stream->captured) {
        char *at = (char *)*mem;
        stream->captured->blocks.push_back(at);
        stream->captured->work.push_back([=] { memset(at, 0xff, bytes); });
    }
    return e;
}

cudaError_t cudaFreeAsync(void *mem, cudaStream_t stream)
{
    if (stream->captured)
        return cudaSuccess;
    emulated_enqueue(stream, [=] { release((char *)mem); });
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **mem, size_t bytes)
{
    locked lock(mutex);
    *mem = malloc(bytes);
    pinned.insert((char *)*mem);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *mem)
{
    locked lock(mutex);
    drain_all();
    pinned.erase((char *)mem);
    free(mem);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    locked lock(mutex);
    make_arena();
    *free_bytes = arena_bytes - used_bytes;
    *total_bytes = arena_bytes;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *mem, int value, size_t bytes, cudaStream_t stream)
{
    emulated_enqueue(stream, [=] {
        if (is_allocated(mem, bytes))
            memset(mem, value, bytes);
        else
            emulated_fault("memory is set that is not allocated");
    });
    return cudaSuccess;
}

cudaError_t cudaMemset(void *mem, int value, size_t bytes)
{
    locked lock(mutex);
    opened device;
    memset(mem, value, bytes);
    return cudaSuccess;
}

/* From memory that is not pinned the bytes are taken at once, to such memory they have come when this returns. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    locked lock(mutex);
    bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
    if (in_arena(to) != to_device || in_arena(from) != from_device)
        return failed(cudaErrorInvalidValue);
    if ((to_device && !is_allocated(to, bytes)) || (from_device && !is_allocated(from, bytes))) {
        emulated_fault("a copy reaches beyond an allocation");
        return last_error;
    }
    if (kind == cudaMemcpyHostToDevice && !pinned.count((char *)from) && !stream->captured) {
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        emulated_enqueue(stream, [=] { memcpy(to, staged->data(), bytes); });
        return cudaSuccess;
    }
    emulated_enqueue(stream, [=] { memmove(to, from, bytes); });
    if (kind == cudaMemcpyDeviceToHost && !pinned.count((char *)to))
        cudaStreamSynchronize(stream);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *mem)
{
    locked lock(mutex);
    a->type = in_arena(mem) ? cudaMemoryTypeDevice : pinned.count((char *)mem) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}

/* ---- streams ------------------------------------------------------------------------------------- */

static void drain(cudaStream_t stream, uint64_t until)
{
    if (stream->n_done >= until || stream->queue.empty())
        return;
    opened device;
    while (stream->n_done < until && !stream->queue.empty()) {
        std::function<void()> work = std::move(stream->queue.front());
        stream->queue.pop_front();
        stream->n_done++;
        work();
    }
}

static void drain_all(void)
{
    for (cudaStream_t s : streams)
        drain(s, s->n_queued);
}

void emulated_enqueue(cudaStream_t stream, std::function<void()> work)
{
    locked lock(mutex);
    if (stream->captured) {
        stream->captured->work.push_back(std::move(work));
        return;
    }
    stream->queue.push_back(std::move(work));
    stream->n_queued++;
    if (stream->queue.size() > MOST_QUEUED)
        drain(stream, stream->n_queued);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    locked lock(mutex);
    make_arena();
    streams.insert(*stream = new emulated_stream());
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    locked lock(mutex);
    drain(stream, stream->n_queued);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

/* An error of what ran is found here, as on a card. */
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    locked lock(mutex);
    if (stream->captured) {
        stream->captured->is_broken = true;
        return failed(cudaErrorStreamCaptureUnsupported);
    }
    drain(stream, stream->n_queued);
    return last_error;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode)
{
    locked lock(mutex);
    if (stream->captured)
        return failed(cudaErrorStreamCaptureUnsupported);
    stream->captured = new emulated_graph();
    return cudaSuccess;
}

static void free_graph(emulated_graph *g)
{
    for (char *mem : g->blocks)
        release(mem);
    delete g;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    locked lock(mutex);
    emulated_graph *g = stream->captured;
    stream->captured = NULL;
    *graph = NULL;
    if (!g)
        return failed(cudaErrorStreamCaptureUnsupported);
    if (g->is_broken) {
        free_graph(g);
        return failed(cudaErrorStreamCaptureInvalidated);
    }
    *graph = g;
    return cudaSuccess;
}

/* What is made of a graph takes over what is in it. */
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    locked lock(mutex);
    *exec = new emulated_graph();
    std::swap(**exec, *graph);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    locked lock(mutex);
    for (const auto &work : exec->work)
        emulated_enqueue(stream, work);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    locked lock(mutex);
    drain_all();
    free_graph(exec);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    locked lock(mutex);
    free_graph(graph);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    locked lock(mutex);
    drain_all();
    return last_error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new emulated_event();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    locked lock(mutex);
    *event = { stream, stream->n_queued };
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    locked lock(mutex);
    if (event->stream)
        drain(event->stream, event->at);
    return last_error;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    locked lock(mutex);
    emulated_event e = *event;
    if (e.stream && e.stream != stream)
        emulated_enqueue(stream, [=] { drain(e.stream, e.at); });
    return cudaSuccess;
}

/* ---- the device ------------------------------------------------------------------------------------ */

cudaError_t cudaGetLastError(void)
{
    locked lock(mutex);
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    default: return "unspecified launch failure";
    }
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int index)
{
    return index == 0 ? cudaSuccess : failed(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int)
{
    make_arena();
    *p = { "emulated on the CPU", arena_bytes, 0, 0, 2 };
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int)
{
    *pool = NULL;
    return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *)
{
    return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t)
{
    return cudaSuccess;
}

/* ---- kernels: a thread is a fiber, which stops at a barrier ------------------------------------------ */

static const size_t STACK_BYTES = 128 << 10;

struct fiber {
    ucontext_t start;
    jmp_buf here;
    bool is_started, has_thread, waits;     /* waits: at a barrier */
    unsigned thread;
};

struct block_run {
    const std::function<void()> *body;
    std::vector<fiber *> fibers;            /* made once, used by all blocks of all kernels */
    fiber *current;
    jmp_buf scheduler;
};
static thread_local block_run *runner;

static void fiber_main(void)
{
    for (;;) {
        block_run *r = runner;
        threadIdx = { r->current->thread, 0, 0 };
        (*r->body)();
        r = runner;
        r->current->has_thread = false;
        if (!_setjmp(r->current->here))
            _longjmp(r->scheduler, 1);
    }
}

void __syncthreads(void)
{
    fiber *self = runner->current;
    self->waits = true;
    if (!_setjmp(self->here))
        _longjmp(runner->scheduler, 1);
    threadIdx = { self->thread, 0, 0 };
}

static void resume(fiber *f)
{
    runner->current = f;
    if (_setjmp(runner->scheduler))
        return;
    if (f->is_started)
        _longjmp(f->here, 1);
    f->is_started = true;
    setcontext(&f->start);
}

static fiber *free_fiber(size_t i)
{
    if (i < runner->fibers.size())
        return runner->fibers[i];
    fiber *f = new fiber();
    void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&f->start);
    f->start.uc_stack.ss_sp = stack;
    f->start.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->start, fiber_main, 0);
    runner->fibers.push_back(f);
    return f;
}

/* A fiber whose thread has ended takes the next one; so a kernel without barriers needs one fiber. */
static void run_block(unsigned n_threads, bool from_last)
{
    size_t n_waiting = 0, n_ended = 0;
    for (unsigned i = 0; i < n_threads; i++) {
        fiber *f = free_fiber(n_waiting);
        f->thread = from_last ? n_threads - 1 - i : i;
        f->has_thread = true;
        f->waits = false;
        resume(f);
        f->waits ? n_waiting++ : n_ended++;
    }
    while (n_waiting > 0) {
        if (n_ended > 0) {
            emulated_fault("a barrier that not all threads of a block reach");
            n_ended = 0;
        }
        size_t n = n_waiting;
        n_waiting = 0;
        for (size_t i = 0; i < n; i++) {
            fiber *f = runner->fibers[i];
            if (!f->has_thread)
                continue;
            f->waits = false;
            resume(f);
            f->waits ? n_waiting++ : n_ended++;
        }
        if (n_waiting != 0 && n_waiting != n) {
            emulated_fault("a barrier that not all threads of a block reach");
            abort();        /* the fibers that wait cannot be taken apart */
        }
    }
}

void emulated_run_grid(unsigned grid, unsigned block, const std::function<void()> &thread)
{
    static const bool from_last = getenv("MOPT_EMULATED_REVERSE") != NULL;
    static thread_local block_run mine;
    runner = &mine;
    mine.body = &thread;
    gridDim = { grid, 1, 1 };
    blockDim = { block, 1, 1 };
    for (unsigned b = 0; b < grid; b++) {
        blockIdx = { from_last ? grid - 1 - b : b, 0, 0 };
        run_block(block, from_last);
    }
}

cudaError_t emulated_check_launch(unsigned grid, unsigned block)
{
    locked lock(mutex);
    return grid == 0 || grid > 2147483647u || block == 0 || block > 1024 ? failed(cudaErrorInvalidValue) : cudaSuccess;
}

/* A word that looks like an address, is not one of the device, and at which the host has memory. Programs, heaps, stacks and
 * mappings lie high; what is below may be a pair of numbers, and the address sanitizer's own memory is there. */
void emulated_check_argument(const void *argument, size_t bytes)
{
    for (size_t at = 0; at + sizeof(uintptr_t) <= bytes; at += sizeof(uintptr_t)) {
        uintptr_t word;
        unsigned char page;
        memcpy(&word, (const char *)argument + at, sizeof word);
        if (word >= (uintptr_t)1 << 45 && word < (uintptr_t)1 << 47 && !in_arena((void *)word) &&
            mincore((void *)(word & ~(uintptr_t)4095), 1, &page) == 0)
            emulated_fault("an argument of a kernel points to memory of the host");
    }
}
