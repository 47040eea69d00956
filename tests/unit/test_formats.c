/* Data formats on small generated files: what is read, and that damaged files are refused in words that name them. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <jpeglib.h>
#include <png.h>

#include "formats/image_decode.h"
#include "formats/npy.h"
#include "formats/tensor_pb.h"
#include "tests/support/data_support.h"

static struct rig rig;

static void setup(void)
{
    rig_open(&rig);
}

static void teardown(void)
{
    rig_close(&rig);
}

static struct mo_source *opened_as(const char *spec, enum mo_part part, const char *schema)
{
    struct mo_source *source = NULL;
    enum mopt_status s = mo_source_open(&rig.ctx, spec, part, schema, &source);
    ck_assert_msg(!s, "%s: %s", spec, rig.ctx.error);
    return source;
}

static struct mo_source *opened(const char *spec)
{
    struct mo_source *source = opened_as(spec, MO_PART_TRAIN, NULL);
    ck_assert_ptr_nonnull(source);
    return source;
}

static void refused(const char *spec, enum mopt_status status, const char *words)
{
    struct mo_source *source = NULL;
    enum mopt_status s = mo_source_open(&rig.ctx, spec, MO_PART_TRAIN, NULL, &source);
    ck_assert_msg(s == status && strstr(rig.ctx.error, words), "%s: status %d, '%s' (wanted '%s')", spec, (int)s,
                  rig.ctx.error, words);
    ck_assert_ptr_null(source);
    mopt_clear(&rig.ctx);
}

/* A sample; valid until the next one. */
static struct mo_sample sample_of(struct mo_source *source, size_t i)
{
    static struct mo_sample_buffer buffer;
    struct mo_sample sample = {0};
    char why[512] = "";
    ck_assert_msg(!source->read(source, i, &buffer, &sample, why, sizeof why), "%s", why);
    return sample;
}

/* ---- the grammar of specs ----------------------------------------------------------- */

START_TEST(test_spec)
{
    refused("idxx:/tmp", MOPT_USAGE, "did you mean 'idx:'");
    refused("/tmp/data", MOPT_USAGE, "does not say its format");
    refused("csv:", MOPT_USAGE, "needs a path");
    refused("csv:a,b", MOPT_USAGE, "one path too many");
    refused("csv:a,lable=3", MOPT_USAGE, "did you mean 'label'");
    refused("csv:a,label=3,label=4", MOPT_USAGE, "given twice");
    refused("csv:a,header=maybe", MOPT_DATA, "a: No such file");
    rig_text(&rig, "a,b.csv", "1,0\n2,1\n");
    struct mo_source *s = opened(rig_spec(&rig, "csv", "a\\,b.csv"));
    ck_assert_uint_eq(s->n_samples, 2);
    s->close(s);
    rig_text(&rig, "t.csv", "1,0\n2,1\n");
    refused(rig_spec(&rig, "csv", "t.csv,header=maybe"), MOPT_USAGE, "none of auto|0|1");
    refused(rig_spec(&rig, "idx", "nowhere"), MOPT_DATA, "No such file");
}
END_TEST

/* ---- idx ------------------------------------------------------------------------------ */

enum { N_IDX = 5 };

static size_t idx_images(uint8_t *to, int n, int h, int w)
{
    const uint8_t head[16] = {0, 0, 8, 3, 0, 0, 0, (uint8_t)n, 0, 0, 0, (uint8_t)h, 0, 0, 0, (uint8_t)w};
    memcpy(to, head, sizeof head);
    for (int i = 0; i < n * h * w; i++)
        to[16 + i] = (uint8_t)(3 * i);
    return 16 + (size_t)(n * h * w);
}

static size_t idx_labels(uint8_t *to, int n)
{
    const uint8_t head[8] = {0, 0, 8, 1, 0, 0, 0, (uint8_t)n};
    memcpy(to, head, sizeof head);
    for (int i = 0; i < n; i++)
        to[8 + i] = (uint8_t)(i % 3);
    return 8 + (size_t)n;
}

static void write_idx(const char *part, const char *ending, bool zipped)
{
    uint8_t bytes[256];
    char name[64];
    for (int labels = 0; labels < 2; labels++) {
        size_t n = labels ? idx_labels(bytes, N_IDX) : idx_images(bytes, N_IDX, 2, 3);
        snprintf(name, sizeof name, "%s-%s-idx%d-ubyte%s", part, labels ? "labels" : "images", labels ? 1 : 3, ending);
        if (!zipped) {
            rig_file(&rig, name, bytes, n);
            continue;
        }
        gzFile f = gzopen(rig_path(&rig, name), "wb");
        ck_assert_int_eq(gzwrite(f, bytes, (unsigned)n), (int)n);
        gzclose(f);
    }
}

START_TEST(test_idx)
{
    write_idx("train", ".gz", true);
    write_idx("t10k", "", false);
    struct mo_source *s = opened(rig_spec(&rig, "idx", ""));
    ck_assert_uint_eq(s->n_samples, N_IDX);
    ck_assert_int_eq(s->height, 2);
    ck_assert_int_eq(s->width, 3);
    ck_assert_int_eq(s->channels, 1);
    ck_assert_int_eq(s->n_classes, 3);
    struct mo_sample x = sample_of(s, 2);
    ck_assert_int_eq(x.pixels[1], 3 * 13);
    ck_assert_int_eq(x.label, 2);
    s->close(s);
    s = opened_as(rig_spec(&rig, "idx", ""), MO_PART_TEST, NULL);
    ck_assert_ptr_nonnull(s);
    s->close(s);
    remove(rig_path(&rig, "t10k-images-idx3-ubyte"));
    ck_assert_ptr_null(opened_as(rig_spec(&rig, "idx", ""), MO_PART_TEST, NULL));
    char pair[1100];
    snprintf(pair, sizeof pair, "idx:%s/train-images-idx3-ubyte.gz,%s/train-labels-idx1-ubyte.gz", rig.folder, rig.folder);
    s = opened(pair);
    ck_assert_int_eq(sample_of(s, 4).label, 1);
    s->close(s);
    remove(rig_path(&rig, "train-labels-idx1-ubyte.gz"));
    refused(rig_spec(&rig, "idx", ""), MOPT_DATA, "train-labels-idx1-ubyte is missing");
}
END_TEST

/* Several megabytes that do not compress, in two gzip members: they are read, and given back, piece by piece. */
START_TEST(test_idx_large)
{
    enum { N = 50, SIDE = 250, BYTES = 16 + N * SIDE * SIDE };
    const uint8_t head[16] = {0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, SIDE, 0, 0, 0, SIDE};
    uint8_t *bytes = malloc(BYTES), labels[8 + N];
    memcpy(bytes, head, sizeof head);
    uint32_t state = 1;
    for (int i = 16; i < BYTES; i++)
        bytes[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    rig_file(&rig, "l", labels, idx_labels(labels, N));
    for (int part = 0; part < 2; part++) {
        gzFile f = gzopen(rig_path(&rig, "i.gz"), part ? "ab" : "wb");
        int n = part ? BYTES - BYTES / 3 : BYTES / 3;
        ck_assert_int_eq(gzwrite(f, bytes + part * (BYTES / 3), (unsigned)n), n);
        gzclose(f);
    }
    char pair[1100];
    snprintf(pair, sizeof pair, "idx:%s/i.gz,%s/l", rig.folder, rig.folder);
    struct mo_source *s = opened(pair);
    ck_assert_uint_eq(s->n_samples, N);
    for (size_t i = 0; i < N; i++)
        ck_assert_int_eq(memcmp(sample_of(s, i).pixels, bytes + 16 + i * SIDE * SIDE, SIDE * SIDE), 0);
    s->close(s);
    free(bytes);
}
END_TEST

START_TEST(test_idx_broken)
{
    uint8_t bytes[256], labels[64];
    size_t n = idx_images(bytes, N_IDX, 2, 3), n_labels = idx_labels(labels, N_IDX - 1);
    char pair[1100];
    rig_file(&rig, "l", labels, n_labels);
    rig_file(&rig, "i", bytes, n);
    snprintf(pair, sizeof pair, "idx:%s/i,%s/l", rig.folder, rig.folder);
    refused(pair, MOPT_DATA, "has 4 labels");
    for (size_t cut = 0; cut < n; cut += 3) { /* cut off anywhere */
        rig_file(&rig, "i", bytes, cut);
        refused(rig_spec(&rig, "idx", "i"), MOPT_DATA, "/i: ");
    }
    bytes[n] = 0;
    rig_file(&rig, "i", bytes, n + 1);
    refused(rig_spec(&rig, "idx", "i"), MOPT_DATA, "announces 30 bytes of elements, 31 are there");
    bytes[2] = 0x0d;
    rig_file(&rig, "i", bytes, n);
    refused(rig_spec(&rig, "idx", "i"), MOPT_UNSUPPORTED, "element type 0x0d");
    memset(bytes + 4, 0xff, 12); /* 2^96 elements */
    bytes[2] = 8;
    rig_file(&rig, "i", bytes, n);
    refused(rig_spec(&rig, "idx", "i"), MOPT_DATA, "impossible size");
    n = idx_images(bytes, N_IDX, 2, 3);
    bytes[4] = 0x0f; /* a gzip file of 60 bytes that announces 251 million images */
    gzFile f = gzopen(rig_path(&rig, "z"), "wb");
    gzwrite(f, bytes, (unsigned)n);
    gzclose(f);
    refused(rig_spec(&rig, "idx", "z"), MOPT_DATA, "more than the file can hold");
    rig_file(&rig, "z", "\x1f\x8b garbage", 10);
    refused(rig_spec(&rig, "idx", "z"), MOPT_DATA, "gzip stream is broken");
}
END_TEST

/* ---- csv -------------------------------------------------------------------------------- */

static const float *row(struct mo_source *s, size_t i)
{
    return sample_of(s, i).data[0];
}

START_TEST(test_csv)
{
    const char *text = "age, job, pay, label\r\n"
                       "30, clerk, 1.5, no\r\n"
                       "\r\n"
                       "?, \"chief, \"\"old\"\"\", 2.5, yes\r\n"
                       "50, ?, 3.5, no\r\n   \r\n";
    rig_text(&rig, "t.csv", text);
    struct mo_source *s = opened(rig_spec(&rig, "csv", "t.csv"));
    ck_assert_uint_eq(s->n_samples, 3);
    ck_assert_int_eq(s->shape[0].dim[0], 5); /* age, missing, chief, clerk, pay */
    ck_assert_int_eq(s->n_classes, 2);
    ck_assert_str_eq(s->class_names[1], "yes");
    static const float want[3][5] = {{30, 0, 0, 1, 1.5f}, {40, 0, 1, 0, 2.5f}, {50, 1, 0, 0, 3.5f}};
    static const uint8_t words[5] = {0, 1, 1, 1, 0};
    ck_assert_mem_eq(s->is_categorical, words, 5);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_mem_eq(row(s, i), want[i], sizeof want[i]);
        ck_assert_int_eq(sample_of(s, i).label, i == 1);
    }
    /* another file by the same schema: other words, other order, the class with a full stop */
    rig_text(&rig, "u.csv", "clown,3,60,yes.\n");
    rig_text(&rig, "u.csv", "60, clown, 3, yes.\n61, clerk, 4, no.\n");
    struct mo_source *u = opened_as(rig_spec(&rig, "csv", "u.csv"), MO_PART_TRAIN, s->schema);
    static const float clown[5] = {60, 0, 0, 0, 3}, clerk[5] = {61, 0, 0, 1, 4};
    ck_assert_mem_eq(row(u, 0), clown, sizeof clown);
    ck_assert_mem_eq(row(u, 1), clerk, sizeof clerk);
    ck_assert_int_eq(sample_of(u, 0).label, 1);
    ck_assert_int_eq(rig.n_warnings, 1);
    ck_assert_ptr_nonnull(strstr(rig.last_warning, "1 values of column 'job'"));
    u->close(u);
    rig_text(&rig, "u.csv", "60, clown, 3, maybe\n");
    struct mo_source *none = NULL;
    ck_assert_int_eq(mo_source_open(&rig.ctx, rig_spec(&rig, "csv", "u.csv"), MO_PART_TRAIN, s->schema, &none), MOPT_DATA);
    ck_assert_ptr_nonnull(strstr(rig.ctx.error, "line 1: label 'maybe' is none of the 2 classes"));
    s->close(s);
}
END_TEST

START_TEST(test_csv_columns)
{
    rig_text(&rig, "t.csv", "7;0;0.5\n8;1;0.25\n9;1;1\n");
    struct mo_source *s = opened(rig_spec(&rig, "csv", "t.csv"));
    ck_assert_int_eq(s->target, MO_TARGET_VALUES);
    ck_assert_float_eq(sample_of(s, 1).targets[0], 0.25f);
    s->close(s);
    s = opened(rig_spec(&rig, "csv", "t.csv,label=1,drop=0"));
    ck_assert_int_eq(s->target, MO_TARGET_CLASS);
    ck_assert_int_eq(s->shape[0].dim[0], 1);
    s->close(s);
    s = opened(rig_spec(&rig, "csv", "t.csv,label=-2,target=regression,categorical=0,2"));
    ck_assert_int_eq(s->target, MO_TARGET_VALUES);
    ck_assert_int_eq(s->shape[0].dim[0], 6);
    s->close(s);
    s = opened(rig_spec(&rig, "csv", "t.csv,target=none"));
    ck_assert_int_eq(s->target, MO_TARGET_NONE);
    ck_assert_int_eq(s->shape[0].dim[0], 3);
    s->close(s);
    s = opened(rig_spec(&rig, "csv", "t.csv,label=0")); /* 7, 8, 9 are numbered from 0 */
    ck_assert_int_eq(s->n_classes, 3);
    ck_assert_int_eq(sample_of(s, 2).label, 2);
    s->close(s);
    refused(rig_spec(&rig, "csv", "t.csv,label=pay"), MOPT_USAGE, "there is no column 'pay'");
    refused(rig_spec(&rig, "csv", "t.csv,drop=0,1"), MOPT_DATA, "no column is left");
    rig_text(&rig, "h.csv", "a,b\n1,2\n1,3\n");
    s = opened(rig_spec(&rig, "csv", "h.csv,label=b"));
    ck_assert_uint_eq(s->n_samples, 2);
    s->close(s);
    refused(rig_spec(&rig, "csv", "h.csv,label=c"), MOPT_USAGE, "did you mean");
    s = opened(rig_spec(&rig, "csv", "h.csv,header=0,label=1")); /* then 'a' and '1' are words */
    ck_assert_uint_eq(s->n_samples, 3);
    ck_assert_int_eq(s->shape[0].dim[0], 2);
    s->close(s);
}
END_TEST

static const struct { const char *text, *words; } broken_csv[] = {
    {"", "has no row"},
    {"\n \n", "has no row"},
    {"a,b\n", "column 'a' has"}, /* one row of words only: a table of one row */
    {"1,2\n3\n", "line 2 has 1 fields, line 1 has 2"},
    {"1,2,0\n\n3,4\n", "line 3 has 2 fields"},
    {"1,?\n2,?\n", "every label in column '1' is missing"},
    {"1,0\n2,0\n3,0\n4,0\n5,0\n6,0\n7,0\n8,0\n9,0\n10,0\nx,1\n", "line 11: 'x' in column '0' is not a number"},
    {"1,\"0\n2,0\n", "is no column"},
};

START_TEST(test_csv_broken)
{
    rig_text(&rig, "t.csv", broken_csv[_i].text);
    struct mo_source *s = NULL;
    enum mopt_status status = mo_source_open(&rig.ctx, rig_spec(&rig, "csv", "t.csv"), MO_PART_TRAIN, NULL, &s);
    if (_i == 2 || _i == 7) { /* odd, but tables */
        if (!status)
            s->close(s);
        return;
    }
    ck_assert_int_eq(status, MOPT_DATA);
    ck_assert_msg(strstr(rig.ctx.error, broken_csv[_i].words), "%s", rig.ctx.error);
}
END_TEST

START_TEST(test_csv_missing_label)
{
    rig_text(&rig, "t.csv", "1,0\n2,?\n3,1\n");
    struct mo_source *s = opened(rig_spec(&rig, "csv", "t.csv"));
    struct mo_sample_buffer buffer = {0};
    struct mo_sample sample;
    char why[200] = "";
    ck_assert_int_eq(s->read(s, 1, &buffer, &sample, why, sizeof why), MOPT_DATA);
    ck_assert_ptr_nonnull(strstr(why, "line 2 has no label"));
    s->close(s);
}
END_TEST

/* A schema is text from a model file: any damage is refused, none is believed. */
START_TEST(test_csv_schema_hostile)
{
    rig_text(&rig, "t.csv", "30, clerk, no\n40, chief, yes\n");
    struct mo_source *s = opened(rig_spec(&rig, "csv", "t.csv")), *none;
    char schema[1024];
    snprintf(schema, sizeof schema, "%s", s->schema);
    s->close(s);
    size_t n = strlen(schema);
    for (size_t i = 0; i < n; i++) {
        char damaged[1024];
        memcpy(damaged, schema, n + 1);
        damaged[i] = damaged[i] == '9' ? '-' : '9';
        none = NULL;
        if (!mo_source_open(&rig.ctx, rig_spec(&rig, "csv", "t.csv"), MO_PART_TRAIN, damaged, &none)) {
            for (size_t k = 0; k < none->n_samples; k++)
                ck_assert_int_lt(sample_of(none, k).label, none->n_classes);
            none->close(none);
        }
        mopt_clear(&rig.ctx);
        damaged[i] = 0;
        ck_assert_int_eq(mo_source_open(&rig.ctx, rig_spec(&rig, "csv", "t.csv"), MO_PART_TRAIN, damaged, &none), MOPT_DATA);
        mopt_clear(&rig.ctx);
    }
}
END_TEST

/* ---- npy and npz -------------------------------------------------------------------------- */

/* A .npy of version 1 with that text as header. */
static size_t npy_bytes(uint8_t *to, const char *header, const void *data, size_t n)
{
    size_t length = strlen(header);
    memcpy(to, "\x93NUMPY\x01\x00", 8);
    to[8] = (uint8_t)length;
    to[9] = (uint8_t)(length >> 8);
    memcpy(to + 10, header, length);
    memcpy(to + 10 + length, data, n);
    return 10 + length + n;
}

static const char *npy_file(const char *name, const char *header, const void *data, size_t n)
{
    uint8_t bytes[4096];
    return rig_file(&rig, name, bytes, npy_bytes(bytes, header, data, n));
}

START_TEST(test_npy)
{
    const uint8_t images[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const int64_t labels[2] = {1, 4};
    npy_file("x.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }", images, 12);
    npy_file("y.npy", "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", labels, 16);
    char spec[1100];
    snprintf(spec, sizeof spec, "npy:%s/x.npy,%s/y.npy", rig.folder, rig.folder);
    struct mo_source *s = opened(spec);
    ck_assert_int_eq(s->kind, MO_SAMPLE_IMAGE);
    ck_assert_int_eq(s->height, 2);
    ck_assert_int_eq(s->width, 3);
    ck_assert_int_eq(s->n_classes, 5);
    ck_assert_int_eq(sample_of(s, 1).pixels[2], 8);
    ck_assert_int_eq(sample_of(s, 1).label, 4);
    s->close(s);
    /* planes become pixels */
    npy_file("p.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 3, 2, 2), }", images, 12);
    s = opened(rig_spec(&rig, "npy", "p.npy"));
    ck_assert_int_eq(s->channels, 3);
    const uint8_t *pixels = sample_of(s, 0).pixels;
    ck_assert_int_eq(pixels[3], 1);
    ck_assert_int_eq(pixels[4], 5);
    s->close(s);
    /* Fortran's order and the other byte order come out right: element (i, j) is 10 i + j */
    const uint8_t swapped[12] = {0, 0, 0, 10, 0, 1, 0, 11, 0, 2, 0, 12};
    npy_file("f.npy", "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }", swapped, 12);
    s = opened(rig_spec(&rig, "npy", "f.npy"));
    ck_assert_int_eq(s->dtype[0], MO_I16);
    ck_assert_int_eq(((const int16_t *)sample_of(s, 1).data[0])[2], 12);
    ck_assert_int_eq(((const int16_t *)sample_of(s, 0).data[0])[1], 1);
    s->close(s);
}
END_TEST

static const struct { const char *header; size_t n; enum mopt_status status; const char *words; } broken_npy[] = {
    {"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", 8, MOPT_UNSUPPORTED, "pickled objects"},
    {"{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }", 8, MOPT_UNSUPPORTED, "texts"},
    {"{'descr': '<U0', 'fortran_order': False, 'shape': (2,), }", 0, MOPT_UNSUPPORTED, "type '<U0'"},
    {"{'descr': '|S4', 'fortran_order': False, 'shape': (2,), }", 8, MOPT_UNSUPPORTED, "type '|S4'"},
    {"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,), }", 8, MOPT_UNSUPPORTED, "structures"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 8, MOPT_DATA, "announces 12 bytes of elements, 8"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 8, MOPT_DATA, "announces 4 bytes of elements, 8"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }", 0, MOPT_DATA, "holds no samples"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4, MOPT_DATA, "holds no samples"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 4, MOPT_DATA, "not one that numpy writes"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 4, MOPT_DATA, "not one that numpy"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }", 4, MOPT_DATA, "announces"},
    {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,), }", 4, MOPT_DATA, "not one that numpy writes"},
    {"{'descr': '<f4', 'shape': (1,), }", 4, MOPT_DATA, "not one that numpy writes"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': os.system('') }", 4, MOPT_DATA, "not one that numpy"},
    {"{'descr': '<f4", 4, MOPT_DATA, "not one that numpy writes"},
};

START_TEST(test_npy_broken)
{
    static const uint8_t zeros[16];
    npy_file("b.npy", broken_npy[_i].header, zeros, broken_npy[_i].n);
    refused(rig_spec(&rig, "npy", "b.npy"), broken_npy[_i].status, broken_npy[_i].words);
}
END_TEST

/* A zip with two members, the first deflated, the second stored. */
static size_t zip_bytes(uint8_t *to, const uint8_t *x, size_t n_x, const uint8_t *y, size_t n_y)
{
    uint8_t packed[2048], *at = to, *p;
    const uint8_t *data[2] = {packed, y};
    size_t n_packed[2] = {0, n_y}, n_plain[2] = {n_x, n_y}, place[2];
    static const char *const names[2] = {"x.npy", "y.npy"};
    z_stream z = {.next_in = (Bytef *)(uintptr_t)x, .avail_in = (uInt)n_x, .next_out = packed, .avail_out = sizeof packed};
    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    n_packed[0] = z.total_out;
    deflateEnd(&z);
    uint32_t crc[2] = {(uint32_t)crc32(0, x, (uInt)n_x), (uint32_t)crc32(0, y, (uInt)n_y)};
    uint8_t *directory = NULL;
    for (int central = 0; central < 2; central++) {
        directory = central ? at : directory;
        for (int i = 0; i < 2; i++) {
            if (!central)
                place[i] = (size_t)(at - to);
            memset(at, 0, 46);
            memcpy(at, central ? "PK\1\2" : "PK\3\4", 4);
            p = at + (central ? 10 : 8);
            p[0] = i ? 0 : 8;
            p = at + (central ? 16 : 14);
            memcpy(p, &crc[i], 4);
            memcpy(p + 4, &(uint32_t){(uint32_t)n_packed[i]}, 4);
            memcpy(p + 8, &(uint32_t){(uint32_t)n_plain[i]}, 4);
            p[12] = 5;
            if (central)
                memcpy(at + 42, &(uint32_t){(uint32_t)place[i]}, 4);
            at += central ? 46 : 30;
            memcpy(at, names[i], 5);
            at += 5;
            if (!central) {
                memcpy(at, data[i], n_packed[i]);
                at += n_packed[i];
            }
        }
    }
    uint32_t size = (uint32_t)(at - directory), start = (uint32_t)(directory - to);
    memset(at, 0, 22);
    memcpy(at, "PK\5\6", 4);
    at[8] = at[10] = 2;
    memcpy(at + 12, &size, 4);
    memcpy(at + 16, &start, 4);
    return (size_t)(at - to) + 22;
}

static size_t make_npz(uint8_t *zip)
{
    uint8_t x[512], y[512];
    uint8_t images[120];
    const int32_t labels[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    for (size_t i = 0; i < sizeof images; i++)
        images[i] = (uint8_t)(i / 3);
    size_t n_x = npy_bytes(x, "{'descr': '|u1', 'fortran_order': False, 'shape': (10, 4, 3), }", images, 120);
    size_t n_y = npy_bytes(y, "{'descr': '<i4', 'fortran_order': False, 'shape': (10,), }", labels, 40);
    return zip_bytes(zip, x, n_x, y, n_y);
}

START_TEST(test_npz)
{
    uint8_t zip[4096], damaged[4096];
    size_t n = make_npz(zip);
    rig_file(&rig, "a.npz", zip, n);
    struct mo_source *s = opened(rig_spec(&rig, "npz", "a.npz"));
    ck_assert_uint_eq(s->n_samples, 10);
    ck_assert_int_eq(sample_of(s, 9).pixels[11], 39);
    ck_assert_int_eq(sample_of(s, 9).label, 9);
    s->close(s);
    ck_assert_ptr_null(opened_as(rig_spec(&rig, "npz", "a.npz"), MO_PART_TEST, NULL));
    refused(rig_spec(&rig, "npz", "a.npz,x=z"), MOPT_DATA, "has no array 'z'; it has 'x.npy', 'y.npy'");
    for (size_t cut = 0; cut < n; cut += 5) {
        rig_file(&rig, "b.npz", zip, cut);
        struct mo_source *none = NULL;
        ck_assert(mo_source_open(&rig.ctx, rig_spec(&rig, "npz", "b.npz"), MO_PART_TRAIN, NULL, &none));
        mopt_clear(&rig.ctx);
    }
    for (size_t i = 0; i < n; i += 2) { /* bytes damaged: refused, or one that does not matter */
        memcpy(damaged, zip, n);
        damaged[i] ^= 0xff;
        rig_file(&rig, "b.npz", damaged, n);
        struct mo_source *maybe = NULL;
        if (!mo_source_open(&rig.ctx, rig_spec(&rig, "npz", "b.npz"), MO_PART_TRAIN, NULL, &maybe))
            maybe->close(maybe);
        mopt_clear(&rig.ctx);
    }
}
END_TEST

/* ---- cifar ----------------------------------------------------------------------------------- */

START_TEST(test_cifar)
{
    enum { RECORD = 3073 };
    uint8_t *bytes = calloc(3, RECORD);
    for (int i = 0; i < 3; i++) {
        bytes[i * RECORD] = (uint8_t)(i + 7);
        for (int k = 0; k < 3072; k++)
            bytes[i * RECORD + 1 + k] = (uint8_t)(k / 1024 * 50 + k % 7 + i);
    }
    rig_file(&rig, "data_batch_1.bin", bytes, 2 * RECORD);
    rig_file(&rig, "data_batch_3.bin", bytes + 2 * RECORD, RECORD);
    rig_file(&rig, "test_batch.bin", bytes, RECORD);
    struct mo_source *s = opened(rig_spec(&rig, "cifar", ""));
    ck_assert_uint_eq(s->n_samples, 3);
    struct mo_sample x = sample_of(s, 2);
    ck_assert_int_eq(x.label, 9);
    ck_assert_int_eq(x.pixels[3 * 5], 5 + 2);
    ck_assert_int_eq(x.pixels[3 * 5 + 2], 2048 / 1024 * 50 + (2048 + 5) % 7 + 2);
    s->close(s);
    s = opened_as(rig_spec(&rig, "cifar", ""), MO_PART_TEST, NULL);
    ck_assert_uint_eq(s->n_samples, 1);
    s->close(s);
    bytes[RECORD] = 10;
    rig_file(&rig, "data_batch_1.bin", bytes, 2 * RECORD);
    refused(rig_spec(&rig, "cifar", ""), MOPT_DATA, "data_batch_1.bin: record 1 has label 10");
    rig_file(&rig, "data_batch_1.bin", bytes, 2 * RECORD - 1);
    refused(rig_spec(&rig, "cifar", ""), MOPT_DATA, "no whole number of records");
    free(bytes);
}
END_TEST

/* ---- pictures ---------------------------------------------------------------------------------- */

static void test_pattern(uint8_t *pixels, int h, int w, int c)
{
    for (int i = 0; i < h * w * c; i++)
        pixels[i] = (uint8_t)(i / c % w * 4 + i / c / w * 3 + i % c * 20);
}

static size_t jpeg_bytes(uint8_t **bytes, int h, int w, int c, bool progressive)
{
    struct jpeg_compress_struct e;
    struct jpeg_error_mgr errors;
    unsigned long n = 0;
    uint8_t pixels[64 * 64 * 3];
    test_pattern(pixels, h, w, c);
    *bytes = NULL;
    e.err = jpeg_std_error(&errors);
    jpeg_create_compress(&e);
    jpeg_mem_dest(&e, bytes, &n);
    e.image_width = (JDIMENSION)w;
    e.image_height = (JDIMENSION)h;
    e.input_components = c;
    e.in_color_space = c == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&e);
    jpeg_set_quality(&e, 95, TRUE);
    if (progressive)
        jpeg_simple_progression(&e);
    jpeg_start_compress(&e, TRUE);
    while (e.next_scanline < e.image_height) {
        JSAMPROW line = pixels + e.next_scanline * (size_t)(w * c);
        jpeg_write_scanlines(&e, &line, 1);
    }
    jpeg_finish_compress(&e);
    jpeg_destroy_compress(&e);
    return n;
}

struct memory { uint8_t *bytes; size_t n; };

static void grow(png_structp write, png_bytep data, size_t n)
{
    struct memory *m = png_get_io_ptr(write);
    m->bytes = realloc(m->bytes, m->n + n);
    memcpy(m->bytes + m->n, data, n);
    m->n += n;
}

static void no_flush(png_structp write)
{
    (void)write;
}

/* type: PNG_COLOR_TYPE_*; the pattern's bytes as samples; palettes have 16 greys and colours. */
static struct memory png_bytes(int h, int w, int type, int depth)
{
    struct memory m = {0};
    int c = type == PNG_COLOR_TYPE_RGB ? 3 : type == PNG_COLOR_TYPE_RGB_ALPHA ? 4 : type == PNG_COLOR_TYPE_GRAY_ALPHA ? 2 : 1;
    uint8_t pixels[64 * 64 * 8];
    test_pattern(pixels, h, w, c * depth / 8 ? c * depth / 8 : 1);
    png_structp write = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(write);
    png_set_write_fn(write, &m, grow, no_flush);
    png_set_IHDR(write, info, (png_uint_32)w, (png_uint_32)h, depth, type, PNG_INTERLACE_NONE, 0, 0);
    png_color palette[16];
    for (int i = 0; i < 16; i++)
        palette[i] = (png_color){(png_byte)(i * 16), (png_byte)(i * 3), (png_byte)(255 - i)};
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(write, info, palette, 16);
    png_write_info(write, info);
    for (int y = 0; y < h; y++)
        png_write_row(write, pixels + y * (w * c * depth / 8));
    png_write_end(write, NULL);
    png_destroy_write_struct(&write, &info);
    return m;
}

static enum mopt_status decode(const uint8_t *bytes, size_t n, int channels, struct mo_sample_buffer *buffer, int *h,
                               int *w, char *why)
{
    return mo_image_decode(bytes, n, channels, 1 << 20, buffer, h, w, why, 300);
}

START_TEST(test_jpeg)
{
    struct mo_sample_buffer buffer = {0};
    uint8_t *bytes, want[20 * 24 * 3];
    int h, w;
    char why[300] = "";
    test_pattern(want, 20, 24, 3);
    for (int progressive = 0; progressive < 2; progressive++) {
        size_t n = jpeg_bytes(&bytes, 20, 24, 3, progressive);
        ck_assert_msg(!decode(bytes, n, 3, &buffer, &h, &w, why), "%s", why);
        ck_assert_int_eq(h, 20);
        ck_assert_int_eq(w, 24);
        const uint8_t *got = buffer.mem;
        for (int i = 0; i < 20 * 24 * 3; i++)
            ck_assert_int_le(abs(got[i] - want[i]), 12);
        ck_assert_int_eq(decode(bytes, n / 2, 3, &buffer, &h, &w, why), MOPT_DATA); /* cut off */
        ck_assert_ptr_nonnull(strstr(why, "broken JPEG"));
        for (size_t i = 2; i < n; i += 3) { /* damaged anywhere: no crash */
            bytes[i] ^= 0x5a;
            (void)decode(bytes, n, 1, &buffer, &h, &w, why);
            bytes[i] ^= 0x5a;
        }
        ck_assert_int_eq(mo_image_decode(bytes, n, 3, 100, &buffer, &h, &w, why, sizeof why), MOPT_LIMIT);
        free(bytes);
    }
    size_t n = jpeg_bytes(&bytes, 20, 24, 1, false);
    ck_assert(!decode(bytes, n, 3, &buffer, &h, &w, why));
    const uint8_t *got = buffer.mem;
    ck_assert_int_eq(got[0], got[2]);
    struct mo_image_info info;
    ck_assert(mo_image_info(bytes, n, &info, why, sizeof why));
    ck_assert(info.is_grey);
    free(bytes);
    mo_mem_free(buffer.mem);
}
END_TEST

START_TEST(test_png)
{
    struct mo_sample_buffer buffer = {0};
    int h, w;
    char why[300] = "";
    static const struct { int type, depth, bytes; } kinds[] = {
        {PNG_COLOR_TYPE_GRAY, 8, 1}, {PNG_COLOR_TYPE_RGB, 8, 3}, {PNG_COLOR_TYPE_RGB_ALPHA, 8, 4},
        {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 2}, {PNG_COLOR_TYPE_GRAY, 16, 2}, {PNG_COLOR_TYPE_RGB, 16, 6},
        {PNG_COLOR_TYPE_PALETTE, 4, 0}, {PNG_COLOR_TYPE_GRAY, 4, 0},
    };
    for (size_t k = 0; k < MO_COUNT(kinds); k++) {
        struct memory m = png_bytes(6, 10, kinds[k].type, kinds[k].depth);
        uint8_t raw[64 * 64 * 8];
        test_pattern(raw, 6, 10, kinds[k].bytes ? kinds[k].bytes : 1);
        for (int channels = 1; channels <= 3; channels += 2) {
            ck_assert_msg(!decode(m.bytes, m.n, channels, &buffer, &h, &w, why), "%zu: %s", k, why);
            ck_assert_int_eq(h, 6);
            ck_assert_int_eq(w, 10);
            const uint8_t *got = buffer.mem;
            bool is_color = kinds[k].type & PNG_COLOR_MASK_COLOR;
            for (int i = 0; kinds[k].depth >= 8 && i < 60; i++) {
                const uint8_t *p = raw + i * kinds[k].bytes;
                int step = kinds[k].depth / 8;
                int luma = (int)((19595u * p[0] + 38470u * p[is_color ? step : 0] + 7471u * p[is_color ? 2 * step : 0] + 0x8000) >> 16);
                if (channels == 1)
                    ck_assert_int_eq(got[i], is_color ? luma : p[0]);
                else
                    for (int c = 0; c < 3; c++)
                        ck_assert_int_eq(got[3 * i + c], p[is_color ? c * step : 0]);
            }
            if (kinds[k].type == PNG_COLOR_TYPE_PALETTE && channels == 3) {
                ck_assert_int_eq(got[0], (raw[0] >> 4) * 16);
                ck_assert_int_eq(got[5], 255 - (raw[0] & 15));
            }
        }
        for (size_t cut = 0; cut < m.n; cut += 5)
            ck_assert_int_eq(decode(m.bytes, cut, 3, &buffer, &h, &w, why), MOPT_DATA);
        free(m.bytes);
    }
    mo_mem_free(buffer.mem);
}
END_TEST

static void write_pictures(const char *folder, const char *const *classes, int n_each, bool is_grey)
{
    char name[128];
    for (; *classes; classes++)
        for (int i = 0; i < n_each; i++) {
            uint8_t *bytes;
            size_t n = jpeg_bytes(&bytes, 8 + i, 8, is_grey ? 1 : 3, i % 2);
            snprintf(name, sizeof name, "%s%s/%02d.jpg", folder, *classes, i);
            rig_file(&rig, name, bytes, n);
            free(bytes);
        }
}

START_TEST(test_image_folder)
{
    static const char *const classes[] = {"owl", "cat", "dog", NULL}, *const fewer[] = {"owl", NULL};
    write_pictures("train/", classes, 3, false);
    write_pictures("val/", fewer, 2, false);
    rig_text(&rig, "train/cat/notes.txt", "not a picture");
    struct mo_source *s = opened(rig_spec(&rig, "imagefolder", ""));
    ck_assert_uint_eq(s->n_samples, 9);
    ck_assert_int_eq(s->channels, 3);
    ck_assert_str_eq(s->class_names[0], "cat");
    ck_assert_int_eq(sample_of(s, 0).height, 8);
    ck_assert_int_eq(sample_of(s, 8).height, 10);
    ck_assert_int_eq(sample_of(s, 8).label, 2);
    ck_assert_int_eq(sample_of(s, 8).height, 10); /* kept from the first time */
    struct mo_source *v = opened_as(rig_spec(&rig, "imagefolder", ""), MO_PART_TEST, s->schema);
    ck_assert_uint_eq(v->n_samples, 2);
    ck_assert_int_eq(v->n_classes, 3);
    ck_assert_int_eq(sample_of(v, 0).label, 2); /* owl, as in training */
    v->close(v);
    static const char *const other[] = {"emu", NULL};
    write_pictures("val/", other, 1, false);
    ck_assert_int_eq(mo_source_open(&rig.ctx, rig_spec(&rig, "imagefolder", ""), MO_PART_TEST, s->schema, &v), MOPT_DATA);
    ck_assert_ptr_nonnull(strstr(rig.ctx.error, "class folder 'emu' is none of the 3 classes"));
    mopt_clear(&rig.ctx);
    s->close(s);
    rig_text(&rig, "train/ant/readme.txt", "no picture");
    refused(rig_spec(&rig, "imagefolder", ""), MOPT_DATA, "train/ant: the class folder has no image");
    s = opened(rig_spec(&rig, "imagefolder", "train/cat")); /* no sub-folders: pictures without labels */
    ck_assert_uint_eq(s->n_samples, 3);
    ck_assert_int_eq(s->target, MO_TARGET_NONE);
    ck_assert_int_eq(sample_of(s, 2).height, 10);
    s->close(s);
    refused(rig_spec(&rig, "imagefolder", "train/ant"), MOPT_DATA, "has neither sub-folders, each a class, nor images");
}
END_TEST

START_TEST(test_image_folder_grey)
{
    static const char *const classes[] = {"a", "b", NULL};
    write_pictures("", classes, 1, true);
    struct mo_source *s = opened(rig_spec(&rig, "imagefolder", ""));
    ck_assert_int_eq(s->channels, 1);
    ck_assert_int_eq(sample_of(s, 1).height, 8);
    s->close(s);
    char spec[200];
    snprintf(spec, sizeof spec, "imagefolder:%s,channels=3", rig.folder);
    s = opened(spec);
    ck_assert_int_eq(s->channels, 3);
    s->close(s);
    rig_text(&rig, "b/00.jpg", "\xff\xd8\xff not a picture");
    s = opened(rig_spec(&rig, "imagefolder", ""));
    struct mo_sample_buffer buffer = {0};
    struct mo_sample sample;
    char why[300] = "";
    ck_assert_int_eq(s->read(s, 1, &buffer, &sample, why, sizeof why), MOPT_DATA);
    ck_assert_ptr_nonnull(strstr(why, "b/00.jpg: broken JPEG"));
    mo_mem_free(buffer.mem);
    s->close(s);
}
END_TEST

/* ---- svmlight ------------------------------------------------------------------------------------ */

START_TEST(test_svmlight)
{
    rig_text(&rig, "t", "# a comment\n+1 1:0.5 3:-2 # more\n\n-1 qid:7 2:1e2\r\n+1\n");
    struct mo_source *s = opened(rig_spec(&rig, "svmlight", "t"));
    ck_assert_uint_eq(s->n_samples, 3);
    ck_assert_int_eq(s->n_columns, 3);
    ck_assert_int_eq(s->n_classes, 2);
    struct mo_sample x = sample_of(s, 0);
    ck_assert_int_eq(x.label, 1);
    ck_assert_uint_eq(x.n_values, 2);
    ck_assert_int_eq(x.columns[1], 2);
    ck_assert_float_eq(x.values[1], -2);
    ck_assert_int_eq(sample_of(s, 1).label, 0);
    ck_assert_uint_eq(sample_of(s, 2).n_values, 0);
    rig_text(&rig, "u", "-1 2:1 9:1\n"); /* column 9 was never there */
    struct mo_source *u = opened_as(rig_spec(&rig, "svmlight", "u"), MO_PART_TRAIN, s->schema);
    ck_assert_int_eq(u->n_columns, 3);
    ck_assert_uint_eq(sample_of(u, 0).n_values, 1);
    ck_assert_int_eq(rig.n_warnings, 1);
    u->close(u);
    s->close(s);
    rig_text(&rig, "r", "0.5 0:1\n2.25 4:1\n");
    s = opened(rig_spec(&rig, "svmlight", "r"));
    ck_assert_int_eq(s->target, MO_TARGET_VALUES);
    ck_assert_int_eq(s->n_columns, 5);
    ck_assert_float_eq(sample_of(s, 1).targets[0], 2.25f);
    s->close(s);
    s = opened(rig_spec(&rig, "svmlight", "r,columns=10,zero-based=1"));
    ck_assert_int_eq(s->n_columns, 10);
    s->close(s);
}
END_TEST

static const struct { const char *text, *words; } broken_svm[] = {
    {"", "has no row"},
    {"x 1:2\n", "line 1: its label is not a number"},
    {"1 1:2 1:3\n", "line 1: columns do not rise"},
    {"1 1:2\n1 2\n", "line 2: expected COLUMN:VALUE"},
    {"1 1:\n", "expected COLUMN:VALUE"},
    {"1 1:nan\n", "expected COLUMN:VALUE"},
    {"1 99999999999:1\n", "beyond"},
    {"1 -1:1\n", "expected COLUMN:VALUE"},
};

START_TEST(test_svmlight_broken)
{
    rig_text(&rig, "t", broken_svm[_i].text);
    refused(rig_spec(&rig, "svmlight", "t"), MOPT_DATA, broken_svm[_i].words);
}
END_TEST

/* ---- tensors in files ------------------------------------------------------------------------------ */

START_TEST(test_tensor_pb)
{
    float data[6] = {1, -2, 3.5f, 0, 1e-20f, 6};
    const struct mo_host_tensor t = {.name = "x", .dtype = MO_F32, .shape = {.rank = 2, .dim = {2, 3}}, .data = data,
                                     .n_bytes = sizeof data};
    struct mo_host_tensor back;
    uint8_t *bytes;
    size_t n;
    ck_assert(!mo_tensor_pb_encode(&rig.ctx, &t, &bytes, &n));
    ck_assert_msg(!mo_tensor_pb_parse(&rig.ctx, bytes, n, &back), "%s", rig.ctx.error);
    ck_assert_str_eq(back.name, "x");
    ck_assert(mo_shape_equal(&back.shape, &t.shape));
    ck_assert_mem_eq(back.data, data, sizeof data);
    mo_host_tensor_release(&back);
    for (size_t cut = 0; cut < n; cut++) {
        if (!mo_tensor_pb_parse(&rig.ctx, bytes, cut, &back))
            mo_host_tensor_release(&back);
        mopt_clear(&rig.ctx);
    }
    mo_mem_free(bytes);
}
END_TEST

START_TEST(test_tensor_npy)
{
    static const struct { enum mo_dtype dtype; int rank; int64_t dim[3]; } cases[] = {
        {MO_F32, 0, {0}}, {MO_I64, 1, {3}}, {MO_F16, 2, {2, 2}}, {MO_BOOL, 3, {1, 2, 3}}, {MO_F64, 2, {0, 4}}, {MO_U8, 1, {1}},
    };
    for (size_t i = 0; i < MO_COUNT(cases); i++) {
        char header[512];
        uint8_t bytes[1024];
        struct mo_shape shape = {.rank = cases[i].rank};
        memcpy(shape.dim, cases[i].dim, sizeof cases[i].dim);
        size_t n = mo_npy_header(cases[i].dtype, &shape, header, sizeof header);
        ck_assert_uint_eq(n % 64, 0);
        size_t n_data = mo_dtype_bytes(cases[i].dtype, mo_shape_elems(&shape));
        memcpy(bytes, header, n);
        memset(bytes + n, 7, n_data);
        struct mo_npy array;
        ck_assert_msg(!mo_npy_parse(&rig.ctx, "t", bytes, n + n_data, &array), "%s", rig.ctx.error);
        ck_assert_int_eq(array.dtype, cases[i].dtype);
        ck_assert(mo_shape_equal(&array.shape, &shape));
        mo_npy_release(&array);
    }
    struct mo_shape one = {.rank = 1, .dim = {1}};
    char header[512];
    ck_assert_uint_eq(mo_npy_header(MO_BF16, &one, header, sizeof header), 0);
    struct mo_host_tensor t;
    ck_assert_int_eq(mo_tensor_file_read(&rig.ctx, "x.txt", &t), MOPT_USAGE);
}
END_TEST

/* One to four bytes of UTF-8, an empty text; written, and read again. _i 1: in Fortran order. What is no letter, no UTF-8 or in
 * the other byte order is refused. */
START_TEST(test_texts_npy)
{
    static const char texts[] = "a\0\xc3\xa9t\xc3\xa9\0\0\xe6\x97\xa5\0\xf0\x9f\x98\x80!\0z";
    static const char turned[] = "a\0\xe6\x97\xa5\0\xc3\xa9t\xc3\xa9\0\xf0\x9f\x98\x80!\0\0z";
    char data[sizeof texts];
    memcpy(data, texts, sizeof texts);
    struct mo_host_tensor t = {.dtype = MO_STRING, .shape = {.rank = 2, .dim = {2, 3}}, .data = data, .n_bytes = sizeof texts};
    struct mo_host_tensor again;
    struct mo_npy array;
    uint8_t *bytes;
    size_t n;
    ck_assert(!mo_npy_write_texts(&rig.ctx, "t", &t, &bytes, &n));
    ck_assert_uint_eq(n % 64, 2 * 3 * 3 * 4 % 64);
    char *order = memmem(bytes, n, "False", 5), *type = memmem(bytes, n, "<U3", 3);
    ck_assert(order && type);
    if (_i == 1) {
        memcpy(order, "True ", 5);
        t.shape.dim[0] = 3;
        t.shape.dim[1] = 2;
        memcpy(memmem(bytes, n, "(2, 3)", 6), "(3, 2)", 6);
    }
    ck_assert_msg(!mo_npy_parse(&rig.ctx, "t", bytes, n, &array), "%s", rig.ctx.error);
    ck_assert_int_eq(array.dtype, MO_STRING);
    ck_assert(!mo_npy_read_texts(&rig.ctx, "t", &array, &again));
    ck_assert(mo_shape_equal(&again.shape, &t.shape));
    ck_assert_uint_eq(again.n_bytes, sizeof texts);
    ck_assert_mem_eq(again.data, _i == 1 ? turned : texts, sizeof texts);
    mo_host_tensor_release(&again);
    mo_npy_release(&array);
    bytes[n - 10] = 0xff;       /* a letter beyond the last one */
    ck_assert(!mo_npy_parse(&rig.ctx, "t", bytes, n, &array));
    ck_assert_int_eq(mo_npy_read_texts(&rig.ctx, "t", &array, &again), MOPT_DATA);
    mo_npy_release(&array);
    mopt_clear(&rig.ctx);
    *type = '>';
    ck_assert_int_eq(mo_npy_parse(&rig.ctx, "t", bytes, n, &array), MOPT_UNSUPPORTED);
    mo_mem_free(bytes);
    mopt_clear(&rig.ctx);
    data[3] = 'x';
    ck_assert_int_eq(mo_npy_write_texts(&rig.ctx, "t", &t, &bytes, &n), MOPT_UNSUPPORTED);
}
END_TEST

START_TEST(test_onnx_testdata)
{
    float in[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}}, out[2][1] = {{10}, {26}};
    char name[64];
    for (int k = 0; k < 2; k++) {
        const struct mo_host_tensor x = {.dtype = MO_F32, .shape = {.rank = 2, .dim = {1, 4}}, .data = in[k], .n_bytes = 16};
        const struct mo_host_tensor y = {.dtype = MO_F32, .shape = {.rank = 2, .dim = {1, 1}}, .data = out[k], .n_bytes = 4};
        uint8_t *bytes;
        size_t n;
        ck_assert(!mo_tensor_pb_encode(&rig.ctx, &x, &bytes, &n));
        snprintf(name, sizeof name, "test_data_set_%d/input_0.pb", k * 10); /* 10 comes behind 0 */
        rig_file(&rig, name, bytes, n);
        mo_mem_free(bytes);
        ck_assert(!mo_tensor_pb_encode(&rig.ctx, &y, &bytes, &n));
        snprintf(name, sizeof name, "test_data_set_%d/output_0.pb", k * 10);
        rig_file(&rig, name, bytes, n);
        mo_mem_free(bytes);
    }
    struct mo_source *s = opened(rig_spec(&rig, "onnx-testdata", ""));
    ck_assert_uint_eq(s->n_samples, 2);
    ck_assert(s->is_prepared);
    ck_assert_int_eq(s->shape[0].rank, 1);
    ck_assert_float_eq(((const float *)sample_of(s, 1).data[0])[3], 8);
    ck_assert_float_eq(sample_of(s, 1).targets[0], 26);
    s->close(s);
    s = opened(rig_spec(&rig, "onnx-testdata", "test_data_set_10"));
    ck_assert_uint_eq(s->n_samples, 1);
    s->close(s);
    rig_text(&rig, "test_data_set_10/input_0.pb", "\x08\x04\x08");
    refused(rig_spec(&rig, "onnx-testdata", ""), MOPT_UNSUPPORTED, "test_data_set_10/input_0.pb");
    refused(rig_spec(&rig, "onnx-testdata", "nothing"), MOPT_DATA, "No such file");
}
END_TEST

Suite *suite_formats(void);
Suite *suite_formats(void)
{
    Suite *s = suite_create("formats");
    TCase *c = tcase_create("formats");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, test_spec);
    tcase_add_test(c, test_idx);
    tcase_add_test(c, test_idx_large);
    tcase_add_test(c, test_idx_broken);
    tcase_add_test(c, test_csv);
    tcase_add_test(c, test_csv_columns);
    tcase_add_loop_test(c, test_csv_broken, 0, (int)MO_COUNT(broken_csv));
    tcase_add_test(c, test_csv_missing_label);
    tcase_add_test(c, test_csv_schema_hostile);
    tcase_add_test(c, test_npy);
    tcase_add_loop_test(c, test_npy_broken, 0, (int)MO_COUNT(broken_npy));
    tcase_add_test(c, test_npz);
    tcase_add_test(c, test_cifar);
    tcase_add_test(c, test_jpeg);
    tcase_add_test(c, test_png);
    tcase_add_test(c, test_image_folder);
    tcase_add_test(c, test_image_folder_grey);
    tcase_add_test(c, test_svmlight);
    tcase_add_loop_test(c, test_svmlight_broken, 0, (int)MO_COUNT(broken_svm));
    tcase_add_test(c, test_tensor_pb);
    tcase_add_test(c, test_tensor_npy);
    tcase_add_loop_test(c, test_texts_npy, 0, 2);
    tcase_add_test(c, test_onnx_testdata);
    suite_add_tcase(s, c);
    return s;
}
