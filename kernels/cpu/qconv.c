/* qconv.c - convolution of 8-bit numbers as products of rows of pixels and packed
 * weights: how rows are found, how the work is cut, and plain C where no tier can.
 *
 * A row is what one output pixel reads. Three ways to it:
 *   MATRIX   kernels of one tap: rows are the pixels of x as they are
 *   PICTURE  a copy of some rows of a picture with its padding; output pixels side by side begin `stride` pixels
 *            apart, so that all taps of a row of the kernel are one contiguous segment. With stride 1 the whole
 *            band is one run of rows: what is computed between the lines of the picture is left out afterwards
 *   GATHER   each row copied on its own: groups, three axes, strides over small pictures
 * Signed activations are turned into unsigned ones on the way (x + 128), signed like weights. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/fast.h"
#include "kernels/cpu/qconv.h"
#include "kernels/cpu/team.h"

#define MAX_SLICES 64
#define SLICE_MACS (1 << 20)            /* worth a slice of its own */
#define BLOCK_BYTES (256 << 10)         /* of rows: half of a small second-level cache */
#define SLACK 256                       /* bytes that may be read behind the rows */

enum way { MATRIX, PICTURE, GATHER, DEPTHWISE };

struct fast {
    struct mo_qconv *plain;             /* this one does it all, when it is there */
    const struct mo_qloops *loops;
    struct mo_qproduct product;
    enum way way;
    /* depth, height, width; a missing axis is a leading 1 */
    int64_t batch, groups, in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    int64_t channels, group_in, group_out;
    uint8_t flip;                       /* 128 for signed activations: xor */
    uint8_t fill;                       /* the padding, flipped */
    /* rows */
    int64_t *segment;
    int n_segments, n_groups, step;
    int64_t row_bytes;                  /* GATHER: of a row */
    int64_t pitch;                      /* PICTURE, DEPTHWISE: pixels of a padded line */
    bool is_one_run;
    /* weights and what follows the sums */
    int8_t *w;
    int64_t panel_bytes, group_panels;
    int32_t *bias;                      /* less what the zero point of x takes away */
    int32_t *given_bias, *w_sum;        /* of each channel */
    int32_t x_zero;                     /* that bias and fill are for */
    int64_t n_table;
    float *factor, *offset;
    struct mo_qfinish finish;
    size_t y_bytes;                     /* of an element */
    /* cutting: units are blocks of rows (MATRIX, GATHER), or bands of lines of a picture, times parts of the panels */
    int64_t unit_rows, n_units, bands, n_parts;
    int n_slices;
    size_t scratch_each;
};

static struct fast *fast_of(struct mo_qconv *q)
{
    return (struct fast *)q;
}

static int64_t product3(const int64_t v[3])
{
    return v[0] * v[1] * v[2];
}

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* ---- shapes --------------------------------------------------------------------------------- */

static void take_axes(const struct mo_conv_desc *d, const int64_t *from, int64_t otherwise, int64_t to[3])
{
    int lead = 3 - d->n_spatial;
    for (int i = 0; i < 3; i++)
        to[i] = i < lead ? otherwise : from[i - lead];
}

static void take_shape(struct fast *f, const struct mo_conv_desc *d)
{
    f->batch = d->batch;
    f->groups = d->groups;
    f->channels = d->in_channels;
    f->group_in = d->in_channels / d->groups;
    f->group_out = d->out_channels / d->groups;
    take_axes(d, d->in, 1, f->in);
    take_axes(d, d->out, 1, f->out);
    take_axes(d, d->kernel, 1, f->kernel);
    take_axes(d, d->stride, 1, f->stride);
    take_axes(d, d->dilation, 1, f->dilation);
    take_axes(d, d->pad_begin, 0, f->pad);
}

static bool has_one_tap(const struct fast *f, const struct mo_conv_desc *d)
{
    bool one = true;
    for (int i = 0; i < 3; i++)
        one = one && f->kernel[i] == 1 && f->stride[i] == 1 && d->pad_begin[i] == 0 && d->pad_end[i] == 0;
    return one;
}

/* Lines too short for a tile of rows cost more in what is computed beside them than a copy of each row. */
static enum way choose(const struct fast *f, const struct mo_conv_desc *d)
{
    if (f->groups > 1 && f->group_in == 1 && f->group_out == 1 && f->in[0] == 1 && f->kernel[0] == 1)
        return DEPTHWISE;
    if (f->groups > 1 || f->in[0] > 1 || f->kernel[0] > 1)
        return GATHER;
    if (has_one_tap(f, d))
        return f->flip ? GATHER : MATRIX;
    if (f->stride[2] == 1)
        return f->out[2] >= 7 ? PICTURE : GATHER;
    return f->out[2] >= 14 && product3(f->kernel) > 1 ? PICTURE : GATHER;
}

static int64_t lines_of(const struct fast *f, int64_t out_lines)
{
    return (out_lines - 1) * f->stride[1] + (f->kernel[1] - 1) * f->dilation[1] + 1;
}

/* Segments of one row of the packed weights: contiguous taps. */
static bool make_segments(struct fast *f)
{
    bool joined = f->way == PICTURE && f->dilation[2] == 1;
    int64_t each = f->way == PICTURE ? joined ? f->kernel[1] : f->kernel[1] * f->kernel[2] : 1;
    int64_t bytes = f->way != PICTURE ? product3(f->kernel) * f->group_in : joined ? f->kernel[2] * f->channels : f->channels;
    int64_t groups = (bytes + 3) / 4, steps = (groups + MO_QSTEP - 1) / MO_QSTEP;
    f->step = (int)groups;
    if (f->product.whole_tiles) {
        f->step = (int)((groups + steps - 1) / steps);
        groups = f->step * steps;
    }
    f->n_groups = (int)groups;
    f->n_segments = (int)each;
    f->segment = calloc((size_t)each, sizeof *f->segment);
    for (int64_t s = 0; f->segment && f->way == PICTURE && s < each; s++) {
        int64_t line = joined ? s : s / f->kernel[2], tap = joined ? 0 : s % f->kernel[2];
        f->segment[s] = (line * f->dilation[1] * f->pitch + tap * f->dilation[2]) * f->channels;
    }
    f->row_bytes = round_up(groups * 4, 64);
    return f->segment != NULL;
}

/* ---- weights ------------------------------------------------------------------------------------ */

/* Where weight (tap, channel) of an output channel lies among its panel's k: segment, then byte within it. */
static int64_t place_of(const struct fast *f, int64_t tap, int64_t channel)
{
    if (f->way != PICTURE)
        return tap * f->group_in + channel;
    int64_t line = tap / f->kernel[2], column = tap % f->kernel[2];
    if (f->n_segments == f->kernel[1])
        return line * f->n_groups * 4 + column * f->channels + channel;
    return tap * f->n_groups * 4 + channel;
}

/* The weight as a signed byte whose zero is 0. */
static int8_t weight(const struct mo_qconv_desc *d, int64_t at)
{
    return d->w_signed ? ((const int8_t *)d->w)[at] : (int8_t)(((const uint8_t *)d->w)[at] - 128);
}

static void pack_channel(struct fast *f, const struct mo_qconv_desc *d, int64_t o)
{
    int64_t n_taps = product3(f->kernel), g = o / f->group_out, within = o % f->group_out;
    int8_t *panel = f->w + (g * f->group_panels + within / MO_QPANEL) * f->panel_bytes + within % MO_QPANEL * 4;
    for (int64_t c = 0; c < f->group_in; c++)
        for (int64_t t = 0; t < n_taps; t++) {
            int64_t k = place_of(f, t, c);
            panel[k / 4 * 64 + k % 4] = weight(d, (o * f->group_in + c) * n_taps + t);
        }
}

/* The place of channel c in tables and registers of depthwise: [block][j][l][4]. */
static int64_t depth_place(const struct fast *f, int64_t c)
{
    int64_t block = f->loops->depth_block, in = c % block;
    return c / block * block + in % 16 / 4 * (block / 4) + in / 16 * 4 + in % 4;
}

static void pack_depthwise(struct fast *f, const struct mo_qconv_desc *d, int64_t c)
{
    int64_t n_taps = product3(f->kernel), block = f->loops->depth_block, at = depth_place(f, c);
    int8_t *w = f->w + at / block * f->panel_bytes + at % block * 4;
    for (int64_t t = 0; t < n_taps; t++)
        w[t / 4 * block * 4 + t % 4] = weight(d, c * n_taps + t);
}

static int64_t table_place(const struct fast *f, int64_t o)
{
    if (f->way == DEPTHWISE)
        return depth_place(f, o);
    return o / f->group_out * f->group_panels * MO_QPANEL + o % f->group_out;
}

/* s = sum x w - x_zero sum w + bias */
static void take_zero(struct fast *f, int32_t x_zero)
{
    f->x_zero = x_zero;
    f->fill = (uint8_t)(x_zero + f->flip);
    for (int64_t i = 0; i < f->n_table; i++)
        f->bias[i] = (int32_t)((uint32_t)f->given_bias[i] - (uint32_t)(x_zero + f->flip) * (uint32_t)f->w_sum[i]);
}

static void make_tables(struct fast *f, const struct mo_qconv_desc *d, int64_t channels)
{
    int64_t each = f->group_in * product3(f->kernel);
    for (int64_t o = 0; o < channels; o++) {
        int64_t to = table_place(f, o);
        uint32_t sum = 0;
        for (int64_t i = 0; i < each; i++)
            sum += (uint32_t)weight(d, o * each + i);
        f->given_bias[to] = d->bias ? d->bias[o] : 0;
        f->w_sum[to] = (int32_t)sum;
        f->factor[to] = d->factor ? d->factor[o] : 0;
        f->offset[to] = d->offset ? d->offset[o] : 0;
        if (f->way == DEPTHWISE)
            pack_depthwise(f, d, o);
        else
            pack_channel(f, d, o);
    }
}

static bool pack(struct fast *f, const struct mo_qconv_desc *d)
{
    int64_t channels = d->shape.out_channels, n;
    if (f->way == DEPTHWISE) {
        n = round_up(channels, f->loops->depth_block);
        f->panel_bytes = f->n_segments * f->loops->depth_block;
        f->w = calloc((size_t)(n * f->n_segments + 64), 1);
    } else {
        f->group_panels = (f->group_out + MO_QPANEL - 1) / MO_QPANEL;
        f->panel_bytes = (int64_t)f->n_segments * f->n_groups * 64;
        n = f->groups * f->group_panels * MO_QPANEL;
        size_t bytes = (size_t)(f->groups * f->group_panels * f->panel_bytes);
        f->w = aligned_alloc(64, bytes + 64);
        if (f->w)
            memset(f->w, 0, bytes);
    }
    f->n_table = n;
    f->bias = calloc((size_t)n, sizeof *f->bias);
    f->given_bias = calloc((size_t)n, sizeof *f->given_bias);
    f->w_sum = calloc((size_t)n, sizeof *f->w_sum);
    f->factor = calloc((size_t)n, sizeof *f->factor);
    f->offset = calloc((size_t)n, sizeof *f->offset);
    if (!f->w || !f->bias || !f->given_bias || !f->w_sum || !f->factor || !f->offset)
        return false;
    make_tables(f, d, channels);
    take_zero(f, 0);
    f->finish = (struct mo_qfinish){
        .bias = f->bias, .factor = f->factor, .offset = f->offset, .y_dtype = d->y_dtype,
        .low = (float)(d->y_low - d->y_zero), .high = (float)(d->y_high - d->y_zero), .zero = d->y_zero,
    };
    f->y_bytes = d->y_dtype == 1 || d->y_dtype == 6 ? 4 : 1;
    return true;
}

/* Taps of depthwise are segments of their own, filled up to a multiple of four by the first one. */
static bool make_taps(struct fast *f)
{
    int64_t n_taps = product3(f->kernel);
    f->n_segments = (int)round_up(n_taps, 4);
    f->segment = calloc((size_t)f->n_segments, sizeof *f->segment);
    for (int64_t t = 0; f->segment && t < n_taps; t++)
        f->segment[t] = (t / f->kernel[2] * f->dilation[1] * f->pitch + t % f->kernel[2] * f->dilation[2]) * f->channels;
    return f->segment != NULL;
}

/* ---- cutting ---------------------------------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Bands of lines: all of a picture while its copy fits, less where few pictures would leave threads idle. */
static void cut_lines(struct fast *f, double slices)
{
    int64_t lines = f->out[1], line_bytes = f->pitch * f->channels;
    int64_t fitting = most((BLOCK_BYTES / most(line_bytes, 1) - lines_of(f, 1)) / f->stride[1] + 1, 1);
    int64_t bands = (lines + fitting - 1) / fitting, wanted = (int64_t)(slices / (double)f->batch);
    bands = least(most(bands, wanted), most(lines / 2, 1));
    f->unit_rows = (lines + bands - 1) / bands;
    f->bands = (lines + f->unit_rows - 1) / f->unit_rows;
    f->n_units = f->batch * f->bands;
    f->scratch_each = (size_t)(lines_of(f, f->unit_rows) * line_bytes + SLACK + MO_QROWS * f->stride[2] * f->channels);
}

static void cut_rows(struct fast *f, double slices)
{
    int64_t rows = f->batch * product3(f->out), bytes = f->way == MATRIX ? f->channels : f->row_bytes;
    int64_t fitting = most(BLOCK_BYTES / most(bytes, 1) / MO_QROWS, 1) * MO_QROWS;
    int64_t wanted = round_up(most(rows / most((int64_t)slices, 1), 1), MO_QROWS);
    f->unit_rows = least(least(fitting, wanted), round_up(rows, MO_QROWS));
    f->n_units = (rows + f->unit_rows - 1) / f->unit_rows;
    f->scratch_each = (size_t)((f->way == MATRIX ? MO_QROWS : f->unit_rows) * f->row_bytes + SLACK);
}

static void cut(struct fast *f, const struct mo_conv_desc *d)
{
    double macs = (double)f->batch * (double)product3(f->out) * (double)d->out_channels * (double)f->group_in *
                  (double)product3(f->kernel);
    double slices = macs / SLICE_MACS;
    slices = slices < 1 ? 1 : slices > MAX_SLICES ? MAX_SLICES : slices;
    if (f->way == PICTURE || f->way == DEPTHWISE)
        cut_lines(f, slices);
    else
        cut_rows(f, slices);
    f->n_parts = 1;
    if (f->way != DEPTHWISE && f->groups == 1 && f->n_units < 8 && slices > (double)f->n_units)
        f->n_parts = most(least((int64_t)(slices / (double)f->n_units), f->group_panels / 2), 1);
    f->n_slices = (int)least(f->n_units * f->n_parts, (int64_t)slices);
    f->scratch_each = (f->scratch_each + (size_t)f->n_groups + 63) / 64 * 64;    /* a step fills up by a sixteenth at most */
}

/* ---- rows --------------------------------------------------------------------------------------------- */

static void copy_bytes(const struct fast *f, uint8_t *to, const uint8_t *from, int64_t n)
{
    if (!f->flip && n > 0)      /* a row outside of the picture is no memory at all */
        memcpy(to, from, (size_t)n);
    for (int64_t i = 0; f->flip && i < n; i++)
        to[i] = from[i] ^ f->flip;
}

/* A line of a picture with its padding; NULL: all padding. */
static void copy_line(const struct fast *f, const uint8_t *line, uint8_t *to)
{
    int64_t left = f->pad[2] * f->channels, bytes = f->pitch * f->channels;
    int64_t n = line ? least(f->in[2] * f->channels, bytes - left) : 0;
    if (!line)
        left = bytes;
    memset(to, f->fill, (size_t)left);
    copy_bytes(f, to + left, line, n);
    memset(to + left + n, f->fill, (size_t)(bytes - left - n));
}

static void copy_picture(const struct fast *f, const uint8_t *x, int64_t first_line, int64_t lines, uint8_t *to)
{
    int64_t line_bytes = f->in[2] * f->channels;
    for (int64_t i = 0; i < lines; i++, to += f->pitch * f->channels) {
        int64_t from = first_line + i - f->pad[1];
        copy_line(f, from >= 0 && from < f->in[1] ? x + from * line_bytes : NULL, to);
    }
}

/* One line of the kernel over one line of the picture, which may be all padding (NULL). */
static uint8_t *gather_line(const struct fast *f, const uint8_t *line, int64_t column, uint8_t *to)
{
    bool is_dense = line && f->groups == 1 && f->dilation[2] == 1 && column >= 0 && column + f->kernel[2] <= f->in[2];
    if (is_dense) {
        copy_bytes(f, to, line + column * f->channels, f->kernel[2] * f->channels);
        return to + f->kernel[2] * f->channels;
    }
    for (int64_t k = 0; k < f->kernel[2]; k++, column += f->dilation[2], to += f->group_in)
        if (line && column >= 0 && column < f->in[2])
            copy_bytes(f, to, line + column * f->channels, f->group_in);
        else
            memset(to, f->fill, (size_t)f->group_in);
    return to;
}

static void gather_row(const struct fast *f, const uint8_t *x, int64_t row, int64_t group, uint8_t *to)
{
    int64_t column = row % f->out[2], line = row / f->out[2] % f->out[1], plane = row / f->out[2] / f->out[1] % f->out[0];
    int64_t line_bytes = f->in[2] * f->channels;
    const uint8_t *picture = x + row / product3(f->out) * product3(f->in) * f->channels + group * f->group_in;
    for (int64_t p = 0; p < f->kernel[0]; p++)
        for (int64_t k = 0; k < f->kernel[1]; k++) {
            int64_t z = plane * f->stride[0] - f->pad[0] + p * f->dilation[0];
            int64_t y = line * f->stride[1] - f->pad[1] + k * f->dilation[1];
            bool is_inside = z >= 0 && z < f->in[0] && y >= 0 && y < f->in[1];
            to = gather_line(f, is_inside ? picture + (z * f->in[1] + y) * line_bytes : NULL,
                             column * f->stride[2] - f->pad[2], to);
        }
}

/* ---- products --------------------------------------------------------------------------------------------- */

struct job {
    const struct fast *f;
    const uint8_t *x;
    uint8_t *y, *scratch;
};

/* Rows of a and where their results go: row r to y's pixel r, or, in a picture, its column and line. */
struct run {
    const uint8_t *a;
    int64_t a_stride, rows;
    int64_t y_pixel;            /* of row 0 */
    int64_t pitch, width;       /* rows of a line, and how many of them count; 0: all of all */
};

static void finish_rows(const struct job *j, const int32_t *c, int64_t pixel, int rows, int64_t first, int64_t place, int n)
{
    const struct fast *f = j->f;
    int64_t channels = f->groups * f->group_out;
    f->loops->finish(&f->finish, c, rows, place, n, j->y + (size_t)(pixel * channels + first) * f->y_bytes, channels);
}

/* Rows row.. of the run, n of them, from the sums: what lies between lines is left out. */
static void put(const struct job *j, const struct run *run, const int32_t *c, int64_t row, int n, int64_t first,
                int64_t place, int channels)
{
    if (!run->pitch) {
        finish_rows(j, c, run->y_pixel + row, n, first, place, channels);
        return;
    }
    for (int64_t end = row + n; row < end;) {
        int64_t line = row / run->pitch, column = row % run->pitch, stop = least(end, (line + 1) * run->pitch);
        int64_t use = least(stop - row, run->width - column);
        if (use > 0)
            finish_rows(j, c, run->y_pixel + line * run->width + column, (int)use, first, place, channels);
        c += (stop - row) * MO_QTILE_WIDTH;
        row = stop;
    }
}

/* The widest call for as many panels. */
static int panels_at_once(const struct mo_qproduct *p, int64_t left)
{
    int n = (int)least(left, MO_QPANELS);
    while (!p->rows[n])
        n--;
    return n;
}

static void multiply_run(const struct job *j, const struct run *run, int64_t group, int64_t panel, int64_t panel_end)
{
    const struct fast *f = j->f;
    _Alignas(64) int32_t c[MO_QROWS * MO_QTILE_WIDTH];
    struct mo_qtile t = { .a_stride = run->a_stride, .segment = f->segment, .n_segments = f->n_segments,
                          .n_groups = f->n_groups, .step = f->step, .b_panel = f->panel_bytes, .c = c };
    for (; panel < panel_end; panel += t.panels) {
        t.panels = panels_at_once(&f->product, panel_end - panel);
        int64_t most_rows = f->product.rows[t.panels], n_tiles = (run->rows + most_rows - 1) / most_rows;
        int64_t each = f->product.whole_tiles ? most_rows : (run->rows + n_tiles - 1) / n_tiles;
        int64_t first = panel * MO_QPANEL;
        int channels = (int)least(t.panels * MO_QPANEL, f->group_out - first);
        t.b = f->w + (group * f->group_panels + panel) * f->panel_bytes;
        for (int64_t row = 0; row < run->rows; row += each) {
            t.a = run->a + row * run->a_stride;
            t.rows = (int)least(each, run->rows - row);
            f->product.product(&t);
            put(j, run, c, row, t.rows, group * f->group_out + first,
                (group * f->group_panels + panel) * MO_QPANEL, channels);
        }
    }
}

/* Rows that may be read beyond their end go through a copy. */
static void multiply_matrix(const struct job *j, int64_t begin, int64_t end, int64_t panel, int64_t panel_end, uint8_t *spare)
{
    const struct fast *f = j->f;
    int64_t rows = f->batch * product3(f->out), safe = end;
    int64_t reach = round_up(f->n_groups * 4, 4) - f->channels;      /* read behind a row */
    if (f->product.whole_tiles)
        safe = begin + (end - begin) / 16 * 16;
    while (safe > begin && safe * f->channels + reach > rows * f->channels)
        safe -= f->product.whole_tiles ? 16 : 1;
    struct run run = { .a = j->x + begin * f->channels, .a_stride = f->channels, .rows = safe - begin, .y_pixel = begin };
    if (run.rows)
        multiply_run(j, &run, 0, panel, panel_end);
    for (; safe < end; safe += run.rows) {
        run = (struct run){ .a = spare, .a_stride = f->row_bytes, .rows = least(end - safe, MO_QROWS), .y_pixel = safe };
        for (int64_t r = 0; r < run.rows; r++)
            memcpy(spare + r * f->row_bytes, j->x + (safe + r) * f->channels, (size_t)f->channels);
        multiply_run(j, &run, 0, panel, panel_end);
    }
}

static void multiply_gathered(const struct job *j, int64_t begin, int64_t end, int64_t panel, int64_t panel_end,
                              uint8_t *rows)
{
    const struct fast *f = j->f;
    for (int64_t group = 0; group < f->groups; group++) {
        for (int64_t r = begin; r < end; r++)
            gather_row(f, j->x, r, group, rows + (r - begin) * f->row_bytes);
        struct run run = { .a = rows, .a_stride = f->row_bytes, .rows = end - begin, .y_pixel = begin };
        multiply_run(j, &run, group, panel, panel_end);
    }
}

static void multiply_picture(const struct job *j, int64_t unit, int64_t panel, int64_t panel_end, uint8_t *copy)
{
    const struct fast *f = j->f;
    int64_t picture = unit / f->bands, line = unit % f->bands * f->unit_rows;
    int64_t lines = least(f->unit_rows, f->out[1] - line), step = f->stride[2] * f->channels;
    copy_picture(f, j->x + picture * f->in[1] * f->in[2] * f->channels, line * f->stride[1], lines_of(f, lines), copy);
    struct run run = { .a = copy, .a_stride = step, .y_pixel = (picture * f->out[1] + line) * f->out[2] };
    if (f->is_one_run) {
        run.pitch = f->pitch;
        run.width = f->out[2];
        run.rows = (lines - 1) * f->pitch + f->out[2];
        multiply_run(j, &run, 0, panel, panel_end);
        return;
    }
    run.rows = f->out[2];
    for (int64_t i = 0; i < lines; i++) {
        multiply_run(j, &run, 0, panel, panel_end);
        run.a += f->stride[1] * f->pitch * f->channels;
        run.y_pixel += f->out[2];
    }
}

static void each_channel(const struct job *j, int64_t unit, uint8_t *copy)
{
    const struct fast *f = j->f;
    int64_t picture = unit / f->bands, line = unit % f->bands * f->unit_rows, lines = least(f->unit_rows, f->out[1] - line);
    copy_picture(f, j->x + picture * f->in[1] * f->in[2] * f->channels, line * f->stride[1], lines_of(f, lines), copy);
    struct mo_qdepth d = {
        .x = copy, .pixel = f->stride[2] * f->channels, .tap = f->segment, .n_taps = f->n_segments,
        .n_channels = (int)f->channels, .n_pixels = (int)f->out[2], .w = f->w, .finish = &f->finish,
        .y = j->y + (picture * f->out[1] + line) * f->out[2] * f->channels,
    };
    for (int64_t i = 0; i < lines; i++) {
        f->loops->depthwise(&d);
        d.x += f->stride[1] * f->pitch * f->channels;
        d.y += f->out[2] * f->channels;
    }
}

static void run_slice(void *arg, int slice)
{
    const struct job *j = arg;
    const struct fast *f = j->f;
    uint8_t *scratch = j->scratch + (size_t)slice * f->scratch_each;
    int64_t total = f->n_units * f->n_parts, rows = f->batch * product3(f->out);
    if (f->product.begin && f->way != DEPTHWISE)
        f->product.begin(f->step);
    for (int64_t i = slice * total / f->n_slices; i < (slice + 1) * total / f->n_slices; i++) {
        int64_t unit = i / f->n_parts, part = i % f->n_parts;
        int64_t panel = part * f->group_panels / f->n_parts, panel_end = (part + 1) * f->group_panels / f->n_parts;
        int64_t begin = unit * f->unit_rows, end = least(begin + f->unit_rows, rows);
        switch (f->way) {
        case MATRIX: multiply_matrix(j, begin, end, panel, panel_end, scratch); break;
        case GATHER: multiply_gathered(j, begin, end, panel, panel_end, scratch); break;
        case PICTURE: multiply_picture(j, unit, panel, panel_end, scratch); break;
        case DEPTHWISE: each_channel(j, unit, scratch); break;
        }
    }
    if (f->product.end && f->way != DEPTHWISE)
        f->product.end();
}

/* ---- the kernel ---------------------------------------------------------------------------------------------- */

static bool can(const struct mo_device *dev, const struct mo_qconv_desc *d)
{
    const struct mo_conv_desc *s = &d->shape;
    if (!dev->qloops || !s->batch || !s->out_channels || !s->in_channels || product3(s->out) <= 0)
        return false;
    int32_t zero = d->w_signed ? 0 : 128;
    for (int64_t o = 0; o < s->out_channels; o++)
        if ((d->w_zero ? d->w_zero[o] : 0) != zero)
            return false;
    return true;
}

static bool build(struct fast *f, const struct mo_device *dev, const struct mo_qconv_desc *d)
{
    f->loops = dev->qloops;
    f->product = f->loops->product;
    f->flip = d->x_signed ? 128 : 0;
    take_shape(f, &d->shape);
#if defined(__x86_64__)
    if (dev->isa == MO_ISA_AMX && f->batch * product3(f->out) > 1)     /* a tile computes 16 rows, and one is needed */
        f->product = mo_qproduct_amx;
#endif
    f->way = choose(f, &d->shape);
    if (f->way == DEPTHWISE && (d->y_dtype == 1 || d->y_dtype == 6))
        f->way = GATHER;
    f->is_one_run = f->way == PICTURE && f->stride[1] == 1 && f->stride[2] == 1;
    f->pitch = (f->out[2] - 1) * f->stride[2] + (f->kernel[2] - 1) * f->dilation[2] + 1;
    bool ok = f->way == DEPTHWISE ? make_taps(f) : make_segments(f);
    if (!ok || !pack(f, d))
        return false;
    cut(f, &d->shape);
    return true;
}

void mo_cpu_qconv_free(struct mo_device *dev, struct mo_qconv *q)
{
    struct fast *f = fast_of(q);
    if (!f)
        return;
    mo_ref_qconv_free(dev, f->plain);
    free(f->segment);
    free(f->w);
    free(f->bias);
    free(f->given_bias);
    free(f->w_sum);
    free(f->factor);
    free(f->offset);
    free(f);
}

struct mo_qconv *mo_cpu_qconv_new(struct mo_device *dev, const struct mo_qconv_desc *d)
{
    struct fast *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    bool ok = can(dev, d) ? build(f, dev, d) : (f->plain = mo_ref_qconv_new(dev, d)) != NULL;
    if (ok)
        return (struct mo_qconv *)f;
    mo_cpu_qconv_free(dev, (struct mo_qconv *)f);
    return NULL;
}

size_t mo_cpu_qconv_scratch_bytes(const struct mo_qconv *q)
{
    const struct fast *f = (const struct fast *)q;
    return f->plain ? mo_ref_qconv_scratch_bytes(f->plain) : (size_t)f->n_slices * f->scratch_each;
}

void mo_cpu_qconv(struct mo_device *dev, struct mo_qconv *q, int32_t x_zero, const void *x, void *y, void *scratch)
{
    struct fast *f = fast_of(q);
    if (!f->plain && x_zero != f->x_zero)
        take_zero(f, x_zero);
    if (f->plain)
        mo_ref_qconv(dev, f->plain, x_zero, x, y, scratch);
    else
        mo_team_run(dev->team, f->n_slices, run_slice, &(struct job){ f, x, y, scratch });
}
