/* RotaryEmbedding (Su et al. 2021): pairs (a, b) of the first rotary_embedding_dim numbers of a head are turned by
 * the angle of their position,
 *
 *     a' = a cos - b sin        b' = a sin + b cos
 *
 * the halves of a head against each other or, interleaved, neighbours. The others stay. The gradient turns back. */
#include "lib/ops/tensor.h"

enum { IN_X, IN_COS, IN_SIN, IN_POSITION };

struct rotary {
    bool is_interleaved;
    int64_t heads, head_size, half;     /* half: pairs in a head */
    int64_t batch, steps;
};

static enum mopt_status read_sizes(struct mopt_ctx *ctx, const struct mo_node *n, const struct mo_shape *x,
                                   struct rotary *p)
{
    int64_t heads = mo_node_int(n, "num_heads", 0), turned = mo_node_int(n, "rotary_embedding_dim", 0);
    p->batch = x->dim[0];
    if (x->rank == 4) {
        p->heads = x->dim[1];
        p->steps = x->dim[2];
        p->head_size = x->dim[3];
    } else {
        p->heads = heads;
        p->steps = x->dim[1];
        if (heads < 1 || x->dim[2] % heads)
            return mo_fail(ctx, MOPT_DATA, "%lld heads for %lld numbers", (long long)heads, (long long)x->dim[2]);
        p->head_size = x->dim[2] / heads;
    }
    turned = turned ? turned : p->head_size;
    if (turned < 0 || turned % 2 || turned > p->head_size)
        return mo_fail(ctx, MOPT_DATA, "%lld of %lld numbers of a head are to be turned, it should be an even count",
                       (long long)turned, (long long)p->head_size);
    p->half = turned / 2;
    return MOPT_OK;
}

static enum mopt_status check_cache(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, uint32_t i,
                                    const struct rotary *p)
{
    const struct mo_value *cache = mo_in(g, n, i), *position = mo_in(g, n, IN_POSITION);
    bool fits = cache->shape.rank == (position ? 2 : 3) && cache->shape.dim[cache->shape.rank - 1] == p->half;
    if (fits && !position)
        fits = cache->shape.dim[0] == p->batch && cache->shape.dim[1] == p->steps;
    if (fits && position)
        fits = mo_value_elems(position) == p->batch * p->steps;
    char text[128];
    if (fits)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "'%s' is %s, it should hold %lld numbers for each of %s", cache->name,
                   mo_shape_text(&cache->shape, text, sizeof text), (long long)p->half,
                   position ? "the positions" : "batch and step");
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct rotary *p = n->params;
    const struct mo_value *x = mo_in(g, n, IN_X), *position = mo_in(g, n, IN_POSITION);
    p->is_interleaved = mo_node_int(n, "interleaved", 0) != 0;
    if (x->shape.rank != MO_UNKNOWN && x->shape.rank != 3 && x->shape.rank != 4)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be 3 or 4", x->shape.rank);
    if (position && position->dtype != MO_I64 && position->dtype != MO_I32 && position->dtype != MO_UNDEFINED)
        return mo_fail(ctx, MOPT_DATA, "positions are %s, they should be int64", mo_dtype_name(position->dtype));
    if (mo_shape_known(&x->shape))
        MO_TRY(read_sizes(ctx, n, &x->shape, p));
    for (uint32_t i = IN_COS; i <= IN_SIN && mo_shape_known(&x->shape); i++)
        if (mo_shape_known(&mo_in(g, n, i)->shape) && (!position || mo_shape_known(&position->shape)))
            MO_TRY(check_cache(ctx, g, n, i, p));
    return mo_infer_like_input(ctx, g, n);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    for (uint32_t i = IN_X; i <= IN_SIN; i++)
        if (mo_in(r->graph, n, i)->dtype != MO_F32)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", i,
                           mo_dtype_name(mo_in(r->graph, n, i)->dtype));
    return MOPT_OK;
}

struct parts {
    float *angle[2];            /* cos, sin: batch x steps x half */
    float *product;             /* batch x steps x heads x half */
    int64_t *position;
    size_t bytes;
};

static struct parts parts(const struct rotary *p, char *base)
{
    struct parts s;
    size_t of_angles = mo_part_bytes((size_t)(p->batch * p->steps * p->half) * sizeof(float));
    size_t of_product = mo_part_bytes((size_t)(p->batch * p->steps * p->heads * p->half) * sizeof(float));
    s.bytes = 2 * of_angles + of_product + mo_part_bytes((size_t)(p->batch * p->steps) * sizeof(int64_t));
    s.angle[0] = (float *)(void *)base;
    s.angle[1] = base ? (float *)(void *)(base + of_angles) : NULL;
    s.product = base ? (float *)(void *)(base + 2 * of_angles) : NULL;
    s.position = base ? (int64_t *)(void *)(base + 2 * of_angles + of_product) : NULL;
    return s;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    (void)r, (void)backward;
    return parts(n->params, NULL).bytes;
}

/* Angles of each batch and step: the cache itself, or its rows by position. */
static void load_angles(struct mo_run *r, const struct mo_node *n, const struct rotary *p, struct parts *s)
{
    const struct mo_value *position = mo_in(r->graph, n, IN_POSITION);
    int64_t count = p->batch * p->steps;
    if (position)
        mo_widen_index(r, position, mo_run_in(r, n, IN_POSITION), s->position);
    for (uint32_t k = 0; k < 2; k++) {
        if (position)
            r->be->gather(r->dev, sizeof(float), 1, mo_in(r->graph, n, IN_COS + k)->shape.dim[0], count, p->half,
                          mo_run_in(r, n, IN_COS + k), s->position, s->angle[k]);
        else
            s->angle[k] = mo_run_in(r, n, IN_COS + k);
    }
}

/* y of one of a pair = x_first * angle_first + sign * x_second * angle_second */
struct term { int64_t at; int angle; float sign; };

static enum mopt_status turn(struct mo_run *r, const struct mo_node *n, bool back, const float *x, float *y)
{
    const struct rotary *p = n->params;
    const struct mo_value *v = mo_in(r->graph, n, IN_X);
    struct parts s = parts(p, mo_run_scratch(r, n));
    int64_t size = p->head_size, step = p->is_interleaved ? 2 : 1, other = p->is_interleaved ? 1 : p->half;
    bool is_split = v->shape.rank == 4;
    const int64_t dims[4] = { p->batch, p->steps, p->heads, p->half };
    const int64_t of_x[4] = {p->heads * p->steps * size, is_split ? size : p->heads * size,
                             is_split ? p->steps * size : size, step};
    const int64_t of_angle[4] = { p->steps * p->half, p->half, 0, 1 };
    const int64_t dense[4] = { p->steps * p->heads * p->half, p->heads * p->half, p->half, 1 };
    float sign = back ? -1 : 1;
    const struct term terms[2][2] = { { { 0, 0, 1 }, { other, 1, -sign } }, { { other, 0, 1 }, { 0, 1, sign } } };
    load_angles(r, n, p, &s);
    mo_copy(r, sizeof *x, mo_value_elems(v), x, y);
    for (int to = 0; to < 2; to++)
        for (int k = 0; k < 2; k++) {
            const struct term *t = &terms[to][k];
            r->be->binary(r->dev, MO_MUL, MO_F32, 4, dims, of_x, of_angle, x + t->at, s.angle[t->angle], s.product);
            if (t->sign < 0)
                r->be->unary(r->dev, MO_NEG, 0, 0, (size_t)mo_product(dims, 4), s.product, s.product);
            if (k == 0)
                r->be->copy_strided(r->dev, sizeof *y, 4, dims, dense, of_x, s.product, y + (to ? other : 0));
            else
                r->be->add_strided(r->dev, 4, dims, dense, of_x, s.product, y + (to ? other : 0));
        }
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    return turn(r, n, false, mo_run_in(r, n, IN_X), mo_run_out(r, n, 0));
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    float *dx = mo_run_grad_in(r, n, IN_X);
    if (mo_run_grad_in(r, n, IN_COS) || mo_run_grad_in(r, n, IN_SIN))
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "gradients of its angles are not computed");
    return dx ? turn(r, n, true, mo_run_grad_out(r, n, 0), dx) : MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct rotary *p = n->params;
    int64_t elems = mo_value_elems(mo_in(g, n, IN_X));
    return elems == MO_UNKNOWN || p->head_size < 1 ? MO_UNKNOWN : elems / p->head_size * p->half * 4;
}

const struct mo_op mo_op_rotary_embedding = {
    .type = "RotaryEmbedding",
    .since_opset = 23,
    .min_in = 3, .max_in = 4, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct rotary),
    .infer = infer, .prepare = prepare, .forward = forward, .backward = backward,
    .macs = macs,
    .scratch_bytes = scratch_bytes,
    .backward_reads = 1u << IN_COS | 1u << IN_SIN | 1u << IN_POSITION,
};
