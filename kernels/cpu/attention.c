/* attention.c - attention by tiles (Dao et al. 2022, Rabe and Staats 2021): some queries and some keys at a time, with
 * the greatest score and the sum of each query so far. What was summed before counts less when a greater score comes:
 *     m' = max(m, max(S));  l' = l exp(m - m') + sum(exp(S - m'));  Y' = Y exp(m - m') + exp(S - m') V
 * The gradient makes the same scores again from log(sum): P = exp(S - log_sum).
 *
 * A unit of work is a head and some of its queries (forward), or a head of K and V with all that look at it (gradient), so
 * that no two write to the same place and the bits do not depend on the number of threads. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/fast.h"
#include "kernels/cpu/nn_table.h"
#include "kernels/cpu/sgemm.h"
#include "kernels/cpu/split.h"

/* Queries and keys of a tile; half the keys where heads are large, so that all fits on the stack of a thread. */
#define ROWS 64
#define KEYS 128
#define PACKED (KEYS * MO_ATTENTION_SIZE / 2)

struct attention {
    const struct mo_attention_desc *d;
    const struct mo_sgemm_loops *products;
    const struct mo_nn_loops *loops;
    const float *q, *k, *v, *mask, *given_y, *dy, *given_log_sum;
    const uint8_t *allowed;
    float *y, *log_sum, *dq, *dk, *dv;
    int64_t n_blocks;               /* of queries */
};

/* Some queries of a head. */
struct part { int64_t b, h, kv, i0, rows; };

static int64_t keys_at_once(const struct mo_attention_desc *d)
{
    return d->size > MO_ATTENTION_SIZE / 2 || d->value_size > MO_ATTENTION_SIZE / 2 ? KEYS / 2 : KEYS;
}

/* Keys first to end-1 are seen by at least one of these queries, as far as ahead and behind go. */
static void seen(const struct mo_attention_desc *d, const struct part *p, int64_t *first, int64_t *end)
{
    int64_t low = p->i0 - d->behind, high = p->i0 + p->rows - 1 + d->ahead + 1;
    *first = low > 0 ? low : 0;
    *end = high < d->keys ? high : d->keys;
}

/* c = alpha a b + beta c with b as it lies. */
static void product(const struct attention *a, struct mo_sgemm_block b)
{
    b.b_panel = a->products->panel;
    if (b.m > 0 && b.n > 0 && b.k > 0)
        a->products->block(&b);
}

/* s = alpha x y^T for keys that are packed already. */
static void scores(const struct attention *a, int64_t rows, int64_t keys, int64_t size, float alpha, const float *x,
                   int64_t ld_x, const float *packed, float *s)
{
    const struct mo_sgemm_block b = { .m = rows, .n = keys, .k = size, .a = x, .a_row = ld_x, .a_col = 1, .b = packed,
                                      .b_row = a->products->panel, .b_panel = a->products->panel * size, .c = s,
                                      .ldc = KEYS, .alpha = alpha };
    a->products->block(&b);
}

static void pack(const struct attention *a, int64_t keys, int64_t size, const float *from, int64_t ld, float *to)
{
    a->products->pack(true, size, keys, from, ld, mo_sgemm_panels(a->products, keys), to);
}

static struct mo_nn_scores tile_of(const struct attention *a, const struct part *p, int64_t j0, int64_t keys, float *s)
{
    const struct mo_attention_desc *d = a->d;
    const int64_t *to_a = d->of_allowed, *to_m = d->of_mask;
    return (struct mo_nn_scores){
        .rows = p->rows, .keys = keys, .ld = KEYS, .s = s, .softcap = d->softcap,
        .low = p->i0 - d->behind - j0, .high = p->i0 + d->ahead - j0,
        .allowed = a->allowed ? a->allowed + p->b * to_a[0] + p->h * to_a[1] + p->i0 * to_a[2] + j0 * to_a[3] : NULL,
        .allowed_row = to_a[2], .allowed_key = to_a[3],
        .mask = a->mask ? a->mask + p->b * to_m[0] + p->h * to_m[1] + p->i0 * to_m[2] + j0 * to_m[3] : NULL,
        .mask_row = to_m[2], .mask_key = to_m[3],
    };
}

/* ---- forward ------------------------------------------------------------------------------------- */

static void finish(const struct attention *a, const struct part *p, const float *greatest, float *sum, float *y)
{
    const struct mo_attention_desc *d = a->d;
    float *log_sum = a->log_sum ? a->log_sum + (p->b * d->heads + p->h) * d->queries + p->i0 : NULL;
    for (int64_t r = 0; r < p->rows; r++) {
        if (log_sum)
            log_sum[r] = sum[r] == 0.0f ? INFINITY : greatest[r] + logf(sum[r]);
        sum[r] = sum[r] == 0.0f ? 0.0f : 1.0f / sum[r];
    }
    a->loops->attention_scale(p->rows, d->value_size, sum, d->empty, y, d->y.row);
}

static void look(const struct attention *a, const struct part *p)
{
    const struct mo_attention_desc *d = a->d;
    float packed[PACKED], s[ROWS * KEYS], greatest[ROWS], sum[ROWS], factor[ROWS];
    float *y = a->y + mo_heads_at(&d->y, p->b, p->h, p->i0);
    int64_t first, end, most = keys_at_once(d);
    seen(d, p, &first, &end);
    for (int64_t r = 0; r < p->rows; r++) {
        greatest[r] = -INFINITY;
        sum[r] = 0;
    }
    for (int64_t j = first; j < end; j += most) {
        int64_t keys = end - j < most ? end - j : most;
        struct mo_nn_scores t = tile_of(a, p, j, keys, s);
        pack(a, keys, d->size, a->k + mo_heads_at(&d->k, p->b, p->kv, j), d->k.row, packed);
        scores(a, p->rows, keys, d->size, d->scale, a->q + mo_heads_at(&d->q, p->b, p->h, p->i0), d->q.row, packed, s);
        a->loops->attention_mask(&t, NULL);
        a->loops->attention_exp(&t, greatest, sum, factor);
        for (int64_t r = 0; j > first && r < p->rows; r++)
            if (factor[r] != 1.0f)
                a->loops->attention_scale(1, d->value_size, factor + r, 0.0f, y + r * d->y.row, d->y.row);
        product(a, (struct mo_sgemm_block){ .m = p->rows, .n = d->value_size, .k = keys, .a = s, .a_row = KEYS, .a_col = 1,
                                            .b = a->v + mo_heads_at(&d->v, p->b, p->kv, j), .b_row = d->v.row, .c = y,
                                            .ldc = d->y.row, .alpha = 1, .beta = j > first ? 1 : 0 });
    }
    finish(a, p, greatest, sum, y);
}

static void look_units(void *arg, int64_t begin, int64_t end)
{
    const struct attention *a = arg;
    const struct mo_attention_desc *d = a->d;
    for (int64_t u = begin; u < end; u++) {
        struct part p = { .b = u / a->n_blocks / d->heads, .h = u / a->n_blocks % d->heads, .i0 = u % a->n_blocks * ROWS };
        p.kv = p.h / (d->heads / d->kv_heads);
        p.rows = d->queries - p.i0 < ROWS ? d->queries - p.i0 : ROWS;
        look(a, &p);
    }
}

static const struct mo_nn_loops *loops_of(const struct mo_device *dev)
{
#if defined(__x86_64__)
    return dev->isa >= MO_ISA_AVX512 ? &mo_nn_avx512 : &mo_nn_avx2;
#else
    (void)dev;
    return &mo_nn_c;
#endif
}

void mo_cpu_attention(struct mo_device *dev, const struct mo_attention_desc *d, const float *q, const float *k,
                      const float *v, const uint8_t *allowed, const float *mask, float *y, float *log_sum)
{
    struct attention a = { .d = d, .products = mo_sgemm_loops(dev->isa), .loops = loops_of(dev), .q = q, .k = k, .v = v,
                           .mask = mask, .allowed = allowed, .y = y, .log_sum = log_sum,
                           .n_blocks = (d->queries + ROWS - 1) / ROWS };
    if (!a.products || d->size < 1 || d->value_size < 1) {
        mo_ref_attention(dev, d, q, k, v, allowed, mask, y, log_sum);
        return;
    }
    int64_t rows = d->queries < ROWS ? d->queries : ROWS;
    mo_split(dev, d->batch * d->heads * a.n_blocks, mo_split_grain(rows * d->keys * (d->size + d->value_size) / 8 + 1),
             look_units, &a);
}

/* ---- gradient --------------------------------------------------------------------------------------- */

/* Keys of a tile, as both products with their rows want them. */
struct keys { int64_t j, n; float k[PACKED], v[PACKED]; };

/* dV += P^T dY; dP = dY V^T; dS = P (dP - dot) scale; dQ += dS K; dK += dS^T Q */
static void learn_tile(const struct attention *a, const struct part *p, const struct keys *keys)
{
    const struct mo_attention_desc *d = a->d;
    float s[ROWS * KEYS], ds[ROWS * KEYS], capped[ROWS * KEYS], dot[ROWS];
    int64_t of_q = mo_heads_at(&d->q, p->b, p->h, p->i0), of_y = mo_heads_at(&d->y, p->b, p->h, p->i0);
    int64_t of_k = mo_heads_at(&d->k, p->b, p->kv, keys->j), of_v = mo_heads_at(&d->v, p->b, p->kv, keys->j);
    struct mo_nn_scores t = tile_of(a, p, keys->j, keys->n, s);
    scores(a, p->rows, keys->n, d->size, d->scale, a->q + of_q, d->q.row, keys->k, s);
    a->loops->attention_mask(&t, d->softcap != 0.0f ? capped : NULL);
    scores(a, p->rows, keys->n, d->value_size, 1, a->dy + of_y, d->y.row, keys->v, ds);
    a->loops->attention_dots(p->rows, d->value_size, a->given_y + of_y, a->dy + of_y, d->y.row, dot);
    for (int64_t r = 0; r < p->rows; r++)       /* a query that sees nothing has P = 0, and may be NaN */
        dot[r] = a->given_log_sum[(p->b * d->heads + p->h) * d->queries + p->i0 + r] == INFINITY ? 0 : dot[r];
    a->loops->attention_slope(&t, a->given_log_sum + (p->b * d->heads + p->h) * d->queries + p->i0, dot, d->scale,
                              d->softcap != 0.0f ? capped : NULL, ds);
    struct mo_sgemm_block b = { .m = keys->n, .n = d->value_size, .k = p->rows, .a = s, .a_row = 1, .a_col = KEYS,
                                .b = a->dy + of_y, .b_row = d->y.row, .c = a->dv ? a->dv + of_v : NULL, .ldc = d->v.row,
                                .alpha = 1, .beta = 1 };
    if (a->dv)
        product(a, b);
    b = (struct mo_sgemm_block){ .m = keys->n, .n = d->size, .k = p->rows, .a = ds, .a_row = 1, .a_col = KEYS,
                                 .b = a->q + of_q, .b_row = d->q.row, .c = a->dk ? a->dk + of_k : NULL, .ldc = d->k.row,
                                 .alpha = 1, .beta = 1 };
    if (a->dk)
        product(a, b);
    b = (struct mo_sgemm_block){ .m = p->rows, .n = d->size, .k = keys->n, .a = ds, .a_row = KEYS, .a_col = 1,
                                 .b = a->k + of_k, .b_row = d->k.row, .c = a->dq ? a->dq + of_q : NULL, .ldc = d->q.row,
                                 .alpha = 1, .beta = 1 };
    if (a->dq)
        product(a, b);
}

static void clear(const struct mo_heads_step *step, int64_t b, int64_t h, int64_t rows, int64_t n, float *x)
{
    for (int64_t i = 0; x && i < rows; i++)
        memset(x + mo_heads_at(step, b, h, i), 0, (size_t)n * sizeof *x);
}

static void learn_head(const struct attention *a, int64_t b, int64_t kv)
{
    const struct mo_attention_desc *d = a->d;
    int64_t share = d->heads / d->kv_heads, most = keys_at_once(d), first, end;
    struct keys keys;
    clear(&d->k, b, kv, d->keys, d->size, a->dk);
    clear(&d->v, b, kv, d->keys, d->value_size, a->dv);
    for (int64_t h = kv * share; h < (kv + 1) * share; h++)
        clear(&d->q, b, h, d->queries, d->size, a->dq);
    for (keys.j = 0; keys.j < d->keys; keys.j += most) {
        keys.n = d->keys - keys.j < most ? d->keys - keys.j : most;
        pack(a, keys.n, d->size, a->k + mo_heads_at(&d->k, b, kv, keys.j), d->k.row, keys.k);
        pack(a, keys.n, d->value_size, a->v + mo_heads_at(&d->v, b, kv, keys.j), d->v.row, keys.v);
        for (int64_t h = kv * share; h < (kv + 1) * share; h++)
            for (int64_t i = 0; i < d->queries; i += ROWS) {
                struct part p = { b, h, kv, i, d->queries - i < ROWS ? d->queries - i : ROWS };
                seen(d, &p, &first, &end);
                if (keys.j < end && keys.j + keys.n > first)
                    learn_tile(a, &p, &keys);
            }
    }
}

static void learn_units(void *arg, int64_t begin, int64_t end)
{
    const struct attention *a = arg;
    for (int64_t u = begin; u < end; u++)
        learn_head(a, u / a->d->kv_heads, u % a->d->kv_heads);
}

void mo_cpu_attention_grad(struct mo_device *dev, const struct mo_attention_desc *d, const float *q, const float *k,
                           const float *v, const uint8_t *allowed, const float *mask, const float *y,
                           const float *log_sum, const float *dy, float *dq, float *dk, float *dv)
{
    struct attention a = { .d = d, .products = mo_sgemm_loops(dev->isa), .loops = loops_of(dev), .q = q, .k = k, .v = v,
                           .mask = mask, .allowed = allowed, .given_y = y, .given_log_sum = log_sum, .dy = dy, .dq = dq,
                           .dk = dk, .dv = dv };
    if (!a.products || d->size < 1 || d->value_size < 1) {
        mo_ref_attention_grad(dev, d, q, k, v, allowed, mask, y, log_sum, dy, dq, dk, dv);
        return;
    }
    int64_t steps = d->queries * d->keys * (d->size + d->value_size) / 4 * (d->heads / d->kv_heads) + 1;
    mo_split(dev, d->batch * d->kv_heads, mo_split_grain(steps), learn_units, &a);
}
