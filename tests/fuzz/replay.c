/* replay.c - runs a fuzz target over files, for a compiler without libFuzzer and for findings:
 *
 *     cc ... tests/fuzz/fuzz_onnx.c tests/fuzz/replay.c ... && ./replay FILE... */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    uint8_t *data = NULL;
    size_t n = 0, room = 0, got = 0;
    do {
        n += got;
        if (n == room) {
            room = room ? room * 2 : 4096;
            uint8_t *grown = realloc(data, room);
            if (!grown) {
                free(data);
                fclose(f);
                return 1;
            }
            data = grown;
        }
        got = fread(data + n, 1, room - n, f);
    } while (got);
    fclose(f);
    /* a block of exactly n bytes, so that reading past its end is seen */
    uint8_t *exact = realloc(data, n ? n : 1);
    LLVMFuzzerTestOneInput(exact ? exact : data, n);
    free(exact ? exact : data);
    return 0;
}

int main(int argc, char **argv)
{
    int status = 0;
    for (int i = 1; i < argc; i++)
        status |= replay(argv[i]);
    return status;
}
