/* Any text as the schema of the training data, as a model's metadata holds it, with a sound table, folder of images or
 * sparse matrix to read by it. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/source_fuzz.h"

static char schema_folder[64];

static const uint8_t grey_png[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x08, 0x00, 0x00, 0x00, 0x08, 0x08, 0x00, 0x00, 0x00, 0x00, 0xe1, 0x64, 0xe1, 0x57, 0x00, 0x00, 0x00, 0x13, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x64, 0x60, 0x86, 0x00, 0x46, 0x09, 0x28, 0x83, 0x85, 0x2c, 0x06, 0x00, 0x32,
    0x07, 0x01, 0x6b, 0x6d, 0xb1, 0x9e, 0x17, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82};

static void remove_images(void)
{
    static const char *const names[] = {"cat/1.png", "dog/1.png", "cat", "dog", "."};
    char path[128];
    for (size_t i = 0; i < MO_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", schema_folder, names[i]);
        (void)remove(path);
    }
    rmdir(schema_folder);
}

static void make_images(void)
{
    char path[128];
    snprintf(schema_folder, sizeof schema_folder, "%s/mopt-schema-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(schema_folder))
        abort();
    atexit(remove_images);
    for (int k = 0; k < 2; k++) {
        snprintf(path, sizeof path, "%s/%s", schema_folder, k ? "dog" : "cat");
        if (mkdir(path, 0700))
            abort();
        snprintf(path, sizeof path, "%s/%s/1.png", schema_folder, k ? "dog" : "cat");
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(grey_png, 1, sizeof grey_png, f) != sizeof grey_png || fclose(f))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char table[] = "1,no,u\n?,yes,w\n3,yes,?\n4,no,v\n", sparse[] = "+1 1:0.5 3:-2\n-1 2:1e2\n";
    if (!schema_folder[0])
        make_images();
    char *schema = fuzz_text(data, n);
    fuzz_source("csv:%s", schema, (const uint8_t *)table, sizeof table - 1);
    fuzz_source("svmlight:%s", schema, (const uint8_t *)sparse, sizeof sparse - 1);
    fuzz_parts("imagefolder:%s", schema_folder, schema);
    free(schema);
    return 0;
}
