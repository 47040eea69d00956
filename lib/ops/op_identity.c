/* Identity: y = x. */
#include "lib/ops/ops.h"

const struct mo_op mo_op_identity = {
    .type = "Identity",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_VIEW | MO_OP_ELEMENTWISE, .bf16_in = 1,
    .infer = mo_infer_like_input,
    .macs = mo_macs_zero,
    .couple = mo_couple_through,
    .quant = {.kind = MO_QUANT_MOVE},
};
