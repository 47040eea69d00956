/* random-scale: larger or smaller about the centre by a random factor, same size, outside 0. torchvision:
 * RandomAffine(0, scale=(LOW, HIGH)), nearest neighbour unless bilinear. */
#include "lib/data/transform.h"

enum { BILINEAR = 2 };

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    MO_TRY(mo_args_word(ctx, arena, &args, "nearest|bilinear", step));
    MO_TRY(mo_args_numbers(ctx, args, 2, 2, step));
    if (!(step->arg[0] > 0 && step->arg[0] <= step->arg[1] && step->arg[1] <= 100))
        return mo_fail(ctx, MOPT_USAGE, "%g:%g is no range of factors", step->arg[0], step->arg[1]);
    return MOPT_OK;
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    double inverse = 1 / mo_draw_between(rng, step->arg[0], step->arg[1]);
    double x = image->width / 2.0, y = image->height / 2.0;
    double m[6] = {inverse, 0, x - inverse * x, 0, inverse, y - inverse * y};
    return mo_affine(scratch, image, m, step->mode == BILINEAR);
}

const struct mo_transform mo_transform_random_scale = {
    .name = "random-scale",
    .grammar = "random-scale=LOW:HIGH[:bilinear]",
    .help = "random zoom about the centre",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = parse,
    .apply = apply,
};
