/* Any bytes as a model: refused in words, or a graph that holds its invariants, can be copied and encoded. */
#include <stdlib.h>

#include "formats/formats.h"
#include "lib/graph/graph.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mopt_ctx *ctx = mopt_open("cpu", 1);
    if (!ctx)
        return 0;
    if (mopt_configure(ctx, NULL, 0, 256 << 20))
        abort();
    struct mopt_model *m, *copy;
    uint64_t bytes;
    if (mopt_model_parse(ctx, data, n, &m)) {
        if (!mopt_error(ctx)[0])
            abort();
    } else {
        if (mo_graph_check(ctx, &m->graph) || mo_model_copy(ctx, m, &copy))
            abort();
        if (mo_model_bytes(ctx, copy, &bytes) && !mopt_error(ctx)[0])
            abort();
        mopt_model_free(copy);
        mopt_model_free(m);
    }
    mopt_close(ctx);
    return 0;
}
