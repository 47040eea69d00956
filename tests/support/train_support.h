/* train_support.h - training runs on small generated data, through the public interface, with files in memory. */
#ifndef TRAIN_SUPPORT_H
#define TRAIN_SUPPORT_H

#include "lib/graph/graph.h"
#include "lib/data/dataset.h"

enum { N_SAMPLES = 80, N_FEATURES = 6, N_CLASSES = 3, N_HIDDEN = 10 };

/* Three clusters; value: a weighted sum of the features. */
struct trial_data {
    float x[N_SAMPLES][N_FEATURES], value[N_SAMPLES];
    int64_t label[N_SAMPLES];
    enum mo_target_kind target;
    int n_classes;
};
extern struct trial_data trial_data;
void make_trial_data(void);

/* The one file: a checkpoint. */
struct trial_disk { char *bytes; size_t n; int n_writes; };
extern struct trial_disk trial_disk;
void reset_trial_disk(void);
enum mopt_status read_trial_file(struct mopt_ctx *ctx, const char *path, char **bytes, size_t *n);

/* Gemm, BatchNormalization, Relu, Gemm, and Softmax where there are several outputs. Constants of rank 2 are random. */
struct mopt_model *make_trial_model(struct mopt_ctx *ctx, int n_out, bool has_norm);

struct trial {
    const char *pass;               /* NULL: train */
    int threads;
    const char *options[24];        /* key, value, ... */
    int stop_after;                 /* progress events of the pass; 0: never */
    int n_out;                      /* 0: N_CLASSES */
    bool no_norm, trains_nothing;
    const struct trial *teacher;    /* its weights; same model */
    const struct trial *start;      /* training goes on from its weights; same model */
    /* results */
    enum mopt_status status;
    char error[512];
    float weights[512];
    size_t n_weights;
    double loss_first, loss_last, accuracy, rmse, lr;
    double loss_kept, loss_of_file; /* validation as training saw it, and of the result (option evaluate) */
    double start_accuracy;          /* NaN: the start was not judged */
    char kept[8], smoothing[16];    /* of the labels, by the model's metadata */
    int n_events, n_warnings;
    struct mopt_ctx *ctx;
};
void run_trial(struct trial *t);
/* The elements of all constants, in order. */
void keep_weights(struct trial *t, const struct mopt_model *m);
void expect_ok(struct trial *t);
void expect_same(const struct trial *a, const struct trial *b, const char *what, int which);
/* Stopped after each step in turn and resumed: the weights of the run that was never stopped. */
void check_resume(const char *pass, const struct trial *teacher, const char *const *options);

#endif
