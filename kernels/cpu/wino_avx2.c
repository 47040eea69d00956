/* wino_avx2.c - the loops of wino_body.h for one instruction set; the flags come from the file's name. */
#if defined(__AVX2__)
#define LOOPS mo_wino_avx2
#include "kernels/cpu/wino_body.h"
#else
typedef int mo_wino_avx2_is_not_built;
#endif
