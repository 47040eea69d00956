/* cudnn.cuh - convolutions by cuDNN, where its library is there when the device is opened. */
#ifndef MO_CUDNN_CUH
#define MO_CUDNN_CUH

#include "kernels/cuda/device.cuh"

struct mo_cudnn_conv;

/* Loads the library for dev; else dev->no_cudnn says why not. $MOPT_CUDNN=0: it is not looked for. */
void mo_cudnn_open(struct mo_device *dev);
void mo_cudnn_close(struct mo_device *dev);
/* Its version as text; "": it is not there. */
const char *mo_cudnn_version(const struct mo_device *dev);

/* NULL: cuDNN does not compute this one, and why (unless there is no cuDNN at all). */
struct mo_cudnn_conv *mo_cudnn_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc, char *why, size_t why_bytes);
void mo_cudnn_conv_free(struct mo_device *dev, struct mo_cudnn_conv *c);
size_t mo_cudnn_conv_scratch_bytes(const struct mo_cudnn_conv *c, bool backward);
void mo_cudnn_conv_pack(struct mo_device *dev, struct mo_cudnn_conv *c, const float *w);

/* Images are float32, or of the device's 16-bit type where the description said so. */
void mo_cudnn_forward(struct mo_device *dev, struct mo_cudnn_conv *c, const void *x, const float *w, const float *bias,
                   const void *residual, void *y, void *scratch);
void mo_cudnn_grad_input(struct mo_device *dev, struct mo_cudnn_conv *c, const float *w, const void *dy, void *dx,
                              void *scratch);
void mo_cudnn_grad_weight(struct mo_device *dev, struct mo_cudnn_conv *c, const void *x, const void *dy, float *dw,
                               void *scratch);

#endif
