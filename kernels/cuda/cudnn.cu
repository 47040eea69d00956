/* cudnn.cu - convolution forward and both gradients by cuDNN, channels-last.
 *
 * The library is loaded when a device is opened and never linked to, so that the plug-in
 * runs where there is none. Of its interfaces this is the older one, by descriptors: it has
 * all that is wanted here (heuristics, bias and Relu within the convolution) in a
 * quarter of the lines that its graphs take.
 *
 * It wants weights as O kH kW I/g in the type of the images: they are laid out so before each
 * use, or once where they are constant; a gradient of the weights comes out so and is laid
 * back into ONNX's order and float32. Only deterministic algorithms are taken. */
#include "kernels/cuda/cudnn.cuh"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<cudnn.h>)
#include <cudnn.h>
#include <dlfcn.h>

/* ---- the library -------------------------------------------------------------------------------- */

#define FUNCTIONS(X)                                                                                                     \
    X(cudnnGetVersion) X(cudnnGetErrorString) X(cudnnCreate) X(cudnnDestroy) X(cudnnSetStream)                           \
    X(cudnnCreateTensorDescriptor) X(cudnnSetTensor4dDescriptor) X(cudnnDestroyTensorDescriptor)                         \
    X(cudnnCreateFilterDescriptor) X(cudnnSetFilter4dDescriptor) X(cudnnDestroyFilterDescriptor)                         \
    X(cudnnCreateConvolutionDescriptor) X(cudnnSetConvolution2dDescriptor) X(cudnnSetConvolutionGroupCount)              \
    X(cudnnSetConvolutionMathType) X(cudnnDestroyConvolutionDescriptor) X(cudnnCreateActivationDescriptor)               \
    X(cudnnSetActivationDescriptor) X(cudnnDestroyActivationDescriptor) X(cudnnGetConvolutionForwardAlgorithm_v7)        \
    X(cudnnGetConvolutionBackwardDataAlgorithm_v7) X(cudnnGetConvolutionBackwardFilterAlgorithm_v7)                      \
    X(cudnnConvolutionForward) X(cudnnConvolutionBiasActivationForward) X(cudnnConvolutionBackwardData)                  \
    X(cudnnConvolutionBackwardFilter)

struct mo_cudnn {
    void *library;
    cudnnHandle_t handle;
    char version[40];
#define MEMBER(f) decltype(&::f) f;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

#ifndef MO_CUDNN_LIBRARY
#define MO_CUDNN_LIBRARY() dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL)
#endif

/* Of the members the first that the library lacks; NULL: none. */
static const char *find_functions(struct mo_cudnn *dnn)
{
#define FIND(f)                                                 \
    *(void **)&dnn->f = dlsym(dnn->library, #f);                \
    if (!dnn->f)                                                \
        return #f;
    FUNCTIONS(FIND)
#undef FIND
    return NULL;
}

static bool load(struct mo_device *dev, struct mo_cudnn *dnn)
{
    dnn->library = MO_CUDNN_LIBRARY();
    if (!dnn->library) {
        const char *reason = dlerror();
        snprintf(dev->no_cudnn, sizeof dev->no_cudnn, "no cuDNN: %.80s", reason ? reason : "libcudnn.so.9 does not load");
        return false;
    }
    const char *missing = find_functions(dnn);
    if (missing) {
        snprintf(dev->no_cudnn, sizeof dev->no_cudnn, "libcudnn.so.9 lacks %.60s", missing);
        return false;
    }
    cudnnStatus_t s = dnn->cudnnCreate(&dnn->handle);
    if (!s)
        s = dnn->cudnnSetStream(dnn->handle, dev->stream);
    if (s)
        snprintf(dev->no_cudnn, sizeof dev->no_cudnn, "cuDNN does not start: %.60s", dnn->cudnnGetErrorString(s));
    return !s;
}

void mo_cudnn_open(struct mo_device *dev)
{
    const char *wish = getenv("MOPT_CUDNN");
    struct mo_cudnn *dnn = wish && !strcmp(wish, "0") ? NULL : (struct mo_cudnn *)calloc(1, sizeof *dnn);
    snprintf(dev->no_cudnn, sizeof dev->no_cudnn, "MOPT_CUDNN=0");
    dev->cudnn = dnn;
    if (dnn && !load(dev, dnn)) {
        mo_cudnn_close(dev);
    } else if (dnn) {
        int v = (int)dnn->cudnnGetVersion();
        snprintf(dnn->version, sizeof dnn->version, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    }
}

/* The library stays: it does not like to be unloaded. */
void mo_cudnn_close(struct mo_device *dev)
{
    struct mo_cudnn *dnn = dev->cudnn;
    if (dnn && dnn->handle)
        dnn->cudnnDestroy(dnn->handle);
    free(dnn);
    dev->cudnn = NULL;
}

const char *mo_cudnn_version(const struct mo_device *dev)
{
    return dev->cudnn ? dev->cudnn->version : "";
}

/* ---- describing a convolution ----------------------------------------------------------------------- */

/* Scratch of one convolution that is asked for; algorithms that take more are passed over. */
static const size_t most_workspace = (size_t)512 << 20;
enum { ALIGNMENT = 256, MOST_ALGORITHMS = 8 };

struct mo_cudnn_conv {
    struct mo_conv_desc d;
    int64_t n_y, n_w, taps, ic;
    bool fuses;                                     /* bias and activation within the convolution */
    size_t elem, w_bytes, bias_bytes;
    cudnnTensorDescriptor_t x, y, bias;
    cudnnFilterDescriptor_t w;
    cudnnActivationDescriptor_t act;
    struct { cudnnConvolutionDescriptor_t how; size_t bytes; } forward, input, weight;
    cudnnConvolutionFwdAlgo_t forward_algo;
    cudnnConvolutionBwdDataAlgo_t input_algo;
    cudnnConvolutionBwdFilterAlgo_t weight_algo;
    void *packed;                                   /* constant weights */
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* It pads alike on both sides: what it would make of the first side's pads must be the size that is wanted. */
static bool is_expressible(const struct mo_conv_desc *d, char *why, size_t why_bytes)
{
    const char *reason = d->n_spatial > 2 ? "three spatial axes" : d->batch == 0 ? "no images" : NULL;
    int64_t sizes[] = { d->batch, d->groups, d->in_channels, d->out_channels, d->in[0] * d->in[1], d->out[0] * d->out[1] };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] > INT_MAX)
            reason = "more than it can count";
    for (int i = 0; i < 2 && !reason; i++) {
        int64_t span = d->in[i] + 2 * d->pad_begin[i] - d->dilation[i] * (d->kernel[i] - 1) - 1;
        if (span < 0 || span / d->stride[i] + 1 != d->out[i])
            reason = "pads differ from side to side";
    }
    if (reason)
        snprintf(why, why_bytes, "%s", reason);
    return !reason;
}

static cudnnStatus_t make_descriptors(struct mo_device *dev, struct mo_cudnn_conv *c)
{
    const struct mo_cudnn *l = dev->cudnn;
    const struct mo_conv_desc *d = &c->d;
    cudnnDataType_t type = !d->is_bf16 ? CUDNN_DATA_FLOAT : dev->half_is_f16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
    const int n = (int)d->batch, ci = (int)d->in_channels, co = (int)d->out_channels;
    cudnnStatus_t s = l->cudnnCreateTensorDescriptor(&c->x);
    if (!s)
        s = l->cudnnCreateTensorDescriptor(&c->y);
    if (!s)
        s = l->cudnnCreateTensorDescriptor(&c->bias);
    if (!s)
        s = l->cudnnCreateFilterDescriptor(&c->w);
    if (!s)
        s = l->cudnnCreateActivationDescriptor(&c->act);
    if (!s)
        s = l->cudnnSetTensor4dDescriptor(c->x, CUDNN_TENSOR_NHWC, type, n, ci, (int)d->in[0], (int)d->in[1]);
    if (!s)
        s = l->cudnnSetTensor4dDescriptor(c->y, CUDNN_TENSOR_NHWC, type, n, co, (int)d->out[0], (int)d->out[1]);
    if (!s)
        s = l->cudnnSetTensor4dDescriptor(c->bias, CUDNN_TENSOR_NHWC, type, 1, co, 1, 1);
    if (!s)
        s = l->cudnnSetFilter4dDescriptor(c->w, type, CUDNN_TENSOR_NHWC, co, (int)c->ic, (int)d->kernel[0],
                                          (int)d->kernel[1]);
    if (!s)
        s = l->cudnnSetActivationDescriptor(c->act, d->act == MO_ACT_RELU ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY,
                                            CUDNN_PROPAGATE_NAN, 0);
    return s;
}

static cudnnStatus_t make_how(struct mo_device *dev, const struct mo_conv_desc *d, cudnnConvolutionDescriptor_t *how)
{
    const struct mo_cudnn *l = dev->cudnn;
    cudnnMathType_t math = d->is_bf16 ? CUDNN_TENSOR_OP_MATH : dev->uses_tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
    cudnnStatus_t s = l->cudnnCreateConvolutionDescriptor(how);
    if (!s)
        s = l->cudnnSetConvolution2dDescriptor(*how, (int)d->pad_begin[0], (int)d->pad_begin[1], (int)d->stride[0],
                                               (int)d->stride[1], (int)d->dilation[0], (int)d->dilation[1],
                                               CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
    if (!s)
        s = l->cudnnSetConvolutionGroupCount(*how, (int)d->groups);
    if (!s)
        s = l->cudnnSetConvolutionMathType(*how, math);
    return s;
}

/* The first of the list, best first, that can be taken; -1: none. */
template <class P> static int first_fit(const P *list, int n)
{
    for (int i = 0; i < n; i++)
        if (list[i].status == CUDNN_STATUS_SUCCESS && list[i].determinism == CUDNN_DETERMINISTIC &&
            list[i].memory <= most_workspace)
            return i;
    return -1;
}

static cudnnStatus_t taken(cudnnStatus_t s, int best)
{
    return s ? s : best < 0 ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t choose_forward(struct mo_device *dev, struct mo_cudnn_conv *c)
{
    const struct mo_cudnn *l = dev->cudnn;
    cudnnConvolutionFwdAlgoPerf_t list[MOST_ALGORITHMS];
    int n = 0;
    cudnnStatus_t s = make_how(dev, &c->d, &c->forward.how);
    if (!s)
        s = l->cudnnGetConvolutionForwardAlgorithm_v7(l->handle, c->x, c->w, c->forward.how, c->y, MOST_ALGORITHMS, &n, list);
    int best = s ? -1 : first_fit(list, n);
    if (best >= 0) {
        c->forward_algo = list[best].algo;
        c->forward.bytes = list[best].memory;
        s = l->cudnnSetConvolutionMathType(c->forward.how, list[best].mathType);
        /* without an activation it adds a bias by this algorithm only */
        c->fuses = c->d.has_bias && (c->d.act == MO_ACT_RELU ||
                   (c->d.act == MO_ACT_NONE && c->forward_algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM));
    }
    return taken(s, best);
}

static cudnnStatus_t choose_input(struct mo_device *dev, struct mo_cudnn_conv *c)
{
    const struct mo_cudnn *l = dev->cudnn;
    cudnnConvolutionBwdDataAlgoPerf_t list[MOST_ALGORITHMS];
    int n = 0;
    cudnnStatus_t s = make_how(dev, &c->d, &c->input.how);
    if (!s)
        s = l->cudnnGetConvolutionBackwardDataAlgorithm_v7(l->handle, c->w, c->y, c->input.how, c->x, MOST_ALGORITHMS, &n,
                                                           list);
    int best = s ? -1 : first_fit(list, n);
    if (best >= 0) {
        c->input_algo = list[best].algo;
        c->input.bytes = list[best].memory;
        s = l->cudnnSetConvolutionMathType(c->input.how, list[best].mathType);
    }
    return taken(s, best);
}

static cudnnStatus_t choose_weight(struct mo_device *dev, struct mo_cudnn_conv *c)
{
    const struct mo_cudnn *l = dev->cudnn;
    cudnnConvolutionBwdFilterAlgoPerf_t list[MOST_ALGORITHMS];
    int n = 0;
    cudnnStatus_t s = make_how(dev, &c->d, &c->weight.how);
    if (!s)
        s = l->cudnnGetConvolutionBackwardFilterAlgorithm_v7(l->handle, c->x, c->y, c->weight.how, c->w, MOST_ALGORITHMS, &n,
                                                             list);
    int best = s ? -1 : first_fit(list, n);
    if (best >= 0) {
        c->weight_algo = list[best].algo;
        c->weight.bytes = list[best].memory;
        s = l->cudnnSetConvolutionMathType(c->weight.how, list[best].mathType);
    }
    return taken(s, best);
}

static cudnnStatus_t prepare(struct mo_device *dev, struct mo_cudnn_conv *c)
{
    cudnnStatus_t s = make_descriptors(dev, c);
    if (!s)
        s = choose_forward(dev, c);
    if (!s && c->d.needs_grad_input)
        s = choose_input(dev, c);
    if (!s && c->d.needs_grad_weight)
        s = choose_weight(dev, c);
    return s;
}

struct mo_cudnn_conv *mo_cudnn_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc, char *why, size_t why_bytes)
{
    if (!dev->cudnn || !is_expressible(desc, why, why_bytes))
        return NULL;
    struct mo_cudnn_conv *c = (struct mo_cudnn_conv *)calloc(1, sizeof *c);
    if (!c) {
        snprintf(why, why_bytes, "out of memory");
        return NULL;
    }
    mo_cuda_use(dev);
    c->d = *desc;
    c->ic = desc->in_channels / desc->groups;
    c->taps = desc->kernel[0] * desc->kernel[1];
    c->n_w = desc->out_channels * c->ic * c->taps;
    c->n_y = desc->batch * desc->out[0] * desc->out[1] * desc->out_channels;
    c->elem = desc->is_bf16 ? 2 : 4;
    c->w_bytes = aligned((size_t)c->n_w * c->elem);
    c->bias_bytes = desc->is_bf16 ? aligned((size_t)desc->out_channels * c->elem) : 0;
    cudnnStatus_t s = prepare(dev, c);
    if (!s && desc->constant_weights)
        c->packed = mo_cuda_alloc(dev, c->w_bytes);
    if (s || (desc->constant_weights && !c->packed)) {
        snprintf(why, why_bytes, "%s", s ? dev->cudnn->cudnnGetErrorString(s) : "no room for packed weights");
        mo_cudnn_conv_free(dev, c);
        return NULL;
    }
    return c;
}

void mo_cudnn_conv_free(struct mo_device *dev, struct mo_cudnn_conv *c)
{
    if (!c)
        return;
    const struct mo_cudnn *l = dev->cudnn;
    cudnnTensorDescriptor_t tensors[] = { c->x, c->y, c->bias };
    cudnnConvolutionDescriptor_t hows[] = { c->forward.how, c->input.how, c->weight.how };
    for (int i = 0; i < 3; i++) {
        if (tensors[i])
            l->cudnnDestroyTensorDescriptor(tensors[i]);
        if (hows[i])
            l->cudnnDestroyConvolutionDescriptor(hows[i]);
    }
    if (c->w)
        l->cudnnDestroyFilterDescriptor(c->w);
    if (c->act)
        l->cudnnDestroyActivationDescriptor(c->act);
    if (c->packed)
        mo_cuda_free(dev, c->packed);
    free(c);
}

/* Weights or their gradient in the type of the images, a bias in it, then what the algorithm asks for. */
size_t mo_cudnn_conv_scratch_bytes(const struct mo_cudnn_conv *c, bool backward)
{
    size_t of_gradients = c->input.bytes > c->weight.bytes ? c->input.bytes : c->weight.bytes;
    return c->w_bytes + c->bias_bytes + (backward ? of_gradients : c->forward.bytes);
}

/* ---- weights in its order ------------------------------------------------------------------------------ */

/* O I/g taps to O taps I/g */
template <class T> static void to_own_order(struct mo_device *dev, const struct mo_cudnn_conv *c, const float *w, T *own)
{
    int64_t ic = c->ic, taps = c->taps;
    mo_each(dev, c->n_w, [=] __device__(int64_t u) {
        int64_t i = u % ic, tap = u / ic % taps, o = u / ic / taps;
        own[u] = mo_stored<T>::of(w[(o * ic + i) * taps + tap]);
    });
}

template <class T> static void from_own_order(struct mo_device *dev, const struct mo_cudnn_conv *c, const T *own, float *w)
{
    int64_t ic = c->ic, taps = c->taps;
    mo_each(dev, c->n_w, [=] __device__(int64_t u) {
        int64_t tap = u % taps, i = u / taps % ic, o = u / taps / ic;
        w[u] = mo_load(own[(o * taps + tap) * ic + i]);
    });
}

static void lay_out(struct mo_device *dev, const struct mo_cudnn_conv *c, const float *w, void *own)
{
    if (c->d.is_bf16)
        MO_BY_HALF(dev, to_own_order(dev, c, w, (H *)own););
    else
        to_own_order(dev, c, w, (float *)own);
}

void mo_cudnn_conv_pack(struct mo_device *dev, struct mo_cudnn_conv *c, const float *w)
{
    lay_out(dev, c, w, c->packed);
}

static const void *weights_of(struct mo_device *dev, const struct mo_cudnn_conv *c, const float *w, void *scratch)
{
    if (c->packed)
        return c->packed;
    lay_out(dev, c, w, scratch);
    return scratch;
}

static void *workspace_of(const struct mo_cudnn_conv *c, void *scratch)
{
    return (char *)scratch + c->w_bytes + c->bias_bytes;
}

/* ---- computing ------------------------------------------------------------------------------------------- */

static void failed(struct mo_device *dev, const char *what, cudnnStatus_t s)
{
    if (s)
        mo_cuda_latch(dev, "cudnn: %s: %s; without it: MOPT_CUDNN=0", what, dev->cudnn->cudnnGetErrorString(s));
}

template <class T>
static void finish(struct mo_device *dev, const struct mo_cudnn_conv *c, const float *bias, const T *residual, T *y)
{
    struct mo_conv_desc d = c->d;
    if (bias || residual || d.act != MO_ACT_NONE)
        mo_each(dev, c->n_y, [=] __device__(int64_t i) {
            float v = mo_load(y[i]) + (bias ? bias[i % d.out_channels] : 0) + (residual ? mo_load(residual[i]) : 0);
            y[i] = mo_stored<T>::of(mo_act_of(d.act, d.act_lo, d.act_hi, v));
        });
}

/* The bias in the type of the images. */
static const void *bias_of(struct mo_device *dev, const struct mo_cudnn_conv *c, const float *bias, void *scratch)
{
    if (!c->d.is_bf16)
        return bias;
    void *at = (char *)scratch + c->w_bytes;
    MO_BY_HALF(dev, {
        H *to = (H *)at;
        mo_each(dev, c->d.out_channels, [=] __device__(int64_t o) { to[o] = mo_stored<H>::of(bias[o]); });
    });
    return at;
}

/* One call for all of it; false: cuDNN does not do that for this shape, and nothing was computed. */
static bool fused(struct mo_device *dev, struct mo_cudnn_conv *c, const void *x, const void *w, const float *bias,
                  const void *residual, void *y, void *scratch)
{
    const struct mo_cudnn *l = dev->cudnn;
    const float one = 1, more = residual ? 1.0f : 0.0f;
    cudnnStatus_t s = l->cudnnConvolutionBiasActivationForward(
        l->handle, &one, c->x, x, c->w, w, c->forward.how, c->forward_algo, workspace_of(c, scratch), c->forward.bytes, &more,
        c->y, residual ? residual : y, c->bias, bias_of(dev, c, bias, scratch), c->act, c->y, y);
    c->fuses = s != CUDNN_STATUS_NOT_SUPPORTED;
    if (c->fuses)
        failed(dev, "convolution with bias", s);
    return c->fuses;
}

void mo_cudnn_forward(struct mo_device *dev, struct mo_cudnn_conv *c, const void *x, const float *w, const float *bias,
                   const void *residual, void *y, void *scratch)
{
    const struct mo_cudnn *l = dev->cudnn;
    mo_cuda_use(dev);
    const void *weights = weights_of(dev, c, w, scratch);
    if (c->fuses && bias && fused(dev, c, x, weights, bias, residual, y, scratch))
        return;
    bool is_in_place = residual == y;       /* then the convolution adds to it */
    const float one = 1, beta = is_in_place ? 1.0f : 0.0f;
    failed(dev, "convolution", l->cudnnConvolutionForward(l->handle, &one, c->x, x, c->w, weights, c->forward.how,
                                                          c->forward_algo, workspace_of(c, scratch), c->forward.bytes, &beta,
                                                          c->y, y));
    residual = is_in_place ? NULL : residual;
    if (c->d.is_bf16)
        MO_BY_HALF(dev, finish(dev, c, bias, (const H *)residual, (H *)y););
    else
        finish(dev, c, bias, (const float *)residual, (float *)y);
}

void mo_cudnn_grad_input(struct mo_device *dev, struct mo_cudnn_conv *c, const float *w, const void *dy, void *dx,
                              void *scratch)
{
    const struct mo_cudnn *l = dev->cudnn;
    const float one = 1, zero = 0;
    mo_cuda_use(dev);
    const void *weights = weights_of(dev, c, w, scratch);
    failed(dev, "gradient of a convolution's input",
           l->cudnnConvolutionBackwardData(l->handle, &one, c->w, weights, c->y, dy, c->input.how, c->input_algo,
                                           workspace_of(c, scratch), c->input.bytes, &zero, c->x, dx));
}

void mo_cudnn_grad_weight(struct mo_device *dev, struct mo_cudnn_conv *c, const void *x, const void *dy, float *dw,
                               void *scratch)
{
    const struct mo_cudnn *l = dev->cudnn;
    const float one = 1, zero = 0;
    mo_cuda_use(dev);
    failed(dev, "gradient of a convolution's weights",
           l->cudnnConvolutionBackwardFilter(l->handle, &one, c->x, x, c->y, dy, c->weight.how, c->weight_algo,
                                             workspace_of(c, scratch), c->weight.bytes, &zero, c->w, scratch));
    if (c->d.is_bf16)
        MO_BY_HALF(dev, from_own_order(dev, c, (const H *)scratch, dw););
    else
        from_own_order(dev, c, (const float *)scratch, dw);
}

#else /* without cudnn.h */

void mo_cudnn_open(struct mo_device *dev)
{
    snprintf(dev->no_cudnn, sizeof dev->no_cudnn, "built without cuDNN");
}

void mo_cudnn_close(struct mo_device *dev)
{
    (void)dev;
}

const char *mo_cudnn_version(const struct mo_device *dev)
{
    (void)dev;
    return "";
}

struct mo_cudnn_conv *mo_cudnn_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc, char *why, size_t why_bytes)
{
    (void)dev, (void)desc, (void)why, (void)why_bytes;
    return NULL;
}

void mo_cudnn_conv_free(struct mo_device *dev, struct mo_cudnn_conv *c)
{
    (void)dev, (void)c;
}

size_t mo_cudnn_conv_scratch_bytes(const struct mo_cudnn_conv *c, bool backward)
{
    (void)c, (void)backward;
    return 0;
}

void mo_cudnn_conv_pack(struct mo_device *dev, struct mo_cudnn_conv *c, const float *w)
{
    (void)dev, (void)c, (void)w;
}

void mo_cudnn_forward(struct mo_device *dev, struct mo_cudnn_conv *c, const void *x, const float *w, const float *bias,
                   const void *residual, void *y, void *scratch)
{
    (void)dev, (void)c, (void)x, (void)w, (void)bias, (void)residual, (void)y, (void)scratch;
}

void mo_cudnn_grad_input(struct mo_device *dev, struct mo_cudnn_conv *c, const float *w, const void *dy, void *dx,
                              void *scratch)
{
    (void)dev, (void)c, (void)w, (void)dy, (void)dx, (void)scratch;
}

void mo_cudnn_grad_weight(struct mo_device *dev, struct mo_cudnn_conv *c, const void *x, const void *dy, float *dw,
                               void *scratch)
{
    (void)dev, (void)c, (void)x, (void)dy, (void)dw, (void)scratch;
}

#endif
