/* bgr: red and blue exchanged, as models want that were trained on pictures read by OpenCV. */
#include "lib/data/transform.h"

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    (void)step, (void)rng;
    if (image->channels != 3)
        return true;
    uint8_t *out = mo_scratch_image(scratch, image->height, image->width, 3), *to = out;
    if (!out)
        return false;
    for (int y = 0; y < image->height; y++) {
        const uint8_t *in = image->pixels + (size_t)y * image->stride;
        for (int x = 0; x < image->width; x++, in += 3, to += 3) {
            to[0] = in[2];
            to[1] = in[1];
            to[2] = in[0];
        }
    }
    image->pixels = out;
    image->stride = (size_t)image->width * 3;
    return true;
}

const struct mo_transform mo_transform_bgr = {
    .name = "bgr",
    .grammar = "bgr",
    .help = "exchange red and blue",
    .parse = mo_args_none,
    .apply = apply,
};
