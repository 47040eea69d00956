/* cell.h - one element of a recurrent cell, forward and backward, for C and CUDA
 * alike. Who includes this defines before it
 *     MO_CELL                 how such a function is declared
 *     MO_CELL_EXPM1(x), MO_CELL_SIGMOID_OF(x), MO_CELL_TANH_OF(x), MO_CELL_SOFTPLUS_OF(x)
 *
 * Slopes are taken from y = f(x), so that only what comes out of an activation
 * is kept. `usual` is a constant of the call: sigmoid, tanh, tanh without clip,
 * for which the compiler then has no branch left. */
#ifndef MO_CELL_H
#define MO_CELL_H

#include <math.h>

#include "kernels/backend.h"

MO_CELL float mo_cell_act_of(enum mo_cell_act f, float a, float b, float x)
{
    switch (f) {
    case MO_CELL_SIGMOID: return MO_CELL_SIGMOID_OF(x);
    case MO_CELL_TANH: return MO_CELL_TANH_OF(x);
    case MO_CELL_RELU: return x > 0 ? x : 0;
    case MO_CELL_LEAKY_RELU: return x > 0 ? x : a * x;
    case MO_CELL_THRESHOLDED_RELU: return x > a ? x : 0;
    case MO_CELL_HARD_SIGMOID: return fminf(fmaxf(a * x + b, 0), 1);
    case MO_CELL_ELU: return x > 0 ? x : a * MO_CELL_EXPM1(x);
    case MO_CELL_SOFTSIGN: return x / (1 + fabsf(x));
    case MO_CELL_SOFTPLUS: return MO_CELL_SOFTPLUS_OF(x);
    case MO_CELL_AFFINE: return a * x + b;
    default: return a * MO_CELL_TANH_OF(b * x);
    }
}

MO_CELL float mo_cell_slope_of(enum mo_cell_act f, float a, float b, float y)
{
    switch (f) {
    case MO_CELL_SIGMOID: return y * (1 - y);
    case MO_CELL_TANH: return 1 - y * y;
    case MO_CELL_RELU: return y > 0 ? 1 : 0;
    case MO_CELL_LEAKY_RELU: return y > 0 ? 1 : a;
    case MO_CELL_THRESHOLDED_RELU: return y < 0 || y > 0 ? 1 : 0;
    case MO_CELL_HARD_SIGMOID: return y > 0 && y < 1 ? a : 0;
    case MO_CELL_ELU: return y > 0 ? 1 : y + a;
    case MO_CELL_SOFTSIGN: return (1 - fabsf(y)) * (1 - fabsf(y));
    case MO_CELL_SOFTPLUS: return -MO_CELL_EXPM1(-y);
    case MO_CELL_AFFINE: return a;
    default: return a < 0 || a > 0 ? b * (a - y * y / a) : 0;
    }
}

/* Activation k of the cell: f, g, or h, which is not clipped. usual: f is a sigmoid, g and h are tanh. */
MO_CELL float mo_cell_f(const struct mo_cell *d, bool usual, int k, float x)
{
    if (usual)
        return k == 0 ? MO_CELL_SIGMOID_OF(x) : MO_CELL_TANH_OF(x);
    return mo_cell_act_of(d->act[k].f, d->act[k].a, d->act[k].b, k == 2 ? x : fminf(fmaxf(x, -d->clip), d->clip));
}

/* Where y lies at the end of the clipped range the slope is 0; y is not bit for bit what it was, so near the end will do. */
MO_CELL float mo_cell_df(const struct mo_cell *d, bool usual, int k, float y)
{
    if (usual)
        return k == 0 ? y * (1 - y) : 1 - y * y;
    float slope = mo_cell_slope_of(d->act[k].f, d->act[k].a, d->act[k].b, y);
    if (k == 2 || !(d->clip < INFINITY))
        return slope;
    float ends[2];
    for (int i = 0; i < 2; i++) {
        ends[i] = mo_cell_act_of(d->act[k].f, d->act[k].a, d->act[k].b, i ? d->clip : -d->clip);
        if (fabsf(y - ends[i]) <= 1e-6f * fmaxf(1, fabsf(ends[i])))
            return 0;
    }
    return slope;
}

/* ---- element j of a row: gates and extra are the row's ---------------------------------------- */

MO_CELL void mo_cell_plain(const struct mo_cell *d, bool usual, int64_t j, float *gates, float *h)
{
    /* ONNX's RNN has one activation, whose usual one is tanh */
    h[j] = gates[j] = usual ? MO_CELL_TANH_OF(gates[j]) : mo_cell_f(d, false, 0, gates[j]);
}

MO_CELL void mo_cell_plain_grad(const struct mo_cell *d, bool usual, int64_t j, float *gates, float dy, float *dh)
{
    float y = gates[j], slope = usual ? 1 - y * y : mo_cell_df(d, false, 0, y);
    gates[j] = (dh[j] + dy) * slope;
    dh[j] = 0;
}

MO_CELL void mo_cell_gru(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *extra,
                         const float *before, float *h)
{
    int64_t r = d->hidden + j, n = 2 * d->hidden + j;
    gates[j] = mo_cell_f(d, usual, 0, gates[j] + extra[j]);
    gates[r] = mo_cell_f(d, usual, 0, gates[r] + extra[r]);
    gates[n] = mo_cell_f(d, usual, 1, gates[n] + gates[r] * extra[n]);
    h[j] = (1 - gates[j]) * gates[n] + gates[j] * before[j];
}

MO_CELL void mo_cell_gru_grad(const struct mo_cell *d, bool usual, int64_t j, float *gates, float *extra,
                              const float *before, float dy, float *dh)
{
    int64_t at_r = d->hidden + j, at_n = 2 * d->hidden + j;
    float z = gates[j], r = gates[at_r], n = gates[at_n], g = dh[j] + dy;
    float dn = g * (1 - z) * mo_cell_df(d, usual, 1, n);
    gates[j] = extra[j] = g * (before[j] - n) * mo_cell_df(d, usual, 0, z);
    gates[at_r] = dn * extra[at_n] * mo_cell_df(d, usual, 0, r);
    extra[at_r] = gates[at_r];
    gates[at_n] = dn;
    extra[at_n] = dn * r;
    dh[j] = g * z;
}

MO_CELL void mo_cell_gru_reset(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *before, float *h)
{
    int64_t r = d->hidden + j;
    gates[j] = mo_cell_f(d, usual, 0, gates[j]);
    gates[r] = mo_cell_f(d, usual, 0, gates[r]);
    h[j] = gates[r] * before[j];
}

MO_CELL void mo_cell_gru_reset_grad(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *before,
                                    float dy, float *dh)
{
    float r = gates[d->hidden + j];
    gates[d->hidden + j] = dy * before[j] * mo_cell_df(d, usual, 0, r);
    dh[j] += dy * r;
}

MO_CELL void mo_cell_gru_rest(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *before, float *h)
{
    int64_t n = 2 * d->hidden + j;
    gates[n] = mo_cell_f(d, usual, 1, gates[n]);
    h[j] = (1 - gates[j]) * gates[n] + gates[j] * before[j];
}

MO_CELL void mo_cell_gru_rest_grad(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *before,
                                   float dy, float *dh)
{
    int64_t at_n = 2 * d->hidden + j;
    float z = gates[j], n = gates[at_n], g = dh[j] + dy;
    gates[j] = g * (before[j] - n) * mo_cell_df(d, usual, 0, z);
    gates[at_n] = g * (1 - z) * mo_cell_df(d, usual, 1, n);
    dh[j] = g * z;
}

MO_CELL void mo_cell_lstm(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *peep, const float *before,
                          float *h, float *c)
{
    int64_t o = d->hidden + j, f = 2 * d->hidden + j, n = 3 * d->hidden + j;
    float was = before[j];
    gates[j] = mo_cell_f(d, usual, 0, gates[j] + (peep ? peep[j] * was : 0));
    float forget = mo_cell_f(d, usual, 0, gates[f] + (peep ? peep[f] * was : 0));
    gates[f] = !usual && d->input_forget ? 1 - gates[j] : forget;
    gates[n] = mo_cell_f(d, usual, 1, gates[n]);
    float is = gates[f] * was + gates[j] * gates[n];
    gates[o] = mo_cell_f(d, usual, 0, gates[o] + (peep ? peep[o] * is : 0));
    c[j] = is;
    h[j] = gates[o] * mo_cell_f(d, usual, 2, is);
}

MO_CELL void mo_cell_lstm_grad(const struct mo_cell *d, bool usual, int64_t j, float *gates, const float *peep,
                               const float *before, const float *c, float dy, float *dh, float *dc)
{
    int64_t at_o = d->hidden + j, at_f = 2 * d->hidden + j, at_n = 3 * d->hidden + j;
    float i = gates[j], o = gates[at_o], f = gates[at_f], n = gates[at_n], was = before[j];
    float y = mo_cell_f(d, usual, 2, c[j]), g = dh[j] + dy;
    float d_o = g * y * mo_cell_df(d, usual, 0, o);
    float d_c = dc[j] + g * o * mo_cell_df(d, usual, 2, y) + (peep ? d_o * peep[at_o] : 0);
    bool is_tied = !usual && d->input_forget;
    float d_i = d_c * (n - (is_tied ? was : 0)) * mo_cell_df(d, usual, 0, i);
    float d_f = is_tied ? 0 : d_c * was * mo_cell_df(d, usual, 0, f);
    gates[j] = d_i;
    gates[at_o] = d_o;
    gates[at_f] = d_f;
    gates[at_n] = d_c * i * mo_cell_df(d, usual, 1, n);
    dc[j] = d_c * f + (peep ? d_i * peep[j] + d_f * peep[at_f] : 0);
    dh[j] = 0;
}

/* ---- any cell --------------------------------------------------------------------------------- */

/* Gates in a row of this kind. */
MO_CELL int64_t mo_cell_gates(enum mo_cell_kind kind)
{
    return kind == MO_CELL_PLAIN ? 1 : kind == MO_CELL_LSTM ? 4 : 3;
}

/* No clip, nothing tied, and the activations that ONNX takes by default. */
MO_CELL bool mo_cell_is_usual(const struct mo_cell *d)
{
    bool is_plain = d->kind == MO_CELL_PLAIN;
    return !(d->clip < INFINITY) && !d->input_forget && d->act[0].f == (is_plain ? MO_CELL_TANH : MO_CELL_SIGMOID) &&
           (is_plain || d->act[1].f == MO_CELL_TANH) && (d->kind != MO_CELL_LSTM || d->act[2].f == MO_CELL_TANH);
}

MO_CELL bool mo_cell_has_ended(const struct mo_cell *d, int64_t row)
{
    return d->lens && d->lens[row] <= d->step;
}

/* Element j of a row that has ended. */
MO_CELL void mo_cell_keep(const struct mo_cell *d, int64_t j, const float *before_h, const float *before_c, float *h, float *c)
{
    h[j] = d->kind == MO_CELL_GRU_RESET ? 0 : before_h[j];
    if (d->kind == MO_CELL_LSTM)
        c[j] = before_c[j];
}

MO_CELL void mo_cell_keep_grad(const struct mo_cell *d, int64_t j, float *gates, float *extra)
{
    int64_t n_gates = mo_cell_gates(d->kind);
    for (int64_t k = 0; k < n_gates; k++) {
        gates[k * d->hidden + j] = 0;
        if (d->kind == MO_CELL_GRU)
            extra[k * d->hidden + j] = 0;
    }
}

#endif
