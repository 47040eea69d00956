/* quant.cu - from floats to integers of a scale and a zero point, and back. */
#include "kernels/cuda/device.cuh"

struct steps {
    const float *scale;
    const int32_t *zero;            /* NULL: 0 */
    int64_t channels, inner;
    float low, high;
};

static bool range_of(int dtype, float *low, float *high)
{
    switch (dtype) {
    case 2: *low = 0, *high = 255; return true;
    case 3: *low = -128, *high = 127; return true;
    case 4: *low = 0, *high = 65535; return true;
    case 5: *low = -32768, *high = 32767; return true;
    case 21: *low = 0, *high = 15; return true;
    case 22: *low = -8, *high = 7; return true;
    case 25: *low = 0, *high = 3; return true;
    case 26: *low = -2, *high = 1; return true;
    default: return false;
    }
}

static __device__ int64_t channel_of(const struct steps &s, int64_t i)
{
    return s.channels == 1 ? 0 : i / s.inner % s.channels;
}

/* Held to low - zero .. high - zero first, so that all of the rest is exact. NaN becomes the lowest value. */
template <class T> static void quantize_to(struct mo_device *dev, struct steps s, int64_t n, const float *x, T *y)
{
    mo_each(dev, n, [=] __device__(int64_t i) {
        int64_t c = channel_of(s, i);
        float zero = s.zero ? (float)s.zero[c] : 0, low = s.low - zero, high = s.high - zero;
        float v = x[i] / s.scale[c];
        v = v > low ? v : low;
        v = v < high ? v : high;
        y[i] = (T)(int32_t)(rintf(v) + zero);
    });
}

void mo_cuda_quantize(struct mo_device *dev, int dtype, int64_t outer, int64_t channels, int64_t inner, const float *x,
                      const float *scale, const int32_t *zero, void *y)
{
    mo_staged<float> scales(dev, scale, channels);
    mo_staged<int32_t> zeros(dev, zero, channels);
    struct steps s = { scales.at, zeros.at, channels, inner, 0, 0 };
    int64_t n = outer * channels * inner;
    switch (range_of(dtype, &s.low, &s.high) ? dtype : 0) {
    case 2: case 21: case 25: quantize_to(dev, s, n, x, (uint8_t *)y); break;
    case 3: case 22: case 26: quantize_to(dev, s, n, x, (int8_t *)y); break;
    case 4: quantize_to(dev, s, n, x, (uint16_t *)y); break;
    case 5: quantize_to(dev, s, n, x, (int16_t *)y); break;
    default: mo_cuda_latch(dev, "quantize: no kernel for element type %d", dtype);
    }
}

/* The difference of int32 may leave 32 bits; that of the others is the same in 64. */
template <class T> static void dequantize_from(struct mo_device *dev, struct steps s, int64_t n, const T *q, float *y)
{
    mo_each(dev, n, [=] __device__(int64_t i) {
        int64_t c = channel_of(s, i);
        y[i] = (float)((int64_t)q[i] - (s.zero ? s.zero[c] : 0)) * s.scale[c];
    });
}

void mo_cuda_dequantize(struct mo_device *dev, int dtype, int64_t outer, int64_t channels, int64_t inner, const void *x,
                        const float *scale, const int32_t *zero, float *y)
{
    mo_staged<float> scales(dev, scale, channels);
    mo_staged<int32_t> zeros(dev, zero, channels);
    struct steps s = { scales.at, zeros.at, channels, inner, 0, 0 };
    int64_t n = outer * channels * inner;
    switch (dtype) {
    case 2: case 21: case 25: dequantize_from(dev, s, n, (const uint8_t *)x, y); break;
    case 3: case 22: case 26: dequantize_from(dev, s, n, (const int8_t *)x, y); break;
    case 4: dequantize_from(dev, s, n, (const uint16_t *)x, y); break;
    case 5: dequantize_from(dev, s, n, (const int16_t *)x, y); break;
    case 6: dequantize_from(dev, s, n, (const int32_t *)x, y); break;
    default: mo_cuda_latch(dev, "dequantize: no kernel for element type %d", dtype);
    }
}

void mo_cuda_quantize_grad(struct mo_device *dev, int dtype, int64_t outer, int64_t channels, int64_t inner,
                           const float *x, const float *scale, const int32_t *zero, const float *dy, float *dx, bool add)
{
    mo_staged<float> scales(dev, scale, channels);
    mo_staged<int32_t> zeros(dev, zero, channels);
    struct steps s = { scales.at, zeros.at, channels, inner, 0, 0 };
    if (!range_of(dtype, &s.low, &s.high)) {
        mo_cuda_latch(dev, "quantize_grad: no kernel for element type %d", dtype);
        return;
    }
    mo_each(dev, outer * channels * inner, [=] __device__(int64_t i) {
        int64_t c = channel_of(s, i);
        float zero_at = s.zero ? (float)s.zero[c] : 0;
        float low = (s.low - zero_at) * s.scale[c], high = (s.high - zero_at) * s.scale[c];
        float d = x[i] >= low && x[i] <= high ? dy[i] : 0;
        dx[i] = add ? dx[i] + d : d;
    });
}
