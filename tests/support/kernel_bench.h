/* kernel_bench.h - one kernel called with the same random operands on several
 * backends. Operands lie in the device's memory; what a case looks at or changes
 * itself is what result() brought back. */
#ifndef TEST_KERNEL_BENCH_H
#define TEST_KERNEL_BENCH_H

#include <check.h>
#include <stdlib.h>

#include "kernels/backend.h"
#include "lib/base/base.h"

#define MAX_ELEMS 200000

/* One kernel called with the same operands through `be`; results go to out[0..n_out). */
struct bench {
    const struct mo_backend *be;
    struct mo_device *dev;
    struct mo_rng rng;              /* drawn alike for every backend of a round */
    float *out; size_t n_out;
    float *mem; size_t used;        /* operands, on the device */
    float *draft;                   /* one operand, before it goes there */
};

static inline float *operand(struct bench *b, size_t n, float scale, float shift)
{
    float *x = b->mem + b->used;
    b->used += (n + 15) / 16 * 16;
    ck_assert_uint_lt(b->used, 40 * MAX_ELEMS);
    for (size_t i = 0; i < n; i++)
        b->draft[i] = shift + scale * (2 * mo_rng_float(&b->rng) - 1);
    b->be->upload(b->dev, x, b->draft, n * sizeof *x);
    return x;
}

/* Room for bytes of any kind, or a copy of some. */
static inline void *table(struct bench *b, const void *host, size_t n_bytes)
{
    float *mem = b->mem + b->used;
    b->used += (n_bytes / sizeof *mem + 16) / 16 * 16;
    ck_assert_uint_lt(b->used, 40 * MAX_ELEMS);
    if (host)
        b->be->upload(b->dev, mem, host, n_bytes);
    return mem;
}

/* Gives where they are kept, on the host. */
static inline float *result(struct bench *b, const float *x, size_t n)
{
    float *kept = b->out + b->n_out;
    ck_assert_uint_lt(b->n_out + n, 20 * MAX_ELEMS);
    b->be->download(b->dev, kept, x, n * sizeof *x);
    b->n_out += n;
    return kept;
}

static inline void result_bytes(struct bench *b, const uint8_t *x, size_t n)
{
    uint8_t *bytes = (uint8_t *)b->draft;
    ck_assert_uint_lt(b->n_out + n, 20 * MAX_ELEMS);
    b->be->download(b->dev, bytes, x, n);
    for (size_t i = 0; i < n; i++)
        b->out[b->n_out++] = bytes[i];
}

static inline int64_t pick(struct bench *b, int low, int high)
{
    return low + (int64_t)mo_rng_below(&b->rng, (uint32_t)(high - low + 1));
}

static inline struct bench bench_new(const struct mo_backend *be, int n_threads)
{
    char why[160];
    struct bench b = { .be = be, .dev = be->open(0, n_threads, why, sizeof why) };
    ck_assert_msg(b.dev, "%s", why);
    b.out = malloc(sizeof *b.out * 20 * MAX_ELEMS);
    b.mem = be->alloc(b.dev, sizeof *b.mem * 40 * MAX_ELEMS);
    b.draft = malloc(sizeof *b.draft * 40 * MAX_ELEMS);
    ck_assert(b.out && b.mem && b.draft);
    return b;
}

static inline void bench_free(struct bench *b)
{
    b->be->free(b->dev, b->mem);
    b->be->close(b->dev);
    free(b->out);
    free(b->draft);
}

/* The CUDA backend on the device that is the CPU (tests/emulated/), of which `make test` tells in $MOPT_EMULATED; NULL:
 * it was not told. Only in a test of its own process: a plug-in once loaded stays. */
static inline const struct mo_backend *emulated_backend(bool in_reverse)
{
    const char *plugin = getenv("MOPT_EMULATED");
    if (!plugin || !plugin[0])
        return NULL;
    setenv("MOPT_CUDA_PLUGIN", plugin, 1);
    if (in_reverse)
        setenv("MOPT_EMULATED_REVERSE", "1", 1);
    return mo_backend_find("cuda");
}

/* The CUDA backend where a device opens; NULL: there is none, and it said why. */
static inline const struct mo_backend *cuda_backend(void)
{
    char why[200] = "";
    const struct mo_backend *be = mo_backend_find("cuda");
    struct mo_device *dev = be->open(0, 1, why, sizeof why);
    if (dev)
        be->close(dev);
    else
        ck_assert_uint_gt(strlen(why), 10);
    return dev ? be : NULL;
}

#endif
