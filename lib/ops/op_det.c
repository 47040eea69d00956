/* Det: the determinant of the square matrices in the last two axes, by elimination with the largest pivot of each
 * column, in double: the product of the pivots, its sign turned for each exchange of rows. */
#include <math.h>

#include "lib/ops/host.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    char text[128];
    if (x->shape.rank == MO_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    bool fits = y.rank >= 2;
    int64_t rows = fits ? y.dim[y.rank - 2] : 0, columns = fits ? y.dim[y.rank - 1] : 0;
    if (!fits || (rows != columns && rows != MO_UNKNOWN && columns != MO_UNKNOWN))
        return mo_fail(ctx, MOPT_DATA, "its input is %s, it should end in square matrices",
                       mo_shape_text(&x->shape, text, sizeof text));
    y.rank -= 2;
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    if (dtype == MO_F32 || dtype == MO_F64)
        return MOPT_OK;
    return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(dtype));
}

/* a: m x m, destroyed. */
static double determinant(double *a, int64_t m)
{
    double det = 1;
    for (int64_t k = 0; k < m; k++) {
        int64_t top = k;
        for (int64_t i = k + 1; i < m; i++)
            if (fabs(a[i * m + k]) > fabs(a[top * m + k]))
                top = i;
        det *= a[top * m + k];
        if (a[top * m + k] == 0)
            return 0;
        for (int64_t j = k; top != k && j < m; j++) {
            double swap = a[k * m + j];
            a[k * m + j] = a[top * m + j];
            a[top * m + j] = swap;
        }
        det = top != k ? -det : det;
        for (int64_t i = k + 1; i < m; i++) {
            double factor = a[i * m + k] / a[k * m + k];
            for (int64_t j = k + 1; j < m; j++)
                a[i * m + j] -= factor * a[k * m + j];
        }
    }
    return det;
}

static enum mopt_status compute(struct mo_run *r, const struct mo_node *n, struct mo_host *h, double *a, void *y)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t m = x->shape.dim[x->shape.rank - 1], n_y = (int64_t)mo_run_out_elems(r, n, 0);
    bool is_double = x->dtype == MO_F64;
    for (int64_t i = 0; i < n_y; i++) {
        MO_TRY(mo_stopped(r->ctx));
        for (int64_t k = 0; k < m * m; k++)
            a[k] = is_double ? ((const double *)h->in[0])[i * m * m + k] : (double)((const float *)h->in[0])[i * m * m + k];
        double det = determinant(a, m);
        if (is_double)
            ((double *)y)[i] = det;
        else
            ((float *)y)[i] = (float)det;
    }
    mo_host_put(h, 0, y);
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    size_t m = (size_t)x->dim[x->rank - 1], n_y = mo_run_out_elems(r, n, 0), n_a;
    struct mo_host h;
    double *a = mo_mul_size(m, m, &n_a) ? mo_mem_new(n_a + 1, sizeof *a) : NULL;
    void *y = mo_mem_new(n_y + 1, sizeof(double));
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && (!a || !y))
        status = mo_no_memory(r->ctx, m * m * sizeof *a, "a matrix");
    if (!status)
        status = compute(r, n, &h, a, y);
    mo_mem_free(a);
    mo_mem_free(y);
    mo_host_close(&h);
    return status;
}

/* m^3 / 3 of each matrix. */
static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct mo_shape *x = &mo_in(g, n, 0)->shape;
    int64_t all = x->rank < 2 ? MO_UNKNOWN : mo_product((int64_t[]){ mo_shape_elems(x), x->dim[x->rank - 1] }, 2);
    return all == MO_UNKNOWN ? MO_UNKNOWN : all / 3;
}

const struct mo_op mo_op_det = {
    .type = "Det",
    .since_opset = 11,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .infer = infer, .prepare = prepare, .forward = forward, .macs = macs,
};
