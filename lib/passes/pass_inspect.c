/* pass_inspect.c - inspect: what is in the file. Reads the weights once and runs nothing. */
#include <stdlib.h>
#include <string.h>

#include "lib/data/transform.h"
#include "lib/graph/large.h"
#include "lib/graph/op.h"
#include "lib/passes/draw.h"
#include "lib/passes/inspect.h"
#include "lib/passes/measure.h"

enum { STATISTICS_AUTO, STATISTICS_YES, STATISTICS_NO };
struct inspect_options { bool all, force, memory; int statistics; const char *dot, *svg; };
#define AT(field) offsetof(struct inspect_options, field)
static const struct mopt_option options[] = {
    { "all", MOPT_OPT_BOOL, AT(all), .help = "a row for every node, not only for those with weights or work" },
    { "statistics", MOPT_OPT_CHOICE, AT(statistics), .text_def = "auto", .choices = "auto|yes|no",
      .help = "read the weights: nonzero, range, mean; auto: where they are below 256 MB" },
    { "memory", MOPT_OPT_BOOL, AT(memory), .help = "what a forward pass of one sample takes: activations and weights" },
    { "svg", MOPT_OPT_TEXT, AT(svg), .word = "FILE", .help = "draw the graph there" },
    { "dot", MOPT_OPT_TEXT, AT(dot), .word = "FILE", .help = "write the graph there in DOT, for Graphviz to draw" },
    { "force", MOPT_OPT_BOOL, AT(force), .needs = "svg,dot", .help = "overwrite an existing drawing" },
    { 0 }
};

/* Without statistics nothing but the file's structure is read, however large the weights are. */
static bool reads_weights(const struct mo_job *job)
{
    const struct inspect_options *o = job->options;
    bool is_small = mo_graph_constant_bytes(&job->model->graph) <= MO_LARGE_BYTES;
    return o->statistics == STATISTICS_YES || (o->statistics == STATISTICS_AUTO && is_small);
}

/* ---- the file -------------------------------------------------------------------------- */

static void report_file(const struct mopt_model *m, struct mopt_report *report)
{
    struct mopt_report *file = mo_report_object(report, "file");
    mo_report_set_int(file, "ir_version", m->ir_version);
    for (uint32_t i = 0; i < m->n_imports; i++) {
        const char *domain = m->imports[i].domain;
        mo_report_set_int(mo_report_object(file, "opset"), domain[0] ? domain : "ai.onnx", m->imports[i].version);
    }
    if (m->producer_name)
        mo_report_set_text(file, "producer", m->producer_name);
    if (m->producer_version)
        mo_report_set_text(file, "producer_version", m->producer_version);
    if (m->graph.name && m->graph.name[0])
        mo_report_set_text(file, "graph", m->graph.name);
    mo_report_set_bool(file, "external_data", m->is_external);
    for (uint32_t i = 0; i < m->n_metadata; i++)
        mo_report_set_text(mo_report_object(file, "metadata"), m->metadata[i].key, m->metadata[i].value);
}

/* How the input was prepared in training, as numbers for other programs. A text that is none of ours is only shown
 * with the metadata. */
static void report_preparation(struct mo_job *job, struct mopt_report *report)
{
    const char *text = mo_model_meta(job->model, "mopt.transform");
    struct mo_pipeline pipeline;
    if (!text)
        return;
    if (mo_pipeline_parse(job->ctx, job->scratch, text, &pipeline)) {
        mopt_clear(job->ctx);
        return;
    }
    struct mopt_report *row = mo_report_object(report, "preprocess");
    mo_report_set_text(row, "transform", text);
    for (uint32_t i = 0; i < pipeline.n_steps; i++) {
        const struct mo_step *step = &pipeline.steps[i];
        bool moves = !strcmp(step->transform->name, "standardize") || !strcmp(step->transform->name, "normalize");
        if (!moves || !step->is_settled)
            continue;
        struct mopt_report *mean = mo_report_list(row, "mean"), *sd = mo_report_list(row, "std");
        for (uint32_t k = 0; k < step->n; k++) {
            mo_report_set_number(mean, NULL, step->sub[k]);
            mo_report_set_number(sd, NULL, step->div[k]);
        }
    }
}

static void report_values(const struct mo_graph *g, const mo_value_id *ids, uint32_t n, const char *key,
                          struct mopt_report *report)
{
    struct mopt_report *list = mo_report_list(report, key);
    char shape[256];
    for (uint32_t i = 0; i < n; i++) {
        const struct mo_value *v = &g->values[ids[i]];
        if (v->is_input && v->is_initializer)
            continue;
        struct mopt_report *row = mo_report_object(list, NULL);
        mo_report_set_text(row, "name", v->name);
        mo_report_set_text(row, "type", mo_dtype_name(v->dtype));
        mo_report_set_text(row, "shape", mo_inspect_shape(v, shape, sizeof shape));
        bool is_dynamic = !mo_shape_known(v->has_declared ? &v->declared : &v->shape);
        mo_report_set_bool(row, "dynamic", is_dynamic);
    }
}

/* ---- operators ------------------------------------------------------------------------------ */

struct kind { const char *type, *domain; int64_t n; bool is_known; };

static int by_count(const void *a, const void *b)
{
    const struct kind *x = a, *y = b;
    if (x->n != y->n)
        return x->n < y->n ? 1 : -1;
    int order = strcmp(x->type, y->type);
    return order ? order : strcmp(x->domain, y->domain);
}

static void count_kind(struct kind *kinds, size_t *n, const struct mo_node *node)
{
    bool is_known = node->op || mo_node_is(node, "Constant");
    for (size_t k = 0; k < *n; k++)
        if (!strcmp(kinds[k].type, node->type) && !strcmp(kinds[k].domain, node->domain)) {
            kinds[k].n++;
            kinds[k].is_known &= is_known;
            return;
        }
    kinds[(*n)++] = (struct kind){ node->type, node->domain, 1, is_known };
}

static size_t count_nodes(const struct mo_graph *g)
{
    size_t n = g->n_nodes;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                n += count_nodes(g->nodes[i].attrs[a].graphs[k]);
    return n;
}

static void count_kinds(struct kind *kinds, size_t *n, const struct mo_graph *g)
{
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        count_kind(kinds, n, &g->nodes[i]);
        for (uint32_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; g->nodes[i].attrs[a].graphs && k < g->nodes[i].attrs[a].n; k++)
                count_kinds(kinds, n, g->nodes[i].attrs[a].graphs[k]);
    }
}

static enum mopt_status report_operators(struct mo_job *job, const struct mo_graph *g, struct mopt_report *report)
{
    struct kind *kinds = mo_arena_new(job->scratch, count_nodes(g) + 1, sizeof *kinds);
    if (!kinds)
        return mo_no_memory(job->ctx, g->n_nodes * sizeof *kinds, "the report");
    size_t n = 0;
    count_kinds(kinds, &n, g);
    qsort(kinds, n, sizeof *kinds, by_count);
    struct mopt_report *list = mo_report_list(report, "operators");
    for (size_t k = 0; k < n; k++) {
        struct mopt_report *row = mo_report_object(list, NULL);
        mo_report_set_text(row, "type", kinds[k].type);
        if (kinds[k].domain[0])
            mo_report_set_text(row, "domain", kinds[k].domain);
        mo_report_set_int(row, "opset", mo_model_opset(job->model, kinds[k].domain));
        mo_report_set_int(row, "count", kinds[k].n);
        if (!kinds[k].is_known)
            mo_report_set_text(row, "note", "not known: kept as it is, cannot be run");
    }
    return MOPT_OK;
}

/* ---- all of it --------------------------------------------------------------------------------- */

static enum mopt_status report_totals(struct mo_job *job, const struct mo_graph *g, bool has_shapes,
                                      struct mopt_report *report)
{
    struct mo_counts counts;
    MO_TRY(reads_weights(job) ? mo_count(job->ctx, g, &counts) : mo_count_unread(job->ctx, g, &counts));
    /* the file's own size while no step has changed the model; else what would be written */
    uint64_t bytes = job->step ? 0 : job->model->file_bytes;
    if (!bytes)
        MO_TRY(job->ctx->io->model_bytes(job->ctx, job->model, &bytes));
    struct mopt_report *totals = mo_report_object(report, "totals");
    mo_report_set_int(totals, "parameters", counts.parameters);
    if (counts.nonzero == MO_UNKNOWN)
        mo_report_set_null(totals, "nonzero");
    else
        mo_report_set_int(totals, "nonzero", counts.nonzero);
    if (has_shapes && counts.macs != MO_UNKNOWN)
        mo_report_set_int(totals, "macs", counts.macs);
    else
        mo_report_set_null(totals, "macs");
    mo_report_set_int(totals, "bytes", (int64_t)bytes);
    mo_report_set_int(totals, "constant_bytes", (int64_t)counts.bytes);
    mo_report_set_int(totals, "nodes", (int64_t)count_nodes(g));
    return MOPT_OK;
}

static enum mopt_status write_drawing(struct mo_job *job, const struct mo_drawing *d, const char *path,
                                      void (*draw)(const struct mo_drawing *, struct mo_text *))
{
    const struct inspect_options *o = job->options;
    struct mo_text text = { .n = 0 };
    draw(d, &text);
    enum mopt_status s = text.is_broken ? mo_no_memory(job->ctx, text.n, "a drawing")
                                        : job->ctx->io->write_file(job->ctx, path, text.bytes, text.n, o->force);
    mo_mem_free(text.bytes);
    return s;
}

static enum mopt_status draw(struct mo_job *job, struct mo_graph *g)
{
    const struct inspect_options *o = job->options;
    struct mo_drawing d;
    if (!o->svg && !o->dot)
        return MOPT_OK;
    MO_TRY(mo_draw_new(job->ctx, job->scratch, g, &d));
    if (o->dot)
        MO_TRY(write_drawing(job, &d, o->dot, mo_draw_dot));
    if (!o->svg)
        return MOPT_OK;
    MO_TRY(mo_draw_layout(job->ctx, &d));
    return write_drawing(job, &d, o->svg, mo_draw_svg);
}

/* On a copy, since inference leaves its traces in shapes. */
static enum mopt_status inspect(struct mo_job *job, struct mo_graph *g)
{
    const struct inspect_options *o = job->options;
    if (reads_weights(job))
        MO_TRY(mo_graph_align(job->ctx, job->model, &job->model->graph));
    MO_TRY(mo_graph_copy(job->ctx, g, &job->model->graph, false));
    report_file(job->model, job->report);
    report_preparation(job, job->report);
    report_values(&job->model->graph, g->inputs, g->n_inputs, "inputs", job->report);
    report_values(&job->model->graph, g->outputs, g->n_outputs, "outputs", job->report);
    bool has_shapes = !mo_infer_sample(job->ctx, g, MO_FREE_DIM);
    if (!has_shapes) {
        mo_report_set_text(job->report, "shapes", mopt_error(job->ctx));
        mo_warn(job->ctx, "inspect", "shapes are not known: %s", mopt_error(job->ctx));
        mopt_clear(job->ctx);
    }
    MO_TRY(report_totals(job, g, has_shapes, job->report));
    MO_TRY(report_operators(job, g, job->report));
    MO_TRY(mo_inspect_layers(job, g, o->all, has_shapes, reads_weights(job), job->report));
    if (o->memory)
        MO_TRY(mo_measure_memory(job->ctx, job->model, job->report));
    return draw(job, g);
}

static enum mopt_status run(struct mo_job *job)
{
    struct mo_graph g = { .arena = job->scratch };
    enum mopt_status status = inspect(job, &g);
    mo_graph_release(&g);
    return status;
}

const struct mo_pass mo_pass_inspect = {
    .name = "inspect",
    .help = "what is in the file, and what can be done with it",
    .options = options,
    .options_bytes = sizeof(struct inspect_options),
    .flags = MO_PASS_READS,
    .run = run,
};
