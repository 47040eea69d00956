/* quantize_dynamic.c - matrix products in 8 bits, the range of the activation taken anew in each run:
 *
 *     x_q, s_x, z_x = DynamicQuantizeLinear(x)             shared by all products of one x
 *     y = Cast(MatMulInteger(x_q, w_q, z_x, 0), float32) * (s_x * s_w[column]) + bias
 *
 * which is the form that runtimes fuse. Gemm and MatMul with a constant matrix are taken; convolutions are not, since
 * ConvInteger is slower than a float convolution in the runtimes there are. */
#include <string.h>

#include "lib/passes/quantize.h"

struct dynamic {
    struct mo_job *job;
    struct mo_graph *g;
    const struct mo_quant_form *form;
    mo_value_id (*quantized)[3];    /* by value: x_q, s_x, z_x, or MO_NONE */
    uint32_t n_done;
};

static enum mopt_status full(struct dynamic *d)
{
    return mo_no_memory(d->job->ctx, 256, "a node");
}

static const char *text(struct dynamic *d, const char *base, const char *suffix)
{
    return mo_arena_printf(d->job->scratch, "%s_%s", base, suffix);
}

static mo_value_id value(struct dynamic *d, const char *base, const char *suffix, enum mo_dtype dtype,
                         const struct mo_shape *shape)
{
    const char *name = text(d, base, suffix);
    return name ? mo_graph_add_value(d->g, name, dtype, shape) : MO_NONE;
}

static mo_value_id constant(struct dynamic *d, const char *base, const char *suffix, enum mo_dtype dtype,
                            const struct mo_shape *shape, const void *data)
{
    const char *name = text(d, base, suffix);
    return name ? mo_graph_add_const(d->g, name, dtype, shape, data) : MO_NONE;
}

static mo_node_id add(struct dynamic *d, const char *type, const char *base, const mo_value_id *in, uint32_t n_in,
                      const mo_value_id *out, uint32_t n_out)
{
    const char *name = text(d, base, type);
    for (uint32_t i = 0; i < n_in + n_out; i++)
        if ((i < n_in ? in[i] : out[i - n_in]) == MO_NONE)
            return MO_NONE;
    return name ? mo_graph_add_node(d->g, type, NULL, name, in, n_in, out, n_out) : MO_NONE;
}

/* Why a node stays float; NULL: it can be taken. */
static const char *obstacle(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_value *w = mo_in(g, n, 1), *x = mo_in(g, n, 0);
    if (mo_node_is(n, "Conv") || mo_node_is(n, "ConvTranspose"))
        return "convolutions stay float in dynamic quantization";
    if (w->shape.rank != 2)
        return "its weight is not a matrix";
    if (w->dtype != MO_F32 || x->dtype != MO_F32)
        return "it does not compute in float32";
    if (mo_node_is(n, "Gemm") && (mo_node_int(n, "transA", 0) || mo_node_float(n, "alpha", 1) != 1 ||
                                  (mo_in(g, n, 2) && mo_node_float(n, "beta", 1) != 1)))
        return "it transposes its input, or alpha or beta is not 1";
    return NULL;
}

static enum mopt_status quantize_input(struct dynamic *d, mo_value_id x)
{
    struct mo_shape shape = d->g->values[x].shape, scalar = { .rank = 0 };
    const char *base = d->g->values[x].name;
    mo_value_id *q = d->quantized[x];
    if (q[0] != MO_NONE)
        return MOPT_OK;
    q[0] = value(d, base, "quantized", MO_U8, &shape);
    q[1] = value(d, base, "scale", MO_F32, &scalar);
    q[2] = value(d, base, "zero_point", MO_U8, &scalar);
    return add(d, "DynamicQuantizeLinear", base, &x, 1, q, 3) == MO_NONE ? full(d) : MOPT_OK;
}

/* The weight of a Gemm with transB as k x n, since MatMulInteger knows no transposition. */
static void transpose(struct mo_quant_weight *w, int8_t *to, int64_t rows, int64_t columns)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            to[c * rows + r] = w->q[r * columns + c];
}

/* Integers, scales and zero point of the weight as constants. */
static enum mopt_status write_weight(struct dynamic *d, mo_node_id i, mo_value_id out[3], double *sqnr_db)
{
    const struct mo_node *n = &d->g->nodes[i];
    struct mo_value *w = mo_in(d->g, n, 1);
    const char *base = w->name;
    struct mo_quant_weight qw;
    struct mo_shape shape = w->shape, scales = { .rank = d->form->per_channel ? 1 : 0 }, scalar = { .rank = 0 };
    int axis = mo_quant_weight_axis(d->g, n, d->form->per_channel);
    int8_t zero = 0, *turned = NULL;
    bool turns = mo_node_is(n, "Gemm") && mo_node_int(n, "transB", 0);
    MO_TRY(mo_quant_weight(d->job->ctx, w, axis, d->form->weight_max, NULL, &qw));
    if (turns) {
        turned = mo_mem_new((size_t)MO_MAX(qw.n_elems, 1), 1);
        if (turned)
            transpose(&qw, turned, shape.dim[0], shape.dim[1]);
        shape = mo_shape_of(2, shape.dim[1], shape.dim[0]);
    }
    scales.dim[0] = qw.n_scales;
    bool ok = !turns || turned;
    out[0] = ok ? constant(d, base, "quantized", MO_I8, &shape, turns ? turned : qw.q) : MO_NONE;
    out[1] = constant(d, base, "scale", MO_F32, &scales, qw.scale);
    out[2] = constant(d, base, "zero_point", MO_I8, &scalar, &zero);
    *sqnr_db = qw.sqnr_db;
    mo_mem_free(turned);
    mo_quant_weight_free(&qw);
    return out[0] == MO_NONE || out[1] == MO_NONE || out[2] == MO_NONE ? full(d) : MOPT_OK;
}

static enum mopt_status write_product(struct dynamic *d, mo_node_id i, const mo_value_id w[3])
{
    struct mo_graph *g = d->g;
    mo_value_id x = g->nodes[i].in[0], y = g->nodes[i].out[0], bias = g->nodes[i].n_in > 2 ? g->nodes[i].in[2] : MO_NONE;
    struct mo_shape shape = g->values[y].shape, scales = g->values[w[1]].shape;
    const char *base = mo_quant_name(g, &g->nodes[i]);
    mo_value_id sum = value(d, base, "sum", MO_I32, &shape), cast = value(d, base, "float", MO_F32, &shape);
    mo_value_id scale = value(d, base, "scales", MO_F32, &scales);
    mo_value_id scaled = bias == MO_NONE ? y : value(d, base, "scaled", MO_F32, &shape);
    const mo_value_id *q = d->quantized[x];
    mo_value_id product[4] = { q[0], w[0], q[2], w[2] }, factors[2] = { q[1], w[1] };
    mo_value_id rescale[2] = { cast, scale }, terms[2] = { scaled, bias };
    g->nodes[i].is_dead = true;
    mo_node_id to_float;
    if (scale == MO_NONE)
        return full(d);
    if (add(d, "MatMulInteger", base, product, 4, &sum, 1) == MO_NONE ||
        (to_float = add(d, "Cast", base, &sum, 1, &cast, 1)) == MO_NONE ||
        !mo_node_set_int(g, to_float, "to", MO_F32) ||
        add(d, "Mul", g->values[scale].name, factors, 2, &scale, 1) == MO_NONE)
        return full(d);
    if (add(d, "Mul", base, rescale, 2, &scaled, 1) == MO_NONE ||
        (bias != MO_NONE && add(d, "Add", base, terms, 2, &y, 1) == MO_NONE))
        return full(d);
    return MOPT_OK;
}

static enum mopt_status visit(struct dynamic *d, mo_node_id i, bool is_selected)
{
    const struct mo_node *n = &d->g->nodes[i];
    const char *name = mo_quant_name(d->g, n), *why;
    struct mopt_report *row = NULL;
    mo_value_id w[3];
    double sqnr_db;
    if (!mo_quant_has_weight(d->g, n))
        return MOPT_OK;
    if (!is_selected)
        return mo_audit(d->job, name, "float", "not selected", NULL);
    if ((why = obstacle(d->g, n)))
        return strstr(why, "convolutions") ? mo_audit(d->job, name, "float", why, NULL) : mo_audit_skip(d->job, name, why);
    d->n_done++;
    MO_TRY(quantize_input(d, n->in[0]));
    MO_TRY(write_weight(d, i, w, &sqnr_db));
    MO_TRY(write_product(d, i, w));
    MO_TRY(mo_audit(d->job, name, "int8 dynamic", NULL, &row));
    mo_report_set_number(row, "weight_sqnr_db", sqnr_db);
    return MOPT_OK;
}

enum mopt_status mo_quantize_dynamic(struct mo_job *job, const struct mo_quantize_options *options)
{
    struct mo_quant_form form = mo_quant_form(options);
    struct mo_graph *g = &job->model->graph;
    struct dynamic d = { .job = job, .g = g, .form = &form };
    if (mo_model_opset(job->model, "") < 11)
        MO_TRY(mo_upgrade(job->ctx, job->model, 13));
    mo_quant_free_initializers(job->model);
    MO_TRY(mo_infer(job->ctx, g, NULL, 0));
    MO_TRY(mo_fold_constants(job->ctx, g, MO_QUANT_FOLD_BYTES, NULL));
    mo_graph_sweep(g);
    uint32_t n_nodes = g->n_nodes, n_values = g->n_values;
    enum mo_quant_wish *wish = mo_arena_new(job->scratch, MO_MAX(n_nodes, 1u), sizeof *wish);
    d.quantized = mo_arena_new(job->scratch, MO_MAX(n_values, 1u), sizeof *d.quantized);
    if (!wish || !d.quantized)
        return mo_no_memory(job->ctx, n_values * 12, "the plan");
    for (uint32_t v = 0; v < n_values; v++)
        d.quantized[v][0] = MO_NONE;
    MO_TRY(mo_quant_selection(job, g, wish));
    for (mo_node_id i = 0; i < n_nodes; i++)
        MO_TRY(visit(&d, i, wish[i]));
    mo_report_set_int(job->report, "layers", d.n_done);
    if (!d.n_done)
        return mo_fail(job->ctx, MOPT_UNSUPPORTED,
                       "no Gemm or MatMul can be quantized dynamically; --data SPEC makes static quantization possible");
    MO_TRY(mo_graph_sort(job->ctx, g));
    mo_graph_drop_unused(g);
    return mo_infer(job->ctx, g, NULL, 0);
}
