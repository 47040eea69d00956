/* nn_loops.h - the inner loops of the kernels that work element by element or row
 * by row, on ranges. A file defines NN(name) and includes this; so they are
 * compiled once for each instruction set from one text. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/nn_math.h"

#include "kernels/cpu/nn_unary.h"
#include "kernels/cpu/nn_rows.h"
#include "kernels/cpu/nn_misc.h"
