/* HannWindow, HammingWindow, BlackmanWindow: w[k] = a - b cos(2 pi k / n) + c cos(4 pi k / n), n the size, less one
 * when the window is not periodic. MelWeightMatrix: triangular filters, evenly spaced on the mel scale
 * 2595 log10(1 + f / 700), over the bins of a DFT. Made on the host in double. */
#include <math.h>
#include <string.h>

#include "lib/ops/tensor.h"

/* Scratch: the numbers in float64, before they are cast. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : (size_t)mo_value_elems(mo_out(r->graph, n, 0)) * sizeof(double);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    size_t n_elems = (size_t)mo_value_elems(mo_out(r->graph, n, 0));
    *mo_run_handle(r, n) = mo_mem_new(n_elems + 1, sizeof(double));
    return *mo_run_handle(r, n) ? MOPT_OK : mo_no_memory(r->ctx, n_elems * sizeof(double), "a window");
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    mo_mem_free(*mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

/* What stands in the handle becomes the output. */
static void give_out(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *y = mo_out(r->graph, n, 0);
    size_t n_elems = (size_t)mo_value_elems(y);
    r->be->upload(r->dev, mo_run_scratch(r, n), *mo_run_handle(r, n), n_elems * sizeof(double));
    r->be->cast(r->dev, MO_F64, (int)y->dtype, n_elems, mo_run_scratch(r, n), mo_run_out(r, n, 0));
}

static enum mopt_status out_dtype(struct mopt_ctx *ctx, const struct mo_node *n, enum mo_dtype *dtype)
{
    *dtype = (enum mo_dtype)mo_node_int(n, "output_datatype", MO_F32);
    if (*dtype == MO_STRING || *dtype == MO_BOOL || mo_dtype_bits(*dtype) < 8 || *dtype == MO_C64 || *dtype == MO_C128)
        return mo_fail(ctx, MOPT_DATA, "output_datatype is %s, it should be a number", mo_dtype_name(*dtype));
    return MOPT_OK;
}

/* ---- windows ---- */

static enum mopt_status infer_window(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    int64_t size = mo_known_in(g, n, 0, 0);
    struct mo_shape y = mo_shape_of(1, size == MO_VALUE_UNKNOWN ? (int64_t)MO_UNKNOWN : size);
    enum mo_dtype dtype;
    MO_TRY(out_dtype(ctx, n, &dtype));
    if (size < 0 && size != MO_VALUE_UNKNOWN)
        return mo_fail(ctx, MOPT_DATA, "a window of %lld", (long long)size);
    mo_set_out(g, n, 0, dtype, &y);
    return MOPT_OK;
}

static enum mopt_status window(struct mo_run *r, const struct mo_node *n, double a, double b, double c)
{
    int64_t size = mo_value_elems(mo_out(r->graph, n, 0));
    double *w = *mo_run_handle(r, n), step = mo_node_int(n, "periodic", 1) ? (double)size : (double)(size - 1);
    for (int64_t k = 0; k < size; k++) {
        double at = step > 0 ? 2 * M_PI * (double)k / step : 0;
        w[k] = a - b * cos(at) + c * cos(2 * at);
    }
    give_out(r, n);
    return MOPT_OK;
}

static enum mopt_status forward_hann(struct mo_run *r, const struct mo_node *n)
{
    return window(r, n, 0.5, 0.5, 0);
}
static enum mopt_status forward_hamming(struct mo_run *r, const struct mo_node *n)
{
    return window(r, n, 25.0 / 46, 21.0 / 46, 0);
}
static enum mopt_status forward_blackman(struct mo_run *r, const struct mo_node *n)
{
    return window(r, n, 0.42, 0.5, 0.08);
}

#define MEMBERS(n_inputs, values)                                                                                    \
    .since_opset = 17, .min_in = n_inputs, .max_in = n_inputs, .min_out = 1, .max_out = 1, .prepare = prepare,           \
    .unprepare = unprepare, .scratch_bytes = scratch_bytes, .macs = mo_macs_zero, .values_in = values

const struct mo_op mo_op_hann_window = {.type = "HannWindow", MEMBERS(1, 1), .infer = infer_window, .forward = forward_hann};
const struct mo_op mo_op_hamming_window = {
    .type = "HammingWindow", MEMBERS(1, 1), .infer = infer_window, .forward = forward_hamming,
};
const struct mo_op mo_op_blackman_window = {
    .type = "BlackmanWindow", MEMBERS(1, 1), .infer = infer_window, .forward = forward_blackman,
};

/* ---- MelWeightMatrix ---- */

enum { N_BINS, DFT_LENGTH, SAMPLE_RATE, LOWER_EDGE, UPPER_EDGE, N_MEL_INPUTS };

static enum mopt_status infer_mel(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    int64_t n_bins = mo_known_in(g, n, N_BINS, 0), length = mo_known_in(g, n, DFT_LENGTH, 0);
    struct mo_shape y = mo_shape_of(2, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN);
    enum mo_dtype dtype;
    MO_TRY(out_dtype(ctx, n, &dtype));
    if ((n_bins < 1 && n_bins != MO_VALUE_UNKNOWN) || (length < 1 && length != MO_VALUE_UNKNOWN))
        return mo_fail(ctx, MOPT_DATA, "%lld mel bins of a DFT of %lld", (long long)n_bins, (long long)length);
    if (length != MO_VALUE_UNKNOWN)
        y.dim[0] = length / 2 + 1;
    if (n_bins != MO_VALUE_UNKNOWN)
        y.dim[1] = n_bins;
    mo_set_out(g, n, 0, dtype, &y);
    return MOPT_OK;
}

static double mel_of(double hertz)
{
    return 2595 * log10(1 + hertz / 700);
}

/* The DFT bin in which the k-th of n_bins + 2 points of the mel scale lies, as the definition rounds it. */
static double bin_of(const double *in, double k)
{
    double low = mel_of(in[LOWER_EDGE]), step = (mel_of(in[UPPER_EDGE]) - low) / (in[N_BINS] + 2);
    double hertz = 700 * (pow(10, (low + k * step) / 2595) - 1);
    return floor((in[DFT_LENGTH] + 1) * hertz / in[SAMPLE_RATE]);
}

static void fill_filter(const double *in, int64_t n_spectrum, int64_t n_bins, int64_t k, double *m)
{
    double low = bin_of(in, (double)k), centre = bin_of(in, (double)k + 1), high = bin_of(in, (double)k + 2);
    for (int64_t j = 0; j < n_spectrum; j++) {
        double at = (double)j, *to = &m[j * n_bins + k];
        *to = 0;
        if (centre == low && at == centre)
            *to = 1;
        else if (at >= low && at <= centre && centre > low)
            *to = (at - low) / (centre - low);
        if (at >= centre && at < high && high > centre)
            *to = (high - at) / (high - centre);
    }
}

static enum mopt_status forward_mel(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *y = &mo_out(r->graph, n, 0)->shape;
    double in[N_MEL_INPUTS];
    for (uint32_t i = 0; i < N_MEL_INPUTS; i++)
        if (!mo_run_scalar(r, n, i, &in[i]) || isnan(in[i]))
            return mo_fail(r->ctx, MOPT_DATA, "input %u is not one number", i);
    if (in[SAMPLE_RATE] <= 0 || in[LOWER_EDGE] < 0 || in[UPPER_EDGE] < in[LOWER_EDGE])
        return mo_fail(r->ctx, MOPT_DATA, "from %g to %g Hz at a sample rate of %g", in[LOWER_EDGE], in[UPPER_EDGE],
                       in[SAMPLE_RATE]);
    for (int64_t k = 0; k < y->dim[1]; k++)
        fill_filter(in, y->dim[0], y->dim[1], k, *mo_run_handle(r, n));
    give_out(r, n);
    return MOPT_OK;
}

const struct mo_op mo_op_mel_weight_matrix = {
    .type = "MelWeightMatrix", MEMBERS(5, 3), .infer = infer_mel, .forward = forward_mel,
};
