/* DFT and STFT. The transform runs on the host in double (fft.h): y[k] = sum over j of x[j] e^(-2 pi i j k / n), its
 * inverse divided by n. One-sided: of a real signal the first n / 2 + 1 values, which say all; the inverse makes the
 * real signal from them. Gradients are transforms again: of y with the other sign. */
#include <string.h>

#include "lib/ops/fft.h"
#include "lib/ops/tensor.h"

struct dft {
    int axis;                   /* MO_UNKNOWN: not known yet */
    bool inverse, one_sided;
    int64_t n;                  /* length of the transform */
    int64_t step, n_frames;     /* STFT */
};

/* The handle: tables, one line, and host memory for what lies on another device. */
struct plan {
    struct mo_fft *fft;
    double *line;
    char *host[3];              /* x, y, window */
};

/* ---- memory on the host -------------------------------------------------------------------- */

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    struct plan *s = *mo_run_handle(r, n);
    if (!s)
        return;
    mo_fft_free(s->fft);
    mo_mem_free(s->line);
    for (size_t k = 0; k < MO_COUNT(s->host); k++)
        mo_mem_free(s->host[k]);
    mo_mem_free(s);
    *mo_run_handle(r, n) = NULL;
}

static enum mopt_status prepare_plan(struct mo_run *r, const struct mo_node *n, const struct mo_value *window)
{
    const struct dft *p = n->params;
    const struct mo_value *of[3] = { mo_in(r->graph, n, 0), mo_out(r->graph, n, 0), window };
    if (of[0]->dtype != MO_F32 && of[0]->dtype != MO_F64)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "it is not computed for %s", mo_dtype_name(of[0]->dtype));
    struct plan *s = mo_mem_new(1, sizeof *s);
    *mo_run_handle(r, n) = s;
    bool is_ok = s && (s->fft = mo_fft_new(p->n)) && (s->line = mo_mem_new((size_t)p->n + 1, 2 * sizeof *s->line));
    for (size_t k = 0; is_ok && !r->be->is_host && k < 3; k++)
        is_ok = !of[k] || (s->host[k] = mo_mem_new(mo_value_bytes(of[k]) + 1, 1));
    if (is_ok)
        return MOPT_OK;
    unprepare(r, n);
    return mo_no_memory(r->ctx, (uint64_t)p->n * 2 * sizeof(double), "a Fourier transform");
}

/* Memory of v as the host sees it: itself, or a copy in host[k]. */
static void *on_host(struct mo_run *r, const struct plan *s, int k, void *data, size_t bytes, bool is_read)
{
    if (r->be->is_host || !data)
        return data;
    if (is_read)
        r->be->download(r->dev, s->host[k], data, bytes);
    return s->host[k];
}

static void put_back(struct mo_run *r, void *data, const void *host, size_t bytes)
{
    if (data != host)
        r->be->upload(r->dev, data, host, bytes);
}

static double number(enum mo_dtype dtype, const void *x, int64_t i)
{
    return dtype == MO_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

static void set_number(enum mo_dtype dtype, void *y, int64_t i, double v)
{
    if (dtype == MO_F64)
        ((double *)y)[i] = v;
    else
        ((float *)y)[i] = (float)v;
}

/* ---- DFT ------------------------------------------------------------------------------------- */

static int64_t scalar_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i, int64_t otherwise)
{
    return mo_in(g, n, i) ? mo_known_in(g, n, i, 0) : otherwise;
}

static enum mopt_status infer_dft(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct dft *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    bool is_new = g->opset >= 20;
    int64_t axis = is_new ? scalar_in(g, n, 2, -2) : mo_node_int(n, "axis", 1);
    p->inverse = mo_node_int(n, "inverse", 0) != 0;
    p->one_sided = mo_node_int(n, "onesided", 0) != 0;
    if (y.rank == MO_UNKNOWN || axis == MO_VALUE_UNKNOWN) {
        mo_set_out_unknown(g, n, 0, x->dtype);
        return MOPT_OK;
    }
    if (y.rank < 2 || (y.dim[y.rank - 1] != MO_UNKNOWN && y.dim[y.rank - 1] != 1 && y.dim[y.rank - 1] != 2))
        return mo_fail(ctx, MOPT_DATA, "its input should end in an axis of 1 (real) or 2 (complex)");
    MO_TRY(mo_axis(ctx, axis, y.rank, &p->axis));
    if (p->axis == y.rank - 1)
        return mo_fail(ctx, MOPT_DATA, "axis %lld is that of real and imaginary parts", (long long)axis);
    if (p->one_sided && !p->inverse && y.dim[y.rank - 1] == 2)
        return mo_fail(ctx, MOPT_DATA, "one side of the transform of a complex signal is not all");
    int64_t in = y.dim[p->axis], whole = in == MO_UNKNOWN ? MO_VALUE_UNKNOWN : p->inverse && p->one_sided ? 2 * (in - 1) : in;
    p->n = scalar_in(g, n, 1, whole);
    if (p->n != MO_VALUE_UNKNOWN && (p->n < 1 || p->n > INT32_MAX))
        return mo_fail(ctx, MOPT_DATA, "a transform of length %lld", (long long)p->n);
    y.dim[p->axis] = p->n == MO_VALUE_UNKNOWN ? MO_UNKNOWN : p->one_sided && !p->inverse ? p->n / 2 + 1 : p->n;
    y.dim[y.rank - 1] = p->inverse && p->one_sided ? 1 : 2;
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare_dft(struct mo_run *r, const struct mo_node *n)
{
    return prepare_plan(r, n, NULL);
}

/* Of x or y: entries along the axis, parts of a number, distance between entries. */
struct lines { int64_t length, parts, inner; };

static struct lines lines_of(const struct mo_shape *x, int axis)
{
    return (struct lines){ x->dim[axis], x->dim[x->rank - 1], mo_dims_product(x, axis + 1, x->rank - 1) };
}

/* Line (o, i): the first n entries, missing ones 0. */
static void load(const struct lines *l, enum mo_dtype dtype, const void *x, int64_t o, int64_t i, int64_t n, double *line)
{
    memset(line, 0, (size_t)n * 2 * sizeof *line);
    for (int64_t k = 0; k < MO_MIN(n, l->length); k++)
        for (int64_t part = 0; part < l->parts; part++)
            line[2 * k + part] = number(dtype, x, ((o * l->length + k) * l->inner + i) * l->parts + part);
}

static void store(const struct lines *l, enum mo_dtype dtype, void *y, int64_t o, int64_t i, int64_t n, double factor,
                  const double *line)
{
    for (int64_t k = 0; k < l->length; k++)
        for (int64_t part = 0; part < l->parts; part++)
            set_number(dtype, y, ((o * l->length + k) * l->inner + i) * l->parts + part,
                       k < n ? factor * line[2 * k + part] : 0);
}

/* The other half of a real signal's spectrum. */
static void mirror(int64_t n, double *line)
{
    line[1] = 0;
    if (n % 2 == 0)
        line[n + 1] = 0;
    for (int64_t k = 1; k < n - k; k++) {
        line[2 * (n - k)] = line[2 * k];
        line[2 * (n - k) + 1] = -line[2 * k + 1];
    }
}

/* The gradient of mirror: the second half counts with the first. */
static void fold_mirror(int64_t n, double *line)
{
    line[1] = 0;
    if (n % 2 == 0)
        line[n + 1] = 0;
    for (int64_t k = 1; k < n - k; k++) {
        line[2 * k] *= 2;
        line[2 * k + 1] *= 2;
        line[2 * (n - k)] = line[2 * (n - k) + 1] = 0;
    }
}

static enum mopt_status forward_dft(struct mo_run *r, const struct mo_node *n)
{
    const struct dft *p = n->params;
    const struct plan *s = *mo_run_handle(r, n);
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    struct lines from = lines_of(&x->shape, p->axis), to = lines_of(&y->shape, p->axis);
    const void *in = on_host(r, s, 0, mo_run_in(r, n, 0), mo_value_bytes(x), true);
    void *out = on_host(r, s, 1, mo_run_out(r, n, 0), mo_value_bytes(y), false);
    int64_t outer = mo_dims_product(&x->shape, 0, p->axis);
    for (int64_t u = 0; u < outer * from.inner; u++) {
        load(&from, x->dtype, in, u / from.inner, u % from.inner, p->n, s->line);
        if (p->inverse && p->one_sided)
            mirror(p->n, s->line);
        mo_fft_run(s->fft, p->inverse, s->line);
        store(&to, y->dtype, out, u / from.inner, u % from.inner, p->n, p->inverse ? 1 / (double)p->n : 1, s->line);
    }
    put_back(r, mo_run_out(r, n, 0), out, mo_value_bytes(y));
    return MOPT_OK;
}

static enum mopt_status backward_dft(struct mo_run *r, const struct mo_node *n)
{
    const struct dft *p = n->params;
    const struct plan *s = *mo_run_handle(r, n);
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    struct lines to = lines_of(&x->shape, p->axis), from = lines_of(&y->shape, p->axis);
    float *dx = mo_run_grad_in(r, n, 0);
    if (!dx)
        return MOPT_OK;
    const void *in = on_host(r, s, 1, mo_run_grad_out(r, n, 0), mo_run_out_elems(r, n, 0) * sizeof *dx, true);
    void *out = on_host(r, s, 0, dx, mo_run_in_elems(r, n, 0) * sizeof *dx, false);
    int64_t outer = mo_dims_product(&x->shape, 0, p->axis);
    for (int64_t u = 0; u < outer * to.inner; u++) {
        load(&from, MO_F32, in, u / to.inner, u % to.inner, p->n, s->line);
        mo_fft_run(s->fft, !p->inverse, s->line);
        if (p->inverse && p->one_sided)
            fold_mirror(p->n, s->line);
        store(&to, MO_F32, out, u / to.inner, u % to.inner, p->n, p->inverse ? 1 / (double)p->n : 1, s->line);
    }
    put_back(r, dx, out, mo_run_in_elems(r, n, 0) * sizeof *dx);
    return MOPT_OK;
}

const struct mo_op mo_op_dft = {
    .type = "DFT",
    .since_opset = 17,
    .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct dft),
    .infer = infer_dft, .prepare = prepare_dft, .unprepare = unprepare, .forward = forward_dft, .backward = backward_dft,
    .values_in = 6,
};

/* ---- STFT: the DFT of pieces of `n` samples, each `step` behind the other, under a window -------- */

enum { SIGNAL, FRAME_STEP, WINDOW, FRAME_LENGTH };

/* Numbers of a sample: real or complex. PyTorch's exporter leaves the axis of 1 out. */
static int64_t parts_of(const struct mo_shape *signal)
{
    return signal->rank == 2 ? 1 : signal->dim[2];
}

static enum mopt_status infer_stft(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct dft *p = n->params;
    const struct mo_value *x = mo_in(g, n, SIGNAL), *window = mo_in(g, n, WINDOW);
    struct mo_shape y = mo_shape_of(4, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN, (int64_t)2);
    if (x->shape.rank == MO_UNKNOWN) {
        mo_set_out(g, n, 0, x->dtype, &y);
        return MOPT_OK;
    }
    int64_t parts = x->shape.rank == 2 ? 1 : x->shape.rank == 3 ? x->shape.dim[2] : 0;
    if (parts != MO_UNKNOWN && parts != 1 && parts != 2)
        return mo_fail(ctx, MOPT_DATA,
                       "the signal should be batch x length (real) or batch x length x 1 (real) or 2 (complex)");
    int64_t length = x->shape.dim[1], of_window = window ? mo_value_elems(window) : length;
    p->n = scalar_in(g, n, FRAME_LENGTH, of_window == MO_UNKNOWN ? MO_VALUE_UNKNOWN : of_window);
    p->step = mo_known_in(g, n, FRAME_STEP, 0);
    p->one_sided = mo_node_int(n, "onesided", 1) != 0 && parts != 2;
    y.dim[0] = x->shape.dim[0];
    bool is_known = p->n != MO_VALUE_UNKNOWN && p->step != MO_VALUE_UNKNOWN && length != MO_UNKNOWN;
    if (is_known && (p->n < 1 || p->n > length || p->step < 1))
        return mo_fail(ctx, MOPT_DATA, "frames of %lld, %lld apart, of a signal of %lld", (long long)p->n,
                       (long long)p->step, (long long)length);
    if (is_known && window && of_window != MO_UNKNOWN && of_window != p->n)
        return mo_fail(ctx, MOPT_DATA, "a window of %lld for frames of %lld", (long long)of_window, (long long)p->n);
    p->n_frames = is_known ? (length - p->n) / p->step + 1 : 0;
    y.dim[1] = is_known ? p->n_frames : MO_UNKNOWN;
    y.dim[2] = !is_known ? MO_UNKNOWN : p->one_sided ? p->n / 2 + 1 : p->n;
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare_stft(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, SIGNAL), *window = mo_in(r->graph, n, WINDOW);
    if (window)
        MO_TRY(mo_check_same_dtype(r->ctx, x, window));
    return prepare_plan(r, n, window);
}

static enum mopt_status forward_stft(struct mo_run *r, const struct mo_node *n)
{
    const struct dft *p = n->params;
    const struct plan *s = *mo_run_handle(r, n);
    const struct mo_value *x = mo_in(r->graph, n, SIGNAL), *y = mo_out(r->graph, n, 0), *window = mo_in(r->graph, n, WINDOW);
    const int64_t parts = parts_of(&x->shape), length = x->shape.dim[1], n_out = y->shape.dim[2];
    const void *in = on_host(r, s, 0, mo_run_in(r, n, SIGNAL), mo_value_bytes(x), true);
    const void *w = window ? on_host(r, s, 2, mo_run_in(r, n, WINDOW), mo_value_bytes(window), true) : NULL;
    void *out = on_host(r, s, 1, mo_run_out(r, n, 0), mo_value_bytes(y), false);
    for (int64_t u = 0; u < x->shape.dim[0] * p->n_frames; u++) {
        int64_t first = u / p->n_frames * length + u % p->n_frames * p->step;
        memset(s->line, 0, (size_t)p->n * 2 * sizeof *s->line);
        for (int64_t k = 0; k < p->n * parts; k++)
            s->line[k / parts * 2 + k % parts] =
                number(x->dtype, in, first * parts + k) * (w ? number(x->dtype, w, k / parts) : 1);
        mo_fft_run(s->fft, false, s->line);
        for (int64_t k = 0; k < 2 * n_out; k++)
            set_number(y->dtype, out, u * 2 * n_out + k, s->line[k]);
    }
    put_back(r, mo_run_out(r, n, 0), out, mo_value_bytes(y));
    return MOPT_OK;
}

/* A frame's gradient, before the window, in s->line. */
static void frame_grad(const struct dft *p, const struct plan *s, const float *dy, int64_t n_out)
{
    memset(s->line, 0, (size_t)p->n * 2 * sizeof *s->line);
    for (int64_t k = 0; k < 2 * n_out; k++)
        s->line[k] = (double)dy[k];
    mo_fft_run(s->fft, true, s->line);
}

static enum mopt_status backward_stft(struct mo_run *r, const struct mo_node *n)
{
    const struct dft *p = n->params;
    const struct plan *s = *mo_run_handle(r, n);
    const struct mo_shape *x = &mo_in(r->graph, n, SIGNAL)->shape;
    const int64_t parts = parts_of(x), length = x->dim[1], n_out = mo_out(r->graph, n, 0)->shape.dim[2];
    float *dx = mo_run_grad_in(r, n, SIGNAL), *dw = mo_run_grad_in(r, n, WINDOW);
    const float *dy = mo_run_grad_out(r, n, 0), *in = mo_run_in(r, n, SIGNAL), *w = mo_run_in(r, n, WINDOW);
    if (!r->be->is_host)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "its gradient is computed on the CPU only");
    if (dx)
        mo_run_zero(r, mo_run_in_elems(r, n, SIGNAL), dx);
    if (dw)
        mo_run_zero(r, (size_t)p->n, dw);
    for (int64_t u = 0; u < x->dim[0] * p->n_frames; u++) {
        int64_t first = (u / p->n_frames * length + u % p->n_frames * p->step) * parts;
        frame_grad(p, s, dy + u * 2 * n_out, n_out);
        for (int64_t k = 0; k < p->n * parts; k++) {
            float g = (float)s->line[k / parts * 2 + k % parts];
            if (dx)
                dx[first + k] += g * (w ? w[k / parts] : 1);
            if (dw)
                dw[k / parts] += g * in[first + k];
        }
    }
    return MOPT_OK;
}

const struct mo_op mo_op_stft = {
    .type = "STFT",
    .since_opset = 17,
    .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct dft),
    .infer = infer_stft, .prepare = prepare_stft, .unprepare = unprepare, .forward = forward_stft,
    .backward = backward_stft,
    .values_in = 1u << FRAME_STEP | 1u << FRAME_LENGTH,
    .backward_reads = 1u << SIGNAL | 1u << WINDOW,
};
