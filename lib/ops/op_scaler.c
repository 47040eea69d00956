/* Scaler, Normalizer, Imputer, OneHotEncoder, LabelEncoder, CategoryMapper, FeatureVectorizer of ai.onnx.ml: what pipelines
 * of scikit-learn put before a model. Categories, keys and values may be texts, which are numbers here (texts.h).
 *
 *   Scaler             y = (x - offset) scale, of one number or one for each feature
 *   Normalizer         y = x / norm of its row: largest magnitude, sum of magnitudes, or root of the sum of squares
 *   Imputer            x, or where it is the replaced value (not-a-number too) that of its feature
 *   OneHotEncoder      y[..., k] = x is category k
 *   LabelEncoder       the value at the place of x among the keys
 *   CategoryMapper     the same from texts to numbers, or from numbers to texts
 *   FeatureVectorizer  features side by side */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/graph/expand.h"
#include "lib/ops/ml.h"
#include "lib/ops/text.h"

struct table {
    double *a, *b;              /* offsets, scales; imputed values; categories; keys, values */
    size_t n_a, n_b;
    double number;              /* Imputer: what is replaced; LabelEncoder: what unknown keys become */
    int norm;
};

static const char *const kinds[] = { "Scaler", "Normalizer", "Imputer", "OneHotEncoder", "LabelEncoder", "CategoryMapper" };
enum kind { SCALER, NORMALIZER, IMPUTER, ONE_HOT, LABEL, CATEGORY };

static enum kind kind_of(const struct mo_node *n)
{
    int k = 0;
    while (k < CATEGORY && strcmp(n->type, kinds[k]))
        k++;
    return (enum kind)k;
}

static bool is_integer(enum mo_dtype dtype)
{
    return dtype == MO_I64 || dtype == MO_I32 || dtype == MO_I16;
}

static void release(struct table *t)
{
    if (!t)
        return;
    mo_mem_free(t->a);
    mo_mem_free(t->b);
    mo_mem_free(t);
}

static bool has(const struct mo_node *n, const char *name)
{
    return mo_node_attr(n, name) != NULL;
}

/* ---- reading ---- */

static enum mopt_status read_norm(struct mopt_ctx *ctx, const struct mo_node *n, struct table *t)
{
    static const char *const norms[] = { "MAX", "L1", "L2" };
    const char *text = mo_node_text(n, "norm", "MAX");
    while (t->norm < 3 && strcmp(text, norms[t->norm]))
        t->norm++;
    return t->norm < 3 ? MOPT_OK : mo_fail(ctx, MOPT_DATA, "the norm '%.40s', it should be MAX, L1 or L2", text);
}

static enum mopt_status read_imputer(struct mopt_ctx *ctx, const struct mo_node *n, struct table *t)
{
    bool is_float = has(n, "imputed_value_floats");
    MO_TRY(mo_ml_numbers(ctx, n, is_float ? "imputed_value_floats" : "imputed_value_int64s", NULL, &t->a, &t->n_a));
    t->number = is_float ? (double)mo_node_float(n, "replaced_value_float", 0)
                         : (double)mo_node_int(n, "replaced_value_int64", 0);
    return MOPT_OK;
}

/* A list of texts as the numbers that stand for them. */
static enum mopt_status read_texts(struct mo_run *r, const struct mo_attr *a, double **out, size_t *count)
{
    int64_t *numbers = NULL;
    enum mopt_status status = mo_text_attr(r, a, &numbers, count);
    if (!status && !(*out = mo_mem_new(*count + 1, sizeof **out)))
        status = mo_no_memory(r->ctx, *count * sizeof **out, "a list of strings");
    for (size_t i = 0; !status && i < *count; i++)
        (*out)[i] = (double)numbers[i];
    mo_mem_free(numbers);
    return status;
}

/* The list of attribute `name`, of texts or numbers; empty where there is none. */
static enum mopt_status read_list(struct mo_run *r, const struct mo_node *n, const char *name, double **out, size_t *count)
{
    const struct mo_attr *a = mo_node_attr(n, name);
    if (a && (a->kind == MO_ATTR_STRINGS || (a->kind == MO_ATTR_TENSOR && a->tensors[0].dtype == MO_STRING)))
        return read_texts(r, a, out, count);
    return mo_ml_numbers(r->ctx, n, name, NULL, out, count);
}

static enum mopt_status read_one_of(struct mo_run *r, const struct mo_node *n, const char *what, double **out, size_t *count)
{
    static const char *const suffixes[] = { "floats", "int64s", "tensor", "strings" };
    char name[32];
    for (size_t k = 0; k < MO_COUNT(suffixes); k++) {
        snprintf(name, sizeof name, "%s_%s", what, suffixes[k]);
        if (has(n, name))
            return read_list(r, n, name, out, count);
    }
    return mo_fail(r->ctx, MOPT_DATA, "it has no %s", what);
}

/* What unknown keys become: of the type of the values. */
static enum mopt_status read_default(struct mo_run *r, const struct mo_node *n, enum mo_dtype type, double *number)
{
    const struct mo_attr *tensor = mo_node_attr(n, "default_tensor");
    bool has_tensor = tensor && tensor->kind == MO_ATTR_TENSOR && tensor->tensors[0].data &&
                      mo_shape_elems(&tensor->tensors[0].shape) == 1 && tensor->tensors[0].dtype == type;
    if (type == MO_STRING) {
        int64_t text;
        const char *said = has_tensor ? tensor->tensors[0].strings[0] : mo_node_text(n, "default_string", "_Unused");
        MO_TRY(mo_texts_number(r->ctx, r->options.texts, said, strlen(said), &text));
        *number = (double)text;
    } else if (has_tensor) {
        *number = mo_ml_number(type, tensor->tensors[0].data, 0);
    } else {
        *number = type == MO_F32 ? (double)mo_node_float(n, "default_float", 0) : (double)mo_node_int(n, "default_int64", -1);
    }
    return MOPT_OK;
}

/* 0, 1, 2 ... */
static enum mopt_status read_places(struct mo_run *r, size_t n, double **out, size_t *count)
{
    *count = n;
    *out = mo_mem_new(n + 1, sizeof **out);
    for (size_t i = 0; *out && i < n; i++)
        (*out)[i] = (double)i;
    return *out ? MOPT_OK : mo_no_memory(r->ctx, n * sizeof **out, "places");
}

/* Of a LabelEncoder of opset 1, between classes and their places; of a CategoryMapper, between its lists; of others. */
static enum mopt_status read_label(struct mo_run *r, const struct mo_node *n, struct table *t)
{
    const struct mo_attr *classes = mo_node_attr(n, "classes_strings");
    enum mo_dtype type = mo_run_out_type(r, n, 0);
    bool from_text = mo_run_in_type(r, n, 0) == MO_STRING;
    if (kind_of(n) == CATEGORY) {
        MO_TRY(read_list(r, n, from_text ? "cats_strings" : "cats_int64s", &t->a, &t->n_a));
        MO_TRY(read_list(r, n, from_text ? "cats_int64s" : "cats_strings", &t->b, &t->n_b));
    } else if (classes) {
        MO_TRY(read_texts(r, classes, from_text ? &t->a : &t->b, from_text ? &t->n_a : &t->n_b));
        MO_TRY(read_places(r, classes->n, from_text ? &t->b : &t->a, from_text ? &t->n_b : &t->n_a));
    } else {
        MO_TRY(read_one_of(r, n, "keys", &t->a, &t->n_a));
        MO_TRY(read_one_of(r, n, "values", &t->b, &t->n_b));
    }
    if (t->n_a != t->n_b)
        return mo_fail(r->ctx, MOPT_DATA, "%zu keys and %zu values", t->n_a, t->n_b);
    return read_default(r, n, type, &t->number);
}

static enum mopt_status read_table(struct mo_run *r, const struct mo_node *n, struct table *t)
{
    struct mopt_ctx *ctx = r->ctx;
    switch (kind_of(n)) {
    case SCALER:
        MO_TRY(mo_ml_numbers(ctx, n, "offset", NULL, &t->a, &t->n_a));
        return mo_ml_numbers(ctx, n, "scale", NULL, &t->b, &t->n_b);
    case NORMALIZER: return read_norm(ctx, n, t);
    case IMPUTER: return read_imputer(ctx, n, t);
    case ONE_HOT: return read_list(r, n, has(n, "cats_strings") ? "cats_strings" : "cats_int64s", &t->a, &t->n_a);
    default: return read_label(r, n, t);
    }
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    struct table *t = mo_mem_new(1, sizeof *t);
    if (!t)
        return mo_no_memory(r->ctx, sizeof *t, "a table");
    *mo_run_handle(r, n) = t;
    bool takes_texts = kind_of(n) >= ONE_HOT, is_text = x->dtype == MO_STRING;
    if (is_text ? !takes_texts : x->dtype != MO_F32 && x->dtype != MO_F64 && !is_integer(x->dtype))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "its input is %s, it is computed for numbers%s", mo_dtype_name(x->dtype),
                       takes_texts ? " and texts" : " only");
    if (kind_of(n) == ONE_HOT && is_text != has(n, "cats_strings"))
        return mo_fail(r->ctx, MOPT_DATA, "its input is %s, its categories are not", mo_dtype_name(x->dtype));
    MO_TRY(read_table(r, n, t));
    int64_t width = x->shape.rank ? x->shape.dim[x->shape.rank - 1] : 1;
    bool is_by_feature = kind_of(n) == SCALER || kind_of(n) == IMPUTER;
    if (is_by_feature && ((t->n_a > 1 && t->n_a != (size_t)width) || (t->n_b > 1 && t->n_b != (size_t)width)))
        return mo_fail(r->ctx, MOPT_DATA, "numbers for %zu features, the input has %lld", MO_MAX(t->n_a, t->n_b),
                       (long long)width);
    return MOPT_OK;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    release(*mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

/* ---- computing ---- */

static double pick(const double *list, size_t n, int64_t k, double otherwise)
{
    return n == 0 ? otherwise : list[n == 1 ? 0 : k];
}

static double norm_of(int norm, const double *x, int64_t width)
{
    double sum = 0;
    for (int64_t k = 0; k < width; k++)
        sum = norm == 0 ? fmax(sum, fabs(x[k])) : norm == 1 ? sum + fabs(x[k]) : sum + x[k] * x[k];
    return norm == 2 ? sqrt(sum) : sum;
}

static double look_up(const struct table *t, double x)
{
    for (size_t k = 0; k < t->n_a; k++)
        if (t->a[k] == x || (isnan(t->a[k]) && isnan(x)))
            return t->b[k];
    return t->number;
}

/* One row of width numbers in place. */
static void change_row(const struct table *t, enum kind kind, double *x, int64_t width)
{
    double norm = kind == NORMALIZER ? norm_of(t->norm, x, width) : 0;
    for (int64_t k = 0; k < width; k++)
        switch (kind) {
        case SCALER: x[k] = (x[k] - pick(t->a, t->n_a, k, 0)) * pick(t->b, t->n_b, k, 1); break;
        case NORMALIZER: x[k] = norm != 0 ? x[k] / norm : x[k]; break;
        case IMPUTER:
            if (x[k] == t->number || (isnan(t->number) && isnan(x[k])))
                x[k] = pick(t->a, t->n_a, k, x[k]);
            break;
        default: x[k] = look_up(t, x[k]);
        }
}

static void set_number(enum mo_dtype dtype, void *y, int64_t i, double x)
{
    switch (dtype) {
    case MO_F32: ((float *)y)[i] = (float)x; break;
    case MO_F64: ((double *)y)[i] = x; break;
    case MO_I64: case MO_STRING: ((int64_t *)y)[i] = (int64_t)x; break;
    case MO_I32: ((int32_t *)y)[i] = (int32_t)x; break;
    case MO_I16: ((int16_t *)y)[i] = (int16_t)x; break;
    default: ((uint8_t *)y)[i] = (uint8_t)x;
    }
}

static enum mopt_status one_hot(struct mo_run *r, const struct mo_node *n, const struct table *t, const void *x, void *y)
{
    const struct mo_value *v = mo_in(r->graph, n, 0);
    bool takes_unknown = mo_node_int(n, "zeros", 1) != 0;
    for (int64_t i = 0; i < mo_value_elems(v); i++) {
        double key = mo_ml_number(v->dtype, x, i);
        bool is_found = false;
        for (size_t k = 0; k < t->n_a; k++) {
            bool is_one = (double)(int64_t)key == t->a[k];
            ((float *)y)[(size_t)i * t->n_a + k] = is_one;
            is_found |= is_one;
        }
        if (!is_found && !takes_unknown)
            return mo_fail(r->ctx, MOPT_DATA, "%g is none of its categories", key);
    }
    return MOPT_OK;
}

static void change_all(struct mo_run *r, const struct mo_node *n, const struct table *t, const void *x, double *row, void *y)
{
    const struct mo_value *v = mo_in(r->graph, n, 0);
    enum mo_dtype dtype = mo_out(r->graph, n, 0)->dtype;
    int64_t width = v->shape.rank ? v->shape.dim[v->shape.rank - 1] : 1, rows = width ? mo_value_elems(v) / width : 0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < width; k++)
            row[k] = mo_ml_number(v->dtype, x, i * width + k);
        change_row(t, kind_of(n), row, width);
        for (int64_t k = 0; k < width; k++)
            set_number(dtype, y, i * width + k, row[k]);
    }
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct table *t = *mo_run_handle(r, n);
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    struct mo_host h;
    double *row = mo_mem_new((size_t)(x->rank ? x->dim[x->rank - 1] : 1) + 1, sizeof *row);
    void *y = mo_mem_new(mo_run_out_elems(r, n, 0) + 1, sizeof(double));
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && (!row || !y))
        status = mo_no_memory(r->ctx, mo_run_out_elems(r, n, 0) * sizeof(double), "a result");
    if (!status && kind_of(n) == ONE_HOT)
        status = one_hot(r, n, t, h.in[0], y);
    else if (!status)
        change_all(r, n, t, h.in[0], row, y);
    if (!status)
        mo_host_put(&h, 0, y);
    mo_mem_free(row);
    mo_mem_free(y);
    mo_host_close(&h);
    return status;
}

/* ---- types and shapes ---- */

static enum mo_dtype label_type(const struct mo_node *n, enum mo_dtype from)
{
    if (kind_of(n) == CATEGORY || has(n, "classes_strings"))
        return from == MO_STRING ? MO_I64 : from == MO_UNDEFINED ? MO_UNDEFINED : MO_STRING;
    const struct mo_attr *tensor = mo_node_attr(n, "values_tensor");
    if (tensor && tensor->kind == MO_ATTR_TENSOR)
        return tensor->tensors[0].dtype;
    if (has(n, "values_strings"))
        return MO_STRING;
    return has(n, "values_floats") ? MO_F32 : MO_I64;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    enum kind kind = kind_of(n);
    struct mo_shape y = x->shape;
    const struct mo_attr *texts = mo_node_attr(n, "cats_strings");
    size_t n_cats = 0;
    mo_node_ints(n, "cats_int64s", &n_cats);
    if (kind == ONE_HOT && y.rank != MO_UNKNOWN) {
        if (y.rank == MO_MAX_RANK)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "an input of rank %d", y.rank);
        y.dim[y.rank++] = (int64_t)(n_cats ? n_cats : texts ? texts->n : 0);
    }
    mo_set_out(g, n, 0, kind >= LABEL ? label_type(n, x->dtype) : kind == IMPUTER ? x->dtype : MO_F32, &y);
    return MOPT_OK;
}

#define TABLE_OP(name, text)                                                                \
    const struct mo_op mo_op_##name = {                                                     \
        .type = text, .domain = "ai.onnx.ml", .since_opset = 1,                             \
        .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,                               \
        .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward,     \
        .macs = mo_macs_zero,                                                               \
    };
TABLE_OP(scaler, "Scaler")
TABLE_OP(normalizer, "Normalizer")
TABLE_OP(imputer, "Imputer")
TABLE_OP(one_hot_encoder, "OneHotEncoder")
TABLE_OP(label_encoder, "LabelEncoder")
TABLE_OP(category_mapper, "CategoryMapper")

/* ---- FeatureVectorizer ---- */

static enum mopt_status infer_vectorizer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape y = mo_shape_of(2, (int64_t)MO_UNKNOWN, (int64_t)0);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mo_value *x = mo_in(g, n, i);
        if (!x || x->shape.rank == MO_UNKNOWN) {
            y.dim[1] = MO_UNKNOWN;
            continue;
        }
        if (x->shape.rank != 2)
            return mo_fail(ctx, MOPT_DATA, "input %u has rank %d, it should be rows of features", i, x->shape.rank);
        y.dim[0] = y.dim[0] == MO_UNKNOWN ? x->shape.dim[0] : y.dim[0];
        y.dim[1] = y.dim[1] == MO_UNKNOWN || x->shape.dim[1] == MO_UNKNOWN ? MO_UNKNOWN : y.dim[1] + x->shape.dim[1];
    }
    mo_set_out(g, n, 0, MO_F32, &y);
    return MOPT_OK;
}

static enum mopt_status expand_vectorizer(struct mo_expand *e)
{
    mo_value_id parts[64], out = e->node->out[0];
    uint32_t n = e->node->n_in;
    if (n > MO_COUNT(parts))
        return mo_fail(e->ctx, MOPT_UNSUPPORTED, "%u inputs, at most %zu are taken", n, MO_COUNT(parts));
    for (uint32_t i = 0; i < n; i++)
        parts[i] = e->node->in[i];
    for (uint32_t i = 0; i < n; i++) {
        if (e->g->values[parts[i]].dtype == MO_F32)
            continue;
        parts[i] = mo_expand_op(e, "Cast", parts[i], MO_NONE, MO_NONE);
        mo_expand_int(e, "to", MO_F32);
    }
    mo_expand_node(e, "Concat", parts, n, out);
    mo_expand_int(e, "axis", 1);
    return MOPT_OK;
}

const struct mo_op mo_op_feature_vectorizer = {
    .type = "FeatureVectorizer", .domain = "ai.onnx.ml", .since_opset = 1,
    .min_in = 1, .max_in = -1, .min_out = 1, .max_out = 1,
    .infer = infer_vectorizer, .expand = expand_vectorizer, .macs = mo_macs_zero,
};
