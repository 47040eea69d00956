/* simplify: each rule on a small graph made for it, alone, and what each must leave alone. The outputs before and after are
 * compared by running both, through the driver. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/graph/infer.h"
#include "lib/graph/private.h"
#include "lib/passes/pass.h"
#include "lib/run/run.h"

static struct mopt_ctx *ctx;
static struct mopt_model *m;
static struct mo_graph *g;
static const char *limit;       /* for folding; NULL: the default */

static void setup(void)
{
    limit = NULL;
    ctx = mopt_open("cpu", 1);
    m = mo_model_new();
    ck_assert(ctx && m);
    ck_assert(mo_model_set_opset(m, "", 17));
    g = &m->graph;
}

static void teardown(void)
{
    mopt_model_free(m);
    mopt_close(ctx);
}

/* ---- building -------------------------------------------------------------------------- */

static mo_value_id input(const char *name, int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    struct mo_shape shape = mo_shape_of(rank, a, b, c, d);
    mo_value_id v = mo_graph_add_value(g, name, MO_F32, &shape);
    ck_assert(mo_graph_add_input(g, v));
    return v;
}

static mo_value_id weight(const char *name, int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    struct mo_shape shape = mo_shape_of(rank, a, b, c, d);
    int64_t n = mo_shape_elems(&shape);
    float *x = calloc((size_t)n, sizeof *x);
    struct mo_rng rng = mo_rng_new(7, MO_RNG_TEST, g->n_values);
    for (int64_t i = 0; i < n; i++)
        x[i] = mo_rng_float(&rng) + 0.5f;
    mo_value_id v = mo_graph_add_const(g, name, MO_F32, &shape, x);
    free(x);
    return v;
}

static mo_value_id number(const char *name, float x)
{
    struct mo_shape scalar = { .rank = 0 };
    return mo_graph_add_const(g, name, MO_F32, &scalar, &x);
}

static mo_value_id ints(const char *name, int64_t n, const int64_t *x)
{
    struct mo_shape shape = mo_shape_of(1, n);
    return mo_graph_add_const(g, name, MO_I64, &shape, x);
}

static mo_node_id last;

static mo_value_id node(const char *type, mo_value_id a, mo_value_id b, mo_value_id c)
{
    mo_value_id in[3] = { a, b, c }, y = mo_graph_add_value(g, "y", MO_F32, NULL);
    g->values[y].shape.rank = MO_UNKNOWN;
    uint32_t n = c != MO_NONE ? 3 : b != MO_NONE ? 2 : 1;
    last = mo_graph_add_node(g, type, NULL, NULL, in, n, &y, 1);
    ck_assert_uint_ne(last, MO_NONE);
    return y;
}

static mo_value_id node_ints(const char *type, mo_value_id a, const char *key, int64_t n, const int64_t *x)
{
    mo_value_id y = node(type, a, MO_NONE, MO_NONE);
    ck_assert(mo_node_set_ints(g, last, key, x, (size_t)n));
    return y;
}

static mo_value_id batch_norm(mo_value_id x, int64_t channels)
{
    mo_value_id in[5] = { x, weight("scale", 1, channels, 0, 0, 0), weight("shift", 1, channels, 0, 0, 0),
                          weight("mean", 1, channels, 0, 0, 0), weight("var", 1, channels, 0, 0, 0) };
    mo_value_id y = mo_graph_add_value(g, "y", MO_F32, NULL);
    g->values[y].shape.rank = MO_UNKNOWN;
    ck_assert_uint_ne(mo_graph_add_node(g, "BatchNormalization", NULL, NULL, in, 5, &y, 1), MO_NONE);
    return y;
}

/* Simplifies with one rule alone (NULL: all), verified; the rule's changes. */
static int64_t simplify(const char *only_rule, mo_value_id y)
{
    struct mopt_recipe *recipe;
    struct mopt_report *report = NULL;
    ck_assert(mo_graph_add_output(g, y));
    ck_assert_msg(!mo_graph_sort(ctx, g) && !mo_infer(ctx, g, NULL, 0), "%s", mopt_error(ctx));
    ck_assert(!mopt_recipe_new(ctx, &recipe) && !mopt_recipe_add(ctx, recipe, "simplify"));
    const struct mo_pass *pass = mo_pass_find("simplify");
    for (const struct mopt_option *o = pass->options; only_rule && o->name; o++)
        if (o->kind == MOPT_OPT_BOOL)
            ck_assert(!mopt_recipe_set(ctx, recipe, o->name, !strcmp(o->name, only_rule) ? "true" : "false"));
    ck_assert(!mopt_recipe_set(ctx, recipe, "measure", "0"));
    ck_assert(!limit || !mopt_recipe_set(ctx, recipe, "fold-limit", limit));
    ck_assert_msg(!mopt_apply(ctx, recipe, m, NULL, 0, &report), "%s", mopt_error(ctx));
    ck_assert_int_eq(mopt_report_kind(mopt_report_at(report, "verified_difference")), MOPT_NUMBER);
    int64_t changes = 0;
    const struct mopt_report *rules = mopt_report_at(report, "rules");
    for (size_t i = 0; i < mopt_report_count(rules); i++) {
        const struct mopt_report *row = mopt_report_item(rules, i);
        if (!only_rule || !strcmp(mopt_report_text(mopt_report_at(row, "rule"), ""), only_rule))
            changes += mopt_report_int(mopt_report_at(row, "changes"), 0);
    }
    mopt_report_free(report);
    mopt_recipe_free(recipe);
    return changes;
}

static uint32_t count(const char *type)
{
    uint32_t n = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        n += mo_node_is(&g->nodes[i], type);
    return n;
}

/* ---- rules ----------------------------------------------------------------------------------- */

START_TEST(constants_are_folded)
{
    mo_value_id x = input("x", 2, 2, 3, 0, 0);
    mo_value_id c = node("Mul", weight("a", 2, 2, 3, 0, 0), number("two", 2), MO_NONE);
    mo_value_id d = node("Exp", c, MO_NONE, MO_NONE);
    ck_assert_int_eq(simplify("fold-constants", node("Add", x, d, MO_NONE)), 2);
    ck_assert_uint_eq(g->n_nodes, 1);
}
END_TEST

START_TEST(batchnorm_goes_into_conv)
{
    mo_value_id x = input("x", 4, 1, 2, 6, 6);
    mo_value_id y = batch_norm(node("Conv", x, weight("w", 4, 3, 2, 3, 3), MO_NONE), 3);
    ck_assert_int_eq(simplify("fold-batchnorm", node("Relu", y, MO_NONE, MO_NONE)), 1);
    ck_assert_uint_eq(count("BatchNormalization"), 0);
    ck_assert_uint_eq(g->nodes[0].n_in, 3);
}
END_TEST

START_TEST(batchnorm_stays_behind_a_shared_conv)
{
    mo_value_id x = input("x", 4, 1, 2, 6, 6), c = node("Conv", x, weight("w", 4, 3, 2, 3, 3), MO_NONE);
    mo_value_id y = node("Add", batch_norm(c, 3), c, MO_NONE);
    ck_assert_int_eq(simplify("fold-batchnorm", y), 0);
}
END_TEST

START_TEST(batchnorm_stays_behind_a_shared_weight)
{
    mo_value_id x = input("x", 4, 1, 2, 6, 6), w = weight("w", 4, 3, 2, 3, 3);
    mo_value_id a = batch_norm(node("Conv", x, w, MO_NONE), 3), b = node("Conv", x, w, MO_NONE);
    ck_assert_int_eq(simplify("fold-batchnorm", node("Add", a, b, MO_NONE)), 0);
}
END_TEST

START_TEST(batchnorm_goes_into_transposed_conv_and_gemm)
{
    mo_value_id x = input("x", 4, 1, 2, 3, 3), z = input("z", 2, 2, 4, 0, 0);
    mo_value_id a = batch_norm(node("ConvTranspose", x, weight("w", 4, 2, 3, 2, 2), MO_NONE), 3);
    mo_value_id b = batch_norm(node("Gemm", z, weight("v", 2, 4, 3, 0, 0), weight("b", 1, 3, 0, 0, 0)), 3);
    ck_assert(mo_graph_add_output(g, a));
    ck_assert_int_eq(simplify("fold-batchnorm", b), 2);
    ck_assert_uint_eq(g->n_nodes, 2);
}
END_TEST

static const char *const arithmetic[] = { "Add", "Sub", "Mul", "Div" };

START_TEST(arithmetic_goes_into_conv)
{
    bool first = _i >= 4;
    const char *type = arithmetic[_i % 4];
    mo_value_id x = input("x", 4, 1, 2, 6, 6);
    mo_value_id y = node("Conv", x, weight("w", 4, 3, 2, 3, 3), weight("b", 1, 3, 0, 0, 0));
    mo_value_id c = weight("c", 3, 3, 1, 1, 0);
    y = first ? node(type, c, y, MO_NONE) : node(type, y, c, MO_NONE);
    /* 1 / y is not linear */
    bool is_linear = !(first && !strcmp(type, "Div"));
    ck_assert_int_eq(simplify("fold-arithmetic", node("Relu", y, MO_NONE, MO_NONE)), is_linear);
    ck_assert_uint_eq(count(type), !is_linear);
}
END_TEST

START_TEST(arithmetic_over_width_stays)
{
    mo_value_id x = input("x", 4, 1, 2, 5, 5), y = node("Conv", x, weight("w", 4, 3, 2, 3, 3), MO_NONE);
    /* [3] lies along the width, which also has 3 elements */
    ck_assert_int_eq(simplify("fold-arithmetic", node("Mul", y, weight("c", 1, 3, 0, 0, 0), MO_NONE)), 0);
}
END_TEST

START_TEST(matmul_and_add_become_gemm)
{
    mo_value_id x = input("x", 2, 2, 4, 0, 0);
    mo_value_id y = node("MatMul", x, weight("w", 2, 4, 3, 0, 0), MO_NONE);
    ck_assert_int_eq(simplify("make-gemm", node("Add", weight("b", 2, 1, 3, 0, 0), y, MO_NONE)), 1);
    ck_assert_uint_eq(count("Gemm"), 1);
    ck_assert_uint_eq(g->n_nodes, 1);
    ck_assert_int_eq(mo_in(g, &g->nodes[0], 2)->shape.rank, 1);
}
END_TEST

START_TEST(products_of_more_axes_stay)
{
    mo_value_id x = input("x", 3, 2, 5, 4, 0);
    mo_value_id y = node("MatMul", x, weight("w", 2, 4, 3, 0, 0), MO_NONE);
    ck_assert_int_eq(simplify("make-gemm", node("Add", y, weight("b", 1, 3, 0, 0, 0), MO_NONE)), 0);
}
END_TEST

START_TEST(factors_of_gemm_go_into_constants)
{
    mo_value_id x = input("x", 2, 2, 4, 0, 0);
    mo_value_id y = node("Gemm", x, weight("w", 2, 4, 3, 0, 0), number("b", 0.25f));
    ck_assert(mo_node_set_float(g, last, "alpha", 0.5f) && mo_node_set_float(g, last, "beta", 2));
    ck_assert_int_eq(simplify("tidy-gemm", y), 3);
    ck_assert_uint_eq(g->nodes[0].n_attrs, 0);
    ck_assert_float_eq(((const float *)mo_in(g, &g->nodes[0], 2)->data)[1], 0.5f);
}
END_TEST

START_TEST(identities_are_dropped)
{
    mo_value_id x = input("x", 2, 2, 3, 0, 0);
    mo_value_id y = node("Identity", node("Relu", x, MO_NONE, MO_NONE), MO_NONE, MO_NONE);
    y = node("Add", node("Mul", number("one", 1), y, MO_NONE), number("zero", 0), MO_NONE);
    y = node("Div", node("Sub", y, number("nought", 0), MO_NONE), number("unit", 1), MO_NONE);
    y = node("Reshape", y, ints("shape", 2, (int64_t[]){ 2, 3 }), MO_NONE);
    y = node_ints("Transpose", y, "perm", 2, (int64_t[]){ 0, 1 });
    y = node("Concat", node("Relu", y, MO_NONE, MO_NONE), MO_NONE, MO_NONE);
    ck_assert(mo_node_set_int(g, last, "axis", 0));
    y = node("Dropout", y, MO_NONE, MO_NONE);
    ck_assert_int_eq(simplify("drop-identity", y), 10);
    ck_assert_uint_eq(g->n_nodes, 1);
    ck_assert_str_eq(g->nodes[0].type, "Relu");
    ck_assert_uint_eq(g->nodes[0].out[0], g->outputs[0]);
}
END_TEST

START_TEST(what_only_looks_like_identity_stays)
{
    mo_value_id x = input("x", 2, 1, 3, 0, 0);
    /* adds an axis; makes an axis longer; turns the order round */
    struct mo_shape wide = mo_shape_of(3, (int64_t)1, (int64_t)1, (int64_t)1);
    struct mo_shape tall = mo_shape_of(2, (int64_t)4, (int64_t)1);
    mo_value_id zero = mo_graph_add_const(g, "zero", MO_F32, &wide, NULL);
    mo_value_id zeros = mo_graph_add_const(g, "zeros", MO_F32, &tall, NULL);
    mo_value_id y = node("Add", node("Add", x, zeros, MO_NONE), zero, MO_NONE);
    mo_value_id in[5] = { y, ints("start", 1, (int64_t[]){ -1 }), ints("end", 1, (int64_t[]){ -100 }),
                          ints("axis", 1, (int64_t[]){ 2 }), ints("step", 1, (int64_t[]){ -1 }) };
    mo_value_id z = mo_graph_add_value(g, "z", MO_F32, NULL);
    g->values[z].shape.rank = MO_UNKNOWN;
    mo_graph_add_node(g, "Slice", NULL, NULL, in, 5, &z, 1);
    ck_assert_int_eq(simplify("drop-identity", z), 0);
}
END_TEST

START_TEST(an_input_that_is_output_keeps_its_node)
{
    mo_value_id x = input("x", 2, 2, 3, 0, 0);
    ck_assert_int_eq(simplify("drop-identity", node("Identity", x, MO_NONE, MO_NONE)), 0);
    ck_assert_uint_eq(g->n_nodes, 1);
}
END_TEST

START_TEST(transposes_cancel)
{
    static const int64_t there[] = { 0, 2, 3, 1 }, back[] = { 0, 3, 1, 2 };
    mo_value_id x = input("x", 4, 2, 3, 4, 5);
    mo_value_id y = node_ints("Transpose", node_ints("Transpose", x, "perm", 4, there), "perm", 4, back);
    ck_assert_int_ge(simplify(NULL, node("Relu", y, MO_NONE, MO_NONE)), 2);
    ck_assert_uint_eq(count("Transpose"), 0);
}
END_TEST

START_TEST(transposes_cancel_around_others)
{
    static const int64_t there[] = { 0, 2, 3, 1 }, back[] = { 0, 3, 1, 2 };
    mo_value_id x = input("x", 4, 2, 3, 4, 5);
    mo_value_id y = node_ints("Transpose", x, "perm", 4, there);
    y = node("Mul", node("Sigmoid", y, MO_NONE, MO_NONE), number("two", 2), MO_NONE);
    y = node("Softmax", y, MO_NONE, MO_NONE);
    ck_assert(mo_node_set_int(g, last, "axis", 3));
    y = node_ints("Transpose", y, "perm", 4, back);
    ck_assert_int_eq(simplify("cancel-transposes", node("Relu", y, MO_NONE, MO_NONE)), 1);
    ck_assert_uint_eq(count("Transpose"), 0);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (mo_node_is(&g->nodes[i], "Softmax"))
            ck_assert_int_eq(mo_node_int(&g->nodes[i], "axis", -1), 1);
}
END_TEST

/* 0: Resize of opset 17, which has no axes to rename; 1: of opset 18, which has */
START_TEST(transposes_around_resize)
{
    static const int64_t there[] = { 0, 3, 1, 2 }, back[] = { 0, 2, 3, 1 };
    const float factors[4] = { 1, 1, 2, 2 };
    struct mo_shape four = mo_shape_of(1, (int64_t)4);
    ck_assert(mo_model_set_opset(m, "", 17 + _i));
    mo_value_id x = node_ints("Transpose", input("x", 4, 1, 4, 5, 3), "perm", 4, there);
    mo_value_id y = node("Resize", x, MO_NONE, mo_graph_add_const(g, "scales", MO_F32, &four, factors));
    simplify("cancel-transposes", node_ints("Transpose", y, "perm", 4, back));
    ck_assert_uint_eq(count("Transpose"), _i == 0 ? 2 : 0);
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        if (mo_node_is(&g->nodes[i], "Resize"))
            ck_assert(!mo_node_attr(&g->nodes[i], "axes") == (_i == 0));
}
END_TEST

START_TEST(other_transposes_become_one)
{
    static const int64_t a[] = { 1, 2, 0 }, b[] = { 0, 2, 1 };
    mo_value_id x = input("x", 3, 2, 3, 4, 0);
    mo_value_id y = node_ints("Transpose", node_ints("Transpose", x, "perm", 3, a), "perm", 3, b);
    simplify(NULL, y);
    ck_assert_uint_eq(count("Transpose"), 1);
    size_t n;
    const int64_t *perm = mo_node_ints(&g->nodes[0], "perm", &n);
    ck_assert(perm[0] == 1 && perm[1] == 0 && perm[2] == 2);
}
END_TEST

START_TEST(computed_targets_become_constants)
{
    mo_value_id x = input("x", 3, MO_UNKNOWN, 3, 4, 0);
    mo_value_id shape = node("Shape", x, MO_NONE, MO_NONE), zero = ints("zero", 1, (int64_t[]){ 0 });
    mo_value_id n = node("Gather", shape, zero, MO_NONE), rest = ints("rest", 1, (int64_t[]){ -1 });
    mo_value_id target = node("Concat", n, rest, MO_NONE);
    ck_assert(mo_node_set_int(g, last, "axis", 0));
    simplify(NULL, node("Reshape", node("Relu", x, MO_NONE, MO_NONE), target, MO_NONE));
    /* taken from x, but it is the Relu that is reshaped: two entries are free, so the target stays computed */
    ck_assert_uint_eq(count("Shape"), 1);
}
END_TEST

START_TEST(computed_targets_of_the_same_tensor_become_constants)
{
    mo_value_id x = node("Relu", input("x", 3, MO_UNKNOWN, 3, 4, 0), MO_NONE, MO_NONE);
    mo_value_id shape = node("Shape", x, MO_NONE, MO_NONE), zero = ints("zero", 1, (int64_t[]){ 0 });
    mo_value_id n = node("Gather", shape, zero, MO_NONE), rest = ints("rest", 1, (int64_t[]){ -1 });
    mo_value_id target = node("Concat", n, rest, MO_NONE);
    ck_assert(mo_node_set_int(g, last, "axis", 0));
    simplify(NULL, node("Reshape", x, target, MO_NONE));
    ck_assert_uint_eq(g->n_nodes, 2);
    int64_t got[2];
    ck_assert_int_eq(mo_value_ints(mo_in(g, &g->nodes[1], 1), got, 2), 2);
    ck_assert(got[0] == 0 && got[1] == -1);
}
END_TEST

START_TEST(equal_things_are_merged)
{
    mo_value_id x = input("x", 2, 2, 4, 0, 0);
    float w[12];
    for (int i = 0; i < 12; i++)
        w[i] = (float)i;
    struct mo_shape shape = mo_shape_of(2, (int64_t)4, (int64_t)3);
    mo_value_id a = mo_graph_add_const(g, "a", MO_F32, &shape, w), b = mo_graph_add_const(g, "b", MO_F32, &shape, w);
    mo_value_id y = node("MatMul", x, a, MO_NONE), z = node("MatMul", x, b, MO_NONE);
    simplify(NULL, node("Add", y, z, MO_NONE));
    ck_assert_uint_eq(count("MatMul"), 1);
    ck_assert_uint_eq(g->n_initializers, 1);
}
END_TEST

static mo_value_id halves(const char *name)
{
    struct mo_shape row = mo_shape_of(1, (int64_t)3);
    return mo_graph_add_const(g, name, MO_F32, &row, (float[]){ 0.5f, 0.5f, 0.5f });
}

START_TEST(fresh_weights_are_not_tied)
{
    mo_value_id x = input("x", 2, 2, 3, 0, 0), a = halves("a"), b = halves("b");
    mo_value_id y = node("Relu", node("Add", x, a, MO_NONE), MO_NONE, MO_NONE);
    simplify(NULL, node("Add", y, b, MO_NONE));
    ck_assert_uint_eq(g->n_initializers, 2);
}
END_TEST

START_TEST(zero_pads_go_into_conv)
{
    mo_value_id x = input("x", 4, 1, 2, 5, 5);
    mo_value_id pads = ints("pads", 8, (int64_t[]){ 0, 0, 1, 0, 0, 0, 2, 1 });
    mo_value_id y = node("Conv", node("Pad", x, pads, MO_NONE), weight("w", 4, 3, 2, 3, 3), MO_NONE);
    ck_assert(mo_node_set_ints(g, last, "pads", (int64_t[]){ 1, 1, 1, 1 }, 4));
    ck_assert_int_eq(simplify("fold-pad", y), 1);
    size_t n;
    const int64_t *got = mo_node_ints(&g->nodes[0], "pads", &n);
    ck_assert(n == 4 && got[0] == 2 && got[1] == 1 && got[2] == 3 && got[3] == 2);
}
END_TEST

START_TEST(zero_pads_go_into_a_mean_that_counts_them)
{
    bool has_own = _i;
    mo_value_id x = input("x", 4, 1, 2, 5, 5);
    mo_value_id pads = ints("pads", 8, (int64_t[]){ 0, 0, 1, 1, 0, 0, 1, 1 });
    mo_value_id y = node_ints("AveragePool", node("Pad", x, pads, MO_NONE), "kernel_shape", 2, (int64_t[]){ 3, 3 });
    if (has_own)        /* pads that do not count beside some that do: not one pool */
        ck_assert(mo_node_set_ints(g, last, "pads", (int64_t[]){ 1, 1, 1, 1 }, 4));
    ck_assert_int_eq(simplify("fold-pad", y), !has_own);
    ck_assert_uint_eq(count("Pad"), has_own);
}
END_TEST

START_TEST(zero_pads_stay_before_a_maximum)
{
    mo_value_id x = input("x", 4, 1, 2, 5, 5);
    mo_value_id pads = ints("pads", 8, (int64_t[]){ 0, 0, 1, 1, 0, 0, 1, 1 });
    mo_value_id padded = node("Pad", x, pads, _i ? number("low", -INFINITY) : MO_NONE);
    mo_value_id y = node_ints("MaxPool", padded, "kernel_shape", 2, (int64_t[]){ 3, 3 });
    ck_assert_int_eq(simplify("fold-pad", y), _i);
}
END_TEST

START_TEST(arithmetic_goes_into_batchnorm)
{
    mo_value_id x = node("Relu", input("x", 4, 2, 3, 4, 4), MO_NONE, MO_NONE);
    mo_value_id y = node("Mul", batch_norm(x, 3), weight("c", 3, 3, 1, 1, 0), MO_NONE);
    ck_assert_int_eq(simplify("fold-arithmetic", node("Add", y, weight("d", 3, 3, 1, 1, 0), MO_NONE)), 2);
    ck_assert_uint_eq(g->n_nodes, 2);
}
END_TEST

START_TEST(reshapes_in_a_row_become_one)
{
    static const int64_t swapped[] = { 0, 2, 3, 1 };
    mo_value_id x = input("x", 4, 2, 1, 4, 5);
    mo_value_id y = node_ints("Transpose", node("Relu", x, MO_NONE, MO_NONE), "perm", 4, swapped);
    y = node("Reshape", y, ints("flat", 2, (int64_t[]){ 2, 20 }), MO_NONE);
    y = node("Unsqueeze", y, ints("axis", 1, (int64_t[]){ 1 }), MO_NONE);
    ck_assert_int_eq(simplify("merge-reshapes", node("Exp", y, MO_NONE, MO_NONE)), 2);
    mo_graph_drop_unused(g);
    ck_assert_uint_eq(count("Reshape"), 1);
    ck_assert_uint_eq(count("Transpose"), 0);
}
END_TEST

START_TEST(a_reshape_that_is_undone_is_none)
{
    mo_value_id x = input("x", 3, MO_UNKNOWN, MO_UNKNOWN, 4, 0), axis = ints("axis", 1, (int64_t[]){ 1 });
    mo_value_id y = node("Unsqueeze", node("Relu", x, MO_NONE, MO_NONE), axis, MO_NONE);
    y = node("Exp", node("Squeeze", y, axis, MO_NONE), MO_NONE, MO_NONE);
    simplify(NULL, y);
    ck_assert_uint_eq(g->n_nodes, 2);
}
END_TEST

START_TEST(a_transpose_that_mixes_axes_is_no_reshape)
{
    static const int64_t swapped[] = { 0, 2, 1 };
    mo_value_id x = input("x", 3, 2, 3, 4, 0);
    mo_value_id y = node_ints("Transpose", node("Relu", x, MO_NONE, MO_NONE), "perm", 3, swapped);
    y = node("Reshape", y, ints("flat", 2, (int64_t[]){ 2, 12 }), MO_NONE);
    ck_assert_int_eq(simplify("merge-reshapes", y), 0);
}
END_TEST

START_TEST(a_split_in_one_piece_is_dropped)
{
    mo_value_id x = node("Relu", input("x", 2, 2, 3, 0, 0), MO_NONE, MO_NONE);
    ck_assert_int_eq(simplify("drop-identity", node("Split", x, MO_NONE, MO_NONE)), 1);
}
END_TEST

START_TEST(neutral_rows_are_dropped)
{
    mo_value_id x = node("Relu", input("x", 2, MO_UNKNOWN, 3, 0, 0), MO_NONE, MO_NONE);
    struct mo_shape row = mo_shape_of(1, (int64_t)3);
    mo_value_id zeros = mo_graph_add_const(g, "zeros", MO_F32, &row, NULL);
    ck_assert_int_eq(simplify("drop-identity", node("Add", zeros, x, MO_NONE)), 1);
}
END_TEST

START_TEST(squeezes_behind_a_reduce_become_keepdims)
{
    static const char *const second[] = { "Unsqueeze", "Squeeze" };
    mo_value_id x = input("x", 3, 2, 3, 4, 0), axis = ints("axis", 1, (int64_t[]){ 1 });
    mo_value_id y = node_ints("ReduceMean", x, "axes", 1, (int64_t[]){ -2 });
    ck_assert(mo_node_set_int(g, last, "keepdims", _i));
    ck_assert_int_eq(simplify("keep-dims", node(second[_i], y, axis, MO_NONE)), 1);
    ck_assert_uint_eq(g->n_nodes, 1);
    ck_assert_int_eq(mo_node_int(&g->nodes[0], "keepdims", 1), !_i);
}
END_TEST

START_TEST(an_axis_elsewhere_is_no_keepdims)
{
    mo_value_id x = input("x", 3, 2, 3, 4, 0);
    mo_value_id y = node_ints("ReduceMean", x, "axes", 1, (int64_t[]){ 1 });
    ck_assert(mo_node_set_int(g, last, "keepdims", 0));
    y = node("Unsqueeze", y, ints("axis", 1, (int64_t[]){ 2 }), MO_NONE);
    ck_assert_int_eq(simplify("keep-dims", y), 0);
}
END_TEST

START_TEST(first_states_of_zero_are_dropped)
{
    mo_value_id x = input("x", 3, 4, MO_UNKNOWN, 2, 0), shape = node("Shape", x, MO_NONE, MO_NONE);
    mo_value_id batch = node("Gather", shape, ints("one", 1, (int64_t[]){ 1 }), MO_NONE);
    mo_value_id wanted[3] = { ints("before", 1, (int64_t[]){ 1 }), batch, ints("behind", 1, (int64_t[]){ 3 }) };
    mo_value_id sizes = node("Concat", wanted[0], wanted[1], wanted[2]);
    ck_assert(mo_node_set_int(g, last, "axis", 0));
    mo_value_id state = _i ? node("Expand", number("half", 0.5f), sizes, MO_NONE)
                           : node("ConstantOfShape", sizes, MO_NONE, MO_NONE);
    mo_value_id in[6] = { x, weight("w", 3, 1, 9, 2, 0), weight("r", 3, 1, 9, 3, 0), MO_NONE, MO_NONE, state };
    mo_value_id y = mo_graph_add_value(g, "y", MO_F32, NULL);
    g->values[y].shape.rank = MO_UNKNOWN;
    mo_node_id gru = mo_graph_add_node(g, "GRU", NULL, NULL, in, 6, &y, 1);
    ck_assert(mo_node_set_int(g, gru, "hidden_size", 3));
    ck_assert_int_eq(simplify("drop-zero-states", y), !_i);
}
END_TEST

START_TEST(computed_terms_go_into_gemm)
{
    mo_value_id x = input("x", 2, 2, 4, 0, 0), z = input("z", 2, 2, 3, 0, 0);
    mo_value_id a = node("MatMul", x, weight("w", 2, 4, 5, 0, 0), MO_NONE);
    mo_value_id b = node("MatMul", z, weight("v", 2, 3, 5, 0, 0), MO_NONE);
    mo_value_id y = node("Add", node("Add", a, b, MO_NONE), weight("c", 1, 5, 0, 0, 0), MO_NONE);
    ck_assert_int_eq(simplify("add-in-gemm", y), 3);
    ck_assert_uint_eq(g->n_nodes, 2);
    ck_assert_uint_eq(count("Gemm"), 2);
}
END_TEST

START_TEST(terms_that_gemm_cannot_widen_stay)
{
    mo_value_id x = input("x", 2, 1, 4, 0, 0), z = input("z", 2, 3, 5, 0, 0);       /* 3 rows onto one */
    mo_value_id y = node("MatMul", x, weight("w", 2, 4, 5, 0, 0), MO_NONE);
    ck_assert_int_eq(simplify("add-in-gemm", node("Add", y, z, MO_NONE)), 0);
}
END_TEST

START_TEST(nodes_with_equal_fresh_weights_are_merged)
{
    mo_value_id x = input("x", 2, 2, 3, 0, 0);
    mo_value_id y = node("Add", x, halves("a"), MO_NONE), z = node("Add", x, halves("b"), MO_NONE);
    ck_assert_int_eq(simplify("merge-nodes", node("Mul", y, z, MO_NONE)), 1);
    ck_assert_uint_eq(count("Add"), 1);
}
END_TEST

/* mean, deviation, square by Pow or Mul, root, quotient, and by _i a scale and a shift */
START_TEST(layer_normalization_is_composed)
{
    mo_value_id x = node("Relu", input("x", 3, MO_UNKNOWN, 4, 6, 0), MO_NONE, MO_NONE);
    mo_value_id mean = node_ints("ReduceMean", x, "axes", 1, (int64_t[]){ -1 });
    mo_value_id d = node("Sub", x, mean, MO_NONE);
    mo_value_id square = _i % 2 ? node("Mul", d, d, MO_NONE) : node("Pow", d, number("two", 2), MO_NONE);
    mo_value_id var = node("Add", node_ints("ReduceMean", square, "axes", 1, (int64_t[]){ 2 }), number("e", 1e-3f), MO_NONE);
    mo_value_id y = node("Div", d, node("Sqrt", var, MO_NONE, MO_NONE), MO_NONE);
    if (_i >= 2)
        y = node("Mul", weight("w", 1, 6, 0, 0, 0), y, MO_NONE);
    if (_i >= 4)
        y = node("Add", y, weight("b", 1, 6, 0, 0, 0), MO_NONE);
    ck_assert_int_eq(simplify("compose", y), 1);
    ck_assert_uint_eq(g->n_nodes, 2);
    ck_assert_uint_eq(count("LayerNormalization"), 1);
}
END_TEST

START_TEST(what_is_read_between_is_not_composed)
{
    mo_value_id x = input("x", 2, 4, 6, 0, 0);
    mo_value_id d = node("Sub", x, node_ints("ReduceMean", x, "axes", 1, (int64_t[]){ _i ? 0 : 1 }), MO_NONE);
    mo_value_id var = node_ints("ReduceMean", node("Mul", d, d, MO_NONE), "axes", 1, (int64_t[]){ _i ? 0 : 1 });
    mo_value_id y = node("Div", d, node("Sqrt", node("Add", var, number("e", 1e-3f), MO_NONE), MO_NONE, MO_NONE), MO_NONE);
    /* 0: the deviation is read once more; 1: over the first axis */
    ck_assert_int_eq(simplify("compose", _i ? y : node("Add", y, d, MO_NONE)), 0);
}
END_TEST

START_TEST(gelu_is_composed)
{
    ck_assert(mo_model_set_opset(m, "", 20));
    mo_value_id x = node("Relu", input("x", 2, 2, 3, 0, 0), MO_NONE, MO_NONE);
    mo_value_id u = _i % 2 ? node("Mul", x, number("r", 0.70710678f), MO_NONE)
                           : node("Div", x, number("r", 1.41421356f), MO_NONE);
    mo_value_id e = node("Add", node("Erf", u, MO_NONE, MO_NONE), number("one", 1), MO_NONE);
    mo_value_id y = _i == 4 ? node("Mul", x, node("Mul", number("h", 0.5f), e, MO_NONE), MO_NONE)
                  : _i >= 2 ? node("Mul", node("Mul", x, number("h", 0.5f), MO_NONE), e, MO_NONE)
                            : node("Mul", node("Mul", x, e, MO_NONE), number("h", 0.5f), MO_NONE);
    ck_assert_int_eq(simplify("compose", y), 1);
    ck_assert_uint_eq(count("Gelu"), 1);
    ck_assert_uint_eq(g->n_nodes, 2);
}
END_TEST

/* _i: the cube as a power or as products; what is multiplied first; a wrong constant. */
START_TEST(gelu_of_tanh_is_composed)
{
    ck_assert(mo_model_set_opset(m, "", 20));
    mo_value_id x = node("Relu", input("x", 2, 2, 3, 0, 0), MO_NONE, MO_NONE);
    mo_value_id cube = _i % 2 ? node("Pow", x, number("three", 3), MO_NONE)
                              : node("Mul", x, node("Mul", x, x, MO_NONE), MO_NONE);
    mo_value_id sum = node("Add", x, node("Mul", number("c", _i == 4 ? 0.05f : 0.044715f), cube, MO_NONE), MO_NONE);
    mo_value_id t = node("Tanh", node("Mul", sum, number("r", 0.79788456f), MO_NONE), MO_NONE, MO_NONE);
    mo_value_id e = node("Add", number("one", 1), t, MO_NONE);
    mo_value_id y = _i >= 2 ? node("Mul", x, node("Mul", number("h", 0.5f), e, MO_NONE), MO_NONE)
                            : node("Mul", node("Mul", x, e, MO_NONE), number("h", 0.5f), MO_NONE);
    ck_assert_int_eq(simplify("compose", y), _i < 4);
    ck_assert_uint_eq(count("Gelu"), _i < 4);
    if (_i < 4)
        ck_assert_str_eq(mo_node_text(&g->nodes[g->n_nodes - 1], "approximate", ""), "tanh");
}
END_TEST

/* x / 2 (1 + tanh(r x (1 + c x x))), as transformers' gelu_fast; _i: the order of the factors; 4: x squared is not of x. */
START_TEST(gelu_of_tanh_is_composed_in_any_order)
{
    ck_assert(mo_model_set_opset(m, "", 20));
    mo_value_id x = node("Relu", input("x", 2, 2, 3, 0, 0), MO_NONE, MO_NONE);
    mo_value_id z = _i == 4 ? node("Exp", x, MO_NONE, MO_NONE) : x;
    mo_value_id cx = node("Mul", x, number("c", 0.044715f), MO_NONE);
    mo_value_id term = _i == 3 ? node("Mul", number("d", 0.044715f), node("Pow", x, number("two", 2), MO_NONE), MO_NONE)
                               : node("Mul", cx, z, MO_NONE);
    mo_value_id sum = node("Add", number("one", 1), term, MO_NONE), r = number("r", 0.79788456f);
    mo_value_id inner = _i == 0 ? node("Mul", node("Mul", x, r, MO_NONE), sum, MO_NONE)
                      : _i == 1 ? node("Mul", r, node("Mul", sum, x, MO_NONE), MO_NONE)
                                : node("Mul", x, node("Mul", sum, r, MO_NONE), MO_NONE);
    mo_value_id e = node("Add", number("one", 1), node("Tanh", inner, MO_NONE, MO_NONE), MO_NONE);
    mo_value_id y = node("Mul", node("Mul", number("h", 0.5f), x, MO_NONE), e, MO_NONE);
    ck_assert_int_eq(simplify("compose", y), _i < 4);
    ck_assert_uint_eq(count("Gelu"), _i < 4);
}
END_TEST

/* _i: by Div, by Reciprocal, by 1 / x; without a weight. 4: in an opset that has none. */
START_TEST(rms_normalization_is_composed)
{
    ck_assert(mo_model_set_opset(m, "", _i == 4 ? 17 : 23));
    mo_value_id x = node("Exp", input("x", 2, 4, 6, 0, 0), MO_NONE, MO_NONE);
    mo_value_id axis = ints("axis", 1, (int64_t[]){ -1 });
    mo_value_id square = node("Pow", x, number("two", 2), MO_NONE);
    mo_value_id mean = _i == 4 ? node_ints("ReduceMean", square, "axes", 1, (int64_t[]){ -1 })
                               : node("ReduceMean", square, axis, MO_NONE);
    mo_value_id root = node("Sqrt", node("Add", mean, number("e", 1e-3f), MO_NONE), MO_NONE, MO_NONE);
    mo_value_id y = _i == 1 ? node("Mul", x, node("Reciprocal", root, MO_NONE, MO_NONE), MO_NONE)
                  : _i == 2 ? node("Mul", node("Div", number("one", 1), root, MO_NONE), x, MO_NONE)
                            : node("Div", x, root, MO_NONE);
    if (_i != 3)
        y = node("Mul", weight("w", 1, 6, 0, 0, 0), y, MO_NONE);
    ck_assert_int_eq(simplify("compose", y), _i < 4);
    ck_assert_uint_eq(count("RMSNormalization"), _i < 4);
    ck_assert(_i == 4 || g->n_nodes == 2);
}
END_TEST

START_TEST(hard_swish_is_composed)
{
    mo_value_id x = node("Exp", input("x", 2, 2, 3, 0, 0), MO_NONE, MO_NONE);
    mo_value_id clip = node("Clip", node("Add", x, number("three", 3), MO_NONE), number("zero", 0), number("six", 6));
    mo_value_id gate = _i ? node("Mul", number("sixth", 1 / 6.0f), clip, MO_NONE) : node("Div", clip, number("by", 6), MO_NONE);
    ck_assert_int_ge(simplify("compose", node("Mul", x, gate, MO_NONE)), 2);
    ck_assert_uint_eq(g->n_nodes, 2);
    ck_assert_uint_eq(count("HardSwish"), 1);
}
END_TEST

/* softmax(scale Q K^T + mask) V. _i: 0 without mask; 1 scale at Q and a mask with one row for all; 2 scale at K, before its
 * Transpose; 3 three axes; 4 the guard against NaN; 5 K swapped through three axes; 6 an older opset, 7 scores read elsewhere
 * too, 8 a batch of K that is repeated, 9 a mask of unknown rows: left alone. */
START_TEST(attention_is_recognized)
{
    ck_assert(mo_model_set_opset(m, "", _i == 6 ? 22 : 23));
    int rank = _i == 3 ? 3 : 4;
    mo_value_id q = _i == 3 ? input("q", 3, 6, 5, 4, 0) : input("q", 4, 2, 3, 5, 4);
    mo_value_id k = _i == 3 ? input("k", 3, 6, 7, 4, 0) : _i == 2 ? input("k", 4, 2, 7, 3, 4) : input("k", 4, _i == 8 ? 1 : 2, 3, 7, 4);
    mo_value_id v = _i == 3 ? input("v", 3, 6, 7, 2, 0) : input("v", 4, 2, 3, 7, 2);
    if (_i == 1)
        q = node("Mul", q, number("s", 0.5f), MO_NONE);
    if (_i == 2)
        k = node("Div", k, number("s", 2), MO_NONE);
    if (_i == 5) {
        k = node("Reshape", k, ints("flat", 3, (const int64_t[]){ 6, 7, 4 }), MO_NONE);
        k = node("Transpose", k, MO_NONE, MO_NONE);
        ck_assert(mo_node_set_ints(g, last, "perm", (const int64_t[]){ 0, 2, 1 }, 3));
        k = node("Reshape", k, ints("back", 4, (const int64_t[]){ 2, 3, 4, 7 }), MO_NONE);
    } else {
        const int64_t perm[][4] = { { 0, 1, 3, 2 }, { 0, 2, 3, 1 }, { 0, 2, 1, 0 } };
        k = node("Transpose", k, MO_NONE, MO_NONE);
        ck_assert(mo_node_set_ints(g, last, "perm", perm[_i == 2 ? 1 : _i == 3 ? 2 : 0], (size_t)rank));
    }
    mo_value_id s = node("MatMul", q, k, MO_NONE), more = s;
    if (_i == 1 || _i == 9)
        s = node("Add", input("mask", 4, 2, 1, _i == 9 ? MO_UNKNOWN : 1, 7), s, MO_NONE);
    mo_value_id p = node("Softmax", s, MO_NONE, MO_NONE);
    if (_i == 4)
        p = node("Where", node("IsNaN", p, MO_NONE, MO_NONE), number("zero", 0), p);
    mo_value_id y = node("MatMul", p, v, MO_NONE);
    if (_i == 7)
        ck_assert(mo_graph_add_output(g, more));
    ck_assert_int_eq(simplify("attention", y), _i < 6);
    ck_assert_uint_eq(count("Attention"), _i < 6);
    ck_assert_uint_eq(count("Softmax"), _i >= 6);
    ck_assert_uint_eq(count("Expand"), _i == 1);
    ck_assert_uint_eq(count("Transpose"), _i == 2 || _i >= 6);
}
END_TEST

START_TEST(older_opsets_keep_the_parts)
{
    ck_assert(mo_model_set_opset(m, "", 13));
    mo_value_id x = node("Exp", input("x", 2, 2, 3, 0, 0), MO_NONE, MO_NONE);
    mo_value_id y = node("Mul", x, node("HardSigmoid", x, MO_NONE, MO_NONE), MO_NONE);
    ck_assert(mo_node_set_float(g, last - 1, "alpha", 1 / 6.0f));
    ck_assert_int_eq(simplify("compose", y), 0);
}
END_TEST

/* Each of them is taken out by a walk of its own, which may not be one over the whole graph. */
START_TEST(long_chains_take_no_square_of_their_length)
{
    mo_value_id y = input("x", 2, 2, 3, 0, 0);
    struct mo_shape shape = g->values[y].shape;
    for (int i = 0; i < 30000; i++) {
        mo_value_id next = mo_graph_new_value(g, mo_arena_printf(g->arena, "v%d", i));
        ck_assert_uint_ne(mo_graph_add_node(g, "Relu", NULL, NULL, &y, 1, &next, 1), MO_NONE);
        g->values[next].shape = shape;
        y = next;
    }
    clock_t start = clock();
    ck_assert_int_eq(simplify("drop-identity", y), 29999);
    ck_assert_uint_eq(g->n_nodes, 1);
    ck_assert_msg(clock() - start < 5 * CLOCKS_PER_SEC, "%g s", (double)(clock() - start) / CLOCKS_PER_SEC);
}
END_TEST

START_TEST(folding_stops_at_its_limit)
{
    mo_value_id shape = ints("shape", 1, (int64_t[]){ 200000 });
    mo_value_id filled = node("ConstantOfShape", shape, MO_NONE, MO_NONE);      /* 0.8 MB */
    mo_value_id y = node("Add", filled, input("x", 1, 1, 0, 0, 0), MO_NONE);
    limit = _i == 2 ? NULL : _i ? "1" : "0.5";      /* 2: the least that is allowed by default */
    ck_assert_int_eq(simplify("fold-constants", y), _i > 0);
}
END_TEST

START_TEST(overridable_weights_are_no_constants)
{
    mo_value_id x = input("x", 2, 2, 3, 0, 0), w = weight("w", 2, 2, 3, 0, 0);
    ck_assert(mo_graph_add_input(g, w));
    mo_value_id y = node("Add", x, node("Exp", w, MO_NONE, MO_NONE), MO_NONE);
    ck_assert_int_eq(simplify("fold-constants", y), 0);
    ck_assert_uint_eq(g->n_inputs, 2);
    ck_assert_ptr_nonnull(g->values[w].data);
    ck_assert_int_eq(simplify(NULL, y), 3);     /* freed, folded, then read by nobody; y is an output twice now */
    ck_assert_uint_eq(g->n_inputs, 1);
}
END_TEST

START_TEST(unknown_nodes_are_kept)
{
    mo_value_id x = input("x", 2, 2, 3, 0, 0);
    mo_value_id in[1] = { x }, unread = mo_graph_add_value(g, "unread", MO_F32, NULL);
    mo_graph_add_node(g, "Mystery", "far.away", NULL, in, 1, &unread, 1);
    mo_graph_add_node(g, "Relu", NULL, NULL, in, 1, &(mo_value_id){ mo_graph_add_value(g, "r", MO_F32, NULL) }, 1);
    mo_value_id y = node("Sigmoid", x, MO_NONE, MO_NONE);
    ck_assert(mo_graph_add_output(g, y));
    ck_assert(!mo_graph_sort(ctx, g));
    struct mopt_recipe *recipe;
    ck_assert(!mopt_recipe_new(ctx, &recipe) && !mopt_recipe_add(ctx, recipe, "simplify"));
    ck_assert(!mopt_recipe_set(ctx, recipe, "measure", "0"));
    ck_assert_msg(!mopt_apply(ctx, recipe, m, NULL, 0, NULL), "%s", mopt_error(ctx));
    ck_assert_uint_eq(g->n_nodes, 2);
    ck_assert_str_eq(g->nodes[0].type, "Mystery");
    mopt_recipe_free(recipe);
}
END_TEST

/* A list as output: its tensors may differ by what folding rounds, as any other output may. */
START_TEST(lists_are_compared_item_by_item)
{
    mo_value_id x = input("x", 4, 1, 2, 6, 6);
    mo_value_id y = batch_norm(node("Conv", x, weight("w", 4, 3, 2, 3, 3), MO_NONE), 3);
    ck_assert(mo_graph_add_output(g, node("SequenceConstruct", y, node("Relu", y, MO_NONE, MO_NONE), MO_NONE)));
    ck_assert(!mo_graph_sort(ctx, g));
    struct mopt_recipe *recipe;
    ck_assert(!mopt_recipe_new(ctx, &recipe) && !mopt_recipe_add(ctx, recipe, "simplify"));
    ck_assert_msg(!mopt_apply(ctx, recipe, m, NULL, 0, NULL), "%s", mopt_error(ctx));
    ck_assert_uint_eq(g->n_nodes, 3);
    mopt_recipe_free(recipe);
}
END_TEST

START_TEST(a_dry_run_changes_nothing)
{
    mo_value_id x = input("x", 4, 1, 2, 6, 6);
    mo_value_id y = batch_norm(node("Conv", x, weight("w", 4, 3, 2, 3, 3), MO_NONE), 3);
    ck_assert(mo_graph_add_output(g, y));
    struct mopt_recipe *recipe;
    struct mopt_report *report;
    ck_assert(!mopt_recipe_new(ctx, &recipe) && !mopt_recipe_add(ctx, recipe, "simplify"));
    ck_assert(!mopt_recipe_set(ctx, recipe, "dry-run", "true"));
    ck_assert_msg(!mopt_apply(ctx, recipe, m, NULL, 0, &report), "%s", mopt_error(ctx));
    ck_assert_int_eq(mopt_report_int(mopt_report_at(report, "nodes_after"), 0), 1);
    ck_assert_uint_eq(g->n_nodes, 2);
    mopt_report_free(report);
    mopt_recipe_free(recipe);
}
END_TEST

Suite *suite_simplify(void);
Suite *suite_simplify(void)
{
    Suite *s = suite_create("simplify");
    TCase *t = tcase_create("simplify");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, constants_are_folded);
    tcase_add_test(t, batchnorm_goes_into_conv);
    tcase_add_test(t, batchnorm_stays_behind_a_shared_conv);
    tcase_add_test(t, batchnorm_stays_behind_a_shared_weight);
    tcase_add_test(t, batchnorm_goes_into_transposed_conv_and_gemm);
    tcase_add_loop_test(t, arithmetic_goes_into_conv, 0, 8);
    tcase_add_test(t, arithmetic_over_width_stays);
    tcase_add_test(t, matmul_and_add_become_gemm);
    tcase_add_test(t, products_of_more_axes_stay);
    tcase_add_test(t, factors_of_gemm_go_into_constants);
    tcase_add_test(t, identities_are_dropped);
    tcase_add_test(t, what_only_looks_like_identity_stays);
    tcase_add_test(t, an_input_that_is_output_keeps_its_node);
    tcase_add_test(t, transposes_cancel);
    tcase_add_test(t, transposes_cancel_around_others);
    tcase_add_loop_test(t, transposes_around_resize, 0, 2);
    tcase_add_test(t, other_transposes_become_one);
    tcase_add_test(t, computed_targets_become_constants);
    tcase_add_test(t, computed_targets_of_the_same_tensor_become_constants);
    tcase_add_test(t, equal_things_are_merged);
    tcase_add_test(t, fresh_weights_are_not_tied);
    tcase_add_test(t, zero_pads_go_into_conv);
    tcase_add_loop_test(t, zero_pads_go_into_a_mean_that_counts_them, 0, 2);
    tcase_add_loop_test(t, zero_pads_stay_before_a_maximum, 0, 2);
    tcase_add_test(t, arithmetic_goes_into_batchnorm);
    tcase_add_test(t, reshapes_in_a_row_become_one);
    tcase_add_test(t, a_reshape_that_is_undone_is_none);
    tcase_add_test(t, a_transpose_that_mixes_axes_is_no_reshape);
    tcase_add_test(t, a_split_in_one_piece_is_dropped);
    tcase_add_test(t, neutral_rows_are_dropped);
    tcase_add_loop_test(t, squeezes_behind_a_reduce_become_keepdims, 0, 2);
    tcase_add_test(t, an_axis_elsewhere_is_no_keepdims);
    tcase_add_loop_test(t, first_states_of_zero_are_dropped, 0, 2);
    tcase_add_test(t, computed_terms_go_into_gemm);
    tcase_add_test(t, terms_that_gemm_cannot_widen_stay);
    tcase_add_test(t, nodes_with_equal_fresh_weights_are_merged);
    tcase_add_loop_test(t, layer_normalization_is_composed, 0, 6);
    tcase_add_loop_test(t, what_is_read_between_is_not_composed, 0, 2);
    tcase_add_loop_test(t, gelu_is_composed, 0, 5);
    tcase_add_loop_test(t, attention_is_recognized, 0, 10);
    tcase_add_loop_test(t, gelu_of_tanh_is_composed, 0, 5);
    tcase_add_loop_test(t, gelu_of_tanh_is_composed_in_any_order, 0, 5);
    tcase_add_loop_test(t, rms_normalization_is_composed, 0, 5);
    tcase_add_loop_test(t, hard_swish_is_composed, 0, 2);
    tcase_add_test(t, older_opsets_keep_the_parts);
    tcase_add_test(t, long_chains_take_no_square_of_their_length);
    tcase_add_loop_test(t, folding_stops_at_its_limit, 0, 3);
    tcase_add_test(t, overridable_weights_are_no_constants);
    tcase_add_test(t, unknown_nodes_are_kept);
    tcase_add_test(t, lists_are_compared_item_by_item);
    tcase_add_test(t, a_dry_run_changes_nothing);
    suite_add_tcase(s, t);
    return s;
}
