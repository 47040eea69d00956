/* Optional, OptionalHasElement, OptionalGetElement. Where the input is no optional but what it would hold, one that is
 * there has an element, which is itself, and one that is left out has none. */
#include <string.h>

#include "lib/ops/sequence.h"

/* ---- Optional: of its input, or of nothing ---- */

static enum mopt_status infer_optional(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    (void)ctx;
    mo_set_out_list(g, n, 0, MO_OPTIONAL, x ? x->dtype : MO_UNDEFINED);
    return MOPT_OK;
}

static enum mopt_status forward_optional(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    struct mo_item item = { 0 };
    const struct mo_value *x = mo_in(r->graph, n, 0);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (x)
        item = (struct mo_item){ x->dtype, x->shape, h.in[0] };
    if (!status)
        status = mo_sequence_put(&h, 0, MO_OPTIONAL, &item, x != NULL);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_optional = {
    .type = "Optional",
    .since_opset = 15,
    .min_in = 0, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer_optional, .forward = forward_optional,
    .macs = mo_macs_zero,
};

/* ---- OptionalHasElement ---- */

static enum mopt_status infer_has(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape scalar = mo_shape_of(0);
    const struct mo_value *x = mo_in(g, n, 0);
    (void)ctx;
    mo_set_out(g, n, 0, MO_BOOL, &scalar);
    int64_t *known = !x || (x->dtype != MO_OPTIONAL && x->dtype != MO_UNDEFINED) ? mo_known_out(g, n, 0) : NULL;
    if (known)
        known[0] = x != NULL;
    return MOPT_OK;
}

static enum mopt_status count_items(struct mo_host *h, uint8_t *is_there)
{
    const struct mo_value *x = mo_in(h->run->graph, h->node, 0);
    int64_t n = x != NULL;
    if (x && x->dtype == MO_OPTIONAL)
        MO_TRY(mo_sequence_check(h->run->ctx, h->in[0], mo_value_bytes(x), &n));
    *is_there = n > 0;
    return MOPT_OK;
}

static enum mopt_status forward_has(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    uint8_t is_there = 0;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status)
        status = count_items(&h, &is_there);
    if (!status)
        mo_host_put(&h, 0, &is_there);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_optional_has_element = {
    .type = "OptionalHasElement",
    .since_opset = 15,
    .min_in = 0, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer_has, .forward = forward_has,
    .macs = mo_macs_zero,
};

/* ---- OptionalGetElement ---- */

static enum mopt_status infer_get(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    if (x->dtype == MO_OPTIONAL && x->element == MO_SEQUENCE)
        mo_set_out_list(g, n, 0, MO_SEQUENCE, MO_UNDEFINED);
    else if (x->dtype == MO_OPTIONAL)
        mo_set_out_unknown(g, n, 0, x->element);
    else
        return mo_infer_like_input(ctx, g, n);
    return MOPT_OK;
}

static enum mopt_status hand_out(struct mo_host *h)
{
    const struct mo_value *x = mo_in(h->run->graph, h->node, 0);
    struct mo_item item = { x->dtype, x->shape, h->in[0] };
    int64_t n = 1;
    if (x->dtype != MO_OPTIONAL)
        return mo_sequence_hand_out(h, 0, &item);
    MO_TRY(mo_sequence_check(h->run->ctx, h->in[0], mo_value_bytes(x), &n));
    if (n == 0)
        return mo_fail(h->run->ctx, MOPT_DATA, "'%s' holds nothing", x->name);
    item = mo_sequence_item(h->in[0], 0);
    return mo_sequence_hand_out(h, 0, &item);
}

static enum mopt_status forward_get(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status)
        status = hand_out(&h);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_optional_get_element = {
    .type = "OptionalGetElement",
    .since_opset = 15,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN | MO_OP_UNROLLS,
    .infer = infer_get, .forward = forward_get,
    .macs = mo_macs_zero, .couple = mo_couple_through,
};
