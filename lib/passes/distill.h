/* distill.h - losses of a student beside its teacher. */
#ifndef MO_DISTILL_H
#define MO_DISTILL_H

#include "lib/run/loss.h"

enum mo_distill_method { MO_DISTILL_KD, MO_DISTILL_DKD, MO_DISTILL_MSE };

/* a = alpha, T = temperature, p = softmax(z / T); L the loss against labels or targets, weight (1 - a):
 *   kd   (1 - a) L + a T^2 mean over rows of KL(p_teacher || p_student)             (Hinton et al. 2015)
 *   dkd  (1 - a) L + a T^2 mean over rows of TCKD + beta NCKD                       (Zhao et al. 2022): TCKD is the KL
 *        of (p_y, 1 - p_y), NCKD the KL of p over the other classes; y is the label
 *   mse  (1 - a) L + a mean over elements of (z_student - z_teacher)^2
 * Adds to what L left: dz is scaled by (1 - a) and the teacher's part added, and *loss likewise. */
struct mo_distill_in {
    enum mo_distill_method method;
    size_t rows, width;
    const float *student, *teacher;     /* logits */
    const int64_t *labels;              /* DKD: needed */
    double temperature, alpha, beta;
};
MOPT_MUST_CHECK enum mopt_status mo_distill_loss(struct mopt_ctx *ctx, const struct mo_distill_in *in, float *dz,
                                                 double *loss);

#endif
