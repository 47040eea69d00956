/* rewrite_gemm.c - products of matrices in the one form that every runtime has a fast kernel for. */
#include <string.h>

#include "lib/passes/rewrite.h"

/* x [rows, k] times constant w [k, columns]. */
static bool is_matrix_product(const struct mo_graph *g, const struct mo_node *mul)
{
    const struct mo_value *x = mo_in(g, mul, 0), *w = mo_in(g, mul, 1);
    return mo_node_is(mul, "MatMul") && x && w && w->data && !x->data && w->shape.rank == 2 && x->shape.rank == 2 &&
           w->dtype == MO_F32;
}

/* A constant of `columns` floats, [columns] or [1, columns]. */
static bool is_row(const struct mo_value *c, int64_t columns)
{
    return c->dtype == MO_F32 && (c->shape.rank == 1 || (c->shape.rank == 2 && c->shape.dim[0] == 1)) &&
           c->shape.dim[c->shape.rank - 1] == columns;
}

/* A new constant from a row, as a vector. */
static enum mopt_status as_vector(struct mo_rewrite *r, mo_value_id row, int64_t columns, mo_value_id *vector)
{
    *vector = row;
    if (r->g->values[row].shape.rank == 1 && r->g->values[row].shape.dim[0] == columns)
        return MOPT_OK;
    float *x = mo_value_floats(&r->g->values[row]);
    float *all = x ? mo_mem_new((size_t)columns, sizeof *all) : NULL;
    bool is_single = mo_value_elems(&r->g->values[row]) == 1;
    for (int64_t k = 0; all && k < columns; k++)
        all[k] = x[is_single ? 0 : k];
    struct mo_shape shape = { .rank = 1, .dim = { columns } };
    *vector = all ? mo_graph_add_const(r->g, r->g->values[row].name, MO_F32, &shape, all) : MO_NONE;
    mo_mem_free(x);
    mo_mem_free(all);
    return *vector == MO_NONE ? mo_no_memory(r->ctx, (uint64_t)columns * 4, "a bias") : MOPT_OK;
}

enum mopt_status mo_rewrite_make_gemm(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *add = &g->nodes[i];
    const struct mo_value *a = mo_in(g, add, 0), *b = mo_in(g, add, 1);
    if (!mo_node_is(add, "Add") || g->opset < 7 || add->n_in != 2 || !a || !b || !a->data == !b->data)
        return MOPT_OK;
    mo_node_id i_mul = mo_private_maker(g, add, a->data ? 1 : 0);
    if (i_mul == MO_NONE || !is_matrix_product(g, &g->nodes[i_mul]))
        return MOPT_OK;
    const struct mo_node *mul = &g->nodes[i_mul];
    int64_t columns = mo_in(g, mul, 1)->shape.dim[1];
    mo_value_id row = add->in[a->data ? 0 : 1];
    if (!is_row(&g->values[row], columns))
        return MOPT_OK;
    mo_value_id in[3] = { mul->in[0], mul->in[1], row };
    const char *name = mul->name;
    MO_TRY(as_vector(r, row, columns, &in[2]));
    mo_graph_kill(g, i_mul);
    g->nodes[i].name = name[0] ? name : g->nodes[i].name;
    r->n_changes++;
    return mo_rewrite_become(r, i, "Gemm", in, 3);
}

static enum mopt_status scale_constant(struct mo_rewrite *r, mo_node_id i, uint32_t k, float factor)
{
    struct mo_graph *g = r->g;
    mo_value_id v = g->nodes[i].in[k];
    struct mo_shape shape = g->values[v].shape;
    float *x = mo_value_floats(&g->values[v]);
    if (!x)
        return mo_no_memory(r->ctx, (uint64_t)mo_shape_elems(&shape) * 4, "folding");
    for (int64_t e = 0, n = mo_shape_elems(&shape); e < n; e++)
        x[e] *= factor;
    if (g->values[v].n_uses == 1) {
        mo_value_set_data(g, v, MO_F32, &shape, x);
        return MOPT_OK;
    }
    mo_value_id own = mo_graph_add_const(g, g->values[v].name, MO_F32, &shape, x);
    mo_mem_free(x);
    if (own == MO_NONE)
        return mo_no_memory(r->ctx, (uint64_t)mo_shape_elems(&shape) * 4, "folding");
    return mo_rewrite_set_input(r, i, k, own);
}

enum mopt_status mo_rewrite_tidy_gemm(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_value *w = mo_in(g, &g->nodes[i], 1), *b = mo_in(g, &g->nodes[i], 2);
    if (!mo_node_is(&g->nodes[i], "Gemm") || !w || !w->data || w->dtype != MO_F32 || w->shape.rank != 2 ||
        (b && (!b->data || b->dtype != MO_F32)))
        return MOPT_OK;
    float alpha = mo_node_float(&g->nodes[i], "alpha", 1), beta = mo_node_float(&g->nodes[i], "beta", 1);
    int64_t columns = w->shape.dim[mo_node_int(&g->nodes[i], "transB", 0) ? 0 : 1];
    if (alpha != 1) {
        MO_TRY(scale_constant(r, i, 1, alpha));
        mo_node_drop_attr(g, i, "alpha");
        r->n_changes++;
    }
    if (b && beta != 1) {
        MO_TRY(scale_constant(r, i, 2, beta));
        mo_node_drop_attr(g, i, "beta");
        r->n_changes++;
    }
    b = mo_in(g, &g->nodes[i], 2);
    bool fits = b && (is_row(b, columns) || mo_value_elems(b) == 1) && b->shape.rank <= 2;
    if (!fits || (b->shape.rank == 1 && b->shape.dim[0] == columns))
        return MOPT_OK;
    mo_value_id vector;
    MO_TRY(as_vector(r, g->nodes[i].in[2], columns, &vector));
    r->n_changes++;
    return mo_rewrite_set_input(r, i, 2, vector);
}

/* ---- Add of what is no constant ----------------------------------------------------------------- */

/* Whether Gemm may add c to its product, of shape y: each dimension is 1 or y's, for certain. */
static bool may_add(const struct mo_value *c, const struct mo_shape *y)
{
    if (c->dtype != MO_F32 || c->shape.rank < 1 || c->shape.rank > 2)
        return false;
    for (int k = 1; k <= c->shape.rank; k++) {
        int64_t dim = c->shape.dim[c->shape.rank - k], want = y->dim[2 - k];
        if (dim != 1 && (dim < 0 || dim != want))
            return false;
    }
    return true;
}

static bool is_product(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    return mo_node_is(n, "MatMul") && a && b && a->dtype == MO_F32 && b->dtype == MO_F32 && a->shape.rank == 2 &&
           b->shape.rank == 2 && !(a->data && b->data);
}

/* A MatMul becomes the Gemm that also adds c. */
static enum mopt_status become_gemm(struct mo_rewrite *r, mo_node_id i, const struct mo_node *mul, mo_value_id c)
{
    mo_value_id in[3] = { mul->in[0], mul->in[1], c };
    r->n_changes++;
    return mo_rewrite_become(r, i, "Gemm", in, 3);
}

/* x W + (y V) + c, in this order: the constant joins y V, which then has no node of its own for it. */
static enum mopt_status push_constant(struct mo_rewrite *r, mo_node_id i, mo_node_id gemm, mo_value_id c)
{
    struct mo_graph *g = r->g;
    mo_node_id mul = mo_private_maker(g, &g->nodes[gemm], 2);
    if (mul == MO_NONE || !is_product(g, &g->nodes[mul]) ||
        !may_add(&g->values[c], &mo_out(g, &g->nodes[mul], 0)->shape))
        return MOPT_OK;
    MO_TRY(become_gemm(r, mul, &g->nodes[mul], c));
    mo_rewrite_merge(r, gemm, i);
    return MOPT_OK;
}

enum mopt_status mo_rewrite_gemm_add(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *add = &g->nodes[i];
    const struct mo_value *y = mo_out(g, add, 0);
    if (!mo_node_is(add, "Add") || g->opset < 7 || add->n_in != 2 || !y || y->shape.rank != 2)
        return MOPT_OK;
    for (uint32_t k = 0; k < 2; k++) {
        mo_node_id maker = mo_private_maker(g, add, k);
        mo_value_id c = add->in[1 - k];
        if (maker == MO_NONE || c == MO_NONE || c == add->in[k])
            continue;
        const struct mo_node *n = &g->nodes[maker];
        bool has_term = mo_node_is(n, "Gemm") && mo_in(g, n, 2) && !mo_in(g, n, 2)->data;
        if (has_term && g->values[c].data && mo_node_float(n, "beta", 1) == 1)
            return push_constant(r, i, maker, c);
        if (!is_product(g, n) || !may_add(&g->values[c], &mo_out(g, n, 0)->shape))
            continue;
        mo_graph_kill(g, maker);
        return become_gemm(r, i, &g->nodes[maker], c);
    }
    return MOPT_OK;
}
