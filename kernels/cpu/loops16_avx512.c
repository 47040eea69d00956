/* loops16_avx512.c - the loops of loops_body.h over bfloat16; the flags come from the file's name. */
#define LOOPS mo_loops16_avx512
#define BFLOAT16
#include "kernels/cpu/loops_body.h"
