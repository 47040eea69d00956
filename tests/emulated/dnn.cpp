/* dnn.cpp - cuDNN of the emulated device: convolutions as plain loops with sums in double. What it is told must fit
 * together, workspaces are spoilt, and the gradient of the weights by its algorithm 0 is said not to be deterministic. */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>

#include "cudnn.h"
#include "emulated_numbers.h"

struct emulated_cudnn {
    cudaStream_t stream;
};
/* Images n h w c, and weights n = outputs, c = inputs of a group. */
struct emulated_tensor {
    cudaDataType type;
    int64_t n, c, h, w;
};
struct emulated_convolution {
    int64_t pad[2], stride[2], dilation[2], groups;
    cudnnMathType_t math;
};
struct emulated_activation {
    cudnnActivationMode_t mode;
};

static const size_t WORKSPACE = 4096;

static bool is_asked_to(const char *what)
{
    const char *wish = getenv("MOPT_EMULATED_CUDNN");
    return wish && !strcmp(wish, what);
}

void *emulated_cudnn_library(void)
{
    Dl_info self;
    if (is_asked_to("0") || !dladdr((void *)cudnnCreate, &self))
        return NULL;
    return dlopen(self.dli_fname, RTLD_NOW | RTLD_LOCAL);
}

/* ---- descriptions ----------------------------------------------------------------------------------- */

size_t cudnnGetVersion(void)
{
    return 90000;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS"
           : status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_BAD_PARAM";
}

template <class T> static cudnnStatus_t make(T **to)
{
    *to = new T();
    return CUDNN_STATUS_SUCCESS;
}

template <class T> static cudnnStatus_t destroy(T *what)
{
    delete what;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) { return make(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return destroy(handle); }
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *t) { return make(t); }
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t t) { return destroy(t); }
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *f) { return make(f); }
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t f) { return destroy(f); }
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *how) { return make(how); }
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t how) { return destroy(how); }
cudnnStatus_t cudnnCreateActivationDescriptor(cudnnActivationDescriptor_t *act) { return make(act); }
cudnnStatus_t cudnnDestroyActivationDescriptor(cudnnActivationDescriptor_t act) { return destroy(act); }

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t t, cudnnTensorFormat_t format, cudnnDataType_t type, int n,
                                         int c, int h, int w)
{
    *t = { type == CUDNN_DATA_FLOAT ? CUDA_R_32F : type == CUDNN_DATA_HALF ? CUDA_R_16F : CUDA_R_16BF, n, c, h, w };
    return format == CUDNN_TENSOR_NHWC && n > 0 && c > 0 && h > 0 && w > 0 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t f, cudnnDataType_t type, cudnnTensorFormat_t format, int k,
                                         int c, int h, int w)
{
    return cudnnSetTensor4dDescriptor(f, format, type, k, c, h, w);
}

cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t how, int pad_h, int pad_w, int stride_h,
                                              int stride_w, int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t compute)
{
    *how = { { pad_h, pad_w }, { stride_h, stride_w }, { dilation_h, dilation_w }, 1, CUDNN_DEFAULT_MATH };
    bool is_valid = pad_h >= 0 && pad_w >= 0 && stride_h > 0 && stride_w > 0 && dilation_h > 0 && dilation_w > 0;
    return is_valid && mode == CUDNN_CROSS_CORRELATION && compute == CUDNN_DATA_FLOAT ? CUDNN_STATUS_SUCCESS
                                                                                      : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t how, int n_groups)
{
    how->groups = n_groups;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t how, cudnnMathType_t math)
{
    how->math = math;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetActivationDescriptor(cudnnActivationDescriptor_t act, cudnnActivationMode_t mode,
                                           cudnnNanPropagation_t, double)
{
    act->mode = mode;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- a convolution, checked ----------------------------------------------------------------------------- */

struct convolution {
    emulated_tensor x, w, y;
    emulated_convolution how;
};

static int64_t size_of(const emulated_tensor &t)
{
    return t.n * t.c * t.h * t.w;
}

static bool fits(const convolution &c)
{
    int64_t in[2] = { c.x.h, c.x.w }, out[2] = { c.y.h, c.y.w }, kernel[2] = { c.w.h, c.w.w };
    bool is_right = c.x.n == c.y.n && c.w.n == c.y.c && c.w.c * c.how.groups == c.x.c && c.w.n % c.how.groups == 0 &&
                    c.x.type == c.w.type && c.x.type == c.y.type;
    for (int i = 0; i < 2; i++)
        is_right = is_right && out[i] == (in[i] + 2 * c.how.pad[i] - c.how.dilation[i] * (kernel[i] - 1) - 1) / c.how.stride[i] + 1;
    return is_right;
}

/* Calls f(x element, w element, y element) for all of them that belong together. */
template <class F> static void walk(const convolution &c, F f)
{
    int64_t per_group = c.w.n / c.how.groups;
    for (int64_t n = 0; n < c.y.n; n++)
        for (int64_t oh = 0; oh < c.y.h; oh++)
            for (int64_t ow = 0; ow < c.y.w; ow++)
                for (int64_t kh = 0; kh < c.w.h; kh++)
                    for (int64_t kw = 0; kw < c.w.w; kw++) {
                        int64_t ih = oh * c.how.stride[0] - c.how.pad[0] + kh * c.how.dilation[0];
                        int64_t iw = ow * c.how.stride[1] - c.how.pad[1] + kw * c.how.dilation[1];
                        if (ih < 0 || ih >= c.x.h || iw < 0 || iw >= c.x.w)
                            continue;
                        int64_t of_x = ((n * c.x.h + ih) * c.x.w + iw) * c.x.c, of_y = ((n * c.y.h + oh) * c.y.w + ow) * c.y.c;
                        for (int64_t o = 0; o < c.y.c; o++)
                            for (int64_t i = 0; i < c.w.c; i++)
                                f(of_x + o / per_group * c.w.c + i, ((o * c.w.h + kh) * c.w.w + kw) * c.w.c + i, of_y + o);
                    }
}

static bool has(const emulated_tensor &t, const void *mem)
{
    return emulated_has(mem, (size_t)size_of(t) * emulated_bytes_of(t.type));
}

static bool has_all(const convolution &c, const void *x, const void *w, const void *y, void *workspace, size_t bytes)
{
    bool is_there = has(c.x, x) && has(c.w, w) && has(c.y, y) && bytes >= WORKSPACE && emulated_has(workspace, bytes);
    if (!is_there)
        emulated_fault("a convolution reaches beyond an allocation, or into memory of the host");
    else
        memset(workspace, 0xff, bytes);
    return is_there;
}

/* ---- algorithms: one that is not to be had, one that is not deterministic, and one that is taken ------------- */

template <class P, class A>
static cudnnStatus_t list_of(const convolution &c, int n_wanted, int *n, P *list, A other, A good)
{
    if (!fits(c))
        return CUDNN_STATUS_BAD_PARAM;
    if (n_wanted < 3)
        return CUDNN_STATUS_BAD_PARAM;
    *n = is_asked_to("none") ? 2 : 3;
    list[0] = { other, CUDNN_STATUS_NOT_SUPPORTED, -1, 0, CUDNN_DETERMINISTIC, CUDNN_DEFAULT_MATH, {} };
    list[1] = { other, CUDNN_STATUS_SUCCESS, -1, WORKSPACE, CUDNN_NON_DETERMINISTIC, c.how.math, {} };
    list[2] = { good, CUDNN_STATUS_SUCCESS, -1, WORKSPACE, CUDNN_DETERMINISTIC, c.how.math, {} };
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, const cudnnTensorDescriptor_t x,
                                                     const cudnnFilterDescriptor_t w, const cudnnConvolutionDescriptor_t how,
                                                     const cudnnTensorDescriptor_t y, const int n_wanted, int *n,
                                                     cudnnConvolutionFwdAlgoPerf_t *list)
{
    return list_of({ *x, *w, *y, *how }, n_wanted, n, list, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
                   CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, const cudnnFilterDescriptor_t w,
                                                          const cudnnTensorDescriptor_t dy,
                                                          const cudnnConvolutionDescriptor_t how,
                                                          const cudnnTensorDescriptor_t dx, const int n_wanted, int *n,
                                                          cudnnConvolutionBwdDataAlgoPerf_t *list)
{
    return list_of({ *dx, *w, *dy, *how }, n_wanted, n, list, CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
                   CUDNN_CONVOLUTION_BWD_DATA_ALGO_1);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t, const cudnnTensorDescriptor_t x,
                                                            const cudnnTensorDescriptor_t dy,
                                                            const cudnnConvolutionDescriptor_t how,
                                                            const cudnnFilterDescriptor_t dw, const int n_wanted, int *n,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t *list)
{
    return list_of({ *x, *dw, *dy, *how }, n_wanted, n, list, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
                   CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1);
}

/* ---- computing --------------------------------------------------------------------------------------------------- */

/* The sums of all elements of t, alpha times each, and beta times what was there; then end(element, value). */
template <class E>
static void put(const emulated_tensor &t, void *mem, const double *sums, float alpha, float beta, E end)
{
    for (int64_t i = 0; i < size_of(t); i++) {
        double v = alpha * sums[i] + (beta == 0 ? 0 : beta * emulated_read(t.type, mem, i));
        emulated_write(t.type, mem, i, (float)end(i, v));
    }
}

static double as_it_is(int64_t, double v)
{
    return v;
}

static double *new_sums(const emulated_tensor &t)
{
    return (double *)calloc((size_t)size_of(t), sizeof(double));
}

static double *convolve(const convolution &c, const void *x, const void *w)
{
    double *sums = new_sums(c.y);
    walk(c, [&](int64_t at_x, int64_t at_w, int64_t at_y) {
        sums[at_y] += (double)emulated_read(c.x.type, x, at_x) * emulated_read(c.w.type, w, at_w);
    });
    return sums;
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t xd,
                                      const void *x, const cudnnFilterDescriptor_t wd, const void *w,
                                      const cudnnConvolutionDescriptor_t how, cudnnConvolutionFwdAlgo_t algo, void *workspace,
                                      size_t workspace_bytes, const void *beta, const cudnnTensorDescriptor_t yd, void *y)
{
    convolution c = { *xd, *wd, *yd, *how };
    float a = *(const float *)alpha, b = *(const float *)beta;
    if (!fits(c) || algo != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM)
        return CUDNN_STATUS_BAD_PARAM;
    emulated_enqueue(handle->stream, [=] {
        if (!has_all(c, x, w, y, workspace, workspace_bytes))
            return;
        double *sums = convolve(c, x, w);
        put(c.y, y, sums, a, b, as_it_is);
        free(sums);
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionBiasActivationForward(
    cudnnHandle_t handle, const void *alpha1, const cudnnTensorDescriptor_t xd, const void *x,
    const cudnnFilterDescriptor_t wd, const void *w, const cudnnConvolutionDescriptor_t how, cudnnConvolutionFwdAlgo_t algo,
    void *workspace, size_t workspace_bytes, const void *alpha2, const cudnnTensorDescriptor_t zd, const void *z,
    const cudnnTensorDescriptor_t biasd, const void *bias, const cudnnActivationDescriptor_t act,
    const cudnnTensorDescriptor_t yd, void *y)
{
    convolution c = { *xd, *wd, *yd, *how };
    emulated_tensor of_z = *zd, of_bias = *biasd;
    float a1 = *(const float *)alpha1, a2 = *(const float *)alpha2;
    bool has_relu = act->mode == CUDNN_ACTIVATION_RELU;
    if (is_asked_to("fused"))
        return CUDNN_STATUS_NOT_SUPPORTED;
    if (!fits(c) || size_of(of_z) != size_of(c.y) || size_of(of_bias) != c.y.c || of_bias.type != c.y.type ||
        algo != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM)
        return CUDNN_STATUS_BAD_PARAM;
    emulated_enqueue(handle->stream, [=] {
        if (!has_all(c, x, w, y, workspace, workspace_bytes) || !has(of_bias, bias) || !has(of_z, z)) {
            emulated_fault("a bias or a summand that is not on the device");
            return;
        }
        double *sums = convolve(c, x, w);
        put(c.y, y, sums, a1, 0, [&](int64_t i, double v) {
            v += emulated_read(of_bias.type, bias, i % c.y.c) + (a2 == 0 ? 0 : a2 * emulated_read(of_z.type, z, i));
            return has_relu && v < 0 ? 0 : v;
        });
        free(sums);
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha, const cudnnFilterDescriptor_t wd,
                                           const void *w, const cudnnTensorDescriptor_t dyd, const void *dy,
                                           const cudnnConvolutionDescriptor_t how, cudnnConvolutionBwdDataAlgo_t algo,
                                           void *workspace, size_t workspace_bytes, const void *beta,
                                           const cudnnTensorDescriptor_t dxd, void *dx)
{
    convolution c = { *dxd, *wd, *dyd, *how };
    float a = *(const float *)alpha, b = *(const float *)beta;
    if (!fits(c) || algo != CUDNN_CONVOLUTION_BWD_DATA_ALGO_1)
        return CUDNN_STATUS_BAD_PARAM;
    emulated_enqueue(handle->stream, [=] {
        if (!has_all(c, dx, w, dy, workspace, workspace_bytes))
            return;
        double *sums = new_sums(c.x);
        walk(c, [&](int64_t at_x, int64_t at_w, int64_t at_y) {
            sums[at_x] += (double)emulated_read(c.y.type, dy, at_y) * emulated_read(c.w.type, w, at_w);
        });
        put(c.x, dx, sums, a, b, as_it_is);
        free(sums);
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t xd,
                                             const void *x, const cudnnTensorDescriptor_t dyd, const void *dy,
                                             const cudnnConvolutionDescriptor_t how, cudnnConvolutionBwdFilterAlgo_t algo,
                                             void *workspace, size_t workspace_bytes, const void *beta,
                                             const cudnnFilterDescriptor_t dwd, void *dw)
{
    convolution c = { *xd, *dwd, *dyd, *how };
    float a = *(const float *)alpha, b = *(const float *)beta;
    if (!fits(c) || algo != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1)
        return CUDNN_STATUS_BAD_PARAM;
    emulated_enqueue(handle->stream, [=] {
        if (!has_all(c, x, dw, dy, workspace, workspace_bytes))
            return;
        double *sums = new_sums(c.w);
        walk(c, [&](int64_t at_x, int64_t at_w, int64_t at_y) {
            sums[at_w] += (double)emulated_read(c.x.type, x, at_x) * emulated_read(c.y.type, dy, at_y);
        });
        put(c.w, dw, sums, a, b, as_it_is);
        free(sums);
    });
    return CUDNN_STATUS_SUCCESS;
}
