/* RandomNormal, RandomUniform and their forms like another tensor; Bernoulli: 1 with the probability that x says;
 * Multinomial: classes drawn by their unnormalized log-probabilities. Numbers come from the run's seed, the node
 * and its own seed, so that a run can be repeated; they are not those of another runtime. */
#include <math.h>
#include <string.h>

#include "lib/ops/host.h"

enum draw { DRAW_NORMAL, DRAW_UNIFORM, DRAW_BERNOULLI, DRAW_MULTINOMIAL };

struct random {
    enum draw draw;
    float first, second;        /* mean and scale, or low and high */
    int64_t seed;
};

static uint64_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void read_attrs(const struct mo_node *n, struct random *p)
{
    bool is_normal = !strncmp(n->type, "RandomNormal", strlen("RandomNormal"));
    p->draw = is_normal ? DRAW_NORMAL : !strcmp(n->type, "Bernoulli") ? DRAW_BERNOULLI
              : !strcmp(n->type, "Multinomial") ? DRAW_MULTINOMIAL : DRAW_UNIFORM;
    p->first = mo_node_float(n, is_normal ? "mean" : "low", 0);
    p->second = mo_node_float(n, is_normal ? "scale" : "high", 1);
    p->seed = (int64_t)bits_of(mo_node_float(n, "seed", 0));
}

/* Attribute shape, or that of input 0 (Multinomial: rows of it). */
static enum mopt_status shape_of(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                 const struct random *p, struct mo_shape *shape)
{
    const struct mo_value *x = mo_in(g, n, 0);
    size_t rank = 0;
    const int64_t *dims = mo_node_ints(n, "shape", &rank);
    if (x && p->draw == DRAW_MULTINOMIAL) {
        int64_t count = mo_node_int(n, "sample_size", 1);
        if (count < 1 || count > INT32_MAX || (x->shape.rank != MO_UNKNOWN && x->shape.rank != 2))
            return mo_fail(ctx, MOPT_DATA, "%lld samples of an input of rank %d, which should be 2", (long long)count,
                           x->shape.rank);
        *shape = mo_shape_of(2, x->shape.rank == 2 ? x->shape.dim[0] : (int64_t)MO_UNKNOWN, count);
        return MOPT_OK;
    }
    if (x) {
        *shape = x->shape;
        return MOPT_OK;
    }
    if (!mo_node_attr(n, "shape") || rank > MO_MAX_RANK)
        return mo_fail(ctx, MOPT_DATA, "a shape of %zu sizes", rank);
    shape->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        shape->dim[i] = dims[i];
        if (dims[i] < 0)
            return mo_fail(ctx, MOPT_DATA, "a size of %lld", (long long)dims[i]);
    }
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct random *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape shape;
    read_attrs(n, p);
    enum mo_dtype otherwise = p->draw == DRAW_MULTINOMIAL ? MO_I32 : x ? x->dtype : MO_F32;
    MO_TRY(shape_of(ctx, g, n, p, &shape));
    mo_set_out(g, n, 0, (enum mo_dtype)mo_node_int(n, "dtype", otherwise), &shape);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct random *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    enum mo_dtype dtype = mo_out(r->graph, n, 0)->dtype;
    bool reads = p->draw == DRAW_BERNOULLI || p->draw == DRAW_MULTINOMIAL;
    if (!mo_elem_bytes(dtype) || dtype == MO_STRING)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed as %s", mo_dtype_name(dtype));
    if (reads && x->dtype != MO_F32 && x->dtype != MO_F64)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed from %s", mo_dtype_name(x->dtype));
    return MOPT_OK;
}

static double number(const struct mo_value *v, const void *data, int64_t i)
{
    return v->dtype == MO_F64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

/* The class whose share of the sum of exp(x) holds u. */
static int64_t drawn_class(const struct mo_value *v, const void *x, int64_t row, int64_t n, double u)
{
    double most = -INFINITY, sum = 0, passed = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, number(v, x, row * n + i));
    for (int64_t i = 0; i < n; i++)
        sum += exp(number(v, x, row * n + i) - most);
    for (int64_t i = 0; i < n; i++) {
        passed += exp(number(v, x, row * n + i) - most);
        if (u * sum < passed)
            return i;
    }
    return n - 1;
}

static float draw(struct mo_rng *rng, const struct random *p, const struct mo_value *v, const void *x, int64_t i,
                  int64_t n_samples)
{
    switch (p->draw) {
    case DRAW_NORMAL: return p->first + p->second * mo_rng_normal(rng);
    case DRAW_UNIFORM: return p->first + (p->second - p->first) * mo_rng_float(rng);
    case DRAW_BERNOULLI: return (double)mo_rng_float(rng) < number(v, x, i) ? 1 : 0;
    default: return (float)drawn_class(v, x, i / n_samples, v->shape.dim[1], (double)mo_rng_float(rng));
    }
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : mo_run_out_elems(r, n, 0) * sizeof(float);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct random *p = n->params;
    const struct mo_value *y = mo_out(r->graph, n, 0), *x = mo_in(r->graph, n, 0);
    int64_t count = mo_value_elems(y), n_samples = y->shape.rank == 2 ? MO_MAX(y->shape.dim[1], 1) : 1;
    struct mo_rng rng = mo_rng_new(r->options.seed ^ (uint64_t)p->seed, MO_RNG_INPUT,
                                   r->step << 16 | (mo_node_id_of(r->graph, n) & 0xffff));
    struct mo_host h;
    float *numbers = mo_mem_new((size_t)count + 1, sizeof *numbers);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !numbers)
        status = mo_no_memory(r->ctx, (uint64_t)count * sizeof *numbers, "random numbers");
    if (!status && p->draw == DRAW_MULTINOMIAL && x->shape.dim[1] < 1 && count)
        status = mo_fail(r->ctx, MOPT_DATA, "there is no class to draw");
    for (int64_t i = 0; !status && i < count; i++)
        numbers[i] = draw(&rng, p, x, h.in[0], i, n_samples);
    if (!status && count) {
        r->be->upload(r->dev, mo_run_scratch(r, n), numbers, (size_t)count * sizeof *numbers);
        r->be->cast(r->dev, MO_F32, (int)y->dtype, (size_t)count, mo_run_scratch(r, n), mo_run_out(r, n, 0));
    }
    mo_mem_free(numbers);
    mo_host_close(&h);
    return status;
}

#define RANDOM(id, Type, since, least_in, most_in)                                                          \
    const struct mo_op mo_op_##id = {                                                                       \
        .type = Type, .since_opset = since, .min_in = least_in, .max_in = most_in, .min_out = 1, .max_out = 1, \
        .flags = MO_OP_RANDOM, .params_bytes = sizeof(struct random),                                       \
        .infer = infer, .prepare = prepare, .forward = forward, .macs = mo_macs_zero,                       \
        .scratch_bytes = scratch_bytes,                                                                     \
    };
RANDOM(bernoulli, "Bernoulli", 15, 1, 1)
RANDOM(multinomial, "Multinomial", 7, 1, 1)
RANDOM(random_normal, "RandomNormal", 1, 0, 0)
RANDOM(random_normal_like, "RandomNormalLike", 1, 1, 1)
RANDOM(random_uniform, "RandomUniform", 1, 0, 0)
RANDOM(random_uniform_like, "RandomUniformLike", 1, 1, 1)
