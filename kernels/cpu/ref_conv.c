/* Plain C convolution and its gradients, channels-last, rank 1 to 3, groups,
 * dilation, asymmetric pads. The sums run in double: this is what the fast
 * ones are compared with. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/act.h"
#include "kernels/cpu/cpu.h"

struct mo_conv {
    struct mo_conv_desc d;
};

struct mo_conv *mo_ref_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc)
{
    (void)dev;
    struct mo_conv *conv = malloc(sizeof *conv);
    if (conv)
        conv->d = *desc;
    return conv;
}

void mo_ref_conv_free(struct mo_device *dev, struct mo_conv *conv)
{
    (void)dev;
    free(conv);
}

const struct mo_conv_desc *mo_ref_conv_desc(const struct mo_conv *conv)
{
    return &conv->d;
}

size_t mo_ref_conv_scratch_bytes(const struct mo_conv *conv, bool backward)
{
    (void)conv, (void)backward;
    return 0;
}

void mo_ref_conv_pack(struct mo_device *dev, struct mo_conv *conv, const float *w)
{
    (void)dev, (void)conv, (void)w;
}

/* One output position, kernel tap and group at a time: x pixel, y pixel, weights of the tap. */
struct tap {
    int64_t n, g, x_at, y_at, w_tap;    /* elements; w_tap: index of the tap among the kernel's */
};
typedef void tap_fn(const struct mo_conv_desc *d, const struct tap *t, void *arg);

static bool tap_input(const struct mo_conv_desc *d, const int64_t o[3], const int64_t k[3], int64_t *pixel)
{
    int64_t at = 0;
    for (int i = 0; i < 3; i++) {
        int64_t p = o[i] * d->stride[i] - d->pad_begin[i] + k[i] * d->dilation[i];
        if (p < 0 || p >= d->in[i])
            return false;
        at = at * d->in[i] + p;
    }
    *pixel = at;
    return true;
}

static int64_t product3(const int64_t v[3])
{
    return v[0] * v[1] * v[2];
}

static void split3(int64_t flat, const int64_t dims[3], int64_t at[3])
{
    at[2] = flat % dims[2];
    at[1] = flat / dims[2] % dims[1];
    at[0] = flat / dims[2] / dims[1];
}

static void each_tap(const struct mo_conv_desc *d, tap_fn *fn, void *arg)
{
    int64_t n_out = product3(d->out), n_in = product3(d->in), n_taps = product3(d->kernel);
    for (int64_t n = 0; n < d->batch; n++)
        for (int64_t o = 0; o < n_out; o++)
            for (int64_t k = 0; k < n_taps; k++) {
                int64_t out_at[3], tap_at[3], pixel;
                split3(o, d->out, out_at);
                split3(k, d->kernel, tap_at);
                if (!tap_input(d, out_at, tap_at, &pixel))
                    continue;
                for (int64_t g = 0; g < d->groups; g++) {
                    struct tap t = { n, g, (n * n_in + pixel) * d->in_channels + g * (d->in_channels / d->groups),
                                     (n * n_out + o) * d->out_channels + g * (d->out_channels / d->groups), k };
                    fn(d, &t, arg);
                }
            }
}

void mo_ref_conv(struct mo_device *dev, struct mo_conv *conv, const float *x, const float *w, const float *bias,
                 const float *residual, float *y, void *scratch)
{
    (void)dev, (void)scratch;
    const struct mo_conv_desc *d = &conv->d;
    int64_t n_out = product3(d->out), n_in = product3(d->in), n_taps = product3(d->kernel);
    int64_t ic = d->in_channels / d->groups, oc = d->out_channels / d->groups;
    for (int64_t at = 0; at < d->batch * n_out * d->out_channels; at++) {
        int64_t o = at % d->out_channels, pixel_out = at / d->out_channels % n_out;
        int64_t n = at / d->out_channels / n_out, out_at[3], tap_at[3], pixel;
        double sum = 0;
        split3(pixel_out, d->out, out_at);
        for (int64_t k = 0; k < n_taps; k++) {
            split3(k, d->kernel, tap_at);
            if (!tap_input(d, out_at, tap_at, &pixel))
                continue;
            const float *xp = x + (n * n_in + pixel) * d->in_channels + o / oc * ic;
            for (int64_t c = 0; c < ic; c++)
                sum += (double)xp[c] * w[(o * ic + c) * n_taps + k];
        }
        float v = (float)sum + (bias ? bias[o] : 0) + (residual ? residual[at] : 0);
        y[at] = mo_act(d->act, d->act_lo, d->act_hi, v);
    }
}

struct grad_input {
    const float *w, *dy;
    float *dx;
};

static void add_grad_input(const struct mo_conv_desc *d, const struct tap *t, void *arg)
{
    struct grad_input *s = arg;
    int64_t ic = d->in_channels / d->groups, oc = d->out_channels / d->groups, n_taps = product3(d->kernel);
    for (int64_t c = 0; c < ic; c++) {
        double sum = 0;
        for (int64_t o = 0; o < oc; o++)
            sum += (double)s->dy[t->y_at + o] * s->w[((t->g * oc + o) * ic + c) * n_taps + t->w_tap];
        s->dx[t->x_at + c] += (float)sum;
    }
}

void mo_ref_conv_grad_input(struct mo_device *dev, struct mo_conv *conv, const float *w, const float *dy, float *dx,
                            void *scratch)
{
    (void)dev, (void)scratch;
    const struct mo_conv_desc *d = &conv->d;
    memset(dx, 0, (size_t)(d->batch * product3(d->in) * d->in_channels) * sizeof *dx);
    each_tap(d, add_grad_input, &(struct grad_input){ w, dy, dx });
}

void mo_ref_conv_grad_weight(struct mo_device *dev, struct mo_conv *conv, const float *x, const float *dy, float *dw,
                             float *dbias, void *scratch)
{
    (void)dev, (void)scratch;
    const struct mo_conv_desc *d = &conv->d;
    int64_t n_out = product3(d->out), n_in = product3(d->in), n_taps = product3(d->kernel);
    int64_t ic = d->in_channels / d->groups, oc = d->out_channels / d->groups;
    for (int64_t at = 0; at < d->out_channels * ic * n_taps; at++) {
        int64_t k = at % n_taps, c = at / n_taps % ic, o = at / n_taps / ic, tap_at[3], out_at[3], pixel;
        double sum = 0;
        split3(k, d->kernel, tap_at);
        for (int64_t p = 0; p < d->batch * n_out; p++) {
            split3(p % n_out, d->out, out_at);
            if (tap_input(d, out_at, tap_at, &pixel))
                sum += (double)dy[p * d->out_channels + o] *
                       x[(p / n_out * n_in + pixel) * d->in_channels + o / oc * ic + c];
        }
        dw[at] = (float)sum;
    }
    for (int64_t o = 0; dbias && o < d->out_channels; o++) {
        double sum = 0;
        for (int64_t p = 0; p < d->batch * n_out; p++)
            sum += dy[p * d->out_channels + o];
        dbias[o] = (float)sum;
    }
}
