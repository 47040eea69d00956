/* wino.h - the transforms of Winograd's convolution with kernels of 3 x 3 (conv_wino.c), one table for each instruction
 * set. An output tile is T x T pixels, T 2 or 4; it is read from T + 2 squared of the input, whose transform has as many
 * numbers for each channel. Those of one place in all tiles of a block are a plane: vectors of `width` input channels, tile
 * by tile, then the next channels, zeros behind the last one. */
#ifndef MO_WINO_H
#define MO_WINO_H

#include "kernels/cpu/cpu.h"

/* Channels-last pictures, cut into tiles row by row, picture by picture. */
struct mo_wino_image {
    int64_t in_h, in_w, out_h, out_w, pad_h, pad_w;         /* padding in front */
    int64_t in_channels, out_channels;
    int64_t tiles_h, tiles_w;                               /* of one picture */
    int t;
};

/* What a tile becomes on its way to memory: act(tile + bias + residual). */
struct mo_wino_end {
    const float *bias, *residual;       /* NULL: none */
    enum mo_act act;                    /* NONE, RELU or CLIP */
    float lo, hi;
};

struct mo_wino_loops {
    int64_t width;                      /* panels of output channels are of one or two of it */
    /* Kernels of the outputs first..first + n - 1 to to[place * plane + in * panel + out], plane: input channels, a multiple
     * of the width, times panel; 0 where there is none. Element (out, in, tap) lies at w[out * w_out + in * w_in + tap], or
     * + 8 - tap where they are turned around. */
    void (*weights)(const struct mo_wino_image *p, int64_t first, int64_t n, const float *w, int64_t w_out, int64_t w_in,
                    bool is_turned, int64_t panel, float *to);
    /* Tiles first..last - 1 as those from `at` of a block of `block`. */
    void (*in)(const struct mo_wino_image *p, int64_t first, int64_t last, const float *x, int64_t block, int64_t at,
               int64_t plane, float *to);
    /* to[tile * panel + out] = sum over k, a multiple of the width, of one plane and its weights. */
    void (*product)(int64_t n_tiles, int64_t k, int64_t panel, const float *plane, int64_t block, const float *weights,
                    float *to);
    /* n output channels from `channel` of these tiles, from[place * plane + (tile - first) * panel], to y. */
    void (*out)(const struct mo_wino_image *p, const struct mo_wino_end *end, int64_t first, int64_t last, int64_t channel,
                int64_t n, const float *from, int64_t plane, int64_t panel, float *y);
};

extern const struct mo_wino_loops mo_wino_avx2, mo_wino_avx512;

#endif
