/* npy.h - numpy's .npy files, alone or in .npz archives. */
#ifndef MO_NPY_H
#define MO_NPY_H

#include "formats/blob.h"
#include "lib/data/host_tensor.h"

struct mo_npy {
    enum mo_dtype dtype;
    struct mo_shape shape;
    const uint8_t *data;            /* C order, this machine's byte order; unaligned when it points into the file */
    size_t n_bytes;
    size_t letters;                 /* of MO_STRING: each text has so many letters of UTF-32, the last ones 0 */
    void *heap;                     /* what data points into when the file's form had to be changed; or NULL */
};
/* Versions 1 to 3. Pickled objects and structures are refused, and texts in another byte order. path: for words. The bytes must stay. */
MOPT_MUST_CHECK enum mopt_status mo_npy_parse(struct mopt_ctx *ctx, const char *path, const uint8_t *bytes,
                                              size_t n_bytes, struct mo_npy *array);
void mo_npy_release(struct mo_npy *array);
/* The header of a .npy file for that type and shape, padded to 64 bytes; 0: the type has no numpy name. */
size_t mo_npy_header(enum mo_dtype dtype, const struct mo_shape *shape, char *text, size_t room);
/* The same for texts of so many letters. */
size_t mo_npy_text_header(size_t letters, const struct mo_shape *shape, char *text, size_t room);
/* npy_texts.c: texts from UTF-32 to one behind the other in UTF-8, and into a whole file; *bytes is mo_mem_new's. */
MOPT_MUST_CHECK enum mopt_status mo_npy_read_texts(struct mopt_ctx *ctx, const char *path, const struct mo_npy *array,
                                                   struct mo_host_tensor *tensor);
MOPT_MUST_CHECK enum mopt_status mo_npy_write_texts(struct mopt_ctx *ctx, const char *path,
                                                    const struct mo_host_tensor *tensor, uint8_t **bytes, size_t *n_bytes);

/* A zip archive: its central directory is read and checked at once. */
struct mo_zip_entry { char name[128]; const uint8_t *packed; uint64_t packed_bytes, n_bytes; uint32_t crc; bool is_deflated; };
struct mo_zip { const char *path; struct mo_zip_entry *entry; size_t n_entries; };
MOPT_MUST_CHECK enum mopt_status mo_zip_open(struct mopt_ctx *ctx, const char *path, const struct mo_blob *blob,
                                             struct mo_zip *zip);
void mo_zip_close(struct mo_zip *zip);
/* The entry's bytes: in the file when stored, else new memory in *heap. */
MOPT_MUST_CHECK enum mopt_status mo_zip_read(struct mopt_ctx *ctx, const struct mo_zip *zip,
                                             const struct mo_zip_entry *entry, const uint8_t **bytes, void **heap);

#endif
