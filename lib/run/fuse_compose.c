/* fuse_compose.c - what exports write as several operators and one kernel does:
 *
 *   x / 2 (1 + erf(x / sqrt 2))         Gelu, whatever opset the file has
 *   MatMul, then Add of one row         MatMul with a bias (fused.h)
 *
 * For every plan, also in training: there the passes over memory that go away are
 * most of what a transformer does beside its products. */
#include <math.h>

#include "lib/run/fused.h"
#include "lib/run/private.h"

static struct mo_node *maker_of(struct mo_graph *g, mo_value_id v, const char *type)
{
    if (v == MO_NONE || g->values[v].n_uses != 1 || g->values[v].is_output || g->values[v].producer == MO_NONE)
        return NULL;
    struct mo_node *n = &g->nodes[g->values[v].producer];
    return !n->is_dead && mo_node_is(n, type) && n->n_out == 1 ? n : NULL;
}

/* The one node that reads v, when it is of that type. */
static struct mo_node *reader_of(struct mo_graph *g, mo_value_id v, const char *type)
{
    mo_node_id id;
    if (g->values[v].n_uses != 1 || g->values[v].is_output || mo_value_users(g, v, &id, 1) != 1)
        return NULL;
    struct mo_node *n = &g->nodes[id];
    return !n->is_dead && mo_node_is(n, type) ? n : NULL;
}

static bool is_number(const struct mo_graph *g, mo_value_id v, double x)
{
    double is;
    return v != MO_NONE && g->values[v].data && mo_value_scalar(&g->values[v], &is) && fabs(is - x) < 1e-5 * fabs(x);
}

/* Of two operands the one beside the number x; MO_NONE: neither is it. */
static mo_value_id beside(const struct mo_graph *g, const struct mo_node *n, double x)
{
    if (n->n_in != 2 || n->in[0] == MO_NONE || n->in[1] == MO_NONE)
        return MO_NONE;
    return is_number(g, n->in[1], x) ? n->in[0] : is_number(g, n->in[0], x) ? n->in[1] : MO_NONE;
}

/* The half stands behind the product of x and the rest, or at x before it: the node that gives the result, and in
 * *half the other one of the two products. */
static struct mo_node *last_of_gelu(struct mo_graph *g, struct mo_node *product, mo_value_id rest, mo_value_id x,
                                    struct mo_node **half)
{
    mo_value_id other = product->in[product->in[0] == rest];
    *half = product;
    if (other == x) {
        struct mo_node *last = reader_of(g, product->out[0], "Mul");
        return last && beside(g, last, 0.5) == product->out[0] ? last : NULL;
    }
    *half = maker_of(g, other, "Mul");
    return *half && beside(g, *half, 0.5) == x ? product : NULL;
}

static enum mopt_status make_gelu(struct mo_run *run, struct mo_graph *g, mo_node_id i)
{
    struct mo_node *erf = &g->nodes[i], *half;
    struct mo_node *div = maker_of(g, erf->in[0], "Div"), *mul = div ? NULL : maker_of(g, erf->in[0], "Mul");
    mo_value_id x = div && is_number(g, div->in[1], sqrt(2)) ? div->in[0] : mul ? beside(g, mul, sqrt(0.5)) : MO_NONE;
    struct mo_node *add = x == MO_NONE ? NULL : reader_of(g, erf->out[0], "Add");
    if (!add || beside(g, add, 1) != erf->out[0] || g->values[x].dtype != MO_F32)
        return MOPT_OK;
    struct mo_node *product = reader_of(g, add->out[0], "Mul");
    struct mo_node *last = product ? last_of_gelu(g, product, add->out[0], x, &half) : NULL;
    if (!last || !mo_shape_equal(&g->values[last->out[0]].shape, &g->values[x].shape))
        return MOPT_OK;
    mo_value_id y = last->out[0];
    erf->is_dead = add->is_dead = product->is_dead = last->is_dead = half->is_dead = true;
    (div ? div : mul)->is_dead = true;
    return mo_graph_add_node(g, "Gelu", "mopt", "", &x, 1, &y, 1) == MO_NONE
               ? mo_no_memory(run->ctx, sizeof(struct mo_node), "fusing nodes") : MOPT_OK;
}

/* Does v add one row, for each column one number? */
static bool is_row(const struct mo_graph *g, mo_value_id v, const struct mo_shape *y)
{
    if (v == MO_NONE || y->rank < 2)
        return false;
    const struct mo_value *row = &g->values[v];
    return row->dtype == MO_F32 && row->shape.rank >= 1 && row->shape.rank <= y->rank &&
           row->shape.dim[row->shape.rank - 1] == y->dim[y->rank - 1] && mo_value_elems(row) == y->dim[y->rank - 1];
}

static enum mopt_status draw_bias(struct mo_run *run, struct mo_graph *g, mo_node_id i)
{
    struct mo_node *add = &g->nodes[i];
    for (uint32_t k = 0; k < 2; k++) {
        struct mo_node *n = maker_of(g, add->in[k], "MatMul");
        mo_value_id row = add->in[1 - k], from = add->in[k];
        if (!n || n->n_in != 2 || mo_fused_read(n).act != MO_ACT_NONE || g->values[from].dtype != MO_F32 ||
            !is_row(g, row, &g->values[from].shape) ||
            !mo_shape_equal(&g->values[from].shape, &g->values[add->out[0]].shape) || g->values[row].producer != MO_NONE)
            continue;
        mo_node_id id = (mo_node_id)(n - g->nodes);
        mo_value_id *in = mo_arena_new(g->arena, 3, sizeof *in);
        if (!in || !mo_node_set_int(g, id, MO_FUSED_RESIDUAL, 1))
            return mo_no_memory(run->ctx, 3 * sizeof *in, "fusing nodes");
        n = &g->nodes[id];
        in[0] = n->in[0];
        in[1] = n->in[1];
        in[2] = row;
        n->in = in;
        n->n_in = 3;
        n->out[0] = g->nodes[i].out[0];
        g->values[n->out[0]].producer = id;
        g->nodes[i].is_dead = true;
        return MOPT_OK;
    }
    return MOPT_OK;
}

enum mopt_status mo_fuse_compose(struct mo_run *run, struct mo_graph *g)
{
    MO_TRY(mo_fuse_attention(run, g));
    uint32_t n_nodes = g->n_nodes;
    for (mo_node_id i = 0; i < n_nodes; i++) {
        if (!g->nodes[i].is_dead && mo_node_is(&g->nodes[i], "Erf") && g->nodes[i].in[0] != MO_NONE)
            MO_TRY(make_gelu(run, g, i));
        if (!g->nodes[i].is_dead && mo_node_is(&g->nodes[i], "Add") && g->nodes[i].n_in == 2)
            MO_TRY(draw_bias(run, g, i));
    }
    return mo_graph_sort(run->ctx, g);
}
