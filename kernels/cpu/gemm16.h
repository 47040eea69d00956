/* gemm16.h - the inner steps of products of bfloat16 matrices, for each instruction set.
 *
 * Operands are packed into tiles of 1 KiB, 16 x 16 pairs of neighbouring k: of A a
 * row of a tile is a row of A, of B a row is one pair of k over 16 columns. Tiles
 * follow each other along k and are filled up with zeros. */
#ifndef MO_GEMM16_H
#define MO_GEMM16_H

#include "kernels/cpu/cpu.h"

#define MO_TILE16 16                /* rows or columns of one */
#define MO_TILE16_K 32
#define MO_TILE16_ELEMS (MO_TILE16 * MO_TILE16_K)

/* 16 rows (of A; columns of B) over n_k numbers k. Element (x, k) is at x * step_x + k * step_k; one step is 1. */
struct mo_pack16 {
    const void *from;
    bool is_f32, as_b;
    int64_t step_x, step_k, n_x, n_k;
    uint16_t *to;
};

/* c (32 x 32, dense) = a b over n_tiles of k; second tiles of rows and columns lie a_step, b_step further, or are left out. */
struct mo_product16 {
    const uint16_t *a, *b;
    int64_t n_tiles, a_step, b_step;
    bool two_rows, two_columns;
    float *c;
};

/* What follows: y = act(alpha c + beta y + bias) over rows x columns of such a c, at most 32 x 32. */
struct mo_finish16 {
    const float *c;
    int64_t rows, columns, ldy;
    float alpha, beta;
    const float *bias;              /* NULL: none */
    enum mo_act act;
    float act_lo, act_hi;
    bool to_f32;                    /* else y is bfloat16 */
    void *y;
};

struct mo_gemm16_loops {
    void (*begin)(void);            /* before and after the products of one slice, in its thread */
    void (*end)(void);
    void (*pack)(const struct mo_pack16 *p);
    void (*product)(const struct mo_product16 *p);
    void (*finish)(const struct mo_finish16 *f);
};

void mo_finish16_c(const struct mo_finish16 *f);

extern const struct mo_gemm16_loops mo_gemm16_c, mo_gemm16_amx;

#endif
