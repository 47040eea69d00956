/* Any bytes as a tensor on its own, .pb or .npy: refused in words, or elements that are all there and that are read
 * back the same when written. */
#include "formats/npy.h"
#include "formats/sources.h"
#include "formats/tensor_pb.h"
#include "tests/fuzz/fuzz.h"

static void fuzz_again(struct mopt_ctx *ctx, const struct mo_host_tensor *t)
{
    struct mo_host_tensor again;
    uint8_t *bytes;
    size_t n;
    if (mo_tensor_pb_encode(ctx, t, &bytes, &n) || mo_tensor_pb_parse(ctx, bytes, n, &again) ||
        again.n_bytes != t->n_bytes || memcmp(again.data, t->data, t->n_bytes) ||
        !mo_shape_equal(&again.shape, &t->shape))
        abort();
    mo_host_tensor_release(&again);
    mo_mem_free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mopt_ctx ctx = {.max_memory_bytes = 64 << 20, .n_threads = 1};
    struct mo_host_tensor t;
    struct mo_npy array;
    uint8_t *exact = (uint8_t *)fuzz_text(data, n);
    if (!mo_tensor_pb_parse(&ctx, exact, n, &t)) {
        fuzz_again(&ctx, &t);
        mo_host_tensor_release(&t);
    } else if (!ctx.error[0])
        abort();
    mopt_clear(&ctx);
    if (!mo_npy_parse(&ctx, "fuzz.npy", exact, n, &array)) {
        volatile unsigned sum = 0;
        for (size_t i = 0; i < array.n_bytes; i++)
            sum += ((const uint8_t *)array.data)[i];
        if (array.dtype == MO_STRING && !mo_npy_read_texts(&ctx, "fuzz.npy", &array, &t)) {
            uint8_t *bytes;
            size_t n_bytes;
            if (mo_npy_write_texts(&ctx, "fuzz.npy", &t, &bytes, &n_bytes))     /* what was read is UTF-8 */
                abort();
            mo_mem_free(bytes);
            mo_host_tensor_release(&t);
        }
        mo_npy_release(&array);
    } else if (!ctx.error[0])
        abort();
    free(exact);
    return 0;
}
