/* fast.h - the kernels that cpu.c puts in front of the plain ones. */
#ifndef MO_FAST_H
#define MO_FAST_H

#include "kernels/cpu/cpu.h"

struct mo_conv *mo_cpu_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc);
void mo_cpu_conv_free(struct mo_device *dev, struct mo_conv *conv);
size_t mo_cpu_conv_scratch_bytes(const struct mo_conv *conv, bool backward);
bool mo_cpu_packs_products(const struct mo_device *dev);
struct mo_qconv *mo_cpu_qconv_new(struct mo_device *dev, const struct mo_qconv_desc *desc);
void mo_cpu_qconv_free(struct mo_device *dev, struct mo_qconv *q);
size_t mo_cpu_qconv_scratch_bytes(const struct mo_qconv *q);

#define MO_KERNEL(name, args) void mo_cpu_##name args;
#include "kernels/kernels.def"
#undef MO_KERNEL

#endif
