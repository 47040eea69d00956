/* quantize_plan.c - which nodes compute in 8 bits, and which values get a Q and a DQ.
 *
 * A node is a candidate when its operator's `quant` allows it and its operands fit. WEIGHTED candidates always
 * compute in 8 bits. The others follow their neighbours, since a lone Q and DQ cost more than they bring:
 *
 *   supply(v)  v comes out of an int8 node; it is firm when that node must end in a Q anyway (Conv, Add ...), and
 *              loose when it could as well end in float (Gemm, MatMul)
 *   demand(v)  an int8 node reads v
 *   MOVE       int8 when its input is a firm supply, or is a loose one or a graph input and its output is in demand
 *   ARITH      int8 when all its inputs are firm supplies, or one is any supply and its output is in demand
 *   CLIP       vanishes when the Q behind it saturates at the same place (the range is cut to the clip's), and its
 *              producer has no other reader
 *
 * Nodes only ever fall from int8 to float while this is settled, so it ends. */
#include "lib/passes/quantize.h"

#include <math.h>
#include <string.h>

struct planner {
    struct mo_job *job;
    const struct mo_graph *g;
    const struct mo_quant_form *form;
    struct mo_quant_plan *plan;
    uint8_t *supply;            /* by value: 0, LOOSE, FIRM */
    bool *demand;
    mo_value_id *clipped_to;    /* by value: the output of the Relu or Clip that follows it and vanishes */
};
enum { LOOSE = 1, FIRM = 2 };

const char mo_quant_not_selected[] = "not selected";
const char mo_quant_stem[] = "a sum of few products, pooled at once: faster in float";
static const char of_activations[] = "a product of two activations: faster in float";
static const char is_bias[] = "the bias of a product that ends in float";

const char *mo_quant_name(const struct mo_graph *g, const struct mo_node *n)
{
    if (n->name && *n->name)
        return n->name;
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] != MO_NONE)
            return g->values[n->out[i]].name;
    return n->type;
}

bool mo_quant_must_end_in_q(const struct mo_node *n)
{
    return !mo_node_is(n, "Gemm") && !mo_node_is(n, "MatMul");
}

bool mo_quant_has_weight(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0), *w = mo_in(g, n, 1);
    return n->op && n->op->quant.kind == MO_QUANT_WEIGHTED && x && w && !x->data && w->data;
}

bool mo_quant_reads_q(const struct mo_graph *g, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *v = mo_in(g, n, i);
    if (!v || v->dtype != MO_F32)
        return false;
    if (n->op->quant.kind == MO_QUANT_MOVE || mo_quant_has_weight(g, n))
        return i == 0;
    return true;
}

/* ---- selection ---------------------------------------------------------------------------- */

/* --only and --skip choose; --set 'GLOB=float' leaves a layer alone, 'GLOB=int8' takes it all the same. */
enum mopt_status mo_quant_selection(struct mo_job *job, const struct mo_graph *g, enum mo_quant_wish *wish)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        const struct mo_value *w = mo_in(g, n, 1);
        const char *weight = w && w->data ? w->name : NULL, *word = mo_set_word(job, mo_quant_name(g, n), weight);
        wish[i] = mo_is_selected(job, mo_quant_name(g, n), weight) ? MO_WISH_YES : MO_WISH_NO;
        if (!word)
            continue;
        if (strcmp(word, "float") && strcmp(word, "int8"))
            return mo_fail(job->ctx, MOPT_USAGE, "option 'set': '%s' is not one of float, int8", word);
        wish[i] = strcmp(word, "int8") ? MO_WISH_NO : MO_WISH_FORCED;
    }
    return MOPT_OK;
}

/* ---- candidates ------------------------------------------------------------------------------ */

/* Why a WEIGHTED node cannot compute in 8 bits; NULL: it can. */
static const char *weighted_obstacle(const struct planner *p, const struct mo_node *n)
{
    const struct mo_value *w = mo_in(p->g, n, 1), *b = mo_in(p->g, n, 2);
    if (w->dtype != MO_F32)
        return "its weight is not float32";
    if (!mo_value_elems(w))
        return "its weight is empty";
    if (mo_node_is(n, "ConvTranspose") && p->form->quantize_bias)
        return "no 8-bit transposed convolution on this target";
    if (b && !b->data)
        return "its bias is computed, not constant";
    if (!mo_node_is(n, "Gemm"))
        return NULL;
    if (mo_node_int(n, "transA", 0))
        return "it transposes its input";
    if (mo_node_float(n, "alpha", 1) != 1 || (b && mo_node_float(n, "beta", 1) != 1))
        return "alpha or beta is not 1";
    if (b && (b->shape.rank != 1 || b->shape.dim[0] != w->shape.dim[mo_node_int(n, "transB", 0) ? 0 : 1]))
        return "its bias is not one number a column";
    return NULL;
}

static const char *obstacle(const struct planner *p, const struct mo_node *n)
{
    const struct mo_graph *g = p->g;
    if (n->op->quant.since_opset > g->opset)
        return "its opset has no 8-bit form";
    for (uint32_t i = 0; i < n->n_out; i++)
        if (mo_out(g, n, i) && mo_out(g, n, i)->dtype != MO_F32)
            return "it does not compute in float32";
    if (n->op->quant.kind == MO_QUANT_WEIGHTED && mo_quant_has_weight(g, n))
        return weighted_obstacle(p, n);
    if (n->op->quant.kind == MO_QUANT_WEIGHTED && !mo_node_is(n, "MatMul"))
        return "its weight is computed, not constant";
    uint32_t n_activations = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mo_value *v = mo_in(g, n, i);
        if (!v || !mo_quant_reads_q(g, n, i))
            continue;
        if (v->data && !mo_value_elems(v))
            return "it reads an empty constant";
        n_activations += !v->data;
    }
    return n_activations ? NULL : "it reads no float32 activation";
}

/* The only node that reads output 0 of n; NULL. */
static const struct mo_node *sole_reader(const struct mo_graph *g, const struct mo_node *n)
{
    mo_node_id user;
    const struct mo_value *y = mo_out(g, n, 0);
    if (!y || y->is_output || y->n_uses != 1 || mo_value_users(g, n->out[0], &user, 1) != 1)
        return NULL;
    return &g->nodes[user];
}

/* A convolution of few products a sum (one channel 5x5, three 3x3) whose result is pooled at once. Runtimes are slow at
 * it in 8 bits, since gathering the bytes is all the work: in ONNX Runtime the first layer of LeNet-5 takes five times
 * as long as in float, half of the whole net's time. Pooled, its result is small enough to be quantized after. */
static bool is_stem(const struct planner *p, const struct mo_node *n)
{
    enum { FEW_PRODUCTS = 32 };
    if (!p->form->float_stem || !mo_node_is(n, "Conv") || !mo_quant_has_weight(p->g, n))
        return false;
    const struct mo_value *w = mo_in(p->g, n, 1);
    if (mo_value_elems(w) / MO_MAX(w->shape.dim[0], 1) > FEW_PRODUCTS || mo_node_int(n, "group", 1) != 1)
        return false;
    const struct mo_node *next = sole_reader(p->g, n);
    if (next && (mo_node_is(next, "Relu") || mo_node_is(next, "Clip")))
        next = sole_reader(p->g, next);
    return next && mo_node_is(next, "MaxPool");
}

/* The Add of one number a column behind a MatMul. Runtimes have no 8-bit MatMul with a bias: with a Q between the two
 * there would be one rounding and one pass more. */
static bool is_bias_of_product(const struct planner *p, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_in && mo_node_is(n, "Add"); k++) {
        const struct mo_value *bias = mo_in(p->g, n, 1 - k), *x = mo_in(p->g, n, k);
        if (!bias->data || x->producer == MO_NONE)
            continue;
        const struct mo_node *product = &p->g->nodes[x->producer];
        if (!mo_node_is(product, "MatMul") || !mo_quant_has_weight(p->g, product) || sole_reader(p->g, product) != n)
            continue;
        const struct mo_shape *w = &mo_in(p->g, product, 1)->shape, *b = &bias->shape;
        int64_t columns = w->dim[w->rank - 1];
        return w->rank == 2 && b->rank >= 1 && b->dim[b->rank - 1] == columns && mo_value_elems(bias) == columns;
    }
    return false;
}

/* What could be 8 bits and is better left alone, as long as others are not; NULL: nothing. In ONNX Runtime a transformer
 * whose attention and biases are bytes takes 1.3 times as long (d 256, 64 tokens), and every Q costs accuracy. */
static const char *better_in_float(const struct planner *p, const struct mo_node *n)
{
    if (is_stem(p, n))
        return mo_quant_stem;
    if (!p->form->float_attention)
        return NULL;
    if (mo_node_is(n, "MatMul") && !mo_quant_has_weight(p->g, n))
        return of_activations;
    return is_bias_of_product(p, n) ? is_bias : NULL;
}

static void find_candidates(struct planner *p, const enum mo_quant_wish *wish)
{
    uint32_t n_others = 0;
    for (mo_node_id i = 0; i < p->g->n_nodes; i++) {
        const struct mo_node *n = &p->g->nodes[i];
        if (!n->op || n->op->quant.kind == MO_QUANT_FLOAT)
            continue;
        p->plan->why[i] = wish[i] == MO_WISH_NO ? mo_quant_not_selected : obstacle(p, n);
        p->plan->is_candidate[i] = !p->plan->why[i];
        if (!p->plan->is_candidate[i] || n->op->quant.kind == MO_QUANT_CLIP)
            continue;
        p->plan->role[i] = MO_Q_INT8;
        n_others += mo_quant_has_weight(p->g, n) && !(is_stem(p, n) && wish[i] != MO_WISH_FORCED);
    }
    for (mo_node_id i = 0; i < p->g->n_nodes && n_others; i++) {
        if (p->plan->role[i] != MO_Q_INT8 || wish[i] == MO_WISH_FORCED)
            continue;
        const char *why = better_in_float(p, &p->g->nodes[i]);
        if (!why)
            continue;
        p->plan->why[i] = why;
        p->plan->is_candidate[i] = false;
        p->plan->role[i] = MO_Q_FLOAT;
    }
}

/* ---- Relu and Clip ----------------------------------------------------------------------------- */

/* The bounds of a Relu or Clip; false when they are not known or do not hold zero. */
static bool clip_bounds(const struct mo_graph *g, const struct mo_node *n, float *low, float *high)
{
    double a = -INFINITY, b = INFINITY;
    if (mo_node_is(n, "Relu")) {
        a = 0;
    } else if (mo_node_is(n, "Clip")) {
        a = mo_node_float(n, "min", -INFINITY);
        b = mo_node_float(n, "max", INFINITY);
        if ((mo_in(g, n, 1) && !mo_value_scalar(mo_in(g, n, 1), &a)) ||
            (mo_in(g, n, 2) && !mo_value_scalar(mo_in(g, n, 2), &b)))
            return false;
    } else {
        return false;
    }
    *low = (float)a;
    *high = (float)b;
    return a <= 0 && b >= 0;
}

/* Does only node i read v, and nobody outside? */
static bool is_only_reader(const struct mo_graph *g, mo_value_id v, mo_node_id i)
{
    mo_node_id users[2];
    return !g->values[v].is_output && g->values[v].n_uses == 1 && mo_value_users(g, v, users, 2) == 1 && users[0] == i;
}

/* The Q behind the clip makes it redundant; symmetric parameters do not for a Relu. */
static enum mo_q_role clip_role(const struct planner *p, mo_node_id i)
{
    const struct mo_node *n = &p->g->nodes[i];
    float low, high;
    mo_value_id u = n->in[0], y = n->out[0];
    mo_node_id producer = u == MO_NONE ? MO_NONE : p->g->values[u].producer;
    if (producer == MO_NONE || !p->plan->is_candidate[i] || p->plan->role[producer] != MO_Q_INT8 ||
        p->g->nodes[producer].op->quant.kind == MO_QUANT_MOVE || !is_only_reader(p->g, u, i) ||
        !clip_bounds(p->g, n, &low, &high))
        return MO_Q_FLOAT;
    if (!mo_quant_must_end_in_q(&p->g->nodes[producer]) && !p->demand[y])
        return MO_Q_FLOAT;
    return p->form->symmetric && !(low == -high) ? MO_Q_KEPT_CLIP : MO_Q_ABSORBED;
}

/* ---- supply and demand ---------------------------------------------------------------------------- */

/* Backwards: which values does an int8 node read? Through a clip that vanishes, demand goes on to its input. */
static void spread_demand(struct planner *p)
{
    memset(p->demand, 0, p->g->n_values * sizeof *p->demand);
    for (mo_node_id i = p->g->n_nodes; i-- > 0;) {
        const struct mo_node *n = &p->g->nodes[i];
        if (p->plan->role[i] == MO_Q_INT8) {
            bool wants = n->op->quant.kind == MO_QUANT_WEIGHTED;
            for (uint32_t k = 0; k < n->n_out; k++)
                wants = wants || (n->out[k] != MO_NONE && p->demand[n->out[k]]);
            for (uint32_t k = 0; k < n->n_in && wants; k++)
                if (mo_quant_reads_q(p->g, n, k) && !mo_in(p->g, n, k)->data)
                    p->demand[n->in[k]] = true;
        } else if (p->plan->is_candidate[i] && n->op->quant.kind == MO_QUANT_CLIP && n->in[0] != MO_NONE) {
            p->demand[n->in[0]] = p->demand[n->in[0]] || p->demand[n->out[0]];
        }
    }
}

static bool stays_int8(const struct planner *p, mo_node_id i)
{
    const struct mo_node *n = &p->g->nodes[i];
    bool any = false, all_firm = true, any_input = false, wanted = false;
    if (n->op->quant.kind == MO_QUANT_WEIGHTED && mo_quant_has_weight(p->g, n))
        return true;
    for (uint32_t k = 0; k < n->n_out; k++)
        wanted = wanted || (n->out[k] != MO_NONE && p->demand[n->out[k]]);
    for (uint32_t k = 0; k < n->n_in; k++) {
        if (!mo_quant_reads_q(p->g, n, k) || mo_in(p->g, n, k)->data)
            continue;
        any = any || p->supply[n->in[k]];
        all_firm = all_firm && p->supply[n->in[k]] == FIRM;
        any_input = any_input || mo_in(p->g, n, k)->is_input;
    }
    if (n->op->quant.kind == MO_QUANT_WEIGHTED)
        return any || wanted;           /* a product of two activations */
    if (n->op->quant.kind == MO_QUANT_MOVE)
        return all_firm || (wanted && (any || any_input));
    return all_firm || (wanted && any);
}

/* Forwards, settling roles on the way; true when one changed. */
static bool settle(struct planner *p)
{
    bool changed = false;
    memset(p->supply, 0, p->g->n_values);
    spread_demand(p);
    for (mo_node_id i = 0; i < p->g->n_nodes; i++) {
        const struct mo_node *n = &p->g->nodes[i];
        enum mo_q_role was = p->plan->role[i], *role = &p->plan->role[i];
        uint8_t gives = 0;
        if (was == MO_Q_INT8 && !stays_int8(p, i)) {
            *role = MO_Q_FLOAT;
            p->plan->why[i] = "its neighbours compute in float";
        }
        if (n->op && n->op->quant.kind == MO_QUANT_CLIP)
            *role = clip_role(p, i);
        if (*role == MO_Q_INT8)
            gives = mo_quant_must_end_in_q(n) ? FIRM : LOOSE;
        else if (*role != MO_Q_FLOAT)
            gives = p->supply[n->in[0]];
        for (uint32_t k = 0; k < n->n_out; k++)
            if (n->out[k] != MO_NONE)
                p->supply[n->out[k]] = gives;
        changed = changed || *role != was;
    }
    return changed;
}

/* ---- values and groups -------------------------------------------------------------------------------- */

/* v of an int8 node whose Relu or Clip stands between it and its Q has none itself. */
static mo_node_id clip_behind(const struct mo_graph *g, const struct mo_quant_plan *plan, mo_value_id v)
{
    mo_node_id user;
    if (g->values[v].n_uses != 1 || mo_value_users(g, v, &user, 1) != 1)
        return MO_NONE;
    return plan->role[user] == MO_Q_ABSORBED || plan->role[user] == MO_Q_KEPT_CLIP ? user : MO_NONE;
}

mo_value_id mo_quant_shown(const struct mo_graph *g, const struct mo_quant_plan *plan, mo_node_id i)
{
    mo_value_id y = g->nodes[i].n_out ? g->nodes[i].out[0] : MO_NONE;
    mo_node_id clip = y == MO_NONE ? MO_NONE : clip_behind(g, plan, y);
    return clip == MO_NONE ? y : g->nodes[clip].out[0];
}

static void mark_values(struct planner *p)
{
    const struct mo_graph *g = p->g;
    bool *is_q = p->plan->is_q;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (p->plan->role[i] != MO_Q_INT8)
            continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (mo_quant_reads_q(g, n, k) && !mo_in(g, n, k)->data)
                is_q[n->in[k]] = true;
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (p->plan->role[i] != MO_Q_INT8)
            continue;
        for (uint32_t k = 0; k < n->n_out; k++) {
            mo_value_id v = n->out[k];
            if (v == MO_NONE)
                continue;
            mo_node_id clip = clip_behind(g, p->plan, v);
            if (clip != MO_NONE)
                is_q[g->nodes[clip].out[0]] = true;
            else if (mo_quant_must_end_in_q(n))
                is_q[v] = true;
        }
    }
}

/* Values through data movers share a group; nodes come in topological order, so inputs are settled first. */
static enum mopt_status make_groups(struct planner *p)
{
    const struct mo_graph *g = p->g;
    struct mo_quant_plan *plan = p->plan;
    plan->groups = mo_arena_new(p->job->scratch, MO_MAX(g->n_values, 1u), sizeof *plan->groups);
    if (!plan->groups)
        return mo_no_memory(p->job->ctx, g->n_values * sizeof *plan->groups, "the plan");
    for (uint32_t v = 0; v < g->n_values; v++)
        plan->group[v] = MO_NONE;
    for (uint32_t step = 0; step < g->n_values + g->n_nodes; step++) {
        /* first the values that no node makes, then the outputs of the nodes */
        const struct mo_node *n = step < g->n_values ? NULL : &g->nodes[step - g->n_values];
        for (uint32_t k = 0; k < (n ? n->n_out : 1); k++) {
            mo_value_id v = n ? n->out[k] : step;
            if (v == MO_NONE || !plan->is_q[v] || (!n && g->values[v].producer != MO_NONE))
                continue;
            bool moved = n && plan->role[step - g->n_values] == MO_Q_INT8 && n->op->quant.kind == MO_QUANT_MOVE;
            if (moved) {
                plan->group[v] = plan->group[n->in[0]];
                continue;
            }
            plan->group[v] = plan->n_groups;
            struct mo_quant_group *group = &plan->groups[plan->n_groups++];
            *group = (struct mo_quant_group){ .source = v, .clip_low = -INFINITY, .clip_high = INFINITY,
                                              .scale_id = MO_NONE, .zero_id = MO_NONE };
            if (n && n->op && n->op->quant.kind == MO_QUANT_CLIP)
                clip_bounds(g, n, &group->clip_low, &group->clip_high);
        }
    }
    return MOPT_OK;
}

enum mopt_status mo_quant_plan(struct mo_job *job, const struct mo_graph *g, const struct mo_quant_form *form,
                               const enum mo_quant_wish *wish, struct mo_quant_plan *plan)
{
    uint32_t n_values = MO_MAX(g->n_values, 1u), n_nodes = MO_MAX(g->n_nodes, 1u);
    struct planner p = { .job = job, .g = g, .form = form, .plan = plan };
    *plan = (struct mo_quant_plan){ .n_nodes = g->n_nodes, .n_values = g->n_values };
    plan->role = mo_arena_new(job->scratch, n_nodes, sizeof *plan->role);
    plan->why = mo_arena_new(job->scratch, n_nodes, sizeof *plan->why);
    plan->is_candidate = mo_arena_new(job->scratch, n_nodes, sizeof *plan->is_candidate);
    plan->is_q = mo_arena_new(job->scratch, n_values, sizeof *plan->is_q);
    plan->group = mo_arena_new(job->scratch, n_values, sizeof *plan->group);
    p.supply = mo_arena_new(job->scratch, n_values, sizeof *p.supply);
    p.demand = mo_arena_new(job->scratch, n_values, sizeof *p.demand);
    if (!plan->role || !plan->why || !plan->is_candidate || !plan->is_q || !plan->group || !p.supply || !p.demand)
        return mo_no_memory(job->ctx, n_values * 16, "the plan");
    find_candidates(&p, wish);
    while (settle(&p))
        ;
    mark_values(&p);
    return make_groups(&p);
}

void mo_quant_params(struct mo_quant_group *group, const struct mo_quant_form *form)
{
    double low = MO_MIN(MO_MAX(group->range.low, group->clip_low), 0.0f);
    double high = MO_MAX(MO_MIN(group->range.high, group->clip_high), 0.0f);
    int q_min = form->act == MO_U8 ? 0 : -128, q_max = form->act == MO_U8 ? 255 : 127;
    if (form->symmetric) {
        double reach = MO_MAX(-low, high);
        group->scale = reach > 0 ? MO_MAX((float)(reach / q_max), 1e-30f) : 1.0f;
        group->zero = 0;
        return;
    }
    group->scale = high > low ? MO_MAX((float)((high - low) / 255), 1e-30f) : 1.0f;
    double zero = q_min + rint(-low / group->scale);
    group->zero = (int32_t)MO_MIN(MO_MAX(zero, q_min), q_max);
}
