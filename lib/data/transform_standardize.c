/* standardize: (x - mean) / deviation of the training split; images per channel, tables per feature, categorical
 * columns left alone. A feature that never changes gets deviation 1. */
#include "lib/data/transform.h"

#include <string.h>

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    if (args && strchr(args, '/'))
        return mo_args_values(ctx, arena, args, step);
    MO_TRY(mo_args_word(ctx, arena, &args, "all|channel|feature", step));
    step->has_axis = step->mode > 0;
    step->axis = (enum mo_value_axis)(step->mode - 1);
    return mo_args_none(ctx, arena, args, step);
}

static enum mopt_status fit(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_stats *stats,
                            struct mo_step *step)
{
    MO_TRY(mo_step_room(ctx, arena, stats->n, step));
    for (uint32_t i = 0; i < stats->n; i++)
        if (!stats->fixed || !stats->fixed[i]) {
            step->sub[i] = (float)stats->mean[i];
            step->div[i] = stats->deviation[i] > 0 ? (float)stats->deviation[i] : 1;
        }
    return MOPT_OK;
}

const struct mo_transform mo_transform_standardize = {
    .name = "standardize",
    .grammar = "standardize[=all|channel|feature] or =[AXIS/]MEANS/STDS",
    .help = "mean 0 and deviation 1 on the training split",
    .flags = MO_TRANSFORM_VALUES | MO_TRANSFORM_FITS,
    .parse = parse,
    .fit = fit,
};
