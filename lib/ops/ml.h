/* ml.h - what the models of ai.onnx.ml share: lists of numbers in several forms, classes, the last function. Plain C on
 * host memory: rows are few and wide arithmetic is not what they are made of. */
#ifndef MO_OPS_ML_H
#define MO_OPS_ML_H

#include "lib/ops/host.h"

/* In the order of TreeEnsemble's numbers. */
enum mo_ml_post { MO_ML_NONE, MO_ML_SOFTMAX, MO_ML_LOGISTIC, MO_ML_SOFTMAX_ZERO, MO_ML_PROBIT };

/* Attribute post_transform, as text or number. */
MOPT_MUST_CHECK enum mopt_status mo_ml_read_post(struct mopt_ctx *ctx, const struct mo_node *n, enum mo_ml_post *post);
/* The numbers of attribute `name` (floats, ints or a tensor), or of `other` where that is not there (NULL: none), as
 * new memory; *count 0 where neither is. */
MOPT_MUST_CHECK enum mopt_status mo_ml_numbers(struct mopt_ctx *ctx, const struct mo_node *n, const char *name,
                                               const char *other, double **numbers, size_t *count);

/* Classes: numbers or texts. */
struct mo_ml_labels { const int64_t *ints; bool is_text; size_t n; };
/* classlabels_int64s (also: classlabels_ints) or classlabels_strings. */
MOPT_MUST_CHECK enum mopt_status mo_ml_read_labels(struct mopt_ctx *ctx, const struct mo_node *n,
                                                   struct mo_ml_labels *labels);
/* Outputs of a model for x, rows x features: with labels the class of each row, then rows x width numbers. */
MOPT_MUST_CHECK enum mopt_status mo_ml_set_outs(struct mopt_ctx *ctx, struct mo_graph *g, const struct mo_node *n,
                                                const struct mo_ml_labels *labels, enum mo_dtype dtype, int64_t width);
/* float32, float64, int64 or int32 of rank 1 or 2. */
MOPT_MUST_CHECK enum mopt_status mo_ml_check_input(struct mopt_ctx *ctx, const struct mo_value *x);
/* Element i of such an array. */
double mo_ml_number(enum mo_dtype dtype, const void *data, int64_t i);
/* In place. */
void mo_ml_apply(enum mo_ml_post post, int64_t n, double *score);

/* What a model gives for rows, before it is handed out. */
struct mo_ml_result {
    int64_t rows, width;
    enum mo_dtype dtype;
    struct mo_ml_labels labels;
    int64_t *texts;             /* the labels as numbers of texts, where they are texts */
    int64_t *class;             /* NULL: no classes are wanted */
    void *score;
};
MOPT_MUST_CHECK enum mopt_status mo_ml_open_result(struct mo_run *r, struct mo_ml_result *result, const struct mo_node *n,
                                                   int64_t rows, int64_t width, enum mo_dtype dtype, bool has_classes);
/* Row i: its class by place, and its scores before `post`, which is applied in place. */
void mo_ml_store(struct mo_ml_result *result, int64_t i, int64_t class, enum mo_ml_post post, double *score);
/* Scores become output `at`, classes output 0. */
void mo_ml_put_result(struct mo_ml_result *result, struct mo_host *h, uint32_t at);
void mo_ml_close_result(struct mo_ml_result *result);

#endif
