/* dataset.h - samples, and the stream of batches made from them.
 *
 *   formats/  opens a mo_source: random access to raw samples, thread-safe
 *   dataset   a source, its split, its transforms and their statistics
 *   loader    worker threads that fill batches ahead of the reader
 *
 * The stream depends on (seed, epoch) alone, never on the number of workers:
 * the order is a Philox shuffle, and each sample's augmentation draws from the
 * stream named by (epoch, sample index). */
#ifndef MO_DATASET_H
#define MO_DATASET_H

#include "lib/base/option.h"
#include "lib/base/io.h"
#include "lib/graph/graph.h"

#define MO_MAX_INPUTS 8

enum mo_sample_kind {
    MO_SAMPLE_IMAGE,        /* height x width x channels bytes, any size; grey 1, RGB 3 channels */
    MO_SAMPLE_TENSOR,       /* fixed shape; dtype of the model's input or float32 */
    MO_SAMPLE_SPARSE,       /* a row of a matrix: columns and values */
};
enum mo_target_kind { MO_TARGET_NONE, MO_TARGET_CLASS, MO_TARGET_VALUES };

/* One raw sample; pointers are valid until the reader's next read with the same buffer. */
struct mo_sample {
    int height, width, channels; const uint8_t *pixels;             /* IMAGE */
    const void *data[MO_MAX_INPUTS];                                /* TENSOR, per input of the source */
    const int32_t *columns; const float *values; size_t n_values;   /* SPARSE */
    int64_t label;                                                  /* CLASS */
    const float *targets;                                           /* VALUES: n_targets of the source */
};
/* A growable buffer owned by one worker; a source may decode into it. */
struct mo_sample_buffer { void *mem; size_t bytes; };
/* At least that many bytes; NULL: no memory. What was there is lost. */
void *mo_buffer_grow(struct mo_sample_buffer *buffer, size_t bytes);

/* Filled by formats/; the struct is embedded first in the format's own. */
struct mo_source {
    const char *format;             /* "idx", "csv", ... */
    const char *path;
    enum mo_sample_kind kind;
    size_t n_samples;
    int channels;                   /* IMAGE: 1 or 3, what every sample is converted to */
    int height, width;              /* IMAGE: when all are equal, else 0 */
    uint32_t n_inputs;              /* TENSOR: usually 1 */
    struct mo_shape shape[MO_MAX_INPUTS]; enum mo_dtype dtype[MO_MAX_INPUTS];   /* TENSOR: of one sample */
    int64_t n_columns;              /* SPARSE: width of the matrix */
    enum mo_target_kind target;
    int n_classes; const char **class_names;        /* CLASS; names may be NULL */
    int n_targets;                                  /* VALUES */
    const char *schema;             /* text that gives another file of the same kind the same classes and columns; NULL: none */
    bool is_prepared;               /* tensors are what a model wants as they are: no transform by default */
    size_t held_bytes;              /* of samples in memory: read, mapped, or kept decoded once all have been read */
    bool is_cheap;                  /* read() only points into memory: no worker threads needed */
    const uint8_t *is_categorical;  /* TENSOR from csv: per feature, one-hot columns that statistics leave alone; NULL: none */
    /* Thread-safe. MOPT_DATA with words in `why` for a bad sample (a corrupt JPEG); the caller skips and counts it
     * or stops (--strict). */
    enum mopt_status (*read)(struct mo_source *, size_t index, struct mo_sample_buffer *, struct mo_sample *,
                             char *why, size_t why_bytes);
    /* Label without decoding; for stratified splits. May be NULL when target is not CLASS. */
    int64_t (*label)(struct mo_source *, size_t index);
    void (*close)(struct mo_source *);
};

enum mo_split { MO_SPLIT_TRAIN, MO_SPLIT_VALIDATION, MO_SPLIT_EVAL, MO_SPLIT_ALL_TRAIN };

/* Who numbers classes and one-hot columns: the model's metadata ("mopt.schema") where it says, or the data anew. */
enum mo_schema_from { MO_SCHEMA_MODEL, MO_SCHEMA_DATA };

/* The options of every verb that takes data; rows in mo_data_options (a group). */
struct mo_data_settings {
    const char *data, *eval_data;           /* specs */
    const char *transform, *eval_transform; /* lists; NULL: what the model's metadata says, else the default */
    struct mo_amount subset;                /* of the training samples */
    bool stratify;
    double val_split;                       /* share held out of the training part; 0.1 */
    int64_t workers;                        /* 0: as many as threads */
    bool strict;                            /* a bad sample is an error; the job's --strict, no row of its own */
    bool drop_last;
    int schema;                             /* enum mo_schema_from */
};
extern const struct mopt_option mo_data_options[];

struct mopt_dataset;
/* Opens sources through ctx->io, splits, and settles the transforms for the model's input: from settings, from the
 * model's metadata ("mopt.transform", with its statistics), or the default (images: to [0,1], then standardize;
 * tables: standardize). Statistics are computed from the training split only, one streaming pass, and kept in the
 * data set; mo_dataset_note stores them in the model. A shape that cannot fit the model's input fails naming both. */
MOPT_MUST_CHECK enum mopt_status mo_dataset_open(struct mopt_ctx *ctx, const struct mo_data_settings *settings,
                                                 const struct mopt_model *model, uint64_t seed,
                                                 struct mopt_dataset **dataset);
void mo_dataset_close(struct mopt_dataset *dataset);
/* Whether neither the user nor the model's metadata said how the input is prepared, so that the default stands. A verb
 * that judges a model should warn then. */
bool mo_dataset_is_default(const struct mopt_dataset *dataset);
/* The settled transform of a split with its numbers, "resize=32x32,standardize=0.286/0.353". */
const char *mo_dataset_transform(const struct mopt_dataset *dataset, bool train);
/* First dimension of the model's input where its file fixes it; 0: free. A batch of another size may fail to plan. */
int64_t mo_dataset_model_batch(const struct mopt_dataset *dataset);
bool mo_dataset_has_batch(const struct mopt_dataset *dataset);          /* false: the input is one sample, batch 1 */
/* Writes the settled evaluation transform with its numbers into the model's metadata. */
MOPT_MUST_CHECK enum mopt_status mo_dataset_note(struct mopt_ctx *ctx, const struct mopt_dataset *dataset,
                                                 struct mopt_model *model);
const struct mo_source *mo_dataset_source(const struct mopt_dataset *dataset, enum mo_split split);
/* EVAL: the eval-data, else the test part the data offers, else the validation split. */
size_t mo_dataset_count(const struct mopt_dataset *dataset, enum mo_split split);
bool mo_dataset_has_test(const struct mopt_dataset *dataset);
size_t mo_dataset_bytes(const struct mopt_dataset *dataset);            /* of samples that its sources hold in memory */
size_t mo_dataset_n_skipped(const struct mopt_dataset *dataset);        /* bad samples passed over so far */
bool mo_dataset_is_augmented(const struct mopt_dataset *dataset);       /* training transform draws random numbers */

/* A batch: n samples, inputs dense and contiguous (N first, images N C H W as ONNX wants) or CSR. */
struct mo_batch {
    size_t n;                               /* 0: the epoch is over */
    uint32_t n_inputs;
    void *x[MO_MAX_INPUTS]; struct mo_shape shape[MO_MAX_INPUTS]; enum mo_dtype dtype[MO_MAX_INPUTS];
    bool is_sparse; const int64_t *row_start; const int32_t *column; const float *value;    /* instead of x[0] */
    const int64_t *labels;                  /* CLASS: n */
    const float *targets;                   /* VALUES: n x n_targets */
    const uint32_t *place;                  /* of each sample in the whole batch, where none is left out */
    const uint32_t *index;                  /* of each sample in its split's source: key for cached teacher outputs */
};

struct mo_loader_options {
    enum mo_split split;
    size_t batch;
    bool shuffle, drop_last, augment;
    bool pad;                               /* a batch that is not full is filled up with copies of its last sample (sparse:
                                               empty rows): its shape says the full batch, n how many count */
    uint64_t seed;
    uint32_t limit;                         /* at most that many samples an epoch (calibration); 0: all */
    /* Of each batch of n samples only those from first_part n / n_parts to (first_part + parts) n / n_parts; a batch may
     * then be empty, and only the count of batches says where the epoch ends. n_parts 0: all of them. */
    uint32_t first_part, parts, n_parts;
    uint32_t at, by;                        /* batches at, at + by, at + 2 by ...; may be empty too. by 0: every one */
};
struct mo_loader;
MOPT_MUST_CHECK enum mopt_status mo_loader_new(struct mopt_ctx *ctx, struct mopt_dataset *dataset,
                                               const struct mo_loader_options *options, struct mo_loader **loader);
/* Start epoch e, from batch first_batch on (resume in the middle gives the same stream). */
MOPT_MUST_CHECK enum mopt_status mo_loader_start(struct mo_loader *loader, uint64_t epoch, size_t first_batch);
/* The next batch; valid until the next call. */
MOPT_MUST_CHECK enum mopt_status mo_loader_next(struct mo_loader *loader, const struct mo_batch **batch);
size_t mo_loader_n_batches(const struct mo_loader *loader);
size_t mo_loader_n_whole(const struct mo_loader *loader);                /* without regard to at and by */
size_t mo_loader_bytes(const struct mo_loader *loader);                 /* of batches and of the order of samples */
void mo_loader_free(struct mo_loader *loader);

#endif
