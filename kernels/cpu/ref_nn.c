/* ref_nn.c - the plain C form of unary, softmax, layernorm, dropout and the sparse
 * products: the loops of nn_loops.h over the whole range. */
#include "kernels/cpu/cpu.h"

#define NN(name) ref_##name
#include "kernels/cpu/nn_loops.h"

void mo_ref_unary(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x, float *y)
{
    (void)dev;
    ref_unary_range(f, a, b, n, x, y);
}

void mo_ref_unary_grad(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x, const float *y,
                       const float *dy, float *dx, bool add)
{
    (void)dev;
    ref_unary_grad_range(f, a, b, n, x, y, dy, dx, add);
}

void mo_ref_softmax(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *x, float *y)
{
    (void)dev;
    ref_softmax_range(log, 0, outer, axis, inner, x, y);
}

void mo_ref_softmax_grad(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *y,
                         const float *dy, float *dx, bool add)
{
    (void)dev;
    ref_softmax_grad_range(log, 0, outer, axis, inner, y, dy, dx, add);
}

void mo_ref_layernorm(struct mo_device *dev, int64_t rows, int64_t n, float eps, const float *x, const float *scale,
                      const float *bias, float *y, float *mean, float *inv_std)
{
    (void)dev;
    ref_layernorm_range(0, rows, n, eps, x, scale, bias, y, mean, inv_std);
}

void mo_ref_layernorm_grad(struct mo_device *dev, int64_t rows, int64_t n, const float *x, const float *scale,
                           const float *mean, const float *inv_std, const float *dy, float *dx, float *dscale,
                           float *dbias)
{
    (void)dev;
    if (dx)
        ref_layernorm_grad_range(0, rows, n, x, scale, mean, inv_std, dy, dx);
    for (int64_t at = 0; (dscale || dbias) && at < n; at += COLUMN_BLOCK)
        ref_layernorm_columns(at, at + COLUMN_BLOCK < n ? at + COLUMN_BLOCK : n, rows, n, x, mean, inv_std, dy, dscale,
                              dbias);
}

void mo_ref_dropout(struct mo_device *dev, uint64_t seed, uint64_t stream, float p, size_t n, const float *x, float *y,
                    uint8_t *mask)
{
    (void)dev;
    ref_dropout_range(seed, stream, p, 0, n, x, y, mask);
}

void mo_ref_dropout_grad(struct mo_device *dev, float p, size_t n, const uint8_t *mask, const float *dy, float *dx,
                         bool add)
{
    (void)dev;
    ref_dropout_grad_range(p, n, mask, dy, dx, add);
}

void mo_ref_gemm_csr(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                     const int32_t *column, const float *value, bool tb, const float *b, const float *bias, float *y)
{
    (void)dev;
    ref_gemm_csr_range(0, m, n, k, row_start, column, value, tb, b, bias, y);
}

void mo_ref_gemm_csr_grad(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                          const int32_t *column, const float *value, bool tb, const float *dy, float *db)
{
    (void)dev;
    ref_gemm_csr_grad_range(0, k, m, n, k, row_start, column, value, tb, dy, db);
}
