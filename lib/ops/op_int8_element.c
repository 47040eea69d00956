/* Int8Binary, Int8Average, Int8Lookup: sums and products of two tensors of bytes, means over windows, and any function
 * of one byte, made by lowering between quantized tensors. */
#include "lib/run/int8.h"
#include "lib/ops/tensor.h"
#include "lib/ops/window.h"

static int32_t whole(const struct mo_node *n, const char *name)
{
    return (int32_t)mo_node_int(n, name, 0);
}

/* ---- Int8Binary ---- */

static enum mopt_status infer_binary(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_shape a = mo_in(g, n, 0)->shape, b = mo_in(g, n, 1)->shape;
    struct mo_shape y = { .rank = MO_UNKNOWN };
    char text_a[128], text_b[128];
    if (a.rank != MO_UNKNOWN && b.rank != MO_UNKNOWN && !mo_shape_broadcast(&a, &b, &y))
        return mo_fail(ctx, MOPT_DATA, "%s and %s do not fit", mo_shape_text(&a, text_a, sizeof text_a),
                       mo_shape_text(&b, text_b, sizeof text_b));
    mo_set_out(g, n, 0, (enum mo_dtype)mo_node_int(n, MO_INT8_Y_TYPE, MO_U8), &y);
    return MOPT_OK;
}

static enum mopt_status forward_binary(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *a = mo_in(r->graph, n, 0), *b = mo_in(r->graph, n, 1), *y = mo_out(r->graph, n, 0);
    struct mo_qbinary p = {
        .f = (enum mo_binary)whole(n, MO_INT8_F), .a_signed = a->dtype == MO_I8, .b_signed = b->dtype == MO_I8,
        .a_zero = whole(n, MO_INT8_X_ZERO), .b_zero = whole(n, MO_INT8_B_ZERO), .y_zero = whole(n, MO_INT8_Y_ZERO),
        .y_low = whole(n, MO_INT8_LOW), .y_high = whole(n, MO_INT8_HIGH),
        .a_factor = mo_node_float(n, MO_INT8_FACTOR, 1), .b_factor = mo_node_float(n, MO_INT8_B_FACTOR, 1),
    };
    int64_t stride_a[MO_MAX_RANK], stride_b[MO_MAX_RANK];
    mo_broadcast_strides(&a->shape, &y->shape, stride_a);
    mo_broadcast_strides(&b->shape, &y->shape, stride_b);
    r->be->qbinary(r->dev, &p, y->shape.rank, y->shape.dim, stride_a, stride_b, mo_run_in(r, n, 0), mo_run_in(r, n, 1),
                   mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_int8_binary = {
    .type = "Int8Binary", .domain = MO_INT8_DOMAIN, .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .flags = MO_OP_ELEMENTWISE | MO_OP_INTERNAL,
    .infer = infer_binary, .forward = forward_binary, .macs = mo_macs_zero,
};

/* ---- Int8Average ---- */

static bool is_global(const struct mo_node *n)
{
    return mo_node_int(n, MO_INT8_GLOBAL, 0) == 1;
}

static enum mopt_status infer_average(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_window *w = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    if (y.rank != MO_UNKNOWN && y.rank < 3)
        return mo_fail(ctx, MOPT_DATA, "input 0 has rank %d, it must have spatial axes", y.rank);
    if (y.rank != MO_UNKNOWN && is_global(n)) {
        for (int i = 0; i < y.rank - 2; i++)
            y.dim[(n->channels_last ? 1 : 2) + i] = 1;
    } else if (y.rank != MO_UNKNOWN) {
        MO_TRY(mo_window_read(ctx, n, &x->shape, NULL, w));
        MO_TRY(mo_window_slide(ctx, w));
        y = mo_window_shape(w, x->shape.dim[0], mo_window_channels(w, &x->shape), w->out);
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare_average(struct mo_run *r, const struct mo_node *n)
{
    return is_global(n) ? MOPT_OK : mo_window_runs(r->ctx, n->params);
}

/* Channels-last: batch x places x channels. */
static struct mo_pool_desc whole_picture(const struct mo_shape *x)
{
    int64_t places = mo_product(x->dim + 1, x->rank - 2);
    return (struct mo_pool_desc){
        .kind = MO_POOL_AVERAGE, .n_spatial = 1, .batch = x->dim[0], .channels = x->dim[x->rank - 1],
        .in = { places, 1, 1 }, .out = { 1, 1, 1 }, .kernel = { places, 1, 1 }, .stride = { 1, 1, 1 },
        .dilation = { 1, 1, 1 },
    };
}

static enum mopt_status forward_average(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_window *w = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    struct mo_pool_desc d = whole_picture(&x->shape);
    if (!mo_run_out_elems(r, n, 0))
        return MOPT_OK;
    if (!is_global(n)) {
        d.kind = mo_node_int(n, "count_include_pad", 0) ? MO_POOL_AVERAGE_WITH_PAD : MO_POOL_AVERAGE;
        d.n_spatial = w->n_spatial;
        mo_window_copy3(w, w->in, 1, d.in);
        mo_window_copy3(w, w->out, 1, d.out);
        mo_window_copy3(w, w->kernel, 1, d.kernel);
        mo_window_copy3(w, w->stride, 1, d.stride);
        mo_window_copy3(w, w->dilation, 1, d.dilation);
        mo_window_copy3(w, w->pad_begin, 0, d.pad_begin);
        mo_window_copy3(w, w->pad_end, 0, d.pad_end);
    }
    r->be->qpool(r->dev, &d, x->dtype == MO_I8, whole(n, MO_INT8_X_ZERO), mo_node_float(n, MO_INT8_FACTOR, 1),
                 whole(n, MO_INT8_Y_ZERO), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_int8_average = {
    .type = "Int8Average", .domain = MO_INT8_DOMAIN, .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = MO_OP_CHANNELS_LAST | MO_OP_INTERNAL,
    .params_bytes = sizeof(struct mo_window),
    .infer = infer_average, .prepare = prepare_average, .forward = forward_average, .macs = mo_macs_zero,
};

/* ---- Int8Lookup: input 1 holds the 256 results ---- */

static enum mopt_status infer_lookup(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct mo_shape shape = mo_in(g, n, 0)->shape;
    const struct mo_value *table = mo_in(g, n, 1);
    if (mo_value_elems(table) != 256)
        return mo_fail(ctx, MOPT_FAILED, "its table has not 256 entries");
    mo_set_out(g, n, 0, table->dtype, &shape);
    return MOPT_OK;
}

static enum mopt_status forward_lookup(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *table = mo_in(r->graph, n, 1);
    r->be->lookup(r->dev, mo_run_in_elems(r, n, 0), table->data, mo_run_in(r, n, 0), mo_run_out(r, n, 0));
    return MOPT_OK;
}

static bool permute_lookup(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    (void)g, (void)n, (void)perm, (void)rank;
    return true;
}

const struct mo_op mo_op_int8_lookup = {
    .type = "Int8Lookup", .domain = MO_INT8_DOMAIN, .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .flags = MO_OP_IN_PLACE | MO_OP_INTERNAL,
    .infer = infer_lookup, .forward = forward_lookup, .macs = mo_macs_zero, .permute = permute_lookup,
};
