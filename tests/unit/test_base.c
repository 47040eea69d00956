/* The base: memory, arenas, random numbers, globs, options, reports. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/base.h"
#include "lib/base/option.h"
#include "lib/base/report.h"

START_TEST(memory_is_aligned_zeroed_and_checked)
{
    char *mem = mo_mem_new(100, 1);
    ck_assert_ptr_nonnull(mem);
    ck_assert_uint_eq((uintptr_t)mem % MO_ALIGN_BYTES, 0);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(mem[i], 0);
    memset(mem, 7, 100);
    mem = mo_mem_grow(mem, 100, 1000);
    ck_assert_int_eq(mem[99], 7);
    ck_assert_int_eq(mem[100], 0);
    mo_mem_free(mem);
    ck_assert_ptr_null(mo_mem_new(SIZE_MAX / 2, 4));
    ck_assert_ptr_null(mo_mem_new(SIZE_MAX, 1));
}
END_TEST

START_TEST(arena_gives_separate_objects_up_to_its_cap)
{
    struct mo_arena arena = {.cap_bytes = 100000};
    char *a = mo_arena_printf(&arena, "%d-%s", 7, "x"), *b = mo_arena_new(&arena, 50000, 1);
    ck_assert_str_eq(a, "7-x");
    ck_assert_ptr_nonnull(b);
    memset(b, 1, 50000);
    ck_assert_str_eq(a, "7-x");
    ck_assert_ptr_null(mo_arena_new(&arena, 60000, 1));
    ck_assert_ptr_null(mo_arena_new(&arena, SIZE_MAX / 2, 8));
    mo_arena_release(&arena);
    ck_assert_uint_eq(arena.total_bytes, 0);
}
END_TEST

/* The known answers of the Random123 distribution for philox4x32-10: key and counter all zero, and all ones. */
START_TEST(philox_gives_the_published_answers)
{
    struct mo_rng rng = {0};
    ck_assert_uint_eq(mo_rng_u32(&rng), 0x6627e8d5u);
    ck_assert_uint_eq(mo_rng_u32(&rng), 0xe169c58du);
    ck_assert_uint_eq(mo_rng_u32(&rng), 0xbc57ac4cu);
    ck_assert_uint_eq(mo_rng_u32(&rng), 0x9b00dbd8u);
}
END_TEST

START_TEST(draws_are_a_function_of_seed_and_stream)
{
    struct mo_rng a = mo_rng_new(5, MO_RNG_INIT, 3), b = mo_rng_new(5, MO_RNG_INIT, 3), c = mo_rng_new(5, MO_RNG_INIT, 4);
    int equal = 0;
    double sum = 0, squares = 0;
    for (int i = 0; i < 10000; i++) {
        float x = mo_rng_normal(&a);
        ck_assert(x == mo_rng_normal(&b));
        equal += x == mo_rng_normal(&c);
        sum += x;
        squares += (double)x * x;
    }
    ck_assert_int_lt(equal, 10);
    ck_assert_double_lt(fabs(sum / 10000), 0.05);
    ck_assert_double_lt(fabs(squares / 10000 - 1), 0.05);
}
END_TEST

START_TEST(shuffle_is_a_permutation)
{
    uint32_t items[1000], seen[1000] = {0};
    for (uint32_t i = 0; i < 1000; i++)
        items[i] = i;
    struct mo_rng rng = mo_rng_new(1, MO_RNG_SHUFFLE, 0);
    mo_rng_shuffle(&rng, items, 1000);
    size_t fixed = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        seen[items[i]]++;
        fixed += items[i] == i;
    }
    for (int i = 0; i < 1000; i++)
        ck_assert_uint_eq(seen[i], 1);
    ck_assert_uint_lt(fixed, 20);
}
END_TEST

START_TEST(globs)
{
    static const struct { const char *pattern, *text; bool yes; } cases[] = {
        {"*", "", true},         {"fc*", "fc1", true},      {"*fc", "abfc", true},    {"fc", "fc1", false},
        {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false}, {"?", "", false},     {"[a-c]x", "bx", true},
        {"[!a-c]x", "bx", false}, {"[", "[", true},         {"**", "abc", true},      {"", "", true}};
    for (size_t i = 0; i < MO_COUNT(cases); i++)
        ck_assert_msg(mo_glob(cases[i].pattern, cases[i].text) == cases[i].yes, "%s on %s", cases[i].pattern, cases[i].text);
    char pattern[201], text[301];
    for (int i = 0; i < 200; i++)
        pattern[i] = i % 2 ? 'a' : '*';
    pattern[200] = 0;
    memset(text, 'a', 300);
    text[299] = 'b';
    text[300] = 0;
    ck_assert(!mo_glob(pattern, text)); /* in linear time, or this would not end */
}
END_TEST

/* Values of the reference program. */
START_TEST(hash_of_files)
{
    static const struct { const char *text; uint64_t hash; } rows[] = {
        {"", 0xef46db3751d8e999u}, {"a", 0xd24ec4f1a98c6e5bu}, {"abc", 0x44bc2cf5ad770999u},
        {"Nobody inspects the spammish repetition", 0xfbcea83c8a378bf1u}};
    for (size_t i = 0; i < MO_COUNT(rows); i++)
        ck_assert_uint_eq(mo_xxh64(rows[i].text, strlen(rows[i].text)), rows[i].hash);
}
END_TEST

START_TEST(nearest_words)
{
    const char *const words[] = {"amount", "epochs", "target"};
    ck_assert_str_eq(mo_nearest("amonut", words, 3), "amount");
    ck_assert_str_eq(mo_nearest("epoch", words, 3), "epochs");
    ck_assert_ptr_null(mo_nearest("zzzzzzzz", words, 3));
    ck_assert_ptr_null(mo_nearest("set", words, 3));
    const char *const flags[] = {"eps", "optimizer", "output", "set"};
    ck_assert_str_eq(mo_nearest("opt", flags, 4), "optimizer"); /* an abbreviation, not three changed letters */
    ck_assert_str_eq(mo_nearest("out", flags, 4), "output");
}
END_TEST

struct inner { double rate; };
struct options { int64_t epochs; bool fast; int score; const char *name; struct mo_list only; struct mo_amount amount; struct inner inner; };
static const struct mopt_option inner_table[] = {
    {"rate", MOPT_OPT_FLOAT, offsetof(struct inner, rate), .def = 0.5, .min = 0, .max = 1}, {0}};
static const struct mopt_option table[] = {
    {"epochs", MOPT_OPT_INT, offsetof(struct options, epochs), .def = 3, .min = 1, .max = 10},
    {"fast", MOPT_OPT_BOOL, offsetof(struct options, fast), .def = 1},
    {"score", MOPT_OPT_CHOICE, offsetof(struct options, score), .text_def = "l2", .choices = "l1|l2|random"},
    {"name", MOPT_OPT_TEXT, offsetof(struct options, name), .text_def = "none"},
    {"only", MOPT_OPT_LIST, offsetof(struct options, only)},
    {"amount", MOPT_OPT_AMOUNT, offsetof(struct options, amount), .text_def = "50%"},
    {"", MOPT_OPT_GROUP, offsetof(struct options, inner), .group = inner_table},
    {0}};

START_TEST(options_by_table)
{
    struct mopt_ctx ctx = {0};
    struct mo_arena arena = {0};
    struct options o;
    mo_options_default(table, &o);
    ck_assert(o.epochs == 3 && o.fast && o.score == 1 && !strcmp(o.name, "none") && o.inner.rate == 0.5);
    ck_assert(o.amount.kind == MO_AMOUNT_FRACTION && o.amount.value == 0.5);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "epochs", "7"), MOPT_OK);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "fast", "false"), MOPT_OK);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "score", "random"), MOPT_OK);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "only", "a*"), MOPT_OK);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "only", "b*"), MOPT_OK);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "rate", "0.25"), MOPT_OK);
    ck_assert(o.epochs == 7 && !o.fast && o.score == 2 && o.only.n == 2 && !strcmp(o.only.items[1], "b*") && o.inner.rate == 0.25);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "epochs", "11"), MOPT_USAGE);
    ck_assert_str_eq(mopt_error(&ctx), "option 'epochs': 11 is above 10");
    mopt_clear(&ctx);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "epohcs", "1"), MOPT_USAGE);
    ck_assert_str_eq(mopt_error(&ctx), "there is no option 'epohcs'; did you mean 'epochs'?");
    mopt_clear(&ctx);
    ck_assert_int_eq(mo_option_set(&ctx, &arena, table, &o, "score", "l3"), MOPT_USAGE);
    mo_arena_release(&arena);
}
END_TEST

START_TEST(amounts)
{
    static const struct { const char *text; enum mopt_status status; enum mo_amount_kind kind; double value; } cases[] = {
        {"0.5", MOPT_OK, MO_AMOUNT_FRACTION, 0.5}, {"50%", MOPT_OK, MO_AMOUNT_FRACTION, 0.5},
        {"1000", MOPT_OK, MO_AMOUNT_COUNT, 1000},  {"1.0", MOPT_OK, MO_AMOUNT_FRACTION, 1},
        {"100%", MOPT_OK, MO_AMOUNT_FRACTION, 1},  {"1", MOPT_USAGE, 0, 0},
        {"-1", MOPT_USAGE, 0, 0},                  {"1.5", MOPT_USAGE, 0, 0},
        {"120%", MOPT_USAGE, 0, 0},                {"nan", MOPT_USAGE, 0, 0},
        {"half", MOPT_USAGE, 0, 0},                {"0", MOPT_OK, MO_AMOUNT_FRACTION, 0},
        {"1e308", MOPT_USAGE, 0, 0}};
    for (size_t i = 0; i < MO_COUNT(cases); i++) {
        struct mopt_ctx ctx = {0};
        struct mo_amount a = {0};
        ck_assert_msg(mo_amount_parse(&ctx, cases[i].text, &a) == cases[i].status, "%s", cases[i].text);
        if (!cases[i].status)
            ck_assert_msg(a.kind == cases[i].kind && a.value == cases[i].value, "%s", cases[i].text);
    }
}
END_TEST

START_TEST(reports_are_trees)
{
    struct mopt_report *r = mo_report_new();
    mo_report_set_int(r, "n", 7);
    mo_report_set_int(r, "n", 8);
    mo_report_set_number(r, "bad", NAN);
    struct mopt_report *list = mo_report_list(r, "models");
    mo_report_set_text(mo_report_object(list, NULL), "name", "a");
    mo_report_set_number(mo_report_object(mo_report_object(list, NULL), "latency_ms"), "median", 1.5);
    ck_assert(mo_report_ok(r));
    ck_assert_int_eq(mopt_report_int(mopt_report_at(r, "n"), 0), 8);
    ck_assert_uint_eq(mopt_report_count(r), 3);
    ck_assert_int_eq(mopt_report_kind(mopt_report_at(r, "bad")), MOPT_NULL);
    ck_assert_str_eq(mopt_report_text(mopt_report_at(r, "models.0.name"), "?"), "a");
    ck_assert_double_eq(mopt_report_number(mopt_report_at(r, "models.1.latency_ms.median"), 0), 1.5);
    ck_assert_ptr_null(mopt_report_at(r, "models.2.name"));
    ck_assert_ptr_null(mopt_report_at(r, "n.x"));
    mopt_report_free(r);
}
END_TEST

START_TEST(the_first_failure_wins_and_gets_its_place)
{
    struct mopt_ctx ctx = {0};
    ck_assert_int_eq(mo_fail(&ctx, MOPT_DATA, "row %d is bad", 3), MOPT_DATA);
    ck_assert_int_eq(mo_fail(&ctx, MOPT_FAILED, "another"), MOPT_DATA);
    mo_blame(&ctx, "file '%s'", "x.csv");
    ck_assert_str_eq(mopt_error(&ctx), "file 'x.csv': row 3 is bad");
}
END_TEST

Suite *suite_base(void);
Suite *suite_base(void)
{
    Suite *s = suite_create("base");
    TCase *t = tcase_create("base");
    tcase_add_test(t, memory_is_aligned_zeroed_and_checked);
    tcase_add_test(t, arena_gives_separate_objects_up_to_its_cap);
    tcase_add_test(t, philox_gives_the_published_answers);
    tcase_add_test(t, draws_are_a_function_of_seed_and_stream);
    tcase_add_test(t, shuffle_is_a_permutation);
    tcase_add_test(t, globs);
    tcase_add_test(t, hash_of_files);
    tcase_add_test(t, nearest_words);
    tcase_add_test(t, options_by_table);
    tcase_add_test(t, amounts);
    tcase_add_test(t, reports_are_trees);
    tcase_add_test(t, the_first_failure_wins_and_gets_its_place);
    suite_add_tcase(s, t);
    return s;
}
