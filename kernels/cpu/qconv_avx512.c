/* 8-bit convolution for AVX-512 without VNNI. */
#if defined(__x86_64__)
#define QLOOPS mo_qloops_avx512
#include "kernels/cpu/qconv_body.h"
#endif
