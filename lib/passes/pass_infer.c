/* pass_infer.c - infer: one forward pass on tensors from files, chosen values to files.
 *
 *     mopt infer model.onnx --input x=input_0.pb --output y=output_0.npy
 *
 * An output may be any value that a node of the graph makes, not only the model's own. */
#include <stdio.h>
#include <string.h>

#include "lib/data/host_tensor.h"
#include "lib/ops/sequence.h"
#include "lib/passes/pass.h"
#include "lib/run/run.h"

enum { MAX_ENDS = 256 };

struct infer_options { struct mo_list input, output; bool force; int precision; };
#define AT(field) offsetof(struct infer_options, field)
static const struct mopt_option options[] = {
    {"input", MOPT_OPT_LIST, AT(input), .word = "NAME=FILE", .help = "a tensor for an input, .pb or .npy (a list of them: .pb); each input needs one"},
    {"output", MOPT_OPT_LIST, AT(output), .word = "NAME=FILE", .help = "where an output goes, .pb or .npy; repeatable; the tensors of a sequence go to numbered files"},
    {"precision", MOPT_OPT_CHOICE, AT(precision), .text_def = "fp32", .choices = MO_PRECISION_CHOICES,
     .help = MO_PRECISION_HELP},
    {"force", MOPT_OPT_BOOL, AT(force), .help = "overwrite existing files"},
    {0}};

/* One --input or --output: the value and its file. */
struct end { mo_value_id value; const char *path; struct mo_host_tensor tensor; };

struct infer {
    struct mo_job *job;
    const struct mo_graph *g;
    struct end in[MAX_ENDS], out[MAX_ENDS];
    uint32_t n_in, n_out;
    struct mo_shape shapes[MAX_ENDS];           /* of the model's inputs in their order, and their tensors */
    const struct end *ordered[MAX_ENDS];
};

/* ---- words about the model ------------------------------------------------------------ */

static bool is_real_input(const struct mo_graph *g, uint32_t i)
{
    return !g->values[g->inputs[i]].is_initializer;
}

/* "'x' float32 ?x3x224x224, 'y' ..." of the inputs or outputs. */
static const char *list_ends(struct infer *f, const mo_value_id *ids, uint32_t n, bool inputs)
{
    char text[700] = "none";
    size_t used = 0;
    for (uint32_t i = 0; i < n && used < sizeof text - 1; i++) {
        const struct mo_value *v = &f->g->values[ids[i]];
        char shape[128];
        if (inputs && !is_real_input(f->g, i))
            continue;
        mo_shape_text(&v->shape, shape, sizeof shape);
        int k = snprintf(text + used, sizeof text - used, "%s'%s' %s %s", used ? ", " : "", v->name,
                         mo_dtype_name(v->dtype), shape);
        used = MO_MIN(used + (size_t)MO_MAX(k, 0), sizeof text - 1);
    }
    const char *copy = mo_arena_text(f->job->scratch, text);
    return copy ? copy : "";
}

static const char *list_inputs(struct infer *f)
{
    return list_ends(f, f->g->inputs, f->g->n_inputs, true);
}

static const char *list_outputs(struct infer *f)
{
    return list_ends(f, f->g->outputs, f->g->n_outputs, false);
}

/* ---- the options ------------------------------------------------------------------------- */

/* Names may have '=' in them, paths too: the first place where the part before it is a value counts. */
static mo_value_id split_end(const struct mo_graph *g, struct mo_arena *arena, const char *said, const char **path)
{
    for (const char *equals = strchr(said, '='); equals; equals = strchr(equals + 1, '=')) {
        const char *name = mo_arena_bytes(arena, said, (size_t)(equals - said));
        mo_value_id v = name && *name ? mo_graph_find(g, name) : MO_NONE;
        if (v != MO_NONE && equals[1]) {
            *path = equals + 1;
            return v;
        }
    }
    return MO_NONE;
}

static enum mopt_status add_end(struct infer *f, struct end *ends, uint32_t *n, mo_value_id v, const char *path)
{
    for (uint32_t i = 0; i < *n; i++)
        if (ends[i].value == v)
            return mo_fail(f->job->ctx, MOPT_USAGE, "'%s' is given twice", f->g->values[v].name);
    if (*n == MAX_ENDS)
        return mo_fail(f->job->ctx, MOPT_LIMIT, "more than %d inputs or outputs", MAX_ENDS);
    ends[(*n)++] = (struct end){.value = v, .path = path};
    return MOPT_OK;
}

static enum mopt_status parse_inputs(struct infer *f, const struct mo_list *list)
{
    struct mopt_ctx *ctx = f->job->ctx;
    for (size_t i = 0; i < list->n; i++) {
        const char *path = NULL;
        mo_value_id v = split_end(f->g, f->job->scratch, list->items[i], &path);
        if (v == MO_NONE || !f->g->values[v].is_input)
            return mo_fail(ctx, MOPT_USAGE, "--input '%s' is not NAME=FILE of an input; inputs: %s", list->items[i],
                           list_inputs(f));
        if (f->g->values[v].is_initializer)
            return mo_fail(ctx, MOPT_USAGE, "--input '%s': the file itself holds this value; inputs: %s", list->items[i],
                           list_inputs(f));
        MO_TRY(add_end(f, f->in, &f->n_in, v, path));
    }
    return MOPT_OK;
}

static enum mopt_status parse_outputs(struct infer *f, const struct mo_list *list)
{
    struct mopt_ctx *ctx = f->job->ctx;
    if (!list->n)
        return mo_fail(ctx, MOPT_USAGE, "no output is asked for: add --output NAME=FILE; outputs: %s", list_outputs(f));
    for (size_t i = 0; i < list->n; i++) {
        const char *path = NULL;
        mo_value_id v = split_end(f->g, f->job->scratch, list->items[i], &path);
        if (v == MO_NONE || (f->g->values[v].producer == MO_NONE && !f->g->values[v].is_output))
            return mo_fail(ctx, MOPT_USAGE, "--output '%s' is not NAME=FILE of a value that the model makes; outputs: %s",
                           list->items[i], list_outputs(f));
        const struct infer_options *o = f->job->options;
        if (!o->force && ctx->io->file_exists(path))
            return mo_fail(ctx, MOPT_USAGE, "%s: exists already; -f overwrites it", path);
        MO_TRY(add_end(f, f->out, &f->n_out, v, path));
    }
    return MOPT_OK;
}

/* ---- tensors ------------------------------------------------------------------------------- */

static enum mopt_status check_input(struct infer *f, const struct end *e)
{
    const struct mo_value *v = &f->g->values[e->value];
    bool fits = v->shape.rank == MO_UNKNOWN || v->shape.rank == e->tensor.shape.rank;
    for (int i = 0; fits && i < v->shape.rank; i++)
        fits = v->shape.dim[i] < 0 || v->shape.dim[i] == e->tensor.shape.dim[i];
    if (fits && v->dtype == e->tensor.dtype)
        return MOPT_OK;
    char wants[128], has[128];
    mo_shape_text(&v->shape, wants, sizeof wants);
    mo_shape_text(&e->tensor.shape, has, sizeof has);
    return mo_fail(f->job->ctx, MOPT_DATA, "%s: holds %s %s, input '%s' takes %s %s", e->path,
                   mo_dtype_name(e->tensor.dtype), has, v->name, mo_dtype_name(v->dtype), wants);
}

static enum mopt_status read_input(struct infer *f, struct end *e)
{
    struct mopt_ctx *ctx = f->job->ctx;
    enum mo_dtype dtype = f->g->values[e->value].dtype;
    if (mo_is_list(dtype))
        return ctx->io->read_list(ctx, e->path, (int)dtype, &e->tensor);
    MO_TRY(ctx->io->read_tensor(ctx, e->path, &e->tensor));
    return check_input(f, e);
}

/* Every input's file, in the order of the graph. */
static enum mopt_status read_inputs(struct infer *f, uint32_t *n)
{
    *n = 0;
    for (uint32_t i = 0; i < f->g->n_inputs; i++) {
        struct end *found = NULL;
        if (!is_real_input(f->g, i))
            continue;
        for (uint32_t k = 0; k < f->n_in; k++)
            if (f->in[k].value == f->g->inputs[i])
                found = &f->in[k];
        if (!found || *n == MAX_ENDS)
            return mo_fail(f->job->ctx, MOPT_USAGE, "input '%s' has no tensor: add --input %s=FILE; inputs: %s",
                           f->g->values[f->g->inputs[i]].name, f->g->values[f->g->inputs[i]].name, list_inputs(f));
        MO_TRY(read_input(f, found));
        f->shapes[*n] = found->tensor.shape;
        f->ordered[(*n)++] = found;
    }
    return MOPT_OK;
}

static enum mopt_status set_input(struct mo_run *run, uint32_t i, const struct mo_host_tensor *t)
{
    return t->dtype == MO_STRING ? mo_run_set_texts(run, i, t->data, t->n_bytes)
                                 : mo_run_set_input(run, i, t->data, t->n_bytes);
}

static enum mopt_status take_output(struct infer *f, struct mo_run *run, uint32_t i)
{
    const struct mo_value *v = mo_run_output(run, i);
    struct end *e = &f->out[i];
    e->tensor.dtype = v->dtype;
    e->tensor.shape = v->shape;
    snprintf(e->tensor.name, sizeof e->tensor.name, "%s", f->g->values[e->value].name);
    if (v->dtype == MO_STRING)
        return mo_run_get_texts(run, i, (char **)&e->tensor.data, &e->tensor.n_bytes);
    e->tensor.n_bytes = mo_value_bytes(v);
    e->tensor.data = mo_mem_new(MO_MAX(e->tensor.n_bytes, (size_t)1), 1);
    if (!e->tensor.data)
        return mo_no_memory(f->job->ctx, e->tensor.n_bytes, "an output");
    return mo_run_get_output(run, i, e->tensor.data, e->tensor.n_bytes);
}

static enum mopt_status forward(struct infer *f, struct mo_run *run)
{
    uint32_t n;
    MO_TRY(read_inputs(f, &n));
    MO_TRY(mo_run_shape(run, f->shapes, n));
    for (uint32_t i = 0; i < n; i++)
        MO_TRY(set_input(run, i, &f->ordered[i]->tensor));
    double start = mo_now_s();
    MO_TRY(mo_run_forward(run));
    mo_report_set_number(f->job->report, "forward_ms", 1e3 * (mo_now_s() - start));
    for (uint32_t i = 0; i < f->n_out; i++)
        MO_TRY(take_output(f, run, i));
    return MOPT_OK;
}

static enum mopt_status write_output(struct infer *f, const char *path, const struct mo_host_tensor *tensor)
{
    const struct infer_options *o = f->job->options;
    char shape[128];
    MO_TRY(f->job->ctx->io->write_tensor(f->job->ctx, path, tensor, o->force));
    struct mopt_report *row = mo_report_object(mo_report_list(f->job->report, "outputs"), NULL);
    mo_report_set_text(row, "name", tensor->name);
    mo_report_set_text(row, "type", mo_dtype_name(tensor->dtype));
    mo_report_set_text(row, "shape", mo_shape_text(&tensor->shape, shape, sizeof shape));
    mo_report_set_text(row, "file", path);
    return MOPT_OK;
}

/* A sequence: each of its tensors into a file of its own, numbered before the suffix: y.0.npy, y.1.npy. */
static enum mopt_status write_list(struct infer *f, const char *path, const struct mo_host_tensor *list)
{
    struct mopt_ctx *ctx = f->job->ctx;
    const char *dot = strrchr(path, '.');
    int64_t n;
    MO_TRY(mo_sequence_check(ctx, list->data, list->n_bytes, &n));
    for (int64_t i = 0; i < n; i++) {
        struct mo_item item = mo_sequence_item(list->data, i);
        struct mo_host_tensor tensor = { .dtype = item.dtype, .shape = item.shape, .data = (void *)item.data,
                                         .n_bytes = mo_dtype_bytes(item.dtype, mo_shape_elems(&item.shape)) };
        const char *file = dot ? mo_arena_printf(f->job->scratch, "%.*s.%lld%s", (int)(dot - path), path, (long long)i, dot)
                               : NULL;
        if (!file)
            return mo_no_memory(ctx, strlen(path), "a file's name");
        snprintf(tensor.name, sizeof tensor.name, "%.100s[%lld]", list->name, (long long)i);
        MO_TRY(mo_is_list(item.dtype) ? write_list(f, file, &tensor) : write_output(f, file, &tensor));
    }
    return MOPT_OK;
}

static enum mopt_status write_outputs(struct infer *f)
{
    mo_report_list(f->job->report, "outputs");
    for (uint32_t i = 0; i < f->n_out; i++) {
        const struct end *e = &f->out[i];
        MO_TRY(mo_is_list(e->tensor.dtype) ? write_list(f, e->path, &e->tensor) : write_output(f, e->path, &e->tensor));
    }
    return MOPT_OK;
}

static enum mopt_status run_once(struct infer *f)
{
    mo_value_id outputs[MAX_ENDS];
    struct mo_run *run = NULL;
    for (uint32_t i = 0; i < f->n_out; i++)
        outputs[i] = f->out[i].value;
    const struct infer_options *o = f->job->options;
    const struct mo_run_options how = {.outputs = outputs, .n_outputs = f->n_out,
                                       .half = mo_precision_half(o->precision)};
    MO_TRY(mo_run_new(f->job->ctx, f->g, &how, &run));
    enum mopt_status s = forward(f, run);
    mo_run_free(run);
    return s ? s : write_outputs(f);
}

static enum mopt_status run(struct mo_job *job)
{
    const struct infer_options *o = job->options;
    struct infer *f = mo_arena_new(job->scratch, 1, sizeof *f);
    if (!f)
        return mo_no_memory(job->ctx, sizeof *f, "tensors");
    f->job = job;
    f->g = &job->model->graph;
    MO_TRY(parse_inputs(f, &o->input));
    MO_TRY(parse_outputs(f, &o->output));
    enum mopt_status s = job->settings->dry_run ? MOPT_OK : run_once(f);
    for (uint32_t i = 0; i < f->n_in; i++)
        mo_host_tensor_release(&f->in[i].tensor);
    for (uint32_t i = 0; i < f->n_out; i++)
        mo_host_tensor_release(&f->out[i].tensor);
    return s;
}

const struct mo_pass mo_pass_infer = {
    .name = "infer",
    .help = "one forward pass on given tensors, outputs to files",
    .options = options,
    .options_bytes = sizeof(struct infer_options),
    .flags = MO_PASS_READS | MO_PASS_PLANS,
    .run = run,
};
