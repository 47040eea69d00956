/* Einsum: sums of products over named axes. The operands are taken in one after the other, each time as one matrix
 * product: axes that both have and that are still needed are its batch, those that both have and nobody needs are summed,
 * the others are rows and columns. Axes that one operand alone has are summed before, the diagonal is taken where an
 * operand names an axis twice. */
#include <string.h>

#include "lib/graph/expand.h"
#include "lib/ops/tensor.h"

/* Labels: letters, then axes of the ellipsis counted from its right end. */
enum { N_LETTERS = 52, N_LABELS = N_LETTERS + MO_MAX_RANK, MAX_OPERANDS = 16, NOT_SEEN = -2 };

/* An operand or a part of the result: its axes' labels in order. */
struct term {
    int n;
    int label[MO_MAX_RANK];
};

struct einsum {
    int n_operands;
    struct term term[MAX_OPERANDS], out;
    int64_t dim[N_LABELS];          /* MO_UNKNOWN */
};

/* ---- reading the equation ---- */

/* In the order that an equation without "->" means: capitals first. */
static int label_of(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1;
}

/* One term up to `end`; n_ellipsis: how many axes "..." stands for. */
static enum mopt_status read_term(struct mopt_ctx *ctx, const char *at, const char *end, int n_ellipsis, struct term *t)
{
    t->n = 0;
    for (; at < end; at++) {
        bool is_dots = end - at >= 3 && !strncmp(at, "...", 3);
        int count = is_dots ? n_ellipsis : 1;
        if (*at == ' ')
            continue;
        if (!is_dots && label_of(*at) < 0)
            return mo_fail(ctx, MOPT_DATA, "'%c' in the equation is not known", *at);
        if (t->n + count > MO_MAX_RANK)
            return mo_fail(ctx, MOPT_UNSUPPORTED, "a term of more than %d axes", MO_MAX_RANK);
        for (int k = 0; k < count; k++)
            t->label[t->n++] = is_dots ? N_LETTERS + n_ellipsis - 1 - k : label_of(*at);
        at += is_dots ? 2 : 0;
    }
    return MOPT_OK;
}

static int count_letters(const char *at, const char *end, bool *has_dots)
{
    int n = 0;
    *has_dots = memchr(at, '.', (size_t)(end - at)) != NULL;
    for (; at < end; at++)
        n += label_of(*at) >= 0;
    return n;
}

/* dim[label] of all axes of an operand; 1 gives way to a larger size. */
static enum mopt_status take_dims(struct mopt_ctx *ctx, struct einsum *p, const struct term *t, const struct mo_shape *x)
{
    for (int k = 0; k < t->n; k++) {
        int64_t *dim = &p->dim[t->label[k]], d = x->dim[k];
        if (*dim > 1 && d > 1 && *dim != d)
            return mo_fail(ctx, MOPT_DATA, "an axis is %lld and %lld in different operands", (long long)*dim, (long long)d);
        if (*dim == 1 || *dim == NOT_SEEN || (*dim == MO_UNKNOWN && d > 1))
            *dim = d;
    }
    return MOPT_OK;
}

/* Without "->": what is there once, in the order of letters, behind the ellipsis. */
static void implicit_out(struct einsum *p, int n_ellipsis)
{
    int count[N_LABELS] = { 0 };
    p->out.n = 0;
    for (int i = 0; i < p->n_operands; i++)
        for (int k = 0; k < p->term[i].n; k++)
            count[p->term[i].label[k]]++;
    for (int k = n_ellipsis - 1; k >= 0; k--)
        p->out.label[p->out.n++] = N_LETTERS + k;
    for (int label = 0; label < N_LETTERS && p->out.n < MO_MAX_RANK; label++)
        if (count[label] == 1)
            p->out.label[p->out.n++] = label;
}

static enum mopt_status read_operands(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                      const char *at, const char *end, struct einsum *p, int *n_ellipsis)
{
    for (int i = 0; i < p->n_operands; i++) {
        const struct mo_shape *x = &mo_in(g, n, (uint32_t)i)->shape;
        const char *comma = memchr(at, ',', (size_t)(end - at)), *stop = comma ? comma : end;
        bool has_dots;
        int rest = x->rank - count_letters(at, stop, &has_dots);
        if ((!comma) != (i + 1 == p->n_operands) || rest < 0 || (rest && !has_dots))
            return mo_fail(ctx, MOPT_DATA, "the equation does not fit operand %d of rank %d", i, x->rank);
        MO_TRY(read_term(ctx, at, stop, rest, &p->term[i]));
        if (p->term[i].n != x->rank)
            return mo_fail(ctx, MOPT_DATA, "the equation does not fit operand %d of rank %d", i, x->rank);
        MO_TRY(take_dims(ctx, p, &p->term[i], x));
        *n_ellipsis = MO_MAX(*n_ellipsis, rest);
        at = stop + 1;
    }
    return MOPT_OK;
}

/* Each axis of the result once, and in an operand. */
static enum mopt_status check_out(struct mopt_ctx *ctx, const struct einsum *p)
{
    bool is_there[N_LABELS] = { false };
    for (int k = 0; k < p->out.n; k++) {
        if (p->dim[p->out.label[k]] == NOT_SEEN || is_there[p->out.label[k]])
            return mo_fail(ctx, MOPT_DATA, "axis %d of the result should be in an operand, and only once in the result", k);
        is_there[p->out.label[k]] = true;
    }
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct einsum *p = n->params;
    const char *equation = mo_node_text(n, "equation", ""), *end = equation + strlen(equation);
    const char *arrow = strstr(equation, "->");
    struct mo_shape y;
    int n_ellipsis = 0;
    p->n_operands = (int)n->n_in;
    if (n->n_in > MAX_OPERANDS)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%u operands, at most %d are computed", n->n_in, MAX_OPERANDS);
    for (int k = 0; k < N_LABELS; k++)
        p->dim[k] = NOT_SEEN;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!mo_in(g, n, i))
            return mo_fail(ctx, MOPT_DATA, "operand %u is left out", i);
        MO_TRY(mo_check_same_dtype(ctx, mo_in(g, n, 0), mo_in(g, n, i)));
        if (mo_in(g, n, i)->shape.rank == MO_UNKNOWN) {
            mo_set_out_unknown(g, n, 0, mo_in(g, n, 0)->dtype);
            return MOPT_OK;
        }
    }
    MO_TRY(read_operands(ctx, g, n, equation, arrow ? arrow : end, p, &n_ellipsis));
    if (arrow)
        MO_TRY(read_term(ctx, arrow + 2, end, n_ellipsis, &p->out));
    else
        implicit_out(p, n_ellipsis);
    MO_TRY(check_out(ctx, p));
    y.rank = p->out.n;
    for (int k = 0; k < y.rank; k++)
        y.dim[k] = p->dim[p->out.label[k]];
    mo_set_out(g, n, 0, mo_in(g, n, 0)->dtype, &y);
    return MOPT_OK;
}

/* ---- the formula ---- */

struct part { mo_value_id v; struct term t; };

static int place_of(const struct term *t, int label)
{
    for (int k = 0; k < t->n; k++)
        if (t->label[k] == label)
            return k;
    return -1;
}

static void transpose(struct mo_expand *e, struct part *x, const struct term *to)
{
    int64_t perm[MO_MAX_RANK];
    bool is_same = true;
    for (int k = 0; k < to->n; k++) {
        perm[k] = place_of(&x->t, to->label[k]);
        is_same = is_same && perm[k] == k;
    }
    if (is_same)
        return;
    x->v = mo_expand_op(e, "Transpose", x->v, MO_NONE, MO_NONE);
    mo_expand_ints(e, "perm", perm, (size_t)to->n);
    x->t = *to;
}

static void drop(struct term *t, int place)
{
    memmove(&t->label[place], &t->label[place + 1], (size_t)(t->n - place - 1) * sizeof t->label[0]);
    t->n--;
}

static void reshape(struct mo_expand *e, struct part *x, const int64_t *dims, int n)
{
    x->v = mo_expand_op(e, "Reshape", x->v, mo_expand_list(e, dims, n), MO_NONE);
}

static void sizes_of(const struct einsum *p, const struct term *t, int64_t *dims)
{
    for (int k = 0; k < t->n; k++)
        dims[k] = p->dim[t->label[k]];
}

/* Axes a < b have one label: both last, then every (dim + 1)-th of their product. */
static void diagonal(struct mo_expand *e, const struct einsum *p, struct part *x, int a, int b)
{
    int64_t perm[MO_MAX_RANK], dims[MO_MAX_RANK], d = p->dim[x->t.label[a]];
    int n = 0, label = x->t.label[a];
    for (int k = 0; k < x->t.n; k++)
        if (k != a && k != b)
            perm[n++] = k;
    perm[n] = a;
    perm[n + 1] = b;
    x->v = mo_expand_op(e, "Transpose", x->v, MO_NONE, MO_NONE);
    mo_expand_ints(e, "perm", perm, (size_t)x->t.n);
    drop(&x->t, b);
    drop(&x->t, a);
    sizes_of(p, &x->t, dims);
    dims[n] = d * d;
    reshape(e, x, dims, n + 1);
    mo_value_id first = mo_expand_list(e, &(int64_t){ 0 }, 1), end = mo_expand_list(e, &(int64_t){ d * d }, 1);
    mo_value_id last = mo_expand_list(e, &(int64_t){ n }, 1), step = mo_expand_list(e, &(int64_t){ d + 1 }, 1);
    const mo_value_id in[] = { x->v, first, end, last, step };
    const struct mo_shape unknown = { .rank = MO_UNKNOWN };
    x->v = e->is_full ? MO_NONE : mo_graph_add_value(e->g, "diagonal", MO_UNDEFINED, &unknown);
    e->is_full = x->v == MO_NONE;
    mo_expand_node(e, "Slice", in, 5, x->v);
    x->t.label[x->t.n++] = label;
}

/* Operand i: axes of 1 that stand for a larger one taken away, no label twice. */
static void open_operand(struct mo_expand *e, const struct einsum *p, mo_value_id v, const struct mo_shape *shape, int i,
                         struct part *x)
{
    int64_t dims[MO_MAX_RANK];
    *x = (struct part){ .v = v };
    for (int k = 0; k < p->term[i].n; k++)
        if (shape->dim[k] == p->dim[p->term[i].label[k]])
            x->t.label[x->t.n++] = p->term[i].label[k];
    if (x->t.n != p->term[i].n) {
        sizes_of(p, &x->t, dims);
        reshape(e, x, dims, x->t.n);
    }
    for (int b = 1; b < x->t.n; b++) {
        int a = place_of(&x->t, x->t.label[b]);
        if (a < b) {
            diagonal(e, p, x, a, b);
            b = 0;
        }
    }
}

/* Sums over the axes that nothing else needs. */
static void sum_alone(struct mo_expand *e, struct part *x, const bool *is_needed)
{
    int64_t axes[MO_MAX_RANK];
    size_t n = 0;
    for (int k = 0; k < x->t.n; k++)
        if (!is_needed[x->t.label[k]])
            axes[n++] = k;
    if (!n)
        return;
    x->v = mo_expand_op(e, "ReduceSum", x->v, MO_NONE, MO_NONE);
    mo_expand_ints(e, "axes", axes, n);
    mo_expand_int(e, "keepdims", 0);
    for (size_t k = n; k-- > 0;)
        drop(&x->t, (int)axes[k]);
}

static int64_t count_of(const struct einsum *p, const struct term *t)
{
    int64_t n = 1;
    for (int k = 0; k < t->n; k++)
        n *= p->dim[t->label[k]];
    return n;
}

static void append(struct term *t, const struct term *more)
{
    for (int k = 0; k < more->n && t->n < MO_MAX_RANK; k++)
        t->label[t->n++] = more->label[k];
}

static enum mopt_status multiply(struct mo_expand *e, const struct einsum *p, struct part *a, struct part *b,
                                 const bool *is_needed)
{
    struct term batch = { 0 }, rows = { 0 }, columns = { 0 }, summed = { 0 };
    for (int k = 0; k < a->t.n; k++) {
        int label = a->t.label[k];
        struct term *to = place_of(&b->t, label) < 0 ? &rows : is_needed[label] ? &batch : &summed;
        to->label[to->n++] = label;
    }
    for (int k = 0; k < b->t.n; k++)
        if (place_of(&a->t, b->t.label[k]) < 0)
            columns.label[columns.n++] = b->t.label[k];
    if (batch.n + rows.n + columns.n > MO_MAX_RANK)
        return mo_fail(e->ctx, MOPT_UNSUPPORTED, "a product of more than %d axes", MO_MAX_RANK);
    struct term left = batch, right = batch, both = batch;
    append(&left, &rows);
    append(&left, &summed);
    append(&right, &summed);
    append(&right, &columns);
    append(&both, &rows);
    append(&both, &columns);
    transpose(e, a, &left);
    transpose(e, b, &right);
    int64_t n_batch = count_of(p, &batch), n_sum = count_of(p, &summed), dims[MO_MAX_RANK];
    reshape(e, a, (int64_t[]){ n_batch, count_of(p, &rows), n_sum }, 3);
    reshape(e, b, (int64_t[]){ n_batch, n_sum, count_of(p, &columns) }, 3);
    a->v = mo_expand_op(e, "MatMul", a->v, b->v, MO_NONE);
    a->t = both;
    sizes_of(p, &both, dims);
    reshape(e, a, dims, both.n);
    return MOPT_OK;
}

/* What the result and the operands behind `i` still have. */
static void mark_needed(const struct einsum *p, int i, bool *is_needed)
{
    memset(is_needed, 0, N_LABELS * sizeof *is_needed);
    for (int k = 0; k < p->out.n; k++)
        is_needed[p->out.label[k]] = true;
    for (int j = i + 1; j < p->n_operands; j++)
        for (int k = 0; k < p->term[j].n; k++)
            is_needed[p->term[j].label[k]] = true;
}

static enum mopt_status expand(struct mo_expand *e)
{
    const struct einsum *p = e->node->params;
    struct part all, next;
    bool is_needed[N_LABELS], has[N_LABELS];
    mo_value_id y = e->node->out[0];
    for (uint32_t i = 0; i < e->node->n_in; i++)
        if (!mo_shape_known(&mo_in(e->g, e->node, i)->shape))
            return mo_fail(e->ctx, MOPT_UNSUPPORTED, "the shapes of its operands must be known before it runs");
    for (int i = 0; i < p->n_operands; i++) {
        const struct mo_shape shape = mo_in(e->g, e->node, (uint32_t)i)->shape;
        open_operand(e, p, e->node->in[i], &shape, i, &next);
        mark_needed(p, i, is_needed);
        memcpy(has, is_needed, sizeof has);
        for (int k = 0; i && k < all.t.n; k++)
            has[all.t.label[k]] = true;
        sum_alone(e, &next, has);
        memcpy(has, is_needed, sizeof has);
        for (int k = 0; k < next.t.n; k++)
            has[next.t.label[k]] = true;
        if (i)
            sum_alone(e, &all, has);
        if (i)
            MO_TRY(multiply(e, p, &all, &next, is_needed));
        else
            all = next;
    }
    transpose(e, &all, &p->out);
    mo_expand_into(e, y, "Identity", all.v, MO_NONE, MO_NONE);
    return MOPT_OK;
}

/* A multiply-add for each combination of all axes. */
static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct einsum *p = n->params;
    int64_t product = 1;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (mo_in(g, n, i)->shape.rank == MO_UNKNOWN)
            return MO_UNKNOWN;
    for (int k = 0; k < N_LABELS && product != MO_UNKNOWN; k++)
        if (p->dim[k] != NOT_SEEN)
            product = mo_product((int64_t[]){ product, p->dim[k] }, 2);
    return product;
}

const struct mo_op mo_op_einsum = {
    .type = "Einsum",
    .since_opset = 12,
    .min_in = 1, .max_in = -1, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct einsum),
    .infer = infer, .expand = expand,
    .macs = macs,
    .params_in = 0xff,
};
