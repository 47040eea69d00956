/* conv_tile.h - rows times constant weights as register tiles (sgemm.h): the convolution that a Gemm with constant
 * weights is, one spatial axis and a kernel of 1. conv.c asks here first. */
#ifndef MO_CONV_TILE_H
#define MO_CONV_TILE_H

#include "kernels/cpu/cpu.h"

struct mo_tile_conv;

/* Not any other convolution, and nothing on the plain C tier. */
bool mo_tile_conv_takes(const struct mo_device *dev, const struct mo_conv_desc *desc);
/* For what it takes. NULL when memory ends. */
struct mo_tile_conv *mo_tile_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc);
void mo_tile_conv_free(struct mo_tile_conv *conv);
void mo_tile_conv_pack(struct mo_tile_conv *conv, const float *w);
void mo_tile_conv(struct mo_device *dev, const struct mo_tile_conv *conv, const float *x, const float *bias,
                  const float *residual, float *y);

#endif
