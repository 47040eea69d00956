/* translate: moved by a random whole number of pixels, up to a share of width and of height; outside 0. torchvision:
 * RandomAffine(0, translate=(X, Y)). */
#include <math.h>
#include "lib/data/transform.h"

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    (void)arena;
    MO_TRY(mo_args_numbers(ctx, args, 1, 2, step));
    if (step->n_args == 1)
        step->arg[1] = step->arg[0];
    for (int i = 0; i < 2; i++)
        if (!(step->arg[i] >= 0 && step->arg[i] <= 1))
            return mo_fail(ctx, MOPT_USAGE, "%g is no share from 0 to 1", step->arg[i]);
    return MOPT_OK;
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    double most_x = step->arg[0] * image->width, most_y = step->arg[1] * image->height;
    double right = nearbyint(mo_draw_between(rng, -most_x, most_x));
    double down = nearbyint(mo_draw_between(rng, -most_y, most_y));
    return mo_affine(scratch, image, (const double[6]){1, 0, -right, 0, 1, -down}, false);
}

const struct mo_transform mo_transform_translate = {
    .name = "translate",
    .grammar = "translate=SHARE or translate=X:Y",
    .help = "random shift, up to a share of width and height",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = parse,
    .apply = apply,
};
