/* none: values stay as they are; images 0 to 255. */
#include "lib/data/transform.h"

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    step->is_settled = true;
    return mo_args_none(ctx, arena, args, step);
}

const struct mo_transform mo_transform_none = {
    .name = "none",
    .grammar = "none",
    .help = "values as they are; images 0 to 255",
    .flags = MO_TRANSFORM_VALUES | MO_TRANSFORM_SPARSE,
    .parse = parse,
};
