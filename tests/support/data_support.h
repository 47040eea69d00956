/* data_support.h - what the tests of data share: a context that reaches the formats, a model of a given input, a
 * folder that is removed, files written into it. */
#ifndef DATA_SUPPORT_H
#define DATA_SUPPORT_H

#include "formats/sources.h"
#include "lib/data/private.h"

struct rig {
    struct mopt_ctx ctx;
    struct mo_io io;
    struct mo_data_settings settings;
    char folder[64];
    int n_warnings;
    char last_warning[1024];
};
void rig_open(struct rig *rig);
void rig_close(struct rig *rig);                                            /* removes the folder and all in it */
/* A file in the rig's folder; gives out its path, in one of a few turning buffers. */
const char *rig_file(struct rig *rig, const char *name, const void *bytes, size_t n_bytes);
const char *rig_text(struct rig *rig, const char *name, const char *text);
const char *rig_path(struct rig *rig, const char *name);
/* "format:FOLDER/rest" */
const char *rig_spec(struct rig *rig, const char *format, const char *rest);
/* A model with one input of that type and shape, MO_UNKNOWN for free dimensions, nothing else. */
struct mopt_model *model_of(enum mo_dtype dtype, int rank, const int64_t *dims);
/* Hash of the stream of an epoch: inputs, labels, targets, indexes. */
uint64_t stream_hash(struct rig *rig, struct mopt_dataset *d, const struct mo_loader_options *how, uint64_t epoch,
                     size_t first_batch);

#endif
