/* conv_few.h - convolutions of pictures with few channels, as first layers are: every value of x is multiplied with
 * all output channels from registers. AVX-512 only. conv.c asks here before it asks oneDNN. */
#ifndef MO_CONV_FEW_H
#define MO_CONV_FEW_H

#include "kernels/cpu/cpu.h"

struct mo_few_conv;

/* NULL for other convolutions, and when memory ends. */
struct mo_few_conv *mo_few_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc);
void mo_few_conv_free(struct mo_few_conv *conv);
size_t mo_few_conv_scratch_bytes(const struct mo_few_conv *conv);
/* Constant weights, once. */
void mo_few_conv_pack(struct mo_few_conv *conv, const float *w);
void mo_few_conv(struct mo_device *dev, const struct mo_few_conv *conv, const float *x, const float *w, const float *bias,
                 float *y, void *scratch);

#endif
