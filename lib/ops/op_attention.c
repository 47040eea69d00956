/* Attention (Vaswani et al. 2017) as ONNX has it since opset 23, for each head:
 *     S = scale Q K^T;  C = softcap tanh(S / softcap);  P = softmax(C + mask);  Y = P V
 *
 * Q, K, V are batch x heads x sequence x size, or batch x sequence x (heads size); the
 * matrix products step over the heads where they lie. Several query heads may share
 * a head of K and V. Past keys and values are put in front. What causality, window
 * and nonpad_kv_seqlen allow is one table of bytes, made on the host. A query that
 * may look nowhere gives 0. */
#include <math.h>
#include <string.h>

#include "lib/ops/ops.h"
#include "lib/run/run.h"

enum input { Q, K, V, MASK, PAST_K, PAST_V, KV_LENGTHS };
enum output { Y, PRESENT_K, PRESENT_V, SCORES };
enum shown { SHOWN_PRODUCT, SHOWN_CAPPED, SHOWN_MASKED, SHOWN_SOFTMAX };    /* qk_matmul_output_mode */

struct attention {
    bool is_flat;                           /* heads within the last axis */
    bool is_causal;
    int64_t left, right;                    /* window; -1: unbounded */
    int64_t batch, heads, kv_heads, queries, keys, past;    /* keys: the past ones too */
    int64_t size, value_size;               /* of a head */
    float scale, softcap;
    enum shown shown;
};

/* The handle: where the matrices of head i lie (elements). Ordered so that a stretch of
 * batch * kv_heads entries touches each head of K and V once. */
struct heads {
    int64_t n, *q, *k, *v, *y, *s;
    int64_t ld_q, ld_k, ld_v, ld_y;
    uint8_t *allowed;                       /* host; (batch or 1) x queries x keys */
};

/* ---- shapes ---------------------------------------------------------------------- */

static enum mopt_status read_attributes(struct mopt_ctx *ctx, const struct mo_node *n, struct attention *p)
{
    int64_t shown = mo_node_int(n, "qk_matmul_output_mode", 0);
    p->is_causal = mo_node_int(n, "is_causal", 0) != 0;
    p->left = mo_node_int(n, "left_window_size", -1);
    p->right = mo_node_int(n, "right_window_size", -1);
    p->softcap = mo_node_float(n, "softcap", 0.0f);
    if (shown < SHOWN_PRODUCT || shown > SHOWN_SOFTMAX)
        return mo_fail(ctx, MOPT_DATA, "qk_matmul_output_mode is %lld, it must be 0 to 3", (long long)shown);
    p->shown = (enum shown)shown;
    return MOPT_OK;
}

static bool agrees(int64_t a, int64_t b)
{
    return a == b || a == MO_UNKNOWN || b == MO_UNKNOWN;
}

/* Sizes from Q, K, V and the past; MO_UNKNOWN where not known. */
static enum mopt_status read_sizes(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                   struct attention *p)
{
    const struct mo_shape *q = &mo_in(g, n, Q)->shape, *k = &mo_in(g, n, K)->shape, *v = &mo_in(g, n, V)->shape;
    const struct mo_value *past = mo_in(g, n, PAST_K);
    if (q->rank != k->rank || q->rank != v->rank || (q->rank != 3 && q->rank != 4))
        return mo_fail(ctx, MOPT_DATA, "Q, K and V have ranks %d, %d and %d, they must all be 3 or 4", q->rank, k->rank,
                       v->rank);
    if (!agrees(q->dim[0], k->dim[0]) || !agrees(q->dim[0], v->dim[0]))
        return mo_fail(ctx, MOPT_DATA, "Q, K and V have %lld, %lld and %lld images", (long long)q->dim[0],
                       (long long)k->dim[0], (long long)v->dim[0]);
    if (q->rank == 4 && !agrees(k->dim[1], v->dim[1]))
        return mo_fail(ctx, MOPT_DATA, "K has %lld heads, V %lld", (long long)k->dim[1], (long long)v->dim[1]);
    p->is_flat = q->rank == 3;
    p->heads = p->is_flat ? mo_node_int(n, "q_num_heads", 0) : q->dim[1];
    p->kv_heads = p->is_flat ? mo_node_int(n, "kv_num_heads", 0) : k->dim[1];
    if (p->is_flat && (p->heads < 1 || p->kv_heads < 1))
        return mo_fail(ctx, MOPT_DATA, "q_num_heads and kv_num_heads are needed with inputs of rank 3");
    if (p->heads > 0 && p->kv_heads > 0 && p->heads % p->kv_heads)
        return mo_fail(ctx, MOPT_DATA, "%lld query heads for %lld heads of K", (long long)p->heads,
                       (long long)p->kv_heads);
    p->batch = q->dim[0];
    p->queries = q->dim[q->rank - 2];
    p->keys = k->dim[k->rank - 2];
    p->size = q->dim[q->rank - 1];
    p->value_size = v->dim[v->rank - 1];
    int64_t key_size = k->dim[k->rank - 1];
    if (p->is_flat) {
        if ((p->size >= 0 && p->size % p->heads) || (key_size >= 0 && key_size % p->kv_heads) ||
            (p->value_size >= 0 && p->value_size % p->kv_heads))
            return mo_fail(ctx, MOPT_DATA, "a last axis is not a whole number of heads");
        p->size = p->size >= 0 ? p->size / p->heads : MO_UNKNOWN;
        key_size = key_size >= 0 ? key_size / p->kv_heads : MO_UNKNOWN;
        p->value_size = p->value_size >= 0 ? p->value_size / p->kv_heads : MO_UNKNOWN;
    }
    if (p->size >= 0 && key_size >= 0 && p->size != key_size)
        return mo_fail(ctx, MOPT_DATA, "heads of Q have size %lld, of K %lld", (long long)p->size, (long long)key_size);
    if (p->keys >= 0 && v->dim[v->rank - 2] >= 0 && p->keys != v->dim[v->rank - 2])
        return mo_fail(ctx, MOPT_DATA, "%lld keys, %lld values", (long long)p->keys, (long long)v->dim[v->rank - 2]);
    if (!past != !mo_in(g, n, PAST_V) || (past && past->shape.rank != 4 && past->shape.rank != MO_UNKNOWN))
        return mo_fail(ctx, MOPT_DATA, "past_key and past_value must be given together, and have rank 4");
    p->past = past ? (past->shape.rank == 4 ? past->shape.dim[2] : MO_UNKNOWN) : 0;
    p->keys = p->keys >= 0 && p->past >= 0 ? p->keys + p->past : MO_UNKNOWN;
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct attention *p = n->params;
    const struct mo_value *q = mo_in(g, n, Q);
    enum mo_dtype dtype = q->dtype;
    MO_TRY(read_attributes(ctx, n, p));
    if (q->shape.rank == MO_UNKNOWN || mo_in(g, n, K)->shape.rank == MO_UNKNOWN ||
        mo_in(g, n, V)->shape.rank == MO_UNKNOWN) {
        for (uint32_t i = 0; i < n->n_out; i++)
            mo_set_out(g, n, i, dtype, &(struct mo_shape){.rank = MO_UNKNOWN});
        return MOPT_OK;
    }
    MO_TRY(read_sizes(ctx, g, n, p));
    p->scale = mo_node_float(n, "scale", p->size > 0 ? 1.0f / sqrtf((float)p->size) : 1.0f);
    struct mo_shape y = mo_shape_of(4, p->batch, p->heads, p->queries, p->value_size);
    if (p->is_flat)
        y = mo_shape_of(3, p->batch, p->queries, mo_product((int64_t[]){p->heads, p->value_size}, 2));
    struct mo_shape keys = mo_shape_of(4, p->batch, p->kv_heads, p->keys, p->size);
    struct mo_shape values = mo_shape_of(4, p->batch, p->kv_heads, p->keys, p->value_size);
    struct mo_shape scores = mo_shape_of(4, p->batch, p->heads, p->queries, p->keys);
    mo_set_out(g, n, Y, dtype, &y);
    mo_set_out(g, n, PRESENT_K, mo_in(g, n, K)->dtype, &keys);
    mo_set_out(g, n, PRESENT_V, mo_in(g, n, V)->dtype, &values);
    mo_set_out(g, n, SCORES, dtype, &scores);
    return MOPT_OK;
}

/* ---- preparing ---------------------------------------------------------------------- */

/* Head h of image b among `heads` heads with `rows` rows of `size`: flat, or one matrix after the other. */
static int64_t place(bool is_flat, int64_t b, int64_t h, int64_t heads, int64_t rows, int64_t size)
{
    return is_flat ? (b * rows * heads + h) * size : (b * heads + h) * rows * size;
}

static bool has_past(const struct mo_run *r, const struct mo_node *n)
{
    return mo_in(r->graph, n, PAST_K) != NULL;
}

static void fill_heads(const struct attention *p, bool is_kv_flat, struct heads *h)
{
    int64_t share = p->heads / p->kv_heads, i = 0;
    h->ld_q = p->is_flat ? p->heads * p->size : p->size;
    h->ld_y = p->is_flat ? p->heads * p->value_size : p->value_size;
    h->ld_k = is_kv_flat ? p->kv_heads * p->size : p->size;
    h->ld_v = is_kv_flat ? p->kv_heads * p->value_size : p->value_size;
    for (int64_t j = 0; j < share; j++)
        for (int64_t b = 0; b < p->batch; b++)
            for (int64_t kv = 0; kv < p->kv_heads; kv++, i++) {
                int64_t head = kv * share + j;
                h->q[i] = place(p->is_flat, b, head, p->heads, p->queries, p->size);
                h->y[i] = place(p->is_flat, b, head, p->heads, p->queries, p->value_size);
                h->k[i] = place(is_kv_flat, b, kv, p->kv_heads, p->keys, p->size);
                h->v[i] = place(is_kv_flat, b, kv, p->kv_heads, p->keys, p->value_size);
                h->s[i] = (b * p->heads + head) * p->queries * p->keys;
            }
}

/* One kernel for all of it, the scores not in memory. It takes one mask of each kind. */
static bool is_fused(const struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    const struct mo_value *mask = mo_in(r->graph, n, MASK);
    bool has_bytes = mask && mask->dtype == MO_BOOL;
    return r->be->fuses_attention && !mo_out(r->graph, n, SCORES) && p->size <= MO_ATTENTION_SIZE &&
           p->value_size <= MO_ATTENTION_SIZE && !(has_bytes && mo_in(r->graph, n, KV_LENGTHS)) &&
           !mo_run_wants_grad(r, n, MASK);
}

static bool has_table(const struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    if (is_fused(r, n))         /* the rest are two numbers for the kernel */
        return mo_in(r->graph, n, KV_LENGTHS) != NULL;
    return p->is_causal || p->left >= 0 || p->right >= 0 || mo_in(r->graph, n, KV_LENGTHS);
}

static int64_t table_batch(const struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    return mo_in(r->graph, n, KV_LENGTHS) ? p->batch : 1;
}

static size_t table_bytes(const struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    return has_table(r, n) ? (size_t)(table_batch(r, n) * p->queries * p->keys) : 0;
}

static enum mopt_status check_past(struct mo_run *r, const struct mo_node *n, enum input i, int64_t size)
{
    const struct attention *p = n->params;
    const struct mo_shape *past = &mo_in(r->graph, n, i)->shape;
    struct mo_shape want = mo_shape_of(4, p->batch, p->kv_heads, p->past, size);
    char got_text[128], want_text[128];
    if (mo_shape_equal(past, &want))
        return MOPT_OK;
    return mo_fail(r->ctx, MOPT_DATA, "input %d is %s, it must be %s", (int)i,
                   mo_shape_text(past, got_text, sizeof got_text), mo_shape_text(&want, want_text, sizeof want_text));
}

/* The mask is broadcast to batch x heads x queries x keys, where its last axis may end early. */
static enum mopt_status check_mask(struct mo_run *r, const struct mo_node *n, const struct mo_shape *mask)
{
    const struct attention *p = n->params;
    const int64_t want[4] = {p->batch, p->heads, p->queries, p->keys};
    char text[128];
    bool fits = mask->rank <= 4;
    for (int i = 0; fits && i < mask->rank; i++) {
        int axis = 4 - mask->rank + i;
        fits = mask->dim[i] == 1 || mask->dim[i] == want[axis] || (axis == 3 && mask->dim[i] < want[axis]);
    }
    if (fits)
        return MOPT_OK;
    return mo_fail(r->ctx, MOPT_DATA, "the mask is %s, the scores are %lldx%lldx%lldx%lld",
                   mo_shape_text(mask, text, sizeof text), (long long)want[0], (long long)want[1], (long long)want[2],
                   (long long)want[3]);
}

static enum mopt_status refuse(struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    const struct mo_value *mask = mo_in(r->graph, n, MASK);
    bool trains = mo_run_wants_grad(r, n, Q) || mo_run_wants_grad(r, n, K) || mo_run_wants_grad(r, n, V);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mo_value *v = mo_in(r->graph, n, i);
        if (v && v->dtype != MO_F32 && i != MASK && i != KV_LENGTHS)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", i,
                           mo_dtype_name(v->dtype));
    }
    if (has_past(r, n) && trains)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not trained with past keys and values");
    if (mask && mask->dtype != MO_F32 && mask->dtype != MO_BOOL)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "a mask of type %s is not computed", mo_dtype_name(mask->dtype));
    if (mask)
        MO_TRY(check_mask(r, n, &mask->shape));
    if (has_past(r, n)) {
        MO_TRY(check_past(r, n, PAST_K, p->size));
        MO_TRY(check_past(r, n, PAST_V, p->value_size));
    }
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    MO_TRY(refuse(r, n));
    size_t count = (size_t)(p->batch * p->heads);
    struct heads *h = mo_mem_new(1, sizeof *h);
    int64_t *places = mo_mem_new(5 * count + 1, sizeof *places);
    uint8_t *allowed = mo_mem_new(table_bytes(r, n) + 1, 1);
    if (!h || !places || !allowed) {
        mo_mem_free(h);
        mo_mem_free(places);
        mo_mem_free(allowed);
        return mo_no_memory(r->ctx, 5 * count * sizeof *places + table_bytes(r, n), "the plan of an Attention");
    }
    *h = (struct heads){.n = (int64_t)count, .q = places, .k = places + count, .v = places + 2 * count,
                        .y = places + 3 * count, .s = places + 4 * count, .allowed = allowed};
    if (count)
        fill_heads(p, p->is_flat && !has_past(r, n), h);
    *mo_run_handle(r, n) = h;
    return MOPT_OK;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct heads *h = *mo_run_handle(r, n);
    if (!h)
        return;
    mo_mem_free(h->q);
    mo_mem_free(h->allowed);
    mo_mem_free(h);
    *mo_run_handle(r, n) = NULL;
}

/* ---- memory: what one call needs beside its outputs -------------------------------------- */

struct memory {
    float *scores, *capped;         /* probabilities in the end; softcap's result, when training needs it */
    float *keys, *values;           /* with the past in front, where they are no outputs */
    uint8_t *bytes;                 /* the table, and comparisons */
    float *constants;               /* -infinity, 0 */
    void *mask;                     /* a mask for fewer keys than there are, made as long as they are */
};

/* Keys that the mask speaks of; 0: all, or one entry for all. */
static int64_t short_width(const struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    const struct mo_value *mask = mo_in(r->graph, n, MASK);
    int64_t width = mask && mask->shape.rank ? mask->shape.dim[mask->shape.rank - 1] : 1;
    return width > 1 && width < p->keys ? width : 0;
}

static size_t long_mask_elems(const struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    int64_t width = short_width(r, n);
    return width ? mo_run_in_elems(r, n, MASK) / (size_t)width * (size_t)p->keys : 0;
}

static size_t scores_elems(const struct attention *p)
{
    return (size_t)(p->batch * p->heads * p->queries * p->keys);
}

static size_t aligned(size_t bytes)
{
    return (bytes + MO_ALIGN_BYTES - 1) / MO_ALIGN_BYTES * MO_ALIGN_BYTES;
}

/* Deals `base` out; base NULL only counts. The scores lie in saved memory while training. */
static size_t deal(const struct mo_run *r, const struct mo_node *n, char *base, struct memory *m)
{
    const struct attention *p = n->params;
    size_t kv = (size_t)(p->batch * p->kv_heads * p->keys), at = 0;
    size_t n_scores = is_fused(r, n) ? 0 : scores_elems(p);
    size_t sizes[6] = {
        r->options.train ? 0 : n_scores * sizeof(float),
        has_past(r, n) && !mo_out(r->graph, n, PRESENT_K) ? kv * (size_t)p->size * sizeof(float) : 0,
        has_past(r, n) && !mo_out(r->graph, n, PRESENT_V) ? kv * (size_t)p->value_size * sizeof(float) : 0,
        n_scores + table_bytes(r, n),
        2 * sizeof(float),
        long_mask_elems(r, n) * sizeof(float),
    };
    char *part[6];
    for (int i = 0; i < 6; i++) {
        part[i] = base ? base + at : NULL;
        at += aligned(sizes[i]);
    }
    *m = (struct memory){.scores = (float *)part[0], .keys = (float *)part[1], .values = (float *)part[2],
                         .bytes = (uint8_t *)part[3], .constants = (float *)part[4], .mask = part[5]};
    return at;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    struct memory m;
    if (!backward || is_fused(r, n))        /* the masks are laid out again */
        return deal(r, n, NULL, &m);
    return scores_elems(n->params) * sizeof(float);
}

static size_t saved_bytes(const struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    if (r->options.train && is_fused(r, n))
        return (size_t)(p->batch * p->heads * p->queries) * sizeof(float);      /* log(sum(exp)) */
    return r->options.train ? scores_elems(p) * sizeof(float) * (p->softcap > 0.0f ? 2 : 1) : 0;
}

/* ---- forward ------------------------------------------------------------------------------- */

/* Rows of x (input i) behind the past ones into the heads of `to`. */
static void join(struct mo_run *r, const struct mo_node *n, enum input i, enum input past, int64_t size, float *to)
{
    const struct attention *p = n->params;
    int64_t fresh = p->keys - p->past;
    const int64_t of_to[4] = {p->kv_heads * p->keys * size, p->keys * size, size, 1};
    const int64_t of_heads[4] = {p->kv_heads * fresh * size, fresh * size, size, 1};
    const int64_t of_flat[4] = {p->kv_heads * fresh * size, size, p->kv_heads * size, 1};
    const int64_t of_past[4] = {p->kv_heads * p->past * size, p->past * size, size, 1};
    const int64_t dims[4] = {p->batch, p->kv_heads, fresh, size}, past_dims[4] = {p->batch, p->kv_heads, p->past, size};
    if (p->past)
        r->be->copy_strided(r->dev, sizeof *to, 4, past_dims, of_past, of_to, mo_run_in(r, n, past), to);
    r->be->copy_strided(r->dev, sizeof *to, 4, dims, p->is_flat ? of_flat : of_heads, of_to, mo_run_in(r, n, i),
                        to + p->past * size);
}

/* Which key each query may look at: j <= i + offset, within the window, below the length. */
static enum mopt_status fill_table(struct mo_run *r, const struct mo_node *n, uint8_t *allowed)
{
    const struct attention *p = n->params;
    const struct mo_value *lengths = mo_in(r->graph, n, KV_LENGTHS);
    for (int64_t b = 0; b < table_batch(r, n); b++) {
        int64_t length = p->keys, offset = p->past;
        if (lengths) {
            const char *from = mo_run_in(r, n, KV_LENGTHS);
            if (lengths->dtype != MO_I64 || mo_value_elems(lengths) != p->batch)
                return mo_fail(r->ctx, MOPT_DATA, "nonpad_kv_seqlen is not an int64 for each image");
            r->be->download(r->dev, &length, from + (size_t)b * sizeof length, sizeof length);
            offset = has_past(r, n) ? p->past : length - p->queries;
        }
        for (int64_t i = 0; i < p->queries; i++)
            for (int64_t j = 0; j < p->keys; j++) {
                int64_t ahead = j - i - offset;
                *allowed++ = j < length && (!p->is_causal || ahead <= 0) && (p->left < 0 || -ahead <= p->left) &&
                             (p->right < 0 || ahead <= p->right);
            }
    }
    return MOPT_OK;
}

/* Strides of the mask against batch x heads x queries x its own keys; 0 where it is repeated. */
static void mask_strides(const struct mo_shape *mask, int64_t stride[4])
{
    int64_t step = 1;
    for (int i = 3; i >= 0; i--) {
        int k = i - (4 - mask->rank);
        int64_t size = k >= 0 ? mask->dim[k] : 1;
        stride[i] = size == 1 ? 0 : step;
        step *= size;
    }
}

/* scores = chosen ? scores : -infinity */
static void choose(struct mo_run *r, const int64_t dims[4], const int64_t of_scores[4], const int64_t of_chosen[4],
                   const uint8_t *chosen, const float *otherwise, float *scores)
{
    static const int64_t still[4] = {0, 0, 0, 0};
    r->be->where(r->dev, sizeof *scores, 4, dims, of_chosen, of_scores, still, chosen, scores, otherwise, scores);
}

/* Keys behind a short mask are not to be seen: -infinity, or false. */
static const void *lengthen(struct mo_run *r, const struct mo_node *n, struct mo_shape *shape, void *mask)
{
    const struct attention *p = n->params;
    int64_t width = short_width(r, n), n_rows = mo_shape_elems(shape) / width;
    const float lowest = -INFINITY;
    const uint8_t no = 0;
    bool is_bool = mo_in(r->graph, n, MASK)->dtype == MO_BOOL;
    size_t elem_bytes = is_bool ? sizeof no : sizeof lowest;
    const int64_t dims[2] = {n_rows, width}, from[2] = {width, 1}, to[2] = {p->keys, 1};
    r->be->fill(r->dev, elem_bytes, (size_t)(n_rows * p->keys), is_bool ? (const void *)&no : &lowest, mask);
    r->be->copy_strided(r->dev, elem_bytes, 2, dims, from, to, mo_run_in(r, n, MASK), mask);
    shape->dim[shape->rank - 1] = p->keys;
    return mask;
}

static enum mopt_status apply_mask(struct mo_run *r, const struct mo_node *n, const struct memory *m)
{
    const struct attention *p = n->params;
    const struct mo_value *value = mo_in(r->graph, n, MASK);
    const int64_t dims[4] = {p->batch, p->heads, p->queries, p->keys};
    const int64_t of_scores[4] = {p->heads * p->queries * p->keys, p->queries * p->keys, p->keys, 1};
    int64_t of_mask[4];
    if (has_table(r, n)) {
        const struct heads *h = *mo_run_handle(r, n);
        const int64_t of_table[4] = {table_batch(r, n) > 1 ? p->queries * p->keys : 0, 0, p->keys, 1};
        MO_TRY(fill_table(r, n, h->allowed));
        r->be->upload(r->dev, m->bytes, h->allowed, table_bytes(r, n));
        choose(r, dims, of_scores, of_table, m->bytes, m->constants, m->scores);
    }
    if (!value)
        return MOPT_OK;
    struct mo_shape shape = value->shape;
    const void *mask = short_width(r, n) ? lengthen(r, n, &shape, m->mask) : mo_run_in(r, n, MASK);
    mask_strides(&shape, of_mask);
    if (value->dtype == MO_BOOL)
        choose(r, dims, of_scores, of_mask, mask, m->constants, m->scores);
    else
        r->be->binary(r->dev, MO_ADD, MO_F32, 4, dims, of_scores, of_mask, m->scores, mask, m->scores);
    return MOPT_OK;
}

/* A row of nothing but -infinity has become NaN: nothing is looked at. */
static void clear_empty_rows(struct mo_run *r, size_t n_elems, const struct memory *m)
{
    const int64_t dims[1] = {(int64_t)n_elems}, one[1] = {1}, still[1] = {0};
    r->be->binary(r->dev, MO_EQUAL, MO_F32, 1, dims, one, one, m->scores, m->scores, m->bytes);
    r->be->where(r->dev, sizeof(float), 1, dims, one, one, still, m->bytes, m->scores, m->constants + 1, m->scores);
}

static void show(struct mo_run *r, const struct mo_node *n, enum shown stage, const float *scores)
{
    const struct attention *p = n->params;
    if (p->shown == stage && mo_run_out(r, n, SCORES))
        r->be->axpy(r->dev, scores_elems(p), 1.0f, scores, mo_run_out(r, n, SCORES), false);
}

/* From Q and K to the probabilities in m->scores. */
static enum mopt_status look(struct mo_run *r, const struct mo_node *n, const float *k, const struct memory *m)
{
    const struct attention *p = n->params;
    const struct heads *h = *mo_run_handle(r, n);
    size_t n_elems = scores_elems(p);
    r->be->gemm_batched(r->dev, false, true, p->queries, p->keys, p->size, p->scale, mo_run_in(r, n, Q), h->ld_q, h->q,
                        k, h->ld_k, h->k, 0.0f, m->scores, p->keys, h->s, h->n);
    show(r, n, SHOWN_PRODUCT, m->scores);
    if (p->softcap > 0.0f) {
        r->be->axpy(r->dev, n_elems, 1.0f / p->softcap, m->scores, m->scores, false);
        r->be->unary(r->dev, MO_TANH, 0.0f, 0.0f, n_elems, m->scores, m->scores);
        if (m->capped)
            r->be->axpy(r->dev, n_elems, 1.0f, m->scores, m->capped, false);
        r->be->axpy(r->dev, n_elems, p->softcap, m->scores, m->scores, false);
    }
    show(r, n, SHOWN_CAPPED, m->scores);
    MO_TRY(apply_mask(r, n, m));
    show(r, n, SHOWN_MASKED, m->scores);
    r->be->softmax(r->dev, false, p->batch * p->heads * p->queries, p->keys, 1, m->scores, m->scores);
    if (has_table(r, n) || mo_in(r->graph, n, MASK))
        clear_empty_rows(r, n_elems, m);
    show(r, n, SHOWN_SOFTMAX, m->scores);
    return MOPT_OK;
}

/* ---- as one kernel ------------------------------------------------------------------------ */

static struct mo_heads_step step_of(bool is_flat, int64_t heads, int64_t rows, int64_t size)
{
    return (struct mo_heads_step){ heads * rows * size, is_flat ? size : rows * size, is_flat ? heads * size : size };
}

/* What the kernel is to do; the masks lie in m where they had to be made. */
static enum mopt_status describe(struct mo_run *r, const struct mo_node *n, const struct memory *m,
                                 struct mo_attention_desc *d, const uint8_t **allowed, const float **mask)
{
    const struct attention *p = n->params;
    const struct mo_value *value = mo_in(r->graph, n, MASK);
    const struct heads *h = *mo_run_handle(r, n);
    bool is_kv_flat = p->is_flat && !has_past(r, n), has_lengths = mo_in(r->graph, n, KV_LENGTHS) != NULL;
    int64_t ahead = p->is_causal ? 0 : p->right;
    *d = (struct mo_attention_desc){
        .batch = p->batch, .heads = p->heads, .kv_heads = p->kv_heads, .queries = p->queries, .keys = p->keys,
        .size = p->size, .value_size = p->value_size, .q = step_of(p->is_flat, p->heads, p->queries, p->size),
        .k = step_of(is_kv_flat, p->kv_heads, p->keys, p->size),
        .v = step_of(is_kv_flat, p->kv_heads, p->keys, p->value_size),
        .y = step_of(p->is_flat, p->heads, p->queries, p->value_size), .scale = p->scale,
        .softcap = p->softcap > 0.0f ? p->softcap : 0.0f,
        .ahead = ahead >= 0 && !has_lengths ? ahead + p->past : MO_ATTENTION_FAR,
        .behind = p->left >= 0 && !has_lengths ? p->left - p->past : MO_ATTENTION_FAR,
    };
    *allowed = NULL;
    *mask = NULL;
    if (has_lengths) {
        MO_TRY(fill_table(r, n, h->allowed));
        r->be->upload(r->dev, m->bytes, h->allowed, table_bytes(r, n));
        *allowed = m->bytes;
        d->of_allowed[0] = table_batch(r, n) > 1 ? p->queries * p->keys : 0;
        d->of_allowed[2] = p->keys;
        d->of_allowed[3] = 1;
    }
    if (!value)
        return MOPT_OK;
    struct mo_shape shape = value->shape;
    const void *given = short_width(r, n) ? lengthen(r, n, &shape, m->mask) : mo_run_in(r, n, MASK);
    mask_strides(&shape, value->dtype == MO_BOOL ? d->of_allowed : d->of_mask);
    *(value->dtype == MO_BOOL ? (const void **)allowed : (const void **)mask) = given;
    return MOPT_OK;
}

static enum mopt_status forward_fused(struct mo_run *r, const struct mo_node *n, const struct memory *m, const float *k,
                                      const float *v)
{
    struct mo_attention_desc d;
    const uint8_t *allowed;
    const float *mask;
    MO_TRY(describe(r, n, m, &d, &allowed, &mask));
    r->be->attention(r->dev, &d, mo_run_in(r, n, Q), k, v, allowed, mask, mo_run_out(r, n, Y),
                     r->options.train ? mo_run_saved(r, n) : NULL);
    return MOPT_OK;
}

static enum mopt_status backward_fused(struct mo_run *r, const struct mo_node *n)
{
    struct mo_attention_desc d;
    struct memory m;
    const uint8_t *allowed;
    const float *mask;
    deal(r, n, mo_run_scratch(r, n), &m);
    MO_TRY(describe(r, n, &m, &d, &allowed, &mask));
    r->be->attention_grad(r->dev, &d, mo_run_in(r, n, Q), mo_run_in(r, n, K), mo_run_in(r, n, V), allowed, mask,
                          mo_run_out(r, n, Y), mo_run_saved(r, n), mo_run_grad_out(r, n, Y), mo_run_grad_in(r, n, Q),
                          mo_run_grad_in(r, n, K), mo_run_grad_in(r, n, V));
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    const struct heads *h = *mo_run_handle(r, n);
    const float constants[2] = {-INFINITY, 0.0f};
    const float *k = mo_run_in(r, n, K), *v = mo_run_in(r, n, V);
    float *present_k = mo_run_out(r, n, PRESENT_K), *present_v = mo_run_out(r, n, PRESENT_V);
    struct memory m;
    deal(r, n, mo_run_scratch(r, n), &m);
    if (r->options.train) {
        m.scores = mo_run_saved(r, n);
        m.capped = p->softcap > 0.0f ? m.scores + scores_elems(p) : NULL;
    }
    if (!scores_elems(p) || !p->size || !p->value_size) {
        mo_run_zero(r, mo_run_out_elems(r, n, Y), mo_run_out(r, n, Y));
        return MOPT_OK;
    }
    r->be->upload(r->dev, m.constants, constants, sizeof constants);
    if (present_k || has_past(r, n))
        join(r, n, K, PAST_K, p->size, present_k ? present_k : m.keys);
    if (present_v || has_past(r, n))
        join(r, n, V, PAST_V, p->value_size, present_v ? present_v : m.values);
    if (has_past(r, n)) {
        k = present_k ? present_k : m.keys;
        v = present_v ? present_v : m.values;
    }
    if (is_fused(r, n))
        return forward_fused(r, n, &m, k, v);
    MO_TRY(look(r, n, k, &m));
    r->be->gemm_batched(r->dev, false, false, p->queries, p->value_size, p->keys, 1.0f, m.scores, p->keys, h->s, v,
                        h->ld_v, h->v, 0.0f, mo_run_out(r, n, Y), h->ld_y, h->y, h->n);
    return MOPT_OK;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* dA (heads of K or V) = factor X^T B; query heads that share a head follow one another. */
static void grad_shared(struct mo_run *r, const struct mo_node *n, float factor, const float *x, const float *b,
                        int64_t size, int64_t ld_b, const int64_t *at_b, float *da, int64_t ld_a, const int64_t *at_a)
{
    const struct attention *p = n->params;
    const struct heads *h = *mo_run_handle(r, n);
    int64_t stretch = p->batch * p->kv_heads;
    for (int64_t at = 0; at < h->n; at += stretch)
        r->be->gemm_batched(r->dev, true, false, p->keys, size, p->queries, factor, x, p->keys, h->s + at, b, ld_b,
                            at_b + at, at ? 1.0f : 0.0f, da, ld_a, at_a + at, stretch);
}

static void grad_mask(struct mo_run *r, const struct mo_node *n, const float *ds, float *dmask)
{
    const struct attention *p = n->params;
    const struct mo_shape *mask = &mo_in(r->graph, n, MASK)->shape;
    int64_t dims[4] = {p->batch, p->heads, p->queries, p->keys}, of_mask[4];
    const int64_t of_scores[4] = {p->heads * p->queries * p->keys, p->queries * p->keys, p->keys, 1};
    mask_strides(mask, of_mask);
    if (of_mask[3])
        dims[3] = mask->dim[mask->rank - 1];
    mo_run_zero(r, (size_t)mo_shape_elems(mask), dmask);
    r->be->add_strided(r->dev, 4, dims, of_scores, of_mask, ds, dmask);
}

/* dV = P^T dY; dP = dY V^T; dC = P (dP - sum(dP P)); dmask = dC; dS = dC (1 - tanh^2);
 * dQ = scale dS K; dK = scale dS^T Q */
static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct attention *p = n->params;
    const struct heads *h = *mo_run_handle(r, n);
    size_t n_elems = scores_elems(p);
    const float *dy = mo_run_grad_out(r, n, Y), *probability = mo_run_saved(r, n), *capped = probability + n_elems;
    float *dq = mo_run_grad_in(r, n, Q), *dk = mo_run_grad_in(r, n, K), *dv = mo_run_grad_in(r, n, V);
    float *dmask = mo_run_grad_in(r, n, MASK), *ds = mo_run_scratch(r, n);
    if (mo_run_grad_out(r, n, PRESENT_K) || mo_run_grad_out(r, n, PRESENT_V) || mo_run_grad_out(r, n, SCORES))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "only its first output can be trained through");
    for (uint32_t i = 0; i < n->n_in && (!n_elems || !p->size || !p->value_size); i++)
        if (mo_run_grad_in(r, n, i))
            mo_run_zero(r, mo_run_in_elems(r, n, i), mo_run_grad_in(r, n, i));
    if (!n_elems || !p->size || !p->value_size)
        return MOPT_OK;
    if (is_fused(r, n))
        return backward_fused(r, n);
    if (dv)
        grad_shared(r, n, 1.0f, probability, dy, p->value_size, h->ld_y, h->y, dv, h->ld_v, h->v);
    r->be->gemm_batched(r->dev, false, true, p->queries, p->keys, p->value_size, 1.0f, dy, h->ld_y, h->y,
                        mo_run_in(r, n, V), h->ld_v, h->v, 0.0f, ds, p->keys, h->s, h->n);
    r->be->softmax_grad(r->dev, false, p->batch * p->heads * p->queries, p->keys, 1, probability, ds, ds, false);
    if (dmask)
        grad_mask(r, n, ds, dmask);
    if (p->softcap > 0.0f)
        r->be->unary_grad(r->dev, MO_TANH, 0.0f, 0.0f, n_elems, capped, capped, ds, ds, false);
    if (dq)
        r->be->gemm_batched(r->dev, false, false, p->queries, p->size, p->keys, p->scale, ds, p->keys, h->s,
                            mo_run_in(r, n, K), h->ld_k, h->k, 0.0f, dq, h->ld_q, h->q, h->n);
    if (dk)
        grad_shared(r, n, p->scale, ds, mo_run_in(r, n, Q), p->size, h->ld_q, h->q, dk, h->ld_k, h->k);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct attention *p = n->params;
    (void)g;
    if (!p || p->size < 0 || p->value_size < 0)
        return MO_UNKNOWN;
    return mo_product((int64_t[]){p->batch, p->heads, p->queries, p->keys, p->size + p->value_size}, 5);
}

const struct mo_op mo_op_attention = {
    .type = "Attention",
    .since_opset = 23,
    .min_in = 3, .max_in = 7, .min_out = 1, .max_out = 4,
    .params_bytes = sizeof(struct attention),
    .infer = infer,
    .prepare = prepare,
    .unprepare = unprepare,
    .forward = forward,
    .backward = backward,
    .macs = macs,
    .scratch_bytes = scratch_bytes,
    .saved_bytes = saved_bytes,
    .backward_reads = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 3 | 1u << 6 | 1u << 16,
};
