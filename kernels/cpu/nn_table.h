/* nn_table.h - the loops of nn_loops.h as compiled for one instruction set. */
#ifndef MO_NN_TABLE_H
#define MO_NN_TABLE_H

#include "kernels/cpu/cpu.h"

/* Scores of some queries and some keys, rows `ld` apart. Steps of the masks are from row to row and from key to key. */
struct mo_nn_scores {
    int64_t rows, keys, ld;
    float *s;
    float softcap;
    int64_t low, high;              /* row r sees the keys low + r to high + r, counted from the first one here */
    const uint8_t *allowed;         /* NULL: all */
    int64_t allowed_row, allowed_key;
    const float *mask;              /* NULL: none */
    int64_t mask_row, mask_key;
};

struct mo_nn_loops {
    void (*unary)(enum mo_unary f, float a, float b, size_t n, const float *x, float *y);
    void (*unary_grad)(enum mo_unary f, float a, float b, size_t n, const float *x, const float *y, const float *dy,
                       float *dx, bool add);
    void (*softmax)(bool log, int64_t begin, int64_t end, int64_t axis, int64_t inner, const float *x, float *y);
    void (*softmax_grad)(bool log, int64_t begin, int64_t end, int64_t axis, int64_t inner, const float *y,
                         const float *dy, float *dx, bool add);
    void (*layernorm)(int64_t begin, int64_t end, int64_t n, float eps, const float *x, const float *scale,
                      const float *bias, float *y, float *mean, float *inv_std);
    void (*layernorm_grad)(int64_t begin, int64_t end, int64_t n, const float *x, const float *scale, const float *mean,
                           const float *inv_std, const float *dy, float *dx);
    /* at most MO_NN_COLUMNS columns */
    void (*layernorm_columns)(int64_t begin, int64_t end, int64_t rows, int64_t n, const float *x, const float *mean,
                              const float *inv_std, const float *dy, float *dscale, float *dbias);
    /* begin is a multiple of MO_NN_BLOCK */
    void (*dropout)(uint64_t seed, uint64_t stream, float p, size_t begin, size_t end, const float *x, float *y,
                    uint8_t *mask);
    void (*dropout_grad)(float p, size_t n, const uint8_t *mask, const float *dy, float *dx, bool add);
    void (*gemm_csr)(int64_t begin, int64_t end, int64_t n, int64_t k, const int64_t *row_start, const int32_t *column,
                     const float *value, bool tb, const float *b, const float *bias, float *y);
    /* Softcap, and masks behind it. capped: what lies between, as s; NULL: not wanted */
    void (*attention_mask)(const struct mo_nn_scores *t, float *capped);
    /* s = exp(s - the greatest so far) and the sum so far of each row; what was summed before counts `factor` times. */
    void (*attention_exp)(const struct mo_nn_scores *t, float *greatest, float *sum, float *factor);
    /* s = p = exp(s - log_sum), ds = p (ds - dot) scale, times the slope of the softcap where `capped` is not NULL */
    void (*attention_slope)(const struct mo_nn_scores *t, const float *log_sum, const float *dot, float scale,
                            const float *capped, float *ds);
    /* rows of n times their factors; 0 becomes `empty` */
    void (*attention_scale)(int64_t rows, int64_t n, const float *factor, float empty, float *y, int64_t ld);
    /* dot[r] = sum of y dy over each row of n */
    void (*attention_dots)(int64_t rows, int64_t n, const float *y, const float *dy, int64_t ld, float *dot);
    void (*cell)(const struct mo_cell *d, int64_t begin, int64_t end, float *gates, const float *peep, const float *extra,
                 const float *before_h, const float *before_c, float *h, float *c);
    void (*cell_grad)(const struct mo_cell *d, int64_t begin, int64_t end, float *gates, const float *peep, float *extra,
                      const float *before_h, const float *before_c, const float *c, const float *dy, float *dh, float *dc);
    void (*gemm_csr_grad)(int64_t begin, int64_t end, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                          const int32_t *column, const float *value, bool tb, const float *dy, float *db);
};

#define MO_NN_COLUMNS 64
#define MO_NN_BLOCK 64

extern const struct mo_nn_loops mo_nn_c, mo_nn_avx2, mo_nn_avx512;

#endif
