/* The checkpoint container: parts come back as they were; nothing broken or made up is believed. */
#include <check.h>
#include <string.h>

#include "lib/base/io.h"
#include "lib/passes/checkpoint.h"

/* A file system of one file. */
static char file[4096];
static size_t n_file;

static enum mopt_status write_file(struct mopt_ctx *ctx, const char *path, const void *bytes, size_t n, bool overwrite)
{
    (void)ctx;
    (void)path;
    ck_assert(overwrite && n <= sizeof file);
    memcpy(file, bytes, n);
    n_file = n;
    return MOPT_OK;
}

static enum mopt_status read_file(struct mopt_ctx *ctx, const char *path, char **bytes, size_t *n)
{
    (void)ctx;
    (void)path;
    *bytes = mo_mem_new(n_file + 1, 1);
    memcpy(*bytes, file, n_file);
    *n = n_file;
    return MOPT_OK;
}

static const struct mo_io io = {.write_file = write_file, .read_file = read_file};
static struct mopt_ctx ctx;

static void set_up(void)
{
    static const float weights[3] = {1, 2, 3};
    const struct mo_part_bytes parts[] = {{"weights", weights, sizeof weights}, {"empty", NULL, 0}, {"text", "abc", 3}};
    memset(&ctx, 0, sizeof ctx);
    ctx.io = &io;
    ck_assert_int_eq(mo_checkpoint_write(&ctx, "x", parts, 3), MOPT_OK);
}

static enum mopt_status try_read(void)
{
    struct mo_checkpoint *c = NULL;
    enum mopt_status status = mo_checkpoint_read(&ctx, "x", &c);
    mo_checkpoint_free(status ? NULL : c);
    mopt_clear(&ctx);
    return status;
}

START_TEST(parts_come_back)
{
    struct mo_checkpoint *c;
    ck_assert_int_eq(mo_checkpoint_read(&ctx, "x", &c), MOPT_OK);
    uint64_t n;
    const float *w = mo_checkpoint_part(c, "weights", &n);
    ck_assert_uint_eq(n, 12);
    ck_assert(w[0] == 1 && w[2] == 3 && (uintptr_t)w % MO_ALIGN_BYTES == 0);
    ck_assert_ptr_nonnull(mo_checkpoint_part(c, "empty", &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_null(mo_checkpoint_part(c, "absent", &n));
    const void *text;
    ck_assert_int_eq(mo_checkpoint_need(&ctx, c, "text", 3, &text), MOPT_OK);
    ck_assert_mem_eq(text, "abc", 3);
    ck_assert_int_eq(mo_checkpoint_need(&ctx, c, "text", 4, &text), MOPT_DATA);
    mopt_clear(&ctx);
    ck_assert_int_eq(mo_checkpoint_need(&ctx, c, "absent", 4, &text), MOPT_DATA);
    mopt_clear(&ctx);
    mo_checkpoint_free(c);
}
END_TEST

START_TEST(every_cut_and_every_changed_byte_is_refused)
{
    size_t whole = n_file;
    for (n_file = 0; n_file < whole; n_file++)
        ck_assert_int_eq(try_read(), MOPT_DATA);
    for (size_t i = 0; i < whole; i++) {
        file[i] ^= 0x40;
        ck_assert_msg(try_read() == MOPT_DATA, "byte %zu", i);
        file[i] ^= 0x40;
    }
    ck_assert_int_eq(try_read(), MOPT_OK);
}
END_TEST

/* A file made to deceive has a right hash. */
static void forge(size_t at, uint64_t value)
{
    set_up();
    memcpy(file + at, &value, sizeof value);
    uint64_t hash = mo_hash64(file + 32, n_file - 32, 0);
    memcpy(file + 24, &hash, sizeof hash);
}

START_TEST(tables_that_point_outside_are_refused)
{
    const size_t table = 40, entry = 40, offset = 24, n_bytes = 32;
    const uint64_t bad[] = {1, n_file + 64, UINT64_MAX, UINT64_MAX - 63, (uint64_t)1 << 63};
    for (size_t i = 0; i < MO_COUNT(bad); i++) {
        forge(table + offset, bad[i]);
        ck_assert_int_eq(try_read(), MOPT_DATA);
        if (bad[i] != 1) {
            forge(table + entry + n_bytes, bad[i]);
            ck_assert_int_eq(try_read(), MOPT_DATA);
            forge(32, bad[i]);
            ck_assert_int_eq(try_read(), MOPT_DATA);
        }
    }
    set_up();
    memset(file + table, 'a', offset);      /* a name without an end */
    uint64_t hash = mo_hash64(file + 32, n_file - 32, 0);
    memcpy(file + 24, &hash, sizeof hash);
    ck_assert_int_eq(try_read(), MOPT_DATA);
}
END_TEST

Suite *suite_checkpoint(void);
Suite *suite_checkpoint(void)
{
    Suite *s = suite_create("checkpoint");
    TCase *c = tcase_create("checkpoint");
    tcase_add_checked_fixture(c, set_up, NULL);
    tcase_add_test(c, parts_come_back);
    tcase_add_test(c, every_cut_and_every_changed_byte_is_refused);
    tcase_add_test(c, tables_that_point_outside_are_refused);
    suite_add_tcase(s, c);
    return s;
}
