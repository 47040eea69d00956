/* MaxUnpool: what MaxPool took, back at its places; zero elsewhere. The places count through the whole tensor whose
 * axes are (in - 1) * stride + kernel - pads; where output_shape is larger, that tensor lies in its first corner. */
#include "lib/ops/tensor.h"
#include "lib/ops/window.h"

struct max_unpool {
    struct mo_shape whole;      /* what the places count through */
};

static enum mopt_status whole_shape(struct mopt_ctx *ctx, const struct mo_node *n, const struct mo_shape *x,
                                    struct mo_shape *whole)
{
    struct mo_window w;
    MO_TRY(mo_window_read(ctx, n, x, NULL, &w));
    *whole = *x;
    for (int k = 0; k < w.n_spatial; k++) {
        int64_t in = x->dim[2 + k], size;
        if (in == MO_UNKNOWN)
            continue;
        if (__builtin_mul_overflow(in - 1, w.stride[k], &size) || __builtin_add_overflow(size, w.kernel[k], &size) ||
            __builtin_sub_overflow(size, w.pad_begin[k], &size) || __builtin_sub_overflow(size, w.pad_end[k], &size) ||
            size < 0)
            return mo_fail(ctx, MOPT_DATA, "axis %d of its output cannot be %lld windows of %lld", 2 + k, (long long)in,
                           (long long)w.kernel[k]);
        whole->dim[2 + k] = size;
    }
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct max_unpool *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0), *index = mo_in(g, n, 1);
    int64_t given[MO_MAX_RANK];
    int n_given = mo_ints_in(g, n, 2, given, MO_MAX_RANK);
    if (index->dtype != MO_I64 && index->dtype != MO_UNDEFINED)
        return mo_fail(ctx, MOPT_DATA, "the places are %s, they should be int64", mo_dtype_name(index->dtype));
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (x->shape.rank == MO_UNKNOWN || n_given == -2) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    if (x->shape.rank < 3)
        return mo_fail(ctx, MOPT_DATA, "a rank of %d, it should be 3 or more", x->shape.rank);
    if (mo_shape_known(&x->shape) && mo_shape_known(&index->shape) && !mo_shape_equal(&x->shape, &index->shape))
        return mo_fail(ctx, MOPT_DATA, "values and places have different shapes");
    MO_TRY(whole_shape(ctx, n, &x->shape, &p->whole));
    struct mo_shape y = p->whole;
    if (n_given >= 0 && n_given != y.rank)
        return mo_fail(ctx, MOPT_DATA, "output_shape has %d entries for a rank of %d", n_given, y.rank);
    for (int k = 0; k < n_given; k++) {
        if (given[k] < p->whole.dim[k])
            return mo_fail(ctx, MOPT_DATA, "output_shape has %lld at axis %d, less than %lld", (long long)given[k], k,
                           (long long)p->whole.dim[k]);
        y.dim[k] = given[k];
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static bool is_larger(const struct mo_run *r, const struct mo_node *n)
{
    const struct max_unpool *p = n->params;
    return !mo_shape_equal(&p->whole, &mo_out(r->graph, n, 0)->shape);
}

/* Scratch: the whole tensor, where it is not the output itself. */
static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    const struct max_unpool *p = n->params;
    (void)backward;
    return is_larger(r, n) ? mo_dtype_bytes(mo_in(r->graph, n, 0)->dtype, mo_shape_elems(&p->whole)) : 0;
}

/* Between the whole tensor and the first corner of the output. */
static void copy_corner(struct mo_run *r, const struct mo_node *n, size_t elem_bytes, bool out, const void *from, void *to)
{
    const struct max_unpool *p = n->params;
    int64_t of_whole[MO_MAX_RANK], of_y[MO_MAX_RANK];
    mo_dense_strides(&p->whole, of_whole);
    mo_dense_strides(&mo_out(r->graph, n, 0)->shape, of_y);
    r->be->copy_strided(r->dev, elem_bytes, p->whole.rank, p->whole.dim, out ? of_whole : of_y, out ? of_y : of_whole, from,
                        to);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct max_unpool *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    size_t bytes = mo_elem_bytes(x->dtype);
    const int64_t n_x = mo_value_elems(x), n_whole = mo_shape_elems(&p->whole), one = 1;
    void *y = mo_run_out(r, n, 0), *whole = is_larger(r, n) ? mo_run_scratch(r, n) : y;
    mo_zero(r, bytes, n_whole, whole);
    r->be->scatter_elements(r->dev, (int)x->dtype, MO_SCATTER_SET, 1, &n_x, &one, 0, n_whole, mo_run_in(r, n, 1),
                            mo_run_in(r, n, 0), whole);
    if (whole == y)
        return MOPT_OK;
    mo_zero(r, bytes, mo_value_elems(mo_out(r->graph, n, 0)), y);
    copy_corner(r, n, bytes, true, whole, y);
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct max_unpool *p = n->params;
    const float *dy = mo_run_grad_out(r, n, 0);
    float *dx = mo_run_grad_in(r, n, 0), *whole = mo_run_scratch(r, n);
    if (!dx)
        return MOPT_OK;
    if (is_larger(r, n)) {
        copy_corner(r, n, sizeof *dx, false, dy, whole);
        dy = whole;
    }
    r->be->gather(r->dev, sizeof *dx, 1, mo_shape_elems(&p->whole), (int64_t)mo_run_in_elems(r, n, 0), 1, dy,
                  mo_run_in(r, n, 1), dx);
    return MOPT_OK;
}

const struct mo_op mo_op_max_unpool = {
    .type = "MaxUnpool",
    .since_opset = 9,
    .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct max_unpool),
    .infer = infer, .prepare = mo_prepare_float32_x, .forward = forward, .backward = backward,
    .scratch_bytes = scratch_bytes,
    .macs = mo_macs_zero,
    .values_in = 1u << 2,
    .backward_reads = 1u << 1,
};
