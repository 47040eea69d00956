/* sgemm.h - products of float matrices: our own register tiles, one table for each instruction set.
 *
 * B is cut into panels of `panel` columns. A packed panel holds, for each k, its `panel` columns one behind the other
 * (0 behind the last column of B); without packing, rows of B are read where they lie. Sums run over k in order. */
#ifndef MO_SGEMM_H
#define MO_SGEMM_H

#include "kernels/cpu/cpu.h"

/* c = act(alpha a b + beta c + bias + residual) for m rows and n columns; element (i, k) of a is a[i * a_row + k * a_col]. */
struct mo_sgemm_block {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_col;
    int64_t a_panel;                /* not 0: a is packed, and this many floats lie from MO_SGEMM_ROWS rows to the next */
    const float *b;
    int64_t b_row, b_panel;         /* floats from k to k + 1, and from panel to panel */
    float *c;
    int64_t ldc;
    float alpha, beta;              /* beta 0: c is not read */
    const float *bias;              /* of n, or NULL */
    const float *residual;          /* as c, with its ldc, or NULL */
    enum mo_act act;                /* NONE, RELU or CLIP */
    float lo, hi;
};

struct mo_sgemm_loops {
    int64_t panel;
    void (*block)(const struct mo_sgemm_block *p);
    /* Columns j0.. of op(B), k x n, into n_panels panels of k rows. */
    void (*pack)(bool tb, int64_t k, int64_t n, const float *b, int64_t ldb, int64_t n_panels, float *to);
    /* m rows of the transpose of a, for a_row 1, a_col MO_SGEMM_ROWS and a_panel k * MO_SGEMM_ROWS */
    void (*pack_a)(int64_t m, int64_t k, const float *a, int64_t lda, float *to);
};

extern const struct mo_sgemm_loops mo_sgemm_avx2, mo_sgemm_avx512;
/* NULL on the plain C tier. */
const struct mo_sgemm_loops *mo_sgemm_loops(enum mo_isa isa);

/* Rows of a packed panel of A. */
#define MO_SGEMM_ROWS 6
/* K is cut so that a panel stays in the second level of cache. */
#define MO_SGEMM_K 512

static inline int64_t mo_sgemm_panels(const struct mo_sgemm_loops *l, int64_t n)
{
    return (n + l->panel - 1) / l->panel;
}

/* Rows of a product over all of k, B packed in blocks of MO_SGEMM_K rows, one behind the other. The epilogue and
 * alpha 1, beta 0 as in p; p->b is the packed B, p->k all of k. */
void mo_sgemm_packed(const struct mo_sgemm_loops *l, const struct mo_sgemm_block *p);
/* What mo_sgemm_packed reads, and the floats that it takes. */
size_t mo_sgemm_packed_floats(const struct mo_sgemm_loops *l, int64_t n, int64_t k);
void mo_sgemm_pack(const struct mo_sgemm_loops *l, bool tb, int64_t n, int64_t k, const float *b, int64_t ldb, float *to);

#endif
