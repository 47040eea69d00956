/* conv.c - chooses who does a convolution: oneDNN, or plain C where that is not
 * installed or not wanted. */
#include <stdlib.h>

#include "kernels/cpu/conv_onednn.h"
#include "kernels/cpu/fast.h"

/* What the fast table calls a struct mo_conv; the plain one has its own. */
struct chosen {
    struct mo_dnn_conv *dnn;
    struct mo_conv *plain;
};

static struct chosen *chosen_of(struct mo_conv *conv)
{
    return (struct chosen *)conv;
}

struct mo_conv *mo_cpu_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc)
{
    struct chosen *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    if (dev->isa > MO_ISA_C)
        c->dnn = mo_dnn_conv_new(dev, desc);
    if (!c->dnn)
        c->plain = mo_ref_conv_new(dev, desc);
    if (!c->dnn && !c->plain) {
        free(c);
        return NULL;
    }
    return (struct mo_conv *)c;
}

void mo_cpu_conv_free(struct mo_device *dev, struct mo_conv *conv)
{
    struct chosen *c = chosen_of(conv);
    if (!c)
        return;
    mo_dnn_conv_free(c->dnn);
    if (c->plain)
        mo_ref_conv_free(dev, c->plain);
    free(c);
}

size_t mo_cpu_conv_scratch_bytes(const struct mo_conv *conv, bool backward)
{
    const struct chosen *c = (const struct chosen *)conv;
    return c->dnn ? mo_dnn_conv_scratch_bytes(c->dnn, backward) : mo_ref_conv_scratch_bytes(c->plain, backward);
}

void mo_cpu_conv_pack(struct mo_device *dev, struct mo_conv *conv, const float *w)
{
    struct chosen *c = chosen_of(conv);
    if (c->dnn)
        mo_dnn_conv_pack(dev, c->dnn, w);
    else
        mo_ref_conv_pack(dev, c->plain, w);
}

void mo_cpu_conv(struct mo_device *dev, struct mo_conv *conv, const float *x, const float *w, const float *bias,
                 const float *residual, float *y, void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (c->dnn)
        mo_dnn_conv(dev, c->dnn, x, w, bias, residual, y, scratch);
    else
        mo_ref_conv(dev, c->plain, x, w, bias, residual, y, scratch);
}

void mo_cpu_conv_grad_input(struct mo_device *dev, struct mo_conv *conv, const float *w, const float *dy, float *dx,
                            void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (c->dnn)
        mo_dnn_conv_grad_input(dev, c->dnn, w, dy, dx, scratch);
    else
        mo_ref_conv_grad_input(dev, c->plain, w, dy, dx, scratch);
}

void mo_cpu_conv_grad_weight(struct mo_device *dev, struct mo_conv *conv, const float *x, const float *dy, float *dw,
                             float *dbias, void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (c->dnn)
        mo_dnn_conv_grad_weight(dev, c->dnn, x, dy, dw, dbias, scratch);
    else
        mo_ref_conv_grad_weight(dev, c->plain, x, dy, dw, dbias, scratch);
}
