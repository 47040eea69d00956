/* ref_nn.c - the plain C form of unary, softmax, layernorm, dropout and the sparse
 * products: the loops of nn_loops.h over the whole range. */
#define NN(name) plain_##name
#include "kernels/cpu/nn_loops.h"

const struct mo_nn_loops mo_nn_c = NN_LOOPS;

void mo_ref_unary(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x, float *y)
{
    (void)dev;
    mo_nn_c.unary(f, a, b, n, x, y);
}

void mo_ref_unary_grad(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x,
                       const float *y, const float *dy, float *dx, bool add)
{
    (void)dev;
    mo_nn_c.unary_grad(f, a, b, n, x, y, dy, dx, add);
}

void mo_ref_softmax(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *x,
                    float *y)
{
    (void)dev;
    mo_nn_c.softmax(log, 0, outer, axis, inner, x, y);
}

void mo_ref_softmax_grad(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *y,
                         const float *dy, float *dx, bool add)
{
    (void)dev;
    mo_nn_c.softmax_grad(log, 0, outer, axis, inner, y, dy, dx, add);
}

void mo_ref_layernorm(struct mo_device *dev, int64_t rows, int64_t n, float eps, const float *x, const float *scale,
                      const float *bias, float *y, float *mean, float *inv_std)
{
    (void)dev;
    mo_nn_c.layernorm(0, rows, n, eps, x, scale, bias, y, mean, inv_std);
}

void mo_ref_layernorm_grad(struct mo_device *dev, int64_t rows, int64_t n, const float *x, const float *scale,
                           const float *mean, const float *inv_std, const float *dy, float *dx, float *dscale,
                           float *dbias)
{
    (void)dev;
    if (dx)
        mo_nn_c.layernorm_grad(0, rows, n, x, scale, mean, inv_std, dy, dx);
    for (int64_t at = 0; (dscale || dbias) && at < n; at += MO_NN_COLUMNS)
        mo_nn_c.layernorm_columns(at, at + MO_NN_COLUMNS < n ? at + MO_NN_COLUMNS : n, rows, n, x, mean, inv_std, dy,
                                  dscale, dbias);
}

void mo_ref_dropout(struct mo_device *dev, uint64_t seed, uint64_t stream, float p, size_t n, const float *x, float *y,
                    uint8_t *mask)
{
    (void)dev;
    mo_nn_c.dropout(seed, stream, p, 0, n, x, y, mask);
}

void mo_ref_dropout_grad(struct mo_device *dev, float p, size_t n, const uint8_t *mask, const float *dy, float *dx,
                         bool add)
{
    (void)dev;
    mo_nn_c.dropout_grad(p, n, mask, dy, dx, add);
}

void mo_ref_gemm_csr(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                     const int32_t *column, const float *value, bool tb, const float *b, const float *bias, float *y)
{
    (void)dev;
    mo_nn_c.gemm_csr(0, m, n, k, row_start, column, value, tb, b, bias, y);
}

void mo_ref_gemm_csr_grad(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                          const int32_t *column, const float *value, bool tb, const float *dy, float *db)
{
    (void)dev;
    mo_nn_c.gemm_csr_grad(0, k, m, n, k, row_start, column, value, tb, dy, db);
}

void mo_ref_cell(struct mo_device *dev, const struct mo_cell *d, float *gates, const float *peep, const float *extra,
                 const float *before_h, const float *before_c, float *h, float *c)
{
    (void)dev;
    mo_nn_c.cell(d, 0, d->batch, gates, peep, extra, before_h, before_c, h, c);
}

void mo_ref_cell_grad(struct mo_device *dev, const struct mo_cell *d, float *gates, const float *peep, float *extra,
                      const float *before_h, const float *before_c, const float *c, const float *dy, float *dh, float *dc)
{
    (void)dev;
    mo_nn_c.cell_grad(d, 0, d->batch, gates, peep, extra, before_h, before_c, c, dy, dh, dc);
}
