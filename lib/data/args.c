/* args.c - what stands behind '=' in a transform. */
#include "lib/data/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIDE = 16384, MAX_FACTOR = 100 };

/* A number, or a fraction as 1/255, that ends at one of the marks or the end; *at moves behind it. False: none there. */
static bool parse_number(const char **at, const char *marks, double *x)
{
    char *end;
    const char *start = *at;
    if (!(*start == '-' || *start == '.' || (*start >= '0' && *start <= '9')))
        return false;
    *x = strtod(start, &end);
    if (*end == '/' && !strchr(marks, '/')) {
        start = end + 1;
        double below = strtod(start, &end);
        if (end == start || below == 0)
            return false;
        *x /= below;
    }
    *at = end;
    return end != start && isfinite(*x) && (!*end || strchr(marks, *end));
}

enum mopt_status mo_args_numbers(struct mopt_ctx *ctx, const char *args, int min, int max, struct mo_step *step)
{
    const char *at = args;
    step->n_args = 0;
    if (!args || !*args)
        return mo_fail(ctx, MOPT_USAGE, "a number is missing");
    while (step->n_args < max) {
        if (!parse_number(&at, ":", &step->arg[step->n_args]))
            return mo_fail(ctx, MOPT_USAGE, "'%s' is not a number", args);
        step->n_args++;
        if (!*at)
            break;
        at++;
        if (!*at)
            return mo_fail(ctx, MOPT_USAGE, "'%s' ends with ':'", args);
    }
    if (*at)
        return mo_fail(ctx, MOPT_USAGE, "'%s' has more than %d numbers", args, max);
    if (step->n_args < min)
        return mo_fail(ctx, MOPT_USAGE, "'%s' has fewer than %d numbers", args, min);
    return MOPT_OK;
}

enum mopt_status mo_args_word(struct mopt_ctx *ctx, struct mo_arena *arena, const char **args, const char *words,
                              struct mo_step *step)
{
    step->mode = 0;
    if (!*args)
        return MOPT_OK;
    const char *colon = strrchr(*args, ':'), *word = colon ? colon + 1 : *args, *at = words;
    for (int i = 1; *at; i++) {
        size_t n = strcspn(at, "|");
        if (strlen(word) == n && !memcmp(word, at, n)) {
            step->mode = i;
            *args = colon ? mo_arena_bytes(arena, *args, (size_t)(colon - *args)) : NULL;
            return colon && !*args ? mo_no_memory(ctx, n, "a transform") : MOPT_OK;
        }
        at += n + (at[n] == '|');
    }
    return MOPT_OK;
}

enum mopt_status mo_args_none(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    (void)arena, (void)step;
    return args ? mo_fail(ctx, MOPT_USAGE, "'%s' is not one of its arguments", args) : MOPT_OK;
}

enum mopt_status mo_args_chance(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    (void)arena;
    step->arg[0] = 0.5;
    if (args)
        MO_TRY(mo_args_numbers(ctx, args, 1, 1, step));
    if (!(step->arg[0] >= 0 && step->arg[0] <= 1))
        return mo_fail(ctx, MOPT_USAGE, "%g is no probability", step->arg[0]);
    return MOPT_OK;
}

enum mopt_status mo_args_size(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    (void)arena;
    const char *at = args ? args : "";
    for (step->n_args = 0; step->n_args < 2;) {
        double x = 0;
        if (!parse_number(&at, "x", &x) || x != floor(x) || x < 1 || x > MAX_SIDE)
            return mo_fail(ctx, MOPT_USAGE, "'%s' is no size from 1 to %d, or two as 224x224", args ? args : "", MAX_SIDE);
        step->arg[step->n_args++] = x;
        if (!*at)
            return MOPT_OK;
        at++;
    }
    return mo_fail(ctx, MOPT_USAGE, "'%s' is no size", args);
}

enum mopt_status mo_args_factor(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    (void)arena;
    MO_TRY(mo_args_numbers(ctx, args, 1, 2, step));
    if (step->n_args == 1) {
        double x = step->arg[0];
        if (x < 0)
            return mo_fail(ctx, MOPT_USAGE, "%g is below 0", x);
        step->arg[0] = MO_MAX(0.0, 1 - x);
        step->arg[1] = 1 + x;
    }
    if (!(step->arg[0] >= 0 && step->arg[0] <= step->arg[1] && step->arg[1] <= MAX_FACTOR))
        return mo_fail(ctx, MOPT_USAGE, "%g:%g is no range of factors", step->arg[0], step->arg[1]);
    return MOPT_OK;
}

enum mopt_status mo_step_room(struct mopt_ctx *ctx, struct mo_arena *arena, uint32_t n, struct mo_step *step)
{
    step->sub = mo_arena_new(arena, n, sizeof *step->sub);
    step->div = mo_arena_new(arena, n, sizeof *step->div);
    if (!step->sub || !step->div)
        return mo_no_memory(ctx, 2 * (uint64_t)n * sizeof(float), "a transform's numbers");
    step->n = n;
    for (uint32_t i = 0; i < n; i++)
        step->div[i] = 1;
    return MOPT_OK;
}

static uint32_t count_numbers(const char *text, size_t n_bytes)
{
    uint32_t n = 1;
    for (size_t i = 0; i < n_bytes; i++)
        n += text[i] == ':';
    return n;
}

/* n numbers into x; *at behind them. */
static bool parse_list(const char **at, uint32_t n, float *x)
{
    for (uint32_t i = 0; i < n; i++) {
        double number;
        if (!parse_number(at, ":/", &number))
            return false;
        x[i] = (float)number;
        if (i + 1 < n && *(*at)++ != ':')
            return false;
    }
    return true;
}

enum mopt_status mo_args_values(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    static const char *const axes[] = {"all/", "channel/", "feature/"};
    const char *at = args;
    for (size_t i = 0; i < MO_COUNT(axes); i++)
        if (!strncmp(args, axes[i], strlen(axes[i]))) {
            step->has_axis = true;
            step->axis = (enum mo_value_axis)i;
            at += strlen(axes[i]);
        }
    const char *slash = strchr(at, '/');
    if (!slash)
        return mo_fail(ctx, MOPT_USAGE, "'%.40s' is not MEAN/STD", args);
    uint32_t n = count_numbers(at, (size_t)(slash - at)), n_div = count_numbers(slash + 1, strlen(slash + 1));
    MO_TRY(mo_step_room(ctx, arena, MO_MAX(n, n_div), step));
    if ((n != step->n && n != 1) || (n_div != step->n && n_div != 1))
        return mo_fail(ctx, MOPT_USAGE, "%u numbers before '/', %u after it", n, n_div);
    if (!parse_list(&at, n, step->sub) || *at++ != '/' || !parse_list(&at, n_div, step->div) || *at)
        return mo_fail(ctx, MOPT_USAGE, "'%.40s' is not MEAN/STD", args);
    for (uint32_t i = 0; i < step->n; i++) {
        step->sub[i] = step->sub[n == 1 ? 0 : i];
        step->div[i] = step->div[n_div == 1 ? 0 : i];
        if (step->div[i] == 0)
            return mo_fail(ctx, MOPT_USAGE, "a deviation is 0");
    }
    if (step->n > 1 && !step->has_axis)
        step->axis = MO_AXIS_CHANNEL;
    step->is_settled = true;
    return MOPT_OK;
}

double mo_draw_between(struct mo_rng *rng, double low, double high)
{
    return low + (high - low) * (double)mo_rng_float(rng);
}
