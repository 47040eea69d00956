/* fit.c - how a sample lies in the model's inputs.
 *
 * The model's input is (batch, d1, d2, ...), or without a batch dimension when the sample alone has its size.
 * Dimensions of 1 do not count. With at most one dimension left the number of elements decides: 784 and 784x1 take an
 * image of 28x28. Else the dimensions must agree: C x H x W or H x W x C for images. Free dimensions become the
 * sample's. Nothing is resized or recoloured here: that is for the transform to ask. */
#include "lib/data/private.h"

#include <stdio.h>
#include <string.h>

static struct mo_shape without_ones(const struct mo_shape *shape)
{
    struct mo_shape left = {0};
    for (int i = 0; i < shape->rank; i++)
        if (shape->dim[i] != 1)
            left.dim[left.rank++] = shape->dim[i];
    return left;
}

/* Whether a sample of this shape fits `wanted`, which may have free dimensions; *settled is what it then is. */
static bool fits(const struct mo_shape *wanted, const struct mo_shape *sample, struct mo_shape *settled)
{
    *settled = *wanted;
    if (wanted->rank == sample->rank) {
        bool agree = true;
        for (int i = 0; i < wanted->rank; i++) {
            if (wanted->dim[i] < 0)
                settled->dim[i] = sample->dim[i];
            agree &= settled->dim[i] == sample->dim[i];
        }
        if (agree)
            return true;
        *settled = *wanted;
    }
    int64_t known = 1, elems = mo_shape_elems(sample);
    int n_free = 0, at = 0;
    for (int i = 0; i < wanted->rank; i++) {
        if (wanted->dim[i] < 0) {
            n_free++;
            at = i;
        } else if (__builtin_mul_overflow(known, wanted->dim[i], &known))
            return false;
    }
    if (n_free == 1 && known > 0 && elems % known == 0)
        settled->dim[at] = elems / known;
    else if (n_free)
        return false;
    if (mo_shape_elems(settled) != elems)
        return false;
    struct mo_shape a = without_ones(settled), b = without_ones(sample);
    return a.rank <= 1 || b.rank <= 1 || mo_shape_equal(&a, &b);
}

/* Tries the input with its first dimension as the batch, then without a batch dimension. */
static bool fits_input(const struct mo_shape *input, const struct mo_shape *sample, struct mo_shape *settled,
                       bool *has_batch)
{
    *has_batch = true;
    *settled = *sample;
    if (input->rank == MO_UNKNOWN)
        return true;
    struct mo_shape rest = *input;
    if (input->rank > 0) {
        rest.rank--;
        memmove(rest.dim, rest.dim + 1, sizeof rest.dim - sizeof rest.dim[0]);
        if (fits(&rest, sample, settled))
            return true;
    }
    *has_batch = false;
    return input->rank > 0 && input->dim[0] > 0 && mo_shape_known(input) && fits(input, sample, settled);
}

static enum mopt_status no_fit(struct mopt_ctx *ctx, const struct mo_value *v, const struct mo_source *source,
                               const struct mo_shape *sample)
{
    char wants[96], has[96];
    struct mo_shape rest = v->shape;
    if (rest.rank > 1) {
        rest.rank--;
        memmove(rest.dim, rest.dim + 1, sizeof rest.dim - sizeof rest.dim[0]);
    }
    mo_shape_text(&rest, wants, sizeof wants);
    mo_shape_text(sample, has, sizeof has);
    const char *hint = "";
    if (source->kind == MO_SAMPLE_IMAGE)
        hint = ": put resize=HEIGHTxWIDTH, grey or rgb into the transform where that is meant";
    return mo_fail(ctx, MOPT_DATA, "input '%s' takes samples of %s, %s gives %s%s", v->name, wants, source->path, has,
                   hint);
}

static enum mopt_status fit_one(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_source *source,
                                const struct mo_value *v, const struct mo_shape *sample, uint32_t k)
{
    struct mo_input_fit *fit = &d->input[k];
    bool has_batch = true;
    if (!fits_input(&v->shape, sample, &fit->sample, &has_batch))
        return no_fit(ctx, v, source, sample);
    if (!mo_convert_known(v->dtype))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "input '%s' is of type %s, which data cannot be converted to", v->name,
                       mo_dtype_name(v->dtype));
    fit->dtype = v->dtype;
    int64_t elems = mo_shape_elems(&fit->sample);
    if (elems < 0)
        return mo_fail(ctx, MOPT_LIMIT, "input '%s': a sample is too large", v->name);
    fit->n_elems = (size_t)elems;
    fit->n_bytes = mo_dtype_bytes(v->dtype, elems);
    if (k && has_batch != d->has_batch)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "input '%s' and the first one differ in having a batch dimension", v->name);
    d->has_batch = has_batch;
    if (!k && v->shape.rank > 0)
        d->model_batch = !has_batch ? 1 : v->shape.dim[0] > 0 ? v->shape.dim[0] : 0;
    return MOPT_OK;
}

/* Size behind the image steps; where it hangs on the sample, of the first one that can be read. */
static enum mopt_status image_size(struct mopt_ctx *ctx, struct mopt_dataset *d, struct mo_source *source)
{
    struct mo_image size = {.height = source->height, .width = source->width, .channels = source->channels};
    mo_pipeline_size(&d->eval_steps, &size);
    struct mo_scratch scratch = {0};
    struct mo_filler filler = {.dataset = d, .source = source, .steps = &d->eval_steps};
    char why[512] = "it has no sample";
    enum mopt_status s = MOPT_OK;
    for (size_t i = 0; !s && !size.height && i < source->n_samples; i++) {
        struct mo_sample sample = {0};
        struct mo_image image;
        if (source->read(source, i, &scratch.source, &sample, why, sizeof why))
            continue;
        s = mo_fill_image(&filler, &sample, NULL, &scratch, &image, why, sizeof why);
        if (!s)
            size = image;
    }
    mo_scratch_release(&scratch);
    if (s || !size.height)
        return mo_fail(ctx, s ? s : MOPT_DATA, "%s: no image can be read: %s", source->path, why);
    d->height = size.height;
    d->width = size.width;
    d->channels = size.channels;
    return MOPT_OK;
}

static enum mopt_status fit_image(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_source *source,
                                  const struct mo_value *v)
{
    struct mo_shape planar = mo_shape_of(3, (int64_t)d->channels, (int64_t)d->height, (int64_t)d->width);
    struct mo_shape interleaved = mo_shape_of(3, (int64_t)d->height, (int64_t)d->width, (int64_t)d->channels), settled;
    bool has_batch;
    d->is_interleaved = !fits_input(&v->shape, &planar, &settled, &has_batch) &&
                        fits_input(&v->shape, &interleaved, &settled, &has_batch);
    return fit_one(ctx, d, source, v, d->is_interleaved ? &interleaved : &planar, 0);
}

/* The last columns of a matrix are often empty and then missing in the file: a wider input is fed with zeros there. */
static enum mopt_status fit_sparse(struct mopt_ctx *ctx, struct mopt_dataset *d, const struct mo_source *source,
                                   const struct mo_value *v)
{
    struct mo_shape row = mo_shape_of(1, source->n_columns), rest = v->shape;
    if (rest.rank > 1) {
        rest.rank--;
        memmove(rest.dim, rest.dim + 1, sizeof rest.dim - sizeof rest.dim[0]);
        row.dim[0] = MO_MAX(row.dim[0], mo_shape_elems(&rest));
    }
    if (v->dtype != MO_F32)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "input '%s' is of type %s; sparse rows are float32", v->name,
                       mo_dtype_name(v->dtype));
    return fit_one(ctx, d, source, v, &row, 0);
}

enum mopt_status mo_fit_inputs(struct mopt_ctx *ctx, struct mopt_dataset *d, struct mo_source *source,
                               const struct mopt_model *model)
{
    const struct mo_graph *g = &model->graph;
    const struct mo_value *input[MO_MAX_INPUTS] = {0};
    uint32_t n = 0, n_given = source->kind == MO_SAMPLE_TENSOR ? source->n_inputs : 1;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mo_value *v = &g->values[g->inputs[i]];
        if (v->is_initializer)
            continue;
        if (n < MO_MAX_INPUTS)
            input[n] = v;
        n++;
    }
    if (n != n_given)
        return mo_fail(ctx, MOPT_DATA, "the model has %u inputs, %s gives %u", n, source->path, n_given);
    d->n_inputs = n;
    if (source->kind == MO_SAMPLE_IMAGE) {
        MO_TRY(image_size(ctx, d, source));
        return fit_image(ctx, d, source, input[0]);
    }
    if (source->kind == MO_SAMPLE_SPARSE)
        return fit_sparse(ctx, d, source, input[0]);
    for (uint32_t k = 0; k < n; k++)
        MO_TRY(fit_one(ctx, d, source, input[k], &source->shape[k], k));
    return MOPT_OK;
}
