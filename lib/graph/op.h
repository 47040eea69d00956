/* op.h - everything mopt knows about one ONNX operator. One const struct, last in
 * its file lib/ops/op_NAME.c, and one line in lib/ops/ops.def.
 *
 * A NULL member has one meaning, and it is the safe one:
 *   forward   loads, saves and is copied through; cannot be run, unless `expand` says it by other operators
 *   backward  not differentiable: training through it is refused by name
 *   macs      reported as unknown, never as zero (elementwise ops: mo_macs_zero)
 *   couple    a wall: no channel is pruned on either side of it
 *   quant     {0}: stays in float */
#ifndef MO_OP_H
#define MO_OP_H

#include "lib/graph/graph.h"
#include "lib/graph/couple.h"
#include "lib/graph/infer.h"

struct mo_run;
struct mo_expand;

enum mo_quant_kind {
    MO_QUANT_FLOAT = 0,     /* stays float */
    MO_QUANT_WEIGHTED,      /* activation in 0 and constant weight in 1 (bias in 2): Conv, Gemm, MatMul */
    MO_QUANT_ARITH,         /* 8-bit inputs and output, each with its own scale: Add, Mul, pools, Concat, Sigmoid ... */
    MO_QUANT_MOVE,          /* output has the input's scale: Reshape, MaxPool, Transpose ... */
    MO_QUANT_CLIP,          /* Relu, Clip: vanishes into the range of its producer */
};
struct mo_quant {
    enum mo_quant_kind kind;
    int since_opset;        /* 0: always; e.g. MaxPool takes int8 since 12 */
};

enum mo_op_flags {
    MO_OP_VIEW = 1,             /* output 0 is input 0 under another shape; forward and backward are not called */
    MO_OP_CHANNELS_LAST = 2,    /* rank >= 3: infer/forward/backward want node->channels_last; lowering wraps it in Transposes */
    MO_OP_ELEMENTWISE = 4,      /* shape-blind, or broadcasting: Transposes may be moved through it */
    MO_OP_IN_PLACE = 8,         /* output 0 may lie where input 0 lies when nobody else reads that */
    MO_OP_RANDOM = 16,          /* not a function of its inputs alone: never folded or merged */
    MO_OP_TRAIN_MODE = 32,      /* behaves differently in training: reads run->is_training */
    MO_OP_ADDS_GRAD = 64,       /* backward honours mo_run_adds(): adds into dx instead of overwriting */
    MO_OP_PARAM_SCALAR = 256,       /* one-element constants at params_in are parameters too (PRelu) */
    MO_OP_SHAPES_BY_RUN = 512,      /* forward makes its outputs itself, by mo_run_make_out (If, Loop, Scan) */
    MO_OP_UNROLLS = 1024,           /* for training, lowering writes its graphs out in its place (lib/run/unroll.c) */
    MO_OP_INTERNAL = 128,       /* made by lowering only; never read from or written to a file */
};

struct mo_op {
    const char *type;               /* ONNX op_type */
    const char *domain;             /* NULL: ai.onnx */
    int since_opset;                /* oldest version whose meaning this file covers */
    int min_in, max_in, min_out, max_out;       /* max -1: any number */
    unsigned flags;                 /* enum mo_op_flags */
    size_t params_bytes;            /* of node->params: zeroed before infer */

    /* Read attributes and constant inputs into n->params, check them, set dtype and shape of every
     * output (unknown where unknown) and `known` of small integer outputs. Says what is wrong; the
     * caller says where. */
    enum mopt_status (*infer)(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n);
    /* Once after shapes are fixed and before memory is planned: make what the kernels need (a convolution's
     * primitives) and hang it into mo_run_handle(). unprepare frees it. Both may be NULL. */
    enum mopt_status (*prepare)(struct mo_run *r, const struct mo_node *n);
    void (*unprepare)(struct mo_run *r, const struct mo_node *n);
    enum mopt_status (*forward)(struct mo_run *r, const struct mo_node *n);
    /* Writes (overwrites, unless ADDS_GRAD) the gradient of every input for which mo_run_grad_in is not NULL. */
    enum mopt_status (*backward)(struct mo_run *r, const struct mo_node *n);
    /* Instead of forward and backward: the formula in other operators (expand.h), every output of the node made. It has a
     * gradient: an operator without one says forward. */
    enum mopt_status (*expand)(struct mo_expand *e);
    int64_t (*macs)(const struct mo_graph *g, const struct mo_node *n);    /* multiply-adds; MO_UNKNOWN */
    void (*couple)(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n);
    /* After axes of its constants were cut: mend attributes and constant inputs that hold sizes (group, Reshape's
     * shape, Split's sizes). was[k] is input k's old shape; the values of g, outputs too, have the new shapes already.
     * A constant that other nodes read too must be replaced by a new one. NULL: nothing holds sizes. */
    enum mopt_status (*refit)(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const struct mo_shape *was);
    /* Rename axes when a Transpose is moved from its inputs to its outputs: input axis order becomes
     * perm (new axis k was old axis perm[k]). False: not possible for this node. Elementwise needs none. */
    bool (*permute)(struct mo_graph *g, struct mo_node *n, const int *perm, int rank);
    size_t (*scratch_bytes)(const struct mo_run *r, const struct mo_node *n, bool backward);   /* during one call */
    size_t (*saved_bytes)(const struct mo_run *r, const struct mo_node *n);                     /* forward to backward */
    /* Numbers that the shards of a batch add up in this node (lib/run/shards.h); 0, NULL: none. The same in forward and
     * backward. */
    size_t (*sync_elems)(const struct mo_run *r, const struct mo_node *n);
    unsigned backward_reads;        /* bit k: input k; bit 16+k: output k must still be there in backward */
    /* bit k: a float constant at input k is a parameter (counted, trained, pruned) when it has more than one
     * element or PARAM_SCALAR is set: Conv 0b110, BatchNormalization 0b110, Add 0b11, Gather 0b1. Constants at other inputs are
     * part of the formula. */
    unsigned params_in;
    /* bit k: the elements of input k are read by infer (axes, sizes): where they are no constants the node waits for
     * them while running. */
    unsigned values_in;
    /* bit k: input k may be bfloat16, all of them or none, and output 0 is then too (products: mopt.bf16 says); gradients
     * have the type of their value. 0: reads and gives float32. */
    unsigned bf16_in;
    unsigned state_in;              /* likewise: not trained by gradient but changed by training (running mean, variance) */
    struct mo_quant quant;
};

static inline bool mo_op_runs(const struct mo_op *op)
{
    return op->forward || op->expand || op->flags & MO_OP_VIEW;
}
static inline bool mo_op_has_gradient(const struct mo_op *op)
{
    return op->backward || op->expand || op->flags & (MO_OP_VIEW | MO_OP_UNROLLS);
}

/* NULL when there is none for (type, domain, opset). */
const struct mo_op *mo_op_find(const char *type, const char *domain, int opset);
const struct mo_op *mo_op_at(size_t i);             /* NULL past the end of the table */

/* ---- ready-made members ---- */
int64_t mo_macs_zero(const struct mo_graph *g, const struct mo_node *n);
/* Output 0 has dtype and shape of input 0. */
enum mopt_status mo_infer_like_input(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n);
/* Output 0 is the broadcast of inputs 0 and 1, dtype of input 0. */
enum mopt_status mo_infer_broadcast(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n);

#endif
