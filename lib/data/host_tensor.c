/* host_tensor.c - freeing one. */
#include "lib/data/host_tensor.h"

void mo_host_tensor_release(struct mo_host_tensor *tensor)
{
    mo_mem_free(tensor->data);
    tensor->data = NULL;
    tensor->n_bytes = 0;
}
