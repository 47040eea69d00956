/* int8.h - attributes of the operators that lib/run/int8.c makes of a quantized
 * file: they read and write bytes, and none of them is ever in a file. */
#ifndef MO_RUN_INT8_H
#define MO_RUN_INT8_H

#define MO_INT8_DOMAIN "mopt"
#define MO_INT8_X_ZERO "x_zero"         /* int */
#define MO_INT8_B_ZERO "b_zero"         /* int: of the second operand */
#define MO_INT8_Y_TYPE "y_type"         /* int: enum mo_dtype */
#define MO_INT8_Y_ZERO "y_zero"
#define MO_INT8_LOW "low"               /* int: least and largest value of y */
#define MO_INT8_HIGH "high"
#define MO_INT8_FACTOR "factor"         /* float; see struct mo_qbinary, qpool */
#define MO_INT8_B_FACTOR "b_factor"
#define MO_INT8_F "f"                   /* int: enum mo_binary */
#define MO_INT8_POOL "pool"             /* ints: height and width of a max pool, then its steps */
#define MO_INT8_GLOBAL "global"         /* int 1: the window is the picture */

#endif
