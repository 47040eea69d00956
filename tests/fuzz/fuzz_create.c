/* Any text as the spec of a new model: refused in words, or a model that holds its invariants. */
#include "lib/graph/graph.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mopt_ctx ctx = {.max_memory_bytes = 4 << 20, .n_threads = 1};
    struct mopt_model *m = NULL;
    char *text = fuzz_text(data, n);
    if (mopt_model_create(&ctx, text, 1, &m)) {
        if (!ctx.error[0] || m)
            abort();
    } else if (mo_graph_check(&ctx, &m->graph))
        abort();
    mopt_model_free(m);
    free(text);
    return 0;
}
