/* cell.cu - a step of a recurrent cell, one thread an element. */
#include "kernels/cuda/device.cuh"

#define MO_CELL static inline __host__ __device__
#define MO_CELL_EXPM1(x) expm1f(x)
#define MO_CELL_SIGMOID_OF(x) (1 / (1 + expf(-(x))))
#define MO_CELL_TANH_OF(x) tanhf(x)
#define MO_CELL_SOFTPLUS_OF(x) (fmaxf(x, 0) + log1pf(expf(-fabsf(x))))
#include "kernels/cell.h"

static __device__ const float *row_of(const float *x, int64_t row, int64_t n)
{
    return x ? x + row * n : NULL;
}

static __device__ void cell_element(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *peep,
                                    const float *extra, const float *before_h, const float *before_c, float *h, float *c)
{
    switch (d->kind) {
    case MO_CELL_PLAIN: mo_cell_plain(d, usual, j, gates, h); break;
    case MO_CELL_GRU: mo_cell_gru(d, usual, j, gates, extra, before_h, h); break;
    case MO_CELL_GRU_RESET: mo_cell_gru_reset(d, usual, j, gates, before_h, h); break;
    case MO_CELL_GRU_REST: mo_cell_gru_rest(d, usual, j, gates, before_h, h); break;
    case MO_CELL_LSTM: mo_cell_lstm(d, usual, j, gates, peep, before_c, h, c); break;
    }
}

void mo_cuda_cell(struct mo_device *dev, const struct mo_cell *cell, float *gates, const float *peep, const float *extra,
                  const float *before_h, const float *before_c, float *h, float *c)
{
    struct mo_cell d = *cell;
    bool usual = mo_cell_is_usual(&d);
    int64_t n = d.hidden, wide = mo_cell_gates(d.kind) * n;
    mo_each(dev, d.batch * n, [=] __device__(int64_t i) {
        int64_t row = i / n, j = i % n;
        const float *was_h = row_of(before_h, row, n), *was_c = row_of(before_c, row, n);
        float *to_c = c ? c + row * n : NULL;
        if (mo_cell_has_ended(&d, row))
            mo_cell_keep(&d, j, was_h, was_c, h + row * n, to_c);
        else
            cell_element(&d, usual, j, gates + row * wide, peep, row_of(extra, row, wide), was_h, was_c, h + row * n, to_c);
    });
}

static __device__ void grad_element(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *peep,
                                    float *extra, const float *before_h, const float *before_c, const float *c, float dy,
                                    float *dh, float *dc)
{
    switch (d->kind) {
    case MO_CELL_PLAIN: mo_cell_plain_grad(d, usual, j, gates, dy, dh); break;
    case MO_CELL_GRU: mo_cell_gru_grad(d, usual, j, gates, extra, before_h, dy, dh); break;
    case MO_CELL_GRU_RESET: mo_cell_gru_reset_grad(d, usual, j, gates, before_h, dy, dh); break;
    case MO_CELL_GRU_REST: mo_cell_gru_rest_grad(d, usual, j, gates, before_h, dy, dh); break;
    case MO_CELL_LSTM: mo_cell_lstm_grad(d, usual, j, gates, peep, before_c, c, dy, dh, dc); break;
    }
}

void mo_cuda_cell_grad(struct mo_device *dev, const struct mo_cell *cell, float *gates, const float *peep, float *extra,
                       const float *before_h, const float *before_c, const float *c, const float *dy, float *dh, float *dc)
{
    struct mo_cell d = *cell;
    bool usual = mo_cell_is_usual(&d);
    int64_t n = d.hidden, wide = mo_cell_gates(d.kind) * n;
    mo_each(dev, d.batch * n, [=] __device__(int64_t i) {
        int64_t row = i / n, j = i % n;
        float *of_gates = gates + row * wide, *of_extra = extra ? extra + row * wide : NULL;
        if (mo_cell_has_ended(&d, row))
            mo_cell_keep_grad(&d, j, of_gates, of_extra);
        else
            grad_element(&d, usual, j, of_gates, peep, of_extra, row_of(before_h, row, n), row_of(before_c, row, n),
                         row_of(c, row, n), dy ? dy[i] : 0, dh + row * n, dc ? dc + row * n : NULL);
    });
}
