/* init.c - starting a model over, and its running statistics.
 *
 * Fresh parameters: weights of a product normal with deviation sqrt(gain / fan_in) (He et al. 2015), fan_in the number
 * of terms in each sum, gain 2 where a rectifier follows, which lets half of them through, else 1; biases 0; normalization scale 1, shift 0, mean 0, variance 1; PRelu slope 0.25; tables of Gather
 * and added constants that are no bias (positions) normal with deviation 0.02; factors of Mul and Div 1. */
#include <math.h>
#include <string.h>

#include "lib/graph/op.h"
#include "lib/passes/train.h"

struct fill { float mean, deviation; };

static const float small_deviation = 0.02f;

static bool is_in(const struct mo_node *n, const char *const *types, size_t n_types)
{
    for (size_t i = 0; i < n_types; i++)
        if (mo_node_is(n, types[i]))
            return true;
    return false;
}

static bool is_norm(const struct mo_node *n)
{
    static const char *const types[] = {"BatchNormalization", "InstanceNormalization", "LayerNormalization",
                                        "GroupNormalization", "RMSNormalization"};
    return is_in(n, types, MO_COUNT(types));
}

/* All elements along at most one axis: a bias, however many ones its shape has. */
static bool is_vector(const struct mo_shape *s)
{
    int n_long = 0;
    for (int i = 0; i < s->rank; i++)
        n_long += s->dim[i] > 1;
    return n_long <= 1;
}

/* Terms in each sum that a weight takes part in. */
static int64_t fan_in(const struct mo_node *n, uint32_t input, const struct mo_shape *s)
{
    int64_t elems = mo_shape_elems(s);
    if (s->rank < 2)
        return MO_MAX(elems, 1);
    int64_t last = s->dim[s->rank - 1], before = s->dim[s->rank - 2];
    if (mo_node_is(n, "MatMul"))
        return input == 1 ? before : last;
    if (mo_node_is(n, "Gemm"))
        return (input == 1) == (mo_node_int(n, input == 1 ? "transB" : "transA", 0) != 0) ? last : before;
    if (mo_node_is(n, "ConvTranspose"))
        return elems / MO_MAX(s->dim[1] * mo_node_int(n, "group", 1), 1);
    return elems / MO_MAX(s->dim[0], 1);
}

/* Whether what n makes goes through a rectifier, perhaps behind operators that only add, normalize or move. */
static bool is_rectified(const struct mo_graph *g, const struct mo_node *n)
{
    static const char *const rectifiers[] = {"Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Celu", "Gelu", "Erf",
                                             "HardSwish", "Swish", "Mish", "Softplus", "ThresholdedRelu"};
    static const char *const movers[] = {"Add", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool",
                                         "Flatten", "Reshape", "Squeeze", "Identity", "Dropout", "Div"};
    enum { MAX_STEPS = 8, MAX_USERS = 8 };
    for (int step = 0; step < MAX_STEPS && n->n_out && n->out[0] != MO_NONE; step++) {
        mo_node_id users[MAX_USERS];
        uint32_t n_users = MO_MIN(mo_value_users(g, n->out[0], users, MAX_USERS), (uint32_t)MAX_USERS);
        const struct mo_node *next = NULL;
        for (uint32_t i = 0; i < n_users; i++) {
            const struct mo_node *user = &g->nodes[users[i]];
            if (is_in(user, rectifiers, MO_COUNT(rectifiers)))
                return true;
            if (!next && is_in(user, movers, MO_COUNT(movers)))
                next = user;
        }
        if (!next)
            return false;
        n = next;
    }
    return false;
}

static struct fill choose(const struct mo_graph *g, const struct mo_node *n, uint32_t input, const struct mo_shape *s)
{
    if (is_norm(n))
        return (struct fill){.mean = input == 1 || input == 4};
    if (mo_node_is(n, "PRelu"))
        return (struct fill){.mean = 0.25f};
    if (mo_node_is(n, "Mul") || mo_node_is(n, "Div"))
        return (struct fill){.mean = 1};
    if (mo_node_is(n, "Gather"))
        return (struct fill){.deviation = small_deviation};
    bool adds = mo_node_is(n, "Add") || mo_node_is(n, "Sub") || mo_node_is(n, "Sum");
    bool is_weight = (mo_node_is(n, "MatMul") || mo_node_is(n, "Gemm")) && input < 2;
    if (is_vector(s) && !is_weight && s->rank < 2)
        return (struct fill){0};
    if (adds)
        return (struct fill){.deviation = is_vector(s) ? 0 : small_deviation};
    double gain = is_rectified(g, n) ? 2 : 1;
    return (struct fill){.deviation = (float)sqrt(gain / (double)MO_MAX(fan_in(n, input, s), 1))};
}

static enum mopt_status fill_one(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_node *n, uint32_t input,
                                 uint64_t seed)
{
    mo_value_id id = n->in[input];
    const struct mo_value *v = &g->values[id];
    if (v->dtype != MO_F32)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "parameter '%s' is %s: only float32 ones can be made fresh", v->name,
                       mo_dtype_name(v->dtype));
    struct mo_shape shape = v->shape;
    size_t n_elems = (size_t)mo_value_elems(v);
    float *data = mo_mem_new(MO_MAX(n_elems, (size_t)1), sizeof *data);
    if (!data)
        return mo_no_memory(ctx, n_elems * sizeof *data, v->name);
    struct fill f = choose(g, n, input, &shape);
    struct mo_rng rng = mo_rng_new(seed, MO_RNG_INIT, id);
    for (size_t i = 0; i < n_elems; i++)
        data[i] = f.deviation > 0 ? f.mean + f.deviation * mo_rng_normal(&rng) : f.mean;
    mo_value_set_data(g, id, MO_F32, &shape, data);
    return MOPT_OK;
}

/* Whether input k of n is a parameter, or state that training changes. */
static bool is_parameter(const struct mo_graph *g, const struct mo_node *n, uint32_t k)
{
    if (!n->op || k >= 32 || !((n->op->params_in | n->op->state_in) >> k & 1) || n->in[k] == MO_NONE)
        return false;
    const struct mo_value *v = &g->values[n->in[k]];
    return v->data && mo_dtype_is_float(v->dtype) && (mo_value_elems(v) > 1 || n->op->flags & MO_OP_PARAM_SCALAR ||
                                                      n->op->state_in >> k & 1 || is_norm(n));
}

enum mopt_status mo_init_params(struct mopt_ctx *ctx, struct mopt_model *model, uint64_t seed)
{
    struct mo_graph *g = &model->graph;
    bool *is_done = mo_mem_new((size_t)g->n_values + 1, sizeof *is_done);
    if (!is_done)
        return mo_no_memory(ctx, g->n_values, "fresh parameters");
    enum mopt_status status = MOPT_OK;
    for (uint32_t i = 0; i < g->n_nodes && !status; i++) {
        const struct mo_node *n = &g->nodes[i];
        for (uint32_t k = 0; k < n->n_in && !status && !n->is_dead; k++)
            if (is_parameter(g, n, k) && !is_done[n->in[k]]) {
                is_done[n->in[k]] = true;
                status = fill_one(ctx, g, n, k, seed);
            }
    }
    mo_mem_free(is_done);
    return status;
}

/* ---- running statistics of BatchNormalization ---- */

static bool has_state(const struct mo_run *run)
{
    for (uint32_t i = 0; i < run->n_params; i++)
        if (run->params[i].is_state)
            return true;
    return false;
}

/* Batch i of a mean over batches counts 1 / (i + 1): the momentum that makes running statistics that mean. */
static enum mopt_status average_statistics(struct mo_job *job, struct mo_run *run, struct mo_loader *loader,
                                           size_t n_batches)
{
    MO_TRY(mo_loader_start(loader, 0, 0));
    for (size_t i = 0; i < n_batches; i++) {
        const struct mo_batch *batch;
        MO_TRY(mo_stopped(job->ctx));
        MO_TRY(mo_loader_next(loader, &batch));
        if (!batch->n)
            break;
        run->options.bn_momentum = 1 / (float)(i + 1);
        MO_TRY(mo_train_feed(run, batch));
        MO_TRY(mo_run_forward(run));
        mo_progress(job->ctx, "statistics", (double)i + 1, (double)n_batches, "batch", "");
    }
    return MOPT_OK;
}

enum mopt_status mo_reestimate_bn(struct mo_job *job, struct mopt_model *model, size_t batch, size_t n_batches)
{
    struct mopt_ctx *ctx = job->ctx;
    if (!job->dataset)
        return mo_fail(ctx, MOPT_DATA, "statistics of BatchNormalization need data");
    const char *activation;
    mo_value_id logits = mo_graph_logits(&model->graph, &activation);
    const struct mo_run_options options = {
        .train = true, .bn = MO_BN_BATCH, .seed = (uint64_t)job->settings->seed, .outputs = &logits, .n_outputs = 1};
    struct mo_run *run = NULL;
    struct mo_loader *loader = NULL;
    enum mopt_status status = mo_run_new(ctx, &model->graph, &options, &run);
    if (!status && has_state(run)) {
        const struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = batch, .shuffle = true,
                                              .drop_last = mo_dataset_count(job->dataset, MO_SPLIT_TRAIN) >= batch,
                                              .seed = (uint64_t)job->settings->seed};
        run->is_training = true;
        status = mo_loader_new(ctx, job->dataset, &how, &loader);
        if (!status)
            status = average_statistics(job, run, loader, n_batches);
        if (!status)
            status = mo_run_store(run, &model->graph);
    }
    mo_loader_free(loader);
    mo_run_free(run);
    return status;
}
