/* Every operator with a backward against central differences.
 *
 * A case makes a graph of one node. What is to be differentiated is a graph input
 * plus a trained constant, so that the run gives its gradient; a trained input that
 * the operator reads as a parameter itself is left a plain constant. The loss is a
 * fixed random weighting of all outputs, summed in double. The difference quotient
 * is of fourth order,
 *     (8 (L(h) - L(-h)) - (L(2h) - L(-2h))) / 12 h,
 * so that a large h keeps the rounding of float32 small. The table of operators is
 * walked: a backward without a case fails. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/graph/op.h"
#include "lib/run/run.h"
#include "tests/support/gradient.h"

#define STEP 0.02
#define TOLERANCE 2e-3
#define MAX_INPUTS 8

/* The CPU, or what $MOPT_TEST_DEVICE names: `make T=gradients test` on a machine with a card. */
static struct mopt_ctx *open_device(void)
{
    const char *name = getenv("MOPT_TEST_DEVICE");
    return mopt_open(name && name[0] ? name : "cpu", 1);
}

struct bench {
    struct mopt_ctx *ctx;
    struct mopt_model *model;
    struct mo_graph *g;
    struct mo_rng rng;
    float *feed[MAX_INPUTS];            /* of the graph inputs, in order */
    uint32_t n_feeds;
    struct mo_run *run;
    double *weight;                     /* of all output elements */
};

static double uniform(struct bench *b, double low, double high)
{
    return low + (high - low) * (double)mo_rng_float(&b->rng);
}

static struct mo_shape parse_shape(const char *text)
{
    struct mo_shape shape = {0};
    while (*text) {
        char *end;
        shape.dim[shape.rank++] = strtoll(text, &end, 10);
        text = *end == 'x' ? end + 1 : end;
    }
    return shape;
}

static void fill(struct bench *b, char kind, size_t n, float *x)
{
    for (size_t i = 0; i < n; i++) {
        double sign = mo_rng_below(&b->rng, 2) ? 1 : -1;
        switch (kind) {
        case '+': case 'c': x[i] = (float)uniform(b, 0.5, 2); break;
        case '~': x[i] = (float)(sign * uniform(b, 0.2, 1.5)); break;
        case '%': x[i] = (float)uniform(b, -0.8, 0.8); break;
        case '^': x[i] = (float)uniform(b, 1.3, 3); break;
        case '@': x[i] = (float)((double)(int)mo_rng_below(&b->rng, 7) - 3 + uniform(b, 0.15, 0.35)); break;
        case '#': x[i] = (float)(0.15 * (double)i - 0.075 * (double)n); break;
        default: x[i] = (float)uniform(b, -1, 1);
        }
    }
    for (size_t i = n; kind == '#' && i > 1; i--) {
        size_t k = mo_rng_below(&b->rng, (uint32_t)i);
        float t = x[i - 1];
        x[i - 1] = x[k];
        x[k] = t;
    }
}

/* "0" before the colon: a scalar; nothing: a vector; else a shape. */
static mo_value_id add_ints(struct bench *b, const char *text)
{
    int64_t ints[64];
    int n = 0;
    struct mo_shape shape = {0};
    char *colon = strchr(text, ':');
    for (const char *at = colon + 1; *at;) {
        char *end;
        ck_assert_int_lt(n, 64);
        ints[n++] = strtoll(at, &end, 10);
        at = *end == ',' ? end + 1 : end;
    }
    *colon = 0;
    if (!*text)
        shape = (struct mo_shape){.rank = 1, .dim = {n}};
    else if (strcmp(text, "0"))
        shape = parse_shape(text);
    ck_assert_int_eq(mo_shape_elems(&shape), n);
    return mo_graph_add_const(b->g, "ints", MO_I64, &shape, ints);
}

static mo_value_id add_floats(struct bench *b, const char *text)
{
    float floats[16];
    int n = 0;
    for (char *end; *text; text = *end == ',' ? end + 1 : end)
        floats[n++] = strtof(text, &end);
    struct mo_shape shape = {.rank = n > 1, .dim = {n}};
    return mo_graph_add_const(b->g, "floats", MO_F32, &shape, floats);
}

static mo_value_id add_constant(struct bench *b, char *text)
{
    struct mo_shape scalar = {0};
    if (*text == 'i')
        return add_ints(b, text + 1);
    if (!strncmp(text, "f:", 2))
        return add_floats(b, text + 2);
    if (!strncmp(text, "u:", 2)) {
        uint8_t u = (uint8_t)atoi(text + 2);
        return mo_graph_add_const(b->g, "byte", MO_U8, &scalar, &u);
    }
    struct mo_shape shape = parse_shape(text + 1);
    float x[512];
    bool flag[512];
    size_t n = (size_t)mo_shape_elems(&shape);
    ck_assert_uint_le(n, MO_COUNT(x));
    fill(b, *text, n, x);
    for (size_t i = 0; i < n; i++)
        flag[i] = x[i] > 0;
    return *text == 'b' ? mo_graph_add_const(b->g, "flags", MO_BOOL, &shape, flag)
                        : mo_graph_add_const(b->g, "constant", MO_F32, &shape, x);
}

/* A trained input: the constant itself where the operator says it is a parameter, else input + constant. */
static mo_value_id add_trained(struct bench *b, const struct mo_op *op, uint32_t i, const char *text)
{
    char kind = strchr("+~%^@#", *text) ? *text : 0;
    struct mo_shape shape = parse_shape(text + (kind != 0));
    size_t n = (size_t)mo_shape_elems(&shape);
    float *x = calloc(n + 1, sizeof *x);
    fill(b, kind, n, x);
    if (op->params_in >> i & 1 && i > 0 && (n > 1 || op->flags & MO_OP_PARAM_SCALAR)) {
        mo_value_id w = mo_graph_add_const(b->g, "w", MO_F32, &shape, x);
        free(x);
        return w;
    }
    mo_value_id in = mo_graph_add_value(b->g, "x", MO_F32, &shape);
    mo_value_id p = mo_graph_add_const(b->g, "p", MO_F32, &shape, NULL);
    mo_value_id sum = mo_graph_add_value(b->g, "sum", MO_UNDEFINED, &(struct mo_shape){.rank = MO_UNKNOWN});
    ck_assert(mo_graph_add_input(b->g, in));
    mo_graph_add_node(b->g, "Add", NULL, "add", (mo_value_id[]){in, p}, 2, &sum, 1);
    b->feed[b->n_feeds++] = x;
    return sum;
}

static uint32_t add_inputs(struct bench *b, const struct mo_op *op, const char *text, mo_value_id *in)
{
    char copy[256];
    uint32_t n = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *rest = copy, *word; (word = strtok_r(rest, " ", &rest));) {
        ck_assert_uint_lt(n, MAX_INPUTS);
        if (!strcmp(word, "-"))
            in[n] = MO_NONE;
        else if (strchr("biufFc", *word))
            in[n] = add_constant(b, word);
        else
            in[n] = add_trained(b, op, n, word);
        n++;
    }
    return n;
}

static void add_attrs(struct bench *b, mo_node_id node, const char *text)
{
    char copy[256];
    snprintf(copy, sizeof copy, "%s", text);
    for (char *rest = copy, *word; (word = strtok_r(rest, " ", &rest));) {
        char *value = strchr(word, '=');
        ck_assert_ptr_nonnull(value);
        *value++ = 0;
        int64_t ints[16];
        size_t n = 0;
        if (!strchr("-0123456789", *value)) {
            mo_node_set_text(b->g, node, word, value);
        } else if (strchr(value, '.')) {
            mo_node_set_float(b->g, node, word, strtof(value, NULL));
        } else if (!strchr(value, ',')) {
            mo_node_set_int(b->g, node, word, strtoll(value, NULL, 10));
        } else {
            for (char *p = value; *p;) {
                ints[n++] = strtoll(p, &p, 10);
                p += *p == ',';
            }
            mo_node_set_ints(b->g, node, word, ints, n);
        }
    }
}

/* Of the default domain, or of the only one that has it, in its first version. */
static const struct mo_op *find_op(const struct gradient_case *c)
{
    const struct mo_op *op = mo_op_find(c->op, c->domain, c->domain ? 1 : c->opset);
    for (size_t i = 0; !op && mo_op_at(i); i++)
        if (mo_op_at(i)->domain && !strcmp(mo_op_at(i)->type, c->op))
            op = mo_op_at(i);
    return op;
}

static void build(struct bench *b, const struct gradient_case *c)
{
    const struct mo_op *op = find_op(c);
    mo_value_id in[MAX_INPUTS], out[MAX_INPUTS];
    uint32_t n_out = c->n_out ? (uint32_t)c->n_out : 1;
    ck_assert_msg(op != NULL, "there is no operator %s in opset %d", c->op, c->opset);
    b->model = mo_model_new();
    ck_assert(mo_model_set_opset(b->model, "", c->opset));
    ck_assert(!c->domain || mo_model_set_opset(b->model, c->domain, 1));
    b->g = &b->model->graph;
    uint32_t n_in = add_inputs(b, op, c->inputs, in);
    for (uint32_t i = 0; i < n_out; i++)
        out[i] = mo_graph_add_value(b->g, "y", MO_UNDEFINED, &(struct mo_shape){.rank = MO_UNKNOWN});
    mo_node_id node = mo_graph_add_node(b->g, c->op, op->domain, "node", in, n_in, out, n_out);
    add_attrs(b, node, c->attrs);
    for (uint32_t i = 0; i < n_out; i++)
        ck_assert(mo_graph_add_output(b->g, out[i]));
    ck_assert_msg(!mo_graph_sort(b->ctx, b->g), "%s", mopt_error(b->ctx));
}

static void start(struct bench *b, const struct gradient_case *c)
{
    struct mo_run_options options = {.train = true, .bn = (enum mo_bn_mode)c->mode, .seed = 5};
    struct mo_shape shapes[MAX_INPUTS];
    enum mopt_status status = mo_run_new(b->ctx, b->g, &options, &b->run);
    ck_assert_msg(!status, "%s: %s", c->op, mopt_error(b->ctx));
    ck_assert_uint_eq(mo_run_n_inputs(b->run), b->n_feeds);
    for (uint32_t i = 0; i < b->n_feeds; i++)
        shapes[i] = b->g->values[b->g->inputs[i]].shape;
    ck_assert_msg(!mo_run_shape(b->run, shapes, b->n_feeds), "%s: %s", c->op, mopt_error(b->ctx));
    for (uint32_t i = 0; i < b->n_feeds; i++) {
        size_t bytes = (size_t)mo_shape_elems(&shapes[i]) * sizeof(float);
        ck_assert(!mo_run_set_input(b->run, i, b->feed[i], bytes));
    }
    b->run->is_training = true;
}

static bool takes_part(const struct mo_value *v)
{
    return v->dtype == MO_F32;
}

/* The weighted sum of all outputs; the same random numbers are drawn in every step. */
static double loss(struct bench *b)
{
    double sum = 0;
    size_t at = 0;
    b->run->step = 0;
    ck_assert_msg(!mo_run_forward(b->run), "%s", mopt_error(b->ctx));
    for (uint32_t o = 0; o < mo_run_n_outputs(b->run); o++) {
        const struct mo_value *v = mo_run_output(b->run, o);
        if (!takes_part(v))
            continue;
        float *y = mo_mem_new((size_t)mo_value_elems(v) + 1, sizeof *y);
        ck_assert_msg(!mo_run_get_output(b->run, o, y, mo_value_bytes(v)), "%s", mopt_error(b->ctx));
        for (int64_t i = 0; i < mo_value_elems(v); i++)
            sum += b->weight[at++] * (double)y[i];
        mo_mem_free(y);
    }
    return sum;
}

static void draw_weights(struct bench *b)
{
    size_t n = 0;
    for (uint32_t o = 0; o < mo_run_n_outputs(b->run); o++)
        n += (size_t)mo_value_elems(mo_run_output(b->run, o));
    b->weight = calloc(n + 1, sizeof *b->weight);
    for (size_t i = 0; i < n; i++)
        b->weight[i] = (double)(float)uniform(b, -1, 1);
}

static void run_backward(struct bench *b)
{
    size_t at = 0;
    loss(b);
    for (uint32_t o = 0; o < mo_run_n_outputs(b->run); o++) {
        const struct mo_value *v = mo_run_output(b->run, o);
        float *dy = mo_run_output_grad(b->run, o), g;
        for (int64_t i = 0; takes_part(v) && i < mo_value_elems(v); i++, at++) {
            g = (float)b->weight[at];
            if (dy)
                b->run->be->upload(b->run->dev, dy + i, &g, sizeof g);
        }
    }
    ck_assert_msg(!mo_run_backward(b->run, false), "%s", mopt_error(b->ctx));
}

/* x is one number on the device */
static float read_one(struct bench *b, const float *x)
{
    float value;
    b->run->be->download(b->run->dev, &value, x, sizeof value);
    return value;
}

static double difference_quotient(struct bench *b, float *x)
{
    float middle = read_one(b, x), moved;
    double at[4];
    const double factor[4] = {1, -1, 2, -2};
    for (int k = 0; k < 4; k++) {
        moved = middle + (float)(factor[k] * STEP);
        b->run->be->upload(b->run->dev, x, &moved, sizeof moved);
        at[k] = loss(b);
    }
    b->run->be->upload(b->run->dev, x, &middle, sizeof middle);
    return (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * STEP);
}

static void compare(struct bench *b, const struct gradient_case *c)
{
    double tolerance = c->tolerance > 0 ? c->tolerance : TOLERANCE;
    int n_compared = 0;
    for (uint32_t p = 0; p < b->run->n_params; p++) {
        const struct mo_param *param = &b->run->params[p];
        if (param->is_state)
            continue;
        double exact[512], scale = 0.1;
        ck_assert_uint_le(param->n_elems, MO_COUNT(exact));
        for (size_t i = 0; i < param->n_elems; i++) {
            exact[i] = difference_quotient(b, b->run->weights + param->offset + i);
            scale = fmax(scale, fabs(exact[i]));
        }
        for (size_t i = 0; i < param->n_elems; i++, n_compared++) {
            double got = (double)read_one(b, b->run->grads + param->offset + i);
            ck_assert_msg(fabs(got - exact[i]) <= tolerance * scale,
                          "%s '%s' (%s), gradient of %s[%zu] is %g, the difference quotient %g", c->op, c->inputs,
                          c->attrs, param->name, i, got, exact[i]);
        }
    }
    ck_assert_msg(n_compared > 0, "%s: nothing was differentiated", c->op);
}

/* Trained on the CPU only, as mopt says: what looks at numbers in host memory while it runs. */
static bool is_for_host(const struct gradient_case *c)
{
    return !strcmp(c->op, "STFT") || !strcmp(c->op, "DFT") || !strcmp(c->op, "OptionalGetElement");
}

static void check_case(const struct gradient_case *c)
{
    const char *device = getenv("MOPT_TEST_DEVICE");
    if (device && device[0] && strcmp(device, "cpu") != 0 && is_for_host(c))
        return;
    struct bench b = {.ctx = open_device(), .rng = mo_rng_new(11, MO_RNG_TEST, 1)};
    ck_assert_ptr_nonnull(b.ctx);
    build(&b, c);
    start(&b, c);
    draw_weights(&b);
    run_backward(&b);
    compare(&b, c);
    mo_run_free(b.run);
    mopt_model_free(b.model);
    mopt_close(b.ctx);
    free(b.weight);
    for (uint32_t i = 0; i < b.n_feeds; i++)
        free(b.feed[i]);
}

static int count(const struct gradient_case *cases)
{
    int n = 0;
    while (cases[n].op)
        n++;
    return n;
}

START_TEST(gradients_of_networks)
{
    check_case(&gradient_cases_nn[_i]);
}
END_TEST

/* On the CUDA kernels, on the device that is the CPU (tests/emulated/). */
static bool use_emulated(void)
{
    const char *plugin = getenv("MOPT_EMULATED");
    if (!plugin || !plugin[0])
        return false;
    setenv("MOPT_CUDA_PLUGIN", plugin, 1);
    setenv("MOPT_TEST_DEVICE", "cuda", 1);
    return true;
}

START_TEST(emulated_gradients_of_networks)
{
    if (use_emulated())
        check_case(&gradient_cases_nn[_i]);
}
END_TEST

START_TEST(emulated_gradients_of_tensors)
{
    if (use_emulated())
        check_case(&gradient_cases_tensor[_i]);
}
END_TEST

START_TEST(gradients_of_tensors)
{
    check_case(&gradient_cases_tensor[_i]);
}
END_TEST

/* Rounding has no slope to compare with: dy goes through both operators where x lies inside the range of the
 * quantized type, here (0 - 3) / 4 and up, and nothing goes through elsewhere. */
START_TEST(straight_through)
{
    static const struct gradient_case c = {"QuantizeLinear", 13, "2x8 f:0.25 u:3", ""};
    struct bench b = {.ctx = open_device(), .rng = mo_rng_new(11, MO_RNG_TEST, 2)};
    ck_assert_ptr_nonnull(b.ctx);
    build(&b, &c);
    struct mo_node *q = &b.g->nodes[b.g->n_nodes - 1];
    mo_value_id quantized = q->out[0], scale = q->in[1], zero = q->in[2];
    mo_value_id y = mo_graph_add_value(b.g, "float", MO_UNDEFINED, &(struct mo_shape){.rank = MO_UNKNOWN});
    mo_graph_add_node(b.g, "DequantizeLinear", NULL, "dq", (mo_value_id[]){quantized, scale, zero}, 3, &y, 1);
    b.g->outputs[0] = y;
    b.g->values[quantized].is_output = false;
    b.g->values[y].is_output = true;
    ck_assert_msg(!mo_graph_sort(b.ctx, b.g), "%s", mopt_error(b.ctx));
    start(&b, &c);
    draw_weights(&b);
    run_backward(&b);
    int n_cut = 0;
    for (size_t i = 0; i < 16; i++) {
        bool is_inside = b.feed[0][i] >= -0.75f;
        n_cut += !is_inside;
        ck_assert_double_eq((double)read_one(&b, b.run->grads + b.run->params[0].offset + i), is_inside ? b.weight[i] : 0);
    }
    ck_assert_int_gt(n_cut, 0);
    mo_run_free(b.run);
    mopt_model_free(b.model);
    mopt_close(b.ctx);
    free(b.weight);
    free(b.feed[0]);
}
END_TEST

static bool has_case(const char *type)
{
    if (!strcmp(type, "QuantizeLinear") || !strcmp(type, "DequantizeLinear"))
        return true;    /* straight_through */
    for (const struct gradient_case *c = gradient_cases_nn; c->op; c++)
        if (!strcmp(c->op, type))
            return true;
    for (const struct gradient_case *c = gradient_cases_tensor; c->op; c++)
        if (!strcmp(c->op, type))
            return true;
    return false;
}

/* Formulas between whole numbers: what is rounded has no slope to compare with. */
static bool is_whole(const struct mo_op *op)
{
    static const char *const types[] = { "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat" };
    bool is_one = !strncmp(op->type, "QLinear", strlen("QLinear"));
    for (size_t i = 0; i < MO_COUNT(types); i++)
        is_one = is_one || !strcmp(op->type, types[i]);
    return op->expand && is_one;
}

START_TEST(every_backward_has_a_case)
{
    char missing[1024] = "";
    size_t n = 0;
    for (size_t i = 0; mo_op_at(i); i++) {
        const struct mo_op *op = mo_op_at(i);
        if ((!op->backward && !op->expand) || op->flags & MO_OP_INTERNAL || has_case(op->type) || is_whole(op))
            continue;
        n += (size_t)snprintf(missing + n, sizeof missing - n, " %s", op->type);
        ck_assert_uint_lt(n, sizeof missing);
    }
    ck_assert_msg(!missing[0], "no gradient case for:%s", missing);
}
END_TEST

Suite *suite_gradients(void);
Suite *suite_gradients(void)
{
    Suite *suite = suite_create("gradients");
    TCase *table = tcase_create("table"), *cases = tcase_create("cases");
    tcase_add_test(table, every_backward_has_a_case);
    tcase_add_test(table, straight_through);
    tcase_add_loop_test(cases, gradients_of_networks, 0, count(gradient_cases_nn));
    tcase_add_loop_test(cases, emulated_gradients_of_networks, 0, count(gradient_cases_nn));
    tcase_add_loop_test(cases, gradients_of_tensors, 0, count(gradient_cases_tensor));
    tcase_add_loop_test(cases, emulated_gradients_of_tensors, 0, count(gradient_cases_tensor));
    suite_add_tcase(suite, table);
    suite_add_tcase(suite, cases);
    return suite;
}
