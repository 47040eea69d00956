/* onnx_out.h - encoding protobuf from its end to its beginning.
 *
 * A message's length stands before it, and is known when the message has been
 * written; so everything is written backwards: the last field first, within a field
 * the value, then its length, then its tag. Large payloads are not copied: the output
 * notes where they lie. */
#ifndef MO_ONNX_OUT_H
#define MO_ONNX_OUT_H

#include "formats/onnx.h"

struct mo_onnx_ref { const void *bytes; size_t n_bytes; size_t at; };   /* at: bytes of buf that follow it */

/* A tensor that lies in the external file. */
struct mo_onnx_place { const struct mo_value *value; uint64_t offset; };

struct mo_onnx_out {
    struct mopt_ctx *ctx;
    const struct mopt_model *model;
    uint8_t *buf;                   /* filled from its end: the last n_buf of cap_buf bytes */
    size_t n_buf, cap_buf;
    struct mo_onnx_ref *refs; size_t n_refs, cap_refs;      /* the last in the file first */
    uint64_t n_total;               /* bytes of buf and refs */
    bool is_full;                   /* memory ended */
    const char *external_name;      /* location written for external tensors; NULL: none are */
    struct mo_onnx_place *places; size_t n_places, cap_places;  /* in the order of the file; taken from the end */
    uint64_t external_bytes;
    enum mopt_status status;        /* of the first thing that cannot be written */
};

void mo_out_bytes(struct mo_onnx_out *o, const void *bytes, size_t n);
void mo_out_varint(struct mo_onnx_out *o, uint64_t x);
void mo_out_int(struct mo_onnx_out *o, uint32_t field, int64_t x);
void mo_out_float(struct mo_onnx_out *o, uint32_t field, float x);
void mo_out_text(struct mo_onnx_out *o, uint32_t field, const char *text);     /* NULL: nothing */
void mo_out_blob(struct mo_onnx_out *o, uint32_t field, const void *bytes, size_t n);
/* The same without a copy; the bytes must stay until the output is written. */
void mo_out_ref(struct mo_onnx_out *o, uint32_t field, const void *bytes, size_t n);
void mo_out_kept(struct mo_onnx_out *o, struct mo_kept kept);
/* A message: note n_total, write its fields, then close it under its field number. */
void mo_out_close(struct mo_onnx_out *o, uint32_t field, uint64_t n_total_before);

/* onnx_write_parts.c */
void mo_onnx_write_graph(struct mo_onnx_out *o, const struct mo_graph *g);
/* onnx_write_tensor.c */
void mo_onnx_write_shape(struct mo_onnx_out *o, const struct mo_shape *shape, const char **names,
                         const struct mo_kept *rest);
void mo_onnx_write_tensor(struct mo_onnx_out *o, const struct mo_tensor_const *t, const char *doc,
                          const struct mo_value *place_of);
void mo_onnx_write_initializer(struct mo_onnx_out *o, const struct mo_value *v);
void mo_onnx_write_info(struct mo_onnx_out *o, uint32_t field, const struct mo_value *v);

#endif
