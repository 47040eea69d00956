/* Any bytes as a training checkpoint, once as they are and once with size and hash set right, so that what lies behind
 * these is reached: refused in words, or a recipe to go on with. */
#include "formats/formats.h"
#include "lib/base/io.h"
#include "tests/fuzz/fuzz.h"

enum { AT_BYTES = 16, AT_HASH = 24, HASHED_FROM = 32 };
struct fuzz_bytes { struct mo_io io; const uint8_t *data; size_t n; };

static enum mopt_status give_bytes(struct mopt_ctx *ctx, const char *path, char **bytes, size_t *n_bytes)
{
    const struct fuzz_bytes *file = (const struct fuzz_bytes *)ctx->io;
    *bytes = mo_mem_new(file->n + 1, 1);
    if (!*bytes)
        return mo_no_memory(ctx, file->n, path);
    if (file->n)
        memcpy(*bytes, file->data, file->n);
    *n_bytes = file->n;
    return MOPT_OK;
}

static void fuzz_resume(const uint8_t *data, size_t n)
{
    struct fuzz_bytes file = {.io.read_file = give_bytes, .data = data, .n = n};
    struct mopt_ctx ctx = {.max_memory_bytes = 64 << 20, .n_threads = 1, .io = &file.io};
    struct mopt_recipe *recipe = NULL;
    char *model = NULL;
    if (mopt_recipe_resume(&ctx, "fuzz.ckpt", &recipe, &model) ? !ctx.error[0] || recipe || model : !recipe || !model)
        abort();
    mopt_recipe_free(recipe);
    mopt_text_free(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_resume(data, n);
    if (n < HASHED_FROM)
        return 0;
    uint8_t *right = (uint8_t *)fuzz_text(data, n);
    uint64_t n_bytes = n, hash = mo_hash64(right + HASHED_FROM, n - HASHED_FROM, 0);
    memcpy(right + AT_BYTES, &n_bytes, sizeof n_bytes);
    memcpy(right + AT_HASH, &hash, sizeof hash);
    fuzz_resume(right, n);
    free(right);
    return 0;
}
