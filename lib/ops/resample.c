/* resample.c - see resample.h. */
#include "lib/ops/resample.h"

#include <math.h>

/* y's place in x's coordinates. length: n_x * scale before it was rounded down to n_y. */
static double coordinate(const struct mo_resize_rule *rule, double n_x, double n_y, double scale, const double *roi, double j)
{
    double length = n_x * scale;
    switch (rule->coord) {
    case MO_COORD_HALF_PIXEL_SYMMETRIC:
        return n_x / 2 * (1 - n_y / length) + (j + 0.5) / scale - 0.5;
    case MO_COORD_PYTORCH_HALF_PIXEL:
        return length == 1 ? -0.5 : (j + 0.5) / scale - 0.5;
    case MO_COORD_ALIGN_CORNERS:
        return length == 1 ? 0 : j * (n_x - 1) / (length - 1);
    case MO_COORD_ASYMMETRIC:
        return j / scale;
    case MO_COORD_TF_HALF_PIXEL_FOR_NN:
        return (j + 0.5) / scale;
    case MO_COORD_TF_CROP_AND_RESIZE:
        return roi[0] * (n_x - 1) + (length == 1 ? (roi[1] - roi[0]) * (n_x - 1) / 2
                                                 : j * (roi[1] - roi[0]) * (n_x - 1) / (length - 1));
    default:
        return (j + 0.5) / scale - 0.5;
    }
}

/* Keys' kernel: IEEE Transactions on Acoustics, Speech and Signal Processing 29 (1981). */
static double cubic(double x, double a)
{
    x = fabs(x);
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* The filter's first place relative to the pixel left of the coordinate; it is as wide on the other side. Against
 * aliasing it is stretched by 1 / scale when the image shrinks. */
static int first_tap(const struct mo_resize_rule *rule, double scale)
{
    double shrink = rule->antialias && scale < 1 ? scale : 1, radius = rule->mode == MO_RESIZE_CUBIC ? 2 : 1;
    return (int)floor(-radius / shrink) + 1;
}

int mo_resample_taps(const struct mo_resize_rule *rule, double scale)
{
    return rule->mode == MO_RESIZE_NEAREST ? 1 : 2 - 2 * first_tap(rule, scale);
}

static int64_t nearest(const struct mo_resize_rule *rule, double x)
{
    switch (rule->nearest) {
    case MO_NEAREST_ROUND_PREFER_CEIL: return (int64_t)floor(x + 0.5);
    case MO_NEAREST_FLOOR: return (int64_t)floor(x);
    case MO_NEAREST_CEIL: return (int64_t)ceil(x);
    default: return (int64_t)ceil(x - 0.5);
    }
}

static int32_t held(int64_t i, int64_t n)
{
    return (int32_t)(i < 0 ? 0 : i >= n ? n - 1 : i);
}

bool mo_resample_place(const struct mo_resize_rule *rule, int64_t n_x, int64_t n_y, double scale, const double *roi,
                       int64_t j, int32_t *from, float *weight)
{
    double x = coordinate(rule, (double)n_x, (double)n_y, scale, roi, (double)j), sum = 0;
    bool is_inside = rule->coord != MO_COORD_TF_CROP_AND_RESIZE || (x >= 0 && x <= (double)(n_x - 1));
    int n_taps = mo_resample_taps(rule, scale), first = first_tap(rule, scale);
    if (rule->mode == MO_RESIZE_NEAREST) {
        from[0] = held(nearest(rule, x), n_x);
        weight[0] = 1;
        return is_inside;
    }
    double left = ceil(x) - 1, ratio = x - left, shrink = rule->antialias && scale < 1 ? scale : 1;
    for (int t = 0; t < n_taps; t++) {
        int64_t at = (int64_t)left + first + t;
        double distance = (first + t - ratio) * shrink;
        double w = rule->mode == MO_RESIZE_CUBIC ? cubic(distance, rule->cubic_a) : fmax(0, 1 - fabs(distance));
        if (rule->exclude_outside && (at < 0 || at >= n_x))
            w = 0;
        from[t] = held(at, n_x);
        weight[t] = (float)w;
        sum += w;
    }
    if (rule->antialias || rule->exclude_outside)
        for (int t = 0; t < n_taps && sum != 0; t++)
            weight[t] = (float)(weight[t] / sum);
    return is_inside;
}
