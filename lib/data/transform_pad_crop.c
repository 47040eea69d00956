/* pad-crop: pad each side, then cut out the old size at a random place. torchvision: RandomCrop(size, padding=PIXELS,
 * padding_mode="constant" or "reflect"). */
#include "lib/data/transform.h"

enum { REFLECT = 1 };

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    MO_TRY(mo_args_word(ctx, arena, &args, "reflect", step));
    MO_TRY(mo_args_numbers(ctx, args, 1, 1, step));
    if (step->arg[0] < 1 || step->arg[0] > 4096 || step->arg[0] != (int)step->arg[0])
        return mo_fail(ctx, MOPT_USAGE, "%g is no number of pixels from 1 to 4096", step->arg[0]);
    return MOPT_OK;
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    int pad = (int)step->arg[0], height = image->height, width = image->width;
    int top = (int)mo_rng_below(rng, 2 * (uint32_t)pad + 1), left = (int)mo_rng_below(rng, 2 * (uint32_t)pad + 1);
    if (!mo_pad(scratch, image, pad, pad, pad, pad, step->mode == REFLECT))
        return false;
    *image = mo_crop(image, top, left, height, width);
    return true;
}

const struct mo_transform mo_transform_pad_crop = {
    .name = "pad-crop",
    .grammar = "pad-crop=PIXELS[:reflect]",
    .help = "pad with 0 or by reflection, then crop the old size at random",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = parse,
    .apply = apply,
};
