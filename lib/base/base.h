/* base.h - what everything in libmopt stands on: the context, failing, memory.
 * Knows nothing of models. */
#ifndef MO_BASE_H
#define MO_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/mopt.h"

#define MO_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MO_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MO_MAX(a, b) ((a) > (b) ? (a) : (b))
#define MO_ALIGN_BYTES 64

/* ---- memory -------------------------------------------------------------- */

/* All heap memory of the library comes through these three. 64-byte aligned. NULL when
 * there is none; zeroed. (tests/torture fails each allocation of each verb in turn.) */
void *mo_mem_new(size_t count, size_t elem_bytes);      /* count * elem_bytes is checked for overflow */
void *mo_mem_grow(void *old, size_t old_bytes, size_t new_bytes);  /* old is freed on success, kept on NULL */
void mo_mem_free(void *mem);

/* An arena: small things that live and die together. Growing blocks, objects
 * separated by poisoned gaps under ASAN, never freed one by one. */
struct mo_arena_block;
struct mo_arena {
    struct mo_arena_block *first;
    size_t total_bytes;
    size_t cap_bytes;           /* 0: none; else an allocation beyond it gives NULL */
};
void *mo_arena_new(struct mo_arena *arena, size_t count, size_t elem_bytes);   /* zeroed, 16-byte aligned */
char *mo_arena_text(struct mo_arena *arena, const char *text);                 /* a copy; NULL gives NULL */
char *mo_arena_bytes(struct mo_arena *arena, const void *bytes, size_t n);     /* a copy with a 0 after it */
MOPT_PRINTF(2, 3) char *mo_arena_printf(struct mo_arena *arena, const char *fmt, ...);
void mo_arena_release(struct mo_arena *arena);

/* ---- the context ----------------------------------------------------------- */

struct mo_backend;
struct mo_device;
struct mo_comm;
struct mo_group;
struct mo_io;

struct mopt_ctx {
    char error[1024];
    enum mopt_status status;        /* of the first failure since the last mopt_clear */
    char device_name[32];
    int n_threads;
    uint64_t max_memory_bytes;
    const struct mo_backend *backend;   /* NULL until mo_device_need opened it */
    struct mo_device *device;
    const struct mo_comm *comm;         /* how ranks talk; NULL: this process is alone (mopt_join) */
    struct mo_group *group;
    int rank, n_ranks, local_rank;      /* 0 of 1 without others; local: among those of the same host */
    bool has_own_threads;               /* the number of threads was said, not found */
    const struct mo_io *io;             /* how files are reached; see io.h */
    mopt_event_fn *on_event;
    void *event_user;
    atomic_bool is_stopped;
    const char *rescue;                 /* see mopt_rescue */
    char checkpoint[1024];              /* that this job has written; empty: none */
};

/* ---- failing ---------------------------------------------------------------- */

/* Notes the status and the words of a failure and returns the status. The
 * first failure wins. Lower case, no full stop, quote names, say what would
 * be right. Needs no memory. */
MOPT_PRINTF(3, 4) enum mopt_status mo_fail(struct mopt_ctx *ctx, enum mopt_status status, const char *fmt, ...);
/* Puts "where: " in front of the words of the failure on its way up. */
MOPT_PRINTF(2, 3) void mo_blame(struct mopt_ctx *ctx, const char *fmt, ...);
/* The usual failure of an allocation. */
enum mopt_status mo_no_memory(struct mopt_ctx *ctx, uint64_t wanted_bytes, const char *what);

#define MO_TRY(call)                                      \
    do {                                                  \
        enum mopt_status try_status_ = (call);            \
        if (try_status_)                                  \
            return try_status_;                           \
    } while (0)

/* ---- telling ------------------------------------------------------------------ */

MOPT_PRINTF(3, 4) void mo_log(struct mopt_ctx *ctx, const char *phase, const char *fmt, ...);
MOPT_PRINTF(3, 4) void mo_warn(struct mopt_ctx *ctx, const char *phase, const char *fmt, ...);
void mo_progress(struct mopt_ctx *ctx, const char *phase, double done, double total, const char *unit,
                 const char *text);
/* MOPT_INTERRUPTED once mopt_stop was called. Ask it at every safe point. */
enum mopt_status mo_stopped(struct mopt_ctx *ctx);

/* ---- random numbers ------------------------------------------------------------ */

/* Philox 4x32-10 (Salmon et al., SC'11): counter-based, so that any number of
 * threads, workers and devices draw the same numbers. A stream is named by
 * (seed, stream); draw i of it is a pure function of both. */
struct mo_rng {
    uint64_t seed, stream, next;    /* next: index of the next 32-bit draw */
    uint32_t block[4];
};
/* Streams that the library uses, so that no two uses share one. The low 48
 * bits are the user's (epoch, sample, layer...). */
enum mo_rng_use {
    MO_RNG_INIT = 1, MO_RNG_SHUFFLE, MO_RNG_SPLIT, MO_RNG_SUBSET, MO_RNG_AUGMENT, MO_RNG_DROPOUT,
    MO_RNG_PRUNE, MO_RNG_INPUT, MO_RNG_TEST,
};
struct mo_rng mo_rng_new(uint64_t seed, enum mo_rng_use use, uint64_t which);
uint32_t mo_rng_u32(struct mo_rng *rng);
uint32_t mo_rng_below(struct mo_rng *rng, uint32_t bound);      /* unbiased, 0 <= r < bound */
float mo_rng_float(struct mo_rng *rng);                         /* 0 <= r < 1, 24 bits */
float mo_rng_normal(struct mo_rng *rng);                        /* mean 0, deviation 1 (Box-Muller) */
void mo_rng_shuffle(struct mo_rng *rng, uint32_t *items, size_t n);

/* ---- small helpers --------------------------------------------------------------- */

uint64_t mo_hash64(const void *bytes, size_t n, uint64_t seed);         /* FNV-1a, 64 bit */
uint64_t mo_xxh64(const void *bytes, size_t n);                         /* XXH64, seed 0 */
bool mo_glob(const char *pattern, const char *text);                    /* *, ?, [a-z]; linear time */
/* The entry of the NULL-ended list nearest to word, or NULL when none is near. */
const char *mo_nearest(const char *word, const char *const *words, size_t n_words);
/* a * b, or false on overflow. */
bool mo_mul_size(size_t a, size_t b, size_t *product);
double mo_now_s(void);                                                  /* monotonic clock */

#endif
