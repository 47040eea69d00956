/* attention.c - finding MatMul, a scale, a mask, Softmax, MatMul. Scales may stand at Q, at K or at the scores; the mask is
 * added; the probabilities may pass a Where that takes NaN for 0; Transposes of Q, K and V become an order of axes, as
 * long as the last axis stays the last. */
#include "lib/run/attention.h"

#include <math.h>

#include "lib/run/fused.h"

const struct mo_node *mo_attention_maker(const struct mo_graph *g, mo_value_id v, const char *type)
{
    if (v == MO_NONE || g->values[v].n_uses != 1 || g->values[v].is_output || g->values[v].producer == MO_NONE)
        return NULL;
    const struct mo_node *n = &g->nodes[g->values[v].producer];
    return !n->is_dead && mo_node_is(n, type) && n->n_out == 1 ? n : NULL;
}

const struct mo_node *mo_attention_reader(const struct mo_graph *g, mo_value_id v, const char *type)
{
    mo_node_id id;
    if (g->values[v].n_uses != 1 || g->values[v].is_output || mo_value_users(g, v, &id, 1) != 1)
        return NULL;
    const struct mo_node *n = &g->nodes[id];
    return !n->is_dead && mo_node_is(n, type) && n->n_out == 1 ? n : NULL;
}

bool mo_attention_note(const struct mo_graph *g, struct mo_attention_parts *f, const struct mo_node *n)
{
    if (f->n_parts == (int)MO_COUNT(f->parts))
        return false;
    f->parts[f->n_parts++] = (mo_node_id)(n - g->nodes);
    return true;
}

/* One number, not trained: times it, or divided by it. MO_NONE, or what it scales. */
static mo_value_id scaled(const struct mo_graph *g, mo_value_id v, double *scale, const struct mo_node **node)
{
    const struct mo_node *mul = mo_attention_maker(g, v, "Mul"), *n = mul ? mul : mo_attention_maker(g, v, "Div");
    double x;
    for (uint32_t k = 0; n && n->n_in == 2 && k < 2; k++) {
        const struct mo_value *number = mo_in(g, n, 1 - k);
        if ((k && !mul) || !number || !number->data || mo_value_elems(number) != 1 || !mo_value_scalar(number, &x) || x == 0)
            continue;
        if (n->in[k] == MO_NONE || g->values[n->in[k]].shape.rank != g->values[v].shape.rank)
            continue;
        *scale *= mul ? x : 1 / x;
        *node = n;
        return n->in[k];
    }
    return MO_NONE;
}

static bool is_swap(const int64_t *perm, size_t count)
{
    return perm && count == 3 && perm[0] == 0 && perm[1] == 2 && perm[2] == 1;
}

/* Reshape to three axes, the last two swapped, Reshape to the axes that there were: what is before it, or MO_NONE. */
static mo_value_id swapped_flat(const struct mo_graph *g, mo_value_id v, struct mo_attention_parts *f)
{
    const struct mo_node *back = mo_attention_maker(g, v, "Reshape");
    const struct mo_node *swap = back ? mo_attention_maker(g, back->in[0], "Transpose") : NULL;
    const struct mo_node *flat = swap ? mo_attention_maker(g, swap->in[0], "Reshape") : NULL;
    size_t count = 0;
    const int64_t *perm = swap ? mo_node_ints(swap, "perm", &count) : NULL;
    if (!flat || f->rank != 4 || flat->in[0] == MO_NONE || !is_swap(perm, count))
        return MO_NONE;
    const struct mo_shape *x = &g->values[flat->in[0]].shape, *middle = &g->values[flat->out[0]].shape;
    const struct mo_shape *y = &g->values[v].shape;
    if (!mo_shape_known(x) || !mo_shape_known(middle) || !mo_shape_known(y) || x->rank != 4 || y->rank != 4 ||
        middle->rank != 3 || middle->dim[1] != x->dim[2] || middle->dim[2] != x->dim[3] || y->dim[0] != x->dim[0] ||
        y->dim[1] != x->dim[1] || y->dim[2] != x->dim[3] || y->dim[3] != x->dim[2])
        return MO_NONE;
    return mo_attention_note(g, f, back) && mo_attention_note(g, f, swap) && mo_attention_note(g, f, flat) ? flat->in[0]
                                                                                                            : MO_NONE;
}

static void swap_last(struct mo_attention_operand *o, int rank)
{
    for (int i = 0; i < rank; i++)
        o->axis[i] = o->axis[i] == rank - 1 ? rank - 2 : o->axis[i] == rank - 2 ? rank - 1 : o->axis[i];
}

/* Up through Transposes and scales; false where the last logical axis is not dense. */
static bool walk_up(const struct mo_graph *g, struct mo_attention_parts *f, mo_value_id v, bool is_turned, bool may_scale,
                    struct mo_attention_operand *o)
{
    for (int i = 0; i < f->rank; i++)
        o->axis[i] = i;
    if (is_turned)
        swap_last(o, f->rank);
    for (;;) {
        const struct mo_node *n = mo_attention_maker(g, v, "Transpose");
        size_t count = 0;
        const int64_t *perm = n ? mo_node_ints(n, "perm", &count) : NULL;
        mo_value_id from = swapped_flat(g, v, f);
        if (from != MO_NONE) {
            swap_last(o, f->rank);
            v = from;
            continue;
        }
        if (perm && count == (size_t)f->rank) {
            for (int i = 0; i < f->rank; i++)
                o->axis[i] = perm[o->axis[i]];
            v = n->in[0];
        } else {
            from = may_scale ? scaled(g, v, &f->scale, &n) : MO_NONE;
            if (from == MO_NONE)
                break;
            v = from;
        }
        if (!mo_attention_note(g, f, n))
            return false;
    }
    o->v = v;
    return v != MO_NONE && o->axis[f->rank - 1] == f->rank - 1 && g->values[v].shape.rank == f->rank;
}

/* From scaled scores up to the product of Q and K. */
static const struct mo_node *product_of(const struct mo_graph *g, mo_value_id v, struct mo_attention_parts *f)
{
    const struct mo_node *n;
    for (mo_value_id from; (from = scaled(g, v, &f->scale, &n)) != MO_NONE; v = from)
        if (!mo_attention_note(g, f, n))
            return NULL;
    return mo_attention_maker(g, v, "MatMul");
}

/* From the Softmax up, with or without a mask. */
static const struct mo_node *find_scores(const struct mo_graph *g, mo_value_id v, struct mo_attention_parts *f)
{
    const struct mo_node *add = mo_attention_maker(g, v, "Add"), *product;
    if (!add || add->n_in != 2)
        return product_of(g, v, f);
    int n_parts = f->n_parts;
    for (uint32_t k = 0; k < 2; k++) {
        f->n_parts = n_parts;
        f->scale = 1;
        f->mask = add->in[1 - k];
        product = product_of(g, add->in[k], f);
        if (product && f->mask != MO_NONE)
            return mo_attention_note(g, f, add) ? product : NULL;
    }
    return NULL;
}

static bool is_plain(const struct mo_node *n)
{
    return n && n->n_in == 2 && mo_node_int(n, MO_FUSED_ACT, 0) == 0;
}

/* The Where of where(isnan(p), 0, p), which exporters put behind a Softmax that may see nothing but minus infinity: noted, with
 * its IsNaN; NULL: there is none. */
static const struct mo_node *find_guard(const struct mo_graph *g, mo_value_id p, struct mo_attention_parts *f)
{
    mo_node_id users[2];
    double other;
    if (g->values[p].n_uses != 2 || g->values[p].is_output || mo_value_users(g, p, users, 2) != 2)
        return NULL;
    for (int k = 0; k < 2; k++) {
        const struct mo_node *where = &g->nodes[users[k]], *test;
        if (where->is_dead || !mo_node_is(where, "Where") || where->n_in != 3 || where->in[2] != p || where->in[1] == MO_NONE)
            continue;
        const struct mo_value *zero = &g->values[where->in[1]];
        test = mo_attention_maker(g, where->in[0], "IsNaN");
        if (test && test->in[0] == p && zero->data && mo_value_scalar(zero, &other) && other == 0)
            return mo_attention_note(g, f, test) && mo_attention_note(g, f, where) ? where : NULL;
    }
    return NULL;
}

bool mo_attention_find(const struct mo_graph *g, mo_node_id softmax, struct mo_attention_parts *f)
{
    const struct mo_node *n = &g->nodes[softmax];
    if (n->is_dead || !mo_node_is(n, "Softmax") || n->n_in != 1 || n->n_out != 1)
        return false;
    *f = (struct mo_attention_parts){ .rank = mo_out(g, n, 0)->shape.rank, .mask = MO_NONE, .scale = 1 };
    int64_t axis = mo_node_int(n, "axis", g->opset < 13 ? 1 : -1);
    if ((f->rank != 3 && f->rank != 4) || (axis != -1 && axis != f->rank - 1) || !mo_attention_note(g, f, n))
        return false;
    const struct mo_node *guard = find_guard(g, n->out[0], f);
    mo_value_id p = guard ? guard->out[0] : n->out[0];
    const struct mo_node *mix = mo_attention_reader(g, p, "MatMul");
    if (!is_plain(mix) || mix->in[0] != p)
        return false;
    const struct mo_node *product = find_scores(g, n->in[0], f);
    if (!is_plain(product) || !mo_attention_note(g, f, mix) || !mo_attention_note(g, f, product) ||
        !walk_up(g, f, product->in[0], false, true, &f->q) || !walk_up(g, f, product->in[1], true, true, &f->k) ||
        !walk_up(g, f, mix->in[1], false, false, &f->v))
        return false;
    f->mix = (mo_node_id)(mix - g->nodes);
    f->y = mix->out[0];
    return true;
}
