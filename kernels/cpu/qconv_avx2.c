/* 8-bit convolution for AVX2. */
#if defined(__x86_64__)
#define QLOOPS mo_qloops_avx2
#include "kernels/cpu/qconv_body.h"
#endif
