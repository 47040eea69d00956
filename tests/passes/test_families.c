/* create: every family, chains from JSON, and specs that make no sense. */
#include <check.h>
#include <string.h>

#include "lib/graph/infer.h"
#include "lib/passes/create.h"

static struct mopt_ctx *ctx;

static void setup(void)
{
    ctx = mopt_open("cpu", 1);
    ck_assert_ptr_nonnull(ctx);
}

static void teardown(void)
{
    mopt_close(ctx);
}

static struct mopt_model *make(const char *spec, uint64_t seed)
{
    struct mopt_model *m;
    mopt_clear(ctx);
    ck_assert_msg(!mopt_model_create(ctx, spec, seed, &m), "%s: %s", spec, mopt_error(ctx));
    ck_assert_msg(!mo_graph_check(ctx, &m->graph), "%s", mopt_error(ctx));
    return m;
}

/* Parameters as the papers and PyTorch count them; multiply-adds of one sample. */
static const struct { const char *spec; int64_t parameters, macs; } known[] = {
    { "{\"family\": \"mlp\"}", 266610, 266200 },
    { "{\"family\": \"mlp\", \"layers\": [784, 300, 100, 10], \"input\": [1, 28, 28]}", 266610, 266200 },
    { "{\"family\": \"mlp\", \"layers\": [4, 8, 3]}", 67, 56 },
    { "{\"family\": \"lenet5\", \"input\": [1, 28, 28], \"classes\": 10}", 431080, 2293000 },
    { "{\"family\": \"cnn\"}", 421738, 4241152 },
    { "{\"family\": \"resnet20\"}", 272474, 40813184 },
    { "{\"family\": \"resnet18\"}", 11689512, 1814073344 },
    { "{\"family\": \"resnet18\", \"input\": [3, 32, 32], \"classes\": 10}", 11173962, 555422720 },
    { "{\"family\": \"mobilenetv2\"}", 3504872, 300774272 },
    { "{\"family\": \"transformer\"}", 1598986, MO_UNKNOWN },
};

START_TEST(families_have_the_known_size)
{
    struct mopt_model *m = make(known[_i].spec, 1);
    struct mo_counts counts;
    ck_assert_msg(!mo_infer_sample(ctx, &m->graph, 1), "%s", mopt_error(ctx));
    ck_assert(!mo_count(ctx, &m->graph, &counts));
    ck_assert_int_eq(counts.parameters, known[_i].parameters);
    if (known[_i].macs != MO_UNKNOWN)
        ck_assert_int_eq(counts.macs, known[_i].macs);
    const struct mo_value *in = &m->graph.values[m->graph.inputs[0]];
    ck_assert_str_eq(in->dim_names[0], "N");
    ck_assert_str_eq(mo_model_meta(m, "mopt.trained"), "0");
    ck_assert_int_eq(mo_model_opset(m, ""), 17);
    mopt_model_free(m);
}
END_TEST

START_TEST(the_seed_makes_the_weights)
{
    const char *spec = "{\"family\": \"lenet5\"}";
    struct mopt_model *a = make(spec, 1), *b = make(spec, 1), *c = make(spec, 2);
    const struct mo_value *x = &a->graph.values[a->graph.initializers[0]];
    const void *y = b->graph.values[b->graph.initializers[0]].data, *z = c->graph.values[c->graph.initializers[0]].data;
    ck_assert_str_eq(x->name, "conv1.weight");
    ck_assert_int_eq(memcmp(x->data, y, mo_value_bytes(x)), 0);
    ck_assert_int_ne(memcmp(x->data, z, mo_value_bytes(x)), 0);
    /* a rectifier behind conv1: the deviation is sqrt(2 / 25), the mean square of 500 draws lies near 0.08 */
    double sum = 0;
    for (int i = 0; i < 500; i++)
        sum += ((const float *)x->data)[i] * (double)((const float *)x->data)[i];
    ck_assert_double_eq_tol(sum / 500, 0.08, 0.016);
    /* behind fc1 too: sqrt(2 / 800) */
    const struct mo_value *fc1 = &a->graph.values[mo_graph_find(&a->graph, "fc1.weight")];
    sum = 0;
    for (int i = 0; i < 400000; i++)
        sum += ((const float *)fc1->data)[i] * (double)((const float *)fc1->data)[i];
    ck_assert_double_eq_tol(sum / 400000, 2. / 800, 2e-5);
    mopt_model_free(a);
    mopt_model_free(b);
    mopt_model_free(c);
}
END_TEST

START_TEST(a_chain_has_every_layer)
{
    struct mopt_model *m = make(
        "{\"input\": [3, 32, 32], \"layers\": [{\"type\": \"conv\", \"out\": 8, \"bias\": false, \"pad\": 1},"
        "{\"type\": \"batchnorm\"}, {\"type\": \"relu\"},"
        "{\"type\": \"residual\", \"layers\": [{\"type\": \"conv\", \"out\": 16, \"stride\": 2, \"pad\": 1},"
        "{\"type\": \"relu6\"}, {\"type\": \"conv\", \"out\": 16, \"kernel\": [1, 3], \"pad\": [0, 1]}],"
        "\"shortcut\": [{\"type\": \"conv\", \"name\": \"around\", \"out\": 16, \"kernel\": 1, \"stride\": 2}]},"
        "{\"type\": \"leaky-relu\", \"rate\": 0.2}, {\"type\": \"maxpool\"}, {\"type\": \"avgpool\", \"kernel\": 2},"
        "{\"type\": \"dropout\", \"rate\": 0.3}, {\"type\": \"flatten\"}, {\"type\": \"linear\", \"out\": 32},"
        "{\"type\": \"gelu\"}, {\"type\": \"layernorm\"}, {\"type\": \"tanh\"}, {\"type\": \"sigmoid\"},"
        "{\"type\": \"linear\", \"out\": 10, \"bias\": false}, {\"type\": \"softmax\"}]}", 0);
    const struct mo_value *out = &m->graph.values[m->graph.outputs[0]];
    ck_assert_int_eq(out->shape.rank, 2);
    ck_assert_int_eq(out->shape.dim[1], 10);
    ck_assert_uint_ne(mo_graph_find(&m->graph, "around.weight"), MO_NONE);
    mopt_model_free(m);
}
END_TEST

static const struct { const char *spec, *words; enum mopt_status status; } bad[] = {
    { "", "no JSON", MOPT_USAGE },
    { "{\"family\": \"lenet5\"} x", "no JSON", MOPT_USAGE },
    { "[]", "a JSON object", MOPT_USAGE },
    { "{}", "a family, or layers", MOPT_USAGE },
    { "{\"family\": \"lenet\"}", "'lenet5' is near", MOPT_USAGE },
    { "{\"family\": \"lenet5\", \"clases\": 10}", "'classes' is near", MOPT_USAGE },
    { "{\"family\": \"lenet5\", \"classes\": 0.5}", "not a whole number", MOPT_USAGE },
    { "{\"family\": \"lenet5\", \"layers\": [1, 2]}", "layers are for an mlp", MOPT_USAGE },
    { "{\"family\": \"lenet5\", \"input\": [1, 4, 4]}", "larger than the picture", MOPT_USAGE },
    { "{\"family\": \"lenet5\", \"input\": [784]}", "needs channels x height x width", MOPT_USAGE },
    { "{\"family\": \"mlp\", \"layers\": [5, 2], \"input\": [4]}", "the first of layers is 5", MOPT_USAGE },
    { "{\"family\": \"mlp\", \"layers\": [2000000000, 2000000000]}", "more than memory holds", MOPT_LIMIT },
    { "{\"family\": \"transformer\", \"input\": [64, 255]}", "heads", MOPT_USAGE },
    { "{\"input\": [4], \"layers\": []}", "widths or of objects", MOPT_USAGE },
    { "{\"layers\": [{\"type\": \"relu\"}]}", "needs an input", MOPT_USAGE },
    { "{\"input\": [4], \"layers\": [{\"out\": 3}]}", "has no type", MOPT_USAGE },
    { "{\"input\": [4], \"layers\": [{\"type\": \"linaer\", \"out\": 3}]}", "'linear' is near", MOPT_USAGE },
    { "{\"input\": [4], \"layers\": [{\"type\": \"linear\"}]}", "it has no outputs", MOPT_USAGE },
    { "{\"input\": [4], \"layers\": [{\"type\": \"relu\", \"kernal\": 3}]}", "'kernel' is near", MOPT_USAGE },
    { "{\"input\": [4], \"layers\": [{\"type\": \"conv\", \"out\": 3}]}", "needs channels x height x width", MOPT_USAGE },
    { "{\"input\": [3,8,8], \"layers\": [{\"type\": \"conv\", \"out\": 4, \"group\": 2}]}", "do not divide", MOPT_USAGE },
    { "{\"input\": [4], \"layers\": [{\"type\": \"residual\", \"layers\": [{\"type\": \"linear\", \"out\": 3}]}]}",
      "a residual branch gives 3, the way around it 4", MOPT_USAGE },
};

START_TEST(bad_specs_are_refused)
{
    struct mopt_model *m;
    ck_assert_int_eq(mopt_model_create(ctx, bad[_i].spec, 0, &m), bad[_i].status);
    ck_assert_msg(strstr(mopt_error(ctx), bad[_i].words), "'%s' does not say '%s'", mopt_error(ctx), bad[_i].words);
    ck_assert_ptr_null(m);
}
END_TEST

Suite *suite_families(void);
Suite *suite_families(void)
{
    Suite *s = suite_create("families");
    TCase *t = tcase_create("families");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, families_have_the_known_size, 0, (int)MO_COUNT(known));
    tcase_add_test(t, the_seed_makes_the_weights);
    tcase_add_test(t, a_chain_has_every_layer);
    tcase_add_loop_test(t, bad_specs_are_refused, 0, (int)MO_COUNT(bad));
    suite_add_tcase(s, t);
    return s;
}
