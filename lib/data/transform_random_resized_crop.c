/* random-resized-crop: a random part of the area and shape, brought to one size. torchvision: RandomResizedCrop(SIZE,
 * scale=(LOW, HIGH) = (0.08, 1), ratio=(3/4, 4/3)). For evaluation: the shorter side to SIZE / 0.875, then the middle. */
#include "lib/data/transform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HEIGHT, WIDTH, LOW, HIGH, TRIES = 10 };
static const double min_ratio = 3.0 / 4, max_ratio = 4.0 / 3, eval_share = 0.875;

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    const char *colon = args ? strchr(args, ':') : NULL;
    double low = 0.08, high = 1;
    if (colon) {
        MO_TRY(mo_args_numbers(ctx, colon + 1, 2, 2, step));
        low = step->arg[0];
        high = step->arg[1];
        if (!(low > 0 && low <= high && high <= 1))
            return mo_fail(ctx, MOPT_USAGE, "%g:%g is no range of shares of the area", low, high);
        args = mo_arena_bytes(arena, args, (size_t)(colon - args));
        if (!args)
            return mo_no_memory(ctx, 0, "a transform");
    }
    MO_TRY(mo_args_size(ctx, arena, args, step));
    step->arg[WIDTH] = step->arg[step->n_args - 1];
    step->arg[LOW] = low;
    step->arg[HIGH] = high;
    return MOPT_OK;
}

static struct mo_image choose(const struct mo_step *step, struct mo_rng *rng, const struct mo_image *image)
{
    double area = (double)image->height * image->width;
    for (int i = 0; i < TRIES; i++) {
        double part = area * mo_draw_between(rng, step->arg[LOW], step->arg[HIGH]);
        double ratio = exp(mo_draw_between(rng, log(min_ratio), log(max_ratio)));
        int width = (int)nearbyint(sqrt(part * ratio)), height = (int)nearbyint(sqrt(part / ratio));
        if (width > 0 && width <= image->width && height > 0 && height <= image->height) {
            int top = (int)mo_rng_below(rng, (uint32_t)(image->height - height + 1));
            int left = (int)mo_rng_below(rng, (uint32_t)(image->width - width + 1));
            return mo_crop(image, top, left, height, width);
        }
    }
    double ratio = (double)image->width / image->height; /* no part fits: the middle, as near as may be */
    int width = image->width, height = image->height;
    if (ratio < min_ratio)
        height = (int)nearbyint(width / min_ratio);
    else if (ratio > max_ratio)
        width = (int)nearbyint(height * max_ratio);
    return mo_crop(image, (image->height - height) / 2, (image->width - width) / 2, height, width);
}

static bool apply(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image)
{
    *image = choose(step, rng, image);
    return mo_resize(scratch, image, (int)step->arg[HEIGHT], (int)step->arg[WIDTH]);
}

static void size(const struct mo_step *step, struct mo_image *image)
{
    image->height = (int)step->arg[HEIGHT];
    image->width = (int)step->arg[WIDTH];
}

static void eval_form(const struct mo_step *step, char *text, size_t text_bytes)
{
    int height = (int)step->arg[HEIGHT], width = (int)step->arg[WIDTH];
    int side = (int)(MO_MAX(height, width) / eval_share + 0.5);
    snprintf(text, text_bytes, "resize=%d,center-crop=%dx%d", side, height, width);
}

const struct mo_transform mo_transform_random_resized_crop = {
    .name = "random-resized-crop",
    .grammar = "random-resized-crop=SIZE[:LOW:HIGH]",
    .help = "a random part with LOW to HIGH of the area (0.08:1), resized",
    .flags = MO_TRANSFORM_RANDOM,
    .parse = parse,
    .apply = apply,
    .size = size,
    .eval_form = eval_form,
};
