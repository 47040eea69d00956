/* TfIdfVectorizer over whole numbers or texts: how often each n-gram of a pool occurs in a row of x, its items up to
 * max_skip_count others apart.
 *
 *     TF  the count        IDF  1, or its weight, where it occurs        TFIDF  the count times its weight
 *
 * The pool holds the n-grams of one item, then those of two, ..., beginning at ngram_counts; n-gram i counts into
 * column ngram_indexes[i]. Texts are compared by the numbers that stand for them (texts.h). */
#include <stdlib.h>
#include <string.h>

#include "lib/ops/text.h"

enum weighting { BY_TF, BY_IDF, BY_TFIDF };

struct vectorizer {
    enum weighting weighting;
    int64_t min_length, max_length, n_skips;
    const int64_t *pool, *starts, *columns;     /* of the attributes */
    size_t n_pool, n_starts, n_columns;
    const float *weights;                       /* by column; NULL: 1 */
    int64_t n_outputs;
};

/* ---- infer ---- */

static enum mopt_status read_mode(struct mopt_ctx *ctx, const struct mo_node *n, struct vectorizer *p)
{
    static const char *const names[] = { "TF", "IDF", "TFIDF" };
    const char *text = mo_node_text(n, "mode", "");
    for (size_t i = 0; i < MO_COUNT(names); i++)
        if (!strcmp(text, names[i])) {
            p->weighting = (enum weighting)i;
            return MOPT_OK;
        }
    return mo_fail(ctx, MOPT_DATA, "mode '%s', it should be TF, IDF or TFIDF", text);
}

/* Where the n-grams of `length` items lie in the pool, and how many there are. */
static size_t grams_of(const struct vectorizer *p, int64_t length, size_t *begin)
{
    size_t end = (size_t)length < p->n_starts ? (size_t)p->starts[length] : p->n_pool;
    *begin = (size_t)p->starts[length - 1];
    return (end - *begin) / (size_t)length;
}

static enum mopt_status check_pool(struct mopt_ctx *ctx, const struct vectorizer *p)
{
    size_t n_grams = 0;
    for (size_t k = 0; k < p->n_starts; k++) {
        int64_t end = k + 1 < p->n_starts ? p->starts[k + 1] : (int64_t)p->n_pool;
        if (p->starts[k] < 0 || end < p->starts[k] || end > (int64_t)p->n_pool)
            return mo_fail(ctx, MOPT_DATA, "ngram_counts[%zu] is %lld in a pool of %zu", k, (long long)p->starts[k],
                           p->n_pool);
        n_grams += (size_t)(end - p->starts[k]) / (k + 1);
    }
    if (n_grams > p->n_columns)
        return mo_fail(ctx, MOPT_DATA, "%zu ngram_indexes for %zu n-grams", p->n_columns, n_grams);
    return MOPT_OK;
}

static enum mopt_status read_attrs(struct mopt_ctx *ctx, const struct mo_node *n, struct vectorizer *p)
{
    const struct mo_attr *weights = mo_node_attr(n, "weights");
    p->min_length = mo_node_int(n, "min_gram_length", 1);
    p->max_length = mo_node_int(n, "max_gram_length", 1);
    p->n_skips = mo_node_int(n, "max_skip_count", 0);
    const struct mo_attr *texts = mo_node_attr(n, "pool_strings");
    p->pool = mo_node_ints(n, "pool_int64s", &p->n_pool);
    if (texts && texts->kind == MO_ATTR_STRINGS)
        p->n_pool = texts->n;
    p->starts = mo_node_ints(n, "ngram_counts", &p->n_starts);
    p->columns = mo_node_ints(n, "ngram_indexes", &p->n_columns);
    MO_TRY(read_mode(ctx, n, p));
    if (p->min_length < 1 || p->max_length < p->min_length || p->max_length > (int64_t)p->n_starts || p->n_skips < 0 ||
        p->n_skips > INT32_MAX)
        return mo_fail(ctx, MOPT_DATA, "n-grams of %lld to %lld items, %lld skipped, with ngram_counts for %zu",
                       (long long)p->min_length, (long long)p->max_length, (long long)p->n_skips, p->n_starts);
    MO_TRY(check_pool(ctx, p));
    for (size_t k = 0; k < p->n_columns; k++) {
        if (p->columns[k] < 0 || p->columns[k] > INT32_MAX)
            return mo_fail(ctx, MOPT_DATA, "ngram_indexes[%zu] is %lld", k, (long long)p->columns[k]);
        p->n_outputs = MO_MAX(p->n_outputs, p->columns[k] + 1);
    }
    if (!weights || weights->kind != MO_ATTR_FLOATS)
        return MOPT_OK;
    if ((int64_t)weights->n < p->n_outputs)
        return mo_fail(ctx, MOPT_DATA, "%zu weights for %lld columns", weights->n, (long long)p->n_outputs);
    p->weights = weights->floats;
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct vectorizer *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    bool is_text = mo_node_attr(n, "pool_strings") != NULL;
    if (x->dtype != MO_UNDEFINED && (is_text ? x->dtype != MO_STRING : x->dtype != MO_I32 && x->dtype != MO_I64))
        return mo_fail(ctx, MOPT_DATA, "an input of %s, it should be %s", mo_dtype_name(x->dtype),
                       is_text ? "string" : "int32 or int64");
    MO_TRY(read_attrs(ctx, n, p));
    if (y.rank != MO_UNKNOWN && y.rank != 1 && y.rank != 2)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be 1 or 2", y.rank);
    if (y.rank != MO_UNKNOWN)
        y.dim[y.rank - 1] = p->n_outputs;
    mo_set_out(g, n, 0, MO_F32, &y);
    return MOPT_OK;
}

/* ---- searching ---- */

/* The n-grams of one length, sorted; of equal ones the last counts. */
struct grams {
    const int64_t *items;
    int64_t length;
    size_t *order, n, first;            /* first: number of its first n-gram among all */
};

static int compare_items(const int64_t *a, const int64_t *b, int64_t step_b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (a[i] != b[i * step_b])
            return a[i] < b[i * step_b] ? -1 : 1;
    return 0;
}

static int by_items(const void *a, const void *b, void *arg)
{
    const struct grams *s = arg;
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    int order = compare_items(s->items + x * (size_t)s->length, s->items + y * (size_t)s->length, 1, s->length);
    return order ? order : (x > y) - (x < y);
}

/* The number of the n-gram of x's items, `step` apart; -1: not in the pool. */
static int64_t find(const struct grams *s, const int64_t *x, int64_t step)
{
    size_t low = 0, high = s->n;
    while (low < high) {        /* the first that is greater */
        size_t middle = low + (high - low) / 2;
        if (compare_items(s->items + s->order[middle] * (size_t)s->length, x, step, s->length) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || compare_items(s->items + s->order[low - 1] * (size_t)s->length, x, step, s->length))
        return -1;
    return (int64_t)(s->first + s->order[low - 1]);
}

/* Counts of one length in one row. */
static void count_row(const struct vectorizer *p, const struct grams *s, const int64_t *x, int64_t n, float *y)
{
    /* Further apart than the row is long there is nothing; single items are not apart. */
    int64_t most = s->length == 1 ? 1 : MO_MIN(p->n_skips + 1, n);
    for (int64_t step = 1; step <= most; step++)
        for (int64_t i = 0; i + step * (s->length - 1) < n; i++) {
            int64_t gram = find(s, x + i, step);
            if (gram >= 0)
                y[p->columns[gram]] += 1;
        }
}

static void weigh(const struct vectorizer *p, int64_t rows, float *y)
{
    for (int64_t i = 0; p->weighting != BY_TF && i < rows * p->n_outputs; i++) {
        float weight = p->weights ? p->weights[i % p->n_outputs] : 1;
        y[i] = p->weighting == BY_IDF ? (y[i] > 0 ? weight : 0) : y[i] * weight;
    }
}

static enum mopt_status count_all(struct mopt_ctx *ctx, const struct vectorizer *p, const int64_t *pool,
                                  const int64_t *x, int64_t rows, int64_t n, float *y)
{
    struct grams s = { .order = mo_mem_new(p->n_pool + 1, sizeof *s.order) };
    if (!s.order)
        return mo_no_memory(ctx, p->n_pool * sizeof *s.order, "n-grams");
    for (s.length = 1; s.length <= p->max_length; s.length++) {
        size_t begin;
        s.first += s.n;
        s.n = grams_of(p, s.length, &begin);
        s.items = pool + begin;
        if (s.length < p->min_length)
            continue;
        for (size_t i = 0; i < s.n; i++)
            s.order[i] = i;
        qsort_r(s.order, s.n, sizeof *s.order, by_items, &s);
        for (int64_t row = 0; row < rows; row++)
            count_row(p, &s, x + row * n, n, y + row * p->n_outputs);
    }
    mo_mem_free(s.order);
    weigh(p, rows, y);
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct vectorizer *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t length = x->shape.dim[x->shape.rank - 1], rows = x->shape.rank == 2 ? x->shape.dim[0] : 1;
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    float *y = mo_mem_new(mo_run_out_elems(r, n, 0) + 1, sizeof *y);
    int64_t *items = mo_mem_new((size_t)mo_value_elems(x) + 1, sizeof *items), *texts = NULL;
    size_t n_texts;
    if (!status && (!y || !items))
        status = mo_no_memory(r->ctx, mo_run_out_elems(r, n, 0) * sizeof *y, "counts of n-grams");
    for (int64_t i = 0; !status && i < mo_value_elems(x); i++)
        items[i] = mo_host_int(x->dtype, h.in[0], i);
    if (!status && x->dtype == MO_STRING)
        status = mo_text_attr(r, mo_node_attr(n, "pool_strings"), &texts, &n_texts);
    if (!status)
        status = count_all(r->ctx, p, texts ? texts : p->pool, items, rows, length, y);
    if (!status)
        mo_host_put(&h, 0, y);
    mo_mem_free(y);
    mo_mem_free(items);
    mo_mem_free(texts);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_tfidf_vectorizer = {
    .type = "TfIdfVectorizer",
    .since_opset = 9,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct vectorizer),
    .infer = infer, .forward = forward,
    .macs = mo_macs_zero,
};
