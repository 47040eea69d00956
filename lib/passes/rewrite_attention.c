/* rewrite_attention.c - attention that exporters wrote out in parts (lib/run/attention.h) as one Attention of opset 23:
 *
 *   softmax(scale Q K^T + mask) V
 *
 * Operands of rank 4 stay as they are (batch, heads, positions, size); rank 3 (batch, positions, size) is one head.
 * A Transpose of K is dropped, or made anew with the axes that are left. A mask has the rows and columns of the scores, since
 * ONNX Runtime asks for that: a mask with one row for all queries is widened by an Expand where their number is known. */
#include <math.h>
#include <string.h>

#include "lib/passes/rewrite.h"
#include "lib/run/attention.h"

static int64_t dim_of(const struct mo_graph *g, const struct mo_attention_operand *o, int i)
{
    return g->values[o->v].shape.dim[o->axis[i]];
}

/* Where MatMul would repeat a batch or a head, Attention does not: sizes are equal, or known of neither. */
static bool sizes_agree(const struct mo_graph *g, const struct mo_attention_parts *f)
{
    for (int i = 0; i < f->rank - 2; i++)
        if (dim_of(g, &f->q, i) != dim_of(g, &f->k, i) || dim_of(g, &f->q, i) != dim_of(g, &f->v, i))
            return false;
    return g->values[f->q.v].dtype == MO_F32 && g->values[f->k.v].dtype == MO_F32 && g->values[f->v.v].dtype == MO_F32;
}

/* Whether Attention takes the mask; *widen: once it has the rows. */
static bool fits_mask(const struct mo_graph *g, const struct mo_attention_parts *f, bool *widen)
{
    const struct mo_value *mask = &g->values[f->mask];
    const struct mo_shape *m = &mask->shape;
    int64_t queries = dim_of(g, &f->q, f->rank - 2), keys = dim_of(g, &f->k, f->rank - 2);
    *widen = false;
    if (mask->dtype != MO_F32 || m->rank < 2 || m->rank > f->rank || queries < 1 || m->dim[m->rank - 1] != keys)
        return false;
    *widen = m->dim[m->rank - 2] == 1 && queries > 1;
    if (!*widen && m->dim[m->rank - 2] != queries)
        return false;
    for (int i = 0; i < m->rank - 2; i++) {
        int64_t of_scores = dim_of(g, &f->q, f->rank - m->rank + i);
        if (m->dim[i] != 1 && (f->rank == 3 || m->dim[i] != of_scores))     /* of rank 3 it would be a batch of heads */
            return false;
    }
    return true;
}

/* A node that makes one value out of these. */
static enum mopt_status add(struct mo_rewrite *r, const char *type, const char *name, const mo_value_id *in, uint32_t n_in,
                            mo_value_id *y, mo_node_id *id)
{
    const struct mo_shape unknown = { .rank = MO_UNKNOWN };
    *y = mo_graph_add_value(r->g, name, r->g->values[in[0]].dtype, &unknown);
    *id = *y == MO_NONE ? MO_NONE : mo_graph_add_node(r->g, type, NULL, r->g->values[*y].name, in, n_in, y, 1);
    return *id == MO_NONE ? mo_no_memory(r->ctx, sizeof(struct mo_node), "a node") : MOPT_OK;
}

/* The operand with its axes in order. */
static enum mopt_status turn(struct mo_rewrite *r, const struct mo_attention_operand *o, int rank, mo_value_id *v)
{
    mo_node_id id;
    bool is_turned = false;
    for (int i = 0; i < rank; i++)
        is_turned = is_turned || o->axis[i] != i;
    *v = o->v;
    if (!is_turned)
        return MOPT_OK;
    MO_TRY(add(r, "Transpose", "attention_heads", &o->v, 1, v, &id));
    return mo_node_set_ints(r->g, id, "perm", o->axis, (size_t)rank) ? MOPT_OK
                                                                       : mo_no_memory(r->ctx, 64, "an attribute");
}

/* The mask with a row for each query. */
static enum mopt_status widen(struct mo_rewrite *r, int64_t queries, mo_value_id *mask)
{
    int64_t target[2] = { queries, 1 };
    struct mo_shape two = { .rank = 1, .dim = { 2 } };
    mo_node_id id;
    mo_value_id shape = mo_graph_add_const(r->g, "attention_mask_rows", MO_I64, &two, target);
    if (shape == MO_NONE)
        return mo_no_memory(r->ctx, sizeof target, "the shape of a mask");
    return add(r, "Expand", "attention_mask", (mo_value_id[]){ *mask, shape }, 2, mask, &id);
}

enum mopt_status mo_rewrite_attention(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    struct mo_attention_parts f;
    bool is_wide = false;
    if (g->opset < 23 || !mo_attention_find(g, i, &f) || !sizes_agree(g, &f) || !(f.scale > 0) || isinf(f.scale) ||
        (f.mask != MO_NONE && !fits_mask(g, &f, &is_wide)))
        return MOPT_OK;
    int64_t queries = dim_of(g, &f.q, f.rank - 2);
    mo_value_id in[4];
    MO_TRY(turn(r, &f.q, f.rank, &in[0]));
    MO_TRY(turn(r, &f.k, f.rank, &in[1]));
    MO_TRY(turn(r, &f.v, f.rank, &in[2]));
    in[3] = f.mask;
    if (is_wide)
        MO_TRY(widen(r, queries, &in[3]));
    MO_TRY(mo_rewrite_become(r, f.mix, "Attention", in, f.mask == MO_NONE ? 3 : 4));
    for (int k = 0; k < f.n_parts; k++)
        if (f.parts[k] != f.mix)
            mo_graph_kill(g, f.parts[k]);
    r->n_changes++;
    bool done = mo_node_set_float(g, f.mix, "scale", (float)f.scale);
    if (done && f.rank == 3)
        done = mo_node_set_int(g, f.mix, "q_num_heads", 1) && mo_node_set_int(g, f.mix, "kv_num_heads", 1);
    return done ? MOPT_OK : mo_no_memory(r->ctx, 64, "an attribute");
}
