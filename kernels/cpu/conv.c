/* conv.c - chooses who does a convolution: our tiles for products with constant weights,
 * our loops for few input channels, Winograd's algorithm, oneDNN, or plain C where that is
 * not installed or not wanted. Images of bfloat16 that nobody takes as they are go through float32 copies in the scratch
 * memory. */
#include <stdlib.h>

#include "kernels/cpu/conv_few.h"
#include "kernels/cpu/conv_onednn.h"
#include "kernels/cpu/conv_tile.h"
#include "kernels/cpu/conv_wino.h"
#include "kernels/cpu/fast.h"

/* What the fast table calls a struct mo_conv; the plain one has its own. */
struct chosen {
    struct mo_tile_conv *tile;
    struct mo_few_conv *few;
    struct mo_wino_conv *wino, *wino_grad;      /* forward, and the input gradient */
    struct mo_dnn_conv *dnn;
    struct mo_conv *plain;
    bool is_wide;                   /* images are bfloat16 and go through copies */
    size_t n_x, n_y, n_w;           /* elements */
};

static struct chosen *chosen_of(struct mo_conv *conv)
{
    return (struct chosen *)conv;
}

static size_t product3(const int64_t v[3])
{
    return (size_t)(v[0] * v[1] * v[2]);
}

static void set_sizes(struct chosen *c, const struct mo_conv_desc *d)
{
    c->n_x = (size_t)(d->batch * d->in_channels) * product3(d->in);
    c->n_y = (size_t)(d->batch * d->out_channels) * product3(d->out);
    c->n_w = (size_t)(d->out_channels * (d->in_channels / d->groups)) * product3(d->kernel);
}

struct mo_conv *mo_cpu_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc)
{
    struct chosen *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    struct mo_conv_desc wide = *desc;
    wide.is_bf16 = wide.constant_weights = false;      /* these are rounded in every call */
    set_sizes(c, desc);
    /* What takes no scratch gets no substitute that does: the caller has asked packs_products. */
    bool is_tile = mo_tile_conv_takes(dev, desc);
    c->tile = is_tile ? mo_tile_conv_new(dev, desc) : NULL;
    c->few = mo_few_conv_new(dev, desc);
    c->wino = is_tile || c->few ? NULL : mo_wino_conv_new(dev, desc, false);
    c->wino_grad = desc->needs_grad_input ? mo_wino_conv_new(dev, desc, true) : NULL;
    bool is_done = is_tile || ((c->few || c->wino) && !desc->needs_grad_weight && (c->wino_grad || !desc->needs_grad_input));
    if (!is_done && dev->isa > MO_ISA_C)
        c->dnn = mo_dnn_conv_new(dev, desc);
    c->is_wide = desc->is_bf16 && !c->dnn;      /* else `wide` counts for nothing */
    if (c->is_wide && dev->isa > MO_ISA_C)
        c->dnn = mo_dnn_conv_new(dev, &wide);
    if (!is_done && !c->dnn)
        c->plain = mo_ref_conv_new(dev, c->is_wide ? &wide : desc);
    if (is_done ? c->tile || c->few || c->wino : c->dnn || c->plain)
        return (struct mo_conv *)c;
    mo_cpu_conv_free(dev, (struct mo_conv *)c);
    return NULL;
}

void mo_cpu_conv_free(struct mo_device *dev, struct mo_conv *conv)
{
    struct chosen *c = chosen_of(conv);
    if (!c)
        return;
    mo_tile_conv_free(c->tile);
    mo_few_conv_free(c->few);
    mo_wino_conv_free(c->wino);
    mo_wino_conv_free(c->wino_grad);
    mo_dnn_conv_free(c->dnn);
    if (c->plain)
        mo_ref_conv_free(dev, c->plain);
    free(c);
}

static size_t part(size_t n)
{
    return (n + 15) / 16 * 16;
}

/* Floats of the copies: x, y, the residual, w and its halves. */
static size_t wide_floats(const struct chosen *c)
{
    return c->is_wide ? part(c->n_x) + 2 * part(c->n_y) + 2 * part(c->n_w) : 0;
}

size_t mo_cpu_conv_scratch_bytes(const struct mo_conv *conv, bool backward)
{
    const struct chosen *c = (const struct chosen *)conv;
    if (c->tile)
        return 0;
    const struct mo_wino_conv *wino = backward ? c->wino_grad : c->wino;
    size_t copies = wide_floats(c) * sizeof(float), own = wino ? mo_wino_conv_scratch_bytes(wino) : 0, others = 0;
    if (!backward && c->few)
        own = mo_few_conv_scratch_bytes(c->few);
    if (c->dnn)
        others = mo_dnn_conv_scratch_bytes(c->dnn, backward);
    else if (c->plain)
        others = mo_ref_conv_scratch_bytes(c->plain, backward);
    return copies + (own > others ? own : others);
}

bool mo_cpu_packs_products(const struct mo_device *dev)
{
    return dev->isa > MO_ISA_C;
}

void mo_cpu_conv_pack(struct mo_device *dev, struct mo_conv *conv, const float *w)
{
    struct chosen *c = chosen_of(conv);
    if (c->tile)
        mo_tile_conv_pack(c->tile, w);
    else if (c->few)
        mo_few_conv_pack(c->few, w);
    else if (c->wino)
        mo_wino_conv_pack(dev, c->wino, w);
    else if (c->dnn)
        mo_dnn_conv_pack(dev, c->dnn, w);
    else
        mo_ref_conv_pack(dev, c->plain, w);
}

void mo_cpu_conv(struct mo_device *dev, struct mo_conv *conv, const float *x, const float *w, const float *bias,
                 const float *residual, float *y, void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (c->tile)
        mo_tile_conv(dev, c->tile, x, bias, residual, y);
    else if (c->few)
        mo_few_conv(dev, c->few, x, w, bias, y, scratch);
    else if (c->wino)
        mo_wino_conv(dev, c->wino, x, w, bias, residual, y, scratch);
    else if (c->dnn)
        mo_dnn_conv(dev, c->dnn, x, w, bias, residual, y, scratch);
    else
        mo_ref_conv(dev, c->plain, x, w, bias, residual, y, scratch);
}

void mo_cpu_conv_grad_input(struct mo_device *dev, struct mo_conv *conv, const float *w, const float *dy, float *dx,
                            void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (c->wino_grad)
        mo_wino_conv(dev, c->wino_grad, dy, w, NULL, NULL, dx, scratch);
    else if (c->dnn)
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

/* ---- bfloat16 ---- */

enum { F32 = 1, BF16 = 16 };        /* ONNX's numbers */

struct copies {
    float *x, *y, *residual, *w, *halves;
    void *rest;                     /* scratch of the float32 convolution */
};

static struct copies copies_in(const struct chosen *c, void *scratch)
{
    float *at = scratch;
    return (struct copies){ at, at + part(c->n_x), at + part(c->n_x) + part(c->n_y),
                            at + part(c->n_x) + 2 * part(c->n_y), at + part(c->n_x) + 2 * part(c->n_y) + part(c->n_w),
                            at + wide_floats(c) };
}

/* w as bfloat16 holds it. */
static void round_weights(struct mo_device *dev, const float *w, size_t n, const struct copies *to)
{
    mo_ref_cast(dev, F32, BF16, n, w, to->halves);
    mo_ref_cast(dev, BF16, F32, n, to->halves, to->w);
}

void mo_cpu_conv_bf16(struct mo_device *dev, struct mo_conv *conv, const uint16_t *x, const float *w, const float *bias,
                      const uint16_t *residual, uint16_t *y, void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (!c->is_wide) {
        mo_dnn_conv(dev, c->dnn, x, w, bias, residual, y, scratch);
        return;
    }
    struct copies to = copies_in(c, scratch);
    mo_ref_cast(dev, BF16, F32, c->n_x, x, to.x);
    if (residual)
        mo_ref_cast(dev, BF16, F32, c->n_y, residual, to.residual);
    round_weights(dev, w, c->n_w, &to);
    mo_cpu_conv(dev, conv, to.x, to.w, bias, residual ? to.residual : NULL, to.y, to.rest);
    mo_ref_cast(dev, F32, BF16, c->n_y, to.y, y);
}

void mo_cpu_conv_grad_input_bf16(struct mo_device *dev, struct mo_conv *conv, const float *w, const uint16_t *dy,
                                 uint16_t *dx, void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (!c->is_wide) {
        mo_dnn_conv_grad_input(dev, c->dnn, w, dy, dx, scratch);
        return;
    }
    struct copies to = copies_in(c, scratch);
    mo_ref_cast(dev, BF16, F32, c->n_y, dy, to.y);
    round_weights(dev, w, c->n_w, &to);
    mo_cpu_conv_grad_input(dev, conv, to.w, to.y, to.x, to.rest);
    mo_ref_cast(dev, F32, BF16, c->n_x, to.x, dx);
}

void mo_cpu_conv_grad_weight_bf16(struct mo_device *dev, struct mo_conv *conv, const uint16_t *x, const uint16_t *dy,
                                  float *dw, float *dbias, void *scratch)
{
    struct chosen *c = chosen_of(conv);
    if (!c->is_wide) {
        mo_dnn_conv_grad_weight(dev, c->dnn, x, dy, dw, dbias, scratch);
        return;
    }
    struct copies to = copies_in(c, scratch);
    mo_ref_cast(dev, BF16, F32, c->n_x, x, to.x);
    mo_ref_cast(dev, BF16, F32, c->n_y, dy, to.y);
    mo_cpu_conv_grad_weight(dev, conv, to.x, to.y, dw, dbias, to.rest);
}
