/* gemm.c - matrix products by register tiles of our own (sgemm.h), or by OpenBLAS, which runs in one thread, where B is
 * transposed and A has so few rows that turning B would cost more than the product. Slices depend on the sizes alone. */
#include <cblas.h>

#include "kernels/cpu/act.h"
#include "kernels/cpu/fast.h"
#include "kernels/cpu/sgemm.h"
#include "kernels/cpu/team.h"

/* Multiply-adds that are worth a slice of their own, and how many slices there may be. */
#define SLICE_MACS (1 << 20)
#define MAX_SLICES 16
/* Narrower slices make the library pack the other operand more often than it pays. */
#define MIN_ROWS 16
#define MIN_COLUMNS 32
/* Rows of A from which packing B pays: copied, and turned. */
#define PACK_ROWS 40
#define TURN_ROWS 12
/* Rows of a transposed A that are packed at a time, on the stack, and the columns of B from which that pays: as it lies,
 * each step along k is another line of the cache, and all of them may belong into one set of it. */
#define A_ROWS 96
#define A_COLUMNS 128
/* Floats of B that are packed on the stack, for one of many products. */
#define SMALL_PACK 8192

struct product {
    const struct mo_sgemm_loops *loops;
    bool ta, tb;
    int64_t m, n, k, lda, ldb, ldc;
    float alpha, beta;
    const float *a, *b;
    float *c;
    const struct mo_epilogue *e;
    int64_t n_slices;
    bool by_columns;
};

static void apply_epilogue(const struct mo_epilogue *e, const float *bias, int64_t m, int64_t n, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++, c += ldc) {
        for (int64_t j = 0; bias && j < n; j++)
            c[j] += bias[j];
        if (e->act == MO_ACT_RELU)
            for (int64_t j = 0; j < n; j++)
                c[j] = c[j] < 0 ? 0 : c[j];
        else if (e->act != MO_ACT_NONE)
            for (int64_t j = 0; j < n; j++)
                c[j] = mo_act(e->act, e->act_lo, e->act_hi, c[j]);
    }
}

/* Rows i0.. of m, columns j0.. of n. */
static void multiply(const struct product *p, int64_t i0, int64_t m, int64_t j0, int64_t n)
{
    const float *a = p->a + (p->ta ? i0 : i0 * p->lda), *b = p->b + (p->tb ? j0 * p->ldb : j0);
    float *c = p->c + i0 * p->ldc + j0;
    cblas_sgemm(CblasRowMajor, p->ta ? CblasTrans : CblasNoTrans, p->tb ? CblasTrans : CblasNoTrans, (int)m, (int)n,
                (int)p->k, p->alpha, a, (int)p->lda, b, (int)p->ldb, p->beta, c, (int)p->ldc);
    if (p->e)
        apply_epilogue(p->e, p->e->bias ? p->e->bias + j0 : NULL, m, n, c, p->ldc);
}

/* What the tiles cannot do on the way to memory is done behind them. */
static bool is_inline(enum mo_act act)
{
    return act == MO_ACT_NONE || act == MO_ACT_RELU || act == MO_ACT_CLIP;
}

static struct mo_sgemm_block block_of(const struct product *p, int64_t i0, int64_t m, int64_t j0, int64_t n)
{
    struct mo_sgemm_block b = { .m = m, .n = n, .k = p->k, .a = p->a + i0 * (p->ta ? 1 : p->lda),
                                .a_row = p->ta ? 1 : p->lda, .a_col = p->ta ? p->lda : 1, .b = p->b + j0, .b_row = p->ldb,
                                .b_panel = p->loops->panel, .c = p->c + i0 * p->ldc + j0, .ldc = p->ldc,
                                .alpha = p->alpha, .beta = p->beta };
    if (p->e) {
        b.bias = p->e->bias ? p->e->bias + j0 : NULL;
        b.act = is_inline(p->e->act) ? p->e->act : MO_ACT_NONE;
        b.lo = p->e->act_lo;
        b.hi = p->e->act_hi;
    }
    return b;
}

static void finish_act(const struct product *p, const struct mo_sgemm_block *b)
{
    if (p->e && !is_inline(p->e->act))
        apply_epilogue(p->e, NULL, b->m, b->n, b->c, b->ldc);
}

/* B as it lies. */
static void multiply_direct(const struct product *p, int64_t i0, int64_t m, int64_t j0, int64_t n)
{
    struct mo_sgemm_block b = block_of(p, i0, m, j0, n);
    p->loops->block(&b);
    finish_act(p, &b);
}

/* Slice i: its rows or columns, which may be none. */
static bool slice_of(const struct product *p, int i, int64_t *i0, int64_t *m, int64_t *j0, int64_t *n)
{
    int64_t extent = p->by_columns ? p->n : p->m, unit = p->by_columns ? p->loops ? p->loops->panel : 16 : 8;
    int64_t units = (extent + unit - 1) / unit;
    int64_t begin = i * units / p->n_slices * unit, end = (i + 1) * units / p->n_slices * unit;
    if (end > extent)
        end = extent;
    *i0 = p->by_columns ? 0 : begin;
    *m = p->by_columns ? p->m : end - begin;
    *j0 = p->by_columns ? begin : 0;
    *n = p->by_columns ? end - begin : p->n;
    return begin < end;
}

static void slice(void *arg, int i)
{
    const struct product *p = arg;
    int64_t i0, m, j0, n;
    if (!slice_of(p, i, &i0, &m, &j0, &n))
        return;
    if (p->loops)
        multiply_direct(p, i0, m, j0, n);
    else
        multiply(p, i0, m, j0, n);
}

static void cut(struct product *p)
{
    double wanted = (double)p->m * (double)p->n * (double)p->k / SLICE_MACS;
    int64_t by_rows = p->m / MIN_ROWS, by_columns = p->n / MIN_COLUMNS;
    p->by_columns = by_columns > by_rows;
    int64_t possible = p->by_columns ? by_columns : by_rows;
    p->n_slices = wanted < (double)possible ? (int64_t)wanted : possible;
    if (p->n_slices > MAX_SLICES)
        p->n_slices = MAX_SLICES;
    if (p->n_slices < 1)
        p->n_slices = 1;
}

/* ---- B packed: some columns and some of k at a time ---------------------------------------- */

struct packed {
    struct product p;               /* its columns, n of them from b and c on */
    int64_t k0, k, n_panels, n_pack_slices;
    float *panels;
};

/* Columns j.., a whole number of panels but for the last. */
static void pack_columns(const struct packed *w, int64_t j, int64_t n)
{
    const struct product *p = &w->p;
    const float *b = p->b + (p->tb ? j * p->ldb + w->k0 : w->k0 * p->ldb + j);
    p->loops->pack(p->tb, w->k, n, b, p->ldb, mo_sgemm_panels(p->loops, n), w->panels + j * w->k);
}

static void pack_slice(void *arg, int i)
{
    const struct packed *w = arg;
    int64_t panel = w->p.loops->panel, first = i * w->n_panels / w->n_pack_slices * panel;
    int64_t end = (i + 1) * w->n_panels / w->n_pack_slices * panel;
    pack_columns(w, first, (end < w->p.n ? end : w->p.n) - first);
}

/* A transposed, some rows at a time. */
static void turned_rows(const struct product *p, struct mo_sgemm_block b)
{
    float rows[A_ROWS * MO_SGEMM_K];
    const float *a = b.a;
    int64_t m = b.m;
    b.a = rows;
    b.a_col = MO_SGEMM_ROWS;
    b.a_panel = b.k * MO_SGEMM_ROWS;
    for (int64_t i = 0; i < m; i += A_ROWS, b.c += A_ROWS * b.ldc) {
        b.m = m - i < A_ROWS ? m - i : A_ROWS;
        p->loops->pack_a(b.m, b.k, a + i, p->lda, rows);
        p->loops->block(&b);
    }
}

static void packed_slice(void *arg, int i)
{
    const struct packed *w = arg;
    const struct product *p = &w->p;
    int64_t i0, m, j0, n;
    if (!slice_of(p, i, &i0, &m, &j0, &n))
        return;
    struct mo_sgemm_block b = block_of(p, i0, m, j0, n);
    bool is_last = w->k0 + w->k == p->k;
    b.a += w->k0 * b.a_col;
    b.k = w->k;
    b.b = w->panels + j0 * w->k;
    b.b_row = p->loops->panel;
    b.b_panel = p->loops->panel * w->k;
    b.beta = w->k0 ? 1 : b.beta;
    if (!is_last) {
        b.bias = NULL;
        b.act = MO_ACT_NONE;
    }
    if (p->by_columns)
        pack_columns(w, j0, n);
    if (p->ta && n >= A_COLUMNS)
        turned_rows(p, b);
    else
        p->loops->block(&b);
    if (is_last)
        finish_act(p, &b);
}

static void multiply_packed(struct mo_device *dev, const struct product *whole)
{
    const int64_t panel = whole->loops->panel, k_most = whole->k < MO_SGEMM_K ? whole->k : MO_SGEMM_K;
    const int64_t columns = (int64_t)(MO_WORKSPACE_BYTES / sizeof(float)) / k_most / panel * panel;
    struct mo_epilogue e;
    for (int64_t j = 0; j < whole->n; j += columns) {
        struct packed w = { .p = *whole, .panels = dev->workspace };
        w.p.n = whole->n - j < columns ? whole->n - j : columns;
        w.p.b += whole->tb ? j * whole->ldb : j;
        w.p.c += j;
        if (whole->e) {
            e = *whole->e;
            e.bias = e.bias ? e.bias + j : NULL;
            w.p.e = &e;
        }
        cut(&w.p);
        w.n_panels = (w.p.n + panel - 1) / panel;
        for (; w.k0 < whole->k; w.k0 += w.k) {
            w.k = whole->k - w.k0 < MO_SGEMM_K ? whole->k - w.k0 : MO_SGEMM_K;
            w.n_pack_slices = w.p.n_slices < w.n_panels ? w.p.n_slices : w.n_panels;
            if (!w.p.by_columns)        /* else each slice has its own */
                mo_team_run(dev->team, (int)w.n_pack_slices, pack_slice, &w);
            mo_team_run(dev->team, (int)w.p.n_slices, packed_slice, &w);
        }
    }
}

/* Sizes beyond what the library's int can hold go to plain C. */
static bool fits_int(int64_t v)
{
    return v >= 0 && v <= INT32_MAX;
}

void mo_cpu_gemm(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                 int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc,
                 const struct mo_epilogue *e)
{
    if (m <= 0 || n <= 0)
        return;
    if (dev->isa == MO_ISA_C || k <= 0 ||
        !(fits_int(m) && fits_int(n) && fits_int(k) && fits_int(lda) && fits_int(ldb) && fits_int(ldc))) {
        mo_ref_gemm(dev, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, e);
        return;
    }
    struct product p = { .ta = ta, .tb = tb, .m = m, .n = n, .k = k, .lda = lda, .ldb = ldb, .ldc = ldc, .alpha = alpha,
                         .beta = beta, .a = a, .b = b, .c = c, .e = e, .loops = mo_sgemm_loops(dev->isa) };
    if (m >= (tb ? TURN_ROWS : PACK_ROWS)) {
        multiply_packed(dev, &p);
        return;
    }
    if (tb)
        p.loops = NULL;
    cut(&p);
    mo_team_run(dev->team, (int)p.n_slices, slice, &p);
}

struct batch {
    struct product p;
    const int64_t *offset_a, *offset_b, *offset_c;
    int64_t n_batch, n_slices;
};

/* One of many products: B as it lies, or turned on the stack where it is small. */
static void multiply_one(const struct product *p)
{
    float panels[SMALL_PACK];
    if (p->tb && mo_sgemm_packed_floats(p->loops, p->n, p->k) <= SMALL_PACK && p->k <= MO_SGEMM_K) {
        struct mo_sgemm_block b = block_of(p, 0, p->m, 0, p->n);
        mo_sgemm_pack(p->loops, true, p->n, p->k, p->b, p->ldb, panels);
        b.b = panels;
        mo_sgemm_packed(p->loops, &b);
    } else if (p->tb) {
        multiply(p, 0, p->m, 0, p->n);
    } else {
        multiply_direct(p, 0, p->m, 0, p->n);
    }
}

static void batch_slice(void *arg, int i)
{
    const struct batch *b = arg;
    for (int64_t k = i * b->n_batch / b->n_slices; k < (i + 1) * b->n_batch / b->n_slices; k++) {
        struct product p = b->p;
        p.a += b->offset_a[k];
        p.b += b->offset_b[k];
        p.c += b->offset_c[k];
        multiply_one(&p);
    }
}

void mo_cpu_gemm_batched(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                         const float *a, int64_t lda, const int64_t *offset_a, const float *b, int64_t ldb,
                         const int64_t *offset_b, float beta, float *c, int64_t ldc, const int64_t *offset_c,
                         int64_t n_batch)
{
    if (m <= 0 || n <= 0 || n_batch <= 0)
        return;
    bool is_plain = dev->isa == MO_ISA_C || k <= 0 || !(fits_int(m) && fits_int(n) && fits_int(k));
    if (is_plain || n_batch < 4) {
        for (int64_t i = 0; i < n_batch; i++)
            mo_cpu_gemm(dev, ta, tb, m, n, k, alpha, a + offset_a[i], lda, b + offset_b[i], ldb, beta, c + offset_c[i],
                        ldc, NULL);
        return;
    }
    struct batch all = { .p = { .ta = ta, .tb = tb, .m = m, .n = n, .k = k, .lda = lda, .ldb = ldb, .ldc = ldc,
                                .alpha = alpha, .beta = beta, .a = a, .b = b, .c = c,
                                .loops = mo_sgemm_loops(dev->isa) },
                         .offset_a = offset_a, .offset_b = offset_b, .offset_c = offset_c, .n_batch = n_batch };
    double macs = (double)m * (double)n * (double)k * (double)n_batch;
    double wanted = macs / SLICE_MACS * 4;
    all.n_slices = wanted > 32 ? 32 : wanted < 1 ? 1 : (int64_t)wanted;
    if (all.n_slices > n_batch)
        all.n_slices = n_batch;
    mo_team_run(dev->team, (int)all.n_slices, batch_slice, &all);
}
