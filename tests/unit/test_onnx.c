/* ONNX files: what is read is written back, and hostile bytes are refused in words. */
#include <check.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/onnx.h"
#include "onnx.pb-c.h"

static struct mopt_ctx *ctx;
static char folder[64], path_a[128], path_b[128];

static void setup(void)
{
    ctx = mopt_open("cpu", 1);
    ck_assert_ptr_nonnull(ctx);
    snprintf(folder, sizeof folder, "/tmp/mopt-onnx-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path_a, sizeof path_a, "%s/a.onnx", folder);
    snprintf(path_b, sizeof path_b, "%s/b.onnx", folder);
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    mopt_close(ctx);
}

/* ---- models as bytes -------------------------------------------------------------- */

struct bytes { uint8_t data[1 << 16]; size_t n; };

static void add(struct bytes *b, const void *data, size_t n)
{
    ck_assert_uint_le(n, sizeof b->data - b->n);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void add_varint(struct bytes *b, uint64_t x)
{
    for (; x >= 0x80; x >>= 7)
        add(b, &(uint8_t){ (uint8_t)(x | 0x80) }, 1);
    add(b, &(uint8_t){ (uint8_t)x }, 1);
}

static void add_int(struct bytes *b, unsigned field, uint64_t x)
{
    add_varint(b, field << 3);
    add_varint(b, x);
}

static void add_blob(struct bytes *b, unsigned field, const void *data, size_t n)
{
    add_varint(b, field << 3 | 2);
    add_varint(b, n);
    add(b, data, n);
}

static void add_text(struct bytes *b, unsigned field, const char *text)
{
    add_blob(b, field, text, strlen(text));
}

/* What is in b becomes the message under this field. */
static void wrap(struct bytes *b, unsigned field)
{
    static struct bytes inner;
    inner = *b;
    b->n = 0;
    add_blob(b, field, inner.data, inner.n);
}

static void add_tensor(struct bytes *graph, unsigned field, const char *name, int64_t dim, int type, const void *raw,
                       size_t n_raw)
{
    static struct bytes t;
    t.n = 0;
    add_int(&t, 1, (uint64_t)dim);
    add_int(&t, 2, (uint64_t)type);
    add_text(&t, 8, name);
    add_blob(&t, 9, raw, n_raw);
    wrap(&t, field);
    add(graph, t.data, t.n);
}

static void add_node(struct bytes *graph, const char *type, const char *name, const char *in, const char *out,
                     const struct bytes *attributes)
{
    static struct bytes n;
    n.n = 0;
    if (in)
        add_text(&n, 1, in);
    if (out)
        add_text(&n, 2, out);
    add_text(&n, 3, name);
    add_text(&n, 4, type);
    if (attributes)
        add(&n, attributes->data, attributes->n);
    wrap(&n, 1);
    add(graph, n.data, n.n);
}

static void add_info(struct bytes *graph, unsigned field, const char *name)
{
    /* float tensor [batch, 3], with a denotation and a doc string */
    static const uint8_t type[] = { 0x12, 0x1d, 0x0a, 0x17, 0x08, 0x01, 0x12, 0x13, 0x0a, 0x0d, 0x12, 0x05, 'b', 'a',
                                    't', 'c', 'h', 0x1a, 0x04, 'D', 'A', 'T', 'A', 0x0a, 0x02, 0x08, 0x03, 0x32,
                                    0x02, 'T', 'D' };
    static struct bytes v;
    v.n = 0;
    add_text(&v, 1, name);
    add(&v, type, sizeof type);
    add_text(&v, 3, "about it");
    wrap(&v, field);
    add(graph, v.data, v.n);
}

static void finish(struct bytes *graph)
{
    static const uint8_t import[] = { 0x42, 0x04, 0x0a, 0x00, 0x10, 0x11 };
    wrap(graph, 7);
    add_int(graph, 1, 8);
    add(graph, import, sizeof import);
}

/* x -> Mystery -> h -> Relu -> y, with a weight, a subgraph that captures, a function and unknown fields. */
static void small_model(struct bytes *b)
{
    static struct bytes sub, attr;
    const float w[3] = { 1, -2, 3 };
    sub.n = attr.n = b->n = 0;
    add_node(&sub, "Relu", "inner", "x", "inner_y", NULL);
    add_text(&sub, 2, "branch");
    add_info(&sub, 12, "inner_y");
    wrap(&sub, 6);
    add_text(&sub, 1, "body");
    add_int(&sub, 20, 5);
    add_text(&sub, 13, "doc of the attribute");
    wrap(&sub, 5);
    add(&attr, sub.data, sub.n);
    add_node(b, "Mystery", "first", "w", "h", &attr);
    add_node(b, "Relu", "", "h", "y", NULL);
    add_text(b, 2, "g");
    add_tensor(b, 5, "w", 3, 1, w, sizeof w);
    add_text(b, 10, "doc of the graph");
    add_info(b, 11, "x");
    add_info(b, 12, "y");
    add_info(b, 13, "h");
    add_text(b, 777, "a field of the future");
    finish(b);
    add_text(b, 2, "test");
    add_text(b, 25, "\x0a\x01" "f" "\x52\x01" "d");     /* a function f of domain d */
    add_text(b, 888, "another");
}

static enum mopt_status parse(const struct bytes *b, struct mopt_model **m)
{
    mopt_clear(ctx);
    return mopt_model_parse(ctx, b->data, b->n, m);
}

static void refuses(const struct bytes *b, const char *words)
{
    struct mopt_model *m;
    ck_assert_int_eq(parse(b, &m), MOPT_UNSUPPORTED);
    ck_assert_msg(strstr(mopt_error(ctx), words), "'%s' does not say '%s'", mopt_error(ctx), words);
    ck_assert_ptr_null(m);
}

/* ---- reading and writing back -------------------------------------------------------- */

static char *slurp(const char *path, size_t *n)
{
    char *bytes;
    ck_assert_msg(!mopt_file_read(ctx, path, &bytes, n), "%s", mopt_error(ctx));
    return bytes;
}

static struct mopt_model *read_ok(const char *path)
{
    struct mopt_model *m;
    mopt_clear(ctx);
    ck_assert_msg(!mopt_model_read(ctx, path, &m), "%s", mopt_error(ctx));
    ck_assert_msg(!mo_graph_check(ctx, &m->graph), "%s: %s", path, mopt_error(ctx));
    return m;
}

static void write_ok(const struct mopt_model *m, const char *path, unsigned flags)
{
    ck_assert_msg(!mopt_model_write(ctx, m, path, flags), "%s", mopt_error(ctx));
}

static void *in_arena(void *arena, size_t n)
{
    return mo_arena_new(arena, n ? n : 1, 1);
}

static void in_arena_free(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

/* In an arena, since a comparison puts other pointers in; released by the test. */
static struct mo_arena unpacked;

static MoOnnx__ModelProto *unpack(const char *path)
{
    size_t n;
    char *bytes = slurp(path, &n);
    ProtobufCAllocator memory = { in_arena, in_arena_free, &unpacked };
    MoOnnx__ModelProto *p = mo_onnx__model_proto__unpack(&memory, n, (uint8_t *)bytes);
    ck_assert_ptr_nonnull(p);
    mo_mem_free(bytes);
    return p;
}

START_TEST(everything_comes_back)
{
    static struct bytes b;
    small_model(&b);
    struct mopt_model *m;
    ck_assert_msg(!parse(&b, &m), "%s", mopt_error(ctx));
    ck_assert_uint_eq(m->graph.n_nodes, 2);
    ck_assert_uint_eq(m->graph.nodes[0].n_captures, 1);
    ck_assert_str_eq(m->graph.values[m->graph.nodes[0].captures[0]].name, "x");
    ck_assert_str_eq(m->graph.values[m->graph.inputs[0]].dim_names[0], "batch");
    write_ok(m, path_a, 0);
    mopt_model_free(m);

    MoOnnx__ModelProto *p = unpack(path_a);
    MoOnnx__GraphProto *g = p->graph;
    ck_assert_int_eq(p->ir_version, 8);
    ck_assert_str_eq(p->producer_name, "test");
    ck_assert_int_eq(p->opset_import[0]->version, 17);
    ck_assert_str_eq(p->functions[0]->name, "f");
    ck_assert_str_eq(p->functions[0]->domain, "d");
    ck_assert_uint_eq(p->base.n_unknown_fields, 1);
    ck_assert_uint_eq(p->base.unknown_fields[0].tag, 888);
    ck_assert_str_eq(g->name, "g");
    ck_assert_str_eq(g->doc_string, "doc of the graph");
    ck_assert_uint_eq(g->base.unknown_fields[0].tag, 777);
    ck_assert_uint_eq(g->n_node, 2);
    ck_assert_str_eq(g->node[0]->op_type, "Mystery");
    MoOnnx__AttributeProto *a = g->node[0]->attribute[0];
    ck_assert_str_eq(a->doc_string, "doc of the attribute");
    ck_assert_str_eq(a->g->name, "branch");
    ck_assert_str_eq(a->g->node[0]->input[0], "x");
    ck_assert_uint_eq(g->initializer[0]->raw_data.len, 12);
    ck_assert_float_eq(((float *)g->initializer[0]->raw_data.data)[1], -2);
    MoOnnx__ValueInfoProto *x = g->input[0];
    ck_assert_str_eq(x->doc_string, "about it");
    ck_assert_str_eq(x->type->denotation, "TD");
    ck_assert_str_eq(x->type->tensor_type->shape->dim[0]->dim_param, "batch");
    ck_assert_str_eq(x->type->tensor_type->shape->dim[0]->denotation, "DATA");
    ck_assert_int_eq(x->type->tensor_type->shape->dim[1]->dim_value, 3);
    ck_assert_str_eq(g->value_info[0]->name, "h");
    mo_arena_release(&unpacked);
}
END_TEST

/* ---- comparing messages field by field, by their descriptions -------------------------- */

static bool same(const ProtobufCMessage *a, const ProtobufCMessage *b, char *where, size_t n);

/* One number, text or message at a and b. Left out and empty are the same. */
static bool same_item(const ProtobufCFieldDescriptor *f, const void *a, const void *b, char *where, size_t n)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *x = *(char *const *)a, *y = *(char *const *)b;
        return !strcmp(x ? x : "", y ? y : "");
    }
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *x = a, *y = b;
        return x->len == y->len && (!x->len || !memcmp(x->data, y->data, x->len));
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        return same(*(ProtobufCMessage *const *)a, *(ProtobufCMessage *const *)b, where, n);
    case PROTOBUF_C_TYPE_INT64: case PROTOBUF_C_TYPE_UINT64: case PROTOBUF_C_TYPE_DOUBLE:
        return !memcmp(a, b, 8);
    default:
        return !memcmp(a, b, 4);
    }
}

static size_t item_bytes(const ProtobufCFieldDescriptor *f)
{
    bool is_wide = f->type == PROTOBUF_C_TYPE_INT64 || f->type == PROTOBUF_C_TYPE_UINT64 ||
                   f->type == PROTOBUF_C_TYPE_DOUBLE;
    bool is_pointer = f->type == PROTOBUF_C_TYPE_MESSAGE || f->type == PROTOBUF_C_TYPE_STRING;
    return f->type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : is_pointer ? sizeof(void *) : is_wide ? 8 : 4;
}

static bool same_field(const ProtobufCFieldDescriptor *f, const char *a, const char *b, char *where, size_t n)
{
    const void *x = a + f->offset, *y = b + f->offset;
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        bool has_x = *(const uint32_t *)(a + f->quantifier_offset) == f->id;
        bool has_y = *(const uint32_t *)(b + f->quantifier_offset) == f->id;
        return has_x == has_y && (!has_x || same_item(f, x, y, where, n));
    }
    if (f->label != PROTOBUF_C_LABEL_REPEATED)
        return same_item(f, x, y, where, n);
    size_t count = *(const size_t *)(a + f->quantifier_offset);
    if (count != *(const size_t *)(b + f->quantifier_offset))
        return false;
    for (size_t i = 0; i < count; i++) {
        const char *p = *(char *const *)x + i * item_bytes(f), *q = *(char *const *)y + i * item_bytes(f);
        if (!same_item(f, p, q, where, n))
            return false;
    }
    return true;
}

static bool is_small_type(int type)
{
    return type == MO_U4 || type == MO_I4 || type == MO_F4E2M1 || type == MO_U2 || type == MO_I2;
}

/* Typed numbers become raw bytes: what a reader of either form has to see. */
static void make_raw(MoOnnx__TensorProto *t)
{
    size_t n = t->n_float_data + t->n_int32_data + t->n_int64_data + t->n_double_data + t->n_uint64_data;
    if (!n || t->has_raw_data)
        return;
    size_t bytes = 4;
    if (t->n_int64_data || t->n_double_data || t->data_type == MO_U64)
        bytes = 8;
    else if (t->n_int32_data)
        bytes = is_small_type(t->data_type) ? 1 : (size_t)mo_dtype_bits((enum mo_dtype)t->data_type) / 8;
    uint8_t *raw = mo_arena_new(&unpacked, n, bytes);
    for (size_t i = 0; i < n; i++) {
        const void *from = t->n_float_data ? (const void *)&t->float_data[i] : t->n_int32_data ? (void *)&t->int32_data[i]
                         : t->n_int64_data ? (void *)&t->int64_data[i] : t->n_double_data ? (void *)&t->double_data[i]
                         : (void *)&t->uint64_data[i];
        memcpy(raw + i * bytes, from, bytes);
    }
    t->n_float_data = t->n_int32_data = t->n_int64_data = t->n_double_data = t->n_uint64_data = 0;
    t->raw_data = (ProtobufCBinaryData){ n * bytes, raw };
}

static bool same(const ProtobufCMessage *a, const ProtobufCMessage *b, char *where, size_t n)
{
    if (!a || !b)
        return !a == !b;
    bool is_tensor = a->descriptor == &mo_onnx__tensor_proto__descriptor;
    if (is_tensor) {
        make_raw((MoOnnx__TensorProto *)a);
        make_raw((MoOnnx__TensorProto *)b);
    }
    for (unsigned i = 0; i < a->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &a->descriptor->fields[i];
        if (same_field(f, (const char *)a, (const char *)b, where, n))
            continue;
        if (!where[0])
            snprintf(where, n, "%s.%s", a->descriptor->short_name, f->name);
        return false;
    }
    return a->n_unknown_fields == b->n_unknown_fields;
}

/* Every field of a written file is that of the file it was read from; written from there, the file does not
 * change any more; and a copy is written alike. */
static void is_kept(const char *path)
{
    char where[128] = "";
    struct mopt_model *m = read_ok(path), *copy;
    write_ok(m, path_a, MOPT_WRITE_OVERWRITE);
    mopt_model_free(m);
    MoOnnx__ModelProto *p = unpack(path), *q = unpack(path_a);
    ck_assert_msg(same(&p->base, &q->base, where, sizeof where), "%s: %s differs", path, where);
    m = read_ok(path_a);
    ck_assert_msg(!mo_model_copy(ctx, m, &copy), "%s", mopt_error(ctx));
    mopt_model_free(m);
    write_ok(copy, path_b, MOPT_WRITE_OVERWRITE);
    mopt_model_free(copy);
    size_t n_a, n_b;
    char *a = slurp(path_a, &n_a), *b = slurp(path_b, &n_b);
    ck_assert_msg(n_a == n_b && !memcmp(a, b, n_a), "%s changes when it is written twice", path);
    mo_mem_free(a);
    mo_mem_free(b);
    mo_arena_release(&unpacked);
}

static void are_kept(const char *pattern, size_t at_least, size_t first, size_t step)
{
    glob_t found;
    ck_assert_msg(!glob(pattern, 0, NULL, &found), "no file is like %s", pattern);
    ck_assert_uint_ge(found.gl_pathc, at_least);
    for (size_t i = first; i < found.gl_pathc; i += step)
        is_kept(found.gl_pathv[i]);
    globfree(&found);
}

/* Models of nearly every operator and element type, from Debian's libonnx-testdata. */
START_TEST(the_node_tests_are_kept)
{
    are_kept("/usr/share/libonnx-testdata/data/*/*/model.onnx", 1000, (size_t)_i, 4);
}
END_TEST

/* Functions, subgraphs, sparse tensors, sequences, all forms of constants: what the fuzzer starts from. */
START_TEST(the_seeds_are_kept)
{
    are_kept("tests/fuzz/corpus/onnx/*", 6, 0, 1);
}
END_TEST

/* ---- tensors --------------------------------------------------------------------------- */

static const struct mo_value *first_initializer(const struct mopt_model *m)
{
    return &m->graph.values[m->graph.initializers[0]];
}

START_TEST(numbers_come_from_every_field)
{
    static const struct { int type, field; uint8_t packed[11]; size_t n; int64_t dim, want; } cases[] = {
        { MO_I64, 7, { 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1 }, 11, 2, 5 },
        { MO_I32, 5, { 9, 4 }, 2, 2, 9 },
        { MO_I8, 5, { 0x83, 1, 2 }, 3, 2, -125 },
        { MO_BOOL, 5, { 1, 0 }, 2, 2, 1 },
        { MO_U64, 11, { 0x80, 1 }, 2, 1, 128 },
        { MO_I4, 5, { 0x98, 1, 0 }, 3, 3, -8 },
        { MO_U2, 5, { 0x1b }, 1, 3, 3 },
    };
    static struct bytes b, t;
    b.n = t.n = 0;
    add_int(&t, 1, (uint64_t)cases[_i].dim);
    add_int(&t, 2, (uint64_t)cases[_i].type);
    add_text(&t, 8, "w");
    add_blob(&t, (unsigned)cases[_i].field, cases[_i].packed, cases[_i].n);
    wrap(&t, 5);
    add(&b, t.data, t.n);
    finish(&b);
    struct mopt_model *m;
    ck_assert_msg(!parse(&b, &m), "%s", mopt_error(ctx));
    int64_t got[8];
    ck_assert_int_eq(mo_value_ints(first_initializer(m), got, 8), cases[_i].dim);
    ck_assert_int_eq(got[0], cases[_i].want);
    if (cases[_i].type == MO_I64)
        ck_assert_int_eq(got[1], -1);
    mopt_model_free(m);
    /* one number too few */
    t.n = b.n = 0;
    add_int(&t, 1, (uint64_t)cases[_i].dim + 4);
    add_int(&t, 2, (uint64_t)cases[_i].type);
    add_text(&t, 8, "w");
    add_blob(&t, (unsigned)cases[_i].field, cases[_i].packed, cases[_i].n);
    wrap(&t, 5);
    add(&b, t.data, t.n);
    finish(&b);
    refuses(&b, "tensor 'w': holds fewer numbers");
}
END_TEST

START_TEST(external_data_is_written_and_read)
{
    struct mopt_model *m = mo_model_new();
    static float w[1000];
    for (int i = 0; i < 1000; i++)
        w[i] = (float)i;
    struct mo_shape shape = mo_shape_of(1, (int64_t)1000), small = mo_shape_of(1, (int64_t)2);
    ck_assert(mo_model_set_opset(m, "", 17));
    ck_assert_uint_ne(mo_graph_add_const(&m->graph, "big", MO_F32, &shape, w), MO_NONE);
    ck_assert_uint_ne(mo_graph_add_const(&m->graph, "small", MO_F32, &small, w + 7), MO_NONE);
    ck_assert_uint_ne(mo_graph_add_const(&m->graph, "last", MO_F32, &shape, w), MO_NONE);
    write_ok(m, path_a, MOPT_WRITE_EXTERNAL);
    mopt_model_free(m);
    char data[160];
    struct stat info;
    snprintf(data, sizeof data, "%s.data", path_a);
    ck_assert_int_eq(stat(data, &info), 0);
    ck_assert_int_eq(info.st_size, 4032 + 4000);
    m = read_ok(path_a);
    ck_assert(m->is_external);
    ck_assert_uint_eq(m->graph.n_initializers, 3);
    ck_assert_int_eq(memcmp(m->graph.values[m->graph.initializers[2]].data, w, sizeof w), 0);
    write_ok(m, path_b, 0);
    mopt_model_free(m);
    snprintf(data, sizeof data, "%s.data", path_b);
    ck_assert_int_eq(stat(data, &info), 0);
    ck_assert_int_eq(truncate(data, 5000), 0);
    mopt_clear(ctx);
    ck_assert_int_eq(mopt_model_read(ctx, path_b, &m), MOPT_UNSUPPORTED);
    ck_assert_msg(strstr(mopt_error(ctx), "tensor 'last'"), "%s", mopt_error(ctx));
}
END_TEST

/* A tensor whose data lies at `location`. */
static void external_model(struct bytes *b, const char *location)
{
    static struct bytes t, e;
    t.n = e.n = b->n = 0;
    add_int(&t, 1, 4);
    add_int(&t, 2, 2);
    add_text(&t, 8, "w");
    add_int(&t, 14, 1);
    add_text(&e, 1, "location");
    add_text(&e, 2, location);
    wrap(&e, 13);
    add(&t, e.data, e.n);
    wrap(&t, 5);
    add(b, t.data, t.n);
    finish(b);
    ck_assert(!mopt_file_write(ctx, path_a, b->data, b->n, true));
}

START_TEST(external_data_stays_in_its_folder)
{
    static struct bytes b;
    static const char *const locations[] = { "/etc/passwd", "../x", "a/../../etc/passwd", "link", "linkdir/passwd", "" };
    char link[160];
    struct mopt_model *m;
    snprintf(link, sizeof link, "%s/link", folder);
    ck_assert_int_eq(symlink("/etc/passwd", link), 0);
    snprintf(link, sizeof link, "%s/linkdir", folder);
    ck_assert_int_eq(symlink("/etc", link), 0);
    for (size_t i = 0; i < MO_COUNT(locations); i++) {
        external_model(&b, locations[i]);
        mopt_clear(ctx);
        ck_assert_int_eq(mopt_model_read(ctx, path_a, &m), MOPT_UNSUPPORTED);
        ck_assert_msg(strstr(mopt_error(ctx), "refused"), "%s", mopt_error(ctx));
    }
    snprintf(link, sizeof link, "%s/inside", folder);
    ck_assert(!mopt_file_write(ctx, link, "1234", 4, false));
    external_model(&b, "inside");
    mopt_model_free(read_ok(path_a));
    external_model(&b, "missing");
    ck_assert_int_eq(mopt_model_read(ctx, path_a, &m), MOPT_DATA);
    refuses(&b, "needs a model that is read from a file");
}
END_TEST

/* ---- hostile bytes ------------------------------------------------------------------------- */

START_TEST(every_truncation_is_survived)
{
    static struct bytes b;
    small_model(&b);
    size_t n = b.n, n_ok = 0;
    for (b.n = 0; b.n < n; b.n++) {
        struct mopt_model *m;
        if (!parse(&b, &m)) {
            n_ok++;
            mopt_model_free(m);
        } else {
            ck_assert_ptr_null(m);
            ck_assert_str_ne(mopt_error(ctx), "");
        }
    }
    ck_assert_uint_le(n_ok, 5);     /* between two fields behind the graph */
}
END_TEST

START_TEST(flipped_bytes_are_survived)
{
    static struct bytes b, c;
    small_model(&b);
    struct mo_rng rng = mo_rng_new(1, MO_RNG_TEST, 0);
    for (int i = 0; i < 20000; i++) {
        c = b;
        for (uint32_t k = mo_rng_below(&rng, 3) + 1; k--;)
            c.data[mo_rng_below(&rng, (uint32_t)c.n)] = (uint8_t)mo_rng_u32(&rng);
        struct mopt_model *m;
        if (parse(&c, &m))
            continue;
        ck_assert_msg(!mo_graph_check(ctx, &m->graph), "%s", mopt_error(ctx));
        write_ok(m, path_a, MOPT_WRITE_OVERWRITE);
        mopt_model_free(m);
        if (i % 16 == 0)
            mopt_model_free(read_ok(path_a));
    }
}
END_TEST

START_TEST(depth_is_capped)
{
    static struct bytes b;
    b.n = 0;
    for (int i = 0; i < 3000; i++) {
        wrap(&b, 6);        /* graph of an attribute */
        add_int(&b, 20, 5);
        wrap(&b, 5);        /* attribute of a node */
        wrap(&b, 1);        /* node of a graph */
    }
    finish(&b);
    refuses(&b, "nested too deep");
}
END_TEST

START_TEST(lies_are_refused)
{
    static struct bytes b;
    const float w[2] = { 1, 2 };
    b.n = 0;
    add_tensor(&b, 5, "w", INT64_MAX, 1, w, sizeof w);
    finish(&b);
    refuses(&b, "tensor 'w'");
    b.n = 0;
    add_tensor(&b, 5, "w", -1, 1, w, sizeof w);
    finish(&b);
    refuses(&b, "negative dimension");
    b.n = 0;
    add_tensor(&b, 5, "w", 2, 99, w, sizeof w);
    finish(&b);
    refuses(&b, "element type");
    b.n = 0;
    add_tensor(&b, 5, "w", 3, 1, w, sizeof w);
    finish(&b);
    refuses(&b, "has 8 bytes of data where its dimensions ask for 12");
    b.n = 0;
    add_tensor(&b, 5, "w", 2, 1, w, sizeof w);
    add_tensor(&b, 5, "w", 2, 1, w, sizeof w);
    finish(&b);
    refuses(&b, "two initializers are called 'w'");
}
END_TEST

START_TEST(broken_graphs_are_refused)
{
    static struct bytes b;
    b.n = 0;
    add_node(&b, "Relu", "one", "p", "q", NULL);
    add_node(&b, "Relu", "two", "q", "p", NULL);
    finish(&b);
    refuses(&b, "cycle: node '");
    b.n = 0;
    add_node(&b, "Relu", "one", "p", "q", NULL);
    finish(&b);
    refuses(&b, "node 'one' (Relu): reads 'p', which nothing makes");
    b.n = 0;
    add_node(&b, "Relu", "one", NULL, "q", NULL);
    add_node(&b, "Relu", "two", NULL, "q", NULL);
    finish(&b);
    refuses(&b, "'q' is given to two values");
    b.n = 0;
    add_text(&b, 1, "no graph");
    refuses(&b, "encoded as another type");
    b.n = 0;
    refuses(&b, "not an ONNX model");
}
END_TEST

/* ---- files ------------------------------------------------------------------------------------ */

static int n_files(void)
{
    glob_t found;
    char pattern[128];
    snprintf(pattern, sizeof pattern, "%s/*", folder);
    int n = glob(pattern, GLOB_PERIOD, NULL, &found) ? 0 : (int)found.gl_pathc - 2;   /* . and .. */
    globfree(&found);
    return n;
}

START_TEST(files_are_whole_or_not_there)
{
    size_t n;
    ck_assert(!mopt_file_write(ctx, path_a, "old", 3, false));
    ck_assert_int_eq(mopt_file_write(ctx, path_a, "new", 3, false), MOPT_USAGE);
    ck_assert_ptr_nonnull(strstr(mopt_error(ctx), "is there already"));
    char *bytes = slurp(path_a, &n);
    ck_assert_str_eq(bytes, "old");
    mo_mem_free(bytes);
    mopt_clear(ctx);
    ck_assert(!mopt_file_write(ctx, path_a, "new", 3, true));
    bytes = slurp(path_a, &n);
    ck_assert_str_eq(bytes, "new");
    mo_mem_free(bytes);
    struct mo_file_out out;
    ck_assert(!mo_file_begin(ctx, &out, path_b, false));
    ck_assert(!mo_file_put(&out, "half", 4));
    mo_file_abandon(&out);
    ck_assert(!mo_file_exists(path_b));
    ck_assert_int_eq(n_files(), 1);
    ck_assert_int_eq(mopt_file_write(ctx, "/dev/full", "x", 1, false), MOPT_FAILED);
    mopt_clear(ctx);
    ck_assert_int_eq(mopt_file_write(ctx, folder, "x", 1, true), MOPT_USAGE);
    mopt_clear(ctx);
    ck_assert_int_eq(mopt_file_write(ctx, "/nowhere/x", "x", 1, true), MOPT_FAILED);
    mopt_clear(ctx);
    ck_assert_int_eq(mopt_file_read(ctx, "/nowhere/x", &bytes, &n), MOPT_FAILED);
}
END_TEST

START_TEST(a_model_over_its_own_file_is_safe)
{
    static struct bytes b;
    small_model(&b);
    ck_assert(!mopt_file_write(ctx, path_a, b.data, b.n, false));
    struct mopt_model *m = read_ok(path_a);
    ck_assert_int_eq(mopt_model_write(ctx, m, path_a, 0), MOPT_USAGE);
    mopt_clear(ctx);
    write_ok(m, path_a, MOPT_WRITE_OVERWRITE);
    mopt_model_free(m);
    m = read_ok(path_a);
    ck_assert_float_eq(((const float *)first_initializer(m)->data)[2], 3);
    mopt_model_free(m);
}
END_TEST

Suite *suite_onnx(void);
Suite *suite_onnx(void)
{
    Suite *s = suite_create("onnx");
    TCase *t = tcase_create("onnx");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, everything_comes_back);
    tcase_add_loop_test(t, the_node_tests_are_kept, 0, 4);
    tcase_add_test(t, the_seeds_are_kept);
    tcase_add_loop_test(t, numbers_come_from_every_field, 0, 7);
    tcase_add_test(t, external_data_is_written_and_read);
    tcase_add_test(t, external_data_stays_in_its_folder);
    tcase_add_test(t, every_truncation_is_survived);
    tcase_add_test(t, flipped_bytes_are_survived);
    tcase_add_test(t, depth_is_capped);
    tcase_add_test(t, lies_are_refused);
    tcase_add_test(t, broken_graphs_are_refused);
    tcase_add_test(t, files_are_whole_or_not_there);
    tcase_add_test(t, a_model_over_its_own_file_is_safe);
    suite_add_tcase(s, t);
    return s;
}
