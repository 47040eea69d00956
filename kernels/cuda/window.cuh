/* window.cuh - where the taps of a window lie: what convolution and pooling share. */
#ifndef MO_WINDOW_CUH
#define MO_WINDOW_CUH

#include "kernels/cuda/device.cuh"

struct mo_window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    int64_t n_in, n_out, n_taps;        /* pixels and taps altogether */
};

template <class D> static struct mo_window mo_window_of(const D *d)
{
    struct mo_window w = {};
    w.n_in = w.n_out = w.n_taps = 1;
    for (int i = 0; i < 3; i++) {
        w.in[i] = d->in[i], w.out[i] = d->out[i], w.kernel[i] = d->kernel[i];
        w.stride[i] = d->stride[i], w.dilation[i] = d->dilation[i], w.pad[i] = d->pad_begin[i];
        w.n_in *= d->in[i], w.n_out *= d->out[i], w.n_taps *= d->kernel[i];
    }
    return w;
}

static __device__ inline void mo_split3(int64_t flat, const int64_t *dims, int64_t *at)
{
    at[2] = flat % dims[2];
    at[1] = flat / dims[2] % dims[1];
    at[0] = flat / dims[2] / dims[1];
}

/* The input pixel under a tap of an output pixel; -1: in the padding. */
static __device__ inline int64_t mo_tap_input(const struct mo_window &w, int64_t out, int64_t tap)
{
    int64_t o[3], k[3], pixel = 0;
    mo_split3(out, w.out, o);
    mo_split3(tap, w.kernel, k);
    for (int i = 0; i < 3; i++) {
        int64_t p = o[i] * w.stride[i] - w.pad[i] + k[i] * w.dilation[i];
        if (p < 0 || p >= w.in[i])
            return -1;
        pixel = pixel * w.in[i] + p;
    }
    return pixel;
}

/* The output pixel of which a tap lies on an input pixel; -1: none. */
static __device__ inline int64_t mo_tap_output(const struct mo_window &w, int64_t in, int64_t tap)
{
    int64_t p[3], k[3], pixel = 0;
    mo_split3(in, w.in, p);
    mo_split3(tap, w.kernel, k);
    for (int i = 0; i < 3; i++) {
        int64_t o = p[i] + w.pad[i] - k[i] * w.dilation[i];
        if (o < 0 || o % w.stride[i] || o / w.stride[i] >= w.out[i])
            return -1;
        pixel = pixel * w.out[i] + o / w.stride[i];
    }
    return pixel;
}

#endif
