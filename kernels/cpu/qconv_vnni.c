/* 8-bit convolution for AVX-512 with VNNI. */
#if defined(__x86_64__)
#define QLOOPS mo_qloops_vnni
#include "kernels/cpu/qconv_body.h"
#endif
