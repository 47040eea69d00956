/* compare.c - cosine, signal to noise, largest and mean error of two models' values. */
#include "lib/passes/compare.h"

#include <math.h>
#include <string.h>

static void add_rows(struct mo_error *e, const float *a, const float *b, size_t n, int64_t columns)
{
    for (size_t row = 0; row + (size_t)columns <= n; row += (size_t)columns) {
        int64_t top_a = 0, top_b = 0;
        for (int64_t k = 1; k < columns; k++) {
            top_a = a[row + k] > a[row + top_a] ? k : top_a;
            top_b = b[row + k] > b[row + top_b] ? k : top_b;
        }
        e->n_rows++;
        e->n_same_top += top_a == top_b;
    }
}

void mo_error_add(struct mo_error *e, const float *a, const float *b, size_t n, int64_t columns)
{
    for (size_t i = 0; i < n; i++) {
        double x = a[i], y = b[i];
        if (!isfinite(x) || !isfinite(y)) {
            e->n_odd += !(x == y || (isnan(x) && isnan(y)));
            continue;
        }
        double d = fabs(x - y);
        e->dot += x * y;
        e->aa += x * x;
        e->bb += y * y;
        e->ee += d * d;
        e->sum_abs += d;
        e->max_abs = MO_MAX(e->max_abs, d);
    }
    e->n += n;
    if (columns > 1)
        add_rows(e, a, b, n, columns);
}

double mo_error_cosine(const struct mo_error *e)
{
    if (e->n_odd)
        return NAN;
    if (e->ee == 0) /* the square roots would leave a little less than 1 */
        return 1;
    if (e->aa == 0 || e->bb == 0)
        return 0;
    return MO_MIN(MO_MAX(e->dot / sqrt(e->aa) / sqrt(e->bb), -1), 1);
}

double mo_error_sqnr_db(const struct mo_error *e)
{
    if (e->n_odd)
        return NAN;
    return e->ee > 0 ? 10 * log10(e->aa / e->ee) : INFINITY;
}

void mo_error_report(const struct mo_error *e, struct mopt_report *report)
{
    mo_report_set_number(report, "cosine", mo_error_cosine(e));
    mo_report_set_number(report, "sqnr_db", mo_error_sqnr_db(e));
    mo_report_set_number(report, "max_abs", e->n_odd ? NAN : e->max_abs);
    mo_report_set_number(report, "mean_abs", e->n && !e->n_odd ? e->sum_abs / (double)e->n : e->n_odd ? NAN : 0);
    mo_report_set_int(report, "n", (int64_t)e->n);
    if (e->n_odd)
        mo_report_set_int(report, "n_not_finite", (int64_t)e->n_odd);
    if (e->n_rows)
        mo_report_set_number(report, "top1_agreement", (double)e->n_same_top / (double)e->n_rows);
}

/* ---- values as floats ------------------------------------------------------------------ */

#define WIDEN(type) for (size_t i = 0; i < n; i++) x[i] = (float)((const type *)data)[i]; return true

static bool widen(enum mo_dtype dtype, const void *data, size_t n, float *x)
{
    switch (dtype) {
    case MO_F32: memcpy(x, data, n * sizeof *x); return true;
    case MO_F64: WIDEN(double);
    case MO_U8: WIDEN(uint8_t);
    case MO_BOOL: WIDEN(uint8_t);
    case MO_I8: WIDEN(int8_t);
    case MO_U16: WIDEN(uint16_t);
    case MO_I16: WIDEN(int16_t);
    case MO_U32: WIDEN(uint32_t);
    case MO_I32: WIDEN(int32_t);
    case MO_U64: WIDEN(uint64_t);
    case MO_I64: WIDEN(int64_t);
    default: return false;
    }
}

enum mopt_status mo_run_floats(struct mo_run *run, mo_value_id user_value, float **x, size_t *n, struct mo_shape *shape)
{
    const struct mo_value *info = NULL;
    const void *device = mo_run_value(run, user_value, &info);
    *x = NULL;
    *n = 0;
    if (!device || !info || !mo_shape_known(&info->shape))
        return MOPT_OK;
    int64_t n_elems = mo_shape_elems(&info->shape);
    size_t bytes = mo_dtype_bytes(info->dtype, n_elems);
    void *host = NULL;
    if (!run->be->is_host) {
        host = mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
        if (!host)
            return mo_no_memory(run->ctx, bytes, "a value");
        run->be->download(run->dev, host, device, bytes);
    }
    *shape = info->shape;
    if (info->dtype == MO_F16 || info->dtype == MO_BF16) {
        struct mo_value half = *info;
        half.data = host ? host : (void *)(uintptr_t)device;
        *x = mo_value_floats(&half);
    } else {
        *x = mo_mem_new((size_t)MO_MAX(n_elems, 1), sizeof **x);
        if (*x && !widen(info->dtype, host ? host : device, (size_t)n_elems, *x)) {
            mo_mem_free(*x);
            mo_mem_free(host);
            *x = NULL;
            return MOPT_OK;
        }
    }
    mo_mem_free(host);
    *n = (size_t)n_elems;
    return *x ? MOPT_OK : mo_no_memory(run->ctx, (uint64_t)n_elems * 4, "a value");
}
