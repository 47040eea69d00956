/* none.c - stands in for the CUDA backend in a build without it: it is listed, and
 * opening it says why it cannot be had. */
#include <stdio.h>

#include "kernels/cuda/cuda.h"

static struct mo_device *open_none(int index, int n_threads, char *why, size_t why_bytes)
{
    (void)index, (void)n_threads;
    snprintf(why, why_bytes, "this mopt was built without CUDA (make CUDA=1)");
    return NULL;
}

const struct mo_backend mo_backend_cuda = { .name = "cuda", .open = open_none };
