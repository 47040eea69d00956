/* conv_onednn.h - convolution by oneDNN; conv.c chooses between it and others. */
#ifndef MO_CONV_ONEDNN_H
#define MO_CONV_ONEDNN_H

#include "kernels/cpu/cpu.h"

struct mo_dnn_conv;

/* NULL where the library is missing, cannot do it, or memory ends. */
struct mo_dnn_conv *mo_dnn_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc);
void mo_dnn_conv_free(struct mo_dnn_conv *conv);
size_t mo_dnn_conv_scratch_bytes(const struct mo_dnn_conv *conv, bool backward);
void mo_dnn_conv_pack(struct mo_device *dev, struct mo_dnn_conv *conv, const float *w);
/* x, dx, y, dy and the residual are float, or bfloat16 where the description says so. */
void mo_dnn_conv(struct mo_device *dev, struct mo_dnn_conv *conv, const void *x, const float *w, const float *bias,
                 const void *residual, void *y, void *scratch);
void mo_dnn_conv_grad_input(struct mo_device *dev, struct mo_dnn_conv *conv, const float *w, const void *dy, void *dx,
                            void *scratch);
void mo_dnn_conv_grad_weight(struct mo_device *dev, struct mo_dnn_conv *conv, const void *x, const void *dy,
                             float *dw, float *dbias, void *scratch);

#endif
