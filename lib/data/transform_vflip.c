/* vflip: turned upside down with probability P. torchvision: RandomVerticalFlip(p). */
#include "lib/data/transform.h"

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    return mo_rng_float(rng) >= step->arg[0] || mo_flip(scratch, image, false);
}

const struct mo_transform mo_transform_vflip = {
    .name = "vflip",
    .grammar = "vflip[=P]",
    .help = "mirror top to bottom with probability P (0.5)",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = mo_args_chance,
    .apply = apply,
};
