/* gemm.c - matrix products by OpenBLAS, which runs in one thread; the cutting is
 * ours. Slices depend on the sizes alone. */
#include <cblas.h>

#include "kernels/cpu/act.h"
#include "kernels/cpu/fast.h"
#include "kernels/cpu/team.h"

/* Multiply-adds that are worth a slice of their own, and how many slices there may be. */
#define SLICE_MACS (1 << 20)
#define MAX_SLICES 16
/* Narrower slices make the library pack the other operand more often than it pays. */
#define MIN_ROWS 16
#define MIN_COLUMNS 32

struct product {
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

static void slice(void *arg, int i)
{
    const struct product *p = arg;
    int64_t extent = p->by_columns ? p->n : p->m, unit = p->by_columns ? 16 : 8;
    int64_t units = (extent + unit - 1) / unit;
    int64_t begin = i * units / p->n_slices * unit, end = (i + 1) * units / p->n_slices * unit;
    if (end > extent)
        end = extent;
    if (begin >= end)
        return;
    if (p->by_columns)
        multiply(p, 0, p->m, begin, end - begin);
    else
        multiply(p, begin, end - begin, 0, p->n);
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
                         .beta = beta, .a = a, .b = b, .c = c, .e = e };
    cut(&p);
    mo_team_run(dev->team, (int)p.n_slices, slice, &p);
}

struct batch {
    struct product p;
    const int64_t *offset_a, *offset_b, *offset_c;
    int64_t n_batch, n_slices;
};

static void batch_slice(void *arg, int i)
{
    const struct batch *b = arg;
    for (int64_t k = i * b->n_batch / b->n_slices; k < (i + 1) * b->n_batch / b->n_slices; k++) {
        struct product p = b->p;
        p.a += b->offset_a[k];
        p.b += b->offset_b[k];
        p.c += b->offset_c[k];
        multiply(&p, 0, p.m, 0, p.n);
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
                                .alpha = alpha, .beta = beta, .a = a, .b = b, .c = c },
                         .offset_a = offset_a, .offset_b = offset_b, .offset_c = offset_c, .n_batch = n_batch };
    double macs = (double)m * (double)n * (double)k * (double)n_batch;
    double wanted = macs / SLICE_MACS * 4;
    all.n_slices = wanted > 32 ? 32 : wanted < 1 ? 1 : (int64_t)wanted;
    if (all.n_slices > n_batch)
        all.n_slices = n_batch;
    mo_team_run(dev->team, (int)all.n_slices, batch_slice, &all);
}
