/* SVMRegressor, SVMClassifier of ai.onnx.ml (as libsvm, Chang and Lin 2011): sums over support vectors s of
 * coefficient[s] kernel(s, x), with
 *
 *     LINEAR  <s, x>      POLY  (gamma <s, x> + coef0)^degree      RBF  exp(-gamma |s - x|^2)      SIGMOID  tanh(gamma <s, x> + coef0)
 *
 * A regressor gives the sum + rho. A classifier of c classes has a decision for each pair of them, whose support vectors
 * vote; with prob_a, prob_b a pair's probability is 1 / (1 + exp(a d + b)), and those of the classes are coupled (Wu, Lin and
 * Weng 2004, their second method). Without vectors_per_class the coefficients are those of linear decisions, one a class. */
#include <math.h>
#include <string.h>

#include "lib/ops/ml.h"

enum svm_kernel { LINEAR, POLY, RBF, SIGMOID };

struct svm {
    enum svm_kernel kernel;
    double gamma, coef0, degree;
    double *vectors, *coefficients, *rho, *prob_a, *prob_b;
    size_t n_vectors, n_coefficients, n_rho, n_a, n_b;
    const int64_t *per_class;
    int64_t n_classes, n_support, n_pairs;      /* n_support: support vectors; 0: linear */
    enum mo_ml_post post;
    bool is_classifier, is_one_class;
};

static bool is_classifier(const struct mo_node *n)
{
    return !strcmp(n->type, "SVMClassifier");
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_ml_labels labels;
    size_t n_pairs = 0;
    const struct mo_attr *rho = mo_node_attr(n, "rho");
    if (!is_classifier(n))
        return mo_ml_set_outs(ctx, g, n, NULL, MO_F32, 1);
    MO_TRY(mo_ml_read_labels(ctx, n, &labels));
    n_pairs = labels.n * (labels.n - 1) / 2;
    bool has_pairs = mo_node_attr(n, "vectors_per_class") && !mo_node_attr(n, "prob_a") && rho && labels.n > 2;
    return mo_ml_set_outs(ctx, g, n, &labels, MO_F32, (int64_t)(has_pairs ? n_pairs : labels.n));
}

/* ---- reading ---- */

static enum mopt_status read_kernel(struct mopt_ctx *ctx, const struct mo_node *n, struct svm *s)
{
    static const char *const names[] = { "LINEAR", "POLY", "RBF", "SIGMOID" };
    const char *text = mo_node_text(n, "kernel_type", "LINEAR");
    double *params = NULL;
    size_t count = 0;
    int k = 0;
    while (k < 4 && strcmp(text, names[k]))
        k++;
    if (k == 4)
        return mo_fail(ctx, MOPT_DATA, "the kernel '%.40s', it should be LINEAR, POLY, RBF or SIGMOID", text);
    s->kernel = (enum svm_kernel)k;
    MO_TRY(mo_ml_numbers(ctx, n, "kernel_params", NULL, &params, &count));
    if (count >= 3) {
        s->gamma = params[0];
        s->coef0 = params[1];
        s->degree = params[2];
    }
    mo_mem_free(params);
    return count == 0 || count >= 3 ? MOPT_OK : mo_fail(ctx, MOPT_DATA, "kernel_params should be gamma, coef0 and degree");
}

static enum mopt_status check_sizes(struct mopt_ctx *ctx, const struct mo_node *n, int64_t width, struct svm *s)
{
    size_t n_per = 0, n_coefficients = s->n_vectors / (size_t)MO_MAX(width, 1);
    int64_t sum = 0;
    s->per_class = mo_node_ints(n, "vectors_per_class", &n_per);
    s->n_support = s->is_classifier && !n_per ? 0 : (int64_t)n_coefficients;
    s->n_pairs = s->n_classes * (s->n_classes - 1) / 2;
    for (size_t i = 0; i < n_per; i++)
        sum = s->per_class[i] < 0 || s->per_class[i] > s->n_support ? -1 : sum < 0 ? -1 : sum + s->per_class[i];
    bool fits = width > 0 && s->n_vectors % (size_t)width == 0 && s->n_rho > 0;
    if (fits && s->is_classifier && s->n_support)
        fits = n_per == (size_t)s->n_classes && sum == s->n_support && s->n_classes >= 2 && s->n_rho == (size_t)s->n_pairs &&
               s->n_coefficients == (size_t)(s->n_support * (s->n_classes - 1)) && (s->n_a == 0 || s->n_a == s->n_rho) &&
               s->n_a == s->n_b;
    else if (fits && s->is_classifier)
        fits = s->n_coefficients == (size_t)(s->n_classes * width);
    else if (fits)
        fits = s->n_coefficients == (size_t)(s->n_support ? s->n_support : width);
    return fits ? MOPT_OK
                : mo_fail(ctx, MOPT_DATA, "its lists do not fit each other, or the %lld features", (long long)width);
}

static enum mopt_status read_svm(struct mopt_ctx *ctx, const struct mo_node *n, int64_t width, struct svm *s)
{
    struct mo_ml_labels labels = { .n = 1 };
    s->is_classifier = is_classifier(n);
    s->is_one_class = mo_node_int(n, "one_class", 0) != 0;
    if (s->is_classifier)
        MO_TRY(mo_ml_read_labels(ctx, n, &labels));
    s->n_classes = (int64_t)labels.n;
    if (labels.n > 1 << 12)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%zu classes", labels.n);
    MO_TRY(read_kernel(ctx, n, s));
    MO_TRY(mo_ml_read_post(ctx, n, &s->post));
    MO_TRY(mo_ml_numbers(ctx, n, "support_vectors", NULL, &s->vectors, &s->n_vectors));
    MO_TRY(mo_ml_numbers(ctx, n, "coefficients", NULL, &s->coefficients, &s->n_coefficients));
    MO_TRY(mo_ml_numbers(ctx, n, "rho", NULL, &s->rho, &s->n_rho));
    MO_TRY(mo_ml_numbers(ctx, n, "prob_a", NULL, &s->prob_a, &s->n_a));
    MO_TRY(mo_ml_numbers(ctx, n, "prob_b", NULL, &s->prob_b, &s->n_b));
    return check_sizes(ctx, n, width, s);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    struct svm *s = mo_mem_new(1, sizeof *s);
    if (!s)
        return mo_no_memory(r->ctx, sizeof *s, "support vectors");
    *mo_run_handle(r, n) = s;
    MO_TRY(mo_ml_check_input(r->ctx, x));
    return read_svm(r->ctx, n, x->shape.dim[x->shape.rank - 1], s);
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct svm *s = *mo_run_handle(r, n);
    if (!s)
        return;
    mo_mem_free(s->vectors);
    mo_mem_free(s->coefficients);
    mo_mem_free(s->rho);
    mo_mem_free(s->prob_a);
    mo_mem_free(s->prob_b);
    mo_mem_free(s);
    *mo_run_handle(r, n) = NULL;
}

/* ---- one row ---- */

static double kernel(const struct svm *s, const double *a, const double *x, int64_t width)
{
    double sum = 0;
    for (int64_t k = 0; k < width; k++)
        sum += s->kernel == RBF ? (a[k] - x[k]) * (a[k] - x[k]) : a[k] * x[k];
    switch (s->kernel) {
    case POLY: return pow(s->gamma * sum + s->coef0, s->degree);
    case RBF: return exp(-s->gamma * sum);
    case SIGMOID: return tanh(s->gamma * sum + s->coef0);
    default: return sum;
    }
}

static double regress(const struct svm *s, const double *x, int64_t width)
{
    double sum = s->n_support ? s->rho[0] : kernel(s, s->coefficients, x, width) + s->rho[0];
    for (int64_t i = 0; i < s->n_support; i++)
        sum += s->coefficients[i] * kernel(s, s->vectors + i * width, x, width);
    return s->is_one_class ? (sum > 0 ? 1 : -1) : sum;
}

/* Decisions of all pairs from the kernels of all support vectors: class i's coefficients against j lie in row j - 1, class
 * j's against i in row i. */
static void decide_pairs(const struct svm *s, const double *kernels, double *pair)
{
    int64_t p = 0, first_i = 0;
    for (int64_t i = 0; i < s->n_classes; first_i += s->per_class[i++]) {
        int64_t first_j = first_i + s->per_class[i];
        for (int64_t j = i + 1; j < s->n_classes; first_j += s->per_class[j++], p++) {
            double sum = s->rho[p];
            for (int64_t k = first_i; k < first_i + s->per_class[i]; k++)
                sum += s->coefficients[(j - 1) * s->n_support + k] * kernels[k];
            for (int64_t k = first_j; k < first_j + s->per_class[j]; k++)
                sum += s->coefficients[i * s->n_support + k] * kernels[k];
            pair[p] = sum;
        }
    }
}

static int64_t vote(const struct svm *s, const double *pair, double *votes)
{
    int64_t p = 0, best = 0;
    memset(votes, 0, (size_t)s->n_classes * sizeof *votes);
    for (int64_t i = 0; i < s->n_classes; i++)
        for (int64_t j = i + 1; j < s->n_classes; j++)
            votes[pair[p++] > 0 ? i : j] += 1;
    for (int64_t i = 1; i < s->n_classes; i++)
        best = votes[i] > votes[best] ? i : best;
    return best;
}

/* r: c x c, r[i, j] the probability of i among i and j; q: c x c scratch. */
static void couple(int64_t c, const double *r, double *q, double *prob, double *qp)
{
    for (int64_t i = 0; i < c; i++) {
        prob[i] = 1.0 / (double)c;
        q[i * c + i] = 0;
        for (int64_t j = 0; j < c; j++)
            if (j != i) {
                q[i * c + i] += r[j * c + i] * r[j * c + i];
                q[i * c + j] = -r[j * c + i] * r[i * c + j];
            }
    }
    for (int turn = 0; turn < 100; turn++) {
        double pqp = 0, worst = 0;
        for (int64_t i = 0; i < c; i++) {
            qp[i] = 0;
            for (int64_t j = 0; j < c; j++)
                qp[i] += q[i * c + j] * prob[j];
            pqp += prob[i] * qp[i];
        }
        for (int64_t i = 0; i < c; i++)
            worst = fmax(worst, fabs(qp[i] - pqp));
        if (worst < 0.005 / (double)c)
            return;
        for (int64_t i = 0; i < c; i++) {
            double step = (pqp - qp[i]) / q[i * c + i];
            prob[i] += step;
            pqp = (pqp + step * (step * q[i * c + i] + 2 * qp[i])) / (1 + step) / (1 + step);
            for (int64_t j = 0; j < c; j++) {
                qp[j] = (qp[j] + step * q[i * c + j]) / (1 + step);
                prob[j] /= 1 + step;
            }
        }
    }
}

/* Memory of a row: kernels, pairs, scores, and what coupling needs. */
struct row { double *x, *kernels, *pair, *score, *r, *q, *qp; };

static void probabilities(const struct svm *s, struct row *w)
{
    int64_t c = s->n_classes, p = 0;
    for (int64_t i = 0; i < c; i++)
        for (int64_t j = i + 1; j < c; j++, p++) {
            double share = 1 / (1 + exp(s->prob_a[p] * w->pair[p] + s->prob_b[p]));
            share = fmin(fmax(share, 1e-7), 1 - 1e-7);
            w->r[i * c + j] = share;
            w->r[j * c + i] = 1 - share;
        }
    couple(c, w->r, w->q, w->score, w->qp);         /* of two classes too: libsvm stops as early there */
}

static int64_t classify(const struct svm *s, int64_t width, struct row *w, enum mo_ml_post *post)
{
    int64_t best = 0;
    *post = s->post;
    if (!s->n_support) {
        for (int64_t t = 0; t < s->n_classes; t++) {
            w->score[t] = kernel(s, s->coefficients + t * width, w->x, width) + s->rho[MO_MIN((size_t)t, s->n_rho - 1)];
            best = w->score[t] > w->score[best] ? t : best;
        }
        return best;
    }
    for (int64_t k = 0; k < s->n_support; k++)
        w->kernels[k] = kernel(s, s->vectors + k * width, w->x, width);
    decide_pairs(s, w->kernels, w->pair);
    best = vote(s, w->pair, w->score);
    if (s->n_a) {                       /* the class is that of the votes, as libsvm and ONNX Runtime have it */
        probabilities(s, w);
    } else if (s->n_classes == 2) {            /* the specification leaves the sign open; this is ONNX Runtime's */
        w->score[0] = -w->pair[0];
        w->score[1] = w->pair[0];
    } else {
        memcpy(w->score, w->pair, (size_t)s->n_pairs * sizeof *w->pair);
    }
    return best;
}

/* ---- all rows ---- */

static enum mopt_status compute(struct mo_run *r, const struct mo_node *n, const struct svm *s, struct mo_host *h,
                                struct row *w)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t width = x->shape.dim[x->shape.rank - 1], rows = x->shape.rank > 1 ? x->shape.dim[0] : 1;
    bool has_pairs = s->is_classifier && s->n_support && !s->n_a && s->n_classes > 2;
    struct mo_ml_result result;
    MO_TRY(mo_ml_open_result(r, &result, n, rows, has_pairs ? s->n_pairs : s->n_classes, MO_F32, s->is_classifier));
    enum mopt_status status = MOPT_OK;
    for (int64_t i = 0; !status && i < rows; i++) {
        enum mo_ml_post post = s->post;
        int64_t class = 0;
        for (int64_t k = 0; k < width; k++)
            w->x[k] = mo_ml_number(x->dtype, h->in[0], i * width + k);
        if (s->is_classifier)
            class = classify(s, width, w, &post);
        else
            w->score[0] = regress(s, w->x, width);
        mo_ml_store(&result, i, class, post, w->score);
        status = i % 64 ? MOPT_OK : mo_stopped(r->ctx);
    }
    if (!status)
        mo_ml_put_result(&result, h, s->is_classifier ? 1 : 0);
    mo_ml_close_result(&result);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct svm *s = *mo_run_handle(r, n);
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    size_t width = (size_t)x->dim[x->rank - 1], c = (size_t)s->n_classes, pairs = c * (c - 1) / 2 + c;
    struct row w = { 0 };
    double *mem = mo_mem_new(width + (size_t)s->n_support + 2 * pairs + 2 * c * c + c + 8, sizeof *mem);
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !mem)
        status = mo_no_memory(r->ctx, width * sizeof *mem, "a row");
    if (!status) {
        w.x = mem;
        w.kernels = w.x + width;
        w.pair = w.kernels + s->n_support;
        w.score = w.pair + pairs;
        w.r = w.score + pairs;
        w.q = w.r + c * c;
        w.qp = w.q + c * c;
        status = compute(r, n, s, &h, &w);
    }
    mo_mem_free(mem);
    mo_host_close(&h);
    return status;
}

#define SVM_OP(name, text, outs)                                                            \
    const struct mo_op mo_op_##name = {                                                     \
        .type = text, .domain = "ai.onnx.ml", .since_opset = 1,                             \
        .min_in = 1, .max_in = 1, .min_out = 1, .max_out = outs,                            \
        .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward,     \
    };
SVM_OP(svm_regressor, "SVMRegressor", 1)
SVM_OP(svm_classifier, "SVMClassifier", 2)
