/* create_transformer.c - an encoder over tokens that are vectors already.
 *
 * Vaswani et al. 2017 with normalization before each part (Xiong et al. 2020): positions are added, two blocks of
 * four-headed attention and a Gelu layer four times as wide, the mean over tokens, a linear head. Written in
 * the operators that opset 17 has, the way exporters write it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/passes/create.h"

enum { BLOCKS = 2, HEADS = 4, WIDER = 4 };

static void name_in(char *buf, size_t n, const char *block, const char *part)
{
    snprintf(buf, n, "%s.%s", block, part);
}

static void transpose(struct mo_build *b, const int64_t *perm, const struct mo_shape *shape)
{
    mo_node_id n = mo_build_node(b, "Transpose", NULL, &b->x, 1, shape);
    if (n != MO_NONE && !mo_node_set_ints(b->g, n, "perm", perm, 4))
        b->status = mo_no_memory(b->ctx, 32, "a transpose");
}

/* tokens x features to heads x tokens x part, or with the last two axes exchanged. */
static mo_value_id project(struct mo_build *b, const char *block, const char *part, mo_value_id x,
                           const struct mo_shape *tokens, mo_value_id split, bool exchange)
{
    char name[64];
    int64_t t = tokens->dim[0], d = tokens->dim[1];
    name_in(name, sizeof name, block, part);
    b->x = x;
    b->shape = *tokens;
    mo_build_linear(b, name, d, true);
    struct mo_shape heads = mo_shape_of(3, t, (int64_t)HEADS, d / HEADS);
    mo_build_node(b, "Reshape", NULL, (mo_value_id[]){ b->x, split }, 2, &heads);
    struct mo_shape first = exchange ? mo_shape_of(3, (int64_t)HEADS, d / HEADS, t)
                                     : mo_shape_of(3, (int64_t)HEADS, t, d / HEADS);
    transpose(b, exchange ? (int64_t[]){ 0, 2, 3, 1 } : (int64_t[]){ 0, 2, 1, 3 }, &first);
    return b->x;
}

static void attention(struct mo_build *b, const char *block)
{
    char name[64];
    struct mo_shape tokens = b->shape;
    int64_t t = tokens.dim[0], d = tokens.dim[1];
    name_in(name, sizeof name, block, "split");
    mo_value_id x = b->x, split = mo_build_ints(b, name, (int64_t[]){ 0, t, HEADS, d / HEADS }, 4);
    mo_value_id q = project(b, block, "query", x, &tokens, split, false);
    mo_value_id k = project(b, block, "key", x, &tokens, split, true);
    mo_value_id v = project(b, block, "value", x, &tokens, split, false);
    struct mo_shape scores = mo_shape_of(3, (int64_t)HEADS, t, t), heads = mo_shape_of(3, (int64_t)HEADS, t, d / HEADS);
    name_in(name, sizeof name, block, "scores");
    mo_build_node(b, "MatMul", name, (mo_value_id[]){ q, k }, 2, &scores);
    name_in(name, sizeof name, block, "scale");
    mo_value_id scale = mo_build_scalar(b, name, 1 / sqrtf((float)(d / HEADS)));
    mo_build_node(b, "Mul", NULL, (mo_value_id[]){ b->x, scale }, 2, &scores);
    mo_build_softmax(b);
    name_in(name, sizeof name, block, "mix");
    mo_build_node(b, "MatMul", name, (mo_value_id[]){ b->x, v }, 2, &heads);
    struct mo_shape back = mo_shape_of(3, t, (int64_t)HEADS, d / HEADS);
    transpose(b, (int64_t[]){ 0, 2, 1, 3 }, &back);
    name_in(name, sizeof name, block, "join");
    mo_value_id join = mo_build_ints(b, name, (int64_t[]){ 0, t, d }, 3);
    mo_build_node(b, "Reshape", NULL, (mo_value_id[]){ b->x, join }, 2, &tokens);
    name_in(name, sizeof name, block, "out");
    mo_build_linear(b, name, d, true);
}

static void block(struct mo_build *b, int number)
{
    char prefix[32], name[64];
    snprintf(prefix, sizeof prefix, "block%d", number);
    mo_value_id x = b->x;
    struct mo_shape shape = b->shape;
    name_in(name, sizeof name, prefix, "norm1");
    mo_build_layer_norm(b, name);
    attention(b, prefix);
    mo_build_add(b, x, &shape);
    x = b->x;
    name_in(name, sizeof name, prefix, "norm2");
    mo_build_layer_norm(b, name);
    name_in(name, sizeof name, prefix, "fc1");
    mo_build_linear(b, name, mo_build_wide(b, shape.dim[1] * WIDER, 1), true);
    mo_build_gelu(b);
    name_in(name, sizeof name, prefix, "fc2");
    mo_build_linear(b, name, shape.dim[1], true);
    mo_build_add(b, x, &shape);
}

void mo_create_transformer(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes)
{
    (void)spec;
    if (!mo_build_wants_rank(b, 2, "transformer"))
        return;
    if (b->shape.dim[1] % HEADS) {
        b->status = mo_fail(b->ctx, MOPT_USAGE, "a transformer needs features that its %d heads can share; %lld they "
                            "cannot", HEADS, (long long)b->shape.dim[1]);
        return;
    }
    mo_value_id positions = mo_build_param(b, "embedding", "positions", &b->shape);
    mo_build_node(b, "Add", "positions", (mo_value_id[]){ b->x, positions }, 2, &b->shape);
    for (int i = 1; i <= BLOCKS; i++)
        block(b, i);
    mo_build_layer_norm(b, "norm");
    struct mo_shape mean = mo_shape_of(1, b->shape.dim[1]);
    mo_node_id n = mo_build_node(b, "ReduceMean", "mean", &b->x, 1, &mean);
    if (n != MO_NONE && (!mo_node_set_ints(b->g, n, "axes", (int64_t[]){ 1 }, 1) ||
                         !mo_node_set_int(b->g, n, "keepdims", 0)))
        b->status = mo_no_memory(b->ctx, 16, "a mean");
    mo_build_linear(b, "head", classes, true);
}
