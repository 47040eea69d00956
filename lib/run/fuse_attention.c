/* fuse_attention.c - attention that was found (attention.h) as one node (mopt.Attention), where the backend has it as one
 * kernel. The mask has no gradient; the order of the axes of Q, K, V and the result becomes steps. */
#include "lib/run/attention.h"
#include "lib/run/fused.h"
#include "lib/run/private.h"

/* The mask is added to scores and repeated along axes where it has size 1. */
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

/* All sizes agree, none is broadcast, and heads are no larger than the kernel takes. */
static bool sizes_agree(const struct mo_graph *g, const struct mo_attention_parts *f)
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

/* The shape of the scores, from Q and K. */
static struct mo_shape scores_of(const struct mo_graph *g, const struct mo_attention_parts *f)
{
    const struct mo_shape *q = &g->values[f->q.v].shape, *k = &g->values[f->k.v].shape;
    struct mo_shape s = { .rank = f->rank };
    for (int i = 0; i < f->rank; i++)
        s.dim[i] = i < f->rank - 1 ? q->dim[f->q.axis[i]] : k->dim[f->k.axis[f->rank - 2]];
    return s;
}

/* The Transpose behind the result goes into its axes. */
static void take_turn(const struct mo_graph *g, struct mo_attention_parts *f, int64_t axis[4])
{
    const struct mo_node *turn = mo_attention_reader(g, f->y, "Transpose");
    size_t count = 0;
    const int64_t *perm = turn ? mo_node_ints(turn, "perm", &count) : NULL;
    for (int i = 0; i < f->rank; i++)
        axis[i] = i;
    if (!perm || count != (size_t)f->rank || perm[f->rank - 1] != f->rank - 1 || !mo_attention_note(g, f, turn))
        return;
    for (int i = 0; i < f->rank; i++)
        axis[perm[i]] = i;
    f->y = turn->out[0];
}

static bool find(const struct mo_run *run, const struct mo_graph *g, mo_node_id i, struct mo_attention_parts *f)
{
    if (!mo_attention_find(g, i, f) || !sizes_agree(g, f))
        return false;
    struct mo_shape scores = scores_of(g, f);
    return f->mask == MO_NONE || fits_mask(g, run, f->mask, &scores);
}

enum mopt_status mo_fuse_attention(struct mo_run *run, struct mo_graph *g)
{
    uint32_t n_nodes = g->n_nodes;
    for (mo_node_id i = 0; i < n_nodes && run->be->fuses_attention && !run->options.half; i++) {
        struct mo_attention_parts f;
        int64_t y_axis[4];
        if (!find(run, g, i, &f))
            continue;
        take_turn(g, &f, y_axis);
        for (int k = 0; k < f.n_parts; k++)
            g->nodes[f.parts[k]].is_dead = true;
        const mo_value_id in[4] = { f.q.v, f.k.v, f.v.v, f.mask };
        mo_node_id id = mo_graph_add_node(g, "Attention", "mopt", "", in, f.mask == MO_NONE ? 3 : 4, &f.y, 1);
        size_t r = (size_t)f.rank;
        if (id == MO_NONE || !mo_node_set_ints(g, id, "mopt.q", f.q.axis, r) ||
            !mo_node_set_ints(g, id, "mopt.k", f.k.axis, r) || !mo_node_set_ints(g, id, "mopt.v", f.v.axis, r) ||
            !mo_node_set_ints(g, id, "mopt.y", y_axis, r) || !mo_node_set_float(g, id, "mopt.scale", (float)f.scale))
            return mo_no_memory(run->ctx, sizeof(struct mo_node), "fusing nodes");
    }
    return MOPT_OK;
}
