/* Any text as a recipe: refused in words, or a recipe whose own text is read back and says the same. */
#include "formats/formats.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mopt_ctx ctx = {.max_memory_bytes = 64 << 20, .n_threads = 1};
    struct mopt_recipe *recipe = NULL, *again = NULL;
    char *text = fuzz_text(data, n), *said = NULL, *said_again = NULL;
    if (mo_recipe_parse(&ctx, text, &recipe)) {
        if (!ctx.error[0] || recipe)
            abort();
    } else if (mopt_recipe_text(&ctx, recipe, &said) || mo_recipe_parse(&ctx, said, &again) ||
               mopt_recipe_text(&ctx, again, &said_again) || strcmp(said, said_again))
        abort();
    mopt_recipe_free(recipe);
    mopt_recipe_free(again);
    mopt_text_free(said);
    mopt_text_free(said_again);
    free(text);
    return 0;
}
