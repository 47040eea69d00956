/* Any bytes as an idx file of images. */
#include "tests/fuzz/source_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_source("idx:%s", NULL, data, n);
    return 0;
}
