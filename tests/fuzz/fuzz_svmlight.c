/* Any bytes as sparse rows; the first byte chooses the keys. */
#include "tests/fuzz/source_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const specs[] = {"svmlight:%s", "svmlight:%s,zero-based=1,columns=5", "svmlight:%s,target=regression"};
    if (n)
        fuzz_source(specs[data[0] % 3], NULL, data + 1, n - 1);
    return 0;
}
