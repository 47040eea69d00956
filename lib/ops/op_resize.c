/* Resize and its old name Upsample: nearest, linear and cubic, one axis after the other.
 * Nearest is a gather and takes any element type; the others are float32. Gradients go
 * back through the same tables. */
#include "lib/ops/resample.h"
#include "lib/ops/tensor.h"

#include <math.h>
#include <string.h>

struct resize {
    struct mo_resize_rule rule;
    double scale[MO_MAX_RANK], roi[MO_MAX_RANK][2];
    float extrapolation;
};

/* ---- infer ---- */

static int choice(const char *text, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(text, names[i]))
            return i;
    return -1;
}

static enum mopt_status read_rule(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, struct resize *p)
{
    static const char *const modes[] = { "nearest", "linear", "cubic" };
    static const char *const coords[] = { "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
                                          "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize" };
    static const char *const nearests[] = { "round_prefer_floor", "round_prefer_ceil", "floor", "ceil" };
    bool is_old = g->opset < 11 || !strcmp(n->type, "Upsample");    /* one coordinate rule, no choice */
    const char *mode = mo_node_text(n, "mode", "nearest");
    const char *coord = mo_node_text(n, "coordinate_transformation_mode", is_old ? "asymmetric" : "half_pixel");
    const char *nearest = mo_node_text(n, "nearest_mode", is_old ? "floor" : "round_prefer_floor");
    int m = choice(!strcmp(mode, "bilinear") ? "linear" : mode, modes, 3), c = choice(coord, coords, 7);
    int k = choice(nearest, nearests, 4);
    if (m < 0 || c < 0 || k < 0)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "mode '%s', coordinates '%s', nearest_mode '%s'", mode, coord, nearest);
    p->rule = (struct mo_resize_rule){
        .mode = (enum mo_resize_mode)m, .coord = (enum mo_coord)c, .nearest = (enum mo_nearest)k,
        .antialias = mo_node_int(n, "antialias", 0) != 0,
        .exclude_outside = mo_node_int(n, "exclude_outside", 0) != 0,
        .cubic_a = mo_node_float(n, "cubic_coeff_a", -0.75f),
    };
    p->extrapolation = mo_node_float(n, "extrapolation_value", 0);
    return MOPT_OK;
}

/* Floats of input i: count, -1 when there are none, -2 when not known yet. */
static int floats_in(const struct mo_graph *g, const struct mo_node *n, uint32_t i, double *out, int max)
{
    const struct mo_value *v = mo_in(g, n, i);
    int64_t count = v ? mo_value_elems(v) : 0;
    if (!v || count == 0)
        return -1;
    float *x = v->data && count > 0 && count <= max ? mo_value_floats(v) : NULL;
    if (!x)
        return -2;
    for (int k = 0; k < count; k++)
        out[k] = x[k];
    mo_mem_free(x);
    return (int)count;
}

/* The axes that scales, sizes and roi speak of. */
static enum mopt_status read_axes(struct mopt_ctx *ctx, const struct mo_node *n, int rank, int *axes, int *n_axes)
{
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, "axes", &n_ints);
    *n_axes = rank;
    for (int k = 0; k < rank; k++)
        axes[k] = k;
    if (!mo_node_attr(n, "axes"))
        return MOPT_OK;
    if (n_ints > (size_t)rank)
        return mo_fail(ctx, MOPT_DATA, "%zu axes for a rank of %d", n_ints, rank);
    *n_axes = (int)n_ints;
    for (int k = 0; k < *n_axes; k++)
        MO_TRY(mo_axis(ctx, ints[k], rank, &axes[k]));
    return MOPT_OK;
}

static enum mopt_status apply_scales(struct mopt_ctx *ctx, const double *scales, const int *axes, int n_axes,
                                     struct resize *p, struct mo_shape *y)
{
    for (int k = 0; k < n_axes; k++) {
        int axis = axes[k];
        if (!(scales[k] > 0) || scales[k] > 1e9)
            return mo_fail(ctx, MOPT_DATA, "a scale of %g", scales[k]);
        p->scale[axis] = scales[k];
        if (y->dim[axis] != MO_UNKNOWN)
            y->dim[axis] = (int64_t)floor((double)y->dim[axis] * scales[k]);
    }
    return MOPT_OK;
}

static enum mopt_status apply_sizes(struct mopt_ctx *ctx, const struct mo_node *n, const int64_t *sizes, const int *axes,
                                    int n_axes, struct resize *p, struct mo_shape *y)
{
    const char *policy = mo_node_text(n, "keep_aspect_ratio_policy", "stretch");
    bool is_stretch = !strcmp(policy, "stretch"), is_not_larger = !strcmp(policy, "not_larger");
    double common = is_not_larger ? INFINITY : 0;
    for (int k = 0; k < n_axes; k++) {
        int64_t dim = y->dim[axes[k]];
        if (sizes[k] < 0)
            return mo_fail(ctx, MOPT_DATA, "a size of %lld", (long long)sizes[k]);
        p->scale[axes[k]] = dim > 0 ? (double)sizes[k] / (double)dim : 1;
        if (dim == MO_UNKNOWN && !is_stretch)
            common = NAN;
        common = is_not_larger ? fmin(common, p->scale[axes[k]]) : fmax(common, p->scale[axes[k]]);
    }
    for (int k = 0; k < n_axes; k++) {
        int64_t *dim = &y->dim[axes[k]];
        if (is_stretch) {
            *dim = sizes[k];
        } else if (*dim != MO_UNKNOWN) {
            p->scale[axes[k]] = common;
            *dim = (int64_t)floor((double)*dim * common + 0.5);
        }
    }
    return MOPT_OK;
}

static enum mopt_status read_roi(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n, const int *axes,
                                 int n_axes, struct resize *p, bool *is_known)
{
    double roi[2 * MO_MAX_RANK];
    for (int axis = 0; axis < MO_MAX_RANK; axis++)
        p->roi[axis][0] = 0, p->roi[axis][1] = 1;
    if (p->rule.coord != MO_COORD_TF_CROP_AND_RESIZE)
        return MOPT_OK;
    int count = floats_in(g, n, 1, roi, 2 * MO_MAX_RANK);
    *is_known = count != -2;
    if (*is_known && count != 2 * n_axes)
        return mo_fail(ctx, MOPT_DATA, "a region of %d numbers for %d axes, there should be two for each", count, n_axes);
    for (int k = 0; *is_known && k < n_axes; k++) {
        p->roi[axes[k]][0] = roi[k];
        p->roi[axes[k]][1] = roi[k + n_axes];
    }
    return MOPT_OK;
}

static enum mopt_status read_new_shape(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                       struct resize *p, struct mo_shape *y, bool *is_known)
{
    double scales[MO_MAX_RANK];
    int64_t sizes[MO_MAX_RANK];
    int axes[MO_MAX_RANK], n_axes, n_scales, n_sizes;
    bool is_short = g->opset < 11 || !strcmp(n->type, "Upsample");      /* scales are input 1, or an attribute */
    const struct mo_attr *attr = mo_node_attr(n, "scales");
    MO_TRY(read_axes(ctx, n, y->rank, axes, &n_axes));
    if (attr && attr->kind == MO_ATTR_FLOATS) {
        n_scales = (int)MO_MIN(attr->n, (size_t)MO_MAX_RANK);
        for (int k = 0; k < n_scales; k++)
            scales[k] = attr->floats[k];
    } else {
        n_scales = floats_in(g, n, is_short ? 1 : 2, scales, MO_MAX_RANK);
    }
    n_sizes = is_short ? -1 : mo_ints_in(g, n, 3, sizes, MO_MAX_RANK);
    n_sizes = n_sizes == 0 ? -1 : n_sizes;
    *is_known = n_scales != -2 && n_sizes != -2;
    if (!*is_known)
        return MOPT_OK;
    MO_TRY(read_roi(ctx, g, n, axes, n_axes, p, is_known));
    if (n_sizes == n_axes)
        return apply_sizes(ctx, n, sizes, axes, n_axes, p, y);
    if (n_scales == n_axes && n_sizes < 0)
        return apply_scales(ctx, scales, axes, n_axes, p, y);
    return mo_fail(ctx, MOPT_DATA, "%d scales and %d sizes for %d axes", MO_MAX(n_scales, 0), MO_MAX(n_sizes, 0), n_axes);
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct resize *p = n->params;
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_shape y = x->shape;
    bool is_known = false;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    MO_TRY(read_rule(ctx, g, n, p));
    if (p->rule.mode != MO_RESIZE_NEAREST && x->dtype != MO_F32 && x->dtype != MO_UNDEFINED)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%s of %s, float32 would do", mo_node_text(n, "mode", ""),
                       mo_dtype_name(x->dtype));
    for (int axis = 0; axis < MO_MAX_RANK; axis++)
        p->scale[axis] = 1;
    if (y.rank != MO_UNKNOWN)
        MO_TRY(read_new_shape(ctx, g, n, p, &y, &is_known));
    for (int axis = 0; axis < y.rank; axis++) {
        if (!is_known)
            y.dim[axis] = MO_UNKNOWN;
        if (y.dim[axis] > 0 && x->shape.dim[axis] == 0)
            return mo_fail(ctx, MOPT_DATA, "axis %d has no elements to make %lld of", axis, (long long)y.dim[axis]);
        if (y.dim[axis] > INT32_MAX || x->shape.dim[axis] > INT32_MAX)
            return mo_fail(ctx, MOPT_LIMIT, "axis %d has more than %d elements", axis, INT32_MAX);
    }
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

/* ---- tables, made once for the shapes ---- */

struct table {
    int n_taps;                 /* 0: the axis stays as it is */
    int32_t *from;              /* on the device */
    int64_t *index;             /* nearest: from as int64 */
    float *weight;
    int64_t *outside;           /* host: places that get the extrapolation value */
    int64_t n_outside;
};

struct tables {
    struct table of[MO_MAX_RANK];
    void *extrapolation;        /* one element on the device */
};

static void free_tables(struct mo_run *r, struct tables *t)
{
    for (int axis = 0; axis < MO_MAX_RANK; axis++) {
        r->be->free(r->dev, t->of[axis].from);
        r->be->free(r->dev, t->of[axis].index);
        r->be->free(r->dev, t->of[axis].weight);
        mo_mem_free(t->of[axis].outside);
    }
    r->be->free(r->dev, t->extrapolation);
    mo_mem_free(t);
}

static bool to_device(struct mo_run *r, void *to, const void *host, size_t bytes)
{
    void *mem = r->be->alloc(r->dev, MO_MAX(bytes, (size_t)1));
    if (mem)
        r->be->upload(r->dev, mem, host, bytes);
    memcpy(to, &mem, sizeof mem);
    return mem != NULL;
}

static bool make_table(struct mo_run *r, const struct resize *p, int axis, int64_t n_x, int64_t n_y, struct table *t)
{
    size_t n = (size_t)n_y * (size_t)(t->n_taps = mo_resample_taps(&p->rule, p->scale[axis]));
    int32_t *from = mo_mem_new(n + 1, sizeof *from);
    int64_t *index = mo_mem_new(n + 1, sizeof *index);
    float *weight = mo_mem_new(n + 1, sizeof *weight);
    t->outside = mo_mem_new((size_t)n_y + 1, sizeof *t->outside);
    bool is_ok = from && index && weight && t->outside;
    for (int64_t j = 0; is_ok && j < n_y; j++)
        if (!mo_resample_place(&p->rule, n_x, n_y, p->scale[axis], p->roi[axis], j, from + j * t->n_taps,
                               weight + j * t->n_taps))
            t->outside[t->n_outside++] = j;
    for (size_t i = 0; is_ok && i < n; i++)
        index[i] = from[i];
    bool is_nearest = p->rule.mode == MO_RESIZE_NEAREST;
    if (is_ok && is_nearest)
        is_ok = to_device(r, &t->index, index, n * sizeof *index);
    else if (is_ok)
        is_ok = to_device(r, &t->from, from, n * sizeof *from) && to_device(r, &t->weight, weight, n * sizeof *weight);
    mo_mem_free(from);
    mo_mem_free(index);
    mo_mem_free(weight);
    return is_ok;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    void **handle = mo_run_handle(r, n);
    if (*handle)
        free_tables(r, *handle);
    *handle = NULL;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    const struct resize *p = n->params;
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape, *y = &mo_out(r->graph, n, 0)->shape;
    struct tables *t = mo_mem_new(1, sizeof *t);
    bool is_ok = t && to_device(r, &t->extrapolation, &p->extrapolation, sizeof p->extrapolation);
    for (int axis = 0; is_ok && axis < x->rank; axis++)
        if (x->dim[axis] != y->dim[axis] || p->scale[axis] != 1 || p->rule.coord == MO_COORD_TF_CROP_AND_RESIZE)
            is_ok = make_table(r, p, axis, x->dim[axis], y->dim[axis], &t->of[axis]);
    *mo_run_handle(r, n) = t;
    return is_ok ? MOPT_OK : mo_no_memory(r->ctx, (uint64_t)mo_shape_elems(y), "resize tables");
}

/* ---- run ---- */

/* The largest tensor on the way from x to y. */
static size_t buffer_bytes(const struct mo_run *r, const struct mo_node *n, size_t elem_bytes)
{
    const struct mo_shape *y = &mo_out(r->graph, n, 0)->shape;
    struct mo_shape now = mo_in(r->graph, n, 0)->shape;
    int64_t most = 0;
    for (int axis = 0; axis < now.rank; axis++) {
        now.dim[axis] = y->dim[axis];
        most = MO_MAX(most, mo_shape_elems(&now));
    }
    return mo_part_bytes((size_t)most * elem_bytes);
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    size_t elem_bytes = backward ? sizeof(float) : mo_elem_bytes(mo_in(r->graph, n, 0)->dtype);
    size_t of_x = backward ? mo_part_bytes((size_t)mo_value_elems(mo_in(r->graph, n, 0)) * elem_bytes) : 0;
    return 2 * MO_MAX(buffer_bytes(r, n, elem_bytes), of_x);
}

/* One axis of x, whose shape is `now`, into y. */
static void step(struct mo_run *r, const struct tables *t, size_t bytes, const struct mo_shape *now, int axis, int64_t n_y,
                 const void *x, void *y)
{
    const struct table *of = &t->of[axis];
    int64_t outer = mo_dims_product(now, 0, axis), inner = mo_dims_product(now, axis + 1, now->rank);
    if (of->index)
        r->be->gather(r->dev, bytes, outer, now->dim[axis], n_y, inner, x, of->index, y);
    else
        r->be->resample(r->dev, outer, now->dim[axis], inner, n_y, of->n_taps, of->from, of->weight, x, y);
    const int64_t dims[2] = { outer, inner }, still[2] = { 0, 0 }, to[2] = { n_y * inner, 1 };
    for (int64_t k = 0; k < of->n_outside; k++)
        r->be->copy_strided(r->dev, bytes, 2, dims, still, to, t->extrapolation,
                            (char *)y + (size_t)(of->outside[k] * inner) * bytes);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct tables *t = *mo_run_handle(r, n);
    const struct mo_value *x = mo_in(r->graph, n, 0), *y = mo_out(r->graph, n, 0);
    size_t bytes = mo_elem_bytes(x->dtype), part = buffer_bytes(r, n, bytes);
    char *buffer[2] = { mo_run_scratch(r, n), (char *)mo_run_scratch(r, n) + part };
    struct mo_shape now = x->shape;
    const void *from = mo_run_in(r, n, 0);
    int which = 0, last = -1;
    for (int axis = 0; axis < now.rank; axis++)
        if (t->of[axis].n_taps)
            last = axis;
    if (last < 0)
        mo_copy(r, bytes, mo_value_elems(x), from, mo_run_out(r, n, 0));
    for (int axis = 0; axis <= last; axis++) {
        if (!t->of[axis].n_taps)
            continue;
        void *to = axis == last ? mo_run_out(r, n, 0) : buffer[which];
        step(r, t, bytes, &now, axis, y->shape.dim[axis], from, to);
        now.dim[axis] = y->shape.dim[axis];
        from = to;
        which = !which;
    }
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_run *r, const struct mo_node *n)
{
    const struct tables *t = *mo_run_handle(r, n);
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    struct mo_shape now = mo_out(r->graph, n, 0)->shape;
    float *dx = mo_run_grad_in(r, n, 0);
    const float *from = mo_run_grad_out(r, n, 0);
    size_t part = dx ? scratch_bytes(r, n, true) / 2 : 0;
    int which = 0;
    if (!dx)
        return MOPT_OK;
    for (int axis = now.rank - 1; axis >= 0; axis--) {
        const struct table *of = &t->of[axis];
        if (!of->n_taps)
            continue;
        if (of->n_outside)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "the gradient of a crop that reaches outside");
        float *to = (float *)((char *)mo_run_scratch(r, n) + (which ? part : 0));
        int64_t n_y = now.dim[axis];
        now.dim[axis] = x->dim[axis];
        int64_t outer = mo_dims_product(&now, 0, axis), inner = mo_dims_product(&now, axis + 1, now.rank);
        mo_zero(r, sizeof *to, mo_shape_elems(&now), to);
        if (of->index)
            r->be->gather_grad(r->dev, outer, now.dim[axis], n_y, inner, from, of->index, to);
        else
            r->be->resample_grad(r->dev, outer, now.dim[axis], inner, n_y, of->n_taps, of->from, of->weight, from, to);
        from = to;
        which = !which;
    }
    mo_copy(r, sizeof *dx, mo_shape_elems(x), from, dx);
    return MOPT_OK;
}

static void couple(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_couple_axes(c, g, n->in[0], n->out[0], -1);
}

/* Scales and sizes keep their order; the attribute that says which axes they are of is renamed. */
static bool permute(struct mo_graph *g, struct mo_node *n, const int *perm, int rank)
{
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, "axes", &n_ints);
    int64_t axes[MO_MAX_RANK];
    bool has_axes = mo_node_attr(n, "axes") != NULL;
    int count = has_axes ? (int)n_ints : rank;
    for (int k = 0; k < count; k++) {
        int64_t axis = has_axes ? ints[k] : k;
        axes[k] = mo_permuted_axis(perm, rank, (int)(axis < 0 ? axis + rank : axis));
    }
    return mo_node_set_ints(g, (mo_node_id)(n - g->nodes), "axes", axes, (size_t)count);
}

#define RESIZE(id, Type, since)                                                                                 \
    const struct mo_op mo_op_##id = {                                                                           \
        .type = Type,                                                                                           \
        .since_opset = since,                                                                                   \
        .min_in = 1, .max_in = 4, .min_out = 1, .max_out = 1,                                                   \
        .params_bytes = sizeof(struct resize),                                                                  \
        .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward, .backward = backward,   \
        .values_in = 0xe, .macs = mo_macs_zero, .couple = couple, .permute = permute,                           \
        .scratch_bytes = scratch_bytes,                                                                         \
    };
RESIZE(resize, "Resize", 10)
RESIZE(upsample, "Upsample", 7)
