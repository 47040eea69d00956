/* cuda.h - the CUDA backend, which lives in a plug-in, or what stands in for it. */
#ifndef MO_CUDA_H
#define MO_CUDA_H

#include "kernels/backend.h"

/* The plug-in's table; where it cannot be had, one that is named "cuda" and whose open says why. Never NULL. */
const struct mo_backend *mo_cuda_backend(void);

#endif
