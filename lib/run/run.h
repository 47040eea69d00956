/* run.h - a model made executable: lowered, planned, run forward and backward.
 *
 * mo_run_new makes a private lowered copy of the graph (constants folded,
 * images channels-last); the user's graph is never touched. The first forward
 * with new input shapes infers, prepares and plans (kept per shapes); after
 * that a step allocates nothing. */
#ifndef MO_RUN_H
#define MO_RUN_H

#include "kernels/backend.h"
#include "lib/graph/op.h"
#include "lib/run/texts.h"

/* Opens ctx's device on first use. */
MOPT_MUST_CHECK enum mopt_status mo_device_need(struct mopt_ctx *ctx);

/* --precision; auto is float32 for now */
enum mo_precision { MO_PRECISION_F32, MO_PRECISION_BF16, MO_PRECISION_F16, MO_PRECISION_AUTO };
#define MO_PRECISION_CHOICES "fp32|bf16|fp16|auto"
#define MO_PRECISION_HELP "of arithmetic; bf16, fp16: products of 16-bit numbers, summed in fp32 (fp16: with --device cuda); auto: fp32"
/* What run options want: MO_UNDEFINED, MO_BF16 or MO_F16. */
static inline enum mo_dtype mo_precision_half(enum mo_precision precision)
{
    return precision == MO_PRECISION_BF16 ? MO_BF16 : precision == MO_PRECISION_F16 ? MO_F16 : MO_UNDEFINED;
}
enum mo_bn_mode { MO_BN_AUTO, MO_BN_BATCH, MO_BN_FROZEN };     /* auto: batch statistics when a whole batch is >= 16 */

/* There was no memory on the run's device: fails with MOPT_LIMIT and what the device says of its room. */
enum mopt_status mo_device_full(struct mo_run *run, uint64_t bytes, const char *what);

struct mo_run_options {
    bool train;                 /* gradients are wanted: parameters become mutable, nothing is folded into them */
    bool keep_names;            /* no fusion and no folding that removes a value of the user's graph (observers, diff) */
    bool reference;             /* plain C kernels, whatever the machine has */
    /* Products, and what lies between them, in bfloat16 or float16 (bf16.c), which is not done with keep_names.
     * MO_UNDEFINED: float32 throughout. */
    enum mo_dtype half;
    bool free_batch;            /* the first dimension of inputs is open, even where the file fixes it */
    enum mo_bn_mode bn;
    float bn_momentum;          /* 0: 0.1; share of a whole new batch in the running statistics; may change between forwards */
    size_t batch;               /* samples of a whole batch, where an epoch's last one may be smaller; 0: every one is whole */
    uint64_t seed;              /* of dropout */
    bool is_shard;              /* it will run a part of a batch beside others (shards.h) */
    struct mo_texts *texts;     /* of a run that lives longer, whose texts have the same numbers here; NULL: its own */
    struct mo_run *weights_of;  /* share the parameters of this run of the same graph, which lives longer */
    /* stop the graph at these values of the user's graph and make them its outputs (logits); NULL: its own outputs */
    const mo_value_id *outputs; uint32_t n_outputs;
};

/* A parameter of a training run: a slice of the flat buffers. */
struct mo_param {
    const char *name;           /* of the value in the user's graph */
    mo_value_id source;         /* that value's id in the user's graph */
    mo_value_id value;          /* in the lowered graph */
    struct mo_shape shape;
    size_t offset, n_elems;     /* in run->weights and run->grads, in elements; 16-element aligned */
    bool is_state;              /* running mean, variance: no gradient; lies behind all trained ones */
    bool is_frozen;             /* set by the caller before the first step: not updated */
    bool no_decay;              /* rank <= 1: bias, normalization */
    mo_node_id reader;          /* first node that reads it, in the lowered graph */
};

struct mo_tensor {
    void *data;                 /* where it lies on the device; for an empty tensor anything */
    float *grad;                /* NULL: no gradient wanted */
};

/* What the shards of a batch do together in one node. First each adds up its own part (MO_SYNC_MEASURE: into sums, and the
 * forward or backward of the node is left half done), then the sums of all shards are there and it goes on. */
enum mo_sync_phase { MO_SYNC_MEASURE, MO_SYNC_APPLY, MO_SYNC_STATE /* no rows here: only the state that all share */ };
struct mo_sync {
    enum mo_sync_phase phase;
    bool moves_state;           /* one of the shards that share parameters: it changes running statistics */
    size_t batch;               /* samples of the whole batch */
    double *sums;               /* op->sync_elems of them */
    float *work;                /* host, 4 times as many */
};

struct mo_plan;                 /* memory, handles and steps for one set of input shapes */

struct mo_run {
    struct mopt_ctx *ctx;
    const struct mo_backend *be;
    struct mo_device *dev;
    struct mo_run_options options;
    struct mo_sync *sync;       /* while shards run; else NULL */
    bool is_training;           /* now: forward saves for backward, dropout on, BatchNorm by batch statistics */
    uint64_t step;              /* counts training forwards; dropout's stream */
    struct mo_graph *graph;     /* lowered, with the shapes of the current plan */
    struct mo_tensor *tensors;  /* by value id of graph */
    struct mo_plan *plan;       /* the current one */
    /* flat, 64-byte aligned, on the device: trained parameters first (n_trained elements), then state */
    struct mo_param *params; uint32_t n_params;
    float *weights, *grads;
    size_t n_trained, n_weights;
    struct mo_run_private *private_;
};

MOPT_MUST_CHECK enum mopt_status mo_run_new(struct mopt_ctx *ctx, const struct mo_graph *g,
                                            const struct mo_run_options *options, struct mo_run **run);
void mo_run_free(struct mo_run *run);

/* Shapes of the real inputs (those that are not initializers), in the graph's order. Plans when they are new.
 * Fails with MOPT_LIMIT, MOPT_UNSUPPORTED (all operators that cannot run, by name). */
MOPT_MUST_CHECK enum mopt_status mo_run_shape(struct mo_run *run, const struct mo_shape *shapes, uint32_t n_inputs);
/* Where to put input i (host memory when be->is_host); valid until the next mo_run_shape. */
uint32_t mo_run_n_inputs(const struct mo_run *run);
const struct mo_value *mo_run_input(const struct mo_run *run, uint32_t i);          /* name, dtype, planned shape */
MOPT_MUST_CHECK enum mopt_status mo_run_set_input(struct mo_run *run, uint32_t i, const void *host, size_t bytes);
/* Input i of strings, from a block of as many texts as it has elements, each ended by 0. */
MOPT_MUST_CHECK enum mopt_status mo_run_set_texts(struct mo_run *run, uint32_t i, const char *block, size_t bytes);
/* A sparse first input instead: row_start[rows + 1], column, value. Only where the input is read by a
 * matrix product alone (Flatten/Reshape between looked through); else MOPT_UNSUPPORTED. */
MOPT_MUST_CHECK enum mopt_status mo_run_set_input_csr(struct mo_run *run, uint32_t i, const int64_t *row_start,
                                                      const int32_t *column, const float *value);
MOPT_MUST_CHECK enum mopt_status mo_run_forward(struct mo_run *run);
uint32_t mo_run_n_outputs(const struct mo_run *run);
const struct mo_value *mo_run_output(const struct mo_run *run, uint32_t i);
/* Device pointer of output i after forward. */
void *mo_run_output_data(struct mo_run *run, uint32_t i);
MOPT_MUST_CHECK enum mopt_status mo_run_get_output(struct mo_run *run, uint32_t i, void *host, size_t bytes);
/* Output i of strings as such a block, in new memory. */
MOPT_MUST_CHECK enum mopt_status mo_run_get_texts(struct mo_run *run, uint32_t i, char **block, size_t *bytes);
/* The value of the user's graph by id, after forward, wherever it is still there (keep_names): device pointer in
 * the user's layout through *layout_buffer when it had to be converted; NULL: gone. */
const void *mo_run_value(struct mo_run *run, mo_value_id user_value, const struct mo_value **info);

/* Training. Gradients of outputs: write into mo_run_output_grad(i), then mo_run_backward, which overwrites
 * run->grads, or adds to them (accumulation). */
float *mo_run_output_grad(struct mo_run *run, uint32_t i);
MOPT_MUST_CHECK enum mopt_status mo_run_backward(struct mo_run *run, bool add);
/* Observe gradients of activations too (Taylor pruning): called for each node after its backward. NULL: off. */
typedef void mo_run_hook(void *user, struct mo_run *run, const struct mo_node *n);
void mo_run_on_node(struct mo_run *run, mo_run_hook *after_forward, mo_run_hook *after_backward, void *user);
/* Time of each node of the current plan, summed since it was switched on; nodes are run->graph's. */
void mo_run_profile(struct mo_run *run, bool on);
void mo_run_node_ns(const struct mo_run *run, mo_node_id n, uint64_t *forward_ns, uint64_t *backward_ns);
/* The user's value id of a lowered value, or MO_NONE. */
mo_value_id mo_run_user_value(const struct mo_run *run, mo_value_id lowered);
/* Copy parameters and state back into the user's graph (new heap data). */
MOPT_MUST_CHECK enum mopt_status mo_run_store(struct mo_run *run, struct mo_graph *g);
/* Operators of the current plan that multiply and add (convolutions, matrix products): those computed in 8-bit integers,
 * and the others. */
void mo_run_precision(const struct mo_run *run, uint32_t *n_int8, uint32_t *n_float);
/* Bytes of the planned block of the current plan; of weights, gradients. */
size_t mo_run_block_bytes(const struct mo_run *run);
size_t mo_run_weight_bytes(const struct mo_run *run);

/* ---- for operators' forward and backward ------------------------------------------ */

/* Data of input or output i; NULL: left out. */
static inline void *mo_run_in(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    return i < n->n_in && n->in[i] != MO_NONE ? r->tensors[n->in[i]].data : NULL;
}
static inline void *mo_run_out(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    return i < n->n_out && n->out[i] != MO_NONE ? r->tensors[n->out[i]].data : NULL;
}
/* Gradient that arrived at output i; NULL: nothing did. */
static inline float *mo_run_grad_out(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    return i < n->n_out && n->out[i] != MO_NONE ? r->tensors[n->out[i]].grad : NULL;
}
/* Where to write the gradient of input i; NULL: not wanted. The engine gives a spare buffer and adds
 * it up itself when several nodes read the value, unless the op has ADDS_GRAD. */
float *mo_run_grad_in(const struct mo_run *r, const struct mo_node *n, uint32_t i);
bool mo_run_adds(const struct mo_run *r, const struct mo_node *n, uint32_t i);     /* ADDS_GRAD ops: add instead of overwrite */
/* Is input i of 16 bits? Its gradient is then too, and so is output 0 but for matrix products. */
static inline bool mo_run_in_half(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    return i < n->n_in && n->in[i] != MO_NONE && mo_dtype_is_half(r->graph->values[n->in[i]].dtype);
}
void *mo_run_scratch(const struct mo_run *r, const struct mo_node *n);              /* scratch_bytes of it */
void *mo_run_saved(const struct mo_run *r, const struct mo_node *n);                /* saved_bytes of it */
void **mo_run_handle(const struct mo_run *r, const struct mo_node *n);              /* op->prepare's pointer */
/* In the forward of an operator with MO_OP_SHAPES_BY_RUN: output k gets that type and shape and new memory. NULL:
 * no memory; r->ctx says so. */
void *mo_run_make_out(struct mo_run *r, const struct mo_node *n, uint32_t k, enum mo_dtype dtype,
                      const struct mo_shape *shape);
/* While preparing: is the gradient of input i wanted? Is input i a constant (packable)? */
bool mo_run_wants_grad(const struct mo_run *r, const struct mo_node *n, uint32_t i);
bool mo_run_is_const(const struct mo_run *r, const struct mo_node *n, uint32_t i);
/* The same, and packing pays: for inference, and not for one forward alone (folding, shapes that only data tells). */
bool mo_run_packs(const struct mo_run *r, const struct mo_node *n, uint32_t i);

/* One node on host memory with the plain kernels: constant folding. in[i].data are given, out data is
 * allocated with mo_mem_new into out[i].data. Shapes are taken from the graph (infer first). */
MOPT_MUST_CHECK enum mopt_status mo_run_one(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_node *n,
                                            void **out_data);
/* Fold every node whose inputs are constants and whose outputs stay within cap_bytes each, and all together within
 * *left_bytes, which is lowered by what was made (NULL: no bound); exact. Nodes become dead, outputs become constants. */
MOPT_MUST_CHECK enum mopt_status mo_fold_constants(struct mopt_ctx *ctx, struct mo_graph *g, size_t cap_bytes,
                                                   size_t *left_bytes);

/* Parameters of a graph without a run: for counting, pruning, inspect. ids of values, each once. */
uint32_t mo_graph_params(const struct mo_graph *g, mo_value_id *out, uint32_t max);
/* The value to train on: graph output 0, or what a final Softmax, LogSoftmax or Sigmoid (through
 * Reshape/Identity/Flatten) reads; *activation gets that node's type or NULL. */
mo_value_id mo_graph_logits(const struct mo_graph *g, const char **activation);

#endif
