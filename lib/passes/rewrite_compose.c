/* rewrite_compose.c - operators that exporters wrote out in parts, where the model's opset has them whole:
 *
 *   (x - mean(x)) / sqrt(mean((x - mean(x))^2) + e) w + b      LayerNormalization (opset 17)
 *   x / sqrt(mean(x^2) + e) w                                  RMSNormalization (23)
 *   x / 2 (1 + erf(x / sqrt(2)))                               Gelu (20)
 *   x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))          Gelu, approximated; its factors in any order
 *   clip(x + 3, 0, 6) / 6                                      HardSigmoid
 *   x HardSigmoid(x) of that slope                             HardSwish (14)
 *
 * Only where nobody else reads what lies between. */
#include <math.h>
#include <string.h>

#include "lib/graph/infer.h"
#include "lib/graph/op.h"
#include "lib/passes/rewrite.h"

/* ---- looking ---------------------------------------------------------------------------------- */

static const struct mo_node *maker_of(const struct mo_graph *g, mo_value_id v, const char *type)
{
    mo_node_id p = v == MO_NONE ? MO_NONE : g->values[v].producer;
    return p != MO_NONE && mo_node_is(&g->nodes[p], type) && g->nodes[p].out[0] == v ? &g->nodes[p] : NULL;
}

static bool has_uses(const struct mo_graph *g, const struct mo_node *n, uint32_t n_uses)
{
    const struct mo_value *y = mo_out(g, n, 0);
    return !y->is_output && y->n_uses == n_uses;
}

static bool is_number(const struct mo_graph *g, mo_value_id v, double x)
{
    double found;
    return v != MO_NONE && g->values[v].data && mo_dtype_is_float(g->values[v].dtype) &&
           mo_value_scalar(&g->values[v], &found) && fabs(found - x) <= 1e-5 * fabs(x);
}

/* The other operand of a commutative node with the number x, or MO_NONE. */
static mo_value_id beside_number(const struct mo_graph *g, const struct mo_node *n, double x)
{
    return n->n_in != 2 ? MO_NONE : is_number(g, n->in[1], x) ? n->in[0] : is_number(g, n->in[0], x) ? n->in[1] : MO_NONE;
}

/* The only reader of a node's output, when it is of that type; MO_NONE. */
static mo_node_id only_reader(const struct mo_graph *g, const struct mo_node *n, const char *type)
{
    mo_node_id reader;
    if (!has_uses(g, n, 1) || mo_value_users(g, n->out[0], &reader, 1) != 1)
        return MO_NONE;
    return mo_node_is(&g->nodes[reader], type) ? reader : MO_NONE;
}

static void die(struct mo_graph *g, const struct mo_node *n)
{
    mo_graph_kill(g, (mo_node_id)(n - g->nodes));
}

static enum mopt_status become_unary(struct mo_rewrite *r, mo_node_id i, const char *type, mo_value_id x)
{
    r->n_changes++;
    return mo_rewrite_become(r, i, type, &x, 1);
}

/* ---- LayerNormalization ------------------------------------------------------------------------- */

/* What was found, the nodes that go, and the node that stays as the whole. */
struct layernorm {
    mo_value_id x, scale, shift;
    int axis;
    double epsilon;
    const struct mo_node *parts[8];
    int n_parts;
    mo_node_id last;
};

/* ReduceMean over all axes from *axis to the last, kept. */
static bool is_trailing_mean(const struct mo_graph *g, const struct mo_node *n, int *axis)
{
    int64_t found[MO_MAX_RANK];
    size_t count;
    const struct mo_value *x = mo_in(g, n, 0);
    const int64_t *axes = mo_node_ints(n, "axes", &count);
    if (!axes && mo_in(g, n, 1)) {
        int n_found = mo_value_ints(mo_in(g, n, 1), found, MO_MAX_RANK);
        count = (size_t)MO_MAX(n_found, 0);
        axes = found;
    }
    if (!axes || !count || !x || x->shape.rank < (int)count || !mo_node_int(n, "keepdims", 1))
        return false;
    unsigned set = 0;
    for (size_t k = 0; k < count; k++) {
        int64_t a = axes[k] < 0 ? axes[k] + x->shape.rank : axes[k];
        if (a < 0 || a >= x->shape.rank)
            return false;
        set |= 1u << a;
    }
    *axis = x->shape.rank - (int)count;
    return set == ((1u << count) - 1) << *axis;
}

static bool is_square_of(const struct mo_graph *g, const struct mo_node *n, mo_value_id d)
{
    return n && ((mo_node_is(n, "Pow") && n->in[0] == d && is_number(g, n->in[1], 2)) ||
                 (mo_node_is(n, "Mul") && n->in[0] == d && n->in[1] == d));
}

/* From the Div up to x. */
static bool find_parts(const struct mo_graph *g, const struct mo_node *div, struct layernorm *l)
{
    const struct mo_node *sub = maker_of(g, div->in[0], "Sub"), *root = maker_of(g, div->in[1], "Sqrt");
    const struct mo_node *sum = root ? maker_of(g, root->in[0], "Add") : NULL;
    const struct mo_node *mean = sub ? maker_of(g, sub->in[1], "ReduceMean") : NULL;
    int axis;
    if (!sum || !mean || sum->n_in != 2 || mean->in[0] != sub->in[0] || !is_trailing_mean(g, mean, &l->axis))
        return false;
    const struct mo_node *var = maker_of(g, sum->in[0], "ReduceMean");
    const struct mo_value *eps = mo_in(g, sum, var ? 1 : 0);
    var = var ? var : maker_of(g, sum->in[1], "ReduceMean");
    if (!var || !eps || !eps->data || !mo_value_scalar(eps, &l->epsilon) || l->epsilon <= 0 ||
        !is_trailing_mean(g, var, &axis) || axis != l->axis)
        return false;
    mo_node_id square = g->values[var->in[0]].producer;
    if (square == MO_NONE || !is_square_of(g, &g->nodes[square], sub->out[0]))
        return false;
    const struct mo_node *parts[] = { div, sub, root, sum, mean, var, &g->nodes[square] };
    for (size_t k = 1; k < MO_COUNT(parts); k++)
        if (!has_uses(g, parts[k], parts[k] != sub ? 1 : mo_node_is(&g->nodes[square], "Mul") ? 3 : 2))
            return false;
    memcpy(l->parts, parts, sizeof parts);
    l->n_parts = MO_COUNT(parts);
    l->x = sub->in[0];
    return true;
}

/* A float constant of exactly the normalized axes. */
static bool is_whole_constant(const struct mo_graph *g, mo_value_id v, const struct mo_shape *x, int axis)
{
    const struct mo_value *c = v == MO_NONE ? NULL : &g->values[v];
    if (!c || !c->data || c->dtype != MO_F32 || c->shape.rank != x->rank - axis)
        return false;
    for (int k = axis; k < x->rank; k++)
        if (c->shape.dim[k - axis] != x->dim[k])
            return false;
    return true;
}

/* A constant operand behind node i, by Mul or Add; the node that adds it, or i. */
static mo_node_id take_constant(struct mo_graph *g, mo_node_id i, const char *type, const struct layernorm *l, mo_value_id *c)
{
    mo_node_id next = only_reader(g, &g->nodes[i], type);
    if (next == MO_NONE)
        return i;
    const struct mo_node *n = &g->nodes[next];
    mo_value_id other = n->in[n->in[0] == g->nodes[i].out[0]];
    if (!is_whole_constant(g, other, &g->values[l->x].shape, l->axis))
        return i;
    *c = other;
    return next;
}

static enum mopt_status add_ones(struct mo_rewrite *r, const struct layernorm *l, mo_value_id *ones)
{
    struct mo_graph *g = r->g;
    const struct mo_shape *x = &g->values[l->x].shape;
    struct mo_shape shape = { .rank = x->rank - l->axis };
    memcpy(shape.dim, x->dim + l->axis, (size_t)shape.rank * sizeof *shape.dim);
    int64_t n = mo_shape_elems(&shape);
    float *data = n > 0 ? mo_mem_new((size_t)n, sizeof *data) : NULL;
    for (int64_t k = 0; data && k < n; k++)
        data[k] = 1;
    *ones = data ? mo_graph_add_const(g, "ones", MO_F32, &shape, data) : MO_NONE;
    mo_mem_free(data);
    return *ones == MO_NONE ? mo_no_memory(r->ctx, (uint64_t)n * 4, "a scale") : MOPT_OK;
}

static enum mopt_status make_layernorm(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    struct layernorm l = { .scale = MO_NONE, .shift = MO_NONE, .last = i };
    if (g->opset < 17 || g->nodes[i].n_in != 2 || !find_parts(g, &g->nodes[i], &l))
        return MOPT_OK;
    const struct mo_value *x = &g->values[l.x];
    for (int k = l.axis; k < x->shape.rank; k++)
        if (x->shape.dim[k] <= 0 || x->dtype != MO_F32)
            return MOPT_OK;
    mo_node_id mul = take_constant(g, i, "Mul", &l, &l.scale);
    l.last = take_constant(g, mul, "Add", &l, &l.shift);
    for (int k = 0; k < l.n_parts; k++)
        if (l.parts[k] != &g->nodes[l.last])
            die(g, l.parts[k]);
    if (mul != l.last)
        mo_graph_kill(g, mul);
    if (l.scale == MO_NONE)
        MO_TRY(add_ones(r, &l, &l.scale));
    mo_value_id in[3] = { l.x, l.scale, l.shift };
    int rank = g->values[l.x].shape.rank;
    r->n_changes++;
    MO_TRY(mo_rewrite_become(r, l.last, "LayerNormalization", in, l.shift == MO_NONE ? 2 : 3));
    if (!mo_node_set_int(g, l.last, "axis", l.axis - rank) ||
        !mo_node_set_float(g, l.last, "epsilon", (float)l.epsilon))
        return mo_no_memory(r->ctx, 16, "an attribute");
    return mo_infer_node(r->ctx, g, &g->nodes[l.last]);
}

/* sqrt(mean(x^2) + e) over the trailing axes. */
static bool find_root_mean_square(const struct mo_graph *g, mo_value_id v, mo_value_id x, struct layernorm *l)
{
    const struct mo_node *root = maker_of(g, v, "Sqrt"), *sum = root ? maker_of(g, root->in[0], "Add") : NULL;
    const struct mo_node *mean = sum && sum->n_in == 2 ? maker_of(g, sum->in[0], "ReduceMean") : NULL;
    const struct mo_value *eps = sum && sum->n_in == 2 ? mo_in(g, sum, mean ? 1 : 0) : NULL;
    mean = mean || !sum ? mean : maker_of(g, sum->in[1], "ReduceMean");
    mo_node_id square = mean ? g->values[mean->in[0]].producer : MO_NONE;
    if (square == MO_NONE || !eps || !eps->data || !mo_value_scalar(eps, &l->epsilon) || l->epsilon <= 0 ||
        !is_square_of(g, &g->nodes[square], x) || !is_trailing_mean(g, mean, &l->axis))
        return false;
    const struct mo_node *parts[] = { root, sum, mean, &g->nodes[square] };
    for (size_t k = 0; k < MO_COUNT(parts); k++)
        if (!has_uses(g, parts[k], 1))
            return false;
    memcpy(l->parts, parts, sizeof parts);
    l->n_parts = MO_COUNT(parts);
    l->x = x;
    return true;
}

/* i: the division, or the product with the reciprocal. */
static enum mopt_status make_rmsnorm(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    struct layernorm l = { .scale = MO_NONE };
    bool is_div = mo_node_is(&g->nodes[i], "Div"), found = false;
    for (uint32_t k = 0; k < 2 && g->opset >= 23 && !found; k++) {
        mo_value_id x = g->nodes[i].in[k], root = g->nodes[i].in[1 - k];
        const struct mo_node *inverse = maker_of(g, root, "Reciprocal");
        const struct mo_node *one_by = maker_of(g, root, "Div");
        if (!inverse && one_by && is_number(g, one_by->in[0], 1))
            inverse = one_by;
        if ((is_div && k) || (!is_div && (!inverse || !has_uses(g, inverse, 1))))
            continue;
        found = find_root_mean_square(g, is_div ? root : inverse->in[inverse->n_in - 1], x, &l);
        if (found && !is_div)
            l.parts[l.n_parts++] = inverse;
    }
    const struct mo_shape *x = found ? &g->values[l.x].shape : NULL;
    for (int k = found ? l.axis : 0; found && k < x->rank; k++)
        found = x->dim[k] > 0 && g->values[l.x].dtype == MO_F32;
    if (!found)
        return MOPT_OK;
    l.last = take_constant(g, i, "Mul", &l, &l.scale);
    for (int k = 0; k < l.n_parts; k++)
        die(g, l.parts[k]);
    if (l.last != i)
        mo_graph_kill(g, i);
    int rank = x->rank;
    if (l.scale == MO_NONE)
        MO_TRY(add_ones(r, &l, &l.scale));
    mo_value_id in[2] = { l.x, l.scale };
    r->n_changes++;
    MO_TRY(mo_rewrite_become(r, l.last, "RMSNormalization", in, 2));
    if (!mo_node_set_int(g, l.last, "axis", l.axis - rank) || !mo_node_set_float(g, l.last, "epsilon", (float)l.epsilon))
        return mo_no_memory(r->ctx, 16, "an attribute");
    return mo_infer_node(r->ctx, g, &g->nodes[l.last]);
}

/* ---- activations ------------------------------------------------------------------------------------ */

/* Nodes that go when their whole is made. */
struct parts { const struct mo_node *nodes[16]; int n; };

/* All of them read once, and noted; false where one is missing or read elsewhere too. */
static bool note(const struct mo_graph *g, struct parts *p, const struct mo_node *n, uint32_t n_uses)
{
    if (!n || !has_uses(g, n, n_uses))
        return false;
    p->nodes[p->n++] = n;
    return true;
}

/* x of erf(x / sqrt(2)), or MO_NONE. */
static mo_value_id erf_of(const struct mo_graph *g, mo_value_id e, struct parts *p)
{
    const struct mo_node *erf = maker_of(g, e, "Erf"), *div = erf ? maker_of(g, erf->in[0], "Div") : NULL;
    const struct mo_node *mul = erf ? maker_of(g, erf->in[0], "Mul") : NULL;
    mo_value_id x = div && is_number(g, div->in[1], sqrt(2)) ? div->in[0] : mul ? beside_number(g, mul, sqrt(0.5)) : MO_NONE;
    return x != MO_NONE && note(g, p, erf, 1) && note(g, p, div ? div : mul, 1) ? x : MO_NONE;
}

/* A product of numbers, powers of x and at most one value more. */
struct product { double number; int power; mo_value_id more; };

/* v as factors of *f; false where there are two values beside x, or a part that is read elsewhere too. */
static bool take_factors(const struct mo_graph *g, mo_value_id v, mo_value_id x, struct product *f, struct parts *p)
{
    const struct mo_node *mul = maker_of(g, v, "Mul"), *pow = maker_of(g, v, "Pow");
    double number;
    if (v == x) {
        f->power++;
        return true;
    }
    if (v == MO_NONE || p->n + 4 > (int)MO_COUNT(p->nodes))
        return false;
    if (g->values[v].data && mo_dtype_is_float(g->values[v].dtype) && mo_value_scalar(&g->values[v], &number)) {
        f->number *= number;
        return true;
    }
    if (mul && mul->n_in == 2 && has_uses(g, mul, 1))
        return note(g, p, mul, 1) && take_factors(g, mul->in[0], x, f, p) && take_factors(g, mul->in[1], x, f, p);
    if (pow && pow->in[0] == x && (is_number(g, pow->in[1], 2) || is_number(g, pow->in[1], 3))) {
        f->power += is_number(g, pow->in[1], 2) ? 2 : 3;
        return note(g, p, pow, 1);
    }
    if (f->more != MO_NONE)
        return false;
    f->more = v;
    return true;
}

static bool is_near(double found, double wanted)
{
    return fabs(found - wanted) <= 1e-5 * wanted;
}

/* Whether v is sqrt(2 / pi) (x + 0.044715 x^3), the factors in any order and outside the sum or in it. */
static bool is_tanh_argument(const struct mo_graph *g, mo_value_id v, mo_value_id x, struct parts *p)
{
    const double c1 = sqrt(2 / 3.14159265358979323846), c3 = 0.044715 * c1;
    struct product whole = { 1, 0, MO_NONE };
    if (!take_factors(g, v, x, &whole, p))
        return false;
    const struct mo_node *add = maker_of(g, whole.more, "Add");
    if (!add || !note(g, p, add, 1))
        return false;
    struct product a = { whole.number, whole.power, MO_NONE }, b = a;
    if (!take_factors(g, add->in[0], x, &a, p) || !take_factors(g, add->in[1], x, &b, p) || a.more != MO_NONE ||
        b.more != MO_NONE)
        return false;
    return (a.power == 1 && b.power == 3 && is_near(a.number, c1) && is_near(b.number, c3)) ||
           (a.power == 3 && b.power == 1 && is_near(a.number, c3) && is_near(b.number, c1));
}

/* What 1 + tanh may be multiplied with besides one half, seen from node i, the Add. */
static int candidates_for_x(const struct mo_graph *g, mo_node_id i, mo_value_id x[2])
{
    mo_node_id first = only_reader(g, &g->nodes[i], "Mul"), last;
    if (first == MO_NONE)
        return 0;
    const struct mo_node *p = &g->nodes[first];
    mo_value_id other = p->in[p->in[0] == g->nodes[i].out[0]];
    const struct mo_node *half = maker_of(g, other, "Mul");
    if (is_number(g, other, 0.5)) {
        last = only_reader(g, p, "Mul");
        x[0] = last == MO_NONE ? MO_NONE : g->nodes[last].in[g->nodes[last].in[0] == p->out[0]];
        return 1;
    }
    x[0] = other;
    x[1] = half ? beside_number(g, half, 0.5) : MO_NONE;
    return 2;
}

/* x of 1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)), which node i adds up, or MO_NONE. */
static mo_value_id tanh_of(const struct mo_graph *g, mo_node_id i, mo_value_id e, struct parts *p)
{
    const struct mo_node *th = maker_of(g, e, "Tanh");
    mo_value_id x[2];
    int n = th ? candidates_for_x(g, i, x) : 0;
    for (int k = 0; k < n; k++) {
        p->n = 0;
        if (x[k] != MO_NONE && note(g, p, th, 1) && is_tanh_argument(g, th->in[0], x[k], p))
            return x[k];
    }
    return MO_NONE;
}

/* The last of the products of x, one half and what node i adds up, in any order, or MO_NONE. */
static mo_node_id half_product(const struct mo_graph *g, mo_node_id i, mo_value_id x, struct parts *parts)
{
    mo_node_id first = only_reader(g, &g->nodes[i], "Mul");
    if (first == MO_NONE)
        return MO_NONE;
    const struct mo_node *p = &g->nodes[first];
    mo_value_id other = p->in[p->in[0] == g->nodes[i].out[0]];
    const struct mo_node *half = maker_of(g, other, "Mul");
    if (half && beside_number(g, half, 0.5) == x)
        return note(g, parts, half, 1) ? first : MO_NONE;
    mo_node_id last = only_reader(g, p, "Mul");
    if (last == MO_NONE || (other != x && !is_number(g, other, 0.5)))
        return MO_NONE;
    const struct mo_node *l = &g->nodes[last];
    bool fits = other == x ? beside_number(g, l, 0.5) == p->out[0] : l->in[l->in[0] == p->out[0]] == x;
    return fits && note(g, parts, p, 1) ? last : MO_NONE;
}

/* i: Add of 1 to Erf or Tanh. */
static enum mopt_status make_gelu(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    struct parts parts = { .n = 0 };
    mo_value_id e = g->opset < 20 ? MO_NONE : beside_number(g, &g->nodes[i], 1), x = erf_of(g, e, &parts);
    bool is_exact = x != MO_NONE;
    if (!is_exact)
        x = tanh_of(g, i, e, &parts);
    mo_node_id last = x == MO_NONE ? MO_NONE : half_product(g, i, x, &parts);
    if (last == MO_NONE)
        return MOPT_OK;
    for (int k = 0; k < parts.n; k++)
        die(g, parts.nodes[k]);
    mo_graph_kill(g, i);
    MO_TRY(become_unary(r, last, "Gelu", x));
    if (!is_exact && !mo_node_set_text(g, last, "approximate", "tanh"))
        return mo_no_memory(r->ctx, 16, "an attribute");
    return mo_infer_node(r->ctx, g, &g->nodes[last]);
}

/* Clip between lo and hi, given as attributes or inputs. */
static bool clips(const struct mo_graph *g, const struct mo_node *n, double lo, double hi)
{
    double low = mo_node_float(n, "min", -INFINITY), high = mo_node_float(n, "max", INFINITY);
    if ((mo_in(g, n, 1) && !mo_value_scalar(mo_in(g, n, 1), &low)) ||
        (mo_in(g, n, 2) && !mo_value_scalar(mo_in(g, n, 2), &high)))
        return false;
    return low == lo && high == hi;
}

/* i: Div by 6, or Mul by a sixth. */
static enum mopt_status make_hard_sigmoid(struct mo_rewrite *r, mo_node_id i, mo_value_id clipped)
{
    struct mo_graph *g = r->g;
    const struct mo_node *clip = maker_of(g, clipped, "Clip"), *add = clip ? maker_of(g, clip->in[0], "Add") : NULL;
    mo_value_id x = add ? beside_number(g, add, 3) : MO_NONE;
    if (x == MO_NONE || g->opset < 7 || !has_uses(g, clip, 1) || !has_uses(g, add, 1) || !clips(g, clip, 0, 6) ||
        g->values[x].dtype != MO_F32 || g->values[x].shape.rank < 1)
        return MOPT_OK;
    die(g, clip);
    die(g, add);
    MO_TRY(become_unary(r, i, "HardSigmoid", x));
    if (!mo_node_set_float(g, i, "alpha", 1.0f / 6) || !mo_node_set_float(g, i, "beta", 0.5f))
        return mo_no_memory(r->ctx, 16, "an attribute");
    return mo_infer_node(r->ctx, g, &g->nodes[i]);
}

/* i: Mul of x and what a gate makes of x. (x sigmoid(x) is a Swish in opset 24, which ONNX Runtime 1.32 cannot run.) */
static enum mopt_status make_gated(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    for (uint32_t k = 0; k < 2 && g->opset >= 14; k++) {
        mo_value_id x = g->nodes[i].in[k];
        const struct mo_node *gate = maker_of(g, g->nodes[i].in[1 - k], "HardSigmoid");
        if (!gate || gate->in[0] != x || !has_uses(g, gate, 1) ||
            fabsf(mo_node_float(gate, "alpha", 0.2f) - 1.0f / 6) >= 1e-6f || mo_node_float(gate, "beta", 0.5f) != 0.5f)
            continue;
        die(g, gate);
        return become_unary(r, i, "HardSwish", x);
    }
    return MOPT_OK;
}

enum mopt_status mo_rewrite_compose(struct mo_rewrite *r, mo_node_id i)
{
    struct mo_graph *g = r->g;
    const struct mo_node *n = &g->nodes[i];
    if (n->n_in != 2 || n->in[0] == MO_NONE || n->in[1] == MO_NONE || g->opset < 7)
        return MOPT_OK;
    if (mo_node_is(n, "Add"))
        return make_gelu(r, i);
    if (mo_node_is(n, "Div") && is_number(g, n->in[1], 6))
        return make_hard_sigmoid(r, i, n->in[0]);
    if (mo_node_is(n, "Div")) {
        MO_TRY(make_layernorm(r, i));
        return mo_node_is(&g->nodes[i], "Div") && !g->nodes[i].is_dead ? make_rmsnorm(r, i) : MOPT_OK;
    }
    if (!mo_node_is(n, "Mul"))
        return MOPT_OK;
    uint32_t before = r->n_changes;
    MO_TRY(make_rmsnorm(r, i));
    if (r->n_changes > before)
        return MOPT_OK;
    mo_value_id sixth = beside_number(g, n, 1.0 / 6);
    return sixth != MO_NONE ? make_hard_sigmoid(r, i, sixth) : make_gated(r, i);
}
