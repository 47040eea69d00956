/* LinearRegressor, LinearClassifier of ai.onnx.ml: score[t] = sum over k of coefficients[t, k] x[k] + intercepts[t], then
 * the last function. A classifier with one row of coefficients for two classes scores both by s and -s. */
#include <string.h>

#include "lib/ops/ml.h"

struct linear {
    double *coefficients, *intercepts;
    size_t n_coefficients, n_intercepts;
    enum mo_ml_post post;
    bool is_classifier;
    int64_t n_targets, n_classes;       /* rows of coefficients; scores that are given out */
};

static bool is_classifier(const struct mo_node *n)
{
    return !strcmp(n->type, "LinearClassifier");
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_ml_labels labels;
    if (!is_classifier(n))
        return mo_ml_set_outs(ctx, g, n, NULL, MO_F32, mo_node_int(n, "targets", 1));
    MO_TRY(mo_ml_read_labels(ctx, n, &labels));
    return mo_ml_set_outs(ctx, g, n, &labels, MO_F32, (int64_t)labels.n);
}

static void release(struct linear *l)
{
    if (!l)
        return;
    mo_mem_free(l->coefficients);
    mo_mem_free(l->intercepts);
    mo_mem_free(l);
}

static enum mopt_status read_linear(struct mopt_ctx *ctx, const struct mo_node *n, int64_t width, struct linear *l)
{
    struct mo_ml_labels labels = { 0 };
    l->is_classifier = is_classifier(n);
    MO_TRY(mo_ml_read_post(ctx, n, &l->post));
    MO_TRY(mo_ml_numbers(ctx, n, "coefficients", NULL, &l->coefficients, &l->n_coefficients));
    MO_TRY(mo_ml_numbers(ctx, n, "intercepts", NULL, &l->intercepts, &l->n_intercepts));
    if (l->is_classifier)
        MO_TRY(mo_ml_read_labels(ctx, n, &labels));
    l->n_classes = l->is_classifier ? (int64_t)labels.n : mo_node_int(n, "targets", 1);
    l->n_targets = width > 0 ? (int64_t)l->n_coefficients / width : 0;
    bool is_one = l->is_classifier && l->n_classes == 2 && l->n_targets == 1;
    if (width < 1 || l->n_coefficients % (size_t)width || (l->n_targets != l->n_classes && !is_one) ||
        (l->n_intercepts && l->n_intercepts != (size_t)l->n_targets))
        return mo_fail(ctx, MOPT_DATA, "%zu coefficients and %zu intercepts for %lld features and %lld results",
                       l->n_coefficients, l->n_intercepts, (long long)width, (long long)l->n_classes);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    struct linear *l = mo_mem_new(1, sizeof *l);
    if (!l)
        return mo_no_memory(r->ctx, sizeof *l, "a linear model");
    *mo_run_handle(r, n) = l;
    MO_TRY(mo_ml_check_input(r->ctx, x));
    return read_linear(r->ctx, n, x->shape.dim[x->shape.rank - 1], l);
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    release(*mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

static void score_row(const struct linear *l, enum mo_dtype dtype, const void *x, int64_t from, int64_t width, double *score)
{
    for (int64_t t = 0; t < l->n_targets; t++) {
        double sum = l->n_intercepts ? l->intercepts[t] : 0;
        for (int64_t k = 0; k < width; k++)
            sum += l->coefficients[t * width + k] * mo_ml_number(dtype, x, from + k);
        score[t] = sum;
    }
}

static int64_t decide(const struct linear *l, double *score)
{
    int64_t best = 0;
    if (l->n_targets < l->n_classes) {
        score[1] = score[0];
        score[0] = -score[1];
        return score[1] > 0;
    }
    for (int64_t t = 1; t < l->n_targets; t++)
        best = score[t] > score[best] ? t : best;
    return best;
}

static enum mopt_status compute(struct mo_run *r, const struct mo_node *n, const struct linear *l, struct mo_host *h,
                                double *score)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t width = x->shape.dim[x->shape.rank - 1], rows = x->shape.rank > 1 ? x->shape.dim[0] : 1;
    struct mo_ml_result result;
    MO_TRY(mo_ml_open_result(r, &result, n, rows, l->n_classes, MO_F32, l->is_classifier));
    for (int64_t i = 0; i < rows; i++) {
        score_row(l, x->dtype, h->in[0], i * width, width, score);
        mo_ml_store(&result, i, l->is_classifier ? decide(l, score) : 0, l->post, score);
    }
    mo_ml_put_result(&result, h, l->is_classifier ? 1 : 0);
    mo_ml_close_result(&result);
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct linear *l = *mo_run_handle(r, n);
    struct mo_host h;
    double *score = mo_mem_new((size_t)l->n_classes + 1, sizeof *score);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !score)
        status = mo_no_memory(r->ctx, (size_t)l->n_classes * sizeof *score, "scores");
    if (!status)
        status = compute(r, n, l, &h, score);
    mo_mem_free(score);
    mo_host_close(&h);
    return status;
}

/* A product for each coefficient and row. */
static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_attr *a = mo_node_attr(n, "coefficients");
    const struct mo_shape *x = &mo_in(g, n, 0)->shape;
    int64_t rows = x->rank == 2 ? x->dim[0] : x->rank == 1 ? 1 : MO_UNKNOWN;
    return mo_product((int64_t[]){ rows, a ? (int64_t)a->n : 0 }, 2);
}

const struct mo_op mo_op_linear_regressor = {
    .type = "LinearRegressor", .domain = "ai.onnx.ml",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward, .macs = macs,
};
const struct mo_op mo_op_linear_classifier = {
    .type = "LinearClassifier", .domain = "ai.onnx.ml",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 2,
    .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward, .macs = macs,
};
