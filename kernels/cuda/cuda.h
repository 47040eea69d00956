/* cuda.h - the CUDA backend, or what stands in for it. */
#ifndef MO_CUDA_H
#define MO_CUDA_H

#include "kernels/backend.h"

extern const struct mo_backend mo_backend_cuda;

#endif
