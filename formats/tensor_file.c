/* tensor_file.c - one tensor in a file, .pb or .npy by its suffix. */
#include "formats/blob.h"
#include "formats/npy.h"
#include "formats/sources.h"
#include "formats/tensor_pb.h"

#include <string.h>

enum { MAX_HEADER_BYTES = 1024 };

static bool ends_with(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && !strcmp(path + n - m, ending);
}

static enum mopt_status no_suffix(struct mopt_ctx *ctx, const char *path)
{
    return mo_fail(ctx, MOPT_USAGE, "%s: tensor files end in .pb or .npy", path);
}

static enum mopt_status read_npy(struct mopt_ctx *ctx, const char *path, const struct mo_blob *blob,
                                 struct mo_host_tensor *tensor)
{
    struct mo_npy array;
    MO_TRY(mo_npy_parse(ctx, path, blob->bytes, blob->n_bytes, &array));
    if (array.dtype == MO_STRING) {
        enum mopt_status s = mo_npy_read_texts(ctx, path, &array, tensor);
        mo_npy_release(&array);
        return s;
    }
    *tensor = (struct mo_host_tensor){.dtype = array.dtype, .shape = array.shape, .n_bytes = array.n_bytes};
    tensor->data = mo_mem_new(MO_MAX(array.n_bytes, (size_t)1), 1);
    if (tensor->data && array.n_bytes)
        memcpy(tensor->data, array.data, array.n_bytes);
    mo_npy_release(&array);
    return tensor->data ? MOPT_OK : mo_no_memory(ctx, tensor->n_bytes, path);
}

enum mopt_status mo_tensor_file_read(struct mopt_ctx *ctx, const char *path, struct mo_host_tensor *tensor)
{
    struct mo_blob blob;
    bool is_pb = ends_with(path, ".pb");
    *tensor = (struct mo_host_tensor){0};
    if (!is_pb && !ends_with(path, ".npy"))
        return no_suffix(ctx, path);
    MO_TRY(mo_blob_open(ctx, path, &blob));
    enum mopt_status s = MOPT_OK;
    if (!is_pb)
        s = read_npy(ctx, path, &blob, tensor);
    else if ((s = mo_tensor_pb_parse(ctx, blob.bytes, blob.n_bytes, tensor)))
        mo_blame(ctx, "%s", path);
    mo_blob_close(&blob);
    return s;
}

enum mopt_status mo_list_file_read(struct mopt_ctx *ctx, const char *path, int list, struct mo_host_tensor *tensor)
{
    struct mo_blob blob;
    *tensor = (struct mo_host_tensor){0};
    if (!ends_with(path, ".pb"))
        return mo_fail(ctx, MOPT_USAGE, "%s: files with a list of tensors end in .pb", path);
    MO_TRY(mo_blob_open(ctx, path, &blob));
    enum mopt_status s = mo_list_pb_parse(ctx, (enum mo_dtype)list, blob.bytes, blob.n_bytes, tensor);
    if (s)
        mo_blame(ctx, "%s", path);
    mo_blob_close(&blob);
    return s;
}

static enum mopt_status encode_npy(struct mopt_ctx *ctx, const char *path, const struct mo_host_tensor *t,
                                   uint8_t **bytes, size_t *n_bytes)
{
    char header[MAX_HEADER_BYTES];
    size_t n = mo_npy_header(t->dtype, &t->shape, header, sizeof header);
    if (!n)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s: numpy has no elements of type %s; a .pb file has", path,
                       mo_dtype_name(t->dtype));
    *n_bytes = n + t->n_bytes;
    *bytes = mo_mem_new(*n_bytes, 1);
    if (!*bytes)
        return mo_no_memory(ctx, *n_bytes, path);
    memcpy(*bytes, header, n);
    if (t->n_bytes)
        memcpy(*bytes + n, t->data, t->n_bytes);
    return MOPT_OK;
}

enum mopt_status mo_tensor_file_write(struct mopt_ctx *ctx, const char *path, const struct mo_host_tensor *tensor,
                                      bool overwrite)
{
    if (ctx->rank) /* rank 0 writes */
        return MOPT_OK;
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    enum mopt_status s;
    if (ends_with(path, ".pb"))
        s = mo_tensor_pb_encode(ctx, tensor, &bytes, &n_bytes);
    else if (ends_with(path, ".npy"))
        s = (tensor->dtype == MO_STRING ? mo_npy_write_texts : encode_npy)(ctx, path, tensor, &bytes, &n_bytes);
    else
        return no_suffix(ctx, path);
    if (!s)
        s = mopt_file_write(ctx, path, bytes, n_bytes, overwrite);
    mo_mem_free(bytes);
    return s;
}
