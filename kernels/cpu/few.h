/* few.h - the inner loops of convolutions with few input channels (conv_few.c). With 16 registers of 8 they are slower than oneDNN's, so there is
 * one table. */
#ifndef MO_FEW_H
#define MO_FEW_H

#include "kernels/cpu/cpu.h"

/* Pixels of one output row, next to each other: y[pixel, o] = act(bias[o] + sum over k of x[at[k] + pixel * step] w[k, o]). */
struct mo_few_row {
    const float *x;                     /* of rows that are padded already */
    const int *at;                      /* of n_k */
    int n_k, step;
    const float *w;                     /* panels of two vectors of output channels, n_k of each, 0 behind the last */
    const float *bias;                  /* NULL: none */
    int64_t n_pixels, n_out;
    enum mo_act act;                    /* NONE, RELU or CLIP */
    float lo, hi;
    float *y;
};

struct mo_few_loops {
    int64_t panel, least;               /* output channels of a panel; pixels that a row has at least */
    void (*row)(const struct mo_few_row *p);
};

extern const struct mo_few_loops mo_few_avx512;
/* Steps that the loops are made for. */
static inline bool mo_few_takes_step(int64_t step)
{
    return step >= 1 && step <= 4;
}

#endif
