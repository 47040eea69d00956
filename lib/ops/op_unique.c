/* Unique: the different elements of x, or its different slices along `axis`, in rising order (slices as words are
 * ordered, texts by their bytes) or, with sorted 0, in the order in which they come. Also where each comes first, which of them each
 * element is, and how often they come. Not-a-number equals itself and comes last. */
#include <stdlib.h>
#include <string.h>

#include "lib/ops/text.h"

struct unique {
    bool has_axis, is_sorted;
    int axis;
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct unique *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape list = mo_shape_of(1, (int64_t)MO_UNKNOWN), y = x->shape, inverse = list;
    p->has_axis = mo_node_attr(n, "axis") != NULL;
    p->is_sorted = mo_node_int(n, "sorted", 1) != 0;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (p->has_axis && y.rank != MO_UNKNOWN) {
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 0), y.rank, &p->axis));
        inverse.dim[0] = y.dim[p->axis];
        y.dim[p->axis] = MO_UNKNOWN;
    } else if (!p->has_axis) {
        inverse.dim[0] = mo_shape_elems(&x->shape);
        y = list;
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    mo_set_out(g, n, 1, MO_I64, &list);
    mo_set_out(g, n, 2, MO_I64, &inverse);
    mo_set_out(g, n, 3, MO_I64, &list);
    return MOPT_OK;
}

/* ---- ordering ---- */

struct slices {
    const struct mo_texts *texts;
    enum mo_dtype dtype;
    size_t elem_bytes;
    int64_t n, length;          /* how many, and elements of each */
    const char *data;           /* one slice after the other */
    int64_t *order;             /* of them, sorted */
    int64_t *group, *first, *count, *place, n_groups;   /* of each slice; of each group; its place in the result */
};

static int compare_floats(double a, double b)
{
    bool a_is_nan = a != a, b_is_nan = b != b;
    if (a_is_nan || b_is_nan)
        return a_is_nan - b_is_nan;
    return (a > b) - (a < b);
}

static int compare_elements(const struct slices *s, const char *a, const char *b, int64_t i)
{
    if (s->dtype == MO_F32)
        return compare_floats((double)((const float *)(const void *)a)[i], (double)((const float *)(const void *)b)[i]);
    if (s->dtype == MO_F64)
        return compare_floats(((const double *)(const void *)a)[i], ((const double *)(const void *)b)[i]);
    int64_t x = mo_host_int(s->dtype, a, i), y = mo_host_int(s->dtype, b, i);
    const char *text_x = s->dtype == MO_STRING && x != y ? mo_texts_at(s->texts, x, NULL) : NULL;
    const char *text_y = text_x ? mo_texts_at(s->texts, y, NULL) : NULL;
    if (text_y)
        return strcmp(text_x, text_y);
    if (s->dtype == MO_U64)
        return ((uint64_t)x > (uint64_t)y) - ((uint64_t)x < (uint64_t)y);
    return (x > y) - (x < y);
}

static int compare_slices(const struct slices *s, int64_t a, int64_t b)
{
    size_t bytes = (size_t)s->length * s->elem_bytes;
    int order = 0;
    for (int64_t i = 0; !order && i < s->length; i++)
        order = compare_elements(s, s->data + (size_t)a * bytes, s->data + (size_t)b * bytes, i);
    return order;
}

static int by_slice(const void *a, const void *b, void *arg)
{
    const int64_t *x = a, *y = b;
    int order = compare_slices(arg, *x, *y);
    return order ? order : (*x > *y) - (*x < *y);
}

static int by_first(const void *a, const void *b, void *arg)
{
    const struct slices *s = arg;
    int64_t x = s->first[*(const int64_t *)a], y = s->first[*(const int64_t *)b];
    return (x > y) - (x < y);
}

static enum mopt_status find_groups(struct mopt_ctx *ctx, struct slices *s, bool is_sorted)
{
    int64_t **lists[] = { &s->order, &s->group, &s->first, &s->count, &s->place };
    for (size_t k = 0; k < MO_COUNT(lists); k++)
        if (!(*lists[k] = mo_mem_new((size_t)s->n + 1, sizeof(int64_t))))
            return mo_no_memory(ctx, (uint64_t)s->n * sizeof(int64_t), "elements to compare");
    for (int64_t i = 0; i < s->n; i++)
        s->order[i] = i;
    qsort_r(s->order, (size_t)s->n, sizeof *s->order, by_slice, s);
    for (int64_t i = 0; i < s->n; i++) {
        if (i == 0 || compare_slices(s, s->order[i - 1], s->order[i])) {
            s->first[s->n_groups] = s->order[i];        /* the lowest index of equal ones comes first */
            s->count[s->n_groups++] = 0;
        }
        s->group[s->order[i]] = s->n_groups - 1;
        s->count[s->n_groups - 1]++;
    }
    for (int64_t k = 0; k < s->n_groups; k++)
        s->order[k] = k;
    if (!is_sorted)
        qsort_r(s->order, (size_t)s->n_groups, sizeof *s->order, by_first, s);
    for (int64_t k = 0; k < s->n_groups; k++)
        s->place[s->order[k]] = k;
    return MOPT_OK;
}

/* ---- forward ---- */

/* between: slices of x, outer x n x inner, one after the other, or back. */
static void gather_slices(const struct slices *s, int64_t outer, const char *x, char *to)
{
    size_t inner = outer ? (size_t)(s->length / outer) * s->elem_bytes : 0;
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t o = 0; o < outer && inner; o++)
            memcpy(to + (size_t)(i * outer + o) * inner, x + (size_t)(o * s->n + i) * inner, inner);
}

static enum mopt_status give_values(struct mo_host *h, const struct slices *s, int64_t outer, const struct mo_shape *shape)
{
    size_t inner = outer ? (size_t)(s->length / outer) * s->elem_bytes : 0;
    char *y = mo_mem_new((size_t)(s->n_groups * s->length) + 1, s->elem_bytes);
    if (!y)
        return mo_no_memory(h->run->ctx, (uint64_t)(s->n_groups * s->length) * s->elem_bytes, "unique elements");
    for (int64_t k = 0; k < s->n_groups; k++)
        for (int64_t o = 0; o < outer && inner; o++)
            memcpy(y + (size_t)(o * s->n_groups + k) * inner,
                   s->data + (size_t)(s->first[s->order[k]] * outer + o) * inner, inner);
    enum mopt_status status = mo_host_make(h, 0, s->dtype, shape, y);
    mo_mem_free(y);
    return status;
}

static enum mopt_status give(struct mo_host *h, struct slices *s, int64_t outer, const struct mo_shape *shape)
{
    struct mo_shape list = mo_shape_of(1, s->n_groups), all = mo_shape_of(1, s->n);
    MO_TRY(give_values(h, s, outer, shape));
    for (int64_t i = 0; i < s->n; i++)
        s->group[i] = s->place[s->group[i]];
    MO_TRY(mo_host_make(h, 2, MO_I64, &all, s->group));
    for (int64_t k = 0; k < s->n_groups; k++)
        s->group[k] = s->first[s->order[k]];
    MO_TRY(mo_host_make(h, 1, MO_I64, &list, s->group));
    for (int64_t k = 0; k < s->n_groups; k++)
        s->group[k] = s->count[s->order[k]];
    return mo_host_make(h, 3, MO_I64, &list, s->group);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct unique *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    struct mo_shape y = p->has_axis ? x->shape : mo_shape_of(1, (int64_t)0);
    struct slices s = { .texts = r->options.texts, .dtype = x->dtype, .elem_bytes = mo_elem_bytes(x->dtype), .length = 1 };
    struct mo_host h;
    int64_t outer = p->has_axis ? mo_dims_product(&x->shape, 0, p->axis) : 1;
    s.n = p->has_axis ? x->shape.dim[p->axis] : mo_value_elems(x);
    if (p->has_axis)
        s.length = outer * mo_dims_product(&x->shape, p->axis + 1, x->shape.rank);
    enum mopt_status status = mo_host_open(&h, r, n);
    char *copy = mo_mem_new((size_t)(s.n * s.length) + 1, s.elem_bytes);
    if (!status && !copy)
        status = mo_no_memory(r->ctx, mo_value_bytes(x), "elements to compare");
    if (!status) {
        gather_slices(&s, outer, h.in[0], copy);
        s.data = copy;
        status = find_groups(r->ctx, &s, p->is_sorted);
    }
    if (!status) {
        y.dim[p->axis] = s.n_groups;
        status = give(&h, &s, outer, &y);
    }
    mo_mem_free(copy);
    mo_mem_free(s.order);
    mo_mem_free(s.group);
    mo_mem_free(s.first);
    mo_mem_free(s.count);
    mo_mem_free(s.place);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_unique = {
    .type = "Unique",
    .since_opset = 11,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 4,
    .flags = MO_OP_SHAPES_BY_RUN,
    .params_bytes = sizeof(struct unique),
    .infer = infer, .forward = forward,
    .macs = mo_macs_zero,
};
