/* rotate: by a random angle about the centre, outside 0. torchvision: RandomRotation(DEGREES or (LOW, HIGH)), nearest
 * neighbour unless bilinear. Counter-clockwise for positive angles. */
#include "lib/data/transform.h"

#include <math.h>

enum { BILINEAR = 2 };
static const double pi = 3.14159265358979323846;

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    MO_TRY(mo_args_word(ctx, arena, &args, "nearest|bilinear", step));
    MO_TRY(mo_args_numbers(ctx, args, 1, 2, step));
    if (step->n_args == 1) {
        if (step->arg[0] < 0)
            return mo_fail(ctx, MOPT_USAGE, "%g degrees is below 0; LOW:HIGH for another range", step->arg[0]);
        step->arg[1] = step->arg[0];
        step->arg[0] = -step->arg[1];
    }
    if (step->arg[0] > step->arg[1] || fabs(step->arg[0]) > 360 || fabs(step->arg[1]) > 360)
        return mo_fail(ctx, MOPT_USAGE, "%g:%g is no range of degrees", step->arg[0], step->arg[1]);
    return MOPT_OK;
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    double angle = -mo_draw_between(rng, step->arg[0], step->arg[1]) * pi / 180;
    double c = cos(angle), s = sin(angle), x = image->width / 2.0, y = image->height / 2.0;
    double m[6] = {c, s, x - c * x - s * y, -s, c, y + s * x - c * y};
    return mo_affine(scratch, image, m, step->mode == BILINEAR);
}

const struct mo_transform mo_transform_rotate = {
    .name = "rotate",
    .grammar = "rotate=DEGREES[:bilinear] or rotate=LOW:HIGH[:bilinear]",
    .help = "random rotation about the centre",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = parse,
    .apply = apply,
};
