/* train.h - the training loop that train, distill, retraining after pruning and QAT share. */
#ifndef MO_TRAIN_H
#define MO_TRAIN_H

#include "lib/passes/pass.h"
#include "lib/run/loss.h"
#include "lib/run/optim.h"
#include "lib/run/run.h"

/* Flags of every verb that trains; rows in mo_train_options (a group). NaN, and lr 0: what suits the optimizer,
 * the schedule, and whether the model is fresh; see docs/TRAINING.md. */
struct mo_train_settings {
    double epochs;              /* a fraction is allowed */
    int64_t batch, accumulate;
    double lr;                  /* 0: the optimizer's default, for a fresh or a trained model */
    int optimizer, schedule, loss;
    /* NaN: not said; warmup is a share of all steps */
    double momentum, weight_decay, warmup, label_smoothing, clip;
    double ema, huber_delta, beta1, beta2, eps, rms_alpha;
    int64_t step_epochs; double step_gamma;
    bool decay_all;             /* weight decay on biases and normalization too */
    struct mo_list freeze;      /* GLOBs of parameters that stay as they are */
    int64_t patience;           /* early stop after so many epochs without gain; 0: never */
    int bn;                     /* enum mo_bn_mode */
    int init;                   /* 0 keep, 1 fresh */
    int keep;                   /* which weights are written at the end: 0 best, 1 last */
    int64_t shards;             /* parts of a batch that are added up over a tree; 0: auto */
    double bucket_mb; int wire; /* of gradients between ranks: MB, 0: auto; 0 fp32, 1 bf16 */
    int precision;              /* enum mo_precision */
    const char *checkpoint, *resume;
    double checkpoint_every_s;  /* seconds between checkpoints, besides one an epoch */
};
extern const struct mopt_option mo_train_options[];

/* What a user of the loop may add. Any member may be NULL. */
struct mo_train_hooks {
    void *user;
    /* Before step `step` of n_steps (optimizer steps), gradients not yet computed. */
    enum mopt_status (*before_step)(void *user, struct mo_run *run, uint64_t step, uint64_t n_steps);
    /* After the update: hold masks, project. */
    enum mopt_status (*after_step)(void *user, struct mo_run *run, uint64_t step, uint64_t n_steps);
    /* Instead of the loss: read the logits (rows x classes, host), write their gradient and the mean loss. */
    enum mopt_status (*loss)(void *user, struct mo_run *run, const struct mo_batch *batch, const float *logits,
                             size_t rows, size_t classes, float *dlogits, double *loss);
    /* State that a resumed run needs to go on to the same bits (masks); as bytes in the checkpoint. */
    enum mopt_status (*save)(void *user, struct mo_arena *arena, void **bytes, size_t *n_bytes);
    enum mopt_status (*load)(void *user, const void *bytes, size_t n_bytes);
    const char *phase;          /* progress: "train", "retrain", "distill" */
    size_t held_bytes;          /* that the caller holds for the training: a teacher, its answers, masks */
    uint64_t round;             /* of a pass that trains several times: which one this is, from 0; the checkpoint's own
                                 * round is resumed, those before it are computed again without writing over it */
    bool selects;               /* --only and --skip choose which parameters are trained */
    bool doubts;                /* the start is kept unless an epoch is surely better: by more than chance makes of
                                 * its accuracy, by less where the loss is better too */
    bool trained;               /* the weights are worth keeping whatever the metadata says: rates of fine-tuning */
};

struct mo_train_result {
    uint64_t n_steps; double epochs_done, seconds, samples_per_second;
    double loss_first, loss_last;
    /* has_start: the weights that came in were judged too; kept_start: no epoch was better, so they are what is kept */
    bool has_start, kept_start;
    struct mo_metrics start, best, last; double best_epoch;
};

/* Trains job->model in place on job->dataset. Writes per-epoch rows into job->report ("epochs"). */
MOPT_MUST_CHECK enum mopt_status mo_train(struct mo_job *job, struct mopt_model *model,
                                          const struct mo_train_settings *settings, const struct mo_train_hooks *hooks,
                                          struct mo_train_result *result);

/* Every parameter made anew (init.c), in the user's graph. */
MOPT_MUST_CHECK enum mopt_status mo_init_params(struct mopt_ctx *ctx, struct mopt_model *model, uint64_t seed);
/* Shapes and inputs of a run from a batch, dense or sparse. */
MOPT_MUST_CHECK enum mopt_status mo_train_feed(struct mo_run *run, const struct mo_batch *batch);

/* Running statistics of BatchNormalization estimated anew from n_batches of the training split. */
MOPT_MUST_CHECK enum mopt_status mo_reestimate_bn(struct mo_job *job, struct mopt_model *model, size_t batch,
                                                  size_t n_batches);

#endif
