/* nn_loops.h - the inner loops of the kernels that work element by element or row
 * by row, on ranges. A file defines NN(name) and includes this, and has then
 * NN_LOOPS for its table; so they are compiled once for each instruction set from
 * one text. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/cpu/nn_math.h"
#include "kernels/cpu/nn_table.h"

#include "kernels/cpu/nn_unary.h"
#include "kernels/cpu/nn_rows.h"
#include "kernels/cpu/nn_misc.h"
#include "kernels/cpu/nn_attention.h"
#include "kernels/cpu/nn_cell.h"

#define NN_LOOPS                                                                        \
    {                                                                                   \
        .unary = NN(unary_range), .unary_grad = NN(unary_grad_range),                   \
        .softmax = NN(softmax_range), .softmax_grad = NN(softmax_grad_range),           \
        .layernorm = NN(layernorm_range), .layernorm_grad = NN(layernorm_grad_range),   \
        .layernorm_columns = NN(layernorm_columns), .dropout = NN(dropout_range),       \
        .dropout_grad = NN(dropout_grad_range), .gemm_csr = NN(gemm_csr_range),         \
        .gemm_csr_grad = NN(gemm_csr_grad_range),                                       \
        .attention_mask = NN(attention_mask), .attention_exp = NN(attention_exp),       \
        .attention_slope = NN(attention_slope), .attention_scale = NN(attention_scale), \
        .attention_dots = NN(attention_dots),                                           \
        .cell = NN(cell_range), .cell_grad = NN(cell_grad_range),                       \
    }
