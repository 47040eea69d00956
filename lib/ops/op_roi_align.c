/* RoiAlign (He et al. 2017): each region of an image is cut into output_height x output_width bins; in a bin
 * sampling_ratio x sampling_ratio points (0: as many as it has pixels) are interpolated between pixels, and their
 * average or, with mode max, the largest weighted pixel among them is the result. Points further than one pixel
 * outside count as 0.
 *
 * Places are computed in float32, the type of the regions, as other runtimes do: how many points a bin of 2 pixels has
 * jumps where its size is rounded to 2 or lies just above it, so more digits would give another result, not a better
 * one. */
#include <math.h>
#include <string.h>

#include "lib/ops/host.h"

enum { IN_X, IN_ROIS, IN_BATCH };
enum { MAX_SAMPLES = 1 << 20 };         /* of one bin: more come from a region without sense */

struct roi_align {
    bool is_max, is_half_pixel;
    int64_t height, width, ratio;
    float scale;
};

static enum mopt_status read_words(struct mopt_ctx *ctx, const struct mo_graph *g, const struct mo_node *n,
                                   struct roi_align *p)
{
    const char *mode = mo_node_text(n, "mode", "avg");
    const char *place = mo_node_text(n, "coordinate_transformation_mode", g->opset < 16 ? "output_half_pixel" : "half_pixel");
    p->is_max = !strcmp(mode, "max");
    p->is_half_pixel = !strcmp(place, "half_pixel");
    if (!p->is_max && strcmp(mode, "avg"))
        return mo_fail(ctx, MOPT_DATA, "mode '%s', it should be avg or max", mode);
    if (!p->is_half_pixel && strcmp(place, "output_half_pixel"))
        return mo_fail(ctx, MOPT_DATA, "coordinate_transformation_mode '%s', it should be half_pixel or output_half_pixel",
                       place);
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct roi_align *p = n->params;
    const struct mo_value *x = mo_in(g, n, IN_X);
    const struct mo_shape *rois = &mo_in(g, n, IN_ROIS)->shape, *batch = &mo_in(g, n, IN_BATCH)->shape;
    char text_r[128], text_b[128];
    MO_TRY(read_words(ctx, g, n, p));
    p->height = mo_node_int(n, "output_height", 1);
    p->width = mo_node_int(n, "output_width", 1);
    p->ratio = mo_node_int(n, "sampling_ratio", 0);
    p->scale = mo_node_float(n, "spatial_scale", 1);
    if (p->height < 1 || p->width < 1 || p->ratio < 0 || p->ratio > 1024)
        return mo_fail(ctx, MOPT_DATA, "bins %lldx%lld with a sampling_ratio of %lld", (long long)p->height,
                       (long long)p->width, (long long)p->ratio);
    if (x->shape.rank != MO_UNKNOWN && x->shape.rank != 4)
        return mo_fail(ctx, MOPT_DATA, "an input of rank %d, it should be 4", x->shape.rank);
    bool fits = (rois->rank == MO_UNKNOWN || (rois->rank == 2 && (rois->dim[1] == MO_UNKNOWN || rois->dim[1] == 4))) &&
                (batch->rank == MO_UNKNOWN || batch->rank == 1);
    if (fits && mo_shape_known(rois) && mo_shape_known(batch))
        fits = rois->dim[0] == batch->dim[0];
    if (!fits)
        return mo_fail(ctx, MOPT_DATA, "regions are %s and their images %s, they should be Nx4 and N",
                       mo_shape_text(rois, text_r, sizeof text_r), mo_shape_text(batch, text_b, sizeof text_b));
    struct mo_shape y = mo_shape_of(4, rois->rank == 2 ? rois->dim[0] : (int64_t)MO_UNKNOWN,
                                    x->shape.rank == 4 ? x->shape.dim[1] : (int64_t)MO_UNKNOWN, p->height, p->width);
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    for (uint32_t i = IN_X; i <= IN_ROIS; i++)
        if (mo_in(r->graph, n, i)->dtype != MO_F32)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", i,
                           mo_dtype_name(mo_in(r->graph, n, i)->dtype));
    return MOPT_OK;
}

/* ---- one region ---- */

struct point { int64_t at[4]; float weight[4]; };
struct region { float start[2], bin[2]; int64_t n_points[2]; };       /* by height and width */

static struct region region_of(const struct roi_align *p, const float *roi)
{
    const int64_t n_bins[2] = { p->height, p->width };
    float offset = p->is_half_pixel ? 0.5f : 0;
    struct region region;
    for (int k = 0; k < 2; k++) {
        float from = roi[1 - k] * p->scale - offset, to = roi[3 - k] * p->scale - offset;
        float size = p->is_half_pixel ? to - from : fmaxf(to - from, 1);
        region.start[k] = from;
        region.bin[k] = size / (float)n_bins[k];
        float wanted = ceilf(region.bin[k]);
        region.n_points[k] = p->ratio > 0 ? p->ratio : wanted >= 1 && wanted <= (float)MAX_SAMPLES ? (int64_t)wanted : 0;
    }
    return region;
}

/* Between which pixels a point lies on one axis, and how far from the lower one. False: outside. */
static bool place(float at, int64_t size, int64_t *low, int64_t *high, float *share)
{
    if (!(at >= -1 && at <= (float)size) || size < 1)
        return false;
    at = fmaxf(at, 0);
    *low = (int64_t)at;
    *high = *low + 1;
    if (*low >= size - 1) {
        *low = *high = size - 1;
        at = (float)*low;
    }
    *share = at - (float)*low;
    return true;
}

static struct point point_at(float y, float x, int64_t height, int64_t width)
{
    struct point point = { 0 };
    int64_t low[2], high[2];
    float share[2];
    if (!place(y, height, &low[0], &high[0], &share[0]) || !place(x, width, &low[1], &high[1], &share[1]))
        return point;
    for (int k = 0; k < 4; k++) {
        bool is_low = k & 2, is_right = k & 1;
        point.at[k] = (is_low ? high[0] : low[0]) * width + (is_right ? high[1] : low[1]);
        point.weight[k] = (is_low ? share[0] : 1 - share[0]) * (is_right ? share[1] : 1 - share[1]);
    }
    return point;
}

/* All channels of one bin: y is strided by y_step, images by height x width. */
static void bin_of(const struct roi_align *p, const struct region *region, const int64_t bin[2], const float *x,
                   const struct mo_shape *shape, float *y, int64_t y_step)
{
    int64_t height = shape->dim[2], width = shape->dim[3], count = region->n_points[0] * region->n_points[1];
    for (int64_t i = 0; i < count; i++) {
        const int64_t at[2] = { i / region->n_points[1], i % region->n_points[1] };
        float place_of[2];
        for (int k = 0; k < 2; k++)
            place_of[k] = region->start[k] + (float)bin[k] * region->bin[k] +
                          ((float)at[k] + 0.5f) * region->bin[k] / (float)region->n_points[k];
        struct point point = point_at(place_of[0], place_of[1], height, width);
        for (int64_t c = 0; c < shape->dim[1]; c++) {
            const float *image = x + c * height * width;
            float term[4], *to = y + c * y_step;
            for (int k = 0; k < 4; k++)
                term[k] = point.weight[k] * image[point.at[k]];
            if (!p->is_max) {
                *to += term[0] + term[1] + term[2] + term[3];
                continue;
            }
            float best = fmaxf(fmaxf(term[0], term[1]), fmaxf(term[2], term[3]));
            *to = i == 0 ? best : fmaxf(*to, best);
        }
    }
    for (int64_t c = 0; !p->is_max && c < shape->dim[1]; c++)
        y[c * y_step] /= (float)MO_MAX(count, 1);
}

static enum mopt_status align_all(struct mo_host *h, const struct roi_align *p, float *y)
{
    const struct mo_value *x = mo_in(h->run->graph, h->node, IN_X), *batch = mo_in(h->run->graph, h->node, IN_BATCH);
    int64_t n_rois = mo_value_elems(batch), bins = p->height * p->width, channels = x->shape.dim[1];
    int64_t image = channels * x->shape.dim[2] * x->shape.dim[3];
    for (int64_t i = 0; i < n_rois; i++) {
        int64_t from = mo_host_int(batch->dtype, h->in[IN_BATCH], i);
        if (from < 0 || from >= x->shape.dim[0])
            return mo_fail(h->run->ctx, MOPT_DATA, "region %lld is in image %lld, there are %lld", (long long)i,
                           (long long)from, (long long)x->shape.dim[0]);
        struct region region = region_of(p, (const float *)h->in[IN_ROIS] + 4 * i);
        if (image == 0)
            continue;
        for (int64_t b = 0; b < bins; b++)
            bin_of(p, &region, (const int64_t[]){ b / p->width, b % p->width },
                   (const float *)h->in[IN_X] + from * image, &x->shape, y + i * channels * bins + b, bins);
        MO_TRY(mo_stopped(h->run->ctx));
    }
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    size_t n_y = mo_run_out_elems(r, n, 0);
    float *y = mo_mem_new(n_y + 1, sizeof *y);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !y)
        status = mo_no_memory(r->ctx, n_y * sizeof *y, "aligned regions");
    if (!status)
        status = align_all(&h, n->params, y);
    if (!status)
        mo_host_put(&h, 0, y);
    mo_mem_free(y);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_roi_align = {
    .type = "RoiAlign",
    .since_opset = 10,
    .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct roi_align),
    .infer = infer, .prepare = prepare, .forward = forward,
};
