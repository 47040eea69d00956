/* color-jitter: brightness, contrast and saturation, each by a random factor of 1 - X to 1 + X, in random order.
 * torchvision: ColorJitter(brightness, contrast, saturation). */
#include "lib/data/transform.h"

enum { N_KINDS = 3 };

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    (void)arena;
    MO_TRY(mo_args_numbers(ctx, args, 1, N_KINDS, step));
    for (int i = 0; i < N_KINDS; i++) {
        if (i >= step->n_args)
            step->arg[i] = step->n_args == 1 ? step->arg[0] : 0;
        if (!(step->arg[i] >= 0 && step->arg[i] <= 100))
            return mo_fail(ctx, MOPT_USAGE, "%g is below 0 or above 100", step->arg[i]);
    }
    return MOPT_OK;
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    static const enum mo_color kinds[N_KINDS] = {MO_COLOR_BRIGHTNESS, MO_COLOR_CONTRAST, MO_COLOR_SATURATION};
    uint32_t order[N_KINDS] = {0, 1, 2};
    mo_rng_shuffle(rng, order, N_KINDS);
    for (int i = 0; i < N_KINDS; i++) {
        double x = step->arg[order[i]], factor = mo_draw_between(rng, MO_MAX(0.0, 1 - x), 1 + x);
        if (x > 0 && !mo_recolor(scratch, image, kinds[order[i]], factor))
            return false;
    }
    return true;
}

const struct mo_transform mo_transform_color_jitter = {
    .name = "color-jitter",
    .grammar = "color-jitter=X or color-jitter=BRIGHTNESS:CONTRAST:SATURATION",
    .help = "brightness, contrast and saturation by random factors, in random order",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = parse,
    .apply = apply,
};
