/* backends.c - the list of backends. */
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"

static const struct mo_backend *const backends[] = { &mo_backend_cpu, &mo_backend_cuda };

const struct mo_backend *mo_backend_at(int i)
{
    return i >= 0 && (size_t)i < sizeof backends / sizeof *backends ? backends[i] : NULL;
}

const struct mo_backend *mo_backend_find(const char *name)
{
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (!strcmp(backends[i]->name, name))
            return backends[i];
    return NULL;
}
