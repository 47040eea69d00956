/* Any bytes as a tensor whose elements lie in a file beside the model: refused in words, or inside that file. The folder
 * holds a file, a folder, a link inside and links that lead out. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/onnx.h"
#include "tests/fuzz/fuzz.h"

enum { FILE_BYTES = 64 };
static char external_folder[64];

static void remove_folder(void)
{
    static const char *const names[] = {"d", "sub/d", "in", "out", "up", "sub"};
    char path[128];
    for (size_t i = 0; i < MO_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", external_folder, names[i]);
        (void)remove(path);
    }
    rmdir(external_folder);
}

static void write_numbers(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", external_folder, name);
    FILE *f = fopen(path, "wb");
    for (int i = 0; f && i < FILE_BYTES; i++)
        fputc(i, f);
    if (!f || fclose(f))
        abort();
}

static void link_to(const char *to, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", external_folder, name);
    if (symlink(to, path))
        abort();
}

static void make_folder(void)
{
    char path[128];
    snprintf(external_folder, sizeof external_folder, "%s/mopt-external-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(external_folder))
        abort();
    atexit(remove_folder);
    snprintf(path, sizeof path, "%s/sub", external_folder);
    if (mkdir(path, 0700))
        abort();
    write_numbers("d");
    write_numbers("sub/d");
    link_to("sub/d", "in");
    link_to("/etc/passwd", "out");
    link_to("..", "up");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!external_folder[0])
        make_folder();
    struct mopt_ctx ctx = {.max_memory_bytes = 64 << 20, .n_threads = 1};
    struct mo_arena arena = {0};
    uint8_t *exact = (uint8_t *)fuzz_text(data, n);
    struct mo_onnx_in in = {.ctx = &ctx, .arena = &arena, .bytes = exact, .n_bytes = n, .is_mapped = true,
                            .folder = external_folder};
    struct mo_tensor_const t;
    enum mo_data_owner owner;
    ProtobufCMessage *message;
    enum mopt_status s = mo_onnx_unpack(&in, &mo_onnx__tensor_proto__descriptor, &message);
    if (!s)
        s = mo_onnx_tensor(&in, (MoOnnx__TensorProto *)message, false, &t, &owner);
    if (s && !ctx.error[0])
        abort();
    volatile unsigned sum = 0;
    for (size_t i = 0; !s && t.dtype != MO_STRING && i < mo_dtype_bytes(t.dtype, mo_shape_elems(&t.shape)); i++)
        sum += ((const uint8_t *)t.data)[i];
    if (in.external_bytes % FILE_BYTES)
        abort(); /* a file that is none of ours */
    mo_onnx_external_release(in.externals);
    mo_arena_release(&arena);
    free(exact);
    return 0;
}
