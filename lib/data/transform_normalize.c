/* normalize: (x - MEAN) / STD with given numbers, per channel or one for all; images are divided by 255 first unless a
 * scale stands before it. torchvision: Normalize(mean, std) behind ToTensor. */
#include "lib/data/transform.h"

#include <string.h>

static const struct { const char *name, *numbers; } presets[] = {
    {"imagenet", "channel/0.485:0.456:0.406/0.229:0.224:0.225"},
    {"cifar10", "channel/0.4914:0.4822:0.4465/0.2471:0.2435:0.2616"},
    {"mnist", "0.1307/0.3081"},
};

static enum mopt_status parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step)
{
    if (!args)
        return mo_fail(ctx, MOPT_USAGE, "give imagenet, cifar10, mnist or MEAN/STD; 'standardize' takes both from the data");
    for (size_t i = 0; i < MO_COUNT(presets); i++)
        if (!strcmp(args, presets[i].name))
            args = presets[i].numbers;
    return mo_args_values(ctx, arena, args, step);
}

const struct mo_transform mo_transform_normalize = {
    .name = "normalize",
    .grammar = "normalize=imagenet, =cifar10, =mnist or =MEAN[:MEAN...]/STD[:STD...]",
    .help = "subtract a mean, divide by a deviation",
    .flags = MO_TRANSFORM_VALUES,
    .parse = parse,
};
