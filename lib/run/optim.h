/* optim.h - optimizers over the flat buffers of a training run, and the schedules of their rate.
 *
 * With w weights, g gradient, t the number of the step from 1, lr the rate of this step:
 *
 *   sgd, gd    g += l2 w;  w -= lr g                                     (gd: one step an epoch, over all of it)
 *   momentum   g += l2 w;  v = mu v + g;  w -= lr v                      (torch.optim.SGD; Sutskever et al. 2013)
 *   nesterov   g += l2 w;  v = mu v + g;  w -= lr (g + mu v)
 *   rmsprop    g += l2 w;  s = a s + (1 - a) g^2;  u = g / (sqrt(s) + eps)
 *              w -= lr u, or with momentum: v = mu v + u;  w -= lr v     (torch.optim.RMSprop; Hinton, lecture 6e)
 *   adam       g += l2 w;  m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) g^2
 *              w -= lr (m / c1) / (sqrt(s / c2) + eps);  c1 = 1 - b1^t, c2 = 1 - b2^t  (Kingma and Ba 2015)
 *   adamw      w -= lr decoupled w, then as adam with l2 = 0             (Loshchilov and Hutter 2019)
 *
 * These are what the kernels sgd_step, rmsprop_step and adam_step compute; velocity is NULL where momentum is 0,
 * correction1 and correction2 are c1 and c2. l2 and decoupled are 0 for biases and normalization unless decay_all.
 *
 * Clipping: g *= min(1, clip / (||g|| + 1e-6)), the norm over all parameters that are updated
 * (torch.nn.utils.clip_grad_norm_). EMA: e = d e + (1 - d) w over weights and state, d = min(ema, (1 + t) / (10 + t)),
 * so that early averages are not held by the start. */
#ifndef MO_OPTIM_H
#define MO_OPTIM_H

#include "lib/run/run.h"

enum mo_optimizer {
    MO_OPT_GD, MO_OPT_SGD, MO_OPT_MOMENTUM, MO_OPT_NESTEROV, MO_OPT_RMSPROP, MO_OPT_ADAM, MO_OPT_ADAMW
};

struct mo_optim_options {
    enum mo_optimizer kind;
    double momentum;            /* MOMENTUM, NESTEROV, RMSPROP (may be 0) */
    double alpha;               /* RMSPROP: share of the old mean square */
    double beta1, beta2, eps;
    double weight_decay;
    bool decay_all;
    double clip;                /* 0: none */
    double ema;                 /* 0: none */
};

/* The rate, momentum and decay that a kind is used with when the user says nothing (docs/TRAINING.md). */
double mo_optim_default_lr(enum mo_optimizer kind);
double mo_optim_default_decay(enum mo_optimizer kind);

struct mo_optim;
/* For run, whose params' is_frozen and no_decay are final. Keeps run. */
MOPT_MUST_CHECK enum mopt_status mo_optim_new(struct mo_run *run, const struct mo_optim_options *options,
                                              struct mo_optim **optim);
void mo_optim_free(struct mo_optim *optim);
/* One update of run->weights from run->grads, which clipping may scale. *norm, when asked for, is the norm of the
 * gradient before clipping; it is only computed when asked for or when clipping. false: the gradient, which had a
 * scale, is not finite, and the step was left out. */
bool mo_optim_step(struct mo_optim *optim, double lr, double *norm);
/* run->grads are too large by this factor from here on, which float16 wants (powers of two; not 1 only on a device with
 * mo_backend.update). */
void mo_optim_set_scale(struct mo_optim *optim, float scale);
/* Weights that are better to judge and to keep: exchanges run->weights with the average. Twice: as before. Without
 * EMA nothing. */
void mo_optim_swap_ema(struct mo_optim *optim);

/* State for checkpoints: the number of steps done, and the buffers on the device (n_weights elements each). */
uint64_t mo_optim_steps(const struct mo_optim *optim);
void mo_optim_set_steps(struct mo_optim *optim, uint64_t n_steps);
#define MO_OPTIM_MAX_BUFFERS 3
/* Names ("velocity", "mean", "square", "ema") and device pointers; returns how many there are. */
int mo_optim_buffers(struct mo_optim *optim, const char *names[MO_OPTIM_MAX_BUFFERS],
                     float *buffers[MO_OPTIM_MAX_BUFFERS], size_t n_elems[MO_OPTIM_MAX_BUFFERS]);

/* ---- schedules -------------------------------------------------------------------------------- */

enum mo_schedule {
    MO_SCHED_AUTO, MO_SCHED_CONSTANT, MO_SCHED_STEP, MO_SCHED_COSINE, MO_SCHED_ONE_CYCLE, MO_SCHED_PLATEAU,
    MO_SCHED_LINEAR
};

/* The rate at step k of n, k from 0; W = warmup * n, x = (k - W) / (n - W):
 *   any         k < W: lr (k + 1) / W                      (capped at lr)
 *   constant    lr
 *   step        lr gamma^floor(epoch / step_epochs)        (torch StepLR)
 *   cosine      lr (1 + cos(pi x)) / 2                     (Loshchilov and Hutter 2017; torch CosineAnnealingLR)
 *   one-cycle   lr (1 - x), with W 20 % unless said        (the triangle of Smith 2017)
 *   linear      lr (1 - x)
 *   plateau     lr gamma^drops; a drop after step_epochs epochs without gain (torch ReduceLROnPlateau) */
struct mo_schedule_options {
    enum mo_schedule kind;      /* not AUTO */
    double lr, warmup;          /* warmup: share of all steps, 0 to 1 */
    double gamma;
    int64_t step_epochs;
    uint64_t ramp;              /* whatever the kind: at most lr (k + 1) / ramp in the first steps; 0: no such limit */
};
double mo_schedule_lr(const struct mo_schedule_options *s, uint64_t k, uint64_t n, uint64_t epoch, int64_t drops);

/* Plateau's memory. */
struct mo_plateau { double best; int64_t bad_epochs, drops; bool has_best; };
/* After an epoch with a measure where more is better; a gain is more than 1e-4 of the best (torch's threshold). */
void mo_plateau_note(struct mo_plateau *p, const struct mo_schedule_options *s, double score);

#endif
