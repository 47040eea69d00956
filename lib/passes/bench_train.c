/* bench_train.c - what a training step takes, without data to load: forward, loss, backward, and an update by SGD with
 * Nesterov momentum and weight decay, as train does them.
 *
 * Labels are drawn, and the loss is cross-entropy for rows of two or more, else the mean square error. The rate is so
 * small that thousands of steps on one batch change nothing that would change the time. */
#include <math.h>

#include "lib/passes/bench_train.h"
#include "lib/run/loss.h"
#include "lib/run/optim.h"

struct mo_bench_train {
    struct mo_run *run;
    struct mo_optim *optim;
    size_t rows, width;
    int64_t *labels;
    float *z, *dz;          /* host copies where the device is not the host */
    float loss_scale;       /* float16: gradients are computed of so many times the loss, as train does */
};

static const double rate = 1e-6;

static enum mopt_status make_labels(struct mo_bench_train *b, uint64_t seed)
{
    struct mopt_ctx *ctx = b->run->ctx;
    const struct mo_value *out = mo_run_output(b->run, 0);
    int64_t rows = out->shape.rank > 0 ? out->shape.dim[0] : 1, n = mo_value_elems(out);
    if (out->dtype != MO_F32 || rows <= 0 || n <= 0 || n % rows)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "output '%s' is not a row of float32 for each sample, which training needs",
                       out->name);
    b->rows = (size_t)rows;
    b->width = (size_t)(n / rows);
    b->labels = mo_mem_new(b->rows, sizeof *b->labels);
    if (!b->labels)
        return mo_no_memory(ctx, b->rows * sizeof *b->labels, "labels");
    struct mo_rng rng = mo_rng_new(seed, MO_RNG_INPUT, 1000);
    for (size_t i = 0; i < b->rows; i++)
        b->labels[i] = (int64_t)mo_rng_below(&rng, b->width > 1 ? (uint32_t)b->width : 2);
    if (b->run->be->is_host)
        return MOPT_OK;
    b->z = mo_mem_new((size_t)n, sizeof *b->z);
    b->dz = mo_mem_new((size_t)n, sizeof *b->dz);
    return b->z && b->dz ? MOPT_OK : mo_no_memory(ctx, 2 * (size_t)n * sizeof *b->z, "logits");
}

enum mopt_status mo_bench_train_new(struct mo_run *run, uint64_t seed, struct mo_bench_train **step)
{
    struct mo_bench_train *b = *step = mo_mem_new(1, sizeof *b);
    if (!b)
        return mo_no_memory(run->ctx, sizeof *b, "a training step");
    b->run = run;
    run->is_training = true;
    const struct mo_optim_options o = { .kind = MO_OPT_NESTEROV, .momentum = 0.9,
                                        .weight_decay = mo_optim_default_decay(MO_OPT_NESTEROV) };
    MO_TRY(make_labels(b, seed));
    MO_TRY(mo_optim_new(run, &o, &b->optim));
    b->loss_scale = run->options.half == MO_F16 ? 0x1p10f : 1;
    mo_optim_set_scale(b->optim, b->loss_scale);
    return MOPT_OK;
}

void mo_bench_train_free(struct mo_bench_train *b)
{
    if (!b)
        return;
    mo_optim_free(b->optim);
    mo_mem_free(b->labels);
    mo_mem_free(b->z);
    mo_mem_free(b->dz);
    mo_mem_free(b);
}

enum mopt_status mo_bench_train_step(struct mo_bench_train *b)
{
    struct mo_run *run = b->run;
    size_t n = b->rows * b->width;
    MO_TRY(mo_run_forward(run));
    const float *z = mo_run_output_data(run, 0);
    float *dz = mo_run_output_grad(run, 0);
    if (!run->be->is_host) {
        MO_TRY(mo_run_get_output(run, 0, b->z, n * sizeof *b->z));
        z = b->z;
        dz = b->dz;
    }
    const struct mo_loss_in in = { .kind = b->width > 1 ? MO_LOSS_CROSS_ENTROPY : MO_LOSS_MSE, .rows = b->rows,
                                   .width = b->width, .z = z, .labels = b->labels };
    double loss;
    MO_TRY(mo_loss(run->ctx, &in, dz, &loss));
    if (!isfinite(loss))
        return mo_fail(run->ctx, MOPT_FAILED, "the loss on drawn samples is not finite, so that the time of a step would "
                       "say little");
    for (size_t i = 0; b->loss_scale != 1 && i < n; i++)
        dz[i] *= b->loss_scale;
    if (!run->be->is_host)
        run->be->upload(run->dev, mo_run_output_grad(run, 0), dz, n * sizeof *dz);
    MO_TRY(mo_run_backward(run, false));
    mo_optim_step(b->optim, rate, NULL);
    char why[192];
    return run->be->sync(run->dev, why, sizeof why) ? mo_fail(run->ctx, MOPT_FAILED, "device: %s", why) : MOPT_OK;
}
