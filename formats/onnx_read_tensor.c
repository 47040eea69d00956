/* onnx_read_tensor.c - a TensorProto as elements in memory.
 *
 * Elements come as raw bytes, as packed numbers of a field for the type, one by
 * one, or in another file. Raw bytes, floats and doubles are used where they lie when
 * their place suits the type; everything else is decoded into new memory. */
#include "formats/onnx.h"
#include "lib/graph/large.h"

#include <stdio.h>
#include <string.h>

enum { FIELD_FLOAT = 4, FIELD_INT32 = 5, FIELD_STRING = 6, FIELD_INT64 = 7, FIELD_RAW = 9, FIELD_DOUBLE = 10,
       FIELD_UINT64 = 11 };

/* What a tensor's numbers are stored in. */
struct payload {
    uint32_t field;             /* 0: nothing is there */
    const uint8_t *packed;      /* with n_packed bytes, or NULL: unpacked numbers in the message */
    size_t n_packed;
    size_t n_numbers;           /* of the unpacked */
};

static const char *label(const MoOnnx__TensorProto *t, char *buf, size_t n)
{
    snprintf(buf, n, "tensor '%s'", t->name ? t->name : "");
    return buf;
}

static enum mopt_status refuse(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, const char *what)
{
    char buf[160];
    return mo_fail(in->ctx, MOPT_UNSUPPORTED, "%s: %s", label(t, buf, sizeof buf), what);
}

/* The field that holds numbers of a type when they are not raw. */
static uint32_t field_of(enum mo_dtype dtype)
{
    switch (dtype) {
    case MO_F32: case MO_C64: return FIELD_FLOAT;
    case MO_F64: case MO_C128: return FIELD_DOUBLE;
    case MO_I64: return FIELD_INT64;
    case MO_U32: case MO_U64: return FIELD_UINT64;
    case MO_STRING: return FIELD_STRING;
    default: return FIELD_INT32;
    }
}

static enum mopt_status find_payload(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, struct payload *p)
{
    const struct { uint32_t field; size_t n; } unpacked[] = {
        { FIELD_FLOAT, t->n_float_data }, { FIELD_INT32, t->n_int32_data }, { FIELD_STRING, t->n_string_data },
        { FIELD_INT64, t->n_int64_data }, { FIELD_DOUBLE, t->n_double_data }, { FIELD_UINT64, t->n_uint64_data },
    };
    *p = (struct payload){ 0 };
    if (t->has_mapped_field) {
        if (t->mapped_offset > in->n_bytes || t->mapped_bytes > in->n_bytes - t->mapped_offset)
            return refuse(in, t, "its numbers lie outside the file");
        p->field = t->mapped_field;
        p->packed = in->bytes + t->mapped_offset;
        p->n_packed = (size_t)t->mapped_bytes;
    }
    for (size_t i = 0; i < MO_COUNT(unpacked); i++) {
        if (!unpacked[i].n)
            continue;
        /* an empty packed field beside them means nothing */
        if (p->field && (p->n_packed || !p->packed))
            return refuse(in, t, "its numbers come in several fields");
        *p = (struct payload){ .field = unpacked[i].field, .n_numbers = unpacked[i].n };
    }
    if (p->packed && !p->n_packed)
        p->field = 0;
    return MOPT_OK;
}

static enum mopt_status read_dims(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, struct mo_tensor_const *out)
{
    if (t->n_dims > MO_MAX_RANK)
        return refuse(in, t, "has more than 10 dimensions");
    out->shape = (struct mo_shape){ .rank = (int)t->n_dims };
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0)
            return refuse(in, t, "has a negative dimension");
        out->shape.dim[i] = t->dims[i];
    }
    if (mo_shape_elems(&out->shape) < 0)
        return refuse(in, t, "its dimensions multiply to more than 2^63 elements");
    return MOPT_OK;
}

/* ---- decoding ---------------------------------------------------------------------- */

/* The next varint of packed numbers; the scan checked only the length of them all. */
static bool next_varint(const uint8_t **at, const uint8_t *end, uint64_t *x)
{
    *x = 0;
    for (int shift = 0; shift < 70 && *at < end; shift += 7) {
        uint8_t b = *(*at)++;
        *x |= shift < 64 ? (uint64_t)(b & 0x7f) << shift : 0;
        if (!(b & 0x80))
            return true;
    }
    return false;
}

static uint64_t unpacked_number(const MoOnnx__TensorProto *t, uint32_t field, size_t i)
{
    return field == FIELD_INT32 ? (uint64_t)(int64_t)t->int32_data[i]
           : field == FIELD_INT64 ? (uint64_t)t->int64_data[i] : t->uint64_data[i];
}

static void store(void *data, size_t i, int bytes, uint64_t x)
{
    switch (bytes) {
    case 1: ((uint8_t *)data)[i] = (uint8_t)x; break;
    case 2: ((uint16_t *)data)[i] = (uint16_t)x; break;
    case 4: ((uint32_t *)data)[i] = (uint32_t)x; break;
    default: ((uint64_t *)data)[i] = x; break;
    }
}

/* Integers, and what is stored as integers: one number an element, or for types below a byte one a byte. */
static enum mopt_status decode_ints(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, const struct payload *p,
                                    enum mo_dtype dtype, size_t n_numbers, void *data)
{
    int bytes = MO_MAX(mo_dtype_bits(dtype) / 8, 1);
    const uint8_t *at = p->packed, *end = at ? at + p->n_packed : NULL;
    for (size_t i = 0; i < n_numbers; i++) {
        uint64_t x;
        if (!p->packed)
            x = unpacked_number(t, p->field, i);
        else if (!next_varint(&at, end, &x))
            return refuse(in, t, "holds fewer numbers than its dimensions say");
        store(data, i, bytes, x);
    }
    bool is_more = p->packed ? at != end : p->n_numbers != n_numbers;
    return is_more ? refuse(in, t, "holds more numbers than its dimensions say") : MOPT_OK;
}

/* Memory for decoded elements: the value's own, or the arena's. */
static void *new_data(struct mo_onnx_in *in, size_t n_bytes, bool may_own, enum mo_data_owner *owner)
{
    enum { SMALL_BYTES = 1024 };
    if (in->ctx->max_memory_bytes && n_bytes > in->ctx->max_memory_bytes)
        return NULL;
    bool is_own = may_own && n_bytes > SMALL_BYTES;
    *owner = is_own ? MO_DATA_HEAP : MO_DATA_BORROWED;
    return is_own ? mo_mem_new(n_bytes, 1) : mo_arena_new(in->arena, MO_MAX(n_bytes, (size_t)1), 1);
}

static enum mopt_status use_bytes(struct mo_onnx_in *in, const uint8_t *bytes, size_t n_bytes, bool is_mapped,
                                  bool may_own, struct mo_tensor_const *out, enum mo_data_owner *owner)
{
    size_t align = MO_MIN((size_t)MO_MAX(mo_dtype_bits(out->dtype) / 8, 1), (size_t)8);
    *owner = MO_DATA_BORROWED;
    out->data = bytes;
    /* a large initializer stays where it lies at any address, until a pass reads it: mo_graph_align */
    if (is_mapped && ((uintptr_t)bytes % align == 0 || (may_own && n_bytes >= MO_LAZY_BYTES)))
        return MOPT_OK;
    void *copy = new_data(in, n_bytes, may_own, owner);
    if (!copy)
        return mo_no_memory(in->ctx, n_bytes, "a tensor");
    if (n_bytes)
        memcpy(copy, bytes, n_bytes);
    out->data = copy;
    return MOPT_OK;
}

static enum mopt_status read_strings(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, size_t n,
                                     struct mo_tensor_const *out)
{
    if (t->n_string_data != n)
        return refuse(in, t, "holds another number of texts than its dimensions say");
    const char **strings = mo_arena_new(in->arena, n + 1, sizeof *strings);
    if (!strings)
        return mo_no_memory(in->ctx, n * sizeof *strings, "texts");
    for (size_t i = 0; i < n; i++) {
        const ProtobufCBinaryData *s = &t->string_data[i];
        if (s->len && memchr(s->data, 0, s->len))
            return refuse(in, t, "a text in it has a zero byte");
        strings[i] = mo_arena_bytes(in->arena, s->data, s->len);
        if (!strings[i])
            return mo_no_memory(in->ctx, s->len, "texts");
    }
    out->strings = strings;
    out->data = strings;
    return MOPT_OK;
}

/* Numbers one by one of a float type: as the bytes they would be packed. */
static const uint8_t *unpacked_floats(const MoOnnx__TensorProto *t, uint32_t field)
{
    return field == FIELD_FLOAT ? (const uint8_t *)t->float_data : (const uint8_t *)t->double_data;
}

static enum mopt_status read_numbers(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, struct payload *p,
                                     bool may_own,
                                     struct mo_tensor_const *out, enum mo_data_owner *owner)
{
    char buf[160];
    size_t n_elems = (size_t)mo_shape_elems(&out->shape);
    size_t n_bytes = mo_dtype_bytes(out->dtype, (int64_t)n_elems);
    if (n_bytes == SIZE_MAX)
        return refuse(in, t, "is larger than memory can be");
    uint32_t field = field_of(out->dtype);
    if (p->field && p->field != FIELD_RAW && p->field != field)
        return refuse(in, t, "holds its numbers in a field of another type");
    if (field == FIELD_FLOAT || field == FIELD_DOUBLE || p->field == FIELD_RAW || !p->field) {
        size_t width = field == FIELD_FLOAT ? 4 : 8;
        size_t have = p->packed ? p->n_packed : p->n_numbers * width;
        if (have != n_bytes)
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "%s: has %zu bytes of data where its dimensions ask for %zu",
                           label(t, buf, sizeof buf), have, n_bytes);
        if (!n_bytes)
            out->data = "";
        if (!n_bytes)
            return MOPT_OK;
        /* what protobuf-c unpacked lies in the arena already, aligned */
        return p->packed ? use_bytes(in, p->packed, n_bytes, in->is_mapped, may_own, out, owner)
                         : use_bytes(in, unpacked_floats(t, field), n_bytes, true, may_own, out, owner);
    }
    /* below a byte the numbers are whole bytes; each number takes at least one byte of the file */
    size_t n_numbers = mo_dtype_bits(out->dtype) < 8 ? n_bytes : n_elems;
    if (n_numbers > (p->packed ? p->n_packed : p->n_numbers))
        return refuse(in, t, "holds fewer numbers than its dimensions say");
    void *data = new_data(in, n_bytes, may_own, owner);
    if (!data)
        return mo_no_memory(in->ctx, n_bytes, "a tensor");
    out->data = data;
    enum mopt_status status = decode_ints(in, t, p, out->dtype, n_numbers, data);
    if (status && *owner == MO_DATA_HEAP)
        mo_mem_free(data);
    return status;
}

static enum mopt_status read_external(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, bool may_own,
                                      struct mo_tensor_const *out, enum mo_data_owner *owner)
{
    size_t n_bytes = mo_dtype_bytes(out->dtype, mo_shape_elems(&out->shape));
    const uint8_t *data;
    if (out->dtype == MO_STRING)
        return refuse(in, t, "texts cannot be external data");
    if (n_bytes == SIZE_MAX)
        return refuse(in, t, "is larger than memory can be");
    MO_TRY(mo_onnx_external_data(in, t, n_bytes, &data));
    return use_bytes(in, data, n_bytes, true, may_own, out, owner);
}

/* What mopt does not model stays in the message: everything but name, type, dimensions, numbers. */
static enum mopt_status keep_rest(struct mo_onnx_in *in, MoOnnx__TensorProto *t, struct mo_tensor_const *out)
{
    t->name = NULL;
    t->has_data_type = t->has_raw_data = t->has_data_location = false;
    t->has_mapped_field = t->has_mapped_offset = t->has_mapped_bytes = false;
    t->n_dims = t->n_float_data = t->n_int32_data = t->n_string_data = t->n_int64_data = 0;
    t->n_double_data = t->n_uint64_data = t->n_external_data = 0;
    return mo_onnx_keep(in, &t->base, &out->kept);
}

enum mopt_status mo_onnx_tensor(struct mo_onnx_in *in, MoOnnx__TensorProto *t, bool may_own,
                                struct mo_tensor_const *tensor,
                                enum mo_data_owner *owner)
{
    struct payload payload;
    *tensor = (struct mo_tensor_const){ .name = t->name ? t->name : "" };
    *owner = MO_DATA_BORROWED;
    if (!t->has_data_type || t->data_type <= MO_UNDEFINED || t->data_type >= MO_N_DTYPES)
        return refuse(in, t, "has an element type that mopt does not know");
    tensor->dtype = (enum mo_dtype)t->data_type;
    if (t->segment)
        return refuse(in, t, "is cut into segments");
    MO_TRY(read_dims(in, t, tensor));
    MO_TRY(find_payload(in, t, &payload));
    if (t->has_data_location && t->data_location == MO_ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
        if (payload.field)
            return refuse(in, t, "has numbers here and in an external file");
        MO_TRY(read_external(in, t, may_own, tensor, owner));
    } else if (tensor->dtype == MO_STRING) {
        if (payload.field && payload.field != FIELD_STRING)
            return refuse(in, t, "holds its texts in a field of another type");
        MO_TRY(read_strings(in, t, (size_t)mo_shape_elems(&tensor->shape), tensor));
    } else {
        MO_TRY(read_numbers(in, t, &payload, may_own, tensor, owner));
    }
    enum mopt_status status = keep_rest(in, t, tensor);
    if (status && *owner == MO_DATA_HEAP)
        mo_mem_free((void *)tensor->data);
    return status;
}
