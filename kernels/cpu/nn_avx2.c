/* nn_avx2.c - nn_loops.h for AVX2 and FMA; empty on other machines. */
#if defined(__AVX2__)
#define NN(name) avx2_##name
#include "kernels/cpu/nn_loops.h"

const struct mo_nn_loops mo_nn_avx2 = NN_LOOPS;
#else
typedef int mo_nn_avx2_is_not_built;
#endif
