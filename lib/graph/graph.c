/* Reading a graph: attributes, operands, constants as numbers. */
#include "lib/graph/graph.h"

#include <stdio.h>
#include <string.h>

mo_value_id mo_graph_find(const struct mo_graph *g, const char *value_name)
{
    for (mo_value_id i = 0; i < g->n_values; i++)
        if (!strcmp(g->values[i].name, value_name))
            return i;
    return MO_NONE;
}

const struct mo_attr *mo_node_attr(const struct mo_node *n, const char *name)
{
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (!strcmp(n->attrs[i].name, name))
            return &n->attrs[i];
    return NULL;
}

int64_t mo_node_int(const struct mo_node *n, const char *name, int64_t otherwise)
{
    const struct mo_attr *a = mo_node_attr(n, name);
    return a && a->kind == MO_ATTR_INT ? a->i : otherwise;
}

float mo_node_float(const struct mo_node *n, const char *name, float otherwise)
{
    const struct mo_attr *a = mo_node_attr(n, name);
    return a && a->kind == MO_ATTR_FLOAT ? a->f : otherwise;
}

const char *mo_node_text(const struct mo_node *n, const char *name, const char *otherwise)
{
    const struct mo_attr *a = mo_node_attr(n, name);
    return a && a->kind == MO_ATTR_STRING ? a->s : otherwise;
}

const int64_t *mo_node_ints(const struct mo_node *n, const char *name, size_t *n_ints)
{
    const struct mo_attr *a = mo_node_attr(n, name);
    bool found = a && a->kind == MO_ATTR_INTS;
    *n_ints = found ? a->n : 0;
    return found ? a->ints : NULL;
}

bool mo_node_is(const struct mo_node *n, const char *type)
{
    return (!n->domain[0] || !strcmp(n->domain, "ai.onnx")) && !strcmp(n->type, type);
}

struct mo_value *mo_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i)
{
    return i < n->n_in && n->in[i] != MO_NONE ? &g->values[n->in[i]] : NULL;
}

struct mo_value *mo_out(const struct mo_graph *g, const struct mo_node *n, uint32_t i)
{
    return i < n->n_out && n->out[i] != MO_NONE ? &g->values[n->out[i]] : NULL;
}

int64_t mo_value_elems(const struct mo_value *v)
{
    return mo_shape_elems(&v->shape);
}

/* 0 where the shape is not known; constant strings count by their characters. */
size_t mo_value_bytes(const struct mo_value *v)
{
    int64_t n = mo_value_elems(v);
    if (n < 0)
        return 0;
    if (v->dtype != MO_STRING || !v->strings)
        return mo_dtype_bytes(v->dtype, n);
    size_t bytes = 0;
    for (int64_t i = 0; i < n; i++)
        bytes += strlen(v->strings[i]);
    return bytes;
}

/* Element i of packed 4- or 2-bit integers; the first element lies in the lowest bits. */
static int64_t small_int(const uint8_t *data, enum mo_dtype dtype, int64_t i)
{
    int bits = mo_dtype_bits(dtype), per_byte = 8 / bits;
    int x = data[i / per_byte] >> (int)(i % per_byte) * bits & ((1 << bits) - 1);
    bool is_signed = dtype == MO_I4 || dtype == MO_I2;
    return is_signed && x >> (bits - 1) ? x - (1 << bits) : x;
}

/* Element i as an integer; false when the type is not one. Data is aligned for its type
 * (mapped data that is not gets copied when it is read). */
static bool int_at(const void *data, enum mo_dtype dtype, int64_t i, int64_t *x)
{
    switch (dtype) {
    case MO_U8: case MO_BOOL: *x = ((const uint8_t *)data)[i]; return true;
    case MO_I8:  *x = ((const int8_t *)data)[i]; return true;
    case MO_U16: *x = ((const uint16_t *)data)[i]; return true;
    case MO_I16: *x = ((const int16_t *)data)[i]; return true;
    case MO_U32: *x = ((const uint32_t *)data)[i]; return true;
    case MO_I32: *x = ((const int32_t *)data)[i]; return true;
    case MO_I64: *x = ((const int64_t *)data)[i]; return true;
    case MO_U64:
        *x = (int64_t)((const uint64_t *)data)[i];
        return *x >= 0;
    case MO_U4: case MO_I4: case MO_U2: case MO_I2:
        *x = small_int(data, dtype, i);
        return true;
    default: return false;
    }
}

int mo_value_ints(const struct mo_value *v, int64_t *out, int max)
{
    int64_t n = mo_value_elems(v);
    if (n < 0 || n > max || (!v->data && !v->known))
        return -1;
    for (int64_t i = 0; i < n; i++) {
        if (v->data) {
            if (!int_at(v->data, v->dtype, i, &out[i]))
                return -1;
        } else if ((out[i] = v->known[i]) == MO_VALUE_UNKNOWN) {
            return -1;
        }
    }
    return (int)n;
}

/* Element i of a float type as double; false when it is not one. */
static bool float_at(const void *data, enum mo_dtype dtype, int64_t i, double *x)
{
    switch (dtype) {
    case MO_F32: *x = ((const float *)data)[i]; return true;
    case MO_F64: *x = ((const double *)data)[i]; return true;
    case MO_F16: *x = mo_f16_to_f32(((const uint16_t *)data)[i]); return true;
    case MO_BF16: *x = mo_bf16_to_f32(((const uint16_t *)data)[i]); return true;
    default: return false;
    }
}

bool mo_value_scalar(const struct mo_value *v, double *x)
{
    if (!v->data || mo_value_elems(v) != 1)
        return false;
    int64_t i;
    if (float_at(v->data, v->dtype, 0, x))
        return true;
    if (!int_at(v->data, v->dtype, 0, &i))
        return false;
    *x = (double)i;
    return true;
}

float *mo_value_floats(const struct mo_value *v)
{
    int64_t n = mo_value_elems(v);
    if (!v->data || n < 0 || !mo_dtype_is_float(v->dtype))
        return NULL;
    float *out = mo_mem_new((size_t)MO_MAX(n, 1), sizeof *out);
    if (!out)
        return NULL;
    if (v->dtype == MO_F32) {
        memcpy(out, v->data, (size_t)n * sizeof *out);
        return out;
    }
    for (int64_t i = 0; i < n; i++) {
        double x = 0;
        float_at(v->data, v->dtype, i, &x);
        out[i] = (float)x;
    }
    return out;
}

const char *mo_node_label(const struct mo_graph *g, const struct mo_node *n, char *buf, size_t buf_bytes)
{
    const char *dot = n->domain[0] ? "." : "";
    if (n->name[0])
        snprintf(buf, buf_bytes, "node '%s' (%s%s%s)", n->name, n->domain, dot, n->type);
    else
        snprintf(buf, buf_bytes, "node %td (%s%s%s)", n - g->nodes, n->domain, dot, n->type);
    return buf;
}

uint32_t mo_value_users(const struct mo_graph *g, mo_value_id v, mo_node_id *out, uint32_t max)
{
    uint32_t n_users = 0;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->is_dead)
            continue;
        for (uint32_t k = 0; k < n->n_in + n->n_captures; k++) {
            mo_value_id id = k < n->n_in ? n->in[k] : n->captures[k - n->n_in];
            if (id != v)
                continue;
            if (n_users < max)
                out[n_users] = i;
            n_users++;
        }
    }
    return n_users;
}
