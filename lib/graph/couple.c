/* couple.c - the union-find behind couple.h, and its answer: channels in groups.
 *
 * Elements are numbered value by value, axis by axis. Every equation joins two
 * elements; flags of a class (some layer makes it) travel with its root. Walls
 * lie on whole axes, so that a group, which is a set of axes, is free or not as
 * a whole. */
#include "lib/graph/couple_solve.h"
#include "lib/graph/op.h"

#include <stdlib.h>
#include <string.h>

/* More elements than this are not a model but a mistake in a shape. */
#define MAX_ELEMS ((uint64_t)1 << 28)

struct reshape { mo_value_id a, b; mo_node_id node; };

struct mo_couple {
    struct mopt_ctx *ctx;
    const struct mo_graph *g;
    struct mo_channels *ch;
    uint32_t *parent;           /* by element */
    bool *is_made;              /* by root element: a layer makes it (MO_ROLE_OUT) */
    uint32_t *mark;             /* by root element, all zero between uses */
    uint32_t n_elems;
    mo_node_id node;            /* whose equations are being stated; MO_NONE: the graph's own */
    uint32_t cap_weights;
    struct reshape *reshapes; uint32_t n_reshapes, cap_reshapes;    /* those that wait for more to be known */
    bool no_memory;
};

/* ---- elements --------------------------------------------------------------------- */

static uint32_t find(struct mo_couple *c, uint32_t e)
{
    while (c->parent[e] != e) {
        c->parent[e] = c->parent[c->parent[e]];
        e = c->parent[e];
    }
    return e;
}

/* The smaller root stays, so that the result does not depend on the order of equations. */
static void join(struct mo_couple *c, uint32_t a, uint32_t b)
{
    a = find(c, a);
    b = find(c, b);
    uint32_t low = MO_MIN(a, b), high = MO_MAX(a, b);
    c->parent[high] = low;
    c->is_made[low] = c->is_made[low] || c->is_made[high];
}

static struct mo_couple_axis *axis_of(struct mo_couple *c, mo_value_id v, int axis)
{
    if (v >= c->ch->n_values || c->ch->value_axis[v] == MO_NONE)
        return NULL;
    if (axis < 0 || axis >= c->g->values[v].shape.rank)
        return NULL;
    return &c->ch->axes[c->ch->value_axis[v] + (uint32_t)axis];
}

static struct mo_couple_axis *state(struct mo_couple *c, mo_value_id v, int axis)
{
    struct mo_couple_axis *a = axis_of(c, v, axis);
    if (a)
        a->stated_by = c->node + 1;
    return a;
}

/* The first reason stays. */
static void wall(struct mo_couple *c, struct mo_couple_axis *a, const char *reason)
{
    if (a && !a->wall) {
        a->wall = reason;
        a->wall_node = c->node;
    }
}

/* Both axes of an equation; one that is not there walls the other. */
static bool state_two(struct mo_couple *c, mo_value_id a, int axis_a, mo_value_id b, int axis_b,
                      struct mo_couple_axis **out_a, struct mo_couple_axis **out_b)
{
    *out_a = state(c, a, axis_a);
    *out_b = state(c, b, axis_b);
    if (*out_a && *out_b)
        return true;
    wall(c, *out_a, "its shape is not known");
    wall(c, *out_b, "its shape is not known");
    return false;
}

static void misfit(struct mo_couple *c, struct mo_couple_axis *a, struct mo_couple_axis *b)
{
    wall(c, a, "its size differs from the axis it is tied to");
    wall(c, b, "its size differs from the axis it is tied to");
}

/* ---- what operators call ------------------------------------------------------------ */

void mo_couple_same(struct mo_couple *c, mo_value_id a, int axis_a, mo_value_id b, int axis_b)
{
    struct mo_couple_axis *x, *y;
    if (!state_two(c, a, axis_a, b, axis_b, &x, &y))
        return;
    if (x->n != y->n) {
        misfit(c, x, y);
        return;
    }
    for (uint32_t i = 0; i < x->n; i++)
        join(c, x->first + i, y->first + i);
}

void mo_couple_offset(struct mo_couple *c, mo_value_id a, int axis_a, int64_t offset_a, mo_value_id b, int axis_b,
                      int64_t offset_b, int64_t n)
{
    struct mo_couple_axis *x, *y;
    if (!state_two(c, a, axis_a, b, axis_b, &x, &y))
        return;
    if (offset_a < 0 || offset_b < 0 || n < 0 || offset_a > x->n || offset_b > y->n || n > x->n - offset_a ||
        n > y->n - offset_b) {
        misfit(c, x, y);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        join(c, x->first + (uint32_t)(offset_a + i), y->first + (uint32_t)(offset_b + i));
}

void mo_couple_spread(struct mo_couple *c, mo_value_id a, int axis_a, mo_value_id b, int axis_b, int64_t inner)
{
    struct mo_couple_axis *x, *y;
    if (!state_two(c, a, axis_a, b, axis_b, &x, &y))
        return;
    if (inner < 1 || (uint64_t)inner > MAX_ELEMS || (uint64_t)x->n * (uint64_t)inner != y->n) {
        misfit(c, x, y);
        return;
    }
    for (uint32_t j = 0; j < y->n; j++)
        join(c, x->first + (uint32_t)(j / inner), y->first + j);
}

void mo_couple_fold(struct mo_couple *c, mo_value_id a, int axis, int64_t block)
{
    struct mo_couple_axis *x = state(c, a, axis);
    if (!x)
        return;
    if (block < 1 || x->n % block) {
        wall(c, x, "its size is not a whole number of blocks");
        return;
    }
    for (uint32_t j = (uint32_t)block; j < x->n; j++)
        join(c, x->first + j, x->first + (uint32_t)(j % block));
}

void mo_couple_index(struct mo_couple *c, mo_value_id a, int axis_a, int64_t i, mo_value_id b, int axis_b, int64_t j)
{
    struct mo_couple_axis *x, *y;
    if (!state_two(c, a, axis_a, b, axis_b, &x, &y))
        return;
    if (i < 0 || j < 0 || i >= x->n || j >= y->n)
        misfit(c, x, y);
    else
        join(c, x->first + (uint32_t)i, y->first + (uint32_t)j);
}

void mo_couple_free(struct mo_couple *c, mo_value_id v, int axis)
{
    if (axis >= 0 || v >= c->ch->n_values) {
        state(c, v, axis);
        return;
    }
    for (int k = 0; k < c->g->values[v].shape.rank; k++)
        state(c, v, k);
}

void mo_couple_wall(struct mo_couple *c, mo_value_id v, int axis, const char *reason)
{
    if (axis >= 0 || v >= c->ch->n_values) {
        wall(c, state(c, v, axis), reason);
        return;
    }
    for (int k = 0; k < c->g->values[v].shape.rank; k++)
        wall(c, state(c, v, k), reason);
}

void mo_couple_weight(struct mo_couple *c, mo_node_id n, mo_value_id w, int axis, enum mo_couple_role role)
{
    struct mo_channels *ch = c->ch;
    struct mo_couple_axis *a = state(c, w, axis);
    if (!a)
        return;
    if (ch->n_weights == c->cap_weights) {
        uint32_t cap = MO_MAX(64u, c->cap_weights * 2);
        void *more = mo_mem_grow(ch->weights, ch->n_weights * sizeof(*ch->weights), cap * sizeof(*ch->weights));
        if (!more) {
            c->no_memory = true;
            return;
        }
        ch->weights = more;
        c->cap_weights = cap;
    }
    ch->weights[ch->n_weights++] = (struct mo_couple_weight_row){ n, w, (uint32_t)(a - ch->axes), role };
    if (role != MO_ROLE_OUT)
        return;
    for (uint32_t i = 0; i < a->n; i++)
        c->is_made[find(c, a->first + i)] = true;
}

void mo_couple_elementwise(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_value_id out = n->out[0];
    int rank = g->values[out].shape.rank;
    for (uint32_t k = 0; k < n->n_in; k++) {
        if (n->in[k] == MO_NONE)
            continue;
        const struct mo_shape *in = &g->values[n->in[k]].shape;
        int lead = rank - (k == 1 && n->in[0] != MO_NONE ? mo_operand_shape(g, n).rank : in->rank);
        for (int axis = 0; axis < in->rank; axis++)
            if (in->dim[axis] != 1 || g->values[out].shape.dim[axis + lead] == 1)
                mo_couple_same(c, n->in[k], axis, out, axis + lead);
    }
}

/* ---- reshape: one rule for all that only change the shape ------------------------------ */

/* Axes of one value that belong together in a reshape, those of one element left out. */
struct run_of_axes { mo_value_id value; int axis[MO_MAX_RANK]; int64_t dim[MO_MAX_RANK]; int n; };

static bool is_axis_made(struct mo_couple *c, mo_value_id v, int axis)
{
    struct mo_couple_axis *a = axis_of(c, v, axis);
    for (uint32_t i = 0; a && i < a->n; i++)
        if (c->is_made[find(c, a->first + i)])
            return true;
    return false;
}


static uint32_t top(uint32_t *up, uint32_t x)
{
    while (up[x] != x)
        x = up[x] = up[up[x]];
    return x;
}

/* How many classes would be left on the axis `single` if its index j were index j / stride % n of a part. */
static int64_t classes_left(struct mo_couple *c, const struct mo_couple_axis *single, int64_t stride, int64_t n)
{
    uint32_t *up = mo_mem_new((size_t)n, sizeof(*up));
    if (!up) {
        c->no_memory = true;
        return 0;
    }
    int64_t left = n;
    for (uint32_t i = 0; i < (uint32_t)n; i++)
        up[i] = i;
    for (uint32_t j = 0; j < single->n; j++) {
        uint32_t *first = &c->mark[find(c, single->first + j)], part = (uint32_t)(j / stride % n);
        if (!*first) {
            *first = part + 1;
            continue;
        }
        uint32_t x = top(up, *first - 1), y = top(up, part);
        if (x != y) {
            up[MO_MAX(x, y)] = MO_MIN(x, y);
            left--;
        }
    }
    for (uint32_t j = 0; j < single->n; j++)
        c->mark[find(c, single->first + j)] = 0;
    mo_mem_free(up);
    return left;
}

/* Several axes of one value are one axis of another. Only one of them can keep its freedom, since a class is
 * whole slices; which one:
 *   - one that already carries channels, when there is such (Flatten behind a Conv);
 *   - else the one that leaves most classes, so that what is already tied on the single axis fits it. Heads
 *     are the exception: the last axis split in two keeps the outer part, the heads.
 * False: nothing on either side carries channels yet, and is_last_call is false. */
static bool split(struct mo_couple *c, const struct run_of_axes *many, const struct run_of_axes *one, bool is_last_call)
{
    struct mo_couple_axis *single = axis_of(c, one->value, one->axis[0]);
    int64_t stride[MO_MAX_RANK], inner = 1;
    bool is_any_made = false, is_made[MO_MAX_RANK];
    for (int k = many->n - 1; k >= 0; k--) {
        stride[k] = inner;
        inner *= many->dim[k];
        is_made[k] = is_axis_made(c, many->value, many->axis[k]);
        is_any_made = is_any_made || is_made[k];
    }
    bool is_single_made = is_axis_made(c, one->value, one->axis[0]);
    if (!single || (!is_any_made && !is_single_made && !is_last_call))
        return !single;
    bool is_last_axis = one->axis[0] == c->g->values[one->value].shape.rank - 1 && one->axis[0] >= 2;
    int best = 0;
    int64_t best_left = -1;
    for (int k = 0; k < many->n; k++) {
        if (is_any_made && !is_made[k])
            continue;
        int64_t left = classes_left(c, single, stride[k], many->dim[k]);
        if (!is_any_made && is_last_axis && k == 0 && left == many->dim[0])
            left = INT64_MAX;
        if (left > best_left) {
            best_left = left;
            best = k;
        }
    }
    struct mo_couple_axis *part = axis_of(c, many->value, many->axis[best]);
    for (uint32_t j = 0; j < single->n; j++)
        join(c, part->first + (uint32_t)(j / stride[best] % many->dim[best]), single->first + j);
    for (int k = 0; k < many->n; k++)
        if (k != best)
            wall(c, axis_of(c, many->value, many->axis[k]), "a reshape merges it with an axis that carries channels");
    return true;
}

/* The next shortest runs of axes with equal products from (*i, *j) on. False: at the end, or they never meet. */
static bool next_runs(const struct mo_shape *a, const struct mo_shape *b, int *i, int *j, struct run_of_axes *x,
                      struct run_of_axes *y)
{
    int64_t product_a = 1, product_b = 1;
    x->n = y->n = 0;
    while (*i < a->rank && a->dim[*i] == 1)
        ++*i;
    while (*j < b->rank && b->dim[*j] == 1)
        ++*j;
    while (*i < a->rank || *j < b->rank) {
        bool take_a = *i < a->rank && (product_a <= product_b || *j >= b->rank);
        const struct mo_shape *s = take_a ? a : b;
        struct run_of_axes *r = take_a ? x : y;
        int *k = take_a ? i : j;
        if (s->dim[*k] != 1) {
            r->axis[r->n] = *k;
            r->dim[r->n++] = s->dim[*k];
        }
        *(take_a ? &product_a : &product_b) *= s->dim[*k];
        ++*k;
        if (product_a == product_b && x->n && y->n)
            return true;
    }
    return x->n || y->n;
}

static void wall_run(struct mo_couple *c, const struct run_of_axes *r)
{
    for (int k = 0; k < r->n; k++)
        wall(c, axis_of(c, r->value, r->axis[k]), "a reshape mixes it with other axes");
}

/* False: must be asked again when more is known. Equations stated twice do no harm. */
static bool reshape(struct mo_couple *c, const struct reshape *r, bool is_last_call)
{
    const struct mo_shape *a = &c->g->values[r->a].shape, *b = &c->g->values[r->b].shape;
    struct run_of_axes x = { .value = r->a }, y = { .value = r->b };
    bool is_done = true;
    c->node = r->node;
    for (int i = 0, j = 0; next_runs(a, b, &i, &j, &x, &y);) {
        if (x.n == 1 && y.n == 1 && x.dim[0] == y.dim[0]) {
            mo_couple_same(c, r->a, x.axis[0], r->b, y.axis[0]);
        } else if (y.n == 1 && x.n > 1) {
            is_done &= split(c, &x, &y, is_last_call);
        } else if (x.n == 1 && y.n > 1) {
            is_done &= split(c, &y, &x, is_last_call);
        } else {
            wall_run(c, &x);
            wall_run(c, &y);
        }
    }
    return is_done;
}

void mo_couple_reshape(struct mo_couple *c, mo_value_id a, mo_value_id b)
{
    const struct mo_shape *x = &c->g->values[a].shape, *y = &c->g->values[b].shape;
    if (!mo_shape_known(x) || !mo_shape_known(y) || mo_shape_elems(x) < 1 || mo_shape_elems(x) != mo_shape_elems(y)) {
        mo_couple_wall(c, a, -1, "its shape is not known");
        mo_couple_wall(c, b, -1, "its shape is not known");
        return;
    }
    mo_couple_free(c, a, -1);   /* stated: what is not tied gets its wall in split() */
    mo_couple_free(c, b, -1);
    struct reshape r = { a, b, c->node };
    if (reshape(c, &r, false))
        return;
    if (c->n_reshapes == c->cap_reshapes) {
        uint32_t cap = MO_MAX(16u, c->cap_reshapes * 2);
        void *more = mo_mem_grow(c->reshapes, c->n_reshapes * sizeof(r), cap * sizeof(r));
        if (!more) {
            c->no_memory = true;
            return;
        }
        c->reshapes = more;
        c->cap_reshapes = cap;
    }
    c->reshapes[c->n_reshapes++] = r;
}

/* Settle the reshapes that waited: those next to a known channel first, in rounds, then the rest. */
static void settle_reshapes(struct mo_couple *c)
{
    for (bool is_last_call = false;;) {
        uint32_t kept = 0, n = c->n_reshapes;
        for (uint32_t i = 0; i < n; i++)
            if (!reshape(c, &c->reshapes[i], is_last_call))
                c->reshapes[kept++] = c->reshapes[i];
        c->n_reshapes = kept;
        if (!kept)
            return;
        is_last_call = kept == n;
    }
}

enum mopt_status mo_refit_reshape(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n,
                                  const struct mo_shape *was)
{
    (void)was;
    struct mo_value *shape = mo_in(g, n, 1), *out = mo_out(g, n, 0);
    if (!shape || !shape->data || shape->dtype != MO_I64 || mo_value_elems(shape) != out->shape.rank)
        return MOPT_OK;
    int rank = out->shape.rank;
    int64_t want[MO_MAX_RANK];
    bool is_changed = false;
    memcpy(want, shape->data, (size_t)rank * sizeof(*want));
    for (int k = 0; k < rank; k++) {
        if (want[k] > 0 && want[k] != out->shape.dim[k]) {
            want[k] = out->shape.dim[k];
            is_changed = true;
        }
    }
    if (!is_changed)
        return MOPT_OK;
    struct mo_shape one = mo_shape_of(1, (int64_t)rank);
    if (shape->n_uses > 1) {
        /* Others read the old shape, so this node gets one of its own. */
        mo_value_id fresh = mo_graph_add_const(g, shape->name, MO_I64, &one, want);
        if (fresh == MO_NONE)
            return mo_no_memory(ctx, sizeof(want), "a shape");
        n->in[1] = fresh;
        return MOPT_OK;
    }
    int64_t *data = mo_mem_new((size_t)rank, sizeof(*data));
    if (!data)
        return mo_no_memory(ctx, sizeof(want), "a shape");
    memcpy(data, want, (size_t)rank * sizeof(*data));
    mo_value_set_data(g, n->in[1], MO_I64, &one, data);
    return MOPT_OK;
}

/* ---- stating -------------------------------------------------------------------------- */

static enum mopt_status number_elements(struct mo_couple *c)
{
    const struct mo_graph *g = c->g;
    struct mo_channels *ch = c->ch;
    uint64_t n_axes = 0, n_elems = 0;
    for (mo_value_id v = 0; v < g->n_values; v++) {
        const struct mo_shape *s = &g->values[v].shape;
        for (int k = 0; k < s->rank; k++, n_axes++)
            n_elems += s->dim[k] > 0 ? (uint64_t)MO_MIN(s->dim[k], (int64_t)MAX_ELEMS) : 0;
        if (n_elems > MAX_ELEMS)
            return mo_fail(c->ctx, MOPT_LIMIT, "the axes of all values have more than %llu elements together",
                           (unsigned long long)MAX_ELEMS);
    }
    c->n_elems = (uint32_t)n_elems;
    ch->n_values = g->n_values;
    ch->axes = mo_arena_new(&ch->arena, n_axes + 1, sizeof(*ch->axes));
    ch->value_axis = mo_arena_new(&ch->arena, g->n_values + 1, sizeof(*ch->value_axis));
    c->parent = mo_mem_new(n_elems + 1, sizeof(*c->parent));
    c->mark = mo_mem_new(n_elems + 1, sizeof(*c->mark));
    c->is_made = mo_mem_new(n_elems + 1, sizeof(*c->is_made));
    if (!ch->axes || !ch->value_axis || !c->parent || !c->mark || !c->is_made)
        return mo_no_memory(c->ctx, n_elems * 9, "the channels' equations");
    for (uint32_t e = 0; e < c->n_elems; e++)
        c->parent[e] = e;
    uint32_t first = 0;
    for (mo_value_id v = 0; v < g->n_values; v++) {
        const struct mo_shape *s = &g->values[v].shape;
        ch->value_axis[v] = s->rank > 0 ? ch->n_axes : MO_NONE;
        for (int k = 0; k < s->rank; k++) {
            uint32_t n = s->dim[k] > 0 ? (uint32_t)s->dim[k] : 0;
            ch->axes[ch->n_axes++] =
                (struct mo_couple_axis){ .value = v, .axis = k, .first = first, .n = n, .wall_node = MO_NONE };
            first += n;
        }
    }
    return MOPT_OK;
}

/* Walls that no operator needs to know of. */
static void wall_interface(struct mo_couple *c)
{
    const struct mo_graph *g = c->g;
    c->node = MO_NONE;
    for (mo_value_id v = 0; v < g->n_values; v++) {
        const struct mo_value *x = &g->values[v];
        if (x->is_output)
            mo_couple_wall(c, v, -1, "it is an output of the model");
        else if (x->is_input && !x->data)
            mo_couple_wall(c, v, -1, "it is an input of the model");
        else if (x->is_captured)
            mo_couple_wall(c, v, -1, "it belongs to an enclosing graph");
        else if (x->is_sparse)
            mo_couple_wall(c, v, -1, "it is stored as a sparse tensor");
        else if (x->data && (x->dtype == MO_STRING || mo_dtype_bits(x->dtype) % 8))
            mo_couple_wall(c, v, -1, "its elements are not whole bytes");
    }
}

static void wall_node(struct mo_couple *c, const struct mo_node *n, const char *reason)
{
    for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
        mo_value_id v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (v != MO_NONE)
            mo_couple_wall(c, v, -1, reason);
    }
}

static bool are_shapes_known(const struct mo_graph *g, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
        mo_value_id v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (v != MO_NONE && !mo_shape_known(&g->values[v].shape))
            return false;
    }
    return true;
}

/* What the operator did not mention it uses as a whole. */
static void wall_unstated(struct mo_couple *c, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
        mo_value_id v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (v == MO_NONE)
            continue;
        for (int axis = 0; axis < c->g->values[v].shape.rank; axis++) {
            struct mo_couple_axis *a = axis_of(c, v, axis);
            if (a && a->stated_by != c->node + 1)
                wall(c, a, "it uses this axis as a whole");
        }
    }
}

static void state_node(struct mo_couple *c, mo_node_id i)
{
    const struct mo_node *n = &c->g->nodes[i];
    c->node = i;
    for (uint32_t k = 0; k < n->n_captures; k++)
        mo_couple_wall(c, n->captures[k], -1, "a subgraph reads it");
    if (n->n_in == 0 && n->n_out == 1 && c->g->values[n->out[0]].data)
        return;         /* a constant: as free as an initializer */
    if (!n->op || !n->op->couple) {
        wall_node(c, n, "its operator has no pruning rule");
    } else if (!are_shapes_known(c->g, n)) {
        wall_node(c, n, "shapes at it are not known");
    } else {
        n->op->couple(c, c->g, n);
        wall_unstated(c, n);
    }
}

/* ---- collecting ---------------------------------------------------------------------------- */

/* Members by class: a counting sort by root. Axes come in order, so members of a class do too. */
static enum mopt_status collect_classes(struct mo_couple *c)
{
    struct mo_channels *ch = c->ch;
    uint32_t *number = c->mark;         /* by root: class + 1 */
    for (uint32_t e = 0; e < c->n_elems; e++) {
        uint32_t root = find(c, e);
        if (!c->is_made[root])
            continue;
        if (!number[root])
            number[root] = ++ch->n_classes;
        ch->n_members++;
    }
    ch->classes = mo_arena_new(&ch->arena, ch->n_classes + 1, sizeof(*ch->classes));
    ch->members = mo_arena_new(&ch->arena, ch->n_members + 1, sizeof(*ch->members));
    if (!ch->classes || !ch->members)
        return mo_no_memory(c->ctx, ch->n_members * sizeof(*ch->members), "channels");
    for (uint32_t e = 0; e < c->n_elems; e++) {
        uint32_t k = number[find(c, e)];
        if (k)
            ch->classes[k - 1].n_members++;
    }
    uint32_t first = 0;
    for (uint32_t k = 0; k < ch->n_classes; k++) {
        ch->classes[k].first = first;
        first += ch->classes[k].n_members;
        ch->classes[k].n_members = 0;
    }
    for (uint32_t a = 0; a < ch->n_axes; a++) {
        for (uint32_t i = 0; i < ch->axes[a].n; i++) {
            uint32_t k = number[find(c, ch->axes[a].first + i)];
            if (!k)
                continue;
            struct mo_channel_class *class = &ch->classes[k - 1];
            ch->members[class->first + class->n_members++] = (struct mo_couple_member){ a, i };
        }
    }
    return MOPT_OK;
}

/* Walks the different axes of a class: *at starts at 0; false at the end. */
static bool next_axis(const struct mo_channels *ch, const struct mo_channel_class *class, uint32_t *at, uint32_t *axis)
{
    if (*at >= class->n_members)
        return false;
    *axis = ch->members[class->first + *at].axis;
    while (*at < class->n_members && ch->members[class->first + *at].axis == *axis)
        ++*at;
    return true;
}

static uint64_t axes_hash(const struct mo_channels *ch, const struct mo_channel_class *class)
{
    uint64_t hash = 0;
    uint32_t axis;
    for (uint32_t at = 0; next_axis(ch, class, &at, &axis);)
        hash = mo_hash64(&axis, sizeof(axis), hash);
    return hash;
}

struct class_key { uint64_t hash; uint32_t class, first_of_hash; };

static int by_hash(const void *a, const void *b)
{
    const struct class_key *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->class < y->class ? -1 : x->class > y->class;
}

/* Groups in the order of their first class, which is the order of values in the graph. */
static int by_first(const void *a, const void *b)
{
    const struct class_key *x = a, *y = b;
    if (x->first_of_hash != y->first_of_hash)
        return x->first_of_hash < y->first_of_hash ? -1 : 1;
    return x->class < y->class ? -1 : x->class > y->class;
}

/* Sort classes so that those with equal axes stand together. Axes are told apart by a 64-bit hash. */
static enum mopt_status sort_classes(struct mo_couple *c, struct class_key **keys)
{
    struct mo_channels *ch = c->ch;
    struct class_key *key = mo_mem_new(ch->n_classes + 1, sizeof(*key));
    struct mo_channel_class *sorted = mo_arena_new(&ch->arena, ch->n_classes + 1, sizeof(*sorted));
    if (!key || !sorted) {
        mo_mem_free(key);
        return mo_no_memory(c->ctx, ch->n_classes * sizeof(*key), "channels");
    }
    for (uint32_t k = 0; k < ch->n_classes; k++)
        key[k] = (struct class_key){ axes_hash(ch, &ch->classes[k]), k, 0 };
    qsort(key, ch->n_classes, sizeof(*key), by_hash);
    for (uint32_t k = 0; k < ch->n_classes; k++)
        key[k].first_of_hash = k && key[k].hash == key[k - 1].hash ? key[k - 1].first_of_hash : key[k].class;
    qsort(key, ch->n_classes, sizeof(*key), by_first);
    for (uint32_t k = 0; k < ch->n_classes; k++)
        sorted[k] = ch->classes[key[k].class];
    ch->classes = sorted;
    *keys = key;
    return MOPT_OK;
}

static bool list_axes(struct mo_channels *ch, struct mo_channel_group *group)
{
    const struct mo_channel_class *class = &ch->classes[group->first];
    uint32_t axis, *axes = mo_arena_new(&ch->arena, class->n_members, sizeof(*axes));
    if (!axes)
        return false;
    for (uint32_t at = 0; next_axis(ch, class, &at, &axis);) {
        axes[group->n_axes++] = axis;
        const struct mo_couple_axis *a = &ch->axes[axis];
        if (a->wall && !group->wall) {
            group->wall = a->wall;
            group->wall_node = a->wall_node;
        }
    }
    group->axes = axes;
    return true;
}

/* Statements on the group's axes. weights are few: one linear walk a group over a table by axis. */
static bool list_weights(struct mo_channels *ch, struct mo_channel_group *group, const uint32_t *first_of_axis,
                         const uint32_t *next_of_row)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < group->n_axes; k++)
        for (uint32_t w = first_of_axis[group->axes[k]]; w != MO_NONE; w = next_of_row[w])
            n++;
    uint32_t *rows = mo_arena_new(&ch->arena, n + 1, sizeof(*rows));
    if (!rows)
        return false;
    group->node = MO_NONE;
    for (uint32_t k = 0; k < group->n_axes; k++) {
        for (uint32_t w = first_of_axis[group->axes[k]]; w != MO_NONE; w = next_of_row[w]) {
            rows[group->n_weights++] = w;
            if (ch->weights[w].role == MO_ROLE_OUT)
                group->node = MO_MIN(group->node, ch->weights[w].node);
        }
    }
    group->weights = rows;
    return true;
}

/* "node 'pool' (MaxPool): it uses this axis as a whole (tensor 'x', axis 1)" */
static bool explain(struct mo_channels *ch, const struct mo_graph *g, struct mo_channel_group *group)
{
    if (group->n_classes == 1 && !group->wall)
        group->wall = "all its channels depend on each other";
    if (!group->wall)
        return true;
    const struct mo_couple_axis *a = NULL;
    for (uint32_t k = 0; k < group->n_axes && !a; k++)
        if (ch->axes[group->axes[k]].wall)
            a = &ch->axes[group->axes[k]];
    char label[256];
    if (!a)
        group->why = mo_arena_text(&ch->arena, group->wall);
    else if (a->wall_node == MO_NONE)
        group->why = mo_arena_printf(&ch->arena, "tensor '%s', axis %d: %s", g->values[a->value].name, a->axis, a->wall);
    else
        group->why = mo_arena_printf(&ch->arena, "%s, tensor '%s', axis %d: %s",
                                     mo_node_label(g, &g->nodes[a->wall_node], label, sizeof(label)),
                                     g->values[a->value].name, a->axis, a->wall);
    return group->why != NULL;
}

static bool name_group(struct mo_channels *ch, const struct mo_graph *g, struct mo_channel_group *group)
{
    const char *name = g->nodes[group->node].name;
    for (uint32_t k = 0; k < group->n_weights && (!name || !*name); k++)
        if (ch->weights[group->weights[k]].node == group->node)
            name = g->values[ch->weights[group->weights[k]].value].name;
    group->name = mo_arena_text(&ch->arena, name ? name : "");
    return group->name != NULL;
}

static enum mopt_status collect_groups(struct mo_couple *c, const struct class_key *keys)
{
    struct mo_channels *ch = c->ch;
    uint32_t *first_of_axis = mo_arena_new(&ch->arena, ch->n_axes + 1, sizeof(uint32_t));
    uint32_t *next_of_row = mo_arena_new(&ch->arena, ch->n_weights + 1, sizeof(uint32_t));
    ch->groups = mo_arena_new(&ch->arena, ch->n_classes + 1, sizeof(*ch->groups));
    bool is_ok = first_of_axis && next_of_row && ch->groups;
    for (uint32_t a = 0; is_ok && a < ch->n_axes; a++)
        first_of_axis[a] = MO_NONE;
    for (uint32_t w = ch->n_weights; is_ok && w-- > 0;) {
        next_of_row[w] = first_of_axis[ch->weights[w].axis];
        first_of_axis[ch->weights[w].axis] = w;
    }
    for (uint32_t k = 0; is_ok && k < ch->n_classes; k++) {
        if (!k || keys[k].first_of_hash != keys[k - 1].first_of_hash)
            ch->groups[ch->n_groups++] = (struct mo_channel_group){ .first = k, .wall_node = MO_NONE };
        ch->classes[k].group = ch->n_groups - 1;
        ch->groups[ch->n_groups - 1].n_classes++;
    }
    for (uint32_t i = 0; is_ok && i < ch->n_groups; i++)
        is_ok = list_axes(ch, &ch->groups[i]) && list_weights(ch, &ch->groups[i], first_of_axis, next_of_row) &&
                name_group(ch, c->g, &ch->groups[i]) && explain(ch, c->g, &ch->groups[i]);
    return is_ok ? MOPT_OK : mo_no_memory(c->ctx, ch->n_classes * sizeof(*ch->groups), "groups of channels");
}

static enum mopt_status solve(struct mo_couple *c)
{
    struct class_key *keys = NULL;
    MO_TRY(number_elements(c));
    wall_interface(c);
    for (mo_node_id i = 0; i < c->g->n_nodes && !c->no_memory; i++)
        if (!c->g->nodes[i].is_dead)
            state_node(c, i);
    settle_reshapes(c);
    if (c->no_memory)
        return mo_no_memory(c->ctx, c->n_elems * sizeof(uint32_t), "the channels' equations");
    MO_TRY(collect_classes(c));
    MO_TRY(sort_classes(c, &keys));
    enum mopt_status status = collect_groups(c, keys);
    mo_mem_free(keys);
    return status;
}

enum mopt_status mo_channels_new(struct mopt_ctx *ctx, const struct mo_graph *g, struct mo_channels **channels)
{
    *channels = NULL;
    struct mo_couple c = { .ctx = ctx, .g = g };
    c.ch = mo_mem_new(1, sizeof(*c.ch));
    if (!c.ch)
        return mo_no_memory(ctx, sizeof(*c.ch), "channels");
    enum mopt_status status = solve(&c);
    mo_mem_free(c.parent);
    mo_mem_free(c.mark);
    mo_mem_free(c.is_made);
    mo_mem_free(c.reshapes);
    if (status)
        mo_channels_free(c.ch);
    else
        *channels = c.ch;
    return status;
}

void mo_channels_free(struct mo_channels *channels)
{
    if (!channels)
        return;
    mo_mem_free(channels->weights);
    mo_arena_release(&channels->arena);
    mo_mem_free(channels);
}

/* ---- cutting ------------------------------------------------------------------------------------ */

/* Constants below this many bytes get their elements also when only shapes are wanted: they may be shapes or indices. */
#define SMALL_BYTES 4096

/* The elements of `from` without those along `axis` whose drop is set. */
static void copy_kept(const uint8_t *from, uint8_t *to, const struct mo_shape *s, int axis, const uint8_t *drop,
                      size_t elem_bytes)
{
    size_t outer = 1, inner = elem_bytes;
    for (int k = 0; k < axis; k++)
        outer *= (size_t)s->dim[k];
    for (int k = axis + 1; k < s->rank; k++)
        inner *= (size_t)s->dim[k];
    for (size_t o = 0; o < outer; o++) {
        for (int64_t i = 0; i < s->dim[axis]; i++, from += inner) {
            if (drop[i])
                continue;
            memcpy(to, from, inner);
            to += inner;
        }
    }
}

static enum mopt_status cut_axis(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_couple_axis *a,
                                 const uint8_t *drop, enum mo_cut_kind kind)
{
    struct mo_value *v = &g->values[a->value];
    struct mo_shape shape = v->shape;
    for (uint32_t i = 0; i < a->n; i++)
        shape.dim[a->axis] -= drop[i];
    if (!v->data || (kind == MO_CUT_SHAPES && mo_value_bytes(v) > SMALL_BYTES)) {
        v->shape = shape;
        return MOPT_OK;
    }
    size_t elem_bytes = (size_t)mo_dtype_bits(v->dtype) / 8, bytes = mo_dtype_bytes(v->dtype, mo_shape_elems(&shape));
    uint8_t *data = mo_mem_new(1, MO_MAX(bytes, (size_t)1));
    if (!data)
        return mo_no_memory(ctx, bytes, v->name);
    copy_kept(v->data, data, &v->shape, a->axis, drop, elem_bytes);
    mo_value_set_data(g, a->value, v->dtype, &shape, data);
    return MOPT_OK;
}

static enum mopt_status refit_nodes(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_shape *was,
                                    uint32_t n_values)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        struct mo_node *n = &g->nodes[i];
        if (n->is_dead || !n->op || !n->op->refit)
            continue;
        bool is_touched = false;
        struct mo_shape *in = mo_mem_new(n->n_in + 1, sizeof(*in));
        if (!in)
            return mo_no_memory(ctx, n->n_in * sizeof(*in), "shapes");
        for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
            mo_value_id v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
            if (v == MO_NONE || v >= n_values)
                continue;
            is_touched = is_touched || !mo_shape_equal(&was[v], &g->values[v].shape);
            if (k < n->n_in)
                in[k] = was[v];
        }
        enum mopt_status status = is_touched ? n->op->refit(ctx, g, n, in) : MOPT_OK;
        mo_mem_free(in);
        if (status) {
            char label[256];
            mo_blame(ctx, "%s", mo_node_label(g, &g->nodes[i], label, sizeof(label)));
            return status;
        }
    }
    return MOPT_OK;
}

/* Inference must find what the equations promised; where they differ, an operator's rule is wrong for this node. */
static enum mopt_status check_promise(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_shape *promised,
                                      uint32_t n_values)
{
    for (mo_value_id v = 0; v < n_values; v++) {
        if (mo_shape_equal(&promised[v], &g->values[v].shape) || !mo_shape_known(&promised[v]))
            continue;
        char a[128], b[128];
        return mo_fail(ctx, MOPT_UNSUPPORTED, "after the cut tensor '%s' is %s and not %s", g->values[v].name,
                       mo_shape_text(&g->values[v].shape, a, sizeof(a)), mo_shape_text(&promised[v], b, sizeof(b)));
    }
    return MOPT_OK;
}

static enum mopt_status cut_all(struct mopt_ctx *ctx, const struct mo_channels *ch, const uint8_t *drop,
                                struct mo_graph *g, enum mo_cut_kind kind)
{
    for (uint32_t k = 0; k < ch->n_axes; k++) {
        const struct mo_couple_axis *a = &ch->axes[k];
        const uint8_t *d = drop + a->first;
        uint32_t n_dropped = 0;
        for (uint32_t i = 0; i < a->n; i++)
            n_dropped += d[i];
        if (!n_dropped)
            continue;
        if (a->wall)
            return mo_fail(ctx, MOPT_FAILED, "tensor '%s', axis %d cannot be cut: %s", g->values[a->value].name,
                           a->axis, a->wall);
        if (n_dropped == a->n)
            return mo_fail(ctx, MOPT_FAILED, "tensor '%s', axis %d: nothing would be left", g->values[a->value].name,
                           a->axis);
        MO_TRY(cut_axis(ctx, g, a, d, kind));
    }
    return MOPT_OK;
}

enum mopt_status mo_channels_cut(struct mopt_ctx *ctx, const struct mo_channels *channels, const bool *is_cut,
                                 struct mo_graph *g, int64_t free_dim, enum mo_cut_kind kind)
{
    uint32_t n_elems = 1;
    if (channels->n_axes)
        n_elems += channels->axes[channels->n_axes - 1].first + channels->axes[channels->n_axes - 1].n;
    if (g->n_values < channels->n_values)
        return mo_fail(ctx, MOPT_FAILED, "channels of another graph");
    uint8_t *drop = mo_mem_new(n_elems, 1);
    struct mo_shape *was = mo_mem_new(channels->n_values + 1, sizeof(*was));
    struct mo_shape *promised = mo_mem_new(channels->n_values + 1, sizeof(*promised));
    enum mopt_status status = MOPT_OK;
    if (!drop || !was || !promised) {
        status = mo_no_memory(ctx, n_elems + channels->n_values * 2 * sizeof(*was), "a cut");
        goto done;
    }
    for (uint32_t k = 0; k < channels->n_classes; k++) {
        const struct mo_channel_class *class = &channels->classes[k];
        for (uint32_t i = 0; is_cut[k] && i < class->n_members; i++) {
            const struct mo_couple_member *m = &channels->members[class->first + i];
            drop[channels->axes[m->axis].first + m->index] = 1;
        }
    }
    for (mo_value_id v = 0; v < channels->n_values; v++)
        was[v] = g->values[v].shape;
    status = cut_all(ctx, channels, drop, g, kind);
    for (mo_value_id v = 0; v < channels->n_values; v++)
        promised[v] = g->values[v].shape;
    if (!status)
        status = refit_nodes(ctx, g, was, channels->n_values);
    if (!status)
        status = mo_infer_sample(ctx, g, free_dim);
    if (!status)
        status = check_promise(ctx, g, promised, channels->n_values);
done:
    mo_mem_free(drop);
    mo_mem_free(was);
    mo_mem_free(promised);
    return status;
}

/* ---- verifying ------------------------------------------------------------------------------------ */

static enum mopt_status try_cut(struct mopt_ctx *ctx, const struct mo_channels *ch, const bool *is_cut,
                                const struct mo_graph *g, int64_t free_dim)
{
    struct mo_arena arena = { 0 };
    struct mo_graph copy = { .arena = &arena };
    enum mopt_status status = mo_graph_copy(ctx, &copy, g, false);
    if (!status)
        status = mo_channels_cut(ctx, ch, is_cut, &copy, free_dim, MO_CUT_SHAPES);
    mo_graph_release(&copy);
    mo_arena_release(&arena);
    return status;
}

/* One class of each free group from first to last into is_cut; how many groups. */
static uint32_t mark_one_each(const struct mo_channels *ch, bool *is_cut, uint32_t first, uint32_t last)
{
    uint32_t n = 0;
    memset(is_cut, 0, ch->n_classes * sizeof(*is_cut));
    for (uint32_t i = first; i < last; i++) {
        if (ch->groups[i].wall)
            continue;
        is_cut[ch->groups[i].first] = true;
        n++;
    }
    return n;
}

static enum mopt_status verify_each(struct mopt_ctx *ctx, struct mo_channels *ch, const struct mo_graph *g,
                                    int64_t free_dim, bool *is_cut)
{
    for (uint32_t i = 0; i < ch->n_groups; i++) {
        struct mo_channel_group *group = &ch->groups[i];
        if (!mark_one_each(ch, is_cut, i, i + 1))
            continue;
        enum mopt_status status = try_cut(ctx, ch, is_cut, g, free_dim);
        if (!status)
            continue;
        if (status == MOPT_LIMIT || status == MOPT_INTERRUPTED)
            return status;
        group->why = mo_arena_printf(&ch->arena, "a cut of it does not fit: %s", mopt_error(ctx));
        group->wall = group->why;
        mopt_clear(ctx);
        if (!group->why)
            return mo_no_memory(ctx, sizeof(ctx->error), "a reason");
    }
    return MOPT_OK;
}

enum mopt_status mo_channels_verify(struct mopt_ctx *ctx, struct mo_channels *channels, const struct mo_graph *g,
                                    int64_t free_dim)
{
    bool *is_cut = mo_mem_new(channels->n_classes + 1, sizeof(*is_cut));
    if (!is_cut)
        return mo_no_memory(ctx, channels->n_classes, "a cut");
    enum mopt_status status = MOPT_OK;
    if (mark_one_each(channels, is_cut, 0, channels->n_groups)) {
        status = try_cut(ctx, channels, is_cut, g, free_dim);
        if (status && status != MOPT_LIMIT && status != MOPT_INTERRUPTED) {
            mopt_clear(ctx);
            status = verify_each(ctx, channels, g, free_dim, is_cut);
        }
    }
    mo_mem_free(is_cut);
    return status;
}
