/* window.h - the sliding window that convolutions and poolings share: its
 * attributes, and where it may stand. */
#ifndef MO_WINDOW_H
#define MO_WINDOW_H

#include "kernels/backend.h"
#include "lib/graph/op.h"

#define MO_MAX_SPATIAL (MO_MAX_RANK - 2)

enum mo_auto_pad { MO_PAD_EXPLICIT, MO_PAD_SAME_UPPER, MO_PAD_SAME_LOWER, MO_PAD_VALID };

struct mo_window {
    int n_spatial;
    bool channels_last;
    enum mo_auto_pad auto_pad;
    bool ceil_mode;
    int64_t in[MO_MAX_SPATIAL], out[MO_MAX_SPATIAL];        /* MO_UNKNOWN where not known */
    int64_t kernel[MO_MAX_SPATIAL], stride[MO_MAX_SPATIAL], dilation[MO_MAX_SPATIAL];
    int64_t pad_begin[MO_MAX_SPATIAL], pad_end[MO_MAX_SPATIAL];
};

/* Reads kernel_shape (checked against, or taken from, the spatial sizes of a weight when there is one),
 * strides, dilations, pads, auto_pad and ceil_mode; x: shape of rank 3 or more. Does not fill out. */
MOPT_MUST_CHECK enum mopt_status mo_window_read(struct mopt_ctx *ctx, const struct mo_node *n, const struct mo_shape *x,
                                                const struct mo_shape *weight, struct mo_window *w);
/* Sizes of what a convolution or pooling gives out, and the padding that auto_pad means. */
MOPT_MUST_CHECK enum mopt_status mo_window_slide(struct mopt_ctx *ctx, struct mo_window *w);
/* batch x channels x sizes in the layout of the node. */
struct mo_shape mo_window_shape(const struct mo_window *w, int64_t batch, int64_t channels, const int64_t *sizes);
int64_t mo_window_channels(const struct mo_window *w, const struct mo_shape *x);
int64_t mo_window_taps(const struct mo_window *w);                  /* MO_UNKNOWN */
/* (kernel - 1) * dilation + 1 */
int64_t mo_window_span(const struct mo_window *w, int axis);
/* Kernels take one to three spatial axes; refuses more. */
MOPT_MUST_CHECK enum mopt_status mo_window_runs(struct mopt_ctx *ctx, const struct mo_window *w);
/* into[3] from the window's entries, the rest filled up. */
void mo_window_copy3(const struct mo_window *w, const int64_t *from, int64_t fill, int64_t into[3]);
/* The whole window into the fields of those names that struct mo_conv_desc and struct mo_pool_desc share. */
#define MO_WINDOW_INTO(desc, window)                                                                                   \
    do {                                                                                                               \
        const struct mo_window *w_ = (window);                                                                         \
        mo_window_copy3(w_, w_->in, 1, (desc).in);                                                                     \
        mo_window_copy3(w_, w_->out, 1, (desc).out);                                                                   \
        mo_window_copy3(w_, w_->kernel, 1, (desc).kernel);                                                             \
        mo_window_copy3(w_, w_->stride, 1, (desc).stride);                                                             \
        mo_window_copy3(w_, w_->dilation, 1, (desc).dilation);                                                         \
        mo_window_copy3(w_, w_->pad_begin, 0, (desc).pad_begin);                                                       \
        mo_window_copy3(w_, w_->pad_end, 0, (desc).pad_end);                                                           \
    } while (0)

#endif
