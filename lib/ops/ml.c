/* ml.c - see ml.h. */
#include "lib/ops/ml.h"

#include <math.h>
#include <string.h>

#include "lib/ops/text.h"

enum mopt_status mo_ml_read_post(struct mopt_ctx *ctx, const struct mo_node *n, enum mo_ml_post *post)
{
    static const char *const names[] = { "NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT" };
    const struct mo_attr *a = mo_node_attr(n, "post_transform");
    int64_t number = a && a->kind == MO_ATTR_INT ? a->i : 0;
    while (a && a->kind == MO_ATTR_STRING && number < 5 && strcmp(a->s, names[number]))
        number++;
    if (number < 0 || number > 4)
        return mo_fail(ctx, MOPT_DATA, "post_transform should be NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT");
    *post = (enum mo_ml_post)number;
    return MOPT_OK;
}

double mo_ml_number(enum mo_dtype dtype, const void *data, int64_t i)
{
    switch (dtype) {
    case MO_F32: return (double)((const float *)data)[i];
    case MO_F64: return ((const double *)data)[i];
    default: return (double)mo_host_int(dtype, data, i);
    }
}

static bool is_number(enum mo_dtype dtype)
{
    return dtype == MO_F32 || dtype == MO_F64 || dtype == MO_I64 || dtype == MO_I32 || dtype == MO_I16 || dtype == MO_I8 ||
           dtype == MO_U8 || dtype == MO_BOOL;
}

enum mopt_status mo_ml_numbers(struct mopt_ctx *ctx, const struct mo_node *n, const char *name, const char *other,
                               double **numbers, size_t *count)
{
    const struct mo_attr *a = mo_node_attr(n, name);
    a = a || !other ? a : mo_node_attr(n, other);
    *numbers = NULL;
    *count = 0;
    if (!a)
        return MOPT_OK;
    bool is_tensor = a->kind == MO_ATTR_TENSOR && a->tensors && a->tensors[0].data && is_number(a->tensors[0].dtype);
    if (!is_tensor && a->kind != MO_ATTR_FLOATS && a->kind != MO_ATTR_INTS)
        return mo_fail(ctx, MOPT_DATA, "%s should be a list of numbers", a->name);
    size_t n_all = is_tensor ? (size_t)mo_shape_elems(&a->tensors[0].shape) : a->n;
    *numbers = mo_mem_new(n_all + 1, sizeof **numbers);
    if (!*numbers)
        return mo_no_memory(ctx, n_all * sizeof **numbers, "a list of numbers");
    *count = n_all;
    for (size_t i = 0; i < n_all; i++)
        (*numbers)[i] = is_tensor ? mo_ml_number(a->tensors[0].dtype, a->tensors[0].data, (int64_t)i)
                        : a->kind == MO_ATTR_FLOATS ? (double)a->floats[i] : (double)a->ints[i];
    return MOPT_OK;
}

enum mopt_status mo_ml_read_labels(struct mopt_ctx *ctx, const struct mo_node *n, struct mo_ml_labels *labels)
{
    const struct mo_attr *texts = mo_node_attr(n, "classlabels_strings");
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, "classlabels_int64s", &n_ints);
    if (!n_ints)
        ints = mo_node_ints(n, "classlabels_ints", &n_ints);
    *labels = (struct mo_ml_labels){ .ints = ints, .is_text = !n_ints, .n = n_ints };
    if (!n_ints && texts && texts->kind == MO_ATTR_STRINGS)
        labels->n = texts->n;
    return labels->n ? MOPT_OK : mo_fail(ctx, MOPT_DATA, "it has no class labels");
}

enum mopt_status mo_ml_set_outs(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_node *n,
                                const struct mo_ml_labels *labels, enum mo_dtype dtype, int64_t width)
{
    const struct mo_value *x = mo_in(g, n, 0);
    if (x->shape.rank != MO_UNKNOWN && x->shape.rank != 1 && x->shape.rank != 2)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be rows of features", x->shape.rank);
    int64_t rows = x->shape.rank == 2 ? x->shape.dim[0] : x->shape.rank == 1 ? 1 : MO_UNKNOWN;
    struct mo_shape classes = mo_shape_of(1, rows), y = mo_shape_of(2, rows, width);
    if (labels)
        mo_set_out(g, n, 0, labels->is_text ? MO_STRING : MO_I64, &classes);
    mo_set_out(g, n, labels ? 1 : 0, dtype, &y);
    return MOPT_OK;
}

enum mopt_status mo_ml_check_input(struct mopt_ctx *ctx, const struct mo_value *x)
{
    if (x->dtype != MO_F32 && x->dtype != MO_F64 && x->dtype != MO_I64 && x->dtype != MO_I32)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "its input is %s, it is computed for numbers only", mo_dtype_name(x->dtype));
    return x->shape.rank > 0 ? MOPT_OK : mo_fail(ctx, MOPT_DATA, "its input has no features");
}

/* The inverse of the normal distribution's integral: Acklam's rational approximation and one step of Halley. */
static double probit(double p)
{
    static const double a[] = { -3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02,
                                1.383577518672690e+02, -3.066479806614716e+01, 2.506628277459239e+00 };
    static const double b[] = { -5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                                6.680131188771972e+01, -1.328068155288572e+01 };
    static const double c[] = { -7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                                -2.549732539343734e+00, 4.374664141464968e+00, 2.938163982698783e+00 };
    static const double d[] = { 7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                                3.754408661907416e+00 };
    if (!(p > 0 && p < 1))
        return p == 0 ? -INFINITY : p == 1 ? INFINITY : NAN;
    double tail = p < 0.5 ? p : 1 - p, x;
    if (tail < 0.02425) {
        double q = sqrt(-2 * log(tail));
        x = (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
            ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
    } else {
        double q = tail - 0.5, t = q * q;
        x = (((((a[0] * t + a[1]) * t + a[2]) * t + a[3]) * t + a[4]) * t + a[5]) * q /
            (((((b[0] * t + b[1]) * t + b[2]) * t + b[3]) * t + b[4]) * t + 1);
    }
    double e = 0.5 * erfc(-x / sqrt(2)) - tail, u = e * sqrt(2 * acos(-1)) * exp(x * x / 2);
    x -= u / (1 + x * u / 2);
    return p < 0.5 ? x : -x;
}

/* exp(s - max) over their sum; with skip_zero, scores of 0 stay 0. */
static void softmax(int64_t n, double *score, bool skip_zero)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        max = skip_zero && score[i] == 0 ? max : fmax(max, score[i]);
    for (int64_t i = 0; i < n; i++) {
        score[i] = skip_zero && score[i] == 0 ? 0 : exp(score[i] - max);
        sum += score[i];
    }
    for (int64_t i = 0; sum > 0 && i < n; i++)
        score[i] /= sum;
}

void mo_ml_apply(enum mo_ml_post post, int64_t n, double *score)
{
    if (post == MO_ML_SOFTMAX || post == MO_ML_SOFTMAX_ZERO)
        softmax(n, score, post == MO_ML_SOFTMAX_ZERO);
    for (int64_t i = 0; i < n && post == MO_ML_LOGISTIC; i++)
        score[i] = 1 / (1 + exp(-score[i]));
    for (int64_t i = 0; i < n && post == MO_ML_PROBIT; i++)
        score[i] = probit(score[i]);
}

/* ---- results ---- */

enum mopt_status mo_ml_open_result(struct mo_run *r, struct mo_ml_result *result, const struct mo_node *n, int64_t rows,
                                   int64_t width, enum mo_dtype dtype, bool has_classes)
{
    const struct mo_value *class = has_classes ? mo_out(r->graph, n, 0) : NULL;
    *result = (struct mo_ml_result){ .rows = rows, .width = width, .dtype = dtype };
    if (has_classes)
        MO_TRY(mo_ml_read_labels(r->ctx, n, &result->labels));
    if (class && result->labels.is_text) {
        size_t n_labels;
        enum mopt_status status = mo_text_attr(r, mo_node_attr(n, "classlabels_strings"), &result->texts, &n_labels);
        if (status) {
            mo_ml_close_result(result);
            return status;
        }
        result->labels.ints = result->texts;
    }
    size_t n_scores;
    bool fits = mo_mul_size((size_t)rows, (size_t)width, &n_scores);
    result->score = fits ? mo_mem_new(n_scores + 1, sizeof(double)) : NULL;
    if (class)
        result->class = mo_mem_new((size_t)rows + 1, sizeof *result->class);
    if (!result->score || (class && !result->class)) {
        mo_ml_close_result(result);
        return mo_no_memory(r->ctx, (uint64_t)rows * sizeof(double), "scores");
    }
    return MOPT_OK;
}

void mo_ml_store(struct mo_ml_result *result, int64_t i, int64_t class, enum mo_ml_post post, double *score)
{
    mo_ml_apply(post, result->width, score);
    for (int64_t k = 0; k < result->width; k++)
        if (result->dtype == MO_F64)
            ((double *)result->score)[i * result->width + k] = score[k];
        else
            ((float *)result->score)[i * result->width + k] = (float)score[k];
    if (result->class)
        result->class[i] = result->labels.ints[class];
}

void mo_ml_put_result(struct mo_ml_result *result, struct mo_host *h, uint32_t at)
{
    mo_host_put(h, at, result->score);
    if (result->class)
        mo_host_put(h, 0, result->class);
}

void mo_ml_close_result(struct mo_ml_result *result)
{
    mo_mem_free(result->texts);
    mo_mem_free(result->class);
    mo_mem_free(result->score);
}
