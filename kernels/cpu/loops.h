/* loops.h - inner loops compiled once for each instruction set from one text
 * (loops_body.h): loops_avx2.c, loops_avx512.c, and loops16_*.c for images of
 * bfloat16. A device points at the tables of its tier. The functions work on ranges in one thread; who calls them
 * cuts the work. */
#ifndef MO_LOOPS_H
#define MO_LOOPS_H

#include "kernels/backend.h"

/* BatchNormalization's operands, as the kernels have them; NULL where left out. */
struct mo_bn {
    int64_t channels;
    const void *x, *y, *dy, *residual;          /* float, or bfloat16 for a table of that */
    void *out, *dx, *dresidual;
    /* per channel, repeated to `width` = a multiple of channels, so that short rows fill vectors:
     * forward: out = act((x - mean) a + b + residual); backward: dx = a (g - b - (x - mean) c) */
    const float *mean, *a, *b, *c;
    int64_t width;
    bool relu;
};

struct mo_loops {
    /* ---- BatchNormalization over elements begin..end of rows x channels, both multiples of channels ---- */
    /* sum[w] += x, w = index within width; sum is overwritten */
    void (*bn_sum)(const void *x, int64_t begin, int64_t end, int64_t width, float *sum);
    void (*bn_squares)(const void *x, int64_t begin, int64_t end, int64_t width, const float *mean, float *sum);
    void (*bn_apply)(const struct mo_bn *p, int64_t begin, int64_t end);
    /* sums of g and of g (x - mean); g = dy masked by y > 0 with relu */
    void (*bn_grad_sums)(const struct mo_bn *p, int64_t begin, int64_t end, float *sum_g, float *sum_gx);
    void (*bn_grad_apply)(const struct mo_bn *p, int64_t begin, int64_t end);
    /* ---- pooling: rows of output pixels begin..end of all pictures; rows of input pixels for the gradient ---- */
    void (*pool)(const struct mo_pool_desc *d, const void *x, void *y, uint8_t *where, int64_t begin, int64_t end);
    void (*pool_grad)(const struct mo_pool_desc *d, const void *dy, const uint8_t *where, void *dx, bool add,
                      int64_t begin, int64_t end);
    /* ---- n elements from bfloat16 to float and back, nearest even; only in a table of bfloat16 ---- */
    void (*widen)(size_t n, const uint16_t *x, float *y);
    void (*narrow)(size_t n, const float *x, uint16_t *y);
    void (*relu_grad)(size_t n, const uint16_t *y, const uint16_t *dy, uint16_t *dx);
    void (*axpy16)(size_t n, float a, const uint16_t *x, uint16_t *y, bool add);
    /* ---- optimizers and sums over n elements; not in a table of bfloat16 ---- */
    void (*axpy)(size_t n, float a, const float *x, float *y, bool add);
    void (*sgd)(size_t n, float lr, float momentum, bool nesterov, float l2, float *w, const float *g, float *velocity);
    void (*adam)(size_t n, float lr, float beta1, float beta2, float eps, float l2, float decoupled, float correction1,
                 float correction2, float *w, const float *g, float *m, float *v);
    void (*rmsprop)(size_t n, float lr, float alpha, float eps, float momentum, float l2, float *w, const float *g,
                    float *square, float *velocity);
    double (*sum_squares)(size_t n, const float *x);
    /* ---- observers, as in kernels.def; the bins are counted into 4 tables of n_bins in turn ---- */
    void (*range)(size_t n, const float *x, float *range, uint64_t *n_nan);
    void (*histogram)(size_t n, const float *x, float low, float width, size_t n_bins, uint32_t *counts);
};

extern const struct mo_loops mo_loops_avx2, mo_loops_avx512, mo_loops16_avx2, mo_loops16_avx512;

#endif
