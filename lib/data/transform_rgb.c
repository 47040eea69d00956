/* rgb: three channels; a grey image gives three equal ones. torchvision: Grayscale(3) of a grey image. */
#include "lib/data/transform.h"

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    (void)step, (void)rng;
    return mo_channels(scratch, image, 3);
}

static void size(const struct mo_step *step, struct mo_image *image)
{
    (void)step;
    image->channels = 3;
}

const struct mo_transform mo_transform_rgb = {
    .name = "rgb",
    .grammar = "rgb",
    .help = "three channels, equal ones from a grey image",
    .parse = mo_args_none,
    .apply = apply,
    .size = size,
};
