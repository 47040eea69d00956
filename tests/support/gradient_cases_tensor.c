/* Gradient cases of operators on tensors: arithmetic, reductions, moving. */
#include "tests/support/gradient.h"

const struct gradient_case gradient_cases_tensor[] = {
    {"Add", 14, "2x3x4 3x1", ""},
    {"Add", 14, "3x4 2x1x1x4", ""},
    {"Sub", 14, "2x3x4 3x4", ""},
    {"Sub", 14, "3x1 2x3x4", ""},
    {"Mul", 14, "2x3x4 3x1", ""},
    {"Mul", 14, "2x1x4 2x3x4", ""},
    {"Div", 14, "2x3x4 +3x1", ""},
    {"Div", 14, "3x1 +2x3x4", ""},
    {"Pow", 15, "+3x4 f:2.5", ""},
    {"Pow", 15, "+3x4 3x4", ""},
    {"Max", 13, "#3x4 F3x4", ""},
    {"Max", 13, "~2x3x4 f:0.0", ""},
    {"Min", 13, "~2x3x4 f:0.0", ""},
    {"Sum", 13, "2x3 2x3 2x1", ""},
    {"Mean", 13, "2x3 2x3 1x3", ""},
    {"Where", 16, "b2x3x4 3x4 2x3x4", ""},
    {"Where", 16, "b3x1 2x3x4 2x1x4", ""},
    {"Concat", 13, "2x3x4 2x1x4 2x2x4", "axis=1"},
    {"Concat", 13, "3x2 3x4", "axis=-1"},
    {"Transpose", 13, "2x3x4", "perm=2,0,1"},
    {"Transpose", 13, "2x3x4", ""},
    {0},
};
