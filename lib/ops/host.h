/* host.h - operators that decide from element to element (sorting, searching,
 * suppressing): plain C on host memory. Where the device is not the host, inputs
 * are copied from it and results back. */
#ifndef MO_OPS_HOST_H
#define MO_OPS_HOST_H

#include "lib/ops/tensor.h"

enum { MO_HOST_INPUTS = 8 };

struct mo_host {
    struct mo_run *run;
    const struct mo_node *node;
    const void *in[MO_HOST_INPUTS];     /* NULL: left out */
    void *copies[MO_HOST_INPUTS];
};

/* The first inputs of n (at most MO_HOST_INPUTS) in host memory, until mo_host_close, which is to be called whatever
 * this returns. */
MOPT_MUST_CHECK enum mopt_status mo_host_open(struct mo_host *h, struct mo_run *r, const struct mo_node *n);
void mo_host_close(struct mo_host *h);
/* What was made in host memory becomes output k, which has that size already. Nothing where it is left out. */
void mo_host_put(struct mo_host *h, uint32_t k, const void *data);
/* The same for an operator with MO_OP_SHAPES_BY_RUN: output k gets its type and shape here. */
MOPT_MUST_CHECK enum mopt_status mo_host_make(struct mo_host *h, uint32_t k, enum mo_dtype dtype,
                                              const struct mo_shape *shape, const void *data);
/* Element i of an array of integers of that type. */
int64_t mo_host_int(enum mo_dtype dtype, const void *data, int64_t i);

#endif
