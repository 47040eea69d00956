/* Any bytes as a table; the first byte chooses the keys, and whether the table before a zero byte gives the schema. */
#include "tests/fuzz/source_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const specs[] = {"csv:%s", "csv:%s,label=0,header=1", "csv:%s,target=regression,categorical=0",
                                        "csv:%s,target=none,separator=tab"};
    if (n)
        fuzz_source(specs[data[0] % 4], NULL, data + 1, n - 1);
    const uint8_t *zero = n ? memchr(data, 0, n) : NULL; /* a schema as text, then a table */
    if (zero)
        fuzz_source("csv:%s", (const char *)data, zero + 1, n - (size_t)(zero + 1 - data));
    return 0;
}
