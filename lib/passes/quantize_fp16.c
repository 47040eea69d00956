/* quantize_fp16.c - float32 turned into float16.
 *
 * Every node that can compute in half precision does; a Cast stands wherever a value passes between half and float:
 * at the graph's inputs and outputs (--keep-io), and around nodes that stay float: those that are defined for float32
 * alone, carry subgraphs, or are not known. Constants beyond +-65504 are clipped, with a warning; infinities stay. */
#include <math.h>
#include <string.h>

#include "lib/base/spill.h"
#include "lib/graph/large.h"
#include "lib/passes/quantize.h"

enum { BLOCK_ELEMS = 1 << 16 };

struct fp16 {
    struct mo_job *job;
    struct mo_graph *g;
    bool keep_io;
    bool *is_half;              /* by node */
    bool *was_float;            /* by value: float32 before anything was done */
    bool *needs_float;          /* by value: someone reads it in float32 */
    mo_value_id *half;          /* by value: what half nodes read instead, or MO_NONE */
    uint64_t n_clipped, n_flushed;
};

static enum mopt_status full(struct fp16 *f)
{
    return mo_no_memory(f->job->ctx, 256, "a node");
}

/* ---- what can be half ------------------------------------------------------------------- */

/* Defined for float32 alone (or in older opsets), or made of an attribute's type. */
static const char *const float_only[] = {
    "Bernoulli", "BlackmanWindow", "Celu", "Constant", "ConstantOfShape", "CumSum", "DFT", "DequantizeLinear",
    "DynamicQuantizeLinear", "EyeLike", "HammingWindow", "HannWindow", "MaxUnpool", "MelWeightMatrix", "Multinomial",
    "NonMaxSuppression", "QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    "Range", "STFT", "TfIdfVectorizer",
};

/* Inputs that are float32 whatever the type of the others is. */
static bool is_float_input(const struct mo_node *n, uint32_t k)
{
    return (mo_node_is(n, "Resize") && (k == 1 || k == 2)) || (mo_node_is(n, "Upsample") && k == 1);
}

/* A variance that half precision does not hold (below 2^-14, above 65504) would turn a BatchNormalization into nonsense. */
static bool has_odd_variance(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *v = mo_node_is(n, "BatchNormalization") ? mo_in(g, n, 4) : NULL;
    const float *var = v && v->dtype == MO_F32 ? v->data : NULL;
    for (int64_t i = 0, n_var = var ? mo_value_elems(v) : 0; i < n_var; i++)
        if (var[i] < 0x1p-14f || var[i] > 65504)
            return true;
    return false;
}

static bool can_be_half(const struct mo_graph *g, const struct mo_node *n)
{
    if (!n->op || *n->domain || n->n_captures)
        return false;
    for (size_t i = 0; i < MO_COUNT(float_only); i++)
        if (mo_node_is(n, float_only[i]))
            return false;
    for (uint32_t a = 0; a < n->n_attrs; a++)
        if (n->attrs[a].graphs)
            return false;
    for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
        const struct mo_value *v = k < n->n_in ? mo_in(g, n, k) : mo_out(g, n, k - n->n_in);
        if (v && v->dtype == MO_UNDEFINED)
            return false;
    }
    return true;
}

static bool touches_float(const struct fp16 *f, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
        mo_value_id v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (v != MO_NONE && f->was_float[v])
            return true;
    }
    return false;
}

static enum mopt_status decide(struct fp16 *f, const enum mo_quant_wish *wish)
{
    struct mo_graph *g = f->g;
    for (mo_value_id v = 0; v < g->n_values; v++) {
        f->was_float[v] = g->values[v].dtype == MO_F32;
        f->half[v] = MO_NONE;
        f->needs_float[v] = g->values[v].is_output && f->keep_io;
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (!touches_float(f, n) || mo_node_is(n, "Constant"))
            continue;
        bool is_odd = has_odd_variance(g, n);
        f->is_half[i] = wish[i] != MO_WISH_NO && !is_odd && can_be_half(g, n);
        if (!wish[i])
            MO_TRY(mo_audit(f->job, mo_quant_name(g, n), "float", "not selected", NULL));
        else if (!f->is_half[i])
            MO_TRY(mo_audit(f->job, mo_quant_name(g, n), "float",
                            is_odd ? "its variance is beyond the range of half precision"
                                    : "no half precision for this operator", NULL));
    }
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MO_NONE && (!f->is_half[i] || is_float_input(n, k)))
                f->needs_float[n->in[k]] = true;
        for (uint32_t k = 0; k < n->n_captures; k++)
            f->needs_float[n->captures[k]] = true;
    }
    return MOPT_OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

static mo_value_id new_half(struct fp16 *f, mo_value_id v)
{
    struct mo_shape shape = f->g->values[v].shape;
    const char *name = mo_arena_printf(f->job->scratch, "%s_fp16", f->g->values[v].name);
    return name ? mo_graph_add_value(f->g, name, MO_F16, &shape) : MO_NONE;
}

static bool add_cast(struct fp16 *f, mo_value_id from, mo_value_id to, enum mo_dtype dtype)
{
    const char *name = mo_arena_printf(f->job->scratch, "%s_Cast", f->g->values[to].name);
    mo_node_id n = name ? mo_graph_add_node(f->g, "Cast", NULL, name, &from, 1, &to, 1) : MO_NONE;
    return n != MO_NONE && mo_node_set_int(f->g, n, "to", dtype);
}

/* Numbers to half precision, to nearest even; those beyond +-65504 are clipped and counted. Without branches, so that it
 * runs at the speed of memory: float addition does the rounding. Adding 2^(e+13) to a number of exponent e leaves 11 bits
 * of it, and below 2^-14 halves have a fixed step. */
static uint64_t to_half(const float *x, uint16_t *h, int64_t n, uint64_t *n_flushed)
{
    const uint32_t infinity = 0x7f800000u, half_max = 0x477fe000u, least = 0x3f000000u; /* 65504, 2^-1 as float bits */
    uint32_t n_clipped = 0, n_zero = 0, n_odd = 0;
    for (int64_t i = 0; i < n; i++) {
        union { float f; uint32_t u; } in = { .f = x[i] }, bias, sum;
        uint32_t sign = in.u & 0x80000000u, size = in.u & 0x7fffffffu;
        uint32_t is_odd = size >= infinity, clips = size > half_max;
        in.u = clips ? half_max : size;
        bias.u = (in.u & infinity) + (13u << 23);
        bias.u = bias.u < least ? least : bias.u;
        sum.f = in.f + bias.f;
        /* the exponent above 2^-14, and the bits that the addition left; a carry runs into the exponent */
        uint32_t bits = ((bias.u - least) >> 13) + (sum.u - bias.u);
        h[i] = (uint16_t)(sign >> 16 | bits);
        n_clipped += clips & !is_odd;
        n_odd += is_odd;
        n_zero += (size != 0) & (bits == 0);
    }
    for (int64_t i = 0; n_odd && i < n; i++)
        if (!isfinite(x[i]))
            h[i] = mo_f32_to_f16(x[i]);
    *n_flushed += n_zero;
    return n_clipped;
}

/* A constant in half precision: in its place when nobody wants it in float, else beside it. */
static enum mopt_status half_constant(struct fp16 *f, mo_value_id v)
{
    struct mo_graph *g = f->g;
    struct mo_shape shape = g->values[v].shape;
    const float *x = g->values[v].data;
    int64_t n = mo_shape_elems(&shape);
    uint64_t n_clipped = 0;
    uint16_t *h = mo_constant_new(f->job->ctx, (size_t)MO_MAX(n, 1) * sizeof *h);
    if (!h)
        return mo_no_memory(f->job->ctx, (uint64_t)n * 2, "a constant");
    for (int64_t from = 0; from < n; from += BLOCK_ELEMS)
        n_clipped += to_half(x + from, h + from, MO_MIN(n - from, (int64_t)BLOCK_ELEMS), &f->n_flushed);
    mo_constant_forget(f->job->ctx, f->job->model, &g->values[v]);
    f->n_clipped += n_clipped;
    if (n_clipped)
        mo_warn(f->job->ctx, "quantize", "'%s': %llu of %lld values are beyond +-65504 and were clipped",
                g->values[v].name, (unsigned long long)n_clipped, (long long)n);
    if (!f->needs_float[v] && !g->values[v].is_output) {
        mo_value_set_data(g, v, MO_F16, &shape, h);
        f->half[v] = v;
        return MOPT_OK;
    }
    const char *name = mo_arena_printf(f->job->scratch, "%s_fp16", g->values[v].name);
    f->half[v] = name ? mo_quant_add_const(g, name, MO_F16, &shape, h) : MO_NONE;
    return f->half[v] == MO_NONE ? full(f) : MOPT_OK;
}

static enum mopt_status write_outputs(struct fp16 *f, mo_node_id i)
{
    struct mo_graph *g = f->g;
    if (mo_node_is(&g->nodes[i], "Cast") && mo_node_int(&g->nodes[i], "to", 0) == MO_F32 &&
        !mo_node_set_int(g, i, "to", MO_F16))
        return full(f);
    for (uint32_t k = 0; k < g->nodes[i].n_out; k++) {
        mo_value_id v = g->nodes[i].out[k];
        if (v == MO_NONE || !f->was_float[v])
            continue;
        if (!f->needs_float[v]) {
            g->values[v].dtype = MO_F16;
            f->half[v] = v;
            continue;
        }
        mo_value_id half = new_half(f, v);
        if (half == MO_NONE || !add_cast(f, half, v, MO_F32))
            return full(f);
        g->nodes[i].out[k] = half;
        f->half[v] = half;
    }
    return MOPT_OK;
}

static enum mopt_status write_inputs(struct fp16 *f, mo_node_id i)
{
    struct mo_graph *g = f->g;
    for (uint32_t k = 0; k < g->nodes[i].n_in; k++) {
        mo_value_id v = g->nodes[i].in[k];
        if (v == MO_NONE || !f->was_float[v] || is_float_input(&g->nodes[i], k))
            continue;
        if (f->half[v] == MO_NONE && g->values[v].data)
            MO_TRY(half_constant(f, v));
        if (f->half[v] == MO_NONE && g->values[v].is_input && !f->keep_io && !f->needs_float[v]) {
            g->values[v].dtype = MO_F16;
            f->half[v] = v;
        }
        if (f->half[v] == MO_NONE) {
            mo_value_id half = new_half(f, v);
            if (half == MO_NONE || !add_cast(f, v, half, MO_F16))
                return full(f);
            f->half[v] = half;
        }
        g->nodes[i].in[k] = f->half[v];
    }
    return MOPT_OK;
}

static enum mopt_status write_all(struct fp16 *f, uint32_t n_nodes)
{
    for (mo_node_id i = 0; i < n_nodes; i++)
        if (f->is_half[i])
            MO_TRY(write_outputs(f, i));
    for (mo_node_id i = 0; i < n_nodes; i++)
        if (f->is_half[i])
            MO_TRY(write_inputs(f, i));
    MO_TRY(mo_graph_sort(f->job->ctx, f->g));
    mo_graph_drop_unused(f->g);
    return mo_infer(f->job->ctx, f->g, NULL, 0);
}

enum mopt_status mo_quantize_fp16(struct mo_job *job, const struct mo_quantize_options *options)
{
    struct mo_graph *g = &job->model->graph;
    struct fp16 f = { .job = job, .g = g, .keep_io = options->keep_io };
    mo_quant_free_initializers(job->model);
    MO_TRY(mo_infer(job->ctx, g, NULL, 0));
    uint32_t n_nodes = g->n_nodes, n_values = MO_MAX(g->n_values, 1u), n_half = 0;
    enum mo_quant_wish *wish = mo_arena_new(job->scratch, MO_MAX(n_nodes, 1u), sizeof *wish);
    f.is_half = mo_arena_new(job->scratch, MO_MAX(n_nodes, 1u), sizeof *f.is_half);
    f.was_float = mo_arena_new(job->scratch, n_values, sizeof *f.was_float);
    f.needs_float = mo_arena_new(job->scratch, n_values, sizeof *f.needs_float);
    f.half = mo_arena_new(job->scratch, n_values, sizeof *f.half);
    if (!wish || !f.is_half || !f.was_float || !f.needs_float || !f.half)
        return mo_no_memory(job->ctx, n_values * 8, "the plan");
    MO_TRY(mo_quant_selection(job, g, wish));
    MO_TRY(decide(&f, wish));
    for (mo_node_id i = 0; i < n_nodes; i++)
        n_half += f.is_half[i];
    mo_report_set_int(job->report, "half_nodes", n_half);
    if (!n_half)
        return mo_fail(job->ctx, MOPT_UNSUPPORTED, "no node can compute in half precision");
    MO_TRY(write_all(&f, n_nodes));
    mo_report_set_int(job->report, "clipped", (int64_t)f.n_clipped);
    mo_report_set_int(job->report, "flushed_to_zero", (int64_t)f.n_flushed);
    return MOPT_OK;
}
