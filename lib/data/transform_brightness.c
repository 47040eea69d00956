/* brightness: mixed with black by a random factor. torchvision: ColorJitter(brightness=X or (LOW, HIGH)). */
#include "lib/data/transform.h"

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    return mo_recolor(scratch, image, MO_COLOR_BRIGHTNESS, mo_draw_between(rng, step->arg[0], step->arg[1]));
}

const struct mo_transform mo_transform_brightness = {
    .name = "brightness",
    .grammar = "brightness=X or brightness=LOW:HIGH",
    .help = "change of brightness by a random factor, 1 - X to 1 + X",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = mo_args_factor,
    .apply = apply,
};
