/* diff: two models on the same inputs, the error of each output (and, with --tensors, of every value that both
 * name): cosine, signal to quantization noise, largest and mean difference, agreement of the largest output.
 * The first model is the reference. Without data: seeded random input. */
#include <math.h>
#include <string.h>

#include "lib/passes/calibrate.h"
#include "lib/passes/compare.h"
#include "lib/passes/measure.h"
#include "lib/passes/train.h"

struct diff_options { int64_t samples, batch; bool tensors; };
#define AT(field) offsetof(struct diff_options, field)
static const struct mopt_option options[] = {
    { "samples", MOPT_OPT_INT, AT(samples), .def = 256, .min = 1, .max = 1e9, .word = "N",
      .help = "samples to compare on (of the evaluation split)" },
    { "batch", MOPT_OPT_INT, AT(batch), .def = 32, .min = 1, .max = 65536, .word = "N", .help = "samples at a time" },
    { "tensors", MOPT_OPT_BOOL, AT(tensors), .help = "compare every value that both models name, not only the outputs" },
    { 0 }
};

struct pair { mo_value_id a, b; struct mo_error error; bool is_output; };
struct diff {
    struct mo_job *job;
    const struct diff_options *o;
    const struct mo_graph *ga, *gb;
    struct mo_run *a, *b;
    struct pair *pairs; uint32_t n_pairs;
    size_t n_samples;
};

static mo_value_id output_of(const struct mo_graph *g, const char *name, uint32_t place)
{
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (!strcmp(g->values[g->outputs[i]].name, name))
            return g->outputs[i];
    return g->outputs[place];
}

/* Outputs by name, and those without a namesake by place; then the values that both name. */
static enum mopt_status make_pairs(struct diff *d)
{
    const struct mo_graph *ga = d->ga, *gb = d->gb;
    if (ga->n_outputs != gb->n_outputs)
        return mo_fail(d->job->ctx, MOPT_DATA, "the first model has %u outputs, the second %u", ga->n_outputs,
                       gb->n_outputs);
    d->pairs = mo_arena_new(d->job->scratch, (size_t)ga->n_outputs + ga->n_values, sizeof *d->pairs);
    if (!d->pairs)
        return mo_no_memory(d->job->ctx, ga->n_values * sizeof *d->pairs, "comparing");
    for (uint32_t i = 0; i < ga->n_outputs; i++)
        d->pairs[d->n_pairs++] = (struct pair){ .a = ga->outputs[i], .is_output = true,
                                                .b = output_of(gb, ga->values[ga->outputs[i]].name, i) };
    for (mo_value_id v = 0; v < ga->n_values && d->o->tensors; v++) {
        const struct mo_value *value = &ga->values[v];
        mo_value_id other = value->producer == MO_NONE || value->is_output || value->data
                                ? MO_NONE : mo_graph_find(gb, value->name);
        if (other != MO_NONE && gb->values[other].producer != MO_NONE && !gb->values[other].data)
            d->pairs[d->n_pairs++] = (struct pair){ .a = v, .b = other };
    }
    return MOPT_OK;
}

static enum mopt_status compare_pair(struct diff *d, struct pair *p)
{
    float *x = NULL, *y = NULL;
    size_t nx, ny;
    struct mo_shape sx, sy;
    char tx[128], ty[128];
    enum mopt_status status = mo_run_floats(d->a, p->a, &x, &nx, &sx);
    if (!status)
        status = mo_run_floats(d->b, p->b, &y, &ny, &sy);
    if (!status && x && y) {
        if (nx == ny)
            mo_error_add(&p->error, x, y, nx, sx.rank == 2 ? sx.dim[1] : 0);
        else if (p->is_output)
            status = mo_fail(d->job->ctx, MOPT_DATA, "output '%s' is %s in the first model, %s in the second",
                             d->ga->values[p->a].name, mo_shape_text(&sx, tx, sizeof tx),
                             mo_shape_text(&sy, ty, sizeof ty));
    } else if (!status && p->is_output) {
        status = mo_fail(d->job->ctx, MOPT_UNSUPPORTED, "output '%s' holds no numbers", d->ga->values[p->a].name);
    }
    mo_mem_free(x);
    mo_mem_free(y);
    return status;
}

static enum mopt_status step(struct diff *d, size_t n_samples)
{
    MO_TRY(mo_run_forward(d->a));
    MO_TRY(mo_run_forward(d->b));
    for (uint32_t i = 0; i < d->n_pairs; i++)
        MO_TRY(compare_pair(d, &d->pairs[i]));
    d->n_samples += n_samples;
    mo_progress(d->job->ctx, "diff", (double)d->n_samples, (double)d->o->samples, "sample", NULL);
    return mo_stopped(d->job->ctx);
}

static size_t common_batch(const struct diff *d)
{
    size_t a = mo_batch_for(d->ga, 0), b = mo_batch_for(d->gb, 0);
    return a ? a : b ? b : (size_t)MO_MIN(d->o->batch, d->o->samples);
}

static enum mopt_status on_data(struct diff *d)
{
    struct mo_loader_options stream = { .split = MO_SPLIT_EVAL, .batch = common_batch(d),
                                        .seed = (uint64_t)d->job->settings->seed, .limit = (uint32_t)d->o->samples };
    struct mo_loader *loader = NULL;
    stream.drop_last = mo_batch_for(d->ga, 0) > 1 || mo_batch_for(d->gb, 0) > 1;
    MO_TRY(mo_loader_new(d->job->ctx, d->job->dataset, &stream, &loader));
    enum mopt_status status = mo_loader_start(loader, 0, 0);
    while (!status) {
        const struct mo_batch *batch = NULL;
        status = mo_loader_next(loader, &batch);
        if (status || !batch->n)
            break;
        status = mo_train_feed(d->a, batch);
        if (!status)
            status = mo_train_feed(d->b, batch);
        if (!status)
            status = step(d, batch->n);
    }
    mo_loader_free(loader);
    if (!status && !d->n_samples)
        status = mo_fail(d->job->ctx, MOPT_DATA, "the data has no sample to compare on");
    return status;
}

static enum mopt_status on_random_input(struct diff *d)
{
    struct mo_shape shapes[MO_MAX_INPUTS];
    uint32_t n = 0;
    size_t batch = common_batch(d);
    enum { FREE_DIM = 32 };
    MO_TRY(mo_sample_shapes(d->job->ctx, d->ga, (int64_t)batch, FREE_DIM, shapes, MO_MAX_INPUTS, &n));
    MO_TRY(mo_run_shape(d->a, shapes, n));
    MO_TRY(mo_run_shape(d->b, shapes, n));
    for (uint64_t seed = (uint64_t)d->job->settings->seed; d->n_samples < (size_t)d->o->samples; seed++) {
        for (uint32_t i = 0; i < n; i++) {
            MO_TRY(mo_sample_input(d->a, i, seed * n + i));
            MO_TRY(mo_sample_input(d->b, i, seed * n + i));
        }
        MO_TRY(step(d, batch));
    }
    return MOPT_OK;
}

static void report(const struct diff *d)
{
    struct mopt_report *outputs = mo_report_list(d->job->report, "outputs");
    struct mopt_report *tensors = d->o->tensors ? mo_report_list(d->job->report, "tensors") : NULL;
    double min_cosine = 1;
    for (uint32_t i = 0; i < d->n_pairs; i++) {
        const struct pair *p = &d->pairs[i];
        if (!p->error.n && !p->is_output)
            continue;
        struct mopt_report *row = mo_report_object(p->is_output ? outputs : tensors, NULL);
        mo_report_set_text(row, "name", d->ga->values[p->a].name);
        mo_error_report(&p->error, row);
        double cosine = mo_error_cosine(&p->error);
        if (p->is_output && !(cosine >= min_cosine))
            min_cosine = isnan(cosine) ? -1 : cosine;
    }
    mo_report_set_number(d->job->report, "min_cosine", min_cosine);
    mo_report_set_int(d->job->report, "n_samples", (int64_t)d->n_samples);
    mo_report_set_text(d->job->report, "input", d->job->dataset ? "data" : "random");
}

static enum mopt_status run_both(struct diff *d)
{
    struct mo_run_options run_options = { .keep_names = d->o->tensors };
    MO_TRY(mo_run_new(d->job->ctx, d->ga, &run_options, &d->a));
    MO_TRY(mo_run_new(d->job->ctx, d->gb, &run_options, &d->b));
    if (mo_run_n_inputs(d->a) != mo_run_n_inputs(d->b))
        return mo_fail(d->job->ctx, MOPT_DATA, "the first model has %u inputs, the second %u", mo_run_n_inputs(d->a),
                       mo_run_n_inputs(d->b));
    return d->job->dataset ? on_data(d) : on_random_input(d);
}

static enum mopt_status run(struct mo_job *job)
{
    struct diff d = { .job = job, .o = job->options, .ga = &job->model->graph };
    if (job->n_others != 1)
        return mo_fail(job->ctx, MOPT_USAGE, "diff compares two models: mopt diff A.onnx B.onnx");
    d.gb = &job->others[0]->graph;
    MO_TRY(make_pairs(&d));
    enum mopt_status status = run_both(&d);
    if (d.a)
        mo_run_free(d.a);
    if (d.b)
        mo_run_free(d.b);
    if (!status)
        report(&d);
    return status;
}

/* Beyond what the rows say. */
static const struct mo_need needs[] = {
    { "subset drop-last", NULL },
    { 0 }
};

const struct mo_pass mo_pass_diff = {
    .name = "diff", .help = "two models on the same inputs: error of each output, or of every common value",
    .options = options, .options_bytes = sizeof(struct diff_options), .flags = MO_PASS_READS | MO_PASS_DATA, .needs = needs, .run = run,
};
