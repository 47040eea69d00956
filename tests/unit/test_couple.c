/* Channels: hand-built graphs, which groups they have, and that what is cut out
 * leaves a model that computes the same when the channels were zero. */
#include <check.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/graph/couple_solve.h"
#include "lib/graph/op.h"
#include "lib/run/run.h"

enum { FREE_DIM = 8, MAX_OUT = 4096 };

static struct mopt_ctx *ctx;
static struct mopt_model *model;
static struct mo_graph *g;
static struct mo_channels *ch;

static void setup(void)
{
    ctx = mopt_open("cpu", 1);
    model = mo_model_new();
    ck_assert(ctx && model);
    ck_assert(mo_model_set_opset(model, "", 17));
    g = &model->graph;
    ch = NULL;
}

static void teardown(void)
{
    mo_channels_free(ch);
    mopt_model_free(model);
    mopt_close(ctx);
}

#define OK(call) ck_assert_msg(!(call), "%s", mopt_error(ctx))

/* ---- building ----------------------------------------------------------------- */

static mo_value_id input(const char *name, struct mo_shape s)
{
    mo_value_id v = mo_graph_add_value(g, name, MO_F32, &s);
    ck_assert_uint_ne(v, MO_NONE);
    ck_assert(mo_graph_add_input(g, v));
    return v;
}

static mo_value_id weight(const char *name, struct mo_shape s)
{
    size_t n = (size_t)mo_shape_elems(&s);
    float *x = mo_mem_new(n + 1, sizeof(*x));
    struct mo_rng rng = mo_rng_new(5, MO_RNG_TEST, mo_hash64(name, strlen(name), 0) & 0xffff);
    for (size_t i = 0; i < n; i++)
        x[i] = mo_rng_normal(&rng) * 0.3f;
    mo_value_id v = mo_graph_add_const(g, name, MO_F32, &s, x);
    mo_mem_free(x);
    ck_assert_uint_ne(v, MO_NONE);
    return v;
}

static mo_value_id ints(const char *name, int n, ...)
{
    int64_t x[16];
    va_list args;
    va_start(args, n);
    for (int i = 0; i < n; i++)
        x[i] = va_arg(args, int);
    va_end(args);
    struct mo_shape s = mo_shape_of(1, (int64_t)n);
    return mo_graph_add_const(g, name, MO_I64, &s, x);
}

static mo_value_id value(const char *name)
{
    struct mo_shape s = { .rank = MO_UNKNOWN };
    return mo_graph_add_value(g, name, MO_F32, &s);
}

/* A node with one output called as the node; inputs up to MO_NONE - 1 given as a count. */
static mo_value_id node(const char *type, const char *name, int n, ...)
{
    mo_value_id in[8], out = value(name);
    va_list args;
    va_start(args, n);
    for (int i = 0; i < n; i++)
        in[i] = va_arg(args, mo_value_id);
    va_end(args);
    ck_assert_uint_ne(mo_graph_add_node(g, type, NULL, name, in, (uint32_t)n, &out, 1), MO_NONE);
    return out;
}

static void attr_int(const char *name, int64_t i)
{
    ck_assert(mo_node_set_int(g, g->n_nodes - 1, name, i));
}

static void attr_ints(const char *name, int n, ...)
{
    int64_t x[16];
    va_list args;
    va_start(args, n);
    for (int i = 0; i < n; i++)
        x[i] = va_arg(args, int);
    va_end(args);
    ck_assert(mo_node_set_ints(g, g->n_nodes - 1, name, x, (size_t)n));
}

static mo_value_id conv(const char *name, mo_value_id x, int n_out, int n_in, int k, int groups)
{
    char w[64], b[64];
    snprintf(w, sizeof(w), "%s.w", name);
    snprintf(b, sizeof(b), "%s.b", name);
    mo_value_id y = node("Conv", name, 3, x, weight(w, mo_shape_of(4, (int64_t)n_out, (int64_t)(n_in / groups), (int64_t)k,
                                                                   (int64_t)k)),
                         weight(b, mo_shape_of(1, (int64_t)n_out)));
    attr_ints("kernel_shape", 2, k, k);
    attr_ints("pads", 4, k / 2, k / 2, k / 2, k / 2);
    attr_int("group", groups);
    return y;
}

static mo_value_id gemm(const char *name, mo_value_id x, int n_out, int n_in)
{
    char w[64], b[64];
    snprintf(w, sizeof(w), "%s.w", name);
    snprintf(b, sizeof(b), "%s.b", name);
    mo_value_id y = node("Gemm", name, 3, x, weight(w, mo_shape_of(2, (int64_t)n_out, (int64_t)n_in)),
                         weight(b, mo_shape_of(1, (int64_t)n_out)));
    attr_int("transB", 1);
    return y;
}

static mo_value_id head(mo_value_id x, int n_in)
{
    mo_value_id y = gemm("head", node("Flatten", "flat", 1, node("GlobalAveragePool", "gap", 1, x)), 5, n_in);
    ck_assert(mo_graph_add_output(g, y));
    return y;
}

static void solve(void)
{
    OK(mo_graph_index(ctx, g));
    OK(mo_infer_sample(ctx, g, FREE_DIM));
    OK(mo_channels_new(ctx, g, &ch));
    OK(mo_channels_verify(ctx, ch, g, FREE_DIM));
}

/* The group whose channels node `name` makes first. */
static const struct mo_channel_group *group_of(const char *name)
{
    for (uint32_t i = 0; i < ch->n_groups; i++)
        if (!strcmp(ch->groups[i].name, name))
            return &ch->groups[i];
    ck_abort_msg("no group '%s'", name);
    return NULL;
}

static void expect_free(const char *name, uint32_t n_classes)
{
    const struct mo_channel_group *group = group_of(name);
    ck_assert_msg(!group->wall, "'%s': %s", name, group->why);
    ck_assert_uint_eq(group->n_classes, n_classes);
}

static void expect_wall(const char *name, const char *words)
{
    const struct mo_channel_group *group = group_of(name);
    ck_assert_msg(group->wall != NULL, "'%s' is free", name);
    ck_assert_msg(strstr(group->why, words) != NULL, "'%s': %s", name, group->why);
}

/* Elements of a value's axis in the first class of a group. */
static uint32_t members_on(const char *group_name, const char *value_name, int axis)
{
    const struct mo_channel_class *class = &ch->classes[group_of(group_name)->first];
    uint32_t n = 0;
    for (uint32_t i = 0; i < class->n_members; i++) {
        const struct mo_couple_axis *a = &ch->axes[ch->members[class->first + i].axis];
        n += !strcmp(g->values[a->value].name, value_name) && a->axis == axis;
    }
    return n;
}

static void expect_shape(const char *value_name, const char *text)
{
    char buf[96];
    mo_value_id v = mo_graph_find(g, value_name);
    ck_assert_uint_ne(v, MO_NONE);
    ck_assert_str_eq(mo_shape_text(&g->values[v].shape, buf, sizeof(buf)), text);
}

/* ---- running and cutting ----------------------------------------------------------- */

static size_t run_model(float *out)
{
    struct mo_run *run;
    struct mo_run_options options = { .reference = true };
    OK(mo_run_new(ctx, g, &options, &run));
    struct mo_shape shapes[4];
    uint32_t n = mo_run_n_inputs(run);
    ck_assert_uint_le(n, 4);
    for (uint32_t i = 0; i < n; i++)
        shapes[i] = mo_run_input(run, i)->shape;
    OK(mo_run_shape(run, shapes, n));
    for (uint32_t i = 0; i < n; i++) {
        size_t n_elems = (size_t)mo_shape_elems(&shapes[i]);
        float *x = mo_mem_new(n_elems, sizeof(*x));
        struct mo_rng rng = mo_rng_new(9, MO_RNG_TEST, i);
        for (size_t k = 0; k < n_elems; k++)
            x[k] = mo_rng_normal(&rng);
        OK(mo_run_set_input(run, i, x, n_elems * sizeof(*x)));
        mo_mem_free(x);
    }
    OK(mo_run_forward(run));
    size_t n_out = (size_t)mo_value_elems(mo_run_output(run, 0));
    ck_assert_uint_le(n_out, MAX_OUT);
    OK(mo_run_get_output(run, 0, out, n_out * sizeof(*out)));
    mo_run_free(run);
    return n_out;
}

/* What makes these classes becomes zero. */
static void silence(const bool *is_cut)
{
    for (uint32_t w = 0; w < ch->n_weights; w++) {
        const struct mo_couple_weight_row *row = &ch->weights[w];
        if (row->role == MO_ROLE_IN)
            continue;
        struct mo_value *v = &g->values[row->value];
        struct mo_shape s = v->shape;
        int axis = ch->axes[row->axis].axis;
        size_t bytes = mo_value_bytes(v), outer = 1, inner = 1;
        float *x = mo_mem_new(1, bytes);
        memcpy(x, v->data, bytes);
        for (int k = 0; k < axis; k++)
            outer *= (size_t)s.dim[k];
        for (int k = axis + 1; k < s.rank; k++)
            inner *= (size_t)s.dim[k];
        for (uint32_t c = 0; c < ch->n_classes; c++)
            for (uint32_t i = 0; is_cut[c] && i < ch->classes[c].n_members; i++) {
                const struct mo_couple_member *m = &ch->members[ch->classes[c].first + i];
                for (size_t o = 0; m->axis == row->axis && o < outer; o++)
                    memset(x + (o * (size_t)s.dim[axis] + m->index) * inner, 0, inner * sizeof(*x));
            }
        mo_value_set_data(g, row->value, MO_F32, &s, x);
    }
}

/* Cuts every `stride`-th class of each free group and compares outputs with those before, channels being zero. */
static void cut_and_compare(uint32_t stride)
{
    static float before[MAX_OUT], after[MAX_OUT];
    bool *is_cut = mo_mem_new(ch->n_classes + 1, sizeof(*is_cut));
    uint32_t n_cut = 0;
    for (uint32_t k = 0; k < ch->n_groups; k++)
        for (uint32_t i = 0; !ch->groups[k].wall && i + 1 < ch->groups[k].n_classes; i += stride, n_cut++)
            is_cut[ch->groups[k].first + i] = true;
    ck_assert_uint_gt(n_cut, 0);
    silence(is_cut);
    size_t n = run_model(before);
    OK(mo_infer_sample(ctx, g, FREE_DIM));
    OK(mo_channels_cut(ctx, ch, is_cut, g, FREE_DIM, MO_CUT_DATA));
    OK(mo_infer(ctx, g, NULL, 0));
    OK(mo_graph_index(ctx, g));
    OK(mo_graph_check(ctx, g));
    ck_assert_uint_eq(run_model(after), n);
    double norm = 0;
    for (size_t i = 0; i < n; i++)
        norm += fabs((double)before[i]);
    ck_assert_double_gt(norm, 1e-3);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(fabsf(before[i] - after[i]) <= 1e-5f, "output %zu: %g, was %g", i, (double)after[i],
                      (double)before[i]);
    mo_mem_free(is_cut);
}

/* ---- graphs ---------------------------------------------------------------------------- */

START_TEST(chain)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    x = node("Relu", "r1", 1, conv("c1", x, 8, 3, 3, 1));
    head(node("Relu", "r2", 1, conv("c2", x, 12, 8, 3, 1)), 12);
    solve();
    expect_free("c1", 8);
    expect_free("c2", 12);
    expect_wall("head", "output of the model");
    ck_assert_uint_eq(members_on("c1", "c2.w", 1), 1);
    ck_assert_uint_eq(members_on("c1", "c1.b", 0), 1);
    ck_assert_uint_eq(members_on("c1", "c2.w", 0), 0);
    cut_and_compare(2);
    expect_shape("c1.w", "4x3x3x3");
    expect_shape("c2.w", "6x4x3x3");
    expect_shape("head.w", "5x6");
}
END_TEST

START_TEST(flatten_spreads)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)2, (int64_t)4, (int64_t)4));
    x = node("Flatten", "flat", 1, node("Relu", "r", 1, conv("c1", x, 6, 2, 3, 1)));
    ck_assert(mo_graph_add_output(g, gemm("out", node("Relu", "r2", 1, gemm("fc", x, 7, 96)), 3, 7)));
    solve();
    expect_free("c1", 6);
    expect_free("fc", 7);
    ck_assert_uint_eq(members_on("c1", "fc.w", 1), 16);
    cut_and_compare(3);
    expect_shape("fc.w", "5x64");
}
END_TEST

START_TEST(reshape_flattens)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)2, (int64_t)4, (int64_t)4));
    x = node("Reshape", "flat", 2, node("Relu", "r", 1, conv("c1", x, 6, 2, 3, 1)), ints("shape", 2, 1, 96));
    ck_assert(mo_graph_add_output(g, gemm("fc", x, 3, 96)));
    solve();
    expect_free("c1", 6);
    cut_and_compare(2);
    expect_shape("fc.w", "3x48");
    expect_shape("flat", "1x48");
}
END_TEST

START_TEST(residual_ties)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    mo_value_id a = conv("stem", x, 8, 3, 3, 1);
    mo_value_id b = conv("b2", node("Relu", "r1", 1, conv("b1", a, 4, 8, 3, 1)), 8, 4, 3, 1);
    head(node("Relu", "r2", 1, node("Add", "sum", 2, a, b)), 8);
    solve();
    expect_free("stem", 8);
    expect_free("b1", 4);
    ck_assert_uint_eq(members_on("stem", "b2.w", 0), 1);
    ck_assert_uint_eq(members_on("stem", "b1.w", 1), 1);
    ck_assert_uint_eq(members_on("stem", "head.w", 1), 1);
    cut_and_compare(2);
    expect_shape("b2.w", "4x2x3x3");
}
END_TEST

START_TEST(residual_to_input_is_a_wall)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    head(node("Add", "sum", 2, x, conv("c1", x, 3, 3, 3, 1)), 3);
    solve();
    expect_wall("c1", "input of the model");
}
END_TEST

START_TEST(concat_offsets)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    mo_value_id a = conv("a", x, 4, 3, 3, 1), b = conv("b", x, 6, 3, 1, 1);
    mo_value_id y = node("Concat", "cat", 2, a, b);
    attr_int("axis", 1);
    head(conv("c", y, 5, 10, 3, 1), 5);
    solve();
    expect_free("a", 4);
    expect_free("b", 6);
    cut_and_compare(2);
    expect_shape("c.w", "3x5x3x3");
    expect_shape("cat", "1x5x6x6");
}
END_TEST

/* DenseNet: each layer reads the concatenation of all before. */
START_TEST(dense_block)
{
    mo_value_id x = conv("c0", input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6)), 4, 3, 3, 1);
    mo_value_id y = conv("c1", x, 6, 4, 3, 1);
    mo_value_id cat = node("Concat", "cat1", 2, x, y);
    attr_int("axis", 1);
    mo_value_id z = conv("c2", cat, 6, 10, 3, 1);
    cat = node("Concat", "cat2", 2, cat, z);
    attr_int("axis", 1);
    head(cat, 16);
    solve();
    expect_free("c0", 4);
    expect_free("c1", 6);
    expect_free("c2", 6);
    cut_and_compare(3);
    expect_shape("head.w", "5x11");
}
END_TEST

static void split_graph(bool has_sizes)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    mo_value_id in[2] = { conv("c1", x, 8, 3, 3, 1), MO_NONE }, out[2] = { value("s0"), value("s1") };
    if (has_sizes)
        in[1] = ints("sizes", 2, 4, 4);
    ck_assert_uint_ne(mo_graph_add_node(g, "Split", NULL, "split", in, has_sizes ? 2 : 1, out, 2), MO_NONE);
    attr_int("axis", 1);
    mo_value_id a = conv("a", out[0], 4, 4, 3, 1);
    mo_value_id y = node("Concat", "cat", 2, node("Relu", "r", 1, a), out[1]);
    attr_int("axis", 1);
    head(conv("c2", y, 6, 8, 1, 1), 6);
    solve();
}

START_TEST(split_with_sizes)
{
    split_graph(true);
    expect_free("a", 4);
    cut_and_compare(2);
    expect_shape("c2.w", "3x4x1x1");
    expect_shape("s0", "1x2x6x6");
    expect_shape("s1", "1x2x6x6");
}
END_TEST

START_TEST(depthwise)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    x = node("Relu", "r1", 1, conv("expand", x, 8, 3, 1, 1));
    x = node("Relu", "r2", 1, conv("dw", x, 8, 8, 3, 8));
    head(conv("project", x, 6, 8, 1, 1), 6);
    solve();
    expect_free("expand", 8);
    ck_assert_uint_eq(members_on("expand", "dw.w", 0), 1);
    cut_and_compare(2);
    expect_shape("dw.w", "4x1x3x3");
    mo_node_id i = 0;
    while (strcmp(g->nodes[i].name, "dw"))
        i++;
    ck_assert_int_eq(mo_node_int(&g->nodes[i], "group", 1), 4);
}
END_TEST

START_TEST(grouped_conv_stays_even)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    x = node("Relu", "r1", 1, conv("c1", x, 8, 3, 1, 1));
    head(node("Relu", "r2", 1, conv("grouped", x, 12, 8, 3, 2)), 12);
    solve();
    expect_free("c1", 4);           /* pairs i, i + 4 */
    expect_free("grouped", 6);      /* pairs i, i + 6 */
    cut_and_compare(2);
    expect_shape("c1.w", "4x3x1x1");
    expect_shape("grouped.w", "6x2x3x3");
}
END_TEST

START_TEST(batchnorm_and_prelu)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    x = conv("c1", x, 8, 3, 3, 1);
    struct mo_shape c8 = mo_shape_of(1, (int64_t)8);
    float var[8] = { 1, 2, 3, 1, 2, 3, 1, 2 };
    x = node("BatchNormalization", "bn", 5, x, weight("scale", c8), weight("shift", c8), weight("mean", c8),
             mo_graph_add_const(g, "var", MO_F32, &c8, var));
    x = node("PRelu", "prelu", 2, x, weight("slope", mo_shape_of(3, (int64_t)8, (int64_t)1, (int64_t)1)));
    x = node("Mul", "scaled", 2, x, weight("per_channel", mo_shape_of(4, (int64_t)1, (int64_t)8, (int64_t)1, (int64_t)1)));
    head(x, 8);
    solve();
    expect_free("c1", 8);
    ck_assert_uint_eq(members_on("c1", "slope", 0), 1);
    ck_assert_uint_eq(members_on("c1", "var", 0), 1);
    cut_and_compare(2);
    expect_shape("scale", "4");
    expect_shape("slope", "4x1x1");
    expect_shape("per_channel", "1x4x1x1");
}
END_TEST

START_TEST(squeeze_excite)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    x = node("Relu", "r1", 1, conv("c1", x, 8, 3, 3, 1));
    mo_value_id s = node("Relu", "r2", 1, conv("down", node("GlobalAveragePool", "pool", 1, x), 4, 8, 1, 1));
    s = node("Sigmoid", "gate", 1, conv("up", s, 8, 4, 1, 1));
    head(node("Mul", "mul", 2, x, s), 8);
    solve();
    expect_free("c1", 8);
    expect_free("down", 4);
    ck_assert_uint_eq(members_on("c1", "up.w", 0), 1);
    ck_assert_uint_eq(members_on("c1", "down.w", 1), 1);
    cut_and_compare(2);
    expect_shape("up.w", "4x2x1x1");
}
END_TEST

START_TEST(channel_shuffle)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)4, (int64_t)4));
    x = node("Relu", "r1", 1, conv("c1", x, 12, 3, 1, 1));
    x = node("Reshape", "apart", 2, x, ints("shape5", 5, 1, 2, 6, 4, 4));
    x = node("Transpose", "turn", 1, x);
    attr_ints("perm", 5, 0, 2, 1, 3, 4);
    x = node("Reshape", "together", 2, x, ints("shape4", 4, 1, -1, 4, 4));
    head(conv("c2", x, 6, 12, 3, 1), 6);
    solve();
    expect_free("c1", 6);           /* pairs i, i + 6 become neighbours */
    ck_assert_uint_eq(members_on("c1", "c2.w", 1), 2);
    cut_and_compare(2);
    expect_shape("apart", "1x2x3x4x4");
    expect_shape("c2.w", "3x6x3x3");
}
END_TEST

/* Two heads of four: a head goes as a whole. */
START_TEST(attention_heads)
{
    mo_value_id x = input("x", mo_shape_of(3, (int64_t)1, (int64_t)5, (int64_t)6)), head_of[3];
    const char *names[3] = { "q", "k", "v" };
    for (int i = 0; i < 3; i++) {
        char w[16], r[16], t[16];
        snprintf(w, sizeof(w), "%s.w", names[i]);
        snprintf(r, sizeof(r), "%s.heads", names[i]);
        snprintf(t, sizeof(t), "%s.turned", names[i]);
        mo_value_id y = node("MatMul", names[i], 2, x, weight(w, mo_shape_of(2, (int64_t)6, (int64_t)12)));
        y = node("Reshape", r, 2, y, ints(r, 4, 1, 5, 3, 4));
        head_of[i] = node("Transpose", t, 1, y);
        if (i == 1)
            attr_ints("perm", 4, 0, 2, 3, 1);
        else
            attr_ints("perm", 4, 0, 2, 1, 3);
    }
    mo_value_id scores = node("Softmax", "softmax", 1, node("MatMul", "scores", 2, head_of[0], head_of[1]));
    mo_value_id y = node("Transpose", "back", 1, node("MatMul", "mix", 2, scores, head_of[2]));
    attr_ints("perm", 4, 0, 2, 1, 3);
    y = node("Reshape", "merged", 2, y, ints("merged_shape", 3, 1, 5, 12));
    y = node("MatMul", "out", 2, y, weight("out.w", mo_shape_of(2, (int64_t)12, (int64_t)6)));
    ck_assert(mo_graph_add_output(g, y));
    solve();
    expect_free("q", 3);
    ck_assert_uint_eq(members_on("q", "q.w", 1), 4);
    ck_assert_uint_eq(members_on("q", "v.w", 1), 4);
    ck_assert_uint_eq(members_on("q", "out.w", 0), 4);
    cut_and_compare(2);
    expect_shape("q.w", "6x8");
    expect_shape("out.w", "8x6");
}
END_TEST

START_TEST(tied_weights)
{
    mo_value_id x = input("x", mo_shape_of(2, (int64_t)1, (int64_t)6));
    mo_value_id w = weight("tied", mo_shape_of(2, (int64_t)8, (int64_t)8));
    x = node("Relu", "r0", 1, gemm("first", x, 8, 6));
    x = node("Relu", "r1", 1, node("MatMul", "m1", 2, x, w));
    x = node("Relu", "r2", 1, node("MatMul", "m2", 2, x, w));
    ck_assert(mo_graph_add_output(g, gemm("last", x, 3, 8)));
    solve();
    /* Columns of the first use are rows of the second: one group of eight. */
    expect_free("first", 8);
    ck_assert_uint_eq(members_on("first", "tied", 0), 1);
    ck_assert_uint_eq(members_on("first", "tied", 1), 1);
    cut_and_compare(2);
    expect_shape("tied", "4x4");
}
END_TEST

START_TEST(unknown_operator_is_a_wall)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    mo_value_id c = conv("c1", x, 8, 3, 3, 1), out = value("strange"), sum;
    ck_assert_uint_ne(mo_graph_add_node(g, "Strange", "my.domain", "strange", &c, 1, &out, 1), MO_NONE);
    sum = conv("c2", c, 4, 8, 1, 1);
    head(node("Relu", "r", 1, sum), 4);
    ck_assert(mo_graph_add_output(g, out));
    solve();
    expect_wall("c1", "no pruning rule");
    expect_free("c2", 4);
}
END_TEST

START_TEST(softmax_axis_is_a_wall)
{
    mo_value_id x = input("x", mo_shape_of(2, (int64_t)1, (int64_t)6));
    x = gemm("a", x, 8, 6);
    x = node("Softmax", "softmax", 1, x);
    attr_int("axis", -1);
    ck_assert(mo_graph_add_output(g, gemm("b", x, 3, 8)));
    solve();
    expect_wall("a", "softmax");
}
END_TEST

/* An untouched neighbour: Transpose to channels-last, then Flatten, as tf2onnx writes. */
START_TEST(channels_last_flatten)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)2, (int64_t)4, (int64_t)4));
    x = node("Transpose", "nhwc", 1, node("Relu", "r", 1, conv("c1", x, 6, 2, 3, 1)));
    attr_ints("perm", 4, 0, 2, 3, 1);
    x = node("Reshape", "flat", 2, x, ints("shape", 2, -1, 96));
    ck_assert(mo_graph_add_output(g, gemm("fc", x, 3, 96)));
    solve();
    expect_free("c1", 6);
    ck_assert_uint_eq(members_on("c1", "fc.w", 1), 16);
    cut_and_compare(2);
    expect_shape("fc.w", "3x48");
}
END_TEST

START_TEST(shape_arithmetic_follows)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)2, (int64_t)4, (int64_t)4));
    x = node("Relu", "r", 1, conv("c1", x, 6, 2, 3, 1));
    mo_value_id n = node("Gather", "batch", 2, node("Shape", "shape", 1, x), ints("zero", 1, 0));
    mo_value_id s = node("Concat", "sizes", 2, n, ints("rest", 1, -1));
    attr_int("axis", 0);
    ck_assert(mo_graph_add_output(g, gemm("fc", node("Reshape", "flat", 2, x, s), 3, 96)));
    solve();
    expect_free("c1", 6);
    cut_and_compare(2);
    expect_shape("fc.w", "3x48");
}
END_TEST

START_TEST(cutting_all_is_refused)
{
    mo_value_id x = input("x", mo_shape_of(4, (int64_t)1, (int64_t)3, (int64_t)6, (int64_t)6));
    head(conv("c1", x, 4, 3, 3, 1), 4);
    solve();
    bool is_cut[32] = { false };
    const struct mo_channel_group *group = group_of("c1");
    for (uint32_t i = 0; i < 4; i++)
        is_cut[group->first + i] = true;
    ck_assert_int_eq(mo_channels_cut(ctx, ch, is_cut, g, FREE_DIM, MO_CUT_DATA), MOPT_FAILED);
    ck_assert_ptr_nonnull(strstr(mopt_error(ctx), "nothing would be left"));
}
END_TEST

Suite *suite_couple(void);
Suite *suite_couple(void)
{
    Suite *s = suite_create("couple");
    TCase *t = tcase_create("graphs");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, chain);
    tcase_add_test(t, flatten_spreads);
    tcase_add_test(t, reshape_flattens);
    tcase_add_test(t, residual_ties);
    tcase_add_test(t, residual_to_input_is_a_wall);
    tcase_add_test(t, concat_offsets);
    tcase_add_test(t, dense_block);
    tcase_add_test(t, split_with_sizes);
    tcase_add_test(t, depthwise);
    tcase_add_test(t, grouped_conv_stays_even);
    tcase_add_test(t, batchnorm_and_prelu);
    tcase_add_test(t, squeeze_excite);
    tcase_add_test(t, channel_shuffle);
    tcase_add_test(t, attention_heads);
    tcase_add_test(t, tied_weights);
    tcase_add_test(t, unknown_operator_is_a_wall);
    tcase_add_test(t, softmax_axis_is_a_wall);
    tcase_add_test(t, channels_last_flatten);
    tcase_add_test(t, shape_arithmetic_follows);
    tcase_add_test(t, cutting_all_is_refused);
    suite_add_tcase(s, t);
    return s;
}
