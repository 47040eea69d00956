/* onnx.h - what the parts of the ONNX reader and writer share.
 *
 *     bytes --scan--> skeleton --protobuf-c--> messages --read--> mopt_model
 *
 * The scan checks every length and depth and leaves tensor payloads out, so that
 * what protobuf-c unpacks is small and safe to recurse over. Messages live in the
 * model's arena, and the graph points into them. */
#ifndef MO_ONNX_H
#define MO_ONNX_H

#include "formats/file.h"
#include "lib/graph/graph.h"
#include "lib/graph/private.h"

#include "onnx.pb-c.h"

/* Messages within messages that a file may have; a subgraph takes three. */
#define MO_ONNX_MAX_DEPTH 64

struct mo_onnx_external;

/* A model being read. */
struct mo_onnx_in {
    struct mopt_ctx *ctx;
    struct mo_arena *arena;
    const uint8_t *bytes;
    size_t n_bytes;
    bool is_mapped;                     /* bytes outlive the model: tensors may point into them */
    const char *folder;                 /* where external data lies; NULL: there is none */
    struct mo_onnx_external *externals; /* files mapped so far */
    uint64_t external_bytes;
    int depth;                          /* of graphs */
};

/* onnx_scan.c. root says what message the bytes are; the skeleton is new memory (mo_mem_free). */
MOPT_MUST_CHECK enum mopt_status mo_onnx_scan(struct mopt_ctx *ctx, const ProtobufCMessageDescriptor *root,
                                              const uint8_t *bytes, size_t n_bytes,
                                              uint8_t **skeleton, size_t *n_skeleton);
/* Scan and unpack; the message lives in in->arena. */
MOPT_MUST_CHECK enum mopt_status mo_onnx_unpack(struct mo_onnx_in *in, const ProtobufCMessageDescriptor *root,
                                                ProtobufCMessage **message);
/* The fields a message still has, encoded, into the arena: what the caller does not model. */
MOPT_MUST_CHECK enum mopt_status mo_onnx_keep(struct mo_onnx_in *in, const ProtobufCMessage *message,
                                              struct mo_kept *kept);

/* onnx_read_tensor.c. Fills the tensor; *owner is HEAP where data is new memory, which happens only
 * when may_own: otherwise what cannot be borrowed is copied into the arena. */
MOPT_MUST_CHECK enum mopt_status mo_onnx_tensor(struct mo_onnx_in *in, MoOnnx__TensorProto *t, bool may_own,
                                                struct mo_tensor_const *tensor, enum mo_data_owner *owner);

/* onnx_external.c: n_bytes of the tensor's external file; refused when they are not all there. */
MOPT_MUST_CHECK enum mopt_status mo_onnx_external_data(struct mo_onnx_in *in, const MoOnnx__TensorProto *t,
                                                       size_t n_bytes,
                                                       const uint8_t **data);
void mo_onnx_external_release(struct mo_onnx_external *externals);
void mo_onnx_external_forget(const struct mo_onnx_external *externals, const void *bytes, size_t n_bytes);

/* onnx_read_info.c: the ValueInfoProto of a value. */
MOPT_MUST_CHECK enum mopt_status mo_onnx_info(struct mo_onnx_in *in, MoOnnx__ValueInfoProto *info, struct mo_value *v);

/* onnx_read_graph.c: names of the graphs around, innermost first, and what a node's subgraphs took from them. */
struct mo_onnx_scope {
    struct mo_graph *graph;
    struct mo_names names;
    struct mo_onnx_scope *up;
    mo_value_id *captures;              /* of the node being read */
    uint32_t n_captures, cap_captures;
};
MOPT_MUST_CHECK enum mopt_status mo_onnx_graph(struct mo_onnx_in *in, MoOnnx__GraphProto *p, struct mo_graph *g,
                                               struct mo_onnx_scope *up);
/* onnx_read_attr.c */
MOPT_MUST_CHECK enum mopt_status mo_onnx_attr(struct mo_onnx_in *in, MoOnnx__AttributeProto *p, struct mo_attr *a,
                                              struct mo_onnx_scope *scope);

/* onnx_read_function.c: local functions as graphs; what the message holds is used up. */
MOPT_MUST_CHECK enum mopt_status mo_onnx_functions(struct mo_onnx_in *in, struct mopt_model *m, MoOnnx__ModelProto *p);

/* onnx_write.c: bytes of the file and its external data together. */
MOPT_MUST_CHECK enum mopt_status mo_model_bytes(struct mopt_ctx *ctx, const struct mopt_model *model, uint64_t *bytes);

#endif
