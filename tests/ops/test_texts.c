/* Tensors of strings: the pool of texts, moving them, and what the operators of ai.onnx.ml make of them. ONNX's own tests
 * (test_onnx_nodes.c) have the others. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "lib/run/run.h"

static struct mopt_ctx *ctx;

static void set_up(void)
{
    ctx = mopt_open("cpu", 1);
    ck_assert_ptr_nonnull(ctx);
}

static void tear_down(void)
{
    mopt_close(ctx);
}

START_TEST(equal_texts_have_one_number)
{
    struct mo_texts *t = mo_texts_new();
    int64_t empty, again, numbers[500];
    char text[16];
    ck_assert(!mo_texts_number(ctx, t, "", 0, &empty));
    ck_assert_int_eq(empty, 0);
    for (int i = 0; i < 500; i++) {
        int n = snprintf(text, sizeof text, "t%d", i);
        ck_assert(!mo_texts_number(ctx, t, text, (size_t)n, &numbers[i]));
        ck_assert_int_gt(numbers[i], 0);
    }
    const char *seventh = mo_texts_at(t, numbers[7], NULL);
    for (int i = 0; i < 500; i++) {
        size_t n_bytes, n = (size_t)snprintf(text, sizeof text, "t%d", i);
        ck_assert(!mo_texts_number(ctx, t, text, n, &again));
        ck_assert_int_eq(again, numbers[i]);
        ck_assert_str_eq(mo_texts_at(t, again, &n_bytes), text);
        ck_assert_uint_eq(n_bytes, n);
    }
    ck_assert_ptr_eq(mo_texts_at(t, numbers[7], NULL), seventh);
    ck_assert_ptr_null(mo_texts_at(t, 501, NULL));
    ck_assert_ptr_null(mo_texts_at(t, -1, NULL));
    ctx->max_memory_bytes = 64;
    ck_assert_int_eq(mo_texts_number(ctx, t, "one more", 8, &again), MOPT_LIMIT);
    mo_texts_free(t);
}
END_TEST

START_TEST(blocks_come_back)
{
    static const char block[] = "a\0\0bc";
    struct mo_texts *t = mo_texts_new();
    int64_t numbers[3];
    char *back;
    size_t n_bytes;
    ck_assert(!mo_texts_parse(ctx, t, block, sizeof block, 3, numbers));
    ck_assert_int_eq(numbers[1], 0);
    ck_assert(!mo_texts_block(ctx, t, numbers, 3, &back, &n_bytes));
    ck_assert_uint_eq(n_bytes, sizeof block);
    ck_assert_mem_eq(back, block, n_bytes);
    mo_mem_free(back);
    ck_assert_int_eq(mo_texts_parse(ctx, t, block, sizeof block, 4, numbers), MOPT_DATA);
    mopt_clear(ctx);
    numbers[0] = 77;
    ck_assert_int_eq(mo_texts_block(ctx, t, numbers, 1, &back, &n_bytes), MOPT_FAILED);
    mo_texts_free(t);
}
END_TEST

/* ---- graphs of one operator ---- */

static void set_texts(struct mo_graph *g, mo_node_id n, const char *name, const char **texts, size_t count)
{
    ck_assert(mo_node_set_text(g, n, name, ""));
    struct mo_attr *a = (struct mo_attr *)mo_node_attr(&g->nodes[n], name);
    a->kind = MO_ATTR_STRINGS;
    a->strings = texts;
    a->n = count;
}

struct one { struct mopt_model *model; struct mo_graph *g; mo_value_id x, y; mo_node_id node; };

/* x, n of that type -> the operator -> y */
static struct one one_op(const char *domain, const char *type, enum mo_dtype dtype, int64_t n)
{
    struct one o = { .model = mo_model_new() };
    struct mo_shape shape = mo_shape_of(1, n), unknown = { .rank = MO_UNKNOWN };
    o.g = &o.model->graph;
    ck_assert(mo_model_set_opset(o.model, "", 20) && mo_model_set_opset(o.model, "ai.onnx.ml", 1));
    o.x = mo_graph_add_value(o.g, "x", dtype, &shape);
    o.y = mo_graph_add_value(o.g, "y", MO_UNDEFINED, &unknown);
    ck_assert(mo_graph_add_input(o.g, o.x));
    o.node = mo_graph_add_node(o.g, type, domain, "it", &o.x, 1, &o.y, 1);
    ck_assert(mo_graph_add_output(o.g, o.y));
    return o;
}

static struct mo_run *forward(struct one *o, const void *x, size_t bytes)
{
    struct mo_run *r;
    struct mo_shape shape = o->g->values[o->x].shape;
    ck_assert_msg(!mo_graph_sort(ctx, o->g), "%s", mopt_error(ctx));
    ck_assert_msg(!mo_run_new(ctx, &o->model->graph, NULL, &r), "%s", mopt_error(ctx));
    ck_assert_msg(!mo_run_shape(r, &shape, 1), "%s", mopt_error(ctx));
    bool is_text = o->g->values[o->x].dtype == MO_STRING;
    ck_assert_msg(!(is_text ? mo_run_set_texts(r, 0, x, bytes) : mo_run_set_input(r, 0, x, bytes)), "%s", mopt_error(ctx));
    ck_assert_msg(!mo_run_forward(r), "%s", mopt_error(ctx));
    return r;
}

static void expect_texts(struct mo_run *r, const char *block, size_t n)
{
    char *got;
    size_t n_got;
    ck_assert_msg(!mo_run_get_texts(r, 0, &got, &n_got), "%s", mopt_error(ctx));
    ck_assert_uint_eq(n_got, n);
    ck_assert_mem_eq(got, block, n);
    mo_mem_free(got);
}

/* Wherever the axis says, and a constant of texts before the input. */
START_TEST(texts_are_moved)
{
    static const char x[] = "one\0two";
    static const char *more[] = { "nine", "" };
    struct one o = one_op(NULL, "Concat", MO_STRING, 2);
    struct mo_shape two = mo_shape_of(1, (int64_t)2);
    mo_value_id constant = mo_graph_add_value(o.g, "more", MO_STRING, &two);
    o.g->values[constant].strings = more;
    o.g->values[constant].data = more;
    o.g->nodes[o.node].is_dead = true;
    mo_node_id n = mo_graph_add_node(o.g, "Concat", NULL, "both", (mo_value_id[]){ constant, o.x }, 2, &o.y, 1);
    ck_assert(mo_node_set_int(o.g, n, "axis", 0));
    mo_graph_sweep(o.g);
    struct mo_run *r = forward(&o, x, sizeof x);
    expect_texts(r, "nine\0\0one\0two", 14);
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

START_TEST(category_mapper_both_ways)
{
    static const char x[] = "cat\0cow\0dog";
    static const char *names[] = { "cat", "dog" };
    static const int64_t ids[] = { 5, 6 }, want[] = { 5, -1, 6 }, back[] = { 6, 7, 5 };
    for (int is_back = 0; is_back < 2; is_back++) {
        struct one o = one_op("ai.onnx.ml", "CategoryMapper", is_back ? MO_I64 : MO_STRING, 3);
        set_texts(o.g, o.node, "cats_strings", names, 2);
        ck_assert(mo_node_set_ints(o.g, o.node, "cats_int64s", ids, 2));
        ck_assert(mo_node_set_text(o.g, o.node, "default_string", "other"));
        struct mo_run *r = is_back ? forward(&o, back, sizeof back) : forward(&o, x, sizeof x);
        if (is_back)
            expect_texts(r, "dog\0other\0cat", 14);
        else
            ck_assert_mem_eq(mo_run_output_data(r, 0), want, sizeof want);
        mo_run_free(r);
        mopt_model_free(o.model);
    }
}
END_TEST

START_TEST(one_hot_of_texts)
{
    static const char x[] = "b\0c";
    static const char *cats[] = { "a", "b" };
    static const float want[] = { 0, 1, 0, 0 };
    struct one o = one_op("ai.onnx.ml", "OneHotEncoder", MO_STRING, 2);
    set_texts(o.g, o.node, "cats_strings", cats, 2);
    struct mo_run *r = forward(&o, x, sizeof x);
    ck_assert_mem_eq(mo_run_output_data(r, 0), want, sizeof want);
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

/* Of two words each, sorted as bytes are. */
START_TEST(unique_texts_are_sorted)
{
    static const char x[] = "pear\0apple\0pear\0fig";
    struct one o = one_op(NULL, "Unique", MO_STRING, 4);
    struct mo_run *r = forward(&o, x, sizeof x);
    expect_texts(r, "apple\0fig\0pear", 15);
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

START_TEST(n_grams_of_texts)
{
    static const char x[] = "the\0cat\0the\0cat";
    static const char *pool[] = { "cat", "the", "the", "cat" };
    static const int64_t counts[] = { 0, 2 }, columns[] = { 0, 1, 2 };
    static const float want[] = { 2, 2, 2 };
    struct one o = one_op(NULL, "TfIdfVectorizer", MO_STRING, 4);
    set_texts(o.g, o.node, "pool_strings", pool, 4);
    ck_assert(mo_node_set_text(o.g, o.node, "mode", "TF") && mo_node_set_int(o.g, o.node, "max_gram_length", 2));
    ck_assert(mo_node_set_int(o.g, o.node, "min_gram_length", 1) && mo_node_set_int(o.g, o.node, "max_skip_count", 0));
    ck_assert(mo_node_set_ints(o.g, o.node, "ngram_counts", counts, 2) && mo_node_set_ints(o.g, o.node, "ngram_indexes", columns, 3));
    struct mo_run *r = forward(&o, x, sizeof x);
    ck_assert_mem_eq(mo_run_output_data(r, 0), want, sizeof want);
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

/* A machine of two support vectors with probabilities, as scikit-learn exports one: what libsvm's coupling of two classes stops
 * at is not the pair's own probability (0.562176, 0.904651, 0.060087). The class is that of the vote: in the last row the
 * other one is more likely. The classes are texts. */
START_TEST(svm_of_two_classes)
{
    static const float x[] = { 0, 0, 1, -1, -2, 1, -0.3f, 0 }, vectors[] = { 1, 0, 0, 1 }, rho = 0.5f, a = -1, b = 0.25f;
    static const float want[] = { 0.56207526f, 0.43792474f, 0.90465039f, 0.09534959f, 0.06000402f, 0.93999594f };
    static const float coefficients[] = { 1, -1 };
    static const char *labels[] = { "no", "yes" };
    struct one o = one_op("ai.onnx.ml", "SVMClassifier", MO_F32, 6);
    struct mo_shape unknown = { .rank = MO_UNKNOWN };
    mo_value_id scores = mo_graph_add_value(o.g, "scores", MO_F32, &unknown);
    o.g->values[o.x].shape = mo_shape_of(2, (int64_t)4, (int64_t)2);
    o.g->nodes[o.node].is_dead = true;
    mo_node_id n = mo_graph_add_node(o.g, "SVMClassifier", "ai.onnx.ml", "svm", &o.x, 1, (mo_value_id[]){ o.y, scores }, 2);
    set_texts(o.g, n, "classlabels_strings", labels, 2);
    ck_assert(mo_node_set_floats(o.g, n, "coefficients", coefficients, 2) && mo_node_set_floats(o.g, n, "rho", &rho, 1));
    ck_assert(mo_node_set_floats(o.g, n, "support_vectors", vectors, 4) && mo_node_set_text(o.g, n, "kernel_type", "LINEAR"));
    ck_assert(mo_node_set_floats(o.g, n, "prob_a", &a, 1) && mo_node_set_floats(o.g, n, "prob_b", &b, 1));
    ck_assert(mo_node_set_ints(o.g, n, "vectors_per_class", (int64_t[]){ 1, 1 }, 2));
    ck_assert(mo_node_set_floats(o.g, n, "kernel_params", (float[]){ 0, 0, 0 }, 3) && mo_graph_add_output(o.g, scores));
    mo_graph_sweep(o.g);
    struct mo_run *r = forward(&o, x, sizeof x);
    const float *got = mo_run_output_data(r, 1);
    expect_texts(r, "no\0no\0yes\0no", 13);
    for (int i = 0; i < 6; i++)
        ck_assert_float_eq_tol(got[i], want[i], 2e-6f);
    ck_assert_float_lt(got[6], got[7]);
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

/* A pattern, a text, whether it matches all of it; -1: the pattern is refused. */
static const struct { const char *pattern, *text; int matches; } patterns[] = {
    { "a+b", "aaab", 1 }, { "a+b", "aaabc", 0 }, { "a$", "a\n", 0 }, { "\\d+", "12", 1 }, { "\\w", "\xc3\xa9", 0 },
    { ".", "\xc3\xa9", 1 }, { "(?i)AB", "ab", 1 }, { "(?P<n>x)y", "xy", 1 }, { "[(?=]", "=", 1 }, { ".", "\xff", 0 },
    { "(a)\\1", "aa", -1 }, { "a(?=b)b", "ab", -1 }, { "(?<!a)b", "b", -1 }, { "(", "", -1 },
    { "(a|aa)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", 0 },
};

START_TEST(patterns_of_re2)
{
    struct one o = one_op(NULL, "RegexFullMatch", MO_STRING, 1);
    struct mo_run *r;
    ck_assert(mo_node_set_text(o.g, o.node, "pattern", patterns[_i].pattern));
    if (patterns[_i].matches >= 0) {
        r = forward(&o, patterns[_i].text, strlen(patterns[_i].text) + 1);
        ck_assert_int_eq(*(const uint8_t *)mo_run_output_data(r, 0), patterns[_i].matches);
    } else {
        struct mo_shape shape = mo_shape_of(1, (int64_t)1);
        ck_assert(!mo_graph_sort(ctx, o.g));
        ck_assert(!mo_run_new(ctx, o.g, NULL, &r));
        ck_assert_int_eq(mo_run_shape(r, &shape, 1), MOPT_DATA);
    }
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

/* Letters of other alphabets change case too, whatever the locale of the program. */
START_TEST(case_beyond_ascii)
{
    static const char x[] = "\xc3\xa9t\xc3\xa9\0the\0\xff";
    static const char *stops[] = { "THE" };
    struct one o = one_op(NULL, "StringNormalizer", MO_STRING, 3);
    set_texts(o.g, o.node, "stopwords", stops, 1);
    ck_assert(mo_node_set_text(o.g, o.node, "case_change_action", "UPPER"));
    struct mo_run *r = forward(&o, x, sizeof x);
    expect_texts(r, "\xc3\x89T\xc3\x89\0\xff", 8);
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

START_TEST(texts_that_are_no_numbers)
{
    static const char *const bad[] = { "", "1x", "x" };
    struct one o = one_op(NULL, "Cast", MO_STRING, 1);
    struct mo_shape shape = mo_shape_of(1, (int64_t)1);
    struct mo_run *r;
    ck_assert(mo_node_set_int(o.g, o.node, "to", _i % 2 ? MO_I64 : MO_F32));
    ck_assert(!mo_graph_sort(ctx, o.g) && !mo_run_new(ctx, o.g, NULL, &r) && !mo_run_shape(r, &shape, 1));
    ck_assert(!mo_run_set_texts(r, 0, bad[_i / 2], strlen(bad[_i / 2]) + 1));
    ck_assert_int_eq(mo_run_forward(r), MOPT_DATA);
    mo_run_free(r);
    mopt_model_free(o.model);
}
END_TEST

Suite *suite_texts(void);
Suite *suite_texts(void)
{
    Suite *suite = suite_create("texts");
    TCase *tcase = tcase_create("texts");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, equal_texts_have_one_number);
    tcase_add_test(tcase, blocks_come_back);
    tcase_add_test(tcase, texts_are_moved);
    tcase_add_test(tcase, category_mapper_both_ways);
    tcase_add_test(tcase, one_hot_of_texts);
    tcase_add_test(tcase, unique_texts_are_sorted);
    tcase_add_test(tcase, n_grams_of_texts);
    tcase_add_test(tcase, svm_of_two_classes);
    tcase_add_loop_test(tcase, patterns_of_re2, 0, MO_COUNT(patterns));
    tcase_add_test(tcase, case_beyond_ascii);
    tcase_add_loop_test(tcase, texts_that_are_no_numbers, 0, 6);
    suite_add_tcase(suite, tcase);
    return suite;
}
