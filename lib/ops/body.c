/* body.c - see body.h. */
#include "lib/ops/body.h"

#include <string.h>

#include "lib/ops/sequence.h"

static mo_value_id outer_value(const struct mo_body *b, const char *name)
{
    const struct mo_graph *g = b->outer->graph;
    for (uint32_t k = 0; k < b->node->n_captures; k++)
        if (!strcmp(g->values[b->node->captures[k]].name, name))
            return b->node->captures[k];
    return MO_NONE;
}

static enum mopt_status open_captures(struct mo_body *b)
{
    struct mopt_ctx *ctx = b->outer->ctx;
    for (mo_value_id v = 0; v < b->graph.n_values; v++) {
        struct mo_value *inner = &b->graph.values[v];
        if (!inner->is_captured)
            continue;
        mo_value_id from = outer_value(b, inner->name);
        if (from == MO_NONE)
            return mo_fail(ctx, MOPT_DATA, "its graph reads '%s', which is not there", inner->name);
        const struct mo_value *outer = &b->outer->graph->values[from];
        inner->is_captured = false;
        inner->data = outer->data;      /* a constant is one inside too; it is borrowed */
        inner->strings = outer->strings;
        inner->owner = MO_DATA_BORROWED;
        inner->dtype = outer->dtype;
        inner->element = outer->element;
        inner->shape = outer->shape;
        if (!outer->data && !mo_graph_add_input(&b->graph, v))
            return mo_no_memory(ctx, sizeof *inner, "a body");
    }
    return MOPT_OK;
}

/* Input i of a body is input i of the node (Loop, Scan). What the body says of types and shapes may be missing, and
 * shapes need not hold in every turn. */
static void open_formals(struct mo_body *b)
{
    for (uint32_t i = 0; i < b->n_formal; i++) {
        struct mo_value *inner = &b->graph.values[b->graph.inputs[i]];
        const struct mo_value *outer = mo_in(b->outer->graph, b->node, b->first + i);
        if (i < MO_COUNT(b->is_list))
            b->is_list[i] = inner->shape.rank == 1;
        bool is_list = outer && outer->dtype == MO_SEQUENCE;
        bool stays_optional = is_list && inner->dtype == MO_OPTIONAL;
        if (is_list && mo_node_is(b->node, "SequenceMap")) {        /* the body takes an item at a time */
            inner->dtype = outer->element != MO_UNDEFINED ? outer->element : inner->dtype;
        } else if (outer && !stays_optional) {
            inner->dtype = outer->dtype;
            inner->element = outer->element;
        }
        inner->shape.rank = MO_UNKNOWN;
    }
}

void mo_body_close(struct mo_body *b)
{
    mo_run_free(b->run);
    mo_graph_release(&b->graph);
    mo_arena_release(&b->arena);
}

enum mopt_status mo_body_open(struct mo_body *b, struct mo_run *r, const struct mo_node *n, const char *attr)
{
    const struct mo_attr *a = mo_node_attr(n, attr);
    struct mo_run_options options = r->options;
    *b = (struct mo_body){ .outer = r, .node = n, .first = mo_node_is(n, "Scan") && r->graph->opset < 9 };
    if (!r->be->is_host)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "%s on the device '%s', the CPU would do", n->type, r->be->name);
    if (!a || a->kind != MO_ATTR_GRAPH || !a->graphs)
        return mo_fail(r->ctx, MOPT_DATA, "it has no graph '%s'", attr);
    b->graph.arena = &b->arena;
    enum mopt_status status = mo_graph_copy(r->ctx, &b->graph, a->graphs[0], false);
    b->graph.parent = NULL;
    b->n_formal = b->graph.n_inputs;
    options.train = false;
    options.outputs = NULL;
    if (!status)
        status = open_captures(b);
    if (!status)
        open_formals(b);
    if (!status)
        status = mo_graph_index(r->ctx, &b->graph);
    if (!status)
        status = mo_run_new(r->ctx, &b->graph, &options, &b->run);
    if (status)
        mo_body_close(b);
    return status;
}

/* Inputs of a turn: the formal ones, then what is captured. */
static enum mopt_status gather(struct mo_body *b, const struct mo_feed *feeds, struct mo_feed *all, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (i < b->n_formal) {
            all[i] = feeds[i];
            continue;
        }
        mo_value_id from = outer_value(b, mo_run_input(b->run, i)->name);
        const struct mo_value *v = from == MO_NONE ? NULL : &b->outer->graph->values[from];
        if (!v)
            return mo_fail(b->outer->ctx, MOPT_FAILED, "'%s' is not there", mo_run_input(b->run, i)->name);
        all[i] = (struct mo_feed){ b->outer->tensors[from].data, v->dtype, v->shape };
    }
    return MOPT_OK;
}

/* A sequence where the body takes an optional one: *feed becomes that, in new memory. */
static enum mopt_status wrap(struct mo_body *b, struct mo_feed *feed, void **mem)
{
    const struct mo_item item = { feed->dtype, feed->shape, feed->data };
    size_t bytes = mo_sequence_bytes(&item, 1);
    *mem = bytes == SIZE_MAX ? NULL : mo_mem_new(bytes, 1);
    if (!*mem)
        return mo_no_memory(b->outer->ctx, bytes, "an optional");
    mo_sequence_write(&item, 1, *mem);
    *feed = (struct mo_feed){ *mem, MO_OPTIONAL, mo_shape_of(1, (int64_t)bytes) };
    return MOPT_OK;
}

static enum mopt_status set_input(struct mo_body *b, uint32_t i, const struct mo_feed *feed)
{
    const struct mo_value *v = mo_run_input(b->run, i);
    if (v->dtype != feed->dtype)
        return mo_fail(b->outer->ctx, MOPT_DATA, "'%s' is %s inside and %s outside", v->name, mo_dtype_name(v->dtype),
                       mo_dtype_name(feed->dtype));
    return mo_run_set_input(b->run, i, feed->data, mo_dtype_bytes(feed->dtype, mo_shape_elems(&feed->shape)));
}

enum mopt_status mo_body_turn(struct mo_body *b, const struct mo_feed *feeds)
{
    struct mopt_ctx *ctx = b->outer->ctx;
    uint32_t n = mo_run_n_inputs(b->run);
    struct mo_shape *shapes = mo_mem_new((size_t)n + 1, sizeof *shapes);
    struct mo_feed *all = mo_mem_new((size_t)n + 1, sizeof *all);
    void **mem = mo_mem_new((size_t)n + 1, sizeof *mem);
    enum mopt_status status = shapes && all && mem ? mo_stopped(ctx) : mo_no_memory(ctx, n * sizeof *shapes, "a body");
    if (!status)
        status = gather(b, feeds, all, n);
    for (uint32_t i = 0; !status && i < n; i++)
        if (mo_run_input(b->run, i)->dtype == MO_OPTIONAL && all[i].dtype != MO_OPTIONAL)
            status = wrap(b, &all[i], &mem[i]);
    for (uint32_t i = 0; !status && i < n; i++)
        shapes[i] = all[i].shape;
    if (!status)
        status = mo_run_shape(b->run, shapes, n);
    for (uint32_t i = 0; !status && i < n; i++)
        status = set_input(b, i, &all[i]);
    if (!status)
        status = mo_run_forward(b->run);
    for (uint32_t i = 0; mem && i < n; i++)
        mo_mem_free(mem[i]);
    mo_mem_free(mem);
    mo_mem_free(shapes);
    mo_mem_free(all);
    return status;
}

enum mopt_status mo_body_hand_out(struct mo_body *b, uint32_t k, uint32_t from)
{
    const struct mo_value *v = mo_run_output(b->run, from);
    if (k >= b->node->n_out || b->node->out[k] == MO_NONE)
        return MOPT_OK;
    void *to = mo_run_make_out(b->outer, b->node, k, v->dtype, &v->shape);
    if (!to)
        return b->outer->ctx->status;
    memcpy(to, mo_run_output_data(b->run, from), mo_value_bytes(v));
    return MOPT_OK;
}

enum mopt_status mo_body_infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const char *attr,
                                   uint32_t first)
{
    const struct mo_attr *a = mo_node_attr(n, attr);
    if (!a || a->kind != MO_ATTR_GRAPH || !a->graphs)
        return mo_fail(ctx, MOPT_DATA, "it has no graph '%s'", attr);
    const struct mo_graph *body = a->graphs[0];
    if (body->n_outputs < first + n->n_out)
        return mo_fail(ctx, MOPT_DATA, "its graph '%s' gives %u values, %u are wanted", attr, body->n_outputs,
                       first + n->n_out);
    for (uint32_t k = 0; k < n->n_out; k++) {
        const struct mo_value *v = &body->values[body->outputs[first + k]];
        if (mo_is_list(v->dtype))
            mo_set_out_list(g, n, k, v->dtype, v->element);
        else
            mo_set_out_unknown(g, n, k, v->dtype);
    }
    return MOPT_OK;
}

/* ---- values kept from turn to turn, and values collected ---- */

enum mopt_status mo_hold(struct mopt_ctx *ctx, struct mo_held *h, const void *data, enum mo_dtype dtype,
                             const struct mo_shape *shape)
{
    size_t bytes = mo_dtype_bytes(dtype, mo_shape_elems(shape));
    void *copy = bytes == SIZE_MAX ? NULL : mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
    if (!copy)
        return mo_no_memory(ctx, bytes, "a loop value");
    memcpy(copy, data, bytes);
    mo_mem_free(h->data);
    *h = (struct mo_held){ copy, bytes, dtype, *shape };
    return MOPT_OK;
}

enum mopt_status mo_body_give_held(struct mo_body *b, const struct mo_held *held, uint32_t n)
{
    struct mo_run *r = b->outer;
    for (uint32_t k = 0; k < n && k < b->node->n_out; k++) {
        if (b->node->out[k] == MO_NONE)
            continue;
        void *to = mo_run_make_out(r, b->node, k, held[k].dtype, &held[k].shape);
        if (!to)
            return r->ctx->status;
        memcpy(to, held[k].data, held[k].bytes);
    }
    return MOPT_OK;
}

/* One more of equal tensors, in a list. */
enum mopt_status mo_collect(struct mopt_ctx *ctx, struct mo_collected *c, const void *data, const struct mo_value *v)
{
    size_t bytes = mo_value_bytes(v), used = (size_t)c->count * bytes;
    if (c->count == 0) {
        c->of.dtype = v->dtype;
        c->of.shape = v->shape;
        c->of.bytes = bytes;
    } else if (!mo_shape_equal(&c->of.shape, &v->shape)) {
        return mo_fail(ctx, MOPT_DATA, "'%s' changes its shape from turn to turn", v->name);
    }
    if (used + bytes > c->room) {
        size_t room = MO_MAX(2 * c->room, MO_MAX(used + bytes, (size_t)256));
        if (ctx->max_memory_bytes && room > ctx->max_memory_bytes / 2)      /* it lies twice while it is stacked */
            return mo_fail(ctx, MOPT_LIMIT, "what '%s' collects grows beyond the limit of %llu MiB", v->name,
                           (unsigned long long)(ctx->max_memory_bytes >> 20));
        void *more = mo_mem_grow(c->of.data, c->room, room);
        if (!more)
            return mo_no_memory(ctx, room, "what a loop collects");
        c->of.data = more;
        c->room = room;
    }
    memcpy((char *)c->of.data + used, data, bytes);
    c->count++;
    return MOPT_OK;
}

enum mopt_status mo_body_stack(struct mo_body *b, uint32_t k, const struct mo_collected *c, const struct mo_value *element,
                              int axis, bool reversed)
{
    struct mo_run *r = b->outer;
    struct mo_shape each = c->count ? c->of.shape : element->shape, y;
    if (k >= b->node->n_out || b->node->out[k] == MO_NONE)
        return MOPT_OK;
    if (each.rank == MO_UNKNOWN)
        each.rank = 0;
    for (int i = 0; i < each.rank; i++)
        each.dim[i] = each.dim[i] == MO_UNKNOWN ? 0 : each.dim[i];      /* no turn was made, so nobody knows */
    y.rank = each.rank + 1;
    axis = axis < 0 ? axis + y.rank : axis;
    if (y.rank > MO_MAX_RANK || axis < 0 || axis >= y.rank)
        return mo_fail(r->ctx, MOPT_DATA, "axis %d of a result of rank %d", axis, y.rank);
    for (int i = 0, from = 0; i < y.rank; i++)
        y.dim[i] = i == axis ? c->count : each.dim[from++];
    char *to = mo_run_make_out(r, b->node, k, c->count ? c->of.dtype : element->dtype, &y);
    if (!to)
        return r->ctx->status;
    size_t inner = c->count ? mo_dtype_bytes(c->of.dtype, mo_dims_product(&each, axis, each.rank)) : 0;
    int64_t outer = mo_dims_product(&each, 0, axis);
    for (int64_t t = 0; t < c->count; t++)
        for (int64_t o = 0; o < outer; o++)
            memcpy(to + (size_t)(o * c->count + (reversed ? c->count - 1 - t : t)) * inner,
                   (char *)c->of.data + (size_t)t * c->of.bytes + (size_t)o * inner, inner);
    return MOPT_OK;
}
