/* If, Loop, Scan: graphs inside a node.
 *
 * A body is made runnable by itself: a copy in which what it reads from around it
 * is an input. It runs once for each turn, its own shapes planned as they come.
 * Correct, not fast; bodies read host memory, so the device must be one. No
 * gradients. Sequences as loop values are not offered. */
#include "lib/ops/tensor.h"

#include <string.h>

/* ---- a body ---- */

struct body {
    struct mo_run *outer;
    const struct mo_node *node;
    struct mo_arena arena;
    struct mo_graph graph;
    struct mo_run *run;
    uint32_t n_formal;                  /* inputs that are the body's own; captured values follow */
    bool is_list[2];                    /* its first two inputs are declared as lists of one (Loop's turn, condition) */
};

/* What the runner needs to know of one input. */
struct feed { const void *data; enum mo_dtype dtype; struct mo_shape shape; };

static mo_value_id outer_value(const struct body *b, const char *name)
{
    const struct mo_graph *g = b->outer->graph;
    for (uint32_t k = 0; k < b->node->n_captures; k++)
        if (!strcmp(g->values[b->node->captures[k]].name, name))
            return b->node->captures[k];
    return MO_NONE;
}

static enum mopt_status open_captures(struct body *b)
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
        inner->owner = MO_DATA_BORROWED;
        inner->dtype = outer->dtype;
        inner->shape = outer->shape;
        if (!outer->data && !mo_graph_add_input(&b->graph, v))
            return mo_no_memory(ctx, sizeof *inner, "a body");
    }
    return MOPT_OK;
}

/* Input i of a body is input i of the node (Loop, Scan). What the body says of types and shapes may be missing, and
 * shapes need not hold in every turn. */
static void open_formals(struct body *b)
{
    for (uint32_t i = 0; i < b->n_formal; i++) {
        struct mo_value *inner = &b->graph.values[b->graph.inputs[i]];
        const struct mo_value *outer = mo_in(b->outer->graph, b->node, i);
        if (i < MO_COUNT(b->is_list))
            b->is_list[i] = inner->shape.rank == 1;
        if (outer)
            inner->dtype = outer->dtype;
        inner->shape.rank = MO_UNKNOWN;
    }
}

static void close_body(struct body *b)
{
    mo_run_free(b->run);
    mo_graph_release(&b->graph);
    mo_arena_release(&b->arena);
}

static enum mopt_status open_body(struct body *b, struct mo_run *r, const struct mo_node *n, const char *attr)
{
    const struct mo_attr *a = mo_node_attr(n, attr);
    struct mo_run_options options = r->options;
    *b = (struct body){ .outer = r, .node = n };
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
        close_body(b);
    return status;
}

/* One turn with these formal inputs. */
static enum mopt_status turn(struct body *b, const struct feed *feeds)
{
    struct mopt_ctx *ctx = b->outer->ctx;
    uint32_t n = mo_run_n_inputs(b->run);
    struct mo_shape *shapes = mo_mem_new((size_t)n + 1, sizeof *shapes);
    struct feed *all = mo_mem_new((size_t)n + 1, sizeof *all);
    enum mopt_status status = shapes && all ? mo_stopped(ctx) : mo_no_memory(ctx, n * sizeof *shapes, "a body");
    for (uint32_t i = 0; !status && i < n; i++) {
        if (i < b->n_formal) {
            all[i] = feeds[i];
        } else {
            mo_value_id from = outer_value(b, mo_run_input(b->run, i)->name);
            const struct mo_value *v = from == MO_NONE ? NULL : &b->outer->graph->values[from];
            if (!v)
                status = mo_fail(ctx, MOPT_FAILED, "'%s' is not there", mo_run_input(b->run, i)->name);
            else
                all[i] = (struct feed){ b->outer->tensors[from].data, v->dtype, v->shape };
        }
        shapes[i] = all[i].shape;
    }
    if (!status)
        status = mo_run_shape(b->run, shapes, n);
    for (uint32_t i = 0; !status && i < n; i++) {
        size_t bytes = mo_dtype_bytes(all[i].dtype, mo_shape_elems(&shapes[i]));
        if (mo_run_input(b->run, i)->dtype != all[i].dtype)
            status = mo_fail(ctx, MOPT_DATA, "'%s' is %s inside and %s outside", mo_run_input(b->run, i)->name,
                             mo_dtype_name(mo_run_input(b->run, i)->dtype), mo_dtype_name(all[i].dtype));
        else
            status = mo_run_set_input(b->run, i, all[i].data, bytes);
    }
    if (!status)
        status = mo_run_forward(b->run);
    mo_mem_free(shapes);
    mo_mem_free(all);
    return status;
}

/* Output k of the node is what the body gave at `from`. */
static enum mopt_status hand_out(struct body *b, uint32_t k, uint32_t from)
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

/* Types of outputs from the body's; shapes come while running. */
static enum mopt_status infer_from(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const char *attr,
                                   uint32_t first)
{
    const struct mo_attr *a = mo_node_attr(n, attr);
    if (!a || a->kind != MO_ATTR_GRAPH || !a->graphs)
        return mo_fail(ctx, MOPT_DATA, "it has no graph '%s'", attr);
    const struct mo_graph *body = a->graphs[0];
    if (body->n_outputs < first + n->n_out)
        return mo_fail(ctx, MOPT_DATA, "its graph '%s' gives %u values, %u are wanted", attr, body->n_outputs,
                       first + n->n_out);
    for (uint32_t k = 0; k < n->n_out; k++)
        mo_set_out_unknown(g, n, k, body->values[body->outputs[first + k]].dtype);
    return MOPT_OK;
}

/* ---- If ---- */

static enum mopt_status infer_if(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(infer_from(ctx, g, n, "else_branch", 0));
    return infer_from(ctx, g, n, "then_branch", 0);
}

static enum mopt_status forward_if(struct mo_run *r, const struct mo_node *n)
{
    struct body b;
    double condition = 0;
    if (!mo_run_scalar(r, n, 0, &condition))
        return mo_fail(r->ctx, MOPT_DATA, "its condition should be one truth value");
    MO_TRY(open_body(&b, r, n, condition != 0 ? "then_branch" : "else_branch"));
    enum mopt_status status = turn(&b, NULL);
    for (uint32_t k = 0; !status && k < n->n_out; k++)
        status = hand_out(&b, k, k);
    close_body(&b);
    return status;
}

const struct mo_op mo_op_if = {
    .type = "If",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = -1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_if, .forward = forward_if,
};

/* ---- values kept from turn to turn, and values collected ---- */

/* A tensor of its own; data from mo_mem_new. */
struct held { void *data; size_t bytes; enum mo_dtype dtype; struct mo_shape shape; };

static enum mopt_status hold(struct mopt_ctx *ctx, struct held *h, const void *data, enum mo_dtype dtype,
                             const struct mo_shape *shape)
{
    size_t bytes = mo_dtype_bytes(dtype, mo_shape_elems(shape));
    void *copy = bytes == SIZE_MAX ? NULL : mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
    if (!copy)
        return mo_no_memory(ctx, bytes, "a loop value");
    memcpy(copy, data, bytes);
    mo_mem_free(h->data);
    *h = (struct held){ copy, bytes, dtype, *shape };
    return MOPT_OK;
}

/* One more of equal tensors, in a list. */
struct collected { struct held of; int64_t count; size_t room; };

static enum mopt_status collect(struct mopt_ctx *ctx, struct collected *c, const void *data, const struct mo_value *v)
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

/* The collected tensors become output k, stacked along `axis`, in reverse order when asked. */
static enum mopt_status stack(struct body *b, uint32_t k, const struct collected *c, const struct mo_value *element,
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

/* ---- Loop: inputs M, condition, v...; body inputs turn, condition, v...; outputs condition, v..., collected... ---- */

/* A loop that came this far is taken for one that never ends: by turns, or by what it carries from turn to turn, which may
 * grow to so much, or to so many times what it starts with. */
#define MAX_TURNS ((int64_t)1 << 20)
#define MAX_HELD_BYTES ((size_t)64 << 20)
#define MAX_GROWTH 1024

struct loop {
    struct body body;
    uint32_t n_held, n_collected;
    struct held *held, *mark;           /* mark: what was held after mark_turn turns, a power of two */
    struct collected *collected;
    struct feed *feeds;
    int64_t turn, mark_turn;
    size_t start_bytes;                 /* of all that is held before the first turn */
    uint8_t goes_on;
    bool may_repeat;                    /* a turn depends on what is held, and on nothing else */
    int64_t period;                     /* > 0: what is held is what it was that many turns ago */
};

static bool is_random(const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->op && n->op->flags & MO_OP_RANDOM)
            return true;
        for (uint32_t a = 0; a < n->n_attrs; a++)
            for (size_t k = 0; n->attrs[a].graphs && k < n->attrs[a].n; k++)
                if (is_random(n->attrs[a].graphs[k]))
                    return true;
    }
    return false;
}

static size_t held_bytes(const struct loop *l)
{
    size_t sum = 0;
    for (uint32_t k = 0; k < l->n_held; k++)
        sum += l->held[k].bytes;
    return sum;
}

/* A loop that comes back to where it was goes round for ever (Brent's way of finding cycles: compare with what was held at
 * the last power of two). */
static enum mopt_status look_for_cycle(struct loop *l)
{
    bool is_same = l->mark_turn > 0;
    for (uint32_t k = 0; is_same && k < l->n_held; k++)
        is_same = l->held[k].bytes == l->mark[k].bytes && l->held[k].dtype == l->mark[k].dtype &&
                  mo_shape_equal(&l->held[k].shape, &l->mark[k].shape) &&
                  !memcmp(l->held[k].data, l->mark[k].data, l->held[k].bytes);
    l->period = is_same ? l->turn - l->mark_turn : 0;
    if (l->turn & (l->turn - 1))
        return MOPT_OK;
    for (uint32_t k = 0; k < l->n_held; k++)
        MO_TRY(hold(l->body.outer->ctx, &l->mark[k], l->held[k].data, l->held[k].dtype, &l->held[k].shape));
    l->mark_turn = l->turn;
    return MOPT_OK;
}

static enum mopt_status loop_step(struct loop *l)
{
    struct mopt_ctx *ctx = l->body.outer->ctx;
    struct mo_shape scalar = mo_shape_of(0);
    l->feeds[0] = (struct feed){ &l->turn, MO_I64, scalar };
    l->feeds[1] = (struct feed){ &l->goes_on, MO_BOOL, scalar };
    /* Exporters disagree on whether the two are scalars or lists of one: the body's declaration counts. */
    for (uint32_t i = 0; i < 2; i++)
        if (l->body.is_list[i])
            l->feeds[i].shape = mo_shape_of(1, (int64_t)1);
    for (uint32_t k = 0; k < l->n_held; k++)
        l->feeds[2 + k] = (struct feed){ l->held[k].data, l->held[k].dtype, l->held[k].shape };
    MO_TRY(turn(&l->body, l->feeds));
    struct mo_run *run = l->body.run;
    l->goes_on = *(const uint8_t *)mo_run_output_data(run, 0) != 0;
    for (uint32_t k = 0; k < l->n_held; k++) {
        const struct mo_value *v = mo_run_output(run, 1 + k);
        MO_TRY(hold(ctx, &l->held[k], mo_run_output_data(run, 1 + k), v->dtype, &v->shape));
    }
    for (uint32_t k = 0; k < l->n_collected; k++) {
        uint32_t from = 1 + l->n_held + k;
        MO_TRY(collect(ctx, &l->collected[k], mo_run_output_data(run, from), mo_run_output(run, from)));
    }
    l->turn++;
    return l->may_repeat && l->goes_on ? look_for_cycle(l) : MOPT_OK;
}

static enum mopt_status loop_turns(struct loop *l, double most, bool is_counted)
{
    struct mopt_ctx *ctx = l->body.outer->ctx;
    while (l->goes_on && (double)l->turn < most) {
        MO_TRY(loop_step(l));
        if (l->period && !is_counted)
            return mo_fail(ctx, MOPT_LIMIT, "it never ends: after %lld turns everything is as it was %lld turns before",
                           (long long)l->turn, (long long)l->period);
        if (l->period == 1 && !l->n_collected)
            return MOPT_OK;     /* the turns that are left change nothing */
        if (held_bytes(l) > MAX_HELD_BYTES && held_bytes(l) / MAX_GROWTH > l->start_bytes)
            return mo_fail(ctx, MOPT_LIMIT, "what it carries has grown from %zu to %zu bytes in %lld turns",
                           l->start_bytes, held_bytes(l), (long long)l->turn);
        if (l->turn >= MAX_TURNS)
            return mo_fail(ctx, MOPT_LIMIT, "more than %lld turns", (long long)MAX_TURNS);
    }
    return MOPT_OK;
}

static enum mopt_status loop_run(struct loop *l)
{
    struct mo_run *r = l->body.outer;
    const struct mo_node *n = l->body.node;
    double most = 9e18, condition = 1;
    if (mo_in(r->graph, n, 0) && !mo_run_scalar(r, n, 0, &most))
        return mo_fail(r->ctx, MOPT_DATA, "its trip count should be one number");
    if (mo_in(r->graph, n, 1) && !mo_run_scalar(r, n, 1, &condition))
        return mo_fail(r->ctx, MOPT_DATA, "its condition should be one truth value");
    for (uint32_t k = 0; k < l->n_held; k++) {
        const struct mo_value *v = mo_in(r->graph, n, 2 + k);
        if (!v)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "a loop value that is left out");
        MO_TRY(hold(r->ctx, &l->held[k], mo_run_in(r, n, 2 + k), v->dtype, &v->shape));
    }
    l->goes_on = condition != 0;
    l->start_bytes = held_bytes(l);
    l->may_repeat = !l->body.graph.values[l->body.graph.inputs[0]].n_uses && !is_random(&l->body.graph);
    MO_TRY(loop_turns(l, most, mo_in(r->graph, n, 0)));
    for (uint32_t k = 0; k < l->n_held && k < n->n_out; k++) {
        if (n->out[k] == MO_NONE)
            continue;
        void *to = mo_run_make_out(r, n, k, l->held[k].dtype, &l->held[k].shape);
        if (!to)
            return r->ctx->status;
        memcpy(to, l->held[k].data, l->held[k].bytes);
    }
    for (uint32_t k = 0; k < l->n_collected; k++) {
        const struct mo_graph *body = &l->body.graph;
        MO_TRY(stack(&l->body, l->n_held + k, &l->collected[k], &body->values[body->outputs[1 + l->n_held + k]], 0, false));
    }
    return MOPT_OK;
}

static enum mopt_status forward_loop(struct mo_run *r, const struct mo_node *n)
{
    struct loop l = { .n_held = n->n_in > 2 ? n->n_in - 2 : 0 };
    MO_TRY(open_body(&l.body, r, n, "body"));
    enum mopt_status status = MOPT_OK;
    if (l.body.n_formal != l.n_held + 2 || l.body.graph.n_outputs < l.n_held + 1)
        status = mo_fail(r->ctx, MOPT_DATA, "its body takes %u values and gives %u, for %u loop values", l.body.n_formal,
                         l.body.graph.n_outputs, l.n_held);
    l.n_collected = status ? 0 : l.body.graph.n_outputs - 1 - l.n_held;
    l.held = mo_mem_new((size_t)l.n_held + 1, sizeof *l.held);
    l.collected = mo_mem_new((size_t)l.n_collected + 1, sizeof *l.collected);
    l.feeds = mo_mem_new((size_t)l.n_held + 3, sizeof *l.feeds);
    l.mark = mo_mem_new((size_t)l.n_held + 1, sizeof *l.mark);
    if (!status && (!l.held || !l.mark || !l.collected || !l.feeds))
        status = mo_no_memory(r->ctx, l.n_held * sizeof *l.held, "a loop");
    if (!status)
        status = loop_run(&l);
    for (uint32_t k = 0; l.held && k < l.n_held; k++)
        mo_mem_free(l.held[k].data);
    for (uint32_t k = 0; l.mark && k < l.n_held; k++)
        mo_mem_free(l.mark[k].data);
    for (uint32_t k = 0; l.collected && k < l.n_collected; k++)
        mo_mem_free(l.collected[k].of.data);
    mo_mem_free(l.held);
    mo_mem_free(l.mark);
    mo_mem_free(l.collected);
    mo_mem_free(l.feeds);
    close_body(&l.body);
    return status;
}

static enum mopt_status infer_loop(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    return infer_from(ctx, g, n, "body", 1);
}

const struct mo_op mo_op_loop = {
    .type = "Loop",
    .since_opset = 1,
    .min_in = 0, .max_in = -1, .min_out = 0, .max_out = -1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_loop, .forward = forward_loop,
};

/* ---- Scan: N states and M sequences in; the body gets states and one slice of each sequence ---- */

struct scan {
    struct body body;
    uint32_t n_held, n_sequences, n_collected;
    int64_t n_turns;
    struct held *held, *slices;
    struct collected *collected;
    struct feed *feeds;
};

static int64_t entry(const struct mo_node *n, const char *attr, uint32_t i)
{
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, attr, &n_ints);
    return i < n_ints ? ints[i] : 0;
}

/* Slice t of sequence i. */
static enum mopt_status take_slice(struct scan *s, uint32_t i, int64_t t)
{
    struct mo_run *r = s->body.outer;
    const struct mo_node *n = s->body.node;
    const struct mo_value *v = mo_in(r->graph, n, s->n_held + i);
    struct held *h = &s->slices[i];
    int axis;
    MO_TRY(mo_axis(r->ctx, entry(n, "scan_input_axes", i), v->shape.rank, &axis));
    int64_t outer = mo_dims_product(&v->shape, 0, axis), dim = v->shape.dim[axis];
    size_t inner = mo_dtype_bytes(v->dtype, mo_dims_product(&v->shape, axis + 1, v->shape.rank));
    const char *from = mo_run_in(r, n, s->n_held + i);
    int64_t at = entry(n, "scan_input_directions", i) ? dim - 1 - t : t;
    if (dim != s->n_turns)
        return mo_fail(r->ctx, MOPT_DATA, "sequences of %lld and %lld", (long long)s->n_turns, (long long)dim);
    if (!h->data) {
        h->dtype = v->dtype;
        h->shape.rank = v->shape.rank - 1;
        for (int k = 0, to = 0; k < v->shape.rank; k++)
            if (k != axis)
                h->shape.dim[to++] = v->shape.dim[k];
        h->data = mo_mem_new(MO_MAX((size_t)outer * inner, (size_t)1), 1);
        if (!h->data)
            return mo_no_memory(r->ctx, (size_t)outer * inner, "a slice");
    }
    for (int64_t o = 0; o < outer; o++)
        memcpy((char *)h->data + (size_t)o * inner, from + (size_t)(o * dim + at) * inner, inner);
    return MOPT_OK;
}

static enum mopt_status scan_step(struct scan *s, int64_t t)
{
    struct mopt_ctx *ctx = s->body.outer->ctx;
    struct mo_run *run = s->body.run;
    for (uint32_t k = 0; k < s->n_held; k++)
        s->feeds[k] = (struct feed){ s->held[k].data, s->held[k].dtype, s->held[k].shape };
    for (uint32_t i = 0; i < s->n_sequences; i++) {
        MO_TRY(take_slice(s, i, t));
        s->feeds[s->n_held + i] = (struct feed){ s->slices[i].data, s->slices[i].dtype, s->slices[i].shape };
    }
    MO_TRY(turn(&s->body, s->feeds));
    for (uint32_t k = 0; k < s->n_held; k++) {
        const struct mo_value *v = mo_run_output(run, k);
        MO_TRY(hold(ctx, &s->held[k], mo_run_output_data(run, k), v->dtype, &v->shape));
    }
    for (uint32_t k = 0; k < s->n_collected; k++)
        MO_TRY(collect(ctx, &s->collected[k], mo_run_output_data(run, s->n_held + k), mo_run_output(run, s->n_held + k)));
    return MOPT_OK;
}

static enum mopt_status scan_run(struct scan *s)
{
    struct mo_run *r = s->body.outer;
    const struct mo_node *n = s->body.node;
    const struct mo_value *first = mo_in(r->graph, n, s->n_held);
    int axis;
    MO_TRY(mo_axis(r->ctx, entry(n, "scan_input_axes", 0), first->shape.rank, &axis));
    s->n_turns = first->shape.dim[axis];
    for (uint32_t k = 0; k < s->n_held; k++) {
        const struct mo_value *v = mo_in(r->graph, n, k);
        MO_TRY(hold(r->ctx, &s->held[k], mo_run_in(r, n, k), v->dtype, &v->shape));
    }
    for (int64_t t = 0; t < s->n_turns; t++)
        MO_TRY(scan_step(s, t));
    for (uint32_t k = 0; k < s->n_held && k < n->n_out; k++) {
        if (n->out[k] == MO_NONE)
            continue;
        void *to = mo_run_make_out(r, n, k, s->held[k].dtype, &s->held[k].shape);
        if (!to)
            return r->ctx->status;
        memcpy(to, s->held[k].data, s->held[k].bytes);
    }
    for (uint32_t k = 0; k < s->n_collected; k++) {
        const struct mo_value *element = &s->body.graph.values[s->body.graph.outputs[s->n_held + k]];
        MO_TRY(stack(&s->body, s->n_held + k, &s->collected[k], element, (int)entry(n, "scan_output_axes", k),
                     entry(n, "scan_output_directions", k) != 0));
    }
    return MOPT_OK;
}

static enum mopt_status forward_scan(struct mo_run *r, const struct mo_node *n)
{
    struct scan s = { .n_sequences = (uint32_t)mo_node_int(n, "num_scan_inputs", 0) };
    s.n_held = n->n_in - s.n_sequences;
    MO_TRY(open_body(&s.body, r, n, "body"));
    enum mopt_status status = MOPT_OK;
    if (s.body.n_formal != n->n_in || s.body.graph.n_outputs < s.n_held)
        status = mo_fail(r->ctx, MOPT_DATA, "its body takes %u values and gives %u, for %u states and %u sequences",
                         s.body.n_formal, s.body.graph.n_outputs, s.n_held, s.n_sequences);
    s.n_collected = status ? 0 : s.body.graph.n_outputs - s.n_held;
    s.held = mo_mem_new((size_t)s.n_held + 1, sizeof *s.held);
    s.slices = mo_mem_new((size_t)s.n_sequences + 1, sizeof *s.slices);
    s.collected = mo_mem_new((size_t)s.n_collected + 1, sizeof *s.collected);
    s.feeds = mo_mem_new((size_t)n->n_in + 1, sizeof *s.feeds);
    if (!status && (!s.held || !s.slices || !s.collected || !s.feeds))
        status = mo_no_memory(r->ctx, n->n_in * sizeof *s.held, "a scan");
    if (!status)
        status = scan_run(&s);
    for (uint32_t k = 0; s.held && k < s.n_held; k++)
        mo_mem_free(s.held[k].data);
    for (uint32_t k = 0; s.slices && k < s.n_sequences; k++)
        mo_mem_free(s.slices[k].data);
    for (uint32_t k = 0; s.collected && k < s.n_collected; k++)
        mo_mem_free(s.collected[k].of.data);
    mo_mem_free(s.held);
    mo_mem_free(s.slices);
    mo_mem_free(s.collected);
    mo_mem_free(s.feeds);
    close_body(&s.body);
    return status;
}

static enum mopt_status infer_scan(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    int64_t n_sequences = mo_node_int(n, "num_scan_inputs", 0);
    if (n_sequences < 1 || n_sequences > (int64_t)n->n_in)
        return mo_fail(ctx, MOPT_DATA, "%lld sequences among %u inputs", (long long)n_sequences, n->n_in);
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!mo_in(g, n, i))
            return mo_fail(ctx, MOPT_DATA, "input %u is left out", i);
    return infer_from(ctx, g, n, "body", 0);
}

const struct mo_op mo_op_scan = {
    .type = "Scan",
    .since_opset = 9,
    .min_in = 1, .max_in = -1, .min_out = 1, .max_out = -1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_scan, .forward = forward_scan,
};
