/* backends.c - the list of backends. */
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"

/* CUDA is last, and asked for last: asking loads its plug-in. */
const struct mo_backend *mo_backend_at(int i)
{
    return i == 0 ? &mo_backend_cpu : i == 1 ? mo_cuda_backend() : NULL;
}

const struct mo_backend *mo_backend_find(const char *name)
{
    for (int i = 0;; i++) {
        const struct mo_backend *be = mo_backend_at(i);
        if (!be || !strcmp(be->name, name))
            return be;
    }
}

const struct mo_backend *mo_backend_auto(void)
{
    return mo_cuda_has_driver() ? mo_cuda_backend() : &mo_backend_cpu;
}
