/* packed.h - products whose right side is constant: packed once, where the device has a kernel for that. */
#ifndef MO_OPS_PACKED_H
#define MO_OPS_PACKED_H

#include "lib/run/fused.h"
#include "lib/run/run.h"

struct mo_packed_desc {
    int64_t m, n, k;
    bool tb;                        /* input 1 is n x k, not k x n */
    bool has_bias;                  /* input 2 is a row of n */
    struct mo_fused fused;
};
/* For y = act(input 0, m x k, times input 1 + input 2). *conv stays NULL where the plain product is the better way:
 * input 1 is no constant or very large, the run trains or prepares anew for every forward, the device does not pack. */
MOPT_MUST_CHECK enum mopt_status mo_packed_new(struct mo_run *r, const struct mo_node *n, const struct mo_packed_desc *d,
                                               struct mo_conv **conv);
void mo_packed_forward(struct mo_run *r, const struct mo_node *n, struct mo_conv *conv);

#endif
