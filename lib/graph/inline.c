/* inline.c - calls of local functions become the nodes that they stand for.
 *
 * A body is copied, its references to attributes are bound to those of the call, its values are mapped: inputs and
 * outputs to the call's, all others to new ones. How many nodes that makes is counted first: functions that call one
 * another without end, or too often, are refused before any work. */
#include <string.h>

#include "lib/graph/graph.h"
#include "lib/graph/private.h"

enum { MAX_NODES = 1 << 18 };

struct inliner {
    struct mopt_ctx *ctx;
    struct mo_graph *g;
    const struct mo_function *functions;
    uint32_t n_functions, n_inlined;
    int64_t *n_nodes;           /* that a call of each function stands for; 0: not counted yet, -1: being counted */
    struct mo_names names;      /* of g */
};

static enum mopt_status no_room(const struct inliner *in)
{
    return mo_no_memory(in->ctx, sizeof(struct mo_node), "a function's nodes");
}

static const struct mo_function *find(const struct inliner *in, const struct mo_node *n)
{
    for (uint32_t i = 0; i < in->n_functions; i++) {
        const struct mo_function *f = &in->functions[i];
        if (!strcmp(f->name, n->type) && !strcmp(f->domain, n->domain) &&
            !strcmp(f->overload, n->overload ? n->overload : ""))
            return f;
    }
    return NULL;
}

/* ---- how many nodes ------------------------------------------------------------------------- */

static enum mopt_status count_nodes(struct inliner *in, const struct mo_graph *g, int64_t *sum);

static enum mopt_status count_function(struct inliner *in, const struct mo_function *f, int64_t *n)
{
    int64_t *known = &in->n_nodes[f - in->functions];
    if (*known < 0)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "function '%s' calls itself", f->name);
    if (!*known) {
        int64_t sum = 1;
        *known = -1;
        MO_TRY(count_nodes(in, f->body, &sum));
        *known = sum;
    }
    *n = *known;
    return MOPT_OK;
}

static enum mopt_status count_nodes(struct inliner *in, const struct mo_graph *g, int64_t *sum)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *node = &g->nodes[i];
        const struct mo_function *f = find(in, node);
        int64_t n = 1;
        if (f)
            MO_TRY(count_function(in, f, &n));
        *sum += n;
        if (*sum > MAX_NODES)
            return mo_fail(in->ctx, MOPT_LIMIT, "functions stand for more than %d nodes", MAX_NODES);
        for (uint32_t a = 0; a < node->n_attrs; a++)
            for (size_t k = 0; node->attrs[a].graphs && k < node->attrs[a].n; k++)
                MO_TRY(count_nodes(in, node->attrs[a].graphs[k], sum));
    }
    return MOPT_OK;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static const struct mo_attr *bound_to(const struct mo_function *f, const struct mo_node *call, const char *name)
{
    const struct mo_attr *given = mo_node_attr(call, name);
    for (uint32_t k = 0; !given && k < f->n_defaults; k++)
        if (!strcmp(f->defaults[k].name, name))
            given = &f->defaults[k];
    return given;
}

/* References become what the call gives; one that it leaves out is as if it were not there. */
static bool bind(struct mo_graph *body, const struct mo_function *f, const struct mo_node *call)
{
    for (mo_node_id i = 0; i < body->n_nodes; i++) {
        struct mo_node *n = &body->nodes[i];
        uint32_t n_kept = 0;
        bool has_changed = false;
        for (uint32_t k = 0; k < n->n_attrs; k++) {
            struct mo_attr a = n->attrs[k];
            const struct mo_attr *given = a.ref ? bound_to(f, call, a.ref) : NULL;
            has_changed |= a.ref != NULL;
            if (a.ref && !given)
                continue;
            if (given) {
                const char *name = a.name;
                a = *given;
                a.name = name;
                a.kept = (struct mo_kept){ 0 };
                a.is_value_data = false;
            }
            for (size_t s = 0; !given && a.graphs && s < a.n; s++)
                if (!bind(a.graphs[s], f, call))
                    return false;
            n->attrs[n_kept++] = a;
        }
        n->n_attrs = n_kept;
        if (has_changed && !mo_node_take_constant(body, n))
            return false;
    }
    return true;
}

/* ---- values ------------------------------------------------------------------------------------ */

static void rename_in_subgraphs(struct mo_graph *body, const char *from, const char *to)
{
    for (mo_node_id i = 0; i < body->n_nodes; i++)
        for (uint32_t a = 0; body->nodes[i].n_captures && a < body->nodes[i].n_attrs; a++)
            for (size_t k = 0; body->nodes[i].attrs[a].graphs && k < body->nodes[i].attrs[a].n; k++)
                mo_graph_rename_capture(body->nodes[i].attrs[a].graphs[k], from, to);
}

static bool captures_any(const struct mo_graph *body)
{
    for (mo_node_id i = 0; i < body->n_nodes; i++)
        if (body->nodes[i].n_captures)
            return true;
    return false;
}

/* map[v]: the value of g that value v of the body is. Names go over a form that no name has, so that none is taken
 * for another on the way. */
static enum mopt_status rename_captures(const struct inliner *in, struct mo_graph *body, const mo_value_id *map)
{
    for (int round = 0; captures_any(body) && round < 2; round++)
        for (mo_value_id v = 0; v < body->n_values; v++) {
            const char *between = mo_arena_printf(in->g->arena, "\001%u", (unsigned)v);
            if (!between)
                return no_room(in);
            if (map[v] == MO_NONE)
                continue;
            rename_in_subgraphs(body, round ? between : body->values[v].name,
                                round ? in->g->values[map[v]].name : between);
        }
    return MOPT_OK;
}

static enum mopt_status add_value(struct inliner *in, const struct mo_value *from, const char *prefix, mo_value_id *id)
{
    const char *name = mo_arena_printf(in->g->arena, "%s/%s", prefix, from->name);
    for (unsigned k = 2; name && mo_names_find(&in->names, in->g, name) != MO_NONE; k++)
        name = mo_arena_printf(in->g->arena, "%s/%s_%u", prefix, from->name, k);
    *id = name ? mo_graph_new_value(in->g, name) : MO_NONE;
    if (*id == MO_NONE || !mo_names_add(&in->names, in->g, *id))
        return no_room(in);
    struct mo_value *to = &in->g->values[*id];
    to->dtype = from->dtype;
    to->shape = from->shape;
    to->data = from->data;
    to->strings = from->strings;
    return MOPT_OK;
}

/* An output that is an input, or another output, has no node of its own: an Identity gives it one. */
static enum mopt_status pass_through(const struct inliner *in, mo_value_id from, mo_value_id to)
{
    if (from == MO_NONE || to == MO_NONE || from == to)
        return MOPT_OK;
    mo_node_id id = mo_graph_add_node(in->g, "Identity", "", "", &from, 1, &to, 1);
    return id == MO_NONE ? no_room(in) : MOPT_OK;
}

static enum mopt_status map_values(struct inliner *in, const struct mo_graph *body, const mo_value_id *call_in,
                                   uint32_t n_in, const mo_value_id *call_out, uint32_t n_out, const char *prefix,
                                   mo_value_id *map)
{
    for (mo_value_id v = 0; v < body->n_values; v++)
        map[v] = body->values[v].is_captured ? mo_names_find(&in->names, in->g, body->values[v].name) : MO_NONE;
    for (uint32_t k = 0; k < body->n_inputs && k < n_in; k++)
        map[body->inputs[k]] = call_in[k];
    for (uint32_t k = 0; k < body->n_outputs && k < n_out; k++) {
        const struct mo_value *v = &body->values[body->outputs[k]];
        if (v->is_input || map[body->outputs[k]] != MO_NONE)
            MO_TRY(pass_through(in, map[body->outputs[k]], call_out[k]));
        else
            map[body->outputs[k]] = call_out[k];
        if (v->data && call_out[k] != MO_NONE) {
            in->g->values[call_out[k]].data = v->data;
            in->g->values[call_out[k]].strings = v->strings;
            in->g->values[call_out[k]].dtype = v->dtype;
            in->g->values[call_out[k]].shape = v->shape;
        }
    }
    for (mo_value_id v = 0; v < body->n_values; v++)
        if (map[v] == MO_NONE && !body->values[v].is_input && !body->values[v].is_captured)
            MO_TRY(add_value(in, &body->values[v], prefix, &map[v]));
    return MOPT_OK;
}

/* What its values and nodes are named by; no two calls make the same value. */
static const char *prefix_of(const struct mo_graph *g, const struct mo_node *call)
{
    for (uint32_t k = 0; k < call->n_out && !call->name[0]; k++)
        if (call->out[k] != MO_NONE)
            return g->values[call->out[k]].name;
    return call->name[0] ? call->name : call->type;
}

/* ---- nodes ---------------------------------------------------------------------------------------- */

static void map_ids(mo_value_id *ids, uint32_t n, const mo_value_id *map)
{
    for (uint32_t k = 0; k < n; k++)
        ids[k] = ids[k] == MO_NONE ? MO_NONE : map[ids[k]];
}

static enum mopt_status move_node(const struct inliner *in, struct mo_node *n, const char *prefix, const mo_value_id *map)
{
    struct mo_graph *g = in->g;
    const char *name = n->name[0] ? mo_arena_printf(g->arena, "%s/%s", prefix, n->name) : "";
    map_ids(n->in, n->n_in, map);
    map_ids(n->out, n->n_out, map);
    map_ids(n->captures, n->n_captures, map);
    mo_node_id id = name ? mo_graph_add_node(g, n->type, n->domain, name, n->in, n->n_in, n->out, n->n_out) : MO_NONE;
    if (id == MO_NONE)
        return no_room(in);
    struct mo_node *to = &g->nodes[id];
    to->attrs = n->attrs;
    to->n_attrs = n->n_attrs;
    to->captures = n->captures;
    to->n_captures = n->n_captures;
    to->overload = n->overload;
    to->kept = n->kept;
    for (uint32_t a = 0; a < to->n_attrs; a++)
        for (size_t k = 0; to->attrs[a].graphs && k < to->attrs[a].n; k++)
            to->attrs[a].graphs[k]->parent = g;
    return MOPT_OK;
}

static enum mopt_status inline_call(struct inliner *in, mo_node_id i, const struct mo_function *f)
{
    struct mo_graph *g = in->g, body = { .arena = g->arena };
    const struct mo_node call = g->nodes[i];
    char label[200];
    const char *prefix = prefix_of(g, &call);
    if (call.n_in > f->body->n_inputs || call.n_out > f->body->n_outputs)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "%s has more inputs or outputs than its function",
                       mo_node_label(g, &call, label, sizeof label));
    MO_TRY(mo_graph_copy(in->ctx, &body, f->body, false));
    mo_value_id *map = mo_arena_new(g->arena, body.n_values + 1, sizeof *map);
    if (!map || !bind(&body, f, &call))
        return no_room(in);
    MO_TRY(map_values(in, &body, call.in, call.n_in, call.out, call.n_out, prefix, map));
    MO_TRY(rename_captures(in, &body, map));
    for (mo_node_id k = 0; k < body.n_nodes; k++)
        MO_TRY(move_node(in, &body.nodes[k], prefix, map));
    g->nodes[i].is_dead = true;
    in->n_inlined++;
    return MOPT_OK;
}

enum mopt_status mo_graph_splice(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_names *names,
                                 const struct mo_graph *body, const char *prefix, const mo_value_id *in, mo_value_id *out)
{
    struct inliner state = { .ctx = ctx, .g = g, .names = *names };
    struct mo_graph copy = { .arena = g->arena };
    MO_TRY(mo_graph_copy(ctx, &copy, body, false));
    mo_value_id *map = mo_arena_new(g->arena, copy.n_values + 1, sizeof *map);
    if (!map)
        return no_room(&state);
    enum mopt_status status = map_values(&state, &copy, in, copy.n_inputs, NULL, 0, prefix, map);
    *names = state.names;           /* it has grown */
    for (mo_value_id v = 0; !status && v < copy.n_values; v++)
        if (map[v] == MO_NONE && copy.values[v].is_captured)
            status = mo_fail(ctx, MOPT_DATA, "its graph reads '%s', which is not there", copy.values[v].name);
    if (!status)
        status = rename_captures(&state, &copy, map);
    for (mo_node_id k = 0; !status && k < copy.n_nodes; k++)
        if (!copy.nodes[k].is_dead && !(mo_node_is(&copy.nodes[k], "Constant") && copy.values[copy.nodes[k].out[0]].data))
            status = move_node(&state, &copy.nodes[k], prefix, map);
    for (uint32_t k = 0; !status && k < copy.n_outputs; k++)
        out[k] = map[copy.outputs[k]];
    return status;
}

/* Also the calls that come with the nodes of others, which stand behind them. */
static enum mopt_status inline_calls(struct inliner *in)
{
    struct mo_graph *g = in->g;
    enum mopt_status status = MOPT_OK;
    in->names = (struct mo_names){ 0 };
    for (mo_value_id v = 0; !status && v < g->n_values; v++)
        if (!mo_names_add(&in->names, g, v))
            status = no_room(in);
    for (mo_node_id i = 0; !status && i < g->n_nodes; i++) {
        const struct mo_function *f = g->nodes[i].is_dead ? NULL : find(in, &g->nodes[i]);
        if (f)
            status = inline_call(in, i, f);
    }
    mo_names_release(&in->names);
    return status;
}

static enum mopt_status inline_graph(struct inliner *in)
{
    struct mo_graph *g = in->g;
    uint32_t before = in->n_inlined;
    MO_TRY(inline_calls(in));
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++) {
                in->g = g->nodes[i].attrs[a].graphs[k];
                MO_TRY(inline_graph(in));
                in->g = g;
            }
    return in->n_inlined > before ? mo_graph_sort(in->ctx, g) : MOPT_OK;
}

enum mopt_status mo_graph_inline(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_function *functions,
                                 uint32_t n_functions, uint32_t *n_inlined)
{
    struct inliner in = { .ctx = ctx, .g = g, .functions = functions, .n_functions = n_functions };
    int64_t sum = 0;
    if (!n_functions)
        return MOPT_OK;
    in.n_nodes = mo_mem_new(n_functions, sizeof *in.n_nodes);
    if (!in.n_nodes)
        return no_room(&in);
    enum mopt_status status = count_nodes(&in, g, &sum);
    if (!status)
        status = inline_graph(&in);
    mo_mem_free(in.n_nodes);
    if (n_inlined)
        *n_inlined += in.n_inlined;
    return status;
}

/* ---- the model around ------------------------------------------------------------------------------- */

enum { MODEL_TRAINING = 20, MODEL_FUNCTIONS = 25, WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static bool get_varint(const uint8_t *bytes, size_t n, size_t *at, uint64_t *x)
{
    *x = 0;
    for (int shift = 0; *at < n && shift < 64; shift += 7) {
        uint8_t byte = bytes[(*at)++];
        *x |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* The number of the field at *at, which moves behind it; 0: not a message, or the end. */
static uint64_t next_field(const struct mo_kept *kept, size_t *at)
{
    uint64_t key, n = 0;
    if (!get_varint(kept->bytes, kept->n_bytes, at, &key))
        return 0;
    switch (key & 7) {
    case WIRE_VARINT:
        return get_varint(kept->bytes, kept->n_bytes, at, &n) ? key >> 3 : 0;
    case WIRE_BYTES:
        if (!get_varint(kept->bytes, kept->n_bytes, at, &n))
            return 0;
        break;
    case WIRE_64:
        n = 8;
        break;
    case WIRE_32:
        n = 4;
        break;
    default:
        return 0;
    }
    if (n > kept->n_bytes - *at)
        return 0;
    *at += (size_t)n;
    return key >> 3;
}

static bool has_field(const struct mo_kept *kept, uint64_t number)
{
    for (size_t at = 0; at < kept->n_bytes;) {
        uint64_t field = next_field(kept, &at);
        if (field == number || !field)
            return field;
    }
    return false;
}

static enum mopt_status drop_functions(struct mopt_ctx *ctx, struct mopt_model *m)
{
    uint8_t *bytes = mo_arena_new(&m->arena, m->kept.n_bytes + 1, 1);
    size_t n = 0, start = 0;
    if (!bytes)
        return mo_no_memory(ctx, m->kept.n_bytes, "what is kept of the model");
    for (size_t at = 0; at < m->kept.n_bytes; start = at) {
        uint64_t field = next_field(&m->kept, &at);
        if (!field)
            return mo_fail(ctx, MOPT_FAILED, "what is kept of the model is no message");
        if (field == MODEL_FUNCTIONS)
            continue;
        memcpy(bytes + n, m->kept.bytes + start, at - start);
        n += at - start;
    }
    m->kept = (struct mo_kept){ bytes, n };
    return MOPT_OK;
}

enum mopt_status mo_model_inline(struct mopt_ctx *ctx, struct mopt_model *m, uint32_t *n_inlined)
{
    uint32_t n = 0;
    MO_TRY(mo_graph_inline(ctx, &m->graph, m->functions, m->n_functions, &n));
    for (uint32_t i = 0; n && i < m->n_functions; i++)
        for (uint32_t k = 0; k < m->functions[i].n_imports; k++) {
            const struct mo_import *import = &m->functions[i].imports[k];
            if (!mo_model_opset(m, import->domain) && !mo_model_set_opset(m, import->domain, import->version))
                return mo_no_memory(ctx, sizeof *import, "versions");
        }
    *n_inlined += n;
    if (!n || has_field(&m->kept, MODEL_TRAINING))
        return MOPT_OK;
    m->graph.n_functions = 0;       /* the bodies stay in memory: nodes borrow their constants */
    return drop_functions(ctx, m);
}
