/* Any text as a list of transforms, as a model's metadata holds it: refused in words, or it can be written, read back and
 * applied to an image and to rows. */
#include <math.h>

#include "lib/data/transform.h"
#include "tests/fuzz/fuzz.h"

enum { SIDE = 6, FUZZ_MAX_SIDE = 512 };

static void fuzz_apply(const struct mo_pipeline *pipeline)
{
    static const uint8_t pixels[SIDE * SIDE * 3] = {9, 200, 31};
    struct mo_image image = {SIDE, SIDE, 3, SIDE * 3, pixels}, size = image;
    struct mo_scratch scratch = {0};
    struct mo_rng rng = mo_rng_new(1, MO_RNG_AUGMENT, 0);
    float x[3 * 4] = {1, -2, 3};
    mo_pipeline_size(pipeline, &size);
    if (size.height <= FUZZ_MAX_SIDE && size.width <= FUZZ_MAX_SIDE && mo_pipeline_apply(pipeline, &rng, &scratch, &image)) {
        volatile unsigned sum = 0;
        for (int y = 0; y < image.height; y++)
            for (int k = 0; k < image.width * image.channels; k++)
                sum += image.pixels[(size_t)y * image.stride + (size_t)k];
    }
    bool fits = mo_pipeline_is_settled(pipeline);
    for (uint32_t i = 0; i < pipeline->n_steps; i++) { /* what opening a data set checks */
        const struct mo_step *s = &pipeline->steps[i];
        fits = fits && (s->n <= 1 || s->n == (s->axis == MO_AXIS_CHANNEL ? 3 : 4));
    }
    if (fits)
        mo_pipeline_values(pipeline, x, 12, 3, 4);
    mo_scratch_release(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mopt_ctx ctx = {.max_memory_bytes = 64 << 20, .n_threads = 1};
    struct mo_arena arena = {0};
    struct mo_pipeline pipeline, again;
    char *text = fuzz_text(data, n);
    if (mo_pipeline_parse(&ctx, &arena, text, &pipeline)) {
        if (!ctx.error[0])
            abort();
    } else {
        const char *said = mo_pipeline_text(&arena, &pipeline, false), *eval = mo_pipeline_text(&arena, &pipeline, true);
        if (!said || !eval || mo_pipeline_parse(&ctx, &arena, said, &again) || mo_pipeline_parse(&ctx, &arena, eval, &again))
            abort();
        fuzz_apply(&pipeline);
    }
    mo_arena_release(&arena);
    free(text);
    return 0;
}
