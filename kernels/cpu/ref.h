/* ref.h - the plain C kernels: one function mo_ref_NAME for each row of
 * kernels.def, and what they share. */
#ifndef MO_REF_H
#define MO_REF_H

#include "kernels/backend.h"

#define MO_KERNEL(name, args) void mo_ref_##name args;
#include "kernels/kernels.def"
#undef MO_KERNEL

struct mo_bytes16 { uint64_t part[2]; };        /* an element of 16 bytes, for moving */

/* Latch a kernel's error in the device; the first stays until sync. */
void mo_ref_error(struct mo_device *dev, const char *why);

#endif
