/* io.h - how the library reaches files without opening any: formats/ fills this
 * table and mopt_open puts it into the context. */
#ifndef MO_IO_H
#define MO_IO_H

#include "lib/base/base.h"

struct mo_source;
struct mo_host_tensor;
struct mopt_model;

/* Which part of a data set a folder offers is meant. */
enum mo_part { MO_PART_TRAIN, MO_PART_TEST };

struct mo_io {
    enum mopt_status (*read_model)(struct mopt_ctx *, const char *path, struct mopt_model **);
    enum mopt_status (*write_model)(struct mopt_ctx *, const struct mopt_model *, const char *path, unsigned flags);
    /* spec: "idx:DIR", "csv:FILE,label=3", ...; *source is NULL with MOPT_OK where the
     * data has no such part (a folder with train files only asked for its test part).
     * schema: of the source that the model was trained on (mo_source.schema), so that classes and
     * one-hot columns get the same numbers; NULL: made from this data. */
    enum mopt_status (*open_source)(struct mopt_ctx *, const char *spec, enum mo_part part, const char *schema,
                                    struct mo_source **);
    /* One tensor in a file, .pb (TensorProto) or .npy by its suffix; see lib/data/host_tensor.h. */
    enum mopt_status (*read_tensor)(struct mopt_ctx *, const char *path, struct mo_host_tensor *);
    /* A list of tensors in a .pb file (SequenceProto, OptionalProto), as `list` (MO_SEQUENCE, MO_OPTIONAL) says: the block of
     * lib/ops/sequence.h. */
    enum mopt_status (*read_list)(struct mopt_ctx *, const char *path, int list, struct mo_host_tensor *);
    enum mopt_status (*write_tensor)(struct mopt_ctx *, const char *path, const struct mo_host_tensor *,
                                     bool overwrite);
    enum mopt_status (*read_file)(struct mopt_ctx *, const char *path, char **bytes, size_t *n_bytes);
    enum mopt_status (*write_file)(struct mopt_ctx *, const char *path, const void *bytes, size_t n_bytes,
                                   bool overwrite);
    bool (*file_exists)(const char *path);
    /* bytes that write_model would write, external data included */
    enum mopt_status (*model_bytes)(struct mopt_ctx *, const struct mopt_model *, uint64_t *bytes);
    /* XXH64 and size of a file's bytes */
    enum mopt_status (*hash_file)(struct mopt_ctx *, const char *path, uint64_t *hash, uint64_t *n_bytes);
    /* the processor's name ("" where the system does not tell) and how many are online */
    int (*machine)(char *cpu, size_t cpu_bytes);
    /* zeros in a file without a name, as mo_mem_adopt gives them; NULL: there is no room for it */
    void *(*spill)(size_t n_bytes);
    /* these bytes, where they lie in a file the model was read from, are not needed soon */
    void (*forget)(const struct mopt_model *, const void *bytes, size_t n_bytes);
    /* A picture in memory, of any format that is known by its first bytes, as rows of RGB (mo_mem_free). */
    enum mopt_status (*decode_image)(struct mopt_ctx *, const void *bytes, size_t n_bytes, uint8_t **pixels, int *height,
                                     int *width);
    /* a JSON report read back (--baseline); the caller frees it */
    enum mopt_status (*read_report)(struct mopt_ctx *, const char *path, struct mopt_report **);
};

#endif
