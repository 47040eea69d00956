/* Any bytes as the test data of a model: an input, and behind the first 0xff 0xff an output. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/source_fuzz.h"

static char testdata_folder[64];

static void testdata_path(char *path, size_t n, int k)
{
    snprintf(path, n, "%s/%s_0.pb", testdata_folder, k ? "output" : "input");
}

static void remove_testdata(void)
{
    char path[128];
    for (int k = 0; k < 2; k++) {
        testdata_path(path, sizeof path, k);
        unlink(path);
    }
    rmdir(testdata_folder);
}

static void put_testdata(int k, const uint8_t *data, size_t n)
{
    char path[128];
    testdata_path(path, sizeof path, k);
    FILE *f = fopen(path, "wb");
    if (!f || (n > 0 && fwrite(data, 1, n, f) != n) || fclose(f))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *split = n ? memmem(data, n, "\xff\xff", 2) : NULL;
    size_t n_in = split ? (size_t)(split - data) : n;
    if (!testdata_folder[0]) {
        snprintf(testdata_folder, sizeof testdata_folder, "%s/mopt-testdata-XXXXXX",
                 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        if (!mkdtemp(testdata_folder))
            abort();
        atexit(remove_testdata);
    }
    put_testdata(0, data, n_in);
    put_testdata(1, split ? split + 2 : (const uint8_t *)"", split ? n - n_in - 2 : 0);
    fuzz_parts("onnx-testdata:%s", testdata_folder, NULL);
    return 0;
}
