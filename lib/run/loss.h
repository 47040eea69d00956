/* loss.h - losses on host memory: the mean, and the gradient of that mean.
 *
 * With z the logits or predictions and t the targets, as PyTorch defines them (reduction "mean"):
 *   CROSS_ENTROPY  mean over rows of -sum_k t_k log softmax(z)_k; t is one-hot of the label or the soft label,
 *                  smoothed to (1 - s) t + s / width
 *   BCE            mean over elements of max(z, 0) - z t + log(1 + exp(-|z|)); t smoothed to (1 - s) t + s / 2
 *   MSE            mean over elements of (z - t)^2
 *   L1             mean over elements of |z - t|; gradient 0 at 0
 *   HUBER          mean over elements of d^2/2 where |d| <= delta, else delta (|d| - delta/2); d = z - t
 *   KL             mean over rows of sum_k t_k (log t_k - log softmax(z)_k); t are probabilities, 0 log 0 = 0
 * Labels with a loss that wants values are one-hot for width > 1, and the value itself for width 1.
 *
 * All sums run over trees that depend on rows and width alone. exp and log are this file's own, so that the
 * bits do not depend on the C library either. */
#ifndef MO_LOSS_H
#define MO_LOSS_H

#include "lib/base/base.h"

enum mo_loss { MO_LOSS_AUTO, MO_LOSS_CROSS_ENTROPY, MO_LOSS_BCE, MO_LOSS_MSE, MO_LOSS_L1, MO_LOSS_HUBER, MO_LOSS_KL };

struct mo_loss_in {
    enum mo_loss kind;
    size_t rows, width;             /* width: classes or targets */
    const float *z;                 /* logits or predictions, rows x width */
    const int64_t *labels;          /* one per row, or NULL: */
    const float *targets;           /* soft labels, values; rows x width */
    double smoothing, delta;
};
/* dz and loss may be NULL. Labels out of range fail with MOPT_DATA naming the row. NaN goes through to the loss. */
MOPT_MUST_CHECK enum mopt_status mo_loss(struct mopt_ctx *ctx, const struct mo_loss_in *in, float *dz, double *loss);

/* ---- the pieces, for other losses (distillation) ---- */

/* p = softmax(z / t) of one row; returns log of the sum of exp((z - max) / t), so that
 * log p_k = (z_k - max) / t - that. *max gets the row's largest z. */
float mo_softmax_row(size_t width, const float *z, float t, float *p, float *max);

/* A sum over a fixed binary tree of its terms in order of arrival: error grows with log n. */
struct mo_tree_sum { double level[64]; uint64_t n; };
void mo_tree_add(struct mo_tree_sum *sum, double x);
double mo_tree_total(const struct mo_tree_sum *sum);

#endif
