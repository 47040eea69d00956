/* window.c - attributes and sizes of sliding windows.
 *
 *     out = (in + pad_begin + pad_end - ((kernel - 1) dilation + 1)) / stride + 1
 *
 * rounded down, or up with ceil_mode; a window that would start behind the input
 * and its left padding is left out. */
#include "lib/ops/window.h"

#include <string.h>

/* Above this a size in an attribute is nonsense, and below it sums and products of two fit int64. */
#define LIMIT ((int64_t)1 << 30)

static enum mopt_status read_list(struct mopt_ctx *ctx, const struct mo_node *n, const char *name, int count,
                                  int64_t least, int64_t otherwise, int64_t *into)
{
    size_t n_ints;
    const int64_t *ints = mo_node_ints(n, name, &n_ints);
    for (int i = 0; i < count; i++)
        into[i] = otherwise;
    if (!n_ints)
        return MOPT_OK;
    if (n_ints != (size_t)count)
        return mo_fail(ctx, MOPT_DATA, "%s has %zu entries, not %d", name, n_ints, count);
    for (int i = 0; i < count; i++) {
        if (ints[i] < least || ints[i] > LIMIT)
            return mo_fail(ctx, MOPT_DATA, "%s has the entry %lld, it must be at least %lld", name, (long long)ints[i],
                           (long long)least);
        into[i] = ints[i];
    }
    return MOPT_OK;
}

static enum mopt_status read_auto_pad(struct mopt_ctx *ctx, const struct mo_node *n, struct mo_window *w)
{
    static const char *const names[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    const char *text = mo_node_text(n, "auto_pad", "NOTSET");
    for (size_t i = 0; i < MO_COUNT(names); i++)
        if (!strcmp(text, names[i])) {
            w->auto_pad = (enum mo_auto_pad)i;
            return MOPT_OK;
        }
    return mo_fail(ctx, MOPT_DATA, "auto_pad is '%s', not NOTSET, SAME_UPPER, SAME_LOWER or VALID", text);
}

static enum mopt_status read_kernel(struct mopt_ctx *ctx, const struct mo_node *n, const struct mo_shape *weight,
                                    struct mo_window *w)
{
    MO_TRY(read_list(ctx, n, "kernel_shape", w->n_spatial, 1, MO_UNKNOWN, w->kernel));
    for (int i = 0; i < w->n_spatial; i++) {
        int64_t of_weight = weight && weight->rank != MO_UNKNOWN ? weight->dim[2 + i] : MO_UNKNOWN;
        if (w->kernel[i] == MO_UNKNOWN)
            w->kernel[i] = of_weight;
        else if (of_weight != MO_UNKNOWN && of_weight != w->kernel[i])
            return mo_fail(ctx, MOPT_DATA, "kernel_shape says %lld, the weight has %lld", (long long)w->kernel[i],
                           (long long)of_weight);
        if (!weight && w->kernel[i] == MO_UNKNOWN)
            return mo_fail(ctx, MOPT_DATA, "kernel_shape is missing");
        if (w->kernel[i] == 0 || w->kernel[i] > LIMIT)
            return mo_fail(ctx, MOPT_DATA, "a kernel of size %lld", (long long)w->kernel[i]);
    }
    return MOPT_OK;
}

enum mopt_status mo_window_read(struct mopt_ctx *ctx, const struct mo_node *n, const struct mo_shape *x,
                                const struct mo_shape *weight, struct mo_window *w)
{
    char text[128];
    *w = (struct mo_window){.n_spatial = x->rank - 2, .channels_last = n->channels_last};
    if (x->rank < 3)
        return mo_fail(ctx, MOPT_DATA, "input 0 is %s, it must have batch, channels and at least one more axis",
                       mo_shape_text(x, text, sizeof text));
    if (weight && weight->rank != MO_UNKNOWN && weight->rank != x->rank)
        return mo_fail(ctx, MOPT_DATA, "the input has rank %d, the weight %d", x->rank, weight->rank);
    int64_t pads[2 * MO_MAX_SPATIAL];
    MO_TRY(read_kernel(ctx, n, weight, w));
    MO_TRY(read_list(ctx, n, "strides", w->n_spatial, 1, 1, w->stride));
    MO_TRY(read_list(ctx, n, "dilations", w->n_spatial, 1, 1, w->dilation));
    MO_TRY(read_list(ctx, n, "pads", 2 * w->n_spatial, 0, 0, pads));
    MO_TRY(read_auto_pad(ctx, n, w));
    w->ceil_mode = mo_node_int(n, "ceil_mode", 0) != 0;
    for (int i = 0; i < w->n_spatial; i++) {
        w->in[i] = x->dim[(w->channels_last ? 1 : 2) + i];
        w->out[i] = MO_UNKNOWN;
        w->pad_begin[i] = w->auto_pad == MO_PAD_EXPLICIT ? pads[i] : 0;
        w->pad_end[i] = w->auto_pad == MO_PAD_EXPLICIT ? pads[w->n_spatial + i] : 0;
        if (w->in[i] > LIMIT)
            return mo_fail(ctx, MOPT_LIMIT, "an image of size %lld", (long long)w->in[i]);
    }
    return MOPT_OK;
}

int64_t mo_window_span(const struct mo_window *w, int axis)
{
    return (w->kernel[axis] - 1) * w->dilation[axis] + 1;
}

/* So much padding that there is one window for each stride. */
static void slide_same(struct mo_window *w, int i)
{
    w->out[i] = (w->in[i] + w->stride[i] - 1) / w->stride[i];
    int64_t pad = (w->out[i] - 1) * w->stride[i] + mo_window_span(w, i) - w->in[i];
    pad = pad > 0 ? pad : 0;
    w->pad_begin[i] = w->auto_pad == MO_PAD_SAME_UPPER ? pad / 2 : pad - pad / 2;
    w->pad_end[i] = pad - w->pad_begin[i];
}

enum mopt_status mo_window_slide(struct mopt_ctx *ctx, struct mo_window *w)
{
    for (int i = 0; i < w->n_spatial; i++) {
        w->out[i] = MO_UNKNOWN;
        if (w->in[i] == MO_UNKNOWN || w->kernel[i] == MO_UNKNOWN)
            continue;
        if (w->auto_pad == MO_PAD_SAME_UPPER || w->auto_pad == MO_PAD_SAME_LOWER) {
            slide_same(w, i);
            continue;
        }
        int64_t room = w->in[i] + w->pad_begin[i] + w->pad_end[i] - mo_window_span(w, i);
        if (room < 0)
            return mo_fail(ctx, MOPT_DATA, "a kernel that reaches over %lld does not fit into %lld with its padding",
                           (long long)mo_window_span(w, i), (long long)(room + mo_window_span(w, i)));
        w->out[i] = (room + (w->ceil_mode ? w->stride[i] - 1 : 0)) / w->stride[i] + 1;
        if (w->ceil_mode && (w->out[i] - 1) * w->stride[i] >= w->in[i] + w->pad_begin[i])
            w->out[i]--;
    }
    return MOPT_OK;
}

struct mo_shape mo_window_shape(const struct mo_window *w, int64_t batch, int64_t channels, const int64_t *sizes)
{
    struct mo_shape shape = {.rank = w->n_spatial + 2};
    shape.dim[0] = batch;
    shape.dim[w->channels_last ? shape.rank - 1 : 1] = channels;
    for (int i = 0; i < w->n_spatial; i++)
        shape.dim[(w->channels_last ? 1 : 2) + i] = sizes[i];
    return shape;
}

int64_t mo_window_channels(const struct mo_window *w, const struct mo_shape *x)
{
    return x->dim[w->channels_last ? x->rank - 1 : 1];
}

int64_t mo_window_taps(const struct mo_window *w)
{
    int64_t taps = 1;
    for (int i = 0; i < w->n_spatial; i++)
        if (w->kernel[i] == MO_UNKNOWN || __builtin_mul_overflow(taps, w->kernel[i], &taps))
            return MO_UNKNOWN;
    return taps;
}

enum mopt_status mo_window_runs(struct mopt_ctx *ctx, const struct mo_window *w)
{
    if (w->n_spatial > 3)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%d spatial axes, at most 3 are computed", w->n_spatial);
    if (mo_window_taps(w) == MO_UNKNOWN)
        return mo_fail(ctx, MOPT_LIMIT, "its window is too large");
    return MOPT_OK;
}

void mo_window_copy3(const struct mo_window *w, const int64_t *from, int64_t fill, int64_t into[3])
{
    for (int i = 0; i < 3; i++)
        into[i] = i < w->n_spatial ? from[i] : fill;
}
