/* host_tensor.h - one tensor in host memory, as tensor files hold it. */
#ifndef MO_HOST_TENSOR_H
#define MO_HOST_TENSOR_H

#include "lib/graph/graph.h"

struct mo_host_tensor {
    char name[128];             /* as the file says; cut when longer; may be empty */
    enum mo_dtype dtype;
    /* of strings: the texts one behind the other, each ended by 0 */
    struct mo_shape shape;
    void *data;                 /* mo_mem_new; mo_host_tensor_release frees it. Non-NULL for empty tensors too */
    size_t n_bytes;
};
void mo_host_tensor_release(struct mo_host_tensor *tensor);

#endif
