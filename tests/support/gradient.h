/* gradient.h - cases of the gradient test: one row of text makes a graph of one
 * node. tests/ops/test_gradients.c runs them. */
#ifndef TEST_GRADIENT_H
#define TEST_GRADIENT_H

#include <stddef.h>

/* inputs, separated by blanks, in order:
 *     2x3x4      trained, random in -1 .. 1            +2x3   in 0.5 .. 2
 *     ~2x3       0.2 .. 1.5 away from 0, both signs    #2x3   all at least 0.15 apart (for maxima)
 *     %2x3       -0.8 .. 0.8                           ^2x3   in 1.3 .. 3
 *     @2x3       0.15 .. 0.35 above an integer (rounding is flat there)
 *     F2x3       constant, random in -1 .. 1           c2x3   constant, in 0.5 .. 2
 *     b2x3       constant random booleans              f:0.5  constant float scalar
 *     i:1,-2     constant int64 vector                 i0:3   constant int64 scalar
 *     i2x2:1,0,1,1   constant int64 of that shape      f:1,2  constant float vector
 *     u:3        constant uint8 scalar                 -      left out
 * attrs, separated by blanks: name=3, name=1,2 (ints), name=0.5 (float), name=word; a list with one
 * entry is written name=1, */
struct gradient_case {
    const char *op;
    int opset;
    const char *inputs, *attrs;
    int n_out;                      /* 0: one; outputs that are not float32 take no part */
    int mode;                       /* enum mo_bn_mode of the run */
    double tolerance;               /* 0: the usual one */
    const char *domain;             /* NULL: ONNX's own */
};

extern const struct gradient_case gradient_cases_nn[];          /* end with op NULL */
extern const struct gradient_case gradient_cases_tensor[];

#endif
