/* nn_cell.h - a step of a recurrent cell over a range of rows; included once for
 * each instruction set with NN(name) giving the names. */
#define MO_CELL NN_INLINE
#define MO_CELL_EXPM1(x) nn_expm1(x)
#define MO_CELL_SIGMOID_OF(x) nn_sigmoid(x)
#define MO_CELL_TANH_OF(x) nn_tanh(x)
#define MO_CELL_SOFTPLUS_OF(x) nn_softplus(x)
#include "kernels/cell.h"

/* A loop over the elements of a row for usual cells, and one for all others. */
#define NN_CELL_LOOP(call)                                      \
    if (usual) {                                                \
        _Pragma("GCC ivdep")                                    \
        for (int64_t j = 0; j < d->hidden; j++)                 \
            call(d, true);                                      \
    } else {                                                    \
        for (int64_t j = 0; j < d->hidden; j++)                 \
            call(d, false);                                     \
    }

static void NN(cell_row)(const struct mo_cell *d, bool usual, float *gates, const float *peep, const float *extra,
                         const float *before_h, const float *before_c, float *h, float *c)
{
#define PLAIN(d, usual) mo_cell_plain(d, usual, j, gates, h)
#define GRU(d, usual) mo_cell_gru(d, usual, j, gates, extra, before_h, h)
#define GRU_RESET(d, usual) mo_cell_gru_reset(d, usual, j, gates, before_h, h)
#define GRU_REST(d, usual) mo_cell_gru_rest(d, usual, j, gates, before_h, h)
#define LSTM(d, usual) mo_cell_lstm(d, usual, j, gates, NULL, before_c, h, c)
#define PEEPING_LSTM(d, usual) mo_cell_lstm(d, usual, j, gates, peep, before_c, h, c)
    switch (d->kind) {
    case MO_CELL_PLAIN: NN_CELL_LOOP(PLAIN) break;
    case MO_CELL_GRU: NN_CELL_LOOP(GRU) break;
    case MO_CELL_GRU_RESET: NN_CELL_LOOP(GRU_RESET) break;
    case MO_CELL_GRU_REST: NN_CELL_LOOP(GRU_REST) break;
    case MO_CELL_LSTM:
        if (peep) {
            NN_CELL_LOOP(PEEPING_LSTM)
        } else {
            NN_CELL_LOOP(LSTM)
        }
    }
#undef PLAIN
#undef GRU
#undef GRU_RESET
#undef GRU_REST
#undef LSTM
#undef PEEPING_LSTM
}

static const float *NN(row_of)(const float *x, int64_t row, int64_t n)
{
    return x ? x + row * n : NULL;
}

static void NN(cell_range)(const struct mo_cell *d, int64_t begin, int64_t end, float *gates, const float *peep,
                           const float *extra, const float *before_h, const float *before_c, float *h, float *c)
{
    int64_t n = d->hidden, wide = mo_cell_gates(d->kind) * n;
    bool usual = mo_cell_is_usual(d);
    for (int64_t row = begin; row < end; row++) {
        const float *was_h = NN(row_of)(before_h, row, n), *was_c = NN(row_of)(before_c, row, n);
        float *to_c = c ? c + row * n : NULL;
        if (!mo_cell_has_ended(d, row))
            NN(cell_row)(d, usual, gates + row * wide, peep, NN(row_of)(extra, row, wide), was_h, was_c, h + row * n, to_c);
        else
            for (int64_t j = 0; j < n; j++)
                mo_cell_keep(d, j, was_h, was_c, h + row * n, to_c);
    }
}

static void NN(cell_grad_row)(const struct mo_cell *d, bool usual, float *gates, const float *peep, float *extra,
                              const float *before_h, const float *before_c, const float *c, const float *dy, float *dh,
                              float *dc)
{
#define DY (dy ? dy[j] : 0)
#define PLAIN(d, usual) mo_cell_plain_grad(d, usual, j, gates, DY, dh)
#define GRU(d, usual) mo_cell_gru_grad(d, usual, j, gates, extra, before_h, DY, dh)
#define GRU_RESET(d, usual) mo_cell_gru_reset_grad(d, usual, j, gates, before_h, DY, dh)
#define GRU_REST(d, usual) mo_cell_gru_rest_grad(d, usual, j, gates, before_h, DY, dh)
#define LSTM(d, usual) mo_cell_lstm_grad(d, usual, j, gates, peep, before_c, c, DY, dh, dc)
    switch (d->kind) {
    case MO_CELL_PLAIN: NN_CELL_LOOP(PLAIN) break;
    case MO_CELL_GRU: NN_CELL_LOOP(GRU) break;
    case MO_CELL_GRU_RESET: NN_CELL_LOOP(GRU_RESET) break;
    case MO_CELL_GRU_REST: NN_CELL_LOOP(GRU_REST) break;
    case MO_CELL_LSTM: NN_CELL_LOOP(LSTM) break;
    }
#undef DY
#undef PLAIN
#undef GRU
#undef GRU_RESET
#undef GRU_REST
#undef LSTM
}

static void NN(cell_grad_range)(const struct mo_cell *d, int64_t begin, int64_t end, float *gates, const float *peep,
                                float *extra, const float *before_h, const float *before_c, const float *c, const float *dy,
                                float *dh, float *dc)
{
    int64_t n = d->hidden, wide = mo_cell_gates(d->kind) * n;
    bool usual = mo_cell_is_usual(d);
    for (int64_t row = begin; row < end; row++) {
        float *of_gates = gates + row * wide, *of_extra = extra ? extra + row * wide : NULL;
        if (!mo_cell_has_ended(d, row))
            NN(cell_grad_row)(d, usual, of_gates, peep, of_extra, NN(row_of)(before_h, row, n), NN(row_of)(before_c, row, n),
                              NN(row_of)(c, row, n), NN(row_of)(dy, row, n), dh + row * n, dc ? dc + row * n : NULL);
        else
            for (int64_t j = 0; j < n; j++)
                mo_cell_keep_grad(d, j, of_gates, of_extra);
    }
}
