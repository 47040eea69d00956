/* ctx.c - the words of a failure, events, and stopping. (mopt_open and mopt_close are in
 * formats/open.c, since opening ties the library to its files.) */
#include "lib/base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *mopt_error(const struct mopt_ctx *ctx)
{
    return ctx->error[0] ? ctx->error : mopt_status_text(ctx->status);
}

const char *mopt_status_text(enum mopt_status status)
{
    switch (status) {
#define X(name, code, text) \
    case MOPT_##name:       \
        return text;
        MOPT_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

void mopt_clear(struct mopt_ctx *ctx)
{
    ctx->status = MOPT_OK;
    ctx->error[0] = 0;
}

enum mopt_status mo_fail(struct mopt_ctx *ctx, enum mopt_status status, const char *fmt, ...)
{
    if (ctx->status)
        return ctx->status;
    va_list args;
    va_start(args, fmt);
    vsnprintf(ctx->error, sizeof ctx->error, fmt, args);
    va_end(args);
    ctx->status = status;
    return status;
}

void mo_blame(struct mopt_ctx *ctx, const char *fmt, ...)
{
    char words[sizeof ctx->error], where[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(where, sizeof where, fmt, args);
    va_end(args);
    memcpy(words, ctx->error, sizeof words);
    words[sizeof words - 1] = 0;
    int n = snprintf(ctx->error, sizeof ctx->error, "%s: ", where);
    if (n > 0 && (size_t)n < sizeof ctx->error)
        snprintf(ctx->error + n, sizeof ctx->error - (size_t)n, "%s", words);
}

enum mopt_status mo_no_memory(struct mopt_ctx *ctx, uint64_t wanted_bytes, const char *what)
{
    return mo_fail(ctx, MOPT_LIMIT, "out of memory: %llu bytes for %s", (unsigned long long)wanted_bytes, what);
}

void mopt_on_event(struct mopt_ctx *ctx, mopt_event_fn *fn, void *user)
{
    ctx->on_event = fn;
    ctx->event_user = user;
}

static void tell(struct mopt_ctx *ctx, enum mopt_event_kind kind, const char *phase, const char *fmt, va_list args)
{
    if (!ctx->on_event)
        return;
    char text[1024];
    vsnprintf(text, sizeof text, fmt, args);
    struct mopt_event event = {.kind = kind, .phase = phase, .text = text};
    ctx->on_event(ctx->event_user, &event);
}

void mo_log(struct mopt_ctx *ctx, const char *phase, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    tell(ctx, MOPT_EVENT_LOG, phase, fmt, args);
    va_end(args);
}

void mo_warn(struct mopt_ctx *ctx, const char *phase, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    tell(ctx, MOPT_EVENT_WARNING, phase, fmt, args);
    va_end(args);
}

void mo_progress(struct mopt_ctx *ctx, const char *phase, double done, double total, const char *unit,
                 const char *text)
{
    if (!ctx->on_event)
        return;
    struct mopt_event event = {.kind = MOPT_EVENT_PROGRESS,
                               .phase = phase,
                               .text = text ? text : "",
                               .done = done,
                               .total = total,
                               .unit = unit};
    ctx->on_event(ctx->event_user, &event);
}

void mopt_rescue(struct mopt_ctx *ctx, const char *path_or_null)
{
    ctx->rescue = path_or_null;
}

void mopt_stop(struct mopt_ctx *ctx)
{
    atomic_store(&ctx->is_stopped, true);
}

enum mopt_status mo_stopped(struct mopt_ctx *ctx)
{
    if (!atomic_load_explicit(&ctx->is_stopped, memory_order_relaxed))
        return MOPT_OK;
    if (*ctx->checkpoint)
        return mo_fail(ctx, MOPT_INTERRUPTED, "interrupted; go on with --resume '%s'", ctx->checkpoint);
    return mo_fail(ctx, MOPT_INTERRUPTED, "interrupted");
}

double mo_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
