/* onednn.h - oneDNN 2.x, loaded when the first convolution is made, so that
 * commands that run no model do not pay for it. */
#ifndef MO_ONEDNN_H
#define MO_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>

#include "kernels/cpu/cpu.h"

/* The functions that are used, by their names without dnnl_. */
#define MO_ONEDNN_FUNCTIONS(X)                                                                              \
    X(engine_create) X(engine_destroy) X(stream_create) X(stream_destroy) X(stream_wait)                    \
    X(memory_desc_init_by_strides) X(memory_desc_get_size) X(memory_desc_equal)                             \
    X(memory_create) X(memory_destroy) X(memory_set_data_handle)                                            \
    X(primitive_attr_create) X(primitive_attr_destroy) X(primitive_attr_set_scratchpad_mode)                \
    X(primitive_attr_set_post_ops) X(post_ops_create) X(post_ops_destroy)                                   \
    X(post_ops_append_eltwise) X(post_ops_append_binary)                                                    \
    X(dilated_convolution_forward_desc_init) X(dilated_convolution_backward_data_desc_init)                 \
    X(dilated_convolution_backward_weights_desc_init)                                                       \
    X(primitive_desc_create) X(primitive_desc_destroy) X(primitive_desc_query_md) X(primitive_desc_query)      \
    X(reorder_primitive_desc_create) X(primitive_create) X(primitive_destroy) X(primitive_execute)          \
    X(set_max_cpu_isa)

struct mo_onednn {
#define X(name) __typeof__(&dnnl_##name) name;
    MO_ONEDNN_FUNCTIONS(X)
#undef X
    void (*omp_set_num_threads)(int);       /* of the OpenMP runtime that the library brings */
    dnnl_engine_t engine;
};

/* NULL where the library is not installed. `isa` of the first call bounds what it generates. */
const struct mo_onednn *mo_onednn_load(enum mo_isa isa);
/* Once in each thread before it executes: the library then stays in it. */
void mo_onednn_enter(const struct mo_onednn *lib);

#endif
