/* wino_avx512.c - the loops of wino_body.h for one instruction set; the flags come from the file's name. */
#if defined(__AVX512F__)
#define LOOPS mo_wino_avx512
#include "kernels/cpu/wino_body.h"
#else
typedef int mo_wino_avx512_is_not_built;
#endif
