/* Any bytes as a picture. */
#include <stdlib.h>

#include "formats/image_decode.h"
#include "tests/fuzz/fuzz.h"

enum { FUZZ_MAX_PIXELS = 1 << 18 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mo_sample_buffer buffer = {0};
    for (int channels = 1; channels <= 3; channels += 2) {
        int height = 0, width = 0;
        char why[256] = "";
        enum mopt_status s = mo_image_decode(data, n, channels, FUZZ_MAX_PIXELS, &buffer, &height, &width, why, sizeof why);
        if (s ? !why[0] : (size_t)height * (size_t)width * (size_t)channels > buffer.bytes)
            abort();
        volatile unsigned sum = 0;
        for (size_t k = 0; !s && k < (size_t)height * (size_t)width * (size_t)channels; k++)
            sum += ((const uint8_t *)buffer.mem)[k];
    }
    mo_mem_free(buffer.mem);
    return 0;
}
