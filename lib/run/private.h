/* private.h - what the files of lib/run share and nobody else sees. */
#ifndef MO_RUN_PRIVATE_H
#define MO_RUN_PRIVATE_H

#include "lib/run/run.h"

/* ---- placing memory (place.c) -------------------------------------------------- */

/* A buffer and when it is needed; placing fills in where. Steps count forward nodes,
 * then backward nodes. */
struct mo_span {
    size_t bytes;
    uint32_t first_step, last_step;
    size_t offset;
};
/* Largest first, each at the lowest offset that is free over its whole life. Gives the bytes of the
 * block, or SIZE_MAX without memory for its own list. Offsets are multiples of MO_ALIGN_BYTES. */
size_t mo_place(struct mo_span *spans, uint32_t n);

/* ---- a plan: a graph for one set of input shapes, and where everything lies ------- */

enum mo_where { MO_AT_NONE, MO_AT_BLOCK, MO_AT_GRADS };

/* Where the gradient of one input of one node goes. */
struct mo_grad_to {
    enum mo_where where;
    size_t offset;              /* bytes into the block, or elements into the gradients */
    bool adds;                  /* an ADDS_GRAD operator adds to what is there */
    bool is_spare;              /* written beside, then added to `value`'s gradient by the engine */
};

struct mo_node_plan {
    void *handle;               /* op->prepare's */
    size_t scratch_bytes, scratch_at, backward_scratch_bytes, backward_scratch_at;
    size_t saved_bytes, saved_at;
    bool is_prepared, is_backward;      /* backward is called */
    struct mo_grad_to *grad_in;         /* n_in of them; NULL unless is_backward */
    uint64_t forward_ns, backward_ns;   /* with profiling on */
};

/* Where the data of a value lies. */
enum mo_store { MO_STORE_NONE, MO_STORE_BLOCK, MO_STORE_CONST, MO_STORE_WEIGHTS, MO_STORE_INPUT };
struct mo_value_plan {
    mo_value_id root;           /* the value whose memory this one shares; itself when it has its own */
    mo_value_id grad_root;      /* the same for the gradient: views only */
    enum mo_store store;        /* of the root */
    size_t offset;              /* bytes into the block; elements into the weights; index of the input */
    bool needs_grad;            /* a trained parameter lies before it */
    bool has_grad;              /* of the grad_root: a gradient arrives and is wanted */
    uint32_t grad_first;        /* of the grad_root: the step that writes it first */
    enum mo_where grad_where;
    size_t grad_offset;
    void *const_mem;            /* constants not readable where they lie: their own memory on the device */
};

/* A lowered value that is a value of the user's graph, channels-last. */
struct mo_alias { mo_value_id lowered, user; };

/* The work of a plan's forward or backward, recorded by the device (mo_backend.record) once it has been seen to need no
 * exchange with the host. */
struct mo_replay {
    struct mo_recording *what;
    uint32_t n_done;            /* times as usual */
    bool is_never;
};

struct mo_plan {
    struct mo_arena arena;
    struct mo_graph graph;
    struct mo_alias *aliases; uint32_t n_aliases;
    struct mo_tensor *tensors;
    struct mo_value_plan *values;
    struct mo_node_plan *nodes;
    mo_node_id first_node;      /* nodes[0] belongs to this node of the graph */
    struct mo_shape *shapes;    /* of the real inputs: the key */
    size_t block_bytes, const_bytes;
    char *block;                /* what the pointers were made for */
    float *grads;
    uint64_t last_use;
    bool is_dynamic;            /* some shape is known only while running: dynamic.c */
    mo_node_id csr_node;        /* the product that reads a sparse input; MO_NONE */
    bool in_backward;           /* which scratch mo_run_scratch means */
    struct mo_replay forward[2], backward;      /* forward: of inference, of training */
};

#define MO_MAX_PLANS 6

struct mo_csr { const int64_t *row_start; const int32_t *column; const float *value; };

struct mo_run_private {
    struct mo_arena arena;
    struct mo_graph base;       /* the graph after what does not depend on shapes was done */
    uint32_t n_user_values;
    const struct mo_graph *user;        /* for names only while mo_run_new runs */
    mo_value_id *inputs; uint32_t n_inputs;
    mo_value_id *outputs; uint32_t n_outputs;
    mo_value_id *param_of;      /* by value id of the base: index into run->params, or MO_NONE */
    struct mo_plan *plans[MO_MAX_PLANS];
    uint64_t clock;
    char *block; size_t block_bytes;            /* shared by all plans: only one is in use */
    void **input_mem; size_t *input_bytes; bool *is_input_set;
    struct mo_csr csr;
    bool has_csr;
    float *accumulate;          /* gradients of one step when they are added to run->grads */
    float *total;               /* run->grads meanwhile */
    mo_run_hook *after_forward, *after_backward;
    void *hook_user;
    void *layout_mem; size_t layout_bytes;      /* of mo_run_value */
    bool is_profiling;
    struct mo_texts *own_texts;         /* options.texts, unless they are another run's */
    bool has_forward;           /* a forward of the current plan has run */
};

/* ---- steps on the way ------------------------------------------------------------------ */

/* lower.c: the part that depends on no shape; then for given shapes. */
MOPT_MUST_CHECK enum mopt_status mo_lower_base(struct mo_run *run, const struct mo_graph *g);
MOPT_MUST_CHECK enum mopt_status mo_lower_shapes(struct mo_run *run, struct mo_plan *plan,
                                                 const struct mo_shape *shapes);
/* int8.c: what lies between DequantizeLinear and QuantizeLinear, in integers. */
MOPT_MUST_CHECK enum mopt_status mo_int8_base(struct mopt_ctx *ctx, struct mo_graph *g);
/* fold.c: mo_fold_constants; with_quantized: DequantizeLinear of constants too, which a file must keep. */
MOPT_MUST_CHECK enum mopt_status mo_fold(struct mopt_ctx *ctx, struct mo_graph *g, size_t cap_bytes, size_t *left_bytes,
                                         bool with_quantized);
/* layout.c: wraps operators that want channels-last and moves the Transposes out of the way. */
MOPT_MUST_CHECK enum mopt_status mo_layout(struct mo_run *run, struct mo_plan *plan);
/* fuse.c: what inference can do once weights are constants; what training can do. */
MOPT_MUST_CHECK enum mopt_status mo_fuse_base(struct mopt_ctx *ctx, struct mo_graph *g);
MOPT_MUST_CHECK enum mopt_status mo_fuse_plan(struct mo_run *run, struct mo_graph *g);
/* fuse_compose.c: several operators that are one. */
MOPT_MUST_CHECK enum mopt_status mo_fuse_compose(struct mo_run *run, struct mo_graph *g);
/* fuse_attention.c: products, scale, mask and softmax as one node. */
MOPT_MUST_CHECK enum mopt_status mo_fuse_attention(struct mo_run *run, struct mo_graph *g);
/* Of a Clip, from attributes or inputs, -inf and inf where there is none; false: not known before the run. */
bool mo_clip_limits(const struct mo_graph *g, const struct mo_node *clip, float *low, float *high);
/* bf16.c: which values of a plan are bfloat16, and the casts at the borders. */
MOPT_MUST_CHECK enum mopt_status mo_bf16_plan(struct mo_run *run, struct mo_graph *g);
/* params.c: finds the parameters of the base graph, makes the flat buffers and takes the data away from the values. */
MOPT_MUST_CHECK enum mopt_status mo_params_take(struct mo_run *run);
/* plan.c */
MOPT_MUST_CHECK enum mopt_status mo_plan_new(struct mo_run *run, const struct mo_shape *shapes, struct mo_plan **plan);
void mo_plan_free(struct mo_run *run, struct mo_plan *plan);
void mo_plan_bind(struct mo_run *run, struct mo_plan *plan);    /* pointers from offsets */
void mo_plan_bind_input(struct mo_run *run, struct mo_plan *plan, uint32_t i);
/* Ready-to-use memory of constant v on the run's device; NULL: no memory. */
void *mo_plan_const(struct mo_run *run, struct mo_plan *plan, mo_value_id v);
/* dynamic.c: forward of a plan with shapes that only data tells. */
MOPT_MUST_CHECK enum mopt_status mo_dynamic_forward(struct mo_run *run, struct mo_plan *plan);
/* unroll.c: every If, Loop and Scan of a graph whose shapes are inferred replaced by the nodes it stands for. */
MOPT_MUST_CHECK enum mopt_status mo_unroll(struct mopt_ctx *ctx, struct mo_graph *g);
/* step.c: recordings of a plan are of no use any more. */
void mo_replays_drop(struct mo_run *run, struct mo_plan *plan);
/* gradients.c: which values have a gradient and where each node writes those of its inputs. */
MOPT_MUST_CHECK enum mopt_status mo_plan_gradients(struct mo_run *run, struct mo_plan *plan);

/* step.c, in pieces for shards.c: what comes before the first node (inputs are there, the step is counted); one node. */
MOPT_MUST_CHECK enum mopt_status mo_step_begin(struct mo_run *run);
MOPT_MUST_CHECK enum mopt_status mo_step_forward(struct mo_run *run, mo_node_id i);
MOPT_MUST_CHECK enum mopt_status mo_step_begin_backward(struct mo_run *run);
MOPT_MUST_CHECK enum mopt_status mo_step_backward(struct mo_run *run, mo_node_id i);
/* Gradients go beside run->grads from here on, and are added to it. */
MOPT_MUST_CHECK enum mopt_status mo_step_aside(struct mo_run *run);
void mo_step_add(struct mo_run *run, bool is_whole);

/* Before anything is prepared or computed: the 16-bit type of the run is that of the device. */
void mo_run_choose_half(struct mo_run *run);

/* The most bytes a run may take. */
static inline size_t mo_memory_limit(const struct mopt_ctx *ctx)
{
    return ctx->max_memory_bytes && ctx->max_memory_bytes < SIZE_MAX ? (size_t)ctx->max_memory_bytes : SIZE_MAX;
}
/* An input of the graph that is not an initializer besides. */
bool mo_is_real_input(const struct mo_graph *g, mo_value_id v);
uint64_t mo_now_ns(void);

#endif
