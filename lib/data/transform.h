/* transform.h - what is done to a sample between the file and the model.
 *
 * A list "pad-crop=4,hflip,standardize" becomes a pipeline of steps, in two halves:
 *   image steps  work on bytes, height x width x channels, each as torchvision defines it for a PIL image:
 *                bilinear resampling with antialias, results rounded to bytes after each step
 *   value steps  (x - sub) / div per channel or feature, on float
 * For images the value steps are folded into one table of 256 floats a channel.
 *
 * One transform is one const struct, last in lib/data/transform_NAME.c, and one row in transforms.def. */
#ifndef MO_TRANSFORM_H
#define MO_TRANSFORM_H

#include "lib/data/dataset.h"

/* Rows of pixels, channels interleaved. A crop only moves the pointer. */
struct mo_image { int height, width, channels; size_t stride; const uint8_t *pixels; };

/* Buffers of one worker: `image` results go back and forth between two of them. */
struct mo_scratch { struct mo_sample_buffer image[2], rows, source, floats; int turn; };
void mo_scratch_release(struct mo_scratch *scratch);
/* Memory for a new image of that size, not where the last one is. */
uint8_t *mo_scratch_image(struct mo_scratch *scratch, int height, int width, int channels);

enum { MO_STEP_MAX_ARGS = 8 };
enum mo_value_axis { MO_AXIS_ALL, MO_AXIS_CHANNEL, MO_AXIS_FEATURE };   /* one number, per first, per last dimension */

struct mo_transform;
struct mo_step {
    const struct mo_transform *transform;
    const char *args;                   /* as written, behind '='; NULL: none */
    double arg[MO_STEP_MAX_ARGS];
    int n_args;
    int mode;                           /* a word among the arguments, the transform's own meaning */
    /* value steps */
    bool is_settled;                    /* sub and div are there */
    bool has_axis;
    enum mo_value_axis axis;
    uint32_t n; float *sub, *div;       /* n entries each; 1: for all */
};

/* What the training split looks like, per entry; before any value step. */
struct mo_stats { uint32_t n; double *mean, *deviation, *low, *high; const uint8_t *fixed; /* categorical; NULL: none */ };

enum mo_transform_flags {
    MO_TRANSFORM_RANDOM = 1,            /* augmentation: training only */
    MO_TRANSFORM_VALUES = 2,            /* a value step */
    MO_TRANSFORM_FITS = 4,              /* its numbers may come from the training split */
    MO_TRANSFORM_SPARSE = 8,            /* keeps zeros, so rows of a sparse matrix may have it */
};

struct mo_transform {
    const char *name, *grammar, *help;  /* grammar: "hflip[=P]" */
    unsigned flags;
    /* Arguments as text (NULL: none) into step->arg; says what is wrong, the caller says where. */
    enum mopt_status (*parse)(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step);
    /* Image steps. False: out of memory. */
    bool (*apply)(const struct mo_step *step, struct mo_rng *rng, struct mo_scratch *scratch, struct mo_image *image);
    /* Height, width and channels after it, 0: not known. NULL: as before. */
    void (*size)(const struct mo_step *step, struct mo_image *image);
    /* What stands in its place for evaluation, for RANDOM ones; NULL: nothing. */
    void (*eval_form)(const struct mo_step *step, char *text, size_t text_bytes);
    /* FITS: sub and div from statistics that earlier value steps were already applied to. */
    enum mopt_status (*fit)(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_stats *stats,
                            struct mo_step *step);
};
const struct mo_transform *mo_transform_at(size_t i);      /* NULL past the end */

struct mo_pipeline { struct mo_step *steps; uint32_t n_steps; };

/* Parse a list; everything into the arena. */
MOPT_MUST_CHECK enum mopt_status mo_pipeline_parse(struct mopt_ctx *ctx, struct mo_arena *arena, const char *text,
                                                   struct mo_pipeline *pipeline);
bool mo_pipeline_has(const struct mo_pipeline *pipeline, unsigned flag);
bool mo_pipeline_has_image_steps(const struct mo_pipeline *pipeline);
bool mo_pipeline_is_settled(const struct mo_pipeline *pipeline);
/* Numbers of the steps that want them. Steps that are settled stay as they are. */
MOPT_MUST_CHECK enum mopt_status mo_pipeline_fit(struct mopt_ctx *ctx, struct mo_arena *arena,
                                                 const struct mo_stats *stats, struct mo_pipeline *pipeline);
/* The list as text with the numbers in it; random steps as their evaluation form when `eval`. NULL: no memory. */
char *mo_pipeline_text(struct mo_arena *arena, const struct mo_pipeline *pipeline, bool eval);
/* Image steps in order. */
bool mo_pipeline_apply(const struct mo_pipeline *pipeline, struct mo_rng *rng, struct mo_scratch *scratch,
                       struct mo_image *image);
/* Size behind all image steps; 0 where it depends on the sample. */
void mo_pipeline_size(const struct mo_pipeline *pipeline, struct mo_image *image);
/* Value steps over one sample in place. n elements, of which `first` and `last` are the first and last dimension;
 * planar images: first = channels. */
void mo_pipeline_values(const struct mo_pipeline *pipeline, float *x, size_t n, size_t first, size_t last);

/* ---- for transforms --------------------------------------------------------------- */

/* Numbers separated by ':'. Fails unless there are min..max of them. Fractions as 1/255 where allowed. */
MOPT_MUST_CHECK enum mopt_status mo_args_numbers(struct mopt_ctx *ctx, const char *args, int min, int max,
                                                 struct mo_step *step);
/* Takes ":word" off the end of args when the word is one of "a|b": step->mode is its index + 1, else 0. */
MOPT_MUST_CHECK enum mopt_status mo_args_word(struct mopt_ctx *ctx, struct mo_arena *arena, const char **args,
                                              const char *words, struct mo_step *step);
/* No arguments at all. */
enum mopt_status mo_args_none(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step);
/* A probability, 0.5 when not said. */
enum mopt_status mo_args_chance(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step);
/* One size or HEIGHTxWIDTH into arg[0], arg[1]; n_args says which. */
enum mopt_status mo_args_size(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step);
/* A factor's range: X means max(0, 1 - X) .. 1 + X, and LOW:HIGH that. */
enum mopt_status mo_args_factor(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args, struct mo_step *step);
/* "[AXIS/]SUBS/DIVS" of a value step into sub and div. */
MOPT_MUST_CHECK enum mopt_status mo_args_values(struct mopt_ctx *ctx, struct mo_arena *arena, const char *args,
                                                struct mo_step *step);
/* n entries of sub and div. */
MOPT_MUST_CHECK enum mopt_status mo_step_room(struct mopt_ctx *ctx, struct mo_arena *arena, uint32_t n,
                                              struct mo_step *step);
double mo_draw_between(struct mo_rng *rng, double low, double high);

/* ---- image arithmetic (image.c, color.c) -------------------------------------------- */

struct mo_image mo_crop(const struct mo_image *image, int top, int left, int height, int width);   /* inside the image */
/* Bilinear with antialias: triangle filter, its support scaled with the shrinkage; as Pillow does. */
bool mo_resize(struct mo_scratch *scratch, struct mo_image *image, int height, int width);
bool mo_pad(struct mo_scratch *scratch, struct mo_image *image, int top, int left, int bottom, int right, bool reflect);
bool mo_center_crop(struct mo_scratch *scratch, struct mo_image *image, int height, int width);
/* The output pixel (x, y) is taken from (m0 x + m1 y + m2, m3 x + m4 y + m5), centres of pixels at .5; outside: 0. */
bool mo_affine(struct mo_scratch *scratch, struct mo_image *image, const double m[6], bool bilinear);
bool mo_flip(struct mo_scratch *scratch, struct mo_image *image, bool horizontal);
bool mo_channels(struct mo_scratch *scratch, struct mo_image *image, int channels);        /* grey from RGB, RGB from grey */
enum mo_color { MO_COLOR_BRIGHTNESS, MO_COLOR_CONTRAST, MO_COLOR_SATURATION };
bool mo_recolor(struct mo_scratch *scratch, struct mo_image *image, enum mo_color kind, double factor);

#endif
