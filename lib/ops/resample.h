/* resample.h - how one axis is resized: for each place of y, which places of x are read
 * and with which weight. After ONNX's definition of Resize (operator 19) and its
 * coordinate transformations. */
#ifndef MO_OPS_RESAMPLE_H
#define MO_OPS_RESAMPLE_H

#include "lib/base/base.h"

enum mo_resize_mode { MO_RESIZE_NEAREST, MO_RESIZE_LINEAR, MO_RESIZE_CUBIC };
enum mo_coord {
    MO_COORD_HALF_PIXEL, MO_COORD_HALF_PIXEL_SYMMETRIC, MO_COORD_PYTORCH_HALF_PIXEL, MO_COORD_ALIGN_CORNERS,
    MO_COORD_ASYMMETRIC, MO_COORD_TF_HALF_PIXEL_FOR_NN, MO_COORD_TF_CROP_AND_RESIZE,
};
enum mo_nearest { MO_NEAREST_ROUND_PREFER_FLOOR, MO_NEAREST_ROUND_PREFER_CEIL, MO_NEAREST_FLOOR, MO_NEAREST_CEIL };

/* How to resize, the same for all axes. */
struct mo_resize_rule {
    enum mo_resize_mode mode;
    enum mo_coord coord;
    enum mo_nearest nearest;
    bool antialias, exclude_outside;
    float cubic_a;
};

/* Taps of each y: mo_resample_taps of them. */
int mo_resample_taps(const struct mo_resize_rule *rule, double scale);
/* from, weight: taps of place j of y. False: it lies outside of x and gets the extrapolation value (crop and
 * resize). roi: begin and end of the region in parts of x. */
bool mo_resample_place(const struct mo_resize_rule *rule, int64_t n_x, int64_t n_y, double scale, const double *roi,
                       int64_t j, int32_t *from, float *weight);

#endif
