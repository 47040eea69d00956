/* qconv.h - inner loops of 8-bit convolution, compiled once for each instruction
 * set from one text (qconv_body.h), and by hand for AMX.
 *
 * Weights are packed in panels of 16 output channels: [group of 4 k][channel][4 k],
 * which is what vpdpbusd wants of a register and AMX of a tile. k runs over
 * segments that are contiguous in the picture (the taps of one row of the kernel
 * with their channels), each filled up to whole groups with weights of 0, so that
 * what is read behind a segment does not count. */
#ifndef MO_QCONV_H
#define MO_QCONV_H

#include "kernels/cpu/cpu.h"

#define MO_QPANEL 16            /* output channels of a panel */
#define MO_QPANELS 4            /* the most that one call of product takes */
#define MO_QROWS 32             /* likewise rows */
#define MO_QSTEP 16             /* groups of 4 in a step of AMX at most */

/* rows of pixels times panels of weights */
struct mo_qtile {
    const uint8_t *a;           /* first row; row r begins r * a_stride behind it */
    int64_t a_stride;
    const int64_t *segment;     /* where segments begin, from the row */
    int n_segments;
    int n_groups, step;         /* of 4 bytes in a segment; in one step, which divides them */
    const int8_t *b;            /* first panel */
    int64_t b_panel;            /* bytes of a panel */
    int rows, panels;
    int32_t *c;                 /* sums: MO_QROWS x MO_QPANELS * MO_QPANEL */
};
#define MO_QTILE_WIDTH (MO_QPANELS * MO_QPANEL)

/* From sums to results; tables have an entry for each channel of all panels. */
struct mo_qfinish {
    const int32_t *bias;
    const float *factor, *offset;
    int y_dtype;
    float low, high;            /* before the zero point is added */
    int32_t zero;
};

/* One row of output pixels of a convolution of each channel on its own. Channels are done in blocks of
 * loops->depth_block = 16 L. Interleaving the bytes of four taps leaves register j with channels
 * 16 l + 4 j + (0..3) of the block, l < L; tables are in that order: [block][j][l][4]. */
struct mo_qdepth {
    const uint8_t *x;           /* of output pixel 0, tap 0 */
    int64_t pixel;              /* bytes from one output pixel's input to the next one's */
    const int64_t *tap;         /* where taps begin, from that; a multiple of 4 of them, those without weight anywhere */
    int n_taps, n_channels, n_pixels;
    const int8_t *w;            /* [block][group of 4 taps][j][l][4][tap] */
    const struct mo_qfinish *finish;    /* tables in interleaved order */
    uint8_t *y;
};

/* How sums are made. */
struct mo_qproduct {
    int rows[MO_QPANELS + 1];   /* the most rows that a call takes, by panels; 0: it does not take so many panels */
    bool whole_tiles;           /* reads up to the next 16 rows, and steps need to divide segments */
    void (*begin)(int step);    /* in a thread, before and after a run of products; NULL: nothing to do */
    void (*end)(void);
    void (*product)(const struct mo_qtile *t);
};

/* Pooled pixels of a convolution of floats, to bytes (qfirst.c). */
struct mo_qfirst {
    const int32_t *tap, *window;    /* where taps lie, from the first; where convolutions of a pool begin, from its first */
    int n_taps, n_windows;
    int64_t step;                   /* from one pooled pixel to the next */
    const float *w;                 /* taps x width, then the bias; width is a multiple of 32 */
    int64_t width;
    int n_channels;
    float scale, low, high;         /* limits before the zero point is added */
    int32_t zero;
};

struct mo_qloops {
    struct mo_qproduct product;
    /* rows of c, from channel `first` on, n of them; y rows are y_stride elements apart */
    void (*finish)(const struct mo_qfinish *f, const int32_t *c, int rows, int64_t first, int n, void *y, int64_t y_stride);
    int depth_block;
    void (*depthwise)(const struct mo_qdepth *d);
    /* ---- pooling: one output pixel, whose taps begin at x[0..n_taps), at least one; y may be none of them ---- */
    void (*max)(const uint8_t *const *x, int n_taps, int64_t channels, bool is_signed, uint8_t *y);
    /* factor: of the sum, see kernels.def */
    void (*average)(const uint8_t *const *x, int n_taps, int64_t channels, bool is_signed, int32_t x_zero, float factor,
                    int32_t y_zero, uint8_t *y);
    /* n elements behind each other of a and b; signs are turned before: a ^ a_flip, and so in the zero points */
    void (*binary)(const struct mo_qbinary *p, uint8_t a_flip, uint8_t b_flip, int64_t n, const uint8_t *a,
                   const uint8_t *b, uint8_t *y);
    /* y = bytes of x / scale, rounded half to even, + zero, held to low .. low + 255 */
    void (*quantize)(int64_t n, const float *x, float scale, int32_t zero, int32_t low, uint8_t *y);
    void (*first)(const struct mo_qfirst *f, const float *x, int n_pixels, uint8_t *y);
    /* y = table[x] */
    void (*lookup)(int64_t n, const uint8_t *table, const uint8_t *x, uint8_t *y);
};
extern const struct mo_qloops mo_qloops_avx2, mo_qloops_avx512, mo_qloops_vnni;
extern const struct mo_qproduct mo_qproduct_amx;
void mo_qlookup_vbmi(int64_t n, const uint8_t *table, const uint8_t *x, uint8_t *y);

#endif
