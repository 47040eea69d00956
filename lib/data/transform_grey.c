/* grey: one channel, 0.299 R + 0.587 G + 0.114 B. torchvision: Grayscale(1). */
#include "lib/data/transform.h"

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    (void)step, (void)rng;
    return mo_channels(scratch, image, 1);
}

static void size(const struct mo_step *step, struct mo_image *image)
{
    (void)step;
    image->channels = 1;
}

const struct mo_transform mo_transform_grey = {
    .name = "grey",
    .grammar = "grey",
    .help = "one channel, the luma of the three",
    .parse = mo_args_none,
    .apply = apply,
    .size = size,
};
