/* resize: bilinear with antialias. torchvision: Resize(SIZE) brings the shorter side to SIZE and keeps the ratio,
 * the longer one rounded down; Resize((H, W)) is exact. */
#include "lib/data/transform.h"

static void size(const struct mo_step *step, struct mo_image *image)
{
    int side = (int)step->arg[0];
    if (step->n_args == 2) {
        image->height = side;
        image->width = (int)step->arg[1];
    } else if (image->height && image->width) {
        int height = image->height, width = image->width;
        image->height = height <= width ? side : (int)((double)side * height / width);
        image->width = width <= height ? side : (int)((double)side * width / height);
    }
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    (void)rng;
    struct mo_image wanted = *image;
    size(step, &wanted);
    return mo_resize(scratch, image, wanted.height, wanted.width);
}

const struct mo_transform mo_transform_resize = {
    .name = "resize",
    .grammar = "resize=SIZE or resize=HEIGHTxWIDTH",
    .help = "bilinear with antialias; SIZE is of the shorter side",
    .parse = mo_args_size,
    .apply = apply,
    .size = size,
};
