/* onnx_write_tensor.c - tensors, shapes and value entries, backwards as onnx_out.h says. */
#include "formats/onnx_out.h"

#include <stdio.h>
#include <string.h>

enum { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_STRING = 6, TENSOR_NAME = 8, TENSOR_RAW = 9, TENSOR_DOC = 12,
       TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14 };
enum { INFO_NAME = 1, INFO_TYPE = 2, TYPE_TENSOR = 1, TENSOR_ELEM_TYPE = 1, TENSOR_SHAPE = 2, SHAPE_DIM = 1,
       DIM_VALUE = 1, DIM_PARAM = 2 };
enum { PAIR_KEY = 1, PAIR_VALUE = 2, LOCATION_EXTERNAL = 1 };

static void write_pair(struct mo_onnx_out *o, uint32_t field, const char *key, const char *value)
{
    uint64_t start = o->n_total;
    mo_out_text(o, PAIR_VALUE, value);
    mo_out_text(o, PAIR_KEY, key);
    mo_out_close(o, field, start);
}

static void write_external(struct mo_onnx_out *o, const struct mo_tensor_const *t, uint64_t offset)
{
    char text[32];
    mo_out_int(o, TENSOR_LOCATION, LOCATION_EXTERNAL);
    snprintf(text, sizeof text, "%zu", mo_dtype_bytes(t->dtype, mo_shape_elems(&t->shape)));
    write_pair(o, TENSOR_EXTERNAL, "length", text);
    snprintf(text, sizeof text, "%llu", (unsigned long long)offset);
    write_pair(o, TENSOR_EXTERNAL, "offset", text);
    write_pair(o, TENSOR_EXTERNAL, "location", o->external_name);
}

static void write_data(struct mo_onnx_out *o, const struct mo_tensor_const *t)
{
    int64_t n = mo_shape_elems(&t->shape);
    if (t->dtype != MO_STRING) {
        mo_out_ref(o, TENSOR_RAW, t->data, mo_dtype_bytes(t->dtype, n));
        return;
    }
    for (int64_t i = n; i-- > 0;)
        mo_out_text(o, TENSOR_STRING, t->strings[i]);
}

/* place_of: the value whose tensor this is, when it may lie outside; else NULL. */
void mo_onnx_write_tensor(struct mo_onnx_out *o, const struct mo_tensor_const *t, const char *doc,
                          const struct mo_value *place_of)
{
    mo_out_kept(o, t->kept);
    bool is_outside = place_of && o->n_places && o->places[o->n_places - 1].value == place_of;
    if (is_outside)
        write_external(o, t, o->places[--o->n_places].offset);
    mo_out_text(o, TENSOR_DOC, doc);
    if (!is_outside)
        write_data(o, t);
    if (t->name[0])
        mo_out_text(o, TENSOR_NAME, t->name);
    mo_out_int(o, TENSOR_TYPE, t->dtype);
    if (t->shape.rank <= 0)
        return;
    uint64_t start = o->n_total;
    for (int i = t->shape.rank; i-- > 0;)
        mo_out_varint(o, (uint64_t)t->shape.dim[i]);
    mo_out_close(o, TENSOR_DIMS, start);
}

void mo_onnx_write_initializer(struct mo_onnx_out *o, const struct mo_value *v)
{
    struct mo_tensor_const t = { .name = v->name, .dtype = v->dtype, .shape = v->shape, .data = v->data,
                                 .strings = v->strings, .kept = v->kept_tensor };
    mo_onnx_write_tensor(o, &t, v->string_data_doc, v);
}

void mo_onnx_write_shape(struct mo_onnx_out *o, const struct mo_shape *shape, const char **names,
                         const struct mo_kept *rest)
{
    for (int i = shape->rank; i-- > 0;) {
        uint64_t start = o->n_total;
        /* what is kept may hold a size of its own (a negative one): it counts while nothing better is known */
        bool is_known = shape->dim[i] >= 0 || (names && names[i]);
        if (rest && !is_known)
            mo_out_kept(o, rest[i]);
        if (shape->dim[i] >= 0)
            mo_out_int(o, DIM_VALUE, shape->dim[i]);
        else if (names && names[i])
            mo_out_text(o, DIM_PARAM, names[i]);
        if (rest && is_known)
            mo_out_kept(o, rest[i]);
        mo_out_close(o, SHAPE_DIM, start);
    }
}

void mo_onnx_write_info(struct mo_onnx_out *o, uint32_t field, const struct mo_value *v)
{
    const struct mo_shape *shape = v->has_declared ? &v->declared : &v->shape;
    uint64_t info = o->n_total;
    mo_out_kept(o, v->kept_info);
    if (!v->is_untyped && v->dtype != MO_UNDEFINED && v->dtype < MO_N_DTYPES) {
        static const struct mo_kept nothing[MO_KEPT_TYPES];
        const struct mo_kept *rest = v->kept_type ? v->kept_type : nothing;
        uint64_t type = o->n_total;
        mo_out_kept(o, rest[MO_KEPT_TYPE]);
        uint64_t tensor = o->n_total;
        mo_out_kept(o, rest[MO_KEPT_TENSOR_TYPE]);
        uint64_t dims = o->n_total;
        if (shape->rank >= 0) {
            mo_out_kept(o, rest[MO_KEPT_SHAPE]);
            mo_onnx_write_shape(o, shape, v->dim_names, v->kept_dims);
            mo_out_close(o, TENSOR_SHAPE, dims);
        }
        mo_out_int(o, TENSOR_ELEM_TYPE, v->dtype);
        mo_out_close(o, TYPE_TENSOR, tensor);
        mo_out_close(o, INFO_TYPE, type);
    }
    mo_out_text(o, INFO_NAME, v->name);
    mo_out_close(o, field, info);
}
