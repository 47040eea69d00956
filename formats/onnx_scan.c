/* onnx_scan.c - the walk over an ONNX file's bytes before anything believes them.
 *
 * protobuf-c recurses without limit, copies every payload, and takes a message that
 * comes twice for one to merge. So the bytes are walked first, with a stack of our own:
 * every tag, wire type and length is checked against the field's description and the
 * bytes that are left, depth is capped, and a skeleton is written that protobuf-c may
 * unpack. In it the payload of a tensor of the graph (raw_data, or packed numbers) is
 * replaced by where it lies. Tensors that mopt only keeps (in functions, training
 * information, sparse tensors) stay whole, as they are written back from there. */
#include "formats/onnx.h"

#include <string.h>

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { FIELD_MAPPED_FIRST = 536870901, FIELD_MAPPED_OFFSET, FIELD_MAPPED_LAST, FIELD_MAX = 536870911 };
enum { LENGTH_BYTES = 5, VARINT_MAX = 10 };
enum { PAYLOAD_BIT = 62, ONEOF_BIT = 63 };

struct frame {
    const ProtobufCMessageDescriptor *desc;
    size_t end;                 /* of the message in the input */
    size_t length_at;           /* of its length in the skeleton; that is LENGTH_BYTES wide */
    uint64_t seen;              /* singular messages that were there, by index; oneofs and payloads share a bit */
    bool takes_payloads;        /* tensors in it are read by the graph */
};

struct scan {
    struct mopt_ctx *ctx;
    const uint8_t *in;
    size_t at;
    uint8_t *out;
    size_t n_out, cap_out;
    struct frame stack[MO_ONNX_MAX_DEPTH];
    int depth;
};

struct field {
    uint32_t number;
    enum wire wire;
    size_t start;               /* of its tag */
    size_t n_bytes;             /* of its value: WIRE_BYTES without the length */
    const ProtobufCFieldDescriptor *desc;       /* NULL: not known */
};

static const char *short_name(const struct frame *f)
{
    return f->desc->short_name;
}

static enum mopt_status bad(const struct scan *s, size_t at, const char *what)
{
    const struct frame *top = &s->stack[s->depth - 1];
    return mo_fail(s->ctx, MOPT_UNSUPPORTED, "byte %zu, in a %s: %s", at, short_name(top), what);
}

/* ---- output ------------------------------------------------------------------------ */

static enum mopt_status reserve(struct scan *s, size_t n)
{
    if (n <= s->cap_out - s->n_out)
        return MOPT_OK;
    size_t cap = MO_MAX(s->cap_out * 2, s->n_out + n + 4096);
    if (s->ctx->max_memory_bytes && cap > s->ctx->max_memory_bytes)
        return mo_fail(s->ctx, MOPT_LIMIT, "the model needs more memory than is granted");
    uint8_t *grown = mo_mem_grow(s->out, s->n_out, cap);
    if (!grown)
        return mo_no_memory(s->ctx, cap, "the model's structure");
    s->out = grown;
    s->cap_out = cap;
    return MOPT_OK;
}

static void put_varint(struct scan *s, uint64_t x)
{
    for (; x >= 0x80; x >>= 7)
        s->out[s->n_out++] = (uint8_t)(x | 0x80);
    s->out[s->n_out++] = (uint8_t)x;
}

static enum mopt_status copy_field(struct scan *s, const struct field *f, size_t end)
{
    size_t n = end - f->start;
    MO_TRY(reserve(s, n));
    memcpy(s->out + s->n_out, s->in + f->start, n);
    s->n_out += n;
    return MOPT_OK;
}

static enum mopt_status put_mapped(struct scan *s, const struct field *f)
{
    MO_TRY(reserve(s, 6 * VARINT_MAX));
    put_varint(s, (uint64_t)FIELD_MAPPED_FIRST << 3);
    put_varint(s, f->number);
    put_varint(s, (uint64_t)FIELD_MAPPED_OFFSET << 3);
    put_varint(s, s->at);
    put_varint(s, (uint64_t)FIELD_MAPPED_LAST << 3);
    put_varint(s, f->n_bytes);
    return MOPT_OK;
}

/* ---- input ---------------------------------------------------------------------------- */

static bool get_varint(struct scan *s, size_t end, uint64_t *x)
{
    *x = 0;
    for (int shift = 0; shift < 7 * VARINT_MAX && s->at < end; shift += 7) {
        uint8_t b = s->in[s->at++];
        *x |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return true;
    }
    return false;
}

/* Whether a field may be written this way; numbers may come one by one or packed. */
static bool fits(const ProtobufCFieldDescriptor *d, enum wire wire)
{
    enum wire one = WIRE_VARINT;
    switch (d->type) {
    case PROTOBUF_C_TYPE_FLOAT: case PROTOBUF_C_TYPE_FIXED32: case PROTOBUF_C_TYPE_SFIXED32:
        one = WIRE_FIXED32;
        break;
    case PROTOBUF_C_TYPE_DOUBLE: case PROTOBUF_C_TYPE_FIXED64: case PROTOBUF_C_TYPE_SFIXED64:
        one = WIRE_FIXED64;
        break;
    case PROTOBUF_C_TYPE_STRING: case PROTOBUF_C_TYPE_BYTES: case PROTOBUF_C_TYPE_MESSAGE:
        return wire == WIRE_BYTES;
    default:
        break;
    }
    return wire == one || (wire == WIRE_BYTES && d->label == PROTOBUF_C_LABEL_REPEATED);
}

static enum mopt_status get_field(struct scan *s, struct field *f)
{
    const struct frame *top = &s->stack[s->depth - 1];
    uint64_t tag, n = 0;
    f->start = s->at;
    if (!get_varint(s, top->end, &tag))
        return bad(s, f->start, "a field's tag is cut off");
    if (tag >> 3 == 0 || tag >> 3 > FIELD_MAX)
        return bad(s, f->start, "a field has no valid number");
    f->number = (uint32_t)(tag >> 3);
    f->wire = (enum wire)(tag & 7);
    f->desc = protobuf_c_message_descriptor_get_field(top->desc, f->number);
    if (f->desc && !fits(f->desc, f->wire))
        return mo_fail(s->ctx, MOPT_UNSUPPORTED, "byte %zu, in a %s: field '%s' is encoded as another type",
                       f->start, short_name(top), f->desc->name);
    size_t value_at = s->at;
    switch (f->wire) {
    case WIRE_VARINT:
        if (!get_varint(s, top->end, &n))
            return bad(s, value_at, "a number is cut off");
        f->n_bytes = s->at - value_at;
        s->at = value_at;
        return MOPT_OK;
    case WIRE_FIXED64: case WIRE_FIXED32:
        n = f->wire == WIRE_FIXED64 ? 8 : 4;
        break;
    case WIRE_BYTES:
        if (!get_varint(s, top->end, &n))
            return bad(s, value_at, "a length is cut off");
        break;
    default:
        return bad(s, f->start, "a field has no valid wire type");
    }
    if (n > top->end - s->at)
        return mo_fail(s->ctx, MOPT_UNSUPPORTED,
                       "byte %zu, in a %s: field '%s' says %llu bytes where %zu are left", f->start, short_name(top),
                       f->desc ? f->desc->name : "unknown", (unsigned long long)n, top->end - s->at);
    f->n_bytes = (size_t)n;
    return MOPT_OK;
}

/* ---- the walk ---------------------------------------------------------------------------- */

/* A singular message that comes twice would have to be merged; no writer does that. */
static enum mopt_status note_once(struct scan *s, const struct field *f)
{
    struct frame *top = &s->stack[s->depth - 1];
    bool is_oneof = f->desc->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
    bool is_message = f->desc->type == PROTOBUF_C_TYPE_MESSAGE;
    if (f->desc->label == PROTOBUF_C_LABEL_REPEATED || (!is_oneof && !is_message))
        return MOPT_OK;
    uint64_t bit = 1ull << (is_oneof ? ONEOF_BIT : f->desc - top->desc->fields);
    if (top->seen & bit)
        return mo_fail(s->ctx, MOPT_UNSUPPORTED, "byte %zu, in a %s: field '%s' is given twice", f->start,
                       short_name(top), f->desc->name);
    top->seen |= bit;
    return MOPT_OK;
}

static bool is_payload(uint32_t number)
{
    return number == 4 || number == 5 || number == 7 || number == 9 || number == 10 || number == 11;
}

static enum mopt_status enter(struct scan *s, const struct field *f)
{
    const struct frame *top = &s->stack[s->depth - 1];
    const ProtobufCMessageDescriptor *desc = f->desc->descriptor;
    if (s->depth == MO_ONNX_MAX_DEPTH)
        return bad(s, f->start, "messages are nested too deep");
    bool is_kept = desc == &mo_onnx__sparse_tensor_proto__descriptor ||
                   desc == &mo_onnx__function_proto__descriptor ||
                   desc == &mo_onnx__training_info_proto__descriptor;
    MO_TRY(reserve(s, VARINT_MAX + LENGTH_BYTES));
    put_varint(s, (uint64_t)f->number << 3 | WIRE_BYTES);
    s->stack[s->depth++] = (struct frame){
        .desc = desc, .end = s->at + f->n_bytes, .length_at = s->n_out,
        .takes_payloads = top->takes_payloads && !is_kept,
    };
    s->n_out += LENGTH_BYTES;
    return MOPT_OK;
}

static enum mopt_status leave(struct scan *s)
{
    const struct frame *top = &s->stack[--s->depth];
    size_t n = s->n_out - top->length_at - LENGTH_BYTES;
    if (n > INT32_MAX)
        return mo_fail(s->ctx, MOPT_LIMIT, "a %s is larger than 2 GB besides its tensors", short_name(top));
    for (int i = 0; i < LENGTH_BYTES; i++)
        s->out[top->length_at + (size_t)i] = (uint8_t)((n >> 7 * i & 0x7f) | (i < LENGTH_BYTES - 1 ? 0x80 : 0));
    return MOPT_OK;
}

static enum mopt_status take_field(struct scan *s)
{
    struct field f = { 0 };
    MO_TRY(get_field(s, &f));
    struct frame *top = &s->stack[s->depth - 1];
    if (f.desc) {
        MO_TRY(note_once(s, &f));
        if (f.desc->type == PROTOBUF_C_TYPE_MESSAGE)
            return enter(s, &f);
        if (f.desc->type == PROTOBUF_C_TYPE_STRING && memchr(s->in + s->at, 0, f.n_bytes))
            return bad(s, f.start, "a text has a zero byte in it");
    }
    bool is_tensor = top->desc == &mo_onnx__tensor_proto__descriptor;
    size_t end = s->at + f.n_bytes;
    enum mopt_status status = MOPT_OK;
    if (is_tensor && f.number >= FIELD_MAPPED_FIRST && f.number <= FIELD_MAPPED_LAST) {
        /* ours alone: whoever put them into the file does not say where we read */
    } else if (is_tensor && top->takes_payloads && f.wire == WIRE_BYTES && is_payload(f.number)) {
        if (top->seen >> PAYLOAD_BIT & 1)
            return bad(s, f.start, "a tensor's numbers come in several pieces");
        top->seen |= 1ull << PAYLOAD_BIT;
        status = put_mapped(s, &f);
    } else {
        status = copy_field(s, &f, end);
    }
    s->at = end;
    return status;
}

enum mopt_status mo_onnx_scan(struct mopt_ctx *ctx, const ProtobufCMessageDescriptor *root, const uint8_t *bytes,
                              size_t n_bytes, uint8_t **skeleton, size_t *n_skeleton)
{
    struct scan s = { .ctx = ctx, .in = bytes, .depth = 1 };
    s.stack[0] = (struct frame){ .desc = root, .end = n_bytes, .takes_payloads = true };
    enum mopt_status status = reserve(&s, 1);
    while (!status && s.depth) {
        if (s.at < s.stack[s.depth - 1].end)
            status = take_field(&s);
        else if (s.depth == 1)
            break;
        else
            status = leave(&s);
    }
    if (status) {
        mo_mem_free(s.out);
        return status;
    }
    *skeleton = s.out;
    *n_skeleton = s.n_out;
    return MOPT_OK;
}

/* ---- protobuf-c in the arena ------------------------------------------------------------------ */

static void *arena_alloc(void *arena, size_t n)
{
    return mo_arena_new(arena, MO_MAX(n, (size_t)1), 1);
}

static void arena_free(void *arena, void *mem)
{
    (void)arena;
    (void)mem;
}

enum mopt_status mo_onnx_unpack(struct mo_onnx_in *in, const ProtobufCMessageDescriptor *root,
                                ProtobufCMessage **message)
{
    uint8_t *skeleton = NULL;
    size_t n = 0;
    MO_TRY(mo_onnx_scan(in->ctx, root, in->bytes, in->n_bytes, &skeleton, &n));
    ProtobufCAllocator allocator = { arena_alloc, arena_free, in->arena };
    /* messages take many times the bytes of their encoding: what is granted stands above what is asked for */
    in->arena->cap_bytes = (size_t)in->ctx->max_memory_bytes;
    *message = protobuf_c_message_unpack(root, &allocator, n, skeleton);
    bool is_full = in->arena->cap_bytes && in->arena->total_bytes > in->arena->cap_bytes / 2;
    in->arena->cap_bytes = 0;
    mo_mem_free(skeleton);
    if (*message)
        return MOPT_OK;
    if (is_full)
        return mo_fail(in->ctx, MOPT_LIMIT, "the model needs more memory than is granted");
    return mo_fail(in->ctx, MOPT_UNSUPPORTED, "not an ONNX model: a %s cannot be decoded", root->short_name);
}

enum mopt_status mo_onnx_keep(struct mo_onnx_in *in, const ProtobufCMessage *message, struct mo_kept *kept)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    *kept = (struct mo_kept){ 0 };
    if (!n)
        return MOPT_OK;
    uint8_t *bytes = mo_arena_new(in->arena, n, 1);
    if (!bytes)
        return mo_no_memory(in->ctx, n, "parts of the model that are kept as they are");
    protobuf_c_message_pack(message, bytes);
    *kept = (struct mo_kept){ bytes, n };
    return MOPT_OK;
}
