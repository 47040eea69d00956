/* packed.c - a product with constant weights is a convolution with a kernel of 1 over m pixels of k channels, and prepared
 * convolutions hold their weights packed. */
#include "lib/ops/packed.h"

#include "lib/ops/ops.h"

/* Packed weights are a second copy: above 256 MB the first has to do. */
static const int64_t most_elems = (int64_t)64 << 20;

/* k x n to n x k, for conv_pack; the caller frees. */
static float *turned(const float *b, int64_t k, int64_t n)
{
    float *t = mo_mem_new((size_t)(n * k), sizeof *t);
    for (int64_t i = 0; t && i < k; i++)
        for (int64_t j = 0; j < n; j++)
            t[j * k + i] = b[i * n + j];
    return t;
}

enum mopt_status mo_packed_new(struct mo_run *r, const struct mo_node *n, const struct mo_packed_desc *d,
                               struct mo_conv **conv)
{
    *conv = NULL;
    bool is_worth = r->be->packs_products && r->be->packs_products(r->dev) && mo_run_packs(r, n, 1) && d->m > 0 &&
                    d->n > 0 && d->k > 0 && d->n <= most_elems / d->k;
    bool is_simple = d->fused.act == MO_ACT_NONE || d->fused.act == MO_ACT_RELU || d->fused.act == MO_ACT_CLIP;
    if (!is_worth || !is_simple || d->fused.product != MO_PRODUCT_F32)
        return MOPT_OK;
    const float *b = mo_run_in(r, n, 1);
    float *t = d->tb ? NULL : turned(b, d->k, d->n);
    const struct mo_conv_desc c = {
        .n_spatial = 1, .batch = 1, .groups = 1, .in_channels = d->k, .out_channels = d->n, .in = {d->m, 1, 1},
        .out = {d->m, 1, 1}, .kernel = {1, 1, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .has_bias = d->has_bias,
        .act = d->fused.act, .act_lo = d->fused.lo, .act_hi = d->fused.hi, .constant_weights = true,
    };
    *conv = d->tb || t ? r->be->conv_new(r->dev, &c) : NULL;
    if (*conv)
        r->be->conv_pack(r->dev, *conv, d->tb ? b : t);
    mo_mem_free(t);
    return *conv ? MOPT_OK : mo_no_memory(r->ctx, (size_t)(d->n * d->k) * sizeof *b, "packed weights");
}

void mo_packed_forward(struct mo_run *r, const struct mo_node *n, struct mo_conv *conv)
{
    r->be->conv(r->dev, conv, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_in(r, n, 2), NULL, mo_run_out(r, n, 0), NULL);
}
