/* cuda.h - the CUDA backend, which lives in a plug-in, or what stands in for it. */
#ifndef MO_CUDA_H
#define MO_CUDA_H

#include <stdbool.h>

#include "kernels/backend.h"

/* Is the driver's library there, or a plug-in named? Loading the plug-in, with cuBLAS some 150 MB, is no use without. */
bool mo_cuda_has_driver(void);

/* The plug-in's table; where it cannot be had, one that is named "cuda" and whose open says why. Never NULL. */
const struct mo_backend *mo_cuda_backend(void);

#endif
