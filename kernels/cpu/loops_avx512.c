/* loops_avx512.c - the loops of loops_body.h for one instruction set; the flags come from the file's name. */
#define LOOPS mo_loops_avx512
#include "kernels/cpu/loops_body.h"
