/* dataset.c - opening data for a model: sources, splits, and the transform with its numbers. */
#include "lib/data/private.h"

#include <string.h>

static const char meta_transform[] = "mopt.transform", meta_schema[] = "mopt.schema";

#define AT(field) offsetof(struct mo_data_settings, field)
const struct mopt_option mo_data_options[] = {
    {"data", MOPT_OPT_TEXT, AT(data), .word = "SPEC",
     .needs = "@data",
     .help = "training data as FORMAT:PATH[,KEY=VALUE...], e.g. idx:DIR, csv:FILE,label=income"},
    {"eval-data", MOPT_OPT_TEXT, AT(eval_data), .word = "SPEC",
     .needs = "@data evaluate,max-drop,min-accuracy,max-rmse,@reads",
     .help = "data to evaluate on; else the test part of --data, else its validation split"},
    {"transform", MOPT_OPT_TEXT, AT(transform), .word = "LIST",
     .needs = "@data data,eval-data",
     .help = "what is done to samples, e.g. pad-crop=4,hflip,standardize; else as the model says"},
    {"eval-transform", MOPT_OPT_TEXT, AT(eval_transform), .word = "LIST",
     .needs = "@data data,eval-data",
     .help = "the same for evaluation; else --transform without its random steps"},
    {"subset", MOPT_OPT_AMOUNT, AT(subset), .word = "AMOUNT", .needs = "@data data",
     .help = "train on a random part: 10% or a count"},
    {"stratify", MOPT_OPT_BOOL, AT(stratify), .needs = "@data data val-split,subset",
     .help = "keep the shares of the classes in splits and subsets"},
    {"val-split", MOPT_OPT_FLOAT, AT(val_split), .def = 0.1, .min = 0, .max = 0.9, .word = "SHARE",
     .needs = "@data data",
     .help = "share of the training data held out for validation"},
    {"workers", MOPT_OPT_INT, AT(workers), .def = 0, .min = 0, .max = 64, .word = "N",
     .needs = "@data data,eval-data",
     .help = "threads that load data; 0: as many as the data needs"},
    {"drop-last", MOPT_OPT_BOOL, AT(drop_last), .needs = "@data data",
     .help = "leave out the last, smaller batch of an epoch"},
    {"schema", MOPT_OPT_CHOICE, AT(schema), .text_def = "model", .choices = "model|data",
     .needs = "@data data,eval-data",
     .help = "number classes and columns as the model was trained, or anew from the data"},
    {0}};

/* ---- sources -------------------------------------------------------------------- */

static enum mopt_status open_part(struct mopt_ctx *ctx, const char *spec, enum mo_part part, const char *schema,
                                  struct mo_source **source)
{
    MO_TRY(ctx->io->open_source(ctx, spec, part, schema, source));
    if (*source && !(*source)->n_samples) {
        mo_fail(ctx, MOPT_DATA, "%s: has no sample", (*source)->path);
        (*source)->close(*source);
        *source = NULL;
        return MOPT_DATA;
    }
    return MOPT_OK;
}

static enum mopt_status open_sources(struct mopt_ctx *ctx, struct mopt_dataset *d,
                                     const struct mo_data_settings *settings, const struct mopt_model *model)
{
    const char *schema = settings->schema == MO_SCHEMA_MODEL ? mo_model_meta(model, meta_schema) : NULL;
    if (settings->data) {
        MO_TRY(open_part(ctx, settings->data, MO_PART_TRAIN, schema, &d->train));
        if (d->train && d->train->schema)
            schema = d->train->schema;
    }
    const char *spec = settings->eval_data ? settings->eval_data : settings->data;
    MO_TRY(open_part(ctx, spec, MO_PART_TEST, schema, &d->test));
    if (settings->eval_data && !d->test)
        MO_TRY(open_part(ctx, spec, MO_PART_TRAIN, schema, &d->test));
    if (!d->train && !d->test)
        return mo_fail(ctx, MOPT_DATA, "data '%s' has no sample", spec);
    if (d->train && d->test && d->train->kind != d->test->kind)
        return mo_fail(ctx, MOPT_DATA, "%s and %s hold different kinds of samples", d->train->path, d->test->path);
    return MOPT_OK;
}

static enum mopt_status new_marks(struct mopt_ctx *ctx, const struct mo_source *source, uint8_t **marks)
{
    if (!source)
        return MOPT_OK;
    *marks = mo_mem_new(source->n_samples, 1);
    return *marks ? MOPT_OK : mo_no_memory(ctx, source->n_samples, "marks of samples");
}

/* ---- the transform ----------------------------------------------------------------- */

static enum mopt_status append(struct mopt_ctx *ctx, struct mo_arena *arena, struct mo_pipeline *to,
                               const struct mo_step *steps, uint32_t n)
{
    struct mo_step *all = mo_arena_new(arena, to->n_steps + n + 1, sizeof *all);
    if (!all)
        return mo_no_memory(ctx, (to->n_steps + n) * sizeof *all, "transforms");
    if (to->n_steps)
        memcpy(all, to->steps, to->n_steps * sizeof *all);
    if (n)
        memcpy(all + to->n_steps, steps, n * sizeof *all);
    to->steps = all;
    to->n_steps += n;
    return MOPT_OK;
}

/* A list that says nothing about values gets the value steps of `other` behind it. */
static enum mopt_status complete(struct mopt_ctx *ctx, struct mo_arena *arena, struct mo_pipeline *list,
                                 const struct mo_pipeline *other)
{
    if (mo_pipeline_has(list, MO_TRANSFORM_VALUES))
        return MOPT_OK;
    for (uint32_t i = 0; i < other->n_steps; i++)
        if (other->steps[i].transform->flags & MO_TRANSFORM_VALUES)
            MO_TRY(append(ctx, arena, list, &other->steps[i], 1));
    return MOPT_OK;
}

/* Bytes of images become 0 to 1 before any value step but scale and none. */
static enum mopt_status divide_first(struct mopt_ctx *ctx, struct mo_arena *arena, struct mo_pipeline *list)
{
    uint32_t at = 0;
    while (at < list->n_steps && !(list->steps[at].transform->flags & MO_TRANSFORM_VALUES))
        at++;
    if (at == list->n_steps || !strcmp(list->steps[at].transform->name, "scale") ||
        !strcmp(list->steps[at].transform->name, "none"))
        return MOPT_OK;
    struct mo_pipeline scale, old = *list;
    MO_TRY(mo_pipeline_parse(ctx, arena, "scale", &scale));
    list->n_steps = at;
    MO_TRY(append(ctx, arena, list, scale.steps, 1));
    return append(ctx, arena, list, old.steps + at, old.n_steps - at);
}

static const char *default_list(const struct mo_source *source, const struct mo_value *input)
{
    bool wants_floats = mo_dtype_is_float(input->dtype);
    if (!wants_floats || source->is_prepared || source->kind == MO_SAMPLE_SPARSE)
        return "none";
    return source->kind == MO_SAMPLE_TENSOR && !mo_dtype_is_float(source->dtype[0]) && input->dtype == source->dtype[0]
               ? "none"
               : "standardize";
}

/* The model's first input that data goes to. */
static const struct mo_value *first_input(const struct mopt_model *model)
{
    for (uint32_t i = 0; i < model->graph.n_inputs; i++)
        if (!model->graph.values[model->graph.inputs[i]].is_initializer)
            return &model->graph.values[model->graph.inputs[i]];
    return NULL;
}

static enum mopt_status check_list(struct mopt_ctx *ctx, const struct mo_source *source, const struct mo_value *input,
                                   const struct mo_pipeline *list)
{
    for (uint32_t i = 0; i < list->n_steps; i++) {
        const struct mo_transform *t = list->steps[i].transform;
        bool is_value = t->flags & MO_TRANSFORM_VALUES, is_none = is_value && !list->steps[i].n && list->steps[i].is_settled;
        if (!is_value && source->kind != MO_SAMPLE_IMAGE)
            return mo_fail(ctx, MOPT_USAGE, "transform '%s' is for images, %s gives none", t->name, source->path);
        if (source->kind == MO_SAMPLE_SPARSE && !(t->flags & MO_TRANSFORM_SPARSE))
            return mo_fail(ctx, MOPT_USAGE, "transform '%s' would fill the zeros of the sparse rows of %s; use scale or none",
                           t->name, source->path);
        if (is_value && !is_none && !mo_dtype_is_float(input->dtype))
            return mo_fail(ctx, MOPT_USAGE, "transform '%s' gives fractions, but input '%s' takes %s", t->name, input->name,
                           mo_dtype_name(input->dtype));
    }
    return MOPT_OK;
}

static enum mopt_status settle_list(struct mopt_ctx *ctx, struct mopt_dataset *d, const char *text,
                                    const struct mo_pipeline *other, const struct mo_source *source,
                                    const struct mo_value *input, struct mo_pipeline *list)
{
    MO_TRY(mo_pipeline_parse(ctx, &d->arena, text, list));
    MO_TRY(complete(ctx, &d->arena, list, other));
    if (source->kind == MO_SAMPLE_IMAGE)
        MO_TRY(divide_first(ctx, &d->arena, list));
    for (uint32_t i = 0; source->kind == MO_SAMPLE_IMAGE && i < list->n_steps; i++)
        if (list->steps[i].is_settled && list->steps[i].n > 1)
            list->steps[i].axis = MO_AXIS_CHANNEL;
    return check_list(ctx, source, input, list);
}

/* Both lists, still without the numbers that the training split has to give. */
static enum mopt_status choose_lists(struct mopt_ctx *ctx, struct mopt_dataset *d,
                                     const struct mo_data_settings *settings, const struct mopt_model *model)
{
    const struct mo_source *source = d->train ? d->train : d->test;
    const struct mo_value *input = first_input(model);
    const char *said = settings->transform, *noted = mo_model_meta(model, meta_transform);
    if (!input)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "the model has no input");
    d->is_default = !said && !noted;
    struct mo_pipeline base;
    MO_TRY(mo_pipeline_parse(ctx, &d->arena, noted ? noted : default_list(source, input), &base));
    const char *text = said ? said : noted ? noted : default_list(source, input);
    MO_TRY(settle_list(ctx, d, text, &base, source, input, &d->train_steps));
    const char *eval = settings->eval_transform;
    if (!eval)
        eval = mo_pipeline_text(&d->arena, &d->train_steps, true);
    if (!eval)
        return mo_no_memory(ctx, 0, "transforms");
    return settle_list(ctx, d, eval, &d->train_steps, source, input, &d->eval_steps);
}

/* One dimension of a sample says one number each: images and pictures-like tensors per channel, tables per feature. */
static enum mo_value_axis natural_axis(const struct mo_source *source)
{
    return source->kind == MO_SAMPLE_IMAGE || source->shape[0].rank >= 3 ? MO_AXIS_CHANNEL : MO_AXIS_FEATURE;
}

/* The one axis that all steps without numbers share. */
static enum mopt_status choose_axis(struct mopt_ctx *ctx, const struct mo_source *source,
                                    struct mo_pipeline *const lists[2], enum mo_value_axis *axis)
{
    bool is_said = false;
    *axis = natural_axis(source);
    for (int l = 0; l < 2; l++)
        for (uint32_t i = 0; i < lists[l]->n_steps; i++) {
            const struct mo_step *step = &lists[l]->steps[i];
            if (!(step->transform->flags & MO_TRANSFORM_FITS) || step->is_settled || !step->has_axis ||
                step->axis == MO_AXIS_ALL)
                continue;
            if (is_said && step->axis != *axis)
                return mo_fail(ctx, MOPT_USAGE, "transforms take statistics per channel and per feature: choose one");
            if (source->kind == MO_SAMPLE_IMAGE && step->axis == MO_AXIS_FEATURE)
                return mo_fail(ctx, MOPT_USAGE, "transform '%s': images have channels, no features", step->transform->name);
            is_said = true;
            *axis = step->axis;
        }
    for (int l = 0; l < 2; l++)
        for (uint32_t i = 0; i < lists[l]->n_steps; i++)
            if (!lists[l]->steps[i].is_settled && !lists[l]->steps[i].has_axis)
                lists[l]->steps[i].axis = *axis;
    return MOPT_OK;
}

/* As many numbers as there are channels or features. */
static enum mopt_status check_counts(struct mopt_ctx *ctx, const struct mopt_dataset *d, const struct mo_source *source,
                                     const struct mo_pipeline *list)
{
    for (uint32_t i = 0; i < list->n_steps; i++) {
        const struct mo_step *step = &list->steps[i];
        bool is_image = source->kind == MO_SAMPLE_IMAGE;
        const struct mo_shape *shape = &source->shape[0];
        int64_t wanted = is_image                          ? d->channels
                         : !shape->rank                    ? 1
                         : step->axis == MO_AXIS_CHANNEL   ? shape->dim[0]
                                                           : shape->dim[shape->rank - 1];
        if (step->n > 1 && (int64_t)step->n != wanted)
            return mo_fail(ctx, MOPT_DATA, "transform '%s' has numbers for %u %s, %s has %lld", step->transform->name,
                           step->n, is_image ? "channels" : "features", source->path, (long long)wanted);
    }
    return MOPT_OK;
}

static enum mopt_status make_table(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_pipeline *list,
                                   float **table)
{
    size_t n_channels = (size_t)d->channels;
    *table = mo_arena_new(&d->arena, 256 * n_channels, sizeof **table);
    if (!*table)
        return mo_no_memory(ctx, 256 * n_channels * sizeof **table, "transforms");
    for (size_t i = 0; i < 256 * n_channels; i++)
        (*table)[i] = (float)(i % 256);
    mo_pipeline_values(list, *table, 256 * n_channels, n_channels, 1);
    return MOPT_OK;
}

static enum mopt_status settle_numbers(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_source *source)
{
    struct mo_pipeline *const lists[2] = {&d->train_steps, &d->eval_steps};
    if (!mo_pipeline_is_settled(lists[0]) || !mo_pipeline_is_settled(lists[1])) {
        struct mo_stats stats;
        enum mo_value_axis axis;
        if (!d->train)
            return mo_fail(ctx, MOPT_USAGE, "'%s' takes its numbers from training data: add --data, or --transform as the "
                           "model was trained", mo_pipeline_text(&d->arena, lists[1], true));
        MO_TRY(choose_axis(ctx, source, lists, &axis));
        MO_TRY(mo_measure_stats(ctx, d, axis, &stats));
        for (int l = 0; l < 2; l++)
            MO_TRY(mo_pipeline_fit(ctx, &d->arena, &stats, lists[l]));
    }
    for (int l = 0; l < 2; l++)
        MO_TRY(check_counts(ctx, d, source, lists[l]));
    if (source->kind == MO_SAMPLE_IMAGE) {
        MO_TRY(make_table(ctx, d, lists[0], &d->train_table));
        MO_TRY(make_table(ctx, d, lists[1], &d->eval_table));
    }
    d->train_text = mo_pipeline_text(&d->arena, lists[0], false);
    d->eval_text = mo_pipeline_text(&d->arena, lists[1], true);
    return d->train_text && d->eval_text ? MOPT_OK : mo_no_memory(ctx, 0, "transforms");
}

/* ---- the whole ---------------------------------------------------------------------- */

/* The test part must come to the same inputs as the training part. */
static enum mopt_status check_test(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mopt_model *model)
{
    if (!d->train || !d->test)
        return MOPT_OK;
    int height = d->height, width = d->width, channels = d->channels;
    MO_TRY(mo_fit_inputs(ctx, d, d->test, model));
    if (d->height != height || d->width != width || d->channels != channels)
        return mo_fail(ctx, MOPT_DATA, "%s gives images of %dx%d with %d channels, %s of %dx%d with %d", d->train->path,
                       height, width, channels, d->test->path, d->height, d->width, d->channels);
    if (d->train->target != d->test->target && d->test->target != MO_TARGET_NONE)
        return mo_fail(ctx, MOPT_DATA, "%s and %s differ in having classes or values as targets", d->train->path,
                       d->test->path);
    return MOPT_OK;
}

static enum mopt_status open_all(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_data_settings *settings,
                                 const struct mopt_model *model)
{
    MO_TRY(open_sources(ctx, d, settings, model));
    struct mo_source *main_source = d->train ? d->train : d->test;
    MO_TRY(new_marks(ctx, d->train, &d->is_bad[0]));
    MO_TRY(new_marks(ctx, d->test, &d->is_bad[1]));
    MO_TRY(mo_split_all(ctx, d, settings));
    MO_TRY(choose_lists(ctx, d, settings, model));
    MO_TRY(mo_fit_inputs(ctx, d, main_source, model));
    MO_TRY(check_test(ctx, d, model));
    return settle_numbers(ctx, d, main_source);
}

enum mopt_status mo_dataset_open(struct mopt_ctx *ctx, const struct mo_data_settings *settings,
                                 const struct mopt_model *model, uint64_t seed, struct mopt_dataset **dataset)
{
    *dataset = NULL;
    if (!settings->data && !settings->eval_data)
        return mo_fail(ctx, MOPT_USAGE, "no data: add --data SPEC");
    struct mopt_dataset *d = mo_mem_new(1, sizeof *d);
    if (!d)
        return mo_no_memory(ctx, sizeof *d, "a data set");
    d->ctx = ctx;
    d->seed = seed;
    d->strict = settings->strict;
    d->workers = settings->workers;
    enum mopt_status s = open_all(ctx, d, settings, model);
    if (s)
        mo_dataset_close(d);
    else
        *dataset = d;
    return s;
}

void mo_dataset_close(struct mopt_dataset *d)
{
    if (!d)
        return;
    if (d->train)
        d->train->close(d->train);
    if (d->test)
        d->test->close(d->test);
    for (size_t i = 0; i < MO_COUNT(d->part); i++)
        mo_mem_free(d->part[i].items);
    mo_mem_free(d->is_bad[0]);
    mo_mem_free(d->is_bad[1]);
    mo_arena_release(&d->arena);
    mo_mem_free(d);
}

enum mopt_status mo_dataset_note(struct mopt_ctx *ctx, const struct mopt_dataset *d, struct mopt_model *model)
{
    const struct mo_source *source = d->train ? d->train : d->test;
    if (!mo_model_set_meta(model, meta_transform, d->eval_text) ||
        (source->schema && !mo_model_set_meta(model, meta_schema, source->schema)))
        return mo_no_memory(ctx, strlen(d->eval_text), "the model's metadata");
    return MOPT_OK;
}

const struct mo_source *mo_dataset_source(const struct mopt_dataset *d, enum mo_split split)
{
    return mo_split_source(d, split);
}

size_t mo_dataset_count(const struct mopt_dataset *d, enum mo_split split)
{
    return d->part[split].n;
}

bool mo_dataset_has_test(const struct mopt_dataset *d)
{
    return d->test;
}

size_t mo_dataset_bytes(const struct mopt_dataset *d)
{
    size_t bytes = (d->train ? d->train->held_bytes : 0) + (d->test ? d->test->held_bytes : 0);
    for (size_t i = 0; i < MO_COUNT(d->part); i++)
        bytes += d->part[i].n * sizeof *d->part[i].items;
    return bytes;
}

size_t mo_dataset_n_skipped(const struct mopt_dataset *d)
{
    return d->n_skipped;
}

bool mo_dataset_is_augmented(const struct mopt_dataset *d)
{
    return mo_pipeline_has(&d->train_steps, MO_TRANSFORM_RANDOM);
}

bool mo_dataset_is_default(const struct mopt_dataset *d)
{
    return d->is_default;
}

const char *mo_dataset_transform(const struct mopt_dataset *d, bool train)
{
    return train ? d->train_text : d->eval_text;
}

int64_t mo_dataset_model_batch(const struct mopt_dataset *d)
{
    return d->model_batch;
}

bool mo_dataset_has_batch(const struct mopt_dataset *d)
{
    return d->has_batch;
}
