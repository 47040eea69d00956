/* distill.h - training beside a teacher: its losses, and the loop with them. */
#ifndef MO_DISTILL_H
#define MO_DISTILL_H

#include "lib/passes/train.h"

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

enum { MO_DISTILL_TEMPERATURE = 4 };
struct mo_distill_how {
    enum mo_distill_method method;
    double temperature, alpha, beta;
    bool same_input;            /* the teacher reads what the student reads, whatever its metadata says of preparation */
};
/* mo_train on job->model beside job->teacher. The hooks' own loss, save and load are not used. */
MOPT_MUST_CHECK enum mopt_status mo_distill(struct mo_job *job, const struct mo_distill_how *how,
                                            const struct mo_train_settings *settings,
                                            const struct mo_train_hooks *hooks, struct mo_train_result *result);

#endif
