/* Any bytes as a binary file of CIFAR. */
#include "tests/fuzz/source_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_source_file("cifar:%s", NULL, data, n);
    return 0;
}
