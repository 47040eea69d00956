/* Gradient cases of operators on tensors: arithmetic, reductions, moving. */
#include "tests/support/gradient.h"

const struct gradient_case gradient_cases_tensor[] = {
    {"Add", 14, "2x3x4 3x1", ""},
    {0},
};
