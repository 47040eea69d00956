/* nn_avx512.c - nn_loops.h for AVX-512; empty on other machines. */
#if defined(__AVX512F__)
#define NN(name) avx512_##name
#include "kernels/cpu/nn_loops.h"

const struct mo_nn_loops mo_nn_avx512 = NN_LOOPS;
#else
typedef int mo_nn_avx512_is_not_built;
#endif
