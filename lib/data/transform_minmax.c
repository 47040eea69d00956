/* minmax: smallest and largest value of the training split to LOW and HIGH. As (x - sub) / div:
 * div = (max - min) / (HIGH - LOW), sub = min - LOW div. */
#include "lib/data/transform.h"

#include <string.h>

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    if (args && strchr(args, '/'))
        return mo_args_values(ctx, arena, args, step);
    MO_TRY(mo_args_word(ctx, arena, &args, "all|channel|feature", step));
    step->has_axis = step->mode > 0;
    step->axis = (enum mo_value_axis)(step->mode - 1);
    step->arg[1] = 1;
    if (!args)
        return MOPT_OK;
    MO_TRY(mo_args_numbers(ctx, args, 2, 2, step));
    if (!(step->arg[0] < step->arg[1]))
        return mo_fail(ctx, MOPT_USAGE, "%g:%g is no range", step->arg[0], step->arg[1]);
    return MOPT_OK;
}

static enum mopt_status fit(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_stats *stats,
                            struct mo_step *step)
{
    MO_TRY(mo_step_room(ctx, arena, stats->n, step));
    for (uint32_t i = 0; i < stats->n; i++) {
        double span = stats->high[i] - stats->low[i];
        if (stats->fixed && stats->fixed[i])
            continue;
        step->div[i] = span > 0 ? (float)(span / (step->arg[1] - step->arg[0])) : 1;
        step->sub[i] = (float)(stats->low[i] - step->arg[0] * (double)step->div[i]);
    }
    return MOPT_OK;
}

const struct mo_transform mo_transform_minmax = {
    .name = "minmax",
    .grammar = "minmax[=LOW:HIGH][:all|:channel|:feature] or =[AXIS/]SUBS/DIVS",
    .help = "smallest and largest value of the training split to 0 and 1",
    .flags = MO_TRANSFORM_VALUES | MO_TRANSFORM_FITS,
    .parse = parse,
    .fit = fit,
};
