/* onnx_read_info.c - ValueInfoProto: the type and shape the file states for a value. */
#include "formats/onnx.h"

#include <string.h>

static bool is_plain(const MoOnnx__TypeProto *type)
{
    return type && type->value_case == MO_ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE && type->tensor_type->has_elem_type &&
           type->tensor_type->elem_type > MO_UNDEFINED && type->tensor_type->elem_type < MO_N_DTYPES &&
           (!type->tensor_type->shape || type->tensor_type->shape->n_dim <= MO_MAX_RANK);
}

/* One dimension: a size, a name, or unknown; what else it says is kept beside it. */
static enum mopt_status read_dim(struct mo_onnx_in *in, MoOnnx__TensorShapeProto__Dimension *dim, int64_t *size,
                                 const char **name,
                                 struct mo_kept *rest)
{
    *size = MO_UNKNOWN;
    if (dim->value_case == MO_ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM) {
        *name = dim->dim_param;
        dim->value_case = MO_ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE__NOT_SET;
    } else if (dim->value_case == MO_ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && dim->dim_value >= 0) {
        /* a negative size, as some exporters write for a free one, stays in the rest */
        *size = dim->dim_value;
        dim->value_case = MO_ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE__NOT_SET;
    }
    return mo_onnx_keep(in, &dim->base, rest);
}

static enum mopt_status read_shape(struct mo_onnx_in *in, MoOnnx__TensorShapeProto *p, struct mo_value *v)
{
    const char **names = mo_arena_new(in->arena, MO_MAX_RANK, sizeof *names);
    struct mo_kept *rest = mo_arena_new(in->arena, MO_MAX_RANK, sizeof *rest);
    if (!names || !rest)
        return mo_no_memory(in->ctx, p->n_dim * sizeof *rest, "a shape");
    /* where a constant's entry says something else, the constant is right */
    if (v->data && (size_t)v->shape.rank != p->n_dim)
        return MOPT_OK;
    struct mo_shape shape = { .rank = (int)p->n_dim };
    bool any_name = false, any_rest = false;
    for (size_t i = 0; i < p->n_dim; i++) {
        MO_TRY(read_dim(in, p->dim[i], &shape.dim[i], &names[i], &rest[i]));
        any_name |= names[i] != NULL;
        any_rest |= rest[i].n_bytes != 0;
    }
    v->dim_names = any_name ? names : NULL;
    v->kept_dims = any_rest ? rest : NULL;
    if (!v->data)
        v->shape = shape;
    return MOPT_OK;
}

/* What type, tensor and shape say besides what was read. */
static enum mopt_status keep_type(struct mo_onnx_in *in, MoOnnx__TypeProto *type, struct mo_value *v)
{
    MoOnnx__TypeProto__Tensor *tensor = type->tensor_type;
    struct mo_kept *rest = mo_arena_new(in->arena, MO_KEPT_TYPES, sizeof *rest);
    if (!rest)
        return mo_no_memory(in->ctx, sizeof *rest, "a type");
    if (tensor->shape) {
        tensor->shape->n_dim = 0;
        MO_TRY(mo_onnx_keep(in, &tensor->shape->base, &rest[MO_KEPT_SHAPE]));
    }
    tensor->has_elem_type = false;
    tensor->shape = NULL;
    MO_TRY(mo_onnx_keep(in, &tensor->base, &rest[MO_KEPT_TENSOR_TYPE]));
    type->value_case = MO_ONNX__TYPE_PROTO__VALUE__NOT_SET;
    MO_TRY(mo_onnx_keep(in, &type->base, &rest[MO_KEPT_TYPE]));
    if (rest[MO_KEPT_TYPE].n_bytes || rest[MO_KEPT_TENSOR_TYPE].n_bytes || rest[MO_KEPT_SHAPE].n_bytes)
        v->kept_type = rest;
    return MOPT_OK;
}

/* A sequence or optional: of what, too. Its entry is kept whole. */
static void read_list(const MoOnnx__TypeProto *type, struct mo_value *v)
{
    const MoOnnx__TypeProto *of = NULL;
    if (v->data)
        return;
    if (type->value_case == MO_ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE) {
        v->dtype = MO_SEQUENCE;
        of = type->sequence_type->elem_type;
    } else if (type->value_case == MO_ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE) {
        v->dtype = MO_OPTIONAL;
        of = type->optional_type->elem_type;
    }
    if (of && is_plain(of))
        v->element = (enum mo_dtype)of->tensor_type->elem_type;
    else if (of && of->value_case == MO_ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE)
        v->element = MO_SEQUENCE;
}

enum mopt_status mo_onnx_info(struct mo_onnx_in *in, MoOnnx__ValueInfoProto *info, struct mo_value *v)
{
    v->has_info = true;
    v->is_untyped = !is_plain(info->type);
    if (!v->is_untyped) {
        MoOnnx__TypeProto__Tensor *tensor = info->type->tensor_type;
        enum mo_dtype dtype = (enum mo_dtype)tensor->elem_type;
        if (v->data && v->dtype != dtype)
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "value '%s' is said to be %s, but its elements are %s", v->name,
                           mo_dtype_name(dtype), mo_dtype_name(v->dtype));
        v->dtype = dtype;
        if (tensor->shape)
            MO_TRY(read_shape(in, tensor->shape, v));
        MO_TRY(keep_type(in, info->type, v));
        info->type = NULL;
    }
    if (v->is_untyped && info->type)
        read_list(info->type, v);
    info->name = NULL;
    return mo_onnx_keep(in, &info->base, &v->kept_info);
}
