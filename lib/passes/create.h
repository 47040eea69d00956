/* create.h - untrained models, made layer by layer. */
#ifndef MO_CREATE_H
#define MO_CREATE_H

#include "lib/graph/graph.h"

/* ---- what was asked for; formats/create_json.c fills it from JSON -------------------- */

/* One layer of a chain; 0 and NULL: not said. */
struct mo_layer_spec {
    const char *type, *name;
    int64_t out;                        /* channels or features */
    int64_t kernel[2], stride[2], pad[2];
    int64_t group;
    bool no_bias;
    double rate;                        /* dropout, slope of leaky-relu */
    struct mo_layer_spec *layers; uint32_t n_layers;        /* residual: the branch */
    struct mo_layer_spec *shortcut; uint32_t n_shortcut;    /* and the way around it; none: the input itself */
};

struct mo_create_spec {
    const char *family;                 /* NULL: a chain of layers */
    const char *name;                   /* of the graph */
    struct mo_shape input;              /* of one sample; rank MO_UNKNOWN: the family's */
    int64_t classes;                    /* 0: the family's */
    double width;                       /* 0: 1 */
    const int64_t *widths; uint32_t n_widths;               /* mlp */
    const struct mo_layer_spec *layers; uint32_t n_layers;  /* chain */
};
MOPT_MUST_CHECK enum mopt_status mo_create(struct mopt_ctx *ctx, const struct mo_create_spec *spec, uint64_t seed,
                                           struct mopt_model **model);

/* ---- building -------------------------------------------------------------------------- */

/* A chain that grows: x is what the last layer gave, shape that of one sample of it. Once status is
 * set, further calls do nothing, so that a network reads as a list of layers. */
struct mo_build {
    struct mopt_ctx *ctx;
    struct mopt_model *model;
    struct mo_graph *g;
    mo_value_id x;
    struct mo_shape shape;
    double width;
    enum mopt_status status;
};

/* name NULL: made from the type and a number. Parameters are called NAME.weight, NAME.bias ... and hold zeros. */
void mo_build_conv(struct mo_build *b, const char *name, int64_t out, const int64_t *kernel, const int64_t *stride,
                   const int64_t *pad, int64_t group, bool bias);
/* A square one that keeps the size when stride is 1. */
void mo_build_conv_same(struct mo_build *b, const char *name, int64_t out, int64_t kernel, int64_t stride, bool bias);
void mo_build_linear(struct mo_build *b, const char *name, int64_t out, bool bias);
void mo_build_batch_norm(struct mo_build *b, const char *name);
void mo_build_layer_norm(struct mo_build *b, const char *name);
/* "MaxPool" or "AveragePool". */
void mo_build_pool(struct mo_build *b, const char *type, const int64_t *kernel, const int64_t *stride,
                   const int64_t *pad);
void mo_build_global_pool(struct mo_build *b);
void mo_build_flatten(struct mo_build *b);                      /* nothing where a sample is a vector already */
void mo_build_unary(struct mo_build *b, const char *type);      /* Relu, Sigmoid, Tanh, Identity */
void mo_build_softmax(struct mo_build *b);
void mo_build_leaky_relu(struct mo_build *b, double slope);
void mo_build_relu6(struct mo_build *b);
void mo_build_gelu(struct mo_build *b);                         /* by erf, since Gelu is no operator before opset 20 */
void mo_build_dropout(struct mo_build *b, double rate);
/* x + other, which must have x's shape. */
void mo_build_add(struct mo_build *b, mo_value_id other, const struct mo_shape *other_shape);

/* The parts: a constant of zeros, a float constant, a node with one output. */
mo_value_id mo_build_param(struct mo_build *b, const char *layer, const char *part, const struct mo_shape *shape);
mo_value_id mo_build_scalar(struct mo_build *b, const char *name, float value);
mo_value_id mo_build_ints(struct mo_build *b, const char *name, const int64_t *values, int n);
/* The node's id; b->x becomes its output, b->shape `shape`. */
mo_node_id mo_build_node(struct mo_build *b, const char *type, const char *name, const mo_value_id *in, uint32_t n_in,
                         const struct mo_shape *shape);
/* b->width times n, at least 1, a multiple of `unit`. */
int64_t mo_build_wide(const struct mo_build *b, int64_t n, int64_t unit);
/* Fails unless a sample has that many axes. */
bool mo_build_wants_rank(struct mo_build *b, int rank, const char *what);

/* ---- families: create_families.c, create_transformer.c, create_chain.c ------------------- */

struct mo_family {
    const char *name, *input_words;
    struct mo_shape input;              /* default */
    int64_t classes;                    /* default */
    void (*build)(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes);
};
const struct mo_family *mo_family_at(size_t i);         /* NULL past the end */
void mo_create_transformer(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes);
void mo_create_chain(struct mo_build *b, const struct mo_layer_spec *layers, uint32_t n_layers);

#endif
