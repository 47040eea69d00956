/* tensor_pb.c - a TensorProto on its own. */
#include "formats/tensor_pb.h"

#include <stdio.h>
#include <string.h>

#include "formats/onnx.h"
#include "lib/ops/sequence.h"

/* Field numbers of TensorProto, and wire types. */
enum { FIELD_DIMS = 1, FIELD_TYPE = 2, FIELD_STRING = 6, FIELD_NAME = 8, FIELD_RAW = 9, WIRE_VARINT = 0, WIRE_BYTES = 2, MAX_VARINT = 10 };

static enum mopt_status copy_texts(struct mopt_ctx *ctx, const struct mo_tensor_const *from, struct mo_host_tensor *to)
{
    int64_t n = mo_shape_elems(&from->shape);
    to->dtype = MO_STRING;
    to->shape = from->shape;
    for (int64_t i = 0; i < n; i++)
        to->n_bytes += strlen(from->strings[i]) + 1;
    char *at = to->data = mo_mem_new(to->n_bytes + 1, 1);
    if (!at)
        return mo_no_memory(ctx, to->n_bytes, "a tensor");
    for (int64_t i = 0; i < n; i++)
        at = stpcpy(at, from->strings[i]) + 1;
    snprintf(to->name, sizeof to->name, "%s", from->name);
    return MOPT_OK;
}

static enum mopt_status copy_out(struct mopt_ctx *ctx, const struct mo_tensor_const *from, struct mo_host_tensor *to)
{
    if (from->dtype == MO_STRING)
        return copy_texts(ctx, from, to);
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

/* ---- lists ------------------------------------------------------------------------ */

/* Fields of SequenceProto and of OptionalProto alike. */
enum { FIELD_TENSORS = 3, FIELD_SEQUENCES = 5, FIELD_OPTIONALS = 7, MAX_DEPTH = 8 };

struct list {
    struct mo_host_tensor *items;
    int64_t n;
    size_t room;                /* bytes of items */
};

static bool take_varint(const uint8_t **at, const uint8_t *end, uint64_t *x)
{
    *x = 0;
    for (int shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        *x |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static enum mopt_status parse_list(struct mopt_ctx *ctx, enum mo_dtype type, const uint8_t *at, size_t n_bytes, int depth,
                                   struct mo_host_tensor *tensor);

static enum mopt_status parse_item(struct mopt_ctx *ctx, struct list *l, uint64_t field, const uint8_t *at, size_t n_bytes,
                                   int depth)
{
    if (field != FIELD_TENSORS && field != FIELD_SEQUENCES && field != FIELD_OPTIONALS)
        return MOPT_OK;
    if ((size_t)(l->n + 1) * sizeof *l->items > l->room) {
        size_t room = MO_MAX(2 * l->room, 16 * sizeof *l->items);
        void *more = mo_mem_grow(l->items, l->room, room);
        if (!more)
            return mo_no_memory(ctx, room, "a list of tensors");
        l->items = more;
        l->room = room;
    }
    struct mo_host_tensor *item = &l->items[l->n++];
    *item = (struct mo_host_tensor){ 0 };
    if (field == FIELD_TENSORS) {
        MO_TRY(mo_tensor_pb_parse(ctx, at, n_bytes, item));
        return item->dtype != MO_STRING ? MOPT_OK : mo_fail(ctx, MOPT_UNSUPPORTED, "a list of tensors of strings");
    }
    return parse_list(ctx, field == FIELD_SEQUENCES ? MO_SEQUENCE : MO_OPTIONAL, at, n_bytes, depth + 1, item);
}

static enum mopt_status parse_items(struct mopt_ctx *ctx, struct list *l, const uint8_t *at, const uint8_t *end, int depth)
{
    uint64_t key, n;
    while (at < end) {
        if (!take_varint(&at, end, &key) || ((key & 7) != WIRE_VARINT && (key & 7) != WIRE_BYTES) || !take_varint(&at, end, &n) ||
            ((key & 7) == WIRE_BYTES && n > (uint64_t)(end - at)))
            return mo_fail(ctx, MOPT_DATA, "a list of tensors is cut off or broken");
        if ((key & 7) == WIRE_VARINT)
            continue;
        MO_TRY(parse_item(ctx, l, key >> 3, at, (size_t)n, depth));
        at += n;
    }
    return MOPT_OK;
}

static enum mopt_status pack(struct mopt_ctx *ctx, enum mo_dtype type, const struct list *l, struct mo_host_tensor *tensor)
{
    struct mo_item *items = mo_mem_new((size_t)l->n + 1, sizeof *items);
    for (int64_t i = 0; items && i < l->n; i++)
        items[i] = (struct mo_item){ l->items[i].dtype, l->items[i].shape, l->items[i].data };
    size_t bytes = items ? mo_sequence_bytes(items, l->n) : SIZE_MAX;
    *tensor = (struct mo_host_tensor){ .dtype = type, .shape = mo_shape_of(1, (int64_t)bytes), .n_bytes = bytes };
    tensor->data = bytes == SIZE_MAX ? NULL : mo_mem_new(bytes, 1);
    if (tensor->data)
        mo_sequence_write(items, l->n, tensor->data);
    mo_mem_free(items);
    return tensor->data ? MOPT_OK : mo_no_memory(ctx, bytes, "a list of tensors");
}

static enum mopt_status parse_list(struct mopt_ctx *ctx, enum mo_dtype type, const uint8_t *at, size_t n_bytes, int depth,
                                   struct mo_host_tensor *tensor)
{
    struct list l = { 0 };
    enum mopt_status s = depth > MAX_DEPTH ? mo_fail(ctx, MOPT_LIMIT, "lists in lists, more than %d deep", MAX_DEPTH)
                                           : parse_items(ctx, &l, at, at + n_bytes, depth);
    if (!s && type == MO_OPTIONAL && l.n > 1)
        s = mo_fail(ctx, MOPT_DATA, "an optional of %lld things", (long long)l.n);
    if (!s)
        s = pack(ctx, type, &l, tensor);
    for (int64_t i = 0; i < l.n; i++)
        mo_host_tensor_release(&l.items[i]);
    mo_mem_free(l.items);
    return s;
}

enum mopt_status mo_list_pb_parse(struct mopt_ctx *ctx, enum mo_dtype list, const void *bytes, size_t n_bytes,
                                  struct mo_host_tensor *tensor)
{
    *tensor = (struct mo_host_tensor){ 0 };
    return parse_list(ctx, list, bytes, n_bytes, 0, tensor);
}

/* ---- encoding ------------------------------------------------------------------- */

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
    size_t n_texts = t->dtype == MO_STRING ? (size_t)mo_shape_elems(&t->shape) : 0, n_name = strlen(t->name);
    size_t room = t->n_bytes + n_name + (2 * n_texts + 2 * MO_MAX_RANK + 6) * MAX_VARINT;
    uint8_t *start = mo_mem_new(room, 1), *at = start;
    if (!start)
        return mo_no_memory(ctx, room, "a tensor");
    for (int i = 0; i < t->shape.rank; i++)
        at = put_number(at, FIELD_DIMS, (uint64_t)t->shape.dim[i]);
    at = put_number(at, FIELD_TYPE, (uint64_t)t->dtype);
    if (n_name)
        at = put_bytes(at, FIELD_NAME, t->name, n_name);
    const char *text = t->data;
    for (size_t i = 0; i < n_texts; i++, text += strlen(text) + 1)
        at = put_bytes(at, FIELD_STRING, text, strlen(text));
    if (t->dtype != MO_STRING)
        at = put_bytes(at, FIELD_RAW, t->data, t->n_bytes);
    *bytes = start;
    *n_bytes = (size_t)(at - start);
    return MOPT_OK;
}
