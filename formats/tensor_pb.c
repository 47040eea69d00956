/* tensor_pb.c - a TensorProto on its own. */
#include "formats/tensor_pb.h"

#include <stdio.h>
#include <string.h>

#include "formats/onnx.h"

static enum mopt_status copy_out(struct mopt_ctx *ctx, const struct mo_tensor_const *from, struct mo_host_tensor *to)
{
    if (from->dtype == MO_STRING)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "the tensor holds texts");
    to->dtype = from->dtype;
    to->shape = from->shape;
    to->n_bytes = mo_dtype_bytes(from->dtype, mo_shape_elems(&from->shape));
    to->data = mo_mem_new(MO_MAX(to->n_bytes, (size_t)1), 1);
    if (!to->data)
        return mo_no_memory(ctx, to->n_bytes, "a tensor");
    if (to->n_bytes)
        memcpy(to->data, from->data, to->n_bytes);
    snprintf(to->name, sizeof to->name, "%s", from->name);
    return MOPT_OK;
}

enum mopt_status mo_tensor_pb_parse(struct mopt_ctx *ctx, const void *bytes, size_t n_bytes,
                                    struct mo_host_tensor *tensor)
{
    struct mo_arena arena = {0};
    struct mo_onnx_in in = {.ctx = ctx, .arena = &arena, .bytes = bytes, .n_bytes = n_bytes, .is_mapped = true};
    struct mo_tensor_const read;
    enum mo_data_owner owner;
    ProtobufCMessage *message;
    *tensor = (struct mo_host_tensor){0};
    enum mopt_status s = mo_onnx_unpack(&in, &mo_onnx__tensor_proto__descriptor, &message);
    if (!s)
        s = mo_onnx_tensor(&in, (MoOnnx__TensorProto *)message, false, &read, &owner);
    if (!s)
        s = copy_out(ctx, &read, tensor);
    mo_arena_release(&arena);
    return s;
}

/* ---- encoding ------------------------------------------------------------------- */

/* Field numbers of TensorProto, and wire types. */
enum { FIELD_DIMS = 1, FIELD_TYPE = 2, FIELD_NAME = 8, FIELD_RAW = 9, WIRE_VARINT = 0, WIRE_BYTES = 2, MAX_VARINT = 10 };

static uint8_t *put_varint(uint8_t *at, uint64_t x)
{
    for (; x >= 0x80; x >>= 7)
        *at++ = (uint8_t)(x | 0x80);
    *at++ = (uint8_t)x;
    return at;
}

static uint8_t *put_number(uint8_t *at, int field, uint64_t x)
{
    return put_varint(put_varint(at, (uint64_t)field << 3 | WIRE_VARINT), x);
}

static uint8_t *put_bytes(uint8_t *at, int field, const void *bytes, size_t n)
{
    at = put_varint(put_varint(at, (uint64_t)field << 3 | WIRE_BYTES), n);
    if (n)
        memcpy(at, bytes, n);
    return at + n;
}

enum mopt_status mo_tensor_pb_encode(struct mopt_ctx *ctx, const struct mo_host_tensor *t, uint8_t **bytes,
                                     size_t *n_bytes)
{
    size_t n_name = strlen(t->name), room = t->n_bytes + n_name + (2 * MO_MAX_RANK + 6) * MAX_VARINT;
    uint8_t *start = mo_mem_new(room, 1), *at = start;
    if (!start)
        return mo_no_memory(ctx, room, "a tensor");
    for (int i = 0; i < t->shape.rank; i++)
        at = put_number(at, FIELD_DIMS, (uint64_t)t->shape.dim[i]);
    at = put_number(at, FIELD_TYPE, (uint64_t)t->dtype);
    if (n_name)
        at = put_bytes(at, FIELD_NAME, t->name, n_name);
    at = put_bytes(at, FIELD_RAW, t->data, t->n_bytes);
    *bytes = start;
    *n_bytes = (size_t)(at - start);
    return MOPT_OK;
}
