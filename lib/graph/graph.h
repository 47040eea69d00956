/* graph.h - what a model is: values and nodes by index, and everything else
 * that its ONNX file carried.
 *
 * Invariants, between passes:
 *   - nodes are in topological order;
 *   - a value has one producer, or none (input, initializer, captured value);
 *   - names of values are unique within a graph and never empty;
 *   - value.data != NULL means: constant, these are the elements. That is so for
 *     initializers and for the outputs of Constant nodes alike, so a pass that
 *     changes weights sees one form; the writer puts them back where they were.
 *   - data is never written in place (it may be a mapped file): replace it with
 *     mo_value_set_data.
 * Rule of thumb: hold ids across edits, pointers between edits. */
#ifndef MO_GRAPH_H
#define MO_GRAPH_H

#include "lib/base/base.h"

/* ---- element types: ONNX TensorProto.DataType numbers ------------------------ */

enum mo_dtype {
    MO_UNDEFINED = 0, MO_F32 = 1, MO_U8 = 2, MO_I8 = 3, MO_U16 = 4, MO_I16 = 5, MO_I32 = 6, MO_I64 = 7,
    MO_STRING = 8, MO_BOOL = 9, MO_F16 = 10, MO_F64 = 11, MO_U32 = 12, MO_U64 = 13, MO_C64 = 14, MO_C128 = 15,
    MO_BF16 = 16, MO_F8E4M3FN = 17, MO_F8E4M3FNUZ = 18, MO_F8E5M2 = 19, MO_F8E5M2FNUZ = 20,
    MO_U4 = 21, MO_I4 = 22, MO_F4E2M1 = 23, MO_F8E8M0 = 24, MO_U2 = 25, MO_I2 = 26,
    MO_N_DTYPES,
    /* No tensors: lists of tensors, in a run kept as bytes (lib/ops/sequence.h). */
    MO_SEQUENCE = 100, MO_OPTIONAL = 101
};
static inline bool mo_is_list(enum mo_dtype dtype)
{
    return dtype == MO_SEQUENCE || dtype == MO_OPTIONAL;
}
const char *mo_dtype_name(enum mo_dtype dtype);             /* "float32", "int8", ...; "dtype 99" never crashes */
int mo_dtype_bits(enum mo_dtype dtype);                     /* 0: unknown. Of strings, the numbers that stand for texts while running */
/* bfloat16 or float16: what a run may compute in (lib/run/bf16.c) */
static inline bool mo_dtype_is_half(enum mo_dtype dtype)
{
    return dtype == MO_BF16 || dtype == MO_F16;
}
bool mo_dtype_is_float(enum mo_dtype dtype);                /* f16, bf16, f32, f64 */
/* Bytes of n elements, sub-byte types packed, two or four to a byte; SIZE_MAX on overflow. */
size_t mo_dtype_bytes(enum mo_dtype dtype, int64_t n_elems);
float mo_f16_to_f32(uint16_t h);
uint16_t mo_f32_to_f16(float x);                            /* to nearest even; too large gives infinity */
float mo_bf16_to_f32(uint16_t b);
uint16_t mo_f32_to_bf16(float x);                           /* to nearest even */

/* ---- shapes ------------------------------------------------------------------- */

#define MO_MAX_RANK 10
#define MO_UNKNOWN (-1)

struct mo_shape {
    int rank;                       /* MO_UNKNOWN: not even the rank is known */
    int64_t dim[MO_MAX_RANK];       /* MO_UNKNOWN: not known */
};
struct mo_shape mo_shape_of(int rank, ...);                 /* mo_shape_of(2, (int64_t)3, (int64_t)4) */
bool mo_shape_known(const struct mo_shape *shape);          /* rank and every dimension */
int64_t mo_shape_elems(const struct mo_shape *shape);       /* MO_UNKNOWN: not known, or more than INT64_MAX */
bool mo_shape_equal(const struct mo_shape *a, const struct mo_shape *b);
/* "1x28x28", "?x10", "scalar", into buf; returns buf. */
const char *mo_shape_text(const struct mo_shape *shape, char *buf, size_t buf_bytes);
/* numpy's rule for several shapes; unknown dims stay unknown. False: they do not fit. */
bool mo_shape_broadcast(const struct mo_shape *a, const struct mo_shape *b, struct mo_shape *out);

/* ---- values ---------------------------------------------------------------------- */

typedef uint32_t mo_value_id, mo_node_id;
#define MO_NONE UINT32_MAX

enum mo_data_owner { MO_DATA_BORROWED, MO_DATA_HEAP };      /* borrowed: mapped file, arena, or another value */

/* Parts of a protobuf message that mopt keeps without reading: already encoded,
 * written back behind the fields that mopt writes (concatenation is merge). */
struct mo_kept { const uint8_t *bytes; size_t n_bytes; };
enum { MO_KEPT_TYPE, MO_KEPT_TENSOR_TYPE, MO_KEPT_SHAPE, MO_KEPT_TYPES };

struct mo_value {
    const char *name;
    enum mo_dtype dtype;
    enum mo_dtype element;              /* of a MO_SEQUENCE or MO_OPTIONAL: what it holds, where that is known */
    struct mo_shape shape;
    const char **dim_names;             /* MO_MAX_RANK texts or NULLs ("batch"), of the shape in the file; NULL: none */
    void *data;                         /* constant's elements; NULL: not a constant. Empty tensors point anywhere non-NULL */
    enum mo_data_owner owner;
    mo_node_id producer;                /* MO_NONE: input, initializer, captured */
    uint32_t n_uses;                    /* readers: node inputs, captures, graph outputs. Kept by mo_graph_index */
    bool is_input, is_output, is_initializer;
    bool is_captured;                   /* belongs to an enclosing graph, same name there */
    bool has_info;                      /* the file had a value_info (or input/output) entry for it */
    bool is_sparse;                     /* initializer came as a sparse tensor; kept apart, see sparse in mo_graph */
    const char *string_data_doc;        /* doc string of the initializer, or NULL */
    const char **strings;               /* elements of a MO_STRING constant; data is then non-NULL too */
    struct mo_kept kept_info;           /* rest of its ValueInfoProto (type when not a plain tensor, doc, metadata) */
    struct mo_kept kept_tensor;         /* rest of its TensorProto (metadata, segment, unknown fields) */
    const struct mo_kept *kept_dims;    /* MO_MAX_RANK entries: rest of each dimension (denotation); NULL: nothing */
    const struct mo_kept *kept_type;    /* MO_KEPT_TYPES entries: rest of its type (denotation), or NULL: nothing */
    bool is_untyped;                    /* its entry's type is absent or no plain tensor: kept_info has it, none is written */
    /* what shape inference knows of an int64 activation: shape.elems entries, MO_VALUE_UNKNOWN
     * where an element is not known. NULL: nothing. Never written to files. */
    const int64_t *known;
    /* graph inputs: the shape of the file while mo_infer has bound another into `shape`; writers use this one. */
    struct mo_shape declared; bool has_declared;
};
#define MO_VALUE_UNKNOWN INT64_MIN

/* ---- attributes and nodes ----------------------------------------------------------- */

enum mo_attr_kind {                     /* AttributeProto.AttributeType numbers */
    MO_ATTR_UNDEFINED = 0, MO_ATTR_FLOAT = 1, MO_ATTR_INT = 2, MO_ATTR_STRING = 3, MO_ATTR_TENSOR = 4,
    MO_ATTR_GRAPH = 5, MO_ATTR_FLOATS = 6, MO_ATTR_INTS = 7, MO_ATTR_STRINGS = 8, MO_ATTR_TENSORS = 9,
    MO_ATTR_GRAPHS = 10, MO_ATTR_OTHER = 11     /* sparse tensors, types, references: only kept */
};

struct mo_graph;
struct mo_tensor_const {                /* a tensor inside an attribute */
    const char *name;
    enum mo_dtype dtype;
    struct mo_shape shape;
    const void *data;
    const char **strings;
    struct mo_kept kept;
};

struct mo_attr {
    const char *name;
    enum mo_attr_kind kind;
    float f;
    int64_t i;
    const char *s; size_t s_bytes;      /* a 0 follows the bytes */
    const float *floats; const int64_t *ints; const char **strings; const size_t *strings_bytes;
    size_t n;                           /* of floats, ints, strings, tensors, graphs; TENSOR and GRAPH: 1 */
    struct mo_tensor_const *tensors;    /* TENSOR: one; TENSORS: n. A Constant node's value lives in mo_value.data instead: */
    struct mo_graph **graphs;           /* GRAPH: one; GRAPHS: n */
    const char *ref;                    /* OTHER, in a function: the caller's attribute of that name; NULL: no reference */
    bool is_value_data;                 /* this tensor is out[0].data of the node; tensors[0].data is unused */
    struct mo_kept kept;                /* rest of its AttributeProto; for OTHER the whole */
};

struct mo_op;
struct mo_node {
    const char *name;                   /* may be "" as in the file */
    const char *type, *domain;          /* domain "": ai.onnx */
    const struct mo_op *op;             /* NULL: mopt does not know it; kept, a wall to passes */
    struct mo_attr *attrs; uint32_t n_attrs;
    mo_value_id *in, *out; uint32_t n_in, n_out;        /* MO_NONE: an optional one left out */
    mo_value_id *captures; uint32_t n_captures;         /* values of this graph that its subgraphs read */
    void *params;                       /* op->params_bytes, filled by op->infer from attributes and constant inputs */
    bool channels_last;                 /* lowered graphs only: 4-D operands are N,spatial...,C */
    bool is_dead;                       /* swept by mo_graph_sweep */
    const char *overload;
    struct mo_kept kept;                /* doc string, metadata, unknown fields */
};

/* ---- graphs --------------------------------------------------------------------------- */

struct mo_import { const char *domain; int64_t version; };

struct mo_graph {
    struct mo_arena *arena;             /* the model's (or a lowered copy's own): names, arrays, params */
    const char *name;
    struct mo_value *values; uint32_t n_values, cap_values;
    struct mo_node *nodes; uint32_t n_nodes, cap_nodes;
    mo_value_id *inputs; uint32_t n_inputs;         /* all graph inputs as in the file, initializers among them too */
    mo_value_id *outputs; uint32_t n_outputs;
    mo_value_id *initializers; uint32_t n_initializers, cap_initializers;   /* order of the file */
    mo_value_id *infos; uint32_t n_infos;           /* order of value_info in the file */
    int opset;                          /* version of the default domain; 0 when it is not imported */
    struct mo_graph *parent;            /* enclosing graph of a subgraph, else NULL */
    const struct mo_function *functions; uint32_t n_functions;      /* the model's, in its main graph and copies of that */
    struct mo_kept kept;                /* doc string, quantization annotations, sparse initializers, metadata */
};

struct mo_meta { const char *key, *value; };
/* A local function, as what a call of it stands for. The model also keeps it encoded, and writes that. */
struct mo_function {
    const char *name, *domain, *overload;
    struct mo_attr *defaults; uint32_t n_defaults;      /* of attributes that a call may leave out */
    const struct mo_import *imports; uint32_t n_imports;    /* of what its nodes are in */
    struct mo_graph *body;              /* its inputs and outputs are the call's, in order */
};

struct mopt_model {
    struct mo_arena arena;
    struct mo_graph graph;
    int64_t ir_version, model_version;
    bool has_model_version;
    const char *producer_name, *producer_version, *domain;      /* NULL: field absent */
    struct mo_import *imports; uint32_t n_imports;
    struct mo_meta *metadata; uint32_t n_metadata;
    struct mo_kept kept;                /* doc string, functions, training info, unknown fields */
    struct mo_function *functions; uint32_t n_functions;
    bool is_external;                   /* came with external data, and is written so again */
    uint64_t file_bytes;                /* of the file it was read from, external data included; 0: made here */
    uint64_t file_hash;                 /* XXH64 of that file, without external data */
    void *mapping; size_t mapping_bytes;                        /* the mapped file, or NULL */
    void (*release_mapping)(struct mopt_model *);               /* set by who mapped; may be NULL */
    void *mappings;                                             /* external files, owned by release_mapping */
};

/* ---- reading ------------------------------------------------------------------------------ */

mo_value_id mo_graph_find(const struct mo_graph *g, const char *value_name);        /* linear; MO_NONE */
const struct mo_attr *mo_node_attr(const struct mo_node *n, const char *name);      /* NULL: not there */
int64_t mo_node_int(const struct mo_node *n, const char *name, int64_t otherwise);
float mo_node_float(const struct mo_node *n, const char *name, float otherwise);
const char *mo_node_text(const struct mo_node *n, const char *name, const char *otherwise);
/* Elements of an INTS attribute; *n 0 and NULL when it is not there. */
const int64_t *mo_node_ints(const struct mo_node *n, const char *name, size_t *n_ints);
bool mo_node_is(const struct mo_node *n, const char *type);                         /* default domain */
/* The i-th input's value, or NULL when it is left out. */
struct mo_value *mo_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i);
struct mo_value *mo_out(const struct mo_graph *g, const struct mo_node *n, uint32_t i);
int64_t mo_value_elems(const struct mo_value *v);                                   /* MO_UNKNOWN */
size_t mo_value_bytes(const struct mo_value *v);
/* Constant integers (any integer type, known[] looked at too) as int64 into out[max]; returns the
 * count, or -1 when they are not (all) known. */
int mo_value_ints(const struct mo_value *v, int64_t *out, int max);
/* A constant scalar as double; false when not a constant of one element. */
bool mo_value_scalar(const struct mo_value *v, double *x);
/* Constant float-like elements (f16, bf16, f32, f64) as new float32 memory; NULL: not possible. Caller frees with mo_mem_free. */
float *mo_value_floats(const struct mo_value *v);
/* "node 'fc1' (Gemm)" or, without a name, "node 17 (Gemm)". */
const char *mo_node_label(const struct mo_graph *g, const struct mo_node *n, char *buf, size_t buf_bytes);
/* Nodes that read the value, as ids into out[max]; returns how many there are. A node is counted once per input. */
uint32_t mo_value_users(const struct mo_graph *g, mo_value_id v, mo_node_id *out, uint32_t max);

/* ---- editing --------------------------------------------------------------------------------- */

/* New ids; MO_NONE when out of memory. Names are copied; a name that is taken gets a suffix. */
mo_value_id mo_graph_add_value(struct mo_graph *g, const char *name, enum mo_dtype dtype, const struct mo_shape *shape);
/* An initializer; data is copied (NULL: zeros). */
mo_value_id mo_graph_add_const(struct mo_graph *g, const char *name, enum mo_dtype dtype,
                               const struct mo_shape *shape, const void *data);
/* Appends a node at the end; the caller keeps topological order or calls mo_graph_sort. domain NULL: "". */
mo_node_id mo_graph_add_node(struct mo_graph *g, const char *type, const char *domain, const char *name,
                             const mo_value_id *in, uint32_t n_in, const mo_value_id *out, uint32_t n_out);
/* Set or replace; false when out of memory. */
bool mo_node_set_int(struct mo_graph *g, mo_node_id n, const char *name, int64_t value);
bool mo_node_set_float(struct mo_graph *g, mo_node_id n, const char *name, float value);
bool mo_node_set_text(struct mo_graph *g, mo_node_id n, const char *name, const char *value);
bool mo_node_set_ints(struct mo_graph *g, mo_node_id n, const char *name, const int64_t *values, size_t count);
bool mo_node_set_floats(struct mo_graph *g, mo_node_id n, const char *name, const float *values, size_t count);
void mo_node_drop_attr(struct mo_graph *g, mo_node_id n, const char *name);
/* Takes over heap data from mo_mem_new; the old data is freed when owned. Shape and dtype are set as given. */
void mo_value_set_data(struct mo_graph *g, mo_value_id v, enum mo_dtype dtype, const struct mo_shape *shape, void *heap_data);
/* Every reader of `from` (node inputs, captures) reads `to` instead; graph outputs keep `from`. */
void mo_graph_replace_uses(struct mo_graph *g, mo_value_id from, mo_value_id to);
/* The same without a walk over the whole graph, where uses are counted right and stay so; readers are looked for from node
 * `behind` on first. */
void mo_graph_move_uses(struct mo_graph *g, mo_value_id from, mo_value_id to, mo_node_id behind);
/* The node is dead, its inputs have a reader less, its outputs no producer. */
void mo_graph_kill(struct mo_graph *g, mo_node_id i);
/* Adds to the graph's inputs/outputs. */
bool mo_graph_add_input(struct mo_graph *g, mo_value_id v);
bool mo_graph_add_output(struct mo_graph *g, mo_value_id v);
/* Drop is_dead nodes, then recount uses, producers. Ids of nodes change; ids of values do not. */
void mo_graph_sweep(struct mo_graph *g);
/* Drop nodes whose outputs nobody reads (unknown ops and graph outputs kept), then initializers nobody reads
 * that are not graph inputs. */
void mo_graph_drop_unused(struct mo_graph *g);
/* Recount producers and uses; find each node's op. Fails on duplicate producers. */
MOPT_MUST_CHECK enum mopt_status mo_graph_index(struct mopt_ctx *ctx, struct mo_graph *g);
/* Stable topological sort; a cycle fails with the names of nodes on it. Calls mo_graph_index. */
MOPT_MUST_CHECK enum mopt_status mo_graph_sort(struct mopt_ctx *ctx, struct mo_graph *g);
/* The invariants at the top of this file; MOPT_FAILED says which is broken. */
MOPT_MUST_CHECK enum mopt_status mo_graph_check(struct mopt_ctx *ctx, const struct mo_graph *g);

/* Every call of a function, also in subgraphs and within functions, replaced by its nodes; then sorted. *n_inlined (or
 * NULL) is raised by the calls. The graph borrows the constants of the bodies. */
MOPT_MUST_CHECK enum mopt_status mo_graph_inline(struct mopt_ctx *ctx, struct mo_graph *g,
                                                 const struct mo_function *functions, uint32_t n_functions,
                                                 uint32_t *n_inlined);
/* The same for a whole model, which then has no functions any more, but for those that only its training calls. */
MOPT_MUST_CHECK enum mopt_status mo_model_inline(struct mopt_ctx *ctx, struct mopt_model *m, uint32_t *n_inlined);
/* The elements of a Constant node become data of its output, once its attributes say them. False: no memory. */
bool mo_node_take_constant(struct mo_graph *g, struct mo_node *n);
/* A deep copy of structure into dst (its arena must be set, otherwise zero); constants are borrowed
 * from src, which must outlive it, unless copy_data. Subgraphs come along. */
MOPT_MUST_CHECK enum mopt_status mo_graph_copy(struct mopt_ctx *ctx, struct mo_graph *dst, const struct mo_graph *src,
                                               bool copy_data);
/* Frees heap data of values (arena memory goes with the arena). */
void mo_graph_release(struct mo_graph *g);

/* A whole model copied, constants too. */
MOPT_MUST_CHECK enum mopt_status mo_model_copy(struct mopt_ctx *ctx, const struct mopt_model *src, struct mopt_model **dst);
struct mopt_model *mo_model_new(void);              /* empty, IR 8; NULL: no memory */
const char *mo_model_meta(const struct mopt_model *m, const char *key);
bool mo_model_set_meta(struct mopt_model *m, const char *key, const char *value);
/* Opset of a domain ("" is ai.onnx); 0: not imported. Setting adds the import and keeps graph.opset in step. */
int64_t mo_model_opset(const struct mopt_model *m, const char *domain);
bool mo_model_set_opset(struct mopt_model *m, const char *domain, int64_t version);

/* ---- counts: what reports are made of ---------------------------------------------------------- */

/* Multiplications of one node, at the sizes that are inferred; MO_UNKNOWN. */
int64_t mo_node_macs(const struct mo_graph *g, const struct mo_node *n);
struct mo_counts {
    int64_t parameters, nonzero;        /* elements of float constants that reach weighted inputs or are trainable */
    int64_t macs;                       /* of one forward pass at the given batch of 1; MO_UNKNOWN when an op cannot tell */
    uint64_t bytes;                     /* of all constants as stored */
};
/* The constant that an input is made of through operators that only move, cast or quantize, or MO_NONE. */
mo_value_id mo_count_source(const struct mo_graph *g, mo_value_id v);
/* Shapes must have been inferred (infer.h) for macs. */
MOPT_MUST_CHECK enum mopt_status mo_count(struct mopt_ctx *ctx, const struct mo_graph *g, struct mo_counts *counts);

#endif
