/* act.h - the activations that kernels may end with. */
#ifndef MO_ACT_H
#define MO_ACT_H

#include <math.h>

#include "kernels/backend.h"

static inline float mo_act(enum mo_act act, float lo, float hi, float x)
{
    switch (act) {
    case MO_ACT_NONE: return x;
    case MO_ACT_RELU: return x > 0 ? x : x != x ? x : 0;
    case MO_ACT_CLIP: return x < lo ? lo : x > hi ? hi : x;
    case MO_ACT_SIGMOID: return 1 / (1 + expf(-x));
    case MO_ACT_TANH: return tanhf(x);
    case MO_ACT_HARD_SWISH: {
        float t = x / 6 + 0.5f;
        return x * (t < 0 ? 0 : t > 1 ? 1 : t);
    }
    }
    return x;
}

#endif
