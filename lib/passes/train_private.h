/* train_private.h - the state of one training run, shared by train.c (the loop) and train_state.c (its checkpoints). */
#ifndef MO_TRAIN_PRIVATE_H
#define MO_TRAIN_PRIVATE_H

#include "lib/passes/checkpoint.h"
#include "lib/passes/train.h"
#include "lib/run/shards.h"

/* Metrics as a checkpoint stores them. */
struct mo_saved_metrics {
    uint64_t n, has_accuracy, has_values;
    double accuracy, low, high, top5, f1, loss, mae, rmse, r2;
};

/* Where the run stands; fields of 8 bytes only, since this is a part of checkpoints as it is. */
struct mo_train_position {
    uint64_t step, epoch, batch;        /* optimizer steps done; epoch; batches of it done */
    uint64_t run_step, optim_step;      /* dropout's stream; bias corrections */
    uint64_t n_epoch, n_correct;        /* samples of this epoch so far, and how many were right */
    uint64_t n_total;
    double seconds_epoch, seconds_total;
    struct mo_tree_sum loss;            /* of this epoch, weighted by samples */
    double loss_first, loss_last;
    uint64_t has_best, n_rows, is_done;
    double best_score, best_loss, best_epoch;   /* best_epoch 0: the weights that training started from */
    int64_t bad_epochs;                 /* since the best */
    int64_t plateau_bad, plateau_drops; uint64_t plateau_has_best; double plateau_best;
    struct mo_saved_metrics start, best, last;  /* start: when judges_start */
};

/* A row of the report's epochs. */
struct mo_epoch_row {
    double epoch, loss, lr, seconds, rate, train_accuracy;      /* train_accuracy < 0: not a classifier */
    uint64_t has_metrics;
    struct mo_saved_metrics metrics;
};

struct mo_trainer {
    struct mo_job *job;
    struct mopt_ctx *ctx;
    struct mopt_model *model;
    struct mo_train_hooks hooks;                /* phase is never NULL */
    struct mo_train_settings s;                 /* everything that was left open is settled */
    enum mo_loss loss;
    struct mo_schedule_options schedule;
    bool is_fresh;
    bool finds_rate;                            /* of a trained model, ours to choose by its loss */
    uint64_t model_hash;                        /* of the parameters as they came */
    mo_value_id output;                         /* of the model's graph: what the loss reads */
    struct mo_run *run;
    struct mo_shards *shards;                   /* NULL: batches are whole */
    struct mo_train_ranks *ranks;               /* train_ranks.c's own; NULL likewise */
    struct mo_optim *optim;
    struct mo_loader *loader;
    struct mo_loader_options loader_how;        /* of whole batches; the loader itself may give this rank's parts */
    size_t batch, accumulate;                   /* samples of a forward; batches of a step */
    uint64_t n_samples, n_batches;              /* of an epoch */
    uint64_t n_batches_last;                    /* of the last epoch, which may be a part of one */
    uint64_t n_epochs, n_steps;                 /* the last epoch counted whole */
    bool validates, keeps_best;
    bool judges_start;                          /* the weights that came in compete for best */
    struct mo_train_position at;
    struct mo_epoch_row *rows;                  /* n_epochs of them */
    float *best;                                /* host, n_weights; when keeps_best */
    float *logits, *dlogits;                    /* host copies where the device's memory cannot be read; else NULL */
    size_t n_logits;
    double last_checkpoint_s;
    /* fp16: gradients are computed of this times the loss, or small ones would be 0; else 1. Halved when they are no numbers
     * any more and the step is left out, doubled after many steps that were not. */
    float loss_scale;
    uint64_t n_scaled;
};

/* train.c: mean loss of the weights as they are over about the first n_samples of training. */
MOPT_MUST_CHECK enum mopt_status mo_trainer_start_loss(struct mo_trainer *t, uint64_t n_samples, double *mean);
/* train.c: to the end, to an early stop, or to a failure; t->at says where. */
MOPT_MUST_CHECK enum mopt_status mo_trainer_loop(struct mo_trainer *t);
/* "validation accuracy 91.20 %", or what else was judged. */
void mo_trainer_judged_text(const struct mo_saved_metrics *m, char *text, size_t n);
/* train.c: loss and its gradient of a batch with logits z; how many classes were right; room for logits. */
MOPT_MUST_CHECK enum mopt_status mo_trainer_loss(struct mo_trainer *t, struct mo_run *run, const struct mo_batch *batch,
                                                 double *loss, double scale, uint64_t *n_correct);
enum mopt_status mo_trainer_bad_loss(struct mo_trainer *t, double loss);
/* train_ranks.c: batches in parts, on this process or on several. */
uint32_t mo_trainer_count_shards(const struct mo_trainer *t);
MOPT_MUST_CHECK enum mopt_status mo_trainer_loader(struct mo_trainer *t, const struct mo_loader_options *how);
MOPT_MUST_CHECK enum mopt_status mo_trainer_part_shapes(struct mo_trainer *t, const struct mo_batch *first);
size_t mo_trainer_block_bytes(const struct mo_trainer *t);
/* Forward, loss, backward of this process's parts of a batch; the gradient of their samples' losses over n_expected. */
MOPT_MUST_CHECK enum mopt_status mo_trainer_parts(struct mo_trainer *t, const struct mo_batch *batch, uint64_t n_batch,
                                                  uint64_t n_expected, bool add, bool is_last, uint64_t *n_samples);
/* At the end of a step: the whole gradient is there. */
MOPT_MUST_CHECK enum mopt_status mo_trainer_finish_parts(struct mo_trainer *t);
void mo_trainer_begin_step(struct mo_trainer *t);
bool mo_trainer_is_stopped(const struct mo_trainer *t);
MOPT_MUST_CHECK enum mopt_status mo_trainer_agree(struct mo_trainer *t);
void mo_trainer_rescue(struct mo_trainer *t);
void mo_trainer_report_ranks(struct mo_trainer *t);
void mo_trainer_free_shards(struct mo_trainer *t);
/* train_state.c */
MOPT_MUST_CHECK enum mopt_status mo_trainer_save(struct mo_trainer *t, const char *path);
MOPT_MUST_CHECK enum mopt_status mo_trainer_load(struct mo_trainer *t, const char *path);
uint64_t mo_trainer_hash_model(const struct mopt_model *model);
/* Every setting that decides the result, a line each. In the arena; NULL: no memory. */
char *mo_trainer_settings_text(struct mo_trainer *t, struct mo_arena *arena);
struct mo_saved_metrics mo_metrics_pack(const struct mo_metrics *m);
struct mo_metrics mo_metrics_unpack(const struct mo_saved_metrics *m);

#endif
