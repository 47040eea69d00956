/* run.c - opening the device, making and freeing runs, shapes, inputs, outputs. */
#include "lib/run/run.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/reference.h"
#include "lib/run/private.h"

/* ---- the device --------------------------------------------------------------------- */

/* "cuda:1" is the backend "cuda" and number 1. */
static const struct mo_backend *parse_device(const char *text, int *index)
{
    char name[sizeof((struct mopt_ctx *)0)->device_name];
    size_t n = strcspn(text, ":");
    if (n >= sizeof name)
        return NULL;
    memcpy(name, text, n);
    name[n] = 0;
    *index = text[n] ? (int)strtol(text + n + 1, NULL, 10) : -1;
    return mo_backend_find(name);
}

static enum mopt_status open_named(struct mopt_ctx *ctx, const char *text)
{
    char why[256] = "";
    int index = 0;
    const struct mo_backend *be = parse_device(text, &index);
    if (!be)
        return mo_fail(ctx, MOPT_USAGE, "there is no device '%s'; cpu, cuda, cuda:1 or auto is right", text);
    if (index < 0) /* one rank a device, where they are counted */
        index = be->is_host ? 0 : ctx->local_rank;
    struct mo_device *dev = be->open(index, ctx->n_threads, why, sizeof why);
    if (!dev)
        return mo_fail(ctx, MOPT_FAILED, "device '%s': %s", text, why);
    ctx->backend = be;
    ctx->device = dev;
    return MOPT_OK;
}

enum mopt_status mo_device_need(struct mopt_ctx *ctx)
{
    if (ctx->device)
        return MOPT_OK;
    const char *name = ctx->device_name[0] ? ctx->device_name : "cpu";
    if (strcmp(name, "auto") != 0)
        return open_named(ctx, name);
    char why[256];
    const struct mo_backend *be = mo_backend_auto();
    struct mo_device *dev = be->open(be->is_host ? 0 : ctx->local_rank, ctx->n_threads, why, sizeof why);
    if (!dev && ctx->n_ranks > 1)
        return mo_fail(ctx, MOPT_FAILED, "rank %d of this machine has no GPU of its own (%s): start as many ranks as there "
                       "are GPUs, or give --device cpu", ctx->local_rank, why);
    if (!dev)
        return open_named(ctx, "cpu");
    ctx->backend = be;
    ctx->device = dev;
    return MOPT_OK;
}

enum mopt_status mo_device_full(struct mo_run *run, uint64_t bytes, const char *what)
{
    char why[192];
    if (!run->be->sync(run->dev, why, sizeof why))
        return mo_no_memory(run->ctx, bytes, what);
    return mo_fail(run->ctx, MOPT_LIMIT, "%s: %s", what, why);
}

/* ---- making and freeing ------------------------------------------------------------------ */

static enum mopt_status choose_device(struct mo_run *run)
{
    char why[160];
    if (run->options.reference) {
        run->be = &mo_backend_reference;
        run->dev = run->be->open(0, MO_MAX(run->ctx->n_threads, 1), why, sizeof why);
        return run->dev ? MOPT_OK : mo_fail(run->ctx, MOPT_FAILED, "the reference device: %s", why);
    }
    MO_TRY(mo_device_need(run->ctx));
    run->be = run->ctx->backend;
    run->dev = run->ctx->device;
    if (run->options.half == MO_F16 && !run->be->use_half)
        return mo_fail(run->ctx, MOPT_UNSUPPORTED, "float16 is computed with --device cuda only, not on %s, which has bf16",
                       run->be->name);
    return MOPT_OK;
}

static enum mopt_status make(struct mo_run *run, const struct mo_graph *g)
{
    struct mo_run_private *p = run->private_;
    MO_TRY(choose_device(run));
    if (!run->options.texts)
        run->options.texts = p->own_texts = mo_texts_new();
    if (!run->options.texts)
        return mo_no_memory(run->ctx, 64, "texts");
    MO_TRY(mo_lower_base(run, g));
    p->input_mem = mo_arena_new(&p->arena, p->n_inputs + 1, sizeof *p->input_mem);
    p->input_bytes = mo_arena_new(&p->arena, p->n_inputs + 1, sizeof *p->input_bytes);
    p->is_input_set = mo_arena_new(&p->arena, p->n_inputs + 1, sizeof *p->is_input_set);
    if (!p->input_mem || !p->input_bytes || !p->is_input_set)
        return mo_no_memory(run->ctx, p->n_inputs * sizeof *p->input_mem, "inputs");
    run->graph = &p->base;
    return MOPT_OK;
}

enum mopt_status mo_run_new(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_run_options *options,
                            struct mo_run **out)
{
    static const struct mo_run_options none = { 0 };
    struct mo_run *run = mo_mem_new(1, sizeof *run);
    struct mo_run_private *p = mo_mem_new(1, sizeof *p);
    *out = NULL;
    if (!run || !p) {
        mo_mem_free(run);
        mo_mem_free(p);
        return mo_no_memory(ctx, sizeof *run, "a run");
    }
    run->ctx = ctx;
    run->options = options ? *options : none;
    run->is_training = run->options.train;
    run->private_ = p;
    enum mopt_status status = make(run, g);
    run->options.outputs = NULL;        /* the caller's list need not live longer */
    if (status) {
        mo_run_free(run);
        return status;
    }
    *out = run;
    return MOPT_OK;
}

static void free_device(struct mo_run *run, void *mem)
{
    if (mem)
        run->be->free(run->dev, mem);
}

void mo_run_free(struct mo_run *run)
{
    if (!run)
        return;
    struct mo_run_private *p = run->private_;
    for (int i = 0; i < MO_MAX_PLANS; i++)
        mo_plan_free(run, p->plans[i]);
    free_device(run, p->block);
    for (uint32_t i = 0; p->input_mem && i < p->n_inputs; i++)
        free_device(run, p->input_mem[i]);
    free_device(run, p->accumulate);
    free_device(run, run->options.weights_of ? NULL : run->weights);
    free_device(run, run->grads);
    free_device(run, p->layout_mem);
    if (run->options.reference && run->dev)
        run->be->close(run->dev);
    mo_texts_free(p->own_texts);
    mo_graph_release(&p->base);
    mo_arena_release(&p->arena);
    mo_mem_free(p);
    mo_mem_free(run);
}

/* ---- shapes ----------------------------------------------------------------------------------- */

static struct mo_plan *find_plan(struct mo_run_private *p, const struct mo_shape *shapes)
{
    for (int i = 0; i < MO_MAX_PLANS; i++) {
        bool same = p->plans[i];
        for (uint32_t k = 0; same && k < p->n_inputs; k++)
            same = mo_shape_equal(&p->plans[i]->shapes[k], &shapes[k]);
        if (same)
            return p->plans[i];
    }
    return NULL;
}

/* A free place, or that of the plan not used for longest. */
static int place_for_plan(struct mo_run *run)
{
    struct mo_run_private *p = run->private_;
    int oldest = 0;
    for (int i = 0; i < MO_MAX_PLANS; i++) {
        if (!p->plans[i])
            return i;
        if (p->plans[i]->last_use < p->plans[oldest]->last_use)
            oldest = i;
    }
    mo_plan_free(run, p->plans[oldest]);
    p->plans[oldest] = NULL;
    return oldest;
}

static enum mopt_status need_block(struct mo_run *run, size_t bytes)
{
    struct mo_run_private *p = run->private_;
    if (bytes <= p->block_bytes)
        return MOPT_OK;
    free_device(run, p->block);
    p->block_bytes = 0;
    p->block = run->be->alloc(run->dev, bytes);
    if (!p->block)
        return mo_device_full(run, bytes, "activations and gradients");
    p->block_bytes = bytes;
    return MOPT_OK;
}

static enum mopt_status check_shapes(struct mo_run *run, const struct mo_shape *shapes, uint32_t n)
{
    const struct mo_run_private *p = run->private_;
    if (n != p->n_inputs)
        return mo_fail(run->ctx, MOPT_DATA, "%u inputs are given, the model has %u", n, p->n_inputs);
    for (uint32_t i = 0; i < n; i++)
        if (!mo_shape_known(&shapes[i]))
            return mo_fail(run->ctx, MOPT_DATA, "input '%s' needs a shape", p->base.values[p->inputs[i]].name);
    return MOPT_OK;
}

/* Readers of parameters have other ids in every plan's graph. */
static void find_readers(struct mo_run *run)
{
    for (uint32_t i = 0; i < run->n_params; i++) {
        run->params[i].reader = MO_NONE;
        mo_value_users(run->graph, run->params[i].value, &run->params[i].reader, 1);
    }
}

static void use_plan(struct mo_run *run, struct mo_plan *plan)
{
    struct mo_run_private *p = run->private_;
    run->plan = plan;
    run->graph = &plan->graph;
    run->tensors = plan->tensors;
    plan->last_use = ++p->clock;
    memset(p->is_input_set, 0, p->n_inputs * sizeof *p->is_input_set);
    p->has_csr = p->has_forward = false;
    plan->csr_node = MO_NONE;
    mo_plan_bind(run, plan);
    find_readers(run);
}

/* Runs of other kinds may have used the device meanwhile. */
void mo_run_choose_half(struct mo_run *run)
{
    if (run->options.half && run->be->use_half)
        run->be->use_half(run->dev, (int)run->options.half);
}

enum mopt_status mo_run_shape(struct mo_run *run, const struct mo_shape *shapes, uint32_t n_inputs)
{
    struct mo_run_private *p = run->private_;
    MO_TRY(check_shapes(run, shapes, n_inputs));
    struct mo_plan *plan = find_plan(p, shapes);
    if (plan && plan == run->plan)
        return MOPT_OK;
    if (!plan) {
        int at = place_for_plan(run);
        mo_run_choose_half(run);
        MO_TRY(mo_plan_new(run, shapes, &p->plans[at]));
        plan = p->plans[at];
    }
    MO_TRY(need_block(run, plan->block_bytes));
    use_plan(run, plan);
    return MOPT_OK;
}

/* ---- inputs and outputs ----------------------------------------------------------------------------- */

uint32_t mo_run_n_inputs(const struct mo_run *run)
{
    return run->private_->n_inputs;
}

const struct mo_value *mo_run_input(const struct mo_run *run, uint32_t i)
{
    const struct mo_run_private *p = run->private_;
    const struct mo_graph *g = run->plan ? run->graph : &p->base;
    return i < p->n_inputs ? &g->values[p->inputs[i]] : NULL;
}

enum mopt_status mo_run_set_input(struct mo_run *run, uint32_t i, const void *host, size_t bytes)
{
    struct mo_run_private *p = run->private_;
    if (!run->plan || i >= p->n_inputs)
        return mo_fail(run->ctx, MOPT_FAILED, "input %u is set before its shape", i);
    const struct mo_value *v = mo_run_input(run, i);
    size_t need = mo_value_bytes(v);
    if (bytes != need)
        return mo_fail(run->ctx, MOPT_DATA, "input '%s' takes %zu bytes, %zu are given", v->name, need, bytes);
    if (p->input_bytes[i] < need || !p->input_mem[i]) {
        free_device(run, p->input_mem[i]);
        p->input_bytes[i] = 0;
        p->input_mem[i] = run->be->alloc(run->dev, MO_MAX(need, (size_t)1));
        if (!p->input_mem[i])
            return mo_device_full(run, need, "an input");
        p->input_bytes[i] = need;
    }
    mo_plan_bind_input(run, run->plan, i);
    run->be->upload(run->dev, p->input_mem[i], host, bytes);
    p->is_input_set[i] = true;
    if (i == 0) {
        p->has_csr = false;
        run->plan->csr_node = MO_NONE;
    }
    return MOPT_OK;
}

enum mopt_status mo_run_set_texts(struct mo_run *run, uint32_t i, const char *block, size_t bytes)
{
    const struct mo_value *v = mo_run_input(run, i);
    if (!run->plan || !v || v->dtype != MO_STRING)
        return mo_fail(run->ctx, MOPT_DATA, "input %u takes no texts", i);
    size_t n = (size_t)mo_value_elems(v);
    int64_t *numbers = mo_mem_new(n + 1, sizeof *numbers);
    if (!numbers)
        return mo_no_memory(run->ctx, n * sizeof *numbers, "texts");
    enum mopt_status status = mo_texts_parse(run->ctx, run->options.texts, block, bytes, n, numbers);
    if (!status)
        status = mo_run_set_input(run, i, numbers, n * sizeof *numbers);
    mo_mem_free(numbers);
    return status;
}

uint32_t mo_run_n_outputs(const struct mo_run *run)
{
    return run->private_->n_outputs;
}

const struct mo_value *mo_run_output(const struct mo_run *run, uint32_t i)
{
    const struct mo_run_private *p = run->private_;
    const struct mo_graph *g = run->plan ? run->graph : &p->base;
    return i < p->n_outputs ? &g->values[p->outputs[i]] : NULL;
}

void *mo_run_output_data(struct mo_run *run, uint32_t i)
{
    const struct mo_run_private *p = run->private_;
    return run->plan && i < p->n_outputs ? run->tensors[p->outputs[i]].data : NULL;
}

enum mopt_status mo_run_get_output(struct mo_run *run, uint32_t i, void *host, size_t bytes)
{
    const struct mo_value *v = mo_run_output(run, i);
    const void *data = mo_run_output_data(run, i);
    if (!v || !data)
        return mo_fail(run->ctx, MOPT_FAILED, "output %u is read before a forward", i);
    size_t has = mo_dtype_bytes(v->dtype, mo_value_elems(v));
    if (bytes != has)
        return mo_fail(run->ctx, MOPT_DATA, "output '%s' has %zu bytes, %zu are asked for", v->name, has, bytes);
    run->be->download(run->dev, host, data, bytes);
    return MOPT_OK;
}

enum mopt_status mo_run_get_texts(struct mo_run *run, uint32_t i, char **block, size_t *bytes)
{
    const struct mo_value *v = mo_run_output(run, i);
    const void *data = mo_run_output_data(run, i);
    *block = NULL;
    if (!v || !data || v->dtype != MO_STRING)
        return mo_fail(run->ctx, MOPT_FAILED, "output %u holds no texts", i);
    size_t n = (size_t)mo_value_elems(v);
    int64_t *numbers = mo_mem_new(n + 1, sizeof *numbers);
    if (!numbers)
        return mo_no_memory(run->ctx, n * sizeof *numbers, "texts");
    run->be->download(run->dev, numbers, data, n * sizeof *numbers);
    enum mopt_status status = mo_texts_block(run->ctx, run->options.texts, numbers, n, block, bytes);
    mo_mem_free(numbers);
    return status;
}

float *mo_run_output_grad(struct mo_run *run, uint32_t i)
{
    const struct mo_run_private *p = run->private_;
    return run->plan && i < p->n_outputs ? run->tensors[p->outputs[i]].grad : NULL;
}

/* ---- values of the user's graph ------------------------------------------------------------------------ */

mo_value_id mo_run_user_value(const struct mo_run *run, mo_value_id lowered)
{
    if (lowered < run->private_->n_user_values)
        return lowered;
    for (uint32_t i = 0; run->plan && i < run->plan->n_aliases; i++)
        if (run->plan->aliases[i].lowered == lowered)
            return run->plan->aliases[i].user;
    return MO_NONE;
}

static bool is_there(const struct mo_run *run, mo_value_id v)
{
    const struct mo_value *value = &run->graph->values[v];
    return run->tensors[v].data && (value->data || value->producer != MO_NONE || value->is_input ||
                                    run->plan->values[v].store == MO_STORE_WEIGHTS);
}

/* Channels-last to the user's order, on the device. */
static const void *convert_layout(struct mo_run *run, mo_value_id lowered, const struct mo_value *user)
{
    struct mo_run_private *p = run->private_;
    const struct mo_value *v = &run->graph->values[lowered];
    int rank = v->shape.rank;
    size_t bytes = mo_value_bytes(v);
    if (bytes > p->layout_bytes) {
        free_device(run, p->layout_mem);
        p->layout_mem = run->be->alloc(run->dev, bytes);
        p->layout_bytes = p->layout_mem ? bytes : 0;
    }
    if (!p->layout_mem || rank < 3)
        return NULL;
    int64_t stride_x[MO_MAX_RANK], stride_y[MO_MAX_RANK], last[MO_MAX_RANK], at = 1;
    for (int k = rank - 1; k >= 0; at *= v->shape.dim[k], k--)
        last[k] = at;
    for (int k = 0; k < rank; k++)
        stride_x[k] = last[k == 0 ? 0 : k == 1 ? rank - 1 : k - 1];
    at = 1;
    for (int k = rank - 1; k >= 0; at *= user->shape.dim[k], k--)
        stride_y[k] = at;
    run->be->copy_strided(run->dev, (size_t)mo_dtype_bits(v->dtype) / 8, rank, user->shape.dim, stride_x, stride_y,
                          run->tensors[lowered].data, p->layout_mem);
    return p->layout_mem;
}

const void *mo_run_value(struct mo_run *run, mo_value_id user_value, const struct mo_value **info)
{
    if (!run->plan || user_value >= run->private_->n_user_values)
        return NULL;
    if (info)
        *info = &run->graph->values[user_value];
    if (is_there(run, user_value))
        return run->tensors[user_value].data;
    for (uint32_t i = 0; i < run->plan->n_aliases; i++)
        if (run->plan->aliases[i].user == user_value && is_there(run, run->plan->aliases[i].lowered))
            return convert_layout(run, run->plan->aliases[i].lowered, &run->graph->values[user_value]);
    return NULL;
}

/* ---- sizes, handles ------------------------------------------------------------------------------------- */

size_t mo_run_block_bytes(const struct mo_run *run)
{
    return run->plan ? run->plan->block_bytes : 0;
}

void mo_run_precision(const struct mo_run *run, uint32_t *n_int8, uint32_t *n_float)
{
    *n_int8 = *n_float = 0;
    for (mo_node_id i = 0; run->graph && i < run->graph->n_nodes; i++) {
        const struct mo_node *n = &run->graph->nodes[i];
        if (!n->op || !n->op->macs || n->op->macs == mo_macs_zero || n->n_in < 2)
            continue;
        const struct mo_value *x = mo_in(run->graph, n, 0);
        *(x && (x->dtype == MO_U8 || x->dtype == MO_I8) ? n_int8 : n_float) += 1;
    }
}

size_t mo_run_weight_bytes(const struct mo_run *run)
{
    size_t bytes = 2 * run->n_weights * sizeof(float);
    const struct mo_graph *g = run->graph;
    for (mo_value_id v = 0; g && v < g->n_values; v++)
        if (g->values[v].data && g->values[v].n_uses)
            bytes += mo_value_bytes(&g->values[v]);
    return bytes;
}

static struct mo_node_plan *node_plan(const struct mo_run *r, const struct mo_node *n)
{
    return &r->plan->nodes[(mo_node_id)(n - r->graph->nodes) - r->plan->first_node];
}

void *mo_run_scratch(const struct mo_run *r, const struct mo_node *n)
{
    const struct mo_node_plan *np = node_plan(r, n);
    if (r->plan->in_backward)
        return np->backward_scratch_bytes ? r->plan->block + np->backward_scratch_at : NULL;
    return np->scratch_bytes ? r->plan->block + np->scratch_at : NULL;
}

void *mo_run_saved(const struct mo_run *r, const struct mo_node *n)
{
    const struct mo_node_plan *np = node_plan(r, n);
    return np->saved_bytes ? r->plan->block + np->saved_at : NULL;
}

void **mo_run_handle(const struct mo_run *r, const struct mo_node *n)
{
    return &node_plan(r, n)->handle;
}

bool mo_run_is_const(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    return i < n->n_in && n->in[i] != MO_NONE && r->graph->values[n->in[i]].data != NULL;
}

bool mo_run_packs(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    return mo_run_is_const(r, n, i) && !mo_run_is_const(r, n, 0) && !r->options.train && !r->plan->is_dynamic;
}

uint64_t mo_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
