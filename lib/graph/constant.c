/* constant.c - Constant nodes say their elements in an attribute; everything else finds them in the value. */
#include "lib/graph/graph.h"

static bool set_constant(struct mo_arena *arena, struct mo_value *v, const struct mo_attr *a)
{
    v->shape = (struct mo_shape){ .rank = 0 };
    switch (a->kind) {
    case MO_ATTR_TENSOR:
        v->dtype = a->tensors[0].dtype;
        v->shape = a->tensors[0].shape;
        v->data = (void *)a->tensors[0].data;
        v->strings = a->tensors[0].strings;
        break;
    case MO_ATTR_FLOAT:
        v->dtype = MO_F32;
        v->data = mo_arena_bytes(arena, &a->f, sizeof a->f);
        break;
    case MO_ATTR_INT:
        v->dtype = MO_I64;
        v->data = mo_arena_bytes(arena, &a->i, sizeof a->i);
        break;
    case MO_ATTR_STRING:
        v->dtype = MO_STRING;
        v->strings = mo_arena_new(arena, 1, sizeof *v->strings);
        if (v->strings)
            v->strings[0] = a->s;
        v->data = (void *)v->strings;
        break;
    default:
        v->shape = mo_shape_of(1, (int64_t)a->n);
        v->dtype = a->kind == MO_ATTR_FLOATS ? MO_F32 : a->kind == MO_ATTR_INTS ? MO_I64 : MO_STRING;
        v->strings = a->kind == MO_ATTR_STRINGS ? a->strings : NULL;
        v->data = a->kind == MO_ATTR_FLOATS ? (void *)a->floats
                  : a->kind == MO_ATTR_INTS ? (void *)a->ints : (void *)a->strings;
        if (!a->n && a->kind != MO_ATTR_STRINGS)
            v->data = (void *)"";
        break;
    }
    return v->data;
}

bool mo_node_take_constant(struct mo_graph *g, struct mo_node *n)
{
    static const struct { const char *name; enum mo_attr_kind kind; } forms[] = {
        { "value", MO_ATTR_TENSOR }, { "value_float", MO_ATTR_FLOAT }, { "value_floats", MO_ATTR_FLOATS },
        { "value_int", MO_ATTR_INT }, { "value_ints", MO_ATTR_INTS }, { "value_string", MO_ATTR_STRING },
        { "value_strings", MO_ATTR_STRINGS },
    };
    if (!mo_node_is(n, "Constant") || n->n_out != 1 || n->out[0] == MO_NONE)
        return true;
    for (size_t i = 0; i < MO_COUNT(forms); i++) {
        struct mo_attr *a = (struct mo_attr *)mo_node_attr(n, forms[i].name);
        if (!a || a->kind != forms[i].kind)
            continue;
        a->is_value_data = true;
        return set_constant(g->arena, &g->values[n->out[0]], a);
    }
    return true;
}
