/* fuse_attention.c - MatMul, a scale, a mask, Softmax, MatMul, as exporters write attention: one node (mopt.Attention),
 * where the backend has it as one kernel. Scales may stand at Q, at K or at the scores; the mask is added, and has no
 * gradient; Transposes of Q, K, V and the result become steps, as long as the last axis stays the last. */
#include <string.h>

#include "lib/run/fused.h"
#include "lib/run/private.h"

/* An operand behind the Transposes before it: logical axis i is axis[i] of v. */
struct operand { mo_value_id v; int64_t axis[4]; };

struct found {
    struct operand q, k, v;
    mo_value_id mask, y;
    int64_t y_axis[4];
    int rank;
    double scale;
    mo_node_id parts[24];
    int n_parts;
};

static struct mo_node *maker(struct mo_graph *g, mo_value_id v, const char *type)
{
    if (v == MO_NONE || g->values[v].n_uses != 1 || g->values[v].is_output || g->values[v].producer == MO_NONE)
        return NULL;
    struct mo_node *n = &g->nodes[g->values[v].producer];
    return !n->is_dead && mo_node_is(n, type) && n->n_out == 1 ? n : NULL;
}

static struct mo_node *reader(struct mo_graph *g, mo_value_id v, const char *type)
{
    mo_node_id id;
    if (g->values[v].n_uses != 1 || g->values[v].is_output || mo_value_users(g, v, &id, 1) != 1)
        return NULL;
    struct mo_node *n = &g->nodes[id];
    return !n->is_dead && mo_node_is(n, type) && n->n_out == 1 ? n : NULL;
}

static bool note(const struct mo_graph *g, struct found *f, const struct mo_node *n)
{
    if (f->n_parts == (int)MO_COUNT(f->parts))
        return false;
    f->parts[f->n_parts++] = (mo_node_id)(n - g->nodes);
    return true;
}

/* One number, not trained: times it, or divided by it. MO_NONE, or what it scales. */
static mo_value_id scaled(struct mo_graph *g, mo_value_id v, double *scale, struct mo_node **node)
{
    struct mo_node *mul = maker(g, v, "Mul"), *n = mul ? mul : maker(g, v, "Div");
    double x;
    for (uint32_t k = 0; n && n->n_in == 2 && k < 2; k++) {
        const struct mo_value *number = mo_in(g, n, 1 - k);
        if ((k && !mul) || !number || !number->data || mo_value_elems(number) != 1 || !mo_value_scalar(number, &x) || x == 0)
            continue;
        if (g->values[n->in[k]].shape.rank != g->values[v].shape.rank)
            continue;
        *scale *= mul ? x : 1 / x;
        *node = n;
        return n->in[k];
    }
    return MO_NONE;
}

/* Up through Transposes and scales; false where the last logical axis is not dense. */
static bool walk_up(struct mo_graph *g, struct found *f, mo_value_id v, bool is_turned, bool may_scale, struct operand *o)
{
    for (int i = 0; i < f->rank; i++)
        o->axis[i] = i;
    if (is_turned) {
        o->axis[f->rank - 2] = f->rank - 1;
        o->axis[f->rank - 1] = f->rank - 2;
    }
    for (;;) {
        struct mo_node *n = maker(g, v, "Transpose");
        size_t count;
        const int64_t *perm = n ? mo_node_ints(n, "perm", &count) : NULL;
        if (perm && count == (size_t)f->rank) {
            for (int i = 0; i < f->rank; i++)
                o->axis[i] = perm[o->axis[i]];
            v = n->in[0];
        } else {
            mo_value_id from = may_scale ? scaled(g, v, &f->scale, &n) : MO_NONE;
            if (from == MO_NONE)
                break;
            v = from;
        }
        if (!note(g, f, n))
            return false;
    }
    o->v = v;
    return o->axis[f->rank - 1] == f->rank - 1 && g->values[v].shape.rank == f->rank;
}

/* The mask is added to scores of rank f->rank, and repeated along axes where it has size 1. */
static bool fits_mask(const struct mo_graph *g, const struct mo_run *run, mo_value_id v, const struct mo_shape *scores)
{
    const struct mo_value *m = &g->values[v];
    if (m->dtype != MO_F32 || !mo_shape_known(&m->shape) || m->shape.rank > scores->rank ||
        (run->options.train && !mo_is_real_input(g, v)))        /* else it may lead to a parameter, or be one */
        return false;
    for (int i = 0; i < m->shape.rank; i++) {
        int64_t want = scores->dim[scores->rank - m->shape.rank + i];
        if (m->shape.dim[i] != want && m->shape.dim[i] != 1)
            return false;
    }
    return true;
}

/* From the Softmax up to the product of Q and K. */
static struct mo_node *find_scores(struct mo_run *run, struct mo_graph *g, struct mo_node *softmax, struct found *f)
{
    mo_value_id v = softmax->in[0];
    struct mo_node *add = maker(g, v, "Add"), *n;
    for (uint32_t k = 0; add && add->n_in == 2 && k < 2; k++) {
        mo_value_id scores = add->in[k];
        if (!(maker(g, scores, "MatMul") || maker(g, scores, "Mul") || maker(g, scores, "Div")) ||
            !fits_mask(g, run, add->in[1 - k], &g->values[v].shape) || !note(g, f, add))
            continue;
        f->mask = add->in[1 - k];
        v = scores;
        break;
    }
    for (mo_value_id from; (from = scaled(g, v, &f->scale, &n)) != MO_NONE; v = from)
        if (!note(g, f, n))
            return NULL;
    return maker(g, v, "MatMul");
}

static bool is_plain(const struct mo_node *n)
{
    return n->n_in == 2 && mo_node_int(n, MO_FUSED_ACT, 0) == 0;
}

/* All sizes agree, none is broadcast, and heads are no larger than the kernel takes. */
static bool sizes_agree(const struct mo_graph *g, const struct found *f)
{
    const struct mo_shape *q = &g->values[f->q.v].shape, *k = &g->values[f->k.v].shape, *v = &g->values[f->v.v].shape;
    int r = f->rank;
    if (!mo_shape_known(q) || !mo_shape_known(k) || !mo_shape_known(v) || k->rank != r || v->rank != r ||
        g->values[f->q.v].dtype != MO_F32 || g->values[f->k.v].dtype != MO_F32 || g->values[f->v.v].dtype != MO_F32)
        return false;
    for (int i = 0; i < r - 2; i++)
        if (q->dim[f->q.axis[i]] != k->dim[f->k.axis[i]] || q->dim[f->q.axis[i]] != v->dim[f->v.axis[i]])
            return false;
    return q->dim[r - 1] == k->dim[r - 1] && k->dim[f->k.axis[r - 2]] == v->dim[f->v.axis[r - 2]] && q->dim[r - 1] > 0 &&
           v->dim[r - 1] > 0 && q->dim[r - 1] <= MO_ATTENTION_SIZE && v->dim[r - 1] <= MO_ATTENTION_SIZE;
}

static bool find(struct mo_run *run, struct mo_graph *g, struct mo_node *softmax, struct found *f)
{
    const struct mo_value *p = mo_out(g, softmax, 0);
    f->rank = p->shape.rank;
    f->mask = MO_NONE;
    f->scale = 1;
    int64_t axis = mo_node_int(softmax, "axis", g->opset < 13 ? 1 : -1);
    struct mo_node *mix = reader(g, softmax->out[0], "MatMul");
    if ((f->rank != 3 && f->rank != 4) || (axis != -1 && axis != f->rank - 1) || !mix || !is_plain(mix) ||
        mix->in[0] != softmax->out[0])
        return false;
    struct mo_node *product = find_scores(run, g, softmax, f);
    if (!product || !is_plain(product) || !note(g, f, softmax) || !note(g, f, mix) || !note(g, f, product) ||
        !walk_up(g, f, product->in[0], false, true, &f->q) || !walk_up(g, f, product->in[1], true, true, &f->k) ||
        !walk_up(g, f, mix->in[1], false, false, &f->v))
        return false;
    f->y = mix->out[0];
    for (int i = 0; i < f->rank; i++)
        f->y_axis[i] = i;
    struct mo_node *turn = reader(g, f->y, "Transpose");
    size_t count;
    const int64_t *perm = turn ? mo_node_ints(turn, "perm", &count) : NULL;
    if (perm && count == (size_t)f->rank && perm[f->rank - 1] == f->rank - 1 && note(g, f, turn)) {
        for (int i = 0; i < f->rank; i++)
            f->y_axis[perm[i]] = i;
        f->y = turn->out[0];
    }
    return sizes_agree(g, f);
}

enum mopt_status mo_fuse_attention(struct mo_run *run, struct mo_graph *g)
{
    uint32_t n_nodes = g->n_nodes;
    for (mo_node_id i = 0; i < n_nodes && run->be->fuses_attention && !run->options.half; i++) {
        struct found f = { .n_parts = 0 };
        if (g->nodes[i].is_dead || !mo_node_is(&g->nodes[i], "Softmax") || g->nodes[i].n_in != 1 ||
            !find(run, g, &g->nodes[i], &f))
            continue;
        for (int k = 0; k < f.n_parts; k++)
            g->nodes[f.parts[k]].is_dead = true;
        const mo_value_id in[4] = { f.q.v, f.k.v, f.v.v, f.mask };
        mo_node_id id = mo_graph_add_node(g, "Attention", "mopt", "", in, f.mask == MO_NONE ? 3 : 4, &f.y, 1);
        size_t r = (size_t)f.rank;
        if (id == MO_NONE || !mo_node_set_ints(g, id, "mopt.q", f.q.axis, r) ||
            !mo_node_set_ints(g, id, "mopt.k", f.k.axis, r) || !mo_node_set_ints(g, id, "mopt.v", f.v.axis, r) ||
            !mo_node_set_ints(g, id, "mopt.y", f.y_axis, r) || !mo_node_set_float(g, id, "mopt.scale", (float)f.scale))
            return mo_no_memory(run->ctx, sizeof(struct mo_node), "fusing nodes");
    }
    return MOPT_OK;
}
