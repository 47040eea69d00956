/* onnx_out.c - protobuf written backwards; see onnx_out.h. */
#include "formats/onnx_out.h"

#include <string.h>

enum { WIRE_VARINT = 0, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { REF_BYTES = 4096 };      /* payloads smaller than this are copied */

/* Room for n bytes in front of what is there; NULL: no memory. */
static uint8_t *room(struct mo_onnx_out *o, size_t n)
{
    if (n > o->cap_buf - o->n_buf && !o->is_full) {
        size_t cap = MO_MAX(o->cap_buf * 2, o->n_buf + n + 4096);
        uint8_t *grown = mo_mem_new(cap, 1);
        if (grown && o->n_buf)
            memcpy(grown + cap - o->n_buf, o->buf + o->cap_buf - o->n_buf, o->n_buf);
        o->is_full = !grown;
        if (grown) {
            mo_mem_free(o->buf);
            o->buf = grown;
            o->cap_buf = cap;
        }
    }
    if (o->is_full)
        return NULL;
    o->n_buf += n;
    o->n_total += n;
    return o->buf + o->cap_buf - o->n_buf;
}

void mo_out_bytes(struct mo_onnx_out *o, const void *bytes, size_t n)
{
    uint8_t *to = n ? room(o, n) : NULL;
    if (to)
        memcpy(to, bytes, n);
}

void mo_out_varint(struct mo_onnx_out *o, uint64_t x)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; x >= 0x80; x >>= 7)
        bytes[n++] = (uint8_t)(x | 0x80);
    bytes[n++] = (uint8_t)x;
    mo_out_bytes(o, bytes, n);
}

static void tag(struct mo_onnx_out *o, uint32_t field, unsigned wire)
{
    mo_out_varint(o, (uint64_t)field << 3 | wire);
}

void mo_out_int(struct mo_onnx_out *o, uint32_t field, int64_t x)
{
    mo_out_varint(o, (uint64_t)x);
    tag(o, field, WIRE_VARINT);
}

void mo_out_float(struct mo_onnx_out *o, uint32_t field, float x)
{
    mo_out_bytes(o, &x, sizeof x);
    tag(o, field, WIRE_FIXED32);
}

void mo_out_blob(struct mo_onnx_out *o, uint32_t field, const void *bytes, size_t n)
{
    mo_out_bytes(o, bytes, n);
    mo_out_varint(o, n);
    tag(o, field, WIRE_BYTES);
}

void mo_out_text(struct mo_onnx_out *o, uint32_t field, const char *text)
{
    if (text)
        mo_out_blob(o, field, text, strlen(text));
}

void mo_out_ref(struct mo_onnx_out *o, uint32_t field, const void *bytes, size_t n)
{
    if (n < REF_BYTES) {
        mo_out_blob(o, field, bytes, n);
        return;
    }
    if (o->n_refs == o->cap_refs) {
        size_t cap = MO_MAX(o->cap_refs * 2, (size_t)64);
        struct mo_onnx_ref *grown = mo_mem_grow(o->refs, o->n_refs * sizeof *grown, cap * sizeof *grown);
        if (!grown) {
            o->is_full = true;
            return;
        }
        o->refs = grown;
        o->cap_refs = cap;
    }
    o->refs[o->n_refs++] = (struct mo_onnx_ref){ bytes, n, o->n_buf };
    o->n_total += n;
    mo_out_varint(o, n);
    tag(o, field, WIRE_BYTES);
}

void mo_out_kept(struct mo_onnx_out *o, struct mo_kept kept)
{
    mo_out_bytes(o, kept.bytes, kept.n_bytes);
}

void mo_out_close(struct mo_onnx_out *o, uint32_t field, uint64_t n_total_before)
{
    mo_out_varint(o, o->n_total - n_total_before);
    tag(o, field, WIRE_BYTES);
}
