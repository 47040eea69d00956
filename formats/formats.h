/* formats.h - what the files of formats/ offer one another. */
#ifndef MO_FORMATS_H
#define MO_FORMATS_H

#include "lib/base/io.h"
#include "lib/base/report.h"

/* file.c */
bool mo_file_exists(const char *path);

/* onnx_write.c: bytes that mopt_model_write would write, external data included. */
MOPT_MUST_CHECK enum mopt_status mo_model_bytes(struct mopt_ctx *ctx, const struct mopt_model *model, uint64_t *bytes);

/* onnx_read.c: pages of the files the model was read from that are not needed soon. */
void mo_onnx_forget(const struct mopt_model *model, const void *bytes, size_t n_bytes);

/* sources.c */
MOPT_MUST_CHECK enum mopt_status mo_source_open(struct mopt_ctx *ctx, const char *spec, enum mo_part part,
                                                const char *schema, struct mo_source **source);

/* tensor_file.c: one tensor in a file, .pb or .npy by its suffix. */
MOPT_MUST_CHECK enum mopt_status mo_tensor_file_read(struct mopt_ctx *ctx, const char *path,
                                                     struct mo_host_tensor *tensor);
/* A list of tensors in a .pb file; `list` is MO_SEQUENCE or MO_OPTIONAL. */
MOPT_MUST_CHECK enum mopt_status mo_list_file_read(struct mopt_ctx *ctx, const char *path, int list,
                                                   struct mo_host_tensor *tensor);
MOPT_MUST_CHECK enum mopt_status mo_tensor_file_write(struct mopt_ctx *ctx, const char *path,
                                                      const struct mo_host_tensor *tensor, bool overwrite);

/* recipe_json.c */
MOPT_MUST_CHECK enum mopt_status mo_recipe_parse(struct mopt_ctx *ctx, const char *json, struct mopt_recipe **recipe);

/* report_json.c */
MOPT_MUST_CHECK enum mopt_status mo_read_report(struct mopt_ctx *ctx, const char *path, struct mopt_report **report);
MOPT_MUST_CHECK enum mopt_status mo_report_parse(struct mopt_ctx *ctx, const char *json, struct mopt_report **report);

#endif
