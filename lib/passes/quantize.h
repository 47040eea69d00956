/* quantize.h - what the files of the quantize pass share.
 *
 *   quantize_prepare.c      the graph is brought into the form that the writers expect (exact rewrites)
 *   quantize_plan.c         which nodes compute in 8 bits, which values get a Q and share whose parameters
 *   calibrate.c             ranges of these values
 *   quantize_weights.c      integers and scales of weights and biases
 *   quantize_blocks.c       weights in 4 bits
 *   quantize_qdq.c          QuantizeLinear and DequantizeLinear written into the graph
 *   quantize_{dynamic,weight_only,fp16,qat}.c   the other forms */
#ifndef MO_QUANTIZE_H
#define MO_QUANTIZE_H

#include "lib/graph/op.h"
#include "lib/passes/calibrate.h"
#include "lib/passes/train.h"
#include "lib/passes/upgrade.h"

enum mo_quant_target { MO_TARGET_X86, MO_TARGET_ARM, MO_TARGET_TRT, MO_TARGET_GENERIC };

struct mo_quantize_options {
    bool qat, dynamic, fp16, keep_io, per_tensor, measure;
    int weight_only;            /* 0: no, 1: int8, 2: int4 */
    int64_t block;              /* of int4 */
    bool asymmetric;
    int target, method;
    double percentile, alpha;
    int64_t samples;
    struct mo_train_settings train;
};

/* What a target asks for (SCIENCE 5.3: what runtimes fuse). */
struct mo_quant_form {
    enum mo_dtype act;          /* MO_U8 or MO_I8 */
    bool symmetric;             /* activations have zero point 0 */
    bool quantize_bias;
    int weight_max;             /* 127; 64 where pairs of products must not saturate 16 bits */
    bool per_channel;
    bool float_stem;            /* a Conv of few products a sum, followed by MaxPool, stays float */
    bool float_attention;       /* products of two activations, and the bias behind a MatMul, stay float */
};
struct mo_quant_form mo_quant_form(const struct mo_quantize_options *options);

/* ---- preparing ---------------------------------------------------------------------- */

/* A constant that folding may make is at most this large. */
#define MO_QUANT_FOLD_BYTES ((size_t)256 << 20)

struct mo_prepared { uint32_t n_batchnorm, n_bias, n_gemm, n_pool, n_identity; };
/* Exact rewrites: constants folded, initializers no longer graph inputs, Identity and Dropout dropped, BatchNormalization
 * and constant Mul/Add folded into the Conv or Gemm before, MatMul and Add into Gemm, alpha and beta of Gemm into its
 * constants, ReduceMean over the image into GlobalAveragePool. Shapes are inferred afterwards. */
MOPT_MUST_CHECK enum mopt_status mo_quant_prepare(struct mopt_ctx *ctx, struct mopt_model *model,
                                                  struct mo_prepared *prepared);
/* Initializers are no longer inputs of the graph, which old files have them be: a runtime may then fold them. */
void mo_quant_free_initializers(struct mopt_model *model);

/* ---- planning ---------------------------------------------------------------------------- */

enum mo_q_role {
    MO_Q_FLOAT,
    MO_Q_INT8,               /* reads DQ; its outputs get a Q */
    MO_Q_ABSORBED,           /* a Relu or Clip that vanishes into the range before it */
    MO_Q_KEPT_CLIP,          /* a Relu or Clip between its producer and the Q, which does not make it redundant */
};

/* Parameters shared by every value of a group. */
struct mo_quant_group {
    mo_value_id source;         /* the value whose range is taken */
    float clip_low, clip_high;  /* of the Relus and Clips absorbed */
    struct mo_range range;
    float scale; int32_t zero;
    mo_value_id scale_id, zero_id;      /* constants, once written */
};

struct mo_quant_plan {
    uint32_t n_nodes, n_values;
    enum mo_q_role *role;   /* by node */
    const char **why;           /* by node: why it stays float, or NULL */
    bool *is_candidate;         /* by node */
    bool *is_q;                 /* by value: it gets a Q and a DQ */
    uint32_t *group;            /* by value with is_q: index into groups; else MO_NONE */
    struct mo_quant_group *groups; uint32_t n_groups;
};
/* What --only, --skip and --set say of each node. */
enum mo_quant_wish { MO_WISH_NO, MO_WISH_YES, MO_WISH_FORCED };
MOPT_MUST_CHECK enum mopt_status mo_quant_selection(struct mo_job *job, const struct mo_graph *g,
                                                    enum mo_quant_wish *wish);
/* Reasons in plan.why that are nobody's failure. */
extern const char mo_quant_not_selected[], mo_quant_stem[];
MOPT_MUST_CHECK enum mopt_status mo_quant_plan(struct mo_job *job, const struct mo_graph *g,
                                               const struct mo_quant_form *form, const enum mo_quant_wish *wish,
                                               struct mo_quant_plan *plan);
/* Scale and zero point of a group from its range: asymmetric u8/s8, zero exact and at the type's end when the
 * range has one sign; or symmetric s8. */
void mo_quant_params(struct mo_quant_group *group, const struct mo_quant_form *form);
/* "Conv" and its like: their output edge must have exactly one Q. Gemm and MatMul may end in float. */
bool mo_quant_must_end_in_q(const struct mo_node *n);
/* Is input i of an int8 node one that is read through a DQ? */
bool mo_quant_reads_q(const struct mo_graph *g, const struct mo_node *n, uint32_t i);
/* Does the node have the constant weight that WEIGHTED operators need? */
bool mo_quant_has_weight(const struct mo_graph *g, const struct mo_node *n);

/* The result of a node under the name it has: behind the Relu or Clip that goes with it. */
mo_value_id mo_quant_shown(const struct mo_graph *g, const struct mo_quant_plan *plan, mo_node_id i);

/* ---- weights -------------------------------------------------------------------------------- */

struct mo_quant_weight {
    int8_t *q;                  /* mo_mem_new */
    float *scale;               /* mo_mem_new; n_scales */
    int64_t n_scales, n_elems;
    int axis;                   /* MO_UNKNOWN: one scale */
    double sqnr_db;
};
/* The axis of the output channels: Conv 0, ConvTranspose 1, MatMul last, Gemm 0 or 1; MO_UNKNOWN: per tensor. */
int mo_quant_weight_axis(const struct mo_graph *g, const struct mo_node *n, bool per_channel);
/* Symmetric: scale = max|w| / q_max per channel, raised to least[c] where that is larger (NULL: nowhere). */
MOPT_MUST_CHECK enum mopt_status mo_quant_weight(struct mopt_ctx *ctx, const struct mo_value *w, int axis, int q_max,
                                                 const float *least, struct mo_quant_weight *out);
void mo_quant_weight_free(struct mo_quant_weight *w);
/* How a row is rounded: with one step, or each element with its own. zero NULL: zeros. */
struct mo_quant_step { const float *scale, *zero; bool each; float low, high; };
/* q = clamp(round(x / scale) + zero, low, high); squares of x and of what rounding took are added to *signal, *noise. */
void mo_quant_round(const float *x, int8_t *q, int64_t n, const struct mo_quant_step *step, double *signal, double *noise);

/* A weight in 4 bits (quantize_blocks.c). Memory of mo_constant_new. */
struct mo_quant_blocks {
    enum mo_dtype dtype;        /* MO_I4 or MO_U4 */
    void *codes, *zeros;        /* packed; zeros NULL: all 0 */
    float *scale;
    struct mo_shape scales;     /* that of the weight, `axis` divided into blocks */
    int axis;
    int64_t block;
    double sqnr_db;
};
MOPT_MUST_CHECK enum mopt_status mo_quant_in_blocks(struct mopt_ctx *ctx, const struct mo_value *w, int axis, int64_t block,
                                                    bool symmetric, struct mo_quant_blocks *out);
void mo_quant_blocks_free(struct mo_quant_blocks *b);

/* An initializer whose data is `heap` (mo_mem_new), which is freed where that fails. */
mo_value_id mo_quant_add_const(struct mo_graph *g, const char *name, enum mo_dtype dtype, const struct mo_shape *shape,
                               void *heap);
/* bias / (scale_x * scale_w[c]) rounded to int32. Heap memory. */
MOPT_MUST_CHECK enum mopt_status mo_quant_bias(struct mopt_ctx *ctx, const struct mo_value *b, float scale_x,
                                               const float *scale_w, int64_t n_scales, int32_t **q, float **scale);
/* The smallest weight scales with which |bias / scale| stays within 2^30; NULL with MOPT_OK when all do. Heap memory. */
MOPT_MUST_CHECK enum mopt_status mo_quant_bias_least(struct mopt_ctx *ctx, const struct mo_value *b, float scale_x,
                                                     const struct mo_quant_weight *w, float **least);

/* ---- writing ------------------------------------------------------------------------------------ */

/* A quantized layer, for the audit and for QAT. */
struct mo_quant_layer {
    const char *name;           /* of the node, or of its output */
    const char *type;
    mo_value_id weight, weight_scale, weight_zero;  /* float weight (QAT form), its parameters */
    mo_value_id bias, x_scale;
    mo_value_id output;                             /* what the node itself writes */
    mo_value_id shown;                              /* its result under the name it had, behind an absorbed Relu */
    int axis;
    double weight_sqnr_db;
};
struct mo_quant_written {
    struct mo_quant_layer *layers; uint32_t n_layers;
    uint32_t n_q, n_dq;
};
/* Puts Q and DQ into the graph as planned. for_training: weights stay float behind a Q and a DQ, biases float, so that
 * both can be trained; mo_quant_finish makes the final form of it. */
MOPT_MUST_CHECK enum mopt_status mo_quant_write(struct mo_job *job, struct mopt_model *model,
                                                const struct mo_quant_form *form, struct mo_quant_plan *plan,
                                                bool for_training, struct mo_quant_written *written);
MOPT_MUST_CHECK enum mopt_status mo_quant_finish(struct mo_job *job, struct mopt_model *model,
                                                 const struct mo_quant_form *form,
                                                 const struct mo_quant_written *written);

MOPT_MUST_CHECK enum mopt_status mo_quantize_dynamic(struct mo_job *job, const struct mo_quantize_options *options);
MOPT_MUST_CHECK enum mopt_status mo_quantize_weight_only(struct mo_job *job, const struct mo_quantize_options *options);
MOPT_MUST_CHECK enum mopt_status mo_quantize_fp16(struct mo_job *job, const struct mo_quantize_options *options);
MOPT_MUST_CHECK enum mopt_status mo_quantize_qat(struct mo_job *job, const struct mo_quantize_options *options);
/* Range, parameters, Q and DQ: what static and QAT share. */
MOPT_MUST_CHECK enum mopt_status mo_quantize_static(struct mo_job *job, const struct mo_quantize_options *options,
                                                    bool for_training, struct mo_quant_written *written);

/* The name of a node, or when it has none that of its first output. */
const char *mo_quant_name(const struct mo_graph *g, const struct mo_node *n);

#endif
