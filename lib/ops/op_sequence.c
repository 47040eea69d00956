/* Sequences: SequenceConstruct, -Empty, -Insert, -Erase, -At, -Length, SplitToSequence, ConcatFromSequence. How long they
 * are and what they hold is known while running only. */
#include <string.h>

#include "lib/ops/sequence.h"

/* ---- making ---- */

static enum mopt_status infer_construct(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!mo_in(g, n, i))
            return mo_fail(ctx, MOPT_DATA, "input %u is left out", i);
        MO_TRY(mo_check_same_dtype(ctx, mo_in(g, n, 0), mo_in(g, n, i)));
    }
    mo_set_out_list(g, n, 0, MO_SEQUENCE, mo_in(g, n, 0)->dtype);
    return MOPT_OK;
}

/* Of any number of inputs; where the device is not the host each is copied from it. */
static enum mopt_status forward_construct(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h = { .run = r, .node = n };
    struct mo_item *items = mo_mem_new(n->n_in, sizeof *items);
    void **copies = mo_mem_new(n->n_in, sizeof *copies);
    enum mopt_status status = items && copies ? MOPT_OK : mo_no_memory(r->ctx, n->n_in * sizeof *items, "a sequence");
    for (uint32_t i = 0; !status && i < n->n_in; i++) {
        const struct mo_value *v = mo_in(r->graph, n, i);
        size_t bytes = mo_value_bytes(v);
        items[i] = (struct mo_item){ v->dtype, v->shape, mo_run_in(r, n, i) };
        if (r->be->is_host)
            continue;
        copies[i] = mo_mem_new(bytes + 1, 1);
        if (!copies[i])
            status = mo_no_memory(r->ctx, bytes, "a sequence");
        else
            r->be->download(r->dev, copies[i], items[i].data, bytes);
        items[i].data = copies[i];
    }
    if (!status)
        status = mo_sequence_put(&h, 0, MO_SEQUENCE, items, n->n_in);
    for (uint32_t i = 0; copies && i < n->n_in; i++)
        mo_mem_free(copies[i]);
    mo_mem_free(copies);
    mo_mem_free(items);
    return status;
}

const struct mo_op mo_op_sequence_construct = {
    .type = "SequenceConstruct",
    .since_opset = 11,
    .min_in = 1, .max_in = -1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_construct, .forward = forward_construct,
    .macs = mo_macs_zero,
};

static enum mopt_status infer_empty(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    int64_t dtype = mo_node_int(n, "dtype", MO_F32);
    if (dtype <= MO_UNDEFINED || dtype >= MO_N_DTYPES)
        return mo_fail(ctx, MOPT_DATA, "dtype is %lld, which is no type", (long long)dtype);
    /* a run computes half precision in float32 */
    mo_set_out_list(g, n, 0, MO_SEQUENCE, dtype == MO_F16 || dtype == MO_BF16 ? MO_F32 : (enum mo_dtype)dtype);
    return MOPT_OK;
}

static enum mopt_status forward_empty(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h = { .run = r, .node = n };
    return mo_sequence_put(&h, 0, MO_SEQUENCE, NULL, 0);
}

const struct mo_op mo_op_sequence_empty = {
    .type = "SequenceEmpty",
    .since_opset = 11,
    .min_in = 0, .max_in = 0, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_empty, .forward = forward_empty,
    .macs = mo_macs_zero,
};

/* ---- changing and reading ---- */

static enum mopt_status check_list(struct mopt_ctx *ctx, const struct mo_value *v)
{
    if (v->dtype == MO_SEQUENCE || v->dtype == MO_UNDEFINED)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "'%s' is %s, it should be a sequence", v->name, mo_dtype_name(v->dtype));
}

/* Insert, Erase. */
static enum mopt_status infer_change(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *list = mo_in(g, n, 0);
    enum mo_dtype element = list->element;
    MO_TRY(check_list(ctx, list));
    if (!strcmp(n->type, "SequenceInsert") && element == MO_UNDEFINED)
        element = mo_in(g, n, 1)->dtype;
    mo_set_out_list(g, n, 0, MO_SEQUENCE, element);
    return MOPT_OK;
}

/* The place that input i says, from the end where it is negative; `last`: where there is none. */
static enum mopt_status read_place(struct mo_host *h, uint32_t i, int64_t n_places, int64_t last, int64_t size, int64_t *at)
{
    const struct mo_value *v = mo_in(h->run->graph, h->node, i);
    *at = last;
    if (v && mo_value_elems(v) != 1)
        return mo_fail(h->run->ctx, MOPT_DATA, "its position should be one number");
    if (v)
        *at = mo_host_int(v->dtype, h->in[i], 0);
    int64_t given = *at;
    *at += *at < 0 ? size : 0;
    if (*at >= 0 && *at < n_places)
        return MOPT_OK;
    return mo_fail(h->run->ctx, MOPT_DATA, "position %lld of a sequence of %lld", (long long)given, (long long)size);
}

static enum mopt_status insert(struct mo_host *h, struct mo_item *items, int64_t n)
{
    const struct mo_value *x = mo_in(h->run->graph, h->node, 1);
    int64_t at;
    MO_TRY(read_place(h, 2, n + 1, n, n, &at));
    if (n && items[0].dtype != x->dtype)
        return mo_fail(h->run->ctx, MOPT_DATA, "a %s for a sequence of %s", mo_dtype_name(x->dtype),
                       mo_dtype_name(items[0].dtype));
    memmove(items + at + 1, items + at, (size_t)(n - at) * sizeof *items);
    items[at] = (struct mo_item){ x->dtype, x->shape, h->in[1] };
    return mo_sequence_put(h, 0, MO_SEQUENCE, items, n + 1);
}

static enum mopt_status erase(struct mo_host *h, struct mo_item *items, int64_t n)
{
    int64_t at;
    MO_TRY(read_place(h, 1, n, n - 1, n, &at));
    memmove(items + at, items + at + 1, (size_t)(n - at - 1) * sizeof *items);
    return mo_sequence_put(h, 0, MO_SEQUENCE, items, n - 1);
}

static enum mopt_status take_one(struct mo_host *h, struct mo_item *items, int64_t n)
{
    int64_t at;
    MO_TRY(read_place(h, 1, n, 0, n, &at));
    return mo_sequence_hand_out(h, 0, &items[at]);
}

typedef enum mopt_status list_fn(struct mo_host *h, struct mo_item *items, int64_t n);

/* The items of input 0, room for one more behind them. */
static enum mopt_status with_items(struct mo_run *r, const struct mo_node *n, list_fn *fn)
{
    struct mo_host h;
    struct mo_item *items = NULL;
    int64_t count = 0;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status)
        status = mo_sequence_take(&h, 0, &items, &count);
    if (!status)
        status = fn(&h, items, count);
    mo_mem_free(items);
    mo_host_close(&h);
    return status;
}

static enum mopt_status forward_insert(struct mo_run *r, const struct mo_node *n)
{
    return with_items(r, n, insert);
}

static enum mopt_status forward_erase(struct mo_run *r, const struct mo_node *n)
{
    return with_items(r, n, erase);
}

const struct mo_op mo_op_sequence_insert = {
    .type = "SequenceInsert",
    .since_opset = 11,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_change, .forward = forward_insert,
    .macs = mo_macs_zero,
};
const struct mo_op mo_op_sequence_erase = {
    .type = "SequenceErase",
    .since_opset = 11,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_change, .forward = forward_erase,
    .macs = mo_macs_zero,
};

static enum mopt_status infer_at(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(check_list(ctx, mo_in(g, n, 0)));
    mo_set_out_unknown(g, n, 0, mo_in(g, n, 0)->element);
    return MOPT_OK;
}

static enum mopt_status forward_at(struct mo_run *r, const struct mo_node *n)
{
    return with_items(r, n, take_one);
}

const struct mo_op mo_op_sequence_at = {
    .type = "SequenceAt",
    .since_opset = 11,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_at, .forward = forward_at,
    .macs = mo_macs_zero,
};

static enum mopt_status infer_length(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape scalar = mo_shape_of(0);
    MO_TRY(check_list(ctx, mo_in(g, n, 0)));
    mo_set_out(g, n, 0, MO_I64, &scalar);
    return MOPT_OK;
}

static enum mopt_status put_length(struct mo_host *h, struct mo_item *items, int64_t n)
{
    struct mo_shape scalar = mo_shape_of(0);
    (void)items;
    return mo_host_make(h, 0, MO_I64, &scalar, &n);
}

static enum mopt_status forward_length(struct mo_run *r, const struct mo_node *n)
{
    return with_items(r, n, put_length);
}

const struct mo_op mo_op_sequence_length = {
    .type = "SequenceLength",
    .since_opset = 11,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_length, .forward = forward_length,
    .macs = mo_macs_zero,
};

/* ---- SplitToSequence: pieces of x along `axis`, of sizes given by input 1 (one size for all, or one for each), or of
 * size 1, whose axis goes where keepdims is 0 ---- */

static enum mopt_status infer_split(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    int axis;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank != MO_UNKNOWN)
        MO_TRY(mo_axis(ctx, mo_node_int(n, "axis", 0), x->shape.rank, &axis));
    mo_set_out_list(g, n, 0, MO_SEQUENCE, x->dtype);
    return MOPT_OK;
}

struct pieces {
    struct mo_item *items;
    int64_t n;
    char *mem;                  /* the elements of all of them, one behind the other */
};

/* How long piece i is, of how many. */
static enum mopt_status piece_sizes(struct mo_host *h, int64_t dim, struct pieces *p)
{
    const struct mo_value *split = mo_in(h->run->graph, h->node, 1);
    bool is_list = split && split->shape.rank == 1;
    int64_t each = split && !is_list ? mo_host_int(split->dtype, h->in[1], 0) : 1, sum = 0;
    if (each < 1)
        return mo_fail(h->run->ctx, MOPT_DATA, "pieces of %lld", (long long)each);
    p->n = is_list ? split->shape.dim[0] : dim / each + (dim % each != 0);
    p->items = mo_mem_new((size_t)p->n + 1, sizeof *p->items);
    if (!p->items)
        return mo_no_memory(h->run->ctx, (size_t)p->n * sizeof *p->items, "pieces");
    for (int64_t i = 0; i < p->n; i++) {
        int64_t size = is_list ? mo_host_int(split->dtype, h->in[1], i) : MO_MIN(each, dim - i * each);
        if (size < 0 || size > dim - sum)
            return mo_fail(h->run->ctx, MOPT_DATA, "pieces that are longer than the axis of %lld", (long long)dim);
        p->items[i].shape.rank = 1;
        p->items[i].shape.dim[0] = size;
        sum += size;
    }
    return sum == dim ? MOPT_OK
                      : mo_fail(h->run->ctx, MOPT_DATA, "pieces of %lld together, of an axis of %lld", (long long)sum,
                                (long long)dim);
}

static enum mopt_status cut(struct mo_host *h, struct pieces *p)
{
    const struct mo_value *x = mo_in(h->run->graph, h->node, 0);
    int axis;
    MO_TRY(mo_axis(h->run->ctx, mo_node_int(h->node, "axis", 0), x->shape.rank, &axis));
    MO_TRY(piece_sizes(h, x->shape.dim[axis], p));
    bool drops = !mo_in(h->run->graph, h->node, 1) && !mo_node_int(h->node, "keepdims", 1);
    int64_t outer = mo_dims_product(&x->shape, 0, axis), dim = x->shape.dim[axis], from = 0;
    size_t inner = mo_elem_bytes(x->dtype) * (size_t)mo_dims_product(&x->shape, axis + 1, x->shape.rank);
    char *to = p->mem = mo_mem_new(mo_value_bytes(x) + 1, 1);
    if (!to)
        return mo_no_memory(h->run->ctx, mo_value_bytes(x), "pieces");
    for (int64_t i = 0; i < p->n; i++) {
        int64_t size = p->items[i].shape.dim[0];
        p->items[i] = (struct mo_item){ x->dtype, x->shape, to };
        p->items[i].shape.dim[axis] = size;
        for (int64_t o = 0; o < outer; o++, to += (size_t)size * inner)
            memcpy(to, (const char *)h->in[0] + (size_t)(o * dim + from) * inner, (size_t)size * inner);
        from += size;
        if (!drops)
            continue;
        memmove(&p->items[i].shape.dim[axis], &p->items[i].shape.dim[axis + 1],
                (size_t)(x->shape.rank - 1 - axis) * sizeof(int64_t));
        p->items[i].shape.rank--;
    }
    return mo_sequence_put(h, 0, MO_SEQUENCE, p->items, p->n);
}

static enum mopt_status forward_split(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    struct pieces p = { 0 };
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status)
        status = cut(&h, &p);
    mo_mem_free(p.items);
    mo_mem_free(p.mem);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_split_to_sequence = {
    .type = "SplitToSequence",
    .since_opset = 11,
    .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_split, .forward = forward_split,
    .macs = mo_macs_zero,
};

/* ---- ConcatFromSequence: all items one behind the other along `axis`, or, with new_axis 1, stacked along a new one ---- */

static enum mopt_status infer_concat(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(check_list(ctx, mo_in(g, n, 0)));
    if (!mo_node_attr(n, "axis"))
        return mo_fail(ctx, MOPT_DATA, "axis is missing");
    mo_set_out_unknown(g, n, 0, mo_in(g, n, 0)->element);
    return MOPT_OK;
}

/* The shape of the result, and the axis along which items of items[0]'s rank lie behind each other in it. */
static enum mopt_status size_up(struct mo_host *h, const struct mo_item *items, int64_t n, bool is_new, int *axis,
                                struct mo_shape *y)
{
    struct mopt_ctx *ctx = h->run->ctx;
    if (n == 0)
        return mo_fail(ctx, MOPT_DATA, "a sequence of nothing cannot be put together");
    *y = items[0].shape;
    if (is_new && y->rank == MO_MAX_RANK)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "items of rank %d", y->rank);
    MO_TRY(mo_axis(ctx, mo_node_int(h->node, "axis", 0), y->rank + is_new, axis));
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        struct mo_shape each = items[i].shape;
        sum += is_new ? 1 : each.rank == y->rank ? each.dim[*axis] : 0;
        if (!is_new && each.rank == y->rank)
            each.dim[*axis] = y->dim[*axis];
        if (items[i].dtype != items[0].dtype || !mo_shape_equal(&each, y))
            return mo_fail(ctx, MOPT_DATA, "item %lld of the sequence has another type or shape than the first",
                           (long long)i);
    }
    if (is_new) {
        memmove(&y->dim[*axis + 1], &y->dim[*axis], (size_t)(y->rank - *axis) * sizeof(int64_t));
        y->rank++;
    }
    y->dim[*axis] = sum;
    return MOPT_OK;
}

static enum mopt_status put_together(struct mo_host *h, struct mo_item *items, int64_t n)
{
    struct mo_shape y;
    int axis = 0;
    bool is_new = mo_node_int(h->node, "new_axis", 0) != 0;
    MO_TRY(size_up(h, items, n, is_new, &axis, &y));
    size_t unit = mo_elem_bytes(items[0].dtype), bytes = mo_dtype_bytes(items[0].dtype, mo_shape_elems(&y));
    MO_TRY(mo_check_movable(h->run->ctx, items[0].dtype));
    int64_t outer = mo_dims_product(&y, 0, axis);
    size_t inner = unit * (size_t)mo_dims_product(&y, axis + 1, y.rank), row = inner * (size_t)y.dim[axis], at = 0;
    char *to = bytes > SIZE_MAX / 2 ? NULL : mo_mem_new(bytes + 1, 1);
    if (!to)
        return mo_no_memory(h->run->ctx, bytes, "a sequence put together");
    for (int64_t i = 0; i < n; i++) {
        size_t part = inner * (size_t)(is_new ? 1 : items[i].shape.dim[axis]);
        for (int64_t o = 0; part && o < outer; o++)
            memcpy(to + (size_t)o * row + at, (const char *)items[i].data + (size_t)o * part, part);
        at += part;
    }
    enum mopt_status status = mo_host_make(h, 0, items[0].dtype, &y, to);
    mo_mem_free(to);
    return status;
}

static enum mopt_status forward_concat(struct mo_run *r, const struct mo_node *n)
{
    return with_items(r, n, put_together);
}

const struct mo_op mo_op_concat_from_sequence = {
    .type = "ConcatFromSequence",
    .since_opset = 11,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_concat, .forward = forward_concat,
    .macs = mo_macs_zero,
};
