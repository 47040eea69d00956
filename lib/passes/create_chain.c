/* create_chain.c - a chain of layers from a spec; the table says which keys each type reads. */
#include <string.h>

#include "lib/passes/create.h"

static void or_else(int64_t *pair, const int64_t *said, int64_t otherwise)
{
    for (int i = 0; i < 2; i++)
        pair[i] = said[i] ? said[i] : otherwise;
}

static void conv(struct mo_build *b, const struct mo_layer_spec *l)
{
    int64_t kernel[2], stride[2];
    or_else(kernel, l->kernel, 3);
    or_else(stride, l->stride, 1);
    mo_build_conv(b, l->name, l->out, kernel, stride, l->pad, l->group ? l->group : 1, !l->no_bias);
}

static void pool(struct mo_build *b, const struct mo_layer_spec *l, const char *type)
{
    int64_t kernel[2], stride[2];
    or_else(kernel, l->kernel, 2);
    for (int i = 0; i < 2; i++)
        stride[i] = l->stride[i] ? l->stride[i] : kernel[i];
    mo_build_pool(b, type, kernel, stride, l->pad);
}

static void max_pool(struct mo_build *b, const struct mo_layer_spec *l) { pool(b, l, "MaxPool"); }
static void average_pool(struct mo_build *b, const struct mo_layer_spec *l) { pool(b, l, "AveragePool"); }
static void linear(struct mo_build *b, const struct mo_layer_spec *l)
{
    mo_build_linear(b, l->name, l->out, !l->no_bias);
}
static void batch_norm(struct mo_build *b, const struct mo_layer_spec *l) { mo_build_batch_norm(b, l->name); }
static void layer_norm(struct mo_build *b, const struct mo_layer_spec *l) { mo_build_layer_norm(b, l->name); }
static void dropout(struct mo_build *b, const struct mo_layer_spec *l)
{
    mo_build_dropout(b, l->rate > 0 ? l->rate : 0.5);
}
static void leaky_relu(struct mo_build *b, const struct mo_layer_spec *l)
{
    mo_build_leaky_relu(b, l->rate > 0 ? l->rate : 0.01);
}
static void relu(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_unary(b, "Relu"); }
static void sigmoid(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_unary(b, "Sigmoid"); }
static void tanh_layer(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_unary(b, "Tanh"); }
static void relu6(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_relu6(b); }
static void gelu(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_gelu(b); }
static void softmax(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_softmax(b); }
static void flatten(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_flatten(b); }
static void global_pool(struct mo_build *b, const struct mo_layer_spec *l) { (void)l; mo_build_global_pool(b); }

static void residual(struct mo_build *b, const struct mo_layer_spec *l)
{
    mo_value_id x = b->x;
    struct mo_shape shape = b->shape;
    mo_create_chain(b, l->layers, l->n_layers);
    mo_value_id y = b->x;
    struct mo_shape branch = b->shape;
    b->x = x;
    b->shape = shape;
    mo_create_chain(b, l->shortcut, l->n_shortcut);
    x = b->x;
    shape = b->shape;
    b->x = y;
    b->shape = branch;
    mo_build_add(b, x, &shape);
}

static const struct { const char *type; void (*build)(struct mo_build *, const struct mo_layer_spec *); } types[] = {
    { "conv", conv }, { "linear", linear }, { "batchnorm", batch_norm }, { "layernorm", layer_norm },
    { "relu", relu }, { "relu6", relu6 }, { "leaky-relu", leaky_relu }, { "gelu", gelu }, { "sigmoid", sigmoid },
    { "tanh", tanh_layer }, { "softmax", softmax }, { "maxpool", max_pool }, { "avgpool", average_pool },
    { "global-pool", global_pool }, { "flatten", flatten }, { "dropout", dropout }, { "residual", residual },
};

static enum mopt_status unknown_type(struct mopt_ctx *ctx, const char *type)
{
    const char *names[MO_COUNT(types)];
    for (size_t i = 0; i < MO_COUNT(types); i++)
        names[i] = types[i].type;
    const char *nearest = mo_nearest(type, names, MO_COUNT(names));
    return mo_fail(ctx, MOPT_USAGE, "there is no layer type '%s'%s%s%s", type, nearest ? "; '" : "",
                   nearest ? nearest : "", nearest ? "' is near" : "");
}

void mo_create_chain(struct mo_build *b, const struct mo_layer_spec *layers, uint32_t n_layers)
{
    for (uint32_t i = 0; i < n_layers && !b->status; i++) {
        size_t t = 0;
        while (t < MO_COUNT(types) && strcmp(types[t].type, layers[i].type))
            t++;
        if (t == MO_COUNT(types))
            b->status = unknown_type(b->ctx, layers[i].type);
        else
            types[t].build(b, &layers[i]);
    }
}
