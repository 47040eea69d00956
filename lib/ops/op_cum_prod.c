/* CumProd: running products along an axis.
 *
 *     y[k] = x[0] .. x[k]         exclusive: x[0] .. x[k-1], y[0] = 1         reverse: from the other end
 *
 * With the exclusive products p, and s[k] = dy[k] + x[k+1] s[k+1] (exclusive: dy[k+1] + x[k+1] s[k+1]),
 * dx = p s: nothing is divided by, so zeros are no exception. The axis is brought to the front, where a step is one
 * product of rows. */
#include "lib/ops/tensor.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    MO_TRY(mo_check_movable(ctx, mo_in(g, n, 0)->dtype));
    return mo_infer_cumulative(ctx, g, n);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    if (dtype == MO_BOOL || dtype == MO_C64 || dtype == MO_C128 || mo_dtype_bits(dtype) < 8)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(dtype));
    return MOPT_OK;
}

struct walk {
    struct mo_run *r;
    enum mo_dtype dtype;
    size_t elem_bytes, row_bytes;
    int64_t n_rows, dims[3], stride[3], row_stride[3];      /* outer, axis, inner; as rows */
};

static struct walk walk_of(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_cumulative *p = n->params;
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t outer = mo_dims_product(&x->shape, 0, p->axis), inner = mo_dims_product(&x->shape, p->axis + 1, x->shape.rank);
    struct walk w = { .r = r, .dtype = x->dtype, .elem_bytes = mo_elem_bytes(x->dtype), .n_rows = x->shape.dim[p->axis],
                      .dims = { outer, x->shape.dim[p->axis], inner } };
    w.row_bytes = w.elem_bytes * (size_t)(outer * inner);
    w.stride[0] = w.n_rows * inner;
    w.stride[1] = inner;
    w.stride[2] = w.row_stride[2] = 1;
    w.row_stride[0] = inner;
    w.row_stride[1] = outer * inner;
    return w;
}

static void to_rows(const struct walk *w, const void *x, void *rows)
{
    w->r->be->copy_strided(w->r->dev, w->elem_bytes, 3, w->dims, w->stride, w->row_stride, x, rows);
}

static void from_rows(const struct walk *w, const void *rows, void *y)
{
    w->r->be->copy_strided(w->r->dev, w->elem_bytes, 3, w->dims, w->row_stride, w->stride, rows, y);
}

/* y = a f b, rows */
static void join(const struct walk *w, enum mo_binary f, const void *a, const void *b, void *y)
{
    const int64_t n = w->dims[0] * w->dims[2], one = 1;
    w->r->be->binary(w->r->dev, f, (int)w->dtype, 1, &n, &one, &one, a, b, y);
}

/* Row k in the order of the walk. */
static void *row(const struct walk *w, const struct mo_cumulative *p, void *rows, int64_t k)
{
    return (char *)rows + (size_t)(p->reverse ? w->n_rows - 1 - k : k) * w->row_bytes;
}

static void products(const struct walk *w, const struct mo_cumulative *p, bool exclusive, void *x, void *y)
{
    const float one = 1;
    const double wide_one = 1;
    const int64_t whole_one = 1;
    const void *unit = w->dtype == MO_F32 ? (const void *)&one : w->dtype == MO_F64 ? (const void *)&wide_one : &whole_one;
    if (exclusive)
        w->r->be->fill(w->r->dev, w->elem_bytes, w->row_bytes / w->elem_bytes, unit, row(w, p, y, 0));
    else
        mo_copy(w->r, 1, (int64_t)w->row_bytes, row(w, p, x, 0), row(w, p, y, 0));
    for (int64_t k = 1; k < w->n_rows; k++)
        join(w, MO_MUL, row(w, p, y, k - 1), row(w, p, x, exclusive ? k - 1 : k), row(w, p, y, k));
}

/* Scratch: x and y as rows; backward dy as well, and a row. */
static size_t part_bytes(const struct mo_run *r, const struct mo_node *n)
{
    return mo_part_bytes(mo_value_bytes(mo_in(r->graph, n, 0)));
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return part_bytes(r, n) * (backward ? 4 : 2);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_cumulative *p = n->params;
    struct walk w = walk_of(r, n);
    char *x = mo_run_scratch(r, n), *y = x + part_bytes(r, n);
    if (w.n_rows == 0 || w.row_bytes == 0)
        return MOPT_OK;
    to_rows(&w, mo_run_in(r, n, 0), x);
    products(&w, p, p->exclusive, x, y);
    from_rows(&w, y, mo_run_out(r, n, 0));
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_cumulative *p = n->params;
    struct walk w = walk_of(r, n);
    float *dx = mo_run_grad_in(r, n, 0);
    char *x = mo_run_scratch(r, n), *before = x + part_bytes(r, n), *s = before + part_bytes(r, n);
    char *term = s + part_bytes(r, n);
    if (!dx || w.n_rows == 0 || w.row_bytes == 0)
        return MOPT_OK;
    to_rows(&w, mo_run_in(r, n, 0), x);
    to_rows(&w, mo_run_grad_out(r, n, 0), s);
    products(&w, p, true, x, before);
    /* exclusive: s[k] begins as dy[k + 1]; from the front on, so that nothing is overwritten before it is read */
    for (int64_t k = 0; p->exclusive && k + 1 < w.n_rows; k++)
        mo_copy(r, 1, (int64_t)w.row_bytes, row(&w, p, s, k + 1), row(&w, p, s, k));
    if (p->exclusive)
        mo_zero(r, 1, (int64_t)w.row_bytes, row(&w, p, s, w.n_rows - 1));
    for (int64_t k = w.n_rows - 2; k >= 0; k--) {
        join(&w, MO_MUL, row(&w, p, x, k + 1), row(&w, p, s, k + 1), term);
        join(&w, MO_ADD, row(&w, p, s, k), term, row(&w, p, s, k));
    }
    for (int64_t k = 0; k < w.n_rows; k++)
        join(&w, MO_MUL, row(&w, p, before, k), row(&w, p, s, k), row(&w, p, s, k));
    from_rows(&w, s, dx);
    return MOPT_OK;
}

const struct mo_op mo_op_cum_prod = {
    .type = "CumProd",
    .since_opset = 26,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct mo_cumulative),
    .infer = infer, .prepare = prepare, .forward = forward, .backward = backward,
    .scratch_bytes = scratch_bytes,
    .macs = mo_macs_zero,
    .values_in = 1u << 1,
    .backward_reads = 1u << 0,
};
