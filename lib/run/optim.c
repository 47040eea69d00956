/* optim.c - one optimizer step as a few kernel calls over the flat buffers; formulas in optim.h.
 *
 * Parameters that follow each other and are treated alike (decay, frozen) form one segment, the alignment gaps
 * between them included: those are 0 in weights and gradients, and every rule keeps a 0 with gradient 0 at 0. */
#include "lib/run/optim.h"

#include <math.h>
#include <string.h>

struct segment { size_t start, n_elems; bool decays; };

struct mo_optim {
    struct mo_run *run;
    struct mo_optim_options options;
    struct segment *segments; size_t n_segments;    /* of what is updated */
    float *first;           /* velocity, or mean of the gradient */
    float *second;          /* mean of its square */
    float *ema;             /* of all weights and state */
    float *spare;           /* swapping */
    uint8_t *group;         /* of each MO_UPDATE_GROUP elements, on a device that updates all in one launch */
    float scale;            /* of the gradients that come */
    uint64_t n_steps;
};

static bool is_adam(enum mo_optimizer kind)
{
    return kind == MO_OPT_ADAM || kind == MO_OPT_ADAMW;
}

double mo_optim_default_lr(enum mo_optimizer kind)
{
    switch (kind) {
    case MO_OPT_ADAM:
    case MO_OPT_ADAMW:
        return 3e-3;
    case MO_OPT_RMSPROP:
        return 1e-3;
    case MO_OPT_GD:
    case MO_OPT_SGD:
    case MO_OPT_MOMENTUM:
    case MO_OPT_NESTEROV:
        break;
    }
    return 0.1;
}

double mo_optim_default_decay(enum mo_optimizer kind)
{
    return kind == MO_OPT_ADAMW ? 0.05 : is_adam(kind) || kind == MO_OPT_RMSPROP ? 1e-4 : 5e-4;
}

static enum mopt_status make_segments(struct mo_optim *o)
{
    struct mo_run *run = o->run;
    o->segments = mo_mem_new((size_t)run->n_params + 1, sizeof *o->segments);
    if (!o->segments)
        return mo_no_memory(run->ctx, run->n_params * sizeof *o->segments, "the optimizer");
    struct segment *last = NULL;
    for (uint32_t i = 0; i < run->n_params; i++) {
        const struct mo_param *p = &run->params[i];
        if (p->is_state || !p->n_elems)
            continue;
        if (p->is_frozen) {
            last = NULL;
            continue;
        }
        bool decays = o->options.weight_decay > 0 && (o->options.decay_all || !p->no_decay);
        if (!last || last->decays != decays || p->offset < last->start + last->n_elems) {
            last = &o->segments[o->n_segments++];
            *last = (struct segment){.start = p->offset, .decays = decays};
        }
        last->n_elems = p->offset + p->n_elems - last->start;
    }
    return MOPT_OK;
}

/* A device buffer of zeros. */
static enum mopt_status new_buffer(struct mo_run *run, size_t n_elems, float **buffer)
{
    *buffer = run->be->alloc(run->dev, MO_MAX(n_elems, (size_t)1) * sizeof **buffer);
    if (!*buffer)
        return mo_device_full(run, n_elems * sizeof **buffer, "the optimizer's state");
    const float zero = 0;
    run->be->fill(run->dev, sizeof zero, n_elems, &zero, *buffer);
    return MOPT_OK;
}

static void copy(struct mo_run *run, size_t n, const float *from, float *to)
{
    run->be->axpy(run->dev, n, 1, from, to, false);
}

static enum mopt_status make_buffers(struct mo_optim *o)
{
    struct mo_run *run = o->run;
    enum mo_optimizer kind = o->options.kind;
    bool has_second = is_adam(kind) || kind == MO_OPT_RMSPROP;
    if (is_adam(kind) || o->options.momentum > 0)
        MO_TRY(new_buffer(run, run->n_trained, &o->first));
    if (has_second)
        MO_TRY(new_buffer(run, run->n_trained, &o->second));
    if (o->options.ema > 0) {
        MO_TRY(new_buffer(run, run->n_weights, &o->ema));
        MO_TRY(new_buffer(run, run->n_weights, &o->spare));
        copy(run, run->n_weights, run->weights, o->ema);
    }
    return MOPT_OK;
}

/* The segments once more, as what becomes of each MO_UPDATE_GROUP elements: all parameters begin at such places. */
static enum mopt_status make_groups(struct mo_optim *o)
{
    struct mo_run *run = o->run;
    size_t n = (run->n_trained + MO_UPDATE_GROUP - 1) / MO_UPDATE_GROUP;
    uint8_t *host = mo_mem_new(n + 1, 1);
    if (!host)
        return mo_no_memory(run->ctx, n, "the optimizer");
    for (size_t i = 0; i < o->n_segments; i++) {
        const struct segment *s = &o->segments[i];
        size_t first = s->start / MO_UPDATE_GROUP, end = (s->start + s->n_elems + MO_UPDATE_GROUP - 1) / MO_UPDATE_GROUP;
        memset(host + first, s->decays ? MO_UPDATE_DECAYS : MO_UPDATE_PLAIN, end - first);
    }
    o->group = run->be->alloc(run->dev, n + 1);
    if (o->group)
        run->be->upload(run->dev, o->group, host, n);
    mo_mem_free(host);
    return o->group ? MOPT_OK : mo_device_full(run, n, "the optimizer's state");
}

enum mopt_status mo_optim_new(struct mo_run *run, const struct mo_optim_options *options, struct mo_optim **optim)
{
    struct mo_optim *o = mo_mem_new(1, sizeof *o);
    if (!o)
        return mo_no_memory(run->ctx, sizeof *o, "the optimizer");
    o->run = run;
    o->options = *options;
    o->scale = 1;
    bool has_momentum = options->kind == MO_OPT_MOMENTUM || options->kind == MO_OPT_NESTEROV ||
                        options->kind == MO_OPT_RMSPROP;
    if (!has_momentum)
        o->options.momentum = 0;
    enum mopt_status status = make_segments(o);
    if (!status)
        status = make_buffers(o);
    if (!status && run->be->update)
        status = make_groups(o);
    if (status)
        mo_optim_free(o);
    else
        *optim = o;
    return status;
}

void mo_optim_free(struct mo_optim *o)
{
    if (!o)
        return;
    float *const buffers[] = {o->first, o->second, o->ema, o->spare};
    for (size_t i = 0; i < MO_COUNT(buffers); i++)
        if (buffers[i])
            o->run->be->free(o->run->dev, buffers[i]);
    if (o->group)
        o->run->be->free(o->run->dev, o->group);
    mo_mem_free(o->segments);
    mo_mem_free(o);
}

static double gradient_norm(struct mo_optim *o)
{
    struct mo_run *run = o->run;
    double total = 0;
    for (size_t i = 0; i < o->n_segments; i++) {
        double part = 0;
        run->be->sum_squares(run->dev, o->segments[i].n_elems, run->grads + o->segments[i].start, &part);
        total += part;
    }
    return sqrt(total);
}

static void update(struct mo_optim *o, const struct segment *s, float lr)
{
    const struct mo_optim_options *p = &o->options;
    struct mo_run *run = o->run;
    float *w = run->weights + s->start, *first = o->first ? o->first + s->start : NULL;
    float *second = o->second ? o->second + s->start : NULL;
    const float *g = run->grads + s->start;
    float decay = s->decays ? (float)p->weight_decay : 0;
    double t = (double)o->n_steps;
    if (is_adam(p->kind)) {
        bool is_decoupled = p->kind == MO_OPT_ADAMW;
        run->be->adam_step(run->dev, s->n_elems, lr, (float)p->beta1, (float)p->beta2, (float)p->eps,
                           is_decoupled ? 0 : decay, is_decoupled ? decay : 0, (float)(1 - pow(p->beta1, t)),
                           (float)(1 - pow(p->beta2, t)), w, g, first, second);
    } else if (p->kind == MO_OPT_RMSPROP) {
        run->be->rmsprop_step(run->dev, s->n_elems, lr, (float)p->alpha, (float)p->eps, (float)p->momentum, decay, w, g,
                              second, first);
    } else {
        run->be->sgd_step(run->dev, s->n_elems, lr, (float)p->momentum, p->kind == MO_OPT_NESTEROV, decay, w, g, first);
    }
}

static double ema_share(const struct mo_optim *o)
{
    double t = (double)o->n_steps;
    return fmin(o->options.ema, (1 + t) / (10 + t));
}

static void update_ema(struct mo_optim *o)
{
    struct mo_run *run = o->run;
    double d = ema_share(o);
    run->be->axpy(run->dev, run->n_weights, (float)d, o->ema, o->ema, false);
    run->be->axpy(run->dev, run->n_weights, (float)(1 - d), run->weights, o->ema, true);
}

/* All in one launch; false: the gradient is not finite, and nothing was changed. */
static bool update_all(struct mo_optim *o, float lr, double *norm)
{
    const struct mo_optim_options *p = &o->options;
    struct mo_run *run = o->run;
    bool is_decoupled = p->kind == MO_OPT_ADAMW;
    double t = (double)++o->n_steps, length = 0;
    const struct mo_update u = {
        .kind = is_adam(p->kind) ? MO_UPDATE_ADAM : p->kind == MO_OPT_RMSPROP ? MO_UPDATE_RMSPROP : MO_UPDATE_SGD,
        .n_trained = run->n_trained, .n_weights = run->n_weights, .group = o->group,
        .nesterov = p->kind == MO_OPT_NESTEROV, .lr = lr, .momentum = (float)p->momentum, .alpha = (float)p->alpha,
        .beta1 = (float)p->beta1, .beta2 = (float)p->beta2, .eps = (float)p->eps,
        .correction1 = (float)(1 - pow(p->beta1, t)), .correction2 = (float)(1 - pow(p->beta2, t)),
        .l2 = is_decoupled ? 0 : (float)p->weight_decay, .decoupled = is_decoupled ? (float)p->weight_decay : 0,
        .clip = (float)p->clip, .scale = o->scale, .ema = (float)ema_share(o), .skips_bad = o->scale != 1,
        .w = run->weights, .first = o->first, .second = o->second, .average = o->ema, .g = run->grads,
    };
    run->be->update(run->dev, &u, norm || u.skips_bad ? &length : NULL);
    if (norm)
        *norm = length;
    if (!u.skips_bad || isfinite(length))
        return true;
    o->n_steps--;
    return false;
}

void mo_optim_set_scale(struct mo_optim *o, float scale)
{
    o->scale = scale;
}

bool mo_optim_step(struct mo_optim *o, double lr, double *norm)
{
    if (o->group)
        return update_all(o, (float)lr, norm);
    struct mo_run *run = o->run;
    double clip = o->options.clip, length = 0;
    if (clip > 0 || norm)
        length = gradient_norm(o);
    if (norm)
        *norm = length;
    double factor = clip > 0 ? clip / (length + 1e-6) : 1;
    if (factor < 1)
        run->be->axpy(run->dev, run->n_trained, (float)factor, run->grads, run->grads, false);
    o->n_steps++;
    for (size_t i = 0; i < o->n_segments; i++)
        update(o, &o->segments[i], (float)lr);
    if (o->ema)
        update_ema(o);
    return true;
}

void mo_optim_swap_ema(struct mo_optim *o)
{
    struct mo_run *run = o->run;
    if (!o->ema)
        return;
    copy(run, run->n_weights, run->weights, o->spare);
    copy(run, run->n_weights, o->ema, run->weights);
    copy(run, run->n_weights, o->spare, o->ema);
}

uint64_t mo_optim_steps(const struct mo_optim *o)
{
    return o->n_steps;
}

void mo_optim_set_steps(struct mo_optim *o, uint64_t n_steps)
{
    o->n_steps = n_steps;
}

int mo_optim_buffers(struct mo_optim *o, const char *names[MO_OPTIM_MAX_BUFFERS], float *buffers[MO_OPTIM_MAX_BUFFERS],
                     size_t n_elems[MO_OPTIM_MAX_BUFFERS])
{
    const char *const name[MO_OPTIM_MAX_BUFFERS] = {is_adam(o->options.kind) ? "mean" : "velocity", "square", "ema"};
    float *const buffer[MO_OPTIM_MAX_BUFFERS] = {o->first, o->second, o->ema};
    int n = 0;
    for (int i = 0; i < MO_OPTIM_MAX_BUFFERS; i++)
        if (buffer[i]) {
            names[n] = name[i];
            buffers[n] = buffer[i];
            n_elems[n++] = buffer[i] == o->ema ? o->run->n_weights : o->run->n_trained;
        }
    return n;
}

/* ---- schedules ---- */

static double scheduled(const struct mo_schedule_options *s, uint64_t k, uint64_t n, uint64_t epoch, int64_t drops)
{
    const double pi = 3.14159265358979323846;
    double w = s->warmup * (double)n, x = ((double)k - w) / fmax((double)n - w, 1);
    if ((double)k < w)
        return s->lr * fmin(((double)k + 1) / w, 1);
    switch (s->kind) {
    case MO_SCHED_STEP:
        return s->lr * pow(s->gamma, (double)(epoch / (uint64_t)MO_MAX(s->step_epochs, 1)));
    case MO_SCHED_COSINE:
        return s->lr * (1 + cos(pi * x)) / 2;
    case MO_SCHED_ONE_CYCLE:
    case MO_SCHED_LINEAR:
        return s->lr * (1 - x);
    case MO_SCHED_PLATEAU:
        return s->lr * pow(s->gamma, (double)drops);
    case MO_SCHED_AUTO:
    case MO_SCHED_CONSTANT:
        break;
    }
    return s->lr;
}

double mo_schedule_lr(const struct mo_schedule_options *s, uint64_t k, uint64_t n, uint64_t epoch, int64_t drops)
{
    double lr = scheduled(s, k, n, epoch, drops);
    return k < s->ramp ? fmin(lr, s->lr * ((double)k + 1) / (double)s->ramp) : lr;
}

void mo_plateau_note(struct mo_plateau *p, const struct mo_schedule_options *s, double score)
{
    if (!p->has_best || score > p->best + 1e-4 * fabs(p->best)) {
        p->best = score;
        p->has_best = true;
        p->bad_epochs = 0;
    } else if (++p->bad_epochs > s->step_epochs) {
        p->drops++;
        p->bad_epochs = 0;
    }
}
