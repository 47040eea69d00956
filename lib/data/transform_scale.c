/* scale: x F. Alone, x / 255: what torchvision's ToTensor does to an image. */
#include "lib/data/transform.h"

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    double divisor = 255;
    if (args) {
        MO_TRY(mo_args_numbers(ctx, args, 1, 1, step));
        divisor = 1 / step->arg[0]; /* of 1/255 again 255, to the bit in float */
        if (!(divisor < 1e30 && divisor > -1e30) || divisor == 0)
            return mo_fail(ctx, MOPT_USAGE, "%g is no factor", step->arg[0]);
    }
    MO_TRY(mo_step_room(ctx, arena, 1, step));
    step->div[0] = (float)divisor;
    step->is_settled = true;
    return MOPT_OK;
}

const struct mo_transform mo_transform_scale = {
    .name = "scale",
    .grammar = "scale[=FACTOR]",
    .help = "values times FACTOR (1/255)",
    .flags = MO_TRANSFORM_VALUES | MO_TRANSFORM_SPARSE,
    .parse = parse,
};
