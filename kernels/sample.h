/* sample.h - reading an image between its pixels, for C and CUDA alike. Who includes
 * this defines MO_SAMPLE, how such a function is declared.
 *
 * A place is n_axes coordinates, the last axis first, as GridSample has them. Along
 * each axis it has 1, 2 or 4 taps; an image value is the sum over all combinations
 * of taps of the product of their weights. */
#ifndef MO_SAMPLE_H
#define MO_SAMPLE_H

#include <math.h>

#include "kernels/backend.h"

/* Along one axis: pixels (-1: outside, counts as 0), their weights and the weights' slopes by the coordinate. */
struct mo_sample_axis {
    int n_taps;
    int64_t at[4];
    float weight[4], slope[4];
};

/* x mirrored at low and high until it lies between them; *sign is its slope. */
MO_SAMPLE float mo_sample_reflect(float x, float low, float high, float *sign)
{
    float range = high - low, over = x < low ? low - x : x - high;
    *sign = 1;
    if (over <= 0)
        return x;
    if (!(range > 0)) {
        *sign = 0;
        return low;
    }
    float turns = floorf(over / range), rest = over - turns * range;
    bool is_even = fmodf(turns, 2) == 0, is_low = x < low;
    *sign = is_even ? -1.0f : 1.0f;
    return is_even == is_low ? low + rest : high - rest;
}

MO_SAMPLE int64_t mo_sample_pixel(const struct mo_sample_desc *d, int axis, int64_t i)
{
    float sign;
    if (i >= 0 && i < d->in[axis])
        return i;
    if (d->padding == MO_SAMPLE_ZEROS || d->in[axis] <= 0)
        return -1;
    if (d->padding == MO_SAMPLE_REFLECT)
        i = (int64_t)mo_sample_reflect((float)i, d->low[axis], d->high[axis], &sign);
    return i < 0 ? 0 : i >= d->in[axis] ? d->in[axis] - 1 : i;
}

/* Keys' cubic convolution with a = -3/4, at distances 1 + t, t, 1 - t, 2 - t. */
MO_SAMPLE void mo_sample_cubic(float t, float *w, float *slope)
{
    const float a = -0.75f, u = 1 - t;
    w[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    w[2] = ((a + 2) * u - (a + 3)) * u * u + 1;
    w[3] = ((a * (u + 1) - 5 * a) * (u + 1) + 8 * a) * (u + 1) - 4 * a;
    slope[0] = (3 * a * (t + 1) - 10 * a) * (t + 1) + 8 * a;
    slope[1] = (3 * (a + 2) * t - 2 * (a + 3)) * t;
    slope[2] = -(3 * (a + 2) * u - 2 * (a + 3)) * u;
    slope[3] = -((3 * a * (u + 1) - 10 * a) * (u + 1) + 8 * a);
}

MO_SAMPLE void mo_sample_along(const struct mo_sample_desc *d, int axis, float coordinate, struct mo_sample_axis *s)
{
    const float far = 1e8f, last = (float)(d->in[axis] - 1);
    float x = coordinate * d->scale[axis] + d->shift[axis], turn = 1;
    if (!(x > -far && x < far))         /* not a number as well: outside */
        x = x > 0 ? far : -far;
    if (d->mode == MO_SAMPLE_NEAREST)
        x = rintf(x);
    if (x < d->low[axis] || x > d->high[axis]) {
        if (d->padding == MO_SAMPLE_BORDER) {
            x = x < 0 ? 0 : last;
            turn = 0;
        } else if (d->padding == MO_SAMPLE_REFLECT)
            x = mo_sample_reflect(x, d->low[axis], d->high[axis], &turn);
    }
    int64_t first = (int64_t)floorf(x);
    float t = x - (float)first;
    s->n_taps = d->mode == MO_SAMPLE_NEAREST ? 1 : d->mode == MO_SAMPLE_LINEAR ? 2 : 4;
    s->weight[0] = s->n_taps == 1 ? 1 : 1 - t;
    s->slope[0] = s->n_taps == 1 ? 0.0f : -1.0f;
    s->weight[1] = t;
    s->slope[1] = 1;
    if (s->n_taps == 4) {
        mo_sample_cubic(t, s->weight, s->slope);
        first--;
    }
    for (int k = 0; k < s->n_taps; k++) {
        s->at[k] = mo_sample_pixel(d, axis, first + k);
        s->slope[k] *= turn * d->scale[axis];
    }
}

/* All axes of a place; returns how many combinations of taps there are. */
MO_SAMPLE int mo_sample_place(const struct mo_sample_desc *d, const float *coordinates, struct mo_sample_axis *s)
{
    int n = 1;
    for (int axis = 0; axis < d->n_axes; axis++) {
        mo_sample_along(d, axis, coordinates[d->n_axes - 1 - axis], &s[axis]);
        n *= s[axis].n_taps;
    }
    return n;
}

/* Combination `tap`: its pixel, -1 when outside, and its weight; `by` names the axis whose slope is taken in place of the
 * weight, -1: none. */
MO_SAMPLE int64_t mo_sample_tap(const struct mo_sample_desc *d, const struct mo_sample_axis *s, int tap, int by,
                                float *weight)
{
    int64_t at = 0, step = 1;
    bool is_inside = true;
    *weight = 1;
    for (int axis = d->n_axes - 1; axis >= 0; axis--) {
        int k = tap % s[axis].n_taps;
        tap /= s[axis].n_taps;
        *weight *= axis == by ? s[axis].slope[k] : s[axis].weight[k];
        is_inside = is_inside && s[axis].at[k] >= 0;
        at += s[axis].at[k] * step;
        step *= d->in[axis];
    }
    return is_inside ? at : -1;
}

#endif
