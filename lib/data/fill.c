/* fill.c - from a raw sample to its place in a batch. */
#include "lib/data/private.h"

#include <stdio.h>
#include <string.h>

struct mo_filler mo_filler_new(const struct mopt_dataset *d, enum mo_split split, bool augment)
{
    return (struct mo_filler){.dataset = d,
                              .source = mo_split_source(d, split),
                              .steps = augment ? &d->train_steps : &d->eval_steps,
                              .table = augment ? d->train_table : d->eval_table};
}

enum mopt_status mo_fill_image(const struct mo_filler *f, const struct mo_sample *sample, struct mo_rng *rng,
                               struct mo_scratch *scratch, struct mo_image *image, char *why, size_t why_bytes)
{
    const struct mopt_dataset *d = f->dataset;
    *image = (struct mo_image){.height = sample->height, .width = sample->width, .channels = sample->channels,
                               .stride = (size_t)sample->width * (size_t)sample->channels, .pixels = sample->pixels};
    if (!mo_pipeline_apply(f->steps, rng, scratch, image)) {
        snprintf(why, why_bytes, "out of memory for an image");
        return MOPT_LIMIT;
    }
    if (d->height && (image->height != d->height || image->width != d->width || image->channels != d->channels)) {
        snprintf(why, why_bytes, "image of %dx%d, %d channels; the model wants %dx%d, %d channels: add resize=%dx%d to "
                 "the transform", image->height, image->width, image->channels, d->height, d->width, d->channels,
                 d->height, d->width);
        return MOPT_FAILED;
    }
    return MOPT_OK;
}

/* Bytes to the model's order, each through its channel's table. */
static void write_floats(const struct mo_image *image, const float *table, bool interleaved, float *x)
{
    size_t c_n = (size_t)image->channels, width = (size_t)image->width, plane = width * (size_t)image->height;
    for (size_t y = 0; y < (size_t)image->height; y++) {
        const uint8_t *in = image->pixels + y * image->stride;
        if (c_n == 1)
            for (size_t i = 0; i < width; i++)
                x[y * width + i] = table[in[i]];
        else if (interleaved)
            for (size_t i = 0; i < width * c_n; i++)
                x[y * width * c_n + i] = table[256 * (i % c_n) + in[i]];
        else
            for (size_t c = 0; c < c_n; c++) {
                float *out = x + c * plane + y * width;
                const float *own = table + 256 * c;
                for (size_t i = 0; i < width; i++)
                    out[i] = own[in[i * c_n + c]];
            }
    }
}

static void write_bytes(const struct mo_image *image, bool interleaved, uint8_t *x)
{
    size_t c_n = (size_t)image->channels, width = (size_t)image->width, plane = width * (size_t)image->height;
    for (size_t y = 0; y < (size_t)image->height; y++)
        for (size_t i = 0; i < width; i++)
            for (size_t c = 0; c < c_n; c++) {
                size_t to = interleaved ? (y * width + i) * c_n + c : c * plane + y * width + i;
                x[to] = image->pixels[y * image->stride + i * c_n + c];
            }
}

static enum mopt_status fill_image(const struct mo_filler *f, const struct mo_sample *sample, struct mo_rng *rng,
                                   struct mo_scratch *scratch, void *x, char *why, size_t why_bytes)
{
    const struct mopt_dataset *d = f->dataset;
    const struct mo_input_fit *fit = &d->input[0];
    struct mo_image image;
    MO_TRY(mo_fill_image(f, sample, rng, scratch, &image, why, why_bytes));
    if (fit->dtype == MO_F32)
        write_floats(&image, f->table, d->is_interleaved, x);
    else if (fit->dtype == MO_U8)
        write_bytes(&image, d->is_interleaved, x);
    else {
        float *floats = mo_buffer_grow(&scratch->floats, fit->n_elems * sizeof *floats);
        if (!floats) {
            snprintf(why, why_bytes, "out of memory for an image");
            return MOPT_LIMIT;
        }
        write_floats(&image, f->table, d->is_interleaved, floats);
        mo_convert(MO_F32, floats, fit->dtype, x, fit->n_elems);
    }
    return MOPT_OK;
}

enum mopt_status mo_fill_dense(const struct mo_filler *f, const struct mo_sample *sample, struct mo_rng *rng,
                               struct mo_scratch *scratch, void *const *x, char *why, size_t why_bytes)
{
    const struct mopt_dataset *d = f->dataset;
    if (f->source->kind == MO_SAMPLE_IMAGE)
        return fill_image(f, sample, rng, scratch, x[0], why, why_bytes);
    for (uint32_t k = 0; k < d->n_inputs; k++) {
        const struct mo_input_fit *fit = &d->input[k];
        enum mo_dtype from = f->source->dtype[k];
        const struct mo_shape *shape = &f->source->shape[k];
        size_t first = shape->rank > 0 ? (size_t)shape->dim[0] : 1;
        size_t last = shape->rank > 0 ? (size_t)shape->dim[shape->rank - 1] : 1;
        bool has_values = k == 0 && f->steps->n_steps && mo_dtype_is_float(fit->dtype);
        if (!has_values) {
            mo_convert(from, sample->data[k], fit->dtype, x[k], fit->n_elems);
            continue;
        }
        float *floats = fit->dtype == MO_F32 ? x[k] : mo_buffer_grow(&scratch->floats, fit->n_elems * sizeof *floats);
        if (!floats) {
            snprintf(why, why_bytes, "out of memory for a sample");
            return MOPT_LIMIT;
        }
        mo_convert(from, sample->data[k], MO_F32, floats, fit->n_elems);
        mo_pipeline_values(f->steps, floats, fit->n_elems, first, last);
        if (fit->dtype != MO_F32)
            mo_convert(MO_F32, floats, fit->dtype, x[k], fit->n_elems);
    }
    return MOPT_OK;
}
