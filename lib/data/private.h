/* private.h - what dataset.c, split.c, fit.c, fill.c, stats.c and loader.c share. */
#ifndef MO_DATA_PRIVATE_H
#define MO_DATA_PRIVATE_H

#include "lib/data/convert.h"
#include "lib/data/transform.h"

struct mo_indexes { uint32_t *items; size_t n; };       /* samples of a source; heap */

/* How a sample lies in one input of the model. */
struct mo_input_fit {
    struct mo_shape sample;         /* without the batch dimension */
    enum mo_dtype dtype;            /* of the model's input */
    size_t n_elems, n_bytes;
};

struct mopt_dataset {
    struct mo_arena arena;          /* transforms and their texts */
    struct mopt_ctx *ctx;
    uint64_t seed;
    bool strict;
    int64_t workers;                /* 0: as fits */
    struct mo_source *train, *test; /* either may be NULL */
    struct mo_indexes part[4];      /* by enum mo_split */
    struct mo_pipeline train_steps, eval_steps;
    const char *train_text, *eval_text;
    bool is_default;
    float *train_table, *eval_table;    /* images: value of byte b in channel c at [256 c + b] */
    uint32_t n_inputs;
    struct mo_input_fit input[MO_MAX_INPUTS];
    bool has_batch;                 /* the model's inputs have a batch dimension in front */
    int64_t model_batch;            /* fixed size of it; 0: free */
    int height, width, channels;    /* images behind the image steps */
    bool is_interleaved;            /* the model wants H W C */
    uint8_t *is_bad[2];             /* of train and test: samples that could not be read */
    size_t n_skipped;
};

static inline struct mo_source *mo_split_source(const struct mopt_dataset *d, enum mo_split split)
{
    return split == MO_SPLIT_EVAL && d->test ? d->test : d->train;
}

/* split.c: fills part[]. */
MOPT_MUST_CHECK enum mopt_status mo_split_all(struct mopt_ctx *ctx, struct mopt_dataset *d,
                                              const struct mo_data_settings *settings);
/* fit.c: input[], has_batch, model_batch, height, width, channels; fails naming both shapes. */
MOPT_MUST_CHECK enum mopt_status mo_fit_inputs(struct mopt_ctx *ctx, struct mopt_dataset *d,
                                               struct mo_source *source, const struct mopt_model *model);
/* stats.c: of the training split, behind the image steps of evaluation, for one value axis. Memory in the arena. */
MOPT_MUST_CHECK enum mopt_status mo_measure_stats(struct mopt_ctx *ctx, struct mopt_dataset *d,
                                                  enum mo_value_axis axis, struct mo_stats *stats);

/* fill.c: one raw sample, read; its image steps. Thread-safe. MOPT_DATA with why for a bad sample, MOPT_FAILED
 * with why for one that must stop the work. */
struct mo_filler {
    const struct mopt_dataset *dataset;
    struct mo_source *source;
    const struct mo_pipeline *steps;
    const float *table;
};
struct mo_filler mo_filler_new(const struct mopt_dataset *d, enum mo_split split, bool augment);
enum mopt_status mo_fill_image(const struct mo_filler *f, const struct mo_sample *sample, struct mo_rng *rng,
                               struct mo_scratch *scratch, struct mo_image *image, char *why, size_t why_bytes);
/* Dense inputs of a sample that was read into x[k], k < n_inputs. */
enum mopt_status mo_fill_dense(const struct mo_filler *f, const struct mo_sample *sample, struct mo_rng *rng,
                               struct mo_scratch *scratch, void *const *x, char *why, size_t why_bytes);

#endif
