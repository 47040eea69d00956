/* tensor_pb.h - a TensorProto on its own, as ONNX's test data has them (input_0.pb). */
#ifndef MO_TENSOR_PB_H
#define MO_TENSOR_PB_H

#include "lib/data/host_tensor.h"

/* The bytes are copied. External data is refused. The caller releases the tensor. */
MOPT_MUST_CHECK enum mopt_status mo_tensor_pb_parse(struct mopt_ctx *ctx, const void *bytes, size_t n_bytes,
                                                    struct mo_host_tensor *tensor);
/* A SequenceProto or OptionalProto, as `list` (MO_SEQUENCE, MO_OPTIONAL) says, as a block of lib/ops/sequence.h. */
MOPT_MUST_CHECK enum mopt_status mo_list_pb_parse(struct mopt_ctx *ctx, enum mo_dtype list, const void *bytes,
                                                  size_t n_bytes, struct mo_host_tensor *tensor);
/* The bytes of a TensorProto, its data raw but for texts; new memory (mo_mem_free). */
MOPT_MUST_CHECK enum mopt_status mo_tensor_pb_encode(struct mopt_ctx *ctx, const struct mo_host_tensor *tensor,
                                                     uint8_t **bytes, size_t *n_bytes);

#endif
