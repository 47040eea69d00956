/* Any bytes as a numpy array, or as an archive of them. */
#include "tests/fuzz/source_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_source("npz:%s", NULL, data, n);
    fuzz_source("npy:%s,%s", NULL, data, n); /* an array as samples and targets */
    return 0;
}
