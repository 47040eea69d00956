/* Training through If, Loop and Scan: gradients of what their graphs read, against central differences, in graphs that
 * are one in another; and what is refused. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "lib/run/run.h"

#define STEP 5e-3
#define TOLERANCE 2e-3

struct bench {
    struct mopt_ctx *ctx;
    struct mopt_model *model;
    struct mo_graph *g;
    struct mo_run *run;
    struct mo_rng rng;
};

static const struct mo_shape unknown = { .rank = MO_UNKNOWN };

static void open_bench(struct bench *b)
{
    *b = (struct bench){ .ctx = mopt_open("cpu", 1), .rng = mo_rng_new(4, MO_RNG_TEST, 2) };
    ck_assert_ptr_nonnull(b->ctx);
    b->model = mo_model_new();
    b->g = &b->model->graph;
    ck_assert(mo_model_set_opset(b->model, "", 13));
}

static void close_bench(struct bench *b)
{
    mo_run_free(b->run);
    mopt_model_free(b->model);
    mopt_close(b->ctx);
}

/* ---- building ---- */

static mo_value_id weight(struct bench *b, const char *name, int64_t rows, int64_t columns)
{
    float w[64];
    struct mo_shape shape = mo_shape_of(2, rows, columns);
    for (int64_t i = 0; i < rows * columns; i++)
        w[i] = 0.6f * mo_rng_normal(&b->rng);
    return mo_graph_add_const(b->g, name, MO_F32, &shape, w);
}

static struct mo_graph *new_body(struct mo_graph *around)
{
    struct mo_graph *body = mo_arena_new(around->arena, 1, sizeof *body);
    ck_assert_ptr_nonnull(body);
    body->arena = around->arena;
    body->opset = around->opset;
    body->parent = around;
    body->name = "body";
    return body;
}

static mo_value_id value(struct mo_graph *g, const char *name, enum mo_dtype dtype)
{
    return mo_graph_add_value(g, name, dtype, &unknown);
}

static mo_value_id formal(struct mo_graph *g, const char *name, enum mo_dtype dtype)
{
    mo_value_id v = value(g, name, dtype);
    ck_assert(mo_graph_add_input(g, v));
    return v;
}

static mo_value_id captured(struct mo_graph *body, const char *name)
{
    mo_value_id v = value(body, name, MO_F32);
    body->values[v].name = name;        /* not made unique: it is that of the value outside */
    body->values[v].is_captured = true;
    return v;
}

static mo_value_id op(struct mo_graph *g, const char *type, mo_value_id x, mo_value_id y)
{
    mo_value_id in[2] = { x, y }, out = value(g, type, MO_UNDEFINED);
    ck_assert(mo_graph_add_node(g, type, NULL, type, in, y == MO_NONE ? 1 : 2, &out, 1) != MO_NONE);
    return out;
}

static void give(struct mo_graph *g, mo_value_id v, enum mo_dtype dtype)
{
    g->values[v].dtype = dtype;
    ck_assert(mo_graph_add_output(g, v));
}

/* The graph `body` becomes attribute `name` of node n, which reads these values of g by name. */
static void hang(struct mo_graph *g, mo_node_id n, const char *name, struct mo_graph *body, const mo_value_id *captures,
                 uint32_t n_captures)
{
    struct mo_node *node = &g->nodes[n];
    struct mo_attr *attrs = mo_arena_new(g->arena, node->n_attrs + 1, sizeof *attrs);
    if (node->n_attrs)
        memcpy(attrs, node->attrs, node->n_attrs * sizeof *attrs);
    attrs[node->n_attrs] = (struct mo_attr){ .name = name, .kind = MO_ATTR_GRAPH, .n = 1 };
    attrs[node->n_attrs].graphs = mo_arena_new(g->arena, 1, sizeof(struct mo_graph *));
    attrs[node->n_attrs++].graphs[0] = body;
    node->attrs = attrs;
    node->captures = mo_arena_new(g->arena, n_captures + 1, sizeof *captures);
    memcpy(node->captures, captures, n_captures * sizeof *captures);
    node->n_captures = n_captures;
}

static mo_value_id scalar(struct mo_graph *g, enum mo_dtype dtype, int64_t x)
{
    struct mo_shape shape = mo_shape_of(0);
    uint8_t truth = x != 0;
    float real = (float)x;
    return mo_graph_add_const(g, "number", dtype, &shape, dtype == MO_BOOL ? (void *)&truth : dtype == MO_F32 ? (void *)&real : (void *)&x);
}

/* ---- running ---- */

static enum mopt_status try_start(struct bench *b, int64_t rows)
{
    struct mo_run_options options = { .train = true, .seed = 5 };
    struct mo_shape shape = mo_shape_of(2, rows, (int64_t)3);
    ck_assert_msg(!mo_graph_sort(b->ctx, b->g), "%s", mopt_error(b->ctx));
    MO_TRY(mo_run_new(b->ctx, b->g, &options, &b->run));
    return mo_run_shape(b->run, &shape, 1);
}

static void start(struct bench *b, int64_t rows)
{
    float x[64];
    ck_assert_msg(!try_start(b, rows), "%s", mopt_error(b->ctx));
    for (int64_t i = 0; i < rows * 3; i++)
        x[i] = mo_rng_normal(&b->rng);
    ck_assert(!mo_run_set_input(b->run, 0, x, (size_t)rows * 3 * sizeof *x));
    b->run->is_training = true;
}

static double weight_of(uint32_t output, int64_t i)
{
    return 1.0 / (double)(1 + (i * 7 + output * 3) % 5) - 0.4;
}

static double loss(struct bench *b)
{
    double sum = 0;
    ck_assert_msg(!mo_run_forward(b->run), "%s", mopt_error(b->ctx));
    for (uint32_t o = 0; o < mo_run_n_outputs(b->run); o++)
        for (int64_t i = 0; i < mo_value_elems(mo_run_output(b->run, o)); i++)
            sum += weight_of(o, i) * (double)((const float *)mo_run_output_data(b->run, o))[i];
    return sum;
}

static double quotient(struct bench *b, float *x)
{
    float middle = *x;
    *x = middle + (float)STEP;
    double high = loss(b);
    *x = middle - (float)STEP;
    double low = loss(b);
    *x = middle;
    return (high - low) / (2 * STEP);
}

/* The gradients of all parameters, of which there are n_params. */
static void check_gradients(struct bench *b, uint32_t n_params)
{
    loss(b);
    for (uint32_t o = 0; o < mo_run_n_outputs(b->run); o++)
        for (int64_t i = 0; i < mo_value_elems(mo_run_output(b->run, o)); i++)
            mo_run_output_grad(b->run, o)[i] = (float)weight_of(o, i);
    ck_assert_msg(!mo_run_backward(b->run, false), "%s", mopt_error(b->ctx));
    ck_assert_uint_eq(b->run->n_params, n_params);
    for (uint32_t p = 0; p < n_params; p++) {
        const struct mo_param *param = &b->run->params[p];
        double largest = 0;
        for (size_t i = 0; i < param->n_elems; i++) {
            double want = quotient(b, b->run->weights + param->offset + i), got = (double)b->run->grads[param->offset + i];
            largest = fmax(largest, fabs(want));
            ck_assert_msg(fabs(got - want) <= TOLERANCE * fmax(1, fabs(want)), "gradient of %s[%zu] is %g, the difference quotient %g",
                          param->name, i, got, want);
        }
        ck_assert_msg(largest > 1e-3, "%s has no part in the result", param->name);
    }
}

/* ---- cases ---- */

/* h = tanh(x[t] W + h U), from h = 0; the last h, and all of them in reverse order. */
START_TEST(scan_is_trained)
{
    struct bench b;
    open_bench(&b);
    mo_value_id x = formal(b.g, "x", MO_F32), w = weight(&b, "W", 3, 4), u = weight(&b, "U", 4, 4);
    struct mo_shape one = mo_shape_of(2, (int64_t)1, (int64_t)4);
    mo_value_id h0 = mo_graph_add_const(b.g, "h0", MO_F32, &one, NULL);
    struct mo_graph *body = new_body(b.g);
    mo_value_id h = formal(body, "h", MO_F32), xt = formal(body, "xt", MO_F32);
    mo_value_id a = op(body, "MatMul", xt, captured(body, "W")), c = op(body, "MatMul", h, captured(body, "U"));
    mo_value_id next = op(body, "Tanh", op(body, "Add", c, a), MO_NONE), same = op(body, "Identity", next, MO_NONE);
    give(body, next, MO_F32);
    give(body, same, MO_F32);
    mo_value_id in[2] = { h0, x }, out[2] = { value(b.g, "last", MO_F32), value(b.g, "all", MO_F32) };
    mo_node_id n = mo_graph_add_node(b.g, "Scan", NULL, "scan", in, 2, out, 2);
    ck_assert(mo_node_set_int(b.g, n, "num_scan_inputs", 1) && mo_node_set_ints(b.g, n, "scan_output_directions", (int64_t[]){ 1 }, 1));
    hang(b.g, n, "body", body, (mo_value_id[]){ w, u }, 2);
    give(b.g, out[0], MO_F32);
    give(b.g, out[1], MO_F32);
    start(&b, 5);
    check_gradients(&b, 2);
    close_bench(&b);
}
END_TEST

/* Four turns of v = turn < 2 ? v U : tanh(v), the choice an If inside; all v are collected. The condition is computed. */
static void build_loop(struct bench *b, bool is_endless)
{
    mo_value_id x = formal(b->g, "x", MO_F32), u = weight(b, "U", 3, 3);
    struct mo_graph *body = new_body(b->g), *yes = new_body(body), *no = new_body(body);
    mo_value_id turn = formal(body, "turn", MO_I64), goes = formal(body, "goes", MO_BOOL), v = formal(body, "v", MO_F32);
    (void)goes;
    give(yes, op(yes, "MatMul", captured(yes, "v"), captured(yes, "U")), MO_F32);
    give(no, op(no, "Tanh", captured(no, "v"), MO_NONE), MO_F32);
    mo_value_id u_inside = captured(body, "U"), is_early = op(body, "Less", turn, scalar(body, MO_I64, 2)), next = value(body, "next", MO_F32);
    mo_node_id choice = mo_graph_add_node(body, "If", NULL, "choice", &is_early, 1, &next, 1);
    hang(body, choice, "then_branch", yes, (mo_value_id[]){ v, u_inside }, 2);
    hang(body, choice, "else_branch", no, (mo_value_id[]){ v, u_inside }, 2);
    mo_value_id end = is_endless ? op(body, "Less", op(body, "ReduceSum", v, MO_NONE), scalar(body, MO_F32, 99))
                                 : op(body, "Less", turn, scalar(body, MO_I64, 3));
    give(body, end, MO_BOOL);
    give(body, next, MO_F32);
    give(body, op(body, "Identity", next, MO_NONE), MO_F32);
    mo_value_id in[3] = { scalar(b->g, MO_I64, 9), scalar(b->g, MO_BOOL, 1), x };
    mo_value_id out[2] = { value(b->g, "last", MO_F32), value(b->g, "all", MO_F32) };
    mo_node_id n = mo_graph_add_node(b->g, "Loop", NULL, "loop", in, 3, out, 2);
    hang(b->g, n, "body", body, &u, 1);
    give(b->g, out[0], MO_F32);
    give(b->g, out[1], MO_F32);
}

START_TEST(loop_is_trained)
{
    struct bench b;
    open_bench(&b);
    build_loop(&b, false);
    start(&b, 2);
    ck_assert_int_eq(mo_run_output(b.run, 1)->shape.dim[0], 4);
    check_gradients(&b, 1);
    close_bench(&b);
}
END_TEST

START_TEST(loop_that_data_ends_is_refused)
{
    struct bench b;
    open_bench(&b);
    build_loop(&b, true);
    ck_assert_int_eq(try_start(&b, 2), MOPT_UNSUPPORTED);
    ck_assert_msg(strstr(mopt_error(b.ctx), "'loop'") && strstr(mopt_error(b.ctx), "data"), "%s", mopt_error(b.ctx));
    close_bench(&b);
}
END_TEST

/* y = sum(x) > 0 ? x W : tanh(x) V: both are planned, one of them is taken and has a gradient. */
START_TEST(if_on_data_is_trained)
{
    struct bench b;
    open_bench(&b);
    mo_value_id x = formal(b.g, "x", MO_F32), w = weight(&b, "W", 3, 4), v = weight(&b, "V", 3, 4);
    mo_value_id truth = op(b.g, "Greater", op(b.g, "ReduceSum", x, MO_NONE), scalar(b.g, MO_F32, 0));
    struct mo_graph *yes = new_body(b.g), *no = new_body(b.g);
    give(yes, op(yes, "MatMul", captured(yes, "x"), captured(yes, "W")), MO_F32);
    give(no, op(no, "MatMul", op(no, "Tanh", captured(no, "x"), MO_NONE), captured(no, "V")), MO_F32);
    mo_value_id y = value(b.g, "y", MO_F32);
    mo_node_id n = mo_graph_add_node(b.g, "If", NULL, "choice", &truth, 1, &y, 1);
    hang(b.g, n, "then_branch", yes, (mo_value_id[]){ x, w, v }, 3);
    hang(b.g, n, "else_branch", no, (mo_value_id[]){ x, w, v }, 3);
    give(b.g, y, MO_F32);
    start(&b, 2);
    for (int sign = -1; sign <= 1; sign += 2) {
        float in[6], expect_none = 0;
        for (int i = 0; i < 6; i++)
            in[i] = (float)sign * (0.3f + 0.1f * (float)i);
        ck_assert(!mo_run_set_input(b.run, 0, in, sizeof in));
        loss(&b);
        for (int64_t i = 0; i < 8; i++)
            mo_run_output_grad(b.run, 0)[i] = (float)weight_of(0, i);
        ck_assert_msg(!mo_run_backward(b.run, false), "%s", mopt_error(b.ctx));
        for (uint32_t p = 0; p < 2; p++) {
            const struct mo_param *param = &b.run->params[p];
            bool is_taken = !strcmp(param->name, sign > 0 ? "W" : "V");
            for (size_t i = 0; i < param->n_elems; i++) {
                double want = quotient(&b, b.run->weights + param->offset + i);
                double got = (double)b.run->grads[param->offset + i];
                ck_assert_msg(fabs(got - want) <= TOLERANCE, "gradient of %s[%zu] is %g, not %g", param->name, i, got, want);
                expect_none += is_taken ? 0.0f : (float)fabs(got);
            }
        }
        ck_assert_float_eq(expect_none, 0);
    }
    close_bench(&b);
}
END_TEST

Suite *suite_unroll(void);
Suite *suite_unroll(void)
{
    Suite *suite = suite_create("unroll");
    TCase *tcase = tcase_create("training");
    tcase_add_test(tcase, scan_is_trained);
    tcase_add_test(tcase, loop_is_trained);
    tcase_add_test(tcase, loop_that_data_ends_is_refused);
    tcase_add_test(tcase, if_on_data_is_trained);
    suite_add_tcase(suite, tcase);
    return suite;
}
