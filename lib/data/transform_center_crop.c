/* center-crop: the middle; a smaller image is padded with 0 first. torchvision: CenterCrop. */
#include "lib/data/transform.h"

static void size(const struct mo_step *step, struct mo_image *image)
{
    image->height = (int)step->arg[0];
    image->width = (int)step->arg[step->n_args - 1];
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    (void)rng;
    return mo_center_crop(scratch, image, (int)step->arg[0], (int)step->arg[step->n_args - 1]);
}

const struct mo_transform mo_transform_center_crop = {
    .name = "center-crop",
    .grammar = "center-crop=SIZE or center-crop=HEIGHTxWIDTH",
    .help = "cut out the middle",
    .parse = mo_args_size,
    .apply = apply,
    .size = size,
};
