/* create_build.c - layers, one function each. A layer checks that it fits what stands before it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/passes/create.h"

/* ---- parts --------------------------------------------------------------------------- */

static void no_memory(struct mo_build *b, const char *what)
{
    b->status = mo_no_memory(b->ctx, 0, what);
}

static void refuse(struct mo_build *b, const char *layer, const char *what)
{
    char text[128];
    b->status = mo_fail(b->ctx, MOPT_USAGE, "layer '%s' on %s: %s", layer,
                        mo_shape_text(&b->shape, text, sizeof text), what);
}

int64_t mo_build_wide(const struct mo_build *b, int64_t n, int64_t unit)
{
    int64_t wide = (int64_t)floor((double)n * b->width / (double)unit + 0.5) * unit;
    return MO_MAX(wide, unit);
}

bool mo_build_wants_rank(struct mo_build *b, int rank, const char *what)
{
    if (b->status)
        return false;
    if (b->shape.rank == rank)
        return true;
    refuse(b, what, rank == 3 ? "it needs channels x height x width" : rank == 1 ? "it needs a vector"
                                                                                  : "it needs tokens x features");
    return false;
}

mo_value_id mo_build_param(struct mo_build *b, const char *layer, const char *part, const struct mo_shape *shape)
{
    if (b->status)
        return MO_NONE;
    char name[200];
    snprintf(name, sizeof name, "%.120s.%s", layer, part);
    size_t bytes = mo_dtype_bytes(MO_F32, mo_shape_elems(shape));
    if (bytes == SIZE_MAX || (b->ctx->max_memory_bytes && bytes > b->ctx->max_memory_bytes)) {
        char text[128];
        b->status = mo_fail(b->ctx, MOPT_LIMIT, "parameter '%s' of %s is more than memory holds", name,
                            mo_shape_text(shape, text, sizeof text));
        return MO_NONE;
    }
    mo_value_id id = mo_graph_add_const(b->g, name, MO_F32, shape, NULL);
    if (id == MO_NONE)
        no_memory(b, name);
    return id;
}

mo_value_id mo_build_scalar(struct mo_build *b, const char *name, float value)
{
    if (b->status)
        return MO_NONE;
    struct mo_shape scalar = { .rank = 0 };
    mo_value_id id = mo_graph_add_const(b->g, name, MO_F32, &scalar, &value);
    if (id == MO_NONE)
        no_memory(b, name);
    return id;
}

mo_value_id mo_build_ints(struct mo_build *b, const char *name, const int64_t *values, int n)
{
    if (b->status)
        return MO_NONE;
    struct mo_shape shape = mo_shape_of(1, (int64_t)n);
    mo_value_id id = mo_graph_add_const(b->g, name, MO_I64, &shape, values);
    if (id == MO_NONE)
        no_memory(b, name);
    return id;
}

/* Nodes of that type so far, for names. */
static int count_type(const struct mo_build *b, const char *type)
{
    int n = 0;
    for (mo_node_id i = 0; i < b->g->n_nodes; i++)
        n += !strcmp(b->g->nodes[i].type, type);
    return n;
}

/* The name as given, or type and number in small letters. */
static const char *name_of(const struct mo_build *b, const char *type, const char *name, char *buf, size_t n)
{
    if (name)
        return name;
    snprintf(buf, n, "%s%d", type, count_type(b, type) + 1);
    for (char *c = buf; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
    return buf;
}

mo_node_id mo_build_node(struct mo_build *b, const char *type, const char *name, const mo_value_id *in, uint32_t n_in,
                         const struct mo_shape *shape)
{
    char buf[64], value[200];
    if (b->status)
        return MO_NONE;
    name = name_of(b, type, name, buf, sizeof buf);
    snprintf(value, sizeof value, "%.150s_out", name);
    struct mo_shape with_batch = { .rank = shape->rank + 1, .dim[0] = MO_UNKNOWN };
    for (int i = 0; i < shape->rank; i++)
        with_batch.dim[i + 1] = shape->dim[i];
    mo_value_id y = mo_graph_add_value(b->g, value, MO_F32, &with_batch);
    mo_node_id id = y == MO_NONE ? MO_NONE : mo_graph_add_node(b->g, type, NULL, name, in, n_in, &y, 1);
    if (id == MO_NONE) {
        no_memory(b, name);
        return MO_NONE;
    }
    b->x = y;
    b->shape = *shape;
    return id;
}

static void set_ints(struct mo_build *b, mo_node_id n, const char *name, const int64_t *values, size_t count)
{
    if (n != MO_NONE && !mo_node_set_ints(b->g, n, name, values, count))
        no_memory(b, name);
}

static void set_int(struct mo_build *b, mo_node_id n, const char *name, int64_t value)
{
    if (n != MO_NONE && !mo_node_set_int(b->g, n, name, value))
        no_memory(b, name);
}

static void set_float(struct mo_build *b, mo_node_id n, const char *name, float value)
{
    if (n != MO_NONE && !mo_node_set_float(b->g, n, name, value))
        no_memory(b, name);
}

/* ---- layers ---------------------------------------------------------------------------- */

/* Size after a window of k with stride s and padding p on both sides; 0 when it does not fit. */
static int64_t windows(int64_t size, int64_t k, int64_t s, int64_t p)
{
    return size + 2 * p < k ? 0 : (size + 2 * p - k) / s + 1;
}

/* Output height and width into *shape; false: said why not. */
static bool slide(struct mo_build *b, const char *layer, const int64_t *kernel, const int64_t *stride,
                  const int64_t *pad, struct mo_shape *shape)
{
    *shape = b->shape;
    for (int i = 0; i < 2; i++) {
        enum { LARGEST = 1 << 20 };
        bool ok = kernel[i] > 0 && kernel[i] < LARGEST && stride[i] > 0 && pad[i] >= 0 && pad[i] < kernel[i];
        shape->dim[i + 1] = ok ? windows(b->shape.dim[i + 1], kernel[i], stride[i], pad[i]) : 0;
        if (shape->dim[i + 1] > 0)
            continue;
        refuse(b, layer, ok ? "the window is larger than the picture" : "kernel, stride or padding make no sense");
        return false;
    }
    return true;
}

static void set_window(struct mo_build *b, mo_node_id n, const int64_t *kernel, const int64_t *stride,
                       const int64_t *pad)
{
    set_ints(b, n, "kernel_shape", kernel, 2);
    set_ints(b, n, "strides", stride, 2);
    set_ints(b, n, "pads", (int64_t[]){ pad[0], pad[1], pad[0], pad[1] }, 4);
}

void mo_build_conv(struct mo_build *b, const char *name, int64_t out, const int64_t *kernel, const int64_t *stride,
                   const int64_t *pad, int64_t group, bool bias)
{
    char buf[64];
    struct mo_shape shape;
    name = name_of(b, "Conv", name, buf, sizeof buf);
    if (!mo_build_wants_rank(b, 3, name) || !slide(b, name, kernel, stride, pad, &shape))
        return;
    int64_t in = b->shape.dim[0];
    if (out <= 0 || group <= 0 || in % group || out % group) {
        refuse(b, name, "the groups do not divide the channels");
        return;
    }
    shape.dim[0] = out;
    struct mo_shape weight = mo_shape_of(4, out, in / group, kernel[0], kernel[1]), vector = mo_shape_of(1, out);
    mo_value_id x[3] = { b->x, mo_build_param(b, name, "weight", &weight), MO_NONE };
    if (bias)
        x[2] = mo_build_param(b, name, "bias", &vector);
    mo_node_id n = mo_build_node(b, "Conv", name, x, bias ? 3 : 2, &shape);
    set_window(b, n, kernel, stride, pad);
    set_int(b, n, "group", group);
    set_ints(b, n, "dilations", (int64_t[]){ 1, 1 }, 2);
}

void mo_build_conv_same(struct mo_build *b, const char *name, int64_t out, int64_t kernel, int64_t stride, bool bias)
{
    int64_t k[2] = { kernel, kernel }, s[2] = { stride, stride }, p[2] = { kernel / 2, kernel / 2 };
    mo_build_conv(b, name, out, k, s, p, 1, bias);
}

/* Gemm for vectors; MatMul and Add for tokens. */
void mo_build_linear(struct mo_build *b, const char *name, int64_t out, bool bias)
{
    char buf[64];
    name = name_of(b, b->shape.rank == 1 ? "Gemm" : "MatMul", name, buf, sizeof buf);
    if (b->status)
        return;
    if (out <= 0 || b->shape.rank < 1 || b->shape.rank > 2) {
        refuse(b, name, out <= 0 ? "it has no outputs" : "it needs a vector, or tokens x features; put a flatten before it");
        return;
    }
    int64_t in = b->shape.dim[b->shape.rank - 1];
    struct mo_shape shape = b->shape, vector = mo_shape_of(1, out);
    bool is_vector = shape.rank == 1;
    struct mo_shape weight = is_vector ? mo_shape_of(2, out, in) : mo_shape_of(2, in, out);
    shape.dim[shape.rank - 1] = out;
    mo_value_id x[3] = { b->x, mo_build_param(b, name, "weight", &weight), MO_NONE };
    if (bias)
        x[2] = mo_build_param(b, name, "bias", &vector);
    if (is_vector) {
        mo_node_id n = mo_build_node(b, "Gemm", name, x, bias ? 3 : 2, &shape);
        set_int(b, n, "transB", 1);
        return;
    }
    mo_build_node(b, "MatMul", name, x, 2, &shape);
    char add[160];
    snprintf(add, sizeof add, "%.140s.add", name);
    if (bias)
        mo_build_node(b, "Add", add, (mo_value_id[]){ b->x, x[2] }, 2, &shape);
}

void mo_build_batch_norm(struct mo_build *b, const char *name)
{
    char buf[64];
    name = name_of(b, "BatchNormalization", name, buf, sizeof buf);
    if (b->status)
        return;
    struct mo_shape vector = mo_shape_of(1, b->shape.dim[0]);
    mo_value_id x[5] = { b->x, mo_build_param(b, name, "weight", &vector), mo_build_param(b, name, "bias", &vector),
                         mo_build_param(b, name, "running_mean", &vector),
                         mo_build_param(b, name, "running_var", &vector) };
    set_float(b, mo_build_node(b, "BatchNormalization", name, x, 5, &b->shape), "epsilon", 1e-5f);
}

void mo_build_layer_norm(struct mo_build *b, const char *name)
{
    char buf[64];
    name = name_of(b, "LayerNormalization", name, buf, sizeof buf);
    if (b->status)
        return;
    struct mo_shape vector = mo_shape_of(1, b->shape.dim[b->shape.rank - 1]);
    mo_value_id x[3] = { b->x, mo_build_param(b, name, "weight", &vector), mo_build_param(b, name, "bias", &vector) };
    mo_node_id n = mo_build_node(b, "LayerNormalization", name, x, 3, &b->shape);
    set_int(b, n, "axis", -1);
    set_float(b, n, "epsilon", 1e-5f);
}

void mo_build_pool(struct mo_build *b, const char *type, const int64_t *kernel, const int64_t *stride,
                   const int64_t *pad)
{
    struct mo_shape shape;
    if (!mo_build_wants_rank(b, 3, type) || !slide(b, type, kernel, stride, pad, &shape))
        return;
    set_window(b, mo_build_node(b, type, NULL, &b->x, 1, &shape), kernel, stride, pad);
}

void mo_build_global_pool(struct mo_build *b)
{
    if (!mo_build_wants_rank(b, 3, "global-pool"))
        return;
    struct mo_shape shape = mo_shape_of(3, b->shape.dim[0], (int64_t)1, (int64_t)1);
    mo_build_node(b, "GlobalAveragePool", NULL, &b->x, 1, &shape);
}

void mo_build_flatten(struct mo_build *b)
{
    if (b->status || b->shape.rank == 1)
        return;
    struct mo_shape shape = mo_shape_of(1, mo_shape_elems(&b->shape));
    set_int(b, mo_build_node(b, "Flatten", NULL, &b->x, 1, &shape), "axis", 1);
}

void mo_build_unary(struct mo_build *b, const char *type)
{
    mo_build_node(b, type, NULL, &b->x, 1, &b->shape);
}

void mo_build_softmax(struct mo_build *b)
{
    set_int(b, mo_build_node(b, "Softmax", NULL, &b->x, 1, &b->shape), "axis", -1);
}

void mo_build_leaky_relu(struct mo_build *b, double slope)
{
    set_float(b, mo_build_node(b, "LeakyRelu", NULL, &b->x, 1, &b->shape), "alpha", (float)slope);
}

/* One constant for all uses. */
static mo_value_id shared_scalar(struct mo_build *b, const char *name, float value)
{
    mo_value_id id = b->status ? MO_NONE : mo_graph_find(b->g, name);
    return id != MO_NONE ? id : mo_build_scalar(b, name, value);
}

void mo_build_relu6(struct mo_build *b)
{
    mo_value_id x[3] = { b->x, shared_scalar(b, "zero", 0), shared_scalar(b, "six", 6) };
    mo_build_node(b, "Clip", NULL, x, 3, &b->shape);
}

/* gelu(x) = x (1 + erf(x / sqrt 2)) / 2 */
void mo_build_gelu(struct mo_build *b)
{
    mo_value_id x = b->x;
    struct mo_shape shape = b->shape;
    mo_build_node(b, "Div", NULL, (mo_value_id[]){ x, shared_scalar(b, "sqrt_two", sqrtf(2)) }, 2, &shape);
    mo_build_node(b, "Erf", NULL, &b->x, 1, &shape);
    mo_build_node(b, "Add", NULL, (mo_value_id[]){ b->x, shared_scalar(b, "one", 1) }, 2, &shape);
    mo_build_node(b, "Mul", NULL, (mo_value_id[]){ x, b->x }, 2, &shape);
    mo_build_node(b, "Mul", NULL, (mo_value_id[]){ b->x, shared_scalar(b, "half", 0.5f) }, 2, &shape);
}

void mo_build_dropout(struct mo_build *b, double rate)
{
    if (!b->status && !(rate >= 0 && rate < 1)) {
        refuse(b, "dropout", "the rate must be at least 0 and below 1");
        return;
    }
    char name[32];
    snprintf(name, sizeof name, "dropout%d.ratio", count_type(b, "Dropout") + 1);
    mo_value_id ratio = mo_build_scalar(b, name, (float)rate);
    mo_build_node(b, "Dropout", NULL, (mo_value_id[]){ b->x, ratio }, 2, &b->shape);
}

void mo_build_add(struct mo_build *b, mo_value_id other, const struct mo_shape *other_shape)
{
    char mine[96], theirs[96];
    if (b->status)
        return;
    if (!mo_shape_equal(&b->shape, other_shape)) {
        b->status = mo_fail(b->ctx, MOPT_USAGE, "a residual branch gives %s, the way around it %s",
                            mo_shape_text(&b->shape, mine, sizeof mine),
                            mo_shape_text(other_shape, theirs, sizeof theirs));
        return;
    }
    mo_build_node(b, "Add", NULL, (mo_value_id[]){ b->x, other }, 2, &b->shape);
}
