/* conv_wino.h - convolutions with kernels of 3 x 3 and stride 1 by Winograd's algorithm, with 2.25 or 4 times fewer products,
 * and their input gradients, which are such convolutions too. conv.c asks whether it pays. */
#ifndef MO_CONV_WINO_H
#define MO_CONV_WINO_H

#include "kernels/cpu/cpu.h"

struct mo_wino_conv;

/* For the convolution, or for its input gradient. NULL where it does not pay, and when memory ends. */
struct mo_wino_conv *mo_wino_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc, bool of_input);
void mo_wino_conv_free(struct mo_wino_conv *conv);
size_t mo_wino_conv_scratch_bytes(const struct mo_wino_conv *conv);
/* Constant weights, once; others are transformed in every call. */
void mo_wino_conv_pack(struct mo_device *dev, struct mo_wino_conv *conv, const float *w);
/* For an input gradient x is dy and y is dx. */
void mo_wino_conv(struct mo_device *dev, const struct mo_wino_conv *conv, const float *x, const float *w, const float *bias,
                  const float *residual, float *y, void *scratch);

#endif
